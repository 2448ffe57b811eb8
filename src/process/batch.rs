//! One micro-batch: whatever has gathered in the log since the last one, in one transaction.

use std::time::{Duration, Instant};

use hashbrown::HashSet;
use tracing::Instrument;

use super::apply::{self, Attribution, Ground, Incoming};
use super::backfill::Walk;
use super::dedup::Message;
use super::past::Keep;
use super::schema::Schema;
use super::space::{Counts, SpaceProcessor};
use super::surgery::{self, Table};
use super::work::{Pending, Work};
use super::write::{self, Prepared};
use crate::domain::{Offset, ProfileNo, Timestamp};
use crate::engine::identity::Graph;
use crate::store::Result;
use crate::store::log::codec::{self, Record, Records};
use crate::store::log::numbers::Fate;
use crate::store::log::{self, Chunk};
use crate::store::messages::ChunkOutcome;
use crate::store::{processor, segments};
use crate::telemetry::{metrics, traces};

/// What a micro-batch was.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Batched {
    pub events: usize,
    /// Time of receipt of its newest event, when there may be more events behind it.
    pub behind: Option<Timestamp>,
}

/// Pause between looks whether a segment is still being made.
const HOLD_PAUSE: Duration = Duration::from_millis(50);

/// From so many events on, the next micro-batch is computed while this one is written.
const OVERLAP_EVENTS: usize = 1_000;

/// Decompressed chunks of one micro-batch, in bytes, before no further chunk is added.
const CONTENTS_MAX: usize = 64 << 20;

/// Memory for decompressed chunks that is kept from batch to batch, in bytes.
const CONTENTS_KEPT_MAX: usize = 64 << 20;

/// Chunks read and decompressed, ready to be gone through.
struct Read {
    chunks: Vec<Chunk>,
    /// There may be more behind them.
    is_full: bool,
    contents: Vec<Vec<u8>>,
    /// It is one act that stands alone.
    is_alone: bool,
}

impl SpaceProcessor {
    /// Processes the next micro-batch: computes it while the one before is written, then begins to write it. Returns
    /// how many events there were, and whether there may be more.
    pub(super) async fn process_batch(&mut self) -> Result<Batched> {
        let began = Instant::now();
        let Some(read) = self.read_batch().await? else { return Ok(Batched::default()) };
        let span =
            traces::batch(self.space.0, read.chunks.iter().map(|chunk| u64::from(chunk.event_count)).sum());
        self.go_through(read, began).instrument(span).await
    }

    async fn go_through(&mut self, mut read: Read, began: Instant) -> Result<Batched> {
        if read.is_alone {
            return self.operate(&read).await;
        }
        let due = self.due_between(&mut read).await?;
        let started = Instant::now();
        let (prepared, pending, counts) =
            self.compute(&read, due).instrument(traces::stage("compute")).await?;
        let computed = Instant::now();
        let newest = read.chunks.last().map_or(self.fired, |chunk| chunk.received_at);
        // Their memory is good for the next batch: taking it anew each time costs more than filling it.
        if read.contents.iter().map(Vec::capacity).sum::<usize>() <= CONTENTS_KEPT_MAX {
            self.contents = std::mem::take(&mut read.contents);
        }
        // What is under way was computed before this, and has to be true before this is.
        self.settle().instrument(traces::stage("wait")).await?;
        for (stage, took) in
            [("read", started - began), ("compute", computed - started), ("wait", computed.elapsed())]
        {
            metrics::PIPELINE_BATCH_DURATION.time(&[stage], took);
        }
        self.ahead.day = read.chunks.last().map_or(self.ahead.day, |last| last.day);
        self.begin(prepared, pending, counts, started);
        if counts.events < OVERLAP_EVENTS || counts.adds_types {
            // Little to do: more gathers for the next one while this one is written.
            self.settle().await?;
            self.was_small = counts.events < OVERLAP_EVENTS;
        }
        Ok(Batched { events: counts.events, behind: read.is_full.then_some(newest) })
    }

    /// Profiles that have to be watched while the batch is computed, because they are due before its end and may be users
    /// of accounts. The batch ends before what is due later than its first chunk.
    async fn due_between(&mut self, read: &mut Read) -> Result<Vec<ProfileNo>> {
        if !self.catalog.program.has_accounts() {
            return Ok(Vec::new());
        }
        let first = match read.contents.first() {
            Some(content) => Records::new(content)?.next().transpose()?.map(|record| record.received_at),
            None => None,
        };
        let due = self.next_due;
        let is_before = |chunk: &Chunk| due.is_none_or(|at| chunk.received_at < at);
        let kept = read.chunks.iter().take_while(|chunk| is_before(chunk)).count().max(1);
        read.is_full |= kept < read.chunks.len();
        read.chunks.truncate(kept);
        read.contents.truncate(kept);
        let last = read.chunks.last().map_or(self.fired, |chunk| chunk.received_at);
        self.fire_before(first.unwrap_or(last), last).await
    }

    async fn compute(&mut self, read: &Read, due: Vec<ProfileNo>) -> Result<(Prepared, Pending, Counts)> {
        let records = records(read)?;
        let messages: Vec<Message<'_>> =
            records.iter().map(|(r, offset)| Message { id: r.message_id, offset: *offset }).collect();
        let mut connection = self.pool.acquire().await?;
        let duplicate = self.dedup.find_duplicates(&mut connection, self.space, &messages).await?;
        let mut work = Work { last_profile: self.ahead.last_profile, ..Work::default() };
        let counted =
            records.iter().zip(&duplicate).filter(|((r, _), duplicate)| !**duplicate && !r.unprofiled);
        let mut events: Vec<Incoming<'_>> = Vec::with_capacity(records.len());
        for ((record, offset), _) in counted {
            events.push(apply::identify(record, *offset, &mut self.catalog, &mut work.out.new_types));
            if !record.act {
                self.schema.note(record, *offset);
            }
        }
        work.load_owners(&mut connection, self.space, &mut self.caches, apply::keys(&events)).await?;
        let owners = apply::keys(&events).filter_map(|key| work.owner(key));
        let wanted: HashSet<ProfileNo> = owners.chain(due).collect();
        work.load_profiles(&mut connection, self.space, &mut self.caches, wanted.into_iter()).await?;
        if self.catalog.program.has_accounts() {
            work.load_accounts(&mut connection, self.space, &mut self.caches).await?;
            work.watch_all(read.chunks.last().map_or(self.fired, |chunk| chunk.received_at));
        }
        drop(connection);
        let ground =
            Ground { space: self.space, catalog: &self.catalog, waiting: self.waiting(), fired: self.fired };
        let mut attributed = Vec::with_capacity(events.len());
        for event in &events {
            attributed.push((event.offset, apply::apply(&mut work, event, &ground)));
        }
        work.out.duplicates = duplicate.iter().filter(|d| **d).count() as i64;
        work.out.outcomes = outcomes(&read.chunks, &records, &duplicate, &attributed);
        let mut counts = Counts {
            events: records.len(),
            duplicates: work.out.duplicates as u64,
            profiles: 0,
            merges: work.out.merges.len() as u64,
            adds_types: !work.out.new_types.is_empty(),
        };
        self.warned.bound(&mut work.out.warnings);
        let end = read.chunks.last().map_or(self.ahead.processed, |c| c.end_offset);
        let (prepared, pending) = write::prepare(work, &self.catalog, self.progress(end))?;
        counts.profiles = prepared.created();
        self.dedup.remember_batch(&messages, &duplicate);
        Ok((prepared, pending, counts))
    }

    async fn read_batch(&mut self) -> Result<Option<Read>> {
        let mut connection = self.pool.acquire().await?;
        let most = self.config.batch_events_max as u32;
        let mut chunks =
            log::read_from(&mut *connection, self.space, self.ahead.processed, self.ahead.day, most).await?;
        let mut is_full = log::is_full_read(&chunks, most);
        if let Some(until) = self.until {
            let read = chunks.len();
            chunks.retain(|chunk| chunk.end_offset <= until.offset);
            is_full |= chunks.len() < read;
        }
        if chunks.is_empty() {
            return Ok(None);
        }
        let mut contents = std::mem::take(&mut self.contents);
        contents.resize_with(chunks.len(), Vec::new);
        let mut room = CONTENTS_MAX;
        let (mut read, mut is_alone) = (0, false);
        for (chunk, content) in chunks.iter().zip(&mut contents) {
            // What compresses well was read as little: the rest is for the next batch.
            if room == 0 || is_alone {
                is_full = true;
                break;
            }
            chunk.read_content(content)?;
            room = room.saturating_sub(content.len());
            if chunk.event_count == 1 && codec::stands_alone(content)? {
                is_alone = read == 0;
                if !is_alone {
                    is_full = true;
                    break;
                }
            }
            read += 1;
        }
        chunks.truncate(read);
        contents.truncate(read);
        Ok(Some(Read { chunks, is_full, contents, is_alone }))
    }

    /// Waits until nobody makes a segment, and keeps it so. A processor beside corrects what is its own, while chunks stay as
    /// they are.
    async fn hold_segments(&self) -> Result<Option<segments::Hold>> {
        if self.until.is_some() {
            return Ok(None);
        }
        loop {
            if let Some(hold) = segments::Hold::try_take(&self.pool, self.space).await? {
                return Ok(Some(hold));
            }
            processor::extend_lease(&self.pool, self.space, self.fence().epoch, self.config.lease).await?;
            tokio::time::sleep(HOLD_PAUSE).await;
        }
    }

    /// Does an act that needs more than the profiles it names, in a micro-batch of its own.
    async fn operate(&mut self, read: &Read) -> Result<Batched> {
        let started = Instant::now();
        self.settle().await?;
        // What is read of the log is what is corrected in the end.
        let hold = self.hold_segments().await?;
        // Nobody is given what belonged to who is erased: what was folded of them is brought to nobody.
        let is_erasure = read.contents.first().is_some_and(|content| codec::erases(content));
        if !is_erasure && self.walk.as_ref().is_some_and(Walk::folds_history) {
            // What it has folded may belong to others now.
            self.restart_walk().await?;
        }
        let at = read.chunks.first().map_or(self.fired, |chunk| chunk.received_at);
        while self.next_due.is_some_and(|due| due <= at) && self.fire_due(at).await? > 0 {}
        let records = records(read)?;
        let messages: Vec<Message<'_>> =
            records.iter().map(|(r, offset)| Message { id: r.message_id, offset: *offset }).collect();
        let mut connection = self.pool.acquire().await?;
        let duplicate = self.dedup.find_duplicates(&mut connection, self.space, &messages).await?;
        let mut work = Work { last_profile: self.ahead.last_profile, ..Work::default() };
        for ((record, offset), _) in records.iter().zip(&duplicate).filter(|(_, duplicate)| !**duplicate) {
            let event = apply::identify_again(record, *offset, &self.catalog);
            let ground = Ground {
                space: self.space,
                catalog: &self.catalog,
                waiting: self.waiting(),
                fired: self.fired,
            };
            let keep = Keep { pool: self.pool.clone(), epoch: self.fence().epoch, lease: self.config.lease };
            let erases = self.until.is_none();
            let (connection, caches) = (&mut *connection, &mut self.caches);
            let table = Table { connection, caches, keep: Some(keep), erases };
            surgery::operate(&mut work, table, &event, &ground).await?;
        }
        drop(connection);
        work.out.outcomes = outcomes(&read.chunks, &records, &duplicate, &[]);
        let end = read.chunks.last().map_or(self.ahead.processed, |c| c.end_offset);
        let erases = work.out.corrections.erased.is_some();
        let (prepared, pending) = write::prepare(work, &self.catalog, self.progress(end))?;
        self.dedup.remember_batch(&messages, &duplicate);
        self.ahead.day = read.chunks.last().map_or(self.ahead.day, |last| last.day);
        self.begin(prepared, pending, Counts { events: 1, ..Counts::default() }, started);
        self.settle().await?;
        if erases {
            // It remembers values of who is erased.
            self.schema = Schema::load(&self.pool, self.space, self.processed()).await?;
        }
        if let Some(hold) = hold {
            hold.release().await?;
        }
        Ok(Batched { events: 1, behind: read.is_full.then_some(at) })
    }
}

fn records(read: &Read) -> Result<Vec<(Record<'_>, Offset)>> {
    let mut records = Vec::with_capacity(read.chunks.iter().map(|c| c.event_count as usize).sum());
    for (chunk, content) in read.chunks.iter().zip(&read.contents) {
        let mut offset = chunk.first_offset();
        for record in Records::new(content)? {
            records.push((record?, offset));
            offset.0 += 1;
        }
    }
    Ok(records)
}

/// The fate of each event, chunk by chunk.
fn outcomes(
    chunks: &[Chunk],
    records: &[(Record<'_>, Offset)],
    duplicate: &[bool],
    attributed: &[(Offset, Attribution)],
) -> Vec<ChunkOutcome> {
    let mut attributed = attributed.iter().peekable();
    let mut rest = records.iter().zip(duplicate);
    let mut outcomes = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let mut numbers = Vec::with_capacity(chunk.event_count as usize * 3);
        let mut duplicates = 0;
        for ((_, offset), duplicate) in rest.by_ref().take(chunk.event_count as usize) {
            let fate = match attributed.next_if(|(at, _)| at == offset) {
                Some((_, Attribution { user: None, account: None })) => Fate::Nobodys,
                Some((_, Attribution { user, account })) => {
                    Fate::Attributed { user: *user, account: *account }
                }
                None if *duplicate => Fate::Duplicate,
                None => Fate::Nobodys,
            };
            duplicates += i32::from(*duplicate);
            fate.encode(&mut numbers);
        }
        outcomes.push(ChunkOutcome { end_offset: chunk.end_offset, day: chunk.day, duplicates, numbers });
    }
    outcomes
}
