//! What must be true after every fault: the log has what was acknowledged, each call counts once, what is stored is what the
//! log says, and the receiver of deliveries knows who is in the audience.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::Command;
use std::time::Duration;

use personas::embedded::{Options, Postgres};
use personas::store::log::codec::Records;
use serde_json::Value;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::task::JoinSet;

use crate::client;
use crate::load::Targets;
use crate::plan::{Plan, wait};
use crate::report::Report;
use crate::server::{PATIENCE, binary, errors_in};
use crate::stage::{Size, Stage};
use crate::traffic::Expected;

/// Profiles asked for at the same time.
const ASKERS: usize = 8;
/// Chunks read at a time.
const CHUNKS: i64 = 500;
/// Longest time a transaction stays open of somebody who is gone and silent.
const LEFT_OPEN: Duration = Duration::from_secs(35);

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Everything, a rebuild of the whole log too.
    Whole,
    /// All but the rebuild: its log is too long for the time there is.
    Verified,
}

/// While it still runs: nothing is unknown any more, every user's profile is right, and sizes are. Adds to the report what
/// was lost or counted twice.
pub(crate) async fn check_live(stage: &Stage, url: &str, pipeline: &Value, report: &mut Report) {
    let (ledger, summary) = (&stage.ledger, stage.ledger.summary());
    let traffic = &ledger.traffic;
    assert!(ledger.is_settled());
    assert!(summary.wrong.is_empty(), "{:?}", &summary.wrong[..summary.wrong.len().min(5)]);
    let number = |name: &str| pipeline[name].as_u64().unwrap_or_else(|| panic!("{name}: {pipeline}"));
    report.acknowledged += summary.acknowledged + traffic.link_count();
    let (lost, double) = lost_and_double(stage, pipeline);
    report.lost += lost;
    report.double += double;
    assert_eq!((lost, double), (0, 0), "calls that do not count, and that count twice: {pipeline}");
    assert!(summary.offset <= number("log_end_offset"), "acknowledged beyond the end of the log");
    let expected = traffic.expected(ledger.batches());
    check_profiles(stage, url, &expected, report).await;
    let many = expected.iter().filter(|user| user.seen >= 10).count();
    let pro = expected.iter().filter(|user| user.plan.is_some_and(|(.., is_pro)| is_pro)).count();
    for (key, size) in [("many", many), ("pro", pro)] {
        let found = client::try_get(&stage.client, url, &format!("audiences/{key}/size")).await.unwrap();
        assert_eq!(found["size"], size, "the size of {key}");
    }
    check_receiver(stage, &expected);
}

/// Of all calls that were sent, those that do not count, and those that count more than once.
fn lost_and_double(stage: &Stage, pipeline: &Value) -> (u64, u64) {
    let number = |name: &str| pipeline[name].as_u64().unwrap_or_else(|| panic!("{name}: {pipeline}"));
    let counted = number("log_end_offset") - number("duplicates");
    let traffic = &stage.ledger.traffic;
    let sent = stage.ledger.batches() * traffic.batch + traffic.link_count();
    (sent.saturating_sub(counted), counted.saturating_sub(sent))
}

async fn check_profiles(stage: &Stage, url: &str, expected: &[Expected], report: &mut Report) {
    let mut tasks = JoinSet::new();
    let client = stage.client.clone();
    let mut wrong = Vec::new();
    let mut compare = |user: usize, found: &Value| {
        let Expected { seen, total, last, plan } = expected[user];
        let traits = &found["traits"];
        let count = traits["seen"].as_u64().unwrap_or_default();
        report.lost += seen.saturating_sub(count);
        report.double += count.saturating_sub(seen);
        let is_right = count == seen
            && traits["total"].as_u64().unwrap_or_default() == total
            && traits["last"].as_u64() == last.map(|(.., worth)| worth)
            && traits["pro"].as_bool().unwrap_or_default() == plan.is_some_and(|(.., is_pro)| is_pro);
        if !is_right {
            wrong.push(format!("u{user}: {traits}, and not {:?}", expected[user]));
        }
    };
    for user in 0..expected.len() {
        if tasks.len() == ASKERS {
            let (user, found): (usize, Value) = tasks.join_next().await.unwrap().unwrap();
            compare(user, &found);
        }
        let (client, url) = (client.clone(), url.to_owned());
        tasks.spawn(async move {
            let path = format!("collections/users/profiles/user_id:u{user}/traits?limit=200");
            (user, client::try_get(&client, &url, &path).await.unwrap())
        });
    }
    while let Some(answered) = tasks.join_next().await {
        let (user, found) = answered.unwrap();
        compare(user, &found);
    }
    assert!(wrong.is_empty(), "{} profiles are wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(3)]);
}

/// A receiver that knows ids has been told, last of all, whether each user is in the audience.
fn check_receiver(stage: &Stage, expected: &[Expected]) {
    let mut known = HashSet::new();
    let mut last: HashMap<String, bool> = HashMap::new();
    for received in stage.receiver.all().iter().filter(|received| received.taken) {
        for event in received.events() {
            let (user, is_in) = (event["userId"].as_str(), event["traits"]["pro"].as_bool());
            let (Some(user), Some(is_in)) = (user, is_in) else {
                panic!("no delivery of this stage: {event}")
            };
            if !known.insert(event["messageId"].as_str().unwrap().to_owned()) {
                continue;
            }
            let before = last.insert(user.to_owned(), is_in);
            assert_ne!(before, Some(is_in), "{user} is told {is_in} twice in a row");
            assert!(before.is_some() || is_in, "{user} leaves before it has entered");
        }
    }
    for (user, expected) in expected.iter().enumerate() {
        let is_pro = expected.plan.is_some_and(|(.., is_pro)| is_pro);
        assert_eq!(
            last.get(&format!("u{user}")).copied().unwrap_or_default(),
            is_pro,
            "the receiver on u{user}"
        );
    }
}

/// After the last process has ended: what is stored is what the log says, and nothing is left over.
pub(crate) async fn check_stored(stage: &Stage, depth: Depth, expected_errors: &[&str], report: &mut Report) {
    if let Some(db) = &stage.db {
        check_database(stage, &db.pool, &db.url(), depth, report).await;
    } else {
        let folder = stage.folder.path().join("one");
        let postgres = Postgres::start(Options::new(folder)).await.unwrap();
        let pool = PgPoolOptions::new().connect_with(postgres.connect_options()).await.unwrap();
        let socket = postgres.socket_dir().display().to_string().replace('/', "%2F");
        let url =
            format!("postgres://{}@{socket}/{}", personas::embedded::ROLE, personas::embedded::DATABASE);
        check_database(stage, &pool, &url, depth, report).await;
        pool.close().await;
        postgres.stop().await.unwrap();
    }
    for entry in std::fs::read_dir(stage.folder.path()).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            let errors = errors_in(&entry.path(), expected_errors);
            assert!(errors.is_empty(), "{}: {errors:#?}", entry.path().display());
        }
    }
}

async fn check_database(stage: &Stage, pool: &PgPool, url: &str, depth: Depth, report: &mut Report) {
    let missing = missing_in_log(stage, pool).await;
    report.lost += missing;
    assert_eq!(missing, 0, "acknowledged, and not in the log");
    let one = async |sql: &'static str| -> i64 { sqlx::query_scalar(sql).fetch_one(pool).await.unwrap() };
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(one(deadlocks).await, 0, "deadlocks");
    let idle =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL
                AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND wait_event IS DISTINCT FROM 'ClientWrite'";
    // What cannot get rid of its answer reads, and waits for the way to be given up.
    wait("no transaction is left open", LEFT_OPEN, async || match one(idle).await {
        0 => Ok(()),
        open => Err(format!("{open}\n{}", stage.sessions().await)),
    })
    .await;
    let not_alternating = "SELECT count(*) FROM (
        SELECT entered, lag(entered, 1, false) OVER (PARTITION BY definition_no, profile_no ORDER BY transition_no) AS before
        FROM transition WHERE space_id = 1) t WHERE entered = before";
    assert_eq!(one(not_alternating).await, 0, "transitions that do not alternate");
    let not_the_size = "SELECT count(*) FROM computation c WHERE c.space_id = 1 AND c.size <>
        (SELECT count(*) FROM membership m WHERE m.space_id = 1 AND m.computation_no = c.computation_no)
        AND EXISTS (SELECT 1 FROM membership m WHERE m.space_id = 1 AND m.computation_no = c.computation_no)";
    assert_eq!(one(not_the_size).await, 0, "sizes that are not the number of members");
    run(url, &["verify"], "0 differ");
    if depth == Depth::Whole {
        run(url, &["rebuild", "--space", "default", "--dry-run"], "nothing anybody sees is different");
    }
}

/// Runs a command on the database; it must end well and say these words.
fn run(url: &str, arguments: &[&str], words: &str) {
    let mut command: Command = binary(arguments);
    let said = command.env("DATABASE_URL", url).output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.contains(words), "personas {arguments:?}: {}\n{text}", said.status);
}

/// How many messages that were acknowledged are not in the log; nothing that was refused is there.
pub(crate) async fn missing_in_log(stage: &Stage, pool: &PgPool) -> u64 {
    let traffic = &stage.ledger.traffic;
    let mut there = vec![false; (stage.ledger.batches() * traffic.batch) as usize];
    let (mut links, mut others, mut from) = (HashSet::new(), BTreeMap::<String, u64>::new(), 0_i64);
    loop {
        let sql = "SELECT end_offset, body FROM event_chunk WHERE space_id = 1 AND end_offset > $1
                   ORDER BY end_offset LIMIT $2";
        let rows: Vec<(i64, Vec<u8>)> =
            sqlx::query_as(sql).bind(from).bind(CHUNKS).fetch_all(pool).await.unwrap();
        let Some((last, _)) = rows.last() else { break };
        from = *last;
        for (_, body) in rows {
            let content = zstd::decode_all(body.as_slice()).unwrap();
            for record in Records::new(&content).unwrap() {
                let id = record.unwrap().message_id;
                let number = id.strip_prefix('m').and_then(|number| number.parse::<usize>().ok());
                match number.and_then(|number| there.get_mut(number)) {
                    Some(place) => *place = true,
                    None if id.starts_with('l') => {
                        links.insert(id.to_owned());
                    }
                    None => *others.entry(id.to_owned()).or_default() += 1,
                }
            }
        }
    }
    assert!(others.is_empty(), "nobody's, and in the log: {others:?}");
    let unlinked = traffic.link_count() - links.len() as u64;
    there.iter().filter(|there| !**there).count() as u64 + unlinked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_or_counted_twice_is_found_out() {
    let plan = Plan::new("checker");
    let mut report = Report::new("checker", &plan);
    let stage = Stage::shared(&plan, Size { users: 8, batch: 20, duplicates: 20 }).await;
    let recipe = stage.recipe("one");
    let server = stage.open(&recipe).await;
    let load = stage.load(&Targets::new(&[recipe.url()]), 1);
    wait("some batches", PATIENCE, async || {
        if stage.ledger.summary().batches > 5 { Ok(()) } else { Err(String::new()) }
    })
    .await;
    let mut pipeline = stage.settle(load, &server.url).await;
    check_live(&stage, &server.url, &pipeline, &mut report).await;
    assert!(server.terminate().await.success());
    check_stored(&stage, Depth::Whole, &[], &mut report).await;
    // A chunk of the log goes away, and a duplicate counts.
    let pool = &stage.db.as_ref().unwrap().pool;
    let sql = "DELETE FROM event_chunk WHERE end_offset = (SELECT min(end_offset) FROM event_chunk)";
    sqlx::query(sql).execute(pool).await.unwrap();
    assert!(missing_in_log(&stage, pool).await > 0);
    pipeline["duplicates"] = (pipeline["duplicates"].as_u64().unwrap() - 1).into();
    assert_eq!(lost_and_double(&stage, &pipeline), (0, 1));
    report.print();
}
