//! Says to the process that waits for us when we are in something that may never return, when we are out again, and when
//! it need not wait any longer.
//!
//! Each is a byte in a pipe that carries text besides, which has no such bytes.

use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

const IN: u8 = 1;
const OUT: u8 = 2;
const DONE: u8 = 3;

/// How often one that is getting on says so.
const OFTEN: Duration = Duration::from_millis(200);

/// Where to say it; nowhere, if nobody waits. A child that has just begun counts as in.
#[derive(Debug, Clone, Default)]
pub struct Progress(Option<Rc<Pipe>>);

#[derive(Debug)]
struct Pipe {
    file: File,
    /// Since when we are in, or have said so.
    since: Cell<Option<Instant>>,
}

impl Progress {
    /// Through this pipe.
    pub fn through(file: File) -> Self {
        let since = Cell::new(Some(Instant::now()));
        Self(Some(Rc::new(Pipe { file, since })))
    }

    /// What comes may hang.
    pub fn enter(&self) {
        self.say(IN, |since| since.is_none());
    }

    /// It goes on; what comes may hang again.
    pub fn beat(&self) {
        self.say(IN, |since| {
            since.is_none_or(|since| since.elapsed() >= OFTEN)
        });
    }

    /// What comes has an end.
    pub fn leave(&self) {
        self.say(OUT, |since| since.is_some());
    }

    /// All is done that is waited for, and told.
    pub fn done(&self) {
        self.say(DONE, |_| true);
    }

    fn say(&self, what: u8, is_news: impl Fn(Option<Instant>) -> bool) {
        let Some(pipe) = self.0.as_ref().filter(|pipe| is_news(pipe.since.get())) else {
            return;
        };
        pipe.since.set((what == IN).then(Instant::now));
        // Who has gone does not wait either.
        let _ = (&pipe.file).write_all(&[what]);
    }
}

/// The other side: since when the child has been in, and whether it is still to be waited for.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    since: Option<Instant>,
    is_over: bool,
}

impl Waiting {
    /// For a child that has just begun.
    pub fn begun() -> Self {
        Self {
            since: Some(Instant::now()),
            is_over: false,
        }
    }

    /// Takes what it has said out of what it has written.
    pub fn take(&mut self, text: &mut Vec<u8>) {
        self.is_over |= text.contains(&DONE);
        let mut words = text.iter().rev().filter(|byte| [IN, OUT].contains(byte));
        if let Some(last) = words.next() {
            self.since = (*last == IN).then(Instant::now);
        }
        text.retain(|byte| ![IN, OUT, DONE].contains(byte));
    }

    /// Has the child said that it need not be waited for?
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// When it will have been in for so long.
    pub fn until(&self, patience: Duration) -> Option<Instant> {
        Some(self.since? + patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_last_word_counts_and_the_text_is_left() {
        let (mut read, write) = nix::unistd::pipe()
            .map(|(r, w)| (File::from(r), w))
            .unwrap();
        let progress = Progress::through(write.into());
        progress.enter();
        progress.leave();
        progress.leave();
        progress.enter();
        progress.beat();
        drop(progress);
        let mut said = Vec::new();
        read.read_to_end(&mut said).unwrap();
        assert_eq!(said, [OUT, IN], "what was known is not said");

        let mut waiting = Waiting::begun();
        assert!(waiting.until(Duration::ZERO).is_some());
        let mut text = b"no\x01\x02ne\n".to_vec();
        waiting.take(&mut text);
        assert_eq!(text, b"none\n");
        assert_eq!(waiting.until(Duration::ZERO), None);
        waiting.take(&mut text);
        assert_eq!(waiting.until(Duration::ZERO), None);
        waiting.take(&mut said);
        assert!(waiting.until(Duration::ZERO).is_some());

        assert!(!waiting.is_over());
        let mut text = b"a\x03b".to_vec();
        waiting.take(&mut text);
        assert!(waiting.is_over() && text == b"ab");
    }
}
