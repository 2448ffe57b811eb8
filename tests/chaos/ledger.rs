//! What was sent, what has been acknowledged, and what nobody knows: that is sent again, with the same message ids, until it
//! is acknowledged.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::traffic::Traffic;

/// What became of a batch that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 200, with the offset of its last call.
    Acknowledged(u64),
    /// Told to come again: by which status, and whether with a time.
    Deferred(u16, bool),
    /// Any other status.
    Refused(u16, String),
    /// No answer.
    Unknown,
}

#[derive(Debug, Default)]
struct Pages {
    /// The next batch that was never sent.
    next: u64,
    /// Sent, to be sent again.
    again: Vec<u64>,
    under_way: u64,
    closed: bool,
    summary: Summary,
}

/// The sums.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    /// Calls that were acknowledged, those that came twice counted twice.
    pub(crate) acknowledged: u64,
    /// Batches that were acknowledged.
    pub(crate) batches: u64,
    /// Attempts without an answer.
    pub(crate) unknown: u64,
    /// Attempts that were told to come again, by status.
    pub(crate) deferred: BTreeMap<u16, u64>,
    /// Answers that no client that tries again gets past.
    pub(crate) wrong: Vec<String>,
    /// The highest offset that was acknowledged.
    pub(crate) offset: u64,
    /// The longest wait for an answer.
    pub(crate) slowest: Duration,
}

/// Shared by all clients.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) traffic: Traffic,
    pages: Mutex<Pages>,
}

impl Ledger {
    pub(crate) fn new(traffic: Traffic) -> Self {
        Self { traffic, pages: Mutex::default() }
    }

    /// The next batch to send; none when all is acknowledged and nothing new is to be sent.
    pub(crate) fn take(&self) -> Option<u64> {
        let mut pages = self.pages.lock().unwrap();
        let batch = pages.again.pop().or_else(|| {
            let next = (!pages.closed).then_some(pages.next)?;
            pages.next += 1;
            Some(next)
        })?;
        pages.under_way += 1;
        Some(batch)
    }

    /// Writes down what became of a batch with so many calls.
    pub(crate) fn note(&self, batch: u64, calls: u64, outcome: &Outcome, took: Duration) {
        let mut guard = self.pages.lock().unwrap();
        let pages = &mut *guard;
        pages.under_way -= 1;
        let summary = &mut pages.summary;
        summary.slowest = summary.slowest.max(took);
        match outcome {
            Outcome::Acknowledged(offset) => {
                summary.acknowledged += calls;
                summary.batches += 1;
                summary.offset = summary.offset.max(*offset);
                return;
            }
            Outcome::Deferred(status, has_time) => {
                *summary.deferred.entry(*status).or_default() += 1;
                if !has_time {
                    summary.wrong.push(format!("batch {batch}: {status} without Retry-After"));
                }
            }
            Outcome::Refused(status, text) => summary.wrong.push(format!("batch {batch}: {status} {text}")),
            Outcome::Unknown => summary.unknown += 1,
        }
        pages.again.push(batch);
    }

    /// Gives back a batch that was not sent after all.
    pub(crate) fn give_back(&self, batch: u64) {
        let mut pages = self.pages.lock().unwrap();
        pages.under_way -= 1;
        pages.again.push(batch);
    }

    /// Nothing new is sent from now on.
    pub(crate) fn close(&self) {
        self.pages.lock().unwrap().closed = true;
    }

    /// Whether nothing new is sent.
    pub(crate) fn is_closed(&self) -> bool {
        self.pages.lock().unwrap().closed
    }

    /// Whether everything that was ever sent is acknowledged.
    pub(crate) fn is_settled(&self) -> bool {
        let pages = self.pages.lock().unwrap();
        pages.again.is_empty() && pages.under_way == 0
    }

    /// Batches that were begun, from 0.
    pub(crate) fn batches(&self) -> u64 {
        self.pages.lock().unwrap().next
    }

    pub(crate) fn summary(&self) -> Summary {
        self.pages.lock().unwrap().summary.clone()
    }
}
