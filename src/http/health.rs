//! Whether this process lives, whether it should be sent requests, and its numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::AppState;
use super::extract::{Json, Query};
use crate::telemetry::metrics;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(livez)).routes(routes!(readyz)).routes(routes!(metrics_page))
}

/// Whether the process is on its way out. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    draining: Arc<AtomicBool>,
    erasing: Arc<AtomicBool>,
}

impl Health {
    /// From now on, requests should go elsewhere.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Whether the database was restored, and people are there who were erased since.
    pub fn set_erasing(&self, erasing: bool) {
        self.erasing.store(erasing, Ordering::SeqCst);
    }

    /// See [`Self::set_erasing`].
    pub fn is_erasing(&self) -> bool {
        self.erasing.load(Ordering::SeqCst)
    }

    /// Whether they should.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }
}

/// Whether the process lives
///
/// Does not ask the database: a process that lives is not to be restarted because Postgres is.
#[utoipa::path(get, path = "/livez", tag = "Operations", security(()),
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn livez() -> &'static str {
    "ok"
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ReadyParams {
    /// Says which checks failed and why; with `server.internal_listen`, at that address alone.
    verbose: Option<String>,
}

/// Whether to send requests here.
#[derive(Debug, Serialize, ToSchema)]
struct Readiness {
    ready: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Check>,
}

/// One check.
#[derive(Debug, Serialize, ToSchema)]
struct Check {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Check {
    fn new(name: &'static str, reason: Option<String>) -> Self {
        Self { name, ok: reason.is_none(), reason }
    }
}

/// Whether to send requests here
///
/// 200 while the process is not stopping, the database answers, its schema is the one of this build, and there is
/// room on the disk of a private Postgres, and nobody is in a restored database who was erased since; else 503.
#[utoipa::path(get, path = "/readyz", tag = "Operations", params(ReadyParams), security(()),
    responses((status = 200, body = Readiness), (status = 503, body = Readiness)))]
async fn readyz(State(app): State<AppState>, Query(params): Query<ReadyParams>) -> Response {
    let draining = app.health.is_draining().then(|| "the process is stopping".to_owned());
    let erasing =
        app.health.is_erasing().then(|| "people who were erased are in a restored database".to_owned());
    let disk = app.tracking.disk.is_full().then(|| "too little space is free".to_owned());
    let (database, schema) = match app.manage.schema_versions().await {
        Ok((ours, Some(theirs))) if ours == theirs => (None, None),
        Ok((ours, theirs)) => {
            let theirs = theirs.map_or("none".to_owned(), |v| v.to_string());
            (None, Some(format!("the database has schema {theirs}, this build is for {ours}")))
        }
        Err(error) => {
            tracing::warn!(%error, "not ready: {error}");
            (Some("the database does not answer".to_owned()), None)
        }
    };
    let checks = vec![
        Check::new("draining", draining),
        Check::new("database", database),
        Check::new("schema", schema),
        Check::new("disk", disk),
        Check::new("erasures", erasing),
    ];
    let ready = checks.iter().all(|c| c.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let checks = if params.verbose.is_some() && app.shows_internals { checks } else { Vec::new() };
    (status, Json(Readiness { ready, checks })).into_response()
}

/// All metrics, for Prometheus
///
/// With `server.internal_listen`, at that address alone: 404 elsewhere.
#[utoipa::path(get, path = "/metrics", tag = "Operations", security(()),
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn metrics_page(State(app): State<AppState>, uri: Uri) -> Response {
    if !app.shows_internals {
        return super::problem::no_such_route(uri).await.into_response();
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::render()).into_response()
}
