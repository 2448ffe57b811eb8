//! Lists: audiences whose members are uploaded, as CSV or NDJSON, by any identifier.
//!
//! An upload becomes operators' acts in the log, so that the same log gives the same members. It is answered when its
//! members can be read.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{HeaderMap, header};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::super::AppState;
use super::super::acts::signed;
use super::super::auth::{Authed, Write};
use super::super::extract::{Body, Json, Path, Query};
use super::super::problem::{Code, Problem};
use super::State;
use super::audiences::KeyPath;
use crate::domain::{Act, Collection, ProfileNo, SpaceNo, json};
use crate::manage::definitions::trait_of_list;
use crate::manage::registry::Token;
use crate::query::{Definition, Kind, Person, Selector};

/// Profiles one act is about.
const ACT_PROFILES: usize = 200;
/// Identifiers looked up at a time.
const LOOK_UP: usize = 1_000;
/// Rows whose mistakes are told.
const TOLD: usize = 1_000;
/// The column of our own ids.
const PROFILE_ID: &str = "profile_id";

/// What to do with the rows.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadParams {
    /// `add` (when nothing is said), `remove`, or `replace`: whoever is not in the rows is taken off the list.
    mode: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Add,
    Remove,
    Replace,
}

impl UploadParams {
    fn mode(&self) -> Result<Mode, Problem> {
        match self.mode.as_deref() {
            None | Some("add") => Ok(Mode::Add),
            Some("remove") => Ok(Mode::Remove),
            Some("replace") => Ok(Mode::Replace),
            Some(other) => {
                let message = format!("mode is {other:?}; it can be add, remove or replace");
                Err(Problem::new(Code::BadRequest, message).at("mode"))
            }
        }
    }
}

/// What became of an upload.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UploadBody {
    /// Rows that were read.
    rows: usize,
    /// Profiles that were found, once each; they are on the list now (or off it, with `remove`).
    profiles: usize,
    /// Profiles taken off it because they were not in the rows.
    removed: usize,
    /// Rows that led to no profile, or could not be read.
    failed: usize,
    /// What is wrong with them, the first 1,000.
    errors: Vec<RowError>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RowError {
    /// From 1, without the header; of NDJSON the line.
    row: usize,
    message: String,
}

/// Upload members of a list
///
/// CSV with a header of identifier types (or `profile_id`), or NDJSON: objects with identifier types as keys, or strings
/// such as `"user_id:u1"`; 5 MiB at most. Of each row the first identifier that leads to a profile counts. Rows that lead to
/// none are told, and the others are taken.
#[utoipa::path(post, path = "/v1/spaces/{space}/audiences/{key}/members", tag = "Audiences",
    operation_id = "upload_members",
    params(KeyPath, UploadParams),
    request_body(content = String, description = "The rows", content_type = "text/csv"),
    responses((status = 200, body = UploadBody), (status = 404, description = "No such audience"),
        (status = 422, description = "Not a list, or no rows that can be read")))]
pub(super) async fn upload_members(
    axum::extract::State(state): State,
    authed: Authed<Write>,
    Path(path): Path<KeyPath>,
    Query(params): Query<UploadParams>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<UploadBody>, Problem> {
    let space = authed.space_no();
    let mode = params.mode()?;
    let key = path.key();
    let list = state.reader.find_definition(space, Kind::Audience, key).await?;
    let list = list.ok_or_else(|| Problem::not_found(format!("there is no audience {key}")))?;
    if !list.is_list() {
        let message = format!(
            "the members of {key} follow from its query; make one with \"definition\": {{\"list\": true}}"
        );
        return Err(Problem::new(Code::Invalid, message).at("key"));
    }
    let text = std::str::from_utf8(&body)
        .map_err(|_| Problem::new(Code::BadRequest, "the rows are not valid UTF-8"))?
        .trim_start_matches('\u{feff}');
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_ndjson =
        kind.contains("json") || (!kind.contains("csv") && text.trim_start().starts_with(['{', '"']));
    let mut rows = if is_ndjson { read_ndjson(text) } else { read_csv(text)? };
    let told = rows.iter().map(Vec::len).sum::<usize>();
    if told == 0 && mode != Mode::Replace {
        let message = "there are no rows; send a CSV header of identifier types with rows, or NDJSON";
        return Err(Problem::new(Code::Invalid, message));
    }
    let by = &authed.token;
    let mut upload = Upload { state: &state, space, list: &list, by, errors: Vec::new() };
    let found = upload.find(&mut rows).await?;
    let profiles = found.len();
    let mut removed = 0;
    if mode == Mode::Replace {
        let gone = upload.others(&found).await?;
        removed = gone.len();
        upload.change(gone, false).await?;
    }
    upload.change(found, mode != Mode::Remove).await?;
    let failed = upload.errors.len();
    let mut errors = upload.errors;
    errors.sort_by_key(|error| error.row);
    errors.truncate(TOLD);
    Ok(Json(UploadBody { rows: rows.len(), profiles, removed, failed, errors }))
}

/// The identifiers of one row, in their order; or why it cannot be read.
type Row = Vec<Result<(String, String), String>>;

fn read_csv(text: &str) -> Result<Vec<Row>, Problem> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header =
        reader.headers().map_err(|e| Problem::new(Code::Invalid, format!("the header: {e}")))?.clone();
    let row = |record: csv::Result<csv::StringRecord>| match record {
        Ok(record) => {
            let told = header.iter().zip(record.iter()).filter(|(_, value)| !value.is_empty());
            told.map(|(id_type, value)| Ok((id_type.to_owned(), value.to_owned()))).collect()
        }
        Err(error) => vec![Err(error.to_string())],
    };
    Ok(reader.records().map(row).collect())
}

fn read_ndjson(text: &str) -> Vec<Row> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(read_line).collect()
}

fn read_line(line: &str) -> Row {
    if let Err(error) = serde_json::from_str::<&RawValue>(line) {
        return vec![Err(format!("not JSON: {error}"))];
    }
    if let Some(text) = json::string(line.trim()) {
        return match text.split_once(':') {
            Some((id_type, value)) => vec![Ok((id_type.to_owned(), value.to_owned()))],
            None => vec![Err("name the profile as type:value, such as user_id:u1".to_owned())],
        };
    }
    let mut row = Row::new();
    let read = json::for_each_entry(line, |id_type, value| {
        if let Some(value) = json::string_or_digits(value.get()) {
            row.push(Ok((id_type.into_owned(), value)));
        }
    });
    if read.is_err() {
        return vec![Err("a row is an object or a string".to_owned())];
    }
    row
}

/// One upload under way.
struct Upload<'a> {
    state: &'a AppState,
    space: SpaceNo,
    list: &'a Definition,
    by: &'a Token,
    errors: Vec<RowError>,
}

/// Profiles, each with an identifier that leads to it.
type Found = BTreeMap<ProfileNo, (String, String)>;

impl Upload<'_> {
    fn wrong(&mut self, row: usize, message: impl Into<String>) {
        self.errors.push(RowError { row: row + 1, message: message.into() });
    }

    /// The profiles the rows lead to.
    async fn find(&mut self, rows: &mut [Row]) -> Result<Found, Problem> {
        let directory = self.state.reader.directory(self.space, None).await?;
        let mut wanted: Vec<(usize, Selector)> = Vec::new();
        for (place, row) in rows.iter_mut().enumerate() {
            let mut names = 0;
            for told in std::mem::take(row) {
                match told {
                    Err(message) => self.wrong(place, message),
                    Ok((id_type, value))
                        if id_type == PROFILE_ID || directory.id_type(&id_type).is_some() =>
                    {
                        names += 1;
                        match Selector::parse(&format!("{id_type}:{value}")) {
                            Some(selector) => wanted.push((place, selector)),
                            None => self.wrong(place, format!("{value:?} is no id of a profile")),
                        }
                    }
                    // Columns for people.
                    Ok(_) => {}
                }
            }
            if names == 0 && self.errors.last().is_none_or(|error| error.row != place + 1) {
                self.wrong(place, "the row has no identifier of a type this space knows");
            }
        }
        let (mut found, mut done) = (Found::new(), BTreeSet::new());
        for part in wanted.chunks(LOOK_UP) {
            let selectors: Vec<Selector> = part.iter().map(|(_, selector)| selector.clone()).collect();
            let people = self.state.reader.find_profiles(self.space, Collection::Users, &selectors).await?;
            for ((place, _), person) in part.iter().zip(people) {
                let Some((no, id)) = person.as_ref().and_then(named) else { continue };
                if done.insert(*place) {
                    found.insert(no, id);
                }
            }
        }
        let failed: BTreeSet<usize> = self.errors.iter().map(|error| error.row - 1).collect();
        let lost: BTreeSet<usize> = wanted.iter().map(|(place, _)| *place).collect();
        for place in lost.difference(&done).filter(|place| !failed.contains(place)) {
            let names = wanted.iter().filter(|(of, _)| of == place).map(|(_, selector)| selector.to_string());
            let names = names.collect::<Vec<_>>().join(" or ");
            self.wrong(*place, format!("no profile has {names}"));
        }
        Ok(found)
    }

    /// The members that are not among these.
    async fn others(&self, found: &Found) -> Result<Found, Problem> {
        let members = self.state.reader.stream_members(self.space, self.list.no).await?;
        let mut others = Found::new();
        let mut members = std::pin::pin!(members);
        while let Some(member) = members.try_next().await? {
            if let Some((no, id)) = named(&member.person).filter(|(no, _)| !found.contains_key(no)) {
                others.insert(no, id);
            }
        }
        Ok(others)
    }

    async fn change(&self, profiles: Found, listed: bool) -> Result<(), Problem> {
        let ids: Vec<(String, String)> = profiles.into_values().collect();
        let mut last = None;
        for ids in ids.chunks(ACT_PROFILES) {
            let list = trait_of_list(self.list.id);
            let act = Act::ChangeList { list, ids: ids.to_vec(), listed };
            last = Some(self.state.ingest.append_act(self.space, &signed(act, self.by)).await?);
        }
        if let Some(offset) = last {
            self.state.reader.wait_for(self.space, offset).await?;
        }
        Ok(())
    }
}

/// The number of a profile and an identifier it has.
fn named(person: &Person) -> Option<(ProfileNo, (String, String))> {
    let held = person.profile.owned.get().identifiers.first()?;
    let id_type = person.directory.type_name(held.type_no).to_owned();
    Some((person.profile.no, (id_type, held.value.clone())))
}
