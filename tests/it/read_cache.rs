//! Reads from memory are the same as reads from the database: after writes, merges, deletions, changes of definitions,
//! and when another process takes over.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;
use tokio::task::JoinSet;

use crate::harness::app::{Answer, TOKEN, TestApp, WRITE_KEY, Wish, send};
use crate::harness::cluster::TestDb;

const USERS: &str = "/v1/spaces/default/collections/users/profiles";
const HITS: &str = "personas_read_cache_hits_total";
const MISSES: &str = "personas_read_cache_misses_total";

async fn identify(app: &TestApp, call: Value) -> u64 {
    app.track("/v1/identify", call).await.expect(200).offset()
}

fn traits(selector: &str) -> String {
    format!("{USERS}/{selector}/traits?limit=200")
}

async fn read(app: &TestApp, selector: &str, offset: u64) -> Value {
    let path = format!("{}&min_offset={offset}", traits(selector));
    app.get(&path).await.expect(200).json["traits"].take()
}

/// A counter of the process behind `url`.
async fn counter(client: &reqwest::Client, url: &str, name: &str) -> u64 {
    let text = client.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

/// Reads until it was answered from memory.
async fn remembered(app: &TestApp, selector: &str) {
    let before = counter(&app.client, &app.url, HITS).await;
    while counter(&app.client, &app.url, HITS).await == before {
        app.get(&traits(selector)).await.expect(200);
    }
}

/// Readers that never stop, so that the memory is always filled.
fn hammer(app: &TestApp, selectors: &[&str]) -> JoinSet<()> {
    let mut readers = JoinSet::new();
    for selector in selectors.iter().cycle().take(4) {
        let (client, url) = (app.client.clone(), format!("{}{}", app.url, traits(selector)));
        readers.spawn(async move {
            loop {
                send(client.get(&url).bearer_auth(TOKEN)).await;
            }
        });
    }
    readers
}

#[tokio::test]
async fn a_read_never_goes_back_behind_what_was_acknowledged() {
    let app = Arc::new(TestApp::start().await);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for user in [0, 0, 0, 1] {
        let (app, acknowledged) = (Arc::clone(&app), Arc::clone(&acknowledged));
        readers.spawn(async move {
            loop {
                let before = acknowledged.load(Ordering::SeqCst);
                let answer = app.get(&traits(&format!("user_id:u{user}"))).await;
                let seen = answer.json["traits"]["n"].as_u64().unwrap_or(0);
                assert!(seen >= before, "{seen} was read after {before} had been: {}", answer.text);
            }
        });
    }
    for n in 1..=200 {
        let batch =
            [0, 1].map(|user| json!({"type": "identify", "userId": format!("u{user}"), "traits": {"n": n}}));
        let offset = app.track("/v1/batch", json!({"batch": batch})).await.expect(200).offset();
        assert_eq!(read(&app, "user_id:u0", offset).await["n"], n);
        acknowledged.store(n, Ordering::SeqCst);
        // The readers fill the memory again, in the middle of which the next one is written.
        let more = counter(&app.client, &app.url, HITS).await + n % 3;
        while counter(&app.client, &app.url, HITS).await < more {
            tokio::task::yield_now().await;
        }
        if let Some(ended) = readers.try_join_next() {
            ended.unwrap();
        }
    }
    assert!(counter(&app.client, &app.url, HITS).await > 200, "nothing was read from memory");
}

#[tokio::test]
async fn merges_are_seen_by_all_identifiers_at_once() {
    let app = TestApp::start().await;
    for n in 0..20 {
        let (user, anonymous) = (format!("user_id:u{n}"), format!("anonymous_id:a{n}"));
        identify(&app, json!({"userId": format!("u{n}"), "traits": {"a": 1}})).await;
        let offset = identify(&app, json!({"anonymousId": format!("a{n}"), "traits": {"b": 2}})).await;
        assert_eq!(read(&app, &anonymous, offset).await, json!({"b": 2}));
        let mut readers = hammer(&app, &[&user, &anonymous]);
        remembered(&app, &user).await;
        remembered(&app, &anonymous).await;
        let both = json!({"userId": format!("u{n}"), "anonymousId": format!("a{n}"), "traits": {"c": 3}});
        let offset = identify(&app, both).await;
        let merged = json!({"a": 1, "b": 2, "c": 3});
        assert_eq!(read(&app, &anonymous, offset).await, merged);
        assert_eq!(read(&app, &user, 0).await, merged);
        readers.shutdown().await;
    }
}

#[tokio::test]
async fn a_deleted_identifier_leads_nowhere_and_may_lead_elsewhere() {
    let app = TestApp::start().await;
    let offset = identify(&app, json!({"userId": "u1", "traits": {"email": "e@example.com"}})).await;
    assert_eq!(read(&app, "email:e@example.com", offset).await["email"], "e@example.com");
    let _readers = hammer(&app, &["email:e@example.com", "user_id:u1"]);
    remembered(&app, "email:e@example.com").await;
    let body = json!({"delete_external_ids": [{"type": "email", "id": "e@example.com"}]});
    app.post(&format!("{USERS}/user_id:u1/external_ids/delete"), body).await.expect(200);
    app.get(&traits("email:e@example.com")).await.expect(404);
    let ids = app.get(&format!("{USERS}/user_id:u1/external_ids")).await.expect(200).json;
    assert_eq!(ids["data"].as_array().unwrap().len(), 1, "{ids}");
    let offset = identify(&app, json!({"userId": "u2", "traits": {"email": "e@example.com", "n": 2}})).await;
    assert_eq!(read(&app, "email:e@example.com", offset).await["n"], 2);
}

#[tokio::test]
async fn a_definition_is_seen_and_gone_at_once_whoever_changes_it() {
    let one = TestApp::start().await;
    let offset = identify(&one, json!({"userId": "u1", "traits": {"n": 1}})).await;
    read(&one, "user_id:u1", offset).await;
    let _readers = hammer(&one, &["user_id:u1"]);
    let two = one.beside().await;
    for (round, by) in [&one, &two, &one, &two, &two, &two].into_iter().enumerate() {
        remembered(&one, "user_id:u1").await;
        let key = format!("at_least_{round}");
        by.make_live("audiences", &key, "trait('n') >= 1").await;
        assert_eq!(read(&one, "user_id:u1", 0).await[&key], true, "{round}");
        remembered(&one, "user_id:u1").await;
        by.delete(&format!("/v1/spaces/default/audiences/{key}")).await.expect(204);
        assert_eq!(read(&one, "user_id:u1", 0).await, json!({"n": 1}), "{round}");
    }
}

#[tokio::test]
async fn with_no_memory_reads_are_the_same() {
    let app = Wish::default().option("reads.cache_bytes_max", "0").start().await;
    for n in 1..10 {
        let offset = identify(&app, json!({"userId": "u1", "traits": {"n": n}})).await;
        assert_eq!(read(&app, "user_id:u1", offset).await, json!({"n": n}));
        assert_eq!(read(&app, "user_id:u1", 0).await, json!({"n": n}));
    }
}

/// A server in a process of its own, for what has to be frozen or counted alone. Killed when it is dropped.
struct Server {
    child: Child,
    /// Kept open: a server that cannot greet does not serve.
    _out: Lines<BufReader<ChildStdout>>,
    url: String,
    client: reqwest::Client,
}

impl Server {
    async fn start(db: &TestDb, variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_personas"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("DATABASE_URL", db.url())
            .env("PERSONAS_BOOTSTRAP_WRITE_KEY", WRITE_KEY)
            .env("PERSONAS_BOOTSTRAP_TOKEN", TOKEN)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = ChildStdout::from_std(child.stdout.take().unwrap()).unwrap();
        let mut out = BufReader::new(out).lines();
        let greeting = out.next_line().await.unwrap().unwrap();
        let url = greeting.split_once("listens on ").unwrap().1.trim().to_owned();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { child, _out: out, url, client }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    async fn get(&self, selector: &str, offset: u64) -> Answer {
        let url = format!("{}{}&min_offset={offset}", self.url, traits(selector));
        send(self.client.get(url).bearer_auth(TOKEN)).await
    }

    async fn identify(&self, call: Value) -> u64 {
        let request = self.client.post(format!("{}/v1/identify", self.url)).basic_auth(WRITE_KEY, Some(""));
        send(request.body(call.to_string())).await.expect(200).offset()
    }

    async fn counter(&self, name: &str) -> u64 {
        counter(&self.client, &self.url, name).await
    }

    /// Reads until it was answered from memory.
    async fn remembered(&self, selector: &str) {
        let before = self.counter(HITS).await;
        while self.counter(HITS).await == before {
            self.get(selector, 0).await.expect(200);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn who_was_frozen_while_another_process_took_over_answers_nothing_old() {
    let mut db = TestDb::new().await;
    let frozen = Server::start(&db, &[("PERSONAS_PROCESSOR_LEASE_SECONDS", "1")]).await;
    let offset = frozen.identify(json!({"userId": "u1", "traits": {"n": 1}})).await;
    assert_eq!(frozen.get("user_id:u1", offset).await.json["traits"]["n"], 1);
    for n in [10, 20, 30] {
        let app = Wish::default().start_on(db).await;
        frozen.remembered("user_id:u1").await;
        frozen.signal("-STOP");
        let offset = identify(&app, json!({"userId": "u1", "traits": {"n": n}})).await;
        assert_eq!(read(&app, "user_id:u1", offset).await["n"], n, "the other one has taken over");
        // Asked while it is frozen, so that it is the first thing it does.
        let (answer, ()) = tokio::join!(frozen.get("user_id:u1", 0), async {
            tokio::task::yield_now().await;
            frozen.signal("-CONT");
        });
        assert_eq!(answer.expect(200).json["traits"]["n"], n);
        // It gets the space back. What it knew before is not what it answers.
        app.running.stop(Duration::ZERO).await.unwrap();
        db = app.db;
        frozen.remembered("user_id:u1").await;
        assert_eq!(frozen.get("user_id:u1", 0).await.json["traits"]["n"], n);
        let offset = frozen.identify(json!({"userId": "u1", "traits": {"n": n + 1}})).await;
        assert_eq!(frozen.get("user_id:u1", offset).await.json["traits"]["n"], n + 1);
    }
}

#[tokio::test]
async fn hits_and_misses_are_counted_where_it_is_on() {
    let db = TestDb::new().await;
    let off = Server::start(&db, &[("PERSONAS_READS_CACHE_BYTES_MAX", "0")]).await;
    let offset = off.identify(json!({"userId": "u1", "traits": {"n": 1}})).await;
    for _ in 0..50 {
        off.get("user_id:u1", offset).await.expect(200);
    }
    assert_eq!((off.counter(HITS).await, off.counter(MISSES).await), (0, 0));
    drop(off);
    let db = TestDb::new().await;
    let on = Server::start(&db, &[]).await;
    let offset = on.identify(json!({"userId": "u1", "traits": {"n": 1}})).await;
    on.get("user_id:u1", offset).await.expect(200);
    on.remembered("user_id:u1").await;
    let found = on.counter(HITS).await + on.counter(MISSES).await;
    send(on.client.get(format!("{}{}", on.url, traits("user_id:nobody"))).bearer_auth(TOKEN))
        .await
        .expect(404);
    assert_eq!(on.counter(HITS).await + on.counter(MISSES).await, found + 1);
    assert!(on.counter("personas_read_cache_bytes").await > 0);
}
