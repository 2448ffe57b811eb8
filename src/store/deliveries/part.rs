//! What waits for a profile that is two again: each part goes out for its own.

use sqlx::PgConnection;

use super::lock_workers;
use crate::domain::{DestinationNo, Offset, ProfileNo, SpaceNo};
use crate::store::Result;
use crate::store::memberships::Transition;

/// A profile that was separated from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Separated {
    /// What it was part of.
    pub from: ProfileNo,
    /// Its number.
    pub to: ProfileNo,
    /// All numbers it has had.
    pub numbers: Vec<ProfileNo>,
    /// Its events, as far as they came while the two were one.
    pub events: Vec<Offset>,
}

/// Gives what was made for a separated profile, or by its events, back to it, in the queues and among dead letters. What was
/// told of an audience goes where its transition went (`retold`). A profile whose next change waits for another attempt
/// does so still. Of the same transaction as the separation.
pub async fn separate(
    tx: &mut PgConnection,
    space: SpaceNo,
    destinations: &[DestinationNo],
    separated: &Separated,
    retold: &[Transition],
) -> Result<()> {
    let destinations: Vec<i32> = destinations.iter().map(|d| d.0).collect();
    lock_workers(&mut *tx, space, &destinations).await?;
    let (from, to) = (separated.from.0 as i64, separated.to.0 as i64);
    let numbers: Vec<i64> = separated.numbers.iter().map(|no| no.0 as i64).collect();
    let events: Vec<i64> = separated.events.iter().map(|offset| offset.0 as i64).collect();
    let mut moved = 0;
    for sql in [
        "-- store::deliveries::part::separate
         UPDATE delivery SET profile_no = $4
         WHERE space_id = $1 AND destination_no = ANY($2) AND profile_no = $3
             AND (origin_no = ANY($5) OR log_offset = ANY($6))",
        "-- store::deliveries::part::separate
         UPDATE delivery_outcome SET profile_no = $4
         WHERE space_id = $1 AND destination_no = ANY($2) AND profile_no = $3 AND state = 3
             AND (origin_no = ANY($5) OR log_offset = ANY($6))",
    ] {
        let query = sqlx::query(sql).bind(space.0).bind(&destinations).bind(from).bind(to);
        moved += query.bind(&numbers).bind(&events).execute(&mut *tx).await?.rows_affected();
    }
    for sql in [
        "-- store::deliveries::part::separate
         UPDATE delivery d SET profile_no = t.profile_no
         FROM unnest($4::int[], $5::bigint[], $6::text[], $7::timestamptz[]) AS t (definition_no, profile_no, value, at)
         WHERE d.space_id = $1 AND d.destination_no = ANY($2) AND d.profile_no = ANY($3) AND d.subject = 0
             AND d.definition_no = t.definition_no AND d.value = t.value AND d.at = t.at",
        "-- store::deliveries::part::separate
         UPDATE delivery_outcome d SET profile_no = t.profile_no
         FROM unnest($4::int[], $5::bigint[], $6::text[], $7::timestamptz[]) AS t (definition_no, profile_no, value, at)
         WHERE d.space_id = $1 AND d.destination_no = ANY($2) AND d.profile_no = ANY($3) AND d.subject = 0
             AND d.state = 3 AND d.definition_no = t.definition_no AND d.value = t.value AND d.at = t.at",
    ] {
        let query = sqlx::query(sql)
            .bind(space.0)
            .bind(&destinations)
            .bind(vec![from, to])
            .bind(retold.iter().map(|t| t.definition).collect::<Vec<_>>())
            .bind(retold.iter().map(|t| t.profile.0 as i64).collect::<Vec<_>>())
            .bind(retold.iter().map(|t| t.entered.to_string()).collect::<Vec<_>>())
            .bind(retold.iter().map(|t| t.at.to_utc()).collect::<Vec<_>>());
        moved += query.execute(&mut *tx).await?.rows_affected();
    }
    if moved == 0 {
        return Ok(());
    }
    for sql in [
        // It is the first change in the queue that has failed.
        "-- store::deliveries::part::separate
         UPDATE delivery_hold h SET profile_no = $4
         WHERE h.space_id = $1 AND h.destination_no = ANY($2) AND h.profile_no = $3 AND EXISTS (
             SELECT 1 FROM delivery d
             WHERE d.space_id = $1 AND d.destination_no = h.destination_no AND d.profile_no = $4
                 AND d.seq < ALL (SELECT o.seq FROM delivery o WHERE o.space_id = $1
                     AND o.destination_no = h.destination_no AND o.profile_no = $3))",
        "-- store::deliveries::part::separate
         UPDATE destination_worker SET shuffled = shuffled + 1
         WHERE space_id = $1 AND destination_no = ANY($2) AND $3::bigint <> $4::bigint",
    ] {
        sqlx::query(sql).bind(space.0).bind(&destinations).bind(from).bind(to).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Takes everything that waits for some profiles, or was told of them, out of all queues and out of their history: changes,
/// attempts, and the requests they were part of. Deletions stay. Of the transaction that erases the profiles.
pub async fn erase(tx: &mut PgConnection, space: SpaceNo, profiles: &[i64]) -> Result<()> {
    let sql = "-- store::deliveries::part::erase
         SELECT destination_no FROM destination_worker WHERE space_id = $1 ORDER BY destination_no";
    let all: Vec<i32> = sqlx::query_scalar(sql).bind(space.0).fetch_all(&mut *tx).await?;
    if all.is_empty() {
        return Ok(());
    }
    lock_workers(&mut *tx, space, &all).await?;
    for sql in [
        "-- store::deliveries::part::erase
         WITH told AS (
             SELECT destination_no, delivery_no FROM delivery
             WHERE space_id = $1 AND destination_no = ANY($2) AND profile_no = ANY($3)
             UNION ALL
             SELECT destination_no, delivery_no FROM delivery_outcome WHERE space_id = $1 AND profile_no = ANY($3)
         ), tried AS (
             DELETE FROM delivery_attempt a USING told t
             WHERE a.space_id = $1 AND a.destination_no = t.destination_no AND a.delivery_no = t.delivery_no
             RETURNING a.destination_no, a.exchange_id
         )
         DELETE FROM delivery_exchange x USING tried t
         WHERE x.space_id = $1 AND x.destination_no = t.destination_no AND x.exchange_id = t.exchange_id",
        "-- store::deliveries::part::erase
         WITH gone AS (
             DELETE FROM delivery WHERE space_id = $1 AND destination_no = ANY($2) AND profile_no = ANY($3) AND subject <> 4
             RETURNING destination_no
         )
         UPDATE destination_worker w SET done = w.done + g.count, shuffled = w.shuffled + 1
         FROM (SELECT destination_no, count(*) FROM gone GROUP BY 1) g
         WHERE w.space_id = $1 AND w.destination_no = g.destination_no",
        "-- store::deliveries::part::erase
         WITH gone AS (
             DELETE FROM delivery_outcome
             WHERE space_id = $1 AND destination_no = ANY($2) AND profile_no = ANY($3) AND subject <> 4
             RETURNING destination_no, state
         )
         UPDATE destination_worker w SET dead = w.dead - g.count
         FROM (SELECT destination_no, count(*) FROM gone WHERE state = 3 GROUP BY 1) g
         WHERE w.space_id = $1 AND w.destination_no = g.destination_no",
        "-- store::deliveries::part::erase
         DELETE FROM delivery_hold WHERE space_id = $1 AND destination_no = ANY($2) AND profile_no = ANY($3)",
    ] {
        sqlx::query(sql).bind(space.0).bind(&all).bind(profiles).execute(&mut *tx).await?;
    }
    Ok(())
}
