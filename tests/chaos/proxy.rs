//! A way to Postgres that can be slow, silent or cut: TCP on the one side, the socket of the cluster on the other.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What it does to what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Carries it, each piece so many milliseconds late.
    Open(u64),
    /// Takes everything, and hands nothing on: nobody is told.
    Silent,
    /// Refuses.
    Cut,
}

/// See the module.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: watch::Sender<Mode>,
    /// Connections of an older generation than this stay silent for ever.
    generation: Arc<AtomicU64>,
    trap: Trap,
    _tasks: JoinSet<()>,
}

/// Words that are waited for: once they have been handed on to Postgres, nothing else is.
type Trap = Arc<Mutex<Option<&'static str>>>;

impl Proxy {
    /// A proxy to the Postgres whose socket that is.
    pub(crate) async fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, seen) = watch::channel(Mode::Open(0));
        let generation = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let trap = Trap::default();
        let (now, set, sprung) = (Arc::clone(&generation), Arc::clone(&trap), mode.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let of = Generation { now: Arc::clone(&now), own: now.load(Ordering::SeqCst) };
                let trap = (Arc::clone(&set), sprung.clone());
                connections.spawn(connection(stream, socket.clone(), seen.clone(), of, trap));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, mode, generation, trap, _tasks: tasks }
    }

    /// Each piece on its way is so much late.
    pub(crate) fn slow(&self, by: Duration) {
        self.mode.send_replace(Mode::Open(by.as_millis() as u64));
    }

    /// Nothing arrives any more, and nobody is told.
    pub(crate) fn silence(&self) {
        self.mode.send_replace(Mode::Silent);
    }

    /// Goes silent as soon as these words have reached Postgres.
    pub(crate) fn silence_behind(&self, words: &'static str) {
        *self.trap.lock().unwrap() = Some(words);
    }

    /// Waits until it is.
    pub(crate) async fn silent(&self) {
        self.mode.subscribe().wait_for(|mode| *mode == Mode::Silent).await.unwrap();
    }

    /// Carries again what comes on new connections; those there were stay silent, as after a failover.
    pub(crate) fn open_for_new(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.mode.send_replace(Mode::Open(0));
    }

    /// Carries everything again.
    pub(crate) fn open(&self) {
        self.mode.send_replace(Mode::Open(0));
    }

    /// Cuts all connections and takes no new ones.
    pub(crate) fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }
}

struct Generation {
    now: Arc<AtomicU64>,
    own: u64,
}

impl Generation {
    fn is_over(&self) -> bool {
        self.now.load(Ordering::SeqCst) != self.own
    }
}

async fn connection(
    client: TcpStream,
    socket: PathBuf,
    mut mode: watch::Receiver<Mode>,
    of: Generation,
    (trap, sprung): (Trap, watch::Sender<Mode>),
) {
    let first = *mode.borrow();
    if first == Mode::Cut {
        return;
    }
    client.set_nodelay(true).unwrap();
    let Ok(postgres) = UnixStream::connect(socket).await else { return };
    let (client_reads, client_writes) = client.into_split();
    let (postgres_reads, postgres_writes) = postgres.into_split();
    let of = Arc::new(of);
    let springs = move |piece: &[u8]| {
        let mut trap = trap.lock().unwrap();
        let words = trap.map_or(&[][..], str::as_bytes);
        if !words.is_empty() && piece.windows(words.len()).any(|part| part == words) {
            *trap = None;
            sprung.send_replace(Mode::Silent);
        }
    };
    let there = carry(client_reads, postgres_writes, mode.clone(), Arc::clone(&of), springs);
    let back = carry(postgres_reads, client_writes, mode.clone(), of, |_| {});
    let cut = async { mode.wait_for(|mode| *mode == Mode::Cut).await.is_ok() };
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = cut => {}
    }
}

/// Hands on what is read, as the mode says, and shows what it has handed on.
async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut mode: watch::Receiver<Mode>,
    of: Arc<Generation>,
    handed_on: impl Fn(&[u8]),
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        loop {
            let now = *mode.borrow_and_update();
            match now {
                Mode::Open(late) if !of.is_over() => {
                    if late > 0 {
                        tokio::time::sleep(Duration::from_millis(late)).await;
                    }
                    break;
                }
                _ => {
                    if mode.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        handed_on(&buffer[..count]);
    }
    if *mode.borrow() == Mode::Silent || of.is_over() {
        // Nobody hears that the other one has hung up, either.
        std::future::pending::<()>().await;
    }
}
