//! Spaces, sources, tokens: who may do what, and what is told to whom.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{TOKEN, TestApp, WRITE_KEY, Wish, send};
use crate::harness::cluster::TestDb;

async fn token(app: &TestApp, space: &str, scopes: &[&str]) -> String {
    let body = json!({"name": "t", "scopes": scopes});
    let made = app.post(&format!("/v1/spaces/{space}/tokens"), body).await.expect(201);
    made.json["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn spaces_are_made_by_the_owner_and_seen_by_their_tokens() {
    let app = TestApp::start().await;
    let made = app.post("/v1/spaces", json!({"id": "acme", "name": "Acme Inc."})).await.expect(201);
    assert_eq!((&made.json["id"], &made.json["name"]), (&json!("acme"), &json!("Acme Inc.")));
    app.post("/v1/spaces", json!({"id": "acme"})).await.expect_problem(409, "conflict");
    for bad in [
        json!({"id": ""}),
        json!({"id": "a/b"}),
        json!({"id": "-a"}),
        json!({}),
        json!({"id": "x", "nam": "y"}),
    ] {
        app.post("/v1/spaces", bad).await.expect_problem(422, "invalid");
    }
    let malformed = app.request(Method::POST, "/v1/spaces").bearer_auth(TOKEN).body("{");
    send(malformed).await.expect_problem(400, "bad_request");

    let all = app.get("/v1/spaces").await.expect(200);
    let ids: Vec<&str> =
        all.json["data"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["acme", "default"]);
    let first = app.get("/v1/spaces?limit=1").await.expect(200);
    let next = first.json["cursor"]["next"].as_str().unwrap();
    let second = app.get(&format!("/v1/spaces?limit=1&cursor={next}")).await.expect(200);
    assert_eq!(second.json["data"][0]["id"], "default");

    let scoped = token(&app, "acme", &["read"]).await;
    let seen = app.call_as(&scoped, Method::GET, "/v1/spaces", None).await.expect(200);
    assert_eq!(seen.json["data"].as_array().unwrap().len(), 1);
    app.call_as(&scoped, Method::GET, "/v1/spaces/acme", None).await.expect(200);
    let body = Some(json!({"id": "other"}));
    app.call_as(&scoped, Method::POST, "/v1/spaces", body).await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn tokens_are_taken_as_bearer_or_basic_and_nothing_else() {
    let app = TestApp::start().await;
    let get = || app.request(Method::GET, "/v1/spaces/default");
    send(get().bearer_auth(TOKEN)).await.expect(200);
    send(get().basic_auth(TOKEN, Some(""))).await.expect(200);
    send(get().basic_auth(TOKEN, None::<&str>)).await.expect(200);
    for request in [
        get(),
        get().bearer_auth("tok_unknown"),
        // A write key reads nothing.
        get().bearer_auth(WRITE_KEY),
        get().basic_auth("", Some(TOKEN)),
        app.request(Method::GET, &format!("/v1/spaces/default?token={TOKEN}")),
        get().header("authorization", TOKEN),
    ] {
        let answer = send(request).await.expect_problem(401, "unauthorized");
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
}

#[tokio::test]
async fn a_token_of_another_space_sees_nothing_of_this_one() {
    let app = TestApp::start().await;
    app.post("/v1/spaces", json!({"id": "acme"})).await.expect(201);
    let foreign = token(&app, "acme", &["read", "write", "admin"]).await;
    let there_is_none = app.call_as(&foreign, Method::GET, "/v1/spaces/nowhere/pipeline", None).await;
    let there_is_none = there_is_none.expect_problem(404, "not_found");
    let hidden = app.call_as(&foreign, Method::GET, "/v1/spaces/default/pipeline", None).await;
    let hidden = hidden.expect_problem(404, "not_found");
    let words = |answer: &Value| answer["detail"].as_str().unwrap().replace("nowhere", "default");
    assert_eq!(words(&there_is_none.json), words(&hidden.json), "the same words");
}

/// Every route under a space with the scope it needs; no token of a space has that of the owner. The test below fails for a route that is not in here.
const SCOPES: &[(&str, &str, &str)] = &[
    ("GET", "/v1/spaces/{space}", "read"),
    ("PATCH", "/v1/spaces/{space}", "owner"),
    ("GET", "/v1/spaces/{space}/usage", "read"),
    ("POST", "/v1/spaces/{space}/purge", "owner"),
    ("GET", "/v1/spaces/{space}/pipeline", "read"),
    ("GET", "/v1/spaces/{space}/events/tail", "read"),
    ("GET", "/v1/spaces/{space}/rejected-events", "admin"),
    ("GET", "/v1/spaces/{space}/sensitive-data/settings", "read"),
    ("PATCH", "/v1/spaces/{space}/sensitive-data/settings", "admin"),
    ("GET", "/v1/spaces/{space}/sensitive-data/findings", "read"),
    ("POST", "/v1/spaces/{space}/sensitive-data/try", "read"),
    ("GET", "/v1/spaces/{space}/regulations", "privacy"),
    ("POST", "/v1/spaces/{space}/regulations", "privacy"),
    ("GET", "/v1/spaces/{space}/regulations/{regulation}", "privacy"),
    ("GET", "/v1/spaces/{space}/suppressions", "privacy"),
    ("GET", "/v1/spaces/{space}/suppressions/{selector}", "privacy"),
    ("GET", "/v1/spaces/{space}/retention", "read"),
    ("PATCH", "/v1/spaces/{space}/retention", "admin"),
    ("GET", "/v1/spaces/{space}/export", "privacy"),
    ("GET", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/export", "privacy"),
    ("GET", "/v1/spaces/{space}/consent/settings", "read"),
    ("PATCH", "/v1/spaces/{space}/consent/settings", "admin"),
    ("GET", "/v1/spaces/{space}/consent/categories", "read"),
    ("POST", "/v1/spaces/{space}/consent/categories", "admin"),
    ("GET", "/v1/spaces/{space}/consent/categories/{category}", "read"),
    ("PATCH", "/v1/spaces/{space}/consent/categories/{category}", "admin"),
    ("DELETE", "/v1/spaces/{space}/consent/categories/{category}", "admin"),
    ("GET", "/v1/spaces/{space}/identity/problems", "read"),
    ("GET", "/v1/spaces/{space}/identity/settings", "read"),
    ("PATCH", "/v1/spaces/{space}/identity/settings", "write"),
    ("POST", "/v1/spaces/{space}/identity/settings/import", "write"),
    ("GET", "/v1/spaces/{space}/identity/quarantine", "read"),
    ("DELETE", "/v1/spaces/{space}/identity/quarantine/{identifier}", "write"),
    ("POST", "/v1/spaces/{space}/identity/merges", "write"),
    ("POST", "/v1/spaces/{space}/identity/merges/{merge}/undo", "write"),
    ("POST", "/v1/spaces/{space}/identity/blocks", "write"),
    ("POST", "/v1/spaces/{space}/identity/blocks/lift", "write"),
    ("GET", "/v1/spaces/{space}/audit-log", "privacy"),
    ("GET", "/v1/spaces/{space}/audit-log/verify", "privacy"),
    ("GET", "/v1/spaces/{space}/destinations", "read"),
    ("POST", "/v1/spaces/{space}/destinations", "write"),
    ("GET", "/v1/spaces/{space}/destinations/{id}", "read"),
    ("PATCH", "/v1/spaces/{space}/destinations/{id}", "write"),
    ("DELETE", "/v1/spaces/{space}/destinations/{id}", "write"),
    ("POST", "/v1/spaces/{space}/destinations/{id}/test", "write"),
    ("POST", "/v1/spaces/{space}/destinations/{id}/pause", "write"),
    ("POST", "/v1/spaces/{space}/destinations/{id}/resume", "write"),
    ("POST", "/v1/spaces/{space}/destinations/{id}/resync", "write"),
    ("POST", "/v1/spaces/{space}/destinations/{id}/rotate-secret", "write"),
    ("GET", "/v1/spaces/{space}/destinations/{id}/subscriptions", "read"),
    ("POST", "/v1/spaces/{space}/destinations/{id}/subscriptions", "write"),
    ("GET", "/v1/spaces/{space}/destinations/{id}/subscriptions/{subscription}", "read"),
    ("PATCH", "/v1/spaces/{space}/destinations/{id}/subscriptions/{subscription}", "write"),
    ("DELETE", "/v1/spaces/{space}/destinations/{id}/subscriptions/{subscription}", "write"),
    ("GET", "/v1/spaces/{space}/deliveries", "read"),
    ("GET", "/v1/spaces/{space}/deliveries/{id}", "read"),
    ("POST", "/v1/spaces/{space}/deliveries/replay", "write"),
    ("POST", "/v1/spaces/{space}/deliveries/discard", "write"),
    ("GET", "/v1/spaces/{space}/search/settings", "read"),
    ("PATCH", "/v1/spaces/{space}/search/settings", "write"),
    ("POST", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/external_ids/move", "write"),
    ("POST", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/links/delete", "write"),
    ("GET", "/v1/spaces/{space}/sources", "admin"),
    ("POST", "/v1/spaces/{space}/sources", "admin"),
    ("PATCH", "/v1/spaces/{space}/sources/{id}", "admin"),
    ("POST", "/v1/spaces/{space}/sources/{id}/write-keys", "admin"),
    ("DELETE", "/v1/spaces/{space}/sources/{id}/write-keys/{prefix}", "admin"),
    ("PATCH", "/v1/spaces/{space}/sources/{id}/write-keys/{prefix}", "admin"),
    ("GET", "/v1/spaces/{space}/tokens", "admin"),
    ("POST", "/v1/spaces/{space}/tokens", "admin"),
    ("DELETE", "/v1/spaces/{space}/tokens/{id}", "admin"),
    ("POST", "/v1/spaces/{space}/queries/format", "read"),
    ("POST", "/v1/spaces/{space}/audiences/preview", "read"),
    ("POST", "/v1/spaces/{space}/computed-traits/preview", "read"),
    ("POST", "/v1/spaces/{space}/memberships/check", "read"),
    ("POST", "/v1/spaces/{space}/audiences/{key}/members", "write"),
    ("GET", "/v1/spaces/{space}/schema/events", "read"),
    ("GET", "/v1/spaces/{space}/schema/events/{name}/properties", "read"),
    ("GET", "/v1/spaces/{space}/schema/traits", "read"),
    ("POST", "/v1/spaces/{space}/audiences/{key}/clone", "write"),
    ("POST", "/v1/spaces/{space}/computed-traits/{key}/clone", "write"),
    ("GET", "/v1/spaces/{space}/audiences/{key}/overlap/{other}", "read"),
    ("GET", "/v1/spaces/{space}/audiences/{key}/identifiers", "read"),
    ("GET", "/v1/spaces/{space}/audiences/{key}/size/history", "read"),
    ("GET", "/v1/spaces/{space}/audiences", "read"),
    ("POST", "/v1/spaces/{space}/audiences", "write"),
    ("GET", "/v1/spaces/{space}/audiences/{key}", "read"),
    ("PATCH", "/v1/spaces/{space}/audiences/{key}", "write"),
    ("DELETE", "/v1/spaces/{space}/audiences/{key}", "write"),
    ("GET", "/v1/spaces/{space}/audiences/{key}/versions", "read"),
    ("GET", "/v1/spaces/{space}/audiences/{key}/references", "read"),
    ("GET", "/v1/spaces/{space}/computed-traits", "read"),
    ("POST", "/v1/spaces/{space}/computed-traits", "write"),
    ("GET", "/v1/spaces/{space}/computed-traits/{key}", "read"),
    ("PATCH", "/v1/spaces/{space}/computed-traits/{key}", "write"),
    ("DELETE", "/v1/spaces/{space}/computed-traits/{key}", "write"),
    ("GET", "/v1/spaces/{space}/computed-traits/{key}/versions", "read"),
    ("GET", "/v1/spaces/{space}/computed-traits/{key}/references", "read"),
    ("GET", "/v1/spaces/{space}/audiences/sizes", "read"),
    ("GET", "/v1/spaces/{space}/audiences/{key}/size", "read"),
    ("GET", "/v1/spaces/{space}/audiences/{key}/members", "read"),
    ("GET", "/v1/spaces/{space}/audiences/{key}/transitions", "read"),
    ("GET", "/v1/spaces/{space}/computed-traits/{key}/values", "read"),
    ("GET", "/v1/spaces/{space}/collections/{collection}/profiles", "read"),
    ("POST", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/external_ids/delete", "write"),
    ("GET", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/traits", "read"),
    ("GET", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/external_ids", "read"),
    ("GET", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/events", "read"),
    ("GET", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/metadata", "read"),
    ("GET", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/links", "read"),
    ("GET", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/audiences", "read"),
    ("GET", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/identity", "read"),
    ("GET", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/objections", "read"),
    ("POST", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/objections", "privacy"),
    ("POST", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/objections/lift", "privacy"),
    ("GET", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/consent", "read"),
    ("GET", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/consent/history", "read"),
    ("GET", "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/explain/{key}", "read"),
];

#[tokio::test]
async fn every_route_asks_for_its_scope() {
    let app = TestApp::start().await;
    app.post("/v1/spaces", json!({"id": "acme"})).await.expect(201);
    let description = app.get("/openapi.json").await.expect(200).json;
    let mut routes = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        if !path.starts_with("/v1/spaces/{space}") {
            continue;
        }
        for method in item.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let needs = SCOPES.iter().find(|(m, p, _)| *m == method && p == path);
            let Some((_, _, scope)) = needs else { panic!("{method} {path} has no entry in SCOPES") };
            check_route(&app, &method, path, scope).await;
            routes += 1;
        }
    }
    assert_eq!(routes, SCOPES.len(), "SCOPES has routes that are not there");
}

async fn check_route(app: &TestApp, method: &str, path: &str, scope: &str) {
    let path = path.replace("{space}", "default").replace("{id}", "x").replace("{key}", "nobody");
    let path = path.replace("{profile}", "user_id:nobody").replace("{collection}", "users");
    let method: Method = method.parse().unwrap();
    let call = async |token: &str| app.call_as(token, method.clone(), &path, Some(json!({}))).await;
    for has in ["read", "write", "admin"] {
        let answer = call(&token(app, "default", &[has]).await).await;
        let refused = answer.json["code"] == "forbidden" || answer.json["error"]["code"] == "forbidden";
        assert_eq!(
            refused,
            has != scope && !(has == "admin" && scope == "privacy"),
            "{method} {path} with scope {has}: {}",
            answer.text
        );
    }
    let foreign = call(&token(app, "acme", &["read", "write", "admin"]).await).await;
    assert_eq!(foreign.status, 404, "{method} {path}: {}", foreign.text);
    assert!(!foreign.text.contains("nobody"), "{}", foreign.text);
}

#[tokio::test]
async fn secrets_are_shown_once_and_can_be_revoked() {
    let app = TestApp::start().await;
    let made = app
        .post("/v1/spaces/default/tokens", json!({"name": "ci", "scopes": ["read", "read"]}))
        .await
        .expect(201);
    let (id, secret) = (made.json["id"].as_str().unwrap(), made.json["token"].as_str().unwrap());
    assert!(secret.starts_with("tok_") && secret.len() == 4 + 64, "{secret}");
    assert_eq!(made.json["scopes"], json!(["read"]));
    let list = app.get("/v1/spaces/default/tokens").await.expect(200);
    assert!(!list.text.contains(secret), "shown again");
    assert_eq!(list.json["data"][0]["id"], id);
    assert!(secret.starts_with(list.json["data"][0]["prefix"].as_str().unwrap()));
    assert_eq!(list.json["data"].as_array().unwrap().len(), 1, "the owner's token is not the space's");

    app.call_as(secret, Method::GET, "/v1/spaces/default", None).await.expect(200);
    let path = format!("/v1/spaces/default/tokens/{id}");
    app.delete(&path).await.expect(204);
    app.call_as(secret, Method::GET, "/v1/spaces/default", None).await.expect_problem(401, "unauthorized");
    app.delete(&path).await.expect_problem(404, "not_found");
    app.delete("/v1/spaces/default/tokens/tok_x").await.expect_problem(404, "not_found");

    for bad in [
        json!({"name": "x", "scopes": []}),
        json!({"name": "x", "scopes": ["root"]}),
        json!({"name": "x"}),
        json!({"name": " ", "scopes": ["read"]}),
        json!({"name": "x", "scopes": ["read"], "expires": 1}),
    ] {
        app.post("/v1/spaces/default/tokens", bad).await.expect_problem(422, "invalid");
    }
    let dump: Vec<String> =
        sqlx::query_scalar("SELECT t::text FROM access_token t UNION ALL SELECT w::text FROM write_key w")
            .fetch_all(&app.db.pool)
            .await
            .unwrap();
    assert!(dump.iter().all(|row| !row.contains(secret) && !row.contains(WRITE_KEY)), "a secret is stored");
}

#[tokio::test]
async fn sources_have_write_keys_of_their_own() {
    let app = TestApp::start().await;
    let made = app.post("/v1/spaces/default/sources", json!({"name": "web"})).await.expect(201);
    let key = made.json["write_key"].as_str().unwrap();
    assert!(key.starts_with("wk_") && made.json["id"].as_str().unwrap().starts_with("src_"));
    let list = app.get("/v1/spaces/default/sources").await.expect(200);
    assert!(!list.text.contains(key));
    let names: Vec<&Value> = list.json["data"].as_array().unwrap().iter().map(|s| &s["name"]).collect();
    assert_eq!(names, ["default", "web"]);
    assert!(key.starts_with(list.json["data"][1]["write_keys"][0]["prefix"].as_str().unwrap()));
    let path = format!("/v1/spaces/default/sources/{}", made.json["id"].as_str().unwrap());
    assert_eq!(app.patch(&path, json!({"enabled": false})).await.expect(200).json["enabled"], false);
    for bad in [json!({}), json!({"enabled": null}), json!({"enabled": true, "name": "x"})] {
        app.patch(&path, bad).await.expect_problem(422, "invalid");
    }
    app.patch("/v1/spaces/default/sources/src_0", json!({"enabled": true}))
        .await
        .expect_problem(404, "not_found");
}

#[tokio::test]
async fn unchanged_lists_are_not_sent_again() {
    let app = TestApp::start().await;
    let first = app.get("/v1/spaces").await.expect(200);
    let get = || app.request(Method::GET, "/v1/spaces").bearer_auth(TOKEN);
    let tag = first.header("etag");
    let again = send(get().header("if-none-match", tag)).await.expect(304);
    assert!(again.text.is_empty());
    assert_eq!(again.header("etag"), tag);
    app.post("/v1/spaces", json!({"id": "acme"})).await.expect(201);
    send(get().header("if-none-match", tag)).await.expect(200);
}

#[tokio::test]
async fn what_one_process_makes_the_next_one_takes() {
    let one = TestApp::start().await;
    let two = Wish::default().option("database.url", &one.db.url()).start_on(TestDb::new().await).await;
    // Both work on the database of the first.
    let made = one.post("/v1/spaces/default/sources", json!({"name": "web"})).await.expect(201);
    let key = made.json["write_key"].as_str().unwrap();
    let track = two.request(Method::POST, "/v1/track").bearer_auth(key).body(r#"{"userId":"u","event":"E"}"#);
    send(track).await.expect(200);
    let made = one.post("/v1/spaces", json!({"id": "acme"})).await.expect(201);
    assert_eq!(made.json["id"], "acme");
    two.get("/v1/spaces/acme").await.expect(200);
    let made = one.post("/v1/spaces/acme/tokens", json!({"name": "t", "scopes": ["read"]})).await.expect(201);
    let (id, token) = (made.json["id"].as_str().unwrap(), made.json["token"].as_str().unwrap());
    two.call_as(token, Method::GET, "/v1/spaces/acme", None).await.expect(200);
    one.delete(&format!("/v1/spaces/acme/tokens/{id}")).await.expect(204);
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while two.call_as(token, Method::GET, "/v1/spaces/acme", None).await.status != 401 {
        assert!(std::time::Instant::now() < deadline, "a revoked token still works elsewhere");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn later_starts_keep_what_is_there_and_add_what_is_asked_for() {
    let app = TestApp::start().await;
    let TestApp { running, db, .. } = app;
    running.stop(Duration::ZERO).await.unwrap();
    let other = Wish::default()
        .option("bootstrap.write_key", "wk_another_key")
        .option("bootstrap.token", "tok_another_token")
        .start_on(db)
        .await;
    assert_eq!(
        *other.running.made(),
        personas::manage::bootstrap::Made::default(),
        "fixed secrets are not told"
    );
    for key in [WRITE_KEY, "wk_another_key"] {
        let request =
            other.request(Method::POST, "/v1/track").bearer_auth(key).body(r#"{"userId":"u","event":"E"}"#);
        send(request).await.expect(200);
    }
    for token in [TOKEN, "tok_another_token"] {
        other.call_as(token, Method::GET, "/v1/spaces", None).await.expect(200);
    }
    let sources = other.get("/v1/spaces/default/sources").await.expect(200);
    assert_eq!(sources.json["data"].as_array().unwrap().len(), 1, "the key was added to the first source");
}

#[tokio::test]
async fn write_keys_are_changed_over_and_revoked() {
    let app = TestApp::start().await;
    let sources = "/v1/spaces/default/sources";
    let made = app.post(sources, json!({"name": "shop"})).await.expect(201).json;
    let (id, old) = (made["id"].as_str().unwrap(), made["write_key"].as_str().unwrap());
    let keys = format!("{sources}/{id}/write-keys");
    let new = app.post(&keys, json!({})).await.expect(201).json;
    let track = async |key: &str| {
        let body = json!({"userId": "u", "event": "Seen", "writeKey": key});
        let request = app.request(Method::POST, "/v1/track").body(body.to_string());
        send(request).await.status
    };
    let second = new["write_key"].as_str().unwrap();
    assert_eq!((track(old).await, track(second).await), (200, 200), "both, while clients change over");
    let listed = app.get(sources).await.expect(200).json;
    let listed = listed["data"].as_array().unwrap().iter().find(|s| s["id"] == id).unwrap().clone();
    let shown: Vec<&str> =
        listed["write_keys"].as_array().unwrap().iter().map(|k| k["prefix"].as_str().unwrap()).collect();
    assert_eq!(shown.len(), 2);
    assert!(old.starts_with(shown[0]) && second.starts_with(shown[1]) && new["prefix"] == shown[1]);
    app.delete(&format!("{keys}/{}", shown[0])).await.expect(204);
    assert_eq!((track(old).await, track(second).await), (401, 200));
    app.delete(&format!("{keys}/{}", shown[0])).await.expect_problem(404, "not_found");
    app.delete(&format!("{keys}/wk_nothing")).await.expect_problem(404, "not_found");
    app.post(&format!("{sources}/src_0190163d86947b0b9a3e5fd3c2f1a7e4/write-keys"), json!({}))
        .await
        .expect_problem(404, "not_found");
}
