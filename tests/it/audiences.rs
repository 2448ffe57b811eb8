//! Audiences and computed traits through the front door: live to the millisecond, folded over history, merged, edited.

use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};

const NOW: &str = "2024-03-01T12:00:00.000Z";
const AUDIENCES: &str = "/v1/spaces/default/audiences";
const PROFILES: &str = "/v1/spaces/default/collections/users/profiles";

async fn start() -> TestApp {
    Wish::default().at(NOW).start().await
}

async fn bought(app: &TestApp, user: &str, at: &str, properties: Value) -> u64 {
    let call = json!({"userId": user, "event": "Shoes Bought", "timestamp": at, "properties": properties});
    app.track("/v1/track", call).await.expect(200).offset()
}

async fn move_to(app: &TestApp, now: &str) {
    app.put("/v1/test-clock", json!({"now": now})).await.expect(200);
}

async fn size(app: &TestApp, key: &str) -> i64 {
    app.get(&format!("{AUDIENCES}/{key}/size")).await.expect(200).json["size"].as_i64().unwrap()
}

async fn members(app: &TestApp, key: &str) -> usize {
    app.get(&format!("{AUDIENCES}/{key}/members")).await.expect(200).json["data"].as_array().unwrap().len()
}

/// Transitions of an audience, oldest first, as `entered 12:00:00.000`.
async fn transitions(app: &TestApp, key: &str) -> Vec<String> {
    let list = app.get(&format!("{AUDIENCES}/{key}/transitions")).await.expect(200).json;
    let word = |t: &Value| format!("{} {}", t["transition"].as_str().unwrap(), t["at"].as_str().unwrap());
    list["data"].as_array().unwrap().iter().rev().map(word).collect()
}

async fn traits(app: &TestApp, user: &str, offset: u64) -> Value {
    let path = format!("{PROFILES}/user_id:{user}/traits?limit=200&min_offset={offset}");
    app.get(&path).await.expect(200).json["traits"].clone()
}

#[tokio::test]
async fn au_01_a_window_ends_by_the_clock_alone() {
    let app = start().await;
    let query = "event('Shoes Bought').where( property('price') >= 100 ).within(7 days).count() >= 1";
    app.make_live("audiences", "fresh", query).await;
    let offset = bought(&app, "u1", "2024-02-23T13:00:00Z", json!({"price": 100})).await;
    bought(&app, "u2", "2024-02-23T13:00:00Z", json!({"price": 99.99})).await;
    assert_eq!(traits(&app, "u1", offset).await, json!({"fresh": true}));
    assert_eq!((size(&app, "fresh").await, members(&app, "fresh").await), (1, 1));
    move_to(&app, "2024-03-01T13:00:00.000Z").await;
    assert_eq!(size(&app, "fresh").await, 1, "the bound is inside");
    move_to(&app, "2024-03-01T13:00:00.001Z").await;
    assert_eq!((size(&app, "fresh").await, members(&app, "fresh").await), (0, 0));
    assert_eq!(traits(&app, "u1", 0).await, json!({"fresh": false}), "false for one who left");
    let expected = ["entered 2024-03-01T12:00:00.000Z", "left 2024-03-01T13:00:00.001Z"];
    assert_eq!(transitions(&app, "fresh").await, expected);
}

#[tokio::test]
async fn profiles_enter_by_the_clock_too_and_a_long_stop_misses_nothing() {
    let app = start().await;
    app.make_live("audiences", "lapsed", "event('Shoes Bought').between(2 days, 4 days).count() >= 1").await;
    app.make_live("audiences", "quiet", "event('Shoes Bought').within(1 day).count() = 0").await;
    app.make_live("audiences", "soon", "trait('renews').within_next(2 days)").await;
    let identify = json!({"userId": "u1", "traits": {"renews": "2024-03-05T12:00:00Z"}});
    let offset = app.track("/v1/identify", identify).await.expect(200).offset();
    assert_eq!(traits(&app, "u1", offset).await["quiet"], true);
    let offset = bought(&app, "u1", NOW, json!({})).await;
    assert_eq!(traits(&app, "u1", offset).await["quiet"], json!(false).clone());
    // The server is away while everything happens.
    app.running.stop(std::time::Duration::ZERO).await.unwrap();
    let app = Wish::default().at("2024-03-09T00:00:00Z").start_on(app.db).await;
    move_to(&app, "2024-03-09T00:00:00.001Z").await;
    let expected = ["entered 2024-03-03T12:00:00.000Z", "left 2024-03-05T12:00:00.001Z"];
    assert_eq!(transitions(&app, "lapsed").await, expected);
    let expected = ["entered 2024-03-03T12:00:00.000Z", "left 2024-03-05T12:00:00.001Z"];
    assert_eq!(transitions(&app, "soon").await, expected);
    let quiet = transitions(&app, "quiet").await;
    assert_eq!(quiet.last().unwrap(), "entered 2024-03-02T12:00:00.001Z", "{quiet:?}");
    assert_eq!(size(&app, "quiet").await, 1);
}

#[tokio::test]
async fn events_of_the_future_wait_for_their_time() {
    let app = start().await;
    app.make_live("audiences", "any", "event('Shoes Bought').count() >= 1").await;
    let offset = bought(&app, "u1", "2024-03-01T14:00:00Z", json!({})).await;
    bought(&app, "u2", "2024-03-09T14:00:00Z", json!({})).await;
    traits(&app, "u1", offset + 1).await;
    assert_eq!(size(&app, "any").await, 1, "more than a day ahead is taken for a wrong clock: now");
    move_to(&app, "2024-03-01T14:00:00Z").await;
    assert_eq!(size(&app, "any").await, 2);
}

#[tokio::test]
async fn computed_traits_are_exact_whatever_the_order() {
    let app = start().await;
    for (key, query) in [
        ("orders", "event('Shoes Bought').count()"),
        ("revenue", "event('Shoes Bought').sum(property('price'))"),
        ("average", "event('Shoes Bought').avg(property('price'))"),
        ("cheapest", "event('Shoes Bought').min(property('price'))"),
        ("dearest_text", "event('Shoes Bought').max(property('price') as string)"),
        ("first_brand", "event('Shoes Bought').first(property('brand'))"),
        ("last_brand", "event('Shoes Bought').last(property('brand'))"),
        ("brands", "event('Shoes Bought').unique(property('brand'))"),
        ("brand_count", "event('Shoes Bought').unique(property('brand')).count()"),
        ("favourite", "event('Shoes Bought').mode(property('brand'), 2)"),
        ("nothing", "event('Never').sum(property('price'))"),
    ] {
        app.make_live("computed-traits", key, query).await;
    }
    bought(&app, "u1", "2024-02-03T00:00:00Z", json!({"price": 0.1, "brand": "b"})).await;
    bought(&app, "u1", "2024-02-01T00:00:00Z", json!({"price": "0.2", "brand": "a"})).await;
    let offset = bought(&app, "u1", "2024-02-02T00:00:00Z", json!({"price": null, "brand": "b"})).await;
    let expected = json!({
        "orders": 3, "revenue": 0.3, "average": 0.15, "cheapest": 0.1, "dearest_text": "0.2", "first_brand": "a",
        "last_brand": "b", "brands": ["a", "b"], "brand_count": 2, "favourite": "b",
    });
    let found = traits(&app, "u1", offset).await;
    assert_eq!(found, expected);
    let values = app.get("/v1/spaces/default/computed-traits/revenue/values").await.expect(200).json;
    assert_eq!(values["data"][0]["value"], 0.3);
    app.track("/v1/identify", json!({"userId": "u1", "traits": {"orders": 99, "plan": "x"}}))
        .await
        .expect(200);
    let offset = bought(&app, "u1", NOW, json!({})).await;
    let found = traits(&app, "u1", offset).await;
    assert_eq!(
        (&found["orders"], &found["plan"]),
        (&json!(4), &json!("x")),
        "a computed key cannot be written"
    );
    let warned = app.get("/v1/spaces/default/rejected-events?code=trait_reserved").await.expect(200).json;
    assert_eq!(warned["data"].as_array().unwrap().len(), 1, "{warned}");
}

#[tokio::test]
async fn history_is_folded_once_and_only_when_wanted() {
    let app = start().await;
    for n in 0..25 {
        let user = format!("u{}", n % 5);
        bought(&app, &user, "2024-02-01T00:00:00Z", json!({"price": 10})).await;
    }
    let query = "event('Shoes Bought').sum(property('price')) >= 50";
    app.make_live("audiences", "with", query).await;
    let body = json!({"key": "without", "definition": {"type": "users", "query": query},
        "options": {"include_historical_data": false}});
    app.make_live_from("audiences", "without", body).await;
    assert_eq!((size(&app, "with").await, size(&app, "without").await), (5, 0));
    let offset = bought(&app, "u1", NOW, json!({"price": 50})).await;
    assert_eq!(traits(&app, "u1", offset).await, json!({"with": true, "without": true}));
    assert_eq!(transitions(&app, "with").await.len(), 5, "the swap tells the net transitions");
    // Restart: nothing is folded twice.
    app.running.stop(std::time::Duration::ZERO).await.unwrap();
    let app = Wish::default().at(NOW).start_on(app.db).await;
    app.make_live("computed-traits", "spent", "event('Shoes Bought').sum(property('price'))").await;
    assert_eq!(traits(&app, "u1", offset).await["spent"], 100);
    assert_eq!(traits(&app, "u2", offset).await["spent"], 50);
}

#[tokio::test]
async fn an_edit_serves_the_old_version_until_the_new_one_is_complete_and_tells_the_difference() {
    let app = start().await;
    app.make_live("audiences", "rich", "trait('money') >= 100").await;
    for (user, money) in [("a", 50), ("b", 150), ("c", 250)] {
        app.track("/v1/identify", json!({"userId": user, "traits": {"money": money}})).await.expect(200);
    }
    let offset = app.track("/v1/identify", json!({"userId": "d", "traits": {}})).await.expect(200).offset();
    traits(&app, "a", offset).await;
    assert_eq!(size(&app, "rich").await, 2);
    let path = format!("{AUDIENCES}/rich");
    app.patch(&path, json!({"definition": {"query": "trait('money') < 200"}})).await.expect(200);
    app.live("audiences", "rich").await;
    assert_eq!((size(&app, "rich").await, members(&app, "rich").await), (2, 2));
    assert_eq!(traits(&app, "c", 0).await["rich"], false);
    assert_eq!(traits(&app, "a", 0).await["rich"], true);
    let words: Vec<String> =
        transitions(&app, "rich").await.iter().map(|t| t.split(' ').next().unwrap().into()).collect();
    assert_eq!(words, ["entered", "entered", "entered", "left"]);
    app.delete(&path).await.expect(204);
    app.get(&path).await.expect(404);
    app.make_live("audiences", "rich", "trait('money') > 1000").await;
    assert_eq!((size(&app, "rich").await, traits(&app, "a", 0).await["rich"].clone()), (0, Value::Null));
}

#[tokio::test]
async fn audiences_refer_to_audiences_and_computed_traits_in_the_same_transaction() {
    let app = start().await;
    app.make_live("computed-traits", "orders", "event('Shoes Bought').count()").await;
    app.make_live("audiences", "regular", "trait('orders') >= 2").await;
    app.make_live("audiences", "regular_pro", "trait('regular') = true AND trait('plan') = 'pro'").await;
    app.track("/v1/identify", json!({"userId": "u1", "traits": {"plan": "pro"}})).await.expect(200);
    bought(&app, "u1", NOW, json!({})).await;
    let offset = bought(&app, "u1", NOW, json!({})).await;
    let expected = json!({"orders": 2, "regular": true, "regular_pro": true, "plan": "pro"});
    assert_eq!(traits(&app, "u1", offset).await, expected);
    let edit = json!({"definition": {"query": "trait('orders') >= 3"}});
    app.patch(&format!("{AUDIENCES}/regular"), edit).await.expect(200);
    app.live("audiences", "regular").await;
    // Until what refers to it has been walked again, the pipeline says so.
    while app.get("/v1/spaces/default/pipeline").await.expect(200).json["backfills"] != json!([]) {
        tokio::task::yield_now().await;
    }
    assert_eq!(traits(&app, "u1", 0).await["regular_pro"], false, "what refers to it follows");
}

#[tokio::test]
async fn au_10_and_17_anonymous_profiles_count_when_asked_and_merges_tell_the_net_change() {
    let app = start().await;
    app.make_live("audiences", "known", "event('Viewed').count() >= 1").await;
    let body = json!({"key": "all", "definition": {"type": "users", "query": "event('Viewed').count() >= 1"},
        "options": {"include_anonymous": true}});
    app.make_live_from("audiences", "all", body).await;
    app.make_live("audiences", "three", "event('Viewed').count() >= 3").await;
    let view = |who: Value| {
        let mut call = who;
        call["event"] = json!("Viewed");
        call
    };
    for who in [json!({"anonymousId": "a"}), json!({"anonymousId": "a"}), json!({"userId": "u"})] {
        app.track("/v1/track", view(who)).await.expect(200);
    }
    let merged = json!({"anonymousId": "a", "userId": "u", "traits": {}});
    let before = app.track("/v1/track", view(json!({"userId": "x"}))).await.expect(200).offset();
    traits(&app, "x", before).await;
    assert_eq!((size(&app, "known").await, size(&app, "all").await, size(&app, "three").await), (2, 3, 0));
    let offset = app.track("/v1/identify", merged).await.expect(200).offset();
    assert_eq!(traits(&app, "u", offset).await, json!({"known": true, "all": true, "three": true}));
    assert_eq!((size(&app, "known").await, size(&app, "all").await, size(&app, "three").await), (2, 2, 1));
    assert_eq!((members(&app, "all").await, members(&app, "known").await), (2, 2));
    assert_eq!(transitions(&app, "all").await.len(), 3, "no `left` for the absorbed one");
    assert_eq!(transitions(&app, "three").await.len(), 1);
}

#[tokio::test]
async fn polling_is_cheap_and_pages_are_complete() {
    let app = start().await;
    app.make_live("audiences", "buyers", "event('Shoes Bought').count() >= 1").await;
    let mut offset = 0;
    for n in 0..7 {
        offset = bought(&app, &format!("u{n}"), NOW, json!({})).await;
    }
    traits(&app, "u1", offset).await;
    let first = app.get(&format!("{AUDIENCES}/sizes")).await.expect(200);
    assert_eq!(
        (&first.json["data"][0]["key"], &first.json["data"][0]["size"]),
        (&json!("buyers"), &json!(7))
    );
    let scraped = app.get(&format!("{AUDIENCES}/sizes?format=prometheus")).await.expect(200);
    assert!(scraped.header("content-type").starts_with("text/plain"));
    let line = "\npersonas_audience_size{space=\"default\",audience=\"buyers\"} 7\n";
    assert!(scraped.text.contains(line), "{}", scraped.text);
    app.get(&format!("{AUDIENCES}/sizes?format=xml")).await.expect(400);
    let again = app.request(reqwest::Method::GET, &format!("{AUDIENCES}/sizes"));
    let again = again.bearer_auth(crate::harness::app::TOKEN).header("if-none-match", first.header("etag"));
    assert_eq!(crate::harness::app::send(again).await.status, 304);
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let page =
            app.get(&format!("{AUDIENCES}/buyers/members?limit=3&cursor={next}")).await.expect(200).json;
        seen.extend(page["data"].as_array().unwrap().iter().map(|m| m["profile_id"].clone().to_string()));
        next = page["cursor"]["next"].as_str().unwrap().to_owned();
        if page["cursor"]["has_more"] == false {
            break;
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 7);
}
