//! Faults go to stderr and, on a node with systemd, to the journal.

use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::linux::write_in_time;
use log::{Level, LevelFilter, Log, Metadata, Record};

/// The journal's socket (systemd, "Native Journal Protocol"), below the root directory.
const JOURNAL: &str = "run/systemd/journal/socket";

struct Logger {
    /// The journal's socket, where this command's faults belong there.
    journal: Option<PathBuf>,
    stderr: LevelFilter,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("pve_span")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        if record.level() <= self.stderr {
            write_stderr(record.level(), &text);
        }
        // Changes and faults: what else is told would only fill the journal.
        let is_news = record.level() <= Level::Warn
            || record.target() == "pve_span::hook" && record.level() == Level::Info;
        if let Some(journal) = self.journal.as_ref().filter(|_| is_news) {
            // A journal that does not listen or is full costs this line in the journal, nothing else.
            let _ = send(journal, record.level(), &text);
        }
    }

    fn flush(&self) {}
}

/// How long a message waits for a reader that sleeps: Proxmox VE may be waiting for us.
const PATIENCE: Duration = Duration::from_millis(100);

fn write_stderr(level: Level, text: &str) {
    let word = match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info => "",
        Level::Debug | Level::Trace => "debug: ",
    };
    say(&format!("pve-span: {word}{text}\n"));
}

/// Writes to stderr; it neither panics nor waits when nobody reads.
pub fn say(text: &str) {
    let stderr = std::io::stderr();
    write_in_time(
        stderr.as_fd(),
        &stderr,
        text.as_bytes(),
        Instant::now() + PATIENCE,
    );
}

fn send(journal: &Path, level: Level, text: &str) -> std::io::Result<()> {
    let priority = match level {
        Level::Error => 3,
        Level::Warn => 4,
        _ => 6,
    };
    let mut message =
        format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=pve-span\nMESSAGE\n").into_bytes();
    message.extend_from_slice(&u64::try_from(text.len()).unwrap_or(0).to_le_bytes());
    message.extend_from_slice(text.as_bytes());
    message.push(b'\n');
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(&message, journal).map(|_| ())
}

/// Where faults are written besides stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journal {
    /// In the journal too: nobody may be watching.
    Too,
    /// Nowhere: an administrator is watching.
    No,
}

/// Starts logging.
pub fn start(root: &Path, verbose: u8, journal: Journal) {
    let stderr = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    let journal = (journal == Journal::Too).then(|| root.join(JOURNAL));
    if log::set_boxed_logger(Box::new(Logger { journal, stderr })).is_ok() {
        log::set_max_level(stderr.max(LevelFilter::Info));
    }
}
