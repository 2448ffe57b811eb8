//! Identifiers by strategy, enrichment, filter and field lists, and what is refused.

use serde_json::{Value, json};

use super::*;

fn choice(settings: &Value) -> Choice {
    Choice::parse(settings).expect("settings")
}

fn refused(settings: &Value) -> (String, String) {
    let Invalid { field, message } = Choice::parse(settings).expect_err("refused");
    (field, message)
}

const fn id<'a>(id_type: &'a str, value: &'a str, first_seen: i64) -> Identifier<'a> {
    Identifier { id_type, value, first_seen: Timestamp::from_millis(first_seen) }
}

const IDS: [Identifier<'_>; 6] = [
    id("email", "e1", 1),
    id("user_id", "u1", 2),
    id("email", "e3", 4),
    id("email", "e2", 3),
    id("anonymous_id", "a1", 1),
    id("crm", "c1", 5),
];

fn sent(settings: &Value, ids: &[Identifier<'static>]) -> Vec<String> {
    let choice = choice(settings);
    choice.identifiers(ids).iter().map(|c| format!("{}={}", c.id_type, c.values.join("+"))).collect()
}

#[test]
fn by_default_the_newest_of_the_usual_types() {
    assert_eq!(sent(&json!({}), &IDS), ["user_id=u1", "email=e3"]);
    assert_eq!(sent(&json!({}), &IDS[4..]), ["anonymous_id=a1"]);
    assert_eq!(sent(&json!({}), &[id("group_id", "g1", 1), id("group_id", "g2", 1)]), ["group_id=g2"]);
    assert_eq!(sent(&json!({}), &[]), Vec::<String>::new());
}

#[test]
fn id_sync_takes_first_last_or_all() {
    let sync = |strategy| json!({"id_sync": [{"type": "email", "strategy": strategy}, {"type": "phone", "strategy": "all"}]});
    assert_eq!(sent(&sync("first"), &IDS), ["email=e1"]);
    assert_eq!(sent(&sync("last"), &IDS), ["email=e3"]);
    assert_eq!(sent(&sync("all"), &IDS), ["email=e3+e2+e1"]);
    assert_eq!(sent(&sync("first"), &IDS[1..2]), Vec::<String>::new());
}

#[test]
fn traits_are_copied_and_never_over_the_change() {
    let choice =
        choice(&json!({"traits": ["plan", "first_name", {"trait": "ltv", "as": "value"}, "absent"]}));
    let Value::Object(traits) = json!({"plan": "pro", "firstName": "Ada", "ltv": 5, "secret": 1}) else {
        panic!()
    };
    let Value::Object(mut values) = json!({"plan": "free"}) else { panic!() };
    choice.enrich(&mut values, &traits);
    assert_eq!(Value::Object(values), json!({"plan": "free", "first_name": "Ada", "value": 5}));
}

#[test]
fn denied_fields_go_and_only_allowed_ones_stay() {
    let event = json!({
        "type": "identify", "messageId": "m", "userId": "u", "timestamp": "t",
        "traits": {"email": "e", "address": {"city": "c", "street": "s"}, "orders": [{"id": 1, "card": 2}], "a.b": 1},
        "context": {"personas": {"space_id": "spa_1"}, "traits": {"email": "e"}, "ip": "::1"},
        "integrations": {"All": false},
    });
    let restricted = |settings: Value| {
        let mut event = event.clone();
        choice(&settings).restrict(&mut event);
        event
    };
    assert_eq!(restricted(json!({})), event);
    assert_eq!(
        restricted(
            json!({"deny": ["traits.address.street", "traits.orders.card", "context.ip", r"traits.a\.b", "x.y", "userId"]})
        ),
        json!({
            "type": "identify", "messageId": "m", "timestamp": "t",
            "traits": {"email": "e", "address": {"city": "c"}, "orders": [{"id": 1}]},
            "context": {"personas": {"space_id": "spa_1"}, "traits": {"email": "e"}},
            "integrations": {"All": false},
        })
    );
    assert_eq!(
        restricted(
            json!({"allow": ["traits.email", "traits.orders.id", "traits.address", "context.ip.deep"], "deny": ["traits.address.city"]})
        ),
        json!({
            "type": "identify", "messageId": "m", "userId": "u", "timestamp": "t",
            "traits": {"email": "e", "address": {"street": "s"}, "orders": [{"id": 1}]},
            "context": {"personas": {"space_id": "spa_1"}},
            "integrations": {"All": false},
        })
    );
}

#[test]
fn the_filter_sees_the_whole_event() {
    let choice = choice(&json!({"filter": "type = 'track' and properties.vip", "deny": ["properties.vip"]}));
    assert!(choice.lets_through(&json!({"type": "track", "properties": {"vip": true}})));
    assert!(!choice.lets_through(&json!({"type": "track", "properties": {"vip": false}})));
    assert!(!choice.lets_through(&json!({"type": "track", "properties": {"vip": "yes"}})));
}

#[test]
fn settings_are_judged_when_they_are_saved() {
    let entry = |id_type: &str, strategy: &str| json!({"type": id_type, "strategy": strategy});
    let many: Vec<Value> = (0..6).map(|n| entry(&format!("t{n}"), "last")).collect();
    let all: Vec<Value> = (0..4).map(|n| entry(&format!("t{n}"), "all")).collect();
    for (settings, field, message) in [
        (json!({"id_sync": many}), "id_sync", "at most 5"),
        (json!({"id_sync": all}), "id_sync", "at most 3"),
        (json!({"id_sync": [entry("E", "last")]}), "id_sync[0].type", "lower case"),
        (json!({"id_sync": [entry("e", "last"), entry("e", "all")]}), "id_sync[1].type", "listed twice"),
        (json!({"id_sync": [entry("e", "newest")]}), "data", "newest"),
        (
            json!({"id_sync": [{"type": "e", "strategy": "last", "map_to": "type"}]}),
            "id_sync[0].map_to",
            "cannot take",
        ),
        (
            json!({"id_sync": [{"type": "e", "strategy": "last", "mapTo": "context.personas.x"}]}),
            "id_sync[0].map_to",
            "cannot take",
        ),
        (json!({"filter": "type ="}), "filter", "line 1, column 7"),
        (json!({"allow": ["a..b"]}), "allow[0]", "no field"),
        (json!({"deny": ["x", "messageId"]}), "deny[1]", "always sent"),
        (json!({"traits": ["a", {"trait": "b", "as": "a"}]}), "traits[1]", "two traits"),
        (json!({"traits": [""]}), "traits[0]", "empty"),
        (json!({"surprise": 1}), "data", "surprise"),
    ] {
        let (found, told) = refused(&settings);
        assert_eq!(found, field);
        assert!(told.contains(message), "{told}");
    }
}
