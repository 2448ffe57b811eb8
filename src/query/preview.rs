//! What a definition would be, without making it: its size, some of its members, and who would enter and leave.
//!
//! History is folded by the engine that folds it live, into states nobody keeps; nothing is written. One preview goes on
//! at a time, others wait for it: each takes as much memory as a walk.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::num::NonZero;
use std::time::{Duration, Instant};

use super::{Directory, QueryError, Reader};
use crate::domain::{Collection, ComputationNo, LeafNo, Offset, ProfileNo, SpaceNo, Timestamp, Value};
use crate::engine::profile::{OutcomeValue, Profile, WHO_BYTES, Who};
use crate::engine::query::PlanCondition;
use crate::engine::{Kind, LeafState, LeafStates, Plan, ProfileView, Tally, View};
use crate::history::pace::Pace;
use crate::history::{PASS_PROFILES, Partials, Scan};
use crate::store::profiles::Loaded;
use crate::store::{log, processor, profiles};
use uuid::Uuid;

/// Profiles read at a time.
pub(super) const READ_AT_A_TIME: i64 = 2_000;
/// Profiles asked before somebody else has a turn.
const ASKED_AT_A_TIME: usize = 1_000;
/// Profiles that are named as examples.
const SAMPLE: usize = 10;

/// What is to be looked at.
#[derive(Debug)]
pub struct Draft<'a> {
    /// The compiled query.
    pub plan: &'a Plan,
    /// Count profiles that have only anonymous identifiers.
    pub include_anonymous: bool,
    /// Count events that are there already.
    pub include_history: bool,
    /// The version whose members are compared with.
    pub replaces: Option<ComputationNo>,
}

/// What it would be.
#[derive(Debug, Default)]
pub struct Preview {
    /// Members, or profiles that have a value.
    pub size: u64,
    /// Members that the version it replaces does not have.
    pub enters: u64,
    /// Members of the version it replaces that it has not.
    pub leaves: u64,
    /// Some of the members, first made first, with their value.
    pub sample: Vec<(Uuid, Value)>,
    /// How many profiles satisfy each operand of the outermost AND or OR alone.
    pub conditions: Vec<(String, u64)>,
    /// How long it took.
    pub took: Duration,
}

impl Reader {
    /// Looks at all profiles as they are now.
    pub async fn preview(&self, space: SpaceNo, draft: &Draft<'_>) -> Result<Preview, QueryError> {
        let _one = self.previews.acquire().await.map_err(|_| QueryError::Stopping)?;
        let began = Instant::now();
        let directory = self.directory(space, None).await?;
        // Never before an event that is in the log, whatever the clock says.
        let newest = log::newest_received(&self.door(space), space).await?;
        let look = Look {
            draft,
            answers: answers(&directory),
            now: newest.into_iter().fold(self.clock.now(), Timestamp::max),
            conditions: draft.plan.conditions(),
        };
        let last = profiles::newest(&self.door(space), space).await?;
        // Who has no events is not looked at, when having none is all it takes not to be concerned.
        let only_those_with_events =
            draft.replaces.is_none() && look.concern(&LeafStates::default()) == Concern::Nothing;
        let conditions = look.conditions.iter().map(|(text, _)| ((*text).to_owned(), 0)).collect();
        let mut preview = Preview { conditions, ..Preview::default() };
        let end =
            processor::status(&self.door(space), space).await?.map_or(Offset(0), |status| status.processed);
        let absorbed: hashbrown::HashMap<ProfileNo, ProfileNo> =
            profiles::list_absorbed(&self.door(space), space).await?.into_iter().collect();
        if draft.plan.collection() == Collection::Accounts {
            self.look_at_accounts(space, &look, &Fold { end, absorbed, last }, &mut preview).await?;
            preview.took = began.elapsed();
            return Ok(preview);
        }
        let mut after = ProfileNo(0);
        while after < last {
            let until = ProfileNo((after.0 + PASS_PROFILES).min(last.0));
            let partials = self.fold(space, &look, end, absorbed.clone(), (after, until)).await?;
            if only_those_with_events {
                self.look_at_some(space, &look, &partials, &mut preview).await?;
            } else {
                self.look_at_all(space, &look, &partials, (after, until), &mut preview).await?;
            }
            after = until;
        }
        preview.took = began.elapsed();
        Ok(preview)
    }

    /// Looks at every profile numbered in (after, until].
    async fn look_at_all(
        &self,
        space: SpaceNo,
        look: &Look<'_>,
        partials: &Partials,
        range: (ProfileNo, ProfileNo),
        preview: &mut Preview,
    ) -> Result<(), QueryError> {
        self.each_profile(space, range, |profile| {
            look.look_at_profile(profile, partials.get(profile.no), None, preview);
        })
        .await
    }

    /// Hands over the live profiles numbered in (after, until], in order.
    pub(super) async fn each_profile(
        &self,
        space: SpaceNo,
        (mut after, until): (ProfileNo, ProfileNo),
        mut each: impl FnMut(&Profile),
    ) -> Result<(), QueryError> {
        while after < until {
            let rows = profiles::list_states(&self.door(space), space, after, READ_AT_A_TIME).await?;
            let Some((last, _)) = rows.last() else { break };
            after = *last;
            for (_, state) in rows.iter().filter(|(no, _)| *no <= until) {
                each(&Profile::decode(state)?);
            }
        }
        Ok(())
    }

    /// The live ones of these profiles, in order.
    pub(super) async fn live_profiles(
        &self,
        space: SpaceNo,
        numbers: &[ProfileNo],
    ) -> Result<Vec<Profile>, QueryError> {
        let mut rows = profiles::load_states(&self.door(space), space, numbers).await?;
        rows.sort_unstable_by_key(|(no, _)| *no);
        let live = rows.iter().filter_map(|(_, row)| match row {
            Loaded::Live(state) => Some(Profile::decode(state)),
            Loaded::Absorbed(_) => None,
        });
        Ok(live.collect::<Result<_, _>>()?)
    }

    /// Looks at the profiles whose events may make them members. Of those about whom the events say everything it only
    /// has to know whether they are counted.
    async fn look_at_some(
        &self,
        space: SpaceNo,
        look: &Look<'_>,
        partials: &Partials,
        preview: &mut Preview,
    ) -> Result<(), QueryError> {
        let (mut concerned, mut is_decided) = (Vec::new(), true);
        for (n, (no, states)) in partials.profiles.iter().enumerate() {
            if n % ASKED_AT_A_TIME == 0 {
                tokio::task::yield_now().await;
            }
            let concern = look.concern(states);
            is_decided &= concern != Concern::AsksMore;
            if concern != Concern::Nothing {
                concerned.push(*no);
            }
        }
        if is_decided {
            return self.count_decided(space, look, partials, &concerned, preview).await;
        }
        for some in concerned.chunks(READ_AT_A_TIME as usize) {
            for profile in self.live_profiles(space, some).await? {
                look.look_at_profile(&profile, partials.get(profile.no), None, preview);
            }
        }
        Ok(())
    }

    /// Counts profiles whose events say everything: all there is to know is whether they are counted. Two statements go on
    /// at a time.
    async fn count_decided(
        &self,
        space: SpaceNo,
        look: &Look<'_>,
        partials: &Partials,
        concerned: &[ProfileNo],
        preview: &mut Preview,
    ) -> Result<(), QueryError> {
        for some in concerned.chunks(2 * READ_AT_A_TIME as usize) {
            let (first, second) = some.split_at(some.len().div_ceil(2));
            let door = self.door(space);
            let load = |part| profiles::load_starts(&door, space, part, WHO_BYTES);
            let (first, second) = tokio::try_join!(load(first), load(second))?;
            for (no, start) in first.into_iter().chain(second) {
                let Some(states) = partials.get(no) else { continue };
                let view = OnlyLeaves { states, asked_more: Cell::new(false) };
                look.look_at(&view, Who::peek(&start)?, false, preview);
            }
        }
        Ok(())
    }

    pub(super) async fn fold(
        &self,
        space: SpaceNo,
        &Look { draft, now: at, .. }: &Look<'_>,
        end: Offset,
        absorbed: hashbrown::HashMap<ProfileNo, ProfileNo>,
        (after, until): (ProfileNo, ProfileNo),
    ) -> Result<Partials, QueryError> {
        if !draft.include_history || draft.plan.leaves().len() == 0 {
            return Ok(Partials::default());
        }
        let leaves = draft.plan.leaves().map(|(no, spec)| (no, end, spec.clone())).collect();
        let tasks = std::thread::available_parallelism().map_or(1, NonZero::get);
        let scan = Scan { space, leaves, after, until, absorbed, at, tasks, pace: Pace::default() };
        Ok(scan.run(self.door(space)).await?)
    }
}

/// Which version answers for which key.
fn answers(directory: &Directory) -> HashMap<&str, ComputationNo> {
    directory.serving.iter().map(|(no, serving)| (serving.key.as_str(), *no)).collect()
}

/// A profile of which nothing is known but its states: when it is asked for more, nothing it answered counts.
struct OnlyLeaves<'a> {
    states: &'a LeafStates,
    asked_more: Cell<bool>,
}

impl View for OnlyLeaves<'_> {
    const NEEDS_CHANGES: bool = false;

    fn profile_id(&self) -> Uuid {
        self.asked_more.set(true);
        Uuid::nil()
    }

    fn leaf(&self, leaf: LeafNo) -> Option<Cow<'_, LeafState>> {
        self.states.get(leaf)
    }

    fn trait_value(&self, _name: &str) -> Option<Cow<'_, Value>> {
        self.asked_more.set(true);
        None
    }

    fn computed_since(&self, _name: &str) -> Option<Option<Timestamp>> {
        self.asked_more.set(true);
        None
    }
}

/// What of history is folded.
pub(super) struct Fold {
    pub(super) end: Offset,
    pub(super) absorbed: hashbrown::HashMap<ProfileNo, ProfileNo>,
    /// The newest profile.
    pub(super) last: ProfileNo,
}

/// What profiles are asked.
pub(super) struct Look<'a> {
    pub(super) draft: &'a Draft<'a>,
    pub(super) answers: HashMap<&'a str, ComputationNo>,
    pub(super) now: Timestamp,
    conditions: Vec<(&'a str, &'a PlanCondition)>,
}

/// Whether a profile may be counted anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Concern {
    /// No, whatever else it has.
    Nothing,
    /// Its states decide.
    Decided,
    /// That depends on what else it has.
    AsksMore,
}

impl Look<'_> {
    /// Whether a profile with these states may be counted anywhere.
    fn concern(&self, states: &LeafStates) -> Concern {
        let view = OnlyLeaves { states, asked_more: Cell::new(false) };
        let plan = self.draft.plan;
        let value = plan.evaluate(&view, self.now).value;
        let holds = |(_, condition): &(&str, &PlanCondition)| {
            plan.evaluate_condition(condition, &view, self.now).value == Value::Bool(true)
        };
        let counts = self.is_in(&value) || self.conditions.iter().any(holds);
        match (view.asked_more.get(), counts) {
            (true, _) => Concern::AsksMore,
            (false, true) => Concern::Decided,
            (false, false) => Concern::Nothing,
        }
    }

    pub(super) fn look_at_profile(
        &self,
        profile: &Profile,
        partial: Option<&LeafStates>,
        tally: Option<&Tally>,
        preview: &mut Preview,
    ) {
        let nothing = LeafStates::default();
        let view = ProfileView {
            profile,
            leaves: partial.unwrap_or(&nothing),
            tally,
            answers: |key: &str| self.answers.get(key).copied(),
        };
        let outcome = self.draft.replaces.and_then(|no| profile.outcome(no));
        let was_in = outcome.is_some_and(|outcome| {
            matches!(outcome.value, OutcomeValue::Member(true) | OutcomeValue::Value(Some(_)))
        });
        self.look_at(&view, profile.who(), was_in, preview);
    }

    fn look_at(&self, view: &impl View, who: Who, was_in: bool, preview: &mut Preview) {
        if who.collection != self.draft.plan.collection() {
            return;
        }
        let (plan, now) = (self.draft.plan, self.now);
        let is_account = who.collection == Collection::Accounts;
        let is_counted = is_account || who.is_known || self.draft.include_anonymous;
        let value = if is_counted { plan.evaluate(view, now).value } else { Value::Null };
        let is_in = self.is_in(&value);
        preview.size += u64::from(is_in);
        preview.enters += u64::from(is_in && !was_in);
        preview.leaves += u64::from(was_in && !is_in);
        if is_in && preview.sample.len() < SAMPLE {
            preview.sample.push((who.id, value));
        }
        if !is_counted {
            return;
        }
        for ((_, condition), (_, size)) in self.conditions.iter().zip(&mut preview.conditions) {
            let holds = plan.evaluate_condition(condition, view, now).value == Value::Bool(true);
            *size += u64::from(holds);
        }
    }

    fn is_in(&self, value: &Value) -> bool {
        match self.draft.plan.kind() {
            Kind::Audience => *value == Value::Bool(true),
            Kind::ComputedTrait => !value.is_null(),
        }
    }
}
