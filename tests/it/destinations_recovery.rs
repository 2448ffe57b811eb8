//! Destinations and processes: killed ones lose nothing, rebuilds tell nothing twice, servers follow one another.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::app::{TestApp, WRITE_KEY, Wish};
use crate::harness::cluster::TestDb;
use crate::harness::destinations::{DESTINATIONS, sending};
use crate::harness::rebuild::expect_same;
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::this_binary_as;

const BUYERS: &str = "event('Bought').count() >= 1";
/// The database of a process that is to be killed.
const VARIABLE: &str = "PERSONAS_TEST_DELIVERING_ON";

async fn buy(app: &TestApp, from: usize, users: usize) {
    let call = |n: usize| json!({"type": "track", "event": "Bought", "userId": format!("u{}", from + n)});
    app.processed("/v1/batch", json!({"batch": (0..users).map(call).collect::<Vec<_>>()})).await;
}

/// Runs as a process of its own, see below.
#[tokio::test]
async fn a_process_that_delivers() {
    let Ok(url) = std::env::var(VARIABLE) else { return };
    let app = sending().option("deliver.lease_seconds", "1").start_at(&url).await;
    println!("delivering");
    app.running.ended().await;
}

#[tokio::test]
async fn killing_a_process_while_it_delivers_loses_nothing() {
    let db = TestDb::new().await;
    let receiver = Receiver::start_with(|_, _| Reply::Late(Duration::from_millis(20), 200)).await;
    let url = db.url();
    let app = sending().option("deliver.lease_seconds", "1").start_on(db).await;
    app.make_live("audiences", "buyers", BUYERS).await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    app.subscribe(&hook, json!({"subject": "audience", "key": "buyers"})).await;
    app.act(&hook, "pause", json!({})).await;
    buy(&app, 0, 400).await;
    // The one that is killed is the only one.
    app.running.stop(Duration::ZERO).await.unwrap();
    let mut command = this_binary_as("destinations_recovery::a_process_that_delivers", VARIABLE, &url);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut seen = String::new();
    let mut stdout = child.stdout.take().unwrap();
    while !seen.contains("delivering") {
        let mut buffer = [0; 256];
        let count = stdout.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let resume = "UPDATE destination_worker SET state = 'connected', config_version = config_version + 1";
    sqlx::query(resume).execute(&pool).await.unwrap();
    receiver.wait(|r| (r.taken().len() >= 100).then_some(())).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let at_kill = receiver.taken().len();
    assert!(at_kill < 400, "it was killed in the middle");
    let app = sending().option("deliver.lease_seconds", "1").start_at(&url).await;
    app.wait_sent(&hook).await;
    let taken = receiver.taken();
    let mut ids: Vec<&str> = taken.iter().map(|event| event["messageId"].as_str().unwrap()).collect();
    let sent = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 400);
    // What was under way, and what was answered and not written down yet.
    assert!(sent <= 400 + 60, "{sent}");
}

#[tokio::test]
async fn nothing_waits_for_the_clock_of_a_process_that_was_ahead() {
    let receiver = Receiver::start_with(|_, _| Reply::Status(500)).await;
    let app = sending().start().await;
    app.make_live("audiences", "buyers", BUYERS).await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    app.subscribe(&hook, json!({"subject": "audience", "key": "buyers"})).await;
    buy(&app, 0, 3).await;
    receiver.wait(|r| (r.count() >= 3).then_some(())).await;
    app.running.stop(Duration::ZERO).await.unwrap();
    let db = app.db;
    // All that it wrote about them was of an hour later.
    let sql = "UPDATE delivery_hold SET next_at = next_at + '1 hour'::interval, first_at = first_at + '1 hour'::interval";
    assert_eq!(sqlx::query(sql).execute(&db.pool).await.unwrap().rows_affected(), 3);
    receiver.now(|_, _| Reply::Status(200));
    // At once, and not in an hour.
    let app = sending().start_on(db).await;
    receiver.wait_taken(3).await;
    app.wait_sent(&hook).await;
}

#[tokio::test]
async fn two_processes_share_and_a_stop_hands_over() {
    let app = sending().start().await;
    let receiver = Receiver::start().await;
    app.make_live("audiences", "buyers", BUYERS).await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    app.subscribe(&hook, json!({"subject": "audience", "key": "buyers"})).await;
    let url = app.db.url();
    let other = sending().start_at(&url).await;
    buy(&app, 0, 100).await;
    receiver.wait_taken(100).await;
    app.wait_sent(&hook).await;
    app.running.stop(Duration::ZERO).await.unwrap();
    buy(&other, 100, 100).await;
    receiver.wait_taken(200).await;
    other.wait_sent(&hook).await;
    assert_eq!(receiver.taken().len(), 200, "each of them once");
}

#[tokio::test]
async fn a_rebuild_tells_nothing_twice() {
    let app = sending().start().await;
    let receiver = Receiver::start().await;
    app.make_live("audiences", "buyers", BUYERS).await;
    app.make_live("computed-traits", "purchases", "event('Bought').count()").await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    app.subscribe(&hook, json!({"subject": "audience", "key": "buyers"})).await;
    app.subscribe(&hook, json!({"subject": "computed_trait", "key": "purchases"})).await;
    app.subscribe(&hook, json!({"subject": "custom_traits"})).await;
    app.processed("/v1/identify", json!({"userId": "u1", "traits": {"plan": "pro"}})).await;
    buy(&app, 0, 50).await;
    app.wait_destination(&hook, |d| d["deliveries"]["succeeded"].as_i64() >= Some(101)).await;
    app.wait_sent(&hook).await;
    let before = receiver.count();
    expect_same(&app.db).await;
    buy(&app, 100, 1).await;
    app.wait_destination(&hook, |d| d["deliveries"]["queued"] == 0).await;
    let events = receiver.taken();
    let after: Vec<&Value> = events[before..].iter().map(|event| &event["userId"]).collect();
    assert!(!after.is_empty() && after.iter().all(|user| **user == json!("u100")), "{after:?}");
}

#[tokio::test]
async fn two_servers_that_follow_one_another_have_the_same_traits() {
    let (first, second) = (sending().start().await, Wish::default().start().await);
    first.make_live("audiences", "buyers", BUYERS).await;
    first.make_live("computed-traits", "purchases", "event('Bought').count()").await;
    let settings = json!({"url": second.url, "write_key": WRITE_KEY});
    let body = json!({"name": "Second", "kind": "segment", "settings": settings});
    let next = first.post(DESTINATIONS, body).await.expect(201).json;
    first.subscribe(&next, json!({"subject": "audience", "key": "buyers"})).await;
    first.subscribe(&next, json!({"subject": "computed_trait", "key": "purchases"})).await;
    first.subscribe(&next, json!({"subject": "custom_traits"})).await;
    let identify =
        |n: usize, traits: Value| json!({"type": "identify", "userId": format!("u{n}"), "traits": traits});
    let traits =
        |n: usize| json!({"email": format!("u{n}@example.com"), "n": n, "plan": "free", "gone": {"x": [n]}});
    let all = (0..50).map(|n| identify(n, traits(n)));
    first.processed("/v1/batch", json!({"batch": all.collect::<Vec<_>>()})).await;
    buy(&first, 0, 25).await;
    // Some of it becomes another value, and some of it goes away.
    let changed = (0..50).step_by(2).map(|n| identify(n, json!({"plan": "pro"})));
    first.processed("/v1/batch", json!({"batch": changed.collect::<Vec<_>>()})).await;
    let removed = (0..50).step_by(3).map(|n| identify(n, json!({"gone": null})));
    first.processed("/v1/batch", json!({"batch": removed.collect::<Vec<_>>()})).await;
    buy(&first, 0, 10).await;
    let seen = first.wait_sent(&next).await;
    assert_eq!((&seen["deliveries"]["dead"], &seen["deliveries"]["failed"]), (&json!(0), &json!({})));
    let pipeline = second.get("/v1/spaces/default/pipeline").await.json;
    let end = pipeline["log_end_offset"].as_u64().unwrap();
    for n in 0..50 {
        let path = format!(
            "/v1/spaces/default/collections/users/profiles/user_id:u{n}/traits?limit=200&min_offset={end}"
        );
        let traits = second.get(&path).await.expect(200).json["traits"].clone();
        let path = path.split("&min").next().unwrap();
        assert_eq!(traits, first.get(path).await.expect(200).json["traits"], "u{n}");
        let is_buyer = (n < 25).then_some(json!(true));
        assert_eq!(traits.get("buyers"), is_buyer.as_ref(), "u{n}");
        let purchases = if n < 10 { 2 } else { usize::from(n < 25) };
        let plan = if n % 2 == 0 { "pro" } else { "free" };
        assert_eq!((&traits["purchases"], &traits["plan"]), (&json!(purchases), &json!(plan)), "u{n}");
        assert_eq!(traits.get("gone").is_some(), n % 3 != 0, "u{n}: {traits}");
    }
}
