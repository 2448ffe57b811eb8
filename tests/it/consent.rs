//! Consent through HTTP: what people say of it is kept with its evidence, and destinations that ask for it are told of nobody
//! without it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::acts::{Case, SPACE, USERS};
use crate::harness::app::{TestApp, Wish};
use crate::harness::destinations::sending;
use crate::harness::rebuild::expect_same;
use crate::harness::receiver::{Receiver, Reply};

const CATEGORIES: &str = "/v1/spaces/default/consent/categories";

/// A call that says something of consent.
fn says(user: &str, at: &str, preferences: &Value) -> Value {
    json!({
        "userId": user, "event": "Segment Consent Preference Updated", "timestamp": at, "messageId": format!("{user} {at}"),
        "context": {"consent": {"categoryPreferences": preferences}},
    })
}

async fn make(app: &TestApp, id: &str, destinations: &[&Value]) -> Value {
    let destinations: Vec<&Value> = destinations.iter().map(|d| &d["id"]).collect();
    app.post(CATEGORIES, json!({"id": id, "destinations": destinations})).await.expect(201).json
}

/// What a person has consented to: category and evidence.
async fn consents(case: &Case, selector: &str) -> BTreeMap<String, (bool, String)> {
    let seen = case.get(&format!("{USERS}/{selector}/consent")).await;
    let word = |c: &Value| {
        let by = c["evidence"]["message_id"].as_str().unwrap_or("nobody").to_owned();
        (c["id"].as_str().unwrap().to_owned(), (c["consented"].as_bool().unwrap(), by))
    };
    seen["categories"].as_array().unwrap().iter().map(word).collect()
}

fn are(list: &[(&str, bool, &str)]) -> BTreeMap<String, (bool, String)> {
    list.iter().map(|(id, given, by)| ((*id).to_owned(), (*given, (*by).to_owned()))).collect()
}

#[tokio::test]
async fn categories_are_made_changed_and_deleted_and_mistakes_are_told() {
    let app = sending().start().await;
    let receiver = Receiver::start().await;
    let (ads, crm) = (
        app.make_webhook("ads", &receiver, json!({})).await,
        app.make_webhook("crm", &receiver, json!({})).await,
    );
    let made = make(&app, "Advertising", &[&ads, &ads]).await;
    assert_eq!((&made["name"], &made["destinations"]), (&json!("Advertising"), &json!([ads["id"]])));
    app.post(CATEGORIES, json!({"id": "Advertising"})).await.expect_problem(409, "conflict");
    for (bad, field) in [
        (json!({"id": "1st"}), "id"),
        (json!({"id": ""}), "id"),
        (json!({"id": "a.b"}), "id"),
        (json!({"id": "a'b"}), "id"),
        (json!({"id": "a".repeat(35)}), "id"),
        (json!({"id": "A", "name": ""}), "name"),
        (json!({"id": "A", "destinations": ["x"]}), "destinations[0]"),
        (
            json!({"id": "A", "destinations": [ads["id"], "dst_019293f4-0000-7000-8000-000000000000"]}),
            "destinations[1]",
        ),
    ] {
        let problem = app.post(CATEGORIES, bad.clone()).await.expect_problem(422, "invalid");
        assert_eq!(problem.json["field"], field, "{bad}: {}", problem.text);
    }
    let both = json!({"name": "Ads", "destinations": [crm["id"], ads["id"]]});
    let changed = app.patch(&format!("{CATEGORIES}/Advertising"), both).await.expect(200).json;
    assert_eq!((&changed["name"], &changed["destinations"]), (&json!("Ads"), &json!([ads["id"], crm["id"]])));
    app.delete(&format!("/v1/spaces/default/destinations/{}", crm["id"].as_str().unwrap())).await.expect(204);
    let kept = app.get(&format!("{CATEGORIES}/Advertising")).await.expect(200).json;
    assert_eq!(kept["destinations"], json!([ads["id"]]));
    make(&app, "do not sell", &[]).await;
    let list = app.get(CATEGORIES).await.expect(200).json;
    let ids: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|c| &c["id"]).collect();
    assert_eq!(ids, ["Advertising", "do not sell"]);
    app.delete(&format!("{CATEGORIES}/Advertising")).await.expect(204);
    for answer in [
        app.get(&format!("{CATEGORIES}/Advertising")).await,
        app.patch(&format!("{CATEGORIES}/Advertising"), json!({"name": "x"})).await,
        app.delete(&format!("{CATEGORIES}/Advertising")).await,
    ] {
        answer.expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn the_newest_word_counts_by_category_with_its_evidence() {
    let mut case = Case::start(Wish::default()).await;
    for (path, call) in [
        ("/v1/track", says("u", "2024-02-02T00:00:00Z", &json!({"Ads": true, "Stats": true}))),
        // Received later, and older.
        ("/v1/track", says("u", "2024-02-01T00:00:00Z", &json!({"Ads": false, "Old": true}))),
        // Every call can say it, and says nothing of what it does not name.
        (
            "/v1/page",
            json!({"userId": "u", "timestamp": "2024-02-03T00:00:00Z", "messageId": "page",
            "context": {"consent": {"categoryPreferences": {"Stats": false}}}}),
        ),
        (
            "/v1/identify",
            json!({"userId": "u", "timestamp": "2024-02-04T00:00:00Z", "messageId": "none",
            "traits": {"$consent:Ads": false, "plan": "pro"}, "context": {"consent": {"categoryPreferences": {}}}}),
        ),
        (
            "/v1/identify",
            json!({"userId": "u", "timestamp": "2024-02-05T00:00:00Z", "messageId": "odd",
            "context": {"consent": {"categoryPreferences": {"Ads": "no"}}}}),
        ),
    ] {
        case.offset = case.app.track(path, call).await.expect(200).offset();
    }
    let first = "u 2024-02-02T00:00:00Z";
    let right =
        are(&[("Ads", true, first), ("Old", true, "u 2024-02-01T00:00:00Z"), ("Stats", false, "page")]);
    assert_eq!(consents(&case, "user_id:u").await, right);
    assert_eq!(case.traits("user_id:u").await, json!({"plan": "pro"}), "it is not among the traits");
    let warned = case.get(&format!("{SPACE}/rejected-events")).await;
    let codes: BTreeSet<&str> =
        warned["data"].as_array().unwrap().iter().map(|w| w["code"].as_str().unwrap()).collect();
    assert!(codes.contains("consent_left_out") && codes.contains("trait_reserved"), "{warned}");

    let history = case.get(&format!("{USERS}/user_id:u/consent/history?limit=2")).await;
    let told = |list: &Value| -> Vec<(String, Value)> {
        let word = |e: &Value| (e["message_id"].as_str().unwrap().to_owned(), e["preferences"].clone());
        list["data"].as_array().unwrap().iter().map(word).collect()
    };
    assert_eq!(told(&history), [("odd".to_owned(), json!({})), ("none".to_owned(), json!({}))]);
    let next = history["cursor"]["next"].as_str().unwrap();
    let rest = case.get(&format!("{USERS}/user_id:u/consent/history?next={next}")).await;
    let right_rest = [
        ("page".to_owned(), json!({"Stats": false})),
        (first.to_owned(), json!({"Ads": true, "Stats": true})),
    ];
    assert_eq!(told(&rest)[..2], right_rest);
    case.app
        .track("/v1/track", json!({"userId": "u2", "event": "Segment Consent Preference Updated"}))
        .await
        .expect(400);
    expect_same(&case.app.db).await;
    assert_eq!(consents(&case, "user_id:u").await, right, "after a rebuild");
    case.check().await;
}

#[tokio::test]
async fn merges_take_the_newer_word_and_taking_one_back_gives_each_its_own() {
    let mut case = Case::start(Wish::default()).await;
    for call in [
        says("a", "2024-02-02T00:00:00Z", &json!({"Ads": true, "Stats": false})),
        says("b", "2024-02-03T00:00:00Z", &json!({"Ads": false, "Mail": true})),
    ] {
        case.app.track("/v1/track", call).await.expect(200);
    }
    case.send("track Seen user=a x=1").await;
    case.send("track Seen user=b x=2").await;
    let (of_a, of_b) = ("a 2024-02-02T00:00:00Z", "b 2024-02-03T00:00:00Z");
    let (a, b) = (consents(&case, "user_id:a").await, consents(&case, "user_id:b").await);
    assert_eq!(a, are(&[("Ads", true, of_a), ("Stats", false, of_a)]));
    case.post("/identity/merges", json!({"profiles": ["user_id:a", "user_id:b"], "override_limits": true}))
        .await;
    let both = consents(&case, "user_id:a").await;
    assert_eq!(both, are(&[("Ads", false, of_b), ("Mail", true, of_b), ("Stats", false, of_a)]));
    expect_same(&case.app.db).await;
    assert_eq!(consents(&case, "user_id:b").await, both);
    let merge = case.merge_of("user_id:a").await;
    case.undo(&merge).await;
    assert_eq!(consents(&case, "user_id:a").await, a);
    assert_eq!(consents(&case, "user_id:b").await, b);
    case.check().await;
    expect_same(&case.app.db).await;
    assert_eq!(consents(&case, "user_id:b").await, b);
}

/// Four destinations that want who is a fan, on one receiver; who was told of whom by path.
struct Fans {
    app: TestApp,
    receiver: Receiver,
    by_name: BTreeMap<&'static str, Value>,
}

impl Fans {
    async fn start(names: &[&'static str]) -> Self {
        let (app, receiver) = (sending().start().await, Receiver::start().await);
        app.make_live("audiences", "fans", "trait('fan') = true").await;
        let mut by_name = BTreeMap::new();
        for name in names {
            let made =
                app.make_webhook(name, &receiver, json!({"url": format!("{}/{name}", receiver.url)})).await;
            app.subscribe(&made, json!({"subject": "audience", "key": "fans"})).await;
            by_name.insert(*name, made);
        }
        Self { app, receiver, by_name }
    }

    /// Makes somebody a fan, or no more, saying that of consent.
    async fn fan(&self, user: &str, is_fan: bool, consent: Option<Value>) {
        let mut call = json!({"userId": user, "traits": {"fan": is_fan}});
        if let Some(consent) = consent {
            call["context"] = json!({"consent": consent});
        }
        self.app.processed("/v1/identify", call).await;
        self.settle().await;
    }

    async fn settle(&self) {
        for destination in self.by_name.values() {
            self.app.wait_sent(destination).await;
        }
    }

    /// What each destination was told of somebody, in order.
    fn told(&self, user: &str) -> BTreeMap<String, Vec<Value>> {
        let mut told: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for request in self.receiver.all().into_iter().filter(|r| r.taken) {
            for event in request.events().into_iter().filter(|e| e["userId"] == user) {
                let path = request.path.trim_start_matches('/').to_owned();
                told.entry(path).or_default().push(event["traits"]["fans"].clone());
            }
        }
        told
    }

    /// Asks for consent to exactly these categories.
    async fn ask(&self, categories: &[(&str, &[&str])]) {
        let present = self.app.get(CATEGORIES).await.expect(200).json;
        for known in present["data"].as_array().unwrap() {
            self.app.delete(&format!("{CATEGORIES}/{}", known["id"].as_str().unwrap())).await.expect(204);
        }
        for (id, names) in categories {
            let destinations: Vec<&Value> = names.iter().map(|name| &self.by_name[name]).collect();
            make(&self.app, id, &destinations).await;
        }
        self.settle().await;
    }
}

/// A row of Segment's matrix of consent and integrations, applied to what is delivered here: not events, but what changes of a
/// person, with what the person has said. An event's `integrations` are about that event's own way to destinations, which there
/// is not, so they narrow nothing: where they did, `because` says so.
struct Row {
    consent: Option<Value>,
    asked: &'static [(&'static str, &'static [&'static str])],
    told: &'static [&'static str],
    because: &'static str,
}

const ALL: &[&str] = &["amplitude", "facebook", "google-ads", "plain"];
const USUAL: &[(&str, &[&str])] = &[("ad", &["facebook", "google-ads"]), ("analytics", &["amplitude"])];
const SHARED: &[(&str, &[&str])] =
    &[("ad", &["facebook", "google-ads"]), ("analytics", &["facebook", "amplitude"])];

fn matrix() -> Vec<Row> {
    let said =
        |ad: bool, analytics: bool| Some(json!({"categoryPreferences": {"ad": ad, "analytics": analytics}}));
    let integrations = "of integrations nothing applies: there is no event on its way to a destination";
    let row = |consent, asked, told, because| Row { consent, asked, told, because };
    vec![
        row(None, &[], ALL, "nobody asks"),
        row(
            None,
            USUAL,
            &["plain"],
            "all for an event; of a person who has said nothing, what is mapped is not told",
        ),
        row(Some(json!({})), USUAL, &["plain"], "the same"),
        row(Some(json!({"categoryPreferences": {}})), USUAL, &["plain"], "as the matrix has it"),
        row(said(true, false), &[], ALL, "no category is mapped to anything"),
        row(said(true, false), &[("ad", &["facebook", "google-ads"])], ALL, "amplitude is mapped to nothing"),
        row(
            said(true, false),
            USUAL,
            &["facebook", "google-ads", "plain"],
            "as the matrix has it, be facebook true or false",
        ),
        row(
            said(true, false),
            SHARED,
            &["google-ads", "plain"],
            "all categories of a destination must be true",
        ),
        row(said(true, true), SHARED, ALL, integrations),
        row(said(false, true), SHARED, &["amplitude", "plain"], integrations),
        row(
            Some(json!({"categoryPreferences": {"other": true}})),
            USUAL,
            &["plain"],
            "a category nobody knows",
        ),
        row(
            Some(json!({"categoryPreferences": {"ad": true}})),
            USUAL,
            &["facebook", "google-ads", "plain"],
            "one not sent",
        ),
    ]
}

#[tokio::test]
async fn i34_the_matrix_of_consent_says_who_is_told() {
    let fans = Fans::start(ALL).await;
    for (no, Row { consent, asked, told, because }) in matrix().into_iter().enumerate() {
        fans.ask(asked).await;
        let user = format!("u{no}");
        fans.fan(&user, true, consent).await;
        let seen: Vec<String> = fans.told(&user).into_keys().collect();
        assert_eq!(seen, told, "row {no}: {because}");
        let shown = fans.app.get(&format!("{USERS}/user_id:{user}/consent")).await.expect(200).json;
        let allowed: BTreeSet<&str> = shown["destinations"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|d| d["allowed"] == true)
            .map(|d| d["id"].as_str().unwrap())
            .collect();
        for (name, made) in &fans.by_name {
            let is_asked = asked.iter().any(|(_, names)| names.contains(name));
            assert_eq!(
                allowed.contains(made["id"].as_str().unwrap()),
                is_asked && told.contains(name),
                "row {no}: {name}"
            );
            let outcomes = fans.app.deliveries(made, "").await;
            let id = shown["profile_id"].as_str().unwrap();
            let of_user: Vec<&Value> = outcomes.iter().filter(|d| d["profile_id"] == id).collect();
            let is_right = |d: &&Value| {
                if told.contains(name) {
                    d["state"] == "delivered"
                } else {
                    d["code"] == "filtered_by_consent"
                }
            };
            assert!(!of_user.is_empty() && of_user.iter().all(is_right), "row {no}: {name}: {of_user:?}");
        }
    }
}

#[tokio::test]
async fn i34_withdrawal_stops_what_waits_and_consent_tells_the_present_state() {
    let fans = Fans::start(&["ads", "plain"]).await;
    fans.ask(&[("Ads", &["ads"])]).await;
    let says = |given: bool| Some(json!({"categoryPreferences": {"Ads": given}}));
    let ads = fans.by_name["ads"].clone();
    // In the queue when it is taken back.
    fans.app.act(&ads, "pause", json!({})).await;
    let call = json!({"userId": "queued", "traits": {"fan": true}, "context": {"consent": says(true)}});
    fans.app.processed("/v1/identify", call).await;
    let call = json!({"userId": "queued", "context": {"consent": says(false)}});
    fans.app.processed("/v1/identify", call).await;
    fans.app.act(&ads, "resume", json!({})).await;
    fans.settle().await;
    assert_eq!(fans.told("queued"), [("plain".to_owned(), vec![json!(true)])].into());
    // Between two attempts.
    fans.receiver.now(|request, _| Reply::Status(if request.path == "/ads" { 503 } else { 200 }));
    let call = json!({"userId": "tried", "traits": {"fan": true}, "context": {"consent": says(true)}});
    fans.app.processed("/v1/identify", call).await;
    fans.receiver.wait(|r| r.all().iter().find(|r| r.path == "/ads").map(|_| ())).await;
    let call = json!({"userId": "tried", "context": {"consent": says(false)}});
    fans.app.processed("/v1/identify", call).await;
    fans.receiver.now(|_, _| Reply::Status(200));
    fans.app.act(&ads, "resume", json!({})).await;
    fans.settle().await;
    assert_eq!(fans.told("tried"), [("plain".to_owned(), vec![json!(true)])].into());
    // Given again: what holds now, once.
    fans.fan("queued", true, says(true)).await;
    assert_eq!(fans.told("queued")["ads"], [json!(true)]);
    // Who leaves in between is told to have left, when that may be told.
    fans.fan("queued", false, says(false)).await;
    assert_eq!(fans.told("queued")["ads"], [json!(true)]);
    fans.fan("queued", false, says(true)).await;
    assert_eq!(fans.told("queued")["ads"], [json!(true), json!(false)]);
    assert_eq!(fans.told("queued")["plain"], [json!(true), json!(false)]);
    // A merge with somebody who consents is consent, too.
    fans.fan("tried", true, None).await;
    assert!(!fans.told("tried").contains_key("ads"));
    fans.app.processed("/v1/identify", json!({"userId": "other", "context": {"consent": says(true)}})).await;
    let merge = json!({"profiles": ["user_id:tried", "user_id:other"], "override_limits": true});
    fans.app.post("/v1/spaces/default/identity/merges", merge).await.expect(200);
    fans.settle().await;
    let told: Vec<Value> = fans.receiver.taken().into_iter().filter(|e| e["userId"] == "other").collect();
    assert!(told.iter().any(|e| e["traits"]["fans"] == true), "{told:?}");
    let metrics = fans.app.destination(&ads).await;
    assert!(metrics["deliveries"]["filtered"].as_i64().unwrap() >= 3, "{metrics}");
}

#[tokio::test]
async fn a_destination_that_asks_no_more_is_told_of_everybody() {
    let fans = Fans::start(&["ads"]).await;
    fans.ask(&[("Ads", &["ads"])]).await;
    fans.fan("silent", true, None).await;
    assert!(fans.told("silent").is_empty());
    fans.app.patch(&format!("{CATEGORIES}/Ads"), json!({"destinations": []})).await.expect(200);
    fans.receiver.wait_taken(1).await;
    assert_eq!(fans.told("silent")["ads"], [json!(true)]);
    // And not any more once it asks again.
    fans.app
        .patch(&format!("{CATEGORIES}/Ads"), json!({"destinations": [fans.by_name["ads"]["id"]]}))
        .await
        .expect(200);
    fans.fan("silent", false, None).await;
    assert_eq!(fans.told("silent")["ads"], [json!(true)]);
}

#[tokio::test]
async fn who_has_consent_back_after_a_merge_is_told_of_whole() {
    let receiver = Receiver::start().await;
    let mut case = Case::start(sending()).await;
    let ads = case.app.make_webhook("ads", &receiver, json!({})).await;
    case.app.subscribe(&ads, json!({"subject": "custom_traits"})).await;
    make(&case.app, "Ads", &[&ads]).await;
    let call = |who: (&str, &str), minute: usize, traits: Value, consent: Value| {
        let mut call = json!({"traits": traits, "timestamp": format!("2024-03-01T11:{minute:02}:00Z")});
        call[who.0] = json!(who.1);
        call["context"] = json!({"consent": {"categoryPreferences": consent}});
        call
    };
    let (ada, bob) = (("userId", "ada"), ("anonymousId", "b1"));
    case.app.processed("/v1/identify", call(ada, 1, json!({"plan": "pro"}), json!({"Ads": true}))).await;
    case.app.processed("/v1/identify", call(bob, 2, json!({}), json!({"Ads": false}))).await;
    case.app.wait_sent(&ads).await;
    assert_eq!(receiver.taken().len(), 1);
    case.send_all(&["track Seen user=ada anon=b1"]).await;
    case.app.processed("/v1/identify", call(ada, 3, json!({"age": 7}), json!({}))).await;
    case.app.wait_sent(&ads).await;
    assert_eq!(receiver.taken().len(), 1, "the newest word of the two is no");
    let merge = case.merge_of("user_id:ada").await;
    case.undo(&merge).await;
    case.app.wait_sent(&ads).await;
    let told: Vec<Value> = receiver.taken().into_iter().filter(|e| e["userId"] == "ada").collect();
    let last = told.last().unwrap();
    assert_eq!((&last["traits"]["plan"], &last["traits"]["age"]), (&json!("pro"), &json!(7)), "{told:?}");
}
