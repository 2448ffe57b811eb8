//! Conditions: what the comparators of the language mean (decisions A4, A5, A6, A9), and how AND, OR and NOT
//! join them. Used for the filters of events and for the conditions on profiles alike.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::domain::{Timestamp, Value};

/// AND, OR and NOT over conditions of one kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Logic<C> {
    /// Always true or always false.
    Constant(bool),
    /// All of them.
    And(Vec<Self>),
    /// At least one of them.
    Or(Vec<Self>),
    /// The opposite.
    Not(Box<Self>),
    /// One condition.
    Is(C),
}

impl<C> Logic<C> {
    /// The truth of the whole, given the truth of each condition.
    pub fn holds<'a>(&'a self, condition: &impl Fn(&'a C) -> bool) -> bool {
        match self {
            Self::Constant(value) => *value,
            Self::And(parts) => parts.iter().all(|part| part.holds(condition)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(condition)),
            Self::Not(part) => !part.holds(condition),
            Self::Is(this) => condition(this),
        }
    }

    /// Calls `visit` with each condition.
    pub fn for_each<'a>(&'a self, visit: &mut impl FnMut(&'a C)) {
        match self {
            Self::Constant(_) => {}
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.for_each(visit)),
            Self::Not(part) => part.for_each(visit),
            Self::Is(this) => visit(this),
        }
    }

    /// A text that is the same for all orders and repetitions of the operands of AND and OR.
    pub fn canonical(&self, condition: &impl Fn(&C) -> String) -> String {
        match self {
            Self::Constant(value) => value.to_string(),
            Self::And(parts) => join(parts, " AND ", condition),
            Self::Or(parts) => join(parts, " OR ", condition),
            Self::Not(part) => format!("NOT {}", part.canonical(condition)),
            Self::Is(this) => condition(this),
        }
    }
}

fn join<C>(parts: &[Logic<C>], junction: &str, condition: &impl Fn(&C) -> String) -> String {
    let mut texts: Vec<String> = parts.iter().map(|part| part.canonical(condition)).collect();
    texts.sort();
    texts.dedup();
    format!("({})", texts.join(junction))
}

/// One side of a comparison.
pub trait Operand {
    /// The value, when it is written in the query itself: literals coerce (A6).
    fn literal(&self) -> Option<&Value>;
}

/// `left.op(arguments)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition<O> {
    /// What is looked at.
    pub left: O,
    /// How.
    pub op: Op,
    /// What it is compared with.
    pub arguments: Vec<O>,
}

/// The comparators.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// `.equals(v)`, `=`, `==`.
    Equals,
    /// `.differs(v)`, `!=`: exists and is another value.
    Differs,
    /// `.greater_than(v)`, `>`.
    GreaterThan,
    /// `.at_least(v)`, `>=`.
    AtLeast,
    /// `.less_than(v)`, `<`.
    LessThan,
    /// `.at_most(v)`, `<=`.
    AtMost,
    /// `.exists()`: not null.
    Exists,
    /// `.absent()`: null.
    Absent,
    /// `.contains(v, …)`: any of them is a part of the text.
    Contains,
    /// `.omits(v, …)`: none of them is.
    Omits,
    /// `.starts_with(v)`.
    StartsWith,
    /// `.ends_with(v)`.
    EndsWith,
    /// `.one_of(v, …)`: equals any of them.
    OneOf,
    /// `.none_of(v, …)`: equals none of them.
    NoneOf,
    /// `.matches('re')`: the pattern is found in the text.
    Matches(Pattern),
    /// `.before_date(ts)`, strict.
    BeforeDate,
    /// `.after_date(ts)`, strict.
    AfterDate,
    /// A date relative to the time of the evaluation.
    Relative(RelativeDate, i64),
}

/// The date comparators that move with time; each has a distance in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelativeDate {
    /// From `now − n` to now.
    WithinLast,
    /// From now to `now + n`.
    WithinNext,
    /// At or before `now − n`.
    BeforeLast,
    /// At or after `now + n`.
    AfterNext,
}

/// A compiled regular expression; equal when the text is.
#[derive(Debug, Clone)]
pub struct Pattern(regex::Regex);

/// Longest pattern that is accepted, in characters.
pub const MAX_PATTERN_CHARACTERS: usize = 256;

/// Largest compiled pattern, in bytes.
const MAX_PATTERN_PROGRAM: usize = 1 << 20;

impl Pattern {
    /// Compiles a pattern, or says in one line why not.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.chars().count() > MAX_PATTERN_CHARACTERS {
            return Err(format!("a pattern may have at most {MAX_PATTERN_CHARACTERS} characters"));
        }
        let compiled = regex::RegexBuilder::new(text).size_limit(MAX_PATTERN_PROGRAM).build();
        compiled.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the pattern needs too much memory".to_owned(),
            other => other.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl<O: Operand> Condition<O> {
    /// Whether the condition holds at `now`, given what the left side is and how to read the arguments.
    pub fn holds<'a>(
        &'a self,
        left: &Value,
        resolve: impl Fn(&'a O) -> Cow<'a, Value>,
        now: Timestamp,
    ) -> bool {
        if left.is_null() {
            return matches!(self.op, Op::Absent | Op::Omits | Op::NoneOf);
        }
        let compare = |argument: &'a O| {
            let right = resolve(argument);
            if self.left.literal().is_some() || argument.literal().is_some() {
                left.compare_literal(&right)
            } else {
                left.compare(&right)
            }
        };
        let any_equal = || self.arguments.iter().any(|a| compare(a) == Some(Ordering::Equal));
        let ordered =
            |accept: fn(Ordering) -> bool| self.arguments.first().and_then(compare).is_some_and(accept);
        let any_text = |accept: fn(&str, &str) -> bool| {
            self.arguments
                .iter()
                .map(&resolve)
                .any(|part| !part.is_null() && accept(&left.text(), &part.text()))
        };
        let dated = |accept: fn(Timestamp, Timestamp) -> bool| {
            let bound = self.arguments.first().and_then(|a| resolve(a).as_timestamp());
            left.as_timestamp().zip(bound).is_some_and(|(at, bound)| accept(at, bound))
        };
        match &self.op {
            Op::Equals | Op::OneOf => any_equal(),
            Op::Differs | Op::NoneOf => !any_equal(),
            Op::GreaterThan => ordered(Ordering::is_gt),
            Op::AtLeast => ordered(Ordering::is_ge),
            Op::LessThan => ordered(Ordering::is_lt),
            Op::AtMost => ordered(Ordering::is_le),
            Op::Exists => true,
            Op::Absent => false,
            Op::Contains => any_text(|text, part| text.contains(part)),
            Op::Omits => !any_text(|text, part| text.contains(part)),
            Op::StartsWith => any_text(|text, part| text.starts_with(part)),
            Op::EndsWith => any_text(|text, part| text.ends_with(part)),
            Op::Matches(pattern) => pattern.0.is_match(&left.text()),
            Op::BeforeDate => dated(|at, bound| at < bound),
            Op::AfterDate => dated(|at, bound| at > bound),
            Op::Relative(date, distance) => {
                left.as_timestamp().is_some_and(|at| date.holds(at, *distance, now))
            }
        }
    }

    /// The first instant after `now` at which the condition changes by itself while `left` stays what it is.
    pub fn changes_at(&self, left: &Value, now: Timestamp) -> Option<Timestamp> {
        match &self.op {
            Op::Relative(date, distance) => date.changes_at(left.as_timestamp()?, *distance, now),
            _ => None,
        }
    }

    /// The interval of now in which a relative condition holds: from the first instant until before the second, where
    /// the greatest instant means never. `None` when it does not depend on the time, as where `left` is no date.
    pub fn interval(&self, left: &Value) -> Option<(Timestamp, Timestamp)> {
        match &self.op {
            Op::Relative(date, distance) => left.as_timestamp().map(|at| date.interval(at, *distance)),
            _ => None,
        }
    }

    /// Whether the truth depends on the time.
    pub const fn is_relative(&self) -> bool {
        matches!(self.op, Op::Relative(..))
    }

    /// The condition in one fixed spelling.
    pub fn canonical(&self, operand: impl Fn(&O) -> String) -> String {
        let arguments: Vec<String> = match &self.op {
            Op::Matches(pattern) => vec![crate::domain::json::quote(pattern.0.as_str())],
            Op::Relative(_, distance) => vec![format!("{distance}ms")],
            _ => self.arguments.iter().map(&operand).collect(),
        };
        format!("{}.{}({})", operand(&self.left), self.op.name(), arguments.join(", "))
    }
}

impl Op {
    /// The method's name in the language.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Equals => "equals",
            Self::Differs => "differs",
            Self::GreaterThan => "greater_than",
            Self::AtLeast => "at_least",
            Self::LessThan => "less_than",
            Self::AtMost => "at_most",
            Self::Exists => "exists",
            Self::Absent => "absent",
            Self::Contains => "contains",
            Self::Omits => "omits",
            Self::StartsWith => "starts_with",
            Self::EndsWith => "ends_with",
            Self::OneOf => "one_of",
            Self::NoneOf => "none_of",
            Self::Matches(_) => "matches",
            Self::BeforeDate => "before_date",
            Self::AfterDate => "after_date",
            Self::Relative(RelativeDate::WithinLast, _) => "within_last",
            Self::Relative(RelativeDate::WithinNext, _) => "within_next",
            Self::Relative(RelativeDate::BeforeLast, _) => "before_last",
            Self::Relative(RelativeDate::AfterNext, _) => "after_next",
        }
    }
}

impl RelativeDate {
    fn holds(self, at: Timestamp, distance: i64, now: Timestamp) -> bool {
        match self {
            Self::WithinLast => now.plus_millis(-distance) <= at && at <= now,
            Self::WithinNext => now <= at && at <= now.plus_millis(distance),
            Self::BeforeLast => at <= now.plus_millis(-distance),
            Self::AfterNext => at >= now.plus_millis(distance),
        }
    }

    /// Each comparator is true in one interval of now: from its first instant until before its last one.
    const fn interval(self, at: Timestamp, distance: i64) -> (Timestamp, Timestamp) {
        match self {
            Self::WithinLast => (at, at.plus_millis(distance).plus_millis(1)),
            Self::WithinNext => (at.plus_millis(-distance), at.plus_millis(1)),
            Self::BeforeLast => (at.plus_millis(distance), Timestamp::from_millis(i64::MAX)),
            Self::AfterNext => (Timestamp::from_millis(i64::MIN), at.plus_millis(-distance).plus_millis(1)),
        }
    }

    fn changes_at(self, at: Timestamp, distance: i64, now: Timestamp) -> Option<Timestamp> {
        let (from, until) = self.interval(at, distance);
        [from, until].into_iter().find(|at| *at > now && at.millis() < i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Given(Value, bool);

    impl Operand for Given {
        fn literal(&self) -> Option<&Value> {
            self.1.then_some(&self.0)
        }
    }

    fn holds(left: &str, op: Op, arguments: &[&str]) -> bool {
        let condition = Condition {
            left: Given(Value::from_json(left), false),
            op,
            arguments: arguments.iter().map(|a| Given(Value::from_json(a), true)).collect(),
        };
        condition.holds(&condition.left.0, |o| Cow::Borrowed(&o.0), Timestamp::EPOCH)
    }

    #[test]
    fn null_makes_only_the_negative_ones_true() {
        for op in [Op::Absent, Op::Omits, Op::NoneOf] {
            assert!(holds("null", op, &["1"]));
        }
        for op in [
            Op::Equals,
            Op::Differs,
            Op::GreaterThan,
            Op::AtLeast,
            Op::LessThan,
            Op::AtMost,
            Op::Exists,
            Op::Contains,
            Op::StartsWith,
            Op::EndsWith,
            Op::OneOf,
            Op::BeforeDate,
            Op::AfterDate,
            Op::Relative(RelativeDate::BeforeLast, 0),
        ] {
            assert!(!holds("null", op, &["null"]));
        }
        assert!(!holds("5", Op::Equals, &["null"]));
        assert!(holds("5", Op::Differs, &["null"]));
    }

    #[test]
    fn values_of_different_types_are_neither_equal_nor_ordered() {
        assert!(!holds("5", Op::Equals, &["true"]));
        assert!(holds("5", Op::Differs, &["true"]));
        assert!(!holds("5", Op::AtLeast, &["\"a\""]) && !holds("5", Op::AtMost, &["\"a\""]));
        assert!(holds("\"150\"", Op::GreaterThan, &["100"]));
        assert!(holds("true", Op::Equals, &["\"true\""]));
        assert!(!holds("\"Pro\"", Op::Equals, &["\"pro\""]), "case-sensitive");
    }

    #[test]
    fn text_comparators_look_into_the_canonical_text() {
        let shoes = "\"running shoes\"";
        assert!(holds(shoes, Op::Contains, &["\"shoes\"", "\"shirts\""]));
        assert!(!holds(shoes, Op::OneOf, &["\"shoes\""]));
        assert!(holds(shoes, Op::NoneOf, &["\"shoes\""]));
        assert!(holds(shoes, Op::Omits, &["\"boots\""]));
        assert!(holds(shoes, Op::StartsWith, &["\"run\""]) && holds(shoes, Op::EndsWith, &["\"shoes\""]));
        assert!(holds("[\"vip\"]", Op::Contains, &["\"vip\""]));
        assert!(holds(shoes, Op::Matches(Pattern::new("^run.*s$").expect("pattern")), &[]));
        assert!(Pattern::new("(").is_err());
    }

    #[test]
    fn relative_dates_have_inclusive_bounds_and_say_when_they_change() {
        let at = Timestamp::from_millis(1_000);
        for (date, first, last) in [
            (RelativeDate::WithinLast, 1_000, 1_300),
            (RelativeDate::WithinNext, 700, 1_000),
            (RelativeDate::BeforeLast, 1_300, i64::MAX),
            (RelativeDate::AfterNext, i64::MIN, 700),
        ] {
            for now in [0, 699, 700, 701, 999, 1_000, 1_001, 1_299, 1_300, 1_301, 2_000] {
                let now = Timestamp::from_millis(now);
                assert_eq!(
                    date.holds(at, 300, now),
                    (first..=last).contains(&now.millis()),
                    "{date:?} {now}"
                );
                let change = (now.millis() + 1..3_000)
                    .map(Timestamp::from_millis)
                    .find(|later| date.holds(at, 300, *later) != date.holds(at, 300, now));
                assert_eq!(date.changes_at(at, 300, now), change, "{date:?} {now}");
            }
        }
    }
}
