//! What a request turns out to be while it is handled: by whom it is, in which space, about whom. The layer around the
//! routes reads it once the answer is there.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::http::HeaderMap;
use serde_json::Value;

use super::etag::IfNoneMatch;
use crate::domain::Scope;
use crate::manage::registry::{Space, Token};

/// The handle; clones share what is filled in.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    token: OnceLock<Arc<Token>>,
    space: OnceLock<Arc<Space>>,
    scope: OnceLock<Option<Scope>>,
    known: OnceLock<IfNoneMatch>,
    notes: Mutex<Notes>,
}

/// What handlers say about a request for the audit log.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    /// Public ids of profiles it was about.
    pub profiles: Vec<String>,
    /// What was changed, where the path does not say it all.
    pub detail: Option<Value>,
    /// It was asked for what would happen, and nothing did.
    pub is_trial: bool,
}

impl Trace {
    /// The token the request proved. If it does not show personal data, the answer will be another one than the handler
    /// makes: whether the client has that already is not for the handler to say.
    pub(super) fn set_token(&self, token: &Arc<Token>, headers: &mut HeaderMap) {
        if !token.scopes.contains(&Scope::PiiRead) {
            let _asked_twice = self.0.known.set(IfNoneMatch::take(headers));
        }
        let _asked_twice = self.0.token.set(Arc::clone(token));
    }

    /// The space of the path, which the token may see.
    pub(super) fn set_space(&self, space: &Arc<Space>) {
        let _asked_twice = self.0.space.set(Arc::clone(space));
    }

    /// What the route needs; `None` is the server's owner.
    pub(super) fn set_scope(&self, scope: Option<Scope>) {
        let _asked_twice = self.0.scope.set(scope);
    }

    /// Whether the route needs no more than [`Scope::Read`]; `None` when nobody has asked for a token.
    pub(super) fn is_of_readers(&self) -> Option<bool> {
        self.0.scope.get().map(|needed| *needed == Some(Scope::Read))
    }

    /// The token the request proved.
    pub(super) fn token(&self) -> Option<&Arc<Token>> {
        self.0.token.get()
    }

    /// The space of the path, if the token may see it.
    pub(super) fn space(&self) -> Option<&Arc<Space>> {
        self.0.space.get()
    }

    /// What the client has already, of an answer in which personal data is masked.
    pub(super) fn known(&self) -> IfNoneMatch {
        self.0.known.get().cloned().unwrap_or_default()
    }

    /// Adds to what handlers say.
    pub(super) fn note(&self, say: impl FnOnce(&mut Notes)) {
        say(&mut self.0.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What handlers said.
    pub(super) fn notes(&self) -> Notes {
        std::mem::take(&mut self.0.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
