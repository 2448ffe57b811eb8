//! The rebuild: everything of a space derived from its log once more, beside what is live, and then put in its place.
//!
//! A second processor of the space works on a schema of its own (`store::rebuild`), from the first event of the log on and
//! never ahead of the live one. When it has come up to it, the two are compared; then the live one is fenced off, the
//! second one does the rest up to the very same event, and one transaction puts the difference in place. Whenever it is
//! killed it goes on where it was; when definitions or settings change meanwhile it begins anew (ADR 0013).

mod frozen;
mod report;
mod told;

use std::time::{Duration, Instant};

use sqlx::postgres::PgPool;
use sqlx::{Acquire, PgConnection};

use super::Context;
use super::space::{SpaceProcessor, Until};
use crate::domain::{Offset, SpaceNo, Timestamp};
use crate::read_cache::TRUST;
use crate::store::identity::SettingsRow;
use crate::store::rebuild::{self as shadow, Place, compare, renumber, swap};
use crate::store::{self, StoreError, log, processor, registry};

pub use report::{Audience, Difference, Report, Some20, Swap};

/// Connections of the second processor.
const CONNECTIONS_MAX: u32 = 4;
/// How often progress is told, and looked whether it still makes sense.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Pause while definitions are being computed over history.
const WAIT_EVERY: Duration = Duration::from_millis(250);
/// How long the lease of a space is taken over for the swap. Should this process die before it, processing goes on after
/// that.
const FENCE: Duration = Duration::from_secs(10);
/// The swap begins when the last stretch took no longer than this.
const NEAR: Duration = Duration::from_millis(500);
/// Who changes definitions so often that it is begun anew so many times has to be told.
const BEGINNINGS_MAX: u32 = 4;

/// What to rebuild.
#[derive(Debug, Clone)]
pub struct Task {
    /// The database of the service.
    pub pool: PgPool,
    /// For the second processor: nobody follows its board, and it answers nobody from memory.
    pub context: Context,
    /// Whose.
    pub space: SpaceNo,
    /// Only tell what would be different.
    pub dry_run: bool,
    /// Settings everything is derived by, instead of those that count. They are tried: the rest is a dry run.
    pub tried: Option<SettingsRow>,
    /// Also when the first events are no longer kept: profiles that have none in the log are lost.
    pub forget_lost: bool,
}

/// Why it did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// One at a time.
    #[error("this space is being rebuilt already, by another process")]
    UnderWay,
    /// Retention has dropped the beginning.
    #[error(
        "the log no longer begins at its first event: {0} events are not kept any more, and profiles that have no newer \
         ones would be lost; --forget-lost accepts that"
    )]
    Incomplete(Offset),
    /// Nobody works on them.
    #[error(
        "definitions wait to be computed over history ({0}): start the server, and rebuild when they are live"
    )]
    Unfinished(String),
    /// They change faster than it comes to an end.
    #[error("definitions or identity settings were changed meanwhile: try again when they rest")]
    Restless,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is told on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It begins.
    Begins,
    /// It goes on behind this offset, where an earlier one was broken off.
    GoesOn(Offset),
    /// Definitions, settings or the log are not what they were.
    BeginsAnew,
    /// Definitions that are being computed over history come first.
    WaitsFor(Vec<String>),
    /// So far it is, of so much.
    Progress(Offset, Offset),
    /// What is live is compared with what was derived.
    Compares,
    /// The live processor stands still.
    Swaps,
}

/// What one try came to.
enum Tried {
    Done(Box<Report>),
    Changed,
}

impl Task {
    /// Runs to the end. Dropping it is no worse than killing it.
    pub async fn run(&self, tell: &(dyn Fn(Told) + Sync)) -> Result<Report, RebuildError> {
        let mut guard = self.pool.acquire().await.map_err(StoreError::from)?.detach();
        if !shadow::try_guard(&mut guard, self.space).await? {
            return Err(RebuildError::UnderWay);
        }
        let place = Place::of(&self.pool, self.space, self.tried.clone()).await?;
        for _ in 0..BEGINNINGS_MAX {
            match Box::pin(self.try_once(&place, tell)).await? {
                Tried::Done(report) => return Ok(*report),
                // What is tried was made of settings that may no longer be those there are.
                Tried::Changed if self.tried.is_some() => break,
                Tried::Changed => tell(Told::BeginsAnew),
            }
        }
        Err(RebuildError::Restless)
    }

    async fn try_once(&self, place: &Place, tell: &(dyn Fn(Told) + Sync)) -> Result<Tried, RebuildError> {
        self.prepare(place, tell).await?;
        let options = place.connect_options(self.context.connect_options.clone());
        let beside = store::connect_for_processing(options, CONNECTIONS_MAX).await?;
        let tried = self.derive(place, &beside, tell).await;
        beside.close().await;
        let tried = tried?;
        if matches!(tried, Tried::Changed) {
            let mut connection = self.pool.acquire().await.map_err(StoreError::from)?;
            shadow::discard(&mut connection, place).await?;
        }
        Ok(tried)
    }

    /// Finds what an earlier one has left, or begins.
    async fn prepare(&self, place: &Place, tell: &(dyn Fn(Told) + Sync)) -> Result<(), RebuildError> {
        self.wait_for_definitions(tell).await?;
        let start = shadow::log_begins(&self.pool, self.space).await?;
        if start.0 > 0 && !self.forget_lost {
            return Err(RebuildError::Incomplete(start));
        }
        if shadow::can_resume(&self.pool, place).await? {
            return Ok(());
        }
        shadow::begin(&self.pool, place, start, self.now().await?).await?;
        tell(Told::Begins);
        Ok(())
    }

    /// A version is swapped in by the live processor alone.
    async fn wait_for_definitions(&self, tell: &(dyn Fn(Told) + Sync)) -> Result<(), RebuildError> {
        let mut told = Vec::new();
        loop {
            let unfinished = shadow::list_unfinished(&self.pool, self.space).await?;
            if unfinished.is_empty() {
                return Ok(());
            }
            if processor::find_holder(&self.pool, self.space).await?.is_none() {
                return Err(RebuildError::Unfinished(unfinished.join(", ")));
            }
            if unfinished != told {
                tell(Told::WaitsFor(unfinished.clone()));
                told = unfinished;
            }
            tokio::time::sleep(WAIT_EVERY).await;
        }
    }

    async fn derive(
        &self,
        place: &Place,
        beside: &PgPool,
        tell: &(dyn Fn(Told) + Sync),
    ) -> Result<Tried, RebuildError> {
        // Whoever worked here before is gone: the guard is ours.
        processor::end_all_leases(beside).await?;
        let owner = self.context.ids.uuid();
        let lease = processor::take_lease(beside, self.space, owner, self.context.config.lease).await?;
        let lease = lease.ok_or(StoreError::Fenced)?;
        if lease.last_profile.0 > 0 {
            tell(Told::GoesOn(lease.processed));
        }
        let mut again = SpaceProcessor::load_beside(&self.context, beside, self.space, lease).await?;
        if !self.follow(place, &mut again, tell).await? {
            return Ok(Tried::Changed);
        }
        shadow::analyse(&self.pool, place).await?;
        tell(Told::Compares);
        let mut report = self.compare(place, &mut again).await?;
        if self.dry_run || self.tried.is_some() {
            drop(again);
            let mut connection = self.pool.acquire().await.map_err(StoreError::from)?;
            shadow::discard(&mut connection, place).await?;
            return Ok(Tried::Done(Box::new(report)));
        }
        loop {
            // What came meanwhile.
            if !self.follow(place, &mut again, tell).await? {
                return Ok(Tried::Changed);
            }
            tell(Told::Swaps);
            match self.swap(place, &mut again).await {
                Ok(Some(swapped)) => {
                    report.swap = Some(swapped);
                    return Ok(Tried::Done(Box::new(report)));
                }
                Ok(None) => return Ok(Tried::Changed),
                // It took too long, and the live processor has gone on: once more.
                Err(RebuildError::Store(StoreError::Fenced)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Works until it is close behind the live processor; false when what it works with has changed.
    async fn follow(
        &self,
        place: &Place,
        again: &mut SpaceProcessor,
        tell: &(dyn Fn(Told) + Sync),
    ) -> Result<bool, RebuildError> {
        let mut connection = self.pool.acquire().await.map_err(StoreError::from)?;
        loop {
            let began = Instant::now();
            shadow::touch(&mut *connection, self.space).await?;
            if !shadow::is_current(&mut connection, place, false).await? {
                return Ok(false);
            }
            let offset = compare::standing(&mut connection, self.space).await?.processed();
            again.until = Some(Until { offset, at: Timestamp::EPOCH });
            let mut is_at_it = true;
            while is_at_it && began.elapsed() < TELL_EVERY {
                is_at_it = again.step().await?;
            }
            tell(Told::Progress(again.processed(), offset));
            if !is_at_it && began.elapsed() < NEAR {
                return Ok(true);
            }
        }
    }

    /// Until when everything has happened that the live processor, which stands there, has let happen.
    async fn instant_at(&self, live: &mut PgConnection, offset: Offset) -> Result<Timestamp, RebuildError> {
        // Timers never overtake events that are in the log already.
        let waiting = log::oldest_after(&mut *live, self.space, offset).await?;
        // Nor what the live processor has still to let happen, if it has been stopped: it would be no difference but of time.
        let due = processor::next_due(live, self.space).await?;
        let before_due = due.map(|at| Timestamp::from_millis(at - 1));
        Ok([waiting, before_due].into_iter().flatten().fold(self.now().await?, Timestamp::min))
    }

    /// Works up to where the live processor stands, and lets everything happen that was due by then.
    async fn catch_up(&self, again: &mut SpaceProcessor, until: Until) -> Result<(), RebuildError> {
        again.until = Some(until);
        while again.step().await? {}
        Ok(())
    }

    /// What is different, as of one snapshot of what is live.
    async fn compare(&self, place: &Place, again: &mut SpaceProcessor) -> Result<Report, RebuildError> {
        let mut connection = self.pool.acquire().await.map_err(StoreError::from)?;
        let mut live = connection.begin().await.map_err(StoreError::from)?;
        compare::one_snapshot(&mut live).await?;
        let standing = compare::standing(&mut live, self.space).await?;
        let offset = standing.processed();
        let at = self.instant_at(&mut live, offset).await?;
        self.catch_up(again, Until { offset, at }).await?;
        let mut rebuilt = again.pool.acquire().await.map_err(StoreError::from)?;
        let renumbered = renumber::find(&mut rebuilt, place).await?;
        Ok(report::compare(&mut live, &mut rebuilt, again, &renumbered).await?)
    }

    /// Fences the live processor off, does what is left, and puts it in place.
    async fn swap(&self, place: &Place, again: &mut SpaceProcessor) -> Result<Option<Swap>, RebuildError> {
        let owner = self.context.ids.uuid();
        let (epoch, processed) = swap::fence(&self.pool, self.space, owner, FENCE).await?;
        let fenced = Instant::now();
        let swapped = Box::pin(self.swap_fenced(place, again, (epoch, processed, fenced))).await;
        if !matches!(swapped, Ok(Some(_))) {
            // Nothing has happened: the live processor need not wait for the lease to run out.
            let _released = processor::release_lease(&self.pool, self.space, epoch).await;
        }
        swapped
    }

    async fn swap_fenced(
        &self,
        place: &Place,
        again: &mut SpaceProcessor,
        (epoch, processed, fenced): (i64, Offset, Instant),
    ) -> Result<Option<Swap>, RebuildError> {
        let at = {
            let mut live = self.pool.acquire().await.map_err(StoreError::from)?;
            self.instant_at(&mut live, processed).await?
        };
        self.catch_up(again, Until { offset: processed, at }).await?;
        frozen::carry_over(again, &self.pool).await?;
        // Answers from memory rely on a look at the lease that is no older than this: none are given when it is over.
        tokio::time::sleep((TRUST * 2).saturating_sub(fenced.elapsed())).await;
        let mut tx = self.pool.begin().await.map_err(StoreError::from)?;
        let swapped = self.replace(&mut tx, place, again, epoch).await?;
        let Some(swapped) = swapped else { return Ok(None) };
        tx.commit().await.map_err(StoreError::from)?;
        Ok(Some(Swap {
            rows: swapped.rows,
            transitions: swapped.transitions,
            held_ms: fenced.elapsed().as_millis() as u64,
        }))
    }

    async fn replace(
        &self,
        tx: &mut PgConnection,
        place: &Place,
        again: &SpaceProcessor,
        epoch: i64,
    ) -> Result<Option<swap::Swapped>, RebuildError> {
        let now = self.now().await?;
        if !swap::hold(tx, place, epoch).await? {
            return Ok(None);
        }
        let renumbered = renumber::find(tx, place).await?;
        if !renumbered.is_empty() {
            renumber::renumber(tx, place).await?;
        }
        // While both can be looked at.
        told::tell(tx, again, &renumbered, now).await?;
        Ok(Some(swap::swap(tx, place, !renumbered.is_empty(), now).await?))
    }

    /// The time; a test clock is moved by the server.
    async fn now(&self) -> store::Result<Timestamp> {
        if self.context.clock.is_test()
            && let Some(at) = registry::find_test_clock(&self.pool).await?
        {
            self.context.clock.advance_to(at);
        }
        Ok(self.context.clock.now())
    }
}
