//! Regulations: who is suppressed is not heard of, and of who is erased nothing is left (privacy duties P1, P3, P4, P5).

use std::fmt::Write;
use std::path::Path;

use personas::store::data_map::DATA_MAP;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::acts::{Case, SPACE, USERS};
use crate::harness::app::{TOKEN, Wish, send};
use crate::harness::cluster::TestDb;
use crate::harness::destinations::sending;
use crate::harness::generated::check;
use crate::harness::rebuild::{json_of, run};
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::regulations::{REGULATIONS, traces};

const NOW: &str = "2024-03-01T12:00:00Z";

/// A service with one of everything that keeps something of people.
async fn start(receiver: &Receiver) -> (Case, Value) {
    let case = Case::start(sending().option("log.segment_events", "100")).await;
    let app = &case.app;
    app.post(&format!("{SPACE}/consent/categories"), json!({"id": "Ads"})).await.expect(201);
    app.make_live("audiences", "buyers", "event('Order').count() >= 1").await;
    app.make_live("audiences", "fresh", "event('Order').within(90 days).count() >= 1").await;
    app.make_live("computed-traits", "city", "event('Order').last(property('city'))").await;
    let of_accounts =
        json!({"key": "big", "definition": {"type": "accounts", "query": "event('Order').count() >= 3"}});
    app.make_live_from("audiences", "big", of_accounts).await;
    app.make_live_from("audiences", "vip", json!({"key": "vip", "definition": {"list": true}})).await;
    app.patch(&format!("{SPACE}/search/settings"), json!({"traits": ["phone"]})).await.expect(200);
    let hook = app.make_webhook("CRM", receiver, json!({})).await;
    for (subject, key) in [("audience", Some("*")), ("computed_trait", Some("city")), ("custom_traits", None)]
    {
        let body =
            key.map_or_else(|| json!({"subject": subject}), |key| json!({"subject": subject, "key": key}));
        app.subscribe(&hook, body).await;
    }
    (case, hook)
}

/// What one person does: everything there is.
async fn live(case: &Case, who: &str, account: &str) {
    let email = format!("{who}@people.example");
    let calls = [
        ("track", json!({"event": "Seen", "anonymousId": format!("anon-{who}")})),
        (
            "identify",
            json!({"userId": who, "anonymousId": format!("anon-{who}"),
                "traits": {"email": email, "phone": format!("+47 {who}"), "note": format!("about {who}")},
                "context": {"ip": "10.1.2.3", "userAgent": format!("agent of {who}")}}),
        ),
        (
            "track",
            json!({"event": "Order", "userId": who, "properties": {"city": format!("city of {who}"), "total": 1},
                "context": {"consent": {"categoryPreferences": {"Ads": true}}}}),
        ),
        (
            "track",
            json!({"event": "Order", "userId": who, "context": {"groupId": account}, "properties": {"total": 2}}),
        ),
        (
            "group",
            json!({"userId": who, "groupId": account, "traits": {"plan": "pro"}, "context": {"ip": who}}),
        ),
        (
            "track",
            json!({"event": "Order", "userId": who, "messageId": format!("twice-{who}"), "properties": {}}),
        ),
        (
            "track",
            json!({"event": "Order", "userId": who, "messageId": format!("twice-{who}"), "properties": {}}),
        ),
        ("track", json!({"event": "Quiet", "userId": who, "integrations": {"Personas": false}})),
        // Refused: another person's address, and an event that cannot be.
        ("identify", json!({"userId": format!("{who}-other"), "traits": {"email": email}})),
        ("alias", json!({"userId": who, "previousId": format!("anon-{who}")})),
    ];
    for (kind, call) in calls {
        case.app.track(&format!("/v1/{kind}"), call).await.expect(200);
    }
    case.app.track("/v1/track", json!({"userId": who, "properties": {"about": who}})).await.expect(400);
}

/// What operators have to do with them: a list, a block, a merge that is taken back, objections, an export; and a destination that
/// refuses one and holds another back.
async fn operated(case: &mut Case, receiver: &Receiver, hook: &Value) {
    let request =
        case.app.request(Method::POST, &format!("{SPACE}/audiences/vip/members")).bearer_auth(TOKEN);
    send(request.header("content-type", "text/csv").body("user_id\ncanary-0\nstays-0\n")).await.expect(200);
    case.post("/identity/blocks", json!({"profiles": ["user_id:canary-1", "user_id:stays-1"]})).await;
    let pair = json!({"profiles": ["user_id:canary-5", "user_id:canary-6"], "override_limits": true});
    case.post("/identity/merges", pair).await;
    let merge = case.merge_of("user_id:canary-6").await;
    case.undo(&merge).await;
    for selector in ["user_id:canary-4", "email:canary-7@people.example"] {
        case.app.post(&format!("{USERS}/{selector}/objections"), json!({})).await.expect(200);
    }
    case.app.get(&format!("{USERS}/user_id:canary-8/export")).await.expect(200);
    receiver.now(|_, _| Reply::Status(400));
    case.send("identify user=canary-2 {\"phone\":\"+48 canary\"}").await;
    case.app.wait_destination(hook, |d| d["deliveries"]["dead"] != 0).await;
    receiver.now(|_, _| Reply::Status(500));
    case.send("identify user=canary-3 {\"phone\":\"+49 canary\"}").await;
    case.app.wait_destination(hook, |d| d["deliveries"]["waiting_profiles"] != 0).await;
}

/// A dump of the database, and an export of the space: how often a word stands in them.
async fn copies(case: &Case, word: &str) -> (usize, usize) {
    // It comes with the server, and may stand beside links to it.
    let binaries = personas::embedded::Search::usual(None).all();
    let program = binaries.iter().map(|binaries| binaries.program("pg_dump")).find(|path| path.is_file());
    let mut dump = tokio::process::Command::new(program.expect("pg_dump is beside postgres"));
    let dump = dump.arg(case.app.db.url()).output().await.unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let dump = String::from_utf8(dump.stdout).unwrap().to_lowercase();
    let in_hex = hex::encode(word);
    let export = case.app.get(&format!("{SPACE}/export")).await.expect(200).text.to_lowercase();
    assert!(dump.contains("copy ") && export.contains("stays-1"), "they are copies of something else");
    (dump.matches(word).count() + dump.matches(&in_hex).count(), export.matches(word).count())
}

async fn settled(case: &mut Case) {
    case.send("track Settled user=bystander").await;
    case.get(&format!("{SPACE}/pipeline")).await;
}

#[tokio::test]
async fn p1_of_people_who_are_erased_nothing_is_left() {
    let receiver = Receiver::start().await;
    let (mut case, hook) = start(&receiver).await;
    let people: Vec<String> = (0..50).map(|n| format!("canary-{n}")).collect();
    for who in &people {
        live(&case, who, "acme").await;
    }
    for n in 0..3 {
        live(&case, &format!("stays-{n}"), "acme").await;
    }
    settled(&mut case).await;
    operated(&mut case, &receiver, &hook).await;
    let segments = "SELECT count(*) FROM log_column";
    while sqlx::query_scalar::<_, i64>(segments).fetch_one(&case.app.db.pool).await.unwrap() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let before = traces(&case.app.db.pool, "canary").await;
    for table in [
        "audit_entry.act",
        "delivery.value",
        "delivery_exchange.request",
        "delivery_outcome.value",
        "event_chunk.body",
        "external_id.value",
        "identity_refusal.value",
        "log_column.body",
        "profile.state",
        "rejected_event.event",
    ] {
        assert!(before.contains_key(table), "nothing is in {table}: {before:?}");
    }
    let (dumped, exported) = copies(&case, "canary").await;
    assert!(dumped > 100 && exported > 100, "{dumped} {exported}");
    let stays = case.told("users", "user_id:stays-1").await;
    let account = case.get(&format!("{SPACE}/collections/accounts/profiles/group_id:acme/traits")).await;
    let others: Vec<String> = people.iter().map(|who| format!("{who}-other")).collect();
    let all: Vec<&str> = people.iter().chain(&others).map(String::as_str).collect();
    let made = case.app.regulate("DELETE_INTERNAL", "USER_ID", &all).await;
    let done = case.app.wait_regulation(&made, |seen| seen["finished_at"].is_string()).await;
    assert_eq!((&done["overall_status"], &done["found"]), (&json!("FINISHED"), &json!(100)), "{done}");
    assert!(done["events_erased"].as_i64().unwrap() >= 50 * 7, "{done}");
    case.offset = made["offset"].as_u64().unwrap();
    // What was under way ends, and leaves nothing either.
    receiver.now(|_, _| Reply::Status(200));
    case.app.wait_sent(&hook).await;
    assert_eq!(traces(&case.app.db.pool, "canary").await, [].into());
    assert_eq!(copies(&case, "canary").await, (0, 0));
    let metrics = case.app.get("/metrics").await;
    assert!(!metrics.text.contains("canary"), "{}", metrics.text);
    // Everybody else is as they were, and everything adds up.
    assert_eq!(case.told("users", "user_id:stays-1").await, stays);
    let now = case.get(&format!("{SPACE}/collections/accounts/profiles/group_id:acme/traits")).await;
    assert_eq!(now["traits"]["plan"], account["traits"]["plan"]);
    for who in &all {
        case.app.get(&format!("{SPACE}/collections/users/profiles/user_id:{who}/traits")).await.expect(404);
    }
    assert_eq!(case.sizes().await, json!({"big": 1, "buyers": 3, "fresh": 3, "vip": 1}));
    case.check().await;
    let report = json_of(&run(&case.app.db, &["--json", "--dry-run"]).await);
    for kind in ["identifiers", "traits", "computed_traits", "memberships", "links"] {
        assert_eq!(report["different"][kind]["count"], 0, "{kind}: {report}");
    }
    assert_eq!(
        (&report["only_live"]["count"], &report["only_rebuilt"]["count"]),
        (&json!(0), &json!(0)),
        "{report}"
    );
    json_of(&run(&case.app.db, &["--json"]).await);
    assert_eq!(traces(&case.app.db.pool, "canary").await, [].into());
    case.check().await;
}

#[tokio::test]
async fn p3_who_is_suppressed_is_not_heard_of_and_others_on_the_device_are() {
    let mut case = Case::start(Wish::default()).await;
    let beside = case.app.beside().await;
    case.send_all(&["identify user=u1 anon=d1 email=u1@x.y", "track Order user=u1"]).await;
    let before = case.told("users", "user_id:u1").await;
    let done = case.app.regulate("SUPPRESS_ONLY", "user_id", &["u1"]).await;
    assert_eq!((&done["overall_status"], done.get("offset")), (&json!("FINISHED"), None), "{done}");
    for selector in ["user_id:u1", "email:u1@x.y", "email: U1@X.Y", "anonymous_id:d1"] {
        case.app.get(&format!("{SPACE}/suppressions/{selector}")).await.expect(200);
    }
    case.app.get(&format!("{SPACE}/suppressions/user_id:u2")).await.expect(404);
    let list = case.app.get(&format!("{SPACE}/suppressions")).await.expect(200).json;
    assert_eq!(list["data"].as_array().unwrap().len(), 3, "{list}");
    assert!(!list.to_string().contains("u1"), "{list}");
    let batch = json!({"batch": [
        {"type": "track", "event": "Order", "userId": "u1"},
        {"type": "identify", "userId": "u1", "traits": {"plan": "new"}},
        {"type": "track", "event": "Order", "anonymousId": "d1"},
        {"type": "track", "event": "Order", "context": {"traits": {"email": "u1@x.y"}}, "anonymousId": "d1"},
    ]});
    // Whoever sends them is not told.
    let answer = case.app.track("/v1/batch", batch.clone()).await.expect(200);
    assert_eq!(
        (&answer.json["success"], answer.json.get("rejected")),
        (&json!(true), None),
        "{}",
        answer.text
    );
    // Nor can it be told by the offsets.
    let after =
        case.app.track("/v1/track", json!({"userId": "u9", "event": "Seen"})).await.expect(200).offset();
    assert_eq!(after, answer.offset() + 1);
    case.offset = after;
    let listed = case.app.get(&format!("{SPACE}/rejected-events?code=suppressed")).await.expect(200);
    assert!(listed.json["data"].as_array().unwrap().len() >= 4, "{}", listed.text);
    assert!(!listed.text.contains("u1"), "{}", listed.text);
    // All processes know within a second or so.
    let events = async |case: &Case| {
        let path = format!("{SPACE}/collections/users/profiles/user_id:u1/events?limit=200");
        case.get(&path).await["data"].as_array().unwrap().len()
    };
    let mut taken = true;
    for _ in 0..100 {
        let before = events(&case).await;
        let late = json!({"event": "Late", "userId": "u1"});
        case.offset = beside.track("/v1/track", late).await.expect(200).offset();
        taken = events(&case).await != before;
        if !taken {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(!taken, "the other process takes events of u1 still");
    // Somebody else on the device, and then the device for itself.
    case.send_all(&["track Order user=u2 anon=d1"]).await;
    assert_eq!(
        case.get(&format!("{SPACE}/collections/users/profiles/user_id:u2/events")).await["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(case.told("users", "user_id:u1").await["traits"], before["traits"]);
    case.app.put("/v1/test-clock", json!({"now": "2024-04-01T12:00:01Z"})).await.expect(200);
    case.app.get(&format!("{SPACE}/suppressions/anonymous_id:d1")).await.expect(404);
    case.app.get(&format!("{SPACE}/suppressions/email:u1@x.y")).await.expect(200);
    let before = case.get(&format!("{SPACE}/collections/users/profiles/anonymous_id:d1/events")).await;
    case.send_all(&["track Order anon=d1"]).await;
    assert_ne!(case.get(&format!("{SPACE}/collections/users/profiles/anonymous_id:d1/events")).await, before);
    // By any of them all are heard of again.
    case.app.regulate("UNSUPPRESS", "email", &["u1@x.y"]).await;
    case.app.get(&format!("{SPACE}/suppressions/user_id:u1")).await.expect(404);
    case.send_all(&["identify user=u1 {\"plan\":\"again\"}"]).await;
    assert_eq!(case.traits("user_id:u1").await["plan"], "again");
}

#[tokio::test]
async fn p4_who_is_erased_does_not_come_back() {
    let mut case = Case::start(Wish::default()).await;
    case.app.make_live("audiences", "buyers", "event('Order').count() >= 1").await;
    let history = [
        json!({"type": "identify", "userId": "u1", "traits": {"email": "u1@canary.example"}, "timestamp": "2024-02-01T00:00:00Z", "messageId": "h1"}),
        json!({"type": "track", "event": "Order", "userId": "u1", "timestamp": "2024-02-02T00:00:00Z", "messageId": "h2"}),
    ];
    let send =
        async |case: &Case| case.app.track("/v1/batch", json!({"batch": history})).await.expect(200).offset();
    case.offset = send(&case).await;
    let old = case.id("user_id:u1").await;
    let made = case.app.regulated("DELETE_ONLY", "EMAIL", &[" U1@Canary.Example"]).await;
    assert_eq!((&made["found"], &made["events_erased"]), (&json!(1), &json!(2)), "{made}");
    // Once more, under new message ids, too.
    send(&case).await;
    let again: Vec<Value> = history
        .iter()
        .map(|call| {
            let mut call = call.clone();
            call["messageId"] = json!(format!("again-{}", call["messageId"].as_str().unwrap()));
            call
        })
        .collect();
    case.app.track("/v1/batch", json!({"batch": again})).await.expect(200);
    assert_eq!(traces(&case.app.db.pool, "canary").await, [].into());
    json_of(&run(&case.app.db, &["--json"]).await);
    for selector in ["user_id:u1", "email:u1@canary.example", &format!("profile_id:{old}")] {
        case.app.get(&format!("{SPACE}/collections/users/profiles/{selector}/traits")).await.expect(404);
    }
    // Who comes of their own accord is somebody new.
    case.app.put("/v1/test-clock", json!({"now": "2024-03-01T12:00:01Z"})).await.expect(200);
    case.send_all(&["track Order user=u1"]).await;
    assert_ne!(case.id("user_id:u1").await, old);
    assert_eq!(case.sizes().await, json!({"buyers": 1}));
    case.check().await;
    json_of(&run(&case.app.db, &["--json"]).await);
    assert_eq!(case.sizes().await, json!({"buyers": 1}));
}

#[tokio::test]
async fn p5_every_destination_is_told_once_and_says_what_it_made_of_it() {
    let (crm, refusing) = (Receiver::start().await, Receiver::start_with(|_, _| Reply::Status(422)).await);
    let mut case = Case::start(sending()).await;
    case.app.make_live("audiences", "buyers", "event('Order').count() >= 1").await;
    let hook = case.app.make_webhook("CRM", &crm, json!({})).await;
    case.app.subscribe(&hook, json!({"subject": "audience", "key": "buyers"})).await;
    // Nothing was ever sent to these: they are told all the same.
    let paused = case.app.make_webhook("Paused", &crm, json!({})).await;
    case.app.act(&paused, "pause", json!({})).await;
    let refuses = case.app.make_webhook("Refusing", &refusing, json!({})).await;
    let settings = json!({"write_key": "k", "url": crm.url});
    let segment = json!({"name": "Segment", "kind": "segment", "settings": settings});
    case.app.post("/v1/spaces/default/destinations", segment).await.expect(201);
    case.send_all(&[
        "identify user=u1 email=u1@canary.example anon=a1",
        "track Order user=u1",
        "track Order user=u2",
    ])
    .await;
    crm.wait_taken(2).await;
    crm.now(|_, _| Reply::Status(503));
    let made = case.app.regulate("SUPPRESS_WITH_DELETE", "USER_ID", &["u1", "nobody"]).await;
    let waits = |seen: &Value| {
        seen["stream_status"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|s| s["finished_at"].is_null() && s["id"] != "personas")
            .count()
            == 1
    };
    // It is tried again until it is taken.
    case.app.wait_destination(&hook, |d| d["deliveries"]["waiting_profiles"] == 1).await;
    crm.now(|_, _| Reply::Status(200));
    case.app.put("/v1/test-clock", json!({"now": "2024-03-01T13:00:00Z"})).await.expect(200);
    case.app.wait_sent(&hook).await;
    let seen = case.app.wait_regulation(&made, waits).await;
    assert_eq!(seen["overall_status"], "RUNNING", "{seen}");
    case.app.act(&paused, "resume", json!({})).await;
    let done = case.app.wait_regulation(&made, |seen| seen["finished_at"].is_string()).await;
    let status = |name: &str| {
        let all = done["stream_status"].as_array().unwrap();
        all.iter().find(|s| s["name"] == name).unwrap()["status"].clone()
    };
    assert_eq!(
        [status("Personas"), status("CRM"), status("Paused"), status("Refusing"), status("Segment")],
        ["FINISHED", "FINISHED", "FINISHED", "FAILED", "NOT_SUPPORTED"].map(|word| json!(word)),
        "{done}"
    );
    assert_eq!((&done["overall_status"], &done["found"]), (&json!("PARTIAL_SUCCESS"), &json!(1)), "{done}");
    let deletions: Vec<Value> = crm.taken().into_iter().filter(|event| event["type"] == "delete").collect();
    assert_eq!(deletions.len(), 2, "one for each: {deletions:?}");
    for told in &deletions {
        assert_eq!(
            (&told["userId"], &told["context"]["traits"]["email"]),
            (&json!("u1"), &json!("u1@canary.example")),
            "{told}"
        );
    }
    // What was refused can be sent again; it is the only trace.
    let left = traces(&case.app.db.pool, "canary").await;
    assert_eq!(left, [("delivery_outcome.value".to_owned(), 1)].into());
    refusing.now(|_, _| Reply::Status(200));
    let dead = json!({"destination": refuses["id"], "state": "dead"});
    case.app.post(&format!("{SPACE}/deliveries/replay"), dead).await.expect(200);
    case.app.wait_regulation(&made, |seen| seen["stream_status"][3]["status"] == "FINISHED").await;
    assert_eq!(traces(&case.app.db.pool, "canary").await, [].into());
}

#[tokio::test]
async fn a_regulation_is_gone_on_with_after_a_restart() {
    let mut case = Case::start(Wish::default()).await;
    case.send_all(&["identify user=u1 email=u1@canary.example"]).await;
    // As if it had ended before the act came into the log.
    let made = case.app.regulate("SUPPRESS_ONLY", "USER_ID", &["u1"]).await;
    sqlx::query(
        "UPDATE regulation SET type = 'SUPPRESS_WITH_DELETE_INTERNAL', finished_at = NULL, created_at = created_at - interval '1 hour'",
    )
    .execute(&case.app.db.pool)
    .await
    .unwrap();
    let key = "UPDATE regulation_subject SET state = 0, id_key = (SELECT id_key FROM external_id WHERE value = 'u1')";
    sqlx::query(key).execute(&case.app.db.pool).await.unwrap();
    case.app.wait_regulation(&made, |seen| seen["finished_at"].is_string()).await;
    assert_eq!(traces(&case.app.db.pool, "canary").await, [].into());
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_place() {
    let app = Wish::default().at(NOW).start().await;
    let good = json!({"regulation_type": "DELETE_ONLY", "subject_ids": ["u1"]});
    for (change, field) in [
        (json!({"regulation_type": "DELETE_ARCHIVE_ONLY"}), "regulation_type"),
        (json!({"subject_type": "shoe_size"}), "subject_type"),
        (json!({"subject_ids": []}), "subject_ids"),
        (json!({"subject_ids": vec!["u"; 5_001]}), "subject_ids"),
        (json!({"subject_ids": ["u1", "  "]}), "subject_ids[1]"),
        (json!({"subject_type": "profile_id", "subject_ids": ["prf_1"]}), "subject_ids[0]"),
        (
            json!({"subject_type": "profile_id", "subject_ids": ["prf_018df9e2b20078a4b7e3dc06a0a10e7f"]}),
            "subject_ids[0]",
        ),
        (json!({"device_days": -1}), "device_days"),
    ] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let refused = app.post(REGULATIONS, body).await.expect_problem(422, "invalid");
        assert_eq!(refused.json["field"], field, "{change}");
    }
    app.get(&format!("{REGULATIONS}/reg_018df9e2b20078a4b7e3dc06a0a10e7f"))
        .await
        .expect_problem(404, "not_found");
    app.get(&format!("{REGULATIONS}?regulation_type=NO")).await.expect_problem(422, "invalid");
    app.get(&format!("{SPACE}/suppressions/nothing")).await.expect_problem(422, "invalid");
    for _ in 0..3 {
        app.post(REGULATIONS, good.clone()).await.expect(201);
    }
    let page = app.get(&format!("{REGULATIONS}?limit=2&regulation_type=DELETE_ONLY")).await.expect(200).json;
    assert_eq!((page["data"].as_array().unwrap().len(), &page["cursor"]["has_more"]), (2, &json!(true)));
}

#[tokio::test]
async fn p15_the_data_map_names_every_table() {
    let db = TestDb::new().await;
    let sql = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
               AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> '_sqlx_migrations' ORDER BY 1";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&db.pool).await.unwrap();
    let known: Vec<&str> = DATA_MAP.iter().map(|entry| entry.table).collect();
    assert_eq!(tables, known, "say in store::data_map what a new table holds of people, and erase it");
}

#[test]
fn the_data_map_is_up_to_date() {
    let mut page = String::from(
        "# Data map\n\n<!-- made from src/store/data_map.rs by `make generate` -->\n\n\
         What the database holds, for how long, and what becomes of it when somebody is erased (`docs/privacy.md`).\n\n\
         | Table | Holds | Kept | When somebody is erased |\n|---|---|---|---|\n",
    );
    for entry in DATA_MAP {
        writeln!(page, "| `{}` | {} | {} | {} |", entry.table, entry.holds, entry.kept, entry.erased.word())
            .unwrap();
    }
    check(Path::new("docs/data-map.md"), &page);
}
