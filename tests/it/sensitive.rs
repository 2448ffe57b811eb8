//! Sensitive data through HTTP: it does not come in, what was found is counted, and the space says what becomes of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};
use crate::harness::people::{PROFILES, People};

const SENSITIVE: &str = "/v1/spaces/default/sensitive-data";
const CARD: &str = "4111 1111 1111 1111";

async fn set(app: &TestApp, change: Value) -> Value {
    app.patch(&format!("{SENSITIVE}/settings"), change).await.expect(200).json
}

async fn findings(app: &TestApp) -> Vec<String> {
    let found = app.get(&format!("{SENSITIVE}/findings")).await.expect(200).json;
    let word = |f: &Value| {
        assert!(f["source"].as_str().unwrap().starts_with("src_"), "{f}");
        let text = |name: &str| f[name].as_str().unwrap().to_owned();
        format!("{} {} {} {}", text("what"), text("path"), text("action"), f["occurrences"])
    };
    found["data"].as_array().unwrap().iter().map(word).collect()
}

/// Everything an operator sees of a user, and of what was refused.
async fn all_of(app: &TestApp, user: &str, offset: u64) -> String {
    let mut all = String::new();
    for what in ["traits?limit=200&", "events?", "external_ids?", "identity?", "metadata?"] {
        let path = format!("{PROFILES}/user_id:{user}/{what}min_offset={offset}");
        all += &app.get(&path).await.text;
    }
    all + &app.get("/v1/spaces/default/rejected-events").await.expect(200).text
}

#[tokio::test]
async fn by_default_what_must_not_be_sent_is_not_stored() {
    let app = TestApp::start().await;
    let batch = json!({
        "context": {"traits": {"ssn": "536-90-4399"}, "app": {"name": "shop"}},
        "batch": [
            {"type": "identify", "userId": "u", "traits": {"password": "hunter2", "plan": "pro", "religion": "none of yours"}},
            {"type": "track", "userId": "u", "event": "Paid", "properties": {"note": format!("with {CARD}"), "total": 5}},
            {"type": "track", "userId": "u", "event": "Paid", "properties": {"note": format!("again {CARD}"), "card_number": 4_111_111_111_111_111_u64}},
        ],
    });
    let offset = app.track("/v1/batch", batch).await.expect(200).offset();
    let seen = all_of(&app, "u", offset).await;
    for secret in ["hunter2", "536-90-4399", "4111", "none of yours"] {
        assert!(!seen.contains(secret), "{secret}: {seen}");
    }
    for kept in ["pro", "with ************1111", "\"name\":\"shop\""] {
        assert!(seen.contains(kept), "{kept}: {seen}");
    }
    assert_eq!(
        findings(&app).await,
        [
            "card_number properties.note mask 2",
            "card_number properties.card_number mask 1",
            "national_id context.traits.ssn drop 1",
            "secret traits.password drop 1",
            "special_category traits.religion drop 1",
        ]
    );
    let text = app.get(&format!("{SENSITIVE}/findings?limit=2")).await.expect(200).json;
    assert_eq!((text["data"].as_array().unwrap().len(), &text["cursor"]["has_more"]), (2, &json!(true)));
    let next = format!("{SENSITIVE}/findings?cursor={}", text["cursor"]["next"].as_str().unwrap());
    assert_eq!(app.get(&next).await.expect(200).json["data"].as_array().unwrap().len(), 3);
    let metrics = app.get("/metrics").await.text;
    assert!(
        metrics.contains(r#"personas_ingest_sensitive_total{what="secret",action="drop"} 1"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_space_says_what_becomes_of_it_and_a_restart_keeps_that() {
    let app = TestApp::start().await;
    let before = app.get(&format!("{SENSITIVE}/settings")).await.expect(200).json;
    assert_eq!((&before["version"], &before["actions"]["card_number"]), (&json!(0), &json!("mask")));
    let patterns = json!([{"name": "staff", "key": "^staff_", "value": null, "action": "drop"}]);
    let actions = json!({"card_number": "reject", "secret": "hash", "health": "allow"});
    let after = set(&app, json!({"version": 0, "actions": actions, "patterns": patterns})).await;
    assert_eq!((&after["version"], &after["patterns"]), (&json!(1), &patterns));
    assert_eq!(after["actions"]["iban"], "mask", "what is not named stays");
    let TestApp { running, db, .. } = app;
    running.stop(Duration::ZERO).await.unwrap();
    let app = Wish::default().start_on(db).await;
    assert_eq!(app.get(&format!("{SENSITIVE}/settings")).await.expect(200).json, after);

    let call = |user: &str, traits: Value| json!({"userId": user, "traits": traits, "messageId": format!("m-{user}")});
    let refused = app.track("/v1/identify", call("u1", json!({"note": CARD}))).await.expect(400).json;
    assert_eq!(refused["code"], "sensitive_data", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("traits.note"), "{refused}");
    let listed = app.get("/v1/spaces/default/rejected-events").await.expect(200);
    assert_eq!(listed.json["data"][0]["message_id"], "m-u1");
    let listed = listed.text;
    assert!(listed.contains("************1111") && !listed.contains(CARD), "{listed}");
    let traits = json!({"password": "hunter2", "diagnosis": "flu", "staff_no": 7});
    app.track("/v1/identify", call("u2", traits.clone())).await.expect(200);
    let offset = app.track("/v1/identify", call("u3", traits)).await.expect(200).offset();
    let read = async |user: &str| {
        let path = format!("{PROFILES}/user_id:{user}/traits?min_offset={offset}");
        app.get(&path).await.expect(200).json["traits"].clone()
    };
    let (two, three) = (read("u2").await, read("u3").await);
    assert_eq!((&two, &two["diagnosis"], two.get("staff_no")), (&three, &json!("flu"), None));
    assert!(two["password"].as_str().unwrap().starts_with("hmac:"), "{two}");
    assert_eq!(
        findings(&app).await,
        ["secret traits.password hash 2", "staff traits.staff_no drop 2", "card_number traits.note reject 1"]
    );
}

#[tokio::test]
async fn what_is_refused_for_another_reason_is_not_listed_with_it_either() {
    let app = TestApp::start().await;
    let bodies = [
        ("/v1/track", json!({"properties": {"password": "hunter2", "note": CARD}}).to_string()),
        (
            "/v1/track",
            format!(r#"{{"userId":"u","event":"E","properties":{{"password":"hunter2","note":"{CARD}""#),
        ),
        ("/v1/batch", format!(r#"{{"batch":"{CARD}","password":"hunter2"}}"#)),
        ("/v1/track", format!("password=hunter2&card={CARD}")),
        ("/v1/track", format!("{} 4111111111111111", "x".repeat(4_085))),
    ];
    for (path, body) in bodies {
        app.track(path, body.clone()).await.expect(400);
    }
    let listed = app.get("/v1/spaces/default/rejected-events").await.expect(200);
    assert_eq!(listed.json["data"].as_array().unwrap().len(), 5);
    for secret in ["4111", CARD] {
        assert!(!listed.text.contains(secret), "{}", listed.text);
    }
    // A form is not taken apart: a password in it is text like any other.
    assert_eq!(listed.text.matches("hunter2").count(), 1, "{}", listed.text);
}

#[tokio::test]
async fn what_is_taken_apart_by_escapes_is_put_together_first() {
    let app = TestApp::start().await;
    let batch = r#"{"integrations":{"CRM":{"password":"hunter2"}},"batch":[{"type":"identify","userId":"u","traits":
        {"note":"4111\u0000111111111111","pass\u0000word":"hunter2","other":"\ud8004111 1111 1111 \u0031111"}}]}"#;
    let batch = batch.replace("\\\\", "\\");
    let offset = app.track("/v1/batch", batch).await.expect(200).offset();
    let seen = all_of(&app, "u", offset).await;
    for secret in ["hunter2", "4111"] {
        assert!(!seen.contains(secret), "{secret}: {seen}");
    }
    assert_eq!(findings(&app).await.len(), 4);
}

#[tokio::test]
async fn a_masked_value_makes_nobody_the_same() {
    let mut people = People::start().await;
    people.set(json!({"type": "card", "keys": ["card_number"]})).await;
    for user in ["u1", "u2"] {
        let card = if user == "u1" { "4111111111111111" } else { "4012888888881111" };
        people.send("/v1/identify", json!({"userId": user, "traits": {"card_number": card}})).await;
    }
    people.expect_ids("user_id:u1", "user_id=u1").await;
    people.expect_ids("user_id:u2", "user_id=u2").await;
    assert_eq!(people.traits("user_id:u1").await["card_number"], "************1111");
    people.endures().await;
}

#[tokio::test]
async fn a_call_can_be_tried() {
    let app = TestApp::start().await;
    let call = json!({"type": "track", "userId": "u", "event": "E", "properties": {"cvv": 123, "iban": "DE89370400440532013000"}});
    let tried = app.post(&format!("{SENSITIVE}/try"), call).await.expect(200).json;
    assert_eq!(tried["call"]["properties"], json!({"iban": "******************3000"}));
    assert_eq!((&tried["rejected"], tried["findings"].as_array().unwrap().len()), (&json!(false), 2));
    set(&app, json!({"actions": {"secret": "reject"}})).await;
    let tried = app.post(&format!("{SENSITIVE}/try"), json!({"traits": {"cvv": 123}})).await.expect(200).json;
    assert_eq!((&tried["rejected"], &tried["call"]), (&json!(true), &json!({"traits": {"cvv": "***"}})));
    assert_eq!(findings(&app).await, [] as [&str; 0], "nothing was counted");
    for no_call in [json!(null), json!([]), json!("track")] {
        app.post(&format!("{SENSITIVE}/try"), no_call).await.expect(422);
    }
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_with_their_place() {
    let app = TestApp::start().await;
    let pattern = |name: &str, value: &str| json!({"name": name, "value": value, "action": "mask"});
    let long = "a".repeat(257);
    for (change, field) in [
        (json!({}), "actions"),
        (json!({"actions": {"phone": "drop"}}), "actions"),
        (json!({"actions": {"secret": "burn"}}), "actions.secret"),
        (json!({"patterns": [pattern("a", "x"), pattern("a", "y")]}), "patterns[1].name"),
        (json!({"patterns": [pattern("iban", "x")]}), "patterns[0].name"),
        (json!({"patterns": [pattern("", "x")]}), "patterns[0].name"),
        (json!({"patterns": [pattern("a", "(")]}), "patterns[0]"),
        (json!({"patterns": [pattern("a", "x*")]}), "patterns[0]"),
        (json!({"patterns": [pattern("a", &long)]}), "patterns[0]"),
        (json!({"patterns": [{"name": "a", "action": "mask"}]}), "patterns[0]"),
        (json!({"patterns": [{"name": "a", "key": "x", "action": "burn"}]}), "patterns[0].action"),
        (json!({"patterns": (0..101).map(|n| pattern(&n.to_string(), "x")).collect::<Vec<_>>()}), "patterns"),
    ] {
        let answer = app.patch(&format!("{SENSITIVE}/settings"), change.clone()).await;
        let answer = answer.expect_problem(422, "invalid");
        assert_eq!(answer.json["field"], field, "{change}: {}", answer.text);
    }
    let stale = json!({"version": 3, "actions": {"secret": "mask"}});
    app.patch(&format!("{SENSITIVE}/settings"), stale).await.expect_problem(409, "stale_version");
    assert_eq!(app.get(&format!("{SENSITIVE}/settings")).await.json["version"], 0);
}

#[tokio::test]
async fn places_are_bounded() {
    let app = TestApp::start().await;
    let traits = |from: usize| -> Value {
        (from..from + 250)
            .map(|n| (format!("k{n}x"), json!({"password": "p"})))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    for part in 0..5 {
        app.track("/v1/identify", json!({"userId": "u", "traits": traits(part * 250)})).await.expect(200);
    }
    let found = app.get(&format!("{SENSITIVE}/findings?limit=1000")).await.expect(200).json;
    let rows = found["data"].as_array().unwrap();
    assert_eq!((&rows[0]["path"], &rows[0]["occurrences"]), (&json!("*"), &json!(250)), "{}", rows[0]);
    let all: i64 = rows.iter().map(|row| row["occurrences"].as_i64().unwrap()).sum();
    assert_eq!(all, 1_249, "all but the last place, which is on the next page");
}
