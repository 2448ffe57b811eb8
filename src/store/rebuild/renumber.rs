//! What a rebuild derives may have a profile more or less than what is live, and all that were made later have other numbers
//! then. Their public ids are the same: by those, what is not derived again is given to whom it belongs.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection};

use super::Place;
use crate::domain::ProfileNo;
use crate::store::Result;

/// Numbers that are live and mean somebody else in the rebuild: what they mean there. Who is nobody there is what the first of
/// its identifiers is, and else gets a number that nobody has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renumbered(BTreeMap<ProfileNo, Option<ProfileNo>>);

impl Renumbered {
    /// Whether everybody has the number they had.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a live number means in the rebuild; none: nobody.
    pub fn again(&self, live: ProfileNo) -> Option<ProfileNo> {
        self.0.get(&live).map_or(Some(live), |again| *again)
    }
}

/// The query that finds them: `old_no`, and `new_no` or null.
fn sql(place: &Place) -> String {
    let Place { space, live, shadow, .. } = place;
    format!(
        "SELECT l.profile_no AS old_no, s.profile_no AS new_no
         FROM {live}.profile l
         LEFT JOIN {shadow}.profile s ON s.space_id = {space} AND s.profile_id = l.profile_id
         WHERE l.space_id = {space} AND l.profile_no IS DISTINCT FROM s.profile_no"
    )
}

/// Finds the numbers that mean somebody else.
pub async fn find(connection: &mut PgConnection, place: &Place) -> Result<Renumbered> {
    let sql = format!("-- store::rebuild::renumber::find\n{}", sql(place));
    let rows: Vec<(i64, Option<i64>)> = sqlx::query_as(AssertSqlSafe(sql)).fetch_all(connection).await?;
    let number = |no: i64| ProfileNo(no as u64);
    Ok(Renumbered(rows.into_iter().map(|(old, new)| (number(old), new.map(number))).collect()))
}

/// Gives what is not derived again to whom it belongs: transitions, what waits for destinations or was given up there, and the
/// public ids of those that are made no more. Of the swap's transaction, before anything is put in place; nothing to do when nobody is [`Renumbered`].
pub async fn renumber(tx: &mut PgConnection, place: &Place) -> Result<()> {
    let Place { space, live, shadow, .. } = place;
    let ddl = format!(
        "CREATE TEMP TABLE renumbered ON COMMIT DROP AS {found};
         UPDATE renumbered r SET new_no = coalesce(
             -- Who was absorbed goes where the survivor goes.
             (SELECT CASE WHEN m.old_no IS NULL THEN p.merged_into ELSE m.new_no END FROM {live}.profile p
              LEFT JOIN renumbered m ON m.old_no = p.merged_into
              WHERE p.space_id = {space} AND p.profile_no = r.old_no AND p.merged_into IS NOT NULL),
             (SELECT s.profile_no FROM {live}.external_id e
              JOIN {shadow}.external_id s ON s.space_id = {space} AND s.id_key = e.id_key
              WHERE e.space_id = {space} AND e.profile_no = r.old_no ORDER BY e.id_key LIMIT 1),
             -old_no)
         WHERE new_no IS NULL;
         CREATE INDEX ON renumbered (old_no);
         ANALYZE renumbered",
        found = sql(place)
    );
    sqlx::raw_sql(AssertSqlSafe(ddl)).execute(&mut *tx).await?;
    // Workers first, as everybody locks them; they read their queues anew.
    let mut dml = format!(
        "SELECT 1 FROM {live}.destination_worker WHERE space_id = {space} ORDER BY destination_no FOR UPDATE;
         UPDATE {live}.destination_worker SET shuffled = shuffled + 1 WHERE space_id = {space};
         CREATE TEMP TABLE held ON COMMIT DROP AS
             SELECT DISTINCT ON (h.destination_no, coalesce(r.new_no, h.profile_no)) h.destination_no,
                 coalesce(r.new_no, h.profile_no) AS profile_no, h.next_at, h.tries, h.first_at
             FROM {live}.delivery_hold h LEFT JOIN renumbered r ON r.old_no = h.profile_no
             WHERE h.space_id = {space} ORDER BY 1, 2, h.first_at;
         DELETE FROM {live}.delivery_hold WHERE space_id = {space};
         INSERT INTO {live}.delivery_hold (space_id, destination_no, profile_no, next_at, tries, first_at)
             SELECT {space}, destination_no, profile_no, next_at, tries, first_at FROM held;"
    );
    for (table, column) in [
        ("transition", "profile_no"),
        ("delivery", "profile_no"),
        ("delivery", "origin_no"),
        ("delivery_outcome", "profile_no"),
        ("delivery_outcome", "origin_no"),
    ] {
        let update = format!(
            "UPDATE {live}.{table} t SET {column} = r.new_no FROM renumbered r
             WHERE t.space_id = {space} AND t.{column} = r.old_no;"
        );
        dml.push_str(&update);
    }
    for table in ["delivery", "delivery_outcome"] {
        // Merges name the other profile (`domain::delivery::OtherProfile`): a number, or an object that has it.
        let update = format!(
            "UPDATE {live}.{table} t SET value = replace(t.value, r.old_no::text, r.new_no::text) FROM renumbered r
             WHERE t.space_id = {space} AND t.subject = {MERGES}
                 AND regexp_replace(t.value, '[^-0-9]', '', 'g') = r.old_no::text;"
        );
        dml.push_str(&update);
    }
    // Who is no more leaves a signpost to who has what it had, and signposts of before are renumbered as everything is.
    let signposts = format!(
        "UPDATE {live}.former_profile f SET profile_no = r.new_no FROM renumbered r
         WHERE f.space_id = {space} AND f.profile_no = r.old_no;
         INSERT INTO {live}.former_profile (space_id, profile_id, profile_no)
             SELECT {space}, l.profile_id, r.new_no FROM renumbered r
             JOIN {live}.profile l ON l.space_id = {space} AND l.profile_no = r.old_no
             WHERE NOT EXISTS (SELECT 1 FROM {shadow}.profile s
                               WHERE s.space_id = {space} AND s.profile_id = l.profile_id)
             ON CONFLICT (space_id, profile_id) DO UPDATE SET profile_no = excluded.profile_no;"
    );
    dml.push_str(&signposts);
    // A full sync goes by numbers: those that are under way begin again.
    let update = format!(
        "UPDATE {live}.destination_sync y SET after_no = 0, until_no = s.last_profile_no
         FROM {shadow}.processor s WHERE y.space_id = {space} AND s.space_id = {space} AND y.after_no IS NOT NULL"
    );
    dml.push_str(&update);
    sqlx::raw_sql(AssertSqlSafe(dml)).execute(tx).await?;
    Ok(())
}

/// Forgets the signposts of those who are somebody in what was derived again. Of the swap's transaction.
pub async fn forget_signposts(tx: &mut PgConnection, place: &Place) -> Result<()> {
    let Place { space, live, shadow, .. } = place;
    let sql = format!(
        "-- store::rebuild::renumber::forget_signposts
         DELETE FROM {live}.former_profile f USING {shadow}.profile s
         WHERE f.space_id = $1 AND s.space_id = $1 AND s.profile_id = f.profile_id"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(space.0).execute(tx).await?;
    Ok(())
}

/// As deliveries store it.
const MERGES: i16 = crate::domain::delivery::Subject::Merges as i16;
