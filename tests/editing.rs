//! `init` and `edit`: what becomes of span.cfg, and what is said, whatever happens on the way.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use lab::{Guest, Node, try_run, wait_until};
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use scene::{apply, mirrors, run, sensor, stderr, stdout, three_guests, told, vm};

const SPAN_CFG: &str = "[dmz]\nsource = 101, 102\noutput = 200/net1\n";
const LESS: &str = "[dmz]\nsource = 101\noutput = 200/net1\n";

/// What is in span.cfg.
fn file(node: &Node) -> String {
    fs::read_to_string(node.path("etc/pve/span.cfg")).unwrap()
}

/// What lies in /etc/pve beside what is always there.
fn strays(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(node.path("etc/pve")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.contains("tmp") || name.contains("span.cfg."))
        .collect()
}

/// The copies that editing has left.
fn kept(node: &Node) -> Vec<PathBuf> {
    let entries = fs::read_dir(node.path("run/pve-span"))
        .into_iter()
        .flatten();
    let folders = entries.map(|entry| entry.unwrap().path());
    let mut kept: Vec<PathBuf> = folders
        .filter(|path| path.is_dir() && path.to_str().unwrap().contains("/edit-"))
        .collect();
    kept.sort();
    kept
}

/// An editor: a script that gets the copy as `$1`.
fn editor(node: &Node, body: &str) -> PathBuf {
    let path = node.path("editor");
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A script that writes this text into the copy.
fn writes(text: &str) -> String {
    format!("cat >\"$1\" <<'END'\n{text}END")
}

fn edit_command(node: &Node, body: &str, args: &[&str]) -> Command {
    let editor = editor(node, body);
    let mut command = node.pve_span_command(&[&["edit"], args].concat());
    command.env("EDITOR", editor).env_remove("VISUAL");
    command
}

/// `pve-span edit --yes` with that editor; exit code, stdout, stderr, the copy's number taken out.
#[track_caller]
fn edit(node: &Node, body: &str) -> (i32, String, String) {
    let output = try_run(edit_command(node, body, &["--yes"]), "");
    let root = node.root().display().to_string();
    let code = output.status.code().unwrap();
    (
        code,
        unnumbered(&stdout(&output).replace(&root, "")),
        unnumbered(&stderr(node, &output)),
    )
}

/// Both ends of a new terminal. No child gets the administrator's end, or it would never go away.
fn terminal() -> (nix::pty::PtyMaster, fs::File) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(ptsname_r(&master).unwrap());
    (master, slave.unwrap())
}

/// The same at a terminal, where these lines are typed before it goes away; all that was said.
#[track_caller]
fn edit_at_terminal(node: &Node, body: &str, typed: &str) -> (i32, String) {
    let (mut master, slave) = terminal();
    master.write_all(typed.as_bytes()).unwrap();
    let both = node.path("said");
    let said = fs::File::create(&both).unwrap();
    let mut command = edit_command(node, body, &[]);
    command
        .stdin(slave)
        .stdout(said.try_clone().unwrap())
        .stderr(said);
    let mut child = command.spawn().unwrap();
    drop(command);
    if typed.is_empty() {
        wait_until("it asks", || {
            fs::read_to_string(&both).unwrap().contains("? [")
        });
        drop(master);
    }
    wait_until("it ends", || child.try_wait().unwrap().is_some());
    let root = node.root().display().to_string();
    let text = fs::read_to_string(&both).unwrap().replace(&root, "");
    let code = child.wait().unwrap().code().unwrap();
    (code, unnumbered(&text))
}

/// `edit-4711` → `edit-N`
fn unnumbered(text: &str) -> String {
    let mut parts = text.split("/run/pve-span/edit-");
    let mut result = parts.next().unwrap().to_owned();
    for part in parts {
        result.push_str("/run/pve-span/edit-N");
        result.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    result
}

const APPLY_IT: &str = "/etc/pve/span.cfg is written; the service does not run on this node, so bring it into force: \
                        pve-span apply\n";

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
         \x20 pve-span edit                     checks what you write and shows what it would change\n\
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
    let why = "pve-span: error: cannot write /etc/pve/span.cfg (not as root, or the cluster is not quorate: see pvecm \
               status): Read-only file system (os error 30)\n";
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
fn without_a_wish_debian_s_own_choice_of_an_editor_is_taken() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let bin = node.path("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["vi", "sensible-editor"] {
        fs::rename(
            editor(&node, &format!("echo '# {name}' >>\"$1\"")),
            bin.join(name),
        )
        .unwrap();
    }
    let mut command = node.pve_span_command(&["edit", "--yes"]);
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
    command
        .env("PATH", path)
        .env_remove("VISUAL")
        .env("EDITOR", "");
    let output = try_run(command, "");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(file(&node), format!("{SPAN_CFG}# sensible-editor\n"));
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

#[test]
fn a_valid_text_takes_the_file_s_place_and_is_not_in_force_by_itself() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    let (code, out, err) = edit(&node, &writes(LESS));
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        format!(
            "/etc/pve/span.cfg is valid: 1 session\n\
             What it changes on this node (pve-span plan):\n\
             dmz → 200/net1: engine ovs: same bridge, vmbr2\n\
             vmbr2 dmz → 200/net1: - source 102/net0 (tap102i0)\n\
             {APPLY_IT}"
        )
    );
    assert_eq!(file(&node), LESS);
    let mode = node
        .path("etc/pve/span.cfg")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o640);
    let copy = node.path("var/lib/pve-span/span.cfg");
    assert_eq!(fs::read_to_string(copy).unwrap(), SPAN_CFG, "it is apply's");
    assert_eq!(
        mirrors(&node),
        ["dmz tap200i1: from tap101i0 tap102i0, to tap101i0 tap102i0"]
    );
    assert_eq!((kept(&node), strays(&node)), (vec![], vec![]));
    assert_eq!(run(&node, &["apply"]).0, 0);
    assert_eq!(mirrors(&node), ["dmz tap200i1: from tap101i0, to tap101i0"]);
}

#[test]
fn nothing_edited_is_nothing_written() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let before = node
        .path("etc/pve/span.cfg")
        .metadata()
        .unwrap()
        .modified()
        .unwrap();
    let unchanged = "nothing was edited: /etc/pve/span.cfg stays as it is\n";
    assert_eq!(edit(&node, "true"), (0, unchanged.into(), String::new()));
    assert_eq!(
        edit(&node, "touch \"$1~\" \"$1\""),
        (0, unchanged.into(), String::new())
    );
    assert_eq!(
        node.path("etc/pve/span.cfg")
            .metadata()
            .unwrap()
            .modified()
            .unwrap(),
        before
    );
    assert_eq!(kept(&node), [] as [PathBuf; 0]);

    fs::remove_file(node.path("etc/pve/span.cfg")).unwrap();
    let (code, out, _) = edit(&node, "grep -q 'Sensor 200 sensor' \"$1\"");
    assert_eq!(code, 0);
    assert_eq!(
        out,
        format!(
            "There is no /etc/pve/span.cfg yet: this begins with what pve-span init would write\n{unchanged}"
        )
    );
    assert!(!node.path("etc/pve/span.cfg").exists());
}

#[test]
fn an_invalid_text_is_never_written_and_what_was_typed_is_not_lost() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    let broken = "[dmz]\nsouce = 101\noutput = 200/net1\n";
    let (code, out, err) = edit(&node, &writes(broken));
    assert_eq!(code, 1);
    assert_eq!(
        out,
        "/etc/pve/span.cfg:2:1: error: unknown key `souce`\n 2 | souce = 101\n   | ^^^^^\n   = did you mean `source`?\n\n\
         /etc/pve/span.cfg is not valid: 1 error\n"
    );
    let kept_copy = "what was edited is kept: /run/pve-span/edit-N/span.cfg\n";
    assert_eq!(
        err,
        format!(
            "pve-span: error: it has faults\npve-span: warning: /etc/pve/span.cfg stays as it was; {kept_copy}"
        )
    );
    assert_eq!(file(&node), SPAN_CFG);
    let copy = kept(&node).remove(0);
    assert_eq!(fs::read_to_string(copy.join("span.cfg")).unwrap(), broken);
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o700);

    // It is told of the next time.
    let (_, out, _) = edit(&node, "true");
    assert!(
        out.starts_with("Left by earlier editing: /run/pve-span/edit-N/span.cfg\n"),
        "{out}"
    );

    for (body, fault) in [
        (": >\"$1\"", "the file is empty"),
        ("printf 'a\\377' >\"$1\"", "is not UTF-8 text (line 1)"),
        ("head -c 1100000 /dev/zero >\"$1\"", "is larger than 1 MiB"),
        ("rm \"$1\"", "what was edited cannot be read"),
    ] {
        let (code, out, err) = edit(&node, body);
        assert_eq!(code, 1);
        assert!(format!("{out}{err}").contains(fault), "{body}: {out}{err}");
        assert_eq!(file(&node), SPAN_CFG);
    }
}

#[test]
fn an_editor_that_fails_or_is_killed_leaves_the_file() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let stays = "pve-span: warning: /etc/pve/span.cfg stays as it was";
    assert_eq!(
        edit(&node, "exit 3").2,
        format!("pve-span: error: the editor ended with exit code 3\n{stays}\n")
    );
    assert_eq!(kept(&node), [] as [PathBuf; 0], "nothing was typed");
    let (code, _, err) = edit(&node, &format!("{}\nkill -9 $$", writes(LESS)));
    assert_eq!(
        (code, err),
        (
            1,
            format!(
                "pve-span: error: the editor was ended by signal 9\n{stays}; what was edited is kept: \
                 /run/pve-span/edit-N/span.cfg\n"
            )
        )
    );
    assert_eq!(file(&node), SPAN_CFG);
    let mut command = node.pve_span_command(&["edit", "--yes"]);
    command
        .env("EDITOR", "/no/such/editor -w")
        .env("VISUAL", " ");
    let output = try_run(command, "");
    assert_eq!(
        stderr(&node, &output),
        format!(
            "pve-span: error: cannot start the editor /no/such/editor; set EDITOR to another one: No such file or \
             directory (os error 2)\n{stays}\n"
        )
    );
}

#[test]
fn visual_comes_before_editor_and_both_may_have_arguments() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let editor = editor(
        &node,
        "test \"$1\" = -w && test \"$2\" = 'x' && echo '# seen' >>\"$3\"",
    );
    let mut command = node.pve_span_command(&["edit", "--yes"]);
    command
        .env("VISUAL", format!(" {}  -w\tx ", editor.display()))
        .env("EDITOR", "false");
    let output = try_run(command, "");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(file(&node), format!("{SPAN_CFG}# seen\n"));
}

#[test]
fn what_somebody_else_has_written_meanwhile_is_not_overwritten() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let span_cfg = node.path("etc/pve/span.cfg");
    let theirs = format!(
        "printf '[theirs]\\nsource = 102\\noutput = 200/net1\\n' >{}",
        span_cfg.display()
    );
    let (code, _, err) = edit(&node, &format!("{}\n{theirs}", writes(LESS)));
    assert_eq!(
        (code, err.as_str()),
        (
            1,
            "pve-span: error: /etc/pve/span.cfg was changed meanwhile, here or on another node, and is not overwritten\n\
             pve-span: warning: what was edited is kept; see what differs: diff /etc/pve/span.cfg \
             /run/pve-span/edit-N/span.cfg\n"
        )
    );
    assert!(file(&node).starts_with("[theirs]"));
    assert_eq!(
        fs::read_to_string(kept(&node).remove(0).join("span.cfg")).unwrap(),
        LESS
    );
    assert_eq!(strays(&node), [] as [&str; 0]);

    // Neither is a file that was made, or that has gone, meanwhile.
    fs::remove_file(&span_cfg).unwrap();
    assert_eq!(edit(&node, &format!("{}\n{theirs}", writes(LESS))).0, 1);
    assert!(file(&node).starts_with("[theirs]"));
    let (code, ..) = edit(
        &node,
        &format!("{}\nrm {}", writes(LESS), span_cfg.display()),
    );
    assert_eq!((code, span_cfg.exists()), (1, false));
}

#[test]
fn two_cannot_edit_at_once_on_a_node() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let (open, go) = (node.path("open"), node.path("go"));
    let waits = format!(
        "touch {}; while ! test -e {}; do sleep 0.01; done",
        open.display(),
        go.display()
    );
    let mut command = edit_command(&node, &format!("{waits}\n{}", writes(LESS)), &["--yes"]);
    command.stdout(std::process::Stdio::null());
    let mut first = command.spawn().unwrap();
    wait_until("the editor is open", || open.exists());
    let (code, out, err) = run(&node, &["edit", "--yes"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.starts_with(
            "pve-span: error: span.cfg is being edited by somebody else on this node: process "
        ),
        "{err}"
    );
    fs::write(&go, "").unwrap();
    assert!(first.wait().unwrap().success());
    assert_eq!(file(&node), LESS);
}

#[test]
fn who_is_told_to_end_ends_the_editor_and_keeps_the_copy() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let pid = node.path("pid");
    // The shell's parent is pve-span.
    let body = format!(
        "{}\necho $$ $PPID >{pid}.new; mv {pid}.new {pid}\nexec sleep 1000",
        writes(LESS),
        pid = pid.display()
    );
    let mut command = edit_command(&node, &body, &["--yes"]);
    command
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null());
    let child = command.spawn().unwrap();
    wait_until("the editor is open", || pid.exists());
    let text = fs::read_to_string(&pid).unwrap();
    let pids: Vec<i32> = text
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    let to = nix::unistd::Pid::from_raw;
    nix::sys::signal::kill(to(pids[1]), nix::sys::signal::Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        unnumbered(&stderr(&node, &output)),
        "pve-span: error: ended by SIGTERM\npve-span: warning: /etc/pve/span.cfg stays as it was; what was edited is \
         kept: /run/pve-span/edit-N/span.cfg\n"
    );
    assert!(
        nix::sys::signal::kill(to(pids[0]), None).is_err(),
        "the editor has gone"
    );
    assert_eq!(file(&node), SPAN_CFG);
}

#[test]
fn without_a_terminal_it_says_what_to_do() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    assert_eq!(
        run(&node, &["edit"]),
        (
            1,
            String::new(),
            "pve-span: error: edit needs a terminal. For scripts: EDITOR=/a/script pve-span edit --yes\n".into()
        )
    );
}

#[test]
fn at_a_terminal_it_asks_before_it_writes() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    let question = "Write /etc/pve/span.cfg? Yes, no, or edit again? [y/N/e] ";
    let plan = "/etc/pve/span.cfg is valid: 1 session\nWhat it changes on this node (pve-span plan):\n\
                dmz → 200/net1: engine ovs: same bridge, vmbr2\nvmbr2 dmz → 200/net1: - source 102/net0 (tap102i0)\n";
    let (code, seen) = edit_at_terminal(&node, &writes(LESS), "\n");
    assert_eq!(code, 1);
    assert_eq!(
        seen,
        format!(
            "{plan}{question}/etc/pve/span.cfg stays as it was; what was edited is kept: /run/pve-span/edit-N/span.cfg\n"
        )
    );
    assert_eq!(file(&node), SPAN_CFG);
    fs::remove_dir_all(kept(&node).remove(0)).unwrap();

    let (code, seen) = edit_at_terminal(&node, &writes(LESS), "what?\nYES\n");
    assert_eq!(
        (code, seen),
        (0, format!("{plan}{question}{question}{APPLY_IT}"))
    );
    assert_eq!(file(&node), LESS);
    assert_eq!(kept(&node), [] as [PathBuf; 0]);
}

#[test]
fn faults_lead_back_to_the_editor_or_are_thrown_away() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    // The first time a fault, the second time not.
    let twice = format!(
        "if grep -q souce \"$1\"; then\n{}\nelse\n{}\nfi",
        writes(LESS),
        writes("[dmz]\nsouce = 101\n")
    );
    let again = "It is not written. Edit again, or discard it? [E/d] ";
    let (code, seen) = edit_at_terminal(&node, &twice, "e\ny\n");
    assert_eq!(code, 0, "{seen}");
    assert!(
        seen.contains(&format!(
            "/etc/pve/span.cfg is not valid: 2 errors\n{again}"
        )),
        "{seen}"
    );
    assert_eq!(file(&node), LESS);

    let (code, seen) = edit_at_terminal(&node, &writes("nonsense\n"), "d\n");
    assert_eq!(code, 1);
    assert!(
        seen.ends_with(&format!(
            "{again}discarded: /etc/pve/span.cfg stays as it was\n"
        )),
        "{seen}"
    );
    assert_eq!((file(&node).as_str(), kept(&node)), (LESS, vec![]));

    // The terminal goes away: what was typed stays.
    let (code, seen) = edit_at_terminal(&node, &writes("nonsense\n"), "");
    assert_eq!(code, 1);
    assert!(seen.contains("nobody answers any more"), "{seen}");
    assert_eq!((file(&node).as_str(), kept(&node).len()), (LESS, 1));
}

#[test]
fn sessions_that_end_are_named_and_a_plan_that_cannot_be_told_is_no_obstacle() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    let (code, out, _) = edit(&node, &writes("# none\n"));
    assert_eq!(code, 0);
    assert!(
        out.contains("It ends on every node: dmz; no session is left\n"),
        "{out}"
    );
    node.span_cfg(SPAN_CFG);
    node.stop_ovsdb();
    let (code, out, err) = edit(&node, &writes(LESS));
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains(
            "What it changes on this node cannot be told now: Open vSwitch cannot be asked: "
        ),
        "{out}"
    );
    assert_eq!(file(&node), LESS);
}

#[test]
fn a_text_that_ends_within_a_line_does_not_count_as_cut_off() {
    let node = three_guests();
    apply(&node, SPAN_CFG);
    let (code, ..) = edit(
        &node,
        "printf '[dmz]\\nsource = 101\\noutput = 200/net1' >\"$1\"",
    );
    assert_eq!((code, file(&node).as_str()), (0, LESS));
    node.span_cfg(&format!("{LESS}# more\n"));
    assert_eq!(run(&node, &["apply"]).0, 0);
    let (code, ..) = edit(
        &node,
        "printf '[dmz]\\nsource = 101\\noutput = 200/net1\\n# mo' >\"$1\"",
    );
    assert_eq!(code, 0);
    let (code, _, err) = run(&node, &["apply"]);
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn with_the_service_running_there_is_nothing_left_to_do() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let _watch = node.watch();
    wait_until("it is in force", || mirrors(&node).len() == 1);
    wait_until("the service has told of itself", || {
        node.path("run/pve-span/state.json").exists()
    });
    let (code, out, err) = edit(&node, &writes(LESS));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.ends_with("/etc/pve/span.cfg is written; the service brings it into force in a moment: pve-span status\n"),
        "{out}"
    );
    wait_until("it is in force", || {
        mirrors(&node) == ["dmz tap200i1: from tap101i0, to tap101i0"]
    });
}
