//! A customer's database, reached over TCP, as destinations of kind `postgres` keep it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::app::TestApp;
use super::cluster::TestDb;
use super::destinations::DESTINATIONS;

fn pass_on(mut from: impl Read, mut to: impl Write) {
    let _ = io::copy(&mut from, &mut to);
}

/// The tests' Postgres listens on a socket only: this is its door over TCP.
pub(crate) fn door(db: &TestDb) -> u16 {
    let folder: PathBuf = db.connect_options().get_socket().unwrap().clone();
    let socket = folder.join(".s.PGSQL.5432");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for outside in listener.incoming().flatten() {
            let inside = UnixStream::connect(&socket).unwrap();
            let (outside_too, inside_too): (TcpStream, UnixStream) =
                (outside.try_clone().unwrap(), inside.try_clone().unwrap());
            thread::spawn(move || {
                pass_on(&outside_too, &inside_too);
                let _ = inside_too.shutdown(Shutdown::Both);
            });
            thread::spawn(move || {
                pass_on(&inside, &outside);
                let _ = outside.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

/// A customer's database, and the destination that keeps it.
pub(crate) struct Warehouse {
    pub(crate) db: TestDb,
    pub(crate) destination: Value,
}

impl Warehouse {
    /// Makes a destination of kind `postgres`, with subscriptions to these subjects.
    pub(crate) async fn start(app: &TestApp, subjects: &[&str]) -> Self {
        let db = TestDb::new().await;
        let options = db.connect_options();
        let settings = json!({"host": "127.0.0.1", "port": door(&db), "database": options.get_database(),
            "user": options.get_username(), "schema": "engage", "ssl_mode": "disable"});
        let body =
            json!({"name": "Warehouse", "kind": "postgres", "settings": settings, "linger_seconds": 0});
        let destination = app.post(DESTINATIONS, body).await.expect(201).json;
        for subject in subjects {
            app.subscribe(&destination, json!({"subject": subject})).await;
        }
        let warehouse = Self { db, destination };
        warehouse.settle(app).await;
        warehouse
    }

    /// Waits until all there is to be told has arrived.
    pub(crate) async fn settle(&self, app: &TestApp) {
        let id = self.destination["id"].as_str().unwrap();
        for _ in 0..1_000 {
            let list = app.get(&format!("{DESTINATIONS}/{id}/subscriptions")).await.expect(200).json;
            if list["data"].as_array().unwrap().iter().all(|s| s["sync"]["status"] != "running") {
                let now = app.wait_sent(&self.destination).await;
                assert_eq!(now["deliveries"]["dead"], 0, "{now}");
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the full sync does not end");
    }

    /// Rows as text, in order.
    pub(crate) async fn rows(&self, what: &str, table: &str) -> Vec<String> {
        let sql = format!("select concat_ws(' ', {what}) from engage.{table} order by 1");
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&self.db.pool).await.unwrap()
    }

    /// Names of tables, or of a table's columns.
    pub(crate) async fn names(&self, table: Option<&str>) -> Vec<String> {
        let sql = match table {
            None => {
                "select table_name::text from information_schema.tables where table_schema = 'engage' and $1::text is null"
            }
            Some(_) => {
                "select column_name::text from information_schema.columns where table_schema = 'engage' and table_name = $1"
            }
        };
        let mut names: Vec<String> =
            sqlx::query_scalar(sql).bind(table).fetch_all(&self.db.pool).await.unwrap();
        names.sort_unstable();
        names
    }
}
