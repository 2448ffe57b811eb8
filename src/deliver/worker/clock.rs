//! Clocks that go back: nothing waits for what one said that was ahead.

use super::Worker;
use crate::deliver::ledger::Lease;
use crate::deliver::schedule::holds_until;
use crate::domain::Timestamp;
use crate::store::Result;
use crate::store::deliveries::book;

impl Worker {
    pub(super) fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    /// The clock may have gone back since the last time, or that of who had the lease before may have been ahead.
    pub(super) async fn follow_clock(&mut self) -> Result<()> {
        let now = self.now();
        self.breaker.correct(now);
        if let Some(furthest) = holds_until(self.newest.replace(now), now) {
            let Lease { space, destination, .. } = self.lease;
            let mut tx = self.pool.begin().await?;
            book::correct(&mut tx, space, destination, (now, furthest)).await?;
            tx.commit().await?;
            self.next_hold = Some(Timestamp::EPOCH);
        }
        Ok(())
    }
}
