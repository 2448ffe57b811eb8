//! Receivers of deliveries in this process: one that takes everything, one that looks at the time, too, and one that does
//! all that a receiver should not do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::domain::Timestamp;

/// Longer than any time-out.
const FOR_EVER: Duration = Duration::from_mins(10);
const A_SECOND: Duration = Duration::from_secs(1);
const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// How a receiver behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// It takes every request.
    Well,
    /// The same, and looks how late each change is: one in each request.
    WithAWatch,
    /// As [`Misdeed`] says.
    Badly,
}

/// What a hostile receiver does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Misdeed {
    /// None: who fails always is only looked at now and then.
    None,
    Fails,
    Hangs,
    /// A byte of the body in a second.
    Drips,
    /// A body without end.
    Floods,
    Redirects,
    /// Asks to be left alone for a second.
    IsBusy,
    Resets,
}

impl Misdeed {
    /// Of the request with this number. Few of them spoil all.
    const fn of(number: u64) -> Self {
        match number % 32 {
            1 | 9 | 17 | 25 => Self::Fails,
            3 | 19 => Self::Floods,
            5 | 21 => Self::Resets,
            7 | 23 => Self::Redirects,
            11 => Self::Hangs,
            13 => Self::Drips,
            31 => Self::IsBusy,
            _ => Self::None,
        }
    }
}

/// See the module.
pub(super) struct Receiver {
    url: String,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    requests: AtomicU64,
    /// How late changes were, in milliseconds.
    late: Mutex<Vec<f64>>,
}

impl Receiver {
    pub(super) async fn start(manner: Manner) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&own);
                connections.spawn(async move {
                    // Whoever sends ends the connection when it likes.
                    let _gone = answer_all(stream, manner, &shared).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { url, shared, _serving: serving })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Requests that came so far.
    pub(super) fn taken(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How late the changes since the last look were, in milliseconds.
    pub(super) fn late(&self) -> Vec<f64> {
        std::mem::take(&mut *self.shared.late.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn answer_all(stream: TcpStream, manner: Manner, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut stream, mut line, mut body) = (BufReader::new(stream), String::new(), Vec::new());
    loop {
        let mut length = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
            if line == "\r\n" {
                break;
            }
        }
        body.resize(length, 0);
        stream.read_exact(&mut body).await?;
        let number = shared.requests.fetch_add(1, Ordering::Relaxed);
        match manner {
            Manner::Well => stream.get_mut().write_all(TAKEN).await?,
            Manner::WithAWatch => {
                if let Some(late) = lateness(&body, Clock::System.now()) {
                    shared.late.lock().unwrap_or_else(PoisonError::into_inner).push(late);
                }
                stream.get_mut().write_all(TAKEN).await?;
            }
            Manner::Badly => misbehave(stream.get_mut(), Misdeed::of(number)).await?,
        }
    }
}

async fn misbehave(stream: &mut TcpStream, misdeed: Misdeed) -> std::io::Result<()> {
    let gone = || Err(std::io::ErrorKind::BrokenPipe.into());
    match misdeed {
        Misdeed::None => stream.write_all(TAKEN).await,
        Misdeed::Fails => stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await,
        Misdeed::Redirects => {
            let text = b"HTTP/1.1 302 There\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(text).await
        }
        Misdeed::IsBusy => {
            stream.write_all(b"HTTP/1.1 429 No\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n").await
        }
        Misdeed::Hangs => {
            tokio::time::sleep(FOR_EVER).await;
            gone()
        }
        Misdeed::Resets => {
            stream.set_zero_linger()?;
            gone()
        }
        Misdeed::Drips => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(A_SECOND).await;
            }
        }
        Misdeed::Floods => {
            stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 10000000000\r\n\r\n").await?;
            let block = vec![b'x'; 65_536];
            loop {
                stream.write_all(&block).await?;
            }
        }
    }
}

/// How long ago the change of a body happened, in milliseconds.
fn lateness(body: &[u8], now: Timestamp) -> Option<f64> {
    let event: serde_json::Value = serde_json::from_slice(body).ok()?;
    let at = Timestamp::parse(event.get("timestamp")?.as_str()?)?;
    Some((now.millis() - at.millis()) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_receiver_does_everything_and_some_things_well() {
        let done: Vec<Misdeed> = (0..32).map(Misdeed::of).collect();
        for misdeed in [
            Misdeed::Fails,
            Misdeed::Hangs,
            Misdeed::Drips,
            Misdeed::Floods,
            Misdeed::Redirects,
            Misdeed::IsBusy,
            Misdeed::Resets,
        ] {
            assert!(done.contains(&misdeed), "{misdeed:?}");
        }
        let well = done.iter().filter(|misdeed| **misdeed == Misdeed::None).count();
        assert!((16..24).contains(&well), "{well}");
    }

    #[test]
    fn a_change_is_as_late_as_its_time_says() {
        let now = Timestamp::from_millis(1_500);
        assert_eq!(lateness(br#"{"timestamp": "1970-01-01T00:00:01.250Z"}"#, now), Some(250.0));
        assert_eq!(lateness(b"{}", now), None);
    }

    #[tokio::test]
    async fn receivers_count_and_look_at_the_time() {
        let receiver = Receiver::start(Manner::WithAWatch).await.unwrap();
        let mut stream =
            TcpStream::connect(receiver.url().trim_matches(['h', 't', 'p', ':', '/'])).await.unwrap();
        let body = format!(r#"{{"timestamp": "{}"}}"#, Clock::System.now());
        let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut answer = vec![0; TAKEN.len()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!((answer.as_slice(), receiver.taken()), (TAKEN, 1));
        let late = receiver.late();
        assert!(late.len() == 1 && (0.0..10_000.0).contains(&late[0]), "{late:?}");
        assert_eq!(receiver.late(), Vec::<f64>::new());
    }
}
