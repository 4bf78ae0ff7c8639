//! The host without /etc/pve: kernel, nft(8), others' chains, the service.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use crate::core::cluster::{Known, Unknown};
use crate::core::doctor::{Chain, Feature, Host, Program, Service};
use crate::core::model::excerpt;
use crate::core::nft::{Side, TABLE};
use crate::files;
use crate::linux::apart;
use crate::linux::nft::{json::PRIORITY, run};
use crate::linux::program::{self, Outcome, find};
use crate::look::now;
use crate::ovs::chain;
use crate::watch::state::State;

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long the kernel's features may take to be tried: some runs of nft(8).
const TRYING: Duration = Duration::from_secs(10);

/// The most chains that are kept.
const MOST_CHAINS: usize = 1000;

/// Looks.
pub fn look(root: &Path) -> Host {
    Host {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: kernel(),
        features: features(),
        nft: nft(),
        chains: chains().unwrap_or_default(),
        service: service(root),
        enabled: enabled(root),
    }
}

/// The kernel's release.
fn kernel() -> Option<String> {
    let text = files::read_text(Path::new("/proc/sys/kernel/osrelease")).ok()?;
    Some(excerpt(text.trim()))
}

/// Tried in a network namespace that ends with the child.
fn features() -> Known<Vec<Feature>> {
    let tried = apart(TRYING, || -> Result<Vec<Feature>, String> {
        let program = run::Program::find().map_err(|error| chain(&error))?;
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|error| format!("cannot make a network namespace to try it in: {error}"))?;
        program
            .features(Instant::now() + TRYING)
            .map_err(|error| chain(&error))
    });
    match tried {
        Ok(Ok(features)) => Ok(features),
        Ok(Err(why)) => Err(Unknown(why)),
        Err(error) => Err(Unknown(format!("trying it: {}", chain(&error)))),
    }
}

/// What a program answers; a text, whatever its exit code.
fn ask(path: &Path, arguments: &[&str]) -> Known<(i32, String)> {
    let shown = || format!("{} {}", path.display(), arguments.join(" "));
    match program::ask(path, arguments, Instant::now() + PATIENCE) {
        Ok((Outcome::Exited { code, .. }, answer)) => {
            Ok((code, String::from_utf8_lossy(&answer).into_owned()))
        }
        Ok((Outcome::Signalled(signal), _)) => Err(Unknown(format!(
            "{} was killed by signal {signal}",
            shown()
        ))),
        Ok((Outcome::TooLate, _)) => Err(Unknown(format!(
            "{} was not through within {} s, and has been ended",
            shown(),
            PATIENCE.as_secs()
        ))),
        Err(error) => Err(Unknown(format!("cannot run {}: {error}", shown()))),
    }
}

fn nft() -> Known<Option<Program>> {
    let Some(path) = find("nft") else {
        return Ok(None);
    };
    let (_, said) = ask(&path, &["--version"])?;
    Ok(Some(Program {
        path: path.display().to_string(),
        version: excerpt(said.lines().next().unwrap_or_default().trim()),
    }))
}

/// Base chains of others on devices' hooks that have their turn before ours.
fn chains() -> Option<Vec<Chain>> {
    let (code, said) = ask(&find("nft")?, &["-j", "list", "chains"]).ok()?;
    let answer: Value = serde_json::from_str(&said).ok().filter(|_| code == 0)?;
    let listed = answer.get("nftables")?.as_array()?.iter();
    let chains = listed.filter_map(|entry| base_chains(entry.get("chain")?));
    Some(chains.flatten().take(MOST_CHAINS).collect())
}

/// One for each of its devices.
fn base_chains(chain: &Value) -> Option<Vec<Chain>> {
    let text = |key: &str| chain.get(key).and_then(Value::as_str);
    let (family, table, name) = (text("family")?, text("table")?, text("name")?);
    let side = match text("hook")? {
        "ingress" => Side::Ingress,
        "egress" => Side::Egress,
        _ => return None,
    };
    let priority = chain.get("prio")?.as_i64()?;
    if table == TABLE && family == "netdev" || priority >= i64::from(PRIORITY) {
        return None;
    }
    let devices: Vec<&str> = match chain.get("dev")? {
        Value::String(device) => vec![device],
        Value::Array(devices) => devices.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let on = |device: &&str| Chain {
        table: excerpt(&format!("{family} {table}")),
        name: excerpt(name),
        device: (*device).to_owned(),
        side,
        priority,
    };
    Some(devices.iter().map(on).collect())
}

fn service(root: &Path) -> Option<Service> {
    let state = State::load(root)?;
    let now = now();
    let is_fresh = state.is_fresh(now);
    Some(Service {
        version: excerpt(&state.version),
        pid: state.pid,
        silent: (!is_fresh).then(|| now.saturating_sub(state.written)),
    })
}

/// Asked as it is of systemd; of a tree elsewhere, by the files in it.
fn enabled(root: &Path) -> Known<String> {
    let Some(systemctl) = find("systemctl") else {
        return Err(Unknown("there is no systemctl".into()));
    };
    let tree = format!("--root={}", root.display());
    let mut arguments = vec!["is-enabled", "pve-span.service"];
    if root != Path::new("/") {
        arguments.insert(0, &tree);
    }
    let (_, said) = ask(&systemctl, &arguments)?;
    // It says nothing of a unit that is not there, or that on stderr.
    let word = said.lines().next().unwrap_or_default().trim();
    Ok(if word.is_empty() {
        "there is no such unit".to_owned()
    } else {
        excerpt(word)
    })
}
