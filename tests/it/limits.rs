//! The sizes of a call (decisions T7), each at its edge and changed by its option; and a log that cannot keep up
//! (T13).

use std::fmt::Write;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::app::{TestApp, WRITE_KEY, Wish, send};

/// A JSON object with so many entries.
fn object(entries: usize) -> Value {
    Value::Object((0..entries).map(|n| (format!("k{n}"), json!(n))).collect())
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inside, _| json!([inside]))
}

/// The same call at its limit, which is taken, and one over it, which is refused with that code.
async fn edge(app: &TestApp, path: &str, call: impl Fn(usize) -> Value, limit: usize, code: &str) {
    app.track(path, call(limit)).await.expect(200);
    let refused = app.track(path, call(limit + 1)).await.expect(400);
    assert_eq!(refused.json["code"], code, "{}", refused.text);
    // Beside a good event only that event is refused.
    let mut item = call(limit + 1);
    item["type"] = json!(path.trim_start_matches("/v1/"));
    let batch = json!({"batch": [{"type": "track", "userId": "u", "event": "E"}, item]});
    let answer = app.track("/v1/batch", batch).await.expect(200);
    assert_eq!(
        (&answer.json["accepted"], &answer.json["rejected"][0]["code"]),
        (&json!(1), &json!(code)),
        "{}",
        answer.text
    );
}

async fn edges(app: &TestApp, most: [usize; 6]) {
    let [properties, traits, message_id, group_id, name, depth] = most;
    let text = |length: usize| "é".repeat(length);
    edge(
        app,
        "/v1/track",
        |n| json!({"userId": "u", "event": "E", "properties": object(n)}),
        properties,
        "too_many_properties",
    )
    .await;
    edge(app, "/v1/identify", |n| json!({"userId": "u", "traits": object(n)}), traits, "too_many_traits")
        .await;
    edge(
        app,
        "/v1/group",
        |n| json!({"userId": "u", "groupId": "g", "traits": object(n)}),
        traits,
        "too_many_traits",
    )
    .await;
    for (path, own) in [("/v1/identify", json!({})), ("/v1/group", json!({"groupId": "g"}))] {
        let call = |n| {
            let mut call = json!({"userId": "u", "context": {"traits": object(n)}});
            call.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            call
        };
        edge(app, path, call, traits, "too_many_traits").await;
    }
    let in_context = |n| json!({"userId": "u", "event": "E", "context": {"groupId": text(n)}});
    edge(app, "/v1/track", in_context, group_id, "group_id_too_long").await;
    edge(
        app,
        "/v1/alias",
        |n| json!({"userId": "u", "messageId": text(n)}),
        message_id,
        "message_id_too_long",
    )
    .await;
    edge(app, "/v1/group", |n| json!({"userId": "u", "groupId": text(n)}), group_id, "group_id_too_long")
        .await;
    edge(app, "/v1/track", |n| json!({"userId": "u", "event": text(n)}), name, "event_name_too_long").await;
    // The call and its properties are two levels.
    edge(
        app,
        "/v1/track",
        |n| json!({"userId": "u", "event": "E", "properties": {"a": nested(n)}}),
        depth - 2,
        "json_too_deep",
    )
    .await;
}

#[tokio::test]
async fn the_sizes_are_those_of_the_documentation() {
    // Ten thousand properties do not fit into 32 KiB.
    let app = Wish::default().option("ingest.event_bytes_max", "200000").start().await;
    edges(&app, [10_000, 300, 100, 500, 255, 32]).await;
}

#[tokio::test]
async fn the_sizes_can_be_changed() {
    let app = Wish::default()
        .option("ingest.properties_max", "20")
        .option("ingest.traits_max", "10")
        .option("ingest.message_id_chars_max", "40")
        .option("ingest.group_id_chars_max", "12")
        .option("ingest.event_name_chars_max", "15")
        .option("ingest.json_depth_max", "6")
        .option("ingest.event_bytes_max", "1000")
        .start()
        .await;
    edges(&app, [20, 10, 40, 12, 15, 6]).await;
    let frame = json!({"userId": "u", "event": "E", "properties": {"p": ""}}).to_string().len();
    edge(
        &app,
        "/v1/track",
        |n| json!({"userId": "u", "event": "E", "properties": {"p": "x".repeat(n - frame)}}),
        1_000,
        "payload_too_large",
    )
    .await;
}

#[tokio::test]
async fn a_full_queue_is_told_to_come_back_and_loses_nothing_it_took() {
    let app = Wish::default()
        .option("ingest.queue_events_max", "10")
        .option("ingest.flush_events_max", "5")
        .start()
        .await;
    app.track("/v1/track", r#"{"userId":"u","event":"E"}"#).await.expect(200);
    // Somebody holds the log, so its writer waits and the queue fills.
    let mut holder = app.db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM log_head FOR UPDATE").execute(&mut *holder).await.unwrap();
    let mut calls = JoinSet::new();
    for n in 0..40 {
        let request = app.request(Method::POST, "/v1/track").basic_auth(WRITE_KEY, Some(""));
        calls.spawn(send(request.body(json!({"userId": format!("u{n}"), "event": "E"}).to_string())));
    }
    // The first to be answered are those there is no room for.
    let refused = calls.join_next().await.unwrap().unwrap().expect(503);
    assert_eq!((&refused.json["success"], &refused.json["code"]), (&json!(false), &json!("overloaded")));
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert!(!refused.json["message"].as_str().unwrap().is_empty());
    holder.commit().await.unwrap();
    let (mut taken, mut shed, mut shown) = (1, 1, String::new());
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap();
        write!(shown, "{} ", answer.status).unwrap();
        match answer.status {
            200 => taken += 1,
            _ => shed += usize::from(answer.expect(503).json["code"] == "overloaded"),
        }
    }
    assert_eq!(taken + shed, 41, "{shown}");
    assert!(taken >= 11, "the queue is as long as it should be: {shown}");
    let pipeline = app.get("/v1/spaces/default/pipeline").await.expect(200).json;
    assert_eq!(pipeline["log_end_offset"], taken, "what was acknowledged, and nothing else");
    let metrics = app.get("/metrics").await.expect(200).text;
    assert!(metrics.contains(r#"personas_ingest_shed_total{reason="queue"}"#), "{metrics}");
    app.track("/v1/track", r#"{"userId":"u","event":"E"}"#).await.expect(200);
}
