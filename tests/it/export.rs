//! Exports: everything there is of one person, or of a space, whole and as of one instant.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::acts::{Case, SPACE, USERS};
use crate::harness::app::{TOKEN, TestApp, Wish, send};
use crate::harness::destinations::sending;
use crate::harness::rebuild::{assert_same, dump, json_of, run};
use crate::harness::receiver::Receiver;

/// An export as it was read: its rows by file, and the manifest.
struct Read {
    files: BTreeMap<String, Vec<Value>>,
    manifest: Value,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    file: Option<String>,
    #[serde(borrow, default)]
    row: Option<&'a RawValue>,
    #[serde(default)]
    manifest: Option<Value>,
}

/// Reads an export; the manifest must say what there is.
fn read(text: &str) -> Read {
    let (mut files, mut hashes) = (BTreeMap::<String, Vec<Value>>::new(), BTreeMap::<String, Sha256>::new());
    let mut manifest = Value::Null;
    for line in text.lines() {
        assert!(manifest.is_null(), "nothing comes after the manifest");
        let line: Line<'_> = serde_json::from_str(line).unwrap();
        if let Some(said) = line.manifest {
            manifest = said;
            continue;
        }
        let (file, row) = (line.file.unwrap(), line.row.unwrap().get());
        let hash = hashes.entry(file.clone()).or_default();
        hash.update(row.as_bytes());
        hash.update(b"\n");
        files.entry(file).or_default().push(serde_json::from_str(row).unwrap());
    }
    for (file, said) in manifest["files"].as_object().unwrap() {
        assert_eq!(said["rows"], files.get(file).map_or(0, Vec::len), "{file}");
        let hash = hashes.remove(file).unwrap_or_default();
        assert_eq!(said["sha256"], hex::encode(hash.finalize()), "{file}");
    }
    assert!(hashes.is_empty(), "the manifest does not say everything");
    Read { files, manifest }
}

impl Read {
    fn rows(&self, file: &str) -> &[Value] {
        self.files.get(file).map_or(&[], Vec::as_slice)
    }

    fn column(&self, file: &str, name: &str) -> Vec<String> {
        let text = |row: &Value| row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned);
        self.rows(file).iter().map(text).collect()
    }
}

async fn export(app: &TestApp, path: &str) -> Read {
    let answer = app.get(path).await.expect(200);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    read(&answer.text)
}

/// Two who are one by now, in an account, in audiences, told of, with consent.
async fn busy(receiver: &Receiver) -> Case {
    let mut case = Case::start(sending()).await;
    case.app.make_live("audiences", "pro", "trait('plan') = 'pro'").await;
    let hook = case.app.make_webhook("crm", receiver, json!({})).await;
    case.app.subscribe(&hook, json!({"subject": "audience", "key": "pro"})).await;
    case.send_all(&[
        "track Seen anon=a1 {\"n\":1}",
        "identify user=u anon=a1 {\"plan\":\"pro\",\"age\":7}",
        "track Order user=u {\"total\":10}",
        "identify user=w {\"email\":\"w@example.com\"}",
        "group user=u group=g {\"name\":\"Acme\"}",
        "track Order user=other {\"total\":1}",
    ])
    .await;
    let call = r#"{"userId":"u","event":"Kept","context":{"consent":{"categoryPreferences":{"Ads":true}},"ip":"10.0.0.1"},
        "custom":[1,2],"integrations":{"All":true},"properties":{"n":12345678901234567890123}}"#;
    case.offset = case.app.track("/v1/track", call).await.expect(200).offset();
    case.post("/identity/merges", json!({"profiles": ["user_id:u", "user_id:w"], "override_limits": true}))
        .await;
    case.app.wait_sent(&hook).await;
    case
}

#[tokio::test]
async fn p7_i33_the_export_of_a_person_has_everything_and_makes_the_person_again() {
    let receiver = Receiver::start().await;
    let case = busy(&receiver).await;
    let read = export(&case.app, &format!("{USERS}/user_id:u/export")).await;
    let id = case.id("user_id:u").await;
    assert_eq!((&read.manifest["kind"], &read.manifest["profile_id"]), (&json!("profile"), &json!(id)));
    let processed = case.get(&format!("{SPACE}/pipeline")).await["processed_offset"].clone();
    assert_eq!(read.manifest["as_of_offset"], processed);
    assert_eq!(read.column("profiles", "profile_id"), std::slice::from_ref(&id));
    assert_eq!(read.rows("profiles")[0]["former_ids"].as_array().unwrap().len(), 1);
    assert_eq!(read.column("external_ids", "id"), ["a1", "u", "w", "w@example.com"]);
    assert_eq!(read.column("traits", "name"), ["age", "email", "plan", "pro"]);
    assert_eq!(read.column("memberships", "audience"), ["pro"]);
    assert_eq!(read.column("transitions", "entered"), ["true"]);
    assert_eq!(read.column("consent", "category"), ["Ads"]);
    assert_eq!((read.rows("merges").len(), read.rows("links").len()), (1, 1));
    assert!(read.rows("deliveries").iter().all(|d| d["state"] == "delivered" && d["profile_id"] == id));
    assert!(!read.rows("deliveries").is_empty());
    let calls: Vec<Value> = read.rows("events").iter().map(|row| row["call"].clone()).collect();
    let types: Vec<&str> = calls.iter().map(|call| call["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["track", "identify", "track", "identify", "group", "track"]);
    let text = case.app.get(&format!("{USERS}/user_id:u/export")).await.text;
    assert!(text.contains("12345678901234567890123"), "with all digits");
    let kept = &calls[5];
    assert_eq!(
        (&kept["custom"], &kept["context"]["ip"], &kept["integrations"]["All"]),
        (&json!([1, 2]), &json!("10.0.0.1"), &json!(true))
    );

    // The same calls make the same person elsewhere: what operators did is not among them.
    case.app.post("/v1/spaces", json!({"id": "copy"})).await.expect(201);
    let source = case.app.post("/v1/spaces/copy/sources", json!({"name": "again"})).await.expect(201).json;
    let key = source["write_key"].as_str().unwrap();
    for path in ["audiences"] {
        let body = json!({"key": "pro", "definition": {"query": "trait('plan') = 'pro'"}});
        case.app.post(&format!("/v1/spaces/copy/{path}"), body).await.expect(201);
    }
    let batch = json!({"batch": calls}).to_string();
    let request = case.app.request(Method::POST, "/v1/batch").basic_auth(key, Some("")).body(batch);
    let offset = send(request).await.expect(200).offset();
    let copy = "/v1/spaces/copy/collections/users/profiles";
    for user in ["u", "w"] {
        let traits =
            case.app.get(&format!("{copy}/user_id:{user}/traits?limit=200&min_offset={offset}")).await;
        let mut own = traits.expect(200).json["traits"].as_object().unwrap().clone();
        own.remove("pro");
        for (name, value) in own {
            assert_eq!(case.traits("user_id:u").await[&name], value, "{name}");
        }
    }
    let again = export(&case.app, &format!("{copy}/user_id:u/export")).await;
    let without = |row: &Value| {
        let mut call = row["call"].clone();
        // The time the client says is kept beside the one that is taken for it.
        call.as_object_mut().unwrap().remove("originalTimestamp");
        call
    };
    let both: Vec<Value> = again.rows("events").iter().map(without).collect();
    let own = calls.iter().filter(|call| call["userId"] != "w").cloned().collect::<Vec<_>>();
    assert_eq!(both, own, "what was sent");
}

#[tokio::test]
async fn p7_nobody_exports_whom_another_space_knows() {
    let case = Case::start(Wish::default()).await;
    case.app.processed("/v1/identify", json!({"userId": "u"})).await;
    case.app.post("/v1/spaces", json!({"id": "other"})).await.expect(201);
    let made = json!({"name": "t", "scopes": ["read", "write", "admin"]});
    let token = case.app.post("/v1/spaces/other/tokens", made).await.expect(201).json;
    let token = token["token"].as_str().unwrap();
    for path in [format!("{USERS}/user_id:u/export"), format!("{SPACE}/export")] {
        case.app.call_as(token, Method::GET, &path, None).await.expect(404);
    }
    let own = "/v1/spaces/other/collections/users/profiles/user_id:u/export";
    case.app.call_as(token, Method::GET, own, None).await.expect(404);
    case.app.get(&format!("{USERS}/user_id:nobody/export")).await.expect(404);
    case.app.get(&format!("{USERS}/nobody/export")).await.expect(400);
}

#[tokio::test]
async fn p7_a_person_of_ten_thousand_events_is_exported_in_a_minute() {
    let case = Case::start(Wish::default()).await;
    let mut offset = 0;
    for part in 0..4 {
        let event = |n: i32| json!({"type": "track", "userId": "u", "event": "Seen", "messageId": format!("{part}-{n}"), "properties": {"n": n}});
        let batch = json!({"batch": (0..2_500).map(event).collect::<Vec<_>>()});
        offset = case.app.track("/v1/batch", batch).await.expect(200).offset();
    }
    case.app.get(&format!("{SPACE}/pipeline?min_offset={offset}")).await.expect(200);
    let began = Instant::now();
    let read = export(&case.app, &format!("{USERS}/user_id:u/export")).await;
    assert_eq!(read.rows("events").len(), 10_000);
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
}

/// Runs a command of ours; says what it said.
pub(crate) async fn run_cli(
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
) -> (bool, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_personas"));
    let inherited = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("PERSONAS_"));
    command
        .args(arguments)
        .env_clear()
        .envs(inherited)
        .envs(variables)
        .current_dir(env!("CARGO_TARGET_TMPDIR"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.success(), said)
}

#[tokio::test]
async fn a_space_that_is_imported_elsewhere_is_the_same() {
    let receiver = Receiver::start().await;
    let mut case = busy(&receiver).await;
    case.app.make_live("computed-traits", "spent", "event('Order').sum(property('total'))").await;
    case.app.make_live_from("audiences", "vip", json!({"key": "vip", "definition": {"list": true}})).await;
    case.vip("user_id:u").await;
    case.post("/collections/users/profiles/user_id:u/objections", json!({})).await;
    case.send("track Order user=u {\"total\":5}").await;
    case.send("track Order anon=nobody {\"total\":7}").await;
    case.get(&format!("{SPACE}/pipeline")).await;
    // As a rebuild makes it: versions that were replaced have left nothing.
    json_of(&run(&case.app.db, &["--json"]).await);
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("space");
    let export = vec![
        "export".to_owned(),
        "--url".to_owned(),
        case.app.url.clone(),
        "--to".to_owned(),
        to.display().to_string(),
    ];
    let (done, said) = run_cli(export, vec![("PERSONAS_TOKEN", TOKEN.to_owned())]).await;
    assert!(done, "{said}");

    let copy = Case::start(Wish::default()).await;
    let import =
        vec!["import-space".to_owned(), "--space".to_owned(), "default".to_owned(), to.display().to_string()];
    let database = || vec![("DATABASE_URL", copy.app.db.url())];
    let (done, said) = run_cli(import.clone(), database()).await;
    assert!(done, "{said}");
    let (mut one, mut other) = (dump(&case.app.db.pool).await, dump(&copy.app.db.pool).await);
    // What was told, and when a size changed, is each server's own.
    for own in ["transition", "size_change", "processor", "computation"] {
        one.remove(own);
        other.remove(own);
    }
    assert_same(&one, &other);
    assert_eq!(case.id("user_id:u").await, copy.id("user_id:u").await);
    assert_eq!(case.told("users", "user_id:u").await, copy.told("users", "user_id:u").await);
    assert_eq!(case.sizes().await, copy.sizes().await);
    // It goes on: what was sent there once does not count twice here.
    let again = json!({"userId": "u", "event": "Order", "messageId": "m0003", "properties": {"total": 10}});
    copy.app.processed("/v1/track", again).await;
    assert_eq!(copy.traits("user_id:u").await["spent"], 15);
    let (done, said) = run_cli(import, database()).await;
    assert!(!done && said.contains("has events or definitions already"), "{said}");
    // What was changed on the way is noticed before anything happens.
    let events = to.join("events.ndjson");
    let text = std::fs::read_to_string(&events).unwrap().replace("Order", "Other");
    std::fs::write(&events, text).unwrap();
    let third = Case::start(Wish::default()).await;
    let import =
        vec!["import-space".to_owned(), "--space".to_owned(), "default".to_owned(), to.display().to_string()];
    let (done, said) = run_cli(import, vec![("DATABASE_URL", third.app.db.url())]).await;
    assert!(!done && said.contains("events.ndjson is not what the manifest says"), "{said}");
}

#[tokio::test]
async fn a_space_is_exported_whole() {
    let receiver = Receiver::start().await;
    let case = busy(&receiver).await;
    let read = export(&case.app, &format!("{SPACE}/export")).await;
    assert_eq!((&read.manifest["kind"], &read.manifest["space"]), (&json!("space"), &json!("default")));
    assert_eq!(read.rows("profiles").len(), 3, "two people and an account");
    assert_eq!((read.rows("events").len(), read.rows("acts").len()), (7, 1));
    let offsets: Vec<u64> = read.rows("events").iter().map(|e| e["offset"].as_u64().unwrap()).collect();
    assert!(offsets.is_sorted());
    assert_eq!(read.rows("acts")[0]["act"]["act"], "merge_profiles");
    for (file, rows) in [("merges", 1), ("links", 1), ("transitions", 1), ("definition", 1), ("source", 1)] {
        assert_eq!(read.rows(file).len(), rows, "{file}");
    }
    assert!(!read.rows("deliveries").is_empty());
    let text = case.app.get(&format!("{SPACE}/export")).await.text;
    assert!(!text.contains("wk_of_the_tests"), "no key is in it");
}
