//! The audit log: acts of operators, changes and reads, in one chain for each space.
//!
//! Entries are numbered and linked under the lock of the chain's head, which is taken last in a transaction and held until
//! its end: so numbers have no gaps, and nobody waits in a circle.

pub mod verify;

use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use sqlx::{PgConnection, PgExecutor};

use super::{Result, StoreError, Walled};
use crate::domain::act::{Actor, Effect};
use crate::domain::audit::{self, Entry, EntryKind, Hash, START};
use crate::domain::{Offset, SpaceNo, Timestamp};

/// The chain of the server itself: what is done in no space.
pub const SERVER: SpaceNo = SpaceNo(0);
/// Bytes of the salt of what an act was about.
const SALT_BYTES: usize = 16;

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

/// Adds acts, here and to the chain. One that is there already stays: a rebuild does everything again.
pub async fn insert(tx: &mut PgConnection, space: SpaceNo, entries: &[AuditEntry]) -> Result<()> {
    let text = |column: fn(&AuditEntry) -> &str| entries.iter().map(column).collect::<Vec<_>>();
    let effect = |entry: &AuditEntry| serde_json::to_value(&entry.effect).unwrap_or_default();
    let salts: Vec<[u8; SALT_BYTES]> = entries.iter().map(|_| rand::random()).collect();
    let effects: Vec<serde_json::Value> = entries.iter().map(effect).collect();
    let added: Vec<i64> = sqlx::query_scalar(
        "-- store::audit::insert
         INSERT INTO audit_entry (space_id, log_offset, at, action, actor_id, actor_name, act, effect, salt)
         SELECT $1, * FROM unnest($2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::jsonb[],
             $8::jsonb[], $9::bytea[])
         ON CONFLICT DO NOTHING RETURNING log_offset",
    )
    .bind(space.0)
    .bind(entries.iter().map(|e| e.offset.0 as i64).collect::<Vec<_>>())
    .bind(entries.iter().map(|e| e.at.to_utc()).collect::<Vec<_>>())
    .bind(text(|e| &e.action))
    .bind(text(|e| &e.actor.id))
    .bind(text(|e| &e.actor.name))
    .bind(entries.iter().map(|e| &e.act).collect::<Vec<_>>())
    .bind(&effects)
    .bind(salts.iter().map(<[u8; SALT_BYTES]>::as_slice).collect::<Vec<_>>())
    .fetch_all(&mut *tx)
    .await?;
    let rows = entries.iter().zip(&effects).zip(&salts);
    let added = rows.filter(|((entry, _), _)| added.contains(&(entry.offset.0 as i64)));
    let links = added.map(|((entry, effect), salt)| {
        let AuditEntry { offset, at, action, actor, act, .. } = entry;
        Entry {
            offset: Some(offset.0),
            digest: Some(audit::digest(salt, act, effect)),
            ..Entry::new(EntryKind::Act, at.to_string(), action.clone(), actor.clone())
        }
    });
    append(tx, space, links.collect()).await
}

/// Acts of one transaction of [`link_older`].
const OLDER: i64 = 1_000;

/// Adds acts to the chains of their spaces that were done before there were any (migration 0050). For who migrates.
pub async fn link_older(connection: &mut PgConnection) -> Result<()> {
    let sql =
        "-- store::audit::link_older\nSELECT DISTINCT space_id FROM audit_entry WHERE salt = '' ORDER BY 1";
    let spaces: Vec<i32> = sqlx::query_scalar(sql).fetch_all(&mut *connection).await?;
    for space in spaces.into_iter().map(SpaceNo) {
        while link_some(connection, space).await? {}
    }
    Ok(())
}

async fn link_some(connection: &mut PgConnection, space: SpaceNo) -> Result<bool> {
    type Row = (i64, DateTime<Utc>, String, String, String, serde_json::Value, serde_json::Value);
    let mut tx = sqlx::Connection::begin(connection).await?;
    let sql = "-- store::audit::link_some
         SELECT log_offset, at, action, actor_id, actor_name, act, effect FROM audit_entry
         WHERE space_id = $1 AND salt = '' ORDER BY log_offset LIMIT $2 FOR UPDATE";
    let rows: Vec<Row> = sqlx::query_as(sql).bind(space.0).bind(OLDER).fetch_all(&mut *tx).await?;
    if rows.is_empty() {
        return Ok(false);
    }
    let salts: Vec<[u8; SALT_BYTES]> = rows.iter().map(|_| rand::random()).collect();
    let sql = "-- store::audit::link_some
         UPDATE audit_entry e SET salt = s.salt FROM unnest($2::bigint[], $3::bytea[]) AS s (log_offset, salt)
         WHERE e.space_id = $1 AND e.log_offset = s.log_offset";
    sqlx::query(sql)
        .bind(space.0)
        .bind(rows.iter().map(|(offset, ..)| *offset).collect::<Vec<_>>())
        .bind(salts.iter().map(<[u8; SALT_BYTES]>::as_slice).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
    let links =
        rows.into_iter().zip(&salts).map(|((offset, at, action, id, name, act, effect), salt)| Entry {
            offset: Some(offset as u64),
            digest: Some(audit::digest(salt, &act, &effect)),
            ..Entry::new(EntryKind::Act, Timestamp::from(at).to_string(), action, Actor { id, name })
        });
    append(&mut tx, space, links.collect()).await?;
    tx.commit().await?;
    Ok(true)
}

/// Adds entries to the end of a chain.
pub async fn append(tx: &mut PgConnection, space: SpaceNo, entries: Vec<Entry>) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let sql = "-- store::audit::append
         INSERT INTO audit_head (space_id, last_no, last_hash) VALUES ($1, 0, $2) ON CONFLICT DO NOTHING";
    sqlx::query(sql).bind(space.0).bind(START.as_slice()).execute(&mut *tx).await?;
    let sql =
        "-- store::audit::append\nSELECT last_no, last_hash FROM audit_head WHERE space_id = $1 FOR UPDATE";
    let (mut no, hash): (i64, Vec<u8>) = sqlx::query_as(sql).bind(space.0).fetch_one(&mut *tx).await?;
    let damaged = |_| StoreError::Damaged(format!("the end of the audit log of space {space} is no hash"));
    let mut hash = Hash::try_from(hash).map_err(damaged)?;
    let (mut numbers, mut contents, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
    let (kinds, actions): (Vec<&str>, Vec<&str>) =
        entries.iter().map(|e| (e.kind.as_str(), e.action.as_str())).unzip();
    let offsets: Vec<Option<i64>> = entries.iter().map(|e| e.offset.map(|offset| offset as i64)).collect();
    for entry in &entries {
        no += 1;
        let content = Entry { no, ..entry.clone() }.content();
        hash = audit::link(&hash, &content);
        numbers.push(no);
        contents.push(content);
        hashes.push(hash.to_vec());
    }
    sqlx::query(
        "-- store::audit::append
         INSERT INTO audit_record (space_id, entry_no, kind, action, log_offset, content, hash)
         SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bytea[])",
    )
    .bind(space.0)
    .bind(numbers)
    .bind(kinds)
    .bind(actions)
    .bind(offsets)
    .bind(contents)
    .bind(hashes)
    .execute(&mut *tx)
    .await?;
    let sql =
        "-- store::audit::append\nUPDATE audit_head SET last_no = $2, last_hash = $3 WHERE space_id = $1";
    sqlx::query(sql).bind(space.0).bind(no).bind(hash.as_slice()).execute(tx).await?;
    Ok(())
}

/// Adds entries in a transaction of their own. A space that was purged meanwhile gets none.
pub async fn append_alone(door: &Walled, space: SpaceNo, entries: Vec<Entry>) -> Result<()> {
    let mut tx = door.begin().await?;
    if space != SERVER {
        let sql = "-- store::audit::append_alone\nSELECT 1 FROM space WHERE space_id = $1 FOR KEY SHARE";
        let known: Option<i32> = sqlx::query_scalar(sql).bind(space.0).fetch_optional(&mut *tx).await?;
        if known.is_none() {
            return Ok(());
        }
    }
    append(&mut tx, space, entries).await?;
    tx.commit().await?;
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

/// An entry with what it was about.
#[derive(Debug, Clone)]
pub struct Told {
    /// What was hashed, as it stands.
    pub content: String,
    /// Covers the content and all entries before.
    pub hash: Vec<u8>,
    /// Of an act: what was asked for, what became of it, and the salt of their hash.
    pub act: Option<(serde_json::Value, serde_json::Value, Vec<u8>)>,
}

type ToldRow = (String, Vec<u8>, Option<serde_json::Value>, Option<serde_json::Value>, Option<Vec<u8>>);

fn told((content, hash, act, effect, salt): ToldRow) -> Told {
    let act = act.zip(effect).map(|(act, effect)| (act, effect, salt.unwrap_or_default()));
    Told { content, hash, act }
}

/// What is to be listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Only this kind.
    pub kind: Option<EntryKind>,
    /// Only this action.
    pub action: Option<&'a str>,
}

/// A page of a chain, newest first, older than `before`.
pub async fn list(
    door: &Walled,
    space: SpaceNo,
    wanted: Wanted<'_>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Told>> {
    let rows: Vec<ToldRow> = sqlx::query_as(
        "-- store::audit::list
         SELECT r.content, r.hash, e.act, e.effect, e.salt FROM audit_record r
         LEFT JOIN audit_entry e ON e.space_id = $1 AND e.log_offset = r.log_offset
         WHERE r.space_id = $1 AND r.entry_no < $2 AND ($3::text IS NULL OR r.kind = $3)
             AND ($4::text IS NULL OR r.action = $4)
         ORDER BY r.entry_no DESC LIMIT $5",
    )
    .bind(space.0)
    .bind(before.unwrap_or(i64::MAX))
    .bind(wanted.kind.map(EntryKind::as_str))
    .bind(wanted.action)
    .bind(limit)
    .fetch_all(door)
    .await?;
    Ok(rows.into_iter().map(told).collect())
}

/// A whole chain, oldest first, as it is read.
pub fn stream(door: Walled, space: SpaceNo) -> BoxStream<'static, Result<Told>> {
    async_stream(door, space).boxed()
}

fn async_stream(door: Walled, space: SpaceNo) -> impl futures_util::Stream<Item = Result<Told>> {
    let pages = futures_util::stream::try_unfold(0_i64, move |after| {
        let door = door.clone();
        async move {
            let page = page_after(&door, space, after).await?;
            let last = page.last().map(|(no, _)| *no);
            Ok::<_, StoreError>(
                last.map(|last| (futures_util::stream::iter(page.into_iter().map(|(_, row)| Ok(row))), last)),
            )
        }
    });
    pages.try_flatten()
}

/// Entries of one read.
const PAGE: i64 = 1_000;

/// The next entries of a chain with their numbers, oldest first.
async fn page_after(door: &Walled, space: SpaceNo, after: i64) -> Result<Vec<(i64, Told)>> {
    type Row = (i64, String, Vec<u8>, Option<serde_json::Value>, Option<serde_json::Value>, Option<Vec<u8>>);
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::audit::page_after
         SELECT r.entry_no, r.content, r.hash, e.act, e.effect, e.salt FROM audit_record r
         LEFT JOIN audit_entry e ON e.space_id = $1 AND e.log_offset = r.log_offset
         WHERE r.space_id = $1 AND r.entry_no > $2 ORDER BY r.entry_no LIMIT $3",
    )
    .bind(space.0)
    .bind(after)
    .bind(PAGE)
    .fetch_all(door)
    .await?;
    let row = |(no, content, hash, act, effect, salt): Row| (no, told((content, hash, act, effect, salt)));
    Ok(rows.into_iter().map(row).collect())
}
