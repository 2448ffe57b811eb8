//! The columns of a section: the events of one name in a stretch of the log, for scans that read a few of their
//! properties and not the rest.
//!
//! Properties stay the JSON text they were, so that whatever folds an event of the log folds the same event of a
//! section. A column whose values repeat is a dictionary. Everything is compressed by itself: a scan decompresses what
//! it reads.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::codec::{Damaged, Record};
use crate::domain::varint::{get_varint, put_varint, unzigzag, zigzag};
use crate::domain::{EventType, Facts, Offset, ProfileNo, SourceNo, Timestamp, json};

/// Columns of one section at most.
const KEYS_MAX: usize = 100;
/// Longest name of a column, in bytes.
const KEY_BYTES_MAX: usize = 200;
/// Values of a dictionary at most.
const DICTIONARY_MAX: usize = 4_096;
/// A dictionary is worth it when values occur so often on average.
const REPEATED: usize = 4;
/// Fast, and as good as the levels after it on text that is grouped by column.
const COMPRESSION_LEVEL: i32 = 1;

/// Events of one name, being gathered.
#[derive(Debug, Default)]
pub struct SectionBuilder {
    rows: Vec<Row>,
    messages: Vec<u8>,
    columns: BTreeMap<String, ColumnBuilder>,
    is_cut: bool,
}

/// What every event has.
#[derive(Debug, Clone, Copy)]
struct Row {
    user: ProfileNo,
    offset: Offset,
    timestamp: Timestamp,
    received_at: Timestamp,
    event_type: EventType,
    source: SourceNo,
}

/// Values of one property: of the rows that have it, in their order.
#[derive(Debug, Default)]
struct ColumnBuilder {
    text: Vec<u8>,
    /// (row, end of its value in `text`).
    ends: Vec<(u32, usize)>,
}

impl ColumnBuilder {
    fn push(&mut self, row: u32, value: &str) {
        // Of duplicate keys the last wins (decision T11).
        if self.ends.last().is_some_and(|(last, _)| *last == row) {
            self.ends.pop();
            self.text.truncate(self.ends.last().map_or(0, |(_, end)| *end));
        }
        self.text.extend_from_slice(value.as_bytes());
        self.ends.push((row, self.text.len()));
    }

    fn values(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        starts.zip(&self.ends).map(|(start, (_, end))| self.text.get(start..*end).unwrap_or_default())
    }

    /// The distinct values in order of appearance, and which one each row has; `None` when they are too many.
    fn dictionary(&self) -> Option<(Vec<&[u8]>, Vec<usize>)> {
        let (mut places, mut distinct) = (HashMap::new(), Vec::new());
        let mut codes = Vec::with_capacity(self.ends.len());
        let most = DICTIONARY_MAX.min(self.ends.len() / REPEATED);
        for value in self.values() {
            let code = *places.entry(value).or_insert_with(|| {
                distinct.push(value);
                distinct.len() - 1
            });
            if distinct.len() > most {
                return None;
            }
            codes.push(code);
        }
        Some((distinct, codes))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len() + 2 * self.ends.len());
        put_varint(&mut out, self.ends.len() as u64);
        let mut next = 0;
        for (row, _) in &self.ends {
            put_varint(&mut out, u64::from(row - next));
            next = row + 1;
        }
        if let Some((distinct, codes)) = self.dictionary() {
            put_varint(&mut out, distinct.len() as u64);
            put_texts(&mut out, distinct.into_iter());
            for code in codes {
                put_varint(&mut out, code as u64);
            }
        } else {
            put_varint(&mut out, 0);
            put_texts(&mut out, self.values());
        }
        out
    }
}

fn put_texts<'a>(out: &mut Vec<u8>, texts: impl Iterator<Item = &'a [u8]> + Clone) {
    texts.clone().for_each(|text| put_varint(out, text.len() as u64));
    texts.for_each(|text| out.extend_from_slice(text));
}

/// A section, compressed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Its events.
    pub row_count: u32,
    /// All properties of all its events are columns.
    pub is_whole: bool,
    /// Time of the latest of its events.
    pub newest_at: Timestamp,
    /// What every event has.
    pub rows: Vec<u8>,
    /// Their message ids.
    pub messages: Vec<u8>,
    /// By property.
    pub columns: Vec<(String, Vec<u8>)>,
}

impl SectionBuilder {
    /// Adds an event of this user. Events come in the order of the log.
    pub fn push(&mut self, record: &Record<'_>, offset: Offset, user: ProfileNo) {
        let number = self.rows.len() as u32;
        self.rows.push(Row {
            user,
            offset,
            timestamp: record.timestamp,
            received_at: record.received_at,
            event_type: record.event_type,
            source: record.source,
        });
        put_varint(&mut self.messages, record.message_id.len() as u64);
        self.messages.extend_from_slice(record.message_id.as_bytes());
        let Self { columns, is_cut, .. } = self;
        let is_object = json::for_each_entry_of_valid(record.body, |key, value| {
            if let Some(column) = columns.get_mut(&*key) {
                column.push(number, value);
            } else if columns.len() < KEYS_MAX && key.len() <= KEY_BYTES_MAX && !key.contains('\0') {
                columns.entry(key.into_owned()).or_default().push(number, value);
            } else {
                *is_cut = true;
            }
        });
        *is_cut |= !is_object && !record.body.is_empty();
    }

    /// The section.
    pub fn finish(&self) -> std::io::Result<Section> {
        let columns = self.columns.iter();
        let compressed = columns
            .map(|(key, column)| compress(&column.encode()).map(|column| (key.clone(), column)))
            .collect::<std::io::Result<_>>();
        Ok(Section {
            row_count: self.rows.len() as u32,
            is_whole: !self.is_cut,
            newest_at: self.rows.iter().map(|row| row.timestamp).max().unwrap_or_default(),
            rows: compress(&self.encode_rows())?,
            messages: compress(&self.messages)?,
            columns: compressed?,
        })
    }

    /// The parts one after the other, each with its length before it.
    fn encode_rows(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut part = |put: &dyn Fn(&Row, &Row) -> u64| {
            let mut bytes = Vec::new();
            let mut before = Row::NONE;
            for row in &self.rows {
                put_varint(&mut bytes, put(row, &before));
                before = *row;
            }
            put_varint(&mut out, bytes.len() as u64);
            out.extend_from_slice(&bytes);
        };
        part(&|row, _| row.user.0);
        part(&|row, before| row.offset.0 - before.offset.0);
        part(&|row, before| zigzag(row.timestamp.millis().wrapping_sub(before.timestamp.millis())));
        part(&|row, before| zigzag(row.received_at.millis().wrapping_sub(before.received_at.millis())));
        part(&|row, _| row.event_type as u64);
        part(&|row, _| zigzag(i64::from(row.source.0)));
        out
    }
}

impl Row {
    const NONE: Self = Self {
        user: ProfileNo(0),
        offset: Offset(0),
        timestamp: Timestamp::EPOCH,
        received_at: Timestamp::EPOCH,
        event_type: EventType::Track,
        source: SourceNo(0),
    };
}

fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(bytes, COMPRESSION_LEVEL)
}

/// The events of a section, without their properties.
#[derive(Debug)]
pub struct Rows(Vec<Row>);

impl Rows {
    /// How many there are.
    pub const fn count(&self) -> usize {
        self.0.len()
    }

    /// Reads what [`Section::rows`] holds.
    pub fn decode(rows: &[u8]) -> Result<Self, Damaged> {
        let bytes = decompress(rows)?;
        let mut rest = bytes.as_slice();
        let mut parts = [const { &[] as &[u8] }; 6];
        for part in &mut parts {
            *part = take(&mut rest)?;
        }
        let [users, offsets, times, receipts, types, sources] = &mut parts;
        let (mut rows, mut before) = (Vec::new(), Row::NONE);
        while !users.is_empty() {
            let after = |before: Timestamp, delta: u64| {
                Timestamp::from_millis(before.millis().wrapping_add(unzigzag(delta)))
            };
            let event_type =
                usize::try_from(number(types)?).ok().and_then(|n| EventType::ALL.get(n).copied());
            before = Row {
                user: ProfileNo(number(users)?),
                offset: Offset(before.offset.0.wrapping_add(number(offsets)?)),
                timestamp: after(before.timestamp, number(times)?),
                received_at: after(before.received_at, number(receipts)?),
                event_type: event_type.ok_or(Damaged("unknown event type"))?,
                source: SourceNo(i32::try_from(unzigzag(number(sources)?)).map_err(|_| Damaged("a source"))?),
            };
            rows.push(before);
        }
        Ok(Self(rows))
    }

    /// Every event: whose it is, and what is known of it without its properties. `message_ids` may be empty when
    /// nobody looks at them.
    pub fn events<'a>(
        &'a self,
        name: &'a str,
        message_ids: &'a [&'a str],
    ) -> impl Iterator<Item = (ProfileNo, Facts<'a>)> {
        self.0.iter().enumerate().map(move |(n, row)| {
            let facts = Facts {
                event_type: row.event_type,
                name,
                timestamp: row.timestamp,
                received_at: row.received_at,
                offset: row.offset,
                message_id: message_ids.get(n).copied().unwrap_or_default(),
                source: row.source,
                properties: "",
                context: "",
            };
            (row.user, facts)
        })
    }
}

/// The text of a column or of the message ids, decompressed.
#[derive(Debug)]
pub struct Texts(Vec<u8>);

impl Texts {
    /// Decompresses a column or the message ids.
    pub fn decode(compressed: &[u8]) -> Result<Self, Damaged> {
        decompress(compressed).map(Self)
    }

    /// The message id of every row.
    pub fn message_ids(&self) -> Result<Vec<&str>, Damaged> {
        let (mut rest, mut ids) = (self.0.as_slice(), Vec::new());
        while !rest.is_empty() {
            ids.push(text(take(&mut rest)?)?);
        }
        Ok(ids)
    }

    /// The value of every one of so many rows; empty where a row has none.
    pub fn values(&self, rows: usize) -> Result<Vec<&str>, Damaged> {
        let mut rest = self.0.as_slice();
        let count = number(&mut rest)? as usize;
        let mut places = Vec::with_capacity(count.min(rows));
        let mut next = 0_usize;
        for _ in 0..count {
            let place = next.saturating_add(number(&mut rest)? as usize);
            places.push(place);
            next = place.saturating_add(1);
        }
        let distinct = number(&mut rest)? as usize;
        let stored = texts(&mut rest, if distinct == 0 { count } else { distinct })?;
        if next > rows {
            return Err(Damaged("more rows than there are"));
        }
        let mut values = vec![""; rows];
        for (n, place) in places.into_iter().enumerate() {
            let code = if distinct == 0 { n } else { number(&mut rest)? as usize };
            let value = stored.get(code).ok_or(Damaged("a value that is not there"))?;
            if let Some(slot) = values.get_mut(place) {
                *slot = value;
            }
        }
        Ok(values)
    }
}

fn texts<'a>(rest: &mut &'a [u8], count: usize) -> Result<Vec<&'a str>, Damaged> {
    let lengths = (0..count).map(|_| Ok(number(rest)? as usize)).collect::<Result<Vec<_>, Damaged>>()?;
    let together = lengths.iter().try_fold(0_usize, |sum, length| sum.checked_add(*length));
    let mut all = text(split(rest, together.unwrap_or(usize::MAX))?)?;
    let mut next = |length| {
        let (taken, left) = all.split_at_checked(length).ok_or(Damaged("not text"))?;
        all = left;
        Ok(taken)
    };
    lengths.into_iter().map(&mut next).collect()
}

fn text(bytes: &[u8]) -> Result<&str, Damaged> {
    std::str::from_utf8(bytes).map_err(|_| Damaged("not text"))
}

fn number(bytes: &mut &[u8]) -> Result<u64, Damaged> {
    get_varint(bytes).ok_or(Damaged("cut short"))
}

/// What follows its length.
fn take<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Damaged> {
    let length = number(rest)? as usize;
    split(rest, length)
}

fn split<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Damaged> {
    let (taken, left) = rest.split_at_checked(length).ok_or(Damaged("cut short"))?;
    *rest = left;
    Ok(taken)
}

/// More than any section takes.
const BYTES_MAX: u64 = 1 << 30;

fn decompress(bytes: &[u8]) -> Result<Vec<u8>, Damaged> {
    let size = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten();
    let size = size.filter(|size| *size <= BYTES_MAX).ok_or(Damaged("no size"))?;
    zstd::bulk::decompress(bytes, size as usize).map_err(|_| Damaged("not zstd"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record<'a>(at: i64, message_id: &'a str, body: &'a str) -> Record<'a> {
        Record {
            event_type: EventType::Screen,
            clamped: false,
            unprofiled: false,
            public: false,
            act: false,
            erased: false,
            timestamp: Timestamp::from_millis(at),
            received_at: Timestamp::from_millis(at.wrapping_mul(7)),
            source: SourceNo((at % 5).abs() as i32),
            message_id,
            name: "E",
            user_id: "",
            anonymous_id: "",
            group_id: "",
            previous_id: "",
            body,
            context: "",
            integrations: "",
            extra: "",
        }
    }

    proptest! {
        /// What is written is read back: of every event what its record says, of every property the last value.
        #[test]
        fn sections_are_read_back(events in proptest::collection::vec(
            (any::<i64>(), "[a-z0-9]{0,12}", 1_u64..40, proptest::collection::vec(("[a-c\"é]{0,2}", 0_u32..40), 0..6)),
            0..120,
        )) {
            let mut builder = SectionBuilder::default();
            let bodies: Vec<String> = events.iter().map(|(_, _, _, entries)| {
                let entries = entries.iter().map(|(key, value)| {
                    let value = if value % 3 == 0 { json::quote(&value.to_string()) } else { value.to_string() };
                    format!("{}: {value}", json::quote(key))
                });
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" , "))
            }).collect();
            for (n, ((at, id, gap, _), body)) in events.iter().zip(&bodies).enumerate() {
                builder.push(&record(*at >> 2, id, body), Offset(n as u64 * 40 + gap), ProfileNo(*gap));
            }
            let section = builder.finish().unwrap();
            prop_assert!(section.is_whole);
            let rows = Rows::decode(&section.rows).unwrap();
            prop_assert_eq!(rows.count(), events.len());
            let messages = Texts::decode(&section.messages).unwrap();
            let ids = messages.message_ids().unwrap();
            for (n, ((user, facts), (at, id, gap, _))) in rows.events("E", &ids).zip(&events).enumerate() {
                let expected = record(*at >> 2, id, "").facts(Offset(n as u64 * 40 + gap));
                prop_assert_eq!((user, facts), (ProfileNo(*gap), expected));
            }
            for (key, column) in &section.columns {
                let texts = Texts::decode(column).unwrap();
                for (value, body) in texts.values(events.len()).unwrap().into_iter().zip(&bodies) {
                    prop_assert_eq!(Some(value).filter(|v| !v.is_empty()), json::get(body, key));
                }
            }
            for body in &bodies {
                for (key, _) in json::entries(body) {
                    prop_assert!(section.columns.iter().any(|(name, _)| *name == key));
                }
            }
        }

        /// Damage is an error and never a panic.
        #[test]
        fn damage_is_found(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), rows in 0_usize..50) {
            let whole = compress(&bytes).unwrap();
            let _ = Rows::decode(&whole);
            if let Ok(texts) = Texts::decode(&whole) {
                let _ = texts.values(rows);
                let _ = texts.message_ids();
            }
            bytes.truncate(bytes.len() / 2);
            let _ = Rows::decode(&bytes);
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let many: Vec<String> = (0..=KEYS_MAX).map(|n| format!("\"k{n}\":1")).collect();
        let long = format!("{{\"{}\":1}}", "k".repeat(KEY_BYTES_MAX + 1));
        for body in [format!("{{{}}}", many.join(",")), long, "{\"a\":".to_owned()] {
            let mut builder = SectionBuilder::default();
            builder.push(&record(1, "m", "{\"a\":1}"), Offset(1), ProfileNo(1));
            builder.push(&record(2, "n", &body), Offset(2), ProfileNo(1));
            assert!(!builder.finish().unwrap().is_whole, "{body}");
        }
        let mut builder = SectionBuilder::default();
        builder.push(&record(1, "m", ""), Offset(1), ProfileNo(1));
        assert!(builder.finish().unwrap().is_whole, "no properties at all");
    }
}
