//! `/v1/spaces/{space}/retention`: how long events are kept.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::domain::Patch;
use crate::domain::retention::Retention;
use crate::http::AppState;
use crate::http::auth::{Admin, Authed, Read};
use crate::http::extract::Json;
use crate::http::problem::Problem;
use crate::manage::retention::RetentionChange;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_retention, change_retention))
}

/// How long a space keeps its events, in days. An event counts for so long from its time on, and is then as if it had never
/// been sent; it is taken out of the log within two days. Traits, identifiers and consent stay.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Retention)]
struct RetentionJson {
    /// All events; null: as long as the service keeps them (`log.retention_days`).
    days: Option<u32>,
    /// By event name, where that is shorter.
    events: BTreeMap<String, u32>,
}

impl From<Retention> for RetentionJson {
    fn from(Retention { days, events }: Retention) -> Self {
        Self { days, events }
    }
}

/// What is to be changed; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = RetentionChange)]
#[serde(deny_unknown_fields)]
struct ChangeJson {
    /// 1 to 36,500; null: as long as the service keeps them.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    days: Patch<u32>,
    /// By event name, at most 100 names; null takes a name's own time away.
    #[serde(default)]
    events: BTreeMap<String, Option<u32>>,
}

/// How long a space keeps its events
#[utoipa::path(get, path = "/v1/spaces/{space}/retention", tag = "Privacy", operation_id = "get_retention",
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = RetentionJson)))]
async fn get_retention(
    State(app): State<AppState>,
    caller: Authed<Read>,
) -> Result<Json<RetentionJson>, Problem> {
    Ok(Json(app.manage.retention(caller.space_no()).await?.into()))
}

/// Change how long a space keeps its events
///
/// Audiences and computed traits are computed anew from what is kept; until that is done they answer as before. What has been
/// taken out does not come back when the time is made longer.
#[utoipa::path(patch, path = "/v1/spaces/{space}/retention", security(("token" = ["admin"])), tag = "Privacy", operation_id = "change_retention",
    request_body = ChangeJson,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = RetentionJson)))]
async fn change_retention(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    Json(ChangeJson { days, events }): Json<ChangeJson>,
) -> Result<Json<RetentionJson>, Problem> {
    let change = RetentionChange { days, events: events.into_iter().collect() };
    Ok(Json(app.manage.change_retention(caller.space_no(), change).await?.into()))
}
