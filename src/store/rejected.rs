//! The rejected-event list: everything refused at the door or taken only in part, with its reason.

use sqlx::PgExecutor;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::{Result, Walled};
use crate::domain::{SourceNo, SpaceNo, Timestamp};

/// One refused (or partly taken) event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedEvent {
    /// Time-ordered id; also the page key.
    pub id: Uuid,
    /// The event was taken, but not all of it.
    pub warning: bool,
    /// Stable code, docs/errors.md.
    pub code: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// The field at fault.
    pub field: Option<String>,
    /// The call's message id, if it could be read.
    pub message_id: Option<String>,
    /// Who sent it.
    pub source: SourceNo,
    /// When.
    pub received_at: Timestamp,
    /// The call as sent, cut at the size of the largest event taken; of a body refused whole, its beginning.
    pub event: String,
}

/// Adds rows to the space's list.
pub async fn insert_rejected(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    rows: &[RejectedEvent],
) -> Result<()> {
    let column = |text: fn(&RejectedEvent) -> String| rows.iter().map(text).collect::<Vec<_>>();
    // Text columns cannot hold U+0000, which a call that was refused may well contain.
    let clean = |text: &str| text.replace('\0', "\u{fffd}");
    sqlx::query(
        "-- store::rejected::insert_rejected
         INSERT INTO rejected_event
             (space_id, rejected_id, warning, code, message, field, message_id, source_no, received_at, event)
         SELECT $1, * FROM unnest($2::uuid[], $3::bool[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[],
             $9::timestamptz[], $10::text[])
         ON CONFLICT DO NOTHING",
    )
    .bind(space.0)
    .bind(rows.iter().map(|r| r.id).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.warning).collect::<Vec<_>>())
    .bind(column(|r| r.code.clone()))
    .bind(rows.iter().map(|r| clean(&r.message)).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.field.clone()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.message_id.as_deref().map(clean)).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.source.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.received_at.to_utc()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| clean(&r.event)).collect::<Vec<_>>())
    .execute(executor)
    .await?;
    Ok(())
}

type Row =
    (Uuid, bool, String, String, Option<String>, Option<String>, i32, chrono::DateTime<chrono::Utc>, String);

/// A page of the list, newest first, of rows older than `before`.
pub async fn list_rejected(
    door: &Walled,
    space: SpaceNo,
    code: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<RejectedEvent>> {
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::rejected::list_rejected
         SELECT rejected_id, warning, code, message, field, message_id, source_no, received_at, event
         FROM rejected_event
         WHERE space_id = $1 AND ($2::text IS NULL OR code = $2) AND ($3::uuid IS NULL OR rejected_id < $3)
         ORDER BY rejected_id DESC LIMIT $4",
    )
    .bind(space.0)
    .bind(code)
    .bind(before)
    .bind(limit)
    .fetch_all(door)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(id, warning, code, message, field, message_id, source, received_at, event)| RejectedEvent {
            id,
            warning,
            code,
            message,
            field,
            message_id,
            source: SourceNo(source),
            received_at: received_at.into(),
            event,
        })
        .collect())
}

/// How many there are since `at`, counted up to `most`.
pub async fn count_rejected_since(door: &Walled, space: SpaceNo, at: Timestamp, most: i64) -> Result<i64> {
    // The ids begin with the time, so that the key alone says it.
    let first =
        uuid::Builder::from_unix_timestamp_millis(at.millis().max(0).unsigned_abs(), &[0; 10]).into_uuid();
    let sql = "-- store::rejected::count_rejected_since
         SELECT count(*) FROM (
             SELECT 1 FROM rejected_event WHERE space_id = $1 AND rejected_id >= $2 LIMIT $3
         ) since";
    Ok(sqlx::query_scalar(sql).bind(space.0).bind(first).bind(most).fetch_one(door).await?)
}

/// Forgets what was rejected before `at`.
pub async fn delete_rejected_before(pool: &PgPool, at: Timestamp) -> Result<u64> {
    let sql = "-- store::rejected::delete_rejected_before
         DELETE FROM rejected_event
         WHERE space_id IN (SELECT space_id FROM space) AND received_at < $1";
    Ok(sqlx::query(sql).bind(at.to_utc()).execute(pool).await?.rows_affected())
}
