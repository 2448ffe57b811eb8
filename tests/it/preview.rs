//! Previews and dry runs: what a definition would be, with nothing made.

use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};

const SPACE: &str = "/v1/spaces/default";
const NOW: &str = "2024-03-01T12:00:00.000Z";

/// Three buyers (of one, two and three orders), one who never bought, and an anonymous one; all covered.
async fn shop() -> TestApp {
    let app = Wish::default().at(NOW).start().await;
    let order = |who: (&str, &str), day: u32, total: u32| {
        json!({"type": "track", (who.0): who.1, "event": "Order Completed", "properties": {"total": total},
            "timestamp": format!("2024-02-{day:02}T00:00:00Z")})
    };
    let mut batch = vec![json!({"type": "identify", "userId": "nobody", "traits": {"plan": "pro"}})];
    for (user, orders) in [("one", 1), ("two", 2), ("three", 3)] {
        batch.push(json!({"type": "identify", "userId": user, "traits": {"plan": if orders == 2 { "free" } else { "pro" }}}));
        batch.extend((0..orders).map(|n| order(("userId", user), 10 + n, 10 * (n + 1))));
    }
    batch.push(order(("anonymousId", "somebody"), 28, 7));
    let offset = app.track("/v1/batch", json!({"batch": batch})).await.expect(200).offset();
    covered(&app, offset).await;
    app
}

async fn covered(app: &TestApp, offset: u64) {
    let path = format!("{SPACE}/audiences/sizes?min_offset={offset}");
    app.get(&path).await.expect(200);
}

async fn preview(app: &TestApp, query: &str) -> Value {
    let body = json!({"definition": {"type": "users", "query": query}});
    app.post(&format!("{SPACE}/audiences/preview"), body).await.expect(200).json
}

#[tokio::test]
async fn a_preview_tells_size_sample_and_each_condition() {
    let app = shop().await;
    let found = preview(&app, "event('Order Completed').count() >= 2 AND trait('plan') = 'pro'").await;
    assert_eq!(found["size"], 1);
    let conditions = json!([
        {"text": "event('Order Completed').count() >= 2", "size": 2},
        {"text": "trait('plan') = 'pro'", "size": 3},
    ]);
    assert_eq!(found["conditions"], conditions);
    assert!(found["took_ms"].is_u64());
    let path = format!("{SPACE}/collections/users/profiles/user_id:three/metadata");
    let three = app.get(&path).await.expect(200).json;
    assert_eq!(found["sample"], json!([{"profile_id": three["metadata"]["profile_id"]}]));
    for (query, size) in [
        ("trait('plan') = 'free'", 1),
        ("NOT event('Order Completed').count() >= 1", 1),
        ("event('Order Completed').within(19 days).count() >= 1", 1),
        ("event('Order Completed').where(property('total') >= 30 OR trait('plan') = 'free').count() >= 1", 2),
        (
            "event('Order Completed').where(event('Order Completed').within(parent: 1 day).count() >= 1).count() = 2",
            1,
        ),
        ("event('Nothing Like It').count() >= 1", 0),
        ("everyone()", 4),
    ] {
        assert_eq!(preview(&app, query).await["size"], size, "{query}");
    }
    // Whatever is previewed is what is made of it.
    let made = app.make_live("audiences", "buyers", "event('Order Completed').count() >= 2").await;
    assert_eq!(made["size"], 2);
    assert_eq!(preview(&app, "audience('buyers')").await["size"], 2, "it may refer to others");
}

#[tokio::test]
async fn options_decide_who_and_what_counts() {
    let app = shop().await;
    let size = async |options: Value| {
        let query = "event('Order Completed').count() >= 1";
        let body = json!({"definition": {"type": "users", "query": query}, "options": options});
        let found = app.post(&format!("{SPACE}/audiences/preview"), body).await.expect(200).json;
        assert_eq!(found["conditions"][0]["size"], found["size"]);
        found["size"].clone()
    };
    assert_eq!(size(json!({})).await, 3);
    assert_eq!(size(json!({"include_anonymous": true})).await, 4);
    assert_eq!(size(json!({"include_historical_data": false})).await, 0);
}

#[tokio::test]
async fn merged_profiles_are_one_with_the_events_of_both() {
    let app = shop().await;
    let query = "event('Order Completed').sum(property('total')) >= 17";
    assert_eq!(preview(&app, query).await["size"], 2);
    let merge = json!({"userId": "one", "anonymousId": "somebody"});
    let offset = app.track("/v1/identify", merge).await.expect(200).offset();
    covered(&app, offset).await;
    assert_eq!(preview(&app, query).await["size"], 3);
}

#[tokio::test]
async fn a_computed_trait_is_previewed_with_values() {
    let app = shop().await;
    let body = json!({"definition": {"query": "event('Order Completed').sum(property('total'))"}});
    let found = app.post(&format!("{SPACE}/computed-traits/preview"), body).await.expect(200).json;
    assert_eq!((&found["size"], &found["conditions"]), (&json!(3), &json!([])));
    let values: Vec<&Value> = found["sample"].as_array().unwrap().iter().map(|one| &one["value"]).collect();
    assert_eq!(values, [10, 30, 60]);
}

#[tokio::test]
async fn nothing_is_made_and_bad_previews_are_refused() {
    let app = shop().await;
    preview(&app, "event('Order Completed').count() >= 1").await;
    assert_eq!(app.get(&format!("{SPACE}/audiences")).await.expect(200).json["data"], json!([]));
    let path = format!("{SPACE}/audiences/preview");
    let body = json!({"definition": {"type": "users", "query": "event('A').cuont() >= 1"}});
    let refused = app.post(&path, body).await.expect_problem(422, "invalid_query").json;
    assert_eq!(refused["errors"][0]["column"], 12);
    let body = json!({"definition": {"query": ""}});
    app.post(&path, body).await.expect_problem(422, "invalid_query");
    app.post(&path, json!({"query": "everyone()"})).await.expect_problem(422, "invalid");
    app.post("/v1/spaces/nowhere/audiences/preview", json!({"definition": {"query": "everyone()"}}))
        .await
        .expect(404);
}

#[tokio::test]
async fn a_dry_run_tells_who_would_enter_and_leave() {
    let app = shop().await;
    app.make_live("audiences", "buyers", "event('Order Completed').count() >= 2").await;
    let path = format!("{SPACE}/audiences/buyers");
    let before = app.get(&path).await.expect(200).json;
    let change = json!({"definition": {"query": "event('Order Completed').count().one_of(1, 2)"}});
    let told = app.patch(&format!("{path}?dry_run=true"), change.clone()).await.expect(200).json;
    assert_eq!(
        (&told["dry_run"], &told["size"], &told["enters"], &told["leaves"]),
        (&json!(true), &json!(2), &json!(1), &json!(1))
    );
    assert_eq!(app.get(&path).await.expect(200).json, before, "nothing has changed");
    let bad = json!({"definition": {"query": "audience('buyers')"}});
    app.patch(&format!("{path}?dry_run=true"), bad).await.expect(422);
    app.patch(&format!("{SPACE}/audiences/none?dry_run=true"), change.clone()).await.expect(404);
    // What was told is what happens.
    app.patch(&path, change).await.expect(200);
    assert_eq!(app.live("audiences", "buyers").await["size"], 2);
    let words = app.get(&format!("{path}/transitions")).await.expect(200).json;
    let words: Vec<&Value> = words["data"].as_array().unwrap().iter().map(|t| &t["transition"]).collect();
    assert_eq!(words.iter().filter(|word| **word == "left").count(), 1, "{words:?}");
}
