//! What stands before every route: is the request meant for this server, and does it come from a
//! page that may ask? (DNS rebinding and cross-site WebSocket hijacking.)

use std::net::IpAddr;
use std::sync::Arc;

use actix_cors::Cors;
use actix_web::HttpResponse;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{CACHE_CONTROL, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use actix_web::middleware::Next;
use actix_web::web::Data;
use iris_protocol::{ApiError, ErrorCode};
use parking_lot::RwLock;

use super::RestError;

/// Names of this machine's loopback interface.
const LOOPBACK: &[&str] = &["localhost", "127.0.0.1", "[::1]"];

/// Headers that a page may send.
const ASKED_HEADERS: &[&str] = &[
    "authorization",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "if-range",
    "last-event-id",
    "range",
];
/// Headers of answers that a page may read.
const TOLD_HEADERS: &[&str] = &[
    "accept-ranges",
    "content-disposition",
    "content-range",
    "etag",
    "idempotent-replay",
    "retry-after",
    "x-iris-file-version",
    "x-request-id",
];
/// Longest path and query together, in bytes.
const URL_BYTES_MAX: usize = 8 * 1024;
/// Most bytes of all header lines together.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// What every answer tells browsers: it is data, of no page, in no page, for nobody else (OWASP REST Security
/// Cheat Sheet).
const TOLD_ALWAYS: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-site"),
];
/// How long a browser need not ask again.
const PREFLIGHT_SECONDS: usize = 3600;

/// Which hosts the server is and which pages may call it. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Gatekeeper(Arc<RwLock<Listed>>);

#[derive(Debug, Default)]
struct Listed {
    /// Host names, lower case; one with a port stands for that port alone.
    hosts: Vec<String>,
    /// Origins as browsers send them.
    origins: Vec<String>,
}

impl Gatekeeper {
    /// Lets requests through that name a loopback host, the address that the server is bound to, or
    /// one of `hosts`, and that come from no page or from one of `origins`.
    pub fn new(bound: IpAddr, hosts: &[String], origins: &[String]) -> Self {
        let gatekeeper = Self::default();
        gatekeeper.list(bound, hosts, origins);
        gatekeeper
    }

    /// Other hosts and origins, from the next request on.
    pub(crate) fn list(&self, bound: IpAddr, hosts: &[String], origins: &[String]) {
        let mut hosts: Vec<String> = hosts.iter().map(|host| host.to_lowercase()).collect();
        hosts.extend(LOOPBACK.iter().map(|host| (*host).to_owned()));
        match bound {
            IpAddr::V4(address) if !address.is_unspecified() => hosts.push(address.to_string()),
            IpAddr::V6(address) if !address.is_unspecified() => hosts.push(format!("[{address}]")),
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
        *self.0.write() = Listed { hosts, origins: origins.to_vec() };
    }

    /// Tells browsers what pages of the listed origins may do (the CORS protocol of
    /// <https://fetch.spec.whatwg.org/#http-cors-protocol>). Whom it does not list is refused before.
    pub(crate) fn cors(&self) -> Cors {
        let cors = Cors::default()
            .allowed_methods(["GET", "POST", "PUT", "PATCH", "DELETE"])
            .allowed_headers(ASKED_HEADERS.iter().copied())
            .expose_headers(TOLD_HEADERS.iter().copied())
            .max_age(PREFLIGHT_SECONDS);
        let gatekeeper = self.clone();
        cors.allowed_origin_fn(move |origin, _| gatekeeper.lists(origin))
    }

    fn lists(&self, origin: &HeaderValue) -> bool {
        let listed = self.0.read();
        origin.to_str().is_ok_and(|origin| listed.origins.iter().any(|known| known == origin))
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let host = host.to_lowercase();
        let name = without_port(&host);
        let is_known = |known: &String| *known == host || known == name;
        if !self.0.read().hosts.iter().any(is_known) {
            let message = "the `Host` header names a host that this server is not";
            return Err(ApiError::new(ErrorCode::BadHost, message));
        }
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        if self.lists(origin) {
            return Ok(());
        }
        let message = "pages of this origin may not call this server";
        Err(ApiError::new(ErrorCode::Forbidden, message).reason("origin"))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

/// The middleware. What it refuses is answered with `BAD_HOST`, or `FORBIDDEN` and reason `origin`.
///
/// # Errors
/// None of its own.
pub(crate) async fn guard<B: MessageBody>(
    gatekeeper: Data<Gatekeeper>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let checked = check_size(&request).and_then(|()| gatekeeper.check(request.headers()));
    let mut response = match checked {
        Ok(()) => next.call(request).await?.map_into_left_body(),
        Err(error) => {
            let refusal = HttpResponse::from_error(RestError::from(error));
            request.into_response(refusal).map_into_right_body()
        }
    };
    let headers = response.headers_mut();
    for (name, value) in TOLD_ALWAYS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    // What says nothing else is somebody's own, or a secret.
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(response)
}

/// Refuses a request whose head is longer than any that this server needs.
fn check_size(request: &ServiceRequest) -> Result<(), ApiError> {
    let url = request.uri().path_and_query().map_or(0, |url| url.as_str().len());
    if url > URL_BYTES_MAX {
        let message = format!("the URL is longer than {URL_BYTES_MAX} bytes");
        return Err(ApiError::invalid(message).reason("url_too_long"));
    }
    let lines = request.headers().iter();
    let headers: usize = lines.map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers > HEADER_BYTES_MAX {
        let message = format!("the headers have more than {HEADER_BYTES_MAX} bytes");
        return Err(ApiError::invalid(message).reason("headers_too_large"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, origin: Option<&str>) -> Result<(), ErrorCode> {
        let gatekeeper = Gatekeeper::new(
            IpAddr::from([127, 0, 0, 1]),
            &["iris.example".to_owned(), "port.example:8443".to_owned()],
            &["https://app.example".to_owned()],
        );
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        gatekeeper.check(&headers).map_err(|error| error.code)
    }

    #[test]
    fn only_hosts_that_the_server_is_are_served() {
        for host in [
            "localhost",
            "LOCALHOST:4747",
            "127.0.0.1:1",
            "[::1]:80",
            "iris.example:443",
            "port.example:8443",
        ] {
            assert_eq!(check(host, None), Ok(()), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost:x",
            "iris.example.",
            "port.example",
        ] {
            assert_eq!(check(host, None), Err(ErrorCode::BadHost), "{host}");
        }
    }

    #[test]
    fn only_pages_of_listed_origins_may_call() {
        assert_eq!(check("localhost", Some("https://app.example")), Ok(()));
        for origin in
            ["null", "https://app.example.evil.com", "http://app.example", "http://localhost"]
        {
            assert_eq!(check("localhost", Some(origin)), Err(ErrorCode::Forbidden), "{origin}");
        }
        let from_disk = Gatekeeper::new(IpAddr::from([127, 0, 0, 1]), &[], &["null".to_owned()]);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        headers.insert(ORIGIN, HeaderValue::from_static("null"));
        assert!(from_disk.check(&headers).is_ok());
    }
}
