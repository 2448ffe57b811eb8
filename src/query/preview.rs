//! What a definition would be, without making it: its size, some of its members, and who would enter and leave.
//!
//! History is folded by the engine that folds it live, into states nobody keeps; nothing is written. One preview goes on
//! at a time, others wait for it: each takes as much memory as a walk.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Directory, QueryError, Reader};
use crate::domain::{Collection, ComputationNo, Offset, ProfileNo, SpaceNo, Timestamp, Value};
use crate::engine::profile::{OutcomeValue, Profile};
use crate::engine::query::PlanCondition;
use crate::engine::{Kind, LeafStates, Plan, ProfileView};
use crate::history::{PASS_PROFILES, Partials, Scan};
use crate::store::{processor, profiles};
use uuid::Uuid;

/// Profiles read at a time.
const READ_AT_A_TIME: i64 = 2_000;
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
        let look = Look {
            draft,
            answers: answers(&directory),
            now: self.clock.now(),
            conditions: draft.plan.conditions(),
        };
        let conditions = look.conditions.iter().map(|(text, _)| ((*text).to_owned(), 0)).collect();
        let mut preview = Preview { conditions, ..Preview::default() };
        let end = processor::status(&self.pool, space).await?.map_or(Offset(0), |status| status.processed);
        let absorbed: hashbrown::HashMap<ProfileNo, ProfileNo> =
            profiles::list_absorbed(&self.pool, space).await?.into_iter().collect();
        let mut after = ProfileNo(0);
        loop {
            let until = ProfileNo(after.0 + PASS_PROFILES);
            let mut read_after = after;
            let mut rows = profiles::list_states(&self.pool, space, read_after, READ_AT_A_TIME).await?;
            if rows.is_empty() {
                break;
            }
            let partials = self.fold(space, draft, end, absorbed.clone(), (after, until)).await?;
            while let Some((last, _)) = rows.last() {
                read_after = *last;
                for (no, state) in rows.iter().filter(|(no, _)| *no <= until) {
                    look.look_at(&Profile::decode(state)?, partials.get(no), &mut preview);
                }
                if read_after >= until {
                    break;
                }
                rows = profiles::list_states(&self.pool, space, read_after, READ_AT_A_TIME).await?;
            }
            after = until;
        }
        preview.took = began.elapsed();
        Ok(preview)
    }

    async fn fold(
        &self,
        space: SpaceNo,
        draft: &Draft<'_>,
        end: Offset,
        absorbed: hashbrown::HashMap<ProfileNo, ProfileNo>,
        (after, until): (ProfileNo, ProfileNo),
    ) -> Result<Partials, QueryError> {
        if !draft.include_history || draft.plan.leaves().len() == 0 {
            return Ok(Partials::new());
        }
        let leaves = draft.plan.leaves().map(|(no, spec)| (no, end, spec.clone())).collect();
        Ok(Scan { space, leaves, after, until, absorbed }.run(self.pool.clone()).await?)
    }
}

/// Which version answers for which key.
fn answers(directory: &Directory) -> HashMap<&str, ComputationNo> {
    directory.serving.iter().map(|(no, serving)| (serving.key.as_str(), *no)).collect()
}

/// What profiles are asked.
struct Look<'a> {
    draft: &'a Draft<'a>,
    answers: HashMap<&'a str, ComputationNo>,
    now: Timestamp,
    conditions: Vec<(&'a str, &'a PlanCondition)>,
}

impl Look<'_> {
    fn look_at(&self, profile: &Profile, partial: Option<&LeafStates>, preview: &mut Preview) {
        if profile.collection != Collection::Users {
            return;
        }
        let Draft { plan, include_anonymous, replaces, .. } = *self.draft;
        let nothing = LeafStates::default();
        let view = ProfileView {
            profile,
            leaves: partial.unwrap_or(&nothing),
            answers: |key: &str| self.answers.get(key).copied(),
        };
        // Never before an event that is in its states.
        let now = self.now.max(profile.last_seen_at);
        let is_counted = profile.is_known || include_anonymous;
        let value = if is_counted { plan.evaluate(&view, now).value } else { Value::Null };
        let is_in = match plan.kind() {
            Kind::Audience => value == Value::Bool(true),
            Kind::ComputedTrait => !value.is_null(),
        };
        let was_in = replaces.and_then(|no| profile.outcome(no)).is_some_and(|outcome| {
            matches!(outcome.value, OutcomeValue::Member(true) | OutcomeValue::Value(Some(_)))
        });
        preview.size += u64::from(is_in);
        preview.enters += u64::from(is_in && !was_in);
        preview.leaves += u64::from(was_in && !is_in);
        if is_in && preview.sample.len() < SAMPLE {
            preview.sample.push((profile.id, value));
        }
        if !is_counted {
            return;
        }
        for ((_, condition), (_, size)) in self.conditions.iter().zip(&mut preview.conditions) {
            let holds = plan.evaluate_condition(condition, &view, now).value == Value::Bool(true);
            *size += u64::from(holds);
        }
    }
}
