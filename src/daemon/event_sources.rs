//! What wakes the service: devices, our table, Open vSwitch. It reconnects what breaks, and a missing Open vSwitch costs
//! one look a second for its socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::engine::ovs::monitor;
use crate::engine::ovs::monitor::Monitor;
use crate::sys::netlink_events::{Heard, KernelListener, Topic};

/// How long to wait before Open vSwitch is tried again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// The listeners.
#[derive(Debug)]
pub struct EventSources {
    links: Option<KernelListener>,
    table: Option<KernelListener>,
    ovs: OvsDatabaseEvents,
}

impl EventSources {
    /// Listens from now on.
    ///
    /// # Errors
    /// The kernel does not tell of devices, or does not permit to listen.
    pub fn open(root: &Path) -> io::Result<Self> {
        let table = match KernelListener::open(Topic::Table) {
            Ok(listener) => Some(listener),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(error) => {
                log::debug!("cannot listen to nftables: {error}");
                None
            }
        };
        let mut event_sources = Self {
            links: Some(KernelListener::open(Topic::Links)?),
            table,
            ovs: OvsDatabaseEvents::new(root),
        };
        event_sources.reconnect();
        Ok(event_sources)
    }

    /// What to poll for reading.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let kernel = self.links.iter().chain(&self.table).map(AsFd::as_fd);
        kernel.chain(self.ovs.monitor.iter().map(AsFd::as_fd))
    }

    /// When Open vSwitch is to be tried again, if that is soon.
    pub fn next_try(&self) -> Option<Instant> {
        let is_trying = self.ovs.monitor.is_none() && self.ovs.pause > FIRST_PAUSE;
        is_trying.then_some(self.ovs.next_try)
    }

    /// Reads what has arrived. Does it matter?
    pub fn drain(&mut self) -> bool {
        let links = listen(&mut self.links, Topic::Links);
        let table = listen(&mut self.table, Topic::Table);
        let ovs = self.ovs.drain();
        links || table || ovs
    }

    /// Something could not be done: does Open vSwitch hang? That it no longer does is heard then.
    pub fn ask(&mut self) {
        if let Some(monitor) = &mut self.ovs.monitor {
            monitor.ask();
        }
    }

    /// Connects to Open vSwitch if there is one and it is time. That it has come back is told by its answer.
    pub fn reconnect(&mut self) {
        if self.ovs.monitor.is_none() && Instant::now() >= self.ovs.next_try {
            self.ovs.connect();
        }
    }

    /// Listens to what the kernel did not tell of. If it does now, something may have been missed.
    pub fn listen_again(&mut self) -> bool {
        let links = listen_again(&mut self.links, Topic::Links);
        let table = listen_again(&mut self.table, Topic::Table);
        links || table
    }
}

/// Open vSwitch's database, which may be there or not.
#[derive(Debug)]
struct OvsDatabaseEvents {
    root: PathBuf,
    monitor: Option<Monitor>,
    pause: Duration,
    next_try: Instant,
}

impl OvsDatabaseEvents {
    fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            monitor: None,
            pause: FIRST_PAUSE,
            next_try: Instant::now(),
        }
    }

    fn drain(&mut self) -> bool {
        match self.monitor.as_mut().map(Monitor::drain) {
            Some(monitor::Heard::Change) => true,
            Some(monitor::Heard::End) => {
                log::debug!("the connection to Open vSwitch is over");
                let was_good = self.monitor.take().is_some_and(|ovs| ovs.has_answered());
                // A server that only accepts is tried less and less often, like one that is not there.
                if was_good {
                    self.pause = FIRST_PAUSE;
                }
                self.try_later();
                was_good
            }
            Some(monitor::Heard::Nothing) | None => false,
        }
    }

    fn connect(&mut self) {
        if !Monitor::is_possible(&self.root) {
            // Looked for once a second.
            self.pause = FIRST_PAUSE;
            return;
        }
        match Monitor::open(&self.root) {
            Ok(monitor) => self.monitor = Some(monitor),
            Err(error) => {
                log::debug!("cannot connect to Open vSwitch: {error}");
                self.try_later();
            }
        }
    }

    fn try_later(&mut self) {
        self.next_try = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }
}

fn listen(listener: &mut Option<KernelListener>, about: Topic) -> bool {
    match listener.as_mut().map(KernelListener::drain) {
        Some(Ok(Heard::Nothing)) | None => false,
        Some(Ok(Heard::Change)) => true,
        Some(Ok(Heard::Overrun)) => {
            log::debug!("{about:?}: more was announced than there was room for");
            true
        }
        Some(Err(error)) => {
            log::debug!("{about:?}: {error}, listening anew");
            *listener = None;
            true
        }
    }
}

fn listen_again(listener: &mut Option<KernelListener>, about: Topic) -> bool {
    let is_missing = listener.is_none();
    if is_missing {
        *listener = KernelListener::open(about).ok();
    }
    is_missing && listener.is_some()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::engine::ovs::SOCKET;

    #[test]
    fn a_server_that_only_accepts_is_tried_less_and_less_often_and_one_that_answers_is_not() {
        let root = tempfile::tempdir().unwrap();
        let socket = root.path().join(SOCKET);
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let server = UnixListener::bind(socket).unwrap();
        let mut ovs = OvsDatabaseEvents::new(root.path());
        for _ in 0..10 {
            ovs.connect();
            drop(server.accept().unwrap());
            assert!(!ovs.drain(), "nothing has been told, so nothing is new");
            assert!(ovs.monitor.is_none());
        }
        assert_eq!(ovs.pause, LAST_PAUSE);

        ovs.connect();
        let (mut stream, _) = server.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream
            .write_all(br#"{"id":1,"result":{},"error":null}"#)
            .unwrap();
        assert!(
            ovs.drain(),
            "what was changed before the answer was told to nobody"
        );
        drop(stream);
        assert!(ovs.drain());
        assert_eq!(ovs.pause, FIRST_PAUSE * 2);
    }
}
