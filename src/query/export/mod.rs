//! Exports: everything there is of one person, or of a whole space, as lines of NDJSON with a manifest at the end.
//!
//! An export is read in one snapshot of the database, so all of it belongs to one instant: the manifest says which offset of
//! the log that is. It is read as it is written, some hundreds of rows at a time, however much there is. Whoever does not find
//! the manifest at the end has not got all of it.

mod manifest;
mod rows;

use std::sync::Arc;

use futures_util::{Stream, stream};
use serde_json::json;
use serde_json::value::RawValue;
use sqlx::{Postgres, Transaction};
use tokio::sync::OwnedSemaphorePermit;

use super::{Directory, Person, QueryError, Reader, Selector};
use crate::domain::delivery::{Form, Subject};
use crate::domain::ids::public_id;
use crate::domain::{Collection, Offset, ProfileNo, SpaceNo, Timestamp};
use crate::engine::profile::{DecodeError, Pointer, Profile, decode_pointers};
use crate::store::deliveries::book::State;
use crate::store::deliveries::history::{self, Delivery};
use crate::store::exports::{self, Paged};
use crate::store::log::codec::Records;
use crate::store::{StoreError, audiences, identity, log, profiles, timeline};
use manifest::Manifest;

/// Of the lines and the manifest: raised when they change their meaning.
const VERSION: u32 = 1;
/// Rows read at a time.
const READ: i64 = 500;
/// Events of a person read at a time.
const EVENTS: usize = 200;
/// Chunks of the log read at a time.
const CHUNKS: i64 = 8;

/// Files of everything that is exported of people.
pub const FILES: [&str; 11] = [
    "profiles",
    "external_ids",
    "traits",
    "memberships",
    "transitions",
    "consent",
    "objections",
    "merges",
    "links",
    "events",
    "deliveries",
];

/// What is exported.
enum Of {
    /// One profile: its pointers to events, newest last.
    Person(Box<Person>, Vec<Pointer>),
    /// Everything.
    Space,
}

/// How far an export is.
enum Stage {
    /// What operators have set: one table of it.
    Settings(usize),
    /// Profiles behind a number.
    People(ProfileNo),
    /// Pages of a file.
    Paged(usize, [i64; 2]),
    /// The one profile.
    One,
    /// Events of the one profile, from a place on.
    Events(usize),
    /// The log behind an offset.
    Log(Offset),
    /// Deliveries before a place.
    Deliveries((i32, i64)),
    Manifest,
    Done,
}

/// An export on its way.
struct Export {
    space: SpaceNo,
    name: String,
    now: Timestamp,
    as_of: Offset,
    directory: Arc<Directory>,
    tx: Transaction<'static, Postgres>,
    of: Of,
    stage: Stage,
    manifest: Manifest,
    /// Few at a time: each holds a connection.
    _permit: OwnedSemaphorePermit,
}

/// Pieces of the lines of an export.
pub type Pieces = std::pin::Pin<Box<dyn Stream<Item = Result<Vec<u8>, QueryError>> + Send>>;

impl Reader {
    /// Everything there is of a profile, with its public id; none where there is none. `name` is the space's own.
    pub async fn export_person(
        &self,
        (space, name): (SpaceNo, &str),
        collection: Collection,
        selector: &Selector,
    ) -> Result<Option<(String, Pieces)>, QueryError> {
        let permit = Arc::clone(&self.exports).acquire_owned().await.map_err(|_| QueryError::Stopping)?;
        let mut tx = audiences::begin_snapshot(&self.door(space)).await?;
        let Some(profile) = self.profile_in(&mut tx, space, collection, selector).await? else {
            return Ok(None);
        };
        let directory = self.directory(space, None).await?;
        let numbers = profile.numbers();
        let mut pointers = profile.pointers();
        let ever = (Timestamp::from_millis(i64::MIN), Timestamp::from_millis(i64::MAX));
        for page in timeline::list_pages(&mut *tx, space, &numbers, ever.0, ever.1).await? {
            pointers.extend(decode_pointers(&page).ok_or(DecodeError::Format)?);
        }
        pointers.sort_unstable_by_key(|pointer| pointer.offset);
        pointers.dedup_by_key(|pointer| pointer.offset);
        let person = Person { profile, directory: Arc::clone(&directory) };
        let id = person.id();
        let of = Of::Person(Box::new(person), pointers);
        let export = self.export((space, name), directory, tx, (of, Stage::One), permit).await?;
        Ok(Some((id, export)))
    }

    /// Everything there is of a space.
    pub async fn export_space(&self, (space, name): (SpaceNo, &str)) -> Result<Pieces, QueryError> {
        let permit = Arc::clone(&self.exports).acquire_owned().await.map_err(|_| QueryError::Stopping)?;
        let tx = audiences::begin_snapshot(&self.door(space)).await?;
        let directory = self.directory(space, None).await?;
        self.export((space, name), directory, tx, (Of::Space, Stage::Settings(0)), permit).await
    }

    async fn export(
        &self,
        (space, name): (SpaceNo, &str),
        directory: Arc<Directory>,
        mut tx: Transaction<'static, Postgres>,
        (of, stage): (Of, Stage),
        permit: OwnedSemaphorePermit,
    ) -> Result<Pieces, QueryError> {
        let as_of = exports::as_of(&mut tx, space).await?;
        let mut manifest = Manifest::default();
        let of_log = if matches!(of, Of::Space) { exports::LOG.as_slice() } else { &[] };
        for file in FILES.iter().chain(of_log) {
            manifest.open(file);
        }
        let name = name.to_owned();
        let now = self.clock.now();
        let export = Export { space, name, now, as_of, directory, tx, of, stage, manifest, _permit: permit };
        Ok(Box::pin(stream::try_unfold(export, Export::next)))
    }
}

impl Export {
    async fn next(mut self) -> Result<Option<(Vec<u8>, Self)>, QueryError> {
        let mut out = Vec::new();
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Settings(at) => self.settings(&mut out, at).await?,
            Stage::People(after) => self.people(&mut out, after).await?,
            Stage::Paged(which, after) => self.paged(&mut out, which, after).await?,
            Stage::One => self.one(&mut out).await?,
            Stage::Events(at) => self.events(&mut out, at).await?,
            Stage::Log(after) => self.log(&mut out, after).await?,
            Stage::Deliveries(before) => self.deliveries(&mut out, before).await?,
            Stage::Manifest => self.end(&mut out)?,
            Stage::Done => return Ok(None),
        };
        Ok(Some((out, self)))
    }

    async fn settings(&mut self, out: &mut Vec<u8>, at: usize) -> Result<Stage, QueryError> {
        let Some(table) = exports::TABLES.get(at) else { return Ok(Stage::People(ProfileNo(0))) };
        self.manifest.open(table);
        for row in exports::list_rows(&mut self.tx, self.space, table).await? {
            self.manifest.row(out, table, &RawValue::from_string(row)?)?;
        }
        Ok(Stage::Settings(at + 1))
    }

    async fn people(&mut self, out: &mut Vec<u8>, after: ProfileNo) -> Result<Stage, QueryError> {
        let page = exports::list_profiles(&mut self.tx, self.space, after, READ).await?;
        let Some((last, _)) = page.last() else { return Ok(Stage::Paged(0, [-1, -1])) };
        let last = *last;
        for (_, state) in page {
            let person = Person { profile: Profile::decode(&state)?, directory: Arc::clone(&self.directory) };
            let former: Vec<ProfileNo> = person.profile.kin.get().former.clone();
            self.person(out, &person, &former).await?;
        }
        Ok(Stage::People(last))
    }

    /// What the state of a profile says.
    async fn person(
        &mut self,
        out: &mut Vec<u8>,
        person: &Person,
        former: &[ProfileNo],
    ) -> Result<(), QueryError> {
        let ids = if former.is_empty() {
            Vec::new()
        } else {
            profiles::list_ids(&mut *self.tx, self.space, former).await?
        };
        let former: Vec<String> = ids.into_iter().map(|(_, id)| rows::profile_id(id)).collect();
        self.manifest.row(out, "profiles", &rows::profile(person, &former))?;
        for row in rows::external_ids(person) {
            self.manifest.row(out, "external_ids", &row)?;
        }
        for row in rows::traits(person) {
            self.manifest.row(out, "traits", &row)?;
        }
        for (file, list) in [
            ("memberships", rows::memberships(person)),
            ("consent", rows::consent(person)),
            ("objections", rows::objections(person)),
        ] {
            for row in list {
                self.manifest.row(out, file, &row)?;
            }
        }
        Ok(())
    }

    async fn paged(&mut self, out: &mut Vec<u8>, which: usize, after: [i64; 2]) -> Result<Stage, QueryError> {
        let Some(paged) = Paged::ALL.get(which) else { return Ok(Stage::Log(Offset(0))) };
        let page = paged.read(&mut self.tx, self.space, &after, READ).await?;
        let Some((last, _)) = page.last() else { return Ok(Stage::Paged(which + 1, [-1, -1])) };
        let last = *last;
        for (_, row) in page {
            self.manifest.row(out, paged.file(), &RawValue::from_string(row)?)?;
        }
        Ok(Stage::Paged(which, last))
    }

    async fn one(&mut self, out: &mut Vec<u8>) -> Result<Stage, QueryError> {
        let Of::Person(person, _) = &self.of else { return Ok(Stage::Manifest) };
        let person = Person { profile: person.profile.clone(), directory: Arc::clone(&person.directory) };
        let (id, numbers) = (person.id(), person.profile.numbers());
        let former = person.profile.kin.get().former.clone();
        self.person(out, &person, &former).await?;
        for told in exports::list_transitions(&mut self.tx, self.space, &numbers).await? {
            let at = Timestamp::from(told.at).to_string();
            let row = json!({"profile_id": id, "audience": told.key, "entered": told.entered, "at": at});
            self.manifest.row(out, "transitions", &row)?;
        }
        for merge in identity::list_merges(&mut *self.tx, self.space, &numbers).await? {
            let pair = [merge.survivor, merge.absorbed];
            let ids = profiles::list_ids(&mut *self.tx, self.space, &pair).await?;
            let of = |no: ProfileNo| {
                ids.iter().find(|(known, _)| *known == no).map(|(_, id)| rows::profile_id(*id))
            };
            let row = json!({
                "id": public_id("mrg", merge.id), "at": merge.at.to_string(), "offset": merge.offset.0,
                "survivor": of(merge.survivor), "absorbed": of(merge.absorbed), "message_id": merge.message_id,
                "matched": merge.matched, "manual": merge.manual,
                "undone_at": merge.undone_at.map(|at| at.to_string()),
            });
            self.manifest.row(out, "merges", &row)?;
        }
        let is_user = person.profile.collection == Collection::Users;
        for link in exports::list_links(&mut self.tx, self.space, is_user, &numbers).await? {
            let other = rows::profile_id(link.id);
            let row =
                json!({"profile_id": id, "linked_profile_id": other, "created_at": link.since.to_string()});
            self.manifest.row(out, "links", &row)?;
        }
        Ok(Stage::Events(0))
    }

    async fn events(&mut self, out: &mut Vec<u8>, at: usize) -> Result<Stage, QueryError> {
        let Of::Person(_, pointers) = &self.of else { return Ok(Stage::Manifest) };
        let group = pointers.get(at..).unwrap_or_default();
        let group = group.get(..EVENTS).unwrap_or(group);
        if group.is_empty() {
            return Ok(Stage::Deliveries((i32::MAX, i64::MAX)));
        }
        let offsets: Vec<Offset> = group.iter().map(|pointer| pointer.offset).collect();
        let done = at + group.len();
        for chunk in log::read_containing(&mut *self.tx, self.space, &offsets).await? {
            let content = chunk.content()?;
            for (record, offset) in
                Records::new(&content).map_err(StoreError::from)?.zip(chunk.first_offset().0..)
            {
                let record = record.map_err(StoreError::from)?;
                // Operators' acts have pointers, too, but are no events.
                if !record.act && offsets.binary_search(&Offset(offset)).is_ok() {
                    let row = rows::event(&record, Offset(offset), &self.directory);
                    self.manifest.row(out, "events", &row)?;
                }
            }
        }
        Ok(Stage::Events(done))
    }

    async fn log(&mut self, out: &mut Vec<u8>, after: Offset) -> Result<Stage, QueryError> {
        let chunks = log::read_history(&mut *self.tx, self.space, after, self.as_of, None, CHUNKS).await?;
        let Some(last) = chunks.last() else { return Ok(Stage::Deliveries((i32::MAX, i64::MAX))) };
        let last = last.chunk.end_offset;
        for history in chunks {
            self.manifest.row(out, "chunks", &rows::chunk(&history.chunk))?;
            let content = history.chunk.content()?;
            for (record, offset) in
                Records::new(&content).map_err(StoreError::from)?.zip(history.chunk.first_offset().0..)
            {
                let record = record.map_err(StoreError::from)?;
                if record.act {
                    self.manifest.row(out, "acts", &rows::act(&record, Offset(offset)))?;
                } else {
                    let row = rows::event(&record, Offset(offset), &self.directory);
                    self.manifest.row(out, "events", &row)?;
                }
            }
        }
        Ok(Stage::Log(last))
    }

    async fn deliveries(&mut self, out: &mut Vec<u8>, before: (i32, i64)) -> Result<Stage, QueryError> {
        let profiles = match &self.of {
            Of::Person(person, _) => {
                Some(person.profile.numbers().into_iter().map(|no| no.0 as i64).collect())
            }
            Of::Space => None,
        };
        let filter = history::Filter { profiles, ..history::Filter::default() };
        let page = history::list(&mut *self.tx, self.space, &filter, before, READ).await?;
        let Some(last) = page.last() else { return Ok(Stage::Manifest) };
        let next = (last.destination_no, last.place);
        for delivery in page {
            self.manifest.row(out, "deliveries", &shown(&delivery))?;
        }
        Ok(Stage::Deliveries(next))
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<Stage, QueryError> {
        let profile = match &self.of {
            Of::Person(person, _) => Some(person.id()),
            Of::Space => None,
        };
        let manifest = json!({"manifest": {
            "version": VERSION,
            "kind": if profile.is_some() { "profile" } else { "space" },
            "space": self.name,
            "profile_id": profile,
            "as_of_offset": self.as_of.0,
            "made_at": self.now.to_string(),
            "files": self.manifest.sums(),
        }});
        serde_json::to_writer(&mut *out, &manifest)?;
        out.push(b'\n');
        Ok(Stage::Done)
    }
}

/// A delivery with words instead of numbers.
fn shown(delivery: &Delivery) -> serde_json::Value {
    let instant = |at| Timestamp::from(at).to_string();
    json!({
        "destination_id": public_id("dst", delivery.destination_id),
        "delivery_no": delivery.delivery_no,
        "profile_id": delivery.profile_id.map(rows::profile_id),
        "subject": Subject::from_number(delivery.subject).map_or("", Subject::word),
        "call": Form::from_number(delivery.form).map_or("", Form::word),
        "key": delivery.key,
        "value": serde_json::from_str::<serde_json::Value>(&delivery.value).unwrap_or_default(),
        "at": instant(delivery.at),
        "state": State::from_number(delivery.state).map_or("queued", State::word),
        "attempts": delivery.attempts,
        "code": delivery.code,
        "message": delivery.message,
        "done_at": delivery.done_at.map(instant),
    })
}
