//! History: events of the log, folded again by the same pure engine that folds them live. A backfill reads it to bring
//! new definitions up to date, a preview to say what a definition would be.

mod columns;
mod gathered;
mod members;
pub mod pace;
pub mod segments;
pub mod sweep;
pub mod verify;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use sqlx::PgExecutor;
use sqlx::postgres::PgPool;

use crate::domain::{LeafNo, Offset, ProfileNo, SpaceNo, Timestamp};
use crate::engine::{LeafSpec, LeafStates, Scope};
use crate::store::log::codec::Records;
use crate::store::log::numbers::Fate;
use crate::store::{Result, Walled, log};
use columns::{Columnar, Columns, Stretch};
use gathered::Gathered;
use pace::Pace;

/// Profile numbers one pass gathers partial states for: bounds the memory it takes.
pub const PASS_PROFILES: u64 = 500_000;
/// Chunks read at a time.
const SCAN_CHUNKS: i64 = 16;

/// What history makes of leaves, by the number of the profile its events went to.
#[derive(Debug, Default)]
pub struct Partials {
    /// States of profiles; of users those of events that name no account, where that makes a difference.
    pub profiles: BTreeMap<ProfileNo, LeafStates>,
    /// States of seats: of events of a user that name an account.
    pub seats: BTreeMap<(ProfileNo, ProfileNo), LeafStates>,
}

impl Partials {
    /// The states of a profile.
    pub fn get(&self, no: ProfileNo) -> Option<&LeafStates> {
        self.profiles.get(&no)
    }

    /// The states of the seats of a user, by account.
    pub fn seats_of(&self, user: ProfileNo) -> impl Iterator<Item = (ProfileNo, &LeafStates)> {
        let all = (user, ProfileNo(0))..=(user, ProfileNo(u64::MAX));
        self.seats.range(all).map(|((_, account), states)| (*account, states))
    }

    /// Forgets the profiles up to one.
    pub fn forget_until(&mut self, until: ProfileNo) {
        let next = ProfileNo(until.0 + 1);
        self.profiles = self.profiles.split_off(&next);
        self.seats = self.seats.split_off(&(next, ProfileNo(0)));
    }
}

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
    /// Nobody reads the states as of an earlier instant: what has left its window by then is left out.
    pub at: Timestamp,
    /// So many tasks fold segments at the same time.
    pub tasks: usize,
    /// How hard it works.
    pub pace: Pace,
}

/// Where the log is read: through the wall of its space, or as the owner of the tables, who may read copies beside them.
pub trait Source: Clone + Send + Sync + 'static {}

impl Source for Walled {}
impl Source for PgPool {}

type Leaf = (LeafNo, Offset, LeafSpec);

impl Scan {
    /// Reads the log and folds what counts; to be dropped when nobody waits for it any more. Leaves that read nothing
    /// but properties are folded from segments as far as there are any, everything else from chunks.
    pub async fn run<D: Source>(mut self, db: D) -> Result<Partials>
    where
        for<'d> &'d D: PgExecutor<'d>,
    {
        let leaves = std::mem::take(&mut self.leaves);
        let end = leaves.iter().map(|(_, until, _)| *until).max().unwrap_or_default();
        let everything = Stretch { after: Offset(0), end };
        let (mut columnar, mut whole) = (Vec::new(), Vec::new());
        for leaf in leaves {
            match Columnar::of(&leaf, self.at) {
                Some(leaf) => columnar.push(leaf),
                None => whole.push(leaf),
            }
        }
        let scan = Arc::new(self);
        let columns = Columns::new(Arc::clone(&scan), columnar);
        let (mut gathered, gaps) = columns.fold(&db, everything).await?;
        let columnar: Vec<Leaf> = columns.leaves().collect();
        for gap in gaps {
            scan.fold_chunks(&db, &columnar, gap, &mut gathered).await?;
        }
        scan.fold_chunks(&db, &whole, everything, &mut gathered).await?;
        Ok(gathered.into_partials())
    }

    /// Whose an event of this profile is now, when that is one of this pass.
    fn profile_of(&self, user: ProfileNo) -> Option<ProfileNo> {
        let user = self.absorbed.get(&user).copied().unwrap_or(user);
        (self.after < user && user <= self.until).then_some(user)
    }

    async fn fold_chunks<D: Source>(
        &self,
        db: &D,
        leaves: &[Leaf],
        Stretch { after, end }: Stretch,
        gathered: &mut Gathered,
    ) -> Result<()>
    where
        for<'d> &'d D: PgExecutor<'d>,
    {
        if leaves.is_empty() {
            return Ok(());
        }
        let names = event_names(leaves.iter().map(|(_, _, spec)| spec));
        let mut position = after;
        while position < end {
            let began = Instant::now();
            let chunks =
                log::read_history(db, self.space, position, end, names.as_deref(), SCAN_CHUNKS).await?;
            let Some(last) = chunks.last() else { break };
            let within = Stretch { after: std::mem::replace(&mut position, last.chunk.end_offset), end };
            for history in &chunks {
                self.fold_chunk(history, leaves, within, gathered)?;
                tokio::task::yield_now().await;
            }
            self.pace.rest(began.elapsed()).await;
        }
        Ok(())
    }

    fn fold_chunk(
        &self,
        history: &log::HistoryChunk,
        leaves: &[Leaf],
        within: Stretch,
        gathered: &mut Gathered,
    ) -> Result<()> {
        let content = history.chunk.content()?;
        let fates = Fate::decode_all(&history.numbers)?;
        let mut offset = history.chunk.first_offset();
        for (record, fate) in Records::new(&content)?.zip(fates) {
            let record = record?;
            let at = offset;
            offset.0 += 1;
            // Chunks are joined meanwhile: one may reach beyond what is to be folded now.
            if at <= within.after || at > within.end {
                continue;
            }
            let Fate::Attributed { user, account } = fate else { continue };
            let of = |no: Option<ProfileNo>| no.and_then(|no| self.profile_of(no));
            let (user, of_account) = (of(user), of(account));
            let facts = record.facts(at);
            let named = account.filter(|_| record.event_type.is_event());
            for (leaf, until, spec) in leaves {
                if at > *until || !spec.means(&facts) {
                    continue;
                }
                let state = match (spec.scope, user, named) {
                    (Scope::Account, ..) => of_account.and_then(|account| gathered.state(*leaf, account)),
                    (Scope::Member | Scope::Pool, Some(user), Some(account)) => {
                        Some(gathered.of_seats(*leaf).entry((user, account)).or_default())
                    }
                    (_, user, _) => user.and_then(|user| gathered.state(*leaf, user)),
                };
                if let Some(state) = state {
                    spec.fold(state, &facts);
                }
            }
        }
        Ok(())
    }
}

/// The names of all events that matter; `None` where a pattern names them.
fn event_names<'a>(specs: impl Iterator<Item = &'a LeafSpec>) -> Option<Vec<String>> {
    let names = specs.map(|spec| spec.event.exact().map(str::to_owned));
    let mut names: Vec<String> = names.collect::<Option<_>>()?;
    names.sort_unstable();
    names.dedup();
    Some(names)
}
