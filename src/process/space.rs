//! The processor of one space: holds the lease, and turns what is new in the log, due by time, or waiting to be
//! walked into profiles, one fenced transaction after the other.
//!
//! Anything that goes wrong ends it; the supervisor starts a new one from what is committed. So there is no state to
//! repair, ever.

use std::time::{Duration, Instant};

use chrono::NaiveDate;
use sqlx::postgres::PgPool;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Context;
use super::backfill::Walk;
use super::catalog::Catalog;
use super::dedup::Dedup;
use super::evaluate::Waiting;
use super::schema::Schema;
use super::suspects::Known;
use super::warned::Warned;
use super::work::{Caches, Pending};
use super::write::{self, Fence, Prepared};
use crate::clock::Clock;
use crate::config;
use crate::domain::{Offset, ProfileNo, SpaceNo, Timestamp};
use crate::engine::Limits;
use crate::progress::{Board, Progress};
use crate::read_cache::{Hold, Writing};
use crate::store::destinations::syncs;
use crate::store::memberships::Transition;
use crate::store::processor::{self, Lease};
use crate::store::{Result, StoreError, computations, log};
use crate::telemetry::metrics;

/// Where a processor stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    pub processed: Offset,
    /// Day of the last chunk: older ones are not looked at.
    pub day: NaiveDate,
    pub last_profile: ProfileNo,
    pub last_transition: i64,
}

/// What a micro-batch adds to the metrics.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub events: usize,
    pub duplicates: u64,
    pub profiles: u64,
    pub merges: u64,
    /// It changes the settings itself.
    pub adds_types: bool,
}

/// A micro-batch being written.
struct UnderWay {
    /// Aborted, and so rolled back, when the processor is dropped.
    task: JoinSet<Result<()>>,
    /// Where its commit leads to.
    to: Position,
    counts: Counts,
    transitions: [u64; 2],
    started: Instant,
    /// Reads of what is written are not answered from memory meanwhile.
    writing: Writing,
}

/// Where a processor that works beside the live one has to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    /// No event behind this one is processed.
    pub offset: Offset,
    /// Once that is reached, what is due by then happens.
    pub at: Timestamp,
}

/// After a small batch the processor pauses for so many times what it took, and no longer than that.
const PAUSE_FACTOR: u32 = 2;
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// The processor of one space.
pub(super) struct SpaceProcessor {
    pub(super) space: SpaceNo,
    pub(super) pool: PgPool,
    pub(super) config: config::Processor,
    pub(super) catalog: Catalog,
    pub(super) caches: Caches,
    pub(super) dedup: Dedup,
    pub(super) schema: Schema,
    /// Where the next transaction begins: ahead of what is committed while one is under way.
    pub(super) ahead: Position,
    /// The last instant timers were fired at.
    pub(super) fired: Timestamp,
    pub(super) walk: Option<Walk>,
    committed: Position,
    under_way: Option<UnderWay>,
    /// Memory for the decompressed chunks of a batch.
    pub(super) contents: Vec<Vec<u8>>,
    /// The last batch was one of a few events.
    pub(super) was_small: bool,
    pub(super) clock: Clock,
    board: Board,
    /// Lets reads be answered from memory for as long as this processor lives.
    pub(super) hold: Hold,
    limits: Limits,
    epoch: i64,
    latest_version: i64,
    /// See [`tell_time`](Self::tell_time).
    pub(super) now: Timestamp,
    pub(super) clock_asked: Option<Instant>,
    /// What was listed lately of what was not taken.
    pub(super) warned: Warned,
    /// Postgres has plans for empty tables.
    is_unknown_to_planner: bool,
    /// When the next profile is due, as far as it is known.
    pub(super) next_due: Option<Timestamp>,
    lease_renewed: Instant,
    /// None for the live processor, which goes as far as the log does.
    pub(super) until: Option<Until>,
}

impl SpaceProcessor {
    /// Loads what the lease found.
    pub(super) async fn load(context: &Context, pool: &PgPool, space: SpaceNo, lease: Lease) -> Result<Self> {
        log::ensure_partitions(pool, space, context.clock.now()).await?;
        let schema = Schema::load(pool, space, lease.processed).await?;
        Self::load_with(context, pool, space, lease, schema).await
    }

    /// The same for one that works beside the live one: it makes no partitions, and what has been seen is known.
    pub(super) async fn load_beside(
        context: &Context,
        pool: &PgPool,
        space: SpaceNo,
        lease: Lease,
    ) -> Result<Self> {
        let schema = Schema::off(space);
        let mut processor = Self::load_with(context, pool, space, lease, schema).await?;
        processor.until = Some(Until { offset: lease.processed, at: Timestamp::EPOCH });
        Ok(processor)
    }

    async fn load_with(
        context: &Context,
        pool: &PgPool,
        space: SpaceNo,
        lease: Lease,
        schema: Schema,
    ) -> Result<Self> {
        let config = context.config.clone();
        let hold = context.read_cache.hold(space, lease.epoch);
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
        let standing = Position {
            processed: lease.processed,
            day: NaiveDate::default(),
            last_profile: lease.last_profile,
            last_transition: lease.last_transition,
        };
        let mut caches = Caches::new(config.identity_cache_max, config.profile_cache_bytes_max);
        caches.suspects = Known::load(&mut connection, space).await?;
        let recent_max = config.dedup_recent_max;
        let is_unknown_to_planner = processor::is_unknown_to_planner(&mut *connection).await?;
        let dedup = Dedup::load(&mut connection, space, lease.processed, recent_max).await?;
        Ok(Self {
            space,
            pool: pool.clone(),
            walk: catalog.walk.clone().map(|plan| Walk::new(plan, lease.last_profile)),
            catalog,
            caches,
            dedup,
            schema,
            ahead: standing,
            committed: standing,
            fired: Timestamp::EPOCH,
            under_way: None,
            contents: Vec::new(),
            was_small: false,
            clock: context.clock.clone(),
            board: context.board.clone(),
            hold,
            limits: context.limits,
            epoch: lease.epoch,
            latest_version: version,
            now: Timestamp::EPOCH,
            clock_asked: None,
            warned: Warned::default(),
            is_unknown_to_planner,
            next_due,
            lease_renewed: Instant::now(),
            until: None,
            config,
        })
    }

    /// Works until the shutdown, or until something goes wrong.
    pub(super) async fn run(
        mut self,
        mut appended: watch::Receiver<u64>,
        shutdown: &CancellationToken,
    ) -> Result<()> {
        if computations::has_to_clear(&self.pool, self.space).await? {
            // Deleted while nobody worked here, or just before somebody stopped.
            self.reload().await?;
        }
        while !shutdown.is_cancelled() {
            appended.mark_unchanged();
            let began = Instant::now();
            if self.step().await? {
                if std::mem::take(&mut self.was_small) {
                    // A small batch costs as much as a larger one: let some gather, but nobody wait long.
                    let pause = (began.elapsed() * PAUSE_FACTOR).min(PAUSE_MAX);
                    shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
                }
                continue;
            }
            self.renew_lease().await?;
            self.schema.write(&self.pool, self.epoch, true).await?;
            let wait = self.idle_time();
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = appended.changed() => {}
                () = tokio::time::sleep(wait) => {
                    self.latest_version = processor::config_version(&self.pool, self.space).await?;
                }
            }
        }
        self.settle().await?;
        let Self { pool, space, epoch, hold, .. } = self;
        // Nothing is answered from memory any more when the next one may begin to write.
        drop(hold);
        processor::release_lease(&pool, space, epoch).await
    }

    /// One round of everything there is to do; false when there was nothing. What was computed under a configuration
    /// that has changed meanwhile was rolled back, and is done again under the new one.
    pub(super) async fn step(&mut self) -> Result<bool> {
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
            self.settle().await?;
            self.reload().await?;
        }
        if self.is_unknown_to_planner && self.committed.last_profile.0 >= processor::TELLING_ROWS {
            processor::analyse(&self.pool).await?;
            self.is_unknown_to_planner = false;
        }
        let now = self.tell_time().await?;
        let batched = self.process_batch().await?;
        // Timers never overtake events that are in the log already.
        let horizon = match (batched.behind, self.until) {
            (Some(newest), _) => newest.min(now),
            (None, Some(until)) => until.at,
            (None, None) => now,
        };
        let fired = self.fire_due(horizon).await?;
        if batched.events > 0 {
            self.schema.write(&self.pool, self.epoch, false).await?;
        }
        if batched.events > 0 || fired > 0 {
            if self.dedup.is_full() {
                self.settle().await?;
                self.close_run().await?;
            }
            let is_busy = batched.behind.is_some();
            self.tend_search(is_busy).await?;
            return self.walk_on(horizon, is_busy).await.map(|_| true);
        }
        self.settle().await?;
        let walked = self.walk_on(now, false).await?;
        let tended = self.tend_search(false).await?;
        self.publish(Some(now));
        Ok(walked || tended)
    }

    /// How long to wait when there is nothing to do: not past the next due time.
    fn idle_time(&self) -> Duration {
        let until_due = self.next_due.map(|at| at.millis().saturating_sub(self.clock.now().millis()).max(0));
        let until_due = until_due
            .filter(|_| !self.clock.is_test())
            .map_or(Duration::MAX, |ms| Duration::from_millis(ms.unsigned_abs()));
        self.config.poll.min(until_due).max(Duration::from_millis(1))
    }

    /// What is committed.
    pub(super) const fn processed(&self) -> Offset {
        self.committed.processed
    }

    async fn renew_lease(&mut self) -> Result<()> {
        if self.lease_renewed.elapsed() > self.config.lease / 4 {
            processor::extend_lease(&self.pool, self.space, self.epoch, self.config.lease).await?;
            self.lease_renewed = Instant::now();
        }
        Ok(())
    }

    /// Takes in a changed configuration, and clears what deleted definitions left.
    pub(super) async fn reload(&mut self) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        let mut progress = self.progress(self.ahead.processed);
        let version =
            processor::advance(&mut tx, self.space, self.epoch, &progress, self.config.lease).await?;
        let now = self.now.max(self.clock.now());
        let to_clear = computations::list_to_clear(&mut tx, self.space).await?;
        for (definition, computation) in &to_clear {
            // Before anything locks the ends of queues.
            syncs::begin_of(&mut tx, self.space, *definition, Some(*computation), now).await?;
        }
        for (definition, computation) in to_clear {
            let last = progress.last_transition;
            progress.last_transition +=
                computations::clear(&mut tx, self.space, definition, computation, last, now).await?;
        }
        if progress.last_transition != self.ahead.last_transition {
            processor::advance(&mut tx, self.space, self.epoch, &progress, self.config.lease).await?;
        }
        let catalog = Catalog::load(&mut tx, self.space, version, self.ahead.processed, self.limits).await?;
        tx.commit().await?;
        self.moved_on(&progress);
        self.latest_version = version;
        self.walk = Walk::replace(self.walk.take(), catalog.walk.clone(), self.ahead.last_profile);
        self.catalog = catalog;
        Ok(())
    }

    async fn close_run(&mut self) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        let progress = self.progress(self.ahead.processed);
        processor::advance(&mut tx, self.space, self.epoch, &progress, self.config.lease).await?;
        let closed = self.dedup.close_run(&mut tx, self.space, self.ahead.processed).await?;
        tx.commit().await?;
        self.dedup.closed(closed);
        Ok(())
    }

    /// Begins to write a transaction; the next one is computed on top of it.
    pub(super) fn begin(&mut self, prepared: Prepared, pending: Pending, counts: Counts, started: Instant) {
        self.moved(&prepared.position);
        self.note_due(prepared.next_due());
        let transitions = entered_and_left(&prepared.out.transitions);
        let writing = self.hold.begin(prepared.writes());
        let mut task = JoinSet::new();
        task.spawn(write::commit(self.pool.clone(), self.fence(), prepared).in_current_span());
        self.caches.expect(pending);
        self.under_way = Some(UnderWay { task, to: self.ahead, counts, transitions, started, writing });
    }

    /// Waits until what is under way is committed. When it was rolled back, everything is as it was before.
    pub(super) async fn settle(&mut self) -> Result<()> {
        let Some(mut under_way) = self.under_way.take() else { return Ok(()) };
        let ended = match under_way.task.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(error)) => Err(StoreError::Damaged(format!("the writer failed: {error}"))),
            None => Ok(()),
        };
        if let Err(error) = ended {
            self.caches.forget();
            self.ahead = self.committed;
            self.dedup.forget_after(self.committed.processed);
            return Err(error);
        }
        self.caches.confirm();
        let UnderWay { to, counts, transitions, started, writing, .. } = under_way;
        // Before anybody is told.
        writing.committed();
        metrics::PIPELINE_BATCH_SIZE.record(&[], counts.events as f64);
        metrics::PIPELINE_EVENTS.add(&[], counts.events as u64);
        metrics::PIPELINE_DUPLICATES.add(&[], counts.duplicates);
        metrics::PROFILES_CREATED.add(&[], counts.profiles);
        metrics::IDENTITY_MERGES.add(&[], counts.merges);
        metrics::PIPELINE_BATCH_DURATION.time(&["batch"], started.elapsed());
        self.now_true(to, transitions);
        if counts.adds_types {
            // The transaction itself has changed the settings.
            self.note_config_change();
        }
        Ok(())
    }

    /// Takes over what a transaction has made true that nobody computed ahead of.
    pub(super) fn committed_now(&mut self, prepared: &Prepared, pending: Pending) {
        self.caches.expect(pending);
        self.caches.confirm();
        self.note_due(prepared.next_due());
        self.moved(&prepared.position);
        self.now_true(self.ahead, entered_and_left(&prepared.out.transitions));
    }

    fn now_true(&mut self, to: Position, [entered, left]: [u64; 2]) {
        metrics::AUDIENCE_TRANSITIONS.add(&["entered"], entered);
        metrics::AUDIENCE_TRANSITIONS.add(&["left"], left);
        self.committed = to;
        self.lease_renewed = Instant::now();
        self.publish(None);
    }

    fn note_due(&mut self, at: Option<Timestamp>) {
        self.next_due = self.next_due.into_iter().chain(at).min();
    }

    /// A transaction of its own has moved the row and nothing else.
    pub(super) fn moved_on(&mut self, progress: &processor::Progress) {
        self.moved(progress);
        self.committed = self.ahead;
    }

    /// The next transaction begins where this one ends.
    fn moved(&mut self, progress: &processor::Progress) {
        self.ahead.processed = progress.to;
        self.ahead.last_profile = progress.last_profile;
        self.ahead.last_transition = progress.last_transition;
    }

    /// Where the next transaction starts and goes to.
    pub(super) fn progress(&self, to: Offset) -> processor::Progress {
        processor::Progress {
            from: self.ahead.processed,
            to,
            last_profile: self.ahead.last_profile,
            last_transition: self.ahead.last_transition,
            ..processor::Progress::default()
        }
    }

    /// The configuration was changed by this processor itself: reload before anything else.
    pub(super) fn note_config_change(&mut self) {
        self.latest_version = self.catalog.version - 1;
    }

    fn publish(&self, settled_at: Option<Timestamp>) {
        let settled_at = settled_at.unwrap_or(Timestamp::EPOCH);
        self.board.publish(self.space, Progress { processed: self.committed.processed, settled_at });
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

fn entered_and_left(transitions: &[Transition]) -> [u64; 2] {
    let entered = transitions.iter().filter(|t| t.entered).count();
    [entered as u64, (transitions.len() - entered) as u64]
}
