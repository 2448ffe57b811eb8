//! Committed profiles in memory, for reads in the process that writes them: the processor of a space is its only
//! writer, so it knows when what is here stops being so (ADR 0008).
//!
//! Guarantees, for a read that begins after something was acknowledged: it is never answered with what was before.
//! - What a transaction writes is forgotten before its commit is sent, and is not answered or kept from here until
//!   its outcome is known. A look-up that was under way at any time in between keeps nothing of it.
//! - Nothing is answered for longer than [`TRUST`] after a statement was sent that found, in one snapshot, the lease
//!   under our epoch with more than twice that left. So nobody else can have written, however long we were frozen.
//! - The same statement told the version of the configuration. Who changes that waits for [`TRUST`] to pass in other
//!   processes before it is acknowledged; in this one it ends at once.
//! - A rolled back or unknown outcome forgets everything of the space; so does the end of the lease.
//!
//! Nothing is put in here but what was read, so a process that only writes spends no memory on it. That nobody has an
//! identifier is never kept.

mod profiles;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;

use crate::domain::{IdKey, ProfileNo, SpaceNo};
use crate::telemetry::metrics;
use profiles::{Profiles, Term};

/// How long a look at the lease and the version of the configuration is good for.
pub const TRUST: Duration = Duration::from_millis(100);
/// A lease with less than this left is not relied upon.
pub const LEASE_LEFT_MIN: Duration = Duration::from_millis(200);
/// Profiles forgotten at a time: reads need not wait for all of a large batch.
const FORGET_AT_ONCE: usize = 512;
/// Transactions a look-up takes note of; after more it keeps nothing.
const NOTED_MAX: usize = 16;

/// What a transaction changes, as far as answers follow from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writes {
    /// Something that may concern any profile of the space.
    Anything,
    /// These.
    Only {
        /// Profiles that are rewritten or absorbed, sorted.
        profiles: Vec<ProfileNo>,
        /// Identifiers that are taken away, sorted.
        keys: Vec<IdKey>,
    },
}

impl Writes {
    fn concern(&self, key: &IdKey, no: ProfileNo) -> bool {
        match self {
            Self::Anything => true,
            Self::Only { profiles, keys } => {
                profiles.binary_search(&no).is_ok() || keys.binary_search(key).is_ok()
            }
        }
    }
}

/// What a look-up found beside the profiles, in the same snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Version of the space's configuration.
    pub version: i64,
    /// Epoch of the space's lease.
    pub epoch: i64,
    /// The lease has more than [`LEASE_LEFT_MIN`] left.
    pub is_leased: bool,
}

/// A profile as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The identifier that leads to it.
    pub key: IdKey,
    /// Its number.
    pub no: ProfileNo,
    /// It, encoded.
    pub state: Bytes,
}

/// The handle; clones share what is kept.
#[derive(Debug, Clone)]
pub struct ReadCache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    is_off: bool,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    spaces: HashMap<SpaceNo, Space>,
    profiles: Profiles,
    /// Newest number given to a lease, a term or a look-up.
    last: u64,
}

/// A space whose lease this process holds.
#[derive(Debug)]
struct Space {
    hold: u64,
    epoch: i64,
    term: Term,
    /// Newest version of the configuration that was seen: no profile here was written under a newer one.
    version: i64,
    trusted_until: Option<Instant>,
    /// Look-ups with numbers up to this one may have missed a change of the configuration.
    changed: u64,
    /// Changes of the configuration under way in this process.
    changing: u32,
    /// What the transaction under way writes.
    writing: Option<Arc<Writes>>,
    looks: Vec<(u64, Noted)>,
}

/// What was under way while a look-up was; `None` is too much to tell.
type Noted = Option<Vec<Arc<Writes>>>;

fn note(noted: &mut Noted, writes: &Arc<Writes>) {
    match noted {
        Some(list) if list.len() < NOTED_MAX => list.push(Arc::clone(writes)),
        _ => *noted = None,
    }
}

impl Space {
    /// The configuration has changed: what look-ups up to number `newest` say of it may be from before.
    fn distrust(&mut self, newest: u64) {
        self.trusted_until = None;
        self.changed = newest;
    }
}

impl Kept {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The space, as long as it is held under this very lease.
    fn held(&mut self, space: SpaceNo, hold: u64) -> Option<&mut Space> {
        self.spaces.get_mut(&space).filter(|s| s.hold == hold)
    }

    /// Forgets everything of a space; the look-ups under way keep nothing.
    fn forget(&mut self, space: SpaceNo, hold: u64) {
        let number = self.number();
        if let Some(held) = self.held(space, hold) {
            held.term = Term { space, number };
            held.trusted_until = None;
            held.looks.iter_mut().for_each(|(_, noted)| *noted = None);
        }
    }
}

impl ReadCache {
    /// Keeps up to `bytes_max` bytes of all spaces together; with 0 it answers nothing.
    pub fn new(bytes_max: usize) -> Self {
        let kept = Kept { spaces: HashMap::new(), profiles: Profiles::new(bytes_max), last: 0 };
        Self(Arc::new(Shared { is_off: bytes_max == 0, kept: Mutex::new(kept) }))
    }

    fn with<R>(&self, work: impl FnOnce(&mut Kept) -> R) -> R {
        work(&mut self.0.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The profile an identifier leads to, and a version of the configuration no older than what it was written under.
    /// `now` is a time at which the question was there already.
    pub fn get(&self, space: SpaceNo, key: IdKey, now: Instant) -> Option<(Bytes, i64)> {
        if self.0.is_off {
            return None;
        }
        let found = self.with(|kept| {
            let held = kept.spaces.get(&space)?;
            if held.changing > 0 || held.trusted_until.is_none_or(|until| now >= until) {
                return None;
            }
            let (no, state) = kept.profiles.get(held.term, key)?;
            let is_written = held.writing.as_ref().is_some_and(|writes| writes.concern(&key, no));
            (!is_written).then_some((state, held.version))
        });
        if found.is_some() {
            metrics::READ_CACHE_HITS.add(&[], 1);
        } else {
            metrics::READ_CACHE_MISSES.add(&[], 1);
        }
        found
    }

    /// Announces a look-up in the database, before its statement is sent at `now`. `None` when nothing of it could be
    /// kept.
    pub fn look(&self, space: SpaceNo, now: Instant) -> Option<Look> {
        if self.0.is_off {
            return None;
        }
        let (hold, number) = self.with(|kept| {
            let number = kept.number();
            let held = kept.spaces.get_mut(&space)?;
            held.looks.push((number, Some(held.writing.iter().cloned().collect())));
            Some((held.hold, number))
        })?;
        Some(Look { cache: self.clone(), space, hold, number, sent: now })
    }

    /// The lease of a space was taken under this epoch. Before the lease is given back, what is returned has to be
    /// dropped.
    pub fn hold(&self, space: SpaceNo, epoch: i64) -> Hold {
        let hold = self.with(|kept| {
            let (hold, number) = (kept.number(), kept.number());
            let held = Space {
                hold,
                epoch,
                term: Term { space, number },
                version: i64::MIN,
                trusted_until: None,
                changed: 0,
                changing: 0,
                writing: None,
                looks: Vec::new(),
            };
            kept.spaces.insert(space, held);
            hold
        });
        Hold { cache: self.clone(), space, number: hold }
    }

    /// Whether this process holds the space under this epoch, and so nobody else answers from memory.
    pub fn is_held(&self, space: SpaceNo, epoch: i64) -> bool {
        self.with(|kept| kept.spaces.get(&space).is_some_and(|held| held.epoch == epoch))
    }

    /// Answers nothing of a space from here while its configuration is being changed: until what is returned is
    /// dropped.
    pub fn change(&self, space: SpaceNo) -> Changing {
        let hold = self.with(|kept| {
            let held = kept.spaces.get_mut(&space)?;
            held.changing += 1;
            Some(held.hold)
        });
        Changing { cache: self.clone(), space, hold }
    }
}

/// A look-up under way.
#[derive(Debug)]
pub struct Look {
    cache: ReadCache,
    space: SpaceNo,
    hold: u64,
    number: u64,
    sent: Instant,
}

impl Look {
    /// Keeps what was found, as far as nobody has begun to write it since the look-up was announced.
    pub fn keep(&self, standing: Standing, found: impl IntoIterator<Item = Found>) {
        self.cache.with(|kept| {
            let Some(held) = kept.spaces.get_mut(&self.space).filter(|s| s.hold == self.hold) else { return };
            if standing.epoch != held.epoch || !standing.is_leased {
                held.trusted_until = None;
                return;
            }
            held.version = held.version.max(standing.version);
            if self.number > held.changed {
                held.trusted_until = held.trusted_until.max(Some(self.sent + TRUST));
            }
            let Some((_, Some(noted))) = held.looks.iter().find(|(number, _)| *number == self.number) else {
                return;
            };
            for Found { key, no, state } in found {
                if !noted.iter().any(|writes| writes.concern(&key, no)) {
                    kept.profiles.insert(held.term, key, no, state);
                }
            }
            metrics::READ_CACHE_BYTES.set(&[], kept.profiles.bytes() as f64);
        });
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.cache.with(|kept| {
            if let Some(held) = kept.held(self.space, self.hold) {
                held.looks.retain(|(number, _)| *number != self.number);
            }
        });
    }
}

/// The lease of a space. Dropping it ends all answers from memory.
#[derive(Debug)]
pub struct Hold {
    cache: ReadCache,
    space: SpaceNo,
    number: u64,
}

impl Hold {
    /// A transaction will write this; to be called before its commit is sent. There is one at a time.
    pub fn begin(&self, writes: Writes) -> Writing {
        let (space, hold) = (self.space, self.number);
        let mut writes = Arc::new(writes);
        let term = self.cache.with(|kept| {
            let held = kept.held(space, hold)?;
            if held.writing.is_some() {
                // How the one before ended is not known.
                writes = Arc::new(Writes::Anything);
            }
            held.looks.iter_mut().for_each(|(_, noted)| note(noted, &writes));
            held.writing = Some(Arc::clone(&writes));
            let term = held.term;
            if *writes == Writes::Anything {
                kept.forget(space, hold);
            }
            (!kept.profiles.is_empty()).then_some(term)
        });
        if let (Some(term), Writes::Only { profiles, keys }) = (term, &*writes) {
            for some in profiles.chunks(FORGET_AT_ONCE) {
                self.cache.with(|kept| some.iter().for_each(|no| kept.profiles.remove(term, *no)));
            }
            for some in keys.chunks(FORGET_AT_ONCE) {
                self.cache.with(|kept| some.iter().for_each(|key| kept.profiles.remove_key(term, *key)));
            }
        }
        Writing { cache: self.cache.clone(), space, hold, is_committed: false }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.cache.with(|kept| {
            if kept.held(self.space, self.number).is_some() {
                kept.spaces.remove(&self.space);
            }
        });
    }
}

/// A transaction under way. Dropped without [`Writing::committed`], its outcome counts as unknown until the next one
/// is committed, which had to wait for it.
#[derive(Debug)]
pub struct Writing {
    cache: ReadCache,
    space: SpaceNo,
    hold: u64,
    is_committed: bool,
}

impl Writing {
    /// It is committed, and nobody was told so yet.
    pub fn committed(mut self) {
        self.is_committed = true;
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.cache.with(|kept| {
            let newest = kept.last;
            let Some(held) = kept.held(self.space, self.hold) else { return };
            if held.writing.as_deref() == Some(&Writes::Anything) {
                // It may have changed the configuration.
                held.distrust(newest);
            }
            if self.is_committed {
                held.writing = None;
                return;
            }
            held.writing = Some(Arc::new(Writes::Anything));
            kept.forget(self.space, self.hold);
        });
    }
}

/// A change of a space's configuration under way in this process.
#[derive(Debug)]
pub struct Changing {
    cache: ReadCache,
    space: SpaceNo,
    hold: Option<u64>,
}

impl Drop for Changing {
    fn drop(&mut self) {
        self.cache.with(|kept| {
            let newest = kept.last;
            let Some(held) = kept.spaces.get_mut(&self.space) else { return };
            if self.hold == Some(held.hold) {
                held.changing = held.changing.saturating_sub(1);
            }
            held.distrust(newest);
        });
    }
}
