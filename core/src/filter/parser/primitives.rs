//! The qualifiers in front of an operand.
//!
//! This exists to say which words go together, and to turn them into a [`Qualifier`] that cannot
//! hold others. The first word is already taken when one of these is called, unless it says so.

use super::super::error::FilterError;
use super::super::lexer::{Key, Kind, Token};
use super::super::operand;
use super::super::operand::{OperandError, Shape};
use super::super::tree::{MAX_TAGS, Primitive, Protocol, Side, Transport};
use super::cursor::{Head, Parser, span};
use super::errors::{VLAN_HINT, closest, proto_without_ether};
use super::qualifier::{AddressWord, Family, InheritedQualifier, Qualifier, Range};

impl Parser<'_> {
    /// `vlan [N]`; as in tcpdump, the number may stand in parentheses.
    pub(super) fn vlan(&mut self, token: Token) -> Result<Head, FilterError> {
        if self.tags == MAX_TAGS {
            let complaint =
                OperandError::new(format!("`vlan` stands here more than {MAX_TAGS} times"));
            return Err(self.fault(token, complaint.hint(VLAN_HINT)));
        }
        let start = self.next;
        while self.peek().kind == Kind::Open {
            self.next += 1;
        }
        let number = self.peek();
        let is_number =
            number.kind == Kind::Text && operand::shape(self.word(number)) == Shape::Number;
        let tag = if is_number {
            let opened = start..self.next;
            self.next += 1;
            for open in opened.rev() {
                let open = self.tokens.get(open).copied().unwrap_or(number);
                self.close(open)?;
            }
            let tag = operand::vlan(self.word(number));
            Some(tag.map_err(|complaint| self.fault(number, complaint))?)
        } else {
            self.next = start;
            None
        };
        let piece = self.test(token, Primitive::Vlan(tag))?;
        self.tags += 1;
        Ok(Head::Whole(piece, InheritedQualifier::Vlan))
    }

    pub(super) fn close(&mut self, open: Token) -> Result<(), FilterError> {
        let token = self.peek();
        match token.kind {
            Kind::Close => {
                self.next += 1;
                Ok(())
            }
            Kind::End => {
                Err(self.fault(open, OperandError::new("this parenthesis is never closed")))
            }
            _ => Err(self.not_joined(token, "`and`, `or` or `)`")),
        }
    }

    /// What begins with `ether`.
    pub(super) fn ether(&mut self, token: Token) -> Result<Head, FilterError> {
        let side = self.side()?;
        let word = self.peek();
        match (word.kind, side) {
            (Kind::Key(Key::Host), _) => self.next += 1,
            (Kind::Key(Key::Broadcast), None) => {
                self.next += 1;
                return self.plain(token, Primitive::Broadcast);
            }
            (Kind::Key(Key::Multicast), None) => {
                self.next += 1;
                return self.plain(token, Primitive::Multicast);
            }
            (Kind::Key(Key::Proto), None) => {
                self.next += 1;
                return Ok(Head::Qualifier(Qualifier::EtherType));
            }
            (Kind::Key(Key::Net | Key::Port | Key::PortRange), _)
            | (Kind::Key(Key::Broadcast | Key::Multicast | Key::Proto), Some(_)) => {
                return Err(self.mismatch(token, word));
            }
            (Kind::Text | Kind::Not | Kind::Open, Some(_)) => {}
            (Kind::Text, None) => {
                let expected = "`host`, `proto`, `src`, `dst`, `broadcast` or `multicast`";
                let complaint = self.expected(expected, "ether", word);
                let hint = match operand::shape(self.word(word)) {
                    Shape::Mac(mac) => Some(format!("did you mean `ether host {mac}`?")),
                    _ => closest(self.word(word)),
                };
                return Err(self.fault(word, OperandError { hint, ..complaint }));
            }
            _ => {
                let expected = if side.is_some() {
                    "`host`"
                } else {
                    "`host` or `proto`"
                };
                let complaint = self.expected(expected, "ether", word);
                return Err(self.fault(word, complaint));
            }
        }
        let side = side.unwrap_or(Side::Either);
        Ok(Head::Qualifier(Qualifier::EtherHost { side }))
    }

    /// What begins with the name of a protocol: a test for it, or a qualifier.
    pub(super) fn protocol(
        &mut self,
        token: Token,
        protocol: Protocol,
    ) -> Result<Head, FilterError> {
        let word = self.peek();
        let Kind::Key(key) = word.kind else {
            return self.plain(token, Primitive::Protocol(protocol));
        };
        match (protocol, key) {
            (_, Key::Src | Key::Dst | Key::Host | Key::Net | Key::Port | Key::PortRange) => {
                self.qualified(Some((token, protocol)))
            }
            (Protocol::Ip, Key::Multicast) => {
                self.next += 1;
                self.plain(token, Primitive::IpMulticast)
            }
            (Protocol::Ip6, Key::Multicast) => {
                self.next += 1;
                self.plain(token, Primitive::Ip6Multicast)
            }
            (Protocol::Ip, Key::Broadcast) => Err(self.fault(
                span(token, word),
                OperandError::new("`ip broadcast` needs a netmask, and a mirrored port has none")
                    .hint("write `broadcast`, or `dst host` and the broadcast address"),
            )),
            (_, Key::Broadcast | Key::Multicast) => Err(self.mismatch(token, word)),
            (_, Key::Proto) => Err(self.fault(word, proto_without_ether())),
            _ => self.plain(token, Primitive::Protocol(protocol)),
        }
    }

    /// `[src|dst|…] [host|net|port|portrange]`, of which something is there, and an operand.
    ///
    /// Of these, nothing is taken yet; only `protocol`, where there is one.
    pub(super) fn qualified(
        &mut self,
        protocol: Option<(Token, Protocol)>,
    ) -> Result<Head, FilterError> {
        let before = self.peek();
        let side = self.side()?.unwrap_or(Side::Either);
        let word = self.peek();
        let first = protocol.map_or(before, |(token, _)| token);
        let protocol = protocol.map(|(_, protocol)| protocol);
        let (address, range) = match word.kind {
            Kind::Key(Key::Host) => (AddressWord::Host, None),
            Kind::Key(Key::Net) => (AddressWord::Net, None),
            Kind::Key(Key::Port) => (AddressWord::Missing, Some(Range::Port)),
            Kind::Key(Key::PortRange) => (AddressWord::Missing, Some(Range::PortRange)),
            Kind::Key(Key::Broadcast | Key::Multicast) => return Err(self.mismatch(first, word)),
            _ => (AddressWord::Missing, None),
        };
        if range.is_some() || address != AddressWord::Missing {
            self.next += 1;
        }
        if let Some(range) = range {
            let transport = match protocol {
                None => None,
                Some(Protocol::Tcp) => Some(Transport::Tcp),
                Some(Protocol::Udp) => Some(Transport::Udp),
                Some(Protocol::Sctp) => Some(Transport::Sctp),
                Some(_) => return Err(self.mismatch(first, word)),
            };
            return Ok(Head::Qualifier(Qualifier::Port {
                transport,
                side,
                range,
            }));
        }
        let family = match protocol {
            None => Family::Any,
            Some(Protocol::Ip) => Family::Ip,
            Some(Protocol::Ip6) => Family::Ip6,
            Some(Protocol::Arp) => Family::Arp,
            Some(other) if address == AddressWord::Missing => {
                return Err(self.no_port_word(other, side, word));
            }
            Some(_) => return Err(self.mismatch(first, word)),
        };
        Ok(Head::Qualifier(Qualifier::Address {
            family,
            side,
            word: address,
        }))
    }

    /// `src`, `dst`, `src or dst`, `src and dst`, if there is one.
    fn side(&mut self) -> Result<Option<Side>, FilterError> {
        let first = self.peek();
        let (single, other) = match first.kind {
            Kind::Key(Key::Src) => (Side::Source, Key::Dst),
            Kind::Key(Key::Dst) => (Side::Destination, Key::Src),
            _ => return Ok(None),
        };
        self.next += 1;
        let operator = self.peek();
        let double = match operator.kind {
            Kind::And => Side::Both,
            Kind::Or => Side::Either,
            _ => return Ok(Some(single)),
        };
        self.next += 1;
        let second = self.take();
        if second.kind == Kind::Key(other) {
            return Ok(Some(double));
        }
        let other = if other == Key::Dst { "dst" } else { "src" };
        let after = format!("{} {}", self.word(first), self.word(operator));
        let complaint = self.expected(&format!("`{other}`"), &after, second);
        Err(self.fault(second, complaint))
    }
}
