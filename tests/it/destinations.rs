//! Destinations through the front door: what is sent of each change, in which order, with which signature.

use serde_json::{Value, json};

use crate::harness::app::TestApp;
use crate::harness::destinations::{DELIVERIES, DESTINATIONS, sending};
use crate::harness::receiver::{Receiver, Reply};

const NOW: &str = "2024-03-01T12:00:00.000Z";
const BUYERS: &str = "event('Bought').count() >= 1";

async fn start() -> TestApp {
    sending().at(NOW).start().await
}

async fn bought(app: &TestApp, user: &str) {
    app.processed("/v1/track", json!({"userId": user, "event": "Bought"})).await;
}

/// An event without what is different each time.
fn steady(event: &Value) -> Value {
    let mut event = event.clone();
    for path in ["/context/personas/profile_id", "/context/personas/computation_id", "/messageId"] {
        if let Some(value) = event.pointer_mut(path) {
            let prefix = value.as_str().unwrap().split('_').next().unwrap().to_owned();
            *value = format!("{prefix}_…").into();
        }
    }
    event
}

fn personas(class: &str, prefix: &str, key: &str) -> Value {
    json!({"computation_class": class, "computation_id": format!("{prefix}_…"), "computation_key": key,
        "namespace": "spa_default", "space_id": "spa_default", "profile_id": "prf_…"})
}

#[tokio::test]
async fn every_kind_of_change_has_the_payload_of_the_specification() {
    let (app, receiver) = (start().await, Receiver::start().await);
    app.make_live("audiences", "buyers", BUYERS).await;
    app.make_live("computed-traits", "purchases", "event('Bought').count()").await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    app.subscribe(&hook, json!({"subject": "audience", "key": "buyers", "send": ["identify", "track"]}))
        .await;
    app.subscribe(
        &hook,
        json!({"subject": "computed_trait", "key": "purchases", "send": ["identify", "track"]}),
    )
    .await;
    app.subscribe(&hook, json!({"subject": "custom_traits"})).await;
    let call = json!({"userId": "u1", "traits": {"email": "Ada@example.com", "plan": "pro"}});
    app.processed("/v1/identify", call).await;
    bought(&app, "u1").await;
    let taken = receiver.wait_taken(7).await;
    let integrations = json!({"All": false, "Hook": true});
    let find = |kind: &str, class: &str| {
        let is_it = |event: &&Value| {
            event["type"] == kind
                && event["context"]["personas"]["computation_class"].as_str().unwrap_or("") == class
        };
        steady(taken.iter().rfind(is_it).unwrap_or_else(|| panic!("{kind} {class}: {taken:#?}")))
    };
    let expected = json!({"type": "identify", "userId": "u1", "messageId": "dlv_…", "timestamp": NOW,
        "traits": {"buyers": true, "email": "ada@example.com"},
        "context": {"personas": personas("audience", "aud", "buyers")}, "integrations": integrations});
    assert_eq!(find("identify", "audience"), expected);
    let expected = json!({"type": "track", "event": "Audience Entered", "userId": "u1", "messageId": "dlv_…",
        "timestamp": NOW, "properties": {"audience_key": "buyers", "buyers": true},
        "context": {"personas": personas("audience", "aud", "buyers"), "traits": {"email": "ada@example.com"}},
        "integrations": integrations});
    assert_eq!(find("track", "audience"), expected);
    let expected = json!({"type": "identify", "userId": "u1", "messageId": "dlv_…", "timestamp": NOW,
        "traits": {"purchases": 1, "email": "ada@example.com"},
        "context": {"personas": personas("trait", "tra", "purchases")}, "integrations": integrations});
    assert_eq!(find("identify", "trait"), expected);
    let expected = json!({"type": "track", "event": "Trait Computed", "userId": "u1", "messageId": "dlv_…",
        "timestamp": NOW, "properties": {"trait_key": "purchases", "purchases": 1},
        "context": {"personas": personas("trait", "tra", "purchases"), "traits": {"email": "ada@example.com"}},
        "integrations": integrations});
    assert_eq!(find("track", "trait"), expected);
    let custom = find("identify", "");
    assert_eq!(custom["traits"], json!({"email": "ada@example.com", "plan": "pro"}));
    assert_eq!(custom["context"]["personas"]["space_id"], "spa_default");
}

#[tokio::test]
async fn leaving_is_told_by_the_clock_and_deletion_of_an_audience_too() {
    let (app, receiver) = (start().await, Receiver::start().await);
    app.make_live("audiences", "fresh", "event('Bought').within(1 day).count() >= 1").await;
    app.make_live("audiences", "ever", BUYERS).await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    app.subscribe(
        &hook,
        json!({"subject": "audience", "key": "fresh", "send": ["track"],
        "exited_event": "Gone Cold"}),
    )
    .await;
    app.subscribe(&hook, json!({"subject": "audience", "key": "ever"})).await;
    bought(&app, "u1").await;
    receiver.wait_taken(2).await;
    app.put("/v1/test-clock", json!({"now": "2024-03-03T00:00:00Z"})).await.expect(200);
    let taken = receiver.wait_taken(3).await;
    assert_eq!(taken[2]["event"], "Gone Cold");
    assert_eq!(taken[2]["properties"], json!({"audience_key": "fresh", "fresh": false}));
    assert_eq!(taken[2]["timestamp"], "2024-03-02T12:00:00.001Z");
    app.delete("/v1/spaces/default/audiences/ever").await.expect(204);
    let taken = receiver.wait_taken(4).await;
    assert_eq!(taken[3]["traits"]["ever"], false);
}

#[tokio::test]
async fn accounts_are_told_as_groups() {
    let (app, receiver) = (start().await, Receiver::start().await);
    let query = "ANY event('Bought').count() >= 1";
    let body = json!({"key": "active_accounts", "definition": {"type": "accounts", "query": query}});
    app.make_live_from("audiences", "active_accounts", body).await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    app.subscribe(
        &hook,
        json!({"subject": "audience", "key": "active_accounts", "send": ["identify", "track"]}),
    )
    .await;
    app.processed("/v1/group", json!({"userId": "u1", "groupId": "g1", "traits": {"name": "Acme"}})).await;
    bought(&app, "u1").await;
    let taken = receiver.wait_taken(1).await;
    assert_eq!((&taken[0]["type"], &taken[0]["groupId"]), (&json!("group"), &json!("g1")));
    assert_eq!(taken[0]["traits"], json!({"active_accounts": true}));
    app.wait_sent(&hook).await;
    assert_eq!(receiver.count(), 1, "there is no user to track");
}

#[tokio::test]
async fn a_full_sync_comes_first_then_changes_and_resync_sends_all_again() {
    let (app, receiver) = (start().await, Receiver::start().await);
    app.make_live("audiences", "buyers", BUYERS).await;
    app.make_live("computed-traits", "purchases", "event('Bought').count()").await;
    let batch = |n: usize| json!({"type": "track", "event": "Bought", "userId": format!("u{n}")});
    app.processed("/v1/batch", json!({"batch": (0..1_200).map(batch).collect::<Vec<_>>()})).await;
    let hook = app.make_webhook("Hook", &receiver, json!({"batch_max": 200})).await;
    let subscription = app.subscribe(&hook, json!({"subject": "audience", "key": "buyers"})).await;
    let taken = receiver.wait_taken(1_200).await;
    let users: std::collections::BTreeSet<&str> =
        taken.iter().map(|e| e["userId"].as_str().unwrap()).collect();
    assert_eq!((users.len(), taken.len()), (1_200, 1_200));
    assert!(taken.iter().all(|event| event["traits"]["buyers"] == true));
    bought(&app, "late").await;
    assert_eq!(receiver.wait_taken(1_201).await[1_200]["userId"], "late");
    let path = format!("{DESTINATIONS}/{}/subscriptions", hook["id"].as_str().unwrap());
    let sync = |list: &Value| list["data"][0]["sync"].clone();
    assert_eq!(sync(&app.get(&path).await.expect(200).json)["status"], "done");
    app.act(&hook, "resync", json!({"subscription": subscription["id"]})).await;
    receiver.wait_taken(2_402).await;
    app.subscribe(&hook, json!({"subject": "computed_trait", "key": "purchases"})).await;
    let taken = receiver.wait_taken(3_603).await;
    assert_eq!(taken[3_000]["traits"]["purchases"], 1);
    app.wait_sent(&hook).await;
    assert_eq!(receiver.taken().len(), 3_603);
}

#[tokio::test]
async fn pausing_collects_and_switching_a_subscription_off_does_not() {
    let (app, receiver) = (start().await, Receiver::start().await);
    app.make_live("audiences", "buyers", BUYERS).await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    let subscription = app.subscribe(&hook, json!({"subject": "audience", "key": "buyers"})).await;
    bought(&app, "u1").await;
    receiver.wait_taken(1).await;
    app.wait_sent(&hook).await;
    app.act(&hook, "pause", json!({})).await;
    bought(&app, "u2").await;
    let seen = app.destination(&hook).await;
    assert_eq!((&seen["state"], &seen["deliveries"]["queued"]), (&json!("paused"), &json!(1)));
    app.act(&hook, "resume", json!({})).await;
    assert_eq!(receiver.wait_taken(2).await[1]["userId"], "u2");
    app.wait_sent(&hook).await;
    let (id, own) = (hook["id"].as_str().unwrap(), subscription["id"].as_str().unwrap());
    let path = format!("{DESTINATIONS}/{id}/subscriptions/{own}");
    app.patch(&path, json!({"enabled": false})).await.expect(200);
    bought(&app, "u3").await;
    assert_eq!(app.destination(&hook).await["deliveries"]["queued"], 0);
    app.patch(&path, json!({"enabled": true})).await.expect(200);
    receiver.wait_taken(5).await;
    app.delete(&format!("{DESTINATIONS}/{id}")).await.expect(204);
    bought(&app, "u4").await;
    app.get(&format!("{DESTINATIONS}/{id}")).await.expect_problem(404, "not_found");
    assert_eq!(app.get(DESTINATIONS).await.expect(200).json["data"], json!([]));
    assert_eq!(receiver.count(), 5);
}

#[tokio::test]
async fn a_new_identifier_tells_again_and_a_merge_tells_under_the_survivor() {
    let (app, receiver) = (start().await, Receiver::start().await);
    app.make_live("audiences", "buyers", BUYERS).await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    app.subscribe(&hook, json!({"subject": "audience", "key": "buyers"})).await;
    app.subscribe(&hook, json!({"subject": "merges"})).await;
    bought(&app, "u1").await;
    receiver.wait_taken(1).await;
    app.processed("/v1/identify", json!({"userId": "u1", "traits": {"email": "a@example.com"}})).await;
    let taken = receiver.wait_taken(2).await;
    assert_eq!(taken[1]["traits"], json!({"buyers": true, "email": "a@example.com"}), "EM-5");
    app.processed("/v1/identify", json!({"userId": "u1", "anonymousId": "a1"})).await;
    app.processed("/v1/track", json!({"anonymousId": "a2", "event": "Seen"})).await;
    app.processed("/v1/identify", json!({"userId": "u1", "anonymousId": "a2"})).await;
    let taken = receiver.wait_taken(4).await;
    let merged = taken.iter().find(|event| event["event"] == "Profile Merged").unwrap();
    assert_eq!(merged["userId"], "u1");
    assert!(merged["properties"]["merged_profile_id"].as_str().unwrap().starts_with("prf_"));
    assert_ne!(merged["properties"]["merged_profile_id"], merged["properties"]["profile_id"]);
    app.wait_sent(&hook).await;
    assert_eq!(receiver.taken().len(), 4, "an anonymous id of a known user is not sent, and tells nothing");
}

#[tokio::test]
async fn data_is_chosen_by_subscription() {
    let (app, receiver) = (start().await, Receiver::start().await);
    app.make_live("audiences", "buyers", BUYERS).await;
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    let data = json!({"id_sync": [{"type": "email", "strategy": "first", "map_to": "traits.mail"}], "traits": ["plan"],
        "filter": "traits.plan = 'pro'", "deny": ["context.personas"]});
    app.subscribe(&hook, json!({"subject": "audience", "key": "buyers", "data": data})).await;
    for (user, plan) in [("u1", "free"), ("u2", "pro")] {
        let traits = json!({"email": format!("{user}@example.com"), "plan": plan});
        app.processed("/v1/identify", json!({"userId": user, "traits": traits})).await;
        bought(&app, user).await;
    }
    let taken = receiver.wait_taken(1).await;
    assert_eq!(taken[0]["traits"], json!({"buyers": true, "plan": "pro", "mail": "u2@example.com"}));
    assert!(taken[0].get("userId").is_none() && taken[0]["context"].get("personas").is_none());
    let seen = app.wait_sent(&hook).await;
    assert_eq!((&seen["deliveries"]["filtered"], &seen["deliveries"]["succeeded"]), (&json!(1), &json!(1)));
    let filtered = app.deliveries(&hook, "&state=filtered").await;
    assert_eq!(filtered[0]["code"], "FILTERED_BY_RULES");
    let body = json!({"subject": "custom_traits", "data": {"filter": "traits.plan ="}});
    let path = format!("{DESTINATIONS}/{}/subscriptions", hook["id"].as_str().unwrap());
    let refused = app.post(&path, body).await.expect_problem(422, "invalid");
    assert_eq!(refused.json["field"], "data.filter");
}

#[tokio::test]
async fn signatures_are_verified_by_an_independent_implementation_through_a_rotation() {
    // The verifier goes by the time of day.
    let (app, receiver) = (sending().start().await, Receiver::start().await);
    app.make_live("audiences", "buyers", BUYERS).await;
    let settings = json!({"shared_secret": "classic", "headers": {"X-Key": "canary"}});
    let hook = app.make_webhook("Hook", &receiver, settings).await;
    let first = hook["secret"].as_str().unwrap().to_owned();
    let seen = app.destination(&hook).await;
    assert_eq!(seen["settings"]["headers"], json!({"X-Key": "***"}));
    assert_eq!((&seen["settings"]["secret"], seen.get("secret")), (&json!("***"), None));
    app.subscribe(&hook, json!({"subject": "audience", "key": "buyers"})).await;
    bought(&app, "u1").await;
    receiver.wait_taken(1).await;
    let id = hook["id"].as_str().unwrap();
    let second = app.post(&format!("{DESTINATIONS}/{id}/rotate-secret"), json!({})).await.expect(200);
    let second = second.json["secret"].as_str().unwrap().to_owned();
    bought(&app, "u2").await;
    receiver.wait_taken(2).await;
    app.patch(&format!("{DESTINATIONS}/{id}"), json!({"settings": {"previous_secret": null}}))
        .await
        .expect(200);
    bought(&app, "u3").await;
    receiver.wait_taken(3).await;
    let verified: Vec<[bool; 2]> = receiver
        .all()
        .iter()
        .map(|received| {
            let mut headers = reqwest::header::HeaderMap::new();
            for (name, value) in &received.headers {
                let name: reqwest::header::HeaderName = name.parse().unwrap();
                headers.insert(name, value.parse().unwrap());
            }
            assert_eq!(received.headers["webhook-id"], received.json["messageId"].as_str().unwrap());
            assert_eq!((received.path.as_str(), received.headers["x-key"].as_str()), ("/hook", "canary"));
            assert_eq!(received.headers["x-signature"].len(), 40);
            [&first, &second].map(|secret| {
                let webhook = standardwebhooks::Webhook::new(secret).unwrap();
                webhook.verify(&received.body, &headers).is_ok()
            })
        })
        .collect();
    assert_eq!(verified, [[true, false], [true, true], [false, true]]);
    let stored: Vec<u8> =
        sqlx::query_scalar("SELECT secrets FROM destination").fetch_one(&app.db.pool).await.unwrap();
    for secret in [b"canary".as_slice(), b"classic", b"whsec_"] {
        assert!(!stored.windows(secret.len()).any(|bytes| bytes == secret));
    }
}

#[tokio::test]
async fn settings_are_judged_and_a_test_says_what_came_back() {
    let app = start().await;
    let receiver = Receiver::start_with(|_, _| Reply::Status(418)).await;
    let make = |body: Value| app.post(DESTINATIONS, body);
    let refused = make(json!({"name": "A", "kind": "nope"})).await.expect_problem(422, "invalid");
    assert_eq!(refused.json["field"], "kind");
    let refused = make(json!({"name": "A", "kind": "webhook"})).await.expect_problem(422, "invalid");
    assert_eq!(refused.json["field"], "settings.url");
    let body =
        json!({"name": "A", "kind": "webhook", "settings": {"url": "https://example.com"}, "concurrency": 0});
    let refused = make(body).await.expect_problem(422, "invalid");
    assert_eq!(refused.json["field"], "concurrency");
    let hook = app.make_webhook("A", &receiver, json!({})).await;
    let body = json!({"name": "A", "kind": "webhook", "settings": {"url": "https://example.com"}});
    make(body).await.expect_problem(409, "conflict");
    let path = format!("{DESTINATIONS}/{}/test", hook["id"].as_str().unwrap());
    let tried = app.post(&path, json!({})).await.expect(200).json;
    assert_eq!((&tried["outcome"], &tried["code"]), (&json!("rejected"), &json!("418")));
    let exchange = &tried["exchanges"][0];
    assert_eq!((&exchange["status"], &exchange["response"]), (&json!(418), &json!("ok")));
    assert!(exchange["request"].as_str().unwrap().contains("webhook-signature: ***"), "{exchange}");
    let without = crate::harness::app::Wish::default().at(NOW).start().await;
    let body = json!({"name": "A", "kind": "webhook", "settings": {"url": "https://example.com"}});
    let refused = without.post(DESTINATIONS, body).await.expect_problem(422, "invalid");
    assert!(refused.text.contains("deliver.secret_key"), "{}", refused.text);
}

#[tokio::test]
async fn any_http_api_is_spoken_to_by_templates() {
    let (app, receiver) = (start().await, Receiver::start().await);
    app.make_live("audiences", "buyers", BUYERS).await;
    let headers = json!({"Content-Type": "application/json", "Authorization": "Bearer {{ secrets.token }}"});
    let identify = json!({"url": format!("{}/users/{{{{ user_id }}}}", receiver.url), "method": "PUT",
        "headers": headers, "body": "{\"attributes\": {{ values }}}"});
    let settings = json!({"calls": {"identify": identify}, "secrets": {"token": "canary-token"}});
    let body = json!({"name": "Tool", "kind": "http", "settings": settings});
    let tool = app.post(DESTINATIONS, body).await.expect(201).json;
    assert_eq!(tool["settings"]["secrets"], json!({"token": "***"}));
    app.subscribe(&tool, json!({"subject": "audience", "key": "buyers", "send": ["identify", "track"]}))
        .await;
    bought(&app, "u 1").await;
    receiver.wait_taken(1).await;
    let seen = app.wait_sent(&tool).await;
    assert_eq!((&seen["deliveries"]["succeeded"], &seen["deliveries"]["filtered"]), (&json!(1), &json!(1)));
    let received = receiver.all().remove(0);
    assert_eq!(
        (received.path.as_str(), &received.json),
        ("/users/u%201", &json!({"attributes": {"buyers": true}}))
    );
    assert_eq!(received.headers["authorization"], "Bearer canary-token");
    let filtered = app.deliveries(&tool, "&state=filtered").await;
    assert_eq!(
        (&filtered[0]["code"], &filtered[0]["call"]),
        (&json!("UNSUPPORTED_EVENT_TYPE"), &json!("track"))
    );
    let sent = app.deliveries(&tool, "&state=delivered").await;
    let path = format!("{DELIVERIES}/{}", sent[0]["id"].as_str().unwrap());
    let log = app.get(&path).await.expect(200);
    assert!(log.text.contains("PUT http://") && !log.text.contains("canary"), "{}", log.text);
}

#[tokio::test]
async fn changes_are_kept_as_files_below_the_folder_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let app = sending().option("egress.folder", folder.path().to_str().unwrap()).at(NOW).start().await;
    app.make_live("audiences", "buyers", BUYERS).await;
    let body = json!({"name": "Lake", "kind": "file", "settings": {"folder": "lake"}});
    let lake = app.post(DESTINATIONS, body).await.expect(201).json;
    assert_eq!(lake["linger_seconds"], 30, "objects are not written for every change");
    app.subscribe(&lake, json!({"subject": "audience", "key": "buyers"})).await;
    bought(&app, "u1").await;
    bought(&app, "u2").await;
    app.put("/v1/test-clock", json!({"now": "2024-03-01T12:00:30Z"})).await.expect(200);
    app.wait_destination(&lake, |d| d["deliveries"]["succeeded"] == 2).await;
    let mut folders = vec![folder.path().to_owned()];
    let (mut lines, mut objects) = (Vec::new(), 0);
    while let Some(path) = folders.pop() {
        if path.is_dir() {
            folders.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            objects += 1;
            lines.extend(std::fs::read_to_string(path).unwrap().lines().map(str::to_owned));
        }
    }
    let event: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((objects, lines.len(), &event["traits"]), (1, 2, &json!({"buyers": true})));
}

#[tokio::test]
async fn custom_traits_are_told_in_the_order_of_the_log_whenever_they_were_received() {
    let (app, receiver) = (start().await, Receiver::start().await);
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    app.subscribe(&hook, json!({"subject": "custom_traits"})).await;
    app.processed(
        "/v1/identify",
        json!({"userId": "u1", "timestamp": "2023-12-01T00:00:00Z", "traits": {"plan": "none"}}),
    )
    .await;
    receiver.wait_taken(1).await;
    let later = |seconds| NOW.replace(":00.000Z", &format!(":{seconds:02}.000Z"));
    let chunk = identified(&[(&later(5), "{\"plan\":\"first\"}"), (&later(3), "{\"plan\":\"second\"}")]);
    sqlx::query(
        "WITH head AS (UPDATE log_head SET end_offset = end_offset + 2 WHERE space_id = 1 RETURNING end_offset)
         INSERT INTO event_chunk (space_id, end_offset, day, event_count, received_at, names, min_at, max_at, body)
         SELECT c.space_id, head.end_offset, day, 2, received_at, names, min_at, max_at, $1
         FROM event_chunk c, head WHERE c.space_id = 1 ORDER BY c.end_offset DESC LIMIT 1",
    )
    .bind(chunk)
    .execute(&app.db.pool)
    .await
    .unwrap();
    app.processed("/v1/track", json!({"userId": "u2", "event": "Seen"})).await;
    receiver.wait_taken(3).await;
    // A full sync is no older than what was told, or who keeps the newest one only would leave it out.
    app.act(&hook, "resync", json!({})).await;
    let told: Vec<(Value, Value)> = receiver
        .wait_taken(4)
        .await
        .iter()
        .map(|event| (event["traits"]["plan"].clone(), event["timestamp"].clone()))
        .collect();
    let of = |plan: &str, at: &str| (json!(plan), json!(at));
    let [none, first, second] = [of("none", NOW), of("first", &later(5)), of("second", &later(5))];
    assert_eq!(told, [none, first, second.clone(), second]);
}

/// A chunk of identify calls of `u1`, each with when it was received, and its traits.
fn identified(calls: &[(&str, &str)]) -> Vec<u8> {
    use personas::domain::{EventType, SourceNo, Timestamp};
    use personas::store::log::codec::{FORMAT, Record};
    let mut content = vec![FORMAT];
    for (n, (at, traits)) in calls.iter().enumerate() {
        Record {
            event_type: EventType::Identify,
            clamped: false,
            unprofiled: false,
            public: false,
            act: false,
            erased: false,
            // They happened in the order of the log, long ago.
            timestamp: Timestamp::parse(&format!("2024-01-0{}", n + 1)).unwrap(),
            received_at: Timestamp::parse(at).unwrap(),
            source: SourceNo(1),
            message_id: &format!("logged-{n}"),
            name: "",
            user_id: "u1",
            anonymous_id: "",
            group_id: "",
            previous_id: "",
            body: traits,
            context: "",
            integrations: "",
            extra: "",
        }
        .encode(&mut content);
    }
    zstd::bulk::compress(&content, 1).unwrap()
}
