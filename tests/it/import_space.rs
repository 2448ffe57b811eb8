//! Exports of spaces as folders, and what comes of them in another database: also of those that somebody has changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::export::run_cli;
use crate::harness::acts::{Case, SPACE};
use crate::harness::app::{TOKEN, TestApp, Wish};

async fn export(url: &str, to: &Path) -> (bool, String) {
    let words = ["export", "--url", url, "--to", to.to_str().unwrap()];
    run_cli(words.map(str::to_owned).to_vec(), vec![("PERSONAS_TOKEN", TOKEN.to_owned())]).await
}

async fn import(app: &TestApp, folder: &Path) -> (bool, String) {
    let words = ["import-space", "--space", "default", folder.to_str().unwrap()];
    run_cli(words.map(str::to_owned).to_vec(), vec![("DATABASE_URL", app.db.url())]).await
}

/// Changes a file of an export, and the manifest with it, as somebody does who knows how.
fn set(folder: &Path, file: &str, rows: &str) {
    fs::write(folder.join(format!("{file}.ndjson")), rows).unwrap();
    let sums = json!({"rows": rows.lines().count(), "sha256": hex::encode(Sha256::digest(rows))});
    change_manifest(folder, |files| files[file] = sums);
}

fn change_manifest(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut manifest["files"]);
    fs::write(path, manifest.to_string()).unwrap();
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

async fn sources(app: &TestApp) -> BTreeMap<String, (String, bool)> {
    let list = app.get(&format!("{SPACE}/sources")).await.expect(200).json;
    let word = |s: &Value, name: &str| s[name].as_str().unwrap().to_owned();
    let source = |s: &Value| (word(s, "id"), (word(s, "name"), s["enabled"].as_bool().unwrap()));
    list["data"].as_array().unwrap().iter().map(source).collect()
}

#[tokio::test]
async fn who_is_kept_out_stays_so_in_an_imported_space_and_servers_know_what_was_imported() {
    let mut case = Case::start(Wish::default()).await;
    let history = json!({"batch": [
        {"type": "identify", "userId": "gone", "traits": {"email": "gone@x.y"}, "timestamp": "2024-02-01T00:00:00Z"},
        {"type": "track", "event": "Order", "userId": "gone", "timestamp": "2024-02-02T00:00:00Z"},
    ]});
    case.app.track("/v1/batch", history.clone()).await.expect(200);
    case.send_all(&["identify user=muted {\"plan\":\"pro\"}", "identify user=u {\"plan\":\"pro\"}"]).await;
    case.app.regulated("DELETE_ONLY", "user_id", &["gone"]).await;
    case.app.regulate("SUPPRESS_ONLY", "user_id", &["muted"]).await;
    let guard = json!({"actions": {"iban": "reject"}});
    case.app.patch(&format!("{SPACE}/sensitive-data/settings"), guard).await.expect(200);
    let first = sources(&case.app).await.into_keys().next().unwrap();
    case.app.patch(&format!("{SPACE}/sources/{first}"), json!({"enabled": false})).await.expect(200);
    case.app.post(&format!("{SPACE}/sources"), json!({"name": "shop"})).await.expect(201);
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("space");
    let (done, said) = export(&case.app.url, &to).await;
    assert!(done, "{said}");
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o700, "nobody else reads it");

    let other = Case::start(Wish::default()).await;
    let (done, said) = import(&other.app, &to).await;
    assert!(done, "{said}");
    // The server that ran meanwhile hears of it within a second.
    let mut known = sources(&other.app).await;
    for _ in 0..200 {
        if known == sources(&case.app).await && other.app.track("/v1/track", "{}").await.status == 403 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        known = sources(&other.app).await;
    }
    assert_eq!(known, sources(&case.app).await);
    assert_eq!(other.app.track("/v1/track", "{}").await.expect(403).json["code"], "source_disabled");
    other.app.patch(&format!("{SPACE}/sources/{first}"), json!({"enabled": true})).await.expect(200);
    let end = async |case: &Case| case.get(&format!("{SPACE}/pipeline")).await["log_end_offset"].clone();
    let before = end(&other).await;
    other.app.track("/v1/batch", history).await.expect(200);
    other.app.track("/v1/identify", json!({"userId": "muted", "traits": {"plan": "new"}})).await.expect(200);
    let refused = json!({"userId": "u", "traits": {"iban": "DE89370400440532013000"}});
    let refused = other.app.track("/v1/identify", refused).await;
    assert!(refused.text.contains("sensitive_data"), "{}", refused.text);
    // They have a place in the log each, in which there is nothing.
    assert_eq!(end(&other).await, json!(before.as_u64().unwrap() + 3));
    let gone = format!("{SPACE}/collections/users/profiles/user_id:gone/traits");
    other.app.get(&gone).await.expect(404);
    other.app.get(&format!("{SPACE}/suppressions/user_id:muted")).await.expect(200);
    assert_eq!(other.traits("user_id:muted").await["plan"], "pro");
    // Under a message id that was not used in the other one: that would be a retry.
    let call = json!({"userId": "u", "traits": {"plan": "free"}, "messageId": "z1"});
    other.app.processed("/v1/identify", call).await;
    assert_eq!(other.traits("user_id:u").await["plan"], "free");
    let (done, said) = import(&other.app, &to).await;
    assert!(!done && said.contains("people who are kept out"), "{said}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_an_export_is_refused_with_its_place() {
    let mut case = Case::start(Wish::default()).await;
    case.send_all(&["identify user=u {\"plan\":\"pro\"}", "track Order user=u"]).await;
    let folder = tempfile::tempdir().unwrap();
    let (whole, to) = (folder.path().join("whole"), folder.path().join("space"));
    let (done, said) = export(&case.app.url, &whole).await;
    assert!(done, "{said}");
    let other = Case::start(Wish::default()).await;
    let chunk = |end: u64, events: u64, day: &str| {
        json!({"end_offset": end, "events": events, "day": day}).to_string() + "\n"
    };
    let day = "2024-03-01";
    for (rows, words) in [
        (chunk(u64::MAX, 1, day), "end_offset goes up to"),
        (chunk(2, 0, day), "a chunk has 1 to"),
        (chunk(5_000_000_000, 4_000_000_000, day), "a chunk has 1 to"),
        (chunk(2, 3, day), "there are not 3 offsets up to 2"),
        (chunk(2, 2, "9999-01-01"), "the day is not in the years"),
        (chunk(1, 1, day) + &chunk(3, 1, day), "does not follow the one before"),
        (chunk(1, 1, day) + &chunk(2, 1, "2024-02-01"), "is before the one of the chunk before"),
        (chunk(1, 1, day), "the row at offset 2 is in no chunk"),
    ] {
        copy(&whole, &to);
        set(&to, "chunks", &rows);
        let (done, said) = import(&other.app, &to).await;
        assert!(!done && said.contains(words) && !said.contains("panicked"), "{rows}: {said}");
    }
    copy(&whole, &to);
    change_manifest(&to, |files| _ = files.as_object_mut().unwrap().remove("acts"));
    let (done, said) = import(&other.app, &to).await;
    assert!(!done && said.contains("does not name acts.ndjson"), "{said}");
    copy(&whole, &to);
    change_manifest(&to, |files| _ = files.as_object_mut().unwrap().remove("retention"));
    fs::write(to.join("retention.ndjson"), "{\"days\":1}\n").unwrap();
    let (done, said) = import(&other.app, &to).await;
    assert!(!done && said.contains("the manifest does not name it"), "{said}");
    copy(&whole, &to);
    change_manifest(&to, |files| files["../whole/events"] = files["events"].clone());
    let (done, said) = import(&other.app, &to).await;
    assert!(!done && said.contains("which is no file of an export"), "{said}");
    // None of it has left anything.
    let (done, said) = import(&other.app, &whole).await;
    assert!(done, "{said}");
    assert_eq!(other.traits("user_id:u").await["plan"], "pro");
}

#[tokio::test]
async fn nobody_waits_for_an_import() {
    let mut case = Case::start(Wish::default()).await;
    case.send_all(&["identify user=u {\"plan\":\"pro\"}"]).await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("space");
    let (done, said) = export(&case.app.url, &to).await;
    assert!(done, "{said}");
    let chunks = fs::read_to_string(to.join("chunks.ndjson")).unwrap();
    set(&to, "chunks", &chunks.replace("2024-03-01", "2024-01-01"));

    let mut other = Case::start(Wish::default()).await;
    let pool = &other.app.db.pool;
    // Holds the import up where it writes its log, in a week nobody else writes to.
    let sql = "CREATE TABLE event_chunk_20240101 PARTITION OF event_chunk FOR VALUES FROM ('2024-01-01') TO ('2024-01-08')";
    sqlx::query(sql).execute(pool).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE event_chunk_20240101 IN SHARE MODE").execute(&mut *tx).await.unwrap();
    let words = ["import-space", "--space", "default", to.to_str().unwrap()].map(str::to_owned).to_vec();
    let db_url = other.app.db.url();
    let ((done, said), ()) = tokio::join!(run_cli(words, vec![("DATABASE_URL", db_url)]), async {
        other.app.db.wait_for_blocked().await;
        let sent = tokio::time::timeout(Duration::from_secs(20), other.send("track Order user=u"));
        sent.await.expect("events are taken meanwhile");
        tx.rollback().await.unwrap();
    });
    assert!(!done && said.contains("has events or definitions already"), "{said}");
    assert_eq!(other.get(&format!("{SPACE}/pipeline")).await["log_end_offset"], 1);
}

#[tokio::test]
async fn an_export_that_breaks_off_leaves_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        let body = "{\"file\":\"profiles\",\"row\":{\"profile_id\":\"prf_1\"}}\n";
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n";
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    };
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("space");
    let ((done, said), ()) = tokio::join!(export(&url, &to), serve);
    assert!(!done && said.contains("broke off"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of it");
    let case = Case::start(Wish::default()).await;
    let (done, said) = export(&case.app.url, &to).await;
    assert!(done, "{said}");
    let (done, said) = export(&case.app.url, &to).await;
    assert!(!done && said.contains("is there already"), "{said}");
}
