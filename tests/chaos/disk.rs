//! F06: the disk of the private Postgres fills up. Events are refused before it is full, reads go on, and when there is room
//! again everything acknowledged is there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::checker::{Depth, check_live, check_stored};
use crate::client;
use crate::load::Targets;
use crate::plan::{Plan, wait};
use crate::report::Report;
use crate::server::PATIENCE;
use crate::stage::{Size, Stage};

const MIB: u64 = 1 << 20;
const DISK_MIB: u64 = 640;
/// Below that, nothing is taken.
const FREE_MIN: u64 = 96 * MIB;

/// A file system of its own, as only root may make; it is gone when this is dropped.
struct Disk(PathBuf);

impl Disk {
    fn make(folder: &Path) -> Option<Self> {
        fs::create_dir(folder).unwrap();
        let size = format!("size={DISK_MIB}m,mode=0755");
        let made = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "chaos"]).arg(folder).output();
        made.is_ok_and(|made| made.status.success()).then(|| Self(folder.to_owned()))
    }

    /// Takes room until only so much is left.
    fn fill(&self, left: u64) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        let block = vec![b'x'; MIB as usize];
        while free(&self.0) > left + MIB {
            if file.write_all(&block).is_err() {
                return;
            }
        }
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).output();
    }
}

fn free(folder: &Path) -> u64 {
    let said = Command::new("df").args(["-B1", "--output=avail"]).arg(folder).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    text.lines().nth(1).unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_refuses_in_time_and_loses_nothing() {
    let plan = Plan::new("disk");
    let mut report = Report::new("disk", &plan);
    let stage = Stage::private(&plan, Size { users: 60, batch: 40, duplicates: 20 }).await;
    let Some(disk) = Disk::make(&stage.folder.path().join("one")) else {
        report.note("not made: only root may mount a file system");
        return report.print();
    };
    let recipe = stage.recipe("one").with("PERSONAS_INGEST_DISK_FREE_BYTES_MIN", &FREE_MIN.to_string());
    let mut server = stage.open(&recipe).await;
    let load = stage.load(&Targets::new(&[recipe.url()]), 3);
    for _ in 0..plan.tier.of(1, 4, 20) {
        let goes_on = async || {
            let before = stage.ledger.summary().batches;
            wait("calls are taken", PATIENCE, async || {
                if stage.ledger.summary().batches > before { Ok(()) } else { Err(String::new()) }
            })
            .await;
        };
        goes_on().await;
        // Nearly full: refused, with a time to come again, while reads are answered.
        let before: u64 = stage.ledger.summary().deferred.values().sum();
        disk.fill(FREE_MIN / 2);
        wait("refused in time", PATIENCE, async || {
            let now: u64 = stage.ledger.summary().deferred.values().sum();
            if now > before + 10 { Ok(()) } else { Err(format!("{now}")) }
        })
        .await;
        client::try_get(&stage.client, &server.url, "audiences/many/size").await.unwrap();
        disk.empty();
        goes_on().await;
        // Full at once, as no watermark can see coming: Postgres may stop, and the server with it.
        disk.fill(0);
        tokio::time::sleep(Duration::from_secs(4)).await;
        disk.empty();
        let answers = client::try_get(&stage.client, &server.url, "pipeline").await;
        if answers.is_err() {
            assert!(!server.ended().await.success());
            server = recipe.start().await;
        }
        goes_on().await;
        report.kills += 1;
        report.rounds += 1;
    }
    let pipeline = stage.settle(load, &server.url).await;
    check_live(&stage, &server.url, &pipeline, &mut report).await;
    assert!(server.terminate().await.success());
    let expected = [
        "could not append",
        "Postgres ended",
        "stopping, because",
        "failed",
        "No space left",
        "could not extend file",
        "database",
        "bytes are free",
    ];
    check_stored(&stage, Depth::Whole, &expected, &mut report).await;
    let refused = stage.ledger.summary().deferred;
    report.note(format!("{refused:?} told to come again"));
    report.print();
    drop(disk);
}
