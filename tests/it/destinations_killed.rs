//! Deliveries and `kill -9`: the real binary with its private Postgres, killed while it delivers, itself and its Postgres in
//! turn. Nothing is lost, what comes twice was under way when somebody was killed, and each profile stays in order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::destinations::KEY;
use crate::harness::process::Server;
use crate::harness::receiver::{Received, Receiver, Reply};

const WRITE_KEY: &str = "wk_of_deliveries";
const TOKEN: &str = "tok_of_deliveries";
const VARIABLES: [(&str, &str); 5] = [
    ("PERSONAS_BOOTSTRAP_WRITE_KEY", WRITE_KEY),
    ("PERSONAS_BOOTSTRAP_TOKEN", TOKEN),
    ("PERSONAS_DELIVER_SECRET_KEY", KEY),
    ("PERSONAS_DELIVER_POLL_MS", "20"),
    ("PERSONAS_EGRESS_ALLOW_NETWORKS", "127.0.0.0/8"),
];
const KILLS: usize = 20;
const USERS: usize = 100;
/// Changes of each user.
const TIMES: usize = 40;
const CONCURRENCY: usize = 8;
/// Answers that a worker gathers before it writes them down.
const GATHERED: usize = 500;
/// The receiver takes its time: not everything is sent between two kills.
const TAKES: Duration = Duration::from_millis(10);

async fn buy(server: &Server) {
    let client = reqwest::Client::builder().build().unwrap();
    for _ in 0..TIMES / 10 {
        let call =
            |n: usize| json!({"type": "track", "event": "Bought", "userId": format!("u{}", n % USERS)});
        let batch: Vec<Value> = (0..USERS * 10).map(call).collect();
        let request = client.post(format!("{}/v1/batch", server.url)).basic_auth(WRITE_KEY, Some(""));
        let answer = request.body(json!({ "batch": batch }).to_string()).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }
}

/// A server that has a queue to deliver; and its destination.
async fn set(folder: &std::path::Path, receiver: &Receiver) -> (Server, String) {
    let server = Server::start(folder, TOKEN, &VARIABLES).await;
    let definition = json!({"type": "users", "query": "event('Bought').count()"});
    server.post("computed-traits", json!({"key": "purchases", "definition": definition})).await;
    let until = Instant::now() + Duration::from_secs(30);
    while server.get("computed-traits/purchases").await["status"] != "live" {
        assert!(Instant::now() < until, "the trait does not become live");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let settings = json!({"url": format!("{}/hook", receiver.url)});
    let body = json!({"name": "Hook", "kind": "webhook", "settings": settings, "concurrency": CONCURRENCY});
    let made = server.post("destinations", body).await;
    let destination = format!("destinations/{}", made["id"].as_str().unwrap());
    let wanted = json!({"subject": "computed_trait", "key": "purchases"});
    server.post(&format!("{destination}/subscriptions"), wanted).await;
    (server, destination)
}

/// What the receiver got of one delivery, by its id.
fn ledger(all: &[Received]) -> HashMap<&str, Vec<&Received>> {
    let mut ledger: HashMap<&str, Vec<&Received>> = HashMap::new();
    for received in all {
        ledger.entry(received.json["messageId"].as_str().unwrap()).or_default().push(received);
    }
    ledger
}

fn change(received: &Received) -> (String, u64) {
    let user = received.json["userId"].as_str().unwrap().to_owned();
    (user, received.json["traits"]["purchases"].as_u64().unwrap())
}

/// Of each kill, what was sent before its end and once more after its beginning; fails when anything else was sent twice.
fn repeated(all: &[Received], kills: &[RangeInclusive<Instant>]) -> Vec<usize> {
    let mut repeated = vec![0; kills.len()];
    for (id, attempts) in ledger(all) {
        for (first, second) in attempts.iter().zip(attempts.iter().skip(1)) {
            assert_eq!(change(first), change(second), "{id} is one change");
            if !first.taken {
                // It was refused: an attempt of its own.
                continue;
            }
            let between = kills.iter().position(|kill| first.at <= *kill.end() && *kill.start() <= second.at);
            let kill = between.unwrap_or_else(|| panic!("{id} came twice, and nobody was killed meanwhile"));
            repeated[kill] += 1;
        }
    }
    repeated
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_twenty_times_while_delivering() {
    // Some are refused once: that they wait is not forgotten, either.
    let receiver = Receiver::start_with(|_, n| match n {
        0..2_000 if n % 100 == 7 => Reply::Status(500),
        _ => Reply::Late(TAKES, 200),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (mut server, destination) = set(&data, &receiver).await;
    buy(&server).await;
    let (mut kills, whole) = (Vec::new(), USERS * TIMES);
    for n in 0..KILLS {
        let (before, more) = (receiver.count(), 40 + n * 37 % 120);
        receiver.wait(|r| (r.count() >= before + more).then_some(())).await;
        let began = Instant::now();
        match n % 4 {
            1 => server.kill_postgres("-KILL").await,
            3 => server.kill_postgres("-QUIT").await,
            _ => server.kill(),
        }
        // A server goes on for a moment before it finds that its Postgres is gone.
        kills.push(began..=Instant::now());
        assert!(receiver.taken().len() < whole, "kill {n} found nothing to do");
        server = Server::start(&data, TOKEN, &VARIABLES).await;
    }
    let until = Instant::now() + Duration::from_mins(1);
    let seen = loop {
        let seen = server.get(&destination).await["deliveries"].clone();
        let lag = server.get("pipeline").await["lag_events"].clone();
        if seen["queued"] == 0 && lag == 0 {
            break seen;
        }
        assert!(Instant::now() < until, "not everything is delivered: {seen}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    server.kill();
    assert_eq!((&seen["succeeded"], &seen["dead"]), (&json!(whole), &json!(0)), "{seen}");
    let all = receiver.all();
    let repeated = repeated(&all, &kills);
    println!("sent once more after each kill: {repeated:?}");
    for (n, count) in repeated.iter().enumerate() {
        assert!(*count <= GATHERED + 2 * CONCURRENCY, "kill {n}: {count} came twice");
    }
    // A receiver that knows ids has every change once, those of each profile in order.
    let mut known: HashSet<&str> = HashSet::new();
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for received in all.iter().filter(|received| received.taken) {
        if known.insert(received.json["messageId"].as_str().unwrap()) {
            let (user, value) = change(received);
            told.entry(user).or_default().push(value);
        }
    }
    assert_eq!(told.len(), USERS);
    for (user, values) in told {
        assert_eq!(values, (1..=TIMES as u64).collect::<Vec<_>>(), "{user}");
    }
}
