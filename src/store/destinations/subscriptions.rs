//! What destinations want of the changes of a space. Every change of them raises the version of the space's configuration:
//! the processor writes no batch under the subscriptions before.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use sqlx::types::Json;
use uuid::Uuid;

use super::{syncs, worker};
use crate::domain::delivery::{Subject, SubscriptionOptions};
use crate::domain::{Collection, DestinationNo, SpaceNo, Timestamp};
use crate::store::{Result, Walled, processor};

/// What a destination wants of one subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// Whose.
    pub destination: DestinationNo,
    /// Number in the destination.
    pub no: i32,
    /// Public id.
    pub id: Uuid,
    /// What it is about.
    pub subject: Subject,
    /// Which definition; 0 for subjects without one, and [`all_of`](crate::domain::delivery::all_of) a collection for all.
    pub definition: i32,
    /// Whether changes are collected.
    pub enabled: bool,
    /// The calls sent, see [`Form::set_of`](crate::domain::delivery::Form::set_of).
    pub forms: i16,
    /// How they are sent.
    pub options: SubscriptionOptions,
    /// How the full sync stands.
    pub sync: Sync,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Subscription {
    /// The collection whose definitions it is about, all of its subject.
    pub fn all(&self) -> Option<Collection> {
        let is_all = self.subject.has_definition() && self.definition <= 0;
        is_all.then_some(if self.definition == 0 { Collection::Users } else { Collection::Accounts })
    }
}

/// A full sync: everybody's present value is sent once.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sync {
    /// Share of the profiles that were gone through, from 0 to 1; none: there is nothing to do.
    pub progress: Option<f64>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When everybody was told.
    pub ended_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct Row {
    destination_no: i32,
    subscription_no: i32,
    subscription_id: Uuid,
    subject: i16,
    definition_no: i32,
    enabled: bool,
    forms: i16,
    options: Json<SubscriptionOptions>,
    progress: Option<f64>,
    sync_started_at: Option<DateTime<Utc>>,
    sync_ended_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl From<Row> for Subscription {
    fn from(row: Row) -> Self {
        Self {
            destination: DestinationNo(row.destination_no),
            no: row.subscription_no,
            id: row.subscription_id,
            // There is no other number: each is written from the list.
            subject: Subject::from_number(row.subject).unwrap_or(Subject::Merges),
            definition: row.definition_no,
            enabled: row.enabled,
            forms: row.forms,
            options: row.options.0,
            sync: Sync {
                progress: row.progress,
                started_at: row.sync_started_at.map(Timestamp::from),
                ended_at: row.sync_ended_at.map(Timestamp::from),
            },
            created_at: row.created_at.into(),
        }
    }
}

/// All subscriptions of one destination, or of all of a space.
pub async fn list(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    destination: Option<DestinationNo>,
) -> Result<Vec<Subscription>> {
    let sql = "-- store::destinations::subscriptions::list
         SELECT s.*, y.progress FROM destination_subscription s
         LEFT JOIN (
             SELECT destination_no, subscription_no,
                 avg(coalesce(after_no::float8 / greatest(until_no, 1), 1)) AS progress
             FROM destination_sync WHERE space_id = $1 AND ($2::int IS NULL OR destination_no = $2)
             GROUP BY destination_no, subscription_no
         ) y ON y.destination_no = s.destination_no AND y.subscription_no = s.subscription_no
         WHERE s.space_id = $1 AND ($2::int IS NULL OR s.destination_no = $2)
         ORDER BY s.destination_no, s.subscription_no";
    let rows: Vec<Row> =
        sqlx::query_as(sql).bind(space.0).bind(destination.map(|d| d.0)).fetch_all(executor).await?;
    Ok(rows.into_iter().map(Subscription::from).collect())
}

/// Adds a subscription and begins its full sync; `Exists` when the destination wants the same already.
pub async fn insert(door: &Walled, space: SpaceNo, new: &Subscription) -> Result<i32> {
    let mut tx = door.begin().await?;
    processor::bump_config(&mut tx, space).await?;
    worker::bump_config(&mut tx, space, new.destination).await?;
    let no: i32 = sqlx::query_scalar(
        "-- store::destinations::subscriptions::insert
         INSERT INTO destination_subscription (space_id, destination_no, subscription_no, subscription_id, subject,
             definition_no, enabled, forms, options, created_at)
         SELECT $1, $2, coalesce(max(subscription_no), 0) + 1, $3, $4, $5, $6, $7, $8, $9
         FROM destination_subscription WHERE space_id = $1 AND destination_no = $2
         RETURNING subscription_no",
    )
    .bind(space.0)
    .bind(new.destination.0)
    .bind(new.id)
    .bind(new.subject as i16)
    .bind(new.definition)
    .bind(new.enabled)
    .bind(new.forms)
    .bind(Json(&new.options))
    .bind(new.created_at.to_utc())
    .fetch_one(&mut *tx)
    .await?;
    if new.enabled && new.subject.has_present() {
        syncs::begin(&mut tx, space, new.destination, &[no], new.created_at).await?;
    }
    tx.commit().await?;
    Ok(no)
}

/// Writes what can be changed of a subscription, and begins a full sync where that is asked for; false when it is gone.
pub async fn update(
    door: &Walled,
    space: SpaceNo,
    changed: &Subscription,
    sync_at: Option<Timestamp>,
) -> Result<bool> {
    let mut tx = door.begin().await?;
    processor::bump_config(&mut tx, space).await?;
    worker::bump_config(&mut tx, space, changed.destination).await?;
    let done = sqlx::query(
        "-- store::destinations::subscriptions::update
         UPDATE destination_subscription SET enabled = $4, forms = $5, options = $6
         WHERE space_id = $1 AND destination_no = $2 AND subscription_no = $3",
    )
    .bind(space.0)
    .bind(changed.destination.0)
    .bind(changed.no)
    .bind(changed.enabled)
    .bind(changed.forms)
    .bind(Json(&changed.options))
    .execute(&mut *tx)
    .await?;
    if let Some(at) = sync_at {
        syncs::begin(&mut tx, space, changed.destination, &[changed.no], at).await?;
    }
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}

/// Removes a subscription. What waits of it is not sent any more. Of a definition that another one to all takes over,
/// everybody's present value is sent.
pub async fn delete(door: &Walled, space: SpaceNo, gone: &Subscription, at: Timestamp) -> Result<()> {
    let mut tx = door.begin().await?;
    processor::bump_config(&mut tx, space).await?;
    let (destination, no) = (gone.destination, gone.no);
    worker::bump_config(&mut tx, space, destination).await?;
    syncs::forget(&mut tx, space, destination, no).await?;
    let sql = "-- store::destinations::subscriptions::delete
         DELETE FROM destination_subscription WHERE space_id = $1 AND destination_no = $2 AND subscription_no = $3";
    sqlx::query(sql).bind(space.0).bind(destination.0).bind(no).execute(&mut *tx).await?;
    if gone.all().is_none() {
        syncs::begin_for_all(&mut tx, space, gone, at).await?;
    }
    tx.commit().await?;
    Ok(())
}
