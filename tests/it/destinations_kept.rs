//! What was delivered is kept for a while and then forgotten, and long queues cost no more than short ones: also when
//! Postgres' statistics know nothing of a destination yet.

use std::time::{Duration, Instant};

use personas::domain::{DestinationNo, SpaceNo, Timestamp};
use personas::store::deliveries::book::{self, Ended, State};
use personas::store::deliveries::{NewDelivery, enqueue, history};
use personas::store::destinations;
use serde_json::json;
use sqlx::{Connection, PgPool};

use crate::harness::app::TestApp;
use crate::harness::destinations::sending;
use crate::harness::receiver::Receiver;

const SPACE: SpaceNo = SpaceNo(1);
const KNOWN: DestinationNo = DestinationNo(100);
const UNHEARD_OF: DestinationNo = DestinationNo(101);
/// Comparing each row with each takes minutes.
const SOON: Duration = Duration::from_secs(30);

async fn app() -> TestApp {
    // Nothing is sent, and nobody else forgets anything.
    sending().start().await
}

/// Outcomes of a destination, numbered from 1: every tenth is a dead letter.
async fn outcomes(pool: &PgPool, destination: DestinationNo, count: i64, done_at: &str) {
    sqlx::query(
        "INSERT INTO delivery_outcome (space_id, destination_no, delivery_no, profile_no, subscription_no, subject, form,
             definition_no, value, at, state, attempts, done_at, origin_no)
         SELECT $1, $2, n, n, 1, 0, 1, 1, 'true', $4::timestamptz, CASE WHEN n % 10 = 0 THEN 3 ELSE 1 END, 1,
             $4::timestamptz, n
         FROM generate_series((SELECT coalesce(max(delivery_no), 0) FROM delivery_outcome
             WHERE space_id = $1 AND destination_no = $2) + 1, $3) n",
    )
    .bind(SPACE.0)
    .bind(destination.0)
    .bind(count)
    .bind(done_at)
    .execute(pool)
    .await
    .unwrap();
}

/// Statistics that know of one destination.
async fn statistics(pool: &PgPool) {
    outcomes(pool, KNOWN, 20_000, "2024-01-01T00:00:00Z").await;
    sqlx::query("ANALYZE delivery_outcome").execute(pool).await.unwrap();
}

async fn left(pool: &PgPool, destination: DestinationNo) -> i64 {
    let sql = "SELECT count(*) FROM delivery_outcome WHERE space_id = $1 AND destination_no = $2";
    sqlx::query_scalar(sql).bind(SPACE.0).bind(destination.0).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn what_is_old_is_forgotten_soon_and_dead_letters_are_kept() {
    let app = app().await;
    let pool = &app.db.pool;
    statistics(pool).await;
    outcomes(pool, UNHEARD_OF, 30_000, "2024-01-01T00:00:00Z").await;
    outcomes(pool, UNHEARD_OF, 100_000, "2024-02-01T00:00:00Z").await;
    let began = Instant::now();
    let mut connection = pool.acquire().await.unwrap();
    let before = Timestamp::parse("2024-01-15").unwrap();
    while history::forget(&mut connection, SPACE, UNHEARD_OF, before).await.unwrap() {
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(left(pool, UNHEARD_OF).await, 70_000 + 3_000);
    assert_eq!(left(pool, KNOWN).await, 20_000);
}

#[tokio::test]
async fn what_a_deleted_destination_left_is_forgotten_soon() {
    let app = app().await;
    let pool = &app.db.pool;
    statistics(pool).await;
    sqlx::query(
        "INSERT INTO destination (space_id, destination_no, destination_id, name, kind, settings, concurrency, timeout_ms,
             deleted, created_at, updated_at)
         VALUES ($1, $2, gen_random_uuid(), 'Gone', 'webhook', '{}', 1, 1000, true, now(), now())",
    )
    .bind(SPACE.0)
    .bind(UNHEARD_OF.0)
    .execute(pool)
    .await
    .unwrap();
    outcomes(pool, UNHEARD_OF, 60_000, "2024-01-01T00:00:00Z").await;
    let (began, mut connection) = (Instant::now(), pool.acquire().await.unwrap());
    while destinations::purge(&mut connection).await.unwrap() {
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
    assert_eq!((left(pool, UNHEARD_OF).await, left(pool, KNOWN).await), (0, 20_000));
}

#[tokio::test]
async fn what_is_asked_for_by_number_or_profile_is_found_by_key() {
    let app = app().await;
    let (pool, receiver) = (&app.db.pool, Receiver::start().await);
    let (one, other) = (
        app.make_webhook("One", &receiver, json!({})).await,
        app.make_webhook("Other", &receiver, json!({})).await,
    );
    for (no, hook) in [(1, &one), (2, &other)] {
        app.act(hook, "pause", json!({})).await;
        // Nothing of it is old enough to be forgotten.
        outcomes(pool, DestinationNo(no), 50_000, "2099-01-01T00:00:00Z").await;
    }
    sqlx::query("ANALYZE delivery_outcome").execute(pool).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    let all = (i32::MAX, i64::MAX);
    for (filter, expected) in [
        (history::Filter { numbers: Some(vec![77, 78]), ..history::Filter::default() }, 4),
        (history::Filter { profiles: Some(vec![5, 6, 7]), ..history::Filter::default() }, 6),
        (
            history::Filter {
                destination: Some(DestinationNo(2)),
                numbers: Some(vec![9]),
                ..history::Filter::default()
            },
            1,
        ),
    ] {
        // Often, as Postgres plans differently when it has seen a statement a few times.
        for _ in 0..8 {
            let before = outcomes_looked_at(&mut connection).await;
            let found = history::list(&mut *connection, SPACE, &filter, all, 1_000).await.unwrap();
            let rows = outcomes_looked_at(&mut connection).await - before;
            assert_eq!(found.len(), expected, "{filter:?}");
            assert!((1..500).contains(&rows), "{rows} rows were looked at for {filter:?}");
        }
    }
}

/// Rows of what became of changes that were read so far, as this session has told.
async fn outcomes_looked_at(connection: &mut sqlx::PgConnection) -> i64 {
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(&mut *connection).await.unwrap();
    let sql = "SELECT seq_tup_read + (SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes
             WHERE relname = 'delivery_outcome')
         FROM pg_stat_user_tables WHERE relname = 'delivery_outcome'";
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn writing_down_what_was_sent_does_not_go_through_the_queue() {
    let app = app().await;
    let pool = &app.db.pool;
    let rows = |destination, count: u64| -> Vec<NewDelivery> {
        let row = |n| NewDelivery {
            destination,
            profile: personas::domain::ProfileNo(n),
            origin: personas::domain::ProfileNo(n),
            cause: None,
            subscription: 1,
            subject: personas::domain::delivery::Subject::Audience,
            form: 1,
            definition: 1,
            value: "true".into(),
            at: Timestamp::from_millis(n as i64),
        };
        (0..count).map(row).collect()
    };
    let head = "INSERT INTO delivery_head (space_id, destination_no) VALUES ($1, $2)";
    for destination in [KNOWN, UNHEARD_OF] {
        sqlx::query(head).bind(SPACE.0).bind(destination.0).execute(pool).await.unwrap();
    }
    let mut tx = pool.begin().await.unwrap();
    enqueue(&mut tx, SPACE, &rows(KNOWN, 1_000)).await.unwrap();
    // Those for a destination without a queue are left out.
    enqueue(&mut tx, SPACE, &rows(DestinationNo(102), 10)).await.unwrap();
    tx.commit().await.unwrap();
    sqlx::query("ANALYZE delivery").execute(pool).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    enqueue(&mut tx, SPACE, &rows(UNHEARD_OF, 100_000)).await.unwrap();
    tx.commit().await.unwrap();
    let kept: Vec<(i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT seq, delivery_no, profile_no, (extract(epoch FROM at) * 1000)::bigint FROM delivery
         WHERE space_id = $1 AND destination_no = $2 ORDER BY seq LIMIT 2",
    )
    .bind(SPACE.0)
    .bind(UNHEARD_OF.0)
    .fetch_all(pool)
    .await
    .unwrap();
    assert_eq!(kept, [(1, 1, 0, 0), (2, 2, 1, 1)]);
    // One after the other, and scattered over the queue, as profiles that come back from being held.
    let mut connection = pool.acquire().await.unwrap();
    for step in [1, 199] {
        let places = (0..500).map(|n| 1_000 + step * n);
        let at = Timestamp::from_millis(0);
        let ended =
            places.map(|seq| Ended { seq, state: State::Delivered, tries: 1, code: None, message: None, at });
        let ended: Vec<Ended> = ended.collect();
        let before = looked_at(&mut connection).await;
        let mut tx = connection.begin().await.unwrap();
        let done = book::end(&mut tx, SPACE, UNHEARD_OF, &ended).await.unwrap();
        tx.commit().await.unwrap();
        let rows = looked_at(&mut connection).await - before;
        assert!(done >= 490, "{done}");
        assert!((490..5_000).contains(&rows), "{rows} rows were looked at");
    }
}

/// Rows of queues that were found by their place so far, as this session has told.
async fn looked_at(connection: &mut sqlx::PgConnection) -> i64 {
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(&mut *connection).await.unwrap();
    let sql = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'delivery_pkey'";
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}
