//! tcpdump is the oracle of the filter language: what it accepts, refuses and means, we do, but for a
//! list of differences that each have a reason.

// Helpers outside the test functions are part of the tests.
#![allow(clippy::expect_used, clippy::panic)]

use std::process::Command;

use pve_span_core::filter;

/// Accepted by both, and our normal form compiles to the very program of the original.
const ACCEPTED: &[&str] = &[
    "host 10.0.0.1",
    "host 10.1",
    "host 2001:db8::1",
    "host ::ffff:10.0.0.1",
    "host 1:2:3:4:5:6:7:8",
    "host 10.0.0.1 or 10.0.0.2",
    "host 10.0.0.1 or 10.1",
    "host 10.0.0.1 or not 10.0.0.2",
    "host 10.0.0.1 or (10.0.0.2 and 10.0.0.3)",
    "host (10.0.0.1 or 10.0.0.2)",
    "host (not 10.0.0.1 or 10.0.0.2)",
    "host not (10.0.0.1 or 10.0.0.2)",
    "host 10.0.0.1 or ::1",
    "host 10.0.0.1 or arp",
    "not host 10.0.0.1 and 10.0.0.2",
    "not host 10.0.0.1 and not 10.0.0.2",
    "src 10.0.0.1",
    "src 10.1",
    "src 2001:db8::1",
    "src and dst 10.0.0.1",
    "dst or src host 10.0.0.1",
    "dst and src host 10.0.0.1",
    "src 10.0.0.1 or dst 10.0.0.2",
    "src 10.0.0.1 or 10.0.0.2",
    "ip host 10.0.0.1",
    "ip6 src host ::1",
    "ip6 host ::1 or ::2",
    "arp host 10.0.0.1",
    "arp dst net 10.1",
    "net 10",
    "net 0x0a",
    "net 10.1",
    "net 10.1.2.3",
    "net 10.0.0.0/8",
    "net 10.0.0.0 / 8",
    "net 10.1/24",
    "net 10.0/8",
    "net 0.0.0.0/0",
    "net 10.0.0.0 mask 255.0.0.0",
    "net 10.1 mask 255.255",
    "net 10.0.0.0 mask 255.0.255.0",
    "net 10.0.0.0/8 or 192.168.0.0/16",
    "net 10.0.0.0/8 or 11",
    "net (10)",
    "net 2001:db8::/32",
    "net ::/0",
    "src net 2001:db8::/32",
    "ip6 net 2001:db8::/32",
    "port 22",
    "port 0",
    "port 65535",
    "port 0x16",
    "src or dst port 22",
    "src and dst port 22",
    "tcp src or dst port 22",
    "tcp src and dst port 22 or 23",
    "tcp port 80 or 443 or 8080",
    "tcp port (80 or 443)",
    "tcp port not 80",
    "port not not 80",
    "port ((80))",
    "port 80 or (443 or 444)",
    "port 80 or ((443) or 22)",
    "port 80 or (not 443)",
    "port 80 or (host 10.0.0.1) or 443",
    "port 80 or (port 22 or 443)",
    "port 80 and not tcp",
    "not port 80 or 443",
    "sctp port 22",
    "udp dst portrange 1-9",
    "portrange 9-1",
    "portrange 1-10 or 20-30",
    "portrange (1-10)",
    "tcp or (udp and icmp)",
    "tcp or udp and port 53",
    "tcp or udp or port 53 and host 10.0.0.1 or arp",
    "(tcp)and(udp port 53 or tcp)",
    "tcp port 22 && !host 10.0.0.1",
    "port 22||port 23",
    "!(tcp)",
    "not not tcp",
    "((tcp))",
    "icmp",
    "icmp6",
    "sctp",
    "ip or ip6 or arp",
    "ether host 52:54:00:12:34:56",
    "ether host 52:54:0:12:34:56",
    "ether host 52-54-00-12-34-56",
    "ether host 52.54.00.12.34.56",
    "ether host 5254.0012.3456",
    "ether host 525400123456",
    "ether src 52:54:00:12:34:56",
    "ether src or dst host 52:54:00:12:34:56",
    "ether src and dst host 52:54:00:12:34:56",
    "ether host 52:54:00:12:34:56 or 52:54:00:12:34:57",
    "link dst host 52:54:00:12:34:56",
    "ether proto 0x0806",
    "ether proto 2054",
    r"ether proto \arp",
    r"ether proto (\ip or \ip6)",
    r"ether proto not \rarp",
    "broadcast",
    "multicast",
    "ether broadcast or ether multicast",
    "ip multicast",
    "ip6 multicast",
    "vlan",
    "vlan 0",
    "vlan 10",
    "vlan 4095",
    "vlan 0x10",
    "vlan ((10))",
    "vlan 10 and vlan 20",
    "vlan 10 or host 10.0.0.1",
    "vlan or tcp",
    "tcp or vlan",
    "(vlan) and (tcp)",
    "vlan and vlan 5 and host ::1",
    "not vlan 10",
    "not (tcp port 22 or host 10.0.0.9)",
];

/// Accepted by both; our normal form says the same in fewer words, so the programs differ.
const ACCEPTED_SHORTER: &[&str] = &["portrange 1", "portrange 0-0", "portrange 1-10 or 80"];

/// Refused by both.
const REFUSED: &[&str] = &[
    "10",
    "10.1",
    "10.0.0.0/8",
    "52:54:00:12:34:56",
    "host",
    "host host 10.0.0.1",
    "host src 10.0.0.1",
    "host 10.0.0.0/24",
    "host 10.0.0.1 mask 255.255.255.255",
    "host 256.0.0.1",
    "host 52:54:00:12:34:56",
    "host 525400123456",
    "host 2001:db8::1::2",
    "host 12345::1",
    "host fe80::1%eth0",
    "src",
    "src or 10.0.0.1",
    "src and port 22",
    "src dst host 10.0.0.1",
    "src tcp port 22",
    "src 10.0.0.0/8",
    "src broadcast",
    "net 10/8",
    "net 10 mask 255.0.0.0",
    "net 10.0.0.1/8",
    "net 10.1.2/16",
    "net 10.0.0.0/0",
    "net 10.0.0.0/33",
    "net 10.0.0.0/",
    "net 10.0.0.0/08",
    "net 10.0.0.0/8/9",
    "net 10.0.0.0 mask 8",
    "net 10.0.0.1 mask 255.0.0.0",
    "net 10.0.0.0 mask 255.256.0.0",
    "net 2001:db8::1/32",
    "net 2001:db8::/129",
    "net 2001:db8:: mask 255.0.0.0",
    "ip net 2001:db8::/32",
    "ip6 host 10.0.0.1",
    "ip host 10.0.0.1 or ::1",
    "arp host 2001:db8::1",
    "arp 10.0.0.1",
    "ip port 22",
    "arp port 22",
    "icmp port 22",
    "tcp 80",
    "tcp src 22",
    "tcp host 10.0.0.1",
    "tcp and 80",
    "tcp port 80 or udp or 443",
    "port",
    "port -1",
    "port 1-10",
    "port 65536",
    "port 99999999999999999999",
    "port 80 or (host 10.0.0.1) or 10.0.0.2",
    "port (80 or tcp)",
    "(port 80 or 443) or 22",
    "portrange 1-",
    "portrange 1 - 9",
    "portrange 1-65536",
    "ether 52:54:00:12:34:56",
    "ether host 10.0.0.1",
    "ether host 52:54:00:12:34",
    "ether port 22",
    "ether proto arp",
    r"ether proto \foo",
    "ether src proto 0x800",
    "ether dst broadcast",
    "ether ip",
    "ip6 broadcast",
    "arp multicast",
    "vlan 4096",
    "vlan 10 or 20",
    "vlan (10 or 20)",
    "vlan foo",
    "TCP",
    "tcp AND udp",
    "tcp and",
    "and tcp",
    "tcp udp",
    "tcp & udp",
    "tcp,udp",
    "(tcp",
    "tcp)",
    "()",
    "not",
    "mask",
];

/// We accept, tcpdump does not.
const ONLY_OURS: &[(&str, &str)] = &[
    ("10.0.0.1", "an address at the beginning can only be a host"),
    ("not 10.0.0.1", "as above"),
    ("(10.0.0.1 or 2001:db8::1)", "as above"),
    (
        "(port 80) or 10.0.0.1",
        "as above: the parenthesis brings back the beginning",
    ),
    (
        "port ((80 or 443))",
        "operands may stand in more parentheses than tcpdump's grammar has",
    ),
    ("port 80 or (443 or port 22)", "as above"),
    (
        "tcp and udp",
        "that no frame can match is not found out here",
    ),
];

/// tcpdump accepts, we do not.
const ONLY_TCPDUMP: &[(&str, &str)] = &[
    (
        "",
        "a filter that filters nothing is a mistake in a configuration file",
    ),
    ("host 10", "tcpdump means 0.0.0.10, which nobody does"),
    ("dst 80", "tcpdump means 0.0.0.80; `dst port 80` was meant"),
    ("net 0", "tcpdump means 0.0.0.0/32"),
    ("net 300", "tcpdump means 1.44.0.0/16"),
    (
        "host 010.0.0.1",
        "some programs read this as octal, tcpdump as decimal",
    ),
    ("port 022", "tcpdump reads octal"),
    ("vlan 010", "as above"),
    ("ether proto 100", "below 0x0600 tcpdump means an LLC SAP"),
    (r"ether proto \stp", "as above"),
    ("ether proto 0x809b", "tcpdump also means SNAP frames"),
    (
        "ip broadcast",
        "needs the netmask of an interface that a mirror does not have",
    ),
    ("tcp[13] & 2 != 0", "bytes are not tested"),
    ("less 64", "lengths are not tested"),
    ("ip proto 6", "every protocol of the subset has a word"),
    ("igmp", "not in the subset"),
    ("rarp", "not in the subset; `ether proto 0x8035`"),
    ("mpls", "not in the subset"),
    (
        "vlan and vlan and vlan and vlan and vlan and vlan and vlan and vlan and vlan",
        "frames with nine tags are not looked into",
    ),
];

/// The program that tcpdump compiles an expression to, or its complaint.
fn tcpdump(expression: &str) -> Result<String, String> {
    let output = Command::new("tcpdump")
        .args(["-y", "EN10MB", "-d", expression])
        .output()
        .unwrap_or_else(|error| {
            panic!("tcpdump is the oracle of this test and cannot be run ({error}): apt install tcpdump")
        });
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).expect("tcpdump prints ASCII"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Every expectation that does not hold, so that one run shows them all.
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_tcpdump_accepts_is_accepted_with_the_same_meaning() {
    let mut faults = Vec::new();
    for expression in ACCEPTED {
        let normal = match filter::parse(expression) {
            Ok(filter) => filter.to_string(),
            Err(error) => {
                faults.push(format!("`{expression}`: {error}"));
                continue;
            }
        };
        let (theirs, ours) = (tcpdump(expression), tcpdump(&normal));
        if theirs.is_err() || theirs != ours {
            faults.push(format!(
                "`{expression}` → `{normal}`:\n{theirs:?}\n{ours:?}"
            ));
        }
    }
    assert_none(&faults);
}

#[test]
fn what_is_said_in_fewer_words_is_accepted_by_both() {
    for expression in ACCEPTED_SHORTER {
        let normal = filter::parse(expression).expect("accepted").to_string();
        assert!(
            tcpdump(expression).is_ok(),
            "tcpdump refuses `{expression}`"
        );
        assert!(tcpdump(&normal).is_ok(), "tcpdump refuses `{normal}`");
    }
}

#[test]
fn what_tcpdump_refuses_is_refused() {
    let mut faults = Vec::new();
    for expression in REFUSED {
        if tcpdump(expression).is_ok() {
            faults.push(format!("tcpdump accepts `{expression}`"));
        }
        if let Ok(filter) = filter::parse(expression) {
            faults.push(format!("`{expression}` was taken for `{filter}`"));
        }
    }
    assert_none(&faults);
}

#[test]
fn the_differences_from_tcpdump_are_the_listed_ones() {
    let mut faults = Vec::new();
    for (expression, why) in ONLY_OURS {
        if filter::parse(expression).is_err() || tcpdump(expression).is_ok() {
            faults.push(format!(
                "no longer accepted by us alone: `{expression}` ({why})"
            ));
        }
    }
    for (expression, why) in ONLY_TCPDUMP {
        if filter::parse(expression).is_ok() || tcpdump(expression).is_err() {
            faults.push(format!(
                "no longer accepted by tcpdump alone: `{expression}` ({why})"
            ));
        }
    }
    assert_none(&faults);
}
