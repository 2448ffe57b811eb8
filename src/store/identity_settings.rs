//! Identity settings as operators change them.

use sqlx::PgConnection;
use sqlx::postgres::PgPool;

use super::identity::{SettingsRow, get_settings, write_type};
use super::{Result, StoreError, processor};
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
pub async fn read_settings(pool: &PgPool, space: SpaceNo) -> Result<SettingsRow> {
    get_settings(&mut *pool.acquire().await?, space).await
}

/// Changes the settings of a space to what `change` makes of the present ones, which nobody else changes meanwhile; the
/// processor takes them in between two batches. An error of `change` leaves everything as it is, and so does a change
/// that changes nothing. Types are told apart by their numbers.
pub async fn change_settings<E: From<StoreError>>(
    pool: &PgPool,
    space: SpaceNo,
    change: impl FnOnce(&SettingsRow) -> std::result::Result<SettingsRow, E>,
) -> std::result::Result<Changed, E> {
    let mut tx = pool.begin().await.map_err(StoreError::from)?;
    // Its row lock keeps others out: other changes, and batches of the processor, which add types as well.
    processor::bump_config(&mut tx, space).await?;
    let present = get_settings(&mut tx, space).await?;
    let mut wanted = change(&present)?;
    if wanted == present {
        return Ok(Changed::To(present));
    }
    let is_gone = |t: &&IdType| !wanted.types.iter().any(|w| w.no == t.no);
    let gone: Vec<TypeNo> = present.types.iter().filter(is_gone).map(|t| t.no).collect();
    if let Some(held) = delete_types(&mut tx, space, &gone).await? {
        return Ok(Changed::Held(held));
    }
    for id_type in wanted.types.iter().filter(|t| !present.types.contains(t)) {
        write_type(&mut tx, space, id_type).await?;
    }
    wanted.version = write_head(&mut tx, space, &wanted).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(Changed::To(wanted))
}

/// Removes types, unless a profile has an identifier of one of them: then that one is told and nothing is removed.
async fn delete_types(tx: &mut PgConnection, space: SpaceNo, types: &[TypeNo]) -> Result<Option<TypeNo>> {
    if types.is_empty() {
        return Ok(None);
    }
    let sql = "-- store::identity_settings::delete_types
         SELECT type_no FROM external_id WHERE space_id = $1 AND type_no = ANY($2) LIMIT 1";
    let held: Option<TypeNo> =
        sqlx::query_scalar(sql).bind(space.0).bind(types).fetch_optional(&mut *tx).await?;
    if held.is_none() {
        let sql = "-- store::identity_settings::delete_types
             DELETE FROM identity_type WHERE space_id = $1 AND type_no = ANY($2)";
        sqlx::query(sql).bind(space.0).bind(types).execute(tx).await?;
    }
    Ok(held)
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
