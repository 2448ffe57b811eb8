//! The tables and what is done to them.
//!
//! | Table | One row for each |
//! |---|---|
//! | `user_traits` | profile and trait, custom or computed; `value` is null once it was removed |
//! | `user_identifiers` | profile and external id that was sent |
//! | `profile_merges` | profile that became part of another; one that was separated again is its own part |
//! | `audience_memberships` | profile and audience it ever was in, and whether it still is |
//! | `audience_entered`, `audience_exited`, `trait_computed` | change, by its id |
//!
//! `canonical_segment_id` is the profile after all merges, `segment_id` that of the time. `seq` orders changes: the
//! milliseconds of their time.

use std::fmt::Write;

use sqlx::{AssertSqlSafe, PgConnection};

use super::rows::Rows;
use crate::domain::Timestamp;

/// The tables, each with its columns beside those that all have, and its key.
pub(super) const TABLES: [(&str, &str, &str); 7] = [
    ("user_traits", "canonical_segment_id text, name text, value jsonb", "canonical_segment_id, name"),
    (
        "user_identifiers",
        "canonical_segment_id text, type text, value text",
        "canonical_segment_id, type, value",
    ),
    ("profile_merges", "canonical_segment_id text, segment_id text", "segment_id"),
    (
        "audience_memberships",
        "canonical_segment_id text, audience_key text, is_member boolean",
        "canonical_segment_id, audience_key",
    ),
    ("audience_entered", "id text, segment_id text, user_id text, audience_key text", "id"),
    ("audience_exited", "id text, segment_id text, user_id text, audience_key text", "id"),
    ("trait_computed", "id text, segment_id text, user_id text, trait_key text, value jsonb", "id"),
];

/// Statements for one schema, whose name was judged: lower case letters, digits and `_`.
#[derive(Debug)]
pub(super) struct Statements {
    schema: String,
    create: String,
    traits: String,
    identifiers: String,
    memberships: String,
    transitions: [String; 2],
    computed: String,
    merged: String,
    merge: Vec<String>,
    separate: String,
    delete: Vec<String>,
}

impl Statements {
    /// Makes the texts.
    pub(super) fn for_schema(schema: &str) -> Self {
        Self {
            schema: schema.to_owned(),
            create: create(schema),
            traits: upsert(schema, "user_traits", &[("name", "text"), ("value", "jsonb")], 1),
            identifiers: upsert(schema, "user_identifiers", &[("type", "text"), ("value", "text")], 2),
            memberships: upsert(
                schema,
                "audience_memberships",
                &[("audience_key", "text"), ("is_member", "boolean")],
                1,
            ),
            transitions: ["audience_entered", "audience_exited"]
                .map(|table| append(schema, table, &[("audience_key", "text")])),
            computed: append(schema, "trait_computed", &[("trait_key", "text"), ("value", "jsonb")]),
            merged: merged(schema),
            merge: merge(schema),
            separate: separate(schema),
            delete: delete(schema),
        }
    }

    /// Makes what is missing of the schema. Whose tables are all there needs no right to make any.
    pub(super) async fn prepare(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let names: Vec<String> =
            TABLES.iter().map(|(name, ..)| format!("\"{}\".{name}", self.schema)).collect();
        let missing: i64 = sqlx::query_scalar(
            "select count(*) from unnest($1::text[]) as name where to_regclass(name) is null",
        )
        .bind(&names)
        .fetch_one(&mut *connection)
        .await?;
        if missing > 0 {
            sqlx::raw_sql(AssertSqlSafe(self.create.clone())).execute(connection).await?;
        }
        Ok(())
    }

    /// Writes rows, table by table.
    pub(super) async fn write(&self, tx: &mut PgConnection, rows: &Rows) -> Result<(), sqlx::Error> {
        if !rows.traits.is_empty() {
            let (profiles, names): (Vec<_>, Vec<_>) = rows.traits.keys().cloned().unzip();
            let (values, at): (Vec<_>, Vec<_>) =
                rows.traits.values().map(|(v, at)| (v.clone(), at.to_utc())).unzip();
            let query = sqlx::query(AssertSqlSafe(self.traits.clone()));
            query.bind(profiles).bind(at).bind(names).bind(values).execute(&mut *tx).await?;
        }
        if !rows.identifiers.is_empty() {
            let profiles: Vec<_> = rows.identifiers.keys().map(|(profile, ..)| profile.clone()).collect();
            let types: Vec<_> = rows.identifiers.keys().map(|(_, id_type, _)| id_type.clone()).collect();
            let values: Vec<_> = rows.identifiers.keys().map(|(.., value)| value.clone()).collect();
            let at: Vec<_> = rows.identifiers.values().map(|at| at.to_utc()).collect();
            let query = sqlx::query(AssertSqlSafe(self.identifiers.clone()));
            query.bind(profiles).bind(at).bind(types).bind(values).execute(&mut *tx).await?;
        }
        if !rows.memberships.is_empty() {
            let (profiles, keys): (Vec<_>, Vec<_>) = rows.memberships.keys().cloned().unzip();
            let (members, at): (Vec<_>, Vec<_>) =
                rows.memberships.values().map(|(m, at)| (*m, at.to_utc())).unzip();
            let query = sqlx::query(AssertSqlSafe(self.memberships.clone()));
            query.bind(profiles).bind(at).bind(keys).bind(members).execute(&mut *tx).await?;
        }
        self.append(tx, rows).await
    }

    async fn append(&self, tx: &mut PgConnection, rows: &Rows) -> Result<(), sqlx::Error> {
        for (has_entered, text) in [true, false].into_iter().zip(&self.transitions) {
            let found = || rows.transitions.iter().filter(move |(_, row)| row.has_entered == has_entered);
            if found().next().is_none() {
                continue;
            }
            let ids: Vec<_> = found().map(|(id, _)| id.clone()).collect();
            let profiles: Vec<_> = found().map(|(_, row)| row.profile.clone()).collect();
            let users: Vec<_> = found().map(|(_, row)| row.user_id.clone()).collect();
            let at: Vec<_> = found().map(|(_, row)| row.at.to_utc()).collect();
            let keys: Vec<_> = found().map(|(_, row)| row.audience_key.clone()).collect();
            let query = sqlx::query(AssertSqlSafe(text.clone()));
            query.bind(ids).bind(profiles).bind(users).bind(at).bind(keys).execute(&mut *tx).await?;
        }
        if rows.computed.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = rows.computed.keys().cloned().collect();
        let profiles: Vec<_> = rows.computed.values().map(|row| row.profile.clone()).collect();
        let users: Vec<_> = rows.computed.values().map(|row| row.user_id.clone()).collect();
        let at: Vec<_> = rows.computed.values().map(|row| row.at.to_utc()).collect();
        let keys: Vec<_> = rows.computed.values().map(|row| row.trait_key.clone()).collect();
        let values: Vec<_> = rows.computed.values().map(|row| row.value.clone()).collect();
        let query = sqlx::query(AssertSqlSafe(self.computed.clone()));
        query.bind(ids).bind(profiles).bind(users).bind(at).bind(keys).bind(values).execute(tx).await?;
        Ok(())
    }

    /// Writes down what a profile is part of, itself or another one; false when something newer is known.
    async fn set_canonical(
        &self,
        tx: &mut PgConnection,
        profile: &str,
        canonical: &str,
        at: Timestamp,
    ) -> Result<bool, sqlx::Error> {
        let query = sqlx::query(AssertSqlSafe(self.merged.clone()));
        let done = query.bind(profile).bind(canonical).bind(at.to_utc()).execute(tx).await?;
        Ok(done.rows_affected() > 0)
    }

    /// What is told of a profile from now on is its own, and so are these identifiers.
    pub(super) async fn separate(
        &self,
        tx: &mut PgConnection,
        (profile, from): (&str, &str),
        at: Timestamp,
        identifiers: &[(String, String)],
    ) -> Result<(), sqlx::Error> {
        if !self.set_canonical(&mut *tx, profile, profile, at).await? {
            return Ok(());
        }
        let (types, values): (Vec<_>, Vec<_>) = identifiers.iter().cloned().unzip();
        let query = sqlx::query(AssertSqlSafe(self.separate.clone()));
        query.bind(from).bind(at.to_utc()).bind(types).bind(values).execute(tx).await?;
        Ok(())
    }

    /// Moves all that is one profile's to another, unless they were separated since.
    pub(super) async fn merge(
        &self,
        tx: &mut PgConnection,
        from: &str,
        to: &str,
        at: Timestamp,
    ) -> Result<(), sqlx::Error> {
        if !self.set_canonical(&mut *tx, from, to, at).await? {
            return Ok(());
        }
        for text in &self.merge {
            sqlx::query(AssertSqlSafe(text.clone()))
                .bind(from)
                .bind(to)
                .bind(at.to_utc())
                .execute(&mut *tx)
                .await?;
        }
        Ok(())
    }

    /// Removes all that is a profile's, and of those that became part of it.
    pub(super) async fn delete(&self, tx: &mut PgConnection, profiles: &[String]) -> Result<(), sqlx::Error> {
        for text in &self.delete {
            sqlx::query(AssertSqlSafe(text.clone())).bind(profiles).execute(&mut *tx).await?;
        }
        Ok(())
    }

    /// Which profiles have become part of one.
    pub(super) async fn parts_of(
        &self,
        tx: &mut PgConnection,
        profile: &str,
    ) -> Result<Vec<String>, sqlx::Error> {
        let text = format!(
            "select segment_id from \"{}\".profile_merges where canonical_segment_id = $1",
            self.schema
        );
        sqlx::query_scalar(AssertSqlSafe(text)).bind(profile).fetch_all(tx).await
    }
}

fn create(schema: &str) -> String {
    let mut text = format!("create schema if not exists \"{schema}\";\n");
    for (name, columns, key) in TABLES {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "create table if not exists \"{schema}\".{name} ({columns}, seq bigint not null, \
             received_at timestamptz not null, uuid_ts timestamptz not null default now(), \
             \"timestamp\" timestamptz not null, primary key ({key}));"
        );
    }
    text
}

/// Rows that are as they are said to be, unless something newer is there: `$1` profiles, `$2` times, then the columns, of
/// which the first `keys` are part of the key. Columns of JSON are bound as texts.
fn upsert(schema: &str, table: &str, columns: &[(&str, &str)], keys: usize) -> String {
    let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let key = columns.iter().take(keys).map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let (bound, cast) = bindings(columns, 3);
    let set: Vec<String> =
        columns.iter().skip(keys).map(|(name, _)| format!("{name} = excluded.{name}, ")).collect();
    let set = set.concat();
    format!(
        "insert into \"{schema}\".{table} as present \
         (canonical_segment_id, {names}, seq, received_at, uuid_ts, \"timestamp\") \
         select distinct on (profile, {key}) profile, {cast}, (extract(epoch from at) * 1000)::bigint, at, now(), at from ( \
         select coalesce(m.canonical_segment_id, new.profile) as profile, new.at, {cast_new} \
         from unnest($1::text[], $2::timestamptz[], {bound}) as new(profile, at, {names}) \
         left join \"{schema}\".profile_merges m on m.segment_id = new.profile) as found \
         order by profile, {key}, at desc \
         on conflict (canonical_segment_id, {key}) do update set {set}seq = excluded.seq, \
         received_at = excluded.received_at, uuid_ts = excluded.uuid_ts, \"timestamp\" = excluded.\"timestamp\" \
         where present.seq <= excluded.seq",
        cast_new = columns.iter().map(|(name, _)| format!("new.{name}")).collect::<Vec<_>>().join(", "),
    )
}

/// Rows that are there once and stay as they are: `$1` ids, `$2` profiles, `$3` user ids, `$4` times, then the columns.
fn append(schema: &str, table: &str, columns: &[(&str, &str)]) -> String {
    let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let (bound, cast) = bindings(columns, 5);
    format!(
        "insert into \"{schema}\".{table} (id, segment_id, user_id, {names}, seq, received_at, \"timestamp\") \
         select id, profile, user_id, {cast}, (extract(epoch from at) * 1000)::bigint, at, at \
         from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], {bound}) \
         as new(id, profile, user_id, at, {names}) on conflict (id) do nothing"
    )
}

/// `$3::text[], …` and `name, value::jsonb, …`.
fn bindings(columns: &[(&str, &str)], first: usize) -> (String, String) {
    let bind = |(place, (_, sql_type)): (usize, &(&str, &str))| {
        let bound = if *sql_type == "jsonb" { "text" } else { sql_type };
        format!("${}::{bound}[]", first + place)
    };
    let cast = |(name, sql_type): &(&str, &str)| match *sql_type {
        "jsonb" => format!("{name}::jsonb"),
        _ => (*name).to_owned(),
    };
    let bound: Vec<String> = columns.iter().enumerate().map(bind).collect();
    let cast: Vec<String> = columns.iter().map(cast).collect();
    (bound.join(", "), cast.join(", "))
}

/// `$1` is part of `$2` since `$3`, unless something newer is known of it.
fn merged(schema: &str) -> String {
    format!(
        "insert into \"{schema}\".profile_merges as present \
         (canonical_segment_id, segment_id, seq, received_at, \"timestamp\") \
         values ($2, $1, (extract(epoch from $3::timestamptz) * 1000)::bigint, $3, $3) \
         on conflict (segment_id) do update set canonical_segment_id = excluded.canonical_segment_id, \
         seq = excluded.seq, received_at = excluded.received_at, uuid_ts = now(), \"timestamp\" = excluded.\"timestamp\" \
         where present.seq <= excluded.seq"
    )
}

/// Takes the identifiers `$3`, `$4` from the profile `$1`, as far as they were its before `$2`.
fn separate(schema: &str) -> String {
    format!(
        "delete from \"{schema}\".user_identifiers as theirs using unnest($3::text[], $4::text[]) as own (type, value) \
         where theirs.type = own.type and theirs.value = own.value \
         and theirs.seq <= (extract(epoch from $2::timestamptz) * 1000)::bigint \
         and theirs.canonical_segment_id = coalesce((select canonical_segment_id from \"{schema}\".profile_merges \
         where segment_id = $1), $1)"
    )
}

/// What was `$1`'s before it became part of `$2` at `$3`. Of a trait or audience that both have, the newer stays.
fn merge(schema: &str) -> Vec<String> {
    let mut texts = vec![
        // Those that became part of it before are part of the other now.
        format!(
            "update \"{schema}\".profile_merges set canonical_segment_id = $2, uuid_ts = now() \
             where canonical_segment_id = $1 and $3::timestamptz is not null"
        ),
    ];
    for (table, key) in [
        ("user_traits", "name"),
        ("user_identifiers", "type, value"),
        ("audience_memberships", "audience_key"),
    ] {
        let same: Vec<String> =
            key.split(", ").map(|column| format!("mine.{column} = theirs.{column}")).collect();
        let same = same.join(" and ");
        texts.push(format!(
            "delete from \"{schema}\".{table} as theirs using \"{schema}\".{table} as mine \
             where {same} and $3::timestamptz is not null and ( \
             (theirs.canonical_segment_id = $1 and mine.canonical_segment_id = $2 and theirs.seq <= mine.seq) or \
             (theirs.canonical_segment_id = $2 and mine.canonical_segment_id = $1 and theirs.seq < mine.seq))"
        ));
        texts.push(format!(
            "update \"{schema}\".{table} set canonical_segment_id = $2, uuid_ts = now() \
             where canonical_segment_id = $1 and $3::timestamptz is not null"
        ));
    }
    texts
}

/// What there is of the profiles `$1`.
fn delete(schema: &str) -> Vec<String> {
    let own = ["audience_entered", "audience_exited", "trait_computed"]
        .map(|table| format!("delete from \"{schema}\".{table} where segment_id = any ($1)"));
    let canonical = ["user_traits", "user_identifiers", "audience_memberships", "profile_merges"]
        .map(|table| format!("delete from \"{schema}\".{table} where canonical_segment_id = any ($1)"));
    own.into_iter().chain(canonical).collect()
}
