//! Our table, written by nft(8) and read back over netlink, in the real kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::{Node, run};
use pve_span::engine::nft::read::observe;
use pve_span::engine::nft::run::{Error, Program};
use pve_span_core::engine::Statistics;
use pve_span_core::engine::nft::{Hook, NftState, Seen, SeenChain, SeenRule, Side};

/// A node with two devices.
fn node() -> Node {
    let node = Node::without_ovs();
    node.ip(&[
        "link add tap101i0 type veth peer name g101",
        "link add tap200i1 type veth peer name g200",
        "link set tap101i0 up",
        "link set tap200i1 up",
    ]);
    node
}

fn nft(node: &Node, text: &str) {
    let mut command = node.command("nft");
    command.args(["-f", "-"]);
    run(command, text);
}

fn seen(node: &Node) -> Seen {
    match node.inside(observe) {
        NftState::Present(seen) => seen,
        NftState::Failed(why) => panic!("{why}"),
    }
}

fn index(node: &Node, device: &str) -> u32 {
    let path = format!("/sys/class/net/{device}/ifindex");
    let text = node.inside(|| std::fs::read_to_string(path).unwrap());
    text.trim().parse().unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[test]
fn without_a_table_there_is_nothing() {
    assert_eq!(seen(&node()), Seen::default());
}

#[test]
fn what_was_loaded_is_read_back() {
    let node = node();
    nft(
        &node,
        r#"
        table netdev pve-span {
            counter copy/dmz/200/net1 { packets 7 bytes 700 }
            chain in/tap101i0 {
                type filter hook ingress device "tap101i0" priority 0;
                jump to/dmz comment "dmz #1"
                goto copy/dmz
            }
            chain out/tap101i0 { type filter hook egress device "tap101i0" priority 0; }
            chain to/dmz { ether saddr { 02:00:00:00:00:01, 02:00:00:00:00:03 } return; }
            chain copy/dmz {
                counter name "copy/dmz/200/net1" dup to "tap200i1" accept comment "a copy"
            }
        }
        table inet pve-span { set other { type ipv4_addr; }; chain other { }; }
        table netdev another { counter other { }; chain other { accept; }; }
        "#,
    );
    let mut seen = seen(&node);
    let handles: Vec<u64> = seen
        .chains
        .values_mut()
        .flat_map(|chain| &mut chain.rules)
        .map(|rule| std::mem::take(&mut rule.handle))
        .collect();
    assert!(handles.iter().all(|handle| *handle > 0), "{handles:?}");
    let hook = |side| {
        Some(Hook {
            device: "tap101i0".parse().unwrap(),
            side,
        })
    };
    let rule = |comment: &str, copies_to| SeenRule {
        handle: 0,
        comment: comment.into(),
        copies_to,
    };
    let chain = |hook, rules| SeenChain { hook, rules };
    let copy = rule("a copy", Some(index(&node, "tap200i1")));
    assert_eq!(
        seen,
        Seen {
            exists: true,
            chains: [
                (
                    "in/tap101i0",
                    chain(
                        hook(Side::Ingress),
                        vec![rule("dmz #1", None), rule("", None)]
                    )
                ),
                ("out/tap101i0", chain(hook(Side::Egress), vec![])),
                ("to/dmz", chain(None, vec![rule("", None)])),
                ("copy/dmz", chain(None, vec![copy])),
            ]
            .map(|(name, chain)| (name.to_owned(), chain))
            .into(),
            counters: BTreeMap::from([(
                "copy/dmz/200/net1".to_owned(),
                Statistics {
                    frames: 7,
                    bytes: 700
                }
            )]),
            strangers: [].into(),
        }
    );
}

#[test]
fn what_we_never_put_there_is_a_stranger() {
    let node = node();
    nft(
        &node,
        "table netdev pve-span {
            set addresses { type ipv4_addr; }
            map marks { type ipv4_addr : mark; }
            quota much { over 1 mbytes }
            counter ours { }
        }",
    );
    let seen = seen(&node);
    let strangers: Vec<&str> = seen.strangers.iter().map(String::as_str).collect();
    assert_eq!(strangers, ["addresses", "marks", "much"]);
    assert_eq!(seen.counters.len(), 1);
}

#[test]
fn a_device_that_goes_takes_its_chain_or_its_hook_and_the_rest_is_read() {
    let node = node();
    nft(
        &node,
        r#"table netdev pve-span {
            chain gone { type filter hook ingress device "tap101i0" priority 0; accept; }
            chain copy { dup to "tap200i1"; }
        }"#,
    );
    let was = index(&node, "tap200i1");
    node.ip(&["link del tap101i0", "link del tap200i1"]);
    let seen = seen(&node);
    // What becomes of it is the kernel's affair: gone with the device, there without it, or waiting for its name.
    if let Some(chain) = seen.chains.get("gone") {
        assert!(
            chain.hook.is_none()
                || chain
                    .hook
                    .as_ref()
                    .is_some_and(|hook| hook.device.as_str() == "tap101i0")
        );
    }
    let copy = seen.chains.get("copy").unwrap();
    assert_eq!(copy.rules.first().unwrap().copies_to, Some(was));
}

#[test]
fn thousands_of_rules_are_read_in_order() {
    let node = node();
    let mut text = String::from("table netdev pve-span {\n");
    for chain in 0..400 {
        writeln!(text, "chain c{chain} {{").unwrap();
        for rule in 0..10 {
            writeln!(
                text,
                "@ll,96,16 {{ 0x800-0x{:x}, 0x86dd }} dup to \"tap200i1\" comment \"{chain} {rule}\"",
                0x801 + rule
            )
            .unwrap();
        }
        text.push_str("}\n");
    }
    text.push('}');
    nft(&node, &text);
    let to = index(&node, "tap200i1");
    let seen = seen(&node);
    assert_eq!(seen.chains.len(), 400);
    for (name, chain) in &seen.chains {
        let found: Vec<(String, Option<u32>)> = chain
            .rules
            .iter()
            .map(|rule| (format!("c{}", rule.comment), rule.copies_to))
            .collect();
        let expected: Vec<(String, Option<u32>)> = (0..10)
            .map(|rule| (format!("{name} {rule}"), Some(to)))
            .collect();
        assert_eq!(found, expected);
    }
    assert!(seen.strangers.is_empty());
}

#[test]
fn a_table_that_changes_meanwhile_is_never_seen_in_between() {
    let node = node();
    let name = |number: usize| format!("chain-{number}");
    let load = |number: usize, before: Option<usize>| {
        let mut text = String::new();
        for chain in 0..100 {
            if let Some(before) = before {
                writeln!(
                    text,
                    "delete chain netdev pve-span {}-{chain}",
                    name(before)
                )
                .unwrap();
            }
            writeln!(text, "add chain netdev pve-span {}-{chain}", name(number)).unwrap();
            writeln!(
                text,
                "add rule netdev pve-span {}-{chain} accept comment \"{number}\"",
                name(number)
            )
            .unwrap();
        }
        text
    };
    nft(
        &node,
        &format!("add table netdev pve-span\n{}", load(0, None)),
    );
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..20 {
                nft(&node, &load(number, Some(number - 1)));
            }
            is_over.store(true, Ordering::SeqCst);
        });
        node.inside(|| {
            let mut looks = 0;
            while !is_over.load(Ordering::SeqCst) {
                let NftState::Present(seen) = observe() else {
                    panic!("the kernel can be asked");
                };
                let rules = seen.chains.values().flat_map(|chain| &chain.rules);
                let comments: std::collections::BTreeSet<&str> =
                    rules.map(|rule| rule.comment.as_str()).collect();
                assert_eq!(
                    (seen.chains.len(), comments.len()),
                    (100, 1),
                    "{comments:?}"
                );
                looks += 1;
            }
            assert!(looks > 0);
        });
    });
}

#[test]
fn a_change_is_made_as_a_whole_or_not_at_all() {
    let node = node();
    let table = r#"{"add": {"table": {"family": "netdev", "name": "pve-span"}}}"#;
    let rule = r#"{"add": {"rule": {"family": "netdev", "table": "pve-span", "chain": "none", "expr": [{"accept": null}]}}}"#;
    let program = Program::find().unwrap();
    let load = |commands: &str| {
        let json = format!(r#"{{"nftables": [{commands}]}}"#);
        node.inside(|| program.load(json.as_bytes(), soon()))
    };
    let refused = load(&format!("{table}, {rule}")).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "nft refused the change: Could not process rule: No such file or directory"
    );
    assert!(!seen(&node).exists);
    load(table).unwrap();
    assert!(seen(&node).exists);
}

#[test]
fn a_node_that_lacks_nothing_has_nothing_to_complain_of_and_is_left_as_it_is() {
    let node = node();
    let program = Program::find().unwrap();
    assert_eq!(node.inside(|| program.diagnose(soon())), None);
    let mut list = node.command("nft");
    list.args(["list", "ruleset"]);
    assert_eq!(run(list, ""), "");
}

/// An nft(8) for a kernel that has no such thing.
fn without(folder: &Path, word: &str) -> Program {
    let real = Program::find().unwrap().path;
    let script = format!(
        "#!/bin/sh\ninput=$(cat)\ncase $input in *{word}*)\n\
         echo 'internal:0:0-0: Error: Could not process rule: Operation not supported' >&2; exit 1;;\n\
         esac\nprintf '%s\\n' \"$input\" | {} \"$@\"\n",
        real.display()
    );
    let path = folder.join(format!("nft-{word}"));
    let mut write = std::process::Command::new("/bin/sh");
    // By another process: what this one has open for writing while a test starts a child cannot be run.
    write.args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"]);
    write.arg(&path);
    run(write, &script);
    Program { path }
}

#[test]
fn what_a_kernel_lacks_is_named() {
    let node = node();
    for (word, missing) in [
        (
            "netdev",
            "this kernel has no nf_tables for network devices (CONFIG_NF_TABLES, CONFIG_NF_TABLES_NETDEV)",
        ),
        (
            "ingress",
            "this kernel has no ingress hook for nftables (CONFIG_NETFILTER_INGRESS)",
        ),
        (
            "egress",
            "this kernel has no egress hook for nftables (CONFIG_NETFILTER_EGRESS, Linux 5.16 or newer)",
        ),
        (
            "dup",
            "this kernel has no `dup` for nftables (CONFIG_NFT_DUP_NETDEV)",
        ),
        (
            "numgen",
            "this kernel has no `numgen` for nftables (CONFIG_NFT_NUMGEN)",
        ),
        (
            "counter",
            "this kernel has no named counters for nftables (CONFIG_NFT_COUNTER, CONFIG_NFT_OBJREF)",
        ),
    ] {
        let program = without(node.root(), word);
        assert_eq!(
            node.inside(|| program.diagnose(soon())).as_deref(),
            Some(missing)
        );
    }
}

#[test]
fn a_program_that_hangs_is_ended_in_time() {
    let node = node();
    let path = node.path("nft-that-hangs");
    let mut write = std::process::Command::new("/bin/sh");
    write
        .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(&path);
    run(write, "#!/bin/sh\nsleep 1000\n");
    let program = Program { path };
    let soon = Instant::now() + Duration::from_millis(50);
    assert!(matches!(
        program.load(b"{}", soon),
        Err(Error::TooLate { .. })
    ));
    assert_eq!(program.diagnose(Instant::now()), None);
}
