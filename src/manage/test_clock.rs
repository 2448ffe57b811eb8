//! The clock of `serve --test-clock`: it stands still, and moving it means waiting until everything that is due by
//! then has been done.

use std::time::Duration;

use tokio::time::Instant;

use super::{Manage, ManageError, Result};
use crate::domain::{Offset, SpaceNo, Timestamp};
use crate::progress::{Board, Progress};
use crate::store::registry::Space;
use crate::store::{log, registry};

/// Longest wait for the processors, once per move and phase.
const SETTLE_LIMIT: Duration = Duration::from_mins(5);
/// A space nobody in this process has taken up by then is another process's.
const TAKE_UP_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

impl Manage {
    /// Moves the clock forward to `to`. Everything received before is processed at the old time first; after that,
    /// everything due by `to` is done when this returns.
    pub async fn move_test_clock(&self, to: Timestamp, board: &Board) -> Result<Timestamp> {
        let now = self.clock.now();
        if to < now {
            let message = format!("the clock stands at {now} and moves forward only");
            return Err(ManageError::invalid("now", message));
        }
        self.settle(board, |progress, end| progress.processed >= end).await?;
        registry::set_test_clock(&self.pool, to).await?;
        for space in self.list_spaces(None) {
            log::ensure_partitions(&self.pool, space.no, to).await?;
        }
        let now = self.clock.advance_to(to);
        self.settle(board, |progress, end| progress.processed >= end && progress.settled_at >= to).await?;
        // Else it is done by the hour of real time.
        self.enforce_retention().await;
        Ok(now)
    }

    /// Waits until every space this process works on is where `is_there` wants it, given the end of its log now.
    async fn settle(&self, board: &Board, is_there: impl Fn(&Progress, Offset) -> bool) -> Result<()> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        let now = self.clock.now();
        // Nobody processes what is only collected.
        let processed = |space: &Space| space.plan.has_profiles(now);
        for space in self.list_spaces(None).into_iter().filter(processed) {
            let end = log::tail(&self.door(space.no), space.no).await?;
            let waited = tokio::time::timeout_at(deadline, wait(board, space.no, |p| is_there(p, end))).await;
            waited.map_err(|_| {
                ManageError::NotSettled(format!(
                    "space {} is not done with what is due; try again",
                    space.key
                ))
            })?;
        }
        Ok(())
    }
}

async fn wait(board: &Board, space: SpaceNo, is_there: impl Fn(&Progress) -> bool) {
    let taken_up = Instant::now() + TAKE_UP_LIMIT;
    loop {
        if let Some(mut progress) = board.follow(space) {
            if progress.wait_for(&is_there).await.is_ok() {
                return;
            }
            // The lease was given up: look who has it next.
        } else if Instant::now() > taken_up {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}
