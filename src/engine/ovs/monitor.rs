//! Hears of changes in Open vSwitch's database without waiting for them: what changed is not asked here, the next look
//! tells.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::framing::Framing;
use super::observe;
use super::rpc;
use super::rpc::SOCKET;

/// What mirrors depend on, besides their own rows.
const FOLLOWED: [(&str, &[&str]); 4] = [
    ("Open_vSwitch", &["cur_cfg", "bridges"]),
    ("Bridge", &["name", "ports", "mirrors"]),
    (
        "Port",
        &["name", "tag", "trunks", "vlan_mode", "interfaces"],
    ),
    ("Interface", &["name", "type", "ofport", "error"]),
];

/// What is read of mirrors and is no news: the row's name never changes, and figures do all the time.
const NO_NEWS: [&str; 2] = ["_uuid", "statistics"];

/// How long the server may take to accept a connection: it is the kernel that accepts.
const PATIENCE: Duration = Duration::from_millis(50);

/// The most that is read in one go, in pieces: other things want to be looked after too.
const MOST: usize = 1000;

/// An answer that takes so long is one of a server that hung.
const LATE: Duration = Duration::from_millis(200);

/// What our request and our question are called.
const REQUEST: u64 = 1;
const QUESTION: u64 = 2;

/// A connection that announces changes.
#[derive(Debug)]
pub struct Monitor {
    stream: UnixStream,
    framing: Framing,
    has_answered: bool,
    /// Since when an answer is waited for that tells whether the server hangs.
    asked: Option<Instant>,
}

/// What has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Nothing that matters.
    Nothing,
    /// Something has changed.
    Change,
    /// The connection is over.
    End,
}

impl Monitor {
    /// Is there anything to connect to?
    pub fn is_possible(root: &Path) -> bool {
        root.join(SOCKET).exists()
    }

    /// Connects, and asks to be told of changes from now on.
    ///
    /// # Errors
    /// Nobody accepts.
    pub fn open(root: &Path) -> std::io::Result<Self> {
        Self::over(rpc::connect(&root.join(SOCKET), Instant::now() + PATIENCE)?)
    }

    /// Asks over a connection.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn over(mut stream: UnixStream) -> std::io::Result<Self> {
        let (mirror, columns) = observe::MIRROR;
        let columns = columns.iter().filter(|column| !NO_NEWS.contains(column));
        let mirrors = (mirror, columns.copied().collect());
        let others = FOLLOWED.map(|(table, columns)| (table, columns.to_vec()));
        let tables: serde_json::Map<String, Value> = others
            .into_iter()
            .chain([mirrors])
            .map(|(table, columns)| {
                let select = json!({"initial": false});
                (
                    table.to_owned(),
                    json!([{"columns": columns, "select": select}]),
                )
            })
            .collect();
        let request = json!({
            "method": "monitor_cond",
            "params": ["Open_vSwitch", "pve-span", tables],
            "id": REQUEST,
        });
        stream.set_nonblocking(true)?;
        // It fits the socket's buffer, or the connection is of no use.
        stream.write_all(request.to_string().as_bytes())?;
        Ok(Self {
            stream,
            framing: Framing::default(),
            has_answered: false,
            asked: None,
        })
    }

    /// Has the server begun to announce changes? Who accepts and does no more is as good as none.
    pub fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Asks whether the server is there, unless that is asked already. If it hangs, the answer comes when it no longer
    /// does, and counts as a change: what was wanted of it meanwhile was not done.
    pub fn ask(&mut self) {
        if self.has_answered && self.asked.is_none() {
            let question = json!({"method": "echo", "params": [], "id": QUESTION});
            // A part of it will not do; then the connection is of no use, which its end tells.
            if self
                .stream
                .write_all(question.to_string().as_bytes())
                .is_ok()
            {
                self.asked = Some(Instant::now());
            }
        }
    }

    /// Reads what has arrived, without waiting.
    pub fn drain(&mut self) -> Heard {
        let mut heard = Heard::Nothing;
        let mut piece = vec![0; 64 * 1024];
        for _ in 0..MOST {
            match self.stream.read(&mut piece) {
                Ok(0) => return Heard::End,
                Ok(count) => self.framing.push(piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return heard,
                Err(_) => return Heard::End,
            }
            loop {
                match self.framing.next_message() {
                    Ok(Some(message)) => match self.message(&message) {
                        Heard::Nothing => {}
                        Heard::Change => heard = Heard::Change,
                        Heard::End => return Heard::End,
                    },
                    Ok(None) => break,
                    Err(_) => return Heard::End,
                }
            }
        }
        heard
    }

    fn message(&mut self, message: &[u8]) -> Heard {
        let Ok(message) = serde_json::from_slice::<Value>(message) else {
            return Heard::End;
        };
        match message.get("method").and_then(Value::as_str) {
            Some("echo") => {
                let reply = json!({"result": message.get("params"), "error": null, "id": message.get("id")});
                match self.stream.write_all(reply.to_string().as_bytes()) {
                    Ok(()) => Heard::Nothing,
                    Err(_) => Heard::End,
                }
            }
            Some(_) => Heard::Change,
            // The answer to our request.
            None if message.get("error").is_some_and(|error| !error.is_null()) => Heard::End,
            None => match message.get("id").and_then(Value::as_u64) {
                // Only from now on is every change told, so there has to be a look that begins later.
                Some(REQUEST) => {
                    self.has_answered = true;
                    Heard::Change
                }
                Some(QUESTION) if self.asked.take().is_some_and(|at| at.elapsed() > LATE) => {
                    Heard::Change
                }
                _ => Heard::Nothing,
            },
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_hung_is_heard_when_it_no_longer_does() {
        let (ours, mut server) = UnixStream::pair().unwrap();
        let mut monitor = Monitor::over(ours).unwrap();
        let mut says = |monitor: &mut Monitor, id: u64| {
            let answer = json!({"id": id, "result": [], "error": null});
            server.write_all(answer.to_string().as_bytes()).unwrap();
            monitor.drain()
        };
        monitor.ask();
        assert_eq!(monitor.asked, None, "its first answer will tell");
        assert_eq!(says(&mut monitor, REQUEST), Heard::Change);
        monitor.ask();
        monitor.asked = Some(Instant::now() + Duration::from_secs(3600));
        assert_eq!(says(&mut monitor, QUESTION), Heard::Nothing, "at once");
        monitor.ask();
        assert!(monitor.asked.is_some());
        monitor.asked = Instant::now().checked_sub(LATE * 2);
        monitor.ask();
        assert_eq!(says(&mut monitor, QUESTION), Heard::Change, "late");
        assert_eq!(says(&mut monitor, QUESTION), Heard::Nothing, "not asked");
    }
}
