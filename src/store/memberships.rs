//! Members, sizes and transitions. They change together in the micro-batch's transaction and nowhere else.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{Result, Walled};
use crate::domain::{ComputationNo, ProfileNo, SpaceNo, Timestamp};

/// A change of one profile's membership.
#[derive(Debug, Clone, Copy)]
pub struct MembershipChange {
    /// Which version.
    pub computation: ComputationNo,
    /// Who.
    pub profile: ProfileNo,
    /// Whether it was in before.
    pub was_member: bool,
    /// In since then, or out.
    pub entered_at: Option<Timestamp>,
}

/// Applies membership changes, at most one for each version and profile.
pub async fn write_memberships(
    tx: &mut PgConnection,
    space: SpaceNo,
    changes: &[MembershipChange],
) -> Result<()> {
    let columns = |was_member: bool, is_member: bool| -> (Vec<(i32, i64)>, Vec<DateTime<Utc>>) {
        let wanted =
            |c: &&MembershipChange| c.was_member == was_member && c.entered_at.is_some() == is_member;
        let column = |c: &MembershipChange| {
            let entered_at = c.entered_at.unwrap_or_default().to_utc();
            ((c.computation.0 as i32, c.profile.0 as i64), entered_at)
        };
        changes.iter().filter(wanted).map(column).unzip()
    };
    let left = "-- store::memberships::write_memberships
         DELETE FROM membership m
         USING unnest($2::int[], $3::bigint[], $4::timestamptz[]) AS c (computation_no, profile_no, entered_at)
         WHERE m.space_id = $1 AND m.computation_no = c.computation_no AND m.profile_no = c.profile_no";
    let stayed = "-- store::memberships::write_memberships
         UPDATE membership m SET entered_at = c.entered_at
         FROM unnest($2::int[], $3::bigint[], $4::timestamptz[]) AS c (computation_no, profile_no, entered_at)
         WHERE m.space_id = $1 AND m.computation_no = c.computation_no AND m.profile_no = c.profile_no";
    // A plain insert: looking for conflicts that cannot be costs half as much again.
    let entered = "-- store::memberships::write_memberships
         INSERT INTO membership (space_id, computation_no, profile_no, entered_at)
         SELECT $1, * FROM unnest($2::int[], $3::bigint[], $4::timestamptz[])";
    for (sql, was_member, is_member) in [(left, true, false), (stayed, true, true), (entered, false, true)] {
        let (whose, times) = columns(was_member, is_member);
        if !whose.is_empty() {
            let (computations, profiles): (Vec<i32>, Vec<i64>) = whose.into_iter().unzip();
            let query = sqlx::query(sql).bind(space.0).bind(computations).bind(profiles).bind(times);
            query.execute(&mut *tx).await?;
        }
    }
    Ok(())
}

/// Adds to the sizes of versions: by how much, and when; of one version as many changes as there were minutes. Those that
/// answer for an audience are noted for its history, too.
pub async fn add_sizes(
    tx: &mut PgConnection,
    space: SpaceNo,
    changes: &[(ComputationNo, i64, Timestamp)],
) -> Result<()> {
    sqlx::query(
        "-- store::memberships::add_sizes
         WITH change AS (
             SELECT * FROM unnest($2::int[], $3::bigint[], $4::timestamptz[]) AS c (no, delta, at)
         ), total AS (
             SELECT no, sum(delta)::bigint AS delta, max(at) AS at FROM change GROUP BY no
         ), changed AS (
             UPDATE computation c SET size = c.size + t.delta, changed_at = greatest(c.changed_at, t.at)
             FROM total t
             WHERE c.space_id = $1 AND c.computation_no = t.no
         )
         INSERT INTO size_change AS known (space_id, definition_no, minute, delta)
         SELECT $1, d.definition_no, date_trunc('minute', c.at), sum(c.delta)
         FROM change c
         JOIN definition d ON d.space_id = $1 AND d.serving_no = c.no AND d.kind = 0
         GROUP BY 2, 3
         ON CONFLICT (space_id, definition_no, minute) DO UPDATE SET delta = known.delta + EXCLUDED.delta",
    )
    .bind(space.0)
    .bind(changes.iter().map(|(no, ..)| no.0 as i32).collect::<Vec<_>>())
    .bind(changes.iter().map(|(_, delta, _)| *delta).collect::<Vec<_>>())
    .bind(changes.iter().map(|(.., at)| at.to_utc()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// One entering or leaving.
#[derive(Debug, Clone, Copy)]
pub struct Transition {
    /// Which definition.
    pub definition: i32,
    /// Its number in the space.
    pub no: i64,
    /// Who.
    pub profile: ProfileNo,
    /// Entered or left.
    pub entered: bool,
    /// When.
    pub at: Timestamp,
}

/// Adds transitions.
pub async fn insert_transitions(tx: &mut PgConnection, space: SpaceNo, rows: &[Transition]) -> Result<()> {
    sqlx::query(
        "-- store::memberships::insert_transitions
         INSERT INTO transition (space_id, definition_no, transition_no, profile_no, entered, at)
         SELECT $1, * FROM unnest($2::int[], $3::bigint[], $4::bigint[], $5::bool[], $6::timestamptz[])",
    )
    .bind(space.0)
    .bind(rows.iter().map(|t| t.definition).collect::<Vec<_>>())
    .bind(rows.iter().map(|t| t.no).collect::<Vec<_>>())
    .bind(rows.iter().map(|t| t.profile.0 as i64).collect::<Vec<_>>())
    .bind(rows.iter().map(|t| t.entered).collect::<Vec<_>>())
    .bind(rows.iter().map(|t| t.at.to_utc()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// A member of an audience.
#[derive(Debug, Clone)]
pub struct Member {
    /// Live number.
    pub no: ProfileNo,
    /// Public id.
    pub id: Uuid,
    /// Since when.
    pub entered_at: Timestamp,
}

/// A page of members by profile number, behind `after`.
pub async fn list_members(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    computation: ComputationNo,
    after: ProfileNo,
    limit: i64,
) -> Result<Vec<Member>> {
    let rows: Vec<(i64, Uuid, DateTime<Utc>)> = sqlx::query_as(
        "-- store::memberships::list_members
         SELECT m.profile_no, p.profile_id, m.entered_at
         FROM (SELECT profile_no, entered_at FROM membership
               WHERE space_id = $1 AND computation_no = $2 AND profile_no > $3 ORDER BY profile_no LIMIT $4) m
         CROSS JOIN LATERAL
             (SELECT profile_id FROM profile WHERE space_id = $1 AND profile_no = m.profile_no) p
         ORDER BY m.profile_no",
    )
    .bind(space.0)
    .bind(computation.0 as i32)
    .bind(after.0 as i64)
    .bind(limit)
    .fetch_all(executor)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(no, id, at)| Member { no: ProfileNo(no as u64), id, entered_at: at.into() })
        .collect())
}

/// A page of an audience's transitions, newest first, behind number `before`, with the live profile's id.
pub async fn list_transitions(
    door: &Walled,
    space: SpaceNo,
    definition: i32,
    before: i64,
    limit: i64,
) -> Result<Vec<(Transition, Uuid)>> {
    let rows: Vec<(i64, i64, bool, DateTime<Utc>, Uuid)> = sqlx::query_as(
        "-- store::memberships::list_transitions
         SELECT t.transition_no, l.profile_no, t.entered, t.at, l.profile_id
         FROM (SELECT * FROM transition WHERE space_id = $1 AND definition_no = $2 AND transition_no < $3
               ORDER BY transition_no DESC LIMIT $4) t
         JOIN profile p ON p.space_id = $1 AND p.profile_no = t.profile_no
         JOIN profile l ON l.space_id = $1 AND l.profile_no = CASE WHEN p.merged_into IS NULL THEN p.profile_no ELSE p.merged_into END
         ORDER BY t.transition_no DESC",
    )
    .bind(space.0)
    .bind(definition)
    .bind(before)
    .bind(limit)
    .fetch_all(door)
    .await?;
    let row = |(no, profile, entered, at, id): (i64, i64, bool, DateTime<Utc>, Uuid)| {
        (Transition { definition, no, profile: ProfileNo(profile as u64), entered, at: at.into() }, id)
    };
    Ok(rows.into_iter().map(row).collect())
}
