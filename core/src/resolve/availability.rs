//! Is an output free? It is cut off from everything but copies, so it is refused unless that provably cuts off nothing
//! else, or `capture-only` says that it may.

use std::collections::BTreeSet;

use super::need::Need;
use super::outputs::{Outputs, Place, Target};
use super::reachability::{ForwardingGraph, UplinkRequirement};
use crate::config::Session;
use crate::config::selector::Output;
use crate::engine::nft::names;
use crate::engine::nft::names::Part;
use crate::engine::nft::spec::{Exclusive, OutputPort};
use crate::engine::port::{PortSettings, is_link_local};
use crate::model::OutputKey;
use crate::model::{GuestKind, IfName, NicId, NicIndex, Switch};
use crate::pve::guest::Guest;
use crate::state::port_map::is_firewall_bridge;
use crate::state::{Fault, Mirror, OvsState};

/// How an output stands whose need is known.
fn stands(need: Result<(), Need>, session: &Session, output: &Output) -> Result<Standing, Need> {
    match need {
        Ok(()) => Ok(Standing::Free),
        Err(need) if need.is_confirmed_by(session, output) => Ok(Standing::Confirmed),
        Err(need) => Err(need),
    }
}

/// What else needs a guest's NIC, by the guest's config. Nothing is the answer if the NIC is free, and none at all if the
/// guest has no such NIC.
pub fn need_of_nic(guest: &Guest, nic: NicId) -> Option<Result<(), Need>> {
    guest.nics.get(&nic.index)?;
    let configured = guest.addresses.get(&nic.index).map(|value| {
        let key = match guest.kind {
            GuestKind::Qemu => "ipconfig",
            GuestKind::Lxc => "net",
        };
        Need::Configured(nic, format!("{key}{}", nic.index), value.clone())
    });
    let is_only = guest.nics.len() == 1;
    let is_first = nic.index == NicIndex::FIRST;
    Some(match configured {
        _ if is_only => Err(Need::OnlyNic(nic)),
        Some(need) => Err(need),
        None if is_first => Err(Need::FirstNic(nic)),
        None => Ok(()),
    })
}

/// Is a guest's NIC refused as an output, by the guest's config?
pub fn is_refused(session: &Session, nic: NicId, guest: Option<&Guest>) -> bool {
    match guest.and_then(|guest| need_of_nic(guest, nic)) {
        Some(Err(need)) => !need.is_confirmed_by(session, &Output::Nic(nic)),
        Some(Ok(())) | None => false,
    }
}

/// How an output stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing else needs it.
    Free,
    /// Only `capture-only` allows it.
    Confirmed,
    /// Nobody can tell whether it is free now. It is an output already, and stays one.
    Kept,
}

impl<'a> Outputs<'a> {
    /// Finds the output, or says why it is not served, and what to do.
    pub fn serve(
        &self,
        session: &Session,
        output: &Output,
    ) -> Result<(Place<'a>, Standing), Fault> {
        let refused = |need: Need| Fault::Refused(need.told(output));
        if let Output::Port(name) = output {
            let is_open = || self.may_lead_to_ovs(name);
            // With what Open vSwitch would show, these may be none.
            let may_pass = |need: &Need| match need {
                Need::GuestsWay(..) => is_open(),
                Need::OnlyWay(..) => session.confirms(output) && is_open(),
                _ => false,
            };
            let standing = match self.standing_of_port(session, name) {
                Some(Err(need)) if !may_pass(&need) => return Err(refused(need)),
                known => known,
            };
            let place = self.place(output)?;
            // Unknown changes nothing: what is mirrored goes on, and nothing new begins.
            return match standing {
                Some(Ok(standing)) if !is_open() => Ok((place, standing)),
                _ if self.is_served_now(session, output) => Ok((place, Standing::Kept)),
                Some(_) => Err(Fault::Unknown(format!(
                    "cannot tell whether this node needs {name} for its network: it may lead to bridges of Open vSwitch, which does not answer"
                ))),
                None => Err(Fault::Unknown(format!(
                    "cannot tell whether guests need {name} for their network: some of their configs were not read"
                ))),
            };
        }
        let place = self.place(output)?;
        let (Output::Nic(nic), Place::Port(target)) = (output, &place) else {
            return Ok((place, Standing::Free));
        };
        let standing = match self.known_need(*nic) {
            Some(need) => stands(need, session, output).map_err(refused)?,
            None if session.confirms(output) => Standing::Confirmed,
            None if self.is_served_now(session, output) || self.was_free(output, target) => {
                Standing::Kept
            }
            None => {
                return Err(Fault::Unknown(format!(
                    "cannot tell whether guest {} needs {nic} for its network: {}",
                    nic.vmid,
                    self.why_config_unknown(*nic)
                )));
            }
        };
        Ok((place, standing))
    }

    /// May a port lead to bridges of an Open vSwitch that does not answer?
    fn may_lead_to_ovs(&self, name: &IfName) -> bool {
        let is_silent = self.observed.ovs.unanswered().is_some();
        let is_ovs = |device: &IfName| {
            let kind = self.observed.links.get(device);
            kind.is_some_and(|link| link.kind.as_deref() == Some("openvswitch"))
        };
        ForwardingGraph::new(self.observed).reaches(name, |device| {
            self.map.may_be_on_ovs(device) || is_silent && is_ovs(device)
        })
    }

    fn known_need(&self, nic: NicId) -> Option<Result<(), Need>> {
        need_of_nic(self.cluster.guest(nic.vmid)?, nic)
    }

    fn why_config_unknown(&self, nic: NicId) -> String {
        match self.cluster.guests.get(&nic.vmid) {
            Some(Ok(_)) => format!("its config has no net{}", nic.index),
            Some(Err(why)) => why.to_string(),
            None => "its config was not read".to_owned(),
        }
    }

    /// Does something of this session go to this output now?
    fn is_served_now(&self, session: &Session, output: &Output) -> bool {
        let key = OutputKey::new(&session.name, output);
        let by_ovs = self
            .mirrors()
            .any(|mirror| mirror.mark.as_ref() == Some(&key));
        by_ovs || self.observed.nft.has_chain(&names::own(&key, Part::Copy))
    }

    /// Is its device reserved for copies, since it was free when that could be told?
    fn was_free(&self, output: &Output, target: &Target<'_>) -> bool {
        let mut sessions = self.annotations.sessions.values();
        let is_confirmed = sessions.any(|session| {
            let mut outputs = session.outputs.iter();
            session.confirms(output) && outputs.any(|at| at.value == *output)
        });
        let is_output = self.is_device_reserved(target.device, target.index);
        !is_confirmed && (is_output || self.is_mirrored_to(output))
    }

    /// The device that is reserved now for an output of which nobody can tell where it is or whether it is free.
    pub fn reserved_device(&self, output: &Output) -> Option<(&'a IfName, OutputPort)> {
        let (name, is_on_ovs) = match (self.place(output), output) {
            (Ok(Place::Port(target)), _) => (target.device, Some(target.is_on_ovs())),
            (Err(_), Output::Nic(nic)) => (self.map.unplugged.get(nic)?, None),
            (Err(_), Output::Port(name)) => (name, None),
            _ => return None,
        };
        let (device, link) = self.observed.links.get_key_value(name)?;
        let saved = self.saved(device, Some(link.index));
        let is_ours = self.drops(device) || saved.is_some_and(|saved| saved.flags.is_some());
        if !is_ours && saved.is_none_or(|saved| saved.offloads.is_empty()) {
            return None;
        }
        let exclusive = if is_on_ovs.unwrap_or(!is_ours) {
            Exclusive::Ovs
        } else {
            Exclusive::Us
        };
        let wire = match saved {
            Some(saved) if !saved.offloads.is_empty() => Switch::Yes,
            _ => Switch::No,
        };
        Some((device, OutputPort::new(link.index, exclusive, wire)))
    }

    fn is_device_reserved(&self, device: &IfName, index: Option<u32>) -> bool {
        self.drops(device) || self.saved(device, index).is_some()
    }

    /// Does our rule drop what comes in by a device?
    fn drops(&self, device: &IfName) -> bool {
        self.observed.nft.has_chain(&names::drop(device))
    }

    /// What a device was like before we changed it.
    fn saved(&self, device: &IfName, index: Option<u32>) -> Option<&'a PortSettings> {
        let saved = self.observed.saved.get(device)?;
        (Some(saved.index) == index).then_some(saved)
    }

    fn is_mirrored_to(&self, output: &Output) -> bool {
        let output = output.to_string();
        self.mirrors().any(|mirror| {
            let mark = mirror.mark.as_ref();
            mark.is_some_and(|mark| mark.output == output)
        })
    }

    fn mirrors(&self) -> impl Iterator<Item = &'a Mirror> {
        let bridges = match &self.observed.ovs {
            OvsState::Present(ovs) => Some(ovs.bridges.values()),
            OvsState::Absent(_) | OvsState::Failed(_) => None,
        };
        let bridges = bridges.into_iter().flatten();
        bridges.flat_map(|bridge| bridge.mirrors.values())
    }

    /// How a port that is not a guest's stands as an output; nothing where that depends on what nobody can tell.
    pub fn standing_of_port(
        &self,
        session: &Session,
        name: &IfName,
    ) -> Option<Result<Standing, Need>> {
        if let Some(conflict) = self.conflicts.get(name) {
            return conflict.clone().map(Err);
        }
        let output = Output::Port(name.clone());
        let beside = |others| stands(self.need_of_port(name, others), session, &output);
        let known = beside(&self.reserved);
        if self.undetermined.is_empty() {
            return Some(known);
        }
        let all: BTreeSet<IfName> = self.reserved.union(&self.undetermined).cloned().collect();
        let with_all = beside(&all);
        match (known, with_all) {
            (Ok(Standing::Confirmed), Ok(_)) => Some(Ok(Standing::Confirmed)),
            (known, with_all) => (known.is_ok() == with_all.is_ok()).then_some(known.and(with_all)),
        }
    }

    /// What else needs a port that is not a guest's, beside these outputs.
    pub fn need_of_port(&self, name: &IfName, others: &BTreeSet<IfName>) -> Result<(), Need> {
        if self.map.bridges.contains_key(name) {
            return Err(Need::Bridge(name.clone()));
        }
        if is_firewall_bridge(name) {
            return Err(Need::FirewallBridge(name.clone()));
        }
        let link = self.observed.links.get(name);
        if link.is_some_and(|link| link.loopback) {
            return Err(Need::Loopback(name.clone()));
        }
        let addresses = || link.into_iter().flat_map(|link| &link.addresses);
        if let Some(address) = addresses().find(|address| !is_link_local(address)) {
            return Err(Need::Address(name.clone(), *address));
        }
        self.part_of(name)?;
        self.below(name)?;
        let ways = ForwardingGraph::new(self.observed);
        let others: BTreeSet<&IfName> = others.iter().collect();
        if let Some((bridge, address)) = ways.address_behind(name) {
            let need = if ways.strands(name, &others) {
                Need::OnlyWay
            } else {
                Need::Way
            };
            return Err(need(name.clone(), bridge, address));
        }
        // A cable that is pulled elsewhere ends no mirror.
        let index = link.map(|link| link.index);
        let is_reserved = self.is_device_reserved(name, index)
            || self.is_mirrored_to(&Output::Port(name.clone()));
        let leads = if is_reserved {
            UplinkRequirement::Whenever
        } else {
            UplinkRequirement::Now
        };
        if let Some((bridge, nic)) = ways.guest_without(name, &others, leads) {
            return Err(Need::GuestsWay(name.clone(), bridge, nic));
        }
        if let Some(address) = addresses().next() {
            return Err(Need::LinkLocal(name.clone(), *address));
        }
        if link.is_some_and(|link| link.routed) {
            return Err(Need::Route(name.clone()));
        }
        Ok(())
    }

    /// A bond's part, the kernel's or Open vSwitch's; a team's, a VRF's.
    fn part_of(&self, name: &IfName) -> Result<(), Need> {
        let links = &self.observed.links;
        let part = |kind, whole: &IfName| Err(Need::Part(name.clone(), kind, whole.clone()));
        let master = links.get(name).and_then(|link| link.master.as_ref());
        if let Some(master) = master {
            if is_firewall_bridge(master) {
                return part("firewall bridge", master);
            }
            match links.get(master).and_then(|link| link.kind.as_deref()) {
                Some("bridge" | "openvswitch") | None => {}
                Some("bond") => return part("bond", master),
                Some("vrf") => return part("VRF", master),
                Some(_) => return part("device", master),
            }
        }
        if let OvsState::Present(ovs) = &self.observed.ovs {
            let mut ports = ovs.bridges.values().flat_map(|bridge| &bridge.ports);
            let bond = ports.find(|(_, port)| port.members.contains(name));
            if let Some((bond, _)) = bond {
                return part("Open vSwitch bond", bond);
            }
        }
        Ok(())
    }

    /// A device that something else is built on carries that, too: a VLAN device, a macvlan device.
    fn below(&self, name: &IfName) -> Result<(), Need> {
        let mut links = self.observed.links.iter();
        let above = links.find(|(_, link)| link.parent.as_ref() == Some(name));
        match above {
            Some((above, _)) => Err(Need::Below(name.clone(), above.clone())),
            None => Ok(()),
        }
    }
}
