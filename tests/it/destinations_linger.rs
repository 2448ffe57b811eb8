//! Batches that wait for more: a full one goes at once, one that is not when its oldest change is old enough, whatever happens
//! to the destination or the service in between.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::app::TestApp;
use crate::harness::cluster::TestDb;
use crate::harness::destinations::{DESTINATIONS, sending};
use crate::harness::receiver::Receiver;

const BUYERS: &str = "event('Bought').count() >= 1";

async fn bought(app: &TestApp, users: &[&str]) {
    let call = |user: &&str| json!({"type": "track", "event": "Bought", "userId": user});
    app.processed("/v1/batch", json!({"batch": users.iter().map(call).collect::<Vec<_>>()})).await;
}

async fn move_clock(app: &TestApp, time: &str) {
    app.put("/v1/test-clock", json!({"now": format!("2024-03-01T{time}Z")})).await.expect(200);
}

/// A webhook that takes three at a time and waits a minute for them.
async fn make_lingering(app: &TestApp, receiver: &Receiver) -> Value {
    let settings = json!({"url": format!("{}/hook", receiver.url), "batch_max": 3});
    let body = json!({"name": "Slow", "kind": "webhook", "settings": settings, "linger_seconds": 60});
    let slow = app.post(DESTINATIONS, body).await.expect(201).json;
    app.subscribe(&slow, json!({"subject": "audience", "key": "buyers"})).await;
    slow
}

/// The users of each request.
fn batches(receiver: &Receiver) -> Vec<Vec<String>> {
    let user = |event: Value| event["userId"].as_str().unwrap().to_owned();
    receiver.all().iter().map(|received| received.events().into_iter().map(user).collect()).collect()
}

#[tokio::test]
async fn a_batch_goes_when_it_is_full_or_old_and_not_before() {
    let app = sending().at("2024-03-01T12:00:00Z").start().await;
    let (receiver, prompt) = (Receiver::start().await, Receiver::start().await);
    app.make_live("audiences", "buyers", BUYERS).await;
    let slow = make_lingering(&app, &receiver).await;
    let quick = app.make_webhook("Quick", &prompt, json!({})).await;
    assert_eq!((&slow["linger_seconds"], &quick["linger_seconds"]), (&json!(60), &json!(0)));
    app.subscribe(&quick, json!({"subject": "audience", "key": "buyers"})).await;
    bought(&app, &["u1"]).await;
    prompt.wait_taken(1).await;
    move_clock(&app, "12:00:59.999").await;
    bought(&app, &["u2"]).await;
    prompt.wait_taken(2).await;
    let path = format!("{DESTINATIONS}/{}/test", slow["id"].as_str().unwrap());
    let event = json!({"event": {"type": "track", "event": "Now", "userId": "test"}});
    assert_eq!(app.post(&path, event).await.expect(200).json["outcome"], "delivered");
    assert_eq!(app.destination(&slow).await["deliveries"]["queued"], 2);
    move_clock(&app, "12:01:00").await;
    receiver.wait_taken(3).await;
    bought(&app, &["u3", "u4", "u5", "u6"]).await;
    receiver.wait_taken(6).await;
    move_clock(&app, "12:02:00").await;
    receiver.wait_taken(7).await;
    assert_eq!(batches(&receiver), [vec!["test"], vec!["u1", "u2"], vec!["u3", "u4", "u5"], vec!["u6"]]);
    // What is older than that goes at once, but together.
    app.act(&slow, "resync", json!({})).await;
    receiver.wait_taken(13).await;
    assert_eq!(batches(&receiver)[4..].iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
}

#[tokio::test]
async fn neither_a_pause_nor_a_restart_moves_the_time_of_a_batch() {
    let (db, receiver) = (TestDb::new().await, Receiver::start().await);
    let url = db.url();
    let app = sending().at("2024-03-01T12:00:00Z").start_on(db).await;
    app.make_live("audiences", "buyers", BUYERS).await;
    let slow = make_lingering(&app, &receiver).await;
    bought(&app, &["u1"]).await;
    app.act(&slow, "pause", json!({})).await;
    bought(&app, &["u2"]).await;
    move_clock(&app, "12:00:30").await;
    app.act(&slow, "resume", json!({})).await;
    move_clock(&app, "12:01:00").await;
    receiver.wait_taken(2).await;
    app.wait_sent(&slow).await;
    bought(&app, &["u3"]).await;
    app.running.stop(Duration::ZERO).await.unwrap();
    let app = sending().at("2024-03-01T12:01:30Z").start_at(&url).await;
    bought(&app, &["u4"]).await;
    move_clock(&app, "12:02:00").await;
    receiver.wait_taken(4).await;
    app.act(&slow, "pause", json!({})).await;
    bought(&app, &["u5"]).await;
    move_clock(&app, "12:05:00").await;
    app.act(&slow, "resume", json!({})).await;
    receiver.wait_taken(5).await;
    assert_eq!(batches(&receiver), [vec!["u1", "u2"], vec!["u3", "u4"], vec!["u5"]]);
    let path = format!("{DESTINATIONS}/{}", slow["id"].as_str().unwrap());
    let refused = app.patch(&path, json!({"linger_seconds": 3_601})).await.expect_problem(422, "invalid");
    assert_eq!(refused.json["field"], "linger_seconds");
    bought(&app, &["u6"]).await;
    app.patch(&path, json!({"linger_seconds": 0})).await.expect(200);
    receiver.wait_taken(6).await;
}
