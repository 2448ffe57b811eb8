//! F32: other time zones and languages of the machine change nothing of what follows from the log.

use crate::checker::{Depth, check_live, check_stored};
use crate::load::Targets;
use crate::plan::Plan;
use crate::report::Report;
use crate::stage::{Size, Stage};

/// Time zone and language: half hours, the date line, the dotless i, and what is not installed.
const PLACES: [(&str, &str); 4] = [
    ("Asia/Kathmandu", "tr_TR.UTF-8"),
    ("Pacific/Apia", "C"),
    ("America/St_Johns", "de_DE.UTF-8"),
    ("Nowhere/Land", "xx_XX"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_machine_s_time_zone_and_language_change_nothing() {
    let plan = Plan::new("places");
    let mut report = Report::new("places", &plan);
    for (zone, language) in PLACES.into_iter().take(plan.tier.of(1, 4, 4)) {
        let stage = Stage::private(&plan, Size { users: 30, batch: 200, duplicates: 20 }).await;
        let recipe = stage.recipe("one").with("TZ", zone).with("LC_ALL", language).with("LANG", language);
        let server = stage.open(&recipe).await;
        let load = stage.load(&Targets::new(&[recipe.url()]), 2);
        while stage.ledger.summary().batches < 3 {
            tokio::task::yield_now().await;
        }
        let pipeline = stage.settle(load, &server.url).await;
        check_live(&stage, &server.url, &pipeline, &mut report).await;
        assert!(server.terminate().await.success());
        check_stored(&stage, Depth::Whole, &[], &mut report).await;
        report.rounds += 1;
    }
    report.print();
}
