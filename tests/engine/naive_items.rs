//! The naive evaluator's lists: elements of `$` and conditions on one item.

use crate::naive::{Naive, compare, dated};

/// `{"a": …, "d": …}`, each of them may be missing.
#[derive(Debug, Clone)]
pub(crate) struct RawItem {
    pub(crate) a: Option<Naive>,
    pub(crate) d: Option<i64>,
}

/// A condition on one item.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    And(Vec<Item>),
    Or(Vec<Item>),
    Not(Box<Item>),
    A(&'static str, Naive),
    /// Comparator, seconds.
    D(&'static str, i64),
}

/// The values at `tags.$`.
pub(crate) fn tag_values(tags: Option<&Vec<Naive>>) -> Vec<Naive> {
    tags.cloned().unwrap_or_default()
}

/// The values at `items.$.a`: null where an item has none.
pub(crate) fn item_values(items: &[RawItem]) -> Vec<Naive> {
    items.iter().map(|item| item.a.clone().unwrap_or(Naive::Null)).collect()
}

/// Whether any of the values does; without any, whether null does.
pub(crate) fn any_of(values: &[Naive], accept: impl Fn(&Naive) -> bool) -> bool {
    if values.is_empty() { accept(&Naive::Null) } else { values.iter().any(accept) }
}

pub(crate) fn is_any_dated(items: &[RawItem], op: &str, seconds: i64, now: i64) -> bool {
    items.iter().filter_map(|item| item.d).any(|date| dated(date, op, seconds, now))
}

impl Item {
    pub(crate) fn text(&self) -> String {
        let join = |parts: &[Self], junction: &str| {
            format!("({})", parts.iter().map(Self::text).collect::<Vec<_>>().join(junction))
        };
        match self {
            Self::And(parts) => join(parts, " AND "),
            Self::Or(parts) => join(parts, " OR "),
            Self::Not(part) => format!("NOT {}", part.text()),
            Self::A(op, literal) => compared("property('a')", op, literal),
            Self::D(op, seconds) => format!("property('d').{op}({seconds} seconds)"),
        }
    }

    pub(crate) fn holds(&self, item: &RawItem, now: i64) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(|part| part.holds(item, now)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(item, now)),
            Self::Not(part) => !part.holds(item, now),
            Self::A(op, literal) => compare(item.a.as_ref().unwrap_or(&Naive::Null), op, literal),
            Self::D(op, seconds) => item.d.is_some_and(|date| dated(date, op, *seconds, now)),
        }
    }
}

/// `left op literal`, with the operator as a symbol or as a method.
pub(crate) fn compared(left: &str, op: &str, literal: &Naive) -> String {
    match op {
        ".exists" | ".absent" => format!("{left}{op}()"),
        ".matches" => format!("{left}.matches('^[ab1]')"),
        ".one_of" | ".none_of" => format!("{left}{op}({}, 1)", literal.literal()),
        op if op.starts_with('.') => format!("{left}{op}({})", literal.literal()),
        op => format!("{left} {op} {}", literal.literal()),
    }
}
