//! How far each space's processor in this process has come, for those who wait: reads with `min_offset`, the test
//! clock. A space that another process works on is not here; ask the database.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::domain::{Offset, SpaceNo, Timestamp};

/// Where a processor stands. Published after the commit, so whoever sees it can read the effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Everything up to here is done.
    pub processed: Offset,
    /// Everything that was due by then is done, and the log was empty behind `processed` when it was looked at.
    pub settled_at: Timestamp,
}

/// The notes of all processors of this process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<RwLock<HashMap<SpaceNo, watch::Sender<Progress>>>>);

impl Board {
    /// Notes how far a space has come.
    pub fn publish(&self, space: SpaceNo, progress: Progress) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&space).cloned();
        let sender = known.unwrap_or_else(|| {
            let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
            all.entry(space).or_insert_with(|| watch::Sender::new(Progress::default())).clone()
        });
        sender.send_if_modified(|old| std::mem::replace(old, progress) != progress);
    }

    /// Forgets a space whose lease was given up; those who wait on it are woken.
    pub fn forget(&self, space: SpaceNo) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&space);
    }

    /// Follows a space this process works on.
    pub fn follow(&self, space: SpaceNo) -> Option<watch::Receiver<Progress>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).get(&space)?.subscribe())
    }
}
