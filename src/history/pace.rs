//! How much of the time a scan works beside what must not wait for it: all of it while there is nothing else to do, a part
//! of it while events wait to be processed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// While others are busy, a piece of work is followed by a rest of so many times its length.
pub const REST: u32 = 14;

/// Shared by a scan and whoever knows whether others are busy.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<AtomicBool>);

impl Pace {
    /// Says whether others are busy.
    pub fn set_busy(&self, is_busy: bool) {
        self.0.store(is_busy, Ordering::Relaxed);
    }

    /// Rests after a piece of work.
    pub(super) async fn rest(&self, took: Duration) {
        if self.0.load(Ordering::Relaxed) {
            tokio::time::sleep(took * REST).await;
        }
    }
}
