//! The hookscript that a guest had before, called after pve-span: by hookscripts/pve-span, and by the binary where that is
//! the snippet itself. Nothing may be different for it, and for Proxmox VE.

#![allow(clippy::unwrap_used)]

mod fuse;
mod lab;
mod proxmox;
mod scene;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use lab::{Guest, Node};
use nix::sched::{CloneFlags, unshare};
use scene::{three_guests, told};

const WRAPPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hookscripts/pve-span");
const PHASES: [&str; 4] = ["pre-start", "post-start", "pre-stop", "post-stop"];

/// Says all that it is given, in bytes that are no text, and ends as asked.
const WITNESS: &str = r#"#!/bin/sh
printf 'out \000\377\n'
printf 'err \001\376\n' >&2
for word; do echo "[$word]"; done
env | sed 's/=.*//' | grep -vx _ | sort
env | grep -E '^(PVE_|PATH=|WITNESS)' | sort
while read -r key value; do
    case $key in SigBlk: | SigIgn:) echo "$key $value" ;; esac
done </proc/$$/status
readlink /proc/$$/fd/*
cat
kill -0 $$ && exit "${WITNESS_EXITS-0}"
"#;

/// How pve-span is there as the guest's hookscript.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Installed {
    /// As the package does it.
    Wrapper,
    /// The wrapper, where the package has gone.
    WrapperAlone,
    /// The wrapper, and a binary that cannot be run.
    WrapperBroken,
    /// The binary itself.
    Binary,
}

/// A node with the guests 101 (a VM) and 300 (a container), without any session.
fn quiet() -> Node {
    let node = Node::without_ovs();
    node.add(&Guest::vm(101));
    node.add(&Guest::ct(300));
    node
}

/// A script of somebody else's.
fn script(node: &Node, name: &str, text: &str) -> PathBuf {
    let path = node.path("var/lib/vz/snippets").join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Writes the record that `attach --chain` writes; the script is where it really is, since it is not called below a root.
fn chain(node: &Node, vmid: u32, path: &Path) {
    let folder = node.path("etc/pve/span-hooks");
    fs::create_dir_all(&folder).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let text = format!(
        "# a comment\nvolume = local:snippets/{name}\npath = {}\n",
        path.display()
    );
    fs::write(folder.join(vmid.to_string()), text).unwrap();
}

/// A call of a program that sees our binary in /usr/local/sbin, or whatever else is there.
fn inside(node: &Node, installed: Installed, program: &Path, args: &[&str]) -> Command {
    let binary = lab::binary();
    let put = match installed {
        Installed::Wrapper | Installed::Binary => format!("ln -s {} pve-span", binary.display()),
        Installed::WrapperAlone => "true".to_owned(),
        Installed::WrapperBroken => "printf '#!/nowhere\\n' >pve-span && chmod 755 pve-span".into(),
    };
    let mut command = node.command("unshare");
    command.args(["-m", "sh", "-c"]).arg(format!(
        "mount -t tmpfs none /usr/local/sbin && cd /usr/local/sbin && {put} && cd / && exec \"$@\""
    ));
    command.arg("sh").arg(program).args(args);
    command.args(["--root".as_ref(), node.root().as_os_str()]);
    command
}

/// The hookscript of pve-span. Where there is no binary to be told of a root, the script's own paths are below it.
fn hookscript(node: &Node, installed: Installed) -> PathBuf {
    match installed {
        Installed::Wrapper => PathBuf::from(WRAPPER),
        Installed::Binary => lab::binary(),
        Installed::WrapperAlone | Installed::WrapperBroken => {
            let text = fs::read_to_string(WRAPPER).unwrap();
            let records = node.path("etc/pve/span-hooks").display().to_string();
            let below = text.replace("records=/etc/pve/span-hooks", &format!("records={records}"));
            assert_ne!(below, text);
            script(node, "pve-span", &below)
        }
    }
}

/// Calls pve-span's hookscript as Proxmox VE does.
#[track_caller]
fn call(node: &Node, installed: Installed, args: &[&str]) -> Output {
    let program = hookscript(node, installed);
    lab::try_run(inside(node, installed, &program, args), "")
}

/// What the wrapper says of a binary that it does without.
fn expected_of_ours(installed: Installed) -> String {
    let host = nix::unistd::gethostname().unwrap();
    let host = host.to_str().unwrap();
    match installed {
        Installed::Wrapper | Installed::Binary => String::new(),
        Installed::WrapperAlone => {
            format!("pve-span: not installed on {host}; guest 101 goes on without its mirrors\n")
        }
        Installed::WrapperBroken => {
            "pve-span: /usr/local/sbin/pve-span failed with exit code 127; the guest goes on\n"
                .into()
        }
    }
}

const ALL: [Installed; 4] = [
    Installed::Wrapper,
    Installed::WrapperAlone,
    Installed::WrapperBroken,
    Installed::Binary,
];

/// Exit code, standard output, and what of standard error is not pve-span's or the shell's about it.
fn seen(output: &Output) -> (Option<i32>, Option<i32>, String, Vec<u8>) {
    let err: Vec<u8> = output
        .stderr
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| {
            !line
                .windows(9)
                .any(|part| part == b"pve-span:" || part == b"/pve-span")
        })
        .flatten()
        .copied()
        .collect();
    (
        output.status.code(),
        output.status.signal(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        err,
    )
}

#[test]
fn nothing_is_different_for_the_other_hookscript_in_any_phase() {
    let node = quiet();
    let witness = script(&node, "witness it's", WITNESS);
    for vmid in ["101", "300"] {
        chain(&node, vmid.parse().unwrap(), &witness);
        for (phase, code) in PHASES.iter().zip(["0", "1", "77", "255"]) {
            let run = |installed: Installed, program: &Path| {
                let mut command = inside(&node, installed, program, &[vmid, phase]);
                command
                    .env("PVE_MIGRATED_FROM", "pve2")
                    .env("WITNESS_EXITS", code);
                seen(&lab::try_run(command, "what is on stdin\n"))
            };
            let mut direct = run(Installed::Wrapper, &witness);
            assert_eq!(direct.0, Some(code.parse().unwrap()));
            assert!(direct.2.contains("PVE_MIGRATED_FROM=pve2\n"));
            assert!(direct.2.ends_with("what is on stdin\n"));
            // The one thing that it can tell by.
            for (before, more) in [
                ("PVE_MIGRATED_FROM\n", "PVE_SPAN_CHAINED\n".to_owned()),
                (
                    "PVE_MIGRATED_FROM=pve2\n",
                    format!("PVE_SPAN_CHAINED={vmid} {phase}\n"),
                ),
            ] {
                direct.2 = direct.2.replace(before, &format!("{before}{more}"));
            }
            for installed in ALL {
                let through = run(installed, &hookscript(&node, installed));
                // Pipes have other numbers each time.
                let plain = |text: &str| -> String {
                    let digits = |line: &str| {
                        if line.starts_with("pipe:") {
                            "pipe\n".to_owned()
                        } else {
                            line.to_owned()
                        }
                    };
                    text.split_inclusive('\n').map(digits).collect()
                };
                assert_eq!(
                    (through.0, through.1, plain(&through.2), through.3),
                    (direct.0, direct.1, plain(&direct.2), direct.3.clone()),
                    "{installed:?} {vmid} {phase}"
                );
            }
        }
    }
}

#[test]
fn a_veto_and_a_signal_are_its_own() {
    let node = quiet();
    for (text, code, signal) in [
        (
            "#!/bin/sh\n[ \"$2\" != pre-start ] || exit 3\n",
            Some(3),
            None,
        ),
        ("#!/bin/sh\nkill -9 $$\n", None, Some(9)),
        ("#!/bin/sh\nkill -PIPE $$\n", None, Some(13)),
    ] {
        let path = script(&node, "veto", text);
        chain(&node, 101, &path);
        for installed in ALL {
            let output = call(&node, installed, &["101", "pre-start"]);
            let status = (output.status.code(), output.status.signal());
            assert_eq!(status, (code, signal), "{installed:?}: {}", told(&output));
        }
    }
}

#[test]
fn it_is_the_process_that_proxmox_ve_has_started() {
    let node = quiet();
    let path = script(&node, "who", "#!/bin/sh\necho $$\n");
    chain(&node, 101, &path);
    for installed in ALL {
        let program = hookscript(&node, installed);
        let mut command = inside(&node, installed, &program, &["101", "post-stop"]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("{pid}\n"),
            "{installed:?}"
        );
    }
}

#[test]
fn pve_span_comes_first() {
    let node = three_guests();
    node.span_cfg("[dmz]\nsource = 101\noutput = 200/net1\n");
    let path = script(&node, "old", "#!/bin/sh\necho \"old $2\"\nexit 5\n");
    chain(&node, 101, &path);
    for installed in [Installed::Wrapper, Installed::Binary] {
        let said = |phase: &str| {
            let output = call(&node, installed, &["101", phase]);
            assert_eq!(output.status.code(), Some(5), "{phase}");
            told(&output)
        };
        assert_eq!(said("pre-start"), "old pre-start\n");
        assert_eq!(
            said("post-start"),
            "pve-span: dmz: mirrors 101/net0 to 200/net1 (ovs, vmbr2)\nold post-start\n"
        );
        assert_eq!(
            said("pre-stop"),
            "pve-span: dmz: no longer mirrors to 200/net1 (ovs, vmbr2): none of its sources is here\nold pre-stop\n"
        );
        assert_eq!(
            said("post-stop"),
            "pve-span: dmz: mirrors 101/net0 to 200/net1 (ovs, vmbr2)\nold post-stop\n",
            "it still runs"
        );
        assert_eq!(
            said("some-other-phase"),
            "old some-other-phase\npve-span: warning: guest 101: unknown phase `some-other-phase`, nothing done\n"
        );
        call(&node, installed, &["101", "pre-stop"]);
    }
}

/// After a change of Open vSwitch's mirrors pve-span goes on for a moment; a script that waits for its children must not meet it.
#[test]
fn it_gets_no_child_that_it_did_not_start() {
    let node = three_guests();
    node.span_cfg("[dmz]\nsource = 101\noutput = 200/net1\n");
    let text =
        "#!/bin/sh\nread -r children </proc/$$/task/$$/children\necho \"children: [$children]\"\n";
    let path = script(&node, "parent", text);
    chain(&node, 101, &path);
    for installed in [Installed::Wrapper, Installed::Binary] {
        for phase in ["post-start", "pre-stop"] {
            let said = told(&call(&node, installed, &["101", phase]));
            assert!(said.starts_with("pve-span: dmz: "), "{said}");
            assert!(said.ends_with("\nchildren: []\n"), "{installed:?}: {said}");
        }
    }
}

#[test]
fn a_script_that_is_missing_or_cannot_be_run_is_said_and_the_guest_goes_on() {
    let node = quiet();
    let path = script(&node, "gone", "#!/bin/sh\nexit 3\n");
    chain(&node, 101, &path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let host = nix::unistd::gethostname().unwrap();
    let host = host.to_str().unwrap();
    let shown = path.display();
    let remedy = "put it there again, or take it off with `pve-span detach 101`; the guest goes on without it";
    for missing in [false, true] {
        if missing {
            fs::remove_file(&path).unwrap();
        }
        for installed in ALL {
            let output = call(&node, installed, &["101", "pre-start"]);
            assert_eq!(output.status.code(), Some(0), "{installed:?}");
            let err = String::from_utf8_lossy(&output.stderr);
            let expected = match (installed, missing) {
                (Installed::Binary, false) => format!(
                    "pve-span: error: guest 101: cannot call local:snippets/gone, {shown}: Permission denied (os error 13); {remedy}\n"
                ),
                (Installed::Binary, true) => format!(
                    "pve-span: error: guest 101: cannot call local:snippets/gone, {shown}: No such file or directory (os error 2); {remedy}\n"
                ),
                _ => format!(
                    "{}pve-span: guest 101: cannot call local:snippets/gone: {shown} is missing on {host}, or not executable; {remedy}\n",
                    expected_of_ours(installed)
                ),
            };
            let ours: String = err
                .split_inclusive('\n')
                .filter(|line| line.starts_with("pve-span: "))
                .collect();
            assert_eq!(ours, expected, "{installed:?}");
        }
    }
}

#[test]
fn only_the_guest_s_own_script_is_called() {
    let node = quiet();
    let path = script(&node, "old", "#!/bin/sh\necho called\n");
    chain(&node, 101, &path);
    for installed in ALL {
        for args in [
            &["102", "pre-start"][..],
            &["300", "pre-start"],
            &["../101", "pre-start"],
            &["span-hooks/101", "pre-start"],
            &["", "pre-start"],
            &["1 01", "pre-start"],
        ] {
            let output = call(&node, installed, args);
            assert_eq!(output.status.code(), Some(0), "{installed:?} {args:?}");
            assert!(
                !String::from_utf8_lossy(&output.stdout).contains("called"),
                "{installed:?} {args:?}"
            );
        }
    }
    // An administrator's own script that calls pve-span for its part gets that part only.
    let output = node.pve_span(&["hook", "101", "pre-start"]);
    assert_eq!(
        (output.status.code(), told(&output)),
        (Some(0), String::new())
    );
}

#[test]
fn a_record_that_is_not_one_calls_nothing() {
    let node = quiet();
    let path = script(&node, "old", "#!/bin/sh\necho called\nexit 3\n");
    chain(&node, 101, &path);
    let record = node.path("etc/pve/span-hooks/101");
    let cases = [
        ("", "it lacks the line `volume = …`"),
        (
            "volume = local:snippets/old\npath = relative/old\n",
            "`relative/old` is not an absolute path",
        ),
        (
            "volume = local:snippets/pve-span\npath = /var/lib/vz/snippets/pve-span\n",
            "local:snippets/pve-span is pve-span's own hookscript",
        ),
    ];
    for (text, why) in cases {
        fs::write(&record, text).unwrap();
        for installed in ALL {
            let output = call(&node, installed, &["101", "pre-start"]);
            assert_eq!(output.status.code(), Some(0), "{installed:?} {text}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{installed:?}");
            if matches!(installed, Installed::Wrapper | Installed::Binary) {
                assert_eq!(
                    scene::stderr(&node, &output),
                    format!(
                        "pve-span: error: guest 101: cannot tell whether another hookscript is to be called after pve-span, \
                         so none is: /etc/pve/span-hooks/101 is not understood: {why}\n"
                    )
                );
            }
        }
    }
}

#[test]
fn a_script_that_calls_pve_span_itself_ends() {
    let node = quiet();
    let log = node.path("called");
    for installed in ALL {
        let ours = hookscript(&node, installed);
        let text = format!(
            "#!/bin/sh\necho once >>{}\n{} \"$@\"\nexec {} \"$@\"\n",
            log.display(),
            ours.display(),
            ours.display()
        );
        let path = script(&node, "nested", &text);
        chain(&node, 101, &path);
        let output = call(&node, installed, &["101", "pre-start"]);
        assert_eq!(output.status.code(), Some(0), "{installed:?}");
        assert_eq!(fs::read_to_string(&log).unwrap(), "once\n", "{installed:?}");
        fs::remove_file(&log).unwrap();
    }
}

#[test]
fn a_hung_cluster_filesystem_does_not_hold_the_hook() {
    let node = quiet();
    let path = script(&node, "old", "#!/bin/sh\nexit 3\n");
    chain(&node, 101, &path);
    for (installed, phase) in [
        (Installed::Wrapper, "pre-start"),
        (Installed::Binary, "pre-start"),
        (Installed::Wrapper, "post-start"),
    ] {
        let program = hookscript(&node, installed);
        let hang = || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let hung = fuse::mount_hung(&node.path("etc/pve"));
            let mut command = inside(&node, installed, &program, &["101", phase]);
            command.args(["--deadline", "0.5"]);
            let output = lab::try_run(command, "");
            (output, hung.requests())
        };
        let (output, requests) = std::thread::scope(|scope| scope.spawn(hang).join().unwrap());
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(
            told(&output),
            format!(
                "{}pve-span: error: guest 101: cannot tell whether another hookscript is to be called after pve-span, so none is: its record was not read in time\n",
                reconciles(phase)
            ),
            "{installed:?}"
        );
        assert!(requests > 0, "the hook has asked it something");
    }
}

/// What a phase says that reconciles where there has never been a file, while /etc/pve hangs.
fn reconciles(phase: &str) -> &'static str {
    if phase == "post-start" {
        "pve-span: error: guest 101: /etc/pve does not answer: does pmxcfs hang? (systemctl status pve-cluster); there is no \
         last good copy, so nothing is changed\n"
    } else {
        ""
    }
}

#[test]
fn nor_does_it_hold_the_hook_where_pve_span_cannot_be_asked() {
    let node = quiet();
    let path = script(&node, "old", "#!/bin/sh\nexit 3\n");
    chain(&node, 101, &path);
    for installed in [Installed::WrapperAlone, Installed::WrapperBroken] {
        let program = hookscript(&node, installed);
        let hang = || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let hung = fuse::mount_hung(&node.path("etc/pve"));
            let command = inside(&node, installed, &program, &["101", "pre-start"]);
            let output = lab::try_run(command, "");
            (output, hung.requests())
        };
        let (output, requests) = std::thread::scope(|scope| scope.spawn(hang).join().unwrap());
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let records = node.path("etc/pve/span-hooks").display().to_string();
        let unknown = format!(
            "pve-span: guest 101: {records} does not answer, so nobody can tell whether another hookscript is to be called; none is\n"
        );
        assert!(told(&output).ends_with(&unknown), "{}", told(&output));
        assert!(requests > 0, "the hook has asked it something");
    }
}

#[test]
fn whatever_else_hangs_the_script_is_called() {
    let node = three_guests();
    node.span_cfg("[dmz]\nsource = 101\noutput = 200/net1\n");
    let path = script(&node, "old", "#!/bin/sh\necho called\nexit 3\n");
    chain(&node, 101, &path);
    node.pause_ovsdb();
    for installed in [Installed::Wrapper, Installed::Binary] {
        let program = hookscript(&node, installed);
        let mut command = inside(&node, installed, &program, &["101", "post-start"]);
        command.args(["--deadline", "0.5"]);
        let output = lab::try_run(command, "");
        assert_eq!(output.status.code(), Some(3), "{installed:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "called\n");
    }
    node.resume_ovsdb();
}

#[test]
fn an_unmounted_cluster_filesystem_is_not_taken_for_nothing_to_call() {
    let node = quiet();
    node.unmount_pve();
    for installed in [Installed::Wrapper, Installed::Binary] {
        let output = call(&node, installed, &["101", "pre-start"]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(
            scene::stderr(&node, &output),
            "pve-span: error: guest 101: cannot tell whether another hookscript is to be called after pve-span, so none is: \
             /etc/pve is not mounted\n"
        );
    }
}

#[test]
fn a_caller_that_does_not_listen_changes_no_exit_code() {
    let node = quiet();
    let path = script(&node, "old", "#!/bin/sh\nexit 3\n");
    for chained in [false, true] {
        if chained {
            chain(&node, 101, &path);
        }
        for installed in ALL {
            let program = hookscript(&node, installed);
            let mut command = inside(&node, installed, &program, &["101", "post-start"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            drop((child.stdout.take(), child.stderr.take()));
            let expected = if chained { 3 } else { 0 };
            assert_eq!(
                child.wait().unwrap().code(),
                Some(expected),
                "{installed:?}"
            );

            // Nor does one that has closed them.
            let closed = script(&node, "closed", "#!/bin/sh\nexec \"$@\" >&- 2>&- <&-\n");
            let program = program.display().to_string();
            let args = [program.as_str(), "101", "post-start"];
            let output = lab::try_run(inside(&node, installed, &closed, &args), "");
            assert_eq!(output.status.code(), Some(expected), "{installed:?}");
        }
    }
}

#[test]
fn what_attach_chains_is_called_until_it_is_detached() {
    let node = proxmox::cluster();
    let old = proxmox::with("local:snippets/old one", Guest::vm(101));
    proxmox::add(&node, "pve1", &old);
    proxmox::script(&node, "old one", "#!/bin/sh\necho old $1 $2\nexit 3\n");
    // The record says where it is on a node: /var/lib/vz, which is the laboratory node's here.
    let on_the_node = script(
        &node,
        "on-the-node",
        "#!/bin/sh\nmount -t tmpfs none /var/lib && mkdir /var/lib/vz && mount --bind \"$1\" /var/lib/vz && shift && exec \"$@\"\n",
    );
    let vz = node.path("var/lib/vz").display().to_string();
    let hook = |installed: Installed, phase: &str| {
        let program = hookscript(&node, installed).display().to_string();
        let args = [vz.as_str(), program.as_str(), "101", phase];
        let output = lab::try_run(inside(&node, installed, &on_the_node, &args), "");
        (output.status.code(), scene::stdout(&output))
    };
    proxmox::says(
        &node,
        &["attach", "--chain", "101"],
        "101: attached, and local:snippets/old one is called after it\n",
    );
    for phase in PHASES {
        for installed in [Installed::Wrapper, Installed::Binary] {
            let expected = (Some(3), format!("old 101 {phase}\n"));
            assert_eq!(hook(installed, phase), expected, "{installed:?}");
        }
    }
    proxmox::says(
        &node,
        &["detach", "101"],
        "101: detached, and local:snippets/old one is its hookscript again\n",
    );
    for installed in [Installed::Wrapper, Installed::Binary] {
        assert_eq!(hook(installed, "pre-start"), (Some(0), String::new()));
    }
}
