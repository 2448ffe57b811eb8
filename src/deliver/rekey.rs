//! A change of the key that secrets are encrypted with: when the service starts, what was encrypted with a key of before is
//! encrypted with the present one, a batch at a time. What cannot be opened stays as it is and is told; it is in nobody's
//! way.

use sqlx::postgres::PgPool;

use super::secrets::Keys;
use crate::clock::IdMaker;
use crate::domain::ids::public_id;
use crate::store::Result;
use crate::store::destinations::secrets::{self, Resealed, Sealed};

/// Destinations of a batch.
const BATCH: i64 = 100;

/// Encrypts all secrets with the present key. What goes wrong is told, and tried again at the next start.
pub(super) async fn run(pool: &PgPool, keys: &Keys, ids: &IdMaker) {
    let Some(present) = keys.present() else { return };
    match reseal_all(pool, keys, present, ids).await {
        Ok((0, _)) => {}
        Ok((done, 0)) => tracing::info!(
            done,
            "secrets of {done} destinations were encrypted anew with the key {present}: deliver.secret_keys_old is not needed \
             any more"
        ),
        Ok((done, left)) => tracing::warn!(
            done,
            left,
            "secrets of {done} destinations were encrypted anew with the key {present}, those of {left} could not be"
        ),
        Err(error) => {
            tracing::warn!(%error, "secrets could not be encrypted anew, which the next start tries again: {error}");
        }
    }
}

/// Returns how many were encrypted anew, and how many could not be.
async fn reseal_all(pool: &PgPool, keys: &Keys, present: &str, ids: &IdMaker) -> Result<(u64, u64)> {
    let (mut done, mut left, mut after) = (0, 0, (0, 0));
    loop {
        let batch = secrets::list_sealed_otherwise(pool, present, after, BATCH).await?;
        let Some(last) = batch.last() else { return Ok((done, left)) };
        after = (last.space.0, last.no.0);
        let mut resealed = Vec::with_capacity(batch.len());
        for Sealed { space, no, id, name, secrets: before, key_id } in batch {
            let opened = keys.open(id, &before, &key_id);
            match opened.and_then(|opened| keys.seal(id, &opened, ids)) {
                Ok((secrets, key_id)) => resealed.push(Resealed { space, no, before, secrets, key_id }),
                Err(error) => {
                    left += 1;
                    let id = public_id("dst", id);
                    tracing::error!(%space, id, "destination {name:?} ({id}) of space {space}: {error}");
                }
            }
        }
        done += secrets::reseal(pool, &resealed).await?;
    }
}
