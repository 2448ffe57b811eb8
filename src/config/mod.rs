//! The configuration: compiled-in defaults, then a file, then environment variables, then flags.
//!
//! Owns every option's name, type and range. Guarantees that a bad configuration is refused with *all* that is wrong
//! in it, each with its place and a hint, and that secrets do not show up in `Debug`. `config/personas.toml` is both
//! the defaults and the documentation (`docs/configuration.md` is made from it).

mod reader;
mod secret;
mod sections;
mod sources;

use std::fmt;

pub use secret::Secret;
pub use sections::{
    Bootstrap, Config, Database, Deliver, Egress, Embedded, Ingest, LogFormat, LogRetention, Processor,
    Query, Server, Telemetry, Verify,
};
pub use sources::{Sources, variable};

/// The defaults, with a comment on every option.
pub const DEFAULTS: &str = include_str!("../../config/personas.toml");

/// The exit code for a bad configuration: `EX_CONFIG` of `sysexits.h`.
pub const EXIT_CODE: u8 = 78;

impl Config {
    /// Reads the configuration, or says everything that is wrong with it.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let (figment, mut problems) = sources.merge();
        let mut reader = reader::Reader::new(&figment);
        let config = Self::read(&mut reader);
        problems.extend(reader.finish());
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Everything that is wrong, never empty.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The option (`server.listen`) or variable (`PERSONAS_LISTEN`).
    pub path: String,
    /// Where the value came from: a file, a variable, the command line.
    pub source: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is not usable:")?;
        for Problem { path, source, message } in &self.problems {
            write!(f, "\n  {path} (from {source}): {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
