//! What an export says of a profile and of its events. Rows are made for people and other programs: names instead of numbers,
//! and nothing left out.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::{Directory, Person, TraitClass};
use crate::domain::Offset;
use crate::domain::ids::public_id;
use crate::engine::consent;
use crate::engine::identity::resolve::Held;
use crate::engine::traits::Write;
use crate::store::log::Chunk;
use crate::store::log::codec::Record;

/// Who a profile is.
pub(super) fn profile(person: &Person, former: &[String]) -> Value {
    let profile = &person.profile;
    json!({
        "profile_id": person.id(),
        "collection": profile.collection.as_str(),
        "former_ids": former,
        "created_at": profile.created_at.to_string(),
        "last_event_at": profile.last_event_at.to_string(),
        "last_seen_at": profile.last_seen_at.to_string(),
        "first_offset": profile.first_offset.0,
        "last_offset": profile.last_offset.0,
    })
}

pub(super) fn external_ids(person: &Person) -> impl Iterator<Item = Value> + '_ {
    let id = person.id();
    let row = move |held: &Held| {
        json!({
            "profile_id": id,
            "type": person.directory.type_name(held.type_no),
            "id": held.value,
            "first_seen": held.first_seen.to_string(),
            "source_id": person.directory.source_id(held.source),
            "message_id": held.message_id,
        })
    };
    person.profile.owned.get().identifiers.iter().map(row)
}

/// A trait, its value as it was sent, with all its digits.
#[derive(Debug, Serialize)]
pub(super) struct TraitRow {
    profile_id: String,
    name: String,
    value: Box<RawValue>,
    /// `custom`, `computed_trait` or `audience`.
    class: &'static str,
    source_id: Option<String>,
    updated_at: String,
}

pub(super) fn traits(person: &Person) -> Vec<TraitRow> {
    let id = person.id();
    let row = |t: super::super::Trait<'_>| TraitRow {
        profile_id: id.clone(),
        name: t.name.to_owned(),
        value: raw(&t.json),
        class: match t.class {
            TraitClass::Custom => "custom",
            TraitClass::ComputedTrait => "computed_trait",
            TraitClass::Audience => "audience",
        },
        source_id: t.source.and_then(|no| person.directory.source_id(no)),
        updated_at: t.updated_at.to_string(),
    };
    person.traits().into_iter().map(row).collect()
}

pub(super) fn memberships(person: &Person) -> Vec<Value> {
    let id = person.id();
    let row = |a: super::super::Computed| {
        json!({
            "profile_id": id,
            "audience": a.key,
            "entered_at": a.since.to_string(),
            "purpose": a.purpose,
            "requires_human_review": a.requires_human_review,
        })
    };
    person.audiences().into_iter().map(row).collect()
}

pub(super) fn consent(person: &Person) -> Vec<Value> {
    let id = person.id();
    let evidence = |write: &Write| {
        let source = person.directory.source_id(write.source);
        json!({"message_id": write.message_id, "source_id": source, "timestamp": write.at.to_string()})
    };
    let row = |(category, is_given, write): (&str, bool, &Write)| json!({"profile_id": id, "category": category, "consented": is_given, "evidence": evidence(write)});
    consent::preferences(person.profile.traits.get()).map(row).collect()
}

pub(super) fn objections(person: &Person) -> Vec<Value> {
    let id = person.id();
    let row = |(objection, write): (&str, &Write)| json!({"profile_id": id, "id": objection, "at": write.at.to_string()});
    person.objections().map(row).collect()
}

/// An event as the call it was, so that it can be sent again: with where and when it came besides.
#[derive(Debug, Serialize)]
pub(super) struct EventRow {
    offset: u64,
    message_id: String,
    received_at: String,
    /// Of the event; empty where what it said is over.
    name: String,
    source_id: Option<String>,
    clamped: bool,
    /// It said that it makes no profile.
    unprofiled: bool,
    /// It came with a key that anybody may know.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    public: bool,
    /// Whose it was is erased: it is a place in the log, and what it said of an account.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    erased: bool,
    call: BTreeMap<String, Box<RawValue>>,
}

pub(super) fn event(record: &Record<'_>, offset: Offset, directory: &Directory) -> EventRow {
    let fields = record.fields().into_iter();
    let call = fields.map(|(key, value)| (key.into_owned(), raw(&value))).collect();
    EventRow {
        offset: offset.0,
        message_id: record.message_id.to_owned(),
        name: record.name.to_owned(),
        unprofiled: record.unprofiled,
        public: record.public,
        erased: record.erased,
        received_at: record.received_at.to_string(),
        source_id: directory.source_id(record.source),
        clamped: record.clamped,
        call,
    }
}

/// Stored JSON, as it is.
fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The public id of a profile.
pub(super) fn profile_id(id: uuid::Uuid) -> String {
    public_id("prf", id)
}

/// What an operator did to profiles, as it stands in the log.
#[derive(Debug, Serialize)]
pub(super) struct ActRow {
    offset: u64,
    message_id: String,
    received_at: String,
    act: Box<RawValue>,
}

pub(super) fn act(record: &Record<'_>, offset: Offset) -> ActRow {
    ActRow {
        offset: offset.0,
        message_id: record.message_id.to_owned(),
        received_at: record.received_at.to_string(),
        act: raw(record.body),
    }
}

/// A chunk of the log: where it ends, how many events and acts it has, and its day.
pub(super) fn chunk(chunk: &Chunk) -> Value {
    json!({"end_offset": chunk.end_offset.0, "events": chunk.event_count, "day": chunk.day.to_string()})
}
