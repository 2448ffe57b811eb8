//! Deliveries: how many arrive at a receiver in this process, and how much they slow down what comes in.

use std::time::Duration;

use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::fresh::post;
use super::machine;
use super::receiver::Receiver;
use super::service::Service;
use super::target::SPACE;

const DESTINATIONS: &str = "/v1/spaces/default/destinations";
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest wait for a full sync.
const SYNC_LIMIT: Duration = Duration::from_mins(10);

/// What a full sync took.
pub(super) struct Synced {
    pub(super) members: u64,
    pub(super) rate: f64,
    /// The most memory of the service while the first tenth of them was sent, and until the end, in MiB.
    pub(super) first_tenth: f64,
    pub(super) peak: f64,
}

impl Service {
    /// Makes an audience of all users, live.
    pub(super) async fn everybody(&self, key: &str) -> anyhow::Result<()> {
        self.define("audiences", key.to_owned(), "event('*').count() >= 1").await?;
        self.live("audiences", key).await
    }

    /// Makes an audience of so many users who do nothing else, unless it is there.
    pub(super) async fn crowd(&self, key: &str, members: u64) -> anyhow::Result<()> {
        let path = format!("{SPACE}/audiences/{key}/size");
        let there = self.reader().send(Method::GET, &path, None).await?;
        if there.json["size"].as_u64() >= Some(members) {
            return Ok(());
        }
        self.define("audiences", key.to_owned(), "event('Joined').count() >= 1").await?;
        self.live("audiences", key).await?;
        let (writer, mut sending) = (self.writer()?, JoinSet::new());
        for batch in (0..members).step_by(500) {
            let join = |n| json!({"type": "track", "userId": format!("{key}-{n}"), "event": "Joined"});
            let events: Vec<Value> = (batch..members.min(batch + 500)).map(join).collect();
            if sending.len() >= 8 {
                sending.join_next().await.context("no batch")???;
            }
            sending.spawn(post(writer.clone(), json!({"batch": events}).to_string()));
        }
        while let Some(sent) = sending.join_next().await {
            sent??;
        }
        self.drain().await
    }

    /// Sends everybody in an audience to a receiver, one request each.
    pub(super) async fn sync(&self, receiver: &Receiver, key: &str) -> anyhow::Result<Synced> {
        let size = self.call(Method::GET, &format!("{SPACE}/audiences/{key}/size"), None).await?;
        let members = size["size"].as_u64().context("a size")?;
        let destination = self.destination(receiver, key, 1).await?;
        let (before, began) = (receiver.taken(), Instant::now());
        machine::forget_peak_memory(self.pid());
        let mut first_tenth = machine::peak_memory(self.pid());
        self.subscribe(&destination, "audience", key).await?;
        loop {
            let now = self.call(Method::GET, &destination, None).await?;
            if now["deliveries"]["succeeded"].as_u64() >= Some(members) {
                break;
            }
            anyhow::ensure!(began.elapsed() < SYNC_LIMIT, "not everybody was sent: {now}");
            if receiver.taken() - before <= members / 10 {
                first_tenth = machine::peak_memory(self.pid());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let took = began.elapsed().as_secs_f64();
        self.call(Method::DELETE, &destination, None).await?;
        let requests = receiver.taken() - before;
        anyhow::ensure!(requests == members, "{members} members, {requests} requests");
        Ok(Synced {
            members,
            rate: members as f64 / took,
            first_tenth,
            peak: machine::peak_memory(self.pid()),
        })
    }

    /// Makes a destination that wants every audience; returns its path.
    pub(super) async fn send_all(&self, receiver: &Receiver, name: &str) -> anyhow::Result<String> {
        let destination = self.destination(receiver, name, 100).await?;
        let audiences = self.call(Method::GET, &format!("{SPACE}/audiences?limit=1000"), None).await?;
        for audience in audiences["data"].as_array().into_iter().flatten() {
            self.subscribe(&destination, "audience", audience["key"].as_str().unwrap_or_default()).await?;
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

    /// Makes a webhook to a receiver; returns its path.
    pub(super) async fn destination(
        &self,
        receiver: &Receiver,
        name: &str,
        batch: u32,
    ) -> anyhow::Result<String> {
        let settings = json!({"url": receiver.url(), "batch_max": batch});
        let body = json!({"name": name, "kind": "webhook", "settings": settings, "concurrency": 64, "timeout_ms": 2_000});
        let made = self.call(Method::POST, DESTINATIONS, Some(body)).await?;
        Ok(format!("{DESTINATIONS}/{}", made["id"].as_str().context("the id of a destination")?))
    }

    /// Makes a destination want a computation.
    pub(super) async fn subscribe(&self, destination: &str, subject: &str, key: &str) -> anyhow::Result<()> {
        let body = json!({"subject": subject, "key": key});
        self.call(Method::POST, &format!("{destination}/subscriptions"), Some(body)).await.map(|_| ())
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let answer = self.reader().send(method, path, body.map(|body| body.to_string())).await?;
        anyhow::ensure!(answer.status.is_success(), "{path}: {}", answer.complaint());
        Ok(answer.json)
    }
}
