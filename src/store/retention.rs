//! How long spaces keep their events, and taking out what is over: whole chunks where all in them is, and of single events
//! what they said.
//!
//! Nothing that counts is taken out: definitions count an event for as long as it is kept, from its own time on, and the log
//! keeps it from when it was received, and a day more.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::postgres::PgPool;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};

use super::log::codec::{FORMAT, Record, Records};
use super::log::{Chunk, NAMES_MAX};
use super::segments::{self, Hold};
use super::{Result, StoreError, rebuild};
use crate::domain::json;
use crate::domain::retention::Retention;
use crate::domain::{Offset, SpaceNo};

/// Chunks that are dropped in one transaction.
const DROPPED: i64 = 500;
/// Chunks that are written anew in one transaction.
const REWRITTEN: i64 = 16;
/// Fast and small, as chunks are when they come in.
const COMPRESSION_LEVEL: i32 = 1;
/// Of the context of an event that is over, what says whose it is, and what they consent to.
const KEPT: [&str; 6] = ["active", "consent", "device", "externalIds", "groupId", "traits"];

/// How long a space keeps its events.
pub async fn read(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Retention> {
    type Row = (Option<i32>, Json<BTreeMap<String, u32>>);
    let sql = "-- store::retention::read\nSELECT days, events FROM retention WHERE space_id = $1";
    let row: Option<Row> = sqlx::query_as(sql).bind(space.0).fetch_optional(executor).await?;
    let retention = |(days, events): Row| Retention { days: days.map(i32::unsigned_abs), events: events.0 };
    Ok(row.map(retention).unwrap_or_default())
}

/// Sets how long a space keeps its events. Of names that are kept for another time than before, the log is gone through anew.
pub async fn write(tx: &mut PgConnection, space: SpaceNo, retention: &Retention) -> Result<()> {
    let sql = "-- store::retention::write
         INSERT INTO retention (space_id, days, events) VALUES ($1, $2, $3)
         ON CONFLICT (space_id) DO UPDATE SET days = excluded.days, events = excluded.events, swept = '{}'";
    let days = retention.days.map(|days| days as i32);
    sqlx::query(sql).bind(space.0).bind(days).bind(Json(&retention.events)).execute(tx).await?;
    Ok(())
}

/// Drops the chunks of a space whose day is before `day` and that are processed. Returns how many there were; [`StoreError::Held`] when
/// somebody else is at the log's chunks for long.
pub async fn drop_before(pool: &PgPool, space: SpaceNo, day: NaiveDate) -> Result<u64> {
    let hold = Hold::take(pool, space).await?;
    let mut dropped = 0;
    loop {
        let mut tx = pool.begin().await?;
        if rebuild::is_under_way(&mut *tx, space).await? {
            break;
        }
        let sql = "-- store::retention::drop_before
             SELECT c.end_offset FROM event_chunk c JOIN processor p ON p.space_id = $1
             WHERE c.space_id = $1 AND c.day < $2 AND c.end_offset <= p.processed_offset
             ORDER BY c.end_offset LIMIT $3";
        let query = sqlx::query_scalar(sql).bind(space.0).bind(day).bind(DROPPED);
        let ends: Vec<i64> = query.fetch_all(&mut *tx).await?;
        if ends.is_empty() {
            break;
        }
        segments::forget(&mut tx, space, &ends).await?;
        for sql in [
            "-- store::retention::drop_before
             DELETE FROM chunk_outcome WHERE space_id = $1 AND end_offset = ANY($2)",
            "-- store::retention::drop_before
             DELETE FROM event_chunk WHERE space_id = $1 AND end_offset = ANY($2)",
        ] {
            sqlx::query(sql).bind(space.0).bind(&ends).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        dropped += ends.len() as u64;
        tokio::task::yield_now().await;
    }
    hold.release().await?;
    Ok(dropped)
}

/// Takes out what the events of a name said whose day is before `day`; whose they were, and when, stays. Returns how many
/// chunks were written anew.
pub async fn blank_before(pool: &PgPool, space: SpaceNo, name: &str, day: NaiveDate) -> Result<u64> {
    let sql = "-- store::retention::blank_before
         SELECT (swept ->> $2)::date FROM retention WHERE space_id = $1";
    let swept: Option<Option<NaiveDate>> =
        sqlx::query_scalar(sql).bind(space.0).bind(name).fetch_optional(pool).await?;
    let from = swept.flatten().unwrap_or(NaiveDate::MIN);
    if from >= day {
        return Ok(0);
    }
    let hold = Hold::take(pool, space).await?;
    // What is not processed yet is passed over, so the days from there on are gone through again: looked up before, because
    // it may be processed meanwhile.
    let sql = "-- store::retention::blank_before
         SELECT min(c.day) FROM event_chunk c JOIN processor p ON p.space_id = $1
         WHERE c.space_id = $1 AND c.end_offset > p.processed_offset AND c.day < $2";
    let waiting: Option<NaiveDate> = sqlx::query_scalar(sql).bind(space.0).bind(day).fetch_one(pool).await?;
    let (mut after, mut rewritten) = (0, 0);
    loop {
        let mut tx = pool.begin().await?;
        if rebuild::is_under_way(&mut *tx, space).await? {
            hold.release().await?;
            return Ok(rewritten);
        }
        let chunks = old_chunks(&mut tx, space, name, (from, day), after).await?;
        let Some(last) = chunks.last() else { break };
        after = last.end_offset.0 as i64;
        for chunk in chunks {
            if rewrite(&mut tx, space, &chunk, name).await? {
                rewritten += 1;
            }
            tokio::task::yield_now().await;
        }
        tx.commit().await?;
    }
    hold.release().await?;
    let sql = "-- store::retention::blank_before
         UPDATE retention SET swept = swept || jsonb_build_object($2::text, $3::text) WHERE space_id = $1";
    let swept = waiting.unwrap_or(day).to_string();
    sqlx::query(sql).bind(space.0).bind(name).bind(swept).execute(pool).await?;
    Ok(rewritten)
}

type ChunkRow = (i64, i32, NaiveDate, DateTime<Utc>, Vec<u8>);

/// Processed chunks of some days that may have events of a name, in log order.
async fn old_chunks(
    tx: &mut PgConnection,
    space: SpaceNo,
    name: &str,
    (from, day): (NaiveDate, NaiveDate),
    after: i64,
) -> Result<Vec<Chunk>> {
    let rows: Vec<ChunkRow> = sqlx::query_as(
        "-- store::retention::old_chunks
         SELECT c.end_offset, c.event_count, c.day, c.received_at, c.body
         FROM event_chunk c JOIN processor p ON p.space_id = $1
         WHERE c.space_id = $1 AND c.end_offset > $2 AND c.day >= $3 AND c.day < $4
             AND c.end_offset <= p.processed_offset AND (c.names IS NULL OR c.names && ARRAY[$5])
         ORDER BY c.end_offset LIMIT $6",
    )
    .bind(space.0)
    .bind(after)
    .bind(from.max(NaiveDate::from_ymd_opt(1, 1, 1).unwrap_or_default()))
    .bind(day)
    .bind(name)
    .bind(REWRITTEN)
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(super::log::chunk).collect())
}

/// Writes a chunk anew without what events of this name said; false when it has none.
async fn rewrite(tx: &mut PgConnection, space: SpaceNo, chunk: &Chunk, name: &str) -> Result<bool> {
    let content = chunk.content()?;
    let (mut anew, mut names, mut found) = (vec![FORMAT], BTreeSet::new(), false);
    for record in Records::new(&content)? {
        let record = record?;
        if record.name == name && !record.act {
            found = true;
            let context = kept(record.context);
            Record { name: "", body: "", integrations: "", extra: "", context: &context, ..record }
                .encode(&mut anew);
            names.insert("");
        } else {
            record.encode(&mut anew);
            names.insert(record.name);
        }
    }
    if !found {
        return Ok(false);
    }
    let body = zstd::bulk::compress(&anew, COMPRESSION_LEVEL)
        .map_err(|error| StoreError::Damaged(format!("a chunk could not be written anew: {error}")))?;
    let names = (names.len() <= NAMES_MAX).then(|| names.into_iter().collect::<Vec<_>>());
    let end = chunk.end_offset.0 as i64;
    segments::forget(&mut *tx, space, &[end]).await?;
    let sql = "-- store::retention::rewrite
         UPDATE event_chunk SET body = $3, names = $4 WHERE space_id = $1 AND end_offset = $2 AND day = $5";
    sqlx::query(sql).bind(space.0).bind(end).bind(body).bind(names).bind(chunk.day).execute(tx).await?;
    Ok(true)
}

/// What is kept of the context of an event that is over.
fn kept(context: &str) -> String {
    let entries = json::last_of_each(json::entries(context));
    let kept = entries.into_iter().filter(|(key, _)| KEPT.contains(&key.as_ref()));
    let kept: Vec<String> = kept.map(|(key, value)| format!("{}:{value}", json::quote(&key))).collect();
    if kept.is_empty() { String::new() } else { format!("{{{}}}", kept.join(",")) }
}

/// The offset of the first event that a space still keeps; none where its log is empty.
pub async fn first_kept(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Option<Offset>> {
    let sql = "-- store::retention::first_kept
         SELECT end_offset - event_count + 1 FROM event_chunk WHERE space_id = $1 ORDER BY end_offset LIMIT 1";
    let first: Option<i64> = sqlx::query_scalar(sql).bind(space.0).fetch_optional(executor).await?;
    Ok(first.map(|first| Offset(first as u64)))
}
