//! Joining small chunks: a quiet hour leaves hundreds of them, each with a few events. Readers find events by offset, so
//! nothing changes for them but how much they read; whoever reads on from an offset has to expect it inside of a chunk.

use sqlx::PgConnection;

use super::NAMES_MAX;
use crate::domain::{Offset, SpaceNo};
use crate::store::{Result, StoreError};

/// Fast and small, as chunks are when they come in.
const COMPRESSION_LEVEL: i32 = 1;

/// Chunks one after the other, to become one.
#[derive(Debug, Default)]
pub struct Joined {
    /// Offsets of their last events.
    pub ends: Vec<Offset>,
    /// Their events.
    pub event_count: u32,
    /// Format and records.
    pub content: Vec<u8>,
    /// Whose each event is.
    pub numbers: Vec<u8>,
}

impl Joined {
    /// Adds the next chunk.
    pub fn push(&mut self, end: Offset, event_count: u32, content: &[u8], numbers: &[u8]) {
        self.ends.push(end);
        self.event_count += event_count;
        // Only the first one says in which format all of them are.
        let records = if self.content.is_empty() { content } else { content.get(1..).unwrap_or_default() };
        self.content.extend_from_slice(records);
        self.numbers.extend_from_slice(numbers);
    }
}

/// Puts one chunk, and what the processor made of it, in the place of these.
pub async fn join(connection: &mut PgConnection, space: SpaceNo, joined: &Joined) -> Result<()> {
    let body = zstd::bulk::compress(&joined.content, COMPRESSION_LEVEL)
        .map_err(|error| StoreError::Damaged(format!("chunks could not be joined: {error}")))?;
    let ends: Vec<i64> = joined.ends.iter().map(|end| end.0 as i64).collect();
    let done = sqlx::query(
        "-- store::log::join
         WITH old AS (DELETE FROM event_chunk WHERE space_id = $1 AND end_offset = ANY($2) RETURNING *),
         names AS (SELECT array_agg(DISTINCT name) AS names FROM old, unnest(old.names) AS u (name))
         INSERT INTO event_chunk (space_id, end_offset, day, event_count, received_at, names, min_at, max_at, body)
         SELECT $1, max(end_offset), max(day), sum(event_count), max(received_at),
             CASE WHEN bool_or(old.names IS NULL) OR cardinality(max(n.names)) > $3 THEN NULL
                  ELSE coalesce(max(n.names), '{}') END,
             min(min_at), max(max_at), $4
         FROM old CROSS JOIN names n HAVING count(*) = cardinality($2)",
    )
    .bind(space.0)
    .bind(&ends)
    .bind(NAMES_MAX as i32)
    .bind(&body)
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() != 1 {
        return Err(StoreError::Damaged("chunks to be joined are not there".into()));
    }
    sqlx::query(
        "-- store::log::join
         WITH old AS (DELETE FROM chunk_outcome WHERE space_id = $1 AND end_offset = ANY($2) RETURNING *)
         INSERT INTO chunk_outcome (space_id, end_offset, day, duplicates, numbers)
         SELECT $1, max(end_offset), max(day), sum(duplicates), $3 FROM old",
    )
    .bind(space.0)
    .bind(&ends)
    .bind(&joined.numbers)
    .execute(&mut *connection)
    .await?;
    Ok(())
}
