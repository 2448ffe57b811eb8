//! What a leaf keeps of a windowed count that is only compared with small numbers: the newest events.
//!
//! `count() >= 3` needs three events and no more: while three newer ones are inside of the window, whether an older
//! one is inside, too, makes no difference, and the older one leaves first. That holds for newer events that were
//! inside from the moment they were received; one whose time had not come then is kept beside them until it has. Both
//! are functions of the set of events, so this is a commutative monoid like every state.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::Timestamp;

use super::aggregate::Count;
use super::events::Events;
use super::timeline::{Event, Window};

/// The newest events of one leaf and profile.
#[derive(Debug, Clone, Deserialize)]
pub struct NewestState {
    /// So many matter.
    enough: u32,
    /// Times of events that had entered when they were received, in order. The newest of them matter; older ones are let
    /// go when there are some.
    #[serde(deserialize_with = "deserialize_deltas")]
    times: Vec<i64>,
    /// Events that had not.
    ahead: Option<Box<Events<Count>>>,
}

/// What is stored: nothing that does not matter.
#[derive(Serialize)]
#[serde(rename = "NewestState")]
struct Stored<'a> {
    enough: u32,
    #[serde(serialize_with = "serialize_deltas")]
    times: &'a [i64],
    ahead: &'a Option<Box<Events<Count>>>,
}

impl Serialize for NewestState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored { enough: self.enough, times: self.entered(), ahead: &self.ahead }.serialize(serializer)
    }
}

impl PartialEq for NewestState {
    fn eq(&self, other: &Self) -> bool {
        (self.enough, self.entered(), &self.ahead) == (other.enough, other.entered(), &other.ahead)
    }
}

impl NewestState {
    pub(super) const fn new(enough: u32) -> Self {
        Self { enough, times: Vec::new(), ahead: None }
    }

    /// Adds one event, which has entered already or not yet.
    pub(super) fn add(&mut self, at: i64, has_entered: bool) {
        if !has_entered {
            self.ahead.get_or_insert_default().add(at, ());
            return;
        }
        if self.times.last().is_none_or(|newest| *newest <= at) {
            self.times.push(at);
        } else {
            self.times.insert(self.times.partition_point(|other| *other <= at), at);
        }
        if self.times.len() > self.enough as usize * 3 / 2 + 8 {
            self.drop_older();
        }
    }

    /// The times that matter.
    fn entered(&self) -> &[i64] {
        let too_old = self.times.len().saturating_sub(self.enough as usize);
        self.times.get(too_old..).unwrap_or_default()
    }

    /// Adds all that another state of the same leaf holds.
    pub(super) fn merge(&mut self, other: Self) {
        self.times = newest_of(self.entered(), other.entered(), self.enough as usize);
        if let Some(ahead) = other.ahead {
            self.ahead.get_or_insert_default().merge(*ahead);
        }
    }

    fn drop_older(&mut self) {
        let too_old = self.times.len().saturating_sub(self.enough as usize);
        self.times.drain(..too_old);
    }

    /// Drops what has left for ever; what has entered by now is no longer ahead.
    pub(super) fn compact(&mut self, window: Window, now: Timestamp) {
        if let Some(mut ahead) = self.ahead.take() {
            let entered = ahead.take_until(now.millis().saturating_sub(window.newest));
            self.times.extend(entered);
            self.times.sort_unstable();
            ahead.compact(Some(window), &mut Count::default(), now);
            self.ahead = Some(ahead).filter(|ahead| !ahead.is_empty());
        }
        self.drop_older();
        let left = self.times.partition_point(|at| window.leaves(*at) <= now.millis());
        self.times.drain(..left);
    }

    /// The time of its newest event.
    pub(super) fn newest(&self) -> i64 {
        self.times.last().copied().unwrap_or_default()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.times.is_empty() && self.ahead.is_none()
    }

    pub(super) fn is_coarse(&self) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| ahead.is_coarse())
    }

    /// Those that have not left.
    fn inside(&self, window: Window, now: Timestamp) -> &[i64] {
        let entered = self.entered();
        let left = entered.partition_point(|at| window.leaves(*at) <= now.millis());
        entered.get(left..).unwrap_or_default()
    }

    /// How many count at `now`: exact below `enough`, at least that otherwise.
    pub(super) fn count(&self, window: Window, now: Timestamp) -> u64 {
        let mut count = Count(self.inside(window, now).len() as u64);
        if let Some(ahead) = &self.ahead {
            ahead.add_to(&mut count, window, now);
        }
        count.0
    }

    /// The first instant after `now` at which one enters or leaves.
    pub(super) fn changes_at(&self, window: Window, now: Timestamp) -> Option<Timestamp> {
        let leaves =
            self.inside(window, now).first().map(|at| window.leaves(*at)).filter(|at| *at < i64::MAX);
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
        let count = self.count(window, now);
        if self.ahead.is_some() {
            return first_turn(count, self.changes(window, now), accepts);
        }
        // Those that leave are all there is, and they are in order.
        let leaving = self.inside(window, now).iter().map(|at| (window.leaves(*at), -1));
        first_turn(count, leaving, accepts)
    }

    /// By how much the count changes at which later instants, in order.
    fn changes(&self, window: Window, now: Timestamp) -> Vec<(i64, i64)> {
        let left = self.entered().iter().map(|at| (window.leaves(*at), -1));
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

/// The first instant at which `accepts(count)` is another than at first; changes come in the order of time.
fn first_turn(
    mut count: u64,
    changes: impl IntoIterator<Item = (i64, i64)>,
    accepts: impl Fn(u64) -> bool,
) -> Option<Timestamp> {
    let present = accepts(count);
    let mut changes = changes.into_iter().take_while(|(at, _)| *at < i64::MAX).peekable();
    while let Some((instant, by)) = changes.next() {
        count = count.saturating_add_signed(by);
        while let Some((_, by)) = changes.next_if(|(at, _)| *at == instant) {
            count = count.saturating_add_signed(by);
        }
        if accepts(count) != present {
            return Some(Timestamp::from_millis(instant));
        }
    }
    None
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
fn serialize_deltas<S: Serializer>(times: &&[i64], serializer: S) -> Result<S::Ok, S::Error> {
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
