//! A small blocking OVSDB client (RFC 7047): JSON-RPC 1.0 over a unix socket.
//!
//! Everything it does ends at a deadline, connecting included. It answers the server's `echo`
//! requests, keeps notifications that arrive between replies, and tells an operation's failure
//! (inside `result`) from a request's (`error`).

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::time::TimeVal;
use serde::Serialize;
use serde_json::{Value, json};

use super::framing::{Framing, FramingError};
use pve_span_core::model::printable;

/// The socket, below the root directory.
pub const SOCKET: &str = "run/openvswitch/db.sock";

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no socket.
    #[error(
        "there is no {path}: Open vSwitch is not installed or not running (systemctl status openvswitch-switch)"
    )]
    NoSocket {
        /// Where it should be.
        path: PathBuf,
    },
    /// The socket does not accept.
    #[error("cannot connect to {path}: {}", hint(source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It accepts, but does not answer in time.
    #[error(
        "ovsdb-server did not answer within {} ms ({doing}): does it hang? (systemctl status openvswitch-switch)",
        waited.as_millis()
    )]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// For how long, from the moment that the connection was asked for.
        waited: Duration,
    },
    /// The connection broke.
    #[error("lost the connection to ovsdb-server ({doing})")]
    Broken {
        /// What was being done.
        doing: &'static str,
        /// How.
        source: io::Error,
    },
    /// What arrives is not OVSDB.
    #[error("ovsdb-server's answer is not understood: {0}")]
    Protocol(String),
    /// The request itself failed.
    #[error("ovsdb-server refused the request: {0}")]
    Request(String),
    /// An operation of a transaction failed; nothing of it was done.
    #[error("ovsdb-server refused the transaction: {error}{}", details.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Operation {
        /// The error's name (RFC 7047 §5.2).
        error: String,
        /// In words.
        details: Option<String>,
    },
    /// The transaction was sent, and its result did not arrive: it may have been done.
    #[error("the answer to the change did not arrive")]
    Uncertain(#[source] Box<Error>),
    /// What was read has changed meanwhile; nothing was done.
    #[error("Open vSwitch's configuration changed meanwhile")]
    Conflict,
}

/// What it means that the socket does not accept.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "this needs root",
        _ => "is ovsdb-server running? (systemctl status openvswitch-switch)",
    }
}

impl From<FramingError> for Error {
    fn from(error: FramingError) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// The most changes that are kept until somebody asks for them: what is followed changes a few times for each commit.
const MOST_NOTIFICATIONS: usize = 10_000;

/// A request (JSON-RPC 1.0, §1.1).
#[derive(Serialize)]
struct Request<'a> {
    method: &'static str,
    params: &'a Value,
    id: u64,
}

/// A request that was sent.
#[derive(Debug)]
pub struct PendingRequest {
    id: u64,
    method: &'static str,
}

/// A transaction that was sent.
#[derive(Debug)]
pub struct Transaction {
    pending: PendingRequest,
    count: usize,
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    framing: Framing,
    next_id: u64,
    began: Instant,
    deadline: Instant,
    notifications: VecDeque<Value>,
    replies: BTreeMap<u64, Value>,
    buffer: Box<[u8]>,
}

impl Client {
    /// Connects; everything this client ever does ends at the deadline.
    ///
    /// # Errors
    /// There is no socket, nobody listens, or the deadline passed.
    pub fn connect(path: &Path, deadline: Instant) -> Result<Self, Error> {
        let began = Instant::now();
        let stream = connect(path, deadline).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NoSocket {
                path: path.to_owned(),
            },
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout {
                doing: "connecting",
                waited: began.elapsed(),
            },
            _ => Error::Connect {
                path: path.to_owned(),
                source,
            },
        })?;
        Ok(Self {
            began,
            ..Self::over(stream, deadline)
        })
    }

    /// Uses a connection that is there already.
    pub fn over(stream: UnixStream, deadline: Instant) -> Self {
        Self {
            stream,
            framing: Framing::default(),
            next_id: 0,
            began: Instant::now(),
            deadline,
            notifications: VecDeque::new(),
            replies: BTreeMap::new(),
            buffer: vec![0; 65536].into_boxed_slice(),
        }
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// The connection failed, the deadline passed, or the server refused.
    pub fn call(&mut self, method: &'static str, params: &Value) -> Result<Value, Error> {
        let pending = self.request(method, params)?;
        self.reply(pending)
    }

    /// Sends a request; others may be sent before its reply is asked for.
    ///
    /// # Errors
    /// The connection failed or the deadline passed.
    pub fn request(
        &mut self,
        method: &'static str,
        params: &Value,
    ) -> Result<PendingRequest, Error> {
        self.next_id += 1;
        let pending = PendingRequest {
            id: self.next_id,
            method,
        };
        self.send(
            &Request {
                method,
                params,
                id: pending.id,
            },
            method,
        )?;
        Ok(pending)
    }

    /// Waits for a request's reply.
    ///
    /// # Errors
    /// The connection failed, the deadline passed, or the server refused.
    pub fn reply(&mut self, PendingRequest { id, method }: PendingRequest) -> Result<Value, Error> {
        let mut reply = loop {
            if let Some(reply) = self.replies.remove(&id) {
                break reply;
            }
            let message = self.receive(method)?;
            if message.get("method").is_some() {
                if self.notifications.len() == MOST_NOTIFICATIONS {
                    return Err(Error::Protocol("too many changes at once".into()));
                }
                self.notifications.push_back(message);
            } else if let Some(id) = message.get("id").and_then(Value::as_u64) {
                // Of a reply that nobody can have asked for, nothing is kept.
                if id <= self.next_id {
                    self.replies.insert(id, message);
                }
            }
        };
        match reply.get("error") {
            None | Some(Value::Null) => {
                Ok(reply.get_mut("result").map(Value::take).unwrap_or_default())
            }
            Some(error) => Err(Error::Request(error_text(error))),
        }
    }

    /// Runs a transaction on `Open_vSwitch` (RFC 7047 §4.1.3); the results are in the operations' order.
    ///
    /// # Errors
    /// As [`Client::call`]; or an operation failed, and nothing was done.
    pub fn transact(&mut self, operations: Vec<Value>) -> Result<Vec<Value>, Error> {
        let transaction = self.begin(operations)?;
        self.results(transaction)
    }

    /// Sends a transaction; its results are asked for with [`Client::results`].
    ///
    /// # Errors
    /// The connection failed or the deadline passed.
    pub fn begin(&mut self, mut operations: Vec<Value>) -> Result<Transaction, Error> {
        let count = operations.len();
        operations.insert(0, json!("Open_vSwitch"));
        let pending = self.request("transact", &Value::Array(operations))?;
        Ok(Transaction { pending, count })
    }

    /// Waits for a transaction's results.
    ///
    /// # Errors
    /// As [`Client::transact`].
    pub fn results(
        &mut self,
        Transaction { pending, count }: Transaction,
    ) -> Result<Vec<Value>, Error> {
        let Value::Array(results) = self.reply(pending)? else {
            return Err(Error::Protocol(
                "a transaction's result is not an array".into(),
            ));
        };
        // A failed operation ends the list early; a failed commit makes it one longer.
        if let Some(failed) = results
            .iter()
            .find(|result| result.get("error").is_some_and(|error| !error.is_null()))
        {
            let error = failed.get("error").map(error_text).unwrap_or_default();
            if error == "timed out" {
                return Err(Error::Conflict);
            }
            return Err(Error::Operation {
                error,
                details: failed.get("details").map(error_text),
            });
        }
        if results.len() < count {
            return Err(Error::Protocol(
                "a transaction's result is too short".into(),
            ));
        }
        Ok(results)
    }

    /// Follows columns of a table (`monitor_cond`, ovsdb-server(7)): the initial rows come back,
    /// changes arrive through [`Client::notification`].
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn monitor(&mut self, table: &str, columns: &[&str]) -> Result<Value, Error> {
        let pending = self.follow(table, columns)?;
        self.reply(pending)
    }

    /// Sends the request of [`Client::monitor`].
    ///
    /// # Errors
    /// The connection failed or the deadline passed.
    pub fn follow(&mut self, table: &str, columns: &[&str]) -> Result<PendingRequest, Error> {
        let requests = json!({ table: [{"columns": columns}] });
        self.request("monitor_cond", &json!(["Open_vSwitch", table, requests]))
    }

    /// Waits for the next notification.
    ///
    /// # Errors
    /// The connection failed or the deadline passed.
    pub fn notification(&mut self) -> Result<Value, Error> {
        loop {
            if let Some(notification) = self.notifications.pop_front() {
                return Ok(notification);
            }
            let message = self.receive("waiting for a change")?;
            if message.get("method").is_some() {
                self.notifications.push_back(message);
            }
        }
    }

    /// Moves the deadline.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    fn send(&mut self, message: &impl Serialize, doing: &'static str) -> Result<(), Error> {
        let text =
            serde_json::to_vec(message).map_err(|error| Error::Protocol(error.to_string()))?;
        let remaining = self.remaining(doing)?;
        let sent = self
            .stream
            .set_write_timeout(Some(remaining))
            .and_then(|()| self.stream.write_all(&text));
        sent.map_err(|source| self.failure(doing, source))
    }

    /// The next message that is not an `echo`.
    fn receive(&mut self, doing: &'static str) -> Result<Value, Error> {
        loop {
            if let Some(message) = self.framing.next_message()? {
                let message: Value = serde_json::from_slice(&message)
                    .map_err(|error| Error::Protocol(error.to_string()))?;
                if message.get("method").and_then(Value::as_str) == Some("echo") {
                    let reply = json!({"result": message.get("params"), "error": null, "id": message.get("id")});
                    self.send(&reply, "answering an echo")?;
                    continue;
                }
                return Ok(message);
            }
            let remaining = self.remaining(doing)?;
            let read = self
                .stream
                .set_read_timeout(Some(remaining))
                .and_then(|()| self.stream.read(&mut self.buffer));
            match read {
                Ok(0) => return Err(self.failure(doing, io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self
                    .framing
                    .push(self.buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failure(doing, source)),
            }
        }
    }

    fn remaining(&self, doing: &'static str) -> Result<Duration, Error> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            Err(self.timeout(doing))
        } else {
            Ok(left)
        }
    }

    fn timeout(&self, doing: &'static str) -> Error {
        Error::Timeout {
            doing,
            waited: self.began.elapsed(),
        }
    }

    fn failure(&self, doing: &'static str, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.timeout(doing),
            _ => Error::Broken { doing, source },
        }
    }
}

/// Connects with a timeout: a server that hangs stops accepting, and the queue fills up.
pub(super) fn connect(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let left = deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1));
    let fd: OwnedFd = socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let micros = i64::try_from(left.as_micros()).unwrap_or(i64::MAX);
    let timeout = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
    socket::setsockopt(&fd, sockopt::SendTimeout, &timeout)?;
    socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

fn error_text(error: &Value) -> String {
    let text = match error {
        Value::String(text) => text,
        // JSON lets more through than a terminal should get.
        other => &other.to_string(),
    };
    printable(text)
}
#[cfg(test)]
mod tests {
    use super::*;

    /// A client whose server has said all of this, and its end.
    fn told(said: &str) -> (Client, UnixStream) {
        let (ours, mut servers) = UnixStream::pair().unwrap();
        servers.write_all(said.as_bytes()).unwrap();
        let client = Client::over(ours, Instant::now() + Duration::from_secs(20));
        (client, servers)
    }

    #[test]
    fn replies_that_nobody_asked_for_are_not_kept() {
        let said = r#"{"id":7,"result":7}{"id":2,"result":2}{"id":1,"result":1}{"id":18446744073709551615}"#;
        let (mut client, _server) = told(said);
        let first = client.request("one", &json!([])).unwrap();
        let second = client.request("two", &json!([])).unwrap();
        assert_eq!(client.reply(first).unwrap(), 1);
        assert!(client.replies.keys().eq([&2]));
        assert_eq!(client.reply(second).unwrap(), 2);
    }

    #[test]
    fn a_server_that_tells_of_changes_without_end_is_given_up() {
        let (mut client, _server) = told(&r#"{"method":0}"#.repeat(MOST_NOTIFICATIONS + 1));
        assert_eq!(
            client.call("get", &json!([])).unwrap_err().to_string(),
            "ovsdb-server's answer is not understood: too many changes at once"
        );
    }

    #[test]
    fn an_error_of_the_server_s_cannot_write_on_the_terminal() {
        let text = json!("\u{1b}[2J");
        assert_eq!(error_text(&text), "\\u{1b}[2J");
        let object = json!({"error": "\u{9b}2J\u{202e}"});
        assert_eq!(error_text(&object), r#"{"error":"\u{9b}2J\u{202e}"}"#);
    }
}
