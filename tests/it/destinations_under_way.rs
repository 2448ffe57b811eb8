//! What happens while a change is under way: merges, mostly. Nothing of those who become one is forgotten, and it goes out in
//! the order in which it came.

use std::time::Duration;

use personas::domain::delivery::Subject;
use personas::domain::{DestinationNo, ProfileNo, SpaceNo, Timestamp};
use personas::store::deliveries::queue::{self, Hold};
use personas::store::deliveries::{NewDelivery, book, enqueue};
use serde_json::{Value, json};

use crate::harness::acts::Case;
use crate::harness::destinations::{DESTINATIONS, sending};
use crate::harness::receiver::{Received, Receiver, Reply};

/// Long enough for a merge to be seen.
const LATE: Reply = Reply::Late(Duration::from_secs(2), 200);

/// A destination that wants traits and has time, and two profiles that it has heard of, of which the first one survives.
async fn start(receiver: &Receiver) -> (Case, Value) {
    let mut case = Case::start(sending()).await;
    let hook = case.app.make_webhook("CRM", receiver, json!({})).await;
    let path = format!("{DESTINATIONS}/{}", hook["id"].as_str().unwrap());
    case.app.patch(&path, json!({"timeout_ms": 60_000})).await.expect(200);
    case.app.subscribe(&hook, json!({"subject": "custom_traits"})).await;
    case.send_all(&["identify user=ada {\"known\":1}"]).await;
    case.send_all(&["identify anon=b1 {\"known\":1}"]).await;
    receiver.wait_taken(2).await;
    case.app.wait_sent(&hook).await;
    (case, hook)
}

/// Waits until all is sent, and nobody is held any more.
async fn wait_let_go(case: &Case, hook: &Value) {
    let is_done = |d: &Value| d["deliveries"]["queued"] == 0 && d["deliveries"]["waiting_profiles"] == 0;
    case.app.wait_destination(hook, is_done).await;
}

fn is_of(received: &Received, name: &str) -> bool {
    received.json["traits"].get(name).is_some()
}

/// The traits of what was taken, in order.
fn told(receiver: &Receiver) -> Vec<String> {
    let traits = |event: Value| event["traits"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    receiver.taken().into_iter().map(|event| traits(event).join(" ")).collect()
}

fn place(told: &[String], name: &str) -> usize {
    told.iter().position(|traits| traits == name).unwrap_or_else(|| panic!("{name}: {told:?}"))
}

#[tokio::test]
async fn what_waits_behind_a_merge_goes_on_when_what_was_under_way_has_arrived() {
    let receiver = Receiver::start().await;
    let (mut case, hook) = start(&receiver).await;
    receiver.now(|received, _| if is_of(received, "slow") { LATE } else { Reply::Status(200) });
    case.send_all(&["identify user=ada {\"slow\":1}", "identify anon=b1 {\"slow\":1}"]).await;
    receiver.wait(|r| (r.count() == 4).then_some(())).await;
    case.send_all(&["identify user=ada anon=b1 {\"one\":1}"]).await;
    case.send_all(&["identify anon=b1 {\"two\":1}"]).await;
    wait_let_go(&case, &hook).await;
    let told = told(&receiver);
    assert!(place(&told, "one") < place(&told, "two"), "{told:?}");
}

#[tokio::test]
async fn what_a_merge_gives_to_a_profile_that_is_sent_again_goes_before_what_is_behind_it() {
    let receiver = Receiver::start().await;
    let (mut case, hook) = start(&receiver).await;
    receiver.now(|_, _| Reply::Status(500));
    let failed = async |case: &Case, count: i64| {
        case.app.wait_destination(&hook, |d| d["deliveries"]["failed"]["500"] == count).await;
    };
    let move_clock = async |case: &Case, time: &str| {
        case.app.put("/v1/test-clock", json!({"now": format!("2024-03-01T{time}Z")})).await.expect(200);
    };
    case.send_all(&["identify anon=b1 {\"first\":1}"]).await;
    failed(&case, 1).await;
    move_clock(&case, "12:00:07").await;
    failed(&case, 2).await;
    case.send_all(&["identify user=ada {\"second\":1}", "identify user=ada {\"third\":1}"]).await;
    failed(&case, 3).await;
    let before = receiver.count();
    receiver.now(|received, _| if is_of(received, "second") { LATE } else { Reply::Status(200) });
    // Hers is due again, his is not: that has failed twice.
    move_clock(&case, "12:00:14").await;
    receiver.wait(|r| (r.count() > before).then_some(())).await;
    assert!(is_of(&receiver.all()[before], "second"));
    case.send_all(&["identify user=ada anon=b1 {\"one\":1}"]).await;
    wait_let_go(&case, &hook).await;
    let told = told(&receiver);
    let places = ["second", "first", "third", "one"].map(|name| place(&told, name));
    assert!(places.is_sorted(), "{told:?}");
}

#[tokio::test]
async fn a_profile_is_let_go_when_nothing_of_it_waits() {
    const SPACE: SpaceNo = SpaceNo(1);
    const DESTINATION: DestinationNo = DestinationNo(100);
    let app = sending().start().await;
    let mut tx = app.db.pool.begin().await.unwrap();
    let head = "INSERT INTO delivery_head (space_id, destination_no) VALUES ($1, $2)";
    sqlx::query(head).bind(SPACE.0).bind(DESTINATION.0).execute(&mut *tx).await.unwrap();
    let (one, other, nobody) = (ProfileNo(1), ProfileNo(2), ProfileNo(3));
    let row = |profile| NewDelivery {
        destination: DESTINATION,
        profile,
        origin: profile,
        cause: None,
        subscription: 1,
        subject: Subject::Audience,
        form: 1,
        definition: 1,
        value: "true".into(),
        at: Timestamp::EPOCH,
    };
    enqueue(&mut tx, SPACE, &[row(other), row(one), row(other)]).await.unwrap();
    let at = Timestamp::EPOCH;
    let hold = |profile| Hold { profile, next_at: at, tries: 1, first_at: at };
    book::hold(&mut tx, SPACE, DESTINATION, &[hold(one), hold(other)]).await.unwrap();
    assert!(!book::release(&mut tx, SPACE, DESTINATION, (&[nobody], 9)).await.unwrap(), "it was not held");
    assert!(!book::release(&mut tx, SPACE, DESTINATION, (&[one, other], 1)).await.unwrap());
    let (due, _) = queue::load_due(&mut tx, SPACE, DESTINATION, at, (&[], 10)).await.unwrap();
    assert_eq!(
        due.iter().map(|hold| hold.profile).collect::<Vec<_>>(),
        [other],
        "its first row is there still"
    );
}
