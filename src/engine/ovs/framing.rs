//! Where one JSON message ends and the next begins.
//!
//! OVSDB concatenates JSON objects without separator or length (RFC 7047 §4), and a read may bring
//! several of them or a part of one. This scanner looks at each byte once.

/// The most that one message may have, in bytes: far above any real database's contents, and a bound
/// on what a broken peer can make us keep.
const MOST: usize = 256 << 20;

/// Collects bytes and cuts them into messages.
#[derive(Debug, Default)]
pub struct Framing {
    bytes: Vec<u8>,
    /// How many of them have gone out as messages.
    taken: usize,
    scanned: usize,
    depth: usize,
    quoted: bool,
    escaped: bool,
}

/// The stream is not a sequence of JSON objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Something else than an object begins.
    #[error("expected a JSON object")]
    NotAnObject,
    /// The message does not end.
    #[error("a message of more than {MOST} bytes")]
    TooLong,
}

impl Framing {
    /// Takes what was received.
    pub fn push(&mut self, received: &[u8]) {
        // Not with each message: there may be thousands in what is there.
        self.bytes.drain(..self.taken);
        self.scanned -= self.taken;
        self.taken = 0;
        self.bytes.extend_from_slice(received);
    }

    /// Takes out the next whole message, if it has arrived.
    ///
    /// # Errors
    /// The stream is not a sequence of JSON objects; it cannot be used any longer.
    pub fn next_message(&mut self) -> Result<Option<Vec<u8>>, FramingError> {
        while let Some(&byte) = self.bytes.get(self.scanned) {
            self.scanned += 1;
            if self.escaped {
                self.escaped = false;
            } else if self.quoted {
                match byte {
                    b'\\' => self.escaped = true,
                    b'"' => self.quoted = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'{' => self.depth += 1,
                    b'}' if self.depth > 0 => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            return Ok(Some(self.take()));
                        }
                    }
                    b' ' | b'\t' | b'\r' | b'\n' => {}
                    _ if self.depth == 0 => return Err(FramingError::NotAnObject),
                    b'"' => self.quoted = true,
                    _ => {}
                }
            }
        }
        if self.bytes.len() - self.taken > MOST {
            Err(FramingError::TooLong)
        } else {
            Ok(None)
        }
    }

    /// What was scanned and not taken yet. A large message mostly comes alone, and is not copied.
    fn take(&mut self) -> Vec<u8> {
        if self.taken == 0 && self.scanned == self.bytes.len() {
            self.scanned = 0;
            return std::mem::take(&mut self.bytes);
        }
        let message = self.bytes.get(self.taken..self.scanned).map(<[u8]>::to_vec);
        self.taken = self.scanned;
        message.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(framing: &mut Framing) -> Vec<String> {
        std::iter::from_fn(|| framing.next_message().unwrap())
            .map(|message| String::from_utf8(message).unwrap().trim().to_owned())
            .collect()
    }

    #[test]
    fn several_messages_in_one_read() {
        let mut framing = Framing::default();
        framing.push(br#"{"id":1}{"id":{"a":"}\"{"}} {"id":3}{"#);
        assert_eq!(
            all(&mut framing),
            [r#"{"id":1}"#, r#"{"id":{"a":"}\"{"}}"#, r#"{"id":3}"#]
        );
    }

    #[test]
    fn messages_without_number_in_one_read() {
        let mut framing = Framing::default();
        framing.push("{}".repeat(500_000).as_bytes());
        framing.push(b"{\"id\":");
        assert_eq!(all(&mut framing), vec!["{}"; 500_000]);
        framing.push(b"1}");
        assert_eq!(all(&mut framing), [r#"{"id":1}"#]);
    }

    #[test]
    fn one_message_over_many_reads() {
        let mut framing = Framing::default();
        let message = r#"{"result":["}",{"x":"\\"}],"id":"ü"}"#;
        let mut found = Vec::new();
        for byte in message.bytes() {
            framing.push(&[byte]);
            found.extend(all(&mut framing));
        }
        assert_eq!(found, [message]);
    }

    #[test]
    fn anything_but_objects_is_refused() {
        for garbage in ["[1]", "x", "1", "\"a\"", "}"] {
            let mut framing = Framing::default();
            framing.push(garbage.as_bytes());
            assert_eq!(
                framing.next_message(),
                Err(FramingError::NotAnObject),
                "{garbage}"
            );
        }
    }
}
