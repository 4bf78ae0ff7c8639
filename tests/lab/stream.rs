//! TCP between two guests that have network stacks: known bytes both ways at once, checked at both ends.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::node::Node;
use super::run::PATIENCE;

/// A TCP connection that was.
pub struct Stream {
    /// The end that opened it.
    pub client: SocketAddrV4,
    /// The other end.
    pub server: SocketAddrV4,
    /// What the client sent, and the server got.
    pub there: Vec<u8>,
    /// What the server sent, and the client got.
    pub back: Vec<u8>,
}

impl Node {
    /// Sends `len` bytes from NIC `from` to NIC `to` and as many back, at the same time, and returns when all have
    /// arrived.
    ///
    /// # Panics
    /// If nothing moves for [`PATIENCE`], or other bytes arrive than were sent.
    #[track_caller]
    pub fn stream(&self, from: &str, to: &str, len: usize) -> Stream {
        let (client, server) = self
            .connect(from, to, PATIENCE)
            .unwrap_or_else(|why| panic!("no connection from {from} to {to}: {why}"));
        let (there, back) = (pseudo_random(1, len), pseudo_random(2, len));
        let (at_server, at_client) = thread::scope(|scope| {
            scope.spawn(|| send(&client, &there));
            scope.spawn(|| send(&server, &back));
            let at_server = scope.spawn(|| receive(&server));
            (at_server.join(), receive(&client))
        });
        let at_server = at_server.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Not assert_eq!, which would print megabytes.
        assert!(at_server == there, "{to} did not get what {from} sent");
        assert!(at_client == back, "{from} did not get what {to} sent");
        Stream {
            client: ipv4(client.local_addr()),
            server: ipv4(server.local_addr()),
            there,
            back,
        }
    }

    /// Opens a TCP connection from NIC `from` to NIC `to`; returns both ends, or why there is none.
    #[track_caller]
    pub fn connect(
        &self,
        from: &str,
        to: &str,
        time: Duration,
    ) -> Result<(TcpStream, TcpStream), String> {
        let address = (self.ip_of(to), 0);
        // A socket stays in the namespace that it was made in.
        let listener = self.inside_guest(self.nic(to).vmid, || TcpListener::bind(address));
        let listener = listener.expect("the guest has its address");
        let server = listener.local_addr().expect("it is bound");
        let client = self.inside_guest(self.nic(from).vmid, || {
            TcpStream::connect_timeout(&server, time)
        });
        let client = client.map_err(|error| error.to_string())?;
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(time).expect("it is in range");
        if poll(&mut fds, timeout).expect("a listener can be polled") == 0 {
            return Err("the server does not see it".to_owned());
        }
        let (server, _) = listener.accept().map_err(|error| error.to_string())?;
        for end in [&client, &server] {
            end.set_read_timeout(Some(time)).expect("it is not zero");
            end.set_write_timeout(Some(time)).expect("it is not zero");
        }
        Ok((client, server))
    }
}

fn send(mut socket: &TcpStream, bytes: &[u8]) {
    if let Err(error) = socket.write_all(bytes) {
        panic!("cannot send a stream: {error}");
    }
    // It fails if the other end has gone, which its own thread says.
    let _ = socket.shutdown(Shutdown::Write);
}

fn receive(mut socket: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = socket.read_to_end(&mut bytes) {
        panic!("a stream ends after {} bytes: {error}", bytes.len());
    }
    bytes
}

fn ipv4(address: std::io::Result<SocketAddr>) -> SocketAddrV4 {
    match address {
        Ok(SocketAddr::V4(address)) => address,
        other => panic!("not an IPv4 address: {other:?}"),
    }
}

/// Bytes that look like nothing else, the same for the same seed (splitmix64).
fn pseudo_random(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend((word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
