//! The time of a batch: a kind that needs more than one request for it stops while it still can say what became of those it
//! has made, and leaves the rest for another time.
//!
//! Whoever takes the answers waits a little longer than that ([`Budget::limit`]): when a kind were cut off, what it has
//! delivered would be sent again with the rest.

use std::time::Duration;

use tokio::time::Instant;

use super::kind::{Reason, Verdict};

/// Requests that a batch may take the time of.
const REQUESTS_MAX: usize = 4;
/// What a kind may need beyond its own time-outs; the last request of a batch begins within half of it.
const GRACE: Duration = Duration::from_secs(2);

/// The time of a batch, from when it began.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    began: Instant,
    one: Duration,
    whole: Duration,
}

impl Budget {
    /// Begins the time of so many changes, of which a request may take so long.
    pub fn begin(one: Duration, changes: usize) -> Self {
        Self { began: Instant::now(), one, whole: whole(one, changes) }
    }

    /// How long a batch takes at most, whatever the receiver does.
    pub fn limit(one: Duration, changes: usize) -> Duration {
        whole(one, changes) + GRACE
    }

    /// Whether one more request can take its whole time.
    pub fn allows_another(&self) -> bool {
        self.began.elapsed() + self.one <= self.whole + GRACE / 2
    }

    /// What is said of changes that no request was begun for.
    pub fn left_over() -> Verdict {
        let message = "the other requests of its batch took all the time: it was not sent yet".to_owned();
        Verdict::Retry { reason: Reason { code: "ETIMEDOUT".to_owned(), message }, after: None }
    }
}

fn whole(one: Duration, changes: usize) -> Duration {
    // A batch may be more than one request.
    one.saturating_mul(changes.clamp(1, REQUESTS_MAX) as u32)
}
