//! What a leaf reads of one event: properties, context and what else an event has, and how values are taken.

use crate::domain::{Facts, Number, Path, SourceNo, Value, json, trait_names};

use super::any_item::AnyItem;

/// What a leaf reads of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// `property('a.b')`.
    Property(Path),
    /// The trait of this canonical name that the call writes, as a whole.
    Trait(Path),
    /// `context('a.b')`.
    Context(Path),
    /// `timestamp()`: the event time, as RFC 3339 in UTC.
    Timestamp,
    /// `message_type()`: `track`, `page` or another call.
    MessageType,
    /// `source('…')`: whether that source sent it.
    Source(SourceName),
    /// `any_item('a', …)`: whether one element of the list `property('a')` satisfies a condition.
    AnyItem(Box<AnyItem>),
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
            Self::Trait(path) => format!("trait({})", json::quote(path.head())),
            Self::Context(path) => format!("context({})", json::quote(&path.to_string())),
            Self::Timestamp => "timestamp()".to_owned(),
            Self::MessageType => "message_type()".to_owned(),
            Self::Source(source) => format!("source({})", json::quote(&source.name)),
            Self::AnyItem(item) => item.canonical(),
        }
    }

    /// Finds out which source is meant, where one is named.
    pub(in crate::engine) fn bind_source(&mut self, find: &dyn Fn(&str) -> Option<SourceNo>) {
        match self {
            Self::Source(source) => source.no = find(&source.name),
            Self::AnyItem(item) => item.bind_source(find),
            _ => {}
        }
    }

    /// The path of what it reads of the properties.
    pub(in crate::engine) const fn in_properties(&self) -> Option<&Path> {
        match self {
            Self::Property(path) | Self::Trait(path) => Some(path),
            Self::AnyItem(item) => Some(item.path()),
            _ => None,
        }
    }

    /// The outermost key of the property it reads, if it reads any; `None` when it has to see more of the event.
    #[expect(clippy::option_option, reason = "reading no property is not the same as reading more than one")]
    pub(in crate::engine) fn property_key(&self) -> Option<Option<&str>> {
        match self {
            Self::Trait(_) | Self::Context(_) => None,
            Self::Property(path) => Some(Some(path.head())),
            Self::AnyItem(item) => Some(Some(item.path().head())),
            Self::Timestamp | Self::MessageType | Self::Source(_) => Some(None),
        }
    }

    /// Whether the value of this key is where it reads.
    pub(in crate::engine) fn is_at(&self, path: &Path, key: &str) -> bool {
        path.head() == key || (matches!(self, Self::Trait(_)) && path.head() == trait_names::canonical(key))
    }

    /// The path of what it reads of the context.
    pub(in crate::engine) const fn in_context(&self) -> Option<&Path> {
        match self {
            Self::Context(path) => Some(path),
            _ => None,
        }
    }

    /// Reads this field of one event. To read many fields of an event use [`crate::engine::Program`].
    pub fn read<'a>(&self, facts: &Facts<'a>) -> FieldValue<'a> {
        let raw = match (self.in_properties(), self.in_context()) {
            (Some(path), _) => self.find(facts.properties, path),
            (None, Some(path)) => self.find(facts.context, path),
            (None, None) => None,
        };
        self.read_head(raw, facts)
    }

    fn find<'a>(&self, object: &'a str, path: &Path) -> Option<&'a str> {
        if !matches!(self, Self::Trait(_)) {
            return json::get(object, path.head());
        }
        json::entries(object).filter(|(key, _)| self.is_at(path, key)).last().map(|(_, value)| value)
    }

    /// The same where the value of the path's outermost key is already found.
    pub(in crate::engine) fn read_head<'a>(&self, raw: Option<&'a str>, facts: &Facts<'a>) -> FieldValue<'a> {
        match self {
            Self::Property(path) | Self::Context(path) if path.reads_list() => {
                FieldValue::of_items(raw.map(|raw| path.walk_each(raw)).unwrap_or_default())
            }
            Self::Property(path) | Self::Context(path) => {
                FieldValue::from_raw(raw.and_then(|raw| path.walk_tail(raw)))
            }
            Self::Trait(_) => FieldValue::from_raw(raw),
            Self::Timestamp => FieldValue::of(facts.timestamp.to_string().as_str().into()),
            Self::MessageType => FieldValue::of(facts.event_type.as_str().into()),
            Self::Source(source) => FieldValue::of((source.no == Some(facts.source)).into()),
            Self::AnyItem(item) => {
                let raw = raw.unwrap_or_default();
                FieldValue { raw, ..FieldValue::of(item.holds(raw, facts).into()) }
            }
        }
    }

    /// Whether it is a condition by itself: true or false, whatever the event.
    pub(in crate::engine) const fn is_condition(&self) -> bool {
        matches!(self, Self::Source(_) | Self::AnyItem(_))
    }
}

/// A field of one event.
#[derive(Debug, Clone, Default)]
pub struct FieldValue<'a> {
    pub(super) raw: &'a str,
    pub(super) value: Value,
    /// The elements of a list, where the path means those; `value` is then all of them together.
    pub(super) items: Option<Vec<FieldValue<'a>>>,
}

impl<'a> FieldValue<'a> {
    /// From the raw JSON that was found, if any.
    pub fn from_raw(raw: Option<&'a str>) -> Self {
        raw.map_or_else(Self::default, |raw| Self { raw, value: Value::from_json(raw), items: None })
    }

    /// The value; of the elements of a list all of them together.
    pub(in crate::engine) const fn value(&self) -> &Value {
        &self.value
    }

    /// The elements of a list, where the path means those.
    pub(in crate::engine) fn items(&self) -> Option<&[Self]> {
        self.items.as_deref()
    }

    const fn of(value: Value) -> Self {
        Self { raw: "", value, items: None }
    }

    pub(super) fn of_items(raws: Vec<&'a str>) -> Self {
        let items: Vec<Self> = raws.into_iter().map(|raw| Self::from_raw(Some(raw))).collect();
        let value =
            if items.is_empty() { Value::Null } else { Value::list(items.iter().map(|item| &item.value)) };
        Self { raw: "", value, items: Some(items) }
    }

    /// The number this is, and whether its literal had more digits than are kept.
    pub(super) fn number(&self) -> Option<(Number, bool)> {
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

/// How values are taken: `as number`, `as string`, `as array`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cast {
    /// Numbers, and strings that wholly are one; others are ignored.
    Number,
    /// The canonical text of anything that is not null.
    String,
    /// A list as a whole; others are ignored.
    Array,
}

impl Cast {
    pub(super) fn apply(self, value: &Value) -> Value {
        match self {
            Self::Number => value.as_number().map_or(Value::Null, Value::Number),
            Self::String if value.is_null() => Value::Null,
            Self::String => value.text().as_ref().into(),
            Self::Array => match value {
                Value::Json(text) if text.starts_with('[') => value.clone(),
                _ => Value::Null,
            },
        }
    }

    /// The word in the language.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
        }
    }
}
