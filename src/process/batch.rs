//! One micro-batch: whatever has gathered in the log since the last one, in one transaction.

use hashbrown::HashSet;
use sqlx::Acquire;

use super::apply::{self, Attribution, Incoming};
use super::dedup::Message;
use super::evaluate::evaluate_all;
use super::space::SpaceProcessor;
use super::work::Work;
use super::write;
use crate::domain::{Offset, ProfileNo, Timestamp};
use crate::engine::identity::Graph;
use crate::store::log::codec::{Record, Records};
use crate::store::log::numbers::Fate;
use crate::store::log::{self, Chunk};
use crate::store::messages::ChunkOutcome;
use crate::store::{Result, processor};
use crate::telemetry::metrics;

/// Chunks read and decompressed, ready to be gone through.
struct Read {
    chunks: Vec<Chunk>,
    contents: Vec<Vec<u8>>,
}

impl SpaceProcessor {
    /// Processes the next micro-batch; returns how many events there were.
    pub(super) async fn process_batch(&mut self, now: Timestamp) -> Result<usize> {
        let Some(read) = self.read_batch().await? else { return Ok(0) };
        let started = std::time::Instant::now();
        let records = records(&read)?;
        let messages: Vec<Message<'_>> =
            records.iter().map(|(r, offset)| Message { id: r.message_id, offset: *offset }).collect();
        let mut connection = self.pool.acquire().await?;
        let duplicate = self.dedup.find_duplicates(&mut connection, self.space, &messages).await?;
        let mut work = Work { last_profile: self.last_profile, ..Work::default() };
        let counted =
            records.iter().zip(&duplicate).filter(|((r, _), duplicate)| !**duplicate && !r.unprofiled);
        let mut events: Vec<Incoming<'_>> = Vec::with_capacity(records.len());
        for ((record, offset), _) in counted {
            events.push(apply::identify(*record, *offset, &mut self.catalog, &mut work.out.new_types));
        }
        work.load_owners(&mut connection, self.space, &mut self.caches, apply::keys(&events)).await?;
        let wanted: HashSet<ProfileNo> = apply::keys(&events).filter_map(|key| work.owner(key)).collect();
        work.load_profiles(&mut connection, self.space, &mut self.caches, wanted.into_iter()).await?;
        let now = events.iter().map(|e| e.record.received_at).fold(now, Timestamp::max);
        let mut attributed = Vec::with_capacity(events.len());
        for event in &events {
            attributed.push((event.offset, apply::apply(&mut work, self.space, event, &self.catalog)));
        }
        evaluate_all(&mut work, &self.catalog, now, self.waiting());
        work.out.duplicates = duplicate.iter().filter(|d| **d).count() as i64;
        work.out.outcomes = outcomes(&read.chunks, &records, &duplicate, &attributed);
        let end = read.chunks.last().map_or(self.processed, |c| c.end_offset);
        let mut progress = self.progress(end);
        let mut tx = connection.begin().await?;
        write::write(&mut tx, self.fence(), &self.catalog, &mut work, &mut progress, now).await?;
        tx.commit().await?;
        drop(connection);
        self.dedup.remember_batch(&messages, &duplicate);
        if let Some(last) = read.chunks.last() {
            self.day = last.day;
        }
        metrics::PIPELINE_BATCH_SIZE.record(&[], records.len() as f64);
        metrics::PIPELINE_EVENTS.add(&[], records.len() as u64);
        metrics::PIPELINE_DUPLICATES.add(&[], work.out.duplicates as u64);
        metrics::PIPELINE_BATCH_DURATION.time(&["batch"], started.elapsed());
        self.committed(work, &progress);
        Ok(records.len())
    }

    async fn read_batch(&mut self) -> Result<Option<Read>> {
        let mut connection = self.pool.acquire().await?;
        let most = self.config.batch_events_max as u32;
        let chunks = log::read_from(&mut *connection, self.space, self.processed, self.day, most).await?;
        if chunks.is_empty() {
            return Ok(None);
        }
        let contents = chunks.iter().map(Chunk::content).collect::<Result<_>>()?;
        Ok(Some(Read { chunks, contents }))
    }

    /// Where the next transaction starts and goes to.
    pub(super) fn progress(&self, to: Offset) -> processor::Progress {
        processor::Progress {
            from: self.processed,
            to,
            last_profile: self.last_profile,
            last_transition: self.last_transition,
            ..processor::Progress::default()
        }
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
