//! `personas rebuild`: what is derived from the log again is what was live, byte for byte; and changed settings are applied
//! to history.

use std::time::Duration;

use personas::store::rebuild::TABLES;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::TestApp;
use crate::harness::cluster::TestDb;
use crate::harness::random_log::{Dice, HOUR, START, define, live, start};
use crate::harness::rebuild::{assert_same, command, dump, expect_same, json_of, run, wait};
use crate::verify::verify;

const SPACE: &str = "/v1/spaces/default";
const PROFILES: &str = "/v1/spaces/default/collections/users/profiles";
#[tokio::test]
async fn what_is_derived_again_is_what_was_live() {
    for seed in 1..=3 {
        let app = start().await;
        define(&app).await;
        live(&app, seed, START, 25).await;
        let (said, code) = verify(&app.db, &[]);
        assert_eq!(code, 0, "seed {seed}: {said}");
        let report = expect_same(&app.db).await;
        for kind in ["identifiers", "traits", "computed_traits", "memberships", "links", "otherwise"] {
            assert_eq!(report["different"][kind]["count"], 0, "seed {seed}: {report}");
        }
        assert_eq!(report["swap"]["rows"], 0, "seed {seed}: {report}");
        assert!(report["merges_live"].as_i64().unwrap() > 0);
        // And it goes on from there.
        live(&app, seed + 50, START + 1_000 * HOUR, 5).await;
        expect_same(&app.db).await;
    }
}

#[tokio::test]
async fn every_table_has_its_part_in_a_rebuild() {
    let db = TestDb::new().await;
    let sql = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
               AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> '_sqlx_migrations' ORDER BY 1";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&db.pool).await.unwrap();
    let mut known: Vec<&str> = TABLES.iter().map(|(table, _)| *table).collect();
    known.sort_unstable();
    assert_eq!(tables, known, "decide in store::rebuild what a rebuild does with a new table");
}

/// Sends calls one request after the other, and waits until they are processed.
pub(crate) async fn send_all(app: &TestApp, calls: &[Value]) {
    let mut offset = 0;
    for call in calls {
        offset = app.track("/v1/batch", json!({"batch": [call]})).await.expect(200).offset();
    }
    app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.expect(200);
}

fn on_device(call: &mut Value, device: &str) -> Value {
    let external = json!([{"id": device, "type": "ios.id", "collection": "users", "encoding": "none"}]);
    call["context"] = json!({ "externalIds": external });
    call.clone()
}

/// Three people who bought, and are taken for one because of a device that all share; one who is on his own.
pub(crate) async fn shared_device() -> TestApp {
    let app = start().await;
    app.make_live("audiences", "buyers", "event('Bought').count() >= 1").await;
    app.make_live("audiences", "regulars", "event('Bought').count() >= 3").await;
    app.make_live("audiences", "new", "event('Bought').count() < 2").await;
    let bought = |user: &str| json!({"type": "track", "userId": user, "event": "Bought"});
    let anonymous = |id: &str| json!({"type": "track", "anonymousId": id, "event": "Seen"});
    let calls = [
        bought("u1"),
        bought("u4"),
        on_device(&mut anonymous("a1"), "shared"),
        on_device(&mut json!({"type": "identify", "anonymousId": "a1", "traits": {"plan": "pro"}}), "shared"),
        on_device(&mut anonymous("a2"), "shared"),
        json!({"type": "track", "anonymousId": "a2", "userId": "u1", "event": "Bought"}),
        bought("u1"),
    ];
    send_all(&app, &calls).await;
    app
}

pub(crate) async fn block_device(app: &TestApp) {
    let blocked =
        json!({"identifiers": [{"type": "ios.id", "blocked": {"exact": ["shared"], "patterns": []}}]});
    app.patch(&format!("{SPACE}/identity/settings"), blocked).await.expect(200);
}

pub(crate) async fn who(app: &TestApp, selector: &str) -> String {
    let found = app.get(&format!("{PROFILES}/{selector}/metadata")).await.expect(200).json;
    found["metadata"]["profile_id"].as_str().unwrap().to_owned()
}

/// What is told in several places is the same, and transitions of each profile are in turn, beginning with entering.
pub(crate) async fn expect_consistent(app: &TestApp) {
    let audiences = app.get(&format!("{SPACE}/audiences")).await.expect(200).json;
    for audience in audiences["data"].as_array().unwrap() {
        let key = audience["key"].as_str().unwrap();
        let read =
            async |what: &str| app.get(&format!("{SPACE}/audiences/{key}/{what}")).await.expect(200).json;
        let members = read("members?limit=200").await;
        let members: Vec<&str> =
            members["data"].as_array().unwrap().iter().map(|m| m["profile_id"].as_str().unwrap()).collect();
        let transitions = read("transitions?limit=200").await;
        let mut newest: std::collections::BTreeMap<&str, &str> = std::collections::BTreeMap::new();
        for told in transitions["data"].as_array().unwrap().iter().rev() {
            let (who, word) = (told["profile_id"].as_str().unwrap(), told["transition"].as_str().unwrap());
            let before = newest.insert(who, word);
            assert_ne!(before.unwrap_or("left"), word, "{key}: {transitions:#}");
        }
        let mut told: Vec<&str> =
            newest.iter().filter(|(_, word)| **word == "entered").map(|(who, _)| *who).collect();
        let mut in_it = members.clone();
        told.sort_unstable();
        in_it.sort_unstable();
        assert_eq!(told, in_it, "{key}");
        let sizes: (i64, i64) = sqlx::query_as(
            "SELECT c.size, (SELECT coalesce(sum(delta), 0)::bigint FROM size_change s WHERE s.definition_no = d.definition_no)
             FROM definition d JOIN computation c ON c.computation_no = d.serving_no WHERE d.key = $1",
        )
        .bind(key)
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
        assert_eq!(sizes, (members.len() as i64, members.len() as i64), "{key}");
    }
}

/// A log of some thousand events, with definitions made before it.
pub(crate) async fn long(seed: u64) -> TestApp {
    let app = start().await;
    define(&app).await;
    live(&app, seed, START, 80).await;
    app
}

/// Rebuilds in small steps, so that there is time to do something meanwhile.
pub(crate) fn slowly(db: &TestDb, arguments: &[&str]) -> std::process::Command {
    let mut command = command(db, arguments);
    command.env(personas::config::variable("processor.batch_events_max"), "20");
    command
}

/// Where a rebuild under way stands; none before it begins and after it ends.
async fn position(db: &TestDb) -> Option<i64> {
    sqlx::query_scalar("SELECT processed_offset FROM rebuild_1.processor").fetch_one(&db.pool).await.ok()
}

pub(crate) async fn until_behind(db: &TestDb, offset: i64) {
    while position(db).await.is_none_or(|at| at < offset) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn killed_in_the_middle_it_goes_on_where_it_was() {
    let app = long(11).await;
    let before = dump(&app.db.pool).await;
    let mut dice = Dice(7);
    let mut reached = 0;
    for _ in 0..3 {
        reached += 100 + dice.roll(200) as i64;
        let mut child = slowly(&app.db, &[]).spawn().unwrap();
        until_behind(&app.db, reached).await;
        child.kill().unwrap();
        let said = wait(child).await;
        assert_eq!(said.code, -1);
        assert_same(&before, &dump(&app.db.pool).await);
    }
    let said = run(&app.db, &[]).await;
    assert_eq!(said.code, 0, "{}", said.progress);
    let on: i64 =
        said.progress.split("goes on behind event ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    assert!(on >= reached, "{}", said.progress);
    assert_same(&before, &dump(&app.db.pool).await);
}

#[tokio::test]
async fn killed_at_the_swap_nothing_is_lost() {
    let app = long(12).await;
    let epoch = async || -> i64 {
        sqlx::query_scalar("SELECT epoch FROM processor").fetch_one(&app.db.pool).await.unwrap()
    };
    let before = dump(&app.db.pool).await;
    let held = epoch().await;
    let mut child = command(&app.db, &[]).spawn().unwrap();
    while epoch().await == held {
        tokio::task::yield_now().await;
    }
    child.kill().unwrap();
    wait(child).await;
    // Whether it was in time or not: all is there, and processing goes on when the lease has run out.
    assert_same(&before, &dump(&app.db.pool).await);
    let offset =
        app.track("/v1/track", json!({"userId": "u1", "event": "Bought"})).await.expect(200).offset();
    while app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.status != 200 {}
    send_all(&app, &[json!({"type": "track", "userId": "u1", "event": "Bought"})]).await;
    expect_same(&app.db).await;
}

#[tokio::test]
async fn a_change_of_definitions_makes_it_begin_anew() {
    let app = long(13).await;
    let mut child = slowly(&app.db, &[]).spawn().unwrap();
    until_behind(&app.db, 100).await;
    child.kill().unwrap();
    wait(child).await;
    app.make_live("audiences", "later", "event('Seen').count() >= 1").await;
    let said = run(&app.db, &[]).await;
    assert_eq!(said.code, 0, "{}", said.progress);
    assert!(!said.progress.contains("goes on"), "{}", said.progress);
    // Those who were in it before it was made are in it since their events, and nothing else is different.
    assert!(said.report.contains("nothing anybody sees is different"), "{}", said.report);
    // While it runs, too.
    let child = slowly(&app.db, &[]).spawn().unwrap();
    until_behind(&app.db, 100).await;
    app.make_live("audiences", "latest", "event('Seen').count() >= 2").await;
    let said = wait(child).await;
    assert_eq!(said.code, 0, "{}", said.progress);
    assert!(said.progress.contains("begins anew"), "{}", said.progress);
    expect_same(&app.db).await;
}

#[tokio::test]
async fn one_at_a_time() {
    let app = long(14).await;
    let mut child = slowly(&app.db, &[]).spawn().unwrap();
    until_behind(&app.db, 20).await;
    let second = run(&app.db, &[]).await;
    assert_eq!(second.code, 1);
    assert!(second.progress.contains("is being rebuilt already"), "{}", second.progress);
    child.kill().unwrap();
    wait(child).await;
    expect_same(&app.db).await;
}

#[tokio::test]
async fn events_that_come_meanwhile_count_once() {
    let app = start().await;
    app.make_live("computed-traits", "count", "event('Bought').count()").await;
    app.make_live("audiences", "buyers", "event('Bought').count() >= 1").await;
    let calls = |from: u64| -> Vec<Value> {
        let call = |n| json!({"type": "track", "event": "Bought", "messageId": format!("m{n}"), "userId": format!("u{}", n % 20)});
        (from..from + 100).map(call).collect()
    };
    for n in 0..20 {
        app.track("/v1/batch", json!({"batch": calls(n * 100)})).await.expect(200);
    }
    let child = slowly(&app.db, &["--json"]).spawn().unwrap();
    until_behind(&app.db, 1).await;
    let mut offset = 0;
    for n in 20..50 {
        offset = app.track("/v1/batch", json!({"batch": calls(n * 100)})).await.expect(200).offset();
        // Some of them twice.
        app.track("/v1/batch", json!({"batch": calls(n * 100 - 50)})).await.expect(200);
    }
    let report = json_of(&wait(child).await);
    assert_eq!(report["swap"]["transitions"], 0, "{report}");
    for user in 0..20 {
        let path = format!("{PROFILES}/user_id:u{user}/traits?min_offset={offset}");
        let traits = app.get(&path).await.expect(200).json;
        assert_eq!(traits["traits"]["count"], 250, "u{user}");
    }
    let offset = app.track("/v1/track", json!({"userId": "u0", "event": "Seen"})).await.expect(200).offset();
    app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.expect(200);
    expect_same(&app.db).await;
}

#[tokio::test]
async fn reads_meanwhile_are_of_before_or_of_after() {
    let app = shared_device().await;
    block_device(&app).await;
    // Seen together before, and apart after: one profile's parts never mix.
    let ids = async || {
        let list = app.get(&format!("{PROFILES}/user_id:u1/external_ids?limit=200")).await.expect(200).json;
        let mut ids: Vec<String> =
            list["data"].as_array().unwrap().iter().map(|id| id["id"].as_str().unwrap().to_owned()).collect();
        ids.sort_unstable();
        ids.join(" ")
    };
    let before = ids().await;
    let mut child = command(&app.db, &[]).spawn().unwrap();
    let mut seen = vec![before.clone()];
    while child.try_wait().unwrap().is_none() {
        let now = ids().await;
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    }
    assert_eq!(ids().await, "a2 u1");
    assert!(seen.len() <= 2 && before == "a1 a2 shared u1", "{seen:?}");
    wait(child).await;
}

/// Of all users there may be.
async fn all_traits(app: &TestApp) -> Vec<Value> {
    let mut all = Vec::new();
    for user in 0..25 {
        let answer = app.get(&format!("{PROFILES}/user_id:u{user}/traits?limit=200")).await;
        all.push(answer.json["traits"].clone());
    }
    all
}

#[tokio::test]
async fn definitions_that_are_switched_off_keep_their_members() {
    let app = start().await;
    define(&app).await;
    live(&app, 21, START, 10).await;
    for (path, key) in [("audiences", "buyers"), ("audiences", "once"), ("computed-traits", "names")] {
        app.call(Method::PATCH, &format!("{SPACE}/{path}/{key}"), Some(json!({"enabled": false})))
            .await
            .expect(200);
    }
    live(&app, 22, START + 1_000 * HOUR, 10).await;
    let (before, traits) = (dump(&app.db.pool).await, all_traits(&app).await);
    let report = json_of(&run(&app.db, &["--json"]).await);
    let mut after = dump(&app.db.pool).await;
    // What it was computed from is forgotten in profiles that are rewritten, and nothing else.
    after.insert("profile".to_owned(), before["profile"].clone());
    assert_same(&before, &after);
    for kind in ["identifiers", "traits", "computed_traits", "memberships", "links"] {
        assert_eq!(report["different"][kind]["count"], 0, "{report}");
    }
    assert_eq!(traits, all_traits(&app).await);
    assert!(traits.iter().any(|traits| traits["names"].is_array() && traits["buyers"] == true), "{traits:?}");
}

#[tokio::test]
async fn nothing_is_forgotten_without_being_asked() {
    let app = start().await;
    let events: Vec<Value> =
        (0..3).map(|n| json!({"type": "track", "event": "Seen", "userId": format!("u{n}")})).collect();
    send_all(&app, &events).await;
    sqlx::query("DELETE FROM event_chunk WHERE end_offset = 1").execute(&app.db.pool).await.unwrap();
    let said = run(&app.db, &[]).await;
    assert_eq!(said.code, 1);
    assert!(said.progress.contains("1 events are not kept any more"), "{}", said.progress);
    let said = run(&app.db, &["--forget-lost"]).await;
    assert_eq!(said.code, 0, "{}", said.progress);
    app.get(&format!("{PROFILES}/user_id:u0/metadata")).await.expect(404);
    who(&app, "user_id:u2").await;
}

#[tokio::test]
async fn without_a_server_it_works_as_well() {
    let app = long(15).await;
    app.running.stop(Duration::ZERO).await.unwrap();
    expect_same(&app.db).await;
    let said = run(&app.db, &["--space", "nowhere"]).await;
    assert_ne!(said.code, 0, "{}", said.progress);
}
