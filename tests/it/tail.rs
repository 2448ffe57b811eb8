//! Events as they come in, by server-sent events: all of them, in order, filtered, masked, and never without end.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::harness::app::{TOKEN, TestApp, Wish};

const TAIL: &str = "/v1/spaces/default/events/tail";

/// Somebody who listens.
struct Listener {
    response: Response,
    text: String,
}

/// One message: its kind, its id and what it says.
type Message = (String, String, Value);

impl Listener {
    async fn start(app: &TestApp, token: &str, query: &str, last: Option<u64>) -> Self {
        let mut request = app.request(Method::GET, &format!("{TAIL}?{query}")).bearer_auth(token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { response, text: String::new() }
    }

    /// The next message that says something; none when the answer is over.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    message.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
                };
                let read = (field("event: "), field("id: "), field("data: "));
                self.text = rest.to_owned();
                if !read.0.is_empty() {
                    return Some((read.0, read.1, serde_json::from_str(&read.2).unwrap()));
                }
                continue;
            }
            let piece = tokio::time::timeout(Duration::from_secs(20), self.response.chunk()).await;
            let piece = piece.expect("nothing comes").unwrap()?;
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    async fn event(&mut self) -> Value {
        let (kind, id, said) = self.next().await.unwrap();
        assert_eq!((kind.as_str(), id), ("event", said["offset"].to_string()), "{said}");
        said
    }
}

async fn track(app: &TestApp, user: &str, event: &str) -> u64 {
    let call = json!({"userId": user, "event": event, "properties": {"of": user}});
    app.track("/v1/track", call).await.expect(200).offset()
}

#[tokio::test]
async fn what_comes_in_is_told_in_order_and_filtered() {
    let app = TestApp::start().await;
    let before = track(&app, "u0", "Before").await;
    let mut all = Listener::start(&app, TOKEN, "last=1", None).await;
    let mut none_before = Listener::start(&app, TOKEN, "", None).await;
    let mut of_one = Listener::start(&app, TOKEN, "id=u2&type=track&name=Second", None).await;
    let sources = app.get("/v1/spaces/default/sources").await.expect(200).json;
    let source = sources["data"][0]["id"].as_str().unwrap().to_owned();
    let mut of_source = Listener::start(&app, TOKEN, &format!("source={source}&last=200"), None).await;
    let first = track(&app, "u1", "First").await;
    app.track("/v1/identify", json!({"userId": "u2", "traits": {"a": 1}})).await.expect(200);
    let second = track(&app, "u2", "Second").await;
    let told = [all.event().await, all.event().await, all.event().await, all.event().await];
    let names: Vec<&str> = told.iter().map(|event| event["event"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["Before", "First", "", "Second"]);
    assert_eq!(
        (&told[0]["offset"], &told[1]["offset"], &told[3]["offset"]),
        (&json!(before), &json!(first), &json!(second))
    );
    assert_eq!((&told[1]["properties"], &told[2]["traits"]), (&json!({"of": "u1"}), &json!({"a": 1})));
    assert_eq!((&told[1]["source_id"], &told[1]["external_ids"][0]["id"]), (&json!(source), &json!("u1")));
    assert_eq!(none_before.event().await["offset"], first);
    assert_eq!(of_one.event().await["offset"], second);
    assert_eq!(of_source.event().await["offset"], before);
    let mut on = Listener::start(&app, TOKEN, "last=200", Some(first)).await;
    assert_eq!(on.event().await["type"], "identify", "it goes on where it was");
    let wrong = app.get(&format!("{TAIL}?type=click")).await.expect_problem(400, "bad_request");
    assert_eq!(wrong.json["field"], "type");
}

#[tokio::test]
async fn whoever_falls_behind_is_told_how_many_were_passed_over() {
    let app = TestApp::start().await;
    let mark = track(&app, "u0", "Before").await;
    let batch = |from: usize| -> Vec<Value> {
        (from..from + 2_100)
            .map(|n| json!({"type": "track", "userId": "u", "event": format!("E{n}")}))
            .collect()
    };
    app.track("/v1/batch", json!({"batch": batch(0)})).await.expect(200);
    let end = track(&app, "u0", "After").await;
    let mut late = Listener::start(&app, TOKEN, "", Some(mark)).await;
    let (kind, _, said) = late.next().await.unwrap();
    assert_eq!((kind.as_str(), &said), ("passed_over", &json!({"events": end - mark - 200})));
    let mut last = 0;
    for _ in 0..200 {
        last = late.event().await["offset"].as_u64().unwrap();
    }
    assert_eq!(last, end);
}

#[tokio::test]
async fn it_shows_what_the_token_may_see_for_as_long_as_it_may() {
    let app = Wish::default().start().await;
    let make = async |role: &str| {
        app.post("/v1/spaces/default/tokens", json!({"name": "t", "role": role})).await.expect(201).json
    };
    let viewer = make("viewer").await;
    let mut masked = Listener::start(&app, viewer["token"].as_str().unwrap(), "", None).await;
    let call = json!({"userId": "canary", "event": "Seen", "properties": {"of": "canary"}, "context": {"ip": "canary"}});
    app.track("/v1/track", call).await.expect(200);
    let event = masked.event().await;
    assert!(!event.to_string().contains("canary"), "{event}");
    assert_eq!((&event["properties"]["of"], &event["event"]), (&json!("***"), &json!("Seen")));
    app.delete(&format!("/v1/spaces/default/tokens/{}", viewer["id"].as_str().unwrap())).await.expect(204);
    assert_eq!(masked.next().await, None, "who may not see it any more hears nothing more");
    let mut open = Vec::new();
    for _ in 0..32 {
        open.push(Listener::start(&app, TOKEN, "", None).await);
    }
    app.get(TAIL).await.expect_problem(503, "overloaded");
    let mut last = open.pop().unwrap();
    drop(open);
    app.running.drain();
    assert_eq!(last.next().await, None, "a process that stops does not wait for those who listen");
}
