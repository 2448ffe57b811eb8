//! A profile as the processor holds it: everything known of one person or account, in one value that is encoded into
//! one row.
//!
//! Merging two profiles is merging their parts; each part is a function of the events that went into it, so the
//! merged profile is the one that all events together would have made. Parts are read when they are looked at
//! ([`super::packed`]), so an event costs what it touches, however much there is.

mod id;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::identity::Owned;
use super::packed::{Packed, Part, encode};
use super::pointers::Pointers;
use super::seats::{Recount, Seats};
use super::state::LeafStates;
use super::traits::Traits;
use crate::domain::{Collection, ComputationNo, Offset, ProfileNo, Timestamp};

pub use super::pointers::{POINTERS_MAX, Pointer, decode_pointers, encode_pointers};
use id::birth_of;
pub use id::profile_id;

/// First byte of every encoded profile.
const FORMAT: u8 = 8;
/// Format, then the checksum of all that follows, then the lengths of the parts, then [`Head`] and the parts.
const CHECKSUM_AT: usize = 1;
const LENGTHS_AT: usize = CHECKSUM_AT + 8;
const HEAD_AT: usize = LENGTHS_AT + PARTS * 4;
/// Owned, kin, traits, outcomes, leaves, due times, pointers, seats.
const PARTS: usize = 8;
/// An encoded profile needs no more than its first so many bytes to say [`Who`] it is.
pub const WHO_BYTES: usize = HEAD_AT + 80;

/// What a definition's version says of the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which version.
    pub computation: ComputationNo,
    /// What it says.
    pub value: OutcomeValue,
    /// Since when it says so.
    pub since: Timestamp,
}

/// See [`Outcome`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutcomeValue {
    /// Member of an audience, or was one.
    Member(bool),
    /// A computed trait's value as JSON text; none when the profile has none (any more).
    Value(Option<String>),
}

/// An outcome as it is stored: what is said, and how many milliseconds after the profile was made it was said first.
type Said = (SaidValue, i64);

#[derive(Debug, Clone, Serialize, Deserialize)]
enum SaidValue {
    Out,
    In,
    Nothing,
    Json(String),
}

impl From<OutcomeValue> for SaidValue {
    fn from(value: OutcomeValue) -> Self {
        match value {
            OutcomeValue::Member(false) => Self::Out,
            OutcomeValue::Member(true) => Self::In,
            OutcomeValue::Value(None) => Self::Nothing,
            OutcomeValue::Value(Some(json)) => Self::Json(json),
        }
    }
}

impl From<SaidValue> for OutcomeValue {
    fn from(said: SaidValue) -> Self {
        match said {
            SaidValue::Out => Self::Member(false),
            SaidValue::In => Self::Member(true),
            SaidValue::Nothing => Self::Value(None),
            SaidValue::Json(json) => Self::Value(Some(json)),
        }
    }
}

/// Other profiles this one has to do with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kin {
    /// Numbers of the profiles it absorbed.
    pub former: Vec<ProfileNo>,
    /// Accounts a user was put into.
    pub accounts: Vec<ProfileNo>,
}

/// A profile.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Number in the space.
    pub no: ProfileNo,
    /// Public id: a function of the log, see [`profile_id`].
    pub id: Uuid,
    /// Users or accounts.
    pub collection: Collection,
    /// The event that made it; of a profile that was separated again, the first one that is still its.
    pub first_offset: Offset,
    /// The event that made it, for ever.
    born: Offset,
    /// Its newest event.
    pub last_offset: Offset,
    /// Time of receipt of the event that made it.
    pub created_at: Timestamp,
    /// Time of receipt of its newest event.
    pub last_event_at: Timestamp,
    /// The same, without calls that say that the person was not there (`context.active: false`, personas.md 2.8).
    pub last_seen_at: Timestamp,
    /// Whether it has an identifier that makes it more than anonymous (decisions A13).
    pub is_known: bool,
    /// Identifiers and merge count.
    pub owned: Part<Owned>,
    /// Former profiles and accounts.
    pub kin: Part<Kin>,
    /// Custom traits.
    pub traits: Part<Traits>,
    /// Incremental states.
    pub leaves: LeafStates,
    /// Of a user its places in accounts, of an account what it knows of its users.
    pub seats: Part<Seats>,
    outcomes: Packed<Said>,
    dues: Packed<Timestamp>,
    /// The earliest of `dues`.
    due_at: Option<Timestamp>,
    pointers: Pointers,
}

/// What every look at a profile needs.
#[derive(Serialize, Deserialize)]
struct Head {
    no: ProfileNo,
    collection: Collection,
    is_known: bool,
    first_offset: Offset,
    /// When that is another one.
    born: Option<Offset>,
    last_offset: Offset,
    created_at: Timestamp,
    last_event_at: Timestamp,
    /// When that is another time.
    last_seen_at: Option<Timestamp>,
    due_at: Option<Timestamp>,
}

impl Head {
    fn born(&self) -> Offset {
        self.born.unwrap_or(self.first_offset)
    }

    fn id(&self) -> Uuid {
        profile_id(self.collection, self.born(), self.created_at)
    }
}

/// Who a profile is, and whether it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// Public id.
    pub id: Uuid,
    /// Users or accounts.
    pub collection: Collection,
    /// Whether it is more than anonymous.
    pub is_known: bool,
}

impl Who {
    /// Reads it of the beginning of an encoded profile, [`WHO_BYTES`] of it. There is no checksum of a part: to be
    /// used to look, not to write.
    pub fn peek(start: &[u8]) -> Result<Self, DecodeError> {
        if start.first() != Some(&FORMAT) {
            return Err(DecodeError::Format);
        }
        let (head, _) = postcard::take_from_bytes::<Head>(start.get(HEAD_AT..).unwrap_or_default())?;
        Ok(Self { id: head.id(), collection: head.collection, is_known: head.is_known })
    }
}

/// An encoded profile could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version of the program, or not a profile.
    #[error("unknown profile format")]
    Format,
    /// Not the bytes that were written.
    #[error("the profile's checksum is wrong")]
    Checksum,
    /// Cut short or damaged.
    #[error("damaged profile: {0}")]
    Damaged(#[from] postcard::Error),
}

impl Profile {
    /// A new profile, made by the event at `offset`.
    pub fn new(no: ProfileNo, collection: Collection, offset: Offset, received_at: Timestamp) -> Self {
        Self {
            no,
            id: profile_id(collection, offset, received_at),
            collection,
            first_offset: offset,
            born: offset,
            last_offset: offset,
            created_at: received_at,
            last_event_at: received_at,
            last_seen_at: received_at,
            is_known: false,
            owned: Part::default(),
            kin: Part::default(),
            traits: Part::default(),
            leaves: LeafStates::default(),
            seats: Part::default(),
            outcomes: Packed::default(),
            dues: Packed::default(),
            due_at: None,
            pointers: Pointers::default(),
        }
    }

    /// A user that was part of another one and is one again: the first event that is still its, and who it was before.
    pub fn separated(no: ProfileNo, first: Offset, id: Uuid, created_at: Timestamp) -> Self {
        let born = birth_of(id);
        Self { id, born, ..Self::new(no, Collection::Users, first, created_at) }
    }

    /// Takes a younger profile in. Outcomes are left to the evaluation that has to follow. Both have left the tallies of
    /// their accounts before ([`Profile::uncount`]). Returns the names of the traits that have other values now.
    pub fn absorb(&mut self, other: &Self) -> Vec<String> {
        let (theirs, kin) = (other.owned.get(), other.kin.get());
        self.owned.update(|owned| {
            owned.merges += theirs.merges + 1;
            owned.identifiers.extend_from_slice(&theirs.identifiers);
            // Of two that were to stay apart and are one now, too: should that be taken back, they stay apart again.
            owned.apart.extend_from_slice(&theirs.apart);
        });
        self.kin.update(|own| {
            own.former.push(other.no);
            own.former.extend_from_slice(&kin.former);
            let new: Vec<ProfileNo> =
                kin.accounts.iter().filter(|a| !own.accounts.contains(a)).copied().collect();
            own.accounts.extend(new);
        });
        let changed = self.traits.update(|traits| traits.merge(other.traits.get()));
        self.leaves.merge(&other.leaves);
        let seats = other.seats.get();
        if !seats.is_empty() {
            self.seats.update(|own| own.absorb(seats));
        }
        self.pointers.merge(&other.pointers);
        self.is_known |= other.is_known;
        self.last_offset = self.last_offset.max(other.last_offset);
        self.last_event_at = self.last_event_at.max(other.last_event_at);
        self.last_seen_at = self.last_seen_at.max(other.last_seen_at);
        changed
    }

    /// Whether no event, trait or definition has said anything of it.
    pub fn is_blank(&self) -> bool {
        self.leaves.is_empty() && self.outcomes.is_empty() && self.traits.get().is_empty()
    }

    /// Leaves the tallies of all its accounts; says which, and as what it was counted there.
    pub fn uncount(&mut self) -> Vec<Recount> {
        if self.seats.get().is_empty() { Vec::new() } else { self.seats.update(Seats::uncount) }
    }

    /// Notes that an event belongs to the profile.
    pub fn note_event(&mut self, event: Pointer, received_at: Timestamp, is_seen: bool) {
        self.pointers.push(event);
        self.last_offset = self.last_offset.max(event.offset);
        self.last_event_at = self.last_event_at.max(received_at);
        if is_seen {
            self.last_seen_at = self.last_seen_at.max(received_at);
        }
    }

    /// Notes an operator's act that is about the profile: whoever takes a merge back finds it with the events.
    pub fn note_act(&mut self, act: Pointer) {
        self.pointers.push(act);
    }

    /// The newest pointers to its events, in log order; older ones were spilled.
    pub fn pointers(&self) -> Vec<Pointer> {
        self.pointers.list()
    }

    /// Takes out the pointers that no longer fit the row.
    pub fn spill(&mut self) -> Option<Vec<Pointer>> {
        (self.pointers.len() >= POINTERS_MAX).then(|| std::mem::take(&mut self.pointers).list())
    }

    /// The outcome of a version.
    pub fn outcome(&self, computation: ComputationNo) -> Option<Outcome> {
        Some(self.outcome_of(computation, self.outcomes.get(computation.0)?.into_owned()))
    }

    /// All outcomes, by version.
    pub fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        self.outcomes.iter().map(|(no, said)| self.outcome_of(ComputationNo(no), said.into_owned()))
    }

    fn outcome_of(&self, computation: ComputationNo, (value, after): Said) -> Outcome {
        Outcome { computation, value: value.into(), since: self.created_at.plus_millis(after) }
    }

    /// Sets the outcome of a version.
    pub fn set_outcome(&mut self, outcome: Outcome) {
        let after = outcome.since.millis().saturating_sub(self.created_at.millis());
        self.outcomes.set(outcome.computation.0, Some((outcome.value.into(), after)));
    }

    /// Forgets outcomes and due times of versions that nobody asks for any more.
    pub fn retain_versions(
        &mut self,
        mut said: impl FnMut(ComputationNo) -> bool,
        mut due: impl FnMut(ComputationNo) -> bool,
    ) {
        self.outcomes.retain(|no| said(ComputationNo(no)));
        self.dues.retain(|no| due(ComputationNo(no)));
        if !self.seats.get().is_empty() {
            self.seats.update(|seats| seats.retain_versions(due));
        }
        self.due_at = self.earliest();
    }

    /// Notes when a version's outcome can next change by the passage of time alone.
    pub fn set_due(&mut self, computation: ComputationNo, at: Option<Timestamp>) {
        let before = self.dues.get(computation.0).map(|at| *at);
        if before == at {
            return;
        }
        self.dues.set(computation.0, at);
        if at.is_some_and(|at| self.due_at.is_none_or(|earliest| at < earliest)) {
            self.due_at = at;
        } else if before == self.due_at {
            self.due_at = self.earliest();
        }
    }

    /// The earliest instant at which any outcome can change by the passage of time alone.
    pub const fn due_at(&self) -> Option<Timestamp> {
        self.due_at
    }

    /// The versions that are due at `at`, in order. They have no due time any more: whoever evaluates them sets it.
    pub fn take_due(&mut self, at: Timestamp) -> Vec<ComputationNo> {
        let due: Vec<u32> = self.dues.iter().filter(|(_, when)| **when == at).map(|(no, _)| no).collect();
        for no in &due {
            self.dues.set(*no, None);
        }
        self.due_at = self.earliest();
        due.into_iter().map(ComputationNo).collect()
    }

    fn earliest(&self) -> Option<Timestamp> {
        self.dues.iter().map(|(_, at)| *at).min()
    }

    /// Whether it has or had this number.
    pub fn has_number(&self, number: ProfileNo) -> bool {
        self.no == number || self.kin.get().former.contains(&number)
    }

    /// All numbers the profile has or had.
    pub fn numbers(&self) -> Vec<ProfileNo> {
        std::iter::once(self.no).chain(self.kin.get().former.iter().copied()).collect()
    }

    /// Encodes the profile into its row.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut row = Vec::new();
        self.encode_into(&mut row)?;
        Ok(row)
    }

    /// As [`Profile::encode`], into memory that may be used again for the next one.
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        out.clear();
        out.push(FORMAT);
        out.resize(HEAD_AT, 0);
        let head = Head {
            no: self.no,
            collection: self.collection,
            is_known: self.is_known,
            first_offset: self.first_offset,
            born: Some(self.born).filter(|born| *born != self.first_offset),
            last_offset: self.last_offset,
            created_at: self.created_at,
            last_event_at: self.last_event_at,
            last_seen_at: Some(self.last_seen_at).filter(|at| *at != self.last_event_at),
            due_at: self.due_at,
        };
        encode(&head, out)?;
        let mut ends = [0; PARTS + 1];
        ends[0] = out.len();
        self.owned.write(out)?;
        ends[1] = out.len();
        self.kin.write(out)?;
        ends[2] = out.len();
        self.traits.write(out)?;
        ends[3] = out.len();
        self.outcomes.write(out)?;
        ends[4] = out.len();
        self.leaves.write(out)?;
        ends[5] = out.len();
        self.dues.write(out)?;
        ends[6] = out.len();
        self.pointers.write(out);
        ends[7] = out.len();
        self.seats.write(out)?;
        ends[8] = out.len();
        let lengths = ends.windows(2).map(|pair| (pair[1] - pair[0]) as u32);
        for (slot, length) in out[LENGTHS_AT..HEAD_AT].chunks_exact_mut(4).zip(lengths) {
            slot.copy_from_slice(&length.to_le_bytes());
        }
        let checksum = xxh3_64(&out[LENGTHS_AT..]);
        out[CHECKSUM_AT..LENGTHS_AT].copy_from_slice(&checksum.to_le_bytes());
        Ok(())
    }

    /// Who it is.
    pub const fn who(&self) -> Who {
        Who { id: self.id, collection: self.collection, is_known: self.is_known }
    }

    /// Reads it back. Its parts are read when they are looked at.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        if bytes.len() < HEAD_AT || bytes[0] != FORMAT {
            return Err(DecodeError::Format);
        }
        if xxh3_64(&bytes[LENGTHS_AT..]).to_le_bytes() != bytes[CHECKSUM_AT..LENGTHS_AT] {
            return Err(DecodeError::Checksum);
        }
        Self::decode_own(bytes)
    }

    /// Reads back what this process has encoded or decoded before: nothing can have changed it since.
    pub fn decode_own(bytes: &Bytes) -> Result<Self, DecodeError> {
        if bytes.len() < HEAD_AT {
            return Err(DecodeError::Format);
        }
        let (head, rest) = postcard::take_from_bytes::<Head>(&bytes[HEAD_AT..])?;
        let mut from = bytes.len() - rest.len();
        let mut lengths = bytes[LENGTHS_AT..HEAD_AT].chunks_exact(4);
        let mut part = || {
            let length = lengths.next().and_then(|raw| raw.try_into().ok()).map_or(0, u32::from_le_bytes);
            let to = bytes.len().min(from + length as usize);
            bytes.slice(std::mem::replace(&mut from, to)..to)
        };
        Ok(Self {
            no: head.no,
            id: head.id(),
            collection: head.collection,
            first_offset: head.first_offset,
            born: head.born(),
            last_offset: head.last_offset,
            created_at: head.created_at,
            last_event_at: head.last_event_at,
            last_seen_at: head.last_seen_at.unwrap_or(head.last_event_at),
            is_known: head.is_known,
            owned: Part::stored(part()),
            kin: Part::stored(part()),
            traits: Part::stored(part()),
            outcomes: Packed::stored(part()),
            leaves: LeafStates::stored(part()),
            dues: Packed::stored(part()),
            due_at: head.due_at,
            pointers: Pointers::stored(part()),
            seats: Part::stored(part()),
        })
    }
}

#[cfg(test)]
mod tests;
