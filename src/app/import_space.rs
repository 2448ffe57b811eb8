//! Puts an export of a space into an empty space of this database: `personas import-space`.
//!
//! The folder is read twice: first to see that it is what its manifest says, then into one transaction. A manifest is no
//! signature, so what the rows say is checked, too: nothing is reserved, made or opened by a number or a name before that is
//! known to be possible. What follows from the log is derived by a rebuild afterwards, as anywhere else.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::iter::Peekable;
use std::path::Path;

use anyhow::{Context, ensure};
use chrono::{Datelike, NaiveDate};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use sqlx::postgres::PgPool;

use crate::domain::ids::parse_public_id;
use crate::domain::{EventType, Offset, SourceNo, SpaceNo, Timestamp, json};
use crate::query::EXPORTED_FILES;
use crate::store::log::codec::{FORMAT, Record};
use crate::store::log::{self, NewChunk};
use crate::store::{exports, imports};

/// Fast and small, as chunks are when they come in.
const COMPRESSION_LEVEL: i32 = 1;

/// No log has events of a year before this one.
const FIRST_YEAR: i32 = 2000;

/// A chunk of the log as it was.
#[derive(Debug, Clone, Copy, Deserialize)]
struct ChunkLine {
    end_offset: u64,
    events: u64,
    day: NaiveDate,
}

/// A chunk that can be: it follows the one before, and its numbers are such that the log can have them.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    first: Offset,
    end: Offset,
    events: u32,
    day: NaiveDate,
}

/// An event, or an operator's act.
#[derive(Debug, Deserialize)]
struct EventLine {
    offset: u64,
    message_id: String,
    received_at: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    source_id: Option<String>,
    #[serde(default)]
    clamped: bool,
    #[serde(default)]
    unprofiled: bool,
    #[serde(default)]
    public: bool,
    #[serde(default)]
    erased: bool,
    #[serde(default)]
    call: Option<Box<RawValue>>,
    #[serde(default)]
    act: Option<Box<RawValue>>,
}

/// The lines of a file of the folder; none where there is no such file.
struct Rows(Option<Peekable<Lines<BufReader<File>>>>);

impl Rows {
    fn next(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self.0.as_mut().and_then(Iterator::next).transpose()?)
    }
}

/// The folder of an export, every file of which is what the manifest says.
struct Folder<'a> {
    path: &'a Path,
    named: BTreeSet<String>,
}

impl<'a> Folder<'a> {
    fn check(path: &'a Path) -> anyhow::Result<Self> {
        let file = path.join("manifest.json");
        let manifest = File::open(&file).with_context(|| {
            format!("{}: a folder that `personas export` has written has a manifest", file.display())
        })?;
        let manifest: Value = serde_json::from_reader(BufReader::new(manifest)).context("the manifest")?;
        ensure!(manifest.get("kind") == Some(&"space".into()), "it is not the export of a space");
        ensure!(
            manifest.get("version") == Some(&1.into()),
            "it was written by a later version of this program"
        );
        let files =
            manifest.get("files").and_then(Value::as_object).context("the manifest names no files")?;
        let folder = Self { path, named: files.keys().cloned().collect() };
        for name in exports::LOG {
            ensure!(
                folder.named.contains(name),
                "the manifest does not name {name}.ndjson, which every export has"
            );
        }
        for (name, said) in files {
            // What is not known would be left out, and names are parts of paths.
            ensure!(
                known().any(|known| known == name),
                "the manifest names {name:?}, which is no file of an export"
            );
            let (mut hash, mut count, mut rows) = (Sha256::new(), 0_u64, folder.rows(name)?);
            while let Some(row) = rows.next()? {
                hash.update(row.as_bytes());
                hash.update(b"\n");
                count += 1;
            }
            let hash = hex::encode(hash.finalize());
            let is_right =
                said.get("rows") == Some(&count.into()) && said.get("sha256") == Some(&hash.into());
            ensure!(is_right, "{name}.ndjson is not what the manifest says");
        }
        for name in known().filter(|name| !folder.named.contains(*name)) {
            let is_there = path.join(format!("{name}.ndjson")).exists();
            ensure!(!is_there, "{name}.ndjson is in the folder, and the manifest does not name it");
        }
        Ok(folder)
    }

    /// The rows of a file; none of one that the manifest does not name.
    fn rows(&self, name: &str) -> anyhow::Result<Rows> {
        let path = self.path.join(format!("{name}.ndjson"));
        if !self.named.contains(name) || !path.exists() {
            return Ok(Rows(None));
        }
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        Ok(Rows(Some(BufReader::new(file).lines().peekable())))
    }
}

/// Names of all files an export has.
fn known() -> impl Iterator<Item = &'static str> {
    exports::TABLES.into_iter().chain(exports::LOG).chain(EXPORTED_FILES)
}

/// The chunks of the log, in its order.
struct Chunks {
    rows: Rows,
    before: Option<Chunk>,
    last_year: i32,
}

impl Chunks {
    fn open(folder: &Folder<'_>, now: Timestamp) -> anyhow::Result<Self> {
        // Clocks differ by a new year's night.
        Ok(Self {
            rows: folder.rows("chunks")?,
            before: None,
            last_year: now.to_utc().year().saturating_add(1),
        })
    }

    fn next(&mut self) -> anyhow::Result<Option<Chunk>> {
        let Some(row) = self.rows.next()? else { return Ok(None) };
        let chunk = self.read(&row).with_context(|| format!("chunks.ndjson cannot be a log: {row}"))?;
        self.before = Some(chunk);
        Ok(Some(chunk))
    }

    fn read(&self, row: &str) -> anyhow::Result<Chunk> {
        let ChunkLine { end_offset, events, day } = serde_json::from_str(row)?;
        ensure!(i64::try_from(end_offset).is_ok(), "end_offset goes up to {}", i64::MAX);
        let count = i32::try_from(events).ok().filter(|count| *count > 0);
        let count = count.with_context(|| format!("a chunk has 1 to {} events", i32::MAX))?;
        let before = end_offset.checked_sub(events);
        let before = before.with_context(|| format!("there are not {events} offsets up to {end_offset}"))?;
        let follows = self.before.is_none_or(|last| last.end.0 == before);
        ensure!(follows, "the chunk does not follow the one before");
        let is_day = (FIRST_YEAR..=self.last_year).contains(&day.year());
        ensure!(is_day, "the day is not in the years {FIRST_YEAR} to {}", self.last_year);
        ensure!(
            self.before.is_none_or(|last| last.day <= day),
            "the day is before the one of the chunk before"
        );
        Ok(Chunk { first: Offset(before + 1), end: Offset(end_offset), events: count.unsigned_abs(), day })
    }
}

/// Events or acts, in the order of the log, the next one read already.
struct Ahead {
    rows: Rows,
    next: Option<EventLine>,
}

impl Ahead {
    fn open(folder: &Folder<'_>, file: &str) -> anyhow::Result<Self> {
        let mut ahead = Self { rows: folder.rows(file)?, next: None };
        ahead.take()?;
        Ok(ahead)
    }

    /// The one that was read, and reads on.
    fn take(&mut self) -> anyhow::Result<Option<EventLine>> {
        let next = match self.rows.next()? {
            Some(line) => Some(serde_json::from_str(&line).context("a row of the log cannot be read")?),
            None => None,
        };
        Ok(std::mem::replace(&mut self.next, next))
    }
}

const NOT_EMPTY: &str = "the space has events or definitions already, or people who are kept out: an export goes into an empty one";

/// What was put in place.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Restored {
    /// Events and acts of the log.
    pub events: u64,
    /// Chunks they stand in.
    pub chunks: u64,
}

/// See the module.
pub(super) async fn restore(
    pool: &PgPool,
    space: SpaceNo,
    folder: &Path,
    now: Timestamp,
) -> anyhow::Result<Restored> {
    let folder = Folder::check(folder)?;
    let mut weeks: BTreeSet<NaiveDate> = BTreeSet::new();
    let mut chunks = Chunks::open(&folder, now)?;
    while let Some(chunk) = chunks.next()? {
        weeks.insert(log::monday_of(chunk.day));
    }
    let last = chunks.before;
    // Before there is anything, and before a transaction: others write into the log meanwhile.
    ensure!(imports::is_empty(&mut *pool.acquire().await?, space).await?, NOT_EMPTY);
    for week in weeks {
        log::create_week(pool, week).await?;
    }
    let mut sources = HashMap::new();
    let mut rows = folder.rows("source")?;
    while let Some(row) = rows.next()? {
        note_source(&row, &mut sources)?;
    }
    let mut tx = pool.begin().await?;
    let restored = put_log_aside(&mut tx, space, (&folder, now), &sources).await?;
    // From here on whoever sends events to the space waits.
    ensure!(imports::lock(&mut tx, space).await?, NOT_EMPTY);
    for table in exports::TABLES {
        let (mut rows, mut some) = (folder.rows(table)?, Vec::new());
        while let Some(row) = rows.next()? {
            some.push(row);
        }
        // Definitions and types of identifiers: there are some thousands at most.
        imports::insert_rows(&mut tx, space, table, &some).await?;
    }
    imports::settle(&mut tx, space).await?;
    if let Some(last) = last {
        imports::finish(&mut tx, space, restored.chunks, (last.end, last.day)).await?;
    }
    imports::announce(&mut tx).await?;
    tx.commit().await?;
    Ok(restored)
}

fn note_source(row: &str, sources: &mut HashMap<uuid::Uuid, SourceNo>) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Source {
        source_no: i32,
        source_id: uuid::Uuid,
    }
    let source: Source = serde_json::from_str(row).context("a source")?;
    sources.insert(source.source_id, SourceNo(source.source_no));
    Ok(())
}

async fn put_log_aside(
    tx: &mut PgConnection,
    space: SpaceNo,
    (folder, now): (&Folder<'_>, Timestamp),
    sources: &HashMap<uuid::Uuid, SourceNo>,
) -> anyhow::Result<Restored> {
    let mut restored = Restored::default();
    let (mut chunks, mut events, mut acts) =
        (Chunks::open(folder, now)?, Ahead::open(folder, "events")?, Ahead::open(folder, "acts")?);
    while let Some(chunk) = chunks.next()? {
        let mut making = Making::new();
        for offset in chunk.first.0..=chunk.end.0 {
            let is_act = acts.next.as_ref().is_some_and(|act| act.offset == offset);
            let line = if is_act { acts.take()? } else { events.take()? };
            let line = line.filter(|line| line.offset == offset);
            making
                .add(&line.with_context(|| format!("the event at offset {offset} is missing"))?, sources)?;
        }
        let body = zstd::bulk::compress(&making.content, COMPRESSION_LEVEL)?;
        let new = NewChunk {
            space,
            event_count: chunk.events,
            // They were counted where they were taken.
            metered: 0,
            received_at: making.received_at,
            names: Some(making.names),
            min_at: making.min_at,
            max_at: making.max_at,
            body: &body,
        };
        imports::put_aside(tx, &new, chunk.end, chunk.day).await?;
        restored.chunks += 1;
        restored.events += u64::from(chunk.events);
    }
    if let Some(left) = events.next.or(acts.next) {
        anyhow::bail!("the row at offset {} is in no chunk", left.offset);
    }
    Ok(restored)
}

/// A chunk being made.
struct Making {
    content: Vec<u8>,
    names: Vec<String>,
    received_at: Timestamp,
    min_at: Timestamp,
    max_at: Timestamp,
}

impl Making {
    fn new() -> Self {
        let (least, most) = (Timestamp::from_millis(i64::MIN), Timestamp::from_millis(i64::MAX));
        Self { content: vec![FORMAT], names: Vec::new(), received_at: least, min_at: most, max_at: least }
    }

    fn add(&mut self, line: &EventLine, sources: &HashMap<uuid::Uuid, SourceNo>) -> anyhow::Result<()> {
        let received_at = Timestamp::parse(&line.received_at).context("received_at is no time")?;
        let at = match (&line.act, &line.call) {
            (Some(act), _) => {
                Record::of_act(act.get(), &line.message_id, received_at).encode(&mut self.content);
                received_at
            }
            (None, Some(call)) => self.add_call(line, call.get(), received_at, sources)?,
            (None, None) => anyhow::bail!("the row at offset {} is neither an event nor an act", line.offset),
        };
        self.received_at = self.received_at.max(received_at);
        (self.min_at, self.max_at) = (self.min_at.min(at), self.max_at.max(at));
        if !self.names.contains(&line.name) {
            self.names.push(line.name.clone());
        }
        Ok(())
    }

    fn add_call(
        &mut self,
        line: &EventLine,
        call: &str,
        received_at: Timestamp,
        sources: &HashMap<uuid::Uuid, SourceNo>,
    ) -> anyhow::Result<Timestamp> {
        let text = |key: &str| json::get(call, key).and_then(json::string).unwrap_or_default();
        let raw = |key: &str| json::get(call, key).unwrap_or_default();
        let event_type = EventType::parse(&text("type")).context("a call has no type")?;
        let timestamp = Timestamp::parse(&text("timestamp")).context("the timestamp of a call is no time")?;
        let body = match event_type {
            EventType::Identify | EventType::Group => "traits",
            EventType::Track | EventType::Page | EventType::Screen | EventType::Alias => "properties",
        };
        let mut known =
            vec!["type", "messageId", "timestamp", "userId", "anonymousId", "groupId", "previousId"];
        known.extend([body, "context", "integrations"]);
        if event_type == EventType::Track {
            known.push("event");
        }
        let rest = json::entries(call).filter(|(key, _)| !known.contains(&key.as_ref()));
        let rest: Vec<String> = rest.map(|(key, value)| format!("{}:{value}", json::quote(&key))).collect();
        let extra = if rest.is_empty() { String::new() } else { format!("{{{}}}", rest.join(",")) };
        let source = line.source_id.as_deref().and_then(|id| parse_public_id("src", id));
        Record {
            event_type,
            clamped: line.clamped,
            unprofiled: line.unprofiled,
            public: line.public,
            erased: line.erased,
            timestamp,
            source: source.and_then(|id| sources.get(&id).copied()).unwrap_or(SourceNo(0)),
            name: &line.name,
            user_id: &text("userId"),
            anonymous_id: &text("anonymousId"),
            group_id: &text("groupId"),
            previous_id: &text("previousId"),
            body: raw(body),
            context: raw("context"),
            integrations: raw("integrations"),
            extra: &extra,
            act: false,
            ..Record::of_act("", &line.message_id, received_at)
        }
        .encode(&mut self.content);
        Ok(timestamp)
    }
}
