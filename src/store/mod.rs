//! All SQL, one file per family of tables. Every statement names its space; nothing in here decides anything.
//!
//! Each statement begins with `-- store::file::function`, so that `pg_stat_activity` and the logs show who runs it.

pub mod audiences;
pub mod audit;
pub mod computations;
pub mod consents;
pub mod corrections;
pub mod data_map;
pub mod definitions;
pub mod deliveries;
pub mod destinations;
pub mod error;
pub mod exports;
pub mod identity;
pub mod identity_problems;
pub mod identity_settings;
pub mod identity_trials;
pub mod imports;
pub mod log;
pub mod memberships;
pub mod messages;
pub mod migrate;
pub mod people;
pub mod processor;
pub mod profiles;
pub mod purge;
pub mod quarantine;
pub mod rebuild;
pub mod registry;
pub mod regulations;
pub mod rejected;
pub mod retention;
pub mod schema;
pub mod scrub;
pub mod search;
pub mod segments;
pub mod sensitive;
pub mod server;
pub mod sources;
pub mod spaces;
pub mod timeline;
pub mod tokens;
pub mod usage;
pub mod verify;
pub mod wall;

pub use error::StoreError;
pub use migrate::migrate;
pub use wall::{Walled, walled};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use std::time::Duration;

/// Result of a store function.
pub type Result<T> = std::result::Result<T, StoreError>;

/// How long a transaction of whoever holds a lease may be idle. A process that is frozen in one would keep its rows locked, and
/// nobody could take over.
const IDLE_MAX: (&str, &str) = ("idle_in_transaction_session_timeout", "10s");

/// Opens the pool processors write with: each session is prepared once, see [`processor::prepare_session`]. Its transactions
/// do not idle: those that do are ended after 10 s.
pub async fn connect_for_processing(options: PgConnectOptions, connections_max: u32) -> Result<PgPool> {
    let options = options.options([IDLE_MAX]);
    Ok(PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(Duration::from_secs(10))
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(async move {
                processor::prepare_session(connection).await.map_err(|e| sqlx::Error::Configuration(e.into()))
            })
        })
        .connect_with(options)
        .await?)
}

/// Opens the pool destinations are worked with; as to idle transactions the same.
pub async fn connect_for_delivering(
    options: PgConnectOptions,
    connections_max: u32,
    acquire_timeout: Duration,
) -> Result<PgPool> {
    connect(options.options([IDLE_MAX]), connections_max, acquire_timeout).await
}

/// Opens a pool for coalesced look-ups beside the shared one, see [`processor::prepare_lookups`]. It connects when it is
/// first asked.
pub fn connect_for_lookups(shared: &PgPool, connections_max: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(shared.options().get_acquire_timeout())
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(async move {
                processor::prepare_lookups(connection).await.map_err(|e| sqlx::Error::Configuration(e.into()))
            })
        })
        .connect_lazy_with(shared.connect_options().as_ref().clone())
}

/// Opens the pool every part of the service shares.
///
/// A connection is not tested before it is handed out (a dead one shows as a retryable error), and nobody waits
/// longer than `acquire_timeout` for one.
pub async fn connect(
    options: PgConnectOptions,
    connections_max: u32,
    acquire_timeout: Duration,
) -> Result<PgPool> {
    Ok(PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(acquire_timeout)
        .test_before_acquire(false)
        .connect_with(options)
        .await?)
}
