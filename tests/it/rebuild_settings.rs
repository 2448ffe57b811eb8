//! `personas rebuild` with other settings than history was resolved by: those that were changed, and those that are only
//! tried.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::people::{PROFILES, SETTINGS};
use crate::harness::random_log::start;
use crate::harness::rebuild::{assert_same, dump, expect_same, json_of, run, wait};
use crate::rebuild::{
    block_device, expect_consistent, long, send_all, shared_device, slowly, until_behind, who,
};

#[tokio::test]
async fn a_dry_run_changes_nothing_and_says_the_same() {
    let app = shared_device().await;
    block_device(&app).await;
    let before = dump(&app.db.pool).await;
    let dry = json_of(&run(&app.db, &["--json", "--dry-run"]).await);
    assert_same(&before, &dump(&app.db.pool).await);
    let left: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM rebuild) + (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'rebuild%')",
    )
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    assert_eq!(left, 0);
    let mut done = json_of(&run(&app.db, &["--json"]).await);
    assert!(done["swap"]["rows"].as_u64().unwrap() > 0, "{done}");
    done["swap"] = Value::Null;
    assert_eq!(dry, done);
    assert_eq!(dry["only_rebuilt"]["count"], 1, "{dry}");
    let said = run(&app.db, &["--dry-run"]).await;
    assert!(said.report.contains("nothing anybody sees is different"), "{}", said.report);
}

#[tokio::test]
async fn a_value_that_is_blocked_now_merges_nobody_in_history() {
    let app = shared_device().await;
    assert_eq!(who(&app, "anonymous_id:a1").await, who(&app, "user_id:u1").await);
    block_device(&app).await;
    json_of(&run(&app.db, &["--json"]).await);
    assert_ne!(who(&app, "anonymous_id:a1").await, who(&app, "user_id:u1").await);
    assert_eq!(who(&app, "anonymous_id:a2").await, who(&app, "user_id:u1").await);
    let identity = app.get(&format!("{PROFILES}/user_id:u1/identity")).await.expect(200).json;
    assert_eq!(identity["merges"].as_array().unwrap().len(), 1, "{identity}");
    // The device's owner is gone, and nobody finds it.
    app.get(&format!("{PROFILES}/ios.id:shared/metadata")).await.expect(404);
    expect_consistent(&app).await;
    expect_same(&app.db).await;
}

#[tokio::test]
async fn a_limit_that_is_lower_now_takes_people_apart_and_transitions_stay_in_turn() {
    let app = start().await;
    app.make_live("audiences", "buyers", "event('Bought').count() >= 1").await;
    app.make_live("audiences", "thrifty", "event('Bought').count() < 2").await;
    let bought = |user: &str, email: &str| json!({"type": "identify", "userId": user, "traits": {"email": email}, "messageId": format!("{user}{email}")});
    let track = |id: Value| {
        let mut call = json!({"type": "track", "event": "Bought"});
        call.as_object_mut().unwrap().extend(id.as_object().unwrap().clone());
        call
    };
    // Two are one by an anonymous id: allowed at first, as an anonymous id may be of many emails.
    app.patch(SETTINGS, json!({"identifiers": [{"type": "email", "limit": 5}]})).await.expect(200);
    app.make_live("audiences", "reloaded", "event('Never').count() >= 1").await;
    let calls = [
        bought("u1", "one@x.y"),
        track(json!({"userId": "u1"})),
        json!({"type": "identify", "anonymousId": "a1", "traits": {"email": "two@x.y"}}),
        track(json!({"anonymousId": "a1"})),
        json!({"type": "track", "event": "Seen", "anonymousId": "a1", "userId": "u1"}),
    ];
    send_all(&app, &calls).await;
    assert_eq!(who(&app, "email:one@x.y").await, who(&app, "email:two@x.y").await);
    app.patch(SETTINGS, json!({"identifiers": [{"type": "email", "limit": 1}]})).await.expect(200);
    let report = json_of(&run(&app.db, &["--json"]).await);
    assert_ne!(who(&app, "email:one@x.y").await, who(&app, "email:two@x.y").await);
    let thrifty = report["audiences"].as_array().unwrap().iter().find(|a| a["key"] == "thrifty").unwrap();
    assert_eq!(thrifty["entered"], 2, "{report}");
    expect_consistent(&app).await;
    expect_same(&app.db).await;
    send_all(&app, &[track(json!({"userId": "u1"}))]).await;
    expect_consistent(&app).await;
}

/// A change of settings in a file.
struct Change(PathBuf);

impl Change {
    fn new(name: &str, text: &str) -> Self {
        let path =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{}.json", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn settings_are_tried_over_all_of_history_and_change_nothing() {
    let app = shared_device().await;
    let settings = app.get(SETTINGS).await.expect(200).json;
    let before = dump(&app.db.pool).await;
    let change = json!({
        "identifiers": [
            {"type": "ios.id", "blocked": {"exact": ["shared"], "patterns": []}},
            {"type": "card", "keys": ["card"], "limit": 1},
        ],
        "remove": ["android.push_token"],
        "merges_max": 50,
    });
    let file = Change::new("tried", &change.to_string());
    let dry = json_of(&run(&app.db, &["--json", "--dry-run", "--settings", file.path()]).await);
    assert_eq!(app.get(SETTINGS).await.expect(200).json, settings);
    assert_same(&before, &dump(&app.db.pool).await);
    let said = run(&app.db, &["--dry-run"]).await;
    assert!(said.report.contains("nothing anybody sees is different"), "{}", said.report);
    // What it says is what happens.
    app.patch(SETTINGS, change).await.expect(200);
    let mut done = json_of(&run(&app.db, &["--json"]).await);
    done["swap"] = Value::Null;
    assert_eq!(dry, done);
    assert_eq!(dry["only_rebuilt"]["count"], 1, "{dry}");
}

#[tokio::test]
async fn a_trial_that_was_broken_off_is_gone_on_with_by_none_but_its_own_settings() {
    let app = long(16).await;
    let before = dump(&app.db.pool).await;
    let tight = json!({"identifiers": [{"type": "email", "limit": 1}, {"type": "anonymous_id", "limit": 1}]});
    let (tight, other) = (tight.to_string(), json!({"merges_max": 0}).to_string());
    let (tight, other) = (Change::new("tight", &tight), Change::new("other", &other));
    let trial = |change: &Change| ["--dry-run", "--json", "--settings", change.path()].map(str::to_owned);
    let break_off = async |change: &Change| {
        let arguments = trial(change);
        let mut child = slowly(&app.db, &arguments.each_ref().map(String::as_str)).spawn().unwrap();
        until_behind(&app.db, 100).await;
        child.kill().unwrap();
        wait(child).await;
    };
    let whole = json_of(&run(&app.db, &trial(&tight).each_ref().map(String::as_str)).await);
    assert!(whole["different"]["identifiers"]["count"].as_i64().unwrap() > 0, "{whole}");
    break_off(&tight).await;
    let said = run(&app.db, &trial(&tight).each_ref().map(String::as_str)).await;
    assert!(said.progress.contains("goes on behind event"), "{}", said.progress);
    assert_eq!(json_of(&said), whole);
    break_off(&tight).await;
    let said = run(&app.db, &trial(&other).each_ref().map(String::as_str)).await;
    assert!(!said.progress.contains("goes on"), "{}", said.progress);
    // Those that operators made are left.
    let merges = |report: &Value| report["merges_rebuilt"].as_i64().unwrap();
    assert!(merges(&json_of(&said)) < merges(&whole), "{}", said.report);
    break_off(&other).await;
    assert_same(&before, &dump(&app.db.pool).await);
    expect_same(&app.db).await;
}

#[tokio::test]
async fn what_cannot_be_tried_is_refused_with_its_reason() {
    let app = shared_device().await;
    let tried = async |arguments: &[&str], text: &str| {
        let file = Change::new(&format!("wrong{}", text.len()), text);
        let mut all = arguments.to_vec();
        all.extend(["--settings", file.path()]);
        run(&app.db, &all).await
    };
    let said = tried(&[], "{}").await;
    assert_eq!(said.code, 2, "only tried: {}", said.progress);
    assert!(said.progress.contains("--dry-run"), "{}", said.progress);
    for (text, code, words) in [
        ("{}", 78, "name what is to be changed"),
        ("[", 1, "is no change of identity settings"),
        (r#"{"merge_max": 1}"#, 1, "unknown field `merge_max`"),
        (r#"{"merges_max": -1}"#, 78, "merges_max is -1"),
        (r#"{"version": 999, "merges_max": 1}"#, 1, "999"),
        (r#"{"remove": ["ios.id"]}"#, 1, "ios.id"),
    ] {
        let said = tried(&["--dry-run"], text).await;
        assert_eq!(said.code, code, "{text}: {}", said.progress);
        assert!(said.progress.contains(words), "{text}: {}", said.progress);
    }
    let said = run(&app.db, &["--dry-run", "--settings", "/nowhere.json"]).await;
    assert!(said.code == 1 && said.progress.contains("/nowhere.json"), "{}", said.progress);
}
