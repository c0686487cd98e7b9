//! Behind which proxies the server stands: what they say of a client's address is believed, and nobody
//! else's word is.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::header::HeaderMap;
use ipnet::IpNet;
use parking_lot::RwLock;

/// Where a proxy notes whom it speaks for; each proxy adds the address that it saw at the end.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Addresses of one request that are looked at, from the last one on.
const HOPS_MAX: usize = 16;

/// The networks of proxies that are believed. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<RwLock<Vec<IpNet>>>);

impl TrustedProxies {
    /// Believes proxies of these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(Arc::new(RwLock::new(networks)))
    }

    /// Believes others, from the next request on.
    pub(crate) fn believe(&self, networks: Vec<IpNet>) {
        *self.0.write() = networks;
    }

    /// The address of the client behind a connection: the last one that no proxy of ours has. Where one of
    /// them says something that is no address, it is the proxy's own.
    pub(crate) fn client(&self, connection: IpAddr, headers: &HeaderMap) -> IpAddr {
        let connection = connection.to_canonical();
        if !self.is_one(connection) {
            return connection;
        }
        let lines = headers.get_all(FORWARDED_FOR).filter_map(|line| line.to_str().ok());
        let hops: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
        let mut client = connection;
        for hop in hops.iter().rev().take(HOPS_MAX) {
            let Some(address) = address(hop) else { return client };
            client = address;
            if !self.is_one(client) {
                return client;
            }
        }
        client
    }

    fn is_one(&self, address: IpAddr) -> bool {
        self.0.read().iter().any(|network| network.contains(&address))
    }
}

/// An address as proxies write it: bare, with a port, in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(bare, _)| bare);
    let found = bare.unwrap_or(text).parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    found.or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn client(connection: &str, lines: &[&str]) -> String {
        let networks = ["10.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            let name = HeaderName::from_static(FORWARDED_FOR);
            headers.append(name, HeaderValue::from_str(line).unwrap());
        }
        let proxies = TrustedProxies::new(networks.to_vec());
        proxies.client(connection.parse().unwrap(), &headers).to_string()
    }

    /// H10 of the threat model.
    #[test]
    fn nobody_but_a_proxy_of_ours_says_who_somebody_is() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("10.1.2.3", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("::ffff:10.1.2.3", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.1.2.3", &[]), "10.1.2.3");
    }

    #[test]
    fn what_a_client_says_of_itself_does_not_reach_behind_the_last_proxy() {
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["10.0.0.9, 10.0.0.2"]), "10.0.0.9");
        assert_eq!(client("10.0.0.1", &["198.51.100.7, nonsense"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(client("::1", &["[2001:db8::1]:80, 10.0.0.2"]), "2001:db8::1");
    }
}
