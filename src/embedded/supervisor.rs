//! Starts the server, knows when it is ready and when it ended, and stops it.

use std::{
    collections::VecDeque,
    fmt, fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::ChildStdin,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    Binaries, DATABASE, EmbeddedError, Options, ROLE, Version,
    folder::{Home, socket_dir_in_use},
    settings,
};

/// Holds Postgres on a pipe: see the comments in it.
const WATCH: &str = include_str!("watch.sh");
/// How long a server left behind by a killed process may take to go: its last checkpoint can be long.
const EARLIER_LIMIT: Duration = Duration::from_mins(2);
/// How long a start may take: after a crash, all that was written since the last checkpoint is read again.
const START_LIMIT: Duration = Duration::from_mins(10);
/// How long a stop may take: a checkpoint. Postgres goes on stopping after that, only we no longer wait.
const STOP_LIMIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);
/// A batch's statements are some hundred kilobytes. glibc gives such memory back to the system after each of them, and
/// the system clears it anew for the next one: clearing pages for Postgres was 6 % of all samples of a profile. Other C
/// libraries ignore these.
const MEMORY: [(&str, &str); 2] =
    [("MALLOC_TRIM_THRESHOLD_", "16777216"), ("MALLOC_MMAP_THRESHOLD_", "16777216")];
/// How much of what Postgres wrote goes into an error.
const LAST_WORDS_LINES: usize = 20;

/// A running private Postgres. Dropping it stops the server too, without waiting for it.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    socket_dir: PathBuf,
    version: Version,
    home: Home,
}

/// A server that is no longer there.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How its process ended.
    pub status: String,
    /// The end of what it wrote.
    pub log: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres ended ({}); its last words:\n{}", self.status, self.log)
    }
}

impl Postgres {
    /// Finds the binaries, sets the cluster up when there is none, starts it and waits until it takes connections.
    pub async fn start(options: Options) -> Result<Self, EmbeddedError> {
        let data_dir = options.data_dir.clone();
        let prepared = tokio::task::spawn_blocking(move || Prepared::new(&options)).await;
        let prepared =
            prepared.map_err(|panic| EmbeddedError::io("prepare", data_dir)(io::Error::other(panic)))??;
        let deadline = Instant::now() + EARLIER_LIMIT;
        loop {
            let server = prepared.launch()?;
            match prepared.until_ready(&server).await? {
                None => {
                    let Prepared { home, binaries, socket_dir, .. } = prepared;
                    tracing::info!(
                        version = %binaries.version,
                        "private Postgres {} runs in {}",
                        binaries.version,
                        home.base.display()
                    );
                    return Ok(Self { server, socket_dir, version: binaries.version, home });
                }
                Some(ended) if is_earlier_server(&ended.log) => {
                    prepared.wait_for_earlier(deadline).await?;
                }
                Some(Ended { status, log }) => {
                    let dir = prepared.home.cluster();
                    return Err(EmbeddedError::Failed { step: "start", dir, status, log });
                }
            }
        }
    }

    /// How to connect to the server that another process runs with this folder now; `None` when there is none.
    pub fn beside(data_dir: &Path) -> Result<Option<PgConnectOptions>, EmbeddedError> {
        Ok(socket_dir_in_use(data_dir)?.as_deref().map(connect_options))
    }

    /// How to connect to the service's database.
    pub fn connect_options(&self) -> PgConnectOptions {
        connect_options(&self.socket_dir)
    }

    /// The same as a URL, for `psql` and for people.
    pub fn url(&self) -> String {
        format!("postgresql:///{DATABASE}?host={}&user={ROLE}", self.socket_dir.display())
    }

    /// The folder of its socket.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The folder that holds the cluster: usually the data folder that was asked for.
    pub fn base_dir(&self) -> &Path {
        &self.home.base
    }

    /// Its version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Waits until the server is gone, whether asked to or not. Who serves with it must end then.
    pub async fn exited(&self) -> Ended {
        self.server.exited().await
    }

    /// Stops the server (fast shutdown: open transactions are rolled back) and waits until it is gone.
    pub async fn stop(&self) -> Result<(), EmbeddedError> {
        drop(self.server.pipe.lock().unwrap_or_else(PoisonError::into_inner).take());
        match timeout(STOP_LIMIT, self.exited()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(EmbeddedError::TooSlow {
                step: "stop",
                dir: self.home.cluster(),
                seconds: STOP_LIMIT.as_secs(),
                log: self.server.last_words(),
            }),
        }
    }
}

fn connect_options(socket_dir: &Path) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(5432)
        .username(ROLE)
        .database(DATABASE)
        .ssl_mode(PgSslMode::Disable)
}

/// Whether Postgres refused because another one, or what is left of it, is still there. Both pass by themselves.
fn is_earlier_server(log: &str) -> bool {
    (log.contains("lock file") && log.contains("already exists"))
        || log.contains("pre-existing shared memory block")
}

/// Everything settled that can be settled before the server runs.
struct Prepared {
    home: Home,
    binaries: Binaries,
    socket_dir: PathBuf,
    settings: Vec<String>,
}

impl Prepared {
    fn new(options: &Options) -> Result<Self, EmbeddedError> {
        let home = Home::open(&options.data_dir)?;
        let cluster = home.cluster();
        let binaries = options.search.choose(home.major.as_deref().map(|major| (&*cluster, major)))?;
        if home.major.is_none() {
            tracing::info!("setting up a private Postgres {} in {}", binaries.version, home.base.display());
            home.set_up(&binaries, options.profile)?;
        }
        let socket_dir = home.socket_dir()?;
        let compression =
            settings::wal_compression(home.account.command(binaries.program("postgres")), &cluster);
        let settings = settings::settings(options.profile, &socket_dir, compression);
        let prepared = Self { home, binaries, socket_dir, settings };
        prepared.stop_earlier();
        Ok(prepared)
    }

    fn launch(&self) -> Result<Server, EmbeddedError> {
        let mut shell = self.home.account.command("/bin/sh");
        shell.args(["-c", WATCH, "personas-postgres"]).arg(self.binaries.program("postgres"));
        shell.arg("-D").arg(self.home.cluster());
        for setting in &self.settings {
            shell.args(["-c", setting]);
        }
        shell
            // Our own pid in a stale postmaster.pid (a restarted container counts from 1 again) is not a server.
            .env("PG_GRANDPARENT_PID", std::process::id().to_string())
            .envs(MEMORY)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C must not reach Postgres while the service still drains.
            .process_group(0);
        Server::spawn(shell.into()).map_err(EmbeddedError::io("run", "/bin/sh"))
    }

    /// `None` when the server takes connections, else how it ended.
    async fn until_ready(&self, server: &Server) -> Result<Option<Ended>, EmbeddedError> {
        let options = connect_options(&self.socket_dir);
        let connected = async {
            while !can_connect(&options).await {
                sleep(POLL).await;
            }
        };
        tokio::select! {
            ended = server.exited() => Ok(Some(ended)),
            outcome = timeout(START_LIMIT, connected) => match outcome {
                Ok(()) => Ok(None),
                Err(_) => Err(EmbeddedError::TooSlow {
                    step: "start",
                    dir: self.home.cluster(),
                    seconds: START_LIMIT.as_secs(),
                    log: server.last_words(),
                }),
            },
        }
    }

    /// The pid in `postmaster.pid`. The file itself is Postgres' business: it is never changed or removed here.
    fn earlier_pid(&self) -> Option<String> {
        let text = fs::read_to_string(self.home.cluster().join("postmaster.pid")).ok()?;
        text.lines().next().filter(|pid| pid.parse::<u32>().is_ok()).map(str::to_owned)
    }

    /// Asks a server of this cluster that outlived its owner to stop. We hold the folder's lock, so it has none.
    /// The pid alone proves nothing (it may be somebody else's by now): a server's current folder is its cluster.
    fn stop_earlier(&self) {
        const STOP: &str = r#"
            here=$(readlink "/proc/$1/cwd" 2>/dev/null)
            case "$here $(ps -o command= -p "$1" 2>/dev/null)" in
                "$2 "* | *" -D $2 "*) kill -INT "$1" ;;
                *) exit 1 ;;
            esac"#;
        let Some(pid) = self.earlier_pid() else { return };
        let mut shell = self.home.account.command("/bin/sh");
        shell
            .args(["-c", STOP, "sh", &pid])
            .arg(self.home.cluster())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if shell.status().is_ok_and(|status| status.success()) {
            tracing::warn!("an earlier Postgres (pid {pid}) outlived its owner: stopping it");
        }
    }

    async fn wait_for_earlier(&self, deadline: Instant) -> Result<(), EmbeddedError> {
        if Instant::now() >= deadline {
            let pid = self.earlier_pid().unwrap_or_default();
            let (dir, seconds) = (self.home.cluster(), EARLIER_LIMIT.as_secs());
            return Err(EmbeddedError::StillThere { dir, pid, seconds });
        }
        sleep(Duration::from_millis(200)).await;
        Ok(())
    }
}

async fn can_connect(options: &PgConnectOptions) -> bool {
    let attempt = async { PgConnection::connect_with(options).await?.close().await };
    timeout(Duration::from_secs(5), attempt).await.is_ok_and(|outcome| outcome.is_ok())
}

type Lines = Arc<Mutex<VecDeque<String>>>;

/// The shell that watches over Postgres, and what Postgres writes.
#[derive(Debug)]
struct Server {
    /// As long as this is open, Postgres runs.
    pipe: Mutex<Option<ChildStdin>>,
    ended: watch::Receiver<Option<String>>,
    lines: Lines,
}

impl Server {
    fn spawn(mut command: tokio::process::Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let pipe = Mutex::new(child.stdin.take());
        let (tell, ended) = watch::channel(None);
        let lines = Lines::default();
        let tasks = TaskTracker::new();
        let reader = child.stderr.take().map(|stderr| tasks.spawn(read_lines(stderr, Arc::clone(&lines))));
        tasks.spawn(async move {
            let status =
                child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
            if let Some(reader) = reader {
                // A worker of a server that was killed may hold the other end a moment longer.
                let _ = timeout(Duration::from_secs(1), reader).await;
            }
            tell.send_replace(Some(status));
        });
        Ok(Self { pipe, ended, lines })
    }

    async fn exited(&self) -> Ended {
        let mut ended = self.ended.clone();
        let status = match ended.wait_for(Option::is_some).await {
            Ok(status) => status.clone().unwrap_or_default(),
            Err(_) => "no longer watched".to_owned(),
        };
        Ended { status, log: self.last_words() }
    }

    fn last_words(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().flat_map(|line| ["  ", line, "\n"]).collect()
    }
}

/// Passes on what Postgres writes and keeps the end of it.
async fn read_lines(stderr: impl AsyncRead + Unpin, kept: Lines) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let is_trouble = ["PANIC:", "FATAL:", "ERROR:", "WARNING:"].iter().any(|level| line.contains(level));
        // What it answers to our own knocking while it starts or stops.
        if is_trouble && !line.contains("the database system is") {
            tracing::warn!(target: "personas::postgres", "{line}");
        } else {
            tracing::debug!(target: "personas::postgres", "{line}");
        }
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == LAST_WORDS_LINES {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}
