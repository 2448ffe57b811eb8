//! The shape of a query: calls, chains of calls, comparisons and junctions, each with its span.
//!
//! The grammar is small on purpose. It knows no function by name, so all of the language parses, also what this
//! version cannot do yet; [`super::lower`] gives the names their meaning.

use crate::domain::Value;

use super::error::Span;

/// An expression and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expr {
    pub(super) span: Span,
    pub(super) kind: ExprKind,
}

/// The kinds of expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ExprKind {
    /// `a AND b AND …`.
    And(Vec<Expr>),
    /// `a OR b OR …`.
    Or(Vec<Expr>),
    /// `NOT a`.
    Not(Box<Expr>),
    /// `ANY a`, `ALL a`: the keyword and its operand.
    Quantifier(Name, Box<Expr>),
    /// `a >= b`: the operands and the symbol.
    Comparison(Box<Expr>, Name, Box<Expr>),
    /// `a.f(…)`.
    Method(Box<Expr>, Call),
    /// `f(…)`.
    Call(Call),
    /// A number, string, date, boolean or null.
    Literal(Value),
    /// `(a)`.
    Group(Box<Expr>),
    /// Something that could not be read; its error is already told.
    Error,
}

/// A word, in lower case, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) span: Span,
}

/// `name(arguments)`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) name: Name,
    pub(super) arguments: Vec<Argument>,
    /// From the name to the closing parenthesis.
    pub(super) span: Span,
}

/// `label: value as cast`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Argument {
    pub(super) label: Option<Name>,
    pub(super) value: ArgumentValue,
    pub(super) cast: Option<Name>,
    pub(super) span: Span,
}

/// What is passed to a call.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ArgumentValue {
    /// Any expression.
    Expr(Expr),
    /// `7 days`, in milliseconds.
    Duration(i64),
    /// `[a, b]`.
    List(Vec<Expr>),
    /// Something that could not be read; its error is already told.
    Error,
}
