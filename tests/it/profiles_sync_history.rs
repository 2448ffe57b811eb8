//! Profiles Sync: the tables of history, as they come of what is sent to the service (personas.md 10).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::acts::{Case, SPACE, USERS};
use crate::harness::app::TestApp;
use crate::harness::destinations::{DELIVERIES, DESTINATIONS, sending};
use crate::harness::warehouse::Warehouse;

const GRAPH: &str = "segment_id, canonical_segment_id, triggering_event_type, triggering_event_id";
const MAPPING: &str = "segment_id, external_id_type, external_id_value, \"__operation\", triggering_event_type, triggering_event_id";

/// Rows with names in the place of profiles.
async fn named(
    warehouse: &Warehouse,
    what: &str,
    table: &str,
    names: &BTreeMap<String, &str>,
) -> Vec<String> {
    let mut rows = warehouse.rows(what, table).await;
    for row in &mut rows {
        for (id, name) in names {
            *row = row.replace(id, name);
        }
    }
    rows.sort();
    rows
}

/// The profiles of a space in the order they were made, former ones too.
async fn profiles(app: &TestApp, names: &[&'static str]) -> BTreeMap<String, &'static str> {
    let sql = "SELECT 'prf_' || replace(profile_id::text, '-', '') FROM profile ORDER BY profile_no";
    let ids: Vec<String> = sqlx::query_scalar(sql).fetch_all(&app.db.pool).await.unwrap();
    assert_eq!(ids.len(), names.len());
    ids.into_iter().zip(names.iter().copied()).collect()
}

/// The events of the case study (personas.md 3.9, ID-05).
async fn case_study(app: &TestApp) {
    for (kind, id, at, anonymous, email) in [
        ("page", "event_1", "2022-05-02T14:01:00Z", "5285bc35-05ef-4d21", None),
        ("identify", "event_2", "2022-05-02T14:01:47Z", "5285bc35-05ef-4d21", Some("jane.kim@segment.com")),
        ("page", "event_3", "2022-06-22T10:47:15Z", "b50e18a5-1b8d-451c", None),
        ("identify", "event_4", "2022-06-22T10:48:00Z", "b50e18a5-1b8d-451c", Some("jane.kim@segment.com")),
    ] {
        let mut call = json!({"messageId": id, "timestamp": at, "anonymousId": anonymous});
        if let Some(email) = email {
            call["traits"] = json!({"email": email});
        }
        app.processed(&format!("/v1/{kind}"), call).await;
    }
}

#[tokio::test]
async fn the_case_study_has_the_rows_of_the_specification() {
    let app = sending().start().await;
    let warehouse = Warehouse::start(&app, &["profile_updates", "events"]).await;
    case_study(&app).await;
    warehouse.settle(&app).await;
    let names = profiles(&app, &["profile_1", "profile_2"]).await;
    let at = "to_char(\"timestamp\" at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS')";
    let id = "triggering_event_type, triggering_event_id";
    let what = format!("segment_id, canonical_segment_id, {id}, {at}");
    let graph = named(&warehouse, &what, "id_graph_updates", &names);
    assert_eq!(
        graph.await,
        [
            "profile_1 profile_1 page event_1 2022-05-02 14:01:00",
            "profile_2 profile_1 identify event_4 2022-06-22 10:48:00",
            "profile_2 profile_2 page event_3 2022-06-22 10:47:15",
        ]
    );
    let what = format!("segment_id, external_id_type, external_id_value, {id}, {at}");
    assert_eq!(
        named(&warehouse, &what, "external_id_mapping_updates", &names).await,
        [
            "profile_1 anonymous_id 5285bc35-05ef-4d21 page event_1 2022-05-02 14:01:00",
            "profile_1 email jane.kim@segment.com identify event_2 2022-05-02 14:01:47",
            // As the event was; 10:48:00 is printed in the case study.
            "profile_2 anonymous_id b50e18a5-1b8d-451c page event_3 2022-06-22 10:47:15",
        ]
    );
    assert_eq!(
        named(&warehouse, "segment_id, id", "pages", &names).await,
        ["profile_1 event_1", "profile_2 event_3"]
    );
    assert_eq!(
        named(&warehouse, "segment_id, id", "identifies", &names).await,
        ["profile_1 event_2", "profile_2 event_4"]
    );
    assert_eq!(
        named(&warehouse, "segment_id, coalesce(email, '-'), merged_to", "profile_traits", &names).await,
        ["profile_1 jane.kim@segment.com", "profile_2 - profile_1"]
    );
    assert_eq!(
        named(&warehouse, "segment_id, canonical_segment_id", "id_graph", &names).await,
        ["profile_1 profile_1", "profile_2 profile_1"]
    );
    let what = "canonical_segment_id, external_id_type, external_id_value";
    assert_eq!(
        named(&warehouse, what, "external_id_mapping", &names).await,
        [
            "profile_1 anonymous_id 5285bc35-05ef-4d21",
            "profile_1 anonymous_id b50e18a5-1b8d-451c",
            "profile_1 email jane.kim@segment.com",
        ]
    );
    // Where it came from.
    let what = "length(triggering_event_source_id), triggering_event_source_slug";
    let sources = warehouse.rows(what, "external_id_mapping_updates").await;
    assert!(sources.iter().all(|row| row.starts_with("36 ") && row.len() > 3), "{sources:?}");
}

#[tokio::test]
async fn all_that_was_part_of_a_profile_goes_where_that_goes() {
    let mut case = Case::start(sending()).await;
    let warehouse = Warehouse::start(&case.app, &["profile_updates"]).await;
    case.send_all(&["track Seen user=u1", "track Seen anon=a2", "track Seen anon=a3", "track Seen anon=a4"])
        .await;
    // The third becomes part of the second, then both of the first, in a batch of their own or not.
    let link = |ids: Value| json!({"type": "track", "event": "Linked", "context": {"externalIds": ids}});
    let id = |id_type: &str, id: &str| json!({"id": id, "type": id_type, "collection": "users", "encoding": "none"});
    let mut first = link(json!([id("anonymous_id", "a2"), id("anonymous_id", "a3")]));
    let mut second = link(json!([id("anonymous_id", "a3"), id("user_id", "u1"), id("anonymous_id", "a4")]));
    (first["messageId"], second["messageId"]) = (json!("l1"), json!("l2"));
    (first["anonymousId"], second["userId"]) = (json!("a2"), json!("u1"));
    case.app.processed("/v1/batch", json!({"batch": [first, second]})).await;
    warehouse.settle(&case.app).await;
    let names = profiles(&case.app, &["P1", "P2", "P3", "P4"]).await;
    let graph = [
        "P1 P1 track m0001",
        "P2 P1 track l2",
        "P2 P2 track m0002",
        "P3 P1 track l2",
        "P3 P2 track l1",
        "P3 P3 track m0003",
        "P4 P1 track l2",
        "P4 P4 track m0004",
    ];
    assert_eq!(named(&warehouse, GRAPH, "id_graph_updates", &names).await, graph);
    assert_eq!(
        named(&warehouse, "segment_id, canonical_segment_id", "id_graph", &names).await,
        ["P1 P1", "P2 P1", "P3 P1", "P4 P1"]
    );
    // All of it once more, in one piece and in another order of batches: nothing is there twice.
    let body = json!({"destination": warehouse.destination["id"], "state": "delivered"});
    let replayed = case.app.post(&format!("{DELIVERIES}/replay"), body).await.expect(200).json;
    assert!(replayed["count"].as_u64().unwrap() >= 10, "{replayed}");
    case.app.act(&warehouse.destination, "resync", json!({})).await;
    warehouse.settle(&case.app).await;
    assert_eq!(named(&warehouse, GRAPH, "id_graph_updates", &names).await, graph);
    assert_eq!(warehouse.rows("id", "external_id_mapping_updates").await.len(), 4);
}

#[tokio::test]
async fn what_there_was_before_is_told_when_a_subscription_begins() {
    let app = sending().start().await;
    case_study(&app).await;
    let call = json!({"messageId": "event_5", "userId": "u5", "traits": {"plan": "pro", "seats": 3}});
    app.processed("/v1/identify", call).await;
    app.processed("/v1/group", json!({"messageId": "event_6", "userId": "u5", "groupId": "g"})).await;
    let warehouse = Warehouse::start(&app, &["profile_updates", "events"]).await;
    let names = profiles(&app, &["profile_1", "profile_2", "profile_3", "account"]).await;
    let graph = [
        "account account event_6",
        "profile_1 profile_1 event_1",
        "profile_2 profile_1 event_4",
        "profile_2 profile_2 event_3",
        "profile_3 profile_3 event_5",
    ];
    assert_eq!(named(&warehouse, GRAPH, "id_graph_updates", &names).await, graph);
    let what = "segment_id, external_id_value, triggering_event_id";
    let ids = [
        "account g event_6",
        "profile_1 5285bc35-05ef-4d21 event_1",
        "profile_1 jane.kim@segment.com event_2",
        "profile_2 b50e18a5-1b8d-451c event_3",
        "profile_3 u5 event_5",
    ];
    assert_eq!(named(&warehouse, what, "external_id_mapping_updates", &names).await, ids);
    let what = "segment_id, coalesce(email, '-'), coalesce(plan, '-'), coalesce(seats, 0), merged_to";
    let traits = [
        "account - - 0",
        "profile_1 jane.kim@segment.com - 0",
        "profile_2 - - 0 profile_1",
        "profile_3 - pro 3",
    ];
    assert_eq!(named(&warehouse, what, "profile_traits", &names).await, traits);
    // Of events there is what comes from now on: there are no tables before that.
    assert!(!warehouse.names(None).await.contains(&"pages".to_owned()));
    app.act(&warehouse.destination, "resync", json!({})).await;
    app.processed("/v1/track", json!({"messageId": "event_7", "userId": "u5", "event": "Seen"})).await;
    warehouse.settle(&app).await;
    assert_eq!(named(&warehouse, GRAPH, "id_graph_updates", &names).await, graph);
    assert_eq!(named(&warehouse, what, "profile_traits", &names).await, traits);
    assert_eq!(named(&warehouse, "segment_id, id", "tracks", &names).await, ["profile_3 event_7"]);
}

#[tokio::test]
async fn traits_are_rows_of_what_changed_and_one_row_of_what_holds() {
    let app = sending().start().await;
    let warehouse = Warehouse::start(&app, &["profile_updates"]).await;
    let identify = async |id: &str, at: &str, who: Value, traits: Value| {
        let mut call =
            json!({"messageId": id, "timestamp": format!("2024-01-0{at}T00:00:00Z"), "traits": traits});
        call.as_object_mut().unwrap().extend(who.as_object().unwrap().clone());
        app.processed("/v1/identify", call).await;
    };
    let (one, two) = (json!({"userId": "u"}), json!({"anonymousId": "a"}));
    let tags = json!({"color": "red", "plan": "pro", "address": {"city": "Paris"}, "tags": ["x", 1]});
    identify("i1", "2", one.clone(), tags).await;
    identify("i2", "3", one.clone(), json!({"plan": "pro"})).await;
    identify("i3", "4", one.clone(), json!({"plan": null, "seats": 5})).await;
    // Older than what the other one says, and told later.
    identify("i4", "1", two, json!({"color": "blue", "size": 9})).await;
    identify("i5", "5", json!({"userId": "u", "anonymousId": "a"}), json!({"seats": 6})).await;
    warehouse.settle(&app).await;
    let names = profiles(&app, &["P1", "P2"]).await;
    let what = "segment_id, triggering_event_id, triggering_event_type, traits::text";
    assert_eq!(
        named(&warehouse, what, "profile_traits_updates", &names).await,
        [
            r#"P1 i1 identify {"plan": "pro", "tags": ["x", 1], "color": "red", "address": {"city": "Paris"}}"#,
            r#"P1 i3 identify {"plan": null, "seats": 5}"#,
            // The merge, and what the event itself says.
            r#"P1 i5 identify {"seats": 6}"#,
            r#"P1 i5 identify {"size": 9, "tags": ["x", 1], "color": "red", "seats": 5, "address": {"city": "Paris"}}"#,
            r#"P2 i4 identify {"size": 9, "color": "blue"}"#,
        ]
    );
    let what = "segment_id, coalesce(plan, '-'), color, seats, size, address, tags, merged_to";
    let holds = ["P1 - red 6 9 {\"city\":\"Paris\"} [\"x\",1]", "P2 - P1"];
    assert_eq!(named(&warehouse, what, "profile_traits", &names).await, holds);
    let columns = warehouse.names(Some("profile_traits")).await;
    assert_eq!(columns, ["address", "color", "merged_to", "plan", "seats", "segment_id", "size", "tags"]);
}

#[tokio::test]
async fn identifiers_that_are_taken_away_moved_or_given_back_leave_rows() {
    let mut case = Case::start(sending()).await;
    let warehouse = Warehouse::start(&case.app, &["profile_updates", "events"]).await;
    case.send_all(&[
        "identify user=u1 anon=a1 {\"plan\":\"pro\"}",
        "identify user=u2 anon=a2 {\"plan\":\"free\"}",
        "identify anon=a3 email=own@x.org {\"color\":\"red\"}",
        // Two become one, which is taken back.
        "track Linked user=u2 anon=a3",
        "track Seen anon=a3 anonymous_id=a5",
    ])
    .await;
    let merge = case.merge_of("user_id:u2").await;
    case.undo(&merge).await;
    let moved = json!({"type": "anonymous_id", "id": "a1", "to": "user_id:u2"});
    case.app.post(&format!("{USERS}/user_id:u1/external_ids/move"), moved).await.expect(200);
    let gone = json!({"delete_external_ids": [{"type": "anonymous_id", "id": "a2"}]});
    case.app.post(&format!("{USERS}/user_id:u2/external_ids/delete"), gone).await.expect(200);
    case.app.get(&format!("{SPACE}/pipeline?min_offset={}", case.offset + 3)).await.expect(200);
    warehouse.settle(&case.app).await;
    let names = profiles(&case.app, &["P1", "P2", "P3"]).await;
    let what = "segment_id, canonical_segment_id";
    assert_eq!(named(&warehouse, what, "id_graph", &names).await, ["P1 P1", "P2 P2", "P3 P3"]);
    let rows = named(&warehouse, MAPPING, "external_id_mapping_updates", &names).await;
    let by_operator = rows
        .iter()
        .filter(|row| row.contains(" operator "))
        .map(|row| row.split(" operator").next().unwrap().to_owned());
    let expected = [
        "P1 anonymous_id a1 REMOVED",
        "P2 anonymous_id a1 CREATED",
        "P2 anonymous_id a2 REMOVED",
        "P2 anonymous_id a3 REMOVED",
        "P2 anonymous_id a5 REMOVED",
        "P2 email own@x.org REMOVED",
        "P3 anonymous_id a3 CREATED",
        "P3 anonymous_id a5 CREATED",
        "P3 email own@x.org CREATED",
    ];
    assert_eq!(by_operator.collect::<Vec<_>>(), expected);
    let what = "canonical_segment_id, external_id_type, external_id_value";
    let holds = [
        "P1 user_id u1",
        "P2 anonymous_id a1",
        "P2 user_id u2",
        "P3 anonymous_id a3",
        "P3 anonymous_id a5",
        "P3 email own@x.org",
    ];
    assert_eq!(named(&warehouse, what, "external_id_mapping", &names).await, holds);
    let what = "segment_id, coalesce(plan, '-'), coalesce(color, '-')";
    assert_eq!(
        named(&warehouse, what, "profile_traits", &names).await,
        ["P1 pro -", "P2 free -", "P3 - red"]
    );
    // Events stay what they were then: of the other one while the two were one.
    let what = "segment_id, id";
    assert_eq!(named(&warehouse, what, "tracks", &names).await, ["P2 m0005", "P3 m0004"]);
}

#[tokio::test]
async fn of_who_is_erased_no_table_says_anything() {
    let mut case = Case::start(sending()).await;
    let warehouse = Warehouse::start(&case.app, &["profile_updates", "events"]).await;
    case.send_all(&[
        "identify user=stays {\"plan\":\"pro\"}",
        "identify anon=a1 {\"color\":\"red\"}",
        "track Seen anon=a1",
        "identify user=gone anon=a2 {\"plan\":\"free\"}",
        "track Linked user=gone anon=a1",
        "track Seen user=stays",
    ])
    .await;
    warehouse.settle(&case.app).await;
    assert_eq!(warehouse.rows("id", "seen").await, ["m0003", "m0006"]);
    let stays = case.id("user_id:stays").await;
    case.app.regulated("SUPPRESS_WITH_DELETE", "USER_ID", &["gone"]).await;
    warehouse.settle(&case.app).await;
    for table in [
        "id_graph_updates",
        "external_id_mapping_updates",
        "profile_traits_updates",
        "identifies",
        "tracks",
        "seen",
        "linked",
        "id_graph",
        "profile_traits",
    ] {
        let mut left = warehouse.rows("segment_id", table).await;
        left.dedup();
        let expected = if table == "linked" { vec![] } else { vec![stays.clone()] };
        assert_eq!(left, expected, "{table}");
    }
    assert_eq!(warehouse.rows("id", "seen").await, ["m0006"]);
}

#[tokio::test]
async fn who_does_not_ask_for_it_gets_nothing_of_it() {
    let app = sending().start().await;
    let warehouse = Warehouse::start(&app, &["merges", "custom_traits"]).await;
    let ended = "SELECT count(*) FROM (SELECT 1 FROM delivery UNION ALL SELECT 1 FROM delivery_outcome) d";
    case_study(&app).await;
    warehouse.settle(&app).await;
    let before: i64 = sqlx::query_scalar(ended).fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(before, 3, "one merge, and an e-mail address as a trait, told once more by a new identifier");
    let own = [
        "audience_entered",
        "audience_exited",
        "audience_memberships",
        "profile_merges",
        "trait_computed",
        "user_identifiers",
        "user_traits",
    ];
    assert_eq!(warehouse.names(None).await, own);
    // Switched off, it is as if it were not there.
    let id = warehouse.destination["id"].as_str().unwrap();
    for subject in ["events", "profile_updates"] {
        app.subscribe(&warehouse.destination, json!({"subject": subject, "enabled": false})).await;
    }
    app.processed("/v1/track", json!({"userId": "u", "event": "Seen"})).await;
    warehouse.settle(&app).await;
    let count: i64 = sqlx::query_scalar(ended).fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(count, before);
    // What is switched on again is told as far as it is known.
    let list = app.get(&format!("{DESTINATIONS}/{id}/subscriptions")).await.expect(200).json;
    let of = |subject: &str| {
        let found = list["data"].as_array().unwrap().iter().find(|s| s["subject"] == subject).unwrap();
        assert_eq!(found["send"], json!([]));
        format!("{DESTINATIONS}/{id}/subscriptions/{}", found["id"].as_str().unwrap())
    };
    app.patch(&of("profile_updates"), json!({"enabled": true})).await.expect(200);
    warehouse.settle(&app).await;
    assert_eq!(warehouse.rows("segment_id", "profile_traits").await.len(), 3);
}
