//! `/v1/spaces/{space}/consent`: what people are asked to consent to.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::not_null;
use crate::domain::ids::{parse_public_id, public_id};
use crate::http::AppState;
use crate::http::auth::{Admin, Authed, Read};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::{Json, Path};
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::{Code, Problem};
use crate::manage::consents::{Category, CategoryChange};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_settings, change_settings))
        .routes(routes!(list_categories, create_category))
        .routes(routes!(get_category, change_category, delete_category))
}

/// What follows from consent, besides what destinations are told.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ConsentSettings)]
#[serde(deny_unknown_fields)]
struct SettingsJson {
    /// Audiences leave out who does not consent to their `consent_category`.
    membership: bool,
}

/// What follows from consent
#[utoipa::path(get, path = "/v1/spaces/{space}/consent/settings", tag = "Privacy",
    operation_id = "get_consent_settings",
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = SettingsJson)))]
async fn get_settings(
    State(app): State<AppState>,
    caller: Authed<Read>,
) -> Result<Json<SettingsJson>, Problem> {
    Ok(Json(SettingsJson { membership: app.manage.consent_settings(caller.space_no()).await? }))
}

/// Change what follows from consent
///
/// The audiences it is about are computed anew; until that is done they answer as before.
#[utoipa::path(patch, path = "/v1/spaces/{space}/consent/settings", security(("token" = ["admin"])), tag = "Privacy",
    operation_id = "change_consent_settings", request_body = SettingsJson,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 200, body = SettingsJson)))]
async fn change_settings(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    Json(settings): Json<SettingsJson>,
) -> Result<Json<SettingsJson>, Problem> {
    app.manage.change_consent_settings(caller.space_no(), settings.membership).await?;
    Ok(Json(settings))
}

/// Something people consent to, or not.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConsentCategory)]
struct CategoryJson {
    /// As events name it in `context.consent.categoryPreferences`.
    id: String,
    name: String,
    /// Destinations that are told only of people who consent to it; to one of several categories, only of those who consent
    /// to all of them.
    destinations: Vec<String>,
    created_at: String,
    updated_at: String,
}

impl From<Category> for CategoryJson {
    fn from(category: Category) -> Self {
        Self {
            id: category.id,
            name: category.name,
            destinations: category.destinations.into_iter().map(|(_, id)| public_id("dst", id)).collect(),
            created_at: category.created_at.to_string(),
            updated_at: category.updated_at.to_string(),
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewConsentCategory {
    /// As events name it, with its case: 1 to 34 letters, digits, spaces and `_`, `-`, `:`, `/`, not beginning with a digit.
    id: String,
    /// The id when not given.
    name: Option<String>,
    #[serde(default)]
    destinations: Vec<String>,
}

/// What is to be changed; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ConsentCategoryChange {
    #[serde(default, deserialize_with = "not_null")]
    name: Option<String>,
    /// All that are to be mapped to it.
    #[serde(default, deserialize_with = "not_null")]
    destinations: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct CategoryPath {
    category: String,
}

fn ids(words: &[String]) -> Result<Vec<Uuid>, Problem> {
    let id = |(place, word): (usize, &String)| {
        parse_public_id("dst", word).ok_or_else(|| {
            let shown: String = word.chars().take(60).collect();
            Problem::new(Code::Invalid, format!("{shown:?} is no id of a destination, such as dst_…"))
                .at(format!("destinations[{place}]"))
        })
    };
    words.iter().enumerate().map(id).collect()
}

/// List what people are asked to consent to
#[utoipa::path(get, path = "/v1/spaces/{space}/consent/categories", tag = "Privacy",
    operation_id = "list_consent_categories",
    params(("space" = String, Path, description = "Id of the space"), PageParams),
    responses((status = 200, body = List<CategoryJson>), (status = 304, description = "Nothing has changed")))]
async fn list_categories(
    State(app): State<AppState>,
    caller: Authed<Read>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let after: Option<String> = page.after("consent_categories")?;
    let mut list = app.manage.list_consent_categories(caller.space_no()).await?;
    list.retain(|category| after.as_ref().is_none_or(|after| category.id > *after));
    Ok(known.answer(&page.list("consent_categories", list, |c| c.id.clone(), CategoryJson::from)))
}

/// Ask people to consent to something
///
/// What events have said of it before counts. Destinations that are mapped to it are told no more of who has not consented.
#[utoipa::path(post, path = "/v1/spaces/{space}/consent/categories", security(("token" = ["admin"])), tag = "Privacy",
    operation_id = "create_consent_category", request_body = NewConsentCategory,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 201, body = CategoryJson), (status = 409, description = "The id is in use")))]
async fn create_category(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    Json(new): Json<NewConsentCategory>,
) -> Result<(StatusCode, Json<CategoryJson>), Problem> {
    let change = CategoryChange { name: new.name, destinations: Some(ids(&new.destinations)?) };
    let made = app.manage.create_consent_category(caller.space_no(), &new.id, change).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// Look at a category of consent
#[utoipa::path(get, path = "/v1/spaces/{space}/consent/categories/{category}", tag = "Privacy",
    operation_id = "get_consent_category",
    params(("space" = String, Path, description = "Id of the space"), ("category" = String, Path, description = "Its id")),
    responses((status = 200, body = CategoryJson)))]
async fn get_category(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Path(path): Path<CategoryPath>,
) -> Result<Json<CategoryJson>, Problem> {
    Ok(Json(app.manage.find_consent_category(caller.space_no(), &path.category).await?.into()))
}

/// Change a category of consent
///
/// A destination that is mapped to it no more is sent the present state of everybody.
#[utoipa::path(patch, path = "/v1/spaces/{space}/consent/categories/{category}", security(("token" = ["admin"])), tag = "Privacy",
    operation_id = "change_consent_category", request_body = ConsentCategoryChange,
    params(("space" = String, Path, description = "Id of the space"), ("category" = String, Path, description = "Its id")),
    responses((status = 200, body = CategoryJson)))]
async fn change_category(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    Path(path): Path<CategoryPath>,
    Json(change): Json<ConsentCategoryChange>,
) -> Result<Json<CategoryJson>, Problem> {
    let destinations = change.destinations.as_deref().map(ids).transpose()?;
    let change = CategoryChange { name: change.name, destinations };
    Ok(Json(app.manage.change_consent_category(caller.space_no(), &path.category, change).await?.into()))
}

/// Ask no more for consent to something
///
/// What people have said of it stays with them. Destinations that were mapped to it are sent the present state of everybody.
#[utoipa::path(delete, path = "/v1/spaces/{space}/consent/categories/{category}", security(("token" = ["admin"])), tag = "Privacy",
    operation_id = "delete_consent_category",
    params(("space" = String, Path, description = "Id of the space"), ("category" = String, Path, description = "Its id")),
    responses((status = 204, description = "It is gone")))]
async fn delete_category(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    Path(path): Path<CategoryPath>,
) -> Result<StatusCode, Problem> {
    app.manage.delete_consent_category(caller.space_no(), &path.category).await?;
    Ok(StatusCode::NO_CONTENT)
}
