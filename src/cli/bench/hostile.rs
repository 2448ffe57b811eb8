//! A hostile receiver beside good ones: how much later the good ones are told, and how much more memory the service takes.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::fresh::{Seen, post};
use super::machine;
use super::receiver::{Manner, Receiver};
use super::service::Service;

/// Destinations with good receivers.
const GOOD: usize = 2;
/// People whose changes are told.
const PEOPLE: u64 = 2_000;
/// Events at a time, and how often: 500 a second, each of them a change for every destination.
const EVENTS: u64 = 25;
const EVERY: Duration = Duration::from_millis(50);

/// What was seen of the good ones in one stretch of time.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    /// How late 99 of 100 changes were at most, in milliseconds.
    late: f64,
    /// Of the service, in MiB: half of the time it was less.
    memory: f64,
    sent: u64,
}

/// The same without and with the hostile one: without is the middle of before and after.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside {
    pub(super) late_without: f64,
    pub(super) late_with: f64,
    pub(super) memory_without: f64,
    pub(super) memory_with: f64,
    /// Requests that the hostile one got.
    pub(super) requests: u64,
    /// Events that were sent.
    pub(super) sent: u64,
}

impl Service {
    /// Sends a steady stream of changes to good receivers, for a while alone, then beside a hostile one, then alone again.
    pub(super) async fn beside_a_hostile_one(
        &mut self,
        seconds: Duration,
        number: u64,
    ) -> anyhow::Result<Beside> {
        let (key, event) = (format!("counted_{number}"), format!("Counted {number}"));
        self.define("computed-traits", key.clone(), &format!("event('{event}').count()")).await?;
        self.live("computed-traits", &key).await?;
        let (mut good, mut destinations) = (Vec::new(), Vec::new());
        for n in 0..GOOD {
            let receiver = Receiver::start(Manner::WithAWatch).await?;
            let destination = self.destination(&receiver, &format!("good_{number}_{n}"), 1).await?;
            self.subscribe(&destination, "computed_trait", &key).await?;
            good.push(receiver);
            destinations.push(destination);
        }
        let warm = self.stretch(&event, (&good, &destinations), seconds / 2).await?;
        let before = self.stretch(&event, (&good, &destinations), seconds).await?;
        let bad = Receiver::start(Manner::Badly).await?;
        let hostile = self.destination(&bad, &format!("hostile_{number}"), 1).await?;
        self.subscribe(&hostile, "computed_trait", &key).await?;
        let beside = self.stretch(&event, (&good, &destinations), seconds).await?;
        self.forget(&hostile).await?;
        let after = self.stretch(&event, (&good, &destinations), seconds).await?;
        for destination in &destinations {
            self.forget(destination).await?;
        }
        Ok(Beside {
            late_without: f64::midpoint(before.late, after.late),
            late_with: beside.late,
            memory_without: f64::midpoint(before.memory, after.memory),
            memory_with: beside.memory,
            requests: bad.taken(),
            sent: [warm, before, beside, after].iter().map(|stretch| stretch.sent).sum(),
        })
    }

    async fn stretch(
        &self,
        event: &str,
        (good, destinations): (&[Receiver], &[String]),
        seconds: Duration,
    ) -> anyhow::Result<Stretch> {
        let (writer, started) = (self.writer()?, Instant::now());
        let (mut memory, mut sent) = (Vec::new(), 0);
        while started.elapsed() < seconds {
            tokio::time::sleep_until(started + EVERY * (sent / EVENTS) as u32).await;
            let one =
                |n| json!({"type": "track", "userId": format!("counted-{}", n % PEOPLE), "event": event});
            let batch: Vec<Value> = (sent..sent + EVENTS).map(one).collect();
            post(writer.clone(), json!({ "batch": batch }).to_string()).await?;
            sent += EVENTS;
            memory.push(machine::memory(self.pid()));
        }
        self.drain().await?;
        for destination in destinations {
            self.sent(destination).await?;
        }
        let mut late = Vec::new();
        for receiver in good {
            late.extend(receiver.late());
        }
        let expected = sent as usize * good.len();
        // One that was answered too late comes once more.
        anyhow::ensure!(late.len() >= expected, "{} of {expected} changes arrived", late.len());
        Ok(Stretch { late: Seen::of(late).nearly_all, memory: Seen::of(memory).half, sent })
    }
}
