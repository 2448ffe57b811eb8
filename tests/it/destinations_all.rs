//! Subscriptions to all, and values that go away: with another version of a computed trait, with its deletion, with a rebuild.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::app::TestApp;
use crate::harness::destinations::{DESTINATIONS, sending};
use crate::harness::rebuild::{json_of, run};
use crate::harness::receiver::Receiver;

const BUYERS: &str = "event('Bought').count() >= 1";
const SPACE: &str = "/v1/spaces/default";

async fn start() -> TestApp {
    sending().at("2024-03-01T12:00:00Z").start().await
}

async fn bought(app: &TestApp, user: &str) {
    app.processed("/v1/track", json!({"userId": user, "event": "Bought", "properties": {"total": 10}})).await;
}

/// The traits that the receiver has of everybody by now.
fn known(receiver: &Receiver) -> BTreeMap<String, BTreeMap<String, Value>> {
    let mut all: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    for event in receiver.taken() {
        let who = ["userId", "anonymousId", "groupId"].into_iter().find_map(|field| event[field].as_str());
        let traits = event["traits"].as_object().unwrap().clone();
        all.entry(who.unwrap().to_owned()).or_default().extend(traits);
    }
    all
}

/// Waits until these are the traits that the receiver has of somebody.
#[track_caller]
fn expect_known<'a>(receiver: &'a Receiver, of: &'a str, expected: Value) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let mut seen = Value::Null;
        for _ in 0..1_000 {
            seen = json!(known(receiver).get(of));
            if seen == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{of} at {caller}: {seen}, not {expected}");
    }
}

async fn edit(app: &TestApp, path: &str, key: &str, query: &str) {
    let body = json!({"definition": {"type": "users", "query": query}});
    app.patch(&format!("{SPACE}/{path}/{key}"), body).await.expect(200);
    app.live(path, key).await;
}

#[tokio::test]
async fn a_subscription_to_all_takes_in_what_is_new_and_leaves_out_what_has_its_own() {
    let (app, receiver) = (start().await, Receiver::start().await);
    app.make_live("audiences", "buyers", BUYERS).await;
    app.make_live("computed-traits", "purchases", "event('Bought').count()").await;
    let accounts =
        json!({"key": "active", "definition": {"type": "accounts", "query": format!("ANY {BUYERS}")}});
    app.make_live_from("audiences", "active", accounts).await;
    app.processed("/v1/group", json!({"userId": "u1", "groupId": "g1"})).await;
    bought(&app, "u1").await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    let all = app.subscribe(&hook, json!({"subject": "audience", "key": "*"})).await;
    assert_eq!((&all["key"], &all["collection"]), (&json!("*"), &json!("users")));
    app.subscribe(&hook, json!({"subject": "computed_trait", "key": "*"})).await;
    expect_known(&receiver, "u1", json!({"buyers": true, "purchases": 1})).await;

    app.make_live("audiences", "fans", BUYERS).await;
    app.make_live("computed-traits", "spent", "event('Bought').sum(property('total'))").await;
    let expected = json!({"buyers": true, "fans": true, "purchases": 1, "spent": 10});
    expect_known(&receiver, "u1", expected).await;
    bought(&app, "u1").await;
    let expected = json!({"buyers": true, "fans": true, "purchases": 2, "spent": 20});
    expect_known(&receiver, "u1", expected).await;

    // One that is switched off leaves its audience out; without it, that is told again.
    let own = app.subscribe(&hook, json!({"subject": "audience", "key": "buyers", "enabled": false})).await;
    bought(&app, "u2").await;
    let expected = json!({"fans": true, "purchases": 1, "spent": 10});
    expect_known(&receiver, "u2", expected).await;
    let path = format!("{DESTINATIONS}/{}/subscriptions", hook["id"].as_str().unwrap());
    app.delete(&format!("{path}/{}", own["id"].as_str().unwrap())).await.expect(204);
    let expected = json!({"buyers": true, "fans": true, "purchases": 1, "spent": 10});
    expect_known(&receiver, "u2", expected).await;

    edit(&app, "audiences", "fans", "event('Bought').count() >= 2").await;
    app.delete(&format!("{SPACE}/audiences/buyers")).await.expect(204);
    let expected = json!({"buyers": false, "fans": false, "purchases": 1, "spent": 10});
    expect_known(&receiver, "u2", expected).await;
    assert!(!known(&receiver).contains_key("g1"), "accounts are others");
    app.subscribe(&hook, json!({"subject": "audience", "key": "*", "collection": "accounts"})).await;
    expect_known(&receiver, "g1", json!({"active": true})).await;

    let list = app.get(&path).await.expect(200).json;
    let keys: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|s| &s["key"]).collect();
    assert_eq!(keys, ["*", "*", "*"]);
    assert!(list["data"].as_array().unwrap().iter().all(|s| s["sync"]["status"] == "done"), "{list}");
    app.post(&path, json!({"subject": "audience", "key": "*"})).await.expect(409);
    let body = json!({"subject": "audience", "key": "fans", "collection": "users"});
    let refused = app.post(&path, body).await.expect_problem(422, "invalid");
    assert_eq!(refused.json["field"], "collection");
    let before = receiver.count();
    app.act(&hook, "resync", json!({})).await;
    // u1: fans; both: purchases, spent; g1: active.
    receiver.wait(|r| (r.count() == before + 6).then_some(())).await;
}

#[tokio::test]
async fn a_value_that_another_version_does_not_have_is_null_and_so_are_those_of_a_deleted_trait() {
    let (app, receiver) = (start().await, Receiver::start().await);
    app.make_live("computed-traits", "spent", "event('Bought').sum(property('total'))").await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    app.subscribe(&hook, json!({"subject": "computed_trait", "key": "spent"})).await;
    for user in ["u1", "u2", "u3"] {
        bought(&app, user).await;
        expect_known(&receiver, user, json!({"spent": 10})).await;
    }
    app.wait_sent(&hook).await;
    app.act(&hook, "pause", json!({})).await;
    edit(&app, "computed-traits", "spent", "event('Donated').sum(property('total'))").await;
    // So many events that its row is tidied: what the version before said must not be forgotten by that.
    let seen = json!({"type": "track", "userId": "u1", "event": "Seen"});
    app.processed("/v1/batch", json!({"batch": vec![seen; 600]})).await;
    let donated = json!({"userId": "u2", "event": "Donated", "properties": {"total": 3}});
    app.processed("/v1/track", donated).await;
    // Two versions while nobody was told of the first.
    edit(&app, "computed-traits", "spent", "event('Donated').max(property('total'))").await;
    app.act(&hook, "resume", json!({})).await;
    expect_known(&receiver, "u1", json!({"spent": null})).await;
    expect_known(&receiver, "u2", json!({"spent": 3})).await;
    expect_known(&receiver, "u3", json!({"spent": null})).await;
    app.wait_sent(&hook).await;
    let told = receiver.taken().iter().filter(|event| event["userId"] == "u3").count();
    assert_eq!(told, 2, "once each");
    app.delete(&format!("{SPACE}/computed-traits/spent")).await.expect(204);
    expect_known(&receiver, "u2", json!({"spent": null})).await;
    let sent = app.wait_sent(&hook).await;
    assert_eq!(sent["deliveries"]["filtered"], 0);
    // What was kept for that is forgotten.
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM destination_sync").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_rebuild_tells_what_is_another_value_and_what_went_away() {
    let (app, receiver) = (start().await, Receiver::start().await);
    app.make_live("audiences", "buyers", BUYERS).await;
    app.make_live("computed-traits", "spent", "event('Bought').sum(property('total'))").await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    for subject in ["audience", "computed_trait"] {
        app.subscribe(&hook, json!({"subject": subject, "key": "*"})).await;
    }
    app.subscribe(&hook, json!({"subject": "custom_traits"})).await;
    let external = json!([{"id": "shared", "type": "ios.id", "collection": "users", "encoding": "none"}]);
    let context = json!({"externalIds": external});
    let email = |n: usize| json!({"email": format!("u{n}@example.com")});
    for call in [
        json!({"type": "identify", "userId": "u1", "traits": {"email": "u1@example.com", "size": 9}, "context": context}),
        json!({"type": "identify", "anonymousId": "a1", "traits": {"plan": "pro"}, "context": context}),
        json!({"type": "track", "anonymousId": "a1", "event": "Bought", "properties": {"total": 10}, "context": context}),
        json!({"type": "identify", "userId": "u2", "traits": email(2)}),
    ] {
        app.processed("/v1/batch", json!({"batch": [call]})).await;
    }
    let whole = json!({"email": "u1@example.com", "size": 9, "plan": "pro", "buyers": true, "spent": 10});
    expect_known(&receiver, "u1", whole).await;
    let before = app.wait_sent(&hook).await["deliveries"]["succeeded"].as_i64().unwrap();
    let blocked =
        json!({"identifiers": [{"type": "ios.id", "blocked": {"exact": ["shared"], "patterns": []}}]});
    app.patch(&format!("{SPACE}/identity/settings"), blocked).await.expect(200);
    json_of(&run(&app.db, &["--json"]).await);
    let left = json!({"email": "u1@example.com", "size": 9, "plan": null, "buyers": false, "spent": null});
    expect_known(&receiver, "u1", left).await;
    // Definitions are about known people.
    expect_known(&receiver, "a1", json!({"plan": "pro"})).await;
    let after = app.wait_sent(&hook).await["deliveries"]["succeeded"].as_i64().unwrap();
    assert_eq!(after - before, 4, "nothing else is told");
}
