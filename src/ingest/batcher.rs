//! The door of the write batcher: what requests want stored is queued, and each is answered only after its own events are
//! committed, by the [`Flusher`]. The queue is bounded in requests, events and bytes; a full queue is said at once, so that
//! clients back off (decisions T13).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashSet;
use sqlx::postgres::PgPool;
use tokio::sync::{mpsc, oneshot, watch};

use super::flush::{Flusher, Keeper};
use crate::domain::{Offset, SpaceNo, Timestamp};
use crate::engine::meters::Meters;
use crate::store::rejected::RejectedEvent;
use crate::store::sensitive::{Count, Place};

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
    pub(super) fn weight(&self) -> usize {
        self.count as usize + self.rejected.len()
    }

    /// What it adds to the usage of its space.
    pub(super) const fn metered(&self) -> u32 {
        if self.is_act { 0 } else { self.count }
    }

    pub(super) fn bytes(&self) -> usize {
        self.records.len() + self.rejected.iter().map(|row| row.event.len()).sum::<usize>()
    }
}

/// One request that waits.
pub(super) struct Waiting {
    pub append: Append,
    pub done: oneshot::Sender<Result<Offset, AppendError>>,
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
pub(super) struct Queued {
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

    pub(super) fn give_back(&self, weight: usize, bytes: usize) {
        self.events.fetch_sub(weight, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waiting({} events)", self.append.count)
    }
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
    let keeper = Keeper { queued, pool, appended, meters };
    (handle, Flusher::new(receiver, limits, keeper))
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
