//! Why the service cannot run, and what to look at.

use std::io;
use std::path::PathBuf;

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
