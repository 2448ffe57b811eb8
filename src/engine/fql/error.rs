//! What is wrong with a filter, and where.

use std::fmt;

use serde::Serialize;

/// The first mistake in a filter. Lines and columns count from 1, columns in characters; offset is bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FqlError {
    /// One sentence that a person can act on: what is wrong, and what would be right.
    pub message: String,
    /// Line of the first character.
    pub line: usize,
    /// Column of the first character.
    pub column: usize,
    /// First byte.
    pub offset: usize,
    /// What could stand there instead, where that is a short list.
    pub expected: Vec<String>,
}

impl FqlError {
    /// A mistake at a byte of the text.
    pub(super) fn at(text: &str, offset: usize, message: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            message: message.into(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            offset,
            expected: Vec::new(),
        }
    }

    /// The same, with what could stand there.
    pub(super) fn expecting(mut self, expected: &[&str]) -> Self {
        self.expected = expected.iter().map(|&word| word.to_owned()).collect();
        self
    }
}

impl fmt::Display for FqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (line {}, column {})", self.message, self.line, self.column)
    }
}

impl std::error::Error for FqlError {}
