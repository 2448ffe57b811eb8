//! `personas rebuild`: what is derived from the log again is what was live, byte for byte; and changed settings are applied
//! to history.

use std::time::Duration;

use personas::store::rebuild::TABLES;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{TOKEN, TestApp, Wish, send};
use crate::harness::cluster::TestDb;
use crate::harness::rebuild::{assert_same, command, dump, expect_same, json_of, run, wait};

const SPACE: &str = "/v1/spaces/default";
const PROFILES: &str = "/v1/spaces/default/collections/users/profiles";
const START: i64 = 1_709_294_400_000;
const HOUR: i64 = 3_600_000;

/// Numbers that are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

const AUDIENCES: [(&str, &str); 7] = [
    ("buyers", "event('Bought').count() >= 1"),
    ("once", "event('Bought').count() = 1"),
    ("recent", "event('Bought').within(5 hours).count() >= 2"),
    ("quiet", "event('Seen').within(1 day).count() = 0"),
    ("abandoned", "event('Seen').where(event('Bought').within(parent: 2 hours).count() = 0).count() >= 1"),
    ("loyal", "trait('plan').held_for(2 hours)"),
    ("rich", "trait('spent') > 200 AND NOT audience('recent')"),
];
const TRAITS: [(&str, &str); 3] = [
    ("spent", "event('Bought').sum(property('price'))"),
    ("names", "event('Seen').unique(property('page'))"),
    ("last_price", "event('Bought').within(1 day).last(property('price'))"),
];
const OF_ACCOUNTS: [(&str, &str); 2] =
    [("busy", "ANY event('Bought').within(1 day).count() >= 2"), ("all_seen", "ALL event('Seen').count() >= 1")];

fn time(at: i64) -> String {
    personas::domain::Timestamp::from_millis(at).to_string()
}

async fn start() -> TestApp {
    Wish::default().at(&time(START)).start().await
}

/// Definitions of every kind, made before the first event.
async fn define(app: &TestApp) {
    for (key, query) in TRAITS {
        app.make_live("computed-traits", key, query).await;
    }
    for (key, query) in AUDIENCES {
        app.make_live("audiences", key, query).await;
    }
    for (key, query) in OF_ACCOUNTS {
        let body = json!({"key": key, "definition": {"type": "accounts", "query": query}});
        app.make_live_from("audiences", key, body).await;
    }
    app.make_live_from("audiences", "vip", json!({"key": "vip", "definition": {"list": true}})).await;
}

/// A random call: few people, so that they meet, late events, duplicates and groups among them.
fn call(dice: &mut Dice, now: i64, sent: &mut u64) -> Value {
    *sent += 1;
    let id = if dice.roll(12) == 0 { dice.roll(*sent) } else { *sent };
    let at = now - if dice.roll(4) == 0 { dice.roll(30 * HOUR as u64) as i64 } else { 0 };
    let user = format!("u{}", dice.roll(25));
    let mut call = json!({"messageId": format!("m{id}"), "timestamp": time(at), "type": "track"});
    match dice.roll(4) {
        0 => call["anonymousId"] = json!(format!("a{}", dice.roll(20))),
        1 => {
            call["userId"] = json!(user);
            call["anonymousId"] = json!(format!("a{}", dice.roll(20)));
        }
        _ => call["userId"] = json!(user),
    }
    match dice.roll(10) {
        0 | 1 => {
            call["type"] = json!("identify");
            let plan = [json!("free"), json!("pro"), Value::Null][dice.roll(3) as usize].clone();
            call["traits"] = json!({"plan": plan, "email": format!("E{}@x.y", dice.roll(15))});
        }
        2 => {
            call["type"] = json!("group");
            call["groupId"] = json!(format!("g{}", dice.roll(4)));
            call["traits"] = json!({"seats": dice.roll(9)});
        }
        3 => {
            let kind = if dice.roll(20) == 0 { format!("made_{}", dice.roll(5)) } else { "ios.id".to_owned() };
            let external = json!([{"id": format!("d{}", dice.roll(9)), "type": kind, "collection": "users"}]);
            call["event"] = json!("Seen");
            call["context"] = json!({ "externalIds": external });
        }
        4 | 5 => {
            call["event"] = json!("Seen");
            call["properties"] = json!({"page": format!("p{}", dice.roll(6))});
        }
        _ => {
            call["event"] = json!("Bought");
            call["properties"] = json!({"price": dice.roll(90)});
        }
    }
    call
}

/// Sends random batches and operators' acts, time passing between them. Returns the last offset.
async fn live(app: &TestApp, seed: u64, rounds: u64) -> u64 {
    let mut dice = Dice(seed);
    let (mut now, mut sent, mut offset) = (START, seed * 1_000_000, 0);
    for _ in 0..rounds {
        let calls: Vec<Value> = (0..=dice.roll(60)).map(|_| call(&mut dice, now, &mut sent)).collect();
        offset = app.track("/v1/batch", json!({ "batch": calls })).await.expect(200).offset();
        if dice.roll(3) == 0 {
            app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.expect(200);
            act(app, &mut dice).await;
        }
        if dice.roll(2) == 0 {
            now += dice.roll(9) as i64 * HOUR;
            app.put("/v1/test-clock", json!({"now": time(now)})).await.expect(200);
        }
    }
    let offset = app.track("/v1/track", json!({"userId": "u1", "event": "Seen"})).await.expect(200).offset().max(offset);
    app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.expect(200);
    offset
}

async fn act(app: &TestApp, dice: &mut Dice) {
    let rows = format!("user_id\nu{}\nu{}\n", dice.roll(25), dice.roll(25));
    let path = format!("{SPACE}/audiences/vip/members?mode={}", ["add", "remove"][dice.roll(2) as usize]);
    let upload = app.request(Method::POST, &path).bearer_auth(TOKEN).header("content-type", "text/csv");
    send(upload.body(rows)).await;
    let email = format!("e{}@x.y", dice.roll(15));
    let path = format!("{PROFILES}/email:{email}/external_ids/delete");
    app.post(&path, json!({"delete_external_ids": [{"id": email, "type": "email"}]})).await;
}

#[tokio::test]
async fn what_is_derived_again_is_what_was_live() {
    for seed in 1..=4 {
        let app = start().await;
        define(&app).await;
        live(&app, seed, 25).await;
        let report = expect_same(&app.db).await;
        for kind in ["identifiers", "traits", "computed_traits", "memberships", "links", "otherwise"] {
            assert_eq!(report["different"][kind]["count"], 0, "seed {seed}: {report}");
        }
        assert_eq!(report["swap"]["rows"], 0, "seed {seed}: {report}");
        assert!(report["merges_live"].as_i64().unwrap() > 0);
        // And it goes on from there.
        live(&app, seed + 50, 5).await;
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

#[tokio::test]
async fn a_dry_run_changes_nothing_and_says_the_same() {
    let app = start().await;
    app.make_live("audiences", "buyers", "event('Bought').count() >= 1").await;
    for call in [
        json!({"type": "track", "userId": "u1", "event": "Bought", "context": {"externalIds": [
            {"id": "shared", "type": "ios.id", "collection": "users"}]}}),
        json!({"type": "identify", "userId": "u2", "traits": {"plan": "pro"}}),
        json!({"type": "track", "anonymousId": "a9", "event": "Seen", "context": {"externalIds": [
            {"id": "shared", "type": "ios.id", "collection": "users"}]}}),
        json!({"type": "track", "anonymousId": "a9", "userId": "u3", "event": "Bought"}),
    ] {
        let offset = app.track("/v1/batch", json!({"batch": [call]})).await.expect(200).offset();
        app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.expect(200);
    }
    let blocked = json!({"identifiers": [{"type": "ios.id", "blocked_values": {"exact": ["shared"], "patterns": []}}]});
    let answer = app.patch(&format!("{SPACE}/identity/settings"), blocked).await;
    println!("{}", answer.text);
    answer.expect(200);
    let before = dump(&app.db.pool).await;
    let dry = json_of(&run(&app.db, &["--json", "--dry-run"]).await);
    assert_same(&before, &dump(&app.db.pool).await);
    println!("{dry:#}");
    let mut done = json_of(&run(&app.db, &["--json"]).await);
    println!("{done:#}");
    done["swap"] = Value::Null;
    assert_eq!(dry, done);
    let _ = (command, wait, Duration::ZERO);
}
