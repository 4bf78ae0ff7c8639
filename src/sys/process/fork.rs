//! Work of ours in a child process.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::{self, c_uint};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2};

use super::Child;

impl Child {
    /// Does `work` in a child, with `stdin` if it is to be asked something, and none of this process's other files. What it
    /// writes to the file that it is given is its report, and what it returns its exit code.
    ///
    /// # Panics
    /// This process has more than one thread.
    ///
    /// # Errors
    /// There can be no child; or it has no pidfd, and is killed.
    pub fn fork(stdin: Option<File>, work: impl FnOnce(File) -> i32) -> io::Result<Self> {
        default_sigchld()?;
        let (report, to_report) = pipe2(OFlag::O_CLOEXEC)?;
        let (stdout, to_stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, to_stderr) = pipe2(OFlag::O_CLOEXEC)?;
        match fork()? {
            ForkResult::Child => {
                let code = match become_child(stdin, to_stdout, to_stderr, &to_report) {
                    Ok(()) => {
                        catch_unwind(AssertUnwindSafe(|| work(to_report.into()))).unwrap_or(101)
                    }
                    Err(_) => 102,
                };
                std::process::exit(code);
            }
            ForkResult::Parent { child } => {
                drop((to_report, to_stdout, to_stderr));
                Self::new(child, None, [report, stdout, stderr].map(Some))
            }
        }
    }
}

#[allow(unsafe_code)]
fn fork() -> Result<ForkResult, Errno> {
    // unshare(2): with this flag it changes nothing, and fails in a process with several threads.
    let is_alone = unshare(CloneFlags::CLONE_THREAD) != Err(Errno::EINVAL);
    assert!(is_alone, "a process with several threads must not fork");
    // SAFETY: there is one thread, so no lock can be held by another one in the child.
    unsafe { nix::unistd::fork() }
}

/// A caller that ignores SIGCHLD hands that on, and then a child's end could not be waited for.
#[allow(unsafe_code)]
pub(super) fn default_sigchld() -> Result<(), Errno> {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map(|_| ())
}

/// The descriptor of a child that has not been reaped.
#[allow(unsafe_code)]
pub(super) fn pidfd_open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: the kernel takes two numbers, and returns a descriptor that nobody else owns.
    unsafe {
        let opened = libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0);
        let fd = i32::try_from(Errno::result(opened)?).map_err(|_| Errno::EBADF)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Lets go of everything that the caller might wait for, but for the report. Without a `stdin` there is nothing to read.
fn become_child(
    stdin: Option<File>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    report: &OwnedFd,
) -> io::Result<()> {
    let stdin = match stdin {
        Some(stdin) => stdin,
        None => File::open("/dev/null")?,
    };
    dup2_stdin(&stdin)?;
    dup2_stdout(&stdout)?;
    dup2_stderr(&stderr)?;
    drop((stdin, stdout, stderr));
    // Rust's start sees to it that 0 to 2 are open, so the report is above them.
    let report = c_uint::try_from(report.as_raw_fd()).map_err(io::Error::other)?;
    if report > 3 {
        close_range(3, report - 1)?;
    }
    close_range(report + 1, c_uint::MAX)?;
    // The service reads its signals from a descriptor; here they are to end the process again.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// close_range(2), Linux 5.9.
#[allow(unsafe_code)]
fn close_range(first: c_uint, last: c_uint) -> Result<(), Errno> {
    // SAFETY: this process has just been forked and is about to work with files that it opens itself; nothing
    // of what it inherited is used, nor dropped, again, but for the report.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(closed).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "several threads")]
    fn a_process_with_several_threads_does_not_fork() {
        // The one that runs tests is another.
        std::thread::scope(|scope| scope.spawn(|| Child::fork(None, |_| 0)).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .unwrap();
    }
}
