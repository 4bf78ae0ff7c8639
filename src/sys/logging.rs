//! Faults go to stderr and, on a node with systemd, to the journal.

use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::sys::write_in_time;
use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::stat::{FileStat, fstat};

/// The journal's socket (systemd, "Native Journal Protocol"), below the root directory.
const JOURNAL: &str = "run/systemd/journal/socket";

struct Logger {
    /// The journal's socket, where this command's faults belong there.
    journal: Option<PathBuf>,
    stderr: LevelFilter,
    /// Are the service's changes told too?
    of_service: bool,
}

/// Is stderr read by the journal, which is told the level by a prefix (sd-daemon(3))?
static PREFIXED: AtomicBool = AtomicBool::new(false);

/// Is it read by the service, which is told the place in the code, too?
static PLACED: AtomicBool = AtomicBool::new(false);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("pve_span")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        let is_told = record.level() <= self.stderr
            || self.of_service
                && record.target().starts_with("pve_span::daemon")
                && record.level() == Level::Info;
        if is_told {
            write_stderr(record, &text);
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

fn write_stderr(record: &Record<'_>, text: &str) {
    if PREFIXED.load(Ordering::Relaxed) {
        let priority = priority(record.level());
        let place = match record.line() {
            Some(line) if PLACED.load(Ordering::Relaxed) => format!(" {}:{line}", record.target()),
            _ => String::new(),
        };
        let text = text.replace('\n', " ");
        return say(&format!("<{priority}{place}>{text}\n"));
    }
    let word = match record.level() {
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

/// syslog(3)'s number.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// From now on this process is a child of the service, which reads what it says.
pub fn become_child() {
    PREFIXED.store(true, Ordering::Relaxed);
    PLACED.store(true, Ordering::Relaxed);
}

/// What a child of the service has said on stderr: which place in the code has said it (of a line that is none of ours, the line
/// itself), and what. Warnings and errors; the rest is passed on at once.
pub fn of_child(line: &str) -> Option<(&str, &str)> {
    let ours = line.strip_prefix('<').and_then(|line| line.split_once('>'));
    let ours = ours.and_then(|(head, text)| Some((head.split_once(' ')?, text)));
    match ours {
        Some((("7" | "6", _), text)) => {
            log::debug!("{text}");
            None
        }
        Some((("4" | "3", place), text)) => Some((place, text)),
        _ => Some((line, line)),
    }
}

fn send(journal: &Path, level: Level, text: &str) -> std::io::Result<()> {
    let priority = priority(level);
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
    /// Nowhere else: a service's stderr is the journal, or an administrator's terminal.
    Stderr,
}

/// Starts logging.
pub fn start(root: &Path, verbose: u8, destination: Journal) {
    let stderr = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    let journal = (destination == Journal::Too).then(|| root.join(JOURNAL));
    let of_service = destination == Journal::Stderr;
    if of_service
        && is_journal(
            std::env::var("JOURNAL_STREAM").ok().as_deref(),
            std::io::stderr(),
        )
    {
        PREFIXED.store(true, Ordering::Relaxed);
    }
    let logger = Logger {
        journal,
        stderr,
        of_service,
    };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(stderr.max(LevelFilter::Info));
    }
}

/// Is it the journal that reads there? `JOURNAL_STREAM` names its device and inode (systemd.exec(5)); who has inherited
/// the variable may write elsewhere.
fn is_journal(stream: Option<&str>, stderr: impl AsFd) -> bool {
    let named =
        |stat: FileStat| Some(format!("{}:{}", stat.st_dev, stat.st_ino)).as_deref() == stream;
    fstat(stderr).is_ok_and(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_journal_reads_is_its_stream() {
        let file = tempfile::tempfile().unwrap();
        let stat = fstat(&file).unwrap();
        let stream = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert!(is_journal(Some(&stream), &file));
        assert!(!is_journal(Some("8:1"), &file));
        assert!(!is_journal(None, &file));
    }

    #[test]
    fn what_a_child_says_is_known_by_its_place_in_the_code() {
        let said = "<3 pve_span::reconcile:7>it > that";
        assert_eq!(of_child(said), Some(("pve_span::reconcile:7", "it > that")));
        assert_eq!(of_child("<7 pve_span::reconcile:7>a detail"), None);
        for foreign in ["thread 'main' panicked at src/x.rs:1", "<3>", "<a b>c", ""] {
            assert_eq!(of_child(foreign), Some((foreign, foreign)));
        }
    }
}
