//! Identity settings through HTTP: what they change, what they refuse, and what resolution refuses under them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::people::{People, SETTINGS, type_of, words};

const PROBLEMS: &str = "/v1/spaces/default/identity/problems";

async fn feed(space: &People, rest: &str) -> Value {
    space.app.get(&format!("{PROBLEMS}?min_offset={}{rest}", space.offset)).await.expect(200).json
}

#[tokio::test]
async fn a_space_begins_with_the_defaults_and_a_change_leaves_the_rest() {
    let space = People::start().await;
    let before = space.settings().await;
    let names: Vec<&str> =
        before["identifiers"].as_array().unwrap().iter().map(|t| t["type"].as_str().unwrap()).collect();
    assert_eq!((names.len(), &names[..3]), (11, &["user_id", "email", "android.id"][..]));
    let user = type_of(&before, "user_id");
    assert_eq!(
        (&user["limit"], &user["frequency"], &user["priority"]),
        (&json!(1), &json!("ever"), &json!(null))
    );
    assert_eq!(user["blocked"]["patterns"], json!(["^[0-]*$"]));
    assert_eq!((&before["merges_max"], &before["identifiers_max"]), (&json!(100), &json!(1000)));
    assert_eq!(before["add_unknown_types"], true);

    let after = space.set(json!({"type": "email", "limit": 2, "frequency": "weekly"})).await;
    assert_eq!(after["version"].as_i64(), before["version"].as_i64().map(|v| v + 1));
    let mut expected = before.clone();
    expected["version"] = after["version"].clone();
    expected["identifiers"][1]["limit"] = json!(2);
    expected["identifiers"][1]["frequency"] = json!("weekly");
    assert_eq!(after, expected);
    assert_eq!(space.settings().await, after);
    // What changes nothing is no version.
    assert_eq!(space.set(json!({"type": "email", "limit": 2})).await, after);
    // Sent back as it is, it is the same.
    assert_eq!(space.app.patch(SETTINGS, after.clone()).await.expect(200).json, after);
}

#[tokio::test]
async fn limits_count_for_the_next_event_and_not_for_earlier_ones() {
    let mut space = People::start().await;
    for n in 1..=3 {
        space.identify("u1", &format!("e{n}@x.y")).await;
    }
    space.expect_ids("user_id:u1", "user_id=u1 email=e1@x.y email=e2@x.y email=e3@x.y").await;
    space.set(json!({"type": "email", "limit": 1})).await;
    space.identify("u1", "e4@x.y").await;
    space.identify("u2", "f1@x.y").await;
    space.identify("u2", "f2@x.y").await;
    space.expect_ids("user_id:u1", "user_id=u1 email=e1@x.y email=e2@x.y email=e3@x.y").await;
    space.expect_refusals("user_id:u1", &["Identifier value limit exceeded: e4@x.y"]).await;
    space.expect_ids("user_id:u2", "user_id=u2 email=f1@x.y").await;
    // ID-13: the other way round.
    space.set(json!({"type": "user_id", "limit": 2})).await;
    for user in ["shop1", "uuid1", "x3"] {
        space.identify(user, "e@x.y").await;
    }
    space.expect_ids("user_id:shop1", "user_id=shop1 user_id=uuid1 email=e@x.y").await;
    space.expect_ids("user_id:x3", "user_id=x3").await;
    // A rebuild knows the limits of now alone.
    let space = space.rebuilt().await;
    space.expect_ids("user_id:u1", "user_id=u1 email=e1@x.y").await;
    let above = ["e2@x.y", "e3@x.y", "e4@x.y"].map(|id| format!("Identifier value limit exceeded: {id}"));
    space.expect_refusals("user_id:u1", &above.each_ref().map(String::as_str)).await;
    space.expect_ids("user_id:shop1", "user_id=shop1 user_id=uuid1 email=e@x.y").await;
    space.endures().await;
}

#[tokio::test]
async fn id_18_windows_are_set_by_their_words() {
    let mut space = People::start().await;
    space.set(json!({"type": "anonymous_id", "frequency": "weekly", "limit": 1})).await;
    for (day, anon) in [(1, "a1"), (4, "a2"), (9, "a3")] {
        let at = format!("2024-02-0{day}T00:00:00Z");
        let call = json!({"userId": "u1", "anonymousId": anon, "event": "Seen", "timestamp": at});
        space.send("/v1/track", call).await;
    }
    space.expect_ids("user_id:u1", "user_id=u1 anonymous_id=a1 anonymous_id=a3").await;
    space.expect_refusals("user_id:u1", &["Identifier value time limit exceeded: a2"]).await;
    space.endures().await;
}

#[tokio::test]
async fn blocked_values_are_exact_or_patterns() {
    let mut space = People::start().await;
    let blocked = json!({"exact": [" Void "], "patterns": ["^test-[0-9]+$"]});
    let set = space.set(json!({"type": "user_id", "blocked": blocked})).await;
    assert_eq!(
        type_of(&set, "user_id")["blocked"],
        json!({"exact": ["Void"], "patterns": ["^test-[0-9]+$"]})
    );
    for user in ["void", "test-17", "test-x", "null"] {
        space
            .send("/v1/track", json!({"userId": user, "anonymousId": format!("of-{user}"), "event": "Seen"}))
            .await;
    }
    space.expect_ids("anonymous_id:of-void", "anonymous_id=of-void").await;
    space.expect_refusals("anonymous_id:of-void", &["ID value blocked: void"]).await;
    space.expect_ids("anonymous_id:of-test-17", "anonymous_id=of-test-17").await;
    space.expect_ids("anonymous_id:of-test-x", "anonymous_id=of-test-x user_id=test-x").await;
    space.expect_ids("anonymous_id:of-null", "anonymous_id=of-null user_id=null").await;
    space.endures().await;
}

#[tokio::test]
async fn id_21_custom_types_are_read_by_their_keys_in_both_spellings() {
    let mut space = People::start().await;
    space.set(json!({"type": "app_id", "keys": ["app_id"], "case_insensitive": true})).await;
    space.send("/v1/identify", json!({"userId": "u1", "traits": {"appId": "A1"}})).await;
    space
        .send("/v1/track", json!({"anonymousId": "x1", "event": "Seen", "properties": {"app_id": "a1"}}))
        .await;
    let context = json!({"traits": {"appId": "A1"}});
    space.send("/v1/page", json!({"anonymousId": "x2", "context": context})).await;
    space.expect_ids("user_id:u1", "user_id=u1 app_id=a1 anonymous_id=x1 anonymous_id=x2").await;
    space.endures().await;
}

#[tokio::test]
async fn priorities_say_which_identifier_is_set_aside() {
    let mut space = People::start().await;
    let email_first = json!([{"type": "email", "priority": 1}, {"type": "user_id", "priority": 2}]);
    let set = space.app.patch(SETTINGS, json!({"identifiers": email_first})).await.expect(200).json;
    assert_eq!(set["identifiers"][0]["type"], "email");
    space.identify("u1", "e@x.y").await;
    space.identify("u2", "e@x.y").await;
    space.expect_refusals("user_id:u1", &["Identifier value limit exceeded: u2"]).await;
    space.expect_ids("email:e@x.y", "user_id=u1 email=e@x.y").await;
    let back = json!([{"type": "email", "priority": null}, {"type": "user_id", "priority": null}]);
    let set = space.app.patch(SETTINGS, json!({"identifiers": back})).await.expect(200).json;
    assert_eq!(set["identifiers"][0]["type"], "user_id");
    space.identify("u3", "e@x.y").await;
    space.expect_ids("user_id:u3", "user_id=u3").await;
    // With the user id most trusted from the first event on, the second user never was the first one.
    let space = space.rebuilt().await;
    space.expect_ids("email:e@x.y", "user_id=u1 email=e@x.y").await;
    for user in ["u2", "u3"] {
        let selector = format!("user_id:{user}");
        space.expect_ids(&selector, &format!("user_id={user}")).await;
        space.expect_refusals(&selector, &["Identifier value limit exceeded: e@x.y"]).await;
    }
    space.endures().await;
}

#[tokio::test]
async fn unknown_types_are_not_added_when_that_is_off() {
    let mut space = People::start().await;
    space.app.patch(SETTINGS, json!({"add_unknown_types": false})).await.expect(200);
    let context = |n: u8| json!({"externalIds": [{"id": format!("c{n}"), "type": "card", "collection": "users", "encoding": "none"}]});
    space.send("/v1/track", json!({"userId": "u1", "event": "Seen", "context": context(1)})).await;
    space.expect_ids("user_id:u1", "user_id=u1").await;
    space.app.patch(SETTINGS, json!({"add_unknown_types": true})).await.expect(200);
    space.send("/v1/track", json!({"userId": "u1", "event": "Seen", "context": context(2)})).await;
    space.expect_ids("user_id:u1", "user_id=u1 card=c2").await;
    assert_eq!(type_of(&space.settings().await, "card")["limit"], 5);
    // Added from the first event on.
    let space = space.rebuilt().await;
    space.expect_ids("user_id:u1", "user_id=u1 card=c1 card=c2").await;
    space.endures().await;
}

#[tokio::test]
async fn id_19_and_20_caps_are_set_and_a_restart_keeps_them() {
    let mut space = People::start().await;
    space.app.patch(SETTINGS, json!({"merges_max": 0, "identifiers_max": 2})).await.expect(200);
    let before = space.settings().await;
    space = space.restart().await;
    assert_eq!(space.settings().await, before);
    for (user, anon) in [("u1", ""), ("", "a1"), ("u1", "a1"), ("u1", "a2"), ("u1", "a3")] {
        space.send("/v1/track", json!({"userId": user, "anonymousId": anon, "event": "Seen"})).await;
    }
    space.expect_ids("user_id:u1", "user_id=u1 anonymous_id=a2").await;
    let refused = ["Profile merge limit exceeded: a1", "Identifier mapping limit exceeded: a3"];
    space.expect_refusals("user_id:u1", &refused).await;
    space.endures().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_place() {
    let space = People::start().await;
    let before = space.settings().await;
    let long = "a".repeat(257);
    let many: Vec<String> = (0..11).map(|n| n.to_string()).collect();
    for (id_type, field) in [
        (json!({"type": "Email"}), "identifiers[0].type"),
        (json!({"type": "1x"}), "identifiers[0].type"),
        (json!({"type": "email", "limit": 0}), "identifiers[0].limit"),
        (json!({"type": "email", "limit": 5_000_000_000_i64}), "identifiers[0].limit"),
        (json!({"type": "email", "frequency": "hourly"}), "identifiers[0].frequency"),
        (json!({"type": "email", "priority": 0}), "identifiers[0].priority"),
        (json!({"type": "email", "keys": [""]}), "identifiers[0].keys[0]"),
        (json!({"type": "email", "keys": many}), "identifiers[0].keys"),
        (json!({"type": "group_id", "keys": ["company"]}), "identifiers[0].keys"),
        (
            json!({"type": "email", "blocked": {"patterns": ["a", "(b"]}}),
            "identifiers[0].blocked.patterns[1]",
        ),
        (json!({"type": "email", "blocked": {"patterns": ["(?!a)"]}}), "identifiers[0].blocked.patterns[0]"),
        (json!({"type": "email", "blocked": {"patterns": [long]}}), "identifiers[0].blocked.patterns[0]"),
        (
            json!({"type": "email", "blocked": {"patterns": ["(\\w{100}){100}"]}}),
            "identifiers[0].blocked.patterns[0]",
        ),
        (json!({"type": "email", "blocked": {"exact": ["a\u{0}"]}}), "identifiers[0].blocked.exact[0]"),
        (json!({"limit": 1}), "type"),
        (json!({"type": "email", "max": 1}), "max"),
    ] {
        let change = json!({"identifiers": [id_type]});
        let answer = space.app.patch(SETTINGS, change.clone()).await.expect_problem(422, "invalid");
        assert_eq!(answer.json["field"], field, "{change}: {}", answer.text);
    }
    let priority = |name: &str| json!({"type": name, "priority": 1});
    for (change, field) in [
        (json!({}), "identifiers"),
        (json!({"identifiers": [priority("email"), priority("user_id")]}), "identifiers[1].priority"),
        (json!({"identifiers": [{"type": "email"}, {"type": "email"}]}), "identifiers[1].type"),
        (json!({"merges_max": -1}), "merges_max"),
        (json!({"identifiers_max": 0}), "identifiers_max"),
        (json!({"remove": ["nothing"]}), "remove[0]"),
        (json!({"remove": ["email"], "identifiers": [{"type": "email", "limit": 1}]}), "remove[0]"),
    ] {
        let answer = space.app.patch(SETTINGS, change.clone()).await.expect_problem(422, "invalid");
        assert_eq!(answer.json["field"], field, "{change}: {}", answer.text);
    }
    // The good half of a change is not made either.
    let half = json!({"merges_max": 5, "identifiers": [{"type": "user_id", "limit": 3}, {"type": "email", "limit": 0}]});
    space.app.patch(SETTINGS, half).await.expect_problem(422, "invalid");
    let types: Vec<Value> = (0..190).map(|n| json!({"type": format!("t{n}")})).collect();
    space.app.patch(SETTINGS, json!({"identifiers": types})).await.expect_problem(409, "limit_reached");
    assert_eq!(space.settings().await, before);
}

#[tokio::test]
async fn a_stale_version_and_a_type_in_use_are_conflicts() {
    let mut space = People::start().await;
    let version = space.settings().await["version"].as_i64().unwrap();
    let change = |limit: u8| json!({"version": version, "identifiers": [{"type": "email", "limit": limit}]});
    let (one, two) = tokio::join!(space.app.patch(SETTINGS, change(2)), space.app.patch(SETTINGS, change(3)));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "of two at once, one is told");
    let stale = space.app.patch(SETTINGS, change(4)).await.expect_problem(409, "stale_version");
    assert_eq!(stale.json["field"], "version");

    space.identify("u1", "e@x.y").await;
    space.expect_ids("user_id:u1", "user_id=u1 email=e@x.y").await;
    let held = space.app.patch(SETTINGS, json!({"remove": ["ios.id", "email"]})).await;
    let held = held.expect_problem(409, "in_use");
    assert!(held.json["detail"].as_str().unwrap().contains("email"), "{}", held.text);
    let left = space.app.patch(SETTINGS, json!({"remove": ["ios.id"]})).await.expect(200).json;
    assert_eq!(left["identifiers"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn a_dry_run_says_which_profiles_break_the_rules() {
    let mut space = People::start().await;
    for n in 1..=3 {
        space.identify("u1", &format!("e{n}@x.y")).await;
    }
    space.identify("u2", "f1@x.y").await;
    // Two that were merged count as one.
    space.identify("u2", "f2@x.y").await;
    for words in
        [json!({"anonymousId": "a1"}), json!({"userId": "u3"}), json!({"userId": "u3", "anonymousId": "a1"})]
    {
        space.send("/v1/page", words).await;
    }
    let id = space.get("user_id:u1", "metadata").await["metadata"]["profile_id"].clone();
    let before = space.settings().await;
    let path = format!("{SETTINGS}?dry_run=true");
    let change = json!({"identifiers": [{"type": "email", "limit": 1}, {"type": "app_id"}]});
    let trial = space.app.patch(&path, change).await.expect(200).json;
    assert_eq!((&trial["dry_run"], &trial["profiles"]), (&json!(true), &json!(2)), "{trial}");
    assert_eq!(
        trial["sample"][0],
        json!({"profile_id": id, "of": "identifiers", "type": "email", "values": 3, "limit": 1})
    );
    assert_eq!(type_of(&trial["settings"], "email")["limit"], 1);
    let trial = space.app.patch(&path, json!({"identifiers_max": 3})).await.expect(200).json;
    assert_eq!(
        trial["sample"],
        json!([{"profile_id": id, "of": "identifiers", "type": null, "values": 4, "limit": 3}])
    );
    let trial = space.app.patch(&path, json!({"identifiers_max": 1})).await.expect(200).json;
    assert_eq!(trial["profiles"], 3);
    let none = space.app.patch(&path, json!({"merges_max": 1})).await.expect(200).json;
    assert_eq!((&none["profiles"], &none["sample"]), (&json!(0), &json!([])));
    let none = space.app.patch(&path, json!({"merges_max": 0})).await.expect(200).json;
    let merged = &none["sample"][0];
    assert_eq!(
        (&none["profiles"], &merged["of"], &merged["values"]),
        (&json!(1), &json!("merges"), &json!(1))
    );
    space.app.patch(&path, json!({"merges_max": -1})).await.expect_problem(422, "invalid");
    assert_eq!(space.settings().await, before, "nothing was changed");
}

#[tokio::test]
async fn a_dry_run_counts_what_a_window_counts_and_names_what_would_be_blocked() {
    let mut space = People::start().await;
    for (day, device) in [(1, "a1"), (2, "a2"), (25, "a3"), (26, "a4")] {
        let at = format!("2024-02-{day:02}T00:00:00Z");
        let call = json!({"userId": "u1", "anonymousId": device, "event": "Seen", "timestamp": at});
        space.send("/v1/track", call).await;
    }
    for user in ["test-1", "test-2", "other"] {
        space.identify(user, &format!("{user}@x.y")).await;
    }
    space.get("user_id:other", "metadata").await;
    let path = format!("{SETTINGS}?dry_run=true");
    let mut tried = Vec::new();
    for (frequency, limit) in [("ever", 2), ("monthly", 2), ("weekly", 2), ("weekly", 1)] {
        let change = json!({"type": "anonymous_id", "frequency": frequency, "limit": limit});
        let trial = space.app.patch(&path, json!({"identifiers": [change]})).await.expect(200).json;
        tried.push((trial["profiles"].as_i64().unwrap(), trial["sample"][0]["values"].clone()));
    }
    // On the first of March two of them are older than a week, and none is older than 30 days.
    assert_eq!(tried, [(1, json!(4)), (1, json!(4)), (0, json!(null)), (1, json!(2))]);
    let blocked = json!({"exact": ["null", "OTHER"], "patterns": ["^test-"]});
    let change =
        json!({"identifiers": [{"type": "user_id", "blocked": blocked}, {"type": "email", "limit": 4}]});
    let trial = space.app.patch(&path, change).await.expect(200).json;
    assert_eq!((&trial["blocked"]["ids"], &trial["blocked"]["profiles"]), (&json!(3), &json!(3)), "{trial}");
    let ids = words(&trial["blocked"]["sample"], "type", "=");
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), ["user_id=other", "user_id=test-1", "user_id=test-2"]);
    assert!(trial["blocked"]["sample"][0]["profile_id"].as_str().unwrap().starts_with("prf_"));
}

#[tokio::test]
async fn settings_come_from_another_space_that_the_token_may_read() {
    let space = People::start().await;
    let app = &space.app;
    app.post("/v1/spaces", json!({"id": "acme"})).await.expect(201);
    space.set(json!({"type": "app_id", "keys": ["app_id"], "limit": 3, "priority": 1})).await;
    app.patch(SETTINGS, json!({"merges_max": 7, "add_unknown_types": false})).await.expect(200);
    let import = "/v1/spaces/acme/identity/settings/import";
    let body = json!({"from_space": "default"});
    let trial = app.post(&format!("{import}?dry_run=true"), body.clone()).await.expect(200).json;
    assert_eq!(trial["settings"]["merges_max"], 7);
    assert_eq!(app.get("/v1/spaces/acme/identity/settings").await.json["merges_max"], 100);
    let mut taken = app.post(import, body.clone()).await.expect(200).json;
    let mut expected = space.settings().await;
    (taken["version"], expected["version"]) = (json!(0), json!(0));
    assert_eq!(taken, expected);

    let stale = json!({"from_space": "default", "version": 1_000});
    app.post(import, stale).await.expect_problem(409, "stale_version");
    app.post(import, json!({"from_space": "acme"})).await.expect_problem(422, "invalid");
    app.post(import, json!({"from_space": "nowhere"})).await.expect_problem(404, "not_found");
    let scopes = json!({"name": "t", "scopes": ["read", "write", "admin"]});
    let token = app.post("/v1/spaces/acme/tokens", scopes).await.expect(201).json["token"].clone();
    let foreign = app.call_as(token.as_str().unwrap(), Method::POST, import, Some(body)).await;
    foreign.expect_problem(404, "not_found");
}

#[tokio::test]
async fn the_feed_names_what_is_refused_most_often_first() {
    let mut space = People::start().await;
    for user in ["u1", "u2", "u3"] {
        for _ in 0..2 {
            let call = json!({"userId": user, "anonymousId": "null", "event": "Seen"});
            space.send("/v1/track", call).await;
        }
    }
    space.identify("u1", "shared@x.y").await;
    space.identify("u2", "shared@x.y").await;
    space.send("/v1/track", json!({"userId": "0", "event": "Seen"})).await;
    let problems = feed(&space, "").await;
    let at = "2024-03-01T12:00:00.000Z";
    let row = |rule: &str, name: &str, id: &str, occurrences: u8, profiles: u8| {
        json!({"rule": rule, "type": name, "id": id, "occurrences": occurrences, "profiles": profiles,
            "first_at": at, "last_at": at, "quarantined_at": null})
    };
    let rows = problems["data"].as_array().unwrap();
    assert_eq!(rows[0], row("ID value blocked", "anonymous_id", "null", 6, 3));
    assert!(
        rows.contains(&row("Identifier value limit exceeded", "email", "shared@x.y", 1, 1)),
        "{problems}"
    );
    assert!(rows.contains(&row("ID value blocked", "user_id", "0", 1, 0)), "nobody's: {problems}");
    assert_eq!(rows.len(), 3);
    let rule =
        |rule: &str, ids: u8, occurrences: u8| json!({"rule": rule, "ids": ids, "occurrences": occurrences});
    let rules = json!([rule("ID value blocked", 2, 7), rule("Identifier value limit exceeded", 1, 1)]);
    assert_eq!(problems["rules"], rules);
    // Page by page it is the same.
    let (mut paged, mut next) = (Vec::new(), String::new());
    loop {
        let page = feed(&space, &format!("&limit=1&cursor={next}")).await;
        paged.extend(page["data"].as_array().unwrap().clone());
        next = page["cursor"]["next"].as_str().unwrap().to_owned();
        if next.is_empty() {
            break;
        }
    }
    assert_eq!(&paged, rows);
    space.app.get(&format!("{PROBLEMS}?cursor=x")).await.expect_problem(400, "invalid_cursor");
}
