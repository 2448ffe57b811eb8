//! What a leaf keeps of a windowed count that is only compared with small numbers: the newest events.
//!
//! `count() >= 3` needs three events and no more: while three newer ones are inside of the window, whether an older
//! one is inside, too, makes no difference, and the older one leaves first. That holds for newer events that were
//! inside from the moment they were received; one whose time had not come then is kept beside them until it has. Both
//! are functions of the set of events, so this is a commutative monoid like every state.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::Timestamp;

use super::aggregate::Count;
use super::events::Events;
use super::timeline::{Event, Window};

/// The newest events of one leaf and profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewestState {
    /// So many matter.
    enough: u32,
    /// Times of events that had entered when they were received, the newest of them, in order.
    #[serde(serialize_with = "serialize_deltas", deserialize_with = "deserialize_deltas")]
    entered: Vec<i64>,
    /// Events that had not.
    ahead: Option<Box<Events<Count>>>,
}

impl NewestState {
    pub(super) const fn new(enough: u32) -> Self {
        Self { enough, entered: Vec::new(), ahead: None }
    }

    /// Adds one event, which has entered already or not yet.
    pub(super) fn add(&mut self, at: i64, has_entered: bool) {
        if !has_entered {
            self.ahead.get_or_insert_default().add(at, ());
            return;
        }
        let place = self.entered.partition_point(|other| *other <= at);
        if self.entered.len() < self.enough as usize {
            self.entered.insert(place, at);
        } else if let Some(slot) = place.checked_sub(1) {
            // The oldest one makes room.
            self.entered.copy_within(1..place, 0);
            if let Some(slot) = self.entered.get_mut(slot) {
                *slot = at;
            }
        }
    }

    /// Adds all that another state of the same leaf holds.
    pub(super) fn merge(&mut self, other: Self) {
        self.entered = newest_of(&self.entered, &other.entered, self.enough as usize);
        if let Some(ahead) = other.ahead {
            self.ahead.get_or_insert_default().merge(*ahead);
        }
    }

    fn drop_older(&mut self) {
        let excess = self.entered.len().saturating_sub(self.enough as usize);
        self.entered.drain(..excess);
    }

    /// Drops what has left for ever; what has entered by now is no longer ahead.
    pub(super) fn compact(&mut self, window: Window, now: Timestamp) {
        if let Some(mut ahead) = self.ahead.take() {
            let entered = ahead.take_until(now.millis().saturating_sub(window.newest));
            self.entered.extend(entered);
            self.entered.sort_unstable();
            ahead.compact(Some(window), &mut Count::default(), now);
            self.ahead = Some(ahead).filter(|ahead| !ahead.is_empty());
        }
        let left = self.entered.partition_point(|at| window.leaves(*at) <= now.millis());
        self.entered.drain(..left);
        self.drop_older();
    }

    /// The time of its newest event.
    pub(super) fn newest(&self) -> i64 {
        self.entered.last().copied().unwrap_or_default()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.entered.is_empty() && self.ahead.is_none()
    }

    pub(super) fn is_coarse(&self) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| ahead.is_coarse())
    }

    /// How many count at `now`: exact below `enough`, at least that otherwise.
    pub(super) fn count(&self, window: Window, now: Timestamp) -> u64 {
        let left = self.entered.partition_point(|at| window.leaves(*at) <= now.millis());
        let mut count = Count((self.entered.len() - left) as u64);
        if let Some(ahead) = &self.ahead {
            ahead.add_to(&mut count, window, now);
        }
        count.0
    }

    /// The first instant after `now` at which one enters or leaves.
    pub(super) fn changes_at(&self, window: Window, now: Timestamp) -> Option<Timestamp> {
        let left = self.entered.partition_point(|at| window.leaves(*at) <= now.millis());
        let leaves = self.entered.get(left).map(|at| window.leaves(*at)).filter(|at| *at < i64::MAX);
        let ahead = self.ahead.as_ref().and_then(|ahead| ahead.changes_at(window, now));
        leaves.map(Timestamp::from_millis).into_iter().chain(ahead).min()
    }

    /// The first instant after `now` at which `accepts(count)` is another than at `now`.
    pub(super) fn count_changes_at(
        &self,
        window: Window,
        now: Timestamp,
        accepts: impl Fn(u64) -> bool,
    ) -> Option<Timestamp> {
        let mut count = self.count(window, now);
        let present = accepts(count);
        let changes = match self.ahead {
            None => Cow::Borrowed([].as_slice()),
            Some(_) => Cow::Owned(self.changes(window, now)),
        };
        let left = self.entered.partition_point(|at| window.leaves(*at) <= now.millis());
        let leaving = self.entered.iter().skip(left).map(|at| (window.leaves(*at), -1));
        // With nothing ahead those that leave are all there is, and they are in order.
        let leaving = leaving.filter(|_| self.ahead.is_none());
        let mut changes = changes.iter().copied().chain(leaving).peekable();
        while let Some((instant, by)) = changes.next() {
            count = count.saturating_add_signed(by);
            while let Some((_, by)) = changes.next_if(|(at, _)| *at == instant) {
                count = count.saturating_add_signed(by);
            }
            if instant == i64::MAX {
                return None;
            }
            if accepts(count) != present {
                return Some(Timestamp::from_millis(instant));
            }
        }
        None
    }

    /// By how much the count changes at which later instants, in order.
    fn changes(&self, window: Window, now: Timestamp) -> Vec<(i64, i64)> {
        let left = self.entered.iter().map(|at| (window.leaves(*at), -1));
        let ahead = self.ahead.iter().flat_map(|ahead| ahead.instants()).flat_map(|(at, event)| {
            let events = match event {
                Event::One => 1,
                Event::Hour(all) => i64::try_from(all.0).unwrap_or(i64::MAX),
            };
            [(window.enters(at), events), (window.leaves(at), -events)]
        });
        let mut changes: Vec<_> = left.chain(ahead).filter(|(at, _)| *at > now.millis()).collect();
        changes.sort_unstable();
        changes
    }
}

/// The newest of two lists of times, each in order.
fn newest_of(a: &[i64], b: &[i64], most: usize) -> Vec<i64> {
    let (mut a, mut b) = (a.iter().rev().peekable(), b.iter().rev().peekable());
    let mut newest: Vec<i64> = std::iter::from_fn(|| match (a.peek(), b.peek()) {
        (Some(x), Some(y)) if x >= y => a.next(),
        (Some(_), None) => a.next(),
        _ => b.next(),
    })
    .take(most)
    .copied()
    .collect();
    newest.reverse();
    newest
}

/// Each time as the distance from the one before.
fn serialize_deltas<S: Serializer>(times: &[i64], serializer: S) -> Result<S::Ok, S::Error> {
    let mut previous = 0_i64;
    serializer.collect_seq(times.iter().map(|at| at.wrapping_sub(std::mem::replace(&mut previous, *at))))
}

fn deserialize_deltas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i64>, D::Error> {
    let mut times = Vec::<i64>::deserialize(deserializer)?;
    let mut previous = 0_i64;
    for at in &mut times {
        previous = at.wrapping_add(previous);
        *at = previous;
    }
    Ok(times)
}
