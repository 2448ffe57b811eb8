//! `/v1/spaces/{space}/identity/settings`: how identifiers are resolved.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::not_null;
use crate::domain::Patch;
use crate::domain::id_type::IdType;
use crate::domain::ids::public_id;
use crate::http::AppState;
use crate::http::auth::{Authed, Read, Write};
use crate::http::extract::{Json, Query};
use crate::http::problem::{Code, Problem};
use crate::manage::identity_settings::{IdentitySettings, SettingsChange, TypeChange, in_order_of_trust};
use crate::manage::identity_trial::{Blocked, Excess, Kind, Trial};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_settings, change_settings)).routes(routes!(import_settings))
}

/// How a space finds out which profile an event belongs to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IdentitySettings)]
struct SettingsJson {
    /// Raised by every change.
    version: i64,
    /// Identifier types, most trusted first: when an event's identifiers do not go together, the least trusted one is set
    /// aside.
    identifiers: Vec<TypeJson>,
    /// Merges a profile takes at most.
    merges_max: i32,
    /// Identifiers a profile takes at most.
    identifiers_max: i32,
    /// A value that was refused to so many profiles is put into quarantine: it is never taken and never matched. 0: none is.
    quarantine_threshold: i32,
    /// Whether a type nobody knows is added, with the defaults, when `externalIds` names it.
    add_unknown_types: bool,
}

/// A type of identifier.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IdentifierType)]
struct TypeJson {
    #[serde(rename = "type")]
    name: String,
    /// Keys it is read from in traits, properties and `context.traits`, in camel case and snake case alike.
    keys: Vec<String>,
    /// Values a profile takes within `frequency`.
    limit: u32,
    /// `daily`, `weekly`, `monthly`, `annually` or `ever`: how long a value counts after it was first seen.
    frequency: &'static str,
    /// 1 is the most trusted; without one, a type comes after all that have one: `user_id`, `email`, then by name.
    priority: Option<i32>,
    /// Whether values are lower-cased.
    case_insensitive: bool,
    blocked: BlockedJson,
}

/// Values that are never taken.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BlockedValues)]
struct BlockedJson {
    /// Compared without case.
    exact: Vec<String>,
    /// Regular expressions (without look-around).
    patterns: Vec<String>,
}

impl From<IdType> for TypeJson {
    fn from(t: IdType) -> Self {
        Self {
            name: t.name,
            keys: t.keys,
            limit: t.limit,
            frequency: t.frequency.as_str(),
            priority: t.priority,
            case_insensitive: t.case_insensitive,
            blocked: BlockedJson { exact: t.blocked_exact, patterns: t.blocked_patterns },
        }
    }
}

impl From<IdentitySettings> for SettingsJson {
    fn from(settings: IdentitySettings) -> Self {
        Self {
            version: settings.version,
            identifiers: in_order_of_trust(settings.types).into_iter().map(TypeJson::from).collect(),
            merges_max: settings.merges_max,
            identifiers_max: settings.identifiers_max,
            quarantine_threshold: settings.quarantine_threshold,
            add_unknown_types: settings.add_unknown_types,
        }
    }
}

/// What is to be changed of the settings; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = IdentitySettingsChange)]
#[serde(deny_unknown_fields)]
struct ChangeJson {
    /// The version the change is made of; with another one present, nothing is changed and the answer is 409.
    #[serde(default, deserialize_with = "not_null")]
    version: Option<i64>,
    /// Types to be changed, or made where they are new. Types that are not named stay.
    #[serde(default)]
    identifiers: Vec<TypeChangeJson>,
    /// Types to be removed; refused while profiles have such identifiers.
    #[serde(default)]
    remove: Vec<String>,
    /// 0 to 10,000.
    #[serde(default, deserialize_with = "not_null")]
    merges_max: Option<i64>,
    /// 1 to 10,000.
    #[serde(default, deserialize_with = "not_null")]
    identifiers_max: Option<i64>,
    /// 0 to 1,000; 0: no value is put into quarantine any more, and those that are in it stay.
    #[serde(default, deserialize_with = "not_null")]
    quarantine_threshold: Option<i64>,
    #[serde(default, deserialize_with = "not_null")]
    add_unknown_types: Option<bool>,
}

/// What is to be changed of a type; what is left out stays, and is the default for a new type.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = IdentifierTypeChange)]
#[serde(deny_unknown_fields)]
struct TypeChangeJson {
    /// `[a-z][a-z0-9_.]{0,63}`
    #[serde(rename = "type")]
    name: String,
    /// At most 10; none for `group_id`.
    #[serde(default, deserialize_with = "not_null")]
    keys: Option<Vec<String>>,
    /// From 1.
    #[serde(default, deserialize_with = "not_null")]
    limit: Option<i64>,
    /// `daily`, `weekly`, `monthly`, `annually` or `ever`.
    #[serde(default, deserialize_with = "not_null")]
    frequency: Option<String>,
    /// From 1, each once; null: the default order.
    #[serde(default)]
    #[schema(value_type = Option<i64>)]
    priority: Patch<i64>,
    /// Whether values are lower-cased from now on; those that profiles have keep their case.
    #[serde(default, deserialize_with = "not_null")]
    case_insensitive: Option<bool>,
    #[serde(default, deserialize_with = "not_null")]
    blocked: Option<BlockedChangeJson>,
}

/// Values that are not to be taken; a list that is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = BlockedValuesChange)]
#[serde(deny_unknown_fields)]
struct BlockedChangeJson {
    /// At most 1,000.
    #[serde(default, deserialize_with = "not_null")]
    exact: Option<Vec<String>>,
    /// At most 10, of 256 characters.
    #[serde(default, deserialize_with = "not_null")]
    patterns: Option<Vec<String>>,
}

impl From<TypeChangeJson> for TypeChange {
    fn from(given: TypeChangeJson) -> Self {
        let BlockedChangeJson { exact, patterns } = given.blocked.unwrap_or_default();
        Self {
            name: given.name,
            keys: given.keys,
            limit: given.limit,
            frequency: given.frequency,
            priority: given.priority,
            case_insensitive: given.case_insensitive,
            blocked_exact: exact,
            blocked_patterns: patterns,
        }
    }
}

impl From<ChangeJson> for SettingsChange {
    fn from(given: ChangeJson) -> Self {
        Self {
            version: given.version,
            identifiers: given.identifiers.into_iter().map(TypeChange::from).collect(),
            remove: given.remove,
            merges_max: given.merges_max,
            identifiers_max: given.identifiers_max,
            quarantine_threshold: given.quarantine_threshold,
            add_unknown_types: given.add_unknown_types,
        }
    }
}

/// Reads a change as requests have it.
pub(crate) fn settings_change(text: &str) -> Result<SettingsChange, serde_json::Error> {
    serde_json::from_str::<ChangeJson>(text).map(SettingsChange::from)
}

/// What a change would mean for the profiles there are. Nothing was changed, and nothing would be of those: settings count
/// for events to come.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IdentitySettingsDryRun)]
struct DryRunJson {
    /// Always true.
    dry_run: bool,
    settings: SettingsJson,
    /// Profiles that have more than the settings would allow. They keep what they have and take no more of it.
    profiles: i64,
    /// Up to 10 of those, the ones furthest above first.
    sample: Vec<ExcessJson>,
    blocked: NewlyBlockedJson,
}

/// A profile that has more than settings allow.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IdentifierExcess)]
struct ExcessJson {
    profile_id: String,
    /// `identifiers` or `merges`: what it has too much of.
    of: &'static str,
    /// The type it has too many values of; null: it has too many of all types together.
    #[serde(rename = "type")]
    name: Option<String>,
    /// How many it has, those left out that are older than the type's window; of merges, how many it has taken.
    values: i64,
    /// How many it may have.
    limit: i64,
}

/// Identifiers that profiles have, and that would be blocked and are not now. They stay where they are; no event would be
/// matched by them any more, and a rebuild would leave them out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NewlyBlockedIdentifiers)]
struct NewlyBlockedJson {
    ids: u64,
    /// Profiles that have one.
    profiles: usize,
    /// Up to 10 of the identifiers.
    sample: Vec<BlockedIdJson>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NewlyBlockedIdentifier)]
struct BlockedIdJson {
    profile_id: String,
    #[serde(rename = "type")]
    name: String,
    id: String,
}

impl From<Trial> for DryRunJson {
    fn from(Trial { settings, profiles, sample, blocked }: Trial) -> Self {
        let name = |no| settings.types.iter().find(|t| t.no == no).map(|t| t.name.clone());
        let excess = |excess: Excess| ExcessJson {
            profile_id: public_id("prf", excess.profile),
            of: match excess.kind {
                Kind::Identifiers => "identifiers",
                Kind::Merges => "merges",
            },
            name: excess.type_no.and_then(name),
            values: excess.values,
            limit: excess.limit,
        };
        let Blocked { ids, profiles: blocked_profiles, sample: blocked } = blocked;
        let id = |(no, id, profile)| BlockedIdJson {
            profile_id: public_id("prf", profile),
            name: name(no).unwrap_or_default(),
            id,
        };
        let blocked = NewlyBlockedJson {
            ids,
            profiles: blocked_profiles,
            sample: blocked.into_iter().map(id).collect(),
        };
        let sample = sample.into_iter().map(excess).collect();
        Self { dry_run: true, sample, profiles, blocked, settings: settings.into() }
    }
}

/// The settings as they are now; of a dry run, what they would mean.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IdentitySettingsAnswer)]
#[serde(untagged)]
enum AnswerJson {
    Changed(SettingsJson),
    Tried(DryRunJson),
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DryRunParams {
    /// Say which profiles would break the new settings, and change nothing. What they would make of all that has happened is
    /// said by `personas rebuild --dry-run --settings`.
    #[serde(default)]
    dry_run: bool,
}

/// The identity settings of a space
#[utoipa::path(get, path = "/v1/spaces/{space}/identity/settings", tag = "Identity",
    operation_id = "get_identity_settings",
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = SettingsJson)))]
async fn get_settings(
    State(app): State<AppState>,
    caller: Authed<Read>,
) -> Result<Json<SettingsJson>, Problem> {
    Ok(Json(app.manage.identity_settings(caller.space_no()).await?.into()))
}

/// Change the identity settings of a space
///
/// What is left out stays. The change counts for all events that come after its answer, and for those before it that were
/// not processed yet; what profiles have stays.
#[utoipa::path(patch, path = "/v1/spaces/{space}/identity/settings", tag = "Identity",
    operation_id = "change_identity_settings", request_body = ChangeJson,
    params(("space" = String, Path, description = "Id of the space"), DryRunParams),
    responses((status = 200, body = AnswerJson),
        (status = 409, description = "Another version is present, profiles have a type that is to be removed, or there are too many types"),
        (status = 422, description = "A value cannot be; nothing was changed")))]
async fn change_settings(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Query(params): Query<DryRunParams>,
    Json(change): Json<ChangeJson>,
) -> Result<Json<AnswerJson>, Problem> {
    change_or_try(&app, &caller, &params, &change.into()).await
}

/// Where settings are to come from.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = IdentitySettingsImport)]
#[serde(deny_unknown_fields)]
struct ImportJson {
    /// Id of another space, which the token may read.
    from_space: String,
    /// The version of this space's settings the import was decided on; with another one present, nothing is changed.
    #[serde(default, deserialize_with = "not_null")]
    version: Option<i64>,
}

/// Bring the identity settings of another space into this one
///
/// Types, caps and the switch become those of the other space; types the other one does not have stay.
#[utoipa::path(post, path = "/v1/spaces/{space}/identity/settings/import", tag = "Identity",
    operation_id = "import_identity_settings", request_body = ImportJson,
    params(("space" = String, Path, description = "Id of the space"), DryRunParams),
    responses((status = 200, body = AnswerJson),
        (status = 404, description = "No such space, or none the token may read")))]
async fn import_settings(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Query(params): Query<DryRunParams>,
    Json(ImportJson { from_space, version }): Json<ImportJson>,
) -> Result<Json<AnswerJson>, Problem> {
    let from = caller.other_space(&app, &from_space).await.map_err(|problem| problem.at("from_space"))?;
    if from == caller.space_no() {
        let message = "from_space is this space itself; name another one";
        return Err(Problem::new(Code::Invalid, message).at("from_space"));
    }
    let change = app.manage.import_of_identity_settings(from).await?;
    change_or_try(&app, &caller, &params, &SettingsChange { version, ..change }).await
}

async fn change_or_try(
    app: &AppState,
    caller: &Authed<Write>,
    params: &DryRunParams,
    change: &SettingsChange,
) -> Result<Json<AnswerJson>, Problem> {
    let space = caller.space_no();
    if params.dry_run {
        caller.note_trial();
        let trial = app.manage.try_identity_settings(space, change).await?;
        return Ok(Json(AnswerJson::Tried(trial.into())));
    }
    let settings = app.manage.change_identity_settings(space, change).await?;
    Ok(Json(AnswerJson::Changed(settings.into())))
}
