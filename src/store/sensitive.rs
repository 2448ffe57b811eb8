//! What spaces do about sensitive data in events, and what was found; the values themselves are nowhere.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;
use sqlx::postgres::PgPool;
use sqlx::types::Json;

use super::registry::bump;
use super::{Result, StoreError, Walled};
use crate::domain::sensitive::{Action, Category, SensitivePattern, SensitiveSettings};
use crate::domain::{SourceNo, SpaceNo, Timestamp};

/// Places a space remembers; what is found elsewhere is counted under the path `*`.
const PLACES_MAX: i64 = 1_000;

/// A pattern as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct PatternRow {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    action: String,
}

type SettingsRow = (i32, i64, Json<BTreeMap<String, String>>, Json<Vec<PatternRow>>, Vec<u8>);

fn settings((_, version, actions, patterns, hash_key): SettingsRow) -> SensitiveSettings {
    // Words of a newer release: what this one does not know, it leaves out of what is stored.
    let action = |word: &str| Action::parse(word).unwrap_or(Action::Drop);
    let mut settings = SensitiveSettings { version, hash_key, ..SensitiveSettings::default() };
    for (category, kept) in Category::ALL.iter().zip(&mut settings.actions) {
        if let Some(word) = actions.get(category.as_str()) {
            *kept = action(word);
        }
    }
    let pattern = |PatternRow { name, key, value, action: word }| SensitivePattern {
        name,
        key,
        value,
        action: action(&word),
    };
    settings.patterns = patterns.0.into_iter().map(pattern).collect();
    settings
}

/// The settings of all spaces that have some of their own.
pub async fn load_all(pool: &PgPool) -> Result<Vec<(SpaceNo, SensitiveSettings)>> {
    let sql = "-- store::sensitive::load_all
         SELECT space_id, version, actions, patterns, hash_key FROM sensitive_settings";
    let rows: Vec<SettingsRow> = sqlx::query_as(sql).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|row| (SpaceNo(row.0), settings(row))).collect())
}

/// The settings of a space.
pub async fn read_settings(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<SensitiveSettings> {
    let sql = "-- store::sensitive::read_settings
         SELECT space_id, version, actions, patterns, hash_key FROM sensitive_settings WHERE space_id = $1";
    let row: Option<SettingsRow> = sqlx::query_as(sql).bind(space.0).fetch_optional(executor).await?;
    Ok(row.map(settings).unwrap_or_default())
}

/// Changes the settings of a space to what `change` makes of the present ones, which nobody else changes meanwhile. An
/// error of `change` leaves everything as it is. `new_key` is taken where there are none yet.
pub async fn change_settings<E: From<StoreError>>(
    door: &Walled,
    space: SpaceNo,
    new_key: Vec<u8>,
    change: impl FnOnce(&SensitiveSettings) -> std::result::Result<SensitiveSettings, E>,
) -> std::result::Result<SensitiveSettings, E> {
    let mut tx = door.begin().await?;
    // Its row lock keeps others out.
    bump(&mut tx).await?;
    let mut present = read_settings(&mut *tx, space).await?;
    if present.hash_key.is_empty() {
        present.hash_key = new_key;
    }
    let mut wanted = change(&present)?;
    wanted.version = present.version + 1;
    let actions: BTreeMap<&str, &str> =
        Category::ALL.iter().zip(wanted.actions).map(|(c, action)| (c.as_str(), action.as_str())).collect();
    let patterns = wanted.patterns.iter().map(|pattern| PatternRow {
        name: pattern.name.clone(),
        key: pattern.key.clone(),
        value: pattern.value.clone(),
        action: pattern.action.as_str().to_owned(),
    });
    sqlx::query(
        "-- store::sensitive::change_settings
         INSERT INTO sensitive_settings (space_id, version, actions, patterns, hash_key)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (space_id) DO UPDATE SET version = excluded.version, actions = excluded.actions,
             patterns = excluded.patterns",
    )
    .bind(space.0)
    .bind(wanted.version)
    .bind(Json(actions))
    .bind(Json(patterns.collect::<Vec<_>>()))
    .bind(&wanted.hash_key)
    .execute(&mut *tx)
    .await
    .map_err(StoreError::from)?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(wanted)
}

/// Where something was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Who sent it.
    pub source: SourceNo,
    /// A category, or the name of a pattern.
    pub what: String,
    /// Keys from the outermost on.
    pub path: String,
    /// What became of it.
    pub action: Action,
}

/// How often something was found, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Events it was found in.
    pub occurrences: i64,
    /// Times of receipt of the first and last.
    pub first_at: Timestamp,
    /// See above.
    pub last_at: Timestamp,
}

/// Adds to what was found.
pub async fn add_findings(pool: &PgPool, space: SpaceNo, found: &BTreeMap<Place, Count>) -> Result<()> {
    let text = |column: fn(&Place) -> String| found.keys().map(column).collect::<Vec<_>>();
    let time =
        |column: fn(&Count) -> Timestamp| found.values().map(|c| column(c).to_utc()).collect::<Vec<_>>();
    // In the order of the key, as everybody takes these rows.
    sqlx::query(
        "-- store::sensitive::add_findings
         WITH given AS (
             SELECT * FROM unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[],
                 $8::timestamptz[]) AS g (source_no, what, path, action, occurrences, first_at, last_at)
         ), room AS (
             SELECT count(*) < $9 AS is_left FROM sensitive_finding WHERE space_id = $1
         ), placed AS (
             SELECT g.*, CASE WHEN room.is_left OR EXISTS (
                 SELECT 1 FROM sensitive_finding f WHERE f.space_id = $1 AND f.source_no = g.source_no
                     AND f.what = g.what AND f.path = g.path AND f.action = g.action
             ) THEN g.path ELSE '*' END AS place
             FROM given g, room
         )
         INSERT INTO sensitive_finding AS f
             (space_id, source_no, what, path, action, occurrences, first_at, last_at)
         SELECT $1, source_no, what, place, action, sum(occurrences), min(first_at), max(last_at)
         FROM placed GROUP BY source_no, what, place, action ORDER BY source_no, what, place, action
         ON CONFLICT (space_id, source_no, what, path, action) DO UPDATE
         SET occurrences = f.occurrences + excluded.occurrences, first_at = least(f.first_at, excluded.first_at),
             last_at = greatest(f.last_at, excluded.last_at)",
    )
    .bind(space.0)
    .bind(found.keys().map(|place| place.source.0).collect::<Vec<_>>())
    .bind(text(|place| place.what.clone()))
    .bind(text(|place| place.path.replace('\0', "")))
    .bind(text(|place| place.action.as_str().to_owned()))
    .bind(found.values().map(|count| count.occurrences).collect::<Vec<_>>())
    .bind(time(|count| count.first_at))
    .bind(time(|count| count.last_at))
    .bind(PLACES_MAX)
    .execute(pool)
    .await?;
    Ok(())
}

type FindingRow = (i32, String, String, String, i64, DateTime<Utc>, DateTime<Utc>);

/// Everything that was found in a space: at most some thousand places.
pub async fn list_findings(door: &Walled, space: SpaceNo) -> Result<Vec<(Place, Count)>> {
    let rows: Vec<FindingRow> = sqlx::query_as(
        "-- store::sensitive::list_findings
         SELECT source_no, what, path, action, occurrences, first_at, last_at FROM sensitive_finding
         WHERE space_id = $1 ORDER BY source_no, what, path, action",
    )
    .bind(space.0)
    .fetch_all(door)
    .await?;
    let row = |(source, what, path, action, occurrences, first_at, last_at): FindingRow| {
        let action = Action::parse(&action).unwrap_or(Action::Drop);
        let count = Count { occurrences, first_at: first_at.into(), last_at: last_at.into() };
        (Place { source: SourceNo(source), what, path, action }, count)
    };
    Ok(rows.into_iter().map(row).collect())
}
