//! The people of regulations, and how far each of them is.

use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::domain::regulation::{IdHash, RegulationType};
use crate::domain::{IdKey, SpaceNo, Timestamp};
use crate::store::{Result, StoreError};

/// Adds the people of a regulation, by what they are found by, numbered from 0.
pub async fn insert(
    tx: &mut PgConnection,
    space: SpaceNo,
    regulation: Uuid,
    (keys, wait): (&[(IdKey, IdHash)], bool),
) -> Result<()> {
    let sql = "-- store::regulations::people::insert
         INSERT INTO regulation_subject (space_id, regulation_id, subject_no, id_hash, id_key, state)
         SELECT $1, $2, n - 1, h, CASE WHEN $5 THEN k END, CASE WHEN $5 THEN 0 ELSE 2 END
         FROM unnest($3::uuid[], $4::bytea[]) WITH ORDINALITY AS u (k, h, n)";
    sqlx::query(sql)
        .bind(space.0)
        .bind(regulation)
        .bind(keys.iter().map(|(key, _)| key.to_uuid()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, hash)| hash.0.as_slice()).collect::<Vec<_>>())
        .bind(wait)
        .execute(tx)
        .await?;
    Ok(())
}

/// People that wait to be erased.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// What was asked for.
    pub kind: RegulationType,
    /// How many days identifiers of devices stay suppressed.
    pub device_days: i32,
    /// Numbers, and what they are found by.
    pub people: Vec<(i32, IdKey)>,
}

/// Those of a regulation that wait, of so many from the first one on; none where the regulation is no more.
pub async fn find_waiting(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    regulation: Uuid,
    (first, count): (i32, i32),
) -> Result<Option<Waiting>> {
    let rows: Vec<(String, i32, Option<i32>, Option<Uuid>)> = sqlx::query_as(
        "-- store::regulations::people::find_waiting
         SELECT r.type, r.device_days, s.subject_no, s.id_key FROM regulation r
         LEFT JOIN regulation_subject s ON s.space_id = $1 AND s.regulation_id = r.regulation_id AND s.state = 0
             AND s.subject_no >= $3 AND s.subject_no < $3 + $4
         WHERE r.space_id = $1 AND r.regulation_id = $2 ORDER BY s.subject_no",
    )
    .bind(space.0)
    .bind(regulation)
    .bind(first)
    .bind(count)
    .fetch_all(executor)
    .await?;
    let Some((word, device_days, ..)) = rows.first() else { return Ok(None) };
    let kind = RegulationType::parse(word)
        .ok_or_else(|| StoreError::Damaged(format!("regulation {regulation} is of no known type: {word}")))?;
    let people = rows.iter().filter_map(|(_, _, no, key)| Some(((*no)?, IdKey((*key)?.as_u128()))));
    Ok(Some(Waiting { kind, device_days: *device_days, people: people.collect() }))
}

/// What was found of one of them.
#[derive(Debug, Clone)]
pub struct Found {
    /// Number in the regulation.
    pub no: i32,
    /// Whom it was; none where there was nobody.
    pub profile_id: Option<Uuid>,
    /// Events that are erased.
    pub events: u64,
    /// All identifiers.
    pub keys: Vec<IdKey>,
}

/// Notes what was found. The log has still to be gone through for what is nobody's.
pub async fn set_erased(
    tx: &mut PgConnection,
    space: SpaceNo,
    regulation: Uuid,
    found: &[Found],
    at: Timestamp,
) -> Result<()> {
    for person in found {
        // A few dozens at most, each with a list of its own.
        let sql = "-- store::regulations::people::set_erased
             UPDATE regulation_subject SET state = 1, id_key = NULL, profile_id = $4, events = $5, keys = $6, erased_at = $7
             WHERE space_id = $1 AND regulation_id = $2 AND subject_no = $3";
        sqlx::query(sql)
            .bind(space.0)
            .bind(regulation)
            .bind(person.no)
            .bind(person.profile_id)
            .bind(person.events as i64)
            .bind(person.keys.iter().map(|key| key.to_uuid()).collect::<Vec<_>>())
            .bind(at.to_utc())
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// One of whom the log has still to be gone through.
#[derive(Debug, Clone)]
pub struct Unswept {
    /// Its regulation,
    pub regulation: Uuid,
    /// and its number there.
    pub no: i32,
    /// All identifiers.
    pub keys: Vec<IdKey>,
}

/// Those of whom the log has still to be gone through, at most so many.
pub async fn list_unswept(executor: impl PgExecutor<'_>, space: SpaceNo, limit: i64) -> Result<Vec<Unswept>> {
    let rows: Vec<(Uuid, i32, Option<Vec<Uuid>>)> = sqlx::query_as(
        "-- store::regulations::people::list_unswept
         SELECT regulation_id, subject_no, keys FROM regulation_subject WHERE space_id = $1 AND state = 1
         ORDER BY regulation_id, subject_no LIMIT $2",
    )
    .bind(space.0)
    .bind(limit)
    .fetch_all(executor)
    .await?;
    let unswept = |(regulation, no, keys): (Uuid, i32, Option<Vec<Uuid>>)| Unswept {
        regulation,
        no,
        keys: keys.unwrap_or_default().iter().map(|key| IdKey(key.as_u128())).collect(),
    };
    Ok(rows.into_iter().map(unswept).collect())
}

/// Nothing is left of these.
pub async fn set_swept(tx: &mut PgConnection, space: SpaceNo, swept: &[Unswept]) -> Result<()> {
    let sql = "-- store::regulations::people::set_swept
         UPDATE regulation_subject s SET state = 2, keys = NULL
         FROM unnest($2::uuid[], $3::int[]) AS n (regulation_id, subject_no)
         WHERE s.space_id = $1 AND s.regulation_id = n.regulation_id AND s.subject_no = n.subject_no AND s.state = 1";
    sqlx::query(sql)
        .bind(space.0)
        .bind(swept.iter().map(|person| person.regulation).collect::<Vec<_>>())
        .bind(swept.iter().map(|person| person.no).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

/// Acts for people that wait may have been lost before they came into the log: people whose regulation is older than that
/// and that nobody has looked at. As first numbers and counts.
pub async fn list_stuck(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    before: Timestamp,
) -> Result<Vec<(Uuid, i32, i32)>> {
    let sql = "-- store::regulations::people::list_stuck
         SELECT s.regulation_id, min(s.subject_no), (max(s.subject_no) - min(s.subject_no) + 1)::int
         FROM regulation_subject s
         JOIN regulation r ON r.space_id = $1 AND r.regulation_id = s.regulation_id
         WHERE s.space_id = $1 AND s.state = 0 AND r.created_at < $2
         GROUP BY s.regulation_id, s.subject_no / 50";
    Ok(sqlx::query_as(sql).bind(space.0).bind(before.to_utc()).fetch_all(executor).await?)
}
