//! Changes of a destination that are made at one time: none undoes another, and no two have one name.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::app::TestApp;
use crate::harness::destinations::{DESTINATIONS, sending};
use crate::harness::receiver::Receiver;

/// Waits until so many sessions wait for a lock.
async fn wait_blocked(app: &TestApp, count: i64) {
    for _ in 0..1_000 {
        let sql = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let blocked: i64 = sqlx::query_scalar(sql).fetch_one(&app.db.pool).await.unwrap();
        if blocked >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{count} never waited");
}

fn path(destination: &Value) -> String {
    format!("{DESTINATIONS}/{}", destination["id"].as_str().unwrap())
}

#[tokio::test]
async fn changes_at_one_time_are_all_there_afterwards() {
    let (app, receiver) = (sending().start().await, Receiver::start().await);
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    // Both have come before either is done.
    let mut tx = app.db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM destination FOR UPDATE").execute(&mut *tx).await.unwrap();
    let (own, rotate) = (path(&hook), format!("{}/rotate-secret", path(&hook)));
    let ((), rotated, changed) = tokio::join!(
        async {
            wait_blocked(&app, 2).await;
            tx.rollback().await.unwrap();
        },
        app.post(&rotate, json!({})),
        app.patch(&own, json!({"concurrency": 3, "settings": {"method": "PUT"}})),
    );
    changed.expect(200);
    let secret = rotated.expect(200).json["secret"].as_str().unwrap().to_owned();
    let seen = app.destination(&hook).await;
    assert_eq!((&seen["concurrency"], &seen["settings"]["method"]), (&json!(3), &json!("PUT")));
    // The one before is kept beside the new one, which signs what is sent.
    assert_eq!(seen["settings"]["previous_secret"], "***", "{seen}");
    app.post(&format!("{}/test", path(&hook)), json!({})).await.expect(200);
    let sent = receiver.all().remove(0);
    let header = |name: &str| sent.headers[name].clone();
    let webhook = standardwebhooks::Webhook::new(&secret).unwrap();
    let mut headers = reqwest::header::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, header(name).parse().unwrap());
    }
    webhook.verify(&sent.body, &headers).expect("signed with the secret that was shown");
}

#[tokio::test]
async fn a_name_is_had_by_one_destination() {
    let (app, receiver) = (sending().start().await, Receiver::start().await);
    let one = app.make_webhook("One", &receiver, json!({})).await;
    let two = app.make_webhook("Two", &receiver, json!({})).await;
    let refused = app.patch(&path(&two), json!({"name": "One"})).await.expect(409);
    assert_eq!(app.destination(&two).await["name"], "Two", "{}", refused.text);
    // Its own it may be given again.
    app.patch(&path(&one), json!({"name": "One"})).await.expect(200);
    let settings = json!({"url": receiver.url});
    for name in ["One", "Two"] {
        app.post(DESTINATIONS, json!({"name": name, "kind": "webhook", "settings": settings}))
            .await
            .expect(409);
    }
    // Of two that want one name at a time, one has it.
    let rename = json!({"name": "Three"});
    let (of_one, of_two) = (path(&one), path(&two));
    let (first, second) =
        tokio::join!(app.patch(&of_one, rename.clone()), app.patch(&of_two, rename.clone()));
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{} {}", first.text, second.text);
    app.delete(&path(if first.status == 200 { &one } else { &two })).await.expect(204);
    let last = if first.status == 200 { &two } else { &one };
    app.patch(&path(last), rename).await.expect(200);
}
