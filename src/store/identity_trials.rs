//! What a change of identity settings would mean for the profiles there are.

use uuid::Uuid;

use super::identity::SettingsRow;
use super::{Result, Walled};
use crate::domain::id_type::{IdType, TypeNo};
use crate::domain::{IdKey, ProfileNo, SpaceNo};

/// What a profile has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Identifiers of one type, or of all together.
    Identifiers,
    /// Merges it has taken.
    Merges,
}

/// A profile that has more than settings allow.
#[derive(Debug, Clone)]
pub struct Excess {
    /// Its public id.
    pub profile: Uuid,
    /// What it has too much of.
    pub kind: Kind,
    /// The type it has too many values of; none: it has too many of all types together.
    pub type_no: Option<TypeNo>,
    /// How many it has.
    pub values: i64,
    /// How many it may have.
    pub limit: i64,
}

/// Too many values of a type, within its window: found by looking at the profile.
#[derive(Debug, Clone, Copy)]
pub struct WithinWindow {
    /// The profile.
    pub profile: ProfileNo,
    /// The type.
    pub type_no: TypeNo,
    /// How many it has.
    pub values: i64,
    /// How many it may have.
    pub limit: i64,
}

/// Live profiles that have more values of one of these types than its limit, however old.
pub async fn list_above(door: &Walled, space: SpaceNo, types: &[&IdType]) -> Result<Vec<ProfileNo>> {
    let rows: Vec<i64> = sqlx::query_scalar(
        "-- store::identity_trials::list_above
         SELECT DISTINCT h.owner FROM (
             SELECT coalesce(p.merged_into, e.profile_no) AS owner, e.type_no, count(*) AS n
             FROM external_id e LEFT JOIN profile p
                 ON p.space_id = e.space_id AND p.profile_no = e.profile_no AND p.merged_into IS NOT NULL
             WHERE e.space_id = $1 AND e.type_no = ANY($2) GROUP BY 1, 2
         ) h JOIN unnest($2::smallint[], $3::int[]) AS l (type_no, most) ON l.type_no = h.type_no
         WHERE h.n > l.most ORDER BY h.owner",
    )
    .bind(space.0)
    .bind(types.iter().map(|t| t.no).collect::<Vec<_>>())
    .bind(types.iter().map(|t| t.limit as i32).collect::<Vec<_>>())
    .fetch_all(door)
    .await?;
    Ok(rows.into_iter().map(|no| ProfileNo(no as u64)).collect())
}

/// Profiles that have more values of a type than its limit, more identifiers than they may, or have taken more merges: how
/// many, and those that are most above, `sample` of them. Types with a window are those of `windowed`.
pub async fn find_excess(
    door: &Walled,
    space: SpaceNo,
    settings: &SettingsRow,
    windowed: &[WithinWindow],
    sample: i64,
) -> Result<(i64, Vec<Excess>)> {
    type Row = (Uuid, bool, Option<TypeNo>, i64, i64, i64);
    let for_ever = || settings.types.iter().filter(|t| t.frequency.window_ms().is_none());
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::identity_trials::find_excess
         WITH held AS (
             SELECT coalesce(p.merged_into, e.profile_no) AS owner, e.type_no, count(*) AS n
             FROM external_id e LEFT JOIN profile p
                 ON p.space_id = e.space_id AND p.profile_no = e.profile_no AND p.merged_into IS NOT NULL
             WHERE e.space_id = $1 GROUP BY 1, 2
         ), excess AS (
             SELECT h.owner, false AS merges, h.type_no, h.n, l.most::bigint AS most
             FROM held h JOIN unnest($2::smallint[], $3::int[]) AS l (type_no, most) ON l.type_no = h.type_no
             WHERE h.n > l.most
             UNION ALL
             SELECT owner, false, NULL, sum(n)::bigint, $4::bigint FROM held GROUP BY owner HAVING sum(n) > $4
             UNION ALL
             SELECT owner, false, type_no, n, most
             FROM unnest($5::bigint[], $6::smallint[], $7::bigint[], $8::bigint[]) AS w (owner, type_no, n, most)
             UNION ALL
             SELECT merged_into, true, NULL, count(*), $9::bigint FROM profile
             WHERE space_id = $1 AND merged_into IS NOT NULL GROUP BY merged_into HAVING count(*) > $9
         )
         SELECT p.profile_id, x.merges, x.type_no, x.n, x.most, (SELECT count(DISTINCT owner) FROM excess)
         FROM excess x JOIN profile p ON p.space_id = $1 AND p.profile_no = x.owner
         ORDER BY x.n - x.most DESC, x.owner, x.merges, x.type_no LIMIT $10",
    )
    .bind(space.0)
    .bind(for_ever().map(|t| t.no).collect::<Vec<_>>())
    .bind(for_ever().map(|t| t.limit as i32).collect::<Vec<_>>())
    .bind(i64::from(settings.identifiers_max))
    .bind(windowed.iter().map(|w| w.profile.0 as i64).collect::<Vec<_>>())
    .bind(windowed.iter().map(|w| w.type_no).collect::<Vec<_>>())
    .bind(windowed.iter().map(|w| w.values).collect::<Vec<_>>())
    .bind(windowed.iter().map(|w| w.limit).collect::<Vec<_>>())
    .bind(i64::from(settings.merges_max))
    .bind(sample)
    .fetch_all(door)
    .await?;
    let profiles = rows.first().map_or(0, |row| row.5);
    let excess = |(profile, merges, type_no, values, limit, _): Row| Excess {
        profile,
        kind: if merges { Kind::Merges } else { Kind::Identifiers },
        type_no,
        values,
        limit,
    };
    Ok((profiles, rows.into_iter().map(excess).collect()))
}

/// An identifier somebody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What it is found by.
    pub key: IdKey,
    /// Its type.
    pub type_no: TypeNo,
    /// Its value.
    pub value: String,
    /// Whose it is.
    pub owner: ProfileNo,
}

/// Identifiers of some types, by their keys, behind one of them.
pub async fn list_held(
    door: &Walled,
    space: SpaceNo,
    types: &[TypeNo],
    after: IdKey,
    limit: i64,
) -> Result<Vec<Held>> {
    let rows: Vec<(Uuid, TypeNo, String, i64)> = sqlx::query_as(
        "-- store::identity_trials::list_held
         SELECT e.id_key, e.type_no, e.value, coalesce(p.merged_into, e.profile_no)
         FROM external_id e JOIN profile p ON p.space_id = $1 AND p.profile_no = e.profile_no
         WHERE e.space_id = $1 AND e.id_key > $2 AND e.type_no = ANY($3) ORDER BY e.id_key LIMIT $4",
    )
    .bind(space.0)
    .bind(after.to_uuid())
    .bind(types)
    .bind(limit)
    .fetch_all(door)
    .await?;
    let held = |(key, type_no, value, no): (Uuid, TypeNo, String, i64)| Held {
        key: IdKey(key.as_u128()),
        type_no,
        value,
        owner: ProfileNo(no as u64),
    };
    Ok(rows.into_iter().map(held).collect())
}
