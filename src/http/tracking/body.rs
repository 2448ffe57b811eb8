//! Reading a body: within its size, compressed and decompressed alike, within its time, within the memory all bodies
//! together may take.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use bytes::BytesMut;
use flate2::bufread::MultiGzDecoder;
use http_body_util::BodyExt;

use super::Settings;
use crate::http::problem::{Code, Problem};
use crate::ingest::RefusedBody;
use crate::telemetry::metrics;

/// How much of a body that is too large is read and forgotten, in multiples of the limit: a client that is still
/// sending does not read the answer, and takes the closed connection for something to retry.
const DISCARD_FACTOR: usize = 4;
/// Step in which a decompressed body grows.
const INFLATE_STEP: usize = 64 * 1024;

/// The memory all bodies together may take.
#[derive(Debug, Clone)]
pub struct InFlight {
    used: Arc<AtomicUsize>,
    max: usize,
}

impl InFlight {
    /// Up to `max` bytes; a single body is always taken.
    pub fn new(max: usize) -> Self {
        Self { used: Arc::default(), max }
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn share(&self) -> Share {
        Share { of: self.clone(), held: 0 }
    }
}

/// What one request holds of it; given back when dropped.
#[derive(Debug)]
struct Share {
    of: InFlight,
    held: usize,
}

impl Share {
    /// Takes more; a refusal says to come back.
    fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let others = self.of.used.fetch_add(bytes, Ordering::Relaxed) - self.held;
        self.held += bytes;
        if others > 0 && others + self.held > self.of.max {
            metrics::INGEST_SHED.add(&["memory"], 1);
            return Err(Problem::new(Code::Overloaded, "too many bodies at once; try again in a moment"));
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// A body with its share of the memory.
#[derive(Debug)]
pub(super) struct Held {
    bytes: Bytes,
    _share: Share,
}

impl Held {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body that is not taken.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) problem: Problem,
    /// What there is of its beginning, decompressed as far as that works.
    pub(super) beginning: Vec<u8>,
}

impl Refused {
    fn new<'a>(problem: Problem, pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut beginning = Vec::new();
        for piece in pieces {
            begin(&mut beginning, piece);
        }
        Self { problem, beginning }
    }

    /// What people can read of it: what is not gzip at all, or broken from the start, stays as it was sent.
    fn decompressed(self) -> Self {
        let mut plain = Vec::new();
        let decoder = MultiGzDecoder::new(self.beginning.as_slice());
        let _broken = decoder.take(RefusedBody::BEGINNING as u64).read_to_end(&mut plain);
        if plain.is_empty() { self } else { Self { beginning: plain, ..self } }
    }
}

/// Adds a piece of a body to its beginning, up to what is worth keeping.
fn begin(beginning: &mut Vec<u8>, piece: &[u8]) {
    let room = RefusedBody::BEGINNING - beginning.len();
    beginning.extend_from_slice(&piece[..piece.len().min(room)]);
}

/// Reads a whole body, decompressed.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    settings: &Settings,
) -> Result<Held, Refused> {
    let idle = settings.body_idle_timeout;
    let gzip = match is_gzip(headers) {
        Ok(gzip) => gzip,
        Err(problem) => return Err(Refused { problem, beginning: forget(headers, body, limit, idle).await }),
    };
    let mut share = settings.in_flight.share();
    let received = receive(headers, body, limit, idle, &mut share).await;
    let sent = received.map_err(|refused| if gzip { refused.decompressed() } else { refused })?;
    metrics::HTTP_REQUEST_BODY.record(&[], sent.len() as f64);
    let bytes = if gzip {
        let inflated = inflate(&sent, limit, &mut share);
        inflated.map_err(|problem| Refused::new(problem, [&*sent]).decompressed())?
    } else {
        sent
    };
    Ok(Held { bytes, _share: share })
}

/// Whether the body is gzip; anything else but plain is refused.
fn is_gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    let Some(encoding) = headers.get(header::CONTENT_ENCODING) else { return Ok(false) };
    let is = |name: &str| encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(name.as_bytes());
    if is("gzip") || is("x-gzip") {
        Ok(true)
    } else if is("identity") || is("") {
        Ok(false)
    } else {
        metrics::HTTP_REJECTED.add(&["encoding"], 1);
        let message = "the Content-Encoding is not supported; send gzip or none";
        Err(Problem::new(Code::BadRequest, message).at("Content-Encoding"))
    }
}

async fn receive(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
    idle: Duration,
    share: &mut Share,
) -> Result<Bytes, Refused> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(Refused {
            problem: too_large(limit),
            beginning: forget(headers, body, limit, idle).await,
        });
    }
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    share.grow(announced.unwrap_or(0) as usize).map_err(|problem| Refused::new(problem, []))?;
    loop {
        let data = match next_data(&mut body, idle).await {
            Ok(Some(data)) => data,
            Ok(None) => break,
            Err(problem) => return Err(Refused::new(problem, [&*first, &*rest])),
        };
        let total = first.len() + rest.len() + data.len();
        if total > limit {
            let refused = Refused::new(too_large(limit), [&*first, &*rest, &*data]);
            discard(body, limit, idle).await;
            return Err(refused);
        }
        if total > share.held {
            share.grow(total - share.held).map_err(|problem| Refused::new(problem, []))?;
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            // The whole length at once where it was announced: no copying while it grows.
            rest.reserve(announced.map_or(total, |length| length as usize).max(total));
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// The next piece of a body, which must come within `idle`.
async fn next_data(body: &mut Body, idle: Duration) -> Result<Option<Bytes>, Problem> {
    loop {
        let Ok(frame) = tokio::time::timeout(idle, body.frame()).await else {
            metrics::HTTP_REJECTED.add(&["too_slow"], 1);
            return Err(Problem::new(Code::RequestTimeout, "the body came too slowly"));
        };
        match frame {
            None => return Ok(None),
            Some(Err(_)) => return Err(Problem::new(Code::BadRequest, "the body did not arrive whole")),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Forgets a body that nothing was read of, but for its beginning.
async fn forget(headers: &HeaderMap, body: Body, limit: usize, idle: Duration) -> Vec<u8> {
    // Who waits for `100 Continue` has not begun to send.
    if headers.contains_key(header::EXPECT) { Vec::new() } else { discard(body, limit, idle).await }
}

/// Reads on for a while and forgets it, so that the client gets to read why it was refused. Returns how it begins.
async fn discard(mut body: Body, limit: usize, idle: Duration) -> Vec<u8> {
    let (mut beginning, mut left) = (Vec::new(), limit.saturating_mul(DISCARD_FACTOR));
    while let Ok(Some(data)) = next_data(&mut body, idle).await {
        begin(&mut beginning, &data);
        left = left.saturating_sub(data.len());
        if left == 0 {
            break;
        }
    }
    beginning
}

fn too_large(limit: usize) -> Problem {
    metrics::HTTP_REJECTED.add(&["too_large"], 1);
    Problem::new(
        Code::PayloadTooLarge,
        format!("the body has more than {limit} bytes, as sent or decompressed"),
    )
}

/// Decompresses all gzip members, and stops at the limit whatever they promise.
fn inflate(sent: &[u8], limit: usize, share: &mut Share) -> Result<Bytes, Problem> {
    let mut decoder = MultiGzDecoder::new(sent).take(limit as u64 + 1);
    let mut body = Vec::new();
    loop {
        share.grow(INFLATE_STEP)?;
        let read = decoder.by_ref().take(INFLATE_STEP as u64).read_to_end(&mut body);
        match read {
            Ok(0) => return Ok(body.into()),
            Ok(_) if body.len() > limit => return Err(too_large(limit)),
            Ok(_) => {}
            Err(error) => {
                return Err(Problem::new(Code::BadRequest, format!("the body is not valid gzip: {error}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn members_are_concatenated_and_bombs_stopped() {
        let in_flight = InFlight::new(10 << 20);
        let two = [gzip(b"{\"a\":"), gzip(b"1}")].concat();
        assert_eq!(inflate(&two, 100, &mut in_flight.share()).unwrap(), "{\"a\":1}");
        let bomb = gzip(&vec![b' '; 1 << 20]);
        assert!(bomb.len() < 2_000);
        let refused = inflate(&bomb, 100_000, &mut in_flight.share()).unwrap_err();
        assert_eq!(refused.code, Code::PayloadTooLarge);
        assert_eq!(inflate(&gzip(&[b'x'; 100]), 100, &mut in_flight.share()).unwrap().len(), 100);
        assert!(inflate(b"{}", 100, &mut in_flight.share()).is_err());
        let cut = gzip(b"hello");
        assert!(inflate(&cut[..cut.len() - 3], 100, &mut in_flight.share()).is_err(), "cut off");
        assert_eq!(in_flight.used(), 0, "all is given back");
    }

    #[test]
    fn memory_is_shared_and_one_body_always_fits() {
        let in_flight = InFlight::new(100);
        let (mut one, mut two) = (in_flight.share(), in_flight.share());
        one.grow(500).unwrap();
        assert_eq!(two.grow(1).unwrap_err().code, Code::Overloaded);
        drop((one, two));
        in_flight.share().grow(100).unwrap();
    }
}
