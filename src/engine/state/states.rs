//! All leaf states of one profile.
//!
//! A profile has a state for every leaf that ever counted one of its events, and an event touches a few of them. So the
//! stored form is read lazily: a state is decoded when somebody looks at it, and one that nobody changed is written
//! back as the bytes it was. A checksum over the whole says at once whether the bytes are what was written.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_64;

use crate::domain::LeafNo;

use super::leaf_state::LeafState;

/// First byte of an encoded set of states.
const VERSION: u8 = 1;
/// Bytes of the checksum.
const CHECKSUM: usize = 8;

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
#[derive(Debug, Clone, Default)]
pub struct LeafStates {
    /// What the unchanged entries point into.
    stored: Arc<[u8]>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    leaf: LeafNo,
    /// Its bytes in `stored`, as long as it is not changed.
    from: usize,
    len: usize,
    changed: bool,
    state: OnceLock<LeafState>,
}

impl Entry {
    fn of(leaf: LeafNo, state: LeafState) -> Self {
        Self { leaf, from: 0, len: 0, changed: true, state: OnceLock::from(state) }
    }

    fn state(&self, stored: &[u8]) -> &LeafState {
        self.state.get_or_init(|| {
            let bytes = stored.get(self.from..self.from + self.len).unwrap_or_default();
            // The checksum has vouched for the bytes, so this is what was encoded.
            postcard::from_bytes(bytes).unwrap_or_default()
        })
    }

    /// The state, to be changed.
    fn take(&mut self, stored: &[u8]) -> LeafState {
        self.state(stored);
        self.changed = true;
        self.state.take().unwrap_or_default()
    }
}

impl PartialEq for LeafStates {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl LeafStates {
    fn find(&self, leaf: LeafNo) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&leaf, |entry| entry.leaf)
    }

    /// The state of a leaf, if it has any.
    pub fn get(&self, leaf: LeafNo) -> Option<&LeafState> {
        let place = self.find(leaf).ok()?;
        self.entries.get(place).map(|entry| entry.state(&self.stored))
    }

    /// Lets `change` work on the state of a leaf, empty or not, and returns what it returns.
    pub fn update<T>(&mut self, leaf: LeafNo, change: impl FnOnce(&mut LeafState) -> T) -> T {
        match self.find(leaf) {
            Ok(place) => {
                let Some(entry) = self.entries.get_mut(place) else { return change(&mut LeafState::Empty) };
                let mut state = entry.take(&self.stored);
                let result = change(&mut state);
                if state.is_empty() {
                    self.entries.remove(place);
                } else {
                    entry.state = OnceLock::from(state);
                }
                result
            }
            Err(place) => {
                let mut state = LeafState::Empty;
                let result = change(&mut state);
                if !state.is_empty() {
                    self.entries.insert(place, Entry::of(leaf, state));
                }
                result
            }
        }
    }

    /// Adds all states of another profile: what a profile merge does.
    pub fn merge(&mut self, other: Self) {
        for entry in other.entries {
            let theirs = entry.state(&other.stored).clone();
            self.update(entry.leaf, |ours| ours.merge(theirs));
        }
    }

    /// Keeps the leaves that `keep` accepts, as after a definition was deleted.
    pub fn retain(&mut self, mut keep: impl FnMut(LeafNo) -> bool) {
        self.entries.retain(|entry| keep(entry.leaf));
    }

    /// Calls `change` with each state, then forgets those that became empty.
    pub fn for_each_mut(&mut self, mut change: impl FnMut(LeafNo, &mut LeafState)) {
        let stored = Arc::clone(&self.stored);
        self.entries.retain_mut(|entry| {
            let mut state = entry.take(&stored);
            change(entry.leaf, &mut state);
            let is_kept = !state.is_empty();
            entry.state = OnceLock::from(state);
            is_kept
        });
    }

    /// All states, by leaf.
    pub fn iter(&self) -> impl Iterator<Item = (LeafNo, &LeafState)> {
        self.entries.iter().map(|entry| (entry.leaf, entry.state(&self.stored)))
    }

    /// Whether no leaf has a state.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
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

    /// Checksum, then (leaf, length, state) after one another; nothing at all for no states.
    fn pack(&self) -> Result<Vec<u8>, postcard::Error> {
        let mut out = Vec::with_capacity(self.stored.len() + 64);
        if self.entries.is_empty() {
            return Ok(out);
        }
        out.extend_from_slice(&[0; CHECKSUM]);
        for entry in &self.entries {
            if entry.changed {
                let state = postcard::to_allocvec(entry.state(&self.stored))?;
                out = postcard::to_extend(&(entry.leaf.0, state.len() as u32), out)?;
                out.extend_from_slice(&state);
            } else {
                out = postcard::to_extend(&(entry.leaf.0, entry.len as u32), out)?;
                out.extend_from_slice(
                    self.stored.get(entry.from..entry.from + entry.len).unwrap_or_default(),
                );
            }
        }
        if let Some((checksum, content)) = out.split_at_mut_checked(CHECKSUM) {
            checksum.copy_from_slice(&xxh3_64(content).to_le_bytes());
        }
        Ok(out)
    }

    /// Finds the entries; `None` when the bytes are not what was written.
    fn unpack(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let (checksum, content) = bytes.split_at_checked(CHECKSUM)?;
        if xxh3_64(content).to_le_bytes() != *checksum {
            return None;
        }
        let (mut entries, mut rest) = (Vec::new(), content);
        while !rest.is_empty() {
            let ((leaf, len), tail) = postcard::take_from_bytes::<(u32, u32)>(rest).ok()?;
            let (from, len) = (content.len() - tail.len(), len as usize);
            rest = tail.get(len..)?;
            entries.push(Entry { leaf: LeafNo(leaf), from, len, changed: false, state: OnceLock::new() });
        }
        Some(Self { stored: content.into(), entries })
    }
}

impl Serialize for LeafStates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.pack().map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for LeafStates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Packed;
        impl Visitor<'_> for Packed {
            type Value = LeafStates;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("packed leaf states")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<LeafStates, E> {
                LeafStates::unpack(bytes).ok_or_else(|| E::custom("the checksum of leaf states is wrong"))
            }
        }
        deserializer.deserialize_bytes(Packed)
    }
}
