//! Why there is no private Postgres, in words an operator can act on.

use std::{io, path::PathBuf};

use super::find::{INSTALL, SUPPORTED};

/// Every way the private Postgres can fail. The text is the whole message an operator sees.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No usable binaries; `found` lists those of other versions.
    #[error(
        "no Postgres of version {} to {} found{}\n{INSTALL}",
        SUPPORTED.start(), SUPPORTED.end(), passed_over(found)
    )]
    NotFound {
        /// `folder (version)` of binaries that were passed over.
        found: Vec<String>,
    },
    /// The folder named by `PERSONAS_POSTGRES_BIN` does not hold usable binaries.
    #[error("PERSONAS_POSTGRES_BIN is {dir}, and {reason}\n{INSTALL}")]
    BadBinFolder {
        /// The folder that was named.
        dir: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The cluster was made by a major version that is not on this machine.
    #[error(
        "the data in {dir} was made by Postgres {data}, and no Postgres {data} is installed here{}: install it, or dump \
         the data with Postgres {data} and load it into a new PERSONAS_DATA_DIR; nothing was changed",
        passed_over(found)
    )]
    OtherMajor {
        /// The cluster.
        dir: PathBuf,
        /// Its `PG_VERSION`.
        data: String,
        /// `folder (version)` of the binaries that are here.
        found: Vec<String>,
    },
    /// The folder holds something we did not make.
    #[error("{dir} {reason}; nothing was changed: name an empty or new folder in PERSONAS_DATA_DIR")]
    Foreign {
        /// The folder.
        dir: PathBuf,
        /// What it holds.
        reason: &'static str,
    },
    /// Another process of ours runs on this folder.
    #[error(
        "another personas process{} is using {dir}: stop it, or give this one its own PERSONAS_DATA_DIR, or a shared \
         Postgres in DATABASE_URL",
        holder.as_deref().map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Its process id, when it could be read.
        holder: Option<String>,
    },
    /// A server from before did not go away in time.
    #[error(
        "an earlier Postgres (pid {pid}) still holds {dir} after {seconds} s: stop it with `kill -INT {pid}`; if that \
         process is not Postgres, remove {dir}/postmaster.pid"
    )]
    StillThere {
        /// The cluster.
        dir: PathBuf,
        /// What its `postmaster.pid` names.
        pid: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A folder belongs to an account that cannot run this Postgres.
    #[error("{dir} belongs to user id {owner}, and Postgres must run as user id {wanted}: change the owner")]
    WrongOwner {
        /// The folder.
        dir: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who has to.
        wanted: u32,
    },
    /// Running as root on a machine without an account to step down to.
    #[error(
        "Postgres does not run as root, and this machine has neither a `postgres` nor a `nobody` account: make one, start \
         personas as another user, or set DATABASE_URL"
    )]
    NoAccount,
    /// A step of setting up or starting ended badly.
    #[error("Postgres could not {step} in {dir} ({status}); its last words:\n{log}")]
    Failed {
        /// What was being done: `set up its data folder`, `start`.
        step: &'static str,
        /// The cluster.
        dir: PathBuf,
        /// How the process ended.
        status: String,
        /// The end of what it wrote.
        log: String,
    },
    /// It neither started nor ended in time.
    #[error("Postgres in {dir} took longer than {seconds} s to {step}; its last words:\n{log}")]
    TooSlow {
        /// What was being done.
        step: &'static str,
        /// The cluster.
        dir: PathBuf,
        /// How long was waited.
        seconds: u64,
        /// The end of what it wrote.
        log: String,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The verb.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl EmbeddedError {
    /// Whether the operator has to change something before another try can succeed (exit code 78, as for any bad
    /// configuration), as against something that may pass by itself.
    pub const fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. }
                | Self::BadBinFolder { .. }
                | Self::OtherMajor { .. }
                | Self::Foreign { .. }
                | Self::WrongOwner { .. }
                | Self::NoAccount
        )
    }

    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

/// `: only 14.2 in /usr/…` for messages about binaries that are there but do not fit.
fn passed_over(found: &[String]) -> String {
    if found.is_empty() { String::new() } else { format!(" (only {})", found.join(", ")) }
}
