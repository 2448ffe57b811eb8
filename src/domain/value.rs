//! The value of a trait, a property or a literal, and how values compare (decision A6).

use std::borrow::Cow;
use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{Number, Timestamp, json};

/// A JSON value with exact numbers. Lists and objects stay JSON text without white space.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Value {
    /// `null`, and everything that is not there.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, digit for digit.
    Number(Number),
    /// A string.
    String(Box<str>),
    /// A list or an object, as compact JSON.
    Json(Box<str>),
}

impl Value {
    /// Reads one JSON value. Text that is not JSON is null.
    pub fn from_json(raw: &str) -> Self {
        let raw = raw.trim_ascii();
        match raw.as_bytes().first() {
            Some(b'"') => json::unquote(raw).map_or(Self::Null, |text| Self::String(text.into())),
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'{' | b'[') => Self::Json(json::compact(raw).into()),
            Some(b'-' | b'0'..=b'9') => Number::parse(raw).map_or(Self::Null, Self::Number),
            _ => Self::Null,
        }
    }

    /// A list of values.
    pub fn list<'a>(values: impl IntoIterator<Item = &'a Self>) -> Self {
        let items: Vec<String> = values.into_iter().map(Self::to_json).collect();
        Self::Json(format!("[{}]", items.join(",")).into())
    }

    /// The value as JSON text.
    pub fn to_json(&self) -> String {
        match self {
            Self::String(text) => json::quote(text),
            other => other.text().into_owned(),
        }
    }

    /// The canonical text: a string as it is, anything else as JSON. It orders values (R9, R10) and is what
    /// `contains`, `starts_with` and `ends_with` look into.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Null => Cow::Borrowed("null"),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::Number(number) => Cow::Owned(number.to_string()),
            Self::String(text) | Self::Json(text) => Cow::Borrowed(text),
        }
    }

    /// Whether there is nothing.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The number that this is, or that this string wholly is.
    pub fn as_number(&self) -> Option<Number> {
        match self {
            Self::Number(number) => Some(*number),
            Self::String(text) => Number::parse(text),
            _ => None,
        }
    }

    /// The instant that this string names (A9); nothing else is a date.
    pub fn as_timestamp(&self) -> Option<Timestamp> {
        match self {
            Self::String(text) => Timestamp::parse(text),
            _ => None,
        }
    }

    /// How two values of one type compare: numbers by value, strings by code point. Values of different types,
    /// and two different booleans, lists or objects, have no order. Null compares with nothing.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Null, _) | (_, Self::Null) => None,
            (Self::Number(a), Self::Number(b)) => Some(a.cmp(b)),
            (Self::String(a), Self::String(b)) => Some(a.cmp(b)),
            (a, b) => (a == b).then_some(Ordering::Equal),
        }
    }

    /// As [`Value::compare`] where one side is a literal of the query: a string that is wholly a number is that
    /// number beside a number, and `'true'` is true beside a boolean.
    pub fn compare_literal(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Number(a), Self::String(b)) => Some(a.cmp(&Number::parse(b)?)),
            (Self::String(a), Self::Number(b)) => Some(Number::parse(a)?.cmp(b)),
            (Self::Bool(_), Self::String(_)) | (Self::String(_), Self::Bool(_)) => {
                (self.text() == other.text()).then_some(Ordering::Equal)
            }
            (a, b) => a.compare(b),
        }
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Number(_) => 1,
            Self::Bool(_) => 2,
            Self::String(_) => 3,
            Self::Json(_) => 4,
        }
    }
}

impl Ord for Value {
    /// The order of lists of distinct values (R10): numbers first, by value; then everything else by code point
    /// of its canonical text, and by type where the texts are the same.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Null | Self::Number(_), _) | (_, Self::Null | Self::Number(_)) => {
                let ranks = self.rank().cmp(&other.rank());
                ranks.then_with(|| self.compare(other).unwrap_or(Ordering::Equal))
            }
            _ => self.text().cmp(&other.text()).then_with(|| self.rank().cmp(&other.rank())),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<u64> for Value {
    fn from(n: u64) -> Self {
        Self::Number(n.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_json_with_its_digits() {
        for (json, expected) in [
            ("null", "null"),
            (" true ", "true"),
            ("0.10", "0.1"),
            (r#""a\n\"b""#, r#""a\n\"b""#),
            ("[ 1, 2.50 ]", "[1,2.50]"),
            (r#"{ "a" : " " }"#, r#"{"a":" "}"#),
            ("nonsense", "null"),
        ] {
            assert_eq!(Value::from_json(json).to_json(), expected, "{json}");
        }
    }

    #[test]
    fn literals_coerce_and_values_do_not() {
        let (five, text) = (Value::from(5), Value::from("5.0"));
        assert_eq!(text.compare_literal(&five), Some(Ordering::Equal));
        assert_eq!(five.compare_literal(&text), Some(Ordering::Equal));
        assert_eq!(five.compare(&text), None);
        assert_eq!(Value::from(true).compare_literal(&Value::from("true")), Some(Ordering::Equal));
        assert_eq!(Value::from(true).compare_literal(&Value::from("TRUE")), None);
        assert_eq!(Value::from("10").compare_literal(&Value::from("9")), Some(Ordering::Less));
        assert_eq!(Value::Null.compare_literal(&Value::Null), None);
    }

    #[test]
    fn orders_numbers_by_value_and_the_rest_by_code_point() {
        let mut values: Vec<Value> =
            ["\"b\"", "10", "\"10\"", "9", "true", "\"true\"", "\"a\"", "\"é\"", "\"z\""]
                .into_iter()
                .map(Value::from_json)
                .collect();
        values.sort();
        assert_eq!(Value::list(&values).to_json(), r#"[9,10,"10","a","b",true,"true","z","é"]"#);
    }
}
