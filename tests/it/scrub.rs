//! What was deleted is taken out of the files of the database, too (privacy duty P2).

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::backup::{KEYS, TOKEN, look, open_folder, personas, send, text};
use crate::harness::process::Server;

const CANARY: &[u8] = b"canary.7f3a";

/// Files below a folder that have the canary in them.
fn found(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(self::found(&path));
        } else if fs::read(&path).is_ok_and(|bytes| bytes.windows(CANARY.len()).any(|part| part == CANARY)) {
            found.push(path.display().to_string());
        }
    }
    found
}

async fn wait_finished(server: &Server, regulation: &Value) {
    let path = format!("regulations/{}", regulation["id"].as_str().unwrap());
    while server.get(&path).await["finished_at"].is_null() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_what_was_erased_is_in_no_file_of_the_database_any_more() {
    let dir = open_folder();
    let folder = dir.path().join("data");
    let server = Server::start(&folder, TOKEN, &KEYS).await;
    let people: Vec<String> = (0..100).map(|n| format!("user{n}.canary.7f3a")).collect();
    for person in &people {
        send(&server, person, &format!("{person}@mail.example")).await;
    }
    let offset = send(&server, "bob", "bob@x.y").await;
    assert_eq!(look(&server, &people[0], offset).await["traits"]["email"], "user0.canary.7f3a@mail.example");
    let erased = json!({"regulation_type": "SUPPRESS_WITH_DELETE_INTERNAL", "subject_ids": people});
    wait_finished(&server, &server.post("regulations", erased).await).await;
    assert_eq!(look(&server, &people[0], offset).await["error"]["code"], "not_found");
    // What is in memory is written first.
    let copy = dir.path().join("copy");
    assert!(personas(&folder, &["backup", copy.to_str().unwrap()]).status.success());
    // Deleted is not gone: or the test would not see it.
    let before = found(&folder);
    for part in ["/base/", "/pg_wal/"] {
        assert!(before.iter().any(|file| file.contains(part)), "nothing in {part}: {before:?}");
    }
    let done = personas(&folder, &["scrub"]);
    assert!(done.status.success(), "{}", text(&done));
    assert!(text(&done).contains("begins anew"), "{}", text(&done));
    assert_eq!(found(&folder), Vec::<String>::new());
    // The service has gone on, and goes on.
    assert_eq!(look(&server, "bob", offset).await["traits"]["email"], "bob@x.y");
    let offset = send(&server, "eve", "eve@x.y").await;
    assert_eq!(look(&server, "eve", offset).await["traits"]["email"], "eve@x.y");
    server.kill();
    // And so it does where no server runs, and from where a killed one left it.
    let done = personas(&folder, &["scrub"]);
    assert!(done.status.success(), "{}", text(&done));
    let server = Server::start(&folder, TOKEN, &KEYS).await;
    assert_eq!(look(&server, "eve", offset).await["traits"]["email"], "eve@x.y");
}
