//! States while history is folded into them: by leaf, then by profile.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::Partials;
use crate::domain::{LeafNo, ProfileNo};
use crate::engine::{LeafState, LeafStates};

/// What every profile has of one leaf.
pub(super) type OfLeaf = HashMap<ProfileNo, LeafState>;

/// Partial states of a pass while they grow.
#[derive(Debug, Default)]
pub(super) struct Gathered(BTreeMap<LeafNo, OfLeaf>);

impl Gathered {
    /// The states of a leaf.
    pub(super) fn of(&mut self, leaf: LeafNo) -> &mut OfLeaf {
        self.0.entry(leaf).or_default()
    }

    /// Adds what was gathered elsewhere, of other events.
    pub(super) fn merge(&mut self, other: Self) {
        for (leaf, theirs) in other.0 {
            let ours = self.of(leaf);
            if ours.is_empty() {
                *ours = theirs;
                continue;
            }
            for (profile, state) in theirs {
                ours.entry(profile).or_default().merge(state);
            }
        }
    }

    pub(super) fn into_partials(self) -> Partials {
        let leaves = self.0.into_iter();
        let mut all: Vec<(ProfileNo, LeafNo, LeafState)> = leaves
            .flat_map(|(leaf, states)| states.into_iter().map(move |(profile, state)| (profile, leaf, state)))
            .filter(|(_, _, state)| !state.is_empty())
            .collect();
        all.sort_unstable_by_key(|(profile, leaf, _)| (*profile, *leaf));
        let mut all = all.into_iter().peekable();
        let mut partials = Vec::new();
        while let Some((profile, leaf, state)) = all.next() {
            let mut states = LeafStates::default();
            states.set(leaf, state);
            while let Some((_, leaf, state)) = all.next_if(|(other, _, _)| *other == profile) {
                states.set(leaf, state);
            }
            partials.push((profile, states));
        }
        partials.into_iter().collect()
    }
}
