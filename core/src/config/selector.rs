//! The words of `source`, `exclude` and `output`: which ports, and where to.
//!
//! What a selector matches on a node is `resolve`'s to say; this is its grammar.

use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

use super::diagnostic::did_you_mean;
use crate::model::{
    IfName, Invalid, NicId, NicIndex, NodeName, VlanSet, Vmid, decimal, excerpt, port_owner,
};

/// Which ports a session takes, or leaves out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// `101`, `101/net0`, `300-399`, `300-399/net0`: guests by number.
    Guests {
        /// The first.
        low: Vmid,
        /// The last; the same as `low` for a single guest.
        high: Vmid,
        /// One NIC of each; all without.
        nic: Option<NicIndex>,
    },
    /// `tag:web`: guests with the tag.
    Tag(String, Option<NicIndex>),
    /// `pool:prod`: guests in the pool or in one below it.
    Pool(String),
    /// `node:pve2`: guests that run on the node, sensors left out.
    Node(NodeName, Option<NicIndex>),
    /// `all`: every guest, sensors left out.
    All(Option<NicIndex>),
    /// `bridge:vmbr1`: everything that crosses the bridge.
    Bridge(IfName),
    /// `port:eno1`: a port that is not a guest's.
    Port(IfName),
}

const KINDS: [&str; 5] = ["tag", "pool", "bridge", "port", "node"];

impl Selector {
    /// Does it name this guest by its number alone?
    pub fn names_guest(&self, vmid: Vmid) -> bool {
        matches!(self, Self::Guests { low, high, .. } if *low == vmid && *high == vmid)
    }

    /// Is it the port of that name?
    pub fn names_port(&self, name: &IfName) -> bool {
        matches!(self, Self::Port(port) if port == name)
    }
}

impl FromStr for Selector {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some((kind, name)) = text.split_once(':') {
            return Self::named(kind.trim(), name.trim(), text);
        }
        let (guests, nic) = with_nic(text)?;
        if guests == "all" {
            return Ok(Self::All(nic));
        }
        let (low, high) = guests.split_once('-').unwrap_or((guests, guests));
        match (low.trim().parse::<Vmid>(), high.trim().parse::<Vmid>()) {
            (Ok(low), Ok(high)) if low <= high => Ok(Self::Guests { low, high, nic }),
            (Ok(low), Ok(high)) => Err(Invalid(format!("the range `{low}-{high}` runs backwards"))),
            _ if text.contains(char::is_whitespace) => Err(unknown_selector(text)),
            _ if text.starts_with(|c: char| c.is_ascii_digit()) => Err(Invalid(format!(
                "`{}` is not a guest, a NIC (101/net0) or a range (300-399)",
                excerpt(text)
            ))),
            _ => Err(unknown_selector(text)),
        }
    }
}

impl Selector {
    fn named(kind: &str, name: &str, text: &str) -> Result<Self, Invalid> {
        if name.is_empty() {
            return Err(Invalid(format!("`{}:` names nothing", excerpt(kind))));
        }
        match kind {
            "tag" => {
                let (tag, nic) = with_nic(name)?;
                let fits = tag
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+' | b'.'));
                let fits = fits && !tag.starts_with(['-', '+', '.']);
                let bad = || Invalid(format!("`{}` is not a Proxmox VE tag", excerpt(tag)));
                if fits {
                    Ok(Self::Tag(tag.to_lowercase(), nic))
                } else {
                    Err(bad())
                }
            }
            "pool" => {
                let fits = name.split('/').all(|part| {
                    !part.is_empty()
                        && part
                            .bytes()
                            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
                });
                let bad = || Invalid(format!("`{}` is not a Proxmox VE pool", excerpt(name)));
                if fits {
                    Ok(Self::Pool(name.to_owned()))
                } else {
                    Err(bad())
                }
            }
            "node" => with_nic(name).and_then(|(node, nic)| Ok(Self::Node(node.parse()?, nic))),
            "bridge" => Ok(Self::Bridge(name.parse()?)),
            "port" => match port_owner(name) {
                Some((nic, _)) => Err(Invalid(format!("`{name}` is a guest's port: write {nic}"))),
                None => Ok(Self::Port(name.parse()?)),
            },
            _ => Err(unknown_selector(text)),
        }
    }
}

fn unknown_selector(text: &str) -> Invalid {
    let word = text.split(':').next().unwrap_or(text);
    let remedy = if text.contains(char::is_whitespace) {
        ": separate words with commas".to_owned()
    } else if text.contains(['"', '\'']) {
        ": write it without quotes".to_owned()
    } else if text.contains(':') {
        let hint = did_you_mean(word, KINDS).map(|hint| format!(", {hint}"));
        hint.unwrap_or_else(|| format!(" (101, 300-399, all, {}:…)", KINDS.join(":…, ")))
    } else {
        let hint =
            did_you_mean(word, KINDS.into_iter().chain(["all"])).map(|hint| format!(", {hint}"));
        hint.unwrap_or_else(|| {
            format!(
                ": is it tag:{0}, pool:{0}, bridge:{0} or port:{0}?",
                excerpt(text)
            )
        })
    };
    Invalid(format!("`{}` is not a selector{remedy}", excerpt(text)))
}

/// Splits `…/netN`.
fn with_nic(text: &str) -> Result<(&str, Option<NicIndex>), Invalid> {
    let Some((head, nic)) = text.split_once('/') else {
        return Ok((text, None));
    };
    if nic.is_empty() {
        return Err(Invalid(format!(
            "`{}` lacks the NIC: {}net0",
            excerpt(text),
            excerpt(text)
        )));
    }
    let index = NicIndex::from_key(nic).ok_or_else(|| {
        Invalid(format!(
            "`{}` is not a NIC: net0 to net{}",
            excerpt(nic),
            NicIndex::MAX
        ))
    })?;
    Ok((head, Some(index)))
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nic = match self {
            Self::Guests { low, high, nic } => {
                write!(f, "{low}")?;
                if low != high {
                    write!(f, "-{high}")?;
                }
                nic
            }
            Self::Tag(tag, nic) => {
                write!(f, "tag:{tag}")?;
                nic
            }
            Self::Node(node, nic) => {
                write!(f, "node:{node}")?;
                nic
            }
            Self::All(nic) => {
                f.write_str("all")?;
                nic
            }
            Self::Pool(pool) => return write!(f, "pool:{pool}"),
            Self::Bridge(bridge) => return write!(f, "bridge:{bridge}"),
            Self::Port(port) => return write!(f, "port:{port}"),
        };
        nic.map_or(Ok(()), |nic| write!(f, "/net{nic}"))
    }
}

/// Where a session's frames go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// `200/net1`: a guest's NIC.
    Nic(NicId),
    /// `port:eno2`: a port of this node that is not a guest's.
    Port(IfName),
    /// `vlan:999`: RSPAN, back into the bridge on a VLAN of its own.
    Vlan(u16),
    /// `vxlan:10.0.0.9/100`: a collector, by VXLAN (RFC 7348); the number is the VNI.
    Vxlan(IpAddr, u32),
    /// `gre:10.0.0.9` or `gre:10.0.0.9/7`: a collector, by GRE (RFC 2890); the number is the key.
    Gre(IpAddr, Option<u32>),
    /// `erspan:10.0.0.9/30`: a collector, by ERSPAN; the number is the session's.
    Erspan(IpAddr, u16),
}

impl FromStr for Output {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some((kind, name)) = text.split_once(':') {
            return Self::named(kind.trim(), name.trim(), text);
        }
        let (guest, nic) = with_nic(text)?;
        match (guest.parse::<Vmid>(), nic) {
            (Ok(vmid), Some(index)) => Ok(Self::Nic(NicId { vmid, index })),
            (Ok(vmid), None) => Err(Invalid(format!(
                "which NIC of guest {vmid}? write {vmid}/net1, for example"
            ))),
            _ => Err(unknown_output(text)),
        }
    }
}

impl Output {
    fn named(kind: &str, name: &str, text: &str) -> Result<Self, Invalid> {
        match kind {
            "port" => match port_owner(name) {
                Some((nic, _)) => Err(Invalid(format!("`{name}` is a guest's port: write {nic}"))),
                None => Ok(Self::Port(name.parse()?)),
            },
            "vlan" => decimal(name)
                .filter(|vlan| (1..VlanSet::MAX).contains(vlan))
                .map(Self::Vlan)
                .ok_or_else(|| Invalid(format!("`{}` is not a VLAN (1 to 4094)", excerpt(name)))),
            "vxlan" => {
                let (remote, vni) = remote(name, 0xff_ffff, "VNI")?;
                let vni = vni.ok_or_else(|| {
                    Invalid(format!("which VNI? write vxlan:{remote}/100, for example"))
                })?;
                Ok(Self::Vxlan(remote, vni))
            }
            "gre" => remote(name, u32::MAX, "key").map(|(remote, key)| Self::Gre(remote, key)),
            "erspan" => {
                let (remote, id) = remote(name, 1023, "ERSPAN session")?;
                let id = id.and_then(|id| u16::try_from(id).ok());
                let id = id.ok_or_else(|| {
                    Invalid(format!(
                        "which ERSPAN session? write erspan:{remote}/30, for example"
                    ))
                })?;
                Ok(Self::Erspan(remote, id))
            }
            "tag" | "pool" | "node" | "bridge" => Err(Invalid(format!(
                "`{}` cannot be an output: tags, pools, nodes and bridges choose sources only",
                excerpt(text)
            ))),
            _ => Err(unknown_output(text)),
        }
    }
}

fn remote(text: &str, most: u32, what: &str) -> Result<(IpAddr, Option<u32>), Invalid> {
    let (address, number) = text
        .split_once('/')
        .map_or((text, None), |(address, number)| (address, Some(number)));
    let address = address
        .parse()
        .map_err(|_| Invalid(format!("`{}` is not an IP address", excerpt(address))))?;
    let number = number.map(|number| {
        decimal::<u32>(number)
            .filter(|number| *number <= most)
            .ok_or_else(|| {
                Invalid(format!(
                    "`{}` is not a {what} (0 to {most})",
                    excerpt(number)
                ))
            })
    });
    Ok((address, number.transpose()?))
}

fn unknown_output(text: &str) -> Invalid {
    let word = text.split(':').next().unwrap_or(text);
    let hint = did_you_mean(word, ["port", "vlan", "vxlan", "gre", "erspan"])
        .map(|hint| format!(", {hint}"))
        .unwrap_or_default();
    Invalid(format!(
        "`{}` is not an output (200/net1, port:eno2, vlan:999, vxlan:…, gre:…, erspan:…){hint}",
        excerpt(text)
    ))
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nic(nic) => nic.fmt(f),
            Self::Port(port) => write!(f, "port:{port}"),
            Self::Vlan(vlan) => write!(f, "vlan:{vlan}"),
            Self::Vxlan(remote, vni) => write!(f, "vxlan:{remote}/{vni}"),
            Self::Gre(remote, None) => write!(f, "gre:{remote}"),
            Self::Gre(remote, Some(key)) => write!(f, "gre:{remote}/{key}"),
            Self::Erspan(remote, id) => write!(f, "erspan:{remote}/{id}"),
        }
    }
}

impl serde::Serialize for Output {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_print_as_they_are_written() {
        for text in [
            "101",
            "101/net0",
            "300-399",
            "300-399/net1",
            "tag:web",
            "tag:web/net0",
            "pool:prod",
            "pool:prod/dmz",
            "bridge:vmbr1",
            "port:eno1",
            "node:pve2",
            "all",
            "all/net0",
        ] {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn outputs_print_as_they_are_written() {
        for text in [
            "200/net1",
            "port:eno2",
            "vlan:999",
            "vxlan:10.0.0.9/100",
            "gre:10.0.0.9",
            "erspan:2001:db8::9/30",
        ] {
            assert_eq!(text.parse::<Output>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_selectors_say_what_would_be_good() {
        let fault = |text: &str| text.parse::<Selector>().unwrap_err().to_string();
        assert_eq!(fault("399-300"), "the range `399-300` runs backwards");
        assert_eq!(fault("101/eth0"), "`eth0` is not a NIC: net0 to net31");
        assert_eq!(
            fault("tga:web"),
            "`tga:web` is not a selector, did you mean `tag`?"
        );
        assert_eq!(fault("tag:"), "`tag:` names nothing");
        assert_eq!(fault("tag:a b"), "`a b` is not a Proxmox VE tag");
        assert_eq!(
            fault("101 102"),
            "`101 102` is not a selector: separate words with commas"
        );
        assert_eq!(
            fault("\"101\""),
            "`\"101\"` is not a selector: write it without quotes"
        );
        assert_eq!(
            fault("port:tap101i0"),
            "`tap101i0` is a guest's port: write 101/net0"
        );
        assert_eq!(
            fault("guest:101"),
            "`guest:101` is not a selector (101, 300-399, all, tag:…, pool:…, bridge:…, port:…, node:…)"
        );
        assert_eq!(
            fault("101;102"),
            "`101;102` is not a guest, a NIC (101/net0) or a range (300-399)"
        );
        assert_eq!(
            fault("web"),
            "`web` is not a selector: is it tag:web, pool:web, bridge:web or port:web?"
        );
    }

    #[test]
    fn bad_outputs_say_what_would_be_good() {
        let fault = |text: &str| text.parse::<Output>().unwrap_err().to_string();
        assert_eq!(
            fault("200"),
            "which NIC of guest 200? write 200/net1, for example"
        );
        assert_eq!(
            fault("port:tap200i1"),
            "`tap200i1` is a guest's port: write 200/net1"
        );
        assert_eq!(fault("vlan:4095"), "`4095` is not a VLAN (1 to 4094)");
        assert_eq!(fault("vxlan:10.0.0/1"), "`10.0.0` is not an IP address");
        assert_eq!(
            fault("tag:ids"),
            "`tag:ids` cannot be an output: tags, pools, nodes and bridges choose sources only"
        );
    }
}
