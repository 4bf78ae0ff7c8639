//! Expressions as nobody would write them, over the values that the frames have.

use proptest::prelude::*;
use proptest::sample::select;

use super::frames::{IPV4, IPV6, MACS, PORTS, VIDS};

const SIDES: [&str; 4] = ["", "src ", "dst ", "src and dst "];

fn address() -> impl Strategy<Value = String> {
    select(IPV4.as_slice()).prop_map(|[a, b, c, d]| format!("{a}.{b}.{c}.{d}"))
}

fn net4() -> impl Strategy<Value = String> {
    let mask = prop_oneof![
        (0_u32..=32).prop_map(|bits| u32::MAX.checked_shl(32 - bits).unwrap_or(0)),
        select([0xff00_ff00, 0x00ff_0000, 0xff00_000f, 0x0000_0001].as_slice()),
    ];
    (select(IPV4.as_slice()), mask).prop_map(|(address, mask)| {
        let net = std::net::Ipv4Addr::from(u32::from_be_bytes(address) & mask);
        match mask {
            0 => "net 0.0.0.0/0".to_owned(),
            _ => format!("net {net} mask {}", std::net::Ipv4Addr::from(mask)),
        }
    })
}

fn net6() -> impl Strategy<Value = String> {
    let lengths = select([0, 1, 31, 32, 33, 48, 63, 64, 65, 96, 100, 127, 128].as_slice());
    (select(IPV6.as_slice()), lengths).prop_map(|(address, length): (&str, u32)| {
        let bits = u128::from(address.parse::<std::net::Ipv6Addr>().unwrap());
        let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        format!("net {}/{length}", std::net::Ipv6Addr::from(bits & mask))
    })
}

fn primitive() -> impl Strategy<Value = String> {
    let side = || select(SIDES.as_slice());
    let port = || select(PORTS.as_slice());
    prop_oneof![
        3 => select(["ip", "ip6", "arp", "tcp", "udp", "sctp", "icmp", "icmp6"].as_slice())
            .prop_map(str::to_owned),
        2 => (select(["", "ip ", "arp "].as_slice()), side(), address())
            .prop_map(|(scope, side, address)| format!("{scope}{side}host {address}")),
        2 => (select(["", "ip ", "arp "].as_slice()), side(), net4())
            .prop_map(|(scope, side, net)| format!("{scope}{side}{net}")),
        2 => (side(), select(IPV6.as_slice()))
            .prop_map(|(side, address)| format!("{side}host {address}")),
        1 => (side(), net6()).prop_map(|(side, net)| format!("ip6 {side}{net}")),
        3 => (select(["", "tcp ", "udp ", "sctp "].as_slice()), side(), port())
            .prop_map(|(transport, side, port)| format!("{transport}{side}port {port}")),
        2 => (select(["", "tcp ", "udp "].as_slice()), side(), port(), port())
            .prop_map(|(transport, side, a, b)| format!("{transport}{side}portrange {a}-{b}")),
        2 => (side(), select(MACS.as_slice())).prop_map(|(side, mac)| {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            format!("ether {side}host {mac}")
        }),
        1 => select(["0x0800", "0x8035", "0x88cc", "0x8100", "0x88a8"].as_slice())
            .prop_map(|number| format!("ether proto {number}")),
        2 => select(["vlan", "broadcast", "multicast", "ip multicast", "ip6 multicast"].as_slice())
            .prop_map(str::to_owned),
        1 => select(VIDS.as_slice()).prop_map(|id| format!("vlan {id}")),
    ]
}

/// An expression of a few primitives. (More than eight `vlan` are not allowed, and improbable.)
pub fn expression() -> impl Strategy<Value = String> {
    primitive().prop_recursive(4, 10, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4)
                .prop_map(|members| format!("({})", members.join(" and "))),
            proptest::collection::vec(inner.clone(), 2..4)
                .prop_map(|members| format!("({})", members.join(" or "))),
            inner.prop_map(|member| format!("(not {member})")),
        ]
    })
}
