//! The second wall between spaces: row-level security.
//!
//! The first wall is that every statement names its space. Behind it, what is asked or changed for a caller goes through a
//! [`Walled`] door: a role that owns no table, in a transaction that says which space it is about. Policies let that role see
//! and write the rows of this space alone, so a statement that forgot its space would be answered with nothing of another.
//!
//! What serves several spaces at once (the log's writer, leases, the registry, purges) and what follows the log of one space by
//! itself, asked by nobody (processors, deliveries), runs as the owner of the tables, which no policy binds. ADR 0018.

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use sqlx::postgres::{PgPool, PgQueryResult, PgRow, PgTypeInfo};
use sqlx::{AssertSqlSafe, Either, Execute, Executor, PgConnection, Postgres, SqlStr, Transaction};

use super::{Result, StoreError};
use crate::domain::SpaceNo;

/// The role that statements for callers run as. It is shared by all databases of a server and cannot log in.
pub const ROLE: &str = "personas_space";

/// A door to the rows of one space.
#[derive(Debug, Clone)]
pub struct Walled {
    pool: PgPool,
    space: SpaceNo,
}

/// The door to a space.
pub fn walled(pool: &PgPool, space: SpaceNo) -> Walled {
    Walled { pool: pool.clone(), space }
}

impl Walled {
    /// Begins a transaction that sees and writes this space alone.
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>> {
        Ok(self.open().await?)
    }

    /// One round trip: a `BEGIN` that says who asks, and about whom.
    async fn open(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        let sql = format!(
            "-- store::wall::open\nBEGIN; SET LOCAL ROLE {ROLE}; SET LOCAL personas.space = {}",
            self.space.0
        );
        // Whoever asks may hang up at any moment. Half begun, the transaction would stay on a connection that goes back to the
        // pool; so it is begun to its end, and is rolled back where nobody waits for it any more.
        let pool = self.pool.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the statement; a stop waits for the pool"
        )]
        let begun = tokio::spawn(async move { pool.begin_with(AssertSqlSafe(sql)).await });
        begun.await.map_err(|_panicked| sqlx::Error::WorkerCrashed)?
    }

    async fn all<'q, E>(self, query: E) -> sqlx::Result<Vec<Either<PgQueryResult, PgRow>>>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        let mut tx = self.open().await?;
        let rows = (&mut *tx).fetch_many(query).try_collect().await?;
        tx.commit().await?;
        Ok(rows)
    }
}

/// Each statement is a transaction of its own.
impl<'c> Executor<'c> for &Walled {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let rows = self.clone().all(query).map(|all| all.map(|rows| stream::iter(rows).map(Ok)));
        stream::once(rows).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let door = self.clone();
        async move {
            let mut tx = door.open().await?;
            let row = (&mut *tx).fetch_optional(query).await?;
            tx.commit().await?;
            Ok(row)
        }
        .boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<sqlx::postgres::PgStatement>>
    where
        'c: 'e,
    {
        let door = self.clone();
        async move { (&mut *door.open().await?).prepare_with(sql, parameters).await }.boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<sqlx::Describe<Postgres>>>
    where
        'c: 'e,
    {
        let door = self.clone();
        async move { (&mut *door.open().await?).describe(sql).await }.boxed()
    }
}

/// Puts up what is missing of the wall: the role, and for each table of spaces its policy and what the role may do there. Does
/// nothing twice. The role is one for the whole database server; a login that may not make roles is told what to ask for.
pub(super) async fn raise(connection: &mut PgConnection) -> Result<()> {
    sqlx::raw_sql(ROLE_SQL).execute(&mut *connection).await?;
    let sql = "-- store::wall::raise\nSELECT current_user::text";
    let login: String = sqlx::query_scalar(sql).fetch_one(&mut *connection).await?;
    let try_on = format!("-- store::wall::raise\nBEGIN; SET LOCAL ROLE {ROLE}; ROLLBACK");
    if sqlx::raw_sql(AssertSqlSafe(try_on)).execute(&mut *connection).await.is_err() {
        sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
        return Err(StoreError::NoRole { role: ROLE, login });
    }
    sqlx::raw_sql(POLICIES_SQL).execute(connection).await?;
    Ok(())
}

/// Others may be making the role at the same moment, for another database.
const ROLE_SQL: &str = "-- store::wall::raise
DO $$ BEGIN
    BEGIN
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'personas_space') THEN
            CREATE ROLE personas_space NOLOGIN;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
    END;
    BEGIN
        IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            GRANT personas_space TO CURRENT_USER;
        END IF;
    EXCEPTION WHEN unique_violation OR insufficient_privilege OR undefined_object THEN NULL;
    END;
END $$";

/// The setting is read once for a statement, not once for a row: it stands in a sub-select. Where nobody has set it, a statement
/// fails. It is a `CASE`, or the planner would take it for one condition more and expect a two-hundredth of the rows where it knows
/// nothing of a table yet. Partitions are reached through their tables.
const POLICIES_SQL: &str = "-- store::wall::raise
DO $$ DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT quote_ident(c.relname) FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'space_id'
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
            AND NOT c.relispartition AND NOT c.relrowsecurity
        ORDER BY 1
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY of_one_space ON %s
            USING (CASE WHEN space_id = (SELECT current_setting(''personas.space'')::int) THEN true ELSE false END)', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO personas_space', name);
    END LOOP;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO personas_space', current_schema());
    -- Conditions on the beginning of a text are not known to be leakproof: under a policy they would find nothing by an
    -- index. So this is asked as the owner, who takes the space from nowhere but the setting.
    CREATE OR REPLACE FUNCTION identifiers_by_start(
        of_type smallint, prefix text, after text, after_no bigint, before text, most bigint
    ) RETURNS TABLE (start text, profile_no bigint)
    LANGUAGE sql STABLE ROWS 10 SECURITY DEFINER SET search_path FROM CURRENT AS $body$
        SELECT left(e.value, 64) COLLATE \"C\", e.profile_no FROM external_id e
        WHERE e.space_id = current_setting('personas.space')::int AND e.type_no = of_type
            AND (left(e.value, 64) COLLATE \"C\", e.profile_no) > (after, after_no)
            AND left(e.value, 64) COLLATE \"C\" < before AND starts_with(e.value, prefix)
        ORDER BY left(e.value, 64) COLLATE \"C\", e.profile_no LIMIT most
    $body$;
    REVOKE ALL ON FUNCTION identifiers_by_start FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION identifiers_by_start TO personas_space;
    -- Says when others have to read again what spaces are; it has no space.
    GRANT SELECT, UPDATE ON registry TO personas_space;
END $$";
