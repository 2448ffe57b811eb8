//! Destinations of the first space, as tests make and wait for them.

use std::time::Duration;

use serde_json::{Value, json};

use super::app::{TestApp, Wish};
use super::receiver::Receiver;

pub(crate) const DESTINATIONS: &str = "/v1/spaces/default/destinations";
pub(crate) const DELIVERIES: &str = "/v1/spaces/default/deliveries";
/// A key for secrets.
pub(crate) const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A service that may send to loopback.
pub(crate) fn sending() -> Wish {
    Wish::default()
        .option("deliver.secret_key", KEY)
        .option("deliver.poll_ms", "20")
        .option("egress.allow_networks", "127.0.0.0/8")
}

impl TestApp {
    /// Makes a webhook to a receiver; returns it.
    pub(crate) async fn make_webhook(&self, name: &str, receiver: &Receiver, more: Value) -> Value {
        let mut settings = json!({"url": format!("{}/hook", receiver.url)});
        settings.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let body = json!({"name": name, "kind": "webhook", "settings": settings, "timeout_ms": 1000});
        self.post(DESTINATIONS, body).await.expect(201).json
    }

    /// Makes a destination want something; returns the subscription.
    pub(crate) async fn subscribe(&self, destination: &Value, body: Value) -> Value {
        let id = destination["id"].as_str().unwrap();
        self.post(&format!("{DESTINATIONS}/{id}/subscriptions"), body).await.expect(201).json
    }

    /// A destination as it is now.
    pub(crate) async fn destination(&self, destination: &Value) -> Value {
        let id = destination["id"].as_str().unwrap();
        self.get(&format!("{DESTINATIONS}/{id}")).await.expect(200).json
    }

    /// Does something to a destination: `pause`, `resume`, `resync`.
    pub(crate) async fn act(&self, destination: &Value, act: &str, body: Value) {
        let id = destination["id"].as_str().unwrap();
        let answer = self.post(&format!("{DESTINATIONS}/{id}/{act}"), body).await;
        assert!(answer.status < 300, "{}", answer.text);
    }

    /// Waits until a destination is as it should be.
    #[track_caller]
    pub(crate) fn wait_destination<'a>(
        &'a self,
        destination: &'a Value,
        is_so: impl Fn(&Value) -> bool + 'a,
    ) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let mut seen = Value::Null;
            for _ in 0..1_500 {
                seen = self.destination(destination).await;
                if is_so(&seen) {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("waited in vain at {caller}: {seen}");
        }
    }

    /// Waits until nothing waits any more.
    pub(crate) async fn wait_sent(&self, destination: &Value) -> Value {
        self.wait_destination(destination, |d| d["deliveries"]["queued"] == 0).await
    }

    /// Deliveries of a destination, newest first.
    pub(crate) async fn deliveries(&self, destination: &Value, more: &str) -> Vec<Value> {
        let id = destination["id"].as_str().unwrap();
        let list =
            self.get(&format!("{DELIVERIES}?destination={id}&limit=1000{more}")).await.expect(200).json;
        list["data"].as_array().unwrap().clone()
    }

    /// Sends a call and waits until it is processed.
    pub(crate) async fn processed(&self, path: &str, body: Value) -> u64 {
        let offset = self.track(path, body).await.expect(200).offset();
        let wait = format!("/v1/spaces/default/pipeline?min_offset={offset}");
        self.get(&wait).await.expect(200);
        offset
    }
}
