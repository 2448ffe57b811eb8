//! `/v1/spaces/{space}/deliveries`: what waits, what arrived, what was given up; sending again and discarding.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::destinations::instant;
use crate::domain::Timestamp;
use crate::domain::delivery::{Form, Subject};
use crate::domain::ids::{parse_public_id, public_id};
use crate::http::AppState;
use crate::http::auth::{Authed, Read, Write};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::{Json, Path, Query};
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::{Code, Problem};
use crate::manage::deliveries::{Named, Seen, State as Ended, Which};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_deliveries))
        .routes(routes!(get_delivery))
        .routes(routes!(replay_deliveries))
        .routes(routes!(discard_deliveries))
}

/// A change for one destination.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
struct DeliveryJson {
    /// The same over all attempts and replays; also the `messageId` of what is sent.
    id: String,
    destination: String,
    profile_id: Option<String>,
    /// `audience`, `computed_trait`, `custom_traits`, `merges`, `deletion`, `profile_updates` or `events`.
    subject: &'static str,
    /// Of which audience or computed trait.
    key: Option<String>,
    /// `identify` or `track`; `events` are sent as the calls they were.
    call: &'static str,
    /// What is told.
    #[schema(value_type = serde_json::Value)]
    value: Value,
    /// When it happened.
    at: String,
    /// `queued`, `delivered`, `filtered`, `dead` or `discarded`.
    state: &'static str,
    /// Attempts so far.
    attempts: i32,
    /// Why it did not arrive.
    code: Option<String>,
    message: Option<String>,
    /// When it ended.
    done_at: Option<String>,
    /// When it is tried again.
    next_attempt_at: Option<String>,
}

impl From<Named> for DeliveryJson {
    fn from((id, delivery): Named) -> Self {
        let state = Ended::from_number(delivery.state).map_or("queued", Ended::word);
        Self {
            id,
            destination: public_id("dst", delivery.destination_id),
            profile_id: delivery.profile_id.map(|id| public_id("prf", id)),
            subject: Subject::from_number(delivery.subject).map_or("", Subject::word),
            key: delivery.key,
            call: Form::from_number(delivery.form).map_or("", Form::word),
            value: serde_json::from_str(&delivery.value).unwrap_or_default(),
            at: instant(delivery.at),
            state,
            attempts: delivery.attempts,
            code: delivery.code,
            message: delivery.message,
            done_at: delivery.done_at.map(instant),
            next_attempt_at: delivery.next_at.map(instant),
        }
    }
}

/// A delivery with its attempts.
#[derive(Debug, Serialize, ToSchema)]
struct DeliveryWithAttempts {
    #[serde(flatten)]
    delivery: DeliveryJson,
    /// Those that failed, and of those that did not as many as are kept.
    attempt_log: Vec<AttemptJson>,
}

/// An attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryAttempt)]
struct AttemptJson {
    /// Which one, from 1.
    attempt: i32,
    at: String,
    /// `delivered`, `retry`, `rejected` or `gone`.
    outcome: String,
    code: Option<String>,
    message: Option<String>,
    /// What was sent: secrets masked, the body cut.
    request: Option<String>,
    /// Status of the answer.
    status: Option<i32>,
    /// Body of the answer, cut.
    response: Option<String>,
    took_ms: Option<i32>,
}

impl From<Seen> for AttemptJson {
    fn from(seen: Seen) -> Self {
        let Seen { attempt, at, outcome, code, message, request, status, response, took_ms } = seen;
        Self { attempt, at: instant(at), outcome, code, message, request, status, response, took_ms }
    }
}

/// Which deliveries are meant.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeliveryParams {
    /// Id of a destination.
    destination: Option<String>,
    /// `queued`, `delivered`, `filtered`, `dead` or `discarded`.
    state: Option<String>,
    /// Id of a profile, `prf_…`.
    profile: Option<String>,
    /// Key of an audience or computed trait: of the one that has it now.
    key: Option<String>,
    /// Of changes that happened no earlier than this instant.
    from: Option<String>,
    /// Of changes that happened before this instant.
    to: Option<String>,
}

impl DeliveryParams {
    fn which(self) -> Result<Which, Problem> {
        let id = |prefix: &str, field: &str, text: Option<String>| {
            let wrong =
                || Problem::new(Code::Invalid, format!("it must be an id such as {prefix}_…")).at(field);
            text.map(|text| parse_public_id(prefix, &text).ok_or_else(wrong)).transpose()
        };
        let instant = |field: &str, text: Option<String>| {
            let wrong =
                || Problem::new(Code::Invalid, "it must be a time such as 2024-03-01T12:00:00Z").at(field);
            text.map(|text| Timestamp::parse(&text).ok_or_else(wrong)).transpose()
        };
        Ok(Which {
            destination: id("dst", "destination", self.destination)?,
            state: self.state.as_deref().map(state).transpose()?,
            profile: id("prf", "profile", self.profile)?,
            key: self.key,
            ids: None,
            from: instant("from", self.from)?,
            to: instant("to", self.to)?,
        })
    }
}

fn state(word: &str) -> Result<Option<Ended>, Problem> {
    let ended = Ended::ALL.into_iter().find(|state| state.word() == word);
    if ended.is_none() && word != "queued" {
        let message = "state must be queued, delivered, filtered, dead or discarded";
        return Err(Problem::new(Code::Invalid, message).at("state"));
    }
    Ok(ended)
}

/// List deliveries
///
/// Newest first within each destination.
#[utoipa::path(get, path = "/v1/spaces/{space}/deliveries", tag = "Destinations",
    params(("space" = String, Path, description = "Id of the space"), DeliveryParams, PageParams),
    responses((status = 200, body = List<DeliveryJson>)))]
async fn list_deliveries(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Query(params): Query<DeliveryParams>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let before: Option<(i32, i64)> = page.after("deliveries")?;
    let which = params.which()?;
    let rows = app.manage.list_deliveries(caller.space_no(), &which, before, page.limit + 1).await?;
    let key = |(_, delivery): &Named| (delivery.destination_no, delivery.place);
    Ok(known.answer(&page.list("deliveries", rows, key, DeliveryJson::from)))
}

#[derive(Deserialize)]
struct DeliveryPath {
    id: String,
}

/// Look at a delivery and its attempts
#[utoipa::path(get, path = "/v1/spaces/{space}/deliveries/{id}", tag = "Destinations",
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the delivery")),
    responses((status = 200, body = DeliveryWithAttempts)))]
async fn get_delivery(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Path(path): Path<DeliveryPath>,
) -> Result<Json<DeliveryWithAttempts>, Problem> {
    let (found, attempts) = app.manage.find_delivery(caller.space_no(), &path.id).await?;
    let attempt_log = attempts.into_iter().map(AttemptJson::from).collect();
    Ok(Json(DeliveryWithAttempts { delivery: found.into(), attempt_log }))
}

/// Which ended deliveries of one destination are meant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Meant {
    /// Id of the destination.
    #[schema(value_type = String)]
    destination: Option<String>,
    /// Their ids, at most 1,000.
    ids: Option<Vec<String>>,
    /// `delivered`, `filtered` or `dead`.
    state: Option<String>,
    /// Id of a profile.
    profile: Option<String>,
    /// Key of an audience or computed trait: of the one that has it now.
    key: Option<String>,
    /// Of changes that happened no earlier than this instant.
    from: Option<String>,
    /// Of changes that happened before this instant.
    to: Option<String>,
    /// Only count them.
    #[serde(default)]
    dry_run: bool,
}

impl Meant {
    fn which(self) -> Result<Which, Problem> {
        let Self { destination, ids, state, profile, key, from, to, .. } = self;
        Ok(Which { ids, ..DeliveryParams { destination, state, profile, key, from, to }.which()? })
    }
}

/// How many it were.
#[derive(Debug, Serialize, ToSchema)]
struct Affected {
    /// At most 100,000 in one call.
    count: i64,
    dry_run: bool,
}

/// Send deliveries again
///
/// Those that are meant go into the queue once more, under their old ids, with the data of now. By id, by state, by profile,
/// by audience or computed trait, or by the time of the change.
#[utoipa::path(post, path = "/v1/spaces/{space}/deliveries/replay", tag = "Destinations", request_body = Meant,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = Affected)))]
async fn replay_deliveries(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Json(meant): Json<Meant>,
) -> Result<Json<Affected>, Problem> {
    let dry_run = meant.dry_run;
    if dry_run {
        caller.note_trial();
    }
    let count = app.manage.replay_deliveries(caller.space_no(), &meant.which()?, dry_run).await?;
    Ok(Json(Affected { count, dry_run }))
}

/// Give dead letters up for good
#[utoipa::path(post, path = "/v1/spaces/{space}/deliveries/discard", tag = "Destinations", request_body = Meant,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = Affected)))]
async fn discard_deliveries(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Json(meant): Json<Meant>,
) -> Result<Json<Affected>, Problem> {
    let dry_run = meant.dry_run;
    if dry_run {
        caller.note_trial();
    }
    let count = app.manage.discard_deliveries(caller.space_no(), &meant.which()?, dry_run).await?;
    Ok(Json(Affected { count, dry_run }))
}
