//! Deliveries: how many arrive at a receiver in this process, and how much they slow down what comes in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::service::{SPACE, Service};

const DESTINATIONS: &str = "/v1/spaces/default/destinations";
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest wait for a full sync.
const SYNC_LIMIT: Duration = Duration::from_mins(10);

/// Takes every request and says yes.
pub(super) struct Receiver {
    url: String,
    taken: Arc<AtomicU64>,
    _serving: JoinSet<()>,
}

impl Receiver {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let taken = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&taken);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let counted = Arc::clone(&counted);
                connections.spawn(async move {
                    // Whoever sends ends the connection when it likes.
                    let _gone = answer_all(stream, &counted).await;
                });
            }
        });
        Ok(Self { url, taken, _serving: serving })
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

async fn answer_all(stream: TcpStream, taken: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut stream, mut line, mut body) = (BufReader::new(stream), String::new(), Vec::new());
    loop {
        let mut length = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
            if line == "\r\n" {
                break;
            }
        }
        body.resize(length, 0);
        stream.read_exact(&mut body).await?;
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
        taken.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a full sync took.
pub(super) struct Synced {
    pub(super) members: u64,
    pub(super) rate: f64,
    pub(super) requests: u64,
}

impl Service {
    /// Makes an audience of all users, live.
    pub(super) async fn everybody(&self, key: &str) -> anyhow::Result<()> {
        self.define("audiences", key.to_owned(), "event('*').count() >= 1").await?;
        self.live("audiences", key).await
    }

    /// Sends everybody in an audience to a receiver, one request each.
    pub(super) async fn sync(&self, receiver: &Receiver, key: &str) -> anyhow::Result<Synced> {
        let size = self.call(Method::GET, &format!("{SPACE}/audiences/{key}/size"), None).await?;
        let members = size["size"].as_u64().context("a size")?;
        let destination = self.destination(receiver, key, 1).await?;
        let (before, began) = (receiver.taken(), Instant::now());
        self.subscribe(&destination, key).await?;
        loop {
            let now = self.call(Method::GET, &destination, None).await?;
            if now["deliveries"]["succeeded"].as_u64() >= Some(members) {
                break;
            }
            anyhow::ensure!(began.elapsed() < SYNC_LIMIT, "not everybody was sent: {now}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let took = began.elapsed().as_secs_f64();
        self.call(Method::DELETE, &destination, None).await?;
        Ok(Synced { members, rate: members as f64 / took, requests: receiver.taken() - before })
    }

    /// Makes a destination that wants every audience; returns its path.
    pub(super) async fn send_all(&self, receiver: &Receiver, name: &str) -> anyhow::Result<String> {
        let destination = self.destination(receiver, name, 100).await?;
        let audiences = self.call(Method::GET, &format!("{SPACE}/audiences?limit=1000"), None).await?;
        for audience in audiences["data"].as_array().into_iter().flatten() {
            self.subscribe(&destination, audience["key"].as_str().unwrap_or_default()).await?;
        }
        Ok(destination)
    }

    /// What has arrived of a destination, and what waits.
    pub(super) async fn delivered(&self, destination: &str) -> anyhow::Result<(f64, f64)> {
        let now = self.call(Method::GET, destination, None).await?;
        let number = |name: &str| now["deliveries"][name].as_f64().unwrap_or_default();
        Ok((number("succeeded"), number("queued")))
    }

    /// Waits until nothing waits for a destination.
    pub(super) async fn sent(&self, destination: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.delivered(destination).await?.1 > 0.0 {
            anyhow::ensure!(began.elapsed() < SYNC_LIMIT, "the queue of {destination} does not end");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Forgets a destination.
    pub(super) async fn forget(&self, destination: &str) -> anyhow::Result<()> {
        self.call(Method::DELETE, destination, None).await.map(|_| ())
    }

    async fn destination(&self, receiver: &Receiver, name: &str, batch: u32) -> anyhow::Result<String> {
        let settings = json!({"url": receiver.url, "batch_max": batch});
        let body = json!({"name": name, "kind": "webhook", "settings": settings, "concurrency": 64});
        let made = self.call(Method::POST, DESTINATIONS, Some(body)).await?;
        Ok(format!("{DESTINATIONS}/{}", made["id"].as_str().context("the id of a destination")?))
    }

    async fn subscribe(&self, destination: &str, key: &str) -> anyhow::Result<()> {
        let body = json!({"subject": "audience", "key": key});
        self.call(Method::POST, &format!("{destination}/subscriptions"), Some(body)).await.map(|_| ())
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let answer = self.reader().send(method, path, body.map(|body| body.to_string())).await?;
        anyhow::ensure!(answer.status.is_success(), "{path}: {}", answer.complaint());
        Ok(answer.json)
    }
}
