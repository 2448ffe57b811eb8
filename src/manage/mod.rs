//! Operators' decisions: spaces, sources, write keys, access tokens and definitions; and what operators look at
//! before they decide.
//!
//! Guarantees: nothing is changed before it has been checked whole, a refusal says what is wrong and what would be
//! right, and secrets are handed out once, at their making.

pub mod bootstrap;
pub mod definitions;
mod error;
mod graph;
pub mod operations;
pub mod plans;
pub mod registry;
pub mod spaces;
pub mod test_clock;

use std::sync::Arc;

use sqlx::postgres::PgPool;

use crate::clock::{Clock, IdMaker};
use crate::engine::Limits;

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

/// The handle to everything in here. Clones share it.
#[derive(Debug, Clone)]
pub struct Manage {
    pool: PgPool,
    clock: Clock,
    ids: IdMaker,
    registry: Registry,
    limits: DefinitionLimits,
    /// Changes of definitions follow one another: each is checked against all others.
    editing: Arc<tokio::sync::Mutex<()>>,
}

impl Manage {
    /// Puts the parts together.
    pub fn new(
        pool: PgPool,
        clock: Clock,
        ids: IdMaker,
        registry: Registry,
        limits: DefinitionLimits,
    ) -> Self {
        Self { pool, clock, ids, registry, limits, editing: Arc::default() }
    }

    /// Who may do what.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A secret with 256 random bits: `wk_…`, `tok_…`.
    fn secret(&self, prefix: &str) -> String {
        format!("{prefix}_{}", hex::encode(self.ids.bytes::<32>()))
    }
}
