//! Events as they came: in the tables of a customer's database, and passed on to other kinds of destinations.

use serde_json::{Value, json};

use crate::harness::app::TestApp;
use crate::harness::destinations::{DELIVERIES, DESTINATIONS, sending};
use crate::harness::receiver::Receiver;
use crate::harness::warehouse::Warehouse;

async fn track(app: &TestApp, id: &str, event: &str, properties: Value) {
    app.processed(
        "/v1/track",
        json!({"messageId": id, "userId": "u", "event": event, "properties": properties}),
    )
    .await;
}

async fn start() -> (TestApp, Warehouse) {
    let app = sending().start().await;
    let warehouse = Warehouse::start(&app, &["events"]).await;
    (app, warehouse)
}

#[tokio::test]
async fn every_call_has_its_table_and_its_columns() {
    let (app, warehouse) = start().await;
    let context = json!({"ip": "10.1.2.3", "page": {"url": "https://x.example/a"}, "locale": "de"});
    let base = json!({"userId": "u", "anonymousId": "a", "context": context, "sentAt": "2024-01-01T00:00:01Z",
        "timestamp": "2024-01-01T00:00:00Z", "originalTimestamp": "2024-01-01T00:00:00Z"});
    for (kind, id, more) in [
        (
            "identify",
            "i",
            json!({"traits": {"address": {"city": "Paris", "geo": {"lat": 1.5}}, "tags": ["a", 2], "vip": true}}),
        ),
        (
            "track",
            "t",
            json!({"event": "Order Completed", "properties": {"orderId": "o-1", "products": [{"sku": "s"}],
            "total": 12.5, "shipping": {"isExpress": false}}}),
        ),
        (
            "page",
            "p",
            json!({"name": "Home", "category": "Shop", "properties": {"title": "T", "name": "Home"}}),
        ),
        ("screen", "s", json!({"name": "Start"})),
        ("group", "g", json!({"groupId": "acme", "traits": {"industry": "steel"}})),
        ("alias", "a", json!({"previousId": "before"})),
    ] {
        let mut call = base.clone();
        call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call["messageId"] = json!(id);
        app.processed(&format!("/v1/{kind}"), call).await;
    }
    warehouse.settle(&app).await;
    let common = "user_id, anonymous_id, context_ip, context_page_url, \
        to_char(\"timestamp\" at time zone 'utc', 'HH24:MI:SS'), received_at is not null, left(segment_id, 4), \
        left(event_source_id, 4)";
    let says = "u a 10.1.2.3 https://x.example/a";
    for (table, own, expected) in [
        ("identifies", "id, address_city, address_geo_lat, tags, vip", "i Paris 1.5 [\"a\",2] t"),
        ("tracks", "id, event, event_text", "t order_completed Order Completed"),
        (
            "order_completed",
            "id, order_id, products, total, shipping_is_express",
            "t o-1 [{\"sku\":\"s\"}] 12.5 f",
        ),
        ("pages", "id, name, category, title", "p Home Shop T"),
        ("screens", "id, name", "s Start"),
        ("groups", "id, group_id, industry", "g acme steel"),
        ("aliases", "id, previous_id", "a before"),
    ] {
        assert_eq!(warehouse.rows(own, table).await, [expected], "{table}");
        let rows = warehouse.rows(common, table).await;
        assert!(rows.len() == 1 && rows[0].starts_with(says), "{table}: {rows:?}");
        assert!(rows[0].ends_with(" t prf_ src_"), "{table}: {rows:?}");
        assert_eq!(warehouse.rows("coalesce(_more::text, '-')", table).await, ["-"], "{table}");
    }
    // What a track call says of the event is in the table of its name alone.
    assert!(!warehouse.names(Some("tracks")).await.contains(&"total".to_owned()));
}

#[tokio::test]
async fn columns_come_later_keep_their_type_and_nothing_is_left_out() {
    let (app, warehouse) = start().await;
    track(&app, "1", "Seen", json!({"amount": 1, "flag": true, "note": "x", "at": null})).await;
    track(&app, "2", "Seen", json!({"amount": "much", "flag": "yes", "note": 5, "later": "new"})).await;
    track(&app, "3", "Seen", json!({"amount": 2.5, "at": "2024-01-01", "item": {"a": 1}, "item_a": 2})).await;
    warehouse.settle(&app).await;
    let what = "id, coalesce(amount::text, '-'), coalesce(flag::text, '-'), coalesce(note, '-'), coalesce(later, '-'), \
        coalesce(at, '-'), coalesce(item_a::text, '-'), _more";
    assert_eq!(
        warehouse.rows(what, "seen").await,
        [
            "1 1 true x - - -",
            // A text takes a number; a number no text.
            r#"2 - - 5 new - - {"flag": "yes", "amount": "much"}"#,
            r#"3 2.5 - - - 2024-01-01 1 {"item_a": 2}"#,
        ]
    );
    // It is said in what there is to be seen of the delivery, too.
    let id = app.deliveries(&warehouse.destination, "").await[1]["id"].as_str().unwrap().to_owned();
    let shown = app.get(&format!("{DELIVERIES}/{id}")).await.expect(200).json;
    let response = shown["attempt_log"][0]["response"].as_str().unwrap();
    assert!(response.contains("2 values without a column of their type"), "{shown}");
}

#[tokio::test]
async fn names_that_are_taken_reserved_or_too_long_have_others() {
    let (app, warehouse) = start().await;
    let long = "Very ".repeat(30);
    let mut properties =
        json!({"id": 7, "user": "x", "userId": "own", "1st": true, "größe": "L", "!?": 1, "order by": 2});
    properties[format!("{long}a")] = json!("a");
    properties[format!("{long}b")] = json!("b");
    track(&app, "1", "Group", properties).await;
    track(&app, "2", "Tracks", json!({"x": 1})).await;
    track(&app, "3", "ID Graph", json!({"x": 1})).await;
    track(&app, "4", &format!("{long}x"), json!({})).await;
    track(&app, "5", &format!("{long}y"), json!({})).await;
    track(&app, "6", "order_completed", json!({})).await;
    track(&app, "7", "Order Completed", json!({})).await;
    // A table of the customer's own stays as it is, and what would go there is kept.
    sqlx::raw_sql("create table engage.mine (x int)").execute(&warehouse.db.pool).await.unwrap();
    warehouse.settle(&app).await;
    app.act(&warehouse.destination, "pause", json!({})).await;
    app.act(&warehouse.destination, "resume", json!({})).await;
    let kept = "id, _id, _user, _user_id, _1st, \"größe\", order_by";
    assert_eq!(warehouse.rows(kept, "_group").await, ["1 7 x own t L 2"]);
    let columns = warehouse.names(Some("_group")).await;
    assert_eq!(columns.iter().filter(|name| name.starts_with("very_very")).count(), 2, "{columns:?}");
    assert!(columns.iter().all(|name| name.len() <= 63));
    assert_eq!(warehouse.rows("id, x", "_tracks").await, ["2 1"]);
    assert_eq!(warehouse.rows("id, x", "_id_graph").await, ["3 1"]);
    assert_eq!(warehouse.rows("id", "order_completed").await, ["6", "7"]);
    let long = warehouse.names(None).await.into_iter().filter(|name| name.starts_with("very_very")).count();
    assert_eq!(long, 2);
    let events = warehouse.rows("event_text", "tracks").await;
    assert_eq!(events.len(), 7);
}

#[tokio::test]
async fn a_table_that_is_not_ours_takes_nothing_and_one_that_went_away_is_made_anew() {
    let app = sending().start().await;
    let warehouse = Warehouse::start(&app, &[]).await;
    sqlx::raw_sql("create schema engage; create table engage.mine (x int)")
        .execute(&warehouse.db.pool)
        .await
        .unwrap();
    app.subscribe(&warehouse.destination, json!({"subject": "events"})).await;
    track(&app, "1", "Mine", json!({"x": 1})).await;
    track(&app, "2", "Seen", json!({"x": 1})).await;
    warehouse.settle(&app).await;
    assert_eq!(warehouse.rows("id, _more", "tracks").await, ["1 {\"properties\": {\"x\": 1}}", "2"]);
    assert_eq!(warehouse.rows("x", "mine").await, Vec::<String>::new());
    sqlx::raw_sql("drop table engage.seen").execute(&warehouse.db.pool).await.unwrap();
    track(&app, "3", "Seen", json!({"x": 2})).await;
    app.wait_destination(&warehouse.destination, |d| d["deliveries"]["failed"]["UNAVAILABLE"] == 1).await;
    app.act(&warehouse.destination, "resume", json!({})).await;
    warehouse.settle(&app).await;
    assert_eq!(warehouse.rows("id, x", "seen").await, ["3 2"]);
}

#[tokio::test]
async fn an_event_of_many_properties_is_kept_whole() {
    let (app, warehouse) = start().await;
    let many = |from: usize, until: usize| -> Value {
        (from..until).map(|n| (format!("p{n:04}"), json!(format!("a text of some length {n}")))).collect()
    };
    track(&app, "1", "Wide", many(0, 700)).await;
    for n in 1..4 {
        track(&app, &format!("{}", n + 1), "Wide", many(n * 250, n * 250 + 250)).await;
    }
    warehouse.settle(&app).await;
    assert_eq!(warehouse.names(Some("wide")).await.len(), 800);
    let kept = warehouse.rows("id, (select count(*) from jsonb_object_keys(_more))", "wide").await;
    let [first, second, third, fourth] = &kept[..] else { panic!("{kept:?}") };
    // Of the first one as much as a row has room for; of the others what the table has columns for.
    let more = |row: &str| row.split(' ').nth(1).unwrap().parse::<usize>().unwrap();
    assert!((400..430).contains(&more(first)), "{first}");
    assert_eq!((more(second), more(third)), (0, 0));
    assert!((150..250).contains(&more(fourth)), "{fourth}");
}

#[tokio::test]
async fn what_was_sent_once_more_changes_nothing() {
    let (app, warehouse) = start().await;
    for n in 0..20 {
        track(&app, &format!("m{n:02}"), "Seen", json!({"n": n})).await;
    }
    warehouse.settle(&app).await;
    let before = warehouse.rows("id, n, uuid_ts", "seen").await;
    assert_eq!(before.len(), 20);
    let body = json!({"destination": warehouse.destination["id"], "state": "delivered"});
    assert_eq!(app.post(&format!("{DELIVERIES}/replay"), body).await.expect(200).json["count"], 20);
    warehouse.settle(&app).await;
    assert_eq!(warehouse.rows("id, n, uuid_ts", "seen").await, before);
    assert_eq!(warehouse.rows("id", "tracks").await.len(), 20);
}

#[tokio::test]
async fn other_kinds_get_the_call_as_it_was() {
    let (app, receiver) = (sending().start().await, Receiver::start().await);
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    let data = json!({"filter": "type = 'track' and properties.price >= 10", "deny": ["context.ip", "properties.secret"]});
    app.subscribe(&hook, json!({"subject": "events", "data": data})).await;
    let call = |id: &str, price: i64, integrations: Value| {
        json!({"messageId": id, "userId": "u", "anonymousId": "a", "event": "Bought", "integrations": integrations,
            "properties": {"price": price, "secret": "s", "merged_profile_id": "x"}, "custom": [1],
            "context": {"ip": "1.2.3.4", "personas": {"update": "merged"}}, "timestamp": "2024-01-01T00:00:00Z"})
    };
    app.processed("/v1/track", call("m1", 10, json!({}))).await;
    app.processed("/v1/track", call("m2", 9, json!({}))).await;
    app.processed("/v1/track", call("m3", 11, json!({"All": false}))).await;
    app.processed("/v1/track", call("m4", 12, json!({"All": false, "Hook": true}))).await;
    app.processed("/v1/track", call("m4", 12, json!({}))).await;
    app.processed("/v1/track", call("m5", 13, json!({"Personas": false}))).await;
    app.processed("/v1/page", json!({"userId": "u", "name": "Home"})).await;
    app.wait_sent(&hook).await;
    let taken = receiver.taken();
    let ids: Vec<&str> = taken.iter().map(|event| event["messageId"].as_str().unwrap()).collect();
    assert_eq!(ids, ["m1", "m4"], "{taken:?}");
    let mut event = taken[0].clone();
    let personas = event["context"]["personas"].take();
    assert_eq!(personas["space_id"], "spa_default");
    assert_eq!(personas["segment_id"], personas["profile_id"]);
    assert!(personas["source_id"].as_str().unwrap().starts_with("src_") && personas.get("update").is_none());
    assert!(event.as_object_mut().unwrap().remove("receivedAt").is_some());
    let expected = json!({"type": "track", "event": "Bought", "messageId": "m1", "userId": "u", "anonymousId": "a",
        "timestamp": "2024-01-01T00:00:00.000Z", "originalTimestamp": "2024-01-01T00:00:00Z", "custom": [1],
        "properties": {"price": 10, "merged_profile_id": "x"}, "integrations": {}, "context": {"personas": null}});
    assert_eq!(event, expected);
    let mut codes: Vec<String> = app
        .deliveries(&hook, "&state=filtered")
        .await
        .iter()
        .map(|delivery| delivery["code"].as_str().unwrap().to_owned())
        .collect();
    codes.sort();
    assert_eq!(codes, ["FILTERED_BY_INTEGRATIONS", "FILTERED_BY_RULES", "FILTERED_BY_RULES"]);
}

#[tokio::test]
async fn who_does_not_consent_is_not_told_of_by_events() {
    let (app, receiver) = (sending().start().await, Receiver::start().await);
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    let category = json!({"id": "Ads", "name": "Ads", "destinations": [hook["id"]]});
    app.post("/v1/spaces/default/consent/categories", category).await.expect(201);
    app.subscribe(&hook, json!({"subject": "events"})).await;
    let consent = |given: bool| json!({"consent": {"categoryPreferences": {"Ads": given}}});
    for (id, user, given) in [("m1", "u1", true), ("m2", "u2", false)] {
        let call = json!({"messageId": id, "userId": user, "event": "Seen", "context": consent(given)});
        app.processed("/v1/track", call).await;
    }
    app.wait_sent(&hook).await;
    let taken = receiver.taken();
    assert_eq!(taken.iter().map(|event| &event["messageId"]).collect::<Vec<_>>(), [&json!("m1")]);
}

#[tokio::test]
async fn what_a_kind_or_a_subject_cannot_do_is_refused_when_it_is_saved() {
    let (app, receiver) = (sending().start().await, Receiver::start().await);
    let hook = app.make_webhook("Hook", &receiver, json!({})).await;
    let calls = json!({"track": {"method": "POST", "url": receiver.url, "body": "x"}});
    let http = json!({"name": "Mapped", "kind": "http", "settings": {"calls": calls}});
    let http = app.post(DESTINATIONS, http).await.expect(201).json;
    let path = |of: &Value| format!("{DESTINATIONS}/{}/subscriptions", of["id"].as_str().unwrap());
    for (of, body, field, says) in [
        (&http, json!({"subject": "events"}), "subject", "kind http do not take events as they came"),
        (&hook, json!({"subject": "events", "send": ["track"]}), "send", "leave send out"),
        (&hook, json!({"subject": "profile_updates", "send": ["track"]}), "send", "leave send out"),
        (&hook, json!({"subject": "events", "data": {"id_sync": []}}), "data.id_sync", "leave it out"),
        (&hook, json!({"subject": "events", "data": {"traits": ["x"]}}), "data.traits", "leave it out"),
        (&hook, json!({"subject": "events", "key": "x"}), "key", "leave key out"),
    ] {
        let refused = app.post(&path(of), body.clone()).await.expect_problem(422, "invalid").json;
        assert_eq!(
            refused["errors"][0]["field"].as_str().or(refused["field"].as_str()),
            Some(field),
            "{body}: {refused}"
        );
        assert!(refused.to_string().contains(says), "{body}: {refused}");
    }
    app.subscribe(&http, json!({"subject": "profile_updates"})).await;
}
