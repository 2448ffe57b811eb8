//! The database server itself.

use chrono::{DateTime, Utc};
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
