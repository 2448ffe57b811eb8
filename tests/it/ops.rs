//! Dashboards and alerts use metrics that there are, and every alert has its runbook.

use std::collections::BTreeSet;
use std::fs;

use personas::telemetry::metrics::{self, Kind};
use regex::Regex;

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// All names by which metrics can be asked for.
fn known() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for listed in metrics::ALL {
        match listed.kind {
            Kind::Histogram => {
                known.extend(["bucket", "count", "sum"].map(|part| format!("{}_{part}", listed.name)));
            }
            Kind::Counter | Kind::Gauge => {
                known.insert(listed.name.to_owned());
            }
        }
    }
    known
}

#[test]
fn dashboards_and_alerts_use_metrics_that_there_are() {
    let known = known();
    let name = Regex::new("personas_[a-z0-9_]+").unwrap();
    let mut used = 0;
    for path in ["ops/grafana/personas.json", "ops/prometheus/alerts.yml", "ops/prometheus/alerts.test.yml"] {
        for found in name.find_iter(&read(path)) {
            assert!(known.contains(found.as_str()), "{path}: {}", found.as_str());
            used += 1;
        }
    }
    assert!(used > 60, "{used}");
    serde_json::from_str::<serde_json::Value>(&read("ops/grafana/personas.json")).unwrap();
}

/// An alert that nobody can act on wakes somebody for nothing.
#[test]
fn every_alert_has_its_runbook() {
    let found = |pattern: &str, text: &str| -> BTreeSet<String> {
        Regex::new(pattern).unwrap().captures_iter(text).map(|found| found[1].to_lowercase()).collect()
    };
    let (alerts, books) = (read("ops/prometheus/alerts.yml"), read("docs/runbooks.md"));
    let names = found(r"- alert: (\w+)", &alerts);
    assert!(names.len() > 10);
    assert_eq!(names, found(r"docs/runbooks\.md#(\w+)", &alerts));
    assert_eq!(names, found(r"(?m)^## (\w+)$", &books));
    for named in found(r"`(personas_[a-z_]+)`", &books) {
        assert!(metrics::ALL.iter().any(|listed| listed.name == named), "{named}");
    }
}
