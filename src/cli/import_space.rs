//! `personas import-space`: puts an export of a space into an empty one, and derives what follows from its log.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Common;
use crate::app;
use crate::telemetry;

#[derive(Debug, Args)]
pub(super) struct ImportSpace {
    /// The folder that `personas export` has written
    folder: PathBuf,
    /// The space it goes into; it has no events and no definitions
    #[arg(long)]
    space: String,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(import: &ImportSpace) -> anyhow::Result<ExitCode> {
    let config = import.common.load(Vec::new())?;
    telemetry::init(&config.telemetry)?;
    let work = app::import_space(&config, &import.space, &import.folder);
    let app::Restored { events, chunks } = super::runtime()?.block_on(Box::pin(work))?;
    let space = &import.space;
    writeln!(
        io::stdout(),
        "{events} events in {chunks} chunks are in space {space}, and everything is derived of them"
    )?;
    Ok(ExitCode::SUCCESS)
}
