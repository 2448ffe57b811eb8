//! Segments of the log: scans of history say the same with them as without, and do read them.

use std::time::{Duration, Instant};

use personas::domain::SpaceNo;
use personas::store::audiences::begin_snapshot;
use personas::store::segments::Hold;
use personas::store::walled;
use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};
use crate::harness::cluster::TestDb;
use crate::verify::verify;

const SPACE: &str = "/v1/spaces/default";
const NOW: &str = "2024-03-01T12:00:00Z";

/// One of everything a scan may have to read.
const AUDIENCES: [&str; 12] = [
    "event('Order').count() >= 3",
    "event('Order').within(30 days).count() >= 2",
    "event('Order').where(property('total') > 50).count() >= 2",
    "event('Order').where(property('ship.city') = 'Oslo').count() >= 1",
    "event('Order').where(any_item('items', property('sku') = 's1')).count() >= 1",
    "event('*').within(60 days).count() >= 9",
    "event('Page Viewed').where(property('page_name') = 'Home').count() >= 1",
    "event('Order').where(context('ip') = '1.1.1.1').count() >= 1",
    "event('Odd').where(property('k149') = 1).count() >= 1",
    "event('Order').where(source('default')).count() >= 1",
    "event('Order').where(timestamp().before_date(2024-02-15)).count() >= 1",
    "trait('plan') = 'pro' AND event('Order').count() >= 1",
];
const TRAITS: [&str; 7] = [
    "event('Order').sum(property('total'))",
    "event('Order').first(property('city'))",
    "event('Order').last(property('total'))",
    "event('Order').unique(property('ship.city'))",
    "event('Order').within(90 days).avg(property('total'))",
    "event('Order').max(property('items.price'))",
    "event('Odd').count()",
];

/// So many events of ten users, some late, some sent twice, some of people who become one later.
fn events(from: u64, count: u64) -> Vec<Value> {
    let event = |n: u64| {
        let city = if n.is_multiple_of(2) { "Oslo" } else { "Rome" };
        let mut event = json!({
            "type": "track", "event": "Order", "messageId": format!("m{}", n - n % 7 / 6),
            "timestamp": format!("2024-{:02}-{:02}T{:02}:00:00Z", 1 + n % 2, 1 + n * 5 % 28, n % 24),
            "properties": {"total": n % 90, "city": city, "ship": {"city": "Oslo"}},
            "context": {"ip": format!("1.1.1.{}", n % 5)},
        });
        match n % 3 {
            0 => event["anonymousId"] = json!(format!("a{}", n % 10)),
            _ => event["userId"] = json!(format!("u{}", n % 10)),
        }
        match n % 8 {
            1 => {
                event["properties"] =
                    json!({"total": "12.5", "items": [{"sku": "s1", "price": 1}, {"price": n}]});
            }
            2 => event["event"] = json!("Odd"),
            3 => (event["type"], event["name"]) = (json!("page"), json!("Home")),
            4 => event["properties"] = json!(null),
            5 => event["event"] = json!(format!("Rare {n}")),
            _ => {}
        }
        if n % 16 == 2 {
            event["properties"] = (0..150).map(|k| (format!("k{k}"), json!(1))).collect();
        }
        event
    };
    (from..from + count).map(event).collect()
}

async fn send(app: &TestApp, events: Vec<Value>) -> u64 {
    let mut offset = 0;
    // In many chunks.
    for some in events.chunks(40) {
        offset = app.track("/v1/batch", json!({"batch": some})).await.expect(200).offset();
    }
    offset
}

async fn define(app: &TestApp, prefix: &str) {
    for (n, query) in AUDIENCES.iter().enumerate() {
        app.make_live("audiences", &format!("{prefix}_a{n}"), query).await;
    }
    for (n, query) in TRAITS.iter().enumerate() {
        app.make_live("computed-traits", &format!("{prefix}_t{n}"), query).await;
    }
}

/// What every user is by the definitions of this prefix.
async fn values(app: &TestApp, prefix: &str, offset: u64) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for user in 0..10 {
        let path = format!(
            "{SPACE}/collections/users/profiles/user_id:u{user}/traits?limit=200&min_offset={offset}"
        );
        let traits = app.get(&path).await.expect(200).json["traits"].clone();
        let own = traits.as_object().unwrap().iter().filter_map(|(key, value)| {
            Some((format!("u{user} {}", key.strip_prefix(prefix)?), value.clone()))
        });
        all.extend(own);
    }
    all
}

/// Waits until there are segments up to about this offset; where they end.
async fn segments_up_to(app: &TestApp, offset: u64) -> u64 {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let pipeline = app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.expect(200).json;
        let end = pipeline["segments_end_offset"].as_u64().unwrap();
        if end >= offset {
            return end;
        }
        assert!(Instant::now() < deadline, "no segments: {pipeline}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_scan_says_the_same_with_segments_as_what_was_live_all_along() {
    let app = Wish::default().at(NOW).option("log.segment_events", "100").start().await;
    define(&app, "live").await;
    send(&app, events(0, 600)).await;
    segments_up_to(&app, 500).await;
    // Behind the segments, there is more; and people of whom there are segments become one.
    for n in 0..5 {
        let call =
            json!({"userId": format!("u{n}"), "anonymousId": format!("a{n}"), "traits": {"plan": "pro"}});
        app.track("/v1/identify", call).await.expect(200);
    }
    let offset = send(&app, events(2_000, 30)).await;
    values(&app, "live", offset).await;
    let preview = format!("{SPACE}/audiences/preview");
    for query in AUDIENCES {
        let found = app.post(&preview, json!({"definition": {"query": query}})).await.expect(200);
        let live = AUDIENCES.iter().position(|q| *q == query).unwrap();
        let size = app.get(&format!("{SPACE}/audiences/live_a{live}/size")).await.expect(200);
        assert_eq!(found.json["size"], size.json["size"], "{query}");
        assert_ne!(found.json["size"], 0, "{query}");
    }
    define(&app, "late").await;
    let (live, late) = (values(&app, "live", offset).await, values(&app, "late", offset).await);
    assert!(live.len() > 100, "{}", live.len());
    assert_eq!(live, late);
}

#[tokio::test]
async fn segments_are_what_a_scan_reads() {
    let app = Wish::default().at(NOW).option("log.segment_events", "100").start().await;
    let offset = send(&app, events(0, 400)).await;
    let end = segments_up_to(&app, 300).await;
    let preview = async || {
        let query =
            json!({"definition": {"query": "event('Order').where(property('total') > 20).count() >= 2"}});
        app.post(&format!("{SPACE}/audiences/preview"), query).await.expect(200).json["size"].clone()
    };
    values(&app, "", offset).await;
    let before = preview().await;
    // Nothing of the chunks is needed where there are segments.
    let emptied = sqlx::query("UPDATE event_chunk SET body = '' WHERE end_offset <= $1")
        .bind(end as i64)
        .execute(&app.db.pool)
        .await
        .unwrap();
    assert!(emptied.rows_affected() > 0);
    assert_eq!(preview().await, before);
    // And segments that are not there are no loss either, only chunks are.
    sqlx::query("DELETE FROM log_segment").execute(&app.db.pool).await.unwrap();
    let query = json!({"definition": {"query": "event('Order').count() >= 2"}});
    app.post(&format!("{SPACE}/audiences/preview"), query).await.expect(500);
}

#[tokio::test]
async fn segments_go_with_their_weeks() {
    let app = Wish::default().at(NOW).option("log.segment_events", "100").start().await;
    let offset = send(&app, events(0, 200)).await;
    segments_up_to(&app, 100).await;
    values(&app, "", offset).await;
    let day = chrono::NaiveDate::from_ymd_opt(2024, 6, 1).unwrap();
    // It does not wait long for whoever reads: the server comes back to it later.
    let mut dropped = Err(personas::store::StoreError::Fenced);
    for _ in 0..20 {
        dropped = personas::store::log::drop_before(&app.db.pool, day).await;
        if dropped.is_ok() {
            break;
        }
    }
    assert!(dropped.unwrap() > 0);
    let pipeline = app.get(&format!("{SPACE}/pipeline")).await.expect(200).json;
    assert_eq!(pipeline["segments_end_offset"], 0);
    let query = json!({"definition": {"query": "event('Order').count() >= 1"}});
    let preview = app.post(&format!("{SPACE}/audiences/preview"), query).await.expect(200);
    assert_eq!(preview.json["size"], 0, "what is not kept any more is not counted anew");
}

/// Everything that is read by offset, of all users.
async fn timelines(app: &TestApp, offset: u64) -> Vec<Value> {
    let mut all = Vec::new();
    for user in 0..10 {
        let path = format!(
            "{SPACE}/collections/users/profiles/user_id:u{user}/events?limit=200&min_offset={offset}"
        );
        all.push(app.get(&path).await.expect(200).json["data"].clone());
    }
    all
}

#[tokio::test]
async fn small_chunks_become_large_ones_and_nobody_notices() {
    let app = Wish::default().at(NOW).option("log.segment_events", "150").start().await;
    // One event a request: as many chunks, or nearly.
    let mut offset = 0;
    for event in events(0, 140) {
        offset = app.track("/v1/batch", json!({"batch": [event]})).await.expect(200).offset();
    }
    let count = async || {
        let sql = "SELECT count(*), sum(event_count)::bigint, (SELECT count(*) FROM chunk_outcome) FROM event_chunk";
        sqlx::query_as::<_, (i64, i64, i64)>(sql).fetch_one(&app.db.pool).await.unwrap()
    };
    let before = timelines(&app, offset).await;
    let (chunks, events_before, outcomes) = count().await;
    assert!(chunks > 100 && outcomes == chunks, "{chunks} chunks");
    offset = send(&app, events(1_000, 20)).await;
    segments_up_to(&app, 140).await;
    let (chunks, events_now, outcomes) = count().await;
    assert!(chunks < 10 && outcomes == chunks, "{chunks} chunks");
    assert_eq!(events_now, events_before + 20);
    let after = timelines(&app, offset).await;
    for (before, after) in before.iter().zip(&after) {
        let (before, after) = (before.as_array().unwrap(), after.as_array().unwrap());
        assert!(before.iter().all(|event| after.contains(event)));
    }
    // What is folded from the log is what it was: nothing twice, nothing left out.
    define(&app, "late").await;
    let (text, code) = verify(&app.db, &[]);
    assert_eq!(code, 0, "{text}");
}

#[tokio::test]
async fn whoever_lets_go_of_the_chunks_is_followed_at_once() {
    let db = TestDb::new().await;
    let one = SpaceNo(1);
    for _ in 0..50 {
        let hold = Hold::try_take(&db.pool, one).await.unwrap();
        hold.expect("the one before has let go").release().await.unwrap();
    }
    let hold = Hold::take(&db.pool, one).await.unwrap();
    assert!(Hold::try_take(&db.pool, one).await.unwrap().is_none(), "one at a time");
    Hold::take(&db.pool, SpaceNo(2)).await.unwrap().release().await.unwrap();
    // As by an error half-way.
    drop(hold);
    Hold::take(&db.pool, one).await.unwrap().release().await.unwrap();
    // A slow reader of an export is not broken off as soon as somebody who has locked something.
    let mut tx = begin_snapshot(&walled(&db.pool, one)).await.unwrap();
    let sql = "SHOW idle_in_transaction_session_timeout";
    let limit: String = sqlx::query_scalar(sql).fetch_one(&mut *tx).await.unwrap();
    assert_eq!(limit, "15min");
}
