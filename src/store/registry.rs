//! The snapshot of spaces, sources, write keys and access tokens that every request is checked against.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::Result;
use crate::domain::origin::AllowedOrigin;
use crate::domain::{Plan, Scope, SourceNo, SpaceNo, Timestamp};

/// SHA-256 of a secret: all the database ever sees of it.
pub type SecretHash = [u8; 32];

/// Hashes a write key or token. The secrets have 256 random bits, so one round is enough.
pub fn hash_secret(secret: &str) -> SecretHash {
    Sha256::digest(secret.as_bytes()).into()
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
    /// Pages it takes events from; `None` is any. Calls that no page makes are not asked.
    pub allowed_origins: Option<Arc<[AllowedOrigin]>>,
    /// Whether its write key is known to anybody, as those of pages and apps are.
    pub is_public: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A write key that has not been revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteKey {
    /// Whose log.
    pub space: SpaceNo,
    /// Which source.
    pub source: SourceNo,
    /// When it stops working; `None` is never.
    pub expires_at: Option<Timestamp>,
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
    /// Write keys that have not been revoked.
    pub write_keys: HashMap<SecretHash, WriteKey>,
    /// Tokens that have not been revoked.
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
    let sources = super::sources::list_sources(pool, None).await?;
    let keys = super::sources::load_write_keys(pool).await?;
    Ok(Registry {
        version,
        space_keys: spaces.iter().map(|s| (s.no, s.key.clone())).collect(),
        spaces: spaces.into_iter().map(|s| (s.key.clone(), Arc::new(s))).collect(),
        sources: sources.into_iter().map(|s| ((s.space, s.no), s)).collect(),
        write_keys: keys,
        tokens: super::tokens::load_tokens(pool).await?,
    })
}

/// Tells every process that the registry has changed. Part of the change's transaction.
pub(super) async fn bump(tx: &mut PgConnection) -> Result<()> {
    sqlx::query("-- store::registry::bump\nUPDATE registry SET version = version + 1").execute(tx).await?;
    Ok(())
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
