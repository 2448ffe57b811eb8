//! Operators' acts: taking merges back, merging, keeping apart, moving and deleting identifiers, unlinking.

use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};
use crate::verify::verify;

const NOW: &str = "2024-03-01T12:00:00.000Z";
const SPACE: &str = "/v1/spaces/default";
const USERS: &str = "/v1/spaces/default/collections/users/profiles";
const ACCOUNTS: &str = "/v1/spaces/default/collections/accounts/profiles";

/// An app, and the number of the last call: message ids follow from it.
struct Case {
    app: TestApp,
    calls: usize,
    offset: u64,
}

impl Case {
    async fn start(wish: Wish) -> Self {
        Self { app: wish.at(NOW).start().await, calls: 0, offset: 0 }
    }

    /// Sends a call named by its first word: `track Seen user=u1 anon=a1`, `identify user=u1 {"plan":"pro"}`.
    async fn send(&mut self, words: &str) {
        self.calls += 1;
        let (head, data) = words.split_once('{').map_or((words, json!({})), |(head, rest)| {
            (head, serde_json::from_str(&format!("{{{rest}")).unwrap())
        });
        let mut words = head.split_whitespace();
        let kind = words.next().unwrap();
        let (mut external, mut context) = (Vec::new(), json!({}));
        let mut call = json!({"messageId": format!("m{:04}", self.calls)});
        for word in words {
            match word.split_once('=') {
                None => call["event"] = json!(word),
                Some(("user", id)) => call["userId"] = json!(id),
                Some(("anon", id)) => call["anonymousId"] = json!(id),
                Some(("group", id)) if kind == "group" => call["groupId"] = json!(id),
                Some(("group", id)) => context["groupId"] = json!(id),
                Some((name, id)) => {
                    external.push(json!({"id": id, "type": name, "collection": "users", "encoding": "none"}))
                }
            }
        }
        context["externalIds"] = json!(external);
        call["context"] = context;
        call[if kind == "track" { "properties" } else { "traits" }] = data;
        self.offset = self.app.track(&format!("/v1/{kind}"), call).await.expect(200).offset();
    }

    async fn send_all(&mut self, calls: &[&str]) {
        for call in calls {
            self.send(call).await;
        }
        self.get(&format!("{SPACE}/pipeline")).await;
    }

    async fn get(&self, path: &str) -> Value {
        let sign = if path.contains('?') { '&' } else { '?' };
        self.app.get(&format!("{path}{sign}min_offset={}", self.offset)).await.expect(200).json
    }

    async fn id(&self, selector: &str) -> String {
        let metadata = self.get(&format!("{USERS}/{selector}/metadata")).await;
        metadata["metadata"]["profile_id"].as_str().unwrap().to_owned()
    }

    async fn traits(&self, selector: &str) -> Value {
        self.get(&format!("{USERS}/{selector}/traits?limit=200")).await["traits"].clone()
    }

    async fn identity(&self, selector: &str) -> Value {
        self.get(&format!("{USERS}/{selector}/identity")).await
    }

    /// Its identifiers as `type=value`.
    async fn ids(&self, selector: &str) -> Vec<String> {
        let list = self.get(&format!("{USERS}/{selector}/external_ids?limit=200")).await;
        let word = |id: &Value| format!("{}={}", id["type"].as_str().unwrap(), id["id"].as_str().unwrap());
        let mut ids: Vec<String> = list["data"].as_array().unwrap().iter().map(word).collect();
        ids.sort();
        ids
    }

    /// The newest merge of a profile that stands.
    async fn merge_of(&self, selector: &str) -> String {
        let identity = self.identity(selector).await;
        let merges = identity["merges"].as_array().unwrap().clone();
        let stands = |merge: &&Value| merge.get("undone_at").is_none();
        merges.iter().rfind(stands).unwrap()["id"].as_str().unwrap().to_owned()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.app.post(&format!("{SPACE}{path}"), body).await.expect(200).json
    }

    async fn undo(&self, merge: &str) -> Value {
        self.post(&format!("/identity/merges/{merge}/undo"), json!({})).await
    }

    async fn sizes(&self) -> Value {
        let sizes = self.get(&format!("{SPACE}/audiences/sizes")).await;
        let size = |row: &Value| (row["key"].as_str().unwrap().to_owned(), row["size"].clone());
        sizes["data"].as_array().unwrap().iter().map(size).collect()
    }

    /// Transitions of an audience, oldest first.
    async fn transitions(&self, key: &str) -> Vec<(String, String)> {
        let list = self.get(&format!("{SPACE}/audiences/{key}/transitions")).await;
        let word = |t: &Value, name: &str| t[name].as_str().unwrap().to_owned();
        let pair = |t: &Value| (word(t, "profile_id"), word(t, "transition"));
        list["data"].as_array().unwrap().iter().rev().map(pair).collect()
    }

    /// Everything that is told of a profile, but what merges there were.
    async fn told(&self, collection: &str, selector: &str) -> Value {
        let mut told = json!({});
        for part in [
            "traits?limit=200&verbose=true",
            "external_ids?limit=200",
            "events",
            "metadata",
            "links",
            "audiences",
        ] {
            let path = format!("{SPACE}/collections/{collection}/profiles/{selector}/{part}");
            let mut answer = self.get(&path).await;
            if let Some(cursor) = answer.get_mut("cursor") {
                cursor.take();
            }
            if part == "events" {
                answer = answer["data"].as_array().unwrap().iter().map(the_event).collect();
            }
            without_sources(&mut answer);
            if let Some(traits) = answer.get_mut("traits").and_then(Value::as_object_mut) {
                // Who was in an audience and has left it is told so; who never was has no such trait.
                traits.retain(|_, said| said["value"] != json!(false));
            }
            told[part.split('?').next().unwrap()] = answer;
        }
        told
    }

    /// That everything adds up: sizes are the members, transitions alternate, and the log says what is stored.
    async fn check(&self) {
        for (key, size) in self.sizes().await.as_object().unwrap() {
            let members = self.get(&format!("{SPACE}/audiences/{key}/members?limit=1000")).await;
            assert_eq!(json!(members["data"].as_array().unwrap().len()), *size, "{key}");
            let mut inside = std::collections::BTreeMap::new();
            for (profile, transition) in self.transitions(key).await {
                let was_in = inside.insert(profile.clone(), transition == "entered").unwrap_or(false);
                // Of two that had both entered and then became one, both are read under the one that stays.
                let alternates = was_in != (transition == "entered");
                assert!(
                    alternates || (was_in && self.has_merged(&profile).await),
                    "{key}: {profile} {transition}"
                );
            }
            let entered: Vec<&String> =
                inside.iter().filter(|(_, is_in)| **is_in).map(|(id, _)| id).collect();
            let mut listed: Vec<&str> = members["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| m["profile_id"].as_str().unwrap())
                .collect();
            listed.sort_unstable();
            assert_eq!(entered, listed, "{key}");
        }
        let (said, code) = verify(&self.app.db, &[]);
        assert_eq!(code, 0, "{said}");
    }

    async fn has_merged(&self, profile: &str) -> bool {
        let merges = self.identity(&format!("profile_id:{profile}")).await["merges"].clone();
        merges.as_array().unwrap().iter().any(|merge| merge.get("undone_at").is_none())
    }

    async fn definitions(&self) {
        let app = &self.app;
        for (path, key, query) in [
            ("computed-traits", "spent", "event('Order').sum(property('total'))"),
            ("computed-traits", "colors", "event('Order').unique(property('color'))"),
            ("audiences", "buyers", "event('Order').within(30 days).count() >= 2"),
            ("audiences", "rich", "trait('spent') >= 100"),
            ("audiences", "red", "trait('color') = 'red'"),
        ] {
            let definition = json!({"query": query});
            let body = json!({"key": key, "definition": definition, "options": {"include_anonymous": true}});
            app.make_live_from(path, key, body).await;
        }
        let list = json!({"key": "vip", "definition": {"list": true}});
        app.make_live_from("audiences", "vip", list).await;
        let of_accounts =
            |key: &str, query: &str| json!({"key": key, "definition": {"type": "accounts", "query": query}});
        let any = of_accounts("any_rich", "ANY trait('spent') >= 100");
        app.make_live_from("audiences", "any_rich", any).await;
        let pooled = of_accounts("account_spent", "event('Order').sum(property('total'))");
        app.make_live_from("computed-traits", "account_spent", pooled).await;
    }

    async fn vip(&self, selector: &str) {
        use crate::harness::app::{TOKEN, send};
        let path = format!("{SPACE}/audiences/vip/members");
        let request = self.app.request(reqwest::Method::POST, &path).bearer_auth(TOKEN);
        let row = format!("{selector:?}");
        send(request.header("content-type", "application/x-ndjson").body(row)).await.expect(200);
    }
}

/// Two people with a life of their own, before they are taken for one.
const BEFORE: &[&str] = &[
    "identify user=ada email=ada@x.org {\"plan\":\"pro\",\"color\":\"green\"}",
    "identify anon=b1 {\"color\":\"red\",\"size\":9}",
    "track Order anon=b1 {\"total\":10,\"color\":\"blue\"}",
    "track Order anon=b1 {\"total\":20,\"color\":\"grey\"}",
    "track Order user=ada {\"total\":100,\"color\":\"white\"}",
    "group user=ada group=g1 {\"industry\":\"tea\"}",
    "group anon=b1 group=g2 {\"industry\":\"ink\"}",
    "track Order anon=b1 group=g2 {\"total\":1}",
];

/// What follows, which would be the same for either of them.
const AFTER: &[&str] = &[
    "track Order anon=b1 {\"total\":5,\"color\":\"blue\"}",
    "track Order user=ada {\"total\":7}",
    "identify anon=b1 {\"color\":\"black\"}",
    "track Seen anon=b1 anonymous_id=b2",
    "track Seen user=ada anon=a2",
    "track Order anon=b2 {\"total\":3}",
    "track Order anon=c1 {\"total\":50,\"color\":\"pink\"}",
    "identify anon=c1 {\"hat\":true}",
    "track Seen anon=b1 anonymous_id=c1",
    "group anon=b1 group=g3",
    "track Order anon=b1 group=g3 {\"total\":2}",
    "group anon=a2 group=g2",
];

/// The sources of two apps are not the same.
fn without_sources(told: &mut Value) {
    match told {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.ends_with("source_id"));
            fields.values_mut().for_each(without_sources);
        }
        Value::Array(items) => items.iter_mut().for_each(without_sources),
        _ => {}
    }
}

/// Which event it is, and whose: one of them names another identifier.
fn the_event(event: &Value) -> Value {
    let part = |name: &str| event.get(name).cloned().unwrap_or_default();
    json!([
        part("offset"),
        part("message_id"),
        part("type"),
        part("related"),
        part("properties"),
        part("traits")
    ])
}

#[tokio::test]
async fn after_an_undone_merge_everything_is_as_if_it_had_never_been() {
    let mut merged = Case::start(Wish::default()).await;
    let mut never = Case::start(Wish::default()).await;
    for case in [&mut merged, &mut never] {
        case.definitions().await;
        case.send_all(BEFORE).await;
        case.vip("anonymous_id:b1").await;
    }
    let ids = [merged.id("user_id:ada").await, merged.id("anonymous_id:b1").await];
    merged.send("track Seen user=ada anon=b1").await;
    never.send("track Seen user=ada").await;
    for case in [&mut merged, &mut never] {
        case.send_all(AFTER).await;
        case.vip("anonymous_id:c1").await;
    }
    assert_eq!(merged.id("anonymous_id:b1").await, ids[0], "they are one");
    let all: Vec<String> = merged.ids("user_id:ada").await;
    assert_eq!(all.len(), 6, "{all:?}");

    let merges = merged.identity("user_id:ada").await["merges"].clone();
    let of_b = merges.as_array().unwrap().iter().find(|merge| merge["absorbed"] == json!(ids[1])).unwrap();
    let merge = of_b["id"].as_str().unwrap().to_owned();
    let tried = merged.post(&format!("/identity/merges/{merge}/undo?dry_run=true"), json!({})).await;
    assert_eq!(merged.id("anonymous_id:b1").await, ids[0], "a dry run changes nothing");
    let done = merged.undo(&merge).await;
    for part in ["profiles", "identifiers", "events_moved", "transitions"] {
        assert_eq!(tried[part], done[part], "{part}");
    }
    assert_eq!(done["events_gone"], json!(0));
    assert_eq!([merged.id("user_id:ada").await, merged.id("anonymous_id:b1").await], ids, "ids come back");
    for selector in ["user_id:ada", "anonymous_id:b1"] {
        let (now, then) = (merged.told("users", selector).await, never.told("users", selector).await);
        for (part, then) in then.as_object().unwrap() {
            assert_eq!(&now[part], then, "{selector} {part}");
        }
    }
    for account in ["g1", "g2", "g3"] {
        let selector = format!("group_id:{account}");
        let (now, then) = (merged.told("accounts", &selector).await, never.told("accounts", &selector).await);
        for (part, then) in then.as_object().unwrap() {
            assert_eq!(&now[part], then, "{account} {part}");
        }
    }
    assert_eq!(merged.sizes().await, never.sizes().await);
    merged.check().await;
    let undone = merged.identity("anonymous_id:b1").await;
    assert_eq!(undone["merges"][0]["undone_at"], json!(NOW), "{undone}");
    assert_eq!(undone["kept_apart"], json!([{"profile_id": ids[0], "same_identifiers": true}]));
    assert_eq!(undone["merges"].as_array().unwrap().len(), 2, "the other merge is on its side: {undone}");
    merged
        .app
        .post(&format!("{SPACE}/identity/merges/{merge}/undo"), json!({}))
        .await
        .expect_problem(409, "refused");

    // The same identifiers do not do it again, others do.
    merged.send("track Seen user=ada anon=b1").await;
    assert_eq!(merged.id("anonymous_id:b1").await, ids[1]);
    let refusals = merged.identity("user_id:ada").await["refusals"].clone();
    assert_eq!(refusals[0]["rule"], json!("Profile merge blocked"), "{refusals}");
    let again = merged.app.beside().await;
    let path = format!("{USERS}/anonymous_id:b1/metadata?min_offset={}", merged.offset);
    let beside = again.get(&path).await.expect(200).json;
    assert_eq!(beside["metadata"]["profile_id"], json!(ids[1]), "another process says the same");
    drop(again);
    merged.send("track Seen anon=a2 anonymous_id=b2").await;
    assert_eq!(merged.id("anonymous_id:b1").await, ids[0]);
    merged.check().await;
}

#[tokio::test]
async fn merges_of_merges_come_apart_in_any_order() {
    // Z is older than both, and comes in by B's identifier: so A is the one that goes.
    let mut case = Case::start(Wish::default()).await;
    case.definitions().await;
    case.send_all(&[
        "track Order anon=z {\"total\":1}",
        "track Order user=a",
        "track Order anon=b {\"total\":100}",
    ])
    .await;
    let [z, a, b] =
        [case.id("anonymous_id:z").await, case.id("user_id:a").await, case.id("anonymous_id:b").await];
    case.send_all(&[
        "track Seen user=a anon=b",
        "track Order anon=b {\"total\":20}",
        "track Seen anon=b anonymous_id=z",
    ])
    .await;
    assert_eq!(case.id("user_id:a").await, z);
    let merges = case.identity("user_id:a").await["merges"].clone();
    let first = merges[0]["id"].as_str().unwrap().to_owned();
    let done = case.undo(&first).await;
    assert_eq!(
        done["profiles"],
        json!([{"profile_id": z, "change": "changed"}, {"profile_id": a, "change": "separated"}])
    );
    assert_eq!((case.id("user_id:a").await, case.id("anonymous_id:b").await), (a.clone(), z.clone()));
    assert_eq!(case.traits("anonymous_id:b").await["spent"], json!(121));
    assert_eq!(case.identity("user_id:a").await["former_ids"], json!([]));
    assert_eq!(case.identity("anonymous_id:z").await["former_ids"], json!([b]));
    case.check().await;
    // And what Z was merged by, too.
    let second = case.merge_of("anonymous_id:z").await;
    case.undo(&second).await;
    assert_eq!(
        [case.id("anonymous_id:z").await, case.id("user_id:a").await, case.id("anonymous_id:b").await],
        [z, a, b]
    );
    assert_eq!(case.traits("anonymous_id:z").await["spent"], json!(1));
    assert_eq!(case.traits("anonymous_id:b").await["spent"], json!(120));
    case.check().await;
}

#[tokio::test]
async fn operators_merge_within_the_limits_or_beyond_them() {
    let mut case = Case::start(Wish::default()).await;
    case.definitions().await;
    case.send_all(&[
        "identify user=u1 {\"color\":\"red\"}",
        "track Order user=u1 {\"total\":60}",
        "identify user=u2 {\"color\":\"blue\"}",
        "track Order user=u2 {\"total\":50}",
        "track Order anon=a1 {\"total\":1}",
    ])
    .await;
    let [one, two] = [case.id("user_id:u1").await, case.id("user_id:u2").await];
    let both = json!({"profiles": ["user_id:u1", format!("profile_id:{two}")]});
    let path = format!("{SPACE}/identity/merges");
    let refused = case.app.post(&path, both.clone()).await.expect_problem(409, "refused");
    assert!(
        refused.json["detail"].as_str().unwrap().contains("2 identifiers of type user_id; its limit is 1")
    );
    let mut forced = both.clone();
    forced["override_limits"] = json!(true);
    let tried = case.post("/identity/merges?dry_run=true", forced.clone()).await;
    assert_eq!(case.id("user_id:u2").await, two);
    let done = case.post("/identity/merges", forced.clone()).await;
    assert_eq!(tried["transitions"], done["transitions"]);
    let keys: Vec<&str> =
        done["transitions"].as_array().unwrap().iter().map(|t| t["audience"].as_str().unwrap()).collect();
    assert_eq!(keys, ["buyers", "red", "rich"], "{done}");
    assert_eq!(
        (case.id("user_id:u2").await, case.traits("user_id:u2").await["spent"].clone()),
        (one.clone(), json!(110))
    );
    case.app.post(&path, forced).await.expect_problem(409, "refused");
    case.check().await;
    // By hand it comes apart as any other merge, and events may make it again.
    let merge = case.merge_of("user_id:u1").await;
    assert_eq!(case.identity("user_id:u1").await["merges"][0]["manual"], json!(true));
    case.undo(&merge).await;
    assert_eq!(case.id("user_id:u2").await, two);
    case.check().await;
    case.post("/identity/merges", json!({"profiles": ["user_id:u1", "anonymous_id:a1"]})).await;
    assert_eq!(case.id("anonymous_id:a1").await, one);
    for (body, field) in [
        (json!({"profiles": ["user_id:u1"]}), "profiles"),
        (json!({"profiles": ["user_id:u1", "u2"]}), "profiles[1]"),
    ] {
        let problem = case.app.post(&path, body).await.expect_problem(422, "invalid");
        assert_eq!(problem.json["field"], json!(field));
    }
    case.app
        .post(&path, json!({"profiles": ["user_id:u1", "user_id:no"]}))
        .await
        .expect_problem(404, "not_found");
    case.app
        .post(&format!("{SPACE}/identity/merges/mrg_1/undo"), json!({}))
        .await
        .expect_problem(404, "not_found");
    case.check().await;
}

#[tokio::test]
async fn profiles_that_are_kept_apart_stay_so_until_it_is_lifted() {
    let mut case = Case::start(Wish::default()).await;
    case.send_all(&[
        "track Seen user=u1",
        "track Seen anon=a1",
        "track Seen anon=a9",
        "track Seen anon=a1 anonymous_id=a9",
    ])
    .await;
    let pair = json!({"profiles": ["user_id:u1", "anonymous_id:a9"]});
    case.app
        .post(&format!("{SPACE}/identity/blocks/lift"), pair.clone())
        .await
        .expect_problem(409, "refused");
    case.post("/identity/blocks", pair.clone()).await;
    let [one, other] = [case.id("user_id:u1").await, case.id("anonymous_id:a1").await];
    case.send_all(&["track Seen user=u1 anon=a1", "track Seen user=u1 anon=a9 email=e@x.org"]).await;
    assert_eq!(case.id("anonymous_id:a9").await, other);
    assert_eq!(
        case.ids("user_id:u1").await,
        ["email=e@x.org", "user_id=u1"],
        "the rest of the event is taken"
    );
    assert_eq!(case.identity("anonymous_id:a1").await["kept_apart"][0]["profile_id"], json!(one));
    // Also through a third one: whoever becomes one with either of them is kept apart from the other.
    case.send_all(&["track Seen anon=t", "track Seen user=u1 anon=t", "track Seen anon=t anonymous_id=a1"])
        .await;
    assert_eq!(case.id("anonymous_id:a1").await, other);
    case.post("/identity/blocks/lift", pair).await;
    case.send("track Seen user=u1 anon=a1").await;
    assert_eq!(case.id("anonymous_id:a1").await, one);
    case.check().await;
}

#[tokio::test]
async fn identifiers_go_to_another_profile_within_its_limits() {
    let mut case = Case::start(Wish::default()).await;
    case.definitions().await;
    case.send_all(&[
        "track Order user=u1 anon=a1 email=e@x.org {\"total\":60}",
        "track Order user=u2 {\"total\":50}",
        "track Order anon=a7 {\"total\":1}",
    ])
    .await;
    let moved = |id_type: &str, id: &str, to: &str| json!({"type": id_type, "id": id, "to": to});
    let path = |from: &str| format!("{USERS}/{from}/external_ids/move");
    let refused = case.app.post(&path("user_id:u1"), moved("user_id", "u1", "user_id:u2")).await;
    assert_eq!(refused.expect(409).json["error"]["code"], json!("refused"));
    let last = case.app.post(&path("anonymous_id:a7"), moved("anonymous_id", "a7", "user_id:u2")).await;
    assert!(last.expect(409).json["error"]["message"].as_str().unwrap().contains("last identifier"));
    case.app.post(&path("user_id:u1"), moved("email", "none@x.org", "user_id:u2")).await.expect(404);
    let own = case.app.post(&path("user_id:u1"), moved("email", "e@x.org", "user_id:u1")).await;
    own.expect(409);
    let tried = case
        .app
        .post(&format!("{}?dry_run=true", path("user_id:u1")), moved("email", "E@X.org", "user_id:u2"))
        .await;
    assert_eq!(tried.expect(200).json["dry_run"], json!(true));
    let done =
        case.app.post(&path("user_id:u1"), moved("email", "E@X.org ", "user_id:u2")).await.expect(200).json;
    assert_eq!(done["identifiers"][0]["id"], json!("e@x.org"));
    assert_eq!(case.ids("user_id:u2").await, ["email=e@x.org", "user_id=u2"]);
    case.send("track Order anon=a8 email=e@x.org {\"total\":50}").await;
    assert_eq!(case.traits("user_id:u2").await["spent"], json!(100), "what comes with it now is the other's");
    assert_eq!(case.traits("user_id:u1").await["spent"], json!(60));
    // A merge that is taken back leaves what was moved where it is.
    case.send("track Seen user=u1 anon=a7").await;
    case.app.post(&path("user_id:u1"), moved("anonymous_id", "a1", "user_id:u2")).await.expect(200);
    let merge = case.merge_of("user_id:u1").await;
    case.undo(&merge).await;
    assert_eq!(
        case.ids("user_id:u2").await,
        ["anonymous_id=a1", "anonymous_id=a8", "email=e@x.org", "user_id=u2"]
    );
    assert_eq!(
        (case.ids("user_id:u1").await, case.ids("anonymous_id:a7").await),
        (vec!["user_id=u1".to_owned()], vec!["anonymous_id=a7".to_owned()])
    );
    case.check().await;
}

#[tokio::test]
async fn who_leaves_an_account_is_counted_there_no_more() {
    let mut case = Case::start(Wish::default()).await;
    case.definitions().await;
    case.send_all(&[
        "group user=u1 group=g1",
        "group user=u2 group=g1",
        "track Order user=u1 {\"total\":100}",
        "track Order user=u1 group=g1 {\"total\":11}",
        "track Order user=u2 {\"total\":5}",
    ])
    .await;
    async fn account(case: &Case) -> Value {
        case.get(&format!("{ACCOUNTS}/group_id:g1/traits")).await["traits"].clone()
    }
    assert_eq!(account(&case).await, json!({"account_spent": 116, "any_rich": true}));
    let path = format!("{USERS}/user_id:u1/links/delete");
    let tried =
        case.app.post(&format!("{path}?dry_run=true"), json!({"group_id": "g1"})).await.expect(200).json;
    assert_eq!(tried["transitions"].as_array().unwrap().len(), 1, "{tried}");
    assert_eq!(account(&case).await["account_spent"], json!(116));
    case.app.post(&path, json!({"group_id": "g1"})).await.expect(200);
    assert_eq!(account(&case).await, json!({"account_spent": 5, "any_rich": false}));
    assert_eq!(case.get(&format!("{USERS}/user_id:u1/links")).await["data"], json!([]));
    assert_eq!(case.get(&format!("{ACCOUNTS}/group_id:g1/links")).await["data"].as_array().unwrap().len(), 1);
    case.app.post(&path, json!({"group_id": "g1"})).await.expect(409);
    case.app.post(&path, json!({"group_id": "g9"})).await.expect(409);
    case.check().await;
    case.send("group user=u1 group=g1").await;
    assert_eq!(
        account(&case).await,
        json!({"account_spent": 116, "any_rich": true}),
        "and comes back with all it has"
    );
    case.check().await;
    // It is not in the way of an un-merge.
    case.send_all(&[
        "group anon=a1 group=g1",
        "track Order anon=a1 {\"total\":1000}",
        "track Seen user=u2 anon=a1",
    ])
    .await;
    case.app.post(&format!("{USERS}/user_id:u2/links/delete"), json!({"group_id": "g1"})).await.expect(200);
    let merge = case.merge_of("user_id:u2").await;
    case.undo(&merge).await;
    case.check().await;
}

#[tokio::test]
async fn what_was_done_is_in_the_audit_log() {
    let mut case = Case::start(Wish::default()).await;
    case.send_all(&["track Seen user=u1 anon=a1", "track Seen anon=a2"]).await;
    let delete = json!({"delete_external_ids": [{"type": "anonymous_id", "id": "a1"}]});
    let path = format!("{USERS}/user_id:u1/external_ids/delete");
    let tried = case.app.post(&format!("{path}?dry_run=true"), delete.clone()).await.expect(200).json;
    assert_eq!(tried["code"], json!("dry_run"));
    case.app.post(&path, delete).await.expect(200);
    case.post("/identity/merges", json!({"profiles": ["user_id:u1", "anonymous_id:a2"]})).await;
    let log = case.get(&format!("{SPACE}/audit-log")).await;
    let actions: Vec<&str> =
        log["data"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["profiles.merge", "identifier.delete"]);
    let newest = &log["data"][0];
    assert_eq!((&newest["at"], &newest["actor"]["name"]), (&json!(NOW), &json!("owner")));
    assert_eq!(newest["act"]["ids"][1], json!({"type": "anonymous_id", "id": "a2"}));
    let one = case.get(&format!("{SPACE}/audit-log?action=identifier.delete&limit=1")).await;
    assert_eq!(one["data"][0]["effect"]["identifiers"][0]["id"], json!("a1"));
    let page = case.get(&format!("{SPACE}/audit-log?limit=1")).await;
    let next = page["cursor"]["next"].as_str().unwrap().to_owned();
    assert_eq!(
        case.get(&format!("{SPACE}/audit-log?limit=1&cursor={next}")).await["data"][0],
        log["data"][1]
    );
}

#[tokio::test]
async fn an_unmerge_while_a_definition_is_backfilled_counts_every_event_once() {
    let mut case = Case::start(Wish::default()).await;
    case.send_all(BEFORE).await;
    let batch: Vec<Value> = (0..2_000)
        .map(|n| json!({"type": "track", "event": "Order", "userId": format!("p{}", n % 700), "properties": {"total": 1}}))
        .collect();
    case.app.track("/v1/batch", json!({"batch": batch})).await.expect(200);
    case.send("track Seen user=ada anon=b1").await;
    case.send_all(AFTER).await;
    case.id("user_id:ada").await;
    let merges = case.identity("user_id:ada").await["merges"].clone();
    let merge = merges[0]["id"].as_str().unwrap().to_owned();
    let definition = json!({"key": "spent", "options": {"include_anonymous": true}, "definition": {"query": "event('Order').sum(property('total'))"}});
    case.app.post(&format!("{SPACE}/computed-traits"), definition).await.expect(201);
    case.undo(&merge).await;
    case.app.live("computed-traits", "spent").await;
    assert_eq!(case.traits("user_id:ada").await["spent"], json!(107));
    assert_eq!(case.traits("anonymous_id:b1").await["spent"], json!(91));
    case.check().await;
}

#[tokio::test]
async fn segments_are_made_again_where_events_have_moved() {
    let mut case = Case::start(Wish::default().option("log.segment_events", "5")).await;
    case.send_all(BEFORE).await;
    case.send("track Seen user=ada anon=b1").await;
    case.send_all(AFTER).await;
    let made = |least: u64| {
        let app = &case.app;
        async move {
            for _ in 0..600 {
                let pipeline = app.get(&format!("{SPACE}/pipeline")).await.expect(200).json;
                if pipeline["segments_end_offset"].as_u64().unwrap_or_default() >= least {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            panic!("no segments were made");
        }
    };
    made(15).await;
    let merges = case.identity("user_id:ada").await["merges"].clone();
    case.undo(merges[0]["id"].as_str().unwrap()).await;
    let preview = json!({"options": {"include_anonymous": true}, "definition": {"query": "event('Order').sum(property('total')) = 107 OR event('Order').sum(property('total')) = 91"}});
    let shown = case.post("/audiences/preview", preview.clone()).await;
    assert_eq!(shown["size"], json!(2), "{shown}");
    made(15).await;
    assert_eq!(case.post("/audiences/preview", preview).await["size"], json!(2));
    case.check().await;
}
