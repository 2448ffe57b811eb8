//! Clocks that go back: nothing waits for what one said that was ahead.

use super::Worker;
use crate::deliver::ledger::Lease;
use crate::deliver::schedule::{Breaker, furthest, has_gone_back};
use crate::domain::Timestamp;
use crate::store::Result;
use crate::store::deliveries::book;

impl Worker {
    pub(super) fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    /// The clock may have gone back since the last turn: then nothing is held any more. That of who had the lease before may have
    /// been ahead: then nothing is held of what has failed later than now, or is held longer than anything is.
    pub(super) async fn follow_clock(&mut self) -> Result<()> {
        let now = self.now();
        let until = match self.newest.replace(now) {
            None => furthest(now),
            Some(newest) if has_gone_back(newest, now) => now,
            Some(_) => return Ok(()),
        };
        if self.ledger.is_dirty() {
            // What is held since then is among it.
            self.write().await?;
        }
        let Lease { space, destination, .. } = self.lease;
        let mut tx = self.pool.begin().await?;
        book::correct(&mut tx, space, destination, (now, until)).await?;
        tx.commit().await?;
        self.breaker = Breaker::default();
        self.next_hold = Some(Timestamp::EPOCH);
        Ok(())
    }
}
