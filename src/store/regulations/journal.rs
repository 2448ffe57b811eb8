//! The journal of erasures: whose identifiers are nobody's up to which place of the log, and in what happened before which
//! time. It holds hashes, and outlives everything that was erased.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::suppression::id_hash;
use crate::domain::regulation::{IdHash, RegulationType};
use crate::domain::{IdKey, Offset, SpaceNo, Timestamp};
use crate::store::Result;

/// Notes that identifiers were erased: each with the number of its person in the regulation.
pub async fn insert(
    tx: &mut PgConnection,
    space: SpaceNo,
    (regulation, hashes): (Uuid, &[(i32, IdHash)]),
    (until, at): (Offset, Timestamp),
) -> Result<()> {
    let sql = "-- store::regulations::journal::insert
         INSERT INTO erased_identifier AS e (space_id, id_hash, until_offset, erased_at, regulation_id, subject_no)
         SELECT DISTINCT ON (h) $1, h, $4, $5::timestamptz, $6, no FROM unnest($2::int[], $3::bytea[]) AS u (no, h)
         ON CONFLICT (space_id, id_hash) DO UPDATE SET until_offset = greatest(e.until_offset, excluded.until_offset),
             erased_at = greatest(e.erased_at, excluded.erased_at), regulation_id = excluded.regulation_id,
             subject_no = excluded.subject_no";
    sqlx::query(sql)
        .bind(space.0)
        .bind(hashes.iter().map(|(no, _)| *no).collect::<Vec<_>>())
        .bind(hashes.iter().map(|(_, hash)| hash.0.as_slice()).collect::<Vec<_>>())
        .bind(until.0 as i64)
        .bind(at.to_utc())
        .bind(regulation)
        .execute(tx)
        .await?;
    Ok(())
}

/// Up to where identifiers are nobody's: those for which that is behind an offset.
pub async fn list(
    executor: impl PgExecutor<'_>,
    space: SpaceNo,
    after: Offset,
) -> Result<Vec<(IdHash, Offset)>> {
    let sql = "-- store::regulations::journal::list
         SELECT id_hash, until_offset FROM erased_identifier WHERE space_id = $1 AND until_offset > $2";
    let rows: Vec<(Vec<u8>, i64)> =
        sqlx::query_as(sql).bind(space.0).bind(after.0 as i64).fetch_all(executor).await?;
    Ok(rows.into_iter().map(|(hash, until)| (id_hash(&hash), Offset(until as u64))).collect())
}

/// Hash and type of an identifier that is suppressed, and until when that of a device is.
pub type SuppressedEntry = (String, String, Option<DateTime<Utc>>);

/// What the journal beside the database says of one person of a regulation. No value of theirs is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Key of the space.
    pub space: String,
    /// The secret that identifiers are hashed under, as hex.
    pub secret: String,
    /// The regulation.
    pub regulation: Uuid,
    /// Segment's word.
    #[serde(rename = "type")]
    pub kind: String,
    /// By which type of identifier people were named.
    pub subject_type: String,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// Number of the person,
    pub no: i32,
    /// and the hash of what they were named by.
    pub id_hash: String,
    /// Whom it was.
    pub profile_id: Option<Uuid>,
    /// When they were erased.
    pub erased_at: Option<DateTime<Utc>>,
    /// Hashes of identifiers that were erased.
    pub erased: Vec<String>,
    /// Hashes of identifiers that are suppressed, with their types, and until when those of devices are.
    pub suppressed: Vec<SuppressedEntry>,
}

/// What is to be added to the journal, oldest first.
pub async fn list_new(executor: impl PgExecutor<'_>, limit: i64) -> Result<Vec<(SpaceNo, Entry)>> {
    #[derive(sqlx::FromRow)]
    struct Row {
        space_id: i32,
        key: String,
        secret: String,
        regulation_id: Uuid,
        r#type: String,
        subject_type: String,
        created_at: DateTime<Utc>,
        subject_no: i32,
        id_hash: String,
        profile_id: Option<Uuid>,
        erased_at: Option<DateTime<Utc>>,
        erased: Vec<String>,
        suppressed: sqlx::types::Json<Vec<SuppressedEntry>>,
    }
    let rows: Vec<Row> = sqlx::query_as(
        "-- store::regulations::journal::list_new
         SELECT s.space_id, p.key, encode(x.secret, 'hex') AS secret, s.regulation_id, r.type, r.subject_type, r.created_at, s.subject_no,
             encode(s.id_hash, 'hex') AS id_hash, s.profile_id, s.erased_at,
             ARRAY(SELECT encode(e.id_hash, 'hex') FROM erased_identifier e WHERE e.space_id = s.space_id
                 AND e.regulation_id = s.regulation_id AND e.subject_no = s.subject_no) AS erased,
             coalesce((SELECT jsonb_agg(jsonb_build_array(encode(u.id_hash, 'hex'), u.id_type, u.expires_at))
                 FROM suppression u WHERE u.space_id = s.space_id AND u.regulation_id = s.regulation_id
                 AND u.subject_no = s.subject_no), '[]') AS suppressed
         FROM regulation_subject s
         JOIN regulation r ON r.space_id = s.space_id AND r.regulation_id = s.regulation_id
         JOIN space p ON p.space_id = s.space_id
         JOIN privacy_secret x ON x.space_id = s.space_id
         WHERE NOT s.journaled AND s.state > 0 ORDER BY r.created_at, s.regulation_id, s.subject_no LIMIT $1",
    )
    .bind(limit)
    .fetch_all(executor)
    .await?;
    let entry = |row: Row| {
        let entry = Entry {
            space: row.key,
            secret: row.secret,
            regulation: row.regulation_id,
            kind: row.r#type,
            subject_type: row.subject_type,
            created_at: row.created_at,
            no: row.subject_no,
            id_hash: row.id_hash,
            profile_id: row.profile_id,
            erased_at: row.erased_at,
            erased: row.erased,
            suppressed: row.suppressed.0,
        };
        (SpaceNo(row.space_id), entry)
    };
    Ok(rows.into_iter().map(entry).collect())
}

/// Notes that these are in the journal.
pub async fn set_journaled(executor: impl PgExecutor<'_>, done: &[(SpaceNo, Entry)]) -> Result<()> {
    let sql = "-- store::regulations::journal::set_journaled
         UPDATE regulation_subject s SET journaled = true
         FROM unnest($1::int[], $2::uuid[], $3::int[]) AS n (space_id, regulation_id, subject_no)
         WHERE s.space_id = n.space_id AND s.regulation_id = n.regulation_id AND s.subject_no = n.subject_no";
    sqlx::query(sql)
        .bind(done.iter().map(|(space, _)| space.0).collect::<Vec<_>>())
        .bind(done.iter().map(|(_, entry)| entry.regulation).collect::<Vec<_>>())
        .bind(done.iter().map(|(_, entry)| entry.no).collect::<Vec<_>>())
        .execute(executor)
        .await?;
    Ok(())
}

/// Whether a database knows of an entry; none where it has not even the space. One that was made later under the same key is
/// another.
pub async fn find(connection: &mut PgConnection, entry: &Entry) -> Result<Option<(SpaceNo, bool)>> {
    let sql = "-- store::regulations::journal::find
         SELECT p.space_id, EXISTS (SELECT 1 FROM regulation_subject s WHERE s.space_id = p.space_id
             AND s.regulation_id = $2 AND s.subject_no = $3)
         FROM space p WHERE p.key = $1 AND p.created_at <= $4";
    let found: Option<(i32, bool)> = sqlx::query_as(sql)
        .bind(&entry.space)
        .bind(entry.regulation)
        .bind(entry.no)
        .bind(entry.created_at)
        .fetch_optional(connection)
        .await?;
    Ok(found.map(|(space, known)| (SpaceNo(space), known)))
}

/// Puts an entry that a database does not know, because it was restored, into it again: what was suppressed is so again, and
/// who was erased waits to be erased, by these keys.
pub async fn put_back(tx: &mut PgConnection, space: SpaceNo, entry: &Entry, keys: &[IdKey]) -> Result<()> {
    let sql = "-- store::regulations::journal::put_back
         INSERT INTO privacy_secret AS s (space_id, secret, version) VALUES ($1, decode($2, 'hex'), 1)
         ON CONFLICT (space_id) DO UPDATE SET version = s.version + 1";
    sqlx::query(sql).bind(space.0).bind(&entry.secret).execute(&mut *tx).await?;
    let sql = "-- store::regulations::journal::put_back
         INSERT INTO regulation (space_id, regulation_id, type, subject_type, device_days, actor_id, actor_name, created_at,
             finished_at)
         VALUES ($1, $2, $3, $4, 0, '', 'restored', $5, CASE WHEN $6 THEN NULL ELSE $5 END)
         ON CONFLICT (space_id, regulation_id) DO UPDATE SET finished_at = excluded.finished_at";
    let regulation =
        sqlx::query(sql).bind(space.0).bind(entry.regulation).bind(&entry.kind).bind(&entry.subject_type);
    regulation.bind(entry.created_at).bind(entry.erased_at.is_some()).execute(&mut *tx).await?;
    let sql = "-- store::regulations::journal::put_back
         INSERT INTO regulation_subject (space_id, regulation_id, subject_no, id_hash, id_key, state, erased_at, journaled)
         SELECT $1, $2, CASE WHEN k.n = 1 THEN $3 ELSE 1000000 + 1000 * $3 + k.n::int END, decode($4, 'hex'), k.key,
             CASE WHEN k.key IS NULL THEN 2 ELSE 0 END, $6, true
         FROM unnest($5::uuid[]) WITH ORDINALITY AS k (key, n) ON CONFLICT DO NOTHING";
    // Whoever has one of the identifiers, be it somebody each: they became one after the backup.
    let mut found: Vec<Option<Uuid>> = keys.iter().take(999).map(|key| Some(key.to_uuid())).collect();
    if found.is_empty() {
        found.push(None);
    }
    let subject = sqlx::query(sql).bind(space.0).bind(entry.regulation).bind(entry.no).bind(&entry.id_hash);
    subject.bind(found).bind(entry.erased_at).execute(&mut *tx).await?;
    let sql = "-- store::regulations::journal::put_back
         INSERT INTO erased_identifier (space_id, id_hash, until_offset, erased_at, regulation_id, subject_no)
         SELECT $1, decode(h, 'hex'), (SELECT end_offset FROM log_head WHERE space_id = $1), $3, $4, $5
         FROM unnest($2::text[]) AS u (h) ON CONFLICT DO NOTHING";
    let erased = sqlx::query(sql).bind(space.0).bind(&entry.erased).bind(entry.erased_at);
    erased.bind(entry.regulation).bind(entry.no).execute(&mut *tx).await?;
    let sql = "-- store::regulations::journal::put_back
         INSERT INTO suppression (space_id, id_hash, id_type, regulation_id, subject_no, expires_at, created_at)
         SELECT $1, decode(h, 'hex'), t, $5, $6, until, $7
         FROM unnest($2::text[], $3::text[], $4::timestamptz[]) AS u (h, t, until) ON CONFLICT DO NOTHING";
    let suppressed = sqlx::query(sql).bind(space.0);
    suppressed
        .bind(entry.suppressed.iter().map(|(hash, ..)| hash.as_str()).collect::<Vec<_>>())
        .bind(entry.suppressed.iter().map(|(_, id_type, _)| id_type.as_str()).collect::<Vec<_>>())
        .bind(entry.suppressed.iter().map(|(.., until)| *until).collect::<Vec<_>>())
        .bind(entry.regulation)
        .bind(entry.no)
        .bind(entry.created_at)
        .execute(&mut *tx)
        .await?;
    if entry.kind == RegulationType::Unsuppress.word() {
        let hash = hex::decode(&entry.id_hash).map_or(IdHash([0; 16]), |bytes| id_hash(&bytes));
        super::suppression::delete(tx, space, &[hash]).await?;
    }
    Ok(())
}

/// Spaces in which somebody waits to be erased.
pub async fn list_waiting(executor: impl PgExecutor<'_>) -> Result<Vec<SpaceNo>> {
    let sql = "-- store::regulations::journal::list_waiting
         SELECT DISTINCT space_id FROM regulation_subject WHERE state = 0 ORDER BY 1";
    let spaces: Vec<i32> = sqlx::query_scalar(sql).fetch_all(executor).await?;
    Ok(spaces.into_iter().map(SpaceNo).collect())
}

/// What all identifiers of a space are found by.
pub async fn list_keys(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Vec<IdKey>> {
    let sql = "-- store::regulations::journal::list_keys\nSELECT id_key FROM external_id WHERE space_id = $1";
    let keys: Vec<Uuid> = sqlx::query_scalar(sql).bind(space.0).fetch_all(executor).await?;
    Ok(keys.into_iter().map(|key| IdKey(key.as_u128())).collect())
}
