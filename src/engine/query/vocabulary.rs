//! The names of the language and what kind of word each is.

use crate::engine::condition::{Op, RelativeDate};

/// Functions that can begin a chain on a profile.
pub(super) const PROFILE_FUNCTIONS: [&str; 6] =
    ["event", "trait", "audience", "any_item", "random_bucket", "everyone"];

/// Functions that read an event, inside of `where` and reducers.
pub(super) const EVENT_FUNCTIONS: [&str; 9] =
    ["property", "context", "message_type", "timestamp", "source", "any_item", "event", "trait", "audience"];

/// Functions that read the event itself.
pub(super) const FIELD_FUNCTIONS: [&str; 6] =
    ["property", "context", "message_type", "timestamp", "source", "any_item"];

/// The calls that are events of the language.
pub(super) const MESSAGE_TYPES: [&str; 3] = ["track", "page", "screen"];

/// Methods of a trait alone.
pub(super) const TRAIT_METHODS: [&str; 1] = ["held_for"];

/// Methods that narrow a stream of events.
pub(super) const FILTERS: [&str; 5] = ["where", "sources", "within", "between", "expires_after"];

/// Methods that make one value of a stream of events.
pub(super) const REDUCERS: [&str; 9] =
    ["count", "sum", "avg", "min", "max", "first", "last", "unique", "mode"];

/// Methods that compare a value.
pub(super) const COMPARATORS: [&str; 21] = [
    "equals",
    "differs",
    "greater_than",
    "at_least",
    "less_than",
    "at_most",
    "exists",
    "absent",
    "contains",
    "omits",
    "starts_with",
    "ends_with",
    "one_of",
    "none_of",
    "matches",
    "before_date",
    "after_date",
    "within_last",
    "within_next",
    "before_last",
    "after_next",
];

/// What a comparator takes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Takes {
    /// `()`.
    Nothing(Op),
    /// `(v)`.
    One(Op),
    /// `(v, …)`, at least one.
    Some(Op),
    /// `(date)`.
    Date(Op),
    /// `(n unit)`.
    Span(RelativeDate),
    /// `('re')`.
    Pattern,
}

/// The comparator of a method's name.
pub(super) fn comparator(name: &str) -> Option<Takes> {
    Some(match name {
        "equals" => Takes::One(Op::Equals),
        "differs" => Takes::One(Op::Differs),
        "greater_than" => Takes::One(Op::GreaterThan),
        "at_least" => Takes::One(Op::AtLeast),
        "less_than" => Takes::One(Op::LessThan),
        "at_most" => Takes::One(Op::AtMost),
        "exists" => Takes::Nothing(Op::Exists),
        "absent" => Takes::Nothing(Op::Absent),
        "contains" => Takes::Some(Op::Contains),
        "omits" => Takes::Some(Op::Omits),
        "starts_with" => Takes::One(Op::StartsWith),
        "ends_with" => Takes::One(Op::EndsWith),
        "one_of" => Takes::Some(Op::OneOf),
        "none_of" => Takes::Some(Op::NoneOf),
        "matches" => Takes::Pattern,
        "before_date" => Takes::Date(Op::BeforeDate),
        "after_date" => Takes::Date(Op::AfterDate),
        "within_last" => Takes::Span(RelativeDate::WithinLast),
        "within_next" => Takes::Span(RelativeDate::WithinNext),
        "before_last" => Takes::Span(RelativeDate::BeforeLast),
        "after_next" => Takes::Span(RelativeDate::AfterNext),
        _ => return None,
    })
}

/// The comparator of a symbol.
pub(super) fn symbol(symbol: &str) -> Op {
    match symbol {
        "!=" => Op::Differs,
        ">" => Op::GreaterThan,
        ">=" => Op::AtLeast,
        "<" => Op::LessThan,
        "<=" => Op::AtMost,
        _ => Op::Equals,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_comparator_is_known_by_its_own_name() {
        for name in COMPARATORS {
            let named = match comparator(name).expect(name) {
                Takes::Nothing(op) | Takes::One(op) | Takes::Some(op) | Takes::Date(op) => op.name(),
                Takes::Span(date) => Op::Relative(date, 0).name(),
                Takes::Pattern => "matches",
            };
            assert_eq!(named, name);
        }
    }
}
