//! The audit log: everything that is changed, everybody who reads personal data, and nothing that can be changed unseen.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::app::{TOKEN, TestApp, Wish, send};
use crate::verify::verify;

const SPACE: &str = "/v1/spaces/default";
const LOG: &str = "/v1/spaces/default/audit-log";
const NOW: &str = "2024-03-01T12:00:00.000Z";

async fn start() -> TestApp {
    Wish::default().at(NOW).start().await
}

async fn token(app: &TestApp, role: &str) -> (String, String) {
    let made =
        app.post(&format!("{SPACE}/tokens"), json!({"name": role, "role": role})).await.expect(201).json;
    (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
}

/// Entries, newest first.
async fn entries(app: &TestApp, filter: &str) -> Vec<Value> {
    let log = app.get(&format!("{LOG}?limit=1000{filter}")).await.expect(200).json;
    log["data"].as_array().unwrap().clone()
}

async fn processed(app: &TestApp, path: &str, body: Value) {
    let offset = app.track(path, body).await.expect(200).offset();
    app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.expect(200);
}

#[tokio::test]
async fn changes_say_who_what_when_from_where_and_how_it_ended() {
    let app = start().await;
    let (id, editor) = token(&app, "editor").await;
    let audience =
        json!({"key": "seen", "definition": {"type": "users", "query": "event('Seen').count() >= 1"}});
    let path = format!("{SPACE}/audiences");
    app.call_as(&editor, Method::POST, &path, Some(audience.clone())).await.expect(201);
    app.call_as(&editor, Method::POST, &path, Some(audience)).await.expect(409);
    app.call_as(&editor, Method::DELETE, &format!("{SPACE}/tokens/{id}"), None).await.expect(403);
    app.call_as("tok_unknown", Method::POST, &path, Some(json!({}))).await.expect(401);
    app.patch(SPACE, json!({"plan": {"state": "suspended", "reason": "not paid"}})).await.expect(200);
    app.get(&path).await.expect(200);

    let log = entries(&app, "&kind=change").await;
    let told: Vec<(&str, u64)> =
        log.iter().map(|e| (e["action"].as_str().unwrap(), e["status"].as_u64().unwrap())).collect();
    assert_eq!(
        told,
        [
            ("PATCH /v1/spaces/{space}", 200),
            ("DELETE /v1/spaces/{space}/tokens/{id}", 403),
            ("POST /v1/spaces/{space}/audiences", 409),
            ("POST /v1/spaces/{space}/audiences", 201),
            ("POST /v1/spaces/{space}/tokens", 201),
        ]
    );
    assert_eq!(log[1]["actor"], json!({"id": id, "name": "editor"}));
    assert_eq!(log[1]["target"], json!({"space": "default", "id": id}));
    assert_eq!((&log[1]["at"], &log[1]["address"]), (&json!(NOW), &json!("127.0.0.1")));
    assert_eq!(log[0]["detail"]["plan"]["reason"], "not paid");
    assert_eq!(log[4]["detail"]["token"]["scopes"], json!(["read", "write"]));
    assert!(
        log.iter().all(|e| !e.to_string().contains(&editor) && !e.to_string().contains(TOKEN)),
        "a secret"
    );
    let numbers: Vec<i64> = log.iter().map(|e| e["no"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [5, 4, 3, 2, 1]);
    let only = entries(&app, "&action=POST%20/v1/spaces/%7Bspace%7D/tokens").await;
    assert_eq!(only.len(), 1);

    app.post("/v1/spaces", json!({"id": "acme"})).await.expect(201);
    let servers = app.get("/v1/audit-log").await.expect(200).json;
    assert_eq!(servers["data"][0]["action"], "POST /v1/spaces");
    app.get(&format!("{LOG}?kind=gossip")).await.expect_problem(400, "bad_request");
}

#[tokio::test]
async fn reads_of_personal_data_are_gathered_and_name_the_profiles() {
    let app = start().await;
    processed(&app, "/v1/identify", json!({"userId": "u1", "traits": {"email": "u1@x.org"}})).await;
    processed(&app, "/v1/identify", json!({"userId": "u2"})).await;
    let (_, viewer) = token(&app, "viewer").await;
    let (id, privacy) = token(&app, "privacy").await;
    let traits = |user: &str| format!("{SPACE}/collections/users/profiles/user_id:{user}/traits");
    for user in ["u1", "u1", "u2"] {
        app.call_as(&privacy, Method::GET, &traits(user), None).await.expect(200);
        // Masked, so it shows nobody's data.
        app.call_as(&viewer, Method::GET, &traits(user), None).await.expect(200);
    }
    app.call_as(&privacy, Method::GET, &traits("nobody"), None).await.expect(404);
    app.call_as(&privacy, Method::GET, &format!("{SPACE}/audiences/sizes"), None).await.expect(200);
    let log = entries(&app, "&kind=read").await;
    let of_profiles: Vec<&Value> =
        log.iter().filter(|e| e["action"].as_str().unwrap().ends_with("/traits")).collect();
    let count: u64 = of_profiles.iter().map(|e| e["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 3, "{log:?}");
    assert!(of_profiles.iter().all(|e| e["actor"] == json!({"id": id, "name": "privacy"})));
    let mut profiles: Vec<&Value> =
        of_profiles.iter().flat_map(|e| e["profiles"].as_array().unwrap()).collect();
    profiles.sort_by_key(ToString::to_string);
    profiles.dedup();
    assert_eq!(profiles.len(), 2);
    assert!(log.iter().all(|e| !e.to_string().contains("u1@x.org") && !e.to_string().contains("user_id")));
    // Reading the log is reading, too.
    let again = entries(&app, "&kind=read").await;
    assert!(again.iter().any(|e| e["action"] == "GET /v1/spaces/{space}/audit-log"));
}

#[tokio::test]
async fn reads_are_not_lost_when_the_service_stops() {
    let app = start().await;
    processed(&app, "/v1/identify", json!({"userId": "u1"})).await;
    for _ in 0..50 {
        let path = format!("{SPACE}/collections/users/profiles/user_id:u1/external_ids");
        app.get(&path).await.expect(200);
    }
    let TestApp { running, db, .. } = app;
    running.stop(Duration::ZERO).await.unwrap();
    let contents: Vec<String> = sqlx::query_scalar("SELECT content FROM audit_record WHERE kind = 'read'")
        .fetch_all(&db.pool)
        .await
        .unwrap();
    let count: u64 =
        contents.iter().map(|c| serde_json::from_str::<Value>(c).unwrap()["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 50);
}

/// A space with acts, changes and reads.
async fn busy() -> TestApp {
    let app = start().await;
    processed(&app, "/v1/track", json!({"userId": "u1", "event": "Seen"})).await;
    processed(&app, "/v1/track", json!({"anonymousId": "a1", "event": "Seen"})).await;
    let pair = json!({"profiles": ["user_id:u1", "anonymous_id:a1"]});
    app.post(&format!("{SPACE}/identity/merges"), pair).await.expect(200);
    app.get(&format!("{SPACE}/collections/users/profiles/user_id:u1/traits")).await.expect(200);
    token(&app, "viewer").await;
    let kinds: Vec<String> =
        entries(&app, "").await.iter().map(|e| e["kind"].as_str().unwrap().to_owned()).collect();
    for kind in ["act", "change", "read"] {
        assert!(kinds.iter().any(|k| k == kind), "{kinds:?}");
    }
    // That was a read, too: what follows is to find the log at rest.
    let sql = "SELECT EXISTS (SELECT 1 FROM audit_record WHERE kind = 'read' AND action LIKE '%/audit-log')";
    while !sqlx::query_scalar::<_, bool>(sql).fetch_one(&app.db.pool).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    app
}

async fn verified(app: &TestApp) -> Value {
    app.get(&format!("{LOG}/verify")).await.expect(200).json
}

#[tokio::test]
async fn whatever_is_changed_or_taken_out_shows() {
    let app = busy().await;
    let report = verified(&app).await;
    assert_eq!((&report["intact"], &report["faults"]), (&json!(true), &json!(0)), "{report}");
    let (said, code) = verify(&app.db, &["--space", "default"]);
    assert_eq!(code, 0, "{said}");
    let ways = [
        (
            "UPDATE audit_record SET content = replace(content, 'owner', 'nobody') WHERE entry_no = 1",
            "entry 1",
        ),
        ("UPDATE audit_record SET hash = sha256(hash) WHERE entry_no = 2", "entry 2"),
        ("UPDATE audit_record SET action = 'x' WHERE entry_no = 2", "entry 2 is filed"),
        ("DELETE FROM audit_record WHERE entry_no = 2", "entries 2 to 2 are missing"),
        ("DELETE FROM audit_record WHERE entry_no = (SELECT max(entry_no) FROM audit_record)", "are missing"),
        ("DELETE FROM audit_record", "are missing"),
        ("DELETE FROM audit_head", "stand behind the end"),
        ("UPDATE audit_entry SET act = jsonb_set(act, '{force}', 'true')", "was changed"),
        ("UPDATE audit_entry SET effect = '{}'", "was changed"),
        ("DELETE FROM audit_entry", "is missing"),
        ("UPDATE audit_entry SET act = '{}', effect = '{}', erased = true", "was changed"),
        // As an erasure leaves it, and nobody was erased.
        (
            r#"UPDATE audit_entry SET act = '{"erased": true}', erased = true,
                 effect = '{"profiles": [], "identifiers": [], "transitions": [], "events_moved": 1, "events_gone": 0}'"#,
            "was changed",
        ),
        (
            "INSERT INTO audit_entry SELECT space_id, 999, at, action, actor_id, actor_name, act, effect FROM audit_entry",
            "offset 999 is in no entry",
        ),
    ];
    for (sql, words) in ways {
        for table in ["audit_record", "audit_head", "audit_entry"] {
            copy(&app, &format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
        }
        copy(&app, sql).await;
        let report = verified(&app).await;
        assert_eq!(report["intact"], false, "{sql}: {report}");
        assert!(report["told"].to_string().contains(words), "{sql}: {report}");
        let (said, code) = verify(&app.db, &["--space", "default"]);
        assert!(code == 1 && said.contains("audit log") && said.contains(words), "{sql}: {said}");
        for table in ["audit_record", "audit_head", "audit_entry"] {
            copy(&app, &format!("DELETE FROM {table}")).await;
            copy(&app, &format!("INSERT INTO {table} SELECT * FROM kept_{table}")).await;
            copy(&app, &format!("DROP TABLE kept_{table}")).await;
        }
    }
    assert_eq!(verified(&app).await["intact"], true);
    // What is erased with leave leaves its hash, and what it was done by.
    app.regulated("DELETE_INTERNAL", "USER_ID", &["u1"]).await;
    let report = verified(&app).await;
    assert_eq!((&report["intact"], &report["erased"]), (&json!(true), &json!(1)), "{report}");
    let more = "UPDATE audit_entry SET act = jsonb_set(act, '{more}', 'true') WHERE erased";
    copy(&app, more).await;
    assert_eq!(verified(&app).await["intact"], false, "more than an erasure leaves");
}

async fn copy(app: &TestApp, sql: &str) {
    sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(&app.db.pool).await.unwrap();
}

#[tokio::test]
async fn the_log_of_the_server_is_verified_with_the_others() {
    let app = start().await;
    app.post("/v1/spaces", json!({"id": "acme"})).await.expect(201);
    let (said, code) = verify(&app.db, &[]);
    assert_eq!(code, 0, "{said}");
    copy(&app, "UPDATE audit_record SET content = replace(content, 'owner', 'nobody') WHERE space_id = 0")
        .await;
    let (said, code) = verify(&app.db, &[]);
    assert!(code == 1 && said.contains("the server itself: audit log: entry 1"), "{said}");
}

/// A line of the export, its entry as the text it is.
#[derive(serde::Deserialize)]
struct Line<'a> {
    hash: String,
    #[serde(borrow)]
    entry: &'a serde_json::value::RawValue,
    salt: Option<String>,
    act: Option<Value>,
    effect: Option<Value>,
}

/// Goes through the chain of an export. Returns how many acts are what their digests say.
fn check_chain(export: &str) -> usize {
    let (mut previous, mut acts) = (vec![0_u8; 32], 0);
    let lines: Vec<&str> = export.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines.len() >= 3);
    for line in lines {
        let line: Line<'_> = serde_json::from_str(line).unwrap();
        let hash = Sha256::new().chain_update(&previous).chain_update(line.entry.get().as_bytes()).finalize();
        assert_eq!(hex::encode(hash), line.hash);
        previous = hash.to_vec();
        if let Some(salt) = line.salt {
            let about = json!([line.act, line.effect]).to_string();
            let digest =
                Sha256::new().chain_update(hex::decode(salt).unwrap()).chain_update(about).finalize();
            let entry: Value = serde_json::from_str(line.entry.get()).unwrap();
            acts += usize::from(entry["digest"] == hex::encode(digest));
        }
    }
    acts
}

#[tokio::test]
async fn an_export_can_be_checked_by_anybody() {
    let app = busy().await;
    let path = format!("{LOG}?format=ndjson");
    let export = app.get(&path).await.expect(200);
    assert_eq!(export.header("content-type"), "application/x-ndjson");
    assert_eq!(check_chain(&export.text), 1);
    // Also by who does not see what acts were about.
    let (_, admin) = token(&app, "admin").await;
    let masked = app.call_as(&admin, Method::GET, &path, None).await.expect(200);
    assert_eq!(check_chain(&masked.text), 0);
    assert!(export.text.contains("\"u1\"") && !masked.text.contains("\"u1\""), "{}", masked.text);
}

#[tokio::test]
async fn only_what_was_really_tried_is_no_change() {
    let app = start().await;
    let made =
        app.post(&format!("{SPACE}/tokens?dry_run=true"), json!({"name": "t", "role": "viewer"})).await;
    let id = made.expect(201).json["id"].as_str().unwrap().to_owned();
    app.delete(&format!("{SPACE}/tokens/{id}?dry_run=true")).await.expect(204);
    let audience =
        json!({"key": "seen", "definition": {"type": "users", "query": "event('Seen').count() >= 1"}});
    app.post(&format!("{SPACE}/audiences?dry_run=true"), audience.clone()).await.expect(200);
    app.post(&format!("{SPACE}/audiences?dry_run=false"), audience).await.expect(201);
    let log = entries(&app, "&kind=change").await;
    let told: Vec<&str> = log.iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(
        told,
        [
            "POST /v1/spaces/{space}/audiences",
            "DELETE /v1/spaces/{space}/tokens/{id}",
            "POST /v1/spaces/{space}/tokens",
        ]
    );
}

#[tokio::test]
async fn entries_say_whose_data_it_was_and_what_was_meant() {
    let app = start().await;
    processed(&app, "/v1/track", json!({"userId": "u1", "event": "Seen"})).await;
    app.make_live("audiences", "seen", "event('Seen').count() >= 1").await;
    let profile = format!("{SPACE}/collections/users/profiles/user_id:u1");
    let found = app.get(&format!("{profile}/explain/seen")).await.expect(200).json;
    app.get(&format!("{profile}/export")).await.expect(200);
    let reads = entries(&app, "&kind=read").await;
    for route in ["/explain/{key}", "/export"] {
        let entry = reads.iter().find(|e| e["action"].as_str().unwrap().ends_with(route)).unwrap();
        assert_eq!(entry["profiles"], json!([found["profile_id"]]), "{entry}");
    }
    let categories = format!("{SPACE}/consent/categories");
    app.delete(&format!("{categories}/ads")).await.expect(404);
    let log = entries(&app, "&kind=change").await;
    assert_eq!(log[0]["target"], json!({"space": "default", "category": "ads"}));
    app.post("/v1/spaces", json!({"id": "acme", "name": "Acme"})).await.expect(201);
    let servers = app.get("/v1/audit-log").await.expect(200).json;
    assert_eq!(servers["data"][0]["detail"], json!({"space": "acme", "name": "Acme"}));
}

#[tokio::test]
async fn what_is_changed_for_a_client_that_hangs_up_is_written_down() {
    let app = start().await;
    let pool = app.db.pool.clone();
    let mut held = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE audit_head IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let request = app.request(Method::POST, &format!("{SPACE}/tokens")).bearer_auth(TOKEN);
    let client = tokio_util::task::TaskTracker::new()
        .spawn(request.json(&json!({"name": "gone", "role": "viewer"})).send());
    let until = async |sql: &str| {
        for _ in 0..500 {
            let sql = sqlx::AssertSqlSafe(sql.to_owned());
            if sqlx::query_scalar::<_, bool>(sql).fetch_one(&pool).await.unwrap() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never: {sql}");
    };
    until("SELECT EXISTS (SELECT 1 FROM access_token WHERE name = 'gone')").await;
    app.db.wait_for_blocked().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    // The service has heard of it: the only connection is the one that asks.
    let mut metrics = app.get("/metrics").await.text;
    for _ in 0..500 {
        if metrics.contains("personas_http_connections 1\n") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        metrics = app.get("/metrics").await.text;
    }
    assert!(metrics.contains("personas_http_connections 1\n"), "{metrics}");
    held.commit().await.unwrap();
    until("SELECT EXISTS (SELECT 1 FROM audit_record WHERE action = 'POST /v1/spaces/{space}/tokens')").await;
}

#[tokio::test]
async fn acts_of_older_releases_are_in_the_log_after_an_upgrade() {
    let app = busy().await;
    let TestApp { running, db, .. } = app;
    running.stop(Duration::ZERO).await.unwrap();
    let before = "DROP INDEX audit_entry_older; UPDATE audit_entry SET salt = NULL;
         DELETE FROM audit_record; DELETE FROM audit_head";
    sqlx::raw_sql(before).execute(&db.pool).await.unwrap();
    sqlx::raw_sql(include_str!("../../migrations/0050_older_acts.sql")).execute(&db.pool).await.unwrap();
    let app = Wish::default().at(NOW).start_on(db).await;
    let report = verified(&app).await;
    assert_eq!((&report["intact"], &report["entries"]), (&json!(true), &json!(1)), "{report}");
    let acts = entries(&app, "&kind=act").await;
    assert_eq!(
        (acts.len(), &acts[0]["action"], &acts[0]["at"]),
        (1, &json!("profiles.merge"), &json!(NOW)),
        "{acts:?}"
    );
}

#[tokio::test]
async fn several_processes_add_to_one_chain() {
    let app = start().await;
    let beside = app.beside().await;
    let both = (0..20).map(|i| {
        let app = if i % 2 == 0 { &app } else { &beside };
        let body = json!({"name": format!("t{i}"), "role": "viewer"});
        send(app.request(Method::POST, &format!("{SPACE}/tokens")).bearer_auth(TOKEN).json(&body))
    });
    for answer in futures_util::future::join_all(both).await {
        answer.expect(201);
    }
    let report = verified(&app).await;
    assert_eq!((&report["intact"], &report["entries"]), (&json!(true), &json!(20)), "{report}");
}
