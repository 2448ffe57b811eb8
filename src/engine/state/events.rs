//! What a leaf keeps of events that count while they are inside of its window: their times, by which they enter and
//! leave, and what they contribute. A commutative monoid.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::Timestamp;

use super::aggregate::Aggregate;
use super::timeline::{Change, Event, Window};

/// Events of one leaf and profile that are kept one by one: the newest. Older ones that still matter are kept as
/// aggregates of whole hours, and the values made from them are flagged.
pub const EXACT_ITEMS: usize = 1_000;

const HOUR: i64 = 3_600_000;

/// Events by their time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Events<A: Aggregate> {
    /// The newest events, by time and contribution; at most [`EXACT_ITEMS`].
    #[serde(serialize_with = "serialize_deltas", deserialize_with = "deserialize_deltas")]
    items: Vec<(i64, A::Item)>,
    /// Hour of the epoch and what happened in it, for older events. All of an hour counts as its first instant.
    hours: Vec<(i64, A)>,
}

impl<A: Aggregate> Default for Events<A> {
    fn default() -> Self {
        Self { items: Vec::new(), hours: Vec::new() }
    }
}

impl<A: Aggregate> Events<A> {
    pub(super) fn add(&mut self, at: i64, item: A::Item) {
        let entry = (at, item);
        let place = self.items.partition_point(|other| *other <= entry);
        self.items.insert(place, entry);
        self.overflow();
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.items.extend(other.items);
        self.items.sort();
        other.hours.into_iter().for_each(|(hour, aggregate)| self.add_hour(hour, aggregate));
        self.overflow();
    }

    pub(super) fn compact(&mut self, window: Option<Window>, settled: &mut A, now: Timestamp) {
        if let Some(window) = window {
            // By whole hours for both kinds, so that it does not matter when an item became part of its hour.
            let keeps = |hour: i64| window.leaves(hour_start(hour).saturating_add(HOUR - 1)) > now.millis();
            self.items.retain(|(at, _)| keeps(at.div_euclid(HOUR)));
            self.hours.retain(|(hour, _)| keeps(*hour));
            return;
        }
        let due = self.items.partition_point(|(at, _)| *at <= now.millis());
        for (at, item) in self.items.drain(..due) {
            settled.add(Timestamp::from_millis(at), item);
        }
        let due = self.hours.partition_point(|(hour, _)| hour_start(*hour) <= now.millis());
        self.hours.drain(..due).for_each(|(_, aggregate)| settled.merge(aggregate));
    }

    /// Takes out the times of those kept one by one that lie no later than `limit`.
    pub(super) fn take_until(&mut self, limit: i64) -> Vec<i64> {
        let due = self.items.partition_point(|(at, _)| *at <= limit);
        self.items.drain(..due).map(|(at, _)| at).collect()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.items.is_empty() && self.hours.is_empty()
    }

    pub(super) const fn is_coarse(&self) -> bool {
        !self.hours.is_empty()
    }

    pub(super) fn add_to(&self, total: &mut A, window: Window, now: Timestamp) {
        for (hour, aggregate) in &self.hours {
            if window.contains(hour_start(*hour), now) {
                total.merge(aggregate.clone());
            }
        }
        for (at, item) in &self.items {
            if window.contains(*at, now) {
                total.add(Timestamp::from_millis(*at), item.clone());
            }
        }
    }

    pub(super) fn changes_at(&self, window: Window, now: Timestamp) -> Option<Timestamp> {
        let entering = self.instants().find(|(at, _)| window.enters(*at) > now.millis());
        let leaving = self.instants().find(|(at, _)| window.leaves(*at) > now.millis());
        let entering = entering.map(|(at, _)| window.enters(at));
        let leaving = leaving.map(|(at, _)| window.leaves(at));
        entering.into_iter().chain(leaving).filter(|at| *at < i64::MAX).min().map(Timestamp::from_millis)
    }

    pub(super) fn find_change<'a>(
        &'a self,
        window: Window,
        now: Timestamp,
        mut stop: impl FnMut(Change<'a, A>) -> bool,
    ) -> Option<Timestamp> {
        let mut entering = self.instants().filter(|(at, _)| window.enters(*at) > now.millis()).peekable();
        let mut leaving = self.instants().filter(|(at, _)| window.leaves(*at) > now.millis()).peekable();
        loop {
            let enters = entering.peek().map_or(i64::MAX, |(at, _)| window.enters(*at));
            let leaves = leaving.peek().map_or(i64::MAX, |(at, _)| window.leaves(*at));
            let instant = enters.min(leaves);
            if instant == i64::MAX {
                return None;
            }
            let mut stopped = false;
            while let Some((_, event)) = entering.next_if(|(at, _)| window.enters(*at) == instant) {
                stopped = stop(Change::Enters(event));
            }
            while let Some((_, event)) = leaving.next_if(|(at, _)| window.leaves(*at) == instant) {
                stopped = stop(Change::Leaves(event));
            }
            if stopped {
                return Some(Timestamp::from_millis(instant));
            }
        }
    }

    /// Everything by time. Hours come first: all in them is older than every item, or in the same hour.
    pub(super) fn instants(&self) -> impl Iterator<Item = (i64, Event<'_, A>)> {
        let hours = self.hours.iter().map(|(hour, aggregate)| (hour_start(*hour), Event::Hour(aggregate)));
        hours.chain(self.items.iter().map(|(at, _)| (*at, Event::One)))
    }

    /// Puts the oldest items into their hours until the rest may stay.
    fn overflow(&mut self) {
        let excess = self.items.len().saturating_sub(EXACT_ITEMS);
        let oldest: Vec<(i64, A::Item)> = self.items.drain(..excess).collect();
        for (at, item) in oldest {
            let mut aggregate = A::default();
            aggregate.add(Timestamp::from_millis(at), item);
            self.add_hour(at.div_euclid(HOUR), aggregate);
        }
    }

    fn add_hour(&mut self, hour: i64, aggregate: A) {
        let place = self.hours.partition_point(|(other, _)| *other < hour);
        match self.hours.get_mut(place) {
            Some((same, kept)) if *same == hour => kept.merge(aggregate),
            _ => self.hours.insert(place, (hour, aggregate)),
        }
    }
}

const fn hour_start(hour: i64) -> i64 {
    hour.saturating_mul(HOUR)
}

/// Times are written as distances from the one before: two or three bytes each instead of six.
fn serialize_deltas<S: Serializer, T: Serialize>(
    items: &[(i64, T)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut previous = 0_i64;
    serializer.collect_seq(items.iter().map(|(at, item)| {
        let delta = at.wrapping_sub(previous);
        previous = *at;
        (delta, item)
    }))
}

fn deserialize_deltas<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<(i64, T)>, D::Error> {
    let mut items = Vec::<(i64, T)>::deserialize(deserializer)?;
    let mut previous = 0_i64;
    for (at, _) in &mut items {
        previous = at.wrapping_add(previous);
        *at = previous;
    }
    Ok(items)
}
