//! Deletions that destinations are told: one each, whatever they subscribe to, and what they make of it.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::erase::Person;
use crate::domain::delivery::{Form, Subject};
use crate::domain::{DestinationNo, ProfileNo, SpaceNo, Timestamp};
use crate::store::Result;
use crate::store::deliveries::{self, NewDelivery};

/// Puts a deletion of each of these people into the queue of every destination there is, behind everything that is under way
/// there, and notes that it is waited for. What a destination needs to know whom to delete is in the queue until it was told.
pub async fn enqueue(
    tx: &mut PgConnection,
    space: SpaceNo,
    regulation: Uuid,
    people: &[Person],
    at: Timestamp,
) -> Result<()> {
    let sql = "-- store::regulations::forward::enqueue
         SELECT w.destination_no, h.last_no FROM destination_worker w
         JOIN delivery_head h ON h.space_id = $1 AND h.destination_no = w.destination_no
         WHERE w.space_id = $1 ORDER BY w.destination_no FOR UPDATE OF w, h";
    let heads: Vec<(i32, i64)> = sqlx::query_as(sql).bind(space.0).fetch_all(&mut *tx).await?;
    let mut last: BTreeMap<i32, i64> = heads.into_iter().collect();
    let (mut rows, mut receipts) = (Vec::new(), Vec::new());
    for person in people {
        for (destination, last) in &mut last {
            *last += 1;
            rows.push(NewDelivery {
                destination: DestinationNo(*destination),
                // In a rebuild, the number that it had is another's.
                profile: nobody(person.no),
                origin: nobody(person.no),
                cause: None,
                subscription: 0,
                subject: Subject::Deletion,
                form: Form::Identify as i16,
                definition: 0,
                value: person.told.as_str().into(),
                at,
            });
            receipts.extend(person.subjects.iter().map(|subject| (*subject, *destination, *last)));
        }
    }
    deliveries::enqueue(&mut *tx, space, &rows).await?;
    let sql = "-- store::regulations::forward::enqueue
         INSERT INTO regulation_receipt (space_id, regulation_id, subject_no, destination_no, delivery_no)
         SELECT $1, $2, * FROM unnest($3::int[], $4::int[], $5::bigint[]) ON CONFLICT DO NOTHING";
    sqlx::query(sql)
        .bind(space.0)
        .bind(regulation)
        .bind(receipts.iter().map(|(subject, ..)| *subject).collect::<Vec<_>>())
        .bind(receipts.iter().map(|(_, destination, _)| *destination).collect::<Vec<_>>())
        .bind(receipts.iter().map(|(.., no)| *no).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

/// A number that no profile has, below zero where it is stored.
const fn nobody(no: ProfileNo) -> ProfileNo {
    ProfileNo((no.0 as i64).wrapping_neg() as u64)
}

/// Notes what destinations have said since. Those that were deleted are told nothing any more.
pub async fn settle(executor: impl PgExecutor<'_>, space: SpaceNo, at: Timestamp) -> Result<u64> {
    let sql = "-- store::regulations::forward::settle
         UPDATE regulation_receipt r SET state = n.state, code = n.code, done_at = n.done_at
         FROM (
             SELECT c.regulation_id, c.subject_no, c.destination_no,
                 CASE WHEN o.state = 1 THEN 1 WHEN o.state = 2 OR w.destination_no IS NULL THEN 2 ELSE 3 END AS state,
                 CASE WHEN w.destination_no IS NULL THEN 'DESTINATION_GONE' ELSE o.code END AS code,
                 coalesce(o.done_at, $2) AS done_at
             FROM regulation_receipt c
             LEFT JOIN delivery_outcome o ON o.space_id = $1 AND o.destination_no = c.destination_no
                 AND o.delivery_no = c.delivery_no
             LEFT JOIN destination_worker w ON w.space_id = $1 AND w.destination_no = c.destination_no
             WHERE c.space_id = $1 AND c.state IN (0, 3) AND (o.delivery_no IS NOT NULL OR w.destination_no IS NULL)
                 AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.space_id = $1 AND d.destination_no = c.destination_no
                     AND d.seq > c.delivery_no AND d.delivery_no = c.delivery_no)
         ) n
         WHERE r.space_id = $1 AND r.regulation_id = n.regulation_id AND r.subject_no = n.subject_no
             AND r.destination_no = n.destination_no AND (r.state <> n.state)";
    Ok(sqlx::query(sql).bind(space.0).bind(at.to_utc()).execute(executor).await?.rows_affected())
}
