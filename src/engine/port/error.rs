//! How work on a port failed.

use std::io;

use nix::libc;
use pve_span_core::model::IfName;

/// Why a port could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device has gone, perhaps since it was last seen.
    #[error("{device} has gone")]
    Gone {
        /// The device.
        device: IfName,
    },
    /// It is in no Linux bridge, perhaps not any more.
    #[error("{device} is no port of a Linux bridge")]
    NoBridgePort {
        /// The device.
        device: IfName,
    },
    /// The kernel keeps some of what was to be off.
    #[error("{device} keeps {}", names.join(", "))]
    Kept {
        /// The device.
        device: IfName,
        /// The offloads.
        names: Vec<String>,
    },
    /// Something else went wrong.
    #[error("cannot work on {device} ({doing})")]
    Failed {
        /// The device.
        device: IfName,
        /// What was being done.
        doing: &'static str,
        /// How it failed.
        source: io::Error,
    },
}

/// How a step on a device failed.
pub(super) fn failed(device: &IfName, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    let device = device.clone();
    move |source| match source.raw_os_error() {
        Some(libc::ENODEV) => Error::Gone { device },
        _ => Error::Failed {
            device,
            doing,
            source,
        },
    }
}
