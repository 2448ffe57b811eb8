//! The event log and its processor: order under slow commits, fencing, two processes, retention, poisoned caches.

use std::time::Duration;

use chrono::NaiveDate;
use personas::store::log;
use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};

async fn seen(app: &TestApp, user: &str, n: usize) -> u64 {
    let calls: Vec<Value> =
        (0..n).map(|_| json!({"type": "track", "userId": user, "event": "Seen"})).collect();
    app.track("/v1/batch", json!({ "batch": calls })).await.expect(200).offset()
}

async fn count(app: &TestApp, user: &str, offset: u64) -> Value {
    let path =
        format!("/v1/spaces/default/collections/users/profiles/user_id:{user}/traits?min_offset={offset}");
    app.get(&path).await.expect(200).json["traits"]["seen"].clone()
}

#[tokio::test]
async fn an_append_that_commits_late_is_neither_skipped_nor_overtaken() {
    let app = TestApp::start().await;
    app.make_live("computed-traits", "seen", "event('Seen').count()").await;
    let first = seen(&app, "u1", 1).await;
    // Another writer has taken its place in the log and takes its time to commit.
    let mut slow = app.db.pool.begin().await.unwrap();
    sqlx::query(
        "WITH head AS (UPDATE log_head SET end_offset = end_offset + 1 WHERE space_id = 1 RETURNING end_offset)
         INSERT INTO event_chunk (space_id, end_offset, day, event_count, received_at, names, min_at, max_at, body)
         SELECT c.space_id, head.end_offset, day, 1, received_at, names, min_at, max_at, $1
         FROM event_chunk c, head WHERE c.space_id = 1 AND c.end_offset = $2",
    )
    .bind(other_event().as_slice())
    .bind(first as i64)
    .execute(&mut *slow)
    .await
    .unwrap();
    let (answered, ()) = tokio::join!(seen(&app, "u1", 1), async {
        app.db.wait_for_blocked().await;
        let pipeline = app.get("/v1/spaces/default/pipeline").await.json;
        assert_eq!(pipeline["log_end_offset"], first, "nothing is acknowledged ahead of it");
        slow.commit().await.unwrap();
    });
    assert_eq!(answered, first + 2);
    assert_eq!(count(&app, "u1", answered).await, 3);
}

/// A chunk with one `Seen` of `u1` and a message id of its own.
fn other_event() -> Vec<u8> {
    use personas::domain::{EventType, SourceNo, Timestamp};
    use personas::store::log::codec::{FORMAT, Record};
    let mut content = vec![FORMAT];
    let at = Timestamp::parse("2024-01-01").unwrap();
    Record {
        event_type: EventType::Track,
        clamped: false,
        unprofiled: false,
        public: false,
        act: false,
        erased: false,
        timestamp: at,
        received_at: at,
        source: SourceNo(1),
        message_id: "slow",
        name: "Seen",
        user_id: "u1",
        anonymous_id: "",
        group_id: "",
        previous_id: "",
        body: "",
        context: "",
        integrations: "",
        extra: "",
    }
    .encode(&mut content);
    zstd::bulk::compress(&content, 1).unwrap()
}

#[tokio::test]
async fn a_processor_that_lost_its_lease_writes_nothing_and_comes_back() {
    let app = TestApp::start().await;
    app.make_live("computed-traits", "seen", "event('Seen').count()").await;
    let mut offset = seen(&app, "u1", 5).await;
    assert_eq!(count(&app, "u1", offset).await, 5);
    for round in 0..5 {
        // Somebody else takes over for a moment.
        let steal = "UPDATE processor SET epoch = epoch + 1, owner = NULL,
                         lease_until = clock_timestamp() + interval '300 ms' WHERE space_id = 1";
        sqlx::query(steal).execute(&app.db.pool).await.unwrap();
        offset = seen(&app, "u1", 5).await;
        assert_eq!(count(&app, "u1", offset).await, 10 + round * 5);
    }
    let events =
        app.get("/v1/spaces/default/collections/users/profiles/user_id:u1/events?limit=200").await.json;
    assert_eq!(events["data"].as_array().unwrap().len(), 30);
}

#[tokio::test]
async fn two_processes_share_a_database_and_nothing_counts_twice() {
    let one = TestApp::start().await;
    one.make_live("computed-traits", "seen", "event('Seen').count()").await;
    let two = one.beside().await;
    let mut offset = 0;
    for _ in 0..10 {
        let (a, b) = tokio::join!(seen(&one, "u1", 7), seen(&two, "u1", 3));
        offset = a.max(b);
    }
    assert_eq!(count(&one, "u1", offset).await, 100);
    assert_eq!(count(&two, "u1", offset).await, 100);
    // The one that holds the lease goes; the other takes over.
    one.running.stop(Duration::ZERO).await.unwrap();
    let offset = seen(&two, "u1", 1).await;
    assert_eq!(count(&two, "u1", offset).await, 101);
    let deadlocks: i64 =
        sqlx::query_scalar("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            .fetch_one(&one.db.pool)
            .await
            .unwrap();
    assert_eq!(deadlocks, 0);
}

#[tokio::test]
async fn a_session_that_no_time_limit_ends_keeps_nobody_from_a_lease_for_long() {
    let app = TestApp::start().await;
    app.make_live("computed-traits", "seen", "event('Seen').count()").await;
    app.running.stop(Duration::ZERO).await.unwrap();
    // As of a process that was frozen in the middle of what it was saying: Postgres waits for the rest of it.
    let mut silent = app.db.pool.acquire().await.unwrap();
    let began =
        "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 100; SET LOCAL statement_timeout = 100;
                 CREATE TEMP TABLE said (n int); UPDATE processor SET config_version = config_version";
    sqlx::raw_sql(began).execute(&mut *silent).await.unwrap();
    let said = silent.copy_in_raw("COPY said FROM STDIN").await.unwrap();
    let app = Wish::default().start_on(app.db).await;
    let offset = seen(&app, "u1", 1).await;
    let path = format!("/v1/spaces/default/pipeline?min_offset={offset}");
    while app.get(&path).await.json["processed_offset"].as_u64() < Some(offset) {}
    assert_eq!(count(&app, "u1", offset).await, 1);
    said.finish().await.expect_err("its session was ended");
}

#[tokio::test]
async fn duplicates_are_found_however_old_they_are() {
    let app = Wish::default().option("processor.dedup_recent_max", "1000").start().await;
    app.make_live("computed-traits", "seen", "event('Seen').count()").await;
    let batch = |from: usize| {
        let call =
            |n| json!({"type": "track", "userId": "u1", "event": "Seen", "messageId": format!("m{n}")});
        json!({"batch": (from..from + 500).map(call).collect::<Vec<_>>()})
    };
    for round in 0..3 {
        for from in (0..5_000).step_by(500) {
            let offset = app.track("/v1/batch", batch(from)).await.expect(200).offset();
            // One after the other at first, so that there are several runs; then as they come; then looked at.
            match round {
                0 => assert_eq!(count(&app, "u1", offset).await, from as i64 + 500),
                1 => {}
                _ => assert_eq!(count(&app, "u1", offset).await, 5_000),
            }
        }
    }
    let runs: i64 =
        sqlx::query_scalar("SELECT count(*) FROM message_run").fetch_one(&app.db.pool).await.unwrap();
    assert!(runs >= 2, "{runs} runs");
    assert_eq!(app.get("/v1/spaces/default/pipeline").await.json["duplicates"], 10_000);
    // And after a restart, from what is stored.
    app.running.stop(Duration::ZERO).await.unwrap();
    let app = Wish::default().option("processor.dedup_recent_max", "1000").start_on(app.db).await;
    let offset = app.track("/v1/batch", batch(0)).await.expect(200).offset();
    assert_eq!(count(&app, "u1", offset).await, 5_000);
}

#[tokio::test]
async fn old_weeks_of_the_log_are_dropped_and_profiles_outlive_them() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    app.make_live("computed-traits", "seen", "event('Seen').count()").await;
    let offset = seen(&app, "u1", 3).await;
    assert_eq!(count(&app, "u1", offset).await, 3);
    let day = |text: &str| text.parse::<NaiveDate>().unwrap();
    assert_eq!(log::drop_before(&app.db.pool, day("2024-03-01")).await.unwrap(), 0, "the week is not over");
    assert!(log::drop_before(&app.db.pool, day("2024-06-01")).await.unwrap() > 0);
    assert_eq!(count(&app, "u1", offset).await, 3);
    let events =
        app.get("/v1/spaces/default/collections/users/profiles/user_id:u1/events").await.expect(200).json;
    assert_eq!(events["data"], json!([]));
    let offset = seen(&app, "u1", 1).await;
    assert_eq!(count(&app, "u1", offset).await, 4);
}

#[tokio::test]
async fn a_definition_that_is_switched_off_keeps_its_members_until_it_is_folded_anew() {
    let app = TestApp::start().await;
    app.make_live("audiences", "seen_it", "event('Seen').count() >= 2").await;
    let size = async || app.get("/v1/spaces/default/audiences/seen_it/size").await.json["size"].clone();
    let offset = seen(&app, "u1", 2).await;
    count(&app, "u1", offset).await;
    assert_eq!(size().await, 1);
    let path = "/v1/spaces/default/audiences/seen_it";
    app.patch(path, json!({"enabled": false})).await.expect(200);
    let offset = seen(&app, "u2", 2).await;
    count(&app, "u2", offset).await;
    assert_eq!(size().await, 1, "frozen");
    app.patch(path, json!({"enabled": true})).await.expect(200);
    app.live("audiences", "seen_it").await;
    assert_eq!(size().await, 2);
    let list = app.get(&format!("{path}/transitions")).await.json;
    assert_eq!(list["data"].as_array().unwrap().len(), 2, "u1 never left: {list}");
}

#[tokio::test]
async fn what_refers_to_a_definition_that_is_switched_off_follows_its_members_through_merges() {
    let app = TestApp::start().await;
    app.make_live("audiences", "seen_it", "event('Seen').count() >= 2").await;
    app.make_live("audiences", "follows", "audience('seen_it')").await;
    let size = async || app.get("/v1/spaces/default/audiences/follows/size").await.json["size"].clone();
    // Of an older profile, which the member becomes a part of.
    let device = json!({"type": "track", "anonymousId": "d1", "event": "Other"});
    app.track("/v1/batch", json!({"batch": [device]})).await.expect(200);
    let offset = seen(&app, "u1", 2).await;
    count(&app, "u1", offset).await;
    assert_eq!(size().await, 1);
    app.patch("/v1/spaces/default/audiences/seen_it", json!({"enabled": false})).await.expect(200);
    let both = json!({"type": "identify", "userId": "u1", "anonymousId": "d1"});
    let offset = app.track("/v1/batch", json!({"batch": [both]})).await.expect(200).offset();
    count(&app, "u1", offset).await;
    assert_eq!(size().await, 1, "whoever it is part of now");
    let path = "/v1/spaces/default/collections/users/profiles/anonymous_id:d1/audiences?limit=200";
    let member_of = app.get(path).await.expect(200).json.to_string();
    assert!(member_of.contains("follows") && member_of.contains("seen_it"), "{member_of}");
}
