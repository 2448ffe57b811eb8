//! Puts an export of a space into an empty space of this database: `personas import-space`.
//!
//! The folder is read twice: first to see that it is what its manifest says, then into one transaction. What follows from the
//! log is derived by a rebuild afterwards, as anywhere else.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::iter::Peekable;
use std::path::Path;

use anyhow::{Context, ensure};
use chrono::NaiveDate;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use sqlx::postgres::PgPool;

use crate::domain::ids::parse_public_id;
use crate::domain::{EventType, Offset, SourceNo, SpaceNo, Timestamp, json};
use crate::store::log::codec::{FORMAT, Record};
use crate::store::log::{self, NewChunk};
use crate::store::{exports, imports};

/// Fast and small, as chunks are when they come in.
const COMPRESSION_LEVEL: i32 = 1;

/// A chunk of the log as it was.
#[derive(Debug, Clone, Copy, Deserialize)]
struct ChunkLine {
    end_offset: u64,
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
    erased: bool,
    #[serde(default)]
    call: Option<Box<RawValue>>,
    #[serde(default)]
    act: Option<Box<RawValue>>,
}

/// The lines of a file of the folder; none where there is no such file.
struct Rows(Option<Peekable<Lines<BufReader<File>>>>);

impl Rows {
    fn open(folder: &Path, file: &str) -> anyhow::Result<Self> {
        let path = folder.join(format!("{file}.ndjson"));
        if !path.exists() {
            return Ok(Self(None));
        }
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        Ok(Self(Some(BufReader::new(file).lines().peekable())))
    }

    fn next(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self.0.as_mut().and_then(Iterator::next).transpose()?)
    }
}

/// Events or acts, in the order of the log, the next one read already.
struct Ahead {
    rows: Rows,
    next: Option<EventLine>,
}

impl Ahead {
    fn open(folder: &Path, file: &str) -> anyhow::Result<Self> {
        let mut ahead = Self { rows: Rows::open(folder, file)?, next: None };
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

/// What was put in place.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Restored {
    /// Events and acts of the log.
    pub events: u64,
    /// Chunks they stand in.
    pub chunks: u64,
}

/// See the module.
pub(super) async fn restore(pool: &PgPool, space: SpaceNo, folder: &Path) -> anyhow::Result<Restored> {
    check(folder)?;
    let mut weeks: Vec<NaiveDate> = Vec::new();
    let mut chunks = Rows::open(folder, "chunks")?;
    while let Some(line) = chunks.next()? {
        let chunk: ChunkLine = serde_json::from_str(&line)?;
        let week = log::monday_of(chunk.day);
        if weeks.last() != Some(&week) {
            weeks.push(week);
        }
    }
    // Before anything is locked: others write into the log meanwhile.
    for week in weeks {
        log::create_week(pool, week).await?;
    }
    let mut tx = pool.begin().await?;
    ensure!(
        imports::begin(&mut tx, space).await?,
        "the space has events or definitions already: an export goes into an empty one"
    );
    let mut sources = HashMap::new();
    for table in exports::TABLES {
        let mut rows = Rows::open(folder, table)?;
        let mut some = Vec::new();
        while let Some(row) = rows.next()? {
            if table == "source" {
                note_source(&row, &mut sources)?;
            }
            some.push(row);
        }
        // Definitions and types of identifiers: there are some thousands at most.
        imports::insert_rows(&mut tx, space, table, &some).await?;
    }
    imports::settle(&mut tx, space).await?;
    let restored = append_all(&mut tx, space, folder, &sources).await?;
    tx.commit().await?;
    Ok(restored)
}

/// Sees that every file is what the manifest says.
fn check(folder: &Path) -> anyhow::Result<()> {
    let path = folder.join("manifest.json");
    let manifest = File::open(&path).with_context(|| {
        format!("{}: a folder that `personas export` has written has a manifest", path.display())
    })?;
    let manifest: Value = serde_json::from_reader(BufReader::new(manifest)).context("the manifest")?;
    ensure!(manifest.get("kind") == Some(&"space".into()), "it is not the export of a space");
    ensure!(manifest.get("version") == Some(&1.into()), "it was written by a later version of this program");
    for (file, said) in manifest.get("files").and_then(Value::as_object).into_iter().flatten() {
        let (mut hash, mut count, mut rows) = (Sha256::new(), 0_u64, Rows::open(folder, file)?);
        while let Some(row) = rows.next()? {
            hash.update(row.as_bytes());
            hash.update(b"\n");
            count += 1;
        }
        let hash = hex::encode(hash.finalize());
        let is_right = said.get("rows") == Some(&count.into()) && said.get("sha256") == Some(&hash.into());
        ensure!(is_right, "{file}.ndjson is not what the manifest says");
    }
    Ok(())
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

async fn append_all(
    tx: &mut PgConnection,
    space: SpaceNo,
    folder: &Path,
    sources: &HashMap<uuid::Uuid, SourceNo>,
) -> anyhow::Result<Restored> {
    let mut restored = Restored::default();
    let (mut chunks, mut events, mut acts) =
        (Rows::open(folder, "chunks")?, Ahead::open(folder, "events")?, Ahead::open(folder, "acts")?);
    while let Some(line) = chunks.next()? {
        let chunk: ChunkLine = serde_json::from_str(&line)?;
        let first = chunk.end_offset + 1 - u64::from(chunk.events);
        let mut making = Making::new();
        for offset in first..=chunk.end_offset {
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
        let is_first = restored.chunks == 0;
        imports::append(tx, &new, Offset(chunk.end_offset), chunk.day, is_first).await?;
        restored.chunks += 1;
        restored.events += u64::from(chunk.events);
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
