//! How much of each fault, and by which dice.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How long the tests may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// All of them in a minute and a half.
    Fast,
    /// All of them in 20 minutes.
    Full,
    /// Hours.
    Soak,
}

impl Tier {
    /// The one `CHAOS` asks for.
    pub(crate) fn of_environment() -> Self {
        match std::env::var("CHAOS").as_deref() {
            Err(_) | Ok("" | "fast") => Self::Fast,
            Ok("full") => Self::Full,
            Ok("soak") => Self::Soak,
            Ok(other) => panic!("CHAOS={other}: write fast, full or soak"),
        }
    }

    /// So many of something, by the tier.
    pub(crate) fn of<T>(self, fast: T, full: T, soak: T) -> T {
        match self {
            Self::Fast => fast,
            Self::Full => full,
            Self::Soak => soak,
        }
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        self.of("fast", "full", "soak")
    }
}

/// One test's plan.
pub(crate) struct Plan {
    pub(crate) tier: Tier,
    pub(crate) seed: u64,
    dice: StdRng,
}

impl Plan {
    /// By the environment; says what repeats it.
    pub(crate) fn new(name: &str) -> Self {
        let tier = Tier::of_environment();
        let given =
            std::env::var("CHAOS_SEED").ok().map(|text| text.parse().expect("CHAOS_SEED is a number"));
        let seed = given.unwrap_or_else(|| rand::rng().random_range(1..1_000_000));
        println!("{name}: CHAOS={} CHAOS_SEED={seed}", tier.name());
        Self { tier, seed, dice: StdRng::seed_from_u64(seed) }
    }

    /// A number below that.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.dice.random_range(0..sides)
    }

    /// Lets a random time pass, in milliseconds: that is when the fault comes.
    pub(crate) async fn moment(&mut self, range: std::ops::Range<u64>) {
        let wait = self.dice.random_range(range);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}

/// Waits until something is so; fails with what was seen last.
pub(crate) async fn wait<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let until = Instant::now() + limit;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < until, "{what}: not after {limit:?}; {seen}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
