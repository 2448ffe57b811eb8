//! Walking raw JSON text without building a tree. Everywhere a key stands twice, the last one wins.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Calls `each` with every entry of the JSON object in `json`, in the order they stand. An empty text is an empty
/// object.
pub fn for_each_entry<'a>(
    json: &'a str,
    each: impl FnMut(Cow<'a, str>, &'a RawValue),
) -> Result<(), serde_json::Error> {
    struct Entries<F>(F);
    impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for Entries<F> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<Key<'de>>()? {
                (self.0)(key.0, map.next_value()?);
            }
            Ok(())
        }
    }
    if json.is_empty() {
        return Ok(());
    }
    serde_json::Deserializer::from_str(json).deserialize_map(Entries(each))
}

/// An object key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The raw values of `keys` at the top of the object `json`, in the order of `keys`.
pub fn pick<'a, const N: usize>(json: &'a str, keys: [&str; N]) -> [Option<&'a str>; N] {
    let mut found = [None; N];
    let walked = for_each_entry(json, |key, value| {
        if let Some(slot) = keys.iter().position(|k| *k == key)
            && let Some(place) = found.get_mut(slot)
        {
            *place = Some(value.get());
        }
    });
    // Stored JSON was parsed once already; anything else counts as having none of the keys.
    if walked.is_err() { [None; N] } else { found }
}

/// The text of a JSON string; `None` for any other kind of value.
pub fn string(raw: &str) -> Option<String> {
    raw.starts_with('"').then(|| serde_json::from_str(raw).ok()).flatten()
}

/// A JSON string's text or a number's literal digits (T12); `None` for any other kind of value.
pub fn string_or_digits(raw: &str) -> Option<String> {
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).ok(),
        Some(b'-' | b'0'..=b'9') => Some(raw.to_owned()),
        _ => None,
    }
}

/// `text` as a JSON string literal.
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::pick;

    #[test]
    fn the_last_of_two_equal_keys_wins() {
        assert_eq!(pick(r#"{"a":1,"b":{"a":2},"a":3}"#, ["a", "c"]), [Some("3"), None]);
        assert_eq!(pick(r#"{"\u0061":1}"#, ["a"]), [Some("1")]);
        assert_eq!(pick("", ["a"]), [None]);
    }
}
