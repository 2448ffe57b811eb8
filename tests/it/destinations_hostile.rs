//! Receivers that fail in every way: everything arrives at least once, in order of each profile, and nobody else waits.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::app::TestApp;
use crate::harness::destinations::{DELIVERIES, DESTINATIONS, sending};
use crate::harness::receiver::{Receiver, Reply};

const BUYERS: &str = "event('Bought').count() >= 1";
const COUNT: &str = "event('Bought').count()";

/// A service with a computed trait that changes with every event, and a webhook that wants it.
async fn counting(app: &TestApp, receiver: &Receiver, more: Value) -> Value {
    app.make_live("computed-traits", "purchases", COUNT).await;
    let hook = app.make_webhook("Hook", receiver, more).await;
    app.subscribe(&hook, json!({"subject": "computed_trait", "key": "purchases"})).await;
    hook
}

async fn buy(app: &TestApp, users: usize, times: usize) {
    let call = |n: usize| json!({"type": "track", "event": "Bought", "userId": format!("u{}", n % users)});
    app.processed("/v1/batch", json!({"batch": (0..users * times).map(call).collect::<Vec<_>>()})).await;
}

/// The values each user was told, in order, each repetition once.
fn told(events: &[Value]) -> BTreeMap<String, Vec<i64>> {
    let mut told: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for event in events {
        let values = told.entry(event["userId"].as_str().unwrap().to_owned()).or_default();
        let value = event["traits"]["purchases"].as_i64().unwrap();
        if values.last() != Some(&value) {
            values.push(value);
        }
    }
    told
}

/// Moves the clock on until everything is sent.
async fn wait_out(app: &TestApp, hook: &Value) -> Value {
    let mut now = chrono::DateTime::parse_from_rfc3339("2024-03-01T12:00:00Z").unwrap();
    for _ in 0..600 {
        let seen = app.destination(hook).await;
        if seen["deliveries"]["queued"] == 0 {
            return seen;
        }
        now += chrono::TimeDelta::seconds(20);
        app.put("/v1/test-clock", json!({"now": now.to_rfc3339()})).await.expect(200);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    panic!("not everything is sent: {}", app.destination(hook).await);
}

#[tokio::test]
async fn whatever_a_receiver_does_everything_arrives_in_order_of_each_profile() {
    let app = sending().at("2024-03-01T12:00:00Z").start().await;
    let receiver = Receiver::start_with(|_, n| match n % 11 {
        1 | 4 => Reply::Status(500),
        2 => Reply::With(429, "retry-after: 3\r\n"),
        6 => Reply::Reset,
        7 => Reply::Endless,
        9 => Reply::Status(503),
        _ => Reply::Status(200),
    })
    .await;
    let hook = counting(&app, &receiver, json!({})).await;
    buy(&app, 20, 10).await;
    wait_out(&app, &hook).await;
    let told = told(&receiver.taken());
    assert_eq!(told.len(), 20);
    for (user, values) in told {
        assert_eq!(values, (1..=10).collect::<Vec<i64>>(), "{user}");
    }
    let seen = app.destination(&hook).await["deliveries"].clone();
    assert_eq!(
        (&seen["succeeded"], &seen["dead"], &seen["oldest_pending_at"]),
        (&json!(200), &json!(0), &Value::Null)
    );
    let failed = seen["failed"].as_object().unwrap();
    for code in ["500", "429", "503", "ECONNRESET"] {
        assert!(failed.contains_key(code), "{failed:?}");
    }
    // The same id over all attempts, and each is written down.
    let list = app.deliveries(&hook, "").await;
    let tried = list.iter().find(|delivery| delivery["attempts"].as_i64().unwrap() > 1).unwrap();
    let path = format!("{DELIVERIES}/{}", tried["id"].as_str().unwrap());
    let one = app.get(&path).await.expect(200).json;
    let log = one["attempt_log"].as_array().unwrap();
    assert_eq!((&log[0]["attempt"], &log[0]["outcome"]), (&json!(1), &json!("retry")), "{one}");
    let sent = receiver.all().iter().filter(|r| r.json["messageId"] == tried["id"]).count();
    assert_eq!(json!(sent), tried["attempts"]);
}

#[tokio::test]
async fn slow_ones_time_out_and_redirects_are_not_followed() {
    let app = sending().start().await;
    let receiver = Receiver::start_with(|_, n| match n {
        0 => Reply::Hang,
        1 => Reply::Drip,
        2 => Reply::With(302, "location: http://127.0.0.1:1/\r\n"),
        _ => Reply::Status(200),
    })
    .await;
    let hook = counting(&app, &receiver, json!({})).await;
    buy(&app, 1, 1).await;
    receiver.wait(|r| (r.count() >= 1).then_some(())).await;
    for attempts in [1, 2] {
        // As if the pause were over.
        app.wait_destination(&hook, |d| d["deliveries"]["failed"]["ETIMEDOUT"] == attempts).await;
        app.act(&hook, "pause", json!({})).await;
        app.act(&hook, "resume", json!({})).await;
    }
    let seen = app.wait_destination(&hook, |d| d["deliveries"]["dead"] == 1).await;
    assert_eq!(seen["deliveries"]["last_error"]["code"], "302");
    assert_eq!((receiver.count(), seen["deliveries"]["queued"].as_i64()), (3, Some(0)));
}

#[tokio::test]
async fn a_dead_destination_delays_nobody_else_and_is_probed() {
    let app = sending().start().await;
    let (dead, well) = (Receiver::start_with(|_, _| Reply::Hang).await, Receiver::start().await);
    let hook = counting(&app, &dead, json!({})).await;
    let other = app.make_webhook("Other", &well, json!({})).await;
    app.subscribe(&other, json!({"subject": "computed_trait", "key": "purchases"})).await;
    buy(&app, 300, 1).await;
    let began = Instant::now();
    well.wait_taken(300).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let seen =
        app.wait_destination(&hook, |d| d["deliveries"]["failed"]["ETIMEDOUT"].as_i64() >= Some(10)).await;
    assert_eq!(seen["deliveries"]["queued"], 300);
    assert!(dead.count() < 60, "{}", dead.count());
    assert!(!seen["deliveries"]["failing_since"].is_null());
}

#[tokio::test]
async fn what_is_refused_is_a_dead_letter_that_can_be_sent_again_or_discarded() {
    let app = sending().start().await;
    let receiver = Receiver::start_with(|_, _| Reply::Status(400)).await;
    let hook = counting(&app, &receiver, json!({})).await;
    buy(&app, 3, 1).await;
    let seen = app.wait_destination(&hook, |d| d["deliveries"]["dead"] == 3).await;
    assert_eq!(seen["deliveries"]["failed"], json!({"400": 3}));
    let dead = app.deliveries(&hook, "&state=dead").await;
    let ids: Vec<&str> = dead.iter().map(|delivery| delivery["id"].as_str().unwrap()).collect();
    assert_eq!((dead.len(), &dead[0]["code"]), (3, &json!("400")));
    let profile = dead[0]["profile_id"].as_str().unwrap();
    assert_eq!(app.deliveries(&hook, &format!("&profile={profile}")).await.len(), 1);
    assert_eq!(app.deliveries(&hook, "&to=2001-01-01").await.len(), 0);
    receiver.now(|_, _| Reply::Status(200));
    let replay_path = format!("{DELIVERIES}/replay");
    let replay = |mut body: Value| {
        body["destination"] = hook["id"].clone();
        app.post(&replay_path, body)
    };
    assert_eq!(replay(json!({"state": "dead", "dry_run": true})).await.expect(200).json["count"], 3);
    assert_eq!(replay(json!({"ids": [ids[1]]})).await.expect(200).json["count"], 1);
    let again = receiver.wait_taken(1).await;
    assert_eq!(again[0]["messageId"], ids[1], "the same id");
    let seen = app.wait_destination(&hook, |d| d["deliveries"]["succeeded"] == 1).await;
    assert_eq!(seen["deliveries"]["dead"], 2);
    let one = app.get(&format!("{DELIVERIES}/{}", ids[1])).await.expect(200).json;
    assert_eq!((&one["state"], &one["attempts"]), (&json!("delivered"), &json!(2)));
    let body = json!({"destination": hook["id"], "ids": [ids[0]]});
    assert_eq!(app.post(&format!("{DELIVERIES}/discard"), body).await.expect(200).json["count"], 1);
    assert_eq!(replay(json!({"state": "dead", "from": "2001-01-01"})).await.expect(200).json["count"], 1);
    receiver.wait_taken(2).await;
    app.wait_sent(&hook).await;
    assert_eq!(replay(json!({"state": "dead"})).await.expect(200).json["count"], 0);
    assert_eq!(app.deliveries(&hook, "&state=discarded").await.len(), 1);
    replay(json!({"ids": ["dlv_x"]})).await.expect_problem(404, "not_found");
    let body = json!({"state": "dead"});
    let refused = app.post(&format!("{DELIVERIES}/replay"), body).await.expect_problem(422, "invalid");
    assert_eq!(refused.json["field"], "destination");
}

#[tokio::test]
async fn after_three_days_a_change_is_given_up_and_after_five_the_destination_is_paused() {
    let app = sending().at("2024-03-01T12:00:00Z").start().await;
    let receiver = Receiver::start_with(|_, _| Reply::Status(500)).await;
    let hook = counting(&app, &receiver, json!({})).await;
    buy(&app, 1, 1).await;
    app.wait_destination(&hook, |d| d["deliveries"]["failed"]["500"] == 1).await;
    let waiting = app.deliveries(&hook, "&state=queued").await;
    let next = waiting[0]["next_attempt_at"].as_str().unwrap();
    assert!(("2024-03-01T12:00:04".."2024-03-01T12:00:07").contains(&next), "{next}");
    for (attempts, hour) in (2..).zip((4..76).step_by(9)) {
        let (day, hour) = (1 + (12 + hour) / 24, (12 + hour) % 24);
        let now = format!("2024-03-{day:02}T{hour:02}:00:00Z");
        app.put("/v1/test-clock", json!({"now": now})).await.expect(200);
        app.wait_destination(&hook, |d| d["deliveries"]["failed"]["500"] == attempts).await;
    }
    app.put("/v1/test-clock", json!({"now": "2024-03-04T23:00:00Z"})).await.expect(200);
    let seen = app.wait_destination(&hook, |d| d["deliveries"]["dead"] == 1).await;
    assert_eq!((&seen["state"], &seen["deliveries"]["queued"]), (&json!("connected"), &json!(0)));
    app.put("/v1/test-clock", json!({"now": "2024-03-06T13:00:00Z"})).await.expect(200);
    buy(&app, 1, 1).await;
    let seen = app.wait_destination(&hook, |d| d["state"] == "failing").await;
    assert!(seen["state_reason"].as_str().unwrap().contains("since 2024-03-01T12:00:00.000Z"), "{seen}");
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("personas_destinations{state=\"failing\"}"), "{metrics}");
    receiver.now(|_, _| Reply::Status(200));
    app.act(&hook, "resume", json!({})).await;
    receiver.wait_taken(1).await;
    let seen = app.wait_sent(&hook).await;
    assert_eq!((&seen["state"], &seen["deliveries"]["failing_since"]), (&json!("connected"), &Value::Null));
}

#[tokio::test]
async fn a_destination_that_says_it_is_gone_is_paused_and_loses_nothing() {
    let app = sending().start().await;
    let receiver = Receiver::start_with(|_, _| Reply::Status(410)).await;
    let hook = counting(&app, &receiver, json!({})).await;
    buy(&app, 3, 2).await;
    let seen = app.wait_destination(&hook, |d| d["state"] == "failing").await;
    assert!(seen["state_reason"].as_str().unwrap().contains("410"), "{seen}");
    receiver.now(|_, _| Reply::Status(200));
    app.act(&hook, "resume", json!({})).await;
    let taken = receiver.wait_taken(6).await;
    for (user, values) in told(&taken) {
        assert_eq!(values, [1, 2], "{user}");
    }
    app.wait_sent(&hook).await;
}

#[tokio::test]
async fn a_rate_is_kept_and_a_private_address_is_never_called() {
    let app = sending().start().await;
    let receiver = Receiver::start().await;
    let hook = counting(&app, &receiver, json!({})).await;
    let path = format!("{DESTINATIONS}/{}", hook["id"].as_str().unwrap());
    app.patch(&path, json!({"rate_per_second": 20})).await.expect(200);
    buy(&app, 60, 1).await;
    receiver.wait_taken(20).await;
    let began = Instant::now();
    receiver.wait_taken(60).await;
    assert!(began.elapsed() > Duration::from_millis(1_500), "{:?}", began.elapsed());
    let private = app.patch(&path, json!({"settings": {"url": "http://10.0.0.1/hook"}})).await.expect(422);
    assert_eq!(private.json["field"], "settings.url", "{}", private.text);
    // It is not called either when it was saved under another configuration.
    for behind_the_door in [
        r#"UPDATE destination SET settings = settings || '{"url": "http://10.0.0.1/hook"}'"#,
        "UPDATE destination_worker SET config_version = config_version + 1",
    ] {
        sqlx::query(behind_the_door).execute(&app.db.pool).await.unwrap();
    }
    buy(&app, 1, 1).await;
    let seen = app.wait_destination(&hook, |d| d["deliveries"]["dead"] == 1).await;
    assert_eq!(seen["deliveries"]["last_error"]["code"], "BLOCKED");
}

#[tokio::test]
async fn two_that_become_one_stay_in_order() {
    let app = sending().at("2024-03-01T12:00:00Z").start().await;
    let receiver = Receiver::start_with(|_, _| Reply::Status(500)).await;
    app.make_live("audiences", "buyers", BUYERS).await;
    let hook = counting(&app, &receiver, json!({})).await;
    for id in ["a1", "a2"] {
        for _ in 0..3 {
            app.processed(
                "/v1/track",
                json!({"anonymousId": id, "userId": format!("of-{id}"), "event": "Bought"}),
            )
            .await;
        }
    }
    app.wait_destination(&hook, |d| d["deliveries"]["waiting_profiles"] == 2).await;
    // Nobody may have two user ids: the operator makes them one after the limit is raised.
    let settings = "/v1/spaces/default/identity/settings";
    let change = json!({"identifiers": [{"type": "user_id", "limit": 5}]});
    app.patch(settings, change).await.expect(200);
    app.processed("/v1/identify", json!({"userId": "of-a1", "anonymousId": "a2"})).await;
    app.processed("/v1/track", json!({"userId": "of-a1", "event": "Bought"})).await;
    receiver.now(|_, n| if n % 3 == 0 { Reply::Status(500) } else { Reply::Status(200) });
    wait_out(&app, &hook).await;
    let values: Vec<i64> =
        receiver.taken().iter().map(|e| e["traits"]["purchases"].as_i64().unwrap()).collect();
    assert_eq!(values.last(), Some(&7), "{values:?}");
    let mut firsts = values.clone();
    firsts.dedup();
    assert_eq!(firsts, [1, 2, 3, 1, 2, 3, 6, 7], "the order in which it happened: {values:?}");
}

#[tokio::test]
async fn whoever_resumes_what_is_not_paused_has_it_tried_at_once() {
    let app = sending().at("2024-03-01T12:00:00Z").start().await;
    let receiver = Receiver::start_with(|_, _| Reply::Status(500)).await;
    let hook = counting(&app, &receiver, json!({})).await;
    buy(&app, 2, 2).await;
    app.wait_destination(&hook, |d| d["deliveries"]["waiting_profiles"] == 2).await;
    receiver.now(|_, _| Reply::Status(200));
    app.act(&hook, "resume", json!({})).await;
    app.wait_sent(&hook).await;
    assert_eq!(told(&receiver.taken())["u0"], [1, 2]);
}

#[tokio::test]
async fn a_failure_and_then_silence_pauses_nothing() {
    let app = sending().at("2024-03-01T12:00:00Z").start().await;
    let receiver = Receiver::start_with(|_, _| Reply::Status(400)).await;
    app.make_live("audiences", "buyers", BUYERS).await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    let data = json!({"traits": ["plan"], "filter": "traits.plan = 'pro'"});
    app.subscribe(&hook, json!({"subject": "audience", "key": "buyers", "data": data})).await;
    let bought = async |user: &str, plan: &str| {
        app.processed("/v1/identify", json!({"userId": user, "traits": {"plan": plan}})).await;
        app.processed("/v1/track", json!({"userId": user, "event": "Bought"})).await;
    };
    bought("u1", "pro").await;
    app.wait_destination(&hook, |d| d["deliveries"]["dead"] == 1).await;
    app.put("/v1/test-clock", json!({"now": "2024-03-07T12:00:00Z"})).await.expect(200);
    // Something is written down each time, and nothing sent.
    for (user, filtered) in [("u2", 1), ("u3", 2)] {
        bought(user, "free").await;
        let seen = app
            .wait_destination(&hook, |d| d["deliveries"]["filtered"] == filtered || d["state"] == "failing");
        assert_eq!(seen.await["state"], "connected");
    }
    // Five days, and it fails still.
    bought("u4", "pro").await;
    let seen = app.wait_destination(&hook, |d| d["state"] == "failing").await;
    assert!(seen["state_reason"].as_str().unwrap().contains("since 2024-03-01T12:00:00"), "{seen}");
}
