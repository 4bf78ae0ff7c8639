//! Completion in bash, zsh and fish: the real shells, with the scripts that the package installs; zsh at a terminal.

#![allow(clippy::unwrap_used)]

mod lab;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::{Guest, Node, binary, try_run};

const SPAN_CFG: &str = "\
[dmz-ids]
source = 101
output = 200/net1
comment = what the IDS sees

[web]
source = 300
output = 200/net1
";

/// A cluster with three guests and two sessions.
fn node() -> Node {
    let node = Node::without_ovs();
    node.linux_bridge("vmbr0");
    node.add(
        &Guest::vm(101)
            .net(0, "virtio=BC:24:11:2A:00:01,bridge=vmbr0")
            .net(1, "virtio=BC:24:11:2A:00:11,bridge=vmbr0"),
    );
    node.add(&Guest::vm(200).net(1, "virtio=BC:24:11:2A:00:02,bridge=vmbr0"));
    node.add(&Guest::ct(300).net(0, "name=eth0,hwaddr=BC:24:11:2A:00:03,bridge=vmbr0"));
    node.span_cfg(SPAN_CFG);
    node
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("debian/completions")
}

/// A command that finds the program under its name.
fn with_program(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap();
    let own = binary().parent().unwrap().display().to_string();
    command.env("PATH", format!("{own}:{path}"));
    command
}

fn answer(command: Command) -> Vec<String> {
    let output = try_run(command, "");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().map(str::to_owned).collect()
}

/// What bash makes of the words, the last of which is being typed.
fn bash(words: &[&str]) -> Vec<String> {
    let mut command = with_program("bash");
    command
        .args(["--norc", "-c"])
        .arg(
            r#". "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pve_span pve-span "${COMP_WORDS[COMP_CWORD]}" "";
            printf '%s\n' "${COMPREPLY[@]}""#,
        )
        .arg(scripts().join("pve-span"))
        .arg("pve-span")
        .args(words);
    answer(command)
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect()
}

/// What fish makes of a line, without what the words mean.
fn fish(line: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let mut command = with_program("fish");
    command
        .args(["--no-config", "-c"])
        .arg("source $argv[1]; complete -C $argv[2]")
        .arg(scripts().join("pve-span.fish"))
        .arg(format!("pve-span {line}"))
        .env("HOME", folder.path())
        .env("XDG_RUNTIME_DIR", folder.path());
    let lines = answer(command).into_iter();
    lines
        .map(|line| line.split('\t').next().unwrap().to_owned())
        .collect()
}

/// Lines, and what must be among what they can go on with, and what not; `ROOT` stands for the node.
const CASES: [(&str, &[&str], &[&str]); 14] = [
    ("doc", &["doctor"], &["status", "complete"]),
    ("doctor --js", &["--json"], &["--root"]),
    (
        "doctor --",
        &["--json", "--root", "--verbose"],
        &["--events"],
    ),
    ("status --ev", &["--events"], &[]),
    (
        "watch --",
        &["--listen", "--metrics-file"],
        &["--count-every"],
    ),
    ("attach --", &["--chain", "--storage"], &["--patience"]),
    ("--root ROOT attach ", &["101", "200", "300"], &["dmz-ids"]),
    ("--root ROOT detach 101 ", &["200", "300"], &["101"]),
    (
        "--root ROOT explain 101",
        &["101", "101/net0", "101/net1"],
        &["200"],
    ),
    (
        "--root ROOT explain 101/",
        &["101/net0", "101/net1"],
        &["101"],
    ),
    ("--root ROOT clear ", &["dmz-ids", "web"], &["101"]),
    ("--root ROOT verify --time 5 d", &["dmz-ids"], &["web"]),
    ("--root ROOT attach 101 --storage ", &["local"], &["200"]),
    (
        "hook 101 post",
        &["post-start", "post-stop"],
        &["pre-start"],
    ),
];

#[track_caller]
fn fits(shell: &str, complete: impl Fn(&Node, &str) -> Vec<String>) {
    let node = node();
    let root = node.root().display().to_string();
    for (line, there, not_there) in CASES {
        let offered = complete(&node, &line.replace("ROOT", &root));
        let has = |word: &&str| offered.iter().any(|one| one == word);
        assert!(there.iter().all(has), "{shell}: {line}: {offered:?}");
        assert!(!not_there.iter().any(has), "{shell}: {line}: {offered:?}");
    }
}

#[test]
fn bash_completes_options_and_values_of_every_command() {
    fits("bash", |_, line| bash(&line.split(' ').collect::<Vec<_>>()));
}

#[test]
fn fish_completes_options_and_values_of_every_command() {
    fits("fish", |_, line| fish(line));
}

#[test]
fn values_behind_an_equals_sign_and_files_are_completed() {
    let node = node();
    let root = node.root().display().to_string();
    // bash makes three words of it, and puts what it gets behind the equals sign.
    let words = ["--root", "=", &root, "attach", "--storage", "=", "lo"];
    assert_eq!(bash(&words), ["local"]);
    assert_eq!(
        fish(&format!("--root={root} attach --storage=lo")),
        ["--storage=local"]
    );
    let file = node.path("new.cfg");
    fs::write(&file, "").unwrap();
    let begun = node.path("new.c").display().to_string();
    assert_eq!(bash(&["check", &begun]), [file.display().to_string()]);
    assert_eq!(
        fish(&format!("check {begun}")),
        [file.display().to_string()]
    );
    assert_eq!(
        fish(&format!("import --mirrors-conf={begun}")),
        [format!("--mirrors-conf={}", file.display())]
    );
    let begun = node.path("etc/pv").display().to_string();
    assert_eq!(
        bash(&["--root", &begun]),
        [node.path("etc/pve").display().to_string()]
    );
}

/// Types keys in zsh at a terminal, which its zpty makes, and waits for what they bring to the screen.
const TYPIST: &str = r#"
zmodload zsh/zpty
await() {
    local got
    zpty -r shell got "*$1*" && return
    print -r -- "waited in vain for $1: $got"
    exit 1
}
zpty shell zsh -d -i
await READY
for keys expected in "$@"; do
    zpty -w -n shell "$keys"
    await "$expected"
    # Ctrl-U: the next line.
    zpty -w -n shell $'\x15'
done
zpty -d shell
"#;

#[test]
fn tab_completes_in_zsh() {
    let node = node();
    let root = node.root().display();
    // Behind what is complete comes a blank.
    let typed = [
        ("pve-span doctor --js\t".to_owned(), "doctor --json "),
        ("pve-span stat\t".to_owned(), "status "),
        ("pve-span hook 101 post-sta\t".to_owned(), "post-start "),
        ("pve-span status --ev\t".to_owned(), "status --events "),
        (format!("pve-span --root {root} attach 20\t"), "attach 200 "),
        (format!("pve-span --root {root} attach \t"), "101*300"),
        (
            format!("pve-span --root {root} explain 101/net1\t"),
            "explain 101/net1 ",
        ),
        (
            format!("pve-span --root {root} clear dm\t"),
            "clear dmz-ids ",
        ),
        (
            format!("pve-span --root={root} attach --storage=lo\t"),
            "--storage=local ",
        ),
        (format!("pve-span --root={root}/etc/pv\t"), "/etc/pve/"),
        // Hidden options are not completed: `--patience`, `--count-every`.
        ("pve-span attach --pat\tX".to_owned(), "--patX"),
        ("pve-span watch --count\tX".to_owned(), "--countX"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "stty cols 500\nfpath=({} $fpath)\nautoload -Uz compinit\ncompinit -u -D\nPROMPT='READY> '\nunset zle_bracketed_paste\nsetopt no_beep\n",
        scripts().display()
    );
    fs::write(folder.path().join(".zshrc"), text).unwrap();
    let mut command = with_program("zsh");
    command
        .args(["-f", "-c", TYPIST, "typist"])
        .args(
            typed
                .iter()
                .flat_map(|(keys, expected)| [keys.as_str(), expected]),
        )
        .env("ZDOTDIR", folder.path())
        .env("HOME", folder.path())
        .env("TERM", "dumb");
    let output = try_run(command, "");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
