//! The worker of one destination: takes changes from its queue in order, sends them, and writes down what became of them.
//!
//! It holds the destination's lease, and everything it writes is fenced by it. What is in memory is bounded; anything that
//! goes wrong ends it, and whoever takes the lease next begins with what is in the table. What was sent and not written
//! down is sent again.

mod clock;
mod linger;
mod rest;
mod shuffle;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::budget::Budget;
use super::build::{Builder, Built};
use super::kind::{Item, Kind, Reason, Sent, Verdict};
use super::ledger::{Lease, Ledger, Outcome, Written};
use super::opener::OpenError;
use super::pace::Pace;
use super::schedule::{Breaker, Rate, clamp_retry_after};
use super::window::{Taken, Window};
use super::{Context, Glances, sync};
use crate::domain::{ProfileNo, Timestamp};
use crate::store::deliveries::queue;
use crate::store::destinations::{self, Limits, worker};
use crate::store::{Result, StoreError};
use crate::telemetry::traces;

/// Rows of a page of the queue.
const PAGE: usize = 500;
/// Rows of one profile that come back from being held at a time.
const ROWS_OF_ONE: i64 = 20;
/// Profiles that come back from being held at a time: each of them has one row, or a few.
const HELD_MAX: i64 = 250;
/// How long a stop waits for what is under way; what is not answered by then is sent again.
const DRAIN: Duration = Duration::from_secs(15);
/// Events that are built in advance, so that profiles are read by the dozen.
const AHEAD: usize = 64;
/// How old an event that was built in advance may be.
const FRESH: Duration = Duration::from_secs(2);
/// The same where consent is asked for: who takes it back is told of no more.
const FRESH_CONSENT: Duration = Duration::from_millis(250);

/// A change, ready to be sent.
struct Ready {
    taken: Taken,
    item: Item,
    built: Instant,
}

/// What a request came to.
struct Landed {
    batch: Vec<Taken>,
    sent: Sent,
}

/// See the module.
pub(super) struct Worker {
    context: Arc<Context>,
    pool: PgPool,
    lease: Lease,
    glances: Glances,
    pace: Pace,
    config_version: i64,
    /// As of the last look, and whether the queue has to be read anew.
    shuffled: i64,
    is_shuffled: bool,
    state: State,
    kind: Option<Arc<dyn Kind>>,
    builder: Option<Builder>,
    limits: Limits,
    window: Window,
    ahead: VecDeque<Ready>,
    ledger: Ledger,
    breaker: Breaker,
    rate: Rate,
    requests: JoinSet<Landed>,
    /// Rows up to here are in memory, held or done.
    cursor: i64,
    /// When a held profile is due, as far as it is known.
    next_hold: Option<Timestamp>,
    /// The clock, as of the last turn.
    newest: Option<Timestamp>,
    /// It has answered so: nothing more is asked, and when the last answer is there it is paused.
    is_gone: bool,
    is_syncing: bool,
    written: Instant,
}

/// Whether anything is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connected,
    /// By an operator, or by the service.
    Paused,
}

impl Worker {
    pub(super) fn new(
        context: Arc<Context>,
        pool: PgPool,
        lease: Lease,
        (glances, pace): (Glances, Pace),
    ) -> Self {
        let ledger = Ledger::new(context.config.retry, context.config.exchanges_per_second_max);
        let limits = Limits { concurrency: 1, rate_per_second: None, timeout_ms: 1_000, linger_seconds: 0 };
        Self {
            context,
            pool,
            lease,
            glances,
            pace,
            config_version: -1,
            shuffled: 0,
            is_shuffled: false,
            state: State::Paused,
            kind: None,
            builder: None,
            limits,
            window: Window::default(),
            ahead: VecDeque::new(),
            ledger,
            breaker: Breaker::default(),
            rate: Rate::new(None, Instant::now()),
            requests: JoinSet::new(),
            cursor: 0,
            next_hold: Some(Timestamp::EPOCH),
            newest: None,
            is_syncing: false,
            is_gone: false,
            written: Instant::now(),
        }
    }

    /// Works until the shutdown, or until something goes wrong.
    pub(super) async fn run(mut self, shutdown: &CancellationToken) -> Result<()> {
        while !shutdown.is_cancelled() {
            let began = Instant::now();
            if !self.follow().await? {
                // The destination was deleted, and its lease with it.
                return Ok(());
            }
            while let Some(landed) = self.requests.try_join_next() {
                self.land(landed)?;
            }
            self.follow_clock().await?;
            if self.ledger.is_due(self.pace.is_busy()) || self.written.elapsed() > self.lease.length / 4 {
                self.write().await?;
            }
            if self.is_gone && self.requests.is_empty() {
                // Nothing of before is under way: who resumes it is not answered by what was asked before that.
                self.is_gone = false;
                self.write().await?;
                self.pause("the destination answers that it is gone (410)").await?;
            }
            self.read_anew().await?;
            if self.may_send() {
                self.fill_up().await?;
                self.dispatch().await?;
            }
            // Nothing of this was waiting for a receiver.
            self.pace.worked(began.elapsed(), Instant::now());
            self.rest(shutdown).await?;
        }
        let deadline = Instant::now() + DRAIN;
        while let Ok(Some(landed)) = tokio::time::timeout_at(deadline, self.requests.join_next()).await {
            self.land(landed)?;
        }
        self.requests.abort_all();
        self.window.clear();
        self.write().await?;
        let Lease { space, destination, epoch, .. } = self.lease;
        worker::release_lease(&self.pool, space, destination, epoch).await
    }

    fn random(&self) -> u16 {
        u16::from_be_bytes(self.context.ids.bytes::<2>())
    }

    /// Follows what operators change; false when the destination is gone.
    async fn follow(&mut self) -> Result<bool> {
        let key = (self.lease.space, self.lease.destination);
        let glance = self.glances.borrow_and_update().get(&key).cloned();
        // Nothing is known before the first look.
        let Some(glance) = glance else { return Ok(self.config_version < 0) };
        self.is_shuffled |= self.config_version >= 0 && self.shuffled < glance.shuffled;
        self.shuffled = self.shuffled.max(glance.shuffled);
        if glance.config_version > self.config_version {
            self.config_version = glance.config_version;
            let state = glance.state.clone();
            return self.reload(&state).await;
        }
        Ok(true)
    }

    async fn reload(&mut self, state: &str) -> Result<bool> {
        let Lease { space, destination, .. } = self.lease;
        let Some(found) = destinations::get(&self.pool, space, destination).await? else { return Ok(false) };
        // Built with other settings.
        self.unbuild();
        self.state = if state == "connected" { State::Connected } else { State::Paused };
        if found.limits != self.limits {
            self.rate = Rate::new(found.limits.rate_per_second, Instant::now());
            self.limits = found.limits;
        }
        self.builder = Some(Builder::load(&self.pool, space, &found).await?);
        match self.context.opener.open(&found) {
            Ok(kind) => self.kind = Some(Arc::from(kind)),
            Err(error) => self.stop_for(&error).await?,
        }
        self.is_syncing = true;
        self.breaker = Breaker::default();
        // An operator may have asked for what is held to be tried now.
        self.next_hold = Some(Timestamp::EPOCH);
        Ok(true)
    }

    /// What cannot be opened is paused, and says why.
    async fn stop_for(&mut self, error: &OpenError) -> Result<()> {
        self.kind = None;
        if self.state == State::Connected {
            self.pause(&error.to_string()).await?;
        }
        Ok(())
    }

    async fn pause(&mut self, why: &str) -> Result<()> {
        let Lease { space, destination, .. } = self.lease;
        self.state = State::Paused;
        let now = self.now();
        if worker::set_state(&self.pool, space, destination, ("failing", Some(why)), now).await? {
            tracing::warn!(%space, %destination, why, "destination {destination} of space {space} is paused: {why}");
        }
        Ok(())
    }

    /// Puts what was built in advance back: it is built anew when its turn comes.
    fn unbuild(&mut self) {
        let taken = self.ahead.drain(..).map(|ready| ready.taken);
        self.window.put_back(taken.collect());
    }

    async fn write(&mut self) -> Result<()> {
        let in_flight = self.window.in_flight() - self.ahead.len();
        let state = (in_flight, self.cursor);
        let Written { failing, is_held } = self.ledger.write(&self.pool, self.lease, state).await?;
        self.written = Instant::now();
        if is_held {
            self.next_hold = Some(Timestamp::EPOCH);
        }
        let limit = i64::try_from(self.context.config.auto_pause.as_millis()).unwrap_or(i64::MAX);
        if let Some(since) = failing
            && self.state == State::Connected
            && self.now().millis() - since.millis() >= limit
        {
            self.pause(&format!("every attempt since {since} has failed")).await?;
        }
        Ok(())
    }

    /// Takes down what a request came to.
    fn land(&mut self, landed: std::result::Result<Landed, tokio::task::JoinError>) -> Result<()> {
        let Landed { batch, sent } =
            landed.map_err(|error| StoreError::Damaged(format!("sending failed: {error}")))?;
        let now = self.now();
        let outcomes = self.ledger.sent(&batch, sent, now, &self.context.ids);
        let (mut answered, mut failed, mut gone) = (false, false, false);
        // What was sent together is tried again together.
        let random = self.random();
        for (taken, outcome) in batch.iter().zip(outcomes) {
            let asked = match outcome {
                Outcome::Failed { asked } | Outcome::GivenUp { asked } => asked,
                _ => None,
            };
            answered |= outcome == Outcome::Answered;
            gone |= outcome == Outcome::Gone;
            if let Some(asked) = asked {
                self.breaker.wait_until(now.plus_millis(clamp_retry_after(asked)));
            }
            failed |= !matches!(outcome, Outcome::Answered | Outcome::Unasked);
            if matches!(outcome, Outcome::Failed { .. } | Outcome::Gone) {
                let owner = self.window.failed(taken.row.profile);
                let next = self.ledger.again(owner, taken, asked, now, random);
                self.next_hold = Some(self.next_hold.map_or(next, |known| known.min(next)));
            } else {
                self.ended(taken.row.profile);
            }
        }
        if answered {
            self.breaker.answered();
        } else if failed {
            self.breaker.failed(now, random);
        }
        self.is_gone |= gone;
        Ok(())
    }

    /// A change of a profile has left the queue. What was forgotten of it meanwhile was not due while that was under way.
    fn ended(&mut self, profile: ProfileNo) {
        if self.window.ended(profile) {
            self.next_hold = Some(Timestamp::EPOCH);
        }
    }

    /// Brings rows into memory: profiles that were held and are due, then what is new.
    async fn fill(&mut self) -> Result<()> {
        if self.pace.rests_until(Instant::now()).is_some() {
            return Ok(());
        }
        let room = self.context.config.window_max.saturating_sub(self.window.len());
        let now = self.now();
        let is_held_due = self.next_hold.is_some_and(|at| at <= now) && self.breaker.allowed(1, now) > 0;
        let end = self.end();
        let has_news = end > self.cursor && self.window.len() < self.context.config.window_max / 2;
        if room == 0 || !(is_held_due || has_news || self.is_syncing || self.window.wants_rows()) {
            return Ok(());
        }
        if self.ledger.is_dirty() {
            self.write().await?;
        }
        let mut connection = self.pool.acquire().await?;
        let Lease { space, destination, .. } = self.lease;
        if is_held_due {
            let most = (room as i64 / 8).clamp(1, HELD_MAX);
            let busy = self.window.busy();
            let due = queue::load_due(&mut connection, space, destination, now, (&busy, most)).await?;
            self.next_hold = due.1;
            due.0.into_iter().for_each(|hold| self.window.resume(hold));
        }
        let empty = self.window.take_empty();
        if !empty.is_empty() {
            let within = (self.cursor, ROWS_OF_ONE);
            let rows = queue::load_profiles(&mut *connection, space, destination, &empty, within).await?;
            self.window.extend(rows);
            for (profile, _) in empty {
                if !self.window.has_rows(profile) {
                    self.ledger.release(profile);
                    self.window.let_go(profile);
                }
            }
        }
        drop(connection);
        if self.ledger.is_dirty() {
            // Before the next page, which leaves out who is held.
            self.write().await?;
        }
        if has_news {
            self.load_page().await?;
        } else if self.is_syncing && end <= self.cursor && self.window.len() < PAGE {
            self.is_syncing = sync::step(&self.pool, self.lease, now).await?;
            // The end has moved, which the next look would tell too late.
            self.load_page().await?;
        }
        Ok(())
    }

    /// The end of the queue, as of the last look.
    fn end(&self) -> i64 {
        let key = (self.lease.space, self.lease.destination);
        self.glances.borrow().get(&key).map_or(0, |glance| glance.last_no)
    }

    async fn load_page(&mut self) -> Result<()> {
        let Lease { space, destination, .. } = self.lease;
        let mut connection = self.pool.acquire().await?;
        let most = PAGE as i64;
        let (end, rows) = queue::load_page(&mut connection, space, destination, self.cursor, most).await?;
        self.cursor = match rows.last() {
            Some(last) if rows.len() == PAGE => last.seq,
            _ => end.max(self.cursor),
        };
        self.window.extend(rows);
        let now = self.now();
        let (profiles, places) = self.window.profiles();
        let known = (profiles.as_slice(), places.as_slice());
        let moved = queue::find_moved(&mut *connection, space, destination, known).await?;
        let config = worker::find_config(&mut *connection, space, destination).await?;
        drop(connection);
        if let Some((.., shuffled)) = config {
            // What was read may belong behind what is under way.
            self.is_shuffled |= shuffled != self.shuffled;
            self.shuffled = shuffled;
        }
        if let Some((state, version, _)) = config
            && version > self.config_version
        {
            // Rows are sent by the settings there were when they were written, or by newer ones, though the last look at
            // the settings was before that.
            self.config_version = version;
            self.reload(&state).await?;
        }
        if moved.is_empty() {
            return Ok(());
        }
        // What is built in advance is put back first: of those that move, nothing but what was sent is in flight.
        self.unbuild();
        self.next_hold = Some(Timestamp::EPOCH);
        for (profile, survivor) in moved {
            if let Some(survivor) = survivor {
                self.window.merge(profile, survivor);
                self.ledger.hold(survivor, now);
            } else {
                self.window.forget(profile);
            }
        }
        if self.ledger.is_dirty() {
            self.write().await?;
        }
        Ok(())
    }

    /// Sends what may be sent now.
    async fn dispatch(&mut self) -> Result<()> {
        let Some(kind) = self.kind.clone() else { return Ok(()) };
        let batch_max = kind.batch_max().max(1);
        let concurrency = usize::try_from(self.limits.concurrency).unwrap_or(1).max(1);
        loop {
            let allowed = self.breaker.allowed(concurrency, self.now());
            if self.is_shuffled || self.requests.len() >= allowed {
                return Ok(());
            }
            let budget = self.rate.available(Instant::now()).min(batch_max);
            if budget == 0 || self.lingers_until().is_some() {
                return Ok(());
            }
            let asks = self.builder.as_ref().is_some_and(Builder::asks_for_consent);
            let fresh = if asks { FRESH_CONSENT } else { FRESH };
            if self.ahead.front().is_some_and(|ready| ready.built.elapsed() > fresh) {
                self.unbuild();
            }
            while self.ahead.len() < budget && self.window.ready() > 0 {
                let before = self.window.ready();
                self.build_ahead(batch_max.saturating_mul(allowed)).await?;
                if self.window.ready() >= before {
                    break;
                }
            }
            let count = budget.min(self.ahead.len());
            if count == 0 {
                return Ok(());
            }
            let batch: Vec<Ready> = self.ahead.drain(..count).collect();
            self.rate.take(count);
            self.send(&kind, batch);
        }
    }

    async fn build_ahead(&mut self, wanted: usize) -> Result<()> {
        let Some(builder) = &mut self.builder else { return Ok(()) };
        let most = wanted.clamp(AHEAD, PAGE);
        let taken: Vec<Taken> = std::iter::from_fn(|| self.window.take()).take(most).collect();
        let rows: Vec<&queue::Queued> = taken.iter().map(|taken| &taken.row).collect();
        let attempts: Vec<u32> =
            taken.iter().map(|taken| (taken.row.attempts + taken.tries).unsigned_abs()).collect();
        let built = builder.build(&self.pool, &rows, &attempts).await?;
        let (now, at) = (self.context.clock.now(), Instant::now());
        for (taken, built) in taken.into_iter().zip(built) {
            match built {
                Built::Item(item) => self.ahead.push_back(Ready { taken, item, built: at }),
                Built::Nothing(reason) => {
                    self.ledger.filtered(&taken, reason, now);
                    self.ended(taken.row.profile);
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, kind: &Arc<dyn Kind>, batch: Vec<Ready>) {
        let kind = Arc::clone(kind);
        let one = Duration::from_millis(u64::from(self.limits.timeout_ms.unsigned_abs()));
        let limit = Budget::limit(one, batch.len());
        let (batch, items): (Vec<Taken>, Vec<Item>) =
            batch.into_iter().map(|ready| (ready.taken, ready.item)).unzip();
        let (pace, span) = (self.pace.clone(), traces::delivery(self.lease.destination.0, batch.len()));
        let sending = async move {
            let sent = pace.timed(tokio::time::timeout(limit, kind.send(&items))).await;
            let late = |_| {
                let message = format!("it did not end within {} ms", limit.as_millis());
                let reason = Reason { code: "ETIMEDOUT".to_owned(), message };
                let verdict = Verdict::Retry { reason, after: None };
                Sent { verdicts: vec![verdict; batch.len()], exchanges: Vec::new() }
            };
            Landed { sent: sent.unwrap_or_else(late), batch }
        };
        self.requests.spawn(sending.instrument(span));
    }
}
