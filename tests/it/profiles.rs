//! The Profile API with Segment's shapes, and what it has beyond them.

use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};

const USERS: &str = "/v1/spaces/default/collections/users/profiles";

async fn shop() -> (TestApp, u64) {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    let batch = json!({"batch": [
        {"type": "page", "anonymousId": "a1", "messageId": "m1", "name": "Home", "timestamp": "2024-02-01T00:00:00Z",
         "properties": {"path": "/"}},
        {"type": "identify", "anonymousId": "a1", "userId": "u1", "messageId": "m2", "timestamp": "2024-02-02T00:00:00Z",
         "traits": {"email": "Jane+shop@Example.com", "firstName": "Jane", "tags": ["x", {"y": 1}], "age": 7.10}},
        {"type": "track", "userId": "u1", "messageId": "m3", "event": "Order Completed",
         "timestamp": "2024-02-03T00:00:00Z", "properties": {"revenue": 12.50}},
        {"type": "group", "userId": "u1", "groupId": "g1", "messageId": "m4", "timestamp": "2024-02-04T00:00:00Z",
         "traits": {"plan": "pro"}},
        {"type": "screen", "userId": "u1", "messageId": "m5", "name": "Cart", "timestamp": "2024-01-01T00:00:00Z"},
    ]});
    let offset = app.track("/v1/batch", batch).await.expect(200).offset();
    (app, offset)
}

async fn get(app: &TestApp, path: &str) -> Value {
    app.get(path).await.expect(200).json
}

#[tokio::test]
async fn a_profile_is_found_by_every_identifier_and_id() {
    let (app, offset) = shop().await;
    let by_user = get(&app, &format!("{USERS}/user_id:u1/metadata?min_offset={offset}")).await;
    let id = by_user["metadata"]["profile_id"].as_str().unwrap();
    for selector in [
        "anonymous_id:a1",
        "email:jane%2Bshop@example.com",
        "email:JANE+shop@example.com",
        &format!("profile_id:{id}"),
    ] {
        assert_eq!(get(&app, &format!("{USERS}/{selector}/metadata")).await, by_user, "{selector}");
    }
    assert_eq!(by_user["metadata"]["first_message_id"], "m1");
    assert_eq!(by_user["metadata"]["last_message_id"], "m5");
    for missing in
        ["user_id:nobody", "user_id:U1", "shoe_size:43", "profile_id:prf_00000000000070008000000000000000"]
    {
        let answer = app.get(&format!("{USERS}/{missing}/traits")).await.expect(404);
        assert_eq!(answer.json, json!({"error": {"code": "not_found", "message": "Profile was not found."}}));
    }
    let answer = app.get(&format!("{USERS}/u1/traits")).await.expect(400);
    assert_eq!(answer.json["error"]["code"], "invalid_request_error");
    let answer =
        app.get("/v1/spaces/default/collections/people/profiles/user_id:u1/traits").await.expect(400);
    assert!(answer.json["error"]["message"].as_str().unwrap().contains("collection"));
}

#[tokio::test]
async fn traits_are_paged_filtered_and_told_with_their_source() {
    let (app, offset) = shop().await;
    app.make_live("computed-traits", "orders", "event('Order Completed').count()").await;
    app.make_live("audiences", "buyers", "event('Order Completed').count() >= 1").await;
    let traits = format!("{USERS}/user_id:u1/traits");
    let all = get(&app, &format!("{traits}?min_offset={offset}")).await;
    let expected = json!({"age": 7.10, "buyers": true, "email": "Jane+shop@Example.com", "firstName": "Jane",
        "orders": 1, "tags": ["x", {"y": 1}]});
    assert_eq!(all["traits"], expected);
    assert_eq!((&all["cursor"]["limit"], &all["cursor"]["has_more"]), (&json!(10), &json!(false)));
    for (parameters, expected) in [
        ("class=audience", json!({"buyers": true})),
        ("class=computed_trait", json!({"orders": 1})),
        ("class=custom&exclude=age,tags", json!({"email": "Jane+shop@Example.com", "firstName": "Jane"})),
        ("include=first_name,nothing", json!({"firstName": "Jane"})),
    ] {
        assert_eq!(get(&app, &format!("{traits}?{parameters}")).await["traits"], expected, "{parameters}");
    }
    let verbose = get(&app, &format!("{traits}?verbose=true&include=age")).await;
    assert_eq!(verbose["traits"]["age"]["value"], 7.1);
    assert_eq!(verbose["traits"]["age"]["updated_at"], "2024-02-02T00:00:00.000Z");
    assert!(verbose["traits"]["age"]["source_id"].as_str().unwrap().starts_with("src_"));
    let page = get(&app, &format!("{traits}?limit=4")).await;
    let next = page["cursor"]["next"].as_str().unwrap();
    let rest = get(&app, &format!("{traits}?&limit=4&next={next}")).await;
    assert_eq!(rest["traits"], json!({"orders": 1, "tags": ["x", {"y": 1}]}));
    app.get(&format!("{traits}?limit=201")).await.expect(400);
    app.get(&format!("{traits}?class=odd")).await.expect(400);
}

#[tokio::test]
async fn events_of_every_type_are_listed_in_order_of_their_time() {
    let (app, offset) = shop().await;
    let events = format!("{USERS}/user_id:u1/events");
    let all = get(&app, &format!("{events}?min_offset={offset}")).await;
    let ids = |list: &Value| -> Vec<String> {
        list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["message_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&all), ["m4", "m3", "m2", "m1", "m5"]);
    let order = &all["data"][1];
    assert_eq!((&order["type"], &order["event"]), (&json!("track"), &json!("Order Completed")));
    assert_eq!(order["properties"], json!({"revenue": 12.5}));
    assert_eq!(
        order["external_ids"],
        json!([{"collection": "users", "type": "user_id", "id": "u1", "encoding": "none"}])
    );
    assert!(order["related"]["users"].as_str().unwrap().starts_with("prf_"));
    assert_eq!(all["data"][3]["properties"]["page_name"], "Home");
    for (parameters, expected) in [
        ("sort=asc", vec!["m5", "m1", "m2", "m3", "m4"]),
        ("include=Order%20Completed,Screen%20Viewed", vec!["m3", "m5"]),
        ("exclude=Order%20Completed", vec!["m4", "m2", "m1", "m5"]),
        ("start=2024-02-02T00:00:00Z&end=2024-02-03T00:00:00Z", vec!["m3", "m2"]),
        ("limit=2", vec!["m4", "m3"]),
    ] {
        assert_eq!(ids(&get(&app, &format!("{events}?{parameters}")).await), expected, "{parameters}");
    }
    let first = get(&app, &format!("{events}?limit=2")).await;
    let next = first["cursor"]["next"].as_str().unwrap();
    assert_eq!(ids(&get(&app, &format!("{events}?limit=2&next={next}")).await), ["m2", "m1"]);
    let account = get(&app, "/v1/spaces/default/collections/accounts/profiles/group_id:g1/events").await;
    assert_eq!(ids(&account), ["m4"]);
}

#[tokio::test]
async fn a_profile_with_many_events_keeps_them_all_findable() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    let mut offset = 0;
    for batch in 0..5 {
        let calls: Vec<Value> = (0..100)
            .map(|n| {
                let at = format!("2024-02-{:02}T{:02}:{:02}:00Z", 1 + batch, n / 60, n % 60);
                json!({"type": "track", "userId": "u1", "event": "Seen", "messageId": format!("{batch}-{n}"), "timestamp": at})
            })
            .collect();
        offset = app.track("/v1/batch", json!({"batch": calls})).await.expect(200).offset();
    }
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let path = format!("{USERS}/user_id:u1/events?limit=120&sort=asc&min_offset={offset}&next={next}");
        let page = get(&app, &path).await;
        seen.extend(
            page["data"].as_array().unwrap().iter().map(|e| e["message_id"].as_str().unwrap().to_owned()),
        );
        next = page["cursor"]["next"].as_str().unwrap().to_owned();
        if page["cursor"]["has_more"] == false {
            break;
        }
    }
    let expected: Vec<String> = (0..5).flat_map(|b| (0..100).map(move |n| format!("{b}-{n}"))).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn profiles_are_listed_and_searched() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    let mut offset = 0;
    for user in ["anna", "anton", "bea"] {
        app.put("/v1/test-clock", json!({"now": format!("2024-03-01T12:0{offset}:00Z")})).await.expect(200);
        offset = app.track("/v1/track", json!({"userId": user, "event": "Seen"})).await.expect(200).offset();
    }
    let names = |list: &Value| -> Vec<String> {
        list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["external_ids"][0]["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&get(&app, &format!("{USERS}?min_offset={offset}")).await), ["bea", "anton", "anna"]);
    assert_eq!(names(&get(&app, &format!("{USERS}?query=an")).await), ["anna", "anton"]);
    let page = get(&app, &format!("{USERS}?limit=2")).await;
    let next = page["cursor"]["next"].as_str().unwrap();
    assert_eq!(names(&get(&app, &format!("{USERS}?limit=2&cursor={next}")).await), ["anna"]);
    let email = json!({"userId": "cleo", "traits": {"email": "Cleo@Example.com"}});
    let offset = app.track("/v1/identify", email).await.expect(200).offset();
    let found = get(&app, &format!("{USERS}?query=CLEO%40ex&min_offset={offset}")).await;
    assert_eq!(found["data"].as_array().unwrap().len(), 1, "e-mail addresses are found in any case: {found}");
    app.get(&format!("{USERS}?query=%00")).await.expect(400);
}

#[tokio::test]
async fn a_read_waits_for_what_was_written_but_not_for_ever() {
    let (app, offset) = shop().await;
    let path = format!("{USERS}/user_id:u1/traits?min_offset={}", offset + 1);
    let answer = app.get(&path).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    app.get(&format!("{USERS}/user_id:u1/traits?min_offset=soon")).await.expect(400);
}

#[tokio::test]
async fn a_call_that_nobody_was_there_for_changes_traits_and_not_when_somebody_was_seen() {
    let app = Wish::default().at("2024-03-01T12:00:00.000Z").start().await;
    app.track("/v1/identify", json!({"userId": "u", "traits": {"plan": "free"}})).await.expect(200);
    app.put("/v1/test-clock", json!({"now": "2024-03-02T12:00:00.000Z"})).await.expect(200);
    let absent = json!({"userId": "u", "traits": {"plan": "pro"}, "context": {"active": false}});
    let offset = app.track("/v1/identify", absent).await.expect(200).offset();
    let traits = get(&app, &format!("{USERS}/user_id:u/traits?min_offset={offset}")).await;
    assert_eq!(traits["traits"]["plan"], "pro");
    assert_eq!(get(&app, USERS).await["data"][0]["last_seen_at"], "2024-03-01T12:00:00.000Z");
    let offset = app.track("/v1/track", json!({"userId": "u", "event": "E"})).await.expect(200).offset();
    let listed = get(&app, &format!("{USERS}?min_offset={offset}")).await;
    assert_eq!(listed["data"][0]["last_seen_at"], "2024-03-02T12:00:00.000Z");
}
