//! Operators' acts, but for merges that are taken back: merging, keeping apart, moving and deleting identifiers, unlinking.

use serde_json::{Value, json};

use crate::harness::acts::{ACCOUNTS, Case, NOW, SPACE, USERS};
use crate::harness::app::Wish;

#[tokio::test]
async fn operators_merge_within_the_limits_or_beyond_them() {
    let mut case = Case::start(Wish::default()).await;
    case.definitions().await;
    case.send_all(&[
        "identify user=u1 {\"color\":\"red\"}",
        "track Order user=u1 {\"total\":60}",
        "identify user=u2 {\"color\":\"blue\"}",
        "track Order user=u2 {\"total\":50}",
        "track Order anon=a1 {\"total\":1}",
    ])
    .await;
    let [one, two] = [case.id("user_id:u1").await, case.id("user_id:u2").await];
    let both = json!({"profiles": ["user_id:u1", format!("profile_id:{two}")]});
    let path = format!("{SPACE}/identity/merges");
    let refused = case.app.post(&path, both.clone()).await.expect_problem(409, "refused");
    assert!(
        refused.json["detail"].as_str().unwrap().contains("2 identifiers of type user_id; its limit is 1")
    );
    let mut forced = both.clone();
    forced["override_limits"] = json!(true);
    let tried = case.post("/identity/merges?dry_run=true", forced.clone()).await;
    assert_eq!(case.id("user_id:u2").await, two);
    let done = case.post("/identity/merges", forced.clone()).await;
    assert_eq!(tried["transitions"], done["transitions"]);
    let keys: Vec<&str> =
        done["transitions"].as_array().unwrap().iter().map(|t| t["audience"].as_str().unwrap()).collect();
    assert_eq!(keys, ["buyers", "red", "rich"], "{done}");
    assert_eq!(
        (case.id("user_id:u2").await, case.traits("user_id:u2").await["spent"].clone()),
        (one.clone(), json!(110))
    );
    case.app.post(&path, forced).await.expect_problem(409, "refused");
    case.check().await;
    // By hand it comes apart as any other merge, and events may make it again.
    let merge = case.merge_of("user_id:u1").await;
    assert_eq!(case.identity("user_id:u1").await["merges"][0]["manual"], json!(true));
    case.undo(&merge).await;
    assert_eq!(case.id("user_id:u2").await, two);
    case.check().await;
    case.post("/identity/merges", json!({"profiles": ["user_id:u1", "anonymous_id:a1"]})).await;
    assert_eq!(case.id("anonymous_id:a1").await, one);
    for (body, field) in [
        (json!({"profiles": ["user_id:u1"]}), "profiles"),
        (json!({"profiles": ["user_id:u1", "u2"]}), "profiles[1]"),
    ] {
        let problem = case.app.post(&path, body).await.expect_problem(422, "invalid");
        assert_eq!(problem.json["field"], json!(field));
    }
    case.app
        .post(&path, json!({"profiles": ["user_id:u1", "user_id:no"]}))
        .await
        .expect_problem(404, "not_found");
    case.app
        .post(&format!("{SPACE}/identity/merges/mrg_1/undo"), json!({}))
        .await
        .expect_problem(404, "not_found");
    case.check().await;
}

#[tokio::test]
async fn profiles_that_are_kept_apart_stay_so_until_it_is_lifted() {
    let mut case = Case::start(Wish::default()).await;
    case.send_all(&[
        "track Seen user=u1",
        "track Seen anon=a1",
        "track Seen anon=a9",
        "track Seen anon=a1 anonymous_id=a9",
    ])
    .await;
    let pair = json!({"profiles": ["user_id:u1", "anonymous_id:a9"]});
    case.app
        .post(&format!("{SPACE}/identity/blocks/lift"), pair.clone())
        .await
        .expect_problem(409, "refused");
    case.post("/identity/blocks", pair.clone()).await;
    let [one, other] = [case.id("user_id:u1").await, case.id("anonymous_id:a1").await];
    case.send_all(&["track Seen user=u1 anon=a1", "track Seen user=u1 anon=a9 email=e@x.org"]).await;
    assert_eq!(case.id("anonymous_id:a9").await, other);
    assert_eq!(
        case.ids("user_id:u1").await,
        ["email=e@x.org", "user_id=u1"],
        "the rest of the event is taken"
    );
    assert_eq!(case.identity("anonymous_id:a1").await["kept_apart"][0]["profile_id"], json!(one));
    // Also through a third one: whoever becomes one with either of them is kept apart from the other.
    case.send_all(&["track Seen anon=t", "track Seen user=u1 anon=t", "track Seen anon=t anonymous_id=a1"])
        .await;
    assert_eq!(case.id("anonymous_id:a1").await, other);
    case.post("/identity/blocks/lift", pair).await;
    case.send("track Seen user=u1 anon=a1").await;
    assert_eq!(case.id("anonymous_id:a1").await, one);
    case.check().await;
}

#[tokio::test]
async fn identifiers_go_to_another_profile_within_its_limits() {
    let mut case = Case::start(Wish::default()).await;
    case.definitions().await;
    case.send_all(&[
        "track Order user=u1 anon=a1 email=e@x.org {\"total\":60}",
        "track Order user=u2 {\"total\":50}",
        "track Order anon=a7 {\"total\":1}",
    ])
    .await;
    let moved = |id_type: &str, id: &str, to: &str| json!({"type": id_type, "id": id, "to": to});
    let path = |from: &str| format!("{USERS}/{from}/external_ids/move");
    let refused = case.app.post(&path("user_id:u1"), moved("user_id", "u1", "user_id:u2")).await;
    assert_eq!(refused.expect(409).json["error"]["code"], json!("refused"));
    let last = case.app.post(&path("anonymous_id:a7"), moved("anonymous_id", "a7", "user_id:u2")).await;
    assert!(last.expect(409).json["error"]["message"].as_str().unwrap().contains("last identifier"));
    case.app.post(&path("user_id:u1"), moved("email", "none@x.org", "user_id:u2")).await.expect(404);
    let own = case.app.post(&path("user_id:u1"), moved("email", "e@x.org", "user_id:u1")).await;
    own.expect(409);
    let tried = case
        .app
        .post(&format!("{}?dry_run=true", path("user_id:u1")), moved("email", "E@X.org", "user_id:u2"))
        .await;
    assert_eq!(tried.expect(200).json["dry_run"], json!(true));
    let done =
        case.app.post(&path("user_id:u1"), moved("email", "E@X.org ", "user_id:u2")).await.expect(200).json;
    assert_eq!(done["identifiers"][0]["id"], json!("e@x.org"));
    assert_eq!(case.ids("user_id:u2").await, ["email=e@x.org", "user_id=u2"]);
    case.send("track Order anon=a8 email=e@x.org {\"total\":50}").await;
    assert_eq!(case.traits("user_id:u2").await["spent"], json!(100), "what comes with it now is the other's");
    assert_eq!(case.traits("user_id:u1").await["spent"], json!(60));
    // A merge that is taken back leaves what was moved where it is.
    case.send("track Seen user=u1 anon=a7").await;
    case.app.post(&path("user_id:u1"), moved("anonymous_id", "a1", "user_id:u2")).await.expect(200);
    let merge = case.merge_of("user_id:u1").await;
    case.undo(&merge).await;
    assert_eq!(
        case.ids("user_id:u2").await,
        ["anonymous_id=a1", "anonymous_id=a8", "email=e@x.org", "user_id=u2"]
    );
    assert_eq!(
        (case.ids("user_id:u1").await, case.ids("anonymous_id:a7").await),
        (vec!["user_id=u1".to_owned()], vec!["anonymous_id=a7".to_owned()])
    );
    case.check().await;
}

async fn account(case: &Case) -> Value {
    case.get(&format!("{ACCOUNTS}/group_id:g1/traits")).await["traits"].clone()
}

#[tokio::test]
async fn who_leaves_an_account_is_counted_there_no_more() {
    let mut case = Case::start(Wish::default()).await;
    case.definitions().await;
    case.send_all(&[
        "group user=u1 group=g1",
        "group user=u2 group=g1",
        "track Order user=u1 {\"total\":100}",
        "track Order user=u1 group=g1 {\"total\":11}",
        "track Order user=u2 {\"total\":5}",
    ])
    .await;
    assert_eq!(account(&case).await, json!({"account_spent": 116, "any_rich": true}));
    let path = format!("{USERS}/user_id:u1/links/delete");
    let tried =
        case.app.post(&format!("{path}?dry_run=true"), json!({"group_id": "g1"})).await.expect(200).json;
    assert_eq!(tried["transitions"].as_array().unwrap().len(), 1, "{tried}");
    assert_eq!(account(&case).await["account_spent"], json!(116));
    case.app.post(&path, json!({"group_id": "g1"})).await.expect(200);
    assert_eq!(account(&case).await, json!({"account_spent": 5, "any_rich": false}));
    assert_eq!(case.get(&format!("{USERS}/user_id:u1/links")).await["data"], json!([]));
    assert_eq!(case.get(&format!("{ACCOUNTS}/group_id:g1/links")).await["data"].as_array().unwrap().len(), 1);
    case.app.post(&path, json!({"group_id": "g1"})).await.expect(409);
    case.app.post(&path, json!({"group_id": "g9"})).await.expect(409);
    case.check().await;
    case.send("group user=u1 group=g1").await;
    assert_eq!(
        account(&case).await,
        json!({"account_spent": 116, "any_rich": true}),
        "and comes back with all it has"
    );
    case.check().await;
    // It is not in the way of an un-merge.
    case.send_all(&[
        "group anon=a1 group=g1",
        "track Order anon=a1 {\"total\":1000}",
        "track Seen user=u2 anon=a1",
    ])
    .await;
    case.app.post(&format!("{USERS}/user_id:u2/links/delete"), json!({"group_id": "g1"})).await.expect(200);
    let merge = case.merge_of("user_id:u2").await;
    case.undo(&merge).await;
    case.check().await;
}

#[tokio::test]
async fn what_was_done_is_in_the_audit_log() {
    let mut case = Case::start(Wish::default()).await;
    case.send_all(&["track Seen user=u1 anon=a1", "track Seen anon=a2"]).await;
    let delete = json!({"delete_external_ids": [{"type": "anonymous_id", "id": "a1"}]});
    let path = format!("{USERS}/user_id:u1/external_ids/delete");
    let tried = case.app.post(&format!("{path}?dry_run=true"), delete.clone()).await.expect(200).json;
    assert_eq!(tried["code"], json!("dry_run"));
    assert_eq!(tried["effect"]["identifiers"][0]["id"], json!("a1"));
    case.app.post(&path, delete).await.expect(200);
    case.post("/identity/merges", json!({"profiles": ["user_id:u1", "anonymous_id:a2"]})).await;
    let log = case.get(&format!("{SPACE}/audit-log?kind=act")).await;
    let actions: Vec<&str> =
        log["data"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["profiles.merge", "identifier.delete"]);
    let newest = &log["data"][0];
    assert_eq!((&newest["at"], &newest["actor"]["name"]), (&json!(NOW), &json!("owner")));
    assert_eq!(newest["act"]["ids"][1], json!({"type": "anonymous_id", "id": "a2"}));
    let one = case.get(&format!("{SPACE}/audit-log?action=identifier.delete&limit=1")).await;
    assert_eq!(one["data"][0]["effect"]["identifiers"][0]["id"], json!("a1"));
    let page = case.get(&format!("{SPACE}/audit-log?kind=act&limit=1")).await;
    let next = page["cursor"]["next"].as_str().unwrap().to_owned();
    assert_eq!(
        case.get(&format!("{SPACE}/audit-log?kind=act&limit=1&cursor={next}")).await["data"][0],
        log["data"][1]
    );
}

#[tokio::test]
async fn identifiers_say_when_they_were_seen_first_and_last() {
    let case = Case::start(Wish::default()).await;
    let call = |day: u32, ids: Value| {
        let mut call =
            json!({"type": "track", "event": "Seen", "timestamp": format!("2024-02-{day:02}T00:00:00.000Z")});
        call.as_object_mut().unwrap().extend(ids.as_object().unwrap().clone());
        call
    };
    let (user, both) = (json!({"userId": "u1"}), json!({"userId": "u1", "anonymousId": "a1"}));
    let late = json!({"anonymousId": "a1"});
    let send = async |calls: Vec<Value>| {
        case.app.track("/v1/batch", json!({"batch": calls})).await.expect(200).offset()
    };
    let seen = async |offset: u64| {
        let path = format!("{USERS}/user_id:u1/identity?min_offset={offset}");
        let told = case.app.get(&path).await.expect(200).json["identifiers"].clone();
        let day = |id: &Value, name: &str| id[name].as_str().map(|at| at[8..10].to_owned());
        let of = |id: &Value| {
            (id["type"].as_str().unwrap().to_owned(), day(id, "created_at"), day(id, "last_seen_at"))
        };
        told.as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    let day = |day: &str| Some(day.to_owned());
    let offset = send(vec![call(3, both), call(7, user.clone()), call(1, late)]).await;
    let known = seen(offset).await;
    assert_eq!(known[0], ("user_id".to_owned(), day("03"), day("07")));
    assert_eq!(
        known[1],
        ("anonymous_id".to_owned(), day("03"), day("03")),
        "a late event is not the last one"
    );
    let offset = send((0..200).map(|_| call(8, user.clone())).collect()).await;
    let known = seen(offset).await;
    assert_eq!(known[0].2, day("08"));
    assert_eq!(known[1].2, None, "not among the newest 200 events");
}

#[tokio::test]
async fn a_dry_run_waits_for_nobody_and_lets_nobody_wait() {
    let mut case = Case::start(Wish::default()).await;
    case.definitions().await;
    case.send_all(&["track Order user=u1 {\"total\":60}", "track Order anon=a1 {\"total\":50}"]).await;
    // A version the processor is about to begin, and begins only when it looks at its definitions again.
    let mut other = case.app.db.pool.begin().await.unwrap();
    let sql =
        "INSERT INTO computation (space_id, computation_no, definition_no, version, query, include_anonymous,
                   include_history, status, changed_at, created_at)
               SELECT space_id, computation_no + 100, definition_no, version + 1, query, include_anonymous,
                   include_history, 'pending', changed_at, created_at FROM computation LIMIT 1";
    sqlx::query(sql).execute(&mut *other).await.unwrap();
    other.commit().await.unwrap();
    let mut other = case.app.db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM computation FOR UPDATE").execute(&mut *other).await.unwrap();
    let both = json!({"profiles": ["user_id:u1", "anonymous_id:a1"]});
    let tried = case.post("/identity/merges?dry_run=true", both).await;
    assert!(!tried["transitions"].as_array().unwrap().is_empty(), "{tried}");
    other.rollback().await.unwrap();
}
