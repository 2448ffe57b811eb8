//! The plan of a space: when it takes events, what it says when it does not, who may change it (decisions T4).

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Answer, TestApp, WRITE_KEY, Wish, send};

const SPACE: &str = "/v1/spaces/default";
const GOOD: &str = r#"{"userId":"u","event":"Ordered"}"#;

async fn plan(app: &TestApp, change: Value) -> Value {
    app.patch(SPACE, json!({"plan": change})).await.expect(200).json["plan"].clone()
}

/// A tracking call that is refused because of the plan, with words that say why.
async fn locked(app: &TestApp, words: &str) -> Answer {
    let answer = app.track("/v1/track", GOOD).await.expect(403);
    assert_eq!((&answer.json["success"], &answer.json["code"]), (&json!(false), &json!("locked_workspace")));
    let message = answer.json["message"].as_str().unwrap();
    assert!(message.contains(words), "{message}");
    answer
}

#[tokio::test]
async fn a_new_space_is_active_without_end() {
    let app = TestApp::start().await;
    let limits = json!({"events_per_month": null, "events_per_second": null, "profiles": null, "audiences": null,
        "computed_traits": null});
    let active = json!({"state": "active", "reason": null, "starts_at": null, "ends_at": null, "export_days": 30,
        "export_ends_at": null, "purge_at": null, "collects_after_end": false, "limits": limits});
    let made = app.post("/v1/spaces", json!({"id": "acme"})).await.expect(201);
    assert_eq!(made.json["plan"], active);
    assert_eq!(app.get(SPACE).await.expect(200).json["plan"], active);
    let listed = app.get("/v1/spaces").await.expect(200);
    assert!(listed.json["data"].as_array().unwrap().iter().all(|space| space["plan"] == active));
}

#[tokio::test]
async fn a_suspended_or_ended_space_takes_no_events_and_stays_readable() {
    let app = TestApp::start().await;
    let taken = app.track("/v1/track", GOOD).await.expect(200).offset();
    for (state, words) in [("suspended", "is suspended"), ("ended", "has ended")] {
        assert_eq!(plan(&app, json!({"state": state})).await["state"], state);
        assert!(!locked(&app, words).await.headers.contains_key("retry-after"), "a retry does not help");
        app.track("/v1/batch", r#"{"batch":[]}"#).await.expect(403);
        let in_body = json!({"writeKey": WRITE_KEY, "userId": "u", "event": "E"});
        let request = app.request(Method::POST, "/v1/track").body(in_body.to_string());
        assert_eq!(send(request).await.expect(403).json["code"], "locked_workspace");
        send(app.request(Method::GET, &format!("/v1/projects/{WRITE_KEY}/settings"))).await.expect(403);

        let traits = format!("{SPACE}/collections/users/profiles/user_id:u/traits?min_offset={taken}");
        app.get(&traits).await.expect(200);
        app.get(&format!("{SPACE}/audiences")).await.expect(200);
        let report = json!({"ranges": [[taken, taken]]});
        app.track("/v1/import/report", report).await.expect(200);
        for state in ["active", "trial"] {
            plan(&app, json!({"state": state})).await;
            app.track("/v1/track", GOOD).await.expect(200);
        }
    }
    assert_eq!(app.get(&format!("{SPACE}/pipeline")).await.expect(200).json["log_end_offset"], 5);
}

#[tokio::test]
async fn an_unknown_key_and_a_disabled_source_come_first() {
    let app = TestApp::start().await;
    plan(&app, json!({"state": "suspended"})).await;
    let unknown = app.request(Method::POST, "/v1/track").bearer_auth("wk_unknown").body(GOOD);
    assert_eq!(send(unknown).await.expect(401).json["code"], "unknown_source");
    let sources = app.get(&format!("{SPACE}/sources")).await.expect(200);
    let id = sources.json["data"][0]["id"].as_str().unwrap();
    app.patch(&format!("{SPACE}/sources/{id}"), json!({"enabled": false})).await.expect(200);
    assert_eq!(app.track("/v1/track", GOOD).await.expect(403).json["code"], "source_disabled");
}

fn term(plan: &Value) -> [&str; 2] {
    ["starts_at", "ends_at"].map(|name| plan[name].as_str().unwrap())
}

#[tokio::test]
async fn a_term_begins_and_ends_by_the_clock() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    let set = plan(&app, json!({"starts_at": "2024-03-02", "ends_at": "2024-03-03T00:00:00+01:00"})).await;
    assert_eq!(set["state"], "active");
    assert_eq!(term(&set), ["2024-03-02T00:00:00.000Z", "2024-03-02T23:00:00.000Z"]);
    assert_eq!(set["purge_at"], "2024-04-01T23:00:00.000Z");
    let to = async |now: &str| app.put("/v1/test-clock", json!({"now": now})).await.expect(200);
    locked(&app, "begins at 2024-03-02T00:00:00.000Z").await;
    to("2024-03-01T23:59:59.999Z").await;
    locked(&app, "begins at").await;
    to("2024-03-02T00:00:00Z").await;
    app.track("/v1/track", GOOD).await.expect(200);
    to("2024-03-02T22:59:59.999Z").await;
    app.track("/v1/track", GOOD).await.expect(200);
    to("2024-03-02T23:00:00Z").await;
    locked(&app, "ended at 2024-03-02T23:00:00.000Z").await;
    // What is left out stays: the state alone does not bring it back, its term does.
    plan(&app, json!({"state": "trial"})).await;
    locked(&app, "ended at").await;
    let set = plan(&app, json!({"ends_at": null})).await;
    assert_eq!((&set["state"], &set["ends_at"]), (&json!("trial"), &json!(null)));
    app.track("/v1/track", GOOD).await.expect(200);
}

#[tokio::test]
async fn other_processes_know_within_a_second() {
    let one = TestApp::start().await;
    let two = one.beside().await;
    two.track("/v1/track", GOOD).await.expect(200);
    for (state, status) in [("suspended", 403), ("active", 200)] {
        plan(&one, json!({"state": state})).await;
        assert_eq!(one.track("/v1/track", GOOD).await.status, status, "at once where it was changed");
        let deadline = Instant::now() + Duration::from_secs(5);
        while two.track("/v1/track", GOOD).await.status != status {
            assert!(Instant::now() < deadline, "{state} is not known elsewhere");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_plan_that_cannot_be_is_refused_and_changes_nothing() {
    let app = TestApp::start().await;
    let before = plan(&app, json!({"starts_at": "2024-01-01", "ends_at": "2030-01-01"})).await;
    for (change, field) in [
        (json!({}), "plan"),
        (json!({"state": "paused"}), "plan.state"),
        (json!({"starts_at": "soon"}), "plan.starts_at"),
        (json!({"starts_at": "1969-12-31"}), "plan.starts_at"),
        (json!({"ends_at": "+262000-01-01"}), "plan.ends_at"),
        (json!({"ends_at": "2024-01-01"}), "plan.ends_at"),
        (json!({"starts_at": "2031-01-01"}), "plan.ends_at"),
    ] {
        let answer = app.patch(SPACE, json!({"plan": change})).await.expect_problem(422, "invalid");
        assert_eq!(answer.json["field"], field, "{}", answer.text);
    }
    for body in [
        json!({}),
        json!({"plan": null}),
        json!({"plan": {"state": null}}),
        json!({"plan": {"state": "ended", "limits": {}}}),
        json!({"plan": {"state": "ended"}, "id": "other"}),
    ] {
        app.patch(SPACE, body).await.expect_problem(422, "invalid");
    }
    assert_eq!(app.get(SPACE).await.expect(200).json["plan"], before);
}
