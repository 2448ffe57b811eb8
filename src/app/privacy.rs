//! What goes on with regulations while the service runs, and the journal of erasures beside the database: a database that
//! was restored from before an erasure knows nothing of it, and is told again before anybody is answered (privacy duty P4).

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use sqlx::postgres::PgPool;
use tokio::sync::mpsc;

use super::Tasks;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::act::{Actor, Signed};
use crate::history::sweep::Sweeper;
use crate::http::health::Health;
use crate::ingest::Ingest;
use crate::manage::Manage;
use crate::manage::regulations::KnownIds;
use crate::store::regulations::journal::{self, Entry};

/// Acts on their way into the log.
const ACTS_MAX: usize = 16;
/// How often the journal is written, and looked whether what was restored is erased again.
const WRITE_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for people to be erased again, before anybody is answered.
const ERASE_LIMIT: Duration = Duration::from_mins(2);
/// Entries that are written at a time.
const ENTRIES_AT_A_TIME: i64 = 1_000;
/// The journal in the data folder of the private Postgres.
const JOURNAL_FILE: &str = "erasures.ndjson";

/// Where the journal is; none for a database of somebody else's when no file is named.
pub(super) fn journal_file(config: &Config, is_private: bool) -> Option<PathBuf> {
    let named = config.privacy.journal_file.clone();
    named.or_else(|| is_private.then(|| config.embedded.data_dir.join(JOURNAL_FILE)))
}

/// Tells the database what it does not know of the journal. How much that was.
pub(super) async fn put_back(manage: &Manage, journal: &Path) -> anyhow::Result<u64> {
    let file = match File::open(journal) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).context(format!("the journal {} cannot be read", journal.display())),
    };
    let (mut count, mut known) = (0, KnownIds::default());
    for (place, line) in BufReader::new(file).split(b'\n').enumerate() {
        let line = line?;
        let entry = serde_json::from_slice::<Entry>(&line);
        // A line may have been cut by a crash: its people are not noted as written, and are written again.
        let Ok(entry) = entry else {
            tracing::warn!("line {} of the journal {} cannot be read", place + 1, journal.display());
            continue;
        };
        count += u64::from(manage.put_back(&entry, &mut known).await?);
    }
    if count > 0 {
        tracing::warn!(
            count,
            "the database is older than {count} entries of the journal of erasures: they are applied again"
        );
    }
    Ok(count)
}

/// Waits until nobody is there any more who was erased, so that nobody is answered or told of them. When that takes too long, the
/// service goes on without being ready.
pub(super) async fn wait_erased(manage: &Manage) -> anyhow::Result<()> {
    let until = tokio::time::Instant::now() + ERASE_LIMIT;
    while manage.has_waiting_erasures().await? {
        if tokio::time::Instant::now() > until {
            tracing::error!(
                "people who were erased are in the restored database still: the service is not ready"
            );
            break;
        }
        tokio::time::sleep(WRITE_EVERY / 10).await;
    }
    Ok(())
}

/// Goes through the log for what is left of who is erased, writes acts that were lost into it, and keeps the journal. Until
/// what was `restored` is erased again, the service is not ready.
pub(super) fn start(
    tasks: &Tasks,
    pool: &PgPool,
    (clock, ingest): (&Clock, &Ingest),
    (manage, health): (Manage, Health),
    (file, restored): (Option<PathBuf>, bool),
) {
    let (sender, mut acts) = mpsc::channel(ACTS_MAX);
    let sweeper = Sweeper { pool: pool.clone(), clock: clock.clone(), acts: sender };
    let (stop, serving) = (tasks.working.clone(), tasks.serving.clone());
    let (ingest, pool) = (ingest.clone(), pool.clone());
    health.set_erasing(restored);
    tasks.work("regulations", async move {
        // As requests do, it ends before the log writer does, which waits for everybody who may add to its queue.
        let append = async move {
            while let Some(Some((space, act))) = serving.run_until_cancelled(acts.recv()).await {
                let by = Actor { id: String::new(), name: "personas".to_owned() };
                if let Err(error) = ingest.append_act(space, &Signed { act, by }).await {
                    tracing::warn!(%error, "an act of a regulation could not be written: {error}");
                }
            }
        };
        let keep = async {
            while stop.run_until_cancelled(tokio::time::sleep(WRITE_EVERY)).await.is_some() {
                if let Some(file) = &file
                    && let Err(error) = write(&pool, file).await
                {
                    tracing::warn!(%error, "the journal of erasures could not be written: {error:#}");
                }
                if health.is_erasing() && matches!(manage.has_waiting_erasures().await, Ok(false)) {
                    health.set_erasing(false);
                }
            }
        };
        tokio::join!(sweeper.run(&stop), append, keep);
        Ok(())
    });
}

/// Adds what is new.
async fn write(pool: &PgPool, file: &Path) -> anyhow::Result<()> {
    loop {
        let new = journal::list_new(pool, ENTRIES_AT_A_TIME).await?;
        if new.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for (_, entry) in &new {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        let append = || -> io::Result<()> {
            let mut out = OpenOptions::new().read(true).create(true).append(true).mode(0o600).open(file)?;
            if ends_within_a_line(&mut out)? {
                out.write_all(b"\n")?;
            }
            out.write_all(&lines)?;
            out.sync_all()
        };
        append().with_context(|| file.display().to_string())?;
        journal::set_journaled(pool, &new).await?;
    }
}

/// Whether a crash has cut the last line.
fn ends_within_a_line(file: &mut File) -> io::Result<bool> {
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok(last != [b'\n'])
}
