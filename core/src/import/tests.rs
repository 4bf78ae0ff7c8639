use proptest::prelude::*;

use super::*;
use crate::config;
use crate::config::diagnostic::Severity;
use crate::model::Taken;
use crate::state::{Mirror, MirrorConfig, MirrorOutput};

/// A mirrors.conf as sessions behind what is in span.cfg, its faults left aside.
fn imported(conf: &str, existing: &str) -> String {
    let mut conf = mirrors_conf::parse("mirrors.conf", conf);
    let mut drafts = merge(&conf.rules, &mut conf.origins);
    name_sessions(&mut drafts, &conf.origins, existing);
    text(&drafts, &conf.origins)
}

/// Mirrors of vmbr2 as sessions.
fn of_mirrors(mirrors: &[Mirror]) -> String {
    let bridge = "vmbr2".parse().unwrap();
    let (mut origins, mut rules) = (Vec::new(), Vec::new());
    for mirror in mirrors {
        let (origin, of) = ovs_mirrors::read(&bridge, mirror, None, origins.len());
        origins.push(origin);
        rules.extend(of);
    }
    let mut drafts = merge(&rules, &mut origins);
    name_sessions(&mut drafts, &origins, "");
    text(&drafts, &origins)
}

fn mirror(name: &str, ports: &[(&str, Taken)], output: &str) -> Mirror {
    let ports = ports
        .iter()
        .map(|(port, taken)| (port.parse().unwrap(), *taken));
    let config = MirrorConfig {
        ports: ports.collect(),
        output: MirrorOutput::Port(output.parse().unwrap()),
        ..MirrorConfig::default()
    };
    let name = name.to_owned();
    Mirror {
        name,
        config,
        ..Mirror::default()
    }
}

fn faults(conf: &str) -> Vec<String> {
    let conf = mirrors_conf::parse("mirrors.conf", conf);
    conf.diagnostics.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_valid(existing: &str, text: &str) {
    for whole in [format!("#\n{text}"), append(existing, text).0] {
        let read = config::parse("span.cfg", &whole);
        let errors = read
            .diagnostics
            .iter()
            .filter(|d| d.severity == Severity::Error);
        assert_eq!(errors.collect::<Vec<_>>(), [] as [&_; 0], "{whole}");
    }
}

#[test]
fn lines_about_one_port_or_one_sensor_are_joined() {
    let text = imported(
        "# rules\nzone1  eno1  100  1\nzone1  eno1  101  1   # the second sensor\n\n\tzone2 eno2 100 2 promisc=no\n\
         zone1 vm201:0 102 1 select=src#x\nzone1 vm202:net3 102 net1 select=src\nzone1 tap203i0 102 1 select=dst\n",
        "",
    );
    assert_eq!(
        text,
        "\n# From mirrors.conf, line 2: zone1  eno1  100  1\n# From mirrors.conf, line 3: zone1  eno1  101  1\n\
         [eno1]\nsource = port:eno1\noutput = 100/net1, 101/net1\n\
         \n# From mirrors.conf, line 5: zone2 eno2 100 2 promisc=no\n[eno2]\nsource = port:eno2\noutput = 100/net2\n\
         \n# From mirrors.conf, line 6: zone1 vm201:0 102 1 select=src\n# From mirrors.conf, line 7: zone1 vm202:net3 102 net1 select=src\n\
         [to-102-net1]\nsource = 201/net0, 202/net3\ndirection = from\noutput = 102/net1\n\
         \n# From mirrors.conf, line 8: zone1 tap203i0 102 1 select=dst\n\
         [guest-203-net0]\nsource = 203/net0\ndirection = to\noutput = 102/net1\n"
    );
    assert_valid("", &text);
}

#[test]
fn a_line_that_is_not_understood_is_shown_where_it_fails() {
    assert_eq!(
        faults("zone1 eno1 100\n"),
        [
            "mirrors.conf:1:1: error: 3 of at least 4 words are here\n 1 | zone1 eno1 100\n   | ^^^^^^^^^^^^^^\n   \
          = a line is: BRIDGE SOURCE DEST_VMID DEST_NIC [promisc=yes|no] [select=both|src|dst]"
        ]
    );
    assert_eq!(
        faults("# x\n zone1 vm20x:0 100 1"),
        [
            "mirrors.conf:2:8: error: `20x` is not a guest number (1 to 999999999)\n 2 |  zone1 vm20x:0 100 1\n   |        ^^^^^^^"
        ]
    );
    let first = |conf: &str| faults(conf).remove(0).lines().next().unwrap().to_owned();
    assert_eq!(
        first("a/b eno1 100 1"),
        "mirrors.conf:1:1: error: `a/b` is not an interface name: it has a blank, `/`, `:`, `,` or control character"
    );
    assert_eq!(
        first("zone1 e:1 100 1"),
        "mirrors.conf:1:7: error: `e:1` is not an interface name: it has a blank, `/`, `:`, `,` or control character"
    );
    assert_eq!(
        first("zone1 e\u{202e}1 100 1"),
        "mirrors.conf:1:7: error: `e\\u{202e}1` has a character that turns text round"
    );
    assert_eq!(
        first("zone1 vm1:32 100 1"),
        "mirrors.conf:1:7: error: `32` is not the number of a NIC (0 to 31)"
    );
    assert_eq!(
        first("zone1 eno1 0100 1"),
        "mirrors.conf:1:12: error: `0100` is not a guest number (1 to 999999999)"
    );
    assert_eq!(
        first("zone1 eno1 100 eth1"),
        "mirrors.conf:1:16: error: `eth1` is not the number of a NIC (0 to 31)"
    );
    assert_eq!(
        faults("zone1 eno1 100 1 selct=src\n"),
        [
            "mirrors.conf:1:18: warning: `selct=src` is no option, and proxmox-ovs-mirror ignores it, too\n \
          1 | zone1 eno1 100 1 selct=src\n   |                  ^^^^^^^^^\n   = did you mean `select=src`?"
        ]
    );
    assert_eq!(
        faults("zone1 vm5:0 100 1\nzone1 tap5i0 100 1 select=src\n"),
        [
            "mirrors.conf:2:1: warning: the same as line 1, which counts\n 2 | zone1 tap5i0 100 1 select=src\n   | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"
        ]
    );
    assert_eq!(faults("# a\n\n   \t\r\n#\n"), [] as [&str; 0]);
}

#[test]
fn the_tool_s_names_for_its_mirrors_are_known() {
    let conf = mirrors_conf::parse("", "zone1 eno1 100 1\nzone1 vm200:0 100 3 promisc=no\n");
    assert_eq!(
        conf.names,
        [
            "mirror_zone1_eno1_to_vm100i1",
            "mirror_zone1_tap200i0_to_vm100i3"
        ]
    );
}

#[test]
fn a_mirror_of_several_directions_is_several_sessions() {
    let text = of_mirrors(&[mirror(
        "Span 0",
        &[
            ("tap101i0", Taken::Both),
            ("fwln102o1", Taken::Both),
            ("eno1", Taken::Sent),
            ("veth300i0", Taken::Delivered),
        ],
        "tap200i1",
    )]);
    assert_eq!(
        text,
        "\n# From mirror Span 0 of vmbr2\n[span-0]\nsource = 101/net0, 102/net1\noutput = 200/net1\n\
         \n# From mirror Span 0 of vmbr2\n[span-0-from]\nsource = port:eno1\ndirection = from\noutput = 200/net1\n\
         \n# From mirror Span 0 of vmbr2\n[span-0-to]\nsource = 300/net0\ndirection = to\noutput = 200/net1\n"
    );
    assert_valid("", &text);
}

#[test]
fn whatever_a_mirror_selects_is_said_in_span_cfg_s_words() {
    let mut all = mirror("all", &[("tap101i0", Taken::Sent)], "eno2");
    all.config.all = true;
    all.config.vlans = [10, 20, 21, 4095].into_iter().collect();
    all.config.snaplen = Some(128);
    let mut rspan = mirror("rspan", &[("eno1", Taken::Both)], "x");
    rspan.config.output = MirrorOutput::Vlan(999);
    let text = of_mirrors(&[all, rspan]);
    assert_eq!(
        text,
        "\n# From mirror all of vmbr2\n[all]\nsource = bridge:vmbr2\nvlan = 10,20-21\nsnaplen = 128\noutput = port:eno2\n\
         \n# From mirror rspan of vmbr2\n[rspan]\nsource = port:eno1\noutput = vlan:999\n"
    );
    assert_valid("", &text);
}

#[test]
fn a_filter_of_open_vswitch_s_is_not_carried_over_and_that_is_said() {
    let span = mirror("span", &[("tap101i0", Taken::Both)], "tap200i1");
    let (origin, rules) = ovs_mirrors::read(&"vmbr2".parse().unwrap(), &span, Some("icmp\n[x]"), 0);
    assert_eq!(rules.len(), 1);
    assert_eq!(
        text(&[], &[origin]),
        "\n# Not taken over: mirror span of vmbr2\n#   without its filter, `icmp\\n[x]`: the session takes every frame; \
         `filter =` chooses in tcpdump's words\n"
    );
}

#[test]
fn what_mirrors_nothing_is_a_comment() {
    let mut none = mirror("gone", &[("tap101i0", Taken::Both)], "x");
    none.config.output = MirrorOutput::None;
    let text = of_mirrors(&[none, mirror("a\n[b]", &[], "tap200i1")]);
    assert_eq!(
        text,
        "\n# Not taken over: mirror gone of vmbr2\n#   it has no output, or none any more, and mirrors nothing\n\
         \n# Not taken over: mirror a\\n[b] of vmbr2\n#   it selects no port, or none any more, and mirrors nothing\n"
    );
    assert_valid("", &text);
}

#[test]
fn a_sensor_s_own_nic_is_left_out_and_a_loop_is_a_comment() {
    let text = of_mirrors(&[
        mirror(
            "own",
            &[("tap200i0", Taken::Both), ("tap101i0", Taken::Both)],
            "tap200i1",
        ),
        mirror("there", &[("tap301i0", Taken::Both)], "tap302i1"),
        mirror("back", &[("tap302i0", Taken::Both)], "tap301i1"),
    ]);
    assert_eq!(
        text,
        "\n# From mirror own of vmbr2\n#   without its source 200/net0: guest 200 is the sensor, and would be fed with what it gets\n\
         [own]\nsource = 101/net0\noutput = 200/net1\n\
         \n# From mirror there of vmbr2\n# Refused: a loop: [there] feeds guest 302 from guest 301, and other sessions feed 301 from 302\n\
         #[there]\n#source = 301/net0\n#output = 302/net1\n\
         \n# From mirror back of vmbr2\n# Refused: a loop: [back] feeds guest 301 from guest 302, and other sessions feed 302 from 301\n\
         #[back]\n#source = 302/net0\n#output = 301/net1\n"
    );
    assert_valid("", &text);
}

#[test]
fn names_and_defaults_of_the_file_are_minded() {
    let existing = "[defaults]\ndirection = from\nengine = nft\nsample = 1/10\nfilter = tcp\nenabled = no\n\
                    [eno1]\nsource = 101\noutput = 200/net1";
    let text = imported("z eno1 200 1\n", existing);
    assert_eq!(
        text,
        "\n# From mirrors.conf, line 1: z eno1 200 1\n# Note: `filter` of [defaults] holds here, too, and the old mirror had none\n\
         [eno1-2]\nsource = port:eno1\noutput = 200/net1\ndirection = both\nengine = auto\nsample = 1/1\nenabled = yes\n"
    );
    assert_valid(existing, &text);
}

#[test]
fn what_a_session_does_already_is_not_written_twice() {
    let conf =
        "z eno1 200 1\nz eno1 201 1\nz vm101:0 200 1 select=src\nz vm102:0 200 1 select=dst\n";
    let once = imported(conf, "");
    assert_eq!(once.matches("\n[").count(), 3);
    let again = imported(conf, &once);
    assert_eq!(
        again,
        "\n# From mirrors.conf, line 1: z eno1 200 1\n# From mirrors.conf, line 2: z eno1 201 1\n\
         # It is in span.cfg already: [eno1]\n\
         \n# From mirrors.conf, line 3: z vm101:0 200 1 select=src\n# It is in span.cfg already: [guest-101-net0]\n\
         \n# From mirrors.conf, line 4: z vm102:0 200 1 select=dst\n# It is in span.cfg already: [guest-102-net0]\n"
    );
    // It has to do all of it, and to do it.
    for existing in [
        "[a]\nsource = 101\noutput = 200/net1\n",
        "[a]\nsource = 101/net1\ndirection = from\noutput = 200/net1\n",
        "[a]\nsource = 101\ndirection = from\noutput = 200/net1\nenabled = no\n",
        "[a]\nsource = 101\ndirection = from\noutput = 200/net1\nfilter = tcp\n",
        "[a]\nsource = 101\ndirection = from\noutput = 200/net2\n",
    ] {
        assert!(
            imported(conf, existing).contains("\n[guest-101-net0]\n"),
            "{existing}"
        );
    }
    let wider = "[a]\nsource = 100-200\nexclude = 5\ndirection = from\noutput = 200/net1\n[b]\nsource = 90-110, tag:x\n\
                 direction = from\noutput = 9/net1, 200/net1\n";
    assert!(imported(conf, wider).contains("select=src\n# It is in span.cfg already: [b]\n"));
}

#[test]
fn more_than_a_file_can_hold_are_comments() {
    let conf: String = (0..3000)
        .map(|n| format!("z {}{n} {} 1\n", "x".repeat(40), n + 1))
        .collect();
    let text = imported(&conf, "[one]\nsource = 101\noutput = 9999/net1\n");
    assert_eq!(text.matches("\n[").count(), 999);
    assert_eq!(
        text.matches("# Refused: span.cfg has 1000 sessions at most\n")
            .count(),
        2001
    );
    assert_valid("[one]\nsource = 101\noutput = 9999/net1\n", &text);
}

#[test]
fn a_file_as_large_as_one_can_be_is_read_in_its_time() {
    let many: String = (0..30_000)
        .map(|n| format!("z p{} {} {}\n", n % 700, n / 700 + 1, n % 32))
        .collect();
    assert_valid("", &imported(&many, ""));
    for text in [
        "z e 1 1\n".repeat(120_000),
        "#".repeat(1 << 20),
        "z ".repeat(500_000),
        "x\n".repeat(500_000),
    ] {
        let conf = mirrors_conf::parse("", &text);
        assert!(conf.diagnostics.len() <= 1000 && conf.rules.len() <= 1);
    }
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "(vm[0-9]{1,3}:(net)?[0-9]{1,2}|tap[1-9]0?i[0-9]|eno[0-9]|fwln1o0)",
        "[0-9]{1,3}",
        "(promisc|select)=(yes|no|both|src|dst|x)",
        "\\PC{1,8}",
        "[\u{0}-\u{20}#;=\\[\\]:,/\u{85}\u{202e}]{1,4}",
    ]
}

proptest! {
    /// Whatever the file is, nothing panics, faults point into it, and what comes out is a valid span.cfg, alone and
    /// behind another one.
    #[test]
    fn any_mirrors_conf_becomes_a_valid_span_cfg(
        words in prop::collection::vec((word(), prop_oneof![" ", "\t", "\n", "  "]), 0..60),
    ) {
        let conf: String = words.iter().map(|(word, gap)| format!("{word}{gap}")).collect();
        for fault in faults(&conf) {
            prop_assert!(!fault.contains(|c: char| c != '\n' && c != '\t' && crate::model::is_control(c)), "{fault:?}");
        }
        let existing = "[defaults]\ndirection = to\n[eno1]\nsource = 1/net0\noutput = 2/net1\n";
        let text = imported(&conf, existing);
        prop_assert!(!text.contains(|c: char| c != '\n' && crate::model::is_control(c)), "{text:?}");
        assert_valid(existing, &text);
    }

    /// Lines in the tool's form all arrive: each source goes to its sensor in its direction, and nothing else does.
    #[test]
    fn every_line_arrives(
        lines in prop::collection::btree_map((1u32..4, 0u8..2, 10u32..13, 0u8..2), 0usize..3, 1..20),
    ) {
        let word = ["both", "src", "dst"];
        let conf: String = lines.iter().map(|((from, nic, to, at), select)| {
            format!("z vm{from}:{nic} {to} {at} select={}\n", word[*select])
        }).collect();
        let read = config::parse("", &format!("#\n{}", imported(&conf, "")));
        let mut found = std::collections::BTreeSet::new();
        for session in read.sessions.values() {
            for source in &session.sources {
                for output in &session.outputs {
                    found.insert(format!("{} {} {}", source.value, session.direction, output.value));
                }
            }
        }
        let said = ["both", "from", "to"];
        let wanted = lines.iter().map(|((from, nic, to, at), select)| {
            format!("{from}/net{nic} {} {to}/net{at}", said[*select])
        }).collect();
        prop_assert_eq!(found, wanted);
    }
}
