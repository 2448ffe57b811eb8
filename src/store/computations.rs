//! What the processor does with versions of definitions: positions, leaves, walks, swaps.

use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};

use super::definitions::{Kind, Options};
use super::{Result, deliveries};
use crate::domain::gate::Gates;
use crate::domain::retention::Retention;
use crate::domain::{Collection, ComputationNo, LeafNo, Offset, ProfileNo, SpaceNo, Timestamp};

/// A version as the processor loads it.
#[derive(Debug, Clone)]
pub struct Computation {
    /// Its number.
    pub no: ComputationNo,
    /// Its definition.
    pub definition: i32,
    /// Audience or computed trait.
    pub kind: Kind,
    /// Whose profiles it is about.
    pub collection: Collection,
    /// Name on the profile.
    pub key: String,
    /// Query text, with what is asked besides.
    pub query: String,
    /// Options.
    pub options: Options,
    /// `pending`, `backfilling` or `live`.
    pub status: String,
    /// Log position it was made at; `None` while pending.
    pub from: Option<Offset>,
    /// Profiles up to here have been walked.
    pub walked: ProfileNo,
    /// A walk over all profiles is going on.
    pub walking: bool,
}

/// All versions that need the processor: of enabled definitions, pending, backfilling or serving.
pub async fn list_active(connection: &mut PgConnection, space: SpaceNo) -> Result<Vec<Computation>> {
    #[derive(sqlx::FromRow)]
    struct Row {
        computation_no: i32,
        definition_no: i32,
        kind: i16,
        collection: i16,
        key: String,
        query: String,
        include_anonymous: bool,
        include_history: bool,
        consent_category: Option<String>,
        enforces_consent: bool,
        requires_human_review: bool,
        retention: Json<Retention>,
        status: String,
        from_offset: Option<i64>,
        walked_no: i64,
        walking: bool,
    }
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::computations::list_active
         SELECT c.computation_no, c.definition_no, d.kind, d.collection, d.key, c.query, c.include_anonymous,
             c.include_history, c.consent_category, c.enforces_consent, c.requires_human_review, c.retention, c.status, c.from_offset, c.walked_no, c.walking
         FROM computation c
         JOIN definition d ON d.space_id = $1 AND d.definition_no = c.definition_no
         WHERE c.space_id = $1 AND d.enabled AND NOT d.deleted AND c.status IN ('pending', 'backfilling', 'live')
         ORDER BY c.computation_no",
    )
    .bind(space.0)
    .fetch_all(connection)
    .await?;
    let computation = |row: Row| {
        let gates = Gates {
            consent_category: row.consent_category,
            enforces_consent: row.enforces_consent,
            requires_human_review: row.requires_human_review,
        };
        Computation {
            no: ComputationNo(row.computation_no as u32),
            definition: row.definition_no,
            kind: if row.kind == 1 { Kind::ComputedTrait } else { Kind::Audience },
            collection: Collection::from_number(row.collection),
            key: row.key,
            query: gates.apply(&row.query),
            options: Options {
                include_anonymous: row.include_anonymous,
                include_history: row.include_history,
                gates,
                retention: row.retention.0,
            },
            status: row.status,
            from: row.from_offset.map(|o| Offset(o as u64)),
            walked: ProfileNo(row.walked_no as u64),
            walking: row.walking,
        }
    };
    Ok(rows.into_iter().map(computation).collect())
}

/// Versions that answer for definitions that are (or were just) switched off, by key: their members stay as they
/// were until a new version takes over.
pub async fn list_frozen(
    connection: &mut PgConnection,
    space: SpaceNo,
) -> Result<Vec<(ComputationNo, String)>> {
    let sql = "-- store::computations::list_frozen
         SELECT d.serving_no, d.key FROM definition d
         JOIN computation c ON c.space_id = $1 AND c.computation_no = d.serving_no
         WHERE d.space_id = $1 AND NOT d.deleted AND c.status = 'frozen'";
    let rows: Vec<(i32, String)> = sqlx::query_as(sql).bind(space.0).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(no, key)| (ComputationNo(no as u32), key)).collect())
}

/// Removes what versions left that were replaced before they ever served.
pub async fn clear_abandoned(tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
    let sql = "-- store::computations::clear_abandoned
         UPDATE computation SET walking = false WHERE space_id = $1 AND status = 'superseded' AND walking
         RETURNING computation_no";
    let numbers: Vec<i32> = sqlx::query_scalar(sql).bind(space.0).fetch_all(&mut *tx).await?;
    if !numbers.is_empty() {
        let sql = "-- store::computations::clear_abandoned
             DELETE FROM membership WHERE space_id = $1 AND computation_no = ANY($2)";
        sqlx::query(sql).bind(space.0).bind(&numbers).execute(tx).await?;
    }
    Ok(())
}

/// A leaf as stored.
#[derive(Debug, Clone)]
pub struct LeafRow {
    /// Its number.
    pub no: LeafNo,
    /// Canonical text: equal leaves have equal text.
    pub canonical: String,
    /// Events after this fold live; history up to it is the backfill's.
    pub from: Offset,
    /// History is folded in.
    pub ready: bool,
}

/// All leaves of a space.
pub async fn list_leaves(connection: &mut PgConnection, space: SpaceNo) -> Result<Vec<LeafRow>> {
    let rows: Vec<(i32, String, i64, bool)> = sqlx::query_as(
        "-- store::computations::list_leaves
         SELECT leaf_no, canonical, from_offset, ready FROM leaf WHERE space_id = $1 ORDER BY leaf_no",
    )
    .bind(space.0)
    .fetch_all(connection)
    .await?;
    let leaf = |(no, canonical, from, ready): (i32, String, i64, bool)| LeafRow {
        no: LeafNo(no as u32),
        canonical,
        from: Offset(from as u64),
        ready,
    };
    Ok(rows.into_iter().map(leaf).collect())
}

/// Gives new leaves their numbers. A number is never given twice, so that what an old leaf left in a profile is never
/// taken for a new one's.
pub async fn insert_leaves(
    tx: &mut PgConnection,
    space: SpaceNo,
    leaves: &[(String, bool)],
    from: Offset,
) -> Result<Vec<LeafNo>> {
    let sql = "-- store::computations::insert_leaves
         UPDATE processor SET last_leaf_no = last_leaf_no + $2 WHERE space_id = $1 RETURNING last_leaf_no";
    let last: i32 =
        sqlx::query_scalar(sql).bind(space.0).bind(leaves.len() as i32).fetch_one(&mut *tx).await?;
    let numbers: Vec<i32> = (last - leaves.len() as i32 + 1..=last).collect();
    sqlx::query(
        "-- store::computations::insert_leaves
         INSERT INTO leaf (space_id, leaf_no, canonical, from_offset, ready)
         SELECT $1, no, canonical, $4, ready FROM unnest($2::int[], $3::text[], $5::bool[]) AS l (no, canonical, ready)",
    )
    .bind(space.0)
    .bind(&numbers)
    .bind(leaves.iter().map(|(canonical, _)| canonical.as_str()).collect::<Vec<_>>())
    .bind(from.0 as i64)
    .bind(leaves.iter().map(|(_, ready)| *ready).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(numbers.into_iter().map(|no| LeafNo(no as u32)).collect())
}

/// Forgets leaves nobody needs any more.
pub async fn delete_leaves(tx: &mut PgConnection, space: SpaceNo, leaves: &[LeafNo]) -> Result<()> {
    let sql =
        "-- store::computations::delete_leaves\nDELETE FROM leaf WHERE space_id = $1 AND leaf_no = ANY($2)";
    let numbers: Vec<i32> = leaves.iter().map(|l| l.0 as i32).collect();
    sqlx::query(sql).bind(space.0).bind(&numbers).execute(tx).await?;
    Ok(())
}

/// Forgets leaves whose history was never folded in whole.
pub async fn delete_unready_leaves(tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
    let sql =
        "-- store::computations::delete_unready_leaves\nDELETE FROM leaf WHERE space_id = $1 AND NOT ready";
    sqlx::query(sql).bind(space.0).execute(tx).await?;
    Ok(())
}

/// Begins the walks of new versions over history anew: what they have folded so far is not to be relied on.
pub async fn restart_walks(tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
    let sql = "-- store::computations::restart_walks
         UPDATE computation SET status = 'pending', from_offset = NULL, walking = false, walked_no = 0
         WHERE space_id = $1 AND walking AND status = 'backfilling' AND include_history";
    sqlx::query(sql).bind(space.0).execute(tx).await?;
    Ok(())
}

/// Marks leaves whose history is folded in.
pub async fn set_leaves_ready(tx: &mut PgConnection, space: SpaceNo, leaves: &[LeafNo]) -> Result<()> {
    let sql = "-- store::computations::set_leaves_ready
         UPDATE leaf SET ready = true WHERE space_id = $1 AND leaf_no = ANY($2)";
    let numbers: Vec<i32> = leaves.iter().map(|l| l.0 as i32).collect();
    sqlx::query(sql).bind(space.0).bind(&numbers).execute(tx).await?;
    Ok(())
}

/// Starts versions: fixes their log position and begins their walk.
pub async fn start(
    tx: &mut PgConnection,
    space: SpaceNo,
    numbers: &[ComputationNo],
    from: Offset,
) -> Result<()> {
    let sql = "-- store::computations::start
         UPDATE computation SET status = 'backfilling', from_offset = $3, walked_no = 0, walking = true
         WHERE space_id = $1 AND computation_no = ANY($2) AND status = 'pending'";
    sqlx::query(sql).bind(space.0).bind(as_ints(numbers)).bind(from.0 as i64).execute(tx).await?;
    Ok(())
}

/// Begins a walk of versions that serve already, because something they refer to has changed.
pub async fn walk_again(tx: &mut PgConnection, space: SpaceNo, numbers: &[ComputationNo]) -> Result<()> {
    let sql = "-- store::computations::walk_again
         UPDATE computation SET walked_no = 0, walking = true WHERE space_id = $1 AND computation_no = ANY($2)";
    sqlx::query(sql).bind(space.0).bind(as_ints(numbers)).execute(tx).await?;
    Ok(())
}

/// Moves a walk forward.
pub async fn set_walked(
    tx: &mut PgConnection,
    space: SpaceNo,
    numbers: &[ComputationNo],
    walked: ProfileNo,
) -> Result<()> {
    let sql = "-- store::computations::set_walked
         UPDATE computation SET walked_no = $3 WHERE space_id = $1 AND computation_no = ANY($2)";
    sqlx::query(sql).bind(space.0).bind(as_ints(numbers)).bind(walked.0 as i64).execute(tx).await?;
    Ok(())
}

/// Ends a walk of versions that served already.
pub async fn end_walk(tx: &mut PgConnection, space: SpaceNo, numbers: &[ComputationNo]) -> Result<()> {
    let sql = "-- store::computations::end_walk
         UPDATE computation SET walking = false WHERE space_id = $1 AND computation_no = ANY($2)";
    sqlx::query(sql).bind(space.0).bind(as_ints(numbers)).execute(tx).await?;
    Ok(())
}

/// Says that a version cannot be computed (any more), and why; one that answers goes on answering as it stands.
pub async fn fail(tx: &mut PgConnection, space: SpaceNo, no: ComputationNo, why: &str) -> Result<()> {
    let sql = "-- store::computations::fail
         UPDATE computation SET status = CASE status WHEN 'live' THEN 'frozen' ELSE 'failed' END, failure = $3,
             walking = false
         WHERE space_id = $1 AND computation_no = $2";
    sqlx::query(sql).bind(space.0).bind(no.0 as i32).bind(why).execute(tx).await?;
    Ok(())
}

fn as_ints(numbers: &[ComputationNo]) -> Vec<i32> {
    numbers.iter().map(|n| n.0 as i32).collect()
}

/// Makes a complete version the one that answers. Its net transitions against the version before are written here,
/// in one statement, and the old version's members go. Returns how many transitions there were.
pub async fn swap(
    tx: &mut PgConnection,
    space: SpaceNo,
    computation: ComputationNo,
    last_transition: i64,
    at: Timestamp,
) -> Result<i64> {
    let sql = "-- store::computations::swap
         SELECT d.definition_no, d.serving_no FROM computation c
         JOIN definition d ON d.space_id = $1 AND d.definition_no = c.definition_no
         WHERE c.space_id = $1 AND c.computation_no = $2";
    let (definition, old): (i32, Option<i32>) =
        sqlx::query_as(sql).bind(space.0).bind(computation.0 as i32).fetch_one(&mut *tx).await?;
    let done = sqlx::query(
        "-- store::computations::swap
         INSERT INTO transition (space_id, definition_no, transition_no, profile_no, entered, at)
         SELECT $1, $2, $3 + row_number() OVER (ORDER BY profile_no), profile_no, entered, $6 FROM (
             (SELECT profile_no, true AS entered FROM membership WHERE space_id = $1 AND computation_no = $4
              EXCEPT SELECT profile_no, true FROM membership WHERE space_id = $1 AND computation_no = $5)
             UNION ALL
             (SELECT profile_no, false FROM membership WHERE space_id = $1 AND computation_no = $5
              EXCEPT SELECT profile_no, false FROM membership WHERE space_id = $1 AND computation_no = $4)
         ) net",
    )
    .bind(space.0)
    .bind(definition)
    .bind(last_transition)
    .bind(computation.0 as i32)
    .bind(old)
    .bind(at.to_utc())
    .execute(&mut *tx)
    .await?;
    deliveries::enqueue_transitions(&mut *tx, space, Some(definition), last_transition).await?;
    let sql = "-- store::computations::swap
         DELETE FROM membership WHERE space_id = $1 AND computation_no = $2";
    sqlx::query(sql).bind(space.0).bind(old).execute(&mut *tx).await?;
    let sql = "-- store::computations::swap
         UPDATE computation SET status = CASE computation_no WHEN $2 THEN 'live' ELSE 'superseded' END,
             walking = false
         WHERE space_id = $1 AND computation_no IN ($2, $3)";
    sqlx::query(sql).bind(space.0).bind(computation.0 as i32).bind(old).execute(&mut *tx).await?;
    let sql = "-- store::computations::swap
         UPDATE definition SET serving_no = $3 WHERE space_id = $1 AND definition_no = $2";
    sqlx::query(sql).bind(space.0).bind(definition).bind(computation.0 as i32).execute(&mut *tx).await?;
    note_size(tx, space, definition, at).await?;
    Ok(done.rows_affected() as i64)
}

/// Notes the size of an audience for its history, as it is from `at` on.
async fn note_size(tx: &mut PgConnection, space: SpaceNo, definition: i32, at: Timestamp) -> Result<()> {
    sqlx::query(
        "-- store::computations::note_size
         INSERT INTO size_change AS known (space_id, definition_no, minute, delta)
         SELECT $1, $2, date_trunc('minute', $3::timestamptz), c.size - (
             SELECT coalesce(sum(delta), 0) FROM size_change WHERE space_id = $1 AND definition_no = $2)
         FROM definition d
         JOIN computation c ON c.space_id = $1 AND c.computation_no = d.serving_no
         WHERE d.space_id = $1 AND d.definition_no = $2 AND d.kind = 0
         ON CONFLICT (space_id, definition_no, minute) DO UPDATE SET delta = known.delta + EXCLUDED.delta",
    )
    .bind(space.0)
    .bind(definition)
    .bind(at.to_utc())
    .execute(tx)
    .await?;
    Ok(())
}

/// Deleted definitions that still have a serving version: definition, version.
pub async fn list_to_clear(
    connection: &mut PgConnection,
    space: SpaceNo,
) -> Result<Vec<(i32, ComputationNo)>> {
    let sql = "-- store::computations::list_to_clear
         SELECT definition_no, serving_no FROM definition
         WHERE space_id = $1 AND deleted AND serving_no IS NOT NULL";
    let rows: Vec<(i32, i32)> = sqlx::query_as(sql).bind(space.0).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(definition, no)| (definition, ComputationNo(no as u32))).collect())
}

/// Whether there are deleted definitions that still have a serving version.
pub async fn has_to_clear(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<bool> {
    let sql = "-- store::computations::has_to_clear
         SELECT EXISTS (SELECT 1 FROM definition WHERE space_id = $1 AND deleted AND serving_no IS NOT NULL)";
    Ok(sqlx::query_scalar(sql).bind(space.0).fetch_one(executor).await?)
}

/// Clears what a deleted definition left: every member leaves, with its transition. Returns how many.
pub async fn clear(
    tx: &mut PgConnection,
    space: SpaceNo,
    definition: i32,
    computation: ComputationNo,
    last_transition: i64,
    at: Timestamp,
) -> Result<i64> {
    let done = sqlx::query(
        "-- store::computations::clear
         WITH gone AS (
             DELETE FROM membership WHERE space_id = $1 AND computation_no = $3 RETURNING profile_no
         )
         INSERT INTO transition (space_id, definition_no, transition_no, profile_no, entered, at)
         SELECT $1, $2, $4 + row_number() OVER (ORDER BY profile_no), profile_no, false, $5 FROM gone",
    )
    .bind(space.0)
    .bind(definition)
    .bind(computation.0 as i32)
    .bind(last_transition)
    .bind(at.to_utc())
    .execute(&mut *tx)
    .await?;
    deliveries::enqueue_transitions(&mut *tx, space, Some(definition), last_transition).await?;
    let sql = "-- store::computations::clear
         UPDATE definition SET serving_no = NULL WHERE space_id = $1 AND definition_no = $2";
    sqlx::query(sql).bind(space.0).bind(definition).execute(&mut *tx).await?;
    // Its key may be used again, its number never is.
    let sql = "-- store::computations::clear
         DELETE FROM size_change WHERE space_id = $1 AND definition_no = $2";
    sqlx::query(sql).bind(space.0).bind(definition).execute(&mut *tx).await?;
    let sql = "-- store::computations::clear
         UPDATE computation SET status = 'superseded', size = 0 WHERE space_id = $1 AND definition_no = $2";
    sqlx::query(sql).bind(space.0).bind(definition).execute(tx).await?;
    Ok(done.rows_affected() as i64)
}
