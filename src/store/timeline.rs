//! Event pointers that no longer fit a profile's state row.

use sqlx::{PgConnection, PgExecutor};

use super::Result;
use crate::domain::{Offset, ProfileNo, SpaceNo, Timestamp};

/// Some dozens of pointers of one profile.
#[derive(Debug, Clone)]
pub struct PointerPage {
    /// Whose.
    pub profile: ProfileNo,
    /// Offset of the first pointer.
    pub first_offset: Offset,
    /// Earliest event time.
    pub min_at: Timestamp,
    /// Latest event time.
    pub max_at: Timestamp,
    /// The encoded pointers.
    pub pointers: Vec<u8>,
}

/// Adds pages.
pub async fn insert_pages(tx: &mut PgConnection, space: SpaceNo, pages: &[PointerPage]) -> Result<()> {
    sqlx::query(
        "-- store::timeline::insert_pages
         INSERT INTO profile_event_page (space_id, profile_no, first_offset, min_at, max_at, pointers)
         SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[])",
    )
    .bind(space.0)
    .bind(pages.iter().map(|p| p.profile.0 as i64).collect::<Vec<_>>())
    .bind(pages.iter().map(|p| p.first_offset.0 as i64).collect::<Vec<_>>())
    .bind(pages.iter().map(|p| p.min_at.millis()).collect::<Vec<_>>())
    .bind(pages.iter().map(|p| p.max_at.millis()).collect::<Vec<_>>())
    .bind(pages.iter().map(|p| p.pointers.as_slice()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// The pages of these profile numbers that hold an event in [from, to].
pub async fn list_pages(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    profiles: &[ProfileNo],
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Vec<u8>>> {
    let sql = "-- store::timeline::list_pages
         SELECT pointers FROM profile_event_page
         WHERE space_id = $1 AND profile_no = ANY($2) AND max_at >= $3 AND min_at <= $4
         ORDER BY first_offset";
    Ok(sqlx::query_scalar(sql)
        .bind(space.0)
        .bind(profiles.iter().map(|p| p.0 as i64).collect::<Vec<_>>())
        .bind(from.millis())
        .bind(to.millis())
        .fetch_all(executor)
        .await?)
}
