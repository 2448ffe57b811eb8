//! Batch-level `context` and `integrations` under each item's own: deep, and the item wins (decisions T9).

use std::borrow::Cow;

use hashbrown::HashMap;

use crate::domain::json;

/// Merges two JSON objects; where both have a key and both values are objects they are merged in turn, else the
/// inner one stands. Something that is not an object loses against one that is. Values keep the text they have: a number
/// with all its digits.
pub(crate) fn deep_merge(outer: &str, inner: &str) -> String {
    match (is_object(outer), is_object(inner)) {
        (true, true) => merge_objects(outer, inner),
        (true, false) => outer.to_owned(),
        _ => inner.to_owned(),
    }
}

fn is_object(text: &str) -> bool {
    text.trim_ascii_start().starts_with('{')
}

fn merge_objects(outer: &str, inner: &str) -> String {
    let own = |(key, value)| (key, Cow::Borrowed(value));
    let mut merged: Vec<(Cow<'_, str>, Cow<'_, str>)> = json::last_of_each(json::entries(outer).map(own));
    let places: HashMap<Cow<'_, str>, usize> =
        merged.iter().enumerate().map(|(place, (key, _))| (key.clone(), place)).collect();
    for (key, value) in json::last_of_each(json::entries(inner)) {
        match places.get(&key).and_then(|place| merged.get_mut(*place)) {
            Some((_, below)) if is_object(below) && is_object(value) => {
                *below = Cow::Owned(merge_objects(below, value));
            }
            Some((_, below)) => *below = Cow::Borrowed(value),
            None => merged.push((key, Cow::Borrowed(value))),
        }
    }
    let members = merged.iter().map(|(key, value)| format!("{}:{value}", json::quote(key)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::deep_merge;

    #[test]
    fn the_item_wins_key_by_key() {
        let merged = deep_merge(r#"{"a":{"x":1,"y":2},"b":1,"c":3}"#, r#"{"a":{"y":9},"b":{"z":1}}"#);
        assert_eq!(merged, r#"{"a":{"x":1,"y":9},"b":{"z":1},"c":3}"#);
        assert_eq!(deep_merge("{\"a\":1}", "7"), "{\"a\":1}");
        assert_eq!(deep_merge("", "{\"a\":1}"), "{\"a\":1}");
    }

    #[test]
    fn numbers_and_odd_keys_keep_their_text() {
        let inner = r#"{"id":18446744073709551616,"big":9e308,"a\"b":"\u0000","twice":1,"twice":{"x":2}}"#;
        let merged = deep_merge(r#"{"id":18446744073709551617,"twice":{"y":1}}"#, inner);
        let expected = r#"{"id":18446744073709551616,"twice":{"y":1,"x":2},"big":9e308,"a\"b":"\u0000"}"#;
        assert_eq!(merged, expected);
    }
}
