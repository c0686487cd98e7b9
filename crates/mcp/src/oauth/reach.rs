//! Where an authorization may be asked for.

use url::{Host, Url};

use super::{OauthError, origin_of};

/// The places that may be asked about the authorization for one server.
#[derive(Debug, Clone)]
pub struct Reach {
    server: Url,
    /// Origins besides that of the server.
    allowed: Vec<String>,
}

impl Reach {
    /// The place of the server itself, and those of `allowed`: URLs of which scheme, host and port count.
    pub fn new(server: Url, allowed: &[String]) -> Self {
        let origins = allowed.iter().filter_map(|text| Url::parse(text).ok());
        Self { server, allowed: origins.map(|url| origin_of(&url)).collect() }
    }

    /// Where the server is.
    pub fn server(&self) -> &Url {
        &self.server
    }

    /// Refuses a place that may not be asked.
    ///
    /// # Errors
    /// `Insecure` for one without TLS that is not on this machine; `Foreign`.
    pub fn check(&self, url: &Url) -> Result<(), OauthError> {
        let origin = origin_of(url);
        if !is_safe(url) {
            return Err(OauthError::Insecure { origin });
        }
        if url.origin() == self.server.origin() || self.allowed.contains(&origin) {
            return Ok(());
        }
        Err(OauthError::Foreign { origin })
    }

    /// Reads a URL of a document and refuses it if it may not be asked.
    pub(super) fn url(&self, text: &str) -> Result<Url, OauthError> {
        let url = iris_egress::parse_url(text)?;
        self.check(&url).map(|()| url)
    }
}

/// Whether what is sent there is read by nobody in between: TLS, or this machine.
pub fn is_safe(url: &Url) -> bool {
    url.scheme() == "https"
        || match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m5_only_the_servers_own_place_and_named_ones_are_asked() {
        let server = Url::parse("https://mcp.example/a").unwrap();
        let reach = Reach::new(server, &["https://login.example:8443/x".to_owned()]);
        let check = |text: &str| reach.check(&Url::parse(text).unwrap());
        for text in
            ["https://mcp.example/b", "https://login.example:8443/", "https://mcp.example:443"]
        {
            assert!(check(text).is_ok(), "{text}");
        }
        for text in [
            "https://evil.example/",
            "https://login.example/",
            "https://mcp.example.evil.example/",
            "https://x.mcp.example/",
            "https://127.0.0.1/",
        ] {
            assert!(matches!(check(text), Err(OauthError::Foreign { .. })), "{text}");
        }
        for text in ["http://mcp.example/", "http://10.0.0.1/", "http://localhost.evil.example/"] {
            assert!(matches!(check(text), Err(OauthError::Insecure { .. })), "{text}");
        }
    }
}
