//! What happens around every request: its id, its time limit, its panic, its error's shape, its line and its numbers.
//!
//! Tracking calls come by the thousand a second, so this is kept to a few allocations, and their line is at level
//! `debug`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use super::peer::Peer;
use super::problem::{Code, Dialect, Problem};
use super::record::{self, Asked};
use super::trace::Trace;
use super::{AppState, Services, masking};
use crate::domain::month::Month;
use crate::telemetry::{metrics, traces};

/// The header with the id of the request, in the request and the answer.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Under that name others send it.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What is coming for the space.
const WARNING: HeaderName = HeaderName::from_static("personas-warning");
const REQUEST_ID_LENGTH_MAX: usize = 64;

/// What the layer of a group of routes knows.
#[derive(Clone)]
pub(super) struct Around {
    pub services: AppState,
    pub dialect: Dialect,
    /// Time for a whole request, up to the head of its answer.
    pub limit: Option<Duration>,
}

/// The layer.
pub(super) async fn observe(State(around): State<Around>, mut request: Request, next: Next) -> Response {
    let Around { services, dialect, limit } = around;
    let started = Instant::now();
    let id = request_id(request.headers(), &services);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let peer = request.extensions().get::<Peer>();
    let is_secure = peer.is_some_and(|peer| peer.is_secure(request.headers(), &services.trusted_proxies));
    // Tracking calls have no token, and show nothing.
    let trace = (dialect != Dialect::Tracking).then(Trace::default);
    let mut asked = None;
    if let Some(trace) = &trace {
        request.extensions_mut().insert(trace.clone());
        let (parts, body) = request.into_parts();
        asked = Some((Asked::of(&parts, &services), trace.clone()));
        request = Request::from_parts(parts, body);
    }
    let may_change = ![Method::GET, Method::HEAD].contains(&method);
    let inner =
        Inner { services: Arc::clone(&services), dialect, limit, route: route.clone(), id: id.clone() };
    let name = route.as_ref().map(MatchedPath::as_str);
    let span = traces::request(&method, name, id.to_str().unwrap_or_default(), request.headers());
    let mut response = match asked {
        None => guarded(limit, next.run(request)).instrument(span.clone()).await,
        // What a client does that hangs up is done, and written down, like what others do.
        Some(asked) if may_change => {
            let answering = inner.answer(asked, request, next).instrument(span.clone());
            services.changes.spawn(answering).await.unwrap_or_else(|_panic| failed())
        }
        Some(asked) => inner.answer(asked, request, next).instrument(span.clone()).await,
    };
    let mut is_readable = true;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        is_readable = problem.code != Code::OriginNotAllowed;
        let headers = std::mem::take(response.headers_mut());
        response = problem.render(dialect, id.to_str().unwrap_or_default());
        response.headers_mut().extend(headers);
    }
    if dialect == Dialect::Tracking {
        super::tracking::add_cors(response.headers_mut(), is_readable);
    }
    traces::answered(&span, response.status().as_u16());
    tell(&method, route.as_ref(), &response, started, dialect, &id);
    response.headers_mut().insert(REQUEST_ID, id);
    protect(response.headers_mut(), dialect, is_secure);
    response
}

/// What is done for a request that may show or change something, whether anybody waits for it or not.
struct Inner {
    services: AppState,
    dialect: Dialect,
    limit: Option<Duration>,
    route: Option<MatchedPath>,
    id: HeaderValue,
}

impl Inner {
    async fn answer(self, (asked, trace): (Asked, Trace), request: Request, next: Next) -> Response {
        let Self { services, dialect, limit, route, id } = self;
        let mut response = guarded(limit, next.run(request)).await;
        if let Some(space) = trace.space().filter(|space| space.plan.may_warn()) {
            let (plan, now) = (&space.plan, services.clock.now());
            let usage = services.manage.registry().meters().usage(space.no, Month::of(now));
            add_warnings(response.headers_mut(), plan.warnings(usage, now));
        }
        response = masking::apply(&trace, route.as_ref().map(MatchedPath::as_str), response).await;
        let problem = response.extensions().get::<Problem>().map(|problem| problem.status(dialect));
        let status = problem.unwrap_or_else(|| response.status());
        record::record(&services, &asked, &trace, status, id.to_str().unwrap_or_default()).await;
        response
    }
}

/// Says what is coming: the end of a term, a limit. One header for each.
pub(super) fn add_warnings(headers: &mut HeaderMap, warnings: Vec<String>) {
    for warning in warnings {
        if let Ok(value) = HeaderValue::from_str(&warning) {
            headers.append(WARNING, value);
        }
    }
}

/// What keeps browsers from doing with an answer what it is not for: guessing its type, showing it in a frame, running
/// something in it, keeping what is somebody's.
fn protect(headers: &mut HeaderMap, dialect: Dialect, is_secure: bool) {
    let mut unless_set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    unless_set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if is_secure {
        unless_set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    // Pages of anybody call those, and there is nothing in the answers.
    if dialect != Dialect::Tracking {
        unless_set(header::CACHE_CONTROL, "no-store");
        unless_set(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
        unless_set(header::REFERRER_POLICY, "no-referrer");
        unless_set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    }
}

/// Lets a handler run within its time, and catches its panic.
async fn guarded(limit: Option<Duration>, handler: impl Future<Output = Response>) -> Response {
    let caught = AssertUnwindSafe(handler).catch_unwind();
    let outcome = match limit {
        Some(limit) => tokio::time::timeout(limit, caught).await,
        None => Ok(caught.await),
    };
    match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => failed(),
        Err(_) => {
            Problem::new(Code::Overloaded, "the request took too long; try again in a moment").into_response()
        }
    }
}

/// The answer of what has panicked.
fn failed() -> Response {
    metrics::PANICS.add(&[], 1);
    tracing::error!("a handler panicked; the request is answered 500");
    Problem::new(Code::Internal, "something went wrong in the service").into_response()
}

/// The client's id when it is short and harmless, else one of ours.
fn request_id(headers: &HeaderMap, services: &Services) -> HeaderValue {
    let given = headers.get(REQUEST_ID).or_else(|| headers.get(X_REQUEST_ID));
    let is_sane = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        let harmless = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
        (1..=REQUEST_ID_LENGTH_MAX).contains(&bytes.len()) && bytes.iter().all(harmless)
    };
    if let Some(id) = given.filter(is_sane) {
        return id.clone();
    }
    let mut buffer = uuid::Uuid::encode_buffer();
    let id = services.ids.uuid();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut buffer))
        .unwrap_or(HeaderValue::from_static("none"))
}

fn tell(
    method: &Method,
    route: Option<&MatchedPath>,
    response: &Response,
    started: Instant,
    dialect: Dialect,
    id: &HeaderValue,
) {
    let (status, took) = (response.status(), started.elapsed());
    let route = route.map_or("unknown", MatchedPath::as_str);
    metrics::HTTP_REQUESTS.add(&[route, known(method), status.as_str()], 1);
    metrics::HTTP_REQUEST_DURATION.time(&[route], took);
    let (status, took_ms, id) = (status.as_u16(), took.as_secs_f64() * 1e3, id.to_str().unwrap_or_default());
    if dialect == Dialect::Tracking {
        tracing::debug!(status, took_ms, request_id = id, "{method} {route} answered {status}");
    } else {
        tracing::info!(status, took_ms, request_id = id, "{method} {route} answered {status}");
    }
}

/// Methods are whatever clients write; labels come from a closed set.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panics_and_slow_handlers_are_answered() {
        let code = |response: Response| response.extensions().get::<Problem>().map(|p| p.code);
        let panics = async { panic!("a bug") };
        assert_eq!(code(guarded(Some(Duration::from_secs(1)), panics).await), Some(Code::Internal));
        let limit = Duration::from_millis(1);
        assert_eq!(code(guarded(Some(limit), std::future::pending()).await), Some(Code::Overloaded));
        assert_eq!(code(guarded(None, async { "fine".into_response() }).await), None);
    }
}
