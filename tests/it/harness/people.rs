//! The people of a space, as identity tests make them and look at them, through HTTP.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::app::{TestApp, Wish};
use super::rebuild::{expect_same, json_of, run};

pub(crate) const PROFILES: &str = "/v1/spaces/default/collections/users/profiles";
pub(crate) const SETTINGS: &str = "/v1/spaces/default/identity/settings";
const NOW: &str = "2024-03-01T12:00:00Z";

/// A track call with the identifiers named by words such as `user=u1 anon=a1 email=e ios.id=d`.
pub(crate) fn call(words: &str) -> Value {
    let (mut call, mut external) = (Map::new(), Vec::new());
    call.insert("event".into(), json!("Seen"));
    for word in words.split_whitespace() {
        let (name, value) = word.split_once('=').unwrap();
        match name {
            "user" => _ = call.insert("userId".into(), json!(value)),
            "anon" => _ = call.insert("anonymousId".into(), json!(value)),
            _ => external.push(json!({"id": value, "type": name, "collection": "users", "encoding": "none"})),
        }
    }
    call.insert("context".into(), json!({"externalIds": external}));
    Value::Object(call)
}

/// The space under test.
pub(crate) struct People {
    pub(crate) app: TestApp,
    pub(crate) offset: u64,
    /// What was read: selector, and what of it.
    read: RefCell<BTreeSet<(String, String)>>,
}

impl People {
    pub(crate) async fn start() -> Self {
        let app = Wish::default().at(NOW).start().await;
        Self { app, offset: 0, read: RefCell::default() }
    }

    /// Sends calls one after the other, each in a request of its own.
    pub(crate) async fn see(&mut self, calls: &[&str]) {
        for words in calls {
            self.send("/v1/track", call(words)).await;
        }
    }

    pub(crate) async fn send(&mut self, path: &str, body: Value) {
        self.offset = self.app.track(path, body).await.expect(200).offset();
    }

    pub(crate) async fn identify(&mut self, user: &str, email: &str) {
        self.send("/v1/identify", json!({"userId": user, "traits": {"email": email}})).await;
    }

    pub(crate) async fn settings(&self) -> Value {
        self.app.get(SETTINGS).await.expect(200).json
    }

    /// Changes one identifier type.
    pub(crate) async fn set(&self, id_type: Value) -> Value {
        self.app.patch(SETTINGS, json!({"identifiers": [id_type]})).await.expect(200).json
    }

    pub(crate) async fn restart(mut self) -> Self {
        self.app.running.stop(Duration::ZERO).await.unwrap();
        self.app = Wish::default().at(NOW).start_on(self.app.db).await;
        self
    }

    /// All that was read says the same after a restart, and after everything was derived from the log again.
    pub(crate) async fn endures(self) {
        let (before, users) = (self.read_again().await, self.users().await);
        let again = self.restart().await;
        assert_eq!(before, again.read_again().await, "after a restart");
        expect_same(&again.app.db).await;
        assert_eq!(before, again.read_again().await, "after a rebuild");
        assert_eq!(users, again.users().await);
        assert!(!before.is_empty());
    }

    /// Settings were changed on the way: all says the same after a restart, and a rebuild derives everything by those that
    /// count now, from the first event on. What is left is what a second one leaves.
    pub(crate) async fn rebuilt(self) -> Self {
        let before = self.read_again().await;
        let again = self.restart().await;
        assert_eq!(before, again.read_again().await, "after a restart");
        json_of(&run(&again.app.db, &["--json"]).await);
        expect_same(&again.app.db).await;
        again
    }

    async fn read_again(&self) -> Vec<(String, Value)> {
        let (read, mut all) = (self.read.borrow().clone(), Vec::new());
        for (selector, rest) in read {
            let path = format!("{PROFILES}/{selector}/{rest}?limit=200&min_offset={}", self.offset);
            all.push((path.clone(), self.app.get(&path).await.json));
        }
        all
    }

    pub(crate) async fn get(&self, selector: &str, rest: &str) -> Value {
        self.read.borrow_mut().insert((selector.to_owned(), rest.to_owned()));
        let sign = if rest.contains('?') { '&' } else { '?' };
        let path = format!("{PROFILES}/{selector}/{rest}{sign}min_offset={}&limit=200", self.offset);
        self.app.get(&path).await.expect(200).json
    }

    /// The profile behind `type:value`.
    pub(crate) async fn who(&self, selector: &str) -> String {
        self.get(selector, "metadata").await["metadata"]["profile_id"].as_str().unwrap().to_owned()
    }

    /// Its identifiers as `type=value`, sorted.
    pub(crate) async fn ids(&self, selector: &str) -> BTreeSet<String> {
        words(&self.get(selector, "external_ids").await["data"], "type", "=")
    }

    pub(crate) async fn expect_ids(&self, selector: &str, expected: &str) {
        let expected: BTreeSet<String> = expected.split_whitespace().map(str::to_owned).collect();
        assert_eq!(self.ids(selector).await, expected, "{selector}");
    }

    /// Rules by which identifiers of the profile were refused: `rule: value`.
    pub(crate) async fn refusals(&self, selector: &str) -> Vec<String> {
        let identity = self.get(selector, "identity").await;
        let word = |r: &Value| format!("{}: {}", r["rule"].as_str().unwrap(), r["id"].as_str().unwrap());
        identity["refusals"].as_array().unwrap().iter().map(word).collect()
    }

    pub(crate) async fn expect_refusals(&self, selector: &str, expected: &[&str]) {
        let refusals: BTreeSet<String> = self.refusals(selector).await.into_iter().collect();
        let expected: BTreeSet<String> = expected.iter().map(|&word| word.to_owned()).collect();
        assert_eq!(refusals, expected, "{selector}");
    }

    pub(crate) async fn traits(&self, selector: &str) -> Value {
        self.get(selector, "traits").await["traits"].clone()
    }

    pub(crate) async fn users(&self) -> i64 {
        let path = format!("/v1/spaces/default/pipeline?min_offset={}", self.offset);
        self.app.get(&path).await.expect(200).json["profiles"]["users"].as_i64().unwrap()
    }
}

/// A member of each row, and its id.
#[track_caller]
pub(crate) fn words(list: &Value, name: &str, sign: &str) -> BTreeSet<String> {
    let word = |row: &Value| format!("{}{sign}{}", row[name].as_str().unwrap(), row["id"].as_str().unwrap());
    list.as_array().unwrap().iter().map(word).collect()
}

/// A type of identifier in settings.
pub(crate) fn type_of<'a>(settings: &'a Value, name: &str) -> &'a Value {
    settings["identifiers"].as_array().unwrap().iter().find(|t| t["type"] == name).unwrap()
}
