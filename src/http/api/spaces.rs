//! `/v1/spaces`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::not_null;
use crate::domain::{Patch, Plan, Timestamp};
use crate::http::AppState;
use crate::http::auth::{Authed, Caller, Owner, Read};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::Json;
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::Problem;
use crate::manage::plans::PlanChange;
use crate::manage::registry::Space;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_spaces, create_space)).routes(routes!(get_space, change_space))
}

/// A space: one tenant with its own profiles.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Space)]
struct SpaceJson {
    id: String,
    name: String,
    plan: PlanJson,
    created_at: String,
}

impl From<Space> for SpaceJson {
    fn from(space: Space) -> Self {
        let Space { key, name, plan, created_at, .. } = space;
        Self { id: key, name, plan: plan.into(), created_at: created_at.to_string() }
    }
}

/// What was agreed about a space. It takes events while its state is `trial` or `active` and its term runs; what it
/// has stays readable in any case.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Plan)]
struct PlanJson {
    /// `trial`, `active`, `suspended` or `ended`.
    state: &'static str,
    /// The first instant of the term; none: since ever.
    starts_at: Option<String>,
    /// The first instant after the term; none: without end.
    ends_at: Option<String>,
}

impl From<Plan> for PlanJson {
    fn from(Plan { state, starts_at, ends_at }: Plan) -> Self {
        let show = |at: Option<Timestamp>| at.map(|at| at.to_string());
        Self { state: state.as_str(), starts_at: show(starts_at), ends_at: show(ends_at) }
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

/// What is to be changed of a space.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SpaceChange {
    plan: PlanChangeJson,
}

/// What is to be changed of a plan; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = PlanChange)]
#[serde(deny_unknown_fields)]
struct PlanChangeJson {
    /// `trial`, `active`, `suspended` or `ended`.
    #[serde(default, deserialize_with = "not_null")]
    state: Option<String>,
    /// The first instant of the term, RFC 3339; null: since ever.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    starts_at: Patch<String>,
    /// The first instant after the term, RFC 3339; null: without end.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    ends_at: Patch<String>,
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
#[utoipa::path(post, path = "/v1/spaces", security(("token" = ["server:owner"])), tag = "Spaces", request_body = NewSpace,
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
    Json(Space::clone(&caller.space).into())
}

/// Change the plan of a space
///
/// Only the server's owner may. A space that takes no events answers tracking calls 403 `locked_workspace`; setting it
/// back takes effect at once in this process, within a second in others.
#[utoipa::path(patch, path = "/v1/spaces/{space}", security(("token" = ["server:owner"])), tag = "Spaces", request_body = SpaceChange,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = SpaceJson)))]
async fn change_space(
    State(app): State<AppState>,
    caller: Authed<Owner>,
    Json(SpaceChange { plan }): Json<SpaceChange>,
) -> Result<Json<SpaceJson>, Problem> {
    let change = PlanChange { state: plan.state, starts_at: plan.starts_at, ends_at: plan.ends_at };
    let plan = app.manage.change_plan(caller.space_no(), change).await?;
    Ok(Json(Space { plan, ..Space::clone(&caller.space) }.into()))
}
