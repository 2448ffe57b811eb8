//! Merges that are taken back: what was one is two again, as if it had never been one.

use serde_json::{Value, json};

use crate::harness::acts::{Case, NOW, SPACE, USERS};
use crate::harness::app::{TOKEN, TestApp, Wish};
use crate::harness::destinations::sending;
use crate::harness::random_log;
use crate::harness::rebuild::expect_same;
use crate::harness::receiver::Receiver;
use crate::verify::verify;

const BEFORE: &[&str] = &[
    "identify user=ada email=ada@x.org {\"plan\":\"pro\",\"color\":\"green\"}",
    "identify anon=b1 {\"color\":\"red\",\"size\":9}",
    "track Order anon=b1 {\"total\":10,\"color\":\"blue\"}",
    "track Order anon=b1 {\"total\":20,\"color\":\"grey\"}",
    "track Order user=ada {\"total\":100,\"color\":\"white\"}",
    "group user=ada group=g1 {\"industry\":\"tea\"}",
    "group anon=b1 group=g2 {\"industry\":\"ink\"}",
    "track Order anon=b1 group=g2 {\"total\":1}",
];

/// What follows, which would be the same for either of them.
const AFTER: &[&str] = &[
    "track Order anon=b1 {\"total\":5,\"color\":\"blue\"}",
    "track Order user=ada {\"total\":7}",
    "identify anon=b1 {\"color\":\"black\"}",
    "track Seen anon=b1 anonymous_id=b2",
    "track Seen user=ada anon=a2",
    "track Order anon=b2 {\"total\":3}",
    "track Order anon=c1 {\"total\":50,\"color\":\"pink\"}",
    "identify anon=c1 {\"hat\":true}",
    "track Seen anon=b1 anonymous_id=c1",
    "group anon=b1 group=g3",
    "track Order anon=b1 group=g3 {\"total\":2}",
    "group anon=a2 group=g2",
];

#[tokio::test]
async fn after_an_undone_merge_everything_is_as_if_it_had_never_been() {
    let mut merged = Case::start(Wish::default()).await;
    let mut never = Case::start(Wish::default()).await;
    for case in [&mut merged, &mut never] {
        case.definitions().await;
        case.send_all(BEFORE).await;
        case.vip("anonymous_id:b1").await;
    }
    let ids = [merged.id("user_id:ada").await, merged.id("anonymous_id:b1").await];
    merged.send("track Seen user=ada anon=b1").await;
    never.send("track Seen user=ada").await;
    for case in [&mut merged, &mut never] {
        case.send_all(AFTER).await;
        case.vip("anonymous_id:c1").await;
    }
    assert_eq!(merged.id("anonymous_id:b1").await, ids[0], "they are one");
    let all: Vec<String> = merged.ids("user_id:ada").await;
    assert_eq!(all.len(), 6, "{all:?}");

    let merges = merged.identity("user_id:ada").await["merges"].clone();
    let of_b = merges.as_array().unwrap().iter().find(|merge| merge["absorbed"] == json!(ids[1])).unwrap();
    let merge = of_b["id"].as_str().unwrap().to_owned();
    let tried = merged.post(&format!("/identity/merges/{merge}/undo?dry_run=true"), json!({})).await;
    assert_eq!(merged.id("anonymous_id:b1").await, ids[0], "a dry run changes nothing");
    let done = merged.undo(&merge).await;
    for part in ["profiles", "identifiers", "events_moved", "transitions"] {
        assert_eq!(tried[part], done[part], "{part}");
    }
    assert_eq!(done["events_gone"], json!(0));
    assert_eq!([merged.id("user_id:ada").await, merged.id("anonymous_id:b1").await], ids, "ids come back");
    for selector in ["user_id:ada", "anonymous_id:b1"] {
        let (now, then) = (merged.told("users", selector).await, never.told("users", selector).await);
        for (part, then) in then.as_object().unwrap() {
            assert_eq!(&now[part], then, "{selector} {part}");
        }
    }
    for account in ["g1", "g2", "g3"] {
        let selector = format!("group_id:{account}");
        let (now, then) = (merged.told("accounts", &selector).await, never.told("accounts", &selector).await);
        for (part, then) in then.as_object().unwrap() {
            assert_eq!(&now[part], then, "{account} {part}");
        }
    }
    assert_eq!(merged.sizes().await, never.sizes().await);
    merged.check().await;
    let undone = merged.identity("anonymous_id:b1").await;
    assert_eq!(undone["merges"][0]["undone_at"], json!(NOW), "{undone}");
    assert_eq!(undone["kept_apart"], json!([{"profile_id": ids[0], "same_identifiers": true}]));
    assert_eq!(undone["merges"].as_array().unwrap().len(), 2, "the other merge is on its side: {undone}");
    merged
        .app
        .post(&format!("{SPACE}/identity/merges/{merge}/undo"), json!({}))
        .await
        .expect_problem(409, "refused");

    // The same identifiers do not do it again, others do.
    merged.send("track Seen user=ada anon=b1").await;
    assert_eq!(merged.id("anonymous_id:b1").await, ids[1]);
    let refusals = merged.identity("user_id:ada").await["refusals"].clone();
    assert_eq!(refusals[0]["rule"], json!("Profile merge blocked"), "{refusals}");
    let again = merged.app.beside().await;
    let path = format!("{USERS}/anonymous_id:b1/metadata?min_offset={}", merged.offset);
    let beside = again.get(&path).await.expect(200).json;
    assert_eq!(beside["metadata"]["profile_id"], json!(ids[1]), "another process says the same");
    drop(again);
    merged.send("track Seen anon=a2 anonymous_id=b2").await;
    assert_eq!(merged.id("anonymous_id:b1").await, ids[0]);
    merged.check().await;
}

#[tokio::test]
async fn merges_of_merges_come_apart_in_any_order() {
    // Z is older than both, and comes in by B's identifier: so A is the one that goes.
    let mut case = Case::start(Wish::default()).await;
    case.definitions().await;
    case.send_all(&[
        "track Order anon=z {\"total\":1}",
        "track Order user=a",
        "track Order anon=b {\"total\":100}",
    ])
    .await;
    let [z, a, b] =
        [case.id("anonymous_id:z").await, case.id("user_id:a").await, case.id("anonymous_id:b").await];
    case.send_all(&[
        "track Seen user=a anon=b",
        "track Order anon=b {\"total\":20}",
        "track Seen anon=b anonymous_id=z",
    ])
    .await;
    assert_eq!(case.id("user_id:a").await, z);
    let merges = case.identity("user_id:a").await["merges"].clone();
    let first = merges[0]["id"].as_str().unwrap().to_owned();
    let done = case.undo(&first).await;
    assert_eq!(
        done["profiles"],
        json!([{"profile_id": z, "change": "changed"}, {"profile_id": a, "change": "separated"}])
    );
    assert_eq!((case.id("user_id:a").await, case.id("anonymous_id:b").await), (a.clone(), z.clone()));
    assert_eq!(case.traits("anonymous_id:b").await["spent"], json!(121));
    assert_eq!(case.identity("user_id:a").await["former_ids"], json!([]));
    assert_eq!(case.identity("anonymous_id:z").await["former_ids"], json!([b]));
    case.check().await;
    // And what Z was merged by, too.
    let second = case.merge_of("anonymous_id:z").await;
    case.undo(&second).await;
    assert_eq!(
        [case.id("anonymous_id:z").await, case.id("user_id:a").await, case.id("anonymous_id:b").await],
        [z, a, b]
    );
    assert_eq!(case.traits("anonymous_id:z").await["spent"], json!(1));
    assert_eq!(case.traits("anonymous_id:b").await["spent"], json!(120));
    case.check().await;
}

#[tokio::test]
async fn an_unmerge_while_a_definition_is_backfilled_counts_every_event_once() {
    let mut case = Case::start(Wish::default()).await;
    case.send_all(BEFORE).await;
    let batch: Vec<Value> = (0..2_000)
        .map(|n| json!({"type": "track", "event": "Order", "userId": format!("p{}", n % 700), "properties": {"total": 1}}))
        .collect();
    case.app.track("/v1/batch", json!({"batch": batch})).await.expect(200);
    case.send("track Seen user=ada anon=b1").await;
    case.send_all(AFTER).await;
    case.id("user_id:ada").await;
    let merges = case.identity("user_id:ada").await["merges"].clone();
    let merge = merges[0]["id"].as_str().unwrap().to_owned();
    let definition = json!({"key": "spent", "options": {"include_anonymous": true}, "definition": {"query": "event('Order').sum(property('total'))"}});
    case.app.post(&format!("{SPACE}/computed-traits"), definition).await.expect(201);
    case.undo(&merge).await;
    case.app.live("computed-traits", "spent").await;
    assert_eq!(case.traits("user_id:ada").await["spent"], json!(107));
    assert_eq!(case.traits("anonymous_id:b1").await["spent"], json!(91));
    case.check().await;
}

#[tokio::test]
async fn segments_are_made_again_where_events_have_moved() {
    let mut case = Case::start(Wish::default().option("log.segment_events", "5")).await;
    case.send_all(BEFORE).await;
    case.send("track Seen user=ada anon=b1").await;
    case.send_all(AFTER).await;
    let made = |least: u64| {
        let app = &case.app;
        async move {
            for _ in 0..600 {
                let pipeline = app.get(&format!("{SPACE}/pipeline")).await.expect(200).json;
                if pipeline["segments_end_offset"].as_u64().unwrap_or_default() >= least {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            panic!("no segments were made");
        }
    };
    made(15).await;
    let merges = case.identity("user_id:ada").await["merges"].clone();
    case.undo(merges[0]["id"].as_str().unwrap()).await;
    let preview = json!({"options": {"include_anonymous": true}, "definition": {"query": "event('Order').sum(property('total')) = 107 OR event('Order').sum(property('total')) = 91"}});
    let shown = case.post("/audiences/preview", preview.clone()).await;
    assert_eq!(shown["size"], json!(2), "{shown}");
    made(15).await;
    assert_eq!(case.post("/audiences/preview", preview).await["size"], json!(2));
    case.check().await;
}

#[tokio::test]
async fn an_unmerge_that_is_broken_off_is_done_once() {
    let mut case = Case::start(Wish::default()).await;
    case.definitions().await;
    case.send_all(BEFORE).await;
    case.send("track Seen user=ada anon=b1").await;
    case.send_all(AFTER).await;
    let ids = [case.id("user_id:ada").await, case.id("anonymous_id:b1").await];
    assert_eq!(ids[0], ids[1]);
    let merge = case.identity("user_id:ada").await["merges"][0]["id"].as_str().unwrap().to_owned();
    // Its transaction has begun, and does not get to its end.
    let mut lock = case.app.db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM profile WHERE space_id = 1 FOR UPDATE").execute(&mut *lock).await.unwrap();
    let path = format!("{SPACE}/identity/merges/{merge}/undo");
    let request = case.app.request(reqwest::Method::POST, &path).bearer_auth(TOKEN).json(&json!({}));
    let meddle = async {
        case.app.db.wait_for_blocked().await;
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'";
        sqlx::query(cut).execute(&case.app.db.pool).await.unwrap();
        lock.rollback().await.unwrap();
    };
    let (answer, ()) = tokio::join!(request.send(), meddle);
    assert_eq!(answer.unwrap().status(), 200, "it is done all the same");
    assert_eq!(case.id("user_id:ada").await, ids[0]);
    assert_ne!(case.id("anonymous_id:b1").await, ids[0]);
    assert_eq!(case.traits("user_id:ada").await["spent"], json!(107));
    assert_eq!(case.traits("anonymous_id:b1").await["spent"], json!(91));
    let log = case.get(&format!("{SPACE}/audit-log?action=merge.undo")).await;
    assert_eq!(log["data"].as_array().unwrap().len(), 1, "{log}");
    assert_eq!(log["data"][0]["act"]["merge"], json!(merge));
    case.check().await;
}

#[tokio::test]
async fn what_events_left_that_are_kept_no_longer_is_only_given_up_when_asked() {
    let mut case = Case::start(Wish::default()).await;
    case.definitions().await;
    case.send_all(BEFORE).await;
    case.send("track Seen user=ada anon=b1").await;
    case.send_all(AFTER).await;
    let merge = case.identity("user_id:ada").await["merges"][0]["id"].as_str().unwrap().to_owned();
    // As retention does it: the first three events are gone.
    let gone = "DELETE FROM event_chunk WHERE space_id = 1 AND end_offset <= 3";
    assert!(sqlx::query(gone).execute(&case.app.db.pool).await.unwrap().rows_affected() > 0);
    let path = format!("{SPACE}/identity/merges/{merge}/undo");
    let tried = case.app.post(&format!("{path}?dry_run=true"), json!({})).await.expect(200).json;
    assert_eq!(tried["events_gone"], json!(3), "{tried}");
    let refused = case.app.post(&path, json!({})).await.expect(409).json;
    assert_eq!(
        (&refused["code"], &refused["field"]),
        (&json!("refused"), &json!("accept_loss")),
        "{refused}"
    );
    assert_eq!(case.id("anonymous_id:b1").await, case.id("user_id:ada").await, "nothing has happened");
    let done = case.app.post(&format!("{path}?accept_loss=true"), json!({})).await.expect(200).json;
    assert_eq!(done["events_gone"], json!(3));
    assert_ne!(case.id("anonymous_id:b1").await, case.id("user_id:ada").await);
    assert_eq!(case.ids("user_id:ada").await, ["anonymous_id=a2", "email=ada@x.org", "user_id=ada"]);
    assert_eq!(case.traits("user_id:ada").await["spent"], json!(107), "whose events are all there");
    assert_eq!(case.traits("anonymous_id:b1").await["spent"], json!(81), "without an order of 10");
}

#[tokio::test]
async fn what_was_kept_apart_is_so_after_other_merges_were_taken_back() {
    let mut case = Case::start(Wish::default()).await;
    case.send_all(&[
        "track Seen user=u1 anon=a1",
        "track Seen anon=a2 email=e@x.org",
        "track Seen user=u1 anon=a2",
    ])
    .await;
    let [first, second] = [case.id("user_id:u1").await, case.id("anonymous_id:a2").await];
    assert_eq!(first, second);
    case.undo(&case.merge_of("user_id:u1").await).await;
    let second = case.id("anonymous_id:a2").await;
    // By other identifiers they may become one: that was not what was taken back.
    case.send("track Seen email=e@x.org anon=a1").await;
    assert_eq!(case.id("email:e@x.org").await, first);
    case.undo(&case.merge_of("user_id:u1").await).await;
    for again in ["track Seen user=u1 anon=a2", "track Seen email=e@x.org anon=a1"] {
        case.send(again).await;
        assert_eq!(case.id("anonymous_id:a2").await, second, "{again}");
    }
    // What an operator has kept apart, merged, and taken apart again, too.
    case.send_all(&["track Seen user=v1 anon=b1", "track Seen anon=b2"]).await;
    let pair = json!({"profiles": ["user_id:v1", "anonymous_id:b2"]});
    case.post("/identity/blocks", pair.clone()).await;
    case.post("/identity/merges", pair).await;
    assert_eq!(case.identity("user_id:v1").await["kept_apart"], json!([]));
    case.undo(&case.merge_of("user_id:v1").await).await;
    case.send("track Seen user=v1 anon=b2").await;
    assert_ne!(case.id("anonymous_id:b2").await, case.id("user_id:v1").await);
    expect_same(&case.app.db).await;
}

#[tokio::test]
async fn an_identifier_that_is_moved_to_and_fro_is_where_it_was_moved_last() {
    let mut case = Case::start(Wish::default()).await;
    case.send_all(&["identify user=u1 email=e@x.org {}", "track Seen user=u2", "track Seen user=u3"]).await;
    for (from, to) in [("u1", "u2"), ("u2", "u3"), ("u3", "u1"), ("u1", "u2")] {
        let moved = json!({"type": "email", "id": "e@x.org", "to": format!("user_id:{to}")});
        case.app.post(&format!("{USERS}/user_id:{from}/external_ids/move"), moved).await.expect(200);
    }
    // All of them are in one batch of a rebuild.
    expect_same(&case.app.db).await;
    assert_eq!(case.ids("user_id:u2").await, ["email=e@x.org", "user_id=u2"]);
    assert_eq!(case.id("email:e@x.org").await, case.id("user_id:u2").await);
}

#[tokio::test]
async fn destinations_are_told_the_net_change_of_an_unmerge() {
    let mut case = Case::start(sending()).await;
    case.send_all(BEFORE).await;
    case.send("track Seen user=ada anon=b1").await;
    case.send_all(AFTER).await;
    let receiver = Receiver::start().await;
    let webhook = case.app.make_webhook("CRM", &receiver, json!({})).await;
    case.app.subscribe(&webhook, json!({"subject": "custom_traits"})).await;
    case.app
        .wait_destination(&webhook, |d| d["deliveries"]["succeeded"] == 3 && d["deliveries"]["queued"] == 0)
        .await;
    let merge = case.identity("user_id:ada").await["merges"][0]["id"].as_str().unwrap().to_owned();
    case.undo(&merge).await;
    case.app
        .wait_destination(&webhook, |d| d["deliveries"]["succeeded"] == 5 && d["deliveries"]["queued"] == 0)
        .await;
    let told = case.app.deliveries(&webhook, "").await;
    assert_eq!(told.len(), 5, "not once more what was told when it happened: {told:?}");
    let of = |id: &str| told.iter().find(|d| d["profile_id"] == json!(id)).unwrap()["value"].clone();
    let (ada, b1) = (case.id("user_id:ada").await, case.id("anonymous_id:b1").await);
    assert_eq!(of(&ada), json!({"color": "green", "size": null, "hat": null}));
    assert_eq!(of(&b1), json!({"color": "black", "size": 9, "hat": true, "plan": null}));
}

/// What is told of everybody, but for when it came to be so.
async fn everybody(app: &TestApp) -> Vec<Value> {
    let mut all = Vec::new();
    let users = (0..25).map(|n| format!("users/profiles/user_id:u{n}"));
    let people = users.chain((0..4).map(|n| format!("accounts/profiles/group_id:g{n}")));
    for person in people {
        for part in
            ["traits?limit=200", "external_ids?limit=200", "events?limit=200", "links?limit=200", "audiences"]
        {
            let answer = app.get(&format!("{SPACE}/collections/{person}/{part}")).await;
            let mut told = answer.json;
            for audience in told["data"].as_array_mut().into_iter().flatten() {
                audience.as_object_mut().unwrap().remove("entered_at");
            }
            if let Some(traits) = told["traits"].as_object_mut() {
                // Who was in while the two were one, and is out again, is told so.
                traits.retain(|_, value| *value != json!(false));
            }
            all.push(json!({"of": person, "part": part, "told": told}));
        }
    }
    let sizes = app.get(&format!("{SPACE}/audiences/sizes")).await.expect(200).json;
    all.extend(sizes["data"].as_array().unwrap().iter().map(|size| json!([size["key"], size["size"]])));
    all
}

#[tokio::test]
async fn whoever_is_merged_in_whatever_log_is_who_he_was_when_it_is_taken_back() {
    let mut undone = 0;
    for seed in 11..=13 {
        let app = random_log::start().await;
        random_log::define(&app).await;
        random_log::live(&app, seed, random_log::START, 20).await;
        let mut dice = random_log::Dice(seed);
        for _ in 0..6 {
            let before = everybody(&app).await;
            let pair = [(); 2].map(|()| format!("user_id:u{}", dice.roll(25)));
            let body = json!({"profiles": pair, "override_limits": true});
            let merged = app.post(&format!("{SPACE}/identity/merges"), body).await;
            if merged.status != 200 {
                continue;
            }
            let identity = app.get(&format!("{USERS}/{}/identity", pair[0])).await.expect(200).json;
            let offset = &merged.json["offset"];
            let merge =
                identity["merges"].as_array().unwrap().iter().find(|m| m["offset"] == *offset).unwrap();
            let path = format!("{SPACE}/identity/merges/{}/undo", merge["id"].as_str().unwrap());
            app.post(&path, json!({})).await.expect(200);
            for (before, after) in before.iter().zip(everybody(&app).await) {
                assert_eq!(*before, after, "seed {seed}: {pair:?}");
            }
            undone += 1;
        }
        let (said, code) = verify(&app.db, &[]);
        assert_eq!(code, 0, "seed {seed}: {said}");
        expect_same(&app.db).await;
    }
    assert!(undone > 6, "{undone} merges were taken back");
}
