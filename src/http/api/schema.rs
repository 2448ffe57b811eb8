//! `/v1/spaces/{space}/schema`: what has been seen of events and traits, for those who write queries.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::domain::{Collection, SpaceNo};
use crate::http::AppState;
use crate::http::auth::{Authed, Read};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::{Path, Query};
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::{Code, Problem};
use crate::query::{Remark, Seen};

/// Values told of a field.
const VALUES: usize = 10;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_seen_events))
        .routes(routes!(list_seen_properties))
        .routes(routes!(list_seen_traits))
}

/// What is worth a look in a query that is right: nothing of the name has been seen.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QueryWarning)]
pub(super) struct WarningJson {
    message: String,
    /// From 1.
    line: usize,
    /// From 1, in characters.
    column: usize,
    /// In bytes.
    offset: usize,
    /// In bytes.
    length: usize,
    /// What was most likely meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    suggestion: Option<String>,
}

impl From<Remark> for WarningJson {
    fn from(remark: Remark) -> Self {
        let Remark { message, line, column, offset, length, suggestion, .. } = remark;
        Self { message, line, column, offset, length, suggestion }
    }
}

/// Events of one name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SeenEvent)]
struct EventJson {
    name: String,
    /// Events that count, exact.
    count: u64,
    first_seen_at: String,
    last_seen_at: String,
    /// How many properties are known.
    properties: usize,
}

/// A property or trait.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SeenField)]
struct FieldJson {
    /// As `property('…')` or `trait('…')` takes it: `ship.city`, `products.$.sku`.
    name: String,
    /// How often it was there; an estimate from the thousandth event on.
    count: u64,
    /// How often of each type: `string`, `date`, `number`, `boolean`, `null`, `object`, `list`.
    types: std::collections::BTreeMap<String, u64>,
    /// The most frequent values that came more than once, if any.
    values: Vec<ValueJson>,
}

/// A frequent value.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SeenValue)]
struct ValueJson {
    #[schema(value_type = serde_json::Value)]
    value: Box<RawValue>,
    /// How often at most.
    count: u64,
}

/// The names of events that have been seen
#[utoipa::path(get, path = "/v1/spaces/{space}/schema/events", tag = "Schema",
    params(("space" = String, Path, description = "Id of the space"), PageParams),
    responses((status = 200, body = List<EventJson>), (status = 304, description = "Nothing has changed")))]
async fn list_seen_events(
    State(app): State<AppState>,
    caller: Authed<Read>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let after: Option<String> = page.after("seen_events")?;
    let mut events = app.reader.list_seen_events(caller.space_no()).await?;
    events.retain(|(name, _)| after.as_ref().is_none_or(|after| name > after));
    let show = |(name, seen): (String, Seen)| EventJson {
        name,
        count: seen.count,
        first_seen_at: seen.first.to_string(),
        last_seen_at: seen.last.to_string(),
        properties: seen.fields.known.len(),
    };
    Ok(known.answer(&page.list("seen_events", events, |(name, _)| name.clone(), show)))
}

#[derive(Debug, Deserialize)]
struct EventPath {
    name: String,
}

/// The properties that events of a name have been seen with
#[utoipa::path(get, path = "/v1/spaces/{space}/schema/events/{name}/properties", tag = "Schema",
    params(
        ("space" = String, Path, description = "Id of the space"),
        ("name" = String, Path, description = "Name of the event"),
        PageParams,
    ),
    responses((status = 200, body = List<FieldJson>), (status = 304, description = "Nothing has changed"), (status = 404, description = "No such event has been seen")))]
async fn list_seen_properties(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Path(EventPath { name }): Path<EventPath>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let seen = app.reader.find_seen_event(caller.space_no(), &name).await?;
    let missing = || {
        let shown: String = name.chars().take(255).collect();
        Problem::not_found(format!("no event named {shown:?} has been seen"))
    };
    fields(seen.ok_or_else(missing)?, &page, &known)
}

/// Whose traits.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TraitParams {
    /// `users` or `accounts`; users when not given.
    collection: Option<String>,
}

/// The traits that have been seen
#[utoipa::path(get, path = "/v1/spaces/{space}/schema/traits", tag = "Schema",
    params(("space" = String, Path, description = "Id of the space"), TraitParams, PageParams),
    responses((status = 200, body = List<FieldJson>), (status = 304, description = "Nothing has changed")))]
async fn list_seen_traits(
    State(app): State<AppState>,
    caller: Authed<Read>,
    Query(TraitParams { collection }): Query<TraitParams>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let space: SpaceNo = caller.space_no();
    let collection = collection.as_deref().unwrap_or("users");
    let collection = Collection::parse(collection).ok_or_else(|| {
        Problem::new(Code::BadRequest, "`collection` is users or accounts").at("collection")
    })?;
    fields(app.reader.find_seen_traits(space, collection).await?, &page, &known)
}

fn fields(seen: Seen, page: &Page, known: &IfNoneMatch) -> Result<Response, Problem> {
    let after: Option<String> = page.after("seen_fields")?;
    let behind = |name: &String| after.as_ref().is_none_or(|after| name > after);
    let rows = seen.fields.known.into_iter().filter(|(name, _)| behind(name)).collect();
    Ok(known.answer(&page.list(
        "seen_fields",
        rows,
        |(name, _)| name.clone(),
        |(name, field)| {
            let value = |(json, count): (&str, u64)| {
                Some(ValueJson { value: RawValue::from_string(json.to_owned()).ok()?, count })
            };
            let word = |kind| {
                serde_json::to_value(kind)
                    .ok()
                    .and_then(|v| v.as_str().map(str::to_owned))
                    .unwrap_or_default()
            };
            FieldJson {
                name,
                count: field.count,
                values: field.top_values(VALUES).into_iter().filter_map(value).collect(),
                types: field.types.iter().map(|(kind, count)| (word(kind), *count)).collect(),
            }
        },
    )))
}
