//! `/v1/spaces/{space}/regulations` and `…/suppressions`: what people may ask for, in Segment's words.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::path_id;
use crate::domain::act::Actor;
use crate::domain::ids::public_id;
use crate::domain::regulation::{IdHash, RegulationStatus, RegulationType};
use crate::http::AppState;
use crate::http::acts::signed;
use crate::http::auth::{Authed, Privacy};
use crate::http::extract::{Json, Path, Query};
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::{Code, Problem};
use crate::manage::regulations::{Progress, RegulationWish, Stream, Suppressed};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_regulations, create_regulation))
        .routes(routes!(get_regulation))
        .routes(routes!(list_suppressions))
        .routes(routes!(get_suppression))
}

/// What is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewRegulation)]
#[serde(deny_unknown_fields)]
struct NewJson {
    /// `SUPPRESS_ONLY`, `UNSUPPRESS`, `SUPPRESS_WITH_DELETE_INTERNAL`, `DELETE_INTERNAL`, `SUPPRESS_WITH_DELETE` or
    /// `DELETE_ONLY`. The last two tell destinations, too.
    regulation_type: String,
    /// `USER_ID`, another type of identifier such as `email`, or `profile_id`.
    #[serde(default = "user_id")]
    subject_type: String,
    /// Who: 1 to 5,000.
    subject_ids: Vec<String>,
    /// How many days identifiers of devices (`anonymous_id` and the like), which others may use too, stay suppressed; 30 when
    /// not given.
    device_days: Option<i32>,
}

fn user_id() -> String {
    "USER_ID".to_owned()
}

/// What was asked for, and how far it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Regulation)]
struct RegulationJson {
    id: String,
    regulation_type: &'static str,
    subject_type: String,
    /// `INITIALIZED`, `RUNNING`, `FINISHED`; `PARTIAL_SUCCESS` when it is done here and a destination takes no deletions or
    /// has refused one.
    overall_status: &'static str,
    /// People it names.
    subjects: i64,
    /// Those of them that were somebody here.
    found: i64,
    /// Events that were erased.
    events_erased: i64,
    created_at: String,
    finished_at: Option<String>,
    /// The token that asked for it.
    #[schema(value_type = Object)]
    created_by: serde_json::Value,
    /// How far it is here and at destinations.
    stream_status: Vec<StreamJson>,
    /// Place in the log up to which everything is erased: `min_offset` of a read that sees it done. Only in the answer that
    /// made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

/// How far it is in one place.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RegulationStream)]
struct StreamJson {
    /// `personas`, or the id of a destination.
    id: String,
    name: String,
    /// `INITIALIZED`, `RUNNING`, `FINISHED`, `PARTIAL_SUCCESS`, `FAILED` or `NOT_SUPPORTED`.
    status: &'static str,
    /// Deletions there are to be, and how many are done.
    deletions: i64,
    done: i64,
    /// Why one of them failed.
    err_string: Option<String>,
    finished_at: Option<String>,
}

impl From<Stream> for StreamJson {
    fn from(stream: Stream) -> Self {
        let status = stream.status().word();
        let Stream { destination, id, name, all, done, error, finished_at, .. } = stream;
        Self {
            id: id.map_or_else(|| destination.to_string(), |id| public_id("dst", id)),
            name: name.unwrap_or_default(),
            status,
            deletions: all,
            done,
            err_string: error,
            finished_at: finished_at.map(|at| at.to_string()),
        }
    }
}

impl RegulationJson {
    fn of(progress: Progress, offset: Option<u64>) -> Self {
        let Progress { regulation, streams } = progress;
        let internal = regulation.internal();
        let is_well = streams.iter().all(|s| {
            !matches!(
                s.status(),
                RegulationStatus::Failed | RegulationStatus::NotSupported | RegulationStatus::PartialSuccess
            )
        });
        let overall = match (regulation.finished_at, is_well) {
            (Some(_), true) => RegulationStatus::Finished,
            (Some(_), false) => RegulationStatus::PartialSuccess,
            (None, _) if internal == RegulationStatus::Finished => RegulationStatus::Running,
            (None, _) => internal,
        };
        let here = StreamJson {
            id: "personas".to_owned(),
            name: "Personas".to_owned(),
            status: internal.word(),
            deletions: if regulation.kind.erases() { regulation.subjects } else { 0 },
            done: if regulation.kind.erases() { regulation.done } else { 0 },
            err_string: None,
            finished_at: regulation.finished_at.filter(|_| streams.is_empty()).map(|at| at.to_string()),
        };
        let Actor { id, name } = regulation.by;
        Self {
            id: public_id("reg", regulation.id),
            regulation_type: regulation.kind.word(),
            subject_type: regulation.subject_type,
            overall_status: overall.word(),
            subjects: regulation.subjects,
            found: regulation.found,
            events_erased: regulation.events,
            created_at: regulation.created_at.to_string(),
            finished_at: regulation.finished_at.map(|at| at.to_string()),
            created_by: serde_json::json!({"id": id, "name": name}),
            stream_status: std::iter::once(here).chain(streams.into_iter().map(StreamJson::from)).collect(),
            offset,
        }
    }
}

/// Which regulations are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wish {
    /// Of this type.
    regulation_type: Option<String>,
    /// `true`: those that are done; `false`: those that are not.
    finished: Option<bool>,
}

/// List regulations, newest first
#[utoipa::path(get, path = "/v1/spaces/{space}/regulations", security(("token" = ["privacy"])), tag = "Privacy", operation_id = "list_regulations",
    params(("space" = String, Path, description = "Id of the space"), Wish, PageParams),
    responses((status = 200, body = List<RegulationJson>), (status = 422, description = "There is no such type")))]
async fn list_regulations(
    State(app): State<AppState>,
    caller: Authed<Privacy>,
    Query(wish): Query<Wish>,
    page: Page,
) -> Result<Json<List<RegulationJson>>, Problem> {
    let before: Option<uuid::Uuid> = page.after("regulations")?;
    let kind = wish.regulation_type.as_deref().map(|word| {
        let wrong = || Problem::new(Code::Invalid, "there is no such type").at("regulation_type");
        RegulationType::parse(word).ok_or_else(wrong)
    });
    let asked = (kind.transpose()?, wish.finished);
    let rows = app.manage.list_regulations(caller.space_no(), asked, before, page.limit + 1).await?;
    Ok(Json(page.list("regulations", rows, |row| row.regulation.id, |row| RegulationJson::of(row, None))))
}

/// Suppress or erase people
///
/// Suppression counts from the answer on (in other processes a second later). What is erased is erased up to the place in the
/// log that the answer tells as `offset`: with all identifiers, events, traits, memberships and deliveries of the profile that
/// has the identifier, whatever it was merged of.
#[utoipa::path(post, path = "/v1/spaces/{space}/regulations", security(("token" = ["privacy"])), tag = "Privacy", operation_id = "create_regulation",
    request_body = NewJson, params(("space" = String, Path, description = "Id of the space")),
    responses((status = 201, body = RegulationJson),
        (status = 422, description = "Something of it cannot be; nothing was done")))]
async fn create_regulation(
    State(app): State<AppState>,
    caller: Authed<Privacy>,
    Json(new): Json<NewJson>,
) -> Result<(StatusCode, Json<RegulationJson>), Problem> {
    let NewJson { regulation_type: kind, subject_type, subject_ids, device_days } = new;
    let wish = RegulationWish { kind, subject_type, subject_ids, device_days };
    let by = Actor { id: public_id("tok", caller.token.id), name: caller.token.name.clone() };
    let space = caller.space_no();
    let (progress, acts) = app.manage.regulate(space, wish, by).await?;
    let mut offset = None;
    for act in acts {
        match app.ingest.append_act(space, &signed(act, &caller.token)).await {
            Ok(at) => offset = Some(at.0),
            // It is written down what is to be done: who goes on with it writes the acts again.
            Err(error) => {
                tracing::warn!(%error, "an act of a regulation could not be written and will be again: {error}");
                break;
            }
        }
    }
    Ok((StatusCode::CREATED, Json(RegulationJson::of(progress, offset))))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct RegulationPath {
    /// Id of the space.
    #[serde(rename = "space")]
    _space: String,
    /// Id of the regulation, `reg_…`.
    regulation: String,
}

/// Get a regulation
#[utoipa::path(get, path = "/v1/spaces/{space}/regulations/{regulation}", security(("token" = ["privacy"])), tag = "Privacy", operation_id = "get_regulation",
    params(RegulationPath),
    responses((status = 200, body = RegulationJson), (status = 404, description = "There is no such regulation")))]
async fn get_regulation(
    State(app): State<AppState>,
    caller: Authed<Privacy>,
    Path(path): Path<RegulationPath>,
) -> Result<Json<RegulationJson>, Problem> {
    let id = path_id("reg", "regulation", &path.regulation)?;
    let found = app.manage.find_regulation(caller.space_no(), id).await?;
    let missing = || Problem::not_found(format!("there is no regulation {}", path.regulation));
    Ok(Json(RegulationJson::of(found.ok_or_else(missing)?, None)))
}

/// An identifier that nothing new is taken of. Its value is kept nowhere.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Suppression)]
struct SuppressionJson {
    /// A hash of the identifier under a secret of the space.
    id: String,
    /// Its type.
    #[serde(rename = "type")]
    id_type: String,
    /// The regulation that says so.
    regulation_id: String,
    created_at: String,
    /// A device's identifier is taken again from then on.
    expires_at: Option<String>,
}

impl From<Suppressed> for SuppressionJson {
    fn from(row: Suppressed) -> Self {
        Self {
            id: hex::encode(row.hash.0),
            id_type: row.id_type,
            regulation_id: public_id("reg", row.regulation),
            created_at: row.created_at.to_string(),
            expires_at: row.expires_at.map(|at| at.to_string()),
        }
    }
}

/// List what is suppressed
#[utoipa::path(get, path = "/v1/spaces/{space}/suppressions", security(("token" = ["privacy"])), tag = "Privacy", operation_id = "list_suppressions",
    params(("space" = String, Path, description = "Id of the space"), PageParams),
    responses((status = 200, body = List<SuppressionJson>)))]
async fn list_suppressions(
    State(app): State<AppState>,
    caller: Authed<Privacy>,
    page: Page,
) -> Result<Json<List<SuppressionJson>>, Problem> {
    let after: Option<[u8; 16]> = page.after("suppressions")?;
    let rows = app.manage.list_suppressions(caller.space_no(), after.map(IdHash), page.limit + 1).await?;
    Ok(Json(page.list("suppressions", rows, |row| row.hash.0, SuppressionJson::from)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct SuppressionPath {
    /// Id of the space.
    #[serde(rename = "space")]
    _space: String,
    /// `type:value`, such as `user_id:u1`.
    selector: String,
}

/// Ask whether somebody is suppressed
#[utoipa::path(get, path = "/v1/spaces/{space}/suppressions/{selector}", security(("token" = ["privacy"])), tag = "Privacy", operation_id = "get_suppression",
    params(SuppressionPath),
    responses((status = 200, body = SuppressionJson), (status = 404, description = "It is not suppressed")))]
async fn get_suppression(
    State(app): State<AppState>,
    caller: Authed<Privacy>,
    Path(path): Path<SuppressionPath>,
) -> Result<Json<SuppressionJson>, Problem> {
    let (id_type, id) = path
        .selector
        .split_once(':')
        .ok_or_else(|| Problem::new(Code::Invalid, "write type:value, such as user_id:u1").at("selector"))?;
    let found = app.manage.find_suppression(caller.space_no(), id_type, id).await?;
    Ok(Json(found.ok_or_else(|| Problem::not_found("nobody is suppressed by this identifier"))?.into()))
}
