//! `personas doctor`: looks at everything a start needs, changes nothing, and says what is wrong.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use super::Common;
use crate::app;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::disk;
use crate::embedded::{FolderState, INSTALL, SUPPORTED, Search, describe_folder};

/// Leases live by the database's clock and events by ours: more apart than this, in milliseconds, is a fault.
const SKEW_MAX_MS: i64 = 2_000;

/// What was found, told as it is found.
struct Findings<W> {
    out: W,
    failed: bool,
}

impl<W: Write> Findings<W> {
    fn good(&mut self, what: &str, found: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.out, "ok    {what:<14} {}", found.as_ref())
    }

    fn bad(&mut self, what: &str, found: impl AsRef<str>) -> io::Result<()> {
        self.failed = true;
        writeln!(self.out, "WRONG {what:<14} {}", found.as_ref())
    }
}

pub(super) fn run(common: &Common) -> anyhow::Result<ExitCode> {
    let mut findings = Findings { out: io::stdout(), failed: false };
    let config = match common.load(Vec::new()) {
        Ok(config) => config,
        Err(error) => {
            findings.bad("configuration", error.to_string())?;
            return Ok(ExitCode::from(config::EXIT_CODE));
        }
    };
    findings.good("configuration", "every option can be used")?;
    if let Some(file) = &config.ingest.analytics_js_file {
        match std::fs::metadata(file) {
            Ok(_) => findings.good("browser sdk", file.display().to_string())?,
            Err(error) => findings.bad("browser sdk", format!("{}: {error}", file.display()))?,
        }
    }
    let is_reachable = match config.database.url {
        Some(_) => true,
        None => private_postgres(&config, &mut findings)?,
    };
    if is_reachable {
        super::runtime()?.block_on(Box::pin(database(&config, &mut findings)))?;
    }
    Ok(if findings.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Binaries, folder and disk. Whether the database can be looked into without making or disturbing one.
fn private_postgres(config: &Config, findings: &mut Findings<impl Write>) -> anyhow::Result<bool> {
    let found = Search::usual(config.embedded.postgres_bin.clone()).all();
    let usable = found.iter().filter(|b| SUPPORTED.contains(&b.version.major));
    let names: Vec<String> = usable.map(|b| b.version.to_string()).collect();
    if names.is_empty() {
        let (oldest, newest) = (SUPPORTED.start(), SUPPORTED.end());
        findings.bad("postgres", format!("no binaries of Postgres {oldest} to {newest} found\n{INSTALL}"))?;
    } else {
        findings.good("postgres", format!("binaries of {}", names.join(", ")))?;
    }
    let folder = &config.embedded.data_dir;
    free_space(config, folder, findings)?;
    let shown = folder.display();
    match describe_folder(folder) {
        Ok(FolderState::New) => {
            findings.good("data folder", format!("{shown} is made by the first start"))?;
        }
        Ok(FolderState::Ours { in_use_by: Some(pid), .. }) => {
            let text = format!("{shown} is in use by process {pid}; ask it: GET /readyz?verbose");
            findings.good("data folder", text)?;
        }
        Ok(FolderState::Ours { major, .. }) => {
            findings.good("data folder", format!("{shown} holds a Postgres {major} cluster of ours"))?;
            return Ok(!names.is_empty());
        }
        Ok(FolderState::Foreign { dir, reason }) => {
            findings.bad(
                "data folder",
                format!("{} {reason}; name another folder in PERSONAS_DATA_DIR", dir.display()),
            )?;
        }
        Err(error) => findings.bad("data folder", error.to_string())?,
    }
    Ok(false)
}

fn free_space(config: &Config, folder: &Path, findings: &mut Findings<impl Write>) -> io::Result<()> {
    let least = config.ingest.disk_free_bytes_min;
    let absolute = std::path::absolute(folder)?;
    // A folder that is still to be made will be on the file system of the nearest one that is there.
    match absolute.ancestors().find_map(disk::free_bytes) {
        Some(free) if free < least => {
            findings.bad("disk", format!("{free} bytes are free; below {least} events are refused"))
        }
        Some(free) => findings.good("disk", format!("{} MiB are free", free >> 20)),
        None => findings.bad("disk", format!("cannot measure {}", absolute.display())),
    }
}

async fn database(config: &Config, findings: &mut Findings<impl Write>) -> io::Result<()> {
    let inspected = match app::inspect(config, &Clock::System).await {
        Ok(inspected) => inspected,
        Err(error) => return findings.bad("database", format!("{error:#}")),
    };
    findings.good("database", format!("Postgres {} answers", inspected.server_version))?;
    let (ours, theirs) = inspected.schema;
    match theirs {
        Some(theirs) if theirs > ours => {
            findings.bad(
                "schema",
                format!("version {theirs} is newer than this build's {ours}: install a newer build"),
            )?;
        }
        Some(theirs) if theirs == ours => findings.good("schema", format!("version {ours}"))?,
        Some(theirs) => {
            findings.good("schema", format!("version {theirs}; the next start brings it to {ours}"))?;
        }
        None => findings.good("schema", "none yet; the first start makes it")?,
    }
    let skew = inspected.skew_ms;
    if skew.abs() > SKEW_MAX_MS {
        findings.bad("clock", format!("the database's clock is {skew} ms away from this machine's"))
    } else {
        findings.good("clock", format!("within {} ms of the database's", skew.abs().max(1)))
    }
}
