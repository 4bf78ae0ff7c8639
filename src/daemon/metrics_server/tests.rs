use super::*;
use nix::poll::{PollFd, PollTimeout, poll};

/// A server on a port of the kernel's choice.
fn server() -> MetricsServer {
    MetricsServer::open("0".parse().unwrap()).unwrap()
}

fn client(server: &MetricsServer) -> TcpStream {
    let stream = TcpStream::connect(server.address().unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Waits until something is ready, at most as long as a test may take.
fn wait(server: &MetricsServer) {
    let mut fds: Vec<PollFd<'_>> = server
        .fds()
        .map(|(fd, flags)| PollFd::new(fd, flags))
        .collect();
    let patience = PollTimeout::try_from(20_000).unwrap();
    assert!(poll(&mut fds, patience).unwrap() > 0, "nothing is ready");
}

/// Lets the server work until `done`.
fn serve_until(
    server: &mut MetricsServer,
    text: &str,
    mut done: impl FnMut(&MetricsServer) -> bool,
) {
    while !done(server) {
        wait(server);
        server.serve(|| text.to_owned());
    }
}

/// Reads what has arrived; tells whether that is all there will be.
fn read_on(client: &mut TcpStream, answer: &mut Vec<u8>) -> bool {
    match client.read_to_end(answer) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

fn answer(server: &mut MetricsServer, mut client: TcpStream, text: &str) -> String {
    let mut answer = Vec::new();
    serve_until(server, text, |_| read_on(&mut client, &mut answer));
    String::from_utf8(answer).unwrap()
}

fn ask(server: &mut MetricsServer, request: &[u8], text: &str) -> String {
    let mut client = client(server);
    client.write_all(request).unwrap();
    answer(server, client, text)
}

const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: pve1\r\nUser-Agent: Prometheus\r\n\r\n";

#[test]
fn an_address_is_a_port_or_an_address_with_a_port() {
    let of = |text: &str| {
        text.parse()
            .map(|ListenAddress(address)| address.to_string())
    };
    assert_eq!(of("9650"), Ok("127.0.0.1:9650".into()));
    assert_eq!(of("192.0.2.1:9650"), Ok("192.0.2.1:9650".into()));
    assert_eq!(of("[::1]:9650"), Ok("[::1]:9650".into()));
    assert_eq!(
        of("pve1"),
        Err("expected a port (9650) or an address with a port (192.0.2.1:9650, [::1]:9650)".into())
    );
}

#[test]
fn a_scrape_gets_the_metrics() {
    let mut server = server();
    let told = ask(&mut server, SCRAPE, "pve_span_up 1\n");
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
    assert!(told.ends_with("\r\n\r\npve_span_up 1\n"), "{told}");
    let told = ask(&mut server, b"GET / HTTP/1.1\r\n\r\n", "");
    assert!(told.ends_with("\r\n\r\npve-span's metrics are at /metrics\n"));
    // The clients have gone, and the server notices.
    serve_until(&mut server, "", |server| server.connections.is_empty());
    assert_eq!(server.next_timeout(), None);
}

#[test]
fn metrics_are_made_only_when_they_are_asked_for() {
    let mut server = server();
    let mut client = client(&server);
    client.write_all(b"GET /other HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !read_on(&mut client, &mut answer) {
        wait(&server);
        server.serve(|| panic!("nobody has asked"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 404 Not Found\r\n"));
}

#[test]
fn a_request_may_come_in_pieces() {
    let mut server = server();
    let mut client = client(&server);
    for byte in SCRAPE {
        client.write_all(&[*byte]).unwrap();
        wait(&server);
        server.serve(|| "pve_span_up 1\n".into());
    }
    assert!(answer(&mut server, client, "pve_span_up 1\n").ends_with("pve_span_up 1\n"));
}

#[test]
fn an_answer_that_the_client_is_slow_to_read_arrives_whole() {
    let mut server = server();
    let text = "x".repeat(32 << 20);
    let mut client = client(&server);
    client.write_all(SCRAPE).unwrap();
    let is_stuck = |server: &MetricsServer| matches!(&server.connections[..], [one] if matches!(one.phase, Phase::Answering(_)));
    serve_until(&mut server, &text, is_stuck);
    let told = answer(&mut server, client, &text);
    assert_eq!(told.len(), told.find("\r\n\r\n").unwrap() + 4 + text.len());
}

#[test]
fn hostile_requests_are_refused_and_the_refusal_can_be_read() {
    let mut server = server();
    // More than is read of it: closing at once would take the answer away again.
    let huge = [SCRAPE.trim_ascii_end(), b"\r\nX: ", &[b'x'; 60_000]].concat();
    let told = ask(&mut server, &huge, "");
    assert!(told.starts_with("HTTP/1.1 431 "), "{told}");
    let told = ask(&mut server, b"\x16\x03\x01\x02\x00\x01\x00\x01", "");
    assert!(told.starts_with("HTTP/1.1 400 "), "{told}");
    let with_body = [b"POST /metrics HTTP/1.1\r\n\r\n", &[b'x'; 30_000][..]].concat();
    let told = ask(&mut server, &with_body, "");
    assert!(told.starts_with("HTTP/1.1 405 "), "{told}");
}

#[test]
fn who_asks_too_slowly_or_never_leaves_is_shown_out() {
    let mut server = server();
    let mut loris = client(&server);
    loris.write_all(b"GET /met").unwrap();
    let mut stays = client(&server);
    stays.write_all(SCRAPE).unwrap();
    let is_served = |server: &MetricsServer| {
        let left = |one: &Connection| matches!(one.phase, Phase::Leaving);
        server.connections.len() == 2 && server.connections.iter().any(left)
    };
    serve_until(&mut server, "", is_served);
    let last = server.connections.iter().map(|one| one.until).max();
    let end = server.next_timeout().unwrap();
    server.serve_at(end, || unreachable!());
    server.serve_at(last.unwrap(), || unreachable!());
    assert!(server.connections.is_empty());
    let mut rest = [0];
    loris.set_nonblocking(false).unwrap();
    assert!(matches!(loris.read(&mut rest), Ok(0) | Err(_)));
}

#[test]
fn more_clients_than_there_is_room_for_wait_their_turn() {
    let mut server = server();
    let mut slow: Vec<TcpStream> = (0..MOST).map(|_| client(&server)).collect();
    serve_until(&mut server, "", |server| server.connections.len() == MOST);
    assert_eq!(
        server.fds().count(),
        MOST,
        "the listener is not polled, or the loop would spin"
    );
    let mut next = client(&server);
    next.write_all(SCRAPE).unwrap();
    slow.pop();
    assert!(answer(&mut server, next, "pve_span_up 1\n").ends_with("pve_span_up 1\n"));
}

#[test]
fn who_leaves_early_is_forgotten() {
    let mut server = server();
    for begun in [&b""[..], b"GET /met", SCRAPE] {
        let mut client = client(&server);
        client.write_all(begun).unwrap();
        serve_until(&mut server, "", |server| !server.connections.is_empty());
        // What was not read of the answer makes this a reset.
        drop(client);
        let text = "x".repeat(1 << 20);
        serve_until(&mut server, &text, |server| server.connections.is_empty());
    }
}

#[test]
fn after_an_error_of_the_kernel_the_listener_has_a_pause() {
    let mut server = server();
    let until = Instant::now() + PAUSE;
    server.paused = Some(until);
    assert_eq!(server.fds().count(), 0);
    assert_eq!(server.next_timeout(), Some(until));
    server.serve_at(until, String::new);
    assert_eq!(server.fds().count(), 1);
}
