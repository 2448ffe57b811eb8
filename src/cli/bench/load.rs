//! A load client that costs little: plain HTTP/1.1 on kept connections, each waiting for its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Pause after a 503, and while the load is held back.
const PAUSE: Duration = Duration::from_millis(5);

/// Writes the next request; says how many units it is.
pub(super) type Source = Box<dyn FnMut(&mut Vec<u8>) -> u64 + Send>;

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) units: u64,
    pub(super) seconds: f64,
    /// Milliseconds from the moment each request should have been sent until it was answered well, in no order.
    pub(super) took: Vec<f64>,
}

impl Done {
    pub(super) fn rate(&self) -> f64 {
        self.units as f64 / self.seconds
    }
}

/// How fast is sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    /// Not while this is set.
    pub(super) hold: Arc<AtomicBool>,
    /// One request of each connection in such a time, however long the answers take; as fast as possible otherwise.
    pub(super) every: Option<Duration>,
}

/// Sends from `sources`, one connection each, for a while.
pub(super) async fn drive(
    address: SocketAddr,
    sources: Vec<Source>,
    seconds: Duration,
    pace: Pace,
) -> anyhow::Result<Done> {
    let started = Instant::now();
    let (mut workers, connections) = (JoinSet::new(), sources.len().max(1) as u32);
    for (n, source) in (0_u32..).zip(sources) {
        // They do not all send at once.
        let first = started + pace.every.unwrap_or_default() * n / connections;
        workers.spawn(work(address, source, (first, started + seconds), pace.clone()));
    }
    let mut total = Done::default();
    while let Some(done) = workers.join_next().await {
        let done = done.context("a load connection")??;
        total.units += done.units;
        total.took.extend(done.took);
    }
    // Requests under way at the end are counted, and so is their time.
    total.seconds = started.elapsed().as_secs_f64();
    Ok(total)
}

async fn work(
    address: SocketAddr,
    mut source: Source,
    (mut next, end): (Instant, Instant),
    Pace { hold, every }: Pace,
) -> anyhow::Result<Done> {
    let mut connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    let (mut request, mut answer, mut done) = (Vec::new(), Vec::new(), Done::default());
    while Instant::now() < end {
        if hold.load(Ordering::Relaxed) {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let mut intended = None;
        if let Some(every) = every {
            tokio::time::sleep_until(next).await;
            intended = Some(next);
            next += every;
        }
        let units = source(&mut request);
        let intended = intended.unwrap_or_else(Instant::now);
        loop {
            connection.write_all(&request).await?;
            match read_answer(&mut connection, &mut answer).await? {
                200..=299 => break,
                // The same events again: none of them were taken.
                503 => tokio::time::sleep(PAUSE).await,
                status => bail!("answered {status}: {}", String::from_utf8_lossy(&answer)),
            }
        }
        done.took.push(intended.elapsed().as_secs_f64() * 1e3);
        done.units += units;
    }
    Ok(done)
}

/// Reads one whole answer; its status.
async fn read_answer(connection: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<u16> {
    buffer.clear();
    let head = loop {
        if connection.read_buf(buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        if let Some(at) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default()).to_ascii_lowercase();
    let status = text.get(9..12).and_then(|digits| digits.parse().ok()).context("no status line")?;
    let length = text.split("\r\ncontent-length:").nth(1).and_then(|rest| rest.lines().next());
    let length: usize = length.map_or(Ok(0), |digits| digits.trim().parse()).context("content-length")?;
    while buffer.len() < head + length {
        if connection.read_buf(buffer).await? == 0 {
            bail!("the server closed the connection within an answer");
        }
    }
    Ok(status)
}
