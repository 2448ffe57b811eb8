//! What exports read besides what others read, all on one snapshot.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::Result;
use crate::domain::{Offset, ProfileNo, SpaceNo, Timestamp};

/// Up to where the log is in what a snapshot shows.
pub async fn as_of(connection: &mut PgConnection, space: SpaceNo) -> Result<Offset> {
    let sql = "-- store::exports::as_of\nSELECT processed_offset FROM processor WHERE space_id = $1";
    let offset: Option<i64> = sqlx::query_scalar(sql).bind(space.0).fetch_optional(connection).await?;
    Ok(Offset(offset.unwrap_or(0) as u64))
}

/// A profile that is linked to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linked {
    /// Its public id.
    pub id: Uuid,
    /// Since when.
    pub since: Timestamp,
}

/// Accounts of a user with these numbers, or users of an account, each once, in the order of their numbers.
pub async fn list_links(
    connection: &mut PgConnection,
    space: SpaceNo,
    is_user: bool,
    numbers: &[ProfileNo],
) -> Result<Vec<Linked>> {
    let sql = if is_user {
        "-- store::exports::list_links
         SELECT p.profile_id, min(k.created_at) FROM account_link k
         JOIN profile p ON p.space_id = $1 AND p.profile_no = k.account_no
         WHERE k.space_id = $1 AND k.user_no = ANY($2) GROUP BY p.profile_no, p.profile_id ORDER BY p.profile_no"
    } else {
        "-- store::exports::list_links
         SELECT l.profile_id, min(k.created_at) FROM account_link k
         JOIN profile p ON p.space_id = $1 AND p.profile_no = k.user_no
         JOIN profile l ON l.space_id = $1 AND l.profile_no = CASE WHEN p.merged_into IS NULL THEN p.profile_no ELSE p.merged_into END
         WHERE k.space_id = $1 AND k.account_no = ANY($2) GROUP BY l.profile_no, l.profile_id ORDER BY l.profile_no"
    };
    let numbers: Vec<i64> = numbers.iter().map(|no| no.0 as i64).collect();
    let rows: Vec<(Uuid, DateTime<Utc>)> =
        sqlx::query_as(sql).bind(space.0).bind(numbers).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(id, since)| Linked { id, since: since.into() }).collect())
}

/// That a profile entered an audience, or left it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Told {
    /// Key of the audience.
    pub key: String,
    /// Whether it entered.
    pub entered: bool,
    /// When.
    pub at: DateTime<Utc>,
}

/// All that was told of a profile with these numbers, by audience and in its order.
pub async fn list_transitions(
    connection: &mut PgConnection,
    space: SpaceNo,
    numbers: &[ProfileNo],
) -> Result<Vec<Told>> {
    let sql = "-- store::exports::list_transitions
         SELECT d.key, t.entered, t.at FROM transition t
         JOIN definition d ON d.space_id = $1 AND d.definition_no = t.definition_no
         WHERE t.space_id = $1 AND t.profile_no = ANY($2) ORDER BY d.key, t.definition_no, t.transition_no";
    let numbers: Vec<i64> = numbers.iter().map(|no| no.0 as i64).collect();
    Ok(sqlx::query_as(sql).bind(space.0).bind(numbers).fetch_all(connection).await?)
}

/// The next profiles of a space that live, by number.
pub async fn list_profiles(
    connection: &mut PgConnection,
    space: SpaceNo,
    after: ProfileNo,
    limit: i64,
) -> Result<Vec<(ProfileNo, Bytes)>> {
    let sql = "-- store::exports::list_profiles
         SELECT profile_no, state FROM profile
         WHERE space_id = $1 AND profile_no > $2 AND merged_into IS NULL ORDER BY profile_no LIMIT $3";
    let query = sqlx::query_as(sql).bind(space.0).bind(after.0 as i64).bind(limit);
    let rows: Vec<(i64, Vec<u8>)> = query.fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(no, state)| (ProfileNo(no as u64), state.into())).collect())
}

/// A page of a file of a whole space: rows as JSON, each with its place, behind a place.
async fn page(
    connection: &mut PgConnection,
    sql: &'static str,
    space: SpaceNo,
    after: &[i64; 2],
    limit: i64,
) -> Result<Vec<([i64; 2], String)>> {
    let query = sqlx::query_as(sql).bind(space.0).bind(after[0]).bind(after[1]).bind(limit);
    let rows: Vec<(i64, i64, String)> = query.fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(one, two, row)| ([one, two], row)).collect())
}

/// A file of a whole space that is read page by page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paged {
    /// Merges of profiles, those that were taken back among them.
    Merges,
    /// Users and their accounts.
    Links,
    /// Who entered and left audiences.
    Transitions,
}

impl Paged {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Merges, Self::Links, Self::Transitions];

    /// Name of its file.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Merges => "merges",
            Self::Links => "links",
            Self::Transitions => "transitions",
        }
    }

    /// Its rows behind a place, as JSON; public ids have no prefix yet: they stand in the fields whose names end in `_id`.
    pub async fn read(
        self,
        connection: &mut PgConnection,
        space: SpaceNo,
        after: &[i64; 2],
        limit: i64,
    ) -> Result<Vec<([i64; 2], String)>> {
        let sql = match self {
            Self::Merges => {
                "-- store::exports::read
                 SELECT m.log_offset, m.absorbed_no, json_build_object('at', m.merged_at, 'offset', m.log_offset,
                     'survivor_id', s.profile_id, 'absorbed_id', a.profile_id, 'message_id', m.message_id,
                     'matched', m.matched, 'manual', m.manual, 'undone_at', m.undone_at)::text
                 FROM profile_merge m
                 LEFT JOIN profile s ON s.space_id = $1 AND s.profile_no = m.survivor_no
                 LEFT JOIN profile a ON a.space_id = $1 AND a.profile_no = m.absorbed_no
                 WHERE m.space_id = $1 AND (m.log_offset, m.absorbed_no) > ($2, $3)
                 ORDER BY m.log_offset, m.absorbed_no LIMIT $4"
            }
            Self::Links => {
                "-- store::exports::read
                 SELECT k.account_no, k.user_no, json_build_object('account_id', a.profile_id, 'user_id',
                     coalesce(l.profile_id, u.profile_id), 'created_at', k.created_at)::text
                 FROM account_link k
                 JOIN profile a ON a.space_id = $1 AND a.profile_no = k.account_no
                 JOIN profile u ON u.space_id = $1 AND u.profile_no = k.user_no
                 LEFT JOIN profile l ON l.space_id = $1 AND l.profile_no = u.merged_into
                 WHERE k.space_id = $1 AND (k.account_no, k.user_no) > ($2, $3)
                 ORDER BY k.account_no, k.user_no LIMIT $4"
            }
            Self::Transitions => {
                "-- store::exports::read
                 SELECT t.definition_no::bigint, t.transition_no, json_build_object('audience', d.key, 'profile_id',
                     coalesce(l.profile_id, p.profile_id), 'entered', t.entered, 'at', t.at)::text
                 FROM transition t
                 JOIN definition d ON d.space_id = $1 AND d.definition_no = t.definition_no
                 JOIN profile p ON p.space_id = $1 AND p.profile_no = t.profile_no
                 LEFT JOIN profile l ON l.space_id = $1 AND l.profile_no = p.merged_into
                 WHERE t.space_id = $1 AND (t.definition_no, t.transition_no) > ($2::int, $3)
                 ORDER BY t.definition_no, t.transition_no LIMIT $4"
            }
        };
        page(connection, sql, space, after, limit).await
    }
}

/// Tables that are exported whole, and that an import puts in place: what operators write, and who is kept out, by hashes that
/// are of use only with the secret they were made under.
pub const TABLES: [&str; 14] = [
    "source",
    "identity_settings",
    "identity_type",
    "search_trait",
    "definition",
    "computation",
    "leaf",
    "consent_category",
    "consent_settings",
    "retention",
    "sensitive_settings",
    "privacy_secret",
    "suppression",
    "erased_identifier",
];

/// Files of the log: which chunks there are, and what stands in them.
pub const LOG: [&str; 3] = ["chunks", "events", "acts"];

/// The rows of one of [`TABLES`] as JSON, without the space they belong to.
pub async fn list_rows(
    connection: &mut PgConnection,
    space: SpaceNo,
    table: &'static str,
) -> Result<Vec<String>> {
    // The names are ours.
    let sql = format!(
        "-- store::exports::list_rows\nSELECT (to_jsonb(t) - 'space_id')::text FROM {table} t WHERE t.space_id = $1 ORDER BY 1"
    );
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).bind(space.0).fetch_all(connection).await?)
}
