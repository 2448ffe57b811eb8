//! What pages are made of, and the few templates that turn it into HTML. Everything that is text is escaped there; only
//! drawings of ours ([`Svg`]) and other templates go in as they are.

use std::sync::LazyLock;

use askama::Template;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use super::form::Form;
pub(super) use super::parts::{Cell, Link, Svg};
use super::parts::{Reason, Tree};
use super::{assets, client};

/// What browsers may do on our pages: what comes from here, in files, and nothing else.
const POLICY: &str =
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The parts of the console: the segment of their address, and their name.
const PARTS: [(&str, &str); 11] = [
    ("", "Overview"),
    ("live", "Live events"),
    ("profiles", "Profiles"),
    ("audiences", "Audiences"),
    ("traits", "Computed traits"),
    ("destinations", "Destinations"),
    ("identity", "Identity"),
    ("privacy", "Privacy"),
    ("audit", "Audit log"),
    ("settings", "Settings"),
    ("usage", "Usage"),
];

/// What surrounds every page.
#[derive(Debug, Clone, Default)]
pub(super) struct Frame {
    pub space: String,
    /// What forms bring along; empty for somebody who is not signed in.
    pub form_key: String,
    pub parts: Vec<Part>,
}

/// A part of the console in the menu.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub name: &'static str,
    pub href: String,
    pub is_current: bool,
}

impl Frame {
    /// That of a page at `address`.
    pub(super) fn of(space: &str, form_key: &str, address: &str) -> Self {
        let path = address.split('?').next().unwrap_or_default();
        let current = path.split('/').nth(4).unwrap_or_default();
        let part = |(segment, name): &(&'static str, &'static str)| {
            let segments = ["console", "s", space, segment];
            let count = if segment.is_empty() { 3 } else { 4 };
            Part { name, href: client::path(&segments[..count], &[]), is_current: *segment == current }
        };
        let parts = if space.is_empty() { Vec::new() } else { PARTS.iter().map(part).collect() };
        Self { space: space.to_owned(), form_key: form_key.to_owned(), parts }
    }
}

/// A whole page.
#[derive(Debug, Default, Template)]
#[template(path = "console/page.html")]
pub(super) struct Page {
    pub frame: Frame,
    pub title: String,
    /// A line below the title.
    pub lead: Vec<Cell>,
    /// The way back: text and address.
    pub back: Option<(String, String)>,
    pub sections: Vec<Section>,
    /// How often it is fetched again by itself, in seconds; 0 for never.
    pub every_seconds: u32,
    /// Scripts besides the one of all pages.
    pub scripts: Vec<String>,
    pub status: StatusCode,
}

impl Page {
    pub(super) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    pub(super) fn lead(mut self, lead: impl Into<Cell>) -> Self {
        self.lead.push(lead.into());
        self
    }

    pub(super) fn back(mut self, text: &str, href: String) -> Self {
        self.back = Some((text.to_owned(), href));
        self
    }

    pub(super) fn with(mut self, section: Section) -> Self {
        self.sections.push(section);
        self
    }

    pub(super) const fn every(mut self, seconds: u32) -> Self {
        self.every_seconds = seconds;
        self
    }

    pub(super) fn script(mut self, address: String) -> Self {
        self.scripts.push(address);
        self
    }

    /// The page for a browser that sent these headers: what it has already is not sent again.
    pub(super) fn answer(self, headers: &HeaderMap) -> Response {
        let status = self.status;
        let html = match self.render() {
            Ok(html) => html,
            Err(error) => {
                tracing::error!(%error, "a page of the console could not be rendered: {error}");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        };
        let tag = format!("\"{:032x}\"", xxh3_128(html.as_bytes()));
        let known = headers.get(header::IF_NONE_MATCH);
        let mut response = if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            (status, Html(html)).into_response()
        };
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        protect(response.headers_mut());
        response
    }
}

/// What a browser may do with a page. Forms are sent with their origin, others learn nothing of the address.
fn protect(headers: &mut HeaderMap) {
    let values = [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in values {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// A part of a page under a heading.
#[derive(Debug, Default, Template)]
#[template(path = "console/section.html")]
pub(super) struct Section {
    /// Its anchor, which is also what is replaced when the page is fetched again.
    pub id: String,
    pub title: String,
    pub note: String,
    pub content: Vec<Content>,
    /// Closed until it is clicked.
    pub is_folded: bool,
    /// Not replaced when the page is fetched again.
    pub stays: bool,
    /// Of a page that fetches itself again: it was not asked for, and what is there already is kept.
    pub is_kept: bool,
}

impl Section {
    pub(super) fn new(id: &str, title: &str) -> Self {
        Self { id: id.to_owned(), title: title.to_owned(), ..Self::default() }
    }

    /// A section that stays as it is while the page fetches itself again: lists of people are read when somebody asks for them,
    /// not every few seconds.
    pub(super) fn kept(id: &str) -> Self {
        Self { id: id.to_owned(), is_kept: true, ..Self::default() }
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    pub(super) fn with(mut self, content: impl Into<Content>) -> Self {
        self.content.push(content.into());
        self
    }

    pub(super) const fn folded(mut self) -> Self {
        self.is_folded = true;
        self
    }

    pub(super) const fn stays(mut self) -> Self {
        self.stays = true;
        self
    }
}

/// What stands in a section.
#[derive(Debug, Template)]
#[template(path = "console/content.html")]
pub(super) enum Content {
    Tiles(Vec<Tile>),
    Table(Table),
    Facts(Vec<(String, Cell)>),
    Line(Vec<Cell>),
    Notice(Notice),
    Svg(Svg),
    Form(Box<Form>),
    /// Links that look like buttons.
    Links(Vec<Link>),
    Tree(Value),
    Pre(String),
    Builder(Box<Builder>),
    Search(Search),
    /// Why something holds: a condition with its parts.
    Reason(Value),
    Tail(Tail),
    SignIn(SignIn),
}

impl From<Table> for Content {
    fn from(table: Table) -> Self {
        Self::Table(table)
    }
}

impl From<Form> for Content {
    fn from(form: Form) -> Self {
        Self::Form(Box::new(form))
    }
}

impl From<Notice> for Content {
    fn from(notice: Notice) -> Self {
        Self::Notice(notice)
    }
}

impl From<Svg> for Content {
    fn from(svg: Svg) -> Self {
        Self::Svg(svg)
    }
}

/// A number people look at first.
#[derive(Debug)]
pub(super) struct Tile {
    pub label: String,
    pub value: String,
    pub note: String,
    pub drawing: Option<Svg>,
}

/// Something said apart from the rest.
#[derive(Debug)]
pub(super) struct Notice {
    /// `good`, `bad` or `plain`.
    pub kind: &'static str,
    pub text: String,
    pub items: Vec<String>,
}

impl Notice {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self { kind: "plain", text: text.into(), items: Vec::new() }
    }

    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self { kind: "bad", text: text.into(), items: Vec::new() }
    }

    pub(super) fn good(text: impl Into<String>) -> Self {
        Self { kind: "good", text: text.into(), items: Vec::new() }
    }
}

/// Rows and columns.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// For those who do not see it.
    pub label: String,
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<Cell>>,
    /// Said when there are no rows.
    pub empty: String,
    /// The next page.
    pub next: Option<String>,
}

impl Table {
    pub(super) fn new(label: &str, columns: &[&'static str]) -> Self {
        Self {
            label: label.to_owned(),
            columns: columns.to_vec(),
            empty: "Nothing yet.".to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn empty(mut self, text: &str) -> Self {
        text.clone_into(&mut self.empty);
        self
    }

    pub(super) fn rows(mut self, rows: impl IntoIterator<Item = Vec<Cell>>) -> Self {
        self.rows.extend(rows);
        self
    }

    pub(super) fn next(mut self, next: Option<String>) -> Self {
        self.next = next;
        self
    }
}

/// The place where definitions are written.
#[derive(Debug)]
pub(super) struct Builder {
    pub form: Form,
    /// What is written, `audiences` or `traits`.
    pub makes: &'static str,
    /// Where its script asks: previews, what a form shows of a text and the text of a form, names of events, of their properties (`{name}`), of traits, of definitions.
    pub preview: String,
    pub format: String,
    pub events: String,
    pub properties: String,
    pub traits: String,
    pub audiences: String,
    pub computed: String,
    /// Pages of profiles, `{id}`.
    pub profile: String,
}

/// The place where events are watched.
#[derive(Debug)]
pub(super) struct Tail {
    /// Where its script listens.
    pub address: String,
    /// Where it finds what is refused.
    pub refused: String,
    /// Where it finds how many were refused.
    pub pipeline: String,
    pub sources: Vec<(String, String)>,
}

/// A question that changes what a page shows.
#[derive(Debug, Default)]
pub(super) struct Search {
    pub id: &'static str,
    /// Another page than this one.
    pub action: String,
    pub label: &'static str,
    pub name: &'static str,
    pub value: String,
    /// The words to choose from; any text where there are none.
    pub words: Vec<(String, String)>,
    /// More fields of text: name, label and value.
    pub more: Vec<(&'static str, &'static str, String)>,
    /// What the page was asked besides.
    pub kept: Vec<(&'static str, String)>,
    pub button: &'static str,
}

impl Search {
    pub(super) fn new(
        id: &'static str,
        label: &'static str,
        name: &'static str,
        value: Option<&str>,
        button: &'static str,
    ) -> Self {
        Self { id, label, name, value: value.unwrap_or_default().to_owned(), button, ..Self::default() }
    }

    pub(super) fn words<'a>(mut self, words: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        self.words.extend(words.into_iter().map(|(word, says)| (word.to_owned(), says.to_owned())));
        self
    }

    pub(super) fn also(mut self, name: &'static str, label: &'static str, value: Option<&str>) -> Self {
        self.more.push((name, label, value.unwrap_or_default().to_owned()));
        self
    }

    pub(super) fn keep(mut self, name: &'static str, value: Option<&str>) -> Self {
        self.kept.extend(value.map(|value| (name, value.to_owned())));
        self
    }
}

/// The question for a token.
#[derive(Debug)]
pub(super) struct SignIn {
    /// Where to go then.
    pub to: String,
}

/// Addresses of what all pages load.
struct Files {
    style: String,
    icon: String,
    app: String,
}

static FILES: LazyLock<Files> =
    LazyLock::new(|| Files { style: assets::style(), icon: assets::icon(), app: assets::app() });

impl Page {
    fn files() -> &'static Files {
        &FILES
    }

    fn is_signed_in(&self) -> bool {
        !self.frame.form_key.is_empty()
    }
}
