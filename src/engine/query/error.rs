//! What is wrong with a query, and where.

use std::fmt;

use serde::Serialize;

/// A piece of the query text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub offset: usize,
    /// Number of bytes.
    pub length: usize,
}

impl Span {
    /// From the first byte to before `end`.
    pub const fn new(offset: usize, end: usize) -> Self {
        Self { offset, length: end.saturating_sub(offset) }
    }

    /// The byte after the last.
    pub const fn end(self) -> usize {
        self.offset + self.length
    }

    /// From the start of this one to the end of `other`.
    pub fn to(self, other: Self) -> Self {
        Self::new(self.offset, other.end().max(self.end()))
    }

    /// The text it covers.
    pub fn text(self, query: &str) -> &str {
        query.get(self.offset..self.end()).unwrap_or_default()
    }
}

/// Why a query is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The text is not in the language.
    Syntax,
    /// The words are right, but they do not fit together.
    Type,
    /// Part of the language that this version cannot do yet. Refused, never guessed.
    Unsupported,
    /// Too long, too deep or too many.
    Limit,
    /// No mistake: a name that has not been seen yet.
    Unseen,
}

/// One error. Lines and columns count from 1, columns in characters; offset and length are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueryError {
    /// The kind of mistake.
    pub kind: ErrorKind,
    /// One sentence that a person can act on.
    pub message: String,
    /// Line of the first character.
    pub line: usize,
    /// Column of the first character.
    pub column: usize,
    /// First byte.
    pub offset: usize,
    /// Number of bytes; 0 at the end of the text.
    pub length: usize,
    /// What could stand there instead, where that is a short list.
    pub expected: Vec<String>,
    /// Which of these was most likely meant, where one is near.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (line {}, column {})", self.message, self.line, self.column)
    }
}

impl std::error::Error for QueryError {}

/// Gathers errors while a query is read, so that all of them can be told at once.
#[derive(Debug, Default)]
pub(super) struct Errors {
    found: Vec<Found>,
}

#[derive(Debug, PartialEq)]
struct Found {
    span: Span,
    kind: ErrorKind,
    message: String,
    expected: Vec<String>,
    suggestion: Option<String>,
}

impl Errors {
    /// Adds an error.
    pub(super) fn add(&mut self, kind: ErrorKind, span: Span, message: impl Into<String>) {
        self.add_expecting(kind, span, message, &[]);
    }

    /// Adds an error and what could stand there instead.
    pub(super) fn add_expecting(
        &mut self,
        kind: ErrorKind,
        span: Span,
        message: impl Into<String>,
        expected: &[&str],
    ) {
        self.add_suggesting(kind, span, message, expected, None);
    }

    /// Adds an error, what could stand there instead and which of that was most likely meant.
    pub(super) fn add_suggesting(
        &mut self,
        kind: ErrorKind,
        span: Span,
        message: impl Into<String>,
        expected: &[&str],
        suggestion: Option<&str>,
    ) {
        let hint = suggestion.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        self.found.push(Found {
            span,
            kind,
            message: message.into() + &hint,
            expected: expected.iter().map(|&e| e.to_owned()).collect(),
            suggestion: suggestion.map(str::to_owned),
        });
    }

    /// Adds an error about a word that is not known, with the nearest known one.
    pub(super) fn add_unknown(&mut self, span: Span, what: &str, word: &str, known: &[&str]) {
        let message = format!("unknown {what} `{word}`");
        self.add_suggesting(ErrorKind::Syntax, span, message, known, nearest(word, known));
    }

    /// Whether nothing was wrong.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The errors in the order of the text, with lines and columns.
    pub(super) fn finish(mut self, query: &str) -> Vec<QueryError> {
        self.found.sort_by_key(|found| (found.span.offset, found.span.length));
        self.found.dedup();
        self.found
            .into_iter()
            .map(|Found { span, kind, message, expected, suggestion }| {
                let before = query.get(..span.offset).unwrap_or(query);
                let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
                QueryError {
                    kind,
                    message,
                    line: before.matches('\n').count() + 1,
                    column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
                    offset: span.offset,
                    length: span.length,
                    expected,
                    suggestion,
                }
            })
            .collect()
    }
}

/// The known word that was most likely meant: at most a third of the letters may differ.
pub(in crate::engine) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    known
        .iter()
        .map(|&candidate| (strsim::damerau_levenshtein(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}
