//! What comes after pve-span's part: the hookscript that the guest had before, if `attach --chain` has written one down.
//!
//! It is called last, in place of this process, so that its exit code, its output and the signals that it gets are its
//! own. The record is in /etc/pve, which may hang; so it is read by the hook's child, and comes here as its answer.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::pve::Pve;
use crate::reconcile::inputs::PVE_HANGS;
use crate::reconcile::lock::LockFile;
use pve_span_core::model::Vmid;
use pve_span_core::pve::chained_hook;
use pve_span_core::pve::chained_hook::Chained;
use pve_span_core::pve::cluster::Unknown;

/// Names the file descriptor on which hookscripts/pve-span waits to hear what comes next.
const NEXT_FD: &str = "PVE_SPAN_NEXT_FD";

/// Says, `101 pre-start`, which call of us has called a chained hookscript: one that calls pve-span itself goes no
/// further than that.
const CHAINED: &str = "PVE_SPAN_CHAINED";

/// Who calls the hook, and so who calls what comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Proxmox VE itself, with these arguments: we do.
    ProxmoxVe(Vec<OsString>),
    /// hookscripts/pve-span, which does, and hears of it on this file descriptor.
    Wrapper(u8),
    /// Somebody else: nobody does.
    Other,
}

impl Caller {
    /// By the command line, the program's name included, and by the environment. `is_command` is whether it has the word `hook`.
    pub fn of(args: &[OsString], is_command: bool) -> Self {
        let arguments = args.get(1..).unwrap_or_default();
        if !is_command {
            return if is_nested(arguments) {
                Self::Other
            } else {
                Self::ProxmoxVe(arguments.to_vec())
            };
        }
        let fd = std::env::var(NEXT_FD).ok();
        let fd = fd.and_then(|fd| fd.parse().ok()).filter(|fd| *fd > 2);
        fd.map_or(Self::Other, Self::Wrapper)
    }

    /// Calls what comes next, or says it. Comes back if there is nothing to call, or it cannot be called.
    pub(super) fn continue_with(&self, vmid: Vmid, next: Next) {
        match (self, next) {
            (Self::ProxmoxVe(arguments), Next::Call(chained)) => {
                exec_chained(&chained, vmid, arguments)
            }
            (Self::Wrapper(fd), next) => {
                let told = OpenOptions::new()
                    .write(true)
                    .open(format!("/proc/self/fd/{fd}"))
                    .and_then(|mut file| file.write_all(next.to_text().as_bytes()));
                if let Err(error) = told {
                    log::debug!("cannot say what comes next: {error}");
                }
            }
            _ => {}
        }
    }
}

/// Has a chained hookscript called us, for the same guest and phase?
fn is_nested(arguments: &[OsString]) -> bool {
    let Ok(within) = std::env::var(CHAINED) else {
        return false;
    };
    within.split(' ').eq(arguments
        .iter()
        .take(2)
        .map(|argument| argument.to_str().unwrap_or_default()))
}

/// What comes after our part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Nobody,
    /// This hookscript.
    Call(Chained),
    /// Nobody can tell.
    Unknown,
}

impl Next {
    /// By the child's answer.
    pub(super) fn of(vmid: Vmid, answer: &[u8], caller: &Caller) -> Self {
        let text = String::from_utf8_lossy(answer);
        match (text.as_ref(), caller) {
            (_, Caller::Other) | (NOBODY, _) => Self::Nobody,
            (UNKNOWN, _) => Self::Unknown,
            (record, _) => chained_hook::parse(record)
                .map_or_else(|_| Self::unanswered(vmid, caller), Self::Call),
        }
    }

    /// Without an answer of the child.
    pub(super) fn unanswered(vmid: Vmid, caller: &Caller) -> Self {
        if *caller == Caller::Other {
            return Self::Nobody;
        }
        log::error!(
            "guest {vmid}: cannot tell whether another hookscript is to be called after pve-span, so none is: its record was not \
             read in time"
        );
        Self::Unknown
    }

    /// As hookscripts/pve-span reads it.
    fn to_text(&self) -> String {
        match self {
            Self::Nobody => NOBODY.to_owned(),
            Self::Unknown => UNKNOWN.to_owned(),
            Self::Call(chained) => {
                format!("call\n{}\n{}\n", chained.volume().to_id(), chained.path())
            }
        }
    }
}

const NOBODY: &str = "none\n";
const UNKNOWN: &str = "unknown\n";

/// Is nothing called after us?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsLastPhase {
    /// Nothing.
    Yes,
    /// Another hookscript.
    No,
}

/// The child's part: reads the record. Where somebody else is known to hang in /etc/pve, it does not even try.
pub(super) fn answer(root: &Path, vmid: Vmid, mut to: &File) -> IsLastPhase {
    let read = || Pve::new(root).chained(vmid);
    let chained = match LockFile::open(root) {
        Ok(file) if file.hung().is_some() => Err(Unknown(PVE_HANGS.into())),
        Ok(file) => file.while_reading(read),
        Err(_) => read(),
    };
    let mut is_last = IsLastPhase::Yes;
    let text = match chained {
        Ok(None) => NOBODY.to_owned(),
        Ok(Some(chained)) => {
            is_last = IsLastPhase::No;
            chained.to_text(vmid)
        }
        Err(why) => {
            log::error!(
                "guest {vmid}: cannot tell whether another hookscript is to be called after pve-span, so none is: {why}"
            );
            UNKNOWN.to_owned()
        }
    };
    if let Err(error) = to.write_all(text.as_bytes()) {
        log::debug!("cannot answer: {error}");
    }
    is_last
}

/// Becomes the other hookscript; comes back if that cannot be.
fn exec_chained(chained: &Chained, vmid: Vmid, arguments: &[OsString]) {
    let within = |at: usize| arguments.get(at).and_then(|word| word.to_str());
    let within = [within(0), within(1)]
        .map(Option::unwrap_or_default)
        .join(" ");
    let error = Command::new(chained.path())
        .args(arguments)
        .env(CHAINED, within)
        .exec();
    log::error!(
        "guest {vmid}: cannot call {}, {}: {error}; put it there again, or take it off with `pve-span detach {vmid}`; \
         the guest goes on without it",
        chained.volume(),
        chained.path()
    );
}
