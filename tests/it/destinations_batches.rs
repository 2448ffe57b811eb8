//! Batches of kinds over HTTP, past the queue: what is refused of one is no matter for the others, and a batch of many requests
//! ends in time and says what became of each change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use personas::clock::Clock;
use personas::deliver::budget::Budget;
use personas::deliver::guard::{Guard, Settings, SystemLookup};
use personas::deliver::http::Transport;
use personas::deliver::kind::{Item, Kind, Verdict};
use personas::deliver::opener::Opener;
use personas::deliver::reach::Reach;
use personas::deliver::secrets::Keys;
use personas::domain::{ProfileNo, Timestamp};
use serde_json::{Value, json};

use crate::harness::destinations::KEY;
use crate::harness::receiver::{Receiver, Reply};

/// A mapping to a receiver, with a time for each request.
fn open(receiver: &Receiver, timeout: Duration, batch_max: usize) -> Box<dyn Kind> {
    let settings = Settings { allow_networks: vec!["127.0.0.0/8".parse().unwrap()], ..Settings::default() };
    let (guard, lookup) = (Arc::new(Guard::new(&settings)), Arc::new(SystemLookup));
    let transport =
        Transport::new(Arc::clone(&guard), Arc::clone(&lookup) as _, timeout, Clock::System).unwrap();
    let reach = Reach { guard, lookup, folder: None, timeout };
    let opener = Opener { keys: Keys::new(KEY), transport, reach, clock: Clock::System };
    let call = json!({
        "when": "email", "url": receiver.url, "headers": {"Content-Type": "application/json"},
        "body": "[{% for item in items %}{{ item.email }}{% if not loop.last %},{% endif %}{% endfor %}]",
    });
    let settings = json!({"batch_max": batch_max, "calls": {"identify": call, "track": call}});
    opener.open_with("http", settings.as_object().unwrap(), timeout).unwrap()
}

fn item(number: usize, kind: &str, email: Option<&str>) -> Item {
    let mut event = json!({"type": kind, "userId": format!("u{number}"), "context": {"traits": {}}});
    if let Some(email) = email {
        event["context"]["traits"]["email"] = json!(email);
    }
    Item {
        id: format!("dlv_{number}"),
        profile: ProfileNo(number as u64),
        profile_id: format!("prf_{number}"),
        at: Timestamp::EPOCH,
        attempts: 0,
        event,
    }
}

#[tokio::test]
async fn what_is_refused_of_a_batch_is_in_no_request_and_does_not_split_it() {
    let all = [Some("a"), None, Some("b"), Some("c"), None];
    // The first one, one in the middle, and the last one.
    for turn in 0..all.len() {
        let receiver = Receiver::start().await;
        let kind = open(&receiver, Duration::from_secs(5), 5);
        let mut emails = all;
        emails.rotate_left(turn);
        let items: Vec<Item> =
            emails.iter().enumerate().map(|(number, email)| item(number, "identify", *email)).collect();
        let sent = kind.send(&items).await;
        let bodies: Vec<Value> = receiver.all().into_iter().map(|received| received.json).collect();
        assert_eq!(bodies, [json!(emails.iter().flatten().collect::<Vec<_>>())]);
        for (email, verdict) in emails.iter().zip(&sent.verdicts) {
            match verdict {
                Verdict::Delivered => assert!(email.is_some()),
                Verdict::Rejected(reason) => {
                    assert_eq!((*email, reason.code.as_str()), (None, "NO_MATCHING_MAPPING"));
                }
                other => panic!("{other:?}"),
            }
        }
        let places: Vec<usize> = (0..all.len()).filter(|place| emails[*place].is_some()).collect();
        assert_eq!(sent.exchanges.iter().map(|exchange| &exchange.items).collect::<Vec<_>>(), [&places]);
    }
}

#[tokio::test]
async fn a_batch_of_many_requests_ends_in_time_and_what_was_taken_is_not_sent_again() {
    let receiver = Receiver::start_with(|_, _| Reply::Late(Duration::from_millis(100), 200)).await;
    let timeout = Duration::from_millis(400);
    let kind = open(&receiver, timeout, 100);
    let of = |number| item(number, ["identify", "track"][number % 2], Some("e@x.example"));
    let items: Vec<Item> = (0..80).map(of).collect();
    let began = Instant::now();
    let verdicts = kind.send(&items).await.verdicts;
    let took = began.elapsed();
    assert!(took < Budget::limit(timeout, items.len()), "{took:?}: the worker would have cut it");
    let delivered = verdicts.iter().filter(|verdict| **verdict == Verdict::Delivered).count();
    let later = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Retry { .. })).count();
    assert_eq!(delivered + later, items.len());
    assert!(delivered >= 1 && later >= 1, "{delivered} and {later}");
    // As many as there were requests for, but for those that took too long.
    assert!((delivered..items.len()).contains(&receiver.count()), "{delivered} of {}", receiver.count());
    assert_eq!(verdicts[items.len() - 1], Budget::left_over());
}
