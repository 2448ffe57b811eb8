//! The write batcher: gathers what requests want stored, appends it in one statement, and answers each request
//! only after its own events are committed.
//!
//! Nothing waits for a timer: the flusher takes whatever has gathered while the last flush was in flight. One at a time: a
//! second one under way would wait for the row of the log's end, with requests that the next one could have taken
//! together. The queue is bounded in requests, events and bytes; a full queue is said at once, so that clients back off (decisions T13).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use hashbrown::HashSet;
use sqlx::postgres::PgPool;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Instrument;

use crate::domain::month::Month;
use crate::domain::{Offset, SpaceNo, Timestamp};
use crate::engine::meters::Meters;
use crate::store::log::{self, NAMES_MAX, NewChunk, codec};
use crate::store::rejected::{RejectedEvent, insert_rejected};
use crate::store::sensitive::{Count, Place, add_findings};
use crate::telemetry::{metrics, traces};

/// zstd level of chunks: the fastest one; higher levels cost more than the disk they save.
const ZSTD_LEVEL: i32 = 1;

/// Bytes that wait at most: what is shared by the events of a batch is in each of them, so a few small requests may be
/// large here.
const QUEUE_BYTES_MAX: usize = 128 << 20;

/// Bounds of the batcher.
#[derive(Debug, Clone, Copy)]
pub struct BatcherLimits {
    /// Events waiting at most, refused ones that are to be listed included.
    pub queue_events_max: usize,
    /// Events in one chunk at most.
    pub flush_events_max: usize,
    /// Bytes of records in one chunk before no further request is added.
    pub flush_bytes_max: usize,
}

/// What one request wants stored.
#[derive(Debug, Default)]
pub(crate) struct Append {
    pub space: SpaceNo,
    pub records: Vec<u8>,
    pub count: u32,
    pub names: HashSet<String>,
    pub received_at: Timestamp,
    pub min_at: Timestamp,
    pub max_at: Timestamp,
    pub rejected: Vec<RejectedEvent>,
    /// Sensitive data that was found in its events.
    pub found: BTreeMap<Place, Count>,
    /// It gets a chunk of its own.
    pub alone: bool,
    /// It is an act of an operator: nobody's usage.
    pub is_act: bool,
    /// Events that room was made for in the meters.
    pub reserved: u32,
}

/// Why a request's events were not stored. Both are worth a retry with the same message ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue is full.
    #[error("the write queue is full")]
    Overloaded,
    /// The database did not take them, or its answer got lost.
    #[error("the event log is not available")]
    Unavailable,
}

impl Append {
    /// What it costs to wait and to be stored: refusals are rows as well.
    fn weight(&self) -> usize {
        self.count as usize + self.rejected.len()
    }

    /// What it adds to the usage of its space.
    const fn metered(&self) -> u32 {
        if self.is_act { 0 } else { self.count }
    }

    fn bytes(&self) -> usize {
        self.records.len() + self.rejected.iter().map(|row| row.event.len()).sum::<usize>()
    }
}

struct Waiting {
    append: Append,
    done: oneshot::Sender<Result<Offset, AppendError>>,
}

/// The handle requests use.
#[derive(Debug, Clone)]
pub struct Batcher {
    queue: mpsc::Sender<Waiting>,
    queued: Arc<Queued>,
    limits: BatcherLimits,
}

/// What waits.
#[derive(Debug, Default)]
struct Queued {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

impl Queued {
    /// Whether there is room for a request; if so it is taken. An empty queue takes any request: none is larger than the
    /// queue may be.
    fn take(&self, append: &Append, events_max: usize) -> bool {
        let (weight, bytes) = (append.weight(), append.bytes());
        let events_before = self.events.fetch_add(weight, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_full = events_before > 0
            && (events_before + weight > events_max || bytes_before + bytes > QUEUE_BYTES_MAX);
        if is_full {
            self.give_back(weight, bytes);
        }
        !is_full
    }

    fn give_back(&self, weight: usize, bytes: usize) {
        self.events.fetch_sub(weight, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waiting({} events)", self.append.count)
    }
}

/// The side that writes.
#[derive(Debug)]
pub struct Flusher {
    queue: mpsc::Receiver<Waiting>,
    queued: Arc<Queued>,
    limits: BatcherLimits,
    pool: PgPool,
    /// Raised after every append, so that processors in this process need not poll.
    appended: watch::Sender<u64>,
    /// Told how much spaces have taken.
    meters: Meters,
}

/// Makes the two sides.
pub fn batcher(
    pool: PgPool,
    limits: BatcherLimits,
    appended: watch::Sender<u64>,
    meters: Meters,
) -> (Batcher, Flusher) {
    let (sender, receiver) = mpsc::channel(limits.queue_events_max.clamp(1, 65_536));
    let queued = Arc::new(Queued::default());
    let handle = Batcher { queue: sender, queued: Arc::clone(&queued), limits };
    (handle, Flusher { queue: receiver, queued, limits, pool, appended, meters })
}

impl Batcher {
    /// Stores the request's events and returns the offset of the last one once they are committed.
    pub(crate) async fn append(&self, append: Append) -> Result<Offset, AppendError> {
        let (weight, bytes) = (append.weight(), append.bytes());
        if !self.queued.take(&append, self.limits.queue_events_max) {
            return Err(AppendError::Overloaded);
        }
        let (done, answer) = oneshot::channel();
        if self.queue.try_send(Waiting { append, done }).is_err() {
            self.queued.give_back(weight, bytes);
            return Err(AppendError::Overloaded);
        }
        answer.await.unwrap_or(Err(AppendError::Unavailable))
    }
}

/// Spaces of a flush that are stored at the same time: each takes a connection.
const SPACES_AT_ONCE: usize = 2;

/// Offset of the last event of a chunk, and how much the space has taken in the month.
type Stored = (Offset, Option<(Month, u64)>);

/// Longest time for storing a chunk. Statements have a limit of their own; this is for a connection that says nothing any more.
const STORE_LIMIT: Duration = Duration::from_secs(40);

impl Flusher {
    /// Flushes until every [`Batcher`] is gone and the queue is empty.
    pub async fn run(mut self) {
        loop {
            let gathered = self.gather().await;
            if gathered.is_empty() {
                return;
            }
            let weight = gathered.iter().map(|w| w.append.weight()).sum();
            let bytes = gathered.iter().map(|w| w.append.bytes()).sum();
            self.flush(gathered).await;
            self.queued.give_back(weight, bytes);
        }
    }

    /// Waits for one request and takes what else is there, up to the bounds of a chunk.
    async fn gather(&mut self) -> Vec<Waiting> {
        let Some(first) = self.queue.recv().await else { return Vec::new() };
        let (mut events, mut bytes) = (first.append.weight(), first.append.bytes());
        let mut gathered = vec![first];
        // The last request added may exceed the bound by one batch, which a chunk has room for.
        while events < self.limits.flush_events_max && bytes < self.limits.flush_bytes_max {
            let Ok(next) = self.queue.try_recv() else { break };
            events += next.append.weight();
            bytes += next.append.bytes();
            gathered.push(next);
        }
        gathered
    }

    /// Stores what was gathered: what belongs to one space in its order, spaces beside each other.
    async fn flush(&self, gathered: Vec<Waiting>) {
        let spaces = futures_util::stream::iter(into_chunks(gathered));
        let storing = spaces.for_each_concurrent(SPACES_AT_ONCE, async |(space, chunks)| {
            let mut is_available = true;
            for chunk in chunks {
                // Where one chunk could not be stored the others are not tried: everybody else waits for them.
                let stored = if is_available { self.try_store(space, &chunk).await } else { None };
                is_available = stored.is_some();
                self.answer(space, chunk, stored);
            }
        });
        storing.await;
    }

    /// Stores one chunk, within a time.
    async fn try_store(&self, space: SpaceNo, waiting: &[Waiting]) -> Option<Stored> {
        let storing = self.store(space, waiting).instrument(traces::append(space.0, waiting.len()));
        // Whether it was stored is not known then: those who sent it send it again, and it counts once.
        let stored = tokio::time::timeout(STORE_LIMIT, storing).await.unwrap_or_else(|_| {
            let silent = sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
            Err(crate::store::StoreError::Unavailable(silent))
        });
        let told = stored.inspect_err(|error| {
            tracing::error!(%space, %error, "could not append {} requests to the log of space {space}", waiting.len());
        });
        told.ok()
    }

    /// Answers those whose events are in a chunk.
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

/// The chunks of each space: requests that go into one together, in the order they came.
fn into_chunks(gathered: Vec<Waiting>) -> BTreeMap<SpaceNo, Vec<Vec<Waiting>>> {
    let mut spaces: BTreeMap<SpaceNo, Vec<Vec<Waiting>>> = BTreeMap::new();
    for waiting in gathered {
        let chunks = spaces.entry(waiting.append.space).or_default();
        let is_open = |chunk: &&mut Vec<Waiting>| chunk.iter().all(|before| !before.append.alone);
        match chunks.last_mut().filter(|chunk| !waiting.append.alone && is_open(chunk)) {
            Some(chunk) => chunk.push(waiting),
            None => chunks.push(vec![waiting]),
        }
    }
    spaces
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

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

    use super::*;
    use crate::domain::SourceNo;

    fn refusals(count: usize) -> Append {
        let row = RejectedEvent {
            id: uuid::Uuid::nil(),
            warning: false,
            code: String::new(),
            message: String::new(),
            field: None,
            message_id: None,
            source: SourceNo(1),
            received_at: Timestamp::EPOCH,
            event: String::new(),
        };
        Append { rejected: vec![row; count], ..Append::default() }
    }

    #[tokio::test]
    async fn refusals_take_room_in_the_queue_like_events() {
        let pool = PgPoolOptions::new().connect_lazy_with(PgConnectOptions::new_without_pgpass());
        let limits = BatcherLimits { queue_events_max: 10, flush_events_max: 10, flush_bytes_max: 10 };
        let (batcher, _flusher) = batcher(pool, limits, watch::Sender::new(0), Meters::default());
        let waiting = batcher.append(refusals(8));
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending(), "nobody flushes");
        let more = std::pin::pin!(batcher.append(refusals(3)));
        assert_eq!(futures_util::poll!(more), Poll::Ready(Err(AppendError::Overloaded)));
        let fits = std::pin::pin!(batcher.append(refusals(2)));
        assert!(futures_util::poll!(fits).is_pending());
    }
}
