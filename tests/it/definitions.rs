//! Audiences and computed traits as operators manage them.

use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};

const AUDIENCES: &str = "/v1/spaces/default/audiences";
const TRAITS: &str = "/v1/spaces/default/computed-traits";
const QUERY: &str = "event('Ordered').count() >= 2";

fn definition(key: &str, query: &str) -> Value {
    json!({"key": key, "definition": {"type": "users", "query": query}})
}

/// Keeps the processor away, so that definitions stay as management leaves them.
async fn unprocessed(app: TestApp) -> TestApp {
    let steal = "UPDATE processor SET epoch = epoch + 1, lease_until = clock_timestamp() + interval '1 hour'";
    sqlx::query(steal).execute(&app.db.pool).await.unwrap();
    app
}

async fn make(app: &TestApp, path: &str, key: &str, query: &str) {
    app.post(path, definition(key, query)).await.expect(201);
}

#[tokio::test]
async fn a_definition_is_made_found_changed_and_deleted() {
    let app = unprocessed(TestApp::start().await).await;
    let made = app.post(AUDIENCES, definition("buyers", QUERY)).await.expect(201).json;
    assert!(made["id"].as_str().unwrap().starts_with("aud_"));
    assert_eq!((&made["key"], &made["name"]), (&json!("buyers"), &json!("buyers")));
    assert_eq!(made["definition"], json!({"type": "users", "query": QUERY}));
    assert_eq!(made["options"], json!({"include_anonymous": false, "include_historical_data": true}));
    assert_eq!(
        (&made["enabled"], &made["version"], &made["status"]),
        (&json!(true), &json!(1), &json!("backfilling"))
    );
    assert_eq!((&made["serving_version"], &made["size"]), (&Value::Null, &json!(0)));
    let path = format!("{AUDIENCES}/buyers");
    let mut kept = made.clone();
    let warnings = kept.as_object_mut().unwrap().remove("warnings").unwrap();
    assert_eq!(warnings[0]["message"], "no event named \"Ordered\" has been seen");
    assert_eq!(app.get(&path).await.expect(200).json, kept);

    let renamed =
        app.patch(&path, json!({"name": "Buyers", "description": "Twice or more"})).await.expect(200).json;
    assert_eq!(
        (&renamed["name"], &renamed["version"]),
        (&json!("Buyers"), &json!(1)),
        "a name is no new version"
    );
    let same =
        app.patch(&path, json!({"definition": {"query": QUERY}, "options": {}})).await.expect(200).json;
    assert_eq!(same["version"], 1, "the same query is no new version");
    let edited =
        app.patch(&path, json!({"definition": {"query": "event('X').count() > 5"}})).await.expect(200).json;
    assert_eq!(edited["version"], 2);
    let optioned = app.patch(&path, json!({"options": {"include_anonymous": true}})).await.expect(200).json;
    assert_eq!((&optioned["version"], &optioned["options"]["include_anonymous"]), (&json!(3), &json!(true)));
    assert_eq!(optioned["definition"]["query"], "event('X').count() > 5", "what is left out stays");
    let off = app.patch(&path, json!({"enabled": false})).await.expect(200).json;
    assert_eq!((&off["status"], &off["version"]), (&json!("disabled"), &json!(3)));
    let on = app.patch(&path, json!({"enabled": true})).await.expect(200).json;
    assert_eq!((&on["status"], &on["version"]), (&json!("backfilling"), &json!(4)), "folded anew");

    let versions = app.get(&format!("{path}/versions")).await.expect(200).json;
    let numbers: Vec<&Value> = versions["data"].as_array().unwrap().iter().map(|v| &v["version"]).collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
    let page = app.get(&format!("{path}/versions?limit=3")).await.expect(200).json;
    let next = page["cursor"]["next"].as_str().unwrap();
    let rest = app.get(&format!("{path}/versions?limit=3&cursor={next}")).await.expect(200).json;
    assert_eq!(rest["data"][0]["version"], 1);

    app.delete(&path).await.expect(204);
    for gone in [app.get(&path).await, app.delete(&path).await, app.patch(&path, json!({})).await] {
        gone.expect_problem(404, "not_found");
    }
    make(&app, TRAITS, "buyers", "event('Ordered').count()").await;
}

#[tokio::test]
async fn failing_and_live_versions_show_in_the_status() {
    let app = unprocessed(TestApp::start().await).await;
    make(&app, AUDIENCES, "buyers", QUERY).await;
    let set = async |sql: &'static str| sqlx::query(sql).execute(&app.db.pool).await.unwrap();
    let get = async || app.get(&format!("{AUDIENCES}/buyers")).await.expect(200).json;
    set("UPDATE computation SET status = 'failed', failure = 'too large'").await;
    let failed = get().await;
    assert_eq!((&failed["status"], &failed["failure"]), (&json!("failed"), &json!("too large")));
    set("UPDATE computation SET status = 'live', failure = NULL, size = 7").await;
    set("UPDATE definition SET serving_no = 1").await;
    let live = get().await;
    assert_eq!(
        (&live["status"], &live["serving_version"], &live["size"]),
        (&json!("live"), &json!(1), &json!(7))
    );
    app.patch(&format!("{AUDIENCES}/buyers"), json!({"definition": {"query": "everyone()"}}))
        .await
        .expect(200);
    let edited = get().await;
    assert_eq!((&edited["status"], &edited["version"]), (&json!("backfilling"), &json!(2)));
    assert_eq!((&edited["serving_version"], &edited["size"]), (&json!(1), &json!(7)), "the old one answers");
    let pipeline = app.get("/v1/spaces/default/pipeline").await.expect(200).json;
    let backfills = pipeline["backfills"].as_array().unwrap();
    assert_eq!(backfills.len(), 1);
    assert_eq!((&backfills[0]["key"], &backfills[0]["version"]), (&json!("buyers"), &json!(2)));
    assert_eq!(backfills[0]["kind"], "audience");
}

#[tokio::test]
async fn a_bad_query_is_refused_with_all_its_errors() {
    let app = unprocessed(TestApp::start().await).await;
    let refused = app.post(AUDIENCES, definition("a", "event('X').cuont() >= 1 AND trait('y') >")).await;
    let refused = refused.expect_problem(422, "invalid_query").json;
    assert_eq!(refused["field"], "definition.query");
    let errors = refused["errors"].as_array().unwrap();
    assert!(errors.len() >= 2, "{refused}");
    for error in errors {
        for part in ["line", "column", "offset", "length"] {
            assert!(error[part].is_u64(), "{part}: {error}");
        }
        assert!(error["message"].is_string() && error["expected"].is_array(), "{error}");
    }
    assert!(errors[0]["message"].as_str().unwrap().contains("count"), "{refused}");
    for empty in ["", "  \n", "-- nothing"] {
        app.post(AUDIENCES, definition("a", empty)).await.expect_problem(422, "invalid_query");
    }
    // A condition is no trait, and the reverse.
    app.post(TRAITS, definition("a", QUERY)).await.expect_problem(422, "invalid_query");
    app.post(AUDIENCES, definition("a", "event('X').count()")).await.expect_problem(422, "invalid_query");
    make(&app, AUDIENCES, "a", QUERY).await;
    let edit = json!({"definition": {"query": "nonsense("}});
    app.patch(&format!("{AUDIENCES}/a"), edit).await.expect_problem(422, "invalid_query");
    assert_eq!(app.get(&format!("{AUDIENCES}/a")).await.expect(200).json["version"], 1);
}

#[tokio::test]
async fn keys_are_words_and_unique_over_both_kinds() {
    let app = unprocessed(TestApp::start().await).await;
    let long = "x".repeat(256);
    for key in ["", "1a", "A", "a-b", "a b", "é", "_a", "sizes", "preview", long.as_str()] {
        let refused = app.post(AUDIENCES, definition(key, QUERY)).await.expect_problem(422, "invalid");
        assert_eq!(refused.json["field"], "key", "{key}");
    }
    make(&app, AUDIENCES, &"x".repeat(255), QUERY).await;
    make(&app, AUDIENCES, "orders", QUERY).await;
    app.post(TRAITS, definition("orders", "event('X').count()")).await.expect_problem(409, "conflict");
    app.post(AUDIENCES, definition("orders", QUERY)).await.expect_problem(409, "conflict");
    // An audience is not found among the traits.
    app.get(&format!("{TRAITS}/orders")).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn bodies_are_read_strictly() {
    let app = unprocessed(TestApp::start().await).await;
    let with = |extra: Value| {
        let mut body = definition("a", QUERY);
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    for (body, field) in [
        (with(json!({"colour": "red"})), "colour"),
        (with(json!({"options": {"include_anon": true}})), "include_anon"),
        (with(json!({"definition": {"type": "users"}})), "definition.query"),
        (with(json!({"definition": {"type": "things", "query": QUERY}})), "definition.type"),
        (with(json!({"name": ""})), "name"),
        (with(json!({"description": "x".repeat(2_001)})), "description"),
        (json!({"definition": {"query": QUERY}}), "key"),
    ] {
        let refused = app.post(AUDIENCES, body).await.expect_problem(422, "invalid");
        assert_eq!(refused.json["field"], field, "{}", refused.text);
    }
    make(&app, AUDIENCES, "a", QUERY).await;
    let path = format!("{AUDIENCES}/a");
    for body in [
        json!({"key": "b"}),
        json!({"enabled": null}),
        json!({"enabled": "yes"}),
        json!({"definition": null}),
        json!({"definition": {"type": "accounts"}}),
        json!({"options": {"include_anonymous": null}}),
        json!([]),
    ] {
        app.patch(&path, body).await.expect_problem(422, "invalid");
    }
    app.patch(&format!("{path}?dry_run=true"), json!({"enabled": false})).await.expect(200);
    assert_eq!(app.get(&path).await.expect(200).json["enabled"], true, "a dry run changes nothing");
}

#[tokio::test]
async fn circles_are_refused_by_name() {
    let app = unprocessed(TestApp::start().await).await;
    let own = app.post(AUDIENCES, definition("a", "audience('a')")).await.expect_problem(422, "cycle");
    assert!(own.json["detail"].as_str().unwrap().contains("a → a"), "{}", own.text);
    // `b` is only a trait name while there is no such definition.
    make(&app, AUDIENCES, "a", "audience('b') OR event('X').count() > 1").await;
    make(&app, TRAITS, "c", "event('Y').count()").await;
    make(&app, AUDIENCES, "b", "trait('c') > 1").await;
    make(&app, AUDIENCES, "d", "audience('a')").await;
    let edit = json!({"definition": {"query": "audience('d')"}});
    let refused = app.patch(&format!("{AUDIENCES}/b"), edit).await.expect_problem(422, "cycle");
    assert!(refused.json["detail"].as_str().unwrap().contains("b → d → a → b"), "{}", refused.text);
    assert_eq!(refused.json["field"], "definition.query");
}

#[tokio::test]
async fn what_is_referred_to_stays() {
    let app = unprocessed(TestApp::start().await).await;
    make(&app, TRAITS, "orders", "event('Ordered').count()").await;
    make(&app, AUDIENCES, "buyers", "trait('orders') >= 1").await;
    make(&app, AUDIENCES, "fans", "audience('buyers') AND trait('orders') > 10").await;
    let refused = app.delete(&format!("{TRAITS}/orders")).await.expect_problem(409, "in_use");
    assert!(refused.json["detail"].as_str().unwrap().contains("buyers, fans"), "{}", refused.text);
    let references = app.get(&format!("{AUDIENCES}/buyers/references")).await.expect(200).json;
    assert_eq!(references["refers_to"], json!([{"kind": "computed_trait", "key": "orders"}]));
    assert_eq!(references["referenced_by"], json!([{"kind": "audience", "key": "fans"}]));
    app.delete(&format!("{AUDIENCES}/fans")).await.expect(204);
    app.delete(&format!("{AUDIENCES}/buyers")).await.expect(204);
    app.delete(&format!("{TRAITS}/orders")).await.expect(204);
}

#[tokio::test]
async fn lists_are_by_kind_in_pages_and_limited() {
    let app = Wish::default().option("query.definitions_max", "4").start().await;
    for key in ["c", "a", "b"] {
        make(&app, AUDIENCES, key, QUERY).await;
    }
    make(&app, TRAITS, "orders", "event('Ordered').count()").await;
    let keys = |list: &Value| -> Vec<String> {
        list["data"].as_array().unwrap().iter().map(|d| d["key"].as_str().unwrap().to_owned()).collect()
    };
    let first = app.get(&format!("{AUDIENCES}?limit=2")).await.expect(200).json;
    assert_eq!(keys(&first), ["a", "b"]);
    let next = first["cursor"]["next"].as_str().unwrap();
    let second = app.get(&format!("{AUDIENCES}?limit=2&cursor={next}")).await.expect(200).json;
    assert_eq!(keys(&second), ["c"]);
    app.get(&format!("{TRAITS}?cursor={next}")).await.expect_problem(400, "invalid_cursor");
    assert_eq!(keys(&app.get(TRAITS).await.expect(200).json), ["orders"]);
    app.post(AUDIENCES, definition("d", QUERY)).await.expect_problem(409, "limit_reached");
    app.delete(&format!("{AUDIENCES}/a")).await.expect(204);
    make(&app, AUDIENCES, "d", QUERY).await;
}

#[tokio::test]
async fn two_at_once_make_one() {
    let app = unprocessed(TestApp::start().await).await;
    let (one, two) = tokio::join!(
        app.post(AUDIENCES, definition("a", QUERY)),
        app.post(TRAITS, definition("a", "event('X').count()"))
    );
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
}
