//! Putting an export of a space in place of an empty one: what operators had set, and the log. One transaction, so that there
//! is all of it or nothing; what follows from the log is derived afterwards, by a rebuild.

use chrono::NaiveDate;
use sqlx::{AssertSqlSafe, PgConnection};

use super::log::{NAMES_MAX, NewChunk};
use super::{Result, StoreError};
use crate::domain::{Offset, SpaceNo};

/// Locks the heads of a space for the rest of the transaction; false when it has events or definitions already.
pub async fn begin(tx: &mut PgConnection, space: SpaceNo) -> Result<bool> {
    let sql = "-- store::imports::begin
         SELECT l.end_offset = 0 AND NOT EXISTS (SELECT 1 FROM definition WHERE space_id = $1)
         FROM log_head l WHERE l.space_id = $1 FOR UPDATE";
    let is_empty: Option<bool> = sqlx::query_scalar(sql).bind(space.0).fetch_optional(&mut *tx).await?;
    super::processor::bump_config(tx, space).await?;
    Ok(is_empty.unwrap_or(false))
}

/// Puts rows of one of the [tables](super::exports::TABLES) of an export in place of those of the space. Sources stay what
/// their write keys are of, under the ids and names they had.
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
        "ON CONFLICT (space_id, source_no) DO UPDATE SET source_id = excluded.source_id, name = excluded.name"
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

/// Adds a chunk to the log where it was in the one that was exported. The first one says where that began.
pub async fn append(
    tx: &mut PgConnection,
    chunk: &NewChunk<'_>,
    end: Offset,
    day: NaiveDate,
    is_first: bool,
) -> Result<()> {
    let before = end.0 as i64 - i64::from(chunk.event_count);
    // What follows from it is a rebuild's to derive: it goes as far as this says.
    let sql = "-- store::imports::append
         UPDATE processor SET processed_offset = $2 WHERE space_id = $1";
    sqlx::query(sql).bind(chunk.space.0).bind(end.0 as i64).execute(&mut *tx).await?;
    let sql = "-- store::imports::append
         UPDATE log_head SET end_offset = $2, last_day = greatest(last_day, $3)
         WHERE space_id = $1 AND ($5 OR end_offset = $4)";
    let query = sqlx::query(sql).bind(chunk.space.0).bind(end.0 as i64).bind(day).bind(before).bind(is_first);
    if query.execute(&mut *tx).await?.rows_affected() != 1 {
        return Err(StoreError::Damaged(format!(
            "the chunk that ends at {end} does not follow the one before"
        )));
    }
    let names = chunk.names.clone().filter(|names| names.len() <= NAMES_MAX);
    sqlx::query(
        "-- store::imports::append
         INSERT INTO event_chunk (space_id, end_offset, day, event_count, received_at, names, min_at, max_at, body)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(chunk.space.0)
    .bind(end.0 as i64)
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
