//! From the API's JSON to what people read.

use serde_json::Value;

use super::client::Refusal;
use super::view::{Cell, Notice};

/// A text; empty when there is none.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A whole number; 0 when there is none.
pub(super) fn whole(value: &Value, name: &str) -> i64 {
    value.get(name).and_then(Value::as_i64).unwrap_or_default()
}

/// The items of a list.
pub(super) fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Whether it is set and true.
pub(super) fn is_true(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or_default()
}

/// Thousands apart: `1,234,567`.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of the answer.
pub(super) fn number(value: &Value, name: &str) -> Cell {
    match value.get(name).and_then(Value::as_i64) {
        Some(number) => Cell::Number(grouped(number)),
        None => Cell::Muted("–".to_owned()),
    }
}

/// An instant of the answer.
pub(super) fn time(value: &Value, name: &str) -> Cell {
    match text(value, name) {
        "" => Cell::Muted("–".to_owned()),
        at => Cell::Time(at.to_owned()),
    }
}

/// Any scalar as text.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value as customers sent it: short ones as text, others folded.
pub(super) fn any(value: &Value) -> Cell {
    match value {
        Value::Object(map) if map.is_empty() => Cell::Muted("{}".to_owned()),
        Value::Array(list) if list.is_empty() => Cell::Muted("[]".to_owned()),
        Value::Array(list) => {
            Cell::More(format!("{} values", list.len()), Box::new(Cell::Tree(value.clone())))
        }
        Value::Object(map) => {
            Cell::More(format!("{} fields", map.len()), Box::new(Cell::Tree(value.clone())))
        }
        Value::Null => Cell::Muted("null".to_owned()),
        other => Cell::Text(plain(other)),
    }
}

/// The state of something, coloured by how good it is.
pub(super) fn state(word: &str) -> Cell {
    let kind = match word {
        "live" | "connected" | "active" | "succeeded" | "finished" | "FINISHED" | "on" | "enabled" => "good",
        "failed" | "failing" | "paused" | "dead" | "suspended" | "ended" | "off" => "bad",
        "backfilling" | "pending" | "queued" | "in_flight" | "trial" | "RUNNING" | "INITIALIZED" => "busy",
        _ => "plain",
    };
    Cell::Badge(kind, word.to_owned())
}

/// Where the next page of a list is, if there is one.
pub(super) fn next(list: &Value) -> Option<&str> {
    let cursor = list.get("cursor")?;
    is_true(cursor, "has_more").then(|| text(cursor, "next"))
}

/// Why something is not shown or was not done.
pub(super) fn refusal(refusal: &Refusal) -> Notice {
    let item = |error: &Value| {
        let (line, column) = (whole(error, "line"), whole(error, "column"));
        let expected: Vec<String> = items(error, "expected").iter().map(plain).collect();
        let expected =
            if expected.is_empty() { String::new() } else { format!(" (expected {})", expected.join(", ")) };
        format!("line {line}, column {column}: {}{expected}", text(error, "message"))
    };
    let detail = if refusal.detail.is_empty() { refusal.status.to_string() } else { refusal.detail.clone() };
    Notice { items: refusal.errors.iter().map(item).collect(), ..Notice::bad(detail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_told_apart() {
        for (number, shown) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (-12_345_678, "-12,345,678"), (100, "100")]
        {
            assert_eq!(grouped(number), shown);
        }
    }
}
