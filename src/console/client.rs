//! How pages ask the service: its own router, in this process, with the operator's token, as any client would over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::response::Response;
use serde_json::Value;
use tower::ServiceExt;
use url::Url;

use crate::config::Secret;
use crate::http::peer::Peer;

/// Headers of the browser's request that say from where it came and which one it is.
const PASSED_ON: [HeaderName; 4] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("request-id"),
];
/// Largest answer that is made into a page, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The API as one operator may use it. Clones share whether the token was refused.
#[derive(Debug, Clone)]
pub(super) struct Api {
    router: Router,
    token: Secret,
    headers: HeaderMap,
    peer: Option<Peer>,
    is_refused: Arc<AtomicBool>,
}

/// What the API does not do, and why.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// The status it answered with.
    pub status: StatusCode,
    /// What is wrong and what would be right.
    pub detail: String,
    /// Everything that is wrong with a query: `message`, `line`, `column`.
    pub errors: Vec<Value>,
}

impl Refusal {
    /// A refusal of the console itself.
    pub(super) fn new(status: StatusCode, detail: &str) -> Self {
        Self { status, detail: detail.to_owned(), errors: Vec::new() }
    }

    /// What an error of the API says, in each of its shapes.
    fn read(status: StatusCode, body: &Value) -> Self {
        let error = body.get("error").unwrap_or(body);
        let text = |name: &str| error.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut detail = text("detail").or_else(|| text("message")).unwrap_or_default();
        if let Some(field) = text("field") {
            detail = format!("{detail} ({field})");
        }
        Self {
            status,
            detail,
            errors: error.get("errors").and_then(Value::as_array).cloned().unwrap_or_default(),
        }
    }
}

impl Api {
    /// The API for `token`, asked on behalf of a request with these headers from that peer.
    pub(super) fn new(router: &Router, token: &Secret, headers: &HeaderMap, peer: Option<&Peer>) -> Self {
        let passed = PASSED_ON.into_iter().filter_map(|name| Some((headers.get(&name)?.clone(), name)));
        Self {
            router: router.clone(),
            token: token.clone(),
            headers: passed.map(|(value, name)| (name, value)).collect(),
            peer: peer.copied(),
            is_refused: Arc::default(),
        }
    }

    /// Whether the token was not taken: it was revoked, or has expired.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::SeqCst)
    }

    /// Sends a request whose address and body are given, and returns the answer as it comes.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Response {
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        if let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", self.token.expose())) {
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        let response = match Box::pin(self.router.clone().oneshot(request)).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            self.is_refused.store(true, Ordering::SeqCst);
        }
        response
    }

    /// Asks and reads JSON. An answer without a body is null.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Value, Refusal> {
        let unsendable = |_| Refusal::new(StatusCode::BAD_REQUEST, "the request cannot be made");
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.map_or_else(Body::empty, Body::from)).map_err(unsendable)?;
        let response = self.send(request).await;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX)
            .await
            .map_err(|_| Refusal::new(StatusCode::BAD_GATEWAY, "the answer is too large for a page"))?;
        let json = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() { Ok(json) } else { Err(Refusal::read(status, &json)) }
    }

    /// Reads.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Refusal> {
        self.call(Method::GET, path, None).await
    }
}

/// A path with its segments encoded: `path(["v1", "spaces", "a b"], &[])` is `/v1/spaces/a%20b`.
pub(super) fn path<S: AsRef<str>>(segments: impl IntoIterator<Item = S>, query: &[(&str, &str)]) -> String {
    let Ok(mut url) = Url::parse("http://console/") else { return String::new() };
    if let Ok(mut path) = url.path_segments_mut() {
        path.clear().extend(segments);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url[url::Position::BeforePath..url::Position::AfterQuery].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_leave_their_segment() {
        assert_eq!(path(["v1", "a/b?c#d", "é %"], &[]), "/v1/a%2Fb%3Fc%23d/%C3%A9%20%25");
        assert_eq!(path(["s"], &[("query", "a&b=c d")]), "/s?query=a%26b%3Dc+d");
    }
}
