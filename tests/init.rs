//! `init`: a first span.cfg that can be used as it is, and that takes nothing away.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::fs;
use std::os::unix::fs::symlink;

use lab::{Guest, Node, try_run};
use scene::editing::{LESS, SPAN_CFG, edit, editor, file, kept, unnumbered, writes};
use scene::linux::{sensor_on, vm_on};
use scene::{apply, mirrors, run, sensor, stderr, three_guests, vm};

/// The sessions in a text of `init`'s, taken out of their comments.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn init_writes_comments_and_what_it_offers_works_as_it_is() {
    let node = Node::start();
    node.ovs_bridge("vmbr2");
    node.linux_bridge("vmbr0");
    node.user_cfg("user:root@pam:1:0:::::\npool:prod::102:\n");
    node.add(&vm(101, "").name("web1").tags("web"));
    node.add(&Guest::vm(102).net(0, "virtio=BC:24:11:00:00:02,bridge=vmbr0,tag=20"));
    node.add(&sensor(200).name("securityonion"));
    node.start_guests([101, 102, 200]);
    let (code, shown, err) = run(&node, &["init", "--dry-run"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(!node.path("etc/pve/span.cfg").exists());
    let (code, out, err) = run(&node, &["init"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "/etc/pve/span.cfg is written, all of it comments: nothing is mirrored yet.\n\
         Next, with sessions of your own or some of those in it:\n\
         \x20 pve-span edit                     checks what you write and shows what it would change, as check and plan do\n\
         \x20 pve-span apply                    does it now, on this node\n\
         \x20 systemctl enable --now pve-span   the service does so on each node by itself\n\
         \x20 pve-span status                   whether each sensor gets what it should\n"
    );
    assert_eq!(file(&node), shown);
    assert_eq!(
        run(&node, &["check"]).1,
        "/etc/pve/span.cfg is valid: 0 sessions\n"
    );
    assert_eq!(run(&node, &["apply"]).1, "nothing to do\n");

    // Each of its sessions, and all of them together, is served just as it stands there.
    let active = uncommented(&shown);
    let names: Vec<&str> = active
        .lines()
        .filter(|line| line.starts_with('['))
        .collect();
    assert_eq!(
        names,
        ["[web]", "[pool-prod]", "[vmbr0]", "[vmbr2]", "[everything]"],
        "{shown}"
    );
    node.span_cfg(&active);
    let (code, out, err) = run(&node, &["check"]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "/etc/pve/span.cfg is valid: 5 sessions\n", "")
    );
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!((code, err.matches('\n').count()), (0, 1), "{out}");
    assert!(
        err.contains("everything: note: 200/net1 is served by both engines"),
        "{err}"
    );
    let (code, out, _) = run(&node, &["status"]);
    assert_eq!(code, 0, "{out}");
    assert_eq!(out.matches(" active ").count(), 5, "{out}");
}

#[test]
fn on_a_node_without_open_vswitch_it_offers_what_linux_bridges_have() {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    node.add(&vm_on(101, "bridge=vmbr0").tags("web"));
    node.add(&sensor_on(200, "bridge=vmbr0").name("zeek"));
    node.start_guests([101, 200]);
    let (code, shown, err) = run(&node, &["init", "--dry-run"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        shown.contains("#   Bridge vmbr0: Linux bridge, 2 guests\n"),
        "{shown}"
    );
    node.span_cfg(&uncommented(&shown));
    let (code, out, err) = run(&node, &["apply"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let (code, out, _) = run(&node, &["status"]);
    assert_eq!((code, out.matches(" active ").count()), (0, 3), "{out}");
}

#[test]
fn init_overwrites_nothing_whatever_is_there() {
    let node = three_guests();
    let path = node.path("etc/pve/span.cfg");
    let refused = "pve-span: error: there is a /etc/pve/span.cfg already, and it stays as it is; pve-span edit changes it\n";
    node.span_cfg(SPAN_CFG);
    assert_eq!(run(&node, &["init"]), (1, String::new(), refused.into()));
    assert_eq!(file(&node), SPAN_CFG);
    fs::remove_file(&path).unwrap();
    symlink("nowhere", &path).unwrap();
    assert_eq!(run(&node, &["init"]), (1, String::new(), refused.into()));
    assert!(!path.exists());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(run(&node, &["init"]), (1, String::new(), refused.into()));
}

#[test]
fn init_says_what_is_in_the_way_of_etc_pve() {
    let node = three_guests();
    node.members(
        r#"{"nodename":"pve1","version":6,"cluster":{"name":"lab","version":3,"nodes":3,"quorate":0},"nodelist":{}}"#,
    );
    for command in [&["init"][..], &["edit", "--yes"]] {
        assert_eq!(
            run(&node, command),
            (
                1,
                String::new(),
                "pve-span: error: the cluster is not quorate, so /etc/pve/ is read-only; see pvecm status\n".into()
            )
        );
    }
    node.unmount_pve();
    for command in [&["init"][..], &["edit", "--yes"]] {
        assert_eq!(
            run(&node, command),
            (
                1,
                String::new(),
                "pve-span: error: /etc/pve/ is not mounted (no .version in it); see systemctl status pve-cluster\n".into()
            )
        );
    }
    assert!(!node.path("etc/pve/span.cfg").exists());
}

#[test]
fn a_cluster_that_has_lost_its_quorum_meanwhile_is_named_as_the_likely_cause() {
    let node = three_guests();
    let why = "pve-span: error: cannot make /etc/pve/priv/lock/file-span_cfg (not as root, or the cluster is not quorate: \
               see pvecm status): Read-only file system (os error 30)\n";
    // What `ip netns exec` starts has mounts of its own.
    let read_only = |command: &str| {
        let pve = node.path("etc/pve").display().to_string();
        let binary = lab::binary().display().to_string();
        let root = node.root().display().to_string();
        let mut shell = node.command("sh");
        shell.args([
            "-ec",
            &format!(
                "{} && {binary} --root {root} {command}",
                "mount --bind $0 $0 && mount -o remount,ro,bind $0"
            ),
            &pve,
        ]);
        shell
            .env("EDITOR", editor(&node, &writes(LESS)))
            .env_remove("VISUAL");
        let output = try_run(shell, "");
        (output.status.code(), unnumbered(&stderr(&node, &output)))
    };
    assert_eq!(read_only("init"), (Some(1), why.to_owned()));
    node.span_cfg(SPAN_CFG);
    let kept_copy = "pve-span: warning: /etc/pve/span.cfg stays as it was; what was edited is kept: \
                     /run/pve-span/edit-N/span.cfg\n";
    assert_eq!(
        read_only("edit --yes"),
        (Some(1), format!("{why}{kept_copy}"))
    );
    assert_eq!(file(&node), SPAN_CFG);
    assert_eq!(
        fs::read_to_string(kept(&node).remove(0).join("span.cfg")).unwrap(),
        LESS
    );
}

#[test]
fn init_ends_no_session_whose_file_is_lost() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    fs::remove_file(node.path("etc/pve/span.cfg")).unwrap();
    let (code, out, err) = run(&node, &["init"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err,
        "pve-span: error: span.cfg is missing, and the last good copy, /var/lib/pve-span/span.cfg, is in force with 1 \
         session; a new file would end those sessions on every node. To bring them back: pve-span edit, which begins \
         with that copy. To begin anew: remove the copy, on each node\n"
    );
    // As it says: the copy comes back by editing, also if nothing is edited.
    let (code, out, err) = edit(&node, "true");
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(file(&node), SPAN_CFG);
    assert!(
        out.starts_with(
            "There is no /etc/pve/span.cfg: this begins with the last good copy, /var/lib/pve-span/span.cfg\n"
        ),
        "{out}"
    );

    // What is mirrored counts, even where the copy is lost, too.
    fs::remove_file(node.path("etc/pve/span.cfg")).unwrap();
    fs::remove_file(node.path("var/lib/pve-span/span.cfg")).unwrap();
    let (code, _, err) = run(&node, &["init"]);
    assert_eq!(code, 1);
    assert_eq!(
        err,
        "pve-span: error: there is no span.cfg, but this node still mirrors: dmz. A new file would end that. Restore the \
         file from a backup, or end them first: pve-span clear --all\n"
    );
    assert_eq!(mirrors(&node).len(), 1);
    assert_eq!(run(&node, &["clear", "--all"]).0, 0);
    assert_eq!(run(&node, &["init"]).0, 0);
}
