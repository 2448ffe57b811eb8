//! The events that tell a destination of a change: personas.md 7.2, to the letter.
//!
//! One event per change, whatever the number of identifiers (decisions.md, Destinations): the newest value of a type
//! stands where the protocol has it, and where all values are asked for they are listed in `context.externalIds`. An
//! e-mail address goes into `traits.email` of an identify and `context.traits.email` of any other call.

mod passed_on;

use serde_json::{Map, Value, json};

use super::choice::{Choice, Chosen, Identifier};
use crate::domain::update::{Cause, ProfileUpdate, Update};
use crate::domain::{Collection, Timestamp};

pub use passed_on::{Kept, is_passed_on, pass_on};

/// How a change of a computation is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `identify`: the key is a trait.
    Identify,
    /// `track`, with these names of events.
    Track(EventNames),
}

/// Names of the events that tell of a change, where they are renamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventNames {
    /// `Audience Entered`
    pub entered: String,
    /// `Audience Exited`
    pub exited: String,
    /// `Trait Computed`
    pub computed: String,
}

impl Default for EventNames {
    fn default() -> Self {
        Self {
            entered: "Audience Entered".to_owned(),
            exited: "Audience Exited".to_owned(),
            computed: "Trait Computed".to_owned(),
        }
    }
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change<'a> {
    /// The profile entered an audience, or left it.
    Audience {
        /// `aud_…`
        id: &'a str,
        /// Its key.
        key: &'a str,
        /// Whether it is a member now.
        is_member: bool,
    },
    /// A computed trait has another value.
    ComputedTrait {
        /// `tra_…`
        id: &'a str,
        /// Its key.
        key: &'a str,
        /// The value; null when there is none any more.
        value: &'a Value,
    },
    /// Custom traits have other values: these, null for what was removed.
    CustomTraits(&'a Map<String, Value>),
    /// Another profile has become part of this one.
    Merge {
        /// Public id of the profile that is no more.
        merged: &'a str,
    },
    /// This profile was part of another one, and is one of its own again.
    Separation {
        /// Public id of the profile that it was part of.
        from: &'a str,
    },
    /// Something that made the profile what it is.
    Update {
        /// What, and why.
        update: &'a ProfileUpdate,
        /// Public id and name of the source of the event that did it.
        source: Option<&'a (String, String)>,
    },
    /// The profile was erased.
    Delete {
        /// Public ids of profiles that had become part of it.
        former: &'a [String],
    },
}

/// Whom it happened to, and to whom and when it is told.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// People or accounts.
    pub collection: Collection,
    /// Public id, `prf_…`.
    pub profile_id: &'a str,
    /// Its external ids.
    pub identifiers: &'a [Identifier<'a>],
    /// Its traits, for enrichment.
    pub traits: &'a Map<String, Value>,
}

/// What the event is called and who takes it.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// Same for all attempts.
    pub message_id: &'a str,
    /// When it happened.
    pub at: Timestamp,
    /// `spa_…`, also the namespace.
    pub space_id: &'a str,
    /// Name of the destination, the key in `integrations`.
    pub destination: &'a str,
    /// What the audience or computed trait is used for.
    pub purpose: Option<&'a str>,
    /// What follows from it is decided by a person.
    pub requires_human_review: bool,
}

/// The event for a change, by a destination's choice of data; `None` where its filter does not let it through.
pub fn build(
    change: Change<'_>,
    call: &Call,
    subject: Subject<'_>,
    envelope: Envelope<'_>,
    choice: &Choice,
) -> Option<Value> {
    let (kind, event_name, mut values) = body(change, call, subject);
    let values_field = if kind == "track" { "properties" } else { "traits" };
    let is_delete = matches!(change, Change::Delete { .. });
    if !is_delete {
        choice.enrich(&mut values, subject.traits);
    }
    let mut event = json!({
        "type": kind,
        "messageId": envelope.message_id,
        "timestamp": envelope.at.to_string(),
        "context": {"personas": personas(change, subject, envelope)},
        "integrations": {"All": false, envelope.destination: true},
    });
    set(&mut event, "event", event_name.map(Value::from));
    set(&mut event, values_field, (!is_delete).then_some(Value::Object(values)));
    for chosen in choice.identifiers(subject.identifiers) {
        // What an update says of a trait is what it is about, whatever the identifiers are.
        if let Change::Update { update, .. } = change
            && let Update::Traits(traits) | Update::TraitsMerged(traits) = &update.what
            && chosen.map_to.is_none()
            && traits.contains_key(chosen.id_type)
        {
            continue;
        }
        place(&mut event, &chosen, subject.collection, values_field);
    }
    if !choice.lets_through(&event) {
        return None;
    }
    let personas = event.pointer("/context/personas").cloned();
    choice.restrict(&mut event);
    if matches!(change, Change::Update { .. }) {
        // What it is about is no field of the customer's.
        put_personas(&mut event, personas.unwrap_or_default());
    }
    Some(event)
}

fn put_personas(event: &mut Value, personas: Value) {
    let Some(event) = event.as_object_mut() else { return };
    let context = event.entry("context").or_insert_with(|| json!({}));
    if !context.is_object() {
        *context = json!({});
    }
    set(context, "personas", Some(personas));
}

fn set(event: &mut Value, key: &str, value: Option<Value>) {
    if let (Some(object), Some(value)) = (event.as_object_mut(), value) {
        object.insert(key.to_owned(), value);
    }
}

/// The type of the call, the name of its event and what it says.
fn body<'a>(
    change: Change<'_>,
    call: &'a Call,
    subject: Subject<'_>,
) -> (&'static str, Option<&'a str>, Map<String, Value>) {
    let is_account = subject.collection == Collection::Accounts;
    let identify = if is_account { "group" } else { "identify" };
    let one = |key: &str, value: &Value| Map::from_iter([(key.to_owned(), value.clone())]);
    let track = |name: &'a str, key_name: &str, key: &str, value: &Value| {
        let mut properties = one(key, value);
        properties.insert(key_name.to_owned(), key.into());
        ("track", Some(name), properties)
    };
    match (change, call) {
        (Change::Audience { key, is_member, .. }, Call::Track(names)) if !is_account => {
            let name = if is_member { &names.entered } else { &names.exited };
            track(name, "audience_key", key, &Value::Bool(is_member))
        }
        (Change::ComputedTrait { key, value, .. }, Call::Track(names)) if !is_account => {
            track(&names.computed, "trait_key", key, value)
        }
        (Change::Audience { key, is_member, .. }, _) => (identify, None, one(key, &Value::Bool(is_member))),
        (Change::ComputedTrait { key, value, .. }, _) => (identify, None, one(key, value)),
        (Change::CustomTraits(traits), _) => (identify, None, traits.clone()),
        (Change::Merge { merged }, _) => {
            let mut properties = one("profile_id", &subject.profile_id.into());
            properties.insert("merged_profile_id".to_owned(), merged.into());
            ("track", Some("Profile Merged"), properties)
        }
        (Change::Separation { from }, _) => {
            let mut properties = one("profile_id", &subject.profile_id.into());
            properties.insert("separated_from_profile_id".to_owned(), from.into());
            ("track", Some("Profile Separated"), properties)
        }
        (Change::Update { update, .. }, _) => update_body(update, identify),
        (Change::Delete { .. }, _) => ("delete", None, Map::new()),
    }
}

/// The call an update is told as, in the words of `merges` where those have any.
fn update_body<'a>(
    ProfileUpdate { profile_id, what, .. }: &ProfileUpdate,
    identify: &'static str,
) -> (&'static str, Option<&'a str>, Map<String, Value>) {
    let (name, more): (_, &[(&str, &String)]) = match what {
        Update::Traits(traits) | Update::TraitsMerged(traits) => return (identify, None, traits.clone()),
        Update::Created => ("Profile Created", &[]),
        Update::IdentifierAdded { id_type, id } => ("Identifier Added", &[("type", id_type), ("id", id)]),
        Update::IdentifierRemoved { id_type, id } => ("Identifier Removed", &[("type", id_type), ("id", id)]),
        Update::Merged { merged } => ("Profile Merged", &[("merged_profile_id", merged)]),
        Update::Separated { from } => ("Profile Separated", &[("separated_from_profile_id", from)]),
    };
    let all = [("profile_id", profile_id)].into_iter().chain(more.iter().copied());
    let properties = all.map(|(key, value)| (key.to_owned(), Value::from(value.as_str())));
    ("track", Some(name), properties.collect())
}

/// What did something, as far as it is known.
fn trigger(by: &Cause, source: Option<&(String, String)>) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    let at = |millis| Timestamp::from_millis(millis).to_string();
    json!({
        "id": by.id, "type": text(&by.kind), "name": text(&by.name), "source_id": source.map(|(id, _)| id),
        "source_name": source.map(|(_, name)| name), "timestamp": at(by.at), "received_at": at(by.received_at),
        "offset": by.offset,
    })
}

/// `context.personas`: which computation it is about, and whose profile.
fn personas(change: Change<'_>, subject: Subject<'_>, envelope: Envelope<'_>) -> Value {
    let mut personas = json!({
        "namespace": envelope.space_id,
        "space_id": envelope.space_id,
        "profile_id": subject.profile_id,
    });
    let computation = match change {
        Change::Audience { id, key, .. } => Some(("audience", id, key)),
        Change::ComputedTrait { id, key, .. } => Some(("trait", id, key)),
        Change::Update { update, source } => {
            set(&mut personas, "update", Some(update.what.word().into()));
            set(&mut personas, "segment_id", Some(update.profile_id.clone().into()));
            set(&mut personas, "triggering_event", Some(trigger(&update.by, source)));
            if let Update::Traits(traits) | Update::TraitsMerged(traits) = &update.what {
                set(&mut personas, "changed_traits", Some(traits.keys().cloned().collect()));
            }
            None
        }
        Change::Delete { former } => {
            set(&mut personas, "former_profile_ids", Some(json!(former)));
            None
        }
        Change::CustomTraits(_) | Change::Merge { .. } | Change::Separation { .. } => None,
    };
    if let Some((class, id, key)) = computation {
        set(&mut personas, "computation_class", Some(class.into()));
        set(&mut personas, "computation_id", Some(id.into()));
        set(&mut personas, "computation_key", Some(key.into()));
        set(&mut personas, "purpose", envelope.purpose.map(Value::from));
        set(&mut personas, "requires_human_review", envelope.requires_human_review.then(|| true.into()));
    }
    personas
}

/// Puts the identifiers of one type where they belong. A mapping wins; what has no place of its own is listed.
fn place(event: &mut Value, chosen: &Chosen<'_>, collection: Collection, values_field: &str) {
    let Some(newest) = chosen.values.first().copied() else { return };
    if let Some(target) = chosen.map_to {
        let value = if chosen.is_all { json!(chosen.values) } else { newest.into() };
        return target.put(event, values_field, value);
    }
    let has_place = match chosen.id_type {
        "user_id" => {
            set(event, "userId", Some(newest.into()));
            true
        }
        "anonymous_id" => {
            set(event, "anonymousId", Some(newest.into()));
            true
        }
        "group_id" => {
            set(event, "groupId", Some(newest.into()));
            true
        }
        "email" => {
            let is_identify = event.get("type").is_some_and(|kind| kind == "identify");
            let traits = if is_identify { event.get_mut("traits") } else { context_traits(event) };
            if let Some(traits) = traits {
                set(traits, "email", Some(newest.into()));
            }
            true
        }
        _ => false,
    };
    if chosen.is_all || !has_place {
        let external = chosen.values.iter().map(|value| {
            json!({"id": value, "type": chosen.id_type, "collection": collection.as_str(), "encoding": "none"})
        });
        let context = event.get_mut("context").and_then(Value::as_object_mut);
        let list = context.map(|context| context.entry("externalIds").or_insert_with(|| json!([])));
        if let Some(list) = list.and_then(Value::as_array_mut) {
            list.extend(external);
        }
    }
}

fn context_traits(event: &mut Value) -> Option<&mut Value> {
    Some(event.get_mut("context")?.as_object_mut()?.entry("traits").or_insert_with(|| json!({})))
}

#[cfg(test)]
mod tests;
