//! Frames' sizes: an output whose device takes less than its sources send loses the large ones.

use std::collections::BTreeMap;

use super::facts::Node;
use super::findings::{Findings, Id, Severity};
use crate::core::copies::CopyKey;
use crate::core::model::IfName;
use crate::core::selector::Output;
use crate::core::state::MirrorOutput;

/// A device and its MTU, in bytes.
type Sized<'a> = (u32, &'a IfName);

/// Judges sizes.
pub fn judge(node: &Node<'_>, found: &mut Findings) {
    let pairs = pairs(node);
    let count = pairs.len();
    let mut wrong = 0;
    for (key, sources) in pairs {
        let Some(device) = node.desired.device_of(&key) else {
            continue;
        };
        let Some((takes, why)) = takes(node, &key, device) else {
            continue;
        };
        let Some((sends, source)) = sources else {
            continue;
        };
        if sends <= takes {
            continue;
        }
        wrong += 1;
        let remedy = match sensor(&key) {
            Some(_) => format!(
                "ip link set {device} mtu {sends}, and the same for its bridge (/etc/network/interfaces: mtu {sends}) and within the sensor, to last"
            ),
            None => format!(
                "ip link set {device} mtu {sends} (/etc/network/interfaces: mtu {sends}, to last)"
            ),
        };
        found.add(
            Severity::Warning,
            Id::MtuSmaller,
            format!(
                "session {}: frames above {takes} bytes may be lost on the way to {}, and its sources send up to {sends}",
                key.session, key.output
            ),
            format!("{source} has MTU {sends}, {why}"),
            remedy,
        );
    }
    if count > 0 && wrong == 0 {
        found.ok(
            Id::Mtu,
            "outputs take what their sources send",
            format!("MTU of {count} outputs' devices and of their sources'"),
        );
    }
}

/// Each session's output with the largest of the sources that are sent to it.
fn pairs<'a>(node: &Node<'a>) -> BTreeMap<CopyKey, Option<Sized<'a>>> {
    let mut pairs: BTreeMap<CopyKey, Option<Sized<'a>>> = BTreeMap::new();
    let mut add = |key: CopyKey, device: &'a IfName| {
        let size = mtu(node, device).map(|mtu| (mtu, device));
        let largest = pairs.entry(key).or_default();
        *largest = (*largest).max(size);
    };
    for (key, copies) in &node.desired.copies {
        for device in copies.sources.keys() {
            add(key.clone(), device);
        }
    }
    for (key, wanted) in &node.desired.mirrors {
        if !matches!(wanted.config.output, MirrorOutput::Port(_)) {
            continue;
        }
        let copy = CopyKey {
            session: key.session.clone(),
            output: key.output.clone(),
        };
        let whole = key.bridge.as_ref().filter(|_| wanted.config.all);
        for device in wanted.config.ports.keys().chain(whole) {
            add(copy.clone(), device);
        }
    }
    pairs
}

fn mtu(node: &Node<'_>, device: &IfName) -> Option<u32> {
    node.observed.links.get(device)?.mtu
}

/// The largest packet that an output takes, and what says so.
fn takes(node: &Node<'_>, key: &CopyKey, device: &IfName) -> Option<(u32, String)> {
    let own = mtu(node, device).map(|mtu| (mtu, format!("{device} has MTU {mtu}")));
    let configured = sensor(key).and_then(|nic| {
        let config = node.cluster.guest(nic.vmid)?.nics.get(&nic.index)?;
        // 1 stands for the bridge's.
        let mtu = config.mtu.filter(|mtu| *mtu > 1)?;
        Some((
            mtu,
            format!(
                "{} has net{}: mtu={mtu}",
                node.config_of(nic.vmid),
                nic.index
            ),
        ))
    });
    own.into_iter()
        .chain(configured)
        .min_by_key(|(mtu, _)| *mtu)
}

fn sensor(key: &CopyKey) -> Option<crate::core::model::NicId> {
    match key.output.parse() {
        Ok(Output::Nic(nic)) => Some(nic),
        _ => None,
    }
}
