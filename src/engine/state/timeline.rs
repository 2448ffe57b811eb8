//! A leaf's state in time: what has settled, and what still depends on the instant of the evaluation.
//!
//! Here the two are put together; what moves is kept by [`Events`] where the time of an event says when it counts, and
//! by [`Spans`] where a filter does. Both are commutative monoids of bounded size.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

use super::aggregate::Aggregate;
use super::events::Events;
use super::instants::Instants;
use super::sessions::Sessions;
use super::spans::Spans;

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
    pub(in crate::engine) const ALL: Self = Self { newest: 0, oldest: i64::MAX };

    pub(in crate::engine) const fn contains(self, at: i64, now: Timestamp) -> bool {
        now.millis().saturating_sub(self.oldest) <= at && at <= now.millis().saturating_sub(self.newest)
    }

    /// When an event is inside.
    pub(super) fn instants(self, at: Timestamp) -> Instants {
        Instants::between(self.enters(at.millis()), self.leaves(at.millis()))
    }

    pub(super) const fn enters(self, at: i64) -> i64 {
        at.saturating_add(self.newest)
    }

    /// The first instant at which an event is no longer inside.
    pub(super) const fn leaves(self, at: i64) -> i64 {
        at.saturating_add(self.oldest).saturating_add(1)
    }
}

/// The state of one leaf over one kind of aggregate.
///
/// Without a window, events are in `settled` and only those whose time has not come are in `moving`; with one,
/// all that may still be inside are in `moving`. The same goes for a filter that depends on the present time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Timeline<A: Aggregate> {
    settled: A,
    moving: Moving<A>,
}

/// What enters or leaves by the passage of time. A leaf has one kind of it for ever.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(bound = "")]
enum Moving<A: Aggregate> {
    #[default]
    Nothing,
    /// Events that count while they are inside of the window.
    Events(Box<Events<A>>),
    /// Events that count at instants of their own.
    Spans(Box<Spans<A>>),
    /// Events that count while their session is the latest and has not expired.
    Sessions(Box<Sessions<A>>),
}

/// When an event counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum When<'a> {
    /// From now on.
    Settled,
    /// While it is inside of the leaf's window.
    InWindow,
    /// At these instants.
    At(&'a Instants),
    /// While its session lasts; so much may lie between two events. It may be ahead of its time.
    InSession { gap: i64, is_ahead: bool },
}

impl<A: Aggregate> Timeline<A> {
    /// Adds one event.
    pub(super) fn add(&mut self, at: Timestamp, item: A::Item, when: When<'_>) {
        match when {
            When::Settled => self.settled.add(at, item),
            When::InWindow => {
                if let Some(events) = self.moving.events() {
                    events.add(at.millis(), item);
                }
            }
            When::At(instants) => {
                if let Some(spans) = self.moving.spans() {
                    spans.add(at, &item, instants, &mut self.settled);
                }
            }
            When::InSession { gap, is_ahead } => {
                if let Some(sessions) = self.moving.sessions(gap) {
                    sessions.add(at.millis(), Some(item), is_ahead);
                }
            }
        }
    }

    /// Adds one event that brings nothing but belongs to its session.
    pub(super) fn extend_session(&mut self, at: Timestamp, gap: i64, is_ahead: bool) {
        if let Some(sessions) = self.moving.sessions(gap) {
            sessions.add(at.millis(), None, is_ahead);
        }
    }

    /// Adds all that another state holds.
    pub(super) fn merge(&mut self, other: Self) {
        self.settled.merge(other.settled);
        match other.moving {
            Moving::Nothing => {}
            Moving::Events(theirs) => {
                if let Some(ours) = self.moving.events() {
                    ours.merge(*theirs);
                }
            }
            Moving::Spans(theirs) => {
                if let Some(ours) = self.moving.spans() {
                    ours.merge(*theirs, &mut self.settled);
                }
            }
            Moving::Sessions(theirs) => match &mut self.moving {
                Moving::Sessions(ours) => ours.merge(*theirs),
                ours => *ours = Moving::Sessions(theirs),
            },
        }
    }

    /// Settles what counts for ever from now on and drops what has left for ever.
    pub(super) fn compact(&mut self, window: Option<Window>, now: Timestamp) {
        let nothing_is_left = match &mut self.moving {
            Moving::Nothing => true,
            Moving::Events(events) => {
                events.compact(window, &mut self.settled, now);
                events.is_empty()
            }
            Moving::Spans(spans) => {
                spans.compact(&mut self.settled, now);
                spans.is_empty()
            }
            Moving::Sessions(sessions) => {
                sessions.compact(now);
                sessions.is_empty()
            }
        };
        if nothing_is_left {
            self.moving = Moving::Nothing;
        }
    }

    /// Whether there is anything that enters or leaves.
    pub(super) const fn is_moving(&self) -> bool {
        !matches!(self.moving, Moving::Nothing)
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.moving, Moving::Nothing) && self.settled == A::default()
    }

    /// Whether some events are only known by the hour.
    pub(super) fn is_coarse(&self, now: Timestamp) -> bool {
        match &self.moving {
            Moving::Nothing => false,
            Moving::Events(events) => events.is_coarse(),
            Moving::Spans(spans) => spans.is_coarse(now),
            Moving::Sessions(sessions) => sessions.is_coarse(now),
        }
    }

    /// Whether there were more events than are known even by the hour.
    pub(super) fn is_cut(&self, now: Timestamp) -> bool {
        match &self.moving {
            Moving::Spans(spans) => spans.is_cut(now),
            Moving::Sessions(sessions) => sessions.is_cut(now),
            Moving::Nothing | Moving::Events(_) => false,
        }
    }

    /// Whether there is a session that has not expired.
    pub(super) fn is_running(&self, now: Timestamp) -> bool {
        matches!(&self.moving, Moving::Sessions(sessions) if sessions.is_running(now))
    }

    /// What counts at `now`.
    pub(super) fn at(&self, window: Window, now: Timestamp) -> Cow<'_, A> {
        match &self.moving {
            Moving::Nothing => Cow::Borrowed(&self.settled),
            Moving::Events(events) => {
                let mut total = self.settled.clone();
                events.add_to(&mut total, window, now);
                Cow::Owned(total)
            }
            Moving::Spans(spans) => {
                let mut total = self.settled.clone();
                spans.add_to(&mut total, now);
                Cow::Owned(total)
            }
            Moving::Sessions(sessions) => Cow::Owned(sessions.latest(now)),
        }
    }

    /// The first instant after `now` at which something enters or leaves.
    pub(super) fn changes_at(&self, window: Window, now: Timestamp) -> Option<Timestamp> {
        match &self.moving {
            Moving::Nothing => None,
            Moving::Events(events) => events.changes_at(window, now),
            Moving::Spans(spans) => spans.changes_at(now),
            Moving::Sessions(sessions) => sessions.changes_at(now),
        }
    }

    /// Walks through the later instants at which something enters or leaves, oldest first, until `stop` is told
    /// which events those are and returns true. Of sessions it only knows when anything may change.
    pub(super) fn find_change<'a>(
        &'a self,
        window: Window,
        now: Timestamp,
        stop: impl FnMut(Change<'a, A>) -> bool,
    ) -> Option<Timestamp> {
        match &self.moving {
            Moving::Nothing => None,
            Moving::Events(events) => events.find_change(window, now, stop),
            Moving::Spans(spans) => spans.find_change(now, stop),
            Moving::Sessions(sessions) => sessions.changes_at(now),
        }
    }
}

impl<A: Aggregate> Moving<A> {
    fn events(&mut self) -> Option<&mut Events<A>> {
        if matches!(self, Self::Nothing) {
            *self = Self::Events(Box::default());
        }
        if let Self::Events(events) = self {
            return Some(events);
        }
        debug_assert!(false, "a leaf has one kind of moving events");
        None
    }

    fn spans(&mut self) -> Option<&mut Spans<A>> {
        if matches!(self, Self::Nothing) {
            *self = Self::Spans(Box::default());
        }
        if let Self::Spans(spans) = self {
            return Some(spans);
        }
        debug_assert!(false, "a leaf has one kind of moving events");
        None
    }

    fn sessions(&mut self, gap: i64) -> Option<&mut Sessions<A>> {
        if matches!(self, Self::Nothing) {
            *self = Self::Sessions(Box::new(Sessions::new(gap)));
        }
        if let Self::Sessions(sessions) = self {
            return Some(sessions);
        }
        debug_assert!(false, "a leaf has one kind of moving events");
        None
    }
}

/// What happens by the passage of time.
pub(super) enum Change<'a, A: Aggregate> {
    /// Something comes in.
    Enters(Event<'a, A>),
    /// Something goes out.
    Leaves(Event<'a, A>),
}

/// One event, or all of an hour.
#[derive(Clone)]
pub(super) enum Event<'a, A: Aggregate> {
    /// One event; its contribution is not needed by anything that walks through changes.
    One,
    /// The events of an hour.
    Hour(Cow<'a, A>),
}
