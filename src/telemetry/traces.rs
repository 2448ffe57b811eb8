//! Spans: what takes how long, for a collector of traces. Where nobody collects them, making one costs next to nothing.
//!
//! They carry what log lines do: routes, numbers and outcomes, never bodies, traits, addresses or keys.

use axum::http::{HeaderMap, Method};
use tracing::{Span, debug_span, field};

/// The target of all of them.
pub const TARGET: &str = "personas::trace";

/// A request, by its route and not by its path; part of the trace that the client says it is part of.
pub fn request(method: &Method, route: Option<&str>, id: &str, headers: &HeaderMap) -> Span {
    let span = debug_span!(
        target: TARGET,
        "request",
        "otel.kind" = "server",
        "otel.name" = field::Empty,
        "otel.status_code" = field::Empty,
        "http.request.method" = field::Empty,
        "http.route" = field::Empty,
        "http.response.status_code" = field::Empty,
        request_id = id,
    );
    if !span.is_disabled() {
        let route = route.unwrap_or("no route");
        span.record("otel.name", format!("{method} {route}"));
        span.record("http.request.method", method.as_str());
        span.record("http.route", route);
        follow(&span, headers);
    }
    span
}

/// How a request ended.
pub fn answered(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// Writing a chunk into the log.
pub fn append(space: i32, requests: usize) -> Span {
    debug_span!(target: TARGET, "append", space, requests)
}

/// A micro-batch: from the log into profiles, audiences and queues.
pub fn batch(space: i32, events: u64) -> Span {
    debug_span!(target: TARGET, "batch", space, events)
}

/// One stage of a micro-batch.
pub fn stage(name: &'static str) -> Span {
    debug_span!(target: TARGET, "stage", "otel.name" = name)
}

/// Sending changes to a destination.
pub fn delivery(destination: i32, changes: usize) -> Span {
    debug_span!(target: TARGET, "delivery", "otel.kind" = "client", destination, changes)
}

#[cfg(feature = "otlp")]
use super::otlp::follow;

#[cfg(not(feature = "otlp"))]
const fn follow(_span: &Span, _headers: &HeaderMap) {}
