//! How large the rules of a filter get.

use super::*;
use crate::core::filter::parse;

fn chains(text: &str) -> Result<Vec<Vec<Branch>>, TooLarge> {
    let filter = parse(text).unwrap_or_else(|error| panic!("`{text}`: {error}"));
    lower(Some(&filter), &VlanSet::default())
}

/// Rules, chains, ranges, depth, visits.
fn size(chains: &[Vec<Branch>]) -> (usize, usize, usize, usize, usize) {
    let rules = chains.iter().flatten();
    let ranges = rules
        .clone()
        .flat_map(|branch| &branch.matches)
        .map(|test| match test {
            Match::Bits { ranges, .. } => ranges.len(),
            Match::Sample(_) => 1,
        })
        .sum();
    let (depth, visits) = rules::ways(chains, 0, &mut vec![None; chains.len()]);
    (rules.count(), chains.len(), ranges, depth, visits)
}

#[test]
fn probe() {
    let list = |pattern: &str, word: &str, n: usize| {
        (1..=n)
            .map(|number| pattern.replace('N', &number.to_string()))
            .collect::<Vec<_>>()
            .join(word)
    };
    let hosts = |n| list("host 10.0.0.N", " or ", n);
    let ports = |n| list("port N", " or ", n);
    let mut cases: Vec<(String, String)> = [
        "tcp", "tcp port 80", "port 80", "not port 22", "host 10.0.0.1", "not host 10.0.0.1", "host 2001:db8::1", "not host 2001:db8::1",
        "tcp port 80 or tcp port 443 or udp port 53 or icmp or arp",
        "not broadcast and not multicast", "vlan 10 and tcp port 80", "host 10.0.0.1 and port 80", "host 10.0.0.1 or port 80", "port 80 or host 10.0.0.1",
        "not (host 10.0.0.1 or port 22 or ether host bc:24:11:00:00:01 or vlan 7)",
        "not (ether host bc:24:11:00:00:01 or host 10.0.0.1 or host 2001:db8::1 or port 22)",
        "tcp port 22 or (vlan and tcp port 22)",
        "(host 10.0.0.1 and port 80) or (host 10.0.0.2 and port 443)",
        "ether src bc:24:11:00:00:01 or tcp port 80",
        "tcp port 80 and ether src bc:24:11:00:00:01",
        "tcp port 80 or ether src bc:24:11:00:00:01",
        "net 10.0.0.0 mask 255.0.255.0 or net 10.0.0.0 mask 255.0.0.255 or net 0.0.0.1 mask 0.0.0.1 or port 80",
    ].iter().map(|s| (s.to_string(), s.to_string())).collect();
    cases.push(("excl 100 hosts".into(), format!("not ({})", hosts(100))));
    cases.push((
        "excl 200 hosts + port 22".into(),
        format!("not ({} or port 22)", hosts(200)),
    ));
    cases.push((
        "200 hosts x 50 ports".into(),
        format!("({}) and ({})", hosts(200), ports(50)),
    ));
    cases.push((
        "200 hosts or 50 ports".into(),
        format!("({}) or ({})", hosts(200), ports(50)),
    ));
    cases.push((
        "50 ports or 200 hosts".into(),
        format!("({}) or ({})", ports(50), hosts(200)),
    ));
    cases.push(("512 ports".into(), ports(512)));
    cases.push((
        "not 512 ports".into(),
        format!("not ({})", list("tcp port N", " or ", 512)),
    ));
    cases.push((
        "512 hosts".into(),
        list("host 10.0.1.N", " or ", 255) + " or " + &list("host 10.0.0.N", " or ", 255),
    ));
    cases.push((
        "100 v6".into(),
        format!("not ({})", list("host 2001:db8::N", " or ", 100)),
    ));
    cases.push(("100 v6 or'd".into(), list("host 2001:db8::N", " or ", 100)));
    cases.push((
        "100 macs".into(),
        format!(
            "not ({})",
            list("ether host bc:24:11:0:0:N", " or ", 99).replace("0:N", "0:N")
        ),
    ));
    cases.push((
        "100 pairs".into(),
        list("(src host 10.0.0.N and dst host 10.0.1.N)", " or ", 100),
    ));
    cases.push((
        "30 pairs both".into(),
        list("(host 10.0.0.N and host 10.0.1.N)", " or ", 30),
    ));
    for n in [3, 4, 5, 6, 8] {
        cases.push((
            format!("{n} host+port"),
            list("(host 10.0.0.N and port N)", " or ", n),
        ));
        cases.push((
            format!("{n} dst host+port"),
            list("(dst host 10.0.0.N and tcp dst port N)", " or ", n),
        ));
    }
    cases.push((
        "20 dst host+port".into(),
        list("(dst host 10.0.0.N and tcp dst port N)", " or ", 20),
    ));
    cases.push((
        "256 host+port".into(),
        list("(host 10.0.0.N and port N)", " or ", 255),
    ));
    cases.push((
        "128 host+port4".into(),
        list(
            "(src host 10.0.0.N and dst port N and host 10.1.0.N and ether host bc:24:11:00:00:N)",
            " or ",
            99,
        ),
    ));
    cases.push(("vlans".into(), list("vlan N and tcp", " or ", 8)));
    for (name, text) in cases {
        let begun = std::time::Instant::now();
        let result = chains(&text);
        let took = begun.elapsed();
        match result {
            Ok(chains) => println!("{name}: {:?} {took:?}", size(&chains)),
            Err(error) => println!("{name}: {error} {took:?}"),
        }
    }
}
