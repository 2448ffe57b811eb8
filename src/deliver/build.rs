//! From rows of a queue to the events that are sent: whose identifiers, which traits beside, and what the filter says are
//! read when it is sent, the change itself was written down when it happened.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::{Map, Value};
use sqlx::postgres::PgPool;
use tokio::time::Instant;

use super::choice::{Choice, Identifier};
use super::ids::delivery_id;
use super::kind::{Item, Reason};
use super::kinds;
use super::payload::{self, Call, Change, Envelope, EventNames, Kept, Subject as Whose};
use crate::domain::delivery::{Form, OtherProfile, Subject};
use crate::domain::id_type::TypeNo;
use crate::domain::ids::public_id;
use crate::domain::regulation::{Erased, Known};
use crate::domain::trait_names::is_hidden;
use crate::domain::update::{ProfileUpdate, SentEvent, SourceNames};
use crate::domain::{Collection, ComputationNo, DestinationNo, ProfileNo, SpaceNo, Timestamp};
use crate::engine::consent;
use crate::engine::profile::{OutcomeValue, Profile};
use crate::store::deliveries::queue::{DefinitionRow, Queued};
use crate::store::destinations::Destination;
use crate::store::destinations::subscriptions::{self, Subscription};
use crate::store::profiles::{self, Loaded};
use crate::store::{Result, StoreError, consents, deliveries, identity_settings, sources, walled};

/// What a definition is used for may be this old when it is told.
const WORDS_FRESH: Duration = Duration::from_secs(1);

/// How a subscription is sent.
#[derive(Debug)]
struct Sending {
    choice: Choice,
    names: EventNames,
    /// Traits are copied beside the change.
    enriches: bool,
}

/// A definition, as far as it is sent.
#[derive(Debug)]
struct Told {
    id: String,
    key: String,
    serving: Option<ComputationNo>,
    purpose: Option<String>,
    requires_human_review: bool,
}

/// What is sent of a row.
#[derive(Debug)]
pub(super) enum Built {
    /// This.
    Item(Item),
    /// Nothing, and why.
    Nothing(Reason),
}

/// Builds events for one destination.
#[derive(Debug)]
pub(super) struct Builder {
    space: SpaceNo,
    space_id: String,
    no: DestinationNo,
    destination: uuid::Uuid,
    name: String,
    subscriptions: HashMap<i32, Sending>,
    definitions: HashMap<i32, Told>,
    types: HashMap<TypeNo, String>,
    sources: SourceNames,
    /// It keeps what it is told by the profile's id.
    is_store: bool,
    /// What people have to consent to before the destination is told of them.
    categories: Vec<String>,
    /// When words were read last.
    reloaded: Option<Instant>,
}

fn nothing(code: &str, message: &str) -> Built {
    Built::Nothing(Reason { code: code.to_owned(), message: message.to_owned() })
}

impl Builder {
    /// Reads what the destination wants and how.
    pub(super) async fn load(pool: &PgPool, space: SpaceNo, destination: &Destination) -> Result<Self> {
        let space_id = deliveries::queue::space_key(pool, space).await?;
        let mut builder = Self {
            space,
            space_id: format!("spa_{space_id}"),
            no: destination.no,
            destination: destination.id,
            name: destination.name.clone(),
            subscriptions: HashMap::new(),
            definitions: HashMap::new(),
            types: HashMap::new(),
            sources: SourceNames::new(),
            is_store: kinds::find(&destination.kind).is_some_and(|spec| spec.is_store),
            reloaded: None,
            categories: consents::list_categories_of(pool, space, destination.no).await?,
        };
        builder.reload_subscriptions(pool).await?;
        builder.reload_words(pool).await?;
        Ok(builder)
    }

    /// What is wanted, and how. A change may be in the queue before the worker is told of the subscription that wants it.
    async fn reload_subscriptions(&mut self, pool: &PgPool) -> Result<()> {
        for Subscription { no, options, .. } in subscriptions::list(pool, self.space, Some(self.no)).await? {
            let wrong = |w: super::kind::Invalid| StoreError::Damaged(format!("{}: {}", w.field, w.message));
            let choice = Choice::parse(&options.data).map_err(wrong)?;
            let traits = options.data.get("traits").and_then(Value::as_array);
            let names = EventNames {
                entered: options.entered_event,
                exited: options.exited_event,
                computed: options.computed_event,
            };
            let enriches = traits.is_some_and(|traits| !traits.is_empty());
            self.subscriptions.insert(no, Sending { choice, names, enriches });
        }
        Ok(())
    }

    /// Definitions and identifier types, which come and go without the destination being changed.
    async fn reload_words(&mut self, pool: &PgPool) -> Result<()> {
        let types = identity_settings::read_settings(&walled(pool, self.space), self.space).await?.types;
        self.types = types.into_iter().map(|t| (t.no, t.name)).collect();
        let mut connection = pool.acquire().await?;
        let sources = sources::list_source_names(&mut connection, self.space).await?.into_iter();
        self.sources = sources.map(|(no, id, name)| (no.0, (public_id("src", id), name))).collect();
        drop(connection);
        let told = deliveries::queue::list_definitions(pool, self.space).await?;
        self.definitions = told
            .into_iter()
            .map(|row| {
                let DefinitionRow { no, kind, id, key, serving, purpose, requires_human_review } = row;
                let id = public_id(kind.prefix(), id);
                (no, Told { id, key, serving, purpose, requires_human_review })
            })
            .collect();
        self.reloaded = Some(Instant::now());
        Ok(())
    }

    /// Builds what is sent of some rows, in their order.
    pub(super) async fn build(
        &mut self,
        pool: &PgPool,
        rows: &[&Queued],
        attempts: &[u32],
    ) -> Result<Vec<Built>> {
        let is_subscribed = |row: &&Queued| {
            row.subject == Subject::Deletion || self.subscriptions.contains_key(&row.subscription)
        };
        if !rows.iter().all(is_subscribed) {
            self.reload_subscriptions(pool).await?;
        }
        let profiles = load(pool, self.space, rows.iter().map(|row| row.profile)).await?;
        let merges = rows.iter().filter(|row| row.subject == Subject::Merges);
        let others: Vec<i64> = merges.filter_map(|row| Some(other(&row.value)?.number())).collect();
        let others: HashMap<i64, String> = if others.is_empty() {
            HashMap::new()
        } else {
            let ids = deliveries::queue::list_profile_ids(pool, self.space, &others).await?;
            ids.into_iter().map(|(no, id)| (no, public_id("prf", id))).collect()
        };
        let knows = |row: &&&Queued| row.definition == 0 || self.definitions.contains_key(&row.definition);
        let enriches =
            rows.iter().any(|row| self.subscriptions.get(&row.subscription).is_some_and(|s| s.enriches));
        let held = || profiles.values().flat_map(|(_, p)| p.owned.get().identifiers.iter());
        if enriches
            || self.reloaded.is_none_or(|at| at.elapsed() > WORDS_FRESH)
            || !rows.iter().all(|row| knows(&row))
            || held().any(|h| !self.types.contains_key(&h.type_no))
        {
            self.reload_words(pool).await?;
        }
        let built = rows.iter().zip(attempts).map(|(row, attempts)| {
            if row.subject == Subject::Deletion {
                return self.deletion(row, *attempts);
            }
            let Some((_, profile)) = profiles.get(&row.profile) else {
                return nothing("PROFILE_GONE", "the profile is no more");
            };
            self.one(row, *attempts, profile, &others)
        });
        Ok(built.collect())
    }

    /// Whether it may be told of people only as far as they consent.
    pub(super) fn asks_for_consent(&self) -> bool {
        !self.categories.is_empty()
    }

    fn one(&self, row: &Queued, attempts: u32, profile: &Profile, others: &HashMap<i64, String>) -> Built {
        let Some(sending) = self.subscriptions.get(&row.subscription) else {
            return nothing("NO_MATCHING_MAPPING", "the subscription that wanted it was removed");
        };
        if profile.collection == Collection::Users
            && let Some(category) = consent::missing(profile.traits.get(), &self.categories)
        {
            return nothing(
                "filtered_by_consent",
                &format!("there is no consent to the category {category}"),
            );
        }
        if row.subject == Subject::Events {
            return self.event(row, attempts, profile, sending);
        }
        let told = self.definitions.get(&row.definition);
        let update = (row.subject == Subject::ProfileUpdates).then(|| serde_json::from_str(&row.value));
        let update: Option<ProfileUpdate> = update.and_then(std::result::Result::ok);
        let value: Value = serde_json::from_str(&row.value).unwrap_or_default();
        let change = match (row.subject, told, &value) {
            (Subject::Audience, Some(Told { id, key, .. }), value) => {
                Change::Audience { id, key, is_member: *value == Value::Bool(true) }
            }
            (Subject::ComputedTrait, Some(Told { id, key, .. }), value) => {
                Change::ComputedTrait { id, key, value }
            }
            (Subject::CustomTraits, _, Value::Object(traits)) => Change::CustomTraits(traits),
            (Subject::ProfileUpdates, ..) if let Some(update) = &update => {
                Change::Update { update, source: self.sources.get(&update.by.source) }
            }
            (Subject::Merges, ..) => {
                let other = other(&row.value);
                match (other, other.and_then(|other| others.get(&other.number()))) {
                    (Some(OtherProfile::Absorbed(_)), Some(merged)) => Change::Merge { merged },
                    (Some(OtherProfile::Separated { .. }), Some(from)) => Change::Separation { from },
                    _ => return nothing("PROFILE_GONE", "the other profile is no more"),
                }
            }
            _ => return nothing("NO_MATCHING_MAPPING", "what it is about is no more"),
        };
        let names = |no: &TypeNo| self.types.get(no).map(String::as_str);
        let owned = profile.owned.get();
        let identifiers = owned.identifiers.iter().filter_map(|held| {
            Some(Identifier {
                id_type: names(&held.type_no)?,
                value: &held.value,
                first_seen: held.first_seen,
            })
        });
        let identifiers: Vec<Identifier<'_>> = identifiers.collect();
        let is_known_by_id = self.is_store && row.subject == Subject::ProfileUpdates;
        if !is_known_by_id && sending.choice.identifiers(&identifiers).is_empty() {
            return nothing("NO_IDENTIFIER", "the profile has none of the identifiers that are sent");
        }
        let profile_id = public_id("prf", profile.id);
        let traits = if sending.enriches { self.traits(profile) } else { Map::new() };
        let id = delivery_id(self.destination, row.no, row.at);
        let call = match row.form {
            Form::Identify => Call::Identify,
            Form::Track => Call::Track(sending.names.clone()),
        };
        let whose = Whose {
            collection: profile.collection,
            profile_id: &profile_id,
            identifiers: &identifiers,
            traits: &traits,
        };
        let envelope = Envelope {
            purpose: told.and_then(|told| told.purpose.as_deref()),
            requires_human_review: told.is_some_and(|told| told.requires_human_review),
            ..self.envelope(&id, row.at)
        };
        match payload::build(change, &call, whose, envelope, &sending.choice) {
            Some(event) => {
                Built::Item(Item { id, profile: profile.no, profile_id, at: row.at, attempts, event })
            }
            None => nothing("FILTERED_BY_RULES", "the filter of the subscription does not let it through"),
        }
    }

    /// An event as it came.
    fn event(&self, row: &Queued, attempts: u32, profile: &Profile, sending: &Sending) -> Built {
        let Ok(sent) = serde_json::from_str::<SentEvent>(&row.value) else {
            return nothing("NO_MATCHING_MAPPING", "the event cannot be read any more");
        };
        let id = delivery_id(self.destination, row.no, row.at);
        let profile_id = public_id("prf", profile.id);
        let envelope = self.envelope(&id, row.at);
        let (source, by) = (self.sources.get(&sent.source), (&sending.choice, self.is_store));
        match payload::pass_on(sent, &profile_id, source, envelope, by) {
            Ok(event) => {
                Built::Item(Item { id, profile: profile.no, profile_id, at: row.at, attempts, event })
            }
            Err(Kept::Filter) => {
                nothing("FILTERED_BY_RULES", "the filter of the subscription does not let it through")
            }
            Err(Kept::Integrations) => {
                nothing("FILTERED_BY_INTEGRATIONS", "the event says in `integrations` that it is not for it")
            }
        }
    }

    /// What is called what, where no definition is told of.
    fn envelope<'a>(&'a self, message_id: &'a str, at: Timestamp) -> Envelope<'a> {
        let (space_id, destination) = (&self.space_id, &self.name);
        Envelope { message_id, at, space_id, destination, purpose: None, requires_human_review: false }
    }

    /// What tells of a profile that is no more: whom it was known as is in the row.
    fn deletion(&self, row: &Queued, attempts: u32) -> Built {
        let Ok(Erased { profile_id, former_ids, identifiers }) = serde_json::from_str::<Erased>(&row.value)
        else {
            return nothing("PROFILE_GONE", "whom it is about was forgotten");
        };
        let identifiers: Vec<Identifier<'_>> = identifiers.iter().map(known).collect();
        let id = delivery_id(self.destination, row.no, row.at);
        let whose = Whose {
            collection: Collection::Users,
            profile_id: &profile_id,
            identifiers: &identifiers,
            traits: &Map::new(),
        };
        let envelope = self.envelope(&id, row.at);
        let change = Change::Delete { former: &former_ids };
        match payload::build(change, &Call::Identify, whose, envelope, &Choice::default()) {
            Some(event) => {
                Built::Item(Item { id, profile: row.profile, profile_id, at: row.at, attempts, event })
            }
            None => nothing("FILTERED_BY_RULES", "there is no filter of deletions"),
        }
    }

    /// All traits of a profile: custom ones, computed ones and audiences.
    fn traits(&self, profile: &Profile) -> Map<String, Value> {
        let custom = profile.traits.get();
        let parse = |json: &str| serde_json::from_str(json).unwrap_or_default();
        let mut traits: Map<String, Value> = custom
            .iter()
            .filter(|(name, ..)| !is_hidden(name))
            .map(|(name, json, _)| (name.to_owned(), parse(json)))
            .collect();
        for Told { key, serving, .. } in self.definitions.values() {
            let Some(outcome) = serving.and_then(|no| profile.outcome(no)) else { continue };
            match outcome.value {
                OutcomeValue::Member(is_member) => _ = traits.insert(key.clone(), is_member.into()),
                OutcomeValue::Value(Some(json)) => _ = traits.insert(key.clone(), parse(&json)),
                OutcomeValue::Value(None) => {}
            }
        }
        traits
    }
}

fn known(known: &Known) -> Identifier<'_> {
    let Known { id_type, id, first_seen } = known;
    Identifier { id_type, value: id, first_seen: Timestamp::from_millis(*first_seen) }
}

/// Whom a change of merges names.
fn other(value: &str) -> Option<OtherProfile> {
    serde_json::from_str(value).ok()
}

/// Profiles by the numbers they have or had.
async fn load(
    pool: &PgPool,
    space: SpaceNo,
    numbers: impl Iterator<Item = ProfileNo>,
) -> Result<HashMap<ProfileNo, (ProfileNo, Profile)>> {
    let wanted: HashSet<ProfileNo> = numbers.collect();
    let (mut found, mut survivors) = (HashMap::new(), Vec::new());
    let decode = |no: ProfileNo, state: &[u8]| {
        let state = bytes::Bytes::copy_from_slice(state);
        Profile::decode(&state)
            .map_err(|e| StoreError::Damaged(format!("profile {no} of space {space}: {e}")))
    };
    let wanted: Vec<ProfileNo> = wanted.into_iter().collect();
    for (no, loaded) in profiles::load_states(pool, space, &wanted).await? {
        match loaded {
            Loaded::Live(state) => _ = found.insert(no, (no, decode(no, &state)?)),
            Loaded::Absorbed(survivor) => survivors.push((no, survivor)),
        }
    }
    if !survivors.is_empty() {
        let numbers: Vec<ProfileNo> = survivors.iter().map(|(_, survivor)| *survivor).collect();
        for (no, loaded) in profiles::load_states(pool, space, &numbers).await? {
            let Loaded::Live(state) = loaded else { continue };
            for (former, _) in survivors.iter().filter(|(_, survivor)| *survivor == no) {
                found.insert(*former, (no, decode(no, &state)?));
            }
        }
    }
    Ok(found)
}
