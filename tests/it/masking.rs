//! Personal data is shown to tokens with `pii:read` and to nobody else, wherever an answer has some.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Answer, TestApp, send};
use crate::harness::destinations::sending;
use crate::harness::receiver::Receiver;

const SPACE: &str = "/v1/spaces/default";
/// In every value that is personal here.
const CANARY: &str = "canary";

async fn token(app: &TestApp, role: &str) -> String {
    let made = app.post(&format!("{SPACE}/tokens"), json!({"name": role, "role": role})).await.expect(201);
    made.json["token"].as_str().unwrap().to_owned()
}

/// A space in which everything that can show something personal does.
async fn populated(receiver: &Receiver) -> TestApp {
    let app = sending().start().await;
    app.make_live("audiences", "seen", "event('Seen').count() >= 1").await;
    app.make_live("audiences", "elsewhere", "trait('city') = 'Paris'").await;
    app.make_live("computed-traits", "colour", "event('Seen').last(property('colour'))").await;
    let hook = app.make_webhook("Hook", receiver, json!({})).await;
    app.subscribe(&hook, json!({"subject": "computed_trait", "key": "colour"})).await;
    app.track("/v1/track", json!({"userId": "canary-refused", "event": 7})).await.expect(400);
    app.patch(&format!("{SPACE}/identity/settings"), json!({"quarantine_threshold": 2})).await;
    let calls = [
        // What came only once is in no list of frequent values.
        ("/v1/identify", json!({"userId": "canary-1", "traits": {"city": "canary-town"}})),
        (
            "/v1/identify",
            json!({"userId": "canary-1", "traits": {"email": "canary@x.org", "city": "canary-town"}}),
        ),
        (
            "/v1/group",
            json!({"userId": "canary-1", "groupId": "canary-inc", "traits": {"name": "canary Inc."}}),
        ),
        (
            "/v1/track",
            json!({"userId": "canary-1", "event": "Seen", "properties": {"colour": "canary-yellow"},
            "context": {"page": {"url": "https://canary.test"}}}),
        ),
        (
            "/v1/track",
            json!({"userId": "canary-1", "event": "Seen", "properties": {"colour": "canary-yellow"}}),
        ),
        ("/v1/track", json!({"anonymousId": "canary-2", "event": "Seen"})),
        // Refused by the limit of one user_id.
        (
            "/v1/track",
            json!({"userId": "canary-3", "event": "Seen", "context": {"externalIds":
            [{"id": "canary@x.org", "type": "email", "collection": "users", "encoding": "none"}]}}),
        ),
    ];
    for (path, call) in calls {
        app.processed(path, call).await;
    }
    let pair = json!({"profiles": ["user_id:canary-1", "anonymous_id:canary-2"]});
    app.post(&format!("{SPACE}/identity/merges"), pair).await.expect(200);
    app.post(&format!("{SPACE}/consent/categories"), json!({"id": "ads", "name": "Ads"})).await.expect(201);
    app.regulate("SUPPRESS_ONLY", "USER_ID", &["canary-9"]).await;
    receiver.wait_taken(1).await;
    app.wait_sent(&hook).await;
    // What has been seen is written down when there is nothing else to do.
    for _ in 0..500 {
        if app.get(&format!("{SPACE}/schema/traits")).await.expect(200).text.contains(CANARY) {
            return app;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the values of traits are not seen");
}

/// The paths of all reads under the space, about things that are there.
async fn reads(app: &TestApp) -> Vec<(String, String)> {
    let first =
        async |path: &str| app.get(&format!("{SPACE}{path}")).await.expect(200).json["data"][0].clone();
    let id = async |path: &str| first(path).await["id"].as_str().unwrap().to_owned();
    let (hook, delivery) = (id("/destinations").await, id("/deliveries").await);
    let regulation = id("/regulations").await;
    let subscription = id(&format!("/destinations/{hook}/subscriptions")).await;
    let of = async |collection: &str| {
        let list = first(&format!("/collections/{collection}/profiles")).await;
        list["profile_id"].as_str().unwrap().to_owned()
    };
    let merged =
        app.get(&format!("{SPACE}/collections/users/profiles/user_id:canary-1/metadata")).await.expect(200);
    let user = merged.json["metadata"]["profile_id"].as_str().unwrap().to_owned();
    let account = of("accounts").await;
    let description = app.get("/openapi.json").await.expect(200).json;
    let mut paths = Vec::new();
    for (route, item) in description["paths"].as_object().unwrap() {
        if !route.starts_with("/v1/spaces/{space}") || item.get("get").is_none() {
            continue;
        }
        let key = if route.contains("computed-traits") { "colour" } else { "seen" };
        let which = if route.contains("/deliveries/") { &delivery } else { &hook };
        let path = route.replace("{space}", "default").replace("{key}", key).replace("{other}", key);
        let path = path
            .replace("{category}", "ads")
            .replace("{regulation}", &regulation)
            .replace("{selector}", "user_id:canary-9");
        let path =
            path.replace("{id}", which).replace("{subscription}", &subscription).replace("{name}", "Seen");
        for (collection, profile) in [("users", &user), ("accounts", &account)] {
            let path = path.replace("{collection}", collection);
            paths.push((route.clone(), path.replace("{profile}", &format!("profile_id:{profile}"))));
        }
    }
    paths.push((
        "verbose".into(),
        format!("{SPACE}/collections/users/profiles/profile_id:{user}/traits?verbose=true"),
    ));
    paths.push(("ndjson".into(), format!("{SPACE}/audiences/seen/members?format=ndjson&traits=email,city")));
    paths.push(("search".into(), format!("{SPACE}/collections/users/profiles?query=can")));
    let explain = format!("{SPACE}/collections/users/profiles/profile_id:{user}/explain/elsewhere");
    paths.push(("explain".into(), explain));
    paths
}

#[tokio::test]
async fn no_read_shows_it_to_those_who_may_not_see_it() {
    let receiver = Receiver::start().await;
    let app = populated(&receiver).await;
    let (viewer, privacy) = (token(&app, "viewer").await, token(&app, "privacy").await);
    let admin = token(&app, "admin").await;
    let mut personal: Vec<String> = Vec::new();
    for (route, path) in reads(&app).await {
        let get = async |token: &str| app.call_as(token, Method::GET, &path, None).await;
        let full = app.get(&path).await;
        assert!(full.status < 400 || path.contains("/accounts/"), "{path}: {}", full.text);
        for (role, answer) in [("viewer", get(&viewer).await), ("admin", get(&admin).await)] {
            if answer.status == 403 {
                continue;
            }
            assert_eq!(answer.status, full.status, "{path}: {}", answer.text);
            assert!(!answer.text.contains(CANARY), "{path} shows the {role}: {}", answer.text);
            // The audit log has grown by who has just looked.
            if !path.ends_with("/audit-log") {
                check_shape(&path, &full, &answer);
            }
        }
        if full.text.contains(CANARY) {
            personal.push(route);
            let seen = get(&privacy).await;
            assert!(seen.status == 403 || seen.text.contains(CANARY), "{path}: {}", seen.text);
        }
    }
    personal.sort_unstable();
    personal.dedup();
    // Or the test would not see what is hidden.
    let of_profile = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}";
    for expected in [
        "verbose",
        "ndjson",
        "search",
        "explain",
        "/v1/spaces/{space}/rejected-events",
        "/v1/spaces/{space}/deliveries",
        "/v1/spaces/{space}/deliveries/{id}",
        "/v1/spaces/{space}/audit-log",
        "/v1/spaces/{space}/computed-traits/{key}/values",
        "/v1/spaces/{space}/schema/traits",
        "/v1/spaces/{space}/schema/events/{name}/properties",
        "/v1/spaces/{space}/collections/{collection}/profiles",
        &format!("{of_profile}/traits"),
        &format!("{of_profile}/events"),
        &format!("{of_profile}/external_ids"),
        &format!("{of_profile}/identity"),
        &format!("{of_profile}/links"),
    ] {
        assert!(
            personal.iter().any(|route| route == expected),
            "nothing personal in {expected}: {personal:?}"
        );
    }
}

/// All names of fields, and all ids of profiles.
fn names(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                into.push(name.clone());
                if name == "profile_id" {
                    into.push(value.to_string());
                }
                names(value, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, into)),
        _ => {}
    }
}

/// Masked or not, an answer has the same fields, and the same ids of profiles.
fn check_shape(path: &str, full: &Answer, masked: &Answer) {
    let of = |answer: &Answer| {
        let mut all = Vec::new();
        names(&answer.json, &mut all);
        all
    };
    assert_eq!(of(full), of(masked), "{path}");
}

#[tokio::test]
async fn what_is_asked_by_post_is_masked_and_files_without_fields_are_refused() {
    let receiver = Receiver::start().await;
    let app = populated(&receiver).await;
    let (viewer, editor) = (token(&app, "viewer").await, token(&app, "editor").await);
    let query = json!({"definition": {"type": "users", "query": "event('Seen').last(property('colour'))"}});
    let preview = format!("{SPACE}/computed-traits/preview");
    let full = app.post(&preview, query.clone()).await.expect(200);
    assert!(full.text.contains(CANARY));
    let masked = app.call_as(&viewer, Method::POST, &preview, Some(query)).await.expect(200);
    assert!(!masked.text.contains(CANARY), "{}", masked.text);
    assert_eq!(masked.json["sample"][0]["value"], "***");
    assert_eq!(masked.json["size"], full.json["size"]);
    let csv = format!("{SPACE}/audiences/seen/members?format=csv");
    assert!(app.get(&csv).await.expect(200).text.contains(CANARY));
    let refused = app.call_as(&viewer, Method::GET, &csv, None).await.expect_problem(403, "forbidden");
    assert!(refused.json["detail"].as_str().unwrap().contains("pii:read"));
    // Who knows an identifier may look it up, and an act may be tried by it.
    let known = format!("{SPACE}/collections/users/profiles/email:canary@x.org/metadata");
    let found = app.call_as(&viewer, Method::GET, &known, None).await.expect(200);
    assert!(found.json["metadata"]["profile_id"].as_str().unwrap().starts_with("prf_"));
    let pair = json!({"profiles": ["email:canary@x.org", "user_id:canary-3"], "override_limits": true});
    let tried = format!("{SPACE}/identity/merges?dry_run=true");
    let effect = app.call_as(&editor, Method::POST, &tried, Some(pair)).await.expect(200);
    assert!(!effect.text.contains(CANARY), "{}", effect.text);
}

#[tokio::test]
async fn pages_of_a_search_go_on_without_saying_whose_identifiers_they_end_with() {
    use base64::Engine;
    let app = TestApp::start().await;
    for user in ["canary-1", "canary-2", "canary-3"] {
        app.processed("/v1/identify", json!({"userId": user, "traits": {"email": format!("{user}@x.org")}}))
            .await;
    }
    let viewer = token(&app, "viewer").await;
    let search = format!("{SPACE}/collections/users/profiles?query=can&limit=1");
    let (mut next, mut seen) = (String::new(), Vec::new());
    loop {
        let path = format!("{search}&cursor={next}");
        let page = app.call_as(&viewer, Method::GET, &path, None).await.expect(200).json;
        seen.push(page["data"][0]["profile_id"].as_str().unwrap().to_owned());
        next = page["cursor"]["next"].as_str().unwrap().to_owned();
        if next.is_empty() {
            break;
        }
        let told = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(&next).unwrap();
        assert!(!String::from_utf8_lossy(&told).contains(CANARY), "{next}");
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 3);
    // Where the page ended there is nobody any more.
    let next = app.get(&search).await.expect(200).json["cursor"]["next"].as_str().unwrap().to_owned();
    app.regulated("DELETE_INTERNAL", "USER_ID", &["canary-1"]).await;
    let lost = app.get(&format!("{search}&cursor={next}")).await.expect(400);
    assert!(lost.text.contains("begin the list again"), "{}", lost.text);
}

#[tokio::test]
async fn tags_are_of_what_is_shown() {
    let receiver = Receiver::start().await;
    let app = populated(&receiver).await;
    let viewer = token(&app, "viewer").await;
    let path = format!("{SPACE}/computed-traits/colour/values");
    let full = app.get(&path).await.expect(200);
    let masked = app.call_as(&viewer, Method::GET, &path, None).await.expect(200);
    assert_ne!(full.header("etag"), masked.header("etag"));
    let with = |tag: &str| app.request(Method::GET, &path).bearer_auth(&viewer).header("if-none-match", tag);
    send(with(masked.header("etag"))).await.expect(304);
    // The tag of what may not be seen would tell whether a guess of it is right.
    send(with(full.header("etag"))).await.expect(200);
    let plain = format!("{SPACE}/audiences/sizes");
    let first = app.call_as(&viewer, Method::GET, &plain, None).await.expect(200);
    let again = app.request(Method::GET, &plain).bearer_auth(&viewer);
    send(again.header("if-none-match", first.header("etag"))).await.expect(304);
}
