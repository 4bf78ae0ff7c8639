//! Tells systemd how the service does (sd_notify(3)); without systemd it tells nobody.

use std::env;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendto, socket};

/// The most that the status may have, in bytes: systemd ignores a message of more than 4 KiB.
const LONGEST: usize = 1000;

/// The way to systemd.
#[derive(Debug)]
pub struct SdNotify {
    to: Option<(OwnedFd, UnixAddr)>,
    /// How often systemd wants to hear that the service is alive.
    pub watchdog: Option<Duration>,
}

impl SdNotify {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn from_environment() -> Self {
        let path = env::var("NOTIFY_SOCKET").unwrap_or_default();
        let address = match path.strip_prefix('@') {
            Some(name) => UnixAddr::new_abstract(name.as_bytes()).ok(),
            None if path.starts_with('/') => UnixAddr::new(path.as_str()).ok(),
            None => None,
        };
        let to = address.and_then(|address| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None).ok()?;
            Some((socket, address))
        });
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let is_meant =
            number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_meant && *usec > 0);
        Self {
            to,
            watchdog: watchdog.map(|usec| Duration::from_micros(usec / 2)),
        }
    }

    /// Tells what `systemctl status` shows: one line, whatever is in the text.
    ///
    /// # Errors
    /// As [`Notify::tell`].
    pub fn tell_status(&self, status: &str) -> Result<(), Errno> {
        self.tell(&format!("STATUS={}", line(status)))
    }

    /// Tells lines such as `READY=1`; without systemd, nobody.
    ///
    /// # Errors
    /// Its queue is full, for one: what is said once only has to be said again.
    pub fn tell(&self, lines: &str) -> Result<(), Errno> {
        let Some((socket, address)) = &self.to else {
            return Ok(());
        };
        let flags = MsgFlags::empty();
        sendto(socket.as_raw_fd(), lines.as_bytes(), address, flags).map(drop)
    }
}

/// Without what would be another assignment, and cut where it is too long.
fn line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or(0));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_of_a_length_that_systemd_takes() {
        assert_eq!(line("dmz: no\nMAINPID=1"), "dmz: no MAINPID=1");
        let long = line(&"ü".repeat(5000));
        assert!(long.len() <= LONGEST + 3 && long.ends_with("ü…"), "{long}");
    }
}
