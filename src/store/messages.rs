//! Message ids older than the in-memory window: sorted runs of (hash, offset) pages with a filter per run, and what
//! the processor made of each chunk.

use chrono::NaiveDate;
use sqlx::PgConnection;

use super::Result;
use crate::domain::{Offset, SpaceNo};

/// A closed run without its pages.
#[derive(Debug, Clone)]
pub struct Run {
    /// Number, from 1.
    pub no: i32,
    /// First offset it covers.
    pub first: Offset,
    /// Last offset it covers.
    pub last: Offset,
    /// Entries in it.
    pub entries: u32,
    /// Encoded filter over its hashes.
    pub filter: Vec<u8>,
}

/// All runs of a space, oldest first.
pub async fn list_runs(connection: &mut PgConnection, space: SpaceNo) -> Result<Vec<Run>> {
    let rows: Vec<(i32, i64, i64, i32, Vec<u8>)> = sqlx::query_as(
        "-- store::messages::list_runs
         SELECT run_no, first_offset, last_offset, entries, filter FROM message_run
         WHERE space_id = $1 ORDER BY run_no",
    )
    .bind(space.0)
    .fetch_all(connection)
    .await?;
    let run = |(no, first, last, entries, filter): (i32, i64, i64, i32, Vec<u8>)| Run {
        no,
        first: Offset(first as u64),
        last: Offset(last as u64),
        entries: entries as u32,
        filter,
    };
    Ok(rows.into_iter().map(run).collect())
}

/// Adds a closed run with its pages, in one go.
pub async fn insert_run(tx: &mut PgConnection, space: SpaceNo, run: &Run, pages: &[Vec<u8>]) -> Result<()> {
    sqlx::query(
        "-- store::messages::insert_run
         INSERT INTO message_run (space_id, run_no, first_offset, last_offset, entries, filter)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(space.0)
    .bind(run.no)
    .bind(run.first.0 as i64)
    .bind(run.last.0 as i64)
    .bind(run.entries as i32)
    .bind(&run.filter)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "-- store::messages::insert_run
         INSERT INTO message_page (space_id, run_no, page_no, entries)
         SELECT $1, $2, n - 1, page FROM unnest($3::bytea[]) WITH ORDINALITY AS p (page, n)",
    )
    .bind(space.0)
    .bind(run.no)
    .bind(pages)
    .execute(tx)
    .await?;
    Ok(())
}

/// Pages by (run, page number).
pub async fn load_pages(
    connection: &mut PgConnection,
    space: SpaceNo,
    wanted: &[(i32, i32)],
) -> Result<Vec<(i32, i32, Vec<u8>)>> {
    let (runs, pages): (Vec<i32>, Vec<i32>) = wanted.iter().copied().unzip();
    Ok(sqlx::query_as(
        "-- store::messages::load_pages
         SELECT p.run_no, p.page_no, p.entries
         FROM unnest($2::int[], $3::int[]) AS w (run_no, page_no)
         JOIN message_page p ON p.space_id = $1 AND p.run_no = w.run_no AND p.page_no = w.page_no",
    )
    .bind(space.0)
    .bind(&runs)
    .bind(&pages)
    .fetch_all(connection)
    .await?)
}

/// What became of one chunk.
#[derive(Debug, Clone)]
pub struct ChunkOutcome {
    /// The chunk.
    pub end_offset: Offset,
    /// Its day.
    pub day: NaiveDate,
    /// Duplicates in it.
    pub duplicates: i32,
    /// Encoded profile numbers of its events.
    pub numbers: Vec<u8>,
}

/// Adds outcomes.
pub async fn insert_outcomes(tx: &mut PgConnection, space: SpaceNo, rows: &[ChunkOutcome]) -> Result<()> {
    sqlx::query(
        "-- store::messages::insert_outcomes
         INSERT INTO chunk_outcome (space_id, end_offset, day, duplicates, numbers)
         SELECT $1, * FROM unnest($2::bigint[], $3::date[], $4::int[], $5::bytea[])",
    )
    .bind(space.0)
    .bind(rows.iter().map(|r| r.end_offset.0 as i64).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.day).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.duplicates).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.numbers.as_slice()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}
