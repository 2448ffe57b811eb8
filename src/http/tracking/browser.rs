//! What the browser SDK loads before it sends anything: its settings, and the library itself.

use axum::Extension;
use axum::extract::State;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::http::AppState;
use crate::http::extract::{Json, Path};
use crate::http::peer::Peer;
use crate::http::problem::{Code, Problem};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    let cors = axum::routing::options(super::preflight);
    OpenApiRouter::new()
        .routes(routes!(settings))
        .routes(routes!(library))
        .route("/v1/projects/{write_key}/settings", cors.clone())
        .route("/analytics.js/v1/{write_key}/analytics.min.js", cors)
}

#[derive(Deserialize)]
struct Params {
    write_key: String,
}

/// What the browser SDK starts with
#[derive(Debug, Serialize, ToSchema)]
struct BrowserSettings {
    /// Where to send: `Segment.io` with `apiKey`, `apiHost` and `protocol`.
    #[schema(value_type = Object)]
    integrations: Value,
    /// Everything is planned, nothing is blocked.
    #[schema(value_type = Object)]
    plan: Value,
    /// The SDK must not send numbers about itself: `sampleRate` 0.
    #[schema(value_type = Object)]
    metrics: Value,
    #[serde(rename = "analyticsNextEnabled")]
    analytics_next_enabled: bool,
    #[serde(rename = "edgeFunction")]
    #[schema(value_type = Object)]
    edge_function: Value,
    #[serde(rename = "remotePlugins")]
    #[schema(value_type = Vec<Object>)]
    remote_plugins: Value,
    #[serde(rename = "enabledMiddleware")]
    #[schema(value_type = Object)]
    enabled_middleware: Value,
}

/// Settings of the browser SDK
///
/// Sends the SDK to this host, under the name and scheme it was asked by.
#[utoipa::path(
    get,
    path = "/v1/projects/{write_key}/settings",
    tag = "Tracking",
    security(()),
    params(("write_key" = String, Path, description = "A write key")),
    responses((status = 200, body = BrowserSettings))
)]
async fn settings(
    State(app): State<AppState>,
    Path(Params { write_key }): Path<Params>,
    uri: Uri,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    super::key::sender(&app, &write_key, &headers).await?;
    let forwarded = peer.forwarded(&headers, "x-forwarded-host", &app.trusted_proxies);
    let segment = json!({
        "apiKey": write_key,
        "apiHost": format!("{}/v1", host(&headers, &uri, forwarded)?),
        "protocol": if peer.is_secure(&headers, &app.trusted_proxies) { "https" } else { "http" },
        "unbundledIntegrations": [],
        "addBundledMetadata": true,
        "maybeBundledConfigIds": {},
        "versionSettings": {"version": "4.4.7", "componentTypes": ["browser"]},
    });
    let all = json!({"__default": {"enabled": true, "integrations": {}}});
    let settings = BrowserSettings {
        integrations: json!({"Segment.io": segment}),
        plan: json!({"track": all, "identify": all, "group": all}),
        metrics: json!({"sampleRate": 0}),
        analytics_next_enabled: true,
        edge_function: json!({}),
        remote_plugins: json!([]),
        enabled_middleware: json!({}),
    };
    let caching = [(header::CACHE_CONTROL, "private, max-age=60")];
    Ok((caching, Json(settings)).into_response())
}

/// The host the client knows us by, which a proxy in front passes on.
fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri, forwarded: Option<&'a str>) -> Result<&'a str, Problem> {
    let named = || headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let host = forwarded.or_else(named).or_else(|| uri.authority().map(Authority::as_str));
    let is_host = |h: &&str| h.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b));
    let host = host.map(str::trim).filter(|h| !h.is_empty()).filter(is_host);
    host.ok_or_else(|| Problem::new(Code::BadRequest, "the request has no usable Host header").at("Host"))
}

/// The browser SDK itself
///
/// The file named by `ingest.analytics_js_file`, for the official snippet with `host` set to this server.
#[utoipa::path(
    get,
    path = "/analytics.js/v1/{write_key}/analytics.min.js",
    tag = "Tracking",
    params(("write_key" = String, Path, description = "A write key")),
    responses((status = 200, body = String, content_type = "application/javascript"))
)]
async fn library(State(app): State<AppState>) -> Result<Response, Problem> {
    let Some(file) = app.tracking.analytics_js.clone() else {
        let message = "no browser library is configured: name analytics-next's standalone.js in ingest.analytics_js_file";
        return Err(Problem::not_found(message));
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/javascript; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
    ];
    Ok((headers, file).into_response())
}
