//! The tracking API: what Segment-protocol SDKs talk to (docs of their habits: the names of the tests).
//!
//! SDKs drop what is answered 4xx, retry what is answered 429 or 5xx, follow redirects and then lose the data, and some
//! take nothing but a plain 200 for success. So: 200 or a code that says what to do, always JSON, never a redirect.

mod answer;
mod body;
mod browser;
mod import;
mod key;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use std::time::Duration;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;

use super::problem::{Code, Problem};
use super::{AppState, Dialect};
use crate::disk::DiskGuard;
use crate::domain::EventType;
use crate::ingest::{CallKind, RefusedBody, Sender};
use crate::telemetry::metrics;

pub use body::InFlight;

/// What the tracking routes need beside `Ingest`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Longest pause within a body.
    pub body_idle_timeout: Duration,
    /// Bodies in memory.
    pub in_flight: InFlight,
    /// Whether there is room on the disk.
    pub disk: DiskGuard,
    /// The browser library, if one is served.
    pub analytics_js: Option<Bytes>,
}

/// The header that says which log offset covers the accepted events.
pub const OFFSET: HeaderName = HeaderName::from_static("personas-offset");

const fn single(event_type: EventType) -> CallKind {
    CallKind::Single(event_type)
}

/// Every call: what it takes, its paths (the documented one first), what it does.
const CALLS: [(CallKind, &[&str], &str); 7] = [
    (single(EventType::Identify), &["/v1/identify", "/v1/i"], "Set traits on a user"),
    (single(EventType::Track), &["/v1/track", "/v1/t"], "Record an action"),
    (single(EventType::Page), &["/v1/page", "/v1/p"], "Record a page view"),
    (single(EventType::Screen), &["/v1/screen", "/v1/s"], "Record a screen view"),
    (
        single(EventType::Group),
        &["/v1/group", "/v1/g"],
        "Put a user into an account and set traits on the account",
    ),
    (single(EventType::Alias), &["/v1/alias", "/v1/a"], "Tell downstream tools that two ids are one person"),
    (CallKind::Batch, &["/v1/batch", "/v1/import", "/v1/b", "/beacon/v1/batch"], "Send many calls at once"),
];
/// Where the browser SDK sends numbers about itself.
const METRICS_PATH: &str = "/v1/m";

/// The routes. A slash at the end is served as well: it must not become a redirect.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    let mut router = OpenApiRouter::with_openapi(super::openapi::tracking_calls(&CALLS, METRICS_PATH));
    for (kind, paths, _) in CALLS {
        for path in paths {
            let take = move |State(app): State<AppState>, request: Request| take(app, kind, request);
            router = both(router, path, &post(take).options(preflight));
        }
    }
    router = both(router, METRICS_PATH, &post(drop_metrics).options(preflight));
    router.merge(browser::routes()).merge(import::routes())
}

fn both(
    router: OpenApiRouter<AppState>,
    path: &str,
    methods: &MethodRouter<AppState>,
) -> OpenApiRouter<AppState> {
    router.route(path, methods.clone()).route(&format!("{path}/"), methods.clone())
}

/// One tracking call or batch.
async fn take(app: AppState, kind: CallKind, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let settings = &app.tracking;
    if settings.disk.is_full() {
        metrics::INGEST_SHED.add(&["disk"], 1);
        return Problem::new(Code::Overloaded, "the disk is nearly full; try again later").into_response();
    }
    // A key that is there is checked before a single byte of the body is taken.
    let early = match key::in_head(&parts.headers, &parts.uri) {
        Some(key) => match key::sender(&app, &key, &parts.headers).await {
            Ok(sender) => Some(sender),
            Err(problem) => return problem.into_response(),
        },
        None => None,
    };
    let limit = app.ingest.limits().body_bytes_max;
    let held = match body::read(&parts.headers, body, limit, settings).await {
        Ok(held) => held,
        Err(refused) => return refuse(&app, early, refused).await,
    };
    let sender = match early {
        Some(sender) => Ok(sender),
        None => key::sender_of_body(&app, held.bytes(), &parts.headers).await,
    };
    let sender = match sender {
        Ok(sender) => sender,
        Err(problem) => return problem.into_response(),
    };
    let started = Instant::now();
    let result = app.ingest.accept(sender, kind, held.bytes()).await;
    metrics::INGEST_ACK_DURATION.time(&[], started.elapsed());
    if let Ok(receipt) = &result {
        metrics::INGEST_RECEIVED.add(&[call_name(kind)], (receipt.accepted + receipt.rejected.len()) as u64);
    }
    let mut response = answer::answer(kind, result);
    super::observe::add_warnings(response.headers_mut(), key::warnings(&app, sender));
    response
}

/// A body that cannot be received or decompressed. It is listed when its sender is known, which takes a key in the
/// head, and when sending it again cannot help (decisions T3).
async fn refuse(app: &AppState, sender: Option<Sender>, refused: body::Refused) -> Response {
    let body::Refused { problem, beginning } = refused;
    if let Some(sender) = sender
        && problem.status(Dialect::Tracking) == StatusCode::BAD_REQUEST
    {
        let Problem { code, detail, field, .. } = &problem;
        let field = field.as_deref();
        let refused = RefusedBody { code: code.as_str(), message: detail, field, beginning: &beginning };
        app.ingest.note_refused_body(sender, refused).await;
    }
    problem.into_response()
}

const fn call_name(kind: CallKind) -> &'static str {
    match kind {
        CallKind::Single(event_type) => event_type.as_str(),
        CallKind::Batch => "batch",
    }
}

/// The browser SDK's numbers about itself: nobody here wants them, and refusing them would only make it try again.
async fn drop_metrics() -> Response {
    answer::success()
}

/// Any CORS preflight: whatever headers the SDK asks for are allowed. Most say no key, so that the call itself is what is
/// refused; one with a key in its query is told at once.
async fn preflight(State(app): State<AppState>, uri: Uri, headers: HeaderMap) -> Response {
    if let Err(problem) = key::check_preflight(&app, &uri, &headers).await {
        return problem.into_response();
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let answered = response.headers_mut();
    answered.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
    answered.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or(HeaderValue::from_static("*")));
    answered.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    answered.insert(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    response
}

/// Lets any page read any answer of the tracking API, but for one its source takes nothing from. No credentials are involved:
/// the key is in the request.
pub(super) fn add_cors(headers: &mut HeaderMap, is_readable: bool) {
    const EXPOSED: &str = "Retry-After, Personas-Offset, Personas-Warning, Request-Id, X-RateLimit-Reset";
    if !is_readable {
        return;
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
}
