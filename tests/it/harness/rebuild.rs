//! Rebuilding a space as an operator does, and all that is derived of it, to be compared.

use std::collections::BTreeMap;
use std::process::{Child, Command, Output, Stdio};

use personas::store::rebuild::{Part, TABLES};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;

use super::cluster::TestDb;

/// `personas rebuild` of the first space.
pub(crate) fn command(db: &TestDb, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_personas"));
    let inherited = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("PERSONAS_"));
    command.args(["rebuild", "--space", "default"]).args(arguments);
    command.env_clear().envs(inherited).env("DATABASE_URL", db.url());
    command.current_dir(env!("CARGO_TARGET_TMPDIR")).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What it says (report, then progress), and its exit code.
pub(crate) struct Said {
    pub(crate) report: String,
    pub(crate) progress: String,
    pub(crate) code: i32,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            report: String::from_utf8(output.stdout).unwrap(),
            progress: String::from_utf8(output.stderr).unwrap(),
            code: output.status.code().unwrap_or(-1),
        }
    }
}

/// Runs it to its end.
pub(crate) async fn run(db: &TestDb, arguments: &[&str]) -> Said {
    wait(command(db, arguments).spawn().unwrap()).await
}

/// Waits for one that was started.
pub(crate) async fn wait(child: Child) -> Said {
    tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap().into()
}

/// Runs it to its end, and reads the report as JSON.
#[track_caller]
pub(crate) fn json_of(said: &Said) -> Value {
    assert_eq!(said.code, 0, "{}{}", said.report, said.progress);
    serde_json::from_str(&said.report).unwrap()
}

/// Rebuilds; whatever is seen of the space must not change by it.
pub(crate) async fn expect_same(db: &TestDb) -> Value {
    let before = dump(&db.pool).await;
    // Other batches than those that were live.
    let mut rebuild = command(db, &["--json"]);
    rebuild.env(personas::config::variable("processor.batch_events_max"), "70");
    let report = json_of(&wait(rebuild.spawn().unwrap()).await);
    assert_same(&before, &dump(&db.pool).await);
    report
}

/// Everything derived of the first space: table, and its rows in order, byte for byte.
pub(crate) async fn dump(pool: &PgPool) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    let replaced = TABLES.iter().filter(|(_, part)| matches!(part, Part::Replaced(_)));
    for (table, _) in replaced {
        // A leaf of a rebuild counts from the first event on, whenever it was made.
        let row = if *table == "leaf" { "(t.leaf_no, t.canonical, t.ready)" } else { "t" };
        all.insert((*table).to_owned(), rows(pool, row, table).await);
    }
    for (table, row) in [
        (
            "processor",
            "(processed_offset, last_profile_no, last_transition_no, last_leaf_no, duplicates, unidentified, users, accounts, merges)",
        ),
        ("computation", "(computation_no, status, size, changed_at)"),
        ("identity_type", "t"),
        ("transition", "t"),
        ("size_change", "t"),
    ] {
        all.insert(table.to_owned(), rows(pool, row, table).await);
    }
    all
}

async fn rows(pool: &PgPool, row: &str, table: &str) -> Vec<String> {
    let sql = format!("SELECT {row}::text FROM {table} t WHERE space_id = 1 ORDER BY 1");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(pool).await.unwrap()
}

/// Table by table, so that a difference can be read.
#[track_caller]
pub(crate) fn assert_same(one: &BTreeMap<String, Vec<String>>, other: &BTreeMap<String, Vec<String>>) {
    for (table, rows) in one {
        let others = &other[table];
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|row| !those.contains(row)).take(3).cloned().collect()
        };
        assert!(
            rows == others,
            "{table}: {} rows, then {}\nbefore: {:#?}\nafter: {:#?}",
            rows.len(),
            others.len(),
            only(rows, others),
            only(others, rows)
        );
    }
}
