//! The commands that the pages show, as tests run them.

use std::fs;

/// A read is tried again: what was sent a moment ago may not be processed yet. What changes something is sent once.
pub(crate) const CURL: &str = r#"set -euo pipefail
curl() {
    for _ in $(seq 100); do
        command curl --fail-with-body -sS "$@" && return 0
        for word in "$@"; do [ "$word" = "-d" ] && return 1; done
        sleep 0.1
    done
    return 1
}
"#;
/// What builds and starts a server cannot run within one.
const NOT_HERE: [&str; 3] = ["make ", "cargo run", "git clone"];

/// The shell blocks of a page, those within lists, too.
pub(crate) fn blocks(page: &str) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let mut lines = text.lines();
    let mut blocks = Vec::new();
    while lines.any(|line| line.trim() == "```sh") {
        let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
        blocks.push(block.join("\n"));
    }
    blocks.retain(|block| !NOT_HERE.iter().any(|word| block.contains(word)));
    blocks
}
