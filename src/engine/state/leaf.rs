//! Leaves: which events count, and what is kept of them.

use std::fmt::Write;

use crate::domain::{EventType, Facts, Offset, Path, Timestamp, Value, json};
use crate::engine::condition::{Condition, Logic, Operand};

use super::aggregate::Told;
use super::event_name::EventName;
use super::field::{Cast, Field, FieldValue};
use super::filter;
use super::instants::Instants;
use super::leaf_state::{Contribution, LeafState, Read};
use super::rows::Row;
use super::scope::Scope;
use super::timeline::{When, Window};

/// What is kept of the events. The number is the position of the field in [`LeafSpec::fields`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reducer {
    /// How many.
    Count,
    /// Sum and number of the numeric values: `sum` and `avg` share it.
    Total(usize),
    /// The smallest value.
    Min(usize, Cast),
    /// The largest value.
    Max(usize, Cast),
    /// The value of the earliest event that has one.
    First(usize),
    /// The value of the latest event that has one.
    Last(usize),
    /// How often each value occurs: `unique`, `unique().count()` and `mode` share it.
    Tally(usize, Option<Cast>),
    /// The events themselves, with so many of the fields: the first ones.
    Rows(usize),
}

/// What a filter compares.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterOperand {
    /// The field at this position of [`LeafSpec::fields`].
    Field(usize),
    /// A value written in the query.
    Literal(Value),
    /// Of a [`Scan`](crate::engine::query::Scan) only: the field at this position of the parent's.
    Parent(usize),
    /// Of a scan only: a trait of the profile, whose first name is canonical.
    Trait(Path),
    /// Of a scan only: what is read of the scan at this position of its own.
    Scan(usize, Read),
}

impl FilterOperand {
    /// Whether the event alone decides what it is.
    pub const fn is_static(&self) -> bool {
        matches!(self, Self::Field(_) | Self::Literal(_))
    }
}

impl Operand for FilterOperand {
    fn literal(&self) -> Option<&Value> {
        match self {
            Self::Literal(value) => Some(value),
            _ => None,
        }
    }
}

/// Conditions of `where`.
pub type Filter = Logic<Condition<FilterOperand>>;

/// One incremental state shared by all definitions that need it: which events, and what is kept of them.
#[derive(Debug, Clone, PartialEq)]
pub struct LeafSpec {
    /// Whose events they are.
    pub scope: Scope,
    /// The names of its events.
    pub event: EventName,
    /// The fields that the filter and the reducer read, without repetition.
    pub fields: Vec<Field>,
    /// The conditions of `where` that are decided by the event alone; `Constant(true)` when there are none.
    pub filter: Filter,
    /// The others, which must hold, too: they depend on the instant of the evaluation.
    pub moving_filter: Option<Filter>,
    /// What is kept.
    pub reducer: Reducer,
    /// The rolling window.
    pub window: Option<Window>,
    /// The absolute window: from the first instant until before the second.
    pub between: Option<(Timestamp, Timestamp)>,
    /// The session window: the latest run of events with gaps of at most so many milliseconds, as long as no more have
    /// passed since its last one.
    pub session: Option<i64>,
    /// Of a windowed count: from so many events on it makes no difference how many there are.
    pub enough: Option<u32>,
    /// Only events after this offset count, for definitions without historical data.
    pub since: Option<Offset>,
}

impl LeafSpec {
    /// The newest calls that wrote a trait, and what: the state behind `held_for`.
    pub fn trait_writes(name: Path) -> Self {
        Self {
            scope: Scope::Own,
            event: EventName::TraitWrites,
            fields: vec![Field::Trait(name)],
            filter: Logic::Constant(true),
            moving_filter: None,
            reducer: Reducer::Rows(1),
            window: None,
            between: None,
            session: None,
            enough: None,
            since: None,
        }
    }

    /// The text by which equal leaves are found: the same for every spelling of the same leaf.
    pub fn canonical(&self) -> String {
        let mut text = match &self.event {
            EventName::Exact(name) => format!("event({})", json::quote(name)),
            glob @ EventName::Glob(_) => format!("events({})", json::quote(&glob.to_string())),
            EventName::TraitWrites => "trait_writes()".to_owned(),
        };
        let filters = (self.filter != Logic::Constant(true)).then_some(&self.filter);
        for filter in filters.into_iter().chain(&self.moving_filter) {
            let filter = filter::canonical(filter, &self.fields);
            // Writing to a String cannot fail; `let _` says so.
            let _ = write!(text, ".where({filter})");
        }
        if let Some(window) = self.window {
            let _ = write!(text, ".between({}ms, {}ms)", window.newest, window.oldest);
        }
        if let Some((from, to)) = self.between {
            let _ = write!(text, ".between({from}, {to})");
        }
        if let Some(gap) = self.session {
            let _ = write!(text, ".expires_after({gap}ms)");
        }
        let field = |index: usize| self.fields.get(index).map_or_else(String::new, Field::canonical);
        let _ = match self.reducer {
            Reducer::Count => match self.enough {
                Some(enough) => write!(text, ".count(newest {enough})"),
                None => write!(text, ".count()"),
            },
            Reducer::Total(index) => write!(text, ".total({})", field(index)),
            Reducer::Min(index, cast) => write!(text, ".min({} as {})", field(index), cast.as_str()),
            Reducer::Max(index, cast) => write!(text, ".max({} as {})", field(index), cast.as_str()),
            Reducer::First(index) => write!(text, ".first({})", field(index)),
            Reducer::Last(index) => write!(text, ".last({})", field(index)),
            Reducer::Tally(index, None) => write!(text, ".tally({})", field(index)),
            Reducer::Tally(index, Some(cast)) => {
                write!(text, ".tally({} as {})", field(index), cast.as_str())
            }
            Reducer::Rows(kept) => {
                write!(text, ".rows({})", (0..kept).map(field).collect::<Vec<_>>().join(", "))
            }
        };
        if let Some(offset) = self.since {
            let _ = write!(text, ".since({offset})");
        }
        text.push_str(self.scope.suffix());
        text
    }

    /// Whether the event is one of those the leaf names.
    pub fn means(&self, facts: &Facts<'_>) -> bool {
        match &self.event {
            EventName::TraitWrites => self.is_write(facts.event_type),
            // Calls without a name are no events of the language, and no name fits them.
            named => named.matches(facts.name),
        }
    }

    /// Whether the event counts for this leaf (apart from what depends on the time of the evaluation: the rolling
    /// window and the moving filter).
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        self.means(facts) && self.selects(facts, &self.read_fields(facts), &self.identity())
    }

    /// Folds one event into a state; says whether the state is another one now.
    pub fn fold(&self, state: &mut LeafState, facts: &Facts<'_>) -> bool {
        self.means(facts) && self.fold_fields(state, facts, &self.read_fields(facts), &self.identity())
    }

    /// Folds an event of this name whose fields are already read: field `i` of the leaf is `values[slots[i]]`.
    pub(in crate::engine) fn fold_fields(
        &self,
        state: &mut LeafState,
        facts: &Facts<'_>,
        values: &[FieldValue<'_>],
        slots: &[usize],
    ) -> bool {
        self.selects(facts, values, slots) && self.fold_selected(state, facts, values, slots)
    }

    /// The same for an event that counts.
    pub(super) fn fold_selected(
        &self,
        state: &mut LeafState,
        facts: &Facts<'_>,
        values: &[FieldValue<'_>],
        slots: &[usize],
    ) -> bool {
        if let Reducer::Rows(kept) = self.reducer {
            return self.fold_row(state, facts, values, slots, kept);
        }
        let read = self.reducer.field().and_then(|index| slots.get(index)).and_then(|&slot| values.get(slot));
        let is_ahead = facts.timestamp > facts.received_at;
        let Some(brought) = self.brought(facts, read) else {
            return self.session.is_some_and(|gap| {
                state.extend_session(self.reducer, facts.timestamp, gap, is_ahead);
                true
            });
        };
        let Some(filter) = &self.moving_filter else {
            // Without a window an event counts for ever once its time has come; until then it waits.
            let when = match self.session {
                Some(gap) => When::InSession { gap, is_ahead },
                None if self.window.is_none() && !is_ahead => When::Settled,
                None => When::InWindow,
            };
            brought.add_to(state, facts.timestamp, when);
            return true;
        };
        // Nobody asks for an instant before the reception.
        let instants = self.instants(filter, facts, values, slots).after(facts.received_at);
        let when = match instants.spans() {
            [] => return false,
            [only] if only.stays() && only.enter <= facts.received_at.millis() => When::Settled,
            _ => When::At(&instants),
        };
        brought.add_to(state, facts.timestamp, when);
        true
    }

    fn fold_row(
        &self,
        state: &mut LeafState,
        facts: &Facts<'_>,
        values: &[FieldValue<'_>],
        slots: &[usize],
        kept: usize,
    ) -> bool {
        let instants = self.moving_filter.as_ref().map(|filter| {
            filter::instants(filter, &self.fields, facts, values, slots).after(facts.received_at)
        });
        if instants.as_ref().is_some_and(|instants| instants.spans().is_empty()) {
            return false;
        }
        let fields = self.fields.iter().zip(slots).take(kept).map(|(field, &slot)| (field, values.get(slot)));
        state.add_row(Row::new(facts.timestamp, facts.message_id, instants.as_ref(), fields));
        true
    }

    /// When the event counts, given that it does apart from the time.
    fn instants(
        &self,
        filter: &Filter,
        facts: &Facts<'_>,
        values: &[FieldValue<'_>],
        slots: &[usize],
    ) -> Instants {
        let held = filter::instants(filter, &self.fields, facts, values, slots);
        held.and(&self.window.unwrap_or(Window::ALL).instants(facts.timestamp))
    }

    /// Whether an event of this name counts, of which the fields are read.
    pub(super) fn selects(&self, facts: &Facts<'_>, values: &[FieldValue<'_>], slots: &[usize]) -> bool {
        self.is_told(facts.event_type, values, slots)
            && self.since.is_none_or(|since| facts.offset > since)
            && self.between.is_none_or(|(from, to)| from <= facts.timestamp && facts.timestamp < to)
            && filter::holds(&self.filter, values, slots, facts.timestamp)
    }

    /// Whether a call of this type is an event of the leaf; one that writes traits is when it writes the one that is read.
    fn is_told(&self, call: EventType, values: &[FieldValue<'_>], slots: &[usize]) -> bool {
        if self.event != EventName::TraitWrites {
            return matches!(call, EventType::Track | EventType::Page | EventType::Screen);
        }
        let read = slots.first().and_then(|&slot| values.get(slot));
        self.is_write(call) && read.is_some_and(|read| !read.raw.is_empty())
    }

    /// Whether a call of this type writes the traits that it looks at.
    fn is_write(&self, call: EventType) -> bool {
        if self.scope == Scope::Account { call == EventType::Group } else { writes_traits(call) }
    }

    /// What the event brings, of which `read` is what the reducer reads; nothing where that is nothing.
    fn brought(&self, facts: &Facts<'_>, read: Option<&FieldValue<'_>>) -> Option<Brought> {
        if let (Reducer::Count, Some((enough, window))) = (self.reducer, self.enough.zip(self.window)) {
            let has_entered = window.enters(facts.timestamp.millis()) <= facts.received_at.millis();
            return Some(Brought::One(Contribution::Newest { enough, has_entered }));
        }
        self.reducer.brought(facts.message_id, read)
    }

    fn read_fields<'a>(&self, facts: &Facts<'a>) -> Vec<FieldValue<'a>> {
        self.fields.iter().map(|field| field.read(facts)).collect()
    }

    fn identity(&self) -> Vec<usize> {
        (0..self.fields.len()).collect()
    }
}

/// Whether a call of this type writes the traits of its user: a group call writes its account's.
pub(in crate::engine) const fn writes_traits(call: EventType) -> bool {
    matches!(call, EventType::Identify)
}

/// What one event brings: one thing, or one for each element of a list.
enum Brought {
    One(Contribution),
    All(Vec<Contribution>),
}

impl Brought {
    fn add_to(self, state: &mut LeafState, at: Timestamp, when: When<'_>) {
        match self {
            Self::One(contribution) => state.add(contribution, at, when),
            Self::All(all) => all.into_iter().for_each(|contribution| state.add(contribution, at, when)),
        }
    }
}

impl Reducer {
    /// Adds one event to a state of its own; `read` is what it reads of it.
    pub(in crate::engine) fn fold(
        self,
        state: &mut LeafState,
        at: Timestamp,
        message_id: &str,
        read: Option<&FieldValue<'_>>,
    ) {
        if let Some(brought) = self.brought(message_id, read) {
            brought.add_to(state, at, When::Settled);
        }
    }

    fn brought(self, message_id: &str, read: Option<&FieldValue<'_>>) -> Option<Brought> {
        let Some(items) = read.and_then(|read| read.items.as_deref()).filter(|_| !self.takes_lists()) else {
            return self.contribution(message_id, read).map(Brought::One);
        };
        let mut all: Vec<Contribution> =
            items.iter().filter_map(|item| self.contribution(message_id, Some(item))).collect();
        match self {
            // All have the time of the event, so the order in the list decides.
            Self::First(_) if !all.is_empty() => Some(Brought::One(all.swap_remove(0))),
            Self::Last(_) => all.pop().map(Brought::One),
            _ => Some(all).filter(|all| !all.is_empty()).map(Brought::All),
        }
    }

    fn contribution(self, message_id: &str, read: Option<&FieldValue<'_>>) -> Option<Contribution> {
        let present = |value: Value| (!value.is_null()).then_some(value);
        let told = |value| Told { message_id: message_id.into(), value };
        Some(match self {
            Self::Count => Contribution::Count,
            Self::Total(_) => {
                let (number, rounded) = read?.number()?;
                Contribution::Total { number, rounded }
            }
            Self::Min(_, cast) => Contribution::Min(present(cast.apply(&read?.value))?),
            Self::Max(_, cast) => Contribution::Max(present(cast.apply(&read?.value))?),
            Self::First(_) => Contribution::First(told(present(read?.value.clone())?)),
            Self::Last(_) => Contribution::Last(told(present(read?.value.clone())?)),
            Self::Tally(_, cast) => {
                let value = &read?.value;
                Contribution::Tally(present(cast.map_or_else(|| value.clone(), |cast| cast.apply(value)))?)
            }
            Self::Rows(_) => return None,
        })
    }

    /// The position of the field it reads.
    pub(in crate::engine) const fn field(self) -> Option<usize> {
        match self {
            Self::Count | Self::Rows(_) => None,
            Self::Total(field)
            | Self::Min(field, _)
            | Self::Max(field, _)
            | Self::First(field)
            | Self::Last(field)
            | Self::Tally(field, _) => Some(field),
        }
    }

    /// The same with the field at another position.
    pub(in crate::engine) fn with_field(self, place: impl Fn(usize) -> usize) -> Self {
        match self {
            Self::Count | Self::Rows(_) => self,
            Self::Total(field) => Self::Total(place(field)),
            Self::Min(field, cast) => Self::Min(place(field), cast),
            Self::Max(field, cast) => Self::Max(place(field), cast),
            Self::First(field) => Self::First(place(field)),
            Self::Last(field) => Self::Last(place(field)),
            Self::Tally(field, cast) => Self::Tally(place(field), cast),
        }
    }

    /// Whether a list is one value to it, and not as many as it has elements.
    const fn takes_lists(self) -> bool {
        matches!(self, Self::Tally(_, Some(Cast::Array)))
    }
}
