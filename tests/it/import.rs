//! `personas import`, as a user runs it, against the service of this process.

use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::app::{TestApp, WRITE_KEY, send};

/// Runs the command until it ends.
async fn import(url: &str, file: &Path) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_personas"))
        .args(["import", "--url", url, "--write-key", WRITE_KEY])
        .arg(file)
        .env_remove("PERSONAS_SPACE")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap()
}

/// The closing count: accepted, duplicate, rejected.
#[track_caller]
fn counts(output: &Output) -> [u64; 3] {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", errors(output));
    let count = |word: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(word));
        line.unwrap_or_else(|| panic!("no {word}: {text}")).trim().parse().unwrap()
    };
    ["accepted", "duplicate", "rejected"].map(count)
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn events(count: usize) -> String {
    let event = |n: usize| {
        let call = json!({"type": "track", "event": "Seen", "userId": format!("u{}", n % 50), "messageId": format!("m-{n}")});
        format!("{call}\n")
    };
    (0..count).map(event).collect()
}

#[tokio::test]
async fn a_second_run_finds_only_duplicates() {
    let (app, folder) = (TestApp::start().await, tempfile::tempdir().unwrap());
    let file = folder.path().join("events.jsonl.gz");
    let mut gzip =
        flate2::write::GzEncoder::new(std::fs::File::create(&file).unwrap(), flate2::Compression::fast());
    // Without message ids as well: they are made, and the same in every run.
    let without = "{\"type\":\"track\",\"event\":\"Seen\",\"userId\":\"u1\"}\n".repeat(3);
    std::io::Write::write_all(&mut gzip, format!("{}{without}", events(1_300)).as_bytes()).unwrap();
    gzip.finish().unwrap();

    assert_eq!(counts(&import(&app.url, &file).await), [1_303, 0, 0]);
    assert_eq!(counts(&import(&app.url, &file).await), [0, 1_303, 0]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the journal is removed");
    let pipeline = app.get("/v1/spaces/default/pipeline").await.expect(200).json;
    assert_eq!(pipeline["duplicates"], 1_303);
    assert_eq!(pipeline["profiles"]["users"], 50);
}

#[tokio::test]
async fn refused_lines_are_told_with_their_number() {
    let (app, folder) = (TestApp::start().await, tempfile::tempdir().unwrap());
    let file = folder.path().join("events.jsonl");
    let nobody = "{\"type\":\"track\",\"event\":\"Seen\"}";
    let text = format!(
        "{}\n{nobody}\nthis is no JSON\n{}",
        events(2),
        "{\"type\":\"track\",\"userId\":\"u1\",\"event\":\"Seen\"}"
    );
    std::fs::write(&file, text).unwrap();
    let output = import(&app.url, &file).await;
    assert_eq!(counts(&output), [3, 0, 2]);
    let told = errors(&output);
    assert!(told.contains("line 4: no_user_anon_id: "), "{told}");
    assert!(told.contains("line 5: bad_request: "), "{told}");
}

/// Lets only the batch with the first event through, and refuses the key for all others, until it is `open`.
async fn gate(target: String, open: Arc<AtomicBool>) -> (String, JoinSet<()>) {
    let forward = move |method: Method, uri: axum::http::Uri, headers: HeaderMap, body: Bytes| {
        let (url, open) = (format!("{target}{uri}"), open.load(Ordering::SeqCst));
        async move {
            let is_first = || String::from_utf8_lossy(&body).contains("\"m-0\"");
            if method == Method::POST && !open && !is_first() {
                return StatusCode::UNAUTHORIZED.into_response();
            }
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let mut request = client.request(method, url).body(body);
            if let Some(key) = headers.get("authorization") {
                request = request.header("authorization", key);
            }
            let answer = send(request).await;
            let offset = answer.headers.get("personas-offset").cloned();
            let mut response: Response =
                (StatusCode::from_u16(answer.status).unwrap(), answer.text).into_response();
            response
                .headers_mut()
                .extend(offset.map(|offset| (HeaderName::from_static("personas-offset"), offset)));
            response
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = axum::serve(listener, Router::new().fallback(forward));
    let mut serving = JoinSet::new();
    serving.spawn(async move { serve.await.unwrap() });
    (format!("http://{address}"), serving)
}

#[tokio::test]
async fn an_import_goes_on_where_it_stopped() {
    let (app, folder) = (TestApp::start().await, tempfile::tempdir().unwrap());
    let file = folder.path().join("events.jsonl");
    std::fs::write(&file, events(1_200)).unwrap();
    let journal = folder.path().join("events.jsonl.personas-import");
    let open = Arc::new(AtomicBool::new(false));
    let (url, _serving) = gate(app.url.clone(), Arc::clone(&open)).await;
    let stopped = import(&url, &file).await;
    assert!(!stopped.status.success());
    let told = errors(&stopped);
    assert!(told.contains("stopped after line 500; the same command goes on from there"), "{told}");
    let text = std::fs::read_to_string(&journal).unwrap();
    assert!(text.contains("\"line\":500") && !text.contains(WRITE_KEY), "{text}");

    open.store(true, Ordering::SeqCst);
    let resumed = import(&url, &file).await;
    assert_eq!(counts(&resumed), [1_200, 0, 0], "nothing was sent twice");
    assert!(errors(&resumed).contains("resuming after line 500"), "{}", errors(&resumed));
    assert!(!journal.exists());
}

#[tokio::test]
async fn what_makes_no_sense_is_said_at_once() {
    let (app, folder) = (TestApp::start().await, tempfile::tempdir().unwrap());
    let missing = import(&app.url, &folder.path().join("nothing.jsonl")).await;
    assert!(!missing.status.success() && errors(&missing).contains("nothing.jsonl"), "{}", errors(&missing));
    let file = folder.path().join("events.jsonl");
    std::fs::write(&file, events(1)).unwrap();
    let unreachable = import("http://127.0.0.1:9", &file).await;
    assert!(
        errors(&unreachable).contains("no server answers at http://127.0.0.1:9"),
        "{}",
        errors(&unreachable)
    );
}

#[tokio::test]
async fn a_report_is_about_ones_own_events() {
    let app = TestApp::start().await;
    let other = app.post("/v1/spaces/default/sources", json!({"name": "other"})).await.expect(201).json;
    let key = other["write_key"].as_str().unwrap().to_owned();
    let offset = app.track("/v1/track", json!({"event": "Seen", "userId": "u1"})).await.expect(200).offset();
    let ask = |key: String, ranges: serde_json::Value| {
        let request = app.request(Method::POST, "/v1/import/report").basic_auth(key, Some(""));
        send(request.body(json!({ "ranges": ranges }).to_string()))
    };
    app.get(&format!("/v1/spaces/default/audiences/sizes?min_offset={offset}")).await.expect(200);
    let report = ask(WRITE_KEY.to_owned(), json!([[offset, offset]])).await.expect(200).json;
    assert_eq!(report, json!({"processed": true, "duplicates": 0}));
    assert_eq!(ask(WRITE_KEY.to_owned(), json!([[offset, offset + 1]])).await.json["processed"], false);
    ask(key, json!([[offset, offset]])).await.expect(403);
    ask("unknown".to_owned(), json!([])).await.expect(401);
    for wrong in [json!([[0, 1]]), json!([[2, 1]]), json!([[1, 1_000_000]]), json!([1])] {
        ask(WRITE_KEY.to_owned(), wrong).await.expect(422);
    }
}
