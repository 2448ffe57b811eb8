//! Lists of profiles: the most recently seen, by the start of an identifier, by the value of a trait.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::auth::{Authed, Read};
use super::super::extract::{Json, Path, Query};
use super::super::page::{Cursor, List, Page, PageParams};
use super::super::problem::{Code, Problem};
use super::{ExternalId, State, collection, external_ids};
use crate::domain::{Collection, ProfileNo, SpaceNo};
use crate::query::{Kind, Person, Recent, RecentAfter, SEARCH_BYTES_MAX, Searchability, StartAfter, Wanted};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct CollectionPath {
    /// Id of the space.
    #[serde(rename = "space")]
    space: String,
    /// `users` or `accounts`.
    collection: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchParams {
    /// Only profiles with an identifier that starts with this text.
    query: Option<String>,
    /// Only profiles whose trait of this name has the `value`; it has to be one of `GET /v1/spaces/{space}/search/settings`.
    #[serde(rename = "trait")]
    name: Option<String>,
    /// The value of the trait: strings are compared without case, numbers by what they are worth (`42` finds `42.0`), `true`
    /// and `false` by their names. At most 255 bytes; lists and objects are not found.
    value: Option<String>,
}

/// A profile in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProfileBody {
    profile_id: String,
    created_at: String,
    last_seen_at: String,
    external_ids: Vec<ExternalId>,
}

/// A page of profiles.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProfileList {
    data: Vec<ProfileBody>,
    cursor: Cursor,
    /// Of a search by a trait: false while the trait is being filled in over the profiles there are, so that some may be
    /// missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
}

impl From<List<ProfileBody>> for ProfileList {
    fn from(List { data, cursor }: List<ProfileBody>) -> Self {
        Self { data, cursor, complete: None }
    }
}

fn show(person: &Person) -> ProfileBody {
    ProfileBody {
        profile_id: person.id(),
        created_at: person.profile.created_at.to_string(),
        last_seen_at: person.profile.last_seen_at.to_string(),
        external_ids: external_ids(person),
    }
}

/// Profiles of a collection: all, most recently seen first; those an identifier of which starts with `query`, by that
/// identifier; or those whose `trait` has the `value`, the oldest first. Of more than 5,000 profiles that were last seen in
/// the same ten minutes, the youngest come first.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles",
    tag = "Profile API", params(CollectionPath, SearchParams, PageParams),
    responses((status = 200, body = ProfileList),
        (status = 400, description = "Profiles cannot be searched by that trait, or the parameters do not go together")))]
pub(super) async fn list_profiles(
    axum::extract::State(state): State,
    authed: Authed<Read>,
    Path(path): Path<CollectionPath>,
    Query(params): Query<SearchParams>,
    page: Page,
) -> Result<Json<ProfileList>, Problem> {
    let space = authed.space_no();
    let collection = collection(&path.collection)?;
    let limit = page.limit + 1;
    let prefix = params.query.as_deref().map(str::trim).filter(|q| !q.is_empty());
    match (prefix, params.name.as_deref(), params.value.as_deref()) {
        (None, None, None) => {
            let after = page.after::<RecentAfter>("profiles")?;
            let found = state.reader.list_recent(space, collection, after, limit as i64).await?;
            Ok(Json(page.list("profiles", found, Recent::after, |f| show(&f.person)).into()))
        }
        (Some(prefix), None, None) => {
            let after = page.after::<StartAfter>("profiles_by_prefix")?;
            let found = state.reader.list_by_start(space, collection, prefix, after, limit).await?;
            let found = found.ok_or_else(|| {
                let message = "the profile this page would begin behind is gone or has lost the identifier it was found by; \
                               begin the list again";
                Problem::new(Code::InvalidCursor, message).at("cursor")
            })?;
            let list = page.list("profiles_by_prefix", found, |f| f.after, |f| show(&f.person));
            Ok(Json(list.into()))
        }
        (None, Some(name), Some(value)) => {
            by_trait(&state, (space, &path.space), collection, (name, value), &page).await
        }
        (Some(_), _, _) => {
            let message = "query looks at identifiers and trait at a trait: ask for one of them";
            Err(Problem::new(Code::BadRequest, message).at("query"))
        }
        (None, name, _) => {
            let missing = if name.is_none() { "trait" } else { "value" };
            let message = "a search by a trait takes both: its name as trait, and its value";
            Err(Problem::new(Code::BadRequest, message).at(missing))
        }
    }
}

async fn by_trait(
    state: &super::super::Services,
    (space, space_key): (SpaceNo, &str),
    collection: Collection,
    (name, value): (&str, &str),
    page: &Page,
) -> Result<Json<ProfileList>, Problem> {
    let refuse = |at: &'static str, message: String| Problem::new(Code::BadRequest, message).at(at);
    if value.len() > SEARCH_BYTES_MAX {
        let message = format!(
            "the value has {} bytes; values of more than {SEARCH_BYTES_MAX} are not found",
            value.len()
        );
        return Err(refuse("value", message));
    }
    let (no, complete) = match state.reader.searchability(space, name).await? {
        Searchability::Yes { no, complete } => (no, complete),
        Searchability::No => {
            let message = format!(
                "profiles cannot be searched by the trait {name:?}; add it to `traits` by PATCH /v1/spaces/{space_key}/search/settings"
            );
            return Err(refuse("trait", message));
        }
        Searchability::Computed(Kind::Audience) => {
            let message = format!(
                "{name} is an audience: GET /v1/spaces/{space_key}/audiences/{name}/members lists its members"
            );
            return Err(refuse("trait", message));
        }
        Searchability::Computed(Kind::ComputedTrait) => {
            let message = format!(
                "{name} is a computed trait, which profiles are not searched by: make an audience of trait('{name}') = … and list its members"
            );
            return Err(refuse("trait", message));
        }
    };
    let after = ProfileNo(page.after::<u64>("profiles_by_trait")?.unwrap_or(0));
    let wanted = Wanted { name, no, value };
    let found = state.reader.list_by_trait(space, collection, wanted, after, page.limit + 1).await?;
    let list = page.list("profiles_by_trait", found, |p| p.profile.no.0, |p| show(&p));
    Ok(Json(ProfileList { complete: Some(complete), ..list.into() }))
}
