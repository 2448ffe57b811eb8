//! Taking an identifier away from a profile: Segment's endpoint and codes (personas.md 3.8, decisions I12).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::auth::{Authed, Write};
use super::super::extract::{Json, Path};
use super::super::problem::{Code, Problem};
use super::{ProfilePath, State, find};
use crate::domain::identifier::normalise;
use crate::domain::{Act, Collection};
use crate::query::{Person, Selector};

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
}

/// Takes an identifier away from a profile. Its traits, events and merges stay; a later event may bring it back.
#[utoipa::path(post, path = "/v1/spaces/{space}/collections/{collection}/profiles/{profile}/external_ids/delete",
    tag = "Profile API", params(ProfilePath), request_body = DeleteBody,
    responses((status = 200, body = Deleted), (status = 400, description = "It cannot be deleted"),
        (status = 404, description = "No such profile or identifier")))]
pub(super) async fn delete_external_id(
    axum::extract::State(state): State,
    authed: Authed<Write>,
    Path(path): Path<ProfilePath>,
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
    let known = person.directory.id_type(&wanted.id_type);
    let value = known.map(|t| normalise(&wanted.id, t.case_insensitive)).unwrap_or_default();
    let held = |h: &crate::query::Identifier| known.is_some_and(|t| t.no == h.type_no) && h.value == value;
    if !person.profile.owned.get().identifiers.iter().any(held) {
        return Err(Problem::new(Code::IdentifierNotFound, "the profile has no such identifier"));
    }
    if person.profile.owned.get().identifiers.len() == 1 {
        return Err(Problem::new(Code::NotDeletable, "the last identifier of a profile cannot be deleted"));
    }
    let (collection, id) = (person.profile.collection, person.profile.id);
    let act = Act::DeleteIdentifier { collection, id_type: wanted.id_type.clone(), value: value.clone() };
    let offset = state.ingest.append_act(space, &act).await?;
    state.reader.wait_for(space, offset).await?;
    // Others may have been quicker: the act leaves a profile its last identifier.
    let now = state.reader.find_profile(space, collection, &Selector::Id(id)).await?;
    let is_left =
        |person: Person| matches!(person.profile.owned.get().identifiers.as_slice(), [last] if held(last));
    if now.is_some_and(is_left) {
        return Err(Problem::new(Code::NotDeletable, "it is the last identifier of its profile by now"));
    }
    Ok(Json(Deleted { code: "success", message: "External identifier has been deleted." }))
}
