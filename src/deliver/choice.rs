//! Which of a profile's data a destination gets: identifiers (ID Sync), traits beside the change (Trait Enrichment), the
//! filter, and the fields that may be in it.
//!
//! Settings are judged when they are saved, so a choice that exists can be applied. Filter and field lists are applied in
//! Segment's order (personas.md 7.8): the filter sees the whole event, then denied fields go, then all that is not
//! allowed.

mod fields;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::kind::Invalid;
use crate::domain::Timestamp;
use crate::domain::identifier::is_type_name;
use crate::domain::trait_names::canonical;
use crate::engine::fql::Fql;
pub use fields::Field;

/// Types in an ID Sync (personas.md 7.4).
const ID_SYNC_MAX: usize = 5;
/// Of these, with the strategy `all`.
const ID_SYNC_ALL_MAX: usize = 3;
/// Traits that are sent beside a change.
const TRAITS_MAX: usize = 100;
/// Paths in a field list.
const FIELDS_MAX: usize = 200;

/// An external id of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identifier<'a> {
    /// Its type, such as `email`.
    pub id_type: &'a str,
    /// Its value.
    pub value: &'a str,
    /// When the profile got it.
    pub first_seen: Timestamp,
}

/// Which values of a type are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The oldest.
    First,
    /// The newest.
    Last,
    /// All of them.
    All,
}

/// One type of identifiers that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdSync {
    /// The type, such as `email`.
    pub id_type: String,
    /// Which of its values.
    pub strategy: Strategy,
    /// Where in the event they go; where the protocol has them when there is none.
    pub map_to: Option<Field>,
}

/// Identifiers of one type, chosen for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen<'a> {
    /// The type.
    pub id_type: &'a str,
    /// The values, newest first; never empty.
    pub values: Vec<&'a str>,
    /// Whether all values were asked for, be it one.
    pub is_all: bool,
    /// Where they go, when not to the usual place.
    pub map_to: Option<&'a Field>,
}

/// What a destination gets of a profile and a change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Choice {
    /// Types of identifiers; empty for the default (decisions.md, Destinations).
    id_sync: Vec<IdSync>,
    /// Traits to be copied: which, and under which name.
    traits: Vec<(String, String)>,
    filter: Option<Fql>,
    /// What may be sent; empty for everything.
    allow: Vec<Field>,
    deny: Vec<Field>,
}

/// As it is written in a destination's settings.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Written {
    id_sync: Vec<WrittenIdSync>,
    traits: Vec<WrittenTrait>,
    filter: Option<String>,
    allow: Vec<String>,
    deny: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenIdSync {
    #[serde(rename = "type", alias = "external_id", alias = "externalId")]
    id_type: String,
    strategy: Strategy,
    #[serde(alias = "mapTo")]
    map_to: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenTrait {
    Name(String),
    Renamed {
        #[serde(rename = "trait")]
        name: String,
        #[serde(rename = "as")]
        sent_as: String,
    },
}

fn invalid(field: impl Into<String>, message: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), message: message.into() }
}

impl Choice {
    /// Reads and judges the settings `id_sync`, `traits`, `filter`, `allow` and `deny` of an object; all may be absent.
    pub fn parse(settings: &Value) -> Result<Self, Invalid> {
        let written = Written::deserialize(settings).map_err(|error| invalid("data", error.to_string()))?;
        Ok(Self {
            id_sync: read_id_sync(written.id_sync)?,
            traits: read_traits(written.traits)?,
            filter: written
                .filter
                .map(|text| Fql::parse(&text).map_err(|error| invalid("filter", error.to_string())))
                .transpose()?,
            allow: read_fields("allow", &written.allow)?,
            deny: read_fields("deny", &written.deny)?,
        })
    }

    /// The identifiers that are sent: by the settings, or the newest `user_id`, `email`, `group_id`, and `anonymous_id`
    /// where there is no `user_id`.
    pub fn identifiers<'a>(&'a self, all: &[Identifier<'a>]) -> Vec<Chosen<'a>> {
        if self.id_sync.is_empty() {
            return default_identifiers(all);
        }
        let chosen = self.id_sync.iter().map(|sync| {
            let mut values = newest_first(all, &sync.id_type);
            match sync.strategy {
                Strategy::First => drop(values.drain(..values.len().saturating_sub(1))),
                Strategy::Last => values.truncate(1),
                Strategy::All => {}
            }
            let is_all = sync.strategy == Strategy::All;
            Chosen { id_type: &sync.id_type, values, is_all, map_to: sync.map_to.as_ref() }
        });
        chosen.filter(|chosen| !chosen.values.is_empty()).collect()
    }

    /// Copies the chosen traits to where the values of an event are, its `traits` or `properties`. What a trait already
    /// says there is what has changed, and stays.
    pub fn enrich(&self, values: &mut Map<String, Value>, traits: &Map<String, Value>) {
        for (name, sent_as) in &self.traits {
            let found = traits.get(name).or_else(|| {
                let same = |(other, _): &(&String, &Value)| canonical(other) == canonical(name);
                traits.iter().find(same).map(|(_, value)| value)
            });
            if let Some(value) = found {
                values.entry(sent_as.as_str()).or_insert_with(|| value.clone());
            }
        }
    }

    /// Whether the filter lets an event through.
    pub fn lets_through(&self, event: &Value) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(event))
    }

    /// Removes the fields that are not to be sent. What makes it an event of the protocol stays.
    pub fn restrict(&self, event: &mut Value) {
        self.deny.iter().for_each(|field| field.remove_from(event));
        if !self.allow.is_empty() {
            fields::keep_only(&self.allow, event);
        }
    }
}

fn default_identifiers<'a>(all: &[Identifier<'a>]) -> Vec<Chosen<'a>> {
    let newest = |id_type: &'static str| {
        let value = newest_first(all, id_type).into_iter().next()?;
        Some(Chosen { id_type, values: vec![value], is_all: false, map_to: None })
    };
    let user_id = newest("user_id");
    let anonymous_id = if user_id.is_none() { newest("anonymous_id") } else { None };
    [user_id, newest("email"), anonymous_id, newest("group_id")].into_iter().flatten().collect()
}

fn newest_first<'a>(all: &[Identifier<'a>], id_type: &str) -> Vec<&'a str> {
    let mut found: Vec<_> = all.iter().filter(|identifier| identifier.id_type == id_type).collect();
    // The value breaks ties: two servers choose the same.
    found.sort_by_key(|identifier| std::cmp::Reverse((identifier.first_seen, identifier.value)));
    found.into_iter().map(|identifier| identifier.value).collect()
}

fn read_id_sync(written: Vec<WrittenIdSync>) -> Result<Vec<IdSync>, Invalid> {
    if written.len() > ID_SYNC_MAX {
        return Err(invalid("id_sync", format!("at most {ID_SYNC_MAX} types can be sent")));
    }
    if written.iter().filter(|entry| entry.strategy == Strategy::All).count() > ID_SYNC_ALL_MAX {
        return Err(invalid(
            "id_sync",
            format!("at most {ID_SYNC_ALL_MAX} types can have the strategy `all`"),
        ));
    }
    let mut read: Vec<IdSync> = Vec::new();
    for (place, WrittenIdSync { id_type, strategy, map_to }) in written.into_iter().enumerate() {
        if !is_type_name(&id_type) {
            let message = "a type is written in lower case letters, digits, `_` and `.`, such as `email`";
            return Err(invalid(format!("id_sync[{place}].type"), message));
        }
        if read.iter().any(|known| known.id_type == id_type) {
            return Err(invalid(format!("id_sync[{place}].type"), format!("`{id_type}` is listed twice")));
        }
        let map_to = map_to
            .map(|text| Field::parse_target(&text))
            .transpose()
            .map_err(|message| invalid(format!("id_sync[{place}].map_to"), message))?;
        read.push(IdSync { id_type, strategy, map_to });
    }
    Ok(read)
}

fn read_traits(written: Vec<WrittenTrait>) -> Result<Vec<(String, String)>, Invalid> {
    if written.len() > TRAITS_MAX {
        return Err(invalid("traits", format!("at most {TRAITS_MAX} traits can be sent beside a change")));
    }
    let mut read: Vec<(String, String)> = Vec::new();
    for (place, entry) in written.into_iter().enumerate() {
        let (name, sent_as) = match entry {
            WrittenTrait::Name(name) => (name.clone(), name),
            WrittenTrait::Renamed { name, sent_as } => (name, sent_as),
        };
        if name.is_empty() || sent_as.is_empty() {
            return Err(invalid(format!("traits[{place}]"), "the name of a trait cannot be empty"));
        }
        if read.iter().any(|(_, known)| *known == sent_as) {
            return Err(invalid(format!("traits[{place}]"), format!("two traits are sent as `{sent_as}`")));
        }
        read.push((name, sent_as));
    }
    Ok(read)
}

fn read_fields(list: &str, written: &[String]) -> Result<Vec<Field>, Invalid> {
    if written.len() > FIELDS_MAX {
        return Err(invalid(list, format!("at most {FIELDS_MAX} fields can be listed")));
    }
    let read = |(place, text): (usize, &String)| {
        Field::parse_listed(text).map_err(|message| invalid(format!("{list}[{place}]"), message))
    };
    written.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests;
