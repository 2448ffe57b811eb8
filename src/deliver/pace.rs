//! Giving way: while events of a space wait to be processed, its workers rest after they have worked, all of them together.
//!
//! What they owe is counted in one place, so a hundred destinations take no more of the machine than one does. A rest keeps
//! workers from taking more rows only: what is in memory is sent, answers are written down, and no rest is long.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Events that wait to be processed, from which on workers give way.
pub(super) const BUSY_EVENTS: i64 = 5_000;
/// A piece of work is followed by a rest of so many times its length: workers have a fifth of a core.
const REST: u32 = 4;
/// The longest rest: whatever was worked before, deliveries go on after it.
const LONGEST: Duration = Duration::from_secs(2);

/// Shared by the workers of a space.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace(Arc<Mutex<Standing>>);

#[derive(Debug, Default)]
struct Standing {
    is_busy: bool,
    rests_until: Option<Instant>,
}

impl Pace {
    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how many events wait to be processed.
    pub(super) fn set_waiting(&self, events: i64) {
        let mut standing = self.standing();
        standing.is_busy = events > BUSY_EVENTS;
        if !standing.is_busy {
            standing.rests_until = None;
        }
    }

    /// Whether workers give way at all.
    pub(super) fn is_busy(&self) -> bool {
        self.standing().is_busy
    }

    /// Somebody has worked for so long.
    pub(super) fn worked(&self, took: Duration, now: Instant) {
        let mut standing = self.standing();
        if standing.is_busy {
            let from = standing.rests_until.map_or(now, |until| until.max(now));
            standing.rests_until = Some((from + took * REST).min(now + LONGEST));
        }
    }

    /// Ends as a future does; the time it takes for itself, and not for waiting, is work.
    pub(super) async fn timed<F: Future>(&self, future: F) -> F::Output {
        let (mut future, mut took) = (pin!(future), Duration::ZERO);
        let ended = poll_fn(|context| {
            let began = Instant::now();
            let polled = future.as_mut().poll(context);
            took += began.elapsed();
            polled
        });
        let ended = ended.await;
        self.worked(took, Instant::now());
        ended
    }

    /// Until when nobody takes more rows; none when they may be taken now.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.standing().rests_until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nobody_rests_while_little_waits() {
        let (pace, now) = (Pace::default(), Instant::now());
        pace.set_waiting(BUSY_EVENTS);
        pace.worked(100 * MS, now);
        assert_eq!((pace.is_busy(), pace.rests_until(now)), (false, None));
    }

    #[test]
    fn all_workers_of_a_space_share_a_fifth_and_no_rest_is_long() {
        let (pace, now) = (Pace::default(), Instant::now());
        let other = pace.clone();
        pace.set_waiting(BUSY_EVENTS + 1);
        pace.worked(10 * MS, now);
        other.worked(5 * MS, now);
        assert_eq!(other.rests_until(now), Some(now + 60 * MS));
        assert_eq!(pace.rests_until(now + 60 * MS), None);
        pace.worked(MS, now + 100 * MS);
        assert_eq!(pace.rests_until(now + 100 * MS), Some(now + 104 * MS));
        pace.worked(Duration::from_hours(1), now);
        assert_eq!(pace.rests_until(now), Some(now + LONGEST));
    }

    #[test]
    fn a_rest_ends_with_its_reason() {
        let (pace, now) = (Pace::default(), Instant::now());
        pace.set_waiting(BUSY_EVENTS + 1);
        pace.worked(100 * MS, now);
        pace.set_waiting(0);
        assert_eq!(pace.rests_until(now), None);
    }
}
