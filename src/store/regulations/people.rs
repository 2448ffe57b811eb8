//! The people of regulations, and how far each of them is.

use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::domain::regulation::{IdHash, RegulationType};
use crate::domain::{IdKey, Offset, SpaceNo, Timestamp};
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
    (until, at): (Offset, Timestamp),
) -> Result<()> {
    for person in found {
        // A few dozens at most, each with a list of its own.
        let sql = "-- store::regulations::people::set_erased
             UPDATE regulation_subject SET state = 1, id_key = NULL, profile_id = coalesce($4, profile_id),
                 events = events + $5, keys = coalesce(keys, '{}') || $6, erased_at = $7, until_offset = $8,
                 noted_at = clock_timestamp()
             WHERE space_id = $1 AND regulation_id = $2 AND subject_no = $3";
        sqlx::query(sql)
            .bind(space.0)
            .bind(regulation)
            .bind(person.no)
            .bind(person.profile_id)
            .bind(person.events as i64)
            .bind(person.keys.iter().map(|key| key.to_uuid()).collect::<Vec<_>>())
            .bind(at.to_utc())
            .bind(until.0 as i64)
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
    /// The place of the act.
    pub until: Offset,
    /// Nothing new is taken of them.
    pub suppressed: bool,
}

/// How long after an erasure the log is gone through: all processes know by then who is suppressed, and what they had taken
/// before is in the log.
const SETTLED_MS: i32 = 1_500;

/// Those of whom the log has still to be gone through, at most so many. None while others of the space wait to be erased.
pub async fn list_unswept(executor: impl PgExecutor<'_>, space: SpaceNo, limit: i64) -> Result<Vec<Unswept>> {
    type Row = (Uuid, i32, Option<Vec<Uuid>>, i64, String);
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::regulations::people::list_unswept
         SELECT s.regulation_id, s.subject_no, s.keys, coalesce(s.until_offset, 0), r.type FROM regulation_subject s
         JOIN regulation r ON r.space_id = $1 AND r.regulation_id = s.regulation_id
         WHERE s.space_id = $1 AND s.state = 1 AND s.noted_at < clock_timestamp() - make_interval(secs => $3)
             AND NOT EXISTS (SELECT 1 FROM regulation_subject w WHERE w.space_id = $1 AND w.state = 0)
         ORDER BY s.regulation_id, s.subject_no LIMIT $2",
    )
    .bind(space.0)
    .bind(limit)
    .bind(f64::from(SETTLED_MS) / 1_000.0)
    .fetch_all(executor)
    .await?;
    let unswept = |(regulation, no, keys, until, kind): Row| Unswept {
        regulation,
        no,
        keys: keys.unwrap_or_default().iter().map(|key| IdKey(key.as_u128())).collect(),
        until: Offset(until as u64),
        suppressed: RegulationType::parse(&kind).is_some_and(RegulationType::suppresses),
    };
    Ok(rows.into_iter().map(unswept).collect())
}

/// Lets those wait to be erased once more of whom something has come since: it was taken before everybody knew that they are
/// suppressed. Returns how many.
pub async fn wait_again(executor: impl PgExecutor<'_>, space: SpaceNo, people: &[Unswept]) -> Result<u64> {
    let pairs =
        || people.iter().filter(|p| p.suppressed).flat_map(|p| p.keys.iter().map(move |key| (p, key)));
    let sql = "-- store::regulations::people::wait_again
         UPDATE regulation_subject s SET state = 0, id_key = e.id_key
         FROM unnest($2::uuid[], $3::int[], $4::uuid[]) AS n (regulation_id, subject_no, id_key)
         JOIN external_id e ON e.space_id = $1 AND e.id_key = n.id_key
         JOIN identity_type t ON t.space_id = $1 AND t.type_no = e.type_no
         WHERE s.space_id = $1 AND s.regulation_id = n.regulation_id AND s.subject_no = n.subject_no AND s.state = 1
             -- A device may be somebody else's by now, and so may everything of whom it was taken back.
             AND NOT (t.name IN ('anonymous_id', 'ga_client_id') OR t.name LIKE 'android.%' OR t.name LIKE 'ios.%')
             AND EXISTS (SELECT 1 FROM suppression u WHERE u.space_id = $1 AND u.id_hash = s.id_hash)";
    let again = sqlx::query(sql)
        .bind(space.0)
        .bind(pairs().map(|(person, _)| person.regulation).collect::<Vec<_>>())
        .bind(pairs().map(|(person, _)| person.no).collect::<Vec<_>>())
        .bind(pairs().map(|(_, key)| key.to_uuid()).collect::<Vec<_>>());
    Ok(again.execute(executor).await?.rows_affected())
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
         WHERE s.space_id = $1 AND s.state = 0 AND (r.created_at < $2 OR s.noted_at IS NOT NULL)
         GROUP BY s.regulation_id, s.subject_no / 50";
    Ok(sqlx::query_as(sql).bind(space.0).bind(before.to_utc()).fetch_all(executor).await?)
}
