//! What scripts of the console ask the API: the same paths behind `/console/api`, with the session's token instead of the
//! cookie. Nothing is added and nothing taken away; whoever has no session, or comes from another page, is refused.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Console;
use super::client::Api;
use super::context::{cookie, is_from_here};
use crate::http::peer::Peer;

/// Where a script says which session its page belongs to.
const FORM_KEY: &str = "x-form-key";
/// Headers of a script's request that the API reads.
const PASSED_ON: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::ACCEPT, header::IF_NONE_MATCH, HeaderName::from_static("last-event-id")];

/// Passes a request on.
pub(super) async fn pass(State(console): State<Console>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let peer = parts.extensions.get::<Peer>();
    let is_read = [Method::GET, Method::HEAD].contains(&parts.method);
    let Some((key, session)) = cookie(&parts.headers).and_then(|id| console.0.sessions.find(id, !is_read))
    else {
        return (StatusCode::UNAUTHORIZED, "the session is over: sign in again").into_response();
    };
    let has_key =
        parts.headers.get(FORM_KEY).is_some_and(|key| key.as_bytes() == session.form_key.expose().as_bytes());
    if !(is_read || has_key && is_from_here(&parts.headers, peer, &console)) {
        return (StatusCode::FORBIDDEN, "only pages of this console may ask for that").into_response();
    }
    let address = parts.uri.path_and_query().map_or("", |address| address.as_str());
    let address = address.strip_prefix("/console/api").unwrap_or_default();
    if !address.starts_with("/v1/") {
        return StatusCode::NOT_FOUND.into_response();
    }
    let mut passed = axum::http::Request::builder().method(parts.method.clone()).uri(address);
    for name in PASSED_ON {
        if let Some(value) = parts.headers.get(&name) {
            passed = passed.header(name, value);
        }
    }
    let Ok(passed) = passed.body(Body::new(body)) else { return StatusCode::BAD_REQUEST.into_response() };
    let api = Api::new(&console.0.api, &session.token, &parts.headers, peer);
    let response = api.send(passed).await;
    if api.is_refused() {
        console.0.sessions.close(&key);
    }
    response
}
