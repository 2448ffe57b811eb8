//! The candidate: a server of this very binary, in a process of its own, on the same Postgres as the references.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Instant;

use super::events::{NAMES, Traffic, USERS, Users};
use super::load::Pace;
use super::machine;
use super::reference::Reference;
use super::target::{BATCH, SPACE, Target};
use crate::cli::client::Client;
use crate::embedded::Postgres;

const WRITE_KEY: &str = "wk_bench";
const TOKEN: &str = "tok_bench";
const SECRET_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
pub(super) const AUDIENCES: usize = 50;
const TRAITS: usize = 20;
/// How long caches are warmed after every user exists.
const WARM_UP: Duration = Duration::from_secs(3);
/// Longest wait for a backlog to be worked off.
const DRAIN_LIMIT: Duration = Duration::from_mins(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often the backlog is looked at while the load follows it.
const WATCH_EVERY: Duration = Duration::from_millis(15);
/// Waiting events from which on no more are sent: less than a second of work, and enough for the next batch.
const BACKLOG_MAX: u64 = 40_000;

/// How far the server is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pipeline {
    log_end: u64,
    processed: u64,
    lag_ms: u64,
    duplicates: u64,
    pub(super) users: u64,
}

/// What G4 says besides its rate.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sustained {
    pub(super) rate: f64,
    pub(super) cpu_us_service: f64,
    pub(super) cpu_us_postgres: f64,
    pub(super) peak_memory_mib: f64,
    pub(super) lag_ms: f64,
}

/// The server.
#[derive(Debug)]
pub(super) struct Service {
    child: Child,
    /// Kept open: a server that cannot greet does not serve.
    out: Output,
    target: Target,
    client: Client,
    database: String,
    folder: PathBuf,
}

impl Service {
    pub(super) async fn start(postgres: &Postgres, folder: &Path) -> anyhow::Result<Self> {
        let database = postgres.url();
        let (child, out, url) = spawn(&database, folder).await?;
        let target = Target {
            address: address_of(&url)?,
            host: "bench".to_owned(),
            write_key: WRITE_KEY.to_owned(),
            token: TOKEN.to_owned(),
            stream: 1_000,
        };
        let client = Client::new(&url.parse()?, TOKEN)?;
        Ok(Self { child, out, target, client, database, folder: folder.to_owned() })
    }

    /// Kills it and starts it again; how long it takes from its start until it is ready.
    pub(super) async fn start_again(&mut self) -> anyhow::Result<Duration> {
        self.child.kill().await?;
        let began = Instant::now();
        let (child, out, url) = spawn(&self.database, &self.folder).await?;
        (self.child, self.out) = (child, out);
        self.target.address = address_of(&url)?;
        self.client = Client::new(&url.parse()?, TOKEN)?;
        while !self.client.send(Method::GET, "/readyz", None).await?.status.is_success() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(began.elapsed())
    }

    /// Where load is sent to.
    pub(super) const fn target(&mut self) -> &mut Target {
        &mut self.target
    }

    pub(super) fn pid(&self) -> i32 {
        self.child.id().unwrap_or_default() as i32
    }

    /// Audiences and computed traits, and nearly all users.
    pub(super) async fn prepare(&mut self) -> anyhow::Result<()> {
        for n in 0..AUDIENCES {
            let name = NAMES.get(n % NAMES.len()).copied().unwrap_or_default();
            let query = match n % 3 {
                0 => format!("event('{name}').count() >= {}", 1 + n / 5),
                1 => format!("event('{name}').within({} days).count() >= {}", 1 + n, 1 + n / 10),
                _ => format!("event('{name}').sum(property('revenue')) >= {}", 50 * n),
            };
            self.define("audiences", format!("audience_{n}"), &query).await?;
        }
        for n in 0..TRAITS {
            let name = NAMES.get(n).copied().unwrap_or_default();
            let query = match n % 4 {
                0 => format!("event('{name}').count()"),
                1 => format!("event('{name}').sum(property('revenue'))"),
                2 => format!("event('{name}').last(property('category'))"),
                _ => format!("event('{name}').within(30 days).count()"),
            };
            self.define("computed-traits", format!("trait_{n}"), &query).await?;
        }
        let everybody = Traffic::Sweep(Users::default(), Arc::default());
        self.populate(USERS, &everybody).await?;
        self.target.send(BATCH, WARM_UP, Traffic::Uniform(Users::default()), Pace::default()).await?;
        self.drain().await
    }

    /// Sends this until there are so many users.
    pub(super) async fn populate(&mut self, users: u64, traffic: &Traffic) -> anyhow::Result<()> {
        while self.pipeline().await?.users < users {
            self.send_some(traffic).await?;
        }
        Ok(())
    }

    /// Sends this for a moment, and waits until it is processed.
    pub(super) async fn send_some(&mut self, traffic: &Traffic) -> anyhow::Result<()> {
        let seconds = Duration::from_millis(500);
        self.target.send(BATCH, seconds, traffic.clone(), Pace::default()).await?;
        self.drain().await?;
        Ok(())
    }

    pub(super) async fn define(&self, kind: &str, key: String, query: &str) -> anyhow::Result<()> {
        let body = json!({"key": key, "definition": {"type": "users", "query": query}}).to_string();
        let answer = self.client.send(Method::POST, &format!("{SPACE}/{kind}"), Some(body)).await?;
        anyhow::ensure!(answer.status.is_success(), "{query}: {}", answer.complaint());
        Ok(())
    }

    /// Waits until a definition answers.
    pub(super) async fn live(&self, kind: &str, key: &str) -> anyhow::Result<()> {
        let path = format!("{SPACE}/{kind}/{key}");
        while self.client.send(Method::GET, &path, None).await?.json["status"] != "live" {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// A client that reads.
    pub(super) fn reader(&self) -> Client {
        self.client.clone()
    }

    /// A client that sends events.
    pub(super) fn writer(&self) -> anyhow::Result<Client> {
        Client::new(&format!("http://{}", self.target.address).parse()?, WRITE_KEY)
    }

    pub(super) async fn pipeline(&self) -> anyhow::Result<Pipeline> {
        pipeline(&self.client).await
    }

    /// Waits until every event is processed.
    pub(super) async fn drain(&self) -> anyhow::Result<()> {
        drain(&self.client).await
    }

    /// Checks that everything accepted since `before` is stored, and counted once.
    pub(super) async fn check(&self, before: Pipeline, accepted: u64) -> anyhow::Result<()> {
        self.drain().await?;
        let after = self.pipeline().await?;
        let stored = after.log_end - before.log_end;
        anyhow::ensure!(stored == accepted, "{accepted} events were accepted, {stored} are stored");
        anyhow::ensure!(after.duplicates == before.duplicates, "different events were taken for the same");
        Ok(())
    }

    /// G4: events a second that go all the way to the audiences, with a backlog that does not grow.
    pub(super) async fn sustain(
        &mut self,
        seconds: Duration,
        traffic: Traffic,
        postmaster: i32,
    ) -> anyhow::Result<(Sustained, u64)> {
        let hold = Arc::new(AtomicBool::new(false));
        let watching = tokio::task::JoinSet::from_iter([watch(self.client.clone(), Arc::clone(&hold))]);
        // The caches are those of a running service when the measuring begins.
        let warm = self.target.send(BATCH, WARM_UP, traffic.clone(), Pace::held(&hold)).await?;
        let cpu = |pid| (machine::cpu_of_family(pid), machine::cpu_of_family(postmaster));
        let (pid, before, started) = (self.pid(), self.pipeline().await?, Instant::now());
        let cpu_before = cpu(pid);
        machine::forget_peak_memory(pid);
        let done = self.target.send(BATCH, seconds, traffic, Pace::held(&hold)).await?;
        let (after, took, cpu_after) = (self.pipeline().await?, started.elapsed().as_secs_f64(), cpu(pid));
        drop(watching);
        let events = (after.processed - before.processed) as f64;
        let each = |before: f64, after: f64| (after - before) * 1e6 / events.max(1.0);
        let sustained = Sustained {
            rate: events / took,
            cpu_us_service: each(cpu_before.0, cpu_after.0),
            cpu_us_postgres: each(cpu_before.1, cpu_after.1),
            peak_memory_mib: machine::peak_memory(pid),
            lag_ms: after.lag_ms as f64,
        };
        Ok((sustained, warm.units + done.units))
    }

    /// G3: how many events a second are processed that were stored while nothing was; and how many those were.
    pub(super) async fn work_off(
        &mut self,
        seconds: Duration,
        reference: &mut Reference,
    ) -> anyhow::Result<(f64, u64)> {
        reference.hold_leases(true).await?;
        let stored = self.target.store(BATCH, seconds).await;
        reference.hold_leases(false).await?;
        let stored = stored?;
        let before = self.pipeline().await?.processed;
        let first = self.advanced_beyond(before).await?;
        let began = Instant::now();
        self.drain().await?;
        let took = began.elapsed().as_secs_f64();
        let worked = self.pipeline().await?.processed - first;
        Ok((worked as f64 / took, stored.units))
    }

    /// Waits until something is processed; how far it is then.
    async fn advanced_beyond(&self, before: u64) -> anyhow::Result<u64> {
        loop {
            let now = self.pipeline().await?;
            if now.processed > before || now.processed >= now.log_end {
                return Ok(now.processed);
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        Ok(())
    }
}

type Output = Lines<BufReader<ChildStdout>>;

/// A server of this binary that listens; where.
async fn spawn(database: &str, folder: &Path) -> anyhow::Result<(Child, Output, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PERSONAS_") {
            command.env_remove(name);
        }
    }
    let mut child = command
        .arg("serve")
        .current_dir(folder)
        .env("DATABASE_URL", database)
        .env("PERSONAS_LISTEN", "127.0.0.1:0")
        .env("PERSONAS_BOOTSTRAP_WRITE_KEY", WRITE_KEY)
        .env("PERSONAS_BOOTSTRAP_TOKEN", TOKEN)
        .env("PERSONAS_TELEMETRY_LOG", "error")
        .env("PERSONAS_EGRESS_ALLOW_NETWORKS", "127.0.0.0/8")
        .env("PERSONAS_DELIVER_SECRET_KEY", SECRET_KEY)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let out = child.stdout.take().context("the server's output")?;
    let mut out = BufReader::new(out).lines();
    let greeting = out.next_line().await?.unwrap_or_default();
    let (_, url) = greeting.split_once("listens on ").context("the server did not start")?;
    let url = url.to_owned();
    Ok((child, out, url))
}

fn address_of(url: &str) -> anyhow::Result<SocketAddr> {
    url.trim_start_matches("http://").parse().context("the server's address")
}

async fn pipeline(client: &Client) -> anyhow::Result<Pipeline> {
    let answer = client.send(Method::GET, &format!("{SPACE}/pipeline"), None).await?;
    anyhow::ensure!(answer.status.is_success(), "pipeline: {}", answer.complaint());
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let json = &answer.json;
    Ok(Pipeline {
        log_end: number(&json["log_end_offset"]),
        processed: number(&json["processed_offset"]),
        lag_ms: number(&json["lag_ms"]),
        duplicates: number(&json["duplicates"]),
        users: number(&json["profiles"]["users"]),
    })
}

/// Waits until a server has processed every event.
pub(super) async fn drain(client: &Client) -> anyhow::Result<()> {
    let end = Instant::now() + DRAIN_LIMIT;
    loop {
        let now = pipeline(client).await?;
        if now.processed >= now.log_end {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < end, "the backlog is still {} events", now.log_end - now.processed);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Holds the load back while the backlog is long: what comes in is what can be worked off, without pauses.
async fn watch(client: Client, hold: Arc<AtomicBool>) {
    loop {
        if let Ok(now) = pipeline(&client).await {
            hold.store(now.log_end - now.processed > BACKLOG_MAX, Ordering::Relaxed);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}
