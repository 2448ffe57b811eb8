//! The only place that reads the time or draws ids and secrets. Everything else is handed a [`Clock`] or an
//! [`IdMaker`], so a test can fix both.
//!
//! Leases between processes are the one exception: they live by the database's clock.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::Uuid;

use crate::domain::Timestamp;

/// Tells the time. Clones tell the same time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// Stands still until it is moved: `--test-clock`.
    Test(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `at`.
    pub fn test(at: Timestamp) -> Self {
        Self::Test(Arc::new(AtomicI64::new(at.millis())))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        match self {
            #[expect(
                clippy::disallowed_methods,
                reason = "this is where the time is read for everybody else"
            )]
            Self::System => chrono::Utc::now().into(),
            Self::Test(millis) => Timestamp::from_millis(millis.load(Ordering::SeqCst)),
        }
    }

    /// Whether it stands still.
    pub fn is_test(&self) -> bool {
        matches!(self, Self::Test(_))
    }

    /// Moves a test clock forward to `to`; it never goes back. Returns the time after that.
    pub fn advance_to(&self, to: Timestamp) -> Timestamp {
        if let Self::Test(millis) = self {
            millis.fetch_max(to.millis(), Ordering::SeqCst);
        }
        self.now()
    }
}

/// Draws ids (UUIDv7, so that they sort by time) and secrets. Clones draw from the same source.
#[derive(Debug, Clone)]
pub struct IdMaker {
    clock: Clock,
    /// Ids of one millisecond sort in the order they were drawn.
    drawn: Arc<AtomicU64>,
    /// `None`: the operating system seeds it.
    seeded: Option<Arc<Mutex<StdRng>>>,
}

impl IdMaker {
    /// Ids nobody can guess.
    pub fn new(clock: Clock) -> Self {
        // Starting where the machine's time is keeps the order over restarts, also under a clock that stands still.
        let started = Clock::System.now().millis().unsigned_abs();
        Self { clock, drawn: Arc::new(AtomicU64::new(started)), seeded: None }
    }

    /// The same ids in every run with the same seed and clock: for tests only.
    pub fn seeded(clock: Clock, seed: u64) -> Self {
        Self { clock, drawn: Arc::default(), seeded: Some(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))) }
    }

    /// A UUIDv7 of this moment.
    pub fn uuid(&self) -> Uuid {
        let millis = self.clock.now().millis().max(0).unsigned_abs();
        let mut bytes: [u8; 10] = self.bytes();
        // The 34 bits before the random ones: 4, 8, 6 (the other two are the variant), 8 and 8.
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
        let order = [drawn >> 30, drawn >> 22, drawn >> 16, drawn >> 8, drawn];
        for (byte, order) in bytes.iter_mut().zip(order) {
            *byte = order as u8;
        }
        uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
    }

    /// Random bytes, for keys and tokens.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &self.seeded {
            Some(rng) => rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes),
            None => rand::rng().fill_bytes(&mut bytes),
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_clock_stands_still_and_never_goes_back() {
        let clock = Clock::test(Timestamp::from_millis(1_000));
        let other = clock.clone();
        assert_eq!(clock.now().millis(), 1_000);
        assert_eq!(clock.advance_to(Timestamp::from_millis(2_000)).millis(), 2_000);
        assert_eq!(other.advance_to(Timestamp::from_millis(500)).millis(), 2_000);
        assert!(!Clock::System.is_test() && Clock::System.now().millis() > 1_700_000_000_000);
    }

    #[test]
    fn ids_of_one_millisecond_sort_as_they_were_drawn() {
        let ids = IdMaker::new(Clock::test(Timestamp::from_millis(1_700_000_000_000)));
        let drawn: Vec<Uuid> = (0..100_000).map(|_| ids.uuid()).collect();
        assert!(drawn.is_sorted());
    }

    #[test]
    fn seeded_ids_repeat_and_carry_the_time() {
        let clock = Clock::test(Timestamp::from_millis(1_700_000_000_000));
        let (one, two) = (IdMaker::seeded(clock.clone(), 7), IdMaker::seeded(clock.clone(), 7));
        let id = one.uuid();
        assert_eq!(id, two.uuid());
        assert_ne!(id, one.uuid());
        assert_eq!(id.get_version_num(), 7);
        let (seconds, _) = id.get_timestamp().unwrap().to_unix();
        assert_eq!(seconds, 1_700_000_000);
        assert_ne!(IdMaker::new(clock.clone()).uuid(), IdMaker::new(clock).uuid());
    }
}
