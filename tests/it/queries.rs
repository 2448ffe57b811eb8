//! The query language through the front door: formatting, sources by name, and errors with what was meant.

use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};

const NOW: &str = "2024-03-01T12:00:00.000Z";
const SPACE: &str = "/v1/spaces/default";

async fn start() -> TestApp {
    Wish::default().at(NOW).start().await
}

#[tokio::test]
async fn queries_are_formatted_or_refused_with_all_their_errors() {
    let app = start().await;
    let path = format!("{SPACE}/queries/format");
    let format = async |query: &str| app.post(&path, json!({"query": query})).await;
    let text = format("EVENT('A') . count()>=1&&trait( 'x' )==2 --why").await.expect(200).json;
    assert_eq!(text, json!({"query": "event('A').count() >= 1 AND trait('x') = 2 -- why"}));
    let text = text["query"].as_str().unwrap();
    assert_eq!(format(text).await.expect(200).json["query"], text);
    assert_eq!(
        format("event('A').sum(property('x'))").await.expect(200).json["query"],
        "event('A').sum(property('x'))"
    );
    let wrong =
        format("trait('x') = 1 AND evnt('A').count() >= 1").await.expect_problem(422, "invalid_query");
    let error = &wrong.json["errors"][0];
    assert_eq!((&error["line"], &error["column"], &error["length"]), (&json!(1), &json!(20), &json!(4)));
    assert_eq!(error["suggestion"], "event");
    app.post(&path, json!({})).await.expect_problem(422, "invalid");
    app.post(&path, json!({"query": ""})).await.expect_problem(422, "invalid_query");
}

#[tokio::test]
async fn a_form_reads_a_query_of_a_common_shape_and_writes_it() {
    let app = start().await;
    let path = format!("{SPACE}/queries/format");
    let format = async |body: Value| app.post(&path, body).await;
    let text = "event('A').within(7 days).count() >= 2 OR trait('plan') = 'pro' OR trait('age') < 30.5
        OR trait('zip') = '12' OR trait('x').contains('y') OR trait('z').absent() OR NOT audience('vip')";
    let conditions = json!([
        {"kind": "event", "event": "A", "comparison": ">=", "times": 2, "days": 7},
        {"kind": "trait", "trait": "plan", "comparison": "=", "value": "pro"},
        {"kind": "trait", "trait": "age", "comparison": "<", "value": 30.5},
        {"kind": "trait", "trait": "zip", "comparison": "=", "value": "12"},
        {"kind": "trait", "trait": "x", "comparison": "contains", "value": "y"},
        {"kind": "trait", "trait": "z", "comparison": "absent"},
        {"kind": "audience", "audience": "vip", "is_in": false},
    ]);
    let form = json!({"shape": "conditions", "join": "or", "conditions": conditions});
    let read = format(json!({"query": text})).await.expect(200).json;
    assert_eq!(read["form"], form, "{read}");
    assert_eq!(format(json!({"form": form})).await.expect(200).json, read);

    let value = json!({"shape": "value", "event": "A", "reducer": "sum", "property": "total", "days": 1});
    let read = format(json!({"query": "event('A').within(24 hours).sum(property('total'))"})).await;
    assert_eq!(read.expect(200).json["form"], value);
    let written = format(json!({"form": value})).await.expect(200).json;
    assert_eq!(written["query"], "event('A').within(1 day).sum(property('total'))");
    let count = json!({"shape": "value", "event": "A", "reducer": "count"});
    assert_eq!(format(json!({"form": count})).await.expect(200).json["query"], "event('A').count()");

    for no_form in ["event('A').where(property('x') = 1).count() >= 1", "trait('a') = 1 -- why", "everyone()"]
    {
        let answer = format(json!({"query": no_form})).await.expect(200).json;
        assert_eq!(answer, json!({"query": no_form}));
    }
}

#[tokio::test]
async fn the_form_that_the_page_shows_is_one() {
    let app = start().await;
    let page = std::fs::read_to_string("docs/query-language.md").unwrap();
    let shown = page.split("```form\n").nth(1).unwrap().split("```").next().unwrap();
    let form: Value = serde_json::from_str(shown).unwrap();
    let read = app.post(&format!("{SPACE}/queries/format"), json!({"form": form})).await.expect(200).json;
    assert_eq!(read["form"], form, "{read}");
    assert!(read["query"].as_str().unwrap().contains("NOT audience('vip')"), "{read}");
    // A form that is null beside a query is none.
    let both = json!({"query": read["query"], "form": null});
    assert_eq!(app.post(&format!("{SPACE}/queries/format"), both).await.expect(200).json, read);
}

#[tokio::test]
async fn what_no_form_is_writes_nothing() {
    let app = start().await;
    let path = format!("{SPACE}/queries/format");
    let all = |conditions: Value| json!({"shape": "conditions", "join": "and", "conditions": conditions});
    let of = |comparison: &str, value: Value| {
        all(json!([{"kind": "trait", "trait": "a", "comparison": comparison, "value": value}]))
    };
    let of_event = |event: &str, comparison: &str, days: u32| {
        let known = json!({"kind": "audience", "audience": "a", "is_in": true});
        let event =
            json!({"kind": "event", "event": event, "comparison": comparison, "times": 1, "days": days});
        all(json!([known, event]))
    };
    for (form, place) in [
        (all(json!([])), "form.conditions"),
        (of_event("", ">=", 1), "form.conditions[1].event"),
        (of_event("A", "~", 1), "form.conditions[1].comparison"),
        (of_event("A", "=", 0), "form.conditions[1].days"),
        (of("=", json!("two\nlines")), "form"),
        (of("=", json!(12_345_678_901_234_567_890_u64)), "form"),
        (of("=", json!(["a"])), "form.conditions[0].value"),
        (of("contains", json!(1)), "form.conditions[0].value"),
        (of("exists", json!(1)), "form.conditions[0].value"),
        (of("is", json!(1)), "form.conditions[0].comparison"),
        (json!({"shape": "value", "event": "A", "reducer": "sum"}), "form.property"),
        (json!({"shape": "value", "event": "A", "reducer": "sum", "property": ""}), "form.property"),
        (json!({"shape": "value", "event": "A", "reducer": "count", "property": "x"}), "form.property"),
        (json!({"shape": "value", "event": "A", "reducer": "median", "property": "x"}), "form.reducer"),
    ] {
        let answer = app.post(&path, json!({"form": form})).await.expect_problem(422, "invalid");
        assert_eq!(answer.json["field"], place, "{form}: {}", answer.text);
    }
    for no_form in [
        all(json!([{"kind": "event", "event": "A", "comparison": "=", "times": -1}])),
        all(json!([{"kind": "audience", "audience": "a", "is_in": true, "x": 1}])),
        json!({"shape": "story"}),
    ] {
        app.post(&path, json!({"form": no_form})).await.expect_problem(422, "invalid");
    }
    app.post(&path, json!({})).await.expect_problem(422, "invalid");
    let both = json!({"query": "everyone()", "form": all(json!([]))});
    app.post(&path, both).await.expect_problem(422, "invalid");
    // Of one condition it makes no difference what would join it with others.
    let one = json!([{"kind": "trait", "trait": "a", "comparison": "exists"}]);
    let form = json!({"shape": "conditions", "join": "or", "conditions": one});
    let answer = app.post(&path, json!({"form": form})).await.expect(200).json;
    assert_eq!((&answer["query"], &answer["form"]["join"]), (&json!("trait('a').exists()"), &json!("and")));
}

#[tokio::test]
async fn sources_are_meant_by_name_or_id_also_in_history() {
    let app = start().await;
    let made = app.post(&format!("{SPACE}/sources"), json!({"name": "App"})).await.expect(201).json;
    let (id, key) = (made["id"].as_str().unwrap(), made["write_key"].as_str().unwrap());
    let send = async |key: &str, user: &str| {
        let body = json!({"writeKey": key, "userId": user, "event": "Opened"});
        app.request(reqwest::Method::POST, "/v1/track").body(body.to_string()).send().await.unwrap()
    };
    assert_eq!(send(key, "u1").await.status(), 200);
    assert_eq!(send(crate::harness::app::WRITE_KEY, "u2").await.status(), 200);
    app.make_live("audiences", "by_name", "event('Opened').where(source('App')) >= 1").await;
    app.make_live("audiences", "others", &format!("event('*').sources(exclude: ['{id}']) >= 1")).await;
    let answer = send(key, "u3").await;
    let offset = answer.headers()["personas-offset"].to_str().unwrap().to_owned();
    let profiles = format!("{SPACE}/collections/users/profiles");
    for (user, by_name, others) in [("u1", true, false), ("u2", false, true), ("u3", true, false)] {
        let path = format!("{profiles}/user_id:{user}/traits?limit=200&min_offset={offset}");
        let traits = app.get(&path).await.expect(200).json["traits"].clone();
        let has = |key: &str| traits[key] == true;
        assert_eq!((has("by_name"), has("others")), (by_name, others), "{user} {traits}");
    }
    let body = |query: &str| json!({"key": "no", "definition": {"type": "users", "query": query}});
    let wrong =
        app.post(&format!("{SPACE}/audiences"), body("event('Opened').where(source('Apps')) >= 1")).await;
    let wrong = wrong.expect_problem(422, "invalid_query").json;
    assert_eq!(wrong["errors"][0]["suggestion"], "App", "{wrong}");
    app.post(&format!("{SPACE}/sources"), json!({"name": "App"})).await.expect(201);
    let wrong =
        app.post(&format!("{SPACE}/audiences"), body("event('Opened').where(source('App')) >= 1")).await;
    let wrong = wrong.expect_problem(422, "invalid_query").json;
    assert!(wrong.to_string().contains("name the one by its id"), "{wrong}");
    app.make_live("audiences", "by_id", &format!("event('Opened').where(source('{id}')) >= 1")).await;
}

#[tokio::test]
async fn a_merged_profile_has_the_bucket_of_the_survivor_and_one_session_of_both() {
    let app = start().await;
    let body = |query: &str| {
        json!({"key": "x", "definition": {"type": "users", "query": query},
        "options": {"include_anonymous": true}})
    };
    for (key, query) in
        [("bucket", "random_bucket('salt')"), ("views", "event('Page Viewed').expires_after(1 hour).count()")]
    {
        let mut body = body(query);
        body["key"] = json!(key);
        app.make_live_from("computed-traits", key, body).await;
    }
    let traits = async |who: &str, offset: u64| {
        let path = format!("{SPACE}/collections/users/profiles/{who}/traits?limit=200&min_offset={offset}");
        app.get(&path).await.expect(200).json["traits"].clone()
    };
    let page = async |who: &str, id: &str, at: &str| {
        app.track("/v1/page", json!({who: id, "timestamp": at})).await.expect(200).offset()
    };
    page("anonymousId", "a", "2024-03-01T10:30:00Z").await;
    page("userId", "u", "2024-03-01T11:10:00Z").await;
    let offset = page("anonymousId", "a", "2024-03-01T11:50:00Z").await;
    let (first, second) = (traits("anonymous_id:a", offset).await, traits("user_id:u", offset).await);
    assert_ne!(first["bucket"], second["bucket"]);
    assert_eq!((&first["views"], &second["views"]), (&json!(1), &json!(1)));
    let merge = json!({"anonymousId": "a", "userId": "u"});
    let offset = app.track("/v1/identify", merge).await.expect(200).offset();
    let merged = traits("user_id:u", offset).await;
    assert_eq!(
        merged,
        json!({"bucket": first["bucket"], "views": 3}),
        "one session, joined by the other's view"
    );
}
