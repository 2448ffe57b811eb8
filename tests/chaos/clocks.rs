//! F12: the clock of one of two processes jumps, an hour ahead and most of a day back. Leases live by the database's clock.

use std::fs;
use std::path::Path;

use crate::checker::{Depth, check_live, check_stored};
use crate::harness::receiver::Reply;
use crate::load::Targets;
use crate::plan::{Plan, wait};
use crate::report::Report;
use crate::server::PATIENCE;
use crate::stage::{Size, Stage};
use crate::two::holds;

/// Where Debian and Fedora put it.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];
/// Seconds the clock is off, one after the other. Less than a day back: what is sent then is not ahead of its time.
const JUMPS: [i64; 5] = [3_600, -72_000, 0, 600, -600];

/// Batches until every user has had an event, as good as certainly: each has some sessions, of any users.
const EACH_ONCE: u64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_jump_lose_nothing_and_count_nothing_twice() {
    let mut plan = Plan::new("clocks");
    let mut report = Report::new("clocks", &plan);
    let Some(library) = LIBRARIES.into_iter().find(|path| Path::new(path).exists()) else {
        report.note("not made: libfaketime is not installed");
        return report.print();
    };
    let stage = Stage::shared(&plan, Size { users: 60, batch: 40, duplicates: 20 }).await;
    let file = stage.folder.path().join("clock");
    let set = |seconds: i64| fs::write(&file, format!("{seconds:+}\n")).unwrap();
    set(0);
    let of = |name: &str| {
        let recipe = stage.recipe(name).with("PERSONAS_PROCESSOR_LEASE_SECONDS", "2");
        recipe.with("PERSONAS_DELIVER_LEASE_SECONDS", "2")
    };
    let one = of("one");
    let two = of("two")
        .with("LD_PRELOAD", library)
        .with("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap())
        .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .with("FAKETIME_NO_CACHE", "1");
    let first = stage.open(&one).await;
    let second = two.start().await;
    let load = stage.load(&Targets::new(&[one.url(), two.url()]), 4);
    // The one whose clock jumps has the leases, and what it has failed to deliver waits by its clock.
    let db = &stage.db.as_ref().unwrap().pool;
    let epoch = async || -> i64 {
        sqlx::query_scalar("SELECT max(epoch) FROM destination_worker").fetch_one(db).await.unwrap()
    };
    let before = epoch().await;
    first.signal("-STOP");
    wait("the other one has both leases", PATIENCE, async || {
        match (holds(&stage, &two.url()).await, epoch().await > before) {
            (true, true) => Ok(()),
            other => Err(format!("{other:?}\n{}", stage.sessions().await)),
        }
    })
    .await;
    first.signal("-CONT");
    report.kills += 1;
    stage.receiver.now(|_, turn| Reply::Status(if turn % 5 == 0 { 500 } else { 200 }));
    for _ in 0..plan.tier.of(2, 12, 50) {
        for seconds in JUMPS {
            set(seconds);
            plan.moment(200..600).await;
            report.rounds += 1;
        }
        set(0);
    }
    stage.receiver.now(|_, _| Reply::Status(200));
    // What left a window too early by a clock that was ahead is right again with its user's next event.
    let before = stage.ledger.summary().batches;
    wait("all users have had an event", PATIENCE, async || {
        let more = stage.ledger.summary().batches - before;
        if more > EACH_ONCE { Ok(()) } else { Err(more.to_string()) }
    })
    .await;
    let pipeline = stage.settle(load, &first.url).await;
    check_live(&stage, &first.url, &pipeline, &mut report).await;
    assert!(second.terminate().await.success());
    assert!(first.terminate().await.success());
    check_stored(&stage, Depth::Whole, &["could not append"], &mut report).await;
    report.print();
}
