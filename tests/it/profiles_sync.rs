//! Kind `postgres`: a customer's database that is kept as the profiles are, however often it is told.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use personas::deliver::budget::Budget;
use personas::deliver::guard::{Guard, Lookup, Settings};
use personas::deliver::kind::{Item, Kind, Verdict};
use personas::deliver::kinds::postgres::PostgresKind;
use personas::deliver::reach::Reach;
use personas::domain::{ProfileNo, Timestamp};
use serde_json::{Map, Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use crate::harness::cluster::TestDb;
use crate::harness::warehouse::door;

/// Every name is this machine.
#[derive(Debug)]
struct Loopback;

impl Lookup for Loopback {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) })
    }
}

fn reach() -> Reach {
    reach_within(Duration::from_secs(20))
}

fn reach_within(timeout: Duration) -> Reach {
    let settings = Settings { allow_hosts: vec!["warehouse.test".to_owned()], ..Settings::default() };
    Reach { guard: Arc::new(Guard::new(&settings)), lookup: Arc::new(Loopback), folder: None, timeout }
}

fn open(db: &TestDb, port: u16, changes: &[(&str, Value)]) -> PostgresKind {
    open_within(db, port, changes, Duration::from_secs(20))
}

fn open_within(db: &TestDb, port: u16, changes: &[(&str, Value)], timeout: Duration) -> PostgresKind {
    let options = db.connect_options();
    let mut settings = Map::from_iter([
        ("host".to_owned(), json!("Warehouse.test")),
        ("port".to_owned(), json!(port)),
        ("database".to_owned(), json!(options.get_database())),
        ("user".to_owned(), json!(options.get_username())),
        ("schema".to_owned(), json!("engage")),
        ("ssl_mode".to_owned(), json!("disable")),
    ]);
    settings.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    PostgresKind::open(&settings, &reach_within(timeout)).expect("settings")
}

fn item(id: &str, profile: &str, second: i64, event: Value) -> Item {
    Item {
        id: id.to_owned(),
        profile: ProfileNo(1),
        profile_id: profile.to_owned(),
        at: Timestamp::from_millis(1_767_000_000_000 + second * 1_000),
        attempts: 0,
        event,
    }
}

fn audience(id: &str, profile: &str, second: i64, is_member: bool) -> Item {
    let event = json!({
        "type": "identify", "userId": format!("user of {profile}"), "traits": {"vip": is_member, "email": "e@x.example"},
        "context": {"personas": {"computation_class": "audience", "computation_key": "vip"}},
    });
    item(id, profile, second, event)
}

fn traits(id: &str, profile: &str, second: i64, traits: &Value) -> Item {
    item(id, profile, second, json!({"type": "identify", "traits": traits, "context": {"personas": {}}}))
}

fn merge(id: &str, from: &str, to: &str, second: i64) -> Item {
    let properties = json!({"profile_id": to, "merged_profile_id": from});
    item(id, to, second, json!({"type": "track", "event": "Profile Merged", "properties": properties}))
}

fn separation(id: &str, profile: &str, from: &str, second: i64) -> Item {
    let properties = json!({"profile_id": profile, "separated_from_profile_id": from});
    let event = json!({
        "type": "track", "event": "Profile Separated", "userId": format!("user of {profile}"),
        "properties": properties, "context": {"traits": {"email": "own@x.example"}},
    });
    item(id, profile, second, event)
}

async fn send(kind: &PostgresKind, items: &[Item]) {
    let sent = kind.send(items).await;
    assert_eq!(sent.verdicts, vec![Verdict::Delivered; items.len()], "{:?}", sent.exchanges);
}

/// Rows as text, in order.
async fn rows(pool: &PgPool, what: &str, table: &str) -> Vec<String> {
    let sql = format!("select concat_ws(' ', {what}) from engage.{table} order by 1");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(pool).await.unwrap()
}

const TRAITS: &str = "canonical_segment_id, name, value";

#[tokio::test]
async fn tables_are_made_and_kept() {
    let db = TestDb::new().await;
    let port = door(&db);
    let kind = open(&db, port, &[]);
    let items = [
        audience("a", "p", 1, true),
        traits("b", "p", 2, &json!({"plan": "pro", "seats": 3, "gone": 1})),
        traits("c", "p", 3, &json!({"gone": null})),
        audience("d", "p", 4, false),
        audience("e", "q", 5, true),
    ];
    // However often, and in whatever pieces.
    send(&kind, &items).await;
    send(&kind, &items).await;
    send(&kind, &items[..3]).await;
    let pool = db.pool.clone();
    assert_eq!(rows(&pool, TRAITS, "user_traits").await, ["p gone", "p plan \"pro\"", "p seats 3"]);
    assert_eq!(
        rows(&pool, "canonical_segment_id, type, value", "user_identifiers").await,
        ["p email e@x.example", "p user_id user of p", "q email e@x.example", "q user_id user of q"]
    );
    let members = "canonical_segment_id, audience_key, is_member";
    assert_eq!(rows(&pool, members, "audience_memberships").await, ["p vip f", "q vip t"]);
    assert_eq!(rows(&pool, "id, segment_id", "audience_entered").await, ["a p", "e q"]);
    assert_eq!(rows(&pool, "id, segment_id", "audience_exited").await, ["d p"]);
    // A second process, and one that may not make tables, find all there.
    send(&open(&db, port, &[("batch_max", json!(1))]), &[traits("f", "p", 6, &json!({"plan": "free"}))])
        .await;
    assert_eq!(rows(&pool, TRAITS, "user_traits").await[1], "p plan \"free\"");
}

#[tokio::test]
async fn merges_move_what_is_there_and_what_comes_later() {
    let db = TestDb::new().await;
    let kind = open(&db, door(&db), &[]);
    send(
        &kind,
        &[
            traits("a", "p", 1, &json!({"plan": "old", "city": "newer"})),
            traits("b", "q", 2, &json!({"plan": "new", "only": "q"})),
            traits("c", "q", 0, &json!({"city": "older"})),
            audience("d", "q", 2, true),
            merge("e", "q", "p", 3),
            merge("f", "p", "r", 4),
        ],
    )
    .await;
    // Told before the merge, arrived after it.
    send(
        &kind,
        &[
            traits("g", "q", 2, &json!({"late": true, "plan": "new"})),
            traits("h", "p", 1, &json!({"plan": "x"})),
        ],
    )
    .await;
    let pool = db.pool.clone();
    assert_eq!(
        rows(&pool, TRAITS, "user_traits").await,
        ["r city \"newer\"", "r late true", "r only \"q\"", "r plan \"new\""]
    );
    assert_eq!(rows(&pool, "segment_id, canonical_segment_id", "profile_merges").await, ["p r", "q r"]);
    assert_eq!(rows(&pool, "canonical_segment_id, is_member", "audience_memberships").await, ["r t"]);
    send(&kind, &[item("i", "r", 9, json!({"type": "delete", "userId": "u"}))]).await;
    for table in
        ["user_traits", "user_identifiers", "profile_merges", "audience_memberships", "audience_entered"]
    {
        assert_eq!(rows(&pool, "seq", table).await, Vec::<String>::new(), "{table}");
    }
}

#[tokio::test]
async fn what_is_told_of_a_separated_profile_is_its_own() {
    let db = TestDb::new().await;
    let kind = open(&db, door(&db), &[]);
    let with_email = |id: &str, profile: &str, second: i64, email: &str| {
        traits(id, profile, second, &json!({"email": email, "plan": profile}))
    };
    let before = [
        with_email("a", "p", 1, "p@x.example"),
        with_email("b", "q", 1, "own@x.example"),
        with_email("c", "r", 1, "r@x.example"),
        merge("d", "r", "q", 2),
        merge("e", "q", "p", 3),
    ];
    send(&kind, &before).await;
    let pool = db.pool.clone();
    let after = [
        separation("f", "q", "p", 5),
        merge("g", "r", "q", 5),
        traits("h", "q", 6, &json!({"plan": "of q"})),
        traits("i", "p", 6, &json!({"plan": "of p"})),
        traits("j", "r", 7, &json!({"late": true})),
    ];
    // Once more, and with the merge of before, which was held up, behind it.
    for _ in 0..2 {
        send(&kind, &after).await;
        assert_eq!(
            rows(&pool, TRAITS, "user_traits").await,
            ["p plan \"of p\"", "q late true", "q plan \"of q\""]
        );
        assert_eq!(rows(&pool, "segment_id, canonical_segment_id", "profile_merges").await, ["q q", "r q"]);
        assert_eq!(
            rows(&pool, "canonical_segment_id, type, value", "user_identifiers").await,
            ["p email p@x.example", "p email r@x.example", "q email own@x.example", "q user_id user of q"]
        );
        send(&kind, &before[4..]).await;
    }
    // They may become one again.
    send(&kind, &[merge("k", "q", "p", 9)]).await;
    assert_eq!(rows(&pool, "segment_id, canonical_segment_id", "profile_merges").await, ["q p", "r p"]);
    assert_eq!(rows(&pool, TRAITS, "user_traits").await, ["p late true", "p plan \"of p\""]);
}

#[tokio::test]
async fn a_batch_that_is_written_one_by_one_ends_in_time() {
    let db = TestDb::new().await;
    let timeout = Duration::from_millis(500);
    let kind = open_within(&db, door(&db), &[], Duration::from_secs(20));
    send(&kind, &[traits("a", "first", 1, &json!({"x": 1}))]).await;
    // A server that takes a tenth of a second for each row.
    let slow = "create function engage.slow() returns trigger language plpgsql as
            'begin perform pg_sleep(0.1); return new; end';
         create trigger slow before insert on engage.user_traits for each row execute function engage.slow()";
    sqlx::raw_sql(slow).execute(&db.pool).await.unwrap();
    let kind = open_within(&db, door(&db), &[], timeout);
    let mut items: Vec<Item> =
        (0..80).map(|n| traits(&format!("i{n}"), &format!("p{n:02}"), 1, &json!({"x": n}))).collect();
    items.push(traits("bad", "z", 1, &json!({"zero": "a\u{0}b"})));
    let began = Instant::now();
    let verdicts = kind.send(&items).await.verdicts;
    let took = began.elapsed();
    assert!(took < Budget::limit(timeout, items.len()), "{took:?}: the worker would have cut it");
    let written = verdicts.iter().filter(|verdict| **verdict == Verdict::Delivered).count();
    assert!((1..80).contains(&written), "{verdicts:?}");
    assert_eq!(verdicts[80], Budget::left_over());
}

#[tokio::test]
async fn one_change_that_cannot_be_written_does_not_hold_up_the_others() {
    let db = TestDb::new().await;
    let kind = open(&db, door(&db), &[]);
    let bad = traits("b", "p", 2, &json!({"zero": "a\u{0}b"}));
    let items = [traits("a", "p", 1, &json!({"x": 1})), bad, traits("c", "p", 3, &json!({"y": 2}))];
    let verdicts = kind.send(&items).await.verdicts;
    assert!(
        matches!(&verdicts[..], [Verdict::Delivered, Verdict::Rejected(reason), Verdict::Delivered] if reason.code == "MESSAGE_REJECTED"),
        "{verdicts:?}"
    );
    assert_eq!(rows(&db.pool, TRAITS, "user_traits").await, ["p x 1", "p y 2"]);
}

#[tokio::test]
async fn a_server_that_is_away_is_tried_again_and_a_wrong_name_is_not() {
    let db = TestDb::new().await;
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let one = [traits("a", "p", 1, &json!({"x": 1}))];
    let verdicts = open(&db, nobody, &[]).send(&one).await.verdicts;
    assert!(matches!(&verdicts[..], [Verdict::Retry { .. }]), "{verdicts:?}");
    let port = door(&db);
    let verdicts = open(&db, port, &[("database", json!("no_such_database"))]).send(&one).await.verdicts;
    assert!(matches!(&verdicts[..], [Verdict::Rejected(reason)] if reason.code == "404"), "{verdicts:?}");
    // Every name leads to this machine, and only one may.
    let blocked = open(&db, port, &[("host", json!("other.example"))]).send(&one).await.verdicts;
    assert!(matches!(&blocked[..], [Verdict::Rejected(reason)] if reason.code == "BLOCKED"), "{blocked:?}");
}

#[test]
fn settings_are_judged_when_they_are_saved() {
    for (field, value) in [
        ("host", json!("127.0.0.1")),
        ("host", json!("2130706433")),
        ("host", json!("0x7f.1")),
        ("host", json!("localhost.")),
        ("host", json!("[::1]")),
        ("host", json!("/var/run/postgresql")),
        ("host", json!("a@b")),
        ("host", json!("10.0.0.1,8.8.8.8")),
        ("host", json!("")),
        ("schema", json!("a\"; drop table x; --")),
        ("schema", json!("Upper")),
        ("user", json!("")),
        ("database", json!("")),
        ("batch_max", json!(0)),
        ("root_certificate", json!("pem")),
        // It would look the name up once more, past the guard.
        ("ssl_mode", json!("verify-full")),
    ] {
        let mut settings = Map::from_iter([
            ("host".to_owned(), json!("db.example.com")),
            ("database".to_owned(), json!("d")),
            ("user".to_owned(), json!("u")),
        ]);
        assert!(PostgresKind::open(&settings, &reach()).is_ok());
        settings.insert(field.to_owned(), value.clone());
        let wrong = PostgresKind::open(&settings, &reach()).expect_err(field);
        assert_eq!(wrong[0].field, field, "{value}");
    }
}
