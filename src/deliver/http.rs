//! The one way out over HTTP: guarded, bounded in time and memory, and never led elsewhere.
//!
//! No redirect is followed, no proxy of the environment is used, nothing is decompressed, and certificates are judged by
//! the system's own store. A call ends by its time-out whatever the receiver does, and of its answer no more than
//! [`BODY_MAX`] is read; then the connection is dropped (reliability.md T07, T08).

mod failure;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use reqwest::header::{
    CONNECTION, CONTENT_LENGTH, DATE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use reqwest::{Method, Response};
use url::Url;

use super::guard::{Guard, Lookup, Resolver};
use super::kind::{Answer, Request};
use crate::clock::Clock;
pub use failure::{Code, Failure};

/// Bytes of an answer's body that are read.
pub const BODY_MAX: usize = 64 * 1024;
/// Headers of an answer, at most; the bytes are bounded by the HTTP library.
const HEADERS_MAX: usize = 100;
/// Idle connections kept for each host.
const IDLE_MAX: usize = 32;
/// How long they are kept.
const IDLE_FOR: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const AGENT: &str = concat!("Personas/", env!("CARGO_PKG_VERSION"));

/// Headers that belong to the connection, not to who fills in settings.
const OWN_HEADERS: [HeaderName; 7] =
    [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, TE, TRAILER, UPGRADE];

/// Calls destinations. Clones share connections.
#[derive(Debug, Clone)]
pub struct Transport {
    client: reqwest::Client,
    guard: Arc<Guard>,
    timeout: Duration,
    clock: Clock,
}

impl Transport {
    /// A transport under a guard, with the time a call may take from looking up the name to the end of the answer. Fails
    /// when the library cannot be set up; certificates that cannot be read are no reason.
    pub fn new(
        guard: Arc<Guard>,
        lookup: Arc<dyn Lookup>,
        timeout: Duration,
        clock: Clock,
    ) -> Result<Self, reqwest::Error> {
        let client = guarded_client(Arc::clone(&guard), lookup)?;
        Ok(Self { client, guard, timeout, clock })
    }

    /// Makes a call within the usual time. Gives the answer, whatever its status, and who gave it.
    pub async fn call(&self, request: &Request) -> Result<(Answer, Option<SocketAddr>), Failure> {
        self.call_within(request, self.timeout).await
    }

    /// The same within another time.
    pub async fn call_within(
        &self,
        request: &Request,
        timeout: Duration,
    ) -> Result<(Answer, Option<SocketAddr>), Failure> {
        let url = Url::parse(&request.url).map_err(|error| {
            Failure::new(Code::InvalidSettings, format!("the URL cannot be read: {error}"))
        })?;
        self.guard.check_url(&url).map_err(|blocked| Failure::new(Code::Blocked, blocked.to_string()))?;
        let method: Method = request
            .method
            .parse()
            .map_err(|_| Failure::new(Code::InvalidSettings, format!("`{}` is no method", request.method)))?;
        let headers = headers(&request.headers)?;
        let is_free = url.host_str().is_some_and(|host| self.guard.allows_host(host));
        let is_tls = url.scheme() == "https";
        let call = async {
            let sending = self.client.request(method, url).headers(headers).body(request.body.clone()).send();
            let response = sending.await.map_err(|error| Failure::of(&error, is_tls))?;
            let peer = response.remote_addr();
            // The resolver has let it through already; this is the belt to its braces.
            if let Some(peer) = peer.filter(|_| !is_free) {
                let judged = self.guard.check_addr(peer.ip());
                judged.map_err(|blocked| Failure::new(Code::Blocked, blocked.to_string()))?;
            }
            let answer = self.read(response).await.map_err(|error| Failure::of(&error, is_tls))?;
            Ok((answer, peer))
        };
        let late =
            |_| Failure::new(Code::TimedOut, format!("no whole answer within {} ms", timeout.as_millis()));
        tokio::time::timeout(timeout, call).await.map_err(late)?
    }

    async fn read(&self, mut response: Response) -> Result<Answer, reqwest::Error> {
        let status = response.status().as_u16();
        let retry_after = self.retry_after(response.headers());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            let room = BODY_MAX.saturating_sub(body.len());
            body.extend(chunk.iter().take(room));
            if chunk.len() >= room {
                break;
            }
        }
        Ok(Answer { status, retry_after, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Seconds, or an HTTP date: as the receiver's own clock sees it, where it tells its time.
    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let wanted = text(RETRY_AFTER)?;
        if let Ok(seconds) = wanted.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let since_epoch = |text: &str| httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok();
        let ours = || Duration::from_millis(self.clock.now().millis().max(0).unsigned_abs());
        let now = text(DATE).and_then(since_epoch).unwrap_or_else(ours);
        Some(since_epoch(wanted)?.saturating_sub(now))
    }
}

/// A client that connects to what the guard lets through, and follows nobody. On a machine without certificates it trusts
/// nobody: that is no reason not to start, and whoever calls https is told.
pub(in crate::deliver) fn guarded_client(
    guard: Arc<Guard>,
    lookup: Arc<dyn Lookup>,
) -> Result<reqwest::Client, reqwest::Error> {
    let resolver = Resolver::new(guard, lookup);
    let build = |builder: reqwest::ClientBuilder| {
        builder
            .user_agent(AGENT)
            .dns_resolver(resolver.clone())
            .redirect(reqwest::redirect::Policy::none())
            // A second attempt is for the workers to decide.
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .http1_max_headers(HEADERS_MAX)
            .tcp_keepalive(KEEP_ALIVE)
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE_FOR)
            .build()
    };
    build(reqwest::Client::builder()).or_else(|error| {
        tracing::warn!(%error, "the system's certificates cannot be read: destinations over https fail");
        let nobody: [reqwest::Certificate; 0] = [];
        build(reqwest::Client::builder().tls_certs_only(nobody))
    })
}

fn headers(wanted: &[(String, String)]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::with_capacity(wanted.len());
    for (name, value) in wanted {
        // The value may be secret: it is not shown.
        let wrong = || {
            Failure::new(Code::InvalidSettings, format!("the header `{name}` is not one that can be sent"))
        };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        if OWN_HEADERS.contains(&name) {
            return Err(wrong());
        }
        headers.append(name, value);
    }
    Ok(headers)
}
