//! What a leaf keeps of events whose value expires: sessions (decision R11).
//!
//! A session is a run of events with gaps of at most `gap`; the value is that of the latest one, and there is none when
//! `gap` has passed since its last event. A late event may join runs that were apart, so runs cannot be closed. What is
//! kept instead are *cells*: the events of each stretch of `gap` milliseconds of the calendar, which always belong to one
//! run. Cells only become more with more events, so "the newest [`SESSION_CELLS`] of them" is a commutative monoid: what
//! a part of the events lets go, the whole lets go, too.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

use super::aggregate::Aggregate;
use super::events::EXACT_ITEMS;

/// Cells that are kept: a session is exact as far back as this many times its gap, and longer ones are flagged.
pub const SESSION_CELLS: usize = 256;

/// The events of one leaf and profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Sessions<A: Aggregate> {
    gap: i64,
    /// By number, oldest first.
    cells: Vec<Cell<A>>,
    /// Events whose time had not come when they were received, by time; at most [`EXACT_ITEMS`].
    ahead: Vec<(i64, Option<A::Item>)>,
    /// Time of the newest event that was let go.
    dropped: Option<i64>,
    /// Time of the last event that was taken as come before its time, because there were too many.
    hurried: Option<i64>,
}

/// The events of one stretch of the calendar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
struct Cell<A: Aggregate> {
    no: i64,
    first: i64,
    last: i64,
    all: A,
}

impl<A: Aggregate> Sessions<A> {
    pub(super) const fn new(gap: i64) -> Self {
        Self { gap, cells: Vec::new(), ahead: Vec::new(), dropped: None, hurried: None }
    }

    /// Adds one event, whose time has come or not yet. Without an item it only belongs to its session.
    pub(super) fn add(&mut self, at: i64, item: Option<A::Item>, is_ahead: bool) {
        if is_ahead {
            let entry = (at, item);
            let place = self.ahead.partition_point(|other| *other <= entry);
            self.ahead.insert(place, entry);
        } else {
            self.enter(at, item);
        }
        self.overflow();
    }

    /// Adds all that another state of the same leaf holds.
    pub(super) fn merge(&mut self, other: Self) {
        other.cells.into_iter().for_each(|cell| self.add_cell(cell));
        self.ahead.extend(other.ahead);
        self.ahead.sort();
        self.dropped = self.dropped.max(other.dropped);
        self.hurried = self.hurried.max(other.hurried);
        self.overflow();
    }

    /// Lets those enter whose time has come. Cells stay, however old: late events may join them to the latest session.
    pub(super) fn compact(&mut self, now: Timestamp) {
        let due = self.due(now);
        let entering: Vec<_> = self.ahead.drain(..due).collect();
        for (at, item) in entering {
            self.enter(at, item);
        }
        self.hurried = self.hurried.filter(|at| *at > now.millis());
        self.overflow();
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.cells.is_empty() && self.ahead.is_empty()
    }

    /// Whether events were taken as come before their time.
    pub(super) fn is_coarse(&self, now: Timestamp) -> bool {
        self.hurried.is_some_and(|at| at > now.millis())
    }

    /// Whether the latest session began earlier than what is kept of it.
    pub(super) fn is_cut(&self, now: Timestamp) -> bool {
        self.with_entered(now, |sessions| {
            let Some(dropped) = sessions.dropped.filter(|_| sessions.is_running_at(now)) else {
                return false;
            };
            let run = sessions.latest_run();
            run.len() == sessions.cells.len()
                && run.first().is_some_and(|cell| cell.follows(dropped, self.gap))
        })
    }

    /// Whether the latest session has not expired.
    pub(super) fn is_running(&self, now: Timestamp) -> bool {
        self.with_entered(now, |sessions| sessions.is_running_at(now))
    }

    /// The latest session; nothing once it has expired.
    pub(super) fn latest(&self, now: Timestamp) -> A {
        self.with_entered(now, |sessions| {
            let mut total = A::default();
            if sessions.is_running_at(now) {
                sessions.latest_run().iter().for_each(|cell| total.merge(cell.all.clone()));
            }
            total
        })
    }

    /// The first instant after `now` at which the latest session expires or an event enters.
    pub(super) fn changes_at(&self, now: Timestamp) -> Option<Timestamp> {
        let enters = self.ahead.get(self.due(now)).map(|(at, _)| *at);
        let expires = self.with_entered(now, |sessions| {
            let last = sessions.cells.last().filter(|_| sessions.is_running_at(now))?.last;
            Some(last.saturating_add(sessions.gap).saturating_add(1)).filter(|at| *at < i64::MAX)
        });
        enters.into_iter().chain(expires).min().map(Timestamp::from_millis)
    }

    fn is_running_at(&self, now: Timestamp) -> bool {
        self.cells.last().is_some_and(|cell| now.millis() <= cell.last.saturating_add(self.gap))
    }

    fn latest_run(&self) -> &[Cell<A>] {
        let is_apart = |pair: &[Cell<A>]| match pair {
            [before, after] => !after.follows(before.last, self.gap),
            _ => false,
        };
        let from = self.cells.windows(2).rposition(is_apart).map_or(0, |place| place + 1);
        self.cells.get(from..).unwrap_or_default()
    }

    /// How many of those ahead have come at `now`.
    fn due(&self, now: Timestamp) -> usize {
        self.ahead.partition_point(|(at, _)| *at <= now.millis())
    }

    /// Lets `read` look at the state in which all have entered whose time has come.
    fn with_entered<T>(&self, now: Timestamp, read: impl FnOnce(&Self) -> T) -> T {
        if self.due(now) == 0 {
            return read(self);
        }
        let mut entered = self.clone();
        entered.compact(now);
        read(&entered)
    }

    fn enter(&mut self, at: i64, item: Option<A::Item>) {
        let mut all = A::default();
        if let Some(item) = item {
            all.add(Timestamp::from_millis(at), item);
        }
        self.add_cell(Cell { no: at.div_euclid(self.gap.max(1)), first: at, last: at, all });
    }

    fn add_cell(&mut self, cell: Cell<A>) {
        let place = self.cells.partition_point(|other| other.no < cell.no);
        match self.cells.get_mut(place).filter(|same| same.no == cell.no) {
            Some(same) => {
                same.first = same.first.min(cell.first);
                same.last = same.last.max(cell.last);
                same.all.merge(cell.all);
            }
            None => self.cells.insert(place, cell),
        }
    }

    /// Lets the first of those ahead enter until the rest may wait, and the oldest cells go until the rest may stay.
    fn overflow(&mut self) {
        let excess = self.ahead.len().saturating_sub(EXACT_ITEMS);
        let hurried: Vec<_> = self.ahead.drain(..excess).collect();
        for (at, item) in hurried {
            self.hurried = self.hurried.max(Some(at));
            self.enter(at, item);
        }
        let excess = self.cells.len().saturating_sub(SESSION_CELLS);
        let dropped = self.cells.drain(..excess).map(|cell| cell.last).max();
        self.dropped = self.dropped.max(dropped);
    }
}

impl<A: Aggregate> Cell<A> {
    /// Whether it belongs to the run of an event before it.
    const fn follows(&self, before: i64, gap: i64) -> bool {
        self.first.saturating_sub(before) <= gap
    }
}
