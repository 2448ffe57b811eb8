//! How profiles came to be what they are, and events as they came, for destinations that want to hear of it. Where none does,
//! each of these functions is one look at a flag.
//!
//! What is told names profiles by the public ids they had then. An event that makes profiles one is told as of the youngest
//! of those that were absorbed: they were apart when it came (personas.md 10.2).

use super::acts::Acting;
use super::apply::{Incoming, type_name};
use super::catalog::Catalog;
use super::outbox::{self, Change};
use super::unmerge::Half;
use super::work::Work;
use crate::domain::delivery::Subject;
use crate::domain::ids::public_id;
use crate::domain::trait_names::is_hidden;
use crate::domain::update::{Cause, OPERATOR, ProfileUpdate, Update};
use crate::domain::{ProfileNo, Timestamp, json};
use crate::engine::identity::resolve::Held;
use crate::engine::profile::Profile;
use crate::engine::traits::Traits;

/// What did it, as it is told.
pub(super) fn cause(event: &Incoming<'_>) -> Cause {
    let record = event.record;
    Cause {
        id: record.message_id.to_owned(),
        kind: if record.act { OPERATOR } else { record.event_type.as_str() }.to_owned(),
        name: record.name.to_owned(),
        source: record.source.0,
        at: record.timestamp.millis(),
        received_at: record.received_at.millis(),
        offset: event.offset.0,
    }
}

/// An update of a profile in work, under the id it has now.
fn tell(work: &mut Work, no: ProfileNo, what: Update, event: &Incoming<'_>) {
    let Some(entry) = work.entries.get(&no) else { return };
    let profile_id = public_id("prf", entry.profile.id);
    // As of its newest event, as all that is told of a profile: that never goes back.
    let at = entry.profile.last_event_at.max(event.record.received_at);
    tell_at(work, no, &ProfileUpdate { profile_id, what, by: cause(event) }, (event, at));
}

fn tell_at(work: &mut Work, no: ProfileNo, update: &ProfileUpdate, (event, at): (&Incoming<'_>, Timestamp)) {
    // Texts, numbers and JSON under fixed names are always JSON.
    let value = serde_json::to_string(update).unwrap_or_default();
    let change = Change::new(no, (Subject::ProfileUpdates, 0), value, at);
    // What an operator did belongs to no event: it goes where the profile is.
    let by = (!event.record.act).then_some(event.offset);
    work.out.changes.push(change.by(by));
}

/// Something became of a profile: it is asked what, and told, where somebody wants to hear of it.
pub(super) fn note(
    work: &mut Work,
    no: ProfileNo,
    what: impl FnOnce() -> Update,
    event: &Incoming<'_>,
    catalog: &Catalog,
) {
    if catalog.wanted.updates {
        tell(work, no, what(), event);
    }
}

/// Custom traits of a profile were changed, to these: a JSON object.
pub(super) fn set(work: &mut Work, no: ProfileNo, traits: &str, event: &Incoming<'_>, catalog: &Catalog) {
    if catalog.wanted.updates
        && let Ok(traits) = serde_json::from_str(traits)
    {
        tell(work, no, Update::Traits(traits), event);
    }
}

/// A profile that is about to become part of another one, and what both say until then.
pub(super) struct Joining {
    absorbed: ProfileNo,
    id: String,
    before: [Traits; 2],
}

/// Remembers what is told of a merge that is about to be made; nothing where nobody wants to hear of it.
pub(super) fn joining(
    work: &Work,
    survivor: ProfileNo,
    absorbed: ProfileNo,
    catalog: &Catalog,
) -> Option<Joining> {
    if !catalog.wanted.updates && !catalog.wanted.events {
        return None;
    }
    let entry = |no: ProfileNo| work.entries.get(&no);
    let before = [survivor, absorbed].map(|no| entry(no).map(|e| e.profile.traits.get().clone()));
    Some(Joining {
        absorbed,
        id: public_id("prf", entry(absorbed)?.profile.id),
        before: before.map(Option::unwrap_or_default),
    })
}

/// Tells of the merges that were made since, and what that has made of traits.
pub(super) fn joined(
    work: &mut Work,
    survivor: ProfileNo,
    joining: Vec<Joining>,
    event: &Incoming<'_>,
    catalog: &Catalog,
) {
    let youngest = joining.iter().max_by_key(|joining| joining.absorbed);
    // An operator's act is no event that could be told.
    if let Some(Joining { absorbed, id, .. }) = youngest.filter(|_| !event.record.act) {
        work.out.arrived = Some((*absorbed, id.clone()));
    }
    if !catalog.wanted.updates {
        return;
    }
    let mut traits = serde_json::Map::new();
    for Joining { id, before, .. } in joining {
        tell(work, survivor, Update::Merged { merged: id }, event);
        let Some(entry) = work.entries.get(&survivor) else { continue };
        let now = entry.profile.traits.get();
        let names = before.iter().flat_map(|before| before.iter().map(move |(name, json, _)| (name, json)));
        for (name, json) in names.filter(|(name, _)| !is_hidden(name)) {
            let is = now.get(name).unwrap_or("null");
            if is != json {
                traits.insert(name.to_owned(), serde_json::from_str(is).unwrap_or_default());
            }
        }
        // What only one of them had is the other one's, too, from now on.
        for (name, json, _) in now.iter().filter(|(name, ..)| !is_hidden(name)) {
            if before.iter().any(|before| before.get(name).is_none()) {
                traits.insert(name.to_owned(), serde_json::from_str(json).unwrap_or_default());
            }
        }
    }
    if !traits.is_empty() {
        tell(work, survivor, Update::TraitsMerged(traits), event);
    }
}

/// Tells of an event as it was received. `arrived` is the id of the profile that it came to, where that is another one since.
pub(super) fn raw(
    work: &mut Work,
    no: ProfileNo,
    arrived: Option<String>,
    event: &Incoming<'_>,
    catalog: &Catalog,
) {
    if !catalog.wanted.events {
        return;
    }
    let Some(entry) = work.entries.get(&no) else { return };
    let record = event.record;
    let profile_id = arrived.unwrap_or_else(|| public_id("prf", entry.profile.id));
    let at = entry.profile.last_event_at.max(record.received_at);
    // Put together of what is JSON already, as a parsed tree costs more than all the rest.
    let mut value = format!(
        r#"{{"profile_id":"{profile_id}","source":{},"received_at":{},"call":{{"#,
        record.source.0,
        record.received_at.millis()
    );
    for (place, (key, json)) in record.fields().iter().enumerate() {
        if place > 0 {
            value.push(',');
        }
        value.push_str(&json::quote(key));
        value.push(':');
        value.push_str(json);
    }
    value.push_str("}}");
    let change = Change::new(no, (Subject::Events, 0), value, at);
    work.out.changes.push(change.by(Some(event.offset)));
}

/// Tells that a merge was taken back: who is one of its own again, with which identifiers, and which of those that had become
/// part of it before (`former`, by their ids) are with it. All of it before anything else that is told of the separated side.
pub(super) fn separated(
    work: &mut Work,
    before: &Profile,
    former: Vec<String>,
    halves: [Half; 2],
    acting: &Acting<'_>,
) {
    let catalog = acting.catalog();
    if !catalog.wanted.updates {
        return;
    }
    let [stays, goes] = halves.map(|half| half.no);
    let (event, at) = (acting.event, acting.received_at());
    let id = |no| super::acts::id_of(work, no);
    let (Some(of_stays), Some(of_goes)) = (id(stays), id(goes)) else { return };
    let by = cause(event);
    let update =
        |profile_id: &String, what| ProfileUpdate { profile_id: profile_id.clone(), what, by: by.clone() };
    let mut told = vec![update(&of_goes, Update::Separated { from: of_stays.clone() })];
    told.extend(former.into_iter().map(|merged| update(&of_goes, Update::Merged { merged })));
    let held = work.entries.get(&goes).map(|entry| entry.profile.owned.get().identifiers.clone());
    for Held { type_no, value, .. } in held.unwrap_or_default() {
        let id_type = type_name(type_no, catalog);
        let gone = Update::IdentifierRemoved { id_type: id_type.clone(), id: value.clone() };
        told.push(update(&of_stays, gone));
        told.push(update(&of_goes, Update::IdentifierAdded { id_type, id: value }));
    }
    for update in &told {
        // All in the queue of the separated side, so that they stay in order.
        tell_at(work, goes, update, (event, at.plus_millis(-1)));
    }
    for (no, profile_id, tells_all) in [(stays, of_stays, false), (goes, of_goes, true)] {
        let Some(entry) = work.entries.get(&no) else { continue };
        let traits = outbox::changed_traits(before.traits.get(), entry.profile.traits.get(), tells_all);
        if let Some(traits) = traits.and_then(|traits| serde_json::from_str(&traits).ok()) {
            let update = &ProfileUpdate { profile_id, what: Update::Traits(traits), by: by.clone() };
            tell_at(work, no, update, (event, at));
        }
    }
}
