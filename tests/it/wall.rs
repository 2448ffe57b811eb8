//! The second wall between spaces stands by itself: with the first one gone, a space still sees and changes nothing of another.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool, Row};

use crate::authorisation::Burglary;
use crate::harness::app::{TestApp, send};
use crate::harness::cluster::TestDb;
use crate::harness::random_log::{self, Dice};
use crate::harness::rebuild::{assert_same, dump};
use personas::domain::SpaceNo;
use personas::store::walled;

const OTHER: SpaceNo = SpaceNo(2);

/// All tables whose rows belong to spaces.
async fn tables(pool: &PgPool) -> Vec<String> {
    let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE a.attname = 'space_id' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
             AND c.relnamespace = 'public'::regnamespace ORDER BY 1";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(pool).await.unwrap();
    assert!(tables.len() > 50, "{tables:?}");
    tables
}

async fn run(pool: &PgPool, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(pool).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// Takes the first wall away: for statements of callers every table says that each of its rows is of the space that asks,
/// so that `space_id = $1` keeps nothing out. A role sees the schema of its own name first.
async fn remove_first_wall(pool: &PgPool) {
    run(pool, "CREATE SCHEMA personas_space".to_owned()).await;
    for table in tables(pool).await {
        let columns = "SELECT string_agg(CASE WHEN attname = 'space_id'
                 THEN 'current_setting(''personas.space'')::int AS space_id' ELSE quote_ident(attname) END, ', ' ORDER BY attnum)
             FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped";
        let columns: String =
            sqlx::query_scalar(columns).bind(format!("public.{table}")).fetch_one(pool).await.unwrap();
        let sql = format!(
            "CREATE VIEW personas_space.{table} WITH (security_invoker = true) AS SELECT {columns} FROM public.{table}"
        );
        run(pool, sql).await;
    }
    let grants = "GRANT USAGE ON SCHEMA personas_space TO personas_space;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA personas_space TO personas_space";
    run(pool, grants.to_owned()).await;
}

async fn switch_second_wall(pool: &PgPool, how: &str) {
    for table in tables(pool).await {
        run(pool, format!("ALTER TABLE public.{table} {how} ROW LEVEL SECURITY")).await;
    }
}

#[tokio::test]
async fn t05_without_the_first_wall_the_second_one_stands() {
    let burglary = Burglary::prepare().await;
    let pool = &burglary.app.db.pool;
    remove_first_wall(pool).await;
    // Without either, much is told: or the test would not see what is kept in.
    switch_second_wall(pool, "DISABLE").await;
    let mut told = Vec::new();
    for (_, path, route) in burglary.attempts.iter().filter(|(method, ..)| method == Method::GET) {
        if Burglary::tells(&burglary.attempt(&Method::GET, path).await) {
            told.push(route.as_str());
        }
    }
    assert!(told.len() >= 7, "{told:?}");
    switch_second_wall(pool, "ENABLE").await;
    for (method, path, route) in &burglary.attempts {
        let answer = burglary.attempt(method, path).await;
        assert!(!Burglary::tells(&answer), "{method} {route}: {}", answer.text);
    }
    burglary.check_nothing_changed().await;
}

#[tokio::test]
async fn every_table_of_spaces_is_behind_the_wall() {
    let db = TestDb::new().await;
    let policies =
        "SELECT c.relname::text, c.relrowsecurity, pg_get_expr(p.polqual, p.polrelid), p.polcmd::text
         FROM pg_class c LEFT JOIN pg_policy p ON p.polrelid = c.oid WHERE c.oid = $1::regclass";
    for table in tables(&db.pool).await {
        let all = sqlx::query(policies).bind(format!("public.{table}")).fetch_all(&db.pool).await.unwrap();
        assert_eq!(all.len(), 1, "{table}");
        assert!(all[0].get::<bool, _>(1), "{table}");
        let rule: String = all[0].get(2);
        // In a sub-select: read once for a statement.
        assert!(
            rule.contains("SELECT (current_setting('personas.space'::text))::integer"),
            "{table}: {rule}"
        );
        assert_eq!(all[0].get::<String, _>(3), "*", "{table}");
    }
}

/// Of what is in all tables, a door shows its own space; and what belongs to another can neither be written nor taken over.
#[tokio::test]
async fn statements_that_name_no_space_see_one() {
    let burglary = Burglary::prepare().await;
    let pool = &burglary.app.db.pool;
    let (own, door) = (walled(pool, SpaceNo(1)), walled(pool, OTHER));
    let mut seen = 0;
    for table in tables(pool).await {
        let count = |only: &str| AssertSqlSafe(format!("SELECT count(*) FROM {table} {only}"));
        let of = async |space: i32| -> i64 {
            sqlx::query_scalar(count(&format!("WHERE space_id = {space}"))).fetch_one(pool).await.unwrap()
        };
        let through = async |door| -> i64 { sqlx::query_scalar(count("")).fetch_one(door).await.unwrap() };
        assert_eq!(through(&own).await, of(1).await, "{table}");
        assert_eq!(through(&door).await, of(2).await, "{table}");
        seen += of(1).await;
        let deleted =
            sqlx::query(AssertSqlSafe(format!("DELETE FROM {table} WHERE space_id = 1"))).execute(&door);
        assert_eq!(deleted.await.unwrap().rows_affected(), 0, "{table}");
    }
    assert!(seen > 50, "{seen}");
    sqlx::query("INSERT INTO usage_month VALUES (2, '1999-01-01', 1)").execute(&door).await.unwrap();
    let moved = sqlx::query("UPDATE usage_month SET space_id = 1").execute(&door).await;
    for refused in [
        moved,
        sqlx::query("INSERT INTO usage_month VALUES (1, '2024-03-01', 1)").execute(&door).await,
        sqlx::query("INSERT INTO usage_month VALUES (0, '2024-03-01', 1)").execute(&door).await,
    ] {
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("row-level security"), "{said}");
    }
    burglary.check_nothing_changed().await;
}

/// T34: whoever gets a statement of theirs through such a door gets no further.
#[tokio::test]
async fn t34_the_role_of_callers_may_do_nothing_else() {
    let app = TestApp::start().await;
    let door = walled(&app.db.pool, OTHER);
    for sql in [
        "SELECT * FROM pg_read_file('PG_VERSION')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT lo_import('/etc/hostname')",
        "CREATE TABLE mine (a int)",
        "CREATE SCHEMA mine",
        "DROP TABLE source",
        "ALTER TABLE source DISABLE ROW LEVEL SECURITY",
        "DROP POLICY of_one_space ON source",
        "TRUNCATE source",
        "SELECT * FROM test_clock",
        "SELECT rolpassword FROM pg_authid",
        "ALTER SYSTEM SET fsync = off",
        "CREATE ROLE mine",
    ] {
        let refused = sqlx::query(sql).execute(&door).await.unwrap_err();
        let code = refused.as_database_error().and_then(|e| e.code().map(std::borrow::Cow::into_owned));
        // Not allowed; or not within a transaction.
        assert!(matches!(code.as_deref(), Some("42501" | "25001")), "{sql}: {refused}");
    }
}

/// I29: a space is what its own calls make of it, whatever goes on in others: the same people, messages and definitions there.
#[tokio::test]
async fn i29_a_space_is_the_same_whether_others_have_traffic_or_not() {
    const ROUNDS: i64 = 25;
    let (alone, beside) = (random_log::start().await, random_log::start().await);
    beside.post("/v1/spaces", json!({"id": "acme"})).await.expect(201);
    let made = beside.post("/v1/spaces/acme/sources", json!({"name": "web"})).await.expect(201).json;
    let key = made["write_key"].as_str().unwrap();
    for app in [&alone, &beside] {
        random_log::define(app).await;
    }
    for (key, query) in random_log::AUDIENCES.into_iter().filter(|(_, query)| !query.contains("trait(")) {
        let body = json!({"key": key, "definition": {"type": "users", "query": query}});
        beside.post("/v1/spaces/acme/audiences", body).await.expect(201);
    }
    let (mut dice, mut others) = (Dice(7), Dice(8));
    let (mut sent, mut sent_there) = (0, 0);
    let mut now = random_log::START;
    for _ in 0..ROUNDS {
        let calls = |dice: &mut Dice, sent: &mut u64| {
            let calls: Vec<Value> = (0..=dice.roll(60)).map(|_| random_log::call(dice, now, sent)).collect();
            json!({ "batch": calls })
        };
        let (own, theirs) = (calls(&mut dice, &mut sent), calls(&mut others, &mut sent_there));
        let offset = alone.track("/v1/batch", &own).await.expect(200).offset();
        let there =
            beside.request(Method::POST, "/v1/batch").basic_auth(key, Some("")).body(theirs.to_string());
        let (same, there) = tokio::join!(beside.track("/v1/batch", &own), send(there));
        assert_eq!(same.expect(200).offset(), offset);
        let there = there.expect(200).offset();
        // Both are done with it before time goes on.
        for app in [&alone, &beside] {
            app.get(&format!("/v1/spaces/default/pipeline?min_offset={offset}")).await.expect(200);
        }
        beside.get(&format!("/v1/spaces/acme/pipeline?min_offset={there}")).await.expect(200);
        now += 40 * 60_000;
        for app in [&alone, &beside] {
            app.put("/v1/test-clock", json!({"now": random_log::time(now)})).await.expect(200);
        }
    }
    let dumped = dump(&alone.db.pool).await;
    assert!(dumped["profile"].len() > 20 && dumped["transition"].len() > 20);
    assert_same(&dumped, &dump(&beside.db.pool).await);
}

/// Whoever hangs up while a door is opened leaves nothing of it to the next.
#[tokio::test]
async fn a_door_that_is_left_half_open_is_closed() {
    let app = TestApp::start().await;
    let options = app.db.pool.connect_options().as_ref().clone();
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).test_before_acquire(false);
    let pool = pool.connect_with(options).await.unwrap();
    for round in 0..200_u64 {
        let door = walled(&pool, OTHER);
        drop(tokio::time::timeout(std::time::Duration::from_micros(round * 5), door.begin()).await);
        let said: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(&pool).await.unwrap();
        assert_ne!(said, "personas_space", "{round}");
    }
}

/// On one connection, one space after the other, and after statements that fail.
#[tokio::test]
async fn what_one_door_set_is_gone_before_the_next() {
    let app = TestApp::start().await;
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .connect_with(app.db.pool.connect_options().as_ref().clone())
        .await
        .unwrap();
    let asked = "SELECT current_user::text || current_setting('personas.space')";
    for round in 0..3 {
        for space in [1, 2, 3] {
            let door = walled(&pool, SpaceNo(space));
            let said: String = sqlx::query_scalar(asked).fetch_one(&door).await.unwrap();
            assert_eq!(said, format!("personas_space{space}"), "{round}");
            sqlx::query("SELECT 1 / 0").execute(&door).await.unwrap_err();
            drop(door.begin().await.unwrap());
        }
        let said: String = sqlx::query_scalar(
            "SELECT current_user::text || coalesce(current_setting('personas.space', true), '')",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert!(!said.contains("personas_space") && !said.ends_with(char::is_numeric), "{said}");
        // Who forgets the door is told nothing by it.
        let mut tx = pool.begin().await.unwrap();
        sqlx::query("SET LOCAL ROLE personas_space").execute(&mut *tx).await.unwrap();
        sqlx::query("SELECT * FROM source").execute(&mut *tx).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_space_that_cannot_be_written_holds_up_no_other() {
    let app = TestApp::start().await;
    app.post("/v1/spaces", json!({"id": "acme"})).await.expect(201);
    let made = app.post("/v1/spaces/acme/sources", json!({"name": "web"})).await.expect(201).json;
    let key = made["write_key"].as_str().unwrap().to_owned();
    let call = json!({"type": "track", "userId": "u1", "event": "Seen"});
    let there = || {
        let request = app.request(Method::POST, "/v1/track").basic_auth(&key, Some(""));
        send(request.body(call.to_string()))
    };
    there().await.expect(200);
    let mut tx = app.db.pool.begin().await.unwrap();
    let locked =
        "SELECT 1 FROM log_head WHERE space_id = (SELECT space_id FROM space WHERE key = 'acme') FOR UPDATE";
    let locked: i32 = sqlx::query_scalar(locked).fetch_one(&mut *tx).await.unwrap();
    assert_eq!(locked, 1);
    let mut waits = tokio::task::JoinSet::new();
    waits.spawn(there());
    // One of them at least finds the other under way, whichever came first.
    for _ in 0..20 {
        app.track("/v1/track", &call).await.expect(200);
    }
    assert!(waits.try_join_next().is_none(), "it cannot be stored yet");
    tx.rollback().await.unwrap();
    let stored = waits.join_next().await.unwrap().unwrap().expect(200);
    assert_eq!(stored.json["success"], true);
}
