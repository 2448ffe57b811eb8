//! What a leaf keeps whose filter depends on the present time.
//!
//! For each event the filter and the window together hold in finitely many intervals of now, and the event counts
//! in these: it brings one span for each. This module owns the spans of one leaf and profile. They are a commutative
//! monoid of bounded size, and forgetting those about which nothing more will happen commutes with merging.
//!
//! Everything goes by one order, that of [`Span::turn`]: the spans that will be over first are the first to be
//! kept by the hour, then the first to be taken as over already, and the first to be forgotten. That is why it does
//! not matter in which order those things happen: what one part of the events lets go, the whole lets go, too.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::Timestamp;

use super::aggregate::Aggregate;
use super::events::EXACT_ITEMS;
use super::instants::{Instants, Span};
use super::timeline::{Change, Event};

/// Spans that are kept by the hour beyond the [`EXACT_ITEMS`] kept one by one: aggregates of those that enter in the
/// same hour and leave in the same hour. Beyond these, what would be over first is taken as over.
pub const HOURLY_SPANS: usize = 5_000;

const HOUR: i64 = 3_600_000;

/// The spans of one leaf and profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Spans<A: Aggregate> {
    /// Those that are over last, and what their events contribute, with the event's time where that matters.
    #[serde(serialize_with = "serialize_deltas", deserialize_with = "deserialize_deltas")]
    items: Vec<(Span, (Timestamp, A::Item))>,
    /// The others, as spans of whole hours.
    #[serde(serialize_with = "serialize_deltas", deserialize_with = "deserialize_deltas")]
    hours: Vec<(Span, A)>,
    /// The hour at which the last of those is over that were taken as over too early.
    cut: Option<i64>,
}

impl<A: Aggregate> Default for Spans<A> {
    fn default() -> Self {
        Self { items: Vec::new(), hours: Vec::new(), cut: None }
    }
}

impl<A: Aggregate> Spans<A> {
    /// Adds one event at the instants at which it counts.
    pub(super) fn add(&mut self, at: Timestamp, item: &A::Item, instants: &Instants, settled: &mut A) {
        let at = if A::DATED { at } else { Timestamp::EPOCH };
        for span in instants.spans() {
            let entry = (*span, (at, item.clone()));
            let place = self.items.partition_point(|other| *other <= entry);
            self.items.insert(place, entry);
        }
        self.overflow(settled);
    }

    /// Adds all that another one holds.
    pub(super) fn merge(&mut self, other: Self, settled: &mut A) {
        self.items.extend(other.items);
        self.items.sort();
        other.hours.into_iter().for_each(|(span, aggregate)| self.add_hours(span, aggregate));
        self.cut = self.cut.max(other.cut);
        self.overflow(settled);
    }

    /// Forgets what has left for ever and settles what has entered for ever. By whole hours for both kinds, so that
    /// it does not matter when an item became part of its hours.
    pub(super) fn compact(&mut self, settled: &mut A, now: Timestamp) {
        let due = self.items.partition_point(|(span, _)| in_millis(in_hours(*span).turn()) <= now.millis());
        for (span, (at, item)) in self.items.drain(..due) {
            if span.stays() {
                settled.add(at, item);
            }
        }
        let due = self.hours.partition_point(|(span, _)| in_millis(span.turn()) <= now.millis());
        for (span, aggregate) in self.hours.drain(..due) {
            if span.stays() {
                settled.merge(aggregate);
            }
        }
        self.cut = self.cut.filter(|hour| in_millis(*hour) > now.millis());
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.items.is_empty() && self.hours.is_empty() && self.cut.is_none()
    }

    /// Whether some of what may still change is only known by the hour.
    pub(super) fn is_coarse(&self, now: Timestamp) -> bool {
        self.hours.last().is_some_and(|(span, _)| in_millis(span.turn()) > now.millis())
    }

    /// Whether something that was taken as over is not.
    pub(super) fn is_cut(&self, now: Timestamp) -> bool {
        self.cut.is_some_and(|hour| in_millis(hour) > now.millis())
    }

    /// Adds what counts at `now`.
    pub(super) fn add_to(&self, total: &mut A, now: Timestamp) {
        for (span, aggregate) in &self.hours {
            if hours_in_millis(*span).contains(now.millis()) {
                total.merge(aggregate.clone());
            }
        }
        for (span, (at, item)) in &self.items {
            if span.contains(now.millis()) {
                total.add(*at, item.clone());
            }
        }
    }

    /// The first instant after `now` at which something enters or leaves.
    pub(super) fn changes_at(&self, now: Timestamp) -> Option<Timestamp> {
        let instants = self.events().flat_map(|(span, _)| [span.enter, span.leave]);
        instants.filter(|at| *at > now.millis() && *at < Span::NEVER).min().map(Timestamp::from_millis)
    }

    /// As [`super::timeline::Timeline::find_change`].
    pub(super) fn find_change<'a>(
        &'a self,
        now: Timestamp,
        mut stop: impl FnMut(Change<'a, A>) -> bool,
    ) -> Option<Timestamp> {
        let changes = self.events().flat_map(|(span, event)| {
            [(span.enter, Change::Enters(event.clone())), (span.leave, Change::Leaves(event))]
        });
        let mut changes: Vec<_> = changes.filter(|(at, _)| *at > now.millis() && *at < Span::NEVER).collect();
        changes.sort_by_key(|(at, _)| *at);
        let mut changes = changes.into_iter().peekable();
        while let Some((instant, change)) = changes.next() {
            let mut stopped = stop(change);
            while let Some((_, change)) = changes.next_if(|(at, _)| *at == instant) {
                stopped = stop(change);
            }
            if stopped {
                return Some(Timestamp::from_millis(instant));
            }
        }
        None
    }

    fn events(&self) -> impl Iterator<Item = (Span, Event<'_, A>)> {
        let hours =
            self.hours.iter().map(|(span, all)| (hours_in_millis(*span), Event::Hour(Cow::Borrowed(all))));
        hours.chain(self.items.iter().map(|(span, _)| (*span, Event::One)))
    }

    /// Puts what is over first into its hours until the rest may stay one by one, and takes as over what does not
    /// fit there.
    fn overflow(&mut self, settled: &mut A) {
        let excess = self.items.len().saturating_sub(EXACT_ITEMS);
        let first: Vec<_> = self.items.drain(..excess).collect();
        for (span, (at, item)) in first {
            let mut aggregate = A::default();
            aggregate.add(at, item);
            self.add_hours(in_hours(span), aggregate);
        }
        let excess = self.hours.len().saturating_sub(HOURLY_SPANS);
        for (span, aggregate) in self.hours.drain(..excess) {
            self.cut = self.cut.max(Some(span.turn()));
            if span.stays() {
                settled.merge(aggregate);
            }
        }
    }

    fn add_hours(&mut self, span: Span, aggregate: A) {
        let place = self.hours.partition_point(|(other, _)| *other < span);
        match self.hours.get_mut(place) {
            Some((same, kept)) if *same == span => kept.merge(aggregate),
            _ => self.hours.insert(place, (span, aggregate)),
        }
    }
}

/// The span in whole hours: outward, so that a short one does not vanish. One that stays enters with the full hour,
/// because its turn must not come sooner than before.
const fn in_hours(span: Span) -> Span {
    if span.stays() {
        return Span { enter: hour_from(span.enter), leave: Span::NEVER };
    }
    Span { enter: span.enter.div_euclid(HOUR), leave: hour_from(span.leave) }
}

/// The first full hour at or after an instant.
const fn hour_from(at: i64) -> i64 {
    let hour = at.div_euclid(HOUR);
    if at.rem_euclid(HOUR) == 0 { hour } else { hour + 1 }
}

const fn in_millis(hour: i64) -> i64 {
    hour.saturating_mul(HOUR)
}

const fn hours_in_millis(span: Span) -> Span {
    Span { enter: in_millis(span.enter), leave: in_millis(span.leave) }
}

/// A span is written as the distance of its turn from the one before, and its length, which is 0 for one that stays.
fn serialize_deltas<S: Serializer, T: Serialize>(
    spans: &[(Span, T)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut previous = 0_i64;
    serializer.collect_seq(spans.iter().map(|(span, content)| {
        let delta = span.turn().wrapping_sub(previous);
        previous = span.turn();
        let length = if span.stays() { 0 } else { span.leave.wrapping_sub(span.enter) as u64 };
        (delta, length, content)
    }))
}

fn deserialize_deltas<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<(Span, T)>, D::Error> {
    let written = Vec::<(i64, u64, T)>::deserialize(deserializer)?;
    let mut turn = 0_i64;
    let spans = written.into_iter().map(|(delta, length, content)| {
        turn = turn.wrapping_add(delta);
        let span = match length {
            0 => Span { enter: turn, leave: Span::NEVER },
            length => Span { enter: turn.wrapping_sub(length as i64), leave: turn },
        };
        (span, content)
    });
    Ok(spans.collect())
}
