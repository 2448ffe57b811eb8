//! F12: the clock of one of two processes jumps, an hour ahead and most of a day back. Leases live by the database's clock.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::checker::{Depth, check_live, check_stored};
use crate::load::Targets;
use crate::plan::Plan;
use crate::report::Report;
use crate::stage::{Size, Stage};

/// Where Debian and Fedora put it.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];
/// Seconds the clock is off, one after the other. Less than a day back: what is sent then is not ahead of its time.
const JUMPS: [i64; 5] = [3_600, -72_000, 0, 600, -600];

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
    let one = stage.recipe("one").with("PERSONAS_PROCESSOR_LEASE_SECONDS", "2");
    let two = stage.recipe("two").with("PERSONAS_PROCESSOR_LEASE_SECONDS", "2");
    let two = two
        .with("LD_PRELOAD", library)
        .with("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap())
        .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .with("FAKETIME_NO_CACHE", "1");
    let first = stage.open(&one).await;
    let second = two.start().await;
    let load = stage.load(&Targets::new(&[one.url(), two.url()]), 4);
    for round in 0..plan.tier.of(1, 12, 50) {
        for seconds in JUMPS {
            set(seconds);
            plan.moment(200..600).await;
            report.rounds += 1;
        }
        set(0);
        if round == 0 {
            // From now on the one whose clock jumps has the lease.
            first.signal("-STOP");
            tokio::time::sleep(Duration::from_secs(3)).await;
            first.signal("-CONT");
            report.kills += 1;
        }
    }
    let pipeline = stage.settle(load, &first.url).await;
    check_live(&stage, &first.url, &pipeline, &mut report).await;
    assert!(second.terminate().await.success());
    assert!(first.terminate().await.success());
    check_stored(&stage, Depth::Whole, &["could not append"], &mut report).await;
    report.print();
}
