//! The tables whose columns come with what is written into them: which there are, what has to be added, and how rows fit.
//!
//! A column keeps the type it was made with. What does not fit it, what is beyond the columns a table may have, and what an
//! event says whose name has no table, is kept in `_more`: nothing is left out.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, PgConnection};

use super::cells::{Bound, Cell, Line, Named, Type};
use super::history::{self, Joined, is_trait_column};
use super::{events, statements};

/// Columns of a table: Postgres allows 1,600, of which dropped ones count.
const COLUMNS_MAX: usize = 800;
/// Values of a row that have columns: a row of Postgres has 8 KB, of which each value may take 24 bytes.
const CELLS_MAX: usize = 300;
/// Tables for names of events (personas.md 10.1).
const NAMED_MAX: usize = 2_000;
/// How long a table may be in use before it is tried again later.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '3s'";
/// What is kept without a column of its own.
const MORE: &str = "_more";
/// The view that has a column for each trait.
const TRAITS_VIEW: &str = "profile_traits";

/// Whether a name is that of a table or view that this kind makes, or will.
pub(super) fn is_own_table(name: &str) -> bool {
    statements::TABLES.iter().any(|(own, ..)| *own == name)
        || events::TABLES.iter().any(|(own, _)| *own == name)
        || ["id_graph", "external_id_mapping", TRAITS_VIEW].contains(&name)
        || history::tables().iter().any(|(own, _)| *own == name)
}

/// A table or view that is there.
#[derive(Debug, Default)]
struct Known {
    is_table: bool,
    /// In their order.
    columns: Vec<String>,
    types: HashMap<String, Type>,
}

impl Known {
    fn add(&mut self, column: &str, kind: Type) {
        self.columns.push(column.to_owned());
        self.types.insert(column.to_owned(), kind);
    }

    /// Whether it is one of events: no other has these columns.
    fn is_of_events(&self) -> bool {
        self.is_table
            && ["id", "segment_id", "event_source_id", MORE].iter().all(|name| self.types.contains_key(*name))
    }
}

/// All that is there in a schema, whose name was judged.
#[derive(Debug)]
pub(super) struct Tables {
    schema: String,
    known: HashMap<String, Known>,
    /// Tables for names of events.
    named: usize,
}

/// What has no column or no table of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Beyond {
    pub(super) values: usize,
    pub(super) events: usize,
}

/// What is to be done for some rows.
#[derive(Debug, Default)]
struct Plan {
    /// Statements that make tables.
    made: Vec<String>,
    /// Columns to be added, by table.
    added: BTreeMap<String, Vec<(String, Type)>>,
    /// Rows by table, and whether they are left out for profiles that are known.
    rows: BTreeMap<(String, bool), Vec<Bound>>,
    beyond: Beyond,
}

impl Tables {
    /// Looks what is there: also what is no table and has a name that one could have, such as an index.
    pub(super) async fn load(connection: &mut PgConnection, schema: &str) -> Result<Self, sqlx::Error> {
        let rows: Vec<(String, String, Option<String>, Option<String>)> = sqlx::query_as(
            "select c.relname::text, c.relkind::text, a.attname::text, format_type(a.atttypid, null) \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
             where n.nspname = $1 order by c.oid, a.attnum",
        )
        .bind(schema)
        .fetch_all(connection)
        .await?;
        let mut known: HashMap<String, Known> = HashMap::new();
        for (table, kind, column, column_type) in rows {
            let table = known.entry(table).or_default();
            table.is_table = matches!(kind.as_str(), "r" | "p");
            if let (Some(column), Some(column_type)) = (column, column_type) {
                table.add(&column, Type::of_column(&column_type));
            }
        }
        let named = known.iter().filter(|(name, table)| table.is_of_events() && !is_own_table(name)).count();
        Ok(Self { schema: schema.to_owned(), known, named })
    }

    /// Writes rows, and makes what they need.
    pub(super) async fn write(
        &mut self,
        tx: &mut PgConnection,
        lines: &[Line],
        joined: &[Joined],
    ) -> Result<Beyond, sqlx::Error> {
        let mut plan = Plan::default();
        if !joined.is_empty() {
            self.make("id_graph_updates", &mut plan);
        }
        for line in lines {
            self.take(line, &mut plan);
        }
        let made = self.ddl(&plan);
        if !made.is_empty() {
            // Whoever reads a table for long is not to have all others wait behind this.
            sqlx::raw_sql(LOCK_TIMEOUT).execute(&mut *tx).await?;
        }
        for text in made {
            sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *tx).await?;
        }
        for ((table, is_guess), rows) in plan.rows {
            let text = self.insert(&table, &rows, is_guess);
            let rows = Value::Array(rows.into_iter().map(Value::Object).collect()).to_string();
            sqlx::query(AssertSqlSafe(text)).bind(rows).execute(&mut *tx).await?;
        }
        for Joined { profile, canonical, by } in joined {
            sqlx::query(AssertSqlSafe(history::join(&self.schema)))
                .bind(profile)
                .bind(canonical)
                .bind(&by.id)
                .bind(by.kind.as_deref())
                .bind(i64::try_from(by.seq).unwrap_or(i64::MAX))
                .bind(by.received_at.to_utc())
                .bind(by.at.to_utc())
                .execute(&mut *tx)
                .await?;
        }
        Ok(plan.beyond)
    }

    /// Removes all rows of some profiles.
    pub(super) async fn delete(&self, tx: &mut PgConnection, profiles: &[String]) -> Result<(), sqlx::Error> {
        let of_history = |name: &String| history::tables().iter().any(|(own, _)| own == name);
        let mut names: Vec<&String> = self
            .known
            .iter()
            .filter(|(name, t)| t.is_of_events() || of_history(name))
            .map(|(name, _)| name)
            .collect();
        names.sort_unstable();
        for name in names {
            let text = format!("delete from {} where segment_id = any ($1)", self.quoted(name));
            sqlx::query(AssertSqlSafe(text)).bind(profiles).execute(&mut *tx).await?;
        }
        Ok(())
    }

    /// Which profiles are part of one, as far as the graph says.
    pub(super) async fn parts_of(
        &self,
        tx: &mut PgConnection,
        profile: &str,
    ) -> Result<Vec<String>, sqlx::Error> {
        if !self.known.contains_key("id_graph_updates") {
            return Ok(Vec::new());
        }
        let text = history::parts(&self.schema);
        sqlx::query_scalar(AssertSqlSafe(text)).bind(profile).fetch_all(tx).await
    }

    fn quoted(&self, table: &str) -> String {
        format!("\"{}\".{}", self.schema, quoted(table))
    }

    /// Notes that a table is there from now on; its columns are as in the statement that makes it.
    fn note(&mut self, table: &str, columns: &str) {
        let known = self.known.entry(table.to_owned()).or_default();
        known.is_table = true;
        for column in columns.split(", ") {
            let mut words = column.split(' ');
            let (Some(name), Some(kind)) = (words.next(), words.next()) else { continue };
            let kind = if kind == "timestamptz" { Type::Time } else { Type::of_column(kind) };
            if name != "primary" {
                known.add(name.trim_matches('"'), kind);
            }
        }
    }

    /// Makes a table that is missing, and those that belong to it.
    fn make(&mut self, table: &str, plan: &mut Plan) {
        if self.known.contains_key(table) {
            return;
        }
        let of_history = history::tables();
        if of_history.iter().any(|(name, _)| *name == table) {
            for (name, columns) in of_history {
                if !self.known.contains_key(name) {
                    self.create(name, &columns, plan);
                }
            }
            return;
        }
        for (name, more) in events::TABLES {
            if !self.known.contains_key(name) {
                self.create(name, &format!("{}{more}", events::COLUMNS), plan);
            }
        }
    }

    fn create(&mut self, table: &str, columns: &str, plan: &mut Plan) {
        let name = self.quoted(table);
        plan.made.push(format!("create table if not exists {name} ({columns})"));
        // The graph's key begins with the profile.
        let indexed = if columns.starts_with("segment_id") { "canonical_segment_id" } else { "segment_id" };
        plan.made.push(format!("create index on {name} ({indexed})"));
        self.note(table, columns);
    }

    /// Whether there is a table for an event's name; it is made where there may be one more.
    fn make_named(&mut self, table: &str, plan: &mut Plan) -> bool {
        if let Some(known) = self.known.get(table) {
            return known.is_of_events();
        }
        if self.named >= NAMED_MAX {
            return false;
        }
        self.named += 1;
        self.create(table, &format!("{}{}", events::COLUMNS, events::OF_NAME), plan);
        true
    }

    fn take(&mut self, line: &Line, plan: &mut Plan) {
        self.make(&line.table, plan);
        let mut more = Map::new();
        if let Some(Named { table, cells, rest }) = &line.named {
            if self.make_named(table, plan) {
                self.fit(table, cells, (Map::new(), false), plan);
            } else {
                plan.beyond.events += 1;
                more.insert("properties".to_owned(), rest.clone());
            }
        }
        self.fit(&line.table, &line.cells, (more, line.is_guess), plan);
    }

    /// Puts cells into the columns of a table, as far as they fit.
    fn fit(&mut self, table: &str, cells: &[Cell], (mut more, is_guess): (Bound, bool), plan: &mut Plan) {
        let known = self.known.entry(table.to_owned()).or_default();
        let mut bound = Bound::new();
        for Cell { column, path, kind, value } in cells {
            let has_room = known.columns.len() < COLUMNS_MAX && bound.len() < CELLS_MAX;
            if has_room && !column.is_empty() && !known.types.contains_key(column) {
                known.add(column, *kind);
                plan.added.entry(table.to_owned()).or_default().push((column.clone(), *kind));
            }
            match (known.types.get(column).filter(|_| bound.len() < CELLS_MAX), value) {
                (Some(has), _) if has == kind => drop(bound.insert(column.clone(), value.clone())),
                // A text takes all that can be written.
                (Some(Type::Text), Value::Bool(_) | Value::Number(_)) => {
                    bound.insert(column.clone(), value.to_string().into());
                }
                _ => {
                    plan.beyond.values += 1;
                    more.insert(path.clone(), value.clone());
                }
            }
        }
        if !more.is_empty() && known.types.get(MORE) == Some(&Type::Json) {
            bound.insert(MORE.to_owned(), Value::Object(more));
        }
        plan.rows.entry((table.to_owned(), is_guess)).or_default().push(bound);
    }

    /// What makes tables, columns and views, in this order.
    fn ddl(&self, plan: &Plan) -> Vec<String> {
        let mut texts = plan.made.clone();
        for (table, columns) in &plan.added {
            let add = |(name, kind): &(String, Type)| {
                format!("add column if not exists {} {}", quoted(name), kind.sql())
            };
            let add: Vec<String> = columns.iter().map(add).collect();
            texts.push(format!("alter table {} {}", self.quoted(table), add.join(", ")));
        }
        let Some(updates) = self.known.get("profile_traits_updates") else { return texts };
        let traits = updates.columns.iter().filter(|name| is_trait_column(name)).cloned();
        let traits: Vec<String> = traits.collect();
        for (name, text) in history::views(&self.schema, &traits) {
            let is_new = match self.known.get(name) {
                // Somebody's own, made by a model of theirs.
                Some(known) if known.is_table => false,
                Some(_) => name == TRAITS_VIEW && plan.added.contains_key("profile_traits_updates"),
                None => !plan.made.is_empty() || name == TRAITS_VIEW,
            };
            if is_new {
                texts.push(text);
            }
        }
        texts
    }

    fn insert(&self, table: &str, rows: &[Bound], is_guess: bool) -> String {
        let types = self.known.get(table).map(|known| &known.types);
        let mut columns: Vec<&String> = rows.iter().flat_map(|row| row.keys()).collect();
        columns.sort_unstable();
        columns.dedup();
        let names: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
        let typed = columns.iter().zip(&names).map(|(column, name)| {
            let kind = types.and_then(|types| types.get(*column)).copied().unwrap_or(Type::Text);
            format!("{name} {}", kind.sql())
        });
        let typed: Vec<String> = typed.collect();
        let (table, names, typed) = (self.quoted(table), names.join(", "), typed.join(", "));
        let only_new = if is_guess {
            format!(" where not exists (select from {table} u where u.segment_id = r.segment_id)")
        } else {
            String::new()
        };
        format!(
            "insert into {table} ({names}) select {names} from jsonb_to_recordset($1::text::jsonb) as r ({typed})\
             {only_new} on conflict do nothing"
        )
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
