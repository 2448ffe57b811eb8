//! Purging a space: every row of every table that is its, and a report of what there was.
//!
//! The tables are those of [`TABLES`], which a test compares with the schema, so none can be forgotten. What is begun is
//! finished by whoever looks next; the report says what there was at the beginning.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, PgConnection};

use super::rebuild::{self, Place, TABLES};
use super::registry::bump;
use super::{Result, StoreError, audit, spaces};
use crate::domain::{SpaceNo, Timestamp};

/// Rows of nobody in particular, and what is kept.
const NOT_PURGED: [&str; 3] = ["registry", "test_clock", "purge_report"];
/// What says that there is a space at all.
const SPACE: &str = "space";
/// Without these nobody gets in and nothing goes on: they go first, in one transaction. The one of the processor waits for
/// the batch that is being written, and every later one is fenced.
const FIRST: [&str; 4] = ["processor", "log_head", "write_key", "access_token"];

/// What was purged.
#[derive(Debug, Clone)]
pub struct PurgeReport {
    /// What clients called the space.
    pub key: String,
    /// Its name for people.
    pub name: String,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// When nothing was left; `None` while it goes on.
    pub purged_at: Option<Timestamp>,
    /// What there was: rows by table, events by month, and more.
    pub report: serde_json::Value,
}

fn tables() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(|(table, _)| *table).filter(|table| !NOT_PURGED.contains(table))
}

/// A space of which nothing is left.
#[derive(Debug, Clone)]
pub struct Purged {
    /// The end of its audit log's chain as it was when the purge was begun, in hexadecimal digits.
    pub last_audit_hash: String,
}

/// Purges a space. `None` when it is not to be purged by its plan as it stands now, when another process is at it, or when it
/// is being rebuilt: then it is tried again later.
pub async fn purge(pool: &PgPool, space: SpaceNo, now: Timestamp) -> Result<Option<Purged>> {
    let mut connection = pool.acquire().await?;
    let sql = "-- store::purge::purge\nSELECT pg_try_advisory_lock(hashtext('purge'), $1)";
    if !sqlx::query_scalar(sql).bind(space.0).fetch_one(&mut *connection).await? {
        return Ok(None);
    }
    let purged = purge_guarded(pool, &mut connection, space, now).await;
    let sql = "-- store::purge::purge\nSELECT pg_advisory_unlock(hashtext('purge'), $1)";
    sqlx::query(sql).bind(space.0).execute(&mut *connection).await?;
    purged
}

async fn purge_guarded(
    pool: &PgPool,
    connection: &mut PgConnection,
    space: SpaceNo,
    now: Timestamp,
) -> Result<Option<Purged>> {
    let sql = "-- store::purge::purge\nSELECT purged_at IS NOT NULL FROM purge_report WHERE space_id = $1";
    match sqlx::query_scalar(sql).bind(space.0).fetch_optional(&mut *connection).await? {
        Some(true) => return Ok(None),
        Some(false) => {}
        None => {
            // Takes as long as the log is long, so nobody waits for it; the plan is looked at again behind it.
            let last_hash = audit::verify::verify(&super::walled(pool, space), space).await?.last_hash;
            if !begin(connection, space, now, last_hash).await? {
                return Ok(None);
            }
        }
    }
    if !rebuild::try_guard(connection, space).await? {
        return Ok(None);
    }
    let finished = finish(pool, connection, space, now).await;
    rebuild::release_guard(connection, space).await?;
    finished
}

/// Deletes everything, and the space itself last: as long as it is there, what is begun is gone on with.
async fn finish(
    pool: &PgPool,
    connection: &mut PgConnection,
    space: SpaceNo,
    now: Timestamp,
) -> Result<Option<Purged>> {
    let mut tx = sqlx::Connection::begin(&mut *connection).await?;
    no_time_limit(&mut tx).await?;
    // One that was broken off has left a copy of the profiles behind.
    rebuild::discard(&mut tx, &Place::of(pool, space, None).await?).await?;
    tx.commit().await?;
    sweep(connection, space).await?;
    let mut tx = sqlx::Connection::begin(connection).await?;
    bump(&mut tx).await?;
    delete(&mut tx, SPACE, space).await?;
    let sql = "-- store::purge::finish
         UPDATE purge_report SET purged_at = $2 WHERE space_id = $1 AND purged_at IS NULL
         RETURNING report->>'last_audit_hash'";
    let hash: Option<Option<String>> =
        sqlx::query_scalar(sql).bind(space.0).bind(now.to_utc()).fetch_optional(&mut *tx).await?;
    tx.commit().await?;
    Ok(hash.map(|hash| Purged { last_audit_hash: hash.unwrap_or_default() }))
}

/// Writes down what there is and shuts everybody out; false when there is no such space, or when by its plan as it is now
/// it is not to be purged.
async fn begin(
    connection: &mut PgConnection,
    space: SpaceNo,
    now: Timestamp,
    last_audit_hash: String,
) -> Result<bool> {
    let mut tx = sqlx::Connection::begin(connection).await?;
    no_time_limit(&mut tx).await?;
    // Its row lock is what keeps those out who change plans: what they were promised counts.
    bump(&mut tx).await?;
    let found = spaces::find_space(&mut *tx, space).await?;
    let Some(found) = found.filter(|found| found.plan.is_purge_due(now)) else { return Ok(false) };
    let mut report = describe(&mut tx, space).await?;
    report["last_audit_hash"] = last_audit_hash.into();
    let sql = "-- store::purge::begin
         INSERT INTO purge_report (space_id, key, name, begun_at, report) VALUES ($1, $2, $3, $4, $5)";
    let insert =
        sqlx::query(sql).bind(space.0).bind(found.key).bind(found.name).bind(now.to_utc()).bind(report);
    insert.execute(&mut *tx).await?;
    // Whatever its plan was, there is no way back from here.
    let sql = "-- store::purge::begin
         UPDATE space SET plan_state = 'ended', plan_ended_at = coalesce(plan_ended_at, $2), plan_collects = false,
             plan_purge_at = least(plan_purge_at, $2)
         WHERE space_id = $1";
    sqlx::query(sql).bind(space.0).bind(now.to_utc()).execute(&mut *tx).await?;
    for table in FIRST {
        delete(&mut tx, table, space).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Rows by table, and events by month: what they were paid for stays known.
async fn describe(tx: &mut PgConnection, space: SpaceNo) -> Result<serde_json::Value> {
    let mut rows = BTreeMap::new();
    for table in tables() {
        // The name is one of ours.
        let sql = format!("-- store::purge::describe\nSELECT count(*) FROM {table} WHERE space_id = $1");
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).bind(space.0).fetch_one(&mut *tx).await?;
        if count > 0 {
            rows.insert(table, count);
        }
    }
    let sql = "-- store::purge::describe
         SELECT coalesce(jsonb_object_agg(to_char(month, 'YYYY-MM'), events), '{}') FROM usage_month WHERE space_id = $1";
    let events: serde_json::Value = sqlx::query_scalar(sql).bind(space.0).fetch_one(&mut *tx).await?;
    Ok(serde_json::json!({"rows": rows, "events": events}))
}

/// Deletes whatever there is of a space but its own row. A table that others refer to waits until they are empty.
async fn sweep(connection: &mut PgConnection, space: SpaceNo) -> Result<()> {
    let mut left: Vec<&str> = tables().filter(|table| *table != SPACE).collect();
    while !left.is_empty() {
        let (mut waiting, before) = (Vec::new(), left.len());
        for table in left {
            let mut tx = sqlx::Connection::begin(&mut *connection).await?;
            no_time_limit(&mut tx).await?;
            match delete(&mut tx, table, space).await {
                Ok(()) => tx.commit().await?,
                Err(error) if error.sqlstate().as_deref() == Some("23503") => waiting.push(table),
                Err(error) => return Err(error),
            }
        }
        if waiting.len() == before {
            let message = format!("rows of space {space} in {} refer to each other", waiting.join(", "));
            return Err(StoreError::Damaged(message));
        }
        left = waiting;
    }
    Ok(())
}

/// Deletes what somebody who was still at work has written since: of spaces that were purged after `since`. Those of which
/// nobody has written down that it is done are among them, and are done then.
pub async fn sweep_again(pool: &PgPool, since: Timestamp, now: Timestamp) -> Result<()> {
    let sql = "-- store::purge::sweep_again
         SELECT space_id FROM purge_report r
         WHERE purged_at >= $1
             OR purged_at IS NULL AND NOT EXISTS (SELECT 1 FROM space s WHERE s.space_id = r.space_id)";
    let spaces: Vec<i32> = sqlx::query_scalar(sql).bind(since.to_utc()).fetch_all(pool).await?;
    for space in spaces {
        let mut connection = pool.acquire().await?;
        sweep(&mut connection, SpaceNo(space)).await?;
        let sql = "-- store::purge::sweep_again
             UPDATE purge_report SET purged_at = $2 WHERE space_id = $1 AND purged_at IS NULL";
        sqlx::query(sql).bind(space).bind(now.to_utc()).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn delete(tx: &mut PgConnection, table: &str, space: SpaceNo) -> Result<()> {
    // The name is one of ours.
    let sql = format!("-- store::purge::delete\nDELETE FROM {table} WHERE space_id = $1");
    sqlx::query(AssertSqlSafe(sql)).bind(space.0).execute(tx).await?;
    Ok(())
}

/// A large table takes as long as it takes.
async fn no_time_limit(tx: &mut PgConnection) -> Result<()> {
    sqlx::query("-- store::purge::no_time_limit\nSET LOCAL statement_timeout = 0").execute(tx).await?;
    Ok(())
}

/// All purges, newest first.
pub async fn list_reports(pool: &PgPool) -> Result<Vec<PurgeReport>> {
    type Row = (String, String, DateTime<Utc>, Option<DateTime<Utc>>, serde_json::Value);
    let sql = "-- store::purge::list_reports
         SELECT key, name, begun_at, purged_at, report FROM purge_report ORDER BY begun_at DESC, space_id DESC";
    let rows: Vec<Row> = sqlx::query_as(sql).fetch_all(pool).await?;
    let report = |(key, name, begun_at, purged_at, report): Row| PurgeReport {
        key,
        name,
        begun_at: begun_at.into(),
        purged_at: purged_at.map(Timestamp::from),
        report,
    };
    Ok(rows.into_iter().map(report).collect())
}
