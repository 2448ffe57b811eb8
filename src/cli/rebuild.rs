//! `personas rebuild`: derives a space again from its log, says what is different, and puts it in place.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use super::Common;
use crate::app::{self, Rebuilt, Some20, Told};
use crate::http::settings_change;
use crate::manage::identity_settings::SettingsChange;
use crate::telemetry;

/// How often progress is told where nobody watches.
const TELL_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct Rebuild {
    /// The space
    #[arg(long)]
    space: String,
    /// Only say what would be different, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Try other identity settings: a file with what is to be changed, as `PATCH …/identity/settings` takes it; `-` reads
    /// standard input
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    settings: Option<PathBuf>,
    /// The report as JSON
    #[arg(long)]
    json: bool,
    /// Also when the first events of the log are no longer kept: profiles that have none left are lost
    #[arg(long)]
    forget_lost: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(rebuild: &Rebuild) -> anyhow::Result<ExitCode> {
    let config = rebuild.common.load(Vec::new())?;
    telemetry::init(&config.telemetry)?;
    let teller = Teller::default();
    let tell = |told| teller.tell(&told);
    let task = app::Rebuild {
        space: &rebuild.space,
        dry_run: rebuild.dry_run,
        forget_lost: rebuild.forget_lost,
        settings: rebuild.settings.as_deref().map(read_settings).transpose()?,
    };
    let work = app::rebuild(&config, task, &tell);
    let report = super::runtime()?.block_on(Box::pin(work));
    teller.end_line();
    let report = report?;
    let mut out = io::stdout();
    if rebuild.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&mut out, &report)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read_settings(path: &Path) -> anyhow::Result<SettingsChange> {
    let text = match path.to_str() {
        Some("-") => io::read_to_string(io::stdin()),
        _ => fs::read_to_string(path),
    };
    let text = text.with_context(|| format!("could not read {}", path.display()))?;
    settings_change(&text).with_context(|| format!("{} is no change of identity settings", path.display()))
}

/// Tells progress on standard error: on one line for who watches, else a line every now and then.
#[derive(Default)]
struct Teller(Mutex<Telling>);

#[derive(Default)]
struct Telling {
    last: Option<Instant>,
    in_line: bool,
}

impl Teller {
    fn tell(&self, told: &Told) {
        let words = match told {
            Told::Begins => "begins at the first event of the log".to_owned(),
            Told::GoesOn(offset) => format!("goes on behind event {offset}"),
            Told::BeginsAnew => {
                "definitions, identity settings or the log have changed: begins anew".to_owned()
            }
            Told::WaitsFor(keys) => format!("waits for definitions being computed: {}", keys.join(", ")),
            Told::Compares => "compares".to_owned(),
            Told::Swaps => "puts it in place".to_owned(),
            Told::Progress(offset, end) => return self.tell_progress(offset.0, end.0),
        };
        self.end_line();
        let _gone = writeln!(io::stderr(), "{words}");
    }

    fn tell_progress(&self, offset: u64, end: u64) {
        let mut telling = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut err = io::stderr();
        let share = if end == 0 { 100.0 } else { offset as f64 * 100.0 / end as f64 };
        let words = format!("{offset} of {end} events ({share:.1} %)");
        if err.is_terminal() {
            let _gone = write!(err, "\r{words}\x1b[K");
            telling.in_line = true;
        } else if offset == end || telling.last.is_none_or(|last| last.elapsed() >= TELL_EVERY) {
            let _gone = writeln!(err, "{words}");
            telling.last = Some(Instant::now());
        }
    }

    fn end_line(&self) {
        let mut telling = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if std::mem::take(&mut telling.in_line) {
            let _gone = writeln!(io::stderr());
        }
    }
}

fn print(out: &mut impl Write, report: &Rebuilt) -> io::Result<()> {
    writeln!(
        out,
        "at event {}: {} profiles live, {} rebuilt; {} merges live, {} rebuilt",
        report.offset,
        report.profiles_live,
        report.profiles_rebuilt,
        report.merges_live,
        report.merges_rebuilt
    )?;
    let different = &report.different;
    let kinds = [
        ("only live", &report.only_live),
        ("only rebuilt", &report.only_rebuilt),
        ("other identifiers", &different.identifiers),
        ("other traits", &different.traits),
        ("other computed traits", &different.computed_traits),
        ("other memberships", &different.memberships),
        ("other accounts", &different.links),
        ("different otherwise", &different.otherwise),
    ];
    for (words, Some20 { count, sample }) in kinds.into_iter().filter(|(_, some)| some.count > 0) {
        writeln!(out, "{words}: {count} ({})", sample.join(", "))?;
    }
    for audience in &report.audiences {
        writeln!(out, "audience {}: {} enter, {} leave", audience.key, audience.entered, audience.left)?;
    }
    if report.is_same() {
        writeln!(out, "nothing anybody sees is different")?;
    }
    match report.swap {
        Some(swap) => writeln!(
            out,
            "in place: {} rows written, {} transitions; processing stood still for {} ms",
            swap.rows, swap.transitions, swap.held_ms
        ),
        None => writeln!(out, "dry run: nothing was changed"),
    }
}
