//! The working set of one transaction: the identifiers and profiles it touches, and everything it will write.
//!
//! Profiles are moved out of the caches while a transaction works on them. What it makes of them is *pending* until
//! its commit: the next transaction is computed on top of it, and a rollback forgets it. So the caches themselves hold
//! only what the database holds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use bytes::Bytes;
use hashbrown::HashMap;
use sqlx::PgConnection;

use super::accounts;
use super::cache::Cache;
use super::catalog::Catalog;
use super::consent;
use super::outbox::Change;
use super::search::Changes;
use super::suspects::{Known, Suspects};
use crate::domain::{Collection, ComputationNo, IdKey, Offset, ProfileNo, SpaceNo, Timestamp};
use crate::engine::Dirty;
use crate::engine::identity::{Graph, IdType, Owned, Suspicion};
use crate::engine::profile::{Outcome, Profile};
use crate::engine::seats::Recount;
use crate::store::audit::AuditEntry;
use crate::store::corrections::Corrections;
use crate::store::deliveries::NewDelivery;
use crate::store::identity::{Merge, NewIdentifier, RefusalRow};
use crate::store::memberships::{MembershipChange, Transition};
use crate::store::messages::ChunkOutcome;
use crate::store::profiles::{Link, Loaded, ProfileRow};
use crate::store::quarantine::NamedSuspect;
use crate::store::rejected::RejectedEvent;
use crate::store::timeline::PointerPage;
use crate::store::{Result, StoreError, identity, profiles};

/// What the processor keeps between transactions.
pub(super) struct Caches {
    owners: Cache<IdKey, ProfileNo>,
    /// Encoded, because decoded ones take several times the room.
    profiles: Cache<ProfileNo, Bytes>,
    /// Values that were refused before.
    pub suspects: Known,
    pending: Pending,
}

/// What the transaction under way will make true.
#[derive(Default)]
pub(super) struct Pending {
    pub owners: HashMap<IdKey, Option<ProfileNo>>,
    pub profiles: HashMap<ProfileNo, Bytes>,
    /// Who is absorbed by whom.
    pub redirects: HashMap<ProfileNo, ProfileNo>,
    pub suspects: HashMap<IdKey, Suspicion>,
}

/// Whose an identifier is.
enum Owner {
    Is(ProfileNo),
    Nobody,
    /// The database has to be asked.
    Unknown,
}

impl Caches {
    pub(super) fn new(owners_max: usize, profile_bytes_max: usize) -> Self {
        Self {
            owners: Cache::new(owners_max),
            profiles: Cache::new(profile_bytes_max),
            suspects: Known::default(),
            pending: Pending::default(),
        }
    }

    /// A transaction is under way: what it writes is what the next one finds.
    pub(super) fn expect(&mut self, pending: Pending) {
        self.pending = pending;
    }

    /// The transaction is committed.
    pub(super) fn confirm(&mut self) {
        let Pending { owners, profiles, redirects: _, suspects } = std::mem::take(&mut self.pending);
        for (key, owner) in owners {
            match owner {
                Some(no) => self.owners.put(key, no),
                None => _ = self.owners.take(&key),
            }
        }
        profiles.into_iter().for_each(|(no, row)| self.profiles.put(no, row));
        suspects.into_keys().for_each(|key| self.suspects.add(key));
    }

    /// The transaction was rolled back: the database knows better.
    pub(super) fn forget(&mut self) {
        self.pending = Pending::default();
    }

    /// Who owns an identifier, as far as it is known here.
    fn owner(&mut self, key: &IdKey) -> Owner {
        match self.pending.owners.get(key) {
            Some(Some(no)) => Owner::Is(*no),
            Some(None) => Owner::Nobody,
            None => self.owners.get(key).map_or(Owner::Unknown, Owner::Is),
        }
    }

    fn take_profile(&mut self, no: ProfileNo) -> Option<Bytes> {
        self.pending.profiles.remove(&no).or_else(|| self.profiles.take(&no))
    }
}

/// A profile in work.
pub(super) struct Entry {
    pub profile: Box<Profile>,
    /// Made by this transaction.
    pub fresh: bool,
    /// Has to be written.
    pub touched: bool,
    /// Definitions to evaluate.
    pub dirty: Dirty,
    /// Outcomes of the profiles it absorbed in this transaction.
    pub absorbed: Vec<(ProfileNo, Outcome)>,
    /// Due time the index has.
    pub indexed_due: Option<Timestamp>,
    /// Its states are to be tidied, as of this instant.
    pub tidy_at: Option<Timestamp>,
    /// As it was read; none for a profile that is not written yet.
    pub encoded: Option<Bytes>,
}

/// The working set.
#[derive(Default)]
pub(super) struct Work {
    pub owners: HashMap<IdKey, Option<ProfileNo>>,
    pub entries: HashMap<ProfileNo, Entry>,
    /// Who was absorbed by whom in this transaction.
    pub redirects: HashMap<ProfileNo, ProfileNo>,
    /// Who was absorbed by whom before it, as far as it matters here.
    pub aliases: HashMap<ProfileNo, ProfileNo>,
    pub last_profile: ProfileNo,
    /// Values that were refused.
    pub suspects: Suspects,
    /// Accounts that something has changed on and that are not evaluated since.
    pub changed: BTreeSet<ProfileNo>,
    /// When profiles in work are due, as far as that is watched for; some may be due later by now.
    pub timers: BinaryHeap<Reverse<(Timestamp, ProfileNo)>>,
    pub watched_until: Timestamp,
    pub out: Output,
}

/// Rows to be written besides the profiles.
#[derive(Default)]
pub(super) struct Output {
    /// The event that is being applied, while what it has changed is evaluated.
    pub cause: Option<Offset>,
    pub new_types: Vec<IdType>,
    pub identifiers: Vec<NewIdentifier>,
    pub deleted_identifiers: Vec<IdKey>,
    pub merges: Vec<Merge>,
    pub refusals: BTreeMap<(ProfileNo, IdKey), RefusalRow>,
    pub suspects: Vec<NamedSuspect>,
    pub links: Vec<Link>,
    pub pages: Vec<PointerPage>,
    pub outcomes: Vec<ChunkOutcome>,
    pub warnings: Vec<RejectedEvent>,
    /// What operators' acts correct, and what is noted of them.
    pub corrections: Corrections,
    pub audit: Vec<AuditEntry>,
    pub memberships: Vec<MembershipChange>,
    /// By how much sizes change in each minute, and when they did last in it.
    pub sizes: BTreeMap<(ComputationNo, i64), (i64, Timestamp)>,
    pub transitions: Vec<Transition>,
    /// The youngest profile that the event being applied has made part of another one, and its id, where that is told.
    pub arrived: Option<(ProfileNo, String)>,
    /// What has changed besides memberships and is wanted by a destination, each profile's in order.
    pub changes: Vec<Change>,
    /// Who has consented to what, where destinations ask for it.
    pub consented: BTreeMap<ProfileNo, Vec<String>>,
    /// What is put into the queues of destinations.
    pub deliveries: Vec<NewDelivery>,
    /// Users that are to be counted anew in their accounts: nothing is left of them when it is written.
    pub recounts: Vec<Recount>,
    /// Due times of absorbed profiles, to be forgotten.
    pub forgotten_dues: Vec<ProfileNo>,
    /// What the absorbed ones were written as.
    pub absorbed: Vec<Bytes>,
    /// What profiles can be found by.
    pub search: Changes,
    /// Rows of profiles that were made and absorbed in the same transaction: their numbers stay known.
    pub stubs: Vec<ProfileRow>,
    pub duplicates: i64,
    pub unidentified: i64,
    pub users: i64,
    pub accounts: i64,
}

impl Graph for Work {
    fn owner(&self, key: IdKey) -> Option<ProfileNo> {
        Some(self.live(self.owners.get(&key).copied().flatten()?))
    }

    fn profile(&self, no: ProfileNo) -> Option<&Owned> {
        self.entries.get(&no).map(|entry| entry.profile.owned.get())
    }

    fn has_number(&self, no: ProfileNo, number: ProfileNo) -> bool {
        self.entries.get(&no).is_some_and(|entry| entry.profile.has_number(number))
    }
}

impl Work {
    /// Finds the owners of `keys`: from the cache, else in one statement.
    pub(super) async fn load_owners(
        &mut self,
        connection: &mut PgConnection,
        space: SpaceNo,
        caches: &mut Caches,
        keys: impl Iterator<Item = IdKey>,
    ) -> Result<()> {
        let (mut unknown, mut suspected) = (Vec::new(), Vec::new());
        self.owners.reserve(keys.size_hint().0);
        for key in keys {
            if self.owners.contains_key(&key) {
                continue;
            }
            let owner = match caches.owner(&key) {
                Owner::Is(no) => Some(no),
                Owner::Nobody => None,
                Owner::Unknown => {
                    unknown.push(key);
                    None
                }
            };
            self.owners.insert(key, owner);
            if let Some(known) = caches.pending.suspects.get(&key) {
                self.suspects.insert(key, known.clone());
            } else if caches.suspects.has(key) {
                suspected.push(key);
            }
        }
        if !suspected.is_empty() {
            suspected.sort_unstable();
            self.suspects.load(&mut *connection, space, &suspected).await?;
        }
        if !unknown.is_empty() {
            unknown.sort_unstable();
            for (key, no) in identity::find_owners(connection, space, &unknown).await? {
                self.owners.insert(key, Some(no));
            }
        }
        Ok(())
    }

    /// The live profile a number means now.
    pub(super) fn live(&self, mut no: ProfileNo) -> ProfileNo {
        while let Some(survivor) = self.redirects.get(&no).or_else(|| self.aliases.get(&no)) {
            no = *survivor;
        }
        no
    }

    /// Brings profiles into work, by a number they have or had: from the cache, else in one statement.
    pub(super) async fn load_profiles(
        &mut self,
        connection: &mut PgConnection,
        space: SpaceNo,
        caches: &mut Caches,
        numbers: impl Iterator<Item = ProfileNo>,
    ) -> Result<()> {
        let mut missing = Vec::new();
        self.entries.reserve(numbers.size_hint().0);
        for no in numbers.filter(|no| no.0 != 0) {
            let live = caches.pending.redirects.get(&no).copied();
            if let Some(live) = live {
                self.aliases.insert(no, live);
            }
            let no = live.unwrap_or(no);
            if !self.take(no, caches) {
                missing.push(no);
            }
        }
        // Numbers of absorbed profiles lead to their survivors, in one step.
        while !missing.is_empty() {
            missing.sort_unstable();
            missing.dedup();
            let mut survivors = Vec::new();
            for (no, row) in profiles::load_states(&mut *connection, space, &missing).await? {
                match row {
                    Loaded::Live(state) => {
                        let profile = Profile::decode(&state).map_err(|e| {
                            StoreError::Damaged(format!("profile {no} of space {space}: {e}"))
                        })?;
                        self.insert(Box::new(profile), Some(state));
                    }
                    Loaded::Absorbed(survivor) => {
                        self.aliases.insert(no, survivor);
                        survivors.push(survivor);
                    }
                }
            }
            survivors.retain(|no| !self.take(*no, caches));
            missing = survivors;
        }
        Ok(())
    }

    /// Whether a profile is in work already, or comes from the cache.
    fn take(&mut self, no: ProfileNo, caches: &mut Caches) -> bool {
        if !self.entries.contains_key(&no) {
            let Some(bytes) = caches.take_profile(no) else { return false };
            // Bytes that cannot be read are not used: the row is.
            let Ok(profile) = Profile::decode_own(&bytes) else { return false };
            self.insert(Box::new(profile), Some(bytes));
        }
        true
    }

    fn insert(&mut self, profile: Box<Profile>, encoded: Option<Bytes>) {
        let fresh = encoded.is_none();
        let indexed_due = if fresh { None } else { profile.due_at() };
        let entry = Entry {
            fresh,
            touched: fresh,
            dirty: Dirty::default(),
            absorbed: Vec::new(),
            indexed_due,
            tidy_at: None,
            encoded,
            profile,
        };
        self.entries.insert(entry.profile.no, entry);
    }

    /// Makes a profile and brings it into work.
    pub(super) fn create(
        &mut self,
        collection: Collection,
        offset: Offset,
        received_at: Timestamp,
        catalog: &Catalog,
    ) -> ProfileNo {
        self.last_profile.0 += 1;
        let no = self.last_profile;
        self.insert(Box::new(Profile::new(no, collection, offset, received_at)), None);
        match collection {
            Collection::Users => {
                self.out.users += 1;
                if let Some(entry) = self.entries.get_mut(&no) {
                    catalog.program.mark_nobody(&mut entry.dirty);
                }
            }
            Collection::Accounts => {
                self.out.accounts += 1;
                if let Some(entry) = self.entries.get_mut(&no) {
                    catalog.program.mark_of_accounts(&mut entry.dirty);
                    self.changed.insert(no);
                }
            }
        }
        no
    }

    /// Merges `absorbed` into `survivor`.
    pub(super) fn absorb(&mut self, survivor: ProfileNo, absorbed: ProfileNo, catalog: &Catalog) {
        accounts::before_merge(self, survivor, absorbed, catalog);
        let (Some(other), Some(entry)) = (self.entries.remove(&absorbed), self.entries.get_mut(&survivor))
        else {
            return;
        };
        entry.absorbed.extend(other.profile.outcomes().map(|outcome| (absorbed, outcome)));
        entry.absorbed.extend(other.absorbed);
        self.out.absorbed.extend(other.encoded);
        if other.indexed_due.is_some() {
            self.out.forgotten_dues.push(absorbed);
        }
        if other.fresh {
            let Profile { no, id, collection, created_at, last_seen_at, .. } = &*other.profile;
            self.out.stubs.push(ProfileRow {
                no: *no,
                id: *id,
                collection: *collection,
                created_at: *created_at,
                last_seen_at: *last_seen_at,
                state: Bytes::new(),
            });
        }
        let before = consent::given(entry, catalog);
        let was_known = entry.profile.is_known;
        let changed = entry.profile.absorb(&other.profile);
        let given = consent::given(entry, catalog).into_iter().filter(|category| !before.contains(category));
        let given: Vec<String> = given.collect();
        if !given.is_empty() {
            self.out.consented.entry(survivor).or_default().extend(given);
        }
        entry.touched = true;
        if was_known == entry.profile.is_known && entry.profile.collection == Collection::Users {
            let Entry { dirty, absorbed, .. } = entry;
            catalog.program.mark_absorbed(&other.profile, &changed, dirty);
            for (_, outcome) in absorbed.iter() {
                catalog.program.mark_outcome(outcome.computation, dirty);
            }
            dirty.join(other.dirty);
        } else {
            catalog.program.mark_all(&mut entry.dirty);
        }
        self.redirects.insert(absorbed, survivor);
        match entry.profile.collection {
            Collection::Users => self.out.users -= 1,
            Collection::Accounts => self.out.accounts -= 1,
        }
    }

    /// The profiles in work, by number: what happens to many at once happens in one order.
    pub(super) fn in_order(&mut self) -> impl Iterator<Item = &mut Entry> {
        let mut entries: Vec<&mut Entry> = self.entries.values_mut().collect();
        entries.sort_unstable_by_key(|entry| entry.profile.no);
        entries.into_iter()
    }

    /// Every number that now means another profile, in one hop: those absorbed here and all they had absorbed.
    pub(super) fn flat_redirects(&self) -> Vec<(ProfileNo, ProfileNo)> {
        let survivors: hashbrown::HashSet<ProfileNo> =
            self.redirects.values().filter(|no| self.entries.contains_key(*no)).copied().collect();
        let former = |no: &ProfileNo| {
            let survivor = *no;
            self.entries
                .get(no)
                .into_iter()
                .flat_map(move |e| e.profile.kin.get().former.iter().map(move |f| (*f, survivor)))
        };
        survivors.iter().flat_map(former).collect()
    }
}
