//! Operators' acts over HTTP: tried first, so that what cannot be is said before anything happens, then written into the
//! log, and answered with what came of it.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::{Authed, Permission};
use super::extract::Json;
use super::problem::{Code, Problem};
use crate::domain::act::{Actor, Effect, Named, Signed};
use crate::domain::ids::public_id;
use crate::domain::{Act, Collection, Offset, SpaceNo};
use crate::manage::registry::Token;
use crate::query::{Person, Selector};

/// How an act is to be done.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ActParams {
    /// Say what would happen, and change nothing.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// Do it although events of the profile are kept no longer and what they left would be lost.
    #[serde(default)]
    pub(super) accept_loss: bool,
}

/// What an act did, or would do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ActEffect)]
pub(super) struct EffectJson {
    /// Nothing was done: this is what would happen.
    dry_run: bool,
    /// Its place in the log, which is its name in the audit log, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// Profiles it changes: `{"profile_id","change"}` with `changed`, `absorbed` or `separated`.
    #[schema(value_type = Vec<Object>)]
    profiles: serde_json::Value,
    /// Identifiers that go from one profile to another or to nobody: `{"type","id","from","to"}`.
    #[schema(value_type = Vec<Object>)]
    identifiers: serde_json::Value,
    /// Events that belong to another profile then.
    events_moved: u64,
    /// Events that are kept no longer: what they left is lost where a profile is made anew.
    events_gone: u64,
    /// Who enters and leaves which audiences: `{"audience","profile_id","transition"}`.
    #[schema(value_type = Vec<Object>)]
    transitions: serde_json::Value,
}

impl EffectJson {
    fn of(effect: Effect, offset: Option<u64>) -> Self {
        let json = |value: serde_json::Result<serde_json::Value>| value.unwrap_or_default();
        Self {
            dry_run: offset.is_none(),
            offset,
            profiles: json(serde_json::to_value(effect.profiles)),
            identifiers: json(serde_json::to_value(effect.identifiers)),
            events_moved: effect.events_moved,
            events_gone: effect.events_gone,
            transitions: json(serde_json::to_value(effect.transitions)),
        }
    }
}

/// Who does it, as the log has it.
pub(super) fn signed(act: Act, by: &Token) -> Signed {
    Signed { act, by: Actor { id: public_id("tok", by.id), name: by.name.clone() } }
}

/// Does an act, or says what it would do.
pub(super) async fn perform<P: Permission>(
    state: &AppState,
    authed: &Authed<P>,
    act: Act,
    params: ActParams,
) -> Result<Json<EffectJson>, Problem> {
    let space = authed.space_no();
    if params.dry_run {
        authed.note_trial();
    }
    let effect = state.manage.try_act(space, &act).await?;
    if let Some(why) = effect.refused {
        return Err(Problem::new(Code::Refused, why));
    }
    if params.dry_run {
        return Ok(Json(EffectJson::of(effect, None)));
    }
    if effect.events_gone > 0 && !params.accept_loss {
        let message = format!(
            "{} events of the profile are kept no longer, and what they left would be lost; send accept_loss=true to do it all the same",
            effect.events_gone
        );
        return Err(Problem::new(Code::Refused, message).at("accept_loss"));
    }
    let (offset, effect) = append(state, space, &signed(act, &authed.token)).await?;
    Ok(Json(EffectJson::of(effect, Some(offset.0))))
}

/// Writes an act into the log, and waits for what becomes of it. What is refused by then is refused because others were
/// quicker.
pub(super) async fn append(
    state: &AppState,
    space: SpaceNo,
    act: &Signed,
) -> Result<(Offset, Effect), Problem> {
    let offset = state.ingest.append_act(space, act).await?;
    let pending = |why: &str| {
        let message = format!(
            "the act is in the log at offset {offset} and is not done yet ({why}): do not send it again, look at the audit log"
        );
        Problem::new(Code::NotSettled, message)
    };
    state.reader.wait_for(space, offset).await.map_err(|error| pending(&error.to_string()))?;
    let done = state.manage.find_act(space, offset).await?;
    let effect = done.ok_or_else(|| pending("an older version of this service passed it over"))?.effect;
    match effect.refused {
        Some(why) => Err(Problem::new(Code::Refused, why)),
        None => Ok((offset, effect)),
    }
}

/// An identifier of a user that is named as `type:value` or `profile_id:prf_…`.
pub(super) async fn named(
    state: &AppState,
    space: SpaceNo,
    word: &str,
    field: &str,
) -> Result<Named, Problem> {
    let selector = Selector::parse(word).ok_or_else(|| {
        let message =
            format!("{word:?} names no profile; write type:value, such as user_id:u1, or profile_id:prf_…");
        Problem::new(Code::Invalid, message).at(field.to_owned())
    })?;
    let person = state.reader.find_profile(space, Collection::Users, &selector).await?;
    let missing = || Problem::not_found(format!("there is no user {selector}")).at(field.to_owned());
    identifiers(&person.ok_or_else(missing)?).into_iter().next().ok_or_else(missing)
}

/// The identifiers of a person, in the order they came.
pub(super) fn identifiers(person: &Person) -> Vec<Named> {
    let held = &person.profile.owned.get().identifiers;
    let named = |held: &crate::query::Identifier| Named {
        id_type: person.directory.type_name(held.type_no).to_owned(),
        id: held.value.clone(),
    };
    held.iter().map(named).collect()
}
