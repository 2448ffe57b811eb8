//! `/v1/spaces/{space}/audiences`: definitions of audiences.

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

const KIND: Kind = Kind::Audience;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_audiences, create_audience))
        .routes(routes!(get_audience, change_audience, delete_audience))
        .routes(routes!(list_audience_versions))
        .routes(routes!(get_audience_references))
}

/// List the audiences of a space
#[utoipa::path(get, path = "/v1/spaces/{space}/audiences", tag = "Audiences",
    params(("space" = String, Path, description = "Id of the space"), PageParams),
    responses((status = 200, body = List<DefinitionJson>)))]
async fn list_audiences(
    State(app): State<AppState>,
    caller: Authed<Read>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    definitions::list(&app, caller.space_no(), KIND, &page, &known).await
}

/// Make an audience
#[utoipa::path(post, path = "/v1/spaces/{space}/audiences", tag = "Audiences", request_body = NewDefinition,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 201, body = DefinitionJson)))]
async fn create_audience(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Json(new): Json<NewDefinition>,
) -> Result<(StatusCode, Json<DefinitionJson>), Problem> {
    definitions::create(&app, caller.space_no(), KIND, new).await
}

/// Look at an audience
#[utoipa::path(get, path = "/v1/spaces/{space}/audiences/{key}", tag = "Audiences",
    params(("space" = String, Path, description = "Id of the space"), ("key" = String, Path, description = "Its key")),
    responses((status = 200, body = DefinitionJson)))]
async fn get_audience(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Path(path): Path<KeyPath>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    definitions::get(&app, caller.space_no(), KIND, &path.key, &known).await
}

/// Change an audience
///
/// Another query or other options make a new version; the old one answers until the new one is complete.
#[utoipa::path(patch, path = "/v1/spaces/{space}/audiences/{key}", tag = "Audiences", request_body = DefinitionChange,
    params(
        ("space" = String, Path, description = "Id of the space"),
        ("key" = String, Path, description = "Its key"),
        ChangeParams,
    ),
    responses((status = 200, body = DefinitionJson)))]
async fn change_audience(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<KeyPath>,
    Query(params): Query<ChangeParams>,
    Json(change): Json<DefinitionChange>,
) -> Result<Json<DefinitionJson>, Problem> {
    definitions::change(&app, caller.space_no(), KIND, &path.key, change, &params).await
}

/// Delete an audience
///
/// Refused while another definition refers to it.
#[utoipa::path(delete, path = "/v1/spaces/{space}/audiences/{key}", tag = "Audiences",
    params(("space" = String, Path, description = "Id of the space"), ("key" = String, Path, description = "Its key")),
    responses((status = 204, description = "It is gone; the key can be used again")))]
async fn delete_audience(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<KeyPath>,
) -> Result<StatusCode, Problem> {
    definitions::delete(&app, caller.space_no(), KIND, &path.key).await
}

/// List the versions of an audience, newest first
#[utoipa::path(get, path = "/v1/spaces/{space}/audiences/{key}/versions", tag = "Audiences",
    params(
        ("space" = String, Path, description = "Id of the space"),
        ("key" = String, Path, description = "Its key"),
        PageParams,
    ),
    responses((status = 200, body = List<VersionJson>)))]
async fn list_audience_versions(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Path(path): Path<KeyPath>,
    page: Page,
) -> Result<Json<List<VersionJson>>, Problem> {
    definitions::versions(&app, caller.space_no(), KIND, &path.key, &page).await
}

/// Who refers to an audience, and to whom it refers
#[utoipa::path(get, path = "/v1/spaces/{space}/audiences/{key}/references", tag = "Audiences",
    params(("space" = String, Path, description = "Id of the space"), ("key" = String, Path, description = "Its key")),
    responses((status = 200, body = ReferencesJson)))]
async fn get_audience_references(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Path(path): Path<KeyPath>,
) -> Result<Json<ReferencesJson>, Problem> {
    definitions::references(&app, caller.space_no(), KIND, &path.key).await
}
