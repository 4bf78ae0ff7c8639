//! What the kernel would make of a plan's commands, and of its changes of devices.

use pve_span_core::engine::Statistics;
use pve_span_core::engine::nft::{Act, Command, NftState, SeenChain, SeenRule};
use pve_span_core::plan::PortChange;
use pve_span_core::state::Observed;

/// What our table holds after the transaction; a command that the kernel would refuse panics.
pub fn apply(commands: &[Command], observed: &mut Observed) {
    let NftState::Present(seen) = &mut observed.nft else {
        unreachable!()
    };
    let mut handle = 1 + seen
        .chains
        .values()
        .flat_map(|chain| &chain.rules)
        .map(|rule| rule.handle)
        .max()
        .unwrap_or(0);
    for command in commands {
        assert!(
            seen.exists || *command == Command::AddTable,
            "{command:?} without a table"
        );
        match command {
            Command::AddTable => seen.exists = true,
            Command::DeleteTable => *seen = Default::default(),
            Command::AddCounter(name) => {
                seen.counters.insert(name.clone(), Statistics::default());
            }
            Command::DeleteCounter(name) => {
                assert!(
                    !text(seen.chains.values()).contains(name.as_str()),
                    "{name} is in use"
                );
                seen.counters.remove(name).unwrap();
            }
            Command::AddChain(name, hook) => {
                if let Some(hook) = hook {
                    assert!(
                        observed.links.contains_key(&hook.device),
                        "no device {}",
                        hook.device
                    );
                }
                let chain = SeenChain {
                    hook: hook.clone(),
                    rules: Vec::new(),
                };
                assert!(
                    seen.chains.insert(name.clone(), chain).is_none(),
                    "{name} is there already"
                );
            }
            Command::FlushChain(name) => seen.chains.get_mut(name).unwrap().rules.clear(),
            Command::DeleteChain(name) => {
                let chain = seen.chains.remove(name).unwrap();
                assert!(chain.rules.is_empty(), "{name} is not empty");
            }
            Command::AddRule(name, rule) => {
                match &rule.action {
                    Act::Jump(to) | Act::Goto(to) => {
                        assert!(seen.chains.contains_key(to), "no chain {to}")
                    }
                    Act::Copy { counter, .. } => {
                        assert!(seen.counters.contains_key(counter), "no counter {counter}")
                    }
                    _ => {}
                }
                let copies_to = match rule.action {
                    Act::Copy { index, .. } => Some(index),
                    _ => None,
                };
                let rule = SeenRule {
                    handle,
                    comment: rule.comment(),
                    copies_to,
                };
                seen.chains.get_mut(name).unwrap().rules.push(rule);
                handle += 1;
            }
            Command::DeleteRule(name, handle) => {
                let rules = &mut seen.chains.get_mut(name).unwrap().rules;
                let at = rules
                    .iter()
                    .position(|rule| rule.handle == *handle)
                    .unwrap();
                rules.remove(at);
            }
        }
    }
}

fn text<'a>(chains: impl Iterator<Item = &'a SeenChain>) -> String {
    chains
        .flat_map(|chain| &chain.rules)
        .map(|rule| rule.comment.as_str())
        .collect()
}

/// What the devices are like afterwards.
pub fn apply_ports(changes: &[PortChange], observed: &mut Observed) {
    for change in changes {
        match change {
            PortChange::Prepare {
                device,
                flags,
                offloads,
                before,
                ..
            } => {
                let port = observed.ports.get_mut(device).unwrap();
                if flags.is_some() {
                    port.flags.clone_from(flags);
                }
                port.offloads.retain(|name| !offloads.contains(name));
                observed.saved.insert(device.clone(), before.clone());
            }
            PortChange::Listen {
                device,
                link,
                before,
                ..
            } => {
                let port = observed.ports.get_mut(device).unwrap();
                port.promiscuous = link.promiscuous.or(port.promiscuous);
                port.up = link.up.or(port.up);
                observed.saved.insert(device.clone(), before.clone());
            }
            PortChange::Restore {
                device,
                flags,
                offloads,
                link,
                remains,
                ..
            } => {
                let port = observed.ports.get_mut(device).unwrap();
                port.promiscuous = link.promiscuous.or(port.promiscuous);
                port.up = link.up.or(port.up);
                if flags.is_some() {
                    port.flags.clone_from(flags);
                }
                port.offloads.extend(offloads.iter().cloned());
                match remains {
                    Some(remains) => observed.saved.insert(device.clone(), remains.clone()),
                    None => observed.saved.remove(device),
                };
            }
            PortChange::Forget { device } => {
                observed.saved.remove(device);
            }
        }
    }
}
