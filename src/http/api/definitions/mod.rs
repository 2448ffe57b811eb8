//! Audiences and computed traits: their JSON, and the calls behind the routes of both.

mod options;
mod preview;
mod routes;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::not_null;
use super::schema::WarningJson;
use crate::domain::ids::public_id;
use crate::domain::{Collection, Patch, SpaceNo};
use crate::http::AppState;
use crate::http::auth::{Authed, Write};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::Json;
use crate::http::page::Page;
use crate::http::problem::{Code, Problem};
use crate::manage::definitions::{Change, Copy, Create, Definition, Kind, Options, References, Version};

use options::{OptionsChange, OptionsJson};
pub(super) use routes::routes;

/// A definition: an audience or a computed trait.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Definition)]
struct DefinitionJson {
    id: String,
    /// Its name on the profile.
    key: String,
    name: String,
    description: String,
    /// What it is used for, in words.
    purpose: Option<String>,
    definition: QueryJson,
    options: OptionsJson,
    /// Who does not consent to `options.consent_category` is no member: the space's setting.
    #[serde(skip_serializing_if = "is_false")]
    consent_enforced: bool,
    enabled: bool,
    /// The newest version.
    version: i32,
    /// The version that answers; none until the first is complete.
    serving_version: Option<i32>,
    status: &'static str,
    /// Why the newest version failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// Members, or profiles that have a value, in the version that answers.
    size: i64,
    created_at: String,
    updated_at: String,
    /// Told when it is made or changed: names of the query that have not been seen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<WarningJson>,
}

/// What is counted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = DefinitionQuery)]
#[serde(deny_unknown_fields)]
struct QueryJson {
    /// `users` or `accounts`.
    #[serde(rename = "type", default = "users")]
    collection: String,
    /// The query's text; none for a list.
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    /// Its members are uploaded to `…/members` instead of following from a query.
    #[serde(default, skip_serializing_if = "is_false")]
    list: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

fn users() -> String {
    "users".to_owned()
}

impl QueryJson {
    /// How the members of a list are kept is nobody's business.
    fn of(collection: Collection, query: String, list: bool) -> Self {
        Self { collection: collection.as_str().to_owned(), query: (!list).then_some(query), list }
    }

    /// The text, where it has to have one.
    fn text(&self) -> Result<&str, Problem> {
        let missing = || Problem::new(Code::Invalid, "missing field `query`").at("definition.query");
        self.query.as_deref().ok_or_else(missing)
    }
}

impl From<Definition> for DefinitionJson {
    fn from(d: Definition) -> Self {
        let is_list = d.is_list();
        Self {
            id: public_id(d.kind.prefix(), d.id),
            status: status(&d),
            version: d.latest.version,
            serving_version: d.serving.as_ref().map(|v| v.version),
            size: d.serving.as_ref().map_or(0, |v| v.size),
            failure: d.latest.failure,
            definition: QueryJson::of(d.collection, d.latest.query, is_list),
            consent_enforced: d.latest.options.gates.enforces_consent,
            options: d.latest.options.into(),
            purpose: d.purpose,
            key: d.key,
            name: d.name,
            description: d.description,
            enabled: d.enabled,
            created_at: d.created_at.to_string(),
            updated_at: d.updated_at.to_string(),
            warnings: Vec::new(),
        }
    }
}

/// `live` only when the newest version is the one that answers.
fn status(definition: &Definition) -> &'static str {
    let serves = definition.serving.as_ref().is_some_and(|v| v.no == definition.latest.no);
    match definition.latest.status.as_str() {
        _ if !definition.enabled => "disabled",
        "failed" => "failed",
        "live" if serves => "live",
        _ => "backfilling",
    }
}

/// A definition to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewDefinition {
    /// Its name on the profile: lower-case letters, digits and `_`.
    key: String,
    /// For people; the key when not given.
    name: Option<String>,
    /// For people.
    #[serde(default)]
    description: String,
    /// What it is used for, in words: at most 2,000 characters.
    purpose: Option<String>,
    definition: QueryJson,
    #[serde(default)]
    options: OptionsJson,
    #[serde(default = "yes")]
    enabled: bool,
}

const fn yes() -> bool {
    true
}

/// What is to be changed; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DefinitionChange {
    #[serde(default, deserialize_with = "not_null")]
    name: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    description: Option<String>,
    /// Null: none.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    purpose: Patch<String>,
    #[serde(default, deserialize_with = "not_null")]
    enabled: Option<bool>,
    /// Another query makes a new version.
    #[serde(default, deserialize_with = "not_null")]
    definition: Option<QueryChange>,
    /// Other options make a new version.
    #[serde(default, deserialize_with = "not_null")]
    options: Option<OptionsChange>,
}

/// Another query.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct QueryChange {
    #[serde(rename = "type", default, deserialize_with = "not_null")]
    collection: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    query: Option<String>,
}

/// A copy to be made of a definition.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DefinitionCopy {
    /// Its own name on the profile: lower-case letters, digits and `_`.
    key: String,
    /// For people; as the first one's when not given.
    #[serde(default, deserialize_with = "not_null")]
    name: Option<String>,
    /// For people; as the first one's when not given.
    #[serde(default, deserialize_with = "not_null")]
    description: Option<String>,
    /// Whether to start at once; yes when not given.
    #[serde(default, deserialize_with = "not_null")]
    enabled: Option<bool>,
}

/// Whether to carry it out.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DryRunParams {
    /// Check everything and change nothing; say how many would enter and leave.
    #[serde(default)]
    dry_run: bool,
}

impl DryRunParams {
    fn note(&self, caller: &Authed<Write>) {
        if self.dry_run {
            caller.note_trial();
        }
    }
}

/// A version of a definition.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DefinitionVersion)]
struct VersionJson {
    version: i32,
    definition: QueryJson,
    options: OptionsJson,
    /// `pending`, `backfilling`, `live`, `superseded`, `failed`.
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    size: i64,
    created_at: String,
}

impl VersionJson {
    fn of(collection: Collection, v: Version) -> Self {
        let is_list = v.is_list();
        Self {
            version: v.version,
            definition: QueryJson::of(collection, v.query, is_list),
            options: v.options.into(),
            status: v.status,
            failure: v.failure,
            size: v.size,
            created_at: v.created_at.to_string(),
        }
    }
}

/// Who refers to a definition, and to whom it refers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DefinitionReferences)]
struct ReferencesJson {
    refers_to: Vec<ReferenceJson>,
    referenced_by: Vec<ReferenceJson>,
}

/// Another definition.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DefinitionReference)]
struct ReferenceJson {
    /// `audience` or `computed_trait`.
    kind: &'static str,
    key: String,
}

impl From<References> for ReferencesJson {
    fn from(references: References) -> Self {
        let show = |all: Vec<(Kind, String)>| {
            all.into_iter().map(|(kind, key)| ReferenceJson { kind: kind_word(kind), key }).collect()
        };
        Self { refers_to: show(references.refers_to), referenced_by: show(references.referenced_by) }
    }
}

/// The kind as the API writes it.
pub(super) const fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Audience => "audience",
        Kind::ComputedTrait => "computed_trait",
    }
}

/// The path below the kind.
#[derive(Debug, Deserialize)]
struct KeyPath {
    key: String,
}

async fn list(
    app: &AppState,
    space: SpaceNo,
    kind: Kind,
    page: &Page,
    known: &IfNoneMatch,
) -> Result<Response, Problem> {
    let name = kind_word(kind);
    let after: Option<String> = page.after(name)?;
    let mut definitions = app.manage.list_definitions(space, kind).await?;
    definitions.retain(|d| after.as_ref().is_none_or(|after| d.key > *after));
    Ok(known.answer(&page.list(name, definitions, |d| d.key.clone(), DefinitionJson::from)))
}

async fn create(
    app: &AppState,
    space: SpaceNo,
    kind: Kind,
    new: NewDefinition,
    params: &DryRunParams,
) -> Result<Response, Problem> {
    if !new.definition.list {
        new.definition.text()?;
    }
    let QueryJson { collection, query, list } = new.definition;
    if list && query.is_some() {
        return Err(Problem::new(Code::Invalid, "a list has no query").at("definition.query"));
    }
    let mut options = Options::from(new.options);
    // Whoever is put onto a list is meant.
    options.include_anonymous |= list;
    let new = Create {
        key: new.key,
        name: new.name,
        description: new.description,
        purpose: new.purpose,
        collection,
        query,
        options,
        enabled: new.enabled,
    };
    if params.dry_run {
        return Ok(Json(preview::dry_run_of_new(app, space, kind, &new).await?).into_response());
    }
    let made = app.manage.create_definition(space, kind, &new).await?;
    Ok((StatusCode::CREATED, Json(with_warnings(app, space, made).await?)).into_response())
}

async fn with_warnings(
    app: &AppState,
    space: SpaceNo,
    definition: Definition,
) -> Result<DefinitionJson, Problem> {
    let (collection, query) = (definition.collection.as_str(), &definition.latest.query);
    // One that an older release took and this one does not has its reason told elsewhere.
    let Ok(plan) = app.manage.compile_definition(space, definition.kind, collection, query).await else {
        return Ok(definition.into());
    };
    let remarks = app.reader.remarks(space, &plan).await?;
    let warnings = remarks.into_iter().map(WarningJson::from).collect();
    Ok(DefinitionJson { warnings, ..definition.into() })
}

async fn copy(
    app: &AppState,
    space: SpaceNo,
    kind: Kind,
    key: &str,
    copy: DefinitionCopy,
) -> Result<(StatusCode, Json<DefinitionJson>), Problem> {
    let DefinitionCopy { key: new, name, description, enabled } = copy;
    let copy = Copy { key: new, name, description, enabled };
    let made = app.manage.clone_definition(space, kind, key, &copy).await?;
    Ok((StatusCode::CREATED, Json(with_warnings(app, space, made).await?)))
}

async fn get(
    app: &AppState,
    space: SpaceNo,
    kind: Kind,
    key: &str,
    known: &IfNoneMatch,
) -> Result<Response, Problem> {
    let found = app.manage.find_definition(space, kind, key).await?;
    Ok(known.answer(&DefinitionJson::from(found)))
}

async fn change(
    app: &AppState,
    space: SpaceNo,
    kind: Kind,
    key: &str,
    change: DefinitionChange,
    params: &DryRunParams,
) -> Result<Response, Problem> {
    let query = change.definition.unwrap_or_default();
    let options = change.options.unwrap_or_default();
    let change = Change {
        name: change.name,
        description: change.description,
        enabled: change.enabled,
        collection: query.collection,
        query: query.query,
        include_anonymous: options.include_anonymous,
        include_history: options.include_historical_data,
        purpose: change.purpose,
        consent_category: options.consent_category,
        requires_human_review: options.requires_human_review,
    };
    if params.dry_run {
        return Ok(Json(preview::dry_run(app, space, kind, key, &change).await?).into_response());
    }
    let changed = app.manage.change_definition(space, kind, key, &change).await?;
    Ok(Json(with_warnings(app, space, changed).await?).into_response())
}

async fn delete(app: &AppState, space: SpaceNo, kind: Kind, key: &str) -> Result<StatusCode, Problem> {
    app.manage.delete_definition(space, kind, key).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn versions(
    app: &AppState,
    space: SpaceNo,
    kind: Kind,
    key: &str,
    page: &Page,
    known: &IfNoneMatch,
) -> Result<Response, Problem> {
    let before: Option<i32> = page.after("versions")?;
    let collection = app.manage.find_definition(space, kind, key).await?.collection;
    let mut versions = app.manage.list_versions(space, kind, key).await?;
    versions.retain(|v| before.is_none_or(|before| v.version < before));
    Ok(known.answer(&page.list("versions", versions, |v| v.version, |v| VersionJson::of(collection, v))))
}

async fn references(
    app: &AppState,
    space: SpaceNo,
    kind: Kind,
    key: &str,
) -> Result<Json<ReferencesJson>, Problem> {
    Ok(Json(app.manage.references(space, kind, key).await?.into()))
}
