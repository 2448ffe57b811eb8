//! The accept loop: HTTP/1.1 with a limit on everything.
//!
//! Axum's own server has no time limit for a request's head (measured: half-sent requests stayed open for ever) and
//! takes headers of hundreds of kilobytes, so hyper is driven directly.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Busy, Service, Socket};
use super::peer::Peer;
use super::tls::Tls;
use crate::telemetry::metrics;

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// How long a connection may be idle: longer than the usual proxy in front of us.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How often it is looked whether the certificate has changed.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Pause after a failed accept: no file descriptor free, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Limits of the server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at the same time; more wait in the system's queue.
    pub connections_max: usize,
    /// Time for a request's head, from its first byte.
    pub header_timeout: Duration,
    /// Time to finish what is under way when the server stops.
    pub shutdown_grace: Duration,
}

/// A listening server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    limits: Limits,
    /// Connections are encrypted.
    tls: Option<Arc<Tls>>,
}

impl Server {
    /// Begins to listen.
    pub async fn bind(address: SocketAddr, limits: Limits, tls: Option<Tls>) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, limits, tls: tls.map(Arc::new) })
    }

    /// The address, with the port that was found for port 0.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`; then takes no more connections, finishes the requests under way, and cuts off what
    /// takes longer than the grace period.
    pub async fn run(self, router: Router, shutdown: CancellationToken) {
        let Self { listener, limits, tls } = self;
        let (graceful, tasks, cut_off) =
            (GracefulShutdown::new(), TaskTracker::new(), CancellationToken::new());
        let places = Arc::new(Semaphore::new(limits.connections_max));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(KEEP_ALIVE)
            .max_buf_size(HEAD_BYTES_MAX)
            .keep_alive(true)
            .half_close(false);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            let next = async {
                // The place comes first: what has none is not even accepted.
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                next = next => next,
                _ = looks.tick(), if tls.is_some() => {
                    if let Some(tls) = &tls {
                        tls.look_again();
                    }
                    continue;
                }
                () = shutdown.cancelled() => break,
            };
            let Some((stream, address)) = prepared(accepted).await else { continue };
            let (watcher, cut_off) = (graceful.watcher(), cut_off.clone());
            let (http, router, acceptor) = (http.clone(), router.clone(), tls.as_deref().map(Tls::acceptor));
            tasks.spawn(async move {
                metrics::HTTP_CONNECTIONS.change(&[], 1.0);
                let connection = async {
                    let is_encrypted = acceptor.is_some();
                    let Some(stream) = greeted(stream, acceptor, limits.header_timeout).await else {
                        return Ok(());
                    };
                    let busy = Busy::default();
                    let socket = Socket::new(stream, busy.clone(), limits.header_timeout);
                    let peer = Peer { address: address.ip(), is_encrypted };
                    let service = Service { router, busy, peer };
                    watcher.watch(http.serve_connection(TokioIo::new(socket), service)).await
                };
                tokio::select! {
                    ended = connection => {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "a connection ended early: {error}");
                        }
                    }
                    () = cut_off.cancelled() => {}
                }
                metrics::HTTP_CONNECTIONS.change(&[], -1.0);
                drop(place);
            });
        }
        drop(listener);
        tasks.close();
        if tokio::time::timeout(limits.shutdown_grace, graceful.shutdown()).await.is_err() {
            tracing::warn!("{} connections took longer than the grace period and are cut off", tasks.len());
        }
        cut_off.cancel();
        tasks.wait().await;
    }
}

/// The connection once both sides have agreed on its encryption, where there is to be any. A client that does not speak TLS,
/// or takes too long, is gone.
async fn greeted(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    limit: Duration,
) -> Option<Either<TcpStream, TlsStream<TcpStream>>> {
    let Some(acceptor) = acceptor else { return Some(Either::Left(stream)) };
    match tokio::time::timeout(limit, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(Either::Right(stream)),
        Ok(Err(error)) => tracing::debug!(%error, "no TLS with a client: {error}"),
        Err(_) => tracing::debug!("a client took too long to agree on TLS"),
    }
    metrics::HTTP_REJECTED.add(&["tls"], 1);
    None
}

async fn prepared(accepted: io::Result<(TcpStream, SocketAddr)>) -> Option<(TcpStream, SocketAddr)> {
    match accepted {
        Ok((stream, address)) => {
            // Answers are small and complete: waiting for more to send only delays them.
            let _kept_waiting = stream.set_nodelay(true);
            Some((stream, address))
        }
        Err(error) => {
            let is_the_peers = matches!(
                error.kind(),
                io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionRefused
            );
            if !is_the_peers {
                tracing::error!(%error, "could not accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}
