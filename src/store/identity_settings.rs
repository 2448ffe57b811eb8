//! Identity settings as operators change them.

use sqlx::{PgConnection, PgExecutor};

use super::identity::{SettingsRow, get_settings, write_type};
use super::{Result, StoreError, Walled, processor};
use crate::domain::SpaceNo;
use crate::domain::id_type::{IdType, TypeNo};

/// What became of a change.
#[derive(Debug, Clone)]
pub enum Changed {
    /// These are the settings now.
    To(SettingsRow),
    /// Nothing was changed: profiles have identifiers of a type that was to be removed.
    Held(TypeNo),
}

/// The settings of a space, for reading.
pub async fn read_settings(door: &Walled, space: SpaceNo) -> Result<SettingsRow> {
    get_settings(&mut *door.begin().await?, space).await
}

/// Changes the settings of a space to what `change` makes of the present ones, which nobody else changes meanwhile; the
/// processor takes them in between two batches. An error of `change` leaves everything as it is, and so does a change
/// that changes nothing. Types are told apart by their numbers.
pub async fn change_settings<E: From<StoreError>>(
    door: &Walled,
    space: SpaceNo,
    change: impl FnOnce(&SettingsRow) -> std::result::Result<SettingsRow, E>,
) -> std::result::Result<Changed, E> {
    let mut tx = door.begin().await?;
    // Its row lock keeps others out: other changes, and batches of the processor, which add types as well.
    processor::bump_config(&mut tx, space).await?;
    let present = get_settings(&mut tx, space).await?;
    let mut wanted = change(&present)?;
    if wanted == present {
        return Ok(Changed::To(present));
    }
    if let Some(held) = find_held(&mut *tx, space, &gone(&present, &wanted)).await? {
        return Ok(Changed::Held(held));
    }
    wanted.version = replace(&mut tx, space, &wanted).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(Changed::To(wanted))
}

/// Types that are there and would not be any more.
pub fn gone(present: &SettingsRow, wanted: &SettingsRow) -> Vec<TypeNo> {
    let is_gone = |t: &&IdType| !wanted.types.iter().any(|w| w.no == t.no);
    present.types.iter().filter(is_gone).map(|t| t.no).collect()
}

/// One of these types of which profiles have identifiers.
pub async fn find_held(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    types: &[TypeNo],
) -> Result<Option<TypeNo>> {
    if types.is_empty() {
        return Ok(None);
    }
    let sql = "-- store::identity_settings::find_held
         SELECT type_no FROM external_id WHERE space_id = $1 AND type_no = ANY($2) LIMIT 1";
    Ok(sqlx::query_scalar(sql).bind(space.0).bind(types).fetch_optional(executor).await?)
}

/// Writes these settings over those there are; gives their version. Who removes types makes sure that nobody has them.
pub async fn replace(tx: &mut PgConnection, space: SpaceNo, wanted: &SettingsRow) -> Result<i64> {
    let present = get_settings(tx, space).await?;
    let gone = gone(&present, wanted);
    if !gone.is_empty() {
        let sql = "-- store::identity_settings::replace
             DELETE FROM identity_type WHERE space_id = $1 AND type_no = ANY($2)";
        sqlx::query(sql).bind(space.0).bind(gone).execute(&mut *tx).await?;
    }
    for id_type in wanted.types.iter().filter(|t| !present.types.contains(t)) {
        write_type(&mut *tx, space, id_type).await?;
    }
    write_head(tx, space, wanted).await
}

/// Writes all but the types; gives the new version.
async fn write_head(tx: &mut PgConnection, space: SpaceNo, row: &SettingsRow) -> Result<i64> {
    let version = sqlx::query_scalar(
        "-- store::identity_settings::write_head
         UPDATE identity_settings
         SET version = version + 1, add_unknown_types = $2, merges_max = $3, identifiers_max = $4,
             quarantine_threshold = $5
         WHERE space_id = $1 RETURNING version",
    )
    .bind(space.0)
    .bind(row.add_unknown_types)
    .bind(row.merges_max)
    .bind(row.identifiers_max)
    .bind(row.quarantine_threshold)
    .fetch_one(tx)
    .await?;
    Ok(version)
}
