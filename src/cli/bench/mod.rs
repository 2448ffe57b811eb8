//! `personas bench`: how fast this build is, as ratios to what the same Postgres does when it is used directly.
//!
//! Absolute rates mean nothing on a machine one does not know; ratios of neighbouring measurements do. So every round
//! measures reference and candidate one after the other, on one Postgres with everything flushed, and the median of
//! the rounds' ratios is the result. What each ratio means: docs/performance.md.

mod deliver;
mod events;
mod fresh;
mod goal;
mod hostile;
mod load;
mod machine;
mod naive;
mod receiver;
mod reference;
mod remote;
mod report;
mod rounds;
mod service;
mod target;

use std::cell::Cell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use url::Url;

use crate::embedded::{self, Postgres};
use events::USERS;
use goal::Goal;
use reference::Reference;
use report::{Report, Round};
use service::Service;

/// A round that begins with more load than that says more about its neighbours.
const LOAD_MAX: f64 = 4.0;
/// How long a round waits for the load to fall.
const LOAD_PATIENCE: Duration = Duration::from_mins(2);
const LOAD_LOOK: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// Rounds; each measures every reference and every candidate once
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long each single measurement takes
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only these, separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Goal>,
    /// How many users `scale` measures among
    #[arg(long, default_value_t = 1_000_000)]
    profiles: u64,
    /// Measure this server instead, which need not be on this machine: rates and times, no ratios. Its space `default` gets
    /// the events
    #[arg(long, requires_all = ["write_key", "token"])]
    url: Option<Url>,
    /// A write key of that server
    #[arg(long)]
    write_key: Option<String>,
    /// An access token of that server
    #[arg(long)]
    token: Option<String>,
    /// Count rounds that began with a load above 4, too
    #[arg(long)]
    force: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(bench: &Bench) -> anyhow::Result<ExitCode> {
    super::runtime()?.block_on(Box::pin(measure(bench)))
}

async fn measure(bench: &Bench) -> anyhow::Result<ExitCode> {
    if let Bench { url: Some(url), write_key: Some(write_key), token: Some(token), .. } = bench {
        let said = remote::measure(bench, url, write_key, token).await?;
        io::stdout().write_all(said.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let folder = std::env::temp_dir().join(format!("personas-bench-{}", std::process::id()));
    make_folder(&folder)?;
    let postgres = Box::pin(Postgres::start(embedded::Options::new(folder.join("data")))).await?;
    let bank = Bank {
        bench,
        folder: &folder,
        probes: Cell::new(0),
        devices: Arc::default(),
        newcomers: Arc::new(AtomicU64::new(USERS)),
    };
    let measured = Box::pin(bank.all(&postgres)).await;
    postgres.stop().await?;
    for made in [postgres.base_dir(), &folder] {
        std::fs::remove_dir_all(made).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
    }
    let report = measured?;
    let text = if bench.json { report.json() } else { report.table() };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// As root, Postgres runs under another account, which has to be able to enter.
fn make_folder(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir(folder).with_context(|| folder.display().to_string())?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// One run.
struct Bank<'a> {
    bench: &'a Bench,
    folder: &'a PathBuf,
    /// Measurements with names of their own.
    probes: Cell<u64>,
    /// Devices that were seen.
    devices: Arc<AtomicU64>,
    /// Users that were made, and will be next.
    newcomers: Arc<AtomicU64>,
}

impl Bank<'_> {
    async fn all(&self, postgres: &Postgres) -> anyhow::Result<Report> {
        let mut reference = Reference::new(postgres, self.folder.clone()).await?;
        say("starting a server and making its users");
        let mut service = Service::start(postgres, self.folder).await?;
        service.prepare().await?;
        let mut goals = self.bench.only.clone();
        if goals.is_empty() {
            goals.extend(Goal::value_variants().iter().filter(|goal| goal.is_usual()));
        }
        // These are measured with others.
        for (beside, with) in [(Goal::G5, Goal::G4), (Goal::G6, Goal::Fresh)] {
            if goals.contains(&with) {
                goals.retain(|goal| *goal != beside);
            }
        }
        // G1 leaves the largest backlog, and memory that had to hold it: last.
        goals.sort_by_key(|goal| (!goal.is_usual(), *goal == Goal::G1));
        let mut report = Report::default();
        for number in 1..=self.bench.rounds {
            for goal in &goals {
                let load_before = self.quiet().await;
                say(&format!("round {number} of {}: {}", self.bench.rounds, goal.title()));
                let rounds = Box::pin(self.round(*goal, number, &mut reference, &mut service)).await?;
                let is_counted = self.bench.force || load_before <= LOAD_MAX;
                for (goal, round) in rounds {
                    let round =
                        Round { number, load_before, load_after: machine::load(), is_counted, ..round };
                    say(&format!("  {}", round.line()));
                    report.add(goal, round);
                }
            }
        }
        service.stop().await?;
        Ok(report)
    }

    /// Waits for the load to fall; the load it begins with.
    async fn quiet(&self) -> f64 {
        let end = tokio::time::Instant::now() + LOAD_PATIENCE;
        while machine::load() > LOAD_MAX && !self.bench.force && tokio::time::Instant::now() < end {
            tokio::time::sleep(LOAD_LOOK).await;
        }
        machine::load()
    }
}

/// What goes on, for people; results go to standard output.
fn say(text: &str) {
    // Nobody is left to tell when standard error is gone too.
    let _gone = writeln!(io::stderr(), "{text}");
}
