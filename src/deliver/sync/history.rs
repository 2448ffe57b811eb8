//! How profiles came to be what they are, as far as it is still known when a subscription begins: which profiles there were,
//! their identifiers with the messages that brought them, merges that stand, and all traits. What was taken away or taken
//! back before is not told.

use std::collections::{BTreeSet, HashMap};

use sqlx::PgConnection;

use crate::domain::ids::public_id;
use crate::domain::update::{Cause, OPERATOR, ProfileUpdate, Update};
use crate::domain::{ProfileNo, SpaceNo, Timestamp};
use crate::engine::profile::Profile;
use crate::store::identity::{self, Merge};
use crate::store::{Result, StoreError, deliveries};

/// Profiles of a page: each is some rows.
const PROFILES: i64 = 200;

/// What is told of a profile: JSON text, and as of when.
type Told = (ProfileNo, String, Timestamp);

/// What is known of the next profiles, and how far that is; none at the end.
pub(super) async fn page(
    tx: &mut PgConnection,
    space: SpaceNo,
    (after, until): (i64, i64),
) -> Result<(Vec<Told>, Option<i64>)> {
    let states = deliveries::sync::list_states(&mut *tx, space, (after, until, PROFILES)).await?;
    let is_full = states.len() as i64 == PROFILES;
    let reached = states.last().filter(|_| is_full).map(|(no, _)| no.0 as i64);
    let mut profiles = Vec::with_capacity(states.len());
    for (no, state) in states {
        let profile = Profile::decode(&state.into())
            .map_err(|e| StoreError::Damaged(format!("profile {no} of space {space}: {e}")))?;
        profiles.push(profile);
    }
    let numbers: Vec<ProfileNo> = profiles.iter().flat_map(Profile::numbers).collect();
    let mut merges: HashMap<ProfileNo, Vec<Merge>> = HashMap::new();
    for merge in identity::list_merges(&mut *tx, space, &numbers).await? {
        if merge.undone_at.is_none() {
            merges.entry(merge.survivor).or_default().push(merge);
        }
    }
    let numbers: Vec<i64> = numbers.iter().map(|no| no.0 as i64).collect();
    let ids = deliveries::queue::list_profile_ids(&mut *tx, space, &numbers).await?;
    let ids = ids.into_iter().map(|(no, id)| (ProfileNo(no as u64), public_id("prf", id))).collect();
    let types = identity::get_settings(&mut *tx, space).await?.types;
    let types = types.into_iter().map(|t| (t.no, t.name)).collect();
    let known = Known { merges, ids, types };
    let mut told = Vec::new();
    for profile in &profiles {
        for update in known.updates(profile) {
            // Texts, numbers and JSON under fixed names are always JSON.
            let value = serde_json::to_string(&update).unwrap_or_default();
            told.push((profile.no, value, profile.last_event_at));
        }
    }
    Ok((told, reached))
}

/// What is known of the profiles of a page besides their states.
struct Known {
    merges: HashMap<ProfileNo, Vec<Merge>>,
    ids: HashMap<ProfileNo, String>,
    types: HashMap<i16, String>,
}

impl Known {
    /// In the order in which it can have happened: profiles, identifiers, merges, traits.
    fn updates(&self, profile: &Profile) -> Vec<ProfileUpdate> {
        let numbers: BTreeSet<ProfileNo> = profile.numbers().into_iter().collect();
        let held = &profile.owned.get().identifiers;
        let own = || public_id("prf", profile.id);
        let id_of = |no: &ProfileNo| self.ids.get(no).cloned().unwrap_or_else(own);
        let mut updates = Vec::new();
        for no in &numbers {
            // What brought its first identifier has made it.
            let first = held.iter().find(|held| held.brought_by == *no);
            let at = first.map_or(profile.created_at, |held| held.first_seen).millis();
            let by = Cause {
                id: first.map(|held| held.message_id.clone()).unwrap_or_default(),
                source: first.map_or(0, |held| held.source.0),
                at,
                received_at: if *no == profile.no { profile.created_at.millis() } else { at },
                ..Cause::default()
            };
            updates.push(ProfileUpdate { profile_id: id_of(no), what: Update::Created, by });
        }
        for held in held {
            let Some(id_type) = self.types.get(&held.type_no).cloned() else { continue };
            let at = held.first_seen.millis();
            let (id, source) = (held.message_id.clone(), held.source.0);
            let by = Cause { id, source, at, received_at: at, ..Cause::default() };
            let what = Update::IdentifierAdded { id_type, id: held.value.clone() };
            updates.push(ProfileUpdate { profile_id: id_of(&held.brought_by), what, by });
        }
        let mut merges: Vec<&Merge> = numbers.iter().filter_map(|no| self.merges.get(no)).flatten().collect();
        merges.sort_by_key(|merge| (merge.offset, merge.absorbed));
        for merge in merges {
            let at = merge.at.millis();
            let by = Cause {
                id: merge.message_id.clone(),
                kind: if merge.manual { OPERATOR.to_owned() } else { String::new() },
                at,
                received_at: at,
                offset: merge.offset.0,
                ..Cause::default()
            };
            let what = Update::Merged { merged: id_of(&merge.absorbed) };
            updates.push(ProfileUpdate { profile_id: id_of(&merge.survivor), what, by });
        }
        updates.extend(traits(profile, own()));
        updates
    }
}

/// All custom traits of a profile, as of its newest event.
fn traits(profile: &Profile, profile_id: String) -> Option<ProfileUpdate> {
    let at = profile.last_event_at.millis();
    let traits = super::custom(profile).and_then(|(json, _)| serde_json::from_str(&json).ok())?;
    let by = Cause { at, received_at: at, offset: profile.last_offset.0, ..Cause::default() };
    Some(ProfileUpdate { profile_id, what: Update::Traits(traits), by })
}
