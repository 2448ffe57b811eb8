//! The commands, as a process.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::app::{TOKEN, TestApp};
use crate::harness::cluster::TestDb;

fn personas(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_personas"));
    let inherited = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("PERSONAS_"));
    command.args(arguments).env_clear().envs(inherited).env_remove("DATABASE_URL");
    command.current_dir(env!("CARGO_TARGET_TMPDIR"));
    command
}

/// Standard output, standard error, exit code.
fn run(mut command: Command) -> (String, String, i32) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

#[test]
fn openapi_prints_the_committed_description() {
    let (out, _, code) = run(personas(&["openapi"]));
    assert_eq!(code, 0);
    assert!(out == include_str!("../../docs/openapi.json"), "docs/openapi.json is out of date");
}

#[test]
fn a_bad_configuration_is_told_whole_and_ends_with_78() {
    for command in ["serve", "migrate"] {
        let mut command = personas(&[command]);
        command.env("PERSONAS_SERVER_MAX_CONNECTIONS", "many").env("PERSONAS_INGEST_BODY_BYTES_MAX", "0");
        let (_, error, code) = run(command);
        assert_eq!(code, 78, "{error}");
        assert!(
            error.contains("server.max_connections") && error.contains("ingest.body_bytes_max"),
            "{error}"
        );
    }
    let (_, error, code) = run(personas(&["serve", "--test-clock", "noon"]));
    assert_eq!(code, 2);
    assert!(error.contains("2024-03-01T12:00:00Z"), "{error}");
}

#[tokio::test]
async fn serve_says_where_it_is_and_what_it_made_and_stops_when_asked() {
    let db = TestDb::new().await;
    let mut first = personas(&["serve", "--listen", "127.0.0.1:0"]);
    first.env("DATABASE_URL", db.url()).env("PERSONAS_SERVER_SHUTDOWN_GRACE_MS", "1000");
    let mut child = first.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let address = lines.next().unwrap();
    assert!(address.contains("listens on http://127.0.0.1:"), "{address}");
    let said: Vec<String> = lines.by_ref().take(5).collect();
    assert!(said[0].contains("space") && said[0].ends_with("default"), "{said:?}");
    assert!(
        said[1].contains("write key") && said[2].contains("token") && said[4].contains("curl"),
        "{said:?}"
    );
    let curl = said[4].trim().replace("curl ", "curl -s ");
    let answer = Command::new("sh").args(["-c", &curl]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout), r#"{"success":true}"#, "{curl}");

    let doctor = {
        let mut doctor = personas(&["doctor"]);
        doctor.env("DATABASE_URL", db.url());
        run(doctor)
    };
    assert_eq!(doctor.2, 0, "{doctor:?}");
    for what in ["configuration", "database", "schema", "clock"] {
        assert!(doctor.0.contains(what), "{what}: {}", doctor.0);
    }

    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let status = tokio::time::timeout(Duration::from_secs(20), status).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn demo_makes_a_shop_whose_three_audiences_fill() {
    let app = TestApp::start().await;
    let url = app.url.clone();
    let demo = tokio::task::spawn_blocking(move || {
        let mut demo = personas(&["demo", "--seconds", "1", "--token", TOKEN]);
        demo.env("PERSONAS_URL", url);
        run(demo)
    });
    let (out, error, code) = demo.await.unwrap();
    assert_eq!(code, 0, "{error}");
    assert!(out.starts_with("Space `demo` is made"), "{out}");
    let sizes = app.get("/v1/spaces/demo/audiences/sizes").await.expect(200).json;
    let sizes: Vec<i64> =
        sizes["data"].as_array().unwrap().iter().map(|s| s["size"].as_i64().unwrap()).collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size > 0), "{sizes:?}");
}

#[tokio::test]
async fn migrate_and_doctor_say_what_they_find() {
    let db = TestDb::new().await;
    let mut migrate = personas(&["migrate"]);
    migrate.env("DATABASE_URL", db.url());
    let (out, error, code) = run(migrate);
    assert_eq!((code, out.starts_with("the schema is at version")), (0, true), "{error}");
    let newest = "UPDATE _sqlx_migrations SET version = 99999999999999
         WHERE version = (SELECT max(version) FROM _sqlx_migrations)";
    sqlx::query(newest).execute(&db.pool).await.unwrap();
    for (url, what) in
        [(db.url(), "newer than this build"), ("postgres://127.0.0.1:1/x".to_owned(), "WRONG database")]
    {
        let mut doctor = personas(&["doctor"]);
        doctor.env("DATABASE_URL", url).env("PERSONAS_DATABASE_ACQUIRE_TIMEOUT_MS", "500");
        let (out, _, code) = run(doctor);
        assert_eq!(code, 1, "{out}");
        assert!(out.contains(what), "{out}");
    }
}

#[test]
fn doctor_looks_at_a_new_data_folder_without_making_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut doctor = personas(&["doctor"]);
    doctor.env("PERSONAS_DATA_DIR", &data).env("PERSONAS_INGEST_DISK_FREE_BYTES_MIN", "1");
    let (out, _, code) = run(doctor);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("is made by the first start") && out.contains("binaries of"), "{out}");
    assert!(!data.exists());
}
