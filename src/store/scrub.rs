//! What was deleted leaves its bytes in the files of the database until something else is written there, and in its
//! write-ahead log for longer still. Here the files are written anew, and the log is brought to a new beginning.
//!
//! Measured (privacy duty P2): after `DELETE` and `VACUUM` most bytes are where they were; after `VACUUM FULL` none are. Used up
//! segments of the write-ahead log are renamed and written over, so they show what they held until then.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};

use super::{Result, StoreError};

/// Longest wait for a table others are using; they wait behind us meanwhile.
const LOCK_WAIT: &str = "2s";
/// Tries to have a table for oneself.
const TRIES: u32 = 60;
/// Pause between them.
const PAUSE: Duration = Duration::from_millis(500);
/// More segments than any setting of ours keeps ready.
const SEGMENTS_MAX: u32 = 10_000;

/// A table with its bytes, indexes and large values included.
pub type Table = (String, i64);

/// All tables of ours, each partition for itself, the smallest first.
pub async fn list_tables(connection: &mut PgConnection) -> Result<Vec<Table>> {
    let sql = "-- store::scrub::list_tables
         SELECT format('%I.%I', n.nspname, c.relname), pg_total_relation_size(c.oid) FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND (n.nspname = current_schema() OR n.nspname LIKE 'rebuild\\_%')
             AND pg_get_userbyid(c.relowner) = current_user
         ORDER BY 2, 1";
    Ok(sqlx::query_as(sql).fetch_all(connection).await?)
}

/// Writes a table anew, without what was deleted; it is nobody else's meanwhile. Whether it is still there.
pub async fn rewrite(connection: &mut PgConnection, table: &str) -> Result<bool> {
    let wait = format!("-- store::scrub::rewrite\nSET lock_timeout = '{LOCK_WAIT}'");
    sqlx::raw_sql(AssertSqlSafe(wait)).execute(&mut *connection).await?;
    let sql = format!("-- store::scrub::rewrite\nVACUUM (FULL, ANALYZE) {table}");
    let mut tries = 0;
    loop {
        let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut *connection).await;
        let Err(error) = done.map_err(StoreError::from) else { return Ok(true) };
        match error.sqlstate().as_deref() {
            Some("42P01") => return Ok(false),
            Some("40P01" | "55P03") if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            _ => return Err(error),
        }
    }
}

/// Where the planner keeps frequent values of columns, and of what: they are some of the values there were.
pub const STATISTICS: [&str; 2] = ["pg_catalog.pg_statistic", "pg_catalog.pg_statistic_ext_data"];

/// Lets the write-ahead log begin anew: nothing that was written before can be found in its files. Only the superuser of a
/// Postgres of one's own may.
pub async fn renew_wal(connection: &mut PgConnection) -> Result<()> {
    let keep = "-- store::scrub::renew_wal\nALTER SYSTEM SET wal_recycle = off";
    sqlx::raw_sql(keep).execute(&mut *connection).await?;
    let renewed = use_up_wal(connection).await;
    let back = "-- store::scrub::renew_wal\nALTER SYSTEM RESET wal_recycle";
    sqlx::raw_sql(back).execute(&mut *connection).await?;
    reload(connection).await?;
    renewed
}

async fn reload(connection: &mut PgConnection) -> Result<()> {
    sqlx::raw_sql("-- store::scrub::reload\nSELECT pg_reload_conf()").execute(connection).await?;
    Ok(())
}

/// Segments that wait to be written over hold what they held: they are used, and go with the others.
async fn use_up_wal(connection: &mut PgConnection) -> Result<()> {
    reload(connection).await?;
    checkpoint(connection).await?;
    let ahead = "-- store::scrub::use_up_wal
         SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' AND name > pg_walfile_name(pg_current_wal_lsn())";
    let next = "-- store::scrub::use_up_wal
         SELECT pg_logical_emit_message(false, 'personas', 'scrub'); SELECT pg_switch_wal()";
    let mut used = 0;
    loop {
        sqlx::raw_sql(next).execute(&mut *connection).await?;
        if sqlx::query_scalar::<_, i64>(ahead).fetch_one(&mut *connection).await? == 0 {
            break;
        }
        used += 1;
        if used == SEGMENTS_MAX {
            return Err(StoreError::Damaged(
                "the write-ahead log has more segments ahead than can be".to_owned(),
            ));
        }
    }
    checkpoint(connection).await?;
    // What was current at the first one is not needed by now.
    sqlx::raw_sql(next).execute(&mut *connection).await?;
    checkpoint(connection).await
}

async fn checkpoint(connection: &mut PgConnection) -> Result<()> {
    sqlx::raw_sql("-- store::scrub::checkpoint\nCHECKPOINT").execute(connection).await?;
    Ok(())
}
