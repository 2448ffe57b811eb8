//! Applying events to the working set, in log order: resolve, merge, set traits, link, fold, evaluate.
//!
//! A profile's definitions are evaluated after each of its events, at the instant the event was received, and whatever
//! was due before that happens before it. So entering, leaving and their times follow from the log, and not from how
//! its events were gathered into batches.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::accounts;
use super::acts;
use super::catalog::Catalog;
use super::consent;
use super::evaluate::{Waiting, evaluate, fire, spill};
use super::left_out::LeftOut;
use super::outbox::{self, Change};
use super::refusals::{refuse, refuse_all, suspect};
use super::updates;
use super::work::Work;
use crate::domain::delivery::Subject;
use crate::domain::id_type::TYPES_MAX;
use crate::domain::trait_names::{canonical, is_hidden};
use crate::domain::update::Update;
use crate::domain::{Collection, EventType, IdKey, Offset, ProfileNo, SpaceNo, Timestamp, json};
use crate::engine::identity::resolve::Held;
use crate::engine::identity::{Candidate, Extracted, IdType, Resolution, Rule, TypeNo, extract, resolve};
use crate::engine::profile::Pointer;
use crate::engine::traits::{NAME_CHARS_MAX, TRAITS_MAX, Write};
use crate::store::identity::{Merge, NewIdentifier};
use crate::store::log::codec::Record;
use crate::store::profiles::Link;
use crate::store::rejected::RejectedEvent;

/// Identifiers of one event that are looked at: its most trusted ones. Nobody has so many, and matching compares them.
const IDENTIFIERS_MAX: usize = 100;

/// An event of the batch that counts, with its identifiers.
pub(super) struct Incoming<'a> {
    pub record: &'a Record<'a>,
    pub offset: Offset,
    pub ids: Extracted,
}

/// What events are applied under.
pub(super) struct Ground<'a> {
    pub space: SpaceNo,
    pub catalog: &'a Catalog,
    /// Profiles a walk has still to come to.
    pub waiting: Waiting,
    /// The last instant timers were fired at: nothing is evaluated before it.
    pub fired: Timestamp,
}

/// Which profiles an event went to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attribution {
    pub user: Option<ProfileNo>,
    pub account: Option<ProfileNo>,
}

/// Reads an event's identifiers. Types it names that the settings do not know are added first (I12b).
pub(super) fn identify<'a>(
    record: &'a Record<'a>,
    offset: Offset,
    catalog: &mut Catalog,
    new_types: &mut Vec<IdType>,
) -> Incoming<'a> {
    if record.act {
        return Incoming { record, offset, ids: acts::identifiers(record.body, catalog) };
    }
    let mut ids = extract(&record.parts(), &catalog.settings);
    if !ids.unknown_types.is_empty() && catalog.settings.add_unknown_types {
        for name in std::mem::take(&mut ids.unknown_types) {
            // Write keys are public: whoever has one must not be able to add types without end.
            if catalog.settings.types().count() >= TYPES_MAX {
                break;
            }
            let id_type = IdType::with_defaults(catalog.settings.next_no(), &name);
            if catalog.settings.push(id_type.clone()).is_ok() {
                new_types.push(id_type);
            }
        }
        ids = extract(&record.parts(), &catalog.settings);
    }
    catalog.erased.leave_out(&mut ids, offset);
    bound(&mut ids, record.event_type);
    Incoming { record, offset, ids }
}

/// Reads the identifiers of an event that was applied before.
pub(super) fn identify_again<'a>(record: &'a Record<'a>, offset: Offset, catalog: &Catalog) -> Incoming<'a> {
    if record.act {
        return Incoming { record, offset, ids: acts::identifiers(record.body, catalog) };
    }
    let mut ids = extract(&record.parts(), &catalog.settings);
    catalog.erased.leave_out(&mut ids, offset);
    bound(&mut ids, record.event_type);
    Incoming { record, offset, ids }
}

/// Leaves the identifiers that are looked at.
fn bound(ids: &mut Extracted, event_type: EventType) {
    if ids.users.len() > IDENTIFIERS_MAX {
        ids.left_out = ids.users.split_off(IDENTIFIERS_MAX).len();
    }
    if event_type == EventType::Alias {
        // Stored and delivered, never a reason to merge (T15): only its most trusted identifier counts.
        ids.users.truncate(1);
    }
}

/// Applies one event, or one operator's act.
pub(super) fn apply(work: &mut Work, event: &Incoming<'_>, ground: &Ground<'_>) -> Attribution {
    let Ground { space, catalog, .. } = *ground;
    let record = event.record;
    if catalog.program.has_accounts() {
        accounts::fire_watched(work, record.received_at, catalog, ground.waiting);
    }
    if record.act {
        acts::apply(work, event, ground);
        return Attribution::default();
    }
    let user = settle(work, event, &event.ids.users, Collection::Users, ground);
    let of_user = work.out.arrived.take();
    let account = settle(work, event, &event.ids.accounts, Collection::Accounts, ground);
    let blocked = event.ids.blocked.iter().map(|(type_no, value)| (*type_no, value));
    refuse_all(work, user.or(account).unwrap_or_default(), Rule::Blocked, blocked, event, catalog);
    warn_of_identifiers(work, event, space);
    if user.is_none() && account.is_none() {
        work.out.unidentified += 1;
        work.out.warnings.push(warning(
            space,
            event,
            "no_identifier",
            0,
            "no identifier of the event can be used".into(),
        ));
        return Attribution::default();
    }
    let noted = Pointer { offset: event.offset, at: record.timestamp };
    for no in [user, account].into_iter().flatten() {
        if let Some(entry) = work.entries.get_mut(&no) {
            // Here, and not when the batch is written: what a profile looks like follows from its events alone.
            work.out.pages.extend(spill(entry, catalog));
            entry.profile.note_event(noted, record.received_at, !is_absent(record));
            entry.touched = true;
        }
    }
    if let Some(user) = user {
        let left_out = consent::apply(work, user, record, ground);
        if left_out > 0 {
            let message = format!(
                "{left_out} entries of context.consent.categoryPreferences are not used: an entry is a category's name of at most \
                 246 characters with true or false, at most 100 of them are looked at in an event, and a profile has no room for any number"
            );
            work.out.warnings.push(warning(space, event, "consent_left_out", u32::MAX - 4, message));
        }
    }
    if let Some(no) = user.or(account) {
        let of_account = work.out.arrived.take();
        let arrived = if user.is_some() { of_user } else { of_account };
        updates::raw(work, no, arrived.map(|(_, id)| id), event, catalog);
    }
    match (record.event_type, user, account) {
        (EventType::Identify, Some(user), _) => set_traits(work, space, user, event, catalog),
        (EventType::Group, user, Some(account)) => {
            set_traits(work, space, account, event, catalog);
            if let Some(user) = user {
                link(work, user, account, event, catalog);
            }
            accounts::fold_group(work, account, &record.facts(event.offset), catalog);
        }
        (EventType::Group, Some(_), None) => {
            let message =
                "a group call without a usable groupId: its traits belong to no account and were left out";
            work.out.warnings.push(warning(space, event, "no_group", u32::MAX - 1, message.into()));
        }
        _ => {}
    }
    if let Some(user) = user {
        accounts::fold(work, user, account, &record.facts(event.offset), ground);
    }
    look_at(work, Attribution { user, account }, event, ground);
    Attribution { user, account }
}

/// Tells what of an event's identifiers cannot be used by itself.
fn warn_of_identifiers(work: &mut Work, event: &Incoming<'_>, space: SpaceNo) {
    if let Some(name) = event.ids.unknown_types.first() {
        let message = format!("identifier type {name:?} is not in the settings; the identifier was left out");
        work.out.warnings.push(warning(space, event, "identifier_type_unknown", u32::MAX, message));
    }
    if event.ids.left_out > 0 {
        let message = format!(
            "the event has more than {IDENTIFIERS_MAX} identifiers; the {} least trusted ones were left out",
            event.ids.left_out
        );
        work.out.warnings.push(warning(space, event, "too_many_identifiers", u32::MAX - 2, message));
    }
    if event.ids.misplaced {
        let message = "externalIds of the collection accounts are taken for the type group_id alone, and that of users never; \
            an identifier was left out";
        work.out.warnings.push(warning(space, event, "external_id_misplaced", u32::MAX - 3, message.into()));
    }
}

/// Evaluates what an event has changed, on its user and on accounts.
fn look_at(work: &mut Work, of: Attribution, event: &Incoming<'_>, ground: &Ground<'_>) {
    let Ground { catalog, waiting, fired, .. } = *ground;
    work.out.cause = Some(event.offset);
    if let Some((user, entry)) = of.user.and_then(|no| Some((no, work.entries.get_mut(&no)?))) {
        let at = entry.profile.last_event_at.max(fired);
        evaluate(entry, &mut work.out, catalog, at, waiting);
        work.watch(user);
    }
    if catalog.program.has_accounts() {
        work.changed.extend(of.account);
        accounts::settle(work, catalog, event.record.received_at.max(fired), waiting);
    }
    work.out.cause = None;
}

/// Whether an identify call says that the person was not there when it was sent (personas.md 2.8).
pub(super) fn is_absent(record: &Record<'_>) -> bool {
    record.event_type == EventType::Identify
        && record.context.contains("\"active\"")
        && json::get(record.context, "active") == Some("false")
}

/// Lets happen on a profile what was due when an event was received; returns that instant, which does not go
/// back within a batch.
pub(super) fn catch_up(
    work: &mut Work,
    no: ProfileNo,
    received_at: Timestamp,
    ground: &Ground<'_>,
) -> Timestamp {
    let Some(entry) = work.entries.get_mut(&no) else { return received_at };
    let at = received_at.max(entry.profile.last_event_at).max(ground.fired);
    fire(entry, &mut work.out, ground.catalog, at, ground.waiting);
    at
}

/// The same on profiles that are about to be one: up to the newest event of any of them, because that is when what they are
/// together is looked at.
pub(super) fn catch_up_all(
    work: &mut Work,
    owners: &[ProfileNo],
    received_at: Timestamp,
    ground: &Ground<'_>,
) -> Timestamp {
    let newest = owners.iter().filter_map(|no| Some(work.entries.get(no)?.profile.last_event_at));
    let at = newest.fold(received_at, Timestamp::max);
    owners.iter().fold(at, |at, no| at.max(catch_up(work, *no, at, ground)))
}

pub(super) fn look_again(work: &mut Work, no: ProfileNo, at: Timestamp, ground: &Ground<'_>) {
    if let Some(entry) = work.entries.get_mut(&no) {
        evaluate(entry, &mut work.out, ground.catalog, at, ground.waiting);
        work.watch(no);
    }
    accounts::settle(work, ground.catalog, at, ground.waiting);
}

/// Resolves an event within one collection and makes the graph so.
fn settle(
    work: &mut Work,
    event: &Incoming<'_>,
    candidates: &[Candidate],
    collection: Collection,
    ground: &Ground<'_>,
) -> Option<ProfileNo> {
    let Ground { space, catalog, .. } = *ground;
    let record = event.record;
    let parted = work.suspects.part(candidates);
    let (candidates, quarantined) =
        parted.as_ref().map_or((candidates, &[][..]), |(taken, not)| (taken.as_slice(), not.as_slice()));
    let quarantined = quarantined.iter().map(|c| (c.type_no, &c.value));
    let Some(Resolution { profile, absorbed, added, matched, refusals }) =
        resolve(candidates, record.timestamp, work, &catalog.settings)
    else {
        refuse_all(work, ProfileNo::default(), Rule::Quarantined, quarantined, event, catalog);
        return None;
    };
    let owners: Vec<ProfileNo> = profile.iter().chain(&absorbed).copied().collect();
    catch_up_all(work, &owners, record.received_at, ground);
    let no = profile.unwrap_or_else(|| work.create(collection, event.offset, record.received_at, catalog));
    if profile.is_none() {
        updates::note(work, no, || Update::Created, event, catalog);
    }
    if !absorbed.is_empty() {
        let words = matched.iter().filter_map(|i| candidates.get(*i)).map(|c| identifier_json(c, catalog));
        let matched = serde_json::Value::Array(words.collect());
        let mut joining = Vec::new();
        for other in absorbed {
            joining.extend(updates::joining(work, no, other, catalog));
            work.absorb(no, other, catalog);
            work.out.merges.push(Merge {
                id: merge_id(space, event.offset, other, record.received_at),
                offset: event.offset,
                survivor: no,
                absorbed: other,
                at: record.received_at,
                message_id: record.message_id.to_owned(),
                matched: matched.clone(),
                manual: false,
                undone_at: None,
            });
        }
        updates::joined(work, no, joining, event, catalog);
    }
    for candidate in added.iter().filter_map(|i| candidates.get(*i)) {
        add_identifier(work, no, candidate, event, catalog);
    }
    for refusal in &refusals {
        refuse(work, no, refusal, event, catalog);
        suspect(work, no, refusal, candidates, event, catalog);
    }
    refuse_all(work, no, Rule::Quarantined, quarantined, event, catalog);
    Some(no)
}

fn add_identifier(work: &mut Work, no: ProfileNo, new: &Candidate, event: &Incoming<'_>, catalog: &Catalog) {
    work.owners.insert(new.key, Some(no));
    let Some(entry) = work.entries.get_mut(&no) else { return };
    let held = Held {
        type_no: new.type_no,
        value: new.value.clone(),
        first_seen: event.record.timestamp,
        source: event.record.source,
        message_id: event.record.message_id.to_owned(),
        brought_by: no,
    };
    entry.profile.owned.update(|owned| owned.identifiers.push(held));
    if !entry.profile.is_known && catalog.known_types.contains(&new.type_no) {
        entry.profile.is_known = true;
        // No longer anonymous: definitions that leave anonymous profiles out have to look again.
        if entry.profile.collection == Collection::Users && entry.profile.is_blank() {
            catalog.program.mark_nobody(&mut entry.dirty);
        } else {
            catalog.program.mark_all(&mut entry.dirty);
        }
    }
    work.out.identifiers.push(NewIdentifier {
        key: new.key,
        type_no: new.type_no,
        profile: no,
        value: new.value.clone(),
    });
    let added =
        || Update::IdentifierAdded { id_type: type_name(new.type_no, catalog), id: new.value.clone() };
    updates::note(work, no, added, event, catalog);
}

pub(super) fn set_traits(
    work: &mut Work,
    space: SpaceNo,
    no: ProfileNo,
    event: &Incoming<'_>,
    catalog: &Catalog,
) {
    let record = event.record;
    let Some(entry) = work.entries.get(&no) else { return };
    let held = entry.profile.traits.get();
    let mut room = TRAITS_MAX.saturating_sub(held.len());
    let mut values: Vec<(String, &str)> = Vec::new();
    let mut left_out = LeftOut::default();
    for (name, value) in json::last_of_each(json::entries(record.traits().unwrap_or_default())) {
        if catalog.is_reserved(&canonical(&name)) || is_hidden(&name) {
            left_out.reserved.push(name.into_owned());
        } else if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
            left_out.invalid.push(name.into_owned());
        } else if held.knows(&name) {
            values.push((name.into_owned(), value));
        } else if room > 0 {
            room -= 1;
            values.push((name.into_owned(), value));
        } else {
            left_out.too_many.push(name.into_owned());
        }
    }
    for (seq, (code, message)) in left_out.messages().into_iter().enumerate() {
        work.out.warnings.push(warning(space, event, code, seq as u32 + 1, message));
    }
    let Some(entry) = work.entries.get_mut(&no) else { return };
    let write = Write {
        at: record.timestamp,
        message_id: record.message_id.to_owned(),
        source: record.source,
        public: record.public,
    };
    let changed = entry.profile.traits.update(|traits| {
        let changed = traits.apply(&write, values);
        traits.tidy();
        changed
    });
    for name in &changed {
        catalog.program.mark_trait(&canonical(name), &mut entry.dirty);
    }
    let wants_traits = catalog.wanted.wants(Subject::CustomTraits, 0);
    if !changed.is_empty() && (wants_traits || catalog.wanted.updates) {
        let traits = entry.profile.traits.get();
        let values = changed.iter().map(|name| (name.as_str(), traits.get(name).unwrap_or("null")));
        let value = outbox::object(values);
        // As of its newest event: that never goes back, also where one was received before another and logged after it.
        let at = entry.profile.last_event_at;
        updates::set(work, no, &value, event, catalog);
        if wants_traits {
            let change = Change::new(no, (Subject::CustomTraits, 0), value, at);
            work.out.changes.push(change.by(Some(event.offset)));
        }
    }
}

fn link(work: &mut Work, user: ProfileNo, account: ProfileNo, event: &Incoming<'_>, catalog: &Catalog) {
    if note_link(work, user, account, event.record) {
        accounts::join(work, user, account, catalog);
    }
}

/// Puts a user into an account; false when it is in it already.
pub(super) fn note_link(work: &mut Work, user: ProfileNo, account: ProfileNo, record: &Record<'_>) -> bool {
    let Some(entry) = work.entries.get_mut(&user) else { return false };
    if entry.profile.kin.get().accounts.contains(&account) {
        return false;
    }
    entry.profile.kin.update(|kin| kin.accounts.push(account));
    work.out.links.push(Link {
        account,
        user,
        created_at: record.timestamp,
        source: record.source,
        message_id: record.message_id.to_owned(),
    });
    true
}

pub(super) fn type_name(no: TypeNo, catalog: &Catalog) -> String {
    catalog.settings.by_no(no).map_or_else(String::new, |t| t.name.clone())
}

fn identifier_json(candidate: &Candidate, catalog: &Catalog) -> serde_json::Value {
    serde_json::json!({ "type": type_name(candidate.type_no, catalog), "id": candidate.value })
}

/// Ids of what the processor writes are functions of the log, so that a rebuild gives the same ones.
fn derived_id(space: SpaceNo, offset: Offset, salt: u64, what: u8, at: Timestamp) -> Uuid {
    let mut hash = Sha256::new();
    for number in [u64::from(space.0.unsigned_abs()), offset.0, salt, u64::from(what)] {
        hash.update(number.to_be_bytes());
    }
    let mut bytes = [0; 10];
    for (to, from) in bytes.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    uuid::Builder::from_unix_timestamp_millis(at.millis().max(0).unsigned_abs(), &bytes).into_uuid()
}

pub(super) fn merge_id(space: SpaceNo, offset: Offset, absorbed: ProfileNo, at: Timestamp) -> Uuid {
    derived_id(space, offset, absorbed.0, 1, at)
}

/// A row for the rejected-event list that says what of an accepted event was not used.
fn warning(space: SpaceNo, event: &Incoming<'_>, code: &str, seq: u32, message: String) -> RejectedEvent {
    let record = event.record;
    let shown = serde_json::json!({
        "type": record.event_type.as_str(), "messageId": record.message_id, "userId": record.user_id,
        "anonymousId": record.anonymous_id, "event": record.name,
    });
    RejectedEvent {
        id: derived_id(space, event.offset, u64::from(seq), 2, record.received_at),
        warning: true,
        code: code.to_owned(),
        message,
        field: None,
        message_id: Some(record.message_id.to_owned()),
        source: record.source,
        received_at: record.received_at,
        event: shown.to_string(),
    }
}

/// The keys under which identifiers of the batch may be found.
pub(super) fn keys<'a>(events: &'a [Incoming<'_>]) -> impl Iterator<Item = IdKey> + 'a {
    events.iter().flat_map(|e| e.ids.users.iter().chain(&e.ids.accounts)).map(|c| c.key)
}
