//! What templates see.
//!
//! Of a change: `event` (the call), `values` (its traits or properties), `personas` (its `context.personas`), `user_id`,
//! `anonymous_id`, `group_id` and `email` where there are any, `id` (the same for all attempts), `profile_id`, `at` (RFC
//! 3339), `at_s` and `at_ms` (since 1970). Of a batch: the same of its first change, and of each in `items`. Beside them:
//! `options` and `secrets`. Of an answer: `status`, `body`, and `json` where the body is JSON.

use std::collections::BTreeMap;

use minijinja::Value as Seen;
use serde_json::{Map, Value, json};

use crate::deliver::kind::{Answer, Item};
use crate::domain::{ProfileNo, Timestamp};

/// Changes, options and secrets.
pub(super) fn of(
    items: &[Item],
    options: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, String>,
) -> Seen {
    let items: Vec<Map<String, Value>> = items.iter().map(of_item).collect();
    let mut context = items.first().cloned().unwrap_or_default();
    context.insert("items".to_owned(), items.into_iter().map(Value::Object).collect());
    context.insert("options".to_owned(), json!(options));
    context.insert("secrets".to_owned(), json!(secrets));
    Seen::from(minijinja::value::Serde(Value::Object(context)))
}

/// A change to try templates on.
pub(super) fn sample() -> Item {
    Item {
        id: "dlv_0".to_owned(),
        profile: ProfileNo(1),
        profile_id: "prf_0".to_owned(),
        at: Timestamp::EPOCH,
        attempts: 0,
        event: json!({
            "type": "track", "event": "Audience Entered", "userId": "u", "anonymousId": "a", "groupId": "g",
            "traits": {"key": true, "email": "e@x.example"}, "properties": {"audience_key": "key", "key": true},
            "context": {"personas": {"computation_class": "audience", "computation_key": "key"}},
        }),
    }
}

fn of_item(item: &Item) -> Map<String, Value> {
    let event = &item.event;
    let traits = event.get("traits");
    let context_traits = event.pointer("/context/traits");
    let fields = [
        ("event", Some(event)),
        ("values", traits.or_else(|| event.get("properties"))),
        ("personas", event.pointer("/context/personas")),
        ("user_id", event.get("userId")),
        ("anonymous_id", event.get("anonymousId")),
        ("group_id", event.get("groupId")),
        ("email", [traits, context_traits].into_iter().flatten().find_map(|traits| traits.get("email"))),
    ];
    let there = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.clone())));
    let mut seen: Map<String, Value> = there.collect();
    let at = item.at.millis();
    for (name, value) in [
        ("id", json!(item.id)),
        ("profile_id", json!(item.profile_id)),
        ("at", json!(item.at.to_string())),
        ("at_s", json!(at.div_euclid(1_000))),
        ("at_ms", json!(at)),
    ] {
        seen.insert(name.to_owned(), value);
    }
    seen
}

/// An answer.
pub(super) fn of_answer(answer: &Answer) -> Seen {
    let json: Option<Value> = serde_json::from_str(&answer.body).ok();
    let mut seen = json!({"status": answer.status, "body": answer.body});
    if let (Some(seen), Some(json)) = (seen.as_object_mut(), json) {
        seen.insert("json".to_owned(), json);
    }
    Seen::from(minijinja::value::Serde(seen))
}
