//! Whatever a URL is spelled like: what the guard lets through names no address that is not public.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use personas::deliver::guard::{Guard, Settings};
use url::{Host, Url};

fuzz_target!(|text: &str| {
    let guard = Guard::new(&Settings { ports: vec![80, 443], allow_networks: Vec::new(), allow_hosts: Vec::new() });
    let Ok(url) = Url::parse(text) else { return };
    if guard.check_url(&url).is_ok() {
        assert!(matches!(url.scheme(), "http" | "https"), "{url}");
        let address: Option<IpAddr> = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(name)) => name.parse().ok(),
            None => panic!("a URL without a host was let through: {url}"),
        };
        if let Some(address) = address {
            assert!(guard.check_addr(address).is_ok(), "{url}");
            let is_local = match address.to_canonical() {
                IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified(),
                IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified(),
            };
            assert!(!is_local, "{url}");
        }
    }
});
