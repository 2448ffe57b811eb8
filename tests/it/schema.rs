//! The rules of the schema (docs/adr/0002): every key begins with the space, nothing hides behind a trigger.

use std::time::Duration;

use personas::domain::Timestamp;
use serde_json::json;

use crate::harness::app::{TestApp, Wish};
use crate::harness::cluster::TestDb;

/// Tables that are not one space's: the list of spaces, and two rows about the server itself.
const OF_THE_SERVER: [&str; 4] = ["space", "registry", "test_clock", "_sqlx_migrations"];

#[tokio::test]
async fn every_key_begins_with_the_space() {
    let db = TestDb::new().await;
    let keys: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT t.relname::text, i.relname::text, a.attname::text
         FROM pg_index x
         JOIN pg_class i ON i.oid = x.indexrelid
         JOIN pg_class t ON t.oid = x.indrelid
         JOIN pg_namespace n ON n.oid = t.relnamespace AND n.nspname = 'public'
         JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0]",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert!(keys.len() > 20);
    for (table, index, first) in keys {
        assert!(
            first == "space_id" || OF_THE_SERVER.contains(&table.as_str()),
            "{table}.{index} begins with {first}"
        );
    }
    let foreign: Vec<(String, String)> = sqlx::query_as(
        "SELECT c.conname::text, a.attname::text FROM pg_constraint c
         JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1] WHERE c.contype = 'f'",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert!(foreign.iter().all(|(_, first)| first == "space_id"), "{foreign:?}");
    let triggers: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(triggers, 0);
}

#[tokio::test]
async fn migrating_twice_and_at_once_changes_nothing() {
    let db = TestDb::new().await;
    let again = [0; 4].map(|_| personas::store::migrate(&db.pool));
    for migrated in futures_util::future::join_all(again).await {
        migrated.unwrap();
    }
    let (ours, found) = personas::store::migrate::versions(&db.pool).await.unwrap();
    assert_eq!(found, Some(ours));
}

#[tokio::test]
async fn an_upgrade_gives_spaces_that_are_over_time_to_take_things_out() {
    let app = TestApp::start().await;
    for id in ["over", "ended", "open"] {
        app.post("/v1/spaces", json!({"id": id})).await.expect(201);
    }
    let TestApp { running, db, .. } = app;
    running.stop(Duration::ZERO).await.unwrap();
    // As it was before: what was over was locked, and no more.
    let before = "DROP TABLE usage_month, purge_report;
         ALTER TABLE space DROP COLUMN plan_reason, DROP COLUMN plan_ended_at, DROP COLUMN plan_purge_at,
             DROP COLUMN plan_export_days, DROP COLUMN plan_collects, DROP COLUMN plan_events_per_month_max,
             DROP COLUMN plan_events_per_second_max, DROP COLUMN plan_profiles_max, DROP COLUMN plan_audiences_max,
             DROP COLUMN plan_computed_traits_max;
         UPDATE space SET plan_ends_at = now() - interval '90 days' WHERE key = 'over';
         UPDATE space SET plan_state = 'ended' WHERE key = 'ended';
         UPDATE space SET plan_ends_at = now() + interval '90 days' WHERE key = 'open'";
    sqlx::raw_sql(before).execute(&db.pool).await.unwrap();
    let migration = include_str!("../../migrations/0031_plans_and_usage.sql");
    sqlx::raw_sql(migration).execute(&db.pool).await.unwrap();
    let now: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("SELECT now()").fetch_one(&db.pool).await.unwrap();
    let app = Wish::default().start_on(db).await;
    for id in ["over", "ended"] {
        let plan = app.get(&format!("/v1/spaces/{id}")).await.expect(200).json["plan"].clone();
        assert_eq!(plan["state"], "ended", "{plan}");
        let at = Timestamp::parse(plan["purge_at"].as_str().unwrap()).unwrap();
        let left = at.millis() - Timestamp::from(now).millis();
        assert!((29..31).contains(&(left / 86_400_000)), "{plan}");
        app.get(&format!("/v1/spaces/{id}/audiences")).await.expect(200);
    }
    let open = app.get("/v1/spaces/open").await.expect(200).json["plan"].clone();
    assert_eq!(open["state"], "active", "{open}");
}
