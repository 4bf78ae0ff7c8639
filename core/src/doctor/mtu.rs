//! Frames' sizes: an output whose device takes less than its sources send loses the large ones.

use std::collections::BTreeMap;

use super::facts::Node;
use super::findings::{Findings, Id, Severity, plural};
use super::remedy::NicRemedy;
use crate::config::selector::Output;
use crate::model::OutputKey;
use crate::model::{IfName, NicId};
use crate::state::MirrorOutput;

/// A device and its MTU, in bytes.
type DeviceMtu<'a> = (u32, &'a IfName);

/// Judges sizes.
pub fn judge(node: &Node<'_>, mender: &NicRemedy<'_>, found: &mut Findings) {
    let pairs = pairs(node);
    let count = pairs.len();
    let wrong = wrong(node, pairs);
    if count > 0 && wrong.is_empty() {
        found.ok(
            Id::Mtu,
            "outputs take what their sources send",
            format!(
                "MTU of {count} {} and of their sources'",
                plural(count, "output's device", "outputs' devices")
            ),
        );
    }
    for wrong in wrong {
        let MtuMismatch {
            key, takes, sends, ..
        } = &wrong;
        found.add(
            Severity::Warning,
            Id::MtuSmaller,
            format!(
                "session {}: frames above {} bytes may be lost on the way to {}, and its sources send up to {sends}",
                key.session, takes.mtu, key.output
            ),
            format!("{} has MTU {sends}, {}", wrong.source, takes.why),
            wrong.remedy(mender),
        );
    }
}

/// The MTUs that configs of NICs have to have, where they have too small ones.
pub fn raised(node: &Node<'_>) -> BTreeMap<NicId, u32> {
    let mut raised = BTreeMap::new();
    for wrong in wrong(node, pairs(node)) {
        if let Some(nic) = wrong.takes.by {
            let mtu: &mut u32 = raised.entry(nic).or_default();
            *mtu = (*mtu).max(wrong.sends);
        }
    }
    raised
}

/// An output that takes less than its sources send.
struct MtuMismatch<'a> {
    key: OutputKey,
    device: &'a IfName,
    takes: Takes,
    sends: u32,
    source: &'a IfName,
}

impl MtuMismatch<'_> {
    fn remedy(&self, mender: &NicRemedy<'_>) -> String {
        let (device, mtu) = (self.device, self.sends);
        match self.takes.by.and_then(|nic| mender.set(nic)) {
            Some(set) => format!("{set}; the sensor has to take such frames, too"),
            None => format!(
                "ip link set {device} mtu {mtu}; to last, `mtu {mtu}` for its bridge in /etc/network/interfaces; \
                 the sensor has to take such frames, too"
            ),
        }
    }
}

fn wrong<'a>(
    node: &Node<'a>,
    pairs: BTreeMap<OutputKey, Option<DeviceMtu<'a>>>,
) -> Vec<MtuMismatch<'a>> {
    let wrong = pairs.into_iter().filter_map(|(key, largest)| {
        let device = node.desired.device_of(&key)?;
        let takes = takes(node, &key, device)?;
        let (sends, source) = largest.filter(|(sends, _)| *sends > takes.mtu)?;
        Some(MtuMismatch {
            key,
            device,
            takes,
            sends,
            source,
        })
    });
    wrong.collect()
}

/// Each session's output with the largest of the sources that are sent to it.
fn pairs<'a>(node: &Node<'a>) -> BTreeMap<OutputKey, Option<DeviceMtu<'a>>> {
    let mut pairs: BTreeMap<OutputKey, Option<DeviceMtu<'a>>> = BTreeMap::new();
    let mut add = |key: OutputKey, device: &'a IfName| {
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
        let whole = key.engine.bridge().filter(|_| wanted.config.all);
        for device in wanted.config.ports.keys().chain(whole) {
            add(key.of.clone(), device);
        }
    }
    pairs
}

fn mtu(node: &Node<'_>, device: &IfName) -> Option<u32> {
    node.observed.links.get(device)?.mtu
}

/// The largest packet that an output takes, in bytes.
struct Takes {
    mtu: u32,
    /// What says so.
    why: String,
    /// The NIC whose config says so.
    by: Option<NicId>,
}

fn takes(node: &Node<'_>, key: &OutputKey, device: &IfName) -> Option<Takes> {
    let own = mtu(node, device).map(|mtu| Takes {
        mtu,
        why: format!("{device} has MTU {mtu}"),
        by: None,
    });
    let configured = sensor(key).and_then(|nic| {
        let config = node.cluster.guest(nic.vmid)?.nics.get(&nic.index)?;
        // 1 stands for the bridge's.
        let mtu = config.mtu.filter(|mtu| *mtu > 1)?;
        Some(Takes {
            mtu,
            why: format!(
                "{} has net{}: mtu={mtu}",
                node.config_of(nic.vmid),
                nic.index
            ),
            by: Some(nic),
        })
    });
    // Of two that are equal, the config is what can be changed.
    configured
        .into_iter()
        .chain(own)
        .min_by_key(|takes| takes.mtu)
}

fn sensor(key: &OutputKey) -> Option<NicId> {
    match key.output.parse() {
        Ok(Output::Nic(nic)) => Some(nic),
        _ => None,
    }
}
