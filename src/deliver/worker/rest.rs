//! When a worker has nothing to do: until what it waits, and what wakes it.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::domain::Timestamp;
use crate::store::{Result, StoreError};

impl Worker {
    /// Waits until something happens or is due.
    pub(super) async fn rest(&mut self, shutdown: &CancellationToken) -> Result<()> {
        let now = Instant::now();
        let mut until = now + self.lease.length / 4;
        until = self.ledger.due(self.pace.is_busy()).map_or(until, |due| due.min(until));
        let has_work = self.window.ready() > 0 || !self.ahead.is_empty() || self.window.wants_rows();
        if self.may_send() {
            if has_work && let Some(wait) = self.rate.wait() {
                until = until.min(now + wait);
            }
            let clock = self.now();
            let waits = [self.next_hold, self.breaker.until(), self.lingers_until()];
            let waits = waits.into_iter().flatten().filter(|at| *at > clock);
            if !self.context.clock.is_test()
                && let Some(at) = waits.min()
            {
                until = until.min(now + Duration::from_millis((at.millis() - clock.millis()).unsigned_abs()));
            }
            let rests_until = self.pace.rests_until(now);
            until = rests_until.map_or(until, |at| at.min(until));
            if self.is_busy(clock, rests_until.is_some()) {
                return Ok(());
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            Some(landed) = self.requests.join_next() => self.land(landed),
            changed = self.glances.changed() => changed.map_err(|_| StoreError::Fenced),
            () = tokio::time::sleep_until(until) => Ok(()),
        }
    }

    /// Whether there is something to be done at once.
    fn is_busy(&self, now: Timestamp, rests: bool) -> bool {
        let concurrency = usize::try_from(self.limits.concurrency).unwrap_or(1).max(1);
        let is_free =
            self.requests.len() < self.breaker.allowed(concurrency, now) && self.rate.wait().is_none();
        let has_room = self.window.len() < self.context.config.window_max / 2;
        let has_news = self.end() > self.cursor || self.is_syncing || self.window.wants_rows();
        let is_sendable = self.kind.is_some() && (self.window.ready() > 0 || !self.ahead.is_empty());
        (is_free && is_sendable && self.lingers_until().is_none())
            || (!rests && has_room && has_news && self.window.len() == 0)
    }
}
