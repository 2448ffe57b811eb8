//! A space with definitions, a destination and a ledger, and the recipes of the processes that serve it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use personas::clock::Clock;
use serde_json::{Value, json};

use crate::client;
use crate::harness::cluster::TestDb;
use crate::harness::receiver::Receiver;
use crate::ledger::Ledger;
use crate::load::{Load, Pace, Targets};
use crate::plan::{Plan, wait};
use crate::server::{PATIENCE, Recipe, Server, is_fast};
use crate::traffic::Traffic;

const HOUR: i64 = 3_600_000;
/// Of each process's log, shown when a test fails.
const LAST_LINES: usize = 40;

/// What is defined in the space: path, key, query.
const DEFINITIONS: [(&str, &str, &str); 7] = [
    ("computed-traits", "seen", "event('Seen').count()"),
    ("computed-traits", "total", "event('Seen').sum(property('worth'))"),
    ("computed-traits", "last", "event('Seen').last(property('worth'))"),
    ("computed-traits", "lately", "event('Seen').within(3 days).sum(property('worth'))"),
    ("audiences", "many", "event('Seen').count() >= 10"),
    ("audiences", "pro", "trait('plan') = 'pro'"),
    ("audiences", "recent", "event('Seen').within(2 days).count() >= 2 AND NOT audience('pro')"),
];

/// See the module.
pub(crate) struct Stage {
    pub(crate) folder: tempfile::TempDir,
    /// The shared database; none where the only process has a private Postgres.
    pub(crate) db: Option<TestDb>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) receiver: Receiver,
    pub(crate) client: reqwest::Client,
}

/// How large.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) users: u64,
    pub(crate) batch: u64,
    /// Of a hundred calls, so many more come twice.
    pub(crate) duplicates: u64,
}

impl Stage {
    /// On a private Postgres.
    pub(crate) async fn private(plan: &Plan, size: Size) -> Self {
        Self::new(plan, size, None).await
    }

    /// On a database that processes share.
    pub(crate) async fn shared(plan: &Plan, size: Size) -> Self {
        Self::new(plan, size, Some(TestDb::new().await)).await
    }

    async fn new(plan: &Plan, size: Size, db: Option<TestDb>) -> Self {
        // About now, so that windows end while it goes on.
        let start = Clock::System.now().millis() / HOUR * HOUR;
        let Size { users, batch, duplicates } = size;
        let traffic = Traffic { seed: plan.seed, users, batch, duplicates, start };
        Self {
            folder: open_folder(),
            db,
            ledger: Arc::new(Ledger::new(traffic)),
            receiver: Receiver::start().await,
            client: client::new(),
        }
    }

    /// How to start a process of that name.
    pub(crate) fn recipe(&self, name: &str) -> Recipe {
        let folder: PathBuf = self.folder.path().join(name);
        Recipe::new(folder, self.db.as_ref().map(TestDb::url))
    }

    /// Makes the definitions, and a destination that is told who enters and leaves `pro`.
    pub(crate) async fn define(&self, url: &str) {
        for (path, key, query) in DEFINITIONS {
            let body = json!({"key": key, "definition": {"type": "users", "query": query}});
            client::post(&self.client, url, path, body).await;
        }
        for (path, key, _) in DEFINITIONS {
            wait(key, PATIENCE, async || {
                let found = client::try_get(&self.client, url, &format!("{path}/{key}")).await?;
                if found["status"] == "live" { Ok(()) } else { Err(found.to_string()) }
            })
            .await;
        }
        let settings = json!({"url": format!("{}/hook", self.receiver.url)});
        let body = json!({"name": "Hook", "kind": "webhook", "settings": settings, "concurrency": 8});
        let made = client::post(&self.client, url, "destinations", body).await;
        let subscriptions = format!("destinations/{}/subscriptions", made["id"].as_str().unwrap());
        let wanted = json!({"subject": "audience", "key": "pro", "send": ["identify"]});
        client::post(&self.client, url, &subscriptions, wanted).await;
    }

    /// What the sessions of the shared database are at: the first thing to look at where something waits for ever.
    pub(crate) async fn sessions(&self) -> String {
        let Some(db) = &self.db else { return String::new() };
        let sql = "SELECT coalesce(string_agg(format('%s %s %s/%s since %s, transaction since %s, behind %s: %s', pid, state,
                       wait_event_type, wait_event, now() - state_change, now() - xact_start, pg_blocking_pids(pid),
                       left(regexp_replace(query, '\\s+', ' ', 'g'), 100)), E'\\n'), '')
                   FROM pg_stat_activity
                   WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()";
        sqlx::query_scalar(sql).fetch_one(&db.pool).await.unwrap_or_else(|error| error.to_string())
    }

    /// Starts one process and makes everything ready for load.
    pub(crate) async fn open(&self, recipe: &Recipe) -> Server {
        let server = recipe.start().await;
        self.define(&server.url).await;
        server
    }

    /// So many clients that send as fast as they are answered, as long as not too much waits to be processed.
    pub(crate) fn load(&self, targets: &Targets, clients: usize) -> Load {
        // A debug build processes some thousand calls a second.
        let lag_max = if is_fast() { 100_000 } else { 1_000 };
        Load::start(&self.ledger, targets, Pace { clients, pause: Duration::ZERO, lag_max })
    }

    /// Sends what is unknown until it is acknowledged, links the devices, and waits until everything is processed and
    /// delivered. Returns what the pipeline says then.
    pub(crate) async fn settle(&self, load: Load, url: &str) -> Value {
        load.settle(PATIENCE).await;
        for body in self.ledger.traffic.links() {
            wait("the links", PATIENCE, async || {
                match client::track(&self.client, url, body.clone()).await {
                    crate::ledger::Outcome::Acknowledged(_) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        }
        self.processed(url, PATIENCE * 3).await
    }

    /// Waits until everything is processed and delivered.
    pub(crate) async fn processed(&self, url: &str, limit: Duration) -> Value {
        let pipeline = wait("processed", limit, async || {
            let pipeline = client::try_get(&self.client, url, "pipeline").await?;
            let is_done = pipeline["lag_events"] == 0 && pipeline["backfills"] == json!([]);
            if is_done { Ok(pipeline) } else { Err(pipeline.to_string()) }
        })
        .await;
        wait("delivered", limit, async || {
            let list = client::try_get(&self.client, url, "destinations").await?;
            let all = list["data"].as_array().cloned().unwrap_or_default();
            let waits = |one: &Value| one["deliveries"]["queued"] != 0 || one["deliveries"]["dead"] != 0;
            if all.iter().any(waits) { Err(list.to_string()) } else { Ok(()) }
        })
        .await;
        pipeline
    }
}

/// What the processes wrote last is the first thing to look at when a test has failed, and it goes with the folder.
impl Drop for Stage {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for entry in std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                // What was asked of it says little about what it did.
                let lines: Vec<&str> = text.lines().filter(|line| !line.contains("http::observe")).collect();
                let last = lines.len().saturating_sub(LAST_LINES);
                eprintln!("{}, the end:\n{}", entry.path().display(), lines[last..].join("\n"));
            }
        }
    }
}

/// A folder the account of a private Postgres can reach.
fn open_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().permissions(mode).tempdir().unwrap()
}
