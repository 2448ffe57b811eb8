//! The database server itself.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::postgres::PgPool;

use super::Result;
use crate::domain::Timestamp;

/// The database's time, by which leases live.
pub async fn now(pool: &PgPool) -> Result<Timestamp> {
    let sql = "-- store::server::now\nSELECT clock_timestamp()";
    let now: DateTime<Utc> = sqlx::query_scalar(sql).fetch_one(pool).await?;
    Ok(now.into())
}

/// Its version, as a person would write it: `15.14`.
pub async fn version(pool: &PgPool) -> Result<String> {
    let sql = "-- store::server::version\nSELECT split_part(current_setting('server_version'), ' ', 1)";
    Ok(sqlx::query_scalar(sql).fetch_one(pool).await?)
}

/// Keeps what is written from now on in the server's own log for as long as the connection is open: a copy of the whole server
/// that takes long needs all of it.
pub async fn hold_wal(connection: &mut PgConnection) -> Result<()> {
    let sql = "-- store::server::hold_wal
         SELECT pg_create_physical_replication_slot('personas_backup_' || pg_backend_pid(), true, true)";
    sqlx::query(sql).execute(connection).await?;
    Ok(())
}
