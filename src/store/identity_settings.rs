//! Identity settings as operators change them, and what a change would mean for the profiles there are.

use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use uuid::Uuid;

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

/// A profile that has more than settings allow.
#[derive(Debug, Clone)]
pub struct Excess {
    /// Its public id.
    pub profile: Uuid,
    /// The type it has too many values of; none: it has too many identifiers in all.
    pub type_no: Option<TypeNo>,
    /// How many it has.
    pub values: i64,
    /// How many it may have.
    pub limit: i64,
}

/// Profiles that have more values of a type than its limit, or more identifiers than they may: how many, and those
/// that are most above, `sample` of them. All values count, also those that a window does not count any more.
pub async fn find_excess(
    pool: &PgPool,
    space: SpaceNo,
    settings: &SettingsRow,
    sample: i64,
) -> Result<(i64, Vec<Excess>)> {
    type Row = (Uuid, Option<TypeNo>, i64, i64, i64);
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::identity_settings::find_excess
         WITH held AS (
             SELECT coalesce(p.merged_into, e.profile_no) AS owner, e.type_no, count(*) AS n
             FROM external_id e LEFT JOIN profile p
                 ON p.space_id = e.space_id AND p.profile_no = e.profile_no AND p.merged_into IS NOT NULL
             WHERE e.space_id = $1 GROUP BY 1, 2
         ), excess AS (
             SELECT h.owner, h.type_no, h.n, l.most::bigint AS most
             FROM held h JOIN unnest($2::smallint[], $3::int[]) AS l (type_no, most) ON l.type_no = h.type_no
             WHERE h.n > l.most
             UNION ALL
             SELECT owner, NULL, sum(n)::bigint, $4::bigint FROM held GROUP BY owner HAVING sum(n) > $4
         )
         SELECT p.profile_id, x.type_no, x.n, x.most, (SELECT count(DISTINCT owner) FROM excess)
         FROM excess x JOIN profile p ON p.space_id = $1 AND p.profile_no = x.owner
         ORDER BY x.n - x.most DESC, x.owner, x.type_no LIMIT $5",
    )
    .bind(space.0)
    .bind(settings.types.iter().map(|t| t.no).collect::<Vec<_>>())
    .bind(settings.types.iter().map(|t| t.limit as i32).collect::<Vec<_>>())
    .bind(i64::from(settings.identifiers_max))
    .bind(sample)
    .fetch_all(pool)
    .await?;
    let profiles = rows.first().map_or(0, |row| row.4);
    let excess = |(profile, type_no, values, limit, _): Row| Excess { profile, type_no, values, limit };
    Ok((profiles, rows.into_iter().map(excess).collect()))
}
