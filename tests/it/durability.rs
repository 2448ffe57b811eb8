//! Nothing acknowledged is lost and nothing counts twice, whoever is killed: the real binary with its private Postgres,
//! killed with -9 while it takes in events, while it processes them, and with its Postgres killed under it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::harness::process::Server;

const KEY: &str = "wk_of_durability";
const TOKEN: &str = "tok_of_durability";
const USERS: u32 = 20;
const BATCH: usize = 50;

const VARIABLES: [(&str, &str); 4] = [
    ("PERSONAS_BOOTSTRAP_WRITE_KEY", KEY),
    ("PERSONAS_BOOTSTRAP_TOKEN", TOKEN),
    ("PERSONAS_PROCESSOR_BATCH_EVENTS_MAX", "300"),
    ("PERSONAS_PROCESSOR_DEDUP_RECENT_MAX", "2000"),
];

async fn define(server: &Server) {
    for (path, key, query) in [
        ("computed-traits", "seen", "event('Seen').count()"),
        ("computed-traits", "total", "event('Seen').sum(property('n'))"),
        ("audiences", "many", "event('Seen').count() >= 10"),
    ] {
        server.post(path, json!({"key": key, "definition": {"type": "users", "query": query}})).await;
    }
}

/// What was sent, and what has been acknowledged.
#[derive(Default)]
struct Ledger {
    next: u64,
    acknowledged: u64,
    /// Sent, outcome unknown: to be sent again with the same message ids.
    unknown: Vec<Vec<u64>>,
    counts: HashMap<u64, u64>,
}

impl Ledger {
    fn batch(&mut self) -> Vec<u64> {
        if let Some(batch) = self.unknown.pop() {
            return batch;
        }
        let first = self.next;
        self.next += BATCH as u64;
        (first..self.next).collect()
    }

    /// Sends one batch; false when the server did not acknowledge it.
    async fn send(&mut self, url: &str, client: &reqwest::Client) -> bool {
        let batch = self.batch();
        let items: Vec<Value> = batch
            .iter()
            .map(|n| {
                json!({"type": "track", "event": "Seen", "userId": format!("u{}", n % u64::from(USERS)),
                    "messageId": format!("m{n}"), "properties": {"n": n}})
            })
            .collect();
        let request = client.post(format!("{url}/v1/batch")).basic_auth(KEY, Some(""));
        let sent =
            request.body(json!({ "batch": items }).to_string()).timeout(Duration::from_secs(10)).send().await;
        if sent.is_ok_and(|answer| answer.status().is_success()) {
            self.acknowledged += batch.len() as u64;
            for n in batch {
                *self.counts.entry(n % u64::from(USERS)).or_default() += 1;
            }
            return true;
        }
        self.unknown.push(batch);
        false
    }

    /// Sends what is still unknown, then checks that everything acknowledged counts exactly once.
    async fn settle(&mut self, server: &Server, client: &reqwest::Client) {
        while !self.unknown.is_empty() {
            assert!(self.send(&server.url, client).await, "a server nobody kills takes everything");
        }
        let until = Instant::now() + Duration::from_mins(1);
        let pipeline = loop {
            let pipeline = server.get("pipeline").await;
            if pipeline["lag_events"] == 0 && pipeline["backfills"] == json!([]) {
                break pipeline;
            }
            assert!(Instant::now() < until, "the processor does not catch up: {pipeline}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let counted = pipeline["log_end_offset"].as_u64().unwrap() - pipeline["duplicates"].as_u64().unwrap();
        assert_eq!(counted, self.acknowledged, "{pipeline}");
        for user in 0..u64::from(USERS) {
            let traits = server.get(&format!("collections/users/profiles/user_id:u{user}/traits")).await;
            let expected = self.counts[&user];
            let sum: u64 = (0..self.next).filter(|n| n % u64::from(USERS) == user).sum();
            assert_eq!(traits["traits"], json!({"many": true, "seen": expected, "total": sum}), "u{user}");
        }
        let size = server.get("audiences/many/size").await;
        assert_eq!(size["size"], USERS);
    }
}

fn seed() -> StdRng {
    let seed = std::env::var("PERSONAS_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_123);
    println!("seed={seed} (PERSONAS_TEST_SEED repeats it)");
    StdRng::seed_from_u64(seed)
}

/// A data folder with a server that has its definitions.
struct Stage {
    folder: tempfile::TempDir,
    client: reqwest::Client,
    random: StdRng,
    ledger: Ledger,
}

impl Stage {
    async fn set() -> (Self, Server) {
        let stage = Self {
            folder: tempfile::tempdir().unwrap(),
            client: reqwest::Client::builder().build().unwrap(),
            random: seed(),
            ledger: Ledger::default(),
        };
        let server = stage.start().await;
        define(&server).await;
        (stage, server)
    }

    async fn start(&self) -> Server {
        Server::start(&self.folder.path().join("data"), TOKEN, &VARIABLES).await
    }

    fn moment(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range))
    }

    /// Sends until `ending` has ended the server.
    async fn load_until<T>(&mut self, url: &str, ending: impl Future<Output = T>) -> T {
        let load = async { while self.ledger.send(url, &self.client).await {} };
        tokio::join!(load, ending).1
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_twenty_times_while_taking_in_events() {
    let (mut stage, mut server) = Stage::set().await;
    for _ in 0..20 {
        let (moment, url) = (stage.moment(20..250), server.url.clone());
        let killing = async {
            tokio::time::sleep(moment).await;
            server.kill();
        };
        stage.load_until(&url, killing).await;
        server = stage.start().await;
    }
    assert!(stage.ledger.acknowledged > 0);
    stage.ledger.settle(&server, &stage.client).await;
    server.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_twenty_times_while_processing() {
    let (mut stage, mut server) = Stage::set().await;
    let mut behind = 0;
    for _ in 0..20 {
        for _ in 0..20 {
            assert!(stage.ledger.send(&server.url, &stage.client).await);
        }
        tokio::time::sleep(stage.moment(0..60)).await;
        behind += server.get("pipeline").await["lag_events"].as_u64().unwrap();
        server.kill();
        server = stage.start().await;
    }
    assert!(behind > 0, "no kill found the processor at work");
    stage.ledger.settle(&server, &stage.client).await;
    server.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_killed_five_times_under_it() {
    let (mut stage, mut server) = Stage::set().await;
    for _ in 0..5 {
        let (moment, url) = (stage.moment(50..300), server.url.clone());
        let killing = async {
            tokio::time::sleep(moment).await;
            server.kill_postgres("-KILL").await;
        };
        stage.load_until(&url, killing).await;
        server = stage.start().await;
    }
    stage.ledger.settle(&server, &stage.client).await;
    server.kill();
}
