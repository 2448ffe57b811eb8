//! Regulations: what was asked for, of whom, and how far it is. Whom it is about stands here by what they are found by, only
//! until nothing is left of them.

pub mod erase;
pub mod forward;
pub mod journal;
pub mod people;
pub mod suppression;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{Result, StoreError, Walled};
use crate::domain::act::Actor;
use crate::domain::regulation::{RegulationStatus, RegulationType};
use crate::domain::{DestinationNo, SpaceNo, Timestamp};

/// A regulation, and how far it is.
#[derive(Debug, Clone)]
pub struct Regulation {
    /// Its id.
    pub id: Uuid,
    /// What is asked for.
    pub kind: RegulationType,
    /// By which type of identifier its people are named.
    pub subject_type: String,
    /// Who asked.
    pub by: Actor,
    /// When.
    pub created_at: Timestamp,
    /// When all was done.
    pub finished_at: Option<Timestamp>,
    /// Its people.
    pub subjects: i64,
    /// Those of them that were somebody here.
    pub found: i64,
    /// Those of them nothing is left of here, or nothing ever was.
    pub done: i64,
    /// Events that were erased.
    pub events: i64,
}

impl Regulation {
    /// How far it is here, whatever destinations do.
    pub const fn internal(&self) -> RegulationStatus {
        match self.done {
            done if done == self.subjects => RegulationStatus::Finished,
            0 if self.found == 0 => RegulationStatus::Initialized,
            _ => RegulationStatus::Running,
        }
    }
}

/// A regulation to be.
#[derive(Debug, Clone)]
pub struct NewRegulation {
    /// Its id.
    pub id: Uuid,
    /// What is asked for.
    pub kind: RegulationType,
    /// By which type of identifier its people are named.
    pub subject_type: String,
    /// How many days identifiers of devices stay suppressed.
    pub device_days: i32,
    /// Who asks.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
}

/// Adds a regulation.
pub async fn insert(tx: &mut PgConnection, space: SpaceNo, new: &NewRegulation) -> Result<()> {
    let sql = "-- store::regulations::insert
         INSERT INTO regulation (space_id, regulation_id, type, subject_type, actor_id, actor_name, created_at, finished_at,
             device_days)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let at = new.at.to_utc();
    sqlx::query(sql)
        .bind(space.0)
        .bind(new.id)
        .bind(new.kind.word())
        .bind(&new.subject_type)
        .bind(&new.by.id)
        .bind(&new.by.name)
        .bind(at)
        // Suppression is done when it is said.
        .bind((!new.kind.erases()).then_some(at))
        .bind(new.device_days)
        .execute(tx)
        .await?;
    Ok(())
}

type Row = (Uuid, String, String, String, String, DateTime<Utc>, Option<DateTime<Utc>>, i64, i64, i64, i64);

fn regulation(row: Row) -> Result<Regulation> {
    let (id, kind, subject_type, actor, name, created_at, finished_at, subjects, found, done, events) = row;
    let kind = RegulationType::parse(&kind)
        .ok_or_else(|| StoreError::Damaged(format!("regulation {id} is of no known type: {kind}")))?;
    Ok(Regulation {
        id,
        kind,
        subject_type,
        by: Actor { id: actor, name },
        created_at: created_at.into(),
        finished_at: finished_at.map(Timestamp::from),
        subjects,
        found,
        done,
        events,
    })
}

/// Which regulations are asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this type.
    pub kind: Option<RegulationType>,
    /// Those that are done, or those that are not.
    pub finished: Option<bool>,
    /// Older than this one.
    pub before: Option<Uuid>,
    /// This one.
    pub id: Option<Uuid>,
    /// At most so many.
    pub limit: i64,
}

/// A page of regulations, newest first.
pub async fn list(door: &Walled, space: SpaceNo, wanted: &Wanted) -> Result<Vec<Regulation>> {
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::regulations::list
         SELECT r.regulation_id, r.type, r.subject_type, r.actor_id, r.actor_name, r.created_at, r.finished_at,
             s.subjects, s.found, s.done, s.events
         FROM regulation r
         CROSS JOIN LATERAL (
             SELECT count(*) AS subjects, count(s.profile_id) AS found, count(*) FILTER (WHERE s.state = 2) AS done,
                 coalesce(sum(s.events), 0)::bigint AS events
             FROM regulation_subject s WHERE s.space_id = $1 AND s.regulation_id = r.regulation_id
         ) s
         WHERE r.space_id = $1 AND ($2::text IS NULL OR r.type = $2)
             AND ($3::boolean IS NULL OR (r.finished_at IS NOT NULL) = $3)
             AND ($4::uuid IS NULL OR r.regulation_id < $4) AND ($5::uuid IS NULL OR r.regulation_id = $5)
         ORDER BY r.regulation_id DESC LIMIT $6",
    )
    .bind(space.0)
    .bind(wanted.kind.map(RegulationType::word))
    .bind(wanted.finished)
    .bind(wanted.before)
    .bind(wanted.id)
    .bind(wanted.limit)
    .fetch_all(door)
    .await?;
    rows.into_iter().map(regulation).collect()
}

/// What a destination made of the deletions of a regulation.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Which one.
    pub destination: DestinationNo,
    /// Its public id; none when it was deleted.
    pub id: Option<Uuid>,
    /// What it is called.
    pub name: Option<String>,
    /// Deletions that were told, or are to be.
    pub all: i64,
    /// Those it has taken.
    pub done: i64,
    /// Those it does not take.
    pub unsupported: i64,
    /// Those it has refused.
    pub failed: i64,
    /// The code of the reason that was given last: what else a receiver said may name people.
    pub error: Option<String>,
    /// When the last one ended.
    pub finished_at: Option<Timestamp>,
}

impl Stream {
    /// How far it is.
    pub const fn status(&self) -> RegulationStatus {
        match self {
            Self { all, done, .. } if *all == *done => RegulationStatus::Finished,
            Self { all, done, unsupported, failed, .. } if *all > *done + *unsupported + *failed => {
                if *done + *unsupported + *failed == 0 {
                    RegulationStatus::Initialized
                } else {
                    RegulationStatus::Running
                }
            }
            Self { all, unsupported, .. } if *all == *unsupported => RegulationStatus::NotSupported,
            Self { done: 0, .. } => RegulationStatus::Failed,
            _ => RegulationStatus::PartialSuccess,
        }
    }
}

/// What destinations made of the deletions of some regulations.
pub async fn list_streams(door: &Walled, space: SpaceNo, ids: &[Uuid]) -> Result<Vec<(Uuid, Stream)>> {
    type Row =
        (Uuid, i32, Option<Uuid>, Option<String>, i64, i64, i64, i64, Option<String>, Option<DateTime<Utc>>);
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::regulations::list_streams
         SELECT r.regulation_id, r.destination_no, d.destination_id, d.name, count(*),
             count(*) FILTER (WHERE r.state = 1), count(*) FILTER (WHERE r.state = 2), count(*) FILTER (WHERE r.state = 3),
             (array_agg(r.code ORDER BY r.done_at DESC) FILTER (WHERE r.code IS NOT NULL))[1], max(r.done_at)
         FROM regulation_receipt r
         LEFT JOIN destination d ON d.space_id = $1 AND d.destination_no = r.destination_no
         WHERE r.space_id = $1 AND r.regulation_id = ANY($2)
         GROUP BY 1, 2, 3, 4 ORDER BY 1, 2",
    )
    .bind(space.0)
    .bind(ids)
    .fetch_all(door)
    .await?;
    let stream = |(id, no, destination, name, all, done, unsupported, failed, error, at): Row| {
        let destination_no = DestinationNo(no);
        let finished_at = (all == done + unsupported + failed).then(|| at.map(Timestamp::from)).flatten();
        let of = Stream {
            destination: destination_no,
            id: destination,
            name,
            all,
            done,
            unsupported,
            failed,
            error,
            finished_at,
        };
        (id, of)
    };
    Ok(rows.into_iter().map(stream).collect())
}

/// Notes which regulations are done: nothing is left of their people, and all destinations have said what they made of it.
/// Returns them.
pub async fn finish(executor: impl PgExecutor<'_>, space: SpaceNo, at: Timestamp) -> Result<Vec<Uuid>> {
    let sql = "-- store::regulations::finish
         UPDATE regulation r SET finished_at = $2
         WHERE r.space_id = $1 AND r.finished_at IS NULL
             AND NOT EXISTS (SELECT 1 FROM regulation_subject s
                 WHERE s.space_id = $1 AND s.regulation_id = r.regulation_id AND s.state < 2)
             AND NOT EXISTS (SELECT 1 FROM regulation_receipt c
                 WHERE c.space_id = $1 AND c.regulation_id = r.regulation_id AND c.state = 0)
         RETURNING r.regulation_id";
    Ok(sqlx::query_scalar(sql).bind(space.0).bind(at.to_utc()).fetch_all(executor).await?)
}

/// Spaces with regulations that are not done, or that a destination has refused: its dead letter may be sent again.
pub async fn list_open_spaces(executor: impl PgExecutor<'_>) -> Result<Vec<SpaceNo>> {
    let sql = "-- store::regulations::list_open_spaces
         SELECT space_id FROM regulation WHERE finished_at IS NULL
         UNION SELECT space_id FROM regulation_receipt WHERE state IN (0, 3)";
    let rows: Vec<i32> = sqlx::query_scalar(sql).fetch_all(executor).await?;
    Ok(rows.into_iter().map(SpaceNo).collect())
}
