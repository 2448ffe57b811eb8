//! The side of the write batcher that writes: appends what has gathered for a space in one statement, and answers who waits
//! for it.
//!
//! Nothing waits for a timer: a flush takes whatever has gathered for its space while the last one was in flight. Of a space one
//! is in flight at a time, for a second one would wait for the row of its log's end, with requests that the next one could have taken
//! together (ADR 0003). Spaces do not wait for each other, as long as there is a place.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use sqlx::postgres::PgPool;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

use super::batcher::{Append, AppendError, BatcherLimits, Queued, Waiting};
use crate::domain::month::Month;
use crate::domain::{Offset, SpaceNo};
use crate::engine::meters::Meters;
use crate::store::log::{self, NAMES_MAX, NewChunk, codec};
use crate::store::rejected::{RejectedEvent, insert_rejected};
use crate::store::sensitive::{Count, Place, add_findings};
use crate::telemetry::{metrics, traces};

/// zstd level of chunks: the fastest one; higher levels cost more than the disk they save.
const ZSTD_LEVEL: i32 = 1;

/// Flushes in flight, each of another space: each takes a connection.
const FLUSHES_MAX: usize = 2;

/// Longest time for storing a chunk. Statements have a limit of their own; this is for a connection that says nothing any more.
const STORE_LIMIT: Duration = Duration::from_secs(40);

/// Offset of the last event of a chunk, and how much the space has taken in the month.
type Stored = (Offset, Option<(Month, u64)>);

/// The side that writes.
#[derive(Debug)]
pub struct Flusher {
    queue: mpsc::Receiver<Waiting>,
    limits: BatcherLimits,
    keeper: Arc<Keeper>,
    /// What waits in each space; one without anything is not in here.
    waiting: BTreeMap<SpaceNo, VecDeque<Waiting>>,
    /// Spaces with something that waits and nothing in flight, in the order they are served.
    ready: VecDeque<SpaceNo>,
    /// Spaces with a flush in flight.
    busy: HashSet<SpaceNo>,
    in_flight: JoinSet<SpaceNo>,
}

impl Flusher {
    pub(super) fn new(queue: mpsc::Receiver<Waiting>, limits: BatcherLimits, keeper: Keeper) -> Self {
        Self {
            queue,
            limits,
            keeper: Arc::new(keeper),
            waiting: BTreeMap::new(),
            ready: VecDeque::new(),
            busy: HashSet::new(),
            in_flight: JoinSet::new(),
        }
    }

    /// Flushes until every [`Batcher`](super::Batcher) is gone and nothing waits any more.
    pub async fn run(mut self) {
        let mut is_open = true;
        loop {
            while let Ok(next) = self.queue.try_recv() {
                self.take_in(next);
            }
            self.start();
            tokio::select! {
                next = self.queue.recv(), if is_open => match next {
                    Some(next) => self.take_in(next),
                    None => is_open = false,
                },
                Some(ended) = self.in_flight.join_next() => self.ended(ended),
                else => return,
            }
        }
    }

    fn take_in(&mut self, next: Waiting) {
        let space = next.append.space;
        let waiting = self.waiting.entry(space).or_default();
        if waiting.is_empty() && !self.busy.contains(&space) {
            self.ready.push_back(space);
        }
        waiting.push_back(next);
    }

    /// Begins what there is a place for.
    fn start(&mut self) {
        while self.in_flight.len() < FLUSHES_MAX {
            let Some(space) = self.ready.pop_front() else { return };
            let Some(mut waiting) = self.waiting.remove(&space) else { continue };
            let chunk = next_chunk(&mut waiting, self.limits);
            if !waiting.is_empty() {
                self.waiting.insert(space, waiting);
            }
            self.busy.insert(space);
            let keeper = Arc::clone(&self.keeper);
            self.in_flight.spawn(async move {
                keeper.flush(space, chunk).await;
                space
            });
        }
    }

    fn ended(&mut self, ended: Result<SpaceNo, JoinError>) {
        let space = match ended {
            Ok(space) => space,
            // As if it had happened here: the process ends, and whoever waits hears that nothing is known.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => return,
            },
        };
        self.busy.remove(&space);
        if self.waiting.contains_key(&space) {
            self.ready.push_back(space);
        }
    }
}

/// Takes the requests that go into one chunk together, in the order they came.
fn next_chunk(waiting: &mut VecDeque<Waiting>, limits: BatcherLimits) -> Vec<Waiting> {
    let (mut events, mut bytes) = (0, 0);
    let mut chunk: Vec<Waiting> = Vec::new();
    // The last request added may exceed the bound by one batch, which a chunk has room for.
    while events < limits.flush_events_max && bytes < limits.flush_bytes_max {
        let is_closed = chunk.last().is_some_and(|last| last.append.alone);
        let fits = |next: &mut Waiting| chunk.is_empty() || !is_closed && !next.append.alone;
        let Some(next) = waiting.pop_front_if(fits) else { break };
        events += next.append.weight();
        bytes += next.append.bytes();
        chunk.push(next);
    }
    chunk
}

/// Stores chunks.
#[derive(Debug)]
pub(super) struct Keeper {
    pub queued: Arc<Queued>,
    pub pool: PgPool,
    /// Raised after every append, so that processors in this process need not poll.
    pub appended: watch::Sender<u64>,
    /// Told how much spaces have taken.
    pub meters: Meters,
}

impl Keeper {
    /// Stores one chunk, and answers those whose events are in it.
    async fn flush(&self, space: SpaceNo, waiting: Vec<Waiting>) {
        let weight = waiting.iter().map(|w| w.append.weight()).sum();
        let bytes = waiting.iter().map(|w| w.append.bytes()).sum();
        let storing = self.store(space, &waiting).instrument(traces::append(space.0, waiting.len()));
        // Whether it was stored is not known then: those who sent it send it again, and it counts once.
        let stored = tokio::time::timeout(STORE_LIMIT, storing).await.unwrap_or_else(|_| {
            let silent = sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
            Err(crate::store::StoreError::Unavailable(silent))
        });
        let told = stored.inspect_err(|error| {
            tracing::error!(%space, %error, "could not append {} requests to the log of space {space}", waiting.len());
        });
        self.answer(space, waiting, told.ok());
        self.queued.give_back(weight, bytes);
    }

    fn answer(&self, space: SpaceNo, waiting: Vec<Waiting>, stored: Option<Stored>) {
        let used = stored.and_then(|(_, used)| used);
        let reserved: u64 = waiting.iter().map(|w| u64::from(w.append.reserved)).sum();
        if used.is_some() || reserved > 0 {
            self.meters.settle(space, used, reserved);
        }
        let count: u64 = waiting.iter().map(|w| u64::from(w.append.count)).sum();
        let mut last = stored.map_or(0, |(end, _)| end.0 - count);
        for Waiting { append, done } in waiting {
            last += u64::from(append.count);
            let answer = if stored.is_some() { Ok(Offset(last)) } else { Err(AppendError::Unavailable) };
            // A client that went away does not hear it; its events are stored all the same.
            let _gone = done.send(answer);
        }
        self.appended.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Stores one chunk. Refusals first: when they cannot be kept, nothing is acknowledged.
    async fn store(&self, space: SpaceNo, waiting: &[Waiting]) -> crate::store::Result<Stored> {
        let rejected: Vec<RejectedEvent> =
            waiting.iter().flat_map(|w| w.append.rejected.iter().cloned()).collect();
        if !rejected.is_empty() {
            insert_rejected(&self.pool, space, &rejected).await?;
        }
        let found = all_found(waiting);
        if !found.is_empty() {
            add_findings(&self.pool, space, &found).await?;
        }
        let with_events = || waiting.iter().map(|w| &w.append).filter(|a| a.count > 0);
        let event_count = with_events().map(|a| a.count).sum();
        if event_count == 0 {
            return Ok((log::tail(&self.pool, space).await?, None));
        }
        let body = compress(with_events())?;
        metrics::INGEST_BATCH_SIZE.record(&[], f64::from(event_count));
        let chunk = NewChunk {
            space,
            event_count,
            metered: with_events().map(Append::metered).sum(),
            received_at: with_events().map(|a| a.received_at).max().unwrap_or_default(),
            names: names(with_events()),
            min_at: with_events().map(|a| a.min_at).min().unwrap_or_default(),
            max_at: with_events().map(|a| a.max_at).max().unwrap_or_default(),
            body: &body,
        };
        log::append(&self.pool, &chunk).await
    }
}

/// What was found in all of them together.
fn all_found(waiting: &[Waiting]) -> BTreeMap<Place, Count> {
    let mut all: BTreeMap<Place, Count> = BTreeMap::new();
    for (place, count) in waiting.iter().flat_map(|waiting| &waiting.append.found) {
        let known = all.entry(place.clone()).or_insert(Count { occurrences: 0, ..*count });
        known.occurrences += count.occurrences;
        known.first_at = known.first_at.min(count.first_at);
        known.last_at = known.last_at.max(count.last_at);
    }
    all
}

fn compress<'a>(appends: impl Iterator<Item = &'a Append>) -> crate::store::Result<Vec<u8>> {
    let mut content = vec![codec::FORMAT];
    for append in appends {
        content.extend_from_slice(&append.records);
    }
    zstd::bulk::compress(&content, ZSTD_LEVEL)
        .map_err(|e| crate::store::StoreError::Damaged(format!("could not compress a chunk: {e}")))
}

fn names<'a>(appends: impl Iterator<Item = &'a Append>) -> Option<Vec<String>> {
    let mut all = HashSet::new();
    for append in appends {
        for name in &append.names {
            if !all.contains(name) {
                all.insert(name.clone());
            }
        }
        if all.len() > NAMES_MAX {
            return None;
        }
    }
    let mut names: Vec<String> = all.into_iter().collect();
    names.sort_unstable();
    Some(names)
}
