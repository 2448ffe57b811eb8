//! Spaces and their plans.

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{FromRow, Row};

use super::registry::{Space, bump};
use super::{Result, StoreError};
use crate::domain::{Plan, PlanState, SpaceNo, Timestamp};

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
    Ok(Plan {
        // Only a newer release writes a word this one does not know: better to take events than to lose them.
        state: PlanState::parse(row.try_get("plan_state")?).unwrap_or_default(),
        starts_at: at("plan_starts_at")?,
        ends_at: at("plan_ends_at")?,
    })
}

/// All spaces.
pub async fn list_spaces(pool: &PgPool) -> Result<Vec<Space>> {
    let sql = "-- store::spaces::list_spaces
         SELECT space_id, key, name, plan_state, plan_starts_at, plan_ends_at, created_at FROM space";
    Ok(sqlx::query_as(sql).fetch_all(pool).await?)
}

/// Makes a space with everything that belongs to one: log, processor and default identity settings.
/// `Exists` when the key is taken.
pub async fn insert_space(pool: &PgPool, key: &str, name: &str, at: Timestamp) -> Result<Space> {
    let mut tx = pool.begin().await?;
    // Taken first, so that two processes making spaces at once number them one after the other.
    bump(&mut tx).await?;
    let space: Space = sqlx::query_as(
        "-- store::spaces::insert_space
         INSERT INTO space (space_id, key, name, created_at)
         SELECT coalesce(max(space_id), 0) + 1, $1, $2, $3 FROM space
         RETURNING space_id, key, name, plan_state, plan_starts_at, plan_ends_at, created_at",
    )
    .bind(key)
    .bind(name)
    .bind(at.to_utc())
    .fetch_one(&mut *tx)
    .await?;
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

/// Changes the plan of a space to what `change` makes of the present one, which nobody else changes meanwhile. An
/// error of `change` leaves everything as it is.
pub async fn update_plan<E: From<StoreError>>(
    pool: &PgPool,
    space: SpaceNo,
    change: impl FnOnce(Plan) -> std::result::Result<Plan, E>,
) -> std::result::Result<Plan, E> {
    let mut tx = pool.begin().await.map_err(StoreError::from)?;
    // Its row lock is what keeps others out.
    bump(&mut tx).await?;
    let present = sqlx::query(
        "-- store::spaces::update_plan
         SELECT plan_state, plan_starts_at, plan_ends_at FROM space WHERE space_id = $1",
    )
    .bind(space.0)
    .fetch_one(&mut *tx)
    .await
    .and_then(|row| plan(&row))
    .map_err(StoreError::from)?;
    let changed = change(present)?;
    sqlx::query(
        "-- store::spaces::update_plan
         UPDATE space SET plan_state = $2, plan_starts_at = $3, plan_ends_at = $4 WHERE space_id = $1",
    )
    .bind(space.0)
    .bind(changed.state.as_str())
    .bind(changed.starts_at.map(Timestamp::to_utc))
    .bind(changed.ends_at.map(Timestamp::to_utc))
    .execute(&mut *tx)
    .await
    .map_err(StoreError::from)?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(changed)
}
