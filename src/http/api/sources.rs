//! `/v1/spaces/{space}/sources`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{not_null, path_id};
use crate::domain::Patch;
use crate::domain::ids::public_id;
use crate::http::AppState;
use crate::http::auth::{Admin, Authed};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::{Json, Path};
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::Problem;
use crate::manage::sources::{self, SourceView};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_sources, create_source))
        .routes(routes!(change_source))
        .routes(routes!(create_write_key))
        .routes(routes!(revoke_write_key, change_write_key))
}

/// A source of events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Source)]
struct SourceJson {
    id: String,
    name: String,
    /// Whether it may send.
    enabled: bool,
    /// Events it may send in a second to each process of the service; none: no limit.
    events_per_second_max: Option<u32>,
    /// Pages it takes events from, such as `https://shop.example`; none: any.
    allowed_origins: Option<Vec<String>>,
    /// Whether its write key is known to anybody, as those of pages and apps are. Traits that other sources have set are not
    /// changed by what it sends.
    public: bool,
    created_at: String,
    /// Its write keys, as far as they are shown again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    write_keys: Vec<WriteKeyJson>,
    /// The write key, in the answer to its making only.
    #[serde(skip_serializing_if = "Option::is_none")]
    write_key: Option<String>,
}

/// A write key, to be recognised by its first characters.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WriteKey)]
struct WriteKeyJson {
    prefix: String,
    created_at: String,
    last_used_at: Option<String>,
    /// The instant it stops working; none: never.
    expires_at: Option<String>,
}

impl From<SourceView> for SourceJson {
    fn from(SourceView { source, keys }: SourceView) -> Self {
        Self {
            id: public_id("src", source.id),
            name: source.name,
            enabled: source.enabled,
            events_per_second_max: source.events_per_second_max,
            allowed_origins: source
                .allowed_origins
                .map(|origins| origins.iter().map(ToString::to_string).collect()),
            public: source.is_public,
            created_at: source.created_at.to_string(),
            write_keys: keys
                .into_iter()
                .map(|key| WriteKeyJson {
                    prefix: key.prefix,
                    created_at: key.created_at.to_string(),
                    last_used_at: key.last_used_at.map(|at| at.to_string()),
                    expires_at: key.expires_at.map(|at| at.to_string()),
                })
                .collect(),
            write_key: None,
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSource {
    /// For people.
    name: String,
    /// Events it may send in a second to each process of the service, from 1 to 1,000,000; null: no limit.
    events_per_second_max: Option<i64>,
    /// Pages it takes events from, such as `https://shop.example` or `https://*.shop.example`; null: any.
    allowed_origins: Option<Vec<String>>,
    /// Whether its write key is known to anybody, as those of pages and apps are. Traits that other sources have set are not
    /// changed by what it sends.
    #[serde(default)]
    public: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SourceChange {
    /// Whether it may send.
    #[serde(default, deserialize_with = "not_null")]
    enabled: Option<bool>,
    /// Events it may send in a second to each process of the service, from 1 to 1,000,000; null: no limit.
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    events_per_second_max: Patch<i64>,
    /// Pages it takes events from, such as `https://shop.example` or `https://*.shop.example`; null: any.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    allowed_origins: Patch<Vec<String>>,
    /// Whether its write key is known to anybody, as those of pages and apps are. Traits that other sources have set are not
    /// changed by what it sends.
    #[serde(default, deserialize_with = "not_null")]
    public: Option<bool>,
}

#[derive(Deserialize)]
struct SourcePath {
    id: String,
}

/// List the sources of a space
#[utoipa::path(get, path = "/v1/spaces/{space}/sources", security(("token" = ["admin"])), tag = "Spaces",
    params(("space" = String, Path, description = "Id of the space"), PageParams),
    responses((status = 200, body = List<SourceJson>)))]
async fn list_sources(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let after: Option<i32> = page.after("sources")?;
    let mut sources = app.manage.list_sources(caller.space_no()).await?;
    sources.retain(|s| after.is_none_or(|after| s.source.no.0 > after));
    Ok(known.answer(&page.list("sources", sources, |s| s.source.no.0, SourceJson::from)))
}

/// Make a source with a write key
#[utoipa::path(post, path = "/v1/spaces/{space}/sources", security(("token" = ["admin"])), tag = "Spaces", request_body = NewSource,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 201, body = SourceJson)))]
async fn create_source(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    Json(new): Json<NewSource>,
) -> Result<(StatusCode, Json<SourceJson>), Problem> {
    let NewSource { name, events_per_second_max: rate, allowed_origins, public } = new;
    let made = app.manage.create_source(caller.space_no(), &name, public, rate, allowed_origins);
    let (source, write_key) = made.await?;
    let made = SourceJson::from(SourceView { source, keys: Vec::new() });
    caller.note(|| json!({"source": made}));
    Ok((StatusCode::CREATED, Json(SourceJson { write_key: Some(write_key), ..made })))
}

/// Change a source
///
/// Switches it on or off, and limits what it may send: over its rate tracking calls are answered 429
/// `too_many_requests`, and nothing of them is stored. With `allowed_origins`, tracking calls of other pages are answered 403
/// `origin_not_allowed`; calls that no page makes have no origin and are taken. A source that is `public` from now on weighs less: see there.
#[utoipa::path(patch, path = "/v1/spaces/{space}/sources/{id}", security(("token" = ["admin"])), tag = "Spaces", request_body = SourceChange,
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the source")),
    responses((status = 200, body = SourceJson)))]
async fn change_source(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    Path(path): Path<SourcePath>,
    Json(SourceChange { enabled, events_per_second_max, allowed_origins, public }): Json<SourceChange>,
) -> Result<Json<SourceJson>, Problem> {
    let id = path_id("src", "source", &path.id)?;
    let change = sources::SourceChange { enabled, events_per_second_max, allowed_origins, is_public: public };
    let source = app.manage.change_source(caller.space_no(), id, change).await?;
    let changed = SourceJson::from(SourceView { source, keys: Vec::new() });
    caller.note(|| json!({"source": changed}));
    Ok(Json(changed))
}

/// A write key that was made.
#[derive(Debug, Serialize, ToSchema)]
struct NewWriteKey {
    /// Its first characters, by which it is shown and revoked.
    prefix: String,
    /// The write key, in this answer only.
    write_key: String,
}

/// Make another write key for a source
///
/// Both can be used until one is revoked, so that clients can change over one by one.
#[utoipa::path(post, path = "/v1/spaces/{space}/sources/{id}/write-keys", security(("token" = ["admin"])), tag = "Spaces",
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the source")),
    responses((status = 201, body = NewWriteKey)))]
async fn create_write_key(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    Path(path): Path<SourcePath>,
) -> Result<(StatusCode, Json<NewWriteKey>), Problem> {
    let id = path_id("src", "source", &path.id)?;
    let write_key = app.manage.create_write_key(caller.space_no(), id).await?;
    let prefix = sources::visible_prefix(&write_key);
    caller.note(|| json!({"prefix": prefix}));
    Ok((StatusCode::CREATED, Json(NewWriteKey { prefix, write_key })))
}

#[derive(Deserialize)]
struct WriteKeyPath {
    id: String,
    prefix: String,
}

/// Revoke a write key
///
/// Calls that use it are answered 401 from then on. It is named by the prefix that the list of sources shows.
#[utoipa::path(delete, path = "/v1/spaces/{space}/sources/{id}/write-keys/{prefix}", security(("token" = ["admin"])), tag = "Spaces",
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the source"),
        ("prefix" = String, Path, description = "First characters of the key")),
    responses((status = 204, description = "It is of no use any more"), (status = 404, description = "No such key")))]
async fn revoke_write_key(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    Path(path): Path<WriteKeyPath>,
) -> Result<StatusCode, Problem> {
    let id = path_id("src", "source", &path.id)?;
    app.manage.revoke_write_key(caller.space_no(), id, &path.prefix).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// When a write key is to stop working.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WriteKeyChange {
    /// The instant it stops working, RFC 3339; null: never.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    expires_at: Patch<String>,
}

/// Let a write key expire
///
/// Until then it works beside the others of the source: make a new one, let the old one expire, change clients over.
#[utoipa::path(patch, path = "/v1/spaces/{space}/sources/{id}/write-keys/{prefix}", tag = "Spaces",
    request_body = WriteKeyChange, security(("token" = ["admin"])),
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the source"),
        ("prefix" = String, Path, description = "First characters of the key")),
    responses((status = 204, description = "It works until then"), (status = 404, description = "No such key")))]
async fn change_write_key(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    Path(path): Path<WriteKeyPath>,
    Json(WriteKeyChange { expires_at }): Json<WriteKeyChange>,
) -> Result<StatusCode, Problem> {
    let id = path_id("src", "source", &path.id)?;
    app.manage.expire_write_key(caller.space_no(), id, &path.prefix, expires_at).await?;
    Ok(StatusCode::NO_CONTENT)
}
