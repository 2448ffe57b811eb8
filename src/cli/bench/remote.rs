//! A server somewhere else: how fast it answers this machine. There is nothing to divide by.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::net::lookup_host;
use url::Url;

use super::Bench;
use super::events::{Traffic, USERS, Users};
use super::fresh::Seen;
use super::load::{Done, Pace};
use super::service::drain;
use super::target::{BATCH, Reads, Target};
use crate::cli::client::Client;
use crate::clock::Clock;

/// Sends events and reads profiles; what came of it, as it is printed.
pub(super) async fn measure(
    bench: &Bench,
    url: &Url,
    write_key: &str,
    token: &str,
) -> anyhow::Result<String> {
    anyhow::ensure!(url.scheme() == "http", "{url}: only http is spoken here");
    let host = url.host_str().context("the URL has no host")?;
    let port = url.port_or_known_default().context("the URL has no port")?;
    let address = lookup_host((host, port)).await?.next().with_context(|| format!("{host} is nowhere"))?;
    // Of another run there may be events already.
    let stream = Clock::System.now().millis().unsigned_abs() << 10;
    let (write_key, token) = (write_key.to_owned(), token.to_owned());
    let mut target = Target { address, host: format!("{host}:{port}"), write_key, token, stream };
    let seconds = Duration::from_secs(bench.seconds.max(1));
    let next = Arc::new(AtomicU64::new(0));
    while next.load(Ordering::Relaxed) < USERS {
        let everybody = Traffic::Sweep(Users::default(), Arc::clone(&next));
        target.send(BATCH, Duration::from_millis(500), everybody, Pace::default()).await?;
    }
    drain(&Client::new(url, &target.token)?).await?;
    let mut said = Vec::new();
    for number in 1..=bench.rounds {
        for (what, done) in [
            ("events a second, 100 a request", target.store(BATCH, seconds).await?),
            ("events a second, one a request", target.store(1, seconds).await?),
            ("profiles read a second", target.reads(Reads::Traits, seconds).await?),
        ] {
            let Done { units, seconds, took } = done;
            said.push((number, what, units as f64 / seconds, Seen::of(took)));
        }
    }
    let mut out = String::new();
    if bench.json {
        let rounds = said.iter().map(|(number, what, rate, took)| {
            json!({"round": number, "what": what, "rate": rate, "ms_p50": took.half, "ms_p99": took.nearly_all,
                "ms_most": took.latest})
        });
        let _memory = writeln!(out, "{:#}", json!({"rounds": rounds.collect::<Vec<_>>()}));
        return Ok(out);
    }
    for (number, what, rate, Seen { half, nearly_all, latest }) in said {
        let _memory = writeln!(
            out,
            "round {number}: {rate:>8.0} {what}; ms p50 {half:.1}, p99 {nearly_all:.1}, at most {latest:.1}"
        );
    }
    Ok(out)
}
