//! What is asked of the kernel for children, beyond what nix has.

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{self, c_uint};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid};

#[allow(unsafe_code)]
pub(super) fn fork() -> Result<ForkResult, Errno> {
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

/// close_range(2), Linux 5.9.
#[allow(unsafe_code)]
pub(super) fn close_range(first: c_uint, last: c_uint) -> Result<(), Errno> {
    // SAFETY: this process has just been forked and is about to work with files that it opens itself; nothing
    // of what it inherited is used, nor dropped, again, but for the report.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(closed).map(drop)
}
