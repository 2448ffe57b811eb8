//! Clients that send what the ledger says, to whoever answers, and come again when they are told to.

use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client;
use crate::ledger::{Ledger, Outcome};

/// Pause of a client that was not answered, or was told to come again.
const PAUSE: Duration = Duration::from_millis(25);

/// Where to send.
#[derive(Debug, Clone, Default)]
pub(crate) struct Targets(Arc<RwLock<Vec<String>>>);

impl Targets {
    pub(crate) fn new(urls: &[String]) -> Self {
        Self(Arc::new(RwLock::new(urls.to_vec())))
    }

    /// Somewhere else from now on.
    pub(crate) fn set(&self, urls: &[String]) {
        *self.0.write().unwrap() = urls.to_vec();
    }

    fn pick(&self, turn: usize) -> String {
        let all = self.0.read().unwrap();
        all[turn % all.len()].clone()
    }
}

/// Clients under way.
pub(crate) struct Load {
    stop: CancellationToken,
    clients: JoinSet<()>,
    _governor: JoinSet<()>,
    ledger: Arc<Ledger>,
}

/// How the clients send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) clients: usize,
    /// Pause of each client between two batches.
    pub(crate) pause: Duration,
    /// Calls that may wait to be processed before nothing new is sent for a while.
    pub(crate) lag_max: u64,
}

/// Holds clients back while too much waits to be processed: faults are to find work under way, and not only a backlog.
async fn govern(targets: Targets, lag_max: u64, is_held: watch::Sender<bool>) {
    let client = client::new();
    for turn in 0.. {
        let url = targets.pick(turn);
        let seen = client::try_get(&client, &url, "pipeline");
        if let Ok(Ok(pipeline)) = tokio::time::timeout(Duration::from_secs(1), seen).await {
            is_held.send_replace(pipeline["lag_events"].as_u64().is_some_and(|lag| lag > lag_max));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

impl Load {
    pub(crate) fn start(ledger: &Arc<Ledger>, targets: &Targets, pace: Pace) -> Self {
        let stop = CancellationToken::new();
        let (held, is_held) = watch::channel(false);
        let mut governor = JoinSet::new();
        governor.spawn(govern(targets.clone(), pace.lag_max, held));
        let mut clients = JoinSet::new();
        for number in 0..pace.clients {
            let (ledger, targets, stop) = (Arc::clone(ledger), targets.clone(), stop.clone());
            let mut is_held = is_held.clone();
            clients.spawn(async move {
                let client = client::new();
                let mut turn = number;
                while !stop.is_cancelled() {
                    if !ledger.is_closed() {
                        let goes_on =
                            stop.run_until_cancelled(is_held.wait_for(|held| !held || ledger.is_closed()));
                        let _ = goes_on.await;
                    }
                    let Some(batch) = ledger.take() else { break };
                    if !send(&client, &ledger, batch, &targets.pick(turn)).await {
                        turn += 1;
                        tokio::time::sleep(PAUSE).await;
                    }
                    if pace.pause > Duration::ZERO {
                        stop.run_until_cancelled(tokio::time::sleep(pace.pause)).await;
                    }
                }
            });
        }
        Self { stop, clients, _governor: governor, ledger: Arc::clone(ledger) }
    }

    /// Ends the clients once they have their answers; what nobody knows stays so.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
    }

    /// Sends nothing new, and ends when everything is acknowledged.
    pub(crate) async fn settle(mut self, limit: Duration) {
        self.ledger.close();
        let all = async {
            while let Some(ended) = self.clients.join_next().await {
                ended.unwrap();
            }
        };
        let settled = tokio::time::timeout(limit, all).await;
        assert!(
            settled.is_ok(),
            "not everything is acknowledged after {limit:?}: {:?}",
            self.ledger.summary()
        );
    }
}

/// Sends one batch; whether it was acknowledged.
pub(crate) async fn send(client: &reqwest::Client, ledger: &Ledger, batch: u64, url: &str) -> bool {
    let (body, calls) = ledger.traffic.body(batch);
    let began = Instant::now();
    let outcome = client::track(client, url, body).await;
    ledger.note(batch, calls, &outcome, began.elapsed());
    matches!(outcome, Outcome::Acknowledged(_))
}
