//! Audiences that leave people out whatever their query says: without consent, or by an objection to automated decisions.

use serde_json::{Value, json};

use crate::harness::acts::{Case, SPACE, USERS};
use crate::harness::app::Wish;
use crate::harness::destinations::sending;
use crate::harness::rebuild::{expect_same, json_of, run};
use crate::harness::receiver::Receiver;

const CONSENT: &str = "/v1/spaces/default/consent";

async fn fan(case: &mut Case, user: &str, preferences: Value) {
    let context = json!({"consent": {"categoryPreferences": preferences}});
    let call = json!({"userId": user, "traits": {"fan": true}, "context": context});
    case.offset = case.app.track("/v1/identify", call).await.expect(200).offset();
}

async fn fans(case: &Case, options: Value) {
    let query = json!({"query": "trait('fan') = true -- all of them"});
    let body = json!({"key": "fans", "definition": query, "options": options, "purpose": "prices"});
    case.app.make_live_from("audiences", "fans", body).await;
}

async fn members(case: &Case) -> Vec<String> {
    let list = case.get(&format!("{SPACE}/audiences/fans/members?limit=1000")).await;
    let ids = list["data"].as_array().unwrap().iter().map(|m| m["profile_id"].as_str().unwrap().to_owned());
    let (ids, size) = (ids.collect::<Vec<_>>(), case.sizes().await["fans"].clone());
    assert_eq!(size, ids.len());
    ids
}

async fn object(case: &mut Case, selector: &str, how: &str) -> Value {
    let path = format!("{USERS}/{selector}/objections{how}");
    let done = case.app.post(&path, json!({})).await.expect(200).json;
    case.offset = done["offset"].as_u64().unwrap_or(case.offset);
    done
}

#[tokio::test]
async fn where_the_space_says_so_who_does_not_consent_is_no_member() {
    let mut case = Case::start(Wish::default()).await;
    case.app.post(&format!("{CONSENT}/categories"), json!({"id": "Ads and more"})).await.expect(201);
    fan(&mut case, "yes", json!({"Ads and more": true})).await;
    fan(&mut case, "no", json!({"Ads and more": false})).await;
    fan(&mut case, "silent", json!({})).await;
    let settings = format!("{CONSENT}/settings");
    assert_eq!(case.get(&settings).await, json!({"membership": false}));
    fans(&case, json!({"consent_category": "Ads and more"})).await;
    assert_eq!(members(&case).await.len(), 3, "the space does not ask for it");
    assert_eq!(
        case.app.patch(&settings, json!({"membership": true})).await.expect(200).json,
        json!({"membership": true})
    );
    let shown = case.app.live("audiences", "fans").await;
    assert_eq!((&shown["version"], &shown["consent_enforced"]), (&json!(2), &json!(true)));
    assert_eq!(shown["definition"]["query"], "trait('fan') = true -- all of them");
    let yes = case.id("user_id:yes").await;
    assert_eq!(members(&case).await, std::slice::from_ref(&yes));
    let left = case.transitions("fans").await.iter().filter(|(_, word)| word == "left").count();
    assert_eq!(left, 2, "it is told");

    // Live, in both directions.
    fan(&mut case, "silent", json!({"Ads and more": true})).await;
    fan(&mut case, "yes", json!({"Ads and more": false})).await;
    let silent = case.id("user_id:silent").await;
    assert_eq!(members(&case).await, std::slice::from_ref(&silent));
    let told = case.transitions("fans").await;
    assert_eq!(told[told.len() - 2..], [(silent, "entered".to_owned()), (yes, "left".to_owned())]);
    let why = case.get(&format!("{USERS}/user_id:yes/explain/fans")).await;
    assert_eq!(why["member"], false);
    assert_eq!(why["consent"], json!({"category": "Ads and more", "enforced": true, "given": false}));
    let hints = why["would_have_to_change"].to_string();
    assert!(hints.contains("consent to the category Ads and more"), "{why}");
    case.check().await;
    let before = members(&case).await;
    json_of(&run(&case.app.db, &["--json"]).await);
    assert_eq!(members(&case).await, before, "after a rebuild");

    let preview = json!({"definition": {"query": "trait('fan') = true"}, "options": {"consent_category": "Ads and more"}});
    let preview = case.app.post(&format!("{SPACE}/audiences/preview"), preview).await.expect(200).json;
    assert_eq!(preview["size"], 1);
    case.app.patch(&settings, json!({"membership": false})).await.expect(200);
    case.app.live("audiences", "fans").await;
    assert_eq!(members(&case).await.len(), 3);
    let change = json!({"options": {"consent_category": null}});
    let changed = case.app.patch(&format!("{SPACE}/audiences/fans"), change).await.expect(200).json;
    assert_eq!(changed["options"]["consent_category"], Value::Null);
    case.check().await;
}

#[tokio::test]
async fn only_audiences_of_people_ask_for_consent_to_what_there_is() {
    let case = Case::start(Wish::default()).await;
    case.app.post(&format!("{CONSENT}/categories"), json!({"id": "Ads"})).await.expect(201);
    let of = |kind: &str, options: Value| json!({"key": "k", "definition": {"type": kind, "query": "trait('a') = 1"}, "options": options});
    for (body, field) in [
        (of("users", json!({"consent_category": "ads"})), "options.consent_category"),
        (of("accounts", json!({"consent_category": "Ads"})), "options.consent_category"),
    ] {
        let problem =
            case.app.post(&format!("{SPACE}/audiences"), body.clone()).await.expect_problem(422, "invalid");
        assert_eq!(problem.json["field"], field, "{body}: {}", problem.text);
    }
    let count = json!({"query": "event('A').count()"});
    for option in [json!({"consent_category": "Ads"}), json!({"requires_human_review": true})] {
        let body = json!({"key": "k", "definition": count, "options": option});
        case.app.post(&format!("{SPACE}/computed-traits"), body).await.expect_problem(422, "invalid");
    }
    for query in
        ["trait('$objection') = true", "trait('$consent:Ads') = true", "trait('$objection:x') = true"]
    {
        let body = json!({"key": "k", "definition": {"query": query}});
        case.app.post(&format!("{SPACE}/audiences"), body).await.expect_problem(422, "invalid");
    }
    // What an audience asks for cannot go.
    case.app
        .post(&format!("{SPACE}/audiences"), of("users", json!({"consent_category": "Ads"})))
        .await
        .expect(201);
    let problem = case.app.delete(&format!("{CONSENT}/categories/Ads")).await.expect_problem(409, "in_use");
    assert!(problem.text.contains('k'), "{}", problem.text);
}

#[tokio::test]
async fn who_objects_to_automated_decisions_is_in_no_audience_that_needs_review() {
    let mut case = Case::start(Wish::default()).await;
    for user in ["a", "b", "c"] {
        fan(&mut case, user, json!({})).await;
    }
    fans(&case, json!({"requires_human_review": true})).await;
    case.app.make_live("audiences", "plain", "trait('fan') = true").await;
    let (a, b, c) = (case.id("user_id:a").await, case.id("user_id:b").await, case.id("user_id:c").await);
    let listed = case.get(&format!("{USERS}/user_id:a/audiences")).await["data"].clone();
    let flags: Vec<(&Value, &Value, &Value)> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (&row["key"], &row["purpose"], &row["requires_human_review"]))
        .collect();
    let (fans, plain) = (json!("fans"), json!("plain"));
    assert_eq!(flags, [(&fans, &json!("prices"), &json!(true)), (&plain, &Value::Null, &json!(false))]);

    let tried = object(&mut case, "user_id:a", "?dry_run=true").await;
    assert_eq!(tried["transitions"][0]["transition"], "left");
    assert_eq!(members(&case).await.len(), 3);
    let done = object(&mut case, "user_id:a", "").await;
    assert_eq!(done["transitions"], json!([{"audience": "fans", "profile_id": a, "transition": "left"}]));
    assert_eq!(members(&case).await, [b.clone(), c.clone()]);
    let why = case.get(&format!("{USERS}/user_id:a/explain/fans")).await;
    assert_eq!(
        (&why["objects"], &why["requires_human_review"], &why["purpose"]),
        (&json!(true), &json!(true), &json!("prices"))
    );
    assert!(why["would_have_to_change"].to_string().contains("objected to automated decisions"), "{why}");
    assert_eq!(case.get(&format!("{USERS}/user_id:a/explain/plain")).await["member"], true);
    let seen = case.get(&format!("{USERS}/user_id:a/objections")).await;
    assert_eq!((&seen["objects"], seen["objections"].as_array().unwrap().len()), (&json!(true), 1));
    assert_eq!(
        case.traits("user_id:a").await,
        json!({"fan": true, "fans": false, "plain": true}),
        "it is not among the traits"
    );

    // An objection of either side holds, and lifting one does not lift what came from the other.
    object(&mut case, "user_id:b", "").await;
    object(&mut case, "user_id:b", "/lift").await;
    assert_eq!(members(&case).await, [b.clone(), c.clone()]);
    case.post("/identity/merges", json!({"profiles": ["user_id:a", "user_id:b"], "override_limits": true}))
        .await;
    assert_eq!(members(&case).await, std::slice::from_ref(&c));
    expect_same(&case.app.db).await;
    assert_eq!(members(&case).await, std::slice::from_ref(&c));
    let merge = case.merge_of("user_id:a").await;
    case.undo(&merge).await;
    assert_eq!(members(&case).await, [b.clone(), c.clone()]);
    object(&mut case, "user_id:a", "/lift").await;
    assert_eq!(members(&case).await, [a, b, c]);
    let again = case.app.post(&format!("{USERS}/user_id:a/objections/lift"), json!({})).await;
    again.expect(409);
    case.check().await;
    expect_same(&case.app.db).await;
    let acts = case.get(&format!("{SPACE}/audit-log")).await;
    let names: Vec<&str> =
        acts["data"].as_array().unwrap().iter().map(|act| act["action"].as_str().unwrap()).collect();
    assert!(names.contains(&"objection.raise") && names.contains(&"objection.lift"), "{names:?}");
}

#[tokio::test]
async fn deliveries_say_what_an_audience_is_for_and_that_a_person_decides() {
    let (app, receiver) = (sending().start().await, Receiver::start().await);
    let crm = app.make_webhook("crm", &receiver, json!({})).await;
    let body = json!({"key": "risky", "definition": {"query": "trait('late') = true"}, "purpose": "credit",
        "options": {"requires_human_review": true}});
    let made = app.make_live_from("audiences", "risky", body).await;
    assert_eq!(
        (&made["purpose"], &made["options"]["requires_human_review"]),
        (&json!("credit"), &json!(true))
    );
    app.subscribe(&crm, json!({"subject": "audience", "key": "risky"})).await;
    app.processed("/v1/identify", json!({"userId": "u", "traits": {"late": true}})).await;
    let told = receiver.wait_taken(1).await;
    let context = &told[0]["context"]["personas"];
    assert_eq!(
        (&context["purpose"], &context["requires_human_review"]),
        (&json!("credit"), &json!(true)),
        "{told:?}"
    );
    let change = json!({"purpose": null, "options": {"requires_human_review": false}});
    let changed = app.patch("/v1/spaces/default/audiences/risky", change).await.expect(200).json;
    assert_eq!((&changed["purpose"], &changed["version"]), (&Value::Null, &json!(2)));
    let long = json!({"purpose": "x".repeat(2_001)});
    app.patch("/v1/spaces/default/audiences/risky", long).await.expect_problem(422, "invalid");
}
