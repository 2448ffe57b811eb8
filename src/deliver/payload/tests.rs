//! Each payload of personas.md 7.2 as it is sent, and how many calls there are (7.3, under decisions.md).

use serde_json::{Map, Value, json};

use super::*;

const fn id<'a>(id_type: &'a str, value: &'a str, first_seen: i64) -> Identifier<'a> {
    Identifier { id_type, value, first_seen: Timestamp::from_millis(first_seen) }
}

const USER: [Identifier<'_>; 4] = [
    id("user_id", "u123", 1),
    id("email", "old@x.example", 2),
    id("email", "new@x.example", 3),
    id("crm", "c9", 4),
];

const ENTERED: Change<'_> = Change::Audience { id: "aud_1", key: "first_time_shopper", is_member: true };
const EXITED: Change<'_> = Change::Audience { id: "aud_1", key: "first_time_shopper", is_member: false };

fn built_with(
    change: Change<'_>,
    call: &Call,
    (collection, identifiers): (Collection, &[Identifier<'_>]),
    settings: &Value,
) -> Option<Value> {
    let traits = Map::from_iter([("plan".to_owned(), json!("pro"))]);
    let subject = Subject { collection, profile_id: "prf_1", identifiers, traits: &traits };
    let at = Timestamp::parse("2026-01-02T03:04:05.678Z").expect("time");
    let envelope = Envelope {
        message_id: "dlv_1",
        at,
        space_id: "spa_1",
        destination: "Mail Tool",
        purpose: None,
        requires_human_review: false,
    };
    build(change, call, subject, envelope, &Choice::parse(settings).expect("settings"))
}

fn built(change: Change<'_>, call: &Call) -> Value {
    built_with(change, call, (Collection::Users, &USER), &json!({})).expect("let through")
}

fn track() -> Call {
    Call::Track(EventNames::default())
}

/// An event without what is the same in all of them, which is checked here.
fn core(mut event: Value) -> Value {
    let object = event.as_object_mut().expect("object");
    assert_eq!(object.remove("messageId"), Some(json!("dlv_1")));
    assert_eq!(object.remove("timestamp"), Some(json!("2026-01-02T03:04:05.678Z")));
    assert_eq!(object.remove("integrations"), Some(json!({"All": false, "Mail Tool": true})));
    event
}

fn personas(class: &str, id: &str, key: &str) -> Value {
    json!({
        "computation_class": class, "computation_id": id, "computation_key": key,
        "namespace": "spa_1", "space_id": "spa_1", "profile_id": "prf_1",
    })
}

fn bare_personas() -> Value {
    json!({"namespace": "spa_1", "space_id": "spa_1", "profile_id": "prf_1"})
}

#[test]
fn an_audience_as_identify() {
    let expected = |is_member: bool| {
        json!({
            "type": "identify", "userId": "u123",
            "traits": {"first_time_shopper": is_member, "email": "new@x.example"},
            "context": {"personas": personas("audience", "aud_1", "first_time_shopper")},
        })
    };
    assert_eq!(core(built(ENTERED, &Call::Identify)), expected(true));
    assert_eq!(core(built(EXITED, &Call::Identify)), expected(false));
}

#[test]
fn an_audience_as_track() {
    let expected = |name: &str, is_member: bool| {
        json!({
            "type": "track", "event": name, "userId": "u123",
            "properties": {"audience_key": "first_time_shopper", "first_time_shopper": is_member},
            "context": {
                "personas": personas("audience", "aud_1", "first_time_shopper"),
                "traits": {"email": "new@x.example"},
            },
        })
    };
    assert_eq!(core(built(ENTERED, &track())), expected("Audience Entered", true));
    assert_eq!(core(built(EXITED, &track())), expected("Audience Exited", false));
    let renamed =
        EventNames { entered: "In".to_owned(), exited: "Out".to_owned(), computed: "New".to_owned() };
    assert_eq!(core(built(EXITED, &Call::Track(renamed))), expected("Out", false));
}

#[test]
fn a_computed_trait_as_identify_and_track() {
    let value = json!(450.0);
    let change = Change::ComputedTrait { id: "tra_1", key: "total_revenue_180_days", value: &value };
    assert_eq!(
        core(built(change, &Call::Identify)),
        json!({
            "type": "identify", "userId": "u123",
            "traits": {"total_revenue_180_days": 450.0, "email": "new@x.example"},
            "context": {"personas": personas("trait", "tra_1", "total_revenue_180_days")},
        })
    );
    assert_eq!(
        core(built(change, &track())),
        json!({
            "type": "track", "event": "Trait Computed", "userId": "u123",
            "properties": {"trait_key": "total_revenue_180_days", "total_revenue_180_days": 450.0},
            "context": {
                "personas": personas("trait", "tra_1", "total_revenue_180_days"),
                "traits": {"email": "new@x.example"},
            },
        })
    );
    let gone = Change::ComputedTrait { id: "tra_1", key: "total", value: &Value::Null };
    assert_eq!(built(gone, &Call::Identify)["traits"]["total"], Value::Null);
}

#[test]
fn an_account_as_group_whatever_the_call() {
    let account = (Collection::Accounts, [id("group_id", "g1", 1)]);
    for call in [Call::Identify, track()] {
        let event = built_with(ENTERED, &call, (account.0, &account.1), &json!({})).expect("let through");
        assert_eq!(
            core(event),
            json!({
                "type": "group", "groupId": "g1", "traits": {"first_time_shopper": true},
                "context": {"personas": personas("audience", "aud_1", "first_time_shopper")},
            })
        );
    }
}

#[test]
fn custom_traits_merges_and_deletions() {
    let traits = Map::from_iter([("plan".to_owned(), json!("pro")), ("age".to_owned(), Value::Null)]);
    assert_eq!(
        core(built(Change::CustomTraits(&traits), &track())),
        json!({
            "type": "identify", "userId": "u123", "traits": {"plan": "pro", "age": null, "email": "new@x.example"},
            "context": {"personas": bare_personas()},
        })
    );
    assert_eq!(
        core(built(Change::Separation { from: "prf_2" }, &Call::Identify)),
        json!({
            "type": "track", "event": "Profile Separated", "userId": "u123",
            "properties": {"profile_id": "prf_1", "separated_from_profile_id": "prf_2"},
            "context": {"traits": {"email": "new@x.example"}, "personas": bare_personas()},
        })
    );
    assert_eq!(
        core(built(Change::Merge { merged: "prf_2" }, &Call::Identify)),
        json!({
            "type": "track", "event": "Profile Merged", "userId": "u123",
            "properties": {"profile_id": "prf_1", "merged_profile_id": "prf_2"},
            "context": {"personas": bare_personas(), "traits": {"email": "new@x.example"}},
        })
    );
    let mut personas = bare_personas();
    personas["former_profile_ids"] = json!([]);
    assert_eq!(
        core(built(Change::Delete { former: &[] }, &Call::Identify)),
        json!({
            "type": "delete", "userId": "u123",
            "context": {"personas": personas, "traits": {"email": "new@x.example"}},
        })
    );
}

#[test]
fn one_call_carries_the_identifiers_of_the_choice() {
    // EM-1: u1, e1 and e2 without ID Sync: one call with the newest of each.
    let ids = [id("user_id", "u1", 1), id("email", "e1", 1), id("email", "e2", 2)];
    let event = |change, ids: &[Identifier<'_>], settings: &Value| {
        built_with(change, &Call::Identify, (Collection::Users, ids), settings).expect("let through")
    };
    let entered = event(ENTERED, &ids, &json!({}));
    assert_eq!((&entered["userId"], &entered["traits"]["email"]), (&json!("u1"), &json!("e2")));
    // EM-2: with email=last only e2 is named.
    let last = json!({"id_sync": [{"type": "email", "strategy": "last"}]});
    let entered = event(ENTERED, &ids, &last);
    assert_eq!((entered.get("userId"), &entered["traits"]["email"]), (None, &json!("e2")));
    // EM-3: exits follow ID Sync as well.
    let exited = event(EXITED, &ids, &last);
    assert_eq!((exited.get("userId"), &exited["traits"]["email"]), (None, &json!("e2")));
    // EM-4: no change, no call: there is no change that says so. EM-5: told again, it carries the new e-mail.
    let more = [ids[0], ids[1], ids[2], id("email", "e3", 3)];
    assert_eq!(event(ENTERED, &more, &json!({}))["traits"]["email"], json!("e3"));
}

#[test]
fn all_values_are_listed_and_mapped_ones_go_where_they_are_wanted() {
    let settings = json!({"id_sync": [
        {"type": "email", "strategy": "all"}, {"type": "user_id", "strategy": "first"}, {"type": "crm", "strategy": "last"},
    ]});
    let event = built_with(ENTERED, &track(), (Collection::Users, &USER), &settings).expect("let through");
    let external = |id: &str, id_type: &str| json!({"id": id, "type": id_type, "collection": "users", "encoding": "none"});
    assert_eq!(
        event["context"]["externalIds"],
        json!([
            external("new@x.example", "email"),
            external("old@x.example", "email"),
            external("c9", "crm")
        ])
    );
    assert_eq!(event["context"]["traits"]["email"], "new@x.example");
    let settings = json!({"id_sync": [
        {"type": "email", "strategy": "all", "map_to": "traits.mails"},
        {"type": "crm", "strategy": "last", "map_to": "userId"},
        {"type": "user_id", "strategy": "last", "map_to": "context.device.owner"},
    ]});
    let track = built_with(ENTERED, &track(), (Collection::Users, &USER), &settings).expect("let through");
    assert_eq!(track["userId"], "c9");
    assert_eq!(track["properties"]["mails"], json!(["new@x.example", "old@x.example"]));
    assert_eq!(track["context"]["device"], json!({"owner": "u123"}));
    assert_eq!(track["context"].get("externalIds"), None);
    let identify =
        built_with(ENTERED, &Call::Identify, (Collection::Users, &USER), &settings).expect("let through");
    assert_eq!(identify["traits"]["mails"], json!(["new@x.example", "old@x.example"]));
}

#[test]
fn enrichment_filter_and_field_lists_apply() {
    let settings = json!({"traits": ["plan"], "filter": "traits.plan = 'pro'", "deny": ["traits.email"]});
    let event = built_with(ENTERED, &Call::Identify, (Collection::Users, &USER), &settings);
    assert_eq!(event.expect("let through")["traits"], json!({"first_time_shopper": true, "plan": "pro"}));
    assert_eq!(built_with(ENTERED, &track(), (Collection::Users, &USER), &settings), None);
    let settings = json!({"traits": ["plan"]});
    let event = built_with(ENTERED, &track(), (Collection::Users, &USER), &settings).expect("let through");
    assert_eq!(event["properties"]["plan"], "pro");
    let deleted = built_with(Change::Delete { former: &[] }, &track(), (Collection::Users, &USER), &settings)
        .expect("let through");
    assert_eq!(deleted.get("traits"), None);
}
