//! What one profile has of one leaf, and how it is read.

use serde::{Deserialize, Serialize};

use crate::domain::{Number, Timestamp, Value};

use super::aggregate::{Count, Edge, Extreme, Tally, Told, Total};
use super::leaf::Reducer;
use super::newest::NewestState;
use super::rows::{Row, RowsState};
use super::timeline::{Change, Event, Timeline, When, Window};

/// The state of one leaf: a commutative monoid with [`LeafState::merge`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub enum LeafState {
    /// No event yet.
    #[default]
    Empty,
    /// See [`super::Reducer::Count`].
    Count(CountState),
    /// See [`super::Reducer::Total`].
    Total(TotalState),
    /// See [`super::Reducer::Min`].
    Min(MinState),
    /// See [`super::Reducer::Max`].
    Max(MaxState),
    /// See [`super::Reducer::First`].
    First(FirstState),
    /// See [`super::Reducer::Last`].
    Last(LastState),
    /// See [`super::Reducer::Tally`].
    Tally(TallyState),
    /// See [`super::LeafSpec::enough`].
    Newest(Box<NewestState>),
    /// See [`super::Reducer::Rows`].
    Rows(Box<RowsState>),
}

macro_rules! states {
    ($($name:ident, $aggregate:ty;)*) => {$(
        /// The content of the variant of this name; opaque.
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Box<Timeline<$aggregate>>);
    )*};
}

states! {
    CountState, Count;
    TotalState, Total;
    MinState, Extreme<false>;
    MaxState, Extreme<true>;
    FirstState, Edge<false>;
    LastState, Edge<true>;
    TallyState, Tally;
}

/// Runs one expression for whichever kind of timeline a state has, and another one where it has none.
macro_rules! with_timeline {
    ($state:expr, $timeline:ident => $body:expr, $empty:expr) => {
        match $state {
            LeafState::Empty | LeafState::Newest(_) | LeafState::Rows(_) => $empty,
            LeafState::Count(CountState($timeline)) => $body,
            LeafState::Total(TotalState($timeline)) => $body,
            LeafState::Min(MinState($timeline)) => $body,
            LeafState::Max(MaxState($timeline)) => $body,
            LeafState::First(FirstState($timeline)) => $body,
            LeafState::Last(LastState($timeline)) => $body,
            LeafState::Tally(TallyState($timeline)) => $body,
        }
    };
}

/// What one event brings to a leaf.
pub(super) enum Contribution {
    Count,
    Newest { enough: u32, has_entered: bool },
    Total { number: Number, rounded: bool },
    Min(Value),
    Max(Value),
    First(Told),
    Last(Told),
    Tally(Value),
}

/// What is wanted of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Read {
    /// `count()`.
    Count,
    /// `sum(…)`.
    Sum,
    /// `avg(…)`.
    Average,
    /// `min`, `max`, `first`, `last`: the value that is kept.
    Value,
    /// `unique(…)`.
    Unique,
    /// `unique(…).count()`.
    UniqueCount,
    /// `mode(…, n)`.
    Mode(u64),
}

/// A value read from a state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// The value; null where there is nothing yet, 0 for counts (decision R7).
    pub value: Value,
    /// Whether it is exact.
    pub flags: Flags,
}

/// Why a value may be less than exact. All are false in ordinary use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flags {
    /// A number had more than 28 significant digits.
    pub rounded: bool,
    /// There were more distinct values than are kept, or more events that count by the hour.
    pub cut: bool,
    /// There were more events that may still enter or leave than are kept one by one; the others count by the hour.
    pub coarse: bool,
}

impl Flags {
    /// What either says.
    pub const fn or(self, other: Self) -> Self {
        Self {
            rounded: self.rounded | other.rounded,
            cut: self.cut | other.cut,
            coarse: self.coarse | other.coarse,
        }
    }
}

impl LeafState {
    /// Adds what one event brings.
    pub(super) fn add(&mut self, contribution: Contribution, at: Timestamp, when: When<'_>) {
        if matches!(self, Self::Empty) {
            *self = Self::for_contribution(&contribution);
        }
        match (self, contribution) {
            (Self::Count(CountState(t)), Contribution::Count) => t.add(at, (), when),
            (Self::Newest(newest), Contribution::Newest { has_entered, .. }) => {
                newest.add(at.millis(), has_entered);
            }
            (Self::Total(TotalState(t)), Contribution::Total { number, rounded }) => {
                t.add(at, (number, rounded), when);
            }
            (Self::Min(MinState(t)), Contribution::Min(value)) => t.add(at, value, when),
            (Self::Max(MaxState(t)), Contribution::Max(value)) => t.add(at, value, when),
            (Self::First(FirstState(t)), Contribution::First(told)) => t.add(at, told, when),
            (Self::Last(LastState(t)), Contribution::Last(told)) => t.add(at, told, when),
            (Self::Tally(TallyState(t)), Contribution::Tally(value)) => t.add(at, value, when),
            _ => debug_assert!(false, "a leaf has one kind of state"),
        }
    }

    /// Adds one event that brings nothing but belongs to its session.
    pub(super) fn extend_session(&mut self, reducer: Reducer, at: Timestamp, gap: i64, is_ahead: bool) {
        if matches!(self, Self::Empty) {
            *self = match reducer {
                Reducer::Count => Self::Count(CountState::default()),
                Reducer::Total(_) => Self::Total(TotalState::default()),
                Reducer::Min(..) => Self::Min(MinState::default()),
                Reducer::Max(..) => Self::Max(MaxState::default()),
                Reducer::First(_) => Self::First(FirstState::default()),
                Reducer::Last(_) => Self::Last(LastState::default()),
                Reducer::Tally(..) => Self::Tally(TallyState::default()),
                Reducer::Rows(_) => Self::Rows(Box::default()),
            };
        }
        with_timeline!(self, timeline => timeline.extend_session(at, gap, is_ahead), ());
    }

    /// Adds one event that is kept as it is.
    pub(super) fn add_row(&mut self, row: Row) {
        if matches!(self, Self::Empty) {
            *self = Self::Rows(Box::default());
        }
        match self {
            Self::Rows(rows) => rows.add(row),
            _ => debug_assert!(false, "a leaf has one kind of state"),
        }
    }

    /// The events that are kept as they are.
    pub(in crate::engine) fn rows(&self) -> Option<&RowsState> {
        match self {
            Self::Rows(rows) => Some(rows),
            _ => None,
        }
    }

    fn for_contribution(contribution: &Contribution) -> Self {
        match contribution {
            Contribution::Count => Self::Count(CountState::default()),
            Contribution::Newest { enough, .. } => Self::Newest(Box::new(NewestState::new(*enough))),
            Contribution::Total { .. } => Self::Total(TotalState::default()),
            Contribution::Min(_) => Self::Min(MinState::default()),
            Contribution::Max(_) => Self::Max(MaxState::default()),
            Contribution::First(_) => Self::First(FirstState::default()),
            Contribution::Last(_) => Self::Last(LastState::default()),
            Contribution::Tally(_) => Self::Tally(TallyState::default()),
        }
    }

    /// Adds all that another state of the same leaf holds.
    pub fn merge(&mut self, other: Self) {
        match (self, other) {
            (_, Self::Empty) => {}
            (this @ Self::Empty, other) => *this = other,
            (Self::Count(CountState(a)), Self::Count(CountState(b))) => a.merge(*b),
            (Self::Newest(a), Self::Newest(b)) => a.merge(*b),
            (Self::Rows(a), Self::Rows(b)) => a.merge(*b),
            (Self::Total(TotalState(a)), Self::Total(TotalState(b))) => a.merge(*b),
            (Self::Min(MinState(a)), Self::Min(MinState(b))) => a.merge(*b),
            (Self::Max(MaxState(a)), Self::Max(MaxState(b))) => a.merge(*b),
            (Self::First(FirstState(a)), Self::First(FirstState(b))) => a.merge(*b),
            (Self::Last(LastState(a)), Self::Last(LastState(b))) => a.merge(*b),
            (Self::Tally(TallyState(a)), Self::Tally(TallyState(b))) => a.merge(*b),
            _ => debug_assert!(false, "only states of one leaf are merged"),
        }
    }

    /// Drops what can never matter again at `now` or later, and settles what counts for ever from now on. Does not
    /// change any reading at `now` or later, and commutes with [`LeafState::merge`].
    pub fn compact(&mut self, window: Option<Window>, now: Timestamp) {
        let is_empty = match self {
            Self::Newest(newest) => {
                newest.compact(window.unwrap_or(Window::ALL), now);
                newest.is_empty()
            }
            Self::Rows(rows) => {
                rows.compact(window.unwrap_or(Window::ALL), now);
                rows.is_empty()
            }
            _ => {
                with_timeline!(self, timeline => timeline.compact(window, now), ());
                with_timeline!(self, timeline => timeline.is_empty(), true)
            }
        };
        if is_empty {
            *self = Self::Empty;
        }
    }

    /// Some bits of what the next event is likely to change, for whoever wants that memory at hand.
    pub fn glance(&self) -> i64 {
        match self {
            Self::Empty => 0,
            Self::Newest(newest) => newest.newest(),
            Self::Rows(rows) => rows.rows().len() as i64,
            _ => with_timeline!(self, timeline => i64::from(timeline.is_moving()), 0),
        }
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Whether there is a session that has not expired at `now`.
    pub fn is_running(&self, now: Timestamp) -> bool {
        with_timeline!(self, timeline => timeline.is_running(now), false)
    }

    /// The value at `now`.
    pub fn read(&self, read: Read, window: Option<Window>, now: Timestamp) -> Reading {
        let window = window.unwrap_or(Window::ALL);
        let coarse = with_timeline!(self, timeline => timeline.is_coarse(now), false);
        let cut = with_timeline!(self, timeline => timeline.is_cut(now), false);
        let mut flags = Flags { cut, coarse, ..Flags::default() };
        let value = match self {
            Self::Empty => match read {
                Read::Count | Read::UniqueCount => Value::from(0),
                _ => Value::Null,
            },
            // They are looked at one by one.
            Self::Rows(_) => Value::Null,
            Self::Count(CountState(timeline)) => Value::from(timeline.at(window, now).0),
            Self::Newest(newest) => {
                flags.coarse = newest.is_coarse();
                Value::from(newest.count(window, now))
            }
            Self::Total(TotalState(timeline)) => {
                let total = timeline.at(window, now);
                let (sum, rounded) = total.sum.number();
                let is_sum = read == Read::Sum;
                flags.rounded = total.rounded || (is_sum && rounded);
                match total.count {
                    0 => Value::Null,
                    _ if is_sum => Value::Number(sum),
                    count => Value::Number(total.sum.average(count)),
                }
            }
            Self::Min(MinState(timeline)) => timeline.at(window, now).0.clone().unwrap_or_default(),
            Self::Max(MaxState(timeline)) => timeline.at(window, now).0.clone().unwrap_or_default(),
            Self::First(FirstState(timeline)) => edge_value(timeline.at(window, now).0.as_ref()),
            Self::Last(LastState(timeline)) => edge_value(timeline.at(window, now).0.as_ref()),
            Self::Tally(TallyState(timeline)) => {
                let tally = timeline.at(window, now);
                flags.cut |= tally.is_cut();
                match read {
                    Read::UniqueCount => Value::from(tally.values().len() as u64),
                    Read::Mode(minimum) => tally.mode(minimum).cloned().unwrap_or_default(),
                    _ if tally.values().len() == 0 => Value::Null,
                    _ => Value::list(tally.values()),
                }
            }
        };
        Reading { value, flags }
    }

    /// The first instant after `now` at which an event enters or leaves with no new event.
    pub fn changes_at(&self, window: Option<Window>, now: Timestamp) -> Option<Timestamp> {
        let window = window.unwrap_or(Window::ALL);
        if let Self::Newest(newest) = self {
            return newest.changes_at(window, now);
        }
        with_timeline!(self, timeline => timeline.changes_at(window, now), None)
    }

    /// The first instant after `now` at which `accepts(count)` is another than at `now`, with no new event.
    /// States that are no counts answer as [`LeafState::changes_at`].
    pub fn count_changes_at(
        &self,
        window: Option<Window>,
        now: Timestamp,
        accepts: impl Fn(u64) -> bool,
    ) -> Option<Timestamp> {
        let window = window.unwrap_or(Window::ALL);
        let timeline = match self {
            Self::Count(CountState(timeline)) => timeline,
            Self::Newest(newest) => return newest.count_changes_at(window, now, accepts),
            _ => return self.changes_at(Some(window), now),
        };
        let mut count = timeline.at(window, now).0;
        let present = accepts(count);
        let size = |event: Event<'_, Count>| match event {
            Event::One => 1,
            Event::Hour(all) => all.0,
        };
        timeline.find_change(window, now, |change| {
            count = match change {
                Change::Enters(event) => count.saturating_add(size(event)),
                Change::Leaves(event) => count.saturating_sub(size(event)),
            };
            accepts(count) != present
        })
    }
}

fn edge_value(edge: Option<&(Timestamp, Told)>) -> Value {
    edge.map(|(_, told)| told.value.clone()).unwrap_or_default()
}
