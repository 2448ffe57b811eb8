//! History: events of the log, folded again by the same pure engine that folds them live. A backfill reads it to bring
//! new definitions up to date, a preview to say what a definition would be.

pub mod verify;
pub mod watch;

use std::collections::BTreeMap;

use hashbrown::HashMap;
use sqlx::postgres::PgPool;

use crate::domain::{LeafNo, Offset, ProfileNo, SpaceNo};
use crate::engine::{LeafSpec, LeafStates};
use crate::store::log::codec::Records;
use crate::store::log::numbers::Fate;
use crate::store::{Result, log};

/// Profile numbers one pass gathers partial states for: bounds the memory it takes.
pub const PASS_PROFILES: u64 = 500_000;
/// Chunks read at a time.
const SCAN_CHUNKS: i64 = 16;

/// What history makes of leaves, by the number of the profile its events went to.
pub type Partials = BTreeMap<ProfileNo, LeafStates>;

/// One pass over history for the profiles numbered in (after, until].
#[derive(Debug)]
pub struct Scan {
    /// Whose log.
    pub space: SpaceNo,
    /// Leaves, each with the position up to which its events count.
    pub leaves: Vec<(LeafNo, Offset, LeafSpec)>,
    /// Profiles after this one,
    pub after: ProfileNo,
    /// up to this one.
    pub until: ProfileNo,
    /// Profiles that are to be taken for those that absorbed them.
    pub absorbed: HashMap<ProfileNo, ProfileNo>,
}

impl Scan {
    /// Reads the log and folds what counts; to be dropped when nobody waits for it any more.
    pub async fn run(self, pool: PgPool) -> Result<Partials> {
        let names = self.event_names();
        let end = self.leaves.iter().map(|(_, until, _)| *until).max().unwrap_or_default();
        let (mut partials, mut position) = (Partials::new(), Offset(0));
        while position < end {
            let chunks =
                log::read_history(&pool, self.space, position, end, names.as_deref(), SCAN_CHUNKS).await?;
            let Some(last) = chunks.last() else { break };
            position = last.chunk.end_offset;
            for history in &chunks {
                self.fold_chunk(history, &mut partials)?;
                tokio::task::yield_now().await;
            }
        }
        Ok(partials)
    }

    /// The names of all events that matter; `None` where a pattern names them.
    fn event_names(&self) -> Option<Vec<String>> {
        let names = self.leaves.iter().map(|(_, _, spec)| spec.event.exact().map(str::to_owned));
        let mut names: Vec<String> = names.collect::<Option<_>>()?;
        names.sort_unstable();
        names.dedup();
        Some(names)
    }

    fn fold_chunk(&self, history: &log::HistoryChunk, partials: &mut Partials) -> Result<()> {
        let content = history.chunk.content()?;
        let fates = Fate::decode_all(&history.numbers)?;
        let mut offset = history.chunk.first_offset();
        for (record, fate) in Records::new(&content)?.zip(fates) {
            let record = record?;
            let at = offset;
            offset.0 += 1;
            let Fate::Attributed { user: Some(user), .. } = fate else { continue };
            let user = self.absorbed.get(&user).copied().unwrap_or(user);
            if user <= self.after || user > self.until {
                continue;
            }
            let facts = record.facts(at);
            let concerned =
                |(_, until, spec): &&(LeafNo, Offset, LeafSpec)| at <= *until && spec.means(&facts);
            for (leaf, _, spec) in self.leaves.iter().filter(concerned) {
                if spec.matches(&facts) {
                    partials.entry(user).or_default().update(*leaf, |state| spec.fold(state, &facts));
                }
            }
        }
        Ok(())
    }
}
