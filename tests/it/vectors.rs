//! The specification's vectors of audiences and computed traits (personas.md 6.13 and its examples Q1-Q14), through the
//! front door with a clock that the tests move. AU-10, AU-12 and AU-17 are in `audiences.rs` and `definitions.rs`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};
use crate::harness::rebuild::{json_of, run};

const NOW: &str = "2024-03-01T12:00:00.000Z";
const SPACE: &str = "/v1/spaces/default";

/// A service whose clock stands still, and the offset of what was sent last.
struct World {
    app: TestApp,
    offset: u64,
    /// What was read.
    read: RefCell<BTreeSet<String>>,
}

impl World {
    async fn start() -> Self {
        Self { app: Wish::default().at(NOW).start().await, offset: 0, read: RefCell::default() }
    }

    async fn audiences(&self, all: &[(&str, &str)]) {
        for (key, query) in all {
            self.app.make_live("audiences", key, query).await;
        }
    }

    async fn computed(&self, all: &[(&str, &str)]) {
        for (key, query) in all {
            self.app.make_live("computed-traits", key, query).await;
        }
    }

    async fn send(&mut self, path: &str, call: Value) {
        self.offset = self.app.track(path, call).await.expect(200).offset();
    }

    async fn track(&mut self, user: &str, event: &str, at: &str, properties: Value) {
        let call = json!({"userId": user, "event": event, "timestamp": at, "properties": properties});
        self.send("/v1/track", call).await;
    }

    async fn identify(&mut self, user: &str, traits: Value) {
        self.send("/v1/identify", json!({"userId": user, "traits": traits})).await;
    }

    async fn move_to(&self, now: &str) {
        self.app.put("/v1/test-clock", json!({"now": now})).await.expect(200);
    }

    async fn get(&self, path: &str) -> Value {
        self.read.borrow_mut().insert(path.to_owned());
        let sign = if path.contains('?') { '&' } else { '?' };
        self.app.get(&format!("{path}{sign}min_offset={}", self.offset)).await.expect(200).json
    }

    async fn traits(&self, user: &str) -> Value {
        let path = format!("{SPACE}/collections/users/profiles/user_id:{user}/traits?limit=200");
        self.get(&path).await["traits"].clone()
    }

    /// All that was read says the same after a restart, and after everything was derived from the log again.
    async fn endures(mut self) {
        let before = self.read_again().await;
        self.app.running.stop(Duration::ZERO).await.unwrap();
        self.app = Wish::default().at(NOW).start_on(self.app.db).await;
        assert_eq!(before, self.read_again().await, "after a restart");
        let report = json_of(&run(&self.app.db, &["--json"]).await);
        assert_eq!(before, self.read_again().await, "after a rebuild: {report}");
        assert!(!before.is_empty());
    }

    async fn read_again(&self) -> Vec<(String, Value)> {
        let (read, mut all) = (self.read.borrow().clone(), Vec::new());
        for path in read {
            let answer = self.get(&path).await;
            all.push((path, answer));
        }
        all
    }

    /// The audiences a user is in, of those given.
    async fn memberships<'k>(&self, user: &str, keys: &[(&'k str, &str)]) -> Vec<&'k str> {
        let traits = self.traits(user).await;
        keys.iter().map(|(key, _)| *key).filter(|key| traits[*key] == true).collect()
    }

    async fn transitions(&self, key: &str) -> Vec<String> {
        let list = self.get(&format!("{SPACE}/audiences/{key}/transitions")).await;
        let word = |t: &Value| format!("{} {}", t["transition"].as_str().unwrap(), t["at"].as_str().unwrap());
        list["data"].as_array().unwrap().iter().rev().map(word).collect()
    }
}

#[tokio::test]
async fn au_02_a_window_of_ninety_days_is_exact() {
    let mut world = World::start().await;
    let all = [("recent", "event('Shoes Bought').within(90 days).count() >= 1")];
    world.audiences(&all).await;
    // 2,160 hours before the instant at which the test looks, and one millisecond more.
    world.track("in", "Shoes Bought", "2023-12-02T12:00:00.000Z", json!({})).await;
    world.track("out", "Shoes Bought", "2023-12-02T11:59:59.999Z", json!({})).await;
    assert_eq!(world.memberships("in", &all).await, ["recent"]);
    assert_eq!(world.memberships("out", &all).await, Vec::<&str>::new());
    world.move_to("2024-03-01T12:00:00.001Z").await;
    assert_eq!(world.memberships("in", &all).await, Vec::<&str>::new());
    assert_eq!(
        world.transitions("recent").await,
        ["entered 2024-03-01T12:00:00.000Z", "left 2024-03-01T12:00:00.001Z"]
    );
    world.endures().await;
}

#[tokio::test]
async fn au_03_to_06_and_19_comparators_on_traits() {
    let mut world = World::start().await;
    let all = [
        ("au03_differs", "trait('plan') != 'pro'"),
        ("au03_not", "NOT trait('plan') = 'pro'"),
        ("au04_contains", "trait('category').contains('shoes', 'shirts')"),
        ("au04_one_of", "trait('category').one_of('shoes')"),
        ("au04_none_of", "trait('category').none_of('shoes')"),
        ("au04_omits", "trait('category').omits('boots')"),
        ("au05_exists", "trait('plan').exists()"),
        ("au05_absent", "trait('plan').absent()"),
        ("au05_omits", "trait('plan').omits('x')"),
        ("au05_starts", "trait('plan').starts_with('')"),
        ("au06_within", "trait('last_seen').within_last(7 days)"),
        ("au06_before", "trait('last_seen').before_last(7 days)"),
        (
            "au19_no_zone",
            "trait('since').before_date(2024-01-01T00:00:01Z) AND trait('since').after_date(2023-12-31T23:59:59Z)",
        ),
        ("q8_half", "trait('VIP') = 'true'"),
    ];
    world.audiences(&all).await;
    let traits = json!({"plan": null, "category": "running shoes", "last_seen": "2024-02-23T12:00:00Z",
        "since": "2024-01-01T00:00:00", "VIP": true});
    world.identify("u", traits).await;
    let expected = [
        "au03_not",
        "au04_contains",
        "au04_none_of",
        "au04_omits",
        "au05_absent",
        "au05_omits",
        "au06_within",
        "au06_before",
        "au19_no_zone",
        "q8_half",
    ];
    assert_eq!(world.memberships("u", &all).await, expected);
    world.move_to("2024-03-01T12:00:00.001Z").await;
    assert!(!world.memberships("u", &all).await.contains(&"au06_within"), "a millisecond later");
    world.endures().await;
}

#[tokio::test]
async fn au_11_14_16_and_18_references_history_zero_and_duplicates() {
    let mut world = World::start().await;
    world.track("u", "Bought", "2024-02-28T12:00:00Z", json!({})).await;
    let all = [
        ("aud_a", "event('Bought').within(3 days) >= 1"),
        ("aud_b", "trait('aud_a') = true"),
        ("au16_exactly", "event('Never').count() = 0"),
        ("au16_at_most", "event('Never').count() <= 0"),
        ("au16_bought", "event('Bought').count() = 0"),
        ("au18_two", "event('Viewed').count() >= 2"),
    ];
    world.audiences(&all).await;
    let off = json!({"key": "au14", "options": {"include_historical_data": false},
        "definition": {"type": "users", "query": "event('Bought').count() = 0 AND trait('plan') = 'pro'"}});
    world.identify("u", json!({"plan": "pro"})).await;
    world.app.make_live_from("audiences", "au14", off).await;
    for _ in 0..2 {
        let call = json!({"userId": "u", "event": "Viewed", "messageId": "the same"});
        world.send("/v1/track", call).await;
    }
    let all = [&all[..], &[("au14", "")]].concat();
    assert_eq!(
        world.memberships("u", &all).await,
        ["aud_a", "aud_b", "au16_exactly", "au16_at_most", "au14"]
    );
    world.move_to("2024-03-02T12:00:00.001Z").await;
    assert_eq!(world.memberships("u", &all).await, ["au16_exactly", "au16_at_most", "au14"]);
    let left = "left 2024-03-02T12:00:00.001Z";
    for key in ["aud_a", "aud_b"] {
        assert_eq!(world.transitions(key).await.last().unwrap(), left, "{key}: at the same instant");
    }
    world.endures().await;
}

#[tokio::test]
async fn au_15_lists() {
    let mut world = World::start().await;
    let all = [
        (
            "each",
            "event('Order').where(property('products.$.sku') = 'A' AND property('products.$.price') > 20) >= 1",
        ),
        (
            "one",
            "event('Order').where(any_item('products', property('sku') = 'A' AND property('price') > 20)) >= 1",
        ),
        (
            "other",
            "event('Order').where(any_item('products', property('sku') = 'B' AND property('price') > 20)) >= 1",
        ),
        ("tag", "trait('tags.$') = 'vip'"),
        ("item", "any_item('cars', property('make') = 'x' AND property('until').within_last(1 day))"),
    ];
    world.audiences(&all).await;
    world.computed(&[("spent", "event('Order').sum(property('products.$.price'))")]).await;
    let products = json!({"products": [{"sku": "A", "price": 5}, {"sku": "B", "price": 50}]});
    world.track("u", "Order", NOW, products).await;
    let cars = json!([{"make": "x", "until": "2024-03-02T12:00:00Z"}, {"make": "y", "until": NOW}]);
    world.identify("u", json!({"tags": ["new", "vip"], "cars": cars})).await;
    assert_eq!(world.memberships("u", &all).await, ["each", "other", "tag"]);
    assert_eq!(world.traits("u").await["spent"], 55);
    world.move_to("2024-03-02T12:00:00.000Z").await;
    assert_eq!(world.memberships("u", &all).await, ["each", "other", "tag", "item"]);
    world.identify("u", json!({"tags": []})).await;
    assert!(!world.memberships("u", &all).await.contains(&"tag"));
    world.endures().await;
}

#[tokio::test]
async fn ct_01_to_04_and_08_values_of_reducers() {
    let mut world = World::start().await;
    world
        .computed(&[
            ("mode2", "event('E').mode(property('c'), 2)"),
            ("list", "event('E').unique(property('c'))"),
            ("list_count", "event('E').unique(property('c')).count()"),
            ("most", "event('E').max(property('n'))"),
            ("most_text", "event('E').max(property('n') as string)"),
            ("total", "event('E').sum(property('s'))"),
            ("none_count", "event('Never').count()"),
            ("none_list_count", "event('Never').unique(property('c')).count()"),
            ("none_sum", "event('Never').sum(property('c'))"),
        ])
        .await;
    let (n, s) = ([9, 10], [json!(10), json!("20"), json!(null), json!("x")]);
    for (i, c) in ["b", "b", "a", "a"].iter().enumerate() {
        let properties = json!({"c": c, "n": n.get(i), "s": s[i]});
        world.track("tie", "E", NOW, properties).await;
    }
    for c in ["a", "b"] {
        world.track("once", "E", NOW, json!({"c": c})).await;
    }
    for c in ["a", "b", "b"] {
        world.track("twice", "E", NOW, json!({"c": c})).await;
    }
    let tie = world.traits("tie").await;
    let expected = json!({"mode2": "a", "list": ["a", "b"], "list_count": 2, "most": 10, "most_text": "9", "total": 30,
        "none_count": 0, "none_list_count": 0});
    assert_eq!(tie, expected);
    assert_eq!(world.traits("once").await["mode2"], Value::Null, "CT-01: nothing occurs twice");
    assert_eq!(world.traits("twice").await["mode2"], "b");
    world.endures().await;
}

#[tokio::test]
async fn ct_05_a_session_resets_after_its_gap() {
    let mut world = World::start().await;
    world.computed(&[("views", "event('Page Viewed').expires_after(1 hour).count()")]).await;
    let audience = [("busy", "event('Page Viewed').expires_after(1 hour).count() >= 2")];
    world.audiences(&audience).await;
    let mut expected = Vec::new();
    for (at, views) in [("12:00:00.000", 1), ("12:20:00.000", 2), ("13:30:00.000", 1)] {
        let at = format!("2024-03-01T{at}Z");
        if at != NOW {
            world.move_to(&at).await;
        }
        world.send("/v1/page", json!({"userId": "u", "timestamp": at})).await;
        assert_eq!(world.traits("u").await["views"], views, "{at}");
        expected.push(at);
    }
    world.move_to("2024-03-01T14:30:00.000Z").await;
    assert_eq!(world.traits("u").await["views"], 1, "an hour later another one would still belong to it");
    world.move_to("2024-03-01T14:30:00.001Z").await;
    assert_eq!(world.traits("u").await["views"], Value::Null);
    let transitions = ["entered 2024-03-01T12:20:00.000Z", "left 2024-03-01T13:20:00.001Z"];
    assert_eq!(world.transitions("busy").await, transitions);
    // A late one joins the runs that were apart, and the latest session is over all the same.
    world.track("u", "Page Viewed", "2024-03-01T13:00:00.000Z", json!({})).await;
    assert_eq!(world.traits("u").await["views"], Value::Null);
    world.move_to("2024-03-01T15:00:00.000Z").await;
    world.track("u", "Page Viewed", "2024-03-01T14:30:00.000Z", json!({})).await;
    assert_eq!(world.traits("u").await["views"], 5);
    assert_eq!(world.memberships("u", &audience).await, ["busy"]);
    world.endures().await;
}

#[tokio::test]
async fn ct_06_and_07_late_events_and_unchanged_values() {
    let mut world = World::start().await;
    world
        .computed(&[
            ("first", "event('E').first(property('x'))"),
            ("last", "event('E').last(property('x'))"),
            ("seen", "event('E').last(timestamp())"),
        ])
        .await;
    world.track("u", "E", "2024-02-20T00:00:00Z", json!({"x": "b"})).await;
    world.track("u", "E", "2024-02-10T00:00:00Z", json!({"x": "a"})).await;
    let expected = json!({"first": "a", "last": "b", "seen": "2024-02-20T00:00:00.000Z"});
    assert_eq!(world.traits("u").await, expected);
    let values = async |world: &World| {
        world.app.get(&format!("{SPACE}/computed-traits/last/values")).await.expect(200).json["data"].clone()
    };
    let before = values(&world).await;
    world.move_to("2024-03-02T12:00:00Z").await;
    world.track("u", "E", "2024-02-15T00:00:00Z", json!({"x": "c"})).await;
    assert_eq!(world.traits("u").await, expected);
    assert_eq!(values(&world).await, before, "an unchanged value was not set again");
    world.endures().await;
}

#[tokio::test]
async fn au_07_and_08_a_child_follows_its_parent_within_its_bound() {
    let mut world = World::start().await;
    let query = "event('Product Added').where(event('Order Completed').within(parent: 1 day).count() = 0).count() >= 1";
    let all = [("left_cart", query)];
    world.audiences(&all).await;
    let (added, bought) = ("Product Added", "Order Completed");
    for (user, events) in [
        ("au_07", [(added, 1), (bought, 2), (added, 3)].as_slice()),
        ("au_08", &[(added, 1), (bought, 2)]),
        ("au_08_before", &[(bought, 0), (added, 1)]),
        ("too_late", &[(added, 1), (bought, 26)]),
    ] {
        for (event, hour) in events {
            let at = format!("2024-02-{:02}T{:02}:00:00Z", 20 + hour / 24, hour % 24);
            world.track(user, event, &at, json!({})).await;
        }
    }
    for (user, expected) in [("au_07", 1), ("au_08", 0), ("au_08_before", 1), ("too_late", 1)] {
        assert_eq!(world.memberships(user, &all).await.len(), expected, "{user}");
    }
    // What arrives late counts from when it happened.
    world.track("au_08_before", bought, "2024-02-20T02:00:00Z", json!({})).await;
    assert_eq!(world.memberships("au_08_before", &all).await, Vec::<&str>::new());
    // A definition that is made afterwards says the same of everybody.
    world.app.make_live("audiences", "again", query).await;
    for (user, expected) in [("au_07", 1), ("au_08", 0), ("au_08_before", 0), ("too_late", 1)] {
        assert_eq!(world.memberships(user, &[("again", query)]).await.len(), expected, "{user}");
    }
    // A rebuild takes it as if it had been there all along, and would know who was in it before it was made.
    world.app.delete("/v1/spaces/default/audiences/again").await.expect(204);
    world.endures().await;
}

#[tokio::test]
async fn au_09_q2_a_funnel_over_a_trait() {
    let mut world = World::start().await;
    let query = "event('Shoes Bought').where( property('price') >= trait('avg_spend') AND \
        event('Shoes Returned').within(parent: 5 days).count() >= 1 ).within(30 days).count() >= 1";
    let all = [("q2", query)];
    world.audiences(&all).await;
    world.computed(&[("avg_spend", "event('Shoes Bought').avg(property('price'))")]).await;
    for (user, price, returned) in [("in", 100, 24), ("late", 100, 26), ("cheap", 10, 24)] {
        world.track(user, "Shoes Bought", "2024-02-01T00:00:00Z", json!({"price": 60})).await;
        world.track(user, "Shoes Bought", "2024-02-20T00:00:00Z", json!({"price": price})).await;
        let at = format!("2024-02-{returned:02}T00:00:00Z");
        world.track(user, "Shoes Returned", &at, json!({})).await;
    }
    assert_eq!(world.memberships("in", &all).await, ["q2"]);
    assert_eq!(world.memberships("late", &all).await, Vec::<&str>::new());
    assert_eq!(world.memberships("cheap", &all).await, Vec::<&str>::new());
    // The average moves past the price by an event that is no part of the funnel, and back.
    world.track("in", "Shoes Bought", "2024-01-01T00:00:00Z", json!({"price": 1_000})).await;
    assert_eq!(world.memberships("in", &all).await, Vec::<&str>::new());
    for _ in 0..40 {
        world.track("in", "Shoes Bought", "2024-01-01T00:00:00Z", json!({"price": 1})).await;
    }
    assert_eq!(world.memberships("in", &all).await, ["q2"]);
    // The parent leaves the window by the clock, also while the server is away.
    world.move_to("2024-03-21T00:00:00Z").await;
    assert_eq!(world.memberships("in", &all).await, ["q2"]);
    world.move_to("2024-03-21T00:00:00.001Z").await;
    assert_eq!(world.memberships("in", &all).await, Vec::<&str>::new());
    assert_eq!(world.transitions("q2").await.last().unwrap(), "left 2024-03-21T00:00:00.001Z");
    world.endures().await;
}

#[tokio::test]
async fn the_official_examples() {
    let mut world = World::start().await;
    let all = [
        ("q1", "event('Shoes Bought').where( property('price') >= 100 ).within(7 days).count() >= 1"),
        ("q3", "NOT ( event('Shoes Bought').count() >= 1 AND trait('total_spend') > 200 )"),
        ("q14", "event('Shoes Bought').count() >= 1 && event('Shirt Bought').count() >= 2"),
    ];
    world.audiences(&all).await;
    world
        .computed(&[
            ("q10", "event('Shoes Bought').within(30 days).avg(property('spend'))"),
            ("q11", "event('Shoes Bought').where( property('price') > 100 AND property('brand') = 'My Brand' ).min(property('spend'))"),
            ("q12", "event('Shoes Bought').within(30 days).first(property('spend'))"),
            ("q13", "event('Shoes Bought').within(30 days).mode(property('spend'), 2)"),
        ])
        .await;
    for (at, price, brand, spend) in [
        ("2024-01-01T00:00:00Z", 500, "My Brand", 90),
        ("2024-02-26T00:00:00Z", 150, "My Brand", 120),
        ("2024-02-27T00:00:00Z", 101, "Other", 20),
        ("2024-02-28T00:00:00Z", 99, "My Brand", 20),
    ] {
        let properties = json!({"price": price, "brand": brand, "spend": spend});
        world.track("u", "Shoes Bought", at, properties).await;
    }
    world.track("u", "Shirt Bought", NOW, json!({})).await;
    world.identify("u", json!({"total_spend": 200})).await;
    assert_eq!(world.memberships("u", &all).await, ["q1", "q3"]);
    world.identify("u", json!({"total_spend": 201})).await;
    world.track("u", "Shirt Bought", NOW, json!({})).await;
    assert_eq!(world.memberships("u", &all).await, ["q1", "q14"]);
    let traits = world.traits("u").await;
    let values = ["q10", "q11", "q12", "q13"].map(|key| traits[key].to_string());
    assert_eq!(values, ["53.3333333333", "90", "120", "20"]);
    for entity in [
        "entity('orders').where(entity('order-products').count() >= 1).count() >= 1",
        "entity('orders').count() >= 1 OR trait('VIP') = 'true'",
        "entity('orders').where(property('total') > 500).count() >= 1",
    ] {
        let body = json!({"key": "no", "definition": {"type": "users", "query": entity}});
        let refused = world.app.post(&format!("{SPACE}/audiences"), body).await;
        let refused = refused.expect_problem(422, "invalid_query").json;
        assert!(refused["errors"][0]["message"].as_str().unwrap().contains("`entity`"), "{refused}");
    }
    world.endures().await;
}
