//! Names to addresses, each of them judged before a connection is made.
//!
//! This is the resolver that the connector itself uses: no second look-up comes between the check and the
//! connection, so a name that changes its mind (DNS rebinding) changes nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::policy::{Policy, Trust};

/// Looks names up.
pub trait Lookup: Send + Sync {
    /// All addresses of `host`, in the order in which they should be tried. The connection's timeout bounds
    /// the wait.
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// Asks the operating system, which reads its hosts file and asks its name servers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((host, 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

/// The resolver of a connector.
pub(crate) struct Resolver {
    pub(crate) lookup: Arc<dyn Lookup>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) trust: Trust,
}

/// Why a name gave no address to connect to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unresolved {
    #[error("the name leads to an address that is not public")]
    Blocked,
    #[error("the name has no address")]
    Empty,
    #[error("the name could not be looked up")]
    Failed(#[source] io::Error),
}

impl Resolver {
    /// The addresses that may be connected to.
    pub(crate) async fn addresses(&self, name: String) -> Result<Vec<IpAddr>, Unresolved> {
        let addresses = self.lookup.lookup(name).await.map_err(Unresolved::Failed)?;
        match self.trust {
            Trust::Checked => judge(&self.policy, addresses),
            Trust::Named if addresses.is_empty() => Err(Unresolved::Empty),
            Trust::Named => Ok(addresses),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let looking = self.lookup.lookup(name.as_str().to_owned());
        let (policy, trust) = (Arc::clone(&self.policy), self.trust);
        Box::pin(async move {
            let addresses = looking.await.map_err(Unresolved::Failed)?;
            let addresses = match trust {
                Trust::Checked => judge(&policy, addresses)?,
                Trust::Named => addresses,
            };
            // The connector puts the port of the URL in place of 0.
            let sockets = addresses.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(sockets) as Addrs)
        })
    }
}

/// One address that may not be connected to refuses the whole answer: it is an attack or a mistake, and with
/// the rest of it the same name would work now and fail later.
fn judge(policy: &Policy, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, Unresolved> {
    if addresses.is_empty() {
        return Err(Unresolved::Empty);
    }
    if !addresses.iter().all(|address| policy.admits(*address)) {
        return Err(Unresolved::Blocked);
    }
    Ok(addresses)
}
