//! Refused values on their way to quarantine, in it, and let out of it.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{Result, Walled};
use crate::domain::identifier::IdKey;
use crate::domain::{ProfileNo, SpaceNo, Timestamp};

/// A value as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SuspectRow {
    /// Profiles it was refused to.
    pub profiles: Vec<ProfileNo>,
    /// Since when it is in quarantine.
    pub quarantined_at: Option<Timestamp>,
    /// It was let out for good.
    pub exempt: bool,
}

/// A value that is to be written.
#[derive(Debug, Clone)]
pub struct NamedSuspect {
    /// What it is found by.
    pub key: IdKey,
    /// Its type.
    pub id_type: String,
    /// The value.
    pub value: String,
    /// What is known of it.
    pub row: SuspectRow,
}

fn row((key, profiles, at, exempt): (Uuid, Vec<u8>, Option<DateTime<Utc>>, bool)) -> (IdKey, SuspectRow) {
    let number = |raw: &[u8]| raw.try_into().ok().map(|raw| ProfileNo(u64::from_be_bytes(raw)));
    let profiles = profiles.chunks_exact(8).filter_map(number).collect();
    (IdKey(key.as_u128()), SuspectRow { profiles, quarantined_at: at.map(Timestamp::from), exempt })
}

/// The keys of up to `most` values that something is known of.
pub async fn list_keys(executor: impl PgExecutor<'_>, space: SpaceNo, most: i64) -> Result<Vec<IdKey>> {
    let sql = "-- store::quarantine::list_keys
         SELECT id_key FROM identity_suspect WHERE space_id = $1 ORDER BY id_key LIMIT $2";
    let keys: Vec<Uuid> = sqlx::query_scalar(sql).bind(space.0).bind(most).fetch_all(executor).await?;
    Ok(keys.into_iter().map(|key| IdKey(key.as_u128())).collect())
}

/// What is known of these values.
pub async fn find_suspects(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    keys: &[IdKey],
) -> Result<Vec<(IdKey, SuspectRow)>> {
    let rows = sqlx::query_as(
        "-- store::quarantine::find_suspects
         SELECT s.id_key, s.profiles, s.quarantined_at, s.exempt FROM unnest($2::uuid[]) AS w (id_key)
         CROSS JOIN LATERAL (
             SELECT * FROM identity_suspect s WHERE s.space_id = $1 AND s.id_key = w.id_key LIMIT 1
         ) s",
    )
    .bind(space.0)
    .bind(keys.iter().map(|k| k.to_uuid()).collect::<Vec<_>>())
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(row).collect())
}

/// Writes what is known of values.
pub async fn upsert_suspects(tx: &mut PgConnection, space: SpaceNo, suspects: &[NamedSuspect]) -> Result<()> {
    let bytes =
        |s: &NamedSuspect| s.row.profiles.iter().flat_map(|no| no.0.to_be_bytes()).collect::<Vec<u8>>();
    sqlx::query(
        "-- store::quarantine::upsert_suspects
         INSERT INTO identity_suspect (space_id, id_key, type, value, profiles, quarantined_at, exempt)
         SELECT $1, * FROM unnest($2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::timestamptz[], $7::boolean[])
         ON CONFLICT (space_id, id_key) DO UPDATE SET profiles = excluded.profiles,
             quarantined_at = excluded.quarantined_at, exempt = excluded.exempt",
    )
    .bind(space.0)
    .bind(suspects.iter().map(|s| s.key.to_uuid()).collect::<Vec<_>>())
    .bind(suspects.iter().map(|s| s.id_type.as_str()).collect::<Vec<_>>())
    .bind(suspects.iter().map(|s| s.value.as_str()).collect::<Vec<_>>())
    .bind(suspects.iter().map(bytes).collect::<Vec<_>>())
    .bind(suspects.iter().map(|s| s.row.quarantined_at.map(Timestamp::to_utc)).collect::<Vec<_>>())
    .bind(suspects.iter().map(|s| s.row.exempt).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// A value in quarantine.
#[derive(Debug, Clone)]
pub struct Quarantined {
    /// What it is found by.
    pub key: Uuid,
    /// Its type.
    pub id_type: String,
    /// The value.
    pub value: String,
    /// Since when (time of receipt).
    pub at: Timestamp,
}

/// A page of the values in quarantine, the newest first, behind the one with this time and key.
pub async fn list_quarantined(
    door: &Walled,
    space: SpaceNo,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<Quarantined>> {
    let rows: Vec<(Uuid, String, String, DateTime<Utc>)> = sqlx::query_as(
        "-- store::quarantine::list_quarantined
         SELECT id_key, type, value, quarantined_at FROM identity_suspect
         WHERE space_id = $1 AND quarantined_at IS NOT NULL
             AND ($2::timestamptz IS NULL OR (quarantined_at, id_key) < ($2, $3))
         ORDER BY quarantined_at DESC, id_key DESC LIMIT $4",
    )
    .bind(space.0)
    .bind(after.map(|(at, _)| at.to_utc()))
    .bind(after.map(|(_, key)| key))
    .bind(limit)
    .fetch_all(door)
    .await?;
    let quarantined = |(key, id_type, value, at): (Uuid, String, String, DateTime<Utc>)| Quarantined {
        key,
        id_type,
        value,
        at: at.into(),
    };
    Ok(rows.into_iter().map(quarantined).collect())
}

/// How many values are in quarantine, in all spaces together; each of them is a row of a small index.
pub async fn count_quarantined(executor: impl PgExecutor<'_>) -> Result<i64> {
    let sql = "-- store::quarantine::count_quarantined
         SELECT count(*) FROM identity_suspect WHERE quarantined_at IS NOT NULL";
    Ok(sqlx::query_scalar(sql).fetch_one(executor).await?)
}
