//! Lists of profiles.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::auth::{Authed, Read};
use super::super::extract::{Json, Path, Query};
use super::super::page::{List, Page, PageParams};
use super::super::problem::Problem;
use super::{ExternalId, State, collection, external_ids};
use crate::domain::{ProfileNo, Timestamp};
use crate::query::Person;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct CollectionPath {
    /// Id of the space.
    #[serde(rename = "space")]
    _space: String,
    /// `users` or `accounts`.
    collection: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchParams {
    /// Only profiles with an identifier that starts with this text.
    query: Option<String>,
}

/// A profile in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProfileBody {
    profile_id: String,
    created_at: String,
    last_seen_at: String,
    external_ids: Vec<ExternalId>,
}

fn show(person: &Person) -> ProfileBody {
    ProfileBody {
        profile_id: person.id(),
        created_at: person.profile.created_at.to_string(),
        last_seen_at: person.profile.last_seen_at.to_string(),
        external_ids: external_ids(person),
    }
}

/// Profiles of a collection: all, most recently seen first, or those an identifier of which starts with `query`.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles",
    tag = "Profile API", params(CollectionPath, SearchParams, PageParams),
    responses((status = 200, body = List<ProfileBody>)))]
pub(super) async fn list_profiles(
    axum::extract::State(state): State,
    authed: Authed<Read>,
    Path(path): Path<CollectionPath>,
    Query(params): Query<SearchParams>,
    page: Page,
) -> Result<Json<List<ProfileBody>>, Problem> {
    let space = authed.space_no();
    let collection = collection(&path.collection)?;
    let limit = page.limit as i64 + 1;
    if let Some(prefix) = params.query.as_deref().map(str::trim).filter(|q| !q.is_empty()) {
        let after = ProfileNo(page.after::<u64>("profiles_by_prefix")?.unwrap_or(0));
        let people = state.reader.list_by_prefix(space, collection, prefix, after, limit).await?;
        return Ok(Json(page.list("profiles_by_prefix", people, |p| p.profile.no.0, |p| show(&p))));
    }
    let before = page.after::<(i64, u64)>("profiles")?;
    let before = before.map(|(at, no)| (Timestamp::from_millis(at), ProfileNo(no)));
    let people = state.reader.list_recent(space, collection, before, limit).await?;
    let key = |p: &Person| (p.profile.last_seen_at.millis(), p.profile.no.0);
    Ok(Json(page.list("profiles", people, key, |p| show(&p))))
}
