//! The composition root: the only place that knows every part and puts them together.
//!
//! Started in the order in which parts need each other: database, schema, clock, registry, first keys, log writer,
//! processor, server. Stopped in the other direction, so that what was accepted is finished: new requests go
//! elsewhere, requests under way end, the log writer empties its queue, the processor gives its leases back, Postgres
//! stops. A part that ends by itself stops the process: half a service is worse than none.

mod chores;
mod import_space;
mod measure;
mod offline;
mod outlet;
mod privacy;
mod reach;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use futures_util::FutureExt;
use sqlx::postgres::PgPool;
use tokio::sync::{Semaphore, watch};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, IdMaker};
use crate::config::{self, Config};
use crate::console;
use crate::disk::DiskGuard;
use crate::domain::Timestamp;
use crate::embedded::Postgres;
use crate::history::segments::Keeper;
use crate::http::health::Health;
use crate::http::server::Server;
use crate::http::{self, Services, tracking};
use crate::ingest::{self, BatcherLimits, Doors, Ingest};
use crate::manage::bootstrap::{Made, Wanted};
use crate::manage::{DefinitionLimits, Manage, Registry, Tools};
use crate::process;
use crate::progress::Board;
use crate::query::{self, Reader};
use crate::read_cache::ReadCache;
use crate::store;
use crate::telemetry::metrics;
use reach::{Ready, bind, connect, read_analytics_js};

pub(crate) use offline::{
    Rebuild, Rebuilt, Restored, Some20, Told, Verified, backup, import_space, inspect, migrate, rebuild,
    restore, scrub, verify,
};

/// Look-up statements under way at the same time.
const LOOKUP_TASKS: u32 = 2;
/// People who watch events as they come in, at the same time.
const WATCHERS_MAX: usize = 32;
/// Longest wait for the parts behind the server to end.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The same, where the process ends because a part of it has.
const BROKEN_STOP_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for the connections to the database to be closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// What is decided at the start, besides the configuration.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Time stands still at that instant, or at the stored one if that is later.
    pub test_clock: Option<Timestamp>,
    /// Ids come from this seed instead of the operating system: for tests.
    pub id_seed: Option<u64>,
}

/// The service. See [`App::start`].
#[derive(Debug)]
pub struct App;

/// A running service. Call [`Running::stop`]: dropping it leaves its tasks to the runtime.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    internal_address: Option<SocketAddr>,
    made: Made,
    pool: PgPool,
    postgres: Option<Arc<Postgres>>,
    health: Health,
    disk: DiskGuard,
    tasks: Tasks,
}

/// All tasks, in the groups in which they are ended; and the news of one that ended by itself.
#[derive(Debug)]
struct Tasks {
    stopping: CancellationToken,
    ended: watch::Sender<Option<&'static str>>,
    /// Ends the accept loop.
    serving: CancellationToken,
    server: TaskTracker,
    /// Ends when nobody can hand it events any more.
    flusher: TaskTracker,
    /// Ends what works behind the server.
    working: CancellationToken,
    workers: TaskTracker,
}

impl Tasks {
    fn new() -> Self {
        Self {
            stopping: CancellationToken::new(),
            ended: watch::Sender::new(None),
            serving: CancellationToken::new(),
            server: TaskTracker::new(),
            flusher: TaskTracker::new(),
            working: CancellationToken::new(),
            workers: TaskTracker::new(),
        }
    }

    /// Runs a part behind the server.
    fn work<F>(&self, name: &'static str, part: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.spawn(&self.workers, name, part);
    }

    /// Runs a part the service cannot do without.
    fn spawn<F>(&self, group: &TaskTracker, name: &'static str, part: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (stopping, ended) = (self.stopping.clone(), self.ended.clone());
        group.spawn(async move {
            let outcome = AssertUnwindSafe(part).catch_unwind().await;
            match outcome {
                Ok(Ok(())) if stopping.is_cancelled() => return,
                Ok(Ok(())) => tracing::error!("the {name} ended by itself"),
                Ok(Err(error)) => tracing::error!("the {name} failed: {error:#}"),
                Err(_panic) => {
                    metrics::PANICS.add(&[], 1);
                    tracing::error!("the {name} panicked");
                }
            }
            ended.send_replace(Some(name));
        });
    }
}

/// The read side, with the tasks that answer its look-ups.
fn start_reading(tasks: &Tasks, pool: &PgPool, board: &Board, clock: &Clock, cache: ReadCache) -> Reader {
    let (asks, answering) = query::asks(pool, store::connect_for_lookups(pool, LOOKUP_TASKS), cache);
    for _ in 0..LOOKUP_TASKS {
        let (answering, stop) = (answering.clone(), tasks.working.clone());
        tasks.work("look-ups", async move {
            stop.run_until_cancelled(answering.run()).await;
            Ok(())
        });
    }
    Reader::new(pool.clone(), board.clone(), clock.clone(), asks)
}

/// Takes requests: all of them, and with an address of their own those for what is nobody's business outside.
fn start_serving(tasks: &Tasks, services: Services, server: Server, internal: Option<Server>) {
    if let Some(internal) = internal {
        let services = Services { shows_internals: true, ..services.clone() };
        let (router, stop) = (http::internal_router(Arc::new(services)), tasks.serving.clone());
        tasks.spawn(&tasks.server, "internal server", async move {
            internal.run(router, stop).await;
            Ok(())
        });
    }
    let changes = services.changes.clone();
    let (router, stop) = (with_console(services), tasks.serving.clone());
    tasks.spawn(&tasks.server, "server", async move {
        server.run(router, stop).await;
        // Those whose clients have hung up are no connection's any more.
        changes.close();
        changes.wait().await;
        Ok(())
    });
}

impl App {
    /// Starts everything and returns once requests are taken.
    pub async fn start(config: Config, overrides: Overrides) -> anyhow::Result<Running> {
        metrics::install();
        // Whatever can be wrong without a database is found first.
        let analytics_js = read_analytics_js(config.ingest.analytics_js_file.as_ref())?;
        let server = bind(config.server.listen, &config.server).await?;
        let address = server.address().context("the address of the server")?;
        let internal = match config.server.internal_listen {
            Some(listen) => Some(bind(listen, &config.server).await?),
            None => None,
        };
        let internal_address = internal.as_ref().map(Server::address).transpose()?;

        let Ready { pool, options, postgres } = connect(&config).await?;
        let clock = clock(&pool, overrides.test_clock).await?;
        let ids = id_maker(&clock, overrides.id_seed);
        let registry = Registry::load(pool.clone(), clock.clone()).await?;
        let limits = definition_limits(&config);
        let cache = ReadCache::new(config.reads.cache_bytes_max);
        let opener = Arc::new(outlet::opener(&config, postgres.is_some(), &clock, &ids)?);
        let tools = Tools { clock: clock.clone(), ids: ids.clone(), opener };
        let manage = Manage::new(pool.clone(), tools.clone(), registry.clone(), limits, cache.clone());
        let made = manage.bootstrap(&wanted(&config.bootstrap)).await?;
        manage.prepare_log().await?;
        let journal = privacy::journal_file(&config, postgres.is_some());
        let restored = match &journal {
            Some(file) => privacy::put_back(&manage, file).await? > 0,
            None => false,
        };
        registry.reload_keep_outs().await?;

        let tasks = Tasks::new();
        let (ingest, appended) = start_ingest(
            &config.ingest,
            &pool,
            Doors { guards: registry.guards(), keep_outs: registry.keep_outs(), meters: registry.meters() },
            (&clock, &ids),
            &tasks,
        );
        let (board, health) = (Board::default(), Health::default());
        let context = process::Context {
            connect_options: options.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            board: board.clone(),
            read_cache: cache.clone(),
            appended,
            config: config.processor.clone(),
            limits: limits.query,
            exclusive: postgres.is_some(),
            shutdown: tasks.working.clone(),
        };
        tasks.work("processor", async move { Ok(process::run(context).await?) });
        let tracking = tracking::Settings {
            body_idle_timeout: config.server.body_idle_timeout,
            in_flight: tracking::InFlight::new(config.ingest.inflight_bytes_max),
            disk: DiskGuard::new(config.ingest.disk_free_bytes_min),
            analytics_js,
        };
        let (disk, in_flight) = (tracking.disk.clone(), tracking.in_flight.clone());
        chores::start(&tasks, registry, manage.clone(), &config);
        chores::start_verifying(&tasks, &pool, &clock, &config);
        start_segments(&tasks, &pool, &config);
        let parts = (manage.clone(), health.clone());
        privacy::start(&tasks, &pool, (&clock, &ingest), parts, (journal, restored));
        if restored {
            privacy::wait_erased(&manage).await?;
        }
        outlet::start(&tasks, &config, (options, postgres.is_some()), tools);
        let measured =
            measure::Measured { pool: pool.clone(), manage: manage.clone(), disk: disk.clone(), in_flight };
        measure::start(&tasks, measured, postgres.clone());

        let reader = start_reading(&tasks, &pool, &board, &clock, cache);
        let services = Services {
            ingest,
            manage,
            reader,
            board,
            clock,
            ids,
            health: health.clone(),
            shows_internals: internal.is_none(),
            tracking,
            request_timeout: config.server.request_timeout,
            changes: TaskTracker::new(),
            watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
            trusted_proxies: config.server.trusted_proxies.clone(),
        };
        start_serving(&tasks, services, server, internal);
        Ok(Running { address, internal_address, made, pool, postgres, health, disk, tasks })
    }
}

/// All routes: the service's, and the pages that are its clients.
fn with_console(services: Services) -> Router {
    let settings = console::Settings {
        clock: services.clock.clone(),
        ids: services.ids.clone(),
        trusted_proxies: services.trusted_proxies.clone(),
    };
    let services = Arc::new(services);
    let api = http::router(Arc::clone(&services));
    http::with_pages(api.clone(), console::router(api, settings), &services)
}

impl Running {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its metrics are, when they have an address of their own.
    pub const fn internal_address(&self) -> Option<SocketAddr> {
        self.internal_address
    }

    /// What this start made: secrets that are shown once.
    pub const fn made(&self) -> &Made {
        &self.made
    }

    /// The pool, for tests that look behind the door.
    pub const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Whether there is room on the disk, for tests that fill it.
    pub const fn disk(&self) -> &DiskGuard {
        &self.disk
    }

    /// Waits until a part ends by itself, and names it.
    pub async fn ended(&self) -> &'static str {
        let mut ended = self.tasks.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(name) => name.unwrap_or_default(),
            Err(_) => "service",
        }
    }

    /// Says that requests should go elsewhere from now on, while they are still answered.
    pub fn drain(&self) {
        self.health.drain();
    }

    /// Stops everything, finishing what was accepted. For `lead`, requests are still taken while `/readyz` already
    /// says 503, so that a load balancer notices before it gets refusals.
    pub async fn stop(self, lead: Duration) -> anyhow::Result<()> {
        // Where a part has ended by itself, others may wait for what never comes: the sooner a new process begins, the better.
        let limit = if self.tasks.ended.borrow().is_some() { BROKEN_STOP_LIMIT } else { STOP_LIMIT };
        self.tasks.stopping.cancel();
        self.health.drain();
        tokio::time::sleep(lead).await;
        self.tasks.serving.cancel();
        finish(&self.tasks.server, "server", limit).await;
        // The last request is answered, so nobody can add to the queue: the writer ends when it is empty.
        finish(&self.tasks.flusher, "log writer", limit).await;
        self.tasks.working.cancel();
        finish(&self.tasks.workers, "workers", limit).await;
        // A connection says good-bye and waits for the other side to hang up, which one that is silent never does.
        if tokio::time::timeout(CLOSE_LIMIT, self.pool.close()).await.is_err() {
            tracing::warn!(
                "the database did not let go of all connections within {} s",
                CLOSE_LIMIT.as_secs()
            );
        }
        if let Some(postgres) = &self.postgres {
            postgres.stop().await?;
        }
        Ok(())
    }
}

async fn finish(tasks: &TaskTracker, name: &str, limit: Duration) {
    tasks.close();
    if tokio::time::timeout(limit, tasks.wait()).await.is_err() {
        tracing::warn!("the {name} did not end within {} s", limit.as_secs());
    }
}

/// The machine's time; or a test clock, which never starts before the instant it was left at.
async fn clock(pool: &PgPool, test: Option<Timestamp>) -> anyhow::Result<Clock> {
    let Some(flag) = test else { return Ok(Clock::System) };
    let stored = store::registry::find_test_clock(pool).await?;
    let now = stored.map_or(flag, |stored| stored.max(flag));
    store::registry::set_test_clock(pool, now).await?;
    Ok(Clock::test(now))
}

fn id_maker(clock: &Clock, seed: Option<u64>) -> IdMaker {
    seed.map_or_else(|| IdMaker::new(clock.clone()), |seed| IdMaker::seeded(clock.clone(), seed))
}

const fn definition_limits(config: &Config) -> DefinitionLimits {
    let config::Query { expressions_max, nesting_max, definitions_max } = config.query;
    let query =
        crate::engine::Limits { expressions: expressions_max, nesting: nesting_max, bytes: QUERY_BYTES_MAX };
    DefinitionLimits { query, definitions: definitions_max }
}

/// Longest text of a query, in bytes.
const QUERY_BYTES_MAX: usize = 32 * 1024;

fn wanted(config: &config::Bootstrap) -> Wanted {
    let expose = |secret: &Option<config::Secret>| secret.as_ref().map(|s| s.expose().to_owned());
    Wanted { space: config.space.clone(), write_key: expose(&config.write_key), token: expose(&config.token) }
}

fn start_ingest(
    config: &config::Ingest,
    pool: &PgPool,
    doors: Doors,
    (clock, ids): (&Clock, &IdMaker),
    tasks: &Tasks,
) -> (Ingest, watch::Receiver<u64>) {
    let limits = BatcherLimits {
        queue_events_max: config.queue_events_max,
        flush_events_max: config.flush_events_max,
        flush_bytes_max: config.flush_bytes_max,
    };
    let (sender, appended) = watch::channel(0);
    let (batcher, flusher) = ingest::batcher(pool.clone(), limits, sender, doors.meters.clone());
    tasks.spawn(&tasks.flusher, "log writer", async move {
        flusher.run().await;
        Ok(())
    });
    (Ingest::new(batcher, config.limits, doors, clock.clone(), ids.clone()), appended)
}

/// Makes segments of the log, where that is switched on.
fn start_segments(tasks: &Tasks, pool: &PgPool, config: &Config) {
    if config.log.segment_events == 0 {
        return;
    }
    let keeper = Keeper { pool: pool.clone(), events: config.log.segment_events };
    let stop = tasks.working.clone();
    tasks.work("segments", async move {
        keeper.run(&stop).await;
        Ok(())
    });
}
