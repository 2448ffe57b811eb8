//! Objections of people to decisions that are made about them by machines (GDPR, articles 21 and 22).

use axum::extract::State as Extract;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::acts::{ActParams, EffectJson, identifiers, perform};
use super::super::auth::{Authed, Privacy};
use super::super::extract::{Json, Path, Query};
use super::super::problem::{Code, Problem};
use super::{Found, ProfilePath, State, find};
use crate::domain::act::Named;
use crate::domain::{Act, Collection};
use crate::query::Person;

/// Whether a person objects.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Objections)]
pub(super) struct ObjectionsBody {
    profile_id: String,
    /// While there is an objection, the person is in no audience that requires human review.
    objects: bool,
    /// Those that were not lifted, by id.
    objections: Vec<ObjectionBody>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Objection)]
struct ObjectionBody {
    /// Id of the entry in the log.
    id: String,
    at: String,
}

/// The objections of a person to automated decisions.
#[utoipa::path(get, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/objections",
    tag = "Profile API", params(ProfilePath),
    responses((status = 200, body = ObjectionsBody), (status = 404, description = "No such profile")))]
pub(super) async fn list_objections(found: Found) -> Result<Json<ObjectionsBody>, Problem> {
    refuse_accounts(&found.person)?;
    let objections: Vec<ObjectionBody> = found
        .person
        .objections()
        .map(|(id, write)| ObjectionBody { id: id.to_owned(), at: write.at.to_string() })
        .collect();
    let profile_id = found.person.id();
    Ok(Json(ObjectionsBody { profile_id, objects: !objections.is_empty(), objections }))
}

/// Notes that a person objects to automated decisions: it leaves the audiences that require human review, and enters none,
/// until the objection is lifted. It holds through merges.
#[utoipa::path(post, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/objections", security(("token" = ["privacy"])),
    tag = "Profile API", params(ProfilePath, ActParams),
    responses((status = 200, body = EffectJson), (status = 404, description = "No such profile")))]
pub(super) async fn object(
    Extract(state): State,
    authed: Authed<Privacy>,
    Path(path): Path<ProfilePath>,
    Query(params): Query<ActParams>,
) -> Result<Json<EffectJson>, Problem> {
    let person = find(&state, authed.space_no(), &path).await?;
    perform(&state, &authed, Act::Object { user: user(&person)? }, params).await
}

/// Lifts all objections that a person has now.
#[utoipa::path(post, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/objections/lift", security(("token" = ["privacy"])),
    tag = "Profile API", params(ProfilePath, ActParams),
    responses((status = 200, body = EffectJson), (status = 404, description = "No such profile"),
        (status = 409, description = "There is no objection")))]
pub(super) async fn lift_objections(
    Extract(state): State,
    authed: Authed<Privacy>,
    Path(path): Path<ProfilePath>,
    Query(params): Query<ActParams>,
) -> Result<Json<EffectJson>, Problem> {
    let person = find(&state, authed.space_no(), &path).await?;
    let user = user(&person)?;
    let objections: Vec<String> = person.objections().map(|(id, _)| id.to_owned()).collect();
    if objections.is_empty() {
        return Err(Problem::new(Code::Refused, "the person has no objection"));
    }
    perform(&state, &authed, Act::LiftObjections { user, objections }, params).await
}

fn user(person: &Person) -> Result<Named, Problem> {
    refuse_accounts(person)?;
    identifiers(person).into_iter().next().ok_or_else(|| Problem::not_found("the user has no identifier"))
}

fn refuse_accounts(person: &Person) -> Result<(), Problem> {
    if person.profile.collection == Collection::Users {
        return Ok(());
    }
    Err(Problem::new(Code::BadRequest, "only people object: name a profile of users").at("collection"))
}
