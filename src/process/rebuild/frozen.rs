//! Definitions that are switched off keep their members and values as they were: the log does not say what those are, so
//! they go over from what is live, by the first identifier of a profile.

use sqlx::Acquire;
use sqlx::postgres::PgPool;

use crate::domain::{IdKey, ProfileNo};
use crate::engine::identity::Graph;
use crate::engine::profile::{Outcome, OutcomeValue, Profile};
use crate::process::space::SpaceProcessor;
use crate::process::work::{Entry, Output, Work};
use crate::process::write;
use crate::store::memberships::MembershipChange;
use crate::store::{Result, StoreError, profiles};

/// Profiles looked at in one transaction.
const PAGE: i64 = 2_000;

/// What is live says this of somebody.
struct Kept {
    no: ProfileNo,
    key: Option<IdKey>,
    outcomes: Vec<Outcome>,
}

/// Brings over what is kept of definitions that are switched off. Doing it again changes nothing.
pub(super) async fn carry_over(again: &mut SpaceProcessor, live: &PgPool) -> Result<()> {
    if again.catalog.frozen().is_empty() {
        return Ok(());
    }
    let mut after = ProfileNo(0);
    loop {
        let page = profiles::list_states(live, again.space, after, PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = *last;
        let mut kept = Vec::new();
        for (no, state) in &page {
            let damaged = |e| StoreError::Damaged(format!("profile {no} of space {}: {e}", again.space));
            kept.extend(kept_of(&Profile::decode(state).map_err(damaged)?, again));
        }
        if !kept.is_empty() {
            write_kept(again, &kept).await?;
        }
    }
}

fn kept_of(profile: &Profile, again: &SpaceProcessor) -> Option<Kept> {
    let frozen = again.catalog.frozen();
    let outcomes: Vec<Outcome> =
        profile.outcomes().filter(|outcome| frozen.contains(&outcome.computation)).collect();
    let first = profile.owned.get().identifiers.first();
    let key = first.and_then(|held| {
        let id_type = again.catalog.settings.by_no(held.type_no)?;
        Some(IdKey::of(profile.collection, &id_type.name, &held.value))
    });
    (!outcomes.is_empty()).then_some(Kept { no: profile.no, key, outcomes })
}

async fn write_kept(again: &mut SpaceProcessor, kept: &[Kept]) -> Result<()> {
    let mut connection = again.pool.acquire().await?;
    let mut work = Work { last_profile: again.ahead.last_profile, ..Work::default() };
    let keys = kept.iter().filter_map(|k| k.key);
    work.load_owners(&mut connection, again.space, &mut again.caches, keys).await?;
    let whose: Vec<ProfileNo> =
        kept.iter().map(|k| k.key.map_or(Some(k.no), |key| work.owner(key)).unwrap_or(k.no)).collect();
    work.load_profiles(&mut connection, again.space, &mut again.caches, whose.iter().copied()).await?;
    let mut out = std::mem::take(&mut work.out);
    for (kept, no) in kept.iter().zip(whose) {
        let no = work.live(no);
        if let Some(entry) = work.entries.get_mut(&no) {
            kept.outcomes.iter().for_each(|outcome| give(entry, &mut out, outcome));
        }
    }
    work.out = out;
    let (prepared, pending) = write::prepare(work, &again.catalog, again.progress(again.ahead.processed))?;
    let mut tx = connection.begin().await?;
    write::write(&mut tx, again.fence(), &prepared).await?;
    tx.commit().await?;
    drop(connection);
    again.committed_now(&prepared, pending);
    Ok(())
}

/// Gives a profile an outcome, unless it has one that says more.
fn give(entry: &mut Entry, out: &mut Output, outcome: &Outcome) {
    let says =
        |value: &OutcomeValue| matches!(value, OutcomeValue::Member(true) | OutcomeValue::Value(Some(_)));
    let no = outcome.computation;
    let known = entry.profile.outcome(no);
    if known.as_ref().is_some_and(|known| says(&known.value) || known == outcome) {
        return;
    }
    if says(&outcome.value) {
        let minute = outcome.since.millis().div_euclid(60_000);
        out.sizes.entry((no, minute)).or_insert((0, outcome.since)).0 += 1;
    }
    if outcome.value == OutcomeValue::Member(true) {
        let (profile, entered_at) = (entry.profile.no, Some(outcome.since));
        out.memberships.push(MembershipChange { computation: no, profile, was_member: false, entered_at });
    }
    entry.profile.set_outcome(outcome.clone());
    entry.touched = true;
}
