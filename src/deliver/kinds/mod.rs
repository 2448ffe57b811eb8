//! The kinds of destinations, one module each, and the list of them.

pub mod file;
pub mod http;
pub mod postgres;
mod segment;
mod webhook;

use serde_json::{Map, Value};

use super::kind::{HttpKind, Invalid, Kind};
use super::reach::Reach;
use crate::clock::IdMaker;
use file::FileKind;
use http::{HttpMapping, Preset};
use postgres::PostgresKind;

pub use webhook::new_secret;

/// A kind that was opened with settings.
#[derive(Debug)]
pub enum Opened {
    /// It says what it asks for over HTTP, and the workers call.
    Http(Box<dyn HttpKind>),
    /// It does everything itself.
    Own(Box<dyn Kind>),
}

/// What a destination of a kind takes at a time, where nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// Requests under way at the same time.
    pub concurrency: i32,
    /// Changes in a second; none: no limit.
    pub rate_per_second: Option<i32>,
    /// Time for one request, in milliseconds.
    pub timeout_ms: i32,
    /// How old the oldest change of a batch gets before the batch is sent although it is not full, in seconds.
    pub linger_seconds: i32,
}

impl Defaults {
    /// For receivers that say themselves when it is too much.
    pub const USUAL: Self =
        Self { concurrency: 8, rate_per_second: None, timeout_ms: 10_000, linger_seconds: 0 };
}

/// Judges settings, and opens a kind with them.
type Open = fn(&Map<String, Value>, &Reach) -> Result<Opened, Vec<Invalid>>;

/// A kind of destination: its name, which of its settings are secret, and how it is opened.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// The name in the API.
    pub name: &'static str,
    /// Settings that are kept encrypted, and shown masked.
    pub secrets: &'static [&'static str],
    /// Whether it takes events as they came, of all types.
    pub takes_events: bool,
    /// It keeps what it is told by the profile's id, and gets what concerns profiles without any identifier that is sent, too;
    /// as a store of the customer's own it is not meant by what an event says in `integrations.All`.
    pub is_store: bool,
    /// Limits of a new one.
    pub defaults: fn(&Map<String, Value>) -> Defaults,
    /// Adds what is made by the service itself, such as a signing secret, to the settings of a new one.
    pub complete: fn(&mut Map<String, Value>, &IdMaker),
    /// Judges settings, secrets among them; all that is wrong is told.
    pub open: Open,
}

/// All kinds.
pub static KINDS: &[Spec] = &[webhook::SPEC, segment::SPEC, HTTP, FILE, POSTGRES];

const HTTP: Spec = Spec {
    name: "http",
    secrets: &["secrets"],
    // A mapping has no words for pages, screens and aliases.
    takes_events: false,
    is_store: false,
    // What the tool takes, where it is known.
    defaults: |settings| match Preset::of(settings).map(Preset::changes_per_second) {
        Some(rate) => Defaults { rate_per_second: i32::try_from(rate).ok(), ..Defaults::USUAL },
        None => Defaults::USUAL,
    },
    complete: nothing,
    open: |settings, _| Ok(Opened::Http(Box::new(HttpMapping::open(settings)?))),
};

const FILE: Spec = Spec {
    name: "file",
    secrets: &FileKind::SECRETS,
    takes_events: true,
    is_store: true,
    // Many small objects are dear to keep and slow to read.
    defaults: |_| Defaults { concurrency: 1, linger_seconds: 30, ..Defaults::USUAL },
    complete: nothing,
    open: |settings, reach| Ok(Opened::Own(Box::new(FileKind::open(settings, reach)?))),
};

const POSTGRES: Spec = Spec {
    name: "postgres",
    secrets: &PostgresKind::SECRETS,
    takes_events: true,
    is_store: true,
    // A transaction for every change is dear where it is written.
    defaults: |_| Defaults { concurrency: 1, linger_seconds: 5, ..Defaults::USUAL },
    complete: nothing,
    open: |settings, reach| Ok(Opened::Own(Box::new(PostgresKind::open(settings, reach)?))),
};

/// The kind of that name.
pub fn find(name: &str) -> Option<&'static Spec> {
    KINDS.iter().find(|spec| spec.name == name)
}

/// Nothing is made for it.
fn nothing(_: &mut Map<String, Value>, _: &IdMaker) {}

/// The usual limits whatever the settings.
fn usual(_: &Map<String, Value>) -> Defaults {
    Defaults::USUAL
}

/// Reads settings field by field and remembers all that is wrong.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    settings: &'a Map<String, Value>,
    wrong: Vec<Invalid>,
}

impl<'a> Fields<'a> {
    /// Settings that may have these fields and no others.
    pub(super) fn of(settings: &'a Map<String, Value>, known: &[&str]) -> Self {
        let mut fields = Self { settings, wrong: Vec::new() };
        for name in settings.keys().filter(|name| !known.contains(&name.as_str())) {
            fields.refuse(name, &format!("there is no such setting; there are {}", known.join(", ")));
        }
        fields
    }

    /// Says that a field is wrong.
    pub(super) fn refuse(&mut self, field: &str, message: &str) {
        self.wrong.push(Invalid { field: field.to_owned(), message: message.to_owned() });
    }

    /// The value of a field; null is none.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.settings.get(field).filter(|value| !value.is_null())
    }

    /// Text that is not empty, where there is any.
    pub(super) fn optional(&mut self, field: &str) -> Option<&'a str> {
        let value = self.get(field)?;
        let text = value.as_str().filter(|text| !text.is_empty());
        if text.is_none() {
            self.refuse(field, "it must be a text that is not empty");
        }
        text
    }

    /// Text that has to be there.
    pub(super) fn text(&mut self, field: &str) -> &'a str {
        if self.get(field).is_none() {
            self.refuse(field, "it is missing: a text that is not empty");
        }
        self.optional(field).unwrap_or_default()
    }

    /// A URL that can be called, as it was written.
    pub(super) fn url(&mut self, field: &str) -> String {
        let text = self.text(field);
        if text.is_empty() {
            return String::new();
        }
        match url::Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {}
            Ok(_) => self.refuse(field, "it must be a URL such as https://example.com/hook"),
            Err(error) => {
                self.refuse(field, &format!("it is no URL ({error}); one is https://example.com/hook"));
            }
        }
        text.to_owned()
    }

    /// A whole number within a range.
    pub(super) fn number(&mut self, field: &str, default: i64, range: std::ops::RangeInclusive<i64>) -> i64 {
        let Some(value) = self.get(field) else { return default };
        value.as_i64().filter(|number| range.contains(number)).unwrap_or_else(|| {
            let message = format!("it must be a whole number from {} to {}", range.start(), range.end());
            self.refuse(field, &message);
            default
        })
    }

    /// What was read, when nothing is wrong.
    pub(super) fn finish<T>(self, read: T) -> Result<T, Vec<Invalid>> {
        if self.wrong.is_empty() { Ok(read) } else { Err(self.wrong) }
    }
}
