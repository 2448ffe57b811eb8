//! The log as it grows: the newest events of a space, for people who watch what comes in.
//!
//! Nothing waits for those who watch: whoever falls behind passes events over, and is told how many.

use std::collections::VecDeque;

use chrono::NaiveDate;

use super::timeline::{TimelineEvent, event};
use super::{QueryError, Reader};
use crate::domain::{EventType, Offset, SpaceNo};
use crate::store::log;
use crate::store::log::codec::Records;

/// Events looked at in one step; what is more than that behind is passed over.
const LOOKED_AT_MAX: u64 = 2_000;

/// Which events are of interest; all of it has to be so.
#[derive(Debug, Clone, Default)]
pub struct TailFilter {
    /// Public id of the source.
    pub source: Option<String>,
    /// Which call.
    pub event_type: Option<EventType>,
    /// The event's name.
    pub name: Option<String>,
    /// The value of any identifier on it.
    pub id: Option<String>,
}

impl TailFilter {
    fn takes(&self, event: &TimelineEvent) -> bool {
        self.event_type.is_none_or(|wanted| event.event_type == wanted)
            && self.name.as_ref().is_none_or(|name| event.name == *name)
            && self.source.as_ref().is_none_or(|source| event.source_id.as_ref() == Some(source))
            && self.id.as_ref().is_none_or(|id| event.external_ids.iter().any(|(_, _, value)| value == id))
    }
}

/// How far somebody has watched.
#[derive(Debug, Clone, Copy)]
pub struct TailMark {
    /// Everything up to here was looked at.
    pub offset: Offset,
    /// The log's day there: older partitions are not read again.
    day: NaiveDate,
}

impl TailMark {
    /// Behind this event.
    pub fn behind(offset: Offset) -> Self {
        // The default is long before any log.
        Self { offset, day: NaiveDate::default() }
    }
}

/// What has come in since.
#[derive(Debug)]
pub struct Tailed {
    /// The newest, in log order.
    pub events: VecDeque<TimelineEvent>,
    /// Events that are not told: there were too many.
    pub passed_over: u64,
    /// Where to go on.
    pub mark: TailMark,
}

impl Reader {
    /// Offset of the newest event of the log.
    pub async fn log_end(&self, space: SpaceNo) -> Result<Offset, QueryError> {
        Ok(log::tail(&self.door(space), space).await?)
    }

    /// The newest `most` events behind a mark, of [`LOOKED_AT_MAX`] at most. Costs one look at the log's end while nothing comes in.
    pub async fn tail(
        &self,
        space: SpaceNo,
        mark: TailMark,
        filter: &TailFilter,
        most: usize,
    ) -> Result<Tailed, QueryError> {
        let end = self.log_end(space).await?;
        let after = Offset(mark.offset.0.max(end.0.saturating_sub(LOOKED_AT_MAX)));
        let mut tailed =
            Tailed { events: VecDeque::new(), passed_over: after.0.saturating_sub(mark.offset.0), mark };
        // What is passed over is so once; and a log that was purged begins anew.
        tailed.mark.offset = after.min(end);
        if end <= after {
            return Ok(tailed);
        }
        let wanted = (end.0 - after.0) as u32;
        let chunks = log::read_from(&self.door(space), space, after, mark.day, wanted).await?;
        if chunks.is_empty() {
            // It is not kept any more.
            tailed.mark.offset = end;
        }
        let directory = self.directory(space, None).await?;
        for chunk in &chunks {
            let content = chunk.content()?;
            let records = Records::new(&content).map_err(|e| QueryError::Store(e.into()))?;
            for (record, offset) in records.zip(chunk.first_offset().0..) {
                let record = record.map_err(|e| QueryError::Store(e.into()))?;
                if offset <= after.0 || !super::timeline::is_shown(&record) {
                    continue;
                }
                let event = event(&record, Offset(offset), &directory);
                if filter.takes(&event) {
                    // However many there are, no more are held than are told.
                    if tailed.events.len() == most {
                        tailed.events.pop_front();
                        tailed.passed_over += 1;
                    }
                    tailed.events.push_back(event);
                }
            }
            tailed.mark = TailMark { offset: chunk.end_offset, day: chunk.day };
        }
        Ok(tailed)
    }
}
