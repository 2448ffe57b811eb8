//! How many statements a batch costs: as many as it has tables to write, not as it has events or merges.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Mutex;

use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::harness::app::Wish;

/// Statements by the functions that run them, as sqlx tells the log of each one it has run.
static RUN: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

struct Statements;

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Name(Option<String>);
        impl Visit for Name {
            fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
            fn record_str(&mut self, field: &Field, text: &str) {
                if field.name() == "summary" || (field.name() == "db.statement" && self.0.is_none()) {
                    let name = text.trim().trim_start_matches("-- ").split_whitespace().next();
                    self.0 = self.0.take().or(name.map(str::to_owned));
                }
            }
        }
        if event.metadata().target() == "sqlx::query" {
            let mut name = Name(None);
            event.record(&mut name);
            *RUN.lock().unwrap().entry(name.0.unwrap_or_default()).or_default() += 1;
        }
    }
}

#[tokio::test]
async fn two_thousand_merges_in_one_batch_are_a_few_statements() {
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Statements)).unwrap();
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    let batch = |call: &dyn Fn(usize) -> Value| json!({"batch": (0..2_000).map(call).collect::<Vec<_>>()});
    let users = batch(&|n| json!({"type": "track", "event": "E", "userId": format!("u{n}")}));
    let visitors = batch(&|n| json!({"type": "track", "event": "E", "anonymousId": format!("a{n}")}));
    let both = batch(
        &|n| json!({"type": "track", "event": "E", "userId": format!("u{n}"), "anonymousId": format!("a{n}")}),
    );
    app.track("/v1/batch", users).await.expect(200);
    let offset = app.track("/v1/batch", visitors).await.expect(200).offset();
    let path = "/v1/spaces/default/collections/users/profiles?limit=1";
    app.get(&format!("{path}&min_offset={offset}")).await.expect(200);
    let merges = "SELECT merges FROM processor WHERE space_id = 1";
    let count = || async { sqlx::query_scalar::<_, i64>(merges).fetch_one(&app.db.pool).await.unwrap() };
    assert_eq!(count().await, 0);
    RUN.lock().unwrap().clear();
    let offset = app.track("/v1/batch", both).await.expect(200).offset();
    app.get(&format!("{path}&min_offset={offset}")).await.expect(200);
    let run = RUN.lock().unwrap().clone();
    assert_eq!(count().await, 2_000);
    let of = |name: &str| run.get(name).copied().unwrap_or_default();
    assert_eq!(of("store::identity::insert_merges"), 1, "{run:?}");
    assert_eq!(of("store::identity::redirect_profiles"), 1, "{run:?}");
    // 500 profiles a statement.
    assert_eq!(of("store::profiles::update_profiles"), 4, "{run:?}");
    assert!(run.values().all(|times| *times <= 20), "{run:?}");
    assert!(run.values().sum::<usize>() < 120, "{run:?}");
}
