//! Turning the log into profiles, traits and audiences: one processor per space, exactly once.
//!
//! A processor holds its space's lease with a fencing epoch. Every micro-batch is one transaction that moves the log
//! position under that epoch and writes everything that follows from its events; a process that lost its lease, or
//! died and came back, cannot write anything twice. Processors run on threads of their own, so that heavy batches
//! never hold up a request.

mod accounts;
mod acts;
mod apply;
mod backfill;
mod batch;
mod cache;
mod catalog;
mod consent;
mod dedup;
mod erase;
mod evaluate;
mod left_out;
mod objections;
mod order;
mod outbox;
mod past;
pub mod rebuild;
mod refusals;
mod retell;
mod schema;
mod search;
mod space;
mod surgery;
mod suspects;
mod timers;
mod trial;
mod unmerge;
mod updates;
mod warned;
mod work;
mod write;

pub use trial::try_act;

use std::collections::HashMap;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::{Clock, IdMaker};
use crate::config;
use crate::domain::SpaceNo;
use crate::engine::Limits;
use crate::progress::Board;
use crate::read_cache::ReadCache;
use crate::store::{self, StoreError, processor, spaces};
use crate::telemetry::metrics;
use space::SpaceProcessor;

/// How often sessions are looked for that keep others from leases.
const END_SILENT_EVERY: Duration = Duration::from_secs(5);
/// How often spaces without a processor are looked for.
const SUPERVISE_EVERY: Duration = Duration::from_millis(250);
/// Pause before a space is taken up again that failed for a reason that does not go away by itself.
const DAMAGED_PAUSE: Duration = Duration::from_secs(5);
/// After so many leases without an answer the database is taken to be silent: others have taken over long ago.
const SILENT_LEASES: u32 = 4;
/// A lease that was not held on to for less than that may be one of a machine with too much to do.
const OVERDUE_MIN: Duration = Duration::from_secs(20);
/// Connections of all processors of a process together.
const CONNECTIONS_MAX: u32 = 8;
/// Threads of all processors of a process together.
const THREADS: usize = 2;

/// What processors work with.
#[derive(Debug, Clone)]
pub struct Context {
    /// Where the database is; processors open connections of their own.
    pub connect_options: PgConnectOptions,
    /// The time.
    pub clock: Clock,
    /// Ids.
    pub ids: IdMaker,
    /// Where progress is told.
    pub board: Board,
    /// Told what is written, so that reads are answered from memory.
    pub read_cache: ReadCache,
    /// Raised after every append of this process.
    pub appended: watch::Receiver<u64>,
    /// Settings.
    pub config: config::Processor,
    /// What definitions may use.
    pub limits: Limits,
    /// Ends it all.
    pub shutdown: CancellationToken,
    /// This process is the only one on the database (the private Postgres): leases left by a dead one are over.
    pub exclusive: bool,
}

/// Why processing could not go on at all.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The threads could not be started.
    #[error("could not start the processor threads: {0}")]
    Threads(#[from] std::io::Error),
    /// The first look at the database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A look at the leases, which takes milliseconds, has not come back, or a processor has not held on to its lease: connections
    /// there were are silent, as they are when a database is replaced by another one, or something on the way forgets them.
    /// Whatever else waits on one would wait for ever.
    #[error("the database has not answered for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// The threads ended without saying why.
    #[error("the processor threads ended unexpectedly")]
    Gone,
}

/// Runs processors for all spaces this process can get the lease of, until the shutdown.
pub async fn run(context: Context) -> Result<(), ProcessError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("process")
        .enable_all()
        .build()?;
    let supervised = runtime.spawn(supervise(context));
    let _threads = Threads(Some(runtime));
    supervised.await.map_err(|_| ProcessError::Gone)?
}

/// The processors' threads. Dropping a runtime inside of another one would panic, also when the waiting is given up.
struct Threads(Option<tokio::runtime::Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn supervise(context: Context) -> Result<(), ProcessError> {
    let pool = store::connect_for_processing(context.connect_options.clone(), CONNECTIONS_MAX).await?;
    if context.exclusive {
        processor::end_all_leases(&pool).await?;
    }
    let owner = context.ids.uuid();
    let mut running: JoinSet<SpaceNo> = JoinSet::new();
    let mut held: HashMap<SpaceNo, tokio::task::AbortHandle> = HashMap::new();
    let mut overdue: HashMap<SpaceNo, tokio::time::Instant> = HashMap::new();
    let mut ended_silent = tokio::time::Instant::now();
    while !context.shutdown.is_cancelled() {
        while let Some(ended) = running.try_join_next() {
            if let Ok(space) = ended {
                held.remove(&space);
            }
            held.retain(|_, handle| !handle.is_finished());
        }
        let silent_after = context.config.lease * SILENT_LEASES;
        let looking = async {
            if ended_silent.elapsed() > END_SILENT_EVERY {
                ended_silent = tokio::time::Instant::now();
                let ended = processor::end_silent(&pool).await?;
                if ended > 0 {
                    tracing::warn!(
                        ended,
                        "ended {ended} sessions of processes that are silent and kept others from their leases"
                    );
                }
            }
            take_leases(&context, &pool, owner, &mut running, &mut held).await
        };
        match tokio::time::timeout(silent_after, looking).await {
            // By our own clock, which stands still while the machine sleeps: then leases run out, and nothing is wrong.
            Ok(Ok(late)) => {
                overdue.retain(|space, _| late.contains(space));
                for space in late {
                    overdue.entry(space).or_insert_with(tokio::time::Instant::now);
                }
                let limit = silent_after.max(OVERDUE_MIN);
                if overdue.values().any(|since| since.elapsed() > limit) {
                    return Err(ProcessError::Silent(limit));
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "could not look for spaces to process"),
            // The process ends, and starts anew with connections that work.
            Err(_) => return Err(ProcessError::Silent(silent_after)),
        }
        metrics::LEASES_HELD.set(&[], held.len() as f64);
        tokio::select! {
            () = context.shutdown.cancelled() => {}
            () = tokio::time::sleep(SUPERVISE_EVERY) => {}
        }
    }
    while running.join_next().await.is_some() {}
    pool.close().await;
    Ok(())
}

/// Takes the leases that are free; says which of those that this process holds have run out.
async fn take_leases(
    context: &Context,
    pool: &PgPool,
    owner: Uuid,
    running: &mut JoinSet<SpaceNo>,
    held: &mut HashMap<SpaceNo, tokio::task::AbortHandle>,
) -> store::Result<Vec<SpaceNo>> {
    let now = context.clock.now();
    for known in spaces::list_spaces(pool).await? {
        let space = known.no;
        if !known.plan.has_profiles(now) {
            // Its events are kept for later. What is being written is written or not, as at any other stop.
            if let Some(handle) = held.remove(&space) {
                handle.abort();
                processor::end_lease(pool, space, owner).await?;
                context.board.forget(space);
            }
            continue;
        }
        if held.contains_key(&space) {
            continue;
        }
        let Some(lease) = processor::take_lease(pool, space, owner, context.config.lease).await? else {
            continue;
        };
        metrics::LEASE_EPOCH.set(&[], lease.epoch as f64);
        tracing::info!(%space, epoch = lease.epoch, "processing space {space}");
        let (context, pool) = (context.clone(), pool.clone());
        let handle = running.spawn(async move {
            if let Err(error) = run_space(&context, &pool, space, lease).await {
                if matches!(error, StoreError::Fenced) {
                    metrics::FENCED_COMMITS.add(&[], 1);
                }
                tracing::warn!(%space, %error, "processing of space {space} stopped and will be taken up again");
                // The lease is ours until somebody takes it; give it back so that nobody has to wait.
                let _released = processor::release_lease(&pool, space, lease.epoch).await;
                if !error.is_temporary() && !matches!(error, StoreError::Fenced) {
                    // What is damaged does not mend itself: do not read it again four times a second.
                    tokio::time::sleep(DAMAGED_PAUSE).await;
                }
            }
            context.board.forget(space);
            space
        });
        held.insert(space, handle);
    }
    if held.is_empty() { Ok(Vec::new()) } else { processor::list_overdue(pool, owner).await }
}

async fn run_space(
    context: &Context,
    pool: &PgPool,
    space: SpaceNo,
    lease: processor::Lease,
) -> store::Result<()> {
    let processor = SpaceProcessor::load(context, pool, space, lease).await?;
    processor.run(context.appended.clone(), &context.shutdown).await
}
