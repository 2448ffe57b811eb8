//! Calls in words, and all that is told of the profiles they make: for tests of operators' acts.

use serde_json::{Value, json};

use super::app::{TestApp, Wish};
use crate::verify::verify;

pub(crate) const NOW: &str = "2024-03-01T12:00:00.000Z";
pub(crate) const SPACE: &str = "/v1/spaces/default";
pub(crate) const USERS: &str = "/v1/spaces/default/collections/users/profiles";
pub(crate) const ACCOUNTS: &str = "/v1/spaces/default/collections/accounts/profiles";

/// An app, and the number of the last call: message ids follow from it.
pub(crate) struct Case {
    pub(crate) app: TestApp,
    calls: usize,
    pub(crate) offset: u64,
}

impl Case {
    pub(crate) async fn start(wish: Wish) -> Self {
        Self { app: wish.at(NOW).start().await, calls: 0, offset: 0 }
    }

    /// Sends a call named by its first word: `track Seen user=u1 anon=a1`, `identify user=u1 {"plan":"pro"}`.
    pub(crate) async fn send(&mut self, words: &str) {
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
                    external.push(json!({"id": id, "type": name, "collection": "users", "encoding": "none"}));
                }
            }
        }
        context["externalIds"] = json!(external);
        call["context"] = context;
        call[if kind == "track" { "properties" } else { "traits" }] = data;
        self.offset = self.app.track(&format!("/v1/{kind}"), call).await.expect(200).offset();
    }

    pub(crate) async fn send_all(&mut self, calls: &[&str]) {
        for call in calls {
            self.send(call).await;
        }
        self.get(&format!("{SPACE}/pipeline")).await;
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let sign = if path.contains('?') { '&' } else { '?' };
        self.app.get(&format!("{path}{sign}min_offset={}", self.offset)).await.expect(200).json
    }

    pub(crate) async fn id(&self, selector: &str) -> String {
        let metadata = self.get(&format!("{USERS}/{selector}/metadata")).await;
        metadata["metadata"]["profile_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn traits(&self, selector: &str) -> Value {
        self.get(&format!("{USERS}/{selector}/traits?limit=200")).await["traits"].clone()
    }

    pub(crate) async fn identity(&self, selector: &str) -> Value {
        self.get(&format!("{USERS}/{selector}/identity")).await
    }

    /// Its identifiers as `type=value`.
    pub(crate) async fn ids(&self, selector: &str) -> Vec<String> {
        let list = self.get(&format!("{USERS}/{selector}/external_ids?limit=200")).await;
        let word = |id: &Value| format!("{}={}", id["type"].as_str().unwrap(), id["id"].as_str().unwrap());
        let mut ids: Vec<String> = list["data"].as_array().unwrap().iter().map(word).collect();
        ids.sort();
        ids
    }

    /// The newest merge of a profile that stands.
    pub(crate) async fn merge_of(&self, selector: &str) -> String {
        let identity = self.identity(selector).await;
        let merges = identity["merges"].as_array().unwrap().clone();
        let stands = |merge: &&Value| merge.get("undone_at").is_none();
        merges.iter().rfind(stands).unwrap()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.app.post(&format!("{SPACE}{path}"), body).await.expect(200).json
    }

    pub(crate) async fn undo(&self, merge: &str) -> Value {
        self.post(&format!("/identity/merges/{merge}/undo"), json!({})).await
    }

    pub(crate) async fn sizes(&self) -> Value {
        let sizes = self.get(&format!("{SPACE}/audiences/sizes")).await;
        let size = |row: &Value| (row["key"].as_str().unwrap().to_owned(), row["size"].clone());
        sizes["data"].as_array().unwrap().iter().map(size).collect()
    }

    /// Transitions of an audience, oldest first.
    pub(crate) async fn transitions(&self, key: &str) -> Vec<(String, String)> {
        let list = self.get(&format!("{SPACE}/audiences/{key}/transitions")).await;
        let word = |t: &Value, name: &str| t[name].as_str().unwrap().to_owned();
        let pair = |t: &Value| (word(t, "profile_id"), word(t, "transition"));
        list["data"].as_array().unwrap().iter().rev().map(pair).collect()
    }

    /// Everything that is told of a profile, but what merges there were.
    pub(crate) async fn told(&self, collection: &str, selector: &str) -> Value {
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
    pub(crate) async fn check(&self) {
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

    pub(crate) async fn has_merged(&self, profile: &str) -> bool {
        let merges = self.identity(&format!("profile_id:{profile}")).await["merges"].clone();
        merges.as_array().unwrap().iter().any(|merge| merge.get("undone_at").is_none())
    }

    pub(crate) async fn definitions(&self) {
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

    pub(crate) async fn vip(&self, selector: &str) {
        use crate::harness::app::{TOKEN, send};
        let path = format!("{SPACE}/audiences/vip/members");
        let request = self.app.request(reqwest::Method::POST, &path).bearer_auth(TOKEN);
        let row = format!("{selector:?}");
        send(request.header("content-type", "application/x-ndjson").body(row)).await.expect(200);
    }
}

/// Two people with a life of their own, before they are taken for one.
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
