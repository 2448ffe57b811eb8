//! The row of a destination's worker: lease, state and counters. Whoever holds the lease writes under its epoch; a process
//! that lost it writes nothing any more.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::domain::{DestinationNo, SpaceNo, Timestamp};
use crate::store::{Result, StoreError};

/// How a destination stands, as the supervisor of all workers looks at it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Glance {
    /// The space.
    pub space_id: i32,
    /// The destination.
    pub destination_no: i32,
    /// `connected`, `paused` or `failing`.
    pub state: String,
    /// Version of settings, limits and subscriptions.
    pub config_version: i64,
    /// How often rows of the queue were given to other profiles, other than by merges.
    pub shuffled: i64,
    /// Nobody holds the lease.
    pub is_free: bool,
    /// End of the queue.
    pub last_no: i64,
    /// Rows that left the queue.
    pub done: i64,
    /// Dead letters.
    pub dead: i64,
    /// Events of the space that are not processed yet.
    pub events_waiting: i64,
}

/// All destinations of all spaces.
pub async fn glance(executor: impl PgExecutor<'_>) -> Result<Vec<Glance>> {
    let sql = "-- store::destinations::worker::glance
         SELECT w.space_id, w.destination_no, w.state, w.config_version, w.shuffled,
             w.lease_until < clock_timestamp() AS is_free,
             h.last_no, w.done, w.dead, l.end_offset - p.processed_offset AS events_waiting
         FROM destination_worker w
         JOIN delivery_head h ON h.space_id = w.space_id AND h.destination_no = w.destination_no
         JOIN log_head l ON l.space_id = w.space_id
         JOIN processor p ON p.space_id = w.space_id";
    Ok(sqlx::query_as(sql).fetch_all(executor).await?)
}

/// Takes the lease when it is free or has run out; the new epoch, or none while another process holds it. Nobody waits for
/// whoever is writing just now: that is not free.
pub async fn take_lease(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    no: DestinationNo,
    owner: Uuid,
    length: Duration,
) -> Result<Option<i64>> {
    let sql = "-- store::destinations::worker::take_lease
         UPDATE destination_worker SET owner = $3, epoch = epoch + 1,
             lease_until = clock_timestamp() + make_interval(secs => $4)
         WHERE (space_id, destination_no) = (
             SELECT space_id, destination_no FROM destination_worker
             WHERE space_id = $1 AND destination_no = $2 AND lease_until < clock_timestamp()
             FOR NO KEY UPDATE SKIP LOCKED
         )
         RETURNING epoch";
    let query = sqlx::query_scalar(sql).bind(space.0).bind(no.0).bind(owner).bind(length.as_secs_f64());
    Ok(query.fetch_optional(executor).await?)
}

/// Gives the lease back, so that another process can go on at once.
pub async fn release_lease(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    no: DestinationNo,
    epoch: i64,
) -> Result<()> {
    let sql = "-- store::destinations::worker::release_lease
         UPDATE destination_worker SET lease_until = '-infinity', in_flight = 0
         WHERE space_id = $1 AND destination_no = $2 AND epoch = $3";
    sqlx::query(sql).bind(space.0).bind(no.0).bind(epoch).execute(executor).await?;
    Ok(())
}

/// Ends all leases: only for a server that knows it is alone.
pub async fn end_all_leases(pool: &PgPool) -> Result<()> {
    let sql = "-- store::destinations::worker::end_all_leases
         UPDATE destination_worker SET lease_until = '-infinity'";
    sqlx::query(sql).execute(pool).await?;
    Ok(())
}

/// The state of a destination, the version of its settings, and how often its queue was shuffled.
pub async fn find_config(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    no: DestinationNo,
) -> Result<Option<(String, i64, i64)>> {
    let sql = "-- store::destinations::worker::find_config
         SELECT state, config_version, shuffled FROM destination_worker WHERE space_id = $1 AND destination_no = $2";
    Ok(sqlx::query_as(sql).bind(space.0).bind(no.0).fetch_optional(executor).await?)
}

/// Tells the worker to reload. Part of the change's transaction.
pub async fn bump_config(tx: &mut PgConnection, space: SpaceNo, no: DestinationNo) -> Result<()> {
    let sql = "-- store::destinations::worker::bump_config
         UPDATE destination_worker SET config_version = config_version + 1 WHERE space_id = $1 AND destination_no = $2";
    sqlx::query(sql).bind(space.0).bind(no.0).execute(tx).await?;
    Ok(())
}

/// What a transaction of a worker adds to its row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows that leave the queue.
    pub done: i64,
    /// Of them, those that arrived.
    pub delivered: i64,
    /// Of them, those that were not wanted.
    pub filtered: i64,
    /// Change of the number of dead letters.
    pub dead: i64,
    /// Changes under way now.
    pub in_flight: i32,
    /// Something arrived.
    pub delivered_at: Option<Timestamp>,
    /// The newest failure: when, its code and what is told of it.
    pub failed: Option<(Timestamp, String, String)>,
}

/// Moves the row as part of a worker's transaction and extends the lease; `Fenced` when it is not ours. Returns since
/// when there was nothing but failure.
pub async fn advance(
    tx: &mut PgConnection,
    space: SpaceNo,
    no: DestinationNo,
    epoch: i64,
    lease: Duration,
    progress: &Progress,
) -> Result<Option<Timestamp>> {
    let (failed_at, code, message) = match &progress.failed {
        Some((at, code, message)) => (Some(at.to_utc()), Some(code), Some(message)),
        None => (None, None, None),
    };
    let row: Option<Option<DateTime<Utc>>> = sqlx::query_scalar(
        "-- store::destinations::worker::advance
         UPDATE destination_worker SET lease_until = clock_timestamp() + make_interval(secs => $4),
             done = done + $5, delivered = delivered + $6, filtered = filtered + $7, dead = dead + $8, in_flight = $13,
             last_delivered_at = coalesce($9, last_delivered_at),
             last_error_at = coalesce($10, last_error_at), last_error_code = coalesce($11, last_error_code),
             last_error = coalesce($12, last_error),
             failing_since = CASE WHEN $9::timestamptz IS NOT NULL THEN NULL ELSE coalesce(failing_since, $10) END
         WHERE space_id = $1 AND destination_no = $2 AND epoch = $3 RETURNING failing_since",
    )
    .bind(space.0)
    .bind(no.0)
    .bind(epoch)
    .bind(lease.as_secs_f64())
    .bind(progress.done)
    .bind(progress.delivered)
    .bind(progress.filtered)
    .bind(progress.dead)
    .bind(progress.delivered_at.map(Timestamp::to_utc))
    .bind(failed_at)
    .bind(code)
    .bind(message)
    .bind(progress.in_flight)
    .fetch_optional(tx)
    .await?;
    Ok(row.ok_or(StoreError::Fenced)?.map(Timestamp::from))
}

/// So many rows were not there any more when they were to leave the queue. Of a worker's transaction.
pub async fn uncount(tx: &mut PgConnection, space: SpaceNo, no: DestinationNo, rows: i64) -> Result<()> {
    let sql = "-- store::destinations::worker::uncount
         UPDATE destination_worker SET done = done - $3 WHERE space_id = $1 AND destination_no = $2";
    sqlx::query(sql).bind(space.0).bind(no.0).bind(rows).execute(tx).await?;
    Ok(())
}

/// Adds to the failed attempts, by reason.
pub async fn add_failures(
    tx: &mut PgConnection,
    space: SpaceNo,
    no: DestinationNo,
    failures: &[(String, i64)],
) -> Result<()> {
    let (codes, counts): (Vec<&String>, Vec<i64>) = failures.iter().map(|(c, n)| (c, *n)).unzip();
    let sql = "-- store::destinations::worker::add_failures
         INSERT INTO destination_failure AS f (space_id, destination_no, code, attempts)
         SELECT $1, $2, * FROM unnest($3::text[], $4::bigint[])
         ON CONFLICT (space_id, destination_no, code) DO UPDATE SET attempts = f.attempts + excluded.attempts";
    sqlx::query(sql).bind(space.0).bind(no.0).bind(codes).bind(counts).execute(tx).await?;
    Ok(())
}

/// Sets the state; false when it was that already, or the destination is gone.
pub async fn set_state(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    no: DestinationNo,
    (state, reason): (&str, Option<&str>),
    at: Timestamp,
) -> Result<bool> {
    let sql = "-- store::destinations::worker::set_state
         UPDATE destination_worker SET state = $3, state_reason = $4, state_since = $5, failing_since = NULL,
             config_version = config_version + 1
         WHERE space_id = $1 AND destination_no = $2 AND state <> $3";
    let query = sqlx::query(sql).bind(space.0).bind(no.0).bind(state).bind(reason).bind(at.to_utc());
    Ok(query.execute(executor).await?.rows_affected() == 1)
}

/// State and counters of a destination.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Status {
    /// The destination.
    pub destination_no: i32,
    /// `connected`, `paused` or `failing`.
    pub state: String,
    /// Why.
    pub state_reason: Option<String>,
    /// Since when.
    pub state_since: DateTime<Utc>,
    /// Rows in the queue.
    pub queued: i64,
    /// Arrived so far.
    pub delivered: i64,
    /// Not sent because they were not wanted, so far.
    pub filtered: i64,
    /// Dead letters there are.
    pub dead: i64,
    /// Changes under way when the worker wrote last.
    pub in_flight: i32,
    /// Nothing but failure since then.
    pub failing_since: Option<DateTime<Utc>>,
    /// A word for the newest failure.
    pub last_error_code: Option<String>,
    /// The newest failure.
    pub last_error: Option<String>,
    /// When it happened.
    pub last_error_at: Option<DateTime<Utc>>,
    /// When something arrived last.
    pub last_delivered_at: Option<DateTime<Utc>>,
    /// When the oldest waiting change happened.
    pub oldest_at: Option<DateTime<Utc>>,
    /// Profiles that wait for another attempt.
    pub waiting_profiles: i64,
}

/// Profiles that wait are counted up to here.
const WAITING_MAX: i64 = 10_000;

/// How the destinations of a space stand, by number.
pub async fn list_status(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Vec<Status>> {
    let sql = "-- store::destinations::worker::list_status
         SELECT w.*, h.last_no - w.done AS queued,
             (SELECT d.at FROM delivery d WHERE d.space_id = $1 AND d.destination_no = w.destination_no
              ORDER BY d.seq LIMIT 1) AS oldest_at,
             (SELECT count(*) FROM (SELECT 1 FROM delivery_hold o WHERE o.space_id = $1
                  AND o.destination_no = w.destination_no LIMIT $2) held) AS waiting_profiles
         FROM destination_worker w
         JOIN delivery_head h ON h.space_id = $1 AND h.destination_no = w.destination_no
         WHERE w.space_id = $1 ORDER BY w.destination_no";
    Ok(sqlx::query_as(sql).bind(space.0).bind(WAITING_MAX).fetch_all(executor).await?)
}

/// Failed attempts by reason: destination, code, count.
pub async fn list_failures(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Vec<(i32, String, i64)>> {
    let sql = "-- store::destinations::worker::list_failures
         SELECT destination_no, code, attempts FROM destination_failure WHERE space_id = $1 ORDER BY 1, 2";
    Ok(sqlx::query_as(sql).bind(space.0).fetch_all(executor).await?)
}

/// When the oldest waiting change of all destinations happened.
pub async fn oldest_waiting(executor: impl PgExecutor<'_>) -> Result<Option<Timestamp>> {
    let sql = "-- store::destinations::worker::oldest_waiting
         SELECT min(o.at) FROM destination_worker w
         CROSS JOIN LATERAL (SELECT d.at FROM delivery d WHERE d.space_id = w.space_id
             AND d.destination_no = w.destination_no ORDER BY d.seq LIMIT 1) o";
    let at: Option<DateTime<Utc>> = sqlx::query_scalar(sql).fetch_one(executor).await?;
    Ok(at.map(Timestamp::from))
}
