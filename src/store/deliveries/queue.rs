//! Reading a queue: pages of what has come, profiles that wait for another attempt, and what a page does not say.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::domain::delivery::{Form, Subject};
use crate::domain::{ComputationNo, DestinationNo, ProfileNo, SpaceNo, Timestamp};
use crate::store::definitions::Kind;
use crate::store::{Result, StoreError};

/// A row of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Its place.
    pub seq: i64,
    /// Its number over all attempts and replays.
    pub no: i64,
    /// Whose change.
    pub profile: ProfileNo,
    /// Which subscription wants it.
    pub subscription: i32,
    /// What it is about.
    pub subject: Subject,
    /// As which call.
    pub form: Form,
    /// Which definition; 0 for none.
    pub definition: i32,
    /// JSON text.
    pub value: String,
    /// When it happened.
    pub at: Timestamp,
    /// Attempts before it was put into the queue.
    pub attempts: i32,
}

/// A profile whose first waiting change failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Whose.
    pub profile: ProfileNo,
    /// When it is tried again.
    pub next_at: Timestamp,
    /// Failed attempts so far.
    pub tries: i32,
    /// The first of them.
    pub first_at: Timestamp,
}

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    seq: i64,
    delivery_no: i64,
    profile_no: i64,
    subscription_no: i32,
    subject: i16,
    form: i16,
    definition_no: i32,
    value: String,
    at: DateTime<Utc>,
    attempts: i32,
}

impl TryFrom<Row> for Queued {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let (subject, form) = (Subject::from_number(row.subject), Form::from_number(row.form));
        let (Some(subject), Some(form)) = (subject, form) else {
            return Err(StoreError::Damaged(format!("delivery {} is of no known kind", row.delivery_no)));
        };
        Ok(Self {
            seq: row.seq,
            no: row.delivery_no,
            profile: ProfileNo(row.profile_no as u64),
            subscription: row.subscription_no,
            subject,
            form,
            definition: row.definition_no,
            value: row.value,
            at: row.at.into(),
            attempts: row.attempts,
        })
    }
}

fn all(rows: Vec<Row>) -> Result<Vec<Queued>> {
    rows.into_iter().map(Queued::try_from).collect()
}

/// The end of a queue, and the next rows behind `after` in order, at most `limit`, without those of profiles that are
/// held: what is not returned below the last row, or below the end where there are fewer rows, is held.
pub async fn load_page(
    connection: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
    after: i64,
    limit: i64,
) -> Result<(i64, Vec<Queued>)> {
    // The end first: what is committed by then is found by the statement after it.
    let sql = "-- store::deliveries::queue::load_page
         SELECT coalesce((SELECT last_no FROM delivery_head WHERE space_id = $1 AND destination_no = $2), 0)";
    let end: i64 =
        sqlx::query_scalar(sql).bind(space.0).bind(destination.0).fetch_one(&mut *connection).await?;
    if end <= after {
        return Ok((end, Vec::new()));
    }
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::deliveries::queue::load_page
         SELECT d.* FROM delivery d
         WHERE d.space_id = $1 AND d.destination_no = $2 AND d.seq > $3 AND d.seq <= $4 AND NOT EXISTS (
             SELECT 1 FROM delivery_hold h
             WHERE h.space_id = $1 AND h.destination_no = (SELECT $2::int) AND h.profile_no = d.profile_no)
         ORDER BY d.seq LIMIT $5",
    )
    .bind(space.0)
    .bind(destination.0)
    .bind(after)
    .bind(end)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok((end, all(rows)?))
}

/// Profiles that may be tried again by `now`, but for some; and when the next one may be that is not among them.
pub async fn load_due(
    connection: &mut PgConnection,
    space: SpaceNo,
    destination: DestinationNo,
    now: Timestamp,
    (but, limit): (&[i64], i64),
) -> Result<(Vec<Hold>, Option<Timestamp>)> {
    let rows: Vec<(i64, DateTime<Utc>, i32, DateTime<Utc>)> = sqlx::query_as(
        "-- store::deliveries::queue::load_due
         SELECT profile_no, next_at, tries, first_at FROM delivery_hold
         WHERE space_id = $1 AND destination_no = $2 AND profile_no <> ALL($3) ORDER BY next_at LIMIT $4",
    )
    .bind(space.0)
    .bind(destination.0)
    .bind(but)
    .bind(limit + 1)
    .fetch_all(connection)
    .await?;
    let holds = rows.into_iter().map(|(profile, next_at, tries, first_at)| Hold {
        profile: ProfileNo(profile as u64),
        next_at: next_at.into(),
        tries,
        first_at: first_at.into(),
    });
    let (mut due, rest): (Vec<Hold>, Vec<Hold>) = holds.partition(|hold| hold.next_at <= now);
    let mut next = rest.first().map(|hold| hold.next_at);
    if due.len() as i64 > limit {
        next = due.pop().map(|hold| hold.next_at);
    }
    Ok((due, next))
}

/// The next rows of profiles, each behind a place of its own and up to `until`, in order; at most `limit` of each.
pub async fn load_profiles(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    destination: DestinationNo,
    behind: &[(ProfileNo, i64)],
    (until, limit): (i64, i64),
) -> Result<Vec<Queued>> {
    let (profiles, after): (Vec<i64>, Vec<i64>) = behind.iter().map(|(p, seq)| (p.0 as i64, *seq)).unzip();
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::deliveries::queue::load_profiles
         SELECT d.* FROM unnest($3::bigint[], $4::bigint[]) AS w (profile_no, after)
         CROSS JOIN LATERAL (
             SELECT * FROM delivery q
             WHERE q.space_id = $1 AND q.destination_no = (SELECT $2::int) AND q.profile_no = w.profile_no
                 AND q.seq > w.after AND q.seq <= $5
             ORDER BY q.seq LIMIT $6) d
         ORDER BY d.seq",
    )
    .bind(space.0)
    .bind(destination.0)
    .bind(profiles)
    .bind(after)
    .bind(until)
    .bind(limit)
    .fetch_all(executor)
    .await?;
    all(rows)
}

/// Which of these profiles were absorbed, and by whom; and which of them are to be read anew, because what waited for
/// another one became theirs: those that are held and have rows before their place, or have the place 0.
pub async fn find_moved(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    destination: DestinationNo,
    (profiles, places): (&[i64], &[i64]),
) -> Result<Vec<(ProfileNo, Option<ProfileNo>)>> {
    let rows: Vec<(i64, Option<i64>)> = sqlx::query_as(
        "-- store::deliveries::queue::find_moved
         SELECT p.profile_no, p.merged_into
         FROM unnest($3::bigint[], $4::bigint[]) AS w (profile_no, place)
         JOIN profile p ON p.space_id = $1 AND p.profile_no = w.profile_no
         LEFT JOIN delivery_hold h
             ON h.space_id = $1 AND h.destination_no = (SELECT $2::int) AND h.profile_no = w.profile_no
         WHERE p.merged_into IS NOT NULL OR h.profile_no IS NOT NULL AND (w.place = 0 OR EXISTS (
             SELECT 1 FROM delivery d
             WHERE d.space_id = $1 AND d.destination_no = (SELECT $2::int) AND d.profile_no = w.profile_no
                 AND d.seq < w.place))",
    )
    .bind(space.0)
    .bind(destination.0)
    .bind(profiles)
    .bind(places)
    .fetch_all(executor)
    .await?;
    let number = |no: i64| ProfileNo(no as u64);
    Ok(rows.into_iter().map(|(no, into)| (number(no), into.map(number))).collect())
}

/// What clients call a space.
pub async fn space_key(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<String> {
    let sql = "-- store::deliveries::queue::space_key\nSELECT key FROM space WHERE space_id = $1";
    Ok(sqlx::query_scalar(sql).bind(space.0).fetch_one(executor).await?)
}

/// A definition, as far as it is sent.
#[derive(Debug, Clone)]
pub struct DefinitionRow {
    /// Its number.
    pub no: i32,
    /// Audience or computed trait.
    pub kind: Kind,
    /// Public id.
    pub id: Uuid,
    /// Name on the profile.
    pub key: String,
    /// The version that answers.
    pub serving: Option<ComputationNo>,
    /// What it is used for.
    pub purpose: Option<String>,
    /// What follows from it is decided by a person.
    pub requires_human_review: bool,
}

/// All definitions of a space, deleted ones too: what they told may still wait.
pub async fn list_definitions(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Vec<DefinitionRow>> {
    type Row = (i32, i16, Uuid, String, Option<i32>, Option<String>, bool);
    let sql = "-- store::deliveries::queue::list_definitions
         SELECT d.definition_no, d.kind, d.definition_id, d.key, d.serving_no, d.purpose,
             coalesce(c.requires_human_review, false) AS requires_human_review
         FROM definition d
         LEFT JOIN computation c ON c.space_id = $1 AND c.computation_no = d.serving_no
         WHERE d.space_id = $1";
    let rows: Vec<Row> = sqlx::query_as(sql).bind(space.0).fetch_all(executor).await?;
    let row = |(no, kind, id, key, serving, purpose, requires_human_review): Row| DefinitionRow {
        no,
        kind: Kind::from_number(kind),
        id,
        key,
        serving: serving.map(|no| ComputationNo(no as u32)),
        purpose,
        requires_human_review,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Public ids of profiles by number, absorbed ones too.
pub async fn list_profile_ids(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    numbers: &[i64],
) -> Result<Vec<(i64, Uuid)>> {
    let sql = "-- store::deliveries::queue::list_profile_ids
         SELECT profile_no, profile_id FROM profile WHERE space_id = $1 AND profile_no = ANY($2)";
    Ok(sqlx::query_as(sql).bind(space.0).bind(numbers).fetch_all(executor).await?)
}
