//! Addresses, URLs and names that are let through or not, and names that change their mind.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::BoxFuture;
use reqwest::dns::Resolve;

use super::*;

fn guard() -> Guard {
    Guard::new(&Settings::default())
}

fn is_public(addr: &str) -> bool {
    guard().check_addr(addr.parse().expect(addr)).is_ok()
}

fn may_call(guard: &Guard, url: &str) -> bool {
    guard.check_url(&Url::parse(url).expect(url)).is_ok()
}

#[test]
fn public_addresses_may_be_reached_and_all_others_not() {
    for addr in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2001:4860:4860::8888",
        "2a00::1",
        "::ffff:8.8.8.8",
    ] {
        assert!(is_public(addr), "{addr}");
    }
    for addr in [
        "0.0.0.0",
        "0.255.255.255",
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.255",
        "168.63.129.16",
        "169.254.0.0",
        "169.254.169.254",
        "169.254.170.2",
        "169.254.255.255",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.0",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.0",
        "192.168.255.255",
        "198.18.0.0",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::1",
        "100::1",
        "100:0:0:1::1",
        "2001::1",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fdff:ffff::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ] {
        assert!(!is_public(addr), "{addr}");
    }
}

#[test]
fn urls_are_judged_by_scheme_host_and_port() {
    for url in [
        "https://example.com",
        "http://example.com:8080/x?y",
        "https://example.com:8443",
        "https://1.1.1.1/",
        "https://[2606:4700::1111]/",
        "https://example.com./",
        "https://EXAMPLE.com",
        "https://xn--bcher-kva.example",
        // The host is what stands before the backslash, and that is what is called.
        r"http://example.com\@169.254.169.254/",
    ] {
        assert!(may_call(&guard(), url), "{url}");
    }
    for url in [
        "ftp://example.com",
        "file:///etc/passwd",
        "gopher://example.com",
        "ws://example.com",
        "data:text/plain,x",
        "unix:/var/run/docker.sock",
        "http://example.com:22",
        "https://example.com:25",
        "http://example.com:0",
        "http://user@example.com",
        "http://user:pass@example.com",
        "http://:pass@example.com",
        "http://example.com@127.0.0.1/",
    ] {
        assert!(!may_call(&guard(), url), "{url}");
    }
}

#[test]
fn exceptions_are_by_network_name_and_port() {
    let guard = Guard::new(&Settings {
        ports: vec![443, 9000],
        allow_networks: vec!["10.1.0.0/16".parse().expect("net"), "fd12::/16".parse().expect("net")],
        allow_hosts: vec!["Collector.internal.".to_owned(), "localhost".to_owned()],
    });
    for url in [
        "https://example.com:9000",
        "http://10.1.2.3:1234",
        "http://[fd12::1]",
        "http://[::ffff:10.1.2.3]",
        "http://collector.internal:1234",
        "http://localhost:1",
    ] {
        assert!(may_call(&guard, url), "{url}");
    }
    for url in ["http://example.com", "http://10.2.0.1", "http://127.0.0.1:443", "http://x.localhost:443"] {
        assert!(!may_call(&guard, url), "{url}");
    }
    let why = guard.check_url(&Url::parse("http://example.com").expect("url")).expect_err("port").to_string();
    assert_eq!(why, "`80` may not be reached: only the ports 443, 9000 may be called");
    let why = guard.check_addr("127.0.0.1".parse().expect("addr")).expect_err("loopback").to_string();
    assert_eq!(why, "`127.0.0.1` may not be reached: it is this machine");
}

/// Gives one list of addresses after the other, and the last for ever.
#[derive(Debug)]
struct Fickle {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Lookup for Fickle {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().expect("lock");
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        Box::pin(async move { Ok(answer) })
    }
}

fn fickle(answers: &[&[&str]]) -> Arc<Fickle> {
    let parsed = |answer: &&[&str]| answer.iter().map(|addr| addr.parse().expect("address")).collect();
    Arc::new(Fickle { answers: Mutex::new(answers.iter().map(parsed).collect()), asked: AtomicUsize::new(0) })
}

async fn resolved(resolver: &Resolver, name: &str) -> Result<Vec<SocketAddr>, String> {
    resolver
        .resolve(name.parse().expect("name"))
        .await
        .map(Iterator::collect)
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_refused_at_the_moment_of_connecting() {
    let lookup = fickle(&[&["8.8.8.8"], &["127.0.0.1"]]);
    let resolver = Resolver::new(Arc::new(guard()), lookup.clone());
    assert_eq!(resolved(&resolver, "rebind.example").await, Ok(vec!["8.8.8.8:0".parse().expect("addr")]));
    let refused = resolved(&resolver, "rebind.example").await.expect_err("refused");
    assert_eq!(refused, "`127.0.0.1` may not be reached: it is this machine");
    assert_eq!(lookup.asked.load(Ordering::SeqCst), 2, "nothing is remembered of the first answer");
}

#[tokio::test]
async fn of_mixed_addresses_only_public_ones_are_tried() {
    let mixed: &[&[&str]] = &[&["127.0.0.1", "8.8.8.8", "::1", "::ffff:10.0.0.1", "169.254.169.254"]];
    let resolver = Resolver::new(Arc::new(guard()), fickle(mixed));
    assert_eq!(resolved(&resolver, "mixed.example").await, Ok(vec!["8.8.8.8:0".parse().expect("addr")]));
    let private: &[&[&str]] = &[&["10.0.0.1", "fd00::1"]];
    let allow = Settings { allow_hosts: vec!["crm.internal".to_owned()], ..Settings::default() };
    let resolver = Resolver::new(Arc::new(Guard::new(&allow)), fickle(private));
    assert_eq!(resolved(&resolver, "CRM.internal.").await.map(|found| found.len()), Ok(2));
    assert!(resolved(&resolver, "other.internal").await.is_err());
    let none: &[&[&str]] = &[&[]];
    let resolver = Resolver::new(Arc::new(guard()), fickle(none));
    assert_eq!(
        resolved(&resolver, "x.example").await,
        Err("the name was not found: it has no address".to_owned())
    );
}
