//! `/v1/spaces/{space}/queries`: query texts that are no definitions (yet).

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::query_form::FormJson;
use crate::http::AppState;
use crate::http::auth::{Authed, Read};
use crate::http::extract::Json;
use crate::http::problem::{Code, Problem};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(format_query))
}

/// A query: its text, or what a form says of it.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = QueryText, min_properties = 1)]
#[serde(deny_unknown_fields)]
struct QueryText {
    /// An audience or a computed trait in the query language.
    query: Option<String>,
    /// The same put together from conditions of the common kinds.
    form: Option<FormJson>,
}

/// A query in its canonical form.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FormattedQuery)]
struct Formatted {
    query: String,
    /// All that it says, where it is of one of the common shapes; else it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    form: Option<FormJson>,
}

/// Write a query in its canonical form
///
/// One spelling and layout for all texts with the same words; the meaning and the comments stay. Formatting the answer
/// again changes nothing. A query that is not right is refused with all its errors, as when a definition is made of it.
/// Where conditions of the common kinds say all of it, they stand beside it as a form; given such a form instead of a text,
/// it answers with the text.
#[utoipa::path(post, path = "/v1/spaces/{space}/queries/format", security(("token" = ["read"])), tag = "Queries",
    params(("space" = String, Path, description = "Id of the space")),
    request_body = QueryText,
    responses((status = 200, body = Formatted)))]
async fn format_query(
    State(app): State<AppState>,
    _caller: Authed<Read>,
    Json(text): Json<QueryText>,
) -> Result<Json<Formatted>, Problem> {
    let (query, form) = match (text.query, text.form) {
        (Some(query), None) => app.manage.format_query(&query)?,
        (None, Some(form)) => {
            let form = form.try_into()?;
            (app.manage.write_form(&form)?, Some(form))
        }
        _ => return Err(Problem::new(Code::Invalid, "it needs either a query or a form").at("query")),
    };
    Ok(Json(Formatted { query, form: form.map(FormJson::from) }))
}
