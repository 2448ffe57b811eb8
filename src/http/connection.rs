//! One connection: how long a client may take to say what it wants, and how long it may keep quiet in between.
//!
//! Hyper has one limit for both, but they are different things: a head that has begun must come quickly, while an idle
//! connection is worth keeping for longer than the proxies in front of us keep theirs (60 s is usual), or they would
//! now and then send a request into a connection that is just being closed.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tower::ServiceExt;

use super::peer::Peer;
use crate::telemetry::metrics;

/// Whether a request of the connection is being answered. Shared by its socket, its service and its answers' bodies.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy(Arc<AtomicBool>);

impl Busy {
    fn is(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// From here until what is returned is dropped.
    fn begin(&self) -> Answering {
        metrics::HTTP_IN_FLIGHT.change(&[], 1.0);
        self.0.store(true, Ordering::Release);
        Answering(self.clone())
    }
}

#[derive(Debug)]
struct Answering(Busy);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
        metrics::HTTP_IN_FLIGHT.change(&[], -1.0);
    }
}

/// A socket on which a request's head, once begun, must come within its time.
#[derive(Debug)]
pub(super) struct Socket<S> {
    stream: S,
    busy: Busy,
    limit: Duration,
    /// When the head that is being read began; from the start for the first one.
    head_began: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl<S> Socket<S> {
    pub(super) fn new(stream: S, busy: Busy, limit: Duration) -> Self {
        let now = Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(now + limit));
        Self { stream, busy, limit, head_began: Some(now), timer }
    }

    /// Ready when the head has taken too long. Only asked when there is nothing to read.
    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(began) = self.head_began else { return Poll::Pending };
        let deadline = began + self.limit;
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if this.busy.is() {
            this.head_began = None;
            return read;
        }
        if read.is_ready() {
            if buf.filled().len() > before {
                this.head_began.get_or_insert_with(Instant::now);
            }
            return read;
        }
        this.poll_too_slow(cx).map(|()| {
            metrics::HTTP_REJECTED.add(&["too_slow"], 1);
            Err(io::Error::new(io::ErrorKind::TimedOut, "the head of the request came too slowly"))
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The routes, telling the socket when they are busy.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) router: Router,
    pub(super) busy: Busy,
    pub(super) peer: Peer,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let answering = self.busy.begin();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer);
        let answered = self.router.clone().oneshot(request);
        answered.map_ok(|response| response.map(|body| Answer { body, _answering: answering })).boxed()
    }
}

/// The body of an answer: until it is sent or given up, the connection is busy.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
