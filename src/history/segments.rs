//! Makes segments of what is processed, some time after it, when there is nothing better to do.
//!
//! One process at a time makes those of a space. It stops while many events wait to be processed, and works a quarter of
//! the time at most. The chunks of a segment are joined on the way, where they are small: after a quiet hour.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::NaiveDate;
use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use tokio_util::sync::CancellationToken;

use crate::domain::{Offset, SpaceNo};
use crate::store::log::codec::{self, Records};
use crate::store::log::columns::SectionBuilder;
use crate::store::log::join::Joined;
use crate::store::log::numbers::Fate;
use crate::store::log::{self, HistoryChunk, monday_of};
use crate::store::segments::{self, NewSegment};
use crate::store::{Result, StoreError, processor, rebuild, registry};
use crate::telemetry::metrics;

/// Pause when there is nothing to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause after a piece of work, as a multiple of the time it took.
const IDLE_FACTOR: u32 = 3;
/// Events that wait to be processed, from which on segments wait, too.
const BUSY_EVENTS: u64 = 5_000;
/// Chunks read at a time.
const READ_CHUNKS: i64 = 32;
/// A segment is full with so many bytes of events, however few those are.
const BYTES_MAX: usize = 32 << 20;
/// Chunks become one until they have so many events or bytes of them together.
const JOINED_EVENTS_MAX: u32 = 4_096;
const JOINED_BYTES_MAX: usize = 4 << 20;
/// Names that get a section.
const NAMES_MAX: usize = 1_000;

/// Makes the segments of all spaces.
#[derive(Debug, Clone)]
pub struct Keeper {
    /// Where the log is.
    pub pool: PgPool,
    /// Events of the log in one segment, about.
    pub events: u64,
}

impl Keeper {
    /// Runs until it is stopped. What fails is told, and tried again.
    pub async fn run(self, stop: &CancellationToken) {
        let mut pause = LOOK_EVERY;
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let began = Instant::now();
            match stop.run_until_cancelled(self.make_some()).await {
                None => return,
                Some(Ok(0)) => pause = LOOK_EVERY,
                Some(Ok(made)) => {
                    metrics::SEGMENTS_MADE.add(&[], made);
                    pause = began.elapsed() * IDLE_FACTOR;
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "segments of the log could not be made: {error}");
                    pause = LOOK_EVERY * 10;
                }
            }
        }
    }

    /// One segment in every space that has enough events for it; how many.
    async fn make_some(&self) -> Result<u64> {
        let mut made = 0;
        for space in registry::list_space_numbers(&self.pool).await? {
            made += u64::from(self.make_one(space).await?);
        }
        Ok(made)
    }

    async fn make_one(&self, space: SpaceNo) -> Result<bool> {
        let Some(status) = processor::status(&self.pool, space).await? else { return Ok(false) };
        let gap = segments::first_gap(&self.pool, space).await?;
        let (after, until) = match gap {
            Some(gap) => gap,
            None => (segments::end(&self.pool, space).await?, status.processed),
        };
        let waiting = status.log_end.0 - status.processed.0;
        if waiting > BUSY_EVENTS || (gap.is_none() && until.0 < after.0 + self.events) {
            return Ok(false);
        }
        let mut tx = self.pool.begin().await?;
        if !segments::try_lock(&mut *tx, space).await? || segments::first_gap(&mut *tx, space).await? != gap {
            return Ok(false);
        }
        if gap.is_none() && segments::end(&mut *tx, space).await? != after {
            return Ok(false);
        }
        let Some(making) = self.gather(&mut tx, space, after, until).await? else {
            // Nothing is left of it.
            segments::fill_gap(&mut tx, space, after, until).await?;
            tx.commit().await?;
            return Ok(false);
        };
        if gap.is_some() {
            segments::fill_gap(&mut tx, space, after, making.end).await?;
        }
        let segment = making.finish(space).await?;
        match segments::insert(&mut tx, &segment).await {
            // The week is older than segments are: its chunks have partitions, but nothing else.
            Err(error) if error.sqlstate().as_deref() == Some("23514") => {
                drop(tx);
                log::create_week(&self.pool, segment.day).await?;
                return Ok(true);
            }
            written => written?,
        }
        // A rebuild keeps what became of each chunk: none of them may go meanwhile.
        if !rebuild::is_under_way(&mut *tx, space).await? {
            for joined in making.joining.iter().filter(|joined| joined.ends.len() > 1) {
                log::join::join(&mut tx, space, joined).await?;
            }
        }
        tx.commit().await?;
        Ok(true)
    }

    /// The next segment: chunks of one week, until there are enough of them.
    async fn gather(
        &self,
        connection: &mut PgConnection,
        space: SpaceNo,
        after: Offset,
        processed: Offset,
    ) -> Result<Option<Making>> {
        let mut making: Option<Making> = None;
        let mut position = after;
        loop {
            let chunks =
                log::read_history(&mut *connection, space, position, processed, None, READ_CHUNKS).await?;
            if chunks.is_empty() {
                break;
            }
            for history in &chunks {
                let making = making.get_or_insert_with(|| Making::new(history));
                if !making.takes(history, self.events) {
                    return Ok(Some(std::mem::replace(making, Making::new(history))));
                }
                making.add(history)?;
                position = history.chunk.end_offset;
                tokio::task::yield_now().await;
            }
        }
        Ok(making)
    }
}

/// A segment being made.
struct Making {
    day: NaiveDate,
    end: Offset,
    events: u64,
    bytes: usize,
    is_whole: bool,
    sections: BTreeMap<String, SectionBuilder>,
    /// Its chunks, in groups that become one chunk each.
    joining: Vec<Joined>,
}

impl Making {
    fn new(history: &HistoryChunk) -> Self {
        Self {
            day: history.chunk.day,
            end: Offset(history.chunk.first_offset().0 - 1),
            events: 0,
            bytes: 0,
            is_whole: true,
            sections: BTreeMap::new(),
            joining: Vec::new(),
        }
    }

    /// Whether this chunk belongs into it, too: it follows the last one without a gap, in the same week.
    fn takes(&self, history: &HistoryChunk, events: u64) -> bool {
        self.events < events
            && self.bytes < BYTES_MAX
            && history.chunk.first_offset().0 == self.end.0 + 1
            && monday_of(history.chunk.day) == monday_of(self.day)
    }

    fn add(&mut self, history: &HistoryChunk) -> Result<()> {
        let content = history.chunk.content()?;
        let fates = Fate::decode_all(&history.numbers)?;
        let mut offset = history.chunk.first_offset();
        for (record, fate) in Records::new(&content)?.zip(fates) {
            let record = record?;
            let at = offset;
            offset.0 += 1;
            let Fate::Attributed { user: Some(user), .. } = fate else { continue };
            if record.name.is_empty() {
                continue;
            }
            if let Some(section) = self.sections.get_mut(record.name) {
                section.push(&record, at, user);
            } else if self.sections.len() < NAMES_MAX {
                self.sections.entry(record.name.to_owned()).or_default().push(&record, at, user);
            } else {
                self.is_whole = false;
            }
        }
        self.join(history, &content)?;
        self.bytes += content.len();
        self.events += u64::from(history.chunk.event_count);
        self.end = history.chunk.end_offset;
        Ok(())
    }

    /// Puts the chunk to the ones before it, as long as they are small together.
    fn join(&mut self, HistoryChunk { chunk, numbers }: &HistoryChunk, content: &[u8]) -> Result<()> {
        let has_room = |joined: &&mut Joined| {
            joined.event_count + chunk.event_count <= JOINED_EVENTS_MAX
                && joined.content.len() + content.len() <= JOINED_BYTES_MAX
                && joined.content.first() == content.first()
        };
        let is_large = chunk.event_count >= JOINED_EVENTS_MAX || content.len() >= JOINED_BYTES_MAX;
        if is_large || (chunk.event_count == 1 && codec::stands_alone(content)?) {
            // Large enough, or an act that stands alone: a border between its neighbours.
            self.joining.push(Joined::default());
        } else if let Some(joined) = self.joining.last_mut().filter(has_room) {
            joined.push(chunk.end_offset, chunk.event_count, content, numbers);
        } else {
            let mut joined = Joined::default();
            joined.push(chunk.end_offset, chunk.event_count, content, numbers);
            self.joining.push(joined);
        }
        Ok(())
    }

    async fn finish(&self, space: SpaceNo) -> Result<NewSegment> {
        let mut sections = Vec::with_capacity(self.sections.len());
        for (name, section) in &self.sections {
            let section = section.finish().map_err(|e| StoreError::Damaged(format!("a segment: {e}")))?;
            sections.push((name.clone(), section));
            tokio::task::yield_now().await;
        }
        Ok(NewSegment {
            space,
            end: self.end,
            event_count: self.events as u32,
            day: self.day,
            is_whole: self.is_whole,
            sections,
        })
    }
}
