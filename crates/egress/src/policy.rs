//! What may be connected to: the internet, and what the operator made an exception for.

use std::net::IpAddr;

use ipnet::IpNet;
use url::{Host, Url};

use crate::address::is_public;
use crate::error::EgressError;
use crate::exception::Exception;
use crate::port::is_blocked_port;

/// The rules of one client.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    nets: Vec<IpNet>,
    places: Vec<(Host, u16)>,
}

/// How the addresses of a destination are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Each is checked.
    Checked,
    /// The operator named the destination: none is.
    Named,
}

impl Policy {
    pub(crate) fn new(exceptions: &[Exception]) -> Self {
        let mut policy = Self { nets: Vec::new(), places: Vec::new() };
        for exception in exceptions {
            match exception {
                Exception::Net(net) => policy.nets.push(*net),
                Exception::Place { host, port } => policy.places.push((host.clone(), *port)),
            }
        }
        policy
    }

    /// Whether the operator named destinations.
    pub(crate) fn has_places(&self) -> bool {
        !self.places.is_empty()
    }

    /// Whether a connection to `address` may be made.
    pub(crate) fn admits(&self, address: IpAddr) -> bool {
        is_public(address) || self.is_excepted(address)
    }

    /// Whether the operator let `address` through by a network.
    pub(crate) fn is_excepted(&self, address: IpAddr) -> bool {
        self.nets.iter().any(|net| net.contains(&address))
    }

    /// Judges a URL before anything is resolved or connected: its port, and its address if it holds one,
    /// which no resolver would get to see.
    pub(crate) fn judge(&self, url: &Url) -> Result<Trust, EgressError> {
        let no_host = || EgressError::BadUrl { problem: "it names no host".to_owned() };
        let host = url.host().ok_or_else(no_host)?.to_owned();
        let port = url.port_or_known_default().ok_or_else(no_host)?;
        if self.places.iter().any(|(name, open)| *name == host && *open == port) {
            return Ok(Trust::Named);
        }
        if is_blocked_port(port) {
            return Err(EgressError::BlockedPort { port });
        }
        let address = match &host {
            Host::Domain(_) => return Ok(Trust::Checked),
            Host::Ipv4(address) => IpAddr::V4(*address),
            Host::Ipv6(address) => IpAddr::V6(*address),
        };
        if !self.admits(address) {
            return Err(EgressError::BlockedAddress { host: host.to_string() });
        }
        Ok(Trust::Checked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(url: &str, exceptions: &[&str]) -> Result<Trust, &'static str> {
        let exceptions: Vec<_> = exceptions.iter().map(|text| text.parse().unwrap()).collect();
        Policy::new(&exceptions).judge(&url.parse().unwrap()).map_err(|error| error.code())
    }

    #[test]
    fn a_named_place_is_trusted_with_its_port_and_no_other() {
        let named = ["docs.internal:8080", "127.0.0.1:25", "secure.internal:443"];
        assert_eq!(judge("http://docs.internal:8080/", &named), Ok(Trust::Named));
        assert_eq!(judge("https://secure.internal/", &named), Ok(Trust::Named));
        assert_eq!(judge("http://127.0.0.1:25/", &named), Ok(Trust::Named));
        assert_eq!(judge("http://docs.internal/", &named), Ok(Trust::Checked));
        assert_eq!(judge("http://127.0.0.1/", &named), Err("blocked_address"));
        assert_eq!(judge("http://docs.internal:25/", &named), Err("blocked_port"));
    }

    #[test]
    fn an_open_network_opens_its_addresses_and_no_blocked_port() {
        let open = ["10.1.0.0/16"];
        assert_eq!(judge("http://10.1.2.3:8080/", &open), Ok(Trust::Checked));
        assert_eq!(judge("http://10.2.0.1:8080/", &open), Err("blocked_address"));
        assert_eq!(judge("http://10.1.2.3:6379/", &open), Err("blocked_port"));
    }
}
