//! What the service is compared with: the same Postgres with the same settings, used directly.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Executor, Row};
use tokio::process::Command;
use tokio::time::Instant;

use super::events::{Generator, Traffic, Users};
use super::fresh::Seen;
use super::naive::{self, Naive};
use super::target::BATCH;
use crate::clock::Clock;
use crate::embedded::{DATABASE, Postgres, ROLE, Search};

/// Bytes handed to COPY at once.
const COPY_CHUNK: usize = 256 * 1024;
/// `PGCOPY`, flags, length of the extension.
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COPY_TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
/// How long is parsed.
const PARSE_FOR: Duration = Duration::from_millis(500);
const INSERT_CLIENTS: u32 = 64;
const SELECT_CLIENTS: u32 = 16;
/// A million rows.
const SELECT_SCALE: &str = "10";
const INSERT: &str =
    "INSERT INTO bench_events VALUES (gen_random_uuid(), :user, 'Order Completed', now(), :payload);\n";

/// The references, on a Postgres.
#[derive(Debug)]
pub(super) struct Reference {
    connection: PgConnection,
    options: PgConnectOptions,
    socket_dir: PathBuf,
    pgbench: PathBuf,
    folder: PathBuf,
}

impl Reference {
    pub(super) async fn new(postgres: &Postgres, folder: PathBuf) -> anyhow::Result<Self> {
        let options = postgres.connect_options();
        let mut connection = PgConnection::connect_with(&options).await?;
        connection
            .execute(
                "CREATE TABLE bench_events (message_id uuid PRIMARY KEY, user_id text NOT NULL, event text NOT NULL,
                 at timestamptz NOT NULL, payload jsonb NOT NULL)",
            )
            .await?;
        let found = Search::usual(None).all();
        let pgbench = found.iter().map(|binaries| binaries.program("pgbench")).find(|path| path.is_file());
        let pgbench = pgbench.context("there is no pgbench beside the Postgres binaries")?;
        let socket_dir = postgres.socket_dir().to_owned();
        Ok(Self { connection, options, socket_dir, pgbench, folder })
    }

    /// So that no reference and no candidate pays for what another one wrote.
    pub(super) async fn checkpoint(&mut self) -> anyhow::Result<()> {
        self.connection.execute("CHECKPOINT").await?;
        Ok(())
    }

    /// Another process takes the lease of all spaces, so that events are only stored; or gives them back.
    pub(super) async fn hold_leases(&mut self, hold: bool) -> anyhow::Result<()> {
        let sql = if hold {
            "UPDATE processor SET epoch = epoch + 1, lease_until = clock_timestamp() + interval '1 day'"
        } else {
            "UPDATE processor SET lease_until = '-infinity'"
        };
        self.connection.execute(sql).await?;
        Ok(())
    }

    /// The process all of the server's processes are children of.
    pub(super) async fn postmaster(&mut self) -> anyhow::Result<i32> {
        let pid: i32 = self.connection.fetch_one("SELECT pg_backend_pid()").await?.try_get(0)?;
        super::machine::parent(pid).context("the parent of a backend")
    }

    /// Rows a second of one COPY BINARY into a table with jsonb and a primary key on the message id.
    pub(super) async fn copy(&mut self, seconds: Duration, stream: u64) -> anyhow::Result<f64> {
        self.clear().await?;
        let mut generator = Generator::new(stream, Clock::System.now(), Traffic::Uniform(Users::default()));
        let started = Instant::now();
        let mut copy = self.connection.copy_in_raw("COPY bench_events FROM STDIN (FORMAT BINARY)").await?;
        let (mut chunk, mut rows) = (COPY_HEADER.to_vec(), 0_u64);
        while started.elapsed() < seconds {
            while chunk.len() < COPY_CHUNK {
                generator.row(&mut chunk);
                rows += 1;
            }
            copy.send(std::mem::take(&mut chunk)).await?;
        }
        copy.send(COPY_TRAILER.as_slice()).await?;
        let stored = copy.finish().await?;
        let took = started.elapsed().as_secs_f64();
        anyhow::ensure!(stored == rows, "COPY stored {stored} of {rows} rows");
        Ok(rows as f64 / took)
    }

    /// Single-row inserts a second into the same table, each its own transaction.
    pub(super) async fn insert(&mut self, seconds: Duration) -> anyhow::Result<f64> {
        self.clear().await?;
        let script = self.folder.join("insert.sql");
        tokio::fs::write(&script, INSERT).await?;
        let mut row = Vec::new();
        let mut generator = Generator::new(1, Clock::System.now(), Traffic::Uniform(Users::default()));
        generator.row(&mut row);
        let text = String::from_utf8_lossy(&row);
        let payload = text.get(text.find('{').unwrap_or(0)..).unwrap_or_default().to_owned();
        let script = script.display().to_string();
        let payload = format!("payload={payload}");
        let arguments = ["-n", "-f", &script, "-D", "user=user-000001", "-D", &payload];
        self.pgbench(INSERT_CLIENTS, seconds, &arguments).await
    }

    /// Milliseconds (p99) that a service takes for a request with one event when it does the obvious: it inserts a row,
    /// and answers.
    pub(super) async fn naive(&mut self, seconds: Duration) -> anyhow::Result<f64> {
        self.clear().await?;
        let naive = Naive::start(self.options.clone()).await?;
        let done = naive.target().store(1, seconds).await?;
        Ok(Seen::of(done.took).nearly_all)
    }

    /// Bytes of WAL written so far, and bytes of the log on disk.
    pub(super) async fn written(&mut self) -> anyhow::Result<(f64, f64)> {
        let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8,
                 (SELECT sum(pg_total_relation_size(relid))::float8 FROM pg_partition_tree('event_chunk') WHERE isleaf)";
        let row = self.connection.fetch_one(sql).await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }

    /// Microseconds of one core that it takes to split an event of a request into its fields, none of them copied, and to
    /// check that it has those it needs.
    pub(super) fn parse() -> anyhow::Result<f64> {
        let mut generator = Generator::new(1, Clock::System.now(), Traffic::Uniform(Users::default()));
        let mut request = Vec::new();
        generator.request(BATCH, "", &mut request);
        let text = std::str::from_utf8(&request)?;
        let (_, body) = text.split_once("\r\n\r\n").context("a request")?;
        let began = Instant::now();
        let mut events = 0;
        while began.elapsed() < PARSE_FOR {
            events += naive::Body::parse(std::hint::black_box(body))?.batch.len();
        }
        Ok(began.elapsed().as_secs_f64() * 1e6 / events as f64)
    }

    /// Point selects a second on a table of a million rows.
    pub(super) async fn select(&mut self, seconds: Duration) -> anyhow::Result<f64> {
        let made = self.connection.fetch_one("SELECT to_regclass('pgbench_accounts') IS NOT NULL").await?;
        if !made.try_get::<bool, _>(0)? {
            let output = self.command().args(["-i", "-q", "-s", SELECT_SCALE, DATABASE]).output().await?;
            anyhow::ensure!(
                output.status.success(),
                "pgbench -i: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        self.pgbench(SELECT_CLIENTS, seconds, &["-n", "-S"]).await
    }

    async fn clear(&mut self) -> anyhow::Result<()> {
        self.connection.execute("TRUNCATE bench_events").await?;
        self.checkpoint().await
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.pgbench);
        command.arg("-h").arg(&self.socket_dir).args(["-U", ROLE]).stdin(Stdio::null());
        command
    }

    async fn pgbench(&self, clients: u32, seconds: Duration, arguments: &[&str]) -> anyhow::Result<f64> {
        let (clients, seconds) = (clients.to_string(), seconds.as_secs().max(1).to_string());
        let output = self
            .command()
            .args(["-M", "prepared", "-j", "2", "-c", &clients, "-T", &seconds])
            .args(arguments)
            .arg(DATABASE)
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let tps = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        match tps {
            Some(tps) if output.status.success() => Ok(tps),
            _ => bail!("pgbench: {text}{}", String::from_utf8_lossy(&output.stderr)),
        }
    }
}
