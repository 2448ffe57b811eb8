//! Who is at the other end of a connection, and which of a proxy's words about its client are believed.

use std::net::IpAddr;

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The connection itself is encrypted.
    pub is_encrypted: bool,
}

impl Peer {
    /// A header of a proxy about its client, `x-forwarded-…`: the first of its values, which is the client's, and only when
    /// the proxy is one that is trusted. Anybody can send such a header.
    pub fn forwarded<'a>(&self, headers: &'a HeaderMap, name: &str, trusted: &[IpNet]) -> Option<&'a str> {
        let address = self.address.to_canonical();
        if !trusted.iter().any(|network| network.contains(&address)) {
            return None;
        }
        let value = headers.get(name)?.to_str().ok()?;
        value.split(',').next().map(str::trim).filter(|value| !value.is_empty())
    }

    /// Whether the client's connection is encrypted, up to us or up to a trusted proxy.
    pub fn is_secure(&self, headers: &HeaderMap, trusted: &[IpNet]) -> bool {
        let proto = || self.forwarded(headers, "x-forwarded-proto", trusted);
        self.is_encrypted || proto().is_some_and(|proto| proto.eq_ignore_ascii_case("https"))
    }
}
