//! What destinations are told of a swap besides entering and leaving: computed and custom traits that are others now. Values
//! that went away are null.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sqlx::PgConnection;

use crate::domain::delivery::Subject;
use crate::domain::{IdKey, ProfileNo, Timestamp};
use crate::engine::profile::Profile;
use crate::engine::traits::Traits;
use crate::process::outbox::{self, Change, Wanted};
use crate::process::space::SpaceProcessor;
use crate::store::rebuild::compare;
use crate::store::{Result, StoreError, deliveries, identity};

/// Profile numbers compared at a time.
const PAGE: u64 = 5_000;

/// Puts what is different into queues. Part of the swap's transaction, and nothing changes on either side.
pub(super) async fn tell(live: &mut PgConnection, again: &SpaceProcessor, at: Timestamp) -> Result<()> {
    let space = again.space;
    let wanted = Wanted::load(live, space, &again.catalog).await?;
    if !wanted.wants_values() {
        return Ok(());
    }
    let mut rebuilt = again.pool.acquire().await?;
    let ends = [compare::standing(live, space).await?, compare::standing(&mut rebuilt, space).await?];
    let end = ends.iter().map(compare::Standing::last_profile).max().unwrap_or_default();
    let mut done = ProfileNo(0);
    while done < end {
        let until = ProfileNo(done.0 + PAGE);
        let marks = compare::list_marks(live, space, done, until).await?;
        let marks_again = compare::list_marks(&mut rebuilt, space, done, until).await?;
        let numbers: BTreeSet<ProfileNo> = marks.keys().chain(marks_again.keys()).copied().collect();
        let numbers: Vec<ProfileNo> =
            numbers.into_iter().filter(|no| marks.get(no) != marks_again.get(no)).collect();
        done = until;
        if numbers.is_empty() {
            continue;
        }
        let mut before = decode(compare::load(live, space, &numbers).await?)?;
        let now = decode(compare::load(&mut rebuilt, space, &numbers).await?)?;
        find_renumbered(live, again, &mut before, &now).await?;
        let differences = now.values().flat_map(|now| {
            // Who was part of another one has not been told anything by itself.
            let before = before.get(&now.no).filter(|before| before.first_offset == now.first_offset);
            differences(before, now, &wanted, at)
        });
        let changes: Vec<Change> = differences.collect();
        let rows = wanted.rows(&changes);
        if !rows.is_empty() {
            deliveries::enqueue(live, space, &rows).await?;
        }
    }
    Ok(())
}

type Profiles = BTreeMap<ProfileNo, Profile>;

fn decode(states: BTreeMap<ProfileNo, Bytes>) -> Result<Profiles> {
    let profile = |(no, state): (ProfileNo, Bytes)| {
        let profile = Profile::decode(&state).map_err(|e| StoreError::Damaged(format!("profile {no}: {e}")));
        Ok((no, profile?))
    };
    states.into_iter().map(profile).collect()
}

/// One profile more or less at the beginning, and all after it have other numbers: what those are live is looked up by
/// their first identifiers, and put in the place of what has their number there.
async fn find_renumbered(
    live: &mut PgConnection,
    again: &SpaceProcessor,
    before: &mut Profiles,
    now: &Profiles,
) -> Result<()> {
    let is_other =
        |now: &&Profile| before.get(&now.no).is_none_or(|before| before.first_offset != now.first_offset);
    let key = |now: &Profile| {
        let first = now.owned.get().identifiers.first()?;
        let id_type = again.catalog.settings.by_no(first.type_no)?;
        Some((IdKey::of(now.collection, &id_type.name, &first.value), now.no))
    };
    let wanted: BTreeMap<IdKey, ProfileNo> = now.values().filter(is_other).filter_map(key).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let keys: Vec<IdKey> = wanted.keys().copied().collect();
    let owners = identity::find_owners(live, again.space, &keys).await?;
    let numbers: Vec<ProfileNo> = owners.iter().map(|(_, no)| *no).collect();
    let found = decode(compare::load(live, again.space, &numbers).await?)?;
    for (key, no) in owners {
        if let (Some(place), Some(profile)) = (wanted.get(&key), found.get(&no)) {
            before.insert(*place, profile.clone());
        }
    }
    Ok(())
}

fn differences(before: Option<&Profile>, now: &Profile, wanted: &Wanted, at: Timestamp) -> Vec<Change> {
    let compared = outbox::compared(before, now, wanted, at).into_iter();
    let values = compared.filter(|c| c.is_other && c.change.subject == Subject::ComputedTrait);
    let mut changes: Vec<Change> = values.map(|c| c.change).collect();
    if wanted.wants(Subject::CustomTraits, 0) {
        let none = Traits::default();
        let before = before.map_or(&none, |before| before.traits.get());
        let value = outbox::changed_traits(before, now.traits.get(), false);
        changes.extend(value.map(|value| Change::new(now.no, (Subject::CustomTraits, 0), value, at)));
    }
    changes
}
