//! The working set of one transaction: the identifiers and profiles it touches, and everything it will write.
//!
//! Profiles are moved out of the cache while a transaction works on them and moved back after its commit. Whatever
//! happens before the commit, the cache holds only what the database holds.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use sqlx::PgConnection;

use super::cache::Cache;
use super::catalog::Catalog;
use crate::domain::{Collection, IdKey, Offset, ProfileNo, SpaceNo, Timestamp};
use crate::engine::Dirty;
use crate::engine::identity::{Graph, IdType, Owned};
use crate::engine::profile::{Outcome, Profile, profile_id};
use crate::store::identity::{Merge, NewIdentifier, RefusalRow};
use crate::store::memberships::{MembershipChange, Transition};
use crate::store::messages::ChunkOutcome;
use crate::store::profiles::{Link, Loaded, ProfileRow};
use crate::store::rejected::RejectedEvent;
use crate::store::timeline::PointerPage;
use crate::store::{Result, StoreError, identity, profiles};

/// What the processor keeps between transactions.
pub(super) struct Caches {
    pub owners: Cache<IdKey, ProfileNo>,
    /// Encoded, because decoded ones take several times the room.
    pub profiles: Cache<ProfileNo, Box<[u8]>>,
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
    /// As it was read or written last; none for a profile that is not written yet.
    pub encoded: Option<Box<[u8]>>,
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
    pub out: Output,
}

/// Rows to be written besides the profiles.
#[derive(Default)]
pub(super) struct Output {
    pub new_types: Vec<IdType>,
    pub identifiers: Vec<NewIdentifier>,
    pub deleted_identifiers: Vec<IdKey>,
    pub merges: Vec<Merge>,
    pub refusals: BTreeMap<(ProfileNo, IdKey), RefusalRow>,
    pub links: Vec<Link>,
    pub pages: Vec<PointerPage>,
    pub outcomes: Vec<ChunkOutcome>,
    pub warnings: Vec<RejectedEvent>,
    pub memberships: Vec<MembershipChange>,
    pub sizes: BTreeMap<crate::domain::ComputationNo, i64>,
    pub transitions: Vec<Transition>,
    /// Due times of absorbed profiles, to be forgotten.
    pub forgotten_dues: Vec<ProfileNo>,
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
        self.entries.get(&no).map(|entry| &entry.profile.owned)
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
        let mut unknown = Vec::new();
        for key in keys {
            if self.owners.contains_key(&key) {
                continue;
            }
            let owner = caches.owners.get(&key);
            self.owners.insert(key, owner);
            if owner.is_none() {
                unknown.push(key);
            }
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
        let mut missing: Vec<ProfileNo> = numbers.filter(|no| no.0 != 0 && !self.take(*no, caches)).collect();
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
                        self.insert(Box::new(profile), Some(state.into()));
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
            let Some(bytes) = caches.profiles.take(&no) else { return false };
            // Bytes that cannot be read are not used: the row is.
            let Ok(profile) = Profile::decode(&bytes) else { return false };
            self.insert(Box::new(profile), Some(bytes));
        }
        true
    }

    fn insert(&mut self, profile: Box<Profile>, encoded: Option<Box<[u8]>>) {
        let fresh = encoded.is_none();
        let indexed_due = if fresh { None } else { profile.due_at() };
        let entry = Entry {
            fresh,
            touched: fresh,
            dirty: Dirty::default(),
            absorbed: Vec::new(),
            indexed_due,
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
                    catalog.program.mark_all(&mut entry.dirty);
                }
            }
            Collection::Accounts => self.out.accounts += 1,
        }
        no
    }

    /// Merges `absorbed` into `survivor`.
    pub(super) fn absorb(&mut self, survivor: ProfileNo, absorbed: ProfileNo, catalog: &Catalog) {
        let (Some(other), Some(entry)) = (self.entries.remove(&absorbed), self.entries.get_mut(&survivor))
        else {
            return;
        };
        let outcomes = other.profile.outcomes.iter().map(|o| (absorbed, o.clone()));
        entry.absorbed.extend(outcomes);
        entry.absorbed.extend(other.absorbed);
        if other.indexed_due.is_some() {
            self.out.forgotten_dues.push(absorbed);
        }
        if other.fresh {
            let Profile { no, collection, created_at, last_seen_at, .. } = *other.profile;
            let id = profile_id(no, created_at);
            self.out.stubs.push(ProfileRow {
                no,
                id,
                collection,
                created_at,
                last_seen_at,
                state: Vec::new(),
            });
        }
        entry.profile.absorb(*other.profile);
        entry.touched = true;
        catalog.program.mark_all(&mut entry.dirty);
        self.redirects.insert(absorbed, survivor);
        match entry.profile.collection {
            Collection::Users => self.out.users -= 1,
            Collection::Accounts => self.out.accounts -= 1,
        }
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
                .flat_map(move |e| e.profile.former.iter().map(move |f| (*f, survivor)))
        };
        survivors.iter().flat_map(former).collect()
    }
}
