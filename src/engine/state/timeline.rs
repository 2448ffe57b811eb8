//! A leaf's state in time: what has settled, and what still depends on the instant of the evaluation.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::Timestamp;

use super::aggregate::Aggregate;

/// Events of one leaf and profile that are kept one by one: the newest. Older ones that still matter are kept as
/// aggregates of whole hours, and the values made from them are flagged.
pub const EXACT_ITEMS: usize = 1_000;

const HOUR: i64 = 3_600_000;

/// A rolling window: an event at `t` is inside while `now − oldest ≤ t ≤ now − newest` (decisions A7, A8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Milliseconds before now at which an event enters; 0 for `within`.
    pub newest: i64,
    /// Milliseconds before now at which an event is inside for the last time.
    pub oldest: i64,
}

impl Window {
    /// The window of a leaf that has none: everything up to now.
    pub(super) const ALL: Self = Self { newest: 0, oldest: i64::MAX };

    const fn contains(self, at: i64, now: Timestamp) -> bool {
        now.millis().saturating_sub(self.oldest) <= at && at <= now.millis().saturating_sub(self.newest)
    }

    const fn enters(self, at: i64) -> i64 {
        at.saturating_add(self.newest)
    }

    /// The first instant at which an event is no longer inside.
    const fn leaves(self, at: i64) -> i64 {
        at.saturating_add(self.oldest).saturating_add(1)
    }
}

/// The state of one leaf over one kind of aggregate.
///
/// Without a window, events are in `settled` and only those whose time has not come are in `moving`; with one,
/// all that may still be inside are in `moving`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Timeline<A: Aggregate> {
    settled: A,
    moving: Option<Box<Moving<A>>>,
}

/// Events that enter or leave by the passage of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
struct Moving<A: Aggregate> {
    /// The newest events, by time and contribution; at most [`EXACT_ITEMS`].
    #[serde(serialize_with = "serialize_deltas", deserialize_with = "deserialize_deltas")]
    items: Vec<(i64, A::Item)>,
    /// Hour of the epoch and what happened in it, for older events. All of an hour counts as its first instant.
    hours: Vec<(i64, A)>,
}

impl<A: Aggregate> Default for Moving<A> {
    fn default() -> Self {
        Self { items: Vec::new(), hours: Vec::new() }
    }
}

impl<A: Aggregate> Timeline<A> {
    /// Adds one event: for ever when `settled`, otherwise by its time.
    pub(super) fn add(&mut self, at: Timestamp, item: A::Item, settled: bool) {
        if settled {
            return self.settled.add(at, item);
        }
        let moving = self.moving.get_or_insert_default();
        let entry = (at.millis(), item);
        let place = moving.items.partition_point(|other| *other <= entry);
        moving.items.insert(place, entry);
        moving.overflow();
    }

    /// Adds all that another state holds.
    pub(super) fn merge(&mut self, other: Self) {
        self.settled.merge(other.settled);
        if let Some(theirs) = other.moving {
            let moving = self.moving.get_or_insert_default();
            moving.items.extend(theirs.items);
            moving.items.sort();
            theirs.hours.into_iter().for_each(|(hour, aggregate)| moving.add_hour(hour, aggregate));
            moving.overflow();
        }
    }

    /// Settles events whose time has come (no window) or drops whole hours that have left for ever.
    pub(super) fn compact(&mut self, window: Option<Window>, now: Timestamp) {
        let Some(moving) = &mut self.moving else { return };
        if let Some(window) = window {
            // By whole hours for both kinds, so that it does not matter when an item became part of its hour.
            let keeps = |hour: i64| window.leaves(hour_start(hour).saturating_add(HOUR - 1)) > now.millis();
            moving.items.retain(|(at, _)| keeps(at.div_euclid(HOUR)));
            moving.hours.retain(|(hour, _)| keeps(*hour));
        } else {
            let due = moving.items.partition_point(|(at, _)| *at <= now.millis());
            for (at, item) in moving.items.drain(..due) {
                self.settled.add(Timestamp::from_millis(at), item);
            }
            let due = moving.hours.partition_point(|(hour, _)| hour_start(*hour) <= now.millis());
            moving.hours.drain(..due).for_each(|(_, aggregate)| self.settled.merge(aggregate));
        }
        if moving.items.is_empty() && moving.hours.is_empty() {
            self.moving = None;
        }
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.moving.is_none() && self.settled == A::default()
    }

    /// Whether some events are only known by the hour.
    pub(super) fn is_coarse(&self) -> bool {
        self.moving.as_ref().is_some_and(|moving| !moving.hours.is_empty())
    }

    /// What counts at `now`.
    pub(super) fn at(&self, window: Window, now: Timestamp) -> Cow<'_, A> {
        let Some(moving) = &self.moving else { return Cow::Borrowed(&self.settled) };
        let mut total = self.settled.clone();
        for (hour, aggregate) in &moving.hours {
            if window.contains(hour_start(*hour), now) {
                total.merge(aggregate.clone());
            }
        }
        for (at, item) in &moving.items {
            if window.contains(*at, now) {
                total.add(Timestamp::from_millis(*at), item.clone());
            }
        }
        Cow::Owned(total)
    }

    /// The first instant after `now` at which something enters or leaves.
    pub(super) fn changes_at(&self, window: Window, now: Timestamp) -> Option<Timestamp> {
        let moving = self.moving.as_deref()?;
        let entering = moving.instants().find(|(at, _)| window.enters(*at) > now.millis());
        let leaving = moving.instants().find(|(at, _)| window.leaves(*at) > now.millis());
        let entering = entering.map(|(at, _)| window.enters(at));
        let leaving = leaving.map(|(at, _)| window.leaves(at));
        entering.into_iter().chain(leaving).filter(|at| *at < i64::MAX).min().map(Timestamp::from_millis)
    }

    /// Walks through the later instants at which something enters or leaves, oldest first, until `stop` is told
    /// which events those are and returns true.
    pub(super) fn find_change<'a>(
        &'a self,
        window: Window,
        now: Timestamp,
        mut stop: impl FnMut(Change<'a, A>) -> bool,
    ) -> Option<Timestamp> {
        let moving = self.moving.as_deref()?;
        let mut entering = moving.instants().filter(|(at, _)| window.enters(*at) > now.millis()).peekable();
        let mut leaving = moving.instants().filter(|(at, _)| window.leaves(*at) > now.millis()).peekable();
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
}

/// What happens to a window by the passage of time.
pub(super) enum Change<'a, A: Aggregate> {
    /// Something comes in.
    Enters(Event<'a, A>),
    /// Something goes out.
    Leaves(Event<'a, A>),
}

/// One event, or all older events of an hour.
pub(super) enum Event<'a, A: Aggregate> {
    /// One event; its contribution is not needed by anything that walks through changes.
    One,
    /// The events of an hour.
    Hour(&'a A),
}

impl<A: Aggregate> Moving<A> {
    /// Everything by time. Hours come first: all in them is older than every item, or in the same hour.
    fn instants(&self) -> impl Iterator<Item = (i64, Event<'_, A>)> {
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
