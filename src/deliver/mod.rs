//! Destinations: what has changed goes to where it is used, at least once, in order per profile, and with proof.
//!
//! Nothing here decides what is told: the processor writes that down in its own transaction, and workers send it, in the
//! way the [`kind`] of a destination says. Each destination has one worker in all processes together; a slow or dead one
//! costs the others nothing but its rows in the table.

pub mod budget;
mod build;
pub mod choice;
pub mod guard;
pub mod http;
pub mod ids;
pub mod kind;
pub mod kinds;
mod ledger;
pub mod opener;
mod pace;
pub mod payload;
pub mod reach;
mod rekey;
mod schedule;
pub mod secrets;
mod sync;
mod window;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::{Clock, IdMaker};
use crate::config;
use crate::domain::{DestinationNo, SpaceNo};
use crate::store::destinations::worker::Glance;
use crate::store::{self, StoreError, deliveries, destinations};
use crate::telemetry::metrics;
use ledger::Lease;
use opener::Opener;
use pace::Pace;

/// Connections of all workers of a process together.
const CONNECTIONS_MAX: u32 = 8;
/// Longest wait for one of them.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often what is old is forgotten.
const TIDY_EVERY: Duration = Duration::from_mins(1);
/// A piece of that is followed by a rest of so many times its length.
const TIDY_REST: u32 = 3;
/// How often it is measured what waits.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Pause before a destination is taken up again whose worker failed.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// A day, in milliseconds.
const DAY_MS: i64 = 86_400_000;

/// What workers work with.
#[derive(Debug)]
pub struct Context {
    /// Where the database is; workers open connections of their own.
    pub connect_options: PgConnectOptions,
    /// The time.
    pub clock: Clock,
    /// Ids, and chance.
    pub ids: IdMaker,
    /// Settings.
    pub config: config::Deliver,
    /// Opens destinations.
    pub opener: Arc<Opener>,
    /// Ends it all.
    pub shutdown: CancellationToken,
    /// This process is the only one on the database: leases left by a dead one are over.
    pub exclusive: bool,
}

type Key = (SpaceNo, DestinationNo);
/// How all destinations stand, as of the last look.
type Glances = watch::Receiver<Arc<HashMap<Key, Glance>>>;

/// Runs workers for all destinations this process can get the lease of, until the shutdown.
pub async fn run(context: Context) -> Result<(), StoreError> {
    let options = context.connect_options.clone();
    let pool = store::connect_for_delivering(options, CONNECTIONS_MAX, ACQUIRE_TIMEOUT).await?;
    if context.exclusive {
        destinations::worker::end_all_leases(&pool).await?;
    }
    rekey::run(&pool, &context.opener.keys, &context.ids).await;
    let owner = context.ids.uuid();
    let mut supervisor = Supervisor {
        context: Arc::new(context),
        pool,
        owner,
        looks: watch::Sender::new(Arc::default()),
        paces: HashMap::new(),
        running: JoinSet::new(),
        held: HashMap::new(),
        tidying: JoinSet::new(),
        tidied: Instant::now(),
        measured: Instant::now(),
    };
    supervisor.supervise().await;
    while supervisor.running.join_next().await.is_some() {}
    while supervisor.tidying.join_next().await.is_some() {}
    supervisor.pool.close().await;
    Ok(())
}

struct Supervisor {
    context: Arc<Context>,
    pool: PgPool,
    owner: Uuid,
    looks: watch::Sender<Arc<HashMap<Key, Glance>>>,
    /// How much the workers of each space give way.
    paces: HashMap<SpaceNo, Pace>,
    running: JoinSet<Key>,
    held: HashMap<Key, AbortHandle>,
    tidying: JoinSet<()>,
    tidied: Instant,
    measured: Instant,
}

impl Supervisor {
    async fn supervise(&mut self) {
        let shutdown = self.context.shutdown.clone();
        while !shutdown.is_cancelled() {
            while self.tidying.try_join_next().is_some() {}
            while let Some(ended) = self.running.try_join_next() {
                if let Ok(key) = ended {
                    self.held.remove(&key);
                }
                self.held.retain(|_, handle| !handle.is_finished());
            }
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "could not look for deliveries: {error}");
            }
            shutdown.run_until_cancelled(tokio::time::sleep(self.context.config.poll)).await;
        }
    }

    /// Looks at all destinations at once, tells the workers, and takes up those that nobody works on.
    async fn look(&mut self) -> store::Result<()> {
        let list = destinations::worker::glance(&self.pool).await?;
        let key = |glance: &Glance| (SpaceNo(glance.space_id), DestinationNo(glance.destination_no));
        let free: Vec<Key> = list.iter().filter(|glance| glance.is_free).map(key).collect();
        self.measure(&list).await?;
        for glance in &list {
            self.paces.entry(SpaceNo(glance.space_id)).or_default().set_waiting(glance.events_waiting);
        }
        self.looks.send_replace(Arc::new(list.into_iter().map(|glance| (key(&glance), glance)).collect()));
        for (space, destination) in free {
            if !self.held.contains_key(&(space, destination)) {
                self.take_up(space, destination).await?;
            }
        }
        if self.tidied.elapsed() >= TIDY_EVERY && self.tidying.is_empty() {
            self.tidied = Instant::now();
            // Beside the looks, for which all workers wait.
            let held: Vec<Key> = self.held.keys().copied().collect();
            self.tidying.spawn(tidy(Arc::clone(&self.context), self.pool.clone(), held));
        }
        Ok(())
    }

    async fn take_up(&mut self, space: SpaceNo, destination: DestinationNo) -> store::Result<()> {
        let length = self.context.config.lease;
        let taken = destinations::worker::take_lease(&self.pool, space, destination, self.owner, length);
        let Some(epoch) = taken.await? else { return Ok(()) };
        let lease = Lease { space, destination, epoch, length };
        let (context, pool) = (Arc::clone(&self.context), self.pool.clone());
        let told = (self.looks.subscribe(), self.paces.entry(space).or_default().clone());
        let handle = self.running.spawn(async move {
            let worker = worker::Worker::new(Arc::clone(&context), pool.clone(), lease, told);
            if let Err(error) = Box::pin(worker.run(&context.shutdown)).await {
                tracing::warn!(%space, %destination, %error,
                    "delivery to destination {destination} of space {space} stopped and will be taken up again");
                let released = destinations::worker::release_lease(&pool, space, destination, epoch);
                let _ours_until_it_runs_out = released.await;
                tokio::time::sleep(FAILED_PAUSE).await;
            }
            (space, destination)
        });
        self.held.insert((space, destination), handle);
        Ok(())
    }

    async fn measure(&mut self, list: &[Glance]) -> store::Result<()> {
        if self.measured.elapsed() < MEASURE_EVERY {
            return Ok(());
        }
        self.measured = Instant::now();
        let waiting: i64 = list.iter().map(|glance| glance.last_no - glance.done).sum();
        metrics::DELIVERY_BACKLOG.set(&[], waiting as f64);
        metrics::DEAD_LETTERS.set(&[], list.iter().map(|glance| glance.dead).sum::<i64>() as f64);
        for state in ["connected", "paused", "failing"] {
            let count = list.iter().filter(|glance| glance.state == state).count();
            metrics::DESTINATIONS.set(&[state], count as f64);
        }
        let oldest = if waiting > 0 { destinations::worker::oldest_waiting(&self.pool).await? } else { None };
        let now = self.context.clock.now().millis();
        let age = oldest.map_or(0, |at| now.saturating_sub(at.millis()).max(0));
        metrics::DELIVERY_OLDEST.set(&[], age as f64 / 1_000.0);
        Ok(())
    }
}

/// Forgets what has been kept long enough, and what deleted destinations left, a part of it at a time.
async fn tidy(context: Arc<Context>, pool: PgPool, held: Vec<Key>) {
    let kept_ms = i64::from(context.config.kept_days) * DAY_MS;
    let before = context.clock.now().plus_millis(-kept_ms);
    let tidied = async {
        let mut connection = pool.acquire().await?;
        let mut began = Instant::now();
        while destinations::purge(&mut connection).await? {
            rest_from(&mut began).await;
        }
        for (space, destination) in held {
            while deliveries::history::forget(&mut connection, space, destination, before).await? {
                rest_from(&mut began).await;
            }
        }
        store::Result::Ok(())
    };
    if let Some(Err(error)) = context.shutdown.run_until_cancelled(tidied).await {
        tracing::warn!(%error, "what was delivered long ago could not be forgotten: {error}");
    }
}

/// Rests after a piece of work that began then.
async fn rest_from(began: &mut Instant) {
    tokio::time::sleep(began.elapsed() * TIDY_REST).await;
    *began = Instant::now();
}
