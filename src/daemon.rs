//! The service: keeps this node's mirrors right between hooks.
//!
//! It hears of devices, of our table, of Open vSwitch's database and of /etc/pve, and answers each with the same
//! reconcile that a hook runs. The process itself only waits: what may hang (a read in /etc/pve, Open vSwitch, nft) is
//! done by children, so that it always answers systemd and ends when it is told to.

mod config_poller;
mod duration;
mod event_sources;
mod faults;
mod flap_guard;
mod instance_lock;
pub mod metrics;
pub mod metrics_server;
mod schedule;
mod sd_notify;
mod service;
mod session_health;
pub mod state;
mod task_reports;
mod tasks;
mod transitions;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How the service is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The prefix of every path.
    pub root: PathBuf,
    /// The file for node_exporter's textfile collector.
    pub metrics_file: Option<PathBuf>,
    /// Where metrics are served.
    pub listen: Option<metrics_server::Listen>,
    /// How often frames are counted.
    pub count_every: Duration,
}

/// Why the service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that it cannot do without does not work.
    #[error("the service cannot run ({doing})")]
    Start {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// There is another one.
    #[error("another `pve-span watch` runs here already{}; to run one by hand, end that one first (systemctl stop pve-span)", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Twice {
        /// Its process, as far as it has said.
        pid: Option<u32>,
    },
    /// The lock was removed, and in the unit's view of /run a new one cannot be written to.
    #[error(
        "{path} was removed, and the service may not write to a new one: it ends, to be started anew"
    )]
    LockRemoved {
        /// The file.
        path: PathBuf,
    },
    /// Metrics cannot be served there.
    #[error("cannot listen on {address}; {}", listen_hint(source))]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// What to look at. The port may also be one that the unit's `IPAddressDeny=` keeps everybody from: nothing tells us of that.
fn listen_hint(source: &io::Error) -> &'static str {
    if source.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) {
        "pve-span.service is allowed no such addresses (RestrictAddressFamilies=, IPAddressAllow=): docs/metrics.md has the drop-in"
    } else {
        "is the port in use, the address this node's?"
    }
}

/// Runs the service until it is told to end.
///
/// # Errors
/// It cannot be started.
pub fn run(options: Options) -> Result<(), Error> {
    service::Service::new(options)?.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_listen_is_told_what_allows_it() {
        let told = |errno: i32| {
            let error = Error::Listen {
                address: ([127, 0, 0, 1], 9650).into(),
                source: io::Error::from_raw_os_error(errno),
            };
            error.to_string()
        };
        assert!(told(nix::libc::EAFNOSUPPORT).contains("RestrictAddressFamilies="));
        assert!(told(nix::libc::EADDRINUSE).contains("is the port in use"));
    }
}
