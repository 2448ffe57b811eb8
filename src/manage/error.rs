//! Why an operator's wish was not granted.

use std::borrow::Cow;

use crate::engine::QueryError;
use crate::store::StoreError;

/// Result of a management function.
pub type Result<T> = std::result::Result<T, ManageError>;

/// A refused or failed change.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    /// What was named is not there.
    #[error("there is no {what} {name}")]
    NotFound {
        /// Which kind of thing.
        what: &'static str,
        /// What it was called.
        name: String,
    },
    /// The name is in use.
    #[error("{what} {name} exists already")]
    Exists {
        /// Which kind of thing.
        what: &'static str,
        /// What it was called.
        name: String,
    },
    /// A field has a value that cannot be.
    #[error("{message}")]
    Invalid {
        /// The field, as a path from the top of the body.
        field: Cow<'static, str>,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The query is wrong, in every place listed.
    #[error("the query cannot be used: {}", first(.0))]
    Query(Vec<QueryError>),
    /// Definitions would refer to each other in a circle.
    #[error("these definitions would refer to each other in a circle: {}", .0.join(" → "))]
    Cycle(Vec<String>),
    /// Something else needs what is to be deleted.
    #[error("{key} is used by {}; change or delete that first", .by.join(", "))]
    Referenced {
        /// What was to be deleted.
        key: String,
        /// Who refers to it.
        by: Vec<String>,
    },
    /// The change was made of an older version than the present one.
    #[error("version {given} was changed meanwhile: the present one is {present}; read it and decide anew")]
    Stale {
        /// The version the change was made of.
        given: i64,
        /// The version there is.
        present: i64,
    },
    /// A limit of the configuration is reached.
    #[error("the space has {most} {what} already, which is the limit")]
    TooMany {
        /// Which kind of thing.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// It cannot be done as things are.
    #[error("{0}")]
    Refused(String),
    /// Whoever asks may not do that.
    #[error("{0}")]
    Forbidden(String),
    /// The processor has not caught up in time.
    #[error("{0}")]
    NotSettled(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ManageError {
    pub(super) fn invalid(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }

    pub(super) fn not_found(what: &'static str, name: impl Into<String>) -> Self {
        Self::NotFound { what, name: name.into() }
    }
}

fn first(errors: &[QueryError]) -> String {
    errors.first().map(ToString::to_string).unwrap_or_default()
}
