//! What has been seen of events and traits. Advice for people: it is written beside the processor's transactions, and
//! made up for from the log after a crash.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use sqlx::postgres::PgPool;

use super::{Result, StoreError, Walled};
use crate::domain::seen::{Fields, Seen};
use crate::domain::{Offset, SpaceNo};

/// Whose fields they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
pub enum SeenKind {
    /// Events of a name.
    Event = 0,
    /// Traits that identify calls set.
    UserTraits = 1,
    /// Traits that group calls set.
    AccountTraits = 2,
}

/// All that has been seen of one kind, by name; one name, or all.
pub async fn list_seen(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    kind: SeenKind,
    name: Option<&str>,
) -> Result<Vec<(String, Seen)>> {
    #[derive(sqlx::FromRow)]
    struct Row {
        name: String,
        count: i64,
        first_seen_at: DateTime<Utc>,
        last_seen_at: DateTime<Utc>,
        fields: serde_json::Value,
    }
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::schema::list_seen
         SELECT name, count, first_seen_at, last_seen_at, fields FROM seen
         WHERE space_id = $1 AND kind = $2 AND ($3::text IS NULL OR name = $3) ORDER BY name",
    )
    .bind(space.0)
    .bind(kind as i16)
    .bind(name)
    .fetch_all(executor)
    .await?;
    let seen = |row: Row| {
        let Row { name, count, first_seen_at, last_seen_at, fields } = row;
        let fields: Fields = serde_json::from_value(fields)
            .map_err(|e| StoreError::Damaged(format!("what was seen of {name:?}: {e}")))?;
        let (first, last) = (first_seen_at.into(), last_seen_at.into());
        Ok((name, Seen { count: count.unsigned_abs(), first, last, fields }))
    };
    rows.into_iter().map(seen).collect()
}

/// The names that have been seen of one kind.
pub async fn list_names(door: &Walled, space: SpaceNo, kind: SeenKind) -> Result<Vec<String>> {
    let sql = "-- store::schema::list_names
         SELECT name FROM seen WHERE space_id = $1 AND kind = $2 ORDER BY name";
    Ok(sqlx::query_scalar(sql).bind(space.0).bind(kind as i16).fetch_all(door).await?)
}

/// Up to where the log has been looked at.
pub async fn find_position(pool: &PgPool, space: SpaceNo) -> Result<Offset> {
    let sql = "-- store::schema::find_position
         SELECT processed FROM seen_position WHERE space_id = $1";
    let processed: Option<i64> = sqlx::query_scalar(sql).bind(space.0).fetch_optional(pool).await?;
    Ok(Offset(processed.unwrap_or_default().unsigned_abs()))
}

/// Writes what is new, and up to where it goes, unless another process has taken the space over meanwhile.
pub async fn save_seen(
    pool: &PgPool,
    space: SpaceNo,
    epoch: i64,
    rows: &[(SeenKind, &str, &Seen)],
    processed: Offset,
) -> Result<()> {
    let fields = rows.iter().map(|(.., seen)| serde_json::to_value(&seen.fields).unwrap_or_default());
    sqlx::query(
        "-- store::schema::save_seen
         WITH mine AS (
             INSERT INTO seen_position (space_id, processed)
             SELECT space_id, $3 FROM processor WHERE space_id = $1 AND epoch = $2
             ON CONFLICT (space_id) DO UPDATE SET processed = EXCLUDED.processed
             RETURNING space_id
         )
         INSERT INTO seen (space_id, kind, name, count, first_seen_at, last_seen_at, fields)
         SELECT mine.space_id, s.* FROM mine CROSS JOIN unnest(
             $4::smallint[], $5::text[], $6::bigint[], $7::timestamptz[], $8::timestamptz[], $9::jsonb[]) AS s
         ON CONFLICT (space_id, kind, name) DO UPDATE SET count = EXCLUDED.count,
             first_seen_at = EXCLUDED.first_seen_at, last_seen_at = EXCLUDED.last_seen_at, fields = EXCLUDED.fields",
    )
    .bind(space.0)
    .bind(epoch)
    .bind(processed.0 as i64)
    .bind(rows.iter().map(|(kind, ..)| *kind as i16).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, name, _)| *name).collect::<Vec<_>>())
    .bind(rows.iter().map(|(.., seen)| seen.count as i64).collect::<Vec<_>>())
    .bind(rows.iter().map(|(.., seen)| seen.first.to_utc()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(.., seen)| seen.last.to_utc()).collect::<Vec<_>>())
    .bind(fields.collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(())
}

/// Writes what is left of fields after something was erased.
pub async fn replace_fields(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    rows: &[(SeenKind, &str, &Seen)],
) -> Result<()> {
    let fields = rows.iter().map(|(.., seen)| serde_json::to_value(&seen.fields).unwrap_or_default());
    sqlx::query(
        "-- store::schema::replace_fields
         UPDATE seen s SET fields = n.fields FROM unnest($2::smallint[], $3::text[], $4::jsonb[]) AS n (kind, name, fields)
         WHERE s.space_id = $1 AND s.kind = n.kind AND s.name = n.name",
    )
    .bind(space.0)
    .bind(rows.iter().map(|(kind, ..)| *kind as i16).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, name, _)| *name).collect::<Vec<_>>())
    .bind(fields.collect::<Vec<_>>())
    .execute(executor)
    .await?;
    Ok(())
}
