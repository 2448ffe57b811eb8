//! Encrypted secrets of all destinations, for a change of their key.

use sqlx::PgExecutor;
use uuid::Uuid;

use crate::domain::{DestinationNo, SpaceNo};
use crate::store::Result;

/// Secrets of a destination as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The space.
    pub space: SpaceNo,
    /// The destination.
    pub no: DestinationNo,
    /// Its public id, which they belong to.
    pub id: Uuid,
    /// What it is called.
    pub name: String,
    /// Encrypted.
    pub secrets: Vec<u8>,
    /// With which key.
    pub key_id: String,
}

/// The same, encrypted anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resealed {
    /// The space.
    pub space: SpaceNo,
    /// The destination.
    pub no: DestinationNo,
    /// As they were.
    pub before: Vec<u8>,
    /// As they are now.
    pub secrets: Vec<u8>,
    /// With which key.
    pub key_id: String,
}

#[derive(sqlx::FromRow)]
struct Row {
    space_id: i32,
    destination_no: i32,
    destination_id: Uuid,
    name: String,
    secrets: Vec<u8>,
    secret_key_id: String,
}

/// The next destinations behind one, of all spaces, whose secrets are not encrypted with this key.
pub async fn list_sealed_otherwise(
    executor: impl PgExecutor<'_>,
    key_id: &str,
    (space, no): (i32, i32),
    limit: i64,
) -> Result<Vec<Sealed>> {
    let sql = "-- store::destinations::secrets::list_sealed_otherwise
         SELECT space_id, destination_no, destination_id, name, secrets, coalesce(secret_key_id, '') AS secret_key_id
         FROM destination
         WHERE secrets IS NOT NULL AND NOT deleted AND secret_key_id IS DISTINCT FROM $1
             AND (space_id, destination_no) > ($2, $3)
         ORDER BY space_id, destination_no LIMIT $4";
    let rows: Vec<Row> =
        sqlx::query_as(sql).bind(key_id).bind(space).bind(no).bind(limit).fetch_all(executor).await?;
    let sealed = |row: Row| Sealed {
        space: SpaceNo(row.space_id),
        no: DestinationNo(row.destination_no),
        id: row.destination_id,
        name: row.name,
        secrets: row.secrets,
        key_id: row.secret_key_id,
    };
    Ok(rows.into_iter().map(sealed).collect())
}

/// Writes what was encrypted anew, unless it was changed meanwhile. Returns how many were written.
pub async fn reseal(executor: impl PgExecutor<'_>, rows: &[Resealed]) -> Result<u64> {
    let done = sqlx::query(
        "-- store::destinations::secrets::reseal
         UPDATE destination d SET secrets = n.secrets, secret_key_id = n.key_id
         FROM unnest($1::int[], $2::int[], $3::bytea[], $4::bytea[], $5::text[])
             AS n (space_id, destination_no, before, secrets, key_id)
         WHERE d.space_id = n.space_id AND d.destination_no = n.destination_no AND d.secrets = n.before",
    )
    .bind(rows.iter().map(|r| r.space.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.no.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.before.as_slice()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.secrets.as_slice()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.key_id.as_str()).collect::<Vec<_>>())
    .execute(executor)
    .await?;
    Ok(done.rows_affected())
}
