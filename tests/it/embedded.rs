//! The private Postgres: set up once, dies with its owner, refuses what it did not make.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use personas::embedded::{
    DATABASE, EmbeddedError, FolderState, Options, Postgres, Profile, Search, describe_folder,
};
use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;

use crate::harness::this_binary_as;

const HOLDER_VARIABLE: &str = "PERSONAS_TEST_HOLD_POSTGRES";

/// A folder an unprivileged account can reach, which temporary folders usually are not.
fn open_folder() -> TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap()
}

fn throwaway(dir: &Path) -> Options {
    Options { profile: Profile::Throwaway, ..Options::new(dir) }
}

async fn refused(options: Options) -> EmbeddedError {
    Postgres::start(options).await.map(|_| ()).expect_err("must be refused")
}

/// Every file below `dir` with its content.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            all.insert(entry.path(), Vec::new());
            all.append(&mut contents(&entry.path()));
        } else {
            all.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    all
}

/// One value of one row.
async fn ask(postgres: &Postgres, sql: &'static str) -> String {
    let mut connection = PgConnection::connect_with(&postgres.connect_options()).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
}

async fn tell(postgres: &Postgres, sql: &'static str) {
    let mut connection = PgConnection::connect_with(&postgres.connect_options()).await.unwrap();
    connection.execute(sql).await.unwrap();
}

#[tokio::test]
async fn is_set_up_once_and_keeps_its_data() {
    let dir = open_folder();
    let data_dir = dir.path().join("data");
    let first = Postgres::start(throwaway(&data_dir)).await.unwrap();
    tell(&first, "CREATE TABLE kept AS SELECT 'still here' AS word").await;
    let system = ask(&first, "SELECT system_identifier::text FROM pg_control_system()").await;
    first.stop().await.unwrap();
    drop(first);

    let second = Postgres::start(throwaway(&data_dir)).await.unwrap();
    assert_eq!(ask(&second, "SELECT word FROM kept").await, "still here");
    assert_eq!(ask(&second, "SELECT system_identifier::text FROM pg_control_system()").await, system);
    assert_eq!(ask(&second, "SELECT current_database()::text").await, DATABASE);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn is_durable_and_has_no_port() {
    let dir = open_folder();
    let postgres = Postgres::start(Options::new(dir.path())).await.unwrap();
    for (sql, expected) in [
        ("SHOW fsync", "on"),
        ("SHOW synchronous_commit", "on"),
        ("SHOW full_page_writes", "on"),
        ("SHOW data_checksums", "on"),
        ("SHOW listen_addresses", ""),
        ("SHOW jit", "off"),
        ("SHOW server_encoding", "UTF8"),
    ] {
        assert_eq!(ask(&postgres, sql).await, expected, "{sql}");
    }
    let mode = fs::metadata(postgres.socket_dir()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700, "the folder of the socket is {mode:o}");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_long_path_gets_its_socket_in_a_short_one() {
    let dir = open_folder();
    let data_dir = dir.path().join("x".repeat(120));
    let postgres = Postgres::start(throwaway(&data_dir)).await.unwrap();
    let socket_dir = postgres.socket_dir().to_owned();
    assert!(!socket_dir.starts_with(&data_dir), "{}", socket_dir.display());
    postgres.stop().await.unwrap();
    fs::remove_dir(socket_dir).unwrap();
}

#[tokio::test]
async fn root_in_a_closed_folder_keeps_the_data_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let postgres = Postgres::start(throwaway(&data_dir)).await.unwrap();
    let base = postgres.base_dir().to_owned();
    tell(&postgres, "CREATE TABLE kept (id int)").await;
    postgres.stop().await.unwrap();
    drop(postgres);
    // Only for root is the account another one that the closed folder keeps out.
    if base != data_dir.canonicalize().unwrap() {
        let again = Postgres::start(throwaway(&data_dir)).await.unwrap();
        assert_eq!(again.base_dir(), base);
        assert_eq!(ask(&again, "SELECT count(*)::text FROM kept").await, "0");
        again.stop().await.unwrap();
        fs::remove_dir_all(base).unwrap();
    }
}

#[tokio::test]
async fn a_cluster_in_a_folder_that_was_closed_is_not_hidden_by_an_empty_one() {
    let dir = open_folder();
    let data_dir = dir.path().join("data");
    Postgres::start(throwaway(&data_dir)).await.unwrap().stop().await.unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    match Postgres::start(throwaway(&data_dir)).await {
        // We are root, and Postgres' account is kept out.
        Err(error) => assert!(error.to_string().contains("Postgres' account"), "{error}"),
        Ok(postgres) => {
            assert_eq!(postgres.base_dir(), data_dir.canonicalize().unwrap());
            postgres.stop().await.unwrap();
        }
    }
    assert!(!data_dir.join("location").exists());
}

#[tokio::test]
async fn tells_when_the_server_ends_by_itself() {
    let dir = open_folder();
    let postgres = Postgres::start(throwaway(dir.path())).await.unwrap();
    signal("-QUIT", postmaster(dir.path()));
    let ended = tokio::time::timeout(Duration::from_secs(10), postgres.exited()).await.unwrap();
    assert!(ended.to_string().contains("immediate shutdown"), "{ended}");
}

#[tokio::test]
async fn what_was_committed_survives_a_killed_server() {
    let dir = open_folder();
    let postgres = Postgres::start(Options::new(dir.path())).await.unwrap();
    tell(&postgres, "CREATE TABLE kept AS SELECT 'still here' AS word").await;
    let mut open = PgConnection::connect_with(&postgres.connect_options()).await.unwrap();
    signal("-KILL", postmaster(dir.path()));
    postgres.exited().await;
    drop(postgres);

    let again = Postgres::start(Options::new(dir.path())).await.unwrap();
    assert_eq!(ask(&again, "SELECT word FROM kept").await, "still here");
    assert!(open.execute("SELECT 1").await.is_err(), "a connection to the killed server");
    again.stop().await.unwrap();
}

// ---- what a kill -9 leaves behind --------------------------------------------------------------------------------

/// Not a test of its own: the process that tests kill. Holds a Postgres in the folder it is told.
#[tokio::test]
async fn holder() {
    let Some(dir) = std::env::var_os(HOLDER_VARIABLE) else { return };
    let postgres = Postgres::start(throwaway(Path::new(&dir))).await.unwrap();
    println!("\nholding");
    postgres.exited().await;
}

/// Starts [`holder`] on `dir` and waits until its Postgres runs.
fn hold(dir: &Path) -> Child {
    let mut command = this_binary_as("embedded::holder", HOLDER_VARIABLE, &dir.display().to_string());
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "holding"), "the holder did not start its Postgres");
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn postmaster(data_dir: &Path) -> u32 {
    let text = fs::read_to_string(data_dir.join("pg/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

fn signal(which: &str, pid: u32) -> bool {
    let mut kill = Command::new("/bin/sh");
    kill.args(["-c", "kill \"$1\" \"$2\"", "sh", which, &pid.to_string()]).stderr(Stdio::null());
    kill.status().unwrap().success()
}

fn assert_gone_soon(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while signal("-0", pid) {
        assert!(Instant::now() < deadline, "Postgres (pid {pid}) outlived its owner");
        thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn dies_with_a_killed_owner() {
    let dir = open_folder();
    let holder = hold(dir.path());
    let server = postmaster(dir.path());
    kill(holder);
    assert_gone_soon(server);
}

#[tokio::test]
async fn a_successor_starts_at_once_after_kill_9() {
    let dir = open_folder();
    for round in 0..3 {
        kill(hold(dir.path()));
        let next = Postgres::start(throwaway(dir.path())).await.unwrap();
        tell(&next, "CREATE TABLE IF NOT EXISTS rounds (id int); INSERT INTO rounds VALUES (1)").await;
        assert_eq!(ask(&next, "SELECT count(*)::text FROM rounds").await, (round + 1).to_string());
        next.stop().await.unwrap();
    }
}

/// Owner, shell and watcher all killed: nobody is left to stop the server.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_successor_replaces_an_orphan() {
    let dir = open_folder();
    let holder = hold(dir.path());
    let server = postmaster(dir.path());
    let shell = parent_of(server).unwrap();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if pid != server && parent_of(pid) == Some(shell) {
            signal("-KILL", pid);
        }
    }
    signal("-KILL", shell);
    kill(holder);
    assert!(signal("-0", server), "there is an orphan to replace");

    let next = Postgres::start(throwaway(dir.path())).await.unwrap();
    assert_ne!(postmaster(dir.path()), server);
    assert_gone_soon(server);
    next.stop().await.unwrap();
}

#[cfg(target_os = "linux")]
fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[tokio::test]
async fn a_stale_pid_file_is_no_obstacle() {
    let dir = open_folder();
    let postgres = Postgres::start(throwaway(dir.path())).await.unwrap();
    let pid_file = dir.path().join("pg/postmaster.pid");
    let stale = fs::read_to_string(&pid_file).unwrap();
    postgres.stop().await.unwrap();
    drop(postgres);
    fs::write(&pid_file, stale).unwrap();
    Postgres::start(throwaway(dir.path())).await.unwrap().stop().await.unwrap();
}

// ---- what is refused ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_folder_serves_one_process() {
    let dir = open_folder();
    let first = Postgres::start(throwaway(dir.path())).await.unwrap();
    let error = refused(throwaway(dir.path())).await;
    assert!(matches!(error, EmbeddedError::InUse { .. }), "{error:?}");
    let text = error.to_string();
    let pid = format!("another personas process (pid {})", std::process::id());
    assert!(text.contains(&pid) && text.contains("PERSONAS_DATA_DIR"), "{text}");
    let state = describe_folder(dir.path()).unwrap();
    let in_use = matches!(&state, FolderState::Ours { in_use_by: Some(pid), .. } if *pid == std::process::id().to_string());
    assert!(in_use, "{state:?}");
    first.stop().await.unwrap();
}

#[tokio::test]
async fn another_major_version_is_refused_and_left_alone() {
    let dir = open_folder();
    Postgres::start(throwaway(dir.path())).await.unwrap().stop().await.unwrap();
    fs::write(dir.path().join("pg/PG_VERSION"), "12\n").unwrap();
    let before = contents(&dir.path().join("pg"));
    let error = refused(throwaway(dir.path())).await;
    assert!(matches!(error, EmbeddedError::OtherMajor { .. }) && error.is_configuration(), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("made by Postgres 12") && text.contains("nothing was changed"), "{text}");
    assert!(contents(&dir.path().join("pg")) == before, "the data was touched");
}

#[tokio::test]
async fn what_it_did_not_make_is_refused_and_left_alone() {
    let cases: [(&str, &[&str]); 4] = [
        ("a folder with somebody's files", &["letters/mother.txt"]),
        ("somebody's cluster as the data folder", &["PG_VERSION", "postgresql.conf"]),
        ("somebody's cluster where ours would be", &["personas.lock", "pg/PG_VERSION"]),
        ("somebody's files where ours would be", &["personas.lock", "pg/letter.txt"]),
    ];
    for (what, files) in cases {
        let dir = open_folder();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "15\n").unwrap();
        }
        let before = contents(dir.path());
        let error = refused(throwaway(dir.path())).await;
        assert!(
            matches!(error, EmbeddedError::Foreign { .. }) && error.is_configuration(),
            "{what}: {error:?}"
        );
        assert!(error.to_string().contains("nothing was changed"), "{what}: {error}");
        let mut after = contents(dir.path());
        if let Some(lock) = after.get_mut(&dir.path().join("personas.lock")) {
            *lock = b"15\n".to_vec();
        }
        assert!(after == before, "{what}: touched");
        assert!(matches!(describe_folder(dir.path()).unwrap(), FolderState::Foreign { .. }), "{what}");
    }
}

#[tokio::test]
async fn an_interrupted_set_up_is_begun_anew() {
    let dir = open_folder();
    for file in ["personas.lock", "pg.new/PG_VERSION"] {
        fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
        fs::write(dir.path().join(file), "").unwrap();
    }
    let postgres = Postgres::start(throwaway(dir.path())).await.unwrap();
    assert!(!dir.path().join("pg.new").exists());
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_broken_cluster_is_reported_and_not_made_anew() {
    let dir = open_folder();
    Postgres::start(throwaway(dir.path())).await.unwrap().stop().await.unwrap();
    let control = dir.path().join("pg/global/pg_control");
    let mut bytes = fs::read(&control).unwrap();
    bytes[..64].fill(0xff);
    fs::write(&control, &bytes).unwrap();
    let error = refused(throwaway(dir.path())).await;
    assert!(matches!(error, EmbeddedError::Failed { step: "start", .. }), "{error:?}");
    assert!(error.to_string().contains("FATAL"), "{error}");
    assert_eq!(fs::read(&control).unwrap(), bytes);
}

#[tokio::test]
async fn without_binaries_it_says_how_to_get_them() {
    let dir = open_folder();
    let search = Search::within(vec![dir.path().to_owned()]);
    let error = refused(Options { search, ..throwaway(&dir.path().join("data")) }).await;
    assert!(matches!(error, EmbeddedError::NotFound { .. }) && error.is_configuration(), "{error:?}");
    let text = error.to_string();
    for wanted in ["apt-get install", "dnf install", "brew install", "DATABASE_URL=", "PERSONAS_POSTGRES_BIN"]
    {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let search = Search::usual(Some(dir.path().to_owned()));
    let error = refused(Options { search, ..throwaway(&dir.path().join("data")) }).await;
    assert!(matches!(error, EmbeddedError::BadBinFolder { .. }), "{error:?}");
}

#[test]
fn finds_the_binaries_of_this_machine() {
    let all = Search::usual(None).all();
    assert!(all.iter().any(|found| found.version.major >= 15), "{all:?}");
    assert!(all.is_sorted_by(|a, b| a.version >= b.version), "{all:?}");
}
