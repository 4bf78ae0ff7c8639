//! What a reconcile did, in words and on record, and the conversations that have to follow it.

use std::time::Instant;

use super::context::Context;
use super::error::Error;
use super::events;
use super::lock::Lock;
use super::observe::Look;
use crate::engine::ovs;
use crate::engine::ovs::flows::{RevalidationResults, StaleFlows};
use crate::engine::ovs::{CommitState, WaitResult};
use crate::sys::error::with_causes;
use pve_span_core::model::IfName;
use pve_span_core::plan::{Action, PortChange, changes};

/// What a reconcile did.
#[derive(Debug)]
pub struct Done {
    /// The last look: what is there now, and why not more.
    pub look: Look,
    /// What was changed of mirrors.
    pub actions: Vec<Action>,
    /// What was changed of outputs' devices.
    pub ports: Vec<PortChange>,
    /// What else was put in order.
    pub tidy: Option<&'static str>,
    /// What could not be done.
    pub faults: Vec<Error>,
    /// Has ovs-vswitchd acted on it?
    pub applied: CommitState,
    /// How it went to wait for ovs-vswitchd, if that was needed.
    pub waited: Option<WaitResult>,
    /// The bridges whose flows are to be revalidated.
    pub(super) flows: StaleFlows,
}

impl Done {
    /// Says on stderr what could not be done.
    pub fn log_faults(&self) {
        for fault in &self.faults {
            log::error!("{}", with_causes(fault));
        }
    }

    /// All that was done, in words.
    pub fn in_words(&self) -> Vec<String> {
        let ports = self.ports.iter().map(ToString::to_string);
        let tidy = self.tidy.map(str::to_owned);
        changes(&self.actions)
            .into_iter()
            .chain(ports)
            .chain(tidy)
            .collect()
    }

    /// Was there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.ports.is_empty() && self.tidy.is_none()
    }

    /// Has conversations that exist already follow the change. It takes ovs-vswitchd a moment, as it looks at all of its ports
    /// first. The lock has to be held.
    pub(super) fn revalidate_flows(&mut self, context: &Context) {
        if let Some(tried) = self.revalidate(context) {
            self.record_revalidated(context, tried);
        }
    }

    /// The same where somebody waits who need not wait for that: without the lock, which others may want meanwhile.
    ///
    /// # Errors
    /// The lock is not had to strike it off, so the next one does it again.
    pub fn revalidate_flows_unlocked(&mut self, context: &Context) -> Result<(), Error> {
        let Some(tried) = self.revalidate(context) else {
            return Ok(());
        };
        match Lock::acquire(&context.root, context.deadline) {
            Ok(_lock) => self.record_revalidated(context, tried),
            Err(error) => {
                self.failed(tried.failures());
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Is there anything to follow?
    pub fn has_flows(&self) -> bool {
        !self.flows.is_empty()
    }

    fn revalidate(&mut self, context: &Context) -> Option<RevalidationResults> {
        let owed = std::mem::take(&mut self.flows);
        let deadline = context.deadline.min(Instant::now() + context.patience);
        (!owed.is_empty()).then(|| ovs::flows::revalidate(&context.root, &owed, deadline))
    }

    fn record_revalidated(&mut self, context: &Context, tried: RevalidationResults) {
        self.failed(ovs::flows::record_revalidated(&context.root, tried));
    }

    fn failed(&mut self, failed: Vec<(IfName, ovs::FlowsError)>) {
        for (bridge, source) in failed {
            self.look.observed.stale.insert(bridge.clone());
            self.faults.push(Error::Flows { bridge, source });
        }
    }

    /// Puts on record what was changed.
    pub(super) fn record(&self, context: &Context) {
        events::record(&context.root, &context.by, &self.in_words());
    }
}
