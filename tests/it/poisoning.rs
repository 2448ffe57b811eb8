//! Junk identifiers and shared devices (reliability T03, T04, G22): nobody is merged by them, no limit is exceeded, what is
//! refused over and over is put into quarantine, and operators see it and can let it out.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};

const SPACE: &str = "/v1/spaces/default";
const USERS: &str = "/v1/spaces/default/collections/users/profiles";
const SETTINGS: &str = "/v1/spaces/default/identity/settings";
const QUARANTINE: &str = "/v1/spaces/default/identity/quarantine";

async fn app() -> TestApp {
    Wish::default().at("2024-03-01T12:00:00Z").start().await
}

async fn send(app: &TestApp, calls: &[Value]) {
    let mut offset = 0;
    for part in calls.chunks(2_000) {
        offset = app.track("/v1/batch", json!({"batch": part})).await.expect(200).offset();
    }
    app.get(&format!("{USERS}?limit=1&min_offset={offset}")).await.expect(200);
}

/// All rows of a list.
async fn rows(app: &TestApp, path: &str) -> Vec<Value> {
    let (mut all, mut next) = (Vec::new(), String::new());
    loop {
        let page = app.get(&format!("{path}?limit=70&cursor={next}")).await.expect(200).json;
        all.extend(page["data"].as_array().unwrap().iter().cloned());
        if page["cursor"]["has_more"] == false {
            return all;
        }
        next = page["cursor"]["next"].as_str().unwrap().to_owned();
    }
}

async fn count(app: &TestApp, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&app.db.pool).await.unwrap()
}

/// Most identifiers of one type that any live profile has, over the types whose limit is that.
const MOST_OF_A_TYPE: &str = "SELECT coalesce(max(n), 0) FROM (
    SELECT count(*) AS n FROM external_id e
    JOIN profile p ON p.space_id = e.space_id AND p.profile_no = e.profile_no
    JOIN identity_type t ON t.space_id = e.space_id AND t.type_no = e.type_no AND t.value_limit = 5
    GROUP BY coalesce(p.merged_into, p.profile_no), e.type_no) x";
/// Profiles with more than one user id.
const TWO_USERS: &str = "SELECT count(*) FROM (
    SELECT 1 FROM external_id e
    JOIN profile p ON p.space_id = e.space_id AND p.profile_no = e.profile_no
    JOIN identity_type t ON t.space_id = e.space_id AND t.type_no = e.type_no AND t.name = 'user_id'
    GROUP BY coalesce(p.merged_into, p.profile_no) HAVING count(*) > 1) x";

/// 200 values that say nothing, each in a type that would take it.
fn junk() -> Vec<(&'static str, String)> {
    let words = [
        "null",
        "undefined",
        "none",
        "nil",
        "0",
        "-1",
        "true",
        "false",
        "NaN",
        "N/A",
        "unknown",
        "guest",
        "anonymous",
        "[object Object]",
        "00000000-0000-0000-0000-000000000000",
        "----",
        "test",
        "device",
        "default",
        "id",
        "user",
        "distinct_id",
        "email",
        "test@test.com",
        "deleted",
    ];
    let types = [
        "android.id",
        "android.idfa",
        "android.push_token",
        "anonymous_id",
        "email",
        "ga_client_id",
        "ios.id",
        "ios.idfa",
    ];
    let shapes: [fn(&str) -> String; 8] = [
        str::to_owned,
        str::to_uppercase,
        |word| format!("'{word}'"),
        |word| format!("\"{word}\""),
        |word| format!(" {word}\u{a0}"),
        |word| format!("\\\"{word}\\\""),
        |word| format!("`{word}`"),
        |word| format!("({word})"),
    ];
    let one =
        |(n, word): (usize, &&str)| (0..8).map(|s| (types[(n + s) % 8], shapes[s](word))).collect::<Vec<_>>();
    words.iter().enumerate().flat_map(one).collect()
}

fn external(ids: &[(&'static str, String)]) -> Value {
    let id = |(name, value): &(&str, String)| json!({"id": value, "type": name, "collection": "users", "encoding": "none"});
    json!({"externalIds": ids.iter().map(id).collect::<Vec<_>>()})
}

#[tokio::test]
async fn ten_thousand_users_with_200_junk_values_stay_ten_thousand() {
    let app = app().await;
    let junk = junk();
    assert_eq!(junk.len(), 200);
    // Every user sends ten of the values, so every value comes with 500 users.
    let call = |n: usize| {
        let at = (n * 10) % 200;
        json!({"type": "track", "userId": format!("u{n}"), "event": "E", "context": external(&junk[at..at + 10])})
    };
    let calls: Vec<Value> = (0..10_000).map(call).collect();
    send(&app, &calls).await;
    let status = app.get(&format!("{SPACE}/pipeline")).await.expect(200).json;
    assert_eq!(count(&app, "SELECT users FROM processor WHERE space_id = 1").await, 10_000, "{status}");
    assert_eq!(count(&app, "SELECT count(*) FROM profile_merge").await, 0);
    assert_eq!(count(&app, TWO_USERS).await, 0);
    assert!(count(&app, MOST_OF_A_TYPE).await <= 5);
    // The feed names every one of them: as blocked, or as in quarantine.
    let problems = rows(&app, "/v1/spaces/default/identity/problems").await;
    let mut fates: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for row in &problems {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        let rule = text("rule");
        assert_eq!(rule == "ID value blocked", row["quarantined_at"].is_null(), "{row}");
        fates.entry((text("type"), text("id"))).or_default().insert(rule);
    }
    for (name, value) in &junk {
        let value = value.trim();
        let value = if *name == "email" { value.to_lowercase() } else { value.to_owned() };
        let rules =
            fates.get(&((*name).to_owned(), value.clone())).unwrap_or_else(|| panic!("{name} {value}"));
        assert!(
            rules.contains("ID value blocked") || rules.contains("ID value quarantined"),
            "{name} {value} {rules:?}"
        );
    }
    let quarantined = rows(&app, QUARANTINE).await.len();
    assert!(quarantined > 100, "{quarantined}");
    let metrics = app.get("/metrics").await.expect(200).text;
    assert!(metrics.contains("personas_identity_quarantined_ids"), "{metrics}");
    // What only has such values is nobody's.
    let before = count(&app, "SELECT unidentified FROM processor WHERE space_id = 1").await;
    let only_junk: Vec<Value> =
        junk.iter().map(|id| json!({"type": "track", "anonymousId": "null", "event": "E", "context": external(std::slice::from_ref(id))})).collect();
    send(&app, &only_junk).await;
    assert_eq!(count(&app, "SELECT unidentified FROM processor WHERE space_id = 1").await, before + 200);
    assert_eq!(count(&app, "SELECT users FROM processor WHERE space_id = 1").await, 10_000);
}

#[tokio::test]
async fn a_kiosk_keeps_five_thousand_users_apart() {
    let app = app().await;
    let mut calls = Vec::new();
    for n in 0..5_000 {
        calls.push(json!({"type": "page", "anonymousId": "kiosk", "name": "Welcome"}));
        let traits = json!({"email": format!("u{n}@x.y")});
        calls.push(
            json!({"type": "identify", "anonymousId": "kiosk", "userId": format!("u{n}"), "traits": traits}),
        );
    }
    send(&app, &calls).await;
    assert_eq!(count(&app, TWO_USERS).await, 0);
    assert!(count(&app, MOST_OF_A_TYPE).await <= 5);
    assert!(count(&app, "SELECT count(*) FROM profile_merge").await <= 100);
    assert_eq!(count(&app, "SELECT users FROM processor WHERE space_id = 1").await, 5_000);
    let top = &rows(&app, "/v1/spaces/default/identity/problems").await[0];
    assert_eq!((&top["id"], &top["rule"]), (&json!("kiosk"), &json!("ID value quarantined")));
    assert_eq!(top["quarantined_at"], "2024-03-01T12:00:00.000Z");
    // The first one had the device before it was in quarantine, and keeps it; what the device sends is no longer hers.
    let of_first = app.get(&format!("{USERS}/anonymous_id:kiosk/external_ids")).await.expect(200).json;
    assert_eq!(of_first["data"][1]["id"], "u0");
}

/// The words for what became of a log: who has which identifiers, and what is in quarantine.
async fn graph(app: &TestApp) -> (Vec<(i64, String)>, Vec<(String, i64)>) {
    let sql = "SELECT coalesce(p.merged_into, e.profile_no), e.value FROM external_id e
         JOIN profile p USING (space_id, profile_no) ORDER BY 1, 2";
    let owners = sqlx::query_as(sql).fetch_all(&app.db.pool).await.unwrap();
    let sql = "SELECT p.value, p.occurrences FROM identity_problem p WHERE rule = 'ID value quarantined' ORDER BY 1";
    (owners, sqlx::query_as(sql).fetch_all(&app.db.pool).await.unwrap())
}

fn shared(devices: usize, users: usize) -> Vec<Value> {
    let call = |n: usize| {
        let device = format!("d{}", (n * 7) % devices);
        json!({"type": "track", "userId": format!("u{}", n % users), "anonymousId": device, "event": "E", "messageId": format!("m{n}")})
    };
    (0..users * 4).map(call).collect()
}

#[tokio::test]
async fn the_same_log_puts_the_same_values_into_quarantine_however_it_was_cut_into_batches_and_restarted() {
    let calls = shared(6, 150);
    let whole = app().await;
    send(&whole, &calls).await;
    let expected = graph(&whole).await;
    assert!(!expected.1.is_empty());
    let mut parts =
        Wish::default().at("2024-03-01T12:00:00Z").option("processor.batch_events_max", "1").start().await;
    for part in calls.chunks(97) {
        send(&parts, part).await;
        parts.running.stop(std::time::Duration::ZERO).await.unwrap();
        parts = Wish::default().at("2024-03-01T12:00:00Z").start_on(parts.db).await;
    }
    assert_eq!(graph(&parts).await, expected);
}

#[tokio::test]
async fn the_threshold_is_a_setting_and_quarantine_can_be_lifted() {
    let app = app().await;
    let before = app.get(SETTINGS).await.expect(200).json;
    assert_eq!(before["quarantine_threshold"], 20);
    for wrong in [-1, 1_001] {
        app.patch(SETTINGS, json!({"quarantine_threshold": wrong})).await.expect_problem(422, "invalid");
    }
    let tried = app
        .patch(&format!("{SETTINGS}?dry_run=true"), json!({"quarantine_threshold": 3}))
        .await
        .expect(200)
        .json;
    assert_eq!(tried["settings"]["quarantine_threshold"], 3);
    let after = app.patch(SETTINGS, json!({"quarantine_threshold": 3})).await.expect(200).json;
    assert_eq!(after["version"].as_i64(), before["version"].as_i64().map(|v| v + 1));
    let seen = |user: &str| json!({"type": "track", "userId": user, "anonymousId": "tv", "event": "E"});
    // The second refusal to the same profile does not count.
    send(&app, &[seen("a"), seen("b"), seen("b"), seen("c")]).await;
    assert_eq!(rows(&app, QUARANTINE).await.len(), 0);
    send(&app, &[seen("d")]).await;
    let held = rows(&app, QUARANTINE).await;
    assert_eq!((&held[0]["type"], &held[0]["id"]), (&json!("anonymous_id"), &json!("tv")));
    let rules = app.get("/v1/spaces/default/identity/problems").await.expect(200).json["rules"].clone();
    assert_eq!(rules, json!([{"rule": "Identifier value limit exceeded", "ids": 1, "occurrences": 4}]));
    let alone = json!({"type": "track", "anonymousId": "tv", "event": "E"});
    send(&app, &[seen("e"), alone.clone()]).await;
    let events = |user: &'static str| {
        let app = &app;
        async move {
            let list = app.get(&format!("{USERS}/user_id:{user}/events")).await.expect(200).json;
            list["data"].as_array().unwrap().len()
        }
    };
    assert_eq!(events("a").await, 1, "the event without a user is nobody's");
    let identity = app.get(&format!("{USERS}/user_id:e/identity")).await.expect(200).json;
    assert_eq!(identity["refusals"][0]["rule"], "ID value quarantined");
    // Let out, it leads to who has it again, and stays out.
    for wrong in ["tv", "anonymous_id:other", "shoe:tv"] {
        let status = app.call(Method::DELETE, &format!("{QUARANTINE}/{wrong}"), None).await.status;
        assert!([400, 404].contains(&status), "{wrong} {status}");
    }
    app.delete(&format!("{QUARANTINE}/anonymous_id:tv")).await.expect(204);
    app.delete(&format!("{QUARANTINE}/anonymous_id:tv")).await.expect(404);
    let mut calls = vec![alone];
    calls.extend(["f", "g", "h", "i", "j"].map(seen));
    send(&app, &calls).await;
    assert_eq!((events("a").await, rows(&app, QUARANTINE).await.len()), (2, 0));
    // Without a threshold nothing is counted.
    app.patch(SETTINGS, json!({"quarantine_threshold": 0})).await.expect(200);
    let radio =
        |n: usize| json!({"type": "track", "userId": format!("r{n}"), "anonymousId": "radio", "event": "E"});
    send(&app, &(0..30).map(radio).collect::<Vec<_>>()).await;
    assert_eq!(rows(&app, QUARANTINE).await.len(), 0);
}

/// A random log of a space: who is seen with what, in a few types.
fn random_log() -> impl proptest::strategy::Strategy<Value = Vec<Value>> {
    use proptest::prelude::*;
    let id = (0_usize..4, 0_u8..8);
    let event = proptest::collection::vec(id, 1..4).prop_map(|ids| {
        let types = ["user_id", "email", "anonymous_id", "ios.id"];
        let ids: Vec<_> = ids
            .into_iter()
            .map(|(t, n)| (types[t], if n == 7 { "null".to_owned() } else { format!("v{t}{n}") }))
            .collect();
        json!({"type": "track", "event": "E", "userId": "null", "context": external(&ids)})
    });
    proptest::collection::vec(event, 1..150)
}

#[tokio::test]
async fn random_logs_keep_the_laws_of_the_graph_however_they_are_cut() {
    use proptest::strategy::{Strategy, ValueTree};
    let app = app().await;
    app.patch(SETTINGS, json!({"merges_max": 2, "identifiers_max": 7, "quarantine_threshold": 3}))
        .await
        .expect(200);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for case in 0..6 {
        let log = random_log().new_tree(&mut runner).unwrap().current();
        let mut graphs = Vec::new();
        for cut in [1_000, 13] {
            let name = format!("s{case}-{cut}");
            app.post("/v1/spaces", json!({"id": name, "name": name})).await.expect(201);
            let import = json!({"from_space": "default"});
            app.post(&format!("/v1/spaces/{name}/identity/settings/import"), import).await.expect(200);
            let source =
                app.post(&format!("/v1/spaces/{name}/sources"), json!({"name": "s"})).await.expect(201).json;
            let mut offset = 0;
            for part in log.chunks(cut) {
                let request = app
                    .request(Method::POST, "/v1/batch")
                    .basic_auth(source["write_key"].as_str().unwrap(), Some(""));
                offset = crate::harness::app::send(request.json(&json!({"batch": part})))
                    .await
                    .expect(200)
                    .offset();
            }
            app.get(&format!("/v1/spaces/{name}/collections/users/profiles?min_offset={offset}"))
                .await
                .expect(200);
            graphs.push(whole_graph(&app, &name).await);
        }
        assert_eq!(graphs[0], graphs[1], "{log:?}");
    }
}

/// Profiles with their identifiers, merges and refusals, without what depends on the space; the laws hold.
async fn whole_graph(app: &TestApp, space: &str) -> Vec<(i64, Option<i64>, Vec<String>)> {
    let sql = "SELECT p.profile_no, p.merged_into,
             array(SELECT e.value FROM external_id e WHERE e.space_id = p.space_id AND e.profile_no = p.profile_no ORDER BY 1)
             || array(SELECT r.rule || r.value || r.occurrences FROM identity_refusal r
                      WHERE r.space_id = p.space_id AND r.profile_no = p.profile_no ORDER BY 1)
         FROM profile p JOIN space s USING (space_id) WHERE s.key = $1 ORDER BY 1";
    let rows: Vec<(i64, Option<i64>, Vec<String>)> =
        sqlx::query_as(sql).bind(space).fetch_all(&app.db.pool).await.unwrap();
    let live: BTreeSet<i64> = rows.iter().filter(|row| row.1.is_none()).map(|row| row.0).collect();
    let mut merges: BTreeMap<i64, usize> = BTreeMap::new();
    for into in rows.iter().filter_map(|row| row.1) {
        assert!(live.contains(&into), "in one hop");
        *merges.entry(into).or_default() += 1;
    }
    assert!(merges.values().all(|n| *n <= 2), "{merges:?}");
    let path = format!("/v1/spaces/{space}/collections/users/profiles?limit=1000");
    let mut seen = BTreeSet::new();
    for profile in app.get(&path).await.expect(200).json["data"].as_array().unwrap() {
        let ids = profile["external_ids"].as_array().unwrap();
        assert!(ids.len() <= 7 && ids.iter().filter(|id| id["type"] == "user_id").count() <= 1, "{profile}");
        for id in ids {
            assert_ne!(id["id"], "null");
            assert!(seen.insert(id["id"].as_str().unwrap().to_owned()), "{id} twice");
        }
    }
    rows
}
