//! Profiles as they are asked for: by an identifier they have or ever had, by their id, or as lists.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::directory::Serving;
use super::{Directory, QueryError, Reader};
use crate::domain::identifier::normalise;
use crate::domain::ids::{parse_public_id, public_id};
use crate::domain::trait_names::{OBJECTIONS, is_hidden};
use crate::domain::{Collection, IdKey, ProfileNo, SourceNo, SpaceNo, Timestamp};
use crate::engine::identity::Apart;
use crate::engine::profile::{Outcome, OutcomeValue, Profile};
use crate::engine::traits::Write;
use crate::store::definitions::Kind;
use crate::store::identity::{self, Merge, RefusalRow};
use crate::store::profiles;

/// How a profile is named in a path: `type:value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// By an identifier.
    Identifier {
        /// Its type.
        id_type: String,
        /// Its value, not yet normalised.
        value: String,
    },
    /// By its public id.
    Id(Uuid),
}

impl Selector {
    /// Reads `user_id:u1` or `profile_id:prf_…`; `None` when there is no colon or the id is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (id_type, value) = text.split_once(':')?;
        if id_type == "profile_id" {
            return parse_public_id("prf", value).map(Self::Id);
        }
        Some(Self::Identifier { id_type: id_type.to_owned(), value: value.to_owned() })
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Identifier { id_type, value } => write!(f, "{id_type}:{value}"),
            Self::Id(id) => write!(f, "profile_id:{}", public_id("prf", *id)),
        }
    }
}

/// Where a trait comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraitClass {
    /// Set by identify or group.
    Custom,
    /// A computed trait.
    ComputedTrait,
    /// An audience.
    Audience,
}

/// A trait of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trait<'a> {
    /// Its name, as it was sent.
    pub name: &'a str,
    /// JSON text.
    pub json: Cow<'a, str>,
    /// Where it comes from.
    pub class: TraitClass,
    /// The source that set it; computed ones have none.
    pub source: Option<SourceNo>,
    /// When it was set (custom: event time) or changed.
    pub updated_at: Timestamp,
}

impl<'a> Trait<'a> {
    fn custom(name: &'a str, json: &'a str, write: &Write) -> Self {
        let (json, class) = (Cow::Borrowed(json), TraitClass::Custom);
        Self { name, json, class, source: Some(write.source), updated_at: write.at }
    }

    fn computed(serving: &'a Serving, outcome: Outcome) -> Option<Self> {
        let class = match serving.kind {
            Kind::Audience => TraitClass::Audience,
            Kind::ComputedTrait => TraitClass::ComputedTrait,
        };
        let json = match outcome.value {
            OutcomeValue::Member(is_member) => Cow::Borrowed(if is_member { "true" } else { "false" }),
            OutcomeValue::Value(json) => Cow::Owned(json?),
        };
        Some(Self { name: &serving.key, json, class, source: None, updated_at: outcome.since })
    }
}

/// What a definition says of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Computed {
    /// Its key.
    pub key: String,
    /// Since when.
    pub since: Timestamp,
    /// What it is used for.
    pub purpose: Option<String>,
    /// What follows from it is decided by a person.
    pub requires_human_review: bool,
}

/// A profile that was found, with what its numbers mean.
#[derive(Debug)]
pub struct Person {
    /// What is known of it.
    pub profile: Profile,
    /// Meanings.
    pub directory: Arc<Directory>,
}

impl Person {
    /// Public id.
    pub fn id(&self) -> String {
        public_id("prf", self.profile.id)
    }

    /// All traits, by name: custom ones, computed ones, audiences. A computed name hides a custom one.
    pub fn traits(&self) -> Vec<Trait<'_>> {
        let custom = self.profile.traits.get().iter().filter(|(name, ..)| !is_hidden(name));
        let mut custom: Vec<Trait<'_>> =
            custom.map(|(name, json, write)| Trait::custom(name, json, write)).collect();
        custom.sort_unstable_by_key(|t| t.name);
        // By the place of their keys, which is cheaper than by the keys.
        let computed = self.profile.outcomes().filter_map(|outcome| {
            let serving = self.directory.serving.get(&outcome.computation)?;
            Some((serving.place, Trait::computed(serving, outcome)?))
        });
        let mut computed: Vec<(usize, Trait<'_>)> = computed.collect();
        computed.sort_unstable_by_key(|(place, _)| *place);
        let (mut custom, mut all) = (custom.into_iter().peekable(), Vec::with_capacity(computed.len()));
        for (_, computed) in computed {
            while let Some(before) = custom.next_if(|t| t.name < computed.name) {
                all.push(before);
            }
            custom.next_if(|t| t.name == computed.name);
            all.push(computed);
        }
        all.extend(custom);
        all
    }

    /// Objections to automated decisions that stand, by id, with who noted them and when.
    pub fn objections(&self) -> impl Iterator<Item = (&str, &Write)> {
        let held = self.profile.traits.get().iter();
        held.filter_map(|(name, _, write)| Some((name.strip_prefix(OBJECTIONS)?, write)))
    }

    /// Audiences the profile is in.
    pub fn audiences(&self) -> Vec<Computed> {
        let is_in = self.profile.outcomes().filter(|o| o.value == OutcomeValue::Member(true));
        let mut audiences: Vec<Computed> = is_in
            .filter_map(|o| {
                let serving = self.directory.serving.get(&o.computation)?;
                Some(Computed {
                    key: serving.key.clone(),
                    since: o.since,
                    purpose: serving.purpose.clone(),
                    requires_human_review: serving.requires_human_review,
                })
            })
            .collect();
        audiences.sort_by(|a, b| a.key.cmp(&b.key));
        audiences
    }
}

/// A linked profile and since when.
#[derive(Debug)]
pub struct LinkedProfile {
    /// The profile at the other end.
    pub person: Person,
    /// Since when.
    pub created_at: Timestamp,
}

impl Reader {
    /// Finds a profile by any identifier it has or had, or by any id it has or had.
    pub async fn find_profile(
        &self,
        space: SpaceNo,
        collection: Collection,
        selector: &Selector,
    ) -> Result<Option<Person>, QueryError> {
        let (state, directory) = match selector {
            Selector::Id(id) => match profiles::find_by_ids(&self.door(space), space, &[*id]).await?.pop() {
                Some((.., state)) => (state, self.directory(space, None).await?),
                None => return Ok(None),
            },
            Selector::Identifier { id_type, value } => {
                // The directory at hand will do for the case rule; a type it does not know may be new.
                let Some((key, known)) = self.key_of(space, collection, id_type, value).await? else {
                    return Ok(None);
                };
                match self.asks.lookup.find(space, key).await? {
                    Some((state, version)) if known.version >= version => (state, known),
                    Some((state, version)) => (state, self.directory(space, Some(version)).await?),
                    None => return Ok(None),
                }
            }
        };
        let profile = Profile::decode(&state)?;
        if profile.collection != collection {
            return Ok(None);
        }
        Ok(Some(Person { profile, directory }))
    }

    /// The live profile that a number means or meant.
    pub async fn find_by_number(&self, space: SpaceNo, no: ProfileNo) -> Result<Option<Person>, QueryError> {
        let state = profiles::find_by_number(&self.door(space), space, no).await?;
        Ok(self.people(space, state).await?.into_iter().next())
    }

    /// What an identifier is found by, and the directory that says so.
    pub(super) async fn key_of(
        &self,
        space: SpaceNo,
        collection: Collection,
        id_type: &str,
        value: &str,
    ) -> Result<Option<(IdKey, Arc<Directory>)>, QueryError> {
        let mut directory = self.directory(space, Some(0)).await?;
        if directory.id_type(id_type).is_none() {
            directory = self.directory(space, None).await?;
        }
        let Some(known) = directory.id_type(id_type) else { return Ok(None) };
        let value = normalise(value, known.case_insensitive);
        Ok(Some((IdKey::of(collection, id_type, &value), directory)))
    }

    pub(super) async fn people(
        &self,
        space: SpaceNo,
        states: impl IntoIterator<Item = Bytes>,
    ) -> Result<Vec<Person>, QueryError> {
        let directory = self.directory(space, None).await?;
        let person = |state: Bytes| {
            Ok(Person { profile: Profile::decode(&state)?, directory: Arc::clone(&directory) })
        };
        states.into_iter().map(person).collect()
    }

    /// Accounts of a user, or users of an account: a page behind `after`.
    pub async fn list_linked(
        &self,
        space: SpaceNo,
        person: &Person,
        after: ProfileNo,
        limit: i64,
    ) -> Result<Vec<LinkedProfile>, QueryError> {
        let profile = &person.profile;
        let numbers = profile.numbers();
        let found =
            profiles::list_linked(&self.door(space), space, profile.collection, &numbers, after, limit)
                .await?;
        let (states, times): (Vec<Bytes>, Vec<Timestamp>) = found.into_iter().unzip();
        let people = self.people(space, states).await?;
        Ok(people
            .into_iter()
            .zip(times)
            .map(|(person, created_at)| LinkedProfile { person, created_at })
            .collect())
    }

    /// Merges a profile has taken, those of the profiles it absorbed included, oldest first; with the ids of all
    /// numbers involved.
    pub async fn list_merges(
        &self,
        space: SpaceNo,
        person: &Person,
    ) -> Result<(Vec<Merge>, BTreeMap<ProfileNo, Uuid>), QueryError> {
        let numbers = person.profile.numbers();
        let merges = identity::list_merges(&self.door(space), space, &numbers).await?;
        // Those of merges that were taken back are other profiles' again.
        let named = merges.iter().flat_map(|merge| [merge.survivor, merge.absorbed]);
        let all: BTreeSet<ProfileNo> = numbers.into_iter().chain(named).collect();
        let all: Vec<ProfileNo> = all.into_iter().collect();
        let ids = profiles::list_ids(&self.door(space), space, &all).await?.into_iter().collect();
        Ok((merges, ids))
    }

    /// Profiles that are not to become one with this one, each with its present id.
    pub async fn list_apart(
        &self,
        space: SpaceNo,
        person: &Person,
    ) -> Result<Vec<(Apart, Uuid)>, QueryError> {
        // Of two that were to stay apart and are one now there is nothing to be told.
        let own = person.profile.numbers();
        let apart: Vec<Apart> =
            person.profile.owned.get().apart.iter().filter(|a| !own.contains(&a.other)).cloned().collect();
        if apart.is_empty() {
            return Ok(Vec::new());
        }
        let numbers: Vec<ProfileNo> = apart.iter().map(|apart| apart.other).collect();
        let mut ids = BTreeMap::new();
        for (no, _, state) in profiles::find_by_numbers(&self.door(space), space, &numbers).await? {
            ids.insert(no, Profile::decode(&state)?.id);
        }
        Ok(apart.iter().filter_map(|apart| Some((apart.clone(), *ids.get(&apart.other)?))).collect())
    }

    /// The newest refusals of a profile.
    pub async fn list_refusals(
        &self,
        space: SpaceNo,
        person: &Person,
        limit: i64,
    ) -> Result<Vec<RefusalRow>, QueryError> {
        Ok(identity::list_refusals(&self.door(space), space, &person.profile.numbers(), limit).await?)
    }

    /// The time, for relative answers.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
