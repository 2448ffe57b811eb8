//! Names become addresses here and nowhere else: what the guard refuses cannot be connected to, whatever a name said
//! when its URL was saved.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::{fmt, io};

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{Blocked, Guard};

/// Looks names up.
pub trait Lookup: Send + Sync + fmt::Debug {
    /// All addresses of a host.
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// As the system does it.
#[derive(Debug, Clone, Copy)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|addr| addr.ip()).collect()) })
    }
}

/// A name that leads nowhere.
#[derive(Debug)]
pub(in crate::deliver) struct NotFound(String);

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name was not found: {}", self.0)
    }
}

impl std::error::Error for NotFound {}

/// Gives only addresses that may be connected to.
#[derive(Debug, Clone)]
pub struct Resolver {
    guard: Arc<Guard>,
    lookup: Arc<dyn Lookup>,
}

impl Resolver {
    /// A resolver under a guard.
    pub fn new(guard: Arc<Guard>, lookup: Arc<dyn Lookup>) -> Self {
        Self { guard, lookup }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, lookup) = (Arc::clone(&self.guard), Arc::clone(&self.lookup));
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = lookup.lookup(host.clone()).await.map_err(|error| NotFound(error.to_string()))?;
            let is_free = guard.allows_host(&host);
            let mut refused: Option<Blocked> = None;
            let mut allowed = Vec::new();
            for addr in found {
                match guard.check_addr(addr) {
                    Err(blocked) if !is_free => refused = Some(blocked),
                    _ => allowed.push(SocketAddr::new(addr, 0)),
                }
            }
            match (allowed.is_empty(), refused) {
                (true, Some(blocked)) => Err(blocked.into()),
                (true, None) => Err(NotFound("it has no address".to_owned()).into()),
                (false, _) => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}
