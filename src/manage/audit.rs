//! The audit log: changes are written before they are answered, reads of personal data are gathered and written each second.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::BoxStream;
use sqlx::postgres::PgPool;

use super::{Manage, Result};
use crate::domain::act::Actor;
use crate::domain::audit::{Entry, EntryKind};
use crate::domain::{SpaceNo, Timestamp};
use crate::store::audit::{self, Wanted};
use crate::store::{self, walled};
use crate::telemetry::metrics;

pub use crate::store::audit::Told;
pub use crate::store::audit::verify::Report;

/// Different reads that are gathered at most before they are written at once.
const GATHERED_MAX: usize = 10_000;
/// Profiles one entry names.
const PROFILES_MAX: usize = 1_000;

/// What reads have in common that are gathered into one entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReadOf {
    /// Whose data.
    pub space: SpaceNo,
    /// Public id and name of the token.
    pub actor: (String, String),
    /// The client's address.
    pub address: String,
    /// Method and route.
    pub action: String,
    /// What of the service was read: the names in the path, as JSON.
    pub target: String,
}

#[derive(Debug)]
struct Gathered {
    first_at: Timestamp,
    count: u64,
    profiles: BTreeSet<String>,
}

/// Reads that are not written yet; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Reads(Arc<Mutex<HashMap<ReadOf, Gathered>>>);

impl Reads {
    /// Adds a read; true when it is time to write.
    fn add(&self, read: ReadOf, profiles: Vec<String>, at: Timestamp) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of =
            all.entry(read).or_insert_with(|| Gathered { first_at: at, count: 0, profiles: BTreeSet::new() });
        of.count += 1;
        of.profiles.extend(profiles);
        of.profiles.len() >= PROFILES_MAX || all.len() >= GATHERED_MAX
    }

    fn take(&self) -> HashMap<ReadOf, Gathered> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts back what could not be written, as far as there is room. Returns how many reads are lost.
    fn put_back(&self, failed: HashMap<ReadOf, Gathered>) -> u64 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = 0;
        for (read, of) in failed {
            if let Some(known) = all.get_mut(&read) {
                known.count += of.count;
                known.first_at = known.first_at.min(of.first_at);
                let room = PROFILES_MAX.saturating_sub(known.profiles.len());
                known.profiles.extend(of.profiles.into_iter().take(room));
            } else if all.len() < GATHERED_MAX {
                all.insert(read, of);
            } else {
                lost += of.count;
            }
        }
        lost
    }
}

impl Manage {
    /// Writes an entry down; returns once it is durable.
    pub async fn record(&self, space: Option<SpaceNo>, entry: Entry) -> Result<()> {
        let space = space.unwrap_or(audit::SERVER);
        Ok(audit::append_alone(&self.door(space), space, vec![entry]).await?)
    }

    /// Takes note of a read of personal data. It is written within a second; what has gathered in unusual numbers is written
    /// first.
    pub async fn note_read(&self, read: ReadOf, profiles: Vec<String>) {
        if self.reads.add(read, profiles, self.clock.now()) {
            self.write_reads().await;
        }
    }

    /// Writes down the reads that have gathered. What cannot be written now is kept for the next time.
    pub async fn write_reads(&self) {
        let mut spaces: HashMap<SpaceNo, HashMap<ReadOf, Gathered>> = HashMap::new();
        for (read, of) in self.reads.take() {
            spaces.entry(read.space).or_default().insert(read, of);
        }
        for (space, gathered) in spaces {
            let mut entries: Vec<Entry> = gathered.iter().map(|(read, of)| entry_of(read, of)).collect();
            entries.sort_unstable_by(|a, b| {
                (&a.at, &a.action, &a.actor.id).cmp(&(&b.at, &b.action, &b.actor.id))
            });
            if let Err(error) = write(&self.pool, space, entries).await {
                let lost = self.reads.put_back(gathered);
                metrics::AUDIT_LOST.add(&[], lost);
                tracing::warn!(%space, %error, lost, "could not write down reads of personal data of space {space}: {error}");
            }
        }
    }

    /// A page of the audit log of a space, or of the server, newest first.
    pub async fn list_audit(
        &self,
        space: Option<SpaceNo>,
        kind: Option<EntryKind>,
        action: Option<&str>,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<Told>> {
        // U+0000 is in no action and not in Postgres' texts either.
        let action = action.map(|action| action.replace('\0', ""));
        let wanted = Wanted { kind, action: action.as_deref() };
        let space = space.unwrap_or(audit::SERVER);
        Ok(audit::list(&self.door(space), space, wanted, before, limit as i64).await?)
    }

    /// The whole audit log, oldest first, as it is read.
    pub fn stream_audit(&self, space: Option<SpaceNo>) -> BoxStream<'static, store::Result<Told>> {
        let space = space.unwrap_or(audit::SERVER);
        audit::stream(self.door(space), space)
    }

    /// Whether the audit log is as it was written.
    pub async fn verify_audit(&self, space: Option<SpaceNo>) -> Result<Report> {
        let space = space.unwrap_or(audit::SERVER);
        Ok(audit::verify::verify(&self.door(space), space).await?)
    }
}

async fn write(pool: &PgPool, space: SpaceNo, entries: Vec<Entry>) -> store::Result<()> {
    audit::append_alone(&walled(pool, space), space, entries).await
}

fn entry_of(read: &ReadOf, of: &Gathered) -> Entry {
    let (id, name) = read.actor.clone();
    Entry {
        address: Some(read.address.clone()),
        target: serde_json::from_str(&read.target).ok(),
        count: Some(of.count),
        profiles: of.profiles.iter().cloned().collect(),
        ..Entry::new(EntryKind::Read, of.first_at.to_string(), read.action.clone(), Actor { id, name })
    }
}
