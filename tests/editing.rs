//! `edit`: what becomes of span.cfg, and what is said, whatever happens on the way.

#![allow(clippy::unwrap_used)]

mod lab;
mod scene;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use lab::{try_run, wait_until};
use scene::editing::{
    LESS, SPAN_CFG, edit, edit_at_terminal, edit_command, editor, file, kept, strays, unnumbered,
    writes,
};
use scene::{apply, mirrors, run, stderr, three_guests, told};

const APPLY_IT: &str = "/etc/pve/span.cfg is written; the service does not run on this node, so bring it into force: \
                        pve-span apply\n";

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
    // What was typed may be beside the copy only, or be too much to be read.
    for (body, file) in [
        (
            "echo typed >\"${1%/*}/.span.cfg.swp\"\nkill -9 $$",
            ".span.cfg.swp",
        ),
        ("head -c 1100000 /dev/zero >\"$1\"", "span.cfg"),
    ] {
        let before = kept(&node);
        let (_, _, err) = edit(&node, body);
        assert!(
            err.ends_with("kept: /run/pve-span/edit-N/span.cfg\n"),
            "{err}"
        );
        let new: Vec<PathBuf> = kept(&node)
            .into_iter()
            .filter(|folder| !before.contains(folder))
            .collect();
        assert_eq!(new.len(), 1, "{body}");
        assert!(new[0].join(file).metadata().unwrap().len() > 0, "{body}");
    }
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
            "What it changes on this node cannot be told now: cannot reach Open vSwitch: "
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

#[test]
fn what_another_node_is_writing_is_waited_for_and_not_overwritten() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let lock = node.path("etc/pve/priv/lock/file-span_cfg");
    let theirs = "[theirs]\nsource = 102\noutput = 200/net1\n";
    for (theirs, expected) in [(None, 0), (Some(theirs), 1)] {
        node.span_cfg(SPAN_CFG);
        fs::create_dir_all(&lock).unwrap();
        let mut command = edit_command(&node, &writes(LESS), &["--yes"]);
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::piped());
        let edit = command.spawn().unwrap();
        wait_until("the lock is asked for", || {
            lock.metadata().unwrap().modified().unwrap() == std::time::UNIX_EPOCH
        });
        assert_eq!(file(&node), SPAN_CFG, "the other node holds its lock");
        if let Some(theirs) = theirs {
            node.span_cfg(theirs);
        }
        fs::remove_dir(&lock).unwrap();
        let output = edit.wait_with_output().unwrap();
        let err = stderr(&node, &output);
        assert_eq!(output.status.code(), Some(expected), "{err}");
        assert_eq!(file(&node), theirs.unwrap_or(LESS));
        let is_told =
            err.contains("/etc/pve/span.cfg was changed meanwhile, here or on another node");
        assert_eq!(is_told, theirs.is_some(), "{err}");
        assert!(!lock.exists(), "it is given back");
        assert_eq!(strays(&node), [] as [&str; 0]);
    }
}

#[test]
fn a_cluster_filesystem_that_is_read_only_is_said_and_nothing_is_lost() {
    let node = three_guests();
    node.span_cfg(SPAN_CFG);
    let mut shell = node.command("unshare");
    let pve = node.path("etc/pve").display().to_string();
    shell.args(["-m", "sh", "-c"]).arg(format!(
        "mount --bind {pve} {pve} && mount -o remount,bind,ro {pve} && exec \"$@\""
    ));
    shell.arg("sh").arg(lab::binary()).args(["edit", "--yes"]);
    shell.arg("--root").arg(node.root());
    shell.env("EDITOR", editor(&node, &writes(LESS)));
    let output = try_run(shell, "");
    assert_eq!(output.status.code(), Some(1));
    let err = unnumbered(&stderr(&node, &output));
    assert_eq!(
        err,
        "pve-span: error: cannot make /etc/pve/priv/lock/file-span_cfg (not as root, or the cluster is not quorate: see \
         pvecm status): Read-only file system (os error 30)\n\
         pve-span: warning: /etc/pve/span.cfg stays as it was; what was edited is kept: /run/pve-span/edit-N/span.cfg\n"
    );
    assert_eq!(file(&node), SPAN_CFG);
}
