//! A change of a device in words.

use std::fmt;

use super::super::change::PortChange;
use crate::engine::port::LinkChange;

impl fmt::Display for PortChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepare {
                device,
                outputs,
                flags,
                offloads,
                drops,
                ..
            } => {
                let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
                let mut what = Vec::new();
                if flags.is_some() {
                    what.push("nothing but copies goes there");
                }
                if *drops {
                    what.push("what it sends is dropped");
                }
                if !offloads.is_empty() {
                    what.push("offloads off, for frames as on a wire");
                }
                write!(
                    f,
                    "output {} ({device}): {}",
                    outputs.join(", "),
                    what.join(", ")
                )
            }
            Self::Listen { device, link, .. } => {
                write!(f, "source port:{device}: {}", words(*link).join(", "))
            }
            Self::Restore {
                device,
                flags,
                offloads,
                link,
                remains: None,
                ..
            } => {
                let was_source = flags.is_none() && offloads.is_empty() && !link.is_nothing();
                let was = if was_source { "a source" } else { "an output" };
                write!(f, "{device}: as before it was {was}")
            }
            Self::Restore {
                device,
                flags,
                offloads,
                link,
                ..
            } => {
                let changes = [
                    ("offloads", !offloads.is_empty()),
                    ("flags", flags.is_some()),
                    ("link state", link.up.is_some()),
                    ("promiscuous mode", link.promiscuous.is_some()),
                ];
                let what = changes.iter().filter(|(_, is_changed)| *is_changed);
                let what: Vec<&str> = what.map(|(what, _)| *what).collect();
                match what.join(" and ").as_str() {
                    "" => write!(f, "{device}: nothing to put back"),
                    what => write!(f, "{device}: {what} as before, no longer asked for"),
                }
            }
            Self::Forget { device } => write!(f, "{device}: gone, nothing to put back"),
        }
    }
}

fn words(link: LinkChange) -> Vec<&'static str> {
    let mut what = Vec::new();
    if link.up.is_some() {
        what.push("up");
    }
    if link.promiscuous.is_some() {
        what.push("promiscuous, to take in what is addressed to others");
    }
    what
}
