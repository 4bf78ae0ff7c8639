//! What holds of every filter and of every text.

use core::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::super::*;

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![
        Just(Side::Either),
        Just(Side::Source),
        Just(Side::Destination),
        Just(Side::Both),
    ]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    proptest::sample::select(vec![
        Protocol::Ip,
        Protocol::Ip6,
        Protocol::Arp,
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Sctp,
        Protocol::Icmp,
        Protocol::Icmp6,
    ])
}

fn ipv4_net() -> impl Strategy<Value = Ipv4Net> {
    let mask = prop_oneof![
        any::<u32>(),
        (0_u32..=32).prop_map(|bits| u32::MAX.checked_shl(32 - bits).unwrap_or(0)),
    ];
    (any::<u32>(), mask).prop_map(|(address, mask)| {
        Ipv4Net::new(
            Ipv4Addr::from_bits(address & mask),
            Ipv4Addr::from_bits(mask),
        )
        .unwrap()
    })
}

fn ipv6_net() -> impl Strategy<Value = Ipv6Net> {
    (any::<u128>(), 0_u8..=128).prop_map(|(address, bits)| {
        let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
        Ipv6Net::new(Ipv6Addr::from_bits(address & mask), bits).unwrap()
    })
}

fn primitive() -> impl Strategy<Value = Primitive> {
    let scope = prop_oneof![
        Just(Ipv4Scope::Any),
        Just(Ipv4Scope::Ip),
        Just(Ipv4Scope::Arp)
    ];
    let transport = proptest::option::of(prop_oneof![
        Just(Transport::Tcp),
        Just(Transport::Udp),
        Just(Transport::Sctp),
    ]);
    let ports = (any::<u16>(), any::<u16>(), any::<bool>())
        .prop_map(|(one, other, single)| PortRange::new(one, if single { one } else { other }));
    prop_oneof![
        protocol().prop_map(Primitive::Protocol),
        (scope, side(), ipv4_net()).prop_map(|(scope, side, net)| Primitive::Ipv4 {
            scope,
            side,
            net
        }),
        (side(), ipv6_net()).prop_map(|(side, net)| Primitive::Ipv6 { side, net }),
        (transport, side(), ports).prop_map(|(transport, side, ports)| Primitive::Port {
            transport,
            side,
            ports,
        }),
        (side(), any::<[u8; 6]>()).prop_map(|(side, address)| Primitive::EtherHost {
            side,
            address: EtherAddr(address),
        }),
        (0x0600_u16..0x8000).prop_map(Primitive::EtherType),
        proptest::option::of(0_u16..=VlanTag::MAX)
            .prop_map(|id| Primitive::Vlan(id.and_then(VlanTag::new))),
        Just(Primitive::Broadcast),
        Just(Primitive::Multicast),
        Just(Primitive::IpMulticast),
        Just(Primitive::Ip6Multicast),
    ]
}

/// Canonical trees, as the parser makes them.
fn expr() -> impl Strategy<Value = Expr> {
    let test = primitive().prop_map(|primitive| Expr::Test(Test { tags: 0, primitive }));
    test.prop_recursive(8, 64, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..5)
                .prop_map(|members| members.into_iter().reduce(Expr::and).unwrap()),
            proptest::collection::vec(inner.clone(), 2..5)
                .prop_map(|members| members.into_iter().reduce(Expr::or).unwrap()),
            inner.prop_map(Expr::negate),
        ]
    })
    .prop_map(|mut expr| {
        count_tags(&mut expr, &mut 0);
        expr
    })
}

/// Gives every test the tags of the `vlan` primitives to its left, as many as are allowed.
fn count_tags(expr: &mut Expr, tags: &mut u8) {
    match expr {
        Expr::All(members) | Expr::Any(members) => {
            members
                .iter_mut()
                .for_each(|member| count_tags(member, tags));
        }
        Expr::Not(inner) => count_tags(inner, tags),
        Expr::Test(test) => {
            test.tags = *tags;
            if matches!(test.primitive, Primitive::Vlan(_)) {
                if *tags == MAX_TAGS {
                    test.primitive = Primitive::Broadcast;
                } else {
                    *tags += 1;
                }
            }
        }
    }
}

/// Texts that look like filters more than noise does.
fn words() -> impl Strategy<Value = String> {
    let word = proptest::sample::select(
        lexer::WORDS
            .iter()
            .copied()
            .chain([
                "(",
                ")",
                "!",
                "&&",
                "||",
                "/",
                "&",
                "80",
                "1-9",
                "10.0.0.1",
                "10.1",
                "::1",
                "0x800",
                r"\arp",
                "bc:24:11:00:00:01",
                "255.0.0.0",
                "é",
                "-",
                "99999999999",
                "x",
                "0",
            ])
            .collect::<Vec<_>>(),
    );
    proptest::collection::vec(word, 0..24).prop_map(|words| words.join(" "))
}

/// What holds of every text: a fault lies within it, and a filter survives being shown.
fn holds(text: &str) -> Result<(), TestCaseError> {
    match parse(text) {
        Ok(filter) => {
            let again = parse(&filter.to_string());
            prop_assert_eq!(again, Ok(filter));
        }
        Err(error) => {
            prop_assert!(error.width >= 1);
            prop_assert!(text.is_char_boundary(error.offset));
            let end = error.offset + error.width;
            prop_assert!(text.is_char_boundary(end) || error.offset == text.trim_end().len());
            prop_assert!(!error.message.is_empty() && !error.message.ends_with('.'));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_normal_form_of_any_tree_parses_back_to_it(expr in expr()) {
        let filter = Filter { expr };
        prop_assert_eq!(parse(&filter.to_string()), Ok(filter));
    }

    #[test]
    fn any_text_is_a_filter_or_a_fault_within_it(text in any::<String>()) {
        holds(&text)?;
    }

    #[test]
    fn any_sequence_of_words_is_a_filter_or_a_fault_within_it(text in words()) {
        holds(&text)?;
    }
}
