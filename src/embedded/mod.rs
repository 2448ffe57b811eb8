//! The private Postgres: found on this machine, set up once, started as a child that dies with us.
//!
//! Owns everything under the data folder. Guarantees:
//!
//! - **No port.** The server listens on a Unix socket in a folder only its own account may enter.
//! - **It dies with us**, even after `kill -9`: a small shell holds our pipe and stops Postgres when it closes.
//! - **One process per folder**, by a file lock the kernel gives back whatever happens to us.
//! - **Only data it made is touched.** A folder without our mark, or of another major version, is refused as it is.
//! - **fsync is on** unless [`Profile::Throwaway`] is asked for, which only tests do.
//!
//! Postgres refuses to run as root, so as root it is started under an unprivileged account ([`account`]).

pub mod account;
mod backup;
mod error;
pub mod find;
mod folder;
mod settings;
mod supervisor;

use std::path::PathBuf;

pub use backup::{Copied, backup, restore};
pub use error::EmbeddedError;
pub use find::{Binaries, INSTALL, SUPPORTED, Search, Version};
pub use folder::{FolderState, describe_folder};
pub use supervisor::{Ended, Postgres};

/// The database made for the service when the cluster is set up.
pub const DATABASE: &str = "personas";

/// The role everything connects as: the superuser of a cluster nobody else can reach.
pub const ROLE: &str = "postgres";

/// What to start and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that holds the cluster; made when it is not there. `PERSONAS_DATA_DIR`.
    pub data_dir: PathBuf,
    /// Where the Postgres binaries are looked for.
    pub search: Search,
    /// Durable for the service, throwaway for tests.
    pub profile: Profile,
}

impl Options {
    /// A durable cluster in `data_dir`, with binaries from the usual places.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), search: Search::usual(None), profile: Profile::Durable }
    }
}

/// How much the data matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// An acknowledged commit survives a power cut. Memory settings follow the machine.
    #[default]
    Durable,
    /// For test runs: nothing is flushed, little memory, many connections.
    Throwaway,
}
