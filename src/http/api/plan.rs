//! Plans of spaces in JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::not_null;
use crate::domain::plan::PlanLimits;
use crate::domain::{Patch, Plan, Timestamp};
use crate::manage::plans::{LimitsChange, PlanChange};

/// What was agreed about a space, and what follows: docs/operations.md says what each state refuses.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Plan)]
pub(super) struct PlanJson {
    /// `trial`, `active`, `suspended` or `ended`.
    state: &'static str,
    /// Why it is suspended or has ended.
    reason: Option<String>,
    /// The first instant of the term; none: since ever.
    starts_at: Option<String>,
    /// The first instant after the term; none: without end.
    ends_at: Option<String>,
    /// Days from its end to its purge, in which everything can be read and taken out.
    export_days: u16,
    /// When that is over; none: it has no end.
    export_ends_at: Option<String>,
    /// When it is purged; none: it has no end, or it goes on collecting events.
    purge_at: Option<String>,
    /// After its end, events are still taken and kept in the log; there are no profiles of them until it is active again.
    collects_after_end: bool,
    limits: LimitsJson,
}

/// How much it may have; none: no limit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlanLimits)]
struct LimitsJson {
    /// Events taken in a calendar month (UTC).
    events_per_month: Option<u64>,
    /// Events each process of the service takes in a second.
    events_per_second: Option<u32>,
    /// Profiles, users and accounts.
    profiles: Option<u64>,
    audiences: Option<u64>,
    computed_traits: Option<u64>,
}

impl From<Plan> for PlanJson {
    fn from(plan: Plan) -> Self {
        let show = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let (export_ends_at, purge_at) = (show(plan.export_ends_at()), show(plan.purge_at()));
        let Plan { state, reason, starts_at, ends_at, export_days, collects, limits, .. } = plan;
        let PlanLimits { events_per_month, events_per_second, profiles, audiences, computed_traits } = limits;
        Self {
            state: state.as_str(),
            reason,
            starts_at: show(starts_at),
            ends_at: show(ends_at),
            export_days,
            export_ends_at,
            purge_at,
            collects_after_end: collects,
            limits: LimitsJson { events_per_month, events_per_second, profiles, audiences, computed_traits },
        }
    }
}

/// What is to be changed of a plan; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = PlanChange)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanChangeJson {
    /// `trial`, `active`, `suspended` or `ended`.
    #[serde(default, deserialize_with = "not_null")]
    state: Option<String>,
    /// Why, for people, at most 500 characters; null: none. It goes when the state becomes `trial` or `active`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    reason: Patch<String>,
    /// The first instant of the term, RFC 3339; null: since ever.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    starts_at: Patch<String>,
    /// The first instant after the term, RFC 3339; null: without end.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    ends_at: Patch<String>,
    /// Days from its end to its purge, 0 to 3,650.
    #[serde(default, deserialize_with = "not_null")]
    export_days: Option<i64>,
    /// After its end, events are still taken and kept in the log, and it is not purged by itself.
    #[serde(default, deserialize_with = "not_null")]
    collects_after_end: Option<bool>,
    #[serde(default, deserialize_with = "not_null")]
    limits: Option<LimitsChangeJson>,
}

/// What is to be changed of limits; what is left out stays, null: no limit.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = PlanLimitsChange)]
#[serde(deny_unknown_fields)]
struct LimitsChangeJson {
    /// Events taken in a calendar month (UTC).
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    events_per_month: Patch<i64>,
    /// Events each process of the service takes in a second.
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    events_per_second: Patch<i64>,
    /// Profiles, users and accounts.
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    profiles: Patch<i64>,
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    audiences: Patch<i64>,
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    computed_traits: Patch<i64>,
}

impl From<PlanChangeJson> for PlanChange {
    fn from(change: PlanChangeJson) -> Self {
        let PlanChangeJson { state, reason, starts_at, ends_at, export_days, collects_after_end, limits } =
            change;
        let limits = limits.map(|limits| {
            let LimitsChangeJson {
                events_per_month,
                events_per_second,
                profiles,
                audiences,
                computed_traits,
            } = limits;
            LimitsChange { events_per_month, events_per_second, profiles, audiences, computed_traits }
        });
        Self { state, reason, starts_at, ends_at, export_days, collects: collects_after_end, limits }
    }
}
