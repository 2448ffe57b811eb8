//! `personas serve`: starts everything, says where, and stops in order when asked to.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::Common;
use crate::app::{App, Overrides, Running};
use crate::config::Config;
use crate::domain::Timestamp;
use crate::telemetry;

/// `SIGTERM` comes from an orchestrator: its load balancer is given that share of the grace period to notice.
const LEAD_SHARE: u32 = 20;

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    common: Common,
    /// Address and port to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Let time stand still at this instant; it then moves only by PUT /v1/test-clock
    #[arg(long, value_name = "TIME", value_parser = instant)]
    test_clock: Option<Timestamp>,
}

fn instant(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "write a timestamp such as 2024-03-01T12:00:00Z".to_owned())
}

pub(super) fn run(serve: &Serve) -> anyhow::Result<ExitCode> {
    let flags = serve.listen.iter().map(|address| ("server.listen", address.to_string())).collect();
    let config = serve.common.load(flags)?;
    telemetry::init(&config.telemetry)?;
    let code = super::runtime()?.block_on(Box::pin(until_stopped(config, serve.test_clock)));
    telemetry::end();
    code
}

async fn until_stopped(config: Config, test_clock: Option<Timestamp>) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let lead = config.server.shutdown_grace / LEAD_SHARE;
    let running = Box::pin(App::start(config, Overrides { test_clock, id_seed: None })).await?;
    greet(&running, &mut io::stdout()).context("standard output")?;
    let (code, lead) = tokio::select! {
        _ = terminate.recv() => (ExitCode::SUCCESS, lead),
        _ = interrupt.recv() => (ExitCode::SUCCESS, Duration::ZERO),
        part = running.ended() => {
            tracing::error!("stopping, because the {part} ended");
            (ExitCode::FAILURE, Duration::ZERO)
        }
    };
    tracing::info!("stopping");
    tokio::select! {
        stopped = running.stop(lead) => stopped?,
        _ = interrupt.recv() => tracing::warn!("stopped at once, as asked a second time"),
    }
    Ok(code)
}

/// Says where the service is, and on the first start what nobody will be shown again.
fn greet(running: &Running, out: &mut impl Write) -> io::Result<()> {
    let (url, made) = (format!("http://{}", running.address()), running.made());
    writeln!(out, "personas {} listens on {url}", env!("CARGO_PKG_VERSION"))?;
    for (what, value) in [("space", &made.space), ("write key", &made.write_key), ("token", &made.token)] {
        if let Some(value) = value {
            writeln!(out, "  {what:<10} {value}")?;
        }
    }
    if let Some(key) = &made.write_key {
        writeln!(out, "These secrets are shown once. Send a first event:")?;
        writeln!(
            out,
            "  curl -u {key}: {url}/v1/track -d '{{\"userId\":\"ada\",\"event\":\"Signed Up\",\"properties\":{{\"plan\":\"pro\"}}}}'"
        )?;
    }
    writeln!(out, "Sign in with a token and look around: {url}/console")?;
    out.flush()
}
