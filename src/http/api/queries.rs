//! `/v1/spaces/{space}/queries`: query texts that are no definitions (yet).

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::http::AppState;
use crate::http::auth::{Authed, Read};
use crate::http::extract::Json;
use crate::http::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(format_query))
}

/// The text of a query.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = QueryText)]
#[serde(deny_unknown_fields)]
struct QueryText {
    /// An audience or a computed trait in the query language.
    query: String,
}

/// Write a query in its canonical form
///
/// One spelling and layout for all texts with the same words; the meaning and the comments stay. Formatting the answer
/// again changes nothing. A query that is not right is refused with all its errors, as when a definition is made of it.
#[utoipa::path(post, path = "/v1/spaces/{space}/queries/format", security(("token" = ["read"])), tag = "Queries",
    params(("space" = String, Path, description = "Id of the space")),
    request_body = QueryText,
    responses((status = 200, body = QueryText)))]
async fn format_query(
    State(app): State<AppState>,
    _caller: Authed<Read>,
    Json(text): Json<QueryText>,
) -> Result<Json<QueryText>, Problem> {
    Ok(Json(QueryText { query: app.manage.format_query(&text.query)? }))
}
