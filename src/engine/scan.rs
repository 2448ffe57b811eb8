//! Scans at work: events that are looked at one by one, because a trait or what came after them decides whether they
//! count.
//!
//! A child counts for a parent when it is strictly later, ties decided by the message id, and within its bound
//! (decision A10). The time at which a value may change is a lower bound: the first instant at which any of the events
//! enters or leaves, or a relative date that was looked at turns.

use std::borrow::Cow;
use std::cell::Cell;

use crate::domain::{Timestamp, Value};

use super::condition::Condition;
use super::evaluate::{View, nested, sooner};
use super::query::{Plan, Scan};
use super::state::{FieldValue, Filter, FilterOperand, Flags, LeafState, Read, Row, RowsState, Window};

/// What is read of a scan at `now`, when that may change by itself, and whether it is exact.
pub(super) fn evaluate(
    plan: &Plan,
    scan: &Scan,
    read: Read,
    view: &impl View,
    now: Timestamp,
) -> (Value, Option<Timestamp>, Flags) {
    let states = States::of(plan, scan, view);
    let look = Look { view, now, changes_at: Cell::new(None), flags: Cell::new(Flags::default()) };
    let events = look.events(scan, &states);
    let value = look.reduce(scan, &events, read, None);
    (value, look.changes_at.get(), look.flags.get())
}

/// The states of a scan and of its own scans.
struct States<'v> {
    state: Option<Cow<'v, LeafState>>,
    /// What the leaf keeps events for.
    window: Window,
    scans: Vec<Self>,
}

impl<'v> States<'v> {
    fn of(plan: &Plan, scan: &Scan, view: &'v impl View) -> Self {
        let leaf = plan.leaf(scan.leaf);
        Self {
            state: leaf.and_then(|(no, _)| view.leaf(no)),
            window: leaf.and_then(|(_, spec)| spec.window).unwrap_or(Window::ALL),
            scans: scan.scans.iter().map(|child| Self::of(plan, child, view)).collect(),
        }
    }
}

/// The events of a scan and of its own scans, by time and message id.
struct Events<'s> {
    events: Vec<Event<'s>>,
    scans: Vec<Self>,
}

struct Event<'s> {
    row: &'s Row,
    values: Vec<FieldValue<'s>>,
}

impl<'s> Event<'s> {
    fn key(&self) -> (Timestamp, &'s str) {
        (self.row.at(), self.row.message_id())
    }
}

/// Where a condition is looked at.
#[derive(Clone, Copy)]
struct Place<'e> {
    scan: &'e Scan,
    inside: &'e Events<'e>,
    event: &'e Event<'e>,
    parent: Option<&'e Event<'e>>,
}

/// One look at a profile.
struct Look<'v, V> {
    view: &'v V,
    now: Timestamp,
    changes_at: Cell<Option<Timestamp>>,
    flags: Cell<Flags>,
}

impl<V: View> Look<'_, V> {
    /// Reads the events; notes when any of them enters or leaves, and whether there were more.
    fn events<'s>(&self, scan: &Scan, states: &'s States<'_>) -> Events<'s> {
        let rows = states.state.as_deref().and_then(LeafState::rows);
        if rows.is_some_and(|rows| rows.is_cut(states.window, self.now)) {
            self.flags.set(Flags { cut: true, ..self.flags.get() });
        }
        let rows = rows.map(RowsState::rows).unwrap_or_default();
        let window = scan.window.unwrap_or(Window::ALL);
        for row in rows {
            self.note(row.changes_at(window, self.now));
        }
        let children = scan.scans.iter().zip(&states.scans);
        Events {
            events: rows.iter().map(|row| Event { row, values: row.values() }).collect(),
            scans: children.map(|(child, states)| self.events(child, states)).collect(),
        }
    }

    fn note(&self, changes_at: Option<Timestamp>) {
        self.changes_at.set(sooner(self.changes_at.get(), changes_at));
    }

    /// What is read of the events that count; of a child only those that come after its parent.
    fn reduce<'e>(
        &self,
        scan: &'e Scan,
        events: &'e Events<'e>,
        read: Read,
        parent: Option<&'e Event<'e>>,
    ) -> Value {
        let from = parent.map_or(0, |parent| events.events.partition_point(|e| e.key() <= parent.key()));
        let last = parent.zip(scan.after_parent).map(|(parent, bound)| parent.row.at().plus_millis(bound));
        let mut state = LeafState::Empty;
        let within =
            events.events.iter().skip(from).take_while(|e| last.is_none_or(|last| e.row.at() <= last));
        for event in within {
            if self.counts(Place { scan, inside: events, event, parent }) {
                let read = scan.reducer.field().and_then(|index| event.values.get(index));
                scan.reducer.fold(&mut state, event.row.at(), event.row.message_id(), read);
            }
        }
        let reading = state.read(read, None, self.now);
        self.flags.set(self.flags.get().or(reading.flags));
        reading.value
    }

    fn counts(&self, place: Place<'_>) -> bool {
        let window = place.scan.window.unwrap_or(Window::ALL);
        window.contains(place.event.row.at().millis(), self.now)
            && place.event.row.counts_at(self.now)
            && place.scan.filter.as_ref().is_none_or(|filter| self.holds(filter, place))
    }

    fn holds<'e>(&self, filter: &'e Filter, place: Place<'e>) -> bool {
        filter.holds(&|condition| match items(condition, place) {
            None => self.condition_holds(condition, &self.resolve(&condition.left, place), place),
            Some([]) => self.condition_holds(condition, &Value::Null, place),
            Some(items) => items.iter().any(|item| self.condition_holds(condition, item.value(), place)),
        })
    }

    fn condition_holds<'e>(
        &self,
        condition: &'e Condition<FilterOperand>,
        left: &Value,
        place: Place<'e>,
    ) -> bool {
        self.note(condition.changes_at(left, self.now));
        condition.holds(left, |operand| self.resolve(operand, place), self.now)
    }

    fn resolve<'e>(&self, operand: &'e FilterOperand, place: Place<'e>) -> Cow<'e, Value> {
        let field = |event: Option<&'e Event<'e>>, index: &usize| {
            let value = event.and_then(|event| event.values.get(*index));
            value.map_or(Cow::Owned(Value::Null), |value| Cow::Borrowed(value.value()))
        };
        match operand {
            FilterOperand::Literal(value) => Cow::Borrowed(value),
            FilterOperand::Field(index) => field(Some(place.event), index),
            FilterOperand::Parent(index) => field(place.parent, index),
            FilterOperand::Trait(path) => {
                let value = self.view.trait_value(path.head()).unwrap_or_default().into_owned();
                Cow::Owned(if path.is_key() { value } else { nested(&value, path) })
            }
            FilterOperand::Scan(index, read) => {
                let child = place.scan.scans.get(*index).zip(place.inside.scans.get(*index));
                Cow::Owned(child.map_or(Value::Null, |(child, events)| {
                    self.reduce(child, events, *read, Some(place.event))
                }))
            }
        }
    }
}

/// The elements that the left side of a condition means, where it means those of a list.
fn items<'e>(condition: &Condition<FilterOperand>, place: Place<'e>) -> Option<&'e [FieldValue<'e>]> {
    match &condition.left {
        FilterOperand::Field(index) => place.event.values.get(*index)?.items(),
        FilterOperand::Parent(index) => place.parent?.values.get(*index)?.items(),
        _ => None,
    }
}
