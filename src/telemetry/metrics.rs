//! Every metric: its name, unit, labels and help, and how to record and render it.
//!
//! Guarantees: nothing is recorded under a name that is not listed here ([`ALL`]), labels come from closed sets and
//! never carry ids, units are the base ones and part of the name (`_seconds`, `_bytes`, `_total` for counters).

use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

use hashbrown::HashTable;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a metric is, for the list in the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A metric as it is listed.
#[derive(Debug, Clone, Copy)]
pub struct Listed {
    /// Its whole name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// Label values in the order of the names that are listed, always from a closed set: routes, reasons, stages.
type Values<'a> = &'a [&'a str];

/// The recorders of a metric that were used so far. Finding one in the registry costs more than most of what is
/// measured, so each is found there once.
#[derive(Debug)]
struct Recorders<R> {
    unlabelled: OnceLock<R>,
    labelled: RwLock<HashTable<(Vec<String>, R)>>,
}

impl<R: Clone> Recorders<R> {
    const fn new() -> Self {
        Self { unlabelled: OnceLock::new(), labelled: RwLock::new(HashTable::new()) }
    }

    /// The recorder for these values of the metric's labels; none as long as nothing is installed.
    fn get(&self, of: &Listed, values: Values<'_>, find: impl FnOnce(Vec<metrics::Label>) -> R) -> Option<R> {
        debug_assert_eq!(of.labels.len(), values.len(), "labels of {}", of.name);
        if !INSTALLED.get().is_some_and(Option::is_some) {
            return None;
        }
        if values.is_empty() {
            return Some(self.unlabelled.get_or_init(|| find(Vec::new())).clone());
        }
        let hash = |values: &mut dyn Iterator<Item = &str>| {
            values.fold(0, |hash, value| xxh3_64_with_seed(value.as_bytes(), hash))
        };
        let wanted = hash(&mut values.iter().copied());
        let same = |(known, _): &(Vec<String>, R)| known.iter().eq(values);
        let known = self.labelled.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, recorder)) = known.find(wanted, same) {
            return Some(recorder.clone());
        }
        drop(known);
        let labels = of.labels.iter().zip(values);
        let recorder =
            find(labels.map(|(name, value)| metrics::Label::new(*name, (*value).to_owned())).collect());
        let entry = (values.iter().map(|value| (*value).to_owned()).collect(), recorder.clone());
        let mut known = self.labelled.write().unwrap_or_else(PoisonError::into_inner);
        known.insert_unique(wanted, entry, |(values, _)| hash(&mut values.iter().map(String::as_str)));
        Some(recorder)
    }
}

macro_rules! metric {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            listed: Listed,
            recorders: Recorders<metrics::$name>,
        }

        impl $name {
            const fn new(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
                let listed = Listed { name, kind: Kind::$kind, labels, help };
                Self { listed, recorders: Recorders::new() }
            }
        }
    };
}

metric!(
    /// A metric that only goes up.
    Counter, Counter
);
metric!(
    /// A metric that goes up and down.
    Gauge, Gauge
);
metric!(
    /// A distribution, in buckets.
    Histogram, Histogram
);

#[expect(clippy::disallowed_macros, reason = "this is where metrics are recorded for everybody else")]
impl Counter {
    /// Adds to it. `values` are those of its labels, in the order they are listed.
    pub fn add(&self, values: Values<'_>, count: u64) {
        let find = |labels| metrics::counter!(self.listed.name, labels);
        if let Some(recorder) = self.recorders.get(&self.listed, values, find) {
            recorder.increment(count);
        }
    }
}

impl Gauge {
    /// Sets it.
    pub fn set(&self, values: Values<'_>, value: f64) {
        if let Some(recorder) = self.recorder(values) {
            recorder.set(value);
        }
    }

    /// Moves it up, or down with a negative number.
    pub fn change(&self, values: Values<'_>, by: f64) {
        if let Some(recorder) = self.recorder(values) {
            recorder.increment(by);
        }
    }

    #[expect(clippy::disallowed_macros, reason = "this is where metrics are recorded for everybody else")]
    fn recorder(&self, values: Values<'_>) -> Option<metrics::Gauge> {
        self.recorders.get(&self.listed, values, |labels| metrics::gauge!(self.listed.name, labels))
    }
}

#[expect(clippy::disallowed_macros, reason = "this is where metrics are recorded for everybody else")]
impl Histogram {
    /// Records one value.
    pub fn record(&self, values: Values<'_>, value: f64) {
        let find = |labels| metrics::histogram!(self.listed.name, labels);
        if let Some(recorder) = self.recorders.get(&self.listed, values, find) {
            recorder.record(value);
        }
    }

    /// Records how long something took, in seconds.
    pub fn time(&self, values: Values<'_>, took: Duration) {
        self.record(values, took.as_secs_f64());
    }
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident = $name:literal, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: $kind = $kind::new($name, &[$($label),*], $help);
        )*

        /// Every metric there is.
        pub static ALL: &[&Listed] = &[$(&$constant.listed),*];
    };
}

metrics! {
    HTTP_REQUESTS: Counter = "personas_http_requests_total", ["route", "method", "status"], "Requests answered.";
    HTTP_REQUEST_DURATION: Histogram = "personas_http_request_duration_seconds", ["route"],
        "Time from a request's head to the end of its answer.";
    HTTP_IN_FLIGHT: Gauge = "personas_http_requests_in_flight", [], "Requests being answered.";
    HTTP_CONNECTIONS: Gauge = "personas_http_connections", [], "Open connections.";
    HTTP_REQUEST_BODY: Histogram = "personas_http_request_body_bytes", [], "Size of request bodies as sent.";
    HTTP_REJECTED: Counter = "personas_http_rejected_total", ["reason"],
        "Requests refused before a handler saw them: too large, too slow, overloaded.";

    INGEST_RECEIVED: Counter = "personas_ingest_events_received_total", ["type"], "Events received, by call.";
    INGEST_ACCEPTED: Counter = "personas_ingest_events_accepted_total", [],
        "Events committed to the log and acknowledged.";
    INGEST_KEPT_OUT: Counter = "personas_ingest_kept_out_total", ["reason"],
        "Events that were not stored because of whose they are: of people who are suppressed (`suppressed`), or who were erased since they happened (`erased`).";
    INGEST_MENDED: Counter = "personas_ingest_mended_total", ["what"],
        "Events with U+0000 or lone surrogates, which were mended (`event`), and bodies that were JSON only after a tolerant pass (`body`).";
    INGEST_REJECTED: Counter = "personas_ingest_events_rejected_total", ["reason"], "Events refused.";
    INGEST_SENSITIVE: Counter = "personas_ingest_sensitive_total", ["what", "action"],
        "Places in events where sensitive data was found: a category or `pattern`, and what became of it.";
    AUDIT_LOST: Counter = "personas_audit_reads_lost_total", [],
        "Reads of personal data that are not in the audit log: the database was away for too long.";
    INGEST_UNLISTED: Counter = "personas_ingest_rejected_unlisted_total", ["reason"],
        "Refused events and bodies that are not in the rejected-event list: too many of one source, or not written.";
    INGEST_SHED: Counter = "personas_ingest_shed_total", ["reason"],
        "Requests answered 503 to keep memory, the queue or the disk within limits, or 429 over a source's rate.";
    INGEST_IN_FLIGHT: Gauge = "personas_ingest_inflight_bytes", [], "Bodies held in memory.";
    INGEST_ACK_DURATION: Histogram = "personas_ingest_ack_duration_seconds", [],
        "Time from a tracking call's body to the commit of its events.";
    INGEST_BATCH_SIZE: Histogram = "personas_ingest_batch_size", [], "Events committed to the log at once.";

    PIPELINE_LAG_EVENTS: Gauge = "personas_pipeline_lag_events", [], "Events in the log not yet processed, of all spaces.";
    PIPELINE_LAG: Gauge = "personas_pipeline_lag_seconds", [], "Age of the oldest event not yet processed, of all spaces.";
    PIPELINE_BATCH_DURATION: Histogram = "personas_pipeline_batch_duration_seconds", ["stage"],
        "Time one micro-batch took, by stage: `read`, `compute`, `wait` for the one before, `write`, `commit`; `batch` is all of it.";
    PIPELINE_BATCH_SIZE: Histogram = "personas_pipeline_batch_size", [], "Events in one micro-batch.";
    PIPELINE_EVENTS: Counter = "personas_pipeline_events_total", [], "Events processed.";
    PIPELINE_DUPLICATES: Counter = "personas_pipeline_duplicates_total", [],
        "Events dropped because their message id had been processed.";
    SEGMENTS_MADE: Counter = "personas_log_segments_made_total", [],
        "Stretches of the log written once more by name and column, for scans.";
    LEASE_EPOCH: Gauge = "personas_lease_epoch", [], "Highest epoch of the leases this process holds.";
    LEASES_HELD: Gauge = "personas_leases_held", [], "Spaces this process works on.";
    FENCED_COMMITS: Counter = "personas_fenced_commits_total", [],
        "Micro-batches rolled back because another process had taken over.";

    PROFILES: Gauge = "personas_profiles", [], "Live profiles of all spaces.";
    PROFILES_CREATED: Counter = "personas_profiles_created_total", [], "Profiles created.";
    IDENTITY_QUARANTINED: Gauge = "personas_identity_quarantined_ids", [],
        "Identifier values in quarantine, of all spaces.";
    IDENTITY_MERGES: Counter = "personas_identity_merges_total", [], "Profiles merged into another one.";

    AUDIENCE_TRANSITIONS: Counter = "personas_audience_transitions_total", ["direction"],
        "Profiles that entered or left an audience.";
    AUDIENCE_BACKFILLS: Gauge = "personas_audience_backfills", [], "Definitions being computed over history.";

    DELIVERY_ATTEMPTS: Counter = "personas_delivery_attempts_total", ["outcome"],
        "Changes sent to destinations, by what became of them: `delivered`, `retry`, `rejected`, `gone`.";
    DELIVERY_DURATION: Histogram = "personas_delivery_duration_seconds", [], "Time one request to a destination took.";
    DELIVERY_BACKLOG: Gauge = "personas_delivery_backlog", [], "Changes that wait to be sent, of all destinations.";
    DELIVERY_OLDEST: Gauge = "personas_delivery_oldest_pending_seconds", [],
        "Age of the oldest change that waits to be sent, of all destinations.";
    DELIVERY_BLOCKED: Counter = "personas_delivery_ssrf_blocked_total", [],
        "Requests to destinations that were not made because they lead into the network of the service itself.";
    DESTINATIONS: Gauge = "personas_destinations", ["state"],
        "Destinations by state: `connected`, `paused` by an operator, `failing`: paused by the service.";
    DEAD_LETTERS: Gauge = "personas_dead_letters", [], "Changes that were given up and can be sent again.";
    DEAD_LETTERS_TOTAL: Counter = "personas_dead_letters_total", [], "Changes that were given up.";
    DEAD_LETTERS_REPLAYED: Counter = "personas_dead_letter_replayed_total", [],
        "Deliveries that were put into the queue once more by operators.";

    VERIFIED: Counter = "personas_verify_checked_total", [],
        "Traits, outcomes and memberships made again from the log and compared.";
    VERIFY_MISMATCHES: Counter = "personas_verify_mismatched_total", [],
        "Those of them that differed from what is stored; each is a bug or damage.";

    READ_CACHE_HITS: Counter = "personas_read_cache_hits_total", [], "Profile look-ups answered from memory.";
    READ_CACHE_MISSES: Counter = "personas_read_cache_misses_total", [],
        "Profile look-ups that had to ask the database, while the read cache is on.";
    READ_CACHE_BYTES: Gauge = "personas_read_cache_bytes", [], "Profiles kept in memory for reads.";

    DB_ERRORS: Counter = "personas_db_errors_total", ["class"], "Failed database operations, by class of SQLSTATE.";
    DB_POOL: Gauge = "personas_db_pool_connections", ["state"], "Connections of the pool.";
    DISK_FREE: Gauge = "personas_disk_free_bytes", [], "Free space where the private Postgres keeps its data.";

    BUILD_INFO: Gauge = "personas_build_info", ["version"], "Always 1; the version is in the label.";
    UPTIME: Gauge = "personas_uptime_seconds", [], "Time since the process started serving.";
    PANICS: Counter = "personas_panics_total", [], "Panics caught; each is a bug.";
}

/// Buckets for `_seconds`: from half a millisecond to half a minute.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Buckets for `_bytes`.
const BYTES: &[f64] = &[256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 5_242_880.0];
/// Buckets for `_size`, in events.
const SIZES: &[f64] = &[1.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0];

/// The recorder of this process; none when it could not be installed.
static INSTALLED: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder for this process, once; later calls change nothing. Before it, recording does nothing.
pub fn install() {
    let install = || match build() {
        Ok(handle) => Some(handle),
        Err(error) => {
            tracing::error!(%error, "metrics are not available: {error}");
            None
        }
    };
    if INSTALLED.get_or_init(install).is_some() {
        BUILD_INFO.set(&[env!("CARGO_PKG_VERSION")], 1.0);
    }
}

/// Everything recorded so far, in the Prometheus text format.
pub fn render() -> String {
    let Some(Some(handle)) = INSTALLED.get() else { return String::new() };
    handle.run_upkeep();
    handle.render()
}

/// Puts what was recorded into its buckets. To be called now and then: single values are kept until then, and nobody
/// may ever ask for the metrics.
pub fn tidy() {
    if let Some(Some(handle)) = INSTALLED.get() {
        handle.run_upkeep();
    }
}

fn build() -> Result<PrometheusHandle, BuildError> {
    let suffix = |suffix: &str| Matcher::Suffix(suffix.to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(suffix("_seconds"), SECONDS)?
        .set_buckets_for_metric(suffix("_bytes"), BYTES)?
        .set_buckets_for_metric(suffix("_size"), SIZES)?
        .install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    for Listed { name, kind, help, .. } in ALL {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *help),
            Kind::Histogram => metrics::describe_histogram!(*name, *help),
        }
    }
}
