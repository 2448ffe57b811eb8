//! The audit log: what operators did, by whom, and what became of it.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use sqlx::{PgConnection, PgExecutor};

use super::Result;
use crate::domain::act::{Actor, Effect};
use crate::domain::{Offset, SpaceNo, Timestamp};

/// One act.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// Its place in the log.
    pub offset: Offset,
    /// When it was done.
    pub at: Timestamp,
    /// What was done, such as `merge.undo`.
    pub action: String,
    /// By whom.
    pub actor: Actor,
    /// What was asked for.
    pub act: serde_json::Value,
    /// What became of it.
    pub effect: Effect,
}

/// Adds entries. One that is there already stays: a rebuild does everything again.
pub async fn insert(tx: &mut PgConnection, space: SpaceNo, entries: &[AuditEntry]) -> Result<()> {
    let text = |column: fn(&AuditEntry) -> &str| entries.iter().map(column).collect::<Vec<_>>();
    let effect = |entry: &AuditEntry| serde_json::to_value(&entry.effect).unwrap_or_default();
    sqlx::query(
        "-- store::audit::insert
         INSERT INTO audit_entry (space_id, log_offset, at, action, actor_id, actor_name, act, effect)
         SELECT $1, * FROM unnest($2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::jsonb[],
             $8::jsonb[])
         ON CONFLICT DO NOTHING",
    )
    .bind(space.0)
    .bind(entries.iter().map(|e| e.offset.0 as i64).collect::<Vec<_>>())
    .bind(entries.iter().map(|e| e.at.to_utc()).collect::<Vec<_>>())
    .bind(text(|e| &e.action))
    .bind(text(|e| &e.actor.id))
    .bind(text(|e| &e.actor.name))
    .bind(entries.iter().map(|e| &e.act).collect::<Vec<_>>())
    .bind(entries.iter().map(effect).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

type Row = (i64, DateTime<Utc>, String, String, String, serde_json::Value, sqlx::types::Json<Effect>);

fn entry((offset, at, action, id, name, act, effect): Row) -> AuditEntry {
    let (offset, at, actor) = (Offset(offset as u64), at.into(), Actor { id, name });
    AuditEntry { offset, at, action, actor, act, effect: effect.0 }
}

/// The act at a place of the log, once it is done.
pub async fn find(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    offset: Offset,
) -> Result<Option<AuditEntry>> {
    let sql = "-- store::audit::find
         SELECT log_offset, at, action, actor_id, actor_name, act, effect FROM audit_entry
         WHERE space_id = $1 AND log_offset = $2";
    let row: Option<Row> =
        sqlx::query_as(sql).bind(space.0).bind(offset.0 as i64).fetch_optional(executor).await?;
    Ok(row.map(entry))
}

/// A page of acts, newest first, older than `before`; of one kind where `action` says so.
pub async fn list(
    pool: &PgPool,
    space: SpaceNo,
    action: Option<&str>,
    before: Option<Offset>,
    limit: i64,
) -> Result<Vec<AuditEntry>> {
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::audit::list
         SELECT log_offset, at, action, actor_id, actor_name, act, effect FROM audit_entry
         WHERE space_id = $1 AND log_offset < $2 AND ($3::text IS NULL OR action = $3)
         ORDER BY log_offset DESC LIMIT $4",
    )
    .bind(space.0)
    .bind(before.map_or(i64::MAX, |offset| offset.0 as i64))
    .bind(action)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(entry).collect())
}
