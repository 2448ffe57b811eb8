//! The outbox: changes for destinations, put into their queues in the transaction that makes the change.
//!
//! Numbers of a queue are given under the lock of its head, which is held until the commit: whoever reads up to the
//! head's number has seen everything up to there.
//!
//! Queues grow and shrink faster than the planner's statistics follow: it takes a destination that it has not heard of for one
//! without rows, and then goes through all of them for each that is wanted. Where rows are looked up by key beside others, the
//! destination is therefore `(SELECT …)` or joined: so it counts on as many rows as destinations have on average.

pub mod book;
pub mod history;
pub mod part;
pub mod queue;
pub mod sync;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Result;
use super::destinations::syncs::covers;
use crate::domain::delivery::Subject;
use crate::domain::{DestinationNo, Offset, ProfileNo, SpaceNo, Timestamp};

/// Rows are sent from so many bytes on: what gathers is bounded, however long events are.
const INSERTED_MAX: usize = 1 << 20;
/// Of a row without its value.
const ROW_BYTES: usize = 64;

/// A change for one destination, to be put into its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// Where to.
    pub destination: DestinationNo,
    /// Whose change.
    pub profile: ProfileNo,
    /// Whose it was when it was made: one that was absorbed since, or the same.
    pub origin: ProfileNo,
    /// The event that made it, where it was one.
    pub cause: Option<Offset>,
    /// Which subscription wants it.
    pub subscription: i32,
    /// What it is about.
    pub subject: Subject,
    /// As which call, see [`Form`](crate::domain::delivery::Form).
    pub form: i16,
    /// Which definition; 0 for none.
    pub definition: i32,
    /// JSON text.
    pub value: Arc<str>,
    /// When it happened.
    pub at: Timestamp,
}

/// Puts changes into queues, in their order. Those for destinations that are gone are left out.
///
/// By statements that carry their rows, and not by COPY: a session that waits for more rows of a COPY is ended by no time limit
/// of Postgres, so a process that goes silent just then would keep its space locked for everybody.
pub async fn enqueue(tx: &mut PgConnection, space: SpaceNo, rows: &[NewDelivery]) -> Result<()> {
    let mut counts: BTreeMap<i32, i64> = BTreeMap::new();
    for row in rows {
        *counts.entry(row.destination.0).or_default() += 1;
    }
    let (destinations, counts): (Vec<i32>, Vec<i64>) = counts.into_iter().unzip();
    let sql = "-- store::deliveries::enqueue
         UPDATE delivery_head h SET last_no = h.last_no + n.count
         FROM unnest($2::int[], $3::bigint[]) AS n (destination_no, count)
         WHERE h.space_id = $1 AND h.destination_no = n.destination_no
         RETURNING h.destination_no, h.last_no - n.count";
    let heads: Vec<(i32, i64)> =
        sqlx::query_as(sql).bind(space.0).bind(destinations).bind(counts).fetch_all(&mut *tx).await?;
    let mut last: BTreeMap<i32, i64> = heads.into_iter().collect();
    let mut columns = Columns::default();
    for row in rows {
        let Some(last) = last.get_mut(&row.destination.0) else { continue };
        *last += 1;
        columns.push(row, *last);
        if columns.bytes >= INSERTED_MAX {
            std::mem::take(&mut columns).insert(&mut *tx, space).await?;
        }
    }
    columns.insert(tx, space).await
}

/// Rows of one statement, column by column.
#[derive(Debug, Default)]
struct Columns<'a> {
    destination: Vec<i32>,
    /// Its place, and its number from now on.
    number: Vec<i64>,
    profile: Vec<i64>,
    subscription: Vec<i32>,
    subject: Vec<i16>,
    form: Vec<i16>,
    definition: Vec<i32>,
    value: Vec<&'a str>,
    at: Vec<DateTime<Utc>>,
    origin: Vec<i64>,
    cause: Vec<Option<i64>>,
    /// About how many there are in all.
    bytes: usize,
}

impl<'a> Columns<'a> {
    fn push(&mut self, row: &'a NewDelivery, number: i64) {
        self.destination.push(row.destination.0);
        self.number.push(number);
        self.profile.push(row.profile.0 as i64);
        self.subscription.push(row.subscription);
        self.subject.push(row.subject as i16);
        self.form.push(row.form);
        self.definition.push(row.definition);
        self.value.push(&row.value);
        self.at.push(row.at.to_utc());
        self.origin.push(row.origin.0 as i64);
        self.cause.push(row.cause.map(|offset| offset.0 as i64));
        self.bytes += ROW_BYTES + row.value.len();
    }

    async fn insert(self, tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
        if self.number.is_empty() {
            return Ok(());
        }
        let sql = "-- store::deliveries::insert
             INSERT INTO delivery (space_id, destination_no, seq, delivery_no, profile_no, subscription_no, subject, form,
                 definition_no, value, at, origin_no, log_offset)
             SELECT $1, d.destination_no, d.number, d.number, d.profile_no, d.subscription_no, d.subject, d.form,
                 d.definition_no, d.value, d.at, d.origin_no, d.log_offset
             FROM unnest($2::int[], $3::bigint[], $4::bigint[], $5::int[], $6::smallint[], $7::smallint[], $8::int[],
                     $9::text[], $10::timestamptz[], $11::bigint[], $12::bigint[])
                 AS d (destination_no, number, profile_no, subscription_no, subject, form, definition_no, value, at,
                     origin_no, log_offset)";
        sqlx::query(sql)
            .bind(space.0)
            .bind(self.destination)
            .bind(self.number)
            .bind(self.profile)
            .bind(self.subscription)
            .bind(self.subject)
            .bind(self.form)
            .bind(self.definition)
            .bind(self.value)
            .bind(self.at)
            .bind(self.origin)
            .bind(self.cause)
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// Puts the transitions behind a number that are wanted anywhere into queues: of one definition, or of all. For
/// transitions that are written by a statement themselves.
pub async fn enqueue_transitions(
    tx: &mut PgConnection,
    space: SpaceNo,
    definition: Option<i32>,
    after: i64,
) -> Result<()> {
    let sql = concat!(
        "-- store::deliveries::enqueue_transitions
         WITH new AS (
             SELECT s.destination_no, s.subscription_no, f.form, t.*,
                 row_number() OVER (PARTITION BY s.destination_no ORDER BY t.transition_no, f.form) AS n
             FROM destination_subscription s
             CROSS JOIN (VALUES (1), (2)) AS f (form)
             JOIN definition d ON d.space_id = $1 AND d.kind = 0 AND ($2::int IS NULL OR d.definition_no = $2) AND ",
        covers!(),
        " JOIN transition t ON t.space_id = $1 AND t.definition_no = d.definition_no AND t.transition_no > $3
             WHERE s.space_id = $1 AND s.subject = 0 AND s.enabled AND s.forms & f.form <> 0
                 AND (f.form = 1 OR d.collection = 0)
         ), head AS (
             UPDATE delivery_head h SET last_no = h.last_no + t.n
             FROM (SELECT destination_no, max(n) AS n FROM new GROUP BY destination_no) t
             WHERE h.space_id = $1 AND h.destination_no = t.destination_no
             RETURNING h.destination_no, h.last_no - t.n AS before
         )
         INSERT INTO delivery (space_id, destination_no, seq, delivery_no, profile_no, subscription_no, subject, form,
             definition_no, value, at, origin_no)
         SELECT $1, n.destination_no, h.before + n.n, h.before + n.n, n.profile_no, n.subscription_no, 0, n.form,
             n.definition_no, CASE WHEN n.entered THEN 'true' ELSE 'false' END, n.at, n.profile_no
         FROM new n JOIN head h ON h.destination_no = n.destination_no"
    );
    sqlx::query(sql).bind(space.0).bind(definition).bind(after).execute(tx).await?;
    Ok(())
}

/// Workers lock their rows before those of the queue, and so does who changes it: nobody waits for another in a circle.
async fn lock_workers(tx: &mut PgConnection, space: SpaceNo, destinations: &[i32]) -> Result<()> {
    let sql = "-- store::deliveries::lock_workers
         SELECT 1 FROM destination_worker WHERE space_id = $1 AND destination_no = ANY($2)
         ORDER BY destination_no FOR UPDATE";
    sqlx::query(sql).bind(space.0).bind(destinations).execute(tx).await?;
    Ok(())
}

/// Hands what waits for profiles that were absorbed over to their survivors, so that the order of each is kept. Of the
/// same transaction as the merge.
pub async fn redirect(
    tx: &mut PgConnection,
    space: SpaceNo,
    destinations: &[DestinationNo],
    redirects: &[(ProfileNo, ProfileNo)],
) -> Result<()> {
    let destinations: Vec<i32> = destinations.iter().map(|d| d.0).collect();
    let (from, to): (Vec<i64>, Vec<i64>) =
        redirects.iter().map(|(from, to)| (from.0 as i64, to.0 as i64)).unzip();
    lock_workers(&mut *tx, space, &destinations).await?;
    for sql in [
        "-- store::deliveries::redirect
         UPDATE delivery d SET profile_no = r.survivor
         FROM unnest($2::int[]) AS w (destination_no)
         CROSS JOIN unnest($3::bigint[], $4::bigint[]) AS r (absorbed, survivor)
         WHERE d.space_id = $1 AND d.destination_no = w.destination_no AND d.profile_no = r.absorbed",
        "-- store::deliveries::redirect
         INSERT INTO delivery_hold (space_id, destination_no, profile_no, next_at, tries, first_at)
         SELECT DISTINCT ON (h.destination_no, r.survivor)
             $1, h.destination_no, r.survivor, h.next_at, h.tries, h.first_at
         FROM unnest($2::int[]) AS w (destination_no)
         CROSS JOIN unnest($3::bigint[], $4::bigint[]) AS r (absorbed, survivor)
         JOIN delivery_hold h
             ON h.space_id = $1 AND h.destination_no = w.destination_no AND h.profile_no = r.absorbed
         ORDER BY h.destination_no, r.survivor, h.first_at
         ON CONFLICT (space_id, destination_no, profile_no) DO NOTHING",
        "-- store::deliveries::redirect
         DELETE FROM delivery_hold h USING unnest($2::int[]) AS w (destination_no),
             unnest($3::bigint[], $4::bigint[]) AS r (absorbed, survivor)
         WHERE h.space_id = $1 AND h.destination_no = w.destination_no AND h.profile_no = r.absorbed",
    ] {
        let query = sqlx::query(sql).bind(space.0).bind(&destinations).bind(&from).bind(&to);
        query.execute(&mut *tx).await?;
    }
    Ok(())
}
