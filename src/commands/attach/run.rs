//! What `attach` and `detach` both work with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::report;
use super::report::Report;
use crate::cli::CommonArgs;
use crate::commands::format::Format;
use crate::pve::programs;
use crate::pve::{ClusterQueries, GuestsToRead, Pve};
use pve_span_core::attach::{Step, Subject};
use pve_span_core::config::selector::Selector;
use pve_span_core::model::{NodeName, Vmid};
use pve_span_core::pve::cluster::{Cluster, Known, Unknown};
use pve_span_core::pve::guest::Guest;

/// Nothing was done, and why.
pub(super) type Stopped = Vec<String>;

/// What both commands work with.
pub(super) struct Run {
    pub(super) pve: Pve,
    pub(super) root: std::path::PathBuf,
    pub(super) format: Format,
    pub(super) is_dry: bool,
    pub(super) patience: Duration,
}

impl Run {
    pub(super) fn new(root: &Path, common: &CommonArgs) -> Self {
        let seconds = if common.patience.is_finite() {
            common.patience.clamp(0.05, 3600.0)
        } else {
            programs::PATIENCE.as_secs_f64()
        };
        Self {
            pve: Pve::new(root),
            root: root.to_owned(),
            format: common.json.into(),
            is_dry: common.dry_run,
            patience: Duration::from_secs_f64(seconds),
        }
    }

    pub(super) fn told(&self, report: Result<Report<'_>, Stopped>) -> u8 {
        match report {
            Ok(report) => report.tell(self.format),
            Err(faults) => {
                report::stopped(self.format, &faults);
                1
            }
        }
    }

    /// What /etc/pve tells of these guests, or of all.
    pub(super) fn cluster(&self, selectors: &[Selector]) -> Cluster {
        let single = |selector: &Selector| match selector {
            Selector::Guests { low, high, .. } if low == high => Some(*low),
            _ => None,
        };
        let named: Option<BTreeSet<Vmid>> = selectors.iter().map(single).collect();
        let whose = match named {
            Some(named) if !named.is_empty() => GuestsToRead::Of(named),
            _ => GuestsToRead::AllAnd(BTreeSet::new()),
        };
        self.pve.cluster(ClusterQueries::ALL, &whose, None)
    }

    pub(super) fn this(&self, cluster: &Cluster) -> Result<NodeName, Stopped> {
        let cannot_tell = |Unknown(why)| vec![format!("cannot tell which node this is: {why}")];
        cluster.this.clone().map_err(cannot_tell)
    }

    /// A step for each guest, by what is known of it.
    pub(super) fn steps(
        &self,
        cluster: &Cluster,
        guests: &BTreeSet<Vmid>,
        decide: impl Fn(&Subject<'_>) -> Result<Step, String>,
    ) -> BTreeMap<Vmid, Result<Step, String>> {
        let nobody: Known<Guest> = Err(Unknown("it was not read".into()));
        let step = |vmid: &Vmid| {
            let subject = Subject {
                guest: cluster.guests.get(vmid).unwrap_or(&nobody),
                record: &self.pve.chained(*vmid),
            };
            (*vmid, decide(&subject))
        };
        guests.iter().map(step).collect()
    }
}
