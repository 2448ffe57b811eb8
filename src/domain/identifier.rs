//! External ids: (type, value) pairs that point at a profile, normalised one way everywhere (decisions I2).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Which kind of profile an identifier or a profile belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Collection {
    /// People.
    #[default]
    Users = 0,
    /// Companies, households: whatever `group` calls name.
    Accounts = 1,
}

impl Collection {
    /// The protocol's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Accounts => "accounts",
        }
    }

    /// Reads the protocol's word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Users, Self::Accounts].into_iter().find(|c| c.as_str() == word)
    }

    /// From its stored number.
    pub const fn from_number(number: i16) -> Self {
        if number == 1 { Self::Accounts } else { Self::Users }
    }
}

/// What an identifier is found by: the first 128 bits of SHA-256 over collection, type name and value, so that
/// nobody can make two values meet and no value is too long for an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdKey(pub u128);

impl IdKey {
    /// The key of a normalised value.
    pub fn of(collection: Collection, id_type: &str, value: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update([collection as u8]);
        hash.update(id_type.as_bytes());
        hash.update([0]);
        hash.update(value.as_bytes());
        let mut first = [0_u8; 16];
        for (to, from) in first.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Self(u128::from_be_bytes(first))
    }

    /// As Postgres stores it.
    pub const fn to_uuid(self) -> uuid::Uuid {
        uuid::Uuid::from_u128(self.0)
    }
}

/// Trims, composes (NFC) and, where the type says so, lower-cases a value. Empty means absent.
pub fn normalise(value: &str, case_insensitive: bool) -> String {
    let trimmed = value.trim();
    let composed = if is_nfc(trimmed) { trimmed.to_owned() } else { trimmed.nfc().collect() };
    if case_insensitive { composed.to_lowercase() } else { composed }
}

/// Whether `name` can be an identifier type: `[a-z][a-z0-9_.]{0,63}`.
pub fn is_type_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 64
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_trimmed_composed_and_folded() {
        assert_eq!(normalise("  A@Example.COM\u{a0}", true), "a@example.com");
        assert_eq!(normalise("e\u{301}", false), "é");
        assert_eq!(normalise("Abc", false), "Abc");
        assert_eq!(normalise(" \t\u{2003}", false), "");
    }

    #[test]
    fn keys_keep_collection_type_and_value_apart() {
        let key = |c, t, v| IdKey::of(c, t, v);
        assert_ne!(key(Collection::Users, "email", "x"), key(Collection::Accounts, "email", "x"));
        assert_ne!(key(Collection::Users, "a", "bc"), key(Collection::Users, "ab", "c"));
    }
}
