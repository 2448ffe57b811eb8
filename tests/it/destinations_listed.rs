//! Deliveries by the audience or computed trait they are about: listed page by page, counted, sent again.

use personas::domain::SpaceNo;
use personas::store::deliveries::history::{self, Filter};
use personas::store::people;
use serde_json::{Value, json};

use crate::harness::app::TestApp;
use crate::harness::destinations::{DELIVERIES, sending};
use crate::harness::receiver::{Receiver, Reply};

/// Two destinations that are told of an audience, of a trait twice and of what somebody said of three people, and take nothing.
async fn start() -> (TestApp, Receiver, [Value; 2]) {
    let app = sending().start().await;
    let receiver = Receiver::start().await;
    receiver.now(|_, _| Reply::Status(400));
    app.make_live("audiences", "buyers", "event('Bought').count() >= 1").await;
    app.make_live("computed-traits", "purchases", "event('Bought').count()").await;
    let mut hooks = [Value::Null, Value::Null];
    for (at, hook) in hooks.iter_mut().enumerate() {
        *hook = app.make_webhook(&format!("Hook {at}"), &receiver, json!({})).await;
        app.subscribe(hook, json!({"subject": "audience", "key": "buyers"})).await;
        app.subscribe(hook, json!({"subject": "computed_trait", "key": "purchases"})).await;
        app.subscribe(hook, json!({"subject": "custom_traits"})).await;
    }
    for user in ["u1", "u2", "u3"] {
        app.processed("/v1/identify", json!({"userId": user, "traits": {"plan": "pro"}})).await;
        app.processed("/v1/track", json!({"userId": user, "event": "Bought"})).await;
    }
    for hook in &hooks {
        app.wait_destination(hook, |seen| seen["deliveries"]["dead"] == 12).await;
    }
    (app, receiver, hooks)
}

#[tokio::test]
async fn deliveries_of_an_audience_are_listed_page_by_page_over_all_destinations() {
    let (app, _receiver, hooks) = start().await;
    let mut seen: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app.get(&format!("{DELIVERIES}?key=buyers&limit=2{cursor}")).await.expect(200).json;
        let rows = page["data"].as_array().unwrap();
        assert!(rows.len() <= 2, "{page}");
        seen.extend(rows.iter().cloned());
        if page["cursor"]["has_more"] != true {
            break;
        }
        cursor = format!("&cursor={}", page["cursor"]["next"].as_str().unwrap());
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
    let ids: std::collections::BTreeSet<&str> = seen.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 6);
    assert!(seen.iter().all(|one| one["key"] == "buyers" && one["subject"] == "audience"), "{seen:?}");
    // Newest first within each destination.
    let to: Vec<&Value> = seen.iter().map(|one| &one["destination"]).collect();
    assert_eq!(to, [1, 1, 1, 0, 0, 0].map(|at: usize| &hooks[at]["id"]));
    assert!(seen[..3].windows(2).all(|pair| pair[0]["at"].as_str() >= pair[1]["at"].as_str()), "{seen:?}");

    let count = async |query: &str| {
        let list = app.get(&format!("{DELIVERIES}?{query}")).await.expect(200).json;
        list["data"].as_array().unwrap().len()
    };
    let (hook, profile) = (hooks[0]["id"].as_str().unwrap(), seen[0]["profile_id"].as_str().unwrap());
    for (query, wanted) in [
        (format!("key=purchases&destination={hook}"), 6),
        ("key=buyers&state=dead".to_owned(), 6),
        ("key=buyers&state=queued".to_owned(), 0),
        (format!("key=buyers&profile={profile}"), 2),
        (format!("profile={profile}"), 8),
        ("key=buyers&from=2100-01-01T00:00:00Z".to_owned(), 0),
    ] {
        assert_eq!(count(&query).await, wanted, "{query}");
    }
    app.get(&format!("{DELIVERIES}?key=nobody")).await.expect_problem(404, "not_found");
    // What was for a destination that is gone fills no page.
    let gone = hooks[1]["id"].as_str().unwrap();
    app.delete(&format!("/v1/spaces/default/destinations/{gone}")).await.expect(204);
    for query in ["key=buyers&limit=2", "limit=2"] {
        let page = app.get(&format!("{DELIVERIES}?{query}")).await.expect(200).json;
        assert_eq!(
            (page["data"].as_array().unwrap().len(), &page["cursor"]["has_more"]),
            (2, &json!(true)),
            "{page}"
        );
        assert_eq!(page["data"][0]["destination"], hooks[0]["id"], "{page}");
    }
    app.delete("/v1/spaces/default/audiences/buyers").await.expect(204);
    app.get(&format!("{DELIVERIES}?key=buyers")).await.expect_problem(404, "not_found");
    // Another audience under that key has deliveries of its own.
    app.make_live("audiences", "buyers", "event('Nothing').count() >= 1").await;
    assert_eq!(count("key=buyers").await, 0);
}

#[tokio::test]
async fn deliveries_of_an_audience_are_found_by_key_however_many_there_are_of_others() {
    let (app, _receiver, _hooks) = start().await;
    let number = "SELECT definition_no FROM definition WHERE key = $1";
    let of = async |key: &str| {
        sqlx::query_scalar::<_, i32>(number).bind(key).fetch_one(&app.db.pool).await.unwrap()
    };
    let (buyers, purchases) = (of("buyers").await, of("purchases").await);
    let more = "INSERT INTO delivery_outcome
         SELECT (jsonb_populate_record(o, jsonb_build_object('delivery_no', 100000 + n))).*
         FROM delivery_outcome o, generate_series(1, 20000) n
         WHERE o.ctid = (SELECT i.ctid FROM delivery_outcome i WHERE i.definition_no = $1 ORDER BY i.destination_no DESC LIMIT 1)";
    sqlx::query(more).bind(purchases).execute(&app.db.pool).await.unwrap();
    sqlx::query("ANALYZE delivery_outcome, delivery").execute(&app.db.pool).await.unwrap();
    let mut tx = people::begin(&personas::store::walled(&app.db.pool, SpaceNo(1))).await.unwrap();
    let before = read(&mut tx).await;
    let filter = Filter { definition: Some(buyers), ..Filter::default() };
    let found = history::list(&mut *tx, SpaceNo(1), &filter, (i32::MAX, i64::MAX), 4).await.unwrap();
    assert_eq!(found.len(), 4);
    let rows = read(&mut tx).await - before;
    assert!(rows < 100, "{rows} rows were read");
}

/// Rows of what became of changes that this session has read and not reported yet.
async fn read(tx: &mut sqlx::PgConnection) -> i64 {
    let sql = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint FROM pg_stat_xact_user_tables
         WHERE relname = 'delivery_outcome'";
    sqlx::query_scalar(sql).fetch_one(tx).await.unwrap()
}

#[tokio::test]
async fn what_waits_of_an_audience_is_listed_and_what_was_given_up_is_sent_again() {
    let (app, receiver, hooks) = start().await;
    let hook = &hooks[0];
    let meant = |more: Value| {
        let mut body = json!({"destination": hook["id"], "state": "dead"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let replay = format!("{DELIVERIES}/replay");
    let dry = app.post(&replay, meant(json!({"key": "buyers", "dry_run": true}))).await.expect(200).json;
    assert_eq!(dry["count"], 3);
    app.post(&replay, meant(json!({"key": "nobody"}))).await.expect_problem(404, "not_found");

    app.act(hook, "pause", json!({})).await;
    receiver.now(|_, _| Reply::Status(200));
    assert_eq!(app.post(&replay, meant(json!({"key": "buyers"}))).await.expect(200).json["count"], 3);
    let of = async |query: &str| app.deliveries(hook, query).await.len();
    assert_eq!((of("&key=buyers&state=queued").await, of("&key=purchases&state=dead").await), (3, 6));
    app.act(hook, "resume", json!({})).await;
    app.wait_sent(hook).await;
    assert_eq!((of("&key=buyers&state=delivered").await, of("&state=dead").await), (3, 9));

    let discard = format!("{DELIVERIES}/discard");
    let given_up = app.post(&discard, meant(json!({"key": "purchases"}))).await.expect(200).json;
    assert_eq!((&given_up["count"], of("&state=dead").await), (&json!(6), 3));
}
