//! Regulations: what a person may ask for, in Segment's words (personas.md 11.1; privacy duties P1, P3, P4, P5).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::IdKey;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegulationType {
    /// Nothing new is taken of these people.
    SuppressOnly,
    /// Everything new is taken again.
    Unsuppress,
    /// Nothing new is taken, and everything there is of them is erased here.
    SuppressWithDeleteInternal,
    /// Everything there is of them is erased here.
    DeleteInternal,
    /// As [`Self::SuppressWithDeleteInternal`], and destinations are told to do the same.
    SuppressWithDelete,
    /// As [`Self::DeleteInternal`], and destinations are told to do the same.
    DeleteOnly,
}

impl RegulationType {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::SuppressOnly,
        Self::Unsuppress,
        Self::SuppressWithDeleteInternal,
        Self::DeleteInternal,
        Self::SuppressWithDelete,
        Self::DeleteOnly,
    ];

    /// Segment's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::SuppressOnly => "SUPPRESS_ONLY",
            Self::Unsuppress => "UNSUPPRESS",
            Self::SuppressWithDeleteInternal => "SUPPRESS_WITH_DELETE_INTERNAL",
            Self::DeleteInternal => "DELETE_INTERNAL",
            Self::SuppressWithDelete => "SUPPRESS_WITH_DELETE",
            Self::DeleteOnly => "DELETE_ONLY",
        }
    }

    /// Reads Segment's word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.word() == word)
    }

    /// Nothing new is taken.
    pub const fn suppresses(self) -> bool {
        matches!(self, Self::SuppressOnly | Self::SuppressWithDeleteInternal | Self::SuppressWithDelete)
    }

    /// What there is is erased.
    pub const fn erases(self) -> bool {
        !matches!(self, Self::SuppressOnly | Self::Unsuppress)
    }

    /// Destinations are told.
    pub const fn forwards(self) -> bool {
        matches!(self, Self::SuppressWithDelete | Self::DeleteOnly)
    }
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegulationStatus {
    /// It waits.
    Initialized,
    /// A destination does not take deletions.
    NotSupported,
    /// It is being done.
    Running,
    /// Done, but not everywhere: a destination does not take deletions, or has refused this one.
    PartialSuccess,
    /// It was refused.
    Failed,
    /// All is done.
    Finished,
}

impl RegulationStatus {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Initialized,
        Self::NotSupported,
        Self::Running,
        Self::PartialSuccess,
        Self::Failed,
        Self::Finished,
    ];

    /// Segment's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Initialized => "INITIALIZED",
            Self::NotSupported => "NOT_SUPPORTED",
            Self::Running => "RUNNING",
            Self::PartialSuccess => "PARTIAL_SUCCESS",
            Self::Failed => "FAILED",
            Self::Finished => "FINISHED",
        }
    }

    /// Reads Segment's word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.word() == word)
    }
}

/// Types of identifiers that belong to a device, which other people may use, too: by such a one alone nobody is kept out for
/// ever, and nobody else's events are refused for it.
pub fn is_of_device(id_type: &str) -> bool {
    matches!(id_type, "anonymous_id" | "ga_client_id")
        || id_type.starts_with("android.")
        || id_type.starts_with("ios.")
}

/// What is kept of an identifier that must not be known any more: a hash under a secret of the space, over what it is found
/// by. Both have one length, so nothing can be appended to either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdHash(pub [u8; 16]);

impl IdHash {
    /// The hash of what an identifier is found by. `secret` has [`SECRET_BYTES`].
    pub fn of(secret: &[u8], key: IdKey) -> Self {
        let mut hash = Sha256::new();
        hash.update(secret);
        hash.update(key.0.to_be_bytes());
        let mut first = [0_u8; 16];
        for (to, from) in first.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Self(first)
    }

    /// Reads it as it is written: 32 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32).map(|bits| Self(bits.to_be_bytes()))
    }
}

/// Length of a space's secret.
pub const SECRET_BYTES: usize = 32;

/// Who was erased, as a deletion says it to destinations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// Public id that the profile had.
    pub profile_id: String,
    /// Public ids of profiles that had become part of it.
    #[serde(default)]
    pub former_ids: Vec<String>,
    /// What it was known by.
    pub identifiers: Vec<Known>,
}

/// An identifier somebody was known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its type.
    #[serde(rename = "type")]
    pub id_type: String,
    /// Its value.
    pub id: String,
    /// When it was first seen on the profile, in milliseconds since 1970.
    pub first_seen: i64,
}
