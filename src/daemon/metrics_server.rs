//! Metrics over HTTP, without a thread of their own.
//!
//! The service's poll loop says when something is ready, and nothing here ever waits: a slow or hostile client costs the
//! mirrors nothing. A connection has one request and two seconds.

mod http;

use std::cell::LazyCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

/// Where metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(port) = text.parse() {
            return Ok(Self((IpAddr::from(Ipv4Addr::LOCALHOST), port).into()));
        }
        text.parse().map(Self).map_err(|_| {
            "expected a port (9650) or an address with a port (192.0.2.1:9650, [::1]:9650)".into()
        })
    }
}

/// How many connections there are at most; more of them wait in the kernel.
const MOST: usize = 16;

/// How long a connection may take, from its beginning to its end: with slow clients, none would be left for others.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long nobody is let in after the kernel could not: out of descriptors, it would say so again at once.
const PAUSE: Duration = Duration::from_secs(1);

/// How much of one connection is read in one go, in bytes: others have their turn.
const PIECE: usize = http::LONGEST;

/// The server.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
    /// In the order in which they came.
    connections: Vec<Connection>,
    /// Until when nobody is let in.
    paused: Option<Instant>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    until: Instant,
    phase: Phase,
}

/// What a connection is at.
#[derive(Debug)]
enum Phase {
    /// Its request has arrived so far.
    Asking(Vec<u8>),
    /// This is left of the answer.
    Answering(Vec<u8>),
    /// All is said. What the client still sends is read and forgotten: closing before that would have the kernel reset
    /// the connection, and the client might not get to read the answer.
    Leaving,
    /// It is over.
    Over,
}

impl MetricsServer {
    /// Listens.
    ///
    /// # Errors
    /// The address is not this node's, or in use, or not allowed.
    pub fn open(listen: ListenAddress) -> io::Result<Self> {
        let listener = TcpListener::bind(listen.0)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            connections: Vec::with_capacity(MOST),
            paused: None,
        })
    }

    /// Where it listens: the port is the kernel's choice if 0 was asked for.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What to poll, and for what. When one of it is ready, or [`Server::next_timeout`] has come, call [`Server::serve`].
    pub fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let has_room = self.connections.len() < MOST && self.paused.is_none();
        let listener = has_room.then(|| (self.listener.as_fd(), PollFlags::POLLIN));
        let connections = self.connections.iter().map(|connection| {
            let flags = match connection.phase {
                Phase::Answering(_) => PollFlags::POLLOUT,
                Phase::Asking(_) | Phase::Leaving | Phase::Over => PollFlags::POLLIN,
            };
            (connection.stream.as_fd(), flags)
        });
        listener.into_iter().chain(connections)
    }

    /// When it has something to do even if nothing is ready.
    pub fn next_timeout(&self) -> Option<Instant> {
        let connections = self.connections.iter().map(|connection| connection.until);
        connections.chain(self.paused).min()
    }

    /// Does what can be done at once. `text` makes the metrics; it is called at most once, and only if they are asked for.
    pub fn serve(&mut self, text: impl FnOnce() -> String) {
        self.serve_at(Instant::now(), text);
    }

    fn serve_at(&mut self, now: Instant, text: impl FnOnce() -> String) {
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
        }
        let text = LazyCell::new(text);
        // Those that are over make room; who comes then has often asked already.
        self.advance(now, &mut || text.clone());
        self.let_in(now);
        self.advance(now, &mut || text.clone());
    }

    fn advance(&mut self, now: Instant, text: &mut dyn FnMut() -> String) {
        self.connections.retain_mut(|connection| {
            connection.advance(text);
            connection.until > now && !matches!(connection.phase, Phase::Over)
        });
    }

    fn let_in(&mut self, now: Instant) {
        while self.connections.len() < MOST && self.paused.is_none() {
            match self.listener.accept() {
                // One that would have to be waited for is not served at all.
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    self.connections.push(Connection {
                        stream,
                        until: now + PATIENCE,
                        phase: Phase::Asking(Vec::new()),
                    });
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It has gone again.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    log::warn!("cannot serve metrics for the moment: {error}");
                    self.paused = Some(now + PAUSE);
                }
            }
        }
    }
}

impl Connection {
    /// Goes on as far as it can without waiting.
    fn advance(&mut self, text: &mut dyn FnMut() -> String) {
        if let Phase::Asking(arrived) = &mut self.phase {
            match read(&mut self.stream, http::LONGEST - arrived.len()) {
                Ok(piece) if piece.is_empty() => self.phase = Phase::Over,
                Ok(piece) => {
                    arrived.extend(piece);
                    if let Some(answer) = http::answer(arrived) {
                        self.phase = Phase::Answering(answer.bytes(text));
                    }
                }
                Err(error) => self.passing(&error),
            }
        }
        while let Phase::Answering(rest) = &mut self.phase {
            match self.stream.write(rest) {
                Ok(0) => self.phase = Phase::Over,
                Ok(count) => {
                    rest.drain(..count);
                    if rest.is_empty() {
                        self.phase = match self.stream.shutdown(Shutdown::Write) {
                            Ok(()) => Phase::Leaving,
                            Err(_) => Phase::Over,
                        };
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => self.passing(&error),
            }
        }
        if let Phase::Leaving = self.phase {
            match read(&mut self.stream, PIECE) {
                Ok(piece) if piece.is_empty() => self.phase = Phase::Over,
                Ok(_) => {}
                Err(error) => self.passing(&error),
            }
        }
    }

    /// An error ends it, unless it only says that there is nothing to do now.
    fn passing(&mut self, error: &io::Error) {
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            self.phase = Phase::Over;
        }
    }
}

/// Reads what is there, `most` bytes of it at most; nothing at the end.
fn read(stream: &mut TcpStream, most: usize) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; most.min(PIECE)];
    let count = stream.read(&mut piece)?;
    piece.truncate(count);
    Ok(piece)
}

#[cfg(test)]
mod tests;
