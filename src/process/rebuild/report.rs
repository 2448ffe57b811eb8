//! What is different between what is live and what was derived again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hashbrown::HashSet;
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::ids::public_id;
use crate::domain::{ComputationNo, ProfileNo, SpaceNo};
use crate::engine::profile::{OutcomeValue, Profile};
use crate::process::catalog::Catalog;
use crate::process::space::SpaceProcessor;
use crate::store::definitions::Kind;
use crate::store::rebuild::compare::{self, Mark};
use crate::store::rebuild::renumber::Renumbered;
use crate::store::{Result, StoreError};

/// Profiles compared at a time.
const PAGE: i64 = 5_000;
/// Public ids told of each kind of difference.
const SAMPLE: usize = 20;

/// A number of profiles, and some of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Some20 {
    /// How many.
    pub count: u64,
    /// Public ids of up to 20 of them.
    pub sample: Vec<String>,
}

impl Some20 {
    fn add(&mut self, id: Uuid) {
        self.count += 1;
        if self.sample.len() < SAMPLE {
            self.sample.push(public_id("prf", id));
        }
    }
}

/// Profiles that both have, but not the same. One may be in several of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Other identifiers.
    pub identifiers: Some20,
    /// Other custom traits.
    pub traits: Some20,
    /// Other values of computed traits.
    pub computed_traits: Some20,
    /// In other audiences.
    pub memberships: Some20,
    /// In other accounts.
    pub links: Some20,
    /// None of these: since when they are in an audience, say, or how something is stored.
    pub otherwise: Some20,
}

/// Who would enter and leave an audience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audience {
    /// Its key.
    pub key: String,
    /// New members.
    pub entered: u64,
    /// Members no longer.
    pub left: u64,
}

/// How a swap went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Swap {
    /// Rows that were replaced, added or taken away.
    pub rows: u64,
    /// Transitions it wrote.
    pub transitions: u64,
    /// How long the live processor stood still.
    pub held_ms: u64,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Up to which event both were compared.
    pub offset: u64,
    /// Live profiles.
    pub profiles_live: i64,
    /// Profiles that were derived.
    pub profiles_rebuilt: i64,
    /// Merges that are live.
    pub merges_live: i64,
    /// Merges that were derived.
    pub merges_rebuilt: i64,
    /// Profiles that would be gone, by themselves or into another.
    pub only_live: Some20,
    /// Profiles that would be new.
    pub only_rebuilt: Some20,
    /// Profiles that would be others.
    pub different: Difference,
    /// Audiences that would have other members, by key.
    pub audiences: Vec<Audience>,
    /// None for a dry run.
    pub swap: Option<Swap>,
}

impl Report {
    /// Whether nothing is different, apart from what nobody sees.
    pub const fn is_same(&self) -> bool {
        let Difference { identifiers, traits, computed_traits, memberships, links, otherwise: _ } =
            &self.different;
        self.only_live.count == 0
            && self.only_rebuilt.count == 0
            && identifiers.count == 0
            && traits.count == 0
            && computed_traits.count == 0
            && memberships.count == 0
            && links.count == 0
    }
}

/// Who is in which audience, on one side, as far as the sides differ.
type Members = HashSet<(ComputationNo, ProfileNo)>;

struct Comparing<'a> {
    space: SpaceNo,
    catalog: &'a Catalog,
    renumbered: &'a Renumbered,
    report: Report,
    before: Members,
    after: Members,
}

/// Compares what two connections see of the space. Both stand at the same event.
pub(super) async fn compare(
    live: &mut PgConnection,
    rebuilt: &mut PgConnection,
    again: &SpaceProcessor,
    renumbered: &Renumbered,
) -> Result<Report> {
    let space = again.space;
    let (l, r) = (compare::standing(live, space).await?, compare::standing(rebuilt, space).await?);
    let report = Report {
        offset: l.processed().0,
        profiles_live: l.users + l.accounts,
        profiles_rebuilt: r.users + r.accounts,
        merges_live: l.merges,
        merges_rebuilt: r.merges,
        ..Report::default()
    };
    let (before, after) = (Members::new(), Members::new());
    let mut comparing = Comparing { space, catalog: &again.catalog, renumbered, report, before, after };
    let mut after = ProfileNo(0);
    loop {
        let marks = compare::list_marks(live, space, after, PAGE).await?;
        let Some((last, _)) = marks.last() else { break };
        after = *last;
        comparing.page(live, rebuilt, marks).await?;
    }
    let mut after = ProfileNo(0);
    while let Some(new) = compare::list_new(live, rebuilt, space, &mut after, PAGE).await? {
        for (no, state) in compare::load(rebuilt, space, &new).await? {
            let new = comparing.decode(no, Some(&state))?;
            comparing.note_members(None, no, new.as_ref());
            comparing.note(None, new.as_ref());
        }
    }
    comparing.count_members();
    Ok(comparing.report)
}

impl Comparing<'_> {
    /// Compares live profiles with what they are again.
    async fn page(
        &mut self,
        live: &mut PgConnection,
        rebuilt: &mut PgConnection,
        marks: Vec<(ProfileNo, Mark)>,
    ) -> Result<()> {
        let again: Vec<ProfileNo> = marks.iter().filter_map(|(no, _)| self.renumbered.again(*no)).collect();
        let marks_again = compare::find_marks(rebuilt, self.space, &again).await?;
        let pairs = marks.iter().map(|(no, mark)| {
            let again = self.renumbered.again(*no).filter(|again| marks_again.contains_key(again));
            (*no, again, again.is_some_and(|again| marks_again.get(&again) == Some(mark)))
        });
        let pairs: Vec<(ProfileNo, Option<ProfileNo>)> =
            pairs.filter(|(.., is_same)| !is_same).map(|(no, again, _)| (no, again)).collect();
        if pairs.is_empty() {
            return Ok(());
        }
        let numbers: Vec<ProfileNo> = pairs.iter().map(|(no, _)| *no).collect();
        let again: Vec<ProfileNo> = pairs.iter().filter_map(|(_, again)| *again).collect();
        let states = compare::load(live, self.space, &numbers).await?;
        let states_again = compare::load(rebuilt, self.space, &again).await?;
        for (no, again) in pairs {
            let one = self.decode(no, states.get(&no))?;
            let other = match again {
                Some(again) => self.decode(again, states_again.get(&again))?,
                None => None,
            };
            let survivor = again.and_then(|again| marks_again.get(&again)?.merged_into.or(Some(again)));
            self.note_members(one.as_ref(), survivor.unwrap_or(ProfileNo(u64::MAX - no.0)), other.as_ref());
            self.note(one.as_ref(), other.as_ref());
        }
        Ok(())
    }

    /// Who was in which audience before and is now, by numbers of the rebuild.
    fn note_members(&mut self, one: Option<&Profile>, survivor: ProfileNo, other: Option<&Profile>) {
        if let Some(one) = one {
            let audiences = self.audiences(one).into_iter();
            self.before.extend(audiences.map(|of| (of, survivor)));
        }
        if let Some(other) = other {
            let audiences = self.audiences(other).into_iter();
            self.after.extend(audiences.map(|of| (of, other.no)));
        }
    }

    fn decode(&self, no: ProfileNo, state: Option<&Bytes>) -> Result<Option<Profile>> {
        let damaged = |e| StoreError::Damaged(format!("profile {no} of space {}: {e}", self.space));
        state.map(|state| Profile::decode(state).map_err(damaged)).transpose()
    }

    /// The audiences a profile is in.
    fn audiences(&self, profile: &Profile) -> BTreeSet<ComputationNo> {
        let is_in = |no: &ComputationNo| {
            profile.outcome(*no).is_some_and(|outcome| outcome.value == OutcomeValue::Member(true))
        };
        let all = self.catalog.meta.iter().filter(|(_, meta)| meta.kind == Kind::Audience);
        all.map(|(no, _)| *no).filter(is_in).collect()
    }

    fn note(&mut self, one: Option<&Profile>, other: Option<&Profile>) {
        match (one, other) {
            (Some(one), Some(other)) if one.id == other.id => self.note_difference(one, other),
            (one, other) => {
                if let Some(one) = one {
                    self.report.only_live.add(one.id);
                }
                if let Some(other) = other {
                    self.report.only_rebuilt.add(other.id);
                }
            }
        }
    }

    fn note_difference(&mut self, one: &Profile, other: &Profile) {
        let values = |profile: &Profile| -> BTreeMap<ComputationNo, OutcomeValue> {
            let is_value = |no| self.catalog.meta.get(&no).is_some_and(|m| m.kind == Kind::ComputedTrait);
            let outcomes = profile.outcomes().filter(|o| is_value(o.computation));
            let present = outcomes.filter(|o| o.value != OutcomeValue::Value(None));
            present.map(|o| (o.computation, o.value)).collect()
        };
        let is_different = [
            identifiers(one) != identifiers(other),
            traits(one) != traits(other),
            values(one) != values(other),
            self.audiences(one) != self.audiences(other),
            links(one).into_iter().map(|no| self.renumbered.again(no)).collect::<BTreeSet<_>>()
                != links(other).into_iter().map(Some).collect(),
        ];
        let Difference { identifiers, traits, computed_traits, memberships, links, otherwise } =
            &mut self.report.different;
        let kinds = [identifiers, traits, computed_traits, memberships, links];
        if is_different == [false; 5] {
            otherwise.add(one.id);
        }
        for (kind, _) in kinds.into_iter().zip(is_different).filter(|(_, is_different)| *is_different) {
            kind.add(one.id);
        }
    }

    fn count_members(&mut self) {
        let mut counts: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
        let entered = self.after.difference(&self.before).map(|of| (of, 0));
        let left = self.before.difference(&self.after).map(|of| (of, 1));
        for ((no, _), which) in entered.chain(left) {
            if let Some(meta) = self.catalog.meta.get(no) {
                counts.entry(&meta.key).or_default()[which] += 1;
            }
        }
        let audience =
            |(key, [entered, left]): (&str, [u64; 2])| Audience { key: key.to_owned(), entered, left };
        self.report.audiences = counts.into_iter().map(audience).collect();
    }
}

fn identifiers(profile: &Profile) -> BTreeSet<(i16, &str)> {
    profile.owned.get().identifiers.iter().map(|held| (held.type_no, held.value.as_str())).collect()
}

fn traits(profile: &Profile) -> BTreeMap<&str, &str> {
    profile.traits.get().iter().map(|(name, json, _)| (name, json)).collect()
}

fn links(profile: &Profile) -> BTreeSet<ProfileNo> {
    profile.kin.get().accounts.iter().copied().collect()
}
