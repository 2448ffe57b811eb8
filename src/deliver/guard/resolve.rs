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

/// Why a host cannot be connected to.
#[derive(Debug)]
pub struct Unresolved {
    cause: Box<dyn std::error::Error + Send + Sync>,
}

impl Unresolved {
    /// Whether it is the guard that does not allow it.
    pub fn is_blocked(&self) -> bool {
        self.cause.is::<Blocked>()
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl std::error::Error for Unresolved {}

impl Resolver {
    /// The addresses of a host that may be connected to; never none.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let not_found = |message: String| Unresolved { cause: NotFound(message).into() };
        let found = match host.parse() {
            Ok(addr) => vec![addr],
            Err(_) => {
                self.lookup.lookup(host.to_owned()).await.map_err(|error| not_found(error.to_string()))?
            }
        };
        let is_free = self.guard.allows_host(host);
        let mut refused: Option<Blocked> = None;
        let mut allowed = Vec::new();
        for addr in found {
            match self.guard.check_addr(addr) {
                Err(blocked) if !is_free => refused = Some(blocked),
                _ => allowed.push(addr),
            }
        }
        match (allowed.is_empty(), refused) {
            (true, Some(blocked)) => Err(Unresolved { cause: blocked.into() }),
            (true, None) => Err(not_found("it has no address".to_owned())),
            (false, _) => Ok(allowed),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let found = resolver.addresses(name.as_str()).await.map_err(|unresolved| unresolved.cause)?;
            let addresses = found.into_iter().map(|addr| SocketAddr::new(addr, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}
