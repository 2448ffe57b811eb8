//! The processor of one space: holds the lease, and turns what is new in the log, due by time, or waiting to be
//! walked into profiles, one fenced transaction after the other.
//!
//! Anything that goes wrong ends it; the supervisor starts a new one from what is committed. So there is no state to
//! repair, ever.

use std::time::{Duration, Instant};

use chrono::NaiveDate;
use sqlx::Acquire;
use sqlx::postgres::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::backfill::Walk;
use super::cache::Cache;
use super::catalog::Catalog;
use super::dedup::Dedup;
use super::evaluate::{Waiting, evaluate_all};
use super::work::{Caches, Work};
use super::write::{self, Fence};
use crate::clock::Clock;
use crate::config;
use crate::domain::{Offset, ProfileNo, SpaceNo, Timestamp};
use crate::engine::Limits;
use crate::progress::{Board, Progress};
use crate::store::processor::{self, Lease};
use crate::store::{Result, StoreError, computations, log};
use crate::telemetry::metrics;

/// Profiles that are due are taken in slices of this many.
const DUE_SLICE: i64 = 5_000;

/// The processor of one space.
pub(super) struct SpaceProcessor {
    pub(super) space: SpaceNo,
    pub(super) pool: PgPool,
    pub(super) config: config::Processor,
    pub(super) catalog: Catalog,
    pub(super) caches: Caches,
    pub(super) dedup: Dedup,
    pub(super) processed: Offset,
    pub(super) day: NaiveDate,
    pub(super) last_profile: ProfileNo,
    pub(super) last_transition: i64,
    pub(super) walk: Option<Walk>,
    clock: Clock,
    board: Board,
    limits: Limits,
    epoch: i64,
    latest_version: i64,
    /// Never goes back, whatever the machine's clock does.
    now: Timestamp,
    /// When the next profile is due, as far as it is known.
    next_due: Option<Timestamp>,
    lease_renewed: Instant,
}

impl SpaceProcessor {
    /// Loads what the lease found.
    pub(super) async fn load(context: &Context, pool: &PgPool, space: SpaceNo, lease: Lease) -> Result<Self> {
        let config = context.config.clone();
        log::ensure_partitions(pool, space, context.clock.now()).await?;
        let mut tx = pool.begin().await?;
        // Fenced like everything else: loading starts what is pending, at the position of this lease.
        let standing = processor::Progress {
            from: lease.processed,
            to: lease.processed,
            last_profile: lease.last_profile,
            last_transition: lease.last_transition,
            ..processor::Progress::default()
        };
        let version = processor::advance(&mut tx, space, lease.epoch, &standing, config.lease).await?;
        let catalog = Catalog::load(&mut tx, space, version, lease.processed, context.limits).await?;
        let next_due = processor::next_due(&mut tx, space).await?.map(Timestamp::from_millis);
        tx.commit().await?;
        let mut connection = pool.acquire().await?;
        let recent_max = config.dedup_recent_max;
        let dedup = Dedup::load(&mut connection, space, lease.processed, recent_max).await?;
        Ok(Self {
            space,
            pool: pool.clone(),
            walk: catalog.walk.clone().map(|plan| Walk::new(plan, lease.last_profile)),
            catalog,
            caches: Caches {
                owners: Cache::new(config.identity_cache_max),
                profiles: Cache::new(config.profile_cache_bytes_max),
            },
            dedup,
            processed: lease.processed,
            day: NaiveDate::default(),
            last_profile: lease.last_profile,
            last_transition: lease.last_transition,
            clock: context.clock.clone(),
            board: context.board.clone(),
            limits: context.limits,
            epoch: lease.epoch,
            latest_version: version,
            now: Timestamp::EPOCH,
            next_due,
            lease_renewed: Instant::now(),
            config,
        })
    }

    /// Works until the shutdown, or until something goes wrong.
    pub(super) async fn run(
        mut self,
        mut appended: watch::Receiver<u64>,
        shutdown: &CancellationToken,
    ) -> Result<()> {
        while !shutdown.is_cancelled() {
            appended.mark_unchanged();
            if self.step().await? {
                continue;
            }
            self.renew_lease().await?;
            let wait = self.idle_time();
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = appended.changed() => {}
                () = tokio::time::sleep(wait) => {
                    self.latest_version = processor::config_version(&self.pool, self.space).await?;
                }
            }
        }
        processor::release_lease(&self.pool, self.space, self.epoch).await
    }

    /// One round of everything there is to do; false when there was nothing. What was computed under a configuration
    /// that has changed meanwhile was rolled back, and is done again under the new one.
    async fn step(&mut self) -> Result<bool> {
        match self.round().await {
            Err(StoreError::ConfigChanged) => {
                self.note_config_change();
                Ok(true)
            }
            done => done,
        }
    }

    async fn round(&mut self) -> Result<bool> {
        if self.latest_version != self.catalog.version {
            self.reload().await?;
        }
        self.now = self.now.max(self.clock.now());
        let now = self.now;
        let fired = self.fire_due(now).await?;
        let events = self.process_batch(now).await?;
        if self.dedup.is_full() {
            self.close_run().await?;
        }
        let walked = self.walk_on(now).await?;
        if fired == 0 && events == 0 {
            self.publish(Some(now));
        }
        Ok(fired > 0 || events > 0 || walked)
    }

    /// How long to wait when there is nothing to do: not past the next due time.
    fn idle_time(&self) -> Duration {
        let until_due = self.next_due.map(|at| at.millis().saturating_sub(self.clock.now().millis()).max(0));
        let until_due = until_due
            .filter(|_| !self.clock.is_test())
            .map_or(Duration::MAX, |ms| Duration::from_millis(ms.unsigned_abs()));
        self.config.poll.min(until_due).max(Duration::from_millis(1))
    }

    async fn renew_lease(&mut self) -> Result<()> {
        if self.lease_renewed.elapsed() > self.config.lease / 4 {
            processor::extend_lease(&self.pool, self.space, self.epoch, self.config.lease).await?;
            self.lease_renewed = Instant::now();
        }
        Ok(())
    }

    /// Takes in a changed configuration, and clears what deleted definitions left.
    async fn reload(&mut self) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        let mut progress = self.progress(self.processed);
        let version =
            processor::advance(&mut tx, self.space, self.epoch, &progress, self.config.lease).await?;
        let now = self.now.max(self.clock.now());
        for (definition, computation) in computations::list_to_clear(&mut tx, self.space).await? {
            let last = progress.last_transition;
            progress.last_transition +=
                computations::clear(&mut tx, self.space, definition, computation, last, now).await?;
        }
        if progress.last_transition != self.last_transition {
            processor::advance(&mut tx, self.space, self.epoch, &progress, self.config.lease).await?;
        }
        let catalog = Catalog::load(&mut tx, self.space, version, self.processed, self.limits).await?;
        tx.commit().await?;
        self.last_transition = progress.last_transition;
        self.latest_version = version;
        self.walk = Walk::replace(self.walk.take(), catalog.walk.clone(), self.last_profile);
        self.catalog = catalog;
        Ok(())
    }

    /// Lets everything happen that was due by `now`, in the order of time. Returns how many profiles were looked at.
    async fn fire_due(&mut self, now: Timestamp) -> Result<usize> {
        if self.next_due.is_none_or(|at| at > now) {
            return Ok(0);
        }
        let mut connection = self.pool.acquire().await?;
        let due = processor::find_due(&mut connection, self.space, now.millis(), DUE_SLICE).await?;
        let until = match due.last() {
            Some((_, at)) if due.len() as i64 == DUE_SLICE => Timestamp::from_millis(*at),
            _ => now,
        };
        let mut work = Work { last_profile: self.last_profile, ..Work::default() };
        let numbers = due.iter().map(|(no, _)| *no);
        work.load_profiles(&mut connection, self.space, &mut self.caches, numbers).await?;
        for (no, at) in &due {
            match work.entries.get_mut(no) {
                // What the index says is what has to be corrected, should the profile know better.
                Some(entry) => entry.indexed_due = Some(Timestamp::from_millis(*at)),
                None => work.out.forgotten_dues.push(*no),
            }
        }
        let waiting = self.waiting();
        // Instant by instant: a profile may enter and leave again before `until`.
        while let Some(at) =
            work.entries.values().filter_map(|e| e.profile.due_at()).min().filter(|at| *at <= until)
        {
            for entry in work.entries.values_mut().filter(|e| e.profile.due_at() == Some(at)) {
                entry.touched = true;
                for (no, _) in entry.profile.dues.iter().filter(|(_, due)| *due == at) {
                    self.catalog.program.mark(*no, &mut entry.dirty);
                }
                // Whatever is not evaluated again has no due time any more.
                entry.profile.dues.retain(|(_, due)| *due != at);
            }
            evaluate_all(&mut work, &self.catalog, at, waiting);
        }
        let mut progress = self.progress(self.processed);
        let mut tx = connection.begin().await?;
        work.entries.values_mut().for_each(|entry| entry.touched = true);
        write::write(&mut tx, self.fence(), &self.catalog, &mut work, &mut progress, until).await?;
        self.next_due = processor::next_due(&mut tx, self.space).await?.map(Timestamp::from_millis);
        tx.commit().await?;
        drop(connection);
        self.committed(work, &progress);
        Ok(due.len())
    }

    async fn close_run(&mut self) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        let progress = self.progress(self.processed);
        processor::advance(&mut tx, self.space, self.epoch, &progress, self.config.lease).await?;
        let closed = self.dedup.close_run(&mut tx, self.space, self.processed).await?;
        tx.commit().await?;
        self.dedup.closed(closed);
        Ok(())
    }

    /// Takes over what a transaction has made true.
    pub(super) fn committed(&mut self, work: Work, progress: &processor::Progress) {
        for transition in &work.out.transitions {
            metrics::AUDIENCE_TRANSITIONS.add(&[if transition.entered { "entered" } else { "left" }], 1);
        }
        let adds_types = !work.out.new_types.is_empty();
        let earliest = work.entries.values().filter_map(|e| e.profile.due_at()).min();
        self.next_due = match (self.next_due, earliest) {
            (Some(known), Some(new)) => Some(known.min(new)),
            (known, new) => known.or(new),
        };
        write::keep(work, &mut self.caches);
        self.processed = progress.to;
        self.last_profile = progress.last_profile;
        self.last_transition = progress.last_transition;
        self.lease_renewed = Instant::now();
        self.publish(None);
        if adds_types {
            // The transaction itself has changed the settings.
            self.note_config_change();
        }
    }

    /// The configuration was changed by this processor itself: reload before anything else.
    pub(super) fn note_config_change(&mut self) {
        self.latest_version = self.catalog.version - 1;
    }

    fn publish(&self, settled_at: Option<Timestamp>) {
        let settled_at = settled_at.unwrap_or(Timestamp::EPOCH);
        self.board.publish(self.space, Progress { processed: self.processed, settled_at });
    }

    /// What transactions are written under.
    pub(super) fn fence(&self) -> Fence {
        let config_version = self.catalog.version;
        Fence { space: self.space, epoch: self.epoch, lease: self.config.lease, config_version }
    }

    /// The profiles a walk in progress has still to come to.
    pub(super) fn waiting(&self) -> Waiting {
        self.walk.as_ref().map_or_else(Waiting::default, Walk::waiting)
    }
}
