//! What commands do with a database when they serve nobody: they start a private one where there is none to connect to, and
//! stop it again.

use sqlx::postgres::PgPool;

use super::{MIGRATION_CONNECTIONS, Ready, connect, definition_limits, reach};
use crate::clock::Clock;
use crate::config::Config;
use crate::history::verify::Task;
use crate::store;

pub(crate) use crate::history::verify::Report as Verified;

/// Brings the schema up to date and says its version: `personas migrate`.
pub(crate) async fn migrate(config: &Config) -> anyhow::Result<i64> {
    let Ready { pool, postgres, .. } = connect(config).await?;
    let (version, _) = store::migrate::versions(&pool).await?;
    pool.close().await;
    if let Some(postgres) = postgres {
        postgres.stop().await?;
    }
    Ok(version)
}

/// Makes profiles again from the log and compares them, space by space: `personas verify`.
pub(crate) async fn verify(
    config: &Config,
    space: Option<&str>,
    sample: Option<u64>,
) -> anyhow::Result<Vec<(String, Verified)>> {
    let Ready { pool, postgres, .. } = connect(config).await?;
    let verified = async {
        let clock = clock_of(&pool).await?;
        let mut spaces = store::spaces::list_spaces(&pool).await?;
        spaces.retain(|known| space.is_none_or(|space| known.key == space));
        if let (Some(space), true) = (space, spaces.is_empty()) {
            anyhow::bail!("there is no space {space}");
        }
        let mut reports = Vec::new();
        for known in spaces {
            let limits = definition_limits(config).query;
            let task = Task { space: known.no, sample, now: clock.now(), limits, idle_factor: 0 };
            reports.push((known.key, task.run(&pool).await?));
        }
        Ok(reports)
    };
    let verified = Box::pin(verified).await;
    pool.close().await;
    if let Some(postgres) = postgres {
        postgres.stop().await?;
    }
    verified
}

/// The clock the database was filled by.
async fn clock_of(pool: &PgPool) -> anyhow::Result<Clock> {
    let stored = store::registry::find_test_clock(pool).await?;
    Ok(stored.map_or(Clock::System, Clock::test))
}

/// What `personas doctor` finds in a database.
#[derive(Debug)]
pub(crate) struct Inspected {
    pub server_version: String,
    /// Newest migration of this build, and of the database.
    pub schema: (i64, Option<i64>),
    /// The database's clock minus ours.
    pub skew_ms: i64,
}

/// Looks into the database without changing it.
pub(crate) async fn inspect(config: &Config, clock: &Clock) -> anyhow::Result<Inspected> {
    let (options, postgres) = reach(config).await?;
    let pool = store::connect(options, MIGRATION_CONNECTIONS, config.database.acquire_timeout).await?;
    let inspected = async {
        let server_version = store::server::version(&pool).await?;
        let schema = store::migrate::versions(&pool).await?;
        // Connected and warm: what is measured now is the clocks, not the connection.
        let skew_ms = store::server::now(&pool).await?.millis() - clock.now().millis();
        Ok(Inspected { server_version, schema, skew_ms })
    };
    let inspected = inspected.await;
    pool.close().await;
    if let Some(postgres) = postgres {
        postgres.stop().await?;
    }
    inspected
}
