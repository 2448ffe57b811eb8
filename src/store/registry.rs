//! Spaces, sources, write keys and access tokens, and the snapshot of them that every request is checked against.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::Result;
use crate::domain::{Patch, Plan, SourceNo, SpaceNo, Timestamp};

/// SHA-256 of a secret: all the database ever sees of it.
pub type SecretHash = [u8; 32];

/// Hashes a write key or token. The secrets have 256 random bits, so one round is enough.
pub fn hash_secret(secret: &str) -> SecretHash {
    Sha256::digest(secret.as_bytes()).into()
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Profiles, audiences, lists.
    Read,
    /// Definitions, destinations, settings.
    Write,
    /// Spaces, sources, tokens, privacy.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    /// Reads the word of the API.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }
}

/// A space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// Its number.
    pub no: SpaceNo,
    /// What clients call it.
    pub key: String,
    /// For people.
    pub name: String,
    /// What was agreed about it.
    pub plan: Plan,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its space.
    pub space: SpaceNo,
    /// Its number in the space.
    pub no: SourceNo,
    /// Its public id.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// Whether it may send.
    pub enabled: bool,
    /// Events it may send a process in a second; `None` is no limit.
    pub events_per_second_max: Option<u32>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An access token as far as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its space; `None` for the server's owner.
    pub space: Option<SpaceNo>,
    /// Its public id.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// First characters, to recognise it by.
    pub prefix: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
}

/// Everything a request is checked against, as one immutable snapshot.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    /// The version read; a larger one in the database means reload.
    pub version: i64,
    /// Spaces by what clients call them.
    pub spaces: HashMap<String, Arc<Space>>,
    /// What clients call the space of a number.
    pub space_keys: HashMap<SpaceNo, String>,
    /// Sources by space and number.
    pub sources: HashMap<(SpaceNo, SourceNo), Source>,
    /// Live write keys.
    pub write_keys: HashMap<SecretHash, (SpaceNo, SourceNo)>,
    /// Live tokens.
    pub tokens: HashMap<SecretHash, Arc<Token>>,
}

impl Registry {
    /// The space of that number.
    pub fn space(&self, no: SpaceNo) -> Option<&Space> {
        self.spaces.get(self.space_keys.get(&no)?).map(Arc::as_ref)
    }
}

/// The present version; cheap enough to ask every second.
pub async fn version(pool: &PgPool) -> Result<i64> {
    Ok(sqlx::query_scalar("-- store::registry::version\nSELECT version FROM registry")
        .fetch_one(pool)
        .await?)
}

/// Reads the whole registry.
pub async fn load(pool: &PgPool) -> Result<Registry> {
    let version = version(pool).await?;
    let spaces = super::spaces::list_spaces(pool).await?;
    let sources: Vec<SourceRow> = sqlx::query_as(
        "-- store::registry::load
         SELECT space_id, source_no, source_id, name, enabled, events_per_second_max, created_at FROM source",
    )
    .fetch_all(pool)
    .await?;
    let keys: Vec<(i32, i32, Vec<u8>)> = sqlx::query_as(
        "-- store::registry::load\nSELECT space_id, source_no, key_hash FROM write_key WHERE revoked_at IS NULL",
    )
    .fetch_all(pool)
    .await?;
    Ok(Registry {
        version,
        space_keys: spaces.iter().map(|s| (s.no, s.key.clone())).collect(),
        spaces: spaces.into_iter().map(|s| (s.key.clone(), Arc::new(s))).collect(),
        sources: sources.into_iter().map(source).map(|s| ((s.space, s.no), s)).collect(),
        write_keys: keys
            .into_iter()
            .filter_map(|(space, source, hash)| {
                Some((SecretHash::try_from(hash).ok()?, (SpaceNo(space), SourceNo(source))))
            })
            .collect(),
        tokens: load_tokens(pool).await?,
    })
}

/// The sources of one space: number, id, name.
pub async fn list_source_names(
    tx: &mut PgConnection,
    space: SpaceNo,
) -> Result<Vec<(SourceNo, Uuid, String)>> {
    let sql = "-- store::registry::list_source_names
         SELECT source_no, source_id, name FROM source WHERE space_id = $1";
    let rows: Vec<(i32, Uuid, String)> = sqlx::query_as(sql).bind(space.0).fetch_all(tx).await?;
    Ok(rows.into_iter().map(|(no, id, name)| (SourceNo(no), id, name)).collect())
}

type SourceRow = (i32, i32, Uuid, String, bool, Option<i32>, DateTime<Utc>);

fn source((space, no, id, name, enabled, rate, at): SourceRow) -> Source {
    let events_per_second_max = rate.and_then(|rate| u32::try_from(rate).ok());
    let (space, no) = (SpaceNo(space), SourceNo(no));
    Source { space, no, id, name, enabled, events_per_second_max, created_at: at.into() }
}

async fn load_tokens(pool: &PgPool) -> Result<HashMap<SecretHash, Arc<Token>>> {
    type Row = (i32, Vec<u8>, Uuid, String, String, Vec<String>, DateTime<Utc>, Option<DateTime<Utc>>);
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::registry::load_tokens
         SELECT space_id, token_hash, token_id, name, prefix, scopes, created_at, expires_at
         FROM access_token WHERE revoked_at IS NULL",
    )
    .fetch_all(pool)
    .await?;
    let token = |(space, hash, id, name, prefix, scopes, created_at, expires_at): Row| {
        let token = Token {
            space: (space != 0).then_some(SpaceNo(space)),
            id,
            name,
            prefix,
            scopes: scopes.iter().filter_map(|s| Scope::parse(s)).collect(),
            created_at: created_at.into(),
            expires_at: expires_at.map(Timestamp::from),
        };
        Some((SecretHash::try_from(hash).ok()?, Arc::new(token)))
    };
    Ok(rows.into_iter().filter_map(token).collect())
}

/// Tells every process that the registry has changed. Part of the change's transaction.
pub(super) async fn bump(tx: &mut PgConnection) -> Result<()> {
    sqlx::query("-- store::registry::bump\nUPDATE registry SET version = version + 1").execute(tx).await?;
    Ok(())
}

/// A source to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewSource<'a> {
    /// Its public id.
    pub id: Uuid,
    /// For people.
    pub name: &'a str,
    /// Events it may send a process in a second; `None` is no limit.
    pub events_per_second_max: Option<u32>,
    /// Its first write key.
    pub write_key: &'a str,
}

/// Makes a source and its first write key.
pub async fn insert_source(
    pool: &PgPool,
    space: SpaceNo,
    new: &NewSource<'_>,
    at: Timestamp,
) -> Result<Source> {
    let NewSource { id, name, events_per_second_max, write_key } = *new;
    let mut tx = pool.begin().await?;
    bump(&mut tx).await?;
    let no: i32 = sqlx::query_scalar(
        "-- store::registry::insert_source
         INSERT INTO source (space_id, source_no, source_id, name, created_at, events_per_second_max)
         SELECT $1, coalesce(max(source_no), 0) + 1, $2, $3, $4, $5 FROM source WHERE space_id = $1
         RETURNING source_no",
    )
    .bind(space.0)
    .bind(id)
    .bind(name)
    .bind(at.to_utc())
    .bind(events_per_second_max.map(|rate| rate as i32))
    .fetch_one(&mut *tx)
    .await?;
    insert_write_key(&mut tx, space, SourceNo(no), write_key, at).await?;
    tx.commit().await?;
    let name = name.to_owned();
    Ok(Source { space, no: SourceNo(no), id, name, enabled: true, events_per_second_max, created_at: at })
}

async fn insert_write_key(
    tx: &mut PgConnection,
    space: SpaceNo,
    source: SourceNo,
    key: &str,
    at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "-- store::registry::insert_write_key
         INSERT INTO write_key (space_id, key_hash, source_no, prefix, created_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(space.0)
    .bind(hash_secret(key).as_slice())
    .bind(source.0)
    .bind(visible_prefix(key))
    .bind(at.to_utc())
    .execute(tx)
    .await?;
    Ok(())
}

/// Changes a source: on or off (`None` leaves it as it is), and its rate. False when there is no such source.
pub async fn update_source(
    pool: &PgPool,
    space: SpaceNo,
    id: Uuid,
    enabled: Option<bool>,
    events_per_second_max: Patch<u32>,
) -> Result<bool> {
    let mut tx = pool.begin().await?;
    bump(&mut tx).await?;
    let done = sqlx::query(
        "-- store::registry::update_source
         UPDATE source SET enabled = coalesce($3, enabled),
             events_per_second_max = CASE WHEN $4 THEN $5 ELSE events_per_second_max END
         WHERE space_id = $1 AND source_id = $2",
    )
    .bind(space.0)
    .bind(id)
    .bind(enabled)
    .bind(!events_per_second_max.is_keep())
    .bind(events_per_second_max.over(None).map(|rate| rate as i32))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}

/// Makes an access token; `token.space` `None` is the server's owner.
pub async fn insert_token(pool: &PgPool, token: &Token, secret: &str) -> Result<()> {
    let mut tx = pool.begin().await?;
    bump(&mut tx).await?;
    sqlx::query(
        "-- store::registry::insert_token
         INSERT INTO access_token
             (space_id, token_hash, token_id, name, prefix, scopes, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(token.space.map_or(0, |s| s.0))
    .bind(hash_secret(secret).as_slice())
    .bind(token.id)
    .bind(&token.name)
    .bind(visible_prefix(secret))
    .bind(token.scopes.iter().map(|s| s.as_str()).collect::<Vec<_>>())
    .bind(token.created_at.to_utc())
    .bind(token.expires_at.map(Timestamp::to_utc))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Takes a token out of use for ever; false when there is no such token.
pub async fn revoke_token(pool: &PgPool, space: SpaceNo, id: Uuid, at: Timestamp) -> Result<bool> {
    let mut tx = pool.begin().await?;
    bump(&mut tx).await?;
    let done = sqlx::query(
        "-- store::registry::revoke_token
         UPDATE access_token SET revoked_at = $3 WHERE space_id = $1 AND token_id = $2 AND revoked_at IS NULL",
    )
    .bind(space.0)
    .bind(id)
    .bind(at.to_utc())
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}

/// Records that these secrets were used, a batch at a time.
pub async fn touch_secrets(pool: &PgPool, hashes: &[SecretHash], at: Timestamp) -> Result<()> {
    let hashes: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
    for sql in [
        "-- store::registry::touch_secrets\nUPDATE write_key SET last_used_at = $2 WHERE key_hash = ANY($1)",
        "-- store::registry::touch_secrets\nUPDATE access_token SET last_used_at = $2 WHERE token_hash = ANY($1)",
    ] {
        sqlx::query(sql).bind(&hashes).bind(at.to_utc()).execute(pool).await?;
    }
    Ok(())
}

/// Adds a write key to a source; `Exists` when it has been used before, revoked ones included.
pub async fn add_write_key(
    pool: &PgPool,
    space: SpaceNo,
    source: SourceNo,
    key: &str,
    at: Timestamp,
) -> Result<()> {
    let mut tx = pool.begin().await?;
    bump(&mut tx).await?;
    insert_write_key(&mut tx, space, source, key, at).await?;
    tx.commit().await?;
    Ok(())
}

/// Takes the write key of a source that is recognised by `prefix` out of use for ever; false when there is none, or when
/// more than one has it.
pub async fn revoke_write_key(
    pool: &PgPool,
    space: SpaceNo,
    source: SourceNo,
    prefix: &str,
    at: Timestamp,
) -> Result<bool> {
    let mut tx = pool.begin().await?;
    bump(&mut tx).await?;
    let done = sqlx::query(
        "-- store::registry::revoke_write_key
         UPDATE write_key SET revoked_at = $4
         WHERE space_id = $1 AND source_no = $2 AND prefix = $3 AND revoked_at IS NULL",
    )
    .bind(space.0)
    .bind(source.0)
    .bind(prefix)
    .bind(at.to_utc())
    .execute(&mut *tx)
    .await?;
    let is_one = done.rows_affected() == 1;
    if is_one {
        tx.commit().await?;
    }
    Ok(is_one)
}

/// What may be shown of a write key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyView {
    /// Its source.
    pub source: SourceNo,
    /// First characters, to recognise it by.
    pub prefix: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to half a minute.
    pub last_used_at: Option<Timestamp>,
}

/// The live write keys of a space, oldest first.
pub async fn list_write_keys(pool: &PgPool, space: SpaceNo) -> Result<Vec<KeyView>> {
    type Row = (i32, String, DateTime<Utc>, Option<DateTime<Utc>>);
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::registry::list_write_keys
         SELECT source_no, prefix, created_at, last_used_at FROM write_key
         WHERE space_id = $1 AND revoked_at IS NULL ORDER BY created_at, key_hash",
    )
    .bind(space.0)
    .fetch_all(pool)
    .await?;
    let view = |(source, prefix, created_at, used): Row| KeyView {
        source: SourceNo(source),
        prefix,
        created_at: created_at.into(),
        last_used_at: used.map(Timestamp::from),
    };
    Ok(rows.into_iter().map(view).collect())
}

/// When the live tokens of a space were last used; those that never were are left out.
pub async fn list_token_uses(pool: &PgPool, space: SpaceNo) -> Result<Vec<(Uuid, Timestamp)>> {
    let rows: Vec<(Uuid, DateTime<Utc>)> = sqlx::query_as(
        "-- store::registry::list_token_uses
         SELECT token_id, last_used_at FROM access_token
         WHERE space_id = $1 AND revoked_at IS NULL AND last_used_at IS NOT NULL",
    )
    .bind(space.0)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(id, at)| (id, at.into())).collect())
}

/// What of a secret may be shown again: enough to recognise it, not enough to use it.
pub fn visible_prefix(secret: &str) -> String {
    secret.chars().take(secret.len().min(24) / 3).collect()
}

/// The instant a test clock was left at.
pub async fn find_test_clock(pool: &PgPool) -> Result<Option<Timestamp>> {
    let sql = "-- store::registry::find_test_clock\nSELECT now_ms FROM test_clock";
    let now: Option<i64> = sqlx::query_scalar(sql).fetch_optional(pool).await?;
    Ok(now.map(Timestamp::from_millis))
}

/// Keeps the instant of the test clock; it never goes back.
pub async fn set_test_clock(pool: &PgPool, now: Timestamp) -> Result<()> {
    let sql = "-- store::registry::set_test_clock
         INSERT INTO test_clock (now_ms) VALUES ($1)
         ON CONFLICT (singleton) DO UPDATE SET now_ms = greatest(test_clock.now_ms, excluded.now_ms)";
    sqlx::query(sql).bind(now.millis()).execute(pool).await?;
    Ok(())
}

/// Numbers of all spaces.
pub async fn list_space_numbers(pool: &PgPool) -> Result<Vec<SpaceNo>> {
    let sql = "-- store::registry::list_space_numbers\nSELECT space_id FROM space ORDER BY space_id";
    let numbers: Vec<i32> = sqlx::query_scalar(sql).fetch_all(pool).await?;
    Ok(numbers.into_iter().map(SpaceNo).collect())
}
