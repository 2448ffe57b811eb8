//! `/v1/spaces`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::http::AppState;
use crate::http::auth::{Authed, Caller, Owner, Read};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::Json;
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::Problem;
use crate::manage::registry::Space;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_spaces, create_space)).routes(routes!(get_space))
}

/// A space: one tenant with its own profiles.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Space)]
struct SpaceJson {
    id: String,
    name: String,
    created_at: String,
}

impl From<Space> for SpaceJson {
    fn from(space: Space) -> Self {
        Self { id: space.key, name: space.name, created_at: space.created_at.to_string() }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSpace {
    /// What clients call it: letters, digits, `-`, `_`, `.`.
    id: String,
    /// For people; the id when not given.
    name: Option<String>,
}

/// List the spaces the token can see
#[utoipa::path(get, path = "/v1/spaces", tag = "Spaces", params(PageParams),
    responses((status = 200, body = List<SpaceJson>)))]
async fn list_spaces(
    State(app): State<AppState>,
    caller: Caller<Read>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let after: Option<String> = page.after("spaces")?;
    let mut spaces = app.manage.list_spaces(caller.token.space);
    spaces.retain(|s| after.as_ref().is_none_or(|after| s.key > *after));
    Ok(known.answer(&page.list("spaces", spaces, |s| s.key.clone(), SpaceJson::from)))
}

/// Make a space
#[utoipa::path(post, path = "/v1/spaces", tag = "Spaces", request_body = NewSpace,
    responses((status = 201, body = SpaceJson)))]
async fn create_space(
    State(app): State<AppState>,
    _owner: Caller<Owner>,
    Json(new): Json<NewSpace>,
) -> Result<(StatusCode, Json<SpaceJson>), Problem> {
    let space = app.manage.create_space(&new.id, new.name.as_deref()).await?;
    Ok((StatusCode::CREATED, Json(space.into())))
}

/// Look at a space
#[utoipa::path(get, path = "/v1/spaces/{space}", tag = "Spaces",
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = SpaceJson)))]
async fn get_space(caller: Authed<Read>) -> Json<SpaceJson> {
    Json(caller.space.into())
}
