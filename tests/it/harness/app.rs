//! The whole service in this process, on a database of its own, and a small client for it.

use std::collections::BTreeMap;
use std::time::Duration;

use personas::app::{App, Overrides, Running};
use personas::config::{Config, Sources};
use personas::domain::Timestamp;
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::Value;

use super::cluster::TestDb;

/// The write key of the first source.
pub(crate) const WRITE_KEY: &str = "wk_of_the_tests";
/// The owner's token.
pub(crate) const TOKEN: &str = "tok_of_the_owner";

/// A running service. It ends with the test's runtime.
pub(crate) struct TestApp {
    /// `http://127.0.0.1:port`
    pub(crate) url: String,
    /// Never follows redirects.
    pub(crate) client: reqwest::Client,
    /// For [`Running::drain`] and [`Running::stop`].
    pub(crate) running: Running,
    /// For looking behind the door.
    pub(crate) db: TestDb,
}

/// How a test wants its service.
#[derive(Default)]
pub(crate) struct Wish {
    variables: BTreeMap<String, String>,
    test_clock: Option<Timestamp>,
}

impl Wish {
    /// Sets an option: `("ingest.queue_events_max", "10")`.
    pub(crate) fn option(mut self, path: &str, value: &str) -> Self {
        self.variables.insert(personas::config::variable(path), value.to_owned());
        self
    }

    /// Lets time stand still.
    pub(crate) fn at(mut self, time: &str) -> Self {
        self.test_clock = Some(Timestamp::parse(time).unwrap());
        self
    }

    /// Starts the service on a new database.
    pub(crate) async fn start(self) -> TestApp {
        self.start_on(TestDb::new().await).await
    }

    /// Starts the service on the database of another one, which keeps it.
    pub(crate) async fn start_at(mut self, url: &str) -> TestApp {
        self.variables.insert("DATABASE_URL".to_owned(), url.to_owned());
        self.start().await
    }

    /// Starts the service on a database that may have been used before.
    pub(crate) async fn start_on(mut self, db: TestDb) -> TestApp {
        for (name, value) in [
            ("DATABASE_URL", db.url()),
            ("PERSONAS_LISTEN", "127.0.0.1:0".to_owned()),
            ("PERSONAS_BOOTSTRAP_WRITE_KEY", WRITE_KEY.to_owned()),
            ("PERSONAS_BOOTSTRAP_TOKEN", TOKEN.to_owned()),
        ] {
            self.variables.entry(name.to_owned()).or_insert(value);
        }
        let config = Config::load(&Sources { variables: self.variables, ..Sources::default() }).unwrap();
        let overrides = Overrides { test_clock: self.test_clock, id_seed: None };
        let running = App::start(config, overrides).await.unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_mins(1))
            .build()
            .unwrap();
        TestApp { url: format!("http://{}", running.address()), client, running, db }
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// The body as JSON, null when it is none.
    pub(crate) json: Value,
}

impl Answer {
    /// A header as text, empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|v| v.to_str().unwrap()).unwrap_or_default()
    }

    /// The `Personas-Offset`.
    pub(crate) fn offset(&self) -> u64 {
        self.header("personas-offset").parse().unwrap()
    }

    /// Fails unless the status is that.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// Fails unless it is a problem of that code, with everything a problem has to have.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let problem = &answer.json;
        assert_eq!(problem["code"], code, "{}", answer.text);
        assert_eq!(problem["type"], format!("/docs/errors#{code}"));
        assert_eq!(problem["status"], status);
        assert_eq!(problem["request_id"], answer.header("request-id"));
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        answer
    }
}

impl TestApp {
    /// The service with all defaults.
    pub(crate) async fn start() -> Self {
        Wish::default().start().await
    }

    /// A second process on the same database. Its own `db` is not used.
    pub(crate) async fn beside(&self) -> Self {
        let mut wish = Wish::default();
        wish.variables.insert("DATABASE_URL".to_owned(), self.db.url());
        wish.start().await
    }

    /// A request without any credentials.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Posts a body to the tracking API with the write key, as SDKs do.
    pub(crate) async fn track(&self, path: &str, body: impl ToString) -> Answer {
        let request = self.request(Method::POST, path).basic_auth(WRITE_KEY, Some(""));
        send(request.body(body.to_string())).await
    }

    /// Calls the management API as the owner.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.call_as(TOKEN, method, path, body).await
    }

    /// Calls the management API with any token.
    pub(crate) async fn call_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let request = self.request(method, path).bearer_auth(token);
        send(if let Some(body) = body { request.json(&body) } else { request }).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }
}

impl TestApp {
    /// Makes a definition in the first space and waits until it serves. `path` is `audiences` or `computed-traits`.
    pub(crate) async fn make_live(&self, path: &str, key: &str, query: &str) -> Value {
        let body = serde_json::json!({"key": key, "definition": {"type": "users", "query": query}});
        self.make_live_from(path, key, body).await
    }

    /// The same from a whole body.
    pub(crate) async fn make_live_from(&self, path: &str, key: &str, body: Value) -> Value {
        self.post(&format!("/v1/spaces/default/{path}"), body).await.expect(201);
        self.live(path, key).await
    }

    /// Waits until the newest version of a definition serves.
    pub(crate) async fn live(&self, path: &str, key: &str) -> Value {
        for _ in 0..1_000 {
            let found = self.get(&format!("/v1/spaces/default/{path}/{key}")).await.expect(200).json;
            if found["status"] == "live" && found["serving_version"] == found["version"] {
                return found;
            }
            assert_ne!(found["status"], "failed", "{found}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{path} {key} does not become live");
    }
}

/// Sends a request and reads the answer whole.
pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    // What comes for as long as somebody listens is not waited for.
    let is_endless = headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
    let text = if is_endless { String::new() } else { response.text().await.unwrap() };
    let json = serde_json::from_str(&text).unwrap_or_default();
    Answer { status, headers, text, json }
}
