//! The shape of a filter, and its canonical text.

use std::fmt::{self, Display, Write};

use serde_json::Value;

use super::functions::Function;

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    /// `a or b or …`, at least two.
    Or(Vec<Expr>),
    /// `a and b and …`, at least two.
    And(Vec<Expr>),
    /// `!a`
    Not(Box<Expr>),
    /// `a = b` and the like.
    Comparison(Box<Expr>, Operator, Box<Expr>),
    /// `f(a, …)`
    Call(Function, Vec<Expr>),
    /// `context.library.name`: the keys that lead to a field, never empty.
    Path(Vec<String>),
    /// A string, number, boolean, null, or a list of these.
    Literal(Value),
}

/// What an expression is, as far as that can be told without an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// Only the event tells.
    Any,
    Null,
    Bool,
    Number,
    String,
    List,
}

impl Type {
    /// As errors name it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Any => "anything",
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::String => "a string",
            Self::List => "a list",
        }
    }
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    In,
}

/// Each operator as it is written.
pub(super) const OPERATORS: [(&str, Operator); 7] = [
    ("=", Operator::Equal),
    ("!=", Operator::NotEqual),
    (">", Operator::Greater),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    ("<=", Operator::LessOrEqual),
    ("in", Operator::In),
];

/// Words that are no field names unless they are escaped.
pub(super) const KEYWORDS: [&str; 6] = ["and", "or", "in", "true", "false", "null"];

impl Operator {
    fn as_str(self) -> &'static str {
        OPERATORS.iter().find(|(_, operator)| *operator == self).map_or("=", |(text, _)| text)
    }
}

impl Expr {
    /// What it is, as far as that is known.
    pub(super) fn type_of(&self) -> Type {
        match self {
            Self::Or(_) | Self::And(_) | Self::Not(_) | Self::Comparison(..) => Type::Bool,
            Self::Call(function, _) => function.returns(),
            Self::Path(_) => Type::Any,
            Self::Literal(value) => match value {
                Value::Null => Type::Null,
                Value::Bool(_) => Type::Bool,
                Value::Number(_) => Type::Number,
                Value::String(_) => Type::String,
                Value::Array(_) | Value::Object(_) => Type::List,
            },
        }
    }

    /// As an operand: in parentheses where it would be read otherwise without them.
    fn fmt_operand(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Or(_) | Self::And(_) | Self::Comparison(..) => write!(f, "({self})"),
            Self::Not(_) | Self::Call(..) | Self::Path(_) | Self::Literal(_) => self.fmt(f),
        }
    }

    /// As a side of a comparison, where `!` would take hold of the whole.
    fn fmt_side(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self, Self::Not(_)) { write!(f, "({self})") } else { self.fmt_operand(f) }
    }
}

fn fmt_junction(f: &mut fmt::Formatter<'_>, operands: &[Expr], word: &str) -> fmt::Result {
    for (place, operand) in operands.iter().enumerate() {
        if place > 0 {
            write!(f, " {word} ")?;
        }
        match operand {
            Expr::Comparison(..) => operand.fmt(f)?,
            _ => operand.fmt_operand(f)?,
        }
    }
    Ok(())
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Or(operands) => fmt_junction(f, operands, "or"),
            Self::And(operands) => fmt_junction(f, operands, "and"),
            Self::Not(operand) => {
                f.write_char('!')?;
                operand.fmt_operand(f)
            }
            Self::Comparison(left, operator, right) => {
                left.fmt_side(f)?;
                write!(f, " {} ", operator.as_str())?;
                right.fmt_side(f)
            }
            Self::Call(function, arguments) => {
                write!(f, "{}(", function.name())?;
                fmt_list(f, arguments)?;
                f.write_char(')')
            }
            Self::Path(keys) => fmt_path(f, keys),
            Self::Literal(value) => fmt_literal(f, value),
        }
    }
}

fn fmt_list(f: &mut fmt::Formatter<'_>, items: &[Expr]) -> fmt::Result {
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            f.write_str(", ")?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

/// Whether a character of a field name stands for itself.
pub(super) fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

fn fmt_path(f: &mut fmt::Formatter<'_>, keys: &[String]) -> fmt::Result {
    let is_keyword = matches!(keys, [key] if KEYWORDS.contains(&key.as_str()));
    for (place, key) in keys.iter().enumerate() {
        if place > 0 {
            f.write_char('.')?;
        }
        for (at, c) in key.chars().enumerate() {
            let starts_number = place == 0 && at == 0 && !c.is_alphabetic() && c != '_';
            let is_first_of_keyword = is_keyword && at == 0;
            if !is_plain(c) || starts_number || is_first_of_keyword {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
    }
    Ok(())
}

fn fmt_literal(f: &mut fmt::Formatter<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::String(text) => write!(f, "'{}'", text.replace('\\', r"\\").replace('\'', r"\'")),
        Value::Array(items) => {
            f.write_char('[')?;
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    f.write_str(", ")?;
                }
                fmt_literal(f, item)?;
            }
            f.write_char(']')
        }
        other => write!(f, "{other}"),
    }
}
