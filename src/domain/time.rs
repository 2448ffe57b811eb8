//! Instants in whole milliseconds, the precision in which windows are exact (decisions A7, A9).

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z. Finer digits are cut off, never rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z: nothing earlier is accepted.
    pub const EPOCH: Self = Self(0);

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// This instant moved by `millis`, held at the ends of the range.
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Reads a date or timestamp as the tracking calls and the query language do (A9): RFC 3339 with any number
    /// of fraction digits; without a zone it is UTC; a date alone is UTC midnight. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Some(Self(at.timestamp_millis()));
        }
        for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
            if let Ok(at) = NaiveDateTime::parse_from_str(text, format) {
                return Some(Self(at.and_utc().timestamp_millis()));
            }
        }
        for format in ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z"] {
            if let Ok(at) = DateTime::parse_from_str(text, format) {
                return Some(Self(at.timestamp_millis()));
            }
        }
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        Some(Self(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis()))
    }

    /// As a chrono instant, for Postgres and JSON. Instants outside chrono's range become its end.
    pub fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(at: DateTime<Utc>) -> Self {
        Self(at.timestamp_millis())
    }
}

impl std::fmt::Display for Timestamp {
    /// RFC 3339 UTC with milliseconds: `2024-03-01T12:00:00.000Z`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_utc().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn reads_what_clients_send() {
        for (text, expected) in [
            ("2024-03-01T12:00:00Z", "2024-03-01T12:00:00.000Z"),
            ("2024-03-01T12:00:00.123456789Z", "2024-03-01T12:00:00.123Z"),
            ("2024-03-01T12:00:00+02:00", "2024-03-01T10:00:00.000Z"),
            ("2024-03-01T12:00:00+0200", "2024-03-01T10:00:00.000Z"),
            ("2024-03-01T12:00:00", "2024-03-01T12:00:00.000Z"),
            ("2024-03-01 12:00:00.5", "2024-03-01T12:00:00.500Z"),
            ("2024-03-01", "2024-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp::parse(text).map(|t| t.to_string()).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "yesterday", "2024-13-01", "20240301", "1709294400"] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }
}
