//! What a rebuild's report compares: a page of profiles at a time, and only what is not the same byte for byte is read.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{Offset, ProfileNo, SpaceNo};
use crate::store::Result;

/// A profile's row without its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Public id.
    pub id: Uuid,
    /// Who has absorbed it.
    pub merged_into: Option<ProfileNo>,
    /// Of its state.
    digest: Vec<u8>,
}

type MarkRow = (i64, Uuid, Option<i64>, Vec<u8>);

fn mark((no, id, merged_into, digest): MarkRow) -> (ProfileNo, Mark) {
    let merged_into = merged_into.map(|no| ProfileNo(no as u64));
    (ProfileNo(no as u64), Mark { id, merged_into, digest })
}

/// The next rows of profiles by number, at most so many.
pub async fn list_marks(
    connection: &mut PgConnection,
    space: SpaceNo,
    after: ProfileNo,
    limit: i64,
) -> Result<Vec<(ProfileNo, Mark)>> {
    let sql = "-- store::rebuild::list_marks
         SELECT profile_no, profile_id, merged_into, sha256(state) FROM profile
         WHERE space_id = $1 AND profile_no > $2 ORDER BY profile_no LIMIT $3";
    let query = sqlx::query_as(sql).bind(space.0).bind(after.0 as i64).bind(limit);
    let rows: Vec<MarkRow> = query.fetch_all(connection).await?;
    Ok(rows.into_iter().map(mark).collect())
}

/// Rows of profiles by number.
pub async fn find_marks(
    connection: &mut PgConnection,
    space: SpaceNo,
    numbers: &[ProfileNo],
) -> Result<BTreeMap<ProfileNo, Mark>> {
    let sql = "-- store::rebuild::find_marks
         SELECT profile_no, profile_id, merged_into, sha256(state) FROM profile
         WHERE space_id = $1 AND profile_no = ANY($2)";
    let numbers: Vec<i64> = numbers.iter().map(|no| no.0 as i64).collect();
    let rows: Vec<MarkRow> = sqlx::query_as(sql).bind(space.0).bind(numbers).fetch_all(connection).await?;
    Ok(rows.into_iter().map(mark).collect())
}

/// Of the next profiles that were derived again, those that nobody is live; `after` goes on. `None` when there are no more.
pub async fn list_new(
    live: &mut PgConnection,
    rebuilt: &mut PgConnection,
    space: SpaceNo,
    after: &mut ProfileNo,
    limit: i64,
) -> Result<Option<Vec<ProfileNo>>> {
    let sql = "-- store::rebuild::list_new
         SELECT profile_no, profile_id FROM profile WHERE space_id = $1 AND profile_no > $2 ORDER BY profile_no LIMIT $3";
    let query = sqlx::query_as(sql).bind(space.0).bind(after.0 as i64).bind(limit);
    let rows: Vec<(i64, Uuid)> = query.fetch_all(rebuilt).await?;
    let Some((last, _)) = rows.last() else { return Ok(None) };
    *after = ProfileNo(*last as u64);
    let sql = "-- store::rebuild::list_new
         SELECT profile_id FROM profile WHERE space_id = $1 AND profile_id = ANY($2)";
    let ids: Vec<Uuid> = rows.iter().map(|(_, id)| *id).collect();
    let known: Vec<Uuid> = sqlx::query_scalar(sql).bind(space.0).bind(ids).fetch_all(live).await?;
    let known: HashSet<Uuid> = known.into_iter().collect();
    let new = rows.into_iter().filter(|(_, id)| !known.contains(id));
    Ok(Some(new.map(|(no, _)| ProfileNo(no as u64)).collect()))
}

/// States of live profiles.
pub async fn load(
    connection: &mut PgConnection,
    space: SpaceNo,
    numbers: &[ProfileNo],
) -> Result<BTreeMap<ProfileNo, Bytes>> {
    let sql = "-- store::rebuild::load
         SELECT profile_no, state FROM profile
         WHERE space_id = $1 AND profile_no = ANY($2) AND merged_into IS NULL";
    let numbers: Vec<i64> = numbers.iter().map(|no| no.0 as i64).collect();
    let rows: Vec<(i64, Vec<u8>)> =
        sqlx::query_as(sql).bind(space.0).bind(numbers).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(no, state)| (ProfileNo(no as u64), state.into())).collect())
}

/// How a processor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Standing {
    processed_offset: i64,
    last_profile_no: i64,
    /// Merges so far.
    pub merges: i64,
    /// Live users.
    pub users: i64,
    /// Live accounts.
    pub accounts: i64,
}

impl Standing {
    /// Everything up to here is done.
    pub const fn processed(&self) -> Offset {
        Offset(self.processed_offset as u64)
    }

    /// The newest profile.
    pub const fn last_profile(&self) -> ProfileNo {
        ProfileNo(self.last_profile_no as u64)
    }
}

/// How the processor stands that a connection sees.
pub async fn standing(connection: &mut PgConnection, space: SpaceNo) -> Result<Standing> {
    let sql = "-- store::rebuild::standing
         SELECT processed_offset, last_profile_no, merges, users, accounts FROM processor WHERE space_id = $1";
    Ok(sqlx::query_as(sql).bind(space.0).fetch_one(connection).await?)
}

/// Makes everything the connection's transaction reads one snapshot.
pub async fn one_snapshot(connection: &mut PgConnection) -> Result<()> {
    let sql = "-- store::rebuild::one_snapshot\nSET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
    sqlx::query(sql).execute(connection).await?;
    Ok(())
}
