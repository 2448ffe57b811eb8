//! Bodies that are refused whole are listed like refused events, as far as their sender is known (decisions T3).

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::{Compression, write::GzEncoder};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::app::{Answer, TestApp, WRITE_KEY, Wish, send};

/// What is kept of a body.
const KEPT: usize = 4 * 1024;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

async fn post(app: &TestApp, path: &str, encoding: &str, body: impl Into<Vec<u8>>) -> Answer {
    let request = app.request(Method::POST, path).basic_auth(WRITE_KEY, Some(""));
    send(request.header("content-encoding", encoding).body(body.into())).await
}

async fn listed(app: &TestApp) -> Vec<Value> {
    let list = app.get("/v1/spaces/default/rejected-events?limit=1000").await.expect(200);
    list.json["data"].as_array().unwrap().clone()
}

/// Path, encoding, body; code, field, how the kept text begins.
type Case<'a> = (&'a str, &'a str, Vec<u8>, &'a str, &'a str, &'a str);

#[tokio::test]
async fn every_refused_body_is_listed_with_its_reason_and_its_beginning() {
    let app = Wish::default()
        .option("ingest.body_bytes_max", "20000")
        .option("ingest.batch_events_max", "2")
        .start()
        .await;
    let long = format!("{{\"userId\":\"{}", "€".repeat(9_000));
    let mut half = gzip(
        format!("{{\"userId\":\"{}\"}}", (0..900).map(|i| i.to_string()).collect::<String>()).as_bytes(),
    );
    half.truncate(half.len() / 2);
    let three = r#"{"batch":[1,2,3]}"#;
    let cases: Vec<Case<'_>> = vec![
        ("/v1/track", "identity", b"{\"userId\":".to_vec(), "bad_request", "", "{\"userId\":"),
        (
            "/v1/track",
            "identity",
            b"{\"a\":\"\xff\0b\"}".to_vec(),
            "bad_request",
            "",
            "{\"a\":\"\u{fffd}b\"}",
        ),
        ("/v1/import", "identity", b"{}\n{}\n".to_vec(), "bad_request", "", "{}\n{}\n"),
        ("/v1/batch", "identity", b"[]".to_vec(), "bad_request", "", "[]"),
        ("/v1/batch", "identity", three.into(), "payload_too_large", "batch", three),
        ("/v1/batch", "gzip", gzip(b"{\"batch\":[]}"), "empty_batch", "batch", "{\"batch\":[]}"),
        ("/v1/batch", "gzip", b"{\"batch\":[]}".to_vec(), "bad_request", "", "{\"batch\":[]}"),
        ("/v1/track", "gzip", half, "bad_request", "", "{\"userId\":\"012345678910"),
        (
            "/v1/track",
            "br",
            b"{\"no\":\"\0br\"}".to_vec(),
            "bad_request",
            "Content-Encoding",
            "{\"no\":\"br\"}",
        ),
        ("/v1/track", "identity", long.clone().into(), "payload_too_large", "", &long[..2_999]),
        ("/v1/track", "gzip", gzip(long.as_bytes()), "payload_too_large", "", &long[..2_999]),
    ];
    for (path, encoding, body, code, field, beginning) in &cases {
        let answer = post(&app, path, encoding, body.clone()).await.expect(400);
        assert_eq!(answer.json["code"], *code, "{path} {encoding}: {}", answer.text);
        let row = listed(&app).await[0].clone();
        assert_eq!((&row["code"], &row["message"]), (&answer.json["code"], &answer.json["message"]));
        assert_eq!(row["field"].as_str().unwrap_or_default(), *field, "{row}");
        assert_eq!(row["warning"], false);
        assert!(row["source"].as_str().unwrap().starts_with("src_") && row["received_at"].is_string());
        let event = row["event"].as_str().unwrap();
        assert!(event.starts_with(beginning) && event.len() <= KEPT, "{path} {encoding}: {event}");
        assert!(beginning.len() < 1_000 || event.len() > KEPT - 4, "cut too short: {}", event.len());
        assert!(!event.contains('\0') && !event.ends_with('\u{fffd}'), "{event}");
    }
    assert_eq!(listed(&app).await.len(), cases.len(), "one each");
}

#[tokio::test]
async fn bodies_of_unknown_length_and_broken_ones_are_listed_too() {
    let app = Wish::default().option("ingest.body_bytes_max", "20000").start().await;
    let path = format!("POST /v1/track?writeKey={WRITE_KEY} HTTP/1.1\r\nHost: x\r\n");
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", 30_000, "y".repeat(30_000));
    for (rest, code, beginning) in [
        (format!("Transfer-Encoding: chunked\r\n\r\n{chunk}"), "payload_too_large", "yyy"),
        ("Content-Length: 100\r\n\r\n{\"broken".to_owned(), "bad_request", "{\"broken"),
    ] {
        let before = listed(&app).await.len();
        let mut stream = TcpStream::connect(app.running.address()).await.unwrap();
        stream.write_all(format!("{path}{rest}").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        // A client that is gone is not answered, so nothing says when the row is there.
        let deadline = Instant::now() + Duration::from_secs(5);
        let row = loop {
            let rows = listed(&app).await;
            if rows.len() > before {
                break rows[0].clone();
            }
            assert!(Instant::now() < deadline, "{code} is not listed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(row["code"], code);
        assert!(row["event"].as_str().unwrap().starts_with(beginning), "{row}");
    }
}

#[tokio::test]
async fn without_a_valid_key_nothing_is_kept() {
    let app = TestApp::start().await;
    let post = |path: &str| app.request(Method::POST, path);
    let key_in_body = format!("{{\"writeKey\":\"{WRITE_KEY}\",");
    for (request, status) in [
        (post("/v1/track").bearer_auth("wk_unknown").body("{"), 401),
        (post("/v1/track").body("{"), 401),
        (post("/v1/track").header("content-encoding", "br").body(key_in_body.clone()), 400),
        (post("/v1/track").header("content-encoding", "gzip").body(key_in_body), 400),
    ] {
        send(request).await.expect(status);
    }
    let rows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM rejected_event").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn what_one_source_can_make_us_keep_is_bounded_and_the_rest_is_counted() {
    let app = Wish::default()
        .at("2024-03-01T12:00:00Z")
        .option("ingest.rejected_events_per_second_max", "1")
        .start()
        .await;
    let bad = |count: usize| json!({"batch": vec![json!(0); count]}).to_string();
    let answer = app.track("/v1/batch", bad(150)).await.expect(400);
    assert_eq!(answer.json["rejected"].as_array().unwrap().len(), 150, "the answer is whole");
    assert_eq!(listed(&app).await.len(), 100, "a hundred seconds' worth at once");
    let good = json!({"batch": [{"type": "track", "userId": "u", "event": "E"}, 0]});
    let answer = app.track("/v1/batch", good).await.expect(200);
    assert_eq!((answer.offset(), &answer.json["rejected"][0]["index"]), (1, &json!(1)));
    post(&app, "/v1/track", "identity", "{").await.expect(400);
    post(&app, "/v1/track", "gzip", "{").await.expect(400);
    assert_eq!(listed(&app).await.len(), 100);
    let metrics = app.get("/metrics").await.expect(200).text;
    let line = "personas_ingest_rejected_unlisted_total{reason=\"rate\"} ";
    let count = metrics.lines().find_map(|l| l.strip_prefix(line)).unwrap().parse::<u64>().unwrap();
    assert!(count >= 53, "{count}");

    // Another source has its own share, and time brings more.
    let made = app.post("/v1/spaces/default/sources", json!({"name": "web"})).await.expect(201);
    let other = app.request(Method::POST, "/v1/track").bearer_auth(made.json["write_key"].as_str().unwrap());
    send(other.body("{")).await.expect(400);
    assert_eq!(listed(&app).await.len(), 101);
    app.put("/v1/test-clock", json!({"now": "2024-03-01T12:00:02Z"})).await.expect(200);
    app.track("/v1/batch", bad(3)).await.expect(400);
    assert_eq!(listed(&app).await.len(), 103);
}

#[tokio::test]
async fn what_was_refused_is_kept_for_its_own_time() {
    let retention = ("ingest.rejected_events_retention_days", "2");
    let app = Wish::default().at("2024-03-01T12:00:00Z").option(retention.0, retention.1).start().await;
    app.track("/v1/track", r#"{"userId":"old"}"#).await.expect(400);
    app.track("/v1/track", r#"{"userId":"old","event":"E"}"#).await.expect(200);
    app.put("/v1/test-clock", json!({"now": "2024-03-02T12:00:00Z"})).await.expect(200);
    app.track("/v1/track", r#"{"userId":"new"}"#).await.expect(400);
    app.put("/v1/test-clock", json!({"now": "2024-03-03T12:00:01Z"})).await.expect(200);
    assert_eq!(listed(&app).await.len(), 2, "it is looked after every few hours, and at every start");
    app.running.stop(Duration::ZERO).await.unwrap();
    let app =
        Wish::default().at("2024-03-03T12:00:01Z").option(retention.0, retention.1).start_on(app.db).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    let rows = loop {
        let rows = listed(&app).await;
        if rows.len() < 2 {
            break rows;
        }
        assert!(Instant::now() < deadline, "nothing is forgotten");
    };
    assert_eq!(rows[0]["event"], r#"{"userId":"new"}"#, "only what is older than two days");
    // The log has a retention of its own.
    let events = "/v1/spaces/default/collections/users/profiles/user_id:old/events";
    assert_eq!(app.get(events).await.expect(200).json["data"].as_array().unwrap().len(), 1);
}
