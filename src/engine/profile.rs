//! A profile as the processor holds it: everything known of one person or account, in one value that is encoded into
//! one row.
//!
//! Merging two profiles is merging their parts; each part is a function of the events that went into it, so the
//! merged profile is the one that all events together would have made.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::identity::Owned;
use super::state::LeafStates;
use super::traits::Traits;
use crate::domain::{Collection, ComputationNo, Offset, ProfileNo, Timestamp};

/// First byte of every encoded profile.
const FORMAT: u8 = 1;

/// Pointers kept inside the row; more are spilled into a page.
pub const POINTERS_MAX: usize = 64;

/// Where one of the profile's events stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pointer {
    /// Its place in the log.
    pub offset: Offset,
    /// Its event time.
    pub at: Timestamp,
}

/// What a definition's version says of the profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which version.
    pub computation: ComputationNo,
    /// What it says.
    pub value: OutcomeValue,
    /// Since when it says so.
    pub since: Timestamp,
}

/// See [`Outcome`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutcomeValue {
    /// Member of an audience, or was one.
    Member(bool),
    /// A computed trait's value as JSON text; none when the profile has none (any more).
    Value(Option<String>),
}

/// A profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Number in the space.
    pub no: ProfileNo,
    /// Public id: a function of the log, see [`profile_id`].
    pub id: Uuid,
    /// Users or accounts.
    pub collection: Collection,
    /// The event that made it.
    pub first_offset: Offset,
    /// Its newest event.
    pub last_offset: Offset,
    /// Time of receipt of the event that made it.
    pub created_at: Timestamp,
    /// Time of receipt of its newest event.
    pub last_seen_at: Timestamp,
    /// Numbers of the profiles it absorbed.
    pub former: Vec<ProfileNo>,
    /// Identifiers and merge count.
    pub owned: Owned,
    /// Custom traits.
    pub traits: Traits,
    /// Outcomes by computation number.
    pub outcomes: Vec<Outcome>,
    /// Accounts a user was put into.
    pub accounts: Vec<ProfileNo>,
    /// Incremental states.
    pub leaves: LeafStates,
    /// The newest pointers, in log order.
    #[serde(with = "pointer_steps")]
    pub pointers: Vec<Pointer>,
    /// When each version's outcome can next change by the passage of time alone; the earliest is in the index.
    pub dues: Vec<(ComputationNo, Timestamp)>,
}

/// The first fields of a [`Profile`], in their order.
#[derive(Deserialize)]
struct Head {
    no: ProfileNo,
    id: Uuid,
    collection: Collection,
    first_offset: Offset,
    last_offset: Offset,
    created_at: Timestamp,
    last_seen_at: Timestamp,
    former: Vec<ProfileNo>,
    owned: Owned,
    traits: Traits,
    outcomes: Vec<Outcome>,
    accounts: Vec<ProfileNo>,
}

impl From<Head> for Profile {
    fn from(head: Head) -> Self {
        Self {
            no: head.no,
            id: head.id,
            collection: head.collection,
            first_offset: head.first_offset,
            last_offset: head.last_offset,
            created_at: head.created_at,
            last_seen_at: head.last_seen_at,
            former: head.former,
            owned: head.owned,
            traits: head.traits,
            outcomes: head.outcomes,
            accounts: head.accounts,
            leaves: LeafStates::default(),
            pointers: Vec::new(),
            dues: Vec::new(),
        }
    }
}

/// An encoded profile could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer version, or not a profile.
    #[error("unknown profile format")]
    Format,
    /// Cut short or damaged.
    #[error("damaged profile: {0}")]
    Damaged(#[from] postcard::Error),
}

impl Profile {
    /// A new profile, made by the event at `offset`.
    pub fn new(no: ProfileNo, collection: Collection, offset: Offset, received_at: Timestamp) -> Self {
        Self {
            no,
            id: profile_id(no, received_at),
            collection,
            first_offset: offset,
            last_offset: offset,
            created_at: received_at,
            last_seen_at: received_at,
            former: Vec::new(),
            owned: Owned::default(),
            traits: Traits::default(),
            outcomes: Vec::new(),
            accounts: Vec::new(),
            leaves: LeafStates::default(),
            pointers: Vec::new(),
            dues: Vec::new(),
        }
    }

    /// Takes a younger profile in. Outcomes are left to the evaluation that has to follow.
    pub fn absorb(&mut self, other: Self) {
        self.owned.merges += other.owned.merges + 1;
        self.owned.identifiers.extend(other.owned.identifiers);
        self.former.push(other.no);
        self.former.extend(other.former);
        self.traits.merge(&other.traits);
        self.leaves.merge(other.leaves);
        self.pointers.extend(other.pointers);
        self.pointers.sort_unstable();
        for account in other.accounts {
            if !self.accounts.contains(&account) {
                self.accounts.push(account);
            }
        }
        self.last_offset = self.last_offset.max(other.last_offset);
        self.last_seen_at = self.last_seen_at.max(other.last_seen_at);
    }

    /// Notes that an event belongs to the profile.
    pub fn note_event(&mut self, offset: Offset, at: Timestamp, received_at: Timestamp) {
        self.pointers.push(Pointer { offset, at });
        self.last_offset = self.last_offset.max(offset);
        self.last_seen_at = self.last_seen_at.max(received_at);
    }

    /// Takes out the pointers that no longer fit the row.
    pub fn spill(&mut self) -> Option<Vec<Pointer>> {
        (self.pointers.len() >= POINTERS_MAX).then(|| std::mem::take(&mut self.pointers))
    }

    /// The outcome of a version.
    pub fn outcome(&self, computation: ComputationNo) -> Option<&Outcome> {
        let place = self.outcomes.binary_search_by_key(&computation, |o| o.computation).ok()?;
        self.outcomes.get(place)
    }

    /// Sets the outcome of a version.
    pub fn set_outcome(&mut self, outcome: Outcome) {
        match self.outcomes.binary_search_by_key(&outcome.computation, |o| o.computation) {
            Ok(place) => {
                if let Some(slot) = self.outcomes.get_mut(place) {
                    *slot = outcome;
                }
            }
            Err(place) => self.outcomes.insert(place, outcome),
        }
    }

    /// Notes when a version's outcome can next change by the passage of time alone.
    pub fn set_due(&mut self, computation: ComputationNo, at: Option<Timestamp>) {
        match (self.dues.binary_search_by_key(&computation, |(no, _)| *no), at) {
            (Ok(place), Some(at)) => {
                if let Some(due) = self.dues.get_mut(place) {
                    due.1 = at;
                }
            }
            (Ok(place), None) => _ = self.dues.remove(place),
            (Err(place), Some(at)) => self.dues.insert(place, (computation, at)),
            (Err(_), None) => {}
        }
    }

    /// The earliest of those instants.
    pub fn due_at(&self) -> Option<Timestamp> {
        self.dues.iter().map(|(_, at)| *at).min()
    }

    /// All numbers the profile has or had.
    pub fn numbers(&self) -> Vec<ProfileNo> {
        std::iter::once(self.no).chain(self.former.iter().copied()).collect()
    }

    /// Encodes the profile into its row.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        Ok(postcard::to_extend(self, vec![FORMAT])?)
    }

    /// Reads back what is asked of a profile: everything but its leaves, pointers and due times, which are the larger
    /// part and stand behind it.
    pub fn decode_head(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => Ok(postcard::take_from_bytes::<Head>(rest)?.0.into()),
            _ => Err(DecodeError::Format),
        }
    }

    /// Reads it back.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => Ok(postcard::from_bytes(rest)?),
            _ => Err(DecodeError::Format),
        }
    }
}

/// Numbers are stirred by an odd factor modulo 2^56, so that ids of neighbours do not look alike.
const STIR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Its inverse, by Newton's iteration: each step doubles the number of right bits.
const UNSTIR: u64 = {
    let (mut inverse, mut step) = (STIR, 0);
    while step < 5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(STIR.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
};
const NUMBER_BITS: u64 = (1 << 56) - 1;

/// The public id of a profile: a UUIDv7 of the time of receipt of its first event whose random bits hold its number.
/// The same log gives the same ids, and [`number_of`] finds the number again, so ids need no index.
pub fn profile_id(no: ProfileNo, received_at: Timestamp) -> Uuid {
    let stirred = no.0.wrapping_mul(STIR) & NUMBER_BITS;
    let mut bytes = [0x2a; 10];
    for (to, from) in bytes.iter_mut().skip(3).zip(stirred.to_be_bytes().into_iter().skip(1)) {
        *to = from;
    }
    uuid::Builder::from_unix_timestamp_millis(received_at.millis().max(0).unsigned_abs(), &bytes).into_uuid()
}

/// The number inside a profile's public id. Whether there is such a profile, and with that very id, is to be looked
/// up.
pub const fn number_of(id: Uuid) -> ProfileNo {
    ProfileNo(((id.as_u128() as u64) & NUMBER_BITS).wrapping_mul(UNSTIR) & NUMBER_BITS)
}

/// Pointers in few bytes: the differences of their offsets and times.
pub fn encode_pointers(pointers: &[Pointer]) -> Result<Vec<u8>, DecodeError> {
    Ok(postcard::to_allocvec(&pointer_steps::steps(pointers))?)
}

/// Inverse of [`encode_pointers`].
pub fn decode_pointers(bytes: &[u8]) -> Result<Vec<Pointer>, DecodeError> {
    Ok(pointer_steps::pointers(postcard::from_bytes(bytes)?))
}

mod pointer_steps {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Offset, Pointer, Timestamp};

    pub(super) fn steps(pointers: &[Pointer]) -> Vec<(u64, i64)> {
        let (mut offset, mut at) = (0, 0);
        let step = |p: &Pointer| {
            let step = (p.offset.0.wrapping_sub(offset), p.at.millis().wrapping_sub(at));
            (offset, at) = (p.offset.0, p.at.millis());
            step
        };
        pointers.iter().map(step).collect()
    }

    pub(super) fn pointers(steps: Vec<(u64, i64)>) -> Vec<Pointer> {
        let (mut offset, mut at) = (0_u64, 0_i64);
        let pointer = |(by, time): (u64, i64)| {
            (offset, at) = (offset.wrapping_add(by), at.wrapping_add(time));
            Pointer { offset: Offset(offset), at: Timestamp::from_millis(at) }
        };
        steps.into_iter().map(pointer).collect()
    }

    pub(super) fn serialize<S: Serializer>(list: &[Pointer], serializer: S) -> Result<S::Ok, S::Error> {
        steps(list).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pointer>, D::Error> {
        Ok(pointers(Vec::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_hold_their_numbers(no in 1_u64..1 << 50, at in 0_i64..1 << 42) {
            let id = profile_id(ProfileNo(no), Timestamp::from_millis(at));
            prop_assert_eq!(number_of(id), ProfileNo(no));
            prop_assert_eq!(id.get_version_num(), 7);
        }

        #[test]
        fn pointers_are_read_back(list in proptest::collection::vec((any::<u64>(), any::<i64>()), 0..80)) {
            let pointers: Vec<Pointer> = list
                .into_iter()
                .map(|(offset, at)| Pointer { offset: Offset(offset), at: Timestamp::from_millis(at) })
                .collect();
            prop_assert_eq!(decode_pointers(&encode_pointers(&pointers).unwrap()).unwrap(), pointers);
        }
    }

    #[test]
    fn the_head_is_the_profile_without_its_states() {
        let mut profile =
            Profile::new(ProfileNo(7), Collection::Accounts, Offset(9), Timestamp::from_millis(5));
        profile.former.push(ProfileNo(3));
        profile.accounts.push(ProfileNo(4));
        let value = OutcomeValue::Value(Some("1".into()));
        profile.set_outcome(Outcome { computation: ComputationNo(2), value, since: Timestamp::EPOCH });
        let head = profile.clone();
        profile.note_event(Offset(9), Timestamp::EPOCH, Timestamp::from_millis(5));
        profile.set_due(ComputationNo(2), Some(Timestamp::EPOCH));
        let encoded = profile.encode().unwrap();
        assert_eq!(Profile::decode_head(&encoded).unwrap(), head);
        assert_eq!(Profile::decode(&encoded).unwrap(), profile);
    }

    #[test]
    fn neighbours_do_not_look_alike() {
        let id =
            |no| profile_id(ProfileNo(no), Timestamp::from_millis(1_700_000_000_000)).simple().to_string();
        assert_ne!(id(1).get(20..), id(2).get(20..));
    }
}
