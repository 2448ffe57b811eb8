//! The metrics: named by the rules, listed in the documentation, rendered for Prometheus.

use std::{collections::BTreeSet, fmt::Write, path::Path, time::Duration};

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
    metrics::DB_TRANSACTION_DURATION.time(&["test"], Duration::from_millis(3));
    let text = metrics::render();
    for wanted in [
        "# TYPE personas_ingest_events_rejected_total counter",
        "personas_ingest_events_rejected_total{reason=\"too_large\"} 3",
        "personas_db_pool_connections{state=\"test\"} 7",
        "personas_db_transaction_duration_seconds_bucket{transaction=\"test\",le=\"0.005\"} 1",
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
