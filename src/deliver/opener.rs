//! Opening a destination: its settings and secrets become something that sends.

use std::fmt::Write;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::budget::Budget;
use super::http::Transport;
use super::kind::{Exchange, HttpKind, Invalid, Item, Kind, Reason, Request, Sent, Sifted, Verdict};
use super::kinds::{self, Opened};
use super::reach::Reach;
use super::secrets::{Keys, SecretsError};
use crate::clock::Clock;
use crate::domain::sensitive::MASKED;
use crate::store::destinations::Destination;

/// Bytes of a body that are kept to be looked at.
const SHOWN_MAX: usize = 8 * 1024;

/// Why a destination cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no such kind.
    #[error("there is no kind {0}")]
    UnknownKind(String),
    /// Settings that are no good, in every place listed.
    #[error("{}", told(.0))]
    Invalid(Vec<Invalid>),
    /// Its secrets.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
}

fn told(wrong: &[Invalid]) -> String {
    let each = wrong.iter().map(|w| format!("settings.{}: {}", w.field, w.message));
    each.collect::<Vec<_>>().join("; ")
}

/// Opens destinations of this process.
#[derive(Debug)]
pub struct Opener {
    /// Opens their secrets.
    pub keys: Keys,
    /// Calls them.
    pub transport: Transport,
    /// What those reach that do not speak HTTP; each within a time of its own.
    pub reach: Reach,
    /// The time.
    pub clock: Clock,
}

impl Opener {
    /// All settings of a destination, secrets among them.
    pub fn settings(&self, destination: &Destination) -> Result<Map<String, Value>, SecretsError> {
        let mut settings = destination.settings.as_object().cloned().unwrap_or_default();
        if let Some(sealed) = &destination.secrets {
            let key = destination.secret_key_id.as_deref().unwrap_or_default();
            settings.extend(self.keys.open(destination.id, sealed, key)?);
        }
        Ok(settings)
    }

    /// A destination, ready to send.
    pub fn open(&self, destination: &Destination) -> Result<Box<dyn Kind>, OpenError> {
        let settings = self.settings(destination)?;
        let timeout = Duration::from_millis(u64::from(destination.limits.timeout_ms.unsigned_abs()));
        self.open_with(&destination.kind, &settings, timeout)
    }

    /// The same of settings that are not stored (yet).
    pub fn open_with(
        &self,
        kind: &str,
        settings: &Map<String, Value>,
        timeout: Duration,
    ) -> Result<Box<dyn Kind>, OpenError> {
        let spec = kinds::find(kind).ok_or_else(|| OpenError::UnknownKind(kind.to_owned()))?;
        let reach = Reach { timeout, ..self.reach.clone() };
        Ok(match (spec.open)(settings, &reach).map_err(OpenError::Invalid)? {
            Opened::Own(kind) => kind,
            Opened::Http(kind) => Box::new(Caller {
                kind,
                transport: self.transport.clone(),
                timeout,
                clock: self.clock.clone(),
            }),
        })
    }
}

/// A kind that speaks HTTP, with the transport it speaks through.
#[derive(Debug)]
struct Caller {
    kind: Box<dyn HttpKind>,
    transport: Transport,
    timeout: Duration,
    clock: Clock,
}

impl Kind for Caller {
    fn batch_max(&self) -> usize {
        self.kind.batch_max()
    }

    fn send<'a>(&'a self, items: &'a [Item]) -> BoxFuture<'a, Sent> {
        Box::pin(async move {
            let budget = Budget::begin(self.timeout, items.len());
            let Sifted { refused, items, places } = Sifted::by(self.kind.as_ref(), items);
            let mut verdicts: Vec<Option<Verdict>> =
                refused.into_iter().map(|reason| reason.map(Verdict::Rejected)).collect();
            let mut exchanges = Vec::new();
            for request in self.kind.requests(&items, self.clock.now()) {
                let of = places.get(request.items.clone()).unwrap_or_default();
                if !budget.allows_another() {
                    for place in of {
                        if let Some(slot) = verdicts.get_mut(*place) {
                            *slot = Some(Budget::left_over());
                        }
                    }
                    continue;
                }
                let began = Instant::now();
                let called = self.transport.call_within(&request, self.timeout).await;
                let took = began.elapsed();
                let count = request.items.len();
                let (judged, status, response) = match called {
                    Ok((answer, _)) => {
                        let response = shown(&self.kind.shown(&answer.body));
                        (self.kind.verdicts(&answer, count), Some(answer.status), response)
                    }
                    Err(failure) => (vec![Verdict::from(failure); count], None, String::new()),
                };
                for (place, verdict) in of.iter().zip(judged) {
                    if let Some(slot) = verdicts.get_mut(*place) {
                        *slot = Some(verdict);
                    }
                }
                let request = shown(&self.kind.shown(&describe(&request)));
                exchanges.push(Exchange { items: of.to_vec(), request, status, response, took });
            }
            let verdicts = verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(unsaid)).collect();
            Sent { verdicts, exchanges }
        })
    }
}

/// Nothing was asked about it.
fn unsaid() -> Verdict {
    let message = "no request was made for it".to_owned();
    Verdict::Retry { reason: Reason { code: "INTERNAL".to_owned(), message }, after: None }
}

/// A request as it is shown, secrets masked.
fn describe(request: &Request) -> String {
    let mut text = format!("{} {}\n", request.method, request.url);
    for (name, value) in &request.headers {
        let is_secret = request.secret_headers.iter().any(|secret| secret.eq_ignore_ascii_case(name));
        let value = if is_secret { MASKED } else { value.as_str() };
        let _infallible = writeln!(text, "{name}: {value}");
    }
    text.push('\n');
    // Cut when secrets are masked: a part of one at the end would not be found.
    text.push_str(&String::from_utf8_lossy(&request.body));
    text
}

/// The beginning of a text, without what the database cannot keep.
pub(super) fn shown(text: &str) -> String {
    let end = text.floor_char_boundary(SHOWN_MAX);
    let mut shown = text.get(..end).unwrap_or_default().replace('\0', "\u{fffd}");
    if end < text.len() {
        let _infallible = write!(shown, "… ({} bytes)", text.len());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_bodies_cut() {
        let request = Request {
            items: 0..1,
            method: "POST".to_owned(),
            url: "https://example.com".to_owned(),
            headers: vec![
                ("authorization".to_owned(), "canary".to_owned()),
                ("a".to_owned(), "b".to_owned()),
            ],
            secret_headers: vec!["Authorization".to_owned()],
            body: "é".repeat(SHOWN_MAX).into_bytes(),
        };
        let text = shown(&describe(&request));
        assert!(text.starts_with("POST https://example.com\nauthorization: ***\na: b\n\né"), "{text}");
        assert!(!text.contains("canary") && text.ends_with(" bytes)") && text.len() < SHOWN_MAX + 200);
        assert_eq!(shown("a\0b"), "a\u{fffd}b");
    }
}
