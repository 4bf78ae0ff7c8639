//! As much of HTTP/1.1 (RFC 9112) as a scrape takes: one request a connection, whose body is not looked at.

use super::super::metrics::CONTENT_TYPE;

/// The longest request, header and all, in bytes.
pub(super) const LONGEST: usize = 8 * 1024;

/// What to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The metrics.
    Metrics(Part),
    /// Where they are.
    Pointer(Part),
    /// Why not.
    Refusal(Part, &'static str),
    /// Only GET and HEAD are answered.
    NotAllowed,
}

/// How much of an answer was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it (GET).
    Whole,
    /// Its header (HEAD).
    Header,
}

/// What to answer to what has arrived so far; nothing while that cannot be told yet.
pub(super) fn answer(arrived: &[u8]) -> Option<Answer> {
    let refusal = |status| Some(Answer::Refusal(Part::Whole, status));
    // What does not begin with a method is another protocol's (TLS), and may wait for an answer before it goes on.
    if arrived.first().is_some_and(|byte| !is_token(*byte)) {
        return refusal("400 Bad Request");
    }
    if !has_ended(arrived) {
        return if arrived.len() >= LONGEST {
            refusal("431 Request Header Fields Too Large")
        } else {
            None
        };
    }
    let line = arrived.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).unwrap_or_default();
    let words: Vec<&str> = line.trim_end_matches('\r').split(' ').collect();
    let [method, target, version] = words.as_slice() else {
        return refusal("400 Bad Request");
    };
    if !method.bytes().all(is_token) || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refusal("400 Bad Request");
    }
    if !matches!(*version, "HTTP/1.1" | "HTTP/1.0") {
        return refusal("505 HTTP Version Not Supported");
    }
    let part = match *method {
        "GET" => Part::Whole,
        "HEAD" => Part::Header,
        _ => return Some(Answer::NotAllowed),
    };
    Some(match path(target) {
        "/metrics" => Answer::Metrics(part),
        "/" => Answer::Pointer(part),
        _ => Answer::Refusal(part, "404 Not Found"),
    })
}

/// Is there the empty line that ends a header?
fn has_ended(arrived: &[u8]) -> bool {
    let ends = |end: &[u8]| arrived.windows(end.len()).any(|bytes| bytes == end);
    ends(b"\r\n\r\n") || ends(b"\n\n")
}

/// `tchar` (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The path that a target names, which may also stand there as a whole address (RFC 9112 §3.2.2).
fn path(target: &str) -> &str {
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    };
    path.split('?').next().unwrap_or_default()
}

impl Answer {
    /// The bytes to send.
    pub(super) fn bytes(self, metrics: impl FnOnce() -> String) -> Vec<u8> {
        let plain = "text/plain; charset=utf-8";
        let mut allow = "";
        let (part, status, kind, body) = match self {
            Self::Metrics(part) => (part, "200 OK", CONTENT_TYPE, metrics()),
            Self::Pointer(part) => (
                part,
                "200 OK",
                plain,
                "pve-span's metrics are at /metrics\n".to_owned(),
            ),
            Self::Refusal(part, status) => (part, status, plain, format!("{status}\n")),
            Self::NotAllowed => {
                allow = "Allow: GET, HEAD\r\n";
                let status = "405 Method Not Allowed";
                (Part::Whole, status, plain, format!("{status}\n"))
            }
        };
        let length = body.len();
        let header = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n"
        );
        match part {
            Part::Whole => header + &body,
            Part::Header => header,
        }
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(request: &str) -> Option<Answer> {
        answer(request.as_bytes())
    }

    fn refused(status: &'static str) -> Option<Answer> {
        Some(Answer::Refusal(Part::Whole, status))
    }

    #[test]
    fn a_scrape_is_understood_in_each_of_its_forms() {
        let whole = Some(Answer::Metrics(Part::Whole));
        assert_eq!(told("GET /metrics HTTP/1.1\r\nHost: pve1\r\n\r\n"), whole);
        assert_eq!(told("GET /metrics?name[]=x HTTP/1.0\n\n"), whole);
        assert_eq!(told("GET http://pve1/metrics HTTP/1.1\r\n\r\n"), whole);
        assert_eq!(
            told("HEAD /metrics HTTP/1.1\r\n\r\n"),
            Some(Answer::Metrics(Part::Header))
        );
        let pointer = Some(Answer::Pointer(Part::Whole));
        assert_eq!(told("GET / HTTP/1.1\r\n\r\n"), pointer);
        assert_eq!(told("GET http://pve1:9650 HTTP/1.1\r\n\r\n"), pointer);
    }

    #[test]
    fn a_part_of_a_request_waits_for_the_rest() {
        let request = "GET /metrics HTTP/1.1\r\nHost: pve1\r\n\r\n";
        for cut in 0..request.len() {
            assert_eq!(told(&request[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn what_is_no_scrape_is_refused_with_the_reason() {
        let not_found = |part| Some(Answer::Refusal(part, "404 Not Found"));
        assert_eq!(
            told("GET /metrics/ HTTP/1.1\r\n\r\n"),
            not_found(Part::Whole)
        );
        assert_eq!(
            told("HEAD /../etc/shadow HTTP/1.1\r\n\r\n"),
            not_found(Part::Header)
        );
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "get"] {
            let request = format!("{method} /metrics HTTP/1.1\r\n\r\n");
            assert_eq!(told(&request), Some(Answer::NotAllowed));
        }
        assert_eq!(
            told("GET /metrics HTTP/2.0\r\n\r\n"),
            refused("505 HTTP Version Not Supported")
        );
        for garbage in [
            "GET /metrics\r\n\r\n",
            "GET  /metrics HTTP/1.1\r\n\r\n",
            "G\0T /metrics HTTP/1.1\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\n\r\n",
            "x\n\n",
        ] {
            assert_eq!(told(garbage), refused("400 Bad Request"), "{garbage:?}");
        }
        // A TLS greeting, which has no lines.
        assert_eq!(
            answer(b"\x16\x03\x01\x02\x00\x01"),
            refused("400 Bad Request")
        );
        assert_eq!(
            answer(&[b'a'; LONGEST]),
            refused("431 Request Header Fields Too Large")
        );
    }

    #[test]
    fn the_whole_answer() {
        let text = |request: &str| {
            let bytes = told(request).unwrap().bytes(|| "pve_span_up 1\n".into());
            String::from_utf8(bytes).unwrap()
        };
        let header = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
                      Content-Length: 14\r\nConnection: close\r\n\r\n";
        assert_eq!(text("HEAD /metrics HTTP/1.1\r\n\r\n"), header);
        assert_eq!(
            text("GET /metrics HTTP/1.1\r\n\r\n"),
            format!("{header}pve_span_up 1\n")
        );
        assert_eq!(
            text("POST /metrics HTTP/1.1\r\n\r\n"),
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 23\r\n\
             Allow: GET, HEAD\r\nConnection: close\r\n\r\n405 Method Not Allowed\n"
        );
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_answered_at_the_latest_when_they_are_too_many(mut bytes: Vec<u8>) {
            let _ = answer(&bytes);
            bytes.resize(LONGEST, b'x');
            prop_assert!(answer(&bytes).is_some());
        }
    }
}
