//! Operators' decisions: spaces, sources, write keys, access tokens and definitions; and what operators look at
//! before they decide.
//!
//! Guarantees: nothing is changed before it has been checked whole, a refusal says what is wrong and what would be
//! right, and secrets are handed out once, at their making.

pub mod acts;
pub mod audit;
pub mod bootstrap;
pub mod consents;
pub mod definitions;
pub mod deliveries;
pub mod destinations;
mod error;
mod gates;
mod graph;
pub mod identity_settings;
pub mod identity_trial;
pub mod operations;
pub mod plans;
pub mod quarantine;
pub mod queries;
pub mod registry;
pub mod regulations;
pub mod retention;
pub mod search;
pub mod sensitive;
pub mod sources;
pub mod spaces;
pub mod subscriptions;
pub mod test_clock;
pub mod tokens;

use std::sync::Arc;

use sqlx::postgres::PgPool;

use crate::clock::{Clock, IdMaker};
use crate::deliver::opener::Opener;
use crate::domain::SpaceNo;
use crate::engine::Limits;
use crate::read_cache::{ReadCache, TRUST};
use crate::store::{Walled, processor, walled};

pub use crate::engine::{QueryError, query::ErrorKind};
pub use error::{ManageError, Result};
pub use registry::Registry;

/// What definitions a space may have.
#[derive(Debug, Clone, Copy)]
pub struct DefinitionLimits {
    /// Of one definition.
    pub query: Limits,
    /// Audiences and computed traits in one space.
    pub definitions: usize,
}

/// What changes are made with.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The time.
    pub clock: Clock,
    /// Ids and secrets.
    pub ids: IdMaker,
    /// Opens destinations, to judge their settings and to try them.
    pub opener: Arc<Opener>,
}

/// The handle to everything in here. Clones share it.
#[derive(Debug, Clone)]
pub struct Manage {
    pool: PgPool,
    clock: Clock,
    ids: IdMaker,
    registry: Registry,
    limits: DefinitionLimits,
    read_cache: ReadCache,
    opener: Arc<Opener>,
    /// Reads of personal data that are not in the audit log yet.
    reads: audit::Reads,
    /// Changes of definitions follow one another: each is checked against all others.
    editing: Arc<tokio::sync::Mutex<()>>,
}

impl Manage {
    /// Puts the parts together.
    pub fn new(
        pool: PgPool,
        Tools { clock, ids, opener }: Tools,
        registry: Registry,
        limits: DefinitionLimits,
        read_cache: ReadCache,
    ) -> Self {
        let (reads, editing) = (audit::Reads::default(), Arc::default());
        Self { pool, clock, ids, registry, limits, read_cache, opener, reads, editing }
    }

    /// Where statements about one space go.
    fn door(&self, space: SpaceNo) -> Walled {
        walled(&self.pool, space)
    }

    /// Who may do what.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Does something that changes the configuration of a space. Once it returns, no process answers reads under the
    /// configuration before.
    async fn reconfigure<T, E>(
        &self,
        space: SpaceNo,
        change: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, E> {
        let changing = self.read_cache.change(space);
        let changed = change.await;
        drop(changing);
        // Only who holds the space answers from memory; if that is another process, it looks again in time.
        let is_alone = match processor::find_holder(&self.door(space), space).await {
            Ok(epoch) => epoch.is_none_or(|epoch| self.read_cache.is_held(space, epoch)),
            Err(_) => false,
        };
        if !is_alone {
            tokio::time::sleep(TRUST + TRUST / 4).await;
        }
        changed
    }

    /// A secret with 256 random bits: `wk_…`, `tok_…`.
    fn secret(&self, prefix: &str) -> String {
        format!("{prefix}_{}", hex::encode(self.ids.bytes::<32>()))
    }
}
