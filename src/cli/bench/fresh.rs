//! How soon what happened is seen: transitions after their events, exits after their instants, and what a backfill costs
//! the others.

use std::time::Duration;

use anyhow::Context;
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::events::{Traffic, Users};
use super::load::Pace;
use super::service::Service;
use super::target::{BATCH, BATCH_CONNECTIONS, SPACE};
use crate::cli::client::Client;
use crate::clock::Clock;

/// How often somebody enters an audience and is waited for.
const PROBE_EVERY: Duration = Duration::from_millis(40);
/// Members that leave within one minute.
const EXITS: u64 = 100_000;
const EXITS_WITHIN_MS: u64 = 60_000;
/// Time to make the members before the first one leaves.
const LEAD_MS: i64 = 45_000;
const WINDOW_MS: i64 = 3_600_000;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Milliseconds until things were seen: half of them, 99 of 100, and the latest one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) half: f64,
    pub(super) nearly_all: f64,
    pub(super) latest: f64,
}

impl Seen {
    pub(super) fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times.get((times.len().saturating_sub(1) as f64 * part) as usize).copied();
        Self {
            half: at(0.5).unwrap_or_default(),
            nearly_all: at(0.99).unwrap_or(f64::INFINITY),
            latest: at(1.0).unwrap_or(f64::INFINITY),
        }
    }
}

impl Service {
    /// Lets events come in at this rate, whatever becomes of them, and people enter an audience meanwhile: how long it
    /// takes from the moment the event should be sent until a read shows them in the audience, and until those that come
    /// in are acknowledged; and the events sent.
    pub(super) async fn freshness(
        &mut self,
        rate: f64,
        seconds: Duration,
        number: u64,
    ) -> anyhow::Result<(Seen, Seen, u64)> {
        let key = format!("probe_{number}");
        self.define("audiences", key.clone(), &format!("event('Probe {number}').count() >= 1")).await?;
        self.live("audiences", &key).await?;
        let probing = JoinSet::from_iter([probe(self.writer()?, self.reader(), number, key, seconds)]);
        let every = Duration::from_secs_f64((BATCH * BATCH_CONNECTIONS) as f64 / rate);
        let pace = Pace { every: Some(every), ..Pace::default() };
        let done = self.target().send(BATCH, seconds, Traffic::Uniform(Users::default()), pace).await?;
        let times = probing.join_all().await.pop().context("no probe")??;
        let probes = times.len() as u64;
        Ok((Seen::of(times), Seen::of(done.took), done.units + probes))
    }

    /// Makes members of an audience who all leave it within a minute: how long after its instant an exit is seen.
    pub(super) async fn exits(&mut self, number: u64) -> anyhow::Result<(Seen, u64)> {
        let key = format!("leaving_{number}");
        self.define("audiences", key.clone(), &format!("event('Seen {number}').within(1 hour).count() >= 1"))
            .await?;
        self.live("audiences", &key).await?;
        let first_exit = Clock::System.now().plus_millis(LEAD_MS);
        let exit = |n: u64| first_exit.plus_millis((n * EXITS_WITHIN_MS / EXITS) as i64);
        let writer = self.writer()?;
        let mut sending = JoinSet::new();
        for batch in (0..EXITS).step_by(500) {
            let events: Vec<_> = (batch..EXITS.min(batch + 500))
                .map(|n| {
                    // The last instant inside of the window is the event's time plus its length.
                    let at = exit(n).plus_millis(-WINDOW_MS - 1).to_string();
                    json!({"type": "track", "userId": format!("leaving-{number}-{n}"), "event": format!("Seen {number}"), "timestamp": at})
                })
                .collect();
            if sending.len() >= 8 {
                sending.join_next().await.context("no batch")???;
            }
            sending.spawn(post(writer.clone(), json!({"batch": events}).to_string()));
        }
        while let Some(sent) = sending.join_next().await {
            sent??;
        }
        self.drain().await?;
        anyhow::ensure!(Clock::System.now() < first_exit, "making {EXITS} members took too long");
        let reader = self.reader();
        let mut lags = Vec::new();
        loop {
            let size = size(&reader, &key).await?;
            let now = Clock::System.now();
            let gone = EXITS - size.min(EXITS);
            // The first one who is still there should have gone at its instant.
            lags.push((now.millis() - exit(gone).millis()).max(0) as f64);
            if size == 0 {
                lags.pop();
                return Ok((Seen::of(lags), EXITS));
            }
            anyhow::ensure!(now < first_exit.plus_millis(10 * EXITS_WITHIN_MS as i64), "{size} do not leave");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Defines one audience after the other that has to read all of history, until it is dropped.
    pub(super) fn backfill_for_ever(&self) -> JoinSet<anyhow::Result<()>> {
        JoinSet::from_iter([backfill_for_ever(self.reader())])
    }
}

async fn probe(
    writer: Client,
    reader: Client,
    number: u64,
    key: String,
    seconds: Duration,
) -> anyhow::Result<Vec<f64>> {
    let (start, mut waiting) = (Instant::now(), JoinSet::new());
    for n in 0_u32.. {
        let intended = start + PROBE_EVERY * n;
        if intended >= start + seconds {
            break;
        }
        tokio::time::sleep_until(intended).await;
        let (writer, reader, key) = (writer.clone(), reader.clone(), key.clone());
        waiting.spawn(async move {
            let user = format!("probe-{number}-{n}");
            let event = json!({"type": "track", "userId": user, "event": format!("Probe {number}")});
            let offset = post(writer, json!({"batch": [event]}).to_string()).await?;
            let path = format!(
                "{SPACE}/collections/users/profiles/user_id:{user}/audiences?limit=200&min_offset={offset}"
            );
            let answer = reader.send(Method::GET, &path, None).await?;
            let took = intended.elapsed().as_secs_f64() * 1e3;
            anyhow::ensure!(answer.json.to_string().contains(&key), "{user} did not enter: {}", answer.json);
            Ok(took)
        });
    }
    waiting.join_all().await.into_iter().collect()
}

/// Sends a batch until it is taken; the offset of its last event.
pub(super) async fn post(writer: Client, body: String) -> anyhow::Result<u64> {
    loop {
        let answer = writer.send(Method::POST, "/v1/batch", Some(body.clone())).await?;
        if answer.is_temporary() {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        anyhow::ensure!(answer.status.is_success(), "a batch was refused: {}", answer.complaint());
        let offset =
            answer.headers.get("personas-offset").and_then(|value| value.to_str().ok()?.parse().ok());
        return offset.context("the answer has no Personas-Offset");
    }
}

async fn size(reader: &Client, key: &str) -> anyhow::Result<u64> {
    let answer = reader.send(Method::GET, &format!("{SPACE}/audiences/{key}/size"), None).await?;
    answer.json["size"].as_u64().with_context(|| format!("no size of {key}: {}", answer.complaint()))
}

async fn backfill_for_ever(reader: Client) -> anyhow::Result<()> {
    for n in 0_u64.. {
        let path = format!("{SPACE}/audiences");
        let query = "event('*').within(90 days).count() >= 40";
        let body = json!({"key": format!("backfilled_{}_{n}", Clock::System.now().millis()), "definition": {"query": query}});
        let made = reader.send(Method::POST, &path, Some(body.to_string())).await?;
        anyhow::ensure!(made.status.is_success(), "{}", made.complaint());
        let path = format!("{path}/{}", body["key"].as_str().unwrap_or_default());
        while reader.send(Method::GET, &path, None).await?.json["status"] != "live" {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        reader.send(Method::DELETE, &path, None).await?;
    }
    Ok(())
}
