//! What people are asked to consent to: categories, and the destinations that are mapped to them. What they have said is in
//! their profiles.
//!
//! Every change raises the version of the space's configuration and tells the workers of the destinations it is about, in one
//! transaction.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::destinations::{subscriptions, syncs, worker};
use super::{Result, StoreError, Walled, processor};
use crate::domain::{DestinationNo, SpaceNo, Timestamp};

/// A category.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Category {
    /// As events name it.
    pub id: String,
    /// For people.
    pub name: String,
    /// Destinations that are mapped to it, by number: with their public ids.
    pub destinations: Vec<(DestinationNo, Uuid)>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct Row {
    category_id: String,
    name: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    numbers: Vec<i32>,
    ids: Vec<Uuid>,
}

/// The categories of a space in order of their ids.
pub async fn list_categories(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Vec<Category>> {
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::consents::list_categories
         SELECT c.category_id, c.name, c.created_at, c.updated_at,
             coalesce(array_agg(d.destination_no ORDER BY d.destination_no)
                 FILTER (WHERE d.destination_no IS NOT NULL), '{}') AS numbers,
             coalesce(array_agg(d.destination_id ORDER BY d.destination_no)
                 FILTER (WHERE d.destination_no IS NOT NULL), '{}') AS ids
         FROM consent_category c
         LEFT JOIN consent_mapping m ON m.space_id = $1 AND m.category_id = c.category_id
         LEFT JOIN destination d ON d.space_id = $1 AND d.destination_no = m.destination_no AND NOT d.deleted
         WHERE c.space_id = $1 GROUP BY c.space_id, c.category_id ORDER BY c.category_id",
    )
    .bind(space.0)
    .fetch_all(executor)
    .await?;
    let category = |row: Row| Category {
        id: row.category_id,
        name: row.name,
        destinations: row.numbers.into_iter().map(DestinationNo).zip(row.ids).collect(),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
    };
    Ok(rows.into_iter().map(category).collect())
}

/// Which destinations are mapped to which categories.
pub async fn list_mappings(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
) -> Result<Vec<(DestinationNo, String)>> {
    let sql = "-- store::consents::list_mappings
         SELECT destination_no, category_id FROM consent_mapping WHERE space_id = $1 ORDER BY 1, 2";
    let rows: Vec<(i32, String)> = sqlx::query_as(sql).bind(space.0).fetch_all(executor).await?;
    Ok(rows.into_iter().map(|(no, category)| (DestinationNo(no), category)).collect())
}

/// The categories a destination is mapped to.
pub async fn list_categories_of(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    destination: DestinationNo,
) -> Result<Vec<String>> {
    let sql = "-- store::consents::list_categories_of
         SELECT category_id FROM consent_mapping WHERE space_id = $1 AND destination_no = $2 ORDER BY 1";
    Ok(sqlx::query_scalar(sql).bind(space.0).bind(destination.0).fetch_all(executor).await?)
}

/// Whether audiences leave out who does not consent to their category.
pub async fn read_membership(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<bool> {
    let sql =
        "-- store::consents::read_membership\nSELECT membership FROM consent_settings WHERE space_id = $1";
    let set: Option<bool> = sqlx::query_scalar(sql).bind(space.0).fetch_optional(executor).await?;
    Ok(set.unwrap_or(false))
}

/// Sets whether they do. What is there already goes on as it is, until it is made anew.
pub async fn set_membership(executor: impl PgExecutor<'_>, space: SpaceNo, membership: bool) -> Result<()> {
    let sql = "-- store::consents::set_membership
         INSERT INTO consent_settings (space_id, membership) VALUES ($1, $2)
         ON CONFLICT (space_id) DO UPDATE SET membership = excluded.membership";
    sqlx::query(sql).bind(space.0).bind(membership).execute(executor).await?;
    Ok(())
}

/// A category as it is to be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// As events name it.
    pub id: &'a str,
    /// For people; as it is where none is given.
    pub name: Option<&'a str>,
    /// All destinations it is to be mapped to; as they are where none are given.
    pub destinations: Option<&'a [DestinationNo]>,
}

/// Makes a category; `Exists` when its id is in use.
pub async fn insert_category(door: &Walled, space: SpaceNo, new: Wanted<'_>, at: Timestamp) -> Result<()> {
    let mut tx = door.begin().await?;
    // Its row lock lets changes follow one another.
    processor::bump_config(&mut tx, space).await?;
    let sql = "-- store::consents::insert_category
         INSERT INTO consent_category (space_id, category_id, name, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $4) ON CONFLICT DO NOTHING";
    let query =
        sqlx::query(sql).bind(space.0).bind(new.id).bind(new.name.unwrap_or(new.id)).bind(at.to_utc());
    if query.execute(&mut *tx).await?.rows_affected() == 0 {
        return Err(StoreError::Exists);
    }
    map(&mut tx, space, new.id, new.destinations.unwrap_or_default(), at).await?;
    tx.commit().await?;
    Ok(())
}

/// Changes a category; false when there is none of that id.
pub async fn update_category(
    door: &Walled,
    space: SpaceNo,
    changed: Wanted<'_>,
    at: Timestamp,
) -> Result<bool> {
    let mut tx = door.begin().await?;
    processor::bump_config(&mut tx, space).await?;
    let sql = "-- store::consents::update_category
         UPDATE consent_category SET name = coalesce($3, name), updated_at = $4
         WHERE space_id = $1 AND category_id = $2";
    let query = sqlx::query(sql).bind(space.0).bind(changed.id).bind(changed.name).bind(at.to_utc());
    if query.execute(&mut *tx).await?.rows_affected() == 0 {
        return Ok(false);
    }
    if let Some(destinations) = changed.destinations {
        map(&mut tx, space, changed.id, destinations, at).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Removes a category; false when there is none of that id. Part of a transaction that has raised the version of the
/// configuration.
pub async fn delete_category(tx: &mut PgConnection, space: SpaceNo, id: &str, at: Timestamp) -> Result<bool> {
    map(&mut *tx, space, id, &[], at).await?;
    let sql = "-- store::consents::delete_category
         DELETE FROM consent_category WHERE space_id = $1 AND category_id = $2";
    let gone = sqlx::query(sql).bind(space.0).bind(id).execute(tx).await?.rows_affected();
    Ok(gone > 0)
}

/// Maps a category to these destinations and to no others. Those that ask for less than before are sent everybody's present
/// state: of some of them they were told nothing so far.
async fn map(
    tx: &mut PgConnection,
    space: SpaceNo,
    category: &str,
    destinations: &[DestinationNo],
    at: Timestamp,
) -> Result<()> {
    let sql = "-- store::consents::map
         DELETE FROM consent_mapping WHERE space_id = $1 AND category_id = $2 RETURNING destination_no";
    let before: Vec<i32> = sqlx::query_scalar(sql).bind(space.0).bind(category).fetch_all(&mut *tx).await?;
    let before: BTreeSet<i32> = before.into_iter().collect();
    let after: BTreeSet<i32> = destinations.iter().map(|no| no.0).collect();
    let sql = "-- store::consents::map
         INSERT INTO consent_mapping (space_id, category_id, destination_no) SELECT $1, $2, unnest($3::int[])";
    let numbers: Vec<i32> = after.iter().copied().collect();
    sqlx::query(sql).bind(space.0).bind(category).bind(numbers).execute(&mut *tx).await?;
    // In the order of their numbers, as everybody takes these rows.
    for no in before.symmetric_difference(&after) {
        let no = DestinationNo(*no);
        if after.contains(&no.0) {
            worker::bump_config(&mut *tx, space, no).await?;
        } else {
            let list = subscriptions::list(&mut *tx, space, Some(no)).await?;
            let enabled: Vec<i32> = list.iter().filter(|s| s.enabled).map(|s| s.no).collect();
            syncs::begin(&mut *tx, space, no, &enabled, at).await?;
        }
    }
    Ok(())
}
