//! The service as a process: started, asked whether it is ready, sent signals, killed.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::client::{self, TOKEN, WRITE_KEY};
use crate::plan::wait;

/// Longest wait for a start or an end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Encrypts the secrets of destinations where the database is not the service's own.
const SECRET_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// How a process is started; the same each time.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// Its log is beside this folder, and its private Postgres in it.
    pub(crate) folder: PathBuf,
    /// None: a private Postgres.
    pub(crate) database: Option<String>,
    port: u16,
    variables: Vec<(String, String)>,
}

impl Recipe {
    pub(crate) fn new(folder: PathBuf, database: Option<String>) -> Self {
        // The port is free again by the time the server binds it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let recipe = Self { folder, database, port, variables: Vec::new() };
        recipe
            .with("PERSONAS_BOOTSTRAP_WRITE_KEY", WRITE_KEY)
            .with("PERSONAS_BOOTSTRAP_TOKEN", TOKEN)
            .with("PERSONAS_DELIVER_SECRET_KEY", SECRET_KEY)
            .with("PERSONAS_DELIVER_POLL_MS", "20")
            .with("PERSONAS_EGRESS_ALLOW_NETWORKS", "127.0.0.0/8")
            .with("PERSONAS_INGEST_DISK_FREE_BYTES_MIN", "0")
    }

    /// With an option, or a variable of the environment.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where it writes what happens.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// Starts the process, and waits for nothing.
    pub(crate) fn launch(&self) -> Server {
        let log = fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = binary(&["serve", "--listen", &format!("127.0.0.1:{}", self.port)]);
        match &self.database {
            Some(url) => command.env("DATABASE_URL", url),
            None => command.env("PERSONAS_DATA_DIR", &self.folder),
        };
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Server { child, url: self.url(), folder: self.folder.clone(), began: Instant::now() }
    }

    /// Starts the process and waits until it is ready.
    pub(crate) async fn start(&self) -> Server {
        let mut server = self.launch();
        server.ready().await;
        server
    }
}

/// Another build of the service than the one beside these tests: `CHAOS_BINARY`.
fn other_binary() -> Option<String> {
    std::env::var("CHAOS_BINARY").ok().filter(|path| !path.is_empty())
}

/// Whether the service is built to be fast: then a hundred times as much may wait to be processed.
pub(crate) fn is_fast() -> bool {
    !cfg!(debug_assertions) || other_binary().is_some()
}

/// The binary with nothing but these arguments.
pub(crate) fn binary(arguments: &[&str]) -> Command {
    let own = env!("CARGO_BIN_EXE_personas").to_owned();
    let mut command = Command::new(other_binary().unwrap_or(own));
    let inherited = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        !name.starts_with("PERSONAS_") && name != "DATABASE_URL"
    });
    command.args(arguments).env_clear().envs(inherited).current_dir(env!("CARGO_TARGET_TMPDIR"));
    command
}

/// A running process. It is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) folder: PathBuf,
    began: Instant,
}

impl Server {
    /// Waits until it is ready; returns how long that took from its start.
    pub(crate) async fn ready(&mut self) -> Duration {
        let (client, url) = (client::new(), format!("{}/readyz", self.url));
        wait("ready", PATIENCE, async || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!(
                    "the server ended while starting: {status}; see {}",
                    self.folder.with_extension("log").display()
                );
            }
            match client.get(&url).timeout(Duration::from_secs(2)).send().await {
                Ok(answer) if answer.status().is_success() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        self.began.elapsed()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal such as `-STOP`.
    pub(crate) fn signal(&self, signal: &str) {
        send_signal(signal, &[self.pid().to_string()]);
    }

    /// Kills it with -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        self.signal("-TERM");
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        wait("the end of the server", PATIENCE, async || {
            self.child.try_wait().unwrap().ok_or_else(String::new)
        })
        .await
    }

    /// The process of its private Postgres.
    pub(crate) fn postgres_pid(&self) -> String {
        let file = self.folder.join("pg/postmaster.pid");
        fs::read_to_string(file).unwrap().lines().next().unwrap().to_owned()
    }

    /// Memory it has in use, in MiB.
    pub(crate) fn memory_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1_024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to processes; those that are gone already do not matter.
pub(crate) fn send_signal(signal: &str, pids: &[String]) {
    let _ = Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status().unwrap();
}

/// The children of a process.
pub(crate) fn children(pid: &str) -> Vec<String> {
    let said = Command::new("ps").args(["-o", "pid=", "--ppid", pid]).output().unwrap();
    String::from_utf8(said.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

/// The lines of a log that tell of an error and hold none of these words.
pub(crate) fn errors_in(log: &Path, expected: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let is_error = |line: &&str| line.contains("ERROR") || line.contains("panicked");
    let is_unexpected = |line: &&str| !expected.iter().any(|words| line.contains(words));
    text.lines().filter(is_error).filter(is_unexpected).take(5).map(str::to_owned).collect()
}
