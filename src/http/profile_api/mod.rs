//! The Profile API: Segment's paths and shapes, and what it lacks (identity, audiences, search, all events).

mod audiences;
mod consent;
mod delete;
mod events;
mod explain;
mod identity;
mod list;
mod lists;
mod members;
mod objections;
mod sizes;
mod traits;

pub(super) use events::{EventBody, show_event};

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::auth::{Authed, Read};
use super::extract::Path;
use super::problem::{Code, Problem};
use super::trace::Trace;
use crate::domain::{Collection, SpaceNo};
use crate::query::{Identifier, Person, QueryError, Selector, WaitError};

/// The routes of the Profile API.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list::list_profiles))
        .routes(routes!(traits::get_traits))
        .routes(routes!(identity::list_external_ids))
        .routes(routes!(events::list_events))
        .routes(routes!(events::get_metadata))
        .routes(routes!(identity::list_links))
        .routes(routes!(identity::list_profile_audiences))
        .routes(routes!(identity::get_identity))
        .routes(routes!(explain::explain))
        .routes(routes!(objections::list_objections, objections::object))
        .routes(routes!(objections::lift_objections))
        .routes(routes!(consent::get_consent))
        .routes(routes!(consent::list_consent_history))
        .routes(routes!(delete::delete_external_id))
        .routes(routes!(delete::move_external_id))
        .routes(routes!(delete::unlink))
}

/// What dashboards poll: sizes, members, transitions, values.
pub(super) fn audience_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(audiences::list_sizes))
        .routes(routes!(audiences::get_size))
        .routes(routes!(audiences::list_members))
        .routes(routes!(lists::upload_members))
        .routes(routes!(members::get_overlap))
        .routes(routes!(members::get_identifier_breakdown))
        .routes(routes!(members::check_memberships))
        .routes(routes!(sizes::get_size_history))
        .routes(routes!(audiences::list_transitions))
        .routes(routes!(audiences::list_values))
}

impl From<WaitError> for Problem {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TooLong { .. } => Self::new(Code::NotSettled, error.to_string()).at("min_offset"),
            WaitError::Query(error) => error.into(),
        }
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Store(error) => error.into(),
            QueryError::Stopping => Self::new(Code::Unavailable, "the server is stopping"),
            QueryError::Row(error) => {
                tracing::error!(%error, "a row could not be written: {error}");
                Self::new(Code::Internal, "a row could not be written")
            }
            QueryError::Decode(error) => {
                tracing::error!(%error, "a stored profile could not be read: {error}");
                Self::new(Code::Internal, "a stored profile could not be read")
            }
        }
    }
}

/// A profile named by the path, read after waiting.
#[derive(Debug)]
pub(super) struct Found {
    space: SpaceNo,
    person: Person,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ProfilePath {
    /// Id of the space.
    #[serde(rename = "space")]
    _space: String,
    /// `users` or `accounts`.
    collection: String,
    /// `type:value` of any identifier the profile has or had, or `profile_id:prf_…`.
    profile: String,
}

impl FromRequestParts<AppState> for Found {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let space = Authed::<Read>::from_request_parts(parts, state).await?.space_no();
        let Path(path): Path<ProfilePath> = Path::from_request_parts(parts, state).await?;
        let person = find(state, space, &path).await?;
        if let Some(trace) = parts.extensions.get::<Trace>() {
            trace.note(|notes| notes.profiles.push(person.id()));
        }
        Ok(Self { space, person })
    }
}

/// The profile named by a path.
async fn find(state: &AppState, space: SpaceNo, path: &ProfilePath) -> Result<Person, Problem> {
    let collection = collection(&path.collection)?;
    let selector = Selector::parse(&path.profile).ok_or_else(|| {
        let message = "name the profile as type:value, such as user_id:u1, or profile_id:prf_…";
        Problem::new(Code::BadRequest, message).at("profile")
    })?;
    let person = state.reader.find_profile(space, collection, &selector).await?;
    person.ok_or_else(|| Problem::not_found("Profile was not found."))
}

fn collection(word: &str) -> Result<Collection, Problem> {
    Collection::parse(word).ok_or_else(|| {
        Problem::new(Code::BadRequest, "parameter `collection` must be users or accounts").at("collection")
    })
}

/// A comma list of a parameter; empty entries are left out.
fn words(list: Option<&str>) -> impl Iterator<Item = &str> {
    list.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// Stored JSON, written as it is.
fn raw(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).ok()
}

/// An identifier as Segment shows one.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ExternalId {
    collection: &'static str,
    #[serde(rename = "type")]
    id_type: String,
    id: String,
    encoding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_message_id: Option<String>,
}

fn external_ids(person: &Person) -> Vec<ExternalId> {
    let collection = person.profile.collection.as_str();
    let show = |held: &Identifier| ExternalId {
        collection,
        id_type: person.directory.type_name(held.type_no).to_owned(),
        id: held.value.clone(),
        encoding: "none",
        source_id: person.directory.source_id(held.source),
        created_at: Some(held.first_seen.to_string()),
        first_message_id: Some(held.message_id.clone()),
    };
    person.profile.owned.get().identifiers.iter().map(show).collect()
}

/// What the handlers of this room answer with, sharing one state.
type State = axum::extract::State<Arc<super::Services>>;
