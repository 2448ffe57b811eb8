//! What destinations may reach: whatever way a forbidden address is written, whatever a name says and wherever a receiver
//! leads to, a canary that listens on this machine never sees a connection.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use futures_util::future::BoxFuture;
use personas::clock::Clock;
use personas::deliver::guard::{Guard, Lookup, Settings};
use personas::deliver::http::{Code, Failure, Transport};
use personas::deliver::kind::{Answer, Request};

/// A listener on every address of this machine that counts who comes.
struct Canary {
    port: u16,
    seen: Arc<AtomicUsize>,
}

impl Canary {
    fn start() -> Self {
        Self::with(TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap())
    }

    /// Listens on one address only.
    fn start_at(address: &str) -> Self {
        Self::with(TcpListener::bind(address).unwrap())
    }

    fn with(listener: TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&seen);
        thread::spawn(move || {
            for _ in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let canary = Self { port, seen };
        // It sings when it should.
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        while canary.seen() == 0 {
            assert!(Instant::now() < until, "the canary does not hear");
            thread::sleep(Duration::from_millis(1));
        }
        canary.seen.store(0, Ordering::SeqCst);
        canary
    }

    fn seen(&self) -> usize {
        // Who was let through may still be on the way.
        thread::sleep(Duration::from_millis(50));
        self.seen.load(Ordering::SeqCst)
    }
}

/// A receiver on 127.0.0.1 that does as it is told with each connection.
pub(crate) fn receiver(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(connection));
        }
    });
    port
}

/// Reads a request's head, and what came with it.
pub(crate) fn read_request(connection: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    while !read.windows(4).any(|window| window == b"\r\n\r\n") {
        match connection.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => read.extend_from_slice(&buffer[..length]),
        }
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// A receiver that gives the same answer to everybody.
pub(crate) fn answering(answer: impl Into<String>) -> u16 {
    let answer = answer.into();
    receiver(move |mut connection| {
        read_request(&mut connection);
        connection.write_all(answer.as_bytes()).unwrap();
    })
}

/// Every name is 127.0.0.1, as bad as a name can be; but `nowhere.…` is not known.
#[derive(Debug)]
struct Loopback;

impl Lookup for Loopback {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            if host.starts_with("nowhere.") {
                return Err(io::Error::other("no such name"));
            }
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        })
    }
}

/// A transport that may call these ports, and the host `receiver.test`, which is this machine.
pub(crate) fn transport(ports: Vec<u16>, timeout: Duration) -> Transport {
    let settings = Settings { ports, allow_hosts: vec!["receiver.test".to_owned()], ..Settings::default() };
    let clock = Clock::test(personas::domain::Timestamp::parse("2026-01-01T00:00:00Z").unwrap());
    Transport::new(Arc::new(Guard::new(&settings)), Arc::new(Loopback), timeout, clock).unwrap()
}

pub(crate) fn request(url: &str) -> Request {
    Request {
        items: 0..1,
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        secret_headers: Vec::new(),
        body: b"{}".to_vec(),
    }
}

/// Calls `receiver.test` at a port.
pub(crate) async fn call(port: u16, timeout_ms: u64) -> Result<Answer, Failure> {
    let transport = transport(vec![port], Duration::from_millis(timeout_ms));
    transport.call(&request(&format!("http://receiver.test:{port}/hook"))).await.map(|(answer, _)| answer)
}

/// Ways to write an address of this machine or of a network that is not public; `P` is the canary's port.
const SPELLINGS: [&str; 78] = [
    "http://127.0.0.1:P/",
    "https://127.0.0.1:P/",
    "http://127.0.0.2:P/",
    "http://127.255.255.254:P/",
    "http://127.1:P/",
    "http://127.0.1:P/",
    "http://2130706433:P/",
    "http://0x7f000001:P/",
    "http://0x7f.0.0.1:P/",
    "http://0x7f.1:P/",
    "http://0x7F.0x0.0x0.0x1:P/",
    "http://017700000001:P/",
    "http://0177.0.0.1:P/",
    "http://0177.0.0.01:P/",
    "http://0177.1:P/",
    "http://00000177.0.0.1:P/",
    "http://127.0.0.1.:P/",
    "http://127.0x0.0.1:P/",
    "http://127.0.0.0x1:P/",
    "http://0:P/",
    "http://0.0.0.0:P/",
    "http://0x0:P/",
    "http://00.00.00.00:P/",
    "http:127.0.0.1:P/",
    "http:/127.0.0.1:P/",
    "http:///127.0.0.1:P/",
    "http:////127.0.0.1:P/",
    "http:\\\\127.0.0.1:P/",
    "http://\t127.0.0.1:P/",
    "http://127.0.\n0.1:P/",
    " http://127.0.0.1:P/",
    "HTTP://127.0.0.1:P/",
    "http://１２７.０.０.１:P/",
    "http://①②⑦.⓪.⓪.①:P/",
    "http://127。0。0。1:P/",
    "http://127．0．0．1:P/",
    "http://%31%32%37.0.0.1:P/",
    "http://127%2e0%2e0%2e1:P/",
    "http://example.com@127.0.0.1:P/",
    "http://example.com:80@127.0.0.1:P/",
    "http://example.com%40@127.0.0.1:P/",
    "http://127.0.0.1:P#@example.com/",
    "http://127.0.0.1:P?@example.com/",
    "http://127.0.0.1:P\\@example.com/",
    "http://[::1]:P/",
    "http://[0:0:0:0:0:0:0:1]:P/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]:P/",
    "http://[::0001]:P/",
    "http://[::]:P/",
    "http://[::ffff:127.0.0.1]:P/",
    "http://[::ffff:7f00:1]:P/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:P/",
    "http://[::127.0.0.1]:P/",
    "http://[::ffff:0:127.0.0.1]:P/",
    "http://[64:ff9b::127.0.0.1]:P/",
    "http://[64:ff9b:1::127.0.0.1]:P/",
    "http://[2002:7f00:1::]:P/",
    "http://[2001:0:7f00:1::]:P/",
    "http://[fe80::1]:P/",
    "http://[fe80::1%25lo]:P/",
    "http://[fc00::1]:P/",
    "http://[fd00:ec2::254]:P/latest/meta-data/",
    "http://[::ffff:169.254.169.254]:P/latest/meta-data/",
    "http://169.254.169.254:P/latest/meta-data/",
    "http://2852039166:P/latest/meta-data/",
    "http://0xa9fea9fe:P/latest/meta-data/",
    "http://0251.0376.0251.0376:P/latest/meta-data/",
    "http://metadata.google.internal:P/computeMetadata/v1/",
    "http://metadata:P/",
    "http://instance-data:P/",
    "http://localhost:P/",
    "http://LOCALHOST:P/",
    "http://localhost.:P/",
    "http://ｌｏｃａｌｈｏｓｔ:P/",
    "http://any.localhost:P/",
    "http://ip6-localhost:P/",
    "http://harmless.example:P/",
    "http://127.0.0.1.harmless.example:P/",
];

#[tokio::test]
async fn no_spelling_of_a_forbidden_address_reaches_the_canary() {
    let canary = Canary::start();
    let transport = transport(vec![80, 443, canary.port], Duration::from_secs(5));
    for spelling in SPELLINGS {
        let url = spelling.replace(":P", &format!(":{}", canary.port));
        let failure = transport.call(&request(&url)).await.expect_err(&url);
        let is_refused = matches!(failure.code, Code::Blocked | Code::InvalidSettings);
        assert!(is_refused, "{url}: {failure}");
    }
    assert_eq!(canary.seen(), 0);
}

#[tokio::test]
async fn other_protocols_and_ports_are_not_called() {
    let canary = Canary::start();
    let transport = transport(vec![80], Duration::from_secs(5));
    for url in [
        format!("http://example.com:{}/", canary.port),
        "http://example.com:22/".to_owned(),
        "ftp://example.com/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://example.com/".to_owned(),
        "receiver.test/hook".to_owned(),
        String::new(),
    ] {
        let failure = transport.call(&request(&url)).await.expect_err(&url);
        assert!(matches!(failure.code, Code::Blocked | Code::InvalidSettings), "{url}: {failure}");
    }
    assert_eq!(canary.seen(), 0);
}

#[tokio::test]
async fn no_redirect_leads_to_the_canary() {
    let canary = Canary::start();
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        for target in [
            "http://127.0.0.1",
            "//127.0.0.1",
            "http://[::1]",
            "http://harmless.example",
            "http://receiver.test",
        ] {
            let location = format!("Location: {target}:{}/", canary.port);
            let refresh = format!("Refresh: 0; url={target}:{}/", canary.port);
            let port = answering(format!(
                "HTTP/1.1 {status}\r\n{location}\r\n{refresh}\r\nContent-Length: 0\r\n\r\n"
            ));
            let transport = transport(vec![port, canary.port], Duration::from_secs(5));
            let (answer, peer) =
                transport.call(&request(&format!("http://receiver.test:{port}/"))).await.expect(status);
            assert_eq!(answer.status.to_string(), status[..3]);
            assert_eq!(peer.map(|peer| peer.port()), Some(port));
        }
    }
    assert_eq!(canary.seen(), 0);
}

#[tokio::test]
async fn a_request_arrives_as_it_was_made() {
    let (tell, told) = std::sync::mpsc::channel();
    let port = receiver(move |mut connection| {
        tell.send(read_request(&mut connection)).unwrap();
        connection.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    let answer = call(port, 5_000).await.unwrap();
    assert_eq!(answer, Answer { status: 202, retry_after: None, body: "ok".to_owned() });
    let head = told.recv().unwrap().to_lowercase();
    assert!(head.starts_with("post /hook http/1.1\r\n"), "{head}");
    for line in [
        format!("host: receiver.test:{port}"),
        "content-type: application/json".to_owned(),
        "content-length: 2".to_owned(),
        format!("user-agent: personas/{}", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(head.contains(&line), "{line} is not in {head}");
    }
    assert!(!head.contains("accept-encoding"), "{head}");
}

#[tokio::test]
async fn headers_of_the_connection_cannot_be_set() {
    let canary = Canary::start();
    let transport = transport(vec![canary.port], Duration::from_secs(5));
    for (name, value) in [
        ("Host", "other"),
        ("content-length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("connection", "close"),
        ("x-a", "b\r\nx-c: d"),
        ("x y", "z"),
        ("", "z"),
    ] {
        let mut request = request(&format!("http://receiver.test:{}/", canary.port));
        request.headers.push((name.to_owned(), value.to_owned()));
        let failure = transport.call(&request).await.expect_err(name);
        assert_eq!(failure.code, Code::InvalidSettings, "{name}");
        assert!(!failure.message.contains(value), "{failure}");
    }
    assert_eq!(canary.seen(), 0);
}

/// Says one address first and another from then on.
#[derive(Debug, Default)]
struct Fickle {
    asked: AtomicUsize,
}

impl Lookup for Fickle {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let is_first = self.asked.fetch_add(1, Ordering::SeqCst) == 0;
        let addr = if is_first { Ipv4Addr::new(127, 0, 0, 2) } else { Ipv4Addr::LOCALHOST };
        Box::pin(async move { Ok(vec![addr.into()]) })
    }
}

/// 127.0.0.2 stands for a public address here: the same machine, and yet another one. Other systems do not have it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_name_that_changes_its_mind_does_not_lead_to_the_canary() {
    let canary = Canary::start_at("127.0.0.1:0");
    let receiver = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), canary.port)).unwrap();
    thread::spawn(move || {
        for mut connection in receiver.incoming().flatten() {
            read_request(&mut connection);
            connection
                .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
        }
    });
    let settings = Settings {
        ports: vec![canary.port],
        allow_networks: vec!["127.0.0.2/32".parse().unwrap()],
        ..Settings::default()
    };
    let lookup = Arc::new(Fickle::default());
    let transport = Transport::new(
        Arc::new(Guard::new(&settings)),
        lookup.clone(),
        Duration::from_secs(5),
        Clock::System,
    );
    let (transport, request) =
        (transport.unwrap(), request(&format!("http://rebind.example:{}/", canary.port)));
    let (answer, peer) = transport.call(&request).await.unwrap();
    assert_eq!((answer.status, peer.map(|peer| peer.ip().to_string()).as_deref()), (200, Some("127.0.0.2")));
    for _ in 0..3 {
        let failure = transport.call(&request).await.expect_err("led astray");
        assert_eq!(failure.code, Code::Blocked, "{failure}");
    }
    assert_eq!((lookup.asked.load(Ordering::SeqCst), canary.seen()), (4, 0));
}

/// Runs another test of this file in a process of its own, in another environment.
fn passes_with(test: &str, variables: &[(&str, &str)]) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("egress::{test}")]).envs(variables.iter().copied());
    let output = command.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

#[test]
fn proxies_of_the_environment_are_not_used() {
    let canary = Canary::start();
    let proxy = format!("http://127.0.0.1:{}", canary.port);
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    passes_with("a_request_arrives_as_it_was_made", &names.map(|name| (name, proxy.as_str())));
    assert_eq!(canary.seen(), 0);
}

#[test]
fn a_machine_without_certificates_calls_those_without_tls() {
    let none = [("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/dev/null")];
    passes_with("a_request_arrives_as_it_was_made", &none);
}
