//! A rebuild: what follows from a space's log once more, in a schema of its own beside what is live (ADR 0013).
//!
//! The schema has empty copies of the tables a processor writes; a connection that looks there first, and in the schema
//! of the service after that, writes the copies and reads the log and everything else that is the operators'.

pub mod compare;
pub mod renumber;
pub mod swap;

use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{AssertSqlSafe, PgConnection, PgExecutor};

use super::identity::SettingsRow;
use super::{Result, identity_settings, migrate};
use crate::domain::{Offset, SpaceNo, Timestamp};

/// What becomes of a table in a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Derived again, and what is live is replaced by it, row by row by these columns (the space is always one of them).
    Replaced(&'static [&'static str]),
    /// Written on the way, and forgotten with the schema: what is live says what has happened, or is as good.
    Scratch,
    /// Copied at the start: what the processor computes with.
    Copied,
    /// Not a processor's: read where it is.
    Shared,
}

/// Every table there is. Partitions are parts of theirs.
pub const TABLES: [(&str, Part); 69] = [
    ("profile", Part::Replaced(&["profile_no"])),
    ("external_id", Part::Replaced(&["id_key"])),
    ("profile_merge", Part::Replaced(&["log_offset", "absorbed_no"])),
    ("identity_refusal", Part::Replaced(&["profile_no", "refusal_key"])),
    ("identity_problem", Part::Replaced(&["problem_key"])),
    ("identity_rule", Part::Replaced(&["rule"])),
    ("identity_suspect", Part::Replaced(&["id_key"])),
    ("search_entry", Part::Replaced(&["trait_no", "value_hash", "profile_no"])),
    ("account_link", Part::Replaced(&["account_no", "user_no"])),
    ("profile_event_page", Part::Replaced(&["profile_no", "first_offset"])),
    ("profile_due", Part::Replaced(&["profile_no"])),
    ("membership", Part::Replaced(&["computation_no", "profile_no"])),
    ("leaf", Part::Replaced(&["leaf_no"])),
    ("chunk_outcome", Part::Replaced(&["end_offset", "day"])),
    ("transition", Part::Scratch),
    ("size_change", Part::Scratch),
    ("rejected_event", Part::Scratch),
    ("message_run", Part::Scratch),
    ("message_page", Part::Scratch),
    ("seen", Part::Scratch),
    ("seen_position", Part::Scratch),
    ("audit_entry", Part::Scratch),
    ("audit_record", Part::Scratch),
    ("audit_head", Part::Scratch),
    // What operators correct forgets segments: those that are live say what is live.
    ("log_segment", Part::Scratch),
    ("log_section", Part::Scratch),
    ("log_column", Part::Scratch),
    ("segment_gap", Part::Scratch),
    ("processor", Part::Copied),
    ("definition", Part::Copied),
    ("computation", Part::Copied),
    ("identity_settings", Part::Copied),
    ("identity_type", Part::Copied),
    ("search_trait", Part::Copied),
    ("space", Part::Shared),
    ("registry", Part::Shared),
    ("test_clock", Part::Shared),
    ("source", Part::Shared),
    ("write_key", Part::Shared),
    ("access_token", Part::Shared),
    ("log_head", Part::Shared),
    ("event_chunk", Part::Shared),
    ("rebuild", Part::Shared),
    ("former_profile", Part::Shared),
    ("regulation", Part::Shared),
    ("regulation_subject", Part::Shared),
    ("regulation_receipt", Part::Shared),
    ("privacy_secret", Part::Shared),
    ("suppression", Part::Shared),
    ("erased_identifier", Part::Shared),
    ("usage_month", Part::Shared),
    ("purge_report", Part::Shared),
    ("sensitive_settings", Part::Shared),
    ("sensitive_finding", Part::Shared),
    ("consent_category", Part::Shared),
    ("consent_settings", Part::Shared),
    ("retention", Part::Shared),
    ("consent_mapping", Part::Shared),
    // There are none where a rebuild looks: what is derived again is not told again.
    ("destination_subscription", Part::Scratch),
    ("destination_sync", Part::Scratch),
    ("destination", Part::Shared),
    ("destination_worker", Part::Shared),
    ("destination_failure", Part::Shared),
    ("delivery_head", Part::Shared),
    ("delivery", Part::Shared),
    ("delivery_hold", Part::Shared),
    ("delivery_outcome", Part::Shared),
    ("delivery_attempt", Part::Shared),
    ("delivery_exchange", Part::Shared),
];

/// Where a rebuild takes place.
#[derive(Debug, Clone)]
pub struct Place {
    /// Whose.
    pub space: SpaceNo,
    /// The schema of the service.
    live: String,
    /// The schema of the rebuild.
    shadow: String,
    /// Settings that are only tried: everything is derived by them, not by those that count.
    tried: Option<SettingsRow>,
}

impl Place {
    /// The place for a space's rebuild, whether there is one or not; by other settings than those that count, where some
    /// are tried.
    pub async fn of(pool: &PgPool, space: SpaceNo, tried: Option<SettingsRow>) -> Result<Self> {
        let sql = "-- store::rebuild::of\nSELECT quote_ident(current_schema())";
        let live: String = sqlx::query_scalar(sql).fetch_one(pool).await?;
        Ok(Self { space, live, shadow: format!("rebuild_{}", space.0), tried })
    }

    /// Connections that write the copies. A lost commit of theirs is made again, so none is waited for.
    pub fn connect_options(&self, options: PgConnectOptions) -> PgConnectOptions {
        let path = format!("{},{}", self.shadow, self.live);
        options.options([("search_path", path.as_str()), ("synchronous_commit", "off")])
    }
}

/// Makes sure that nobody else rebuilds this space for as long as the connection is open; false when somebody does.
pub async fn try_guard(connection: &mut PgConnection, space: SpaceNo) -> Result<bool> {
    let sql = "-- store::rebuild::try_guard\nSELECT pg_try_advisory_lock(hashtext('rebuild'), $1)";
    Ok(sqlx::query_scalar(sql).bind(space.0).fetch_one(connection).await?)
}

/// Lets others rebuild the space again, before the connection of [`try_guard`] is closed.
pub async fn release_guard(connection: &mut PgConnection, space: SpaceNo) -> Result<()> {
    let sql = "-- store::rebuild::release_guard\nSELECT pg_advisory_unlock(hashtext('rebuild'), $1)";
    sqlx::query(sql).bind(space.0).execute(connection).await?;
    Ok(())
}

/// Whether a rebuild of the space is under way, or was broken off and may be taken up again: its chunks have to stay as
/// they are. Who asks inside of a transaction that holds the lock of the space's segments may rely on the answer.
pub async fn is_under_way(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<bool> {
    let sql = "-- store::rebuild::is_under_way
         SELECT EXISTS (SELECT 1 FROM rebuild
                        WHERE space_id = $1 AND touched_at > clock_timestamp() - interval '24 hours')";
    Ok(sqlx::query_scalar(sql).bind(space.0).fetch_one(executor).await?)
}

/// Definitions that are being computed over history, or wait for it: by key.
pub async fn list_unfinished(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Vec<String>> {
    let sql = "-- store::rebuild::list_unfinished
         SELECT DISTINCT d.key FROM definition d
         JOIN computation c ON c.space_id = $1 AND c.definition_no = d.definition_no
         WHERE d.space_id = $1 AND (
             d.deleted AND d.serving_no IS NOT NULL
             OR d.enabled AND NOT d.deleted AND (c.status IN ('pending', 'backfilling') OR c.walking))
         ORDER BY 1";
    Ok(sqlx::query_scalar(sql).bind(space.0).fetch_all(executor).await?)
}

/// Offset of the first event of the log that is still kept, minus one; where the log ends when none is.
pub async fn log_begins(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<Offset> {
    let sql = "-- store::rebuild::log_begins
         SELECT coalesce(
             (SELECT end_offset - event_count FROM event_chunk WHERE space_id = $1 ORDER BY end_offset LIMIT 1),
             (SELECT processed_offset FROM processor WHERE space_id = $1), 0)";
    let before: i64 = sqlx::query_scalar(sql).bind(space.0).fetch_one(executor).await?;
    Ok(Offset(before as u64))
}

/// What the definitions and settings of a space are, in a word. Identifier types are left out: events add some, see
/// [`is_current`].
fn fingerprint_sql(schema: &str) -> String {
    format!(
        "SELECT md5(concat_ws('|',
             (SELECT string_agg((definition_no, kind, collection, key, enabled, serving_no)::text, ';'
                  ORDER BY definition_no) FROM {schema}.definition WHERE space_id = $1 AND NOT deleted),
             (SELECT string_agg((c.computation_no, c.query, c.include_anonymous, c.include_history, c.status,
                  c.from_offset, c.consent_category, c.enforces_consent, c.requires_human_review, c.retention)::text, ';' ORDER BY c.computation_no)
              FROM {schema}.computation c JOIN {schema}.definition d
                  ON d.space_id = $1 AND d.definition_no = c.definition_no
              WHERE c.space_id = $1 AND NOT d.deleted
                  AND (c.computation_no = d.serving_no OR c.status IN ('pending', 'backfilling'))),
             (SELECT (add_unknown_types, merges_max, identifiers_max, quarantine_threshold)::text
              FROM {schema}.identity_settings WHERE space_id = $1),
             (SELECT string_agg((trait_no, name)::text, ';' ORDER BY trait_no) FROM {schema}.search_trait
              WHERE space_id = $1 AND NOT removed),
             -- Who is erased is not to come back by what was read of the log before.
             (SELECT (count(*), max(until_offset))::text FROM erased_identifier WHERE space_id = $1 AND until_offset > 0)))"
    )
}

/// The fingerprint of what is live, with the version of the schema.
async fn fingerprint(connection: &mut PgConnection, place: &Place) -> Result<String> {
    let sql = format!("-- store::rebuild::fingerprint\n{}", fingerprint_sql(&place.live));
    let print: String =
        sqlx::query_scalar(AssertSqlSafe(sql)).bind(place.space.0).fetch_one(&mut *connection).await?;
    let schema = migrate::MIGRATOR.iter().map(|m| m.version).max().unwrap_or(0);
    let Some(tried) = &place.tried else { return Ok(format!("{schema}/{print}")) };
    // What is tried was made of the types there were.
    let sql = format!(
        "-- store::rebuild::fingerprint
         SELECT md5(concat($2, string_agg(t::text, ';' ORDER BY type_no)))
         FROM {}.identity_type t WHERE space_id = $1",
        place.live
    );
    let types: String = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(place.space.0)
        .bind(format!("{tried:?}"))
        .fetch_one(connection)
        .await?;
    Ok(format!("{schema}/{print}/{types}"))
}

/// Whether what the rebuild computes with is still what is live, and the log still begins where it did. Events may have
/// added types that the rebuild has not come to yet, unless `both` stand at the same place.
pub async fn is_current(connection: &mut PgConnection, place: &Place, both: bool) -> Result<bool> {
    let Place { space, live, shadow, tried } = place;
    let now =
        (fingerprint(&mut *connection, place).await?, log_begins(&mut *connection, *space).await?.0 as i64);
    let sql = "-- store::rebuild::is_current\nSELECT fingerprint, log_start FROM rebuild WHERE space_id = $1";
    let begun: Option<(String, i64)> =
        sqlx::query_as(sql).bind(space.0).fetch_optional(&mut *connection).await?;
    let is_same = begun.is_some_and(|begun| begun == now);
    if tried.is_some() {
        return Ok(is_same);
    }
    let sql = format!(
        "-- store::rebuild::is_current
         SELECT NOT EXISTS (SELECT * FROM {shadow}.identity_type WHERE space_id = $1
                            EXCEPT SELECT * FROM {live}.identity_type WHERE space_id = $1)
             AND (NOT $2 OR NOT EXISTS (SELECT * FROM {live}.identity_type WHERE space_id = $1
                                        EXCEPT SELECT * FROM {shadow}.identity_type WHERE space_id = $1))"
    );
    let types: bool =
        sqlx::query_scalar(AssertSqlSafe(sql)).bind(space.0).bind(both).fetch_one(connection).await?;
    Ok(types && is_same)
}

/// Whether there is a rebuild that can be gone on with.
pub async fn can_resume(pool: &PgPool, place: &Place) -> Result<bool> {
    // An hour less than it is waited for: what was joined or dropped since is not gone on with.
    let sql = "-- store::rebuild::can_resume
         SELECT to_regclass($2) IS NOT NULL AND EXISTS (
             SELECT 1 FROM rebuild WHERE space_id = $1 AND touched_at > clock_timestamp() - interval '23 hours')";
    let name = format!("{}.processor", place.shadow);
    if !sqlx::query_scalar::<_, bool>(sql).bind(place.space.0).bind(&name).fetch_one(pool).await? {
        return Ok(false);
    }
    // Postgres empties the copies when it does not stop in order.
    let sql =
        format!("-- store::rebuild::can_resume\nSELECT EXISTS (SELECT 1 FROM {name} WHERE space_id = $1)");
    let is_there: bool = sqlx::query_scalar(AssertSqlSafe(sql)).bind(place.space.0).fetch_one(pool).await?;
    let mut connection = pool.acquire().await?;
    Ok(is_there && is_current(&mut connection, place, false).await?)
}

/// Begins a rebuild: makes the copies, empty apart from what a processor computes with, at `start` of the log.
pub async fn begin(pool: &PgPool, place: &Place, start: Offset, at: Timestamp) -> Result<()> {
    let Place { space, live, shadow, tried } = place;
    let mut tx = pool.begin().await?;
    // Whoever joins chunks is done before, or sees that there is a rebuild.
    let sql = "-- store::rebuild::begin\nSELECT pg_advisory_xact_lock(hashtext('log_segment'), $1)";
    sqlx::query(sql).bind(space.0).execute(&mut *tx).await?;
    let print = fingerprint(&mut tx, place).await?;
    let sql = "-- store::rebuild::begin
         WITH now AS (SELECT clock_timestamp() AS at)
         INSERT INTO rebuild (space_id, fingerprint, log_start, started_at, touched_at)
         SELECT $1, $2, $3, $4, at FROM now
         ON CONFLICT (space_id) DO UPDATE SET fingerprint = excluded.fingerprint, log_start = excluded.log_start,
             started_at = excluded.started_at, touched_at = excluded.touched_at";
    let begun = sqlx::query(sql).bind(space.0).bind(print).bind(start.0 as i64).bind(at.to_utc());
    begun.execute(&mut *tx).await?;
    let copies = TABLES.iter().filter(|(_, part)| *part != Part::Shared).map(|(table, _)| {
        // Of no worth without the process that fills them: their loss costs time, not data.
        format!("CREATE UNLOGGED TABLE {shadow}.{table} (LIKE {live}.{table} INCLUDING ALL);")
    });
    let copied = TABLES.iter().filter(|(_, part)| *part == Part::Copied).map(|(table, _)| {
        format!("INSERT INTO {shadow}.{table} SELECT * FROM {live}.{table} WHERE space_id = {space};")
    });
    let (copies, copied): (String, String) = (copies.collect(), copied.collect());
    let ddl = format!(
        "DROP SCHEMA IF EXISTS {shadow} CASCADE; CREATE SCHEMA {shadow}; {copies} {copied}
         ALTER TABLE {shadow}.profile SET (fillfactor = 70, toast_tuple_target = 8160);
         INSERT INTO {shadow}.leaf (space_id, leaf_no, canonical, from_offset, ready)
             SELECT space_id, leaf_no, canonical, from_offset, true FROM {live}.leaf WHERE space_id = {space} AND ready;
         UPDATE {shadow}.processor SET owner = NULL, lease_until = '-infinity', processed_offset = {start},
             last_profile_no = 0, last_transition_no = 0, duplicates = 0, unidentified = 0, users = 0, accounts = 0,
             merges = 0;
         UPDATE {shadow}.computation SET size = 0, changed_at = created_at WHERE status IN ('live', 'frozen');"
    );
    sqlx::raw_sql(AssertSqlSafe(ddl)).execute(&mut *tx).await?;
    if let Some(tried) = tried {
        let sql = format!("-- store::rebuild::begin\nSET LOCAL search_path = {shadow}, {live}");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await?;
        identity_settings::replace(&mut tx, *space, tried).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Notes that somebody is still at it.
pub async fn touch(executor: impl PgExecutor<'_>, space: SpaceNo) -> Result<()> {
    let sql =
        "-- store::rebuild::touch\nUPDATE rebuild SET touched_at = clock_timestamp() WHERE space_id = $1";
    sqlx::query(sql).bind(space.0).execute(executor).await?;
    Ok(())
}

/// Tells Postgres what the copies are like, before they are compared with what is live.
pub async fn analyse(pool: &PgPool, place: &Place) -> Result<()> {
    let shadow = &place.shadow;
    let replaced = TABLES.iter().filter(|(_, part)| matches!(part, Part::Replaced(_)));
    let names: Vec<String> = replaced.map(|(table, _)| format!("{shadow}.{table}")).collect();
    let sql = format!("-- store::rebuild::analyse\nANALYZE {}", names.join(", "));
    sqlx::query(AssertSqlSafe(sql)).execute(pool).await?;
    Ok(())
}

/// Forgets the rebuild.
pub async fn discard(connection: &mut PgConnection, place: &Place) -> Result<()> {
    let sql = "-- store::rebuild::discard\nDELETE FROM rebuild WHERE space_id = $1";
    sqlx::query(sql).bind(place.space.0).execute(&mut *connection).await?;
    let sql = format!("-- store::rebuild::discard\nDROP SCHEMA IF EXISTS {} CASCADE", place.shadow);
    sqlx::query(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}
