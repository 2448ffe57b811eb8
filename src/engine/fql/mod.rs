//! FQL, Segment's filter language for destinations (personas.md 7.8): text → tokens → tree → true or false for an event.
//!
//! [`Fql::parse`] is the only door: a text outside of the language is refused with its place and what would be right, so
//! that a filter that was saved can be evaluated. It fails closed: an event for which a filter makes no sense (it counts
//! the letters of a number) is not matched, as Segment has it.
//!
//! ```text
//! or         := and ('or' and)*
//! and        := unary ('and' unary)*
//! unary      := '!' unary | comparison
//! comparison := value [('=' | '!=' | '>' | '>=' | '<' | '<=' | 'in') value]
//! value      := literal | list | path | function '(' or (',' or)* ')' | '(' or ')'
//! list       := '[' [literal (',' literal)*] ']'
//! ```
//!
//! Absent fields are null. Beside what Segment documents, `null` counts as false for `!`, is not ordered and in no list.

mod ast;
mod error;
mod evaluate;
mod functions;
mod glob;
mod lexer;
mod parser;

use std::fmt;

use serde_json::Value;

pub use error::FqlError;

/// Longest text of a filter, in bytes (personas.md 7.8).
pub const BYTES_MAX: usize = 5 * 1024;

/// A filter that can be evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct Fql {
    tree: ast::Expr,
}

impl Fql {
    /// Reads a filter, or says what is wrong with it first.
    pub fn parse(text: &str) -> Result<Self, FqlError> {
        Ok(Self { tree: parser::parse(text)? })
    }

    /// Whether an event is let through. False also where the filter makes no sense for it.
    pub fn matches(&self, event: &Value) -> bool {
        evaluate::condition(&self.tree, event).unwrap_or(false)
    }
}

impl fmt::Display for Fql {
    /// The canonical text: it reads back as the same filter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tree.fmt(f)
    }
}

#[cfg(test)]
mod tests;
