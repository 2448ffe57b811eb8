//! Threats that no other test is about (docs/security.md says which test shows what).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::harness::acts::{Case, SPACE};
use crate::harness::app::{TestApp, Wish, send};
use crate::harness::destinations::sending;
use crate::harness::process::Server;
use crate::harness::receiver::{Receiver, Reply};

/// Another space with a source; its write key.
async fn another_space(app: &TestApp, key: &str) -> String {
    app.post("/v1/spaces", json!({"id": key, "name": key})).await.expect(201);
    let source = json!({"name": "web"});
    let made = app.post(&format!("/v1/spaces/{key}/sources"), source).await.expect(201).json;
    made["write_key"].as_str().unwrap().to_owned()
}

async fn track_as(app: &TestApp, key: &str, call: Value) -> u64 {
    let request = app.request(reqwest::Method::POST, "/v1/track").basic_auth(key, Some(""));
    send(request.body(call.to_string())).await.expect(200).offset()
}

/// Whoever reads the key in a page can say anything of anybody whose user id is known or guessed.
#[tokio::test]
async fn t02_forged_calls_merge_nobody_and_change_nothing_that_others_have_said() {
    let app = TestApp::start().await;
    let sources = format!("{SPACE}/sources");
    let page = app.post(&sources, json!({"name": "page", "public": true})).await.expect(201).json;
    assert_eq!(page["public"], true);
    let key = page["write_key"].as_str().unwrap();
    let users = 20;
    let own = |n: usize| json!({"plan": "gold", "email": format!("u{n}@x.org")});
    let known = (0..users).map(|n| {
        json!({"type": "identify", "userId": format!("u{n}"), "timestamp": "2024-03-01T00:00:00Z",
        "traits": own(n)})
    });
    app.processed("/v1/batch", json!({"batch": known.collect::<Vec<_>>()})).await;
    // Each says it is somebody, and gives them the address of another and a plan, now and later.
    let forged = (0..1_000).map(|n| {
        let (user, other) = (n % users, (n * 7 + 1) % users);
        json!({"type": "identify", "userId": format!("u{user}"), "anonymousId": format!("thief{}", n % 3),
            "traits": {"plan": format!("stolen{n}"), "email": format!("u{other}@x.org"), "note": "theirs"}})
    });
    let calls = json!({"batch": forged.collect::<Vec<_>>()});
    let request = app.request(reqwest::Method::POST, "/v1/batch").basic_auth(key, Some(""));
    let offset = send(request.body(calls.to_string())).await.expect(200).offset();
    let mut profiles = std::collections::BTreeSet::new();
    for n in 0..users {
        let profile = format!("{SPACE}/collections/users/profiles/user_id:u{n}");
        let traits = app.get(&format!("{profile}/traits?min_offset={offset}")).await.expect(200).json;
        let expected = own(n);
        assert_eq!(
            (&traits["traits"]["plan"], &traits["traits"]["email"]),
            (&expected["plan"], &expected["email"]),
            "{n}"
        );
        // What nobody else has said, they may say.
        assert_eq!(traits["traits"]["note"], "theirs", "{n}");
        let identity = app.get(&format!("{profile}/identity")).await.expect(200).json;
        profiles.insert(identity["profile_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(profiles.len(), users);
    // It can be heard again: from a source whose key is kept, the newest word holds.
    app.processed("/v1/identify", json!({"userId": "u1", "traits": {"note": "ours", "plan": "none"}})).await;
    let traits =
        app.get(&format!("{SPACE}/collections/users/profiles/user_id:u1/traits")).await.expect(200).json;
    assert_eq!((&traits["traits"]["note"], &traits["traits"]["plan"]), (&json!("ours"), &json!("none")));
    let path = format!("{sources}/{}", page["id"].as_str().unwrap());
    app.patch(&path, json!({"public": null})).await.expect(422);
    assert_eq!(app.patch(&path, json!({"public": false})).await.expect(200).json["public"], false);
    let (said, code) = crate::verify::verify(&app.db, &[]);
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn t37_what_is_nobodys_business_outside_has_an_address_of_its_own() {
    let app = Wish::default().option("server.internal_listen", "127.0.0.1:0").start().await;
    let internal = app.running.internal_address().unwrap();
    let get = async |address: &str, path: &str| send(app.client.get(format!("{address}{path}"))).await;
    let inside = format!("http://{internal}");
    assert!(get(&inside, "/metrics").await.expect(200).text.contains("personas_"));
    assert_eq!(get(&inside, "/livez").await.expect(200).text, "ok");
    assert!(get(&inside, "/readyz?verbose").await.expect(200).json["checks"].is_array());
    // Nothing else is there; and nothing of it is outside.
    get(&inside, "/v1/spaces").await.expect_problem(404, "not_found");
    get(&app.url, "/metrics").await.expect_problem(404, "not_found");
    assert_eq!(get(&app.url, "/readyz?verbose").await.expect(200).json, json!({"ready": true}));
    assert_eq!(get(&app.url, "/livez").await.expect(200).text, "ok");
}

#[tokio::test]
async fn t06_one_message_id_in_two_spaces_counts_in_both() {
    let app = TestApp::start().await;
    let key = another_space(&app, "acme").await;
    let call = json!({"userId": "u1", "event": "Order", "messageId": "same"});
    let first = app.track("/v1/track", call.clone()).await.expect(200).offset();
    let second = track_as(&app, &key, call).await;
    for (space, offset) in [("default", first), ("acme", second)] {
        let path =
            format!("/v1/spaces/{space}/collections/users/profiles/user_id:u1/events?min_offset={offset}");
        let events = app.get(&path).await.expect(200).json;
        assert_eq!(events["data"].as_array().unwrap().len(), 1, "{space}");
    }
}

#[tokio::test]
async fn t09_a_destination_is_told_of_its_own_space_alone() {
    let app = sending().start().await;
    let receivers = [Receiver::start().await, Receiver::start().await];
    let keys = [another_space(&app, "one").await, another_space(&app, "two").await];
    for (space, receiver) in ["one", "two"].iter().zip(&receivers) {
        let settings = json!({"url": format!("{}/hook", receiver.url)});
        let path = format!("/v1/spaces/{space}/destinations");
        let hook = app.post(&path, json!({"name": "CRM", "kind": "webhook", "settings": settings})).await;
        let id = hook.expect(201).json["id"].as_str().unwrap().to_owned();
        app.post(&format!("{path}/{id}/subscriptions"), json!({"subject": "custom_traits"}))
            .await
            .expect(201);
    }
    for n in 0..50 {
        for (space, key) in ["one", "two"].iter().zip(&keys) {
            let request = app.request(reqwest::Method::POST, "/v1/identify").basic_auth(key, Some(""));
            let call = json!({"userId": format!("u{n}"), "traits": {"of": space}});
            send(request.body(call.to_string())).await.expect(200);
        }
    }
    for (space, receiver) in ["one", "two"].iter().zip(&receivers) {
        let told = receiver.wait_taken(50).await;
        assert!(told.iter().all(|event| event["traits"]["of"] == *space), "{space}: {told:?}");
    }
}

#[tokio::test]
async fn t22_requests_that_are_sent_again_change_nothing() {
    let mut case = Case::start(Wish::default()).await;
    case.app.make_live("audiences", "buyers", "event('Order').count() = 2").await;
    let batch: Vec<Value> = (0..200)
        .map(|n| {
            let who = format!("u{}", n % 20);
            json!({"type": "track", "event": "Order", "userId": who, "messageId": format!("m{}", n % 40)})
        })
        .collect();
    let body = json!({"batch": batch});
    case.offset = case.app.track("/v1/batch", body.clone()).await.expect(200).offset();
    let before = (case.sizes().await, case.told("users", "user_id:u7").await);
    assert_eq!(before.0, json!({"buyers": 20}));
    for _ in 0..5 {
        case.offset = case.app.track("/v1/batch", body.clone()).await.expect(200).offset();
    }
    assert_eq!((case.sizes().await, case.told("users", "user_id:u7").await), before);
}

#[tokio::test]
async fn t26_there_is_nothing_that_everybody_knows() {
    let app = TestApp::start().await;
    let names = ["", "admin", "personas", "owner", "postgres", "root", "default", "password", "changeme"];
    for secret in
        names.iter().flat_map(|name| [(*name).to_owned(), format!("tok_{name}"), format!("wk_{name}")])
    {
        let answer = app.call_as(&secret, reqwest::Method::GET, SPACE, None).await;
        assert_eq!(answer.status, 401, "{secret}");
        let request = app.request(reqwest::Method::POST, "/v1/track").basic_auth(&secret, Some(""));
        let call = json!({"userId": "u1", "event": "Order"}).to_string();
        assert_eq!(send(request.body(call)).await.status, 401, "{secret}");
    }
}

#[tokio::test]
async fn t30_no_value_is_a_formula_in_a_spreadsheet() {
    let app = TestApp::start().await;
    app.make_live("audiences", "all", "trait('note').exists()").await;
    let mut offset = 0;
    let values = [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+A1+1", "'+A1+1"),
        ("-2+3+cmd", "'-2+3+cmd"),
        ("+47 123 45 678", "+47 123 45 678"),
        ("-12.5", "-12.5"),
        ("plain", "plain"),
    ];
    for (n, (value, _)) in values.iter().enumerate() {
        let call = json!({"userId": format!("u{n}"), "traits": {"note": value}});
        offset = app.track("/v1/identify", call).await.expect(200).offset();
    }
    let path =
        format!("{SPACE}/audiences/all/members?format=csv&traits=note&include=user_id&min_offset={offset}");
    let file = app.get(&path).await.expect(200);
    let notes: Vec<&str> = file.text.lines().skip(1).map(|line| line.split(',').nth(3).unwrap()).collect();
    let expected: Vec<&str> = values.iter().map(|(_, written)| *written).collect();
    assert_eq!(notes, expected);
}

/// What operators do with the people of the test: ask, list, merge, take back, keep apart, export.
async fn operated(server: &Server) {
    let client = reqwest::Client::builder().build().unwrap();
    let query = json!({"query": "trait('note') = 'canary note' and event('Order').where(property('city') = 'canary city').count() >= 1"});
    server.post("audiences/preview", json!({"definition": query})).await;
    server.post("audiences", json!({"key": "some", "definition": query})).await;
    server.post("audiences", json!({"key": "vip", "definition": {"list": true}})).await;
    let rows = client.post(format!("{}/v1/spaces/default/audiences/vip/members", server.url));
    let rows = rows.bearer_auth("tok_canary_secret").header("content-type", "text/csv");
    rows.body("user_id\ncanary-user\n").send().await.unwrap().error_for_status().unwrap();
    let pair = json!({"profiles": ["user_id:canary-user", "user_id:canary-other"]});
    let mut together = pair.clone();
    together["override_limits"] = json!(true);
    server.post("identity/merges", together).await;
    let merged = server.get("collections/users/profiles/user_id:canary-other/identity").await;
    let merge = merged["merges"][0]["id"].as_str().expect("they are one");
    server.post(&format!("identity/merges/{merge}/undo"), json!({})).await;
    server.post("identity/blocks", pair).await;
    server.post("collections/users/profiles/user_id:canary-user/objections", json!({})).await;
    let export = client.get(format!("{}/v1/spaces/default/export", server.url));
    let export = export.bearer_auth("tok_canary_secret").send().await.unwrap().text().await.unwrap();
    assert!(export.contains("canary-user"), "it exports something else");
}

#[tokio::test(flavor = "multi_thread")]
async fn t25_no_log_line_says_who_anybody_is() {
    let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let folder = dir.path().join("data");
    let variables = [
        ("PERSONAS_BOOTSTRAP_TOKEN", "tok_canary_secret"),
        ("PERSONAS_BOOTSTRAP_WRITE_KEY", "wk_canary_secret"),
        (&*personas::config::variable("telemetry.log"), "trace"),
        (&*personas::config::variable("egress.allow_networks"), "127.0.0.0/8"),
    ];
    let server = Server::start(&folder, "tok_canary_secret", &variables).await;
    let receiver = Receiver::start_with(|_, _| Reply::Status(400)).await;
    let settings =
        json!({"url": format!("{}/hook?token=canary", receiver.url), "headers": {"X-Key": "canary-key"}});
    let hook =
        server.post("destinations", json!({"name": "CRM", "kind": "webhook", "settings": settings})).await;
    let subscribe = format!("destinations/{}/subscriptions", hook["id"].as_str().unwrap());
    server.post(&subscribe, json!({"subject": "custom_traits"})).await;
    let client = reqwest::Client::builder().build().unwrap();
    let mut offset = 0;
    for (path, call) in [
        (
            "identify",
            json!({"userId": "canary-user", "traits": {"email": "who@canary.example", "note": "canary note"}}),
        ),
        ("track", json!({"userId": "canary-user", "event": "Order", "properties": {"city": "canary city"}})),
        ("identify", json!({"userId": "canary-other", "traits": {"email": "who@canary.example"}})),
        (
            "track",
            json!({"userId": "canary-user", "properties": {"canary": "\r\nFAKE 2024 line \u{1b}[31m"}}),
        ),
        ("track", json!({"event": "nobody", "properties": {"canary": 1}})),
    ] {
        let request =
            client.post(format!("{}/v1/{path}", server.url)).basic_auth("wk_canary_secret", Some(""));
        let answer = request.body(call.to_string()).send().await.unwrap();
        if let Some(at) = answer.headers().get("personas-offset") {
            offset = at.to_str().unwrap().parse().unwrap();
        }
    }
    for path in
        ["user_id:canary-user/traits", "email:who@canary.example/events", "user_id:canary-nobody/traits"]
    {
        server.get(&format!("collections/users/profiles/{path}?min_offset={offset}")).await;
    }
    server.get("collections/users/profiles?search=canary").await;
    server.get("rejected-events").await;
    operated(&server).await;
    receiver.wait(|all| (all.count() > 0).then_some(())).await;
    server
        .post("regulations", json!({"regulation_type": "DELETE_ONLY", "subject_ids": ["canary-user"]}))
        .await;
    server.get("regulations").await;
    let metrics = client.get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
    assert!(!metrics.contains("canary"), "{metrics}");
    server.kill();
    let log = fs::read_to_string(folder.with_extension("log")).unwrap();
    assert!(log.contains("TRACE"), "it is no trace");
    let told: Vec<&str> = log.lines().filter(|line| line.contains("canary")).collect();
    assert!(told.is_empty(), "{} lines, such as {:.600}", told.len(), told[0]);
    assert!(!log.contains("FAKE"), "a value stands in the log");
}

/// A page that names tests names tests that there are.
#[test]
fn the_tests_that_are_named_are_there() {
    let page = fs::read_to_string("docs/security.md").unwrap();
    let named: Vec<(&str, &str)> = page
        .split('`')
        .filter_map(|word| word.split_once("::"))
        .filter(|(module, test)| {
            [module, test].iter().all(|w| w.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()))
        })
        .collect();
    assert!(named.len() > 40, "{named:?}");
    for (module, test) in named {
        let file = fs::read_to_string(format!("tests/it/{module}.rs")).unwrap_or_default();
        assert!(
            file.contains(&format!("fn {test}(")),
            "docs/security.md names {module}::{test}, which is not there"
        );
    }
    for no in 1..=37 {
        assert!(page.contains(&format!("| T{no:02} |")), "T{no:02}");
    }
}
