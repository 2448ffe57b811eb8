//! `personas backup` and `personas restore`: the private Postgres as one file, and back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::Common;
use crate::app;
use crate::telemetry;

/// A path that means standard input or output.
const PIPE: &str = "-";

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file to write, which must not be there yet; `-` writes to standard output, to be encrypted or sent elsewhere
    #[arg(value_name = "FILE")]
    to: PathBuf,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The backup; `-` reads standard input
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// Move the data that is there aside
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    common: Common,
}

/// Writes a backup. An unfinished file is not left behind.
pub(super) fn backup(backup: &Backup) -> anyhow::Result<ExitCode> {
    let config = backup.common.load(Vec::new())?;
    telemetry::init(&config.telemetry)?;
    let runtime = super::runtime()?;
    if backup.to == Path::new(PIPE) {
        let copied = runtime.block_on(Box::pin(app::backup(&config, &mut io::stdout())))?;
        writeln!(io::stderr(), "{} bytes of data are in the backup", copied.bytes)?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown = backup.to.display();
    // Nobody else may read it.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&backup.to);
    let file = file.with_context(|| format!("the backup cannot be written to {shown}"))?;
    let mut out = BufWriter::new(&file);
    let copied = runtime.block_on(Box::pin(app::backup(&config, &mut out)));
    let copied = copied.and_then(|copied| {
        out.flush()?;
        file.sync_all()?;
        Ok(copied)
    });
    drop(out);
    match copied {
        Ok(copied) => {
            let size = file.metadata()?.len();
            writeln!(io::stdout(), "{shown}: {} bytes of data in {size} bytes", copied.bytes)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let _kept = fs::remove_file(&backup.to);
            Err(error)
        }
    }
}

/// Puts a backup back.
pub(super) fn restore(restore: &Restore) -> anyhow::Result<ExitCode> {
    let config = restore.common.load(Vec::new())?;
    telemetry::init(&config.telemetry)?;
    let shown = restore.from.display();
    let mut from: Box<dyn Read> = if restore.from == Path::new(PIPE) {
        Box::new(io::stdin())
    } else {
        let file = File::open(&restore.from).with_context(|| format!("the backup {shown} cannot be read"))?;
        Box::new(BufReader::new(file))
    };
    let copied = app::restore(&config, restore.replace, &mut from)?;
    let mut out = io::stdout();
    writeln!(out, "{} bytes of data were put back", copied.bytes)?;
    if let Some(before) = copied.before {
        writeln!(
            out,
            "what was there before is in {}: delete it when you need it no more",
            before.display()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
