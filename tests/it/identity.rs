//! The identity vectors ID-01 to ID-31 of the specification, through HTTP; and again after a restart and a rebuild.

use serde_json::{Value, json};

use crate::harness::people::{PROFILES, People, call};

#[tokio::test]
async fn id_01_to_06_the_graph_grows_and_is_protected() {
    let mut p = People::start().await;
    p.see(&["anon=anon_1", "anon=anon_3 user=user_1 email=demo", "anon=anon_1 user=user_1 email=demo"]).await;
    p.expect_ids("user_id:user_1", "anonymous_id=anon_1 anonymous_id=anon_3 user_id=user_1 email=demo").await;
    let merges = p.get("user_id:user_1", "identity").await["merges"].clone();
    assert_eq!(merges.as_array().unwrap().len(), 1, "{merges}");
    assert_eq!(merges[0]["survivor"], json!(p.who("anonymous_id:anon_1").await), "the older one stays");

    p.see(&["anon=a1 user=u1", "anon=a1", "anon=a1 user=u2"]).await;
    p.expect_ids("user_id:u1", "anonymous_id=a1 user_id=u1").await;
    p.expect_ids("user_id:u2", "user_id=u2").await;
    assert_eq!(p.refusals("user_id:u2").await, ["Identifier value limit exceeded: a1"]);

    p.see(&["user=abc123 email=jane@example1.com", "user=abc456 email=jane@example1.com"]).await;
    p.expect_ids("user_id:abc123", "user_id=abc123 email=jane@example1.com").await;
    p.expect_ids("user_id:abc456", "user_id=abc456").await;

    p.send("/v1/page", json!({"anonymousId": "anon_123"})).await;
    let before = p.who("anonymous_id:anon_123").await;
    p.see(&["anon=anon_123 user=use_123"]).await;
    assert_eq!(p.who("user_id:use_123").await, before);

    p.send("/v1/page", json!({"anonymousId": "5285"})).await;
    let first = p.who("anonymous_id:5285").await;
    p.send("/v1/identify", json!({"anonymousId": "5285", "traits": {"email": "jane.kim@segment.com"}})).await;
    p.send("/v1/page", json!({"anonymousId": "b50e"})).await;
    let second = p.who("anonymous_id:b50e").await;
    p.send("/v1/identify", json!({"anonymousId": "b50e", "traits": {"email": "Jane.Kim@segment.com "}}))
        .await;
    p.expect_ids("anonymous_id:b50e", "anonymous_id=5285 anonymous_id=b50e email=jane.kim@segment.com").await;
    assert_eq!(p.who("anonymous_id:b50e").await, first);
    assert_eq!(p.who(&format!("profile_id:{second}")).await, first, "former ids resolve for ever");

    p.see(&[
        "anon=anon_123x ios.id=ios_abc123",
        "anon=anon_123x ios.id=ios_abc123 user=abc123def email=x@y.z",
        "anon=anon_456 android.id=and_1a2b3c4d user=abc123def",
        "anon=anon_789 android.id=and_1a2b3c4d user=abc123def",
    ])
    .await;
    let ids = "user_id=abc123def email=x@y.z anonymous_id=anon_123x anonymous_id=anon_456 anonymous_id=anon_789 \
               ios.id=ios_abc123 android.id=and_1a2b3c4d";
    p.expect_ids("email:x@y.z", ids).await;
    p.endures().await;
}

#[tokio::test]
async fn id_07_and_08_blocked_values_are_never_identifiers() {
    let mut p = People::start().await;
    p.see(&["user=00000000-0000-0000-0000-000000000000 anon=a9"]).await;
    p.expect_ids("anonymous_id:a9", "anonymous_id=a9").await;
    let refused = "ID value blocked: 00000000-0000-0000-0000-000000000000";
    assert_eq!(p.refusals("anonymous_id:a9").await, [refused]);
    for junk in ["null", "Undefined", "GUEST", "n/a", "[object Object]", "-1", "0", "0000", "anonymous"] {
        p.send("/v1/track", json!({"userId": junk, "event": "Seen"})).await;
    }
    assert_eq!(p.users().await, 1, "no profile is made by junk");
    let listed = p.app.get("/v1/spaces/default/rejected-events?code=no_identifier").await.expect(200).json;
    assert_eq!(listed["data"].as_array().unwrap().len(), 9, "{listed}");
    let pipeline = p.app.get("/v1/spaces/default/pipeline").await.json;
    assert_eq!((&pipeline["unidentified"], &pipeline["log_end_offset"]), (&json!(9), &json!(10)));
    p.endures().await;
}

#[tokio::test]
async fn id_09_to_12_limits_refuse_only_what_is_too_much() {
    let mut p = People::start().await;
    p.send("/v1/identify", json!({"userId": "u1", "traits": {"phone": "555"}})).await;
    p.expect_ids("user_id:u1", "user_id=u1").await;
    assert_eq!(p.traits("user_id:u1").await, json!({"phone": "555"}));

    for n in 1..=6 {
        p.send("/v1/identify", json!({"userId": "u1", "traits": {"email": format!("e{n}@x.y")}})).await;
    }
    p.expect_ids("user_id:u1", "user_id=u1 email=e1@x.y email=e2@x.y email=e3@x.y email=e4@x.y email=e5@x.y")
        .await;
    assert_eq!(p.traits("user_id:u1").await["email"], "e6@x.y", "the trait is the newest value all the same");

    for n in 1..=5 {
        p.see(&[&format!("user=u11 anon=d{n}")]).await;
    }
    p.see(&["user=u11 anon=d6", "anon=d6", "user=u11 anon=d6"]).await;
    p.expect_ids("anonymous_id:d6", "anonymous_id=d6").await;
    assert_eq!(p.ids("user_id:u11").await.len(), 6);

    p.see(&["user=u12 ios.id=ipad", "user=u13 ios.id=ipad"]).await;
    p.expect_ids("ios.id:ipad", "user_id=u12 ios.id=ipad").await;
    p.expect_ids("user_id:u13", "user_id=u13").await;
    p.endures().await;
}

#[tokio::test]
async fn id_13_limits_can_be_the_other_way_round() {
    let mut p = People::start().await;
    p.set(json!({"type": "user_id", "limit": 2})).await;
    p.set(json!({"type": "email", "limit": 1})).await;
    p.see(&["user=shop1 email=e", "user=uuid1 email=e", "user=x3 email=e"]).await;
    p.expect_ids("user_id:shop1", "user_id=shop1 user_id=uuid1 email=e").await;
    p.expect_ids("user_id:x3", "user_id=x3").await;
    p.endures().await;
}

#[tokio::test]
async fn id_14_to_17_merges_and_what_they_refuse() {
    let mut p = People::start().await;
    p.see(&["anon=a1 ga_client_id=g", "anon=a2 ga_client_id=g"]).await;
    p.expect_ids("ga_client_id:g", "anonymous_id=a1 anonymous_id=a2 ga_client_id=g").await;

    p.see(&["anon=b1", "email=b2@x.y anon=b9", "user=b3"]).await;
    let oldest = p.who("anonymous_id:b1").await;
    p.see(&["anon=b1 email=b2@x.y user=b3"]).await;
    assert_eq!(p.who("user_id:b3").await, oldest);
    assert_eq!(p.get("user_id:b3", "identity").await["merges"].as_array().unwrap().len(), 2);

    p.see(&["user=c1 anon=ca", "user=c2 email=ce@x.y", "anon=ca email=ce@x.y"]).await;
    p.expect_ids("user_id:c1", "user_id=c1 anonymous_id=ca").await;
    p.expect_ids("user_id:c2", "user_id=c2 email=ce@x.y").await;
    assert_eq!(p.refusals("user_id:c2").await, ["Identifier value limit exceeded: ca"]);

    p.see(&["user=d1", "user=d2 email=de@x.y", "anon=da", "user=d1 email=de@x.y anon=da"]).await;
    p.expect_ids("user_id:d1", "user_id=d1 anonymous_id=da").await;
    assert_eq!(p.refusals("user_id:d1").await, ["Identifier value limit exceeded: de@x.y"]);
    p.endures().await;
}

#[tokio::test]
async fn id_18_a_windowed_limit_counts_from_when_an_identifier_was_first_seen() {
    let mut p = People::start().await;
    p.set(json!({"type": "anonymous_id", "frequency": "weekly"})).await;
    let at = |day: u8, anon: &str| json!({"userId": "u1", "anonymousId": anon, "event": "Seen", "timestamp": format!("2024-02-0{day}T00:00:00Z")});
    for n in 1..=5 {
        p.send("/v1/track", at(1, &format!("a{n}"))).await;
    }
    p.send("/v1/track", at(4, "a6")).await;
    assert_eq!(p.ids("user_id:u1").await.len(), 6);
    assert_eq!(p.refusals("user_id:u1").await, ["Identifier value time limit exceeded: a6"]);
    p.send("/v1/track", at(9, "a6")).await;
    assert_eq!(p.ids("user_id:u1").await.len(), 7);
    p.endures().await;
}

#[tokio::test]
async fn a_windowed_limit_survives_merges() {
    let mut p = People::start().await;
    p.set(json!({"type": "anonymous_id", "frequency": "weekly"})).await;
    let at = |day: u8, mut call: Value| {
        call["timestamp"] = json!(format!("2024-02-{day:02}T00:00:00Z"));
        call
    };
    for anon in ["a1", "a2", "a3"] {
        p.send("/v1/track", at(1, call(&format!("user=u1 anon={anon}")))).await;
    }
    for anon in ["a4", "a5"] {
        p.send("/v1/track", at(4, call(&format!("email=e@x.y anon={anon}")))).await;
    }
    // Together they have five of this week, and each keeps the day it came on (I7).
    p.send("/v1/track", at(5, call("user=u1 email=e@x.y"))).await;
    assert_eq!(p.ids("user_id:u1").await.len(), 7);
    p.send("/v1/track", at(6, call("user=u1 anon=a6"))).await;
    assert_eq!(p.refusals("user_id:u1").await, ["Identifier value time limit exceeded: a6"]);
    // A week after the first three there is room for three, whenever the merge was.
    for anon in ["a7", "a8", "a9", "b1"] {
        p.send("/v1/track", at(9, call(&format!("user=u1 anon={anon}")))).await;
    }
    assert_eq!(p.ids("user_id:u1").await.len(), 10);
    assert!(p.refusals("user_id:u1").await.contains(&"Identifier value time limit exceeded: b1".to_owned()));
    p.endures().await;
}

#[tokio::test]
async fn several_values_of_one_type_are_taken_in_order_of_value() {
    let mut p = People::start().await;
    p.see(&["user=u1 email=b@x.y email=a@x.y email=B@x.y"]).await;
    p.expect_ids("email:b@x.y", "user_id=u1 email=a@x.y email=b@x.y").await;
    // Five are the limit, whichever way round they are sent (I6).
    let letters = ["a", "b", "c", "d", "e", "f"];
    let words = |user: &str, letters: &mut dyn Iterator<Item = &&str>| {
        letters.fold(format!("user={user}"), |words, l| format!("{words} email={l}@{user}.y"))
    };
    p.see(&[&words("u2", &mut letters.iter()), &words("u3", &mut letters.iter().rev())]).await;
    for user in ["u2", "u3"] {
        let expected = words(user, &mut letters[..5].iter()).replacen("user=", "user_id=", 1);
        p.expect_ids(&format!("user_id:{user}"), &expected).await;
        let refusals = p.refusals(&format!("user_id:{user}")).await;
        assert_eq!(refusals, [format!("Identifier value limit exceeded: f@{user}.y")]);
    }
    p.endures().await;
}

#[tokio::test]
async fn id_19_and_20_at_a_cap_events_are_neither_frozen_nor_lost() {
    let mut p = People::start().await;
    let caps = json!({"merges_max": 1, "identifiers_max": 3});
    p.app.patch("/v1/spaces/default/identity/settings", caps).await.expect(200);
    p.see(&["anon=a1", "user=u1", "email=e1@x.y anon=a7", "anon=a1 user=u1", "email=e1@x.y user=u1"]).await;
    p.expect_ids("user_id:u1", "anonymous_id=a1 user_id=u1").await;
    assert_eq!(p.refusals("user_id:u1").await, ["Profile merge limit exceeded: e1@x.y"]);
    p.see(&["user=u1 anon=a2", "user=u1 anon=a3"]).await;
    p.expect_ids("user_id:u1", "anonymous_id=a1 anonymous_id=a2 user_id=u1").await;
    assert!(p.refusals("user_id:u1").await.contains(&"Identifier mapping limit exceeded: a3".to_owned()));
    let events = p.get("user_id:u1", "events").await;
    assert_eq!(events["data"].as_array().unwrap().len(), 6, "every event is there");
    p.endures().await;
}

#[tokio::test]
async fn id_21_to_23_identifiers_are_read_where_they_stand() {
    let mut p = People::start().await;
    p.set(json!({"type": "app_id", "keys": ["app_id"]})).await;
    p.send("/v1/identify", json!({"userId": "u1", "traits": {"appId": "A1"}})).await;
    p.send("/v1/track", json!({"anonymousId": "x1", "event": "Seen", "properties": {"app_id": "A1"}})).await;
    p.expect_ids("user_id:u1", "user_id=u1 app_id=A1 anonymous_id=x1").await;

    let no_encoding = json!({"externalIds": [{"id": "zz", "type": "email", "collection": "users"}]});
    p.send("/v1/track", json!({"userId": "u22", "event": "Seen", "context": no_encoding})).await;
    p.expect_ids("user_id:u22", "user_id=u22").await;

    let device = |tracking: bool| json!({"device": {"type": "android", "id": "x", "advertisingId": "y", "adTrackingEnabled": tracking, "token": "z"}});
    p.send("/v1/track", json!({"userId": "u23", "event": "Seen", "context": device(false)})).await;
    p.expect_ids("user_id:u23", "user_id=u23 android.id=x android.push_token=z").await;
    p.send("/v1/track", json!({"userId": "u23", "event": "Seen", "context": device(true)})).await;
    p.expect_ids("android.idfa:y", "user_id=u23 android.id=x android.push_token=z android.idfa=y").await;
    let google = json!({"integrations": {"Google Analytics": {"clientId": "ga1"}}});
    p.send("/v1/track", json!({"userId": "u24", "event": "Seen", "context": google})).await;
    p.expect_ids("ga_client_id:ga1", "user_id=u24 ga_client_id=ga1").await;
    // A type nobody knows is added with the defaults (I12b).
    p.see(&["user=u25 loyalty_card=77", "anon=a25 loyalty_card=77"]).await;
    p.expect_ids("loyalty_card:77", "user_id=u25 anonymous_id=a25 loyalty_card=77").await;
    p.endures().await;
}

#[tokio::test]
async fn id_24_and_25_accounts_are_linked_and_alias_never_merges() {
    let mut p = People::start().await;
    p.send(
        "/v1/group",
        json!({"userId": "u1", "groupId": "g1", "traits": {"name": "Acme", "email": "acme@x.y"}}),
    )
    .await;
    let links = p.get("user_id:u1", "links").await;
    assert_eq!(links["data"][0]["to_collection"], "accounts");
    assert_eq!(links["data"][0]["external_ids"][0]["id"], "g1");
    p.expect_ids("user_id:u1", "user_id=u1").await;
    let accounts = "/v1/spaces/default/collections/accounts/profiles/group_id:g1";
    let account = p.app.get(&format!("{accounts}/traits")).await.expect(200).json;
    assert_eq!(account["traits"], json!({"email": "acme@x.y", "name": "Acme"}));
    let users = p.app.get(&format!("{accounts}/links")).await.expect(200).json;
    assert_eq!(users["data"][0]["external_ids"][0]["id"], "u1");
    p.app.get("/v1/spaces/default/collections/users/profiles/group_id:g1/traits").await.expect(404);

    p.see(&["anon=a", "user=b"]).await;
    p.send("/v1/alias", json!({"previousId": "a", "userId": "b", "anonymousId": "a"})).await;
    assert_ne!(p.who("anonymous_id:a").await, p.who("user_id:b").await);
    let calls = p.get("user_id:b", "events").await;
    assert_eq!(calls["data"][0]["type"], "alias", "{calls}");
    p.endures().await;
}

#[tokio::test]
async fn id_26_and_27_the_newest_trait_wins_and_null_removes() {
    let mut p = People::start().await;
    let identify = |who: Value, at: &str, traits: Value| {
        let mut call = who;
        call["traits"] = traits;
        call["timestamp"] = json!(at);
        call
    };
    let (t1, t2) = ("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z");
    p.send(
        "/v1/identify",
        identify(json!({"userId": "u1"}), t2, json!({"first_name": "Rob", "plan": "pro"})),
    )
    .await;
    p.send(
        "/v1/identify",
        identify(json!({"anonymousId": "a1"}), t1, json!({"firstName": "Bob", "city": "X"})),
    )
    .await;
    p.see(&["user=u1 anon=a1"]).await;
    assert_eq!(p.traits("user_id:u1").await, json!({"first_name": "Rob", "city": "X", "plan": "pro"}));
    p.send(
        "/v1/identify",
        identify(json!({"userId": "u1"}), "2024-01-03T00:00:00Z", json!({"plan": null, "city": ""})),
    )
    .await;
    p.send("/v1/identify", identify(json!({"userId": "u1"}), t2, json!({"plan": "late"}))).await;
    assert_eq!(p.traits("user_id:u1").await, json!({"first_name": "Rob", "city": ""}));
    p.endures().await;
}

#[tokio::test]
async fn id_29_to_31_duplicates_order_and_late_merges() {
    let mut p = People::start().await;
    p.app.make_live("audiences", "viewers", "event('Seen').count() >= 3").await;
    let mut once = call("user=u1 anon=a1");
    once["messageId"] = json!("m1");
    for _ in 0..3 {
        p.send("/v1/track", once.clone()).await;
    }
    assert_eq!(p.get("user_id:u1", "events").await["data"].as_array().unwrap().len(), 1);
    assert_eq!(p.app.get("/v1/spaces/default/pipeline").await.json["duplicates"], 2);

    p.see(&["user=x1 anon=y1", "anon=y1", "anon=y2", "user=x2 anon=y2"]).await;
    p.expect_ids("anonymous_id:y1", "user_id=x1 anonymous_id=y1").await;
    p.expect_ids("anonymous_id:y2", "user_id=x2 anonymous_id=y2").await;

    p.see(&["user=late", "anon=early", "anon=early"]).await;
    let size = async |p: &People| {
        let path = format!("/v1/spaces/default/audiences/viewers/size?min_offset={}", p.offset);
        p.app.get(&path).await.expect(200).json["size"].clone()
    };
    assert_eq!(size(&p).await, 0);
    p.see(&["user=late anon=early"]).await;
    assert_eq!(size(&p).await, 1, "both histories count, once");
    assert_eq!(p.traits("anonymous_id:early").await, json!({"viewers": true}));
    p.endures().await;
}

#[tokio::test]
async fn id_28_an_identifier_is_deleted_by_segments_endpoint_and_codes() {
    let mut p = People::start().await;
    p.see(&["user=u1 email=e1@x.y anon=a1"]).await;
    p.send("/v1/group", json!({"userId": "u1", "groupId": "g1"})).await;
    p.who("user_id:u1").await;
    let ids = |ids: Value| json!({ "delete_external_ids": ids });
    let email = || json!([{"id": "E1@x.y", "type": "email"}]);
    let group = || json!([{"id": "g1", "type": "group_id"}]);
    for (collection, profile, body, status, code) in [
        ("users", "user_id:u1", ids(group()), 400, "unsupported_eid_type"),
        ("accounts", "group_id:g1", ids(group()), 400, "unsupported_eid_type"),
        ("users", "user_id:u1", ids(json!([email()[0], email()[0]])), 400, "bad_request"),
        ("users", "user_id:u1", ids(json!([])), 400, "bad_request"),
        ("users", "user_id:u1", ids(json!([{"id": "other@x.y", "type": "email"}])), 404, "eid_not_found"),
        ("users", "user_id:nobody", ids(email()), 404, "not_found"),
    ] {
        let path =
            format!("/v1/spaces/default/collections/{collection}/profiles/{profile}/external_ids/delete");
        let answer = p.app.post(&path, body).await.expect(status);
        assert_eq!(answer.json["error"]["code"], code, "{}", answer.text);
    }
    let path = format!("{PROFILES}/anonymous_id:a1/external_ids/delete");
    let done = p.app.post(&path, ids(email())).await.expect(200).json;
    assert_eq!(done["code"], "success");
    p.expect_ids("user_id:u1", "user_id=u1 anonymous_id=a1").await;
    p.app.get(&format!("{PROFILES}/email:e1@x.y/metadata")).await.expect(404);
    p.app.post(&path, ids(json!([{"id": "u1", "type": "user_id"}]))).await.expect(200);
    let last = p.app.post(&path, ids(json!([{"id": "a1", "type": "anonymous_id"}]))).await.expect(400);
    assert_eq!(last.json["error"]["code"], "bad_request");
    // Of the last two only one goes, however close the calls are.
    p.see(&["user=w1 anon=w2"]).await;
    p.who("user_id:w1").await;
    let path = format!("{PROFILES}/user_id:w1/external_ids/delete");
    let [one, two] = [("w1", "user_id"), ("w2", "anonymous_id")]
        .map(|(id, id_type)| p.app.post(&path, ids(json!([{"id": id, "type": id_type}]))));
    let (one, two) = tokio::join!(one, two);
    let mut answers = [one.status, two.status];
    answers.sort_unstable();
    assert!(answers == [200, 400] || answers == [200, 404], "{answers:?}");
    // Free again: the next event may bring it to somebody else.
    p.see(&["user=u2 email=e1@x.y"]).await;
    p.expect_ids("email:e1@x.y", "user_id=u2 email=e1@x.y").await;
    p.endures().await;
}
