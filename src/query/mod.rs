//! The read side: profiles, members, values, transitions, and waiting for what was written.
//!
//! Look-ups are coalesced: while one statement is under way the questions that arrive meanwhile gather for the next
//! one. Nothing is counted on request.

mod audiences;
mod coalesce;
mod directory;
mod explain;
mod export;
mod import;
mod lists;
mod lookup;
mod members;
mod people;
mod preview;
mod preview_accounts;
mod schema;
mod search;
mod tail;
mod timeline;
mod wait;

use std::sync::Arc;

use sqlx::postgres::PgPool;
use tokio::sync::Semaphore;

pub use audiences::{Size, ValueRow};
pub use directory::Directory;
pub use explain::{Explained, Why};
pub use export::{FILES as EXPORTED_FILES, Pieces};
pub use import::{ImportReport, NotYours};
pub use lists::{Recent, RecentAfter, StartAfter, Started};
pub use members::{FullMember, TypeCount};
pub use people::{Computed, LinkedProfile, Person, Selector, Trait, TraitClass};
pub use preview::{Draft, Preview};
pub use schema::{Remark, Seen};
pub use search::{Searchability, Wanted};
pub use tail::{TailFilter, TailMark, Tailed};
pub use timeline::{Direction, EventFilter, TimelineCursor, TimelineEvent};
pub use wait::WaitError;

pub use crate::engine::consent;
pub use crate::engine::explain::{Explanation, Forecast, Reading, Reason, ReasonKind};
pub use crate::engine::identity::resolve::Held as Identifier;
pub use crate::engine::profile::OutcomeValue;
pub use crate::engine::search::VALUE_BYTES_MAX as SEARCH_BYTES_MAX;
pub use crate::engine::traits::Write;
pub use crate::store::definitions::{Definition, Kind};
pub use crate::store::memberships::{Member, Transition};

use crate::clock::Clock;
use crate::domain::SpaceNo;
use crate::progress::Board;
use crate::read_cache::ReadCache;
use crate::store::{StoreError, Walled, walled};
use audiences::{Definitions, Sizes};
use coalesce::{Answering, Asking, coalesce};
use directory::Directories;
use lookup::{Lookup, Profiles};

/// Answers questions about one database.
#[derive(Debug, Clone)]
pub struct Reader {
    pool: PgPool,
    board: Board,
    clock: Clock,
    asks: Asks,
    directories: Arc<Directories>,
    /// One preview at a time.
    previews: Arc<Semaphore>,
    /// A few streams of members at a time.
    exports: Arc<Semaphore>,
}

/// Questions that are answered together.
#[derive(Debug, Clone)]
pub struct Asks {
    lookup: Lookup,
    definitions: Asking<Definitions>,
    sizes: Asking<Sizes>,
}

/// What answers them.
#[derive(Clone)]
pub struct Answers {
    profiles: Answering<Profiles>,
    definitions: Answering<Definitions>,
    sizes: Answering<Sizes>,
}

/// Makes the two sides. `lookups` is for profiles alone.
pub fn asks(pool: &PgPool, lookups: PgPool, cache: ReadCache) -> (Asks, Answers) {
    let (lookup, profiles) = Lookup::new(lookups, cache);
    let (definitions, of_definitions) = coalesce(Definitions(pool.clone()));
    let (sizes, of_sizes) = coalesce(Sizes(pool.clone()));
    let answers = Answers { profiles, definitions: of_definitions, sizes: of_sizes };
    (Asks { lookup, definitions, sizes }, answers)
}

impl Answers {
    /// Answers until nobody can ask any more: to be run as many times as statements of a kind should overlap.
    pub async fn run(self) {
        tokio::join!(self.profiles.run(), self.definitions.run(), self.sizes.run());
    }
}

/// Streams of members at a time; others wait.
const EXPORTS: usize = 2;

/// Why a question could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The database could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The look-up task has ended: the server is stopping.
    #[error("the server is stopping")]
    Stopping,
    /// A stored profile could not be read.
    #[error("a stored profile could not be read: {0}")]
    Decode(#[from] crate::engine::profile::DecodeError),
    /// A row of an export could not be written.
    #[error("a row could not be written: {0}")]
    Row(#[from] serde_json::Error),
}

impl Reader {
    /// Puts the parts together; run the tasks of [`asks()`] beside it.
    pub fn new(pool: PgPool, board: Board, clock: Clock, asks: Asks) -> Self {
        let previews = Arc::new(Semaphore::new(1));
        let exports = Arc::new(Semaphore::new(EXPORTS));
        Self { pool, board, clock, asks, directories: Arc::default(), previews, exports }
    }

    /// Where statements about one space go.
    fn door(&self, space: SpaceNo) -> Walled {
        walled(&self.pool, space)
    }

    /// What names and numbers of a space mean, at least as new as `version` of its configuration.
    pub async fn directory(
        &self,
        space: SpaceNo,
        version: Option<i64>,
    ) -> Result<Arc<Directory>, QueryError> {
        Ok(self.directories.get(&self.door(space), space, version).await?)
    }
}
