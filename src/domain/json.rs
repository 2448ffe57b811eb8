//! Looking into raw JSON text without building a tree. Everywhere a key stands twice, the last one wins.
//!
//! The text comes from the event log or the trait store and is valid JSON; on anything else the functions
//! find nothing and never panic. Only [`for_each_entry`] takes text from outside, and checks it.

use std::borrow::Cow;
use std::fmt;

use hashbrown::HashMap;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The key–value pairs of a JSON object, in the order of the text, duplicates included.
///
/// Yields nothing when `text` is not an object.
pub fn entries(text: &str) -> Entries<'_> {
    let text = text.trim_ascii_start();
    Entries { rest: text.strip_prefix('{').unwrap_or("") }
}

/// Iterator of [`entries`].
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Entries<'a> {
    /// Unescaped key and raw text of the value.
    type Item = (Cow<'a, str>, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.step();
        if entry.is_none() {
            self.rest = "";
        }
        entry
    }
}

impl<'a> Entries<'a> {
    fn step(&mut self) -> Option<(Cow<'a, str>, &'a str)> {
        let rest = self.rest.trim_ascii_start();
        let rest = rest.strip_prefix(',').unwrap_or(rest).trim_ascii_start();
        let literal = string_literal(rest)?;
        let (key, rest) = rest.split_at_checked(literal.len)?;
        let key = if literal.escaped { unquote(key)? } else { Cow::Borrowed(key.get(1..key.len() - 1)?) };
        let rest = rest.trim_ascii_start().strip_prefix(':')?.trim_ascii_start();
        let value_len = value_len(rest)?;
        let (value, rest) = rest.split_at_checked(value_len)?;
        self.rest = rest;
        Some((key, value.trim_ascii_end()))
    }
}

/// The elements of a JSON list, raw, in order. Yields nothing when `text` is not a list.
pub fn elements(text: &str) -> Elements<'_> {
    let text = text.trim_ascii_start();
    Elements { rest: text.strip_prefix('[').unwrap_or("") }
}

/// Iterator of [`elements`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_ascii_start();
        let rest = rest.strip_prefix(',').unwrap_or(rest).trim_ascii_start();
        let (value, rest) = rest.split_at_checked(value_len(rest)?)?;
        self.rest = rest;
        Some(value.trim_ascii_end()).filter(|value| !value.is_empty())
    }
}

/// The raw value of `key` in a JSON object; of duplicate keys the last wins (decision T11).
pub fn get<'a>(object: &'a str, key: &str) -> Option<&'a str> {
    entries(object).filter(|(found, _)| found == key).last().map(|(_, value)| value)
}

/// The raw values of `keys` at the top of the object `json`, in the order of `keys`; of duplicate keys the last wins.
pub fn pick<'a, const N: usize>(json: &'a str, keys: [&str; N]) -> [Option<&'a str>; N] {
    let mut found = [None; N];
    for (key, value) in entries(json) {
        if let Some(place) = keys.iter().position(|k| *k == key).and_then(|slot| found.get_mut(slot)) {
            *place = Some(value);
        }
    }
    found
}

/// The text of a JSON string literal, without quotes and escapes.
pub fn unquote(literal: &str) -> Option<Cow<'_, str>> {
    let inner = literal.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(literal).ok().map(Cow::Owned)
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

/// Calls `each` with every entry of the JSON object in `json`, in the order they stand, checking the whole text: for
/// what comes from outside. An empty text is an empty object.
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
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.deserialize_map(Entries(each))?;
    deserializer.end()
}

/// As [`for_each_entry`] for text that is known to be valid JSON, which is much cheaper; false when it is no object,
/// or not one that can be walked through to its end.
pub fn for_each_entry_of_valid<'a>(json: &'a str, mut each: impl FnMut(Cow<'a, str>, &'a str)) -> bool {
    let mut entries = entries(json);
    while let Some((key, value)) = entries.step() {
        each(key, value);
    }
    entries.rest.trim_ascii() == "}"
}

/// An object key, borrowed where it has no escapes.
#[derive(Debug)]
pub struct Key<'a>(pub Cow<'a, str>);

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

/// Of entries with the same key the last one counts (decision T11); they stay in the order their keys first came.
pub fn last_of_each<'a, V>(entries: impl Iterator<Item = (Cow<'a, str>, V)>) -> Vec<(Cow<'a, str>, V)> {
    let mut places: HashMap<Cow<'a, str>, usize> = HashMap::new();
    let mut kept: Vec<(Cow<'a, str>, V)> = Vec::with_capacity(entries.size_hint().0);
    for (key, value) in entries {
        if let Some((_, known)) = places.get(&key).and_then(|place| kept.get_mut(*place)) {
            *known = value;
        } else {
            places.insert(key.clone(), kept.len());
            kept.push((key, value));
        }
    }
    kept
}

/// The text as a JSON string literal.
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The same JSON without white space between its tokens.
pub fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '"' => string_len(rest).unwrap_or(rest.len()),
            _ => c.len_utf8(),
        };
        let (token, tail) = rest.split_at_checked(len).unwrap_or((rest, ""));
        if !c.is_ascii_whitespace() {
            out.push_str(token);
        }
        rest = tail;
    }
    out
}

/// A string literal at the start of a text.
#[derive(Debug, Clone, Copy)]
struct StringLiteral {
    /// In bytes, quotes included.
    len: usize,
    /// Whether there are escapes in it.
    escaped: bool,
}

/// The string literal at the start of `text`.
fn string_literal(text: &str) -> Option<StringLiteral> {
    /// Most keys and many values are shorter: for them the set-up of a vectorised search costs more than it saves.
    const SHORT: usize = 24;
    let bytes = text.as_bytes();
    let (b'"', rest) = bytes.split_first()? else { return None };
    let mut at = 1;
    for byte in rest.iter().take(SHORT) {
        match byte {
            b'"' => return Some(StringLiteral { len: at + 1, escaped: false }),
            b'\\' => break,
            _ => at += 1,
        }
    }
    let mut escaped = false;
    loop {
        let found = at + memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes.get(found) == Some(&b'"') {
            return Some(StringLiteral { len: found + 1, escaped });
        }
        escaped = true;
        at = found + 2;
    }
}

/// Length of the string literal, quotes included, at the start of `text`.
fn string_len(text: &str) -> Option<usize> {
    string_literal(text).map(|literal| literal.len)
}

/// Length of the JSON value at the start of `text`: up to the comma or bracket that ends it.
pub fn value_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    match bytes.first()? {
        b'"' => return string_len(text),
        b'{' | b'[' => {}
        _ => return bytes.iter().position(|byte| matches!(byte, b',' | b'}' | b']')).or(Some(bytes.len())),
    }
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += string_len(text.get(at..)?)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_raw_values() {
        let text = r#" { "a" : 1 , "b":{"c":[1,{"d":"}\""}], "e":"x,y"}, "\u0061": 2.50, "é":null } "#;
        let found: Vec<(String, &str)> = entries(text).map(|(k, v)| (k.into_owned(), v)).collect();
        assert_eq!(
            found,
            [
                ("a".to_owned(), "1"),
                ("b".to_owned(), r#"{"c":[1,{"d":"}\""}], "e":"x,y"}"#),
                ("a".to_owned(), "2.50"),
                ("é".to_owned(), "null"),
            ]
        );
        assert_eq!(get(text, "a"), Some("2.50"), "duplicate keys: last wins");
        assert_eq!(entries("[1]").count(), 0);
        assert_eq!(entries("").count(), 0);
        let mut keys = Vec::new();
        assert!(for_each_entry_of_valid(text, |key, _| keys.push(key)));
        assert_eq!(keys, ["a", "b", "a", "é"]);
        assert!(for_each_entry_of_valid(" { } ", |_, _| panic!("nothing is in it")));
        for other in ["[1]", "\"{}\"", "", "1", r#"{"\ud800":1}"#, r#"{"a":1"#, r#"{"a":1}}"#] {
            assert!(!for_each_entry_of_valid(other, |_, _| {}), "{other}");
        }
    }

    #[test]
    fn walks_through_lists() {
        let all = |text| elements(text).collect::<Vec<_>>();
        assert_eq!(
            all(r#" [ 1 , "a,]" ,{"b":[2]}, [ ] ,null] "#),
            ["1", r#""a,]""#, r#"{"b":[2]}"#, "[ ]", "null"]
        );
        for nothing in ["[]", " [ ] ", "", "{}", r#"{"a":[1]}"#, "5", "\"[1]\"", "[", "[,"] {
            assert_eq!(all(nothing), Vec::<&str>::new(), "{nothing}");
        }
    }

    #[test]
    fn pick_takes_the_last_of_two_equal_keys() {
        assert_eq!(pick(r#"{"a":1,"b":{"a":2},"a":3}"#, ["a", "c"]), [Some("3"), None]);
        assert_eq!(pick(r#"{"\u0061":1}"#, ["a"]), [Some("1")]);
        assert_eq!(pick("", ["a"]), [None]);
    }

    #[test]
    fn compacts_outside_of_strings() {
        assert_eq!(compact(" [ 1 , \"a \\\" b\" ]\n"), r#"[1,"a \" b"]"#);
    }

    proptest! {
        #[test]
        fn agrees_with_a_full_parser(pairs in prop::collection::vec((".{0,8}", ".{0,8}"), 0..8)) {
            let text = format!(
                "{{{}}}",
                pairs.iter().map(|(k, v)| format!("{}:[{}]", quote(k), quote(v))).collect::<Vec<_>>().join(", ")
            );
            let full: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).expect("valid");
            for (key, value) in &full {
                let raw = get(&text, key).expect("found");
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(raw).expect("valid"), value);
            }
        }

        #[test]
        fn never_panics(text in "[\\{\\}\\[\\]\",:\\\\a1é ]{0,40}") {
            let _ = entries(&text).count();
            let _ = elements(&text).count();
            let _ = compact(&text);
        }
    }
}
