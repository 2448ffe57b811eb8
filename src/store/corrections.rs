//! What operators' acts change of what events have made: profiles that live again, identifiers and links that go to
//! other profiles, events that belong to other profiles.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::Result;
use super::deliveries::part::Separated;
use super::log::{HistoryChunk, history_chunk};
use super::memberships::Transition;
use super::regulations::erase::Erasure;
use super::segments;
use crate::domain::{IdKey, Offset, ProfileNo, SpaceNo, Timestamp};

/// A merge that is between other profiles now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejoined {
    /// What made it.
    pub offset: Offset,
    /// Who was absorbed.
    pub absorbed: ProfileNo,
    /// Who stayed, as it is now.
    pub survivor_now: ProfileNo,
    /// Who was absorbed, as it is now.
    pub absorbed_now: ProfileNo,
}

/// A chunk with events that belong to other profiles now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reattributed {
    /// The chunk.
    pub end_offset: Offset,
    /// Its day.
    pub day: NaiveDate,
    /// Encoded profile numbers of its events.
    pub numbers: Vec<u8>,
}

/// Everything the acts of one transaction correct.
#[derive(Debug, Default)]
pub struct Corrections {
    /// Absorbed profiles that live again.
    pub revived: Vec<ProfileNo>,
    /// Identifiers, and who is taken for having brought them.
    pub repointed: BTreeMap<IdKey, ProfileNo>,
    /// Profiles whose pointers that did not fit their rows are replaced.
    pub repaged: Vec<ProfileNo>,
    /// Accounts and users that are linked no more.
    pub unlinked: Vec<(ProfileNo, ProfileNo)>,
    /// Users whose links are replaced.
    pub relinked: Vec<ProfileNo>,
    /// Merges that were taken back, and when.
    pub undone: Vec<(Uuid, Timestamp)>,
    /// Merges that are between other profiles now.
    pub rejoined: Vec<Rejoined>,
    /// Events that belong to other profiles now.
    pub reattributed: Vec<Reattributed>,
    /// What was told of one profile and is another's now.
    pub retold: Vec<Transition>,
    /// A profile that was separated: what waits for destinations follows it, see
    /// [`separate`](crate::store::deliveries::part::separate).
    pub separated: Option<Separated>,
    /// Who is erased.
    pub erased: Option<Erasure>,
}

impl Corrections {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.revived.is_empty()
            && self.repointed.is_empty()
            && self.repaged.is_empty()
            && self.unlinked.is_empty()
            && self.relinked.is_empty()
            && self.undone.is_empty()
            && self.rejoined.is_empty()
            && self.reattributed.is_empty()
            && self.retold.is_empty()
            && self.erased.is_none()
    }

    /// Writes them. To be done before anything is added for the same profiles.
    pub async fn write(&self, tx: &mut PgConnection, space: SpaceNo) -> Result<()> {
        if !self.revived.is_empty() {
            revive(tx, space, &self.revived).await?;
        }
        if !self.repointed.is_empty() {
            repoint(tx, space, &self.repointed).await?;
        }
        if !self.repaged.is_empty() {
            delete_pages(tx, space, &self.repaged).await?;
        }
        if !self.unlinked.is_empty() {
            delete_links(tx, space, &self.unlinked).await?;
        }
        if !self.relinked.is_empty() {
            delete_all_links(tx, space, &self.relinked).await?;
        }
        if !self.undone.is_empty() {
            undo_merges(tx, space, &self.undone).await?;
        }
        if !self.rejoined.is_empty() {
            rejoin(tx, space, &self.rejoined).await?;
        }
        if !self.reattributed.is_empty() {
            reattribute(tx, space, &self.reattributed).await?;
        }
        if !self.retold.is_empty() {
            retell(tx, space, &self.retold).await?;
        }
        if let Some(erased) = &self.erased {
            erased.write(tx, space).await?;
        }
        Ok(())
    }
}

async fn revive(tx: &mut PgConnection, space: SpaceNo, profiles: &[ProfileNo]) -> Result<()> {
    let sql = "-- store::corrections::revive
         UPDATE profile SET merged_into = NULL WHERE space_id = $1 AND profile_no = ANY($2)";
    sqlx::query(sql).bind(space.0).bind(numbers(profiles)).execute(tx).await?;
    Ok(())
}

async fn repoint(tx: &mut PgConnection, space: SpaceNo, ids: &BTreeMap<IdKey, ProfileNo>) -> Result<()> {
    sqlx::query(
        "-- store::corrections::repoint
         UPDATE external_id e SET profile_no = n.profile_no
         FROM unnest($2::uuid[], $3::bigint[]) AS n (id_key, profile_no)
         WHERE e.space_id = $1 AND e.id_key = n.id_key",
    )
    .bind(space.0)
    .bind(ids.keys().map(|key| key.to_uuid()).collect::<Vec<_>>())
    .bind(ids.values().map(|no| no.0 as i64).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

async fn retell(tx: &mut PgConnection, space: SpaceNo, transitions: &[Transition]) -> Result<()> {
    sqlx::query(
        "-- store::corrections::retell
         UPDATE transition t SET profile_no = n.profile_no
         FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS n (definition_no, transition_no, profile_no)
         WHERE t.space_id = $1 AND t.definition_no = n.definition_no AND t.transition_no = n.transition_no",
    )
    .bind(space.0)
    .bind(transitions.iter().map(|t| t.definition).collect::<Vec<_>>())
    .bind(transitions.iter().map(|t| t.no).collect::<Vec<_>>())
    .bind(transitions.iter().map(|t| t.profile.0 as i64).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

async fn delete_pages(tx: &mut PgConnection, space: SpaceNo, profiles: &[ProfileNo]) -> Result<()> {
    let sql = "-- store::corrections::delete_pages
         DELETE FROM profile_event_page WHERE space_id = $1 AND profile_no = ANY($2)";
    sqlx::query(sql).bind(space.0).bind(numbers(profiles)).execute(tx).await?;
    Ok(())
}

async fn delete_links(tx: &mut PgConnection, space: SpaceNo, links: &[(ProfileNo, ProfileNo)]) -> Result<()> {
    sqlx::query(
        "-- store::corrections::delete_links
         DELETE FROM account_link k USING unnest($2::bigint[], $3::bigint[]) AS g (account_no, user_no)
         WHERE k.space_id = $1 AND k.account_no = g.account_no AND k.user_no = g.user_no",
    )
    .bind(space.0)
    .bind(links.iter().map(|(account, _)| account.0 as i64).collect::<Vec<_>>())
    .bind(links.iter().map(|(_, user)| user.0 as i64).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

async fn delete_all_links(tx: &mut PgConnection, space: SpaceNo, users: &[ProfileNo]) -> Result<()> {
    let sql = "-- store::corrections::delete_all_links
         DELETE FROM account_link WHERE space_id = $1 AND user_no = ANY($2)";
    sqlx::query(sql).bind(space.0).bind(numbers(users)).execute(tx).await?;
    Ok(())
}

async fn undo_merges(tx: &mut PgConnection, space: SpaceNo, merges: &[(Uuid, Timestamp)]) -> Result<()> {
    sqlx::query(
        "-- store::corrections::undo_merges
         UPDATE profile_merge m SET undone_at = u.at FROM unnest($2::uuid[], $3::timestamptz[]) AS u (id, at)
         WHERE m.space_id = $1 AND m.merge_id = u.id",
    )
    .bind(space.0)
    .bind(merges.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(merges.iter().map(|(_, at)| at.to_utc()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

async fn rejoin(tx: &mut PgConnection, space: SpaceNo, merges: &[Rejoined]) -> Result<()> {
    let column = |of: fn(&Rejoined) -> u64| merges.iter().map(|m| of(m) as i64).collect::<Vec<_>>();
    sqlx::query(
        "-- store::corrections::rejoin
         UPDATE profile_merge m SET survivor_no = n.survivor_now, absorbed_no = n.absorbed_now
         FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
             AS n (log_offset, absorbed_no, survivor_now, absorbed_now)
         WHERE m.space_id = $1 AND m.log_offset = n.log_offset AND m.absorbed_no = n.absorbed_no",
    )
    .bind(space.0)
    .bind(column(|m| m.offset.0))
    .bind(column(|m| m.absorbed.0))
    .bind(column(|m| m.survivor_now.0))
    .bind(column(|m| m.absorbed_now.0))
    .execute(tx)
    .await?;
    Ok(())
}

/// Writes whose the events of some chunks are, and forgets the segments that say it otherwise.
/// Who has read the numbers has kept segments from being made since (`segments::Hold`), and chunks from being joined.
pub(super) async fn reattribute(
    tx: &mut PgConnection,
    space: SpaceNo,
    chunks: &[Reattributed],
) -> Result<()> {
    let ends: Vec<i64> = chunks.iter().map(|c| c.end_offset.0 as i64).collect();
    sqlx::query(
        "-- store::corrections::reattribute
         UPDATE chunk_outcome o SET numbers = n.numbers
         FROM unnest($2::bigint[], $3::date[], $4::bytea[]) AS n (end_offset, day, numbers)
         WHERE o.space_id = $1 AND o.end_offset = n.end_offset AND o.day = n.day",
    )
    .bind(space.0)
    .bind(&ends)
    .bind(chunks.iter().map(|c| c.day).collect::<Vec<_>>())
    .bind(chunks.iter().map(|c| c.numbers.as_slice()).collect::<Vec<_>>())
    .execute(&mut *tx)
    .await?;
    segments::forget(tx, space, &ends).await
}

/// The first chunks that hold these offsets, as far as the log still has them, with what the processor made of them.
pub async fn read_containing(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    offsets: &[Offset],
    most: usize,
) -> Result<Vec<HistoryChunk>> {
    let rows = sqlx::query_as(
        "-- store::corrections::read_containing
         SELECT DISTINCT ON (c.end_offset) c.end_offset, c.event_count, c.day, c.received_at, c.body, o.numbers
         FROM unnest($2::bigint[]) AS wanted (log_offset)
         CROSS JOIN LATERAL (
             SELECT * FROM event_chunk WHERE space_id = $1 AND end_offset >= wanted.log_offset
             ORDER BY end_offset LIMIT 1
         ) c
         JOIN chunk_outcome o ON o.space_id = $1 AND o.end_offset = c.end_offset AND o.day = c.day
         WHERE wanted.log_offset > c.end_offset - c.event_count
         ORDER BY c.end_offset LIMIT $3",
    )
    .bind(space.0)
    .bind(offsets.iter().map(|o| o.0 as i64).collect::<Vec<_>>())
    .bind(most as i64)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(history_chunk).collect())
}

/// All that was told of some profiles, each audience's in its order.
pub async fn list_transitions(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    profiles: &[ProfileNo],
) -> Result<Vec<Transition>> {
    type Row = (i32, i64, i64, bool, chrono::DateTime<chrono::Utc>);
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::corrections::list_transitions
         SELECT definition_no, transition_no, profile_no, entered, at FROM transition
         WHERE space_id = $1 AND profile_no = ANY($2) ORDER BY definition_no, transition_no",
    )
    .bind(space.0)
    .bind(numbers(profiles))
    .fetch_all(executor)
    .await?;
    let transition = |(definition, no, profile, entered, at): Row| Transition {
        definition,
        no,
        profile: ProfileNo(profile as u64),
        entered,
        at: at.into(),
    };
    Ok(rows.into_iter().map(transition).collect())
}

/// The public id of a profile, also of one that was absorbed, and when it was made.
pub async fn find_origin(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    profile: ProfileNo,
) -> Result<Option<(Uuid, Timestamp)>> {
    let sql = "-- store::corrections::find_origin
         SELECT profile_id, created_at FROM profile WHERE space_id = $1 AND profile_no = $2";
    let row: Option<(Uuid, chrono::DateTime<chrono::Utc>)> =
        sqlx::query_as(sql).bind(space.0).bind(profile.0 as i64).fetch_optional(executor).await?;
    Ok(row.map(|(id, at)| (id, at.into())))
}

fn numbers(profiles: &[ProfileNo]) -> Vec<i64> {
    profiles.iter().map(|no| no.0 as i64).collect()
}
