//! When what did not arrive is tried again: growing pauses with jitter, for days; a breaker that spares a destination that is
//! down; and a rate that is never exceeded.
//!
//! Instants are the [`Clock`](crate::clock::Clock)'s, rates run by the machine's own.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::Timestamp;

/// Pause after the first failure.
const FIRST_PAUSE_MS: i64 = 5_000;
/// Longest pause: a destination that is well again has everything within this.
const LONGEST_PAUSE_MS: i64 = 8 * 3_600_000;
/// Bounds of what a receiver may ask for.
const RETRY_AFTER_MIN_MS: i64 = 1_000;
/// See [`RETRY_AFTER_MIN_MS`].
const RETRY_AFTER_MAX_MS: i64 = 3_600_000;
/// Shares of a pause, in thousandths, that are left to chance.
const JITTER_PER_MILLE: i64 = 400;

/// The clock has gone back when it does so by more than this; less is what machines correct all the time, and can be waited for.
const CLOCK_STEP_MS: i64 = 10_000;

/// Whether a clock that was at `newest` has gone back, now that it is `now`.
pub(super) fn has_gone_back(newest: Timestamp, now: Timestamp) -> bool {
    newest.millis() - now.millis() > CLOCK_STEP_MS
}

/// Longer than anything is held for, by a clock that does not go back.
pub(super) fn furthest(now: Timestamp) -> Timestamp {
    now.plus_millis(LONGEST_PAUSE_MS * 6 / 5)
}

/// Where a random number comes from: 0 to 999.
fn jittered(pause_ms: i64, random: u16) -> i64 {
    let share = i64::from(random % 1_000) * JITTER_PER_MILLE / 1_000;
    pause_ms - pause_ms * JITTER_PER_MILLE / 2_000 + pause_ms * share / 1_000
}

/// What a receiver asks for, within bounds.
pub(super) fn clamp_retry_after(asked: Duration) -> i64 {
    i64::try_from(asked.as_millis()).unwrap_or(i64::MAX).clamp(RETRY_AFTER_MIN_MS, RETRY_AFTER_MAX_MS)
}

/// The pause after so many failures, in milliseconds: 5 s, doubled each time up to 8 h, give or take a fifth; and no less
/// than the receiver asks for.
pub(super) fn pause_ms(failures: i32, asked: Option<Duration>, random: u16) -> i64 {
    let doubled = failures.saturating_sub(1).clamp(0, 30);
    let pause = (FIRST_PAUSE_MS << doubled).min(LONGEST_PAUSE_MS);
    jittered(pause, random).max(asked.map_or(0, clamp_retry_after))
}

/// Failures in a row after which a destination is taken for down.
const BREAKS_AFTER: u32 = 10;
/// Pause before it is tried again for the first time.
const PROBE_FIRST_MS: i64 = 1_000;
/// Longest pause between two such tries, but for the fifth that chance may add.
const PROBE_LONGEST_MS: i64 = 300_000;

/// Spares a destination that fails whatever is sent: then one request at a time tries whether it is well again.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    opened: i32,
    /// Nothing is sent before.
    until: Option<Timestamp>,
    /// The same, as the receiver asks: whatever else it answers.
    asked: Option<Timestamp>,
}

impl Breaker {
    /// Requests that may be under way now, where the destination takes `concurrency`.
    pub(super) fn allowed(&self, concurrency: usize, now: Timestamp) -> usize {
        match self.until() {
            Some(until) if now < until => 0,
            _ if self.failures >= BREAKS_AFTER => 1,
            _ => concurrency,
        }
    }

    /// When that may change by the passage of time.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.until.max(self.asked)
    }

    /// It answers: as far as this is concerned a refusal is one, too.
    pub(super) const fn answered(&mut self) {
        (self.failures, self.opened, self.until) = (0, 0, None);
    }

    /// It does not.
    pub(super) fn failed(&mut self, now: Timestamp, random: u16) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= BREAKS_AFTER && self.until.is_none_or(|until| now >= until) {
            let pause = (PROBE_FIRST_MS << self.opened.clamp(0, 20)).min(PROBE_LONGEST_MS);
            self.opened = self.opened.saturating_add(1);
            self.until = Some(now.plus_millis(jittered(pause, random)));
        }
    }

    /// It asks to be left alone for a while.
    pub(super) fn wait_until(&mut self, at: Timestamp) {
        self.asked = self.asked.max(Some(at));
    }
}

/// At most so many changes in a second, and no more than those of a second at once.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: Option<f64>,
    tokens: f64,
    filled: Instant,
}

impl Rate {
    pub(super) fn new(per_second: Option<i32>, now: Instant) -> Self {
        let per_second = per_second.map(f64::from);
        Self { per_second, tokens: per_second.unwrap_or_default().max(1.0), filled: now }
    }

    /// How many may be sent now.
    pub(super) fn available(&mut self, now: Instant) -> usize {
        let Some(per_second) = self.per_second else { return usize::MAX };
        let earned = now.duration_since(self.filled).as_secs_f64() * per_second;
        self.tokens = (self.tokens + earned).min(per_second.max(1.0));
        self.filled = now;
        self.tokens as usize
    }

    /// They are sent.
    pub(super) fn take(&mut self, count: usize) {
        if self.per_second.is_some() {
            self.tokens -= count as f64;
        }
    }

    /// How long until the next one may be sent.
    pub(super) fn wait(&self) -> Option<Duration> {
        let per_second = self.per_second?;
        (self.tokens < 1.0).then(|| Duration::from_secs_f64((1.0 - self.tokens) / per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn pauses_grow_and_72_hours_are_some_twenty_attempts() {
        let at = |failures| pause_ms(failures, None, 500);
        assert_eq!([at(1), at(2), at(3)], [5_000, 10_000, 20_000]);
        assert_eq!(at(40), 8 * HOUR);
        let (mut passed, mut attempts) = (0, 0);
        while passed < 72 * HOUR {
            attempts += 1;
            passed += at(attempts);
        }
        assert!((15..30).contains(&attempts), "{attempts}");
    }

    #[test]
    fn chance_moves_a_pause_by_a_fifth_at_most() {
        for random in 0..1_000 {
            let pause = pause_ms(4, None, random);
            assert!((32_000..=48_000).contains(&pause), "{pause}");
        }
        assert!(pause_ms(4, None, 0) < pause_ms(4, None, 999));
    }

    #[test]
    fn retry_after_is_honoured_within_bounds() {
        assert_eq!(pause_ms(1, Some(Duration::from_mins(1)), 0), 60_000);
        assert_eq!(pause_ms(1, Some(Duration::from_hours(24)), 0), HOUR);
        assert!(pause_ms(1, Some(Duration::ZERO), 0) >= 4_000);
        assert_eq!(clamp_retry_after(Duration::from_millis(1)), 1_000);
    }

    #[test]
    fn a_destination_that_is_down_is_probed_by_single_requests() {
        let mut breaker = Breaker::default();
        let mut now = Timestamp::from_millis(0);
        for _ in 0..9 {
            breaker.failed(now, 500);
        }
        assert_eq!(breaker.allowed(8, now), 8);
        breaker.failed(now, 500);
        assert_eq!(breaker.allowed(8, now), 0);
        for pause in [1_000, 2_000, 4_000] {
            now = now.plus_millis(pause - 1);
            assert_eq!(breaker.allowed(8, now), 0, "{pause}");
            now = now.plus_millis(1);
            assert_eq!(breaker.allowed(8, now), 1, "{pause}");
            breaker.failed(now, 500);
        }
        breaker.answered();
        assert_eq!(breaker.allowed(8, now), 8);
        breaker.wait_until(now.plus_millis(10));
        assert_eq!((breaker.allowed(8, now), breaker.allowed(8, now.plus_millis(10))), (0, 8));
        // What was under way when it asked for that is no reason to go on.
        breaker.answered();
        assert_eq!((breaker.allowed(8, now), breaker.until()), (0, Some(now.plus_millis(10))));
    }

    #[test]
    fn nothing_is_held_for_longer_than_anything_is() {
        let now = Timestamp::from_millis(HOUR);
        for failures in 1..40 {
            let asked = Some(Duration::from_hours(24));
            assert!(now.plus_millis(pause_ms(failures, asked, 999)) <= furthest(now), "{failures}");
        }
        assert!(has_gone_back(now, now.plus_millis(-CLOCK_STEP_MS - 1)));
        assert!(!has_gone_back(now, now.plus_millis(-CLOCK_STEP_MS)));
        assert!(!has_gone_back(now, now.plus_millis(HOUR)));
    }

    #[tokio::test]
    async fn a_rate_is_not_exceeded() {
        let start = Instant::now();
        let mut rate = Rate::new(Some(10), start);
        assert_eq!(rate.available(start), 10);
        rate.take(10);
        assert_eq!(rate.available(start), 0);
        assert!(rate.wait().is_some_and(|wait| wait <= Duration::from_millis(100)));
        assert_eq!(rate.available(start + Duration::from_millis(250)), 2);
        assert_eq!(rate.available(start + Duration::from_mins(1)), 10);
        assert_eq!(Rate::new(None, start).available(start), usize::MAX);
    }
}
