//! What can go wrong below the SQL, sorted by what a caller can do about it.

use crate::telemetry::metrics;

/// A failed store operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away, full, overloaded or took too long: try again later.
    #[error("the database is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// Another writer owns what this one tried to write: stop, reload, take the lease again.
    #[error("fenced: another processor has taken over this space")]
    Fenced,
    /// The space's definitions or settings have changed since they were loaded: reload and do it again.
    #[error("the configuration of the space has changed")]
    ConfigChanged,
    /// Somebody else is at the chunks of the log for longer than anybody waits: try again later.
    #[error("the chunks of the log are held by somebody else; try again later")]
    Held,
    /// Stored bytes could not be read back.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// A unique name is taken.
    #[error("already exists")]
    Exists,
    /// Anything else the database said: a fault in our statements or schema.
    #[error("database error: {0}")]
    Database(#[source] sqlx::Error),
    /// The login of the database may not make the role that statements for callers run as.
    #[error(
        "the role {role} is missing or cannot be used by {login:?}, and {login:?} may not make it. Ask whoever may: \
         CREATE ROLE {role} NOLOGIN; GRANT {role} TO \"{login}\";"
    )]
    NoRole {
        /// The role, shared by all databases of the server.
        role: &'static str,
        /// Who the service is for the database.
        login: String,
    },
    /// The schema could not be brought up to date.
    #[error("migration failed: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Held)
    }

    /// The SQLSTATE the database gave, if it gave one.
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Unavailable(e) | Self::Database(e) => Some(e.as_database_error()?.code()?.into_owned()),
            _ => None,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let sorted = Self::sort(error);
        if !matches!(sorted, Self::Exists) {
            let code = sorted.sqlstate();
            let class = code.as_deref().and_then(|code| code.get(..2)).unwrap_or("connection");
            metrics::DB_ERRORS.add(&[class], 1);
        }
        sorted
    }
}

impl StoreError {
    fn sort(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::Protocol(_) => {
                Self::Unavailable(error)
            }
            E::Database(db) => match db.code().as_deref() {
                Some("23505") => Self::Exists,
                // Classes: 08 connection, 40 rollback, 53 resources, 57 operator intervention, 58 system; 25P03 and
                // 55P03 are time-outs.
                Some(code)
                    if ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                        || code == "25P03"
                        || code == "55P03" =>
                {
                    Self::Unavailable(error)
                }
                _ => Self::Database(error),
            },
            _ => Self::Database(error),
        }
    }
}

impl From<log_damage::Damaged> for StoreError {
    fn from(damage: log_damage::Damaged) -> Self {
        Self::Damaged(damage.to_string())
    }
}

use super::log::codec as log_damage;
