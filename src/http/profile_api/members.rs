//! Audiences as wholes: all members as a file, many memberships in one call, overlaps, identifiers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::super::auth::{Authed, Read};
use super::super::etag::IfNoneMatch;
use super::super::extract::{Json, Path};
use super::super::problem::{Code, Problem};
use super::audiences::{Audience, KeyPath, Named};
use super::{State, raw, words};
use crate::domain::Collection;
use crate::query::{FullMember, Kind, Person, QueryError, Selector};

/// Profiles one check asks for at most.
const CHECKS_MAX: usize = 1_000;
/// Identifier types of a file's columns when nothing is said.
const ID_COLUMNS: [&str; 3] = ["user_id", "email", "anonymous_id"];
/// Bytes that are sent at once.
const PIECE: usize = 32 * 1024;

/// How members are to be written.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FileParams {
    /// `csv` or `ndjson`: all members as of now as one file, as they are read. So does `Accept: text/csv` or
    /// `application/x-ndjson`.
    format: Option<String>,
    /// Of a file: the identifier types to tell, comma-separated; `user_id,email,anonymous_id` in CSV, all in NDJSON.
    include: Option<String>,
    /// Of a file: the traits to tell, comma-separated.
    traits: Option<String>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Csv,
    Ndjson,
}

impl FileParams {
    /// The kind of file that is asked for, if any.
    pub(super) fn format(&self, headers: &HeaderMap) -> Result<Option<Format>, Problem> {
        match self.format.as_deref() {
            Some("csv") => Ok(Some(Format::Csv)),
            Some("ndjson") => Ok(Some(Format::Ndjson)),
            Some("json") => Ok(None),
            Some(other) => {
                let message = format!("format is {other:?}; it can be csv, ndjson or json");
                Err(Problem::new(Code::BadRequest, message).at("format"))
            }
            None => {
                let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
                let kinds = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
                Ok(kinds.into_iter().find_map(|kind| match kind {
                    "text/csv" => Some(Format::Csv),
                    "application/x-ndjson" => Some(Format::Ndjson),
                    _ => None,
                }))
            }
        }
    }
}

/// All members of an audience as a file.
pub(super) async fn send_file(
    state: &super::super::AppState,
    named: &Named<Audience>,
    format: Format,
    params: &FileParams,
) -> Result<Response, Problem> {
    let members = state.reader.stream_members(named.space, named.definition.no).await?;
    let mut writer = FileWriter::new(format, params);
    let first = writer.head()?;
    let pieces = members.ready_chunks(READY).map(move |members| {
        let mut piece = Vec::with_capacity(PIECE);
        for member in members {
            writer.member(&member?, &mut piece)?;
        }
        Ok::<Bytes, FileError>(piece.into())
    });
    let body = futures_util::stream::once(async { Ok(first) }).chain(pieces);
    let (kind, ending) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "csv"),
        Format::Ndjson => ("application/x-ndjson", "ndjson"),
    };
    let name = format!("attachment; filename=\"{}.{ending}\"", named.definition.key);
    let name = HeaderValue::from_str(&name).unwrap_or_else(|_| HeaderValue::from_static("attachment"));
    let headers =
        [(header::CONTENT_TYPE, HeaderValue::from_static(kind)), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// Members that are written at once, as far as they are read already.
const READY: usize = 100;

/// Why a file breaks off. The client sees it by the missing end.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Write(#[from] std::io::Error),
    #[error(transparent)]
    Csv(#[from] csv::Error),
}

impl From<FileError> for Problem {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Query(error) => error.into(),
            other => Self::new(Code::Internal, format!("the file could not be written: {other}")),
        }
    }
}

struct FileWriter {
    format: Format,
    id_types: Vec<String>,
    traits: Vec<String>,
}

impl FileWriter {
    fn new(format: Format, params: &FileParams) -> Self {
        let list = |of: Option<&str>| words(of).map(str::to_owned).collect::<Vec<_>>();
        let mut id_types = list(params.include.as_deref());
        if id_types.is_empty() && format == Format::Csv {
            id_types = ID_COLUMNS.map(str::to_owned).to_vec();
        }
        Self { format, id_types, traits: list(params.traits.as_deref()) }
    }

    fn head(&self) -> Result<Bytes, FileError> {
        let mut out = Vec::new();
        if self.format == Format::Csv {
            let columns = ["profile_id".to_owned(), "entered_at".to_owned()];
            record(columns.iter().chain(&self.id_types).chain(&self.traits), &mut out)?;
        }
        Ok(out.into())
    }

    fn member(&mut self, member: &FullMember, out: &mut Vec<u8>) -> Result<(), FileError> {
        match self.format {
            Format::Csv => self.csv(member, out),
            Format::Ndjson => self.ndjson(member, out),
        }
    }

    /// Of several identifiers of a type the newest; text as it is, everything else as JSON.
    fn csv(
        &self,
        FullMember { person, entered_at }: &FullMember,
        out: &mut Vec<u8>,
    ) -> Result<(), FileError> {
        let ids = identifiers(person);
        let newest = |wanted: &String| {
            let of_type = ids.iter().filter(|(id_type, ..)| id_type == wanted);
            of_type.max_by_key(|(.., seen)| *seen).map_or_else(String::new, |(_, id, _)| (*id).to_owned())
        };
        let mut columns = vec![person.id(), entered_at.to_string()];
        columns.extend(self.id_types.iter().map(newest));
        let traits = if self.traits.is_empty() { Vec::new() } else { person.traits() };
        columns.extend(self.traits.iter().map(|name| {
            let json = traits.iter().find(|t| t.name == *name).map_or("", |t| &t.json);
            serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned())
        }));
        record(columns.iter(), out)
    }

    fn ndjson(
        &self,
        FullMember { person, entered_at }: &FullMember,
        out: &mut Vec<u8>,
    ) -> Result<(), FileError> {
        let wanted = |id_type: &str| self.id_types.is_empty() || self.id_types.iter().any(|t| t == id_type);
        let ids = identifiers(person);
        let ids = ids.iter().filter(|(id_type, ..)| wanted(id_type));
        let told = if self.traits.is_empty() { Vec::new() } else { person.traits() };
        let told = told.iter().filter(|t| self.traits.iter().any(|name| name == t.name));
        let line = Line {
            profile_id: person.id(),
            entered_at: entered_at.to_string(),
            external_ids: ids.map(|(id_type, id, _)| IdOfLine { id_type, id }).collect(),
            // As they were sent, with all their digits.
            traits: (!self.traits.is_empty()).then(|| told.map(|t| (t.name, raw(&t.json))).collect()),
        };
        serde_json::to_writer(&mut *out, &line).map_err(std::io::Error::from)?;
        out.push(b'\n');
        Ok(())
    }
}

/// A member in NDJSON.
#[derive(Serialize)]
struct Line<'a> {
    profile_id: String,
    entered_at: String,
    external_ids: Vec<IdOfLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traits: Option<BTreeMap<&'a str, Option<Box<RawValue>>>>,
}

#[derive(Serialize)]
struct IdOfLine<'a> {
    #[serde(rename = "type")]
    id_type: &'a str,
    id: &'a str,
}

fn record<'c>(columns: impl Iterator<Item = &'c String>, out: &mut Vec<u8>) -> Result<(), FileError> {
    let mut writer = csv::WriterBuilder::new().from_writer(out);
    writer.write_record(columns.map(|column| harmless(column).into_owned()))?;
    writer.flush()?;
    Ok(())
}

/// A value that spreadsheets do not take for a formula: text that begins like one is led in by an apostrophe, as they write it
/// themselves. Numbers, and numbers of telephones, are none.
fn harmless(value: &str) -> Cow<'_, str> {
    let is_number = value.chars().skip(1).all(|c| c.is_ascii_digit() || ".eE+- ".contains(c));
    match value.chars().next() {
        Some('=' | '@' | '\t' | '\r') => Cow::Owned(format!("'{value}")),
        Some('+' | '-') if !is_number => Cow::Owned(format!("'{value}")),
        _ => Cow::Borrowed(value),
    }
}

/// Type, value and time of each identifier.
fn identifiers(person: &Person) -> Vec<(&str, &str, crate::domain::Timestamp)> {
    let held = person.profile.owned.get().identifiers.iter();
    held.map(|held| (person.directory.type_name(held.type_no), held.value.as_str(), held.first_seen))
        .collect()
}

/// Whose memberships are asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckRequest {
    /// `users` or `accounts`; users when not given.
    #[serde(default = "users")]
    collection: String,
    /// 1 to 1,000 profiles as `type:value`, such as `user_id:u1`, or `profile_id:prf_…`.
    ids: Vec<String>,
    /// Keys of the audiences to tell; all when not given.
    audiences: Option<Vec<String>>,
}

fn users() -> String {
    "users".to_owned()
}

/// The memberships of many profiles.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CheckBody {
    /// One for each id, in their order.
    data: Vec<CheckedBody>,
}

/// The memberships of one profile.
#[derive(Debug, Serialize, ToSchema)]
struct CheckedBody {
    /// As it was asked for.
    id: String,
    /// Whether there is such a profile.
    found: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile_id: Option<String>,
    /// Keys of the audiences it is in, of those that were asked for.
    audiences: Vec<String>,
}

/// Memberships of up to 1,000 profiles in one call.
#[utoipa::path(post, path = "/v1/spaces/{space}/memberships/check", security(("token" = ["read"])), tag = "Audiences",
    params(("space" = String, Path, description = "Id of the space")),
    request_body = CheckRequest,
    responses((status = 200, body = CheckBody), (status = 404, description = "No such audience"),
        (status = 422, description = "No ids, more than 1,000, or one that cannot be read")))]
pub(super) async fn check_memberships(
    axum::extract::State(state): State,
    authed: Authed<Read>,
    Json(request): Json<CheckRequest>,
) -> Result<Json<CheckBody>, Problem> {
    let space = authed.space_no();
    let collection = Collection::parse(&request.collection).ok_or_else(|| {
        Problem::new(Code::Invalid, "`collection` is `users` or `accounts`").at("collection")
    })?;
    if !(1..=CHECKS_MAX).contains(&request.ids.len()) {
        let message = format!("there are {} ids; there must be from 1 to {CHECKS_MAX}", request.ids.len());
        return Err(Problem::new(Code::Invalid, message).at("ids"));
    }
    let selector = |(place, id): (usize, &String)| {
        let message = "name the profile as type:value, such as user_id:u1, or profile_id:prf_…";
        Selector::parse(id).ok_or_else(|| Problem::new(Code::Invalid, message).at(format!("ids[{place}]")))
    };
    let selectors: Vec<Selector> = request.ids.iter().enumerate().map(selector).collect::<Result<_, _>>()?;
    for key in request.audiences.iter().flatten() {
        if state.reader.find_definition(space, Kind::Audience, key).await?.is_none() {
            return Err(Problem::not_found(format!("there is no audience {key}")));
        }
    }
    let wanted = |key: &String| request.audiences.as_ref().is_none_or(|keys| keys.contains(key));
    let found = state.reader.find_profiles(space, collection, &selectors).await?;
    let show = |(id, person): (&String, Option<Person>)| {
        let audiences = person.iter().flat_map(Person::audiences).map(|audience| audience.key);
        CheckedBody {
            id: id.clone(),
            found: person.is_some(),
            profile_id: person.as_ref().map(Person::id),
            audiences: audiences.filter(wanted).collect(),
        }
    };
    Ok(Json(CheckBody { data: request.ids.iter().zip(found).map(show).collect() }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OtherPath {
    /// Key of the other audience.
    other: String,
}

/// How many members two audiences have in common.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OverlapBody {
    /// The first one.
    a: OverlapPart,
    /// The other one.
    b: OverlapPart,
    /// Members of both.
    both: i64,
}

#[derive(Debug, Serialize, ToSchema)]
struct OverlapPart {
    key: String,
    /// Members.
    size: i64,
    /// Members that are not in the other one.
    only: i64,
}

/// How many members two audiences have in common, as of one instant.
#[utoipa::path(get, path = "/v1/spaces/{space}/audiences/{key}/overlap/{other}", tag = "Audiences",
    params(KeyPath, OtherPath),
    responses((status = 200, body = OverlapBody), (status = 304, description = "Nothing has changed"), (status = 404, description = "No such audience")))]
pub(super) async fn get_overlap(
    axum::extract::State(state): State,
    named: Named<Audience>,
    Path(OtherPath { other }): Path<OtherPath>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let found = state.reader.find_definition(named.space, Kind::Audience, &other).await?;
    let found = found.ok_or_else(|| Problem::not_found(format!("there is no audience {other}")))?;
    let [a, b, both] = state.reader.overlap(named.space, named.definition.no, found.no).await?;
    // Of an audience with itself the numbers of the second are not counted apart.
    let b = if found.no == named.definition.no { a } else { b };
    Ok(known.answer(&OverlapBody {
        a: OverlapPart { key: named.definition.key, size: a, only: a - both },
        b: OverlapPart { key: other, size: b, only: b - both },
        both,
    }))
}

/// How many members can be reached by what.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BreakdownBody {
    key: String,
    /// Members.
    size: i64,
    /// Most frequent first.
    identifiers: Vec<BreakdownPart>,
}

#[derive(Debug, Serialize, ToSchema)]
struct BreakdownPart {
    #[serde(rename = "type")]
    id_type: String,
    /// Members that have one or more identifiers of the type.
    members: i64,
    /// The same in hundredths of all members.
    percent: f64,
}

/// How many members of an audience have an identifier of each type.
#[utoipa::path(get, path = "/v1/spaces/{space}/audiences/{key}/identifiers", tag = "Audiences",
    params(KeyPath),
    responses((status = 200, body = BreakdownBody), (status = 304, description = "Nothing has changed"), (status = 404, description = "No such audience")))]
pub(super) async fn get_identifier_breakdown(
    axum::extract::State(state): State,
    named: Named<Audience>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let (size, types) = state.reader.identifier_breakdown(named.space, named.definition.no).await?;
    let part = |count: crate::query::TypeCount| BreakdownPart {
        percent: (count.members as f64 / size.max(1) as f64 * 10_000.0).round() / 100.0,
        id_type: count.id_type,
        members: count.members,
    };
    Ok(known.answer(&BreakdownBody {
        key: named.definition.key,
        size,
        identifiers: types.into_iter().map(part).collect(),
    }))
}
