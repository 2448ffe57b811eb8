//! `personas scrub`: what was deleted is taken out of the files of the database, too.

use std::io::{self, Write};
use std::process::ExitCode;

use super::Common;
use crate::app;
use crate::telemetry;

pub(super) fn run(common: &Common) -> anyhow::Result<ExitCode> {
    let config = common.load(Vec::new())?;
    telemetry::init(&config.telemetry)?;
    let done = super::runtime()?.block_on(Box::pin(app::scrub(&config)))?;
    let mut out = io::stdout();
    writeln!(out, "{} tables were written anew: {} bytes, {} before", done.tables, done.bytes, done.before)?;
    if done.has_wal {
        writeln!(out, "the write-ahead log begins anew")?;
    } else {
        writeln!(
            out,
            "the write-ahead log of your own Postgres, its archive and its backups keep what was deleted for as long as you keep them"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
