//! Write keys that expire, and pages a source takes nothing from.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Answer, TestApp, Wish, send};

const SOURCES: &str = "/v1/spaces/default/sources";

async fn track(app: &TestApp, key: &str, origin: Option<&str>) -> Answer {
    let request =
        app.request(Method::POST, "/v1/track").bearer_auth(key).body(r#"{"userId":"u","event":"E"}"#);
    send(if let Some(origin) = origin { request.header("origin", origin) } else { request }).await
}

#[tokio::test]
async fn a_key_works_beside_its_successor_until_it_expires() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    let two = app.post(SOURCES, json!({"name": "shop"})).await.expect(201).json;
    let (id, old) = (two["id"].as_str().unwrap(), two["write_key"].as_str().unwrap());
    let new = app.post(&format!("{SOURCES}/{id}/write-keys"), json!({})).await.expect(201).json;
    let path = format!("{SOURCES}/{id}/write-keys/{}", &old[..8]);
    app.patch(&path, json!({"expires_at": "2024-03-02"})).await.expect(204);
    let listed = app.get(SOURCES).await.expect(200).json["data"][1]["write_keys"].clone();
    for key in listed.as_array().unwrap() {
        let is_old = key["prefix"] == old[..8];
        let expected = if is_old { json!("2024-03-02T00:00:00.000Z") } else { Value::Null };
        assert_eq!(key["expires_at"], expected);
    }
    app.put("/v1/test-clock", json!({"now": "2024-03-01T23:59:59.999Z"})).await.expect(200);
    track(&app, old, None).await.expect(200);
    app.put("/v1/test-clock", json!({"now": "2024-03-02T00:00:00Z"})).await.expect(200);
    assert_eq!(track(&app, old, None).await.expect(401).json["code"], "unknown_source");
    track(&app, new["write_key"].as_str().unwrap(), None).await.expect(200);
    app.patch(&path, json!({"expires_at": null})).await.expect(204);
    track(&app, old, None).await.expect(200);
    for bad in [json!({}), json!({"expires_at": "soon"}), json!({"until": null})] {
        app.patch(&path, bad).await.expect_problem(422, "invalid");
    }
    app.patch(&format!("{SOURCES}/{id}/write-keys/wk_none"), json!({"expires_at": null}))
        .await
        .expect_problem(404, "not_found");
}

#[tokio::test]
async fn pages_that_are_not_allowed_are_refused_and_cannot_read_the_answer() {
    let app = TestApp::start().await;
    let beside = app.beside().await;
    let origins = json!(["https://Shop.example", "https://*.shop.example:8443"]);
    let made = app.post(SOURCES, json!({"name": "web", "allowed_origins": origins})).await.expect(201).json;
    let key = made["write_key"].as_str().unwrap();
    assert_eq!(made["allowed_origins"], json!(["https://shop.example", "https://*.shop.example:8443"]));
    for origin in [None, Some("https://shop.example"), Some("https://a.shop.example:8443")] {
        let answer = track(&app, key, origin).await.expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{origin:?}");
    }
    for origin in ["http://shop.example", "https://evil.test", "null", "https://shop.example.evil.test"] {
        for app in [&app, &beside] {
            let answer = track(app, key, Some(origin)).await.expect(403);
            assert_eq!(
                (&answer.json["code"], &answer.json["field"]),
                (&json!("origin_not_allowed"), &json!("Origin"))
            );
            assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
        }
        let in_body = json!({"writeKey": key, "userId": "u", "event": "E"}).to_string();
        let beacon = app.request(Method::POST, "/v1/track").header("origin", origin).body(in_body);
        assert_eq!(send(beacon).await.expect(403).json["code"], "origin_not_allowed");
        let settings = app.request(Method::GET, &format!("/v1/projects/{key}/settings"));
        send(settings.header("origin", origin)).await.expect(403);
        let preflight = app.request(Method::OPTIONS, &format!("/v1/track?writeKey={key}"));
        let answer = send(preflight.header("origin", origin)).await.expect(403);
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
    let path = format!("{SOURCES}/{}", made["id"].as_str().unwrap());
    for bad in [json!(["shop.example"]), json!(["https://shop.example/path"]), json!("https://shop.example")]
    {
        app.patch(&path, json!({"allowed_origins": bad})).await.expect_problem(422, "invalid");
    }
    let changed = app.patch(&path, json!({"allowed_origins": null})).await.expect(200).json;
    assert_eq!(changed["allowed_origins"], Value::Null);
    track(&app, key, Some("https://evil.test")).await.expect(200);
    // The other process hears of it within a second, and this waits for it.
    for _ in 0..250 {
        if track(&beside, key, Some("https://evil.test")).await.status == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("another process still refuses");
}
