//! Placeholder for the processor, with its signature: to be replaced by the real one. It does no work; it only tells
//! the board that every space is where its log ends, so that the rest of the service can be run and tested.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, IdMaker};
use crate::config;
use crate::engine::Limits;
use crate::progress::{Board, Progress};
use crate::store::{processor, registry};

/// What the processor works with.
#[derive(Debug)]
pub struct Context {
    /// The shared pool, for reads.
    pub pool: PgPool,
    /// For connections of its own.
    pub connect_options: PgConnectOptions,
    /// The time.
    pub clock: Clock,
    /// Ids of profiles, merges, transitions.
    pub ids: IdMaker,
    /// Where progress is told.
    pub board: Board,
    /// Changes after every append of this process.
    pub appended: watch::Receiver<u64>,
    /// Changes when spaces were made or changed.
    pub registry: watch::Receiver<i64>,
    /// Its options.
    pub config: config::Processor,
    /// What a query may be.
    pub limits: Limits,
    /// Nobody else can be working on this database: leases left behind are nobody's.
    pub exclusive: bool,
    /// Ends it.
    pub shutdown: CancellationToken,
}

/// Runs until shutdown.
pub async fn run(context: Context) -> crate::store::Result<()> {
    while !context.shutdown.is_cancelled() {
        for space in registry::load(&context.pool).await?.spaces.values() {
            let settled_at = context.clock.now();
            if let Some(status) = processor::status(&context.pool, space.no).await? {
                context.board.publish(space.no, Progress { processed: status.log_end, settled_at });
            }
        }
        tokio::select! {
            () = context.shutdown.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    Ok(())
}
