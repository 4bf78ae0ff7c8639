//! Where the parser is in the text, and what each rule of the grammar needs: look at a token, take it, add a test to the
//! tree, complain.

use super::super::error::FilterError;
use super::super::lexer::{Kind, Token, tokens};
use super::super::operand::OperandError;
use super::super::tree::{Expr, MAX_PRIMITIVES, Primitive, Test};
use super::qualifier::{InheritedQualifier, Qualifier};

/// A part of the tree, and its height.
pub(super) struct Subtree {
    pub(super) expr: Expr,
    pub(super) height: usize,
}

/// How a primitive begins.
pub(super) enum Head {
    /// It takes no operand: this is all of it.
    Whole(Subtree, InheritedQualifier),
    /// An operand has to follow.
    Qualifier(Qualifier),
}

pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) tokens: Vec<Token>,
    pub(super) next: usize,
    pub(super) depth: usize,
    pub(super) primitives: usize,
    pub(super) tags: u8,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            tokens: tokens(text),
            next: 0,
            depth: 0,
            primitives: 0,
            tags: 0,
        }
    }

    /// A primitive that takes no operand.
    pub(super) fn plain(
        &mut self,
        token: Token,
        primitive: Primitive,
    ) -> Result<Head, FilterError> {
        Ok(Head::Whole(
            self.test(token, primitive)?,
            InheritedQualifier::Nothing,
        ))
    }

    pub(super) fn test(
        &mut self,
        token: Token,
        primitive: Primitive,
    ) -> Result<Subtree, FilterError> {
        self.primitives += 1;
        if self.primitives > MAX_PRIMITIVES {
            let complaint = format!("the filter has more than {MAX_PRIMITIVES} primitives");
            return Err(self.fault(token, OperandError::new(complaint)));
        }
        let test = Test {
            tags: self.tags,
            primitive,
        };
        Ok(Subtree {
            expr: Expr::Test(test),
            height: 0,
        })
    }

    /// The next token; at the end, the end again and again.
    pub(super) fn peek(&self) -> Token {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens
            .get(self.next.min(last))
            .copied()
            .unwrap_or(Token {
                kind: Kind::End,
                start: self.text.len(),
                end: self.text.len(),
            })
    }

    pub(super) fn take(&mut self) -> Token {
        let token = self.peek();
        self.next += 1;
        token
    }

    pub(super) fn word(&self, token: Token) -> &'a str {
        self.text.get(token.start..token.end).unwrap_or("")
    }

    pub(super) fn fault(&self, token: Token, complaint: OperandError) -> FilterError {
        FilterError {
            offset: token.start,
            width: (token.end - token.start).max(1),
            message: complaint.message,
            hint: complaint.hint,
        }
    }
}

/// From the first token to the last.
pub(super) fn span(first: Token, last: Token) -> Token {
    Token {
        end: last.end,
        ..first
    }
}
