//! What spaces have taken: events by month, counted where they are appended (`store::log`).

use chrono::NaiveDate;
use sqlx::postgres::PgPool;

use super::{Result, Walled};
use crate::domain::SpaceNo;
use crate::domain::month::Month;

/// What some spaces have in a month: events and profiles.
pub async fn list_usage(pool: &PgPool, spaces: &[SpaceNo], month: Month) -> Result<Vec<(SpaceNo, u64, u64)>> {
    let sql = "-- store::usage::list_usage
         SELECT p.space_id, coalesce(u.events, 0), p.users + p.accounts FROM processor p
         LEFT JOIN usage_month u ON u.space_id = p.space_id AND u.month = $2
         WHERE p.space_id = ANY ($1)";
    let numbers: Vec<i32> = spaces.iter().map(|space| space.0).collect();
    let rows: Vec<(i32, i64, i64)> =
        sqlx::query_as(sql).bind(numbers).bind(month.first_day()).fetch_all(pool).await?;
    let shown = |(space, events, profiles): (i32, i64, i64)| {
        (SpaceNo(space), events.max(0) as u64, profiles.max(0) as u64)
    };
    Ok(rows.into_iter().map(shown).collect())
}

/// Events of a space by month, newest first.
pub async fn list_months(door: &Walled, space: SpaceNo, limit: i64) -> Result<Vec<(Month, u64)>> {
    let sql = "-- store::usage::list_months
         SELECT month, events FROM usage_month WHERE space_id = $1 ORDER BY month DESC LIMIT $2";
    let rows: Vec<(NaiveDate, i64)> = sqlx::query_as(sql).bind(space.0).bind(limit).fetch_all(door).await?;
    Ok(rows.into_iter().map(|(month, events)| (Month::of_day(month), events.max(0) as u64)).collect())
}
