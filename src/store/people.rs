//! Lists of live profiles: by when they were seen last, and by how an identifier of theirs begins.

use std::time::Duration;

use bytes::Bytes;
use sqlx::{PgConnection, Postgres, Transaction};

use super::{Result, Walled};
use crate::domain::{Collection, ProfileNo, SpaceNo, Timestamp};

/// Times of last sight are indexed by slots of this length.
const SLOT: Duration = Duration::from_mins(10);
/// Characters of a value that are indexed.
pub const START_CHARS: usize = 64;

/// Begins to read a list: one way to read each of them is good, which is to follow its index, whatever Postgres knows of
/// the tables. What it takes for a handful of rows may be thousands since a minute.
pub async fn begin(door: &Walled) -> Result<Transaction<'static, Postgres>> {
    let mut tx = door.begin().await?;
    sqlx::query(
        "-- store::people::begin
         SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
             set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)",
    )
    .execute(&mut *tx)
    .await?;
    Ok(tx)
}

/// The slot a time of last sight falls into; the column `seen_slot` of a profile.
pub fn slot_of(seen_at: Timestamp) -> i32 {
    seen_at.millis().div_euclid(SLOT.as_millis() as i64) as i32
}

/// The lowest of the slots that the next `limit` profiles below `below` are in.
pub async fn find_slot(
    connection: &mut PgConnection,
    space: SpaceNo,
    collection: Collection,
    below: i32,
    limit: i64,
) -> Result<Option<i32>> {
    let sql = "-- store::people::find_slot
         SELECT min(seen_slot) FROM (
             SELECT seen_slot FROM profile
             WHERE space_id = $1 AND collection = $2 AND merged_into IS NULL AND seen_slot < $3
             ORDER BY seen_slot DESC, profile_no DESC LIMIT $4
         ) next";
    let lowest = sqlx::query_scalar(sql).bind(space.0).bind(collection as i16).bind(below).bind(limit);
    Ok(lowest.fetch_one(connection).await?)
}

/// Whether more than `most` profiles are in a slot.
pub async fn is_crowded(
    connection: &mut PgConnection,
    space: SpaceNo,
    collection: Collection,
    slot: i32,
    most: i64,
) -> Result<bool> {
    let sql = "-- store::people::is_crowded
         SELECT count(*) > $4 FROM (
             SELECT FROM profile
             WHERE space_id = $1 AND collection = $2 AND merged_into IS NULL AND seen_slot = $3 LIMIT $4 + 1
         ) crowd";
    let is_crowded = sqlx::query_scalar(sql).bind(space.0).bind(collection as i16).bind(slot).bind(most);
    Ok(is_crowded.fetch_one(connection).await?)
}

/// Encoded profiles of some slots, the first and the last included: most recently seen first, behind (seen, number).
/// All of the slots is gone through.
pub async fn list_seen(
    connection: &mut PgConnection,
    space: SpaceNo,
    collection: Collection,
    slots: (i32, i32),
    before: Option<(Timestamp, ProfileNo)>,
    limit: i64,
) -> Result<Vec<Bytes>> {
    let states: Vec<Vec<u8>> = sqlx::query_scalar(
        "-- store::people::list_seen
         SELECT p.state FROM (
             SELECT profile_no, last_seen_at FROM profile
             WHERE space_id = $1 AND collection = $2 AND merged_into IS NULL AND seen_slot BETWEEN $3 AND $4
                 AND ($5::timestamptz IS NULL OR (last_seen_at, profile_no) < ($5, $6))
             ORDER BY last_seen_at DESC, profile_no DESC LIMIT $7
         ) page JOIN profile p ON p.space_id = $1 AND p.profile_no = page.profile_no
         ORDER BY page.last_seen_at DESC, page.profile_no DESC",
    )
    .bind(space.0)
    .bind(collection as i16)
    .bind(slots.0)
    .bind(slots.1)
    .bind(before.map(|(at, _)| at.to_utc()))
    .bind(before.map_or(0, |(_, no)| no.0 as i64))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(states.into_iter().map(Bytes::from).collect())
}

/// Encoded profiles of one slot, the youngest first, those with smaller numbers than `below`. Goes through no more than it
/// gives.
pub async fn list_of_slot(
    connection: &mut PgConnection,
    space: SpaceNo,
    collection: Collection,
    slot: i32,
    below: ProfileNo,
    limit: i64,
) -> Result<Vec<Bytes>> {
    let states: Vec<Vec<u8>> = sqlx::query_scalar(
        "-- store::people::list_of_slot
         SELECT state FROM profile
         WHERE space_id = $1 AND collection = $2 AND merged_into IS NULL AND seen_slot = $3 AND profile_no < $4
         ORDER BY seen_slot DESC, profile_no DESC LIMIT $5",
    )
    .bind(space.0)
    .bind(collection as i16)
    .bind(slot)
    .bind(below.0 as i64)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(states.into_iter().map(Bytes::from).collect())
}

/// Values of one type to be looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The type.
    pub type_no: i16,
    /// What the values begin with.
    pub prefix: String,
    /// Behind this start of a value, and this profile among those that brought such a value.
    pub after: (String, i64),
    /// Before this start of a value.
    pub before: String,
}

/// A value that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its type.
    pub type_no: i16,
    /// How it begins.
    pub start: String,
    /// Who brought it.
    pub brought_by: ProfileNo,
    /// Whose it is, encoded.
    pub state: Bytes,
}

/// Identifiers in some ranges, by type, start of the value, and who brought it, with the live profiles they belong to.
pub async fn list_by_start(
    connection: &mut PgConnection,
    space: SpaceNo,
    ranges: &[Range],
    limit: i64,
) -> Result<Vec<Found>> {
    let rows: Vec<(i16, String, i64, Vec<u8>)> = sqlx::query_as(
        "-- store::people::list_by_start
         SELECT f.type_no, f.start, f.profile_no, l.state
         FROM (
             SELECT r.type_no, e.start, e.profile_no
             FROM unnest($2::smallint[], $3::text[], $4::text[], $5::bigint[], $6::text[])
                 AS r (type_no, prefix, after, after_no, before)
             CROSS JOIN LATERAL identifiers_by_start(r.type_no, r.prefix, r.after, r.after_no, r.before, $7) e
             ORDER BY r.type_no, e.start, e.profile_no LIMIT $7
         ) f
         JOIN profile p ON p.space_id = $1 AND p.profile_no = f.profile_no
         JOIN profile l ON l.space_id = $1 AND l.profile_no = CASE WHEN p.merged_into IS NULL THEN p.profile_no ELSE p.merged_into END
         ORDER BY f.type_no, f.start, f.profile_no",
    )
    .bind(space.0)
    .bind(ranges.iter().map(|r| r.type_no).collect::<Vec<_>>())
    .bind(ranges.iter().map(|r| r.prefix.as_str()).collect::<Vec<_>>())
    .bind(ranges.iter().map(|r| r.after.0.as_str()).collect::<Vec<_>>())
    .bind(ranges.iter().map(|r| r.after.1).collect::<Vec<_>>())
    .bind(ranges.iter().map(|r| r.before.as_str()).collect::<Vec<_>>())
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let found = |(type_no, start, no, state): (i16, String, i64, Vec<u8>)| Found {
        type_no,
        start,
        brought_by: ProfileNo(no as u64),
        state: state.into(),
    };
    Ok(rows.into_iter().map(found).collect())
}
