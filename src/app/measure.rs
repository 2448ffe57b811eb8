//! What is measured that nobody else measures, every second.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::time::Instant;

use super::Tasks;
use crate::disk::DiskGuard;
use crate::embedded::Postgres;
use crate::http::tracking;
use crate::manage::Manage;
use crate::telemetry::metrics;

/// How often disk space and pool are measured.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// What is looked at every second.
pub(super) struct Measured {
    pub pool: PgPool,
    pub manage: Manage,
    pub disk: DiskGuard,
    pub in_flight: tracking::InFlight,
}

/// Watches over the private Postgres and its disk, and measures what nobody else does.
pub(super) fn start(tasks: &Tasks, measured: Measured, postgres: Option<Arc<Postgres>>) {
    let Measured { pool, manage, disk, in_flight } = measured;
    let stop = tasks.working.clone();
    let folder = postgres.as_ref().map(|p| p.base_dir().to_owned());
    tasks.work("measuring", async move {
        let started = Instant::now();
        let mut ticks = tokio::time::interval(MEASURE_EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            metrics::tidy();
            metrics::UPTIME.set(&[], started.elapsed().as_secs_f64());
            let (all, idle) = (pool.size() as usize, pool.num_idle());
            metrics::DB_POOL.set(&["idle"], idle as f64);
            metrics::INGEST_IN_FLIGHT.set(&[], in_flight.used() as f64);
            metrics::DB_POOL.set(&["used"], all.saturating_sub(idle) as f64);
            if let Some(folder) = &folder {
                disk.measure(folder);
            }
            if let Err(error) = manage.measure_pipeline().await {
                tracing::debug!(%error, "could not measure the pipeline: {error}");
            }
        }
        Ok(())
    });
    let Some(postgres) = postgres else { return };
    let stop = tasks.working.clone();
    tasks.work("private Postgres", async move {
        match stop.run_until_cancelled(postgres.exited()).await {
            Some(ended) => Err(anyhow::anyhow!("{ended}")),
            None => Ok(()),
        }
    });
}
