//! `/v1/spaces/{space}/computed-traits`: definitions of computed traits.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::definitions::{
    self, ChangeParams, DefinitionChange, DefinitionJson, KeyPath, NewDefinition, ReferencesJson, VersionJson,
};
use crate::http::AppState;
use crate::http::auth::{Authed, Read, Write};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::{Json, Path, Query};
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::Problem;
use crate::manage::definitions::Kind;

const KIND: Kind = Kind::ComputedTrait;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_computed_traits, create_computed_trait))
        .routes(routes!(get_computed_trait, change_computed_trait, delete_computed_trait))
        .routes(routes!(list_computed_trait_versions))
        .routes(routes!(get_computed_trait_references))
}

/// List the computed traits of a space
#[utoipa::path(get, path = "/v1/spaces/{space}/computed-traits", tag = "Computed traits",
    params(("space" = String, Path, description = "Id of the space"), PageParams),
    responses((status = 200, body = List<DefinitionJson>)))]
async fn list_computed_traits(
    State(app): State<AppState>,
    caller: Authed<Read>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    definitions::list(&app, caller.space_no(), KIND, &page, &known).await
}

/// Make a computed trait
#[utoipa::path(post, path = "/v1/spaces/{space}/computed-traits", tag = "Computed traits", request_body = NewDefinition,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 201, body = DefinitionJson)))]
async fn create_computed_trait(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Json(new): Json<NewDefinition>,
) -> Result<(StatusCode, Json<DefinitionJson>), Problem> {
    definitions::create(&app, caller.space_no(), KIND, new).await
}

/// Look at a computed trait
#[utoipa::path(get, path = "/v1/spaces/{space}/computed-traits/{key}", tag = "Computed traits",
    params(("space" = String, Path, description = "Id of the space"), ("key" = String, Path, description = "Its key")),
    responses((status = 200, body = DefinitionJson)))]
async fn get_computed_trait(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Path(path): Path<KeyPath>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    definitions::get(&app, caller.space_no(), KIND, &path.key, &known).await
}

/// Change a computed trait
///
/// Another query or other options make a new version; the old one answers until the new one is complete.
#[utoipa::path(patch, path = "/v1/spaces/{space}/computed-traits/{key}", tag = "Computed traits", request_body = DefinitionChange,
    params(
        ("space" = String, Path, description = "Id of the space"),
        ("key" = String, Path, description = "Its key"),
        ChangeParams,
    ),
    responses((status = 200, body = DefinitionJson)))]
async fn change_computed_trait(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<KeyPath>,
    Query(params): Query<ChangeParams>,
    Json(change): Json<DefinitionChange>,
) -> Result<Json<DefinitionJson>, Problem> {
    definitions::change(&app, caller.space_no(), KIND, &path.key, change, &params).await
}

/// Delete a computed trait
///
/// Refused while another definition refers to it.
#[utoipa::path(delete, path = "/v1/spaces/{space}/computed-traits/{key}", tag = "Computed traits",
    params(("space" = String, Path, description = "Id of the space"), ("key" = String, Path, description = "Its key")),
    responses((status = 204, description = "It is gone; the key can be used again")))]
async fn delete_computed_trait(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<KeyPath>,
) -> Result<StatusCode, Problem> {
    definitions::delete(&app, caller.space_no(), KIND, &path.key).await
}

/// List the versions of a computed trait, newest first
#[utoipa::path(get, path = "/v1/spaces/{space}/computed-traits/{key}/versions", tag = "Computed traits",
    params(
        ("space" = String, Path, description = "Id of the space"),
        ("key" = String, Path, description = "Its key"),
        PageParams,
    ),
    responses((status = 200, body = List<VersionJson>)))]
async fn list_computed_trait_versions(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Path(path): Path<KeyPath>,
    page: Page,
) -> Result<Json<List<VersionJson>>, Problem> {
    definitions::versions(&app, caller.space_no(), KIND, &path.key, &page).await
}

/// Who refers to a computed trait, and to whom it refers
#[utoipa::path(get, path = "/v1/spaces/{space}/computed-traits/{key}/references", tag = "Computed traits",
    params(("space" = String, Path, description = "Id of the space"), ("key" = String, Path, description = "Its key")),
    responses((status = 200, body = ReferencesJson)))]
async fn get_computed_trait_references(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Path(path): Path<KeyPath>,
) -> Result<Json<ReferencesJson>, Problem> {
    definitions::references(&app, caller.space_no(), KIND, &path.key).await
}
