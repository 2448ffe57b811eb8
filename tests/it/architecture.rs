//! Layering is a test, because one crate gives no other fence.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Small modules without dependencies of their own that most may use; `domain`, `engine` and `store` may not.
const LEAVES: &[&str] = &["clock", "config", "disk", "progress", "read_cache", "telemetry"];

/// For each top-level module of `src`: the modules it may name through `crate::`, besides [`LEAVES`].
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("engine", &["domain"]),
    // It counts failed operations where they are sorted: nobody else sees them all.
    ("store", &["domain", "telemetry"]),
    ("ingest", &["domain", "engine", "store"]),
    ("history", &["domain", "engine", "store"]),
    ("process", &["domain", "engine", "history", "store"]),
    ("deliver", &["domain", "engine", "store"]),
    ("query", &["domain", "engine", "history", "store"]),
    // It tries operators' acts before they are done, and the settings of destinations before they are kept.
    ("manage", &["deliver", "domain", "engine", "process", "store"]),
    // The types of `store` reach `http` through the rooms; only its error is named.
    ("http", &["domain", "ingest", "query", "manage", "store"]),
    (
        "app",
        &[
            "deliver", "domain", "engine", "history", "store", "ingest", "process", "query", "manage",
            "http", "embedded", "console",
        ],
    ),
    // A client of the router it is handed; of `http` it names only who is at the other end of a connection.
    ("console", &["domain", "http"]),
    ("cli", &["domain", "app", "http", "manage", "embedded"]),
    ("embedded", &[]),
    ("clock", &["domain"]),
    ("config", &["domain"]),
    ("disk", &[]),
    ("progress", &["domain"]),
    ("read_cache", &["domain"]),
    ("telemetry", &[]),
];

/// Without leaves: these know neither the time nor the configuration.
const PURE: &[&str] = &["domain", "engine", "store"];

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Names that follow `crate::`, also inside `use crate::{a::.., b};`.
fn uses(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            continue;
        };
        let (mut depth, mut entries) = (1, vec![String::new()]);
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => entries.push(String::new()),
                _ => {}
            }
            if depth == 0 {
                break;
            }
            entries.last_mut().unwrap().push(c);
        }
        let first_word = |entry: &String| -> String {
            entry.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        found.extend(entries.iter().map(first_word).filter(|word| !word.is_empty()));
    }
    found
}

fn source_files() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let read = |file: PathBuf| {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(file).unwrap())
    };
    files.into_iter().map(read).collect()
}

fn module_of(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

#[test]
fn modules_only_use_what_they_may() {
    let may: BTreeMap<_, BTreeSet<_>> =
        MAY_USE.iter().map(|(module, list)| (*module, list.iter().copied().collect())).collect();
    let mut wrong = Vec::new();
    for (file, text) in source_files() {
        let module = module_of(&file);
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let Some(allowed) = may.get(module) else {
            wrong.push(format!("{file}: `{module}` has no entry in MAY_USE"));
            continue;
        };
        for name in uses(&text) {
            let is_leaf = LEAVES.contains(&name.as_str()) && !PURE.contains(&module);
            let is_module = may.contains_key(name.as_str());
            if is_module && name != module && !is_leaf && !allowed.contains(name.as_str()) {
                wrong.push(format!("{file}: `{module}` may not use `{name}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// SQL for databases that are not ours, and of the service that ours is compared with.
const OTHERS_SQL: [&str; 2] = ["deliver/kinds/postgres/", "cli/bench/naive.rs"];

#[test]
fn sql_is_in_store_only() {
    let outside = |(file, text): &(String, String)| {
        module_of(file) != "store"
            && !OTHERS_SQL.iter().any(|place| file.starts_with(place))
            && text.contains("sqlx::query")
    };
    let wrong: Vec<String> = source_files().into_iter().filter(outside).map(|(file, _)| file).collect();
    assert!(wrong.is_empty(), "SQL outside of store: {}", wrong.join(", "));
}

/// What may be asked as the owner of the tables where callers are answered: it serves several spaces at once, makes a space or
/// a token of the server, or is work of the server by the clock.
const AS_OWNER: [&str; 18] = [
    "walled(&self.pool, space)",
    "backlog(",
    "blank_before(",
    "count_quarantined(",
    "delete_rejected_before(",
    "drop_before(",
    "ensure_partitions(",
    "insert_space(",
    "insert_token(",
    "journal::list_waiting(",
    "list_usage(",
    "migrate::versions(",
    "purge::",
    "registry::",
    "set_test_clock(",
    "thin_size_changes(",
    "write(&self.pool, space, entries)",
    // What the journal says may be of any space.
    "let mut tx = self.pool.begin()",
];

#[test]
fn statements_for_callers_go_through_the_wall() {
    let answers = |file: &str| ["http", "manage", "query"].contains(&module_of(file));
    let wrong: Vec<String> = source_files()
        .into_iter()
        .filter(|(file, _)| answers(file) && !file.ends_with("manage/registry.rs"))
        .flat_map(|(file, text)| {
            let owners = text.lines().filter(|line| line.contains("self.pool"));
            let open = owners.filter(|line| !AS_OWNER.iter().any(|known| line.contains(known)));
            open.map(|line| format!("{file}: {}", line.trim())).collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "not through `store::walled` (ADR 0018): {}", wrong.join(", "));
}

/// A session of Postgres that waits for more rows of a COPY is ended by no time limit: who goes silent just then keeps its locks.
#[test]
fn nothing_is_written_by_copy() {
    let copies = |(file, text): &(String, String)| module_of(file) == "store" && text.contains("copy_in");
    let wrong: Vec<String> = source_files().into_iter().filter(copies).map(|(file, _)| file).collect();
    assert!(wrong.is_empty(), "COPY into tables of ours: {}", wrong.join(", "));
}

#[test]
fn files_are_short() {
    let production_lines = |text: &str| text.split("#[cfg(test)]").next().unwrap_or_default().lines().count();
    let long: Vec<String> = source_files()
        .into_iter()
        .map(|(file, text)| (production_lines(&text), file))
        .filter(|(lines, _)| *lines > 500)
        .map(|(lines, file)| format!("{file}: {lines}"))
        .collect();
    assert!(long.is_empty(), "more than 500 lines: {}", long.join(", "));
}

#[test]
fn every_module_says_what_it_is() {
    let bare: Vec<String> = source_files()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(file, _)| file)
        .collect();
    assert!(bare.is_empty(), "no //! at the top: {}", bare.join(", "));
}
