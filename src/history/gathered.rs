//! States while history is folded into them: by leaf, then by profile or seat.

use std::collections::BTreeMap;
use std::hash::Hash;

use hashbrown::HashMap;

use super::Partials;
use crate::domain::{LeafNo, ProfileNo};
use crate::engine::{LeafState, LeafStates};

/// What every profile has of one leaf.
pub(super) type OfLeaf = HashMap<ProfileNo, LeafState>;
/// What every seat has of one leaf: of a user in an account.
pub(super) type OfSeats = HashMap<(ProfileNo, ProfileNo), LeafState>;

/// Partial states of a pass while they grow.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    profiles: BTreeMap<LeafNo, OfLeaf>,
    seats: BTreeMap<LeafNo, OfSeats>,
}

impl Gathered {
    /// The states of a leaf.
    pub(super) fn of(&mut self, leaf: LeafNo) -> &mut OfLeaf {
        self.profiles.entry(leaf).or_default()
    }

    /// The states of a leaf that seats have, of events that name an account.
    pub(super) fn of_seats(&mut self, leaf: LeafNo) -> &mut OfSeats {
        self.seats.entry(leaf).or_default()
    }

    /// Adds what was gathered elsewhere, of other events.
    pub(super) fn merge(&mut self, other: Self) {
        merge(&mut self.profiles, other.profiles);
        merge(&mut self.seats, other.seats);
    }

    pub(super) fn into_partials(self) -> Partials {
        Partials { profiles: by_whose(self.profiles), seats: by_whose(self.seats) }
    }
}

fn merge<K: Eq + Hash>(
    ours: &mut BTreeMap<LeafNo, HashMap<K, LeafState>>,
    theirs: BTreeMap<LeafNo, HashMap<K, LeafState>>,
) {
    for (leaf, theirs) in theirs {
        let ours = ours.entry(leaf).or_default();
        if ours.is_empty() {
            *ours = theirs;
            continue;
        }
        for (whose, state) in theirs {
            ours.entry(whose).or_default().merge(state);
        }
    }
}

/// The same by whose they are.
fn by_whose<K: Copy + Ord>(leaves: BTreeMap<LeafNo, HashMap<K, LeafState>>) -> BTreeMap<K, LeafStates> {
    let mut all: Vec<(K, LeafNo, LeafState)> = leaves
        .into_iter()
        .flat_map(|(leaf, states)| states.into_iter().map(move |(whose, state)| (whose, leaf, state)))
        .filter(|(_, _, state)| !state.is_empty())
        .collect();
    all.sort_unstable_by_key(|(whose, leaf, _)| (*whose, *leaf));
    let mut all = all.into_iter().peekable();
    let mut partials = Vec::new();
    while let Some((whose, leaf, state)) = all.next() {
        let mut states = LeafStates::default();
        states.set(leaf, state);
        while let Some((_, leaf, state)) = all.next_if(|(other, ..)| *other == whose) {
            states.set(leaf, state);
        }
        partials.push((whose, states));
    }
    partials.into_iter().collect()
}
