//! Definitions of accounts through the front door: what their users do and are, pooled events, joining, merging, time.

use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};
use crate::verify::verify;

const NOW: &str = "2024-03-01T12:00:00.000Z";
const AUDIENCES: &str = "/v1/spaces/default/audiences";

async fn start() -> TestApp {
    Wish::default().at(NOW).start().await
}

async fn move_to(app: &TestApp, now: &str) {
    app.put("/v1/test-clock", json!({"now": now})).await.expect(200);
}

fn of_accounts(key: &str, query: &str) -> Value {
    json!({"key": key, "definition": {"type": "accounts", "query": query}})
}

async fn audience(app: &TestApp, key: &str, query: &str) {
    app.make_live_from("audiences", key, of_accounts(key, query)).await;
}

async fn computed(app: &TestApp, key: &str, query: &str) {
    app.make_live_from("computed-traits", key, of_accounts(key, query)).await;
}

async fn join(app: &TestApp, user: &str, account: &str) -> u64 {
    app.track("/v1/group", json!({"userId": user, "groupId": account})).await.expect(200).offset()
}

async fn bought(app: &TestApp, user: &str, properties: Value) -> u64 {
    let call = json!({"userId": user, "event": "Shoes Bought", "properties": properties});
    app.track("/v1/track", call).await.expect(200).offset()
}

async fn bought_for(app: &TestApp, user: &str, account: &str, properties: Value) -> u64 {
    let context = json!({"groupId": account});
    let call = json!({"userId": user, "event": "Shoes Bought", "properties": properties, "context": context});
    app.track("/v1/track", call).await.expect(200).offset()
}

async fn traits(app: &TestApp, account: &str, offset: u64) -> Value {
    let path = format!(
        "/v1/spaces/default/collections/accounts/profiles/group_id:{account}/traits?limit=200&min_offset={offset}"
    );
    app.get(&path).await.expect(200).json["traits"].clone()
}

async fn size(app: &TestApp, key: &str) -> i64 {
    app.get(&format!("{AUDIENCES}/{key}/size")).await.expect(200).json["size"].as_i64().unwrap()
}

/// Transitions of an audience, oldest first, as `entered 12:00:00.000`.
async fn transitions(app: &TestApp, key: &str) -> Vec<String> {
    let list = app.get(&format!("{AUDIENCES}/{key}/transitions")).await.expect(200).json;
    let word = |t: &Value| format!("{} {}", t["transition"].as_str().unwrap(), t["at"].as_str().unwrap());
    list["data"].as_array().unwrap().iter().rev().map(word).collect()
}

const BOUGHT: &str = "event('Shoes Bought').count() >= 1";

/// The three forms of AU-13, and Q4-Q6.
async fn quantified(app: &TestApp) {
    audience(app, "any_bought", &format!("ANY {BOUGHT}")).await;
    audience(app, "all_bought", &format!("ALL {BOUGHT}")).await;
    audience(app, "all_not", &format!("ALL NOT {BOUGHT}")).await;
    audience(app, "none_bought", &format!("NOT ANY {BOUGHT}")).await;
    audience(app, "q4", &format!("ALL ({BOUGHT} AND trait('total_spend') > 200)")).await;
}

fn shown([any, all, all_not, q4]: [bool; 4]) -> Value {
    json!({"any_bought": any, "all_bought": all, "all_not": all_not, "none_bought": !any, "q4": q4})
}

/// The same without what never was true, which has no word on the profile.
fn without_never(traits: &Value) -> Value {
    let mut all = shown([false, false, false, false]);
    all["none_bought"] = json!(false);
    for (name, value) in traits.as_object().unwrap() {
        all[name.as_str()] = value.clone();
    }
    all
}

#[tokio::test]
async fn au_13_any_and_all_over_the_users_of_an_account() {
    let app = start().await;
    quantified(&app).await;
    let empty = app.track("/v1/group", json!({"groupId": "empty", "anonymousId": "a1"})).await.expect(200);
    join(&app, "u1", "g").await;
    join(&app, "u2", "g").await;
    let offset = bought(&app, "u1", json!({})).await;
    assert_eq!(without_never(&traits(&app, "g", offset).await), shown([true, false, false, false]));
    // An anonymous user is one.
    let of_one = traits(&app, "empty", empty.offset()).await;
    assert_eq!(without_never(&of_one), shown([false, false, true, false]));
    // Nobody at all: an event has named it, nobody has joined it.
    let offset = bought_for(&app, "u1", "nobody", json!({})).await;
    assert_eq!(without_never(&traits(&app, "nobody", offset).await), shown([false, false, false, false]));
    app.track("/v1/identify", json!({"userId": "u1", "traits": {"total_spend": 201}})).await.expect(200);
    app.track("/v1/identify", json!({"userId": "u2", "traits": {"total_spend": 500}})).await.expect(200);
    let offset = bought(&app, "u2", json!({})).await;
    assert_eq!(without_never(&traits(&app, "g", offset).await), shown([true, true, false, true]));
    let identify = json!({"userId": "u2", "traits": {"total_spend": 200}});
    let offset = app.track("/v1/identify", identify).await.expect(200).offset();
    assert_eq!(without_never(&traits(&app, "g", offset).await), shown([true, true, false, false]));
    assert_eq!((size(&app, "any_bought").await, size(&app, "none_bought").await), (1, 2));
    let members = app.get(&format!("{AUDIENCES}/any_bought/members")).await.expect(200).json;
    assert_eq!(members["data"].as_array().unwrap().len(), 1, "{members}");
    // Of the users nobody has a word of it.
    let user =
        app.get("/v1/spaces/default/collections/users/profiles/user_id:u1/traits").await.expect(200).json;
    assert_eq!(user["traits"], json!({"total_spend": 201}));
}

#[tokio::test]
async fn au_20_an_event_that_names_an_account_counts_for_that_one_only() {
    let app = start().await;
    computed(&app, "orders", "event('Shoes Bought').count()").await;
    computed(&app, "revenue", "event('Shoes Bought').sum(property('price'))").await;
    audience(&app, "any_bought", "ANY event('Shoes Bought').count() >= 2").await;
    app.make_live("computed-traits", "own_orders", "event('Shoes Bought').count()").await;
    join(&app, "u1", "g1").await;
    join(&app, "u1", "g2").await;
    bought_for(&app, "u1", "g1", json!({"price": 10})).await;
    let offset = bought(&app, "u1", json!({"price": 1})).await;
    let expected = json!({"orders": 2, "revenue": 11, "any_bought": true});
    assert_eq!(traits(&app, "g1", offset).await, expected);
    assert_eq!(traits(&app, "g2", offset).await, json!({"orders": 1, "revenue": 1}));
    // What a user has done is the user's, whatever accounts it names.
    let user =
        app.get("/v1/spaces/default/collections/users/profiles/user_id:u1/traits").await.expect(200).json;
    assert_eq!(user["traits"], json!({"own_orders": 2}));
    // An account that the user is not in (yet).
    bought_for(&app, "u1", "g3", json!({"price": 5})).await;
    let offset = bought_for(&app, "u1", "g3", json!({"price": 5})).await;
    assert_eq!(traits(&app, "g3", offset).await, json!({"orders": 0}));
    let offset = join(&app, "u1", "g3").await;
    assert_eq!(
        traits(&app, "g3", offset).await,
        json!({"orders": 3, "revenue": 11, "any_bought": true}),
        "what was done before counts from then on"
    );
}

#[tokio::test]
async fn traits_of_the_account_and_definitions_of_accounts_go_together() {
    let app = start().await;
    computed(&app, "revenue", "event('Shoes Bought').within(1 day).sum(property('price'))").await;
    app.make_live("audiences", "buyers", BOUGHT).await;
    audience(&app, "big", "trait('plan') = 'pro' AND trait('revenue') > 20 AND ANY audience('buyers')").await;
    audience(&app, "held", "trait('plan').held_for(2 hours)").await;
    let group = json!({"userId": "u1", "groupId": "g", "traits": {"plan": "pro"}});
    app.track("/v1/group", group).await.expect(200);
    join(&app, "u2", "g").await;
    bought(&app, "u1", json!({"price": 15})).await;
    let offset = bought(&app, "u2", json!({"price": 15.5})).await;
    let now = traits(&app, "g", offset).await;
    assert_eq!(now, json!({"plan": "pro", "revenue": 30.5, "big": true}));
    move_to(&app, "2024-03-01T14:00:00.000Z").await;
    assert_eq!(traits(&app, "g", 0).await["held"], true);
    move_to(&app, "2024-03-02T12:00:00.000Z").await;
    assert_eq!(traits(&app, "g", 0).await["big"], true, "the bound is inside");
    move_to(&app, "2024-03-02T12:00:00.001Z").await;
    assert_eq!(traits(&app, "g", 0).await, json!({"plan": "pro", "big": false, "held": true}));
    let expected = ["entered 2024-03-01T12:00:00.000Z", "left 2024-03-02T12:00:00.001Z"];
    assert_eq!(transitions(&app, "big").await, expected);
}

#[tokio::test]
async fn windows_of_users_and_pools_end_by_the_clock_alone() {
    let app = start().await;
    audience(&app, "any_fresh", "ANY event('Shoes Bought').within(2 days).count() >= 1").await;
    audience(&app, "all_fresh", "ALL event('Shoes Bought').within(2 days).count() >= 1").await;
    audience(&app, "none_fresh", "NOT ANY event('Shoes Bought').within(2 days).count() >= 1").await;
    audience(&app, "two_fresh", "event('Shoes Bought').within(2 days).count() >= 2").await;
    join(&app, "u1", "g").await;
    join(&app, "u2", "g").await;
    bought(&app, "u1", json!({})).await;
    move_to(&app, "2024-03-02T12:00:00.000Z").await;
    bought(&app, "u2", json!({})).await;
    // An event long after: what was due before it happens before it, also on users that have no event.
    move_to(&app, "2024-03-10T00:00:00.000Z").await;
    let offset = bought(&app, "u1", json!({})).await;
    traits(&app, "g", offset).await;
    assert_eq!(
        transitions(&app, "any_fresh").await,
        [
            "entered 2024-03-01T12:00:00.000Z",
            "left 2024-03-04T12:00:00.001Z",
            "entered 2024-03-10T00:00:00.000Z"
        ]
    );
    let (entered, left) = ("entered 2024-03-02T12:00:00.000Z", "left 2024-03-03T12:00:00.001Z");
    assert_eq!(transitions(&app, "all_fresh").await, [entered, left]);
    assert_eq!(transitions(&app, "two_fresh").await, [entered, left]);
    assert_eq!(
        transitions(&app, "none_fresh").await,
        [
            "entered 2024-03-01T12:00:00.000Z",
            "left 2024-03-01T12:00:00.000Z",
            "entered 2024-03-04T12:00:00.001Z",
            "left 2024-03-10T00:00:00.000Z"
        ]
    );
}

#[tokio::test]
async fn a_merge_of_users_counts_one_user_and_each_event_once() {
    let app = start().await;
    quantified(&app).await;
    computed(&app, "orders", "event('Shoes Bought').count()").await;
    let anonymous = |event: &str| json!({"anonymousId": "a1", "event": event});
    // Both in g, only one in each of the others.
    for account in ["g", "of_a"] {
        let group = json!({"anonymousId": "a1", "groupId": account});
        app.track("/v1/group", group).await.expect(200);
    }
    join(&app, "u1", "g").await;
    join(&app, "u1", "of_u").await;
    app.track("/v1/track", anonymous("Shoes Bought")).await.expect(200);
    bought(&app, "u1", json!({})).await;
    let mut named = anonymous("Shoes Bought");
    named["context"] = json!({"groupId": "of_u"});
    app.track("/v1/track", named).await.expect(200);
    let offset = bought_for(&app, "u1", "of_a", json!({})).await;
    let orders = |traits: Value| traits["orders"].clone();
    for (account, count) in [("g", 2), ("of_a", 1), ("of_u", 1)] {
        assert_eq!(orders(traits(&app, account, offset).await), json!(count), "{account}");
    }
    let merge = json!({"userId": "u1", "anonymousId": "a1"});
    let offset = app.track("/v1/identify", merge).await.expect(200).offset();
    for (account, count) in [("g", 2), ("of_a", 3), ("of_u", 3)] {
        assert_eq!(orders(traits(&app, account, offset).await), json!(count), "{account}");
    }
    let offset = bought(&app, "u1", json!({})).await;
    for (account, count) in [("g", 3), ("of_a", 4), ("of_u", 4)] {
        assert_eq!(orders(traits(&app, account, offset).await), json!(count), "{account}");
    }
    // One user that has bought: whoever was counted twice would not satisfy ALL.
    for (account, reason) in [("g", "both"), ("of_a", "one"), ("of_u", "the other")] {
        assert_eq!(traits(&app, account, offset).await["all_bought"], true, "{reason}");
    }
    let explain = "/v1/spaces/default/collections/accounts/profiles/group_id:g/explain/all_bought";
    let told = app.get(explain).await.expect(200).json;
    assert_eq!((told["member"].clone(), told["status"].clone()), (json!(true), json!("counted")), "{told}");
    assert_eq!(size(&app, "all_bought").await, 3);
}

#[tokio::test]
async fn history_gives_what_was_counted_live_and_a_restart_changes_nothing() {
    let app = start().await;
    let definitions = [
        ("any", "audiences", "ANY event('Shoes Bought').within(3 days).count() >= 2"),
        ("all", "audiences", "ALL (event('Shoes Bought').count() >= 1 AND trait('plan') = 'pro')"),
        ("many", "audiences", "event('Shoes Bought').within(3 days).count() >= 4"),
        ("orders", "computed-traits", "event('Shoes Bought').count()"),
        ("last", "computed-traits", "event('*').last(property('price'))"),
        ("open", "audiences", "event('Shoes Bought').where(event('Paid').count() = 0).count() >= 1"),
    ];
    for (key, path, query) in definitions {
        app.make_live_from(path, &format!("live_{key}"), of_accounts(&format!("live_{key}"), query)).await;
    }
    for n in 0..30 {
        let user = format!("u{}", n % 5);
        let account = format!("g{}", n / 6 % 3);
        match n % 6 {
            0 => {
                let group = json!({"userId": user, "groupId": account, "traits": {"seats": n}});
                app.track("/v1/group", group).await.expect(200);
            }
            1 => _ = bought_for(&app, &user, &account, json!({"price": n})).await,
            2 => {
                let identify = json!({"userId": user, "traits": {"plan": "pro"}});
                app.track("/v1/identify", identify).await.expect(200);
            }
            3 => {
                let who = json!({"userId": user, "anonymousId": format!("a{}", n % 4)});
                app.track("/v1/identify", who).await.expect(200);
            }
            4 => {
                let call = json!({"anonymousId": format!("a{}", n % 4), "event": "Shoes Bought", "properties": {"price": n}});
                app.track("/v1/track", call).await.expect(200);
            }
            _ => _ = bought(&app, &user, json!({"price": n})).await,
        }
        move_to(&app, &format!("2024-03-{:02}T{:02}:00:00.000Z", 1 + n / 8, 12 + n % 8)).await;
    }
    app.running.stop(std::time::Duration::ZERO).await.unwrap();
    let app = Wish::default().at("2024-03-05T00:00:00Z").start_on(app.db).await;
    for (key, path, query) in definitions {
        // Said in another way, so that nothing of it is known yet.
        let query = query.replace("('Shoes Bought')", "('Shoes Bought').where(message_type() = 'track')");
        let query = query.replace("event('*')", "event('*').where(message_type() != 'page')");
        app.make_live_from(path, &format!("late_{key}"), of_accounts(&format!("late_{key}"), &query)).await;
    }
    let offset = bought(&app, "u1", json!({"price": 1000})).await;
    for account in ["g0", "g1", "g2"] {
        for _ in 0..2 {
            let traits = traits(&app, account, offset).await;
            for (key, ..) in definitions {
                // Who never was in has no word of it, whoever left has.
                let said = |when: &str| match &traits[format!("{when}_{key}")] {
                    Value::Bool(false) => Value::Null,
                    other => other.clone(),
                };
                assert_eq!(said("live"), said("late"), "{key} of {account}: {traits}");
            }
            assert!(traits["live_orders"].as_i64().unwrap() > 0, "{traits}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_what_would_be_right() {
    let app = start().await;
    audience(&app, "of_accounts", "everyone()").await;
    app.make_live("audiences", "of_users", "everyone()").await;
    for (definition, message) in [
        (
            json!({"query": "ANY event('A').count() >= 1"}),
            "can only stand in a definition of type `accounts`",
        ),
        (
            json!({"type": "accounts", "query": "ANY (ALL trait('a') = 1)"}),
            "inside of another `ANY` or `ALL`",
        ),
        (
            json!({"type": "accounts", "query": "event('A').where(ANY trait('a') = 1).count() >= 1"}),
            "cannot stand inside of `where`",
        ),
        (json!({"type": "accounts", "query": "audience('of_users')"}), "ask the users with `ANY (…)`"),
        (json!({"type": "accounts", "query": "ANY audience('of_accounts')"}), "outside of `ANY` and `ALL`"),
        (json!({"type": "users", "query": "audience('of_accounts')"}), "cannot ask the accounts"),
    ] {
        let body = json!({"key": "tested", "definition": definition});
        let answer = app.post(AUDIENCES, body).await.expect(422);
        assert!(answer.text.contains(message), "{message}\n{}", answer.text);
    }
    let list = json!({"key": "tested", "definition": {"type": "accounts", "list": true}});
    app.post(AUDIENCES, list).await.expect_problem(422, "invalid");
    let change = json!({"definition": {"type": "users", "query": "everyone()"}});
    app.patch(&format!("{AUDIENCES}/of_accounts"), change).await.expect_problem(422, "invalid");
    let copy = app.post(&format!("{AUDIENCES}/of_accounts/clone"), json!({"key": "copy"})).await.expect(201);
    assert_eq!(copy.json["definition"]["type"], "accounts");
}

#[tokio::test]
async fn large_batches_and_overlapping_ones_count_each_event_once() {
    let app = start().await;
    computed(&app, "orders", "event('Shoes Bought').count()").await;
    computed(&app, "fresh", "event('Shoes Bought').within(1 hour).count()").await;
    audience(&app, "all_fresh", "ALL event('Shoes Bought').within(1 hour).count() >= 1").await;
    let mut offset = 0;
    for round in 0..6 {
        let mut calls = Vec::new();
        for n in 0..1_500 {
            let user = json!(format!("u{}", n % 60));
            calls.push(match n {
                0..60 if round == 0 => {
                    json!({"type": "group", "userId": user, "groupId": format!("g{}", n % 4)})
                }
                _ => json!({"type": "track", "userId": user, "event": "Shoes Bought"}),
            });
        }
        offset = app.track("/v1/batch", json!({"batch": calls})).await.expect(200).offset();
    }
    let expected = json!({"orders": (6 * 1_500 - 60) / 4, "fresh": (6 * 1_500 - 60) / 4, "all_fresh": true});
    for account in ["g0", "g1", "g2", "g3"] {
        assert_eq!(traits(&app, account, offset).await, expected, "{account}");
    }
    let (said, code) = verify(&app.db, &[]);
    assert_eq!(code, 0, "{said}");
    move_to(&app, "2024-03-01T13:00:00.001Z").await;
    assert_eq!(traits(&app, "g1", 0).await["fresh"], 0);
    let (entered, left) = ("entered 2024-03-01T12:00:00.000Z", "left 2024-03-01T13:00:00.001Z");
    let told = transitions(&app, "all_fresh").await;
    assert_eq!(told.iter().filter(|word| *word == left).count(), 4, "{told:?}");
    assert_eq!(told.first().map(String::as_str), Some(entered));
}

#[tokio::test]
async fn what_a_definition_of_accounts_asks_may_be_edited_and_replaced() {
    let app = start().await;
    app.make_live("audiences", "buyers", "event('Shoes Bought').count() >= 2").await;
    audience(&app, "big", "ANY audience('buyers')").await;
    let mut since = of_accounts("since", "event('Shoes Bought').count() >= 1");
    join(&app, "u1", "g").await;
    let offset = bought(&app, "u1", json!({})).await;
    assert_eq!(traits(&app, "g", offset).await, json!({}));
    since["options"] = json!({"include_historical_data": false});
    app.make_live_from("audiences", "since", since).await;
    // Another version of what it refers to: it is walked again.
    let change = json!({"definition": {"query": BOUGHT}});
    app.patch(&format!("{AUDIENCES}/buyers"), change).await.expect(200);
    app.live("audiences", "buyers").await;
    for _ in 0..1_000 {
        if traits(&app, "g", offset).await == json!({"big": true}) {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(traits(&app, "g", offset).await, json!({"big": true}));
    // Another version of its own serves when it is complete, and tells the difference.
    let dry = json!({"definition": {"query": "ALL audience('buyers') AND trait('plan') = 'pro'"}});
    let told = app.patch(&format!("{AUDIENCES}/big?dry_run=true"), dry.clone()).await.expect(200).json;
    assert_eq!((&told["size"], &told["enters"], &told["leaves"]), (&json!(0), &json!(0), &json!(1)));
    app.patch(&format!("{AUDIENCES}/big"), dry).await.expect(200);
    app.live("audiences", "big").await;
    assert_eq!(traits(&app, "g", 0).await, json!({"big": false}));
    let offset = bought_for(&app, "u1", "g", json!({})).await;
    assert_eq!(traits(&app, "g", offset).await, json!({"big": false, "since": true}));
    let group = json!({"groupId": "g", "userId": "u1", "traits": {"plan": "pro"}});
    let offset = app.track("/v1/group", group).await.expect(200).offset();
    assert_eq!(traits(&app, "g", offset).await["big"], true);
    let check =
        json!({"collection": "accounts", "ids": ["group_id:g", "group_id:none"], "audiences": ["big"]});
    let answer = app.post("/v1/spaces/default/memberships/check", check).await.expect(200).json;
    let said =
        |place: usize| (answer["data"][place]["found"].clone(), answer["data"][place]["audiences"].clone());
    assert_eq!((said(0), said(1)), ((json!(true), json!(["big"])), (json!(false), json!([]))));
    let told =
        app.get("/v1/spaces/default/collections/accounts/profiles/group_id:g/explain/big").await.expect(200);
    assert!(told.json["changes"]["not_before"].is_string(), "{}", told.text);
    let reason = told.json["would_have_to_change"].to_string();
    assert!(reason.contains("of the account's 1 users") && reason.contains("at least one"), "{reason}");
    let path = "/v1/spaces/default/collections/users/profiles/user_id:u1/explain/big";
    assert_eq!(app.get(path).await.expect(200).json["status"], "user");
    // Gone with its members.
    app.delete(&format!("{AUDIENCES}/big")).await.expect(204);
    assert_eq!(traits(&app, "g", 0).await, json!({"plan": "pro", "since": true}));
    let warned =
        app.post(AUDIENCES, of_accounts("odd", "trait('paln') = 1 AND ANY trait('nobody') = 1")).await;
    let warnings = warned.expect(201).json["warnings"].to_string();
    assert!(warnings.contains("paln") && warnings.contains("nobody"), "{warnings}");
}

#[tokio::test]
async fn a_walk_that_is_broken_off_goes_on_and_counts_everything_once() {
    const USERS: usize = 4_500;
    let app = start().await;
    let send = async |app: &TestApp, calls: Vec<Value>| {
        let mut offset = 0;
        for calls in calls.chunks(2_500) {
            offset = app.track("/v1/batch", json!({"batch": calls})).await.expect(200).offset();
        }
        offset
    };
    let user = |n: usize| json!(format!("u{n}"));
    let group = |n: usize| json!({"type": "group", "userId": user(n), "groupId": format!("g{}", n % 3)});
    let buy = |n: usize| json!({"type": "track", "userId": user(n), "event": "Shoes Bought"});
    send(&app, (0..USERS).map(group).collect()).await;
    let offset = send(&app, (0..USERS).map(buy).collect()).await;
    app.get(&format!("/v1/spaces/default/pipeline?min_offset={offset}")).await.expect(200);
    for (path, key, query) in [
        ("computed-traits", "orders", "event('Shoes Bought').count()"),
        ("audiences", "all_bought", "ALL event('Shoes Bought').count() >= 1"),
        ("audiences", "any_twice", "ANY event('Shoes Bought').within(1 day).count() >= 2"),
    ] {
        app.post(&format!("/v1/spaces/default/{path}"), of_accounts(key, query)).await.expect(201);
    }
    let walked = "SELECT coalesce(max(walked_no), 0) FROM computation";
    while sqlx::query_scalar::<_, i64>(walked).fetch_one(&app.db.pool).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    // Meanwhile some buy again, and some others come.
    let more = (0..600).map(|n| buy(n * 3)).chain((USERS..USERS + 30).map(group));
    send(&app, more.collect()).await;
    app.running.stop(std::time::Duration::ZERO).await.unwrap();
    let app = Wish::default().at(NOW).start_on(app.db).await;
    for (path, key) in
        [("computed-traits", "orders"), ("audiences", "all_bought"), ("audiences", "any_twice")]
    {
        app.live(path, key).await;
    }
    let offset = send(&app, (USERS..USERS + 20).map(buy).collect()).await;
    for (account, orders, any_twice) in
        [("g0", USERS / 3 + 600 + 7, true), ("g1", USERS / 3 + 7, false), ("g2", USERS / 3 + 6, false)]
    {
        let found = traits(&app, account, offset).await;
        assert_eq!(found["orders"], orders, "{account}: {found}");
        assert_eq!(found["any_twice"] == true, any_twice, "{account}: {found}");
        assert_ne!(found["all_bought"], true, "{account}: {found}");
    }
    let offset = send(&app, (USERS + 20..USERS + 30).map(buy).collect()).await;
    for account in ["g0", "g1", "g2"] {
        assert_eq!(traits(&app, account, offset).await["all_bought"], true, "{account}");
    }
    let (said, code) = verify(&app.db, &[]);
    assert_eq!(code, 0, "{said}");
}
