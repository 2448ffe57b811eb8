//! Finding profiles by the value of a trait: what is kept of a value, and whether it is the one asked for.
//!
//! Strings are compared without case, numbers by what they are worth, `true` and `false` by their names; a text that is
//! asked for finds all three. Lists, objects and long texts are not kept.

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::traits::Traits;
use crate::domain::{Collection, Number, json};

/// Longest text that can be found, in bytes.
pub const VALUE_BYTES_MAX: usize = 255;

/// A trait that profiles can be searched by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Searchable {
    /// Its number among those of the space.
    pub no: i16,
    /// Its name.
    pub name: String,
}

/// Values of a profile that it can be found by: number of the trait, hash of the value; in order.
pub fn entries(traits: &Traits, collection: Collection, searchable: &[Searchable]) -> Vec<(i16, i64)> {
    let entry = |s: &Searchable| Some((s.no, hash_of(collection, &text_of(traits.get(&s.name)?)?)));
    let mut entries: Vec<(i16, i64)> = searchable.iter().filter_map(entry).collect();
    entries.sort_unstable();
    entries
}

/// What values are found by that may be the one asked for.
pub fn hash_of(collection: Collection, text: &str) -> i64 {
    // A number and a text that is wholly a number have to meet: which of them is meant is seen at the value itself.
    let folded = match Number::parse(text) {
        Some(number) => number.to_string(),
        None => text.to_lowercase(),
    };
    xxh3_64_with_seed(folded.as_bytes(), collection as u64).cast_signed()
}

/// Whether a value, as JSON text, is the one asked for.
pub fn is_value(json: &str, text: &str) -> bool {
    match json.as_bytes().first() {
        Some(b'"') => text_of(json).is_some_and(|value| value.to_lowercase() == text.to_lowercase()),
        Some(b'-' | b'0'..=b'9') => Number::parse(json).is_some_and(|n| Number::parse(text) == Some(n)),
        Some(b't' | b'f') => json == text.to_lowercase(),
        _ => false,
    }
}

/// The text of a scalar.
fn text_of(json: &str) -> Option<Cow<'_, str>> {
    let text = match json.as_bytes().first()? {
        b'"' => json::unquote(json)?,
        b'-' | b'0'..=b'9' | b't' | b'f' => Cow::Borrowed(json),
        _ => return None,
    };
    (text.len() <= VALUE_BYTES_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_has_the_hash_of_what_it_finds() {
        let found = [
            ("\"Pro\"", "pRO"),
            ("\"STRAßE\"", "straße"),
            ("42.0", "42"),
            ("4.2e1", "42.00"),
            ("\"042\"", "042"),
            ("true", "TRUE"),
            ("\"true\"", "true"),
            ("\"\"", ""),
        ];
        for (json, text) in found {
            assert!(is_value(json, text), "{json} {text}");
            let kept = hash_of(Collection::Users, &text_of(json).unwrap());
            assert_eq!(kept, hash_of(Collection::Users, text), "{json} {text}");
        }
        for (json, text) in
            [("\"042\"", "42"), ("42", "43"), ("[\"a\"]", "a"), ("null", "null"), ("true", "false")]
        {
            assert!(!is_value(json, text), "{json} {text}");
        }
        assert_eq!(text_of(&format!("{:?}", "a".repeat(256))), None);
        assert_ne!(hash_of(Collection::Users, "a"), hash_of(Collection::Accounts, "a"));
    }
}
