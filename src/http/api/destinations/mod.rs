//! `/v1/spaces/{space}/destinations`: where changes are sent.

mod json;
mod subscriptions;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{not_null, path_id};
use crate::domain::Patch;
use crate::http::AppState;
use crate::http::auth::{Authed, Read, Write};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::{Json, Path};
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::{Code, Problem};
use crate::manage::destinations::{Change, LimitChange, New};
pub(super) use json::instant;
use json::{DestinationJson, TestJson};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_destinations, create_destination))
        .routes(routes!(get_destination, change_destination, delete_destination))
        .routes(routes!(test_destination))
        .routes(routes!(pause_destination))
        .routes(routes!(resume_destination))
        .routes(routes!(resync_destination))
        .routes(routes!(rotate_secret))
        .merge(subscriptions::routes())
}

/// A destination to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewDestination {
    /// For people; also the name in `integrations` of what is sent.
    name: String,
    /// `webhook`, `segment`, `http`, `file` or `postgres`.
    kind: String,
    /// Settings of the kind. `webhook`: `url`, `method` (POST, PUT, PATCH), `headers`, `batch_max`, `secret` (made where
    /// there is none), `shared_secret` (for `X-Signature`). `segment`: `url`, `write_key`, `batch_max`. The others are described in
    /// docs/destination-kinds.md.
    #[serde(default)]
    #[schema(value_type = Object)]
    settings: Map<String, Value>,
    /// Requests under way at the same time, from 1 to 256.
    concurrency: Option<i64>,
    /// Changes in a second, from 1 to 1,000,000; null: no limit.
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    rate_per_second: Patch<i64>,
    /// Time for one request, in milliseconds, from 100 to 120,000.
    timeout_ms: Option<i64>,
    /// A batch that is not full is sent when its oldest change is this old, in seconds, from 0 (at once) to 3,600; where
    /// nothing is said 30 for `file`, 5 for `postgres`, and 0 for the others.
    linger_seconds: Option<i64>,
}

/// What is to be changed of a destination.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DestinationChange {
    #[serde(default, deserialize_with = "not_null")]
    name: Option<String>,
    /// Settings, one by one; null removes one, `***` leaves a secret as it is. A new `secret` leaves the one before valid,
    /// as `previous_secret`, until that is removed.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Option<Object>)]
    settings: Option<Map<String, Value>>,
    #[serde(default, deserialize_with = "not_null")]
    concurrency: Option<i64>,
    /// Null: no limit.
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    rate_per_second: Patch<i64>,
    #[serde(default, deserialize_with = "not_null")]
    timeout_ms: Option<i64>,
    #[serde(default, deserialize_with = "not_null")]
    linger_seconds: Option<i64>,
}

/// The destination of a path.
#[derive(Deserialize)]
pub(super) struct DestinationPath {
    id: String,
}

impl DestinationPath {
    /// Its id.
    pub(super) fn id(&self) -> Result<Uuid, Problem> {
        path_id("dst", "destination", &self.id)
    }
}

/// List the destinations of a space
#[utoipa::path(get, path = "/v1/spaces/{space}/destinations", tag = "Destinations",
    params(("space" = String, Path, description = "Id of the space"), PageParams),
    responses((status = 200, body = List<DestinationJson>)))]
async fn list_destinations(
    State(app): State<AppState>,
    caller: Authed<Read>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let after: Option<i32> = page.after("destinations")?;
    let mut list = app.manage.list_destinations(caller.space_no()).await?;
    list.retain(|view| after.is_none_or(|after| view.destination.no.0 > after));
    Ok(known.answer(&page.list("destinations", list, |view| view.destination.no.0, DestinationJson::from)))
}

/// Make a destination
///
/// Nothing is sent before it has a subscription.
#[utoipa::path(post, path = "/v1/spaces/{space}/destinations", tag = "Destinations", request_body = NewDestination,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 201, body = DestinationJson)))]
async fn create_destination(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Json(new): Json<NewDestination>,
) -> Result<(StatusCode, Json<DestinationJson>), Problem> {
    let NewDestination { name, kind, settings, concurrency, rate_per_second, timeout_ms, linger_seconds } =
        new;
    let limits = LimitChange { concurrency, rate_per_second, timeout_ms, linger_seconds };
    let new = New { name, kind, settings, limits };
    let (view, secret) = app.manage.create_destination(caller.space_no(), new).await?;
    let mut made = DestinationJson::from(view);
    made.secret = secret;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Look at a destination
#[utoipa::path(get, path = "/v1/spaces/{space}/destinations/{id}", tag = "Destinations",
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the destination")),
    responses((status = 200, body = DestinationJson)))]
async fn get_destination(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Path(path): Path<DestinationPath>,
) -> Result<Json<DestinationJson>, Problem> {
    Ok(Json(app.manage.find_destination(caller.space_no(), path.id()?).await?.into()))
}

/// Change a destination
#[utoipa::path(patch, path = "/v1/spaces/{space}/destinations/{id}", tag = "Destinations",
    request_body = DestinationChange,
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the destination")),
    responses((status = 200, body = DestinationJson)))]
async fn change_destination(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<DestinationPath>,
    Json(change): Json<DestinationChange>,
) -> Result<Json<DestinationJson>, Problem> {
    let DestinationChange { name, settings, concurrency, rate_per_second, timeout_ms, linger_seconds } =
        change;
    let limits = LimitChange { concurrency, rate_per_second, timeout_ms, linger_seconds };
    let change = Change { name, settings, limits };
    Ok(Json(app.manage.change_destination(caller.space_no(), path.id()?, change).await?.into()))
}

/// Delete a destination
///
/// What waits for it is forgotten, and so is its history.
#[utoipa::path(delete, path = "/v1/spaces/{space}/destinations/{id}", tag = "Destinations",
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the destination")),
    responses((status = 204, description = "It is gone")))]
async fn delete_destination(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<DestinationPath>,
) -> Result<StatusCode, Problem> {
    app.manage.delete_destination(caller.space_no(), path.id()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a test sends.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TestCall {
    /// A call of Segment's protocol; a `track` of our own where there is none.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    event: Option<Value>,
}

/// Send a test to a destination
///
/// It is sent at once, past filters and the queue, also while the destination is paused; the answer says what was sent and
/// what came back.
#[utoipa::path(post, path = "/v1/spaces/{space}/destinations/{id}/test", tag = "Destinations", request_body = TestCall,
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the destination")),
    responses((status = 200, body = TestJson)))]
async fn test_destination(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<DestinationPath>,
    Json(test): Json<TestCall>,
) -> Result<Json<TestJson>, Problem> {
    if test.event.as_ref().is_some_and(|event| !event.is_object()) {
        return Err(Problem::new(Code::Invalid, "the event must be an object").at("event"));
    }
    let sent = app.manage.test_destination(caller.space_no(), path.id()?, test.event).await?;
    Ok(Json(sent.into()))
}

/// Pause a destination
///
/// Changes are collected and wait: nothing is lost, and resuming sends them in their order.
#[utoipa::path(post, path = "/v1/spaces/{space}/destinations/{id}/pause", tag = "Destinations",
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the destination")),
    responses((status = 200, body = DestinationJson)))]
async fn pause_destination(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<DestinationPath>,
) -> Result<Json<DestinationJson>, Problem> {
    Ok(Json(app.manage.set_paused(caller.space_no(), path.id()?, true).await?.into()))
}

/// Resume a destination
///
/// Also one that the service has paused. What waits for another attempt is tried at once.
#[utoipa::path(post, path = "/v1/spaces/{space}/destinations/{id}/resume", tag = "Destinations",
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the destination")),
    responses((status = 200, body = DestinationJson)))]
async fn resume_destination(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<DestinationPath>,
) -> Result<Json<DestinationJson>, Problem> {
    Ok(Json(app.manage.set_paused(caller.space_no(), path.id()?, false).await?.into()))
}

/// What is to be sent again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Resync {
    /// Id of one subscription; all that are enabled where there is none.
    subscription: Option<String>,
}

/// Send everything to a destination again
///
/// Everybody's present membership or value, of one subscription or of all; changes go on meanwhile, in order.
#[utoipa::path(post, path = "/v1/spaces/{space}/destinations/{id}/resync", tag = "Destinations", request_body = Resync,
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the destination")),
    responses((status = 202, description = "It has begun; subscriptions say how far it is")))]
async fn resync_destination(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<DestinationPath>,
    Json(Resync { subscription }): Json<Resync>,
) -> Result<StatusCode, Problem> {
    let only = subscription.map(|id| path_id("sub", "subscription", &id)).transpose()?;
    app.manage.resync(caller.space_no(), path.id()?, only).await?;
    Ok(StatusCode::ACCEPTED)
}

/// A signing secret that was made.
#[derive(Debug, Serialize, ToSchema)]
struct NewSecret {
    /// In this answer only.
    secret: String,
}

/// Make a new signing secret
///
/// What is sent is signed with it and with the one before, until `previous_secret` is removed.
#[utoipa::path(post, path = "/v1/spaces/{space}/destinations/{id}/rotate-secret", tag = "Destinations",
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the destination")),
    responses((status = 200, body = NewSecret)))]
async fn rotate_secret(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<DestinationPath>,
) -> Result<Json<NewSecret>, Problem> {
    Ok(Json(NewSecret { secret: app.manage.rotate_secret(caller.space_no(), path.id()?).await? }))
}
