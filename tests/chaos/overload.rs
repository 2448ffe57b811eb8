//! F22: ten times as much as can be taken, sent by clients that do not wait. What can be taken is, what cannot is refused with a
//! time to come again, memory stays bounded, and soon after all is as before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::checker::{Depth, check_live, check_stored};
use crate::client;
use crate::database::{AWAY, behind_a_proxy};
use crate::load::{Load, Pace, Targets, send};
use crate::plan::{Plan, Tier, wait};
use crate::report::Report;
use crate::stage::{Size, Stage};

const SIZE: Size = Size { users: 60, batch: 40, duplicates: 0 };
/// Each way to the database takes so long: that, and not this machine, is what bounds how much can be taken.
const LATE: Duration = Duration::from_millis(25);
const TIMES: u32 = 10;
const MEMORY_MIB: u64 = 512;
const RECOVERS: Duration = Duration::from_secs(10);

/// Calls acknowledged in a second while so many clients wait for their answers.
async fn capacity(stage: &Stage, url: &str, during: Duration) -> f64 {
    let pace = Pace { clients: 24, pause: Duration::ZERO, lag_max: u64::MAX };
    let load = Load::start(&stage.ledger, &Targets::new(&[url.to_owned()]), pace);
    tokio::time::sleep(during / 4).await;
    let (before, began) = (stage.ledger.summary().acknowledged, Instant::now());
    tokio::time::sleep(during).await;
    let taken = stage.ledger.summary().acknowledged - before;
    let rate = taken as f64 / began.elapsed().as_secs_f64();
    load.stop().await;
    rate
}

/// Sends at that rate whatever is answered; returns how many calls a second were acknowledged.
async fn flood(stage: &Stage, url: &str, rate: f64, during: Duration) -> f64 {
    let mut under_way = JoinSet::new();
    let clients: Vec<_> = (0..8).map(|_| client::new()).collect();
    let began = Instant::now();
    let before = stage.ledger.summary().acknowledged;
    let per_batch = stage.ledger.traffic.batch as f64;
    let (mut sent, mut turn) = (0.0, 0);
    while began.elapsed() < during {
        let due = rate * began.elapsed().as_secs_f64() / per_batch;
        while sent < due {
            let (ledger, url) = (Arc::clone(&stage.ledger), url.to_owned());
            let client = clients[turn % clients.len()].clone();
            under_way.spawn(async move {
                let batch = ledger.take().expect("there is always more");
                send(&client, &ledger, batch, &url).await;
            });
            sent += 1.0;
            turn += 1;
        }
        while under_way.try_join_next().is_some() {}
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let taken = stage.ledger.summary().acknowledged - before;
    let goodput = taken as f64 / began.elapsed().as_secs_f64();
    under_way.join_all().await;
    goodput
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_too_much_is_refused_with_a_time_to_come_again() {
    let plan = Plan::new("overload");
    let mut report = Report::new("overload", &plan);
    let (stage, proxy, recipe) = behind_a_proxy(&plan, SIZE).await;
    let recipe = recipe
        .with("PERSONAS_INGEST_QUEUE_EVENTS_MAX", "600")
        .with("PERSONAS_INGEST_FLUSH_EVENTS_MAX", "80")
        .with("PERSONAS_SERVER_REQUEST_TIMEOUT_MS", "30000")
        .with("PERSONAS_DATABASE_STATEMENT_TIMEOUT_MS", "30000");
    let server = stage.open(&recipe).await;
    proxy.slow(LATE);
    let during = Duration::from_secs(plan.tier.of(2, 30, 300));
    let capacity = capacity(&stage, &server.url, Duration::from_secs(plan.tier.of(2, 5, 10))).await;
    let before = stage.ledger.summary();
    let mut goodput = 0.0;
    let mut memory = 0;
    let watch = async {
        loop {
            memory = memory.max(server.memory_mib());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let flooding = async { goodput = flood(&stage, &server.url, capacity * f64::from(TIMES), during).await };
    tokio::select! {
        () = flooding => {}
        () = watch => {}
    }
    let summary = stage.ledger.summary();
    let refused: u64 = summary.deferred.values().sum::<u64>() - before.deferred.values().sum::<u64>();
    assert!(refused > 0, "nothing was too much: {summary:?}");
    assert!(summary.wrong.is_empty(), "{:?}", summary.wrong.first());
    // Two seconds beside other work say nothing about a rate.
    let is_measured = plan.tier != Tier::Fast;
    assert!(!is_measured || goodput >= 0.8 * capacity, "{goodput:.0} a second of {capacity:.0}");
    assert!(memory <= MEMORY_MIB, "{memory} MiB");
    // As before: what comes now is taken, and all that waited is processed.
    let began = Instant::now();
    let probe = client::new();
    wait("a single batch is taken", RECOVERS, async || {
        let batch = stage.ledger.take().expect("there is always more");
        if send(&probe, &stage.ledger, batch, &server.url).await { Ok(()) } else { Err("refused".to_owned()) }
    })
    .await;
    let end = stage.ledger.summary().offset;
    wait("what waited is processed", RECOVERS, async || {
        let pipeline = client::try_get(&stage.client, &server.url, "pipeline").await?;
        if pipeline["processed_offset"].as_u64() >= Some(end) { Ok(()) } else { Err(pipeline.to_string()) }
    })
    .await;
    let recovered = began.elapsed();
    proxy.open();
    report.rounds = 1;
    report.note(format!(
        "{capacity:.0} events a second can be taken, {:.0} were sent, {goodput:.0} were taken; {refused} batches told to come again; \
         at most {memory} MiB; as before after {:.1} s",
        capacity * f64::from(TIMES),
        recovered.as_secs_f64()
    ));
    let load = stage.load(&Targets::new(std::slice::from_ref(&server.url)), 4);
    let pipeline = stage.settle(load, &server.url).await;
    check_live(&stage, &server.url, &pipeline, &mut report).await;
    assert!(server.terminate().await.success());
    check_stored(&stage, Depth::Whole, &AWAY, &mut report).await;
    report.print();
}
