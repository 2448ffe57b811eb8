//! Lists: audiences whose members are uploaded.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Answer, TOKEN, TestApp, Wish, send};
use crate::harness::destinations::sending;
use crate::harness::receiver::Receiver;

const SPACE: &str = "/v1/spaces/default";
const NOW: &str = "2024-03-01T12:00:00.000Z";

async fn upload(app: &TestApp, list: &str, kind: &str, rows: &str) -> Answer {
    let request = app.request(Method::POST, &format!("{SPACE}/audiences/{list}")).bearer_auth(TOKEN);
    send(request.header("content-type", kind).body(rows.to_owned())).await
}

async fn start() -> TestApp {
    start_as(Wish::default()).await
}

async fn start_as(wish: Wish) -> TestApp {
    let app = wish.at(NOW).start().await;
    let batch = json!({"batch": [
        {"type": "identify", "userId": "ada", "traits": {"email": "ada@example.com", "plan": "pro"}},
        {"type": "identify", "userId": "bob", "traits": {"email": "bob@example.com"}},
        {"type": "track", "anonymousId": "a1", "event": "Seen"},
    ]});
    app.track("/v1/batch", batch).await.expect(200);
    app.make_live_from("audiences", "vip", json!({"key": "vip", "definition": {"list": true}})).await;
    app.make_live("audiences", "vip_pros", "audience('vip') AND trait('plan') = 'pro'").await;
    app
}

async fn sizes(app: &TestApp) -> [i64; 2] {
    let sizes = app.get(&format!("{SPACE}/audiences/sizes")).await.expect(200).json;
    [0, 1].map(|n| sizes["data"][n]["size"].as_i64().unwrap())
}

async fn traits(app: &TestApp, user: &str, offset: u64) -> Value {
    let path = format!("{SPACE}/collections/users/profiles/user_id:{user}/traits?min_offset={offset}");
    app.get(&path).await.expect(200).json["traits"].clone()
}

#[tokio::test]
async fn rows_become_members_and_every_mistake_is_told() {
    let app = start().await;
    let rows = "Name,email,user_id\n\"Ada, A\",ADA@example.com,\nBob,,bob\nEve,eve@example.com,eve\nNobody,,\nx,y\n,,ada\n";
    let done = upload(&app, "vip/members", "text/csv", rows).await.expect(200).json;
    let counts = json!({"rows": 6, "profiles": 2, "removed": 0, "failed": 3});
    for (name, count) in counts.as_object().unwrap() {
        assert_eq!(&done[name], count, "{name}: {done}");
    }
    assert_eq!(
        done["errors"][0],
        json!({"row": 3, "message": "no profile has email:eve@example.com or user_id:eve"})
    );
    assert_eq!(done["errors"][1]["message"], "the row has no identifier of a type this space knows");
    assert!(done["errors"][2]["message"].as_str().unwrap().contains("previous record"), "{done}");
    assert_eq!(sizes(&app).await, [2, 1], "and whoever refers to it");
    assert_eq!(
        traits(&app, "ada", 0).await,
        json!({"email": "ada@example.com", "plan": "pro", "vip": true, "vip_pros": true})
    );
    let transitions = app.get(&format!("{SPACE}/audiences/vip/transitions")).await.expect(200).json;
    assert_eq!(transitions["data"].as_array().unwrap().len(), 2, "once each");
    // The same again changes nothing.
    upload(&app, "vip/members", "text/csv", rows).await.expect(200);
    let again = app.get(&format!("{SPACE}/audiences/vip/transitions")).await.expect(200).json;
    assert_eq!(again["data"], transitions["data"]);
}

#[tokio::test]
async fn a_list_is_added_to_taken_from_and_replaced() {
    let app = start().await;
    let rows = "{\"user_id\":\"ada\"}\n\"anonymous_id:a1\"\n\n[1]\n\"ada\"\n";
    let done = upload(&app, "vip/members", "application/x-ndjson", rows).await.expect(200).json;
    assert_eq!((&done["profiles"], &done["failed"]), (&json!(2), &json!(2)), "{done}");
    assert_eq!(sizes(&app).await[0], 2, "whoever is anonymous is meant, too");
    let done =
        upload(&app, "vip/members?mode=replace", "text/csv", "user_id\nbob\nada\n").await.expect(200).json;
    assert_eq!((&done["profiles"], &done["removed"]), (&json!(2), &json!(1)));
    assert_eq!(sizes(&app).await, [2, 1]);
    let done = upload(&app, "vip/members?mode=remove", "text/csv", "user_id\nada\n").await.expect(200).json;
    assert_eq!((&done["profiles"], &done["removed"]), (&json!(1), &json!(0)));
    assert_eq!(sizes(&app).await, [1, 0]);
    assert_eq!(traits(&app, "ada", 0).await["vip"], false);
    // What was sent as a file comes back as one.
    let file =
        app.get(&format!("{SPACE}/audiences/vip/members?format=csv&include=email")).await.expect(200).text;
    upload(&app, "vip/members?mode=replace", "text/csv", "user_id\n").await.expect(200);
    assert_eq!(sizes(&app).await, [0, 0]);
    let done = upload(&app, "vip/members", "text/csv", &file).await.expect(200).json;
    assert_eq!((&done["profiles"], &done["failed"]), (&json!(1), &json!(0)), "{done}");
    // A restart and a merge keep it.
    app.running.stop(std::time::Duration::ZERO).await.unwrap();
    let app = Wish::default().at(NOW).start_on(app.db).await;
    let merge = json!({"userId": "bob", "anonymousId": "a1"});
    let offset = app.track("/v1/identify", merge).await.expect(200).offset();
    assert_eq!(traits(&app, "bob", offset).await["vip"], true);
    assert_eq!(sizes(&app).await[0], 1);
}

#[tokio::test]
async fn an_id_sent_as_a_number_is_its_digits() {
    let app = start().await;
    let ids = ["18446744073709551616", "18446744073709551617", "7"];
    let call = |id: &str| format!(r#"{{"type":"track","userId":{id},"event":"Seen"}}"#);
    let calls: Vec<String> = ids.iter().map(|id| call(id)).collect();
    let offset =
        app.track("/v1/batch", format!(r#"{{"batch":[{}]}}"#, calls.join(","))).await.expect(200).offset();
    traits(&app, "7", offset).await;
    let rows = "{\"user_id\":18446744073709551617}\n{\"user_id\":7, \"n\":null}\n";
    let done = upload(&app, "vip/members", "application/x-ndjson", rows).await.expect(200).json;
    assert_eq!((&done["profiles"], &done["failed"]), (&json!(2), &json!(0)), "{done}");
    for (id, expected) in ids.iter().zip([json!({}), json!({"vip": true}), json!({"vip": true})]) {
        assert_eq!(traits(&app, id, offset).await, expected, "{id}");
    }
}

#[tokio::test]
async fn what_is_no_list_or_no_rows_is_refused() {
    let app = start().await;
    let refused =
        upload(&app, "vip_pros/members", "text/csv", "user_id\nada\n").await.expect_problem(422, "invalid");
    assert!(refused.json["detail"].as_str().unwrap().contains("\"list\": true"), "{}", refused.text);
    upload(&app, "nothing/members", "text/csv", "user_id\nada\n").await.expect_problem(404, "not_found");
    for rows in ["", "user_id\n", "user_id\n\n"] {
        upload(&app, "vip/members", "text/csv", rows).await.expect_problem(422, "invalid");
    }
    upload(&app, "vip/members?mode=merge", "text/csv", "user_id\nada\n")
        .await
        .expect_problem(400, "bad_request");
    let large = "user_id\n".to_owned() + &"x".repeat(5 << 20);
    upload(&app, "vip/members", "text/csv", &large).await.expect_problem(413, "payload_too_large");
    let list = format!("{SPACE}/audiences/vip");
    let made = app.get(&list).await.expect(200).json;
    assert_eq!(made["definition"], json!({"type": "users", "list": true}));
    assert_eq!(
        app.get(&format!("{list}/versions")).await.expect(200).json["data"][0]["definition"],
        made["definition"]
    );
    app.patch(&list, json!({"name": "Very important"})).await.expect(200);
    app.patch(&list, json!({"definition": {"query": "everyone()"}})).await.expect_problem(422, "invalid");
    app.post(&format!("{list}/clone"), json!({"key": "vip2"})).await.expect_problem(422, "invalid");
    let both = json!({"key": "both", "definition": {"list": true, "query": "everyone()"}});
    app.post(&format!("{SPACE}/audiences"), both).await.expect_problem(422, "invalid");
    let value = json!({"key": "value", "definition": {"list": true}});
    app.post(&format!("{SPACE}/computed-traits"), value).await.expect_problem(422, "invalid");
    let direct = json!({"key": "direct", "definition": {"query": "trait('$list:x') = true"}});
    app.post(&format!("{SPACE}/audiences"), direct).await.expect_problem(422, "invalid");
    // Nobody puts himself onto a list.
    let id = made["id"].as_str().unwrap().trim_start_matches("aud_");
    let mut forged = json!({"userId": "bob"});
    forged["traits"] = json!({ format!("$list:{id}"): true });
    let offset = app.track("/v1/identify", forged).await.expect(200).offset();
    assert_eq!(traits(&app, "bob", offset).await, json!({"email": "bob@example.com"}));
    assert_eq!(sizes(&app).await, [0, 0]);
}

#[tokio::test]
async fn a_full_sync_of_traits_says_nothing_of_lists() {
    let (app, receiver) = (start_as(sending()).await, Receiver::start().await);
    upload(&app, "vip/members", "text/csv", "user_id\nada\n").await.expect(200);
    assert_eq!(sizes(&app).await, [1, 1]);
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    app.subscribe(&hook, json!({"subject": "custom_traits"})).await;
    let taken = receiver.wait_taken(2).await;
    let told = |user: &str| taken.iter().find(|event| event["userId"] == user).unwrap()["traits"].clone();
    assert_eq!(told("ada"), json!({"email": "ada@example.com", "plan": "pro"}));
    assert_eq!(told("bob"), json!({"email": "bob@example.com"}));
}
