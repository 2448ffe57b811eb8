//! JSON that breaks parsers and databases: refused by its event, or mended, and read back as what it was
//! (decisions T11).

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{TestApp, WRITE_KEY, Wish, send};

const USERS: &str = "/v1/spaces/default/collections/users/profiles";

/// Sends the body of a track call alone and as the one item of a batch.
async fn take(app: &TestApp, body: &str) -> u64 {
    app.track("/v1/track", body).await.expect(200);
    let item = body.trim_start_matches('\u{feff}').replacen('{', r#"{"type":"track","#, 1);
    let answer = app.track("/v1/batch", format!(r#"{{"batch":[{item}]}}"#)).await.expect(200);
    assert_eq!(answer.text, r#"{"success":true}"#, "{body}");
    answer.offset()
}

/// The two events of a user, as text: numbers keep their digits.
async fn events_of(app: &TestApp, user: &str, offset: u64) -> String {
    let path = format!("{USERS}/user_id:{user}/events?min_offset={offset}");
    let answer = app.get(&path).await.expect(200);
    assert_eq!(answer.json["data"].as_array().unwrap().len(), 2, "{}", answer.text);
    answer.text
}

#[tokio::test]
async fn what_is_mended_reads_back_as_it_was_meant() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    let cases = [
        // As sent (the part that matters), as read back.
        (r#""a":"x\u0000y""#, r#""a":"xy""#),
        (r#""b\u0000c":1"#, r#""bc":1"#),
        (r#""a":"x\\u0000y""#, r#""a":"x\\u0000y""#),
        (r#""a":"\ud83d""#, r#""a":"\ufffd""#),
        (r#""a":"\udc00x""#, r#""a":"\ufffdx""#),
        (r#""a":"\ude00\ud83d""#, r#""a":"\ufffd\ufffd""#),
        (r#""a":"\ud83d\ude00\u00e9""#, r#""a":"\ud83d\ude00\u00e9""#),
        (r#""a":9007199254740993"#, r#""a":9007199254740993"#),
        (r#""a":18446744073709551617"#, r#""a":18446744073709551617"#),
        (r#""a":0.1000000000000000055511151231257827"#, r#""a":0.1000000000000000055511151231257827"#),
        (r#""a":-0,"b":-0.0,"c":1e-300,"d":1E308"#, r#""a":-0,"b":-0.0,"c":1e-300,"d":1E308"#),
        (r#""a":NaN,"b":[Infinity,-Infinity]"#, r#""a":null,"b":[null,null]"#),
    ];
    for (n, (sent, kept)) in cases.iter().enumerate() {
        let user = format!("u{n}");
        let body = format!(r#"{{"userId":"{user}","event":"E","properties":{{{sent}}}}}"#);
        let offset = take(&app, &body).await;
        let text = events_of(&app, &user, offset).await;
        assert_eq!(text.matches(&format!(r#""properties":{{{kept}}}"#)).count(), 2, "{sent}: {text}");
    }
    // Names and ids are mended, too; an order mark is none of the body.
    let body = "\u{feff}{\"userId\":\"a\\u0000b\",\"event\":\"\\ud800 E\\u0000\"}";
    let offset = take(&app, body).await;
    let events: Value = serde_json::from_str(&events_of(&app, "ab", offset).await).unwrap();
    assert_eq!(events["data"][0]["event"], "\u{fffd} E");
    let metrics = app.get("/metrics").await.expect(200).text;
    assert!(metrics.contains(r#"personas_ingest_mended_total{what="event"} "#), "{metrics}");
    assert!(metrics.contains(r#"personas_ingest_mended_total{what="body"} "#), "{metrics}");
}

#[tokio::test]
async fn of_equal_keys_the_last_one_counts_everywhere() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    app.make_live("computed-traits", "total", "event('E').sum(property('a'))").await;
    app.make_live("computed-traits", "second", "event('E').where(property('p.b') = 2).count()").await;
    let body = r#"{"userId":"first","userId":"last","event":"F","event":"E",
        "properties":{"a":1,"a":2.5,"p":{"b":1,"b":2}}}"#;
    let offset = take(&app, body).await;
    app.get(&format!("{USERS}/user_id:first/traits?min_offset={offset}")).await.expect(404);
    let traits = app.get(&format!("{USERS}/user_id:last/traits?min_offset={offset}")).await.expect(200);
    assert_eq!(traits.json["traits"], json!({"total": 5, "second": 2}));
    let identify = r#"{"userId":"last","traits":{"plan":"free","plan":"pro"}}"#;
    let offset = app.track("/v1/identify", identify).await.expect(200).offset();
    let traits =
        app.get(&format!("{USERS}/user_id:last/traits?min_offset={offset}&class=custom")).await.expect(200);
    assert_eq!(traits.json["traits"]["plan"], "pro");
}

#[tokio::test]
async fn an_id_sent_as_a_number_is_its_digits() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    let ids = ["18446744073709551616", "18446744073709551617", "9007199254740993", "9007199254740992", "7"];
    for id in ids {
        let offset = take(&app, &format!(r#"{{"userId":{id},"event":"E"}}"#)).await;
        events_of(&app, id, offset).await;
    }
    let pipeline = app.get("/v1/spaces/default/pipeline").await.expect(200).json;
    assert_eq!(pipeline["profiles"]["users"], ids.len(), "each is a person of its own");
    // The same digits as text are the same person.
    let offset = app.track("/v1/track", r#"{"userId":"7","event":"E"}"#).await.expect(200).offset();
    let path = format!("{USERS}/user_id:7/events?min_offset={offset}");
    assert_eq!(app.get(&path).await.expect(200).json["data"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let app = TestApp::start().await;
    for body in [&b"{\"userId\":\"\xff\"}"[..], b"{\"userId\":\"u\"} x", b"\xef\xbb", b"null", b"\"x\""] {
        let request = app.request(Method::POST, "/v1/identify").basic_auth(WRITE_KEY, Some(""));
        let answer = send(request.body(body.to_vec())).await.expect(400);
        assert_eq!(answer.json["code"], "bad_request");
    }
    let deep = "[".repeat(100_000);
    let answer = app.track("/v1/batch", format!(r#"{{"batch":[{deep}"#)).await.expect(400);
    assert_eq!(answer.json["code"], "bad_request");
    // Two batches in one body are not one batch and something to ignore.
    let one = json!({"batch": [{"type": "track", "userId": "u", "event": "E"}]});
    let answer = app.track("/v1/import", format!("{one}\n{one}\n")).await.expect(400);
    assert_eq!(answer.json["code"], "bad_request");
    assert!(answer.json["message"].as_str().unwrap().contains("line 2"), "{}", answer.text);
}

#[tokio::test]
async fn one_poisoned_event_does_not_harm_its_neighbours() {
    let app = TestApp::start().await;
    let digits = "9".repeat(200_000);
    for (poison, code) in [
        (r#"{"x":1e400}"#.to_owned(), "number_out_of_range"),
        (r#"{"x":1e131071}"#.to_owned(), "number_out_of_range"),
        (r#"{"x":1e-400}"#.to_owned(), "number_out_of_range"),
        (format!(r#"{{"x":{}}}"#, &digits[..41]), "number_out_of_range"),
        (format!(r#"{{"x":{digits}}}"#), "payload_too_large"),
        (format!(r#"{{"x":{}{}}}"#, "[".repeat(200), "]".repeat(200)), "json_too_deep"),
    ] {
        let good = r#"{"type":"track","userId":"u","event":"E"}"#;
        let bad = format!(r#"{{"type":"track","userId":"u","event":"E","properties":{poison}}}"#);
        let answer =
            app.track("/v1/batch", format!(r#"{{"batch":[{good},{bad},{good}]}}"#)).await.expect(200);
        assert_eq!(answer.json["accepted"], 2, "{}", answer.text);
        let rejected = &answer.json["rejected"][0];
        assert_eq!((&rejected["index"], &rejected["code"]), (&json!(1), &json!(code)));
    }
    // NaN of Python poisons a whole body, and is no reason to refuse it.
    let poisoned =
        r#"{"batch":[{"type":"track","userId":"u","event":"E","properties":{"x":NaN}},{"type":"track"}]}"#;
    let answer = app.track("/v1/batch", poisoned).await.expect(200);
    assert_eq!((&answer.json["accepted"], &answer.json["rejected"][0]["index"]), (&json!(1), &json!(1)));
}
