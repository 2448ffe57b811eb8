//! From tracking calls to the log: parse, check, normalise, store, answer.
//!
//! Guarantees: an event is either durable before its request is answered, or refused with a code in the answer and,
//! as far as one source may fill it, in the rejected-event list; what is beyond that is counted. Nothing is dropped
//! silently, and one bad event never fails its neighbours.

mod batcher;
mod flush;
mod gather;
mod lexical;
mod merge;
mod names;
mod normalise;
mod rate;
mod refused;
mod rejection;
mod wire;

use std::borrow::Cow;
use std::sync::Arc;

pub use batcher::{AppendError, Batcher, BatcherLimits, batcher};
pub use flush::Flusher;
pub use refused::RefusedBody;
pub use rejection::Rejection;

use crate::clock::{Clock, IdMaker};
use crate::domain::act::Signed;
use crate::domain::month::Month;
use crate::domain::plan::EventLimits;
use crate::domain::{EventType, IntakeLimits, Offset, SourceNo, SpaceNo, Timestamp, json};
use crate::engine::guard::Guards;
use crate::engine::keep_out::KeepOuts;
use crate::engine::meters::{Meters, Room};
use crate::store::log::codec::{self, Record};
use crate::telemetry::metrics;
use batcher::Append;
use gather::{Gather, Verdicts};
use normalise::Surroundings;
use rate::{Buckets, Limit};
use refused::{count_refusals, reason};

/// Which kind of body a path takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// One call, its type named by the path.
    Single(EventType),
    /// A batch of calls that name their own types.
    Batch,
}

/// Who sent a request, as its write key says.
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    /// Whose log.
    pub space: SpaceNo,
    /// Which source.
    pub source: SourceNo,
    /// Whether anybody may know its key.
    pub is_public: bool,
    /// Events it may send this process in a second; `None` is no limit.
    pub events_per_second_max: Option<u32>,
    /// What the plan of its space limits; `None` is nothing.
    pub limits: Option<EventLimits>,
    /// Whether something could be coming for its space that it is told of.
    pub may_warn: bool,
}

/// What became of a request that was understood.
#[derive(Debug)]
pub struct Receipt {
    /// Events stored.
    pub accepted: usize,
    /// Events refused, with their places in the batch.
    pub rejected: Vec<(usize, Rejection)>,
    /// Log offset that covers the accepted events; `None` when there are none.
    pub offset: Option<Offset>,
}

/// What would become of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// Events that would be stored.
    pub accepted: usize,
    /// Events that would be refused.
    pub rejected: usize,
    /// What would be written of those that are stored can be read again.
    pub reads_back: bool,
}

/// Why a whole request was refused.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The body itself is wrong; a retry cannot help.
    #[error("{}", .0.message)]
    Refused(Rejection),
    /// The source sends more than it may; nothing was stored. The same request fits in so many seconds.
    #[error("the source may send {per_second} events a second; come back in {retry_after_seconds} s")]
    TooFast {
        /// What it may send.
        per_second: u32,
        /// When to come back, at least 1.
        retry_after_seconds: u64,
    },
    /// The space takes more than its plan lets it; nothing was stored. The same request fits in so many seconds.
    #[error(
        "the plan of the space lets it take {per_second} events a second; come back in {retry_after_seconds} s"
    )]
    SpaceTooFast {
        /// What it may take.
        per_second: u32,
        /// When to come back, at least 1.
        retry_after_seconds: u64,
    },
    /// The space has what its plan lets it have; nothing was stored.
    #[error("the plan of the space has room for {limit} {what}, and nothing more is taken")]
    QuotaReached {
        /// What is counted.
        what: &'static str,
        /// How much of it there may be.
        limit: u64,
    },
    /// What is on its way to the log may fill what the plan lets the space have; nothing was stored. A refusal would be for good,
    /// so it waits until it is sure: try again in a moment.
    #[error(
        "what is being stored may fill the {limit} events a month that the plan of the space has room for; try again in a moment"
    )]
    QuotaNear {
        /// How many there may be.
        limit: u64,
    },
    /// Try again later.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// What stands before the log, as spaces have it.
#[derive(Debug, Clone, Default)]
pub struct Doors {
    /// What is kept out of events.
    pub guards: Guards,
    /// Whose events are not taken.
    pub keep_outs: KeepOuts,
    /// How much spaces have taken.
    pub meters: Meters,
}

/// The ingest side of the service.
#[derive(Debug, Clone)]
pub struct Ingest {
    batcher: Batcher,
    limits: IntakeLimits,
    /// What is kept out of the log.
    guards: Guards,
    /// Whose events are not taken.
    keep_outs: KeepOuts,
    /// How much spaces have taken.
    meters: Meters,
    clock: Clock,
    ids: IdMaker,
    /// Of sources with a limit.
    rates: Arc<Buckets>,
    /// How much of what is refused is listed.
    listed: Arc<Buckets>,
}

impl Ingest {
    /// Puts the parts together.
    pub fn new(
        batcher: Batcher,
        limits: IntakeLimits,
        Doors { guards, keep_outs, meters }: Doors,
        clock: Clock,
        ids: IdMaker,
    ) -> Self {
        let (rates, listed) = (Arc::default(), Arc::default());
        Self { batcher, limits, guards, keep_outs, meters, clock, ids, rates, listed }
    }

    /// The sizes in force.
    pub const fn limits(&self) -> &IntakeLimits {
        &self.limits
    }

    /// Takes one request body. Returns after everything accepted is committed.
    pub async fn accept(&self, sender: Sender, kind: CallKind, body: &[u8]) -> Result<Receipt, IngestError> {
        let received_at = self.clock.now();
        let prepared = self.prepare(sender, kind, body, received_at);
        let Verdicts { mut append, rejected, kept_out } = match prepared {
            Ok(prepared) => prepared,
            Err(rejection) => return Err(self.refuse_whole(sender, rejection, body, received_at).await),
        };
        let accepted = append.count as usize;
        self.check_rate(sender, accepted + rejected.len(), received_at)?;
        count_refusals(rejected.iter().map(|(_, r)| r.code));
        if accepted == 0 && rejected.is_empty() {
            let rejection = Rejection::new("empty_batch", "the batch has no events").at("batch");
            return Err(self.refuse_whole(sender, rejection, body, received_at).await);
        }
        self.bound(sender, &mut append.rejected, received_at);
        if accepted == 0 && append.rejected.is_empty() && append.found.is_empty() {
            return Ok(Receipt { accepted, rejected, offset: None });
        }
        if let Some(limits) = sender.limits {
            append.reserved = self.check_plan(sender, limits, accepted, received_at)?;
        }
        let reserved = u64::from(append.reserved);
        let offset = self.batcher.append(append).await.inspect_err(|error| {
            metrics::INGEST_SHED.add(&[reason(*error)], 1);
            if *error == AppendError::Overloaded {
                self.meters.settle(sender.space, None, reserved);
            }
        })?;
        metrics::INGEST_ACCEPTED.add(&[], (accepted - kept_out) as u64);
        Ok(Receipt { accepted, rejected, offset: (accepted > 0).then_some(offset) })
    }

    /// Charges a request's events to its source (decisions T13).
    fn check_rate(&self, sender: Sender, events: usize, now: Timestamp) -> Result<(), IngestError> {
        let Some(per_second) = sender.events_per_second_max else { return Ok(()) };
        let limit = Limit { per_second, burst: per_second };
        self.rates.take(sender, limit, events, now).map_err(|retry_after_seconds| {
            metrics::INGEST_SHED.add(&["rate"], 1);
            IngestError::TooFast { per_second, retry_after_seconds }
        })
    }

    /// Charges a request's events to the plan of their space, and makes room for them: for as many as the answer says.
    fn check_plan(
        &self,
        sender: Sender,
        limits: EventLimits,
        events: usize,
        now: Timestamp,
    ) -> Result<u32, IngestError> {
        let refuse = |what, limit| {
            metrics::INGEST_SHED.add(&["plan"], 1);
            Err(IngestError::QuotaReached { what, limit })
        };
        if let Some(per_second) = limits.events_per_second {
            // No source has the number 0: it stands for all of the space.
            let all = Sender { source: SourceNo(0), ..sender };
            let limit = Limit { per_second, burst: per_second };
            self.rates.take(all, limit, events, now).map_err(|retry_after_seconds| {
                metrics::INGEST_SHED.add(&["plan"], 1);
                IngestError::SpaceTooFast { per_second, retry_after_seconds }
            })?;
        }
        let month = Month::of(now);
        if let Some(limit) = limits.profiles
            && self.meters.usage(sender.space, month).profiles >= limit
        {
            return refuse("profiles", limit);
        }
        let Some(limit) = limits.events_per_month else { return Ok(0) };
        match self.meters.reserve(sender.space, month, events as u64, limit) {
            Room::Taken => Ok(u32::try_from(events).unwrap_or(u32::MAX)),
            Room::Unsure => {
                metrics::INGEST_SHED.add(&["plan"], 1);
                Err(IngestError::QuotaNear { limit })
            }
            Room::Full => refuse("events a month", limit),
        }
    }

    /// Writes an operator's act into the log. Returns its offset once it is committed.
    pub async fn append_act(&self, space: SpaceNo, signed: &Signed) -> Result<Offset, AppendError> {
        let now = self.clock.now();
        let (message_id, body) =
            (self.ids.uuid().to_string(), serde_json::to_string(signed).unwrap_or_default());
        let alone = signed.act.stands_alone();
        let mut append = Append {
            space,
            count: 1,
            received_at: now,
            min_at: now,
            max_at: now,
            alone,
            is_act: true,
            ..Append::default()
        };
        Record::of_act(&body, &message_id, now).encode(&mut append.records);
        append.names.insert(String::new());
        self.batcher.append(append).await
    }

    /// What would become of a body, as of a time. Nothing is stored.
    pub fn judge(
        &self,
        sender: Sender,
        kind: CallKind,
        body: &[u8],
        received_at: Timestamp,
    ) -> Result<Judged, Rejection> {
        let Verdicts { append, rejected, .. } = self.prepare(sender, kind, body, received_at)?;
        let mut content = vec![codec::FORMAT];
        content.extend_from_slice(&append.records);
        let read = codec::Records::new(&content).map(|records| records.flatten().count());
        let reads_back = read.is_ok_and(|read| read == append.count as usize);
        Ok(Judged { accepted: append.count as usize, rejected: rejected.len(), reads_back })
    }

    /// Everything up to the write: pure but for ids.
    fn prepare(
        &self,
        sender: Sender,
        kind: CallKind,
        body: &[u8],
        received_at: Timestamp,
    ) -> Result<Verdicts, Rejection> {
        let text = std::str::from_utf8(body)
            .map_err(|_| Rejection::new("bad_request", "the body is not valid UTF-8"))?;
        let around = Surroundings {
            source: sender.source,
            public: sender.is_public,
            received_at,
            path_type: None,
            context: None,
            integrations: None,
            sent_at: None,
            limits: &self.limits,
        };
        let mut gather = Gather::new(self, sender, received_at);
        match kind {
            CallKind::Single(event_type) => {
                let text = parseable(text)?;
                gather.take(0, &text, &Surroundings { path_type: Some(event_type), ..around });
            }
            CallKind::Batch => {
                if let Ok(batch) = wire::Batch::parse(text) {
                    self.prepare_batch(&batch, around, &mut gather)?;
                } else {
                    let text = parseable(text)?;
                    let batch = wire::Batch::parse(&text).map_err(|_| {
                        let message = "a batch must be a JSON object whose `batch` is an array";
                        Rejection::new("bad_request", message)
                    })?;
                    self.prepare_batch(&batch, around, &mut gather)?;
                }
            }
        }
        Ok(gather.finish())
    }

    /// A batch-level object, which every item will carry: held to the limits of an event, and together with the number
    /// of items to four bodies, or a small request would become a huge one in the log.
    fn shared<'a>(
        &self,
        raw: Option<&'a str>,
        field: &'static str,
        items: usize,
    ) -> Result<Option<Cow<'a, str>>, Rejection> {
        let Some(raw) = raw.filter(|raw| *raw != "null") else { return Ok(None) };
        if !raw.starts_with('{') {
            let code = if field == "context" { "context_not_object" } else { "integrations_not_object" };
            return Err(Rejection::new(code, format!("the batch's {field} must be an object")).at(field));
        }
        let limits = &self.limits;
        if raw.len() > limits.event_bytes_max || raw.len().saturating_mul(items) > 4 * limits.body_bytes_max {
            let message = format!("the batch's {field} has {} bytes, too many for {items} events", raw.len());
            return Err(Rejection::new("payload_too_large", message).at(field));
        }
        let scan = lexical::scan(raw);
        if scan.depth >= limits.json_depth_max {
            let message = format!("the batch's {field} is nested {} levels deep", scan.depth);
            return Err(Rejection::new("json_too_deep", message).at(field));
        }
        if scan.number_out_of_range {
            let message =
                format!("a number in the batch's {field} has more than 40 digits or an exponent beyond ±308");
            return Err(Rejection::new("number_out_of_range", message).at(field));
        }
        Ok(Some(lexical::mend(raw)))
    }

    fn prepare_batch(
        &self,
        batch: &wire::Batch<'_>,
        around: Surroundings<'_>,
        gather: &mut Gather<'_>,
    ) -> Result<(), Rejection> {
        let items = batch.items.as_ref().ok_or_else(|| {
            Rejection::new("bad_request", "`batch` is missing; send {\"batch\":[…]}").at("batch")
        })?;
        if items.len() > self.limits.batch_events_max {
            let most = self.limits.batch_events_max;
            let message = format!("the batch has {} events; at most {most} are taken", items.len());
            return Err(Rejection::new("payload_too_large", message).at("batch"));
        }
        let context = self.shared(batch.context, "context", items.len())?;
        let context = context.as_deref().map(|raw| gather.screen_shared(raw, "context"));
        let integrations = self.shared(batch.integrations, "integrations", items.len())?;
        let integrations = integrations.as_deref().map(|raw| gather.screen_shared(raw, "integrations"));
        let around = Surroundings {
            context: context.as_deref(),
            integrations: integrations.as_deref(),
            sent_at: batch.sent_at,
            ..around
        };
        for (index, item) in items.iter().enumerate() {
            gather.take(index, item.get(), &around);
        }
        Ok(())
    }
}

/// The body if it parses, else what the tolerant pass makes of it, else a refusal that says where it broke.
fn parseable(text: &str) -> Result<Cow<'_, str>, Rejection> {
    let check = |text: &str| serde_json::from_str::<&serde_json::value::RawValue>(text).map(|_| ());
    if check(text).is_ok() {
        return Ok(Cow::Borrowed(text.trim()));
    }
    let tolerated = lexical::tolerate(text);
    match check(&tolerated) {
        Ok(()) => {
            metrics::INGEST_MENDED.add(&["body"], 1);
            Ok(Cow::Owned(tolerated))
        }
        Err(error) => Err(Rejection::new("bad_request", format!("the body is not valid JSON: {error}"))),
    }
}

/// The write key in a body, for clients that send no header.
pub fn write_key_in_body(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let find = |text: &str| {
        let [key] = json::pick(text, ["writeKey"]);
        key.and_then(json::string)
    };
    find(text).or_else(|| find(&lexical::tolerate(text)))
}
