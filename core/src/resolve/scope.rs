//! Which ports can matter to a file's sessions, so that a hook on a node with hundreds of guests need
//! not look at all of them.
//!
//! Looking at less must never change the plan; a law of `tests/laws.rs` holds this module to it.

use crate::model::firewall_bridge_of;
use std::collections::BTreeSet;

use crate::config::Annotations;
use crate::config::selector::{Output, Selector};
use crate::model::{IfName, PortRole, Vmid, port_owner};

/// What has to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// All devices, with their addresses.
    Everything,
    /// The ports of all guests, and of these, which are sensors, more than that they are there.
    EveryGuest(BTreeSet<Vmid>),
    /// These only.
    Only(Scope),
}

/// Guests by number, and ports by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    guests: BTreeSet<(Vmid, Vmid)>,
    /// Ports that are not guests'.
    pub ports: BTreeSet<IfName>,
}

impl Interest {
    /// Reads it off the sessions. Whatever chooses by something else than numbers and names may choose
    /// any guest.
    pub fn of(annotations: &Annotations) -> Self {
        let mut scope = Scope::default();
        let mut sensors = BTreeSet::new();
        let mut every_guest = false;
        for session in annotations.sessions.values() {
            for source in &session.sources {
                match &source.value {
                    Selector::Guests { low, high, .. } => {
                        scope.guests.insert((*low, *high));
                    }
                    Selector::Port(port) => {
                        scope.ports.insert(port.clone());
                    }
                    Selector::Bridge(_) => return Self::Everything,
                    Selector::Tag(..)
                    | Selector::Pool(_)
                    | Selector::Node(..)
                    | Selector::All(_) => every_guest = true,
                }
            }
            for output in &session.outputs {
                match &output.value {
                    Output::Nic(nic) => {
                        scope.guests.insert((nic.vmid, nic.vmid));
                        sensors.insert(nic.vmid);
                    }
                    // Whether it may be taken depends on its neighbours.
                    Output::Port(_) => return Self::Everything,
                    _ => {}
                }
            }
        }
        match (every_guest, scope.ports.is_empty()) {
            (false, _) => Self::Only(scope),
            (true, true) => Self::EveryGuest(sensors),
            (true, false) => Self::Everything,
        }
    }
}

/// Is it not enough to know that a device exists, when every guest may matter?
///
/// It is for a guest's device that is a port of Open vSwitch itself and has no firewall bridge, for the
/// firewall bridges and for their ports; it is not for a sensor's device, nor for one that may be behind a
/// firewall bridge, or on a Linux bridge.
pub fn needs_detail(
    name: &str,
    sensors: &BTreeSet<Vmid>,
    is_ovs_port: impl Fn(&str) -> bool,
    exists: impl Fn(&str) -> bool,
) -> bool {
    match port_owner(name) {
        Some((nic, PortRole::Device(_))) => {
            sensors.contains(&nic.vmid) || !is_ovs_port(name) || exists(&nic.firewall_bridge())
        }
        Some((_, PortRole::LinuxFirewall)) => true,
        Some((_, PortRole::OvsFirewall)) | None => false,
    }
}

impl Scope {
    /// Can a device of this name matter?
    pub fn covers(&self, name: &str) -> bool {
        let nic = port_owner(name)
            .map(|(nic, _)| nic)
            .or_else(|| firewall_bridge_of(name));
        nic.is_some_and(|nic| {
            self.guests
                .iter()
                .any(|(low, high)| (*low..=*high).contains(&nic.vmid))
        }) || self.ports.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn interest(text: &str) -> Interest {
        let annotations = parse("span.cfg", text);
        assert!(annotations.is_valid());
        Interest::of(&annotations)
    }

    #[test]
    fn numbers_and_names_narrow_it_and_groups_do_not() {
        let Interest::Only(scope) =
            interest("[a]\nsource = 101, 300-310/net0, port:eno1\noutput = 200/net1\n")
        else {
            panic!("more");
        };
        for name in [
            "tap101i0",
            "veth101i3",
            "fwln101o0",
            "fwbr101i0",
            "tap305i1",
            "tap200i0",
            "eno1",
        ] {
            assert!(scope.covers(name), "{name}");
        }
        for name in [
            "tap102i0",
            "tap1010i0",
            "fwbr311i0",
            "eno2",
            "vmbr0",
            "fwbr101",
        ] {
            assert!(!scope.covers(name), "{name}");
        }
        for source in ["tag:web", "pool:prod", "node:pve1", "all"] {
            assert_eq!(
                interest(&format!("[a]\nsource = {source}\noutput = 200/net1\n")),
                Interest::EveryGuest([Vmid::new(200).unwrap()].into())
            );
        }
        assert_eq!(
            interest("[a]\nsource = all, port:eno1\noutput = 200/net1\n"),
            Interest::Everything
        );
        assert_eq!(
            interest("[a]\nsource = 101\noutput = port:eno2\n"),
            Interest::Everything
        );
        assert_eq!(
            interest("[a]\nsource = bridge:vmbr2\nexclude = 101\noutput = 200/net1\n"),
            Interest::Everything
        );
    }
}
