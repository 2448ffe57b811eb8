//! `personas bench`: how fast this build is, as ratios to what the same Postgres does when it is used directly.
//!
//! Absolute rates mean nothing on a machine one does not know; ratios of neighbouring measurements do. So every round
//! measures reference and candidate one after the other, on one Postgres with everything flushed, and the median of
//! the rounds' ratios is the result. What each ratio means: docs/performance.md.

mod deliver;
mod events;
mod fresh;
mod hostile;
mod load;
mod machine;
mod receiver;
mod reference;
mod report;
mod service;

use std::cell::Cell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::embedded::{self, Postgres};
use events::Traffic;
use receiver::{Manner, Receiver};
use reference::Reference;
use report::{Report, Round};
use service::{BATCH, Service};

/// How late something may be seen.
const ALLOWED: Duration = Duration::from_secs(1);
/// Deliveries in a second that are good enough.
const DELIVERIES: f64 = 2_000.0;
/// Members of the full sync whose memory is looked at.
const CROWD: u64 = 500_000;
/// MiB that a hostile receiver may cost.
const HOSTILE_MIB: f64 = 8.0;
/// What is less than that cannot be told from chance, in MiB.
const MIB_LEAST: f64 = 0.5;
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
    /// Count rounds that began with a load above 4, too
    #[arg(long)]
    force: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Goal {
    /// Events stored a second, 100 a request ÷ rows of COPY BINARY
    G1,
    /// Requests with one event a second ÷ single-row inserts
    G2,
    /// Events a second all the way into audiences ÷ rows of COPY BINARY
    G4,
    /// As G4, but users send five events one after the other
    G4s,
    /// Profiles read a second ÷ point selects
    G7,
    /// A second ÷ the time until a transition is seen (p99), at half the rate of G4
    Fresh,
    /// A second ÷ the time until an exit is seen after its instant (at most), 100,000 of them within a minute
    Exits,
    /// G4 while one definition after the other is backfilled ÷ G4
    Backfill,
    /// Changes a second that arrive at a receiver here, one request each ÷ 2,000
    Deliver,
    /// G4 while all audiences are sent to a receiver here ÷ G4
    Outbox,
    /// How late others are told (p99) without a hostile receiver ÷ beside one; and the memory it costs
    Hostile,
    /// 8 MiB ÷ the memory that a hostile receiver costs: measured with the other
    #[value(skip)]
    HostileMemory,
    /// The most memory at the beginning of a full sync of 500,000 ÷ until its end; only when it is asked for
    Sync,
}

impl Goal {
    fn title(self) -> &'static str {
        match self {
            Self::G1 => "G1 stored events/s ÷ COPY rows/s",
            Self::G2 => "G2 one-event requests/s ÷ single-row inserts/s",
            Self::G4 => "G4 events/s into audiences ÷ COPY rows/s",
            Self::G4s => "G4s events/s into audiences, in sessions of five ÷ COPY rows/s",
            Self::G7 => "G7 profile reads/s ÷ point selects/s",
            Self::Fresh => "Fresh: 1,000 ms ÷ ms until a transition is seen, p99 at half the rate of G4",
            Self::Exits => {
                "Exits: 1,000 ms ÷ ms until an exit is seen, the latest of 100,000 within a minute"
            }
            Self::Backfill => "Backfill: events/s into audiences while others are backfilled ÷ without",
            Self::Deliver => "Deliver: changes/s that arrive at a receiver beside, one request each ÷ 2,000",
            Self::Outbox => "Outbox: events/s into audiences while all of these are sent on ÷ without",
            Self::Hostile => {
                "Hostile: ms until others are told, p99, without a hostile receiver ÷ beside one"
            }
            Self::HostileMemory => {
                "HostileMemory: 8 MiB ÷ MiB more that the service has beside a hostile receiver"
            }
            Self::Sync => {
                "Sync: most MiB while the first tenth of 500,000 members is sent ÷ until all of them are"
            }
        }
    }

    /// The least that is good enough.
    fn least(self) -> f64 {
        match self {
            Self::G1 => 2.0,
            Self::G2 => 1.3,
            Self::G4 | Self::G4s => 0.6,
            Self::G7 => 0.5,
            Self::Fresh | Self::Exits | Self::Deliver | Self::HostileMemory => 1.0,
            Self::Backfill => 0.8,
            Self::Outbox => 0.75,
            // A fifth later at most.
            Self::Hostile => 0.83,
            Self::Sync => 0.95,
        }
    }
}

pub(super) fn run(bench: &Bench) -> anyhow::Result<ExitCode> {
    super::runtime()?.block_on(Box::pin(measure(bench)))
}

async fn measure(bench: &Bench) -> anyhow::Result<ExitCode> {
    let folder = std::env::temp_dir().join(format!("personas-bench-{}", std::process::id()));
    make_folder(&folder)?;
    let postgres = Box::pin(Postgres::start(embedded::Options::new(folder.join("data")))).await?;
    let measured = Box::pin(Bank { bench, folder: &folder, probes: Cell::new(0) }.all(&postgres)).await;
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
}

impl Bank<'_> {
    async fn all(&self, postgres: &Postgres) -> anyhow::Result<Report> {
        let mut reference = Reference::new(postgres, self.folder.clone()).await?;
        say("starting a server and making its users");
        let mut service = Service::start(postgres, self.folder).await?;
        service.prepare().await?;
        let mut goals = self.bench.only.clone();
        if goals.is_empty() {
            // A crowd would be in the way of all others.
            goals.extend(Goal::value_variants().iter().filter(|goal| **goal != Goal::Sync));
        }
        // G1 leaves the largest backlog, and memory that had to hold it: last.
        goals.sort_by_key(|goal| *goal == Goal::G1);
        let mut report = Report::default();
        for number in 1..=self.bench.rounds {
            for goal in &goals {
                let load_before = self.quiet().await;
                say(&format!("round {number} of {}: {}", self.bench.rounds, goal.title()));
                let rounds = if *goal == Goal::Hostile {
                    Box::pin(self.hostile(&mut service)).await?
                } else {
                    vec![(*goal, Box::pin(self.round(*goal, number, &mut reference, &mut service)).await?)]
                };
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

    async fn round(
        &self,
        goal: Goal,
        number: u32,
        reference: &mut Reference,
        service: &mut Service,
    ) -> anyhow::Result<Round> {
        let seconds = Duration::from_secs(self.bench.seconds.max(1));
        let against = match goal {
            Goal::G1 | Goal::G4 | Goal::G4s => reference.copy(seconds, u64::from(number)).await?,
            Goal::G2 => reference.insert(seconds).await?,
            Goal::G7 => reference.select(seconds).await?,
            _ => {
                return Box::pin(self.seen(goal, seconds, reference, service)).await;
            }
        };
        reference.checkpoint().await?;
        let mut round = Round { reference: against, ..Round::default() };
        let before = service.pipeline().await?;
        match goal {
            Goal::G1 | Goal::G2 => {
                let events = if goal == Goal::G1 { BATCH } else { 1 };
                // With the lease held elsewhere nothing is processed: what is measured is storing alone.
                reference.hold_leases(true).await?;
                let stored = service.store(events, seconds).await;
                reference.hold_leases(false).await?;
                let stored = stored?;
                round.candidate = stored.rate();
                service.check(before, stored.units).await?;
                let before = service.pipeline().await?;
                let both = service.store(events, seconds).await?;
                round.notes.push(("a second while processing", both.rate()));
                service.check(before, both.units).await?;
            }
            Goal::G4 | Goal::G4s => {
                let postmaster = reference.postmaster().await?;
                let traffic = if goal == Goal::G4 { Traffic::Uniform } else { Traffic::Sessions };
                let (sustained, sent) = service.sustain(seconds, traffic, postmaster).await?;
                round.candidate = sustained.rate;
                round.notes.extend([
                    ("CPU µs/event, service", sustained.cpu_us_service),
                    ("CPU µs/event, Postgres", sustained.cpu_us_postgres),
                    ("peak MiB of the service", sustained.peak_memory_mib),
                    ("ms behind at the end", sustained.lag_ms),
                ]);
                service.check(before, sent).await?;
            }
            Goal::G7 => {
                round.candidate = service.reads(seconds).await?.rate();
            }
            _ => {}
        }
        Ok(round)
    }

    /// What has no counterpart in Postgres: how soon something is seen, and how much one thing slows another.
    async fn seen(
        &self,
        goal: Goal,
        seconds: Duration,
        reference: &mut Reference,
        service: &mut Service,
    ) -> anyhow::Result<Round> {
        let postmaster = reference.postmaster().await?;
        reference.checkpoint().await?;
        self.probes.set(self.probes.get() + 1);
        let before = service.pipeline().await?;
        let allowed = ALLOWED.as_secs_f64() * 1e3;
        if goal == Goal::Exits {
            let (seen, sent) = service.exits(self.probes.get()).await?;
            service.check(before, sent).await?;
            let notes = vec![("ms p50", seen.half), ("ms p99", seen.nearly_all)];
            return Ok(Round { candidate: allowed, reference: seen.latest, notes, ..Round::default() });
        }
        if goal == Goal::Deliver {
            return self.deliver(service).await;
        }
        if goal == Goal::Sync {
            return self.sync(service).await;
        }
        let (alone, sent) = service.sustain(seconds, Traffic::Uniform, postmaster).await?;
        service.check(before, sent).await?;
        let before = service.pipeline().await?;
        if goal == Goal::Outbox {
            return self.outbox(service, (seconds, postmaster), alone.rate).await;
        }
        if goal == Goal::Backfill {
            let backfilling = service.backfill_for_ever();
            let (beside, sent) = service.sustain(seconds, Traffic::Uniform, postmaster).await?;
            drop(backfilling);
            service.check(before, sent).await?;
            let notes = vec![("ms behind at the end", beside.lag_ms)];
            return Ok(Round { candidate: beside.rate, reference: alone.rate, notes, ..Round::default() });
        }
        let (seen, sent) = service.freshness(alone.rate / 2.0, seconds, self.probes.get()).await?;
        service.check(before, sent).await?;
        let notes = vec![("ms p50", seen.half), ("ms at most", seen.latest), ("events/s", alone.rate / 2.0)];
        Ok(Round { candidate: allowed, reference: seen.nearly_all, notes, ..Round::default() })
    }

    async fn outbox(
        &self,
        service: &mut Service,
        (seconds, postmaster): (Duration, i32),
        alone: f64,
    ) -> anyhow::Result<Round> {
        let before = service.pipeline().await?;
        let receiver = Receiver::start(Manner::Well).await?;
        let name = format!("outbox_{}", self.probes.get());
        let destination = service.send_all(&receiver, &name).await?;
        service.sent(&destination).await?;
        let delivered = service.delivered(&destination).await?.0;
        let (beside, sent) = service.sustain(seconds, Traffic::Uniform, postmaster).await?;
        let (now, queued) = service.delivered(&destination).await?;
        service.check(before, sent).await?;
        service.forget(&destination).await?;
        let notes = vec![
            ("changes delivered meanwhile", now - delivered),
            ("changes queued at the end", queued),
            ("ms behind at the end", beside.lag_ms),
        ];
        Ok(Round { candidate: beside.rate, reference: alone, notes, ..Round::default() })
    }

    async fn deliver(&self, service: &mut Service) -> anyhow::Result<Round> {
        let receiver = Receiver::start(Manner::Well).await?;
        let key = format!("everybody_{}", self.probes.get());
        service.everybody(&key).await?;
        let synced = service.sync(&receiver, &key).await?;
        let notes = vec![("members", synced.members as f64), ("peak MiB of the service", synced.peak)];
        Ok(Round { candidate: synced.rate, reference: DELIVERIES, notes, ..Round::default() })
    }

    async fn sync(&self, service: &mut Service) -> anyhow::Result<Round> {
        let receiver = Receiver::start(Manner::Well).await?;
        service.crowd("crowd", CROWD).await?;
        let before = machine::memory(service.pid());
        let synced = service.sync(&receiver, "crowd").await?;
        let notes =
            vec![("members", synced.members as f64), ("a second", synced.rate), ("MiB before", before)];
        Ok(Round { candidate: synced.first_tenth, reference: synced.peak, notes, ..Round::default() })
    }

    /// What a hostile receiver costs others, and what it costs the service.
    async fn hostile(&self, service: &mut Service) -> anyhow::Result<Vec<(Goal, Round)>> {
        self.probes.set(self.probes.get() + 1);
        let seconds = Duration::from_secs(self.bench.seconds.max(1));
        let before = service.pipeline().await?;
        let beside = service.beside_a_hostile_one(seconds, self.probes.get()).await?;
        service.check(before, beside.sent).await?;
        let notes = vec![("requests that the hostile one got", beside.requests as f64)];
        let late =
            Round { candidate: beside.late_without, reference: beside.late_with, notes, ..Round::default() };
        let more = beside.memory_with - beside.memory_without;
        let notes = vec![("MiB without", beside.memory_without), ("MiB more", more)];
        let memory =
            Round { candidate: HOSTILE_MIB, reference: more.max(MIB_LEAST), notes, ..Round::default() };
        Ok(vec![(Goal::Hostile, late), (Goal::HostileMemory, memory)])
    }
}

/// What goes on, for people; results go to standard output.
fn say(text: &str) {
    // Nobody is left to tell when standard error is gone too.
    let _gone = writeln!(io::stderr(), "{text}");
}
