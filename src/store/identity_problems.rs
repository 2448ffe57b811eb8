//! What identity resolution refuses, over all profiles of a space. Written by [`super::identity::upsert_refusals`].

use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::Result;
use crate::domain::{SpaceNo, Timestamp};

/// A value that a rule refuses, however often and to whomever.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Tells problems that occurred equally often apart, in an order that does not change.
    pub key: Uuid,
    /// The rule.
    pub rule: String,
    /// Identifier type.
    pub id_type: String,
    /// Identifier value.
    pub value: String,
    /// How often.
    pub occurrences: i64,
    /// Profiles it was refused to; one that was absorbed since counts as one of its own.
    pub profiles: i64,
    /// When it happened first (time of receipt).
    pub first_at: Timestamp,
    /// When it happened last.
    pub last_at: Timestamp,
}

/// A page of the problems of a space, those with most occurrences first, behind the one with these occurrences and key.
pub async fn list_problems(
    pool: &PgPool,
    space: SpaceNo,
    after: Option<(i64, Uuid)>,
    limit: i64,
) -> Result<Vec<Problem>> {
    type Row = (Uuid, String, String, String, i64, i64, DateTime<Utc>, DateTime<Utc>);
    let (occurrences, key) = after.unwrap_or((i64::MAX, Uuid::max()));
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::identity_problems::list_problems
         SELECT problem_key, rule, type, value, occurrences, profiles, first_at, last_at FROM identity_problem
         WHERE space_id = $1 AND (occurrences, problem_key) < ($2, $3)
         ORDER BY occurrences DESC, problem_key DESC LIMIT $4",
    )
    .bind(space.0)
    .bind(occurrences)
    .bind(key)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let problem = |(key, rule, id_type, value, occurrences, profiles, first_at, last_at): Row| Problem {
        key,
        rule,
        id_type,
        value,
        occurrences,
        profiles,
        first_at: first_at.into(),
        last_at: last_at.into(),
    };
    Ok(rows.into_iter().map(problem).collect())
}

/// What a rule has refused in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleCount {
    /// The rule.
    pub rule: String,
    /// Values, each once.
    pub ids: i64,
    /// How often.
    pub occurrences: i64,
}

/// What each rule has refused in a space, the one that refuses most first.
pub async fn list_rules(pool: &PgPool, space: SpaceNo) -> Result<Vec<RuleCount>> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "-- store::identity_problems::list_rules
         SELECT rule, ids, occurrences FROM identity_rule WHERE space_id = $1 ORDER BY occurrences DESC, rule",
    )
    .bind(space.0)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(rule, ids, occurrences)| RuleCount { rule, ids, occurrences }).collect())
}
