//! The swap: what is live is replaced by what was derived again, in one transaction.
//!
//! It is preceded by taking the space's lease over ([`fence`]): the live processor can commit nothing from then on, and
//! nobody answers from memory any more once every look at the lease before that is too old to be relied upon.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, PgExecutor};
use uuid::Uuid;

use super::{Part, Place, TABLES, discard, is_current, renumber};
use crate::domain::{Offset, SpaceNo, Timestamp};
use crate::store::{Result, StoreError, deliveries};

/// Takes the space's lease over, whoever has it: whatever its processor has not committed yet is rolled back. Returns the
/// epoch, and where the processor stands.
pub async fn fence(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    owner: Uuid,
    length: Duration,
) -> Result<(i64, Offset)> {
    let (epoch, processed): (i64, i64) = sqlx::query_as(
        "-- store::rebuild::fence
         UPDATE processor SET owner = $2, epoch = epoch + 1, lease_until = clock_timestamp() + make_interval(secs => $3)
         WHERE space_id = $1
         RETURNING epoch, processed_offset",
    )
    .bind(space.0)
    .bind(owner)
    .bind(length.as_secs_f64())
    .fetch_one(executor)
    .await?;
    Ok((epoch, Offset(processed as u64)))
}

/// What a swap did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swapped {
    /// Rows that were replaced, taken away or added.
    pub rows: u64,
    /// Transitions it wrote.
    pub transitions: u64,
}

/// Holds still what is live, for as long as the transaction takes; false when definitions or settings are others than those
/// it was derived with.
pub async fn hold(tx: &mut PgConnection, place: &Place, epoch: i64) -> Result<bool> {
    let Place { space, live, shadow, .. } = place;
    // No segments are made meanwhile; those of before hold numbers of profiles.
    let sql = "-- store::rebuild::swap\nSELECT pg_advisory_xact_lock(hashtext('log_segment'), $1)";
    sqlx::query(sql).bind(space.0).execute(&mut *tx).await?;
    // Holds definitions and settings still, too.
    let sql = format!(
        "-- store::rebuild::swap
         SELECT l.epoch = $2 AND l.processed_offset = s.processed_offset
         FROM {live}.processor l JOIN {shadow}.processor s ON s.space_id = $1
         WHERE l.space_id = $1 FOR UPDATE OF l"
    );
    let ours: bool =
        sqlx::query_scalar(AssertSqlSafe(sql)).bind(space.0).bind(epoch).fetch_one(&mut *tx).await?;
    if !ours {
        return Err(StoreError::Fenced);
    }
    is_current(tx, place, true).await
}

/// Puts what was derived again in the place of what is live and held, and forgets the rebuild. When profiles were
/// `renumbered`, what is not derived again has their new numbers already.
pub async fn swap(tx: &mut PgConnection, place: &Place, renumbered: bool, at: Timestamp) -> Result<Swapped> {
    let Place { space, live, shadow, .. } = place;
    let sql = "-- store::rebuild::swap\nSELECT last_transition_no FROM processor WHERE space_id = $1";
    let last: i64 = sqlx::query_scalar(sql).bind(space.0).fetch_one(&mut *tx).await?;
    let mut swapped =
        Swapped { transitions: write_transitions(&mut *tx, place, renumbered, at).await?, rows: 0 };
    deliveries::enqueue_transitions(&mut *tx, *space, None, last).await?;
    for (table, part) in TABLES {
        if let Part::Replaced(keys) = part {
            swapped.rows += replace(&mut *tx, place, table, keys).await?;
        }
    }
    renumber::forget_signposts(&mut *tx, place).await?;
    write_sizes(&mut *tx, place, at).await?;
    for table in ["log_segment", "log_section", "log_column", "segment_gap"] {
        let sql = format!("-- store::rebuild::swap\nDELETE FROM {live}.{table} WHERE space_id = $1");
        sqlx::query(AssertSqlSafe(sql)).bind(space.0).execute(&mut *tx).await?;
    }
    // The next epoch: whoever held the lease before, and whoever has read anything, has to load anew.
    let sql = format!(
        "-- store::rebuild::swap
         UPDATE {live}.processor l SET owner = NULL, epoch = l.epoch + 1, lease_until = '-infinity',
             config_version = l.config_version + 1, last_profile_no = s.last_profile_no,
             last_leaf_no = greatest(l.last_leaf_no, s.last_leaf_no),
             last_transition_no = l.last_transition_no + $2, duplicates = s.duplicates,
             unidentified = s.unidentified, users = s.users, accounts = s.accounts, merges = s.merges
         FROM {shadow}.processor s WHERE l.space_id = $1 AND s.space_id = $1"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(space.0).bind(swapped.transitions as i64);
    query.execute(&mut *tx).await?;
    discard(tx, place).await?;
    Ok(swapped)
}

/// Replaces the rows of a table that are not the same in both: usually there are few.
async fn replace(tx: &mut PgConnection, place: &Place, table: &str, keys: &[&str]) -> Result<u64> {
    let Place { space, live, shadow, .. } = place;
    let same: Vec<String> = keys.iter().map(|key| format!("s.{key} = l.{key}")).collect();
    let same = same.join(" AND ");
    let sql = format!(
        "-- store::rebuild::replace
         DELETE FROM {live}.{table} l WHERE l.space_id = $1 AND NOT EXISTS (
             SELECT 1 FROM {shadow}.{table} s WHERE s.space_id = $1 AND {same} AND s IS NOT DISTINCT FROM l)"
    );
    let gone = sqlx::query(AssertSqlSafe(sql)).bind(space.0).execute(&mut *tx).await?.rows_affected();
    // What is generated from other columns is so here, too.
    let sql = "-- store::rebuild::replace
         SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
         WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''";
    let columns: String = sqlx::query_scalar(sql).bind(format!("{live}.{table}")).fetch_one(&mut *tx).await?;
    let sql = format!(
        "-- store::rebuild::replace
         INSERT INTO {live}.{table} ({columns}) SELECT {columns} FROM {shadow}.{table} s WHERE s.space_id = $1 AND NOT EXISTS (
             SELECT 1 FROM {live}.{table} l WHERE l.space_id = $1 AND {same})"
    );
    let new = sqlx::query(AssertSqlSafe(sql)).bind(space.0).execute(tx).await?.rows_affected();
    Ok(gone.max(new))
}

/// The net change of memberships: what has been told of who is in an audience by now, against who is. Where profiles are
/// put together as before, the members are what was told; where they are not, it is the newest transition of all numbers
/// that are one profile now, so that transitions go on alternating whoever was whose.
async fn write_transitions(
    tx: &mut PgConnection,
    place: &Place,
    renumbered: bool,
    at: Timestamp,
) -> Result<u64> {
    let Place { space, live, shadow, .. } = place;
    // With other numbers, members say nothing of who was told: all of them are looked up.
    let everybody = format!("SELECT profile_no FROM {shadow}.profile WHERE space_id = {space}");
    let others = format!(
        "SELECT DISTINCT g.profile_no FROM {live}.profile l
         FULL JOIN {shadow}.profile s ON s.space_id = l.space_id AND s.profile_no = l.profile_no
         CROSS JOIN LATERAL (VALUES (coalesce(l.merged_into, l.profile_no)), (coalesce(s.merged_into, s.profile_no)))
             AS g (profile_no)
         WHERE coalesce(l.space_id, s.space_id) = {space} AND g.profile_no IS NOT NULL
             AND (l.profile_no, l.merged_into) IS DISTINCT FROM (s.profile_no, s.merged_into)"
    );
    let regrouped = if renumbered { everybody } else { others };
    let sql = format!(
        "-- store::rebuild::write_transitions
         CREATE TEMP TABLE regrouped ON COMMIT DROP AS {regrouped}"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await?;
    let sql = "-- store::rebuild::write_transitions\nSELECT EXISTS (SELECT 1 FROM regrouped)";
    let told = if sqlx::query_scalar::<_, bool>(sql).fetch_one(&mut *tx).await? {
        format!(
            "SELECT definition_no, profile_no FROM (
                 SELECT DISTINCT ON (t.definition_no, n.live_no) t.definition_no, n.live_no AS profile_no, t.entered
                 FROM (SELECT p.profile_no, coalesce(p.merged_into, p.profile_no) AS live_no FROM {shadow}.profile p
                       WHERE p.space_id = $1
                           AND coalesce(p.merged_into, p.profile_no) IN (SELECT profile_no FROM regrouped)) n
                 JOIN {live}.transition t ON t.space_id = $1 AND t.profile_no = n.profile_no
                 ORDER BY t.definition_no, n.live_no, t.transition_no DESC
             ) newest WHERE entered"
        )
    } else {
        String::new()
    };
    let members = format!(
        "SELECT d.definition_no, m.profile_no
         FROM {live}.membership m
         JOIN {live}.definition d ON d.space_id = $1 AND d.serving_no = m.computation_no
         WHERE m.space_id = $1 AND NOT EXISTS (
             SELECT 1 FROM regrouped r JOIN {shadow}.profile p ON p.space_id = $1 AND p.profile_no = r.profile_no
             WHERE r.profile_no = m.profile_no)"
    );
    let told = match (told.is_empty(), renumbered) {
        (true, false) => members,
        (false, false) => format!("{told} UNION ALL {members}"),
        (_, true) => told,
    };
    let sql = format!(
        "-- store::rebuild::write_transitions
         WITH told AS ({told}), new AS (
             SELECT d.definition_no, m.profile_no
             FROM {shadow}.membership m
             JOIN {live}.definition d ON d.space_id = $1 AND d.serving_no = m.computation_no
             WHERE m.space_id = $1
         ), net AS (
             (SELECT *, true AS entered FROM new EXCEPT SELECT *, true FROM told)
             UNION ALL
             (SELECT *, false FROM told EXCEPT SELECT *, false FROM new)
         )
         INSERT INTO {live}.transition (space_id, definition_no, transition_no, profile_no, entered, at)
         SELECT $1, net.definition_no,
             l.last_transition_no + row_number() OVER (ORDER BY net.definition_no, net.profile_no),
             net.profile_no, net.entered, $2
         FROM net
         JOIN {live}.definition d ON d.space_id = $1 AND d.definition_no = net.definition_no AND NOT d.deleted
         JOIN {live}.processor l ON l.space_id = $1"
    );
    let done = sqlx::query(AssertSqlSafe(sql)).bind(space.0).bind(at.to_utc()).execute(tx).await?;
    Ok(done.rows_affected())
}

/// Sizes of the versions that answer, and what of them is new to their history.
async fn write_sizes(tx: &mut PgConnection, place: &Place, at: Timestamp) -> Result<()> {
    let Place { space, live, shadow, .. } = place;
    let sql = format!(
        "-- store::rebuild::write_sizes
         WITH resized AS (
             UPDATE {live}.computation l SET size = s.size, changed_at = greatest(l.changed_at, $2)
             FROM {shadow}.computation s
             WHERE l.space_id = $1 AND s.space_id = $1 AND s.computation_no = l.computation_no
                 AND l.status IN ('live', 'frozen') AND l.size <> s.size
             RETURNING l.computation_no, s.size
         )
         INSERT INTO {live}.size_change AS known (space_id, definition_no, minute, delta)
         SELECT $1, d.definition_no, date_trunc('minute', $2::timestamptz), r.size - (
             SELECT coalesce(sum(c.delta), 0) FROM {live}.size_change c
             WHERE c.space_id = $1 AND c.definition_no = d.definition_no)
         FROM resized r
         JOIN {live}.definition d ON d.space_id = $1 AND d.serving_no = r.computation_no AND d.kind = 0
         ON CONFLICT (space_id, definition_no, minute) DO UPDATE SET delta = known.delta + EXCLUDED.delta"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(space.0).bind(at.to_utc()).execute(tx).await?;
    Ok(())
}
