//! Sources and their write keys.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{FromRow, PgConnection, PgExecutor, Row};
use uuid::Uuid;

use super::registry::{SecretHash, Source, WriteKey, bump, hash_secret, visible_prefix};
use super::{Result, Walled};
use crate::domain::origin::AllowedOrigin;
use crate::domain::{Patch, SourceNo, SpaceNo, Timestamp};

impl FromRow<'_, PgRow> for Source {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let rate: Option<i32> = row.try_get("events_per_second_max")?;
        let origins: Option<Vec<String>> = row.try_get("allowed_origins")?;
        Ok(Self {
            space: SpaceNo(row.try_get("space_id")?),
            no: SourceNo(row.try_get("source_no")?),
            id: row.try_get("source_id")?,
            name: row.try_get("name")?,
            enabled: row.try_get("enabled")?,
            events_per_second_max: rate.and_then(|rate| u32::try_from(rate).ok()),
            // One that cannot be read allows nothing, which is the safe side.
            allowed_origins: origins
                .map(|all| all.iter().filter_map(|text| AllowedOrigin::parse(text)).collect()),
            is_public: row.try_get("is_public")?,
            created_at: row.try_get::<DateTime<Utc>, _>("created_at")?.into(),
        })
    }
}

/// All sources.
pub async fn list_sources(executor: impl PgExecutor<'_>, only: Option<SpaceNo>) -> Result<Vec<Source>> {
    let sql = "-- store::sources::list_sources
         SELECT space_id, source_no, source_id, name, enabled, events_per_second_max, allowed_origins,
             is_public, created_at
         FROM source WHERE $1::int IS NULL OR space_id = $1";
    Ok(sqlx::query_as(sql).bind(only.map(|space| space.0)).fetch_all(executor).await?)
}

/// All write keys that have not been revoked.
pub async fn load_write_keys(pool: &PgPool) -> Result<HashMap<SecretHash, WriteKey>> {
    type Row = (i32, i32, Vec<u8>, Option<DateTime<Utc>>);
    let keys: Vec<Row> = sqlx::query_as(
        "-- store::sources::load_write_keys
         SELECT space_id, source_no, key_hash, expires_at FROM write_key WHERE revoked_at IS NULL",
    )
    .fetch_all(pool)
    .await?;
    let key = |(space, source, hash, expires_at): Row| {
        let expires_at = expires_at.map(Timestamp::from);
        let key = WriteKey { space: SpaceNo(space), source: SourceNo(source), expires_at };
        Some((SecretHash::try_from(hash).ok()?, key))
    };
    Ok(keys.into_iter().filter_map(key).collect())
}

/// The sources of one space: number, id, name.
pub async fn list_source_names(
    tx: &mut PgConnection,
    space: SpaceNo,
) -> Result<Vec<(SourceNo, Uuid, String)>> {
    let sql = "-- store::sources::list_source_names
         SELECT source_no, source_id, name FROM source WHERE space_id = $1";
    let rows: Vec<(i32, Uuid, String)> = sqlx::query_as(sql).bind(space.0).fetch_all(tx).await?;
    Ok(rows.into_iter().map(|(no, id, name)| (SourceNo(no), id, name)).collect())
}

/// A source to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewSource<'a> {
    /// Its public id.
    pub id: Uuid,
    /// For people.
    pub name: &'a str,
    /// Events it may send a process in a second; `None` is no limit.
    pub events_per_second_max: Option<u32>,
    /// Pages it takes events from; `None` is any.
    pub allowed_origins: Option<&'a [AllowedOrigin]>,
    /// Whether its write key is known to anybody, as those of pages and apps are.
    pub is_public: bool,
    /// Its first write key.
    pub write_key: &'a str,
}

/// Makes a source and its first write key.
pub async fn insert_source(
    door: &Walled,
    space: SpaceNo,
    new: &NewSource<'_>,
    at: Timestamp,
) -> Result<Source> {
    let NewSource { id, name, events_per_second_max, allowed_origins, is_public, write_key } = *new;
    let mut tx = door.begin().await?;
    bump(&mut tx).await?;
    let no: i32 = sqlx::query_scalar(
        "-- store::sources::insert_source
         INSERT INTO source
             (space_id, source_no, source_id, name, created_at, events_per_second_max, allowed_origins, is_public)
         SELECT $1, coalesce(max(source_no), 0) + 1, $2, $3, $4, $5, $6, $7 FROM source WHERE space_id = $1
         RETURNING source_no",
    )
    .bind(space.0)
    .bind(id)
    .bind(name)
    .bind(at.to_utc())
    .bind(events_per_second_max.map(|rate| rate as i32))
    .bind(allowed_origins.map(texts))
    .bind(is_public)
    .fetch_one(&mut *tx)
    .await?;
    insert_write_key(&mut tx, space, SourceNo(no), write_key, at).await?;
    tx.commit().await?;
    Ok(Source {
        space,
        no: SourceNo(no),
        id,
        name: name.to_owned(),
        enabled: true,
        events_per_second_max,
        allowed_origins: allowed_origins.map(Arc::from),
        is_public,
        created_at: at,
    })
}

fn texts(origins: &[AllowedOrigin]) -> Vec<String> {
    origins.iter().map(ToString::to_string).collect()
}

async fn insert_write_key(
    tx: &mut PgConnection,
    space: SpaceNo,
    source: SourceNo,
    key: &str,
    at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "-- store::sources::insert_write_key
         INSERT INTO write_key (space_id, key_hash, source_no, prefix, created_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(space.0)
    .bind(hash_secret(key).as_slice())
    .bind(source.0)
    .bind(visible_prefix(key))
    .bind(at.to_utc())
    .execute(tx)
    .await?;
    Ok(())
}

/// What is to be changed of a source.
#[derive(Debug, Clone, Default)]
pub struct SourceUpdate {
    /// Whether it may send; `None` leaves it as it is.
    pub enabled: Option<bool>,
    /// Events it may send a process in a second.
    pub events_per_second_max: Patch<u32>,
    /// Pages it takes events from.
    pub allowed_origins: Patch<Vec<AllowedOrigin>>,
    /// Whether its write key is known to anybody, as those of pages and apps are.
    pub is_public: Option<bool>,
}

/// Changes a source. False when there is no such source.
pub async fn update_source(door: &Walled, space: SpaceNo, id: Uuid, update: SourceUpdate) -> Result<bool> {
    let SourceUpdate { enabled, events_per_second_max, allowed_origins, is_public } = update;
    let mut tx = door.begin().await?;
    bump(&mut tx).await?;
    let done = sqlx::query(
        "-- store::sources::update_source
         UPDATE source SET enabled = coalesce($3, enabled),
             events_per_second_max = CASE WHEN $4 THEN $5 ELSE events_per_second_max END,
             allowed_origins = CASE WHEN $6 THEN $7 ELSE allowed_origins END,
             is_public = coalesce($8, is_public)
         WHERE space_id = $1 AND source_id = $2",
    )
    .bind(space.0)
    .bind(id)
    .bind(enabled)
    .bind(!events_per_second_max.is_keep())
    .bind(events_per_second_max.over(None).map(|rate| rate as i32))
    .bind(!allowed_origins.is_keep())
    .bind(allowed_origins.over(None).as_deref().map(texts))
    .bind(is_public)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}

/// Adds a write key to a source; `Exists` when it has been used before, revoked ones included.
pub async fn add_write_key(
    door: &Walled,
    space: SpaceNo,
    source: SourceNo,
    key: &str,
    at: Timestamp,
) -> Result<()> {
    let mut tx = door.begin().await?;
    bump(&mut tx).await?;
    insert_write_key(&mut tx, space, source, key, at).await?;
    tx.commit().await?;
    Ok(())
}

/// What becomes of a write key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFate {
    /// It is out of use for ever, from this instant.
    Revoked(Timestamp),
    /// It works until this instant; `None` is without end.
    Expires(Option<Timestamp>),
}

/// Decides what becomes of the write key of a source that is recognised by `prefix`; false when there is none, or when more
/// than one has it.
pub async fn decide_write_key(
    door: &Walled,
    space: SpaceNo,
    source: SourceNo,
    prefix: &str,
    fate: KeyFate,
) -> Result<bool> {
    let (sql, at) = match fate {
        KeyFate::Revoked(at) => (
            "-- store::sources::decide_write_key: revoked
             UPDATE write_key SET revoked_at = $4
             WHERE space_id = $1 AND source_no = $2 AND prefix = $3 AND revoked_at IS NULL",
            Some(at),
        ),
        KeyFate::Expires(at) => (
            "-- store::sources::decide_write_key: expires
             UPDATE write_key SET expires_at = $4
             WHERE space_id = $1 AND source_no = $2 AND prefix = $3 AND revoked_at IS NULL",
            at,
        ),
    };
    let mut tx = door.begin().await?;
    bump(&mut tx).await?;
    let query = sqlx::query(sql).bind(space.0).bind(source.0).bind(prefix).bind(at.map(Timestamp::to_utc));
    let is_one = query.execute(&mut *tx).await?.rows_affected() == 1;
    if is_one {
        tx.commit().await?;
    }
    Ok(is_one)
}

/// What may be shown of a write key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyView {
    /// Its source.
    pub source: SourceNo,
    /// First characters, to recognise it by.
    pub prefix: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to half a minute.
    pub last_used_at: Option<Timestamp>,
    /// When it stops working; `None` is never.
    pub expires_at: Option<Timestamp>,
}

/// The write keys of a space that have not been revoked, oldest first.
pub async fn list_write_keys(door: &Walled, space: SpaceNo) -> Result<Vec<KeyView>> {
    type Row = (i32, String, DateTime<Utc>, Option<DateTime<Utc>>, Option<DateTime<Utc>>);
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::sources::list_write_keys
         SELECT source_no, prefix, created_at, last_used_at, expires_at FROM write_key
         WHERE space_id = $1 AND revoked_at IS NULL ORDER BY created_at, key_hash",
    )
    .bind(space.0)
    .fetch_all(door)
    .await?;
    let view = |(source, prefix, created_at, used, expires): Row| KeyView {
        source: SourceNo(source),
        prefix,
        created_at: created_at.into(),
        last_used_at: used.map(Timestamp::from),
        expires_at: expires.map(Timestamp::from),
    };
    Ok(rows.into_iter().map(view).collect())
}
