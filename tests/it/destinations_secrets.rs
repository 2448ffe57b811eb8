//! The key that secrets of destinations are encrypted with: it can be changed, and a wrong one is told and is in nobody's way.

use std::time::Duration;

use serde_json::json;

use crate::harness::app::TestApp;
use crate::harness::cluster::TestDb;
use crate::harness::destinations::{DESTINATIONS, KEY, sending};
use crate::harness::receiver::Receiver;

const BUYERS: &str = "event('Bought').count() >= 1";
/// Another key.
const OTHER: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f";
/// What is told of [`KEY`]: the beginning of its SHA-256.
const KEY_ID: &str = "630dcd2966c43366";

async fn bought(app: &TestApp, user: &str) {
    app.processed("/v1/track", json!({"userId": user, "event": "Bought"})).await;
}

#[tokio::test]
async fn the_key_can_be_changed_and_the_old_one_is_not_needed_any_more() {
    let (db, receiver) = (TestDb::new().await, Receiver::start().await);
    let url = db.url();
    let app = sending().start_on(db).await;
    app.make_live("audiences", "buyers", BUYERS).await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    app.subscribe(&hook, json!({"subject": "audience", "key": "buyers"})).await;
    // More than are encrypted anew at a time.
    for n in 0..101 {
        app.make_webhook(&format!("Other {n}"), &receiver, json!({})).await;
    }
    app.running.stop(Duration::ZERO).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{KEY}\n")).unwrap();
    let app = sending()
        .option("deliver.secret_key", OTHER)
        .option("deliver.secret_keys_old_files", file.path().to_str().unwrap())
        .start_at(&url)
        .await;
    bought(&app, "u1").await;
    receiver.wait_taken(1).await;
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let keys: Vec<(String, i64)> =
        sqlx::query_as("SELECT secret_key_id, count(*) FROM destination GROUP BY 1")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!((keys.len(), keys[0].1), (1, 102), "workers begin when it is done");
    assert_ne!(keys[0].0, KEY_ID);
    app.running.stop(Duration::ZERO).await.unwrap();
    let app = sending().option("deliver.secret_key", OTHER).start_at(&url).await;
    bought(&app, "u2").await;
    receiver.wait_taken(2).await;
    let verifier = standardwebhooks::Webhook::new(hook["secret"].as_str().unwrap()).unwrap();
    for received in receiver.all() {
        let mut headers = reqwest::header::HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            headers.insert(name, received.headers[name].parse().unwrap());
        }
        verifier.verify(&received.body, &headers).unwrap();
    }
}

#[tokio::test]
async fn a_wrong_key_is_told_and_stops_nobody_else() {
    let (db, receiver) = (TestDb::new().await, Receiver::start().await);
    let url = db.url();
    let app = sending().start_on(db).await;
    app.make_live("audiences", "buyers", BUYERS).await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    let call = json!({"url": format!("{}/open", receiver.url), "method": "POST",
        "headers": {"Content-Type": "application/json"}, "body": "{{ values }}"});
    let body = json!({"name": "Open", "kind": "http", "settings": {"calls": {"identify": call}}});
    let open = app.post(DESTINATIONS, body).await.expect(201).json;
    for destination in [&hook, &open] {
        app.subscribe(destination, json!({"subject": "audience", "key": "buyers"})).await;
    }
    app.running.stop(Duration::ZERO).await.unwrap();
    let app = sending().option("deliver.secret_key", OTHER).start_at(&url).await;
    let seen = app.wait_destination(&hook, |d| d["state"] == "failing").await;
    let reason = seen["state_reason"].as_str().unwrap();
    assert!(reason.contains(KEY_ID) && reason.contains("deliver.secret_keys_old"), "{reason}");
    bought(&app, "u1").await;
    let taken = receiver.wait_taken(1).await;
    assert_eq!(taken[0], json!({"buyers": true}), "the other one goes on");
    let path = format!("{DESTINATIONS}/{}/test", hook["id"].as_str().unwrap());
    let refused = app.post(&path, json!({})).await.expect_problem(422, "invalid");
    assert!(refused.text.contains(KEY_ID), "{}", refused.text);
    app.running.stop(Duration::ZERO).await.unwrap();
    let both = format!("{OTHER}, {KEY}");
    let app = sending()
        .option("deliver.secret_key", OTHER)
        .option("deliver.secret_keys_old", &both)
        .start_at(&url)
        .await;
    app.act(&hook, "resume", json!({})).await;
    receiver.wait_taken(2).await;
    assert_eq!(app.wait_sent(&hook).await["state"], "connected");
}
