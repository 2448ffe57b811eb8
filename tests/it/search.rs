//! Lists of profiles through HTTP: by when they were seen, by the start of an identifier, by the value of a trait; and what
//! a page of them costs.

use std::collections::{BTreeMap, BTreeSet};

use personas::domain::{Collection, ProfileNo, SpaceNo, Timestamp};
use personas::store::{people, search};
use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};

const USERS: &str = "/v1/spaces/default/collections/users/profiles";
const ACCOUNTS: &str = "/v1/spaces/default/collections/accounts/profiles";
const SETTINGS: &str = "/v1/spaces/default/search/settings";
const SPACE: SpaceNo = SpaceNo(1);

async fn app() -> TestApp {
    Wish::default().at("2024-03-01T12:00:00Z").start().await
}

async fn at(app: &TestApp, time: &str) {
    app.put("/v1/test-clock", json!({"now": format!("2024-03-01T{time}Z")})).await.expect(200);
}

async fn send(app: &TestApp, calls: Vec<Value>) -> u64 {
    let mut offset = 0;
    for part in calls.chunks(2_000) {
        offset = app.track("/v1/batch", json!({"batch": part})).await.expect(200).offset();
    }
    offset
}

fn identify(user: &str, traits: &Value) -> Value {
    json!({"type": "identify", "userId": user, "traits": traits})
}

/// The first identifiers of the profiles of a page, and the cursor.
fn names(page: &Value) -> Vec<String> {
    let first = |p: &Value| p["external_ids"][0]["id"].as_str().unwrap().to_owned();
    page["data"].as_array().unwrap().iter().map(first).collect()
}

/// All pages of a list.
async fn walk(app: &TestApp, path: &str, limit: usize) -> Vec<String> {
    let (mut all, mut next) = (Vec::new(), String::new());
    let sign = if path.contains('?') { '&' } else { '?' };
    loop {
        let page = app.get(&format!("{path}{sign}limit={limit}&next={next}")).await.expect(200).json;
        let names = names(&page);
        assert!(names.len() <= limit);
        all.extend(names);
        if page["cursor"]["has_more"] == false {
            return all;
        }
        next = page["cursor"]["next"].as_str().unwrap().to_owned();
    }
}

/// Rows of a table that the transaction has read: by going through the table, and by an index.
async fn read(tx: &mut sqlx::PgConnection, table: &str) -> (i64, i64) {
    let sql = "SELECT coalesce(sum(seq_tup_read), 0)::bigint, coalesce(sum(idx_tup_fetch), 0)::bigint
         FROM pg_stat_xact_user_tables WHERE relname = $1";
    sqlx::query_as(sql).bind(table).fetch_one(tx).await.unwrap()
}

/// [`read`] since `before`: a session counts on from what it has not reported yet, of earlier
/// transactions, too.
async fn read_since(tx: &mut sqlx::PgConnection, table: &str, before: (i64, i64)) -> (i64, i64) {
    let now = read(tx, table).await;
    (now.0 - before.0, now.1 - before.1)
}

#[tokio::test]
async fn the_most_recently_seen_come_first_to_the_millisecond() {
    let app = app().await;
    for (time, user) in [
        ("12:00:00.000", "a"),
        ("12:00:00.001", "b"),
        ("12:09:59.999", "c"),
        ("12:10:00.000", "d"),
        ("12:10:00.500", "a"),
        ("14:00:00.000", "e"),
        ("14:00:00.001", "c"),
    ] {
        at(&app, time).await;
        app.track("/v1/track", json!({"userId": user, "event": "Seen"})).await.expect(200);
    }
    let offset = app.track("/v1/group", json!({"userId": "e", "groupId": "g"})).await.expect(200).offset();
    app.get(&format!("{USERS}?min_offset={offset}")).await.expect(200);
    for limit in [1, 2, 3, 10] {
        assert_eq!(walk(&app, USERS, limit).await, ["e", "c", "a", "d", "b"], "{limit}");
    }
    assert_eq!(walk(&app, ACCOUNTS, 1).await, ["g"]);
    // Whoever is absorbed is not listed, and the survivor was seen when either was.
    let merged = json!({"userId": "b", "anonymousId": "x", "event": "Seen"});
    at(&app, "14:00:00.002").await;
    app.track("/v1/track", json!({"anonymousId": "x", "event": "Seen"})).await.expect(200);
    let offset = app.track("/v1/track", merged).await.expect(200).offset();
    app.get(&format!("{USERS}?min_offset={offset}")).await.expect(200);
    assert_eq!(walk(&app, USERS, 2).await[0], "b");
    assert_eq!(walk(&app, USERS, 2).await.len(), 5);
}

#[tokio::test]
async fn twenty_thousand_profiles_are_listed_page_by_page_and_no_page_goes_through_them() {
    let app = app().await;
    let mut offset = 0;
    for hour in 0..10 {
        at(&app, &format!("{:02}:00:00", 12 + hour)).await;
        let user = |n: usize| format!("u{:05}", hour * 2_000 + n);
        let traits = |n: usize| json!({"email": format!("m{n}.{hour}@x.y"), "plan": if n.is_multiple_of(2) { "free" } else { "pro" }, "phone": user(n)});
        offset = send(&app, (0..2_000).map(|n| identify(&user(n), &traits(n))).collect()).await;
    }
    // A crowd in the last slot: more than are put in order by when they were seen.
    at(&app, "22:00:00").await;
    offset =
        offset.max(send(&app, (0..6_000).map(|n| identify(&format!("v{n:05}"), &json!({}))).collect()).await);
    app.get(&format!("{USERS}?min_offset={offset}&limit=1")).await.expect(200);
    let all = walk(&app, USERS, 1_000).await;
    assert_eq!(all.len(), 26_000);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 26_000);
    let mut expected: Vec<String> = (0..6_000).rev().map(|n| format!("v{n:05}")).collect();
    expected.extend((0..20_000).rev().map(|n| format!("u{n:05}")));
    assert!(all == expected, "the youngest of each hour first");
    assert_eq!(walk(&app, &format!("{USERS}?query=u0"), 700).await.len(), 10_000);
    assert_eq!(walk(&app, &format!("{USERS}?trait=plan&value=PRO"), 900).await.len(), 10_000);
    for analysed in [false, true] {
        pages_are_cheap(&app, analysed).await;
        sqlx::query("ANALYZE profile, external_id, search_entry").execute(&app.db.pool).await.unwrap();
    }
}

/// The tables that pages of profiles are read from.
const READ: [&str; 3] = ["profile", "external_id", "search_entry"];

/// What pages of 100 read of the tables, before and after Postgres knows how large they are.
async fn pages_are_cheap(app: &TestApp, analysed: bool) {
    let mut tx = people::begin(&personas::store::walled(&app.db.pool, SPACE)).await.unwrap();
    let mut before = Vec::new();
    for table in READ {
        before.push(read(&mut tx, table).await);
    }
    let users = Collection::Users;
    let slot = people::slot_of(Timestamp::parse("2024-03-01T22:00:00Z").unwrap());
    assert_eq!(people::find_slot(&mut tx, SPACE, users, i32::MAX, 101).await.unwrap(), Some(slot));
    assert!(people::is_crowded(&mut tx, SPACE, users, slot, 500).await.unwrap());
    let crowd = people::list_of_slot(&mut tx, SPACE, users, slot, ProfileNo(25_000), 101).await.unwrap();
    let seen = people::list_seen(&mut tx, SPACE, users, (slot - 6, slot - 1), None, 101).await.unwrap();
    assert_eq!((crowd.len(), seen.len()), (101, 101));
    let (scanned, fetched) = read_since(&mut tx, READ[0], before[0]).await;
    assert!(scanned == 0 && fetched < 3_000, "{scanned} {fetched} {analysed}");
    let range =
        people::Range { type_no: 1, prefix: "u1".into(), after: ("u12345".into(), 5), before: "u2".into() };
    let found = people::list_by_start(&mut tx, SPACE, &[range], 101).await.unwrap();
    assert_eq!((found.len(), found[0].start.as_str()), (101, "u12345"));
    let key = sqlx::query_as(
        "SELECT trait_no, value_hash FROM search_entry GROUP BY 1, 2 HAVING count(*) = 10000 LIMIT 1",
    )
    .fetch_one(&app.db.pool);
    let key: (i16, i64) = key.await.unwrap();
    let found = search::list_candidates(&mut *tx, SPACE, key, ProfileNo(9_000), 101).await.unwrap();
    assert_eq!(found.len(), 101);
    let mut read = Vec::new();
    for (table, before) in READ.into_iter().zip(before) {
        read.push(read_since(&mut tx, table, before).await);
    }
    assert!(read.iter().all(|(scanned, fetched)| *scanned == 0 && *fetched < 4_000), "{read:?} {analysed}");
}

#[tokio::test]
async fn a_prefix_finds_each_profile_once_whatever_it_has_and_absorbed() {
    let app = app().await;
    let mut calls = Vec::new();
    for n in 0..40 {
        // Anonymous first, so that the user absorbs or is absorbed, and with several identifiers that begin alike.
        calls.push(json!({"type": "track", "anonymousId": format!("ann-{n}"), "event": "E"}));
        calls.push(identify(&format!("ann{n}"), &json!({"email": format!("Ann{n}@x.y")})));
        if n % 2 == 0 {
            let merge = json!({"type": "track", "userId": format!("ann{n}"), "anonymousId": format!("ann-{n}"), "event": "E"});
            calls.push(merge);
        }
        calls.push(json!({"type": "group", "userId": "zoe", "groupId": format!("ann{n}")}));
    }
    let long = "ann".to_owned() + &"x".repeat(300);
    calls.push(identify(&format!("{long}1"), &json!({})));
    calls.push(identify(&format!("{long}2"), &json!({})));
    calls.push(identify("An", &json!({})));
    calls.push(identify("z%_\\'", &json!({})));
    let offset = send(&app, calls).await;
    app.get(&format!("{USERS}?min_offset={offset}")).await.expect(200);
    let ids = |query: &str, limit| {
        let path = format!("{USERS}?query={query}");
        let app = &app;
        async move {
            let all = walk(app, &path, limit).await;
            let once: BTreeSet<String> = all.iter().cloned().collect();
            assert_eq!(once.len(), all.len(), "{path} {limit}");
            once
        }
    };
    let whole = ids("ann", 1_000).await;
    // 40 users, of whom 20 are one with the visitor, 20 other visitors, and the two with long ids.
    assert_eq!(whole.len(), 62);
    for limit in [1, 7] {
        assert_eq!(ids("ann", limit).await, whole, "{limit}");
    }
    assert_eq!(ids("ann1", 4).await.len(), 11);
    assert_eq!(ids("ANN", 4).await.len(), 62, "as written, and in small letters");
    assert_eq!(ids("aNN1@", 4).await.len(), 1);
    assert_eq!(ids("An", 4).await.len(), 63);
    assert_eq!(ids(&long, 1).await.len(), 2);
    assert_eq!(ids(&format!("{long}2"), 1).await.len(), 1);
    assert_eq!(ids("z%25_", 1).await.len(), 1);
    assert_eq!(ids("z_", 1).await.len(), 0);
    assert_eq!(walk(&app, &format!("{ACCOUNTS}?query=ann"), 7).await.len(), 40);
}

#[tokio::test]
async fn profiles_are_found_by_the_present_value_of_a_trait() {
    let app = app().await;
    let calls = vec![
        identify("a", &json!({"plan": "Pro", "firstName": "Ann", "company": {"name": "x"}})),
        identify("b", &json!({"plan": 42})),
        identify("c", &json!({"plan": "42.0"})),
        identify("d", &json!({"plan": true})),
        identify("e", &json!({"plan": "pro", "phone": "5".repeat(256)})),
        json!({"type": "group", "userId": "a", "groupId": "g", "traits": {"plan": "PRO"}}),
    ];
    let offset = send(&app, calls).await;
    let find = |words: &str| {
        let path = format!("{USERS}?min_offset={offset}&{words}");
        let app = &app;
        async move { walk(app, &path, 1).await.join(" ") }
    };
    for (words, expected) in [
        ("trait=plan&value=pro", "a e"),
        ("trait=plan&value=42", "b"),
        ("trait=plan&value=42.0", "b c"),
        ("trait=plan&value=TRUE", "d"),
        ("trait=first_name&value=ann", "a"),
        ("trait=firstName&value=ann", "a"),
        ("trait=plan&value=nothing", ""),
    ] {
        assert_eq!(find(words).await, expected, "{words}");
    }
    assert_eq!(walk(&app, &format!("{ACCOUNTS}?trait=plan&value=pro"), 1).await, ["g"]);
    let page = app.get(&format!("{USERS}?trait=plan&value=pro")).await.expect(200).json;
    assert_eq!(page["complete"], true);
    // Changed, removed, and won or lost at a merge: what is found is what is there now.
    let calls = vec![
        identify("a", &json!({"plan": "free"})),
        identify("b", &json!({"plan": null})),
        json!({"type": "identify", "anonymousId": "x", "traits": {"plan": "gold"}}),
        json!({"type": "identify", "anonymousId": "y", "traits": {"plan": "gold"}, "timestamp": "2024-02-01T00:00:00Z"}),
        json!({"type": "track", "userId": "c", "anonymousId": "x", "event": "E"}),
        json!({"type": "track", "userId": "d", "anonymousId": "y", "event": "E"}),
    ];
    let offset = send(&app, calls).await;
    app.get(&format!("{USERS}?min_offset={offset}")).await.expect(200);
    let find = |value: &str| {
        let path = format!("{USERS}?trait=plan&value={value}");
        let app = &app;
        async move { walk(app, &path, 1).await.join(" ") }
    };
    for (value, expected) in
        [("pro", "e"), ("free", "a"), ("42", ""), ("gold", "c"), ("42.0", ""), ("true", "d")]
    {
        assert_eq!(find(value).await, expected, "{value}");
    }
    no_entry_is_stale(&app).await;
}

/// As many entries as there are values: none was left behind.
async fn no_entry_is_stale(app: &TestApp) {
    let sql = "SELECT t.name, count(*) FROM search_entry e JOIN search_trait t USING (space_id, trait_no) GROUP BY 1";
    let counts: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(&app.db.pool).await.unwrap();
    let counts: BTreeMap<String, i64> = counts.into_iter().collect();
    assert_eq!(counts, BTreeMap::from([("first_name".to_owned(), 1), ("plan".to_owned(), 5)]));
}

#[tokio::test]
async fn a_trait_is_made_searchable_and_filled_in() {
    let app = app().await;
    let traits = |n: usize| json!({"city": format!("c{}", n % 5), "plan": "pro"});
    let offset = send(&app, (0..5_000).map(|n| identify(&format!("u{n}"), &traits(n))).collect()).await;
    app.get(&format!("{USERS}?min_offset={offset}&limit=1")).await.expect(200);
    let refused = app.get(&format!("{USERS}?trait=city&value=c1")).await.expect(400).json;
    assert!(
        refused["error"]["message"].as_str().unwrap().contains("/v1/spaces/default/search/settings"),
        "{refused}"
    );
    let changed = app.patch(SETTINGS, json!({"traits": ["city", "createdAt"]})).await.expect(200).json;
    assert_eq!((&changed["traits"], &changed["complete"]), (&json!(["city", "createdAt"]), &json!(false)));
    // What is written meanwhile and what is filled in are both there in the end, each once.
    let offset =
        send(&app, (4_000..6_000).map(|n| identify(&format!("u{n}"), &traits(n + 1))).collect()).await;
    for _ in 0..1_000 {
        if app.get(SETTINGS).await.expect(200).json["complete"] == true {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let path = format!("{USERS}?trait=city&value=c1&min_offset={offset}");
    let page = app.get(&path).await.expect(200).json;
    assert_eq!(page["complete"], true);
    let found = walk(&app, &path, 300).await;
    assert_eq!(found.len(), 1_200);
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 1_200);
    app.get(&format!("{USERS}?trait=plan&value=pro")).await.expect(400);
    // The entries of what was removed go.
    for _ in 0..1_000 {
        let sql = "SELECT count(*) FROM search_trait WHERE removed";
        if sqlx::query_scalar::<_, i64>(sql).fetch_one(&app.db.pool).await.unwrap() == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let sql = "SELECT count(*) FROM search_entry";
    assert_eq!(sqlx::query_scalar::<_, i64>(sql).fetch_one(&app.db.pool).await.unwrap(), 6_000);
}

#[tokio::test]
async fn half_filled_answers_say_so_and_a_restart_goes_on() {
    let app = app().await;
    let traits = |n: usize| json!({"city": format!("c{}", n % 5)});
    let offset = send(&app, (0..3_000).map(|n| identify(&format!("u{n}"), &traits(n))).collect()).await;
    app.get(&format!("{USERS}?min_offset={offset}&limit=1")).await.expect(200);
    app.running.stop(std::time::Duration::ZERO).await.unwrap();
    // A fill that was cut off: up to the thousandth profile.
    let sql = "INSERT INTO search_trait (space_id, trait_no, name, filled_no) VALUES (1, 9, 'city', 1000)";
    sqlx::query(sql).execute(&app.db.pool).await.unwrap();
    let app = Wish::default().at("2024-03-01T12:00:00Z").start_on(app.db).await;
    let mut last = json!({});
    for _ in 0..1_000 {
        last = app.get(&format!("{USERS}?trait=city&value=c1&limit=1000")).await.expect(200).json;
        if last["complete"] == true {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // The first thousand were not written here: what is noted as done is not done again.
    assert_eq!((last["data"].as_array().unwrap().len(), &last["complete"]), (400, &json!(true)));
}

#[tokio::test]
async fn what_cannot_be_searched_by_is_refused_with_what_can() {
    let app = app().await;
    app.make_live("audiences", "vip", "trait('plan') = 'pro'").await;
    app.make_live("computed-traits", "orders", "event('Order').count()").await;
    let long = "x".repeat(256);
    for (words, said) in [
        ("trait=vip&value=true", "/audiences/vip/members"),
        ("trait=orders&value=1", "make an audience of trait('orders')"),
        ("trait=shoe&value=1", "search/settings"),
        ("trait=plan", "takes both"),
        ("value=pro", "takes both"),
        ("trait=plan&value=pro&query=a", "ask for one"),
        (&format!("trait=plan&value={long}"), "256 bytes"),
    ] {
        let answer = app.get(&format!("{USERS}?{words}")).await.expect(400).json;
        assert!(answer["error"]["message"].as_str().unwrap().contains(said), "{words} {answer}");
    }
    for traits in [json!(["a", "a"]), json!(["firstName", "first_name"]), json!([""]), json!(["$list:x"])] {
        app.patch(SETTINGS, json!({"traits": traits})).await.expect_problem(422, "invalid");
    }
    let many: Vec<String> = (0..21).map(|n| format!("t{n}")).collect();
    app.patch(SETTINGS, json!({"traits": many})).await.expect_problem(422, "invalid");
    app.patch(SETTINGS, json!({"traits": many[1..]})).await.expect(200);
    let none = app.patch(SETTINGS, json!({"traits": []})).await.expect(200).json;
    assert_eq!(none, json!({"traits": [], "filling": [], "complete": true}));
}
