//! The verdicts of one request: what is stored of it, what is refused, and whose events are not taken.

use std::borrow::Cow;
use std::sync::Arc;

use super::batcher::Append;
use super::normalise::{Surroundings, normalise};
use super::{Ingest, Rejection, Sender, lexical, names};
use crate::domain::Timestamp;
use crate::domain::sensitive::Category;
use crate::engine::guard::{Finding, Screener};
use crate::engine::keep_out::KeepOut;
use crate::store::log::codec::{self, Record};
use crate::store::sensitive::{Count, Place};
use crate::telemetry::metrics;

/// What becomes of the events of one request.
pub(super) struct Verdicts {
    pub append: Append,
    pub rejected: Vec<(usize, Rejection)>,
    /// Of people who are kept out.
    pub kept_out: usize,
}

/// Collects the verdicts of one request.
pub(super) struct Gather<'a> {
    ingest: &'a Ingest,
    sender: Sender,
    append: Append,
    rejected: Vec<(usize, Rejection)>,
    screener: Screener,
    keep_out: Option<Arc<KeepOut>>,
    /// Events of people who are kept out.
    kept_out: usize,
}

impl<'a> Gather<'a> {
    pub(super) fn new(ingest: &'a Ingest, sender: Sender, received_at: Timestamp) -> Self {
        let append = Append { space: sender.space, received_at, ..Append::default() };
        let screener = Screener::new(ingest.guards.of(sender.space));
        let keep_out = ingest.keep_outs.of(sender.space);
        Self { ingest, sender, append, rejected: Vec::new(), screener, keep_out, kept_out: 0 }
    }

    /// An object of a batch as it may be stored; what is found in it counts once, not for each of its events.
    pub(super) fn screen_shared(&mut self, raw: &str, field: &str) -> String {
        let screened = self.screener.screen(raw, field);
        self.note(&screened.findings);
        screened.text.into_owned()
    }

    fn note(&mut self, findings: &[Finding]) {
        let at = self.append.received_at;
        for Finding { what, path, action } in findings {
            metrics::INGEST_SENSITIVE.add(&[what_counted(what), action.as_str()], 1);
            let place = Place {
                source: self.sender.source,
                what: what.to_string(),
                path: path.clone(),
                action: *action,
            };
            let count = Count { occurrences: 0, first_at: at, last_at: at };
            self.append.found.entry(place).or_insert(count).occurrences += 1;
        }
    }

    pub(super) fn take(&mut self, index: usize, raw: &str, around: &Surroundings<'_>) {
        // Mended first: what a U+0000 takes apart is whole again before it is looked at.
        let mended = lexical::mend(raw);
        let is_mended = matches!(mended, Cow::Owned(_));
        let screened = self.screener.screen(&mended, "");
        self.note(&screened.findings);
        let raw = screened.text.as_ref();
        let append = &mut self.append;
        let length = append.records.len();
        let ids = &self.ingest.ids;
        let verdict = match screened.refused() {
            Some(found) => Err(sensitive(found, raw)),
            None => normalise(raw, around, || ids.uuid().to_string(), &mut append.records),
        };
        match verdict {
            Ok(event) if self.is_kept_out(length, event.timestamp) => {}
            Ok(event) => {
                let append = &mut self.append;
                if is_mended {
                    metrics::INGEST_MENDED.add(&["event"], 1);
                }
                let first = append.count == 0;
                append.min_at = if first { event.timestamp } else { append.min_at.min(event.timestamp) };
                append.max_at = if first { event.timestamp } else { append.max_at.max(event.timestamp) };
                append.count += 1;
                if !append.names.contains(&event.name) {
                    append.names.insert(event.name);
                }
            }
            Err(rejection) => {
                let append = &mut self.append;
                append.records.truncate(length);
                let row = self.ingest.row_of_event(self.sender, &rejection, raw, append.received_at);
                append.rejected.push(row);
                self.rejected.push((index, rejection));
            }
        }
    }
}

impl Gather<'_> {
    /// All verdicts.
    pub(super) fn finish(self) -> Verdicts {
        let Self { append, rejected, kept_out, .. } = self;
        Verdicts { append, rejected, kept_out }
    }

    /// Whether the event whose record begins there is of somebody who is kept out: then it is forgotten, and only counted.
    fn is_kept_out(&mut self, start: usize, happened_at: Timestamp) -> bool {
        let Some(keep_out) = &self.keep_out else { return false };
        let Some(record) = self.append.records.get(start..).and_then(codec::first) else { return false };
        let now = self.append.received_at;
        let Some(reason) = keep_out.judge(&record.parts(), happened_at, now) else { return false };
        metrics::INGEST_KEPT_OUT.add(&[reason.code()], 1);
        let row = self.ingest.row_of_kept_out(self.sender, reason, now);
        let (event_type, id) = (record.event_type, self.ingest.ids.uuid().to_string());
        let append = &mut self.append;
        append.rejected.push(row);
        append.records.truncate(start);
        // It takes a place in the log, as any event does: whoever sends it cannot tell by the offsets who is kept out.
        Record::place(event_type, self.sender.source, &id, now).encode(&mut append.records);
        append.min_at = if append.count == 0 { now } else { append.min_at.min(now) };
        append.max_at = if append.count == 0 { now } else { append.max_at.max(now) };
        append.count += 1;
        append.names.insert(String::new());
        self.kept_out += 1;
        true
    }
}

/// What the metric calls it: patterns have any name.
fn what_counted(what: &str) -> &'static str {
    Category::parse(what).map_or("pattern", Category::as_str)
}

/// The refusal of an event with something in it that the space refuses.
fn sensitive(Finding { what, path, .. }: &Finding, screened: &str) -> Rejection {
    let message =
        format!("{path} has what must not be sent ({what}); the settings for sensitive data refuse it");
    Rejection { message_id: names::peek_message_id(screened), ..Rejection::new("sensitive_data", message) }
}
