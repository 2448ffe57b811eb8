//! A profile's events, read back from the chunks its pointers name.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Directory, Person, QueryError, Reader};
use crate::domain::{EventType, Offset, SpaceNo, Timestamp};
use crate::engine::consent::stated;
use crate::engine::identity::extract;
use crate::engine::profile::{DecodeError, Pointer, decode_pointers};
use crate::store::log;
use crate::store::log::codec::{Record, Records};
use crate::store::timeline;

/// Events read from the log at a time.
const READ_AT_A_TIME: usize = 200;

/// Oldest or newest event first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// Where a page of the timeline ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineCursor {
    /// Event time of its last event.
    pub at: Timestamp,
    /// Its offset.
    pub offset: Offset,
}

/// Which events are wanted.
#[derive(Debug, Clone)]
pub struct EventFilter {
    /// Not before.
    pub start: Timestamp,
    /// Not after.
    pub end: Timestamp,
    /// Only these names; empty for all.
    pub include: HashSet<String>,
    /// None of these names.
    pub exclude: HashSet<String>,
    /// Order.
    pub direction: Direction,
    /// Behind this event.
    pub after: Option<TimelineCursor>,
    /// Only events that say something of consent.
    pub with_consent: bool,
}

impl EventFilter {
    /// Leaves every event.
    pub fn all(direction: Direction) -> Self {
        Self {
            start: Timestamp::from_millis(i64::MIN),
            end: Timestamp::from_millis(i64::MAX),
            include: HashSet::new(),
            exclude: HashSet::new(),
            direction,
            after: None,
            with_consent: false,
        }
    }
}

/// One event of a profile, as it is shown.
#[derive(Debug, Clone)]
pub struct TimelineEvent {
    /// Its place in the log.
    pub offset: Offset,
    /// Which call.
    pub event_type: EventType,
    /// Event name; empty where the call has none.
    pub name: String,
    /// Event time.
    pub timestamp: Timestamp,
    /// Time of receipt.
    pub received_at: Timestamp,
    /// The client's time lay too far ahead, so the time of receipt was taken for it (decisions T10).
    pub clamped: bool,
    /// The client's message id.
    pub message_id: String,
    /// Public id of the source.
    pub source_id: Option<String>,
    /// Properties, or traits of identify and group: JSON object or empty.
    pub body: String,
    /// JSON object or empty.
    pub context: String,
    /// Identifiers on it: collection, type, value.
    pub external_ids: Vec<(&'static str, String, String)>,
}

impl Reader {
    /// A page of a profile's events in order of event time.
    pub async fn list_events(
        &self,
        space: SpaceNo,
        person: &Person,
        filter: &EventFilter,
        limit: usize,
    ) -> Result<Vec<TimelineEvent>, QueryError> {
        let pointers = self.pointers(space, person, filter).await?;
        let mut events = Vec::new();
        for group in pointers.chunks(READ_AT_A_TIME) {
            let mut read = self.read_events(space, group, &person.directory).await?;
            for pointer in group {
                let Some(event) = read.remove(&pointer.offset) else { continue };
                let name = event.name.as_str();
                if (filter.include.is_empty() || filter.include.contains(name))
                    && !filter.exclude.contains(name)
                    && (!filter.with_consent || stated(&event.context).is_some())
                {
                    events.push(event);
                }
            }
            if events.len() >= limit {
                break;
            }
        }
        events.truncate(limit);
        Ok(events)
    }

    /// When the identifiers of a profile's newest events were seen last, by type and value, in event time. What no event
    /// among the newest 200 has is not there.
    pub async fn last_seen(
        &self,
        space: SpaceNo,
        person: &Person,
    ) -> Result<HashMap<(String, String), Timestamp>, QueryError> {
        let newest = EventFilter::all(Direction::Descending);
        let mut seen = HashMap::new();
        for event in self.list_events(space, person, &newest, READ_AT_A_TIME).await? {
            for (_, id_type, value) in event.external_ids {
                seen.entry((id_type, value)).or_insert(event.timestamp);
            }
        }
        Ok(seen)
    }

    /// The pointers the filter leaves, in its order.
    async fn pointers(
        &self,
        space: SpaceNo,
        person: &Person,
        filter: &EventFilter,
    ) -> Result<Vec<Pointer>, QueryError> {
        let numbers = person.profile.numbers();
        let mut pointers = person.profile.pointers();
        for page in timeline::list_pages(&self.door(space), space, &numbers, filter.start, filter.end).await?
        {
            pointers.extend(decode_pointers(&page).ok_or(DecodeError::Format)?);
        }
        pointers.retain(|p| p.at >= filter.start && p.at <= filter.end);
        pointers.sort_unstable_by_key(|p| (p.at, p.offset));
        if filter.direction == Direction::Descending {
            pointers.reverse();
        }
        if let Some(after) = filter.after {
            let place = |p: &Pointer| (p.at, p.offset);
            let mark = (after.at, after.offset);
            pointers.retain(|p| match filter.direction {
                Direction::Ascending => place(p) > mark,
                Direction::Descending => place(p) < mark,
            });
        }
        Ok(pointers)
    }

    async fn read_events(
        &self,
        space: SpaceNo,
        pointers: &[Pointer],
        directory: &Directory,
    ) -> Result<BTreeMap<Offset, TimelineEvent>, QueryError> {
        let mut offsets: Vec<Offset> = pointers.iter().map(|p| p.offset).collect();
        offsets.sort_unstable();
        let mut events = BTreeMap::new();
        for chunk in log::read_containing(&self.door(space), space, &offsets).await? {
            let content = chunk.content()?;
            let records = Records::new(&content).map_err(|e| QueryError::Store(e.into()))?;
            for (record, offset) in records.zip(chunk.first_offset().0..) {
                let record = record.map_err(|e| QueryError::Store(e.into()))?;
                if is_shown(&record) && offsets.binary_search(&Offset(offset)).is_ok() {
                    events.insert(Offset(offset), event(&record, Offset(offset), directory));
                }
            }
        }
        Ok(events)
    }

    /// The first and the newest event of a profile, as far as the log still has them.
    pub async fn first_and_last(
        &self,
        space: SpaceNo,
        person: &Person,
    ) -> Result<(Option<TimelineEvent>, Option<TimelineEvent>), QueryError> {
        let at = Timestamp::EPOCH;
        let (first, last) = (person.profile.first_offset, person.profile.last_offset);
        let pointers = [Pointer { offset: first, at }, Pointer { offset: last, at }];
        let events = self.read_events(space, &pointers, &person.directory).await?;
        Ok((events.get(&first).cloned(), events.get(&last).cloned()))
    }
}

/// Whether a record is an event that is there. Operators' acts have pointers, too, but are no events; and neither is what was
/// erased, or what is over (`store::retention`).
pub(super) fn is_shown(record: &Record<'_>) -> bool {
    let is_gone = record.erased && record.unprofiled;
    let is_over = record.event_type.is_event() && record.name.is_empty();
    !(record.act || is_gone || is_over)
}

pub(super) fn event(record: &Record<'_>, offset: Offset, directory: &Directory) -> TimelineEvent {
    let ids = extract(&record.parts(), &directory.settings);
    let named = |collection, list: Vec<crate::engine::identity::Candidate>| {
        list.into_iter().map(move |c| (collection, directory.type_name(c.type_no).to_owned(), c.value))
    };
    TimelineEvent {
        offset,
        event_type: record.event_type,
        name: record.name.to_owned(),
        timestamp: record.timestamp,
        received_at: record.received_at,
        clamped: record.clamped,
        message_id: record.message_id.to_owned(),
        source_id: directory.source_id(record.source),
        body: record.body.to_owned(),
        context: record.context.to_owned(),
        external_ids: named("users", ids.users).chain(named("accounts", ids.accounts)).collect(),
    }
}
