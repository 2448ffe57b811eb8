//! The settled part of a leaf: one commutative monoid per kind of reducer.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::domain::{Number, Timestamp, Value};

use super::sum::Sum;

/// Distinct values that `unique` and `mode` keep of one profile (decision R10).
pub const DISTINCT_VALUES: usize = 10_000;

/// Bytes of distinct values that `unique` and `mode` keep of one profile.
pub const DISTINCT_BYTES: usize = 1 << 20;

/// A commutative monoid over the contributions of events.
pub(super) trait Aggregate:
    Default + Clone + Debug + PartialEq + Serialize + DeserializeOwned
{
    /// What one event contributes, apart from its time. Ordered, so that lists of them have one order.
    type Item: Clone + Debug + Ord + Serialize + DeserializeOwned;

    /// Whether the time of an event matters, or only its contribution.
    const DATED: bool = false;

    /// Whether it stays small, however many events there are: worth keeping beside them.
    const IS_SMALL: bool = true;

    /// Adds the contribution of the event at `at`.
    fn add(&mut self, at: Timestamp, item: Self::Item);

    /// Adds all that another one holds.
    fn merge(&mut self, other: Self);
}

/// How many events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Count(pub(super) u64);

impl Aggregate for Count {
    type Item = ();

    fn add(&mut self, _: Timestamp, (): ()) {
        self.0 = self.0.saturating_add(1);
    }

    fn merge(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

/// Sum and number of values, and whether one of them had more digits than are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Total {
    pub(super) count: u64,
    pub(super) sum: Sum,
    pub(super) rounded: bool,
}

impl Aggregate for Total {
    type Item = (Number, bool);

    fn add(&mut self, _: Timestamp, (number, rounded): (Number, bool)) {
        self.merge(Self { count: 1, sum: number.into(), rounded });
    }

    fn merge(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum.add(&other.sum);
        self.rounded |= other.rounded;
    }
}

/// The smallest or the largest value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Extreme<const LARGEST: bool>(pub(super) Option<Value>);

impl<const LARGEST: bool> Aggregate for Extreme<LARGEST> {
    type Item = Value;

    fn add(&mut self, _: Timestamp, value: Value) {
        let replaces = self.0.as_ref().is_none_or(|kept| if LARGEST { value > *kept } else { value < *kept });
        if replaces {
            self.0 = Some(value);
        }
    }

    fn merge(&mut self, other: Self) {
        if let Some(value) = other.0 {
            self.add(Timestamp::EPOCH, value);
        }
    }
}

/// A value and the message it came with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Told {
    #[serde(with = "crate::domain::message_id")]
    pub(super) message_id: Box<str>,
    pub(super) value: Value,
}

/// The value of the first or last event: by time, ties by message id (decision R8).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Edge<const LAST: bool>(pub(super) Option<(Timestamp, Told)>);

impl<const LAST: bool> Aggregate for Edge<LAST> {
    type Item = Told;

    const DATED: bool = true;

    fn add(&mut self, at: Timestamp, told: Told) {
        self.merge(Self(Some((at, told))));
    }

    fn merge(&mut self, other: Self) {
        let Some(event) = other.0 else { return };
        let replaces = self.0.as_ref().is_none_or(|kept| if LAST { event > *kept } else { event < *kept });
        if replaces {
            self.0 = Some(event);
        }
    }
}

/// How often each value occurs.
///
/// At most [`DISTINCT_VALUES`] values of together [`DISTINCT_BYTES`] are kept: the smallest ones, all that lie
/// below the first one that does not fit. That stays a monoid: what does not fit into the values of some events
/// does not fit into those of more events, so no part drops a value that the whole keeps and every number kept
/// is complete. `ceiling` remembers the smallest value dropped, so that nothing above it comes back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    values: BTreeMap<Value, u64>,
    bytes: usize,
    ceiling: Option<Value>,
}

impl Tally {
    /// The distinct values, in their order.
    pub(super) fn values(&self) -> impl ExactSizeIterator<Item = &Value> {
        self.values.keys()
    }

    /// The value that occurs most often, at least `minimum` times; ties: the smallest canonical text (R9).
    pub(super) fn mode(&self, minimum: u64) -> Option<&Value> {
        self.values
            .iter()
            .filter(|(_, occurrences)| **occurrences >= minimum)
            .max_by(|(a, x), (b, y)| x.cmp(y).then_with(|| b.text().cmp(&a.text())).then_with(|| b.cmp(a)))
            .map(|(value, _)| value)
    }

    /// Whether values were dropped.
    pub(super) const fn is_cut(&self) -> bool {
        self.ceiling.is_some()
    }

    fn insert(&mut self, value: Value, occurrences: u64) {
        if self.ceiling.as_ref().is_some_and(|ceiling| value >= *ceiling) {
            return;
        }
        let size = size(&value);
        let entry = self.values.entry(value).or_insert_with(|| {
            self.bytes += size;
            0
        });
        *entry = entry.saturating_add(occurrences);
        while self.values.len() > DISTINCT_VALUES || self.bytes > DISTINCT_BYTES {
            let Some((dropped, _)) = self.values.pop_last() else { break };
            self.bytes -= self::size(&dropped);
            self.ceiling = Some(dropped);
        }
    }
}

impl Aggregate for Tally {
    type Item = Value;

    const IS_SMALL: bool = false;

    fn add(&mut self, _: Timestamp, value: Value) {
        self.insert(value, 1);
    }

    fn merge(&mut self, other: Self) {
        if let Some(ceiling) = other.ceiling
            && self.ceiling.as_ref().is_none_or(|own| ceiling < *own)
        {
            let dropped = self.values.split_off(&ceiling);
            self.bytes -= dropped.keys().map(size).sum::<usize>();
            self.ceiling = Some(ceiling);
        }
        for (value, occurrences) in other.values {
            self.insert(value, occurrences);
        }
    }
}

/// What a value counts for in [`DISTINCT_BYTES`].
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) | Value::Json(text) => text.len() + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(values: impl IntoIterator<Item = Value>) -> Tally {
        let mut tally = Tally::default();
        values.into_iter().for_each(|value| tally.add(Timestamp::EPOCH, value));
        tally
    }

    #[test]
    fn mode_needs_the_minimum_and_breaks_ties_by_text() {
        let of = |texts: &[&str]| tally(texts.iter().map(|&text| Value::from(text)));
        assert_eq!(of(&["a", "b", "b"]).mode(2), Some(&Value::from("b")));
        assert_eq!(of(&["a", "b"]).mode(2), None);
        assert_eq!(of(&["b", "b", "a", "a"]).mode(2), Some(&Value::from("a")));
        let numbers = tally([9, 9, 10, 10].map(|n: u64| Value::from(n)));
        assert_eq!(numbers.mode(2), Some(&Value::from(10)), "\"10\" sorts before \"9\" as text");
    }

    #[test]
    fn cutting_is_the_same_in_any_order() {
        let numbers = |range: std::ops::Range<u64>| range.map(Value::from);
        let n = DISTINCT_VALUES as u64;
        let whole = tally(numbers(0..n + 50));
        let backward = tally(numbers(0..n + 50).rev());
        let mut merged = tally(numbers(n - 20..n + 50));
        merged.merge(tally(numbers(0..n - 20)));
        assert!(whole.is_cut());
        assert_eq!(whole, backward);
        assert_eq!(whole, merged);
        assert!(!tally(numbers(0..n)).is_cut());

        let long = |c: char| Value::from(c.to_string().repeat(400_000).as_str());
        let whole = tally(['c', 'a', 'b'].map(long));
        let mut merged = tally(['b', 'c'].map(long));
        merged.merge(tally([long('a')]));
        assert_eq!(whole, merged);
        assert_eq!(whole.values().len(), 2);
        assert!(whole.is_cut());
    }

    #[test]
    fn a_small_value_does_not_slip_in_above_a_large_one_that_was_dropped() {
        let sized = |c: char, bytes: usize| Value::from(c.to_string().repeat(bytes).as_str());
        let (a, b, c) = (sized('a', 600_000), sized('b', 600_000), sized('c', 1));
        let orders = [[&a, &b, &c], [&a, &c, &b], [&c, &b, &a]];
        let states = orders.map(|order| tally(order.into_iter().cloned()));
        assert_eq!(states[0], states[1]);
        assert_eq!(states[0], states[2]);
        assert_eq!(states[0].values().len(), 1);
    }
}
