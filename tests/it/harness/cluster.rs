//! One throwaway Postgres per test run, whatever the runner: `cargo test` runs all tests in one process, nextest each
//! in its own.
//!
//! A *keeper* process (this binary again, see [`keeper`]) owns the cluster through the same supervisor the service
//! uses. Every test process holds a shared lock on `lease` until it ends, however it ends; the keeper stops the cluster
//! and itself once nobody has held one for [`LINGER`]. Postgres in turn dies with the keeper. So nothing is ever left
//! running, and the start is paid for once per run.
//!
//! The folder stays between runs, with the migrated template in it, so only the first run pays for `initdb` and the
//! migrations. [`TestDb::new`] clones the template.
//!
//! ```text
//! target/tmp/cluster/lease     shared: the test processes; exclusive: the keeper, when it stops
//! target/tmp/cluster/starting  exclusive: the test process that starts the keeper
//! target/tmp/cluster/done/     names of databases whose tests are over; the keeper drops them
//! target/tmp/cluster/ready     exclusive: the keeper while it runs; holds the folder of the socket
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use personas::embedded::{DATABASE, EmbeddedError, Options, Postgres, Profile, ROLE};
use sha2::{Digest, Sha256};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::OnceCell;

/// How long the cluster outlives the last test: nextest's processes come one after the other.
const LINGER: Duration = Duration::from_secs(3);
const START_LIMIT: Duration = Duration::from_mins(2);
const KEEPER_TEST: &str = "harness::cluster::keeper";
const KEEPER_VARIABLE: &str = "PERSONAS_TEST_CLUSTER";
const DONE: &str = "done";
/// Databases of tests and templates start so.
const TEST_PREFIX: &str = "t_";
const TEMPLATE_PREFIX: &str = "template_personas_";

/// Brings an empty database to the present schema.
async fn migrate(pool: &PgPool) {
    personas::store::migrate(pool).await.unwrap();
}

/// Changes when the schema does: the template is then made anew.
fn schema_hash() -> String {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let to = if entry.path().is_dir() { &mut folders } else { &mut files };
            to.push(entry.path());
        }
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.as_os_str().as_encoded_bytes());
        hash.update(fs::read(file).unwrap());
    }
    hex::encode(&hash.finalize()[..8])
}

/// A database of its own for one test, at the present schema; dropped soon after.
pub(crate) struct TestDb {
    /// Connected to it.
    pub(crate) pool: PgPool,
    name: String,
}

impl TestDb {
    /// Clones the template; starts the cluster and makes the template when this is the first test.
    pub(crate) async fn new() -> Self {
        static TEMPLATE: OnceCell<String> = OnceCell::const_new();
        Self::of(TEMPLATE.get_or_init(|| template(schema_hash(), migrate)).await).await
    }

    /// Clones any database.
    pub(crate) async fn of(template: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{TEST_PREFIX}{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run(&[&format!("CREATE DATABASE {name} TEMPLATE {template}")]).await;
        let pool = PgPoolOptions::new().max_connections(10).connect_with(options(&name)).await.unwrap();
        Self { pool, name }
    }

    /// How to connect to it.
    pub(crate) fn connect_options(&self) -> PgConnectOptions {
        options(&self.name)
    }

    /// The same as a URL, for a server that is started with `DATABASE_URL`.
    pub(crate) fn url(&self) -> String {
        let socket_dir = socket_dir().display().to_string().replace('/', "%2F");
        format!("postgres://{ROLE}@{socket_dir}/{}", self.name)
    }

    /// Waits until a statement of somebody waits for a lock that another one holds.
    pub(crate) async fn wait_for_blocked(&self) {
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let deadline = Instant::now() + Duration::from_secs(20);
        while sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.pool).await.unwrap() == 0 {
            assert!(Instant::now() < deadline, "nothing waits for a lock");
        }
    }
}

impl Drop for TestDb {
    /// Leaves the work to the keeper: dropping takes longer than cloning, and no test has to wait for it.
    fn drop(&mut self) {
        let _ = File::create(folder().join(DONE).join(&self.name));
    }
}

/// The name of the template of that schema, made by `migrate` when it is not there yet.
async fn template(hash: String, migrate: impl AsyncFn(&PgPool)) -> String {
    let name = format!("{TEMPLATE_PREFIX}{hash}");
    let mut admin = connect(DATABASE).await;
    // Held until `admin` closes: of several processes, one makes the template.
    admin.execute("SELECT pg_advisory_lock(7301)").await.unwrap();
    let known: Vec<(String, bool)> =
        sqlx::query_as("SELECT datname::text, datistemplate FROM pg_database WHERE starts_with(datname, $1)")
            .bind(TEMPLATE_PREFIX)
            .fetch_all(&mut admin)
            .await
            .unwrap();
    if !known.contains(&(name.clone(), true)) {
        for (old, _) in known {
            run(&[&format!("ALTER DATABASE {old} IS_TEMPLATE false"), &format!("DROP DATABASE {old}")]).await;
        }
        run(&[&format!("CREATE DATABASE {name}")]).await;
        let pool = PgPoolOptions::new().max_connections(4).connect_with(options(&name)).await.unwrap();
        migrate(&pool).await;
        pool.close().await;
        // Only a finished template is marked as one.
        run(&[&format!("ALTER DATABASE {name} IS_TEMPLATE true")]).await;
    }
    admin.close().await.unwrap();
    name
}

fn options(database: &str) -> PgConnectOptions {
    at(socket_dir(), database)
}

fn at(socket_dir: &Path, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass().socket(socket_dir).port(5432).username(ROLE).database(database)
}

async fn connect(database: &str) -> PgConnection {
    PgConnection::connect_with(&options(database)).await.unwrap()
}

async fn run(statements: &[&str]) {
    let mut admin = connect(DATABASE).await;
    for statement in statements {
        admin.execute(AssertSqlSafe((*statement).to_owned())).await.unwrap();
    }
    admin.close().await.unwrap();
}

/// The folder of the cluster's socket; starts the cluster when it does not run.
fn socket_dir() -> &'static Path {
    static LEASE: OnceLock<(PathBuf, File)> = OnceLock::new();
    let (socket_dir, _) = LEASE.get_or_init(|| {
        let folder = folder();
        fs::create_dir_all(folder.join(DONE)).unwrap();
        // Waits here while a keeper stops.
        let lease = open(&folder.join("lease"));
        lease.lock_shared().unwrap();
        let starting = open(&folder.join("starting"));
        starting.lock().unwrap();
        let socket_dir = running(&folder).unwrap_or_else(|| start_keeper(&folder));
        (socket_dir, lease)
    });
    socket_dir
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster")
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// What `ready` says, when its keeper lives.
fn running(folder: &Path) -> Option<PathBuf> {
    let mut ready = File::open(folder.join("ready")).ok()?;
    if ready.try_lock_shared().is_ok() {
        return None;
    }
    let mut text = String::new();
    ready.read_to_string(&mut text).unwrap();
    Some(PathBuf::from(text))
}

#[expect(clippy::zombie_processes, reason = "the keeper outlives this process")]
fn start_keeper(folder: &Path) -> PathBuf {
    let log = folder.join("keeper.log");
    let mut keeper = super::this_binary_as(KEEPER_TEST, KEEPER_VARIABLE, &folder.display().to_string())
        .stdin(Stdio::null())
        .stdout(File::create(&log).unwrap())
        .stderr(OpenOptions::new().append(true).open(&log).unwrap())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Some(socket_dir) = running(folder) {
            return socket_dir;
        }
        let ended = keeper.try_wait().unwrap();
        assert!(
            ended.is_none() && Instant::now() < deadline,
            "the test cluster did not start:\n{}",
            fs::read_to_string(&log).unwrap_or_default()
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// Keeps the cluster while anybody needs it. As an ordinary test it has nothing to do: only a process started by
/// [`start_keeper`] is told the folder.
#[tokio::test]
async fn keeper() {
    let Some(folder) = std::env::var_os(KEEPER_VARIABLE).map(PathBuf::from) else { return };
    let data_dir = folder.join("data");
    let options = Options { profile: Profile::Throwaway, ..Options::new(&data_dir) };
    let postgres = match Postgres::start(options.clone()).await {
        Ok(postgres) => postgres,
        Err(error @ EmbeddedError::InUse { .. }) => panic!("{error}"),
        // Without fsync, a machine that went down may have left a broken cluster: nothing in it matters.
        Err(error) => {
            println!("beginning anew: {error}");
            fs::remove_dir_all(&data_dir).unwrap();
            Postgres::start(options).await.unwrap()
        }
    };
    let mut admin = PgConnection::connect_with(&at(postgres.socket_dir(), DATABASE)).await.unwrap();
    drop_leftovers(&mut admin).await;

    let (ready, new) = (folder.join("ready"), folder.join("ready.new"));
    fs::write(&new, postgres.socket_dir().as_os_str().as_encoded_bytes()).unwrap();
    let held = File::open(&new).unwrap();
    held.lock().unwrap();
    fs::rename(&new, &ready).unwrap();

    let lease = open(&folder.join("lease"));
    let mut needed = Instant::now();
    while needed.elapsed() < LINGER {
        tokio::select! {
            ended = postgres.exited() => panic!("{ended}"),
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        drop_done(&folder.join(DONE), &mut admin).await;
        // Whoever comes while we hold it waits for a moment, and once we stop until we are gone.
        match lease.try_lock() {
            Ok(()) if needed.elapsed() < LINGER => lease.unlock().unwrap(),
            Ok(()) => {}
            Err(_) => needed = Instant::now(),
        }
    }
    fs::remove_file(ready).unwrap();
    admin.close().await.unwrap();
    postgres.stop().await.unwrap();
}

/// Drops the databases of tests that are over.
async fn drop_done(done: &Path, admin: &mut PgConnection) {
    for entry in fs::read_dir(done).unwrap().flatten() {
        drop_database(&entry.file_name().to_string_lossy(), admin).await;
        fs::remove_file(entry.path()).unwrap();
    }
}

/// Drops the databases of tests that were killed in an earlier run.
async fn drop_leftovers(admin: &mut PgConnection) {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE starts_with(datname, $1)")
            .bind(TEST_PREFIX)
            .fetch_all(&mut *admin)
            .await
            .unwrap();
    for name in names {
        drop_database(&name, admin).await;
    }
}

async fn drop_database(name: &str, admin: &mut PgConnection) {
    let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    admin.execute(AssertSqlSafe(statement)).await.unwrap();
}

#[tokio::test]
async fn every_test_has_a_database_of_its_own() {
    let (one, two) = (TestDb::new().await, TestDb::new().await);
    one.pool.execute("CREATE TABLE here (id int)").await.unwrap();
    let elsewhere = sqlx::query("SELECT * FROM here").fetch_all(&two.pool).await;
    assert!(elsewhere.is_err(), "the other database has the table too");
    let mut by_url = PgConnection::connect(&one.url()).await.unwrap();
    by_url.execute("SELECT * FROM here").await.unwrap();
    let mut by_options = PgConnection::connect_with(&one.connect_options()).await.unwrap();
    by_options.execute("SELECT * FROM here").await.unwrap();
}

#[tokio::test]
async fn databases_are_gone_after_the_test() {
    let db = TestDb::new().await;
    let name = db.name.clone();
    drop(db);
    let mut admin = connect(DATABASE).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE datname = $1")
            .bind(&name)
            .fetch_one(&mut admin)
            .await
            .unwrap();
        if left == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{name} is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
