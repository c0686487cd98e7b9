//! One request of a chain of redirects, and which comes next.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};
use url::Url;

use crate::error::EgressError;
use crate::target::check_url;

/// Most redirects that are followed.
pub const REDIRECTS_MAX: usize = 5;

/// What another origin gets of a caller's headers. Any other may be a secret: keys have many names.
static SAFE_HEADERS: [HeaderName; 3] =
    [header::ACCEPT, header::ACCEPT_LANGUAGE, header::CONTENT_TYPE];

/// What goes with the body (Fetch Standard, "request-body-header name").
static BODY_HEADERS: [HeaderName; 4] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_TYPE,
];

/// One request that is sent.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
}

impl Hop {
    /// What an answer asks for next; `None` when it is the last one. By the Fetch Standard, section
    /// "HTTP-redirect fetch" (<https://fetch.spec.whatwg.org/#http-redirect-fetch>), stricter where secrets
    /// are concerned.
    pub(crate) fn next(
        &self,
        status: StatusCode,
        answer: &HeaderMap,
    ) -> Result<Option<Self>, EgressError> {
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(location) = answer.get(header::LOCATION) else { return Ok(None) };
        let url = self.url_at(location.as_bytes())?;
        if self.url.scheme() == "https" && url.scheme() != "https" {
            return Err(EgressError::InsecureRedirect);
        }
        let mut next = self.clone();
        if is_get_from_now_on(status, &self.method) {
            next.method = Method::GET;
            next.body = None;
            for name in &BODY_HEADERS {
                next.headers.remove(name);
            }
        }
        if url.origin() != self.url.origin() {
            next.headers = only_safe(&next.headers);
        }
        next.url = url;
        Ok(Some(next))
    }

    fn url_at(&self, location: &[u8]) -> Result<Url, EgressError> {
        let bad = |problem: &str| EgressError::BadUrl {
            problem: format!("a redirect leads to none: {problem}"),
        };
        let text = std::str::from_utf8(location).map_err(|_| bad("not UTF-8"))?;
        let url = self.url.join(text).map_err(|error| bad(&error.to_string()))?;
        check_url(url)
    }
}

/// Whether the method changes: after 303, and as browsers always did after 301 and 302 of a `POST`.
fn is_get_from_now_on(status: StatusCode, method: &Method) -> bool {
    match status {
        StatusCode::SEE_OTHER => *method != Method::GET && *method != Method::HEAD,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => *method == Method::POST,
        _ => false,
    }
}

fn only_safe(headers: &HeaderMap) -> HeaderMap {
    let mut safe = HeaderMap::new();
    for name in &SAFE_HEADERS {
        for value in headers.get_all(name) {
            safe.append(name.clone(), value.clone());
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn hop(method: Method, url: &str) -> Hop {
        let mut headers = HeaderMap::new();
        for name in ["accept", "content-type", "authorization", "cookie", "x-api-key"] {
            headers.insert(name, HeaderValue::from_static("value"));
        }
        Hop { method, url: url.parse().unwrap(), headers, body: Some(Bytes::from_static(b"body")) }
    }

    fn next(hop: &Hop, status: u16, location: &str) -> Result<Option<Hop>, EgressError> {
        let mut answer = HeaderMap::new();
        answer.insert(header::LOCATION, HeaderValue::from_str(location).unwrap());
        hop.next(StatusCode::from_u16(status).unwrap(), &answer)
    }

    fn names(hop: &Hop) -> Vec<&str> {
        let mut names: Vec<_> = hop.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn s3_secrets_stay_with_their_origin() {
        let from = hop(Method::PUT, "https://a.example/x");
        let all = ["accept", "authorization", "content-type", "cookie", "x-api-key"];
        for same in ["/y", "https://a.example:443/y", "//a.example/y"] {
            assert_eq!(names(&next(&from, 307, same).unwrap().unwrap()), all, "{same}");
        }
        for other in [
            "https://b.example/",
            "https://a.example:8443/",
            "//a.example./",
            "https://x.a.example/",
        ] {
            assert_eq!(
                names(&next(&from, 307, other).unwrap().unwrap()),
                ["accept", "content-type"],
                "{other}"
            );
        }
        // From http to https is another origin as well.
        let plain = hop(Method::PUT, "http://a.example/x");
        let upgraded = next(&plain, 308, "https://a.example/x").unwrap().unwrap();
        assert_eq!(names(&upgraded), ["accept", "content-type"]);
    }

    #[test]
    fn s3_redirects_never_leave_the_web_or_tls() {
        let from = hop(Method::GET, "https://a.example/x");
        let refused = |location: &str| next(&from, 302, location).unwrap_err().code();
        assert_eq!(refused("http://a.example/x"), "insecure_redirect");
        assert_eq!(refused("file:///etc/passwd"), "blocked_scheme");
        assert_eq!(refused("gopher://a.example/"), "blocked_scheme");
        assert_eq!(refused("javascript:alert(1)"), "blocked_scheme");
        assert_eq!(refused("https://user:secret@a.example/"), "bad_url");
        assert_eq!(refused("https://"), "bad_url");
    }

    #[test]
    fn methods_and_bodies_change_as_browsers_change_them() {
        let changed = |method: &Method, status| {
            let next = next(&hop(method.clone(), "http://a/"), status, "/y").unwrap().unwrap();
            assert_eq!(next.body.is_none(), !names(&next).contains(&"content-type"));
            (next.method, next.body.is_some())
        };
        for status in [301, 302] {
            assert_eq!(changed(&Method::POST, status), (Method::GET, false));
            assert_eq!(changed(&Method::PUT, status), (Method::PUT, true));
        }
        assert_eq!(changed(&Method::PUT, 303), (Method::GET, false));
        assert_eq!(changed(&Method::HEAD, 303), (Method::HEAD, true));
        for status in [307, 308] {
            assert_eq!(changed(&Method::POST, status), (Method::POST, true));
        }
    }

    #[test]
    fn what_is_no_redirect_or_leads_nowhere_is_the_answer() {
        let from = hop(Method::GET, "http://a.example/x");
        for status in [200, 300, 304, 305, 306, 404] {
            assert!(next(&from, status, "/y").unwrap().is_none(), "{status}");
        }
        assert!(from.next(StatusCode::FOUND, &HeaderMap::new()).unwrap().is_none());
    }
}
