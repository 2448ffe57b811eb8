//! Each preset of kind `http` with a sample of every call that it has words for: the requests are files under
//! `tests/destinations`, and who changes a preset sees there what becomes of them.

use std::fmt::Write;
use std::path::PathBuf;

use personas::deliver::kind::{HttpKind, Item, Request, Sifted};
use personas::deliver::kinds::http::{HttpMapping, Preset, presets};
use personas::domain::{ProfileNo, Timestamp};
use serde_json::{Map, Value, json};

fn item(number: usize, mut event: Value, personas: Value) -> Item {
    let id = format!("dlv_019364f0d2a07c3e8f1a2b3c4d5e6f0{number}");
    let at = Timestamp::parse("2026-01-02T03:04:05.678Z").unwrap();
    event["messageId"] = json!(id);
    event["timestamp"] = json!(at.to_string());
    event["context"]["personas"] = personas;
    Item {
        id,
        profile: ProfileNo(number as u64),
        profile_id: "prf_019364f0".to_owned(),
        at,
        attempts: 0,
        event,
    }
}

fn audience() -> Value {
    json!({
        "computation_class": "audience", "computation_id": "aud_1", "computation_key": "first_time_shopper",
        "namespace": "spa_1", "space_id": "spa_1", "profile_id": "prf_019364f0",
    })
}

/// An entry and an exit as identify, both as track, a computed trait as identify, and a deletion.
fn items() -> Vec<Item> {
    let identify = |is_member: bool| json!({"type": "identify", "userId": "u/123", "traits": {"email": "Ada@x.example", "first_time_shopper": is_member}});
    let track = |name: &str, is_member: bool| {
        json!({
            "type": "track", "event": name, "userId": "u/123",
            "properties": {"audience_key": "first_time_shopper", "first_time_shopper": is_member},
            "context": {"traits": {"email": "Ada@x.example"}},
        })
    };
    let revenue = json!({
        "type": "identify", "anonymousId": "a-1",
        "traits": {"email": "ada+1@x.example", "revenue": 450.5, "tags": ["a", "<b>"], "plan": null},
    });
    let personas =
        json!({"computation_class": "trait", "computation_id": "tra_1", "computation_key": "revenue"});
    let delete =
        json!({"type": "delete", "userId": "u/123", "context": {"traits": {"email": "Ada@x.example"}}});
    vec![
        item(1, identify(true), audience()),
        item(2, identify(false), audience()),
        item(3, track("Audience Entered", true), audience()),
        item(4, track("Audience Exited", false), audience()),
        item(5, revenue, personas),
        item(6, delete, json!({})),
    ]
}

fn settings(preset: &Preset) -> Map<String, Value> {
    let option = |name: &str| match name {
        "endpoint" => "https://rest.iad-01.braze.com".to_owned(),
        "event_prefix" => "pe123456_".to_owned(),
        "server" => "us21".to_owned(),
        name => format!("the-{name}"),
    };
    let secret = |name: &str| match name {
        "webhook_url" => "https://hooks.slack.com/services/T0/B0/XXXX".to_owned(),
        name => format!("the-{name}"),
    };
    let missing = preset.options.iter().filter(|(_, option)| option.default.is_none());
    let options: Map<String, Value> = missing.map(|(name, _)| (name.clone(), json!(option(name)))).collect();
    let secrets: Map<String, Value> =
        preset.secrets.keys().map(|name| (name.clone(), json!(secret(name)))).collect();
    Map::from_iter([
        ("preset".to_owned(), json!(preset.key)),
        ("options".to_owned(), Value::Object(options)),
        ("secrets".to_owned(), Value::Object(secrets)),
    ])
}

fn written(request: &Request) -> String {
    let mut text = format!("{} {}\n", request.method, request.url);
    for (name, value) in &request.headers {
        writeln!(text, "{name}: {value}").unwrap();
    }
    match serde_json::from_slice::<Value>(&request.body) {
        Ok(body) => write!(text, "\n{}\n", serde_json::to_string_pretty(&body).unwrap()).unwrap(),
        Err(_) => assert!(request.body.is_empty(), "{:?}", String::from_utf8_lossy(&request.body)),
    }
    text
}

#[test]
fn the_sample_of_every_preset_is_up_to_date() {
    assert_eq!(presets().len(), 11);
    for preset in presets() {
        let mapping =
            HttpMapping::open(&settings(preset)).unwrap_or_else(|wrong| panic!("{}: {wrong:?}", preset.key));
        let (mut sent, mut text) = (Vec::new(), format!("# {}\n", preset.name));
        for item in items() {
            match mapping.refuses(&item) {
                None => sent.push(item),
                Some(reason) => {
                    let kind = &item.event["type"];
                    let number = &item.id[item.id.len() - 1..];
                    writeln!(text, "\n--- {number}, {kind}: {}", reason.code).unwrap();
                    assert_ne!(reason.code, "MESSAGE_REJECTED", "{}: {}", preset.key, reason.message);
                }
            }
        }
        let requests = mapping.requests(&sent, Timestamp::EPOCH);
        assert_eq!(requests.iter().map(|request| request.items.len()).sum::<usize>(), sent.len());
        for request in requests {
            let ids: Vec<&str> =
                sent[request.items.clone()].iter().map(|i| &i.id[i.id.len() - 1..]).collect();
            write!(text, "\n--- {}\n{}", ids.join(", "), written(&request)).unwrap();
        }
        let file = PathBuf::from("tests/destinations").join(format!("{}.txt", preset.key));
        crate::harness::generated::check(&file, &text);
    }
}

#[test]
fn a_batch_leaves_out_what_a_preset_refuses_and_stays_together() {
    let preset = presets().iter().find(|preset| preset.key == "hubspot").unwrap();
    let mapping = HttpMapping::open(&settings(preset)).unwrap();
    let contact = |number: usize, email: Option<&str>| {
        let mut event = json!({"type": "identify", "userId": format!("u{number}"), "traits": {"vip": true}});
        if let Some(email) = email {
            event["traits"]["email"] = json!(email);
        }
        item(number, event, audience())
    };
    // Whichever of them it is that HubSpot cannot be told of.
    let (a, c, d) =
        (contact(1, Some("a@x.example")), contact(3, Some("c@x.example")), contact(4, Some("d@x.example")));
    for batch in [
        [contact(2, None), a.clone(), c.clone(), d.clone()],
        [a.clone(), contact(2, None), c.clone(), d.clone()],
        [a, c, d, contact(2, None)],
    ] {
        let sifted = Sifted::by(&mapping, &batch);
        let codes: Vec<&str> = sifted.refused.iter().flatten().map(|reason| reason.code.as_str()).collect();
        assert_eq!(codes, ["NO_MATCHING_MAPPING"]);
        assert!(sifted.places.iter().all(|place| sifted.refused[*place].is_none()), "{:?}", sifted.places);
        let requests = mapping.requests(&sifted.items, Timestamp::EPOCH);
        let [request] = &requests[..] else { panic!("{requests:?}") };
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let ids: Vec<&str> =
            body["inputs"].as_array().unwrap().iter().map(|input| input["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["a@x.example", "c@x.example", "d@x.example"]);
    }
}
