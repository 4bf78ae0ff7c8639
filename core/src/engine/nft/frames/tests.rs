//! How large the rules of a filter get.

use super::*;
use crate::filter::parse;

fn chains(text: &str) -> Result<Vec<Vec<Branch>>, TooLarge> {
    let filter = parse(text).unwrap_or_else(|error| panic!("`{text}`: {error}"));
    lower(Some(&filter), &VlanSet::default())
}

/// How many rules there are, and how long the longest way through them is.
#[track_caller]
fn size(text: &str) -> (usize, usize) {
    let chains = chains(text).unwrap();
    let (depth, _) = rules::ways(&chains, 0, &mut vec![None; chains.len()]);
    (chains.iter().flatten().count(), depth)
}

/// `pattern` with the numbers from 1 on in place of its N's, with `or` between.
fn list(pattern: &str, count: usize) -> String {
    let items: Vec<_> = (1..=count)
        .map(|number| pattern.replace('N', &number.to_string()))
        .collect();
    items.join(" or ")
}

/// Ports that do not stand side by side, so that each is a range of its own.
fn even_ports(count: usize) -> String {
    let ports: Vec<_> = (1..=count)
        .map(|number| format!("port {}", 2 * number))
        .collect();
    ports.join(" or ")
}

#[test]
fn typical_filters_are_a_handful_of_rules() {
    assert_eq!(size("broadcast"), (1, 1));
    assert_eq!(size("not broadcast and not multicast"), (1, 1));
    assert_eq!(size("icmp or icmp6"), (4, 2));
    assert_eq!(size("host 10.0.0.1"), (6, 2));
    assert_eq!(size("not host 10.0.0.1"), (3, 1));
    assert_eq!(size("host 2001:db8::1"), (3, 2));
}

#[test]
fn ports_cost_a_rule_or_two_for_each_length_of_the_ipv4_header() {
    assert_eq!(size("tcp dst port 80"), (18, 2));
    assert_eq!(size("tcp port 80"), (38, 3));
    assert_eq!(size("not port 22"), (25, 4));
    assert_eq!(size("vlan 10 and tcp port 80"), (39, 4));
    assert_eq!(size(&list("port N", 512)), (65, 3));
}

#[test]
fn long_lists_are_no_more_rules_than_short_ones() {
    assert_eq!(size(&list("host 10.0.0.N", 200)), (8, 2));
    let excluded = format!("not ({})", list("host 10.0.0.N", 100));
    assert_eq!(size(&excluded), size("not host 10.0.0.1"));
    let hosts_and_ports = format!(
        "({}) and ({})",
        list("host 10.0.0.N", 200),
        list("port N", 50)
    );
    assert_eq!(size(&hosts_and_ports), (81, 4));
}

#[test]
fn the_longest_list_of_ports_fits() {
    let text = even_ports(crate::filter::MAX_PRIMITIVES);
    assert_eq!(size(&text), (65, 3));
}

#[test]
fn no_filter_takes_all_and_a_selection_of_vlans_is_two_rules() {
    let everything = lower(None, &VlanSet::default()).unwrap();
    let taken = Branch {
        matches: Vec::new(),
        to: To::Taken,
    };
    assert_eq!(everything, [vec![taken]]);
    let vlans = (10..20).chain([0]).collect();
    let chains = lower(None, &vlans).unwrap();
    assert_eq!(chains.iter().flatten().count(), 2);
}

#[test]
fn what_can_never_hold_is_no_rule() {
    assert_eq!(chains("tcp and udp").unwrap(), [vec![]]);
}

#[test]
fn pairs_of_hosts_and_ports_are_what_multiplies() {
    assert_eq!(size(&list("(host 10.0.0.N and port N)", 2)), (140, 5));
    assert_eq!(size(&list("(host 10.0.0.N and port N)", 5)), (766, 6));
    let one_way = list("(dst host 10.0.0.N and dst port N)", 50);
    assert_eq!(size(&one_way), (851, 3));
}

#[test]
fn too_many_rules_are_refused_with_advice() {
    let text = list("(host 10.0.0.N and port N)", 6);
    assert_eq!(
        chains(&text).unwrap_err().to_string(),
        "the filter needs more than 1000 nftables rules: join hosts that want the same ports in one parenthesis, or \
         make several sessions of it"
    );
}

#[test]
fn filters_that_multiply_are_given_up() {
    let text = list(
        "(src host 10.0.0.N and dst port N and host 10.1.0.N and ether host bc:24:11:0:0:N)",
        99,
    );
    assert_eq!(
        chains(&text).unwrap_err().to_string(),
        "the filter combines its conditions in too many ways (given up after 650000 steps): join hosts that want the \
         same ports in one parenthesis, or make several sessions of it"
    );
}

#[test]
fn other_limits_are_named_too() {
    assert_eq!(
        TooLarge::Depth(15).to_string(),
        "the filter asks 15 questions one after the other, and the kernel allows 13: use fewer different masks and \
         `vlan`, or make several sessions of it"
    );
    assert_eq!(
        TooLarge::Questions.to_string(),
        "the filter asks more than 150 questions of one frame: use fewer different masks and `vlan`, or make several \
         sessions of it"
    );
    assert_eq!(
        TooLarge::Ranges.to_string(),
        "the filter needs more than 50000 values in nftables rules: name networks or ranges of ports instead of \
         single ones, or make several sessions of it"
    );
    assert_eq!(
        TooLarge::Visits.to_string(),
        "the filter's rules branch in more than 2000 ways: join hosts that want the same ports in one parenthesis, or \
         make several sessions of it"
    );
}
