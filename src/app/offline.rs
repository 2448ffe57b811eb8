//! What commands do with a database when they serve nobody: they start a private one where there is none to connect to, and
//! stop it again.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::Context;
use sqlx::postgres::PgPool;
use sqlx::{Connection, PgConnection};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::definition_limits;
use super::reach::{MIGRATION_CONNECTIONS, Ready, connect, embedded_options, named, reach};
use crate::clock::{Clock, IdMaker};
use crate::config::Config;
use crate::embedded::{self, Copied, Postgres};
use crate::history::verify;
use crate::manage::identity_settings::{SettingsChange, propose};
use crate::process::{self, rebuild::Task};
use crate::progress::Board;
use crate::read_cache::ReadCache;
use crate::store::{self, scrub};

/// Connections of a rebuild, besides those of its processor.
const REBUILD_CONNECTIONS: u32 = 4;

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
            let task = verify::Task { space: known.no, sample, now: clock.now(), limits, idle_factor: 0 };
            let mut report = task.run(&pool).await?;
            let audit = store::audit::verify::verify(&store::walled(&pool, known.no), known.no).await?;
            report.mismatches += audit.faults;
            report.told.extend(audit.told.into_iter().map(|fault| format!("audit log: {fault}")));
            reports.push((known.key, report));
        }
        if space.is_none() {
            let audit = store::audit::verify::verify(
                &store::walled(&pool, store::audit::SERVER),
                store::audit::SERVER,
            )
            .await?;
            if audit.faults > 0 {
                let told = audit.told.into_iter().map(|fault| format!("audit log: {fault}")).collect();
                let report = Verified { mismatches: audit.faults, told, ..Verified::default() };
                reports.push(("the server itself".to_owned(), report));
            }
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

/// What a rebuild tells and finds.
pub(crate) use crate::process::rebuild::{Report as Rebuilt, Some20, Told};

/// What to rebuild, and how.
#[derive(Debug)]
pub(crate) struct Rebuild<'a> {
    /// Key of the space.
    pub space: &'a str,
    /// Only tell what would be different.
    pub dry_run: bool,
    /// Also when the log no longer begins at its first event.
    pub forget_lost: bool,
    /// A change of the identity settings that is tried: the rest is a dry run.
    pub settings: Option<SettingsChange>,
}

/// Derives a space again from its log and puts the result in place: `personas rebuild`. A server may run meanwhile, on the
/// same database or with its private one.
pub(crate) async fn rebuild(
    config: &Config,
    Rebuild { space, dry_run, forget_lost, settings }: Rebuild<'_>,
    tell: &(dyn Fn(Told) + Sync),
) -> anyhow::Result<Rebuilt> {
    let running = match config.database.url {
        None => Postgres::beside(&config.embedded.data_dir)?,
        Some(_) => None,
    };
    let (options, postgres) = match running {
        Some(options) => (named(options), None),
        None => reach(config).await?,
    };
    // What takes long here takes long with good reason: statements have no limit.
    let pool = store::connect(options.clone(), REBUILD_CONNECTIONS, config.database.acquire_timeout).await?;
    let rebuilt = async {
        store::migrate(&pool).await?;
        let clock = clock_of(&pool).await?;
        let spaces = store::spaces::list_spaces(&pool).await?;
        let known = spaces.into_iter().find(|known| known.key == space);
        let Some(known) = known else { anyhow::bail!("there is no space {space}") };
        let tried = match settings {
            Some(change) => Some(propose(&store::walled(&pool, known.no), known.no, &change).await?.wanted),
            None => None,
        };
        let (_appended, appended) = watch::channel(0);
        let context = process::Context {
            connect_options: options,
            ids: IdMaker::new(clock.clone()),
            clock,
            board: Board::default(),
            read_cache: ReadCache::new(0),
            appended,
            config: config.processor.clone(),
            limits: definition_limits(config).query,
            exclusive: false,
            shutdown: CancellationToken::new(),
        };
        let task = Task { pool: pool.clone(), context, space: known.no, dry_run, tried, forget_lost };
        Ok(Box::pin(task.run(tell)).await?)
    };
    let rebuilt = Box::pin(rebuilt).await;
    pool.close().await;
    if let Some(postgres) = postgres {
        postgres.stop().await?;
    }
    rebuilt
}

/// What an import of a space came to.
pub(crate) use super::import_space::Restored;

/// Puts an export of a space into an empty one, and derives what follows from its log: `personas import-space`. A server may
/// run meanwhile.
pub(crate) async fn import_space(config: &Config, space: &str, folder: &Path) -> anyhow::Result<Restored> {
    let running = match config.database.url {
        None => Postgres::beside(&config.embedded.data_dir)?,
        Some(_) => None,
    };
    let (options, postgres) = match running {
        Some(options) => (named(options), None),
        None => reach(config).await?,
    };
    let pool = store::connect(options, REBUILD_CONNECTIONS, config.database.acquire_timeout).await?;
    let restored = async {
        store::migrate(&pool).await?;
        let spaces = store::spaces::list_spaces(&pool).await?;
        let known = spaces.into_iter().find(|known| known.key == space);
        let Some(known) = known else { anyhow::bail!("there is no space {space}; make it first") };
        let now = clock_of(&pool).await?.now();
        super::import_space::restore(&pool, known.no, folder, now).await
    };
    let restored = Box::pin(restored).await;
    pool.close().await;
    if let Some(postgres) = postgres {
        postgres.stop().await?;
    }
    let restored = restored?;
    let task = Rebuild { space, dry_run: false, forget_lost: true, settings: None };
    Box::pin(rebuild(config, task, &|_| ())).await.with_context(|| {
        format!(
            "settings and log are imported, and what follows from them is not derived yet: \
             run `personas rebuild --space {space} --forget-lost`"
        )
    })?;
    Ok(restored)
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

/// Writes a backup of the private Postgres, whether a service runs with it or not: `personas backup`.
pub(crate) async fn backup(config: &Config, out: &mut (dyn Write + Send)) -> anyhow::Result<Copied> {
    private(config)?;
    let options = embedded_options(config);
    let beside = Postgres::beside(&config.embedded.data_dir)?;
    let running = match beside {
        Some(_) => None,
        None => Some(Box::pin(Postgres::start(options.clone())).await?),
    };
    let reached = beside.or_else(|| running.as_ref().map(Postgres::connect_options));
    let mut holding = PgConnection::connect_with(&named(reached.context("no server runs")?)).await?;
    store::server::hold_wal(&mut holding).await?;
    let copied = tokio::task::block_in_place(|| embedded::backup(&options, running.as_ref(), out));
    holding.close().await?;
    if let Some(postgres) = running {
        postgres.stop().await?;
    }
    Ok(copied?)
}

/// What was written anew.
#[derive(Debug)]
pub(crate) struct Scrubbed {
    /// Tables and partitions.
    pub tables: usize,
    /// Their bytes before.
    pub before: i64,
    /// Their bytes now.
    pub bytes: i64,
    /// Whether the write-ahead log was, too: that of the private Postgres.
    pub has_wal: bool,
}

/// Takes what was deleted out of the files of the database: `personas scrub`. A server may run meanwhile: whoever wants a table
/// that is being written waits for it.
pub(crate) async fn scrub(config: &Config) -> anyhow::Result<Scrubbed> {
    let beside = match config.database.url {
        None => Postgres::beside(&config.embedded.data_dir)?,
        Some(_) => None,
    };
    let (options, postgres) = match beside {
        Some(options) => (named(options), None),
        None => reach(config).await?,
    };
    let scrubbed = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        let all = scrub::list_tables(&mut connection).await?;
        for (table, _) in &all {
            scrub::rewrite(&mut connection, table).await?;
        }
        let after = scrub::list_tables(&mut connection).await?;
        let has_wal = config.database.url.is_none();
        if has_wal {
            // Those of a database of one's own may be another's.
            for table in scrub::STATISTICS {
                scrub::rewrite(&mut connection, table).await?;
            }
            scrub::renew_wal(&mut connection).await?;
        }
        connection.close().await?;
        let bytes = |tables: &[scrub::Table]| tables.iter().map(|(_, bytes)| bytes).sum();
        anyhow::Ok(Scrubbed { tables: after.len(), before: bytes(&all), bytes: bytes(&after), has_wal })
    };
    let scrubbed = scrubbed.await;
    if let Some(postgres) = postgres {
        postgres.stop().await?;
    }
    scrubbed
}

/// Puts a backup in the place of the private Postgres: `personas restore`.
pub(crate) fn restore(config: &Config, replace: bool, from: &mut dyn Read) -> anyhow::Result<Copied> {
    private(config)?;
    Ok(embedded::restore(&embedded_options(config), replace, from)?)
}

fn private(config: &Config) -> anyhow::Result<()> {
    if config.database.url.is_some() {
        anyhow::bail!(
            "DATABASE_URL names a Postgres that is not the service's own: back it up with its own tools (pg_basebackup, pg_dump)"
        );
    }
    Ok(())
}
