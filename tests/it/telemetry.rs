//! The metrics: named by the rules, listed in the documentation, rendered for Prometheus.

use std::{collections::BTreeSet, fmt::Write, path::Path, time::Duration};

use personas::store::processor::backlog;
use personas::telemetry::metrics::{self, Kind, Listed};

#[test]
fn names_follow_the_rules() {
    let mut seen = BTreeSet::new();
    for Listed { name, kind, help, .. } in metrics::ALL {
        assert!(name.starts_with("personas_"), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert!(help.ends_with('.'), "{name}: {help}");
        assert!(seen.insert(name), "{name} is there twice");
    }
}

#[test]
fn what_is_recorded_is_rendered() {
    metrics::install();
    metrics::install();
    metrics::INGEST_REJECTED.add(&["too_large"], 3);
    // Labels of its own: other tests of this process record too.
    metrics::DB_POOL.set(&["test"], 7.0);
    metrics::HTTP_REQUEST_DURATION.time(&["test"], Duration::from_millis(3));
    let text = metrics::render();
    for wanted in [
        "# TYPE personas_ingest_events_rejected_total counter",
        "personas_ingest_events_rejected_total{reason=\"too_large\"} 3",
        "personas_db_pool_connections{state=\"test\"} 7",
        "personas_http_request_duration_seconds_bucket{route=\"test\",le=\"0.005\"} 1",
        "# HELP personas_build_info Always 1",
        concat!("personas_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.contains(wanted), "{wanted}:\n{text}");
    }
}

#[test]
fn the_list_is_up_to_date() {
    let mut page = String::from(
        "# Metrics\n\n<!-- made from src/telemetry/metrics.rs by `make generate` -->\n\n\
         `GET /metrics` answers in the Prometheus text format. Labels come from closed sets and never carry ids.\n\n\
         | Metric | Kind | Labels | What it says |\n|---|---|---|---|\n",
    );
    for Listed { name, kind, labels, help } in metrics::ALL {
        let kind = format!("{kind:?}").to_lowercase();
        writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
    }
    crate::harness::generated::check(Path::new("docs/metrics.md"), &page);
}

/// What is listed is also recorded somewhere: an operator who watches a metric that nobody moves watches nothing.
#[test]
fn every_metric_is_recorded() {
    let list = std::fs::read_to_string("src/telemetry/metrics.rs").unwrap();
    let kinds = [": Counter = ", ": Gauge = ", ": Histogram = "];
    let names = list.lines().filter_map(|line| {
        let (name, _) = kinds.iter().find_map(|kind| line.trim().split_once(kind))?;
        Some(name.to_owned())
    });
    let names: Vec<String> = names.collect();
    assert_eq!(names.len(), metrics::ALL.len());
    let mut code = String::new();
    let mut folders = vec![std::path::PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                code.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let is_recorded = |name: &&String| {
        ["add", "set", "change", "record", "time"].iter().any(|how| code.contains(&format!("{name}.{how}(")))
    };
    let idle: Vec<&String> = names.iter().filter(|name| !is_recorded(name)).collect();
    assert!(idle.is_empty(), "nobody records {idle:?}");
}

#[tokio::test]
async fn what_waits_in_the_log_is_measured() {
    let app = crate::harness::app::TestApp::start().await;
    let hold = "UPDATE processor SET epoch = epoch + 1, lease_until = $1::timestamptz";
    sqlx::query(hold).bind("infinity").execute(&app.db.pool).await.unwrap();
    let empty = backlog(&app.db.pool).await.unwrap();
    assert_eq!((empty.events, empty.oldest, empty.profiles), (0, None, 0));
    let call = |n: u64| serde_json::json!({"userId": format!("u{n}"), "event": "Seen"});
    app.track("/v1/track", call(1)).await.expect(200);
    let offset = app.track("/v1/track", call(2)).await.expect(200).offset();
    let waiting = backlog(&app.db.pool).await.unwrap();
    assert_eq!((waiting.events, waiting.oldest.is_some(), waiting.profiles), (2, true, 0));
    sqlx::query(hold).bind("-infinity").execute(&app.db.pool).await.unwrap();
    app.get(&format!("/v1/spaces/default/audiences/sizes?min_offset={offset}")).await.expect(200);
    let done = backlog(&app.db.pool).await.unwrap();
    assert_eq!((done.events, done.oldest, done.profiles), (0, None, 2));
}
