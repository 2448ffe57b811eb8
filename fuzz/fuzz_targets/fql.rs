//! Whatever a filter is: it is read or refused, and asked of an event without a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use personas::engine::fql::Fql;

fuzz_target!(|text: &str| {
    if let Ok(filter) = Fql::parse(text) {
        let event = serde_json::json!({
            "type": "track", "event": "Order", "userId": "u1", "properties": {"total": 12.5, "tags": ["a", null], "x": {"y": "z"}},
            "context": {"traits": {"email": "a@b.c"}},
        });
        let _ = filter.matches(&event);
    }
});
