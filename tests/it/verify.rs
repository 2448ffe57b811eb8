//! `personas verify`: the log, folded again, says what is stored; and damage is found.

use std::process::Command;

use serde_json::json;

use crate::harness::app::{TestApp, Wish};
use crate::harness::cluster::TestDb;

const NOW: &str = "2024-03-01T12:00:00.000Z";

/// What `personas verify` says, and its exit code.
pub(crate) fn verify(db: &TestDb, arguments: &[&str]) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_personas"));
    let inherited = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("PERSONAS_"));
    command.arg("verify").args(arguments).env_clear().envs(inherited).env("DATABASE_URL", db.url());
    let output = command.current_dir(env!("CARGO_TARGET_TMPDIR")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (text, output.status.code().unwrap())
}

/// Many kinds of definition, and events late, twice, merged and removed.
async fn busy() -> TestApp {
    let app = Wish::default().at(NOW).start().await;
    for (key, query) in [
        ("fresh", "event('Bought').within(1 hour).count() >= 1"),
        (
            "abandoned",
            "event('Viewed').where(event('Bought').within(parent: 1 hour).count() = 0).count() >= 1",
        ),
        ("loyal", "trait('plan').held_for(2 hours)"),
        ("rich", "trait('spent') > 20 AND NOT audience('fresh')"),
    ] {
        if key == "rich" {
            app.make_live("computed-traits", "spent", "event('Bought').sum(property('total'))").await;
        }
        app.make_live("audiences", key, query).await;
    }
    let mut batch = Vec::new();
    for n in 0..60 {
        let at = format!("2024-03-01T{:02}:{:02}:00Z", 8 + n % 4, n % 60);
        let user = format!("u{}", n % 7);
        let who =
            if n % 5 == 0 { json!({"anonymousId": format!("a{}", n % 3)}) } else { json!({"userId": user}) };
        let mut call = match n % 4 {
            0 => {
                json!({"type": "identify", "traits": {"plan": if n % 8 == 0 { "pro" } else { "free" }, "old": null}})
            }
            1 => json!({"type": "track", "event": "Viewed"}),
            _ => json!({"type": "track", "event": "Bought", "properties": {"total": n}}),
        };
        call["timestamp"] = at.into();
        call["messageId"] = format!("m{}", n - n % 2 * (n % 3 / 2)).into();
        for (name, value) in who.as_object().unwrap() {
            call[name] = value.clone();
        }
        batch.push(call);
    }
    batch.push(json!({"type": "identify", "userId": "u1", "anonymousId": "a1"}));
    batch.push(json!({"type": "identify", "userId": "u2", "anonymousId": "a2"}));
    batch.push(json!({"type": "group", "userId": "u1", "groupId": "g", "traits": {"seats": 3}}));
    let half = batch.split_off(30);
    app.track("/v1/batch", json!({"batch": batch})).await.expect(200);
    let recent = json!({"key": "recent", "definition": {"query": "event('Bought').count() >= 3"},
        "options": {"include_historical_data": false, "include_anonymous": true}});
    app.make_live_from("audiences", "recent", recent).await;
    app.put("/v1/test-clock", json!({"now": "2024-03-01T12:20:00.000Z"})).await.expect(200);
    let offset = app.track("/v1/batch", json!({"batch": half})).await.expect(200).offset();
    app.get(&format!("/v1/spaces/default/pipeline?min_offset={offset}")).await.expect(200);
    app.put("/v1/test-clock", json!({"now": "2024-03-01T12:40:00.000Z"})).await.expect(200);
    app
}

#[tokio::test]
async fn what_is_stored_is_what_the_log_says() {
    let app = busy().await;
    let (said, code) = verify(&app.db, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.starts_with("default: 9 profiles, ") && said.contains(" values compared, 0 differ"),
        "{said}"
    );
    let (said, code) = verify(&app.db, &["--space", "default", "--sample", "4"]);
    assert_eq!(code, 0, "{said}");
    let (said, code) = verify(&app.db, &["--space", "nowhere"]);
    assert_eq!((said.trim(), code), ("personas: there is no space nowhere", 1));
}

#[tokio::test]
async fn damage_is_found_and_told() {
    let app = busy().await;
    app.running.stop(std::time::Duration::from_secs(10)).await.unwrap();
    for (damage, told) in [
        ("UPDATE computation SET size = size + 1 WHERE computation_no = 1", "the size of fresh"),
        ("UPDATE processor SET users = users + 1", "the number of users"),
        ("DELETE FROM membership WHERE computation_no = 1", "is listed as a member of fresh"),
        ("UPDATE membership SET entered_at = entered_at - interval '1 s'", "since when prf_"),
        ("UPDATE computation SET query = replace(query, 'sum', 'max')", "spent of prf_"),
        (
            "UPDATE chunk_outcome SET numbers = decode(repeat('00', octet_length(numbers)), 'hex')",
            "trait \"plan\" of prf_",
        ),
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(damage)).execute(&app.db.pool).await.unwrap();
        let (said, code) = verify(&app.db, &[]);
        assert_eq!(code, 1, "{damage}: {said}");
        assert!(said.contains(told), "{damage}: {said}");
    }
}

#[tokio::test]
async fn in_the_background_it_counts_what_it_has_compared() {
    let wish = Wish::default().option("verify.sample", "100").option("verify.every_seconds", "1");
    let app = wish.start().await;
    app.make_live("audiences", "buyers", "event('Bought').count() >= 1").await;
    app.track("/v1/track", json!({"userId": "u", "event": "Bought"})).await.expect(200);
    let value = async |name: &str| {
        let text = app.get("/metrics").await.expect(200).text;
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    while value("personas_verify_checked_total").await.unwrap_or(0.0) < 1.0 {
        tokio::task::yield_now().await;
    }
    let mismatched = value("personas_verify_mismatched_total").await.unwrap_or(0.0);
    assert!(mismatched < 1.0, "{mismatched}");
}
