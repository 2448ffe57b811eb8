//! Backups of the private Postgres: made while the service runs, put back, and who was erased meanwhile stays erased
//! (privacy duties P4, P6).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::process::Server;

pub(crate) const TOKEN: &str = "tok_backup";
const KEY: &str = "wk_backup";
pub(crate) const KEYS: [(&str, &str); 2] =
    [("PERSONAS_BOOTSTRAP_TOKEN", TOKEN), ("PERSONAS_BOOTSTRAP_WRITE_KEY", KEY)];

/// A folder an unprivileged account can reach.
pub(crate) fn open_folder() -> TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap()
}

/// Runs a command on a data folder.
pub(crate) fn personas(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_personas"))
        .args(arguments)
        .env("PERSONAS_DATA_DIR", folder)
        .env_remove("DATABASE_URL")
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap()
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) async fn send(server: &Server, user: &str, email: &str) -> u64 {
    let call = json!({"userId": user, "traits": {"email": email}});
    let request = reqwest::Client::builder()
        .build()
        .unwrap()
        .post(format!("{}/v1/identify", server.url))
        .basic_auth(KEY, Some(""));
    let answer = request.body(call.to_string()).send().await.unwrap();
    assert!(answer.status().is_success());
    answer.headers()["personas-offset"].to_str().unwrap().parse().unwrap()
}

/// The status of a look at a user, as of an offset.
pub(crate) async fn look(server: &Server, user: &str, offset: u64) -> Value {
    server.get(&format!("collections/users/profiles/user_id:{user}/traits?min_offset={offset}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_has_everything_but_who_was_erased_since() {
    let dir = open_folder();
    let (folder, file) = (dir.path().join("data"), dir.path().join("backup.zst"));
    let file = file.to_str().unwrap();
    let server = Server::start(&folder, TOKEN, &KEYS).await;
    send(&server, "ada", "ada@canary.example").await;
    let offset = send(&server, "bob", "bob@x.y").await;
    assert_eq!(look(&server, "ada", offset).await["traits"]["email"], "ada@canary.example");
    let made = personas(&folder, &["backup", file]);
    assert!(made.status.success(), "{}", text(&made));
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = personas(&folder, &["backup", file]);
    assert!(!again.status.success(), "nothing is written over: {}", text(&again));
    // Ada is erased and suppressed, Bob suppressed; Eve comes, and is in no backup.
    let suppressed = json!({"regulation_type": "SUPPRESS_ONLY", "subject_ids": ["bob"]});
    server.post("regulations", suppressed).await;
    let erased = json!({"regulation_type": "SUPPRESS_WITH_DELETE_INTERNAL", "subject_ids": ["ada"]});
    let made = server.post("regulations", erased).await;
    let offset = send(&server, "eve", "eve@x.y").await;
    assert_eq!(look(&server, "eve", offset).await["traits"]["email"], "eve@x.y");
    let path = format!("regulations/{}", made["id"].as_str().unwrap());
    let journal = folder.join("erasures.ndjson");
    let written = || fs::read_to_string(&journal).unwrap_or_default().lines().count();
    while server.get(&path).await["finished_at"].is_null() || written() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!fs::read_to_string(&journal).unwrap().contains("canary"));
    assert_eq!(fs::metadata(&journal).unwrap().permissions().mode() & 0o777, 0o600);
    let used = personas(&folder, &["restore", file, "--replace"]);
    assert!(!used.status.success() && text(&used).contains("is using"), "{}", text(&used));
    server.kill();

    let kept = personas(&folder, &["restore", file]);
    assert!(!kept.status.success() && text(&kept).contains("--replace"), "{}", text(&kept));
    let damaged = dir.path().join("damaged.zst");
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(&damaged, &bytes).unwrap();
    let refused = personas(&folder, &["restore", damaged.to_str().unwrap(), "--replace"]);
    assert!(!refused.status.success(), "{}", text(&refused));
    // Nothing was lost by that.
    let server = Server::start(&folder, TOKEN, &KEYS).await;
    assert_eq!(look(&server, "eve", offset).await["traits"]["email"], "eve@x.y");
    server.kill();

    let restored = personas(&folder, &["restore", file, "--replace"]);
    assert!(restored.status.success(), "{}", text(&restored));
    // It is ready when nobody is there any more who was erased.
    let server = Server::start(&folder, TOKEN, &KEYS).await;
    assert_eq!(look(&server, "bob", 0).await["traits"]["email"], "bob@x.y");
    for user in ["ada", "eve"] {
        assert_eq!(look(&server, user, 0).await["error"]["code"], "not_found", "{user}");
    }
    for user in ["ada", "bob"] {
        assert_eq!(server.get(&format!("suppressions/user_id:{user}")).await["type"], "user_id");
    }
    assert!(server.get("suppressions/user_id:eve").await["id"].is_null());
    server.kill();
    let verified = personas(&folder, &["verify"]);
    assert!(verified.status.success(), "{}", text(&verified));
}
