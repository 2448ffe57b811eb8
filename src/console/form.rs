//! Forms: each is one call of the API, with its method, its path and the shape of its body. They work without a script; what
//! cannot be taken back is shown first ([`super::act`]).

use askama::Template;

use super::context::Context;

/// What is done before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Nothing: it does no harm.
    No,
    /// It is asked whether it is meant.
    Confirm,
    /// The API says what would happen, by `dry_run=true` behind the path.
    Try,
    /// The same by `"dry_run": true` in the body.
    TryInBody,
}

impl Ask {
    /// The word for it in a form.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Confirm => "confirm",
            Self::Try => "try",
            Self::TryInBody => "try_in_body",
        }
    }

    /// Reads the word.
    pub(super) fn parse(word: &str) -> Option<Self> {
        [Self::No, Self::Confirm, Self::Try, Self::TryInBody].into_iter().find(|ask| ask.word() == word)
    }
}

/// A form.
#[derive(Debug, Template)]
#[template(path = "console/form.html")]
pub(super) struct Form {
    /// Unique on its page.
    pub id: String,
    pub method: &'static str,
    /// Path of the API.
    pub path: String,
    pub fields: Vec<Field>,
    pub button: String,
    /// What it does, in one sentence, for the page that asks again.
    pub says: String,
    pub ask: Ask,
    /// Where to go when it is done.
    pub back: String,
    pub key: String,
    /// The answer is shown: it has something that is not seen again.
    pub shows: bool,
    /// Only a button, without room around it.
    pub is_small: bool,
    pub is_danger: bool,
}

/// One field. Its name is what it becomes in the body: a kind and a path, such as `s:definition.query`.
#[derive(Debug)]
pub(super) struct Field {
    pub kind: Kind,
    pub path: &'static str,
    pub label: &'static str,
    pub value: String,
    pub hint: String,
    pub is_required: bool,
    /// Empty text is text, too, and not left out.
    pub is_kept: bool,
}

/// What a field is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A line of text; left out when it is empty.
    Text,
    /// Text of several lines.
    Area,
    /// A number; left out when it is empty.
    Number,
    /// Yes or no.
    Check,
    /// One of these words; left out when it is the empty one.
    Choice(Vec<(String, String)>),
    /// A list, separated by commas or lines.
    List,
    /// JSON.
    Json,
    /// Not shown, under just its path.
    Raw,
}

impl Field {
    fn new(kind: Kind, path: &'static str, label: &'static str, value: impl Into<String>) -> Self {
        Self {
            kind,
            path,
            label,
            value: value.into(),
            hint: String::new(),
            is_required: false,
            is_kept: false,
        }
    }

    pub(super) fn text(path: &'static str, label: &'static str, value: impl Into<String>) -> Self {
        Self::new(Kind::Text, path, label, value)
    }

    pub(super) fn area(path: &'static str, label: &'static str, value: impl Into<String>) -> Self {
        Self::new(Kind::Area, path, label, value)
    }

    pub(super) fn number(path: &'static str, label: &'static str, value: impl Into<String>) -> Self {
        Self::new(Kind::Number, path, label, value)
    }

    pub(super) fn check(path: &'static str, label: &'static str, is_on: bool) -> Self {
        Self::new(Kind::Check, path, label, if is_on { "true" } else { "" })
    }

    pub(super) fn list(path: &'static str, label: &'static str, value: impl Into<String>) -> Self {
        Self::new(Kind::List, path, label, value)
    }

    pub(super) fn json(path: &'static str, label: &'static str, value: impl Into<String>) -> Self {
        Self::new(Kind::Json, path, label, value)
    }

    /// What is no part of the body.
    pub(super) fn raw(name: &'static str, value: impl Into<String>) -> Self {
        Self::new(Kind::Raw, name, "", value)
    }

    /// One of some words: each with what it says.
    pub(super) fn choice(
        path: &'static str,
        label: &'static str,
        value: &str,
        words: &[(&str, &str)],
    ) -> Self {
        let words = words.iter().map(|(word, says)| ((*word).to_owned(), (*says).to_owned())).collect();
        Self::new(Kind::Choice(words), path, label, value)
    }

    pub(super) fn required(mut self) -> Self {
        self.is_required = true;
        self
    }

    pub(super) const fn kept(mut self) -> Self {
        self.is_kept = true;
        self
    }

    pub(super) fn hint(mut self, hint: &str) -> Self {
        hint.clone_into(&mut self.hint);
        self
    }

    /// Its name in the form.
    pub(super) fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Raw => return self.path.to_owned(),
            _ if self.is_kept => 'S',
            Kind::Text | Kind::Area | Kind::Choice(_) => 's',
            Kind::Number => 'n',
            Kind::Check => 'b',
            Kind::List => 'l',
            Kind::Json => 'j',
        };
        format!("{kind}:{}", self.path)
    }
}

impl Form {
    /// A form of a page; `path` is below the space.
    pub(super) fn new(
        context: &Context,
        id: &str,
        method: &'static str,
        path: &[&str],
        button: &str,
    ) -> Self {
        Self {
            id: id.to_owned(),
            method,
            path: context.of_space(path, &[]),
            fields: Vec::new(),
            button: button.to_owned(),
            says: String::new(),
            ask: Ask::No,
            back: context.address.clone(),
            key: context.session.form_key.expose().to_owned(),
            shows: false,
            is_small: false,
            is_danger: false,
        }
    }

    pub(super) fn field(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }

    /// It is tried, or asked about, before it is done; `says` in one sentence what it does.
    pub(super) fn asks(mut self, ask: Ask, says: impl Into<String>) -> Self {
        self.ask = ask;
        self.says = says.into();
        self
    }

    pub(super) fn back(mut self, back: String) -> Self {
        self.back = back;
        self
    }

    pub(super) const fn shows(mut self) -> Self {
        self.shows = true;
        self
    }

    pub(super) const fn small(mut self) -> Self {
        self.is_small = true;
        self
    }

    pub(super) const fn danger(mut self) -> Self {
        self.is_danger = true;
        self
    }

    /// The id of a field's element.
    fn id_of(&self, field: &Field) -> String {
        format!("{}-{}", self.id, field.path)
    }
}
