//! The host without /etc/pve: kernel, nft(8), others' chains, the service.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use crate::daemon::state::State;
use crate::engine::nft::json::PRIORITY;
use crate::engine::nft::run;
use crate::sys::clock::now;
use crate::sys::error::with_causes;
use crate::sys::files;
use crate::sys::isolated;
use crate::sys::process::Ended;
use crate::sys::program;
use crate::sys::program::find;
use pve_span_core::doctor::{Chain, Feature, Host, Program, Service};
use pve_span_core::engine::nft::{Side, TABLE};
use pve_span_core::model::excerpt;
use pve_span_core::pve::cluster::{Known, Unknown};

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long the kernel's features may take to be tried: some runs of nft(8).
const TRYING: Duration = Duration::from_secs(10);

/// The most chains that are kept.
const MOST_CHAINS: usize = 1000;

/// Looks.
pub fn look(root: &Path) -> Host {
    let nft = nft();
    // One that hangs would only be waited for again and again.
    let (features, chains) = match &nft {
        Ok(_) => (features(), chains()),
        Err(why) => (Err(why.clone()), Vec::new()),
    };
    Host {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: kernel(),
        features,
        nft,
        chains,
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
    let tried = isolated(TRYING, || -> Result<Vec<Feature>, String> {
        let program = run::Program::find().map_err(|error| with_causes(&error))?;
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|error| format!("cannot make a network namespace to try it in: {error}"))?;
        program
            .features(Instant::now() + TRYING)
            .map_err(|error| with_causes(&error))
    });
    match tried {
        Ok(Ok(features)) => Ok(features),
        Ok(Err(why)) => Err(Unknown(why)),
        Err(error) => Err(Unknown(format!("trying it: {}", with_causes(&error)))),
    }
}

/// What a program answers; a text, whatever its exit code.
pub(super) fn ask(path: &Path, arguments: &[&str]) -> Known<(i32, String)> {
    let shown = || format!("{} {}", path.display(), arguments.join(" "));
    let outcome = program::run(path, arguments, b"", Instant::now() + PATIENCE)
        .map_err(|error| Unknown(format!("cannot run {}: {error}", shown())))?;
    match outcome.ended {
        Some(Ended::Exited(code)) => {
            Ok((code, String::from_utf8_lossy(&outcome.answer).into_owned()))
        }
        Some(Ended::Killed(signal)) => Err(Unknown(format!(
            "{} was killed by signal {}",
            shown(),
            signal as i32
        ))),
        None => Err(Unknown(format!(
            "{} timed out after {} s and was killed",
            shown(),
            PATIENCE.as_secs()
        ))),
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
fn chains() -> Vec<Chain> {
    let asked = find("nft").map(|nft| ask(&nft, &["list", "chains"]));
    match asked {
        Some(Ok((0, said))) => base_chains(&said),
        _ => Vec::new(),
    }
}

/// Reads nft(8)'s own notation: its JSON has no devices (nftables 1.0.6, `json.c`).
fn base_chains(said: &str) -> Vec<Chain> {
    let (mut table, mut name) = ("", "");
    let mut found = Vec::new();
    for line in said.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("table ") {
            table = words.trim_end_matches(" {");
        } else if let Some(word) = line.strip_prefix("chain ") {
            name = word.trim_end_matches(" {");
        } else if table != format!("netdev {TABLE}") {
            found.extend(
                base_chain(line)
                    .into_iter()
                    .flat_map(|(side, devices, priority)| {
                        devices.into_iter().map(move |device| Chain {
                            table: excerpt(table),
                            name: excerpt(name),
                            device: device.to_owned(),
                            side,
                            priority,
                        })
                    }),
            );
        }
        if found.len() > MOST_CHAINS {
            break;
        }
    }
    found
}

/// `type filter hook ingress device "lo" priority -600; policy accept;`, or `devices = { "lo", "eno1" }`, if it has its
/// turn before ours.
fn base_chain(line: &str) -> Option<(Side, Vec<&str>, i64)> {
    let (hook, rest) = line.strip_prefix("type filter hook ")?.split_once(' ')?;
    let side = match hook {
        "ingress" => Side::Ingress,
        "egress" => Side::Egress,
        _ => return None,
    };
    let (devices, rest) = rest.split_once(" priority ")?;
    // A name, which is near it, is far from our turn.
    let priority: i64 = rest.split(';').next()?.parse().ok()?;
    let devices: Vec<&str> = devices.split('"').skip(1).step_by(2).collect();
    (priority < i64::from(PRIORITY)).then_some((side, devices, priority))
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
    // Older ones say nothing of a unit that is not there, newer ones this.
    let word = said.lines().next().unwrap_or_default().trim();
    Ok(excerpt(if word.is_empty() { "not-found" } else { word }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_that_come_before_ours_are_read() {
        let said = "table netdev theirs {\n\tchain early {\n\t\ttype filter hook ingress device \"lo\" priority -600; policy accept;\n\t}\n\
                    \tchain two {\n\t\ttype filter hook egress devices = { \"a\", \"b\" } priority -501; policy drop;\n\t}\n\
                    \tchain late {\n\t\ttype filter hook ingress device \"lo\" priority filter; policy accept;\n\t}\n\tchain none {\n\t}\n}\n\
                    table netdev pve-span {\n\tchain in/x {\n\t\ttype filter hook ingress device \"lo\" priority -600; policy accept;\n\t}\n}\n\
                    table inet x {\n\tchain c {\n\t\ttype filter hook input priority -600; policy accept;\n\t}\n}\n";
        let found: Vec<String> = base_chains(said)
            .iter()
            .map(|chain| {
                format!(
                    "{} {} {} {:?} {}",
                    chain.table, chain.name, chain.device, chain.side, chain.priority
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                "netdev theirs early lo Ingress -600",
                "netdev theirs two a Egress -501",
                "netdev theirs two b Egress -501"
            ]
        );
    }
}
