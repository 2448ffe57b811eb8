//! Batches that wait for more. A destination that takes many changes at a time gets a full batch at once, and one that is
//! not full when its oldest change happened `linger_seconds` ago: that instant is in the queue, so neither a pause nor a
//! restart moves it.

use super::Worker;
use crate::deliver::schedule::has_gone_back;
use crate::domain::Timestamp;
use crate::store::Result;

impl Worker {
    /// Changes of a full batch: never more than the rate lets go at once.
    fn full(&self) -> usize {
        let batch_max = self.kind.as_ref().map_or(1, |kind| kind.batch_max().max(1));
        let burst = self.limits.rate_per_second.and_then(|rate| usize::try_from(rate).ok());
        burst.map_or(batch_max, |burst| batch_max.min(burst.max(1)))
    }

    /// Changes that could be sent now.
    fn sendable(&self) -> usize {
        self.ahead.len() + self.window.ready()
    }

    /// Until when the next batch waits for more; none: it does not.
    pub(super) fn lingers_until(&self) -> Option<Timestamp> {
        let linger_ms = i64::from(self.limits.linger_seconds) * 1_000;
        if linger_ms == 0 || self.sendable() >= self.full() {
            return None;
        }
        let built = self.ahead.iter().map(|ready| ready.taken.row.at);
        let oldest = built.chain(self.window.ready_since()).min()?;
        // What is of later was written by a clock that was ahead.
        let now = self.now();
        let is_sane = !has_gone_back(oldest, now);
        Some(oldest.plus_millis(linger_ms)).filter(|until| is_sane && *until > now)
    }

    /// Brings rows into memory, for a destination whose batches wait as many as fill one: what is old, such as that of a
    /// full sync, would be sent as it comes otherwise.
    pub(super) async fn fill_up(&mut self) -> Result<()> {
        loop {
            let before = (self.cursor, self.window.len(), self.is_syncing);
            self.fill().await?;
            let is_enough = self.limits.linger_seconds == 0 || self.sendable() >= self.full();
            if is_enough || before == (self.cursor, self.window.len(), self.is_syncing) {
                return Ok(());
            }
        }
    }
}
