//! A server that load is sent to: one of this bench, a service made for comparison, or one somewhere else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::events::{Generator, Traffic, Users};
use super::load::{Done, Pace, Source, drive};
use crate::clock::Clock;

/// The space everything happens in.
pub(super) const SPACE: &str = "/v1/spaces/default";
/// Events in a request of many.
pub(super) const BATCH: u64 = 100;
pub(super) const BATCH_CONNECTIONS: u64 = 16;
const SINGLE_CONNECTIONS: u64 = 64;
const READ_CONNECTIONS: u64 = 64;

/// What is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reads {
    /// The traits of users, any of them.
    Traits,
    /// The sizes of audiences, any of so many.
    Sizes(u64),
}

/// Where it is, and what opens it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// The name it is called by.
    pub(super) host: String,
    pub(super) write_key: String,
    pub(super) token: String,
    /// Every generator has another one, so that no event comes twice.
    pub(super) stream: u64,
}

impl Target {
    /// Sends events on many connections, each as fast as it is answered, or one request in every such time.
    pub(super) async fn send(
        &mut self,
        events: u64,
        seconds: Duration,
        traffic: Traffic,
        pace: Pace,
    ) -> anyhow::Result<Done> {
        let basic = STANDARD.encode(format!("{}:", self.write_key));
        let head = format!(
            "POST /v1/batch HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {basic}\r\nContent-Type: application/json\r\n",
            self.host
        );
        let connections = if events == 1 { SINGLE_CONNECTIONS } else { BATCH_CONNECTIONS };
        let sources = (0..connections).map(|_| {
            let mut generator = self.generator(traffic.clone());
            let head = head.clone();
            let source: Source = Box::new(move |out| {
                generator.request(events, &head, out);
                events
            });
            source
        });
        let sources = sources.collect();
        drive(self.address, sources, seconds, pace).await
    }

    /// G1 and G2: events a second, so many in each request.
    pub(super) async fn store(&mut self, events: u64, seconds: Duration) -> anyhow::Result<Done> {
        self.send(events, seconds, Traffic::Uniform(Users::default()), Pace::default()).await
    }

    /// G7 and G10: answers a second.
    pub(super) async fn reads(&mut self, what: Reads, seconds: Duration) -> anyhow::Result<Done> {
        let head = format!("HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n", self.host, self.token);
        let sources = (0..READ_CONNECTIONS).map(|_| {
            let mut generator = self.generator(Traffic::Uniform(Users::default()));
            let head = head.clone();
            let source: Source = Box::new(move |out| {
                let number = generator.random();
                let path = match what {
                    Reads::Traits => {
                        let user = Users::default().id(number);
                        format!("collections/users/profiles/user_id:{user}/traits?limit=20")
                    }
                    Reads::Sizes(audiences) => format!("audiences/audience_{}/size", number % audiences),
                };
                out.clear();
                out.extend_from_slice(format!("GET {SPACE}/{path} {head}").as_bytes());
                1
            });
            source
        });
        let sources = sources.collect();
        drive(self.address, sources, seconds, Pace::default()).await
    }

    fn generator(&mut self, traffic: Traffic) -> Generator {
        self.stream += 1;
        Generator::new(self.stream, Clock::System.now(), traffic)
    }
}

impl Pace {
    /// As fast as it is answered, but not while `hold` is set.
    pub(super) fn held(hold: &Arc<std::sync::atomic::AtomicBool>) -> Self {
        Self { hold: Arc::clone(hold), every: None }
    }
}
