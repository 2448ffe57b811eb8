//! What becomes of a space: suspended and resumed, its limits and what warns of them, ended, read out, purged.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Answer, TestApp, Wish, send};
use crate::harness::cluster::TestDb;

const SPACE: &str = "/v1/spaces/acme";
const NOON: &str = "2024-03-01T12:00:00Z";
const AUDIENCE: &str = "event('Seen').count() >= 1";

/// A space of its own beside the first one, with a write key and a token of its owner.
struct Tenant {
    app: TestApp,
    key: String,
    token: String,
}

impl Tenant {
    async fn start() -> Self {
        let app = Wish::default().at(NOON).start().await;
        app.post("/v1/spaces", json!({"id": "acme", "name": "Acme"})).await.expect(201);
        let source = app.post(&format!("{SPACE}/sources"), json!({"name": "web"})).await.expect(201);
        let token =
            app.post(&format!("{SPACE}/tokens"), json!({"name": "them", "role": "owner"})).await.expect(201);
        let text = |json: &Value, name: &str| json[name].as_str().unwrap().to_owned();
        Self { key: text(&source.json, "write_key"), token: text(&token.json, "token"), app }
    }

    /// A second process on the same database, at the same time.
    async fn beside(&self) -> TestApp {
        Wish::default().at(NOON).start_at(&self.app.db.url()).await
    }

    async fn plan(&self, change: Value) -> Value {
        self.app.patch(SPACE, json!({"plan": change})).await.expect(200).json["plan"].clone()
    }

    async fn see(&self, user: &str) -> Answer {
        let body = json!({"userId": user, "event": "Seen"}).to_string();
        send(self.app.request(Method::POST, "/v1/track").bearer_auth(&self.key).body(body)).await
    }

    async fn batch(&self, events: usize) -> Answer {
        let batch: Vec<Value> =
            (0..events).map(|_| json!({"type": "track", "userId": "u", "event": "Seen"})).collect();
        let body = json!({"batch": batch}).to_string();
        send(self.app.request(Method::POST, "/v1/batch").bearer_auth(&self.key).body(body)).await
    }

    /// As whoever the space belongs to.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.app.call_as(&self.token, method, &format!("{SPACE}{path}"), body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    async fn make(&self, key: &str) -> Answer {
        let body = json!({"key": key, "definition": {"type": "users", "query": AUDIENCE}});
        self.call(Method::POST, "/audiences", Some(body)).await
    }

    async fn to(&self, now: &str) {
        self.app.put("/v1/test-clock", json!({"now": now})).await.expect(200);
    }

    async fn usage(&self) -> Value {
        self.get("/usage").await.expect(200).json
    }

    /// Members of the audience once everything is processed.
    async fn members(&self) -> usize {
        let end = self.get("/pipeline").await.expect(200).json["log_end_offset"].clone();
        let path = format!("/audiences/seen/members?min_offset={end}");
        self.get(&path).await.expect(200).json["data"].as_array().unwrap().len()
    }

    async fn live(&self) {
        self.make("seen").await.expect(201);
        for _ in 0..1_000 {
            if self.get("/audiences/seen").await.expect(200).json["status"] == "live" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the audience does not become live");
    }

    /// Rows of the space by table, of all tables there are but the one that keeps the report.
    async fn rows(&self, space: &str) -> Vec<(String, i64)> {
        let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
             WHERE a.attname = 'space_id' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                 AND c.relnamespace = 'public'::regnamespace AND c.relname <> 'purge_report'";
        let pool = &self.app.db.pool;
        let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(pool).await.unwrap();
        assert!(tables.len() > 50);
        let mut rows = Vec::new();
        for table in tables {
            let sql = format!(
                "SELECT count(*) FROM {table} WHERE space_id = (SELECT s FROM (VALUES ('default', 1), ('acme', 2)) v (k, s) WHERE k = $1)"
            );
            let count: i64 =
                sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(space).fetch_one(pool).await.unwrap();
            if count > 0 {
                rows.push((table, count));
            }
        }
        rows.sort();
        rows
    }
}

fn warnings(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("personas-warning").iter().map(|value| value.to_str().unwrap()).collect()
}

fn refused(answer: &Answer, code: &str) {
    assert_eq!((answer.status, &answer.json["code"]), (403, &json!(code)), "{}", answer.text);
}

#[tokio::test]
async fn a_suspended_space_is_read_and_resumes_with_everything() {
    let tenant = Tenant::start().await;
    tenant.live().await;
    tenant.see("u1").await.expect(200);
    let plan = tenant.plan(json!({"state": "suspended", "reason": "invoice 7 is not paid"})).await;
    assert_eq!((&plan["state"], &plan["reason"]), (&json!("suspended"), &json!("invoice 7 is not paid")));
    refused(&tenant.see("u2").await, "locked_workspace");
    let answer = tenant.make("other").await;
    refused(&answer, "space_suspended");
    assert!(answer.json["detail"].as_str().unwrap().contains("invoice 7 is not paid"));
    assert_eq!(tenant.members().await, 1);
    // A key that leaked can be revoked, and people can be answered.
    tenant.call(Method::POST, "/tokens", Some(json!({"name": "t", "role": "viewer"}))).await.expect(201);
    let plan = tenant.plan(json!({"state": "active"})).await;
    assert_eq!(plan["reason"], Value::Null, "the reason is gone with it");
    tenant.see("u2").await.expect(200);
    tenant.make("other").await.expect(201);
    assert_eq!(tenant.members().await, 2);
}

#[tokio::test]
async fn usage_is_exact_by_month_whatever_is_restarted_or_sent_at_once() {
    let tenant = Tenant::start().await;
    let beside = tenant.beside().await;
    tenant.batch(5).await.expect(200);
    let both = (0..10).map(|i| {
        let app = if i % 2 == 0 { &tenant.app } else { &beside };
        let body = json!({"userId": format!("u{i}"), "event": "Seen"}).to_string();
        send(app.request(Method::POST, "/v1/track").bearer_auth(&tenant.key).body(body))
    });
    for answer in futures_util::future::join_all(both).await {
        answer.expect(200);
    }
    // Refused events and acts of operators are nobody's usage.
    let bad =
        tenant.app.request(Method::POST, "/v1/track").bearer_auth(&tenant.key).body(r#"{"userId":"u"}"#);
    send(bad).await.expect(400);
    let pair = json!({"profiles": ["user_id:u0", "user_id:u1"]});
    tenant.members_settled().await;
    tenant.call(Method::POST, "/identity/blocks", Some(pair)).await.expect(200);
    let usage = tenant.usage().await;
    assert_eq!((&usage["month"], &usage["events"]), (&json!("2024-03"), &json!(15)), "{usage}");
    assert_eq!(usage["profiles"], 11);
    tenant.to("2024-03-31T23:59:59.999Z").await;
    tenant.see("u").await.expect(200);
    tenant.to("2024-04-01T00:00:00Z").await;
    tenant.batch(2).await.expect(200);
    let months = json!([{"month": "2024-04", "events": 2}, {"month": "2024-03", "events": 16}]);
    assert_eq!(tenant.usage().await["months"], months);
    let others = tenant.app.get("/v1/spaces/default/usage").await.expect(200).json;
    assert_eq!((&others["events"], &others["months"]), (&json!(0), &json!([])));

    let Tenant { app, key, token } = tenant;
    let TestApp { running, db, .. } = app;
    running.stop(Duration::ZERO).await.unwrap();
    let app = Wish::default().at(NOON).start_on(db).await;
    let tenant = Tenant { app, key, token };
    tenant.plan(json!({"limits": {"events_per_month": 3}})).await;
    tenant.see("u").await.expect(200);
    refused(&tenant.see("u").await, "quota_reached");
    assert_eq!(tenant.usage().await["months"][0], json!({"month": "2024-04", "events": 3}));
}

impl Tenant {
    async fn members_settled(&self) {
        let end = self.get("/pipeline").await.expect(200).json["log_end_offset"].clone();
        self.get(&format!("/pipeline?min_offset={end}")).await.expect(200);
    }
}

#[tokio::test]
async fn limits_are_said_ahead_and_held_to_the_event() {
    let tenant = Tenant::start().await;
    tenant.plan(json!({"limits": {"events_per_month": 10, "audiences": 1, "computed_traits": 1}})).await;
    assert_eq!(warnings(&tenant.batch(7).await.expect(200)), Vec::<&str>::new());
    let answer = tenant.see("u").await.expect(200);
    assert_eq!(warnings(&answer), ["events_per_month; used=8; limit=10"]);
    assert_eq!(warnings(&tenant.get("/audiences").await), ["events_per_month; used=8; limit=10"]);
    refused(&tenant.batch(3).await, "quota_reached");
    let answer = tenant.batch(2).await.expect(200);
    assert_eq!(warnings(&answer), ["events_per_month; used=10; limit=10"]);
    let answer = tenant.see("u").await;
    refused(&answer, "quota_reached");
    assert!(answer.json["message"].as_str().unwrap().contains("10 events a month"), "{}", answer.text);
    assert!(answer.header("retry-after").is_empty());
    assert_eq!(tenant.usage().await["events"], 10);
    tenant.app.track("/v1/track", r#"{"userId":"u","event":"E"}"#).await.expect(200);
    tenant.to("2024-04-01T00:00:00Z").await;
    assert_eq!(warnings(&tenant.batch(7).await.expect(200)), Vec::<&str>::new());

    tenant.make("one").await.expect(201);
    let answer = tenant.make("two").await.expect_problem(409, "limit_reached");
    assert!(answer.json["detail"].as_str().unwrap().contains("1 audiences"), "{}", answer.text);
    let value = json!({"key": "n", "definition": {"type": "users", "query": "event('Seen').count()"}});
    tenant.call(Method::POST, "/computed-traits", Some(value.clone())).await.expect(201);
    let again = json!({"key": "m", "definition": value["definition"]});
    tenant.call(Method::POST, "/computed-traits", Some(again)).await.expect_problem(409, "limit_reached");

    tenant.plan(json!({"limits": {"events_per_month": null, "events_per_second": 5}})).await;
    tenant.to("2024-04-01T00:00:10Z").await;
    tenant.batch(5).await.expect(200);
    let answer = tenant.see("u").await.expect(429);
    assert_eq!((&answer.json["code"], answer.header("retry-after")), (&json!("too_many_requests"), "1"));
    tenant.to("2024-04-01T00:00:11Z").await;
    tenant.see("u").await.expect(200);
    tenant.plan(json!({"limits": {"events_per_second": null, "profiles": 1}})).await;
    refused(&tenant.see("v").await, "quota_reached");
    for bad in [json!({}), json!({"profiles": 0}), json!({"profiles": "many"}), json!({"events": 1})] {
        tenant.app.patch(SPACE, json!({"plan": {"limits": bad}})).await.expect_problem(422, "invalid");
    }
}

#[tokio::test]
async fn many_at_once_do_not_go_over_a_limit() {
    let tenant = Tenant::start().await;
    tenant.plan(json!({"limits": {"events_per_month": 20}})).await;
    let answers = futures_util::future::join_all((0..40).map(|_| tenant.see("u"))).await;
    let taken = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((taken, tenant.usage().await["events"].clone()), (20, json!(20)));
    // What another process has taken is known within a second.
    let beside = tenant.beside().await;
    let body = json!({"userId": "u", "event": "Seen"}).to_string();
    let answer = send(beside.request(Method::POST, "/v1/track").bearer_auth(&tenant.key).body(body)).await;
    refused(&answer, "quota_reached");
}

#[tokio::test]
async fn nobody_is_refused_for_good_because_of_what_is_on_its_way() {
    let tenant = Tenant::start().await;
    tenant.plan(json!({"limits": {"events_per_month": 10}})).await;
    let db = &tenant.app.db;
    let mut tx = db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM log_head FOR UPDATE").execute(&mut *tx).await.unwrap();
    let (first, ()) = tokio::join!(tenant.batch(6), async {
        db.wait_for_blocked().await;
        // Nobody knows yet what becomes of the six.
        let answer = tenant.batch(5).await.expect(503);
        assert!(!answer.header("retry-after").is_empty(), "{}", answer.text);
        refused(&tenant.batch(11).await, "quota_reached");
        tx.rollback().await.unwrap();
    });
    first.expect(200);
    refused(&tenant.batch(5).await, "quota_reached");
    tenant.batch(4).await.expect(200);
    assert_eq!(tenant.usage().await["events"], 10);
}

#[tokio::test]
async fn a_space_ends_is_read_out_and_purged_and_others_are_as_they_were() {
    let tenant = Tenant::start().await;
    tenant.live().await;
    tenant.see("u1").await.expect(200);
    let refused_event = json!({"userId": "u"}).to_string();
    send(tenant.app.request(Method::POST, "/v1/track").bearer_auth(&tenant.key).body(refused_event))
        .await
        .expect(400);
    tenant
        .call(Method::PATCH, "/sensitive-data/settings", Some(json!({"actions": {"iban": "drop"}})))
        .await
        .expect(200);
    let hook = json!({"name": "h", "kind": "webhook", "settings": {"url": "https://hook.example.com/"}});
    tenant.call(Method::POST, "/destinations", Some(hook)).await;
    tenant.app.track("/v1/track", r#"{"userId":"u","event":"E"}"#).await.expect(200);
    tenant.members_settled().await;
    tenant.plan(json!({"state": "trial", "ends_at": "2024-03-10T00:00:00Z", "export_days": 5})).await;
    let answer = tenant.see("u1").await.expect(200);
    assert_eq!(warnings(&answer), ["term_ends; at=2024-03-10T00:00:00.000Z"]);

    tenant.to("2024-03-10T00:00:00Z").await;
    refused(&tenant.see("u2").await, "locked_workspace");
    refused(&tenant.make("other").await, "space_ended");
    assert_eq!(tenant.members().await, 1, "it can be read out");
    let export = tenant.get("/audiences/seen/members?format=ndjson").await.expect(200);
    assert!(export.text.contains("u1"));
    assert_eq!(warnings(&export), ["purge; at=2024-03-15T00:00:00.000Z"]);
    // Converted after all: nothing is lost.
    tenant.plan(json!({"state": "active", "ends_at": "2024-03-20T00:00:00Z"})).await;
    tenant.see("u2").await.expect(200);
    assert_eq!(tenant.members().await, 2);
    let plan = tenant.plan(json!({"state": "ended"})).await;
    assert_eq!(plan["purge_at"], "2024-03-15T00:00:00.000Z");
    tenant.to("2024-03-14T23:59:59.999Z").await;
    tenant.get("/audiences").await.expect(200);

    let others = tenant.rows("default").await;
    assert!(tenant.rows("acme").await.len() > 15);
    tenant.to("2024-03-15T00:00:00Z").await;
    purged(&tenant, "acme").await;
    assert_eq!(tenant.rows("acme").await, []);
    assert_eq!(tenant.rows("default").await, others);
    tenant.get("").await.expect(401);
    tenant.app.get(SPACE).await.expect_problem(404, "not_found");
    let reports = tenant.app.get("/v1/purge-reports").await.expect(200).json["data"].clone();
    assert_eq!((&reports[0]["id"], &reports[0]["name"]), (&json!("acme"), &json!("Acme")));
    assert_eq!(reports[0]["report"]["events"], json!({"2024-03": 3}));
    assert_eq!(reports[0]["report"]["rows"]["profile"], 2);
    // The id is free again, for somebody who has nothing to do with it.
    tenant.app.post("/v1/spaces", json!({"id": "acme"})).await.expect(201);
    let fresh = tenant.app.get(&format!("{SPACE}/pipeline")).await.expect(200).json;
    assert_eq!(fresh["log_end_offset"], 0);
    let number: i32 = sqlx::query_scalar("SELECT space_id FROM space WHERE key = 'acme'")
        .fetch_one(&tenant.app.db.pool)
        .await
        .unwrap();
    assert_eq!(number, 3, "a number is not given twice");
}

/// Waits until a space is purged.
async fn purged(tenant: &Tenant, space: &str) {
    for _ in 0..500 {
        let reports = tenant.app.get("/v1/purge-reports").await.expect(200).json;
        let of_space = |report: &&Value| report["id"] == space && report["purged_at"].is_string();
        if reports["data"].as_array().unwrap().iter().any(|report| of_space(&report)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{space} is not purged");
}

#[tokio::test]
async fn a_purge_can_be_asked_for_and_not_by_mistake() {
    let tenant = Tenant::start().await;
    tenant.see("u1").await.expect(200);
    let purge = format!("{SPACE}/purge");
    tenant.app.post(&purge, json!({"confirm": "acme"})).await.expect_problem(409, "refused");
    let early = json!({"plan": {"ends_at": "2023-01-01T00:00:00Z"}});
    let answer = tenant.app.patch(SPACE, early).await.expect_problem(422, "invalid");
    assert_eq!(answer.json["field"], "plan.ends_at");
    tenant.plan(json!({"state": "ended", "reason": "they left"})).await;
    tenant.app.post(&purge, json!({"confirm": "default"})).await.expect_problem(422, "invalid");
    tenant.app.post(&purge, json!({})).await.expect_problem(422, "invalid");
    tenant
        .call(Method::POST, "/purge", Some(json!({"confirm": "acme"})))
        .await
        .expect_problem(403, "forbidden");
    tenant.app.post(&purge, json!({"confirm": "acme"})).await.expect(202);
    // As soon as it is asked for there is no way back, and nobody gets in.
    let back = tenant.app.patch(SPACE, json!({"plan": {"state": "active"}})).await;
    assert!([404, 409].contains(&back.status), "{}", back.text);
    assert!([401, 403].contains(&tenant.see("u1").await.status));
    purged(&tenant, "acme").await;
    assert_eq!(tenant.rows("acme").await, []);
}

/// Stops the service. What is left is for the next one.
async fn stopped(tenant: Tenant) -> (TestDb, String, String) {
    let Tenant { app, key, token } = tenant;
    let TestApp { running, db, .. } = app;
    running.stop(Duration::ZERO).await.unwrap();
    (db, key, token)
}

#[tokio::test]
async fn what_is_agreed_while_a_purge_begins_counts() {
    let tenant = Tenant::start().await;
    tenant.see("u1").await.expect(200);
    tenant.plan(json!({"ends_at": "2024-03-10T00:00:00Z", "export_days": 5})).await;
    let pool = tenant.app.db.pool.clone();
    let until = async |sql: &str| {
        while !sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(sql.to_owned()))
            .fetch_one(&pool)
            .await
            .unwrap()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // The purge looks through the audit log, which others hold meanwhile.
    let mut held = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE audit_head IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let agree = async {
        until(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
                 AND wait_event_type = 'Lock' AND query LIKE '-- store::audit::verify%')",
        )
        .await;
        let release = async {
            until("SELECT plan_state = 'active' AND plan_ends_at IS NULL FROM space WHERE space_id = 2")
                .await;
            held.commit().await.unwrap();
        };
        tokio::join!(tenant.plan(json!({"state": "active", "ends_at": null})), release).0
    };
    let ((), plan) = tokio::join!(tenant.to("2024-03-15T00:00:00Z"), agree);
    assert_eq!((&plan["state"], &plan["purge_at"]), (&json!("active"), &json!(null)));
    // Whatever had begun is done by then.
    let (db, key, token) = stopped(tenant).await;
    let tenant = Tenant { app: Wish::default().at(NOON).start_on(db).await, key, token };
    tenant.see("u2").await.expect(200);
    assert_eq!(tenant.app.get("/v1/purge-reports").await.expect(200).json["data"], json!([]));
    tenant.members_settled().await;
    assert_eq!(tenant.usage().await["profiles"], 2);
}

#[tokio::test]
async fn a_purge_takes_copies_along_and_is_finished_whenever_it_was_broken_off() {
    let tenant = Tenant::start().await;
    tenant.see("u1").await.expect(200);
    tenant.members_settled().await;
    // As a rebuild leaves it that was broken off.
    let pool = tenant.app.db.pool.clone();
    let copy = "CREATE SCHEMA rebuild_2; CREATE TABLE rebuild_2.external_id AS SELECT * FROM external_id";
    sqlx::raw_sql(copy).execute(&pool).await.unwrap();
    tenant.plan(json!({"state": "ended"})).await;
    tenant.app.post(&format!("{SPACE}/purge"), json!({"confirm": "acme"})).await.expect(202);
    purged(&tenant, "acme").await;
    let is_gone = "SELECT to_regnamespace('rebuild_2') IS NULL";
    assert!(sqlx::query_scalar::<_, bool>(is_gone).fetch_one(&pool).await.unwrap(), "the copy is left");
    let reports = tenant.app.get("/v1/purge-reports").await.expect(200).json;
    assert_eq!(reports["data"][0]["report"]["last_audit_hash"].as_str().unwrap().len(), 64);

    // As it was left by somebody who stopped before writing down that it was done.
    let (db, key, token) = stopped(tenant).await;
    let broken_off =
        "UPDATE purge_report SET purged_at = NULL; INSERT INTO usage_month VALUES (2, '2024-03-01', 1)";
    sqlx::raw_sql(broken_off).execute(&db.pool).await.unwrap();
    let tenant = Tenant { app: Wish::default().at(NOON).start_on(db).await, key, token };
    purged(&tenant, "acme").await;
    assert_eq!(tenant.rows("acme").await, []);
}

#[tokio::test]
async fn ending_the_profile_service_need_not_end_the_collection_of_events() {
    let tenant = Tenant::start().await;
    tenant.live().await;
    tenant.see("u1").await.expect(200);
    assert_eq!(tenant.members().await, 1);
    let plan = tenant.plan(json!({"state": "ended", "collects_after_end": true, "export_days": 1})).await;
    assert_eq!(
        (&plan["purge_at"], &plan["export_ends_at"]),
        (&json!(null), &json!("2024-03-02T12:00:00.000Z"))
    );
    // Whoever processes the space hears of it within a second, and gives it back.
    let sql = "SELECT lease_until = '-infinity' FROM processor WHERE space_id = 2";
    while !sqlx::query_scalar::<_, bool>(sql).fetch_one(&tenant.app.db.pool).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tenant.see("u2").await.expect(200);
    refused(&tenant.make("other").await, "space_ended");
    tenant.get("/export").await.expect(200);
    tenant.to("2024-03-02T12:00:00Z").await;
    tenant.see("u3").await.expect(200);
    for export in ["/export", "/collections/users/profiles/user_id:u1/export"] {
        refused(&tenant.get(export).await, "space_ended");
    }
    refused(&tenant.get("/audiences/seen/members").await, "space_ended");
    let profile = tenant.get("/collections/users/profiles/user_id:u1/traits").await.expect(403);
    assert_eq!(profile.json["error"]["code"], "space_ended");
    assert_eq!(tenant.usage().await["events"], 3);
    assert_eq!(tenant.usage().await["profiles"], 1, "no profiles are made of them");
    tenant.plan(json!({"state": "active"})).await;
    for _ in 0..500 {
        if tenant.members().await == 3 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("events that were collected meanwhile are lost");
}

#[tokio::test]
async fn spaces_have_names() {
    let tenant = Tenant::start().await;
    let changed = tenant.app.patch(SPACE, json!({"name": " Acme Ltd. "})).await.expect(200).json;
    assert_eq!(changed["name"], "Acme Ltd.");
    assert_eq!(tenant.get("").await.expect(200).json["name"], "Acme Ltd.");
    for bad in [json!({"name": " "}), json!({"name": null}), json!({})] {
        tenant.app.patch(SPACE, bad).await.expect_problem(422, "invalid");
    }
}
