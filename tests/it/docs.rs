//! The pages say what is true: commands run as they stand there, links lead somewhere, and the description of the interface is whole.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use regex::Regex;
use serde_json::Value;

use crate::harness::app::{TOKEN, TestApp, WRITE_KEY};
use crate::harness::docs::{CURL, blocks};

async fn run_all(page: &str, expected: usize) {
    let app = TestApp::start().await;
    let blocks = blocks(page);
    assert!(blocks.len() >= expected, "{page}: {} blocks", blocks.len());
    for block in blocks {
        let block = block.replace("http://127.0.0.1:8080", &app.url);
        let block = block.replace("my_write_key", WRITE_KEY).replace("my_token", TOKEN);
        let script = format!("{CURL}{block}");
        let ran =
            tokio::task::block_in_place(|| Command::new("bash").arg("-c").arg(&script).output()).unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{page}:\n{block}\n{said}{}", String::from_utf8_lossy(&ran.stderr));
        assert!(!said.contains("\"success\":false"), "{page}:\n{block}\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_work() {
    run_all("README.md", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_first_five_minutes_work() {
    run_all("docs/start.md", 5).await;
}

fn is_page(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "md")
}

#[test]
fn links_lead_somewhere_and_every_page_is_in_the_contents() {
    let link = Regex::new(r"\]\(([^)#:]+\.(?:md|json|png))(?:#[^)]*)?\)").unwrap();
    let pages: Vec<String> =
        fs::read_dir("docs").unwrap().flatten().map(|e| e.path().display().to_string()).collect();
    let pages = pages.into_iter().filter(|page| is_page(page)).chain(["README.md".to_owned()]);
    for page in pages {
        let folder = Path::new(&page).parent().unwrap();
        for found in link.captures_iter(&fs::read_to_string(&page).unwrap()) {
            assert!(folder.join(&found[1]).exists(), "{page}: {}", &found[1]);
        }
    }
    let contents = fs::read_to_string("docs/SUMMARY.md").unwrap();
    let listed: BTreeSet<&str> =
        link.captures_iter(&contents).map(|found| found.get(1).unwrap().as_str()).collect();
    for entry in fs::read_dir("docs").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(!is_page(&name) || name == "SUMMARY.md" || listed.contains(name.as_str()), "{name}");
    }
}

/// Generators of clients refuse an answer without one.
#[test]
fn every_answer_is_described() {
    let description: Value = serde_json::from_str(&fs::read_to_string("docs/openapi.json").unwrap()).unwrap();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                assert!(
                    answer["description"].as_str().is_some_and(|text| !text.is_empty()),
                    "{method} {path} {status}"
                );
            }
        }
    }
}
