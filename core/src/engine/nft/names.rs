//! The names of what is in our table, and what they tell.
//!
//! `nft list ruleset` has to be loadable again, so a name is a word of nft(8)'s: whatever of a device's name
//! is not allowed there is written in hexadecimal digits.

use std::fmt::{self, Write};

use super::{Seen, Side};
use crate::engine::nft::spec::Passing;
use crate::model::OutputKey;
use crate::model::{IfName, SessionName};

/// An output in names: `200/net1`, `port/eno2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label(String);

impl Label {
    /// From an output as span.cfg writes it.
    pub fn of(output: &str) -> Self {
        match output.split_once(':') {
            Some((kind, name)) => Self(format!("{kind}/{}", word(name))),
            None => Self(output.to_owned()),
        }
    }

    /// Back to span.cfg's words, as far as they can be told.
    pub fn output(&self) -> String {
        match self.0.split_once('/') {
            Some((kind @ "port", name)) => format!("{kind}:{}", name_of(name)),
            _ => self.0.clone(),
        }
    }
}

/// What stands before a name in hexadecimal digits.
const HEX: &str = "x";

/// The device's name that a word stands for.
fn name_of(word: &str) -> String {
    let Some((HEX, digits)) = word.split_once('/') else {
        return word.to_owned();
    };
    let pairs = (0..digits.len()).step_by(2);
    let bytes = pairs.filter_map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok());
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}

/// A device's name as a word.
pub fn word(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.chars().all(plain) && name != HEX {
        return name.to_owned();
    }
    // Nothing else contains a slash, so no other name can be this one.
    let mut hex = format!("{HEX}/");
    for byte in name.bytes() {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A chain that belongs to one session and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Counts and copies.
    Copy,
    /// What is delivered to a source: not what another one sent.
    To,
    /// The same for sources whose VLANs are told by the frames' tags.
    ToTagged,
    /// The same for sources whose frames without a tag are in a wanted VLAN.
    ToNative,
    /// Chooses frames.
    Frames(usize),
    /// Chooses frames, by their tags too.
    Tagged(usize),
    /// The same, and frames without a tag.
    Native(usize),
}

/// What a session's chain does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Counts and copies.
    Copies,
    /// Leaves out what has been copied where it was sent.
    Once,
    /// Chooses frames.
    Chooses,
}

/// What a name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainName<'a> {
    /// `in/…` and `out/…`: a base chain for copies to an output.
    Base {
        /// The output.
        label: Label,
    },
    /// A chain of a session and output.
    Own {
        /// The session.
        session: &'a str,
        /// The output.
        label: Label,
        /// What it does.
        role: Role,
    },
    /// `drop/…`: keeps what an output's device sends.
    Drop,
    /// None of ours.
    Unknown,
}

/// A base chain.
pub fn base(device: &IfName, side: Side, output: &str) -> String {
    let side = match side {
        Side::Ingress => "in",
        Side::Egress => "out",
    };
    format!("{side}/{}/{}", word(device.as_str()), Label::of(output).0)
}

/// The chain that drops what a device sends.
pub fn drop(device: &IfName) -> String {
    format!("drop/{}", word(device.as_str()))
}

/// A chain of a session and output.
pub fn own(key: &OutputKey, part: Part) -> String {
    let rest = format!("{}/{}", key.session.as_str(), Label::of(&key.output).0);
    match part {
        Part::Copy => format!("copy/{rest}"),
        Part::To => format!("to/{rest}"),
        Part::ToTagged => format!("to-tagged/{rest}"),
        Part::ToNative => format!("to-native/{rest}"),
        Part::Frames(number) => format!("frames/{rest}/{number}"),
        Part::Tagged(number) => format!("tagged/{rest}/{number}"),
        Part::Native(number) => format!("native/{rest}/{number}"),
    }
}

/// The counter of a session and output.
pub fn counter(key: &OutputKey) -> String {
    format!(
        "count/{}/{}",
        key.session.as_str(),
        Label::of(&key.output).0
    )
}

/// Whose counter it is.
pub fn counted(name: &str) -> Option<(&str, Label)> {
    let (session, label) = name.strip_prefix("count/")?.split_once('/')?;
    Some((session, Label(label.to_owned())))
}

/// Reads a chain's name.
pub fn read(name: &str) -> ChainName<'_> {
    let Some((kind, rest)) = name.split_once('/') else {
        return ChainName::Unknown;
    };
    let own = |role: Role| {
        let Some((session, label)) = rest.split_once('/') else {
            return ChainName::Unknown;
        };
        let label = match label.rsplit_once('/') {
            Some((label, _)) if role == Role::Chooses => label,
            _ => label,
        };
        ChainName::Own {
            session,
            label: Label(label.to_owned()),
            role,
        }
    };
    match kind {
        "in" | "out" => {
            // A device's word has a slash if it is hexadecimal.
            let (device, label) = rest.split_once('/').unwrap_or((rest, ""));
            let label = if device == HEX {
                label.split_once('/').map_or("", |(_, label)| label)
            } else {
                label
            };
            ChainName::Base {
                label: Label(label.to_owned()),
            }
        }
        "drop" => ChainName::Drop,
        "copy" => own(Role::Copies),
        "to" | "to-tagged" | "to-native" => own(Role::Once),
        "frames" | "tagged" | "native" => own(Role::Chooses),
        _ => ChainName::Unknown,
    }
}

/// What the rule of a base chain is for, and the MAC address of its source, to be remembered when its config cannot be
/// read.
pub fn purpose(session: &SessionName, passing: Passing, subject: &str, mac: Option<u64>) -> String {
    let mac = mac.map(|mac| format!(" {mac:012x}")).unwrap_or_default();
    format!("{} {} {subject}{mac}", session.as_str(), passing.word())
}

/// What a base chain's rule tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told<'a> {
    /// The session.
    pub session: &'a str,
    /// What of its source passes there.
    pub passing: Passing,
    /// The source's MAC address.
    pub mac: Option<u64>,
}

/// Reads a base chain's rule.
pub fn read_purpose(comment: &str) -> Option<Told<'_>> {
    let mut words = comment.split(' ');
    let session = words.next()?;
    let passing = match words.next()? {
        "from" => Passing::From,
        "to" => Passing::To,
        _ => return None,
    };
    let mac = words.nth(1).filter(|word| word.len() == 12);
    Some(Told {
        session,
        passing,
        mac: mac.and_then(|mac| u64::from_str_radix(mac, 16).ok()),
    })
}

impl Seen {
    /// The devices of which a rule of ours drops what they send.
    pub fn dropping(&self) -> impl Iterator<Item = &IfName> {
        let chains = self
            .chains
            .iter()
            .filter(|(name, _)| read(name) == ChainName::Drop);
        chains.filter_map(|(_, chain)| chain.hook.as_ref().map(|hook| &hook.device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(output: &str) -> OutputKey {
        OutputKey {
            session: SessionName::from_mark("dmz"),
            output: output.into(),
        }
    }

    #[test]
    fn names_are_words_of_nft_and_tell_whose_they_are() {
        let tap: IfName = "tap101i0".parse().unwrap();
        assert_eq!(
            base(&tap, Side::Ingress, "200/net1"),
            "in/tap101i0/200/net1"
        );
        let odd: IfName = "eno1@x".parse().unwrap();
        let name = base(&odd, Side::Egress, "port:eno2");
        assert_eq!(name, "out/x/656e6f314078/port/eno2");
        assert_eq!(
            read(&name),
            ChainName::Base {
                label: Label::of("port:eno2")
            }
        );
        for part in [
            Part::Copy,
            Part::To,
            Part::ToTagged,
            Part::Frames(3),
            Part::Tagged(0),
            Part::ToNative,
            Part::Native(12),
        ] {
            for output in ["200/net1", "port:eno2", "port:e@2"] {
                let name = own(&key(output), part);
                let role = match part {
                    Part::Copy => Role::Copies,
                    Part::To | Part::ToTagged | Part::ToNative => Role::Once,
                    _ => Role::Chooses,
                };
                assert_eq!(
                    read(&name),
                    ChainName::Own {
                        session: "dmz",
                        label: Label::of(output),
                        role
                    },
                    "{name}"
                );
            }
        }
        assert_eq!(
            counted(&counter(&key("200/net1"))),
            Some(("dmz", Label::of("200/net1")))
        );
        for output in ["port:eno2", "port:e@2", "port:x", "200/net1"] {
            assert_eq!(Label::of(output).output(), output);
        }
        let x: IfName = "x".parse().unwrap();
        let label = Label::of("200/net1");
        assert_eq!(
            read(&base(&x, Side::Egress, "200/net1")),
            ChainName::Base { label }
        );
        assert_eq!(read("something"), ChainName::Unknown);
    }
}
