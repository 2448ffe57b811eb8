//! Putting an export of a space in place of an empty one: what operators had set, and the log. One transaction, so that there
//! is all of it or nothing; what follows from the log is derived afterwards, by a rebuild.
//!
//! The log is most of it. Its chunks are put aside first, under numbers that no log has, so nobody waits for them; the heads
//! of the space, which whoever sends events waits for, are locked only for the last step.

use chrono::NaiveDate;
use sqlx::{AssertSqlSafe, PgConnection};

use super::log::{NAMES_MAX, NewChunk};
use super::{Result, StoreError, registry};
use crate::domain::{Offset, SpaceNo};

/// Whether a space has nothing yet: no events, no definitions, and nobody who is kept out.
pub async fn is_empty(connection: &mut PgConnection, space: SpaceNo) -> Result<bool> {
    let sql = "-- store::imports::is_empty
         SELECT l.end_offset = 0
             AND NOT EXISTS (SELECT 1 FROM definition WHERE space_id = $1)
             AND NOT EXISTS (SELECT 1 FROM regulation WHERE space_id = $1)
             AND NOT EXISTS (SELECT 1 FROM suppression WHERE space_id = $1)
             AND NOT EXISTS (SELECT 1 FROM erased_identifier WHERE space_id = $1)
         FROM log_head l WHERE l.space_id = $1";
    let is_empty: Option<bool> = sqlx::query_scalar(sql).bind(space.0).fetch_optional(connection).await?;
    Ok(is_empty.unwrap_or(false))
}

/// Locks the heads of a space for the rest of the transaction, and lets everybody look at its settings anew; false when the
/// space is not empty.
pub async fn lock(tx: &mut PgConnection, space: SpaceNo) -> Result<bool> {
    let sql = "-- store::imports::lock\nSELECT 1 FROM log_head WHERE space_id = $1 FOR UPDATE";
    sqlx::query(sql).bind(space.0).execute(&mut *tx).await?;
    super::processor::bump_config(&mut *tx, space).await?;
    // A statement of its own: it sees what others have committed while the locks were waited for.
    is_empty(tx, space).await
}

/// Puts rows of one of the [tables](super::exports::TABLES) of an export in place of those of the space. Write keys stay
/// what they are: a source that has the number of one that is imported becomes that one.
pub async fn insert_rows(
    tx: &mut PgConnection,
    space: SpaceNo,
    table: &'static str,
    rows: &[String],
) -> Result<()> {
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let is_source = table == "source";
    if !is_source && !rows.is_empty() {
        // What every space begins with. The names are ours.
        let sql = format!("-- store::imports::insert_rows\nDELETE FROM {table} WHERE space_id = $1");
        sqlx::query(AssertSqlSafe(sql)).bind(space.0).execute(&mut *tx).await?;
    }
    let conflict = if is_source {
        "ON CONFLICT (space_id, source_no) DO UPDATE SET source_id = excluded.source_id, name = excluded.name,
             enabled = excluded.enabled, created_at = excluded.created_at,
             events_per_second_max = excluded.events_per_second_max, allowed_origins = excluded.allowed_origins,
             is_public = excluded.is_public"
    } else {
        ""
    };
    let sql = format!(
        "-- store::imports::insert_rows
         INSERT INTO {table}
         SELECT (jsonb_populate_record(NULL::{table}, r::jsonb || jsonb_build_object('space_id', $1::int))).*
         FROM unnest($2::text[]) AS u (r) {conflict}"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(space.0).bind(rows).execute(tx).await?;
    Ok(())
}

/// What was under way begins anew: nothing of it is there.
pub async fn settle(tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
    for sql in [
        "-- store::imports::settle
         UPDATE computation SET status = 'pending', from_offset = NULL, walking = false, walked_no = 0
         WHERE space_id = $1 AND status IN ('pending', 'backfilling')",
        "-- store::imports::settle
         UPDATE computation SET walking = false WHERE space_id = $1 AND walking",
        "-- store::imports::settle
         UPDATE processor SET last_leaf_no = greatest(last_leaf_no,
             coalesce((SELECT max(leaf_no) FROM leaf WHERE space_id = $1), 0)) WHERE space_id = $1",
    ] {
        sqlx::query(sql).bind(space.0).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Puts a chunk of the log aside, until [`finish`].
pub async fn put_aside(
    tx: &mut PgConnection,
    chunk: &NewChunk<'_>,
    end: Offset,
    day: NaiveDate,
) -> Result<()> {
    let names = chunk.names.clone().filter(|names| names.len() <= NAMES_MAX);
    sqlx::query(
        "-- store::imports::put_aside
         INSERT INTO event_chunk (space_id, end_offset, day, event_count, received_at, names, min_at, max_at, body)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(chunk.space.0)
    .bind(-(end.0 as i64))
    .bind(day)
    .bind(chunk.event_count as i32)
    .bind(chunk.received_at.to_utc())
    .bind(names)
    .bind(chunk.min_at.millis())
    .bind(chunk.max_at.millis())
    .bind(chunk.body)
    .execute(tx)
    .await?;
    Ok(())
}

/// Makes so many chunks that were put aside the log of the space, under the offsets they had; it ends at this offset and day.
/// Bodies stay where they are, so this is short.
pub async fn finish(
    tx: &mut PgConnection,
    space: SpaceNo,
    chunks: u64,
    (end, day): (Offset, NaiveDate),
) -> Result<()> {
    let sql = "-- store::imports::finish
         UPDATE event_chunk SET end_offset = -end_offset WHERE space_id = $1 AND end_offset < 0";
    let found = sqlx::query(sql).bind(space.0).execute(&mut *tx).await?.rows_affected();
    if found != chunks {
        return Err(StoreError::Damaged(format!("{found} chunks were put aside, and not {chunks}")));
    }
    let sql = "-- store::imports::finish
         UPDATE log_head SET end_offset = $2, last_day = greatest(last_day, $3) WHERE space_id = $1";
    sqlx::query(sql).bind(space.0).bind(end.0 as i64).bind(day).execute(&mut *tx).await?;
    // What follows from it is a rebuild's to derive: it goes as far as this says.
    let sql = "-- store::imports::finish\nUPDATE processor SET processed_offset = $2 WHERE space_id = $1";
    sqlx::query(sql).bind(space.0).bind(end.0 as i64).execute(tx).await?;
    Ok(())
}

/// Lets running servers look for the sources and the settings anew. The last step: its row lock is everybody's.
pub async fn announce(tx: &mut PgConnection) -> Result<()> {
    registry::bump(tx).await
}
