//! Who nothing new is taken of, and the secret under which identifiers are hashed.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::domain::regulation::IdHash;
use crate::domain::{SpaceNo, Timestamp};
use crate::store::{Result, Walled};

/// The secret of a space, and notes that what is hashed under it changes; `new` is taken where there is none yet. Its row
/// lock keeps others out.
pub async fn secret(tx: &mut PgConnection, space: SpaceNo, new: &[u8]) -> Result<Vec<u8>> {
    let sql = "-- store::regulations::suppression::secret
         INSERT INTO privacy_secret AS s (space_id, secret, version) VALUES ($1, $2, 1)
         ON CONFLICT (space_id) DO UPDATE SET version = s.version + 1
         RETURNING secret";
    Ok(sqlx::query_scalar(sql).bind(space.0).bind(new).fetch_one(tx).await?)
}

/// The secret of a space; none where nobody was ever suppressed or erased.
pub async fn find_secret(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Option<Vec<u8>>> {
    let sql = "-- store::regulations::suppression::find_secret
         SELECT secret FROM privacy_secret WHERE space_id = $1";
    Ok(sqlx::query_scalar(sql).bind(space.0).fetch_optional(executor).await?)
}

/// An identifier that is not taken.
#[derive(Debug, Clone)]
pub struct Suppressed {
    /// Its hash.
    pub hash: IdHash,
    /// Its type.
    pub id_type: String,
    /// The regulation that says so,
    pub regulation: Uuid,
    /// and whom of it.
    pub no: i32,
    /// It is a device's, and taken again from then on.
    pub expires_at: Option<Timestamp>,
    /// Since when.
    pub created_at: Timestamp,
}

/// Suppresses identifiers. What is suppressed already goes over to these people with everything that went together with it,
/// so that all of it is lifted together; the later end counts.
pub async fn insert(tx: &mut PgConnection, space: SpaceNo, rows: &[Suppressed]) -> Result<()> {
    let mut rows: Vec<&Suppressed> = rows.iter().collect();
    rows.sort_by_key(|row| row.hash);
    rows.dedup_by_key(|row| row.hash);
    let hashes: Vec<&[u8]> = rows.iter().map(|row| row.hash.0.as_slice()).collect();
    sqlx::query(
        "-- store::regulations::suppression::insert
         UPDATE suppression s SET regulation_id = n.regulation_id, subject_no = n.subject_no
         FROM (
             SELECT DISTINCT ON (o.regulation_id, o.subject_no) o.regulation_id AS of_id, o.subject_no AS of_no,
                 w.regulation_id, w.subject_no
             FROM unnest($2::bytea[], $3::uuid[], $4::int[]) AS w (id_hash, regulation_id, subject_no)
             JOIN suppression o ON o.space_id = $1 AND o.id_hash = w.id_hash
             ORDER BY o.regulation_id, o.subject_no
         ) n
         WHERE s.space_id = $1 AND s.regulation_id = n.of_id AND s.subject_no = n.of_no",
    )
    .bind(space.0)
    .bind(&hashes)
    .bind(rows.iter().map(|row| row.regulation).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.no).collect::<Vec<_>>())
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "-- store::regulations::suppression::insert
         INSERT INTO suppression AS s (space_id, id_hash, id_type, regulation_id, subject_no, expires_at, created_at)
         SELECT $1, * FROM unnest($2::bytea[], $3::text[], $4::uuid[], $5::int[], $6::timestamptz[], $7::timestamptz[])
         ON CONFLICT (space_id, id_hash) DO UPDATE SET expires_at = CASE
             WHEN s.expires_at IS NULL OR excluded.expires_at IS NULL THEN NULL
             ELSE greatest(s.expires_at, excluded.expires_at) END",
    )
    .bind(space.0)
    .bind(&hashes)
    .bind(rows.iter().map(|row| row.id_type.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.regulation).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.no).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.expires_at.map(Timestamp::to_utc)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.created_at.to_utc()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// Those of some people that are suppressed still: the hashes they were named by.
pub async fn list_still(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    (regulation, subjects): (Uuid, &[i32]),
) -> Result<Vec<i32>> {
    let sql = "-- store::regulations::suppression::list_still
         SELECT r.subject_no FROM regulation_subject r
         JOIN suppression s ON s.space_id = $1 AND s.id_hash = r.id_hash
         WHERE r.space_id = $1 AND r.regulation_id = $2 AND r.subject_no = ANY($3)";
    Ok(sqlx::query_scalar(sql).bind(space.0).bind(regulation).bind(subjects).fetch_all(executor).await?)
}

/// Takes everything of these people again: whoever has one of the identifiers is suppressed by none of the others either.
/// Returns how many identifiers that were.
pub async fn delete(tx: &mut PgConnection, space: SpaceNo, hashes: &[IdHash]) -> Result<u64> {
    let sql = "-- store::regulations::suppression::delete
         DELETE FROM suppression s USING suppression named
         WHERE s.space_id = $1 AND named.space_id = $1 AND named.id_hash = ANY($2)
             AND s.regulation_id = named.regulation_id AND s.subject_no = named.subject_no";
    let hashes: Vec<&[u8]> = hashes.iter().map(|hash| hash.0.as_slice()).collect();
    Ok(sqlx::query(sql).bind(space.0).bind(hashes).execute(tx).await?.rows_affected())
}

/// A page of what is suppressed, in the order of hashes.
pub async fn list(
    door: &Walled,
    space: SpaceNo,
    (after, limit): (Option<IdHash>, i64),
    only: Option<IdHash>,
) -> Result<Vec<Suppressed>> {
    type Row = (Vec<u8>, String, Uuid, i32, Option<DateTime<Utc>>, DateTime<Utc>);
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::regulations::suppression::list
         SELECT id_hash, id_type, regulation_id, subject_no, expires_at, created_at FROM suppression
         WHERE space_id = $1 AND ($2::bytea IS NULL OR id_hash > $2) AND ($3::bytea IS NULL OR id_hash = $3)
         ORDER BY id_hash LIMIT $4",
    )
    .bind(space.0)
    .bind(after.map(|hash| hash.0.to_vec()))
    .bind(only.map(|hash| hash.0.to_vec()))
    .bind(limit)
    .fetch_all(door)
    .await?;
    let suppressed = |(hash, id_type, regulation, no, expires_at, at): Row| Suppressed {
        hash: id_hash(&hash),
        id_type,
        regulation,
        no,
        expires_at: expires_at.map(Timestamp::from),
        created_at: at.into(),
    };
    Ok(rows.into_iter().map(suppressed).collect())
}

/// Versions of everything that the door goes by in spaces that keep somebody out: what is hashed, and the settings by which
/// identifiers are read.
pub async fn list_versions(executor: impl PgExecutor<'_>) -> Result<Vec<(SpaceNo, i64, i64)>> {
    let sql = "-- store::regulations::suppression::list_versions
         SELECT s.space_id, s.version, p.config_version FROM privacy_secret s
         JOIN processor p ON p.space_id = s.space_id ORDER BY 1";
    let rows: Vec<(i32, i64, i64)> = sqlx::query_as(sql).fetch_all(executor).await?;
    Ok(rows.into_iter().map(|(space, secret, config)| (SpaceNo(space), secret, config)).collect())
}

/// What an identifier that is kept out is kept out of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Blocked {
    /// Nothing new is taken. Of a device, until then.
    pub suppressed: Option<Option<Timestamp>>,
    /// Nothing that happened before that is taken.
    pub erased_at: Option<Timestamp>,
}

/// All identifiers of a space that are kept out.
pub async fn list_blocked(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Vec<(IdHash, Blocked)>> {
    type Row = (Vec<u8>, bool, Option<DateTime<Utc>>, Option<DateTime<Utc>>);
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::regulations::suppression::list_blocked
         SELECT coalesce(s.id_hash, e.id_hash), s.id_hash IS NOT NULL, s.expires_at, e.erased_at
         FROM (SELECT * FROM suppression WHERE space_id = $1) s
         FULL JOIN (SELECT * FROM erased_identifier WHERE space_id = $1) e ON e.id_hash = s.id_hash",
    )
    .bind(space.0)
    .fetch_all(executor)
    .await?;
    let blocked = |(hash, is_suppressed, expires_at, erased_at): Row| {
        let suppressed = is_suppressed.then(|| expires_at.map(Timestamp::from));
        (id_hash(&hash), Blocked { suppressed, erased_at: erased_at.map(Timestamp::from) })
    };
    Ok(rows.into_iter().map(blocked).collect())
}

/// A hash as it is stored.
pub(super) fn id_hash(bytes: &[u8]) -> IdHash {
    let mut hash = [0; 16];
    for (to, from) in hash.iter_mut().zip(bytes) {
        *to = *from;
    }
    IdHash(hash)
}
