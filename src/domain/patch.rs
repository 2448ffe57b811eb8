//! What a change says about a value that need not be there.

use serde::{Deserialize, Deserializer};

/// A field of a PATCH: left out it stays, null takes it away, anything else is the new value. In a struct it needs
/// `#[serde(default)]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Patch<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It is taken away.
    Clear,
    /// It becomes this.
    Set(T),
}

impl<T> Patch<T> {
    /// Whether nothing is to be changed.
    pub const fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// What becomes of `present`.
    pub fn over(self, present: Option<T>) -> Option<T> {
        match self {
            Self::Keep => present,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }

    /// The same with its value read as something else, which may fail.
    pub fn try_map<U, E>(self, read: impl FnOnce(T) -> Result<U, E>) -> Result<Patch<U>, E> {
        Ok(match self {
            Self::Keep => Patch::Keep,
            Self::Clear => Patch::Clear,
            Self::Set(value) => Patch::Set(read(value)?),
        })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(|given| given.map_or(Self::Clear, Self::Set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_out_null_and_a_value_are_three_things() {
        #[derive(Deserialize)]
        struct Change {
            #[serde(default)]
            field: Patch<u8>,
        }
        for (json, expected, becomes) in [
            ("{}", Patch::Keep, Some(1)),
            (r#"{"field":null}"#, Patch::Clear, None),
            (r#"{"field":7}"#, Patch::Set(7), Some(7)),
        ] {
            let change: Change = serde_json::from_str(json).unwrap();
            assert_eq!(change.field, expected);
            assert_eq!(change.field.over(Some(1)), becomes);
        }
        assert!(serde_json::from_str::<Change>(r#"{"field":"x"}"#).is_err());
    }
}
