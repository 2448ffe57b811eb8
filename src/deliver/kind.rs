//! What a kind of destination is: it takes the changes it is given to where they belong, and says what became of each.
//!
//! A kind keeps no order, no schedule and no count: it is handed changes whose turn it is, never two of one profile at a
//! time, and the workers decide by its verdicts when they are handed to it again.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::domain::{ProfileNo, Timestamp};

/// A change as it is sent to one destination.
#[derive(Debug, Clone)]
pub struct Item {
    /// Names it over all attempts (`webhook-id`, `messageId`): who receives it twice can tell.
    pub id: String,
    /// Whose it is.
    pub profile: ProfileNo,
    /// Public id of the profile, `prf_…`.
    pub profile_id: String,
    /// When it happened.
    pub at: Timestamp,
    /// How often it was sent before.
    pub attempts: u32,
    /// A call of Segment's protocol (`identify`, `track`, `group` or `delete`) with the payload of the specification.
    pub event: serde_json::Value,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has arrived.
    Delivered,
    /// It may arrive later.
    Retry {
        /// Why it has not.
        reason: Reason,
        /// No sooner than this, as the receiver asks.
        after: Option<Duration>,
    },
    /// It will never be taken: the next one may be.
    Rejected(Reason),
    /// Nothing will ever be taken: the destination is gone.
    Gone(Reason),
}

impl Verdict {
    /// Its word, and why it is that.
    pub fn told(self) -> (&'static str, Option<Reason>) {
        match self {
            Self::Delivered => ("delivered", None),
            Self::Retry { reason, .. } => ("retry", Some(reason)),
            Self::Rejected(reason) => ("rejected", Some(reason)),
            Self::Gone(reason) => ("gone", Some(reason)),
        }
    }
}

/// Why a change has not arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// A short word for it that reasons are counted by, such as `500`, `ETIMEDOUT` or `MESSAGE_REJECTED`.
    pub code: String,
    /// What an operator reads.
    pub message: String,
}

/// What was sent and answered, for those who look at it later. Secrets are masked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Which items it was about, by their places.
    pub items: Vec<usize>,
    /// Such as `POST https://…`, headers and body, cut.
    pub request: String,
    /// Status of the answer, where there is such a thing.
    pub status: Option<u16>,
    /// The answer, cut.
    pub response: String,
    /// How long it took.
    pub took: Duration,
}

/// Verdicts, one for each item, and what was exchanged.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// In the order of the items.
    pub verdicts: Vec<Verdict>,
    /// Every request there was.
    pub exchanges: Vec<Exchange>,
}

/// A kind of destination with its settings.
pub trait Kind: Send + Sync + std::fmt::Debug {
    /// Changes that it takes at a time, at most; 1 for one request each.
    fn batch_max(&self) -> usize;

    /// Sends changes, and says of each what became of it. Whoever drops the future takes them for not arrived: a kind that
    /// makes several requests ends by itself, see [`Budget`](super::budget::Budget).
    fn send<'a>(&'a self, items: &'a [Item]) -> BoxFuture<'a, Sent>;
}

/// Why settings are no good: where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The field, such as `url`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// A request that a kind wants to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which items it is about, by their place.
    pub items: Range<usize>,
    /// `POST` and the like.
    pub method: String,
    /// Where to; judged by the guard before it is called.
    pub url: String,
    /// Header names and values.
    pub headers: Vec<(String, String)>,
    /// Names of headers whose values are secret, in lower case.
    pub secret_headers: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// A batch without what a kind refuses, so that no request is about that, and the others are neighbours.
#[derive(Debug)]
pub struct Sifted<'a> {
    /// Of each change why it is refused, where it is.
    pub refused: Vec<Option<Reason>>,
    /// The others, in their order.
    pub items: Cow<'a, [Item]>,
    /// Their places in the batch.
    pub places: Vec<usize>,
}

impl<'a> Sifted<'a> {
    /// Asks a kind about each change of a batch.
    pub fn by(kind: &dyn HttpKind, batch: &'a [Item]) -> Self {
        let refused: Vec<Option<Reason>> = batch.iter().map(|item| kind.refuses(item)).collect();
        let is_sent = |place: &usize| refused.get(*place).is_some_and(Option::is_none);
        let places: Vec<usize> = (0..batch.len()).filter(is_sent).collect();
        let items = if places.len() == batch.len() {
            Cow::Borrowed(batch)
        } else {
            Cow::Owned(places.iter().filter_map(|place| batch.get(*place).cloned()).collect())
        };
        Self { refused, items, places }
    }
}

/// Parts of a batch that follow one another, each with the places of its items.
pub fn placed<'a>(
    parts: impl Iterator<Item = &'a [Item]>,
) -> impl Iterator<Item = (Range<usize>, &'a [Item])> {
    parts.scan(0, |end, part| {
        let start = *end;
        *end += part.len();
        Some((start..*end, part))
    })
}

/// What was answered to a [`Request`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The value of `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The body, as far as it was read.
    pub body: String,
}

/// A kind that speaks HTTP: what it asks for and how it takes the answer is plain to be tested.
pub trait HttpKind: Send + Sync + std::fmt::Debug {
    /// Changes of one request, at most.
    fn batch_max(&self) -> usize;

    /// The requests for some changes, none of which is refused, at an instant (signatures have one).
    fn requests(&self, items: &[Item], now: Timestamp) -> Vec<Request>;

    /// Why a change can never be sent, where that is so: it is rejected and no request is made for it. The default: all
    /// can.
    fn refuses(&self, item: &Item) -> Option<Reason> {
        let _ = item;
        None
    }

    /// A piece of a request or answer as it may be looked at: without secrets, wherever they stand. The default: as it is.
    fn shown(&self, text: &str) -> String {
        text.to_owned()
    }

    /// What an answer means. The default: 2xx has arrived; 429, 408, 425 and 5xx may do later; 410 is gone; the rest is
    /// rejected, redirects too.
    fn judge(&self, answer: &Answer) -> Verdict {
        let reason = |words: &str| Reason { code: answer.status.to_string(), message: words.to_owned() };
        match answer.status {
            200..=299 => Verdict::Delivered,
            410 => Verdict::Gone(reason("the destination says that it is gone")),
            408 | 425 | 429 | 500..=599 => Verdict::Retry {
                reason: reason("the destination cannot take it now"),
                after: answer.retry_after,
            },
            300..=399 => {
                Verdict::Rejected(reason("the destination answers with a redirect, which is not followed"))
            }
            _ => Verdict::Rejected(reason("the destination does not take it")),
        }
    }

    /// What an answer means for each of the items of a request. The default: the same for all.
    fn verdicts(&self, answer: &Answer, count: usize) -> Vec<Verdict> {
        vec![self.judge(answer); count]
    }
}
