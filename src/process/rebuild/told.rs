//! What destinations are told of a swap besides entering and leaving: computed and custom traits that are others now. Values
//! that went away are null.

use std::collections::BTreeMap;

use bytes::Bytes;
use sqlx::PgConnection;

use crate::domain::delivery::Subject;
use crate::domain::{ProfileNo, SpaceNo, Timestamp};
use crate::engine::profile::Profile;
use crate::engine::traits::Traits;
use crate::process::outbox::{self, Change, Wanted};
use crate::process::space::SpaceProcessor;
use crate::store::rebuild::compare::{self, Mark};
use crate::store::rebuild::renumber::Renumbered;
use crate::store::{Result, StoreError, deliveries};

/// Profiles compared at a time.
const PAGE: i64 = 5_000;

/// Puts what is different into queues. Part of the swap's transaction, and nothing changes on either side.
pub(super) async fn tell(
    live: &mut PgConnection,
    again: &SpaceProcessor,
    renumbered: &Renumbered,
    at: Timestamp,
) -> Result<()> {
    let space = again.space;
    let wanted = Wanted::load(live, space, &again.catalog).await?;
    if !wanted.wants_values() {
        return Ok(());
    }
    let mut rebuilt = again.pool.acquire().await?;
    let mut after = ProfileNo(0);
    loop {
        // By live numbers, and then those that nobody has live.
        let marks = compare::list_marks(live, space, after, PAGE).await?;
        let Some((last, _)) = marks.last() else { break };
        after = *last;
        let pairs: BTreeMap<ProfileNo, ProfileNo> =
            marks.iter().filter_map(|(no, _)| Some((renumbered.again(*no)?, *no))).collect();
        let numbers: Vec<ProfileNo> = pairs.keys().copied().collect();
        let marks_again = compare::find_marks(&mut rebuilt, space, &numbers).await?;
        let marks: BTreeMap<ProfileNo, Mark> = marks.into_iter().collect();
        let is_other =
            |no: &&ProfileNo| pairs.get(*no).and_then(|live| marks.get(live)) != marks_again.get(*no);
        let numbers: Vec<ProfileNo> = numbers.iter().filter(is_other).copied().collect();
        let live_numbers: Vec<ProfileNo> = numbers.iter().filter_map(|no| pairs.get(no)).copied().collect();
        let before = decode(compare::load(live, space, &live_numbers).await?)?;
        let now = decode(compare::load(&mut rebuilt, space, &numbers).await?)?;
        let pair = |now: &'_ Profile| pairs.get(&now.no).and_then(|no| before.get(no));
        let changes: Vec<Change> =
            now.values().flat_map(|now| differences(pair(now), now, &wanted, at)).collect();
        put(live, space, &wanted, &changes).await?;
    }
    // Those who are new: they have not been told anything.
    let mut after = ProfileNo(0);
    loop {
        let numbers = compare::list_new(live, &mut rebuilt, space, &mut after, PAGE).await?;
        let Some(numbers) = numbers else { return Ok(()) };
        let now = decode(compare::load(&mut rebuilt, space, &numbers).await?)?;
        let changes: Vec<Change> = now.values().flat_map(|now| differences(None, now, &wanted, at)).collect();
        put(live, space, &wanted, &changes).await?;
    }
}

async fn put(live: &mut PgConnection, space: SpaceNo, wanted: &Wanted, changes: &[Change]) -> Result<()> {
    let rows = wanted.rows(changes);
    if rows.is_empty() { Ok(()) } else { deliveries::enqueue(live, space, &rows).await }
}

type Profiles = BTreeMap<ProfileNo, Profile>;

fn decode(states: BTreeMap<ProfileNo, Bytes>) -> Result<Profiles> {
    let profile = |(no, state): (ProfileNo, Bytes)| {
        let profile = Profile::decode(&state).map_err(|e| StoreError::Damaged(format!("profile {no}: {e}")));
        Ok((no, profile?))
    };
    states.into_iter().map(profile).collect()
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
