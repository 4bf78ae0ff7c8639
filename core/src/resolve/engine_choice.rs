//! Which engine takes a source to an output, and why.
//!
//! Decided for each source by itself, so that one guest's coming or going never moves another's frames from
//! one engine to the other.

use std::fmt;

use super::outputs::Target;
use crate::config::selector::Output;
use crate::config::{EngineChoice, Point, Session};
use crate::model::IfName;
use crate::state::port_map::{BridgeKind, Port};

/// An engine, with what it was chosen for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChosenEngine {
    /// Open vSwitch's mirrors.
    Ovs,
    /// nftables' `dup`, since Open vSwitch's cannot.
    Nft(Reason),
}

/// Why Open vSwitch does not mirror something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// `engine = nft`.
    Asked,
    /// A key that it has nothing for.
    Key(&'static str),
    /// `point = guest`, behind this firewall bridge.
    Point(IfName),
    /// The output is on a Linux bridge.
    OnLinux(String, IfName),
    /// The output is in no bridge.
    Alone(String),
    /// The output is behind its firewall bridge.
    Firewalled(String, IfName),
    /// The source is on another bridge than the output.
    Across(IfName, BridgeKind, IfName),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("as asked"),
            Self::Key(key) => write!(f, "`{key}` is not for Open vSwitch"),
            Self::Point(bridge) => {
                write!(f, "`point = guest` is before the firewall bridge {bridge}")
            }
            Self::OnLinux(output, bridge) => write!(f, "{output} is on the Linux bridge {bridge}"),
            Self::Alone(output) => write!(f, "{output} is in no bridge"),
            Self::Firewalled(output, bridge) => {
                write!(f, "{output} is behind its firewall bridge {bridge}")
            }
            Self::Across(from, BridgeKind::Linux, to) => {
                write!(f, "it goes from the Linux bridge {from} to {to}")
            }
            Self::Across(from, BridgeKind::None, to) => {
                write!(f, "it goes from {from}, which is in no bridge, to {to}")
            }
            Self::Across(from, BridgeKind::Ovs, to) => write!(f, "it goes from {from} to {to}"),
        }
    }
}

/// A source as far as the engine depends on it.
pub struct From<'a> {
    /// Its bridge.
    pub bridge: &'a IfName,
    /// The bridge's kind.
    pub kind: BridgeKind,
    /// The firewall bridge before it.
    pub firewall: Option<&'a IfName>,
}

impl<'a> std::convert::From<&'a Port> for From<'a> {
    fn from(port: &'a Port) -> Self {
        Self {
            bridge: &port.bridge,
            kind: port.bridge_kind,
            firewall: port
                .nic
                .as_ref()
                .and_then(|nic| nic.firewall_bridge.as_ref()),
        }
    }
}

/// Why Open vSwitch mirrors to an output.
pub fn why_ovs(session: &Session, output: &Output) -> &'static str {
    match (session.engine, output) {
        (EngineChoice::Ovs, _) => "as asked",
        (_, Output::Vlan(_)) => "RSPAN",
        _ => "same bridge",
    }
}

/// Why Open vSwitch serves no source to an output, whichever it is.
pub fn never_ovs(session: &Session, output: &Output, target: &Target<'_>) -> Option<Reason> {
    if session.engine == EngineChoice::Nft {
        return Some(Reason::Asked);
    }
    if let Some(key) = session.needs_nft() {
        return Some(Reason::Key(key));
    }
    match (target.port.bridge_kind, target.firewall_bridge()) {
        (_, Some(firewall)) => Some(Reason::Firewalled(output.to_string(), firewall.clone())),
        (BridgeKind::Linux, _) => Some(Reason::OnLinux(
            output.to_string(),
            target.port.bridge.clone(),
        )),
        (BridgeKind::None, _) => Some(Reason::Alone(output.to_string())),
        (BridgeKind::Ovs, None) => None,
    }
}

/// The engine for one source; or why there is none.
pub fn engine(
    session: &Session,
    output: &Output,
    target: &Target<'_>,
    from: &From<'_>,
) -> Result<ChosenEngine, String> {
    let across = || {
        (*from.bridge != target.port.bridge)
            .then(|| Reason::Across(from.bridge.clone(), from.kind, target.port.bridge.clone()))
    };
    let point = || {
        let firewall = from.firewall.filter(|_| session.point == Point::Guest);
        firewall.cloned().map(Reason::Point)
    };
    let Some(reason) = never_ovs(session, output, target)
        .or_else(across)
        .or_else(point)
    else {
        return Ok(ChosenEngine::Ovs);
    };
    if session.engine == EngineChoice::Ovs {
        return Err(format!(
            "{reason}, and `engine = ovs` leaves the nft engine out"
        ));
    }
    if session.snaplen.is_some() {
        return Err(format!(
            "{reason}, and the nft engine has no `snaplen`: leave it out, or put the sensor on the source's Open vSwitch bridge"
        ));
    }
    if target.index.is_none() {
        return Err(format!(
            "{reason}, and the kernel shows no device {} here",
            target.device
        ));
    }
    Ok(ChosenEngine::Nft(reason))
}
