//! Sending spans to a collector: OTLP over HTTP, by a thread of its own, some at a time.
//!
//! Where and how is said by the standard's variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`,
//! `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME` and the others); without an endpoint, with `OTEL_SDK_DISABLED=true` or
//! `OTEL_TRACES_EXPORTER=none`, nothing is sent. A collector that does not
//! answer loses spans, and nothing else waits for it.

use std::sync::OnceLock;

use axum::http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use super::traces::TARGET;

/// The variables that say where the collector is.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// How the service is called where no variable says so.
const SERVICE: &str = "personas";

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// What hands spans to the collector, if there is one.
pub(super) fn layer<S>() -> Result<Option<Box<dyn Layer<S> + Send + Sync>>, ExporterBuildError>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    if ENDPOINTS.iter().all(|name| said(name).is_none()) || is_switched_off() {
        return Ok(None);
    }
    let exporter = SpanExporter::builder().with_http().build()?;
    let mut resource = Resource::builder();
    let attributes = said("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    if said("OTEL_SERVICE_NAME").is_none() && !attributes.contains("service.name=") {
        resource = resource.with_service_name(SERVICE);
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build());
    let provider = PROVIDER.get_or_init(|| provider.build());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(SERVICE));
    Ok(Some(layer.with_filter(Targets::new().with_target(TARGET, Level::DEBUG)).boxed()))
}

/// What a variable says; an empty one says nothing.
fn said(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_switched_off() -> bool {
    said("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || said("OTEL_TRACES_EXPORTER").as_deref() == Some("none")
}

/// Sends what has not been sent yet.
pub(super) fn end() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown()
    {
        tracing::warn!(%error, "the last spans could not be sent: {error}");
    }
}

/// Makes a span part of the trace of whoever asks (W3C Trace Context), if it is of one.
pub(super) fn follow(span: &Span, headers: &HeaderMap) {
    let parent = TraceContextPropagator::new().extract(&Headers(headers));
    // An error says that spans are not collected.
    let _not_collected = span.set_parent(parent);
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    /// The ids alone: what else a client says of its trace (`tracestate`) may be anything.
    fn get(&self, key: &str) -> Option<&str> {
        if key != "traceparent" {
            return None;
        }
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}
