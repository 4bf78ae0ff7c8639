//! The node as it was looked at, and what was planned.

use crate::config::Annotations;
use crate::plan::Plan;
use crate::pve::cluster::Cluster;
use crate::state::{Desired, Observed};

/// The node, as it was looked at.
pub struct View<'a> {
    /// The sessions, if it is known which.
    pub annotations: &'a Annotations,
    /// What /etc/pve tells.
    pub cluster: &'a Cluster,
    /// What is there.
    pub observed: &'a Observed,
    /// What shall be there.
    pub desired: &'a Desired,
    /// What has to change.
    pub plan: &'a Plan,
    /// The time, in seconds since 1970.
    pub now: i64,
}
