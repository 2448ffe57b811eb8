//! The record format inside a chunk: how one accepted event is laid out in bytes.
//!
//! A record keeps every top-level field of the call: those the processor needs stand apart, so that it never
//! parses the call again; JSON objects stay the text they were; whatever else was sent is kept in `extra`.
//! The format is versioned by the first byte of a chunk's content.

use std::borrow::Cow;

use crate::domain::varint::{get_varint, put_varint, unzigzag, zigzag};
use crate::domain::{Act, EventType, Facts, Offset, Parts, SourceNo, Timestamp, json};

/// First byte of every chunk's decompressed content.
pub const FORMAT: u8 = 1;

const FLAG_CLAMPED: u8 = 1;
const FLAG_UNPROFILED: u8 = 2;
const FLAG_ACT: u8 = 4;
const FLAG_ERASED: u8 = 8;
const FLAG_PUBLIC: u8 = 16;

/// One accepted event, borrowing from the call (when written) or from the decompressed chunk (when read).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Which call.
    pub event_type: EventType,
    /// The client's clock ran more than the tolerated time ahead, so `timestamp` is the time of receipt.
    pub clamped: bool,
    /// `integrations.Personas` was false: kept in the log, not profiled (T16).
    pub unprofiled: bool,
    /// Sent with a key that anybody may know: it sets no trait that others have set.
    pub public: bool,
    /// Not an event but an operator's act, described by `body`: in the log so that a rebuild repeats it.
    pub act: bool,
    /// Whose it was is erased, and so is what it said: only its place in the log is left, and what it said of an account.
    pub erased: bool,
    /// Corrected event time.
    pub timestamp: Timestamp,
    /// Time of receipt.
    pub received_at: Timestamp,
    /// Who sent it.
    pub source: SourceNo,
    /// Unit of de-duplication.
    pub message_id: &'a str,
    /// Event name; empty for identify, group and alias.
    pub name: &'a str,
    /// Empty when absent, like the ids below.
    pub user_id: &'a str,
    /// See `user_id`.
    pub anonymous_id: &'a str,
    /// See `user_id`.
    pub group_id: &'a str,
    /// Alias's former id.
    pub previous_id: &'a str,
    /// `traits` of identify and group, `properties` of track, page and screen: a JSON object or empty.
    pub body: &'a str,
    /// JSON object or empty.
    pub context: &'a str,
    /// JSON object or empty.
    pub integrations: &'a str,
    /// Every other top-level field, as a JSON object, or empty.
    pub extra: &'a str,
}

impl<'a> Record<'a> {
    /// An operator's act: its text stands where events have their properties.
    pub const fn of_act(body: &'a str, message_id: &'a str, at: Timestamp) -> Self {
        Self {
            event_type: EventType::Identify,
            clamped: false,
            unprofiled: false,
            public: false,
            act: true,
            erased: false,
            timestamp: at,
            received_at: at,
            source: SourceNo(0),
            message_id,
            name: "",
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

    /// A place in the log of an event that nothing is kept of.
    pub const fn place(event_type: EventType, source: SourceNo, message_id: &'a str, at: Timestamp) -> Self {
        Self {
            event_type,
            act: false,
            erased: true,
            unprofiled: true,
            source,
            ..Self::of_act("", message_id, at)
        }
    }

    /// What the engine's leaves look at.
    pub fn facts(&self, offset: Offset) -> Facts<'a> {
        Facts {
            event_type: self.event_type,
            name: self.name,
            timestamp: self.timestamp,
            received_at: self.received_at,
            offset,
            message_id: self.message_id,
            source: self.source,
            properties: self.traits().unwrap_or(self.body),
            context: self.context,
        }
    }

    /// What identifiers are read from.
    pub const fn parts(&self) -> Parts<'a> {
        Parts {
            event_type: self.event_type,
            user_id: self.user_id,
            anonymous_id: self.anonymous_id,
            group_id: self.group_id,
            body: self.body,
            context: self.context,
        }
    }

    /// The traits an identify or group call writes: some SDKs send them only in the context (R1).
    pub fn traits(&self) -> Option<&'a str> {
        if !matches!(self.event_type, EventType::Identify | EventType::Group) {
            return None;
        }
        if !self.body.is_empty() {
            return Some(self.body);
        }
        let [traits] = json::pick(self.context, ["traits"]);
        Some(traits.unwrap_or_default())
    }

    /// The call it was, field by field, each value as JSON. What nobody knows comes first: where a name stands twice, the last
    /// one is meant.
    pub fn fields(&self) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        let mut fields: Vec<_> =
            json::entries(self.extra).map(|(key, value)| (key, Cow::Borrowed(value))).collect();
        let is_track = self.event_type == EventType::Track;
        let at = self.timestamp.to_string();
        let texts = [
            ("type", self.event_type.as_str()),
            ("messageId", self.message_id),
            ("timestamp", &at),
            ("userId", self.user_id),
            ("anonymousId", self.anonymous_id),
            ("groupId", self.group_id),
            ("previousId", self.previous_id),
            ("event", if is_track { self.name } else { "" }),
        ];
        let texts = texts.into_iter().filter(|(_, value)| !value.is_empty());
        fields.extend(texts.map(|(key, value)| (key.into(), json::quote(value).into())));
        let body = match self.event_type {
            EventType::Identify | EventType::Group => "traits",
            EventType::Track | EventType::Page | EventType::Screen | EventType::Alias => "properties",
        };
        let objects = [(body, self.body), ("context", self.context), ("integrations", self.integrations)];
        let objects = objects.into_iter().filter(|(_, value)| !value.is_empty());
        fields.extend(objects.map(|(key, value)| (key.into(), value.into())));
        fields
    }

    /// Appends the record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut flags = 0;
        if self.clamped {
            flags |= FLAG_CLAMPED;
        }
        if self.unprofiled {
            flags |= FLAG_UNPROFILED;
        }
        if self.public {
            flags |= FLAG_PUBLIC;
        }
        if self.act {
            flags |= FLAG_ACT;
        }
        if self.erased {
            flags |= FLAG_ERASED;
        }
        out.push(self.event_type as u8);
        out.push(flags);
        put_varint(out, zigzag(self.timestamp.millis()));
        put_varint(out, zigzag(self.received_at.millis()));
        put_varint(out, u64::from(self.source.0.unsigned_abs()));
        for text in [
            self.message_id,
            self.name,
            self.user_id,
            self.anonymous_id,
            self.group_id,
            self.previous_id,
            self.body,
            self.context,
            self.integrations,
            self.extra,
        ] {
            put_varint(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// A chunk's content did not follow the format: the log is damaged or written by a newer version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged log chunk: {0}")]
pub struct Damaged(pub &'static str);

/// Reads the records of a decompressed chunk, in log order.
#[derive(Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// Checks the format and starts at the first record.
    pub fn new(content: &'a [u8]) -> Result<Self, Damaged> {
        match content.split_first() {
            Some((&FORMAT, rest)) => Ok(Self { rest }),
            _ => Err(Damaged("unknown format")),
        }
    }

    fn next_record(&mut self) -> Result<Record<'a>, Damaged> {
        let event_type =
            EventType::ALL.get(usize::from(self.byte()?)).copied().ok_or(Damaged("unknown event type"))?;
        let flags = self.byte()?;
        let timestamp = Timestamp::from_millis(unzigzag(self.varint()?));
        let received_at = Timestamp::from_millis(unzigzag(self.varint()?));
        let source = SourceNo(i32::try_from(self.varint()?).map_err(|_| Damaged("source number"))?);
        Ok(Record {
            event_type,
            clamped: flags & FLAG_CLAMPED != 0,
            unprofiled: flags & FLAG_UNPROFILED != 0,
            public: flags & FLAG_PUBLIC != 0,
            act: flags & FLAG_ACT != 0,
            erased: flags & FLAG_ERASED != 0,
            timestamp,
            received_at,
            source,
            message_id: self.text()?,
            name: self.text()?,
            user_id: self.text()?,
            anonymous_id: self.text()?,
            group_id: self.text()?,
            previous_id: self.text()?,
            body: self.text()?,
            context: self.text()?,
            integrations: self.text()?,
            extra: self.text()?,
        })
    }

    fn byte(&mut self) -> Result<u8, Damaged> {
        let (first, rest) = self.rest.split_first().ok_or(Damaged("cut short"))?;
        self.rest = rest;
        Ok(*first)
    }

    fn varint(&mut self) -> Result<u64, Damaged> {
        get_varint(&mut self.rest).ok_or(Damaged("cut short"))
    }

    fn text(&mut self) -> Result<&'a str, Damaged> {
        let length = self.varint()? as usize;
        let (text, rest) = self.rest.split_at_checked(length).ok_or(Damaged("cut short"))?;
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_| Damaged("not UTF-8"))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.next_record();
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}

/// The record that begins there, of content without its first byte.
pub fn first(records: &[u8]) -> Option<Record<'_>> {
    Records { rest: records }.next_record().ok()
}

/// Whether the first record of a chunk is an operator's act that stands alone in it.
pub fn stands_alone(content: &[u8]) -> Result<bool, Damaged> {
    let Some(record) = Records::new(content)?.next().transpose()? else { return Ok(false) };
    Ok(record.act && serde_json::from_str::<Act>(record.body).is_ok_and(|act| act.stands_alone()))
}

/// Whether the first record of a chunk is an act that erases people.
pub fn erases(content: &[u8]) -> bool {
    let first = Records::new(content).ok().and_then(|mut records| records.next()?.ok());
    let act = first.filter(|record| record.act).and_then(|record| serde_json::from_str(record.body).ok());
    matches!(act, Some(Act::Erase { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            texts in proptest::collection::vec(".{0,40}", 10), kind in 0_usize..6, clamped: bool, act: bool,
            unprofiled: bool, public: bool, at: i64, received: i64, source in 0_i32..i32::MAX,
        ) {
            let record = Record {
                event_type: EventType::ALL[kind], clamped, unprofiled, public, act, erased: !act,
                timestamp: Timestamp::from_millis(at), received_at: Timestamp::from_millis(received),
                source: SourceNo(source), message_id: &texts[0], name: &texts[1], user_id: &texts[2],
                anonymous_id: &texts[3], group_id: &texts[4], previous_id: &texts[5], body: &texts[6],
                context: &texts[7], integrations: &texts[8], extra: &texts[9],
            };
            let mut content = vec![FORMAT];
            record.encode(&mut content);
            record.encode(&mut content);
            let read: Vec<_> = Records::new(&content).unwrap().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(&read, &[record, record]);
        }

        #[test]
        fn damage_is_an_error_never_a_panic(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(records) = Records::new(&content) {
                let _count = records.count();
            }
        }
    }
}
