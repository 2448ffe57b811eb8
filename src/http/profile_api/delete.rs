//! Taking an identifier away from a profile by Segment's endpoint and codes, giving it to another one (personas.md 3.8,
//! decision I12), and taking a user out of an account (decision I14).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::acts::{ActParams, EffectJson, identifiers, named, perform};
use super::super::auth::{Authed, Write};
use super::super::extract::{Json, Path, Query};
use super::super::problem::{Code, Problem};
use super::{ProfilePath, State, find};
use crate::domain::act::{ACCOUNT_TYPE, Named};
use crate::domain::identifier::normalise;
use crate::domain::{Act, Collection};
use crate::query::Person;

/// What to delete: exactly one identifier.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct DeleteBody {
    delete_external_ids: Vec<Wanted>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct Wanted {
    id: String,
    #[serde(rename = "type")]
    id_type: String,
}

/// It is done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Deleted {
    code: &'static str,
    message: &'static str,
    /// What it did, or would do.
    effect: EffectJson,
}

/// Takes an identifier away from a profile. Its traits, events and merges stay; a later event may bring it back.
#[utoipa::path(post, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/external_ids/delete",
    tag = "Profile API", params(ProfilePath, ActParams), request_body = DeleteBody,
    responses((status = 200, body = Deleted), (status = 400, description = "It cannot be deleted"),
        (status = 404, description = "No such profile or identifier")))]
pub(super) async fn delete_external_id(
    axum::extract::State(state): State,
    authed: Authed<Write>,
    Path(path): Path<ProfilePath>,
    Query(params): Query<ActParams>,
    Json(body): Json<DeleteBody>,
) -> Result<Json<Deleted>, Problem> {
    let space = authed.space_no();
    let [wanted] = body.delete_external_ids.as_slice() else {
        let message = "delete_external_ids must name exactly one identifier";
        return Err(Problem::new(Code::NotDeletable, message).at("delete_external_ids"));
    };
    let person = find(&state, space, &path).await?;
    if person.profile.collection == Collection::Accounts || wanted.id_type == "group_id" {
        let message = format!("identifiers of type {} cannot be deleted", wanted.id_type);
        return Err(Problem::new(Code::UnsupportedIdentifier, message));
    }
    let Some(Named { id_type, id: value }) = held(&person, &wanted.id_type, &wanted.id) else {
        return Err(Problem::new(Code::IdentifierNotFound, "the profile has no such identifier"));
    };
    if person.profile.owned.get().identifiers.len() == 1 {
        return Err(Problem::new(Code::NotDeletable, "the last identifier of a profile cannot be deleted"));
    }
    let act = Act::DeleteIdentifier { collection: person.profile.collection, id_type, value };
    // Others may have been quicker: then it is the last one by now, or gone.
    let Json(effect) = perform(&state, &authed, act, params).await.map_err(|problem| match problem.code {
        Code::Refused => Problem::new(Code::NotDeletable, problem.detail),
        _ => problem,
    })?;
    Ok(Json(if params.dry_run {
        Deleted { code: "dry_run", message: "External identifier would be deleted.", effect }
    } else {
        Deleted { code: "success", message: "External identifier has been deleted.", effect }
    }))
}

/// An identifier, and who is to have it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MoveBody {
    /// Its type.
    #[serde(rename = "type")]
    id_type: String,
    id: String,
    /// The user that gets it, as `type:value` or `profile_id:prf_…`.
    to: String,
}

/// Gives an identifier of a user to another user. Traits, events and merges stay where they are; events that come with it
/// from now on are the other user's.
#[utoipa::path(post, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/external_ids/move",
    tag = "Profile API", params(ProfilePath, ActParams), request_body = MoveBody,
    responses((status = 200, body = EffectJson), (status = 404, description = "No such profile or identifier"),
        (status = 409, description = "It is the last one of its profile, or the other one would be beyond a limit")))]
pub(super) async fn move_external_id(
    axum::extract::State(state): State,
    authed: Authed<Write>,
    Path(path): Path<ProfilePath>,
    Query(params): Query<ActParams>,
    Json(body): Json<MoveBody>,
) -> Result<Json<EffectJson>, Problem> {
    let person = find(&state, authed.space_no(), &path).await?;
    if person.profile.collection == Collection::Accounts {
        let message = "identifiers of an account cannot be moved: it is what its group_id says";
        return Err(Problem::new(Code::UnsupportedIdentifier, message));
    }
    let held = held(&person, &body.id_type, &body.id);
    let identifier =
        held.ok_or_else(|| Problem::new(Code::IdentifierNotFound, "the profile has no such identifier"))?;
    let to = named(&state, authed.space_no(), &body.to, "to").await?;
    perform(&state, &authed, Act::MoveIdentifier { identifier, to }, params).await
}

/// Which account a user is to leave.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UnlinkBody {
    /// The account's `group_id`.
    group_id: String,
}

/// Takes a user out of an account: it is no longer counted there, and neither are its events, until a group call puts it
/// in again. Its traits and events stay.
#[utoipa::path(post, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/links/delete",
    tag = "Profile API", params(ProfilePath, ActParams), request_body = UnlinkBody,
    responses((status = 200, body = EffectJson), (status = 404, description = "No such user"),
        (status = 409, description = "The user is not in the account")))]
pub(super) async fn unlink(
    axum::extract::State(state): State,
    authed: Authed<Write>,
    Path(path): Path<ProfilePath>,
    Query(params): Query<ActParams>,
    Json(body): Json<UnlinkBody>,
) -> Result<Json<EffectJson>, Problem> {
    let person = find(&state, authed.space_no(), &path).await?;
    if person.profile.collection == Collection::Accounts {
        let message = "name the user in the path and its account in the body";
        return Err(Problem::new(Code::BadRequest, message).at("collection"));
    }
    let known = person.directory.id_type(ACCOUNT_TYPE);
    let account = known.map(|t| normalise(&body.group_id, t.case_insensitive)).unwrap_or_default();
    let user = identifiers(&person).into_iter().next();
    let user = user.ok_or_else(|| Problem::not_found("the user has no identifier"))?;
    perform(&state, &authed, Act::Unlink { user, account }, params).await
}

/// An identifier as the profile holds it.
fn held(person: &Person, id_type: &str, id: &str) -> Option<Named> {
    let known = person.directory.id_type(id_type)?;
    let value = normalise(id, known.case_insensitive);
    let is_it = |held: &&crate::query::Identifier| held.type_no == known.no && held.value == value;
    let held = person.profile.owned.get().identifiers.iter().find(is_it)?;
    Some(Named { id_type: known.name.clone(), id: held.value.clone() })
}
