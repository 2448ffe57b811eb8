//! What profiles can be found by: entries for the values of searchable traits, written with the profiles that have them.
//!
//! A trait that is made searchable later is filled in over the profiles there are, in slices beside the batches, each a
//! fenced transaction that notes how far it has come. What changes meanwhile is written as usual, and writing an entry
//! twice changes nothing: so the order does not matter, and a restart goes on.

use std::time::Instant;

use bytes::Bytes;
use sqlx::PgConnection;

use super::space::SpaceProcessor;
use super::work::Entry;
use crate::domain::{ProfileNo, SpaceNo};
use crate::engine::profile::Profile;
use crate::engine::search::{Searchable, entries};
use crate::history::pace::REST;
use crate::store::search::{self, Entry as Row, TraitRow};
use crate::store::{Result, StoreError, processor, profiles};

/// Profiles one transaction fills in.
const SLICE_PROFILES: i64 = 2_000;
/// Entries one transaction removes.
const SLICE_ENTRIES: i64 = 10_000;

/// The searchable traits of a space.
#[derive(Debug, Default)]
pub(super) struct Search {
    pub traits: Vec<Searchable>,
    /// Traits that are not complete, and the profile up to which they are.
    filling: Vec<i16>,
    filled: ProfileNo,
    /// Traits that were removed.
    clearing: Vec<i16>,
    /// While events wait to be processed, nothing is done before this.
    rests_until: Option<Instant>,
}

impl Search {
    pub(super) async fn load(tx: &mut PgConnection, space: SpaceNo) -> Result<Self> {
        let mut found = Self { filled: ProfileNo(u64::MAX), ..Self::default() };
        for TraitRow { no, name, filled, removed } in search::list_traits(tx, space).await? {
            if removed {
                found.clearing.push(no);
                continue;
            }
            if let Some(filled) = filled {
                found.filling.push(no);
                found.filled = found.filled.min(filled);
            }
            found.traits.push(Searchable { no, name });
        }
        Ok(found)
    }

    fn rows(&self, profile: &Profile) -> impl Iterator<Item = Row> {
        let entries = entries(profile.traits.get(), profile.collection, &self.traits);
        let no = profile.no;
        entries.into_iter().map(move |(trait_no, hash)| Row { trait_no, hash, profile: no })
    }

    /// The entries of a profile as it was read.
    fn written(&self, encoded: Option<&Bytes>) -> Vec<Row> {
        // What this process has encoded or decoded before can be read.
        let profile = encoded.and_then(|row| Profile::decode_own(row).ok());
        profile.map_or_else(Vec::new, |profile| self.rows(&profile).collect())
    }
}

/// Entries to be written.
#[derive(Debug, Default)]
pub(super) struct Changes {
    add: Vec<Row>,
    remove: Vec<Row>,
}

impl Changes {
    /// Notes what a profile that is written changes.
    pub(super) fn note(&mut self, entry: &Entry, search: &Search) {
        if search.traits.is_empty() || !(entry.fresh || entry.profile.traits.is_changed()) {
            return;
        }
        let written = search.written(entry.encoded.as_ref());
        let now: Vec<Row> = search.rows(&entry.profile).collect();
        self.remove.extend(written.iter().filter(|row| !now.contains(row)));
        self.add.extend(now.iter().filter(|row| !written.contains(row)));
    }

    /// Notes that a profile is absorbed: it is found by its survivor's values.
    pub(super) fn forget(&mut self, encoded: &Bytes, search: &Search) {
        if !search.traits.is_empty() {
            self.remove.extend(search.written(Some(encoded)));
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.add.extend(other.add);
        self.remove.extend(other.remove);
    }

    /// One order for all, and the index is walked once.
    pub(super) fn sort(&mut self) {
        self.add.sort_unstable();
        self.remove.sort_unstable();
    }

    pub(super) async fn write(&self, tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
        if !self.remove.is_empty() {
            search::delete_entries(tx, space, &self.remove).await?;
        }
        if !self.add.is_empty() {
            search::insert_entries(tx, space, &self.add).await?;
        }
        Ok(())
    }
}

impl SpaceProcessor {
    /// Fills in the next profiles, or removes entries nobody asks for; false when there is nothing of that to do now.
    pub(super) async fn tend_search(&mut self, is_busy: bool) -> Result<bool> {
        let state = &self.catalog.search;
        let rests = is_busy && state.rests_until.is_some_and(|until| Instant::now() < until);
        if rests || (state.filling.is_empty() && state.clearing.is_empty()) {
            return Ok(false);
        }
        // What is read is what is written, and nothing is under way.
        self.settle().await?;
        let (began, fence, progress) = (Instant::now(), self.fence(), self.progress(self.ahead.processed));
        let mut tx = self.pool.begin().await?;
        let version = processor::advance(&mut tx, self.space, fence.epoch, &progress, fence.lease).await?;
        if version != fence.config_version {
            return Err(StoreError::ConfigChanged);
        }
        let state = &mut self.catalog.search;
        if state.filling.is_empty() {
            if let Some(no) = state.clearing.last().copied()
                && search::clear_trait(&mut tx, self.space, no, SLICE_ENTRIES).await?
            {
                tx.commit().await?;
                state.clearing.pop();
            } else {
                tx.commit().await?;
            }
        } else {
            let next = fill(&mut tx, self.space, state).await?;
            tx.commit().await?;
            match next {
                Some(no) => state.filled = no,
                None => state.filling.clear(),
            }
        }
        state.rests_until = Some(Instant::now() + began.elapsed() * REST);
        Ok(true)
    }
}

/// Fills in one slice; gives its last profile, or none when it was the last one.
async fn fill(tx: &mut PgConnection, space: SpaceNo, state: &Search) -> Result<Option<ProfileNo>> {
    let states = profiles::list_states(&mut *tx, space, state.filled, SLICE_PROFILES).await?;
    let mut rows = Vec::new();
    for (no, row) in &states {
        let damaged = |e| StoreError::Damaged(format!("profile {no} of space {space}: {e}"));
        let profile = Profile::decode(row).map_err(damaged)?;
        rows.extend(state.rows(&profile).filter(|row| state.filling.contains(&row.trait_no)));
    }
    rows.sort_unstable();
    if !rows.is_empty() {
        search::insert_entries(tx, space, &rows).await?;
    }
    let last = states.last().map(|(no, _)| *no).filter(|_| states.len() as i64 == SLICE_PROFILES);
    search::set_filled(tx, space, &state.filling, last).await?;
    Ok(last)
}
