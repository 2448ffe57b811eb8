//! `/v1/spaces/{space}/destinations/{id}/subscriptions`: what a destination wants.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{not_null, path_id};
use super::DestinationPath;
use crate::domain::Collection;
use crate::domain::delivery::{Form, Subject};
use crate::domain::ids::public_id;
use crate::http::AppState;
use crate::http::auth::{Authed, Read, Write};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::{Json, Path};
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::{Code, Problem};
use crate::manage::subscriptions::{About, Keyed, Wish};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_subscriptions, create_subscription)).routes(routes!(
        get_subscription,
        change_subscription,
        delete_subscription
    ))
}

/// What a destination wants.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Subscription)]
struct SubscriptionJson {
    id: String,
    /// `audience`, `computed_trait`, `custom_traits`, `merges`, `profile_updates` or `events`.
    subject: &'static str,
    /// Of which audience or computed trait; `*`: of all there are and will be.
    key: Option<String>,
    /// With `*`, whose: `users` or `accounts`.
    collection: Option<&'static str>,
    enabled: bool,
    /// As which calls: `identify` (of accounts a `group`), `track`. Empty for `profile_updates` and `events`, which are sent as
    /// what they are.
    send: Vec<&'static str>,
    entered_event: String,
    exited_event: String,
    computed_event: String,
    /// The choice of data.
    #[schema(value_type = Object)]
    data: Value,
    sync: SyncJson,
    created_at: String,
}

/// The full sync of a subscription.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SubscriptionSync)]
struct SyncJson {
    /// `none`, `running` or `done`: all that is to be sent is in the queue.
    status: &'static str,
    /// Share of the profiles that were gone through, from 0 to 1.
    progress: f64,
    started_at: Option<String>,
    ended_at: Option<String>,
}

impl From<Keyed> for SubscriptionJson {
    fn from((subscription, key): Keyed) -> Self {
        let sync = subscription.sync;
        let (status, progress) = match (sync.progress, sync.ended_at) {
            (Some(progress), _) => ("running", progress),
            (None, Some(_)) => ("done", 1.0),
            _ => ("none", 0.0),
        };
        Self {
            id: public_id("sub", subscription.id),
            subject: subscription.subject.word(),
            collection: subscription.all().map(Collection::as_str),
            key,
            enabled: subscription.enabled,
            send: match subscription.subject {
                Subject::ProfileUpdates | Subject::Events => Vec::new(),
                _ => Form::of_set(subscription.forms).into_iter().map(Form::word).collect(),
            },
            entered_event: subscription.options.entered_event,
            exited_event: subscription.options.exited_event,
            computed_event: subscription.options.computed_event,
            data: subscription.options.data,
            sync: SyncJson {
                status,
                progress,
                started_at: sync.started_at.map(|at| at.to_string()),
                ended_at: sync.ended_at.map(|at| at.to_string()),
            },
            created_at: subscription.created_at.to_string(),
        }
    }
}

/// A subscription to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSubscription {
    /// `audience`, `computed_trait`, `custom_traits`, `merges`, `profile_updates` or `events`.
    subject: String,
    /// Of which audience or computed trait; `*` for all there are and will be, but for those that the destination has another
    /// subscription to. None for the other subjects.
    key: Option<String>,
    /// With `*`, whose: `users` (where nothing is said) or `accounts`.
    #[schema(value_type = Option<String>)]
    collection: Option<Collection>,
    enabled: Option<bool>,
    /// `identify`, `track` or both; `identify` where nothing is said, `track` for merges. None for `profile_updates` and `events`.
    #[schema(value_type = Option<Vec<String>>)]
    send: Option<Vec<Form>>,
    /// Event of who enters an audience; `Audience Entered` where nothing is said.
    entered_event: Option<String>,
    /// Event of who leaves one; `Audience Exited` where nothing is said.
    exited_event: Option<String>,
    /// Event of a computed trait; `Trait Computed` where nothing is said.
    computed_event: Option<String>,
    /// `id_sync`: `[{"type","strategy":"first|last|all","map_to"?}]`; `traits`: names of traits that are sent along;
    /// `filter`: FQL; `allow` and `deny`: paths of fields.
    #[schema(value_type = Option<Object>)]
    data: Option<Map<String, Value>>,
}

/// What is to be changed of a subscription.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SubscriptionChange {
    /// What is switched on again is sent as it is now.
    #[serde(default, deserialize_with = "not_null")]
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Option<Vec<String>>)]
    send: Option<Vec<Form>>,
    #[serde(default, deserialize_with = "not_null")]
    entered_event: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    exited_event: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    computed_event: Option<String>,
    /// The whole choice of data.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Option<Object>)]
    data: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct SubscriptionPath {
    id: String,
    subscription: String,
}

impl SubscriptionPath {
    fn ids(&self) -> Result<(uuid::Uuid, uuid::Uuid), Problem> {
        let destination = path_id("dst", "destination", &self.id)?;
        Ok((destination, path_id("sub", "subscription", &self.subscription)?))
    }
}

fn subject(word: &str) -> Result<Subject, Problem> {
    Subject::ALL.into_iter().find(|subject| subject.word() == word).ok_or_else(|| {
        let known: Vec<&str> = Subject::ALL.iter().map(|subject| subject.word()).collect();
        Problem::new(Code::Invalid, format!("subject must be one of {}", known.join(", "))).at("subject")
    })
}

/// List what a destination wants
#[utoipa::path(get, path = "/v1/spaces/{space}/destinations/{id}/subscriptions", tag = "Destinations",
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the destination"),
        PageParams),
    responses((status = 200, body = List<SubscriptionJson>)))]
async fn list_subscriptions(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Path(path): Path<DestinationPath>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let after: Option<i32> = page.after("subscriptions")?;
    let mut list = app.manage.list_subscriptions(caller.space_no(), path.id()?).await?;
    list.retain(|(subscription, _)| after.is_none_or(|after| subscription.no > after));
    Ok(known.answer(&page.list("subscriptions", list, |(s, _)| s.no, SubscriptionJson::from)))
}

/// Make a destination want something
///
/// Everybody's present membership or value is sent first, changes follow. Of `profile_updates` what is still known of the past
/// is sent first; `merges` and `events` are sent from now on.
#[utoipa::path(post, path = "/v1/spaces/{space}/destinations/{id}/subscriptions", tag = "Destinations",
    request_body = NewSubscription,
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the destination")),
    responses((status = 201, body = SubscriptionJson)))]
async fn create_subscription(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<DestinationPath>,
    Json(new): Json<NewSubscription>,
) -> Result<(StatusCode, Json<SubscriptionJson>), Problem> {
    let about = About { subject: subject(&new.subject)?, key: new.key, collection: new.collection };
    let wish = Wish {
        enabled: new.enabled,
        send: new.send,
        entered_event: new.entered_event,
        exited_event: new.exited_event,
        computed_event: new.computed_event,
        data: new.data,
    };
    let made = app.manage.create_subscription(caller.space_no(), path.id()?, about, wish).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// Look at a subscription
#[utoipa::path(get, path = "/v1/spaces/{space}/destinations/{id}/subscriptions/{subscription}", tag = "Destinations",
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the destination"),
        ("subscription" = String, Path, description = "Id of the subscription")),
    responses((status = 200, body = SubscriptionJson)))]
async fn get_subscription(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Path(path): Path<SubscriptionPath>,
) -> Result<Json<SubscriptionJson>, Problem> {
    let (destination, id) = path.ids()?;
    Ok(Json(app.manage.find_subscription(caller.space_no(), destination, id).await?.into()))
}

/// Change a subscription
#[utoipa::path(patch, path = "/v1/spaces/{space}/destinations/{id}/subscriptions/{subscription}", tag = "Destinations",
    request_body = SubscriptionChange,
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the destination"),
        ("subscription" = String, Path, description = "Id of the subscription")),
    responses((status = 200, body = SubscriptionJson)))]
async fn change_subscription(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<SubscriptionPath>,
    Json(change): Json<SubscriptionChange>,
) -> Result<Json<SubscriptionJson>, Problem> {
    let (destination, id) = path.ids()?;
    let SubscriptionChange { enabled, send, entered_event, exited_event, computed_event, data } = change;
    let wish = Wish { enabled, send, entered_event, exited_event, computed_event, data };
    Ok(Json(app.manage.change_subscription(caller.space_no(), destination, id, wish).await?.into()))
}

/// Remove a subscription
#[utoipa::path(delete, path = "/v1/spaces/{space}/destinations/{id}/subscriptions/{subscription}", tag = "Destinations",
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the destination"),
        ("subscription" = String, Path, description = "Id of the subscription")),
    responses((status = 204, description = "It is gone")))]
async fn delete_subscription(
    State(app): State<AppState>,
    caller: Authed<Write>,
    Path(path): Path<SubscriptionPath>,
) -> Result<StatusCode, Problem> {
    let (destination, id) = path.ids()?;
    app.manage.delete_subscription(caller.space_no(), destination, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
