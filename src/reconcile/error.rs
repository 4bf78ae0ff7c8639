//! What makes a reconcile impossible or unfinished, in words.

use std::path::PathBuf;

use crate::engine::nft;
use crate::engine::ovs;
use crate::engine::port::setup;
use crate::reconcile::lock;
use crate::sys;
use pve_span_core::health::old_flows;
use pve_span_core::model::IfName;

/// How often a plan is made anew because Open vSwitch's configuration changed meanwhile.
pub(super) const TRIES: u32 = 8;

/// What makes a reconcile impossible or unfinished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lock.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The kernel's devices.
    #[error(transparent)]
    Links(#[from] sys::Error),
    /// What happened lately cannot be read.
    #[error(transparent)]
    Events(#[from] crate::sys::files::Error),
    /// Frames cannot be watched.
    #[error(transparent)]
    Capture(sys::capture::Error),
    /// They cannot be waited for.
    #[error("waiting for frames")]
    Watch(#[source] std::io::Error),
    /// There is no such session.
    #[error("there is no session `{name}`{}", .hint.as_ref().map(|hint| format!(", {hint}")).unwrap_or_default())]
    NoSession {
        /// As it was asked for.
        name: String,
        /// What may have been meant.
        hint: Option<String>,
    },
    /// Another user called a command.
    #[error("only root can do this: run as root")]
    NotRoot,
    /// The cluster filesystem hangs.
    #[error("{path} does not answer: does pmxcfs hang? (systemctl status pve-cluster)")]
    PveHangs {
        /// Where it is mounted.
        path: PathBuf,
    },
    /// Nobody can tell what is wanted.
    #[error("{0}")]
    NotInForce(String),
    /// Open vSwitch does not answer, and something has to be done there.
    #[error("cannot reach Open vSwitch, existing mirrors are kept: {0}")]
    Ovs(String),
    /// The transaction was refused; nothing was done.
    #[error("nothing was changed")]
    Refused(#[source] ovs::Error),
    /// The transaction was sent, and nobody knows what became of it.
    #[error(
        "it is not certain whether the change was made; the next hook or `pve-span apply` makes sure"
    )]
    Uncertain(#[source] ovs::Error),
    /// Mirrors are as they shall be, and flows of a bridge go on as before.
    #[error("{}", old_flows(bridge))]
    Flows {
        /// The bridge.
        bridge: IfName,
        /// Why.
        source: ovs::FlowsError,
    },
    /// nftables' part was not done; the rest was.
    #[error("nftables' part was not done{}", .missing.as_ref().map(|what| format!(": {what}")).unwrap_or_default())]
    Nft {
        /// What the kernel lacks, if that is why.
        missing: Option<String>,
        /// What nft said.
        source: nft::run::Error,
    },
    /// nftables does not answer.
    #[error("cannot read nftables, existing copies are kept: {0}")]
    NoNft(String),
    /// An output's device is not as it has to be.
    #[error(transparent)]
    Output(setup::Error),
    /// It kept changing.
    #[error("what there is kept changing, and nothing was changed after up to {TRIES} tries")]
    Conflicts,
    /// The transaction is in the database, but what is there now is not what was wanted.
    #[error("committed, but not in force: {0}")]
    NotVerified(String),
}
