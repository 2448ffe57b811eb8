//! `personas migrate`: brings the schema up to date without serving.

use std::io::{self, Write};
use std::process::ExitCode;

use super::Common;
use crate::app;
use crate::telemetry;

pub(super) fn run(common: &Common) -> anyhow::Result<ExitCode> {
    let config = common.load(Vec::new())?;
    telemetry::init(&config.telemetry)?;
    let version = super::runtime()?.block_on(Box::pin(app::migrate(&config)))?;
    writeln!(io::stdout(), "the schema is at version {version}")?;
    Ok(ExitCode::SUCCESS)
}
