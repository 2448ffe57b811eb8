//! Identity settings, identifiers, merges and refusals.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{Result, StoreError, Walled};
use crate::domain::id_type::{Frequency, IdType};
use crate::domain::identifier::IdKey;
use crate::domain::{Collection, Offset, ProfileNo, SpaceNo, Timestamp};

/// The settings of a space as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsRow {
    /// Raised by every change.
    pub version: i64,
    /// Unknown types in `externalIds` are added.
    pub add_unknown_types: bool,
    /// Merges per profile.
    pub merges_max: i32,
    /// Identifiers per profile.
    pub identifiers_max: i32,
    /// Profiles a value is refused to before it is put into quarantine; 0: none is.
    pub quarantine_threshold: i32,
    /// The types.
    pub types: Vec<IdType>,
}

/// Default caps (decisions I5).
pub const MERGES_MAX: i32 = 100;
/// Default caps (decisions I5).
pub const IDENTIFIERS_MAX: i32 = 1_000;

/// Gives a new space the default settings.
pub async fn insert_default_settings(tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
    sqlx::query(
        "-- store::identity::insert_default_settings
         INSERT INTO identity_settings (space_id, version, add_unknown_types, merges_max, identifiers_max)
         VALUES ($1, 1, true, $2, $3)",
    )
    .bind(space.0)
    .bind(MERGES_MAX)
    .bind(IDENTIFIERS_MAX)
    .execute(&mut *tx)
    .await?;
    for id_type in IdType::defaults() {
        upsert_type(tx, space, &id_type).await?;
    }
    Ok(())
}

/// Adds or replaces a type and raises the settings' version.
pub async fn upsert_type(tx: &mut PgConnection, space: SpaceNo, row: &IdType) -> Result<()> {
    write_type(tx, space, row).await?;
    let sql = "-- store::identity::upsert_type\nUPDATE identity_settings SET version = version + 1 WHERE space_id = $1";
    sqlx::query(sql).bind(space.0).execute(&mut *tx).await?;
    super::processor::bump_config(tx, space).await
}

/// Adds or replaces a type.
pub(super) async fn write_type(tx: &mut PgConnection, space: SpaceNo, row: &IdType) -> Result<()> {
    sqlx::query(
        "-- store::identity::write_type
         INSERT INTO identity_type (space_id, type_no, name, keys, value_limit, frequency, priority, case_insensitive,
             blocked_exact, blocked_patterns)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (space_id, type_no) DO UPDATE SET keys = excluded.keys, value_limit = excluded.value_limit,
             frequency = excluded.frequency, priority = excluded.priority,
             case_insensitive = excluded.case_insensitive, blocked_exact = excluded.blocked_exact,
             blocked_patterns = excluded.blocked_patterns",
    )
    .bind(space.0)
    .bind(row.no)
    .bind(&row.name)
    .bind(&row.keys)
    .bind(row.limit as i32)
    .bind(row.frequency.as_str())
    .bind(row.priority)
    .bind(row.case_insensitive)
    .bind(&row.blocked_exact)
    .bind(&row.blocked_patterns)
    .execute(tx)
    .await?;
    Ok(())
}

/// The settings of a space.
pub async fn get_settings(connection: &mut PgConnection, space: SpaceNo) -> Result<SettingsRow> {
    type Row = (i16, String, Vec<String>, i32, String, Option<i32>, bool, Vec<String>, Vec<String>);
    let (version, add_unknown_types, merges_max, identifiers_max, quarantine_threshold) = sqlx::query_as(
        "-- store::identity::get_settings
         SELECT version, add_unknown_types, merges_max, identifiers_max, quarantine_threshold
         FROM identity_settings WHERE space_id = $1",
    )
    .bind(space.0)
    .fetch_one(&mut *connection)
    .await?;
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::identity::get_settings
         SELECT type_no, name, keys, value_limit, frequency, priority, case_insensitive, blocked_exact,
             blocked_patterns
         FROM identity_type WHERE space_id = $1 ORDER BY type_no",
    )
    .bind(space.0)
    .fetch_all(connection)
    .await?;
    let row = |(no, name, keys, limit, frequency, priority, case_insensitive, exact, patterns): Row| IdType {
        no,
        name,
        keys,
        limit: limit.max(0) as u32,
        frequency: Frequency::parse(&frequency).unwrap_or(Frequency::Ever),
        priority,
        case_insensitive,
        blocked_exact: exact,
        blocked_patterns: patterns,
    };
    let types = rows.into_iter().map(row).collect();
    Ok(SettingsRow { version, add_unknown_types, merges_max, identifiers_max, quarantine_threshold, types })
}

/// The profiles that brought these identifiers; those nobody has are left out. A profile may have been absorbed
/// since, see [`super::profiles::load_states`].
pub async fn find_owners(
    connection: &mut PgConnection,
    space: SpaceNo,
    keys: &[IdKey],
) -> Result<Vec<(IdKey, ProfileNo)>> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "-- store::identity::find_owners
         SELECT e.id_key, e.profile_no FROM unnest($2::uuid[]) AS w (id_key)
         JOIN external_id e ON e.space_id = $1 AND e.id_key = w.id_key",
    )
    .bind(space.0)
    .bind(keys.iter().map(|k| k.to_uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(key, no)| (IdKey(key.as_u128()), ProfileNo(no as u64))).collect())
}

/// An identifier that is new to the space.
#[derive(Debug, Clone)]
pub struct NewIdentifier {
    /// What it is found by.
    pub key: IdKey,
    /// Its type.
    pub type_no: i16,
    /// The profile that brought it.
    pub profile: ProfileNo,
    /// Its value.
    pub value: String,
}

/// Adds identifiers; in the order of their keys, so that the index is walked once.
pub async fn insert_identifiers(tx: &mut PgConnection, space: SpaceNo, new: &[NewIdentifier]) -> Result<()> {
    sqlx::query(
        "-- store::identity::insert_identifiers
         INSERT INTO external_id (space_id, id_key, type_no, profile_no, value)
         SELECT $1, * FROM unnest($2::uuid[], $3::smallint[], $4::bigint[], $5::text[])",
    )
    .bind(space.0)
    .bind(new.iter().map(|n| n.key.to_uuid()).collect::<Vec<_>>())
    .bind(new.iter().map(|n| n.type_no).collect::<Vec<_>>())
    .bind(new.iter().map(|n| n.profile.0 as i64).collect::<Vec<_>>())
    .bind(new.iter().map(|n| n.value.as_str()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// Removes identifiers: nobody has them any more.
pub async fn delete_identifiers(tx: &mut PgConnection, space: SpaceNo, keys: &[IdKey]) -> Result<()> {
    let sql = "-- store::identity::delete_identifiers
         DELETE FROM external_id WHERE space_id = $1 AND id_key = ANY($2)";
    let keys: Vec<Uuid> = keys.iter().map(|k| k.to_uuid()).collect();
    sqlx::query(sql).bind(space.0).bind(&keys).execute(tx).await?;
    Ok(())
}

/// A merge as it is remembered.
#[derive(Debug, Clone)]
pub struct Merge {
    /// Public id.
    pub id: Uuid,
    /// The event that caused it.
    pub offset: Offset,
    /// Who stayed.
    pub survivor: ProfileNo,
    /// Who was absorbed.
    pub absorbed: ProfileNo,
    /// When (time of receipt of the event).
    pub at: Timestamp,
    /// The event's message id.
    pub message_id: String,
    /// The identifiers that matched: `[{"type","id"}]`.
    pub matched: serde_json::Value,
    /// An operator made it, not an event.
    pub manual: bool,
    /// When it was taken back.
    pub undone_at: Option<Timestamp>,
}

/// Remembers merges.
pub async fn insert_merges(tx: &mut PgConnection, space: SpaceNo, merges: &[Merge]) -> Result<()> {
    sqlx::query(
        "-- store::identity::insert_merges
         INSERT INTO profile_merge
             (space_id, log_offset, absorbed_no, survivor_no, merge_id, merged_at, message_id, matched, manual)
         SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::timestamptz[], $7::text[],
             $8::jsonb[], $9::bool[])",
    )
    .bind(space.0)
    .bind(merges.iter().map(|m| m.offset.0 as i64).collect::<Vec<_>>())
    .bind(merges.iter().map(|m| m.absorbed.0 as i64).collect::<Vec<_>>())
    .bind(merges.iter().map(|m| m.survivor.0 as i64).collect::<Vec<_>>())
    .bind(merges.iter().map(|m| m.id).collect::<Vec<_>>())
    .bind(merges.iter().map(|m| m.at.to_utc()).collect::<Vec<_>>())
    .bind(merges.iter().map(|m| m.message_id.as_str()).collect::<Vec<_>>())
    .bind(merges.iter().map(|m| &m.matched).collect::<Vec<_>>())
    .bind(merges.iter().map(|m| m.manual).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// Points absorbed profiles, and all they had absorbed before, at their survivor: one hop for ever. When they were seen
/// last is the survivor's to say.
pub async fn redirect_profiles(
    tx: &mut PgConnection,
    space: SpaceNo,
    redirects: &[(ProfileNo, ProfileNo)],
) -> Result<()> {
    let done = sqlx::query(
        "-- store::identity::redirect_profiles
         UPDATE profile p SET merged_into = r.survivor, state = '', last_seen_at = p.created_at
         FROM unnest($2::bigint[], $3::bigint[]) AS r (former, survivor)
         WHERE p.space_id = $1 AND p.profile_no = r.former",
    )
    .bind(space.0)
    .bind(redirects.iter().map(|(former, _)| former.0 as i64).collect::<Vec<_>>())
    .bind(redirects.iter().map(|(_, survivor)| survivor.0 as i64).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    if done.rows_affected() as usize == redirects.len() {
        Ok(())
    } else {
        Err(StoreError::Damaged("a merge refers to a profile that does not exist".into()))
    }
}

/// A refused identifier as it is remembered: once per profile, rule and value.
#[derive(Debug, Clone)]
pub struct RefusalRow {
    /// The profile the event went to; 0 for none.
    pub profile: ProfileNo,
    /// The rule.
    pub rule: String,
    /// Identifier type.
    pub id_type: String,
    /// Identifier value.
    pub value: String,
    /// How often.
    pub occurrences: i64,
    /// The first event it happened to.
    pub first_offset: Offset,
    /// That event's message id.
    pub message_id: String,
    /// When it happened first (time of receipt).
    pub first_at: Timestamp,
    /// When it happened last.
    pub last_at: Timestamp,
}

impl RefusalRow {
    /// What makes two refusals of a profile the same one.
    pub fn key(&self) -> IdKey {
        IdKey::of(Collection::Users, &format!("{}/{}", self.rule, self.id_type), &self.value)
    }
}

type MergeRow = (Uuid, i64, i64, i64, DateTime<Utc>, String, serde_json::Value, bool, Option<DateTime<Utc>>);

fn merge((id, offset, survivor, absorbed, at, message_id, matched, manual, undone_at): MergeRow) -> Merge {
    Merge {
        id,
        offset: Offset(offset as u64),
        survivor: ProfileNo(survivor as u64),
        absorbed: ProfileNo(absorbed as u64),
        at: at.into(),
        message_id,
        matched,
        manual,
        undone_at: undone_at.map(Timestamp::from),
    }
}

/// Merges into any of these profile numbers, and those of them that were taken back, oldest first.
pub async fn list_merges(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    profiles: &[ProfileNo],
) -> Result<Vec<Merge>> {
    let rows: Vec<MergeRow> = sqlx::query_as(
        "-- store::identity::list_merges
         SELECT merge_id, log_offset, survivor_no, absorbed_no, merged_at, message_id, matched, manual, undone_at
         FROM profile_merge
         WHERE space_id = $1
             AND (survivor_no = ANY($2) OR (undone_at IS NOT NULL AND absorbed_no = ANY($2)))
         ORDER BY log_offset, absorbed_no",
    )
    .bind(space.0)
    .bind(profiles.iter().map(|p| p.0 as i64).collect::<Vec<_>>())
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(merge).collect())
}

/// A merge by its public id.
pub async fn find_merge(executor: impl PgExecutor<'_>, space: SpaceNo, id: Uuid) -> Result<Option<Merge>> {
    let row: Option<MergeRow> = sqlx::query_as(
        "-- store::identity::find_merge
         SELECT merge_id, log_offset, survivor_no, absorbed_no, merged_at, message_id, matched, manual, undone_at
         FROM profile_merge WHERE space_id = $1 AND merge_id = $2",
    )
    .bind(space.0)
    .bind(id)
    .fetch_optional(executor)
    .await?;
    Ok(row.map(merge))
}

/// The newest refusals of these profile numbers.
pub async fn list_refusals(
    door: &Walled,
    space: SpaceNo,
    profiles: &[ProfileNo],
    limit: i64,
) -> Result<Vec<RefusalRow>> {
    type Row = (i64, String, String, String, i64, i64, String, DateTime<Utc>, DateTime<Utc>);
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::identity::list_refusals
         SELECT profile_no, rule, type, value, occurrences, first_offset, message_id, first_at, last_at
         FROM identity_refusal
         WHERE space_id = $1 AND profile_no = ANY($2) ORDER BY last_at DESC, first_offset DESC LIMIT $3",
    )
    .bind(space.0)
    .bind(profiles.iter().map(|p| p.0 as i64).collect::<Vec<_>>())
    .bind(limit)
    .fetch_all(door)
    .await?;
    let refusal =
        |(profile, rule, id_type, value, occurrences, offset, message_id, first_at, last_at): Row| {
            RefusalRow {
                profile: ProfileNo(profile as u64),
                rule,
                id_type,
                value,
                occurrences,
                first_offset: Offset(offset as u64),
                message_id,
                first_at: first_at.into(),
                last_at: last_at.into(),
            }
        };
    Ok(rows.into_iter().map(refusal).collect())
}
