//! What has to be done from time to time, whoever asks for what: the registry is kept fresh, the log prepared and
//! emptied, reads are written down, spaces purged, profiles verified. What fails is said, and tried again.

use std::time::Duration;

use sqlx::postgres::PgPool;

use super::{Tasks, definition_limits};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::history::watch::Watch;
use crate::manage::{Manage, Registry};

/// How often the log is prepared for the week to come.
const PREPARE_EVERY: Duration = Duration::from_hours(1);
/// How often reads of personal data are written into the audit log.
const WRITE_READS_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked whether a space is to be purged; the database hears of it when one is.
const PURGE_EVERY: Duration = Duration::from_secs(1);
/// Of those times, how many until what was purged lately is looked at once more.
const SWEEP_EVERY: u32 = 60;

/// Keeps the registry fresh, and the log a week ahead of its events.
pub(super) fn start(tasks: &Tasks, registry: Registry, manage: Manage, config: &Config) {
    let (log_days, rejected_days) = (config.log.retention_days, config.ingest.rejected_events_retention_days);
    let stop = tasks.working.clone();
    tasks.work("registry", async move {
        registry.run(stop).await;
        Ok(())
    });
    let (stop, writing) = (tasks.working.clone(), manage.clone());
    tasks.work("audit log", async move {
        let mut ticks = tokio::time::interval(WRITE_READS_EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            writing.write_reads().await;
        }
        // The last request is answered by now.
        writing.write_reads().await;
        Ok(())
    });
    let (stop, purging) = (tasks.working.clone(), manage.clone());
    tasks.work("purges", async move {
        let mut ticks = tokio::time::interval(PURGE_EVERY);
        let mut count = 0_u32;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            purging.purge_due().await;
            if count.is_multiple_of(SWEEP_EVERY)
                && let Err(error) = purging.sweep_purged().await
            {
                tracing::warn!(%error, "could not look again at what was purged: {error}");
            }
            count = count.wrapping_add(1);
        }
        Ok(())
    });
    let stop = tasks.working.clone();
    tasks.work("housekeeping", async move {
        let mut ticks = tokio::time::interval(PREPARE_EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = manage.prepare_log().await {
                tracing::warn!(%error, "could not prepare the log for next week: {error}");
            }
            if let Err(error) = manage.forget_old(log_days, rejected_days).await {
                tracing::warn!(%error, "could not forget what has been kept long enough: {error}");
            }
        }
        Ok(())
    });
}

/// Verifies profiles in the background, where that is switched on.
pub(super) fn start_verifying(tasks: &Tasks, pool: &PgPool, clock: &Clock, config: &Config) {
    let config::Verify { sample, every } = config.verify;
    if sample == 0 {
        return;
    }
    let limits = definition_limits(config).query;
    let watch = Watch { pool: pool.clone(), clock: clock.clone(), every, sample, limits };
    let stop = tasks.working.clone();
    tasks.work("verification", async move {
        watch.run(&stop).await;
        Ok(())
    });
}
