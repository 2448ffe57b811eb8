//! The event log: an append-only table of compressed chunks.
//!
//! Commit order is log order. An append takes the row of `log_head` first and holds it until its commit, so offsets
//! are dense (an offset counts events) and a reader that has seen offset N has seen everything before it. Measured
//! against a sequence with the horizon rule in docs/adr/0003.

pub mod codec;
pub mod columns;
pub mod erase;
pub mod join;
pub mod numbers;

use chrono::{DateTime, Datelike, Days, NaiveDate, Utc};
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, PgExecutor};

use super::{Result, StoreError, Walled};
use crate::domain::month::Month;
use crate::domain::{Offset, SpaceNo, Timestamp};

/// Distinct event names a chunk row lists; a chunk with more says nothing and is never skipped.
pub const NAMES_MAX: usize = 64;

/// What is partitioned by the weeks of the log.
const TABLES: [&str; 5] = ["event_chunk", "chunk_outcome", "log_segment", "log_section", "log_column"];

/// More than the records of any chunk take: a flush is bounded, and so is the last request added to it.
const CONTENT_BYTES_MAX: u64 = 1 << 30;

/// A chunk ready to be appended.
#[derive(Debug)]
pub struct NewChunk<'a> {
    /// Whose log.
    pub space: SpaceNo,
    /// Number of records in `body`.
    pub event_count: u32,
    /// How many of them are events, and no acts of operators: what a space's usage counts.
    pub metered: u32,
    /// Newest time of receipt in it; the log's day.
    pub received_at: Timestamp,
    /// Distinct event names, or `None` for too many.
    pub names: Option<Vec<String>>,
    /// Earliest event time.
    pub min_at: Timestamp,
    /// Latest event time.
    pub max_at: Timestamp,
    /// zstd of [`codec::FORMAT`] and the records.
    pub body: &'a [u8],
}

/// A chunk as read back.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Offset of its last event.
    pub end_offset: Offset,
    /// Number of its events.
    pub event_count: u32,
    /// The log's day, which never goes back.
    pub day: NaiveDate,
    /// Newest time of receipt.
    pub received_at: Timestamp,
    body: Vec<u8>,
}

impl Chunk {
    /// Offset of its first event.
    pub const fn first_offset(&self) -> Offset {
        Offset(self.end_offset.0 + 1 - self.event_count as u64)
    }

    /// Decompresses the records; read them with [`codec::Records`].
    pub fn content(&self) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        self.read_content(&mut content)?;
        Ok(content)
    }

    /// The same into memory that is there already.
    pub fn read_content(&self, content: &mut Vec<u8>) -> Result<()> {
        let damaged =
            |why: String| StoreError::Damaged(format!("log chunk ending at {}: {why}", self.end_offset));
        let size = zstd::zstd_safe::get_frame_content_size(&self.body).ok().flatten();
        let size = size.filter(|size| *size <= CONTENT_BYTES_MAX).ok_or_else(|| damaged("no size".into()))?;
        content.clear();
        content.reserve(size as usize);
        let read =
            zstd::bulk::Decompressor::new().and_then(|mut d| d.decompress_to_buffer(&self.body, content));
        read.map(|_| ()).map_err(|e| damaged(e.to_string()))
    }
}

/// Appends a chunk in one statement, which is one transaction: when this returns, the events are durable.
/// Returns the offset of its last event, and where it has some that count, the month they count in and the events of the month
/// with them.
pub async fn append(pool: &PgPool, chunk: &NewChunk<'_>) -> Result<(Offset, Option<(Month, u64)>)> {
    match try_append(pool, chunk).await {
        // No partition for that week yet: make it and try once more.
        Err(error) if error.sqlstate().as_deref() == Some("23514") => {
            ensure_partitions(pool, chunk.space, chunk.received_at).await?;
            try_append(pool, chunk).await
        }
        result => result,
    }
}

async fn try_append(pool: &PgPool, chunk: &NewChunk<'_>) -> Result<(Offset, Option<(Month, u64)>)> {
    let month = Month::of(chunk.received_at);
    let (end, used): (i64, Option<i64>) = sqlx::query_as(
        "-- store::log::append
         WITH head AS (
             UPDATE log_head SET end_offset = end_offset + $2, last_day = greatest(last_day, $3)
             WHERE space_id = $1 RETURNING end_offset, last_day
         ), metered AS (
             INSERT INTO usage_month AS known (space_id, month, events)
             SELECT $1, $9, $10::bigint FROM head WHERE $10 > 0
             ON CONFLICT (space_id, month) DO UPDATE SET events = known.events + excluded.events
             RETURNING known.events
         ), chunk AS (
             INSERT INTO event_chunk
                 (space_id, end_offset, day, event_count, received_at, names, min_at, max_at, body)
             SELECT $1, end_offset, last_day, $2, $4, $5, $6, $7, $8 FROM head
             RETURNING end_offset
         )
         SELECT end_offset, (SELECT events FROM metered) FROM chunk",
    )
    .bind(chunk.space.0)
    .bind(chunk.event_count as i32)
    .bind(chunk.received_at.to_utc().date_naive())
    .bind(chunk.received_at.to_utc())
    .bind(&chunk.names)
    .bind(chunk.min_at.millis())
    .bind(chunk.max_at.millis())
    .bind(chunk.body)
    .bind(month.first_day())
    .bind(i64::from(chunk.metered))
    .fetch_one(pool)
    .await?;
    Ok((Offset(end as u64), used.and_then(|used| Some((month, u64::try_from(used).ok()?)))))
}

/// Makes the partitions for the week of `at`, the week after it, and the week the space's log has reached.
pub async fn ensure_partitions(pool: &PgPool, space: SpaceNo, at: Timestamp) -> Result<()> {
    let day = at.to_utc().date_naive();
    let sql = "-- store::log::ensure_partitions\nSELECT last_day FROM log_head WHERE space_id = $1";
    let last: Option<NaiveDate> = sqlx::query_scalar(sql).bind(space.0).fetch_optional(pool).await?;
    let days = [Some(day), day.checked_add_days(Days::new(7)), last.filter(|last| *last > day)];
    for day in days.into_iter().flatten() {
        create_week(pool, day).await?;
    }
    Ok(())
}

/// Makes the partitions for the week of this day, as far as there are none.
pub async fn create_week(pool: &PgPool, day: NaiveDate) -> Result<()> {
    for table in TABLES {
        create_partition(pool, table, monday_of(day)).await?;
    }
    Ok(())
}

/// The Monday of a day's week.
pub fn monday_of(day: NaiveDate) -> NaiveDate {
    day.checked_sub_days(Days::new(u64::from(day.weekday().num_days_from_monday()))).unwrap_or(day)
}

async fn create_partition(pool: &PgPool, table: &str, monday: NaiveDate) -> Result<()> {
    let next = monday.checked_add_days(Days::new(7)).unwrap_or(monday);
    let name = monday.format("%Y%m%d");
    // Table and dates are ours, so the text is safe; DDL takes no parameters.
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {table}_{name} PARTITION OF {table} FOR VALUES FROM ('{monday}') TO ('{next}')"
    );
    match sqlx::query(AssertSqlSafe(sql)).execute(pool).await.map_err(StoreError::from) {
        Ok(_) | Err(StoreError::Exists) => Ok(()),
        // Two processes made it at the same time (42P07 duplicate table).
        Err(error) if error.sqlstate().as_deref() == Some("42P07") => Ok(()),
        Err(error) => Err(error),
    }
}

/// Drops the weeks of the log that ended before `day` and are processed in every space, unless one is being rebuilt from
/// the log. Returns how many.
pub async fn drop_before(pool: &PgPool, day: NaiveDate) -> Result<usize> {
    let sql = "-- store::log::drop_before
         SELECT c.relname::text FROM pg_inherits i
         JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
         WHERE p.relname = 'event_chunk'";
    let partitions: Vec<String> = sqlx::query_scalar(sql).fetch_all(pool).await?;
    let mut dropped = 0;
    for name in partitions {
        let Some(week) = name.strip_prefix("event_chunk_") else { continue };
        let Ok(monday) = NaiveDate::parse_from_str(week, "%Y%m%d") else { continue };
        let Some(end) = monday.checked_add_days(Days::new(7)).filter(|end| *end <= day) else { continue };
        let sql = "-- store::log::drop_before
             SELECT EXISTS (SELECT 1 FROM event_chunk c JOIN processor p ON p.space_id = c.space_id
                            WHERE c.day >= $1 AND c.day < $2 AND c.end_offset > p.processed_offset)
                 OR EXISTS (SELECT 1 FROM rebuild WHERE touched_at > clock_timestamp() - interval '24 hours')";
        if sqlx::query_scalar(sql).bind(monday).bind(end).fetch_one(pool).await? {
            continue;
        }
        // The names are made of what was read from the catalog and parsed as a date.
        let tables = TABLES.map(|table| format!("{table}_{week}")).join(", ");
        // Weeks from before there were segments have none.
        let sql = format!("DROP TABLE IF EXISTS {tables}");
        let mut tx = pool.begin().await?;
        // Behind a long scan the drop would hold up every append: rather try again in an hour.
        sqlx::query("-- store::log::drop_before\nSET LOCAL lock_timeout = '500ms'").execute(&mut *tx).await?;
        sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await?;
        tx.commit().await?;
        dropped += 1;
    }
    Ok(dropped)
}

type ChunkRow = (i64, i32, NaiveDate, DateTime<Utc>, Vec<u8>);

pub(super) fn chunk((end_offset, event_count, day, received_at, body): ChunkRow) -> Chunk {
    Chunk {
        end_offset: Offset(end_offset as u64),
        event_count: event_count as u32,
        day,
        received_at: received_at.into(),
        body,
    }
}

/// More events than any configuration lets one chunk hold: how far behind a position a chunk may end that begins
/// right there.
const CHUNK_EVENTS_MAX: i64 = 2_500_000;
/// Compressed bytes of one read, before no further chunk is added.
const READ_BYTES_MAX: i64 = 6 << 20;

/// Chunks of one read.
const READ_CHUNKS_MAX: i64 = 2_000;

/// Whole chunks behind `after`, in log order, until `events_max` events or [`READ_BYTES_MAX`] are covered (at least
/// one chunk when there is one). `from_day` is the day of the last chunk read: older partitions are not looked at.
pub async fn read_from(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    after: Offset,
    from_day: NaiveDate,
    events_max: u32,
) -> Result<Vec<Chunk>> {
    let rows: Vec<ChunkRow> = sqlx::query_as(
        "-- store::log::read_from
         SELECT end_offset, event_count, day, received_at, body FROM (
             SELECT *, sum(octet_length(body)) OVER (ORDER BY end_offset) - octet_length(body) AS bytes_before
             FROM event_chunk
             WHERE space_id = $1 AND end_offset > $2 AND end_offset < $2 + $4 + $5 AND day >= $3
                 AND end_offset - event_count < $2 + $4
             ORDER BY end_offset LIMIT $7
         ) c
         WHERE bytes_before < $6 ORDER BY end_offset",
    )
    .bind(space.0)
    .bind(after.0 as i64)
    .bind(from_day)
    .bind(i64::from(events_max))
    .bind(CHUNK_EVENTS_MAX)
    .bind(READ_BYTES_MAX)
    .bind(READ_CHUNKS_MAX)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(chunk).collect())
}

/// Whether a read of [`read_from`] ended because it had to, so that there may be more.
pub fn is_full_read(chunks: &[Chunk], events_max: u32) -> bool {
    let events: u32 = chunks.iter().map(|c| c.event_count).sum();
    let bytes: usize = chunks.iter().map(|c| c.body.len()).sum();
    events >= events_max || bytes as i64 >= READ_BYTES_MAX || chunks.len() as i64 >= READ_CHUNKS_MAX
}

/// The chunks that hold the given offsets.
pub async fn read_containing(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    offsets: &[Offset],
) -> Result<Vec<Chunk>> {
    let rows: Vec<ChunkRow> = sqlx::query_as(
        "-- store::log::read_containing
         SELECT DISTINCT ON (c.end_offset) c.end_offset, c.event_count, c.day, c.received_at, c.body
         FROM unnest($2::bigint[]) AS wanted (log_offset)
         CROSS JOIN LATERAL (
             SELECT * FROM event_chunk WHERE space_id = $1 AND end_offset >= wanted.log_offset
             ORDER BY end_offset LIMIT 1
         ) c
         WHERE wanted.log_offset > c.end_offset - c.event_count
         ORDER BY c.end_offset",
    )
    .bind(space.0)
    .bind(offsets.iter().map(|o| o.0 as i64).collect::<Vec<_>>())
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(chunk).collect())
}

/// A chunk of history with what the processor made of it.
#[derive(Debug, Clone)]
pub struct HistoryChunk {
    /// The events.
    pub chunk: Chunk,
    /// Profile numbers of its events, as the processor encoded them.
    pub numbers: Vec<u8>,
}

pub(super) type HistoryRow = (i64, i32, NaiveDate, DateTime<Utc>, Vec<u8>, Vec<u8>);

pub(super) fn history_chunk((end, count, day, received_at, body, numbers): HistoryRow) -> HistoryChunk {
    HistoryChunk { chunk: chunk((end, count, day, received_at, body)), numbers }
}

/// Processed chunks that hold offsets in (after, until] and an event of one of `names`. The first one may begin before
/// and the last one end behind.
pub async fn read_history(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    after: Offset,
    until: Offset,
    names: Option<&[String]>,
    limit: i64,
) -> Result<Vec<HistoryChunk>> {
    let rows: Vec<HistoryRow> = sqlx::query_as(
        "-- store::log::read_history
         SELECT c.end_offset, c.event_count, c.day, c.received_at, c.body, o.numbers
         FROM event_chunk c
         JOIN chunk_outcome o ON o.space_id = $1 AND o.end_offset = c.end_offset AND o.day = c.day
         WHERE c.space_id = $1 AND c.end_offset > $2 AND c.end_offset - c.event_count < $3
             AND ($4::text[] IS NULL OR c.names IS NULL OR c.names && $4)
         ORDER BY c.end_offset LIMIT $5",
    )
    .bind(space.0)
    .bind(after.0 as i64)
    .bind(until.0 as i64)
    .bind(names)
    .bind(limit)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(history_chunk).collect())
}

/// Offset of the newest event of the space's log; 0 for an empty one.
pub async fn tail(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Offset> {
    let sql = "-- store::log::tail\nSELECT end_offset FROM log_head WHERE space_id = $1";
    let end: Option<i64> = sqlx::query_scalar(sql).bind(space.0).fetch_optional(executor).await?;
    Ok(Offset(end.unwrap_or(0) as u64))
}

/// When the newest events of the log were received.
pub async fn newest_received(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Option<Timestamp>> {
    let sql = "-- store::log::newest_received
         SELECT c.received_at FROM log_head h
         JOIN event_chunk c ON c.space_id = $1 AND c.end_offset = h.end_offset AND c.day = h.last_day
         WHERE h.space_id = $1";
    let at: Option<DateTime<Utc>> = sqlx::query_scalar(sql).bind(space.0).fetch_optional(executor).await?;
    Ok(at.map(Timestamp::from))
}

/// When the oldest event behind `after` was received; `None` when there is none.
pub async fn oldest_after(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    after: Offset,
) -> Result<Option<Timestamp>> {
    let sql = "-- store::log::oldest_after
         SELECT received_at FROM event_chunk WHERE space_id = $1 AND end_offset > $2 ORDER BY end_offset LIMIT 1";
    let at: Option<DateTime<Utc>> =
        sqlx::query_scalar(sql).bind(space.0).bind(after.0 as i64).fetch_optional(executor).await?;
    Ok(at.map(Timestamp::from))
}

/// Processed chunks that hold offsets in (after, until], in log order.
pub async fn read_fates(
    door: &Walled,
    space: SpaceNo,
    after: Offset,
    until: Offset,
    limit: i64,
) -> Result<Vec<HistoryChunk>> {
    let rows: Vec<HistoryRow> = sqlx::query_as(
        "-- store::log::read_fates
         SELECT c.end_offset, c.event_count, c.day, c.received_at, c.body, o.numbers
         FROM event_chunk c
         JOIN chunk_outcome o ON o.space_id = $1 AND o.end_offset = c.end_offset AND o.day = c.day
         WHERE c.space_id = $1 AND c.end_offset > $2 AND c.end_offset - c.event_count < $3
         ORDER BY c.end_offset LIMIT $4",
    )
    .bind(space.0)
    .bind(after.0 as i64)
    .bind(until.0 as i64)
    .bind(limit)
    .fetch_all(door)
    .await?;
    Ok(rows.into_iter().map(history_chunk).collect())
}
