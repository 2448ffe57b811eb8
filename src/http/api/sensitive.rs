//! `/v1/spaces/{space}/sensitive-data`: what is kept out of the log, and what was found.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::not_null;
use crate::domain::ids::public_id;
use crate::domain::sensitive::{Category, SensitivePattern, SensitiveSettings};
use crate::http::AppState;
use crate::http::auth::{Admin, Authed, Read};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::Json;
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::{Code, Problem};
use crate::manage::sensitive::{Count, PatternChange, Place, SensitiveChange};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_settings, change_settings))
        .routes(routes!(list_findings))
        .routes(routes!(try_screening))
}

/// What becomes of sensitive data in events, before anything is stored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SensitiveDataSettings)]
struct SettingsJson {
    /// Raised by every change; 0 are the defaults.
    version: i64,
    /// By category: `allow`, `drop` (the field is left out), `mask`, `hash` (equal values stay equal), `reject` (the event is
    /// refused).
    actions: BTreeMap<&'static str, &'static str>,
    patterns: Vec<PatternJson>,
}

/// A pattern of your own. With both `key` and `value`, both have to match.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SensitivePattern)]
struct PatternJson {
    /// What findings call it.
    name: String,
    /// Regular expression for keys.
    key: Option<String>,
    /// Regular expression for values: strings and numbers.
    value: Option<String>,
    action: &'static str,
}

impl From<SensitivePattern> for PatternJson {
    fn from(SensitivePattern { name, key, value, action }: SensitivePattern) -> Self {
        Self { name, key, value, action: action.as_str() }
    }
}

impl From<SensitiveSettings> for SettingsJson {
    fn from(settings: SensitiveSettings) -> Self {
        let actions = Category::ALL.iter().map(|c| (c.as_str(), settings.action(*c).as_str())).collect();
        let patterns = settings.patterns.into_iter().map(PatternJson::from).collect();
        Self { version: settings.version, actions, patterns }
    }
}

/// What is to be changed; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SensitiveDataChange)]
#[serde(deny_unknown_fields)]
struct ChangeJson {
    /// The version the change is made of; with another one present, nothing is changed and the answer is 409.
    #[serde(default, deserialize_with = "not_null")]
    version: Option<i64>,
    /// For some of `card_number`, `iban`, `national_id`, `secret`, `health`, `special_category`: one of `allow`, `drop`,
    /// `mask`, `hash`, `reject`.
    #[serde(default)]
    actions: BTreeMap<String, String>,
    /// All patterns there are to be, at most 100.
    #[serde(default, deserialize_with = "not_null")]
    patterns: Option<Vec<PatternChangeJson>>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SensitivePatternChange)]
#[serde(deny_unknown_fields)]
struct PatternChangeJson {
    /// 1 to 64 characters, each once.
    name: String,
    /// At most 256 characters, without look-around.
    key: Option<String>,
    /// The same.
    value: Option<String>,
    /// `allow`, `drop`, `mask`, `hash` or `reject`.
    action: String,
}

impl From<ChangeJson> for SensitiveChange {
    fn from(ChangeJson { version, actions, patterns }: ChangeJson) -> Self {
        let pattern =
            |PatternChangeJson { name, key, value, action }| PatternChange { name, key, value, action };
        let patterns = patterns.map(|all| all.into_iter().map(pattern).collect());
        Self { version, actions: actions.into_iter().collect(), patterns }
    }
}

/// Where sensitive data was found. The value is nowhere.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SensitiveFinding)]
struct FindingJson {
    /// A category, or the name of a pattern.
    what: String,
    /// Keys from the outermost on, `[]` for elements of a list; `*` when there are too many different ones.
    path: String,
    /// What became of it.
    action: &'static str,
    /// The source that sent it.
    source: Option<String>,
    /// Events it was found in, retries included.
    occurrences: i64,
    first_at: String,
    last_at: String,
}

/// What is found in a call that is only tried.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SensitiveTrial)]
struct TrialJson {
    /// The call as it would be stored; of one that would be refused, as it would be listed.
    #[schema(value_type = Object)]
    call: Box<RawValue>,
    /// Whether it would be refused.
    rejected: bool,
    findings: Vec<TriedJson>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SensitiveTrialFinding)]
struct TriedJson {
    what: String,
    path: String,
    action: &'static str,
}

/// What a space does about sensitive data
#[utoipa::path(get, path = "/v1/spaces/{space}/sensitive-data/settings", tag = "Privacy",
    operation_id = "get_sensitive_data_settings",
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = SettingsJson)))]
async fn get_settings(
    State(app): State<AppState>,
    caller: Authed<Read>,
) -> Result<Json<SettingsJson>, Problem> {
    Ok(Json(app.manage.sensitive_settings(caller.space_no()).await?.into()))
}

/// Change what a space does about sensitive data
///
/// It counts for events that come after the answer (in other processes, a second later). What is stored stays as it is.
#[utoipa::path(patch, path = "/v1/spaces/{space}/sensitive-data/settings", security(("token" = ["admin"])), tag = "Privacy",
    operation_id = "change_sensitive_data_settings", request_body = ChangeJson,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = SettingsJson),
        (status = 409, description = "Another version is present"),
        (status = 422, description = "A value cannot be; nothing was changed")))]
async fn change_settings(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    Json(change): Json<ChangeJson>,
) -> Result<Json<SettingsJson>, Problem> {
    Ok(Json(app.manage.change_sensitive_settings(caller.space_no(), change.into()).await?.into()))
}

/// List where sensitive data was found, the most frequent first
#[utoipa::path(get, path = "/v1/spaces/{space}/sensitive-data/findings", tag = "Privacy",
    operation_id = "list_sensitive_data_findings",
    params(("space" = String, Path, description = "Id of the space"), PageParams),
    responses((status = 200, body = List<FindingJson>), (status = 304, description = "Nothing has changed")))]
async fn list_findings(
    State(app): State<AppState>,
    caller: Authed<Read>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let after: Option<usize> = page.after("sensitive_findings")?;
    let space = caller.space_no();
    let found = app.manage.list_sensitive_findings(space).await?;
    let sources = app.manage.registry().snapshot();
    let source = |place: &Place| sources.sources.get(&(space, place.source)).map(|s| public_id("src", s.id));
    let rows: Vec<(usize, (Place, Count))> =
        found.into_iter().enumerate().filter(|(no, _)| after.is_none_or(|after| *no > after)).collect();
    let row = |(_, (place, count)): (usize, (Place, Count))| FindingJson {
        source: source(&place),
        what: place.what,
        path: place.path,
        action: place.action.as_str(),
        occurrences: count.occurrences,
        first_at: count.first_at.to_string(),
        last_at: count.last_at.to_string(),
    };
    Ok(known.answer(&page.list("sensitive_findings", rows, |(no, _)| *no, row)))
}

/// Try what would be stored of a call
///
/// The body is a tracking call with its `type`. Nothing is stored and nothing counted.
#[utoipa::path(post, path = "/v1/spaces/{space}/sensitive-data/try", security(("token" = ["read"])), tag = "Privacy",
    operation_id = "try_sensitive_data_settings", request_body = Object,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = TrialJson), (status = 422, description = "The body is no JSON object")))]
async fn try_screening(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Json(call): Json<Box<RawValue>>,
) -> Result<Json<TrialJson>, Problem> {
    let unread = || Problem::new(Code::Invalid, "send a tracking call as a JSON object");
    if !call.get().starts_with('{') {
        return Err(unread());
    }
    let (text, found) = app.manage.try_screening(caller.space_no(), call.get());
    let rejected = found.iter().any(|finding| finding.action.as_str() == "reject");
    let tried = found.into_iter().map(|finding| TriedJson {
        what: finding.what.to_string(),
        path: finding.path,
        action: finding.action.as_str(),
    });
    let findings = tried.collect();
    Ok(Json(TrialJson { call: RawValue::from_string(text).map_err(|_| unread())?, rejected, findings }))
}
