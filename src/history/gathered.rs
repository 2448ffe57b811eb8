//! States while history is folded into them: by leaf, then by profile or seat.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::Partials;
use crate::domain::{LeafNo, ProfileNo};
use crate::engine::{LeafState, LeafStates};

/// What every profile has of one leaf.
#[derive(Debug, Default)]
pub(super) struct OfLeaf {
    places: HashMap<ProfileNo, u32>,
    states: Vec<(ProfileNo, LeafState)>,
}

impl OfLeaf {
    /// Where the state of a profile is.
    pub(super) fn place(&mut self, profile: ProfileNo) -> usize {
        let next = self.states.len() as u32;
        let place = *self.places.entry(profile).or_insert(next);
        if place == next {
            self.states.push((profile, LeafState::default()));
        }
        place as usize
    }

    /// The state at a place.
    pub(super) fn at(&mut self, place: usize) -> Option<&mut LeafState> {
        self.states.get_mut(place).map(|(_, state)| state)
    }

    /// Looks at what the next events of these places change, at all of them at once: the memory is far away, and one
    /// look need not wait for the other.
    pub(super) fn bring_near(&self, places: &[usize]) {
        let seen = places.iter().filter_map(|place| self.states.get(*place));
        std::hint::black_box(seen.fold(0, |sum, (_, state)| sum ^ state.glance()));
    }
}

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

    /// The state of a leaf and profile.
    pub(super) fn state(&mut self, leaf: LeafNo, profile: ProfileNo) -> Option<&mut LeafState> {
        let of_leaf = self.of(leaf);
        let place = of_leaf.place(profile);
        of_leaf.at(place)
    }

    /// Adds what was gathered elsewhere, of other events.
    pub(super) fn merge(&mut self, other: Self) {
        for (leaf, theirs) in other.seats {
            let ours = self.of_seats(leaf);
            for (seat, state) in theirs {
                ours.entry(seat).or_default().merge(state);
            }
        }
        for (leaf, theirs) in other.profiles {
            let ours = self.of(leaf);
            if ours.states.is_empty() {
                *ours = theirs;
                continue;
            }
            for (profile, state) in theirs.states {
                let place = ours.place(profile);
                if let Some(own) = ours.at(place) {
                    own.merge(state);
                }
            }
        }
    }

    pub(super) fn into_partials(self) -> Partials {
        let profiles = self.profiles.into_iter();
        let profiles =
            profiles.flat_map(|(leaf, of)| of.states.into_iter().map(move |(no, state)| (no, leaf, state)));
        let seats = self.seats.into_iter();
        let seats = seats.flat_map(|(leaf, of)| of.into_iter().map(move |(seat, state)| (seat, leaf, state)));
        Partials { profiles: by_whose(profiles), seats: by_whose(seats) }
    }
}

/// States of leaves by whose they are.
fn by_whose<K: Copy + Ord>(all: impl Iterator<Item = (K, LeafNo, LeafState)>) -> BTreeMap<K, LeafStates> {
    let mut all: Vec<(K, LeafNo, LeafState)> = all.filter(|(_, _, state)| !state.is_empty()).collect();
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
