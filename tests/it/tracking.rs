//! The tracking API as SDKs use it: paths, keys, answers, CORS, verdicts (decisions T1 to T16, clients.md).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Answer, TestApp, WRITE_KEY, Wish, send};

const SINGLE: [(&str, &str); 12] = [
    ("/v1/identify", r#"{"userId":"u","traits":{"plan":"pro"}}"#),
    ("/v1/track", r#"{"userId":"u","event":"Ordered"}"#),
    ("/v1/page", r#"{"anonymousId":"a","name":"Home"}"#),
    ("/v1/screen", r#"{"anonymousId":"a","name":"Home"}"#),
    ("/v1/group", r#"{"userId":"u","groupId":"g"}"#),
    ("/v1/alias", r#"{"userId":"u","previousId":"a"}"#),
    ("/v1/i", r#"{"userId":null,"anonymousId":"a","traits":{}}"#),
    ("/v1/t", r#"{"anonymousId":"a","event":"Ordered"}"#),
    ("/v1/p", r#"{"anonymousId":"a"}"#),
    ("/v1/s", r#"{"anonymousId":"a"}"#),
    ("/v1/g", r#"{"anonymousId":"a","groupId":"g"}"#),
    ("/v1/a", r#"{"userId":"u","previousId":"a"}"#),
];
const BATCH: [&str; 4] = ["/v1/batch", "/v1/import", "/v1/b", "/beacon/v1/batch"];
const GOOD: &str = r#"{"userId":"u","event":"Ordered"}"#;

fn batch(items: impl IntoIterator<Item = Value>) -> String {
    json!({"batch": items.into_iter().collect::<Vec<_>>()}).to_string()
}

fn good_item() -> Value {
    json!({"type": "track", "userId": "u", "event": "Ordered"})
}

async fn rejected(app: &TestApp) -> Vec<Value> {
    let list = app.get("/v1/spaces/default/rejected-events").await.expect(200);
    let list = list.json["data"].as_array().unwrap().clone();
    let pipeline = app.get("/v1/spaces/default/pipeline").await.expect(200).json;
    assert!(list.len() >= 100 || pipeline["rejected_last_hour"] == list.len(), "{pipeline}");
    list
}

#[tokio::test]
async fn every_path_is_served_with_a_plain_200_and_its_offset() {
    let app = TestApp::start().await;
    let mut offset = 0;
    let one = batch([good_item()]);
    for (path, body) in SINGLE.into_iter().chain(BATCH.map(|path| (path, one.as_str()))) {
        for path in [path.to_owned(), format!("{path}/")] {
            let answer = app.track(&path, body).await.expect(200);
            offset += 1;
            assert_eq!(answer.text, r#"{"success":true}"#, "{path}");
            assert_eq!(answer.header("content-type"), "application/json");
            assert_eq!(answer.offset(), offset, "{path}");
            assert!(!answer.header("request-id").is_empty());
        }
    }
    let metrics = app.track("/v1/m", r#"{"series":[]}"#).await.expect(200);
    assert_eq!(metrics.text, r#"{"success":true}"#);
    assert_eq!(metrics.header("personas-offset"), "", "nothing is stored");
    let pipeline = app.get("/v1/spaces/default/pipeline").await.expect(200);
    assert_eq!(pipeline.json["log_end_offset"], offset);
}

#[tokio::test]
async fn the_write_key_is_found_wherever_sdks_put_it() {
    let app = TestApp::start().await;
    let post = |path: &str| app.request(Method::POST, path);
    let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
    let in_body = format!(r#"{{"writeKey":"{WRITE_KEY}","userId":"u","event":"E"}}"#);
    let in_query = format!("/v1/track?writeKey={WRITE_KEY}");
    let accepted = [
        post("/v1/track").header("authorization", basic(&format!("{WRITE_KEY}:"))).body(GOOD),
        post("/v1/track").header("authorization", basic(WRITE_KEY)).body(GOOD),
        post("/v1/track").header("authorization", basic(&format!("{WRITE_KEY}:x"))).body(GOOD),
        post("/v1/track").bearer_auth(WRITE_KEY).body(GOOD),
        post("/v1/track").header("x-write-key", WRITE_KEY).body(GOOD),
        post("/v1/track").header("x-write-key", format!("{WRITE_KEY}:secret")).body(GOOD),
        post(&in_query).header("content-type", "text/plain").body(GOOD),
        post("/v1/track").body(in_body.clone()),
        post("/v1/track").header("authorization", basic(":")).body(in_body.clone()),
        // The header comes first.
        post("/v1/track?writeKey=wrong").bearer_auth(WRITE_KEY).body(GOOD),
    ];
    for request in accepted {
        send(request).await.expect(200);
    }
    let refused = [
        post("/v1/track").body(GOOD),
        post("/v1/track").bearer_auth("wk_unknown").body(in_body),
        post("/v1/track?writeKey=").body(GOOD),
        post("/v1/track").body("not json at all"),
        post("/v1/track").body(r#"{"writeKey":7,"userId":"u","event":"E"}"#),
        // An access token is no write key.
        post("/v1/track").bearer_auth(crate::harness::app::TOKEN).body(GOOD),
    ];
    for request in refused {
        let answer = send(request).await.expect(401);
        assert_eq!(answer.json["success"], false);
        assert_eq!(answer.json["code"], "unknown_source");
        assert!(answer.json["message"].is_string());
        assert_eq!(answer.header("www-authenticate"), "", "browsers would ask for a password");
    }
}

#[tokio::test]
async fn the_content_type_does_not_matter() {
    let app = TestApp::start().await;
    for kind in [
        "text/plain",
        "application/json;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "image/png",
        "§",
    ] {
        let request = app.request(Method::POST, "/v1/track").basic_auth(WRITE_KEY, Some(""));
        send(request.header("content-type", kind).body(GOOD)).await.expect(200);
    }
}

#[tokio::test]
async fn browsers_may_send_from_anywhere() {
    let app = TestApp::start().await;
    let paths = SINGLE.iter().map(|(path, _)| *path).chain(BATCH).chain(["/v1/m", "/v1/projects/k/settings"]);
    for path in paths {
        let asked = "authorization,x-retry-count,anonymousid,sentat,rsa-retry-reason";
        let request = app
            .request(Method::OPTIONS, path)
            .header("origin", "https://shop.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", asked);
        let answer = send(request).await.expect(204);
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
        assert_eq!(answer.header("access-control-allow-headers"), asked);
        assert!(answer.header("access-control-allow-methods").contains("POST"));
        assert!(!answer.header("access-control-max-age").is_empty());
    }
    for answer in [app.track("/v1/t", GOOD).await.expect(200), app.track("/v1/t", "{}").await.expect(400)] {
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(answer.header("access-control-expose-headers").contains("Retry-After"));
    }
    // Tracking paths only.
    let answer = app.get("/v1/spaces").await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

/// Path, body; code, field.
type BadCall = (&'static str, String, &'static str, &'static str);

#[expect(clippy::too_many_lines, reason = "a table")]
fn bad_calls() -> Vec<BadCall> {
    let long = |n: usize| "x".repeat(n);
    let nested = format!("{}1{}", "[".repeat(33), "]".repeat(33));
    let consent = |consent: &str| {
        format!(
            r#"{{"userId":"u","event":"Segment Consent Preference Updated","context":{{"consent":{consent}}}}}"#
        )
    };
    let preferences = "context.consent.categoryPreferences";
    vec![
        ("/v1/track", r#"{"event":"E"}"#.into(), "no_user_anon_id", "userId"),
        ("/v1/track", r#"{"userId":" ","anonymousId":null,"event":"E"}"#.into(), "no_user_anon_id", "userId"),
        ("/v1/track", r#"{"userId":{},"event":"E"}"#.into(), "id_not_string", "userId"),
        (
            "/v1/track",
            r#"{"userId":"u","anonymousId":[],"event":"E"}"#.into(),
            "id_not_string",
            "anonymousId",
        ),
        ("/v1/track", r#"{"userId":"u"}"#.into(), "event_not_defined", "event"),
        ("/v1/track", r#"{"userId":"u","event":""}"#.into(), "event_not_defined", "event"),
        ("/v1/track", r#"{"userId":"u","event":7}"#.into(), "event_not_string", "event"),
        ("/v1/track", format!(r#"{{"userId":"u","event":"{}"}}"#, long(256)), "event_name_too_long", "event"),
        (
            "/v1/track",
            r#"{"userId":"u","event":"E","properties":[]}"#.into(),
            "properties_not_object",
            "properties",
        ),
        ("/v1/identify", r#"{"userId":"u","traits":"x"}"#.into(), "traits_not_object", "traits"),
        ("/v1/page", r#"{"userId":"u","name":{}}"#.into(), "name_not_string", "name"),
        ("/v1/page", r#"{"userId":"u","category":1}"#.into(), "category_not_string", "category"),
        (
            "/v1/group",
            format!(r#"{{"userId":"u","groupId":"{}"}}"#, long(501)),
            "group_id_too_long",
            "groupId",
        ),
        (
            "/v1/identify",
            format!(r#"{{"userId":"u","messageId":"{}"}}"#, long(101)),
            "message_id_too_long",
            "messageId",
        ),
        (
            "/v1/identify",
            r#"{"userId":"u","timestamp":"1969-12-31T23:59:59Z"}"#.into(),
            "timestamp_out_of_range",
            "timestamp",
        ),
        (
            "/v1/identify",
            r#"{"userId":"u","timestamp":"yesterday"}"#.into(),
            "timestamp_invalid",
            "timestamp",
        ),
        ("/v1/identify", r#"{"userId":"u","traits":{"n":1e400}}"#.into(), "number_out_of_range", ""),
        ("/v1/identify", format!(r#"{{"userId":"u","traits":{{"n":{nested}}}}}"#), "json_too_deep", ""),
        (
            "/v1/identify",
            format!(r#"{{"userId":"u","traits":{{"n":"{}"}}}}"#, long(33_000)),
            "payload_too_large",
            "",
        ),
        ("/v1/identify", "[]".into(), "bad_request", ""),
        ("/v1/identify", String::new(), "bad_request", ""),
        ("/v1/identify", "{".into(), "bad_request", ""),
        ("/v1/alias", r#"{"userId":"u","context":"x"}"#.into(), "context_not_object", "context"),
        (
            "/v1/alias",
            r#"{"userId":"u","integrations":true}"#.into(),
            "integrations_not_object",
            "integrations",
        ),
        ("/v1/identify", r#"{"userId":"u","messageId":{}}"#.into(), "message_id_not_string", "messageId"),
        ("/v1/screen", r#"{"userId":"u","name":true}"#.into(), "name_not_string", "name"),
        ("/v1/track", consent("null"), "consent_categorypreferences_should_exist", preferences),
        ("/v1/track", consent("{}"), "consent_categorypreferences_should_exist", preferences),
        (
            "/v1/track",
            consent(r#"{"categoryPreferences":[true]}"#),
            "consent_categorypreferences_fields_should_be_object",
            preferences,
        ),
        (
            "/v1/track",
            consent(r#"{"categoryPreferences":{"ads":"yes"}}"#),
            "consent_categorypreferences_fields_should_be_bool",
            preferences,
        ),
        (
            "/v1/track",
            consent(r#"{"version":"2","categoryPreferences":{"ads":true}}"#),
            "consent_version_should_be_number",
            "context.consent.version",
        ),
        (
            "/v1/track",
            r#"{"userId":"u","event":"E","context":{"device":{"advertisingId":7}}}"#.into(),
            "device_advertisingid_should_be_string",
            "context.device.advertisingId",
        ),
        ("/v1/batch", r#"{"batch":[{}],"context":[]}"#.into(), "context_not_object", "context"),
        (
            "/v1/batch",
            r#"{"batch":[{}],"integrations":"All"}"#.into(),
            "integrations_not_object",
            "integrations",
        ),
        ("/v1/batch", "{}".into(), "bad_request", "batch"),
        ("/v1/batch", r#"{"batch":{}}"#.into(), "bad_request", ""),
        ("/v1/batch", r#"{"batch":[]}"#.into(), "empty_batch", "batch"),
    ]
}

#[tokio::test]
async fn bad_calls_get_the_code_that_fits() {
    let app = TestApp::start().await;
    let cases = bad_calls();
    for (path, body, code, field) in &cases {
        let answer = app.track(path, body).await.expect(400);
        let shown: String = body.chars().take(80).collect();
        assert_eq!(answer.json["code"], *code, "{path} {shown}: {}", answer.text);
        assert_eq!(answer.json["success"], false);
        assert!(answer.json["message"].as_str().unwrap().len() > 10);
        assert_eq!(answer.json["field"].as_str().unwrap_or_default(), *field, "{path} {shown}");
    }
    // Nothing is dropped silently: all are in the list, newest first.
    let list = rejected(&app).await;
    assert_eq!(list.len(), cases.len());
    let codes: Vec<&str> = list.iter().rev().map(|row| row["code"].as_str().unwrap()).collect();
    let mut expected: Vec<&str> = cases.iter().map(|case| case.2).collect();
    let mut found = codes.clone();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn one_bad_event_does_not_fail_its_batch() {
    let app = TestApp::start().await;
    let bad = json!({"type": "track", "userId": "u", "messageId": "m-1"});
    let items = batch([good_item(), bad, good_item(), json!({"userId": "u"}), json!(7)]);
    let answer = app.track("/v1/batch", items).await.expect(200);
    assert_eq!(answer.json["success"], true);
    assert_eq!(answer.json["accepted"], 2);
    assert_eq!(answer.offset(), 2);
    let rejected_items = answer.json["rejected"].as_array().unwrap();
    let seen: Vec<(u64, &str)> = rejected_items
        .iter()
        .map(|item| (item["index"].as_u64().unwrap(), item["code"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, [(1, "event_not_defined"), (3, "type_missing"), (4, "bad_request")]);
    assert_eq!(rejected_items[0]["message_id"], "m-1");
    assert_eq!(rejected_items[0]["field"], "event");

    let all_bad =
        app.track("/v1/batch", batch([json!({"type": "track"}), json!({"type": "x"})])).await.expect(400);
    assert_eq!(all_bad.json["success"], false);
    assert_eq!(all_bad.json["code"], "multi_user_error");
    assert!(all_bad.json["message"].is_string(), "without it some SDKs retry a 400");
    assert_eq!(all_bad.json["accepted"], 0);
    assert_eq!(all_bad.json["rejected"].as_array().unwrap().len(), 2);
    assert_eq!(all_bad.header("personas-offset"), "");
    assert_eq!(rejected(&app).await.len(), 5);
}

#[tokio::test]
async fn refusals_are_listed_by_page_and_code() {
    let app = TestApp::start().await;
    for i in 0..5 {
        app.track("/v1/track", json!({"userId": format!("u{i}")})).await.expect(400);
    }
    app.track("/v1/identify", r#"{"traits":{}}"#).await.expect(400);
    let path = "/v1/spaces/default/rejected-events";
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page =
            app.get(&format!("{path}?code=event_not_defined&limit=2&cursor={cursor}")).await.expect(200);
        seen.extend(page.json["data"].as_array().unwrap().clone());
        cursor = page.json["cursor"]["next"].as_str().unwrap().to_owned();
        assert_eq!(page.json["cursor"]["has_more"], !cursor.is_empty());
        assert_eq!(page.json["cursor"]["url"], path);
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 5);
    assert_eq!(seen[0]["event"], r#"{"userId":"u4"}"#, "newest first");
    assert!(seen[0]["source"].as_str().unwrap().starts_with("src_"));
    assert!(seen[0]["id"].as_str().unwrap().starts_with("rej_"));
    app.get(&format!("{path}?cursor=nonsense")).await.expect_problem(400, "invalid_cursor");
    app.get(&format!("{path}?limit=0")).await.expect_problem(400, "bad_request");
    app.get(&format!("{path}?limit=1001")).await.expect_problem(400, "bad_request");
    app.get(&format!("{path}?limit=1000&&code=other")).await.expect(200);
    app.get(&format!("{path}?code=%00")).await.expect_problem(400, "bad_request");
}

#[tokio::test]
async fn a_disabled_source_is_refused_until_it_is_enabled() {
    let app = TestApp::start().await;
    let made = app.post("/v1/spaces/default/sources", json!({"name": "shop"})).await.expect(201);
    let (id, key) = (made.json["id"].as_str().unwrap(), made.json["write_key"].as_str().unwrap());
    let path = format!("/v1/spaces/default/sources/{id}");
    let track = || send(app.request(Method::POST, "/v1/track").basic_auth(key, Some("")).body(GOOD));
    track().await.expect(200);
    app.patch(&path, json!({"enabled": false})).await.expect(200);
    let refused: Answer = track().await.expect(403);
    assert_eq!((&refused.json["success"], &refused.json["code"]), (&json!(false), &json!("source_disabled")));
    app.patch(&path, json!({"enabled": true})).await.expect(200);
    track().await.expect(200);
}

#[tokio::test]
async fn the_browser_sdk_starts_from_this_host_alone() {
    let app = TestApp::start().await;
    let host = app.url.trim_start_matches("http://").to_owned();
    let settings = || app.request(Method::GET, &format!("/v1/projects/{WRITE_KEY}/settings"));
    let answer = send(settings()).await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let segment = &answer.json["integrations"]["Segment.io"];
    assert_eq!(segment["apiKey"], WRITE_KEY);
    assert_eq!(segment["apiHost"], format!("{host}/v1"));
    assert_eq!(segment["protocol"], "http");
    assert_eq!(answer.json["metrics"]["sampleRate"], 0);
    let proxied = settings().header("x-forwarded-proto", "https").header("x-forwarded-host", "cdp.example");
    let answer = send(proxied).await.expect(200);
    let segment = &answer.json["integrations"]["Segment.io"];
    assert_eq!((&segment["apiHost"], &segment["protocol"]), (&json!("cdp.example/v1"), &json!("https")));
    let unknown = send(app.request(Method::GET, "/v1/projects/nobody/settings")).await.expect(401);
    assert_eq!(unknown.json["code"], "unknown_source");

    let library = send(app.request(Method::GET, "/analytics.js/v1/k/analytics.min.js")).await.expect(404);
    assert!(library.json["message"].as_str().unwrap().contains("ingest.analytics_js_file"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "window.analytics=1").unwrap();
    let app = Wish::default().option("ingest.analytics_js_file", file.path().to_str().unwrap()).start().await;
    let library = send(app.request(Method::GET, "/analytics.js/v1/k/analytics.min.js")).await.expect(200);
    assert_eq!(library.text, "window.analytics=1");
    assert!(library.header("content-type").starts_with("application/javascript"));
}

#[tokio::test]
async fn nothing_is_ever_redirected() {
    let app = TestApp::start().await;
    for path in
        ["/v1", "/v1/", "//v1/track", "/v1//track", "/V1/track", "/v1/track//", "/v1/unknown", "/docs/"]
    {
        for method in [Method::GET, Method::POST] {
            let answer = send(app.request(method, path)).await;
            assert!(![301, 302, 303, 307, 308].contains(&answer.status), "{path}");
            assert!(answer.status >= 400 && answer.json["code"].is_string(), "{path}: {}", answer.text);
        }
    }
    let wrong_method = send(app.request(Method::GET, "/v1/track")).await.expect(405);
    assert_eq!(wrong_method.json["code"], "method_not_allowed");
}

#[tokio::test]
async fn pages_and_screens_are_events_that_carry_their_name() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    app.make_live(
        "computed-traits",
        "homes",
        "event('Page Viewed').where(property('page_name') = 'Home').count()",
    )
    .await;
    app.make_live(
        "computed-traits",
        "carts",
        "event('Screen Viewed').where(property('screen_name') = 'Cart').count()",
    )
    .await;
    let mut offset = 0;
    for (path, call, expected) in [
        ("page", json!({"name": "Home"}), json!({"name": "Home", "page_name": "Home"})),
        (
            "screen",
            json!({"name": "Cart", "category": "Shop", "properties": {"n": 1}}),
            json!({"n": 1, "name": "Cart", "screen_name": "Cart", "category": "Shop"}),
        ),
        // What the client says itself stays.
        (
            "screen",
            json!({"name": "Cart", "properties": {"name": "Mine"}}),
            json!({"name": "Mine", "screen_name": "Cart"}),
        ),
        ("screen", json!({"properties": {"name": "Cart"}}), json!({"name": "Cart", "screen_name": "Cart"})),
        (
            "page",
            json!({"name": "Home", "properties": {"page_name": "Own"}}),
            json!({"name": "Home", "page_name": "Own"}),
        ),
        ("page", json!({}), json!({})),
    ] {
        let mut call = call;
        call["userId"] = json!("u");
        let answer = app.track(&format!("/v1/{path}"), call).await.expect(200);
        offset = answer.offset();
        let path_of = "/v1/spaces/default/collections/users/profiles/user_id:u/events";
        let events = app.get(&format!("{path_of}?limit=200&min_offset={offset}")).await.expect(200).json;
        let event =
            events["data"].as_array().unwrap().iter().find(|e| e["offset"] == offset).unwrap().clone();
        let name = if path == "page" { "Page Viewed" } else { "Screen Viewed" };
        assert_eq!((&event["type"], &event["event"]), (&json!(path), &json!(name)));
        assert_eq!(event.get("properties").unwrap_or(&json!({})), &expected);
    }
    let traits =
        format!("/v1/spaces/default/collections/users/profiles/user_id:u/traits?min_offset={offset}");
    assert_eq!(app.get(&traits).await.expect(200).json["traits"], json!({"homes": 1, "carts": 3}));
}
