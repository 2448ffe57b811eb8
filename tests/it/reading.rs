//! What is read of a call: times, shared parts of a batch, traits, and what is kept out of profiles; each read back.

use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};

const SPACE: &str = "/v1/spaces/default";
const USERS: &str = "/v1/spaces/default/collections/users/profiles";

async fn events(app: &TestApp, user: &str, offset: u64) -> Vec<Value> {
    let path = format!("{USERS}/user_id:{user}/events?limit=100&min_offset={offset}");
    app.get(&path).await.expect(200).json["data"].as_array().unwrap().clone()
}

async fn settle(app: &TestApp, offset: u64) {
    app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.expect(200);
}

/// T10 with the vectors TS-1 to TS-6: when it was received, what was sent, and when it happened.
#[tokio::test]
async fn an_unreadable_time_of_sending_corrects_nothing() {
    let app = Wish::default().at("2024-03-01T12:00:00.000Z").start().await;
    let call = |sent_at: Value| json!({"type": "track", "userId": "u", "event": "Seen", "timestamp": "2024-03-01T11:00:00.000Z", "sentAt": sent_at});
    for sent_at in [json!(1_709_294_400), json!("yesterday"), json!({"at": 1})] {
        app.track("/v1/track", call(sent_at.clone())).await.expect(200);
        let batch = json!({"batch": [call(json!(null))], "sentAt": sent_at});
        let offset = app.track("/v1/batch", batch).await.expect(200).offset();
        for event in events(&app, "u", offset).await {
            assert_eq!(event["timestamp"], "2024-03-01T11:00:00.000Z");
        }
    }
    // The time of the event itself has to be one.
    let refused =
        app.track("/v1/track", json!({"userId": "u", "event": "E", "timestamp": "yesterday"})).await;
    assert_eq!(refused.expect(400).json["code"], "timestamp_invalid");
}

#[tokio::test]
async fn the_time_of_an_event_is_corrected_by_the_clock_of_its_sender() {
    for (name, received, sent, happened) in [
        (
            "TS-1",
            "2024-03-01T19:11:01.266Z",
            json!({"originalTimestamp": "2024-03-01T19:11:01.152Z", "sentAt": "2024-03-01T19:11:01.169Z"}),
            "2024-03-01T19:11:01.249Z",
        ),
        ("TS-2", "2024-03-01T19:11:01.266Z", json!({}), "2024-03-01T19:11:01.266Z"),
        (
            "TS-3",
            "2024-03-01T19:11:01.266Z",
            json!({"timestamp": "2012-12-02T00:30:08.276Z"}),
            "2012-12-02T00:30:08.276Z",
        ),
        (
            "TS-4",
            "2024-03-01T12:00:05.000Z",
            json!({"originalTimestamp": "2024-03-01T13:00:00Z", "sentAt": "2024-03-01T13:00:05Z"}),
            "2024-03-01T12:00:00.000Z",
        ),
        (
            "TS-5",
            "2024-03-01T15:00:00.000Z",
            json!({"originalTimestamp": "2024-03-01T10:00:00Z", "sentAt": "2024-03-01T15:00:00Z"}),
            "2024-03-01T10:00:00.000Z",
        ),
        (
            "TS-6",
            "2024-03-01T04:08:31.909Z",
            json!({"originalTimestamp": "2024-03-01T04:08:31.577Z", "sentAt": "2024-03-01T04:08:31.581Z"}),
            "2024-03-01T04:08:31.905Z",
        ),
    ] {
        let app = Wish::default().at(received).start().await;
        let mut call = json!({"userId": "u", "event": "Seen"});
        call.as_object_mut().unwrap().extend(sent.as_object().unwrap().clone());
        let offset = app.track("/v1/track", call.clone()).await.expect(200).offset();
        // What a batch says once counts for all of its events.
        let sent_at = call.as_object_mut().unwrap().remove("sentAt");
        call["type"] = "track".into();
        let mut batch = json!({"batch": [call]});
        if let Some(sent_at) = sent_at {
            batch["sentAt"] = sent_at;
        }
        let offset = app.track("/v1/batch", batch).await.expect(200).offset().max(offset);
        let found = events(&app, "u", offset).await;
        assert_eq!(found.len(), 2, "{name}");
        for event in found {
            assert_eq!(event["timestamp"], happened, "{name}");
        }
    }
}

#[tokio::test]
async fn what_a_batch_says_once_goes_under_what_each_event_says() {
    let app = TestApp::start().await;
    let batch = r#"{"context":{"ip":"1.2.3.4","device":{"id":"d","type":"ios"},"serial":18446744073709551616},
        "batch":[{"type":"track","userId":"u","event":"A","context":{"device":{"type":"android"}}},
                 {"type":"track","userId":"u","event":"B","context":{"serial":18446744073709551617}}]}"#;
    let offset = app.track("/v1/batch", batch).await.expect(200).offset();
    let path = format!("{USERS}/user_id:u/events?limit=100&min_offset={offset}");
    let text = app.get(&path).await.expect(200).text;
    assert!(
        text.contains("18446744073709551616") && text.contains("18446744073709551617"),
        "all digits: {text}"
    );
    let found = events(&app, "u", offset).await;
    let of = |name: &str| found.iter().find(|e| e["event"] == name).unwrap()["context"].clone();
    assert_eq!(of("A")["device"], json!({"id": "d", "type": "android"}));
    assert_eq!((&of("A")["ip"], &of("B")["device"]["type"]), (&json!("1.2.3.4"), &json!("ios")));
}

#[tokio::test]
async fn events_that_are_not_to_be_profiled_are_kept_and_nothing_else() {
    let app = TestApp::start().await;
    app.make_live("audiences", "seen", "event('Seen').count() >= 1").await;
    let kept = json!({"userId": "quiet", "event": "Seen", "integrations": {"Personas": false}});
    let offset = app.track("/v1/track", kept).await.expect(200).offset();
    settle(&app, offset).await;
    let pipeline = app.get(&format!("{SPACE}/pipeline")).await.expect(200).json;
    assert_eq!((&pipeline["log_end_offset"], &pipeline["profiles"]["users"]), (&json!(1), &json!(0)));
    app.get(&format!("{USERS}/user_id:quiet/metadata")).await.expect(404);
    assert_eq!(app.get(&format!("{SPACE}/audiences/seen/size")).await.expect(200).json["size"], 0);
}

#[tokio::test]
async fn traits_in_the_context_are_traits_of_identify_and_identifiers_of_other_calls() {
    let app = TestApp::start().await;
    let context = json!({"traits": {"email": "u@example.com", "plan": "pro"}});
    app.track("/v1/identify", json!({"userId": "u", "context": context})).await.expect(200);
    let context = json!({"traits": {"email": "v@example.com", "plan": "pro"}});
    let offset = app
        .track("/v1/track", json!({"userId": "v", "event": "Seen", "context": context}))
        .await
        .expect(200)
        .offset();
    let traits = async |user: &str| {
        let path = format!("{USERS}/user_id:{user}/traits?min_offset={offset}");
        app.get(&path).await.expect(200).json["traits"].clone()
    };
    assert_eq!(traits("u").await, json!({"email": "u@example.com", "plan": "pro"}));
    assert_eq!(traits("v").await, json!({}));
    let ids = app.get(&format!("{USERS}/email:v@example.com/external_ids")).await.expect(200).json;
    assert_eq!(ids["data"].as_array().unwrap().len(), 2, "{ids}");
}

#[tokio::test]
async fn a_group_call_without_a_group_is_taken_and_told() {
    let app = TestApp::start().await;
    let offset =
        app.track("/v1/group", json!({"userId": "u", "traits": {"seats": 3}})).await.expect(200).offset();
    settle(&app, offset).await;
    let listed = app.get(&format!("{SPACE}/rejected-events?code=no_group")).await.expect(200).json;
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "{listed}");
}

#[tokio::test]
async fn an_explanation_says_why_and_why_not_and_until_when() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    app.make_live(
        "audiences",
        "fresh",
        "event('Bought').within(7 days).count() >= 1 AND trait('plan') = 'pro'",
    )
    .await;
    app.make_live("computed-traits", "orders", "event('Bought').count()").await;
    let batch = json!({"batch": [
        {"type": "identify", "userId": "ada", "traits": {"plan": "pro"}},
        {"type": "track", "userId": "ada", "event": "Bought"},
        {"type": "track", "userId": "bob", "event": "Bought"},
        {"type": "track", "anonymousId": "a1", "event": "Bought"},
    ]});
    let offset = app.track("/v1/batch", batch).await.expect(200).offset();
    let explain = async |who: &str, key: &str| {
        app.get(&format!("{USERS}/{who}/explain/{key}?min_offset={offset}")).await.expect(200).json
    };
    let ada = explain("user_id:ada", "fresh").await;
    assert_eq!((&ada["member"], &ada["status"]), (&json!(true), &json!("counted")));
    assert_eq!(ada["changes"], json!({"at": "2024-03-08T12:00:00.001Z", "to": false}));
    let bob = explain("user_id:bob", "fresh").await;
    assert_eq!((&bob["member"], &bob["changes"]["at"]), (&json!(false), &Value::Null));
    assert_eq!(bob["would_have_to_change"], json!(["`trait('plan')` is absent; it would have to be 'pro'"]));
    assert_eq!((&bob["reason"]["is"], &bob["reason"]["parts"][0]["holds"]), (&json!("all"), &json!(true)));
    assert_eq!(explain("anonymous_id:a1", "fresh").await["status"], "anonymous");
    assert_eq!(explain("user_id:ada", "orders").await["value"], 1);
    app.get(&format!("{USERS}/user_id:ada/explain/nothing")).await.expect(404);
    app.get(&format!("{USERS}/user_id:nobody/explain/fresh")).await.expect(404);
    app.get(&format!("{USERS}/ada/explain/fresh")).await.expect(400);
    // It says what is so at the very instant.
    app.put("/v1/test-clock", json!({"now": "2024-03-08T12:00:00.001Z"})).await.expect(200);
    assert_eq!(explain("user_id:ada", "fresh").await["member"], false);
}
