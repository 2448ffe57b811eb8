//! Profile look-ups: from memory where this process is the one that writes the space, else coalesced: many requests,
//! one statement.

use std::time::Instant;

use bytes::Bytes;
use hashbrown::HashMap;
use sqlx::postgres::PgPool;

use super::QueryError;
use super::coalesce::{Answering, Ask, Asking, coalesce};
use crate::domain::{IdKey, SpaceNo};
use crate::read_cache::{self, Found, LEASE_LEFT_MIN, ReadCache};
use crate::store::profiles;
use crate::store::{StoreError, walled};

/// An encoded profile and the version of the space's configuration it was read under.
type Answered = (Bytes, i64);

/// The asking side.
#[derive(Debug, Clone)]
pub(super) struct Lookup {
    asking: Asking<Profiles>,
    cache: ReadCache,
}

impl Lookup {
    /// Makes the two sides.
    pub(super) fn new(pool: PgPool, cache: ReadCache) -> (Self, Answering<Profiles>) {
        let (asking, answering) = coalesce(Profiles { pool, cache: cache.clone() });
        (Self { asking, cache }, answering)
    }

    /// The profile that has or had the identifier, and the version of the space's configuration.
    pub(super) async fn find(&self, space: SpaceNo, key: IdKey) -> Result<Option<Answered>, QueryError> {
        if let Some(known) = self.cache.get(space, key, Instant::now()) {
            return Ok(Some(known));
        }
        self.asking.find(space, key).await
    }
}

/// Profiles by identifier.
#[derive(Debug, Clone)]
pub(super) struct Profiles {
    pool: PgPool,
    cache: ReadCache,
}

impl Ask for Profiles {
    type Key = IdKey;
    type Answer = Answered;

    async fn ask(&self, space: SpaceNo, keys: &[IdKey]) -> Result<HashMap<IdKey, Answered>, StoreError> {
        // Before the statement: what it finds is good from now on.
        let look = self.cache.look(space, Instant::now());
        let found = profiles::find_by_keys(&walled(&self.pool, space), space, keys, LEASE_LEFT_MIN).await?;
        if let (Some(look), Some(first)) = (look, found.first()) {
            let standing = read_cache::Standing {
                version: first.version,
                epoch: first.epoch,
                is_leased: first.is_leased,
            };
            let keep = |f: &profiles::FoundProfile| Found { key: f.key, no: f.no, state: f.state.clone() };
            look.keep(standing, found.iter().map(keep));
        }
        Ok(found.into_iter().map(|f| (f.key, (f.state, f.version))).collect())
    }
}
