//! `/v1/spaces/{space}/pipeline` and `/rejected-events`: what operators look at.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::definitions::kind_word;
use crate::domain::ids::public_id;
use crate::http::AppState;
use crate::http::auth::{AdminData, Authed, Read};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::{Json, Query};
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::Problem;
use crate::manage::operations::{Backfill, Pipeline, RejectedEvent};
use crate::manage::registry::Snapshot;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_pipeline)).routes(routes!(list_rejected_events))
}

/// How far a space is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Pipeline)]
struct PipelineJson {
    /// Offset of the newest event received.
    log_end_offset: u64,
    /// Every event up to this offset is processed: an event is covered when this is not below its `Personas-Offset`.
    processed_offset: u64,
    /// Up to here scans of history read segments, which is many times faster than the log itself.
    segments_end_offset: u64,
    /// Events that wait.
    lag_events: u64,
    /// Age of the oldest event that waits.
    lag_ms: i64,
    /// Definitions that are being computed over history.
    backfills: Vec<BackfillJson>,
    /// Events dropped because their message id had been processed, so far.
    duplicates: i64,
    /// Events refused, or taken only in part, within the last hour; 1,000 stands for as many or more.
    rejected_last_hour: i64,
    /// Events without a usable identifier, so far.
    unidentified: i64,
    profiles: ProfileCounts,
}

/// A version that is being computed over history.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backfill)]
struct BackfillJson {
    /// `audience` or `computed_trait`.
    kind: &'static str,
    key: String,
    version: i32,
    /// `pending` or `backfilling`.
    status: String,
    /// Profiles done so far.
    walked: i64,
}

/// Profiles of a space.
#[derive(Debug, Serialize, ToSchema)]
struct ProfileCounts {
    users: i64,
    accounts: i64,
    /// Merges so far.
    merges: i64,
}

impl From<Pipeline> for PipelineJson {
    fn from(Pipeline { status, lag_ms, segments_end, backfills, rejected }: Pipeline) -> Self {
        let show = |Backfill { kind, key, version }: Backfill| BackfillJson {
            kind: kind_word(kind),
            key,
            version: version.version,
            status: version.status,
            walked: version.walked,
        };
        Self {
            log_end_offset: status.log_end.0,
            processed_offset: status.processed.0,
            segments_end_offset: segments_end.0,
            lag_events: status.log_end.0.saturating_sub(status.processed.0),
            lag_ms,
            backfills: backfills.into_iter().map(show).collect(),
            duplicates: status.duplicates,
            rejected_last_hour: rejected,
            unidentified: status.unidentified,
            profiles: ProfileCounts { users: status.users, accounts: status.accounts, merges: status.merges },
        }
    }
}

/// How far a space is
#[utoipa::path(get, path = "/v1/spaces/{space}/pipeline", tag = "Operations",
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = PipelineJson)))]
async fn get_pipeline(
    State(app): State<AppState>,
    caller: Authed<Read>,
) -> Result<Json<PipelineJson>, Problem> {
    Ok(Json(app.manage.pipeline(caller.space_no()).await?.into()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RejectedParams {
    /// Only events refused with this code.
    code: Option<String>,
}

/// An event that was refused, or taken only in part.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RejectedEvent)]
struct RejectedJson {
    id: String,
    /// The event was taken, but not all of it.
    warning: bool,
    code: String,
    message: String,
    field: Option<String>,
    message_id: Option<String>,
    /// Id of the source it came from.
    source: Option<String>,
    received_at: String,
    /// The call as it was sent, cut at the size of the largest event; of a body that was refused whole, its beginning
    /// (4 KiB, decompressed as far as that works).
    event: String,
}

impl RejectedJson {
    fn new(row: RejectedEvent, source: Option<Uuid>) -> Self {
        Self {
            id: public_id("rej", row.id),
            warning: row.warning,
            code: row.code,
            message: row.message,
            field: row.field,
            message_id: row.message_id,
            source: source.map(|id| public_id("src", id)),
            received_at: row.received_at.to_string(),
            event: row.event,
        }
    }
}

/// List refused events, newest first
#[utoipa::path(get, path = "/v1/spaces/{space}/rejected-events", security(("token" = ["admin"])), tag = "Operations",
    params(("space" = String, Path, description = "Id of the space"), RejectedParams, PageParams),
    responses((status = 200, body = List<RejectedJson>)))]
async fn list_rejected_events(
    State(app): State<AppState>,
    caller: Authed<AdminData>,
    Query(params): Query<RejectedParams>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let space = caller.space_no();
    let before = page.after("rejected")?;
    let rows = app.manage.list_rejected(space, params.code.as_deref(), before, page.limit + 1).await?;
    let snapshot = app.manage.registry().snapshot();
    let source =
        |snapshot: &Snapshot, row: &RejectedEvent| snapshot.sources.get(&(space, row.source)).map(|s| s.id);
    let show = |row: RejectedEvent| {
        let source = source(&snapshot, &row);
        RejectedJson::new(row, source)
    };
    Ok(known.answer(&page.list("rejected", rows, |row| row.id, show)))
}
