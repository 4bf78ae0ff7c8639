//! Hardware and drivers that switch frames past where they are mirrored.

use super::facts::Facts;
use super::findings::{Findings, Id, Severity, listed, plural};

/// Judges offloads.
pub fn judge(facts: &Facts<'_>, found: &mut Findings) {
    if let Some(ovs) = &facts.ovs_more {
        if let Some(value) = &ovs.hw_offload {
            found.add(
                Severity::Warning,
                Id::OvsOffload,
                "Open vSwitch leaves flows to the network card, which switches them past mirrors and nftables: sensors may miss most of a conversation",
                format!("Open_vSwitch table: other_config:hw-offload={value}"),
                "ovs-vsctl remove Open_vSwitch . other_config hw-offload && systemctl restart openvswitch-switch",
            );
        }
        if !ovs.dpdk.is_empty() {
            found.add(
                Severity::Note,
                Id::DpdkPort,
                format!(
                    "Open vSwitch drives {} past the kernel: nftables sees nothing of {}, only Open vSwitch's own mirrors do",
                    listed(&ovs.dpdk),
                    plural(ovs.dpdk.len(), "it", "them"),
                ),
                "Interface table: type=dpdk",
                "keep sources and sensor on one Open vSwitch bridge",
            );
        }
    }
    if let Some(first) = facts.offloading.first() {
        found.add(
            Severity::Warning,
            Id::TcOffload,
            format!(
                "{} may switch frames in hardware, past mirrors: what is switched there no sensor gets",
                listed(&facts.offloading)
            ),
            format!("ethtool -k {first}: hw-tc-offload: on"),
            format!("ethtool -K {first} hw-tc-offload off"),
        );
    }
    if found.none_of(&[Id::OvsOffload, Id::DpdkPort, Id::TcOffload]) {
        found.ok(
            Id::Offload,
            "nothing switches frames past mirrors",
            "other_config:hw-offload of Open vSwitch, hw-tc-offload of physical ports",
        );
    }
}
