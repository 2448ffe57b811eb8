//! `/v1/spaces/{space}/audiences` and `/v1/spaces/{space}/computed-traits`: the same routes over two kinds of definition,
//! each described in its own words.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::preview::{DryRunJson, PreviewJson, PreviewRequest};
use super::{
    DefinitionChange, DefinitionCopy, DefinitionJson, DryRunParams, KeyPath, NewDefinition, ReferencesJson,
    VersionJson,
};
use crate::http::AppState;
use crate::http::auth::{Authed, Read, Write};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::{Json, Path, Query};
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::Problem;
use crate::manage::definitions::Kind;

/// What a change answers with.
#[derive(ToSchema)]
#[schema(as = DefinitionChanged)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is answered")]
enum ChangedJson {
    /// The definition as it is now.
    Changed(Box<DefinitionJson>),
    /// Of a dry run.
    DryRun(DryRunJson),
}

/// All routes of one kind. `word` makes the names of the operations, `one` and `many` their summaries. A macro, because
/// the descriptions are made from functions by name, and a generic one has only one name.
macro_rules! routes_over {
    ($kind:expr, $path:literal, tag = $tag:literal, word = $word:literal, one = $one:literal, many = $many:literal) => {{
        #[utoipa::path(get, path = concat!("/v1/spaces/{space}/", $path), tag = $tag,
            operation_id = concat!("list_", $word, "s"), summary = concat!("List the ", $many, " of a space"),
            params(("space" = String, Path, description = "Id of the space"), PageParams),
            responses((status = 200, body = List<DefinitionJson>)))]
        async fn list(
            State(app): State<AppState>,
            caller: Authed<Read>,
            page: Page,
            known: IfNoneMatch,
        ) -> Result<Response, Problem> {
            super::list(&app, caller.space_no(), $kind, &page, &known).await
        }

        #[utoipa::path(post, path = concat!("/v1/spaces/{space}/", $path), tag = $tag,
            operation_id = concat!("create_", $word), summary = concat!("Make ", $one),
            params(("space" = String, Path, description = "Id of the space"), DryRunParams),
            request_body = NewDefinition,
            responses((status = 201, body = DefinitionJson),
                (status = 200, description = "Of a dry run", body = DryRunJson)))]
        async fn create(
            State(app): State<AppState>,
            caller: Authed<Write>,
            Query(params): Query<DryRunParams>,
            Json(new): Json<NewDefinition>,
        ) -> Result<Response, Problem> {
            params.note(&caller);
            super::create(&app, caller.space_no(), $kind, new, &params).await
        }

        #[utoipa::path(post, path = concat!("/v1/spaces/{space}/", $path, "/{key}/clone"), tag = $tag,
            operation_id = concat!("clone_", $word), summary = concat!("Make another of ", $one),
            description = "Under a key of its own, with the query and options of the newest version.",
            params(
                ("space" = String, Path, description = "Id of the space"),
                ("key" = String, Path, description = "Its key"),
            ),
            request_body = DefinitionCopy,
            responses((status = 201, body = DefinitionJson)))]
        async fn copy(
            State(app): State<AppState>,
            caller: Authed<Write>,
            Path(path): Path<KeyPath>,
            Json(copy): Json<DefinitionCopy>,
        ) -> Result<(StatusCode, Json<DefinitionJson>), Problem> {
            super::copy(&app, caller.space_no(), $kind, &path.key, copy).await
        }

        #[utoipa::path(get, path = concat!("/v1/spaces/{space}/", $path, "/{key}"), tag = $tag,
            operation_id = concat!("get_", $word), summary = concat!("Look at ", $one),
            params(
                ("space" = String, Path, description = "Id of the space"),
                ("key" = String, Path, description = "Its key"),
            ),
            responses((status = 200, body = DefinitionJson)))]
        async fn get(
            State(app): State<AppState>,
            caller: Authed<Read>,
            Path(path): Path<KeyPath>,
            known: IfNoneMatch,
        ) -> Result<Response, Problem> {
            super::get(&app, caller.space_no(), $kind, &path.key, &known).await
        }

        #[utoipa::path(patch, path = concat!("/v1/spaces/{space}/", $path, "/{key}"), tag = $tag,
            operation_id = concat!("change_", $word), summary = concat!("Change ", $one),
            description = "Another query or other options make a new version; the old one answers until the new one is complete.",
            params(
                ("space" = String, Path, description = "Id of the space"),
                ("key" = String, Path, description = "Its key"),
                DryRunParams,
            ),
            request_body = DefinitionChange,
            responses((status = 200, body = ChangedJson)))]
        async fn change(
            State(app): State<AppState>,
            caller: Authed<Write>,
            Path(path): Path<KeyPath>,
            Query(params): Query<DryRunParams>,
            Json(change): Json<DefinitionChange>,
        ) -> Result<Response, Problem> {
            params.note(&caller);
            super::change(&app, caller.space_no(), $kind, &path.key, change, &params).await
        }

        #[utoipa::path(delete, path = concat!("/v1/spaces/{space}/", $path, "/{key}"), tag = $tag,
            operation_id = concat!("delete_", $word), summary = concat!("Delete ", $one),
            description = "Refused while another definition refers to it.",
            params(
                ("space" = String, Path, description = "Id of the space"),
                ("key" = String, Path, description = "Its key"),
            ),
            responses((status = 204, description = "It is gone; the key can be used again")))]
        async fn delete(
            State(app): State<AppState>,
            caller: Authed<Write>,
            Path(path): Path<KeyPath>,
        ) -> Result<StatusCode, Problem> {
            super::delete(&app, caller.space_no(), $kind, &path.key).await
        }

        #[utoipa::path(get, path = concat!("/v1/spaces/{space}/", $path, "/{key}/versions"), tag = $tag,
            operation_id = concat!("list_", $word, "_versions"),
            summary = concat!("List the versions of ", $one, ", newest first"),
            params(
                ("space" = String, Path, description = "Id of the space"),
                ("key" = String, Path, description = "Its key"),
                PageParams,
            ),
            responses((status = 200, body = List<VersionJson>), (status = 304, description = "Nothing has changed")))]
        async fn list_versions(
            State(app): State<AppState>,
            caller: Authed<Read>,
            Path(path): Path<KeyPath>,
            page: Page,
            known: IfNoneMatch,
        ) -> Result<Response, Problem> {
            super::versions(&app, caller.space_no(), $kind, &path.key, &page, &known).await
        }

        #[utoipa::path(get, path = concat!("/v1/spaces/{space}/", $path, "/{key}/references"), tag = $tag,
            operation_id = concat!("get_", $word, "_references"),
            summary = concat!("Who refers to ", $one, ", and to whom it refers"),
            params(
                ("space" = String, Path, description = "Id of the space"),
                ("key" = String, Path, description = "Its key"),
            ),
            responses((status = 200, body = ReferencesJson)))]
        async fn get_references(
            State(app): State<AppState>,
            caller: Authed<Read>,
            Path(path): Path<KeyPath>,
        ) -> Result<Json<ReferencesJson>, Problem> {
            super::references(&app, caller.space_no(), $kind, &path.key).await
        }

        #[utoipa::path(post, path = concat!("/v1/spaces/{space}/", $path, "/preview"), security(("token" = ["read"])), tag = $tag,
            operation_id = concat!("preview_", $word), summary = concat!("Say what ", $one, " would be, without making it"),
            description = "Looks at all profiles and all history as they are now; one preview of a server goes on at a time.",
            params(("space" = String, Path, description = "Id of the space")),
            request_body = PreviewRequest,
            responses((status = 200, body = PreviewJson)))]
        async fn preview(
            State(app): State<AppState>,
            caller: Authed<Read>,
            Json(request): Json<PreviewRequest>,
        ) -> Result<Json<PreviewJson>, Problem> {
            Ok(Json(super::preview::preview(&app, caller.space_no(), $kind, &request).await?))
        }

        OpenApiRouter::new()
            .routes(routes!(list, create))
            .routes(routes!(preview))
            .routes(routes!(copy))
            .routes(routes!(get, change, delete))
            .routes(routes!(list_versions))
            .routes(routes!(get_references))
    }};
}

/// The routes of both kinds.
pub(in crate::http::api) fn routes() -> OpenApiRouter<AppState> {
    audiences().merge(computed_traits())
}

fn audiences() -> OpenApiRouter<AppState> {
    routes_over!(
        Kind::Audience,
        "audiences",
        tag = "Audiences",
        word = "audience",
        one = "an audience",
        many = "audiences"
    )
}

fn computed_traits() -> OpenApiRouter<AppState> {
    routes_over!(
        Kind::ComputedTrait,
        "computed-traits",
        tag = "Computed traits",
        word = "computed_trait",
        one = "a computed trait",
        many = "computed traits"
    )
}
