//! The description of the HTTP interface: complete, served, and committed.

use std::path::Path;

use personas::http::openapi::{describe, describe_json};
use personas::http::problem::Code;
use reqwest::Method;
use serde_json::Value;

use crate::harness::app::{TestApp, Wish, send};

#[test]
fn the_description_is_up_to_date() {
    crate::harness::generated::check(Path::new("docs/openapi.json"), &describe_json(true));
}

/// Every documented operation: method and path.
fn operations(description: &Value) -> Vec<(String, String)> {
    let paths = description["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| -> Vec<(String, String)> {
        item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())).collect()
    };
    paths.iter().flat_map(of_path).collect()
}

#[tokio::test]
async fn every_documented_operation_is_served() {
    let app = Wish::default().at("2024-03-01").start().await;
    let description = app.get("/openapi.json").await.expect(200).json;
    let operations = operations(&description);
    assert!(operations.len() > 40, "{}", operations.len());
    for (method, path) in operations {
        let concrete = path.replace(['{', '}'], "");
        let answer = send(app.request(method.parse().unwrap(), &concrete)).await;
        assert!(!answer.text.contains("there is nothing at"), "{method} {path} is not routed");
        assert_ne!(answer.status, 405, "{method} {path} is not routed");
    }
}

/// Routes that are not made by `routes!`, which documents what it routes: in tracking they come from the table the
/// description is made from too, or answer preflights.
#[test]
fn every_route_is_documented() {
    let mut files = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http")];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let is_tracking = path.ends_with("tracking/mod.rs") || path.ends_with("tracking/browser.rs");
        assert!(is_tracking || !text.contains(".route("), "{}: use routes!", path.display());
    }
}

#[test]
fn operations_have_summaries_tags_and_unique_names() {
    let description: Value = serde_json::from_str(&describe(true).to_json().unwrap()).unwrap();
    let mut names = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["summary"].as_str().is_some_and(|s| !s.is_empty()), "{method} {path}");
            assert!(operation["tags"][0].is_string(), "{method} {path}");
            assert!(operation["responses"]["default"].is_object(), "{method} {path}");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
                assert!(parameters.iter().any(|p| p["name"] == name), "{method} {path}: {name}");
            }
            names.push(operation["operationId"].as_str().unwrap().to_owned());
        }
    }
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "two operations have one name");
    let without = describe(false).to_json().unwrap();
    assert!(!without.contains("test-clock"), "described although it does not exist");
}

#[test]
fn schemas_that_are_named_are_there() {
    let text = describe_json(true);
    let description: Value = serde_json::from_str(&text).unwrap();
    let schemas = description["components"]["schemas"].as_object().unwrap();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is named but not described");
    }
}

#[test]
fn every_error_code_is_explained() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md")).unwrap();
    for code in Code::ALL {
        let (word, status) = (code.as_str(), code.status().as_u16());
        let row = page.lines().find(|line| line.contains(&format!("<a id=\"{word}\"></a>")));
        let row = row.unwrap_or_else(|| panic!("docs/errors.md has no anchor for {word}"));
        assert!(row.contains(&status.to_string()), "{word}: {row}");
    }
    // The codes tracking calls are refused with stand in the sources as literals.
    let mut files = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ingest")];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for rest in text.split("Rejection::new(\"").skip(1) {
            let word = rest.split('"').next().unwrap();
            assert!(page.contains(&format!("`{word}`")), "docs/errors.md does not explain {word}");
        }
    }
}

#[tokio::test]
async fn the_pages_need_nothing_from_elsewhere() {
    let app = TestApp::start().await;
    let page = send(app.request(Method::GET, "/docs")).await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.text.contains("/v1/spaces/{space}/audiences") && page.text.contains("/v1/track"));
    assert!(!page.text.contains("<script") && !page.text.contains("https://"), "{}", page.text);
    let errors = send(app.request(Method::GET, "/docs/errors")).await.expect(200);
    assert!(errors.text.contains("no_user_anon_id") && errors.text.contains("<a id=\"conflict\"></a>"));
}
