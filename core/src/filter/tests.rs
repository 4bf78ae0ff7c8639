//! What the filter language accepts, and what it makes of it.

use core::net::Ipv4Addr;

use super::*;

mod generated;
mod messages;

fn normal(text: &str) -> String {
    match parse(text) {
        Ok(filter) => filter.to_string(),
        Err(error) => panic!("`{text}`: {error} at {}", error.offset),
    }
}

/// Every test of an expression, from left to right.
fn tests_of(expr: &Expr) -> Vec<&Test> {
    match expr {
        Expr::All(members) | Expr::Any(members) => members.iter().flat_map(tests_of).collect(),
        Expr::Not(inner) => tests_of(inner),
        Expr::Test(test) => vec![test],
    }
}

#[test]
fn and_and_or_are_equal_and_go_from_left_to_right() {
    assert_eq!(normal("tcp or udp and icmp"), "(tcp or udp) and icmp");
    assert_eq!(normal("tcp and udp or icmp"), "(tcp and udp) or icmp");
    assert_eq!(normal("tcp or (udp and icmp)"), "tcp or (udp and icmp)");
}

#[test]
fn not_binds_tightest() {
    assert_eq!(normal("not tcp and udp"), "not tcp and udp");
    assert_eq!(normal("not (tcp and udp)"), "not (tcp and udp)");
    assert_eq!(normal("! ! tcp"), "tcp");
}

#[test]
fn chains_of_one_operator_are_one_list() {
    assert_eq!(
        normal("tcp or (udp or (icmp or arp))"),
        "tcp or udp or icmp or arp"
    );
    let filter = parse("tcp or (udp or icmp)").unwrap();
    assert!(matches!(filter.expr(), Expr::Any(members) if members.len() == 3));
}

#[test]
fn an_operand_takes_the_qualifiers_before_it() {
    assert_eq!(
        normal("tcp port 80 or 443 or 8080"),
        "tcp port 80 or tcp port 443 or tcp port 8080"
    );
    assert_eq!(
        normal("not host 10.0.0.1 and 10.0.0.2"),
        "not host 10.0.0.1 and host 10.0.0.2"
    );
    assert_eq!(normal("src net (10.0.0.0/8 or not 192.168.0.0/16)"), {
        "src net 10.0.0.0/8 or not src net 192.168.0.0/16"
    });
    assert_eq!(
        normal("port 80 or (host 10.0.0.1) or 443"),
        "port 80 or host 10.0.0.1 or port 443"
    );
}

#[test]
fn an_address_alone_is_a_host() {
    assert_eq!(normal("10.0.0.1"), "host 10.0.0.1");
    assert_eq!(
        normal("not 10.0.0.1 or 2001:db8::1"),
        "not host 10.0.0.1 or host 2001:db8::1"
    );
}

#[test]
fn networks_are_written_in_all_of_tcpdumps_ways() {
    assert_eq!(normal("net 10"), "net 10.0.0.0/8");
    assert_eq!(normal("net 10.1"), "net 10.1.0.0/16");
    assert_eq!(normal("net 10.1/24"), "net 10.1.0.0/24");
    assert_eq!(normal("net 10.0.0.0 mask 255.0.0.0"), "net 10.0.0.0/8");
    assert_eq!(
        normal("net 10.0.1.0 mask 255.0.255.0"),
        "net 10.0.1.0 mask 255.0.255.0"
    );
    assert_eq!(normal("net 10.1.2.3"), "host 10.1.2.3");
    assert_eq!(normal("net 0.0.0.0/0"), "net 0.0.0.0/0");
    assert_eq!(normal("ip6 net 2001:DB8::/32"), "net 2001:db8::/32");
}

#[test]
fn a_reversed_range_of_ports_is_turned_round() {
    assert_eq!(normal("portrange 9-1"), "portrange 1-9");
    assert_eq!(normal("portrange 7"), "port 7");
}

#[test]
fn mac_addresses_are_written_in_all_of_tcpdumps_ways() {
    for mac in [
        "bc:24:11:00:00:01",
        "BC:24:11:0:0:1",
        "bc-24-11-00-00-01",
        "bc.24.11.0.0.1",
        "bc24.1100.0001",
        "bc2411000001",
    ] {
        assert_eq!(
            normal(&format!("ether src {mac}")),
            "ether src host bc:24:11:00:00:01"
        );
    }
}

#[test]
fn vlan_moves_everything_to_its_right_whatever_lies_between() {
    let filter = parse("tcp or (not vlan 10 and udp) or vlan and (vlan or arp)").unwrap();
    let tags: Vec<_> = tests_of(filter.expr())
        .iter()
        .map(|test| test.tags)
        .collect();
    //                tcp vlan udp vlan vlan arp
    assert_eq!(tags, [0, 0, 1, 1, 2, 3]);
}

#[test]
fn an_address_is_bound_to_what_carries_it() {
    let net = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::BROADCAST).unwrap();
    for (text, scope) in [
        ("dst host 10.0.0.1", Ipv4Scope::Any),
        ("ip dst host 10.0.0.1", Ipv4Scope::Ip),
        ("arp dst host 10.0.0.1", Ipv4Scope::Arp),
    ] {
        let side = Side::Destination;
        let primitive = Primitive::Ipv4 { scope, side, net };
        let test = Test { tags: 0, primitive };
        assert_eq!(parse(text).unwrap().expr(), &Expr::Test(test));
    }
}

#[test]
fn a_filter_is_serialized_as_its_normal_form() {
    let filter = parse("tcp port 80 or 443").unwrap();
    assert_eq!(
        serde_json::to_string(&filter).unwrap(),
        r#""tcp port 80 or tcp port 443""#
    );
}

#[test]
fn hostile_nesting_is_refused() {
    for (open, close) in [("(", ")"), ("not ", ""), ("!(", ")"), ("host (", ")")] {
        let text = format!("{}10.0.0.1{}", open.repeat(10_000), close.repeat(10_000));
        assert!(parse(&text).is_err(), "{open}");
    }
    let deep = "(".repeat(MAX_DEPTH + 1) + "tcp";
    let error = parse(&deep).unwrap_err();
    assert_eq!(error.message, "the filter nests more than 64 deep");
    assert_eq!(error.offset, MAX_DEPTH);
    let alternating = "tcp and udp or ".repeat(100) + "tcp";
    assert_eq!(
        parse(&alternating).unwrap_err().message,
        "the filter nests more than 64 deep"
    );
}

#[test]
fn the_deepest_nesting_has_a_normal_form_that_parses() {
    let text = "not (tcp or ".repeat(MAX_DEPTH / 2) + "udp" + &")".repeat(MAX_DEPTH / 2);
    let filter = parse(&text).unwrap();
    assert_eq!(parse(&filter.to_string()).unwrap(), filter);
}

#[test]
fn hostile_length_is_refused() {
    let error = parse(&"é".repeat(MAX_LENGTH)).unwrap_err();
    assert_eq!(
        error,
        FilterError {
            offset: MAX_LENGTH,
            width: MAX_LENGTH,
            message: "the filter expression is longer than 65536 bytes".to_owned(),
            hint: None,
        }
    );
    let error = parse(&"tcp or ".repeat(MAX_PRIMITIVES + 1)).unwrap_err();
    assert_eq!(error.message, "the filter has more than 512 primitives");
    assert_eq!(error.offset, "tcp or ".len() * MAX_PRIMITIVES);
    let error = parse(&"vlan and ".repeat(9)).unwrap_err();
    assert_eq!(error.message, "`vlan` stands here more than 8 times");
    assert_eq!(error.offset, "vlan and ".len() * 8);
}

#[test]
fn a_long_word_is_not_repeated_whole() {
    let error = parse(&"x".repeat(1000)).unwrap_err();
    assert_eq!(error.message, format!("unknown word `{}…`", "x".repeat(48)));
    assert_eq!(error.width, 1000);
}

#[test]
fn the_longest_normal_form_is_within_the_limit() {
    let widest = "src and dst net 1111:2222:3333:4444:5555:6666:7777:8880/125";
    let text = format!("not ({widest} or not ({widest}))");
    let text = vec![text; MAX_PRIMITIVES / 2].join(" and ");
    let filter = parse(&text).unwrap();
    let shown = filter.to_string();
    assert!(shown.len() <= MAX_LENGTH, "{}", shown.len());
    assert_eq!(parse(&shown).unwrap(), filter);
}
