//! Lists by time that stay cheap when they are long: in blocks, each with what it comes to as a whole.
//!
//! A window over a busy profile holds thousands of entries, and an event touches two of them: the one it adds and the one
//! that has become too old. So a long list is cut into blocks that stay as they are stored until somebody has to look
//! into them; a sum over a window takes the totals of the blocks that are wholly inside. Where a block begins is decided
//! by the times themselves, so equal entries have equal bytes, whatever the order they came in.

use std::borrow::Cow;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::Timestamp;

use super::aggregate::Aggregate;
use super::blocks::Blocks;

/// Longest list that is kept as it is.
pub(super) const PLAIN_MAX: usize = 128;

/// What is in a list.
pub(super) trait Kind<A: Aggregate>: Clone + Debug + PartialEq {
    /// What there is beside the time.
    type Value: Clone + Debug + PartialEq + Serialize + DeserializeOwned;

    /// Adds an entry to a total.
    fn add(total: &mut A, key: i64, value: &Self::Value);
}

/// Events: milliseconds of the epoch, and what each contributes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Items;

impl<A: Aggregate> Kind<A> for Items {
    type Value = A::Item;

    fn add(total: &mut A, key: i64, value: &A::Item) {
        total.add(Timestamp::from_millis(key), value.clone());
    }
}

/// Hours of the epoch, and what happened in each.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hours;

impl<A: Aggregate> Kind<A> for Hours {
    type Value = A;

    fn add(total: &mut A, _: i64, value: &A) {
        total.merge(value.clone());
    }
}

/// Entries in the order of their keys.
#[derive(Debug, Clone)]
pub(super) enum ByTime<A: Aggregate, K: Kind<A>> {
    /// At most [`PLAIN_MAX`].
    Plain(Vec<(i64, K::Value)>),
    /// More.
    Blocks(Blocks<A, K>),
}

impl<A: Aggregate, K: Kind<A>> Default for ByTime<A, K> {
    fn default() -> Self {
        Self::Plain(Vec::new())
    }
}

impl<A: Aggregate, K: Kind<A>> PartialEq for ByTime<A, K> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<A: Aggregate, K: Kind<A>> ByTime<A, K> {
    pub(super) fn of(entries: Vec<(i64, K::Value)>) -> Self {
        if entries.len() > PLAIN_MAX { Self::Blocks(Blocks::of(entries)) } else { Self::Plain(entries) }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Plain(entries) => entries.len(),
            Self::Blocks(blocks) => blocks.len(),
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        // Blocks are for long lists only.
        matches!(self, Self::Plain(entries) if entries.is_empty())
    }

    /// Lets `put` place something of this key among the entries near it: those that may be equal to it in time, and
    /// all before and behind it that it can be put next to.
    pub(super) fn put(&mut self, key: i64, put: impl FnOnce(&mut Vec<(i64, K::Value)>)) {
        match self {
            Self::Plain(entries) => put(entries),
            Self::Blocks(blocks) => blocks.put(key, put),
        }
        self.settle();
    }

    /// All entries, out of it.
    pub(super) fn into_entries(self) -> Vec<(i64, K::Value)> {
        match self {
            Self::Plain(entries) => entries,
            Self::Blocks(blocks) => blocks.into_entries(),
        }
    }

    /// Takes the oldest ones out.
    pub(super) fn take_oldest(&mut self, count: usize) -> Vec<(i64, K::Value)> {
        let taken = match self {
            Self::Plain(entries) => entries.drain(..count.min(entries.len())).collect(),
            Self::Blocks(blocks) => blocks.take_oldest(count),
        };
        self.settle();
        taken
    }

    /// Takes out those before `key`.
    pub(super) fn take_before(&mut self, key: i64) -> Vec<(i64, K::Value)> {
        let count = match self {
            Self::Plain(entries) => entries.partition_point(|(at, _)| *at < key),
            Self::Blocks(blocks) => blocks.count_before(key),
        };
        if count == 0 { Vec::new() } else { self.take_oldest(count) }
    }

    /// Drops those before `key`.
    pub(super) fn drop_before(&mut self, key: i64) {
        match self {
            Self::Plain(entries) => {
                entries.drain(..entries.partition_point(|(at, _)| *at < key));
            }
            Self::Blocks(blocks) => blocks.drop_before(key),
        }
        self.settle();
    }

    /// Adds the entries from the first key to the second one.
    pub(super) fn add_to(&self, total: &mut A, from: i64, to: i64) {
        match self {
            Self::Plain(entries) => add_entries::<A, K>(entries, total, from, to),
            Self::Blocks(blocks) => blocks.add_to(total, from, to),
        }
    }

    /// The first key that is at least this one.
    pub(super) fn first_from(&self, key: i64) -> Option<i64> {
        match self {
            Self::Plain(entries) => {
                entries.get(entries.partition_point(|(at, _)| *at < key)).map(|(at, _)| *at)
            }
            Self::Blocks(blocks) => blocks.first_from(key),
        }
    }

    /// All entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, Cow<'_, K::Value>)> {
        self.iter_from(i64::MIN)
    }

    /// The entries from this key on.
    pub(super) fn iter_from(&self, key: i64) -> impl Iterator<Item = (i64, Cow<'_, K::Value>)> {
        let (plain, blocks) = match self {
            Self::Plain(entries) => {
                (entries.get(entries.partition_point(|(at, _)| *at < key)..).unwrap_or_default(), None)
            }
            Self::Blocks(blocks) => (<&[(i64, K::Value)]>::default(), Some(blocks.iter_from(key))),
        };
        let plain = plain.iter().map(|(at, value)| (*at, Cow::Borrowed(value)));
        plain.chain(blocks.into_iter().flatten())
    }

    /// Whether it is cut into blocks depends on its length alone.
    fn settle(&mut self) {
        let is_long = self.len() > PLAIN_MAX;
        if is_long != matches!(self, Self::Blocks(_)) {
            *self = Self::of(std::mem::take(self).into_entries());
        }
    }
}

/// Adds those entries that are from the first key to the second one.
pub(super) fn add_entries<A: Aggregate, K: Kind<A>>(
    entries: &[(i64, K::Value)],
    total: &mut A,
    from: i64,
    to: i64,
) {
    for (at, value) in entries.iter().filter(|(at, _)| from <= *at && *at <= to) {
        K::add(total, *at, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::aggregate::{Tally, Total};
    use super::*;
    use crate::domain::{Number, Value};

    type List = ByTime<Total, Items>;

    fn item(n: i64) -> (Number, bool) {
        (Number::from(n as u64 % 7), n % 5 == 0)
    }

    fn put(list: &mut List, at: i64) {
        let entry = (at, item(at / 2));
        list.put(at, |near| near.insert(near.partition_point(|other| *other <= entry), entry));
    }

    fn stored(list: &List) -> (Vec<u8>, List) {
        let bytes = postcard::to_allocvec(list).unwrap();
        let read = postcard::from_bytes(&bytes).unwrap();
        (bytes, read)
    }

    fn sum(entries: impl Iterator<Item = i64>) -> Total {
        let mut total = Total::default();
        entries.for_each(|at| total.add(Timestamp::from_millis(at), item(at / 2)));
        total
    }

    /// Times close together and far apart, some of them many times.
    fn times() -> impl Strategy<Value = Vec<i64>> {
        let spread = prop_oneof![Just(40_i64), Just(2_000), Just(i64::MAX / 2)];
        spread.prop_flat_map(|spread| proptest::collection::vec(-spread..spread, 0..700))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// A list says what the entries in their order say, and equal entries have equal bytes, however they came in
        /// and left.
        #[test]
        fn a_list_is_its_entries(
            times in times(), stops in proptest::collection::vec(0_usize..700, 0..4),
            (from, width) in (-2_000_i64..2_000, 0_i64..3_000), taken in 0_usize..400,
        ) {
            let mut list = List::default();
            for (n, at) in times.iter().enumerate() {
                put(&mut list, *at);
                if stops.contains(&n) {
                    list = stored(&list).1;
                }
            }
            let mut sorted = times;
            sorted.sort_unstable();
            let keys = |list: &List| list.iter().map(|(at, _)| at).collect::<Vec<_>>();
            prop_assert_eq!(keys(&list), &*sorted);
            for list in [&list, &stored(&list).1] {
                let mut total = Total::default();
                list.add_to(&mut total, from, from + width);
                let inside = sorted.iter().copied().filter(|at| (from..=from + width).contains(at));
                prop_assert_eq!(total, sum(inside));
                prop_assert_eq!(list.first_from(from), sorted.iter().copied().find(|at| *at >= from));
                let behind: Vec<i64> = list.iter_from(from).map(|(at, _)| at).collect();
                prop_assert_eq!(behind, &sorted[sorted.partition_point(|at| *at < from)..]);
            }
            let at_once = List::of(sorted.iter().map(|at| (*at, item(at / 2))).collect());
            prop_assert_eq!(stored(&list).0, stored(&at_once).0);

            let oldest: Vec<i64> = list.take_oldest(taken).into_iter().map(|(at, _)| at).collect();
            let taken = taken.min(sorted.len());
            prop_assert_eq!(oldest, &sorted[..taken]);
            let rest = List::of(sorted[taken..].iter().map(|at| (*at, item(at / 2))).collect());
            prop_assert_eq!(stored(&list).0, stored(&rest).0);
            let (mut dropped, before) = (stored(&list).1, sorted[taken..].partition_point(|at| *at < from));
            dropped.drop_before(from);
            prop_assert_eq!(keys(&dropped), &sorted[taken + before..]);
            prop_assert_eq!(list.take_before(from).len(), before);
            prop_assert_eq!(stored(&list).0, stored(&dropped).0);
        }
    }

    #[test]
    fn a_long_list_is_read_without_looking_into_it() {
        let mut list = ByTime::<Tally, Items>::of((0..1_000).map(|n| (n, Value::from(3_u64))).collect());
        let bytes = postcard::to_allocvec(&list).unwrap();
        list = postcard::from_bytes(&bytes).unwrap();
        list.put(2_000, |near| near.push((2_000, Value::from(4_u64))));
        let ByTime::Blocks(blocks) = &list else { panic!("short") };
        assert!(blocks.blocks.len() > 10, "{}", blocks.blocks.len());
        let open =
            blocks.blocks.iter().filter(|b| matches!(b.content, super::super::blocks::Content::Open(_)));
        assert!(open.count() <= 2);
    }
}
