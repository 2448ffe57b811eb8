//! One round of each goal: the reference, then the candidate, and checks that nothing was lost meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::events::{Traffic, Users};
use super::goal::Goal;
use super::receiver::{Manner, Receiver};
use super::reference::Reference;
use super::report::Round;
use super::service::{AUDIENCES, Service, Sustained};
use super::target::{BATCH, Reads};
use super::{Bank, fresh, machine};

/// How late something may be seen.
const ALLOWED_MS: f64 = 1_000.0;
/// Deliveries in a second that are good enough.
const DELIVERIES: f64 = 2_000.0;
/// Members of the full sync whose memory is looked at.
const CROWD: u64 = 500_000;
/// MiB that a hostile receiver may cost.
const HOSTILE_MIB: f64 = 8.0;
/// What is less than that cannot be told from chance, in MiB.
const MIB_LEAST: f64 = 0.5;
/// Users whose events cost what others are compared with.
const FEW: u64 = 100_000;

/// What a goal's round says, of it and of those that are measured with it.
type Rounds = Vec<(Goal, Round)>;

/// A candidate beside a reference.
fn ratio(candidate: f64, reference: f64, notes: Vec<(&'static str, f64)>) -> Round {
    Round { reference, candidate, notes, ..Round::default() }
}

impl Bank<'_> {
    /// Measures a goal once.
    pub(super) async fn round(
        &self,
        goal: Goal,
        number: u32,
        reference: &mut Reference,
        service: &mut Service,
    ) -> anyhow::Result<Rounds> {
        self.probes.set(self.probes.get() + 1);
        let one = match goal {
            Goal::G1 | Goal::G2 => Box::pin(self.stored(goal, number, reference, service)).await?,
            Goal::G2b => {
                let against = reference.naive(self.seconds()).await?;
                let before = self.begin(reference, service).await?;
                let done = service.target().store(1, self.seconds()).await?;
                service.check(before, done.units).await?;
                ratio(fresh::Seen::of(done.took).nearly_all, against, Vec::new())
            }
            Goal::G3 => {
                let against = reference.copy(self.seconds(), u64::from(number)).await?;
                let before = self.begin(reference, service).await?;
                let (rate, sent) = service.work_off(self.seconds() / 3, reference).await?;
                service.check(before, sent).await?;
                ratio(rate, against, vec![("events", sent as f64)])
            }
            Goal::G4 | Goal::G5 => return Box::pin(self.sustained(number, reference, service)).await,
            Goal::G4s | Goal::G4m | Goal::New => {
                let against = reference.copy(self.seconds(), u64::from(number)).await?;
                let traffic = match goal {
                    Goal::G4s => Traffic::Sessions,
                    Goal::G4m => Traffic::Merging(Arc::clone(&self.devices)),
                    _ => Traffic::Sweep(Users(u64::MAX), Arc::clone(&self.newcomers)),
                };
                let (sustained, notes) = self.sustain(traffic, reference, service).await?;
                ratio(sustained.rate, against, notes)
            }
            Goal::G6 | Goal::Fresh => return Box::pin(self.seen(reference, service)).await,
            Goal::G7 | Goal::G10 => {
                let what = if goal == Goal::G7 { Reads::Traits } else { Reads::Sizes(AUDIENCES as u64) };
                let against = reference.select(self.seconds()).await?;
                reference.checkpoint().await?;
                let done = service.target().reads(what, self.seconds()).await?;
                let rate = done.rate();
                ratio(rate, against, vec![("ms p99", fresh::Seen::of(done.took).nearly_all)])
            }
            Goal::Exits => {
                let before = self.begin(reference, service).await?;
                let (seen, sent) = service.exits(self.probes.get()).await?;
                service.check(before, sent).await?;
                ratio(ALLOWED_MS, seen.latest, vec![("ms p50", seen.half), ("ms p99", seen.nearly_all)])
            }
            Goal::Backfill => Box::pin(self.backfill(reference, service)).await?,
            Goal::Outbox => Box::pin(self.outbox(reference, service)).await?,
            Goal::Deliver => Box::pin(self.deliver(reference, service)).await?,
            Goal::Sync => Box::pin(self.sync(service)).await?,
            Goal::Scale => Box::pin(self.scale(reference, service)).await?,
            Goal::Hostile | Goal::HostileMemory => return Box::pin(self.hostile(service)).await,
        };
        Ok(vec![(goal, one)])
    }

    const fn seconds(&self) -> Duration {
        Duration::from_secs(if self.bench.seconds == 0 { 1 } else { self.bench.seconds })
    }

    /// How far the service is before it is measured.
    async fn begin(
        &self,
        reference: &mut Reference,
        service: &Service,
    ) -> anyhow::Result<super::service::Pipeline> {
        reference.checkpoint().await?;
        service.pipeline().await
    }

    /// Storing alone, with the leases held elsewhere so that nothing is processed; and, told beside it, while everything is.
    async fn stored(
        &self,
        goal: Goal,
        number: u32,
        reference: &mut Reference,
        service: &mut Service,
    ) -> anyhow::Result<Round> {
        let seconds = self.seconds();
        let (events, against) = if goal == Goal::G1 {
            (BATCH, reference.copy(seconds, u64::from(number)).await?)
        } else {
            (1, reference.insert(seconds).await?)
        };
        let before = self.begin(reference, service).await?;
        reference.hold_leases(true).await?;
        let stored = service.target().store(events, seconds).await;
        reference.hold_leases(false).await?;
        let stored = stored?;
        service.check(before, stored.units).await?;
        let before = service.pipeline().await?;
        let both = service.target().store(events, seconds).await?;
        service.check(before, both.units).await?;
        Ok(ratio(stored.rate(), against, vec![("a second while processing", both.rate())]))
    }

    /// Everything on the way into audiences, and what of it to say.
    async fn sustain(
        &self,
        traffic: Traffic,
        reference: &mut Reference,
        service: &mut Service,
    ) -> anyhow::Result<(Sustained, Vec<(&'static str, f64)>)> {
        let before = self.begin(reference, service).await?;
        let (postmaster, written) = (reference.postmaster().await?, reference.written().await?);
        let (sustained, sent) = service.sustain(self.seconds(), traffic, postmaster).await?;
        service.check(before, sent).await?;
        let now = reference.written().await?;
        let notes = vec![
            ("CPU µs/event, service", sustained.cpu_us_service),
            ("CPU µs/event, Postgres", sustained.cpu_us_postgres),
            ("WAL bytes/event", (now.0 - written.0) / sent as f64),
            ("log bytes/event", (now.1 - written.1) / sent as f64),
            ("peak MiB of the service", sustained.peak_memory_mib),
            ("ms behind at the end", sustained.lag_ms),
        ];
        Ok((sustained, notes))
    }

    async fn sustained(
        &self,
        number: u32,
        reference: &mut Reference,
        service: &mut Service,
    ) -> anyhow::Result<Rounds> {
        let against = reference.copy(self.seconds(), u64::from(number)).await?;
        let parse = Reference::parse()?;
        let traffic = Traffic::Uniform(Users::default());
        let (sustained, notes) = self.sustain(traffic, reference, service).await?;
        let cost = sustained.cpu_us_service + sustained.cpu_us_postgres;
        Ok(vec![
            (Goal::G4, ratio(sustained.rate, against, notes)),
            (Goal::G5, ratio(cost, parse, Vec::new())),
        ])
    }

    /// The rate of G4, without anything to say of it.
    async fn alone(&self, reference: &mut Reference, service: &mut Service) -> anyhow::Result<f64> {
        let traffic = Traffic::Uniform(Users::default());
        Ok(self.sustain(traffic, reference, service).await?.0.rate)
    }

    async fn seen(&self, reference: &mut Reference, service: &mut Service) -> anyhow::Result<Rounds> {
        let rate = self.alone(reference, service).await? / 2.0;
        let before = service.pipeline().await?;
        let (seen, acknowledged, sent) = service.freshness(rate, self.seconds(), self.probes.get()).await?;
        service.check(before, sent).await?;
        let notes = vec![("ms p50", seen.half), ("ms at most", seen.latest), ("events/s", rate)];
        let beside = vec![("ms p50 until acknowledged", acknowledged.half)];
        Ok(vec![
            (Goal::Fresh, ratio(ALLOWED_MS, seen.nearly_all, notes)),
            (Goal::G6, ratio(seen.nearly_all, acknowledged.nearly_all, beside)),
        ])
    }

    async fn backfill(&self, reference: &mut Reference, service: &mut Service) -> anyhow::Result<Round> {
        let alone = self.alone(reference, service).await?;
        let backfilling = service.backfill_for_ever();
        let traffic = Traffic::Uniform(Users::default());
        let (beside, _) = self.sustain(traffic, reference, service).await?;
        drop(backfilling);
        Ok(ratio(beside.rate, alone, vec![("ms behind at the end", beside.lag_ms)]))
    }

    async fn outbox(&self, reference: &mut Reference, service: &mut Service) -> anyhow::Result<Round> {
        let alone = self.alone(reference, service).await?;
        let receiver = Receiver::start(Manner::Well).await?;
        let name = format!("outbox_{}", self.probes.get());
        let destination = service.send_all(&receiver, &name).await?;
        service.sent(&destination).await?;
        let delivered = service.delivered(&destination).await?.0;
        let before = service.pipeline().await?;
        let postmaster = reference.postmaster().await?;
        let traffic = Traffic::Uniform(Users::default());
        let (beside, sent) = service.sustain(self.seconds(), traffic, postmaster).await?;
        let (now, queued) = service.delivered(&destination).await?;
        service.check(before, sent).await?;
        service.forget(&destination).await?;
        let notes = vec![
            ("changes delivered meanwhile", now - delivered),
            ("changes queued at the end", queued),
            ("ms behind at the end", beside.lag_ms),
        ];
        Ok(ratio(beside.rate, alone, notes))
    }

    async fn deliver(&self, reference: &mut Reference, service: &mut Service) -> anyhow::Result<Round> {
        reference.checkpoint().await?;
        let receiver = Receiver::start(Manner::Well).await?;
        let key = format!("everybody_{}", self.probes.get());
        service.everybody(&key).await?;
        let synced = service.sync(&receiver, &key).await?;
        let notes = vec![("members", synced.members as f64), ("peak MiB of the service", synced.peak)];
        Ok(ratio(synced.rate, DELIVERIES, notes))
    }

    async fn sync(&self, service: &mut Service) -> anyhow::Result<Round> {
        let receiver = Receiver::start(Manner::Well).await?;
        service.crowd("crowd", CROWD).await?;
        let before = machine::memory(service.pid());
        let synced = service.sync(&receiver, "crowd").await?;
        let notes =
            vec![("members", synced.members as f64), ("a second", synced.rate), ("MiB before", before)];
        Ok(ratio(synced.first_tenth, synced.peak, notes))
    }

    /// What an event costs among few and among many, the memory that many take, and how long a start takes with them.
    async fn scale(&self, reference: &mut Reference, service: &mut Service) -> anyhow::Result<Round> {
        let newcomers = Traffic::Sweep(Users(u64::MAX), Arc::clone(&self.newcomers));
        let mut costs = Vec::new();
        let (mut notes, many) = (Vec::new(), self.bench.profiles.max(FEW));
        for users in [FEW, many] {
            // Each of them, and not so many of whatever goals came before.
            while self.newcomers.load(Ordering::Relaxed) < users {
                service.send_some(&newcomers).await?;
            }
            let (sustained, told) = self.sustain(Traffic::Uniform(Users(users)), reference, service).await?;
            costs.push(sustained.cpu_us_service + sustained.cpu_us_postgres);
            notes = told;
            notes.push(("events/s", sustained.rate));
        }
        notes.push(("users", service.pipeline().await?.users as f64));
        notes.push(("ms from start to ready", service.start_again().await?.as_secs_f64() * 1e3));
        let [few, many] = costs[..] else { anyhow::bail!("two costs") };
        Ok(ratio(many, few, notes))
    }

    /// What a hostile receiver costs others, and what it costs the service.
    async fn hostile(&self, service: &mut Service) -> anyhow::Result<Rounds> {
        let before = service.pipeline().await?;
        let beside = service.beside_a_hostile_one(self.seconds(), self.probes.get()).await?;
        service.check(before, beside.sent).await?;
        let notes = vec![("requests that the hostile one got", beside.requests as f64)];
        let late = ratio(beside.late_without, beside.late_with, notes);
        let more = beside.memory_with - beside.memory_without;
        let notes = vec![("MiB without", beside.memory_without), ("MiB more", more)];
        Ok(vec![(Goal::Hostile, late), (Goal::HostileMemory, ratio(HOSTILE_MIB, more.max(MIB_LEAST), notes))])
    }
}
