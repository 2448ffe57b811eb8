//! Writing down what became of what was sent. Every function that does is part of a worker's transaction, which is fenced by
//! [`advance`](crate::store::destinations::worker::advance).

use sqlx::PgConnection;
use uuid::Uuid;

use super::queue::Hold;
use crate::domain::{DestinationNo, ProfileNo, SpaceNo, Timestamp};
use crate::store::Result;

/// Clocks of machines differ by so much without being wrong.
const SKEW_MS: i64 = 10_000;

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It has arrived.
    Delivered = 1,
    /// It was not to be sent: a filter, or no identifier to send.
    Filtered = 2,
    /// It was given up, and can be sent again.
    Dead = 3,
    /// It was given up for good.
    Discarded = 4,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Delivered, Self::Filtered, Self::Dead, Self::Discarded];

    /// The one with this number.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as i16 == number)
    }

    /// Its word in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Filtered => "filtered",
            Self::Dead => "dead",
            Self::Discarded => "discarded",
        }
    }
}

/// A change that leaves the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its place.
    pub seq: i64,
    /// How.
    pub state: State,
    /// Attempts there were since it was put into the queue.
    pub tries: i32,
    /// A word for why, where it did not arrive.
    pub code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// Moves changes from the queue to the history. Returns how many there were.
///
/// Each is looked up by its place and deleted where it was found, whatever the planner takes the queue for: nobody else
/// moves rows of it meanwhile, because the worker's row is locked.
pub async fn end(
    tx: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
    ended: &[Ended],
) -> Result<u64> {
    let done = sqlx::query(
        "-- store::deliveries::book::end
         WITH ended AS (
             SELECT * FROM unnest($3::bigint[], $4::smallint[], $5::int[], $6::text[], $7::text[], $8::timestamptz[])
                 AS e (seq, state, tries, code, message, done_at)
         ), found AS (
             SELECT d.*, e.state, e.tries, e.code, e.message, e.done_at
             FROM ended e
             CROSS JOIN LATERAL (
                 SELECT q.ctid AS place, q.* FROM delivery q
                 WHERE q.space_id = $1 AND q.destination_no = (SELECT $2::int) AND q.seq = e.seq OFFSET 0) d
         ), gone AS (
             DELETE FROM delivery WHERE space_id = $1 AND ctid = ANY(ARRAY(SELECT place FROM found))
         )
         INSERT INTO delivery_outcome (space_id, destination_no, delivery_no, profile_no, subscription_no, subject, form,
             definition_no, value, at, state, attempts, code, message, done_at, origin_no, log_offset)
         SELECT $1, $2, delivery_no, profile_no, subscription_no, subject, form, definition_no,
             -- Whom a deletion was about is not kept, once it is told.
             CASE WHEN subject = 4 AND state <> 3 THEN '{}' ELSE value END, at, state, attempts + tries, code, message, done_at, origin_no, log_offset
         FROM found
         ON CONFLICT (space_id, destination_no, delivery_no) DO UPDATE SET profile_no = excluded.profile_no,
             state = excluded.state, attempts = excluded.attempts, code = excluded.code, message = excluded.message,
             done_at = excluded.done_at",
    )
    .bind(space.0)
    .bind(destination.0)
    .bind(ended.iter().map(|e| e.seq).collect::<Vec<_>>())
    .bind(ended.iter().map(|e| e.state as i16).collect::<Vec<_>>())
    .bind(ended.iter().map(|e| e.tries).collect::<Vec<_>>())
    .bind(ended.iter().map(|e| e.code.as_deref()).collect::<Vec<_>>())
    .bind(ended.iter().map(|e| e.message.as_deref()).collect::<Vec<_>>())
    .bind(ended.iter().map(|e| e.at.to_utc()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Holds profiles, or holds them longer; without failed tries, only those that are not held.
pub async fn hold(
    tx: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
    holds: &[Hold],
) -> Result<()> {
    sqlx::query(
        "-- store::deliveries::book::hold
         INSERT INTO delivery_hold (space_id, destination_no, profile_no, next_at, tries, first_at)
         SELECT $1, $2, * FROM unnest($3::bigint[], $4::timestamptz[], $5::int[], $6::timestamptz[])
         ON CONFLICT (space_id, destination_no, profile_no) DO UPDATE SET next_at = excluded.next_at,
             tries = excluded.tries, first_at = excluded.first_at
         WHERE excluded.tries > 0",
    )
    .bind(space.0)
    .bind(destination.0)
    .bind(holds.iter().map(|h| h.profile.0 as i64).collect::<Vec<_>>())
    .bind(holds.iter().map(|h| h.next_at.to_utc()).collect::<Vec<_>>())
    .bind(holds.iter().map(|h| h.tries).collect::<Vec<_>>())
    .bind(holds.iter().map(|h| h.first_at.to_utc()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// Lets different profiles go of which nothing waits up to the place `until`. False where one is held still, or was not:
/// a merge has given it something to send, or what it had to another one.
pub async fn release(
    tx: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
    (profiles, until): (&[ProfileNo], i64),
) -> Result<bool> {
    // Looked up for each of them, whatever the statistics say.
    let sql = "-- store::deliveries::book::release
         DELETE FROM delivery_hold h
         WHERE h.space_id = $1 AND h.destination_no = $2 AND h.profile_no = ANY($3) AND (
             SELECT min(d.seq) FROM delivery d
             WHERE d.space_id = $1 AND d.destination_no = (SELECT $2::int) AND d.profile_no = h.profile_no
                 AND d.seq <= $4) IS NULL";
    let numbers: Vec<i64> = profiles.iter().map(|p| p.0 as i64).collect();
    let query = sqlx::query(sql).bind(space.0).bind(destination.0).bind(numbers).bind(until);
    Ok(query.execute(tx).await?.rows_affected() == profiles.len() as u64)
}

/// Makes everything held due at once, as an operator asks for it. The worker has to be told, by
/// [`bump_config`](crate::store::destinations::worker::bump_config) in the same transaction: it remembers when something
/// is due.
pub async fn hurry(
    tx: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
    now: Timestamp,
) -> Result<()> {
    correct(tx, space, destination, (now, now)).await
}

/// Makes due at once what is held until after `furthest`, and what has failed after `now` for the first time: that was written
/// by a clock that was ahead. Not fenced: at worst it makes due at once what was to wait.
pub async fn correct(
    tx: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
    (now, furthest): (Timestamp, Timestamp),
) -> Result<()> {
    super::lock_workers(&mut *tx, space, &[destination.0]).await?;
    let sql = "-- store::deliveries::book::correct
         UPDATE delivery_hold SET next_at = $3
         WHERE space_id = $1 AND destination_no = $2 AND next_at > $3 AND (next_at > $4 OR first_at > $5)";
    let latest = now.plus_millis(SKEW_MS);
    let query = sqlx::query(sql).bind(space.0).bind(destination.0);
    query.bind(now.to_utc()).bind(furthest.to_utc()).bind(latest.to_utc()).execute(tx).await?;
    Ok(())
}

/// An attempt to be looked at later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Number of the delivery.
    pub no: i64,
    /// Which attempt, from 1.
    pub attempt: i32,
    /// When.
    pub at: Timestamp,
    /// `delivered`, `retry`, `rejected` or `gone`.
    pub outcome: &'static str,
    /// A word for why it did not arrive.
    pub code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// What was sent and answered.
    pub exchange: Option<Uuid>,
}

/// Adds attempts of what waits or has ended: what was erased meanwhile is not told any more. Returns the exchanges that are
/// named by one that was left out.
pub async fn insert_attempts(
    tx: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
    attempts: &[Attempt],
) -> Result<Vec<Uuid>> {
    // An attempt that was written and lost its lease before its change was is made again under the same number.
    let gone: Vec<Option<Uuid>> = sqlx::query_scalar(
        "-- store::deliveries::book::insert_attempts
         WITH made AS (
             SELECT *, EXISTS (SELECT 1 FROM delivery_outcome o
                     WHERE o.space_id = $1 AND o.destination_no = (SELECT $2::int) AND o.delivery_no = a.no)
                 OR EXISTS (SELECT 1 FROM delivery d
                     WHERE d.space_id = $1 AND d.destination_no = (SELECT $2::int) AND d.seq = a.no)
                 OR EXISTS (SELECT 1 FROM delivery d
                     WHERE d.space_id = $1 AND d.destination_no = (SELECT $2::int) AND d.delivery_no = a.no
                         AND d.seq <> d.delivery_no) AS is_known
             FROM unnest($3::bigint[], $4::int[], $5::timestamptz[], $6::text[], $7::text[], $8::text[], $9::uuid[])
                 AS a (no, attempt, at, outcome, code, message, exchange_id)
         ), added AS (
             INSERT INTO delivery_attempt (space_id, destination_no, delivery_no, attempt, at, outcome, code, message,
                 exchange_id)
             SELECT $1, $2, no, attempt, at, outcome, code, message, exchange_id FROM made WHERE is_known
             ON CONFLICT (space_id, destination_no, delivery_no, attempt) DO NOTHING
         )
         SELECT exchange_id FROM made WHERE NOT is_known",
    )
    .bind(space.0)
    .bind(destination.0)
    .bind(attempts.iter().map(|a| a.no).collect::<Vec<_>>())
    .bind(attempts.iter().map(|a| a.attempt).collect::<Vec<_>>())
    .bind(attempts.iter().map(|a| a.at.to_utc()).collect::<Vec<_>>())
    .bind(attempts.iter().map(|a| a.outcome).collect::<Vec<_>>())
    .bind(attempts.iter().map(|a| a.code.as_deref()).collect::<Vec<_>>())
    .bind(attempts.iter().map(|a| a.message.as_deref()).collect::<Vec<_>>())
    .bind(attempts.iter().map(|a| a.exchange).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    Ok(gone.into_iter().flatten().collect())
}

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Named by attempts.
    pub id: Uuid,
    /// What was sent.
    pub request: String,
    /// The status of the answer.
    pub status: Option<i32>,
    /// The answer.
    pub response: String,
    /// How long it took.
    pub took_ms: i32,
}

/// Adds exchanges.
pub async fn insert_exchanges(
    tx: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
    exchanges: &[Exchange],
) -> Result<()> {
    sqlx::query(
        "-- store::deliveries::book::insert_exchanges
         INSERT INTO delivery_exchange (space_id, destination_no, exchange_id, request, status, response, took_ms)
         SELECT $1, $2, * FROM unnest($3::uuid[], $4::text[], $5::int[], $6::text[], $7::int[])",
    )
    .bind(space.0)
    .bind(destination.0)
    .bind(exchanges.iter().map(|e| e.id).collect::<Vec<_>>())
    .bind(exchanges.iter().map(|e| e.request.as_str()).collect::<Vec<_>>())
    .bind(exchanges.iter().map(|e| e.status).collect::<Vec<_>>())
    .bind(exchanges.iter().map(|e| e.response.as_str()).collect::<Vec<_>>())
    .bind(exchanges.iter().map(|e| e.took_ms).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}
