//! `/v1/spaces/{space}/search/settings`: which traits profiles can be searched by.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::http::AppState;
use crate::http::auth::{Authed, Read, Write};
use crate::http::extract::Json;
use crate::http::problem::Problem;
use crate::manage::search::SearchSettings;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_settings, change_settings))
}

/// Which traits profiles can be searched by.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SearchSettings)]
struct SettingsJson {
    /// By `GET …/profiles?trait=…&value=…`.
    traits: Vec<String>,
    /// Those of them that are still being filled in over the profiles there are: a search by one of them finds a part.
    filling: Vec<String>,
    /// Nothing is being filled in.
    complete: bool,
}

impl From<SearchSettings> for SettingsJson {
    fn from(SearchSettings { traits, filling }: SearchSettings) -> Self {
        Self { complete: filling.is_empty(), traits, filling }
    }
}

/// Which traits profiles are to be searched by.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SearchSettingsChange)]
#[serde(deny_unknown_fields)]
struct ChangeJson {
    /// All of them, at most 20: those that are left out cannot be searched by any more.
    traits: Vec<String>,
}

/// Which traits the profiles of a space can be searched by
#[utoipa::path(get, path = "/v1/spaces/{space}/search/settings", tag = "Profile API",
    operation_id = "get_search_settings",
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = SettingsJson)))]
async fn get_settings(
    State(app): State<AppState>,
    caller: Authed<Read>,
) -> Result<Json<SettingsJson>, Problem> {
    Ok(Json(app.manage.search_settings(caller.space_no()).await?.into()))
}

/// Change which traits the profiles of a space can be searched by
///
/// A trait that is new is filled in over the profiles there are, in the background; searches by it say until then that they
/// are not complete.
#[utoipa::path(patch, path = "/v1/spaces/{space}/search/settings", tag = "Profile API",
    operation_id = "change_search_settings", request_body = ChangeJson,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = SettingsJson),
        (status = 422, description = "A name cannot be, or there are too many; nothing was changed")))]
async fn change_settings(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Json(ChangeJson { traits }): Json<ChangeJson>,
) -> Result<Json<SettingsJson>, Problem> {
    Ok(Json(app.manage.change_search_settings(caller.space_no(), &traits).await?.into()))
}
