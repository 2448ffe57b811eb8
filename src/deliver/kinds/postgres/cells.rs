//! Rows of tables whose columns come with what is written into them. Pure.

use serde_json::{Map, Value};

use crate::domain::Timestamp;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Boolean,
    Number,
    Text,
    Time,
    Json,
    Texts,
    /// Made by somebody else: nothing is written there.
    Other,
}

impl Type {
    /// As Postgres calls it.
    pub(super) const fn sql(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Number => "numeric",
            Self::Text | Self::Other => "text",
            Self::Time => "timestamptz",
            Self::Json => "jsonb",
            Self::Texts => "text[]",
        }
    }

    /// The type of a column, by what Postgres calls it.
    pub(super) fn of_column(name: &str) -> Self {
        match name {
            "boolean" => Self::Boolean,
            "numeric" | "double precision" | "bigint" => Self::Number,
            "text" | "character varying" => Self::Text,
            "timestamp with time zone" => Self::Time,
            "jsonb" => Self::Json,
            "text[]" => Self::Texts,
            _ => Self::Other,
        }
    }
}

/// A value and the column it is for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    /// Empty where there is none.
    pub(super) column: String,
    /// Where it stood, for what finds no place in a column.
    pub(super) path: String,
    pub(super) kind: Type,
    pub(super) value: Value,
}

impl Cell {
    fn new(column: &str, path: &str, kind: Type, value: Value) -> Self {
        Self { column: column.to_owned(), path: path.to_owned(), kind, value }
    }

    pub(super) fn text(column: &str, text: &str) -> Self {
        Self::new(column, column, Type::Text, text.into())
    }

    pub(super) fn number(column: &str, number: u64) -> Self {
        Self::new(column, column, Type::Number, number.into())
    }

    pub(super) fn time(column: &str, at: Timestamp) -> Self {
        Self::new(column, column, Type::Time, at.to_string().into())
    }

    pub(super) fn json(column: &str, value: Value) -> Self {
        Self::new(column, column, Type::Json, value)
    }

    pub(super) fn texts(column: &str, texts: Vec<String>) -> Self {
        Self::new(column, column, Type::Texts, texts.into())
    }

    /// A value as a customer sent it: lists and objects are texts of JSON.
    pub(super) fn of(column: &str, path: &str, value: &Value) -> Self {
        let (kind, value) = match value {
            Value::Bool(_) => (Type::Boolean, value.clone()),
            Value::Number(_) => (Type::Number, value.clone()),
            Value::Array(_) | Value::Object(_) => (Type::Text, value.to_string().into()),
            Value::Null | Value::String(_) => (Type::Text, value.clone()),
        };
        Self::new(column, path, kind, value)
    }

    /// What is kept without a column.
    pub(super) fn without_column(path: &str, value: Value) -> Self {
        Self::new("", path, Type::Other, value)
    }
}

/// A row of a table that is there, or is made for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) table: String,
    pub(super) cells: Vec<Cell>,
    /// The row of an event in the table of its name.
    pub(super) named: Option<Named>,
    /// It is left out where its profile is known already.
    pub(super) is_guess: bool,
}

/// See [`Line::named`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Named {
    pub(super) table: String,
    pub(super) cells: Vec<Cell>,
    /// What is kept of it where there is no table of its name.
    pub(super) rest: Value,
}

impl Line {
    pub(super) fn new(table: &str, cells: Vec<Cell>) -> Self {
        Self { table: table.to_owned(), cells, named: None, is_guess: false }
    }
}

/// A row as it is bound: values by column.
pub(super) type Bound = Map<String, Value>;
