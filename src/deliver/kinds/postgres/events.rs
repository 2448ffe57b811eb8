//! What an event that is passed on becomes in tables: a row of its kind's table, and of a track call one of the table of its
//! name. Nested objects are flattened, lists are texts of JSON. Pure.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::cells::{Cell, Line, Named};
use super::names::name;
use super::tables::is_own_table;
use crate::deliver::kind::Item;
use crate::domain::Timestamp;

/// The columns that every table of events has; `_more` is for what has no column of its own.
pub(super) const COLUMNS: &str = "id text primary key, segment_id text, event_source_id text, user_id text, \
    anonymous_id text, received_at timestamptz not null, sent_at timestamptz, original_timestamp timestamptz, \
    \"timestamp\" timestamptz not null, uuid_ts timestamptz not null default now(), _more jsonb";

/// Their names, and those that some of the tables have.
const TAKEN: [&str; 14] = [
    "id",
    "segment_id",
    "event_source_id",
    "user_id",
    "anonymous_id",
    "received_at",
    "sent_at",
    "original_timestamp",
    "timestamp",
    "uuid_ts",
    "_more",
    "event",
    "event_text",
    "previous_id",
];

/// Milliseconds of the years 1 to 9999, which every database takes.
const YEARS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// The tables of calls, and what each has besides.
pub(super) const TABLES: [(&str, &str); 6] = [
    ("identifies", ""),
    ("tracks", ", event text, event_text text"),
    ("pages", ", name text, category text"),
    ("screens", ", name text, category text"),
    ("groups", ", group_id text"),
    ("aliases", ", previous_id text"),
];

/// What is besides in the table of an event's name.
pub(super) const OF_NAME: &str = ", event text, event_text text";

/// The row of an event; none where it is no call of the protocol.
pub(super) fn line(item: &Item) -> Option<Line> {
    let event = &item.event;
    let text = |key: &str| event.get(key).and_then(Value::as_str);
    let (table, body) = match text("type")? {
        "identify" => ("identifies", "traits"),
        "track" => ("tracks", "properties"),
        "page" => ("pages", "properties"),
        "screen" => ("screens", "properties"),
        "group" => ("groups", "traits"),
        "alias" => ("aliases", "properties"),
        _ => return None,
    };
    let mut row = common(item);
    let named: &[(&str, &str)] = match table {
        "pages" | "screens" => &[("name", "name"), ("category", "category")],
        "groups" => &[("group_id", "groupId")],
        "aliases" => &[("previous_id", "previousId")],
        _ => &[],
    };
    named
        .iter()
        .filter_map(|(column, key)| Some(Cell::text(column, text(key)?)))
        .for_each(|cell| row.put(cell));
    let empty = Map::new();
    let body = event.get(body).and_then(Value::as_object).unwrap_or(&empty);
    if table != "tracks" {
        row.flatten(&mut Vec::new(), body, &|name| TAKEN.contains(&name) || name == "group_id");
        return Some(Line::new(table, row.cells));
    }
    let event_text = text("event").unwrap_or_default();
    let own = name(&[event_text], is_own_table);
    row.put(Cell::text("event", &own));
    row.put(Cell::text("event_text", event_text));
    let mut of_name = row.clone();
    of_name.flatten(&mut Vec::new(), body, &|name| TAKEN.contains(&name));
    let named = Named { table: own, cells: of_name.cells, rest: Value::Object(body.clone()) };
    Some(Line { named: Some(named), ..Line::new(table, row.cells) })
}

/// What all tables of events say: whose, when, and the context.
fn common(item: &Item) -> Row {
    let event = &item.event;
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let mut row = Row::default();
    row.put(Cell::text("id", text("/messageId").unwrap_or(&item.id)));
    for (column, at) in [
        ("segment_id", "/context/personas/segment_id"),
        ("event_source_id", "/context/personas/source_id"),
        ("user_id", "/userId"),
        ("anonymous_id", "/anonymousId"),
    ] {
        if let Some(text) = text(at) {
            row.put(Cell::text(column, text));
        }
    }
    let time = |pointer: &str| text(pointer).and_then(Timestamp::parse);
    row.put(Cell::time("received_at", time("/receivedAt").unwrap_or(item.at)));
    row.put(Cell::time("timestamp", time("/timestamp").unwrap_or(item.at)));
    for (column, key) in [("sent_at", "sentAt"), ("original_timestamp", "originalTimestamp")] {
        let at = event.get(key).and_then(Value::as_str).and_then(Timestamp::parse);
        match (event.get(key), at.filter(|at| YEARS.contains(&at.millis()))) {
            (_, Some(at)) => row.put(Cell::time(column, at)),
            // What a client wrote in its own way.
            (Some(value), None) => row.cells.push(Cell::without_column(key, value.clone())),
            (None, None) => {}
        }
    }
    if let Some(context) = event.get("context").and_then(Value::as_object) {
        let own = context.iter().filter(|(key, _)| *key != "personas");
        let context: Map<String, Value> = own.map(|(key, value)| (key.clone(), value.clone())).collect();
        row.flatten(&mut vec!["context"], &context, &|name| TAKEN.contains(&name));
    }
    row
}

/// Cells, each column once.
#[derive(Clone, Default)]
struct Row {
    cells: Vec<Cell>,
    places: HashMap<String, usize>,
}

impl Row {
    fn put(&mut self, cell: Cell) {
        self.places.insert(cell.column.clone(), self.cells.len());
        self.cells.push(cell);
    }

    /// Adds a cell for each value of an object. Of values of one name the first has the column.
    fn flatten<'a>(
        &mut self,
        path: &mut Vec<&'a str>,
        object: &'a Map<String, Value>,
        is_taken: &dyn Fn(&str) -> bool,
    ) {
        for (key, value) in object {
            path.push(key);
            match value {
                Value::Null => {}
                Value::Object(inner) => self.flatten(path, inner, is_taken),
                value => {
                    let cell = Cell::of(&name(path, is_taken), &path.join("."), value);
                    match self.places.get(&cell.column).and_then(|place| self.cells.get(*place)) {
                        None => self.put(cell),
                        // Pages say their name in two places.
                        Some(same) if same.value == cell.value => {}
                        Some(_) => self.cells.push(Cell::without_column(&cell.path, value.clone())),
                    }
                }
            }
            path.pop();
        }
    }
}
