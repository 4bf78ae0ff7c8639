//! Frames' sizes: an output whose device takes less than its sources send loses the large ones.

use std::collections::BTreeMap;

use super::facts::Node;
use super::findings::{Findings, Id, Severity, shell_word};
use crate::core::copies::CopyKey;
use crate::core::model::{IfName, NicId};
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
        let Some(takes) = takes(node, &key, device) else {
            continue;
        };
        let Some((sends, source)) = sources.filter(|(sends, _)| *sends > takes.mtu) else {
            continue;
        };
        wrong += 1;
        found.add(
            Severity::Warning,
            Id::MtuSmaller,
            format!(
                "session {}: frames above {} bytes may be lost on the way to {}, and its sources send up to {sends}",
                key.session, takes.mtu, key.output
            ),
            format!("{source} has MTU {sends}, {}", takes.why),
            takes.remedy(device, sends),
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

/// The largest packet that an output takes, in bytes.
struct Takes {
    mtu: u32,
    /// What says so.
    why: String,
    /// The command that sets the NIC whose config says so, up to its MTU.
    set: Option<String>,
}

impl Takes {
    fn remedy(&self, device: &IfName, mtu: u32) -> String {
        match &self.set {
            Some(set) => format!("{set},mtu={mtu}; the sensor has to take such frames, too"),
            None => format!(
                "ip link set {device} mtu {mtu}; to last, `mtu {mtu}` for its bridge in /etc/network/interfaces; \
                 the sensor has to take such frames, too"
            ),
        }
    }
}

fn takes(node: &Node<'_>, key: &CopyKey, device: &IfName) -> Option<Takes> {
    let own = mtu(node, device).map(|mtu| Takes {
        mtu,
        why: format!("{device} has MTU {mtu}"),
        set: None,
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
            set: Some(format!(
                "{} --net{} {}",
                node.set(nic.vmid),
                nic.index,
                shell_word(&config.without(&["mtu"]))
            )),
        })
    });
    // Of two that are equal, the config is what can be changed.
    configured
        .into_iter()
        .chain(own)
        .min_by_key(|takes| takes.mtu)
}

fn sensor(key: &CopyKey) -> Option<NicId> {
    match key.output.parse() {
        Ok(Output::Nic(nic)) => Some(nic),
        _ => None,
    }
}
