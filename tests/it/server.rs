//! The server around the routes: health, request ids, limits of the protocol, the end, and the test clock.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::app::{TestApp, WRITE_KEY, Wish, send};

async fn raw(app: &TestApp, request: &str) -> String {
    let mut stream = TcpStream::connect(app.running.address()).await.unwrap();
    // A server that has heard enough may close before all is written.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn it_says_whether_it_lives_and_is_ready() {
    let app = TestApp::start().await;
    assert_eq!(send(app.request(Method::GET, "/livez")).await.expect(200).text, "ok");
    let ready = send(app.request(Method::GET, "/readyz")).await.expect(200);
    assert_eq!(ready.json, json!({"ready": true}));
    let verbose = send(app.request(Method::GET, "/readyz?verbose")).await.expect(200);
    let names: Vec<&str> = verbose.json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["draining", "database", "schema", "disk", "erasures"]);
    let metrics = send(app.request(Method::GET, "/metrics")).await.expect(200);
    assert!(metrics.text.contains("personas_http_requests_total"), "{}", metrics.text);

    app.running.drain();
    let draining = send(app.request(Method::GET, "/readyz?verbose")).await.expect(503);
    assert_eq!(
        draining.json["checks"][0],
        json!({"name": "draining", "ok": false, "reason": "the process is stopping"})
    );
    app.track("/v1/track", r#"{"userId":"u","event":"E"}"#).await.expect(200);
    send(app.request(Method::GET, "/livez")).await.expect(200);
}

#[tokio::test]
async fn a_database_that_is_gone_or_behind_is_not_ready() {
    let app = TestApp::start().await;
    sqlx::query("UPDATE _sqlx_migrations SET success = false").execute(&app.db.pool).await.unwrap();
    let behind = send(app.request(Method::GET, "/readyz?verbose")).await.expect(503);
    assert_eq!(behind.json["checks"][2]["ok"], false);
    app.running.pool().close().await;
    let gone = send(app.request(Method::GET, "/readyz")).await.expect(503);
    assert_eq!(gone.json, json!({"ready": false}));
    send(app.request(Method::GET, "/livez")).await.expect(200);
}

#[tokio::test]
async fn stopping_finishes_what_is_under_way() {
    let app = TestApp::start().await;
    let mut stream = TcpStream::connect(app.running.address()).await.unwrap();
    let body = r#"{"userId":"u","event":"E"}"#;
    let length = body.len();
    let head = format!(
        "POST /v1/track?writeKey={WRITE_KEY} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // It is under way when the body is asked for.
    let mut asked = vec![0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut asked).await.unwrap();
    assert!(asked.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&asked));
    let (address, db) = (app.running.address(), app.db);
    let finish = async {
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).await.is_ok() {
            assert!(Instant::now() < deadline, "new connections are still taken");
            tokio::task::yield_now().await;
        }
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (stopped, answer) = tokio::join!(app.running.stop(Duration::ZERO), finish);
    stopped.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let again = Wish::default().start_on(db).await;
    let pipeline = again.get("/v1/spaces/default/pipeline").await.expect(200);
    assert_eq!(pipeline.json["log_end_offset"], 1);
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let app = TestApp::start().await;
    for path in ["/livez", "/nope", "/v1/spaces", "/v1/projects/x/settings"] {
        let answer = send(app.request(Method::GET, path)).await;
        assert_eq!(answer.header("request-id").len(), 36, "{path}");
        let given = send(app.request(Method::GET, path).header("request-id", "abc-1")).await;
        assert_eq!(given.header("request-id"), "abc-1");
        for wild in ["a b", "<script>", &"x".repeat(65), ""] {
            let answer = send(app.request(Method::GET, path).header("request-id", wild)).await;
            assert_eq!(answer.header("request-id").len(), 36, "{wild}");
        }
    }
}

#[tokio::test]
async fn malformed_requests_are_never_served() {
    let app = TestApp::start().await;
    let body = "Content-Length: 2\r\n";
    let requests = [
        format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(64_000)),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(64_000)),
        format!("GET /livez HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: 1\r\n".repeat(200)),
        "GET /livez HTTP/9.9\r\nHost: x\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "\0\0\0\0\r\n\r\n".to_owned(),
        format!("POST /v1/track HTTP/1.1\r\nHost: x\r\n{body}Content-Length: 3\r\n\r\n{{}}}}"),
        "POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_owned(),
        "POST /v1/track HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n{}".to_owned(),
        "GET /livez HTTP/1.1\r\nHost : x\r\n\r\n".to_owned(),
        "GET /livez HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n".to_owned(),
    ];
    for request in requests {
        let answer = raw(&app, &request).await;
        let shown: String = request.chars().take(60).collect();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{shown}: {answer}");
    }
}

#[tokio::test]
async fn idle_connections_are_kept_but_not_half_a_request() {
    let app = Wish::default().option("server.header_timeout_ms", "200").start().await;
    let mut stream = TcpStream::connect(app.running.address()).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
        // Longer than a head may take: the pause is what is tried here.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stream.write_all(b"GET /livez HT").await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(
        ended.is_ok() && !String::from_utf8_lossy(&rest).contains("200 OK"),
        "half a request was waited for"
    );
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let app = Wish::default().option("server.max_connections", "2").start().await;
    let mut taken = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(app.running.address()).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
        taken.push(stream);
    }
    let third = send(app.request(Method::GET, "/livez"));
    tokio::pin!(third);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut third).await;
    assert!(early.is_err(), "served while the places were taken");
    drop(taken);
    third.await.expect(200);
}

#[tokio::test]
async fn the_test_clock_moves_forward_only_and_is_kept() {
    let noon = "2024-03-01T12:00:00.000Z";
    let app = Wish::default().at(noon).start().await;
    let later = "2024-03-15T00:00:00.000Z";
    let moved = app.put("/v1/test-clock", json!({"now": "2024-03-15T00:00:00Z"})).await.expect(200);
    assert_eq!(moved.json, json!({"now": later}));
    let back = app.put("/v1/test-clock", json!({"now": noon})).await.expect_problem(422, "invalid");
    assert_eq!(back.json["field"], "now");
    app.put("/v1/test-clock", json!({"now": "soon"})).await.expect_problem(422, "invalid");
    app.put("/v1/test-clock", json!({"then": noon})).await.expect_problem(422, "invalid");
    app.put("/v1/test-clock", json!({"now": later})).await.expect(200);
    // It is the time of what is received.
    app.track("/v1/track", "{}").await.expect(400);
    let rows = app.get("/v1/spaces/default/rejected-events").await.expect(200);
    assert_eq!(rows.json["data"][0]["received_at"], later);

    let scoped = json!({"name": "admin", "scopes": ["read", "write", "admin"]});
    let token = app.post("/v1/spaces/default/tokens", scoped).await.expect(201);
    let token = token.json["token"].as_str().unwrap();
    let body = Some(json!({"now": "2024-04-01T00:00:00Z"}));
    app.call_as(token, Method::PUT, "/v1/test-clock", body).await.expect_problem(403, "forbidden");

    let TestApp { running, db, .. } = app;
    running.stop(Duration::ZERO).await.unwrap();
    let again = Wish::default().at(noon).start_on(db).await;
    again.put("/v1/test-clock", json!({"now": "2024-03-14T00:00:00Z"})).await.expect_problem(422, "invalid");

    let real = TestApp::start().await;
    real.put("/v1/test-clock", json!({"now": later})).await.expect_problem(404, "not_found");
}
