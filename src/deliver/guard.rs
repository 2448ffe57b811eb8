//! What a destination may reach: nothing inside of the network that the service itself stands in (reliability.md T07).
//!
//! An address is judged three times: as it is written, as the parsed host of the very URL that is called (M22); where
//! names become addresses, at the moment of connecting, so that a name that changes its mind wins nothing; and as the
//! peer that was connected to. What is not plainly a public address is refused, unless the configuration allows it.

mod networks;
mod resolve;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use url::{Host, Url};

use crate::config::Egress;
pub(in crate::deliver) use resolve::NotFound;
pub use resolve::{Lookup, Resolver, SystemLookup};

/// Ports that may be called by default.
pub const DEFAULT_PORTS: [u16; 4] = [80, 443, 8080, 8443];

/// Names that mean this machine or the cloud it runs in, whatever they resolve to.
const NAMES: [(&str, &str); 10] = [
    ("localhost", "this machine"),
    ("localhost.localdomain", "this machine"),
    ("localhost6", "this machine"),
    ("localhost6.localdomain6", "this machine"),
    ("ip6-localhost", "this machine"),
    ("ip6-loopback", "this machine"),
    ("broadcasthost", "a broadcast address"),
    ("metadata", "a cloud's metadata service"),
    ("instance-data", "a cloud's metadata service"),
    ("host.docker.internal", "this machine"),
];

/// Ends of names that are never public.
const NAME_ENDS: [(&str, &str); 7] = [
    (".localhost", "this machine"),
    (".localdomain", "this network"),
    (".local", "this network"),
    (".internal", "a private network"),
    (".home.arpa", "this network"),
    (".svc", "a cluster"),
    (".cluster.local", "a cluster"),
];

/// What may be reached beyond public addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Ports that may be called.
    pub ports: Vec<u16>,
    /// Networks that may be reached although they are not public; by address on any port.
    pub allow_networks: Vec<IpNet>,
    /// Host names that may be reached wherever they are, on any port.
    pub allow_hosts: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { ports: DEFAULT_PORTS.to_vec(), allow_networks: Vec::new(), allow_hosts: Vec::new() }
    }
}

impl From<&Egress> for Settings {
    fn from(egress: &Egress) -> Self {
        let Egress { ports, allow_networks, allow_hosts, folder: _ } = egress.clone();
        Self { ports, allow_networks, allow_hosts }
    }
}

/// Why something may not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The address, name or part of the URL.
    what: String,
    why: String,
}

impl Blocked {
    fn new(what: impl fmt::Display, why: impl Into<String>) -> Self {
        Self { what: what.to_string(), why: why.into() }
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` may not be reached: {}", self.what, self.why)
    }
}

impl std::error::Error for Blocked {}

/// Judges URLs, names and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    ports: Vec<u16>,
    allow_networks: Vec<IpNet>,
    allow_hosts: Vec<String>,
}

impl Guard {
    /// A guard with these exceptions.
    pub fn new(settings: &Settings) -> Self {
        Self {
            ports: settings.ports.clone(),
            allow_networks: settings.allow_networks.clone(),
            allow_hosts: settings.allow_hosts.iter().map(|host| canonical(host)).collect(),
        }
    }

    /// Whether a URL may be called, as far as that can be told without asking where its name leads. The same parsed URL
    /// must be called afterwards: another parser may see another host.
    pub fn check_url(&self, url: &Url) -> Result<(), Blocked> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Blocked::new(url.scheme(), "only http and https are spoken"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Blocked::new(
                url.host_str().unwrap_or_default(),
                "a URL cannot have a user name or password; use a header",
            ));
        }
        let is_allowed = match url.host() {
            None => return Err(Blocked::new(url.scheme(), "the URL has no host")),
            Some(Host::Ipv4(addr)) => self.judge_addr(addr.into())?,
            Some(Host::Ipv6(addr)) => self.judge_addr(addr.into())?,
            Some(Host::Domain(name)) => self.judge_name(name)?,
        };
        match url.port_or_known_default() {
            Some(port) if is_allowed || self.ports.contains(&port) => Ok(()),
            port => {
                let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
                let why = format!("only the ports {} may be called", ports.join(", "));
                Err(Blocked::new(port.unwrap_or_default(), why))
            }
        }
    }

    /// Whether a host may be connected to by other means than HTTP, on any port, as far as that can be told without asking
    /// where its name leads. Gives the host as it has to be looked up: all spellings of an address become one.
    pub fn check_host(&self, host: &str) -> Result<String, Blocked> {
        let parsed = Host::parse(host).map_err(|_| Blocked::new(host, "it is no host name or address"))?;
        match &parsed {
            Host::Ipv4(addr) => self.judge_addr((*addr).into()).map(|_| addr.to_string()),
            Host::Ipv6(addr) => self.judge_addr((*addr).into()).map(|_| addr.to_string()),
            Host::Domain(name) => self.judge_name(name).map(|_| canonical(name)),
        }
    }

    /// Whether an address may be connected to.
    pub fn check_addr(&self, addr: IpAddr) -> Result<(), Blocked> {
        self.judge_addr(addr).map(drop)
    }

    /// Whether a host may be reached wherever it is.
    pub fn allows_host(&self, name: &str) -> bool {
        self.allow_hosts.contains(&canonical(name))
    }

    /// True where it is allowed by the configuration.
    fn judge_addr(&self, addr: IpAddr) -> Result<bool, Blocked> {
        // `::ffff:127.0.0.1` is 127.0.0.1 to the system.
        let addr = addr.to_canonical();
        if self.allow_networks.iter().any(|network| network.contains(&addr)) {
            return Ok(true);
        }
        match networks::why_not(addr) {
            Some(why) => Err(Blocked::new(addr, format!("it is {why}"))),
            None => Ok(false),
        }
    }

    fn judge_name(&self, name: &str) -> Result<bool, Blocked> {
        let name = canonical(name);
        if self.allow_hosts.contains(&name) {
            return Ok(true);
        }
        let is = NAMES.iter().find(|(known, _)| *known == name);
        let ends = || NAME_ENDS.iter().find(|(end, _)| name.ends_with(end));
        match is.or_else(ends) {
            Some((_, what)) => Err(Blocked::new(&name, format!("the name is that of {what}"))),
            None => Ok(false),
        }
    }
}

/// `Example.COM.` is `example.com`.
fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
