//! Mappings: what is asked for, what is masked, what is refused, and what answers mean.

use serde_json::{Map, Value, json};

use super::*;

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("an object") };
    object
}

fn mapping(settings: Value) -> HttpMapping {
    HttpMapping::open(&object(settings)).expect("settings")
}

fn refused(settings: Value) -> Vec<String> {
    let wrong = HttpMapping::open(&object(settings)).expect_err("refused");
    wrong.into_iter().map(|Invalid { field, message }| format!("{field}: {message}")).collect()
}

fn item(id: &str, event: Value) -> Item {
    Item {
        id: id.to_owned(),
        profile: crate::domain::ProfileNo(id.bytes().map(u64::from).sum()),
        profile_id: "prf_1".to_owned(),
        at: Timestamp::from_millis(1_700_000_000_123),
        attempts: 0,
        event,
    }
}

fn identify(id: &str, user: &str) -> Item {
    item(id, json!({"type": "identify", "userId": user, "traits": {"vip": true, "email": "a@b.example"}}))
}

fn requests(mapping: &HttpMapping, items: &[Item]) -> Vec<Request> {
    mapping.requests(items, Timestamp::from_millis(0))
}

fn simple(body: &str) -> Value {
    json!({"calls": {"identify": {
        "url": "https://x.example/u/{{ user_id }}",
        "headers": {"Content-Type": "application/json", "X-Key": "k {{ secrets.key }}"},
        "body": body,
    }}, "secrets": {"key": "s3cret/1"}})
}

#[test]
fn templates_make_the_request() {
    let mapping = mapping(simple(
        r#"{"id": {{ user_id }}, "traits": {{ values }}, "at": {{ at_s }}, "x": {{ none }}}"#,
    ));
    let items = [identify("i1", "ü/../x?y#z")];
    assert_eq!(mapping.refuses(&items[0]), None);
    assert_eq!(
        requests(&mapping, &items),
        [Request {
            items: 0..1,
            method: "POST".to_owned(),
            url: "https://x.example/u/%C3%BC%2F..%2Fx%3Fy%23z".to_owned(),
            headers: vec![
                ("Content-Type".to_owned(), "application/json".to_owned()),
                ("X-Key".to_owned(), "k s3cret/1".to_owned()),
            ],
            secret_headers: vec!["x-key".to_owned()],
            body:
                r#"{"id":"ü/../x?y#z","traits":{"email":"a@b.example","vip":true},"at":1700000000,"x":null}"#
                    .into(),
        }]
    );
}

#[test]
fn values_cannot_break_out_of_a_body() {
    let mapping = mapping(simple(r#"{"id": {{ user_id }}}"#));
    let request = &requests(&mapping, &[identify("i1", "\", \"admin\": true, \"x\": \"</script>'")])[0];
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(body, json!({"id": "\", \"admin\": true, \"x\": \"</script>'"}));
}

#[test]
fn secrets_are_masked_wherever_they_stand() {
    let mapping = mapping(simple("{}"));
    assert_eq!(mapping.shown("x s3cret/1 and s3cret%2F1"), "x *** and ***");
}

#[test]
fn neighbours_of_one_type_share_a_request() {
    let body = "[{% for item in items %}{{ item.id }}{% if not loop.last %},{% endif %}{% endfor %}]";
    let call =
        json!({"url": "https://x.example/", "headers": {"content-type": "application/json"}, "body": body});
    let mapping = mapping(json!({"batch_max": 2, "calls": {"identify": call, "track": call}}));
    let track = |id| item(id, json!({"type": "track", "event": "E", "userId": "u", "properties": {}}));
    let items = [
        identify("a", "u"),
        identify("b", "u"),
        identify("c", "u"),
        track("d"),
        identify("e", "u"),
        identify("e", "u"),
    ];
    let made: Vec<_> = requests(&mapping, &items)
        .into_iter()
        .map(|request| (request.items, String::from_utf8(request.body).expect("text")))
        .collect();
    assert_eq!(
        made,
        [
            (0..2, r#"["a","b"]"#.to_owned()),
            (2..3, r#"["c"]"#.to_owned()),
            (3..4, r#"["d"]"#.to_owned()),
            (4..5, r#"["e"]"#.to_owned()),
            // Of the same profile: not in one request.
            (5..6, r#"["e"]"#.to_owned()),
        ]
    );
}

#[test]
fn what_there_are_no_words_for_is_refused() {
    let mut settings = simple(r#"{"plan": {{ values.plan.name }}}"#);
    settings["calls"]["identify"]["when"] = json!("values.vip");
    let mapping = mapping(settings);
    let told =
        |item: &Item| mapping.refuses(item).map(|reason| (reason.code, reason.message)).expect("refused");
    let (code, message) = told(&identify("a", "u"));
    assert_eq!(code, "MESSAGE_REJECTED");
    assert_eq!(message, "calls.identify.body: what is printed here is not there (line 1)");
    let (code, _) = told(&item("a", json!({"type": "identify", "userId": "u", "traits": {"vip": false}})));
    assert_eq!(code, "NO_MATCHING_MAPPING");
    let (code, _) = told(&item("a", json!({"type": "track", "userId": "u", "properties": {}})));
    assert_eq!(code, "UNSUPPORTED_EVENT_TYPE");
    let no_user = item("a", json!({"type": "identify", "traits": {"vip": true, "plan": {"name": "x"}}}));
    assert_eq!(told(&no_user).1, "calls.identify.url: what is printed here is not there (line 1)");
    assert_eq!(requests(&mapping, &[no_user]), []);
}

#[test]
fn templates_are_bounded() {
    for body in [
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}{}",
        r#"{% for a in range(5000) %}{{ "x" * 100000 }}{% endfor %}"#,
        "{}}",
        "text",
    ] {
        let mapping = mapping(simple(body));
        let reason = mapping.refuses(&identify("a", "u")).expect(body);
        assert_eq!(reason.code, "MESSAGE_REJECTED", "{body}");
    }
}

#[test]
fn rules_say_what_answers_mean() {
    let mut settings = simple("{}");
    settings["rules"] = json!([
        {"when": "status == 200 and json.failed", "verdict": "reject", "code": "PARTIAL", "items": "json.failed"},
        {"when": "body == 'later'", "verdict": "retry"},
        {"when": "status == 404 and json.error.code == 'no_service'", "verdict": "gone"},
        {"when": "status == 409", "verdict": "success"},
    ]);
    let mapping = mapping(settings);
    let answer = |status, body: &str| Answer { status, retry_after: None, body: body.to_owned() };
    let words = |answer: &Answer| -> Vec<&str> {
        let word = |verdict: &Verdict| match verdict {
            Verdict::Delivered => "delivered",
            Verdict::Retry { .. } => "retry",
            Verdict::Rejected(_) => "rejected",
            Verdict::Gone(_) => "gone",
        };
        mapping.verdicts(answer, 3).iter().map(word).collect()
    };
    assert_eq!(words(&answer(200, r#"{"failed": [1]}"#)), ["delivered", "rejected", "delivered"]);
    assert_eq!(words(&answer(200, r#"{"failed": "all"}"#)), ["rejected"; 3]);
    assert_eq!(words(&answer(200, r#"{"failed": []}"#)), ["delivered"; 3]);
    assert_eq!(words(&answer(200, "not JSON")), ["delivered"; 3]);
    assert_eq!(words(&answer(400, "later")), ["retry"; 3]);
    assert_eq!(words(&answer(404, r#"{"error": {"code": "no_service"}}"#)), ["gone"; 3]);
    assert_eq!(words(&answer(404, "")), ["rejected"; 3]);
    assert_eq!(words(&answer(409, "")), ["delivered"; 3]);
    assert_eq!(words(&answer(503, "")), ["retry"; 3]);
    assert_eq!(words(&answer(302, "")), ["rejected"; 3]);
    assert_eq!(words(&answer(410, "")), ["gone"; 3]);
}

#[test]
fn settings_are_judged_when_they_are_saved() {
    let call = |field: &str, value: &str| {
        let mut call = json!({"url": "https://x.example/"});
        call[field] = json!(value);
        json!({"calls": {"identify": call}})
    };
    for (settings, expected) in [
        (json!({}), "calls: there is none; there can be identify, track, group, delete"),
        (json!({"surprise": 1}), "settings: unknown field `surprise`"),
        (json!({"preset": "brase"}), "preset: there is no such preset; there are amplitude, braze,"),
        (json!({"preset": "braze"}), "options.endpoint: it is missing: REST endpoint"),
        (json!({"preset": "slack"}), "secrets.webhook_url: it is missing"),
        (json!({"calls": {"page": {"url": "https://x.example"}}}), "calls.page: there is no such call"),
        (json!({"calls": {"track": {}}}), "settings: missing field `url`"),
        (call("url", "https://x.example/{{ user_id"), "calls.identify.url: "),
        (call("when", "user_id =="), "calls.identify.when: "),
        (call("when", "true %}{{ secrets }}{% if x"), "calls.identify.when: "),
        (call("body", "{% include 'x' %}"), "calls.identify.body: "),
        (call("body", "{{ x | nothing }}"), "calls.identify.body: filter nothing is unknown (line 1)"),
        (call("body", "{{ secrets.key }}"), "calls.identify.body: `secrets.key` is used and not set"),
        (call("body", &"x".repeat(20_000)), "calls.identify.body: a template may have at most 16384 bytes"),
        (json!({"batch_max": 0, "calls": {}}), "batch_max: it must be a whole number from 1 to 1000"),
        (
            json!({"calls": {"track": {"url": "https://x.example", "headers": {"a b": "c"}}}}),
            "calls.track.headers.a b: it is no name",
        ),
        (
            json!({"rules": [{"when": "(", "verdict": "gone"}], "calls": {"track": {"url": "https://x.example"}}}),
            "rules[0].when: ",
        ),
    ] {
        let told = refused(settings.clone());
        assert!(told.iter().any(|told| told.starts_with(expected)), "{expected}: {told:?} for {settings}");
    }
}

#[test]
fn a_preset_can_be_changed_in_parts() {
    let mapping = mapping(json!({
        "preset": "slack",
        "secrets": {"webhook_url": "https://hooks.slack.com/services/T/B/x"},
        "calls": {"track": {"url": "{{ secrets.webhook_url | safe }}", "body": "hi {{ user_id }}"}},
        "rules": [{"when": "status == 200", "verdict": "retry"}],
    }));
    let track = item("a", json!({"type": "track", "event": "E", "userId": "u", "properties": {}}));
    assert_eq!(mapping.refuses(&identify("b", "u<1>")), None);
    let made = requests(&mapping, &[track, identify("b", "u<1>")]);
    assert_eq!(made[0].body, b"hi u");
    assert_eq!(made[0].url, "https://hooks.slack.com/services/T/B/x");
    assert_eq!(String::from_utf8_lossy(&made[1].body), r#"{"text":"*u&lt;1&gt;*: vip = true"}"#);
    let ok = Answer { status: 200, ..Answer::default() };
    assert!(matches!(mapping.judge(&ok), Verdict::Retry { .. }));
}
