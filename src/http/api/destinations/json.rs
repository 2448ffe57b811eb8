//! Destinations as clients see them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::domain::Timestamp;
use crate::domain::ids::public_id;
use crate::manage::destinations::{Exchange, Sent, Status, Verdict, View};

/// A destination.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Destination)]
pub(super) struct DestinationJson {
    id: String,
    name: String,
    kind: String,
    /// Settings of the kind; secrets are `***`.
    #[schema(value_type = Object)]
    settings: Map<String, Value>,
    /// Requests under way at the same time.
    concurrency: i32,
    /// Changes in a second; none: no limit.
    rate_per_second: Option<i32>,
    /// Time for one request.
    timeout_ms: i32,
    /// How old the oldest change of a batch gets before the batch is sent although it is not full.
    linger_seconds: i32,
    /// `connected`, `paused` (by an operator) or `failing`: paused by the service, `state_reason` says why.
    state: String,
    state_reason: Option<String>,
    state_since: String,
    deliveries: CountsJson,
    created_at: String,
    updated_at: String,
    /// The signing secret that was made, in the answer to its making only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<String>,
}

/// What waits for a destination, and what became of the rest.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryCounts)]
struct CountsJson {
    /// Changes that wait, those under way among them.
    queued: i64,
    /// Changes under way, as of a moment ago.
    in_flight: i32,
    /// Profiles whose next change waits for another attempt, counted up to 10,000.
    waiting_profiles: i64,
    /// Arrived so far.
    succeeded: i64,
    /// Left out by a filter, or for want of an identifier, so far.
    filtered: i64,
    /// Dead letters there are.
    dead: i64,
    /// Attempts that failed so far, by reason.
    failed: BTreeMap<String, i64>,
    /// When the oldest waiting change happened.
    oldest_pending_at: Option<String>,
    /// Nothing has arrived since then, and attempts have failed.
    failing_since: Option<String>,
    last_error: Option<ErrorJson>,
    last_succeeded_at: Option<String>,
}

/// A failure.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryError)]
struct ErrorJson {
    code: String,
    message: String,
    at: String,
}

pub(in crate::http::api) fn instant(at: DateTime<Utc>) -> String {
    Timestamp::from(at).to_string()
}

impl From<View> for DestinationJson {
    fn from(View { destination, settings, status, failures }: View) -> Self {
        Self {
            id: public_id("dst", destination.id),
            name: destination.name,
            kind: destination.kind,
            settings,
            concurrency: destination.limits.concurrency,
            rate_per_second: destination.limits.rate_per_second,
            timeout_ms: destination.limits.timeout_ms,
            linger_seconds: destination.limits.linger_seconds,
            state: status.state.clone(),
            state_reason: status.state_reason.clone(),
            state_since: instant(status.state_since),
            deliveries: CountsJson::new(status, failures),
            created_at: destination.created_at.to_string(),
            updated_at: destination.updated_at.to_string(),
            secret: None,
        }
    }
}

impl CountsJson {
    fn new(status: Status, failures: Vec<(String, i64)>) -> Self {
        let error = match (status.last_error_code, status.last_error, status.last_error_at) {
            (Some(code), Some(message), Some(at)) => Some(ErrorJson { code, message, at: instant(at) }),
            _ => None,
        };
        Self {
            queued: status.queued,
            in_flight: status.in_flight,
            waiting_profiles: status.waiting_profiles,
            succeeded: status.delivered,
            filtered: status.filtered,
            dead: status.dead,
            failed: failures.into_iter().collect(),
            oldest_pending_at: status.oldest_at.map(instant),
            failing_since: status.failing_since.map(instant),
            last_error: error,
            last_succeeded_at: status.last_delivered_at.map(instant),
        }
    }
}

/// What a test came to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DestinationTest)]
pub(super) struct TestJson {
    /// `delivered`, `retry`, `rejected` or `gone`.
    outcome: &'static str,
    code: Option<String>,
    message: Option<String>,
    exchanges: Vec<ExchangeJson>,
}

/// A request and its answer; secrets are masked, bodies cut.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryExchange)]
struct ExchangeJson {
    request: String,
    status: Option<u16>,
    response: String,
    took_ms: u64,
}

impl From<Sent> for TestJson {
    fn from(sent: Sent) -> Self {
        let verdict = sent.verdicts.into_iter().next();
        let (outcome, reason) = verdict.map_or(("retry", None), Verdict::told);
        let (code, message) = reason.map(|reason| (reason.code, reason.message)).unzip();
        let exchange = |exchange: Exchange| ExchangeJson {
            request: exchange.request,
            status: exchange.status,
            response: exchange.response,
            took_ms: exchange.took.as_millis() as u64,
        };
        Self { outcome, code, message, exchanges: sent.exchanges.into_iter().map(exchange).collect() }
    }
}
