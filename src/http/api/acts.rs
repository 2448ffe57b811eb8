//! `/v1/spaces/{space}/identity/…`: merging, taking merges back, keeping profiles apart.

use axum::extract::State;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::path_id;
use crate::domain::act::Named;
use crate::domain::{Act, Collection, SpaceNo};
use crate::http::AppState;
use crate::http::acts::{ActParams, EffectJson, identifiers, named, perform};
use crate::http::auth::{Authed, Write};
use crate::http::extract::{Json, Path, Query};
use crate::http::problem::{Code, Problem};

/// Profiles one merge takes at most.
const MERGED_MAX: usize = 100;
/// Identifiers of the absorbed side that an un-merge names: any one of them finds the profile again.
const NAMED_MAX: usize = 20;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(merge_profiles))
        .routes(routes!(undo_merge))
        .routes(routes!(block_merge))
        .routes(routes!(allow_merge))
}

/// Which users are to become one.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ProfilesMerge)]
#[serde(deny_unknown_fields)]
struct MergeJson {
    /// 2 to 100 users, each as `type:value` or `profile_id:prf_…`.
    profiles: Vec<String>,
    /// Also where the profile would have more identifiers of a type, or merges, than it may.
    #[serde(default)]
    override_limits: bool,
}

/// Make one profile of several users
///
/// The one that was made first stays, as with merges that events make. The merge can be undone.
#[utoipa::path(post, path = "/v1/spaces/{space}/identity/merges", tag = "Identity",
    operation_id = "merge_profiles", request_body = MergeJson,
    params(("space" = String, Path, description = "Id of the space"), ActParams),
    responses((status = 200, body = EffectJson), (status = 404, description = "No such profile"),
        (status = 409, description = "They are one already, or would be beyond a limit")))]
async fn merge_profiles(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Query(params): Query<ActParams>,
    Json(MergeJson { profiles, override_limits }): Json<MergeJson>,
) -> Result<Json<EffectJson>, Problem> {
    if !(2..=MERGED_MAX).contains(&profiles.len()) {
        let message = format!("profiles names {}; it must name 2 to {MERGED_MAX}", profiles.len());
        return Err(Problem::new(Code::Invalid, message).at("profiles"));
    }
    let mut ids = Vec::with_capacity(profiles.len());
    for (place, word) in profiles.iter().enumerate() {
        ids.push(named(&app, caller.space_no(), word, &format!("profiles[{place}]")).await?);
    }
    perform(&app, &caller, Act::MergeProfiles { ids, force: override_limits }, params).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct MergePath {
    /// Id of the space.
    #[serde(rename = "space")]
    _space: String,
    /// Id of the merge, `mrg_…`, as the identity of a profile lists it.
    merge: String,
}

/// Take a merge back
///
/// Identifiers go back to the side that brought them, events to the side that has their identifiers; traits, states and
/// memberships of both are made anew from their events. The same identifiers do not make the merge again. Both sides have
/// the ids they had before.
#[utoipa::path(post, path = "/v1/spaces/{space}/identity/merges/{merge}/undo", tag = "Identity",
    operation_id = "undo_merge", params(MergePath, ActParams),
    responses((status = 200, body = EffectJson), (status = 404, description = "No such merge"),
        (status = 409, description = "It was taken back already, or events are kept no longer")))]
async fn undo_merge(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<MergePath>,
    Query(params): Query<ActParams>,
) -> Result<Json<EffectJson>, Problem> {
    let id = path_id("mrg", "merge", &path.merge)?;
    let space = caller.space_no();
    let merge = app.manage.find_merge(space, id).await?;
    let merge = merge.ok_or_else(|| Problem::not_found(format!("there is no merge {}", path.merge)))?;
    if let Some(at) = merge.undone_at {
        return Err(Problem::new(Code::Refused, format!("the merge was taken back at {at}")));
    }
    let person = app.reader.find_by_number(space, merge.absorbed).await?;
    let person =
        person.ok_or_else(|| Problem::not_found("the profile of the merge is not there any more"))?;
    if person.profile.collection == Collection::Accounts {
        let message = "merges of accounts cannot be taken back: an account is what its group_id says";
        return Err(Problem::new(Code::Refused, message));
    }
    let held = &person.profile.owned.get().identifiers;
    let all = identifiers(&person);
    let brought = all.iter().zip(held).filter(|(_, held)| held.brought_by == merge.absorbed);
    let mut ids: Vec<Named> = brought.map(|(named, _)| named.clone()).take(NAMED_MAX).collect();
    if ids.is_empty() {
        ids = all.into_iter().take(NAMED_MAX).collect();
    }
    perform(&app, &caller, Act::UndoMerge { merge: id, offset: merge.offset, ids }, params).await
}

/// Two users.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ProfilePair)]
#[serde(deny_unknown_fields)]
struct PairJson {
    /// Each as `type:value` or `profile_id:prf_…`.
    profiles: [String; 2],
}

async fn pair(app: &AppState, space: SpaceNo, pair: &PairJson) -> Result<[Named; 2], Problem> {
    let [one, other] = &pair.profiles;
    Ok([named(app, space, one, "profiles[0]").await?, named(app, space, other, "profiles[1]").await?])
}

/// Keep two users apart
///
/// No event makes one of them any more, whatever identifiers it has: the least trusted ones are set aside.
#[utoipa::path(post, path = "/v1/spaces/{space}/identity/blocks", tag = "Identity",
    operation_id = "block_merge", request_body = PairJson,
    params(("space" = String, Path, description = "Id of the space"), ActParams),
    responses((status = 200, body = EffectJson), (status = 404, description = "No such profile"),
        (status = 409, description = "They are one profile")))]
async fn block_merge(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Query(params): Query<ActParams>,
    Json(body): Json<PairJson>,
) -> Result<Json<EffectJson>, Problem> {
    let ids = pair(&app, caller.space_no(), &body).await?;
    perform(&app, &caller, Act::BlockMerge { ids }, params).await
}

/// Keep two users apart no longer
///
/// Also after a merge of them was taken back. Nothing is merged by this: later events may do it.
#[utoipa::path(post, path = "/v1/spaces/{space}/identity/blocks/lift", tag = "Identity",
    operation_id = "allow_merge", request_body = PairJson,
    params(("space" = String, Path, description = "Id of the space"), ActParams),
    responses((status = 200, body = EffectJson), (status = 404, description = "No such profile"),
        (status = 409, description = "Nothing keeps them apart")))]
async fn allow_merge(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Query(params): Query<ActParams>,
    Json(body): Json<PairJson>,
) -> Result<Json<EffectJson>, Problem> {
    let ids = pair(&app, caller.space_no(), &body).await?;
    perform(&app, &caller, Act::AllowMerge { ids }, params).await
}
