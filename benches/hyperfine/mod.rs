//! Whole processes, timed by hyperfine(1) on the laboratory's node.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::lab::Node;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Each command has its turn this often, so that a machine that slows down meanwhile slows all of them.
    pub turns: usize,
    /// How often it runs in a turn.
    pub runs: usize,
}

/// A command to be timed.
pub struct Timed {
    /// The command line; no shell reads it.
    pub line: String,
    /// What runs before each run, untimed.
    pub prepare: String,
}

/// What hyperfine prints about itself, or one sentence that says how to get it.
pub fn version() -> Result<String, String> {
    let output = Command::new("hyperfine").arg("--version").output();
    let output = output.map_err(|_| {
        "the benchmark needs the program `hyperfine`: apt install hyperfine".to_owned()
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The median times of some commands, in one run of hyperfine.
///
/// `begin` runs before each turn, so that no command meets what another one has left.
pub fn medians<const N: usize>(
    node: &Node,
    environment: &[(&str, &str)],
    begin: &str,
    effort: Effort,
    commands: &[Timed; N],
) -> Result<[Duration; N], String> {
    let results = node.path("hyperfine.json");
    // hyperfine has no time limit of its own.
    let mut hyperfine = node.command("timeout");
    hyperfine
        .args(["--kill-after=5", "900", "hyperfine", "--shell=none"])
        .args(["--style=none", "--warmup=3"])
        .arg(format!("--runs={}", effort.runs))
        .arg("--export-json")
        .arg(&results)
        .args(["--setup", begin])
        .env("OVS_RUNDIR", node.path("run/openvswitch"))
        .envs(environment.iter().copied());
    for command in (0..effort.turns).flat_map(|_| commands) {
        hyperfine
            .args(["--prepare", &command.prepare])
            .arg(&command.line);
    }
    let output = hyperfine
        .output()
        .map_err(|error| format!("cannot start {hyperfine:?}: {error}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("hyperfine failed, {}: {words}", output.status));
    }
    let text = std::fs::read_to_string(&results)
        .map_err(|error| format!("cannot read {}: {error}", results.display()))?;
    read(&text).ok_or_else(|| format!("hyperfine's results are not understood: {text}"))
}

/// Puts the turns of each command together again.
fn read<const N: usize>(text: &str) -> Option<[Duration; N]> {
    let json: Value = serde_json::from_str(text).ok()?;
    let mut times = vec![Vec::new(); N];
    for (index, result) in json.get("results")?.as_array()?.iter().enumerate() {
        let seconds = result.get("times")?.as_array()?.iter();
        times.get_mut(index % N)?.extend(
            seconds
                .filter_map(Value::as_f64)
                .map(Duration::from_secs_f64),
        );
    }
    let medians: Option<Vec<Duration>> = times.into_iter().map(median).collect();
    medians?.try_into().ok()
}

/// The median; nothing of nothing.
pub fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort();
    let (low, high) = (
        times.get((times.len().checked_sub(1)?) / 2)?,
        times.get(times.len() / 2)?,
    );
    Some((*low + *high) / 2)
}
