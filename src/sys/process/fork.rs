//! Work of ours in a child process.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::fcntl::OFlag;
use nix::libc::c_uint;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, pipe2};

use super::Child;
use super::syscalls::{close_range, default_sigchld, fork};

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
