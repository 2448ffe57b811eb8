//! Destinations as operators see and change them. What is wanted of changes is in [`subscriptions`], what workers know in
//! [`worker`], what is sent of everybody in [`syncs`]; [`secrets`] is for a change of their key.

pub mod secrets;
pub mod subscriptions;
pub mod syncs;
pub mod worker;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{Result, Walled, processor};
use crate::domain::{DestinationNo, SpaceNo, Timestamp};

/// A destination.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// Number in the space.
    pub no: DestinationNo,
    /// Public id.
    pub id: Uuid,
    /// For people, and in `integrations` of what is sent.
    pub name: String,
    /// Which kind.
    pub kind: String,
    /// Settings without secrets.
    pub settings: Value,
    /// Secrets, encrypted.
    pub secrets: Option<Vec<u8>>,
    /// Which key they are encrypted with.
    pub secret_key_id: Option<String>,
    /// Limits.
    pub limits: Limits,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// What a destination takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests under way at the same time.
    pub concurrency: i32,
    /// Changes in a second; none: no limit.
    pub rate_per_second: Option<i32>,
    /// Time for one request, in milliseconds.
    pub timeout_ms: i32,
    /// How old the oldest change of a batch gets before the batch is sent although it is not full, in seconds.
    pub linger_seconds: i32,
}

#[derive(sqlx::FromRow)]
struct Row {
    destination_no: i32,
    destination_id: Uuid,
    name: String,
    kind: String,
    settings: Json<Value>,
    secrets: Option<Vec<u8>>,
    secret_key_id: Option<String>,
    concurrency: i32,
    rate_per_second: Option<i32>,
    timeout_ms: i32,
    linger_seconds: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for Destination {
    fn from(row: Row) -> Self {
        Self {
            no: DestinationNo(row.destination_no),
            id: row.destination_id,
            name: row.name,
            kind: row.kind,
            settings: row.settings.0,
            secrets: row.secrets,
            secret_key_id: row.secret_key_id,
            limits: Limits {
                concurrency: row.concurrency,
                rate_per_second: row.rate_per_second,
                timeout_ms: row.timeout_ms,
                linger_seconds: row.linger_seconds,
            },
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        }
    }
}

/// All destinations of a space, by number.
pub async fn list(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Vec<Destination>> {
    let sql = "-- store::destinations::list
         SELECT * FROM destination WHERE space_id = $1 AND NOT deleted ORDER BY destination_no";
    let rows: Vec<Row> = sqlx::query_as(sql).bind(space.0).fetch_all(executor).await?;
    Ok(rows.into_iter().map(Destination::from).collect())
}

/// A destination by its public id.
pub async fn find(executor: impl PgExecutor<'_>, space: SpaceNo, id: Uuid) -> Result<Option<Destination>> {
    let sql = "-- store::destinations::find
         SELECT * FROM destination WHERE space_id = $1 AND destination_id = $2 AND NOT deleted";
    let row: Option<Row> = sqlx::query_as(sql).bind(space.0).bind(id).fetch_optional(executor).await?;
    Ok(row.map(Destination::from))
}

/// A destination by its number.
pub async fn get(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    no: DestinationNo,
) -> Result<Option<Destination>> {
    let sql = "-- store::destinations::get
         SELECT * FROM destination WHERE space_id = $1 AND destination_no = $2 AND NOT deleted";
    let row: Option<Row> = sqlx::query_as(sql).bind(space.0).bind(no.0).fetch_optional(executor).await?;
    Ok(row.map(Destination::from))
}

/// A destination by its public id, locked until the end of the transaction: nobody else changes it meanwhile.
pub async fn find_locked(tx: &mut PgConnection, space: SpaceNo, id: Uuid) -> Result<Option<Destination>> {
    let sql = "-- store::destinations::find_locked
         SELECT * FROM destination WHERE space_id = $1 AND destination_id = $2 AND NOT deleted FOR UPDATE";
    let row: Option<Row> = sqlx::query_as(sql).bind(space.0).bind(id).fetch_optional(tx).await?;
    Ok(row.map(Destination::from))
}

/// Takes a name for a destination of a space until the end of the transaction; false when another one has it. Comes
/// before the destination itself is locked.
pub async fn take_name(tx: &mut PgConnection, space: SpaceNo, name: &str, of: Uuid) -> Result<bool> {
    // Its row lock keeps others of the space out.
    processor::bump_config(&mut *tx, space).await?;
    let sql = "-- store::destinations::take_name
         SELECT NOT EXISTS (SELECT 1 FROM destination
             WHERE space_id = $1 AND name = $2 AND destination_id <> $3 AND NOT deleted)";
    Ok(sqlx::query_scalar(sql).bind(space.0).bind(name).bind(of).fetch_one(tx).await?)
}

/// Adds a destination, gives it a number and its worker and queue; none when its name is taken. `no` of what is given is
/// not looked at.
pub async fn insert(door: &Walled, space: SpaceNo, new: &Destination) -> Result<Option<DestinationNo>> {
    let mut tx = door.begin().await?;
    if !take_name(&mut tx, space, &new.name, new.id).await? {
        return Ok(None);
    }
    let no: i32 = sqlx::query_scalar(
        "-- store::destinations::insert
         INSERT INTO destination (space_id, destination_no, destination_id, name, kind, settings, secrets, secret_key_id,
             concurrency, rate_per_second, timeout_ms, linger_seconds, created_at, updated_at)
         SELECT $1, coalesce(max(destination_no), 0) + 1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $12, $11, $11
         FROM destination WHERE space_id = $1
         RETURNING destination_no",
    )
    .bind(space.0)
    .bind(new.id)
    .bind(&new.name)
    .bind(&new.kind)
    .bind(Json(&new.settings))
    .bind(&new.secrets)
    .bind(&new.secret_key_id)
    .bind(new.limits.concurrency)
    .bind(new.limits.rate_per_second)
    .bind(new.limits.timeout_ms)
    .bind(new.created_at.to_utc())
    .bind(new.limits.linger_seconds)
    .fetch_one(&mut *tx)
    .await?;
    let sql = "-- store::destinations::insert
         INSERT INTO destination_worker (space_id, destination_no, state, state_since) VALUES ($1, $2, 'connected', $3)";
    sqlx::query(sql).bind(space.0).bind(no).bind(new.created_at.to_utc()).execute(&mut *tx).await?;
    let sql = "-- store::destinations::insert\nINSERT INTO delivery_head (space_id, destination_no) VALUES ($1, $2)";
    sqlx::query(sql).bind(space.0).bind(no).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(Some(DestinationNo(no)))
}

/// Writes what can be changed of a destination that is locked, see [`find_locked`].
pub async fn update(tx: &mut PgConnection, space: SpaceNo, changed: &Destination) -> Result<()> {
    sqlx::query(
        "-- store::destinations::update
         UPDATE destination SET name = $3, settings = $4, secrets = $5, secret_key_id = $6, concurrency = $7,
             rate_per_second = $8, timeout_ms = $9, updated_at = $10, linger_seconds = $11
         WHERE space_id = $1 AND destination_no = $2 AND NOT deleted",
    )
    .bind(space.0)
    .bind(changed.no.0)
    .bind(&changed.name)
    .bind(Json(&changed.settings))
    .bind(&changed.secrets)
    .bind(&changed.secret_key_id)
    .bind(changed.limits.concurrency)
    .bind(changed.limits.rate_per_second)
    .bind(changed.limits.timeout_ms)
    .bind(changed.updated_at.to_utc())
    .bind(changed.limits.linger_seconds)
    .execute(&mut *tx)
    .await?;
    worker::bump_config(tx, space, changed.no).await
}

/// Removes a destination: nothing is collected or sent any more; what it left is forgotten by and by.
pub async fn delete(door: &Walled, space: SpaceNo, no: DestinationNo) -> Result<()> {
    let mut tx = door.begin().await?;
    processor::bump_config(&mut tx, space).await?;
    for sql in [
        "-- store::destinations::delete
         UPDATE destination SET deleted = true, secrets = NULL WHERE space_id = $1 AND destination_no = $2",
        // In the order in which workers lock them.
        "-- store::destinations::delete
         DELETE FROM destination_worker WHERE space_id = $1 AND destination_no = $2",
        "-- store::destinations::delete
         DELETE FROM delivery_head WHERE space_id = $1 AND destination_no = $2",
        "-- store::destinations::delete
         DELETE FROM destination_subscription WHERE space_id = $1 AND destination_no = $2",
        "-- store::destinations::delete
         DELETE FROM destination_sync WHERE space_id = $1 AND destination_no = $2",
        "-- store::destinations::delete
         DELETE FROM destination_failure WHERE space_id = $1 AND destination_no = $2",
        "-- store::destinations::delete
         DELETE FROM delivery_hold WHERE space_id = $1 AND destination_no = $2",
        "-- store::destinations::delete
         DELETE FROM consent_mapping WHERE space_id = $1 AND destination_no = $2",
    ] {
        sqlx::query(sql).bind(space.0).bind(no.0).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Rows that are forgotten of a deleted destination at a time.
const PURGE_ROWS: i64 = 5_000;

/// Forgets a part of what deleted destinations of all spaces left; false when there was nothing.
pub async fn purge(connection: &mut PgConnection) -> Result<bool> {
    let sql = "-- store::destinations::purge
         SELECT space_id, destination_no FROM destination WHERE deleted ORDER BY 1, 2 LIMIT 1";
    let Some((space, no)): Option<(i32, i32)> = sqlx::query_as(sql).fetch_optional(&mut *connection).await?
    else {
        return Ok(false);
    };
    let mut gone = 0;
    for sql in [
        "-- store::destinations::purge
         DELETE FROM delivery WHERE space_id = $1 AND destination_no = $2 AND seq <=
             (SELECT max(seq) FROM (SELECT seq FROM delivery WHERE space_id = $1 AND destination_no = $2
              ORDER BY seq LIMIT $3) first)",
        "-- store::destinations::purge
         DELETE FROM delivery_outcome WHERE space_id = $1 AND destination_no = $2 AND delivery_no <=
             (SELECT max(delivery_no) FROM (SELECT delivery_no FROM delivery_outcome WHERE space_id = $1 AND destination_no = $2
              ORDER BY delivery_no LIMIT $3) first)",
        "-- store::destinations::purge
         DELETE FROM delivery_attempt WHERE space_id = $1 AND destination_no = $2 AND delivery_no <=
             (SELECT max(delivery_no) FROM (SELECT delivery_no FROM delivery_attempt WHERE space_id = $1 AND destination_no = $2
              ORDER BY delivery_no LIMIT $3) first)",
        "-- store::destinations::purge
         DELETE FROM delivery_exchange WHERE space_id = $1 AND destination_no = $2 AND exchange_id <=
             (SELECT exchange_id FROM (SELECT exchange_id FROM delivery_exchange WHERE space_id = $1 AND destination_no = $2
              ORDER BY exchange_id LIMIT $3) first ORDER BY exchange_id DESC LIMIT 1)",
    ] {
        let done = sqlx::query(sql).bind(space).bind(no).bind(PURGE_ROWS).execute(&mut *connection).await?;
        gone += done.rows_affected();
    }
    if gone == 0 {
        let sql = "-- store::destinations::purge
             DELETE FROM destination WHERE space_id = $1 AND destination_no = $2 AND deleted";
        sqlx::query(sql).bind(space).bind(no).execute(connection).await?;
    }
    Ok(true)
}
