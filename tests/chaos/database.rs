//! F08-F11: a database that is slow, silent, cut off or comes back elsewhere, and clients that hang up. What cannot be taken is
//! refused in time and with a time to come again, and all is well soon after.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::checker::{Depth, check_live, check_stored};
use crate::client::{self, WRITE_KEY};
use crate::load::Targets;
use crate::plan::{Plan, wait};
use crate::proxy::Proxy;
use crate::report::Report;
use crate::server::{Recipe, Server};
use crate::stage::{Size, Stage};

const SIZE: Size = Size { users: 60, batch: 40, duplicates: 20 };
/// What is said while the database is away.
pub(crate) const AWAY: [&str; 4] = ["could not append", "failed", "database", "stopping, because"];
/// Longest time until it works again, once the database does.
const RECOVERS: Duration = Duration::from_secs(10);
/// Longest time a request may take: what the service is told here.
const REQUEST_MS: u64 = 5_000;
/// What is made of the way to the database.
const FAULTS: [&str; 4] = ["slow", "silent", "cut", "silent, then another way"];
/// What the processor says to Postgres when half of a transaction is written.
const IN_THE_MIDDLE: &str = "store::deliveries::insert";
/// Longest time until Postgres ends a transaction of somebody who is silent: ten seconds, and some.
const LETS_GO: Duration = Duration::from_secs(13);
/// Longest single statement.
const STATEMENT_MS: u64 = 3_000;

/// A stage whose database is behind a proxy.
pub(crate) async fn behind_a_proxy(plan: &Plan, size: Size) -> (Stage, Proxy, Recipe) {
    let mut stage = Stage::shared(plan, size).await;
    let db = stage.db.as_mut().unwrap();
    let url = db.url();
    let (_, place) = url.split_once('@').unwrap();
    let (socket_dir, name) = place.split_once('/').unwrap();
    let socket = format!("{}/.s.PGSQL.5432", socket_dir.replace("%2F", "/"));
    let proxy = Proxy::start(socket.into()).await;
    let by_proxy = format!("postgres://{}@127.0.0.1:{}/{name}", personas::embedded::ROLE, proxy.port);
    let recipe = Recipe::new(stage.folder.path().join("one"), Some(by_proxy))
        .with("PERSONAS_SERVER_REQUEST_TIMEOUT_MS", &REQUEST_MS.to_string())
        .with("PERSONAS_DATABASE_STATEMENT_TIMEOUT_MS", &STATEMENT_MS.to_string());
    (stage, proxy, recipe)
}

/// Waits until calls are taken and processed again; returns how long that took.
pub(crate) async fn recovered(stage: &Stage, server: &Server, from: &str) -> Duration {
    let began = Instant::now();
    let before = stage.ledger.summary().batches;
    wait(&format!("{from}: calls are taken again"), RECOVERS * 4, async || {
        let summary = stage.ledger.summary();
        if summary.batches > before + 3 {
            return Ok(());
        }
        // Nothing is sent while too much waits: then it is the processor that does not go on.
        let pipeline = client::try_get(&stage.client, &server.url, "pipeline").await;
        Err(format!("{summary:?} {pipeline:?}\n{}", stage.sessions().await))
    })
    .await;
    let end = stage.ledger.summary().offset;
    wait(&format!("{from}: they are processed"), RECOVERS * 4, async || {
        let pipeline = client::try_get(&stage.client, &server.url, "pipeline").await?;
        if pipeline["processed_offset"].as_u64() >= Some(end) { Ok(()) } else { Err(pipeline.to_string()) }
    })
    .await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_slow_silent_or_cut_off_is_survived() {
    let plan = Plan::new("database");
    let mut report = Report::new("database", &plan);
    let (stage, proxy, recipe) = behind_a_proxy(&plan, SIZE).await;
    let recipe = recipe
        .with("PERSONAS_PROCESSOR_LEASE_SECONDS", "2")
        .with("PERSONAS_SERVER_SHUTDOWN_GRACE_MS", "2000");
    let mut server = stage.open(&recipe).await;
    let load = stage.load(&Targets::new(&[recipe.url()]), 8);
    let mut longest = [Duration::ZERO; 4];
    let mut memory = 0;
    for _ in 0..plan.tier.of(1, 5, 100) {
        for (place, longest) in longest[..3].iter_mut().enumerate() {
            let fault = Duration::from_millis(plan.tier.of(1_000, 4_000, 6_000));
            match place {
                0 => proxy.slow(Duration::from_millis(50)),
                1 => proxy.silence(),
                _ => proxy.cut(),
            }
            tokio::time::sleep(fault).await;
            memory = memory.max(server.memory_mib());
            proxy.open();
            *longest = (*longest).max(recovered(&stage, &server, FAULTS[place]).await);
            report.rounds += 1;
            report.kills += 1;
        }
    }
    // What was connected stays silent, as after a failover, and with the processor's row locked: the process finds out, ends, and
    // is started anew. Sessions prepare statements once, so they are new ones.
    proxy.cut();
    tokio::time::sleep(Duration::from_millis(200)).await;
    proxy.silence_behind(IN_THE_MIDDLE);
    proxy.open();
    let silent = tokio::time::timeout(RECOVERS * 3, proxy.silent()).await;
    silent.expect("nothing was delivered");
    let began = Instant::now();
    proxy.open_for_new();
    let db = &stage.db.as_ref().unwrap().pool;
    wait("Postgres lets go of what somebody silent has locked", LETS_GO, async || {
        let sql = "SELECT space_id FROM processor FOR UPDATE NOWAIT";
        sqlx::query(sql).fetch_all(db).await.map_err(|error| error.to_string())
    })
    .await;
    let let_go = began.elapsed();
    let status = server.ended().await;
    assert!(!status.success(), "it ended well: {status}");
    server = recipe.start().await;
    recovered(&stage, &server, FAULTS[3]).await;
    longest[3] = began.elapsed();
    report.kills += 1;
    let summary = stage.ledger.summary();
    report.note(format!(
        "locks of a silent process are free after {:.1} s; again at work after {:.1} s (slow), {:.1} s (silent), {:.1} s (cut), {:.1} s (silent, then another way); {:?} told to come \
         again; slowest answer {:.1} s; at most {memory} MiB",
        let_go.as_secs_f64(),
        longest[0].as_secs_f64(),
        longest[1].as_secs_f64(),
        longest[2].as_secs_f64(),
        longest[3].as_secs_f64(),
        summary.deferred,
        summary.slowest.as_secs_f64()
    ));
    assert!(longest[..3].iter().all(|took| *took <= RECOVERS), "{longest:?}");
    let bound = Duration::from_millis(2 * (REQUEST_MS + STATEMENT_MS));
    assert!(summary.slowest <= bound, "an answer took {:?}", summary.slowest);
    let pipeline = stage.settle(load, &server.url).await;
    check_live(&stage, &server.url, &pipeline, &mut report).await;
    assert!(server.terminate().await.success());
    check_stored(&stage, Depth::Whole, &AWAY, &mut report).await;
    report.print();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_hang_up_leave_nothing_open() {
    let mut plan = Plan::new("hung_up");
    let mut report = Report::new("hung_up", &plan);
    let stage = Stage::shared(&plan, SIZE).await;
    let recipe = stage.recipe("one");
    let server = stage.open(&recipe).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{WRITE_KEY}:"));
    let mut sent = Vec::new();
    for _ in 0..plan.tier.of(300, 4_000, 100_000) {
        let batch = stage.ledger.take().unwrap();
        let (body, _) = stage.ledger.traffic.body(batch);
        let head = format!(
            "POST /v1/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {key}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let whole = head + &body;
        // Anywhere, and often right behind the last byte: it is stored then, and nobody hears of it.
        let cut = match plan.roll(3) {
            0 => whole.len(),
            _ => plan.roll(whole.len() as u64) as usize,
        };
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let _ = stream.write_all(&whole.as_bytes()[..cut]).await;
        if plan.roll(4) == 0 {
            let path = "GET /v1/spaces/default/pipeline?min_offset=999999999 HTTP/1.1\r\nHost: x\r\n";
            let mut waiting = TcpStream::connect(&address).await.unwrap();
            let head = format!("{path}Authorization: Bearer {}\r\n\r\n", client::TOKEN);
            let _ = waiting.write_all(head.as_bytes()).await;
        }
        drop(stream);
        sent.push(batch);
        report.rounds += 1;
    }
    // Nobody knows what became of any of them.
    for batch in sent {
        stage.ledger.give_back(batch);
    }
    let load = stage.load(&Targets::new(&[recipe.url()]), 4);
    let pipeline = stage.settle(load, &server.url).await;
    check_live(&stage, &server.url, &pipeline, &mut report).await;
    // Nobody holds a connection: as many requests as there are connections are answered at once.
    let db = stage.db.as_ref().unwrap();
    wait("no transaction is left open", RECOVERS, async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND state LIKE 'idle in transaction%' AND now() - state_change > interval '1 second'";
        let open: i64 = sqlx::query_scalar(sql).fetch_one(&db.pool).await.unwrap();
        if open == 0 { Ok(()) } else { Err(format!("{open} open")) }
    })
    .await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, url) = (stage.client.clone(), server.url.clone());
        tasks.spawn(async move { client::try_get(&client, &url, "audiences/sizes").await });
    }
    for answer in tasks.join_all().await {
        answer.unwrap();
    }
    assert!(server.terminate().await.success());
    check_stored(&stage, Depth::Whole, &[], &mut report).await;
    report.print();
}
