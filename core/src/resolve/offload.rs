//! Whether copies have to be finished before they leave through a device. A network card cuts frames and fills in their
//! checksums itself; a virtual device hands over what it gets, unless its offloads are off.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::IfName;
use crate::state::Link;

/// The kinds of devices (`IFLA_INFO_KIND`) that lead to another program or network namespace of the same kernel.
const VIRTUAL: [&str; 6] = ["veth", "tun", "openvswitch", "netkit", "dummy", "ifb"];

/// Does the device, or what it is built on, hand frames over as they are?
pub fn hands_over_unfinished(device: &IfName, links: &BTreeMap<IfName, Link>) -> bool {
    let mut known = BTreeSet::new();
    let mut rest = vec![device];
    while let Some(name) = rest.pop() {
        let Some(link) = links.get(name).filter(|_| known.insert(name)) else {
            continue;
        };
        match link.kind.as_deref() {
            Some(kind) if VIRTUAL.contains(&kind) => return true,
            Some("bond" | "team") => {
                let members = links
                    .iter()
                    .filter(|(_, member)| member.master.as_ref() == Some(name));
                rest.extend(members.map(|(member, _)| member));
            }
            // Its features are its own to switch off; those of a macvlan never go off.
            Some("vlan") => rest.extend(&link.parent),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(devices: &[(&str, &str, &str, &str)]) -> BTreeMap<IfName, Link> {
        let name = |text: &str| text.parse::<IfName>().ok();
        let link = |(_, kind, parent, master): &(&str, &str, &str, &str)| Link {
            kind: (!kind.is_empty()).then(|| (*kind).to_owned()),
            parent: name(parent),
            master: name(master),
            ..Link::default()
        };
        devices
            .iter()
            .map(|device| (name(device.0).unwrap(), link(device)))
            .collect()
    }

    #[test]
    fn a_virtual_device_hands_frames_over_unfinished_and_a_network_card_does_not() {
        let links = links(&[
            ("eno1", "", "", "bond0"),
            ("eno1.5", "vlan", "eno1", ""),
            ("bond0", "bond", "", "vmbr0"),
            ("span0", "veth", "", ""),
            ("span0.5", "vlan", "span0", ""),
            ("span1", "tun", "", ""),
            ("span2", "openvswitch", "", ""),
            ("bond1", "bond", "", ""),
            ("member", "veth", "", "bond1"),
            ("loop", "vlan", "loop", ""),
            ("span0m", "macvlan", "span0", ""),
        ]);
        let unfinished: Vec<&str> = links
            .keys()
            .filter(|name| hands_over_unfinished(name, &links))
            .map(IfName::as_str)
            .collect();
        assert_eq!(
            unfinished,
            ["bond1", "member", "span0", "span0.5", "span1", "span2"]
        );
    }
}
