//! A merge is taken back while changes wait for a destination: each goes out for its own profile, in order.

use serde_json::{Value, json};

use crate::harness::acts::Case;
use crate::harness::destinations::sending;
use crate::harness::receiver::{Receiver, Reply};

/// Traits in the order they were told.
type Told = Vec<(String, Value)>;

/// What was told of Ada, and of Bob.
fn told(receiver: &Receiver) -> (Told, Told) {
    let (mut ada, mut bob) = (Vec::new(), Vec::new());
    for event in receiver.taken() {
        let is_ada = event["userId"] == "ada";
        assert_ne!(is_ada, event["anonymousId"] == "b1", "of one of them: {event}");
        let mut traits = event["traits"].as_object().unwrap().clone();
        let email = traits.remove("email");
        assert_eq!(email, (!is_ada).then(|| json!("bob@x.org")), "by its own identifiers: {event}");
        if is_ada { &mut ada } else { &mut bob }.extend(traits);
    }
    (ada, bob)
}

fn of(told: &[(String, Value)], key: &str) -> Vec<Value> {
    told.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect()
}

/// Both have changes that wait, become one, have more, and are two again.
async fn merge_and_undo(case: &mut Case) {
    for call in [
        "identify user=ada {\"plan\":\"pro\"}",
        "identify anon=b1 email=bob@x.org {\"color\":\"red\"}",
        "track Order anon=b1",
        "track Seen user=ada anon=b1",
        "identify anon=b1 {\"size\":9}",
        "track Order anon=b1",
        "track Order user=ada",
    ] {
        // Each in a batch of its own.
        case.send_all(&[call]).await;
    }
    let merge = case.identity("user_id:ada").await["merges"][0]["id"].as_str().unwrap().to_owned();
    case.undo(&merge).await;
}

fn expect_own(receiver: &Receiver) {
    let (ada, bob) = told(receiver);
    assert_eq!(bob[..2], [("color".to_owned(), json!("red")), ("orders".to_owned(), json!(0))], "{bob:?}");
    assert_eq!(ada[..2], [("plan".to_owned(), json!("pro")), ("orders".to_owned(), json!(0))], "{ada:?}");
    // What came of his events while they were one is his, what came of hers is hers.
    assert_eq!(of(&bob, "orders"), [json!(0), json!(1), json!(2), json!(2)]);
    assert_eq!(of(&ada, "orders"), [json!(0), json!(1), json!(3), json!(1)]);
    let last = |told: &[(String, Value)], key: &str| of(told, key).last().cloned().unwrap_or_default();
    for (key, of_ada, of_bob) in [
        ("orders", json!(1), json!(2)),
        ("buyers", json!(true), json!(true)),
        ("loyal", json!(false), json!(true)),
        ("plan", json!("pro"), json!(null)),
        ("color", json!(null), json!("red")),
        ("size", json!(null), json!(9)),
    ] {
        assert_eq!((last(&ada, key), last(&bob, key)), (of_ada, of_bob), "{key}: {ada:?} {bob:?}");
    }
    assert_eq!(of(&bob, "size")[0], json!(9));
    let place =
        |key: &str, value: Value| bob.iter().position(|told| *told == (key.to_owned(), value.clone()));
    assert!(place("orders", json!(1)) < place("size", json!(9)), "{bob:?}");
    assert!(place("size", json!(9)) < place("orders", json!(2)), "{bob:?}");
}

async fn start(receiver: &Receiver) -> (Case, Value) {
    let case = Case::start(sending()).await;
    case.app.make_live("audiences", "buyers", "event('Order').count() >= 1").await;
    case.app.make_live("audiences", "loyal", "event('Order').count() >= 2").await;
    case.app.make_live("computed-traits", "orders", "event('Order').count()").await;
    let hook = case.app.make_webhook("CRM", receiver, json!({})).await;
    case.app.subscribe(&hook, json!({"subject": "audience", "key": "*"})).await;
    case.app.subscribe(&hook, json!({"subject": "computed_trait", "key": "orders"})).await;
    case.app.subscribe(&hook, json!({"subject": "custom_traits"})).await;
    (case, hook)
}

#[tokio::test]
async fn what_waits_for_a_paused_destination_goes_out_for_its_own_profile() {
    let receiver = Receiver::start().await;
    let (mut case, hook) = start(&receiver).await;
    case.app.act(&hook, "pause", json!({})).await;
    merge_and_undo(&mut case).await;
    case.app.act(&hook, "resume", json!({})).await;
    case.app.wait_sent(&hook).await;
    expect_own(&receiver);
}

#[tokio::test]
async fn so_does_what_is_held_and_what_became_a_dead_letter() {
    let receiver = Receiver::start_with(|_, _| Reply::Status(500)).await;
    let (mut case, hook) = start(&receiver).await;
    case.send("identify user=ada {\"first\":true}").await;
    case.send("identify anon=b1 email=bob@x.org {\"first\":true}").await;
    case.app.wait_destination(&hook, |d| d["deliveries"]["waiting_profiles"] == 2).await;
    receiver.now(|_, _| Reply::Status(500));
    merge_and_undo(&mut case).await;
    receiver.now(|_, _| Reply::Status(200));
    case.app.put("/v1/test-clock", json!({"now": "2024-03-01T13:00:00Z"})).await.expect(200);
    let is_done = |d: &Value| d["deliveries"]["queued"] == 0 && d["deliveries"]["waiting_profiles"] == 0;
    case.app.wait_destination(&hook, is_done).await;
    let (ada, bob) = told(&receiver);
    assert_eq!((&ada[0], &bob[0]), (&("first".to_owned(), json!(true)), &("first".to_owned(), json!(true))));
    assert_eq!(of(&bob, "color")[0], json!("red"));
    assert_eq!((of(&bob, "orders").last(), of(&ada, "orders").last()), (Some(&json!(2)), Some(&json!(1))));
}

#[tokio::test]
async fn who_follows_merges_is_told_of_the_separation_before_all_else() {
    let receiver = Receiver::start().await;
    let (mut case, hook) = start(&receiver).await;
    case.app.subscribe(&hook, json!({"subject": "merges"})).await;
    // Bob has taken in a browser of his before he becomes one with Ada.
    case.send_all(&["identify anon=b0 {\"size\":7}"]).await;
    case.send_all(&["identify user=bob {\"color\":\"blue\"}", "track Seen user=bob anon=b0"]).await;
    let bob = case.id("user_id:bob").await;
    let browser = receiver
        .wait(|r| r.taken().into_iter().find(|event| event["event"] == "Profile Merged"))
        .await["properties"]["merged_profile_id"]
        .clone();
    case.send_all(&["identify user=ada {\"plan\":\"pro\"}"]).await;
    let body = json!({"profiles": ["user_id:ada", "user_id:bob"], "override_limits": true});
    let ada = case.id("user_id:ada").await;
    case.post("/identity/merges", body).await;
    let merge = case.merge_of("user_id:ada").await;
    case.app.wait_sent(&hook).await;
    let before = receiver.taken().len();
    case.undo(&merge).await;
    case.app.wait_sent(&hook).await;
    let told = receiver.taken().split_off(before);
    let of = |event: &Value| event["context"]["personas"]["profile_id"].clone();
    let separated = told.iter().find(|event| event["event"] == "Profile Separated").unwrap();
    let (own, other) =
        (&separated["properties"]["profile_id"], &separated["properties"]["separated_from_profile_id"]);
    assert!([(&json!(ada), &json!(bob)), (&json!(bob), &json!(ada))].contains(&(own, other)), "{separated}");
    let of_separated: Vec<&Value> = told.iter().filter(|event| of(event) == *own).collect();
    assert_eq!(of_separated[0], separated, "{told:?}");
    assert!(of_separated.len() > 2, "and then all that holds for it: {told:?}");
    // The browser is with Bob: who was told that it is with Ada is told so.
    let again = told.iter().find(|event| event["event"] == "Profile Merged");
    let is_told =
        again.map(|event| (&event["properties"]["profile_id"], &event["properties"]["merged_profile_id"]));
    assert_eq!(is_told, (*own == json!(bob)).then_some((&json!(bob), &browser)), "{told:?}");
}
