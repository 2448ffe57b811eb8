//! Conditions inside of `where` that are relative to now, through the front door: profiles enter and leave as the clock
//! moves, with no event.

use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};

const NOW: &str = "2024-03-01T12:00:00.000Z";
const AUDIENCES: &str = "/v1/spaces/default/audiences";
const PROFILES: &str = "/v1/spaces/default/collections/users/profiles";

async fn started(app: &TestApp, user: &str, ends_at: &str, plan: &str) -> u64 {
    let properties = json!({"ends_at": ends_at, "plan": plan});
    let call = json!({"userId": user, "event": "Trial Started", "timestamp": NOW, "properties": properties});
    app.track("/v1/track", call).await.expect(200).offset()
}

async fn traits(app: &TestApp, user: &str, offset: u64) -> Value {
    let path = format!("{PROFILES}/user_id:{user}/traits?limit=200&min_offset={offset}");
    app.get(&path).await.expect(200).json["traits"].clone()
}

async fn size_at(app: &TestApp, now: &str, key: &str) -> i64 {
    app.put("/v1/test-clock", json!({"now": now})).await.expect(200);
    app.get(&format!("{AUDIENCES}/{key}/size")).await.expect(200).json["size"].as_i64().unwrap()
}

async fn transitions(app: &TestApp, key: &str) -> Vec<String> {
    let list = app.get(&format!("{AUDIENCES}/{key}/transitions")).await.expect(200).json;
    let word = |t: &Value| format!("{} {}", t["transition"].as_str().unwrap(), t["at"].as_str().unwrap());
    list["data"].as_array().unwrap().iter().rev().map(word).collect()
}

#[tokio::test]
async fn trials_that_end_soon_come_and_go_with_the_clock() {
    let app = Wish::default().at(NOW).start().await;
    // Before the audience exists: history is folded the same way.
    started(&app, "early", "2024-03-08T12:00:00Z", "pro").await;
    let soon = "event('Trial Started').where(property('ends_at').within_next(3 days) AND property('plan') = 'pro') >= 1";
    app.make_live("audiences", "ends_soon", soon).await;
    let ends = "event('Trial Started').where(property('ends_at').after_next(0 days)).min(property('ends_at') as string)";
    app.make_live("computed-traits", "next_end", ends).await;
    started(&app, "free", "2024-03-08T12:00:00Z", "free").await;
    started(&app, "late", "2024-03-20T12:00:00.500Z", "pro").await;
    let offset = started(&app, "late", "2024-03-10T12:00:00Z", "free").await;
    assert_eq!(traits(&app, "late", offset).await, json!({"next_end": "2024-03-10T12:00:00Z"}));

    assert_eq!(size_at(&app, "2024-03-05T11:59:59.999Z", "ends_soon").await, 0);
    assert_eq!(size_at(&app, "2024-03-05T12:00:00.000Z", "ends_soon").await, 1);
    assert_eq!(traits(&app, "early", 0).await["ends_soon"], true);
    assert_eq!(size_at(&app, "2024-03-08T12:00:00.000Z", "ends_soon").await, 1);
    assert_eq!(size_at(&app, "2024-03-08T12:00:00.001Z", "ends_soon").await, 0);
    assert_eq!(traits(&app, "early", 0).await, json!({"ends_soon": false}), "and its trial is over");
    size_at(&app, "2024-03-10T12:00:00.001Z", "ends_soon").await;
    assert_eq!(traits(&app, "late", 0).await["next_end"], "2024-03-20T12:00:00.500Z");

    // The server is away while the other one comes and goes.
    app.running.stop(std::time::Duration::ZERO).await.unwrap();
    let app = Wish::default().at("2024-04-01T00:00:00Z").start_on(app.db).await;
    assert_eq!(size_at(&app, "2024-04-01T00:00:00.001Z", "ends_soon").await, 0);
    let expected = [
        "entered 2024-03-05T12:00:00.000Z",
        "left 2024-03-08T12:00:00.001Z",
        "entered 2024-03-17T12:00:00.500Z",
        "left 2024-03-20T12:00:00.501Z",
    ];
    assert_eq!(transitions(&app, "ends_soon").await, expected);
}

#[tokio::test]
async fn what_cannot_be_done_inside_of_where_is_still_refused_at_its_place() {
    let app = Wish::default().at(NOW).start().await;
    let query = "event('Trial Started').where(trait('ends_at').held_for(3 days)).count() >= 1";
    let body = json!({"key": "no", "definition": {"type": "users", "query": query}});
    let refused = app.post(AUDIENCES, body).await.expect(422);
    assert!(refused.json.to_string().contains("outside of `where`"), "{}", refused.json);
}

#[tokio::test]
async fn a_trait_that_keeps_its_value_enters_by_the_clock_and_leaves_with_the_next_write() {
    let app = Wish::default().at(NOW).start().await;
    let identify = async |plan: &str, at: &str| {
        let call = json!({"userId": "u", "traits": {"plan": plan}, "timestamp": at});
        app.track("/v1/identify", call).await.expect(200).offset()
    };
    // What a group call says is the account's plan, whether history or the present event tells it.
    let of_account = async |at: &str| {
        let traits = json!({"plan": "enterprise"});
        let call = json!({"userId": "u", "groupId": "g", "traits": traits, "timestamp": at});
        app.track("/v1/group", call).await.expect(200);
    };
    // Written before there is a definition that asks: history knows.
    identify("pro", "2024-03-01T10:00:00Z").await;
    of_account("2024-03-01T10:15:00Z").await;
    app.make_live("audiences", "loyal", "trait('plan') = 'pro' AND trait('plan').held_for(3 days)").await;
    app.make_live("computed-traits", "orders", "event('Bought').count()").await;
    app.make_live("audiences", "sleeping", "trait('orders') = 1 AND trait('orders').held_for(1 day)").await;
    app.track("/v1/track", json!({"userId": "u", "event": "Bought", "timestamp": NOW})).await.expect(200);
    identify("pro", "2024-03-01T11:00:00Z").await;
    of_account("2024-03-01T11:30:00Z").await;
    assert_eq!(size_at(&app, "2024-03-02T11:59:59.999Z", "sleeping").await, 0);
    assert_eq!(size_at(&app, "2024-03-02T12:00:00.000Z", "sleeping").await, 1, "computed traits, too");
    assert_eq!(size_at(&app, "2024-03-04T09:59:59.999Z", "loyal").await, 0);
    assert_eq!(size_at(&app, "2024-03-04T10:00:00.000Z", "loyal").await, 1);
    // A late write between the two: it has been held from the second on only.
    let offset = identify("free", "2024-03-01T10:30:00Z").await;
    assert_eq!(traits(&app, "u", offset).await["loyal"], false);
    assert_eq!(size_at(&app, "2024-03-04T11:00:00.000Z", "loyal").await, 1);
    let offset = identify("free", "2024-03-04T11:00:00Z").await;
    assert_eq!(traits(&app, "u", offset).await["loyal"], false);
    let expected = [
        "entered 2024-03-04T10:00:00.000Z",
        "left 2024-03-04T10:00:00.000Z",
        "entered 2024-03-04T11:00:00.000Z",
        "left 2024-03-04T11:00:00.000Z",
    ];
    assert_eq!(transitions(&app, "loyal").await, expected);
}
