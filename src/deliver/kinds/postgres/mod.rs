//! Kind `postgres`: Profiles Sync, the tables of personas.md section 10 kept in a customer's own Postgres.
//!
//! The SQL in here is for the customer's database and never for ours, so it is not in `store`. Tables are made if they are
//! missing and kept by upserts: a batch is one transaction, and the same batch twice changes nothing. Older changes never
//! overwrite newer ones (`seq`), and what still arrives for a merged profile goes to the one it is part of.
//!
//! The host is looked up and judged before each connection, and what is connected to is the address that was judged. With
//! `verify-full` the name itself is handed on, as its certificate is for the name: that is for hosts the configuration allows
//! by name, wherever they lead.

mod cells;
mod connect;
mod events;
mod history;
mod names;
mod rows;
mod statements;
mod tables;

use std::fmt;
use std::time::Instant;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;

use self::connect::Target;
use self::rows::Step;
use self::statements::Statements;
use self::tables::{Beyond, Tables};
use crate::deliver::budget::Budget;
use crate::deliver::kind::{Exchange, Invalid, Item, Kind, Reason, Sent, Verdict};
use crate::deliver::reach::Reach;

/// A customer's database.
pub struct PostgresKind {
    target: Target,
    statements: Statements,
    /// One transaction at a time; none until there is something to write, and after a failure.
    connection: Mutex<Option<Open>>,
}

/// A connection, and what is known to be there.
struct Open {
    connection: PgConnection,
    /// None until it is needed.
    tables: Option<Tables>,
}

impl fmt::Debug for PostgresKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresKind").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Why a batch was not written.
enum Failure {
    /// The connection or the server.
    Server(String),
    /// These very changes cannot be written.
    Data(String),
    /// The guard, a password: it stays so until the settings are changed.
    Settings(&'static str, String),
}

impl PostgresKind {
    /// Settings that are secret.
    pub const SECRETS: [&str; 1] = ["password"];

    /// Reads and judges settings: `host`, `port`, `database`, `user`, `password`, `schema`, `ssl_mode`,
    /// `root_certificate` and `batch_max`.
    pub fn open(settings: &Map<String, Value>, reach: &Reach) -> Result<Self, Vec<Invalid>> {
        let target = Target::read(settings, reach)?;
        let statements = Statements::for_schema(&target.schema);
        Ok(Self { target, statements, connection: Mutex::new(None) })
    }

    /// Writes changes in one transaction, on a connection that stays open when all went well.
    async fn write(&self, items: &[Item]) -> Result<Beyond, Failure> {
        let mut place = self.connection.lock().await;
        let mut open = if let Some(open) = place.take() {
            open
        } else {
            let mut connection = self.target.connect().await?;
            self.statements.prepare(&mut connection).await.map_err(|error| judge(&error))?;
            Open { connection, tables: None }
        };
        let beyond = self.transact(&mut open, &rows::steps(items)).await.map_err(|error| judge(&error))?;
        *place = Some(open);
        Ok(beyond)
    }

    async fn transact(&self, open: &mut Open, steps: &[Step]) -> Result<Beyond, sqlx::Error> {
        let mut tx = open.connection.begin().await?;
        let mut beyond = Beyond::default();
        for step in steps {
            match step {
                Step::Write(rows) => {
                    self.statements.write(&mut tx, rows).await?;
                    if !rows.lines.is_empty() || !rows.joined.is_empty() {
                        let tables = self.tables(&mut tx, &mut open.tables).await?;
                        let more = tables.write(&mut tx, &rows.lines, &rows.joined).await?;
                        beyond.values += more.values;
                        beyond.events += more.events;
                    }
                }
                Step::Merge { from, to, at } => self.statements.merge(&mut tx, from, to, *at).await?,
                Step::Separate { profile, from, at, identifiers } => {
                    self.statements.separate(&mut tx, (profile, from), *at, identifiers).await?;
                }
                Step::Delete { profile, former } => {
                    let tables = self.tables(&mut tx, &mut open.tables).await?;
                    let mut profiles = former.clone();
                    profiles.push(profile.clone());
                    profiles.extend(self.statements.parts_of(&mut tx, profile).await?);
                    profiles.extend(tables.parts_of(&mut tx, profile).await?);
                    self.statements.delete(&mut tx, &profiles).await?;
                    tables.delete(&mut tx, &profiles).await?;
                }
            }
        }
        tx.commit().await?;
        Ok(beyond)
    }

    async fn tables<'a>(
        &self,
        tx: &mut PgConnection,
        known: &'a mut Option<Tables>,
    ) -> Result<&'a mut Tables, sqlx::Error> {
        if known.is_none() {
            *known = Some(Tables::load(tx, &self.target.schema).await?);
        }
        known.as_mut().ok_or(sqlx::Error::RowNotFound)
    }

    async fn write_in_time(&self, items: &[Item]) -> Result<Beyond, Failure> {
        let late = |_| Failure::Server("it was not written in time".to_owned());
        tokio::time::timeout(self.target.timeout, self.write(items)).await.map_err(late)?
    }
}

/// What is kept in `_more`, in words; nothing where all has its place.
fn told(Beyond { values, events }: Beyond) -> String {
    if (values, events) == (0, 0) {
        return String::new();
    }
    format!(
        "kept in _more: {values} values without a column of their type, {events} events without a table of their name"
    )
}

/// What the server says: about these changes, about who may write, or about itself.
fn judge(error: &sqlx::Error) -> Failure {
    let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
    let message = error.to_string();
    // A table, a column or a schema that is not there, or is there by now: somebody has changed them, and the next attempt
    // looks anew.
    if let Some("42P01" | "42703" | "3F000" | "42P06" | "42P07" | "42701") = code.as_deref() {
        return Failure::Server(message);
    }
    match code.as_deref().and_then(|code| code.get(..2)) {
        _ if code.as_deref() == Some("42501") => Failure::Settings("403", message),
        // Data exceptions, broken constraints, too much of something, and names that mean something else there.
        Some("22" | "23" | "42" | "54") => Failure::Data(message),
        // No such role, password, database or permission.
        Some("28") => Failure::Settings("401", message),
        Some("3D") => Failure::Settings("404", message),
        _ => Failure::Server(message),
    }
}

impl From<Failure> for Verdict {
    fn from(failure: Failure) -> Self {
        let reason = |code: &str, message| Reason { code: code.to_owned(), message };
        match failure {
            Failure::Server(message) => Self::Retry { reason: reason("UNAVAILABLE", message), after: None },
            Failure::Data(message) => Self::Rejected(reason("MESSAGE_REJECTED", message)),
            Failure::Settings(code, message) => Self::Rejected(reason(code, message)),
        }
    }
}

impl Kind for PostgresKind {
    fn batch_max(&self) -> usize {
        self.target.batch_max
    }

    fn send<'a>(&'a self, items: &'a [Item]) -> BoxFuture<'a, Sent> {
        Box::pin(async move {
            let (started, budget) = (Instant::now(), Budget::begin(self.target.timeout, items.len()));
            let (verdicts, response) = match self.write_in_time(items).await {
                Ok(beyond) => (vec![Verdict::Delivered; items.len()], told(beyond)),
                // One of them spoils it for all: alone, only itself.
                Err(Failure::Data(message)) if items.len() > 1 => {
                    let mut verdicts = Vec::with_capacity(items.len());
                    for item in items {
                        if !budget.allows_another() {
                            verdicts.push(Budget::left_over());
                            continue;
                        }
                        let written = self.write_in_time(std::slice::from_ref(item)).await;
                        verdicts.push(written.map_or_else(Verdict::from, |_| Verdict::Delivered));
                    }
                    (verdicts, message)
                }
                Err(failure) => {
                    let verdict = Verdict::from(failure);
                    let message = match &verdict {
                        Verdict::Retry { reason, .. } | Verdict::Rejected(reason) => reason.message.clone(),
                        Verdict::Delivered | Verdict::Gone(_) => String::new(),
                    };
                    (vec![verdict; items.len()], message)
                }
            };
            let request =
                format!("{} changes to schema {} at {}", items.len(), self.target.schema, self.target);
            let took = started.elapsed();
            let exchange =
                Exchange { items: (0..items.len()).collect(), request, status: None, response, took };
            Sent { verdicts, exchanges: vec![exchange] }
        })
    }
}
