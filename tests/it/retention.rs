//! Events are kept, and count, for as long as a space says: shown over 400 days of the test clock.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::acts::{Case, NOW, SPACE, USERS};
use crate::harness::app::{Wish, send};
use crate::harness::rebuild::{command, json_of, wait};

const RETENTION: &str = "/v1/spaces/default/retention";

/// The test clock, so many days and milliseconds after the first instant.
async fn at(case: &Case, days: i64, millis: i64) {
    let start = personas::domain::Timestamp::parse("2024-03-01T12:00:00.000Z").unwrap();
    let now = start.plus_millis(days * 86_400_000 + millis).to_string();
    case.app.put("/v1/test-clock", json!({"now": now})).await.expect(200);
}

async fn value(case: &Case, user: &str, name: &str) -> Value {
    case.traits(&format!("user_id:{user}")).await.get(name).cloned().unwrap_or_default()
}

/// Names of the events of a user, newest first.
async fn events(case: &Case, user: &str) -> Vec<String> {
    let list = case.get(&format!("{USERS}/user_id:{user}/events?limit=200")).await;
    let name = |e: &Value| e["event"].as_str().unwrap_or("identify").to_owned();
    list["data"].as_array().unwrap().iter().map(name).collect()
}

async fn chunks(case: &Case) -> (i64, i64) {
    let sql = "SELECT count(*), coalesce(sum(event_count), 0)::bigint FROM event_chunk";
    sqlx::query_as(sql).fetch_one(&case.app.db.pool).await.unwrap()
}

async fn set(case: &Case, change: Value) -> Value {
    let set = case.app.patch(RETENTION, change).await.expect(200).json;
    for key in ["buyers", "orders", "views", "any", "rich"] {
        let path = if key == "buyers" || key == "rich" { "audiences" } else { "computed-traits" };
        case.app.live(path, key).await;
    }
    set
}

async fn start() -> Case {
    let case = Case::start(Wish::default()).await;
    case.app.make_live("audiences", "buyers", "event('Order').count() >= 1").await;
    case.app
        .make_live("computed-traits", "orders", "event('Order').within(300 days).sum(property('total'))")
        .await;
    case.app.make_live("computed-traits", "views", "event('Page Viewed').count()").await;
    case.app.make_live("computed-traits", "any", "event('*').count()").await;
    case.app.make_live("audiences", "rich", "trait('orders') > 5 AND trait('plan') = 'pro'").await;
    case
}

#[tokio::test]
async fn p12_events_count_and_are_kept_for_as_long_as_the_space_says() {
    let mut case = start().await;
    let wanted = json!({"days": 90, "events": {"Page Viewed": 30}});
    assert_eq!(set(&case, wanted.clone()).await, wanted);
    case.send_all(&[
        "identify user=u {\"plan\":\"pro\"}",
        "track Order user=u {\"total\":10}",
        "page user=u {}",
    ])
    .await;
    assert_eq!(case.get(RETENTION).await, wanted);
    assert_eq!((value(&case, "u", "orders").await, value(&case, "u", "views").await), (json!(10), json!(1)));

    // To the millisecond, and no sooner.
    at(&case, 30, 0).await;
    assert_eq!((value(&case, "u", "views").await, value(&case, "u", "any").await), (json!(1), json!(2)));
    at(&case, 30, 1).await;
    assert_eq!((value(&case, "u", "views").await, value(&case, "u", "any").await), (json!(0), json!(0)));
    at(&case, 33, 0).await;
    assert_eq!(events(&case, "u").await, ["Order", "identify"], "what the page said is taken out");
    let body: Vec<u8> = sqlx::query_scalar("SELECT body FROM event_chunk ORDER BY end_offset DESC LIMIT 1")
        .fetch_one(&case.app.db.pool)
        .await
        .unwrap();
    let content = zstd::bulk::decompress(&body, 1 << 20).unwrap();
    assert!(!content.windows(11).any(|bytes| bytes == b"Page Viewed"));
    // A rebuild makes the same person, and the same of it.
    let before = (case.traits("user_id:u").await, case.ids("user_id:u").await, case.sizes().await);
    json_of(&wait(command(&case.app.db, &["--json"]).spawn().unwrap()).await);
    let after = (case.traits("user_id:u").await, case.ids("user_id:u").await, case.sizes().await);
    assert_eq!(after, before);
    case.check().await;

    case.send_all(&["track Order user=u {\"total\":3}", "track Order user=v {\"total\":1}"]).await;
    at(&case, 90, 0).await;
    assert_eq!(value(&case, "u", "orders").await, json!(13));
    at(&case, 90, 1).await;
    assert_eq!(
        (value(&case, "u", "orders").await, value(&case, "u", "rich").await),
        (json!(3), json!(false))
    );
    assert_eq!(value(&case, "u", "plan").await, "pro", "traits stay");
    at(&case, 92, 0).await;
    assert_eq!(chunks(&case).await.1, 2, "the first day is gone");
    at(&case, 124, 0).await;
    assert_eq!(case.sizes().await["buyers"], 0);
    let left: Vec<String> = case.transitions("buyers").await.into_iter().map(|(_, word)| word).collect();
    assert_eq!(left.iter().filter(|word| *word == "left").count(), 2, "it is told");
    for day in (130..=400).step_by(30) {
        at(&case, day, 0).await;
        case.send_all(&["track Order user=v {\"total\":1}", "page user=v {}"]).await;
    }
    at(&case, 400, 0).await;
    let orders = value(&case, "v", "orders").await;
    assert_eq!((&orders, value(&case, "v", "views").await), (&json!(4), json!(2)));
    assert!(chunks(&case).await.1 <= 8, "{:?}", chunks(&case).await);
    assert_eq!(events(&case, "v").await.iter().filter(|name| *name == "Order").count(), 4);
    case.check().await;

    // What a rebuild makes of what is kept says the same of who is in it.
    let refused = wait(command(&case.app.db, &["--json"]).spawn().unwrap()).await;
    assert!(refused.code != 0 && refused.progress.contains("--forget-lost"), "{}", refused.progress);
    json_of(&wait(command(&case.app.db, &["--json", "--forget-lost"]).spawn().unwrap()).await);
    assert_eq!(value(&case, "v", "orders").await, orders);
    assert_eq!(case.sizes().await["buyers"], 1);
    case.check().await;
}

#[tokio::test]
async fn p12_a_shorter_time_counts_at_once_and_a_longer_one_for_what_is_left() {
    let mut case = start().await;
    case.send_all(&["track Order user=u {\"total\":10}", "page user=u {}"]).await;
    at(&case, 20, 0).await;
    case.send_all(&["track Order user=u {\"total\":1}"]).await;
    set(&case, json!({"days": 10})).await;
    assert_eq!((value(&case, "u", "orders").await, value(&case, "u", "any").await), (json!(1), json!(1)));
    set(&case, json!({"days": null, "events": {"Order": 25}})).await;
    assert_eq!((value(&case, "u", "orders").await, value(&case, "u", "views").await), (json!(11), json!(1)));
    let shown = case.get(&format!("{SPACE}/audiences/buyers")).await;
    assert_eq!(shown["definition"]["query"], "event('Order').count() >= 1");
    set(&case, json!({"events": {"Order": null}})).await;
    assert_eq!(case.get(RETENTION).await, json!({"days": null, "events": {}}));
    for (bad, field) in [
        (json!({}), "days"),
        (json!({"days": 0}), "days"),
        (json!({"days": 40_000}), "days"),
        (json!({"events": {"X": 0}}), "events.X"),
        (json!({"events": {"": 1}}), "events."),
    ] {
        let problem = case.app.patch(RETENTION, bad.clone()).await.expect_problem(422, "invalid");
        assert_eq!(problem.json["field"], field, "{bad}");
    }
    case.check().await;
}

/// Waits until so many changes of a configuration wait for another one.
async fn wait_for_changes(case: &Case, count: i64) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                   AND query LIKE '%store::processor::bump_config%'";
    for _ in 0..1_000 {
        if sqlx::query_scalar::<_, i64>(sql).fetch_one(&case.app.db.pool).await.unwrap() >= count {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{count} changes never waited");
}

#[tokio::test]
async fn an_edit_in_another_process_is_not_undone() {
    let case = Case::start(Wish::default()).await;
    case.app.make_live("audiences", "buyers", "event('Order').count() >= 1").await;
    let beside = Wish::default().at(NOW).start_at(&case.app.db.url()).await;
    let mut tx = case.app.db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM processor FOR UPDATE").execute(&mut *tx).await.unwrap();
    let path = format!("{SPACE}/audiences/buyers");
    let edit = json!({"definition": {"query": "event('Order').count() >= 2"}});
    let (edited, set, ()) = tokio::join!(
        beside.patch(&path, edit),
        async {
            wait_for_changes(&case, 1).await;
            case.app.patch(RETENTION, json!({"days": 90})).await
        },
        async {
            wait_for_changes(&case, 2).await;
            tx.rollback().await.unwrap();
        }
    );
    edited.expect(200);
    set.expect(200);
    let shown = case.app.live("audiences", "buyers").await;
    assert_eq!(shown["definition"]["query"], "event('Order').count() >= 2");
}

#[tokio::test]
async fn one_space_that_is_damaged_keeps_no_other_one_waiting() {
    let mut case = Case::start(Wish::default()).await;
    case.send_all(&["page user=u {}"]).await;
    case.app.post("/v1/spaces", json!({"id": "other"})).await.expect(201);
    let source = case.app.post("/v1/spaces/other/sources", json!({"name": "web"})).await.expect(201).json;
    let key = source["write_key"].as_str().unwrap();
    let call = json!({"userId": "u", "event": "Order"}).to_string();
    let request = case.app.request(Method::POST, "/v1/track").basic_auth(key, Some("")).body(call);
    let offset = send(request).await.expect(200).offset();
    case.app.get(&format!("/v1/spaces/other/pipeline?min_offset={offset}")).await.expect(200);
    case.app.patch(RETENTION, json!({"events": {"Page Viewed": 30}})).await.expect(200);
    case.app.patch("/v1/spaces/other/retention", json!({"days": 30})).await.expect(200);
    let sql = "UPDATE event_chunk SET body = 'damaged' WHERE space_id = 1";
    sqlx::query(sql).execute(&case.app.db.pool).await.unwrap();
    at(&case, 33, 0).await;
    assert_eq!(chunks(&case).await.0, 1, "the one that is damaged");
}

#[tokio::test]
async fn what_was_not_processed_is_taken_out_once_it_is() {
    let mut case = Case::start(Wish::default()).await;
    case.app.patch(RETENTION, json!({"events": {"Page Viewed": 30}})).await.expect(200);
    let plan = json!({"plan": {"state": "ended", "collects_after_end": true}});
    case.app.patch(SPACE, plan).await.expect(200);
    let sql = "SELECT lease_until = '-infinity' FROM processor WHERE space_id = 1";
    while !sqlx::query_scalar::<_, bool>(sql).fetch_one(&case.app.db.pool).await.unwrap() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    case.send("page user=u {}").await;
    let says = async |case: &Case| -> bool {
        let sql = "SELECT names && ARRAY['Page Viewed'] FROM event_chunk";
        sqlx::query_scalar(sql).fetch_one(&case.app.db.pool).await.unwrap()
    };
    at(&case, 33, 0).await;
    assert!(says(&case).await, "nobody has processed it");
    case.app.patch(SPACE, json!({"plan": {"state": "active"}})).await.expect(200);
    case.get(&format!("{SPACE}/pipeline")).await;
    at(&case, 34, 0).await;
    assert!(!says(&case).await, "it is over");
}
