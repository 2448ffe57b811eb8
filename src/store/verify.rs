//! What verification compares: everything counted and listed anew, within its snapshot.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Result;
use crate::domain::{ComputationNo, ProfileNo, SpaceNo, Timestamp};

/// The memberships of some profiles, by profile.
pub async fn list_memberships(
    connection: &mut PgConnection,
    space: SpaceNo,
    profiles: &[ProfileNo],
) -> Result<Vec<(ProfileNo, ComputationNo, Timestamp)>> {
    let rows: Vec<(i64, i32, DateTime<Utc>)> = sqlx::query_as(
        "-- store::verify::list_memberships
         SELECT profile_no, computation_no, entered_at FROM membership
         WHERE space_id = $1 AND profile_no = ANY($2) ORDER BY profile_no, computation_no",
    )
    .bind(space.0)
    .bind(profiles.iter().map(|no| no.0 as i64).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let row = |(profile, no, at): (i64, i32, DateTime<Utc>)| {
        (ProfileNo(profile as u64), ComputationNo(no as u32), at.into())
    };
    Ok(rows.into_iter().map(row).collect())
}

/// The live users of some accounts, each of them once: account, user.
pub async fn list_users(
    connection: &mut PgConnection,
    space: SpaceNo,
    accounts: &[ProfileNo],
) -> Result<Vec<(ProfileNo, ProfileNo)>> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "-- store::verify::list_users
         SELECT DISTINCT k.account_no, coalesce(p.merged_into, p.profile_no)
         FROM account_link k
         JOIN profile p ON p.space_id = $1 AND p.profile_no = k.user_no
         WHERE k.space_id = $1 AND k.account_no = ANY($2) ORDER BY 1, 2",
    )
    .bind(space.0)
    .bind(accounts.iter().map(|no| no.0 as i64).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(account, user)| (ProfileNo(account as u64), ProfileNo(user as u64))).collect())
}

/// Of every version that answers for an audience: the size that is kept, and the members counted.
pub async fn count_members(
    connection: &mut PgConnection,
    space: SpaceNo,
) -> Result<Vec<(ComputationNo, i64, i64)>> {
    let rows: Vec<(i32, i64, i64)> = sqlx::query_as(
        "-- store::verify::count_members
         SELECT c.computation_no, c.size, count(m.profile_no)
         FROM definition d
         JOIN computation c ON c.space_id = $1 AND c.computation_no = d.serving_no
         LEFT JOIN membership m ON m.space_id = $1 AND m.computation_no = c.computation_no
         WHERE d.space_id = $1 AND d.kind = 0 AND NOT d.deleted
         GROUP BY c.computation_no, c.size",
    )
    .bind(space.0)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(no, size, members)| (ComputationNo(no as u32), size, members)).collect())
}

/// Live users and accounts, counted.
pub async fn count_profiles(connection: &mut PgConnection, space: SpaceNo) -> Result<[i64; 2]> {
    let sql = "-- store::verify::count_profiles
         SELECT count(*) FILTER (WHERE collection = 0), count(*) FILTER (WHERE collection = 1)
         FROM profile WHERE space_id = $1 AND merged_into IS NULL";
    let (users, accounts) = sqlx::query_as(sql).bind(space.0).fetch_one(connection).await?;
    Ok([users, accounts])
}

/// Keys that definitions have or had.
pub async fn list_keys_ever(connection: &mut PgConnection, space: SpaceNo) -> Result<Vec<String>> {
    let sql = "-- store::verify::list_keys_ever
         SELECT DISTINCT key FROM definition WHERE space_id = $1";
    Ok(sqlx::query_scalar(sql).bind(space.0).fetch_all(connection).await?)
}
