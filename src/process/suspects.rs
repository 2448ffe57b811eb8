//! Values that were refused, as far as a transaction needs them: which are in quarantine, and how far the others are from it.
//!
//! Of all of them only their keys are in memory, half of each, up to a bound; what is known of one is read when it comes
//! again, those of a batch in one statement. An ordinary batch has none.

use hashbrown::{HashMap, HashSet};
use sqlx::PgConnection;

use crate::domain::{IdKey, ProfileNo, SpaceNo, Timestamp};
use crate::engine::identity::{Candidate, Suspicion};
use crate::store::Result;
use crate::store::quarantine::{self, NamedSuspect, SuspectRow};

/// Keys that are remembered. With more of them, every key of a batch is asked for.
const KEYS_MAX: usize = 1_000_000;

/// The keys of all values that something is known of.
#[derive(Debug, Default)]
pub(super) struct Known {
    keys: HashSet<u64>,
}

impl Known {
    pub(super) async fn load(connection: &mut PgConnection, space: SpaceNo) -> Result<Self> {
        let keys = quarantine::list_keys(connection, space, KEYS_MAX as i64 + 1).await?;
        Ok(Self { keys: keys.into_iter().map(short).collect() })
    }

    /// Whether something may be known of a value.
    pub(super) fn has(&self, key: IdKey) -> bool {
        self.keys.len() > KEYS_MAX || self.keys.contains(&short(key))
    }

    pub(super) fn add(&mut self, key: IdKey) {
        if self.keys.len() <= KEYS_MAX {
            self.keys.insert(short(key));
        }
    }
}

/// Keys are hashes: half of one tells them apart well enough to save a look.
const fn short(key: IdKey) -> u64 {
    key.0 as u64
}

/// What is known of the values a transaction has to do with.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    values: HashMap<IdKey, Suspicion>,
    /// Those that have to be written, with their names.
    changed: HashMap<IdKey, (String, String)>,
}

impl Suspects {
    pub(super) fn insert(&mut self, key: IdKey, known: Suspicion) {
        self.values.insert(key, known);
    }

    /// Reads what is known of some values.
    pub(super) async fn load(
        &mut self,
        connection: &mut PgConnection,
        space: SpaceNo,
        keys: &[IdKey],
    ) -> Result<()> {
        for (key, row) in quarantine::find_suspects(connection, space, keys).await? {
            let known = match row {
                SuspectRow { exempt: true, .. } => Suspicion::Exempt,
                SuspectRow { quarantined_at: Some(at), .. } => Suspicion::Quarantined(at),
                SuspectRow { profiles, .. } => Suspicion::Counting(profiles),
            };
            self.values.insert(key, known);
        }
        Ok(())
    }

    fn is_quarantined(&self, key: IdKey) -> bool {
        self.values.get(&key).is_some_and(Suspicion::is_quarantined)
    }

    /// Takes the values in quarantine out; none when there are none, which is nearly always.
    pub(super) fn part(&self, candidates: &[Candidate]) -> Option<(Vec<Candidate>, Vec<Candidate>)> {
        if self.values.is_empty() || !candidates.iter().any(|c| self.is_quarantined(c.key)) {
            return None;
        }
        Some(candidates.iter().cloned().partition(|c| !self.is_quarantined(c.key)))
    }

    /// Notes that a value was refused to a profile.
    pub(super) fn refused(
        &mut self,
        refused: &Candidate,
        id_type: &str,
        to: ProfileNo,
        threshold: u32,
        at: Timestamp,
    ) {
        let known = self.values.entry(refused.key).or_default();
        if known.refused(to, threshold as usize, at) {
            self.changed.insert(refused.key, (id_type.to_owned(), refused.value.clone()));
        }
    }

    /// Lets a value out of quarantine; false where it is not in it.
    pub(super) fn lift(&mut self, lifted: &Candidate, id_type: &str) -> bool {
        let is_lifted = self.values.get_mut(&lifted.key).is_some_and(Suspicion::lift);
        if is_lifted {
            self.changed.insert(lifted.key, (id_type.to_owned(), lifted.value.clone()));
        }
        is_lifted
    }

    /// What has to be written, and what the next transaction finds.
    pub(super) fn finish(self) -> (Vec<NamedSuspect>, HashMap<IdKey, Suspicion>) {
        let Self { mut values, changed } = self;
        let mut rows: Vec<NamedSuspect> = Vec::with_capacity(changed.len());
        let mut pending = HashMap::with_capacity(changed.len());
        for (key, (id_type, value)) in changed {
            let Some(known) = values.remove(&key) else { continue };
            let row = match &known {
                Suspicion::Counting(profiles) => {
                    SuspectRow { profiles: profiles.clone(), ..SuspectRow::default() }
                }
                Suspicion::Quarantined(at) => {
                    SuspectRow { quarantined_at: Some(*at), ..SuspectRow::default() }
                }
                Suspicion::Exempt => SuspectRow { exempt: true, ..SuspectRow::default() },
            };
            rows.push(NamedSuspect { key, id_type, value, row });
            pending.insert(key, known);
        }
        rows.sort_unstable_by_key(|row| row.key);
        (rows, pending)
    }
}
