//! Leaves: which events count, and what is kept of them.

use std::borrow::Cow;
use std::fmt::Write;

use crate::domain::{EventType, Facts, Number, Offset, Path, SourceNo, Timestamp, Value, json};
use crate::engine::condition::{Condition, Logic, Operand};

use super::aggregate::Told;
use super::event_name::EventName;
use super::instants::Instants;
use super::leaf_state::{Contribution, LeafState};
use super::timeline::{When, Window};

/// What a leaf reads of an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// `property('a.b')`.
    Property(Path),
    /// `context('a.b')`.
    Context(Path),
    /// `timestamp()`: the event time, as RFC 3339 in UTC.
    Timestamp,
    /// `message_type()`: `track`, `page` or another call.
    MessageType,
    /// `source('…')`: whether that source sent it.
    Source(SourceName),
}

/// A source as a query names it, by its name or id. Which one that is, the space says ([`crate::engine::Plan::bind_sources`]).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceName {
    /// Name or id.
    pub name: String,
    /// Its number; nothing until it is bound.
    pub no: Option<SourceNo>,
}

impl Field {
    /// The text of this field in the language.
    pub fn canonical(&self) -> String {
        match self {
            Self::Property(path) => format!("property({})", json::quote(&path.to_string())),
            Self::Context(path) => format!("context({})", json::quote(&path.to_string())),
            Self::Timestamp => "timestamp()".to_owned(),
            Self::MessageType => "message_type()".to_owned(),
            Self::Source(source) => format!("source({})", json::quote(&source.name)),
        }
    }

    /// Finds out which source is meant, where one is named.
    pub(in crate::engine) fn bind_source(&mut self, find: &dyn Fn(&str) -> Option<SourceNo>) {
        if let Self::Source(source) = self {
            source.no = find(&source.name);
        }
    }

    /// Reads this field of one event. To read many fields of an event use [`crate::engine::Program`].
    pub fn read<'a>(&self, facts: &Facts<'a>) -> FieldValue<'a> {
        let raw = match self {
            Self::Property(path) => {
                json::get(facts.properties, path.head()).and_then(|raw| path.walk_tail(raw))
            }
            Self::Context(path) => json::get(facts.context, path.head()).and_then(|raw| path.walk_tail(raw)),
            Self::Timestamp => {
                return FieldValue { raw: "", value: facts.timestamp.to_string().as_str().into() };
            }
            Self::MessageType => return FieldValue { raw: "", value: facts.event_type.as_str().into() },
            Self::Source(source) => {
                return FieldValue { raw: "", value: (source.no == Some(facts.source)).into() };
            }
        };
        FieldValue::from_raw(raw)
    }
}

/// A field of one event.
#[derive(Debug, Clone, Default)]
pub struct FieldValue<'a> {
    raw: &'a str,
    value: Value,
}

impl<'a> FieldValue<'a> {
    /// From the raw JSON that was found, if any.
    pub fn from_raw(raw: Option<&'a str>) -> Self {
        raw.map_or_else(Self::default, |raw| Self { raw, value: Value::from_json(raw) })
    }

    /// The number this is, and whether its literal had more digits than are kept.
    fn number(&self) -> Option<(Number, bool)> {
        let number = self.value.as_number()?;
        let rounded = self.raw.len() > crate::domain::number::SIGNIFICANT_DIGITS as usize
            && match &self.value {
                Value::String(text) => Number::parse_rounding(text),
                _ => Number::parse_rounding(self.raw),
            }
            .is_some_and(|(_, rounded)| rounded);
        Some((number, rounded))
    }
}

/// How values are taken: `as number`, `as string`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cast {
    /// Numbers, and strings that wholly are one; others are ignored.
    Number,
    /// The canonical text of anything that is not null.
    String,
}

impl Cast {
    fn apply(self, value: &Value) -> Value {
        match self {
            Self::Number => value.as_number().map_or(Value::Null, Value::Number),
            Self::String if value.is_null() => Value::Null,
            Self::String => value.text().as_ref().into(),
        }
    }

    /// The word in the language.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::String => "string",
        }
    }
}

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
}

/// What a filter compares.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterOperand {
    /// The field at this position of [`LeafSpec::fields`].
    Field(usize),
    /// A value written in the query.
    Literal(Value),
}

impl Operand for FilterOperand {
    fn literal(&self) -> Option<&Value> {
        match self {
            Self::Literal(value) => Some(value),
            Self::Field(_) => None,
        }
    }
}

/// Conditions of `where`.
pub type Filter = Logic<Condition<FilterOperand>>;

/// One incremental state shared by all definitions that need it: which events, and what is kept of them.
#[derive(Debug, Clone, PartialEq)]
pub struct LeafSpec {
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
    /// Of a windowed count: from so many events on it makes no difference how many there are.
    pub enough: Option<u32>,
    /// Only events after this offset count, for definitions without historical data.
    pub since: Option<Offset>,
}

impl LeafSpec {
    /// The text by which equal leaves are found: the same for every spelling of the same leaf.
    pub fn canonical(&self) -> String {
        let mut text = match &self.event {
            EventName::Exact(name) => format!("event({})", json::quote(name)),
            glob @ EventName::Glob(_) => format!("events({})", json::quote(&glob.to_string())),
        };
        let filters = (self.filter != Logic::Constant(true)).then_some(&self.filter);
        for filter in filters.into_iter().chain(&self.moving_filter) {
            let filter = filter.canonical(&|condition| condition.canonical(|o| self.operand_text(o)));
            // Writing to a String cannot fail; `let _` says so.
            let _ = write!(text, ".where({filter})");
        }
        if let Some(window) = self.window {
            let _ = write!(text, ".between({}ms, {}ms)", window.newest, window.oldest);
        }
        if let Some((from, to)) = self.between {
            let _ = write!(text, ".between({from}, {to})");
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
        };
        if let Some(offset) = self.since {
            let _ = write!(text, ".since({offset})");
        }
        text
    }

    fn operand_text(&self, operand: &FilterOperand) -> String {
        match operand {
            FilterOperand::Field(index) => self.fields.get(*index).map_or_else(String::new, Field::canonical),
            FilterOperand::Literal(value) => value.to_json(),
        }
    }

    /// Whether the event counts for this leaf (apart from what depends on the time of the evaluation: the rolling
    /// window and the moving filter).
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        self.event.matches(facts.name) && self.selects(facts, &self.read_fields(facts), &self.identity())
    }

    /// Folds one event into a state; says whether the state is another one now.
    pub fn fold(&self, state: &mut LeafState, facts: &Facts<'_>) -> bool {
        self.event.matches(facts.name)
            && self.fold_fields(state, facts, &self.read_fields(facts), &self.identity())
    }

    /// Folds an event of this name whose fields are already read: field `i` of the leaf is `values[slots[i]]`.
    pub(in crate::engine) fn fold_fields(
        &self,
        state: &mut LeafState,
        facts: &Facts<'_>,
        values: &[FieldValue<'_>],
        slots: &[usize],
    ) -> bool {
        if !self.selects(facts, values, slots) {
            return false;
        }
        let Some(contribution) =
            self.contribution(facts, |index| slots.get(index).and_then(|&s| values.get(s)))
        else {
            return false;
        };
        let Some(filter) = &self.moving_filter else {
            // Without a window an event counts for ever once its time has come; until then it waits.
            let settled = self.window.is_none() && facts.timestamp <= facts.received_at;
            let when = if settled { When::Settled } else { When::InWindow };
            state.add(contribution, facts.timestamp, when);
            return true;
        };
        // Nobody asks for an instant before the reception.
        let instants = self.instants(filter, facts, values, slots).after(facts.received_at);
        let when = match instants.spans() {
            [] => return false,
            [only] if only.stays() && only.enter <= facts.received_at.millis() => When::Settled,
            _ => When::At(&instants),
        };
        state.add(contribution, facts.timestamp, when);
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
        let resolve = |operand| resolve(operand, values, slots);
        let held = Instants::of(filter, &|condition| {
            let left = resolve(&condition.left);
            match condition.interval(&left) {
                Some((from, until)) => Instants::between(from.millis(), until.millis()),
                None => Instants::constant(condition.holds(&left, resolve, facts.timestamp)),
            }
        });
        held.and(&self.window.unwrap_or(Window::ALL).instants(facts.timestamp))
    }

    fn selects(&self, facts: &Facts<'_>, values: &[FieldValue<'_>], slots: &[usize]) -> bool {
        let resolve = |operand| resolve(operand, values, slots);
        // Calls without a name (identify, group, alias) are no events of the language.
        !matches!(facts.event_type, EventType::Identify | EventType::Group | EventType::Alias)
            && self.since.is_none_or(|since| facts.offset > since)
            && self.between.is_none_or(|(from, to)| from <= facts.timestamp && facts.timestamp < to)
            && self
                .filter
                .holds(&|condition| condition.holds(&resolve(&condition.left), resolve, facts.timestamp))
    }

    fn contribution<'v, 'a: 'v>(
        &self,
        facts: &Facts<'_>,
        field: impl Fn(usize) -> Option<&'v FieldValue<'a>>,
    ) -> Option<Contribution> {
        let present = |value: Value| (!value.is_null()).then_some(value);
        let told = |value| Told { message_id: facts.message_id.into(), value };
        Some(match self.reducer {
            Reducer::Count => match self.enough.zip(self.window) {
                Some((enough, window)) => {
                    let has_entered = window.enters(facts.timestamp.millis()) <= facts.received_at.millis();
                    Contribution::Newest { enough, has_entered }
                }
                None => Contribution::Count,
            },
            Reducer::Total(index) => {
                let (number, rounded) = field(index)?.number()?;
                Contribution::Total { number, rounded }
            }
            Reducer::Min(index, cast) => Contribution::Min(present(cast.apply(&field(index)?.value))?),
            Reducer::Max(index, cast) => Contribution::Max(present(cast.apply(&field(index)?.value))?),
            Reducer::First(index) => Contribution::First(told(present(field(index)?.value.clone())?)),
            Reducer::Last(index) => Contribution::Last(told(present(field(index)?.value.clone())?)),
            Reducer::Tally(index, cast) => {
                let value = &field(index)?.value;
                Contribution::Tally(present(cast.map_or_else(|| value.clone(), |cast| cast.apply(value)))?)
            }
        })
    }

    fn read_fields<'a>(&self, facts: &Facts<'a>) -> Vec<FieldValue<'a>> {
        self.fields.iter().map(|field| field.read(facts)).collect()
    }

    fn identity(&self) -> Vec<usize> {
        (0..self.fields.len()).collect()
    }
}

/// The value of one side of a condition of `where`.
fn resolve<'v>(operand: &'v FilterOperand, values: &'v [FieldValue<'_>], slots: &[usize]) -> Cow<'v, Value> {
    const NOTHING: &Value = &Value::Null;
    Cow::Borrowed(match operand {
        FilterOperand::Field(index) => {
            let field = slots.get(*index).and_then(|&slot| values.get(slot));
            field.map_or(NOTHING, |field| &field.value)
        }
        FilterOperand::Literal(value) => value,
    })
}
