//! Erasing people: they leave everything they are counted in, and what there is of them is written down to be erased by the
//! same transaction ([`Erasure`]). Nobody is told that they left an audience: it is as if they had never been there.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use uuid::Uuid;

use super::accounts;
use super::acts::{Acting, Done};
use super::apply::type_name;
use super::evaluate::leave_all;
use super::past::offsets_of;
use super::surgery::{Table, make_accounts_anew};
use super::work::Work;
use crate::domain::act::Effect;
use crate::domain::ids::public_id;
use crate::domain::regulation::{Erased, Known};
use crate::domain::{Collection, IdKey, ProfileNo};
use crate::engine::identity::Graph;
use crate::store::regulations::erase::{Erasure, Person};
use crate::store::regulations::people::{self, Waiting};
use crate::store::{Result, deliveries};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Erases some people of a regulation, all of them by what the log says up to here.
pub(super) async fn erase(
    work: &mut Work,
    table: &mut Table<'_>,
    acting: &Acting<'_>,
    (regulation, first, count): (Uuid, i32, i32),
) -> Result<Done> {
    if !table.erases {
        return Ok(Ok(Effect::default()));
    }
    let space = acting.ground.space;
    let waiting = people::find_waiting(&mut *table.connection, space, regulation, (first, count)).await?;
    let Some(Waiting { kind, device_days, people: subjects }) = waiting else {
        return Ok(Err("there is no such regulation".to_owned()));
    };
    let keys = subjects.iter().map(|(_, key)| *key);
    work.load_owners(table.connection, space, table.caches, keys).await?;
    let owners: Vec<ProfileNo> = subjects.iter().filter_map(|(_, key)| work.owner(*key)).collect();
    work.load_profiles(table.connection, space, table.caches, owners.into_iter()).await?;
    work.load_accounts(table.connection, space, table.caches).await?;
    let (mut named, mut nobody) = (HashMap::<ProfileNo, Vec<i32>>::new(), Vec::new());
    for (no, key) in subjects {
        match work.owner(key) {
            Some(owner) => named.entry(owner).or_default().push(no),
            None => nobody.push((no, key)),
        }
    }
    let mut named: Vec<(ProfileNo, Vec<i32>)> = named.into_iter().collect();
    named.sort_unstable();
    let mut erasure = Erasure {
        regulation,
        until: acting.event.offset,
        at: acting.received_at(),
        people: Vec::new(),
        nobody,
        suppresses: kind.suppresses(),
        forwards: kind.forwards(),
        device_ms: i64::from(device_days) * DAY_MS,
    };
    let mut affected = BTreeSet::new();
    for (no, subjects) in named {
        erasure.people.extend(person(work, table, acting, (no, subjects)).await?);
        affected.extend(leave(work, no, acting));
    }
    make_accounts_anew(work, table, acting, &affected).await?;
    for person in &erasure.people {
        work.entries.remove(&person.no);
    }
    accounts::settle(work, acting.catalog(), acting.received_at(), acting.ground.waiting);
    work.out.corrections.erased = Some(erasure);
    // Whom it was about is nowhere said.
    Ok(Ok(Effect::default()))
}

/// What there is of a profile.
async fn person(
    work: &Work,
    table: &mut Table<'_>,
    acting: &Acting<'_>,
    (no, subjects): (ProfileNo, Vec<i32>),
) -> Result<Option<Person>> {
    let Some(entry) = work.entries.get(&no) else { return Ok(None) };
    let (profile, catalog) = (&entry.profile, acting.catalog());
    let offsets = offsets_of(table.connection, acting.ground.space, profile).await?;
    let held = &profile.owned.get().identifiers;
    let mut known: Vec<Known> = held
        .iter()
        .map(|held| Known {
            id_type: type_name(held.type_no, catalog),
            id: held.value.clone(),
            first_seen: held.first_seen.millis(),
        })
        .collect();
    known.sort_unstable_by(|a, b| (&a.id_type, &a.id).cmp(&(&b.id_type, &b.id)));
    let identifiers = known.iter().map(|known| {
        let key = IdKey::of(Collection::Users, &known.id_type, &known.id);
        (known.id_type.clone(), known.id.clone(), key)
    });
    let identifiers = identifiers.collect();
    let numbers: Vec<i64> = profile.kin.get().former.iter().map(|no| no.0 as i64).collect();
    let former =
        deliveries::queue::list_profile_ids(&mut *table.connection, acting.ground.space, &numbers).await?;
    let former_ids = former.into_iter().map(|(_, id)| public_id("prf", id)).collect();
    let told = Erased { profile_id: public_id("prf", profile.id), former_ids, identifiers: known };
    Ok(Some(Person {
        subjects,
        no,
        profile_id: profile.id,
        numbers: profile.numbers(),
        identifiers,
        offsets,
        told: serde_json::to_string(&told).unwrap_or_default(),
    }))
}

/// Takes a profile out of everything it is counted in and found by. Returns the accounts it was in.
fn leave(work: &mut Work, no: ProfileNo, acting: &Acting<'_>) -> BTreeSet<ProfileNo> {
    let catalog = acting.catalog();
    let Some(entry) = work.entries.get_mut(&no) else { return BTreeSet::new() };
    work.out.recounts.extend(entry.profile.uncount());
    leave_all(&entry.profile, &mut work.out, catalog, acting.received_at());
    if entry.indexed_due.is_some() {
        work.out.forgotten_dues.push(no);
    }
    work.out.absorbed.extend(entry.encoded.clone());
    let accounts = entry.profile.kin.get().accounts.clone();
    entry.profile.kin.update(|kin| kin.accounts.clear());
    let held = entry.profile.owned.get().identifiers.iter();
    let keys: Vec<IdKey> = held
        .map(|held| IdKey::of(Collection::Users, &type_name(held.type_no, catalog), &held.value))
        .collect();
    for key in keys {
        work.owners.insert(key, None);
        work.out.deleted_identifiers.push(key);
    }
    work.out.users -= 1;
    let of_profile = |profile: ProfileNo| profile == no;
    work.out.transitions.retain(|told| !of_profile(told.profile));
    work.out.changes.retain(|change| !of_profile(change.profile));
    work.out.pages.retain(|page| !of_profile(page.profile));
    accounts.into_iter().map(|account| work.live(account)).collect()
}
