//! Audiences and computed traits as dashboards poll them: sizes, members, transitions, values.

use std::fmt::Write;
use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::super::AppState;
use super::super::auth::{Authed, Read};
use super::super::etag::IfNoneMatch;
use super::super::extract::{Path, Query};
use super::super::page::{List, Page, PageParams};
use super::super::problem::{Code, Problem};
use super::members::{FileParams, send_file};
use super::{State, raw};
use crate::domain::ids::public_id;
use crate::domain::{ComputationNo, ProfileNo, SpaceNo};
use crate::manage::definitions::noun;
use crate::query::{Definition, Kind};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct KeyPath {
    /// Id of the space.
    #[serde(rename = "space")]
    _space: String,
    /// Key of the definition.
    key: String,
}

impl KeyPath {
    /// Key of the definition.
    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

/// A kind of definition as a type, for [`Named`].
pub(super) trait OfKind: Send + Sync {
    const KIND: Kind;
}

pub(super) struct Audience;
pub(super) struct ComputedTrait;

impl OfKind for Audience {
    const KIND: Kind = Kind::Audience;
}

impl OfKind for ComputedTrait {
    const KIND: Kind = Kind::ComputedTrait;
}

/// The definition named by the path, read after waiting.
pub(super) struct Named<K> {
    pub(super) space: SpaceNo,
    pub(super) definition: Definition,
    kind: PhantomData<K>,
}

impl<K> Named<K> {
    /// The version that answers; none is complete yet while the first one is being computed.
    fn serving(&self) -> ComputationNo {
        self.definition.serving.as_ref().map_or(ComputationNo(0), |v| v.no)
    }
}

impl<K: OfKind> FromRequestParts<AppState> for Named<K> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let space = Authed::<Read>::from_request_parts(parts, state).await?.space_no();
        let Path(KeyPath { key, .. }) = Path::from_request_parts(parts, state).await?;
        let found = state.reader.find_definition(space, K::KIND, &key).await?;
        let missing = || Problem::not_found(format!("there is no {} {key}", noun(K::KIND)));
        Ok(Self { space, definition: found.ok_or_else(missing)?, kind: PhantomData })
    }
}

/// The size of an audience.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SizeBody {
    key: String,
    /// Members, exact.
    size: i64,
    changed_at: String,
}

/// Sizes of all audiences of the space in one call.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SizesBody {
    data: Vec<SizeBody>,
}

/// How sizes are written.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SizesParams {
    /// `prometheus`: as the metric `personas_audience_size`, for a scrape with a token; else JSON.
    format: Option<String>,
}

/// Sizes of all audiences of the space in one call, for dashboards.
#[utoipa::path(get, path = "/v1/spaces/{space}/audiences/sizes", tag = "Audiences",
    params(("space" = String, Path, description = "Id of the space"), SizesParams),
    responses((status = 200, body = SizesBody), (status = 304, description = "Nothing has changed"),
        (status = 400, description = "No such format")))]
pub(super) async fn list_sizes(
    axum::extract::State(state): State,
    authed: Authed<Read>,
    Query(params): Query<SizesParams>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let space = authed.space_no();
    let sizes = state.reader.list_sizes(space).await?;
    match params.format.as_deref() {
        None | Some("json") => {}
        Some("prometheus") => {
            let known = state.manage.registry().snapshot();
            return Ok(scraped(known.space(space).map_or("", |space| &space.key), &sizes));
        }
        Some(_) => return Err(Problem::new(Code::BadRequest, "`format` is json or prometheus").at("format")),
    }
    let show = |of: &crate::query::Size| SizeBody {
        key: of.key.clone(),
        size: of.size,
        changed_at: of.changed_at.to_string(),
    };
    Ok(known.answer(&SizesBody { data: sizes.iter().map(show).collect() }))
}

/// Sizes as a metric; keys of spaces and audiences have no character that would have to be escaped.
fn scraped(space: &str, sizes: &[crate::query::Size]) -> Response {
    let mut text =
        "# HELP personas_audience_size Members of an audience.\n# TYPE personas_audience_size gauge\n"
            .to_owned();
    for size in sizes {
        let _infallible = writeln!(
            text,
            "personas_audience_size{{space=\"{space}\",audience=\"{}\"}} {}",
            size.key, size.size
        );
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The size of an audience: 0 until its first version is complete.
#[utoipa::path(get, path = "/v1/spaces/{space}/audiences/{key}/size", tag = "Audiences",
    params(KeyPath),
    responses((status = 200, body = SizeBody), (status = 304, description = "Nothing has changed"),
        (status = 404, description = "No such audience")))]
pub(super) async fn get_size(Named { definition, .. }: Named<Audience>, known: IfNoneMatch) -> Response {
    let Definition { key, serving, created_at, .. } = definition;
    let (size, changed_at) = serving.map_or((0, created_at), |version| (version.size, version.changed_at));
    known.answer(&SizeBody { key, size, changed_at: changed_at.to_string() })
}

/// A member of an audience.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MemberBody {
    profile_id: String,
    entered_at: String,
}

/// Members of an audience, oldest profile first: a page, or with `format` all of them as a file.
#[utoipa::path(get, path = "/v1/spaces/{space}/audiences/{key}/members", tag = "Audiences",
    params(KeyPath, PageParams, FileParams),
    responses((status = 200, body = List<MemberBody>), (status = 304, description = "Nothing has changed"),
        (status = 404, description = "No such audience")))]
pub(super) async fn list_members(
    axum::extract::State(state): State,
    named: Named<Audience>,
    page: Page,
    Query(file): Query<FileParams>,
    headers: HeaderMap,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    if let Some(format) = file.format(&headers)? {
        return send_file(&state, &named, format, &file).await;
    }
    let after = ProfileNo(page.after::<u64>("members")?.unwrap_or(0));
    let members =
        state.reader.list_members(named.space, named.serving(), after, page.limit as i64 + 1).await?;
    let show = |m: crate::query::Member| MemberBody {
        profile_id: public_id("prf", m.id),
        entered_at: m.entered_at.to_string(),
    };
    Ok(known.answer(&page.list("members", members, |m| m.no.0, show)))
}

/// A profile that entered or left an audience.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TransitionBody {
    profile_id: String,
    /// `entered` or `left`.
    transition: &'static str,
    at: String,
}

/// Who entered and left an audience, newest first.
#[utoipa::path(get, path = "/v1/spaces/{space}/audiences/{key}/transitions", tag = "Audiences",
    params(KeyPath, PageParams),
    responses((status = 200, body = List<TransitionBody>), (status = 404, description = "No such audience")))]
pub(super) async fn list_transitions(
    axum::extract::State(state): State,
    named: Named<Audience>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let before = page.after::<i64>("transitions")?.unwrap_or(i64::MAX);
    let rows = state
        .reader
        .list_transitions(named.space, named.definition.no, before, page.limit as i64 + 1)
        .await?;
    let show = |(t, id): (crate::query::Transition, uuid::Uuid)| TransitionBody {
        profile_id: public_id("prf", id),
        transition: if t.entered { "entered" } else { "left" },
        at: t.at.to_string(),
    };
    Ok(known.answer(&page.list("transitions", rows, |(t, _)| t.no, show)))
}

/// A profile's value of a computed trait.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ValueBody {
    profile_id: String,
    #[schema(value_type = Option<serde_json::Value>)]
    value: Option<Box<RawValue>>,
    updated_at: String,
}

/// Values of a computed trait, oldest profile first; profiles that have none are left out.
#[utoipa::path(get, path = "/v1/spaces/{space}/computed-traits/{key}/values", tag = "Computed traits",
    params(KeyPath, PageParams),
    responses((status = 200, body = List<ValueBody>), (status = 404, description = "No such computed trait")))]
pub(super) async fn list_values(
    axum::extract::State(state): State,
    named: Named<ComputedTrait>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let after = ProfileNo(page.after::<u64>("values")?.unwrap_or(0));
    let rows = state.reader.list_values(named.space, named.serving(), after, page.limit + 1).await?;
    let show = |row: crate::query::ValueRow| ValueBody {
        profile_id: public_id("prf", row.id),
        value: raw(&row.json),
        updated_at: row.since.to_string(),
    };
    Ok(known.answer(&page.list("values", rows, |row| row.no.0, show)))
}
