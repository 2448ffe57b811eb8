//! Regulations as tests ask for them, and a search for what they leave.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Row};

use super::app::TestApp;

pub(crate) const REGULATIONS: &str = "/v1/spaces/default/regulations";

impl TestApp {
    /// Asks for a regulation.
    pub(crate) async fn regulate(&self, kind: &str, subject_type: &str, ids: &[&str]) -> Value {
        let body = json!({"regulation_type": kind, "subject_type": subject_type, "subject_ids": ids});
        self.post(REGULATIONS, body).await.expect(201).json
    }

    /// A regulation as it is now.
    pub(crate) async fn regulation(&self, of: &Value) -> Value {
        self.get(&format!("{REGULATIONS}/{}", of["id"].as_str().unwrap())).await.expect(200).json
    }

    /// Waits until a regulation is as it should be.
    pub(crate) async fn wait_regulation(&self, of: &Value, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Value::Null;
        for _ in 0..1_500 {
            seen = self.regulation(of).await;
            if is_so(&seen) {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the regulation stays so: {seen}");
    }

    /// Asks for a regulation, and waits until it is done.
    pub(crate) async fn regulated(&self, kind: &str, subject_type: &str, ids: &[&str]) -> Value {
        let made = self.regulate(kind, subject_type, ids).await;
        self.wait_regulation(&made, |seen| seen["finished_at"].is_string()).await
    }
}

/// In which columns of which tables a word stands, in whatever case, also in what is compressed; and how often.
pub(crate) async fn traces(pool: &PgPool, word: &str) -> BTreeMap<String, i64> {
    let columns = sqlx::query(
        "SELECT c.relname::text AS table, a.attname::text AS column, a.atttypid = 'bytea'::regtype AS is_binary
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
             AND a.attnum > 0 AND NOT a.attisdropped",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut found = BTreeMap::new();
    for column in columns {
        let (table, name): (String, String) = (column.get("table"), column.get("column"));
        let count = if column.get::<bool, _>("is_binary") {
            let sql = format!("SELECT {name} FROM {table} WHERE {name} IS NOT NULL");
            let rows: Vec<Vec<u8>> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(pool).await.unwrap();
            rows.iter().filter(|bytes| contains(bytes, word)).count() as i64
        } else {
            let sql = format!("SELECT count(*) FROM {table} WHERE {name}::text ILIKE '%{word}%'");
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await.unwrap()
        };
        if count > 0 {
            found.insert(format!("{table}.{name}"), count);
        }
    }
    found
}

/// Whether bytes hold a word, themselves or in a frame of zstd among them.
fn contains(bytes: &[u8], word: &str) -> bool {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let holds = |bytes: &[u8]| {
        let lower = bytes.to_ascii_lowercase();
        lower.windows(word.len()).any(|window| window == word.as_bytes())
    };
    let frames = bytes.windows(4).enumerate().filter(|(_, window)| *window == MAGIC);
    holds(bytes)
        || frames
            .into_iter()
            .any(|(at, _)| zstd::stream::decode_all(&bytes[at..]).is_ok_and(|content| holds(&content)))
}
