//! `personas verify`: makes profiles again from the log and compares them with what is stored.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::Common;
use crate::app;
use crate::telemetry;

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Only this space; else all
    #[arg(long)]
    space: Option<String>,
    /// About so many profiles of each space, another choice each time; else all, and the counters with them
    #[arg(long, value_name = "N")]
    sample: Option<u64>,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(verify: &Verify) -> anyhow::Result<ExitCode> {
    let config = verify.common.load(Vec::new())?;
    telemetry::init(&config.telemetry)?;
    let work = app::verify(&config, verify.space.as_deref(), verify.sample);
    let reports = super::runtime()?.block_on(Box::pin(work))?;
    let mut out = io::stdout();
    let mut mismatches = 0;
    for (space, report) in reports {
        for what in &report.told {
            writeln!(out, "WRONG {space}: {what}")?;
        }
        let app::Verified { profiles, values, skipped, mismatches: wrong, .. } = report;
        let left_out = if skipped > 0 { format!(", {skipped} profiles left out") } else { String::new() };
        writeln!(out, "{space}: {profiles} profiles, {values} values compared, {wrong} differ{left_out}")?;
        mismatches += wrong;
    }
    Ok(if mismatches == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
