//! Reading the file: lines, their numbers, and batches a server takes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use flate2::bufread::MultiGzDecoder;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_128;

use crate::domain::json;

/// Most events and bytes of one batch; the server takes 2,500 and 5 MiB by default.
const BATCH_EVENTS_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 3_500_000;
/// A longer line is not even kept in memory.
const LINE_BYTES_MAX: usize = BATCH_BYTES_MAX;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What was read at once.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) batch: Batch,
    /// Lines that are refused without asking the server.
    pub(super) too_long: Vec<u64>,
    /// The last line read.
    pub(super) line: u64,
    /// So many bytes of the file are read.
    pub(super) position: u64,
}

/// Events for one request.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The events, joined by commas.
    pub(super) events: String,
    /// The line each of them stands in.
    pub(super) lines: Vec<u64>,
}

/// The lines of a file, plain or gzip.
pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    position: Arc<AtomicU64>,
    /// Name of the file without `.gz`: part of the message ids made here.
    name: String,
    line: u64,
    /// A line that did not fit into the batch before.
    left: Option<(u64, String)>,
}

/// Counts what is read of the file itself, for the progress bar.
struct Counted<R> {
    inner: R,
    position: Arc<AtomicU64>,
}

impl<R: std::io::Read> std::io::Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.position.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Lines {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let position = Arc::new(AtomicU64::new(0));
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut raw = BufReader::new(Counted { inner: file, position: Arc::clone(&position) });
        let is_gzip = raw.fill_buf()?.starts_with(&GZIP_MAGIC);
        let reader: Box<dyn BufRead + Send> =
            if is_gzip { Box::new(BufReader::new(MultiGzDecoder::new(raw))) } else { Box::new(raw) };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
        Ok(Self { reader, position, name, line: 0, left: None })
    }

    /// Passes over the lines the server has.
    pub(super) fn skip_to(&mut self, line: u64) -> anyhow::Result<()> {
        while self.line < line {
            if self.reader.skip_until(b'\n')? == 0 {
                break;
            }
            self.line += 1;
        }
        Ok(())
    }

    /// The next events; nothing at the end of the file.
    pub(super) fn next_batch(&mut self) -> anyhow::Result<Option<Read>> {
        let mut batch = Batch::default();
        let mut too_long = Vec::new();
        while batch.lines.len() < BATCH_EVENTS_MAX {
            let (line, text) = match self.left.take() {
                Some(left) => left,
                None => match self.next_line()? {
                    Line::End => break,
                    Line::TooLong => {
                        too_long.push(self.line);
                        continue;
                    }
                    Line::Text(text) => (self.line, text),
                },
            };
            if text.is_empty() {
                continue;
            }
            // What is no JSON would spoil its neighbours; alone, the server makes of it what it can.
            let is_json = text.starts_with('{') && serde_json::from_str::<&RawValue>(&text).is_ok();
            let fits = batch.events.len() + text.len() < BATCH_BYTES_MAX;
            if !(batch.lines.is_empty() || is_json && fits) {
                self.left = Some((line, text));
                break;
            }
            let text = if is_json { self.with_message_id(line, text) } else { text };
            if !batch.lines.is_empty() {
                batch.events.push(',');
            }
            batch.events.push_str(&text);
            batch.lines.push(line);
            if !is_json {
                break;
            }
        }
        let line = self.left.as_ref().map_or(self.line, |(left, _)| left - 1);
        let is_end = batch.lines.is_empty() && too_long.is_empty();
        let position = self.position.load(Ordering::Relaxed);
        Ok((!is_end).then_some(Read { batch, too_long, line, position }))
    }

    fn next_line(&mut self) -> anyhow::Result<Line> {
        let mut bytes = Vec::new();
        let limit = LINE_BYTES_MAX as u64;
        let count = (&mut self.reader).take(limit).read_until(b'\n', &mut bytes);
        let count = count.with_context(|| format!("after line {}", self.line))?;
        if count == 0 {
            return Ok(Line::End);
        }
        self.line += 1;
        if count as u64 == limit && bytes.last() != Some(&b'\n') {
            self.reader.skip_until(b'\n')?;
            return Ok(Line::TooLong);
        }
        let text = String::from_utf8_lossy(&bytes);
        Ok(Line::Text(text.trim().trim_start_matches('\u{feff}').to_owned()))
    }

    /// An event without a message id gets one that is the same in every run over the same file.
    fn with_message_id(&self, line: u64, text: String) -> String {
        let [id] = json::pick(&text, ["messageId"]);
        if id.is_some_and(|id| !matches!(id, "null" | "\"\"")) {
            return text;
        }
        let identity = xxh3_128(format!("{}\n{line}\n{text}", self.name).as_bytes());
        let Some(open) = text.strip_suffix('}') else { return text };
        let comma = if open.trim_end().ends_with('{') { "" } else { "," };
        // Of two keys of one name the last one counts.
        format!("{open}{comma}\"messageId\":\"import-{identity:032x}\"}}")
    }
}

enum Line {
    End,
    TooLong,
    Text(String),
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(content: &[u8]) -> Lines {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        Lines::open(file.path()).unwrap()
    }

    #[test]
    fn batches_keep_their_line_numbers() {
        let mut lines =
            lines(b"{\"messageId\":\"a\"}\n\n{\"messageId\":\"b\"}\nnot json\n{\"messageId\":\"c\"}");
        let mut seen = Vec::new();
        while let Some(read) = lines.next_batch().unwrap() {
            seen.push((read.batch.events, read.batch.lines, read.line));
        }
        let batch = |events: &str, lines: &[u64], line| (events.to_owned(), lines.to_vec(), line);
        assert_eq!(
            seen,
            [
                batch("{\"messageId\":\"a\"},{\"messageId\":\"b\"}", &[1, 3], 3),
                batch("not json", &[4], 4),
                batch("{\"messageId\":\"c\"}", &[5], 5),
            ]
        );
    }

    #[test]
    fn missing_message_ids_are_made_and_always_the_same() {
        let content = b"{}\n{\"a\":1,\"messageId\":null }\n{}\n";
        let read = |mut lines: Lines| lines.next_batch().unwrap().unwrap().batch.events;
        let mut first = lines(content);
        first.name = "f".to_owned();
        let mut second = lines(content);
        second.name = "f".to_owned();
        let (first, second) = (read(first), read(second));
        assert_eq!(first, second);
        let events: Vec<serde_json::Value> = serde_json::from_str(&format!("[{first}]")).unwrap();
        let ids: std::collections::BTreeSet<_> =
            events.iter().map(|e| e["messageId"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), 3, "{first}");
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let mut content = vec![b'x'; LINE_BYTES_MAX + 10];
        content.extend_from_slice(b"\n{\"messageId\":\"a\"}\n");
        let read = lines(&content).next_batch().unwrap().unwrap();
        assert_eq!((read.too_long, read.batch.lines, read.line), (vec![1], vec![2], 2));
    }

    #[test]
    fn what_is_done_is_skipped() {
        let mut lines = lines(b"{\"messageId\":\"a\"}\n{\"messageId\":\"b\"}\n");
        lines.skip_to(1).unwrap();
        assert_eq!(lines.next_batch().unwrap().unwrap().batch.lines, [2]);
    }
}
