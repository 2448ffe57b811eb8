//! The rate of a source: what is over it is told to come back, and nothing of it is stored (decisions T13).

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Answer, TestApp, Wish, send};

const SOURCES: &str = "/v1/spaces/default/sources";

/// A source with a limit: its path and its write key.
async fn limited(app: &TestApp, rate: u32) -> (String, String) {
    let made = app.post(SOURCES, json!({"name": "web", "events_per_second_max": rate})).await.expect(201);
    assert_eq!(made.json["events_per_second_max"], rate);
    let text = |name: &str| made.json[name].as_str().unwrap().to_owned();
    (format!("{SOURCES}/{}", text("id")), text("write_key"))
}

async fn send_events(app: &TestApp, key: &str, events: usize) -> Answer {
    let batch: Vec<Value> = (0..events)
        .map(|i| json!({"type": "track", "userId": "u", "event": "E", "messageId": format!("{events}-{i}")}))
        .collect();
    let request = app.request(Method::POST, "/v1/batch").bearer_auth(key);
    send(request.body(json!({"batch": batch}).to_string())).await
}

/// Refused, to be sent again in so many seconds.
fn too_fast(answer: Answer, seconds: &str) {
    let answer = answer.expect(429);
    assert_eq!((&answer.json["success"], &answer.json["code"]), (&json!(false), &json!("too_many_requests")));
    assert!(answer.json["message"].as_str().unwrap().contains("events a second"));
    assert_eq!((answer.header("retry-after"), answer.header("x-ratelimit-reset")), (seconds, seconds));
    assert_eq!(answer.header("personas-offset"), "");
}

async fn log_end(app: &TestApp) -> Value {
    app.get("/v1/spaces/default/pipeline").await.expect(200).json["log_end_offset"].clone()
}

#[tokio::test]
async fn over_its_rate_a_source_is_told_when_to_come_back() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    let to = async |now: &str| app.put("/v1/test-clock", json!({"now": now})).await.expect(200);
    let (_, key) = limited(&app, 10).await;
    send_events(&app, &key, 4).await.expect(200);
    send_events(&app, &key, 6).await.expect(200);
    too_fast(send_events(&app, &key, 5).await, "1");
    assert_eq!(log_end(&app).await, 10, "nothing of it is stored");
    app.track("/v1/track", r#"{"userId":"u","event":"E"}"#).await.expect(200);

    to("2024-03-01T12:00:00.499Z").await;
    too_fast(send_events(&app, &key, 5).await, "1");
    to("2024-03-01T12:00:00.500Z").await;
    assert_eq!(send_events(&app, &key, 5).await.expect(200).offset(), 16, "the same batch, whole");

    // More than a second's worth waits for a whole second, and is paid off afterwards.
    too_fast(send_events(&app, &key, 35).await, "1");
    to("2024-03-01T12:00:01.500Z").await;
    send_events(&app, &key, 35).await.expect(200);
    too_fast(send_events(&app, &key, 1).await, "3");
    to("2024-03-01T12:00:04.100Z").await;
    send_events(&app, &key, 1).await.expect(200);
    let metrics = app.get("/metrics").await.expect(200).text;
    assert!(metrics.contains(r#"personas_ingest_shed_total{reason="rate"}"#), "{metrics}");
}

#[tokio::test]
async fn refused_events_are_charged_and_not_listed_over_the_rate() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    let (_, key) = limited(&app, 2).await;
    let bad = || app.request(Method::POST, "/v1/track").bearer_auth(&key).body(r#"{"userId":"u"}"#);
    send(bad()).await.expect(400);
    send(bad()).await.expect(400);
    too_fast(send(bad()).await, "1");
    let list = app.get("/v1/spaces/default/rejected-events").await.expect(200);
    assert_eq!(list.json["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_rate_can_be_set_changed_and_taken_away() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    let (path, key) = limited(&app, 1).await;
    send_events(&app, &key, 1).await.expect(200);
    too_fast(send_events(&app, &key, 1).await, "1");
    let changed = app.patch(&path, json!({"events_per_second_max": null})).await.expect(200).json;
    assert_eq!((&changed["events_per_second_max"], &changed["enabled"]), (&json!(null), &json!(true)));
    send_events(&app, &key, 100).await.expect(200);
    app.patch(&path, json!({"events_per_second_max": 7})).await.expect(200);
    let off = app.patch(&path, json!({"enabled": false})).await.expect(200).json;
    assert_eq!(
        (&off["events_per_second_max"], &off["enabled"]),
        (&json!(7), &json!(false)),
        "the rate stays"
    );
    let listed = app.get(SOURCES).await.expect(200).json["data"].clone();
    assert_eq!(listed[0]["events_per_second_max"], json!(null));
    assert_eq!(listed[1]["events_per_second_max"], 7);
    for rate in [json!(0), json!(-1), json!(1_000_001), json!(i64::MAX)] {
        for answer in [
            app.post(SOURCES, json!({"name": "x", "events_per_second_max": rate})).await,
            app.patch(&path, json!({"events_per_second_max": rate})).await,
        ] {
            assert_eq!(answer.expect_problem(422, "invalid").json["field"], "events_per_second_max");
        }
    }
    for rate in [json!(1.5), json!("10"), json!(u64::MAX)] {
        app.patch(&path, json!({"events_per_second_max": rate})).await.expect_problem(422, "invalid");
    }
}
