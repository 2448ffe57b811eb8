//! Traits that profiles can be searched by, and which profiles have which of their values.

use bytes::Bytes;
use sqlx::{PgConnection, PgExecutor};

use super::{Result, StoreError, Walled, processor};
use crate::domain::{ProfileNo, SpaceNo};

/// Traits of a new space.
const DEFAULTS: [&str; 7] = ["name", "first_name", "last_name", "username", "phone", "company", "plan"];

/// A trait as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraitRow {
    /// Its number in the space.
    pub no: i16,
    /// Its name.
    pub name: String,
    /// Profiles up to here are filled in; none: all are.
    pub filled: Option<ProfileNo>,
    /// Nobody searches by it any more; its entries are being removed.
    pub removed: bool,
}

/// That a profile has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Number of the trait.
    pub trait_no: i16,
    /// Hash of the value.
    pub hash: i64,
    /// The profile.
    pub profile: ProfileNo,
}

/// Gives a new space the default traits; it has no profiles.
pub async fn insert_default_traits(tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
    sqlx::query(
        "-- store::search::insert_default_traits
         INSERT INTO search_trait (space_id, trait_no, name)
         SELECT $1, no, name FROM unnest($2::text[]) WITH ORDINALITY AS t (name, no)",
    )
    .bind(space.0)
    .bind(&DEFAULTS[..])
    .execute(tx)
    .await?;
    Ok(())
}

/// All traits of a space, removed ones included, by number.
pub async fn list_traits(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Vec<TraitRow>> {
    let rows: Vec<(i16, String, Option<i64>, bool)> = sqlx::query_as(
        "-- store::search::list_traits
         SELECT trait_no, name, filled_no, removed FROM search_trait WHERE space_id = $1 ORDER BY trait_no",
    )
    .bind(space.0)
    .fetch_all(executor)
    .await?;
    let row = |(no, name, filled, removed): (i16, String, Option<i64>, bool)| TraitRow {
        no,
        name,
        filled: filled.map(|no| ProfileNo(no as u64)),
        removed,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Changes the traits of a space to what `change` makes of the present ones, which nobody else changes meanwhile: which to
/// remove, and which to add. The processor takes them in between two batches.
pub async fn change_traits<E: From<StoreError>>(
    door: &Walled,
    space: SpaceNo,
    change: impl FnOnce(&[TraitRow]) -> std::result::Result<(Vec<i16>, Vec<(i16, String)>), E>,
) -> std::result::Result<Vec<TraitRow>, E> {
    let mut tx = door.begin().await?;
    // Its row lock keeps others out, batches of the processor included.
    processor::bump_config(&mut tx, space).await?;
    let present = list_traits(&mut *tx, space).await?;
    let (gone, new) = change(&present)?;
    if gone.is_empty() && new.is_empty() {
        return Ok(present);
    }
    let sql = "-- store::search::change_traits
         UPDATE search_trait SET removed = true WHERE space_id = $1 AND trait_no = ANY($2)";
    sqlx::query(sql).bind(space.0).bind(&gone).execute(&mut *tx).await.map_err(StoreError::from)?;
    let (numbers, names): (Vec<i16>, Vec<String>) = new.into_iter().unzip();
    sqlx::query(
        "-- store::search::change_traits
         INSERT INTO search_trait (space_id, trait_no, name, filled_no)
         SELECT $1, no, name, 0 FROM unnest($2::smallint[], $3::text[]) AS t (no, name)",
    )
    .bind(space.0)
    .bind(&numbers)
    .bind(&names)
    .execute(&mut *tx)
    .await
    .map_err(StoreError::from)?;
    let traits = list_traits(&mut *tx, space).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(traits)
}

/// Adds entries; those that are there already stay.
pub async fn insert_entries(tx: &mut PgConnection, space: SpaceNo, entries: &[Entry]) -> Result<()> {
    let sql = "-- store::search::insert_entries
         INSERT INTO search_entry (space_id, trait_no, value_hash, profile_no)
         SELECT $1, * FROM unnest($2::smallint[], $3::bigint[], $4::bigint[]) ON CONFLICT DO NOTHING";
    execute(sql, tx, space, entries).await
}

/// Removes entries; those that are not there are no mistake. Each is looked up by itself: a join would be made the other way
/// round as long as Postgres takes the table for empty, and compare every entry with every one.
pub async fn delete_entries(tx: &mut PgConnection, space: SpaceNo, entries: &[Entry]) -> Result<()> {
    let sql = "-- store::search::delete_entries
         DELETE FROM search_entry WHERE ctid = ANY(ARRAY(
             SELECT e.ctid
             FROM unnest($2::smallint[], $3::bigint[], $4::bigint[]) AS g (trait_no, value_hash, profile_no)
             CROSS JOIN LATERAL (
                 SELECT s.ctid FROM search_entry s
                 WHERE s.space_id = $1 AND s.trait_no = g.trait_no AND s.value_hash = g.value_hash
                     AND s.profile_no = g.profile_no LIMIT 1
             ) e
         ))";
    execute(sql, tx, space, entries).await
}

async fn execute(sql: &'static str, tx: &mut PgConnection, space: SpaceNo, entries: &[Entry]) -> Result<()> {
    sqlx::query(sql)
        .bind(space.0)
        .bind(entries.iter().map(|e| e.trait_no).collect::<Vec<_>>())
        .bind(entries.iter().map(|e| e.hash).collect::<Vec<_>>())
        .bind(entries.iter().map(|e| e.profile.0 as i64).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

/// Notes how far some traits are filled in; `None`: they are complete.
pub async fn set_filled(
    tx: &mut PgConnection,
    space: SpaceNo,
    traits: &[i16],
    filled: Option<ProfileNo>,
) -> Result<()> {
    let sql = "-- store::search::set_filled
         UPDATE search_trait SET filled_no = $3 WHERE space_id = $1 AND trait_no = ANY($2)";
    let filled = filled.map(|no| no.0 as i64);
    sqlx::query(sql).bind(space.0).bind(traits).bind(filled).execute(tx).await?;
    Ok(())
}

/// Removes up to `most` entries of a removed trait, and the trait itself when there are none left: then it says so.
pub async fn clear_trait(tx: &mut PgConnection, space: SpaceNo, no: i16, most: i64) -> Result<bool> {
    let done = sqlx::query(
        "-- store::search::clear_trait
         DELETE FROM search_entry WHERE space_id = $1 AND trait_no = $2 AND (value_hash, profile_no) <= (
             SELECT max(value_hash), (array_agg(profile_no ORDER BY value_hash DESC, profile_no DESC))[1] FROM (
                 SELECT value_hash, profile_no FROM search_entry WHERE space_id = $1 AND trait_no = $2
                 ORDER BY value_hash, profile_no LIMIT $3
             ) first
         )",
    )
    .bind(space.0)
    .bind(no)
    .bind(most)
    .execute(&mut *tx)
    .await?;
    if (done.rows_affected() as i64) < most {
        let sql = "-- store::search::clear_trait
             DELETE FROM search_trait WHERE space_id = $1 AND trait_no = $2 AND removed";
        sqlx::query(sql).bind(space.0).bind(no).execute(tx).await?;
        return Ok(true);
    }
    Ok(false)
}

/// Profiles with an entry, by number behind `after`; encoded, unless they are none any more.
pub async fn list_candidates(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    (trait_no, hash): (i16, i64),
    after: ProfileNo,
    limit: i64,
) -> Result<Vec<(ProfileNo, Option<Bytes>)>> {
    let rows: Vec<(i64, Option<Vec<u8>>)> = sqlx::query_as(
        "-- store::search::list_candidates
         SELECT c.profile_no, CASE WHEN p.merged_into IS NULL THEN p.state END FROM (
             SELECT profile_no FROM search_entry
             WHERE space_id = $1 AND trait_no = $2 AND value_hash = $3 AND profile_no > $4
             ORDER BY profile_no LIMIT $5
         ) c
         LEFT JOIN profile p ON p.space_id = $1 AND p.profile_no = c.profile_no
         ORDER BY c.profile_no",
    )
    .bind(space.0)
    .bind(trait_no)
    .bind(hash)
    .bind(after.0 as i64)
    .bind(limit)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(no, state)| (ProfileNo(no as u64), state.map(Bytes::from))).collect())
}
