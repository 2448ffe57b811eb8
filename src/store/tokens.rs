//! Access tokens.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::registry::{SecretHash, Token, bump, hash_secret, visible_prefix};
use super::{Result, Walled};
use crate::domain::{Scope, SpaceNo, Timestamp};

/// All tokens that have not been revoked.
pub async fn load_tokens(pool: &PgPool) -> Result<HashMap<SecretHash, Arc<Token>>> {
    type Row = (i32, Vec<u8>, Uuid, String, String, Vec<String>, DateTime<Utc>, Option<DateTime<Utc>>);
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::tokens::load_tokens
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

/// Makes an access token; `token.space` `None` is the server's owner.
pub async fn insert_token(pool: &PgPool, token: &Token, secret: &str) -> Result<()> {
    let mut tx = pool.begin().await?;
    bump(&mut tx).await?;
    sqlx::query(
        "-- store::tokens::insert_token
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
pub async fn revoke_token(door: &Walled, space: SpaceNo, id: Uuid, at: Timestamp) -> Result<bool> {
    let mut tx = door.begin().await?;
    bump(&mut tx).await?;
    let done = sqlx::query(
        "-- store::tokens::revoke_token
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

/// When the live tokens of a space were last used; those that never were are left out.
pub async fn list_token_uses(door: &Walled, space: SpaceNo) -> Result<Vec<(Uuid, Timestamp)>> {
    let rows: Vec<(Uuid, DateTime<Utc>)> = sqlx::query_as(
        "-- store::tokens::list_token_uses
         SELECT token_id, last_used_at FROM access_token
         WHERE space_id = $1 AND revoked_at IS NULL AND last_used_at IS NOT NULL",
    )
    .bind(space.0)
    .fetch_all(door)
    .await?;
    Ok(rows.into_iter().map(|(id, at)| (id, at.into())).collect())
}
