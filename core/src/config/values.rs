//! The value of each key of span.cfg: text → meaning, or what is wrong and where within the value.

use jiff::Timestamp;

use crate::config::diagnostic::did_you_mean;
use crate::model::{Direction, Invalid, Switch, VlanSet, decimal, excerpt};

use super::session::{EngineChoice, Point, PreStop};

/// What is wrong with a part of a value: its offset and width in bytes.
#[derive(Debug)]
pub struct Fault {
    /// From the value's start.
    pub offset: usize,
    /// Of the faulty part.
    pub width: usize,
    pub message: String,
    pub hint: Option<String>,
}

impl Fault {
    fn whole(value: &str, message: String) -> Self {
        Self {
            offset: 0,
            width: value.len(),
            message,
            hint: None,
        }
    }
}

/// A part of a list and where it stands.
pub struct Item<T> {
    /// From the value's start, in bytes.
    pub offset: usize,
    pub width: usize,
    pub value: T,
}

/// The most words of a list.
const MOST_ITEMS: usize = 1000;

/// A comma-separated list; every faulty item is reported.
pub fn list<T>(
    value: &str,
    read: impl Fn(&str) -> Result<T, Invalid>,
) -> (Vec<Item<T>>, Vec<Fault>) {
    let mut items = Vec::new();
    let mut faults = Vec::new();
    let mut offset = 0;
    for (number, part) in value.split(',').enumerate() {
        if number == MOST_ITEMS {
            let message = format!("more than {MOST_ITEMS} words in a list");
            let hint = Some("use ranges, tags or pools".into());
            faults.push(Fault {
                offset,
                width: part.len().max(1),
                message,
                hint,
            });
            break;
        }
        let item = part.trim();
        let at = offset + (part.len() - part.trim_start().len()).min(part.len());
        offset += part.len() + 1;
        if item.is_empty() {
            let message = if value.is_empty() {
                "the list is empty"
            } else {
                "there is nothing between the commas"
            };
            faults.push(Fault {
                offset: at.min(value.len().saturating_sub(1)),
                width: 1,
                message: message.into(),
                hint: None,
            });
            continue;
        }
        match read(item) {
            Ok(read) => items.push(Item {
                offset: at,
                width: item.len(),
                value: read,
            }),
            Err(Invalid(message)) => faults.push(Fault {
                offset: at,
                width: item.len(),
                message,
                hint: None,
            }),
        }
    }
    (items, faults)
}

/// One of a few words.
fn word<T: Copy>(value: &str, words: &[(&str, T)]) -> Result<T, Fault> {
    let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    words
        .iter()
        .find(|(name, _)| *name == value)
        .map(|(_, meaning)| *meaning)
        .ok_or_else(|| Fault {
            hint: did_you_mean(value, names.iter().copied()),
            ..Fault::whole(
                value,
                format!("expected {}, not `{}`", one_of(&names), excerpt(value)),
            )
        })
}

fn one_of(names: &[&str]) -> String {
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// `both`, `from`, `to`.
pub fn direction(value: &str) -> Result<Direction, Fault> {
    word(
        value,
        &[
            ("both", Direction::Both),
            ("from", Direction::From),
            ("to", Direction::To),
        ],
    )
}

/// `bridge`, `guest`.
pub fn point(value: &str) -> Result<Point, Fault> {
    word(value, &[("bridge", Point::Bridge), ("guest", Point::Guest)])
}

/// `clear`, `keep`.
pub fn pre_stop(value: &str) -> Result<PreStop, Fault> {
    word(value, &[("clear", PreStop::Clear), ("keep", PreStop::Keep)])
}

/// `auto`, `ovs`, `nft`.
pub fn engine(value: &str) -> Result<EngineChoice, Fault> {
    word(
        value,
        &[
            ("auto", EngineChoice::Auto),
            ("ovs", EngineChoice::Ovs),
            ("nft", EngineChoice::Nft),
        ],
    )
}

/// `yes`, `no`, and Proxmox VE's other spellings of them.
pub fn switch(value: &str) -> Result<Switch, Fault> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Ok(Switch::Yes),
        "0" | "off" | "no" | "false" => Ok(Switch::No),
        _ => Err(Fault::whole(
            value,
            format!("expected yes or no, not `{}`", excerpt(value)),
        )),
    }
}

/// `10, 20-29`: VLANs 0 (untagged) to 4094.
pub fn vlans(value: &str) -> Result<VlanSet, Vec<Fault>> {
    let (ranges, faults) = list(value, |item| {
        let (low, high) = item.split_once('-').unwrap_or((item, item));
        let number = |text: &str| {
            decimal::<u16>(text.trim())
                .filter(|vlan| *vlan < VlanSet::MAX)
                .ok_or_else(|| {
                    Invalid(format!(
                        "`{}` is not a VLAN (1 to 4094, or 0 for untagged)",
                        excerpt(text.trim())
                    ))
                })
        };
        let (low, high) = (number(low)?, number(high)?);
        if low > high {
            Err(Invalid(format!("the range `{low}-{high}` runs backwards")))
        } else {
            Ok(low..=high)
        }
    });
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(ranges.into_iter().map(|item| item.value).collect())
}

/// Bytes kept of each frame: 14 to 65535, Open vSwitch's bounds (ovs-vswitchd.conf.db(5), Mirror).
pub fn snaplen(value: &str) -> Result<u16, Fault> {
    decimal(value).filter(|bytes| *bytes >= 14).ok_or_else(|| {
        Fault::whole(
            value,
            format!(
                "`{}` is not a length in bytes (14 to 65535)",
                excerpt(value)
            ),
        )
    })
}

/// `1/100`: the 100.
pub fn sample(value: &str) -> Result<u32, Fault> {
    value
        .split_once('/')
        .filter(|(one, _)| one.trim() == "1")
        .and_then(|(_, frames)| decimal(frames.trim()))
        .filter(|frames| *frames >= 1)
        .ok_or_else(|| Fault {
            hint: Some("write 1/100 for one frame in a hundred".into()),
            ..Fault::whole(value, format!("`{}` is not a rate", excerpt(value)))
        })
}

/// A point in time with its zone (RFC 3339; seconds may be left out).
pub fn expires(value: &str) -> Result<Timestamp, Fault> {
    value.parse().map_err(|_| Fault {
        hint: Some(
            "write 2027-01-31T18:00Z (UTC), or with an offset, 2027-01-31T18:00+01:00".into(),
        ),
        ..Fault::whole(
            value,
            format!("`{}` is not a point in time with its zone", excerpt(value)),
        )
    })
}
