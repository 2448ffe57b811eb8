//! A space's plan, as the server's owner changes it; what a space has of it; and its purge.

use super::registry::Space;
use super::{Manage, ManageError, Result};
use crate::domain::act::Actor;
use crate::domain::audit::{Entry, EntryKind};
use crate::domain::month::Month;
use crate::domain::plan::{PlanLimits, Usage};
use crate::domain::{Patch, Plan, PlanState, SpaceNo, Timestamp};
use crate::store::definitions::Kind;
use crate::store::purge::{self, PurgeReport};
use crate::store::{definitions, spaces, usage};

/// First instant that is too late for a term: 10000-01-01T00:00:00Z, which RFC 3339 cannot write.
const TERM_END: Timestamp = Timestamp::from_millis(253_402_300_800_000);
/// Longest reason, in characters.
const REASON_CHARS_MAX: usize = 500;
/// Longest export window, in days.
const EXPORT_DAYS_MAX: i64 = 3_650;
/// Largest limit; what is larger needs none.
const LIMIT_MAX: i64 = 1_000_000_000_000_000;
/// Months a usage shows.
const MONTHS_SHOWN: i64 = 24;
/// So long after a purge, what somebody who was at work has written since is looked for again.
const SWEEP_MS: i64 = 10 * 60 * 1_000;

/// What is to be changed of a plan; no state leaves it as it is.
#[derive(Debug, Clone, Default)]
pub struct PlanChange {
    /// A word of [`PlanState`].
    pub state: Option<String>,
    /// Why, for people.
    pub reason: Patch<String>,
    /// Beginning of the term, as a timestamp.
    pub starts_at: Patch<String>,
    /// End of the term, as a timestamp.
    pub ends_at: Patch<String>,
    /// Days from the end to the purge.
    pub export_days: Option<i64>,
    /// Whether events are still written to the log after the end.
    pub collects: Option<bool>,
    /// What is to be changed of the limits.
    pub limits: Option<LimitsChange>,
}

/// What is to be changed of limits.
#[derive(Debug, Clone, Copy, Default)]
pub struct LimitsChange {
    /// See [`PlanLimits`].
    pub events_per_month: Patch<i64>,
    /// See [`PlanLimits`].
    pub events_per_second: Patch<i64>,
    /// See [`PlanLimits`].
    pub profiles: Patch<i64>,
    /// See [`PlanLimits`].
    pub audiences: Patch<i64>,
    /// See [`PlanLimits`].
    pub computed_traits: Patch<i64>,
}

/// What a space has.
#[derive(Debug, Clone)]
pub struct SpaceUsage {
    /// The present month.
    pub month: Month,
    /// Events of it, and profiles.
    pub usage: Usage,
    /// Audiences.
    pub audiences: usize,
    /// Computed traits.
    pub computed_traits: usize,
    /// Events by month, newest first.
    pub months: Vec<(Month, u64)>,
}

impl Manage {
    /// Changes the plan of a space. This process knows at once, others within a second.
    pub async fn change_plan(&self, space: SpaceNo, change: PlanChange) -> Result<Plan> {
        let now = self.clock.now();
        let changed =
            spaces::update_plan(&self.door(space), space, |present| change.apply(present, now)).await?;
        self.registry.reload().await?;
        Ok(changed)
    }

    /// Gives a space another name.
    pub async fn rename_space(&self, space: SpaceNo, name: &str) -> Result<()> {
        spaces::rename(&self.door(space), space, super::spaces::check_name(name)?).await?;
        Ok(self.registry.reload().await?)
    }

    /// What a space has, as the database counts it.
    pub async fn usage(&self, space: SpaceNo) -> Result<SpaceUsage> {
        let month = Month::of(self.clock.now());
        let counted = usage::list_usage(&self.pool, &[space], month).await?;
        let (events, profiles) = counted.first().map_or((0, 0), |(_, events, profiles)| (*events, *profiles));
        let all = definitions::list_definitions(&self.door(space), space, None, None).await?;
        let audiences = all.iter().filter(|d| d.kind == Kind::Audience).count();
        Ok(SpaceUsage {
            month,
            usage: Usage { events, profiles },
            audiences,
            computed_traits: all.len() - audiences,
            months: usage::list_months(&self.door(space), space, MONTHS_SHOWN).await?,
        })
    }

    /// Has a space purged that has ended: its export window is over as of now. Returns the instant.
    pub async fn ask_for_purge(&self, space: SpaceNo) -> Result<Timestamp> {
        let now = self.clock.now();
        spaces::update_plan(&self.door(space), space, |present| {
            if present.state != PlanState::Ended {
                let message = format!(
                    "the plan is {}; only a space whose plan has ended is purged: set plan.state to ended first",
                    present.state.as_str()
                );
                return Err(ManageError::Refused(message));
            }
            Ok(Plan { purge_asked_at: Some(present.purge_asked_at.map_or(now, |at| at.min(now))), ..present })
        })
        .await?;
        self.registry.reload().await?;
        Ok(now)
    }

    /// Purges every space whose time has come. Asks the database for nothing when there is none. One that cannot be purged
    /// now keeps none of the others.
    pub async fn purge_due(&self) {
        let now = self.clock.now();
        for space in self.list_spaces(None).into_iter().filter(|space| space.plan.is_purge_due(now)) {
            if let Err(error) = self.purge(&space, now).await {
                tracing::warn!(space = %space.no, %error, "could not purge space {}; it is tried again: {error}", space.no);
            }
        }
    }

    async fn purge(&self, space: &Space, now: Timestamp) -> Result<()> {
        let Some(purged) = purge::purge(&self.pool, space.no, now).await? else { return Ok(()) };
        tracing::info!(space = %space.no, "space {} is purged", space.no);
        self.registry.reload().await?;
        let detail = serde_json::json!({"space": space.key, "last_audit_hash": purged.last_audit_hash});
        let (action, actor) = ("space.purge".to_owned(), Actor::default());
        let entry = Entry::new(EntryKind::Change, now.to_string(), action, actor);
        self.record(None, Entry { detail: Some(detail), ..entry }).await
    }

    /// Deletes what was written into spaces that were purged lately by whoever was still at work.
    pub async fn sweep_purged(&self) -> Result<()> {
        let now = self.clock.now();
        Ok(purge::sweep_again(&self.pool, now.plus_millis(-SWEEP_MS), now).await?)
    }

    /// What was purged, newest first.
    pub async fn list_purges(&self) -> Result<Vec<PurgeReport>> {
        Ok(purge::list_reports(&self.pool).await?)
    }
}

impl PlanChange {
    fn is_empty(&self) -> bool {
        let Self { state, reason, starts_at, ends_at, export_days, collects, limits } = self;
        let is_kept = reason.is_keep() && starts_at.is_keep() && ends_at.is_keep();
        is_kept && state.is_none() && export_days.is_none() && collects.is_none() && limits.is_none()
    }

    fn apply(self, present: Plan, now: Timestamp) -> Result<Plan> {
        if self.is_empty() {
            let message = "name what is to be changed: state, reason, starts_at, ends_at, export_days, \
                           collects_after_end or limits";
            return Err(ManageError::invalid("plan", message));
        }
        if present.state == PlanState::Ended && present.purge_asked_at.is_some_and(|at| now >= at) {
            return Err(ManageError::Refused("the space is being purged, which cannot be undone".to_owned()));
        }
        let Self { state, reason, starts_at, ends_at, export_days, collects, limits } = self;
        let named = state.is_some();
        let state = state.as_deref().map_or(Ok(present.state), read_state)?;
        let is_open = matches!(state, PlanState::Trial | PlanState::Active);
        let kept_reason = present.reason.filter(|_| !(named && is_open));
        let changed = Plan {
            state,
            reason: reason.try_map(|text| read_reason(&text))?.over(kept_reason),
            starts_at: starts_at
                .try_map(|text| read_instant("plan.starts_at", &text))?
                .over(present.starts_at),
            ends_at: ends_at.try_map(|text| read_instant("plan.ends_at", &text))?.over(present.ends_at),
            ended_at: (state == PlanState::Ended).then(|| present.ended_at.unwrap_or(now)),
            export_days: export_days.map_or(Ok(present.export_days), read_export_days)?,
            purge_asked_at: present.purge_asked_at.filter(|_| state == PlanState::Ended),
            collects: collects.unwrap_or(present.collects),
            limits: limits.map_or(Ok(present.limits), |change| change.apply(present.limits))?,
        };
        match (changed.starts_at, changed.ends_at) {
            (Some(start), Some(end)) if start >= end => {
                let message =
                    format!("the term would begin at {start} and end at {end}; it ends after it begins");
                return Err(ManageError::invalid("plan.ends_at", message));
            }
            _ => {}
        }
        // A slip of the pen must not cost a customer everything.
        if let Some(at) = changed.purge_at().filter(|at| changed.purge_asked_at.is_none() && now >= *at) {
            let message = format!(
                "the space would be purged at once: the time to take things out would have been over at {at}. Give it more \
                 export_days; to have it purged, end it and ask for that"
            );
            return Err(ManageError::invalid("plan.ends_at", message));
        }
        Ok(changed)
    }
}

impl LimitsChange {
    fn apply(self, present: PlanLimits) -> Result<PlanLimits> {
        let Self { events_per_month, events_per_second, profiles, audiences, computed_traits } = self;
        let all = [events_per_month, events_per_second, profiles, audiences, computed_traits];
        if all.iter().all(Patch::is_keep) {
            let message = "name what is to be changed: events_per_month, events_per_second, profiles, audiences or \
                           computed_traits";
            return Err(ManageError::invalid("plan.limits", message));
        }
        let read = |name, change: Patch<i64>, present, most| -> Result<Option<u64>> {
            Ok(change.try_map(|limit| read_limit(name, limit, most))?.over(present))
        };
        let per_second = present.events_per_second.map(u64::from);
        let per_second = read("events_per_second", events_per_second, per_second, i64::from(i32::MAX))?;
        Ok(PlanLimits {
            events_per_month: read(
                "events_per_month",
                events_per_month,
                present.events_per_month,
                LIMIT_MAX,
            )?,
            events_per_second: per_second.and_then(|most| u32::try_from(most).ok()),
            profiles: read("profiles", profiles, present.profiles, LIMIT_MAX)?,
            audiences: read("audiences", audiences, present.audiences, LIMIT_MAX)?,
            computed_traits: read("computed_traits", computed_traits, present.computed_traits, LIMIT_MAX)?,
        })
    }
}

fn read_limit(name: &str, limit: i64, most: i64) -> Result<u64> {
    u64::try_from(limit).ok().filter(|_| (1..=most).contains(&limit)).ok_or_else(|| {
        let message = format!("a limit is from 1 to {most}, or null for none");
        ManageError::invalid(format!("plan.limits.{name}"), message)
    })
}

fn read_export_days(days: i64) -> Result<u16> {
    u16::try_from(days).ok().filter(|_| days <= EXPORT_DAYS_MAX).ok_or_else(|| {
        let message = format!("send 0 to {EXPORT_DAYS_MAX} days");
        ManageError::invalid("plan.export_days", message)
    })
}

fn read_reason(text: &str) -> Result<String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > REASON_CHARS_MAX || text.chars().any(char::is_control) {
        let message = format!("a reason has 1 to {REASON_CHARS_MAX} characters and no control characters");
        return Err(ManageError::invalid("plan.reason", message));
    }
    Ok(text.to_owned())
}

fn read_state(word: &str) -> Result<PlanState> {
    PlanState::parse(word).ok_or_else(|| {
        let shown: String = word.chars().take(40).collect();
        let message = format!("there is no state `{shown}`; there are trial, active, suspended and ended");
        ManageError::invalid("plan.state", message)
    })
}

/// An instant as it was sent in a field.
pub(super) fn read_instant(field: &'static str, text: &str) -> Result<Timestamp> {
    let read = Timestamp::parse(text).filter(|at| (Timestamp::EPOCH..TERM_END).contains(at));
    let message = "send a timestamp such as 2024-03-01T12:00:00Z, or null for none";
    read.ok_or_else(|| ManageError::invalid(field, message))
}
