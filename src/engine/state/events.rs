//! What a leaf keeps of events that count while they are inside of its window: their times, by which they enter and
//! leave, and what they contribute. A commutative monoid.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

use super::aggregate::Aggregate;
use super::by_time::{ByTime, Hours, Items};
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
    items: ByTime<A, Items>,
    /// Hour of the epoch and what happened in it, for older events. All of an hour counts as its first instant.
    hours: ByTime<A, Hours>,
}

impl<A: Aggregate> Default for Events<A> {
    fn default() -> Self {
        Self { items: ByTime::default(), hours: ByTime::default() }
    }
}

impl<A: Aggregate> Events<A> {
    pub(super) fn add(&mut self, at: i64, item: A::Item) {
        self.items.put(at, |items| {
            let entry = (at, item);
            items.insert(items.partition_point(|other| *other <= entry), entry);
        });
        self.overflow();
    }

    pub(super) fn merge(&mut self, other: Self) {
        let mut items = std::mem::take(&mut self.items).into_entries();
        items.extend(other.items.into_entries());
        items.sort();
        self.items = ByTime::of(items);
        other.hours.into_entries().into_iter().for_each(|(hour, all)| self.add_hour(hour, all));
        self.overflow();
    }

    pub(super) fn compact(&mut self, window: Option<Window>, settled: &mut A, now: Timestamp) {
        if let Some(window) = window {
            // By whole hours for both kinds, so that it does not matter when an item became part of its hour.
            let oldest = now.millis().saturating_sub(window.oldest).div_euclid(HOUR);
            self.items.drop_before(hour_start(oldest));
            self.hours.drop_before(oldest);
            return;
        }
        for (at, item) in self.items.take_before(now.millis().saturating_add(1)) {
            settled.add(Timestamp::from_millis(at), item);
        }
        for (_, all) in self.hours.take_before(now.millis().div_euclid(HOUR) + 1) {
            settled.merge(all);
        }
    }

    /// Takes out the times of those kept one by one that lie no later than `limit`.
    pub(super) fn take_until(&mut self, limit: i64) -> Vec<i64> {
        self.items.take_before(limit.saturating_add(1)).into_iter().map(|(at, _)| at).collect()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.items.is_empty() && self.hours.is_empty()
    }

    pub(super) const fn is_coarse(&self) -> bool {
        !self.hours.is_empty()
    }

    pub(super) fn add_to(&self, total: &mut A, window: Window, now: Timestamp) {
        let from = now.millis().saturating_sub(window.oldest);
        let to = now.millis().saturating_sub(window.newest);
        self.hours.add_to(total, first_hour_from(from), to.div_euclid(HOUR));
        self.items.add_to(total, from, to);
    }

    pub(super) fn changes_at(&self, window: Window, now: Timestamp) -> Option<Timestamp> {
        let (entering, leaving) = behind(window, now);
        let first_from = |from: i64| {
            let hour = self.hours.first_from(first_hour_from(from)).map(hour_start);
            // All in the hours is older than every item, or in the same hour.
            hour.or_else(|| self.items.first_from(from))
        };
        let entering = first_from(entering).map(|at| window.enters(at));
        let leaving = first_from(leaving).map(|at| window.leaves(at));
        entering.into_iter().chain(leaving).filter(|at| *at < i64::MAX).min().map(Timestamp::from_millis)
    }

    pub(super) fn find_change<'a>(
        &'a self,
        window: Window,
        now: Timestamp,
        mut stop: impl FnMut(Change<'a, A>) -> bool,
    ) -> Option<Timestamp> {
        let (entering, leaving) = behind(window, now);
        let mut entering = self.instants_from(entering).peekable();
        let mut leaving = self.instants_from(leaving).peekable();
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

    /// Everything by time.
    pub(super) fn instants(&self) -> impl Iterator<Item = (i64, Event<'_, A>)> {
        self.instants_from(i64::MIN)
    }

    /// Everything from this time on. Hours come first: all in them is older than every item, or in the same hour.
    fn instants_from(&self, from: i64) -> impl Iterator<Item = (i64, Event<'_, A>)> {
        let hours = self.hours.iter_from(first_hour_from(from));
        let hours = hours.map(|(hour, all)| (hour_start(hour), Event::Hour(all)));
        hours.chain(self.items.iter_from(from).map(|(at, _)| (at, Event::One)))
    }

    /// Puts the oldest items into their hours until the rest may stay.
    fn overflow(&mut self) {
        let excess = self.items.len().saturating_sub(EXACT_ITEMS);
        if excess == 0 {
            return;
        }
        for (at, item) in self.items.take_oldest(excess) {
            let mut aggregate = A::default();
            aggregate.add(Timestamp::from_millis(at), item);
            self.add_hour(at.div_euclid(HOUR), aggregate);
        }
    }

    fn add_hour(&mut self, hour: i64, aggregate: A) {
        self.hours.put(hour, |hours| {
            let place = hours.partition_point(|(other, _)| *other < hour);
            match hours.get_mut(place) {
                Some((same, kept)) if *same == hour => kept.merge(aggregate),
                _ => hours.insert(place, (hour, aggregate)),
            }
        });
    }
}

/// From which times on events have yet to enter, and to leave.
const fn behind(window: Window, now: Timestamp) -> (i64, i64) {
    let now = now.millis();
    (now.saturating_sub(window.newest).saturating_add(1), now.saturating_sub(window.oldest))
}

/// The first hour that begins at this time or later.
const fn first_hour_from(at: i64) -> i64 {
    let hour = at.div_euclid(HOUR);
    if at.rem_euclid(HOUR) == 0 { hour } else { hour + 1 }
}

const fn hour_start(hour: i64) -> i64 {
    hour.saturating_mul(HOUR)
}
