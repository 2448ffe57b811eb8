//! A receiver of deliveries on loopback that does as it is told: it takes, refuses, hangs, drips, resets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// The body as JSON.
    pub(crate) json: Value,
    /// Whether it was answered with 2xx.
    pub(crate) taken: bool,
    /// When it was there.
    pub(crate) at: Instant,
}

impl Received {
    /// The events in it, be it one or a list.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.json.as_array().cloned().unwrap_or_else(|| vec![self.json.clone()])
    }
}

/// What is done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Status(u16),
    /// With these headers, each ending in a line break.
    With(u16, &'static str),
    /// Nothing is ever said.
    Hang,
    /// The connection is cut.
    Reset,
    /// A byte of the body now and then, for ever.
    Drip,
    /// A body without end.
    Endless,
    /// After a while.
    Late(Duration, u16),
}

type Script = Arc<dyn Fn(&Received, usize) -> Reply + Send + Sync>;

/// See the module.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    script: Arc<Mutex<Script>>,
}

impl Receiver {
    /// One that takes everything.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_, _| Reply::Status(200)).await
    }

    /// One that does what the script says of each request and its number, from 0.
    pub(crate) async fn start_with(
        script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            received: Arc::default(),
            script: Arc::new(Mutex::new(Arc::new(script))),
        };
        let own = receiver.clone();
        let mut connections = tokio::task::JoinSet::new();
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let own = own.clone();
                connections.spawn(async move { own.serve(stream).await });
            }
        };
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(accept);
        tasks.detach_all();
        receiver
    }

    /// Does something else from now on.
    pub(crate) fn now(&self, script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// Everything that came.
    pub(crate) fn all(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// How many requests came.
    pub(crate) fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// The events that were taken, in order.
    pub(crate) fn taken(&self) -> Vec<Value> {
        self.all().iter().filter(|r| r.taken).flat_map(Received::events).collect()
    }

    /// Waits until so many events were taken, or fails; returns them.
    #[track_caller]
    pub(crate) fn wait_taken(&self, count: usize) -> impl Future<Output = Vec<Value>> + '_ {
        self.wait(move |receiver| {
            let taken = receiver.taken();
            (taken.len() >= count).then_some(taken)
        })
    }

    /// Waits until something is so.
    #[track_caller]
    pub(crate) fn wait<'a, T: 'a>(
        &'a self,
        mut is_so: impl FnMut(&Self) -> Option<T> + 'a,
    ) -> impl Future<Output = T> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            for _ in 0..3_000 {
                if let Some(found) = is_so(self) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("waited in vain at {caller}; received: {:?}", self.taken());
        }
    }

    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut buffer = Vec::new();
        loop {
            let received = read(&mut stream, &mut buffer).await?;
            let script = self.script.lock().unwrap().clone();
            let reply = {
                let mut all = self.received.lock().unwrap();
                let reply = script(&received, all.len());
                let taken = match reply {
                    Reply::Status(status) | Reply::With(status, _) | Reply::Late(_, status) => {
                        (200..300).contains(&status)
                    }
                    _ => false,
                };
                all.push(Received { taken, ..received });
                reply
            };
            answer(&mut stream, reply).await?;
        }
    }
}

async fn answer(stream: &mut TcpStream, reply: Reply) -> Option<()> {
    let (status, headers) = match reply {
        Reply::Status(status) => (status, ""),
        Reply::With(status, headers) => (status, headers),
        Reply::Late(wait, status) => {
            tokio::time::sleep(wait).await;
            (status, "")
        }
        Reply::Hang => {
            tokio::time::sleep(Duration::from_mins(10)).await;
            return None;
        }
        Reply::Reset => {
            stream.set_zero_linger().ok()?;
            return None;
        }
        Reply::Drip => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await.ok()?;
            loop {
                stream.write_all(b"x").await.ok()?;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 10000000000\r\n\r\n").await.ok()?;
            let block = vec![b'x'; 65_536];
            loop {
                stream.write_all(&block).await.ok()?;
            }
        }
    };
    let text = format!("HTTP/1.1 {status} Whatever\r\n{headers}content-length: 2\r\n\r\nok");
    stream.write_all(text.as_bytes()).await.ok()
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
    let mut lines = text.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < head + 4 + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[head + 4..head + 4 + length].to_vec();
    buffer.drain(..head + 4 + length);
    let json = serde_json::from_slice(&body).unwrap_or_default();
    Some(Received { path, headers, body, json, taken: false, at: Instant::now() })
}
