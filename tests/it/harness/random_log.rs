//! Random logs of a space with definitions of every kind: calls of few people, operators' acts between them, time passing.

use reqwest::Method;
use serde_json::{Value, json};

use super::app::{TOKEN, TestApp, Wish, send};

const SPACE: &str = "/v1/spaces/default";
const PROFILES: &str = "/v1/spaces/default/collections/users/profiles";
pub(crate) const START: i64 = 1_709_294_400_000;
pub(crate) const HOUR: i64 = 3_600_000;

/// Numbers that are the same for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

pub(crate) const AUDIENCES: [(&str, &str); 7] = [
    ("buyers", "event('Bought').count() >= 1"),
    ("once", "event('Bought').count() = 1"),
    ("recent", "event('Bought').within(5 hours).count() >= 2"),
    ("quiet", "event('Seen').within(1 day).count() = 0"),
    ("abandoned", "event('Seen').where(event('Bought').within(parent: 2 hours).count() = 0).count() >= 1"),
    ("loyal", "trait('plan').held_for(2 hours)"),
    ("rich", "trait('spent') > 200 AND NOT audience('recent')"),
];
pub(crate) const TRAITS: [(&str, &str); 3] = [
    ("spent", "event('Bought').sum(property('price'))"),
    ("names", "event('Seen').unique(property('page'))"),
    ("last_price", "event('Bought').within(1 day).last(property('price'))"),
];
pub(crate) const OF_ACCOUNTS: [(&str, &str); 2] = [
    ("busy", "ANY event('Bought').within(1 day).count() >= 2"),
    ("all_seen", "ALL event('Seen').count() >= 1"),
];

pub(crate) fn time(at: i64) -> String {
    personas::domain::Timestamp::from_millis(at).to_string()
}

pub(crate) async fn start() -> TestApp {
    Wish::default().at(&time(START)).start().await
}

/// Definitions of every kind, made before the first event.
pub(crate) async fn define(app: &TestApp) {
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
pub(crate) fn call(dice: &mut Dice, now: i64, sent: &mut u64) -> Value {
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
            let kind =
                if dice.roll(20) == 0 { format!("made_{}", dice.roll(5)) } else { "ios.id".to_owned() };
            let external = json!([{"id": format!("d{}", dice.roll(9)), "type": kind, "collection": "users", "encoding": "none"}]);
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
pub(crate) async fn live(app: &TestApp, seed: u64, from: i64, rounds: u64) -> u64 {
    let mut dice = Dice(seed);
    let (mut now, mut sent, mut offset) = (from, seed * 1_000_000, 0);
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
    let offset = app
        .track("/v1/track", json!({"userId": "u1", "event": "Seen"}))
        .await
        .expect(200)
        .offset()
        .max(offset);
    app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.expect(200);
    offset
}

pub(crate) async fn act(app: &TestApp, dice: &mut Dice) {
    let rows = format!("user_id\nu{}\nu{}\n", dice.roll(25), dice.roll(25));
    let path = format!("{SPACE}/audiences/vip/members?mode={}", ["add", "remove"][dice.roll(2) as usize]);
    let upload = app.request(Method::POST, &path).bearer_auth(TOKEN).header("content-type", "text/csv");
    send(upload.body(rows)).await;
    let email = format!("e{}@x.y", dice.roll(15));
    let path = format!("{PROFILES}/email:{email}/external_ids/delete");
    app.post(&path, json!({"delete_external_ids": [{"id": email, "type": "email"}]})).await;
    let user = |dice: &mut Dice| format!("user_id:u{}", dice.roll(25));
    // Some of these are refused: that is part of the log, too.
    match dice.roll(7) {
        2 => {
            let path = format!("{PROFILES}/{}/external_ids/move", user(dice));
            let kind = [
                ("email", format!("e{}@x.y", dice.roll(15))),
                ("anonymous_id", format!("a{}", dice.roll(20))),
            ];
            let (id_type, id) = &kind[dice.roll(2) as usize];
            app.post(&path, json!({"type": id_type, "id": id, "to": user(dice)})).await;
        }
        3 => {
            let path = format!("{PROFILES}/{}/links/delete", user(dice));
            app.post(&path, json!({"group_id": format!("g{}", dice.roll(4))})).await;
        }
        4 => {
            let two = json!({"profiles": [user(dice), user(dice)]});
            app.post(&format!("{SPACE}/identity/blocks/lift"), two).await;
        }
        0 => {
            let two = json!({"profiles": [user(dice), user(dice)], "override_limits": true});
            app.post(&format!("{SPACE}/identity/merges"), two).await;
        }
        1 => {
            let two = json!({"profiles": [user(dice), user(dice)]});
            app.post(&format!("{SPACE}/identity/blocks"), two).await;
        }
        _ => {
            let sql =
                "SELECT merge_id FROM profile_merge WHERE undone_at IS NULL ORDER BY log_offset DESC LIMIT 1";
            let merge: Option<uuid::Uuid> =
                sqlx::query_scalar(sql).fetch_optional(&app.db.pool).await.unwrap();
            if let Some(merge) = merge {
                let merge = personas::domain::ids::public_id("mrg", merge);
                app.post(&format!("{SPACE}/identity/merges/{merge}/undo"), json!({})).await;
            }
        }
    }
}
