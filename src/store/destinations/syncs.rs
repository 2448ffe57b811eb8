//! Full syncs: which definitions of which subscriptions everybody's present value has still to be sent of, and how far
//! that is. A subscription to all has one for each definition.

use sqlx::PgConnection;

use super::subscriptions::Subscription;
use super::worker;
use crate::domain::delivery::Subject;
use crate::domain::{ComputationNo, DestinationNo, SpaceNo, Timestamp};
use crate::store::Result;

/// Whether subscription `s` is about definition `d`: it names it, or it is to all of its kind and collection and the
/// destination has no other to this one. Parameter 1 is the space.
macro_rules! covers {
    () => {
        "(s.definition_no = d.definition_no AND s.subject = d.kind
          OR s.definition_no = -d.collection AND s.subject = d.kind AND NOT EXISTS (
              SELECT 1 FROM destination_subscription own
              WHERE own.space_id = $1 AND own.destination_no = s.destination_no AND own.subject = s.subject
                  AND own.definition_no = d.definition_no))"
    };
}
pub(in crate::store) use covers;

/// A full sync that is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Number of the subscription.
    pub subscription: i32,
    /// Which definition; 0 for subjects without one.
    pub definition: i32,
    /// Profiles up to here are told.
    pub after: i64,
    /// The last profile to be told.
    pub until: i64,
    /// Versions of before: who has a value of theirs and none of the present one is told so.
    pub replaced: Vec<ComputationNo>,
}

/// Begins the full sync of subscriptions (anew), over the profiles and definitions there are now.
pub async fn begin(
    tx: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
    subscriptions: &[i32],
    at: Timestamp,
) -> Result<()> {
    // Its row is always locked before those of its subscriptions.
    worker::bump_config(&mut *tx, space, destination).await?;
    let sql = concat!(
        "-- store::destinations::syncs::begin
         WITH s AS (
             UPDATE destination_subscription SET sync_started_at = $4, sync_ended_at = NULL
             WHERE space_id = $1 AND destination_no = $2 AND subscription_no = ANY($3) RETURNING *
         )
         INSERT INTO destination_sync (space_id, destination_no, subscription_no, definition_no, after_no, until_no)
         SELECT $1, $2, s.subscription_no, c.definition_no, 0, p.last_profile_no
         FROM s JOIN processor p ON p.space_id = $1
         CROSS JOIN LATERAL (
             SELECT 0 AS definition_no WHERE s.subject IN (2, 5)
             UNION ALL
             SELECT d.definition_no FROM definition d
             WHERE d.space_id = $1 AND NOT d.deleted AND d.serving_no IS NOT NULL AND ",
        covers!(),
        ") c
         ON CONFLICT (space_id, destination_no, subscription_no, definition_no)
             DO UPDATE SET after_no = 0, until_no = excluded.until_no"
    );
    let query = sqlx::query(sql).bind(space.0).bind(destination.0).bind(subscriptions);
    query.bind(at.to_utc()).execute(&mut *tx).await?;
    for no in subscriptions {
        end_if_done(&mut *tx, space, destination, *no, at).await?;
    }
    Ok(())
}

/// Begins the full sync of one definition for all that want it: it is another version that answers now, or, where it was
/// deleted, none. Who had a value of the one before and has none any more is told so.
pub async fn begin_of(
    tx: &mut PgConnection,
    space: SpaceNo,
    definition: i32,
    replaced: Option<ComputationNo>,
    at: Timestamp,
) -> Result<()> {
    let sql = concat!(
        "-- store::destinations::syncs::begin_of
         SELECT s.destination_no FROM destination_subscription s
         JOIN definition d ON d.space_id = $1 AND d.definition_no = $2
         WHERE s.space_id = $1 AND s.enabled AND s.subject = $3 AND ",
        covers!(),
        " ORDER BY 1"
    );
    let query = sqlx::query_scalar(sql).bind(space.0).bind(definition).bind(Subject::ComputedTrait as i16);
    let destinations: Vec<i32> = query.fetch_all(&mut *tx).await?;
    for no in destinations {
        worker::bump_config(&mut *tx, space, DestinationNo(no)).await?;
    }
    let sql = concat!(
        "-- store::destinations::syncs::begin_of
         WITH begun AS (
             INSERT INTO destination_sync AS y
                 (space_id, destination_no, subscription_no, definition_no, after_no, until_no, replaced)
             SELECT $1, s.destination_no, s.subscription_no, d.definition_no, 0, p.last_profile_no, $4
             FROM destination_subscription s
             JOIN definition d ON d.space_id = $1 AND d.definition_no = $2
             JOIN processor p ON p.space_id = $1
             WHERE s.space_id = $1 AND s.enabled AND s.subject = $3 AND ",
        covers!(),
        " ON CONFLICT (space_id, destination_no, subscription_no, definition_no) DO UPDATE
                 SET after_no = 0, until_no = excluded.until_no, replaced = y.replaced || excluded.replaced
             RETURNING destination_no, subscription_no
         )
         UPDATE destination_subscription s SET sync_started_at = $5, sync_ended_at = NULL FROM begun
         WHERE s.space_id = $1 AND s.destination_no = begun.destination_no
             AND s.subscription_no = begun.subscription_no"
    );
    sqlx::query(sql)
        .bind(space.0)
        .bind(definition)
        .bind(Subject::ComputedTrait as i16)
        .bind(replaced.iter().map(|no| no.0 as i32).collect::<Vec<_>>())
        .bind(at.to_utc())
        .execute(tx)
        .await?;
    Ok(())
}

/// The next full sync of a destination that is not done, of a subscription that is enabled.
pub async fn next(
    tx: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
) -> Result<Option<Running>> {
    let sql = "-- store::destinations::syncs::next
         SELECT y.subscription_no, y.definition_no, y.after_no, y.until_no, y.replaced FROM destination_sync y
         JOIN destination_subscription s ON s.space_id = $1 AND s.destination_no = $2
             AND s.subscription_no = y.subscription_no
         WHERE y.space_id = $1 AND y.destination_no = $2 AND y.after_no IS NOT NULL AND s.enabled
         ORDER BY 1, 2 LIMIT 1";
    let row: Option<(i32, i32, i64, i64, Vec<i32>)> =
        sqlx::query_as(sql).bind(space.0).bind(destination.0).fetch_optional(tx).await?;
    Ok(row.map(|(subscription, definition, after, until, replaced)| Running {
        subscription,
        definition,
        after,
        until,
        replaced: replaced.into_iter().map(|no| ComputationNo(no as u32)).collect(),
    }))
}

/// Says how far a full sync is; `None` when everybody was told.
pub async fn advance(
    tx: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
    of: &Running,
    (reached, at): (Option<i64>, Timestamp),
) -> Result<()> {
    let sql = "-- store::destinations::syncs::advance
         UPDATE destination_sync
         SET after_no = $5, replaced = CASE WHEN $5::bigint IS NULL THEN '{}' ELSE replaced END
         WHERE space_id = $1 AND destination_no = $2 AND subscription_no = $3 AND definition_no = $4";
    let query = sqlx::query(sql).bind(space.0).bind(destination.0).bind(of.subscription).bind(of.definition);
    query.bind(reached).execute(&mut *tx).await?;
    if reached.is_none() {
        end_if_done(tx, space, destination, of.subscription, at).await?;
    }
    Ok(())
}

/// Where all full syncs of a subscription are done, that is noted, and they are forgotten.
async fn end_if_done(
    tx: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
    subscription: i32,
    at: Timestamp,
) -> Result<()> {
    let sql = "-- store::destinations::syncs::end_if_done
         UPDATE destination_subscription SET sync_ended_at = $4
         WHERE space_id = $1 AND destination_no = $2 AND subscription_no = $3 AND NOT EXISTS (
             SELECT 1 FROM destination_sync y WHERE y.space_id = $1 AND y.destination_no = $2
                 AND y.subscription_no = $3 AND y.after_no IS NOT NULL)";
    let query = sqlx::query(sql).bind(space.0).bind(destination.0).bind(subscription).bind(at.to_utc());
    if query.execute(&mut *tx).await?.rows_affected() == 1 {
        forget(tx, space, destination, subscription).await?;
    }
    Ok(())
}

/// Forgets the full syncs of a subscription.
pub async fn forget(
    tx: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
    subscription: i32,
) -> Result<()> {
    let sql = "-- store::destinations::syncs::forget
         DELETE FROM destination_sync WHERE space_id = $1 AND destination_no = $2 AND subscription_no = $3";
    sqlx::query(sql).bind(space.0).bind(destination.0).bind(subscription).execute(tx).await?;
    Ok(())
}

/// Versions that answered before and whose values are still compared with what answers now.
pub async fn list_replaced(tx: &mut PgConnection, space: SpaceNo) -> Result<Vec<ComputationNo>> {
    let sql = "-- store::destinations::syncs::list_replaced
         SELECT DISTINCT unnest(replaced) FROM destination_sync WHERE space_id = $1 AND after_no IS NOT NULL";
    let numbers: Vec<i32> = sqlx::query_scalar(sql).bind(space.0).fetch_all(tx).await?;
    Ok(numbers.into_iter().map(|no| ComputationNo(no as u32)).collect())
}

/// Begins the full sync of a definition for the subscription to all that takes it over from another one.
pub async fn begin_for_all(
    tx: &mut PgConnection,
    space: SpaceNo,
    gone: &Subscription,
    at: Timestamp,
) -> Result<()> {
    let sql = concat!(
        "-- store::destinations::syncs::begin_for_all
         WITH begun AS (
             INSERT INTO destination_sync AS y
                 (space_id, destination_no, subscription_no, definition_no, after_no, until_no)
             SELECT $1, $2, s.subscription_no, d.definition_no, 0, p.last_profile_no
             FROM destination_subscription s
             JOIN definition d ON d.space_id = $1 AND d.definition_no = $4 AND NOT d.deleted AND d.serving_no IS NOT NULL
             JOIN processor p ON p.space_id = $1
             WHERE s.space_id = $1 AND s.destination_no = $2 AND s.enabled AND s.subject = $3 AND ",
        covers!(),
        " ON CONFLICT (space_id, destination_no, subscription_no, definition_no)
                 DO UPDATE SET after_no = 0, until_no = excluded.until_no
             RETURNING subscription_no
         )
         UPDATE destination_subscription s SET sync_started_at = $5, sync_ended_at = NULL FROM begun
         WHERE s.space_id = $1 AND s.destination_no = $2 AND s.subscription_no = begun.subscription_no"
    );
    sqlx::query(sql)
        .bind(space.0)
        .bind(gone.destination.0)
        .bind(gone.subject as i16)
        .bind(gone.definition)
        .bind(at.to_utc())
        .execute(tx)
        .await?;
    Ok(())
}
