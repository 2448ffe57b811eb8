//! The common shapes of a query as a form shows them: conditions one below the other that are joined by one word, or one
//! value of events.
//!
//! [`Form::read`] takes a form from the syntax tree of a text and [`Form::text`] writes it, so that what a form shows and
//! what its text says are never two opinions. What is read is all that the text says: a text with anything else in it, a
//! comment among it, is no form.

use crate::domain::Value;

use super::Limits;
use super::ast::{Argument, ArgumentValue, Call, Expr, ExprKind};
use super::error::Errors;
use super::{lexer, parser};

const DAY_MS: i64 = 86_400_000;
/// Digits that every client keeps: numbers of JSON are often read as `f64`.
const DIGITS_MAX: u64 = 1_000_000_000_000_000;
/// Powers of ten of such numbers.
const EXPONENT_MAX: i32 = 20;
/// What can be made of a property of events, and of events themselves.
const REDUCERS: [&str; 9] = ["count", "sum", "avg", "min", "max", "first", "last", "unique", "mode"];

/// What a form shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A condition, or some of them.
    Conditions(Join, Vec<FormCondition>),
    /// A value of events.
    Value {
        /// Which.
        event: String,
        /// What is made of them, `count` or `sum`.
        reducer: &'static str,
        /// Of which property; nothing for a count.
        property: Option<String>,
        /// Within how many days.
        days: Option<u32>,
    },
}

/// What stands between conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// All of them. A single condition has this one.
    And,
    /// Any of them.
    Or,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormCondition {
    /// How often there was an event.
    Event {
        /// Which.
        event: String,
        /// Compared how.
        comparison: Comparison,
        /// With how many.
        times: u32,
        /// Within how many days.
        days: Option<u32>,
    },
    /// What a trait is.
    Trait {
        /// Its name.
        name: String,
        /// What is asked of it.
        test: Test,
    },
    /// Whether one is in an audience.
    Audience {
        /// Its key.
        key: String,
        /// Or out of it.
        is_in: bool,
    },
}

/// What is asked of a trait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// How it compares with a string, a number, true or false.
    Compare(Comparison, Value),
    /// That it contains a text.
    Contains(String),
    /// That it is there.
    Exists,
    /// That it is not.
    Absent,
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    Differs,
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
    /// `>`
    MoreThan,
    /// `<`
    LessThan,
}

impl Comparison {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Equal, Self::Differs, Self::AtLeast, Self::AtMost, Self::MoreThan, Self::LessThan];

    /// As it is written.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Differs => "!=",
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
            Self::MoreThan => ">",
            Self::LessThan => "<",
        }
    }

    /// The one that is written so.
    pub fn from_symbol(symbol: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|comparison| comparison.symbol() == symbol)
    }
}

impl Form {
    /// The reducer of that name.
    pub fn reducer(name: &str) -> Option<&'static str> {
        REDUCERS.into_iter().find(|known| *known == name)
    }

    /// What a query says that is right, if a form can show all of it.
    pub fn read(text: &str, limits: Limits) -> Option<Self> {
        let mut errors = Errors::default();
        let (tokens, comments) = lexer::tokens_and_comments(text, &mut errors);
        let tree = parser::parse(tokens, limits, &mut errors);
        if !comments.is_empty() || !errors.is_empty() {
            return None;
        }
        let tree = bare(&tree);
        let (join, operands) = match &tree.kind {
            ExprKind::And(operands) => (Join::And, operands.as_slice()),
            ExprKind::Or(operands) => (Join::Or, operands.as_slice()),
            _ => (Join::And, std::slice::from_ref(tree)),
        };
        let conditions: Option<Vec<_>> = operands.iter().map(FormCondition::read).collect();
        conditions.map(|conditions| Self::Conditions(join, conditions)).or_else(|| value(tree))
    }

    /// The query that says what the form shows, not yet laid out.
    pub fn text(&self) -> String {
        match self {
            Self::Conditions(join, conditions) => {
                let word = if *join == Join::And { " AND " } else { " OR " };
                conditions.iter().map(FormCondition::text).collect::<Vec<_>>().join(word)
            }
            Self::Value { event, reducer, property, days } => {
                let property = property.as_deref().map(|name| format!("property({})", quoted(name)));
                format!("{}.{reducer}({})", events(event, *days), property.unwrap_or_default())
            }
        }
    }
}

impl FormCondition {
    fn read(expr: &Expr) -> Option<Self> {
        match &bare(expr).kind {
            ExprKind::Comparison(left, symbol, right) => {
                let symbol = if symbol.text == "==" { "=" } else { symbol.text.as_str() };
                let comparison = Comparison::from_symbol(symbol)?;
                let (left, right) = (bare(left), literal(bare(right))?);
                if let Some(name) = named(left, "trait") {
                    return Some(Self::Trait { name, test: Test::Compare(comparison, right.clone()) });
                }
                let (event, days, rest) = stream(left)?;
                let is_count = matches!(rest.as_slice(), [] | [Call { .. }])
                    && rest.iter().all(|call| call.name.text == "count" && call.arguments.is_empty());
                let times = right.text().parse().ok().filter(|_| matches!(right, Value::Number(_)))?;
                is_count.then_some(Self::Event { event, comparison, times, days })
            }
            ExprKind::Method(base, call) => {
                let name = named(bare(base), "trait")?;
                let test = match (call.name.text.as_str(), call.arguments.as_slice()) {
                    ("exists", []) => Test::Exists,
                    ("absent", []) => Test::Absent,
                    ("contains", [argument]) => Test::Contains(string(argument)?),
                    _ => return None,
                };
                Some(Self::Trait { name, test })
            }
            ExprKind::Not(inner) => {
                Some(Self::Audience { key: named(bare(inner), "audience")?, is_in: false })
            }
            _ => Some(Self::Audience { key: named(bare(expr), "audience")?, is_in: true }),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Event { event, comparison, times, days } => {
                format!("{}.count() {} {times}", events(event, *days), comparison.symbol())
            }
            Self::Trait { name, test } => {
                let of = format!("trait({})", quoted(name));
                match test {
                    Test::Compare(comparison, Value::String(text)) => {
                        format!("{of} {} {}", comparison.symbol(), quoted(text))
                    }
                    Test::Compare(comparison, value) => {
                        format!("{of} {} {}", comparison.symbol(), value.text())
                    }
                    Test::Contains(text) => format!("{of}.contains({})", quoted(text)),
                    Test::Exists => format!("{of}.exists()"),
                    Test::Absent => format!("{of}.absent()"),
                }
            }
            Self::Audience { key, is_in } => {
                format!("{}audience({})", if *is_in { "" } else { "NOT " }, quoted(key))
            }
        }
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn events(event: &str, days: Option<u32>) -> String {
    let within = days.map(|days| format!(".within({days} {})", if days == 1 { "day" } else { "days" }));
    format!("event({}){}", quoted(event), within.unwrap_or_default())
}

/// The expression inside of its parentheses.
fn bare(mut expr: &Expr) -> &Expr {
    while let ExprKind::Group(inner) = &expr.kind {
        expr = inner;
    }
    expr
}

/// A value that stands in a field and comes out of it as it went in: no field of a form has several lines.
fn literal(expr: &Expr) -> Option<&Value> {
    let ExprKind::Literal(value) = &expr.kind else { return None };
    let is_shown = match value {
        Value::String(text) => !text.contains(char::is_control),
        Value::Number(number) => {
            number.mantissa().unsigned_abs() < u128::from(DIGITS_MAX)
                && number.exponent().abs() <= EXPONENT_MAX
        }
        Value::Bool(_) => true,
        Value::Null | Value::Json(_) => false,
    };
    is_shown.then_some(value)
}

fn string(argument: &Argument) -> Option<String> {
    let Argument { label: None, cast: None, value: ArgumentValue::Expr(expr), .. } = argument else {
        return None;
    };
    match literal(expr)? {
        Value::String(text) => Some(text.to_string()),
        _ => None,
    }
}

/// The name in `function('name')`.
fn named(expr: &Expr, function: &str) -> Option<String> {
    let ExprKind::Call(call) = &expr.kind else { return None };
    let [argument] = call.arguments.as_slice() else { return None };
    string(argument).filter(|_| call.name.text == function)
}

/// `event('name').within(n days)` and the calls that follow it.
fn stream(expr: &Expr) -> Option<(String, Option<u32>, Vec<&Call>)> {
    let (mut base, mut calls) = (bare(expr), Vec::new());
    while let ExprKind::Method(inner, call) = &base.kind {
        calls.push(call);
        base = inner;
    }
    let event = named(base, "event")?;
    let mut days = None;
    if let Some(within) = calls.pop_if(|call| call.name.text == "within") {
        let [Argument { label: None, cast: None, value: ArgumentValue::Duration(length), .. }] =
            within.arguments.as_slice()
        else {
            return None;
        };
        days = Some(u32::try_from(length / DAY_MS).ok().filter(|_| length % DAY_MS == 0)?);
    }
    calls.reverse();
    Some((event, days, calls))
}

/// A value of events.
fn value(expr: &Expr) -> Option<Form> {
    let (event, days, calls) = stream(expr)?;
    let [call] = calls.as_slice() else { return None };
    let reducer = Form::reducer(&call.name.text)?;
    let property = match (reducer, call.arguments.as_slice()) {
        ("count", []) => None,
        ("count", _) => return None,
        (_, [Argument { label: None, cast: None, value: ArgumentValue::Expr(field), .. }]) => {
            Some(named(field, "property")?)
        }
        _ => return None,
    };
    Some(Form::Value { event, reducer, property, days })
}

#[cfg(test)]
mod tests;
