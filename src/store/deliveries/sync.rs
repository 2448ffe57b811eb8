//! Full syncs: pages of what is true now. The head of the queue is locked before anything is read, so what changes later
//! is told later.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::domain::{Collection, ComputationNo, DestinationNo, ProfileNo, SpaceNo, Timestamp};
use crate::store::Result;

/// Lets nobody else put anything into a queue before the end of the transaction.
pub async fn lock_head(tx: &mut PgConnection, space: SpaceNo, destination: DestinationNo) -> Result<()> {
    let sql = "-- store::deliveries::sync::lock_head
         SELECT 1 FROM delivery_head WHERE space_id = $1 AND destination_no = $2 FOR UPDATE";
    sqlx::query(sql).bind(space.0).bind(destination.0).execute(tx).await?;
    Ok(())
}

/// What answers for a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    /// The version that does; none where it was deleted, or is not complete yet.
    pub version: Option<ComputationNo>,
    /// That of another definition which has its key now.
    pub namesake: Option<ComputationNo>,
    /// Whose profiles it is about.
    pub collection: Collection,
}

/// What answers for a definition, if there is such a one.
pub async fn serving(tx: &mut PgConnection, space: SpaceNo, definition: i32) -> Result<Option<Serving>> {
    let sql = "-- store::deliveries::sync::serving
         SELECT CASE WHEN d.deleted THEN NULL ELSE d.serving_no END, n.serving_no, d.collection FROM definition d
         LEFT JOIN definition n ON n.space_id = $1 AND n.key = d.key AND n.definition_no <> d.definition_no
             AND NOT n.deleted
         WHERE d.space_id = $1 AND d.definition_no = $2";
    let row: Option<(Option<i32>, Option<i32>, i16)> =
        sqlx::query_as(sql).bind(space.0).bind(definition).fetch_optional(tx).await?;
    let number = |no: Option<i32>| no.map(|no| ComputationNo(no as u32));
    Ok(row.map(|(version, namesake, of)| Serving {
        version: number(version),
        namesake: number(namesake),
        collection: Collection::from_number(of),
    }))
}

/// The next members of a version, by number, and since when.
pub async fn list_members(
    tx: &mut PgConnection,
    space: SpaceNo,
    computation: ComputationNo,
    (after, until, limit): (i64, i64, i64),
) -> Result<Vec<(ProfileNo, Timestamp)>> {
    let sql = "-- store::deliveries::sync::list_members
         SELECT profile_no, entered_at FROM membership
         WHERE space_id = $1 AND computation_no = $2 AND profile_no > $3 AND profile_no <= $4
         ORDER BY profile_no LIMIT $5";
    let rows: Vec<(i64, DateTime<Utc>)> = sqlx::query_as(sql)
        .bind(space.0)
        .bind(computation.0 as i32)
        .bind(after)
        .bind(until)
        .bind(limit)
        .fetch_all(tx)
        .await?;
    Ok(rows.into_iter().map(|(no, at)| (ProfileNo(no as u64), at.into())).collect())
}

/// The next live profiles, by number, encoded.
pub async fn list_states(
    tx: &mut PgConnection,
    space: SpaceNo,
    (after, until, limit): (i64, i64, i64),
) -> Result<Vec<(ProfileNo, Vec<u8>)>> {
    let sql = "-- store::deliveries::sync::list_states
         SELECT profile_no, state FROM profile
         WHERE space_id = $1 AND profile_no > $2 AND profile_no <= $3 AND merged_into IS NULL
         ORDER BY profile_no LIMIT $4";
    let rows: Vec<(i64, Vec<u8>)> =
        sqlx::query_as(sql).bind(space.0).bind(after).bind(until).bind(limit).fetch_all(tx).await?;
    Ok(rows.into_iter().map(|(no, state)| (ProfileNo(no as u64), state)).collect())
}
