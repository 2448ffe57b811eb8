//! `/v1/spaces`, what they have, and what was purged.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::not_null;
use super::plan::{PlanChangeJson, PlanJson};
use crate::http::AppState;
use crate::http::auth::{Authed, Caller, Look, Owner, Read};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::Json;
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::{Code, Problem};
use crate::manage::registry::Space;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_spaces, create_space))
        .routes(routes!(get_space, change_space))
        .routes(routes!(get_usage))
        .routes(routes!(purge_space))
        .routes(routes!(list_purges))
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

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSpace {
    /// What clients call it: letters, digits, `-`, `_`, `.`.
    id: String,
    /// For people; the id when not given.
    name: Option<String>,
}

/// What is to be changed of a space: its name, its plan, or both.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SpaceChange {
    /// For people.
    #[serde(default, deserialize_with = "not_null")]
    name: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    plan: Option<PlanChangeJson>,
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
#[utoipa::path(post, path = "/v1/spaces", security(("token" = ["server:owner"])), tag = "Spaces",
    request_body = NewSpace, responses((status = 201, body = SpaceJson)))]
async fn create_space(
    State(app): State<AppState>,
    owner: Caller<Owner>,
    Json(new): Json<NewSpace>,
) -> Result<(StatusCode, Json<SpaceJson>), Problem> {
    let space = app.manage.create_space(&new.id, new.name.as_deref()).await?;
    owner.note(|| json!({"space": space.key, "name": space.name}));
    Ok((StatusCode::CREATED, Json(space.into())))
}

/// Look at a space
#[utoipa::path(get, path = "/v1/spaces/{space}", tag = "Spaces",
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = SpaceJson)))]
async fn get_space(caller: Authed<Look>) -> Json<SpaceJson> {
    Json(Space::clone(&caller.space).into())
}

/// Change the name or the plan of a space
///
/// Only the server's owner may. A space that takes no events answers tracking calls 403 `locked_workspace`; setting it
/// back takes effect at once in this process, within a second in others, and nothing is lost.
#[utoipa::path(patch, path = "/v1/spaces/{space}", security(("token" = ["server:owner"])), tag = "Spaces",
    request_body = SpaceChange, params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = SpaceJson)))]
async fn change_space(
    State(app): State<AppState>,
    caller: Authed<Owner>,
    Json(SpaceChange { name, plan }): Json<SpaceChange>,
) -> Result<Json<SpaceJson>, Problem> {
    if name.is_none() && plan.is_none() {
        return Err(Problem::new(Code::Invalid, "name what is to be changed: name or plan").at("plan"));
    }
    let mut space = Space::clone(&caller.space);
    if let Some(change) = plan {
        space.plan = app.manage.change_plan(space.no, change.into()).await?;
        caller.note(|| json!({"plan_before": PlanJson::from(caller.space.plan.clone()), "plan": PlanJson::from(space.plan.clone())}));
    }
    if let Some(name) = name {
        app.manage.rename_space(space.no, &name).await?;
        name.trim().clone_into(&mut space.name);
    }
    Ok(Json(space.into()))
}

/// What a space has of what its plan limits.
#[derive(Debug, Serialize, ToSchema)]
struct Usage {
    /// The present month (UTC), such as `2024-03`.
    month: String,
    /// Events taken in it: stored in the log, retries of the same message included.
    events: u64,
    /// Profiles: users and accounts.
    profiles: u64,
    audiences: usize,
    computed_traits: usize,
    /// Events by month, newest first, of up to 24 months that had some.
    months: Vec<MonthJson>,
}

/// Events of a month.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageMonth)]
struct MonthJson {
    month: String,
    events: u64,
}

/// What a space has of what its plan limits
///
/// Counted in the transactions that take and process events: exact, whatever is restarted.
#[utoipa::path(get, path = "/v1/spaces/{space}/usage", tag = "Spaces",
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = Usage)))]
async fn get_usage(State(app): State<AppState>, caller: Authed<Look>) -> Result<Json<Usage>, Problem> {
    let all = app.manage.usage(caller.space_no()).await?;
    let month =
        |(month, events): (crate::domain::month::Month, u64)| MonthJson { month: month.to_string(), events };
    Ok(Json(Usage {
        month: all.month.to_string(),
        events: all.usage.events,
        profiles: all.usage.profiles,
        audiences: all.audiences,
        computed_traits: all.computed_traits,
        months: all.months.into_iter().map(month).collect(),
    }))
}

/// So that nobody purges what they did not mean.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PurgeRequest {
    /// The id of the space, once more.
    confirm: String,
}

/// A purge that will be.
#[derive(Debug, Serialize, ToSchema)]
struct PurgeAnswer {
    /// From now on nothing but this is answered; everything is deleted in the next seconds.
    purge_at: String,
}

/// Purge a space whose plan has ended
///
/// Without this it is purged when its export window is over. All its rows of all tables are deleted, keys and tokens
/// first; `GET /v1/purge-reports` says what there was. It cannot be undone.
#[utoipa::path(post, path = "/v1/spaces/{space}/purge", security(("token" = ["server:owner"])), tag = "Spaces",
    operation_id = "purge_space", request_body = PurgeRequest,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 202, body = PurgeAnswer), (status = 409, description = "Its plan has not ended")))]
async fn purge_space(
    State(app): State<AppState>,
    caller: Authed<Owner>,
    Json(PurgeRequest { confirm }): Json<PurgeRequest>,
) -> Result<(StatusCode, Json<PurgeAnswer>), Problem> {
    if confirm != caller.space.key {
        let message = format!("confirm must be the id of the space, {}", caller.space.key);
        return Err(Problem::new(Code::Invalid, message).at("confirm"));
    }
    let at = app.manage.ask_for_purge(caller.space_no()).await?;
    Ok((StatusCode::ACCEPTED, Json(PurgeAnswer { purge_at: at.to_string() })))
}

/// What was purged.
#[derive(Debug, Serialize, ToSchema)]
struct PurgeReport {
    /// What the space was called.
    id: String,
    name: String,
    begun_at: String,
    /// None while it goes on.
    purged_at: Option<String>,
    /// What there was when it began: `rows` by table, `events` by month.
    #[schema(value_type = Object)]
    report: serde_json::Value,
}

/// List the purges of spaces, newest first
#[utoipa::path(get, path = "/v1/purge-reports", security(("token" = ["server:owner"])), tag = "Spaces",
    operation_id = "list_purge_reports", params(PageParams), responses((status = 200, body = List<PurgeReport>)))]
async fn list_purges(
    State(app): State<AppState>,
    _owner: Caller<Owner>,
    page: Page,
) -> Result<Json<List<PurgeReport>>, Problem> {
    let skipped = page.after::<usize>("purges")?.unwrap_or(0);
    let all = app.manage.list_purges().await?.into_iter().enumerate().skip(skipped);
    let rows = all.take(page.limit + 1).collect();
    Ok(Json(page.list(
        "purges",
        rows,
        |(place, _)| place + 1,
        |(_, of)| PurgeReport {
            id: of.key,
            name: of.name,
            begun_at: of.begun_at.to_string(),
            purged_at: of.purged_at.map(|at| at.to_string()),
            report: of.report,
        },
    )))
}
