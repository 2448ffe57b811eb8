//! The rules of the schema (docs/adr/0002): every key begins with the space, nothing hides behind a trigger.

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
