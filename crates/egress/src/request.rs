//! What a caller asks for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use url::Url;

use crate::error::EgressError;

/// Headers that the client writes by itself, or that are about one connection (RFC 9110 section 7.6.1). With
/// them a caller could fool whoever stands between (request smuggling) or ask for another site.
static OWN_HEADERS: [HeaderName; 13] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// One request. Made with [`Request::get`] or [`Request::new`]; nothing is sent before
/// [`Egress::fetch`](crate::Egress::fetch).
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) body_bytes_max: Option<usize>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) follows: Option<Follows>,
}

/// Says whether a redirect may be followed.
#[derive(Clone)]
pub(crate) struct Follows(pub(crate) Arc<dyn Fn(&Url) -> bool + Send + Sync>);

impl fmt::Debug for Follows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Follows")
    }
}

impl Request {
    /// Asks for `url` with `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::with_method(Method::GET, url.into())
    }

    /// Sends `method` to `url`.
    ///
    /// # Errors
    ///
    /// `BadRequest` for what is no method, and for `CONNECT`, `TRACE` and `TRACK`, which the Fetch Standard
    /// forbids too (<https://fetch.spec.whatwg.org/#methods>).
    pub fn new(method: &str, url: impl Into<String>) -> Result<Self, EgressError> {
        let refused =
            || EgressError::BadRequest { problem: "its method is not allowed".to_owned() };
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| refused())?;
        let is_forbidden = ["CONNECT", "TRACE", "TRACK"]
            .iter()
            .any(|forbidden| method.as_str().eq_ignore_ascii_case(forbidden));
        if is_forbidden {
            return Err(refused());
        }
        Ok(Self::with_method(method, url.into()))
    }

    fn with_method(method: Method, url: String) -> Self {
        let (body, body_bytes_max, timeout, follows) = (None, None, None, None);
        Self { method, url, headers: HeaderMap::new(), body, body_bytes_max, timeout, follows }
    }

    /// Adds a header. All but `Accept`, `Accept-Language` and `Content-Type` stay behind when a redirect
    /// leads to another origin, because any of them may be a secret.
    ///
    /// # Errors
    ///
    /// `BadRequest` for what cannot stand in a header, such as a line break, and for headers that the client
    /// sets by itself. The value is not repeated.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, EgressError> {
        let refused = |problem: &str| EgressError::BadRequest { problem: problem.to_owned() };
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| refused("the name of a header has characters that are not allowed"))?;
        let mut value = HeaderValue::from_str(value).map_err(|_| {
            refused(&format!("the value of `{name}` has characters that are not allowed"))
        })?;
        if OWN_HEADERS.contains(&name) {
            return Err(refused(&format!("the header `{name}` cannot be set")));
        }
        // Keeps it out of what is logged.
        value.set_sensitive(true);
        self.headers.append(name, value);
        Ok(self)
    }

    /// Sends `body` along.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Reads at most `bytes` of the answer, decoded. More than the client's own limit means that limit.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = Some(bytes);
        self
    }

    /// Follows only those redirects whose targets `follows` says yes to.
    #[must_use]
    pub fn follow_if(mut self, follows: impl Fn(&Url) -> bool + Send + Sync + 'static) -> Self {
        self.follows = Some(Follows(Arc::new(follows)));
        self
    }

    /// Takes at most this long. More than the client's own limit means that limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_with_line_breaks_and_those_of_the_client_are_refused() {
        let bad = [
            ("x-note", "a\r\nHost: evil"),
            ("x-note", "a\nb"),
            ("x-note", "a\0b"),
            ("x note", "a"),
            ("x-note\r\nhost", "a"),
            ("", "a"),
            ("Host", "evil"),
            ("CONTENT-LENGTH", "0"),
            ("transfer-encoding", "chunked"),
            ("Proxy-Connection", "keep-alive"),
            ("Accept-Encoding", "br"),
        ];
        for (name, value) in bad {
            let error = Request::get("http://example.com").header(name, value).unwrap_err();
            assert_eq!(error.code(), "bad_request", "{name:?}: {value:?}");
            assert!(!error.to_string().contains("evil"), "{error}");
        }
    }

    #[test]
    fn methods_that_tunnel_or_echo_are_refused() {
        for method in ["CONNECT", "trace", "TRACK", "", "GET /", "GET\r\n"] {
            assert_eq!(
                Request::new(method, "http://a").unwrap_err().code(),
                "bad_request",
                "{method:?}"
            );
        }
        assert!(Request::new("PATCH", "http://a").is_ok());
    }

    #[test]
    fn a_request_does_not_show_its_headers() {
        let request = Request::get("http://a").header("authorization", "secret").unwrap();
        assert!(!format!("{request:?}").contains("secret"));
    }
}
