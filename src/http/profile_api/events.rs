//! A profile's events and when it was seen.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::super::extract::{Json, Query};
use super::super::page::{List, Page, PageParams};
use super::super::problem::{Code, Problem};
use super::{ExternalId, Found, ProfilePath, State, raw, words};
use crate::domain::{EventType, Offset, Timestamp};
use crate::query::{Direction, EventFilter, TimelineCursor, TimelineEvent};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventParams {
    /// Not before this time.
    start: Option<String>,
    /// Not after this time.
    end: Option<String>,
    /// Only events of these names, comma-separated.
    include: Option<String>,
    /// No events of these names, comma-separated.
    exclude: Option<String>,
    /// `desc` (newest first, the default) or `asc`.
    sort: Option<String>,
}

/// An event as Segment shows one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(in crate::http) struct EventBody {
    #[serde(rename = "type")]
    call: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    message_id: String,
    source_id: Option<String>,
    timestamp: String,
    received_at: String,
    /// True when the client's time lay more than a day ahead, so that the time of receipt was taken for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    clamped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    properties: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    traits: Option<Box<RawValue>>,
    #[schema(value_type = Object)]
    context: Option<Box<RawValue>>,
    external_ids: Vec<ExternalId>,
    related: Related,
    offset: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct Related {
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accounts: Option<String>,
}

/// Events of a profile in order of their time: every call type, as far back as they are kept.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/events",
    tag = "Profile API", params(ProfilePath, EventParams, PageParams),
    responses((status = 200, body = List<EventBody>), (status = 404, description = "No such profile")))]
pub(super) async fn list_events(
    axum::extract::State(state): State,
    found: Found,
    Query(params): Query<EventParams>,
    page: Page<10, 200>,
) -> Result<Json<List<EventBody>>, Problem> {
    let direction = match params.sort.as_deref() {
        None | Some("" | "desc") => Direction::Descending,
        Some("asc") => Direction::Ascending,
        Some(_) => return Err(Problem::new(Code::BadRequest, "sort must be asc or desc").at("sort")),
    };
    let filter = EventFilter {
        start: time(params.start.as_deref(), "start")?.unwrap_or(Timestamp::EPOCH),
        end: time(params.end.as_deref(), "end")?.unwrap_or(Timestamp::from_millis(i64::MAX)),
        include: words(params.include.as_deref()).map(str::to_owned).collect(),
        exclude: words(params.exclude.as_deref()).map(str::to_owned).collect(),
        direction,
        with_consent: false,
        after: page
            .after::<(i64, u64)>("events")?
            .map(|(at, offset)| TimelineCursor { at: Timestamp::from_millis(at), offset: Offset(offset) }),
    };
    let events = state.reader.list_events(found.space, &found.person, &filter, page.limit + 1).await?;
    let id = found.person.id();
    let is_user = found.person.profile.collection == crate::domain::Collection::Users;
    let key = |e: &TimelineEvent| (e.timestamp.millis(), e.offset.0);
    Ok(Json(page.list("events", events, key, |event| show_event(event, Some((&id, is_user))))))
}

/// An event as it is shown, of a profile (its id, and whether it is a user) or by itself.
pub(in crate::http) fn show_event(event: TimelineEvent, of: Option<(&str, bool)>) -> EventBody {
    let has_traits = matches!(event.event_type, EventType::Identify | EventType::Group);
    let body = Some(&*event.body).filter(|b| !b.is_empty()).and_then(raw);
    let (properties, traits) = if has_traits { (None, body) } else { (body, None) };
    let external_id = |(collection, id_type, id)| ExternalId {
        collection,
        id_type,
        id,
        encoding: "none",
        source_id: None,
        created_at: None,
        first_message_id: None,
    };
    let this = |users: bool| of.filter(|(_, is_user)| *is_user == users).map(|(id, _)| id.to_owned());
    EventBody {
        call: event.event_type.as_str(),
        event: Some(event.name).filter(|n| !n.is_empty()),
        message_id: event.message_id,
        source_id: event.source_id,
        timestamp: event.timestamp.to_string(),
        received_at: event.received_at.to_string(),
        clamped: event.clamped,
        properties,
        traits,
        context: raw(if event.context.is_empty() { "{}" } else { &event.context }),
        external_ids: event.external_ids.into_iter().map(external_id).collect(),
        related: Related { users: this(true), accounts: this(false) },
        offset: event.offset.0,
    }
}

fn time(text: Option<&str>, field: &'static str) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(None) };
    let invalid = || Problem::new(Code::BadRequest, format!("{field} must be an ISO 8601 time")).at(field);
    Timestamp::parse(text).map(Some).ok_or_else(invalid)
}

/// When a profile was made and last seen, and by which messages.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MetadataBody {
    metadata: Metadata,
}

#[derive(Debug, Serialize, ToSchema)]
struct Metadata {
    profile_id: String,
    created_at: String,
    updated_at: String,
    expires_at: Option<String>,
    first_message_id: Option<String>,
    first_source_id: Option<String>,
    last_message_id: Option<String>,
    last_source_id: Option<String>,
}

/// When a profile was made and last seen, and by which messages.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/metadata",
    tag = "Profile API", params(ProfilePath),
    responses((status = 200, body = MetadataBody), (status = 404, description = "No such profile")))]
pub(super) async fn get_metadata(
    axum::extract::State(state): State,
    found: Found,
) -> Result<Json<MetadataBody>, Problem> {
    let (first, last) = state.reader.first_and_last(found.space, &found.person).await?;
    let split = |e: Option<TimelineEvent>| e.map_or((None, None), |e| (Some(e.message_id), e.source_id));
    let ((first_message_id, first_source_id), (last_message_id, last_source_id)) =
        (split(first), split(last));
    Ok(Json(MetadataBody {
        metadata: Metadata {
            profile_id: found.person.id(),
            created_at: found.person.profile.created_at.to_string(),
            updated_at: found.person.profile.last_seen_at.to_string(),
            expires_at: None,
            first_message_id,
            first_source_id,
            last_message_id,
            last_source_id,
        },
    }))
}
