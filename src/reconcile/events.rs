//! What happened lately: what was changed and by whom, and how sessions did since. One line of JSON each.
//!
//! Written by whoever made a change, who holds the lock then, and by the service, each time in one write(2). What one adds
//! while another lets the older half go may be lost with it.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sys::clock::now;
use crate::sys::files;

/// The file, below the root directory.
const EVENTS: &str = "run/pve-span/events";

/// How long it may become, in bytes, before its older half is let go.
const LONGEST: usize = 128 * 1024;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in seconds since 1970.
    pub at: i64,
    /// Who noticed or did it: `hook 101 post-start`, `apply`, `watch`.
    pub by: String,
    /// What.
    pub what: String,
}

/// Adds what has just happened. A file that cannot be written costs the record, nothing else.
pub fn record(root: &Path, by: &str, what: &[String]) {
    if what.is_empty() {
        return;
    }
    let at = now();
    let line = |what: &String| {
        let event = Event {
            at,
            by: by.to_owned(),
            what: what.clone(),
        };
        serde_json::to_string(&event).unwrap_or_default() + "\n"
    };
    let text: String = what.iter().map(line).collect();
    if let Err(error) = append(root, &text) {
        log::debug!("cannot write {EVENTS}: {error}");
    }
}

fn append(root: &Path, text: &str) -> std::io::Result<()> {
    let path = root.join(EVENTS);
    files::make_private_folder(path.parent().unwrap_or(root))?;
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&path)?;
    files::close_to_others(&file)?;
    file.write_all(text.as_bytes())?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length > LONGEST {
        // However long it is: what was added in one go may be longer than all that is kept.
        let mut half = Vec::new();
        let begin = u64::try_from(length.saturating_sub(LONGEST / 2)).unwrap_or(u64::MAX);
        file.seek(SeekFrom::Start(begin))?;
        file.read_to_end(&mut half)?;
        let begin = half
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let rest = String::from_utf8_lossy(half.get(begin..).unwrap_or_default()).into_owned();
        files::replace_private(&path, &rest).map_err(std::io::Error::other)?;
    }
    Ok(())
}

/// What is on record, the oldest first. Lines that are not understood are left out.
///
/// # Errors
/// The file is there and cannot be read.
pub fn load(root: &Path) -> Result<Vec<Event>, files::Error> {
    let bytes = match files::read_bytes(&root.join(EVENTS)) {
        Ok(bytes) => bytes,
        Err(error) if error.is_missing() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&bytes);
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_file_may_have_does_not_make_it_useless() {
        let root = tempfile::tempdir().unwrap();
        let many: Vec<String> = (0..20_000)
            .map(|n| format!("{n} {}", "x".repeat(80)))
            .collect();
        record(root.path(), "watch", &many);
        record(root.path(), "watch", &["the last".to_owned()]);
        let length = root.path().join(EVENTS).metadata().unwrap().len();
        assert!(length <= LONGEST as u64, "{length}");
        let events = load(root.path()).unwrap();
        let told: Vec<_> = events.iter().map(|event| event.what.as_str()).collect();
        assert_eq!(told.last(), Some(&"the last"));
        assert!(told[told.len() - 2].starts_with("19999 "), "{told:?}");
    }

    #[test]
    fn what_is_recorded_is_loaded_in_order_and_the_oldest_goes_first() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(load(root.path()).unwrap(), []);
        record(root.path(), "apply", &["one".into(), "two".into()]);
        let events = load(root.path()).unwrap();
        let told: Vec<_> = events.iter().map(|event| event.what.as_str()).collect();
        assert_eq!(told, ["one", "two"]);
        for number in 0..2000 {
            record(
                root.path(),
                "watch",
                &[format!("{number} {}", "x".repeat(80))],
            );
        }
        let events = load(root.path()).unwrap();
        assert!(events.len() < 1500);
        let last = events.last().unwrap();
        assert!(last.what.starts_with("1999 ") && last.by == "watch");
        let numbers = events.iter().map(|event| {
            event
                .what
                .split(' ')
                .next()
                .unwrap()
                .parse::<u32>()
                .unwrap()
        });
        assert!(
            numbers
                .clone()
                .zip(numbers.skip(1))
                .all(|(a, b)| a + 1 == b)
        );
    }
}
