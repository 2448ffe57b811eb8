//! F13, F18, F21: two processes on one database, one of them frozen past its lease, killed, or replaced, while clients send to
//! both.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::checker::{Depth, check_live, check_stored};
use crate::client;
use crate::load::{Load, Pace, Targets};
use crate::plan::{Plan, wait};
use crate::report::Report;
use crate::server::{PATIENCE, Recipe, Server};
use crate::stage::{Size, Stage};

const SIZE: Size = Size { users: 100, batch: 40, duplicates: 30 };
/// What a process says that has been fenced, or whose frozen transaction Postgres has ended.
const FENCED: [&str; 2] = ["could not append", "idle-in-transaction"];

/// The epoch of the space's lease: it is raised by whoever takes over.
async fn epoch(stage: &Stage) -> i64 {
    let db = stage.db.as_ref().unwrap();
    sqlx::query_scalar("SELECT epoch FROM processor WHERE space_id = 1").fetch_one(&db.pool).await.unwrap()
}

/// Whether a process believes that it has the lease.
pub(crate) async fn holds(stage: &Stage, url: &str) -> bool {
    let text = stage.client.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    // Before it has looked for the first time there is none.
    let line = text.lines().find_map(|line| line.strip_prefix("personas_leases_held "));
    line.is_some_and(|held| held.parse::<f64>().unwrap() > 0.0)
}

/// The index of the one that has the lease.
async fn holder(stage: &Stage, recipes: &[Recipe; 2]) -> usize {
    wait("one of two has the lease, and both know", PATIENCE, async || {
        match [holds(stage, &recipes[0].url()).await, holds(stage, &recipes[1].url()).await] {
            [true, false] => Ok(0),
            [false, true] => Ok(1),
            // One that has just woken has yet to find out.
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Waits until somebody processes again what comes in; returns how long that took.
async fn taken_over(stage: &Stage, url: &str, epoch_before: i64) -> Duration {
    let began = Instant::now();
    let log_end = stage.ledger.summary().offset;
    wait("the other one takes over", PATIENCE / 2, async || {
        let pipeline: Value = client::try_get(&stage.client, url, "pipeline").await?;
        let is_over =
            pipeline["processed_offset"].as_u64() >= Some(log_end) && epoch(stage).await > epoch_before;
        if is_over { Ok(()) } else { Err(pipeline.to_string()) }
    })
    .await;
    began.elapsed()
}

/// Ends both, one after the other, and looks at everything.
async fn finish(stage: &Stage, load: Load, servers: Vec<Server>, mut report: Report) {
    let url = servers[0].url.clone();
    let pipeline = stage.settle(load, &url).await;
    check_live(stage, &url, &pipeline, &mut report).await;
    for server in servers {
        assert!(server.terminate().await.success());
    }
    check_stored(stage, Depth::Whole, &FENCED, &mut report).await;
    report.print();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_frozen_or_killed_past_its_lease_is_replaced_and_writes_nothing() {
    let mut plan = Plan::new("fenced");
    let mut report = Report::new("fenced", &plan);
    let stage = Stage::shared(&plan, SIZE).await;
    // The lease is shortened for most rounds, so that there are many; some are with what is usual.
    let (short, usual) = plan.tier.of((2, 0), (16, 2), (200, 100));
    let recipe = |name: &str, lease: &str| {
        let recipe = stage.recipe(name).with("PERSONAS_PROCESSOR_LEASE_SECONDS", lease);
        recipe.with("PERSONAS_DELIVER_LEASE_SECONDS", lease)
    };
    let mut longest = [Duration::ZERO; 2];
    let mut load = None;
    let mut servers = Vec::new();
    for (place, (lease, rounds)) in [("2", short), ("10", usual)].into_iter().enumerate() {
        if rounds == 0 {
            continue;
        }
        let recipes = [recipe("one", lease), recipe("two", lease)];
        for server in servers.drain(..) {
            assert!(Server::terminate(server).await.success());
        }
        if place == 0 {
            servers.push(stage.open(&recipes[0]).await);
            servers.push(recipes[1].start().await);
        } else {
            servers = vec![recipes[0].start().await, recipes[1].start().await];
        }
        let targets = Targets::new(&[recipes[0].url(), recipes[1].url()]);
        if let Some(load) = load.replace(stage.load(&targets, 4)) {
            load.stop().await;
        }
        for round in 0..rounds {
            plan.moment(100..600).await;
            let victim = holder(&stage, &recipes).await;
            let (other, before) = (recipes[1 - victim].url(), epoch(&stage).await);
            let took = if round % 2 == 0 {
                servers[victim].signal("-STOP");
                let took = taken_over(&stage, &other, before).await;
                // It wakes in the middle of what it was doing, and finds that nothing of it is its own any more.
                servers[victim].signal("-CONT");
                took
            } else {
                let killed = servers.remove(victim);
                killed.kill();
                let took = taken_over(&stage, &other, before).await;
                servers.insert(victim, recipes[victim].start().await);
                took
            };
            longest[place] = longest[place].max(took);
            report.kills += 1;
            report.rounds += 1;
        }
    }
    let limit = Duration::from_secs(15);
    assert!(longest.iter().all(|took| *took <= limit), "takeover after {longest:?}");
    report.note(format!(
        "takeover after at most {:.1} s with a lease of 2 s, {:.1} s with 10 s",
        longest[0].as_secs_f64(),
        longest[1].as_secs_f64()
    ));
    finish(&stage, load.unwrap(), servers, report).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restarts_lose_nothing_and_refuse_nothing_a_retry_does_not_cure() {
    let plan = Plan::new("rolling");
    let mut report = Report::new("rolling", &plan);
    let stage = Stage::shared(&plan, SIZE).await;
    // A twentieth of it is how long a balancer has to notice.
    let recipe = |name: &str| stage.recipe(name).with("PERSONAS_SERVER_SHUTDOWN_GRACE_MS", "6000");
    let recipes = [recipe("one"), recipe("two")];
    let mut servers = vec![stage.open(&recipes[0]).await];
    servers.push(recipes[1].start().await);
    let targets = Targets::new(&[recipes[0].url(), recipes[1].url()]);
    // About a thousand calls a second.
    let pace = Pace { clients: 4, pause: Duration::from_millis(150), lag_max: u64::MAX };
    let load = Load::start(&stage.ledger, &targets, pace);
    for round in 0..plan.tier.of(4, 50, 1_000) {
        let place = round % 2;
        let old = servers.remove(place);
        // The balancer: who is not ready any more is sent nothing.
        old.signal("-TERM");
        let ready = format!("{}/readyz", old.url);
        let (client, url) = (&stage.client, recipes[1 - place].url());
        wait("it says that it ends", PATIENCE, async || match client.get(&ready).send().await {
            Ok(answer) if answer.status().is_success() => Err("ready".to_owned()),
            _ => Ok(()),
        })
        .await;
        targets.set(&[url]);
        assert!(old.terminate().await.success(), "a drained process ends well");
        servers.insert(place, recipes[place].start().await);
        targets.set(&[recipes[0].url(), recipes[1].url()]);
        report.rounds += 1;
    }
    let summary = stage.ledger.summary();
    report.note(format!(
        "{} batches not answered, {:?} told to come again, slowest answer {:.1} s",
        summary.unknown,
        summary.deferred,
        summary.slowest.as_secs_f64()
    ));
    assert_eq!(summary.unknown, 0, "a client behind a balancer notices nothing");
    finish(&stage, load, servers, report).await;
}
