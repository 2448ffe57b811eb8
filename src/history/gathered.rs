//! States while history is folded into them: by leaf, then by profile or seat.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::Partials;
use crate::domain::{LeafNo, ProfileNo};
use crate::engine::{LeafState, LeafStates};

/// Profiles of a page.
const PAGE: usize = 16;

type Page = Box<[LeafState; PAGE]>;

/// What every profile has of one leaf. Profiles of a pass have numbers next to each other: their states are found by
/// place and not by hash.
#[derive(Debug, Default)]
pub(super) struct OfLeaf {
    pages: Vec<Option<Page>>,
}

impl OfLeaf {
    /// The state at a place.
    pub(super) fn at(&mut self, place: usize) -> Option<&mut LeafState> {
        let page = place / PAGE;
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        self.pages.get_mut(page)?.get_or_insert_default().get_mut(place % PAGE)
    }

    /// Looks at what the next events of these places change, at all of them at once: the memory is far away, and one
    /// look need not wait for the other.
    pub(super) fn bring_near(&self, places: &[usize]) {
        let seen =
            places.iter().filter_map(|place| self.pages.get(place / PAGE)?.as_ref()?.get(place % PAGE));
        std::hint::black_box(seen.fold(0, |sum, state| sum ^ state.glance()));
    }

    fn merge(&mut self, other: Self) {
        if self.pages.len() < other.pages.len() {
            self.pages.resize_with(other.pages.len(), || None);
        }
        for (own, other) in self.pages.iter_mut().zip(other.pages) {
            match (own, other) {
                (Some(own), Some(other)) => {
                    own.iter_mut().zip(*other).for_each(|(own, state)| own.merge(state));
                }
                (own @ None, other) => *own = other,
                (Some(_), None) => {}
            }
        }
    }

    /// All states with their places, in order.
    fn into_states(self) -> impl Iterator<Item = (usize, LeafState)> {
        let pages = (0..).step_by(PAGE).zip(self.pages);
        let states = pages.flat_map(|(first, page)| (first..).zip(page.into_iter().flat_map(|page| *page)));
        states.filter(|(_, state)| !state.is_empty())
    }
}

/// What every seat has of one leaf: of a user in an account.
pub(super) type OfSeats = HashMap<(ProfileNo, ProfileNo), LeafState>;

/// Partial states of a pass while they grow.
#[derive(Debug)]
pub(super) struct Gathered {
    /// The pass begins behind this profile.
    after: ProfileNo,
    profiles: BTreeMap<LeafNo, OfLeaf>,
    seats: BTreeMap<LeafNo, OfSeats>,
}

impl Gathered {
    /// Nothing yet, of the profiles after this one.
    pub(super) const fn new(after: ProfileNo) -> Self {
        Self { after, profiles: BTreeMap::new(), seats: BTreeMap::new() }
    }

    /// Where states of a profile are.
    pub(super) const fn place(after: ProfileNo, profile: ProfileNo) -> usize {
        profile.0.saturating_sub(after.0 + 1) as usize
    }

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
        let place = Self::place(self.after, profile);
        self.of(leaf).at(place)
    }

    /// Adds what was gathered elsewhere in the same pass, of other events.
    pub(super) fn merge(&mut self, other: Self) {
        for (leaf, theirs) in other.seats {
            let ours = self.of_seats(leaf);
            for (seat, state) in theirs {
                ours.entry(seat).or_default().merge(state);
            }
        }
        for (leaf, theirs) in other.profiles {
            self.of(leaf).merge(theirs);
        }
    }

    pub(super) fn into_partials(self) -> Partials {
        let mut leaves: Vec<_> =
            self.profiles.into_iter().map(|(leaf, of)| (leaf, of.into_states().peekable())).collect();
        let mut profiles = Vec::new();
        while let Some(place) = leaves.iter_mut().filter_map(|(_, states)| Some(states.peek()?.0)).min() {
            let mut states = LeafStates::default();
            for (leaf, of) in &mut leaves {
                if let Some((_, state)) = of.next_if(|(other, _)| *other == place) {
                    states.set(*leaf, state);
                }
            }
            profiles.push((ProfileNo(self.after.0 + 1 + place as u64), states));
        }
        let seats = self.seats.into_iter();
        let seats = seats.flat_map(|(leaf, of)| of.into_iter().map(move |(seat, state)| (seat, leaf, state)));
        Partials { profiles: profiles.into_iter().collect(), seats: by_seat(seats) }
    }
}

type Seat = (ProfileNo, ProfileNo);

fn by_seat(all: impl Iterator<Item = (Seat, LeafNo, LeafState)>) -> BTreeMap<Seat, LeafStates> {
    let mut seats: BTreeMap<Seat, LeafStates> = BTreeMap::new();
    for (seat, leaf, state) in all.filter(|(_, _, state)| !state.is_empty()) {
        seats.entry(seat).or_default().set(leaf, state);
    }
    seats
}
