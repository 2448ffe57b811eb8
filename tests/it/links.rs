//! The users of an account, page by page, however many they are.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};

const ACCOUNT: &str = "/v1/spaces/default/collections/accounts/profiles/group_id:acme/links";

async fn send(app: &TestApp, calls: &[Value]) -> u64 {
    let mut offset = 0;
    for part in calls.chunks(2_000) {
        offset = app.track("/v1/batch", json!({"batch": part})).await.expect(200).offset();
    }
    offset
}

/// The first identifiers of all linked profiles, page by page.
async fn users(app: &TestApp, limit: usize) -> Vec<String> {
    let (mut all, mut next) = (Vec::new(), String::new());
    loop {
        let page = app.get(&format!("{ACCOUNT}?limit={limit}&next={next}")).await.expect(200).json;
        let rows = page["data"].as_array().unwrap();
        assert!(rows.len() <= limit && rows.iter().all(|row| row["to_collection"] == "users"));
        all.extend(rows.iter().map(|row| row["external_ids"][0]["id"].as_str().unwrap().to_owned()));
        if page["cursor"]["has_more"] == false {
            return all;
        }
        assert_eq!(rows.len(), limit);
        next = page["cursor"]["next"].as_str().unwrap().to_owned();
    }
}

#[tokio::test]
async fn three_thousand_users_of_an_account_are_listed_each_once() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    let join = |who: Value| {
        let mut call = json!({"type": "group", "groupId": "acme"});
        call.as_object_mut().unwrap().extend(who.as_object().unwrap().clone());
        call
    };
    let mut calls: Vec<Value> = (0..3_000).map(|n| join(json!({"userId": format!("u{n}")}))).collect();
    // Two hundred came as visitors as well, and are one with a user by now; a hundred are with another account.
    calls.extend((0..200).map(|n| join(json!({"anonymousId": format!("a{n}")}))));
    let merge = |n: usize| json!({"type": "track", "event": "E", "userId": format!("u{}", n * 7), "anonymousId": format!("a{n}")});
    calls.extend((0..200).map(merge));
    calls.extend((0..100).map(|n| json!({"type": "group", "groupId": "other", "userId": format!("x{n}")})));
    let offset = send(&app, &calls).await;
    app.get(&format!("{ACCOUNT}?min_offset={offset}")).await.expect(200);
    let expected: BTreeSet<String> = (0..3_000).map(|n| format!("u{n}")).collect();
    for limit in [200, 137] {
        let all = users(&app, limit).await;
        assert_eq!(all.len(), 3_000, "{limit}");
        assert!(all.into_iter().collect::<BTreeSet<_>>() == expected, "{limit}");
    }
    let first = app.get(ACCOUNT).await.expect(200).json;
    assert_eq!((&first["cursor"]["limit"], first["data"].as_array().unwrap().len()), (&json!(20), 20));
    app.get(&format!("{ACCOUNT}?limit=201")).await.expect(400);
}
