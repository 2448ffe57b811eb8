//! `PUT /v1/test-clock`, which exists only under `serve --test-clock`.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::domain::Timestamp;
use crate::http::AppState;
use crate::http::auth::{Caller, Owner};
use crate::http::extract::Json;
use crate::http::problem::{Code, Problem};

pub(in crate::http) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(move_test_clock))
}

/// An instant.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Instant {
    /// RFC 3339, for example `2024-03-01T12:00:00Z`.
    now: String,
}

/// Move the test clock forward
///
/// Answers when everything due by then has been done. Only with `serve --test-clock`.
#[utoipa::path(put, path = "/v1/test-clock", security(("token" = ["server:owner"])), tag = "Operations", request_body = Instant,
    responses((status = 200, body = Instant)))]
async fn move_test_clock(
    State(app): State<AppState>,
    _owner: Caller<Owner>,
    Json(wanted): Json<Instant>,
) -> Result<Json<Instant>, Problem> {
    let to = Timestamp::parse(&wanted.now).ok_or_else(|| {
        Problem::new(Code::Invalid, "now must be a timestamp such as 2024-03-01T12:00:00Z").at("now")
    })?;
    let now = app.manage.move_test_clock(to, &app.board).await?;
    Ok(Json(Instant { now: now.to_string() }))
}
