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

/// The version that answers for a definition, if one does, and whose profiles it is about.
pub async fn serving(
    tx: &mut PgConnection,
    space: SpaceNo,
    definition: i32,
) -> Result<Option<(ComputationNo, Collection)>> {
    let sql = "-- store::deliveries::sync::serving
         SELECT serving_no, collection FROM definition
         WHERE space_id = $1 AND definition_no = $2 AND NOT deleted AND serving_no IS NOT NULL";
    let row: Option<(i32, i16)> =
        sqlx::query_as(sql).bind(space.0).bind(definition).fetch_optional(tx).await?;
    let collection =
        |no| if no == Collection::Accounts as i16 { Collection::Accounts } else { Collection::Users };
    Ok(row.map(|(no, of)| (ComputationNo(no as u32), collection(of))))
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
