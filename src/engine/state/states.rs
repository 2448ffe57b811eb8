//! All leaf states of one profile.

use serde::{Deserialize, Serialize};

use crate::domain::LeafNo;

use super::leaf_state::LeafState;

/// First byte of an encoded set of states.
const VERSION: u8 = 1;

/// Stored bytes that are no states.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Written by another version of the program.
    #[error("leaf states have version {0:?}, this program reads {VERSION}")]
    Version(Option<u8>),
    /// Damaged.
    #[error("leaf states cannot be read")]
    Encoding(#[from] postcard::Error),
}

/// The leaf states of one profile, by leaf. Empty states are not kept, so equal content has equal bytes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeafStates(Vec<(LeafNo, LeafState)>);

impl LeafStates {
    /// The state of a leaf, if it has any.
    pub fn get(&self, leaf: LeafNo) -> Option<&LeafState> {
        let place = self.0.binary_search_by_key(&leaf, |(no, _)| *no).ok()?;
        self.0.get(place).map(|(_, state)| state)
    }

    /// Lets `change` work on the state of a leaf, empty or not, and returns what it returns.
    pub fn update<T>(&mut self, leaf: LeafNo, change: impl FnOnce(&mut LeafState) -> T) -> T {
        match self.0.binary_search_by_key(&leaf, |(no, _)| *no) {
            Ok(place) => {
                let Some((_, state)) = self.0.get_mut(place) else { return change(&mut LeafState::Empty) };
                let result = change(state);
                if state.is_empty() {
                    self.0.remove(place);
                }
                result
            }
            Err(place) => {
                let mut state = LeafState::Empty;
                let result = change(&mut state);
                if !state.is_empty() {
                    self.0.insert(place, (leaf, state));
                }
                result
            }
        }
    }

    /// Adds all states of another profile: what a profile merge does.
    pub fn merge(&mut self, other: Self) {
        for (leaf, theirs) in other.0 {
            self.update(leaf, |ours| ours.merge(theirs));
        }
    }

    /// Keeps the leaves that `keep` accepts, as after a definition was deleted.
    pub fn retain(&mut self, mut keep: impl FnMut(LeafNo) -> bool) {
        self.0.retain(|(leaf, _)| keep(*leaf));
    }

    /// Calls `change` with each state, then forgets those that became empty.
    pub fn for_each_mut(&mut self, mut change: impl FnMut(LeafNo, &mut LeafState)) {
        self.0.iter_mut().for_each(|(leaf, state)| change(*leaf, state));
        self.0.retain(|(_, state)| !state.is_empty());
    }

    /// All states, by leaf.
    pub fn iter(&self) -> impl Iterator<Item = (LeafNo, &LeafState)> {
        self.0.iter().map(|(leaf, state)| (*leaf, state))
    }

    /// Whether no leaf has a state.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The stored form: a version byte and postcard.
    pub fn encode(&self) -> Result<Vec<u8>, StateError> {
        Ok(postcard::to_extend(self, vec![VERSION])?)
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Ok(postcard::from_bytes(rest)?),
            other => Err(StateError::Version(other.map(|(version, _)| *version))),
        }
    }
}
