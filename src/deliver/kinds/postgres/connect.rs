//! The settings of a customer's database, and a connection to it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection, PgConnection};

use super::Failure;
use crate::config::Secret;
use crate::deliver::guard::Resolver;
use crate::deliver::kind::Invalid;
use crate::deliver::reach::Reach;

/// Changes of a transaction, where nothing is said.
const BATCH_DEFAULT: usize = 500;
/// The same, at most.
const BATCH_MAX: usize = 10_000;

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    host: String,
    #[serde(default = "port")]
    port: u16,
    database: String,
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default = "schema")]
    schema: String,
    #[serde(default)]
    ssl_mode: SslMode,
    root_certificate: Option<String>,
    batch_max: Option<usize>,
}

const fn port() -> u16 {
    5432
}

fn schema() -> String {
    "personas".to_owned()
}

/// How much of encryption there is. Less than `require` is for servers that the configuration allows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
enum SslMode {
    Disable,
    Prefer,
    #[default]
    Require,
    VerifyCa,
    VerifyFull,
}

/// Where, as whom, and into which schema.
pub(super) struct Target {
    host: String,
    port: u16,
    database: String,
    user: String,
    password: Secret,
    ssl_mode: SslMode,
    root_certificate: Option<String>,
    resolver: Resolver,
    pub(super) schema: String,
    pub(super) batch_max: usize,
    pub(super) timeout: Duration,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Target {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

fn invalid(field: &str, message: impl Into<String>) -> Vec<Invalid> {
    vec![Invalid { field: field.to_owned(), message: message.into() }]
}

impl Target {
    /// Reads and judges settings.
    pub(super) fn read(settings: &Map<String, Value>, reach: &Reach) -> Result<Self, Vec<Invalid>> {
        let settings: Settings = serde_json::from_value(Value::Object(settings.clone()))
            .map_err(|error| invalid("settings", error.to_string()))?;
        let batch_max = settings.batch_max.unwrap_or(BATCH_DEFAULT);
        if !(1..=BATCH_MAX).contains(&batch_max) {
            return Err(invalid("batch_max", format!("it must be a whole number from 1 to {BATCH_MAX}")));
        }
        for (field, text) in [("database", &settings.database), ("user", &settings.user)] {
            if text.is_empty() {
                return Err(invalid(field, "it must be a text that is not empty"));
            }
        }
        let is_name = |text: &str| {
            let mut bytes = text.bytes();
            (1..=63).contains(&text.len())
                && bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
                && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if !is_name(&settings.schema) {
            return Err(invalid("schema", "it must be lower case letters, digits and `_`, such as personas"));
        }
        // A folder of a socket would be this machine; the URL parser knows all spellings of an address.
        let host = reach.guard.check_host(&settings.host).map_err(|why| invalid("host", why.to_string()))?;
        if settings.ssl_mode == SslMode::VerifyFull && !reach.guard.allows_host(&host) {
            let message = "verify-full looks the name up once more by itself, which only a host that `egress.allow_hosts` names may \
                           do; verify-ca checks the certificate without the name";
            return Err(invalid("ssl_mode", message));
        }
        let is_checked = matches!(settings.ssl_mode, SslMode::VerifyCa | SslMode::VerifyFull);
        if settings.root_certificate.is_some() && !is_checked {
            return Err(invalid(
                "root_certificate",
                "it is looked at with ssl_mode verify-ca or verify-full only",
            ));
        }
        Ok(Self {
            host,
            port: settings.port,
            database: settings.database,
            user: settings.user,
            password: Secret::new(settings.password),
            ssl_mode: settings.ssl_mode,
            root_certificate: settings.root_certificate,
            resolver: Resolver::new(reach.guard.clone(), reach.lookup.clone()),
            schema: settings.schema,
            batch_max,
            timeout: reach.timeout,
        })
    }

    /// Connects to the first address of the host that answers.
    pub(super) async fn connect(&self) -> Result<PgConnection, Failure> {
        let addresses = self.resolver.addresses(&self.host).await.map_err(|error| {
            let message = error.to_string();
            if error.is_blocked() { Failure::Settings("BLOCKED", message) } else { Failure::Server(message) }
        })?;
        let mut last = Failure::Server("the host has no address".to_owned());
        for address in addresses {
            match PgConnection::connect_with(&self.options(address)).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = super::judge(&error),
            }
        }
        Err(last)
    }

    fn options(&self, address: IpAddr) -> PgConnectOptions {
        let mode = match self.ssl_mode {
            SslMode::Disable => PgSslMode::Disable,
            SslMode::Prefer => PgSslMode::Prefer,
            SslMode::Require => PgSslMode::Require,
            SslMode::VerifyCa => PgSslMode::VerifyCa,
            SslMode::VerifyFull => PgSslMode::VerifyFull,
        };
        let host = match self.ssl_mode {
            SslMode::VerifyFull => self.host.clone(),
            _ => address.to_string(),
        };
        // Neither the environment nor a file of the server says anything about a customer's database.
        let options = PgConnectOptions::new_without_pgpass()
            .host(&host)
            .port(self.port)
            .database(&self.database)
            .username(&self.user)
            .password(self.password.expose())
            .ssl_mode(mode)
            .application_name("personas");
        match &self.root_certificate {
            Some(pem) => options.ssl_root_cert_from_pem(pem.clone().into_bytes()),
            None => options,
        }
    }
}
