//! How events are gathered into batches, and when they are processed, changes nothing of what follows from the log.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};

const NOW: &str = "2024-03-01T12:00:00.000Z";
const LATER: &str = "2024-03-03T12:00:00.000Z";
const AUDIENCES: &str = "/v1/spaces/default/audiences";

const PROFILES: &str = "/v1/spaces/default/collections/users/profiles";

/// Audiences that events enter and leave again within one batch, and what refers to them.
const QUERIES: [(&str, &str, &str); 6] = [
    ("audiences", "once", "event('Bought').count() = 1"),
    ("audiences", "few", "event('Bought').count() <= 2"),
    ("audiences", "referring", "audience('once') OR trait('plan') = 'pro'"),
    ("audiences", "recent", "event('Bought').within(1 day).count() >= 1"),
    ("audiences", "single", "event('Bought').within(1 day).count() = 1"),
    ("computed-traits", "bought", "event('Bought').count()"),
];

async fn start() -> TestApp {
    let app = Wish::default().at(NOW).start().await;
    for (path, key, query) in QUERIES {
        app.make_live(path, key, query).await;
    }
    app
}

fn bought(id: &str, who: &Value) -> Value {
    let mut call = json!({"type": "track", "event": "Bought", "messageId": id, "timestamp": NOW});
    call.as_object_mut().unwrap().extend(who.as_object().unwrap().clone());
    call
}

/// Two people who turn out to be one, one who leaves again, and one who stays.
fn events() -> Vec<Value> {
    let plan = |id: &str, who: &Value, plan: Value| {
        let mut call = bought(id, who);
        let call = call.as_object_mut().unwrap();
        call.remove("event");
        call.insert("type".into(), json!("identify"));
        call.insert("traits".into(), json!({"plan": plan}));
        json!(call)
    };
    vec![
        bought("m1", &json!({"anonymousId": "a1"})),
        bought("m2", &json!({"userId": "u1"})),
        plan("m3", &json!({"userId": "u1", "anonymousId": "a1"}), json!("pro")),
        bought("m4", &json!({"userId": "u2"})),
        bought("m5", &json!({"userId": "u2"})),
        bought("m6", &json!({"userId": "u2"})),
        plan("m7", &json!({"userId": "u1", "timestamp": "2024-03-01T12:00:01Z"}), Value::Null),
        bought("m8", &json!({"userId": "u3"})),
        bought("m2", &json!({"userId": "u1"})),
    ]
}

/// Everything that can be read of some users and the audiences.
async fn read(app: &TestApp, offset: u64, users: &[&str]) -> Vec<Value> {
    let mut paths = vec![format!("{AUDIENCES}/sizes?min_offset={offset}")];
    for user in users {
        for what in ["traits?limit=200&verbose=true", "external_ids", "identity", "metadata"] {
            paths.push(format!("{PROFILES}/user_id:{user}/{what}"));
        }
    }
    for (_, key, _) in QUERIES.iter().filter(|(path, ..)| *path == "audiences") {
        paths.push(format!("{AUDIENCES}/{key}/members"));
        paths.push(format!("{AUDIENCES}/{key}/transitions"));
    }
    let mut all = Vec::new();
    for path in paths {
        let mut body = app.get(&path).await.expect(200).json;
        forget_what_differs(&mut body);
        all.push(json!({ "path": path, "body": body }));
    }
    all
}

/// Ids of sources are drawn by chance, and changes of definitions have their own times.
fn forget_what_differs(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.contains("source_id") && name != "sources");
            fields.values_mut().for_each(forget_what_differs);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_what_differs),
        _ => {}
    }
}

/// One by one, so that a difference can be read.
fn assert_same(left: &[Value], right: &[Value]) {
    left.iter().zip(right).for_each(|(left, right)| assert_eq!(left, right));
    assert_eq!(left.len(), right.len());
}

#[tokio::test]
async fn one_batch_or_one_by_one_gives_the_same() {
    let (together, alone) = (start().await, start().await);
    let offset = together.track("/v1/batch", json!({"batch": events()})).await.expect(200).offset();
    for event in events() {
        let offset = alone.track("/v1/batch", json!({"batch": [event]})).await.expect(200).offset();
        alone.get(&format!("{AUDIENCES}/sizes?min_offset={offset}")).await.expect(200);
    }
    let users = ["u1", "u2", "u3"];
    assert_same(&read(&together, offset, &users).await, &read(&alone, offset, &users).await);
    // And it is what the words say: false for one who was in, if only for a moment.
    let traits = together.get(&format!("{PROFILES}/user_id:u2/traits")).await.expect(200).json;
    let expected = json!({"bought": 3, "few": false, "once": false, "recent": true, "referring": false, "single": false});
    assert_eq!(traits["traits"], expected);
}

/// Keeps the processor away, and lets it come back.
async fn hold_lease(app: &TestApp, until: &str) {
    let sql = "UPDATE processor SET epoch = epoch + 1, lease_until = $1::timestamptz";
    sqlx::query(sql).bind(until).execute(&app.db.pool).await.unwrap();
}

#[tokio::test]
async fn what_was_due_before_an_event_happens_before_it() {
    // Live: it leaves by the clock, and comes back with the second event.
    let live = start().await;
    let second = json!({"batch": [bought("m2", &json!({"userId": "u1", "timestamp": LATER}))]});
    let first = json!({"batch": [bought("m1", &json!({"userId": "u1"}))]});
    let offset = live.track("/v1/batch", &first).await.expect(200).offset();
    live.get(&format!("{AUDIENCES}/sizes?min_offset={offset}")).await.expect(200);
    live.put("/v1/test-clock", json!({"now": LATER})).await.expect(200);
    let offset = live.track("/v1/batch", &second).await.expect(200).offset();
    let expected = read(&live, offset, &["u1"]).await;
    let transitions = live.get(&format!("{AUDIENCES}/recent/transitions")).await.expect(200).json;
    let at: Vec<&str> =
        transitions["data"].as_array().unwrap().iter().map(|t| t["at"].as_str().unwrap()).collect();
    assert_eq!(at, [LATER, "2024-03-02T12:00:00.001Z", NOW], "newest first");

    // Late: both events wait in the log, and are processed together.
    let app = start().await;
    hold_lease(&app, "infinity").await;
    app.track("/v1/batch", &first).await.expect(200);
    app.running.stop(Duration::ZERO).await.unwrap();
    let app = Wish::default().at(LATER).start_on(app.db).await;
    let offset = app.track("/v1/batch", &second).await.expect(200).offset();
    hold_lease(&app, "-infinity").await;
    assert_same(&read(&app, offset, &["u1"]).await, &expected);
}

/// Starts again at another time, on the same database.
async fn later(app: TestApp, now: &str) -> TestApp {
    app.running.stop(Duration::ZERO).await.unwrap();
    Wish::default().at(now).start_on(app.db).await
}

/// A day's window over a backlog: 64 events of one user, the last of them half a day later, and then others. However the
/// backlog is cut into batches, the user stays until a day after the last one.
async fn a_backlog(others: usize) -> Vec<String> {
    let app = start().await;
    hold_lease(&app, "infinity").await;
    let mut first: Vec<Value> =
        (0..62).map(|n| bought(&format!("s{n}"), &json!({"userId": "u1", "event": "Seen"}))).collect();
    first.push(bought("m1", &json!({"userId": "u1"})));
    app.track("/v1/batch", json!({ "batch": first })).await.expect(200);
    for n in 0..others {
        app.track("/v1/track", json!({"userId": "u9", "event": "Seen", "messageId": format!("o{n}")}))
            .await
            .expect(200);
    }
    let noon = "2024-03-02T00:00:00.000Z";
    let app = later(app, noon).await;
    app.track("/v1/batch", json!({"batch": [bought("m2", &json!({"userId": "u1", "timestamp": noon}))]}))
        .await
        .expect(200);
    let app = later(app, LATER).await;
    let offset = app.track("/v1/track", json!({"userId": "u9", "event": "Seen"})).await.expect(200).offset();
    hold_lease(&app, "-infinity").await;
    app.get(&format!("{AUDIENCES}/sizes?min_offset={offset}")).await.expect(200);
    // The clock has to be told once more, so that whatever is due has happened.
    app.put("/v1/test-clock", json!({"now": "2024-03-03T12:00:00.001Z"})).await.expect(200);
    let word = |t: &Value| format!("{} {}", t["transition"].as_str().unwrap(), t["at"].as_str().unwrap());
    let mut all = Vec::new();
    for key in ["recent", "single"] {
        let list = app.get(&format!("{AUDIENCES}/{key}/transitions")).await.expect(200).json;
        all.extend(list["data"].as_array().unwrap().iter().rev().map(word));
    }
    all
}

/// Of `recent`, then of `single`.
const EXPECTED: [&str; 6] = [
    "entered 2024-03-01T12:00:00.000Z",
    "left 2024-03-03T00:00:00.001Z",
    "entered 2024-03-01T12:00:00.000Z",
    "left 2024-03-02T00:00:00.000Z",
    "entered 2024-03-02T12:00:00.001Z",
    "left 2024-03-03T00:00:00.001Z",
];

#[tokio::test]
async fn a_long_batch_forgets_nothing_that_is_still_due() {
    assert_eq!(a_backlog(0).await, EXPECTED);
}

#[tokio::test]
async fn timers_do_not_overtake_a_backlog_of_small_chunks() {
    // More chunks than are read at a time.
    assert_eq!(a_backlog(2_001).await, EXPECTED);
}

#[tokio::test]
async fn batches_that_are_rolled_back_count_everything_once() {
    const USERS: usize = 300;
    const ROUNDS: usize = 10;
    // Many batches, each large enough for the next one to be computed while it is written, and ids of messages are put
    // away all the time.
    let wish = Wish::default().option("processor.dedup_recent_max", "2000");
    let app = wish.option("processor.batch_events_max", "1500").start().await;
    app.make_live("audiences", "before", &format!("event('Bought').count() >= {ROUNDS}")).await;
    hold_lease(&app, "infinity").await;
    let mut offset = 0;
    for round in 0..ROUNDS {
        let events = (0..5 * USERS).map(|n| {
            let (name, user) = (if n < USERS { "Bought" } else { "Seen" }, format!("u{}", n % USERS));
            json!({"type": "track", "event": name, "userId": user, "messageId": format!("{round}-{n}")})
        });
        let body = json!({ "batch": events.collect::<Vec<_>>() });
        offset = app.track("/v1/batch", body).await.expect(200).offset();
    }
    hold_lease(&app, "-infinity").await;
    // The configuration changes under everything that is under way, each time something has gone through.
    let mut processed = 0;
    while processed < offset {
        let sql = "UPDATE processor SET config_version = config_version + 1";
        sqlx::query(sql).execute(&app.db.pool).await.unwrap();
        let before = processed;
        while processed == before {
            let pipeline = app.get("/v1/spaces/default/pipeline").await.json;
            processed = pipeline["processed_offset"].as_u64().unwrap();
        }
    }
    let body =
        json!({"key": "after", "definition": {"type": "users", "query": "event('Bought').count() >= 10"}});
    app.post(AUDIENCES, body).await.expect(201);
    for key in ["before", "after"] {
        app.live("audiences", key).await;
        let size = app.get(&format!("{AUDIENCES}/{key}/size?min_offset={offset}")).await.expect(200).json;
        assert_eq!(size["size"], USERS, "{key}");
    }
    let pipeline = app.get("/v1/spaces/default/pipeline").await.expect(200).json;
    assert_eq!((&pipeline["duplicates"], &pipeline["profiles"]["users"]), (&json!(0), &json!(USERS)));
}

#[tokio::test]
async fn postgres_hears_early_how_large_the_tables_are() {
    let app = TestApp::start().await;
    let batch: Vec<Value> =
        (0..1_200).map(|n| json!({"type": "identify", "userId": format!("u{n}")})).collect();
    let made = app.track("/v1/batch", json!({"batch": batch})).await.expect(200).offset();
    app.get(&format!("{AUDIENCES}/sizes?min_offset={made}")).await.expect(200);
    // Before the next batch, the tables are looked at. Nobody else does here: tests run without autovacuum.
    let next = app.track("/v1/identify", json!({"userId": "one more"})).await.expect(200).offset();
    app.get(&format!("{AUDIENCES}/sizes?min_offset={next}")).await.expect(200);
    for table in ["profile", "external_id"] {
        let sql = "SELECT reltuples FROM pg_class WHERE oid = $1::regclass";
        let rows: f32 = sqlx::query_scalar(sql).bind(table).fetch_one(&app.db.pool).await.unwrap();
        assert!(rows >= 1_200.0, "{table}: {rows}");
    }
}
