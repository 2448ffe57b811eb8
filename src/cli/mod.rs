//! The commands. Results go to standard output, everything else to standard error; the exit code is 0, 1, or 78
//! (`EX_CONFIG`) when the operator has to change something before another try can succeed.

mod backup;
mod bench;
mod client;
mod demo;
mod doctor;
mod export;
mod import;
mod import_space;
mod migrate;
mod openapi;
mod rebuild;
mod scrub;
mod serve;
mod verify;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{self, Config, ConfigError, Sources};
use crate::embedded::EmbeddedError;
use crate::http::tls::TlsError;
use crate::manage::ManageError;

/// Customer profiles and live audiences from Segment-protocol events.
#[derive(Debug, Parser)]
#[command(name = "personas", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the service
    Serve(serve::Serve),
    /// Bring the schema of the database up to date, and end
    Migrate(Common),
    /// Check configuration, database, schema, disk and clock, and say what is wrong
    Doctor(Common),
    /// Make profiles again from the log and compare them with what is stored
    Verify(verify::Verify),
    /// Derive a space again from its log, say what is different, and put it in place
    Rebuild(rebuild::Rebuild),
    /// Write the private Postgres into one file; the service may run meanwhile
    Backup(backup::Backup),
    /// Put a backup in the place of the private Postgres, while nothing runs
    Restore(backup::Restore),
    /// Take what was deleted out of the files of the database and its write-ahead log, too; the service may run meanwhile
    Scrub(Common),
    /// Make a space with a small shop, and watch its audiences fill
    Demo(demo::Demo),
    /// Send a file of tracking calls, one JSON object a line, plain or gzip, to a running server
    Import(import::Import),
    /// Write everything there is of a person, or of a space, into a folder
    Export(export::Export),
    /// Put an export of a space into an empty one
    ImportSpace(import_space::ImportSpace),
    /// Measure this build against plain Postgres on this machine
    Bench(bench::Bench),
    /// Print the description of the HTTP interface
    Openapi,
    /// Print what makes a shell complete these commands: `personas completions bash > /etc/bash_completion.d/personas`
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// What most commands take.
#[derive(Debug, Args)]
struct Common {
    /// A configuration file; else `PERSONAS_CONFIG`, else ./personas.toml if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Common {
    fn load(&self, flags: Vec<(&'static str, String)>) -> Result<Config, ConfigError> {
        Config::load(&Sources::of_process(self.config.clone(), flags))
    }
}

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    let Cli { command } = Cli::parse();
    let result = match command {
        Command::Serve(serve) => serve::run(&serve),
        Command::Migrate(common) => migrate::run(&common),
        Command::Verify(verify) => verify::run(&verify),
        Command::Rebuild(rebuild) => rebuild::run(&rebuild),
        Command::Backup(backup) => backup::backup(&backup),
        Command::Restore(restore) => backup::restore(&restore),
        Command::Scrub(common) => scrub::run(&common),
        Command::Doctor(common) => doctor::run(&common),
        Command::Bench(bench) => bench::run(&bench),
        Command::Demo(demo) => demo::run(&demo),
        Command::Import(import) => import::run(&import),
        Command::Export(export) => export::run(&export),
        Command::ImportSpace(import) => import_space::run(&import),
        Command::Openapi => openapi::run(),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "personas", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            // Nobody is left to tell when standard error is gone too.
            let _gone = writeln!(io::stderr(), "personas: {error:#}");
            exit_code(&error)
        }
    }
}

/// 78 when the operator has to change something, else 1.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_configuration = error.chain().any(|cause| {
        cause.is::<ConfigError>()
            || cause.is::<TlsError>()
            || cause.downcast_ref().is_some_and(EmbeddedError::is_configuration)
            || matches!(cause.downcast_ref(), Some(ManageError::Invalid { .. }))
    });
    if is_configuration { ExitCode::from(config::EXIT_CODE) } else { ExitCode::FAILURE }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
