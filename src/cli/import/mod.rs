//! `personas import`: sends a file of tracking calls to a running server, the way an SDK would, only faster.
//!
//! The file is read once, in order; a few batches are under way at a time and their answers are taken in order, so
//! that one line number says how far the server has everything. That number is kept beside the file.

mod read;
mod resume;
mod send;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures_util::{Stream, StreamExt};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;
use url::Url;

use super::client::Client;
use read::{Lines, Read};
use resume::{Done, Journal};
use send::{Outcome, Refusal};

/// Batches under way at a time: while one waits for its commit the next ones are parsed.
const IN_FLIGHT: usize = 4;
/// Refused lines that are told one by one.
const REFUSALS_TOLD: u64 = 20;

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file: one tracking call with its `type` a line; gzip is recognised by its content
    file: PathBuf,
    /// Where the server is
    #[arg(long, env = "PERSONAS_URL", default_value = "http://127.0.0.1:8080")]
    url: Url,
    /// Write key of the source the events are to come from [env: `PERSONAS_WRITE_KEY`, else
    /// `PERSONAS_BOOTSTRAP_WRITE_KEY`]
    #[arg(long, value_name = "KEY")]
    write_key: Option<String>,
    /// Name of the space, for the messages only: the write key decides
    #[arg(long, env = "PERSONAS_SPACE")]
    space: Option<String>,
    /// Name of the source, for the messages only: the write key decides
    #[arg(long, env = "PERSONAS_SOURCE")]
    source: Option<String>,
}

impl Import {
    fn key(&self) -> anyhow::Result<String> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.write_key
            .clone()
            .or_else(|| variable("PERSONAS_WRITE_KEY"))
            .or_else(|| variable("PERSONAS_BOOTSTRAP_WRITE_KEY"))
            .context("no write key: give --write-key or set PERSONAS_WRITE_KEY")
    }

    /// Where the events go, for people.
    fn target(&self) -> String {
        let mut text = self.url.to_string();
        for (word, name) in [("space", &self.space), ("source", &self.source)] {
            if let Some(name) = name {
                text = format!("{text}, {word} {name}");
            }
        }
        text
    }
}

pub(super) fn run(import: &Import) -> anyhow::Result<ExitCode> {
    super::runtime()?.block_on(Box::pin(send_file(import)))
}

async fn send_file(import: &Import) -> anyhow::Result<ExitCode> {
    let key = import.key()?;
    let client = Client::new(&import.url, &key)?;
    let bytes = std::fs::metadata(&import.file).with_context(|| import.file.display().to_string())?.len();
    client.reach().await?;
    let target = format!("{} {key}", import.url);
    let mut journal = Journal::open(&import.file, &target)?;
    let lines = Lines::open(&import.file)?;
    let bar = bar(bytes);
    if let Some(problem) = journal.problem() {
        say(&bar, &format!("this import cannot be resumed: {problem}"));
    }
    if journal.done.line > 0 {
        say(&bar, &format!("resuming after line {}", journal.done.line));
    }
    let sent = send_lines(&client, lines, &mut journal, &bar).await;
    bar.finish_and_clear();
    if let Err(error) = sent {
        let line = journal.done.line;
        let hint = if journal.problem().is_some() { "" } else { "; the same command goes on from there" };
        return Err(error.context(format!("stopped after line {line}{hint}")));
    }
    let duplicates = send::count_duplicates(&client, journal.done.ranges()).await?;
    journal.finish();
    tell(&journal.done, duplicates, &import.target()).context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn bar(bytes: u64) -> ProgressBar {
    // Without a terminal there is no bar; what is said beside it goes to standard error all the same.
    let target =
        if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    let template = "{bar:32} {percent:>3}% {binary_bytes}/{binary_total_bytes} {msg} (about {eta} left)";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// Sends everything behind what is done already.
async fn send_lines(
    client: &Client,
    lines: Lines,
    journal: &mut Journal,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let (batches, read) = batches(lines, journal.done.line);
    let mut outcomes = std::pin::pin!(batches.map(|read| send::deliver(client, read)).buffered(IN_FLIGHT));
    let (mut told, mut failure) = (journal.done.rejected, None);
    while let Some(outcome) = outcomes.next().await {
        let outcome: Outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                failure = Some(error);
                break;
            }
        };
        for refusal in &outcome.refused {
            tell_refusal(bar, refusal, &mut told);
        }
        bar.set_position(outcome.position);
        journal.record(&outcome);
        bar.set_message(format!("{} events", journal.done.accepted));
    }
    match failure {
        Some(error) => Err(error),
        None => read.await.context("reading the file")?,
    }
}

/// Reads on a thread of its own: decompressing and looking for line ends takes time.
fn batches(
    mut lines: Lines,
    skip: u64,
) -> (impl Stream<Item = Read>, tokio::task::JoinHandle<anyhow::Result<()>>) {
    let (sender, mut receiver) = mpsc::channel(IN_FLIGHT);
    let reading = tokio::task::spawn_blocking(move || {
        lines.skip_to(skip)?;
        while let Some(read) = lines.next_batch()? {
            if sender.blocking_send(read).is_err() {
                break;
            }
        }
        Ok(())
    });
    (futures_util::stream::poll_fn(move |context| receiver.poll_recv(context)), reading)
}

fn tell_refusal(bar: &ProgressBar, refusal: &Refusal, told: &mut u64) {
    *told += 1;
    let Refusal { line, code, message } = refusal;
    let text = match *told {
        ..=REFUSALS_TOLD => format!("line {line}: {code}: {message}"),
        n if n == REFUSALS_TOLD + 1 => {
            "more lines were refused; the server lists them as rejected events".to_owned()
        }
        _ => return,
    };
    say(bar, &text);
}

/// Beside the bar, or where it would be.
fn say(bar: &ProgressBar, text: &str) {
    if bar.is_hidden() {
        // Nobody is left to tell when standard error is gone too.
        let _gone = writeln!(io::stderr(), "{text}");
    } else {
        bar.println(text);
    }
}

fn tell(done: &Done, duplicates: u64, target: &str) -> io::Result<()> {
    let Done { line, accepted, rejected, .. } = done;
    let mut out = io::stdout();
    writeln!(out, "{line} lines sent to {target}")?;
    writeln!(out, "  accepted   {:>10}", accepted.saturating_sub(duplicates))?;
    writeln!(out, "  duplicate  {duplicates:>10}")?;
    writeln!(out, "  rejected   {rejected:>10}")?;
    out.flush()
}
