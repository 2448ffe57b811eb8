//! The law of taking merges back: what was merged and taken apart again is what it would be if it had been kept apart from
//! the first, in every identifier, event and number (decision I11).

use std::collections::{BTreeSet, HashMap, HashSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::laws::{Event, Rules, candidates};
use super::model::Model;
use super::separate::{Joined, Parted, Seen, Separation, Side};
use super::*;
use crate::domain::{Collection, IdKey, Offset, ProfileNo, Timestamp};

/// A log gone through: the graph, whose every event was, and who was merged by which.
#[derive(Debug, Default)]
struct World {
    model: Model,
    whose: Vec<ProfileNo>,
    merges: Vec<Joined>,
    /// Events of which something was refused.
    refused: Vec<usize>,
}

/// Goes through a log; `before` may prepare the graph for an event.
fn run(log: &[Event], settings: &Settings, mut before: impl FnMut(usize, &mut Model)) -> World {
    let mut world = World::default();
    for (place, (_, ids)) in log.iter().enumerate() {
        before(place, &mut world.model);
        let (at, name) = (Timestamp::from_millis(place as i64), format!("m{place}"));
        let users = candidates(ids, settings).users;
        let (no, refusals, absorbed) = world.model.apply_named(settings, at, &users, &name).unwrap();
        world.whose.push(no);
        let joined = |absorbed| Joined { offset: Offset(place as u64), survivor: no, absorbed };
        world.merges.extend(absorbed.into_iter().map(joined));
        if !refusals.is_empty() {
            world.refused.push(place);
        }
    }
    world
}

/// All numbers of the profile that this one is part of.
fn numbers(model: &Model, no: ProfileNo) -> HashSet<ProfileNo> {
    let live = model.live(no);
    let former = model.redirects.iter().filter(|(_, to)| **to == live).map(|(former, _)| *former);
    former.chain([live]).collect()
}

fn key_of(held: &resolve::Held, settings: &Settings) -> IdKey {
    IdKey::of(Collection::Users, &settings.by_no(held.type_no).unwrap().name, &held.value)
}

/// `gone`: the log keeps its events from this one on.
fn separate(world: &World, log: &[Event], settings: &Settings, undone: Joined, gone: usize) -> Parted {
    let all = numbers(&world.model, undone.survivor);
    let merges: Vec<Joined> = world.merges.iter().filter(|m| all.contains(&m.survivor)).copied().collect();
    let merged = &world.model.profiles[&world.model.live(undone.survivor)];
    let held = merged.identifiers.iter().map(|held| (key_of(held, settings), held));
    let numbers: Vec<ProfileNo> = all.iter().copied().collect();
    let mut separation = Separation::new(&numbers, &merges, undone, held);
    let is_its = |place: &usize| *place >= gone && all.contains(&world.whose[*place]);
    for (place, (_, ids)) in log.iter().enumerate().filter(|(place, _)| is_its(place)) {
        let users = candidates(ids, settings).users;
        let keys: Vec<IdKey> = users.iter().map(|candidate| candidate.key).collect();
        let (offset, message_id) = (Offset(place as u64), format!("m{place}"));
        separation.see(&Seen {
            offset,
            profile: Some(world.whose[place]),
            keys: &keys,
            message_id: &message_id,
        });
    }
    separation.end()
}

/// Keeps two profiles apart, whatever comes.
fn keep_apart(model: &mut Model, one: ProfileNo, other: ProfileNo) {
    for (no, other) in [(one, other), (other, one)] {
        let apart = Apart { own: no, other, keys: Vec::new() };
        model.profiles.get_mut(&no).unwrap().apart.push(apart);
    }
}

/// 2 to 30 events of one or two of many identifiers, so that most merges are of two people who meet once.
fn log() -> impl Strategy<Value = Vec<Event>> {
    let id = (0_usize..4, 0_u8..6);
    proptest::collection::vec((Just(1_i64), proptest::collection::vec(id, 1..3)), 2..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_global_rejects: 30_000, ..ProptestConfig::default() })]

    #[test]
    fn taken_apart_is_never_merged(log in log(), which in any::<Index>(), gone in any::<Index>()) {
        let settings = Rules::NONE.settings();
        let merged = run(&log, &settings, |_, _| ());
        prop_assume!(!merged.merges.is_empty());
        let undone = merged.merges[which.index(merged.merges.len())];
        let at = undone.offset.0 as usize;
        let apart = run(&log, &settings, |place, model| {
            if place == at {
                keep_apart(model, undone.survivor, undone.absorbed);
            }
        });
        // An event that would merge them again is refused something, and what else it brought may be refused with it.
        prop_assume!(apart.refused.iter().all(|place| *place == at));
        prop_assume!(log[at].1.len() == 2);

        let parted = separate(&merged, &log, &settings, undone, 0);
        let gone = gone.index(at + 1);
        let less = separate(&merged, &log, &settings, undone, gone);
        prop_assert_eq!((&less.held, &less.numbers, &less.rejoined), (&parted.held, &parted.numbers, &parted.rejoined));
        let kept = parted.seen.iter().filter(|(offset, ..)| offset.0 as usize >= gone);
        prop_assert!(kept.eq(&less.seen), "without the first {} events", gone);
        let side_of = |no: ProfileNo| {
            let all = numbers(&apart.model, no);
            if all.contains(&undone.survivor) { Side::Survivor } else { Side::Absorbed }
        };
        for (no, side) in &parted.numbers {
            prop_assert_eq!(*side, side_of(*no), "number {}", no);
        }
        for side in [Side::Survivor, Side::Absorbed] {
            let no = parted.number(side).unwrap();
            prop_assert!(apart.model.profiles.contains_key(&no), "{} is who is left of {:?}", no, side);
            let merges = numbers(&apart.model, no).len() as u32 - 1;
            prop_assert_eq!(parted.merges[side as usize], merges);
        }
        let owned = apart.model.profiles.values().flat_map(|owned| &owned.identifiers);
        let brought: HashMap<IdKey, ProfileNo> = owned.map(|held| (key_of(held, &settings), held.brought_by)).collect();
        for (key, (side, no)) in &parted.held {
            prop_assert_eq!((*side, *no), (side_of(apart.model.owners[key]), brought[key]), "identifier {:?}", key);
        }
        for (offset, side, no) in &parted.seen {
            let whose = apart.whose[offset.0 as usize];
            prop_assert_eq!((*side, *no), (side_of(whose), whose), "event {}", offset);
        }
        let rejoined: HashMap<(Offset, ProfileNo), Joined> =
            parted.rejoined.iter().map(|(was, now)| ((was.offset, was.absorbed), *now)).collect();
        let others = merged.merges.iter().filter(|merge| **merge != undone);
        let now = others.map(|merge| rejoined.get(&(merge.offset, merge.absorbed)).unwrap_or(merge));
        let order = |merge: &Joined| (merge.offset, merge.survivor, merge.absorbed);
        let (now, then): (BTreeSet<_>, BTreeSet<_>) =
            (now.map(order).collect(), apart.merges.iter().map(order).collect());
        prop_assert_eq!(now, then);
    }
}
