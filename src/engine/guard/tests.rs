//! What the guard finds, what it lets be, and what it makes of it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A number with a right check digit: `start`, then digits of a simple sequence.
fn card(start: &str, length: usize, seed: u64) -> String {
    let mut digits: Vec<u8> = start.bytes().map(|b| b - b'0').collect();
    let mut state = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    while digits.len() < length - 1 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        digits.push((state >> 33) as u8 % 10);
    }
    let check = (0..10).find(|check| {
        let mut whole = digits.clone();
        whole.push(*check);
        let doubled =
            |(place, d): (usize, &u8)| if place % 2 == 1 { (d * 2) / 10 + (d * 2) % 10 } else { *d };
        whole.iter().rev().enumerate().map(doubled).map(u32::from).sum::<u32>() % 10 == 0
    });
    digits.push(check.unwrap());
    digits.iter().map(|d| char::from(d + b'0')).collect()
}

/// Issuers by their first digits, with a length each.
const ISSUERS: [(&str, usize); 14] = [
    ("4", 16),
    ("4", 13),
    ("4", 19),
    ("51", 16),
    ("55", 16),
    ("2221", 16),
    ("2720", 16),
    ("34", 15),
    ("37", 15),
    ("6011", 16),
    ("65", 16),
    ("3528", 16),
    ("36", 14),
    ("622126", 16),
];

/// The same number as people and machines write it.
fn formats(number: &str) -> Vec<Value> {
    let groups: Vec<usize> = match number.len() {
        15 => vec![4, 6, 5],
        14 => vec![4, 6, 4],
        13 => vec![4, 4, 4, 1],
        19 => vec![4, 4, 4, 4, 3],
        _ => vec![4, 4, 4, 4],
    };
    let grouped = |gap: &str| {
        let mut rest = number;
        let mut parts = Vec::new();
        for group in &groups {
            let (part, behind) = rest.split_at(*group);
            parts.push(part);
            rest = behind;
        }
        parts.join(gap)
    };
    let mut all: Vec<String> =
        [" ", "-", ".", "_", "/", "+", "  ", " - ", "%20", "\u{a0}", "\u{2013}", "\u{2010}"]
            .iter()
            .map(|gap| grouped(gap))
            .filter(|text| !text.contains(" - "))
            .collect();
    all.push(number.to_owned());
    let (spaced, dashed) = (grouped(" "), grouped("-"));
    all.extend([
        format!("my card is {number}"),
        format!("{number} is my card"),
        format!("card:{number};"),
        format!("<pan>{number}</pan>"),
        format!("(no {spaced})"),
        format!("cc={dashed}&exp=12"),
        format!("\"{number}\""),
        format!("{number}, 12/27, 123"),
        format!("Karte: {spaced} läuft ab"),
        format!("卡号{}", "").replace("卡号", "卡号 ") + number,
        format!("a\n{number}\nb"),
        format!("a\t{dashed}\tb"),
        format!("{number}."),
        format!("#{number}"),
        format!("{number}={}", "2712"),
        format!("*{spaced}*"),
        format!("'{dashed}'"),
        format!("[{number}]"),
    ]);
    let mut values: Vec<Value> = all.into_iter().map(Value::from).collect();
    if number.len() <= 18 {
        values.push(serde_json::from_str(number).unwrap());
        values.push(json!(format!("{number}.0").parse::<f64>().unwrap()));
    }
    values
}

fn screen(guard: &Arc<Guard>, call: &Value) -> (Value, Vec<Finding>) {
    let text = call.to_string();
    let mut screener = Screener::new(Arc::clone(guard));
    let screened = screener.screen(&text, "");
    (serde_json::from_str(&screened.text).unwrap(), screened.findings)
}

fn with(actions: &[(Category, Action)], patterns: Vec<SensitivePattern>) -> Arc<Guard> {
    let mut settings = SensitiveSettings { patterns, hash_key: vec![7; 32], ..SensitiveSettings::default() };
    for (category, action) in actions {
        let place = Category::ALL.iter().position(|known| known == category).unwrap();
        settings.actions[place] = *action;
    }
    Arc::new(Guard::new(settings).unwrap())
}

#[test]
fn ten_thousand_cards_in_thirty_formats_are_found() {
    let guard = Arc::new(Guard::default());
    let (mut tried, mut missed, mut shapes) = (0, BTreeSet::new(), 0);
    for seed in 0..30 {
        for (start, length) in ISSUERS {
            let number = card(start, length, seed);
            let all = formats(&number);
            shapes = shapes.max(all.len());
            for value in all {
                let (kept, findings) = screen(&guard, &json!({"properties": {"note": value}}));
                tried += 1;
                let shown: String = kept["properties"]["note"].as_str().unwrap_or_default().into();
                let digits: String = shown.replace("%20", "").chars().filter(char::is_ascii_digit).collect();
                if findings.is_empty() || digits.contains(&number) {
                    missed.insert(value.to_string());
                }
            }
        }
    }
    assert!(tried >= 10_000 && shapes >= 30, "{tried} of {shapes} shapes");
    assert!(missed.len() * 1_000 <= tried, "{} of {tried}: {missed:?}", missed.len());
}

#[test]
fn ids_times_and_phone_numbers_are_no_cards() {
    let guard = Arc::new(Guard::default());
    let mut screener = Screener::new(guard);
    let mut state = 1_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 11
    };
    let (mut tried, mut wrong) = (0_u32, Vec::new());
    for _ in 0..50_000 {
        let (a, b) = (next(), next());
        let uuid = format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            a as u32,
            b as u16,
            a as u16 & 0xfff,
            b as u16 & 0xfff,
            b & 0xffff_ffff_ffff
        );
        let order = a % 10_u64.pow(8 + (b % 12) as u32);
        let text = format!(
            r#"{{"userId":"{order}","messageId":"{b}","timestamp":"2024-03-01T12:00:00.{:03}Z","properties":{{
            "order_id":"{order}","orderNumber":{order},"uuid":"{uuid}","session":"{uuid}","placed_at":{},"seen":{},
            "phone":"+{} {:03} {:07}","call":"{:03}-{:03}-{:04}","mobile":"0{}","sku":"{:013}","price":{}.{:02},
            "url":"https://shop.example/{order}?utm={b:x}","etag":"{a:x}{b:x}","ip":"{}.{}.{}.{}","tracking_number":"{}"}}}}"#,
            a % 1_000,
            1_500_000_000_000_u64 + a % 300_000_000_000,
            1_500_000_000_u64 + a % 300_000_000,
            1 + a % 99,
            b % 1_000,
            a % 10_000_000,
            200 + a % 800,
            200 + b % 800,
            a % 10_000,
            a % 10_000_000_000,
            a % 10_000_000_000_000,
            a % 10_000,
            b % 100,
            a % 256,
            b % 256,
            (a >> 8) % 256,
            (b >> 8) % 256,
            a % 10_000_000_000_000_000,
        );
        tried += 20;
        wrong.extend(screener.screen(&text, "").findings.into_iter().map(|finding| (finding, text.clone())));
    }
    assert!(tried >= 1_000_000);
    assert!(wrong.len() as u32 * 1_000 <= tried, "{} of {tried}: {:?}", wrong.len(), wrong.first());
}

#[test]
fn accounts_papers_and_secrets_are_found_by_what_they_are() {
    let guard = Arc::new(Guard::default());
    for (value, what) in [
        ("DE89370400440532013000", "iban"),
        ("pay to GB82 WEST 1234 5698 7654 32 please", "iban"),
        ("NO9386011117947", "iban"),
        ("078-05-1120", "national_id"),
        ("my number: 536-90-4399.", "national_id"),
        ("AB 12 34 56 C", "national_id"),
        ("RSSMRA85T10A562S", "national_id"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----", "secret"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P", "secret"),
        ("AKIAIOSFODNN7EXAMPLE", "secret"),
    ] {
        let (kept, findings) = screen(&guard, &json!({"traits": {"note": value, "plan": "pro"}}));
        let found: Vec<&str> = findings.iter().map(|finding| finding.what.as_ref()).collect();
        assert_eq!(found, [what], "{value}: {kept}");
        assert_ne!(kept["traits"]["note"], value);
        assert_eq!(kept["traits"]["plan"], "pro");
    }
    // However it is written down.
    let escaped = r#"{"traits":{"note":"\u0041KIAIOSFODNN7EXAMPLE","list":["x\\","AKIAIOSFODNN7EXAMPLE"]}}"#;
    assert_eq!(Screener::new(Arc::clone(&guard)).screen(escaped, "").findings.len(), 2);
    for value in
        ["DE00370400440532013000", "000-12-3456", "900-12-3456", "2024-03-01", "eyJ.eyJ.x", "1978-05-11200"]
    {
        let (kept, findings) = screen(&guard, &json!({"traits": {"note": value}}));
        assert_eq!((kept["traits"]["note"].as_str(), findings.len()), (Some(value), 0), "{findings:?}");
    }
}

#[test]
fn each_action_does_what_it_says() {
    let number = "4111 1111 1111 1111";
    let call = json!({"userId": "u", "properties": {"a": 1, "note": format!("pay {number} now"), "list": [number, 2], "z": 2}});
    let outcome = |action| screen(&with(&[(Category::CardNumber, action)], Vec::new()), &call);
    let (kept, findings) = outcome(Action::Allow);
    assert_eq!((&kept, findings.len()), (&call, 0));
    let (kept, findings) = outcome(Action::Mask);
    assert_eq!(kept["properties"]["note"], "pay ************1111 now");
    assert_eq!(kept["properties"]["list"], json!(["************1111", 2]));
    let paths: Vec<&str> = findings.iter().map(|finding| finding.path.as_str()).collect();
    assert_eq!(paths, ["properties.list[]", "properties.note"]);
    let (kept, _) = outcome(Action::Drop);
    assert_eq!(kept["properties"], json!({"a": 1, "list": [null, 2], "z": 2}));
    let (kept, findings) = outcome(Action::Hash);
    let hashed = kept["properties"]["list"][0].as_str().unwrap();
    assert!(hashed.starts_with("hmac:") && hashed.len() == 37, "{hashed}");
    assert_eq!(kept["properties"]["note"], format!("pay {hashed} now"));
    assert_eq!(findings.len(), 2);
    let (kept, findings) = outcome(Action::Reject);
    assert!(!kept.to_string().contains(number), "what is listed has it no more: {kept}");
    assert!(findings.iter().all(|finding| finding.action == Action::Reject));
    // By key, whatever stands there: text, number, list, object.
    for secret in [json!("x"), json!(12), json!([1, {"a": "}"}]), json!({"b": {"c": "\"]"}})] {
        let call = json!({"traits": {"password": secret, "plan": "pro", "apiKey": secret}});
        let (kept, findings) = screen(&Arc::new(Guard::default()), &call);
        assert_eq!(kept, json!({"traits": {"plan": "pro"}}));
        assert_eq!(findings.len(), 2);
    }
}

#[test]
fn what_says_who_it_is_about_is_refused_rather_than_changed() {
    let guard = Arc::new(Guard::default());
    let call = json!({"userId": "4111 1111 1111 1111", "event": "Seen"});
    let text = call.to_string();
    let mut screener = Screener::new(Arc::clone(&guard));
    let screened = screener.screen(&text, "");
    assert_eq!(screened.refused().map(|finding| finding.path.as_str()), Some("userId"));
    // A long number is somebody's id, check digit or not.
    for id in [json!("4111111111111111"), json!(4_111_111_111_111_111_u64)] {
        assert_eq!(screen(&guard, &json!({"userId": id, "event": "Seen"})).1, []);
    }
    // The token of a push service is an identifier.
    let device = json!({"context": {"device": {"token": "abc", "type": "ios"}}, "traits": {"token": "abc"}});
    let (kept, _) = screen(&guard, &device);
    assert_eq!(kept, json!({"context": {"device": {"token": "abc", "type": "ios"}}, "traits": {}}));
}

#[test]
fn patterns_of_ones_own() {
    let pattern = |name: &str, key: Option<&str>, value: Option<&str>, action| SensitivePattern {
        name: name.to_owned(),
        key: key.map(str::to_owned),
        value: value.map(str::to_owned),
        action,
    };
    let guard = with(
        &[],
        vec![
            pattern("member", Some("^member"), None, Action::Drop),
            pattern("coupon", None, Some("C-[0-9]{4}"), Action::Mask),
            pattern("both", Some("^code$"), Some("^[a-z]+$"), Action::Hash),
        ],
    );
    let call = json!({"properties": {"memberNo": 7, "text": "use C-1234 or C-9999", "code": "abc", "note": "abc", "codes": {"code": "A"}}});
    let (kept, findings) = screen(&guard, &call);
    assert_eq!(kept["properties"]["text"], "use *** or ***");
    assert!(kept["properties"].get("memberNo").is_none());
    assert!(kept["properties"]["code"].as_str().unwrap().starts_with("hmac:"));
    assert_eq!(
        (&kept["properties"]["note"], &kept["properties"]["codes"]),
        (&json!("abc"), &json!({"code": "A"}))
    );
    let found: Vec<&str> = findings.iter().map(|finding| finding.what.as_ref()).collect();
    assert_eq!(found, ["both", "member", "coupon"]);
    for (key, value) in [(None, None), (Some("("), None), (None, Some("a*")), (None, Some("(\\w{100}){100}"))]
    {
        let settings = SensitiveSettings {
            patterns: vec![pattern("p", key, value, Action::Mask)],
            ..SensitiveSettings::default()
        };
        assert!(Guard::new(settings).is_err(), "{key:?} {value:?}");
    }
}

#[test]
fn text_that_is_no_json_is_taken_apart_as_far_as_it_goes() {
    let guard = Arc::new(Guard::default());
    for (text, secret) in [
        (r#"{"batch":[{"traits":{"password":"hunter2""#, "hunter2"),
        (r#"{"batch":[{"traits":{"note":"4111 1111 1111 1111"#, "1111 1111"),
        ("card=4111111111111111&x=1", "4111111111111111"),
        (r#"{"a":NaN,"cvv":123}"#, "123"),
        (r#"{"4111 1111 1111 1111":true}"#, "4111 1111"),
        (r#"{"AKIAIOSFODNN7EXAMPLE":{"password":"x"}}"#, "AKIAIOSFODNN7EXAMPLE"),
    ] {
        let mut screener = Screener::new(Arc::clone(&guard));
        let screened = screener.screen(text, "");
        assert!(!screened.text.contains(secret), "{}", screened.text);
        assert!(
            screened.findings.iter().all(|finding| !finding.path.contains(secret)),
            "{:?}",
            screened.findings
        );
    }
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        Just(json!("call 4111 1111 1111 1111")),
        Just(json!("536-90-4399")),
        Just(json!("\"4111111111111111\"\\")),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::hash_map("(password|note|token|card_number|a|b|\\PC{0,6})", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever the call and the action: what comes out is JSON, has nothing left to find, and is the same again.
    #[test]
    fn what_was_screened_is_json_and_clean(value in tree(), place in 0..5_usize) {
        let action = Action::ALL[place];
        let all = Category::ALL.map(|category| (category, action));
        let guard = with(&all, Vec::new());
        let text = json!({"properties": value}).to_string();
        let mut screener = Screener::new(Arc::clone(&guard));
        let screened = screener.screen(&text, "");
        prop_assert!(serde_json::from_str::<Value>(&screened.text).is_ok(), "{} became {}", text, screened.text);
        prop_assert_eq!(screened.findings.is_empty(), screened.text == text);
        if action == Action::Drop {
            let again = screened.text.into_owned();
            prop_assert!(screener.screen(&again, "").findings.is_empty(), "{}", again);
        }
    }

    #[test]
    fn no_text_brings_it_down(text in "\\PC{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let guard = Arc::new(Guard::default());
        let mut screener = Screener::new(guard);
        screener.screen(&text, "");
        let lossy = String::from_utf8_lossy(&bytes).into_owned();
        screener.screen(&lossy, "context");
    }

    /// Between quotes and brackets, where it is easy to be off by one.
    #[test]
    fn no_broken_json_brings_it_down(text in "[\\[\\]{}\":,\\\\ 4a\u{e9}-]{0,60}") {
        let mut screener = Screener::new(Arc::new(Guard::default()));
        screener.screen(&text, "");
    }
}
