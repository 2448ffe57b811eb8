//! What a leaf keeps where the event alone does not decide: the newest events themselves, as far as a filter or a
//! reducer needs them.
//!
//! A funnel asks of each parent what came after it, and a condition may compare a property with a trait that changes
//! later. So these events are looked at one by one when a definition is evaluated. At most [`ROWS`] of them in
//! [`ROWS_BYTES`] are kept, the newest; what is older is forgotten and said to be. That is a function of the set of
//! events, so it is a commutative monoid like every state: no part of the newest ones is ever dropped for an older one.

use serde::{Deserialize, Serialize};

use crate::domain::{Path, Timestamp};

use super::field::{Field, FieldValue};
use super::instants::Instants;
use super::timeline::Window;

/// Events of one leaf and profile that are kept.
pub const ROWS: usize = 1_000;
/// Bytes they may take: more than a whole event has.
pub const ROWS_BYTES: usize = 48 << 10;

/// What is kept of one event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    at: i64,
    message_id: Box<str>,
    /// The intervals of now in which it counts, apart from windows; none where it always does.
    spans: Vec<(i64, i64)>,
    values: Vec<Kept>,
}

/// A field as JSON, empty where the event has none; or the elements of a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Kept {
    Value(Box<str>),
    Items(Vec<Box<str>>),
}

/// The events of one leaf and profile.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RowsState {
    /// By time and message id.
    rows: Vec<Row>,
    /// The newest one that was dropped for want of room: nothing up to it is kept.
    floor: Option<(i64, Box<str>)>,
}

impl Row {
    pub(super) fn new<'v, 'a: 'v>(
        at: Timestamp,
        message_id: &str,
        instants: Option<&Instants>,
        values: impl Iterator<Item = (&'v Field, Option<&'v FieldValue<'a>>)>,
    ) -> Self {
        let spans = instants.map_or(&[][..], Instants::spans);
        Self {
            at: at.millis(),
            message_id: message_id.into(),
            spans: spans.iter().map(|span| (span.enter, span.leave)).collect(),
            values: values.map(|(field, value)| Kept::of(field, value)).collect(),
        }
    }

    /// The event's time.
    pub(in crate::engine) const fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.at)
    }

    pub(in crate::engine) fn message_id(&self) -> &str {
        &self.message_id
    }

    /// Its fields, as they were read of the event.
    pub(in crate::engine) fn values(&self) -> Vec<FieldValue<'_>> {
        self.values.iter().map(Kept::read).collect()
    }

    /// Whether it counts at `now`, apart from windows.
    pub(in crate::engine) fn counts_at(&self, now: Timestamp) -> bool {
        self.spans.is_empty()
            || self.spans.iter().any(|(enter, leave)| *enter <= now.millis() && now.millis() < *leave)
    }

    /// The first instant after `now` at which it may begin or cease to count.
    pub(in crate::engine) fn changes_at(&self, window: Window, now: Timestamp) -> Option<Timestamp> {
        let spans = self.spans.iter().flat_map(|(enter, leave)| [*enter, *leave]);
        let edges = [window.enters(self.at), window.leaves(self.at)];
        let later = |at: &i64| *at > now.millis() && *at < i64::MAX;
        spans.chain(edges).filter(later).min().map(Timestamp::from_millis)
    }

    fn key(&self) -> (i64, &str) {
        (self.at, &self.message_id)
    }

    fn weight(&self) -> usize {
        let values = self.values.iter().map(|value| match value {
            Kept::Value(text) => text.len() + 2,
            Kept::Items(items) => items.iter().map(|item| item.len() + 1).sum::<usize>() + 2,
        });
        self.message_id.len() + 8 + self.spans.len() * 12 + values.sum::<usize>()
    }
}

impl Kept {
    fn of(field: &Field, value: Option<&FieldValue<'_>>) -> Self {
        match value {
            None => Self::Value("".into()),
            Some(FieldValue { items: Some(items), .. }) => {
                Self::Items(items.iter().map(|item| item.raw.into()).collect())
            }
            // With all its digits.
            Some(value) if matches!(field, Field::Property(_) | Field::Context(_) | Field::Trait(_)) => {
                Self::Value(value.raw.into())
            }
            Some(value) => Self::Value(value.value.to_json().into()),
        }
    }

    fn read(&self) -> FieldValue<'_> {
        match self {
            Self::Value(text) => FieldValue::from_raw(Some(&**text).filter(|text| !text.is_empty())),
            Self::Items(items) => FieldValue::of_items(items.iter().map(|item| &**item).collect()),
        }
    }
}

impl RowsState {
    /// What is kept, by time and message id.
    pub(in crate::engine) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Of writes of a trait: when the run of writes with the newest one's value at this path began (nothing where that is
    /// no value), and whether it may have begun earlier, with writes that were dropped.
    pub(in crate::engine) fn value_since(&self, path: &Path) -> (Option<Timestamp>, bool) {
        fn value<'r>(row: &'r Row, path: &Path) -> Option<&'r str> {
            let Some(Kept::Value(text)) = row.values.first() else { return None };
            path.walk_tail(text).filter(|text| *text != "null")
        }
        let Some(newest) = self.rows.last().and_then(|row| value(row, path)) else { return (None, false) };
        let run = self.rows.iter().rev().take_while(|row| value(row, path) == Some(newest));
        let (length, first) = run.fold((0, None), |(length, _), row| (length + 1, Some(row.at())));
        (first, length == self.rows.len() && self.floor.is_some())
    }

    pub(super) fn add(&mut self, row: Row) {
        if self.reaches(&row) {
            let place = self.rows.partition_point(|other| *other <= row);
            self.rows.insert(place, row);
            self.trim();
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.floor = self.floor.take().max(other.floor);
        let mut rows = std::mem::take(&mut self.rows);
        rows.extend(other.rows);
        rows.retain(|row| self.reaches(row));
        rows.sort();
        self.rows = rows;
        self.trim();
    }

    fn reaches(&self, row: &Row) -> bool {
        self.floor.as_ref().is_none_or(|(at, message_id)| row.key() > (*at, &**message_id))
    }

    /// Drops the oldest until the rest fits.
    fn trim(&mut self) {
        let mut room = ROWS_BYTES;
        let fits = self.rows.iter().rev().take(ROWS).take_while(|row| {
            let left = room.checked_sub(row.weight());
            room = left.unwrap_or_default();
            left.is_some()
        });
        let dropped = self.rows.len() - fits.count();
        if let Some(newest) = self.rows.drain(..dropped).next_back() {
            self.floor = Some((newest.at, newest.message_id));
        }
    }

    pub(super) fn compact(&mut self, window: Window, now: Timestamp) {
        self.rows.retain(|row| window.leaves(row.at) > now.millis());
        self.floor = self.floor.take().filter(|(at, _)| window.leaves(*at) > now.millis());
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.floor.is_none()
    }

    /// Whether some that might count were dropped.
    pub(in crate::engine) fn is_cut(&self, window: Window, now: Timestamp) -> bool {
        self.floor.as_ref().is_some_and(|(at, _)| window.leaves(*at) > now.millis())
    }
}
