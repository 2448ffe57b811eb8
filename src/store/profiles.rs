//! Profile rows and account links: written by the processor in batches, read one statement per question.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{Result, StoreError, Walled};
use crate::domain::identifier::IdKey;
use crate::domain::{Collection, ProfileNo, SourceNo, SpaceNo, Timestamp};

/// A profile row to be written.
#[derive(Debug, Clone)]
pub struct ProfileRow {
    /// Number in the space.
    pub no: ProfileNo,
    /// Public id.
    pub id: Uuid,
    /// Users or accounts.
    pub collection: Collection,
    /// When it was made.
    pub created_at: Timestamp,
    /// Time of receipt of its newest event.
    pub last_seen_at: Timestamp,
    /// The encoded profile.
    pub state: Bytes,
}

/// Adds new profiles.
pub async fn insert_profiles(tx: &mut PgConnection, space: SpaceNo, rows: &[ProfileRow]) -> Result<()> {
    sqlx::query(
        "-- store::profiles::insert_profiles
         INSERT INTO profile (space_id, profile_no, profile_id, collection, created_at, last_seen_at, state)
         SELECT $1, * FROM unnest($2::bigint[], $3::uuid[], $4::smallint[], $5::timestamptz[], $6::timestamptz[],
             $7::bytea[])",
    )
    .bind(space.0)
    .bind(rows.iter().map(|r| r.no.0 as i64).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.id).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.collection as i16).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.created_at.to_utc()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.last_seen_at.to_utc()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| &*r.state).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// Rewrites profiles that exist.
pub async fn update_profiles(tx: &mut PgConnection, space: SpaceNo, rows: &[ProfileRow]) -> Result<()> {
    let done = sqlx::query(
        "-- store::profiles::update_profiles
         UPDATE profile p SET last_seen_at = u.seen, state = u.state
         FROM unnest($2::bigint[], $3::timestamptz[], $4::bytea[]) AS u (no, seen, state)
         WHERE p.space_id = $1 AND p.profile_no = u.no",
    )
    .bind(space.0)
    .bind(rows.iter().map(|r| r.no.0 as i64).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.last_seen_at.to_utc()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| &*r.state).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    if done.rows_affected() as usize == rows.len() {
        Ok(())
    } else {
        Err(StoreError::Damaged("a profile to be updated does not exist".into()))
    }
}

/// A profile row as a processor loads it.
#[derive(Debug, Clone)]
pub enum Loaded {
    /// A live profile, encoded.
    Live(Bytes),
    /// It was absorbed by this one.
    Absorbed(ProfileNo),
}

/// Profiles by number.
pub async fn load_states(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    numbers: &[ProfileNo],
) -> Result<Vec<(ProfileNo, Loaded)>> {
    let rows: Vec<(i64, Option<i64>, Vec<u8>)> = sqlx::query_as(
        "-- store::profiles::load_states
         SELECT p.profile_no, p.merged_into, p.state FROM unnest($2::bigint[]) AS w (profile_no)
         JOIN profile p ON p.space_id = $1 AND p.profile_no = w.profile_no",
    )
    .bind(space.0)
    .bind(numbers.iter().map(|n| n.0 as i64).collect::<Vec<_>>())
    .fetch_all(executor)
    .await?;
    let loaded = |(no, merged_into, state): (i64, Option<i64>, Vec<u8>)| {
        let row = merged_into
            .map_or_else(|| Loaded::Live(state.into()), |no| Loaded::Absorbed(ProfileNo(no as u64)));
        (ProfileNo(no as u64), row)
    };
    Ok(rows.into_iter().map(loaded).collect())
}

/// The first so many bytes of live profiles, by number.
pub async fn load_starts(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    numbers: &[ProfileNo],
    bytes: usize,
) -> Result<Vec<(ProfileNo, Vec<u8>)>> {
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "-- store::profiles::load_starts
         SELECT profile_no, substring(state FROM 1 FOR $3) FROM profile
         WHERE space_id = $1 AND profile_no = ANY($2) AND merged_into IS NULL ORDER BY profile_no",
    )
    .bind(space.0)
    .bind(numbers.iter().map(|n| n.0 as i64).collect::<Vec<_>>())
    .bind(bytes as i32)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(no, start)| (ProfileNo(no as u64), start)).collect())
}

/// Profile numbers in (after, until], with the live profile each one means today.
pub async fn list_numbers(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    after: ProfileNo,
    until: ProfileNo,
) -> Result<Vec<(ProfileNo, ProfileNo)>> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "-- store::profiles::list_numbers
         SELECT profile_no, coalesce(merged_into, profile_no) FROM profile
         WHERE space_id = $1 AND profile_no > $2 AND profile_no <= $3 ORDER BY profile_no",
    )
    .bind(space.0)
    .bind(after.0 as i64)
    .bind(until.0 as i64)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(no, live)| (ProfileNo(no as u64), ProfileNo(live as u64))).collect())
}

/// Numbers of live accounts in (after, until].
pub async fn list_accounts(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    after: ProfileNo,
    until: ProfileNo,
    limit: i64,
) -> Result<Vec<ProfileNo>> {
    let rows: Vec<i64> = sqlx::query_scalar(
        "-- store::profiles::list_accounts
         SELECT profile_no FROM profile
         WHERE space_id = $1 AND profile_no > $2 AND profile_no <= $3 AND collection = $4 AND merged_into IS NULL
         ORDER BY profile_no LIMIT $5",
    )
    .bind(space.0)
    .bind(after.0 as i64)
    .bind(until.0 as i64)
    .bind(Collection::Accounts as i16)
    .bind(limit)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|no| ProfileNo(no as u64)).collect())
}

/// The newest profile; 0 when there is none.
pub async fn newest(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<ProfileNo> {
    let sql =
        "-- store::profiles::newest\nSELECT coalesce(max(profile_no), 0) FROM profile WHERE space_id = $1";
    let no: i64 = sqlx::query_scalar(sql).bind(space.0).fetch_one(executor).await?;
    Ok(ProfileNo(no as u64))
}

/// All profiles that were absorbed, with the live one each of them means today.
pub async fn list_absorbed(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
) -> Result<Vec<(ProfileNo, ProfileNo)>> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "-- store::profiles::list_absorbed
         SELECT profile_no, merged_into FROM profile WHERE space_id = $1 AND merged_into IS NOT NULL",
    )
    .bind(space.0)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(no, live)| (ProfileNo(no as u64), ProfileNo(live as u64))).collect())
}

/// A profile as an identifier leads to it, and how its space stands as of the same snapshot.
#[derive(Debug, Clone)]
pub struct FoundProfile {
    /// The identifier.
    pub key: IdKey,
    /// Its number.
    pub no: ProfileNo,
    /// It, encoded.
    pub state: Bytes,
    /// Version of the space's configuration.
    pub version: i64,
    /// Epoch of the space's lease.
    pub epoch: i64,
    /// The lease has more left than was asked for.
    pub is_leased: bool,
}

/// Looks profiles up by any identifier they ever had: many questions, one statement.
pub async fn find_by_keys(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    keys: &[IdKey],
    lease_left: Duration,
) -> Result<Vec<FoundProfile>> {
    let rows: Vec<(Uuid, i64, Vec<u8>, i64, i64, bool)> = sqlx::query_as(
        "-- store::profiles::find_by_keys
         WITH space AS MATERIALIZED (
             SELECT config_version, epoch, lease_until > clock_timestamp() + make_interval(secs => $3) AS is_leased
             FROM processor WHERE space_id = $1
         )
         SELECT e.id_key, coalesce(l.profile_no, p.profile_no), coalesce(l.state, p.state),
             space.config_version, space.epoch, space.is_leased
         FROM space
         CROSS JOIN unnest($2::uuid[]) AS w (id_key)
         JOIN external_id e ON e.space_id = $1 AND e.id_key = w.id_key
         JOIN profile p ON p.space_id = $1 AND p.profile_no = e.profile_no
         LEFT JOIN profile l ON l.space_id = $1 AND l.profile_no = p.merged_into",
    )
    .bind(space.0)
    .bind(keys.iter().map(|k| k.to_uuid()).collect::<Vec<_>>())
    .bind(lease_left.as_secs_f64())
    .fetch_all(executor)
    .await?;
    let found = |(key, no, state, version, epoch, is_leased): (Uuid, i64, Vec<u8>, i64, i64, bool)| {
        let (key, no) = (IdKey(key.as_u128()), ProfileNo(no as u64));
        FoundProfile { key, no, state: state.into(), version, epoch, is_leased }
    };
    Ok(rows.into_iter().map(found).collect())
}

/// The live profiles that public ids mean or meant: the id, its number, and the encoded profile. An id that a rebuild made
/// no more leads to the profile that has what it had.
pub async fn find_by_ids(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    ids: &[Uuid],
) -> Result<Vec<(Uuid, ProfileNo, Bytes)>> {
    let rows: Vec<(Uuid, i64, Vec<u8>)> = sqlx::query_as(
        "-- store::profiles::find_by_ids
         SELECT n.profile_id, p.profile_no, l.state
         FROM (
             SELECT profile_id, profile_no FROM profile WHERE space_id = $1 AND profile_id = ANY($2)
             UNION ALL
             SELECT profile_id, profile_no FROM former_profile WHERE space_id = $1 AND profile_id = ANY($2)
         ) n
         JOIN profile p ON p.space_id = $1 AND p.profile_no = n.profile_no
         JOIN profile l ON l.space_id = $1 AND l.profile_no = CASE WHEN p.merged_into IS NULL THEN p.profile_no ELSE p.merged_into END",
    )
    .bind(space.0)
    .bind(ids)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(id, no, state)| (id, ProfileNo(no as u64), state.into())).collect())
}

/// The number of the profile that has or had this public id.
pub async fn find_number(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    id: Uuid,
) -> Result<Option<ProfileNo>> {
    let sql = "-- store::profiles::find_number
         SELECT profile_no FROM profile WHERE space_id = $1 AND profile_id = $2
         UNION ALL
         SELECT profile_no FROM former_profile WHERE space_id = $1 AND profile_id = $2";
    let no: Option<i64> = sqlx::query_scalar(sql).bind(space.0).bind(id).fetch_optional(executor).await?;
    Ok(no.map(|no| ProfileNo(no as u64)))
}

/// The encoded live profile that a number means or meant.
pub async fn find_by_number(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    no: ProfileNo,
) -> Result<Option<Bytes>> {
    let state: Option<Vec<u8>> = sqlx::query_scalar(
        "-- store::profiles::find_by_number
         SELECT l.state
         FROM profile p
         JOIN profile l ON l.space_id = $1 AND l.profile_no = CASE WHEN p.merged_into IS NULL THEN p.profile_no ELSE p.merged_into END
         WHERE p.space_id = $1 AND p.profile_no = $2",
    )
    .bind(space.0)
    .bind(no.0 as i64)
    .fetch_optional(executor)
    .await?;
    Ok(state.map(Bytes::from))
}

/// As [`find_by_number`] for many numbers, with the public id each of them has or had.
pub async fn find_by_numbers(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    numbers: &[ProfileNo],
) -> Result<Vec<(ProfileNo, Uuid, Bytes)>> {
    let rows: Vec<(i64, Uuid, Vec<u8>)> = sqlx::query_as(
        "-- store::profiles::find_by_numbers
         SELECT p.profile_no, p.profile_id, l.state
         FROM profile p
         JOIN profile l ON l.space_id = $1 AND l.profile_no = CASE WHEN p.merged_into IS NULL THEN p.profile_no ELSE p.merged_into END
         WHERE p.space_id = $1 AND p.profile_no = ANY($2)",
    )
    .bind(space.0)
    .bind(numbers.iter().map(|n| n.0 as i64).collect::<Vec<_>>())
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(no, id, state)| (ProfileNo(no as u64), id, state.into())).collect())
}

/// Public ids of numbers that are or were profiles of the space.
pub async fn list_ids(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    numbers: &[ProfileNo],
) -> Result<Vec<(ProfileNo, Uuid)>> {
    let sql = "-- store::profiles::list_ids
         SELECT profile_no, profile_id FROM profile WHERE space_id = $1 AND profile_no = ANY($2)";
    let rows: Vec<(i64, Uuid)> = sqlx::query_as(sql)
        .bind(space.0)
        .bind(numbers.iter().map(|n| n.0 as i64).collect::<Vec<_>>())
        .fetch_all(executor)
        .await?;
    Ok(rows.into_iter().map(|(no, id)| (ProfileNo(no as u64), id)).collect())
}

/// A user linked to an account.
#[derive(Debug, Clone)]
pub struct Link {
    /// The account.
    pub account: ProfileNo,
    /// The user.
    pub user: ProfileNo,
    /// Since when (event time of the first group call).
    pub created_at: Timestamp,
    /// Who sent it.
    pub source: SourceNo,
    /// The message that made it.
    pub message_id: String,
}

/// Adds links; those that are there already stay.
pub async fn insert_links(tx: &mut PgConnection, space: SpaceNo, links: &[Link]) -> Result<()> {
    sqlx::query(
        "-- store::profiles::insert_links
         INSERT INTO account_link (space_id, account_no, user_no, created_at, source_no, message_id)
         SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::timestamptz[], $5::int[], $6::text[])
         ON CONFLICT DO NOTHING",
    )
    .bind(space.0)
    .bind(links.iter().map(|l| l.account.0 as i64).collect::<Vec<_>>())
    .bind(links.iter().map(|l| l.user.0 as i64).collect::<Vec<_>>())
    .bind(links.iter().map(|l| l.created_at.to_utc()).collect::<Vec<_>>())
    .bind(links.iter().map(|l| l.source.0).collect::<Vec<_>>())
    .bind(links.iter().map(|l| l.message_id.as_str()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// The other side of the links of a profile, given all its numbers: live profiles behind `after`, once each, with the
/// time of the first link.
pub async fn list_linked(
    door: &Walled,
    space: SpaceNo,
    collection: Collection,
    numbers: &[ProfileNo],
    after: ProfileNo,
    limit: i64,
) -> Result<Vec<(Bytes, Timestamp)>> {
    // Of an account with many users only the numbers are put in order: states are read for the page alone.
    let accounts_of_user = "-- store::profiles::list_linked
         SELECT l.state, k.since FROM (
             SELECT coalesce(p.merged_into, k.account_no) AS no, min(k.created_at) AS since
             FROM account_link k
             LEFT JOIN profile p
                 ON p.space_id = $1 AND p.profile_no = k.account_no AND p.merged_into IS NOT NULL
             WHERE k.space_id = $1 AND k.user_no = ANY($2)
             GROUP BY 1 HAVING coalesce(p.merged_into, k.account_no) > $3 ORDER BY 1 LIMIT $4
         ) k JOIN profile l ON l.space_id = $1 AND l.profile_no = k.no ORDER BY k.no";
    let users_of_account = "-- store::profiles::list_linked
         SELECT l.state, k.since FROM (
             SELECT coalesce(p.merged_into, k.user_no) AS no, min(k.created_at) AS since
             FROM account_link k
             LEFT JOIN profile p ON p.space_id = $1 AND p.profile_no = k.user_no AND p.merged_into IS NOT NULL
             WHERE k.space_id = $1 AND k.account_no = ANY($2)
             GROUP BY 1 HAVING coalesce(p.merged_into, k.user_no) > $3 ORDER BY 1 LIMIT $4
         ) k JOIN profile l ON l.space_id = $1 AND l.profile_no = k.no ORDER BY k.no";
    let sql = if collection == Collection::Users { accounts_of_user } else { users_of_account };
    let rows: Vec<(Vec<u8>, DateTime<Utc>)> = sqlx::query_as(sql)
        .bind(space.0)
        .bind(numbers.iter().map(|n| n.0 as i64).collect::<Vec<_>>())
        .bind(after.0 as i64)
        .bind(limit)
        .fetch_all(door)
        .await?;
    Ok(rows.into_iter().map(|(state, since)| (state.into(), since.into())).collect())
}

/// Encoded live profiles by number, behind `after`.
pub async fn list_states(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    after: ProfileNo,
    limit: i64,
) -> Result<Vec<(ProfileNo, Bytes)>> {
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "-- store::profiles::list_states
         SELECT profile_no, state FROM profile
         WHERE space_id = $1 AND profile_no > $2 AND merged_into IS NULL ORDER BY profile_no LIMIT $3",
    )
    .bind(space.0)
    .bind(after.0 as i64)
    .bind(limit)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(no, state)| (ProfileNo(no as u64), state.into())).collect())
}
