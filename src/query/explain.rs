//! Why a profile is in an audience or has its value of a computed trait, and why not.
//!
//! Everything is read in one snapshot of the database, and evaluated as the processor does: by the same engine, over the
//! states it keeps, under the numbers it keeps them by.

use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use sqlx::PgConnection;

use super::{QueryError, Reader, Selector};
use crate::domain::ids::public_id;
use crate::domain::trait_names::OBJECTION_TRAIT;
use crate::domain::{Collection, ComputationNo, LeafNo, SpaceNo, Timestamp};
use crate::engine::consent::is_given;
use crate::engine::explain::Explanation;
use crate::engine::profile::{OutcomeValue, Profile};
use crate::engine::{self, KnownSource, Limits, Plan, ProfileView, Sources, compile_for};
use crate::store::computations::{self, Computation};
use crate::store::definitions::{Definition, Kind, list_definitions};
use crate::store::{StoreError, audiences, profiles, sources};

/// What is accepted here: whatever was accepted when the definition was made.
const LIMITS: Limits = Limits { expressions: 1_000_000, nesting: 1_000, bytes: 1 << 30 };

/// An explanation and what it is about.
#[derive(Debug)]
pub struct Explained {
    /// The profile's public id.
    pub profile_id: String,
    /// The definition.
    pub definition: Definition,
    /// The instant it is explained for.
    pub at: Timestamp,
    /// What is written on the profile, and since when; `None` where nothing ever was.
    pub outcome: Option<(OutcomeValue, Timestamp)>,
    /// The person objects to automated decisions.
    pub objects: bool,
    /// Of an audience that is about a category of consent: whether there is consent to it.
    pub consents: Option<bool>,
    /// Why.
    pub why: Why,
}

/// Why a profile has its outcome.
#[derive(Debug)]
pub enum Why {
    /// The first version is not complete: nobody has an outcome.
    Unfinished,
    /// The definition is switched off: all outcomes stay as they were.
    Frozen,
    /// The definition counts it, and these are its conditions.
    Counted(Explanation),
    /// It has only anonymous identifiers, which the definition does not count (A13); its conditions count for nothing.
    Anonymous(Explanation),
    /// It is an account, and the definition counts users, or the other way round.
    OtherCollection,
}

/// Of a version that is kept up to date: what it is evaluated with.
struct Live {
    no: ComputationNo,
    plan: Plan,
    include_anonymous: bool,
    /// Which version answers for which key.
    answers: HashMap<String, ComputationNo>,
}

impl Reader {
    /// Explains the definition of that key, of either kind, for a profile. `None` when there is no such profile; the
    /// inner one when there is no such definition.
    pub async fn explain(
        &self,
        space: SpaceNo,
        collection: Collection,
        selector: &Selector,
        key: &str,
    ) -> Result<Option<Option<Explained>>, QueryError> {
        let mut tx = audiences::begin_snapshot(&self.door(space)).await?;
        let Some(profile) = self.profile_in(&mut tx, space, collection, selector).await? else {
            return Ok(None);
        };
        let active = computations::list_active(&mut tx, space).await?;
        let frozen = computations::list_frozen(&mut tx, space).await?;
        let serving = active.iter().find(|c| c.key == key && c.status == "live");
        let live = match serving {
            Some(row) => Some(live(&mut tx, space, row, &active, &frozen).await?),
            None => None,
        };
        drop(tx);
        let Some(definition) = list_definitions(&self.door(space), space, None, Some(&[key])).await?.pop()
        else {
            return Ok(Some(None));
        };
        // Never before an event that is in its states.
        let at = self.clock.now().max(profile.last_event_at);
        let frozen = frozen.iter().find(|(_, of)| of == key).map(|(no, _)| *no);
        let outcome = serving.map(|row| row.no).or(frozen).and_then(|no| profile.outcome(no));
        let why = match live {
            _ if collection != definition.collection => Why::OtherCollection,
            Some(live) => live.explain(&profile, at),
            None if frozen.is_some() => Why::Frozen,
            None => Why::Unfinished,
        };
        let traits = profile.traits.get();
        let answers = definition.serving.as_ref().unwrap_or(&definition.latest);
        let category = answers.options.gates.consent_category.as_deref();
        let consents = category.map(|category| is_given(traits, category));
        Ok(Some(Some(Explained {
            objects: traits.get(OBJECTION_TRAIT).is_some(),
            consents,
            profile_id: public_id("prf", profile.id),
            definition,
            at,
            outcome: outcome.map(|outcome| (outcome.value, outcome.since)),
            why,
        })))
    }

    pub(super) async fn profile_in(
        &self,
        tx: &mut PgConnection,
        space: SpaceNo,
        collection: Collection,
        selector: &Selector,
    ) -> Result<Option<Profile>, QueryError> {
        let state = match selector {
            Selector::Id(id) => {
                let found = profiles::find_by_ids(tx, space, &[*id]).await?;
                found.into_iter().next().map(|(.., state)| state)
            }
            Selector::Identifier { id_type, value } => {
                match self.key_of(space, collection, id_type, value).await? {
                    Some((key, _)) => {
                        let found = profiles::find_by_keys(tx, space, &[key], Duration::ZERO).await?;
                        found.into_iter().next().map(|found| found.state)
                    }
                    None => None,
                }
            }
        };
        let profile = state.as_ref().map(Profile::decode).transpose()?;
        Ok(profile.filter(|profile| profile.collection == collection))
    }
}

impl Live {
    fn explain(&self, profile: &Profile, at: Timestamp) -> Why {
        let view = ProfileView {
            profile,
            leaves: &profile.leaves,
            tally: profile.seats.get().tally(self.no),
            answers: |key: &str| self.answers.get(key).copied(),
        };
        let explanation = self.plan.explain(&view, at);
        if profile.collection == Collection::Accounts || profile.is_known || self.include_anonymous {
            Why::Counted(explanation)
        } else {
            Why::Anonymous(explanation)
        }
    }
}

/// Puts a serving version together as the processor has it.
async fn live(
    tx: &mut PgConnection,
    space: SpaceNo,
    row: &Computation,
    active: &[Computation],
    frozen: &[(ComputationNo, String)],
) -> Result<Live, QueryError> {
    let kind = match row.kind {
        Kind::Audience => engine::Kind::Audience,
        Kind::ComputedTrait => engine::Kind::ComputedTrait,
    };
    let mut plan = compile_for(row.collection, &row.query, kind, LIMITS).map_err(|errors| {
        let why = errors.first().map_or_else(String::new, |error| error.message.clone());
        StoreError::Damaged(format!("definition {} does not compile: {why}", row.key))
    })?;
    if plan.names_sources() {
        let known = sources::list_source_names(tx, space).await?.into_iter();
        let known = known.map(|(no, id, name)| KnownSource { no, id: public_id("src", id), name });
        plan.bind_sources(&Sources::new(known.collect()));
    }
    plan = plan.with_retention(&row.options.retention);
    if let Some(from) = row.from.filter(|_| !row.options.include_history) {
        plan = plan.with_events_since(from);
    }
    let leaves = computations::list_leaves(tx, space).await?;
    let numbers: HashMap<String, LeafNo> = leaves.into_iter().map(|leaf| (leaf.canonical, leaf.no)).collect();
    // No leaf has the number 0.
    plan.intern(&mut |spec| numbers.get(&spec.canonical()).copied().unwrap_or_default());
    let answers = answers(active, frozen);
    Ok(Live { no: row.no, plan, include_anonymous: row.options.include_anonymous, answers })
}

/// Which version answers a reference to a key: the one that serves, else the one that is being computed.
fn answers(active: &[Computation], frozen: &[(ComputationNo, String)]) -> HashMap<String, ComputationNo> {
    let mut answers: HashMap<String, ComputationNo> =
        frozen.iter().map(|(no, key)| (key.clone(), *no)).collect();
    let live = active.iter().filter(|row| row.status == "live");
    answers.extend(live.map(|row| (row.key.clone(), row.no)));
    let served: HashSet<String> = answers.keys().cloned().collect();
    let begun = active.iter().filter(|row| row.from.is_some() && !served.contains(&row.key));
    answers.extend(begun.map(|row| (row.key.clone(), row.no)));
    answers
}
