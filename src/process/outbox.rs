//! The outbox of a micro-batch: which of its changes are wanted by destinations, written in its own transaction.
//!
//! What is written down is the value and the instant; by which identifiers somebody is named, and what is sent along, is
//! decided when it is sent. Where no destination wants anything, nothing is collected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use sqlx::PgConnection;

use super::catalog::{Catalog, Meta};
use super::consent::Asked;
use super::order::sort_by_time;
use super::work::Work;
use crate::domain::delivery::{Form, Subject, SubscriptionOptions, USER_ID};
use crate::domain::trait_names::is_hidden;
use crate::domain::{Collection, ComputationNo, DestinationNo, Offset, ProfileNo, SpaceNo, Timestamp};
use crate::engine::identity::Settings;
use crate::engine::profile::{OutcomeValue, Profile};
use crate::engine::traits::Traits;
use crate::store::definitions::Kind;
use crate::store::deliveries::NewDelivery;
use crate::store::destinations::subscriptions::{self, Subscription};
use crate::store::identity::Merge;
use crate::store::{Result, consents};

/// A change that some destination wants.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub profile: ProfileNo,
    pub subject: Subject,
    /// 0 for subjects without one.
    pub definition: i32,
    /// JSON text. One for all that want it: an event may be long.
    pub value: Arc<str>,
    pub at: Timestamp,
    /// Whose it was when it happened: one that was absorbed in the same batch, or the same.
    origin: ProfileNo,
    /// The event that made it, where it was one.
    cause: Option<Offset>,
}

impl Change {
    pub(super) fn new(
        profile: ProfileNo,
        (subject, definition): (Subject, i32),
        value: String,
        at: Timestamp,
    ) -> Self {
        let value = value.into();
        Self { profile, subject, definition, value, at, origin: profile, cause: None }
    }

    /// The same, made by an event.
    pub(super) fn by(self, cause: Option<Offset>) -> Self {
        Self { cause, ..self }
    }
}

/// One subscription, as far as it matters here.
#[derive(Debug, Clone)]
struct Wanting {
    destination: DestinationNo,
    subscription: i32,
    forms: Vec<Form>,
    options: SubscriptionOptions,
}

/// What the destinations of a space want.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    by: HashMap<(Subject, i32), Vec<Arc<Wanting>>>,
    /// Versions that answer for definitions that are wanted.
    serving: Vec<(ComputationNo, i32, Subject)>,
    /// Definitions about accounts.
    of_accounts: HashSet<i32>,
    destinations: Vec<DestinationNo>,
    /// Which of them ask for consent.
    pub asked: Asked,
    /// Some of them want to hear how profiles come to be what they are.
    pub updates: bool,
    /// Some of them want events as they came.
    pub events: bool,
}

impl Wanted {
    /// Loads the subscriptions. Part of a fenced transaction, under the version of the configuration it has.
    pub(super) async fn load(tx: &mut PgConnection, space: SpaceNo, catalog: &Catalog) -> Result<Self> {
        let mut wanted = Self::default();
        let mut destinations = BTreeSet::new();
        let list = subscriptions::list(&mut *tx, space, None).await?;
        let plans = catalog.program.computations().iter();
        let plans = plans.filter_map(|c| Some((c.no, c.plan.collection(), catalog.meta.get(&c.no)?)));
        let about: BTreeSet<(Subject, i32, Collection)> =
            plans.clone().map(|(_, of, meta)| (subject_of(meta), meta.definition, of)).collect();
        // A subscription to all leaves out what the destination has another one to, also one that is switched off.
        let own: HashSet<(DestinationNo, Subject, i32)> =
            list.iter().map(|s| (s.destination, s.subject, s.definition)).collect();
        for subscription in list {
            let all = subscription.all();
            let Subscription { destination, no, subject, definition, enabled, forms, options, .. } =
                subscription;
            // What waits of a subscription that was switched off still has to follow merges.
            destinations.insert(destination);
            if !enabled {
                continue;
            }
            let wanting = Wanting { destination, subscription: no, forms: Form::of_set(forms), options };
            let wanting = Arc::new(wanting);
            let covered: Vec<i32> = match all {
                None => vec![definition],
                Some(collection) => {
                    let of = about.iter().filter(|(other, _, of)| *other == subject && *of == collection);
                    let left =
                        of.filter(|(_, definition, _)| !own.contains(&(destination, subject, *definition)));
                    left.map(|(_, definition, _)| *definition).collect()
                }
            };
            for definition in covered {
                wanted.by.entry((subject, definition)).or_default().push(Arc::clone(&wanting));
            }
        }
        if !destinations.is_empty() {
            wanted.asked = Asked::of(consents::list_mappings(tx, space).await?);
        }
        wanted.updates = wanted.wants(Subject::ProfileUpdates, 0);
        wanted.events = wanted.wants(Subject::Events, 0);
        wanted.destinations = destinations.into_iter().collect();
        for (no, collection, meta) in plans {
            if collection == Collection::Accounts {
                wanted.of_accounts.insert(meta.definition);
            }
            let subject = subject_of(meta);
            if meta.serving && wanted.wants(subject, meta.definition) {
                wanted.serving.push((no, meta.definition, subject));
            }
        }
        Ok(wanted)
    }

    /// Whether any destination wants changes of this.
    pub(super) fn wants(&self, subject: Subject, definition: i32) -> bool {
        !self.by.is_empty() && self.by.contains_key(&(subject, definition))
    }

    /// Whether any destination wants values.
    pub(super) fn wants_values(&self) -> bool {
        self.by.keys().any(|(subject, _)| matches!(subject, Subject::ComputedTrait | Subject::CustomTraits))
    }

    /// Rows for all that want these changes.
    pub(super) fn rows(&self, changes: &[Change]) -> Vec<NewDelivery> {
        let mut rows = Vec::with_capacity(changes.len());
        for change in changes {
            self.expand(change, |_| true, &mut rows);
        }
        rows
    }

    /// Destinations with subscriptions: what waits for them follows merges.
    pub(super) fn destinations(&self) -> &[DestinationNo] {
        &self.destinations
    }

    fn expand(&self, change: &Change, only: impl Fn(&Wanting) -> bool, rows: &mut Vec<NewDelivery>) {
        let Some(list) = self.by.get(&(change.subject, change.definition)) else { return };
        for wanting in list.iter().filter(|wanting| only(wanting)) {
            for form in &wanting.forms {
                // There is no user to track.
                if *form == Form::Track && self.of_accounts.contains(&change.definition) {
                    continue;
                }
                rows.push(NewDelivery {
                    destination: wanting.destination,
                    profile: change.profile,
                    origin: change.origin,
                    cause: change.cause,
                    subscription: wanting.subscription,
                    subject: change.subject,
                    form: *form as i16,
                    definition: change.definition,
                    value: Arc::clone(&change.value),
                    at: change.at,
                });
            }
        }
    }
}

const fn subject_of(meta: &Meta) -> Subject {
    match meta.kind {
        Kind::Audience => Subject::Audience,
        Kind::ComputedTrait => Subject::ComputedTrait,
    }
}

/// Turns the changes of a batch, whose transitions are numbered, into rows for queues, in the order of time.
pub(super) fn collect(work: &mut Work, catalog: &Catalog) {
    let wanted = &catalog.wanted;
    if wanted.by.is_empty() {
        return;
    }
    let mut transitions: Vec<_> = work.out.transitions.iter().collect();
    transitions.sort_by_key(|t| t.no);
    let told = transitions.into_iter().filter(|t| wanted.wants(Subject::Audience, t.definition));
    let mut changes: Vec<Change> = told
        .map(|t| Change::new(t.profile, (Subject::Audience, t.definition), t.entered.to_string(), t.at))
        .collect();
    changes.append(&mut work.out.changes);
    changes.extend(merges(work, wanted));
    for change in &mut changes {
        change.profile = work.live(change.profile);
    }
    // Stable: what happened to somebody at one instant stays in its order.
    sort_by_time(&mut changes, |change| {
        ((change.origin, change.subject as i16, change.definition), change.at)
    });
    let mut rows = wanted.rows(&changes);
    again(work, catalog, &changes, &mut rows);
    consented(work, catalog, &changes, &mut rows);
    work.out.deliveries = rows;
}

fn merges(work: &Work, wanted: &Wanted) -> Vec<Change> {
    if !wanted.wants(Subject::Merges, 0) {
        return Vec::new();
    }
    let change = |merge: &Merge| {
        // The number of the other one.
        Change::new(merge.survivor, (Subject::Merges, 0), merge.absorbed.to_string(), merge.at)
    };
    work.out.merges.iter().map(change).collect()
}

/// What has not changed is sent once more where a profile is known by an identifier that was not sent before
/// (personas.md 7.3): the destination could not tell whose it was.
fn again(work: &Work, catalog: &Catalog, changes: &[Change], rows: &mut Vec<NewDelivery>) {
    let wanted = &catalog.wanted;
    let mut news: HashMap<ProfileNo, BTreeSet<&str>> = HashMap::new();
    for new in &work.out.identifiers {
        if let Some(id_type) = catalog.settings.by_no(new.type_no) {
            news.entry(work.live(new.profile)).or_default().insert(&id_type.name);
        }
    }
    for merge in &work.out.merges {
        let survivor = work.live(merge.survivor);
        let Some(entry) = work.entries.get(&survivor) else { continue };
        let types = entry.profile.owned.get().identifiers.iter();
        let names = types.filter_map(|held| Some(catalog.settings.by_no(held.type_no)?.name.as_str()));
        news.entry(survivor).or_default().extend(names);
    }
    if news.is_empty() {
        return;
    }
    let changed: HashSet<(ProfileNo, Subject, i32)> =
        changes.iter().map(|c| (c.profile, c.subject, c.definition)).collect();
    let mut news: Vec<_> = news.into_iter().collect();
    news.sort_unstable_by_key(|(no, _)| *no);
    for (profile, names) in news {
        let Some(entry) = work.entries.get(&profile) else { continue };
        let has_user_id = has_identifier(&entry.profile, &catalog.settings, USER_ID);
        let is_new = |wanting: &Wanting| names.iter().any(|name| wanting.options.sends(name, has_user_id));
        for change in standing(&entry.profile, wanted, present) {
            if !changed.contains(&(profile, change.subject, change.definition)) {
                wanted.expand(&change, is_new, rows);
            }
        }
    }
}

/// Who consents is told of to the destinations that asked for that, also where they left while nothing was told.
fn consented(work: &Work, catalog: &Catalog, changes: &[Change], rows: &mut Vec<NewDelivery>) {
    let wanted = &catalog.wanted;
    let mut all: BTreeMap<ProfileNo, Vec<String>> = BTreeMap::new();
    for (no, given) in &work.out.consented {
        all.entry(work.live(*no)).or_default().extend_from_slice(given);
    }
    for (no, given) in all {
        let Some(entry) = work.entries.get(&no) else { continue };
        let traits = entry.profile.traits.get();
        let begins = |wanting: &Wanting| wanted.asked.begins(wanting.destination, traits, &given);
        for change in standing(&entry.profile, wanted, present_or_past) {
            // Of custom traits a change says what is another now, and nothing of the others.
            let is_told = changes.iter().any(|c| {
                (c.profile, c.subject, c.definition) == (no, change.subject, change.definition)
                    && (c.subject != Subject::CustomTraits || c.value == change.value)
            });
            if !is_told {
                wanted.expand(&change, begins, rows);
            }
        }
    }
}

/// What is true of a profile now, as far as it is wanted.
fn standing(
    profile: &Profile,
    wanted: &Wanted,
    says: fn(&Profile, ComputationNo) -> Option<String>,
) -> Vec<Change> {
    let (no, at) = (profile.no, profile.last_event_at);
    let mut found = Vec::new();
    for (computation, definition, subject) in &wanted.serving {
        let Some(value) = says(profile, *computation) else { continue };
        found.push(Change::new(no, (*subject, *definition), value, at));
    }
    let mut traits = profile.traits.get().iter().filter(|(name, ..)| !is_hidden(name)).peekable();
    if wanted.wants(Subject::CustomTraits, 0) && traits.peek().is_some() {
        let value = object(traits.map(|(name, json, _)| (name, json)));
        found.push(Change::new(no, (Subject::CustomTraits, 0), value, at));
    }
    found
}

/// What a version says of a profile, where that is something.
fn present(profile: &Profile, computation: ComputationNo) -> Option<String> {
    match profile.outcome(computation)?.value {
        OutcomeValue::Member(true) => Some("true".to_owned()),
        OutcomeValue::Value(json) => json,
        OutcomeValue::Member(false) => None,
    }
}

/// The same, and of who was in an audience or had a value that they are, or have, no more.
fn present_or_past(profile: &Profile, computation: ComputationNo) -> Option<String> {
    match profile.outcome(computation)?.value {
        OutcomeValue::Member(is_member) => Some(is_member.to_string()),
        OutcomeValue::Value(json) => Some(json.unwrap_or_else(|| "null".to_owned())),
    }
}

/// What is true of a profile now where anything is, or was while it was another one, as far as that is wanted: of
/// audiences and computed traits.
pub(super) fn compared(
    before: Option<&Profile>,
    now: &Profile,
    wanted: &Wanted,
    at: Timestamp,
) -> Vec<Compared> {
    let compare = |(computation, definition, subject): &(ComputationNo, i32, Subject)| {
        let was = before.and_then(|before| present(before, *computation));
        let is = present(now, *computation);
        let is_other = was != is;
        let none = if *subject == Subject::Audience { "false" } else { "null" };
        let value = is.or(was.map(|_| none.to_owned()))?;
        Some(Compared { change: Change::new(now.no, (*subject, *definition), value, at), is_other })
    };
    wanted.serving.iter().filter_map(compare).collect()
}

/// See [`compared`].
pub(super) struct Compared {
    pub change: Change,
    /// It is another value than before.
    pub is_other: bool,
}

/// Custom traits that are others than before, as a change has them; removed ones are null.
pub(super) fn changed_traits(before: &Traits, now: &Traits, tells_all: bool) -> Option<String> {
    let gone = before.iter().filter(|(name, ..)| now.get(name).is_none()).map(|(name, ..)| (name, "null"));
    let set = now.iter().map(|(name, json, _)| (name, json));
    let set = set.filter(|(name, json)| tells_all || before.get(name) != Some(*json));
    let values: Vec<(&str, &str)> = set.chain(gone).filter(|(name, _)| !is_hidden(name)).collect();
    (!values.is_empty()).then(|| object(values.into_iter()))
}

/// A JSON object of names and JSON texts.
pub(super) fn object<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let entries = entries.map(|(name, json)| format!("{}:{json}", serde_json::Value::from(name)));
    format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
}

fn has_identifier(profile: &Profile, settings: &Settings, name: &str) -> bool {
    let Some(id_type) = settings.by_name(name) else { return false };
    profile.owned.get().identifiers.iter().any(|held| held.type_no == id_type.no)
}
