//! Open vSwitch's mirrors that are not ours → rules.

use super::draft::{Origin, Rule, nic_source};
use crate::config::selector::{Output, Selector};
use crate::model::{IfName, Taken, VlanSet, excerpt, is_control, port_owner};
use crate::state::{Mirror, MirrorOutput};

/// What a mirror does, for the origin of this number. `filter` is what Open vSwitch 3.4 and newer can have besides.
pub fn read(
    bridge: &IfName,
    mirror: &Mirror,
    filter: Option<&str>,
    number: usize,
) -> (Origin, Vec<Rule>) {
    let name = excerpt(&mirror.name);
    let mut origin = Origin {
        label: match name.as_str() {
            "" => format!("a mirror without name of {bridge}"),
            name => format!("mirror {name} of {bridge}"),
        },
        wish: Some(mirror.name.clone()).filter(|name| !name.is_empty() && name.len() <= 32),
        left_out: Vec::new(),
        needless: None,
    };
    let rules = rules(bridge, mirror, number, &mut origin.left_out);
    if let (Some(filter), false) = (filter, rules.is_empty()) {
        origin.left_out.push(format!(
            "without its filter, `{}`: the session takes every frame; `filter =` chooses in tcpdump's words",
            excerpt(filter)
        ));
    }
    (origin, rules)
}

fn rules(bridge: &IfName, mirror: &Mirror, number: usize, left_out: &mut Vec<String>) -> Vec<Rule> {
    let config = &mirror.config;
    let mut nothing = |why: &str| {
        left_out.push(why.to_owned());
        Vec::new()
    };
    let output = match &config.output {
        MirrorOutput::None => {
            return nothing("it has no output, or none any more, and mirrors nothing");
        }
        MirrorOutput::Vlan(vlan) if (1..VlanSet::MAX).contains(vlan) => Output::Vlan(*vlan),
        MirrorOutput::Vlan(_) => return nothing("its output is not a VLAN from 1 to 4094"),
        MirrorOutput::Port(name) => match port_owner(name.as_str()) {
            Some((nic, _)) => Output::Nic(nic),
            None if is_writable(name) => Output::Port(name.clone()),
            None => return nothing("its output has a name that cannot be written down"),
        },
    };
    let is_vlan = |vlan: &u16| *vlan < VlanSet::MAX;
    let vlans: VlanSet = config.vlans.iter().filter(is_vlan).collect();
    if vlans.is_empty() && !config.vlans.is_empty() {
        return nothing("it selects VLAN 4095 only, which there is not");
    }
    let mut sources: Vec<(Selector, Taken)> = Vec::new();
    if config.all && is_writable(bridge) {
        sources.push((Selector::Bridge(bridge.clone()), Taken::Both));
    } else if !config.all {
        for (port, taken) in &config.ports {
            match port_owner(port.as_str()) {
                Some((nic, _)) => sources.push((nic_source(nic), *taken)),
                None if is_writable(port) => {
                    sources.push((Selector::Port(port.clone()), *taken));
                }
                None => left_out.push(format!(
                    "without its source {}: the name cannot be written down",
                    excerpt(port.as_str())
                )),
            }
        }
    }
    if sources.is_empty() {
        left_out.push("it selects no port, or none any more, and mirrors nothing".to_owned());
    }
    let rule = |(source, taken)| Rule {
        source,
        taken,
        output: output.clone(),
        vlans: vlans.clone(),
        snaplen: config.snaplen.filter(|bytes| *bytes >= 14),
        origin: number,
    };
    sources.into_iter().map(rule).collect()
}

/// Names that do something to a terminal do not go into a file that people read.
fn is_writable(name: &IfName) -> bool {
    !name.as_str().chars().any(is_control)
}
