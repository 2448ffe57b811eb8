//! A rebuild in which there is a profile more than before: everybody who was made later keeps the id, the history, and what
//! waits for destinations.

use serde_json::{Value, json};

use crate::harness::acts::{Case, SPACE};
use crate::harness::destinations::sending;
use crate::harness::people::SETTINGS;
use crate::harness::rebuild::{expect_same, json_of, run};
use crate::harness::receiver::{Receiver, Reply};

/// Transitions of an audience: by whom, oldest first.
async fn transitions(case: &Case, key: &str) -> Vec<(String, String)> {
    let list = case.get(&format!("{SPACE}/audiences/{key}/transitions?limit=200")).await;
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = list["data"].as_array().unwrap().iter().rev();
    rows.map(|row| (text(row, "profile_id"), text(row, "transition"))).collect()
}

async fn block(case: &Case) {
    let blocked =
        json!({"identifiers": [{"type": "ios.id", "blocked": {"exact": ["shared"], "patterns": []}}]});
    case.app.patch(SETTINGS, blocked).await.expect(200);
}

/// Two who are taken for one, and two who came after them.
async fn start() -> (Case, Receiver, Value) {
    let receiver = Receiver::start().await;
    let mut case = Case::start(sending()).await;
    case.app.make_live("audiences", "buyers", "event('Order').count() >= 1").await;
    case.app.make_live("computed-traits", "orders", "event('Order').count()").await;
    let hook = case.app.make_webhook("CRM", &receiver, json!({})).await;
    case.app.subscribe(&hook, json!({"subject": "audience", "key": "*"})).await;
    case.app.subscribe(&hook, json!({"subject": "computed_trait", "key": "orders"})).await;
    case.app.subscribe(&hook, json!({"subject": "custom_traits"})).await;
    case.app.subscribe(&hook, json!({"subject": "merges"})).await;
    case.send_all(&[
        "identify user=u1 ios.id=shared {\"plan\":\"pro\"}",
        "identify user=v1 email=v@x.y {\"plan\":\"v\"}",
        "track Seen anon=a1 ios.id=shared",
        "track Order user=u2",
        "identify user=u3 {\"plan\":\"free\"}",
        "group user=u3 group=g1 {\"name\":\"Acme\"}",
        "track Order user=u3",
    ])
    .await;
    case.app.wait_sent(&hook).await;
    (case, receiver, hook)
}

#[tokio::test]
async fn ids_and_history_stay_with_whom_they_belong_to() {
    let (case, _receiver, _hook) = start().await;
    let people = ["user_id:u1", "user_id:v1", "user_id:u2", "user_id:u3"];
    let mut before = Vec::new();
    for who in people {
        before.push((case.id(who).await, case.traits(who).await, case.ids(who).await));
    }
    let told = transitions(&case, "buyers").await;
    block(&case).await;
    let report = json_of(&run(&case.app.db, &["--json"]).await);
    assert_eq!(
        (&report["only_live"]["count"], &report["only_rebuilt"]["count"]),
        (&json!(0), &json!(1)),
        "{report}"
    );
    let different = &report["different"];
    assert_eq!(different["identifiers"]["count"], 1, "the one who shared a device: {report}");
    for kind in ["traits", "computed_traits", "memberships", "links"] {
        assert_eq!(different[kind]["count"], 0, "{kind}: {report}");
    }
    assert_eq!(report["audiences"], json!([]), "{report}");
    for (who, (id, traits, ids)) in people.into_iter().zip(before).skip(1) {
        assert_eq!(
            (case.id(who).await, case.traits(who).await, case.ids(who).await),
            (id, traits, ids),
            "{who}"
        );
        let path = format!("profile_id:{}", case.id(who).await);
        assert_eq!(case.id(&path).await, case.id(who).await);
    }
    assert_eq!(transitions(&case, "buyers").await, told);
    assert_ne!(case.id("anonymous_id:a1").await, case.id("user_id:u1").await);
    case.check().await;
    expect_same(&case.app.db).await;
}

/// What was told of each color: by whose identifiers.
fn colors(receiver: &Receiver) -> Vec<(String, String)> {
    let told = receiver.taken().into_iter().filter(|event| event["traits"]["color"].is_string());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    told.map(|event| (text(&event["traits"]["color"]), text(&event["userId"]))).collect()
}

#[tokio::test]
async fn what_waits_or_was_given_up_is_of_the_same_people() {
    let (mut case, receiver, hook) = start().await;
    receiver.now(|_, _| Reply::Status(400));
    case.send_all(&["identify user=u3 {\"color\":\"dead\"}"]).await;
    case.app.wait_destination(&hook, |d| d["deliveries"]["dead"] == 1).await;
    receiver.now(|_, _| Reply::Status(500));
    case.send_all(&["identify user=u2 {\"color\":\"held\"}"]).await;
    case.app.wait_destination(&hook, |d| d["deliveries"]["waiting_profiles"] == 1).await;
    case.app.act(&hook, "pause", json!({})).await;
    case.send_all(&["identify user=v1 {\"color\":\"waits\"}", "identify user=u3 {\"color\":\"too\"}"]).await;
    // Two who become one, and are two again.
    case.send_all(&["track Seen anon=b1", "track Seen user=u3 anon=b1"]).await;
    let (merge, merged) = (case.merge_of("user_id:u3").await, case.id("user_id:u3").await);
    case.undo(&merge).await;
    let apart = case.id("anonymous_id:b1").await;
    block(&case).await;
    json_of(&run(&case.app.db, &["--json"]).await);
    receiver.now(|_, _| Reply::Status(200));
    case.app.act(&hook, "resume", json!({})).await;
    case.app.put("/v1/test-clock", json!({"now": "2024-03-01T13:00:00Z"})).await.expect(200);
    case.app.wait_sent(&hook).await;
    let dead = json!({"destination": hook["id"], "state": "dead"});
    case.app.post(&format!("{SPACE}/deliveries/replay"), dead).await.expect(200);
    case.app.wait_sent(&hook).await;
    let mut told = colors(&receiver);
    told.sort_unstable();
    // Both sides of a merge that was taken back are told once more what holds for them.
    told.dedup();
    let pair = |color: &str, who: &str| (color.to_owned(), who.to_owned());
    assert_eq!(told, [pair("dead", "u3"), pair("held", "u2"), pair("too", "u3"), pair("waits", "v1")]);
    let named = receiver.taken().into_iter().filter_map(|event| {
        let properties = &event["properties"];
        let name = |key: &str| properties[key].as_str().map(str::to_owned);
        Some((
            event["event"].as_str()?.to_owned(),
            name("merged_profile_id").or_else(|| name("separated_from_profile_id"))?,
        ))
    });
    let mut named: Vec<(String, String)> = named.collect();
    named.sort_unstable();
    assert_eq!(named, [("Profile Merged".to_owned(), apart), ("Profile Separated".to_owned(), merged)]);
}

/// Whether values that devices share are identifiers.
async fn share(case: &Case, blocked: bool) {
    let exact = |value: &str| if blocked { json!([value]) } else { json!([]) };
    let rule =
        |name: &str, value: &str| json!({"type": name, "blocked": {"exact": exact(value), "patterns": []}});
    let change = json!({"identifiers": [rule("ios.id", "shared"), rule("android.id", "shared")]});
    case.app.patch(SETTINGS, change).await.expect(200);
    json_of(&run(&case.app.db, &["--json"]).await);
}

#[tokio::test]
async fn the_id_of_who_is_made_no_more_leads_to_who_has_what_it_had() {
    let mut case = Case::start(sending()).await;
    share(&case, true).await;
    case.send_all(&[
        "identify user=z1 android.id=shared",
        "track Seen anon=z2 android.id=shared",
        "identify user=u1 ios.id=shared {\"plan\":\"pro\"}",
        "identify anon=a1 ios.id=shared email=a@x.y",
        // Two who are one by then, and are both made no more.
        "track Seen anon=b1 ios.id=shared",
        "track Seen anon=b1 email=a@x.y",
        "identify user=last",
    ])
    .await;
    let people = ["user_id:z1", "anonymous_id:z2", "user_id:u1", "anonymous_id:a1", "user_id:last"];
    let mut ids = Vec::new();
    for who in people {
        ids.push(case.id(who).await);
    }
    let [z1, z2, u1, a1, last] = ids.as_slice() else { panic!() };
    let merges = case.get(&format!("{SPACE}/collections/users/profiles/anonymous_id:a1/identity")).await;
    let b1 = merges["merges"][0]["absorbed"].as_str().unwrap().to_owned();
    let now = async |case: &Case, of: &str| case.id(&format!("profile_id:{of}")).await;
    // Nobody but the two shared devices: who had part of one is one with its first owner.
    share(&case, false).await;
    for (of, means) in [(z1, z1), (z2, z1), (u1, u1), (a1, u1), (&b1, u1), (last, last)] {
        assert_eq!(now(&case, of).await, *means, "{of}");
    }
    assert_eq!(case.id("anonymous_id:a1").await, *u1);
    let path = format!("{SPACE}/deliveries?profile_id={a1}");
    assert_eq!(case.get(&path).await["data"], json!([]), "the id is known here, too");
    expect_same(&case.app.db).await;
    // The signposts are followed by whoever they point to, and are forgotten by those who are somebody again.
    case.app.patch(SETTINGS, json!({"identifiers": [{"type": "android.id", "blocked": {"exact": ["shared"], "patterns": []}}]})).await.expect(200);
    json_of(&run(&case.app.db, &["--json"]).await);
    for (of, means) in [(z1, z1), (z2, z2), (u1, u1), (a1, u1), (&b1, u1), (last, last)] {
        assert_eq!(now(&case, of).await, *means, "{of}");
    }
    share(&case, true).await;
    for (of, means) in [(z1, z1), (z2, z2), (u1, u1), (a1, a1), (&b1, a1), (last, last)] {
        assert_eq!(now(&case, of).await, *means, "{of}");
    }
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM former_profile").fetch_one(&case.app.db.pool).await.unwrap();
    assert_eq!(left, 0);
    expect_same(&case.app.db).await;
    case.check().await;
}
