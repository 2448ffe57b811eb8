//! Taking a merge back (decision I11): both sides are made anew from their events, and what follows from that is told.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use uuid::Uuid;

use super::acts::{Acting, Done, id_of, profile_effect};
use super::apply::{catch_up, identify_again, look_again, type_name};
use super::catalog::Catalog;
use super::past::{Past, act_again, fold_again, offsets_of};
use super::retell::{note_consent, share_out, tell, tell_again, tell_separation, tell_traits};
use super::surgery::{Table, make_accounts_anew};
use super::updates;
use super::work::{Entry, Work};
use crate::domain::act::{Effect, IdentifierEffect, Named};
use crate::domain::ids::public_id;
use crate::domain::{Collection, IdKey, Offset, ProfileNo, Timestamp};
use crate::engine::Dirty;
use crate::engine::identity::resolve::Held;
use crate::engine::identity::separate::{Joined, Parted, Seen, Separation, Side};
use crate::engine::identity::{Apart, Graph};
use crate::engine::profile::Profile;
use crate::store::corrections::{Reattributed, Rejoined};
use crate::store::deliveries::part::Separated;
use crate::store::identity::{self, Merge};
use crate::store::log::numbers::Fate;
use crate::store::memberships::Transition;
use crate::store::{Result, StoreError, corrections, deliveries};

/// The merge to be taken back, and the profile it is part of.
struct Case {
    /// The profile as it is.
    merged: Profile,
    undone: Merge,
    merges: Vec<Joined>,
    /// Offsets of its events and of acts about it, in order.
    offsets: Vec<Offset>,
}

/// A side of the merge, with the number of its profile.
#[derive(Clone, Copy)]
pub(super) struct Half {
    pub side: Side,
    pub no: ProfileNo,
}

/// Takes a merge back.
pub(super) async fn undo_merge(
    work: &mut Work,
    table: &mut Table<'_>,
    acting: &Acting<'_>,
    merge: Uuid,
    offset: Offset,
) -> Result<Done> {
    let Some(case) = find(work, table, acting, merge, offset).await? else {
        return Ok(Err("the merge is not part of a profile any more: it was taken back already, or none of the identifiers it brought is left".to_owned()));
    };
    let (parted, accounts, events_gone) = part(work, table, acting, &case).await?;
    let stays = parted.numbers.get(&case.merged.no).copied().unwrap_or(Side::Survivor);
    let goes = if stays == Side::Survivor { Side::Absorbed } else { Side::Survivor };
    let has_some = |side: Side| parted.held.values().any(|(of, _)| *of == side);
    let (true, true, Some(no)) = (has_some(stays), has_some(goes), parted.number(goes)) else {
        return Ok(Err("one side of the merge has no identifier left, and a profile has to have one: they were deleted or moved".to_owned()));
    };
    let halves = [Half { side: stays, no: case.merged.no }, Half { side: goes, no }];
    work.load_profiles(table.connection, acting.ground.space, table.caches, accounts.into_iter()).await?;
    let of_merged: BTreeSet<ProfileNo> =
        case.merged.kin.get().accounts.iter().map(|no| work.live(*no)).collect();
    let before = work.entries.remove(&case.merged.no);
    for half in halves {
        let origin = find_origin(table, acting, &case, half).await?;
        let mut entry = begin_half(&case, &parted, half, origin, acting.catalog());
        if let Some(before) = before.as_ref().filter(|_| half.no == case.merged.no) {
            (entry.indexed_due, entry.encoded) = (before.indexed_due, before.encoded.clone());
        }
        work.entries.insert(half.no, entry);
    }
    keep_apart(work, &case, halves, &parted);
    let moved = fold_halves(work, table, acting, (&case, &parted), halves).await?;
    correct(work, &case, &parted, halves, acting);
    work.out.recounts.extend(case.merged.clone().uncount());
    let of_halves = halves.iter().filter_map(|half| work.entries.get(&half.no));
    let mut affected: BTreeSet<ProfileNo> =
        of_halves.flat_map(|entry| entry.profile.kin.get().accounts.clone()).collect();
    affected.extend(of_merged);
    make_accounts_anew(work, table, acting, &affected).await?;
    decide(work, table, acting, &parted, halves).await?;
    tell_again(work, &case.merged, halves, acting);
    note_consent(work, &case.merged, halves, acting);
    tell_separation(work, &parted, halves, acting);
    if acting.catalog().wanted.updates {
        let former = former_ids(table, acting, &parted, halves[1]).await?;
        updates::separated(work, &case.merged, former, halves, acting);
    }
    let effect = effect(work, &case, &parted, halves, acting.catalog());
    Ok(Ok(Effect { events_moved: moved, events_gone, ..effect }))
}

/// Finds the merge by its id, or, where a rebuild has made it between other profiles, by the event that made it.
async fn find(
    work: &mut Work,
    table: &mut Table<'_>,
    acting: &Acting<'_>,
    merge: Uuid,
    offset: Offset,
) -> Result<Option<Case>> {
    let owners: BTreeSet<ProfileNo> =
        acting.event.ids.users.iter().filter_map(|candidate| work.owner(candidate.key)).collect();
    let space = acting.ground.space;
    for no in owners {
        let Some(entry) = work.entries.get(&no) else { continue };
        let numbers = entry.profile.numbers();
        let mut all = identity::list_merges(&mut *table.connection, space, &numbers).await?;
        if all.iter().any(|known| known.id == merge && known.undone_at.is_some()) {
            return Ok(None);
        }
        all.retain(|merge| merge.undone_at.is_none());
        let by_id = all.iter().find(|known| known.id == merge);
        let by_event =
            || all.iter().find(|known| known.offset == offset && brought(entry, acting, known.absorbed));
        let Some(undone) = by_id.or_else(by_event).cloned() else { continue };
        catch_up(work, no, acting.received_at(), acting.ground);
        let Some(entry) = work.entries.get(&no) else { continue };
        let merged = (*entry.profile).clone();
        let offsets = offsets_of(table.connection, space, &merged).await?;
        let merges = all.iter().map(joined).collect();
        return Ok(Some(Case { merged, undone, merges, offsets }));
    }
    Ok(None)
}

/// Whether a number of the profile has brought one of the identifiers that the act names.
fn brought(entry: &Entry, acting: &Acting<'_>, no: ProfileNo) -> bool {
    let named = &acting.event.ids.users;
    let is_named = |held: &&Held| named.iter().any(|id| id.type_no == held.type_no && id.value == held.value);
    entry.profile.owned.get().identifiers.iter().filter(is_named).any(|held| held.brought_by == no)
}

const fn joined(merge: &Merge) -> Joined {
    Joined { offset: merge.offset, survivor: merge.survivor, absorbed: merge.absorbed }
}

/// Goes through the past of the profile: what belongs to which side, and the accounts that are named in it.
async fn part(
    work: &mut Work,
    table: &mut Table<'_>,
    acting: &Acting<'_>,
    case: &Case,
) -> Result<(Parted, BTreeSet<ProfileNo>, u64)> {
    let (catalog, owned) = (acting.catalog(), case.merged.owned.get());
    let held = owned.identifiers.iter().map(|held| (key_of(held, catalog), held));
    let numbers = case.merged.numbers();
    let mut separation = Separation::new(&numbers, &case.merges, joined(&case.undone), held);
    let (mut accounts, mut keys, mut read) = (BTreeSet::new(), BTreeSet::new(), 0);
    let past = Past { space: acting.ground.space, offsets: &case.offsets, keep: table.keep.as_ref() };
    past.read(&mut *table.connection, |record, place, fate| {
        let incoming = identify_again(record, place.offset, catalog);
        let ids: Vec<IdKey> = incoming.ids.users.iter().map(|candidate| candidate.key).collect();
        let (user, account) = match fate {
            Fate::Attributed { user, account } => (user, account),
            _ => (None, None),
        };
        accounts.extend(account);
        if record.act {
            keys.extend(incoming.ids.accounts.iter().map(|candidate| candidate.key));
        }
        let seen = Seen { offset: place.offset, profile: user, keys: &ids, message_id: record.message_id };
        separation.see(&seen);
        read += 1;
        Ok(())
    })
    .await?;
    work.load_owners(table.connection, acting.ground.space, table.caches, keys.iter().copied()).await?;
    accounts.extend(keys.iter().filter_map(|key| work.owner(*key)));
    accounts.extend(case.merged.kin.get().accounts.iter().copied());
    Ok((separation.end(), accounts, case.offsets.len() as u64 - read))
}

fn key_of(held: &Held, catalog: &Catalog) -> IdKey {
    IdKey::of(Collection::Users, &type_name(held.type_no, catalog), &held.value)
}

/// The public id of a side, and when it was made.
async fn find_origin(
    table: &mut Table<'_>,
    acting: &Acting<'_>,
    case: &Case,
    half: Half,
) -> Result<(Uuid, Timestamp)> {
    if half.no == case.merged.no {
        return Ok((case.merged.id, case.merged.created_at));
    }
    let found = corrections::find_origin(&mut *table.connection, acting.ground.space, half.no).await?;
    found.ok_or_else(|| StoreError::Damaged(format!("profile {} does not exist", half.no)))
}

/// The public ids of profiles that had become part of the separated side before.
async fn former_ids(
    table: &mut Table<'_>,
    acting: &Acting<'_>,
    parted: &Parted,
    goes: Half,
) -> Result<Vec<String>> {
    let is_former = |(no, side): &(&ProfileNo, &Side)| **side == goes.side && **no != goes.no;
    let mut numbers: Vec<i64> = parted.numbers.iter().filter(is_former).map(|(no, _)| no.0 as i64).collect();
    numbers.sort_unstable();
    let space = acting.ground.space;
    let ids = deliveries::queue::list_profile_ids(&mut *table.connection, space, &numbers).await?;
    Ok(ids.into_iter().map(|(_, id)| public_id("prf", id)).collect())
}

/// The profile of a side before its events are folded in: who it is, and what it said until now.
fn begin_half(
    case: &Case,
    parted: &Parted,
    half: Half,
    (id, created): (Uuid, Timestamp),
    catalog: &Catalog,
) -> Entry {
    let Case { merged, .. } = case;
    let first = parted.seen.iter().find(|(_, side, _)| *side == half.side).map(|(offset, ..)| *offset);
    let mut profile = Profile::separated(half.no, first.unwrap_or(merged.first_offset), id, created);
    let of_half = |no: &ProfileNo| parted.numbers.get(no) == Some(&half.side);
    let mut identifiers = Vec::new();
    for held in &merged.owned.get().identifiers {
        match parted.held.get(&key_of(held, catalog)) {
            Some((side, number)) if *side == half.side => {
                identifiers.push(Held { brought_by: *number, ..held.clone() });
            }
            _ => {}
        }
    }
    profile.is_known = identifiers.iter().any(|held| catalog.known_types.contains(&held.type_no));
    let merges = parted.merges[usize::from(half.side == Side::Absorbed)];
    profile.owned.update(|owned| {
        owned.identifiers = identifiers;
        owned.merges = merges;
    });
    let mut former: Vec<ProfileNo> = parted.numbers.keys().copied().filter(of_half).collect();
    former.retain(|no| *no != half.no);
    former.sort_unstable();
    profile.kin.update(|kin| kin.former = former);
    // Also where nothing sets any: what the profile was found by before is to be forgotten.
    profile.traits.update(|_| ());
    if half.no == merged.no {
        merged.outcomes().for_each(|outcome| profile.set_outcome(outcome));
    }
    let mut dirty = Dirty::default();
    catalog.program.mark_all(&mut dirty);
    Entry {
        profile: Box::new(profile),
        fresh: false,
        touched: true,
        dirty,
        absorbed: Vec::new(),
        indexed_due: None,
        tidy_at: None,
        encoded: None,
    }
}

/// Sees to it that the merge does not come back by the same identifiers, and that what was to stay apart before does so.
fn keep_apart(work: &mut Work, case: &Case, halves: [Half; 2], parted: &Parted) {
    let named = |word: &serde_json::Value| serde_json::from_value::<Named>(word.clone()).ok();
    let matched = case.undone.matched.as_array().into_iter().flatten().filter_map(named);
    let keys: Vec<IdKey> = matched.map(|named| named.key(Collection::Users)).collect();
    for (half, other) in [(halves[0], halves[1]), (halves[1], halves[0])] {
        let before = case.merged.owned.get().apart.iter();
        let is_its = |apart: &&Apart| parted.numbers.get(&apart.own) == Some(&half.side);
        let mut apart: Vec<Apart> = before.filter(is_its).cloned().collect();
        if !keys.is_empty() {
            apart.push(Apart { own: half.no, other: other.no, keys: keys.clone() });
        }
        if let Some(entry) = work.entries.get_mut(&half.no) {
            entry.profile.owned.update(|owned| owned.apart = apart);
        }
    }
}

/// Folds every event into the side it belongs to. Returns how many went to the profile that was separated.
async fn fold_halves(
    work: &mut Work,
    table: &mut Table<'_>,
    acting: &Acting<'_>,
    (case, parted): (&Case, &Parted),
    halves: [Half; 2],
) -> Result<u64> {
    let (catalog, ground) = (acting.catalog(), acting.ground);
    let sides: HashMap<Offset, (Side, ProfileNo)> =
        parted.seen.iter().map(|(offset, side, number)| (*offset, (*side, *number))).collect();
    let no_of = |side: Side| if halves[0].side == side { halves[0].no } else { halves[1].no };
    let (mut moved, mut chunks) = (0, BTreeMap::<Offset, (Reattributed, Vec<Fate>)>::new());
    let (warnings, changes) = (work.out.warnings.len(), work.out.changes.len());
    let past = Past { space: ground.space, offsets: &case.offsets, keep: table.keep.as_ref() };
    past.read(&mut *table.connection, |record, place, fate| {
        let Some((side, number)) = sides.get(&place.offset) else { return Ok(()) };
        let (no, event) = (no_of(*side), identify_again(record, place.offset, catalog));
        if record.act {
            let known = event.ids.users.iter().filter_map(|id| parted.held.get(&id.key));
            let mut named: BTreeSet<ProfileNo> = known.map(|(side, _)| no_of(*side)).collect();
            if named.is_empty() {
                named.insert(no);
            }
            for no in named {
                act_again(work, no, &event);
            }
            return Ok(());
        }
        let Fate::Attributed { user: Some(user), account } = fate else { return Ok(()) };
        moved += u64::from(no == halves[1].no);
        fold_again(work, no, account.map(|no| work.live(no)), &event, ground);
        if user != *number {
            let chunk = place.chunk;
            let (_, fates) = match chunks.entry(chunk.end_offset) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert((chunk.clone(), Fate::decode_all(&chunk.numbers)?))
                }
            };
            if let Some(fate) = fates.get_mut(place.index) {
                *fate = Fate::Attributed { user: Some(*number), account };
            }
        }
        Ok(())
    })
    .await?;
    // They were told when the events came.
    work.out.warnings.truncate(warnings);
    work.out.changes.truncate(changes);
    tell_traits(work, case.merged.traits.get(), halves, acting);
    for (_, (mut chunk, fates)) in chunks {
        chunk.numbers.clear();
        for fate in fates {
            fate.encode(&mut chunk.numbers);
        }
        work.out.corrections.reattributed.push(chunk);
    }
    forget_unready(work, halves, catalog);
    Ok(moved)
}

/// A walk that has just begun will fold history into its leaves.
fn forget_unready(work: &mut Work, halves: [Half; 2], catalog: &Catalog) {
    let Some(walk) = &catalog.walk else { return };
    let is_ready = |no| !walk.leaves.iter().any(|(unready, _)| *unready == no);
    for half in halves {
        if let Some(entry) = work.entries.get_mut(&half.no) {
            entry.profile.leaves.retain(is_ready);
            if !entry.profile.seats.get().is_empty() {
                entry.profile.seats.update(|seats| seats.for_each_states(|states| states.retain(is_ready)));
            }
        }
    }
}

/// What has to be written besides the two profiles.
fn correct(work: &mut Work, case: &Case, parted: &Parted, halves: [Half; 2], acting: &Acting<'_>) {
    let catalog = acting.catalog();
    let numbers = case.merged.numbers();
    for held in &case.merged.owned.get().identifiers {
        let key = key_of(held, catalog);
        let Some((side, number)) = parted.held.get(&key) else { continue };
        if let Some(half) = halves.iter().find(|half| half.side == *side) {
            work.owners.insert(key, Some(half.no));
        }
        if held.brought_by != *number {
            work.out.corrections.repointed.insert(key, *number);
        }
    }
    let separated = halves[1];
    for (no, _) in parted.numbers.iter().filter(|(_, side)| **side == separated.side) {
        work.aliases.remove(no);
        if *no != separated.no {
            work.redirects.insert(*no, separated.no);
        }
    }
    work.out.users += 1;
    let rejoined = |(before, now): &(Joined, Joined)| Rejoined {
        offset: before.offset,
        absorbed: before.absorbed,
        survivor_now: now.survivor,
        absorbed_now: now.absorbed,
    };
    let is_later = |offset: Offset| offset >= case.undone.offset;
    let events = parted.seen.iter().filter(|(offset, side, _)| *side == separated.side && is_later(*offset));
    let events = events.map(|(offset, ..)| *offset).collect();
    let numbers_of = parted.numbers.iter().filter(|(_, side)| **side == separated.side);
    let corrections = &mut work.out.corrections;
    corrections.separated = Some(Separated {
        from: case.merged.no,
        to: separated.no,
        numbers: numbers_of.map(|(no, _)| *no).collect(),
        events,
    });
    corrections.revived.push(separated.no);
    corrections.repaged.extend(&numbers);
    corrections.relinked.extend(&numbers);
    corrections.undone.push((case.undone.id, acting.received_at()));
    corrections.rejoined.extend(parted.rejoined.iter().map(rejoined));
    for half in halves {
        acting.touch(work, half.no);
    }
}

/// Evaluates both sides. What is told of them goes on from what was told of each side by itself, so that entering and
/// leaving alternate on both (decision A18).
async fn decide(
    work: &mut Work,
    table: &mut Table<'_>,
    acting: &Acting<'_>,
    parted: &Parted,
    halves: [Half; 2],
) -> Result<()> {
    let (catalog, ground, mark) = (acting.catalog(), acting.ground, work.out.transitions.len());
    let at = acting.received_at().max(ground.fired);
    for half in halves {
        let last = work.entries.get(&half.no).map_or(at, |entry| entry.profile.last_event_at);
        look_again(work, half.no, at.max(last), ground);
    }
    let of_others = |t: &Transition| !halves.iter().any(|half| half.no == t.profile);
    let told: Vec<Transition> = work.out.transitions.drain(mark..).filter(of_others).collect();
    work.out.transitions.extend(told);
    let numbers: Vec<ProfileNo> = parted.numbers.keys().copied().collect();
    let before = corrections::list_transitions(&mut *table.connection, ground.space, &numbers).await?;
    let told = share_out(work, before, parted, halves);
    for half in halves {
        tell(work, half, &told, at, catalog);
    }
    Ok(())
}

fn effect(work: &Work, case: &Case, parted: &Parted, halves: [Half; 2], catalog: &Catalog) -> Effect {
    let [stays, goes] = halves;
    let side_of = |held: &Held| parted.held.get(&key_of(held, catalog)).map(|(side, _)| *side);
    let is_moved = |held: &&Held| side_of(held) == Some(goes.side);
    let identifiers =
        case.merged.owned.get().identifiers.iter().filter(is_moved).map(|held| IdentifierEffect {
            identifier: Named { id_type: type_name(held.type_no, catalog), id: held.value.clone() },
            from: id_of(work, stays.no),
            to: id_of(work, goes.no),
        });
    let profiles = [(stays.no, "changed"), (goes.no, "separated")];
    Effect {
        identifiers: identifiers.collect(),
        profiles: profiles.iter().filter_map(|(no, change)| profile_effect(work, *no, change)).collect(),
        ..Effect::default()
    }
}
