//! The processor's row: lease, fencing epoch, log position and counters of a space.
//!
//! Every micro-batch moves the position in its own transaction `where epoch = … and processed_offset = …`. When no
//! row moves, another process has taken over (or the batch was applied already), and everything rolls back. Lease
//! times are the database's, the one clock all processes share.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{Result, StoreError};
use crate::domain::{Offset, ProfileNo, SpaceNo, Timestamp};

/// What a processor takes over with its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Raised at every takeover.
    pub epoch: i64,
    /// Everything up to here is done.
    pub processed: Offset,
    /// Newest profile number given.
    pub last_profile: ProfileNo,
    /// Newest transition number given.
    pub last_transition: i64,
}

/// What one micro-batch adds to the row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Position before.
    pub from: Offset,
    /// Position after; the same for timers and backfills.
    pub to: Offset,
    /// Newest profile number given.
    pub last_profile: ProfileNo,
    /// Newest transition number given.
    pub last_transition: i64,
    /// Events that turned out to be duplicates.
    pub duplicates: i64,
    /// Events without a usable identifier.
    pub unidentified: i64,
    /// Change in the number of live user profiles.
    pub users: i64,
    /// Change in the number of live account profiles.
    pub accounts: i64,
    /// Merges done.
    pub merges: i64,
}

/// Takes the lease when it is free or has run out; `None` while another process holds it. Nobody waits for whoever is writing
/// just now: that is not free.
pub async fn take_lease(
    pool: &PgPool,
    space: SpaceNo,
    owner: Uuid,
    length: Duration,
) -> Result<Option<Lease>> {
    let row: Option<(i64, i64, i64, i64)> = sqlx::query_as(
        "-- store::processor::take_lease
         UPDATE processor SET owner = $2, epoch = epoch + 1, lease_until = clock_timestamp() + make_interval(secs => $3)
         WHERE space_id = (
             SELECT space_id FROM processor WHERE space_id = $1 AND lease_until < clock_timestamp()
             FOR UPDATE SKIP LOCKED
         )
         RETURNING epoch, processed_offset, last_profile_no, last_transition_no",
    )
    .bind(space.0)
    .bind(owner)
    .bind(length.as_secs_f64())
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|(epoch, processed, profile, last_transition)| Lease {
        epoch,
        processed: Offset(processed as u64),
        last_profile: ProfileNo(profile as u64),
        last_transition,
    }))
}

/// Spaces whose leases this owner holds, nobody else has taken, and have run out. Whoever is writing just now is at work, however
/// long that takes: a silent one does not write for long, see [`connect_for_processing`](super::connect_for_processing).
pub async fn list_overdue(pool: &PgPool, owner: Uuid) -> Result<Vec<SpaceNo>> {
    let sql = "-- store::processor::list_overdue
         SELECT space_id FROM processor WHERE owner = $1 AND lease_until < clock_timestamp() AND lease_until > '-infinity'
         FOR UPDATE SKIP LOCKED";
    let spaces: Vec<i32> = sqlx::query_scalar(sql).bind(owner).fetch_all(pool).await?;
    Ok(spaces.into_iter().map(SpaceNo).collect())
}

/// A session may wait for its process for so many seconds while what it has locked keeps others from a lease that has run out.
const SILENT_S: f64 = 15.0;

/// Ends sessions that keep others from leases which ran out long ago, and wait for their processes all the time: those are
/// frozen, or cannot be reached. Most end by themselves; but no time limit of Postgres counts while half of what it was to be told
/// has come, or while nobody takes its answer. Whose session it is finds that out by its next statement. Returns how many.
pub async fn end_silent(executor: impl PgExecutor<'_>) -> Result<i64> {
    let sql = "-- store::processor::end_silent
         WITH long_ago AS (SELECT clock_timestamp() - make_interval(secs => $1) AS at), holder AS (
             SELECT a.pid FROM (
                 SELECT xmax, lease_until FROM processor UNION ALL SELECT xmax, lease_until FROM destination_worker
             ) AS l, long_ago, pg_stat_activity a
             WHERE l.lease_until < long_ago.at AND a.backend_xid = l.xmax
         ), suspect AS (
             SELECT pid FROM holder UNION SELECT unnest(pg_blocking_pids(pid)) FROM holder
         )
         SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid))
         FROM long_ago, suspect JOIN pg_stat_activity a USING (pid)
         WHERE a.wait_event_type = 'Client' AND a.state_change < long_ago.at";
    Ok(sqlx::query_scalar(sql).bind(SILENT_S).fetch_one(executor).await?)
}

/// Holds on to the lease while there is nothing to do.
pub async fn extend_lease(pool: &PgPool, space: SpaceNo, epoch: i64, length: Duration) -> Result<()> {
    let done = sqlx::query(
        "-- store::processor::extend_lease
         UPDATE processor SET lease_until = clock_timestamp() + make_interval(secs => $3)
         WHERE space_id = $1 AND epoch = $2",
    )
    .bind(space.0)
    .bind(epoch)
    .bind(length.as_secs_f64())
    .execute(pool)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Fenced) }
}

/// The time by the database's clock.
pub async fn database_time(executor: impl PgExecutor<'_>) -> Result<Timestamp> {
    let sql = "-- store::processor::database_time\nSELECT clock_timestamp()";
    Ok(sqlx::query_scalar::<_, DateTime<Utc>>(sql).fetch_one(executor).await?.into())
}

/// What is read in this transaction is of one instant.
pub async fn freeze(tx: &mut PgConnection) -> Result<()> {
    sqlx::query("-- store::processor::freeze\nSET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        .execute(tx)
        .await?;
    Ok(())
}

/// Gives the lease back, so that another process can go on at once.
pub async fn release_lease(pool: &PgPool, space: SpaceNo, epoch: i64) -> Result<()> {
    let sql = "-- store::processor::release_lease
         UPDATE processor SET lease_until = '-infinity' WHERE space_id = $1 AND epoch = $2";
    sqlx::query(sql).bind(space.0).bind(epoch).execute(pool).await?;
    Ok(())
}

/// Ends the lease of a space if this process has it: somebody else, or itself, can take it at once.
pub async fn end_lease(pool: &PgPool, space: SpaceNo, owner: Uuid) -> Result<()> {
    let sql = "-- store::processor::end_lease
         UPDATE processor SET lease_until = '-infinity', epoch = epoch + 1 WHERE space_id = $1 AND owner = $2";
    sqlx::query(sql).bind(space.0).bind(owner).execute(pool).await?;
    Ok(())
}

/// Ends all leases: only for a server that knows it is alone, because it holds the private Postgres's folder.
pub async fn end_all_leases(pool: &PgPool) -> Result<()> {
    let sql = "-- store::processor::end_all_leases\nUPDATE processor SET lease_until = '-infinity'";
    sqlx::query(sql).execute(pool).await?;
    Ok(())
}

/// Moves the row as part of a micro-batch; `Fenced` when it is not ours, or not where we left it. Returns the
/// version of the space's configuration, so that a change is noticed at the next batch.
pub async fn advance(
    tx: &mut PgConnection,
    space: SpaceNo,
    epoch: i64,
    progress: &Progress,
    lease: Duration,
) -> Result<i64> {
    let version: Option<i64> = sqlx::query_scalar(
        "-- store::processor::advance
         UPDATE processor SET processed_offset = $4, lease_until = clock_timestamp() + make_interval(secs => $5),
             last_profile_no = $6, last_transition_no = $7, duplicates = duplicates + $8,
             unidentified = unidentified + $9, users = users + $10, accounts = accounts + $11, merges = merges + $12
         WHERE space_id = $1 AND epoch = $2 AND processed_offset = $3
         RETURNING config_version",
    )
    .bind(space.0)
    .bind(epoch)
    .bind(progress.from.0 as i64)
    .bind(progress.to.0 as i64)
    .bind(lease.as_secs_f64())
    .bind(progress.last_profile.0 as i64)
    .bind(progress.last_transition)
    .bind(progress.duplicates)
    .bind(progress.unidentified)
    .bind(progress.users)
    .bind(progress.accounts)
    .bind(progress.merges)
    .fetch_optional(tx)
    .await?;
    version.ok_or(StoreError::Fenced)
}

/// The epoch of the space's lease, when somebody holds it.
pub async fn find_holder(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Option<i64>> {
    let sql = "-- store::processor::find_holder
         SELECT epoch FROM processor WHERE space_id = $1 AND lease_until > clock_timestamp()";
    Ok(sqlx::query_scalar(sql).bind(space.0).fetch_optional(executor).await?)
}

/// The version of a space's definitions and identity settings.
pub async fn config_version(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<i64> {
    let sql = "-- store::processor::config_version\nSELECT config_version FROM processor WHERE space_id = $1";
    Ok(sqlx::query_scalar(sql).bind(space.0).fetch_one(executor).await?)
}

/// Tells the space's processor to reload definitions and identity settings. Part of the change's transaction.
pub async fn bump_config(tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
    let sql = "-- store::processor::bump_config
         UPDATE processor SET config_version = config_version + 1 WHERE space_id = $1";
    sqlx::query(sql).bind(space.0).execute(tx).await?;
    Ok(())
}

/// Where a space's processor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// End of the log.
    pub log_end: Offset,
    /// Everything up to here is done.
    pub processed: Offset,
    /// Events dropped as duplicates so far.
    pub duplicates: i64,
    /// Events without a usable identifier so far.
    pub unidentified: i64,
    /// Live user profiles.
    pub users: i64,
    /// Live account profiles.
    pub accounts: i64,
    /// Merges so far.
    pub merges: i64,
}

/// Log end, position and counters, from one snapshot.
pub async fn status(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Option<Status>> {
    let row: Option<(i64, i64, i64, i64, i64, i64, i64)> = sqlx::query_as(
        "-- store::processor::status
         SELECT h.end_offset, p.processed_offset, p.duplicates, p.unidentified, p.users, p.accounts, p.merges
         FROM log_head h JOIN processor p ON p.space_id = h.space_id WHERE h.space_id = $1",
    )
    .bind(space.0)
    .fetch_optional(executor)
    .await?;
    Ok(row.map(|(end, processed, duplicates, unidentified, users, accounts, merges)| Status {
        log_end: Offset(end as u64),
        processed: Offset(processed as u64),
        duplicates,
        unidentified,
        users,
        accounts,
        merges,
    }))
}

/// What waits in all spaces together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Events that are not processed yet.
    pub events: i64,
    /// When the oldest of them was received.
    pub oldest: Option<Timestamp>,
    /// Live profiles, users and accounts.
    pub profiles: i64,
}

/// What waits in all spaces, from one snapshot.
pub async fn backlog(executor: impl PgExecutor<'_>) -> Result<Backlog> {
    let (events, profiles, oldest): (i64, i64, Option<DateTime<Utc>>) = sqlx::query_as(
        "-- store::processor::backlog
         SELECT coalesce(sum(h.end_offset - p.processed_offset), 0)::bigint,
             coalesce(sum(p.users + p.accounts), 0)::bigint, min(o.received_at)
         FROM log_head h
         JOIN processor p ON p.space_id = h.space_id
         LEFT JOIN LATERAL (
             SELECT c.received_at FROM event_chunk c
             WHERE c.space_id = h.space_id AND c.end_offset > p.processed_offset
             ORDER BY c.end_offset LIMIT 1
         ) o ON h.end_offset > p.processed_offset",
    )
    .fetch_one(executor)
    .await?;
    Ok(Backlog { events, oldest: oldest.map(Timestamp::from), profiles })
}

/// What joins lists of keys to tables that may not have been analysed yet has one good way: for each key of the list,
/// one look into the index. So it is planned once, and every other way is closed, whatever the statistics say.
const PLANS: [&str; 5] = [
    "-- store::processor::prepare_session\nSET plan_cache_mode = force_generic_plan",
    "-- store::processor::prepare_session\nSET enable_seqscan = off",
    "-- store::processor::prepare_session\nSET enable_bitmapscan = off",
    "-- store::processor::prepare_session\nSET enable_hashjoin = off",
    "-- store::processor::prepare_session\nSET enable_mergejoin = off",
];

/// Rows from which on statistics say what a table is like.
pub const TELLING_ROWS: u64 = 1_000;

/// Whether Postgres still takes the profiles and identifiers of all spaces together for a handful: while it does, going
/// through all of them for each key of a list looks as cheap as the index does.
pub async fn is_unknown_to_planner(executor: impl PgExecutor<'_>) -> Result<bool> {
    let sql = "-- store::processor::is_unknown_to_planner
         SELECT min(reltuples) < $1 FROM pg_class WHERE oid IN ('profile'::regclass, 'external_id'::regclass)";
    Ok(sqlx::query_scalar(sql).bind(TELLING_ROWS as f32).fetch_one(executor).await?)
}

/// Tells Postgres how large the tables are that grow with the profiles. Otherwise it would notice about a minute later, and
/// a first import would meet plans made for empty tables: every plan is made anew after this.
pub async fn analyse(executor: impl PgExecutor<'_>) -> Result<()> {
    let sql = "-- store::processor::analyse
         ANALYZE profile, external_id, membership, profile_due, account_link, profile_event_page, search_entry";
    sqlx::query(sql).execute(executor).await?;
    Ok(())
}

/// Prepares the session a processor writes with.
pub async fn prepare_session(connection: &mut PgConnection) -> Result<()> {
    prepare_lookups(connection).await
}

/// Prepares a session that looks lists of keys up and does nothing else.
pub async fn prepare_lookups(connection: &mut PgConnection) -> Result<()> {
    for sql in PLANS {
        sqlx::query(sql).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The earliest due instant at or before `now`, with its profiles.
pub async fn find_due(
    connection: &mut PgConnection,
    space: SpaceNo,
    now_ms: i64,
    limit: i64,
) -> Result<Vec<(ProfileNo, i64)>> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "-- store::processor::find_due
         SELECT profile_no, due_at FROM profile_due WHERE space_id = $1 AND due_at <= $2
         ORDER BY due_at, profile_no LIMIT $3",
    )
    .bind(space.0)
    .bind(now_ms)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(no, at)| (ProfileNo(no as u64), at)).collect())
}

/// When the next profile is due, if any is.
pub async fn next_due(connection: &mut PgConnection, space: SpaceNo) -> Result<Option<i64>> {
    let sql = "-- store::processor::next_due
         SELECT due_at FROM profile_due WHERE space_id = $1 ORDER BY due_at LIMIT 1";
    Ok(sqlx::query_scalar(sql).bind(space.0).fetch_optional(connection).await?)
}

/// Sets the due times of profiles; `None` removes.
pub async fn set_due(tx: &mut PgConnection, space: SpaceNo, due: &[(ProfileNo, Option<i64>)]) -> Result<()> {
    let gone: Vec<i64> = due.iter().filter(|(_, at)| at.is_none()).map(|(no, _)| no.0 as i64).collect();
    if !gone.is_empty() {
        let sql = "-- store::processor::set_due
             DELETE FROM profile_due WHERE space_id = $1 AND profile_no = ANY($2)";
        sqlx::query(sql).bind(space.0).bind(&gone).execute(&mut *tx).await?;
    }
    let (numbers, times): (Vec<i64>, Vec<i64>) =
        due.iter().filter_map(|(no, at)| Some((no.0 as i64, (*at)?))).unzip();
    if !numbers.is_empty() {
        let sql = "-- store::processor::set_due
             INSERT INTO profile_due (space_id, profile_no, due_at)
             SELECT $1, * FROM unnest($2::bigint[], $3::bigint[])
             ON CONFLICT (space_id, profile_no) DO UPDATE SET due_at = excluded.due_at";
        sqlx::query(sql).bind(space.0).bind(&numbers).bind(&times).execute(tx).await?;
    }
    Ok(())
}
