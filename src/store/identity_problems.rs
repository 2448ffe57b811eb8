//! What identity resolution refuses: on each profile, over all profiles of a space by value, and by rule. All three are
//! kept by [`upsert_refusals`].

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::identity::RefusalRow;
use super::{Result, Walled};
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
    door: &Walled,
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
    .fetch_all(door)
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
pub async fn list_rules(door: &Walled, space: SpaceNo) -> Result<Vec<RuleCount>> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "-- store::identity_problems::list_rules
         SELECT rule, ids, occurrences FROM identity_rule WHERE space_id = $1 ORDER BY occurrences DESC, rule",
    )
    .bind(space.0)
    .fetch_all(door)
    .await?;
    Ok(rows.into_iter().map(|(rule, ids, occurrences)| RuleCount { rule, ids, occurrences }).collect())
}

/// Remembers refusals, on their profiles and in the problems of the space; `rows` has at most one per profile and key. One
/// statement a table, none of which joins: a batch may have a hundred thousand of them.
pub async fn upsert_refusals(tx: &mut PgConnection, space: SpaceNo, rows: &[RefusalRow]) -> Result<()> {
    let keys: Vec<Uuid> = rows.iter().map(|r| r.key().to_uuid()).collect();
    let new = upsert_on_profiles(tx, space, rows, &keys).await?;
    let mut problems: BTreeMap<Uuid, Problem> = BTreeMap::new();
    for (row, key) in rows.iter().zip(keys) {
        let problem = problems.entry(key).or_insert_with(|| Problem {
            key,
            rule: row.rule.clone(),
            id_type: row.id_type.clone(),
            value: row.value.clone(),
            occurrences: 0,
            profiles: 0,
            first_at: row.first_at,
            last_at: row.last_at,
        });
        problem.occurrences += row.occurrences;
        problem.profiles += i64::from(row.profile.0 != 0 && new.contains(&(row.profile.0 as i64, key)));
        problem.first_at = problem.first_at.min(row.first_at);
        problem.last_at = problem.last_at.max(row.last_at);
    }
    let problems: Vec<Problem> = problems.into_values().collect();
    let new = upsert_problems(tx, space, &problems).await?;
    let mut rules: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for problem in &problems {
        let (ids, occurrences) = rules.entry(&problem.rule).or_default();
        *ids += i64::from(new.contains(&problem.key));
        *occurrences += problem.occurrences;
    }
    sqlx::query(
        "-- store::identity_problems::upsert_refusals
         INSERT INTO identity_rule (space_id, rule, ids, occurrences)
         SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::bigint[])
         ON CONFLICT (space_id, rule) DO UPDATE SET ids = identity_rule.ids + excluded.ids,
             occurrences = identity_rule.occurrences + excluded.occurrences",
    )
    .bind(space.0)
    .bind(rules.keys().copied().collect::<Vec<_>>())
    .bind(rules.values().map(|(ids, _)| *ids).collect::<Vec<_>>())
    .bind(rules.values().map(|(_, occurrences)| *occurrences).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// Returns which of them are new: profile and key.
async fn upsert_on_profiles(
    tx: &mut PgConnection,
    space: SpaceNo,
    rows: &[RefusalRow],
    keys: &[Uuid],
) -> Result<HashSet<(i64, Uuid)>> {
    let text = |column: fn(&RefusalRow) -> &str| rows.iter().map(column).collect::<Vec<_>>();
    // No row that was there before has an xmax of 0.
    let written: Vec<(i64, Uuid, bool)> = sqlx::query_as(
        "-- store::identity_problems::upsert_on_profiles
         INSERT INTO identity_refusal
             (space_id, profile_no, refusal_key, rule, type, value, occurrences, first_offset, message_id,
              first_at, last_at)
         SELECT $1, * FROM unnest($2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[],
             $8::bigint[], $9::text[], $10::timestamptz[], $11::timestamptz[])
         ON CONFLICT (space_id, profile_no, refusal_key) DO UPDATE
             SET occurrences = identity_refusal.occurrences + excluded.occurrences, last_at = excluded.last_at
         RETURNING profile_no, refusal_key, xmax = 0",
    )
    .bind(space.0)
    .bind(rows.iter().map(|r| r.profile.0 as i64).collect::<Vec<_>>())
    .bind(keys)
    .bind(text(|r| &r.rule))
    .bind(text(|r| &r.id_type))
    .bind(text(|r| &r.value))
    .bind(rows.iter().map(|r| r.occurrences).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.first_offset.0 as i64).collect::<Vec<_>>())
    .bind(text(|r| &r.message_id))
    .bind(rows.iter().map(|r| r.first_at.to_utc()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.last_at.to_utc()).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    Ok(written.into_iter().filter(|(.., is_new)| *is_new).map(|(no, key, _)| (no, key)).collect())
}

/// Returns which of them are new, by their keys.
async fn upsert_problems(
    tx: &mut PgConnection,
    space: SpaceNo,
    problems: &[Problem],
) -> Result<HashSet<Uuid>> {
    let text = |column: fn(&Problem) -> &str| problems.iter().map(column).collect::<Vec<_>>();
    let written: Vec<(Uuid, bool)> = sqlx::query_as(
        "-- store::identity_problems::upsert_problems
         INSERT INTO identity_problem
             (space_id, problem_key, rule, type, value, occurrences, profiles, first_at, last_at)
         SELECT $1, * FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
             $8::timestamptz[], $9::timestamptz[])
         ON CONFLICT (space_id, problem_key) DO UPDATE
             SET occurrences = identity_problem.occurrences + excluded.occurrences,
                 profiles = identity_problem.profiles + excluded.profiles,
                 last_at = greatest(identity_problem.last_at, excluded.last_at)
         RETURNING problem_key, xmax = 0",
    )
    .bind(space.0)
    .bind(problems.iter().map(|p| p.key).collect::<Vec<_>>())
    .bind(text(|p| &p.rule))
    .bind(text(|p| &p.id_type))
    .bind(text(|p| &p.value))
    .bind(problems.iter().map(|p| p.occurrences).collect::<Vec<_>>())
    .bind(problems.iter().map(|p| p.profiles).collect::<Vec<_>>())
    .bind(problems.iter().map(|p| p.first_at.to_utc()).collect::<Vec<_>>())
    .bind(problems.iter().map(|p| p.last_at.to_utc()).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    Ok(written.into_iter().filter(|(_, is_new)| *is_new).map(|(key, _)| key).collect())
}
