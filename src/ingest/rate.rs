//! How much a source may do a second: token buckets, one per source and process.
//!
//! A bucket is pure: the time is handed in. It is full at first, gains its rate every second up to its burst, and says
//! of a request that it refuses when the same request will be let through if nothing else is in between.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::Sender;
use crate::domain::{SourceNo, SpaceNo, Timestamp};

/// One of what is counted, in the unit of a bucket's level: what a rate of one a second gains in a millisecond is 1.
const ONE: i64 = 1_000;

/// What a bucket gains and holds. Both may change between two uses of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    /// Gained each second; at least 1.
    pub per_second: u32,
    /// Held at most; at least 1.
    pub burst: u32,
}

impl Limit {
    fn full(self) -> i64 {
        i64::from(self.burst) * ONE
    }
}

/// What is left of a limit.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In thousandths. Below zero after something larger than the burst: a debt that is paid off first.
    level: i64,
    /// The time of `level`.
    at: Timestamp,
}

impl Bucket {
    fn full(limit: Limit, now: Timestamp) -> Self {
        Self { level: limit.full(), at: now }
    }

    fn refill(&mut self, limit: Limit, now: Timestamp) {
        // A clock that was set back gains nothing, and counts from where it is now.
        let elapsed = (now.millis() - self.at.millis()).max(0);
        let gained = elapsed.saturating_mul(i64::from(limit.per_second));
        self.level = self.level.saturating_add(gained).min(limit.full());
        self.at = now;
    }

    /// Takes all of `count` or nothing. What is larger than the burst is let through when the bucket is full, or it
    /// would be refused for ever. Otherwise the error is the whole seconds to wait, at least 1.
    fn take(&mut self, limit: Limit, count: usize, now: Timestamp) -> Result<(), u64> {
        self.refill(limit, now);
        let cost = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(ONE);
        let missing = cost.min(limit.full()) - self.level;
        if missing > 0 {
            let gained_per_second = i64::from(limit.per_second) * ONE;
            return Err((missing as u64).div_ceil(gained_per_second as u64));
        }
        self.level = self.level.saturating_sub(cost);
        Ok(())
    }

    /// Takes as much of `count` as is there, and says how much.
    fn take_some(&mut self, limit: Limit, count: usize, now: Timestamp) -> usize {
        self.refill(limit, now);
        let there = (self.level.max(0) / ONE) as usize;
        let taken = count.min(there);
        self.level -= taken as i64 * ONE;
        taken
    }
}

/// The buckets of all sources that have sent something.
#[derive(Debug, Default)]
pub(super) struct Buckets(Mutex<HashMap<(SpaceNo, SourceNo), Bucket>>);

impl Buckets {
    /// Takes all of `count` for the sender or nothing; an error is the seconds to wait.
    pub(super) fn take(&self, of: Sender, limit: Limit, count: usize, now: Timestamp) -> Result<(), u64> {
        self.with(of, limit, now, |bucket| bucket.take(limit, count, now))
    }

    /// Takes as much of `count` for the sender as is there.
    pub(super) fn take_some(&self, of: Sender, limit: Limit, count: usize, now: Timestamp) -> usize {
        self.with(of, limit, now, |bucket| bucket.take_some(limit, count, now))
    }

    fn with<T>(&self, of: Sender, limit: Limit, now: Timestamp, use_it: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        use_it(buckets.entry((of.space, of.source)).or_insert_with(|| Bucket::full(limit, now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEN: Limit = Limit { per_second: 10, burst: 10 };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_second_holds_its_rate_and_no_more() {
        let mut bucket = Bucket::full(TEN, at(0));
        for _ in 0..10 {
            assert_eq!(bucket.take(TEN, 1, at(0)), Ok(()));
        }
        assert_eq!(bucket.take(TEN, 1, at(0)), Err(1));
        assert_eq!(bucket.take(TEN, 1, at(99)), Err(1));
        assert_eq!(bucket.take(TEN, 1, at(100)), Ok(()));
        assert_eq!(bucket.take(TEN, 10, at(1_099)), Err(1));
        assert_eq!(bucket.take(TEN, 10, at(1_100)), Ok(()));
        assert_eq!(bucket.take(TEN, 11, at(3_600_000)), Ok(()), "a pause is not saved up beyond the burst");
        assert_eq!(bucket.take(TEN, 1, at(3_600_000)), Err(1));
    }

    #[test]
    fn what_is_larger_than_the_burst_waits_for_a_full_bucket_and_is_paid_off() {
        let mut bucket = Bucket::full(TEN, at(0));
        assert_eq!(bucket.take(TEN, 1, at(0)), Ok(()));
        assert_eq!(bucket.take(TEN, 100, at(0)), Err(1));
        assert_eq!(bucket.take(TEN, 100, at(100)), Ok(()));
        assert_eq!(bucket.take(TEN, 1, at(100)), Err(10), "nine seconds of debt and the event");
        assert_eq!(bucket.take(TEN, 1, at(9_199)), Err(1));
        assert_eq!(bucket.take(TEN, 1, at(9_200)), Ok(()));
        assert_eq!(bucket.take(TEN, usize::MAX, at(i64::MAX)), Ok(()), "no overflow");
        assert!(bucket.take(TEN, 1, at(i64::MAX)).is_err());
    }

    #[test]
    fn a_part_is_taken_where_a_part_will_do() {
        let limit = Limit { per_second: 1, burst: 5 };
        let mut bucket = Bucket::full(limit, at(0));
        assert_eq!(bucket.take_some(limit, 3, at(0)), 3);
        assert_eq!(bucket.take_some(limit, 3, at(0)), 2);
        assert_eq!(bucket.take_some(limit, 3, at(999)), 0);
        assert_eq!(bucket.take_some(limit, 3, at(1_999)), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_and_a_new_limit_do_no_harm() {
        let mut bucket = Bucket::full(TEN, at(1_000_000));
        assert_eq!(bucket.take(TEN, 10, at(1_000_000)), Ok(()));
        assert_eq!(bucket.take(TEN, 1, at(0)), Err(1));
        assert_eq!(bucket.take(TEN, 1, at(100)), Ok(()), "it counts on from there");
        let hundred = Limit { per_second: 100, burst: 100 };
        assert_eq!(bucket.take(hundred, 100, at(1_100)), Ok(()));
        let one = Limit { per_second: 1, burst: 1 };
        assert_eq!(bucket.take(TEN, 0, at(2_100)), Ok(()));
        assert_eq!(bucket.take(one, 1, at(2_100)), Ok(()));
        assert_eq!(bucket.take(one, 1, at(2_100)), Err(1), "nothing is left of the larger burst");
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_one_request(
            rate in 1_u32..50,
            requests in proptest::collection::vec((0_i64..500, 1_usize..120), 1..60),
        ) {
            let limit = Limit { per_second: rate, burst: rate };
            let mut bucket = Bucket::full(limit, at(0));
            let (mut now, mut taken, mut largest) = (0, 0, 0);
            for (pause, count) in requests {
                now += pause;
                match bucket.take(limit, count, at(now)) {
                    Ok(()) => (taken, largest) = (taken + count as i64, largest.max(count as i64)),
                    Err(wait) => {
                        let mut later = bucket;
                        prop_assert_eq!(later.take(limit, count, at(now + wait as i64 * 1_000)), Ok(()));
                    }
                }
            }
            prop_assert!(taken * 1_000 <= (i64::from(rate) + largest) * 1_000 + now * i64::from(rate));
        }
    }
}
