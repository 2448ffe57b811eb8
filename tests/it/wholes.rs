//! Audiences as wholes: members as files, checks of many profiles, overlaps, identifiers, sizes over time, copies.

use serde_json::{Value, json};

use crate::harness::app::{Answer, TOKEN, TestApp, Wish};

const SPACE: &str = "/v1/spaces/default";
const NOW: &str = "2024-03-01T12:00:00.000Z";

/// Ada (two e-mail addresses), Bob (none), and one who never bought.
async fn shop() -> (TestApp, u64) {
    let app = Wish::default().at(NOW).start().await;
    app.make_live("audiences", "buyers", "event('Order Completed').count() >= 1").await;
    app.make_live("audiences", "pros", "trait('plan') = 'pro'").await;
    app.make_live("computed-traits", "spent", "event('Order Completed').sum(property('total'))").await;
    let batch = json!({"batch": [
        {"type": "identify", "userId": "ada", "timestamp": "2024-02-01T00:00:00Z",
            "traits": {"email": "old@example.com", "plan": "pro", "name": "Ada \"A\", Lovelace"}},
        {"type": "identify", "userId": "ada", "timestamp": "2024-02-02T00:00:00Z", "traits": {"email": "ada@example.com"}},
        {"type": "track", "userId": "ada", "event": "Order Completed", "properties": {"total": 30.5}},
        {"type": "track", "userId": "bob", "event": "Order Completed", "properties": {"total": 5}},
        {"type": "identify", "userId": "eve", "traits": {"plan": "pro", "email": "eve@example.com"}},
    ]});
    let offset = app.track("/v1/batch", batch).await.expect(200).offset();
    app.get(&format!("{SPACE}/audiences/sizes?min_offset={offset}")).await.expect(200);
    (app, offset)
}

async fn id_of(app: &TestApp, user: &str) -> String {
    let path = format!("{SPACE}/collections/users/profiles/user_id:{user}/metadata");
    app.get(&path).await.expect(200).json["metadata"]["profile_id"].as_str().unwrap().to_owned()
}

async fn accepting(app: &TestApp, path: &str, kind: &str) -> Answer {
    let request = app.request(reqwest::Method::GET, path).bearer_auth(TOKEN).header("accept", kind);
    crate::harness::app::send(request).await
}

#[tokio::test]
async fn members_come_as_a_file_with_what_is_asked_for() {
    let (app, _) = shop().await;
    let (ada, bob) = (id_of(&app, "ada").await, id_of(&app, "bob").await);
    let members = format!("{SPACE}/audiences/buyers/members");
    let file = app.get(&format!("{members}?format=csv&traits=name,spent")).await.expect(200);
    assert_eq!(file.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(file.header("content-disposition"), "attachment; filename=\"buyers.csv\"");
    let expected = format!(
        "profile_id,entered_at,user_id,email,anonymous_id,name,spent\n\
         {ada},{NOW},ada,ada@example.com,,\"Ada \"\"A\"\", Lovelace\",30.5\n\
         {bob},{NOW},bob,,,,5\n"
    );
    assert_eq!(file.text, expected, "of several identifiers the newest");
    let file = accepting(&app, &format!("{members}?include=email"), "text/csv").await.expect(200);
    assert_eq!(
        file.text,
        format!("profile_id,entered_at,email\n{ada},{NOW},ada@example.com\n{bob},{NOW},\n")
    );
    let file =
        accepting(&app, &format!("{members}?traits=spent,nothing"), "application/x-ndjson").await.expect(200);
    assert_eq!(file.header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> = file.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids = json!([
        {"type": "user_id", "id": "ada"}, {"type": "email", "id": "old@example.com"},
        {"type": "email", "id": "ada@example.com"},
    ]);
    let ada = json!({"profile_id": ada, "entered_at": NOW, "external_ids": ids, "traits": {"spent": 30.5}});
    assert_eq!(lines[0], ada);
    assert_eq!(lines.len(), 2);
    let large = json!({"userId": "ada"})
        .to_string()
        .replace('}', ",\"traits\":{\"serial\":12345678901234567890123}}");
    let offset = app.track("/v1/identify", large).await.expect(200).offset();
    let path = format!("{members}?format=ndjson&traits=serial&min_offset={offset}");
    assert!(app.get(&path).await.expect(200).text.contains(":12345678901234567890123}"), "all digits");
    // Every browser says so.
    assert!(accepting(&app, &members, "text/html, */*").await.expect(200).json["data"].is_array());
    app.get(&format!("{members}?format=xml")).await.expect_problem(400, "bad_request");
    app.get(&format!("{SPACE}/audiences/nobody/members?format=csv")).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_file_has_every_member_once_however_many_there_are() {
    let app = TestApp::start().await;
    app.make_live("audiences", "all", "event('Seen').count() >= 1").await;
    let mut offset = 0;
    for part in 0..2 {
        let event = |n: u32| json!({"type": "track", "userId": format!("u{part}-{n}"), "event": "Seen"});
        let batch: Vec<Value> = (0..1_300).map(event).collect();
        offset = app.track("/v1/batch", json!({"batch": batch})).await.expect(200).offset();
    }
    let file =
        app.get(&format!("{SPACE}/audiences/all/members?format=csv&min_offset={offset}")).await.expect(200);
    let mut users: Vec<&str> =
        file.text.lines().skip(1).map(|line| line.split(',').nth(2).unwrap()).collect();
    users.sort_unstable();
    users.dedup();
    assert_eq!(users.len(), 2_600);
    assert_eq!(file.text.lines().count(), 2_601);
}

#[tokio::test]
async fn many_memberships_are_checked_in_one_call() {
    let (app, _) = shop().await;
    let (ada, path) = (id_of(&app, "ada").await, format!("{SPACE}/memberships/check"));
    let ids = json!([
        "user_id:ada",
        format!("profile_id:{ada}"),
        "email:EVE@example.com",
        "user_id:nobody",
        "shoe_size:44",
        "user_id:bob",
        "user_id:bob"
    ]);
    let checked = app.post(&path, json!({"ids": ids})).await.expect(200).json;
    let row = |id: &str, who: Option<&str>, audiences: &[&str]| match who {
        Some(who) => json!({"id": id, "found": true, "profile_id": who, "audiences": audiences}),
        None => json!({"id": id, "found": false, "audiences": []}),
    };
    let (bob, eve) = (id_of(&app, "bob").await, id_of(&app, "eve").await);
    let expected = json!([
        row("user_id:ada", Some(&ada), &["buyers", "pros"]),
        row(&format!("profile_id:{ada}"), Some(&ada), &["buyers", "pros"]),
        row("email:EVE@example.com", Some(&eve), &["pros"]),
        row("user_id:nobody", None, &[]),
        row("shoe_size:44", None, &[]),
        row("user_id:bob", Some(&bob), &["buyers"]),
        row("user_id:bob", Some(&bob), &["buyers"]),
    ]);
    assert_eq!(checked["data"], expected);
    let some = json!({"ids": ["user_id:ada"], "audiences": ["pros"]});
    assert_eq!(app.post(&path, some).await.expect(200).json["data"][0]["audiences"], json!(["pros"]));
    let many: Vec<String> = (0..1_000).map(|n| format!("user_id:u{n}")).collect();
    let answer = app.post(&path, json!({"ids": many})).await.expect(200).json;
    assert_eq!(answer["data"].as_array().unwrap().len(), 1_000);
    for (body, code, field) in [
        (json!({"ids": []}), "invalid", "ids"),
        (json!({"ids": vec!["user_id:u"; 1_001]}), "invalid", "ids"),
        (json!({"ids": ["user_id:u", "ada"]}), "invalid", "ids[1]"),
        (json!({"ids": ["user_id:u"], "collection": "pets"}), "invalid", "collection"),
    ] {
        let refused = app.post(&path, body).await.expect_problem(422, code);
        assert_eq!(refused.json["field"], field);
    }
    let unknown = json!({"ids": ["user_id:ada"], "audiences": ["nothing"]});
    app.post(&path, unknown).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_merged_profile_is_checked_under_all_its_names() {
    let (app, _) = shop().await;
    let path = format!("{SPACE}/memberships/check");
    let batch = json!({"batch": [
        {"type": "track", "anonymousId": "a1", "event": "Seen"},
        {"type": "track", "anonymousId": "a2", "event": "Order Completed"},
    ]});
    let offset = app.track("/v1/batch", batch).await.expect(200).offset();
    app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.expect(200);
    let before = app.post(&path, json!({"ids": ["anonymous_id:a2"]})).await.expect(200).json;
    let former = before["data"][0]["profile_id"].as_str().unwrap().to_owned();
    for anonymous in ["a1", "a2"] {
        let both = json!({"userId": "ada", "anonymousId": anonymous});
        let offset = app.track("/v1/identify", both).await.expect(200).offset();
        app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.expect(200);
    }
    let checked = app.post(&path, json!({"ids": [format!("profile_id:{former}"), "anonymous_id:a2"]})).await;
    let ada = id_of(&app, "ada").await;
    for row in checked.expect(200).json["data"].as_array().unwrap() {
        assert_eq!((&row["profile_id"], &row["audiences"]), (&json!(ada), &json!(["buyers", "pros"])));
    }
    // Its identifiers count once, under the profile it became.
    let found = app.get(&format!("{SPACE}/audiences/buyers/identifiers")).await.expect(200).json;
    let expected = json!([
        {"type": "user_id", "members": 2, "percent": 100.0},
        {"type": "anonymous_id", "members": 1, "percent": 50.0},
        {"type": "email", "members": 1, "percent": 50.0},
    ]);
    assert_eq!((&found["size"], &found["identifiers"]), (&json!(2), &expected));
}

#[tokio::test]
async fn overlaps_and_identifiers_add_up() {
    let (app, _) = shop().await;
    let overlap = async |a: &str, b: &str| {
        app.get(&format!("{SPACE}/audiences/{a}/overlap/{b}")).await.expect(200).json
    };
    let part = |key: &str, size: i64, only: i64| json!({"key": key, "size": size, "only": only});
    assert_eq!(
        overlap("buyers", "pros").await,
        json!({"a": part("buyers", 2, 1), "b": part("pros", 2, 1), "both": 1})
    );
    assert_eq!(
        overlap("buyers", "buyers").await,
        json!({"a": part("buyers", 2, 0), "b": part("buyers", 2, 0), "both": 2})
    );
    app.make_live("audiences", "empty", "event('Never').count() >= 1").await;
    assert_eq!(
        overlap("empty", "pros").await,
        json!({"a": part("empty", 0, 0), "b": part("pros", 2, 2), "both": 0})
    );
    app.get(&format!("{SPACE}/audiences/buyers/overlap/nothing")).await.expect_problem(404, "not_found");
    app.get(&format!("{SPACE}/audiences/nothing/overlap/buyers")).await.expect_problem(404, "not_found");
    for path in ["overlap/pros", "identifiers", "size/history?from=2024-01-01", "versions"] {
        let path = format!("{SPACE}/audiences/buyers/{path}");
        let tag = app.get(&path).await.expect(200).header("etag").to_owned();
        let request =
            app.request(reqwest::Method::GET, &path).bearer_auth(TOKEN).header("if-none-match", tag);
        crate::harness::app::send(request).await.expect(304);
    }
    let none = app.get(&format!("{SPACE}/audiences/empty/identifiers")).await.expect(200).json;
    assert_eq!(none, json!({"key": "empty", "size": 0, "identifiers": []}));
}

#[tokio::test]
async fn the_history_of_a_size_is_kept_by_the_minute_and_thinned_after_a_month() {
    let app = Wish::default().at(NOW).start().await;
    app.make_live("audiences", "fresh", "event('Seen').within(1 hour).count() >= 1").await;
    let seen = async |user: &str| {
        let call = json!({"userId": user, "event": "Seen"});
        let offset = app.track("/v1/track", call).await.expect(200).offset();
        app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.expect(200);
    };
    let move_to = async |now: &str| {
        app.put("/v1/test-clock", json!({"now": now})).await.expect(200);
    };
    let history = async |params: &str| {
        let path = format!("{SPACE}/audiences/fresh/size/history?{params}");
        let body = app.get(&path).await.expect(200).json;
        let point = |p: &Value| (p["at"].as_str().unwrap()[11..16].to_owned(), p["size"].as_i64().unwrap());
        body["data"].as_array().unwrap().iter().map(point).collect::<Vec<_>>()
    };
    let points = |list: &[(&str, i64)]| list.iter().map(|(at, n)| ((*at).to_owned(), *n)).collect::<Vec<_>>();
    seen("u1").await;
    seen("u2").await;
    move_to("2024-03-01T12:05:30Z").await;
    seen("u3").await;
    move_to("2024-03-01T15:00:00Z").await;
    let all = points(&[("12:00", 2), ("12:05", 3), ("13:00", 1), ("13:05", 0)]);
    assert_eq!(history("").await, all, "what the clock does, too, at its instant");
    let hours = points(&[("12:00", 0), ("13:00", 3), ("14:00", 0), ("15:00", 0)]);
    assert_eq!(history("from=2024-03-01T12:00:00Z&step=hour").await, hours);
    let since = points(&[("12:05", 3), ("13:00", 1), ("13:05", 0)]);
    assert_eq!(history("from=2024-03-01T12:30:00Z").await, since, "and what it was at the beginning");
    assert_eq!(history("to=2024-03-01T12:04:00Z").await, points(&[("12:00", 2)]));
    // An edit continues it.
    let change = json!({"definition": {"query": "event('Seen').count() >= 1"}});
    app.patch(&format!("{SPACE}/audiences/fresh"), change).await.expect(200);
    app.live("audiences", "fresh").await;
    assert_eq!(history("from=2024-03-01T14:00:00Z").await, points(&[("13:05", 0), ("15:00", 3)]));
    move_to("2024-04-02T00:00:00Z").await;
    let app = {
        // Housekeeping begins with the start.
        app.running.stop(std::time::Duration::ZERO).await.unwrap();
        Wish::default().at("2024-04-02T00:00:01Z").start_on(app.db).await
    };
    let path = format!("{SPACE}/audiences/fresh/size/history?from=2024-03-01T00:00:00Z");
    let thinned = async || app.get(&path).await.expect(200).json["data"].as_array().unwrap().len();
    while thinned().await > 3 {
        tokio::task::yield_now().await;
    }
    let left = app.get(&path).await.expect(200).json;
    let left: Vec<&Value> = left["data"].as_array().unwrap().iter().map(|p| &p["size"]).collect();
    assert_eq!(left, [3, 0, 3], "the last of each hour");
    for bad in
        ["from=yesterday", "step=week", "from=2024-04-03T00:00:00Z", "from=2020-01-01T00:00:00Z&step=minute"]
    {
        let path = format!("{SPACE}/audiences/fresh/size/history?{bad}");
        app.get(&path).await.expect_problem(400, "bad_request");
    }
}

#[tokio::test]
async fn a_definition_is_copied_and_tried_before_it_is_made() {
    let (app, _) = shop().await;
    let audiences = format!("{SPACE}/audiences");
    let body = json!({"key": "rich", "definition": {"query": "trait('spent') > 10"}, "options": {"include_anonymous": true}});
    let tried = app.post(&format!("{audiences}?dry_run=true"), body.clone()).await.expect(200).json;
    assert_eq!(
        (&tried["dry_run"], &tried["size"], &tried["enters"], &tried["leaves"]),
        (&json!(true), &json!(1), &json!(1), &json!(0))
    );
    app.get(&format!("{audiences}/rich")).await.expect_problem(404, "not_found");
    for (bad, status, code) in [
        (json!({"key": "buyers", "definition": {"query": "everyone()"}}), 409, "conflict"),
        (json!({"key": "Rich", "definition": {"query": "everyone()"}}), 422, "invalid"),
        (json!({"key": "rich", "definition": {"query": "event("}}), 422, "invalid_query"),
        (json!({"key": "rich", "definition": {"query": "audience('rich')"}}), 422, "cycle"),
    ] {
        app.post(&format!("{audiences}?dry_run=true"), bad).await.expect_problem(status, code);
    }
    app.post(&audiences, body).await.expect(201);
    let copied =
        app.post(&format!("{audiences}/rich/clone"), json!({"key": "rich_too", "name": "Rich, too"})).await;
    let copied = copied.expect(201).json;
    assert_eq!(
        (&copied["key"], &copied["name"], &copied["version"]),
        (&json!("rich_too"), &json!("Rich, too"), &json!(1))
    );
    assert_eq!(
        (&copied["definition"]["query"], &copied["options"]["include_anonymous"]),
        (&json!("trait('spent') > 10"), &json!(true))
    );
    app.live("audiences", "rich_too").await;
    assert_eq!(app.get(&format!("{audiences}/rich_too/size")).await.expect(200).json["size"], 1);
    app.post(&format!("{audiences}/rich/clone"), json!({"key": "rich_too"}))
        .await
        .expect_problem(409, "conflict");
    app.post(&format!("{audiences}/rich/clone"), json!({})).await.expect_problem(422, "invalid");
    app.post(&format!("{audiences}/nothing/clone"), json!({"key": "x"}))
        .await
        .expect_problem(404, "not_found");
    // A computed trait is no audience.
    app.post(&format!("{audiences}/spent/clone"), json!({"key": "x"})).await.expect_problem(404, "not_found");
    let copy = app
        .post(&format!("{SPACE}/computed-traits/spent/clone"), json!({"key": "spent_too", "enabled": false}))
        .await;
    assert_eq!(copy.expect(201).json["status"], "disabled");
}
