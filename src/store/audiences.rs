//! Questions about whole audiences: members with all there is of them, overlaps, identifiers, sizes over time.
//!
//! Each question is one statement, so its numbers belong to one instant.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use sqlx::{PgConnection, Postgres, Transaction};

use super::{Result, Walled};
use crate::domain::{ComputationNo, ProfileNo, SpaceNo, Timestamp};

/// Begins a look at one instant, however many statements it takes: what is written meanwhile is not seen.
pub async fn begin_snapshot(door: &Walled) -> Result<Transaction<'static, Postgres>> {
    let mut tx = door.begin().await?;
    let sql = "-- store::audiences::begin_snapshot
         SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";
    sqlx::query(sql).execute(&mut *tx).await?;
    // Who is sent what it reads may be slow; it locks nothing that anybody waits for.
    let sql = "-- store::audiences::begin_snapshot\nSET LOCAL idle_in_transaction_session_timeout = '15min'";
    sqlx::query(sql).execute(&mut *tx).await?;
    Ok(tx)
}

/// The version that answers for a definition.
pub async fn find_serving(
    connection: &mut PgConnection,
    space: SpaceNo,
    definition: i32,
) -> Result<Option<ComputationNo>> {
    let sql = "-- store::audiences::find_serving
         SELECT serving_no FROM definition WHERE space_id = $1 AND definition_no = $2";
    let no: Option<Option<i32>> =
        sqlx::query_scalar(sql).bind(space.0).bind(definition).fetch_optional(connection).await?;
    Ok(no.flatten().map(|no| ComputationNo(no as u32)))
}

/// A member with all there is of it.
#[derive(Debug, Clone)]
pub struct MemberState {
    /// Live number.
    pub no: ProfileNo,
    /// Since when.
    pub entered_at: Timestamp,
    /// The encoded profile.
    pub state: Bytes,
}

/// A page of members by profile number, behind `after`.
pub async fn list_member_states(
    connection: &mut PgConnection,
    space: SpaceNo,
    computation: ComputationNo,
    after: ProfileNo,
    limit: i64,
) -> Result<Vec<MemberState>> {
    let rows: Vec<(i64, DateTime<Utc>, Vec<u8>)> = sqlx::query_as(
        "-- store::audiences::list_member_states
         SELECT m.profile_no, m.entered_at, p.state
         FROM (SELECT profile_no, entered_at FROM membership
               WHERE space_id = $1 AND computation_no = $2 AND profile_no > $3 ORDER BY profile_no LIMIT $4) m
         CROSS JOIN LATERAL (SELECT state FROM profile WHERE space_id = $1 AND profile_no = m.profile_no) p
         ORDER BY m.profile_no",
    )
    .bind(space.0)
    .bind(computation.0 as i32)
    .bind(after.0 as i64)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let member = |(no, at, state): (i64, DateTime<Utc>, Vec<u8>)| MemberState {
        no: ProfileNo(no as u64),
        entered_at: at.into(),
        state: state.into(),
    };
    Ok(rows.into_iter().map(member).collect())
}

/// How many members two definitions have, and how many both have.
pub async fn count_overlap(door: &Walled, space: SpaceNo, one: i32, other: i32) -> Result<[i64; 3]> {
    let (one, other, both) = sqlx::query_as(
        "-- store::audiences::count_overlap
         WITH of AS (
             SELECT d.definition_no, m.profile_no
             FROM definition d
             JOIN membership m ON m.space_id = $1 AND m.computation_no = d.serving_no
             WHERE d.space_id = $1 AND d.definition_no IN ($2, $3)
         )
         SELECT count(*) FILTER (WHERE definition_no = $2), count(*) FILTER (WHERE definition_no = $3),
             count(*) FILTER (WHERE definition_no = $2 AND profile_no IN
                 (SELECT profile_no FROM of WHERE definition_no = $3))
         FROM of",
    )
    .bind(space.0)
    .bind(one)
    .bind(other)
    .fetch_one(door)
    .await?;
    Ok([one, other, both])
}

/// How many members a definition has, and how many of them have an identifier of each type.
pub async fn count_identifiers(
    door: &Walled,
    space: SpaceNo,
    definition: i32,
) -> Result<(i64, Vec<(i16, i64)>)> {
    let rows: Vec<(Option<i16>, i64)> = sqlx::query_as(
        "-- store::audiences::count_identifiers
         WITH member AS MATERIALIZED (
             SELECT m.profile_no
             FROM definition d
             JOIN membership m ON m.space_id = $1 AND m.computation_no = d.serving_no
             WHERE d.space_id = $1 AND d.definition_no = $2
         )
         SELECT NULL::smallint, count(*) FROM member
         UNION ALL
         SELECT e.type_no, count(DISTINCT m.profile_no)
         FROM external_id e
         JOIN profile p ON p.space_id = $1 AND p.profile_no = e.profile_no
         JOIN member m ON m.profile_no = CASE WHEN p.merged_into IS NULL THEN p.profile_no ELSE p.merged_into END
         WHERE e.space_id = $1
         GROUP BY e.type_no",
    )
    .bind(space.0)
    .bind(definition)
    .fetch_all(door)
    .await?;
    let size = rows.iter().find(|(type_no, _)| type_no.is_none()).map_or(0, |(_, count)| *count);
    Ok((size, rows.into_iter().filter_map(|(type_no, count)| Some((type_no?, count))).collect()))
}

/// A size, and the minute in which it became that.
pub type SizePoint = (Timestamp, i64);

/// The changes of a size from the last one before `from` until `to`, oldest first, at most `limit`.
pub async fn list_size_points(
    door: &Walled,
    space: SpaceNo,
    definition: i32,
    (from, to): (Timestamp, Timestamp),
    limit: i64,
) -> Result<Vec<SizePoint>> {
    let rows: Vec<(DateTime<Utc>, i64)> = sqlx::query_as(
        "-- store::audiences::list_size_points
         SELECT minute, size FROM (
             SELECT minute, sum(delta) OVER (ORDER BY minute)::bigint AS size FROM size_change
             WHERE space_id = $1 AND definition_no = $2 AND minute <= $4
         ) point
         WHERE minute >= coalesce((
             SELECT max(minute) FROM size_change WHERE space_id = $1 AND definition_no = $2 AND minute <= $3), $3)
         ORDER BY minute LIMIT $5",
    )
    .bind(space.0)
    .bind(definition)
    .bind(from.to_utc())
    .bind(to.to_utc())
    .bind(limit)
    .fetch_all(door)
    .await?;
    Ok(rows.into_iter().map(|(at, size)| (at.into(), size)).collect())
}

/// Puts the changes of each hour before that together, at the last of its minutes.
pub async fn thin_size_changes(pool: &PgPool, before: Timestamp) -> Result<u64> {
    let done = sqlx::query(
        "-- store::audiences::thin_size_changes
         WITH hour AS (
             SELECT space_id, definition_no, date_trunc('hour', minute, 'UTC') AS start, max(minute) AS last,
                 sum(delta)::bigint AS delta
             FROM size_change
             WHERE minute < date_trunc('hour', $1::timestamptz, 'UTC')
             GROUP BY 1, 2, 3 HAVING count(*) > 1
         ), gone AS (
             DELETE FROM size_change c USING hour h
             WHERE c.space_id = h.space_id AND c.definition_no = h.definition_no
                 AND c.minute >= h.start AND c.minute < h.last
         )
         UPDATE size_change c SET delta = h.delta FROM hour h
         WHERE c.space_id = h.space_id AND c.definition_no = h.definition_no AND c.minute = h.last",
    )
    .bind(before.to_utc())
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}
