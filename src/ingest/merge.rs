//! Batch-level `context` and `integrations` under each item's own: deep, and the item wins (decisions T9).

use serde_json::{Map, Value};

/// Merges two JSON objects; where both have a key and both values are objects they are merged in turn, else the
/// inner one stands. Something that is not an object loses against one that is.
pub(crate) fn deep_merge(outer: &str, inner: &str) -> String {
    let read = |text| serde_json::from_str::<Map<String, Value>>(text);
    match (read(outer), read(inner)) {
        (Ok(mut outer), Ok(inner)) => {
            merge_maps(&mut outer, inner);
            Value::Object(outer).to_string()
        }
        (Ok(_), Err(_)) => outer.to_owned(),
        _ => inner.to_owned(),
    }
}

fn merge_maps(outer: &mut Map<String, Value>, inner: Map<String, Value>) {
    for (key, value) in inner {
        match (outer.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => merge_maps(below, above),
            (_, value) => {
                outer.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::deep_merge;

    #[test]
    fn the_item_wins_key_by_key() {
        let merged = deep_merge(r#"{"a":{"x":1,"y":2},"b":1,"c":3}"#, r#"{"a":{"y":9},"b":{"z":1}}"#);
        assert_eq!(merged, r#"{"a":{"x":1,"y":9},"b":{"z":1},"c":3}"#);
    }
}
