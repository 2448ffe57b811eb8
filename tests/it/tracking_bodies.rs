//! Bodies that are too large, too slow, compressed, or many at once.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::{Compression, write::GzEncoder};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::app::{Answer, TestApp, WRITE_KEY, Wish, send};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

async fn post(app: &TestApp, path: &str, encoding: &str, body: Vec<u8>) -> Answer {
    let request = app.request(Method::POST, path).basic_auth(WRITE_KEY, Some(""));
    send(request.header("content-encoding", encoding).body(body)).await
}

fn batch_of(events: usize, padding: usize) -> String {
    let event =
        json!({"type": "track", "userId": "u", "event": "E", "properties": {"p": "x".repeat(padding)}});
    json!({"batch": vec![event; events]}).to_string()
}

#[tokio::test]
async fn gzip_is_decoded_on_every_write_path() {
    let app = TestApp::start().await;
    let track = br#"{"userId":"u","event":"E"}"#;
    for (path, body) in [("/v1/track", track.to_vec()), ("/v1/batch", batch_of(3, 10).into_bytes())] {
        for encoding in ["gzip", "GZIP", "x-gzip"] {
            post(&app, path, encoding, gzip(&body)).await.expect(200);
        }
        post(&app, path, "identity", body).await.expect(200);
    }
    let key_inside = format!(r#"{{"writeKey":"{WRITE_KEY}","userId":"u","event":"E"}}"#);
    let request = app.request(Method::POST, "/v1/track").header("content-encoding", "gzip");
    send(request.body(gzip(key_inside.as_bytes()))).await.expect(200);
    let mut half = gzip(track);
    half.truncate(half.len() / 2);
    for (encoding, body) in
        [("gzip", track.to_vec()), ("gzip", half), ("br", track.to_vec()), ("gzip, gzip", gzip(track))]
    {
        let answer = post(&app, "/v1/track", encoding, body).await.expect(400);
        assert_eq!(answer.json["code"], "bad_request", "{encoding}");
    }
}

#[tokio::test]
async fn bodies_of_five_mebibytes_are_taken_and_no_more() {
    let app = TestApp::start().await;
    let large = batch_of(1_200, 4_000);
    assert!(large.len() > 4_500_000, "{}", large.len());
    app.track("/v1/batch", &large).await.expect(200);
    post(&app, "/v1/batch", "gzip", gzip(large.as_bytes())).await.expect(200);

    let too_large = "x".repeat(6 << 20);
    let refused = [
        app.track("/v1/batch", &too_large).await,
        post(&app, "/v1/batch", "gzip", gzip(too_large.as_bytes())).await,
        app.track("/v1/track", &too_large).await,
    ];
    for answer in refused {
        assert_eq!(
            (answer.status, &answer.json["code"]),
            (400, &json!("payload_too_large")),
            "{}",
            answer.text
        );
    }
    let too_many = app.track("/v1/batch", batch_of(2_501, 1)).await.expect(400);
    assert_eq!(too_many.json["code"], "payload_too_large");
    app.track("/v1/batch", batch_of(2_500, 1)).await.expect(200);
    // One event of 40 KB beside a good one: judged per event.
    let mixed = json!({"batch": [
        {"type": "track", "userId": "u", "event": "E", "messageId": "big", "properties": {"p": "x".repeat(40_000)}},
        {"type": "track", "userId": "u", "event": "E"},
    ]});
    let answer = app.track("/v1/batch", mixed).await.expect(200);
    assert_eq!(answer.json["accepted"], 1);
    assert_eq!(answer.json["rejected"][0]["code"], "payload_too_large");
    assert_eq!(answer.json["rejected"][0]["message_id"], "big");
}

#[tokio::test]
async fn a_gzip_bomb_is_stopped_at_the_limit() {
    let app = TestApp::start().await;
    // 512 MiB of spaces in half a megabyte.
    let bomb = gzip(&vec![b' '; 8 << 20]).repeat(64);
    assert!(bomb.len() < 600_000);
    let started = Instant::now();
    let answer = post(&app, "/v1/batch", "gzip", bomb).await.expect(400);
    assert_eq!(answer.json["code"], "payload_too_large");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_wrong_key_is_refused_before_the_body_is_read() {
    let app = TestApp::start().await;
    let mut stream = TcpStream::connect(app.running.address()).await.unwrap();
    let head = "POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nContent-Length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 401");
}

#[tokio::test]
async fn slow_heads_and_bodies_are_cut_off() {
    let app = Wish::default()
        .option("server.header_timeout_ms", "300")
        .option("server.body_idle_timeout_ms", "300")
        .start()
        .await;
    let head = format!("POST /v1/track?writeKey={WRITE_KEY} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n");
    for (sent, expected) in [(head.clone(), ""), (format!("{head}\r\n{{"), "HTTP/1.1 408")] {
        let mut stream = TcpStream::connect(app.running.address()).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the connection stays open");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(expected), "{answer}");
        if !expected.is_empty() {
            assert!(answer.contains(r#""code":"request_timeout""#), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_stored() {
    let app = TestApp::start().await;
    let mut stream = TcpStream::connect(app.running.address()).await.unwrap();
    let body = r#"{"userId":"u","event":"E"}"#;
    let length = body.len() + 10;
    let head = format!(
        "POST /v1/track?writeKey={WRITE_KEY} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    let pipeline = app.get("/v1/spaces/default/pipeline").await.expect(200);
    assert_eq!(pipeline.json["log_end_offset"], 0);
}

#[tokio::test]
async fn too_much_at_once_is_told_to_come_back() {
    let app = Wish::default().option("ingest.inflight_bytes_max", "1000").start().await;
    // One body holds all the memory while it is being sent.
    let mut stream = TcpStream::connect(app.running.address()).await.unwrap();
    let head =
        format!("POST /v1/track?writeKey={WRITE_KEY} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let refused = loop {
        let answer = app.track("/v1/track", r#"{"userId":"u","event":"E"}"#).await;
        if answer.status != 200 {
            break answer.expect(503);
        }
        assert!(Instant::now() < deadline, "never refused");
    };
    assert_eq!(refused.json["code"], "overloaded");
    assert!(refused.json["message"].is_string());
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    drop(stream);
    let deadline = Instant::now() + Duration::from_secs(5);
    while app.track("/v1/track", r#"{"userId":"u","event":"E"}"#).await.status != 200 {
        assert!(Instant::now() < deadline, "the memory was not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_full_disk_takes_no_events_until_there_is_room() {
    let app = TestApp::start().await;
    let track = async || app.track("/v1/track", r#"{"userId":"u","event":"E"}"#).await;
    app.running.disk().note(1 << 20);
    let refused = track().await.expect(503);
    assert_eq!(refused.json["code"], "overloaded");
    assert!(!refused.header("retry-after").is_empty());
    send(app.request(Method::GET, "/readyz")).await.expect(503);
    app.get("/v1/spaces").await.expect(200);
    app.running.disk().note(1 << 40);
    track().await.expect(200);
}

#[tokio::test]
async fn a_lost_database_is_temporary() {
    let app = TestApp::start().await;
    app.running.pool().close().await;
    let answer = app.track("/v1/track", r#"{"userId":"u","event":"E"}"#).await.expect(503);
    assert_eq!(answer.json["code"], "unavailable");
    assert!(!answer.header("retry-after").is_empty());
    // A key that cannot be looked up is not told to be wrong.
    let request = app.request(Method::POST, "/v1/track").bearer_auth("wk_other").body("{}");
    send(request).await.expect(503);
}
