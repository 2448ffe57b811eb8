//! What became of what was sent, gathered and written in one transaction under the worker's lease: a handful of statements
//! for hundreds of deliveries.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::time::Instant;
use uuid::Uuid;

use super::http::Code;
use super::kind::{Reason, Sent, Verdict};
use super::opener::shown;
use super::schedule;
use super::window::Taken;
use crate::clock::IdMaker;
use crate::domain::delivery::Subject;
use crate::domain::{DestinationNo, ProfileNo, SpaceNo, Timestamp};
use crate::store::deliveries::book::{self, Attempt, Ended, Exchange, State};
use crate::store::deliveries::queue::Hold;
use crate::store::destinations::worker::{self, Progress};
use crate::store::{Result, deliveries};
use crate::telemetry::metrics;

/// From so many endings on it is written.
const FULL: usize = 500;
/// Exchanges of failures that are kept in a second.
const FAILED_KEPT_MAX: u32 = 100;
/// Codes of what a mapping leaves out: that is no failure.
const NOT_MEANT: [&str; 2] = ["NO_MATCHING_MAPPING", "UNSUPPORTED_EVENT_TYPE"];
/// Codes of what does not go out.
const UNASKED: [Code; 2] = [Code::Blocked, Code::InvalidSettings];
/// No ending waits longer for the others.
const LATEST: Duration = Duration::from_millis(25);
/// The same while workers give way: fewer transactions, each of more.
const LATEST_BUSY: Duration = Duration::from_millis(250);

/// Whose ledger it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub space: SpaceNo,
    pub destination: DestinationNo,
    pub epoch: i64,
    pub length: Duration,
}

/// How it goes on for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has left the queue, as the receiver says: it has arrived, or is refused.
    Answered,
    /// It has left the queue, and the receiver was not asked.
    Unasked,
    /// It has left the queue: the last attempt has failed.
    GivenUp {
        /// See [`Outcome::Failed`].
        asked: Option<Duration>,
    },
    /// It is tried again after a pause.
    Failed {
        /// The receiver asks for that pause.
        asked: Option<Duration>,
    },
    /// The destination is gone.
    Gone,
}

/// What writing has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// Since when there was nothing but failure; said only where something has failed anew.
    pub failing: Option<Timestamp>,
    /// Somebody who was to be let go is held still, or somebody else is.
    pub is_held: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    ended: Vec<Ended>,
    holds: HashMap<ProfileNo, Hold>,
    released: Vec<ProfileNo>,
    attempts: Vec<Attempt>,
    exchanges: Vec<Exchange>,
    failures: BTreeMap<String, i64>,
    progress: Progress,
    since: Option<Instant>,
    /// How long a change is tried for, in milliseconds.
    retry_ms: i64,
    /// Exchanges of what arrived that are kept in a second; how many were, of those and of failures, and since when they
    /// are counted.
    kept_max: u32,
    kept: [u32; 2],
    kept_since: Instant,
}

impl Ledger {
    pub(super) fn new(retry: Duration, kept_max: u32) -> Self {
        Self {
            ended: Vec::new(),
            holds: HashMap::new(),
            released: Vec::new(),
            attempts: Vec::new(),
            exchanges: Vec::new(),
            failures: BTreeMap::new(),
            progress: Progress::default(),
            since: None,
            retry_ms: i64::try_from(retry.as_millis()).unwrap_or(i64::MAX),
            kept_max,
            kept: [0; 2],
            kept_since: Instant::now(),
        }
    }

    /// Whether there is something to write.
    pub(super) const fn is_dirty(&self) -> bool {
        self.since.is_some()
    }

    /// Whether it should be written now.
    pub(super) fn is_due(&self, is_busy: bool) -> bool {
        self.ended.len() >= FULL || self.due(is_busy).is_some_and(|due| due <= Instant::now())
    }

    /// When it should be written at the latest; later while workers give way.
    pub(super) fn due(&self, is_busy: bool) -> Option<Instant> {
        Some(self.since? + if is_busy { LATEST_BUSY } else { LATEST })
    }

    fn note(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// A change is not sent at all.
    pub(super) fn filtered(&mut self, taken: &Taken, reason: Reason, now: Timestamp) {
        self.progress.filtered += 1;
        self.end(taken, State::Filtered, 0, Some(reason), now);
    }

    fn end(&mut self, taken: &Taken, state: State, tries: i32, reason: Option<Reason>, at: Timestamp) {
        let (code, message) = reason.map(|Reason { code, message }| (code, shown(&message))).unzip();
        let tries = taken.tries + tries;
        self.ended.push(Ended { seq: taken.row.seq, state, tries, code, message, at });
        self.progress.done += 1;
        self.note();
    }

    /// Somebody waits, because changes of two profiles became those of one, until `now`.
    pub(super) fn hold(&mut self, profile: ProfileNo, now: Timestamp) {
        self.holds.entry(profile).or_insert(Hold { profile, next_at: now, tries: 0, first_at: now });
        self.note();
    }

    /// Nothing of a profile waits any more.
    pub(super) fn release(&mut self, profile: ProfileNo) {
        self.released.push(profile);
        self.note();
    }

    /// Takes down what was sent and what was said to it. Of each change, how it goes on.
    pub(super) fn sent(
        &mut self,
        batch: &[Taken],
        sent: Sent,
        now: Timestamp,
        ids: &IdMaker,
    ) -> Vec<Outcome> {
        let Sent { mut verdicts, exchanges } = sent;
        let lost = || Verdict::Retry {
            reason: Reason { code: "INTERNAL".to_owned(), message: "nothing was said of it".to_owned() },
            after: None,
        };
        verdicts.resize_with(batch.len(), lost);
        let mut of: Vec<Option<Uuid>> = vec![None; batch.len()];
        let mut asked = vec![false; batch.len()];
        for exchange in exchanges {
            for place in &exchange.items {
                if let Some(asked) = asked.get_mut(*place) {
                    *asked = true;
                }
            }
            metrics::DELIVERY_DURATION.time(&[], exchange.took);
            let mut told = exchange.items.iter().filter_map(|place| verdicts.get(*place));
            let all_well = told.all(|verdict| *verdict == Verdict::Delivered);
            // What a deletion says is not kept.
            let mut about = exchange.items.iter().filter_map(|place| batch.get(*place));
            if about.any(|taken| taken.row.subject == Subject::Deletion) || !self.may_keep(all_well) {
                continue;
            }
            let id = ids.uuid();
            for place in &exchange.items {
                if let Some(of) = of.get_mut(*place) {
                    *of = Some(id);
                }
            }
            self.exchanges.push(Exchange {
                id,
                request: exchange.request.replace('\0', "\u{fffd}"),
                status: exchange.status.map(i32::from),
                response: exchange.response.replace('\0', "\u{fffd}"),
                took_ms: i32::try_from(exchange.took.as_millis()).unwrap_or(i32::MAX),
            });
        }
        let judged = batch.iter().zip(verdicts).zip(of.into_iter().zip(asked));
        judged.map(|((taken, verdict), exchange)| self.judge(taken, verdict, exchange, now)).collect()
    }

    /// Whether one more exchange may be kept.
    fn may_keep(&mut self, all_well: bool) -> bool {
        if self.kept_since.elapsed() >= Duration::from_secs(1) {
            (self.kept, self.kept_since) = ([0; 2], Instant::now());
        }
        let [well, failed] = &mut self.kept;
        let (kept, most) = if all_well { (well, self.kept_max) } else { (failed, FAILED_KEPT_MAX) };
        *kept += 1;
        *kept <= most
    }

    /// `exchange` is the one that is kept, and whether there was one.
    fn judge(
        &mut self,
        taken: &Taken,
        verdict: Verdict,
        (exchange, was_asked): (Option<Uuid>, bool),
        now: Timestamp,
    ) -> Outcome {
        let verdict = match verdict {
            Verdict::Rejected(reason) if NOT_MEANT.contains(&reason.code.as_str()) => {
                self.filtered(taken, reason, now);
                return Outcome::Unasked;
            }
            verdict => verdict,
        };
        let first_at = taken.first_at.unwrap_or(now);
        let (word, reason, outcome) = match verdict {
            Verdict::Delivered => {
                self.progress.delivered += 1;
                self.progress.delivered_at = Some(now);
                self.end(taken, State::Delivered, 1, None, now);
                ("delivered", None, Outcome::Answered)
            }
            Verdict::Retry { reason, after } if now.millis() - first_at.millis() >= self.retry_ms => {
                self.give_up(taken, &reason, now);
                ("retry", Some(reason), Outcome::GivenUp { asked: after })
            }
            Verdict::Retry { reason, after } => ("retry", Some(reason), Outcome::Failed { asked: after }),
            Verdict::Rejected(reason) => {
                self.give_up(taken, &reason, now);
                let is_answer = was_asked && !UNASKED.map(Code::as_str).contains(&reason.code.as_str());
                ("rejected", Some(reason), if is_answer { Outcome::Answered } else { Outcome::Unasked })
            }
            Verdict::Gone(reason) => ("gone", Some(reason), Outcome::Gone),
        };
        metrics::DELIVERY_ATTEMPTS.add(&[word], 1);
        if reason.is_some() || exchange.is_some() {
            let (code, message) = reason.clone().map(|r| (r.code, shown(&r.message))).unzip();
            let attempt = taken.row.attempts + taken.tries + 1;
            let (no, at) = (taken.row.no, now);
            self.attempts.push(Attempt { no, attempt, at, outcome: word, code, message, exchange });
        }
        if let Some(Reason { code, message }) = reason {
            if code == Code::Blocked.as_str() {
                metrics::DELIVERY_BLOCKED.add(&[], 1);
            }
            *self.failures.entry(code.clone()).or_default() += 1;
            self.progress.failed = Some((now, code, shown(&message)));
        }
        self.note();
        outcome
    }

    fn give_up(&mut self, taken: &Taken, reason: &Reason, now: Timestamp) {
        self.progress.dead += 1;
        metrics::DEAD_LETTERS_TOTAL.add(&[], 1);
        self.end(taken, State::Dead, 1, Some(reason.clone()), now);
    }

    /// A change is tried again after a pause; `owner` is whose it is by now. Returns when.
    pub(super) fn again(
        &mut self,
        owner: ProfileNo,
        taken: &Taken,
        asked: Option<Duration>,
        now: Timestamp,
        random: u16,
    ) -> Timestamp {
        let tries = taken.tries + 1;
        let next_at = now.plus_millis(schedule::pause_ms(tries, asked, random));
        let first_at = taken.first_at.unwrap_or(now);
        self.holds.insert(owner, Hold { profile: owner, next_at, tries, first_at });
        self.note();
        next_at
    }

    /// Writes everything, and extends the lease; rows up to `cursor` are in memory, held or done. When it fails, the
    /// lease is lost or the database is away: whoever goes on begins with what is in the table.
    pub(super) async fn write(
        &mut self,
        pool: &PgPool,
        lease: Lease,
        (in_flight, cursor): (usize, i64),
    ) -> Result<Written> {
        let Lease { space, destination, epoch, length } = lease;
        let mut tx = pool.begin().await?;
        self.progress.in_flight = i32::try_from(in_flight).unwrap_or(i32::MAX);
        let failing = worker::advance(&mut tx, space, destination, epoch, length, &self.progress).await?;
        // Silence is no failure.
        let failing = failing.filter(|_| self.progress.failed.is_some());
        if !self.ended.is_empty() {
            let ended = deliveries::book::end(&mut tx, space, destination, &self.ended).await?;
            if ended < self.ended.len() as u64 {
                // Erased meanwhile, and counted by whoever has done that.
                worker::uncount(&mut tx, space, destination, self.ended.len() as i64 - ended as i64).await?;
            }
        }
        if !self.holds.is_empty() {
            let mut holds: Vec<Hold> = self.holds.values().copied().collect();
            holds.sort_unstable_by_key(|hold| hold.profile);
            book::hold(&mut tx, space, destination, &holds).await?;
        }
        let mut written = Written { failing, is_held: false };
        if !self.released.is_empty() {
            // What merges hand over is locked out by the row that was advanced.
            let released = (self.released.as_slice(), cursor);
            written.is_held = !book::release(&mut tx, space, destination, released).await?;
        }
        if !self.attempts.is_empty() {
            let gone = book::insert_attempts(&mut tx, space, destination, &self.attempts).await?;
            self.exchanges.retain(|exchange| !gone.contains(&exchange.id));
        }
        if !self.exchanges.is_empty() {
            book::insert_exchanges(&mut tx, space, destination, &self.exchanges).await?;
        }
        if !self.failures.is_empty() {
            let failures: Vec<(String, i64)> = self.failures.iter().map(|(c, n)| (c.clone(), *n)).collect();
            worker::add_failures(&mut tx, space, destination, &failures).await?;
        }
        tx.commit().await?;
        self.ended.clear();
        self.holds.clear();
        self.released.clear();
        self.exchanges.clear();
        self.attempts.clear();
        self.failures.clear();
        (self.progress, self.since) = (Progress::default(), None);
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::deliver::kind;
    use crate::domain::delivery::{Form, Subject};
    use crate::store::deliveries::queue::Queued;

    fn taken(seq: i64) -> Taken {
        let row = Queued {
            seq,
            no: seq,
            profile: ProfileNo(1),
            subscription: 1,
            subject: Subject::Audience,
            form: Form::Identify,
            definition: 1,
            value: "true".to_owned(),
            at: Timestamp::from_millis(0),
            attempts: 0,
        };
        Taken { row, tries: 0, first_at: Some(Timestamp::from_millis(0)) }
    }

    #[test]
    fn an_answer_is_what_a_receiver_says_and_nothing_else() {
        let reason = |code: &str| Reason { code: code.to_owned(), message: String::new() };
        let (after, items) = (Some(Duration::from_secs(9)), 0..1);
        let cases = [
            (Verdict::Delivered, true, Outcome::Answered),
            (Verdict::Rejected(reason("400")), true, Outcome::Answered),
            (Verdict::Rejected(reason("MESSAGE_REJECTED")), false, Outcome::Unasked),
            (Verdict::Rejected(reason("BLOCKED")), true, Outcome::Unasked),
            (Verdict::Rejected(reason(NOT_MEANT[0])), false, Outcome::Unasked),
            (Verdict::Retry { reason: reason("503"), after }, true, Outcome::GivenUp { asked: after }),
        ];
        // No exchange is kept: that is no matter here.
        let mut ledger = Ledger::new(Duration::from_secs(1), 0);
        let (now, ids) = (Timestamp::from_millis(1_000), IdMaker::new(Clock::System));
        for (verdict, is_asked, outcome) in cases {
            let exchange = kind::Exchange { items: items.clone().collect(), ..kind::Exchange::default() };
            let exchanges = if is_asked { vec![exchange] } else { Vec::new() };
            let sent = Sent { verdicts: vec![verdict.clone()], exchanges };
            assert_eq!(ledger.sent(&[taken(1)], sent, now, &ids), [outcome], "{verdict:?}");
        }
    }
}
