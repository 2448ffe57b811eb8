//! Exact de-duplication by message id, for as long as events are kept, in bounded memory.
//!
//! The ids of the newest events are a map of 64-bit hashes in memory. When it is full it is closed into a run: sorted
//! (hash, offset) pages in Postgres and a binary fuse filter of 18 bits per id in memory. A hash no filter knows is
//! new at once; a hit is looked up and its event read back from the log: only an equal message id is a duplicate.

use hashbrown::HashMap;
use sqlx::PgConnection;
use xorf::{BinaryFuse16, Filter};
use xxhash_rust::xxh3::xxh3_64;

use crate::domain::varint::{get_varint, put_varint};
use crate::domain::{Offset, SpaceNo};
use crate::store::log::codec::Records;
use crate::store::messages::{self, Run};
use crate::store::{Result, StoreError, log};

/// Entries of one page of a run.
const PAGE_ENTRIES: usize = 4_096;

/// The de-duplication state of one space.
pub(super) struct Dedup {
    recent: HashMap<u64, Offset>,
    /// Further offsets of hashes that more than one message id has.
    collisions: HashMap<u64, Vec<Offset>>,
    runs: Vec<OpenRun>,
    /// First offset that is not in a run.
    first: Offset,
    recent_max: usize,
}

struct OpenRun {
    no: i32,
    filter: RunFilter,
}

/// What of a run stays in memory.
struct RunFilter {
    fuse: BinaryFuse16,
    /// First hash of each page.
    fences: Vec<u64>,
}

impl RunFilter {
    fn encode(&self) -> Result<Vec<u8>> {
        let parts = (&self.fuse.descriptor, self.fuse.fingerprints.as_ref(), &self.fences);
        postcard::to_allocvec(&parts)
            .map_err(|e| StoreError::Damaged(format!("could not encode a message filter: {e}")))
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let (descriptor, fingerprints, fences): (_, Vec<u16>, _) = postcard::from_bytes(bytes)
            .map_err(|e| StoreError::Damaged(format!("a message filter cannot be read: {e}")))?;
        Ok(Self { fuse: BinaryFuse16 { descriptor, fingerprints: fingerprints.into() }, fences })
    }
}

/// A message id of the batch that is looked at.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub id: &'a str,
    pub offset: Offset,
}

impl Dedup {
    /// Loads the filters and reads the ids of the newest events back from the log.
    pub(super) async fn load(
        connection: &mut PgConnection,
        space: SpaceNo,
        processed: Offset,
        recent_max: usize,
    ) -> Result<Self> {
        let mut dedup = Self {
            recent: HashMap::new(),
            collisions: HashMap::new(),
            runs: Vec::new(),
            first: Offset(1),
            recent_max,
        };
        for run in messages::list_runs(&mut *connection, space).await? {
            let filter = RunFilter::decode(&run.filter)?;
            dedup.runs.push(OpenRun { no: run.no, filter });
            dedup.first = Offset(run.last.0 + 1);
        }
        let mut after = Offset(dedup.first.0 - 1);
        while after < processed {
            let chunks =
                log::read_from(&mut *connection, space, after, chrono::NaiveDate::default(), 100_000).await?;
            for chunk in chunks.iter().filter(|c| c.end_offset <= processed) {
                let content = chunk.content()?;
                let mut offset = chunk.first_offset();
                for record in Records::new(&content)? {
                    let record = record?;
                    // Chunks are joined: one may begin with events that are in a run already.
                    if offset >= dedup.first {
                        dedup.remember(xxh3_64(record.message_id.as_bytes()), offset);
                    }
                    offset.0 += 1;
                }
            }
            // Retention may have dropped everything that was processed.
            match chunks.last() {
                Some(chunk) if chunk.end_offset <= processed => after = chunk.end_offset,
                _ => break,
            }
        }
        Ok(dedup)
    }

    /// For each message, whether an earlier event (of the log, or of the batch itself) has its id.
    pub(super) async fn find_duplicates(
        &self,
        connection: &mut PgConnection,
        space: SpaceNo,
        batch: &[Message<'_>],
    ) -> Result<Vec<bool>> {
        let hashes: Vec<u64> = batch.iter().map(|m| xxh3_64(m.id.as_bytes())).collect();
        let mut duplicate = vec![false; batch.len()];
        let mut seen: HashMap<u64, usize> = HashMap::with_capacity(batch.len());
        let mut hits: Vec<(usize, Offset)> = Vec::new();
        let mut in_runs: Vec<(usize, i32, i32)> = Vec::new();
        for (index, (message, hash)) in batch.iter().zip(&hashes).enumerate() {
            if let Some(first) = seen.get(hash) {
                // A collision inside one batch is settled by comparing with all of it.
                duplicate[index] = batch[*first].id == message.id
                    || batch[..index].iter().zip(&hashes).any(|(m, h)| h == hash && m.id == message.id);
                if duplicate[index] {
                    continue;
                }
            } else {
                seen.insert(*hash, index);
            }
            if let Some(offset) = self.recent.get(hash) {
                let others = self.collisions.get(hash).into_iter().flatten();
                let others = std::iter::once(offset).chain(others).filter(|o| **o < message.offset);
                hits.extend(others.map(|offset| (index, *offset)));
            }
            for run in self.runs.iter().filter(|r| r.filter.fuse.contains(hash)) {
                in_runs.push((index, run.no, run.page_of(*hash)));
            }
        }
        let in_runs = self.look_into_runs(&mut *connection, space, &in_runs, &hashes).await?;
        // Only what came before: an event is no duplicate of itself.
        hits.extend(in_runs.into_iter().filter(|(index, offset)| *offset < batch[*index].offset));
        verify(connection, space, batch, &hits, &mut duplicate).await?;
        Ok(duplicate)
    }

    async fn look_into_runs(
        &self,
        connection: &mut PgConnection,
        space: SpaceNo,
        wanted: &[(usize, i32, i32)],
        hashes: &[u64],
    ) -> Result<Vec<(usize, Offset)>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut pages: Vec<(i32, i32)> = wanted.iter().map(|(_, run, page)| (*run, *page)).collect();
        pages.sort_unstable();
        pages.dedup();
        let loaded = messages::load_pages(connection, space, &pages).await?;
        let mut entries: HashMap<(i32, i32), Vec<(u64, Offset)>> = HashMap::new();
        for (run, page, bytes) in loaded {
            let decoded = decode_page(&bytes)
                .ok_or_else(|| StoreError::Damaged(format!("message page {page} of run {run}")))?;
            entries.insert((run, page), decoded);
        }
        let mut hits = Vec::new();
        for (index, run, page) in wanted {
            let Some(list) = entries.get(&(*run, *page)) else { continue };
            let start = list.partition_point(|(hash, _)| *hash < hashes[*index]);
            hits.extend(list[start..].iter().take_while(|e| e.0 == hashes[*index]).map(|e| (*index, e.1)));
        }
        Ok(hits)
    }

    /// Takes in the ids of a batch that was computed. Should it be rolled back, call [`Self::forget_after`].
    pub(super) fn remember_batch(&mut self, batch: &[Message<'_>], duplicate: &[bool]) {
        for (message, _) in batch.iter().zip(duplicate).filter(|(_, duplicate)| !**duplicate) {
            self.remember(xxh3_64(message.id.as_bytes()), message.offset);
        }
    }

    fn remember(&mut self, hash: u64, offset: Offset) {
        if let Some(first) = self.recent.get(&hash) {
            if *first != offset {
                self.collisions.entry(hash).or_default().push(offset);
            }
        } else {
            self.recent.insert(hash, offset);
        }
    }

    /// Forgets the ids of batches that were rolled back: those behind `committed`.
    pub(super) fn forget_after(&mut self, committed: Offset) {
        self.recent.retain(|_, offset| *offset <= committed);
        self.collisions.retain(|_, offsets| {
            offsets.retain(|offset| *offset <= committed);
            !offsets.is_empty()
        });
    }

    /// Whether the map in memory should be closed into a run.
    pub(super) fn is_full(&self) -> bool {
        self.recent.len() >= self.recent_max
    }

    /// Writes the map in memory as a run, up to the offset everything is processed and committed to. Call [`Self::closed`] after the
    /// commit.
    pub(super) async fn close_run(
        &self,
        tx: &mut PgConnection,
        space: SpaceNo,
        until: Offset,
    ) -> Result<ClosedRun> {
        let mut entries: Vec<(u64, Offset)> = self.recent.iter().map(|(h, o)| (*h, *o)).collect();
        entries.extend(self.collisions.iter().flat_map(|(h, list)| list.iter().map(|o| (*h, *o))));
        entries.sort_unstable();
        // Equal hashes must share a page, so a page may run over.
        let mut pages: Vec<&[(u64, Offset)]> = Vec::new();
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let mut end = PAGE_ENTRIES.min(rest.len());
            while end < rest.len() && rest[end].0 == rest[end - 1].0 {
                end += 1;
            }
            let (page, tail) = rest.split_at(end);
            pages.push(page);
            rest = tail;
        }
        let fences = pages.iter().map(|p| p[0].0).collect();
        let mut keys: Vec<u64> = entries.iter().map(|e| e.0).collect();
        keys.dedup();
        let fuse = BinaryFuse16::try_from(&keys)
            .map_err(|e| StoreError::Damaged(format!("could not build a message filter: {e}")))?;
        let filter = RunFilter { fuse, fences };
        let no = self.runs.last().map_or(1, |r| r.no + 1);
        let run = Run {
            no,
            first: self.first,
            last: until,
            entries: entries.len() as u32,
            filter: filter.encode()?,
        };
        let pages: Vec<Vec<u8>> = pages.into_iter().map(encode_page).collect();
        messages::insert_run(tx, space, &run, &pages).await?;
        Ok(ClosedRun { run: OpenRun { no, filter }, until })
    }

    /// The run is committed: forget what it holds.
    pub(super) fn closed(&mut self, closed: ClosedRun) {
        self.recent = HashMap::new();
        self.collisions = HashMap::new();
        self.first = Offset(closed.until.0 + 1);
        self.runs.push(closed.run);
    }
}

/// A run that is written but not yet committed.
pub(super) struct ClosedRun {
    run: OpenRun,
    until: Offset,
}

impl OpenRun {
    fn page_of(&self, hash: u64) -> i32 {
        self.filter.fences.partition_point(|first| *first <= hash).saturating_sub(1) as i32
    }
}

/// Reads the events that share a hash with a message back from the log and compares the ids.
async fn verify(
    connection: &mut PgConnection,
    space: SpaceNo,
    batch: &[Message<'_>],
    hits: &[(usize, Offset)],
    duplicate: &mut [bool],
) -> Result<()> {
    if hits.is_empty() {
        return Ok(());
    }
    let mut offsets: Vec<Offset> = hits.iter().map(|(_, offset)| *offset).collect();
    offsets.sort_unstable();
    offsets.dedup();
    let mut by_offset: HashMap<Offset, Vec<usize>> = HashMap::new();
    for (index, offset) in hits {
        by_offset.entry(*offset).or_default().push(*index);
    }
    for group in offsets.chunks(200) {
        for chunk in log::read_containing(&mut *connection, space, group).await? {
            let content = chunk.content()?;
            let mut offset = chunk.first_offset();
            for record in Records::new(&content)? {
                let record = record?;
                for index in by_offset.get(&offset).into_iter().flatten() {
                    duplicate[*index] |= batch[*index].id == record.message_id;
                }
                offset.0 += 1;
            }
        }
    }
    Ok(())
}

fn encode_page(entries: &[(u64, Offset)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * 11);
    let mut last = 0;
    for (hash, offset) in entries {
        put_varint(&mut out, hash.wrapping_sub(last));
        put_varint(&mut out, offset.0);
        last = *hash;
    }
    out
}

fn decode_page(mut bytes: &[u8]) -> Option<Vec<(u64, Offset)>> {
    let (mut entries, mut last) = (Vec::with_capacity(PAGE_ENTRIES), 0_u64);
    while !bytes.is_empty() {
        last = last.wrapping_add(get_varint(&mut bytes)?);
        entries.push((last, Offset(get_varint(&mut bytes)?)));
    }
    Some(entries)
}
