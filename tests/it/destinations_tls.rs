//! Receivers whose certificates are not to be trusted: nothing is said to them, each attempt says why, and what waits arrives
//! when the certificate is a good one.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::harness::destinations::{DELIVERIES, DESTINATIONS, sending};
use crate::harness::receiver::Receiver;
use crate::harness::this_binary_as;

/// The folder of the process whose system trusts an authority of ours.
const VARIABLE: &str = "PERSONAS_TEST_TRUSTING";
/// What no eavesdropper may read.
const SECRET: &str = "canary-in-a-header";

fn signed(params: &CertificateParams, issuer: Option<&Issuer<'_, KeyPair>>) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).unwrap())
}

fn params(host: &str) -> CertificateParams {
    let mut params = CertificateParams::new([host.to_owned()]).unwrap();
    // Whose it is tells it from the authority.
    params.distinguished_name.push(DnType::CommonName, host);
    params
}

/// Speaks TLS before a receiver; what came over the wire is kept.
struct Front {
    url: String,
    wire: Arc<Mutex<Vec<u8>>>,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    _serving: JoinSet<()>,
}

impl Front {
    async fn start(receiver: &Receiver, config: Arc<ServerConfig>) -> Self {
        let outer = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (within, behind) = (inner.local_addr().unwrap(), receiver.url.replace("http://", ""));
        let url = format!("https://{}/hook", outer.local_addr().unwrap());
        let (wire, config) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::new(Mutex::new(config)));
        let mut serving = JoinSet::new();
        let kept = Arc::clone(&wire);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = outer.accept().await {
                let tls = TcpStream::connect(within).await.unwrap();
                connections.spawn(listen_in(client, tls, Arc::clone(&kept)));
            }
        });
        let current = Arc::clone(&config);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = inner.accept().await {
                let acceptor = TlsAcceptor::from(Arc::clone(&current.lock().unwrap()));
                let behind = behind.clone();
                connections.spawn(async move {
                    // Who does not trust us ends the connection.
                    if let Ok(mut plain) = acceptor.accept(stream).await {
                        let mut receiver = TcpStream::connect(behind).await.unwrap();
                        let _gone = copy_bidirectional(&mut plain, &mut receiver).await;
                    }
                });
            }
        });
        Self { url, wire, config, _serving: serving }
    }
}

async fn listen_in(client: TcpStream, tls: TcpStream, wire: Arc<Mutex<Vec<u8>>>) {
    let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), tls.into_split());
    let forth = async {
        let mut buffer = [0; 4_096];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            wire.lock().unwrap().extend(&buffer[..count]);
            if to.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        let _gone = to.shutdown().await;
    };
    let _gone = tokio::join!(forth, copy(&mut answers, &mut back));
}

/// Runs as a process of its own, see below.
#[tokio::test]
async fn a_process_that_trusts_an_authority_of_ours() {
    let Some(folder) = std::env::var_os(VARIABLE) else { return };
    let folder = Path::new(&folder);
    let key = KeyPair::from_pem(&std::fs::read_to_string(folder.join("key.pem")).unwrap()).unwrap();
    let issuer = Issuer::new(authority(), key);
    let good = || signed(&params("127.0.0.1"), Some(&issuer));
    let mut past = params("127.0.0.1");
    (past.not_before, past.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
    let cases = [
        ("expired", signed(&past, Some(&issuer)), "expired"),
        ("of another host", signed(&params("elsewhere.example.com"), Some(&issuer)), "not valid for name"),
        ("by nobody", signed(&params("127.0.0.1"), None), "UnknownIssuer"),
    ];
    let app = sending().start().await;
    app.make_live("audiences", "buyers", "event('Bought').count() >= 1").await;
    let mut hooks = Vec::new();
    for (name, config, why) in [("good", good(), "")].into_iter().chain(cases) {
        let receiver = Receiver::start().await;
        let front = Front::start(&receiver, config).await;
        let settings = json!({"url": front.url, "headers": {"x-secret": SECRET}});
        let body = json!({"name": name, "kind": "webhook", "settings": settings, "timeout_ms": 5_000});
        let hook = app.post(DESTINATIONS, body).await.expect(201).json;
        app.subscribe(&hook, json!({"subject": "audience", "key": "buyers"})).await;
        hooks.push((name, hook, receiver, front, why));
    }
    app.processed("/v1/track", json!({"userId": "u1", "event": "Bought"})).await;
    for (name, hook, receiver, front, why) in &hooks {
        if *name != "good" {
            let failed = |d: &serde_json::Value| d["deliveries"]["failed"]["TLS"].as_i64() >= Some(1);
            let seen = app.wait_destination(hook, failed).await["deliveries"].clone();
            assert_eq!((&seen["queued"], &seen["dead"]), (&json!(1), &json!(0)), "{name}: it is tried again");
            let waiting = &app.deliveries(hook, "").await[0]["id"];
            let one = app.get(&format!("{DELIVERIES}/{}", waiting.as_str().unwrap())).await.expect(200).json;
            let attempt = &one["attempt_log"][0];
            assert_eq!((&attempt["outcome"], &attempt["code"]), (&json!("retry"), &json!("TLS")), "{one}");
            assert!(attempt["message"].as_str().unwrap().contains(why), "{name}: {one}");
            assert_eq!(receiver.count(), 0, "{name}");
            // The certificate is renewed, and the pause is over.
            *front.config.lock().unwrap() = good();
            app.act(hook, "pause", json!({})).await;
            app.act(hook, "resume", json!({})).await;
        }
        let taken = receiver.wait_taken(1).await;
        assert_eq!(taken[0]["traits"]["buyers"], true, "{name}");
        app.wait_sent(hook).await;
        let wire = front.wire.lock().unwrap();
        assert!(!wire.is_empty());
        for plain in [SECRET, "messageId", "POST", "buyers"] {
            let is_there = wire.windows(plain.len()).any(|bytes| bytes == plain.as_bytes());
            assert!(!is_there, "{name}: `{plain}` can be read on the wire");
        }
    }
    println!("trusted");
}

fn authority() -> CertificateParams {
    let mut params = params("authority.example.com");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// Which authorities are trusted is the system's to say: here, as on any Unix, by `SSL_CERT_FILE`.
#[test]
fn certificates_are_judged_by_what_the_system_trusts() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = authority().self_signed(&key).unwrap();
    std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(folder.path().join("authority.pem"), certificate.pem()).unwrap();
    let test = "destinations_tls::a_process_that_trusts_an_authority_of_ours";
    let mut command = this_binary_as(test, VARIABLE, &folder.path().display().to_string());
    command.env("SSL_CERT_FILE", folder.path().join("authority.pem"));
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("trusted"),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
