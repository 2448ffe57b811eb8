//! The closing count of `personas import`: how many of the events it sent turned out to be duplicates.

use super::{QueryError, Reader};
use crate::domain::{Offset, SourceNo, SpaceNo};
use crate::store::log;
use crate::store::log::codec::Records;
use crate::store::log::numbers::Fate;
use crate::store::processor;

/// What became of the events at the given places of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportReport {
    /// All of them have been processed.
    pub processed: bool,
    /// So many did not count, because their message ids were known.
    pub duplicates: u64,
}

/// A range holds events of another source: a write key may ask about its own events only.
#[derive(Debug, thiserror::Error)]
pub enum NotYours {
    /// See above.
    #[error("the range {0}-{1} holds events of another source")]
    Range(Offset, Offset),
    /// The database could not be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Reader {
    /// Counts the duplicates in `ranges` of offsets, first and last included, all sent by `source`.
    pub async fn import_report(
        &self,
        space: SpaceNo,
        source: SourceNo,
        ranges: &[(Offset, Offset)],
    ) -> Result<ImportReport, NotYours> {
        let status = processor::status(&self.door(space), space).await.map_err(QueryError::from)?;
        let processed = status.map(|s| s.processed).unwrap_or_default();
        let last = ranges.iter().map(|(_, last)| *last).max().unwrap_or_default();
        if last > processed {
            return Ok(ImportReport { processed: false, duplicates: 0 });
        }
        let mut report = ImportReport { processed: true, duplicates: 0 };
        for (first, last) in ranges {
            report.duplicates += self.count_range(space, source, *first, *last).await?;
        }
        Ok(report)
    }

    async fn count_range(
        &self,
        space: SpaceNo,
        source: SourceNo,
        first: Offset,
        last: Offset,
    ) -> Result<u64, NotYours> {
        let (mut after, mut duplicates) = (Offset(first.0.saturating_sub(1)), 0);
        while after < last {
            let chunks =
                log::read_fates(&self.door(space), space, after, last, 32).await.map_err(QueryError::from)?;
            let Some(end) = chunks.last().map(|c| c.chunk.end_offset) else { break };
            for history in &chunks {
                let content = history.chunk.content().map_err(QueryError::from)?;
                let fates = Fate::decode_all(&history.numbers).map_err(|e| QueryError::Store(e.into()))?;
                let records = Records::new(&content).map_err(|e| QueryError::Store(e.into()))?;
                for ((record, fate), offset) in records.zip(fates).zip(history.chunk.first_offset().0..) {
                    if offset < first.0 || offset > last.0 {
                        continue;
                    }
                    if record.map_err(|e| QueryError::Store(e.into()))?.source != source {
                        return Err(NotYours::Range(first, last));
                    }
                    duplicates += u64::from(fate == Fate::Duplicate);
                }
            }
            after = end;
        }
        Ok(duplicates)
    }
}
