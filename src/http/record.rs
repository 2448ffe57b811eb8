//! What is written into the audit log of the requests that are answered: changes before their answers go out, reads of
//! personal data within a second. Nobody has to think of it in a handler: method, scope and route say what a request is.

use std::net::IpAddr;

use axum::extract::MatchedPath;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Map, Value};

use super::masking::{self, Content};
use super::peer::Peer;
use super::trace::Trace;
use super::{AppState, Services};
use crate::domain::Scope;
use crate::domain::act::Actor;
use crate::domain::audit::{Entry, EntryKind};
use crate::domain::ids::public_id;
use crate::manage::audit::ReadOf;

/// Names in paths that say what of the service is meant, and nobody.
const NAMES: [&str; 11] = [
    "category",
    "collection",
    "id",
    "key",
    "merge",
    "name",
    "other",
    "prefix",
    "regulation",
    "subscription",
    "space",
];

/// What is kept of a request until it is answered.
#[derive(Debug)]
pub(super) struct Asked {
    method: Method,
    route: Option<MatchedPath>,
    uri: Uri,
    address: IpAddr,
}

impl Asked {
    /// Looks at a request, behind whatever proxies are trusted.
    pub(super) fn of(parts: &Parts, services: &Services) -> Self {
        Self {
            method: parts.method.clone(),
            route: parts.extensions.get::<MatchedPath>().cloned(),
            uri: parts.uri.clone(),
            address: address(parts.extensions.get::<Peer>(), &parts.headers, services),
        }
    }

    fn template(&self) -> &str {
        self.route.as_ref().map_or("", MatchedPath::as_str)
    }

    /// The names in the path that say what was meant.
    fn target(&self) -> Map<String, Value> {
        let segments = self.template().split('/').zip(self.uri.path().split('/'));
        let named = segments.filter_map(|(template, given)| {
            let name = template.strip_prefix('{')?.strip_suffix('}')?;
            let shown: String = given.chars().take(255).collect();
            NAMES.contains(&name).then(|| (name.to_owned(), Value::from(shown)))
        });
        named.collect()
    }
}

fn address(peer: Option<&Peer>, headers: &HeaderMap, services: &Services) -> IpAddr {
    let Some(peer) = peer else { return IpAddr::from([0, 0, 0, 0]) };
    let told = peer.forwarded(headers, "x-forwarded-for", &services.trusted_proxies);
    told.and_then(|told| told.parse().ok()).unwrap_or(peer.address).to_canonical()
}

/// Writes down what is to be written down of a request.
pub(super) async fn record(
    app: &AppState,
    asked: &Asked,
    trace: &Trace,
    status: StatusCode,
    request_id: &str,
) {
    let (Some(token), Some(of_readers)) = (trace.token(), trace.is_of_readers()) else { return };
    let is_read = [Method::GET, Method::HEAD].contains(&asked.method);
    let notes = trace.notes();
    let reads = is_read || of_readers || notes.is_trial;
    let space = trace.space().map(|space| space.no);
    let actor = Actor { id: public_id("tok", token.id), name: token.name.clone() };
    let action = format!("{} {}", asked.method, asked.template());
    if !reads {
        let entry = Entry {
            address: Some(asked.address.to_string()),
            target: Some(Value::Object(asked.target())),
            status: Some(status.as_u16()),
            request_id: Some(request_id.to_owned()),
            detail: notes.detail,
            profiles: notes.profiles,
            ..Entry::new(EntryKind::Change, app.clock.now().to_string(), action, actor)
        };
        // It is done, or refused: that it could not be written down is said where operators look.
        if let Err(error) = app.manage.record(space, entry).await {
            tracing::error!(%error, request_id, "a change is not in the audit log: {error}");
        }
        return;
    }
    // Masked data is nobody's, and what was refused was not read.
    let is_shown =
        token.scopes.contains(&Scope::PiiRead) && (status.is_success() || status == StatusCode::NOT_MODIFIED);
    let Some(space) = space.filter(|_| is_shown) else { return };
    if matches!(masking::content_of(asked.template()), Content::People(_) | Content::Unknown) {
        let read = ReadOf {
            space,
            actor: (actor.id, actor.name),
            address: asked.address.to_string(),
            action,
            target: Value::Object(asked.target()).to_string(),
        };
        app.manage.note_read(read, notes.profiles).await;
    }
}
