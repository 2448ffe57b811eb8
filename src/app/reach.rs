//! What a process reaches before it does anything: its files, its address, its database.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::body::Bytes;
use sqlx::postgres::{PgConnectOptions, PgPool};

use crate::config::{self, Config};
use crate::embedded::{self, Postgres, Search};
use crate::http::server::{self, Server};
use crate::http::tls::Tls;
use crate::store;

/// What `pg_stat_activity` calls us.
const APPLICATION: &str = "personas";
/// Connections while the schema is brought up to date.
pub(super) const MIGRATION_CONNECTIONS: u32 = 2;

/// Between two statements a transaction may be idle for as long as one may take, and at least for this: what makes a segment or
/// corrects chunks computes meanwhile.
const IDLE_MIN: Duration = Duration::from_secs(30);

/// The database, ready to be used.
pub(super) struct Ready {
    pub(super) pool: PgPool,
    /// Without a limit for statements: for sessions that know what they do.
    pub(super) options: PgConnectOptions,
    pub(super) postgres: Option<Arc<Postgres>>,
}

pub(super) fn read_analytics_js(file: Option<&PathBuf>) -> anyhow::Result<Option<Bytes>> {
    let read = |path: &PathBuf| {
        std::fs::read(path)
            .map(Bytes::from)
            .with_context(|| format!("ingest.analytics_js_file: {}", path.display()))
    };
    file.map(read).transpose()
}

pub(super) async fn bind(listen: SocketAddr, config: &config::Server) -> anyhow::Result<Server> {
    let limits = server::Limits {
        connections_max: config.max_connections,
        header_timeout: config.header_timeout,
        shutdown_grace: config.shutdown_grace,
    };
    let tls = config.tls.as_ref().map(|(certificate, key)| Tls::load(certificate, key)).transpose()?;
    Server::bind(listen, limits, tls).await.with_context(|| format!("cannot listen on {listen}"))
}

/// The database of the configuration, or a private one, which is started.
pub(super) async fn reach(config: &Config) -> anyhow::Result<(PgConnectOptions, Option<Arc<Postgres>>)> {
    if let Some(url) = &config.database.url {
        let options = url.expose().parse::<PgConnectOptions>().context("database.url")?;
        return Ok((named(options), None));
    }
    let postgres = Arc::new(Box::pin(Postgres::start(embedded_options(config))).await?);
    Ok((named(postgres.connect_options()), Some(postgres)))
}

/// What the private Postgres is started with.
pub(super) fn embedded_options(config: &Config) -> embedded::Options {
    let search = Search::usual(config.embedded.postgres_bin.clone());
    embedded::Options { search, ..embedded::Options::new(&config.embedded.data_dir) }
}

/// Says who we are, and asks not to be told what is no trouble (a table that is there already). Postgres lets go of what a
/// machine held that is gone within a minute, and not after two hours.
pub(super) fn named(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name(APPLICATION).options([
        ("client_min_messages", "warning"),
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "60000"),
    ])
}

/// Reaches the database, brings its schema up to date and opens the pool.
pub(super) async fn connect(config: &Config) -> anyhow::Result<Ready> {
    let (options, postgres) = reach(config).await?;
    let wait = config.database.acquire_timeout;
    let migrating = store::connect(options.clone(), MIGRATION_CONNECTIONS, wait).await?;
    store::migrate(&migrating).await?;
    migrating.close().await;
    let limit = config.database.statement_timeout.unwrap_or_default();
    // A process that is frozen is silent, and would keep what it has locked.
    let idle = limit.max(IDLE_MIN);
    let limits = [("statement_timeout", limit), ("idle_in_transaction_session_timeout", idle)];
    let limited = options.clone().options(limits.map(|(name, limit)| (name, limit.as_millis().to_string())));
    let pool = store::connect(limited, config.database.max_connections, wait).await?;
    Ok(Ready { pool, options, postgres })
}
