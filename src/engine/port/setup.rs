//! Changes of outputs' and sources' devices, written down before they are made, so that they can be put back whatever happens.

use std::collections::BTreeSet;
use std::path::Path;

use crate::engine::port;
use crate::engine::port::backup;
use crate::engine::port::backup::PortBackups;
use crate::sys;
use pve_span_core::engine::port::is_link_local;
use pve_span_core::engine::port::{BridgeFlags, LinkChange, Switch};
use pve_span_core::model::IfName;
use pve_span_core::plan::PortChange;
use pve_span_core::state::LinkState;

/// Why a device is not as it has to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What it was like before cannot be written down, so it is not touched.
    #[error("{device} stays as it is, since what it is like now cannot be noted")]
    Saved {
        /// The device.
        device: IfName,
        /// Why not.
        source: backup::Error,
    },
    /// The kernel did not want to.
    #[error("{device} is not as an output or a source has to be")]
    Device {
        /// The device.
        device: IfName,
        /// Why not.
        source: port::Error,
    },
}

impl Error {
    /// Which device.
    pub fn device(&self) -> &IfName {
        match self {
            Self::Saved { device, .. } | Self::Device { device, .. } => device,
        }
    }
}

/// Makes one change; `saved` is what is written down, before and after.
///
/// # Errors
/// It was not made, or not wholly. A device that has gone meanwhile is none: the next look sees that.
pub fn carry_out(root: &Path, change: &PortChange, saved: &mut PortBackups) -> Result<(), Error> {
    let device = change.device();
    let store = |saved: &PortBackups| {
        backup::store(root, saved).map_err(|source| Error::Saved {
            device: device.clone(),
            source,
        })
    };
    match change {
        PortChange::Prepare {
            index,
            flags,
            offloads,
            before,
            ..
        } => {
            if flags.is_some() || !offloads.is_empty() {
                saved.insert(device.clone(), before.clone());
                store(saved)?;
            }
            set(device, *index, flags.as_ref(), offloads, Switch::Off)
        }
        PortChange::Listen {
            index,
            link,
            before,
            ..
        } => {
            saved.insert(device.clone(), before.clone());
            store(saved)?;
            set_link(device, *index, *link)
        }
        PortChange::Restore {
            index,
            flags,
            offloads,
            link,
            remains,
            ..
        } => {
            set(device, *index, flags.as_ref(), offloads, Switch::On)?;
            set_link(device, *index, put_back(device, *index, *link))?;
            match remains {
                Some(remains) => saved.insert(device.clone(), remains.clone()),
                None => saved.remove(device),
            };
            store(saved)
        }
        PortChange::Forget { .. } => {
            saved.remove(device);
            store(saved)
        }
    }
}

/// What of a link is put back: a device that somebody uses by now stays up.
fn put_back(device: &IfName, index: u32, link: LinkChange) -> LinkChange {
    if link.up.is_none_or(Switch::is_on) {
        return link;
    }
    let Some(why) = used_by(device, index) else {
        return link;
    };
    log::info!("{device} stays up: {why}");
    LinkChange { up: None, ..link }
}

/// What has come to use a device since it was set up. Where that cannot be told, something has.
fn used_by(device: &IfName, index: u32) -> Option<String> {
    let Ok(links) = sys::links() else {
        return Some("what uses it cannot be told".to_owned());
    };
    let link = links.get(device).filter(|link| link.index == index)?;
    if let Some(master) = &link.master {
        return Some(format!("it is part of {master} by now"));
    }
    if let Some(address) = link
        .addresses
        .iter()
        .find(|address| !is_link_local(address))
    {
        return Some(format!("it has the address {address} by now"));
    }
    let mut above = links
        .iter()
        .filter(|(_, link)| link.parent.as_ref() == Some(device) && link.state != LinkState::Down);
    if let Some((above, _)) = above.next() {
        return Some(format!("{above} is built on it by now"));
    }
    let is_routed = sys::is_routed(index).unwrap_or(true);
    is_routed.then(|| "a route goes out by it by now".to_owned())
}

fn set_link(device: &IfName, index: u32, link: LinkChange) -> Result<(), Error> {
    if link.is_nothing() {
        return Ok(());
    }
    match port::set_link(device, index, link) {
        Ok(()) | Err(port::Error::Gone { .. }) => Ok(()),
        Err(source) => Err(Error::Device {
            device: device.clone(),
            source,
        }),
    }
}

fn set(
    device: &IfName,
    index: u32,
    flags: Option<&BridgeFlags>,
    offloads: &BTreeSet<String>,
    to: Switch,
) -> Result<(), Error> {
    // The one is not left out because the other does not work.
    let offloads = port::set_offloads(device, offloads, to);
    let flags = flags.map_or(Ok(()), |flags| port::set_flags(device, index, flags));
    match flags.and(offloads) {
        Ok(()) | Err(port::Error::Gone { .. } | port::Error::NoBridgePort { .. }) => Ok(()),
        Err(source) => Err(Error::Device {
            device: device.clone(),
            source,
        }),
    }
}
