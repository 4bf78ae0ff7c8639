//! An output's or a source's port: what its bridge sends there, what of a frame is left to the device, and what it takes
//! in.
//!
//! Read and changed exactly as far as [`PortSettings`] goes, and by name and bit, so that what was there before can be
//! put back.

pub mod backup;
pub mod setup;

mod error;
mod flags;

use std::collections::BTreeSet;

use crate::sys::ethtool::Features;
use pve_span_core::engine::port::{PortSettings, Switch, is_unfinished};
use pve_span_core::model::IfName;

pub use error::Error;
use error::failed;
pub use flags::{set_flags, set_link};

fn features(device: &IfName) -> Result<Features<'_>, Error> {
    Features::of(device).map_err(failed(device, "reading its offloads"))
}

/// What a port is like.
///
/// # Errors
/// There is no such device, or it does not answer.
pub fn read(device: &IfName) -> Result<PortSettings, Error> {
    if !device.can_be_device() {
        return Err(Error::Gone {
            device: device.clone(),
        });
    }
    let settings = flags::read(device)?;
    Ok(PortSettings {
        offloads: features(device)?.requested(is_unfinished),
        ..settings
    })
}

/// Does the network card switch frames itself, where flows are left to it (`hw-tc-offload`)?
///
/// # Errors
/// There is no such device, or it does not answer.
pub fn switches_in_hardware(device: &IfName) -> Result<bool, Error> {
    let feature = BTreeSet::from(["hw-tc-offload".to_owned()]);
    Ok(!features(device)?.active(&feature).is_empty())
}

/// Asks for offloads, or for doing without. Names that the kernel does not know, and those that the device cannot
/// switch, are passed over.
///
/// What is asked for works as far as others that it needs do: segmentation needs checksums.
///
/// # Errors
/// There is no such device, the kernel does not want to, or something that was to be off is still on.
pub fn set_offloads(device: &IfName, names: &BTreeSet<String>, to: Switch) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let switching = failed(device, "switching its offloads");
    features(device)?.request(names, to).map_err(switching)?;
    if to.is_on() {
        return Ok(());
    }
    let names = features(device)?.active(names);
    if names.is_empty() {
        Ok(())
    } else {
        Err(Error::Kept {
            device: device.clone(),
            names,
        })
    }
}
