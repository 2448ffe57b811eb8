//! `/v1/spaces/{space}/identity/problems` and `/quarantine`: what identity resolution refuses, and what it refuses for good.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::domain::{Act, Timestamp};
use crate::http::AppState;
use crate::http::acts::{append, signed};
use crate::http::auth::{Authed, Read, Write};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::Path;
use crate::http::page::{Cursor, List, Page, PageParams};
use crate::http::problem::{Code, Problem};
use crate::manage::quarantine::{IdentityProblem, Quarantined, RuleCount};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_problems))
        .routes(routes!(list_quarantine))
        .routes(routes!(lift_quarantine))
}

/// An identifier that was refused, however often and to whomever.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IdentityProblem)]
struct ProblemJson {
    /// Why, by the name of Segment's Profiles Insights.
    rule: String,
    #[serde(rename = "type")]
    name: String,
    id: String,
    /// How often.
    occurrences: i64,
    /// Profiles it was refused to; one that was merged into another since counts as one of its own.
    profiles: i64,
    /// Time of receipt of the first event it happened to.
    first_at: String,
    last_at: String,
    /// Since when the value is in quarantine, if it is.
    quarantined_at: Option<String>,
}

impl From<(IdentityProblem, Option<Timestamp>)> for ProblemJson {
    fn from((row, quarantined_at): (IdentityProblem, Option<Timestamp>)) -> Self {
        Self {
            rule: row.rule,
            name: row.id_type,
            id: row.value,
            occurrences: row.occurrences,
            profiles: row.profiles,
            first_at: row.first_at.to_string(),
            last_at: row.last_at.to_string(),
            quarantined_at: quarantined_at.map(|at| at.to_string()),
        }
    }
}

/// What a rule has refused in all.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IdentityRule)]
struct RuleJson {
    rule: String,
    /// Values it has refused, each once.
    ids: i64,
    /// How often it has refused one.
    occurrences: i64,
}

impl From<RuleCount> for RuleJson {
    fn from(RuleCount { rule, ids, occurrences }: RuleCount) -> Self {
        Self { rule, ids, occurrences }
    }
}

/// A page of the identifiers that were refused.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IdentityProblems)]
struct ProblemsJson {
    data: Vec<ProblemJson>,
    cursor: Cursor,
    /// All of them by rule, the one that refuses most first.
    rules: Vec<RuleJson>,
}

/// List the identifiers that were refused, the most frequent first
///
/// What merges too many people stands at the top: block it, or look at the limit of its type. What was refused to as many
/// profiles as `quarantine_threshold` of the identity settings says is in quarantine by itself.
#[utoipa::path(get, path = "/v1/spaces/{space}/identity/problems", tag = "Identity",
    operation_id = "list_identity_problems",
    params(("space" = String, Path, description = "Id of the space"), PageParams),
    responses((status = 200, body = ProblemsJson), (status = 304, description = "Nothing has changed")))]
async fn list_problems(
    State(app): State<AppState>,
    caller: Authed<Read>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let after = page.after("identity_problems")?;
    let rows = app.manage.list_identity_problems(caller.space_no(), after, page.limit + 1).await?;
    let rules = app.manage.count_identity_problems(caller.space_no()).await?;
    let key = |(row, _): &(IdentityProblem, Option<Timestamp>)| (row.occurrences, row.key);
    let List { data, cursor } = page.list("identity_problems", rows, key, ProblemJson::from);
    Ok(known.answer(&ProblemsJson { data, cursor, rules: rules.into_iter().map(RuleJson::from).collect() }))
}

/// A value in quarantine.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuarantinedIdentifier)]
struct QuarantinedJson {
    #[serde(rename = "type")]
    name: String,
    id: String,
    /// Time of receipt of the event it was refused to once too often.
    quarantined_at: String,
}

impl From<Quarantined> for QuarantinedJson {
    fn from(row: Quarantined) -> Self {
        Self { name: row.id_type, id: row.value, quarantined_at: row.at.to_string() }
    }
}

/// List the identifiers in quarantine, the newest first
///
/// Such a value is treated as a blocked one: no profile gets it, and no event is matched by it. Profiles that have it keep it.
#[utoipa::path(get, path = "/v1/spaces/{space}/identity/quarantine", tag = "Identity",
    operation_id = "list_quarantined_identifiers",
    params(("space" = String, Path, description = "Id of the space"), PageParams),
    responses((status = 200, body = List<QuarantinedJson>), (status = 304, description = "Nothing has changed")))]
async fn list_quarantine(
    State(app): State<AppState>,
    caller: Authed<Read>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let after = page.after::<(i64, Uuid)>("quarantine")?;
    let after = after.map(|(at, key)| (Timestamp::from_millis(at), key));
    let rows = app.manage.list_quarantined(caller.space_no(), after, page.limit + 1).await?;
    let key = |row: &Quarantined| (row.at.millis(), row.key);
    Ok(known.answer(&page.list("quarantine", rows, key, QuarantinedJson::from)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct IdentifierPath {
    /// Id of the space.
    #[serde(rename = "space")]
    _space: String,
    /// `type:value`
    identifier: String,
}

/// Let an identifier out of quarantine
///
/// It counts as any other again from the next event on, and is not put into quarantine again: block it for that. The act
/// stands in the log, between the events.
#[utoipa::path(delete, path = "/v1/spaces/{space}/identity/quarantine/{identifier}", tag = "Identity",
    operation_id = "lift_quarantine", params(IdentifierPath),
    responses((status = 204, description = "It is out"), (status = 404, description = "It is not in quarantine")))]
async fn lift_quarantine(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<IdentifierPath>,
) -> Result<StatusCode, Problem> {
    let space = caller.space_no();
    let Some((id_type, value)) = path.identifier.split_once(':') else {
        let message = "name the identifier as type:value, such as anonymous_id:a1";
        return Err(Problem::new(Code::BadRequest, message).at("identifier"));
    };
    let found = app.manage.find_quarantined(space, id_type, value).await?;
    let Some((collection, value)) = found else {
        return Err(Problem::not_found(format!("there is no {id_type} of that value in quarantine")));
    };
    let act = Act::LiftQuarantine { collection, id_type: id_type.to_owned(), value };
    append(&app, space, &signed(act, &caller.token)).await?;
    Ok(StatusCode::NO_CONTENT)
}
