//! A queue whose rows were given to other profiles, because a merge was taken back: what is in memory of it is forgotten, and
//! it is read anew when nothing is under way.

use super::{State, Worker};
use crate::domain::Timestamp;
use crate::store::Result;

impl Worker {
    /// Whether anything is sent now.
    pub(super) fn may_send(&self) -> bool {
        self.state == State::Connected && !self.is_gone && !self.is_shuffled
    }

    /// Reads the queue from its beginning, where that is to be done and all answers are there.
    pub(super) async fn read_anew(&mut self) -> Result<()> {
        if !self.is_shuffled || !self.requests.is_empty() {
            return Ok(());
        }
        self.unbuild();
        self.write().await?;
        self.window.clear();
        self.cursor = 0;
        self.next_hold = Some(Timestamp::EPOCH);
        self.is_shuffled = false;
        Ok(())
    }
}
