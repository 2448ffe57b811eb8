//! The console through HTTP: who is let in, what a page may show and do, and that it may no more than the token.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Answer, TOKEN, TestApp, Wish, send};
use crate::harness::browser::{between, plain, sign_in, try_sign_in};
use crate::harness::destinations::sending;
use crate::harness::people::PROFILES;
use crate::harness::receiver::{Receiver, Reply};

const SPACE: &str = "/v1/spaces/default";

/// All pages of a space that has something of everything.
async fn pages(app: &TestApp) -> Vec<String> {
    let destinations = app.get(&format!("{SPACE}/destinations")).await.expect(200).json;
    let deliveries = app.get(&format!("{SPACE}/deliveries")).await.expect(200).json;
    let of = |list: &Value| list["data"][0]["id"].as_str().unwrap_or_default().to_owned();
    let fixed = [
        "",
        "/live",
        "/audiences",
        "/audiences/new-one",
        "/audiences/all",
        "/audiences/all/edit",
        "/audiences/all?with=all&span=day",
        "/traits",
        "/traits/new-one",
        "/traits/number",
        "/traits/number/edit",
        "/profiles",
        "/profiles?query=u",
        "/profiles/users/user_id:u1",
        "/profiles/users/user_id:u1/explain/all",
        "/profiles/users/user_id:u1/explain/number",
        "/destinations",
        "/identity",
        "/privacy",
        "/privacy?who=email:a@b.c",
        "/audit",
        "/audit?verify=1",
        "/settings",
        "/usage",
    ];
    let mut pages: Vec<String> = fixed.iter().map(|page| format!("/console/s/default{page}")).collect();
    pages.push(format!("/console/s/default/destinations/{}", of(&destinations)));
    pages.push(format!("/console/s/default/deliveries/{}", of(&deliveries)));
    pages.push("/console?all=1".to_owned());
    pages
}

/// A space with profiles, definitions, a destination, refused events; what has a name is called `name`, and what is personal is
/// `value`.
async fn furnish(app: &TestApp, name: &str, value: &str) {
    let query = "trait('plan').exists()";
    let of = |query: &str| json!({"type": "users", "query": query});
    let all =
        json!({"key": "all", "name": name, "description": name, "purpose": name, "definition": of(query)});
    app.make_live_from("audiences", "all", all).await;
    let number = json!({"key": "number", "name": name, "definition": of("event('*').count()")});
    app.make_live_from("computed-traits", "number", number).await;
    app.post(&format!("{SPACE}/sources"), json!({"name": name})).await.expect(201);
    app.post(&format!("{SPACE}/tokens"), json!({"name": name, "role": "viewer"})).await.expect(201);
    let settings = json!({"url": "https://receiver.invalid/hook", "headers": {"X-Name": "x"}});
    let made = json!({"name": name, "kind": "webhook", "settings": settings});
    let destination = app.post(&format!("{SPACE}/destinations"), made).await.expect(201).json;
    let subscribe = format!("{SPACE}/destinations/{}/subscriptions", destination["id"].as_str().unwrap());
    app.post(&subscribe, json!({"subject": "audience", "key": "all"})).await.expect(201);
    app.post(&format!("{SPACE}/consent/categories"), json!({"id": "mail", "name": name})).await.expect(201);
    let traits = json!({"plan": value, "email": format!("u1@{}.example", value.len()), name: value, "list": [value, {name: value}]});
    app.track("/v1/identify", json!({"userId": "u1", "anonymousId": value, "traits": traits}))
        .await
        .expect(200);
    app.track("/v1/identify", json!({"userId": "u1", "anonymousId": "a2"})).await.expect(200);
    app.track("/v1/track", json!({"userId": "u1", "event": "", "properties": {name: value}}))
        .await
        .expect(400);
    app.track("/v1/group", json!({"userId": "u1", "groupId": value, "traits": {"name": value}}))
        .await
        .expect(200);
    let event = json!({"userId": "u1", "event": name, "properties": {name: value}});
    let offset = app.track("/v1/track", event).await.expect(200).offset();
    app.get(&format!("{PROFILES}/user_id:u1/traits?min_offset={offset}")).await.expect(200);
    app.post(
        &format!("{SPACE}/regulations"),
        json!({"regulation_type": "SUPPRESS_ONLY", "subject_ids": [value]}),
    )
    .await
    .expect(201);
}

/// What must not stand in any page, whoever names things how: the policy forbids it, and this sees that nothing relies on it.
fn check_markup(path: &str, page: &Answer) {
    let html = &page.text;
    for (at, _) in html.match_indices("<script") {
        assert!(html[at..].starts_with("<script src=\"/console/assets/"), "{path}: {:.200}", &html[at..]);
    }
    let tags = html.split('<').skip(1).map(|tag| tag.split('>').next().unwrap());
    for tag in tags {
        let name: String = tag.chars().take_while(char::is_ascii_alphanumeric).collect();
        assert!(
            !["style", "iframe", "object", "embed", "base", "img"].contains(&name.as_str()),
            "{path}: <{tag}>"
        );
        let outside: String = tag.split('"').step_by(2).collect();
        assert!(!outside.contains(" on") && !outside.contains(" style="), "{path}: <{tag}>");
        assert!(!tag.contains("href=\"javascript:"), "{path}: <{tag}>");
    }
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"), "{path}: {policy}");
    assert!(
        policy.contains("frame-ancestors 'none'") && policy.contains("base-uri 'none'"),
        "{path}: {policy}"
    );
    assert_eq!(page.header("cache-control"), "no-store", "{path}");
    assert_eq!(page.header("referrer-policy"), "same-origin", "{path}");
    assert_eq!(page.header("x-content-type-options"), "nosniff", "{path}");
}

#[tokio::test]
async fn one_signs_in_with_a_token_and_out_again() {
    let app = TestApp::start().await;
    let door = send(app.request(Method::GET, "/console")).await.expect(303);
    assert_eq!(door.header("location"), "/console/sign-in?to=%2Fconsole");
    let page = send(app.request(Method::GET, "/console/s/default/audit?kind=read")).await.expect(303);
    assert_eq!(page.header("location"), "/console/sign-in?to=%2Fconsole%2Fs%2Fdefault%2Faudit%3Fkind%3Dread");
    let form = send(app.request(Method::GET, page.header("location"))).await.expect(200);
    assert!(form.text.contains("value=\"/console/s/default/audit?kind=read\""), "{}", form.text);
    check_markup("sign-in", &form);

    let ours = [("sec-fetch-site", "same-origin")];
    let refused = try_sign_in(&app, "tok_unknown", &ours).await.expect(422);
    assert!(refused.text.contains("There is no such token") && refused.header("set-cookie").is_empty());
    for theirs in [
        &[("sec-fetch-site", "cross-site")] as &[(&str, &str)],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[],
    ] {
        let answer = try_sign_in(&app, TOKEN, theirs).await.expect(422);
        assert!(answer.header("set-cookie").is_empty(), "{theirs:?}");
    }
    try_sign_in(&app, TOKEN, &[("origin", &app.url)]).await.expect(303);

    let browser = sign_in(&app, TOKEN).await;
    assert_eq!(browser.open("/console").await.expect(303).header("location"), "/console/s/default");
    browser.page("").await.expect(200);
    let id = browser.cookie.split_once('=').unwrap().1;
    app.call_as(id, Method::GET, SPACE, None).await.expect(401);
    browser.open(SPACE).await.expect(401);
    let leave = [("form_key".to_owned(), browser.form_key().await)];
    browser.post("/console/sign-out", &[], &ours).await.expect(403);
    let left = browser.post("/console/sign-out", &leave, &ours).await.expect(303);
    assert!(left.header("set-cookie").contains("Max-Age=0"));
    browser.page("").await.expect(303);
    browser.open("/console/api/v1/spaces").await.expect(401);
}

#[tokio::test]
async fn a_session_ends_with_its_token_and_when_nobody_uses_it() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    let made =
        app.post(&format!("{SPACE}/tokens"), json!({"name": "t", "role": "viewer"})).await.expect(201).json;
    let (viewer, owner) = (sign_in(&app, made["token"].as_str().unwrap()).await, sign_in(&app, TOKEN).await);
    viewer.page("").await.expect(200);
    app.delete(&format!("{SPACE}/tokens/{}", made["id"].as_str().unwrap())).await.expect(204);
    assert!(
        viewer.page("/audiences").await.expect(303).header("location").starts_with("/console/sign-in?to=")
    );
    viewer.open("/console/api/v1/spaces").await.expect(401);
    let polled = [("x-console-poll", "1")];
    for minutes in [30, 59] {
        app.put("/v1/test-clock", json!({"now": format!("2024-03-01T12:{minutes}:59Z")})).await.expect(200);
        owner.send(Method::GET, "/console/s/default", &polled).await.expect(200);
        owner.open("/console/api/v1/spaces").await.expect(200);
    }
    app.put("/v1/test-clock", json!({"now": "2024-03-01T13:00:00Z"})).await.expect(200);
    owner.page("").await.expect(303);
}

#[tokio::test]
async fn t27_whatever_things_are_called_is_text() {
    let app = sending().start().await;
    let name = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}&amp;";
    furnish(&app, name, name).await;
    let browser = sign_in(&app, TOKEN).await;
    for path in pages(&app).await {
        let page = browser.open(&path).await.expect(200);
        check_markup(&path, &page);
        assert!(!page.text.contains("alert(1)</script>"), "{path}");
    }
    for (path, wanted) in [
        ("/audiences", name),
        ("/traits", name),
        ("/profiles/users/user_id:u1", name),
        ("/settings", name),
        ("/destinations", name),
        ("/privacy", name),
    ] {
        let page = browser.page(path).await.expect(200);
        assert!(
            plain(&page.text).replace("&amp;", "&").contains(&wanted.replace("&amp;", "&")),
            "{path} does not show it"
        );
    }
    let asked = browser.page("/profiles?query=%3Cscript%3Ealert(1)%3C/script%3E&trait=%22%3E").await;
    check_markup("search", &asked);
}

#[tokio::test]
async fn t28_other_pages_cannot_make_a_browser_do_anything() {
    let app = TestApp::start().await;
    let browser = sign_in(&app, TOKEN).await;
    let form_key = browser.form_key().await;
    let fields = |key: &str| -> Vec<(String, String)> {
        [
            ("form_key", key),
            ("method", "POST"),
            ("path", "/v1/spaces/default/sources"),
            ("ask", "no"),
            ("s:name", "forged"),
            ("back", "//evil"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    };
    let key = [("x-form-key", form_key.as_str()), ("content-type", "text/plain")];
    for headers in [
        &[("sec-fetch-site", "cross-site")] as &[(&str, &str)],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[],
    ] {
        browser.post("/console/act", &fields(&form_key), headers).await.expect(403);
        let with_key: Vec<_> = headers.iter().chain(&key).copied().collect();
        browser.send(Method::POST, "/console/api/v1/spaces/default/sources", &with_key).await.expect(403);
    }
    let ours = [("sec-fetch-site", "same-origin")];
    for wrong in ["", "0", &form_key[1..]] {
        browser.post("/console/act", &fields(wrong), &ours).await.expect(403);
    }
    browser.send(Method::POST, "/console/api/v1/spaces/default/sources", &ours).await.expect(403);
    let other = sign_in(&app, TOKEN).await;
    browser.post("/console/act", &fields(&other.form_key().await), &ours).await.expect(403);
    let sources = app.get(&format!("{SPACE}/sources")).await.expect(200);
    assert!(!sources.text.contains("forged"), "{}", sources.text);
    let done = browser.post("/console/act", &fields(&form_key), &ours).await.expect(303);
    assert_eq!(done.header("location"), "/console?done=1", "and nobody is sent elsewhere");
}

#[tokio::test]
async fn every_page_shows_what_the_token_may_see() {
    let app = sending().start().await;
    furnish(&app, "shop", "canary").await;
    let token = |role: &str| {
        let (app, body) = (&app, json!({"name": "t", "role": role}));
        async move {
            let made = app.post(&format!("{SPACE}/tokens"), body).await.expect(201).json;
            made["token"].as_str().unwrap().to_owned()
        }
    };
    let (owner, viewer) = (sign_in(&app, TOKEN).await, sign_in(&app, &token("viewer").await).await);
    let css = between(&owner.page("").await.text, "stylesheet\" href=\"", "\"").to_owned();
    let scripts = ["app.js", "builder.js", "tail.js"]
        .map(|name| std::fs::read_to_string(format!("src/console/assets/{name}")).unwrap().len());
    let files = owner.open(&css).await.expect(200).text.len() + scripts.iter().sum::<usize>();
    for path in pages(&app).await {
        let page = owner.open(&path).await.expect(200);
        assert!(page.text.contains("<h1>"), "{path}");
        assert!(page.text.len() + files < 200 * 1024, "{path}: {} and {files} bytes", page.text.len());
        let masked = viewer.open(&path).await;
        assert!([200, 403].contains(&masked.status), "{path}: {}", masked.text);
        check_markup(&path, &masked);
        assert!(!masked.text.contains("canary"), "{path}: {}", masked.text);
    }
    let shown = owner.page("/profiles/users/user_id:u1").await.expect(200).text;
    assert!(shown.contains("canary") && shown.contains("u1@6.example"), "{shown}");
    let masked = viewer.page("/profiles/users/user_id:u1").await.expect(200).text;
    assert!(!masked.contains("u1@6") && masked.contains("***"), "{masked}");
    let settings = viewer.page("/settings").await.expect(200).text;
    assert!(settings.contains("scope admin"), "{settings}");
    assert!(viewer.page("/audit").await.expect(403).text.contains("scope privacy"));
    owner.open("/console/s/nowhere").await.expect(404);
    owner.open("/console/nothing").await.expect(404);
    let reads = app.get(&format!("{SPACE}/audit-log?kind=read")).await.expect(200);
    assert!(reads.text.contains("/collections/{collection}/profiles/{profile}"), "{}", reads.text);
}

#[tokio::test]
async fn an_audience_is_written_looked_at_changed_and_deleted() {
    let app = sending().start().await;
    furnish(&app, "shop", "canary").await;
    let browser = sign_in(&app, TOKEN).await;
    let builder = browser.page("/audiences/new-one").await.expect(200);
    let wrong = browser
        .press(&builder, "definition", &[("s:key", "vips"), ("s:definition.query", "event('A').count( >= 1")])
        .await;
    assert!(wrong.expect(422).text.contains("line 1, column"));
    let written = [
        ("s:key", "vips"),
        ("s:name", "The best"),
        ("s:definition.query", "trait('plan') = 'canary'"),
        ("s:definition.type", "users"),
    ];
    let (asked, done) = browser.press_twice(&builder, "definition", &written).await;
    assert!(plain(&asked.text).contains("<dt>enters</dt><dd>1</dd>"), "{}", asked.text);
    let place = done.expect(303);
    assert_eq!(place.header("location"), "/console/s/default/audiences/vips?done=1");
    app.live("audiences", "vips").await;
    let page = browser.open(place.header("location")).await.expect(200);
    for wanted in ["The best", "<svg class=\"chart\"", "profile_id:prf_", "entered", "Done."] {
        assert!(page.text.contains(wanted), "{wanted}: {}", page.text);
    }
    let (asked, done) = browser.press_twice(&page, "switch", &[]).await;
    assert!(asked.text.contains("PATCH /v1/spaces/default/audiences/vips"));
    done.expect(303);
    assert_eq!(app.get(&format!("{SPACE}/audiences/vips")).await.json["enabled"], false);
    let page = browser.page("/audiences/vips").await.expect(200);
    browser.press_twice(&page, "delete", &[]).await.1.expect(303);
    app.get(&format!("{SPACE}/audiences/vips")).await.expect(404);
    let log = app.get(&format!("{SPACE}/audit-log?kind=change")).await.expect(200).text;
    assert!(log.contains("DELETE /v1/spaces/{space}/audiences/{key}"), "{log}");

    // What the builder's script asks, where its page says.
    let builder = browser.page("/audiences/all/edit").await.expect(200);
    let key = browser.form_key().await;
    let ask = async |attribute: &str, body: Value| {
        let address = between(&builder.text, &format!("{attribute}=\""), "\"").to_owned();
        let mut request = app.request(Method::POST, &address).header("cookie", &browser.cookie);
        for (name, value) in [("sec-fetch-site", "same-origin"), ("x-form-key", &*key)] {
            request = request.header(name, value);
        }
        send(request.json(&body)).await.expect(200).json
    };
    let query = plain(between(between(&builder.text, "<textarea", "</textarea>"), ">", "</textarea>"));
    let preview = ask("data-preview", json!({"definition": {"query": query}})).await;
    assert_eq!(preview["size"], 1, "{preview}");
    let shown = ask("data-format", json!({"query": query})).await;
    assert_eq!(shown["form"]["conditions"][0]["trait"], "plan", "{shown}");
    assert_eq!(ask("data-format", json!({"form": shown["form"]})).await, shown);
}

#[tokio::test]
async fn what_cannot_be_taken_back_is_shown_first() {
    let app = sending().start().await;
    furnish(&app, "shop", "canary").await;
    let device = json!({"anonymousId": "a9", "traits": {"plan": "free"}});
    let offset = app.track("/v1/identify", device).await.expect(200).offset();
    app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.expect(200);
    let browser = sign_in(&app, TOKEN).await;
    let page = browser.page("/profiles/users/user_id:u1").await.expect(200);
    let written = [("l:profiles", "user_id:u1, anonymous_id:a9")];
    let (asked, done) = browser.press_twice(&page, "merge", &written).await;
    assert!(plain(&asked.text).contains("absorbed"), "{}", asked.text);
    let merged = browser.open(done.expect(303).header("location")).await.expect(200);
    assert!(
        merged.text.contains("1 merges of this profile") && merged.text.contains("by an operator"),
        "{}",
        merged.text
    );
    let (asked, done) = browser.press_twice(&merged, "undo-0", &[]).await;
    assert!(plain(&asked.text).contains("separated"), "{}", asked.text);
    let apart = browser.open(done.expect(303).header("location")).await.expect(200);
    assert!(apart.text.contains("class=\"edge undone\""), "{}", apart.text);
    let erased = browser.press_twice(&apart, "delete_internal", &[]).await.1.expect(303);
    let privacy = browser.open(erased.header("location")).await.expect(200);
    assert!(privacy.text.contains("DELETE_INTERNAL"), "{}", privacy.text);
    browser.page("/profiles/users/user_id:u1").await.expect(404);

    let made =
        app.post(&format!("{SPACE}/tokens"), json!({"name": "t", "role": "viewer"})).await.expect(201).json;
    let viewer = sign_in(&app, made["token"].as_str().unwrap()).await;
    let page = viewer.page("/profiles/users/anonymous_id:a9").await.expect(200);
    let refused =
        viewer.press(&page, "merge", &[("l:profiles", "anonymous_id:a9, email:x@y.z")]).await.expect(403);
    assert!(
        refused.text.contains("scope write") && !refused.text.contains("id=\"confirm\""),
        "{}",
        refused.text
    );
    let settings = browser.page("/settings").await.expect(200);
    let made = browser.press(&settings, "new-source", &[("s:name", "shop")]).await.expect(200);
    assert!(made.text.contains("write_key"), "{}", made.text);
}

#[tokio::test]
async fn files_are_kept_and_pages_are_asked_for_again_cheaply() {
    let app = TestApp::start().await;
    let browser = sign_in(&app, TOKEN).await;
    let page = browser.page("/audiences").await.expect(200);
    for name in ["style.css", "app.js", "icon.svg"] {
        let address = format!(
            "/console/assets/{}",
            between(&page.text, "/console/assets/", name).rsplit("/console/assets/").next().unwrap()
        );
        let file = send(app.request(Method::GET, &format!("{address}{name}"))).await.expect(200);
        assert_eq!(file.header("cache-control"), "public, max-age=31536000, immutable", "{name}");
        assert_eq!(file.header("x-content-type-options"), "nosniff");
    }
    send(app.request(Method::GET, "/console/assets/style.css")).await.expect(404);
    let known = [("if-none-match", page.header("etag"))];
    let again = browser.send(Method::GET, "/console/s/default/audiences", &known).await.expect(304);
    assert!(again.text.is_empty());
    app.make_live("audiences", "all", "trait('plan').exists()").await;
    browser.send(Method::GET, "/console/s/default/audiences", &known).await.expect(200);

    let page = browser.page("/audiences/all").await.expect(200);
    assert!(page.text.contains("Nobody is in it."), "{}", page.text);
    let polled = [("x-console-poll", "1")];
    let again = browser.send(Method::GET, "/console/s/default/audiences/all", &polled).await.expect(200);
    // A page that fetches itself again reads nobody's data: each read stands in the audit log.
    assert!(again.text.contains("<section id=\"members\" class=\"card\" data-kept>"), "{}", again.text);
    assert!(
        again.text.contains("id=\"history\"") && !again.text.contains("Nobody is in it."),
        "{}",
        again.text
    );
}

#[tokio::test]
async fn where_a_browser_would_not_keep_the_cookie_it_is_said() {
    let app = TestApp::start().await;
    for (host, headers, is_said) in [
        ("localhost:8080", &[] as &[(&str, &str)], false),
        ("127.0.0.1:8080", &[], false),
        ("[::1]:8080", &[], false),
        ("personas.lan", &[], true),
        ("personas.lan", &[("x-forwarded-proto", "https")], false),
    ] {
        let mut request = app.request(Method::GET, "/console/sign-in").header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let page = send(request).await.expect(200);
        assert_eq!(page.text.contains("will not keep you signed in"), is_said, "{host} {headers:?}");
    }
}

#[tokio::test]
async fn an_audience_shows_its_deliveries_and_leads_to_each() {
    let app = sending().start().await;
    let receiver = Receiver::start().await;
    app.make_live("audiences", "buyers", "event('Bought').count() >= 1").await;
    app.make_live("audiences", "others", "trait('plan').exists()").await;
    let hook = app.make_webhook("Hook <b>", &receiver, json!({})).await;
    for key in ["buyers", "others"] {
        app.subscribe(&hook, json!({"subject": "audience", "key": key})).await;
    }
    receiver.now(|_, _| Reply::Status(400));
    app.processed("/v1/identify", json!({"userId": "u0", "traits": {"plan": "free"}})).await;
    for user in 0..21 {
        app.processed("/v1/track", json!({"userId": format!("u{user}"), "event": "Bought"})).await;
    }
    app.wait_destination(&hook, |seen| seen["deliveries"]["dead"] == 22).await;
    let browser = sign_in(&app, TOKEN).await;
    let rows = |page: &Answer| -> Vec<String> {
        let section = between(&page.text, "<section id=\"deliveries\"", "</section>");
        let body = section.split_once("<tbody>").map_or("", |(_, body)| body);
        body.split("<tr>").skip(1).map(plain).collect()
    };
    let page = browser.page("/audiences/buyers").await.expect(200);
    // What goes through all members is counted when somebody asks for it.
    let counted = |page: &Answer| between(&page.text, "<section id=\"identifiers\"", "</section>").to_owned();
    assert!(counted(&page).contains("Count them") && !counted(&page).contains("user_id"));
    let asked = browser.page("/audiences/buyers?identifiers=counted").await.expect(200);
    assert!(
        counted(&asked).contains("user_id") && counted(&asked).contains("100.0 %"),
        "{}",
        counted(&asked)
    );
    let first = rows(&page);
    assert_eq!(first.len(), 20, "{first:?}");
    let (newest, id) = (&first[0], hook["id"].as_str().unwrap());
    for wanted in
        ["dead", "identify true", "Hook <b>", &format!("/destinations/{id}"), "does not take it", ">1<"]
    {
        assert!(newest.contains(wanted), "{wanted}: {newest}");
    }
    let delivery = between(newest, "href=\"/console/s/default/deliveries", "\"");
    let opened = browser.page(&format!("/deliveries{delivery}")).await.expect(200);
    assert!(opened.text.contains("buyers"), "{}", opened.text);
    let next = plain(between(
        between(&page.text, "id=\"deliveries\"", "</section>"),
        "<p class=\"next\"><a href=\"",
        "\"",
    ));
    let rest = rows(&browser.open(&next).await.expect(200));
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert!(!first.contains(&rest[0]));
    let none = browser.page("/audiences/buyers?state=delivered").await.expect(200);
    assert!(none.text.contains("No deliveries."), "{}", none.text);
    assert_eq!(rows(&browser.page("/audiences/others?state=dead").await.expect(200)).len(), 1);
}
