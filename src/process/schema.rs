//! What has been seen of events and traits, gathered beside the work of a space's processor.
//!
//! Every event that counts is noted once: positions only go forward, also when a transaction is computed again. What was
//! not written before a crash is made up for from the log.

use std::time::{Duration, Instant};

use chrono::NaiveDate;
use hashbrown::HashMap;
use sqlx::postgres::PgPool;

use crate::domain::seen::Seen;
use crate::domain::{EventType, Offset, SpaceNo};
use crate::store::Result;
use crate::store::log::codec::{Record, Records};
use crate::store::log::{self};
use crate::store::schema::{self, SeenKind};

/// Event names of a space; others are left out.
const NAMES_MAX: usize = 1_000;
/// How often what is new is written.
const BUSY_EVERY: Duration = Duration::from_secs(2);
const IDLE_EVERY: Duration = Duration::from_millis(100);
/// Events that are made up for at most: more is not worth a late start.
const CATCH_UP_MAX: u64 = 200_000;
const READ_AT_A_TIME: u32 = 10_000;

/// What has been seen in one space.
pub(super) struct Schema {
    space: SpaceNo,
    names: HashMap<String, Noted>,
    users: Noted,
    accounts: Noted,
    /// Events up to here are noted.
    position: Offset,
    written: Instant,
}

#[derive(Default)]
struct Noted {
    seen: Seen,
    is_new: bool,
}

impl Noted {
    fn of(seen: Seen) -> Self {
        Self { seen, is_new: false }
    }

    fn note(&mut self, body: &str, record: &Record<'_>) {
        self.seen.note(body, record.received_at);
        self.is_new = true;
    }
}

impl Schema {
    /// Loads what is written, and makes up for what the log has beyond that up to `processed`.
    pub(super) async fn load(pool: &PgPool, space: SpaceNo, processed: Offset) -> Result<Self> {
        let names = schema::list_seen(pool, space, SeenKind::Event, None).await?;
        let traits = async |kind| -> Result<Noted> {
            let seen = schema::list_seen(pool, space, kind, None).await?.pop();
            Ok(seen.map_or_else(Noted::default, |(_, seen)| Noted::of(seen)))
        };
        let mut schema = Self {
            space,
            names: names.into_iter().map(|(name, seen)| (name, Noted::of(seen))).collect(),
            users: traits(SeenKind::UserTraits).await?,
            accounts: traits(SeenKind::AccountTraits).await?,
            position: schema::find_position(pool, space).await?,
            written: Instant::now(),
        };
        let least = Offset(processed.0.saturating_sub(CATCH_UP_MAX));
        schema.position = schema.position.max(least);
        schema.catch_up(pool, processed).await?;
        Ok(schema)
    }

    /// Notes nothing.
    pub(super) fn off(space: SpaceNo) -> Self {
        Self {
            space,
            names: HashMap::new(),
            users: Noted::default(),
            accounts: Noted::default(),
            position: Offset(u64::MAX),
            written: Instant::now(),
        }
    }

    async fn catch_up(&mut self, pool: &PgPool, processed: Offset) -> Result<()> {
        while self.position < processed {
            let (after, day) = (self.position, NaiveDate::default());
            let chunks = log::read_from(pool, self.space, after, day, READ_AT_A_TIME).await?;
            if chunks.is_empty() {
                self.position = processed;
            }
            for chunk in chunks {
                let content = chunk.content()?;
                let mut offset = chunk.first_offset();
                for record in Records::new(&content)? {
                    let record = record?;
                    if offset <= processed && !record.act && !record.unprofiled {
                        self.note(&record, offset);
                    }
                    offset.0 += 1;
                }
                self.position = self.position.max(chunk.end_offset.min(processed));
            }
        }
        Ok(())
    }

    /// Notes an event that counts.
    pub(super) fn note(&mut self, record: &Record<'_>, offset: Offset) {
        if offset <= self.position {
            return;
        }
        self.position = offset;
        match record.event_type {
            EventType::Track | EventType::Page | EventType::Screen => {
                if let Some(known) = self.names.get_mut(record.name) {
                    known.note(record.body, record);
                } else if self.names.len() < NAMES_MAX && !record.name.is_empty() {
                    self.names.entry(record.name.to_owned()).or_default().note(record.body, record);
                }
            }
            EventType::Identify => self.users.note(record.traits().unwrap_or_default(), record),
            EventType::Group => self.accounts.note(record.traits().unwrap_or_default(), record),
            EventType::Alias => {}
        }
    }

    /// Writes what is new, every now and then; soon when there is nothing else to do.
    pub(super) async fn write(&mut self, pool: &PgPool, epoch: i64, is_idle: bool) -> Result<()> {
        if self.written.elapsed() < if is_idle { IDLE_EVERY } else { BUSY_EVERY } {
            return Ok(());
        }
        self.written = Instant::now();
        let names = self.names.iter().map(|(name, noted)| (SeenKind::Event, name.as_str(), noted));
        let traits = [(SeenKind::UserTraits, "", &self.users), (SeenKind::AccountTraits, "", &self.accounts)];
        let new = names.chain(traits).filter(|(.., noted)| noted.is_new);
        let mut rows: Vec<_> = new.map(|(kind, name, noted)| (kind, name, &noted.seen)).collect();
        if rows.is_empty() {
            return Ok(());
        }
        rows.sort_unstable_by_key(|(kind, name, _)| (*kind, *name));
        schema::save_seen(pool, self.space, epoch, &rows, self.position).await?;
        let all = self.names.values_mut().chain([&mut self.users, &mut self.accounts]);
        all.for_each(|noted| noted.is_new = false);
        Ok(())
    }
}
