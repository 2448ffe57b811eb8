//! Spans for a collector of OpenTelemetry: what a request made happen is one trace, and nothing personal is in it.
#![cfg(feature = "otlp")]

use serde_json::json;

use crate::harness::process::Server;
use crate::harness::receiver::{Received, Receiver, Reply};

const TOKEN: &str = "tok_traces_of_a_test";
const KEYS: [(&str, &str); 2] =
    [("PERSONAS_BOOTSTRAP_WRITE_KEY", "wk_traces"), ("PERSONAS_BOOTSTRAP_TOKEN", TOKEN)];
/// W3C Trace Context: version, trace, span, sampled.
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn has(received: &Received, text: &[u8]) -> bool {
    memchr::memmem::find(&received.body, text).is_some()
}

#[tokio::test]
async fn a_collector_is_told_what_took_how_long_and_of_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Receiver::start().await;
    let mut variables = KEYS.to_vec();
    variables.extend([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test,service.name=people"),
    ]);
    let server = Server::start(&folder.path().join("data"), TOKEN, &variables).await;
    let client = reqwest::Client::builder().build().unwrap();
    let call =
        json!({"userId": "canary-user", "event": "Canary Event", "properties": {"canary": "canary-value"}});
    let request = client.post(format!("{}/v1/track", server.url)).basic_auth("wk_traces", Some(""));
    let answer = request
        .header("traceparent", PARENT)
        .header("tracestate", "who=canary-state")
        .body(call.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let offset = answer.headers()["personas-offset"].to_str().unwrap();
    server.get(&format!("collections/users/profiles/user_id:canary-user/traits?min_offset={offset}")).await;
    let wanted: [&[u8]; 8] = [
        b"POST /v1/track",
        b"GET /v1/spaces/{space}/collections/{collection}/profiles/{profile}/traits",
        b"append",
        b"batch",
        b"compute",
        b"commit",
        b"people",
        b"deployment.environment",
    ];
    let all = collector
        .wait(|collector| {
            let all = collector.all();
            wanted.iter().all(|text| all.iter().any(|received| has(received, text))).then_some(all)
        })
        .await;
    assert!(all.iter().all(|received| received.path == "/v1/traces"));
    let trace = hex::decode("0af7651916cd43dd8448eb211c80319c").unwrap();
    let told = all.iter().find(|received| has(received, b"POST /v1/track")).unwrap();
    assert!(has(told, &trace), "the request is part of the client's trace");
    for personal in ["anary", "wk_traces", TOKEN] {
        assert!(!all.iter().any(|received| has(received, personal.as_bytes())), "{personal}");
    }
    server.kill();
}

/// A server with a collector and these variables, after 200 calls and a look at what the last one made.
async fn busy(collector: &Receiver, said: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let mut variables = KEYS.to_vec();
    variables.extend([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
    ]);
    variables.extend(said);
    let server = Server::start(&folder.path().join("data"), TOKEN, &variables).await;
    let client = reqwest::Client::builder().build().unwrap();
    let mut offset = String::new();
    for n in 0..200 {
        let call = json!({"userId": format!("u{n}"), "event": "E"}).to_string();
        let request = client.post(format!("{}/v1/track", server.url)).basic_auth("wk_traces", Some(""));
        let answer = request.body(call).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        offset = answer.headers()["personas-offset"].to_str().unwrap().to_owned();
    }
    let last =
        server.get(&format!("collections/users/profiles/user_id:u199/metadata?min_offset={offset}")).await;
    assert!(last["metadata"]["profile_id"].is_string(), "{last}");
    server.kill();
}

#[tokio::test]
async fn a_collector_that_hangs_is_no_obstacle() {
    let collector = Receiver::start_with(|_, _| Reply::Hang).await;
    busy(&collector, &[]).await;
    assert!(collector.count() > 0, "it was asked");
}

#[tokio::test]
async fn the_standard_s_variables_switch_it_off() {
    for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        let collector = Receiver::start().await;
        busy(&collector, &[off]).await;
        assert_eq!(collector.count(), 0, "{off:?}");
    }
}
