//! Events with more of something than anybody has: they are taken, what is too much is told, and none of it is slow in a
//! way that grows with its square.

use serde_json::{Map, Value, json};

use crate::harness::app::{TestApp, Wish};

const SPACE: &str = "/v1/spaces/default";
const USERS: &str = "/v1/spaces/default/collections/users/profiles";

fn object(prefix: &str, entries: usize) -> Map<String, Value> {
    (0..entries).map(|n| (format!("{prefix}{n}"), json!(n))).collect()
}

async fn warnings(app: &TestApp, code: &str) -> Vec<String> {
    let listed = app.get(&format!("{SPACE}/rejected-events?code={code}")).await.expect(200).json;
    let rows = listed["data"].as_array().unwrap();
    rows.iter().map(|row| row["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_call_with_thousands_of_keys_is_kept_as_it_was() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    let mut item = object("top", 1_500);
    let own = json!({"type": "track", "userId": "u", "event": "E", "context": object("own", 200)});
    item.extend(own.as_object().unwrap().clone());
    let mut shared = object("shared", 1_000);
    shared.extend(object("own", 100));
    // A batch's context goes under that of every item.
    let batch = json!({"batch": vec![item; 5], "context": shared});
    let answer = app.track("/v1/batch", batch).await.expect(200);
    assert_eq!(answer.json, json!({"success": true}));
    let path = format!("{USERS}/user_id:u/events?limit=1&min_offset={}", answer.offset());
    let event = &app.get(&path).await.expect(200).json["data"][0];
    assert_eq!(event["context"].as_object().unwrap().len(), 1_200);
    assert_eq!((&event["context"]["shared7"], &event["context"]["own7"]), (&json!(7), &json!(7)));
}

#[tokio::test]
async fn of_many_identifiers_the_most_trusted_ones_count() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    // Two people, of whom each has as many e-mail addresses as a profile may have.
    let external = |n: usize| json!({"id": format!("e{n}@x.y"), "type": "email", "collection": "users", "encoding": "none"});
    for user in 0..2 {
        let emails: Vec<Value> = (user * 5..user * 5 + 5).map(external).collect();
        let body = json!({"userId": format!("u{user}"), "event": "E", "context": {"externalIds": emails}});
        app.track("/v1/track", body).await.expect(200);
    }
    let emails: Vec<Value> = (0..250).map(external).collect();
    let body = json!({"userId": "u0", "event": "Crowded", "context": {"externalIds": emails}});
    let offset = app.track("/v1/track", body).await.expect(200).offset();
    let ids =
        app.get(&format!("{USERS}/user_id:u0/external_ids?limit=200&min_offset={offset}")).await.expect(200);
    assert_eq!(ids.json["data"].as_array().unwrap().len(), 6, "{}", ids.text);
    let ids = app.get(&format!("{USERS}/user_id:u1/external_ids?limit=200")).await.expect(200);
    assert_eq!(ids.json["data"].as_array().unwrap().len(), 6, "{}", ids.text);
    let told = warnings(&app, "too_many_identifiers").await;
    assert!(matches!(told.as_slice(), [one] if one.contains("151")), "{told:?}");
}

#[tokio::test]
async fn an_identifier_of_the_wrong_collection_is_told() {
    let app = TestApp::start().await;
    let external = |kind: &str, collection: &str| json!({"id": "x", "type": kind, "collection": collection, "encoding": "none"});
    let body = json!({"userId": "u", "event": "E",
        "context": {"externalIds": [external("crm_id", "accounts"), external("email", "users")]}});
    let offset = app.track("/v1/track", body).await.expect(200).offset();
    let ids = app.get(&format!("{USERS}/user_id:u/external_ids?min_offset={offset}")).await.expect(200);
    assert_eq!(ids.json["data"].as_array().unwrap().len(), 2, "{}", ids.text);
    assert_eq!(warnings(&app, "external_id_misplaced").await.len(), 1);
}

#[tokio::test]
async fn traits_that_are_not_taken_are_told_once_for_each_reason() {
    let app = Wish::default().option("ingest.traits_max", "10000").start().await;
    let long = |n: usize| format!("{n}{}", "x".repeat(300));
    let mut traits: Map<String, Value> = (0..20).map(|n| (long(n), json!(1))).collect();
    traits.insert("plan".into(), json!("pro"));
    app.track("/v1/identify", json!({"userId": "u", "traits": traits})).await.expect(200);
    // As many as a profile may have, and some more, in two calls.
    let mut offset = 0;
    for from in [0, 2_000, 4_000] {
        let traits: Map<String, Value> = (from..from + 2_000).map(|n| (format!("k{n}"), json!(1))).collect();
        offset =
            app.track("/v1/identify", json!({"userId": "u", "traits": traits})).await.expect(200).offset();
    }
    let path = format!("{SPACE}/audiences/sizes?min_offset={offset}");
    app.get(&path).await.expect(200);
    let told = warnings(&app, "trait_name_invalid").await;
    assert!(matches!(told.as_slice(), [one] if one.contains("19 others")), "{told:?}");
    let told = warnings(&app, "too_many_profile_traits").await;
    // `plan` is one of the five thousand.
    assert!(matches!(told.as_slice(), [one] if one.contains("\"k4999\" and 1000 others")), "{told:?}");
}
