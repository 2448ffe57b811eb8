//! Spaces and their plans.

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{FromRow, PgExecutor, Row};

use super::registry::{Space, bump};
use super::{Result, StoreError, Walled};
use crate::domain::plan::PlanLimits;
use crate::domain::{Plan, PlanState, SpaceNo, Timestamp};

/// The columns of a space with its plan.
macro_rules! columns {
    () => {
        "space_id, key, name, created_at, plan_state, plan_reason, plan_starts_at, plan_ends_at, plan_ended_at,
         plan_export_days, plan_purge_at, plan_collects, plan_events_per_month_max, plan_events_per_second_max,
         plan_profiles_max, plan_audiences_max, plan_computed_traits_max"
    };
}

impl FromRow<'_, PgRow> for Space {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            no: SpaceNo(row.try_get("space_id")?),
            key: row.try_get("key")?,
            name: row.try_get("name")?,
            plan: plan(row)?,
            created_at: row.try_get::<DateTime<Utc>, _>("created_at")?.into(),
        })
    }
}

fn plan(row: &PgRow) -> sqlx::Result<Plan> {
    let at = |column| row.try_get::<Option<DateTime<Utc>>, _>(column).map(|at| at.map(Timestamp::from));
    let count = |column| {
        row.try_get::<Option<i64>, _>(column).map(|most| most.and_then(|most| u64::try_from(most).ok()))
    };
    let per_second: Option<i32> = row.try_get("plan_events_per_second_max")?;
    Ok(Plan {
        // Only a newer release writes a word this one does not know: better to take events than to lose them.
        state: PlanState::parse(row.try_get("plan_state")?).unwrap_or_default(),
        reason: row.try_get("plan_reason")?,
        starts_at: at("plan_starts_at")?,
        ends_at: at("plan_ends_at")?,
        ended_at: at("plan_ended_at")?,
        export_days: u16::try_from(row.try_get::<i32, _>("plan_export_days")?).unwrap_or(u16::MAX),
        purge_asked_at: at("plan_purge_at")?,
        collects: row.try_get("plan_collects")?,
        limits: PlanLimits {
            events_per_month: count("plan_events_per_month_max")?,
            events_per_second: per_second.and_then(|most| u32::try_from(most).ok()),
            profiles: count("plan_profiles_max")?,
            audiences: count("plan_audiences_max")?,
            computed_traits: count("plan_computed_traits_max")?,
        },
    })
}

/// All spaces.
pub async fn list_spaces(pool: &PgPool) -> Result<Vec<Space>> {
    let sql = concat!("-- store::spaces::list_spaces\nSELECT ", columns!(), " FROM space");
    Ok(sqlx::query_as(sql).fetch_all(pool).await?)
}

/// A space; `None` when there is none of this number.
pub async fn find_space(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Option<Space>> {
    let sql = concat!("-- store::spaces::find_space\nSELECT ", columns!(), " FROM space WHERE space_id = $1");
    Ok(sqlx::query_as(sql).bind(space.0).fetch_optional(executor).await?)
}

/// Makes a space with everything that belongs to one: log, processor and default identity settings. The number of one that
/// was purged is not given again. `Exists` when the key is taken.
pub async fn insert_space(pool: &PgPool, key: &str, name: &str, at: Timestamp) -> Result<Space> {
    let mut tx = pool.begin().await?;
    // Taken first, so that two processes making spaces at once number them one after the other.
    bump(&mut tx).await?;
    let sql = concat!(
        "-- store::spaces::insert_space
         INSERT INTO space (space_id, key, name, created_at)
         SELECT greatest(coalesce(max(space_id), 0), (SELECT coalesce(max(space_id), 0) FROM purge_report)) + 1,
             $1, $2, $3 FROM space
         RETURNING ",
        columns!()
    );
    let insert = sqlx::query_as(sql).bind(key).bind(name).bind(at.to_utc());
    let space: Space = insert.fetch_one(&mut *tx).await?;
    for sql in [
        "-- store::spaces::insert_space\nINSERT INTO log_head (space_id) VALUES ($1)",
        "-- store::spaces::insert_space\nINSERT INTO processor (space_id) VALUES ($1)",
    ] {
        sqlx::query(sql).bind(space.no.0).execute(&mut *tx).await?;
    }
    super::identity::insert_default_settings(&mut tx, space.no).await?;
    super::search::insert_default_traits(&mut tx, space.no).await?;
    tx.commit().await?;
    Ok(space)
}

/// Gives a space another name.
pub async fn rename(door: &Walled, space: SpaceNo, name: &str) -> Result<()> {
    let mut tx = door.begin().await?;
    bump(&mut tx).await?;
    let sql = "-- store::spaces::rename\nUPDATE space SET name = $2 WHERE space_id = $1";
    sqlx::query(sql).bind(space.0).bind(name).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Changes the plan of a space to what `change` makes of the present one, which nobody else changes meanwhile. An
/// error of `change` leaves everything as it is.
pub async fn update_plan<E: From<StoreError>>(
    door: &Walled,
    space: SpaceNo,
    change: impl FnOnce(Plan) -> std::result::Result<Plan, E>,
) -> std::result::Result<Plan, E> {
    let mut tx = door.begin().await?;
    // Its row lock is what keeps others out.
    bump(&mut tx).await?;
    let sql =
        concat!("-- store::spaces::update_plan\nSELECT ", columns!(), " FROM space WHERE space_id = $1");
    let present = sqlx::query_as(sql).bind(space.0).fetch_one(&mut *tx).await;
    let present: Space = present.map_err(StoreError::from)?;
    let changed = change(present.plan)?;
    let limits = changed.limits;
    let count = |most: Option<u64>| most.map(|most| i64::try_from(most).unwrap_or(i64::MAX));
    sqlx::query(
        "-- store::spaces::update_plan
         UPDATE space SET plan_state = $2, plan_starts_at = $3, plan_ends_at = $4, plan_reason = $5, plan_ended_at = $6,
             plan_export_days = $7, plan_purge_at = $8, plan_collects = $9, plan_events_per_month_max = $10,
             plan_events_per_second_max = $11, plan_profiles_max = $12, plan_audiences_max = $13,
             plan_computed_traits_max = $14
         WHERE space_id = $1",
    )
    .bind(space.0)
    .bind(changed.state.as_str())
    .bind(changed.starts_at.map(Timestamp::to_utc))
    .bind(changed.ends_at.map(Timestamp::to_utc))
    .bind(&changed.reason)
    .bind(changed.ended_at.map(Timestamp::to_utc))
    .bind(i32::from(changed.export_days))
    .bind(changed.purge_asked_at.map(Timestamp::to_utc))
    .bind(changed.collects)
    .bind(count(limits.events_per_month))
    .bind(limits.events_per_second.map(|most| i32::try_from(most).unwrap_or(i32::MAX)))
    .bind(count(limits.profiles))
    .bind(count(limits.audiences))
    .bind(count(limits.computed_traits))
    .execute(&mut *tx)
    .await
    .map_err(StoreError::from)?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(changed)
}
