//! What is kept of what is refused: rows of the space's rejected-event list.
//!
//! Write keys are public, so what one of them can make us keep is bounded: in bytes per row, and in rows per source and
//! second. Guarantees: what is not kept is counted, and the client's answer is the same either way.

use super::batcher::Append;
use super::rate::Limit;
use super::{AppendError, Ingest, IngestError, Rejection, Sender, lexical};
use crate::domain::Timestamp;
use crate::engine::guard::Screener;
use crate::engine::keep_out::Reason;
use crate::store::rejected::RejectedEvent;
use crate::telemetry::metrics;

/// Most that is kept of a body that is refused whole, in bytes of UTF-8.
const BODY_BYTES_KEPT: usize = 4 * 1024;
/// So many seconds' worth of rows may come at once: a broken release shows in full before it is only sampled.
const BURST_SECONDS: u32 = 100;
/// A character that begins within what is kept is handed over whole.
const CHAR_BYTES_MAX: usize = 4;

/// A body that could not be received or decompressed.
#[derive(Debug, Clone, Copy)]
pub struct RefusedBody<'a> {
    /// Stable code, docs/errors.md.
    pub code: &'static str,
    /// What is wrong and what would be right.
    pub message: &'a str,
    /// What is at fault, where it has a name.
    pub field: Option<&'a str>,
    /// The beginning of the body, [`RefusedBody::BEGINNING`] bytes of it.
    pub beginning: &'a [u8],
}

impl RefusedBody<'_> {
    /// Bytes of a body worth handing over.
    pub const BEGINNING: usize = BODY_BYTES_KEPT + CHAR_BYTES_MAX;
}

impl Ingest {
    /// Keeps the beginning of a body that was refused before anything in it could be looked at. Whether that works is
    /// of no interest to the client: its answer is settled.
    pub async fn note_refused_body(&self, sender: Sender, refused: RefusedBody<'_>) {
        count_refusals(std::iter::once(refused.code));
        let now = self.clock.now();
        let row = self.row_of_body(sender, refused, now);
        if let Err(error) = self.keep(sender, row, now).await {
            count_unlisted(reason(error), 1);
        }
    }

    /// Keeps the beginning of a body in which nothing could be taken, and says why.
    pub(super) async fn refuse_whole(
        &self,
        sender: Sender,
        why: Rejection,
        body: &[u8],
        now: Timestamp,
    ) -> IngestError {
        count_refusals(std::iter::once(why.code));
        let Rejection { code, ref message, field, .. } = why;
        let row = self.row_of_body(sender, RefusedBody { code, message, field, beginning: body }, now);
        match self.keep(sender, row, now).await {
            Ok(()) => IngestError::Refused(why),
            Err(error) => error.into(),
        }
    }

    /// Leaves of a request's rows as many as its source may still have listed.
    pub(super) fn bound(&self, sender: Sender, rows: &mut Vec<RejectedEvent>, now: Timestamp) {
        if rows.is_empty() {
            return;
        }
        let per_second = self.limits.rejected_per_second_max;
        let limit = Limit { per_second, burst: per_second.saturating_mul(BURST_SECONDS) };
        let kept = self.listed.take_some(sender, limit, rows.len(), now);
        if kept < rows.len() {
            count_unlisted("rate", rows.len() - kept);
            rows.truncate(kept);
        }
    }

    /// The row for one event, cut at the size of the largest one taken.
    pub(super) fn row_of_event(
        &self,
        sender: Sender,
        why: &Rejection,
        event: &str,
        now: Timestamp,
    ) -> RejectedEvent {
        let end = event.floor_char_boundary(self.limits.event_bytes_max);
        RejectedEvent {
            id: self.ids.uuid(),
            warning: false,
            code: why.code.to_owned(),
            message: why.message.clone(),
            field: why.field.map(str::to_owned),
            message_id: why.message_id.clone(),
            source: sender.source,
            received_at: now,
            event: event[..end].to_owned(),
        }
    }

    /// The row for an event that was not stored because of whose it is: nothing of it is kept.
    pub(super) fn row_of_kept_out(&self, sender: Sender, why: Reason, now: Timestamp) -> RejectedEvent {
        let message = match why {
            Reason::Suppressed => "the person is suppressed: a regulation says that nothing new is taken",
            Reason::Erased => "the event happened before its person was erased",
        };
        RejectedEvent {
            id: self.ids.uuid(),
            warning: true,
            code: why.code().to_owned(),
            message: message.to_owned(),
            field: None,
            message_id: None,
            source: sender.source,
            received_at: now,
            event: "{}".to_owned(),
        }
    }

    fn row_of_body(&self, sender: Sender, refused: RefusedBody<'_>, now: Timestamp) -> RejectedEvent {
        RejectedEvent {
            id: self.ids.uuid(),
            warning: false,
            code: refused.code.to_owned(),
            message: refused.message.to_owned(),
            field: refused.field.map(str::to_owned),
            message_id: None,
            source: sender.source,
            received_at: now,
            event: self.listed_text(sender, refused.beginning),
        }
    }

    /// The beginning of a body as it may be listed: without what may not be stored. A number that was cut is left out: what is
    /// left of it would not be known any more.
    fn listed_text(&self, sender: Sender, body: &[u8]) -> String {
        let text = legible(body);
        let is_cut = body.len() > text.len();
        let text = lexical::mend(&text);
        let text = if is_cut {
            text.trim_end_matches(|c: char| c.is_ascii_digit() || " -.".contains(c))
        } else {
            &text
        };
        Screener::new(self.guards.of(sender.space)).screen(text, "").text.into_owned()
    }

    async fn keep(&self, sender: Sender, row: RejectedEvent, now: Timestamp) -> Result<(), AppendError> {
        let mut rejected = vec![row];
        self.bound(sender, &mut rejected, now);
        if rejected.is_empty() {
            return Ok(());
        }
        self.batcher.append(Append { space: sender.space, rejected, ..Append::default() }).await.map(drop)
    }
}

/// Counts refusals by their codes.
pub(super) fn count_refusals(codes: impl Iterator<Item = &'static str>) {
    for code in codes {
        metrics::INGEST_REJECTED.add(&[code], 1);
    }
}

/// What overload is called in the metrics.
pub(super) fn reason(error: AppendError) -> &'static str {
    match error {
        AppendError::Overloaded => "queue",
        AppendError::Unavailable => "database",
    }
}

fn count_unlisted(reason: &'static str, rows: usize) {
    metrics::INGEST_UNLISTED.add(&[reason], rows as u64);
}

/// The beginning of a body as text, whatever it is: whole characters, and none that Postgres does not take.
fn legible(body: &[u8]) -> String {
    let beginning = &body[..body.len().min(RefusedBody::BEGINNING)];
    let mut text = String::from_utf8_lossy(beginning).into_owned();
    text.truncate(text.floor_char_boundary(BODY_BYTES_KEPT));
    text.retain(|c| c != '\0');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_body_is_cut_between_characters() {
        for before in 0..CHAR_BYTES_MAX {
            let body = format!("{}{}", "x".repeat(before), "🦀".repeat(2_000));
            let text = legible(&body.as_bytes()[..RefusedBody::BEGINNING]);
            assert!(body.starts_with(&text) && text.len() > BODY_BYTES_KEPT - CHAR_BYTES_MAX, "{before}");
            assert_eq!(text, legible(body.as_bytes()));
        }
        assert_eq!(legible(b"a\0b\xffc"), "ab\u{fffd}c");
        assert_eq!(legible(b""), "");
    }

    proptest! {
        #[test]
        fn whatever_it_is_it_becomes_a_short_text(body in proptest::collection::vec(any::<u8>(), 0..6_000)) {
            let text = legible(&body);
            prop_assert!(text.len() <= BODY_BYTES_KEPT && !text.contains('\0'));
        }
    }
}
