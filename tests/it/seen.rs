//! Schema discovery: what has been seen of events and traits, and warnings about what has not.

use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};

const SPACE: &str = "/v1/spaces/default";
const NOW: &str = "2024-03-01T12:00:00.000Z";

/// The names of events with their counts, once there are `total` of them: what is seen is written beside the processing.
async fn events(app: &TestApp, total: u64) -> Vec<(String, u64)> {
    loop {
        let list = app.get(&format!("{SPACE}/schema/events")).await.expect(200).json;
        let event = |e: &Value| (e["name"].as_str().unwrap().to_owned(), e["count"].as_u64().unwrap());
        let found: Vec<_> = list["data"].as_array().unwrap().iter().map(event).collect();
        let counted: u64 = found.iter().map(|(_, count)| count).sum();
        assert!(counted <= total, "{found:?}");
        if counted == total {
            return found;
        }
        tokio::task::yield_now().await;
    }
}

async fn shop(app: &TestApp) {
    let order = |id: &str, total: Value| {
        let properties = json!({"total": total, "coupon": "SPRING", "ship": {"city": "Lyon"},
            "products": [{"sku": "A"}, {"sku": "B"}]});
        json!({"type": "track", "userId": "u1", "messageId": id, "event": "Order Completed", "properties": properties})
    };
    let batch = json!({"batch": [
        order("m1", json!(5)), order("m2", json!("5.5")), order("m1", json!(7)),
        {"type": "page", "userId": "u1", "messageId": "m3", "properties": {"path": "/"}},
        {"type": "identify", "userId": "u1", "messageId": "m4", "traits": {"plan": "pro", "since": "2024-01-31"}},
        {"type": "identify", "userId": "u2", "messageId": "m5", "context": {"traits": {"plan": "pro"}}},
        {"type": "group", "userId": "u2", "groupId": "g", "messageId": "m6", "traits": {"seats": 3}},
    ]});
    app.track("/v1/batch", batch).await.expect(200);
}

#[tokio::test]
async fn names_types_counts_and_frequent_values_are_told() {
    let app = Wish::default().at(NOW).start().await;
    shop(&app).await;
    let expected = [("Order Completed".to_owned(), 2), ("Page Viewed".to_owned(), 1)];
    assert_eq!(events(&app, 3).await, expected, "a duplicate is not seen twice");
    let fields = async |path: &str| {
        let list = app.get(&format!("{SPACE}/schema/{path}")).await.expect(200).json;
        list["data"].as_array().unwrap().clone()
    };
    let properties = fields("events/Order%20Completed/properties").await;
    let coupon = json!({"name": "coupon", "count": 2, "types": {"string": 2}, "values": [{"value": "SPRING", "count": 2}]});
    assert_eq!(properties[0], coupon);
    let names: Vec<&str> = properties.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["coupon", "products", "products.$.sku", "ship", "ship.city", "total"]);
    assert_eq!(properties[5]["types"], json!({"number": 1, "string": 1}));
    assert_eq!(properties[5]["values"], json!([]), "values that came only once are nobody's business");
    let traits = fields("traits").await;
    assert_eq!(
        traits[0],
        json!({"name": "plan", "count": 2, "types": {"string": 2}, "values": [{"value": "pro", "count": 2}]})
    );
    assert_eq!(traits[1]["types"], json!({"date": 1}));
    assert_eq!(fields("traits?collection=accounts").await[0]["name"], "seats");
    let first = app.get(&format!("{SPACE}/schema/events?limit=1")).await.expect(200).json;
    assert_eq!(
        (&first["data"][0]["first_seen_at"], &first["data"][0]["last_seen_at"]),
        (&json!(NOW), &json!(NOW))
    );
    let cursor = first["cursor"]["next"].as_str().unwrap();
    let second = app.get(&format!("{SPACE}/schema/events?limit=1&cursor={cursor}")).await.expect(200).json;
    assert_eq!(second["data"][0]["name"], "Page Viewed");
    app.get(&format!("{SPACE}/schema/events/Nothing/properties")).await.expect_problem(404, "not_found");
    app.get(&format!("{SPACE}/schema/traits?collection=pets")).await.expect_problem(400, "bad_request");
}

#[tokio::test]
async fn a_restart_neither_forgets_nor_counts_twice() {
    let app = Wish::default().at(NOW).start().await;
    shop(&app).await;
    // Stopped before it may have been written: the log knows.
    app.running.stop(std::time::Duration::from_secs(10)).await.unwrap();
    let app = Wish::default().at(NOW).start_on(app.db).await;
    let call = json!({"userId": "u1", "event": "Order Completed", "messageId": "m7"});
    app.track("/v1/track", call).await.expect(200);
    let found = events(&app, 4).await;
    assert_eq!(found[0], ("Order Completed".to_owned(), 3));
}

#[tokio::test]
async fn names_nobody_has_seen_are_worth_a_warning_and_never_refused() {
    let app = Wish::default().at(NOW).start().await;
    shop(&app).await;
    events(&app, 3).await;
    let query = "event('Order Complete').count() >= 1 AND trait('plan') = 'pro' AND event('Order Completed').where(property('totl') > 1) >= 1";
    let definition = json!({"type": "users", "query": query});
    let preview = app
        .post(&format!("{SPACE}/audiences/preview"), json!({"definition": definition}))
        .await
        .expect(200)
        .json;
    let message = "no event named \"Order Complete\" has been seen; did you mean `Order Completed`?";
    assert_eq!(preview["warnings"][0]["message"], message);
    assert_eq!(
        (&preview["warnings"][0]["column"], &preview["warnings"][0]["length"]),
        (&json!(7), &json!(16))
    );
    assert_eq!(preview["warnings"][0]["suggestion"], "Order Completed");
    assert_eq!(preview["warnings"][1]["suggestion"], "total");
    assert_eq!(preview["warnings"].as_array().unwrap().len(), 2);
    let made =
        app.post(&format!("{SPACE}/audiences"), json!({"key": "near", "definition": definition})).await;
    assert_eq!(made.expect(201).json["warnings"], preview["warnings"]);
    let right =
        json!({"definition": {"query": "event('Order Completed').count() >= 1 AND audience('near')"}});
    let made = app
        .post(&format!("{SPACE}/audiences"), json!({"key": "right", "definition": right["definition"]}))
        .await;
    assert_eq!(made.expect(201).json.get("warnings"), None, "a key is a trait that exists");
    let changed = app
        .patch(&format!("{SPACE}/audiences/right"), json!({"definition": {"query": "trait('plam') = 1"}}))
        .await;
    assert_eq!(changed.expect(200).json["warnings"][0]["suggestion"], "plan");
}
