//! All leaf states of one profile, by leaf: a packed map whose merge is the merge of its states.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use super::leaf_state::LeafState;
use crate::domain::LeafNo;
use crate::engine::packed::Packed;

/// The leaf states of one profile. Empty states are not kept, so equal content has equal bytes.
#[derive(Debug, Clone, Default)]
pub struct LeafStates(Packed<LeafState>);

impl PartialEq for LeafStates {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// The bytes of [`LeafStates::write`].
impl Serialize for LeafStates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        self.write(&mut bytes).map_err(ser::Error::custom)?;
        bytes.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LeafStates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::stored(Vec::<u8>::deserialize(deserializer)?.into()))
    }
}

impl LeafStates {
    /// What [`LeafStates::write`] has written.
    pub const fn stored(bytes: Bytes) -> Self {
        Self(Packed::stored(bytes))
    }

    /// The state of a leaf, if it has any.
    pub fn get(&self, leaf: LeafNo) -> Option<Cow<'_, LeafState>> {
        self.0.get(leaf.0)
    }

    /// Sets the state of a leaf.
    pub fn set(&mut self, leaf: LeafNo, state: LeafState) {
        self.0.set(leaf.0, Some(state).filter(|state| !state.is_empty()));
    }

    /// Lets `change` work on the state of a leaf, empty or not; it says whether the state is another one now, and so
    /// does this.
    pub fn update(&mut self, leaf: LeafNo, change: impl FnOnce(&mut LeafState) -> bool) -> bool {
        self.0.update(leaf.0, change, |state| !state.is_empty())
    }

    /// Adds all states of another profile: what a profile merge does.
    pub fn merge(&mut self, other: &Self) {
        for (leaf, theirs) in other.iter() {
            self.update(leaf, |ours| {
                ours.merge(theirs.into_owned());
                true
            });
        }
    }

    /// Keeps the leaves that `keep` accepts, as after a definition was deleted.
    pub fn retain(&mut self, mut keep: impl FnMut(LeafNo) -> bool) {
        self.0.retain(|leaf| keep(LeafNo(leaf)));
    }

    /// Calls `change` with each state, then forgets those that became empty.
    pub fn for_each_mut(&mut self, mut change: impl FnMut(LeafNo, &mut LeafState)) {
        let leaves: Vec<u32> = self.0.keys().collect();
        for leaf in leaves {
            self.update(LeafNo(leaf), |state| {
                change(LeafNo(leaf), state);
                true
            });
        }
    }

    /// All states, by leaf.
    pub fn iter(&self) -> impl Iterator<Item = (LeafNo, Cow<'_, LeafState>)> {
        self.0.iter().map(|(leaf, state)| (LeafNo(leaf), state))
    }

    /// The leaves that have a state.
    pub fn keys(&self) -> impl Iterator<Item = LeafNo> {
        self.0.keys().map(LeafNo)
    }

    /// Whether no leaf has a state.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends the stored form, which depends on nothing but the states.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
        self.0.write(out)
    }
}
