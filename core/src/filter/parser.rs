//! Puts words together: tokens → [`Expr`].
//!
//! This exists to follow the grammar of libpcap (grammar.y): a primitive is qualifiers and an
//! operand, and an operand alone takes the qualifiers left of it, which travel as a [`InheritedQualifier`]. How
//! a value is written is `operand`'s business. Recursion is bounded by [`MAX_DEPTH`].

use super::error::FilterError;
use super::lexer::{Key, Kind, Token};
use super::operand;
use super::operand::{OperandError, Shape, Suffix, is_address};
use super::tree::{Expr, MAX_DEPTH, Primitive, Side};

use cursor::{Head, Parser, Subtree, span};
use errors::{proto_without_ether, too_deep};
use qualifier::{AddressWord, Family, InheritedQualifier, Qualifier, Range, of_family};

mod cursor;
mod errors;
mod primitives;
mod qualifier;

/// Reads a whole expression.
pub(super) fn parse(text: &str) -> Result<Expr, FilterError> {
    let mut parser = Parser::new(text);
    let first = parser.peek();
    if first.kind == Kind::End {
        let complaint = OperandError::new("the filter expression is empty");
        return Err(parser.fault(
            first,
            complaint.hint("leave the key out to mirror every frame"),
        ));
    }
    let (piece, _) = parser.expression(InheritedQualifier::Start)?;
    let end = parser.peek();
    match end.kind {
        Kind::End => Ok(piece.expr),
        Kind::Close => {
            Err(parser.fault(end, OperandError::new("this parenthesis was never opened")))
        }
        _ => Err(parser.not_joined(end, "`and` or `or`")),
    }
}

type Parsed = Result<(Subtree, InheritedQualifier), FilterError>;

impl<'a> Parser<'a> {
    /// `unit { (and | or) unit }`, from left to right.
    fn expression(&mut self, carry: InheritedQualifier) -> Parsed {
        let (mut left, mut carry) = self.unit(carry)?;
        loop {
            let operator = self.peek();
            if !matches!(operator.kind, Kind::And | Kind::Or) {
                return Ok((left, carry));
            }
            self.next += 1;
            let (right, after) = self.unit(carry)?;
            left = join(left, operator.kind, right);
            carry = after;
            if left.height > MAX_DEPTH {
                return Err(self.fault(operator, too_deep()));
            }
        }
    }

    /// `not unit`, `( expression )`, an operand, or qualifiers and their operand.
    fn unit(&mut self, carry: InheritedQualifier) -> Parsed {
        let token = self.take();
        match token.kind {
            Kind::Not => {
                self.enter(token)?;
                let (piece, carry) = self.unit(carry)?;
                self.depth -= 1;
                let piece = negate(piece);
                if piece.height > MAX_DEPTH {
                    return Err(self.fault(token, too_deep()));
                }
                Ok((piece, carry))
            }
            Kind::Open => {
                self.enter(token)?;
                let (piece, _) = self.expression(carry)?;
                self.depth -= 1;
                self.close(token)?;
                Ok((piece, carry))
            }
            Kind::Text | Kind::Escaped => self.bare(token, carry),
            Kind::Key(key) if !matches!(carry, InheritedQualifier::Given(_)) => {
                self.primitive(token, key)
            }
            _ => Err(self.unexpected(token, carry)),
        }
    }

    fn enter(&mut self, token: Token) -> Result<(), FilterError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fault(token, too_deep()));
        }
        Ok(())
    }

    /// A primitive that begins with a word of the language, already taken.
    fn primitive(&mut self, token: Token, key: Key) -> Parsed {
        let head = match key {
            Key::Vlan => self.vlan(token),
            Key::Broadcast => self.plain(token, Primitive::Broadcast),
            Key::Multicast => self.plain(token, Primitive::Multicast),
            Key::Ether => self.ether(token),
            Key::Protocol(protocol) => self.protocol(token, protocol),
            Key::Src | Key::Dst | Key::Host | Key::Net | Key::Port | Key::PortRange => {
                self.next -= 1;
                self.qualified(None)
            }
            Key::Proto => Err(self.fault(token, proto_without_ether())),
            Key::Mask => Err(self.fault(
                token,
                OperandError::new("`mask` goes with `net` only")
                    .hint("such as `net 10.0.0.0 mask 255.0.0.0`"),
            )),
        }?;
        match head {
            Head::Whole(piece, carry) => Ok((piece, carry)),
            // An operand, or several in parentheses.
            Head::Qualifier(qualifier) => {
                let (piece, _) = self.unit(InheritedQualifier::Given(qualifier))?;
                Ok((piece, InheritedQualifier::Earlier(qualifier)))
            }
        }
    }

    /// An operand that takes the qualifiers left of it.
    fn bare(&mut self, token: Token, carry: InheritedQualifier) -> Parsed {
        match carry {
            InheritedQualifier::Given(qualifier) | InheritedQualifier::Earlier(qualifier) => {
                let primitive = self.operand(token, qualifier)?;
                Ok((self.test(token, primitive)?, carry))
            }
            InheritedQualifier::Start
                if is_address(self.word(token)) && self.peek().kind != Kind::Slash =>
            {
                let qualifier = Qualifier::Address {
                    family: Family::Any,
                    side: Side::Either,
                    word: AddressWord::Host,
                };
                let primitive = self.operand(token, qualifier)?;
                Ok((
                    self.test(token, primitive)?,
                    InheritedQualifier::Earlier(qualifier),
                ))
            }
            InheritedQualifier::Start | InheritedQualifier::Nothing | InheritedQualifier::Vlan => {
                Err(self.fault(token, self.unqualified(token, carry)))
            }
        }
    }

    /// Reads an operand, already taken, and what belongs to it.
    fn operand(&mut self, token: Token, qualifier: Qualifier) -> Result<Primitive, FilterError> {
        let word = self.word(token);
        let primitive = match qualifier {
            Qualifier::Address { family, side, word } => {
                return self.address(token, family, side, word);
            }
            Qualifier::Port {
                transport,
                side,
                range,
            } => match range {
                Range::Port => operand::port(word),
                Range::PortRange => operand::port_range(word),
            }
            .map(|ports| Primitive::Port {
                transport,
                side,
                ports,
            }),
            Qualifier::EtherHost { side } => {
                operand::ether_host(word).map(|address| Primitive::EtherHost { side, address })
            }
            Qualifier::EtherType => operand::ether_type(word).map(Primitive::EtherType),
        };
        primitive.map_err(|complaint| self.fault(token, complaint))
    }

    /// An address or a network with what follows it: `/N` or `mask M`.
    fn address(
        &mut self,
        token: Token,
        family: Family,
        side: Side,
        address_word: AddressWord,
    ) -> Result<Primitive, FilterError> {
        let word = self.word(token);
        let (suffix, end) = self.suffix()?;
        let whole = end.map_or(token, |end| span(token, end));
        let network = if address_word == AddressWord::Net {
            operand::net(word, suffix)
        } else if end.is_some() {
            let complaint = OperandError::new("only a network can have a mask");
            Err(complaint.hint(format!("write `{}net {}`", side.prefix(), self.word(whole))))
        } else {
            operand::host(word).map_err(|complaint| {
                let number = operand::shape(word) == Shape::Number;
                if number && address_word == AddressWord::Missing {
                    complaint.hint(format!("did you mean `{}port {word}`?", side.prefix()))
                } else {
                    complaint
                }
            })
        };
        network
            .and_then(|network| of_family(network, family, side))
            .map_err(|complaint| self.fault(whole, complaint))
    }

    /// `/N` or `mask M`, if it is there, and its last token.
    fn suffix(&mut self) -> Result<(Suffix<'a>, Option<Token>), FilterError> {
        let (expected, after) = match self.peek().kind {
            Kind::Slash => ("the length of a prefix", "/"),
            Kind::Key(Key::Mask) => ("a mask such as `255.255.255.0`", "mask"),
            _ => return Ok((Suffix::None, None)),
        };
        self.next += 1;
        let token = self.take();
        let word = self.word(token);
        let shape = (token.kind == Kind::Text).then(|| operand::shape(word));
        match (after, shape) {
            ("/", Some(Shape::Number)) => Ok((Suffix::Length(word), Some(token))),
            ("mask", Some(Shape::Dotted)) => Ok((Suffix::Mask(word), Some(token))),
            _ => {
                let complaint = self.expected(expected, after, token);
                Err(self.fault(token, complaint))
            }
        }
    }
}

fn join(left: Subtree, operator: Kind, right: Subtree) -> Subtree {
    let and = operator == Kind::And;
    let members = |piece: &Subtree| match piece.expr {
        Expr::All(_) if and => piece.height,
        Expr::Any(_) if !and => piece.height,
        _ => piece.height + 1,
    };
    let height = members(&left).max(members(&right));
    let expr = if and {
        left.expr.and(right.expr)
    } else {
        left.expr.or(right.expr)
    };
    Subtree { expr, height }
}

fn negate(piece: Subtree) -> Subtree {
    let height = match piece.expr {
        Expr::Not(_) => piece.height.saturating_sub(1),
        _ => piece.height + 1,
    };
    Subtree {
        expr: piece.expr.negate(),
        height,
    }
}
