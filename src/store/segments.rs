//! Segments: the log by name and column, for scans of history.
//!
//! A segment covers whole chunks one after the other, all of one week, and goes with the week's chunks. Segments do not
//! overlap. What no segment covers is read from the chunks, so that there being none is never wrong, only slower. Whoever
//! changes what a chunk holds or to whom its events are attributed has to forget the segments that cover it.

use std::time::Duration;

use chrono::NaiveDate;
use sqlx::postgres::PgPool;
use sqlx::{Connection, PgConnection, PgExecutor};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::log::codec::Damaged;
use super::log::columns::{Rows, Section, Texts};
use super::{Result, StoreError};
use crate::domain::{Offset, SpaceNo, Timestamp};

/// How long [`Hold::take`] waits for others.
const HOLD_WAIT: Duration = Duration::from_secs(30);
/// How often it looks again.
const HOLD_PAUSE: Duration = Duration::from_millis(50);
/// How often the session of a hold says something,
const HOLD_PINGED_EVERY: Duration = Duration::from_secs(10);
/// and how long it may say nothing before Postgres ends it.
const HOLD_IDLE_MAX: Duration = Duration::from_mins(1);

/// A segment, ready to be written.
#[derive(Debug)]
pub struct NewSegment {
    /// Whose log.
    pub space: SpaceNo,
    /// Offset of its last event.
    pub end: Offset,
    /// Events of the log it covers, also those that are nobody's.
    pub event_count: u32,
    /// A day of its week.
    pub day: NaiveDate,
    /// Every name has a section.
    pub is_whole: bool,
    /// By name.
    pub sections: Vec<(String, Section)>,
}

/// What a segment covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Covered {
    /// Behind this offset,
    pub after: Offset,
    /// up to and including this one, which is the segment's name.
    pub end: Offset,
    /// A name without a section is one that no event of a user has.
    pub is_whole: bool,
}

/// Makes sure that nobody else makes segments of this space until the transaction ends; false when somebody does.
pub async fn try_lock(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<bool> {
    let sql = "-- store::segments::try_lock\nSELECT pg_try_advisory_xact_lock(hashtext('log_segment'), $1)";
    Ok(sqlx::query_scalar(sql).bind(space.0).fetch_one(executor).await?)
}

/// No segment of a space is made and no chunks are joined as long as this is held. Of a process that is frozen Postgres takes it
/// away after a minute.
#[derive(Debug)]
pub struct Hold {
    /// Ends what keeps it, also by being dropped.
    end: oneshot::Sender<()>,
    kept: JoinHandle<Result<()>>,
}

impl Hold {
    /// None while somebody makes a segment.
    pub async fn try_take(pool: &PgPool, space: SpaceNo) -> Result<Option<Self>> {
        let mut connection = pool.acquire().await?.detach();
        if is_taken(&mut connection, space).await? {
            return Ok(Some(Self::keep(connection)));
        }
        connection.close().await?;
        Ok(None)
    }

    /// Waits for who makes a segment, or joins or corrects chunks; [`StoreError::Held`] when that takes longer than half a minute.
    pub async fn take(pool: &PgPool, space: SpaceNo) -> Result<Self> {
        let mut connection = pool.acquire().await?.detach();
        let taken = async {
            while !is_taken(&mut connection, space).await? {
                tokio::time::sleep(HOLD_PAUSE).await;
            }
            Result::Ok(())
        };
        tokio::time::timeout(HOLD_WAIT, taken).await.map_err(|_| StoreError::Held)??;
        Ok(Self::keep(connection))
    }

    /// Keeps the session from being idle for long, as long as this process is not frozen.
    #[expect(clippy::disallowed_methods, reason = "it ends with the hold")]
    fn keep(mut connection: PgConnection) -> Self {
        let (end, mut ended) = oneshot::channel();
        let kept = tokio::spawn(async move {
            while tokio::time::timeout(HOLD_PINGED_EVERY, &mut ended).await.is_err() {
                connection.ping().await?;
            }
            // From this moment on; a session that is closed may keep its locks for a while.
            let sql = "-- store::segments::keep\nSELECT pg_advisory_unlock_all()";
            sqlx::query(sql).execute(&mut connection).await?;
            Ok(connection.close().await?)
        });
        Self { end, kept }
    }

    /// Segments may be made again. Fails when the hold was lost meanwhile.
    pub async fn release(self) -> Result<()> {
        let Self { end, kept } = self;
        drop(end);
        kept.await.map_err(|_panicked| StoreError::Unavailable(sqlx::Error::WorkerCrashed))?
    }
}

async fn is_taken(connection: &mut PgConnection, space: SpaceNo) -> Result<bool> {
    let sql = "-- store::segments::is_taken
         SELECT pg_try_advisory_lock(hashtext('log_segment'), $1) FROM set_config('idle_session_timeout', $2, false)";
    let limit = HOLD_IDLE_MAX.as_millis().to_string();
    Ok(sqlx::query_scalar(sql).bind(space.0).bind(limit).fetch_one(connection).await?)
}

/// Where the newest segment ends; 0 when there is none.
pub async fn end(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Offset> {
    let sql = "-- store::segments::end
         SELECT coalesce(max(end_offset), 0) FROM log_segment WHERE space_id = $1";
    let end: i64 = sqlx::query_scalar(sql).bind(space.0).fetch_one(executor).await?;
    Ok(Offset(end as u64))
}

/// The first stretch of the log whose segments were forgotten: behind an offset, up to another one.
pub async fn first_gap(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Option<(Offset, Offset)>> {
    let sql = "-- store::segments::first_gap
         SELECT after_offset, end_offset FROM segment_gap WHERE space_id = $1 ORDER BY after_offset LIMIT 1";
    let gap: Option<(i64, i64)> = sqlx::query_as(sql).bind(space.0).fetch_optional(executor).await?;
    Ok(gap.map(|(after, end)| (Offset(after as u64), Offset(end as u64))))
}

/// The gap behind `after` is one only behind `until` from now on.
pub async fn fill_gap(tx: &mut PgConnection, space: SpaceNo, after: Offset, until: Offset) -> Result<()> {
    sqlx::query(
        "-- store::segments::fill_gap
         WITH gap AS (
             DELETE FROM segment_gap WHERE space_id = $1 AND after_offset = $2 RETURNING end_offset
         )
         INSERT INTO segment_gap (space_id, after_offset, end_offset)
         SELECT $1, $3, end_offset FROM gap WHERE end_offset > $3",
    )
    .bind(space.0)
    .bind(after.0 as i64)
    .bind(until.0 as i64)
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets the segments that cover one of the chunks that end there: what they say of it is not so any more.
pub async fn forget(tx: &mut PgConnection, space: SpaceNo, chunk_ends: &[i64]) -> Result<()> {
    sqlx::query(
        "-- store::segments::forget
         WITH stale AS (
             DELETE FROM log_segment s WHERE s.space_id = $1 AND EXISTS (
                 SELECT FROM unnest($2::bigint[]) AS c (end_offset)
                 WHERE c.end_offset <= s.end_offset AND c.end_offset > s.end_offset - s.event_count)
             RETURNING s.end_offset, s.event_count, s.day
         ), sections AS (
             DELETE FROM log_section x USING stale s
             WHERE x.space_id = $1 AND x.end_offset = s.end_offset AND x.day = s.day
         ), columns AS (
             DELETE FROM log_column x USING stale s
             WHERE x.space_id = $1 AND x.end_offset = s.end_offset AND x.day = s.day
         )
         INSERT INTO segment_gap (space_id, after_offset, end_offset)
         SELECT $1, end_offset - event_count, end_offset FROM stale",
    )
    .bind(space.0)
    .bind(chunk_ends)
    .execute(tx)
    .await?;
    Ok(())
}

/// Writes a segment.
pub async fn insert(connection: &mut PgConnection, segment: &NewSegment) -> Result<()> {
    let NewSegment { space, end, event_count, day, is_whole, sections } = segment;
    sqlx::query(
        "-- store::segments::insert
         INSERT INTO log_segment (space_id, end_offset, day, event_count, is_whole) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(space.0)
    .bind(end.0 as i64)
    .bind(day)
    .bind(*event_count as i32)
    .bind(is_whole)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "-- store::segments::insert
         INSERT INTO log_section (space_id, end_offset, day, name, row_count, is_whole, newest_at, rows, messages)
         SELECT $1, $2, $3, *
         FROM unnest($4::text[], $5::int[], $6::bool[], $7::bigint[], $8::bytea[], $9::bytea[])",
    )
    .bind(space.0)
    .bind(end.0 as i64)
    .bind(day)
    .bind(sections.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
    .bind(sections.iter().map(|(_, s)| s.row_count as i32).collect::<Vec<_>>())
    .bind(sections.iter().map(|(_, s)| s.is_whole).collect::<Vec<_>>())
    .bind(sections.iter().map(|(_, s)| s.newest_at.millis()).collect::<Vec<_>>())
    .bind(sections.iter().map(|(_, s)| s.rows.as_slice()).collect::<Vec<_>>())
    .bind(sections.iter().map(|(_, s)| s.messages.as_slice()).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    let columns = || sections.iter().flat_map(|(name, s)| s.columns.iter().map(move |c| (name, c)));
    sqlx::query(
        "-- store::segments::insert
         INSERT INTO log_column (space_id, end_offset, day, name, key, body)
         SELECT $1, $2, $3, * FROM unnest($4::text[], $5::text[], $6::bytea[])",
    )
    .bind(space.0)
    .bind(end.0 as i64)
    .bind(day)
    .bind(columns().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
    .bind(columns().map(|(_, (key, _))| key.as_str()).collect::<Vec<_>>())
    .bind(columns().map(|(_, (_, body))| body.as_slice()).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// What segments cover, in log order, of the log up to `until`.
pub async fn list(executor: impl PgExecutor<'_>, space: SpaceNo, until: Offset) -> Result<Vec<Covered>> {
    let rows: Vec<(i64, i32, bool)> = sqlx::query_as(
        "-- store::segments::list
         SELECT end_offset, event_count, is_whole FROM log_segment
         WHERE space_id = $1 AND end_offset - event_count < $2 ORDER BY end_offset",
    )
    .bind(space.0)
    .bind(until.0 as i64)
    .fetch_all(executor)
    .await?;
    let covered = |(end, count, is_whole): (i64, i32, bool)| Covered {
        after: Offset((end - i64::from(count)) as u64),
        end: Offset(end as u64),
        is_whole,
    };
    Ok(rows.into_iter().map(covered).collect())
}

/// A section as it is stored, with the columns that were asked for.
#[derive(Debug)]
pub struct Stored {
    /// End of its segment.
    pub end: Offset,
    /// Name of its events.
    pub name: String,
    /// A property without a column is one that no event has.
    pub is_whole: bool,
    rows: Vec<u8>,
    messages: Vec<u8>,
    columns: Vec<(String, Vec<u8>)>,
}

impl Stored {
    /// Whether all its events are older than what was asked for.
    pub const fn is_left_out(&self) -> bool {
        self.rows.is_empty()
    }

    /// Its events.
    pub fn rows(&self) -> std::result::Result<Rows, Damaged> {
        Rows::decode(&self.rows)
    }

    /// Their message ids, if they were asked for.
    pub fn messages(&self) -> std::result::Result<Option<Texts>, Damaged> {
        (!self.messages.is_empty()).then(|| Texts::decode(&self.messages)).transpose()
    }

    /// Whether it has a column for this property.
    pub fn has(&self, key: &str) -> bool {
        self.columns.iter().any(|(name, _)| name == key)
    }

    /// The properties that were asked for and that its events have.
    pub fn columns(&self) -> impl Iterator<Item = std::result::Result<(&str, Texts), Damaged>> {
        self.columns.iter().map(|(key, body)| Ok((key.as_str(), Texts::decode(body)?)))
    }
}

/// Which sections are wanted, and what of them.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Whose log.
    pub space: SpaceNo,
    /// Names of their events; `None` for all.
    pub names: Option<&'a [String]>,
    /// Properties.
    pub keys: &'a [&'a str],
    /// With their message ids.
    pub messages: bool,
    /// Events since this instant: sections that have none are left out, apart from their names.
    pub from: Timestamp,
}

type SectionRow = (i64, Option<String>, bool, Vec<u8>, Vec<u8>, Vec<String>, Vec<Vec<u8>>);

/// The sections of these segments, by segment and name, and which of the segments are still there.
pub async fn read(
    executor: impl PgExecutor<'_>,
    wanted: &Wanted<'_>,
    ends: &[Offset],
) -> Result<(Vec<Stored>, Vec<Offset>)> {
    let rows: Vec<SectionRow> = sqlx::query_as(
        "-- store::segments::read
         SELECT g.end_offset, s.name, coalesce(s.is_whole, true),
             CASE WHEN s.newest_at >= $6 THEN s.rows ELSE '' END,
             CASE WHEN $5 AND s.newest_at >= $6 THEN s.messages ELSE '' END,
             coalesce(c.keys, '{}'), coalesce(c.bodies, '{}')
         FROM log_segment g
         LEFT JOIN log_section s ON s.space_id = $1 AND s.end_offset = g.end_offset AND s.day = g.day
             AND ($3::text[] IS NULL OR s.name = ANY($3))
         LEFT JOIN LATERAL (
             SELECT array_agg(c.key) AS keys, array_agg(c.body) AS bodies FROM log_column c
             WHERE c.space_id = $1 AND c.end_offset = s.end_offset AND c.day = s.day AND c.name = s.name
                 AND c.key = ANY($4) AND s.newest_at >= $6
         ) c ON true
         WHERE g.space_id = $1 AND g.end_offset = ANY($2)
         ORDER BY g.end_offset, s.name",
    )
    .bind(wanted.space.0)
    .bind(ends.iter().map(|end| end.0 as i64).collect::<Vec<_>>())
    .bind(wanted.names)
    .bind(wanted.keys)
    .bind(wanted.messages)
    .bind(wanted.from.millis())
    .fetch_all(executor)
    .await?;
    let mut there: Vec<Offset> = rows.iter().map(|row| Offset(row.0 as u64)).collect();
    there.dedup();
    let stored = |(end, name, is_whole, rows, messages, keys, bodies): SectionRow| {
        let columns = keys.into_iter().zip(bodies).collect();
        Some(Stored { end: Offset(end as u64), name: name?, is_whole, rows, messages, columns })
    };
    Ok((rows.into_iter().filter_map(stored).collect(), there))
}
