//! The real binary with its private Postgres, as a process that can be killed.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for a server to start, or to end.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A server process that can be killed.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    folder: PathBuf,
    client: reqwest::Client,
    token: String,
}

impl Server {
    /// Starts the binary on a data folder, with a token that reads and defines, and waits until it is ready.
    pub(crate) async fn start(folder: &Path, token: &str, variables: &[(&str, &str)]) -> Self {
        // The port is free again by the time the server binds it, or the start is repeated.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = fs::File::options().create(true).append(true).open(folder.with_extension("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_personas"))
            .args(["serve", "--listen", &format!("127.0.0.1:{port}")])
            .env("PERSONAS_DATA_DIR", folder)
            .env("PERSONAS_INGEST_DISK_FREE_BYTES_MIN", "0")
            .envs(variables.iter().copied())
            .env_remove("DATABASE_URL")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let client = reqwest::Client::builder().build().unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let mut server = Self { child, url, folder: folder.to_owned(), client, token: token.to_owned() };
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(answer) = server.client.get(format!("{}/readyz", server.url)).send().await
                && answer.status().is_success()
            {
                return server;
            }
            assert!(Instant::now() < until, "the server does not become ready");
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("the server ended while starting: {status}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Kills it with -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal to its Postgres, and waits until it has ended: a server without its Postgres ends with an error
    /// instead of pretending.
    pub(crate) async fn kill_postgres(mut self, signal: &str) {
        let pid = fs::read_to_string(self.folder.join("pg/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap();
        assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return assert!(!status.success());
            }
            assert!(Instant::now() < until, "the server outlives its Postgres");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn path(&self, path: &str) -> String {
        format!("{}/v1/spaces/default/{path}", self.url)
    }

    /// Reads something of the first space.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let request = self.client.get(self.path(path)).bearer_auth(&self.token);
        request.send().await.unwrap().json().await.unwrap()
    }

    /// Makes something in the first space, or does something with it.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.client.post(self.path(path)).bearer_auth(&self.token);
        let answer = request.body(body.to_string()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }
}
