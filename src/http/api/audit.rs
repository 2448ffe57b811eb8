//! `/v1/spaces/{space}/audit-log`, and the server's own.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::domain::SpaceNo;
use crate::domain::audit::{Entry, EntryKind};
use crate::http::AppState;
use crate::http::auth::{Authed, Caller, Owner, Privacy};
use crate::http::extract::{Json, Query};
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::{Code, Problem, to_json};
use crate::manage::audit::{Report, Told};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_audit_log))
        .routes(routes!(verify_audit_log))
        .routes(routes!(list_server_audit_log))
}

/// Entries that are written at once.
const READY: usize = 200;

/// Something that was done, or personal data that was read. What does not apply is left out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
struct AuditJson {
    /// Its number in the log, from 1 without gaps.
    no: i64,
    /// `act` (of an operator on profiles, in the event log), `change` (a call that changes something, also a refused one) or
    /// `read` (of personal data, gathered by the second).
    kind: &'static str,
    at: String,
    /// The name of an act, such as `merge.undo`; else method and route.
    action: String,
    /// The access token: `{"id","name"}`.
    #[schema(value_type = Object)]
    actor: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The names in the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    target: Option<Value>,
    /// The status it was answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// What was changed, where the path does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    detail: Option<Value>,
    /// Reads that were gathered.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    /// Profiles that were read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    profiles: Vec<String>,
    /// Of an act, its place in the event log.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// Of an act, what was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    act: Option<Value>,
    /// Of an act, what came of it; `refused` says why nothing did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    effect: Option<Value>,
    /// Covers the entry and all before it.
    hash: String,
}

fn shown(told: Told) -> Option<AuditJson> {
    let entry: Entry = serde_json::from_str(&told.content).ok()?;
    let (act, effect) = told.act.map(|(act, effect, _)| (act, effect)).unzip();
    Some(AuditJson {
        no: entry.no,
        kind: entry.kind.as_str(),
        at: entry.at,
        action: entry.action,
        actor: serde_json::to_value(entry.actor).unwrap_or_default(),
        address: entry.address,
        target: entry.target,
        status: entry.status,
        request_id: entry.request_id,
        detail: entry.detail,
        count: entry.count,
        profiles: entry.profiles,
        offset: entry.offset,
        act,
        effect,
        hash: hex::encode(told.hash),
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditParams {
    /// Only `act`, `change` or `read`.
    kind: Option<String>,
    /// Only what was done in this way, such as `merge.undo` or `POST /v1/spaces/{space}/tokens`.
    action: Option<String>,
    /// `ndjson`: the whole log, oldest first, one `{"hash","entry",…}` a line. The hash of a line is the SHA-256 of the hash before
    /// (32 bytes of zero before the first) and of the text of its `entry` as it stands.
    format: Option<String>,
}

/// A line of the exported log.
#[derive(Serialize)]
struct Line {
    hash: String,
    entry: Box<RawValue>,
    /// What the digest of an act was made of: the salt, and these two as a JSON list.
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<Value>,
}

fn line(told: Told) -> Bytes {
    let entry = RawValue::from_string(told.content).unwrap_or_default();
    let hash = hex::encode(told.hash);
    let line = match told.act {
        Some((act, effect, salt)) => {
            Line { hash, entry, salt: Some(hex::encode(salt)), act: Some(act), effect: Some(effect) }
        }
        None => Line { hash, entry, salt: None, act: None, effect: None },
    };
    let mut line = to_json(&line);
    line.push(b'\n');
    line.into()
}

/// List what was done in a space, and who read personal data, newest first
///
/// With `format=ndjson` the whole log, to be kept and checked elsewhere.
#[utoipa::path(get, path = "/v1/spaces/{space}/audit-log", security(("token" = ["privacy"])), tag = "Privacy",
    operation_id = "list_audit_log",
    params(("space" = String, Path, description = "Id of the space"), AuditParams, PageParams),
    responses((status = 200, body = List<AuditJson>)))]
async fn list_audit_log(
    State(app): State<AppState>,
    caller: Authed<Privacy>,
    Query(params): Query<AuditParams>,
    page: Page,
) -> Result<Response, Problem> {
    answer(&app, Some(caller.space_no()), &params, &page).await
}

/// List what the owner did in no space, newest first
#[utoipa::path(get, path = "/v1/audit-log", security(("token" = ["server:owner"])), tag = "Privacy",
    operation_id = "list_server_audit_log", params(AuditParams, PageParams),
    responses((status = 200, body = List<AuditJson>)))]
async fn list_server_audit_log(
    State(app): State<AppState>,
    _owner: Caller<Owner>,
    Query(params): Query<AuditParams>,
    page: Page,
) -> Result<Response, Problem> {
    answer(&app, None, &params, &page).await
}

async fn answer(
    app: &AppState,
    space: Option<SpaceNo>,
    params: &AuditParams,
    page: &Page,
) -> Result<Response, Problem> {
    // Whoever looks sees what was read before.
    app.manage.write_reads().await;
    match params.format.as_deref() {
        None | Some("json") => {}
        Some("ndjson") => {
            let lines = app.manage.stream_audit(space).ready_chunks(READY).map(|all| {
                let lines: Result<Vec<Bytes>, _> = all.into_iter().map(|told| told.map(line)).collect();
                lines.map(|lines| Bytes::from(lines.concat()))
            });
            let headers = [
                (header::CONTENT_TYPE, "application/x-ndjson"),
                (header::CONTENT_DISPOSITION, "attachment; filename=\"audit-log.ndjson\""),
            ];
            return Ok((headers, Body::from_stream(lines)).into_response());
        }
        Some(_) => return Err(Problem::new(Code::BadRequest, "format can be ndjson or json").at("format")),
    }
    let kind = params.kind.as_deref().map(|word| {
        let message = "kind must be act, change or read";
        EntryKind::parse(word).ok_or_else(|| Problem::new(Code::BadRequest, message).at("kind"))
    });
    let before = page.after::<i64>("audit_log")?;
    let action = params.action.as_deref();
    let rows = app.manage.list_audit(space, kind.transpose()?, action, before, page.limit + 1).await?;
    let rows: Vec<AuditJson> = rows.into_iter().filter_map(shown).collect();
    Ok(Json(page.list("audit_log", rows, |entry| entry.no, |entry| entry)).into_response())
}

/// Whether a log is as it was written.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditVerification)]
struct VerifiedJson {
    /// Nothing is missing, and nothing was changed.
    intact: bool,
    entries: u64,
    /// Acts of which only the hash is left: what they were about was erased.
    erased: u64,
    /// How much is wrong, and the first of it in words.
    faults: u64,
    told: Vec<String>,
    /// The hash of the last entry. Whoever keeps it elsewhere can tell later that what was before has not been written anew.
    last_hash: String,
}

/// Verify the audit log
///
/// Goes through all of it. `personas verify` does the same for all spaces.
#[utoipa::path(get, path = "/v1/spaces/{space}/audit-log/verify", security(("token" = ["privacy"])), tag = "Privacy",
    operation_id = "verify_audit_log", params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = VerifiedJson)))]
async fn verify_audit_log(
    State(app): State<AppState>,
    caller: Authed<Privacy>,
) -> Result<Json<VerifiedJson>, Problem> {
    let Report { entries, erased, faults, told, last_hash } =
        app.manage.verify_audit(Some(caller.space_no())).await?;
    Ok(Json(VerifiedJson { intact: faults == 0, entries, erased, faults, told, last_hash }))
}
