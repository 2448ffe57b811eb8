//! Writing a working set: every row that follows from a batch, in the batch's own transaction, a statement a table.
//!
//! [`prepare`] computes the rows, [`write()`] does nothing but write them: so the next batch is computed meanwhile.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use tracing::Instrument;

use super::catalog::Catalog;
use super::evaluate::tidy;
use super::order::sort_by_time;
use super::outbox;
use super::search::Changes;
use super::work::{Entry, Output, Pending, Work};
use crate::domain::{DestinationNo, ProfileNo, SpaceNo, Timestamp};
use crate::engine::profile::Profile;
use crate::read_cache::Writes;
use crate::store::profiles::ProfileRow;
use crate::store::{
    Result, StoreError, audit, deliveries, identity, identity_problems, memberships, messages, processor,
    profiles, quarantine, rejected, timeline,
};
use crate::telemetry::{metrics, traces};

/// Profiles one statement writes: bounds what the connection's buffers take.
const PROFILES_A_STATEMENT: usize = 500;

/// Profiles from which on they are encoded on two threads.
const PARALLEL_FROM: usize = 2_000;

/// What a transaction is written under.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fence {
    pub space: SpaceNo,
    pub epoch: i64,
    pub lease: Duration,
    /// What is written was computed under this version of the configuration.
    pub config_version: i64,
}

/// Every row of one transaction.
pub(super) struct Prepared {
    /// Where the processor stood and where it goes.
    pub position: processor::Progress,
    pub out: Output,
    fresh: Vec<ProfileRow>,
    updated: Vec<ProfileRow>,
    redirects: Vec<(ProfileNo, ProfileNo)>,
    /// Destinations: what waits for them follows merges.
    destinations: Vec<DestinationNo>,
    dues: Vec<(ProfileNo, Option<i64>)>,
}

impl Prepared {
    /// Profiles it makes.
    pub(super) const fn created(&self) -> u64 {
        self.fresh.len() as u64
    }

    /// What reads may no longer find in memory.
    pub(super) fn writes(&self) -> Writes {
        if !self.out.new_types.is_empty() || !self.out.corrections.is_empty() {
            // They are part of the configuration; and what operators correct may be anything.
            return Writes::Anything;
        }
        let written = self.updated.iter().map(|row| row.no);
        let mut profiles: Vec<ProfileNo> = written.chain(self.redirects.iter().map(|(no, _)| *no)).collect();
        let mut keys = self.out.deleted_identifiers.clone();
        profiles.sort_unstable();
        keys.sort_unstable();
        Writes::Only { profiles, keys }
    }

    /// The earliest due time it sets.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.dues.iter().filter_map(|(_, at)| *at).min().map(Timestamp::from_millis)
    }
}

/// Computes the rows of a working set, and what the caches may know once they are written. `position` carries where
/// the processor stands and where it goes.
pub(super) fn prepare(
    mut work: Work,
    catalog: &Catalog,
    mut position: processor::Progress,
) -> Result<(Prepared, Pending)> {
    number_transitions(&mut work.out, &mut position);
    outbox::collect(&mut work, catalog);
    position.last_profile = work.last_profile;
    position.duplicates = work.out.duplicates;
    position.unidentified = work.out.unidentified;
    position.users = work.out.users;
    position.accounts = work.out.accounts;
    position.merges = work.out.merges.len() as i64;
    let redirects = work.flat_redirects();
    let owners = work.owners.iter().map(|(key, owner)| (*key, owner.map(|no| work.live(no)))).collect();
    let mut pending =
        Pending { owners, redirects: redirects.iter().copied().collect(), ..Pending::default() };
    let Work { entries, mut out, suspects, .. } = work;
    (out.suspects, pending.suspects) = suspects.finish();
    pending.profiles.reserve(entries.len());
    let mut fresh = std::mem::take(&mut out.stubs);
    let (mut updated, mut dues) = (Vec::with_capacity(entries.len()), Vec::new());
    for part in encode_in_parallel(entries.into_iter().collect(), catalog)? {
        pending.profiles.extend(part.encoded);
        fresh.extend(part.fresh);
        updated.extend(part.updated);
        dues.extend(part.dues);
        out.search.extend(part.search);
    }
    for row in std::mem::take(&mut out.absorbed) {
        out.search.forget(&row, &catalog.search);
    }
    out.search.sort();
    dues.extend(out.forgotten_dues.iter().map(|no| (*no, None)));
    // One order for all who lock, and the index is walked once.
    fresh.sort_unstable_by_key(|r| r.no);
    updated.sort_unstable_by_key(|r| r.no);
    dues.sort_unstable();
    out.pages.sort_unstable_by_key(|p| (p.profile, p.first_offset));
    out.identifiers.sort_unstable_by_key(|n| n.key);
    let moves = !redirects.is_empty() || out.corrections.separated.is_some();
    let destinations = if moves { catalog.wanted.destinations().to_vec() } else { Vec::new() };
    Ok((Prepared { position, out, fresh, updated, redirects, destinations, dues }, pending))
}

/// The rows of some profiles.
#[derive(Default)]
struct Rows {
    /// What the next transaction finds of them.
    encoded: Vec<(ProfileNo, Bytes)>,
    fresh: Vec<ProfileRow>,
    updated: Vec<ProfileRow>,
    dues: Vec<(ProfileNo, Option<i64>)>,
    search: Changes,
}

/// Encodes profiles, many of them on two threads: nothing of one depends on another, and the rest of a batch waits.
fn encode_in_parallel(mut entries: Vec<(ProfileNo, Entry)>, catalog: &Catalog) -> Result<Vec<Rows>> {
    if entries.len() < PARALLEL_FROM {
        return Ok(vec![encode(entries, catalog)?]);
    }
    let half = entries.split_off(entries.len() / 2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| encode(half, catalog));
        let own = encode(entries, catalog)?;
        let other = other.join().map_err(|_| StoreError::Damaged("encoding profiles failed".into()))??;
        Ok(vec![own, other])
    })
}

fn encode(entries: Vec<(ProfileNo, Entry)>, catalog: &Catalog) -> Result<Rows> {
    let (mut rows, mut buffer) = (Rows::default(), Vec::new());
    rows.encoded.reserve(entries.len());
    for (no, mut entry) in entries {
        if !entry.touched {
            rows.encoded.extend(entry.encoded.map(|row| (no, row)));
            continue;
        }
        if let Some(at) = entry.tidy_at {
            tidy(&mut entry.profile, catalog, at);
        }
        rows.search.note(&entry, &catalog.search);
        let due = entry.profile.due_at();
        if due != entry.indexed_due {
            rows.dues.push((no, due.map(Timestamp::millis)));
        }
        let row = row(&entry.profile, &mut buffer)?;
        rows.encoded.push((no, row.state.clone()));
        if entry.fresh { rows.fresh.push(row) } else { rows.updated.push(row) }
    }
    Ok(rows)
}

/// Writes everything in a transaction of its own.
pub(super) async fn commit(pool: PgPool, fence: Fence, prepared: Prepared) -> Result<()> {
    let began = Instant::now();
    let mut tx = pool.begin().await?;
    write(&mut tx, fence, &prepared).instrument(traces::stage("write")).await?;
    let written = Instant::now();
    tx.commit().instrument(traces::stage("commit")).await?;
    metrics::PIPELINE_BATCH_DURATION.time(&["write"], written - began);
    metrics::PIPELINE_BATCH_DURATION.time(&["commit"], written.elapsed());
    Ok(())
}

/// Writes everything. Nothing is visible before the caller commits.
pub(super) async fn write(tx: &mut PgConnection, fence: Fence, prepared: &Prepared) -> Result<()> {
    let Fence { space, epoch, lease, config_version } = fence;
    // First, because it takes the row that fences, and holds definitions and settings still until the commit.
    let version = processor::advance(tx, space, epoch, &prepared.position, lease).await?;
    if version != config_version {
        return Err(StoreError::ConfigChanged);
    }
    let out = &prepared.out;
    out.corrections.write(tx, space).await?;
    write_profiles(tx, space, prepared).await?;
    write_identity(tx, space, out).await?;
    out.search.write(tx, space).await?;
    if !out.pages.is_empty() {
        timeline::insert_pages(tx, space, &out.pages).await?;
    }
    if !out.outcomes.is_empty() {
        messages::insert_outcomes(tx, space, &out.outcomes).await?;
    }
    if !out.memberships.is_empty() {
        memberships::write_memberships(tx, space, &last_of_each(&out.memberships)).await?;
    }
    if !out.sizes.is_empty() {
        let sizes: Vec<_> = out.sizes.iter().map(|((no, _), (delta, at))| (*no, *delta, *at)).collect();
        memberships::add_sizes(tx, space, &sizes).await?;
    }
    if !out.transitions.is_empty() {
        memberships::insert_transitions(tx, space, &out.transitions).await?;
    }
    if !prepared.destinations.is_empty() {
        deliveries::redirect(tx, space, &prepared.destinations, &prepared.redirects).await?;
        if let Some(separated) = &out.corrections.separated {
            let retold = &out.corrections.retold;
            deliveries::part::separate(tx, space, &prepared.destinations, separated, retold).await?;
        }
    }
    if let Some(erased) = &out.corrections.erased {
        erased.tell(tx, space).await?;
    }
    // Late, because the ends of queues are locked until the commit.
    if !out.deliveries.is_empty() {
        deliveries::enqueue(tx, space, &out.deliveries).await?;
    }
    if !out.audit.is_empty() {
        audit::insert(tx, space, &out.audit).await?;
    }
    if !out.warnings.is_empty() {
        rejected::insert_rejected(&mut *tx, space, &out.warnings).await?;
    }
    Ok(())
}

/// Transitions of one transaction are numbered in the order of time; those of one instant stay in the order they
/// happened, which is that of the log, or of the profiles. Numbers say in which order transitions became known: what a
/// timer did between two events of others may be told after the second.
fn number_transitions(out: &mut Output, position: &mut processor::Progress) {
    sort_by_time(&mut out.transitions, |t| ((t.definition, t.profile), t.at));
    for transition in &mut out.transitions {
        position.last_transition += 1;
        transition.no = position.last_transition;
    }
    // As their index has them.
    out.transitions.sort_unstable_by_key(|t| (t.definition, t.no));
}

/// A membership may change more than once in a transaction; only what it was before and is at the end is written.
fn last_of_each(changes: &[memberships::MembershipChange]) -> Vec<memberships::MembershipChange> {
    let mut last = std::collections::BTreeMap::new();
    for change in changes {
        last.entry((change.computation, change.profile))
            .and_modify(|known: &mut memberships::MembershipChange| known.entered_at = change.entered_at)
            .or_insert(*change);
    }
    last.into_values().collect()
}

async fn write_profiles(tx: &mut PgConnection, space: SpaceNo, prepared: &Prepared) -> Result<()> {
    let Prepared { fresh, updated, redirects, dues, .. } = prepared;
    for rows in fresh.chunks(PROFILES_A_STATEMENT) {
        profiles::insert_profiles(tx, space, rows).await?;
    }
    for rows in updated.chunks(PROFILES_A_STATEMENT) {
        profiles::update_profiles(tx, space, rows).await?;
    }
    if !redirects.is_empty() {
        identity::redirect_profiles(tx, space, redirects).await?;
    }
    if !dues.is_empty() {
        processor::set_due(tx, space, dues).await?;
    }
    Ok(())
}

fn row(profile: &Profile, buffer: &mut Vec<u8>) -> Result<ProfileRow> {
    let damaged = |e| StoreError::Damaged(format!("profile {}: {e}", profile.no));
    profile.encode_into(buffer).map_err(damaged)?;
    Ok(ProfileRow {
        no: profile.no,
        id: profile.id,
        collection: profile.collection,
        created_at: profile.created_at,
        last_seen_at: profile.last_seen_at,
        // A copy has no room to spare, which rows that are kept would keep, too.
        state: Bytes::copy_from_slice(buffer),
    })
}

async fn write_identity(tx: &mut PgConnection, space: SpaceNo, out: &Output) -> Result<()> {
    for id_type in &out.new_types {
        identity::upsert_type(tx, space, id_type).await?;
    }
    // First: what was deleted may have come back in the same batch.
    if !out.deleted_identifiers.is_empty() {
        identity::delete_identifiers(tx, space, &out.deleted_identifiers).await?;
    }
    if !out.identifiers.is_empty() {
        identity::insert_identifiers(tx, space, &out.identifiers).await?;
    }
    if !out.merges.is_empty() {
        identity::insert_merges(tx, space, &out.merges).await?;
    }
    if !out.refusals.is_empty() {
        let rows: Vec<_> = out.refusals.values().cloned().collect();
        identity_problems::upsert_refusals(tx, space, &rows).await?;
    }
    if !out.suspects.is_empty() {
        quarantine::upsert_suspects(tx, space, &out.suspects).await?;
    }
    if !out.links.is_empty() {
        profiles::insert_links(tx, space, &out.links).await?;
    }
    Ok(())
}
