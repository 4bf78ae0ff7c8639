//! What nftables' copies take, and where they leave.

use super::expected::{Takes, known, vlan_for};
use super::{
    CapturePlan, DeviceSide, Node, Subject, Way, is_one_station, no_mac, not_a_guest, only_it_can,
};
use crate::engine::nft::Side;
use crate::engine::nft::spec::{Copies, CopySource, DeviceEnd, Frames, Mac, Passing};
use crate::model::IfName;
use crate::model::OutputKey;

impl Node<'_> {
    /// What nftables copies.
    pub(super) fn copies(&self, key: &OutputKey, copies: &Copies, watching: &mut CapturePlan) {
        let known = known(key, copies, self.desired);
        let group = watching.group(&self.sensor(&copies.device, Side::Egress));
        let part = group.part(key, Some(&copies.frames));
        for (device, source) in &copies.sources {
            let whole = self.whole_bridge(device, key);
            for (side, passing) in source.hooks() {
                let name = match (&whole, source.nic) {
                    (Some(bridge), _) => format!("bridge:{bridge}"),
                    (None, Some(nic)) => nic.to_string(),
                    (None, None) => device.to_string(),
                };
                let way = match whole {
                    Some(_) => not_a_guest(&name),
                    None => self.way_to(&name, device, source, passing, &copies.frames),
                };
                let subject = Subject {
                    name,
                    passing,
                    whole: whole.is_some(),
                    way,
                };
                let takes = Takes::copied(source, &copies.frames, passing, &known);
                let spot = DeviceSide {
                    device: device.clone(),
                    side,
                };
                group.add(part, subject, spot, takes, passing);
            }
        }
        self.rest_of_whole(key, copies, group, part);
    }

    /// How marked frames get to a device where nftables copies: out of it, or into it by way of Open vSwitch.
    fn way_to(
        &self,
        name: &str,
        device: &IfName,
        source: &CopySource,
        passing: Passing,
        frames: &Frames,
    ) -> Way {
        let Some(nic) = source.nic else {
            return not_a_guest(name);
        };
        if passing == Passing::From {
            return only_it_can(name);
        }
        let mac = match source.mac {
            Mac::Known(mac) => Some(mac),
            Mac::None | Mac::Unknown => (self.mac)(nic),
        };
        let Some(mac) = mac.filter(is_one_station) else {
            return no_mac(name);
        };
        let vlan = vlan_for(source.vlans, &frames.vlans);
        match (source.facing, self.port_at(device)) {
            (DeviceEnd::Source, _) => Way::Device {
                device: device.clone(),
                mac,
                vlan,
            },
            (DeviceEnd::Node, Some(port)) => Way::Bridge {
                device: port.bridge.clone(),
                mac,
                vlan: port.tag.or(vlan),
            },
            (DeviceEnd::Node, None) => Way::None(format!("{name} is in no bridge")),
        }
    }

    /// The bridge of the device, if the session takes that as a whole.
    fn whole_bridge(&self, device: &IfName, key: &OutputKey) -> Option<IfName> {
        let whole = self.whole_bridges(&key.session);
        let behind = self.port_at(device).into_iter();
        let ports = behind.chain(self.map.of_device(device));
        let mut bridges = ports.map(|port| &port.bridge).chain([device]);
        bridges.find(|bridge| whole.contains(bridge)).cloned()
    }
}
