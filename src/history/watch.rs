//! Verification in the background, at a low rate: a few profiles of every space now and then, with long pauses in between.

use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio_util::sync::CancellationToken;

use super::verify::{Report, Task};
use crate::clock::Clock;
use crate::engine::Limits;
use crate::store::{Result, registry};
use crate::telemetry::metrics;

/// It works a tenth of the time at most.
const IDLE_FACTOR: u32 = 9;

/// Verifies a sample of every space, again and again until it is stopped.
#[derive(Debug, Clone)]
pub struct Watch {
    /// Whose profiles.
    pub pool: PgPool,
    /// The time.
    pub clock: Clock,
    /// Pause between two samples.
    pub every: Duration,
    /// About so many profiles of each space.
    pub sample: u64,
    /// What definitions may use.
    pub limits: Limits,
}

impl Watch {
    /// Runs until it is stopped. What cannot be verified is told, and tried again the next time.
    pub async fn run(self, stop: &CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(self.every)).await.is_some() {
            match stop.run_until_cancelled(self.verify()).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::warn!(%error, "profiles could not be verified: {error}"),
            }
        }
    }

    async fn verify(&self) -> Result<()> {
        for space in registry::list_space_numbers(&self.pool).await? {
            let task = Task {
                space,
                sample: Some(self.sample),
                now: self.clock.now(),
                limits: self.limits,
                idle_factor: IDLE_FACTOR,
            };
            let Report { profiles, values, mismatches, told, .. } = task.run(&self.pool).await?;
            metrics::VERIFIED.add(&[], values);
            metrics::VERIFY_MISMATCHES.add(&[], mismatches);
            for what in told {
                tracing::error!(%space, "stored and log disagree: {what}");
            }
            tracing::debug!(%space, profiles, values, mismatches, "verified {profiles} profiles of space {space}");
        }
        Ok(())
    }
}
