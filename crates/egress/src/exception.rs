//! What the operator lets through besides the internet.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use url::Host;

/// One destination that would be blocked and is allowed all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exception {
    /// Every address in this network, on every port that is not blocked, whichever name leads there.
    Net(IpNet),
    /// What a URL names by this very host and port. Where a name leads to is not asked: whoever
    /// answers for the name is trusted, and the port may be a blocked one.
    Place {
        /// As in the URL: a name in lower case, or an address.
        host: Host,
        /// Not 0.
        port: u16,
    },
}

/// Why a text is no [`Exception`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network like `10.1.0.0/16`, an address, or a host with a port")]
pub struct ExceptionError(String);

impl FromStr for Exception {
    type Err = ExceptionError;

    /// Reads `10.1.0.0/16`, `fd00::/8`, `10.1.2.3`, `docs.internal:8080`, `127.0.0.1:3000`, `[::1]:80`.
    fn from_str(text: &str) -> Result<Self, ExceptionError> {
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::Net(net));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Net(address.into()));
        }
        let place = || {
            let (host, port) = text.rsplit_once(':')?;
            let port = port.parse().ok().filter(|port| *port != 0)?;
            Some(Self::Place { host: Host::parse(host).ok()?, port })
        };
        place().ok_or_else(|| ExceptionError(text.to_owned()))
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => write!(f, "{net}"),
            Self::Place { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_read_as_they_are_written() {
        for text in ["10.1.0.0/16", "fd00::/8", "docs.internal:8080", "127.0.0.1:3000", "[::1]:80"]
        {
            assert_eq!(text.parse::<Exception>().unwrap().to_string(), text);
        }
        assert_eq!("10.1.2.3".parse::<Exception>().unwrap().to_string(), "10.1.2.3/32");
        assert_eq!(
            "Bücher.example:80".parse::<Exception>().unwrap().to_string(),
            "xn--bcher-kva.example:80"
        );
        assert_eq!("0x7f.1:80".parse::<Exception>().unwrap().to_string(), "127.0.0.1:80");
    }

    #[test]
    fn what_is_no_exception_is_refused_with_its_text() {
        for text in [
            "",
            "*",
            "docs.internal",
            "docs.internal:0",
            "a:70000",
            "10.0.0.0/33",
            ":80",
            "http://a:80",
        ] {
            let error = text.parse::<Exception>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{text}`")), "{error}");
        }
    }
}
