//! What was made and what was found: a line for each test, and one with the sums of all tests of this process.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::plan::Plan;

/// What one test did.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    name: &'static str,
    seed: u64,
    tier: &'static str,
    began: Instant,
    pub(crate) rounds: u64,
    /// Processes killed, frozen, or cut off their database.
    pub(crate) kills: u64,
    pub(crate) acknowledged: u64,
    /// Acknowledged and not in the log.
    pub(crate) lost: u64,
    /// Counted more than once.
    pub(crate) double: u64,
    /// In words, what else was measured.
    pub(crate) notes: Vec<String>,
}

static ALL: Mutex<Vec<(Report, Duration)>> = Mutex::new(Vec::new());

impl Report {
    pub(crate) fn new(name: &'static str, plan: &Plan) -> Self {
        Self {
            name,
            seed: plan.seed,
            tier: plan.tier.name(),
            began: Instant::now(),
            rounds: 0,
            kills: 0,
            acknowledged: 0,
            lost: 0,
            double: 0,
            notes: Vec::new(),
        }
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Prints the line of this test, and the sums so far.
    pub(crate) fn print(self) {
        let took = self.began.elapsed();
        let Self { name, seed, rounds, kills, acknowledged, lost, double, ref notes, .. } = self;
        let seconds = took.as_secs_f64();
        println!(
            "chaos {name}: seed {seed}, {rounds} rounds, {kills} kills, {acknowledged} events acknowledged, {lost} lost, \
             {double} double, {seconds:.1} s{}{}",
            if notes.is_empty() { "" } else { "; " },
            notes.join("; ")
        );
        let line = |report: &Self, took: Duration| {
            json!({"test": report.name, "tier": report.tier, "seed": report.seed, "rounds": report.rounds,
                "kills": report.kills, "acknowledged": report.acknowledged, "lost": report.lost,
                "double": report.double, "seconds": took.as_secs(), "notes": report.notes})
        };
        let mut all = ALL.lock().unwrap();
        all.push((self, took));
        let sum = |of: fn(&Self) -> u64| all.iter().map(|(report, _)| of(report)).sum::<u64>();
        let sums = json!({"tests": all.len(), "rounds": sum(|r| r.rounds), "kills": sum(|r| r.kills),
            "acknowledged": sum(|r| r.acknowledged), "lost": sum(|r| r.lost), "double": sum(|r| r.double),
            "seconds": all.iter().map(|(_, took)| took.as_secs_f64()).sum::<f64>() as u64});
        println!("chaos so far: {sums}");
        // For whoever wants the figures: each test's own file, and one with all of this process.
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos");
        let _ = std::fs::create_dir_all(&folder);
        let tests: Vec<_> = all.iter().map(|(report, took)| line(report, *took)).collect();
        let whole = json!({"sums": sums, "tests": tests});
        let _ = std::fs::write(folder.join(format!("report-{}.json", std::process::id())), whole.to_string());
    }
}
