//! The tracking calls as they stand on the wire: raw JSON slices by name, nothing copied, nothing interpreted.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::json;

/// Absent and null are the same on the wire.
fn present(raw: &str) -> Option<&str> {
    (raw != "null").then_some(raw)
}

/// One tracking call.
#[derive(Debug, Default)]
pub(crate) struct Call<'a> {
    pub event_type: Option<&'a str>,
    pub message_id: Option<&'a str>,
    pub user_id: Option<&'a str>,
    pub anonymous_id: Option<&'a str>,
    pub group_id: Option<&'a str>,
    pub previous_id: Option<&'a str>,
    pub event: Option<&'a str>,
    pub name: Option<&'a str>,
    pub category: Option<&'a str>,
    pub properties: Option<&'a str>,
    pub traits: Option<&'a str>,
    pub context: Option<&'a str>,
    pub integrations: Option<&'a str>,
    pub timestamp: Option<&'a str>,
    pub original_timestamp: Option<&'a str>,
    pub sent_at: Option<&'a str>,
    /// Everything else, in the order it came, also what came twice. The write key is dropped: it is a credential, not data.
    pub extra: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Call<'a> {
    /// Splits the object in `json`, which is valid JSON, into its fields; an error when it is not an object.
    pub(crate) fn parse(json: &'a str) -> Result<Self, serde_json::Error> {
        let mut call = Self::default();
        if json::for_each_entry_of_valid(json, |key, value| call.put(key, value)) {
            return Ok(call);
        }
        call = Self::default();
        json::for_each_entry(json, |key, value| call.put(key, value.get()))?;
        Ok(call)
    }

    fn put(&mut self, key: Cow<'a, str>, raw: &'a str) {
        let slot = match &*key {
            "type" => &mut self.event_type,
            "messageId" => &mut self.message_id,
            "userId" => &mut self.user_id,
            "anonymousId" => &mut self.anonymous_id,
            "groupId" => &mut self.group_id,
            "previousId" => &mut self.previous_id,
            "event" => &mut self.event,
            "name" => &mut self.name,
            "category" => &mut self.category,
            "properties" => &mut self.properties,
            "traits" => &mut self.traits,
            "context" => &mut self.context,
            "integrations" => &mut self.integrations,
            "timestamp" => &mut self.timestamp,
            "originalTimestamp" => &mut self.original_timestamp,
            "sentAt" => &mut self.sent_at,
            "writeKey" => return,
            _ => {
                self.extra.push((key, raw));
                return;
            }
        };
        *slot = present(raw);
    }
}

/// A batch body.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    pub items: Option<Vec<&'a RawValue>>,
    pub context: Option<&'a str>,
    pub integrations: Option<&'a str>,
    pub sent_at: Option<&'a str>,
}

impl<'a> Batch<'a> {
    /// Splits the body; an error when it is not an object or `batch` is not an array. A batch-level `timestamp` is
    /// not an event time and is left alone.
    pub(crate) fn parse(body: &'a str) -> Result<Self, serde_json::Error> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let mut deserializer = serde_json::Deserializer::from_str(body);
        let batch = deserializer.deserialize_map(BatchFields)?;
        deserializer.end()?;
        Ok(batch)
    }
}

/// Reads the fields of a batch in one pass, the items of its list included.
struct BatchFields;

impl<'de> Visitor<'de> for BatchFields {
    type Value = Batch<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Batch<'de>, A::Error> {
        let mut batch = Batch::default();
        while let Some(key) = map.next_key::<json::Key<'de>>()? {
            if key.0 == "batch" {
                batch.items = Some(map.next_value()?);
                continue;
            }
            let value = map.next_value::<&'de RawValue>()?.get();
            match &*key.0 {
                "context" => batch.context = present(value),
                "integrations" => batch.integrations = present(value),
                "sentAt" => batch.sent_at = present(value),
                _ => {}
            }
        }
        Ok(batch)
    }
}
