//! `…/export`: everything there is of a person, or of a whole space, as NDJSON.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::domain::Collection;
use crate::http::AppState;
use crate::http::auth::{Authed, PrivacyData};
use crate::http::extract::Path;
use crate::http::problem::{Code, Problem};
use crate::query::{Pieces, Selector};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(export_person)).routes(routes!(export_space))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct ProfilePath {
    /// Id of the space.
    space: String,
    /// `users` or `accounts`.
    collection: String,
    /// `type:value` of any identifier the profile has or had, or `profile_id:prf_…`.
    profile: String,
}

#[derive(Debug, Deserialize)]
struct SpacePath {
    space: String,
}

fn file(pieces: Pieces) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"export.ndjson\"")),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

/// Export everything there is of a person or account
///
/// NDJSON: rows as `{"file","row"}` (`profiles`, `external_ids`, `traits`, `memberships`, `transitions`, `consent`,
/// `objections`, `merges`, `links`, `events`, `deliveries`), all as of one instant, and `{"manifest"}` as the last line, with the number of rows of each file
/// and their SHA-256. An export without a manifest is not complete. `call` of an event can be sent again as it is.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/export", security(("token" = ["privacy"])), tag = "Privacy",
    operation_id = "export_profile", params(ProfilePath),
    responses((status = 200, description = "NDJSON", content_type = "application/x-ndjson"),
        (status = 404, description = "No such profile")))]
async fn export_person(
    State(app): State<AppState>,
    caller: Authed<PrivacyData>,
    Path(path): Path<ProfilePath>,
) -> Result<Response, Problem> {
    let collection = Collection::parse(&path.collection).ok_or_else(|| {
        Problem::new(Code::BadRequest, "parameter `collection` must be users or accounts").at("collection")
    })?;
    let selector = Selector::parse(&path.profile).ok_or_else(|| {
        let message = "name the profile as type:value, such as user_id:u1, or profile_id:prf_…";
        Problem::new(Code::BadRequest, message).at("profile")
    })?;
    let space = (caller.space_no(), path.space.as_str());
    let pieces = app.reader.export_person(space, collection, &selector).await?;
    let (id, pieces) = pieces.ok_or_else(|| Problem::not_found("Profile was not found."))?;
    caller.note_profile(&id);
    Ok(file(pieces))
}

/// Export everything there is of a space
///
/// As the export of a profile, with the whole log (`events`, `acts`) and with what operators have set: sources without their
/// keys, identity settings, definitions, categories of consent, retention. Destinations, whose secrets stay here, are not in it.
#[utoipa::path(get, path = "/v1/spaces/{space}/export", security(("token" = ["privacy"])), tag = "Privacy", operation_id = "export_space",
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, description = "NDJSON", content_type = "application/x-ndjson")))]
async fn export_space(
    State(app): State<AppState>,
    caller: Authed<PrivacyData>,
    Path(path): Path<SpacePath>,
) -> Result<Response, Problem> {
    Ok(file(app.reader.export_space((caller.space_no(), &path.space)).await?))
}
