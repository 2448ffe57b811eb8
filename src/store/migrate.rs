//! Brings the schema up to date. Several processes may start at once: the lock is taken by trying, never by waiting
//! inside the database, so that a migration that builds an index concurrently cannot deadlock with a waiter.

use std::time::Duration;

use sqlx::{Connection, PgConnection, migrate::Migrator, postgres::PgPool};

use super::{Result, audit, wall};

/// The migrations of this build.
pub static MIGRATOR: Migrator = sqlx::migrate!();

const LOCK: i64 = 0x7065_7273_6f6e_6173;

/// Applies what is missing; refuses a schema that is newer than this build.
pub async fn migrate(pool: &PgPool) -> Result<()> {
    let mut connection = PgConnection::connect_with(&pool.connect_options()).await?;
    while !try_lock(&mut connection).await? {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut migrator = Migrator { locking: false, ..Migrator::DEFAULT };
    migrator.migrations.clone_from(&MIGRATOR.migrations);
    migrator.run_direct(None, &mut connection, false).await?;
    wall::raise(&mut connection).await?;
    audit::link_older(&mut connection).await?;
    // Closing the session gives the lock back.
    connection.close().await?;
    Ok(())
}

async fn try_lock(connection: &mut PgConnection) -> Result<bool> {
    let sql = "-- store::migrate::try_lock\nSELECT pg_try_advisory_lock($1)";
    Ok(sqlx::query_scalar(sql).bind(LOCK).fetch_one(connection).await?)
}

/// Version of the newest migration of this build, and the newest one the database has.
pub async fn versions(pool: &PgPool) -> Result<(i64, Option<i64>)> {
    let ours = MIGRATOR.iter().map(|m| m.version).max().unwrap_or(0);
    let sql = "-- store::migrate::versions\nSELECT to_regclass('_sqlx_migrations') IS NOT NULL";
    if !sqlx::query_scalar::<_, bool>(sql).fetch_one(pool).await? {
        return Ok((ours, None));
    }
    let sql = "-- store::migrate::versions\nSELECT max(version) FROM _sqlx_migrations WHERE success";
    Ok((ours, sqlx::query_scalar(sql).fetch_one(pool).await?))
}
