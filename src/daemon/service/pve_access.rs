//! What the service knows of /etc/pve: whether something has changed there, and whether it answers at all.
//!
//! While it does not, children go by what is known and read nothing there. So a few hang at most: the sentinel, and those that
//! were at it when it began.

use std::time::Instant;

use super::{PATIENCE, Service, is_running};
use crate::daemon::config_poller::{Answer, ConfigPoller};
use crate::daemon::faults::{Fault, FaultId, FaultSource};
use crate::reconcile::PveAccess;
use crate::reconcile::inputs::PVE_HANGS;
use crate::reconcile::lock::readers::hangs;
use crate::sys::mounts;
use crate::sys::process::Child;

impl Service {
    /// The child that looks at /etc/pve.
    pub(super) fn look_after_files(&mut self) {
        let Some(config_poller) = &mut self.config_poller else {
            return;
        };
        match config_poller.read() {
            Answer::Nothing => {}
            Answer::Changed => self.request_reconcile(),
            // Was it mounted, or unmounted, for less than the time between two looks, and a reconcile saw that?
            Answer::Same => self.compare_mounted(true),
            Answer::Unmounted => self.compare_mounted(false),
            Answer::Ended => {
                if config_poller.has_ended() {
                    self.config_poller = None;
                }
            }
        }
    }

    fn compare_mounted(&mut self, is_mounted: bool) {
        if self.surveyed.mounted == Some(!is_mounted) && !self.pve_hangs {
            self.surveyed.mounted = Some(is_mounted);
            self.request_reconcile();
        }
    }

    pub(super) fn ask_for_files(&mut self) {
        let mount = mounts::device_at(&self.options.root.join("etc/pve"));
        // One that hangs in an /etc/pve that is no longer mounted there says nothing about this one.
        let is_of_old = |config_poller: &mut ConfigPoller| {
            is_late(config_poller) && config_poller.mount() != mount
        };
        if let Some(config_poller) = self.config_poller.take_if(is_of_old) {
            self.abandon_hung(config_poller.into_child());
        }
        if self.config_poller.is_none() {
            match ConfigPoller::start(&self.options.root) {
                Ok(config_poller) => self.config_poller = Some(config_poller),
                Err(error) => log::debug!("cannot look at /etc/pve: {error}"),
            }
        }
        if let Some(config_poller) = &mut self.config_poller {
            config_poller.ask(mount);
        }
    }

    /// How children are to read in /etc/pve.
    pub(super) fn pve(&self) -> PveAccess {
        let config_poller = self
            .config_poller
            .iter()
            .filter(|config_poller| is_late(config_poller));
        let mut silent = config_poller
            .map(ConfigPoller::pid)
            .chain(self.hung.iter().map(Child::pid));
        match silent.find(|pid| hangs(&self.options.root, *pid)) {
            Some(pid) => PveAccess::Hangs(Some(pid)),
            None => PveAccess::Answers,
        }
    }

    /// A child hangs in /etc/pve: it is left behind, and holds nothing that others need.
    pub(super) fn abandon_hung(&mut self, mut child: Child) {
        child.kill();
        self.hung.push(child);
    }

    /// Says when /etc/pve does not answer any longer, and again; and sees to it that everything is looked at then.
    pub(super) fn follow_pve(&mut self) {
        self.hung.retain_mut(is_running);
        let hangs = self.pve() != PveAccess::Answers;
        if hangs == self.pve_hangs {
            return;
        }
        self.pve_hangs = hangs;
        let text = format!("{PVE_HANGS}; what changes there is not seen");
        let fault = hangs.then(|| Fault::new(FaultId::PveHangs, text));
        self.faults.now(FaultSource::Files, fault.as_slice());
        self.request_reconcile();
        self.schedule.survey_now(Instant::now());
    }
}

fn is_late(config_poller: &ConfigPoller) -> bool {
    let asked = config_poller.asked();
    asked.is_some_and(|asked| asked.elapsed() > PATIENCE)
}
