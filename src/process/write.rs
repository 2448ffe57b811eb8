//! Writing a working set: every row that follows from a batch, in the batch's own transaction, a statement a table.

use std::time::Duration;

use sqlx::PgConnection;

use super::catalog::Catalog;
use super::evaluate::tidy;
use super::work::{Caches, Entry, Output, Work};
use crate::domain::{ProfileNo, SpaceNo, Timestamp};
use crate::engine::profile::{Profile, encode_pointers};
use crate::store::profiles::ProfileRow;
use crate::store::timeline::PointerPage;
use crate::store::{
    Result, StoreError, identity, memberships, messages, processor, profiles, rejected, timeline,
};
use crate::telemetry::metrics;

/// What a transaction is written under.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fence {
    pub space: SpaceNo,
    pub epoch: i64,
    pub lease: Duration,
    /// What is written was computed under this version of the configuration.
    pub config_version: i64,
}

/// Writes everything; `position` carries where the processor stands and where it
/// goes. Nothing is visible before the caller commits.
pub(super) async fn write(
    tx: &mut PgConnection,
    fence: Fence,
    catalog: &Catalog,
    work: &mut Work,
    position: &mut processor::Progress,
    now: Timestamp,
) -> Result<()> {
    number_transitions(&mut work.out, position);
    position.last_profile = work.last_profile;
    position.duplicates = work.out.duplicates;
    position.unidentified = work.out.unidentified;
    position.users = work.out.users;
    position.accounts = work.out.accounts;
    position.merges = work.out.merges.len() as i64;
    // First, because it takes the row that fences, and holds definitions and settings still until the commit.
    let version = processor::advance(tx, fence.space, fence.epoch, position, fence.lease).await?;
    if version != fence.config_version {
        return Err(StoreError::ConfigChanged);
    }
    write_profiles(tx, fence.space, work, catalog, now).await?;
    write_identity(tx, fence.space, work).await?;
    let (space, out) = (fence.space, &mut work.out);
    if !out.pages.is_empty() {
        timeline::insert_pages(tx, space, &out.pages).await?;
    }
    if !out.outcomes.is_empty() {
        messages::insert_outcomes(tx, space, &out.outcomes).await?;
    }
    if !out.memberships.is_empty() {
        memberships::write_memberships(tx, space, &last_of_each(&out.memberships)).await?;
    }
    let sizes: Vec<_> = out.sizes.iter().filter(|(_, d)| **d != 0).map(|(no, delta)| (*no, *delta)).collect();
    if !sizes.is_empty() {
        memberships::add_sizes(tx, space, &sizes, now).await?;
    }
    if !out.transitions.is_empty() {
        memberships::insert_transitions(tx, space, &out.transitions).await?;
    }
    if !out.warnings.is_empty() {
        rejected::insert_rejected(&mut *tx, space, &out.warnings).await?;
    }
    Ok(())
}

/// Transitions are numbered in the order of time, then of definitions and profiles: the same log, the same numbers.
fn number_transitions(out: &mut Output, position: &mut processor::Progress) {
    out.transitions.sort_by_key(|t| (t.at, t.definition, t.profile, t.entered));
    for transition in &mut out.transitions {
        position.last_transition += 1;
        transition.no = position.last_transition;
    }
}

/// A membership may change more than once in a transaction; only what it is at the end is written.
fn last_of_each(changes: &[memberships::MembershipChange]) -> Vec<memberships::MembershipChange> {
    let mut last = std::collections::BTreeMap::new();
    for change in changes {
        last.insert((change.computation, change.profile), *change);
    }
    last.into_values().collect()
}

async fn write_profiles(
    tx: &mut PgConnection,
    space: SpaceNo,
    work: &mut Work,
    catalog: &Catalog,
    now: Timestamp,
) -> Result<()> {
    let (mut fresh, mut updated, mut dues) = (std::mem::take(&mut work.out.stubs), Vec::new(), Vec::new());
    for entry in work.entries.values_mut().filter(|e| e.touched) {
        if let Some(pointers) = entry.profile.spill() {
            work.out.pages.extend(page(entry.profile.no, &pointers)?);
            tidy(&mut entry.profile, catalog, now);
        }
        entry.profile.traits.tidy();
        let due = entry.profile.due_at();
        if due != entry.indexed_due {
            dues.push((entry.profile.no, due.map(Timestamp::millis)));
        }
        let row = row(&entry.profile)?;
        entry.encoded = Some(row.state.as_slice().into());
        if entry.fresh { fresh.push(row) } else { updated.push(row) }
    }
    dues.extend(work.out.forgotten_dues.iter().map(|no| (*no, None)));
    fresh.sort_unstable_by_key(|r| r.no);
    updated.sort_unstable_by_key(|r| r.no);
    if !fresh.is_empty() {
        metrics::PROFILES_CREATED.add(&[], fresh.len() as u64);
        profiles::insert_profiles(tx, space, &fresh).await?;
    }
    if !updated.is_empty() {
        profiles::update_profiles(tx, space, &updated).await?;
    }
    let redirects = work.flat_redirects();
    if !redirects.is_empty() {
        identity::redirect_profiles(tx, space, &redirects).await?;
    }
    if !dues.is_empty() {
        processor::set_due(tx, space, &dues).await?;
    }
    Ok(())
}

fn row(profile: &Profile) -> Result<ProfileRow> {
    Ok(ProfileRow {
        no: profile.no,
        id: profile.id,
        collection: profile.collection,
        created_at: profile.created_at,
        last_seen_at: profile.last_seen_at,
        state: profile.encode().map_err(|e| StoreError::Damaged(format!("profile {}: {e}", profile.no)))?,
    })
}

fn page(profile: ProfileNo, pointers: &[crate::engine::profile::Pointer]) -> Result<Option<PointerPage>> {
    let times = || pointers.iter().map(|p| p.at);
    let (Some(first), Some(min_at), Some(max_at)) = (pointers.first(), times().min(), times().max()) else {
        return Ok(None);
    };
    let encoded =
        encode_pointers(pointers).map_err(|e| StoreError::Damaged(format!("pointers of {profile}: {e}")))?;
    Ok(Some(PointerPage { profile, first_offset: first.offset, min_at, max_at, pointers: encoded }))
}

async fn write_identity(tx: &mut PgConnection, space: SpaceNo, work: &mut Work) -> Result<()> {
    let out = &mut work.out;
    for id_type in &out.new_types {
        identity::upsert_type(tx, space, id_type).await?;
    }
    // First: what was deleted may have come back in the same batch.
    if !out.deleted_identifiers.is_empty() {
        identity::delete_identifiers(tx, space, &out.deleted_identifiers).await?;
    }
    if !out.identifiers.is_empty() {
        identity::insert_identifiers(tx, space, &mut out.identifiers).await?;
    }
    if !out.merges.is_empty() {
        metrics::IDENTITY_MERGES.add(&[], out.merges.len() as u64);
        identity::insert_merges(tx, space, &out.merges).await?;
    }
    if !out.refusals.is_empty() {
        let rows: Vec<_> = out.refusals.values().cloned().collect();
        identity::upsert_refusals(tx, space, &rows).await?;
    }
    if !out.links.is_empty() {
        profiles::insert_links(tx, space, &out.links).await?;
    }
    Ok(())
}

/// After the commit: what the working set knows is true now, so the caches may know it too.
pub(super) fn keep(work: Work, caches: &mut Caches) {
    for (key, owner) in &work.owners {
        match owner {
            Some(no) => caches.owners.put(*key, work.live(*no)),
            None => _ = caches.owners.take(key),
        }
    }
    for (no, Entry { encoded, .. }) in work.entries {
        if let Some(encoded) = encoded {
            caches.profiles.put(no, encoded);
        }
    }
}
