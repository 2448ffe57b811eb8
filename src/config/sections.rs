//! Every option as the rest of the service sees it: parsed, in range, with its unit in its type where there is one.
//! What each means stands in `config/personas.toml`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use sqlx::postgres::PgConnectOptions;
use tracing_subscriber::EnvFilter;

use super::{Secret, reader::Reader};
use crate::domain::IntakeLimits;

/// A day, the longest any timeout may be.
const DAY_MS: i64 = 86_400_000;
/// A hundred years, as good as for ever.
const DAYS_MAX: i64 = 36_500;
const GIB: i64 = 1 << 30;

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The HTTP server.
    pub server: Server,
    /// The Postgres everything is kept in.
    pub database: Database,
    /// The private Postgres.
    pub embedded: Embedded,
    /// What the first start makes.
    pub bootstrap: Bootstrap,
    /// Taking in events.
    pub ingest: Ingest,
    /// Turning the log into profiles and audiences.
    pub processor: Processor,
    /// What a query may be.
    pub query: Query,
    /// Answering questions.
    pub reads: Reads,
    /// `[verify]`
    pub verify: Verify,
    /// The log of events.
    pub log: LogRetention,
    /// Sending changes to destinations.
    pub deliver: Deliver,
    /// What destinations may reach.
    pub egress: Egress,
    /// Regulations.
    pub privacy: Privacy,
    /// What the process tells about itself.
    pub telemetry: Telemetry,
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct Server {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Address of the metrics and the reasons of readiness, when they are not shown with everything else.
    pub internal_listen: Option<SocketAddr>,
    /// Connections open at the same time.
    pub max_connections: usize,
    /// Time for a request's head.
    pub header_timeout: Duration,
    /// Longest pause within a body.
    pub body_idle_timeout: Duration,
    /// Time for a whole request.
    pub request_timeout: Duration,
    /// Time to finish after a stop was asked for.
    pub shutdown_grace: Duration,
    /// Certificate chain and key, when connections are encrypted.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Proxies whose words about their clients are believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// `[database]`
#[derive(Debug, Clone)]
pub struct Database {
    /// `None`: a private Postgres.
    pub url: Option<Secret>,
    /// Connections of this process.
    pub max_connections: u32,
    /// Longest wait for a connection.
    pub acquire_timeout: Duration,
    /// Longest statement; `None` is no limit.
    pub statement_timeout: Option<Duration>,
}

/// `[embedded]`
#[derive(Debug, Clone)]
pub struct Embedded {
    /// Folder of the private Postgres' data.
    pub data_dir: PathBuf,
    /// Folder of the binaries; `None`: found by itself.
    pub postgres_bin: Option<PathBuf>,
}

/// `[bootstrap]`
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Id of the first space.
    pub space: String,
    /// Its write key; `None`: a random one.
    pub write_key: Option<Secret>,
    /// The owner's token; `None`: a random one.
    pub token: Option<Secret>,
}

/// `[ingest]`
#[derive(Debug, Clone)]
pub struct Ingest {
    /// What a call may be.
    pub limits: IntakeLimits,
    /// Bodies in memory, in bytes.
    pub inflight_bytes_max: usize,
    /// Events waiting for the writer.
    pub queue_events_max: usize,
    /// Events committed at once.
    pub flush_events_max: usize,
    /// Bytes committed at once.
    pub flush_bytes_max: usize,
    /// Free disk space below which events are refused; 0 turns it off.
    pub disk_free_bytes_min: u64,
    /// The browser library to serve.
    pub analytics_js_file: Option<PathBuf>,
    /// How long rejected events are kept.
    pub rejected_events_retention_days: u32,
}

/// `[processor]`
#[derive(Debug, Clone)]
pub struct Processor {
    /// Events in a micro-batch.
    pub batch_events_max: usize,
    /// How long a silent process keeps its spaces.
    pub lease: Duration,
    /// Pause between looks at an empty log.
    pub poll: Duration,
    /// Bytes of profiles in memory.
    pub profile_cache_bytes_max: usize,
    /// Identifiers in memory.
    pub identity_cache_max: usize,
    /// Message ids in memory.
    pub dedup_recent_max: usize,
}

/// `[query]`
#[derive(Debug, Clone)]
pub struct Query {
    /// Conditions and functions in a definition.
    pub expressions_max: usize,
    /// Nesting of a definition.
    pub nesting_max: usize,
    /// Definitions in a space.
    pub definitions_max: usize,
}

/// `[verify]`
#[derive(Debug, Clone, Copy)]
pub struct Verify {
    /// About so many profiles of each space at a time; 0 turns it off.
    pub sample: u64,
    /// Pause between two samples.
    pub every: Duration,
}

/// `[reads]`
#[derive(Debug, Clone)]
pub struct Reads {
    /// Bytes of profiles in memory for reads; 0 turns it off.
    pub cache_bytes_max: usize,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct LogRetention {
    /// How long raw events are kept.
    pub retention_days: u32,
    /// Events in one segment, about; 0 for no segments.
    pub segment_events: u64,
}

/// `[deliver]`
#[derive(Debug, Clone)]
pub struct Deliver {
    /// Encrypts the secrets of destinations; `None`: one beside the private Postgres, or none.
    pub secret_key: Option<Secret>,
    /// A file with that key.
    pub secret_key_file: Option<PathBuf>,
    /// Still read what was encrypted with them.
    pub secret_keys_old: Vec<Secret>,
    /// Files with one such key each.
    pub secret_keys_old_files: Vec<PathBuf>,
    /// How long a silent process keeps its destinations.
    pub lease: Duration,
    /// Pause between looks at the queues.
    pub poll: Duration,
    /// How long a change is tried for.
    pub retry: Duration,
    /// After so long of nothing but failure a destination is paused.
    pub auto_pause: Duration,
    /// How long what was sent can be looked at.
    pub kept_days: u32,
    /// Exchanges of changes that arrived, kept of each destination in a second.
    pub exchanges_per_second_max: u32,
    /// Changes of one destination in memory.
    pub window_max: usize,
}

/// `[egress]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// Ports that may be called.
    pub ports: Vec<u16>,
    /// Networks that may be reached although they are not public.
    pub allow_networks: Vec<IpNet>,
    /// Host names that may be reached wherever they are.
    pub allow_hosts: Vec<String>,
    /// The folder that destinations may write below.
    pub folder: Option<PathBuf>,
}

/// `[privacy]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privacy {
    /// The journal of erasures; `None`: in the folder of the private Postgres, and none for another database.
    pub journal_file: Option<PathBuf>,
}

/// `[telemetry]`
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Levels and targets.
    pub log: String,
    /// For whom.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        Self {
            server: Server::read(r),
            database: Database::read(r),
            embedded: Embedded {
                data_dir: r.text("embedded.data_dir").into(),
                postgres_bin: r.path("embedded.postgres_bin"),
            },
            bootstrap: Bootstrap {
                space: r.text("bootstrap.space"),
                write_key: r.secret("bootstrap.write_key"),
                token: r.secret("bootstrap.token"),
            },
            ingest: Ingest::read(r),
            processor: Processor::read(r),
            query: Query {
                expressions_max: r.number("query.expressions_max", 1..=1_000),
                nesting_max: r.number("query.nesting_max", 1..=100),
                definitions_max: r.number("query.definitions_max", 1..=1_000_000),
            },
            reads: Reads { cache_bytes_max: r.number("reads.cache_bytes_max", 0..=64 * GIB) },
            verify: Verify {
                sample: r.number("verify.sample", 0..=1_000_000_000),
                every: r.seconds("verify.every_seconds", 1..=DAY_MS / 1_000),
            },
            log: LogRetention {
                retention_days: r.number("log.retention_days", 1..=DAYS_MAX),
                segment_events: r.number("log.segment_events", 0..=1 << 20),
            },
            deliver: Deliver::read(r),
            egress: Egress::read(r),
            privacy: Privacy { journal_file: r.path("privacy.journal_file") },
            telemetry: Telemetry::read(r),
        }
    }
}

impl Server {
    fn read(r: &mut Reader<'_>) -> Self {
        let wanted = "an IP address and a port such as 127.0.0.1:8080 or [::]:8080";
        let listen = r.parsed("server.listen", wanted, |text| text.parse().ok());
        let internal_listen = r.optional("server.internal_listen").and_then(|text| {
            let address = text.parse().ok();
            if address.is_none() {
                r.refuse("server.internal_listen", &format!("{wanted}, or empty"));
            }
            address
        });
        let tls = match (r.path("server.tls_certificate_file"), r.path("server.tls_key_file")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                r.refuse("server.tls_certificate_file", "a file together with server.tls_key_file, or empty");
                None
            }
            (None, Some(_)) => {
                r.refuse("server.tls_key_file", "a file together with server.tls_certificate_file, or empty");
                None
            }
        };
        Self {
            listen: listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into()),
            internal_listen,
            max_connections: r.number("server.max_connections", 1..=1_000_000),
            header_timeout: r.millis("server.header_timeout_ms", 1..=DAY_MS),
            body_idle_timeout: r.millis("server.body_idle_timeout_ms", 1..=DAY_MS),
            request_timeout: r.millis("server.request_timeout_ms", 1..=DAY_MS),
            shutdown_grace: r.millis("server.shutdown_grace_ms", 0..=DAY_MS),
            tls,
            trusted_proxies: networks(r, "server.trusted_proxies"),
        }
    }
}

impl Database {
    fn read(r: &mut Reader<'_>) -> Self {
        let url = r.secret("database.url");
        let is_postgres = |url: &Secret| {
            let scheme =
                ["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme));
            scheme && url.expose().parse::<PgConnectOptions>().is_ok()
        };
        if url.as_ref().is_some_and(|url| !is_postgres(url)) {
            r.refuse("database.url", "a URL such as postgres://user:password@host:5432/database");
        }
        let statement_timeout = r.millis("database.statement_timeout_ms", 0..=DAY_MS);
        Self {
            url,
            max_connections: r.number("database.max_connections", 3..=10_000),
            acquire_timeout: r.millis("database.acquire_timeout_ms", 1..=DAY_MS),
            statement_timeout: Some(statement_timeout).filter(|limit| !limit.is_zero()),
        }
    }
}

impl Ingest {
    fn read(r: &mut Reader<'_>) -> Self {
        Self {
            limits: limits(r),
            inflight_bytes_max: r.number("ingest.inflight_bytes_max", 1..=64 * GIB),
            queue_events_max: r.number("ingest.queue_events_max", 1..=10_000_000),
            flush_events_max: r.number("ingest.flush_events_max", 1..=1_000_000),
            flush_bytes_max: r.number("ingest.flush_bytes_max", 1..=GIB),
            disk_free_bytes_min: r.number("ingest.disk_free_bytes_min", 0..=1_024 * 1_024 * GIB),
            analytics_js_file: r.path("ingest.analytics_js_file"),
            rejected_events_retention_days: r.number("ingest.rejected_events_retention_days", 1..=DAYS_MAX),
        }
    }
}

fn limits(r: &mut Reader<'_>) -> IntakeLimits {
    IntakeLimits {
        event_bytes_max: r.number("ingest.event_bytes_max", 1..=GIB),
        body_bytes_max: r.number("ingest.body_bytes_max", 1..=GIB),
        batch_events_max: r.number("ingest.batch_events_max", 1..=1_000_000),
        // The parser itself stops at 128.
        json_depth_max: r.number("ingest.json_depth_max", 1..=127),
        properties_max: r.number("ingest.properties_max", 1..=1_000_000),
        traits_max: r.number("ingest.traits_max", 1..=1_000_000),
        message_id_chars_max: r.number("ingest.message_id_chars_max", 1..=1_000),
        group_id_chars_max: r.number("ingest.group_id_chars_max", 1..=1_000),
        event_name_chars_max: r.number("ingest.event_name_chars_max", 1..=1_000),
        future_tolerance_ms: r.number("ingest.future_tolerance_ms", 0..=DAYS_MAX * DAY_MS),
        rejected_per_second_max: r.number("ingest.rejected_events_per_second_max", 1..=1_000_000),
    }
}

impl Processor {
    fn read(r: &mut Reader<'_>) -> Self {
        Self {
            batch_events_max: r.number("processor.batch_events_max", 1..=1_000_000),
            lease: r.seconds("processor.lease_seconds", 1..=3_600),
            poll: r.millis("processor.poll_ms", 1..=60_000),
            profile_cache_bytes_max: r.number("processor.profile_cache_bytes_max", 1..=1_000_000_000_000),
            identity_cache_max: r.number("processor.identity_cache_max", 1..=1_000_000_000),
            dedup_recent_max: r.number("processor.dedup_recent_max", 1..=1_000_000_000),
        }
    }
}

impl Deliver {
    fn read(r: &mut Reader<'_>) -> Self {
        let hours = |hours: u32| Duration::from_hours(u64::from(hours));
        Self {
            secret_key: key(r, "deliver.secret_key"),
            secret_key_file: r.path("deliver.secret_key_file"),
            secret_keys_old: keys(r, "deliver.secret_keys_old"),
            secret_keys_old_files: {
                let files = r.optional("deliver.secret_keys_old_files").unwrap_or_default();
                list(&files).map(PathBuf::from).collect()
            },
            lease: r.seconds("deliver.lease_seconds", 1..=3_600),
            poll: r.millis("deliver.poll_ms", 1..=60_000),
            retry: hours(r.number("deliver.retry_hours", 1..=8_760)),
            auto_pause: hours(r.number("deliver.auto_pause_hours", 1..=8_760)),
            kept_days: r.number("deliver.kept_days", 1..=DAYS_MAX),
            exchanges_per_second_max: r.number("deliver.exchanges_per_second_max", 0..=1_000_000),
            window_max: r.number("deliver.window_max", 1..=1_000_000),
        }
    }
}

impl Egress {
    fn read(r: &mut Reader<'_>) -> Self {
        let ports = r.parsed("egress.ports", "port numbers with commas between them", |text| {
            list(text).map(|port| port.parse().ok().filter(|port| *port > 0)).collect()
        });
        let hosts = r.optional("egress.allow_hosts").unwrap_or_default();
        Self {
            ports: ports.unwrap_or_default(),
            allow_networks: networks(r, "egress.allow_networks"),
            allow_hosts: list(&hosts).map(str::to_owned).collect(),
            folder: r.path("egress.folder"),
        }
    }
}

/// Networks with commas between them; an address is a network of one.
fn networks(r: &mut Reader<'_>, path: &'static str) -> Vec<IpNet> {
    let text = r.optional(path).unwrap_or_default();
    let parse = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let networks: Option<Vec<IpNet>> = list(&text).map(parse).collect();
    networks.unwrap_or_else(|| {
        r.refuse(path, "networks such as 10.0.0.0/8 with commas between them");
        Vec::new()
    })
}

/// A key of 32 bytes in hexadecimal digits.
fn key(r: &mut Reader<'_>, path: &'static str) -> Option<Secret> {
    let key = r.secret(path)?;
    if !is_key(key.expose()) {
        r.refuse(path, "64 hexadecimal digits, such as `openssl rand -hex 32` makes");
    }
    Some(key)
}

fn keys(r: &mut Reader<'_>, path: &'static str) -> Vec<Secret> {
    let Some(all) = r.secret(path) else { return Vec::new() };
    if !list(all.expose()).all(is_key) {
        r.refuse(path, "keys of 64 hexadecimal digits with commas between them");
    }
    list(all.expose()).map(Secret::new).collect()
}

fn is_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The parts of a text between commas.
fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

impl Telemetry {
    fn read(r: &mut Reader<'_>) -> Self {
        let log =
            r.parsed("telemetry.log", "a level such as info, or targets such as info,sqlx=warn", |text| {
                EnvFilter::builder().parse(text).ok().map(|_| text.to_owned())
            });
        let format = r.parsed("telemetry.format", "text or json", |text| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        Self { log: log.unwrap_or_default(), format: format.unwrap_or_default() }
    }
}
