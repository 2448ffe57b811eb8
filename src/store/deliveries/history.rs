//! Deliveries as operators look at them: what waits and what became of the rest; sending again, discarding, forgetting.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, PgExecutor};
use uuid::Uuid;

use super::book::State;
use super::lock_workers;
use crate::domain::{DestinationNo, SpaceNo, Timestamp};
use crate::store::{Result, Walled};

/// Which deliveries are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this destination.
    pub destination: Option<DestinationNo>,
    /// In this state; `Some(None)`: waiting in the queue.
    pub state: Option<Option<State>>,
    /// Of a profile with these numbers.
    pub profiles: Option<Vec<i64>>,
    /// These numbers.
    pub numbers: Option<Vec<i64>>,
    /// About the definition with this number.
    pub definition: Option<i32>,
    /// Of changes that happened no earlier.
    pub from: Option<Timestamp>,
    /// Of changes that happened before.
    pub to: Option<Timestamp>,
}

/// A delivery.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Delivery {
    /// Number of the destination.
    pub destination_no: i32,
    /// Public id of the destination.
    pub destination_id: Uuid,
    /// Its number in the destination.
    pub delivery_no: i64,
    /// Public id of the profile, as it is now.
    pub profile_id: Option<Uuid>,
    /// What it is about.
    pub subject: i16,
    /// As which call.
    pub form: i16,
    /// Key of the definition.
    pub key: Option<String>,
    /// JSON text.
    pub value: String,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// See [`State`]; 0 while it waits.
    pub state: i16,
    /// Attempts so far.
    pub attempts: i32,
    /// Why it did not arrive.
    pub code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// When it ended.
    pub done_at: Option<DateTime<Utc>>,
    /// Its place in the list.
    pub place: i64,
    /// When it is tried again, where it is the first one of a profile that is held.
    pub next_at: Option<DateTime<Utc>>,
}

/// The destinations that a filter means: with all of them a row is found by its number or profile, with none named the key
/// of what became of changes could not be used.
macro_rules! destinations {
    () => {
        "destination_no = ANY (ARRAY (SELECT n.destination_no FROM destination n
             WHERE n.space_id = $1 AND NOT n.deleted AND ($3::int IS NULL OR n.destination_no = $3)))"
    };
}

/// Without those of destinations that are deleted and not yet cleared: they would fill pages that show nothing of them.
macro_rules! of_living {
    () => {
        "($3::int IS NULL OR destination_no = $3) AND destination_no <> ALL (ARRAY (SELECT g.destination_no FROM destination g
             WHERE g.space_id = $1 AND g.deleted)) AND $4::bigint[] IS NULL AND $5::bigint[] IS NULL"
    };
}

/// The list of deliveries under a condition on the queue and one on what became of changes. Those of all parameters stand in
/// every one of them: what is not asked for is null.
macro_rules! listed {
    ($waiting:expr, $ended:expr) => {
        concat!(
            "-- store::deliveries::history::list
         SELECT x.*, n.destination_id, coalesce(l.profile_id, p.profile_id) AS profile_id, f.key, h.next_at,
             x.own_attempts + coalesce(h.tries, 0) AS attempts
         FROM (
             (SELECT destination_no, delivery_no, profile_no, subject, form, definition_no, value, at, 0::smallint AS state,
                  attempts AS own_attempts, NULL AS code, NULL AS message, NULL::timestamptz AS done_at, seq AS place
              FROM delivery
              WHERE space_id = $1 AND coalesce($2, 0) = 0 AND (destination_no, seq) < ($8, $9) AND ",
            $waiting,
            " AND ($6::timestamptz IS NULL OR at >= $6) AND ($7::timestamptz IS NULL OR at < $7)
                  AND ($11::int IS NULL OR definition_no = $11)
              ORDER BY destination_no DESC, seq DESC LIMIT $10)
             UNION ALL
             (SELECT destination_no, delivery_no, profile_no, subject, form, definition_no, value, at, state,
                  attempts, code, message, done_at, delivery_no
              FROM delivery_outcome
              WHERE space_id = $1 AND ($2::smallint IS NULL OR state = $2) AND (destination_no, delivery_no) < ($8, $9) AND ",
            $ended,
            " AND ($6::timestamptz IS NULL OR at >= $6) AND ($7::timestamptz IS NULL OR at < $7)
                  AND ($11::int IS NULL OR definition_no = $11)
              ORDER BY destination_no DESC, delivery_no DESC LIMIT $10)
         ) x
         JOIN destination n ON n.space_id = $1 AND n.destination_no = x.destination_no AND NOT n.deleted
         LEFT JOIN profile p ON p.space_id = $1 AND p.profile_no = x.profile_no
         LEFT JOIN profile l ON l.space_id = $1 AND l.profile_no = p.merged_into
         LEFT JOIN definition f ON f.space_id = $1 AND f.definition_no = x.definition_no
         LEFT JOIN delivery_hold h ON h.space_id = $1 AND h.destination_no = x.destination_no
             AND h.profile_no = x.profile_no AND x.state = 0 AND NOT EXISTS (
                 SELECT 1 FROM delivery d WHERE d.space_id = $1 AND d.destination_no = x.destination_no
                     AND d.profile_no = x.profile_no AND d.seq < x.place)
         ORDER BY x.destination_no DESC, x.place DESC LIMIT $10"
        )
    };
}

/// In the order of the key, as far as the list goes.
const ANY: &str = listed!(of_living!(), of_living!());
/// By profile.
const OF_PROFILES: &str = listed!(
    concat!(destinations!(), " AND profile_no = ANY ($4::bigint[]) AND $5::bigint[] IS NULL"),
    concat!(destinations!(), " AND profile_no = ANY ($4::bigint[]) AND $5::bigint[] IS NULL")
);
/// By definition, in the order of the key of each. The planner has to see that what is about none is not asked for.
const OF_DEFINITION: &str = listed!(
    concat!(of_living!(), " AND definition_no = $11::int AND definition_no <> 0"),
    concat!(of_living!(), " AND definition_no = $11::int AND definition_no <> 0")
);
/// By number.
const NUMBERED: &str = listed!(
    concat!(
        destinations!(),
        " AND ($4::bigint[] IS NULL OR profile_no = ANY ($4))
             AND (seq = ANY ($5::bigint[]) AND seq = delivery_no OR delivery_no = ANY ($5) AND seq <> delivery_no)"
    ),
    concat!(
        destinations!(),
        " AND ($4::bigint[] IS NULL OR profile_no = ANY ($4)) AND delivery_no = ANY ($5::bigint[])"
    )
);

/// Deliveries, newest first within each destination, behind a place (destination, place). What is asked for by number, by
/// profile or by definition is found by key, however much history there is.
pub async fn list(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    filter: &Filter,
    before: (i32, i64),
    limit: i64,
) -> Result<Vec<Delivery>> {
    let state = filter.state.map(|state| state.map_or(0, |state| state as i16));
    let sql = match filter {
        Filter { numbers: Some(_), .. } => NUMBERED,
        Filter { profiles: Some(_), .. } => OF_PROFILES,
        Filter { definition: Some(_), .. } => OF_DEFINITION,
        _ => ANY,
    };
    let rows = sqlx::query_as(sql)
        .bind(space.0)
        .bind(state)
        .bind(filter.destination.map(|d| d.0))
        .bind(&filter.profiles)
        .bind(&filter.numbers)
        .bind(filter.from.map(Timestamp::to_utc))
        .bind(filter.to.map(Timestamp::to_utc))
        .bind(before.0)
        .bind(before.1)
        .bind(limit)
        .bind(filter.definition)
        .fetch_all(executor)
        .await?;
    Ok(rows)
}

/// An attempt with what was sent and answered.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Seen {
    /// Which attempt, from 1.
    pub attempt: i32,
    /// When.
    pub at: DateTime<Utc>,
    /// `delivered`, `retry`, `rejected` or `gone`.
    pub outcome: String,
    /// A word for why it did not arrive.
    pub code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// What was sent, where it was kept.
    pub request: Option<String>,
    /// The status of the answer.
    pub status: Option<i32>,
    /// The answer.
    pub response: Option<String>,
    /// How long it took.
    pub took_ms: Option<i32>,
}

/// Attempts of a delivery that were kept at most.
const ATTEMPTS_MAX: i64 = 200;

/// The attempts of a delivery, in order.
pub async fn list_attempts(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    destination: DestinationNo,
    no: i64,
) -> Result<Vec<Seen>> {
    let sql = "-- store::deliveries::history::list_attempts
         SELECT a.attempt, a.at, a.outcome, a.code, a.message, e.request, e.status, e.response, e.took_ms
         FROM delivery_attempt a
         LEFT JOIN delivery_exchange e
             ON e.space_id = $1 AND e.destination_no = $2 AND e.exchange_id = a.exchange_id
         WHERE a.space_id = $1 AND a.destination_no = $2 AND a.delivery_no = $3 ORDER BY a.attempt LIMIT $4";
    let query = sqlx::query_as(sql).bind(space.0).bind(destination.0).bind(no).bind(ATTEMPTS_MAX);
    Ok(query.fetch_all(executor).await?)
}

/// The ended deliveries that a filter means, as a condition on `delivery_outcome o` with parameters 3 to 8.
macro_rules! meant {
    () => {
        "o.space_id = $1 AND o.destination_no = $2 AND o.state <> 4 AND ($3::smallint IS NULL OR o.state = $3)
             AND ($4::bigint[] IS NULL OR o.profile_no = ANY($4)) AND ($5::bigint[] IS NULL OR o.delivery_no = ANY($5))
             AND ($6::timestamptz IS NULL OR o.at >= $6) AND ($7::timestamptz IS NULL OR o.at < $7)
             AND ($8::int IS NULL OR o.definition_no = $8)"
    };
}

/// Binds a filter: parameters 1 to 8.
macro_rules! bind_filter {
    ($query:expr, $space:expr, $destination:expr, $filter:expr) => {
        $query
            .bind($space.0)
            .bind($destination.0)
            .bind($filter.state.map(|state| state.map_or(0, |state| state as i16)))
            .bind(&$filter.profiles)
            .bind(&$filter.numbers)
            .bind($filter.from.map(Timestamp::to_utc))
            .bind($filter.to.map(Timestamp::to_utc))
            .bind($filter.definition)
    };
}

/// How many ended deliveries of a destination a filter means, counted up to `limit`.
pub async fn count(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    destination: DestinationNo,
    filter: &Filter,
    limit: i64,
) -> Result<i64> {
    let sql = concat!(
        "-- store::deliveries::history::count
         SELECT count(*) FROM (SELECT 1 FROM delivery_outcome o WHERE ",
        meant!(),
        " LIMIT $9) meant"
    );
    let query = bind_filter!(sqlx::query_scalar(sql), space, destination, filter);
    Ok(query.bind(limit).fetch_one(executor).await?)
}

/// Puts ended deliveries that a filter means into the queue once more, under their old numbers, oldest first; at most
/// `limit` at a time, behind number `after`. Returns how many, and the last number.
pub async fn replay(
    door: &Walled,
    space: SpaceNo,
    destination: DestinationNo,
    filter: &Filter,
    (after, limit): (i64, i64),
) -> Result<(i64, i64)> {
    let mut tx = door.begin().await?;
    lock_workers(&mut tx, space, &[destination.0]).await?;
    super::sync::lock_head(&mut tx, space, destination).await?;
    let sql = concat!(
        "-- store::deliveries::history::replay
         WITH again AS (
             SELECT o.*, row_number() OVER (ORDER BY o.delivery_no) AS n
             FROM delivery_outcome o WHERE ",
        meant!(),
        " AND o.delivery_no > $10 ORDER BY o.delivery_no LIMIT $9
         ), counted AS (
             SELECT count(*) AS n, count(*) FILTER (WHERE state = 3) AS dead, coalesce(max(delivery_no), 0) AS last
             FROM again
         ), head AS (
             UPDATE delivery_head h SET last_no = h.last_no + c.n FROM counted c
             WHERE h.space_id = $1 AND h.destination_no = $2 RETURNING h.last_no - c.n AS before
         ), worker AS (
             UPDATE destination_worker w SET dead = w.dead - c.dead FROM counted c
             WHERE w.space_id = $1 AND w.destination_no = $2
         ), gone AS (
             DELETE FROM delivery_outcome o USING again a
             WHERE o.space_id = $1 AND o.destination_no = (SELECT $2::int) AND o.delivery_no = a.delivery_no
         ), put AS (
             INSERT INTO delivery (space_id, destination_no, seq, delivery_no, profile_no, subscription_no, subject,
                 form, definition_no, value, at, attempts, origin_no, log_offset)
             SELECT $1, $2, h.before + a.n, a.delivery_no, coalesce(p.merged_into, a.profile_no), a.subscription_no,
                 a.subject, a.form, a.definition_no, a.value, a.at, a.attempts, a.origin_no, a.log_offset
             FROM again a CROSS JOIN head h
             LEFT JOIN profile p ON p.space_id = $1 AND p.profile_no = a.profile_no
         )
         SELECT n, last FROM counted"
    );
    let query = bind_filter!(sqlx::query_as(sql), space, destination, filter);
    let counted: (i64, i64) = query.bind(limit).bind(after).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(counted)
}

/// Gives dead letters that a filter means up for good; at most `limit` at a time. Returns how many.
pub async fn discard(
    door: &Walled,
    space: SpaceNo,
    destination: DestinationNo,
    filter: &Filter,
    limit: i64,
) -> Result<i64> {
    let mut tx = door.begin().await?;
    lock_workers(&mut tx, space, &[destination.0]).await?;
    let sql = concat!(
        "-- store::deliveries::history::discard
         WITH gone AS (
             UPDATE delivery_outcome SET state = 4,
                 -- Whom a deletion was about is not kept, once it is given up.
                 value = CASE WHEN subject = 4 THEN '{}' ELSE value END
             WHERE space_id = $1 AND destination_no = (SELECT $2::int) AND delivery_no IN (
                 SELECT o.delivery_no FROM delivery_outcome o WHERE o.state = 3 AND ",
        meant!(),
        " ORDER BY o.delivery_no LIMIT $9)
             RETURNING 1
         ), counted AS (
             SELECT count(*) AS n FROM gone
         ), worker AS (
             UPDATE destination_worker w SET dead = w.dead - c.n FROM counted c
             WHERE w.space_id = $1 AND w.destination_no = $2
         )
         SELECT n FROM counted"
    );
    let query = bind_filter!(sqlx::query_scalar(sql), space, destination, filter);
    let count: i64 = query.bind(limit).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(count)
}

/// Rows that are forgotten at a time.
const FORGET_ROWS: i64 = 10_000;

/// Forgets what ended before an instant, a part of it of one destination; dead letters are kept. False when nothing was
/// old enough.
///
/// Each statement finds its rows by key: joined in one statement, they were compared each with each whenever the planner had
/// not heard of the destination yet.
pub async fn forget(
    connection: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
    before: Timestamp,
) -> Result<bool> {
    let mut tx = connection.begin().await?;
    let sql = "-- store::deliveries::history::forget
         SELECT delivery_no FROM (
             SELECT delivery_no, done_at FROM delivery_outcome
             WHERE space_id = $1 AND destination_no = $2 AND state <> 3
             ORDER BY delivery_no LIMIT $4) first
         WHERE done_at < $3";
    let query = sqlx::query_scalar(sql).bind(space.0).bind(destination.0).bind(before.to_utc());
    let old: Vec<i64> = query.bind(FORGET_ROWS).fetch_all(&mut *tx).await?;
    if old.is_empty() {
        return Ok(false);
    }
    let sql = "-- store::deliveries::history::forget
         DELETE FROM delivery_attempt WHERE space_id = $1 AND destination_no = $2 AND delivery_no = ANY($3)
         RETURNING exchange_id";
    let query = sqlx::query_scalar(sql).bind(space.0).bind(destination.0).bind(&old);
    let exchanges: Vec<Option<Uuid>> = query.fetch_all(&mut *tx).await?;
    let exchanges: BTreeSet<Uuid> = exchanges.into_iter().flatten().collect();
    let sql = "-- store::deliveries::history::forget
         DELETE FROM delivery_exchange WHERE space_id = $1 AND destination_no = $2 AND exchange_id = ANY($3)";
    let query = sqlx::query(sql).bind(space.0).bind(destination.0);
    query.bind(exchanges.into_iter().collect::<Vec<_>>()).execute(&mut *tx).await?;
    let sql = "-- store::deliveries::history::forget
         DELETE FROM delivery_outcome WHERE space_id = $1 AND destination_no = $2 AND delivery_no = ANY($3)";
    sqlx::query(sql).bind(space.0).bind(destination.0).bind(&old).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(true)
}
