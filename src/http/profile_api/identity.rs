//! Who a profile is: identifiers, links, audiences, merges and refusals.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::extract::{Json, Query};
use super::super::page::{List, Page, PageParams};
use super::super::problem::Problem;
use super::{ExternalId, Found, ProfilePath, State, external_ids, words};
use crate::domain::ProfileNo;
use crate::domain::ids::public_id;
use crate::query::LinkedProfile;

/// Refusals an answer shows at most.
const REFUSALS_MAX: i64 = 100;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TypeParams {
    /// Only identifiers of these types, comma-separated.
    include: Option<String>,
}

/// Identifiers of a profile, in the order they came.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/external_ids",
    tag = "Profile API", params(ProfilePath, TypeParams, PageParams),
    responses((status = 200, body = List<ExternalId>), (status = 404, description = "No such profile")))]
pub(super) async fn list_external_ids(
    found: Found,
    Query(params): Query<TypeParams>,
    page: Page<10, 200>,
) -> Result<Json<List<ExternalId>>, Problem> {
    let include: Vec<&str> = words(params.include.as_deref()).collect();
    let after = page.after::<usize>("external_ids")?.unwrap_or(0);
    let wanted = |id: &ExternalId| include.is_empty() || include.contains(&id.id_type.as_str());
    let ids = external_ids(&found.person).into_iter().filter(wanted).enumerate().skip(after);
    let rows: Vec<(usize, ExternalId)> = ids.take(page.limit + 1).collect();
    Ok(Json(page.list("external_ids", rows, |(place, _)| place + 1, |(_, id)| id)))
}

/// A linked profile.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LinkBody {
    to_collection: &'static str,
    profile_id: String,
    created_at: String,
    external_ids: Vec<ExternalId>,
}

/// Accounts of a user, or users of an account.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/links",
    tag = "Profile API", params(ProfilePath, PageParams),
    responses((status = 200, body = List<LinkBody>), (status = 404, description = "No such profile")))]
pub(super) async fn list_links(
    axum::extract::State(state): State,
    found: Found,
    page: Page<20, 200>,
) -> Result<Json<List<LinkBody>>, Problem> {
    let after = ProfileNo(page.after::<u64>("links")?.unwrap_or(0));
    let limit = page.limit as i64 + 1;
    let links = state.reader.list_linked(found.space, &found.person, after, limit).await?;
    let show = |link: LinkedProfile| LinkBody {
        to_collection: link.person.profile.collection.as_str(),
        profile_id: link.person.id(),
        created_at: link.created_at.to_string(),
        external_ids: external_ids(&link.person),
    };
    Ok(Json(page.list("links", links, |link| link.person.profile.no.0, show)))
}

/// An audience the profile is in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MembershipBody {
    key: String,
    entered_at: String,
    /// What the audience is used for.
    purpose: Option<String>,
    /// Membership is a suggestion: what follows from it is decided by a person.
    requires_human_review: bool,
}

/// Audiences the profile is in, by key.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/audiences",
    tag = "Profile API", params(ProfilePath, PageParams),
    responses((status = 200, body = List<MembershipBody>), (status = 404, description = "No such profile")))]
pub(super) async fn list_profile_audiences(
    found: Found,
    page: Page,
) -> Result<Json<List<MembershipBody>>, Problem> {
    let after: Option<String> = page.after("audiences")?;
    let behind = |key: &String| after.as_ref().is_none_or(|after| key > after);
    let rows: Vec<_> =
        found.person.audiences().into_iter().filter(|a| behind(&a.key)).take(page.limit + 1).collect();
    let show = |a: crate::query::Computed| MembershipBody {
        key: a.key,
        entered_at: a.since.to_string(),
        purpose: a.purpose,
        requires_human_review: a.requires_human_review,
    };
    Ok(Json(page.list("audiences", rows, |a| a.key.clone(), show)))
}

/// How a profile came to be who it is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IdentityBody {
    profile_id: String,
    /// Ids the profile had before merges; they resolve for ever.
    former_ids: Vec<String>,
    identifiers: Vec<IdentifierBody>,
    /// Also those that were taken back.
    merges: Vec<MergeBody>,
    /// Profiles that events do not make one with this one.
    kept_apart: Vec<ApartBody>,
    refusals: Vec<RefusalBody>,
}

#[derive(Debug, Serialize, ToSchema)]
struct IdentifierBody {
    #[serde(flatten)]
    known: ExternalId,
    /// Time of the newest event that has it; null where none of the profile's newest 200 events does.
    last_seen_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct MergeBody {
    id: String,
    at: String,
    offset: u64,
    message_id: String,
    survivor: Option<String>,
    absorbed: Option<String>,
    /// The identifiers that matched: `[{"type","id"}]`.
    #[schema(value_type = Vec<Object>)]
    matched: serde_json::Value,
    /// An operator made it, not an event.
    manual: bool,
    /// When it was taken back; absent while it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    undone_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ApartBody {
    profile_id: String,
    /// Only what had made the merge that was taken back does not make it again; else nothing does.
    same_identifiers: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct RefusalBody {
    rule: String,
    #[serde(rename = "type")]
    id_type: String,
    id: String,
    occurrences: i64,
    message_id: String,
    first_at: String,
    last_at: String,
}

/// Identifiers, merges and refusals of a profile.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/identity",
    tag = "Profile API", params(ProfilePath),
    responses((status = 200, body = IdentityBody), (status = 404, description = "No such profile")))]
pub(super) async fn get_identity(
    axum::extract::State(state): State,
    found: Found,
) -> Result<Json<IdentityBody>, Problem> {
    let person = &found.person;
    let (merges, ids) = state.reader.list_merges(found.space, person).await?;
    let apart = state.reader.list_apart(found.space, person).await?;
    let refusals = state.reader.list_refusals(found.space, person, REFUSALS_MAX).await?;
    let seen = state.reader.last_seen(found.space, person).await?;
    let identifiers = external_ids(person).into_iter().map(|known| {
        let last = seen.get(&(known.id_type.clone(), known.id.clone()));
        IdentifierBody { last_seen_at: last.map(ToString::to_string), known }
    });
    let id = |no: &ProfileNo| ids.get(no).map(|id| public_id("prf", *id));
    let merges = merges.into_iter().map(|m| MergeBody {
        id: public_id("mrg", m.id),
        at: m.at.to_string(),
        offset: m.offset.0,
        message_id: m.message_id,
        survivor: id(&m.survivor),
        absorbed: id(&m.absorbed),
        matched: m.matched,
        manual: m.manual,
        undone_at: m.undone_at.map(|at| at.to_string()),
    });
    let kept_apart = apart.iter().map(|(apart, id)| {
        let (profile_id, same_identifiers) = (public_id("prf", *id), !apart.keys.is_empty());
        ApartBody { profile_id, same_identifiers }
    });
    let refusals = refusals.into_iter().map(|r| RefusalBody {
        rule: r.rule,
        id_type: r.id_type,
        id: r.value,
        occurrences: r.occurrences,
        message_id: r.message_id,
        first_at: r.first_at.to_string(),
        last_at: r.last_at.to_string(),
    });
    Ok(Json(IdentityBody {
        profile_id: person.id(),
        former_ids: person.profile.kin.get().former.iter().filter_map(id).collect(),
        identifiers: identifiers.collect(),
        merges: merges.collect(),
        kept_apart: kept_apart.collect(),
        refusals: refusals.collect(),
    }))
}
