use super::*;
use crate::model::{Direction, Switch};

const FILE: &str = "/etc/pve/span.cfg";

fn messages(text: &str) -> Vec<String> {
    parse(FILE, text)
        .diagnostics
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The faults of one key in an otherwise good session, without file and place.
fn fault(line: &str) -> Vec<String> {
    let text = format!("[a]\nsource = 101\noutput = 200/net1\n{line}\n");
    parse(FILE, &text)
        .diagnostics
        .into_iter()
        .map(|d| format!("{}: {}", d.severity, d.message))
        .collect()
}

#[test]
fn every_key_is_read() {
    let text = "; comment\n[defaults]   ; c\ndirection = to\nsnaplen=128\n\n[dmz-ids]\n\
        source    = 101/net0, 102, 300-399, tag:web, pool:prod, bridge:vmbr1, port:eno1, node:pve2, all\n\
        exclude   = 305, tag:noisy\ndirection = both   ; both | from | to\npoint = guest\nvlan = 10, 20-29\n\
        sample = 1/100\noutput = 200/net1, port:eno2, vlan:999\nengine = auto\nenabled = no\n\
        expires = 2027-01-31T18:00Z\ncomment = ticket 4711\n";
    let annotations = parse(FILE, text);
    assert!(annotations.is_valid(), "{:?}", annotations.diagnostics);
    let session = &annotations.sessions["dmz-ids"];
    assert_eq!(session.sources.len(), 9);
    assert_eq!(session.exclude.len(), 2);
    assert_eq!(session.outputs.len(), 3);
    assert_eq!(
        session.direction,
        Direction::Both,
        "the session's own key wins over [defaults]"
    );
    assert_eq!(session.snaplen, Some(128), "[defaults] fills in");
    assert_eq!(
        (session.point, session.sample, session.enabled),
        (Point::Guest, 100, Switch::No)
    );
    assert_eq!(session.vlans.to_string(), "10,20-29");
    assert_eq!(
        session.expires.map(|end| end.to_string()).as_deref(),
        Some("2027-01-31T18:00:00Z")
    );
    assert_eq!(session.comment.as_deref(), Some("ticket 4711"));
}

#[test]
fn a_list_of_a_session_s_own_stands_in_place_of_the_defaults() {
    let text = "[defaults]\nexclude = 305, tag:noisy\nvlan = 10\n[a]\nsource = 101\noutput = 200/net1\nexclude = 306\n\
        vlan = 20\n[b]\nsource = 102\noutput = 200/net1\n";
    let annotations = parse(FILE, text);
    assert!(annotations.is_valid(), "{:?}", annotations.diagnostics);
    let said = |name: &str| {
        let session = &annotations.sessions[name];
        let exclude = session.exclude.iter().map(|at| at.value.to_string());
        (
            exclude.collect::<Vec<_>>().join(" "),
            session.vlans.to_string(),
        )
    };
    assert_eq!(said("a"), ("306".into(), "20".into()));
    assert_eq!(said("b"), ("305 tag:noisy".into(), "10".into()));
}

#[test]
fn all_faults_are_reported_at_once_with_their_places() {
    let text = "[dmz]\nsouce = 101\noutput = 200/net1\nvlan = 10,\t4095, 30-20\n\n[DMZ 2]\nsource = 101\n\n[b]\n\
        source = 101, , tga:web\noutput = 200\ndirection = form\n";
    assert_eq!(
        messages(text),
        [
            "/etc/pve/span.cfg:2:1: error: unknown key `souce`\n 2 | souce = 101\n   | ^^^^^\n   = did you mean `source`?",
            "/etc/pve/span.cfg:4:12: error: `4095` is not a VLAN (1 to 4094, or 0 for untagged)\n 4 | vlan = 10,\t4095, 30-20\n   |           \t^^^^",
            "/etc/pve/span.cfg:4:18: error: the range `30-20` runs backwards\n 4 | vlan = 10,\t4095, 30-20\n   |           \t      ^^^^^",
            "/etc/pve/span.cfg:6:2: error: `DMZ 2` is not a session name: 1 to 32 of a-z, 0-9 and `-`\n 6 | [DMZ 2]\n   |  ^^^^^\n   = write [dmz-2]",
            "/etc/pve/span.cfg:10:15: error: there is nothing between the commas\n 10 | source = 101, , tga:web\n    |               ^",
            "/etc/pve/span.cfg:10:17: error: `tga:web` is not a selector, did you mean `tag`?\n 10 | source = 101, , tga:web\n    |                 ^^^^^^^",
            "/etc/pve/span.cfg:11:10: error: which NIC of guest 200? write 200/net1, for example\n 11 | output = 200\n    |          ^^^",
            "/etc/pve/span.cfg:12:13: error: expected both, from or to, not `form`\n 12 | direction = form\n    |             ^^^^\n    = did you mean `from`?",
        ]
    );
}

#[test]
fn each_value_has_its_own_fault() {
    assert_eq!(
        fault("snaplen = 13"),
        ["error: `13` is not a length in bytes (14 to 65535)"]
    );
    assert_eq!(
        fault("snaplen = 65536"),
        ["error: `65536` is not a length in bytes (14 to 65535)"]
    );
    assert_eq!(fault("sample = 100"), ["error: `100` is not a rate"]);
    assert_eq!(
        fault("expires = 2027-01-31"),
        ["error: `2027-01-31` is not a point in time with its zone"]
    );
    assert_eq!(
        fault("enabled = maybe"),
        ["error: expected yes or no, not `maybe`"]
    );
    assert_eq!(
        fault("engine = tc"),
        ["error: expected auto, ovs or nft, not `tc`"]
    );
    assert_eq!(fault("vlan ="), ["error: `vlan` has no value"]);
    assert_eq!(
        fault("source = 102"),
        ["error: duplicate key `source` (first on line 2)"]
    );
    assert_eq!(
        fault("nonsense"),
        ["error: expected `key = value` or [section]"]
    );
    assert_eq!(
        fault("[a]"),
        ["error: duplicate section [a] (first on line 1)"]
    );
    assert_eq!(
        fault("[defaults]\noutput = 1/net0"),
        ["error: `output` belongs to a session, not to [defaults]"]
    );
    assert_eq!(
        fault("point = guest\nvlan = 0\nsample = 1/1\ncomment ="),
        Vec::<String>::new()
    );
}

#[test]
fn a_key_before_any_section_and_an_empty_file_are_faults() {
    assert_eq!(
        messages("source = 101\n"),
        [
            "/etc/pve/span.cfg:1:1: error: `source` stands before any section\n 1 | source = 101\n   | ^^^^^^\n   = begin a session with its name in brackets: [dmz-ids]"
        ]
    );
    assert_eq!(
        messages(" \n"),
        [
            "/etc/pve/span.cfg: error: the file is empty\n  = a file with nothing but a comment line ends every session"
        ]
    );
    assert!(parse(FILE, "# no sessions\n").is_valid());
}

#[test]
fn what_this_version_lacks_is_refused_session_by_session() {
    let text = "[a]\nsource = 101\noutput = 200/net1, gre:10.0.0.9\n[b]\nsource = 102\noutput = 200/net1, vlan:999\nengine = nft\nsnaplen = 100\n";
    let annotations = parse(FILE, text);
    assert!(annotations.is_valid());
    assert_eq!(
        messages(text),
        [
            "/etc/pve/span.cfg:3:20: unsupported: output gre:10.0.0.9 is refused: tunnels are not available in this version\n 3 | output = 200/net1, gre:10.0.0.9\n   |                    ^^^^^^^^^^^^",
            "/etc/pve/span.cfg:6:20: unsupported: output vlan:999 is refused: RSPAN is for the ovs engine, and `engine = nft` needs the nft engine\n 6 | output = 200/net1, vlan:999\n   |                    ^^^^^^^^",
            "/etc/pve/span.cfg:8:11: unsupported: `snaplen` is refused: the nft engine, which `engine = nft` needs, does not cut frames\n 8 | snaplen = 100\n   |           ^^^\n   = Open vSwitch's mirrors do (`engine = ovs`), and so does the sensor's own capture (tcpdump -s)",
        ]
    );
    assert_eq!(
        fault("engine = ovs\nsample = 1/2"),
        ["error: the ovs engine has no `sample`"]
    );
}

#[test]
fn sensors_that_feed_themselves_are_refused() {
    let refused = |text: &str| {
        parse(FILE, text)
            .diagnostics
            .into_iter()
            .map(|d| d.message)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        refused("[a]\nsource = 200/net0\noutput = 200/net1\n"),
        ["guest 200 is the sensor of [a] and cannot be its source"]
    );
    assert_eq!(
        refused("[a]\nsource = 101\noutput = 200/net1\n[b]\nsource = 200\noutput = 101/net1\n"),
        [
            "a loop: [a] feeds guest 200 from guest 101, and other sessions feed 101 from 200",
            "a loop: [b] feeds guest 101 from guest 200, and other sessions feed 200 from 101",
        ]
    );
    assert_eq!(
        refused("[a]\nsource = 101, 200\nexclude = 200\noutput = 200/net1\n"),
        Vec::<String>::new()
    );
    assert_eq!(
        refused("[a]\nsource = tag:web\noutput = 200/net1\n"),
        Vec::<String>::new(),
        "tags cannot invalidate the file"
    );
    assert_eq!(
        refused("[a]\nsource = port:eno2, bridge:vmbr2\noutput = port:eno2, port:vmbr2\n"),
        [
            "port:eno2 is a source of the session that it is an output of",
            "vmbr2 is a bridge: it cannot be an output"
        ]
    );
    assert_eq!(
        refused(
            "[a]\nsource = 101\noutput = 200/net1\nengine = ovs\n[b]\nsource = 102\noutput = 200/net1\nengine = nft\n"
        )[0],
        "200/net1 is an output of two engines: ovs in [a], nft in [b]"
    );
    assert_eq!(
        refused("[a]\nsource = 101\nvlan = 990-999\noutput = vlan:999\n"),
        ["VLAN 999 is both mirrored and the output: it would feed itself"]
    );
}

#[test]
fn a_hostile_file_costs_neither_time_nor_memory() {
    let long_list = format!(
        "[a]\nsource = {}\noutput = 200/net1\n",
        vec!["x"; 400_000].join(",")
    );
    let annotations = parse(FILE, &long_list);
    assert_eq!(annotations.diagnostics.len(), 1000);
    let shown = annotations.diagnostics[500].to_string();
    assert!(shown.len() < 1000 && shown.contains("…"), "{shown}");
    let sections: String = (0..150_000)
        .map(|number| format!("[s{number}]\n"))
        .collect();
    assert_eq!(parse(FILE, &sections).diagnostics.len(), 1000);
    let many = |word: &str| {
        (0..900)
            .map(|number| format!("{word}{number}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let session = |name: usize| {
        format!(
            "[s{name}]\nsource = {}\noutput = {}\n",
            many("10"),
            (0..100)
                .map(|n| format!("9{n}/net0"))
                .collect::<Vec<_>>()
                .join(",")
        )
    };
    let wide: String = (0..200).map(session).collect();
    assert!(parse(FILE, &wide).is_valid());
    let vlans = vec!["0-4094"; 999].join(",");
    let ports: Vec<_> = (1..250).map(|n| format!("port {}", 2 * n)).collect();
    let ports = ports.join(" or ");
    let short = |name: usize| format!("[s{name}]\nsource = 101\noutput = 200/net1\n");
    let sessions: String = (0..1000).map(short).collect();
    let defaults = format!("[defaults]\nvlan = {vlans}\nfilter = {ports}\n{sessions}");
    assert!(parse(FILE, &defaults).is_valid());
    let depth = format!(
        "[a]\nsource = 101\noutput = 200/net1\nfilter = {}tcp\n",
        "(".repeat(100_000)
    );
    assert!(!parse(FILE, &depth).is_valid());
}

#[test]
fn a_long_line_is_shown_around_its_fault() {
    let text = format!(
        "[a]\nsource = {}, tga:web, 102\noutput = 200/net1\n",
        (1000..1100)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    );
    let shown = messages(&text);
    assert_eq!(
        shown,
        [
            "/etc/pve/span.cfg:2:610: error: `tga:web` is not a selector, did you mean `tag`?\n \
          2 | …1090, 1091, 1092, 1093, 1094, 1095, 1096, 1097, 1098, 1099, tga:web, 102\n   \
            |                                                              ^^^^^^^"
        ]
    );
}
