//! The small parts of pages: links, fields of tables, drawings, and whatever JSON or condition is shown nested as it is.

use askama::Template;
use serde_json::Value;

use super::form::Form;
use super::show;

/// A place to go to.
#[derive(Debug)]
pub(super) struct Link {
    pub text: String,
    pub href: String,
    /// It is a file to keep.
    pub is_file: bool,
}

impl Link {
    pub(super) fn new(text: impl Into<String>, href: String) -> Self {
        Self { text: text.into(), href, is_file: false }
    }

    pub(super) fn file(text: impl Into<String>, href: String) -> Self {
        Self { text: text.into(), href, is_file: true }
    }
}

/// Something small: a field of a table, a fact.
#[derive(Debug, Template)]
#[template(path = "console/cell.html")]
pub(super) enum Cell {
    Text(String),
    Code(String),
    Muted(String),
    Number(String),
    Link(Link),
    /// An instant, RFC 3339.
    Time(String),
    /// A state: how good it is, and its name.
    Badge(&'static str, String),
    Svg(Svg),
    Many(Vec<Cell>),
    Form(Box<Form>),
    /// Any JSON, as people read it.
    Tree(Value),
    /// A summary, and what is shown when it is clicked.
    More(String, Box<Cell>),
    Pre(String),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Svg> for Cell {
    fn from(svg: Svg) -> Self {
        Self::Svg(svg)
    }
}

impl From<Form> for Cell {
    fn from(form: Form) -> Self {
        Self::Form(Box::new(form))
    }
}

impl Cell {
    pub(super) fn link(text: impl Into<String>, href: String) -> Self {
        Self::Link(Link::new(text, href))
    }

    /// An instant as people read it, to the second, in UTC.
    fn instant(text: &str) -> String {
        let (date, time) = text.split_once('T').unwrap_or((text, ""));
        let time: String = time.chars().take(8).collect();
        format!("{date} {time}")
    }
}

/// A drawing of ours.
#[derive(Debug, Clone)]
pub(super) struct Svg(pub(super) String);

/// JSON, nested as it is.
#[derive(Debug, Template)]
#[template(path = "console/tree.html")]
pub(super) struct Tree<'a>(&'a Value);

impl<'a> Tree<'a> {
    pub(super) const fn new(value: &'a Value) -> Self {
        Self(value)
    }

    fn child(value: &Value) -> Tree<'_> {
        Tree(value)
    }

    fn scalar(&self) -> String {
        match self.0 {
            Value::String(text) => text.clone(),
            Value::Null => "none".to_owned(),
            other => other.to_string(),
        }
    }
}

/// A condition of a definition, with what it looks at and its parts.
#[derive(Debug, Template)]
#[template(path = "console/reason.html")]
pub(super) struct Reason<'a>(&'a Value);

impl<'a> Reason<'a> {
    pub(super) const fn new(reason: &'a Value) -> Self {
        Self(reason)
    }

    fn holds(&self) -> Option<bool> {
        self.0.get("holds").and_then(Value::as_bool)
    }

    /// How its parts are joined, if it has any.
    fn joined(&self) -> Option<&'static str> {
        match show::text(self.0, "is") {
            "all" => Some("all of"),
            "any" => Some("any of"),
            "not" => Some("not"),
            _ => None,
        }
    }

    fn text(&self) -> &str {
        show::text(self.0, "text")
    }

    fn hint(&self) -> &str {
        show::text(self.0, "hint")
    }

    fn readings(&self) -> &[Value] {
        show::items(self.0, "looks_at")
    }

    fn parts(&self) -> &[Value] {
        show::items(self.0, "parts")
    }

    fn word<'b>(reading: &'b Value, name: &str) -> &'b str {
        show::text(reading, name)
    }

    fn value(reading: &Value) -> String {
        let at_least = if show::is_true(reading, "at_least") { "at least " } else { "" };
        format!("{at_least}{}", reading["value"])
    }

    fn child(part: &Value) -> Reason<'_> {
        Reason(part)
    }
}
