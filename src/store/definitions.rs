//! Audiences and computed traits as operators see them: definitions and their versions.
//!
//! Management writes definitions and `pending` versions and raises the space's configuration version; everything
//! from there on (log position, backfill, swap, clearing) is the processor's, see `computations`.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Result, Walled, processor};
use crate::domain::act::LIST_TRAIT;
use crate::domain::gate::Gates;
use crate::domain::retention::Retention;
use crate::domain::{Collection, ComputationNo, Patch, SpaceNo, Timestamp};

/// Audience or computed trait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Members or not.
    Audience = 0,
    /// A value per profile.
    ComputedTrait = 1,
}

impl Kind {
    pub(super) const fn from_number(number: i16) -> Self {
        if number == 1 { Self::ComputedTrait } else { Self::Audience }
    }

    /// Prefix of its public ids.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Audience => "aud",
            Self::ComputedTrait => "tra",
        }
    }
}

/// What can be chosen with a definition's query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Count profiles that have only anonymous identifiers.
    pub include_anonymous: bool,
    /// Count events received before the version was made.
    pub include_history: bool,
    /// What is asked of members besides the query.
    pub gates: Gates,
    /// For how long events count.
    pub retention: Retention,
}

/// A definition with its newest version and the one that answers.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Number in the space.
    pub no: i32,
    /// Public id.
    pub id: Uuid,
    /// Audience or computed trait.
    pub kind: Kind,
    /// Whose profiles it is about.
    pub collection: Collection,
    /// Name on the profile.
    pub key: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// What it is used for.
    pub purpose: Option<String>,
    /// Whether it is kept up to date.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// The newest version.
    pub latest: Version,
    /// The version that answers, if one is complete.
    pub serving: Option<Version>,
}

/// One version of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Number in the space.
    pub no: ComputationNo,
    /// 1, 2, 3, … within the definition.
    pub version: i32,
    /// Query text.
    pub query: String,
    /// Its options.
    pub options: Options,
    /// `pending`, `backfilling`, `live`, `frozen` (switched off), `superseded`, `failed`.
    pub status: String,
    /// Profiles are being walked for it: for the first time, or again because something it refers to was replaced.
    pub walking: bool,
    /// Why it failed.
    pub failure: Option<String>,
    /// Profiles walked so far, by number.
    pub walked: i64,
    /// Members, or profiles that have a value.
    pub size: i64,
    /// When the size last changed.
    pub changed_at: Timestamp,
    /// When the version was made.
    pub created_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct DefinitionRow {
    definition_no: i32,
    definition_id: Uuid,
    kind: i16,
    collection: i16,
    key: String,
    name: String,
    description: String,
    purpose: Option<String>,
    enabled: bool,
    latest_version: i32,
    serving_no: Option<i32>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Clone, sqlx::FromRow)]
struct VersionRow {
    definition_no: i32,
    computation_no: i32,
    version: i32,
    query: String,
    include_anonymous: bool,
    include_history: bool,
    consent_category: Option<String>,
    enforces_consent: bool,
    requires_human_review: bool,
    retention: Json<Retention>,
    status: String,
    walking: bool,
    failure: Option<String>,
    walked_no: i64,
    size: i64,
    changed_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

impl From<VersionRow> for Version {
    fn from(row: VersionRow) -> Self {
        Self {
            no: ComputationNo(row.computation_no as u32),
            version: row.version,
            query: row.query,
            options: Options {
                include_anonymous: row.include_anonymous,
                include_history: row.include_history,
                gates: Gates {
                    consent_category: row.consent_category,
                    enforces_consent: row.enforces_consent,
                    requires_human_review: row.requires_human_review,
                },
                retention: row.retention.0,
            },
            status: row.status,
            walking: row.walking,
            failure: row.failure,
            walked: row.walked_no,
            size: row.size,
            changed_at: row.changed_at.into(),
            created_at: row.created_at.into(),
        }
    }
}

impl Definition {
    /// Whether its members are told one by one instead of by a query.
    pub fn is_list(&self) -> bool {
        self.latest.is_list()
    }
}

impl Version {
    /// See [`Definition::is_list`]: no other query may name such a trait.
    pub fn is_list(&self) -> bool {
        self.query.contains(LIST_TRAIT)
    }
}

/// All live definitions of a space in order of their keys; of one kind, with these keys, or all.
pub async fn list_definitions(
    door: &Walled,
    space: SpaceNo,
    kind: Option<Kind>,
    keys: Option<&[&str]>,
) -> Result<Vec<Definition>> {
    list_definitions_in(&mut *door.begin().await?, space, kind, keys).await
}

/// The same as a transaction sees them.
pub async fn list_definitions_in(
    connection: &mut PgConnection,
    space: SpaceNo,
    kind: Option<Kind>,
    keys: Option<&[&str]>,
) -> Result<Vec<Definition>> {
    let definitions: Vec<DefinitionRow> = sqlx::query_as(
        "-- store::definitions::list_definitions
         SELECT definition_no, definition_id, kind, collection, key, name, description, purpose, enabled,
             latest_version, serving_no, created_at, updated_at
         FROM definition
         WHERE space_id = $1 AND NOT deleted AND ($2::smallint IS NULL OR kind = $2)
             AND ($3::text[] IS NULL OR key = ANY($3))
         ORDER BY key",
    )
    .bind(space.0)
    .bind(kind.map(|k| k as i16))
    .bind(keys)
    .fetch_all(&mut *connection)
    .await?;
    let numbers: Vec<i32> = definitions.iter().map(|d| d.definition_no).collect();
    let versions: Vec<VersionRow> = sqlx::query_as(
        "-- store::definitions::list_definitions
         SELECT c.definition_no, c.computation_no, c.version, c.query, c.include_anonymous, c.include_history,
             c.consent_category, c.enforces_consent, c.requires_human_review, c.retention, c.status, c.walking, c.failure,
             c.walked_no, c.size, c.changed_at, c.created_at
         FROM computation c
         JOIN definition d ON d.space_id = $1 AND d.definition_no = c.definition_no
         WHERE c.space_id = $1 AND c.definition_no = ANY($2)
             AND (c.version = d.latest_version OR c.computation_no = d.serving_no)",
    )
    .bind(space.0)
    .bind(&numbers)
    .fetch_all(connection)
    .await?;
    Ok(definitions.into_iter().filter_map(|d| assemble(d, &versions)).collect())
}

fn assemble(row: DefinitionRow, versions: &[VersionRow]) -> Option<Definition> {
    let of_it = || versions.iter().filter(|v| v.definition_no == row.definition_no);
    let copy = |v: &VersionRow| Version::from(v.clone());
    Some(Definition {
        no: row.definition_no,
        id: row.definition_id,
        kind: Kind::from_number(row.kind),
        collection: Collection::from_number(row.collection),
        latest: of_it().find(|v| v.version == row.latest_version).map(copy)?,
        serving: of_it().find(|v| Some(v.computation_no) == row.serving_no).map(copy),
        key: row.key,
        name: row.name,
        description: row.description,
        purpose: row.purpose,
        enabled: row.enabled,
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
    })
}

/// A definition about to be made.
#[derive(Debug, Clone)]
pub struct NewDefinition<'a> {
    /// Public id.
    pub id: Uuid,
    /// Audience or computed trait.
    pub kind: Kind,
    /// Whose profiles it is about.
    pub collection: Collection,
    /// Name on the profile.
    pub key: &'a str,
    /// For people.
    pub name: &'a str,
    /// For people.
    pub description: &'a str,
    /// What it is used for.
    pub purpose: Option<&'a str>,
    /// Whether to start at once.
    pub enabled: bool,
    /// Query text.
    pub query: &'a str,
    /// Options.
    pub options: Options,
}

/// Makes a definition with its first version; `Exists` when the key is in use.
pub async fn insert_definition(
    door: &Walled,
    space: SpaceNo,
    new: &NewDefinition<'_>,
    at: Timestamp,
) -> Result<()> {
    let mut tx = door.begin().await?;
    // Taken first: changes of one space's definitions follow one another.
    processor::bump_config(&mut tx, space).await?;
    let no: i32 = sqlx::query_scalar(
        "-- store::definitions::insert_definition
         INSERT INTO definition (space_id, definition_no, definition_id, kind, key, name, description, enabled,
             latest_version, created_at, updated_at, collection, purpose)
         SELECT $1, coalesce(max(definition_no), 0) + 1, $2, $3, $4, $5, $6, $7, 0, $8, $8, $9, $10
         FROM definition WHERE space_id = $1
         RETURNING definition_no",
    )
    .bind(space.0)
    .bind(new.id)
    .bind(new.kind as i16)
    .bind(new.key)
    .bind(new.name)
    .bind(new.description)
    .bind(new.enabled)
    .bind(at.to_utc())
    .bind(new.collection as i16)
    .bind(new.purpose)
    .fetch_one(&mut *tx)
    .await?;
    insert_version(&mut tx, space, no, (new.query, &new.options), at).await?;
    tx.commit().await?;
    Ok(())
}

/// Adds the next version of a definition and makes it the latest. The version of the configuration was raised before.
pub async fn insert_version(
    tx: &mut PgConnection,
    space: SpaceNo,
    definition: i32,
    (query, options): (&str, &Options),
    at: Timestamp,
) -> Result<()> {
    // A version that never got to serve is of no more use.
    let sql = "-- store::definitions::insert_version
         UPDATE computation SET status = 'superseded'
         WHERE space_id = $1 AND definition_no = $2 AND status IN ('pending', 'backfilling', 'failed')";
    sqlx::query(sql).bind(space.0).bind(definition).execute(&mut *tx).await?;
    let sql = "-- store::definitions::insert_version
         UPDATE definition SET latest_version = latest_version + 1, updated_at = $3
         WHERE space_id = $1 AND definition_no = $2 RETURNING latest_version";
    let version: i32 =
        sqlx::query_scalar(sql).bind(space.0).bind(definition).bind(at.to_utc()).fetch_one(&mut *tx).await?;
    sqlx::query(
        "-- store::definitions::insert_version
         INSERT INTO computation (space_id, computation_no, definition_no, version, query, include_anonymous,
             include_history, status, changed_at, created_at, consent_category, enforces_consent, requires_human_review,
             retention)
         SELECT $1, coalesce(max(computation_no), 0) + 1, $2, $3, $4, $5, $6, 'pending', $7, $7, $8, $9, $10, $11
         FROM computation WHERE space_id = $1",
    )
    .bind(space.0)
    .bind(definition)
    .bind(version)
    .bind(query)
    .bind(options.include_anonymous)
    .bind(options.include_history)
    .bind(at.to_utc())
    .bind(&options.gates.consent_category)
    .bind(options.gates.enforces_consent)
    .bind(options.gates.requires_human_review)
    .bind(Json(&options.retention))
    .execute(tx)
    .await?;
    Ok(())
}

/// What an edit changes; `None` leaves as is.
#[derive(Debug, Clone, Default)]
pub struct Edit<'a> {
    /// For people.
    pub name: Option<&'a str>,
    /// For people.
    pub description: Option<&'a str>,
    /// What it is used for.
    pub purpose: Patch<&'a str>,
    /// On or off.
    pub enabled: Option<bool>,
    /// A new version with this query and these options.
    pub version: Option<(&'a str, &'a Options)>,
}

/// Applies an edit.
pub async fn update_definition(
    door: &Walled,
    space: SpaceNo,
    definition: i32,
    edit: &Edit<'_>,
    at: Timestamp,
) -> Result<()> {
    let mut tx = door.begin().await?;
    processor::bump_config(&mut tx, space).await?;
    sqlx::query(
        "-- store::definitions::update_definition
         UPDATE definition SET name = coalesce($3, name), description = coalesce($4, description),
             enabled = coalesce($5, enabled), updated_at = $6,
             purpose = CASE WHEN $7 THEN $8 ELSE purpose END
         WHERE space_id = $1 AND definition_no = $2",
    )
    .bind(space.0)
    .bind(definition)
    .bind(edit.name)
    .bind(edit.description)
    .bind(edit.enabled)
    .bind(at.to_utc())
    .bind(!edit.purpose.is_keep())
    .bind(edit.purpose.over(None))
    .execute(&mut *tx)
    .await?;
    if edit.enabled == Some(false) {
        // What is not kept up to date any more must not be evaluated again: only a new version takes over.
        let sql = "-- store::definitions::update_definition
             UPDATE computation SET status = CASE status WHEN 'live' THEN 'frozen' ELSE 'superseded' END
             WHERE space_id = $1 AND definition_no = $2 AND status IN ('live', 'pending', 'backfilling')";
        sqlx::query(sql).bind(space.0).bind(definition).execute(&mut *tx).await?;
    }
    if let Some((query, options)) = edit.version {
        insert_version(&mut tx, space, definition, (query, options), at).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Marks a definition as deleted: its key is free at once, the processor clears what it left.
pub async fn delete_definition(door: &Walled, space: SpaceNo, definition: i32, at: Timestamp) -> Result<()> {
    let mut tx = door.begin().await?;
    processor::bump_config(&mut tx, space).await?;
    let sql = "-- store::definitions::delete_definition
         UPDATE computation SET status = 'superseded'
         WHERE space_id = $1 AND definition_no = $2 AND status IN ('pending', 'backfilling', 'failed')";
    sqlx::query(sql).bind(space.0).bind(definition).execute(&mut *tx).await?;
    let sql = "-- store::definitions::delete_definition
         UPDATE definition SET deleted = true, enabled = false, updated_at = $3
         WHERE space_id = $1 AND definition_no = $2";
    sqlx::query(sql).bind(space.0).bind(definition).bind(at.to_utc()).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// All versions of a definition, newest first.
pub async fn list_versions(door: &Walled, space: SpaceNo, definition: i32) -> Result<Vec<Version>> {
    let rows: Vec<VersionRow> = sqlx::query_as(
        "-- store::definitions::list_versions
         SELECT definition_no, computation_no, version, query, include_anonymous, include_history, consent_category,
             enforces_consent, requires_human_review, retention, status, failure, walking, walked_no, size, changed_at, created_at
         FROM computation WHERE space_id = $1 AND definition_no = $2 ORDER BY version DESC",
    )
    .bind(space.0)
    .bind(definition)
    .fetch_all(door)
    .await?;
    Ok(rows.into_iter().map(Version::from).collect())
}

/// Size of every serving audience: key, size, when it changed.
pub async fn list_sizes(door: &Walled, space: SpaceNo) -> Result<Vec<(String, i64, Timestamp)>> {
    let rows: Vec<(String, i64, DateTime<Utc>)> = sqlx::query_as(
        "-- store::definitions::list_sizes
         SELECT d.key, c.size, c.changed_at FROM definition d
         JOIN computation c ON c.space_id = $1 AND c.computation_no = d.serving_no
         WHERE d.space_id = $1 AND d.kind = 0 AND NOT d.deleted ORDER BY d.key",
    )
    .bind(space.0)
    .fetch_all(door)
    .await?;
    Ok(rows.into_iter().map(|(key, size, at)| (key, size, at.into())).collect())
}

/// A version that answers for its definition.
#[derive(Debug, Clone)]
pub struct ServingVersion {
    /// Which one.
    pub no: ComputationNo,
    /// Audience or computed trait.
    pub kind: Kind,
    /// What it answers for.
    pub key: String,
    /// What that is used for.
    pub purpose: Option<String>,
    /// What follows from it is decided by a person.
    pub requires_human_review: bool,
}

/// Serving definitions of a space: which version answers for which key.
pub async fn list_serving(door: &Walled, space: SpaceNo) -> Result<Vec<ServingVersion>> {
    let rows: Vec<(i32, i16, String, Option<String>, bool)> = sqlx::query_as(
        "-- store::definitions::list_serving
         SELECT d.serving_no, d.kind, d.key, d.purpose, c.requires_human_review FROM definition d
         JOIN computation c ON c.space_id = $1 AND c.computation_no = d.serving_no
         WHERE d.space_id = $1 AND NOT d.deleted",
    )
    .bind(space.0)
    .fetch_all(door)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(no, kind, key, purpose, requires_human_review)| ServingVersion {
            no: ComputationNo(no as u32),
            kind: Kind::from_number(kind),
            key,
            purpose,
            requires_human_review,
        })
        .collect())
}
