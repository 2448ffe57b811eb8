//! Encrypted connections, what is believed of proxies, and what answers tell browsers.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use personas::app::Running;
use rcgen::{CertificateParams, DnType, KeyPair};
use reqwest::{Certificate, Client, Method};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::harness::app::{TOKEN, TestApp, WRITE_KEY, Wish, send};

/// A certificate for `localhost` that signs itself, in two files; and as text.
fn certify(folder: &Path, name: &str) -> (PathBuf, PathBuf, String) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let files = (folder.join("cert.pem"), folder.join("key.pem"));
    fs::write(&files.0, &certificate).unwrap();
    fs::write(&files.1, key.serialize_pem()).unwrap();
    (files.0, files.1, certificate)
}

fn encrypted(certificate: &Path, key: &Path) -> Wish {
    Wish::default()
        .option("server.tls_certificate_file", certificate.to_str().unwrap())
        .option("server.tls_key_file", key.to_str().unwrap())
        .option("server.header_timeout_ms", "500")
}

/// A client that trusts this certificate alone, and the address under which it holds.
fn client(certificate: &str, running: &Running) -> (Client, String) {
    let trusted = Certificate::from_pem(certificate.as_bytes()).unwrap();
    let client = Client::builder()
        .no_proxy()
        .tls_certs_only([trusted])
        .resolve("localhost", SocketAddr::from(([127, 0, 0, 1], 0)))
        .build()
        .unwrap();
    (client, format!("https://localhost:{}", running.address().port()))
}

#[tokio::test]
async fn connections_are_encrypted_and_nothing_else_is_served() {
    let folder = TempDir::new().unwrap();
    let (certificate, key, text) = certify(folder.path(), "one");
    let app = encrypted(&certificate, &key).start().await;
    let (client, url) = client(&text, &app.running);
    let call = json!({"userId": "u", "event": "Seen"});
    let request = client.post(format!("{url}/v1/track")).basic_auth(WRITE_KEY, Some("")).json(&call);
    let answer = send(request).await.expect(200);
    assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
    let path = format!(
        "{url}/v1/spaces/default/collections/users/profiles/user_id:u/metadata?min_offset={}",
        answer.offset()
    );
    send(client.get(path).basic_auth(TOKEN, Some(""))).await.expect(200);
    // Not encrypted: neither an answer nor a hint.
    let mut plain = TcpStream::connect(app.running.address()).await.unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _reset = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
    // Who never greets is gone after the time for a head, and held up nobody.
    let mut silent = TcpStream::connect(app.running.address()).await.unwrap();
    send(client.get(format!("{url}/livez"))).await.expect(200);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), silent.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "still open");
    let metrics = send(client.get(format!("{url}/metrics"))).await.text;
    assert!(metrics.contains(r#"personas_http_rejected_total{reason="tls"}"#), "{metrics}");
}

#[tokio::test]
async fn a_renewed_certificate_is_used_without_a_restart() {
    let folder = TempDir::new().unwrap();
    let (certificate, key, first) = certify(folder.path(), "first");
    let app = encrypted(&certificate, &key).start().await;
    let (old, url) = client(&first, &app.running);
    send(old.get(format!("{url}/livez"))).await.expect(200);
    // What cannot be used is not taken.
    fs::write(&certificate, "no certificate").unwrap();
    let later = certificate.metadata().unwrap().modified().unwrap() + Duration::from_secs(5);
    fs::File::options().write(true).open(&certificate).unwrap().set_modified(later).unwrap();
    let (_, _, second) = certify(folder.path(), "second");
    let (new, _) = client(&second, &app.running);
    let deadline = Instant::now() + Duration::from_secs(40);
    while new.get(format!("{url}/livez")).send().await.is_err() {
        assert!(Instant::now() < deadline, "the new certificate is not used");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (old, _) = client(&first, &app.running);
    assert!(old.get(format!("{url}/livez")).send().await.is_err(), "the old one is still used");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = TempDir::new().unwrap();
    let (certificate, key, _) = certify(folder.path(), "one");
    let other = TempDir::new().unwrap();
    let (_, other_key, _) = certify(other.path(), "other");
    let nowhere = folder.path().join("nowhere.pem");
    let serve = |certificate: &Path, key: Option<&Path>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_personas"));
        command.arg("serve").env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
        command.env("PERSONAS_LISTEN", "127.0.0.1:0");
        command.env(personas::config::variable("server.tls_certificate_file"), certificate);
        if let Some(key) = key {
            command.env(personas::config::variable("server.tls_key_file"), key);
        }
        let output = command.current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (certificate, key, words) in [
        (&certificate, None, "server.tls_key_file"),
        (&nowhere, Some(&key), "nowhere.pem has no certificate"),
        (&key, Some(&key), "has no certificate"),
        (&certificate, Some(&certificate), "has no private key"),
        (&certificate, Some(&other_key), "cannot be used"),
    ] {
        let (code, said) = serve(certificate, key.map(PathBuf::as_path));
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test]
async fn a_proxy_is_believed_when_it_is_trusted() {
    let path = format!("/v1/projects/{WRITE_KEY}/settings");
    let ask = async |app: &TestApp| {
        let request = app.client.get(format!("{}{path}", app.url));
        let request =
            request.header("x-forwarded-proto", "https").header("x-forwarded-host", "p.example, q.example");
        let answer = send(request).await.expect(200);
        let segment = answer.json["integrations"]["Segment.io"].clone();
        let is_strict = answer.headers.contains_key("strict-transport-security");
        (
            segment["apiHost"].as_str().unwrap().to_owned(),
            segment["protocol"].as_str().unwrap().to_owned(),
            is_strict,
        )
    };
    let app = TestApp::start().await;
    assert_eq!(ask(&app).await, ("p.example/v1".to_owned(), "https".to_owned(), true));
    let app = Wish::default().option("server.trusted_proxies", "10.0.0.0/8").start().await;
    let address = app.running.address();
    assert_eq!(ask(&app).await, (format!("{address}/v1"), "http".to_owned(), false));
}

#[tokio::test]
async fn answers_tell_browsers_what_they_are_not_for() {
    let app = TestApp::start().await;
    let profile = app.get("/v1/spaces/default/collections/users/profiles/user_id:nobody/traits").await;
    let listed = app.get("/v1/spaces/default/audiences").await.expect(200);
    let missing = app.get("/nowhere").await.expect(404);
    for answer in [&profile, &listed, &missing] {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value, "{name}");
        }
    }
    assert_eq!(profile.header("cache-control"), "no-store");
    assert_eq!(listed.header("cache-control"), "no-cache", "it is asked for by its tag");
    let docs = app.get("/docs").await.expect(200);
    assert!(docs.header("content-security-policy").contains("style-src"), "{:?}", docs.headers);
    assert!(!docs.text.contains("<script"), "{}", docs.text);
    let tracked =
        send(app.request(Method::GET, &format!("/v1/projects/{WRITE_KEY}/settings"))).await.expect(200);
    assert_eq!(tracked.header("x-content-type-options"), "nosniff");
    assert_eq!(tracked.header("content-security-policy"), "");
}
