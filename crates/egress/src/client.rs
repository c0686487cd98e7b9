//! The client: one way out for all requests.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::HeaderValue;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use reqwest::redirect::Policy as Redirects;
use rustls::ClientConfig;
use rustls_platform_verifier::ConfigVerifierExt;
use tokio::time::{Instant, timeout, timeout_at};
use url::{Host, Url};

use crate::body::Body;
use crate::config::Config;
use crate::error::EgressError;
use crate::gate::{Gate, Turn};
use crate::hop::{Hop, REDIRECTS_MAX};
use crate::policy::{Policy, Trust};
use crate::request::{Follows, Request};
use crate::resolver::{Lookup, Resolver, SystemLookup, Unresolved};
use crate::target::parse_url;

const USER_AGENT: &str = concat!("Iris/", env!("CARGO_PKG_VERSION"));

/// The one way out. Cheap to share behind an `Arc`; keeps no connection, so that nobody gets to use one that
/// was made for somebody else, and each request is judged anew.
pub struct Egress {
    config: Config,
    lookup: Arc<dyn Lookup>,
    policy: Arc<Policy>,
    checked: reqwest::Client,
    /// For destinations that the operator named; `None` if there are none.
    named: Option<reqwest::Client>,
    gate: Gate,
}

/// An answer whose body is still on its way.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status, such as 200; an answer with 404 is an answer.
    pub status: u16,
    /// What answered, after all redirects.
    pub final_url: Url,
    /// What sent the client on, in order; at most [`REDIRECTS_MAX`].
    pub redirects: Vec<Url>,
    /// As they came, without those of an encoding that is undone.
    pub headers: HeaderMap,
    /// The decoded body.
    pub body: Body,
}

/// A destination that was looked up and judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// As it is asked for.
    pub url: Url,
    /// Where it is, in the order in which they should be tried; never empty.
    pub addresses: Vec<IpAddr>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The HTTP status, such as 200; an answer with 404 is an answer.
    pub status: u16,
    /// What answered, after all redirects.
    pub final_url: Url,
    /// What sent the client on, in order; at most [`REDIRECTS_MAX`].
    pub redirects: Vec<Url>,
    /// As they came, without those of an encoding that is undone.
    pub headers: HeaderMap,
    /// The `Content-Type` header, if it is text.
    pub content_type: Option<String>,
    /// The decoded body, or its beginning.
    pub body: Bytes,
    /// Whether there was more than the limit allows.
    pub is_truncated: bool,
}

impl Egress {
    /// A client that asks the operating system for addresses. The first one of a process reads the system's
    /// certificates.
    ///
    /// # Errors
    ///
    /// `Setup` when TLS cannot be set up.
    pub fn new(config: Config) -> Result<Self, EgressError> {
        Self::with_lookup(config, Arc::new(SystemLookup))
    }

    /// A client that asks `lookup` for addresses.
    ///
    /// # Errors
    ///
    /// As [`Egress::new`].
    pub fn with_lookup(config: Config, lookup: Arc<dyn Lookup>) -> Result<Self, EgressError> {
        // The error means that the process has a provider already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let policy = Arc::new(Policy::new(&config.allow));
        let resolver = |lookup, trust| Resolver { lookup, policy: Arc::clone(&policy), trust };
        let named = if policy.has_places() {
            Some(client(&config, resolver(Arc::clone(&lookup), Trust::Named))?)
        } else {
            None
        };
        let checked = client(&config, resolver(Arc::clone(&lookup), Trust::Checked))?;
        let gate = Gate::new(&config);
        Ok(Self { config, lookup, policy, checked, named, gate })
    }

    /// Looks a destination up and judges it, for a program that makes the connection itself: it may connect to
    /// these addresses and to no other. Plain `http` is for what the operator let through.
    ///
    /// # Errors
    ///
    /// `BadUrl`, `BlockedScheme`, `BlockedPort`, `BlockedAddress`, `Dns`, `TimedOut`.
    pub async fn pin(&self, url: &str) -> Result<Pinned, EgressError> {
        let url = parse_url(url)?;
        let trust = self.policy.judge(&url)?;
        let host = host_of(&url).to_owned();
        let addresses = match url.host() {
            Some(Host::Ipv4(address)) => vec![address.into()],
            Some(Host::Ipv6(address)) => vec![address.into()],
            Some(Host::Domain(name)) => {
                let resolver = Resolver {
                    lookup: Arc::clone(&self.lookup),
                    policy: Arc::clone(&self.policy),
                    trust,
                };
                let limit = self.config.connect_timeout;
                let found = timeout(limit, resolver.addresses(name.to_owned())).await;
                let found = found.map_err(|_| EgressError::TimedOut { limit })?;
                found.map_err(|error| unresolved(&error, host))?
            }
            None => Vec::new(),
        };
        let is_let_through =
            trust == Trust::Named || addresses.iter().all(|it| self.policy.is_excepted(*it));
        if url.scheme() == "http" && !is_let_through {
            return Err(EgressError::BlockedScheme { scheme: "http".to_owned() });
        }
        Ok(Pinned { url, addresses })
    }

    /// Sends `request`, follows redirects and reads the body as far as the limit allows.
    ///
    /// # Errors
    ///
    /// Each variant of [`EgressError`] but `Setup`; `TooLarge` for headers alone: a body that is too long is
    /// cut and says so.
    pub async fn fetch(&self, request: Request) -> Result<Response, EgressError> {
        let Answer { status, final_url, redirects, headers, mut body } = self.send(request).await?;
        let mut bytes = BytesMut::new();
        let is_truncated = loop {
            match body.chunk().await {
                Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                Ok(None) => break false,
                Err(EgressError::TooLarge { .. }) => break true,
                Err(error) => return Err(error),
            }
        };
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.map(str::to_owned);
        let body = bytes.freeze();
        Ok(Response { status, final_url, redirects, headers, content_type, body, is_truncated })
    }

    /// Sends `request`, follows redirects and hands out the body while it comes, under the same limits.
    ///
    /// # Errors
    ///
    /// Each variant of [`EgressError`] but `Setup`.
    pub async fn send(&self, request: Request) -> Result<Answer, EgressError> {
        let limit = request.timeout.unwrap_or(self.config.timeout).min(self.config.timeout);
        let bytes_max = request.body_bytes_max.unwrap_or(self.config.body_bytes_max);
        let bytes_max = bytes_max.min(self.config.body_bytes_max);
        let deadline = Instant::now() + limit;
        let admission = self.gate.admit()?;
        let followed = timeout_at(deadline, self.follow(request)).await;
        let (hop, redirects, response, turn) =
            followed.map_err(|_| EgressError::TimedOut { limit })??;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = Body {
            host: host_of(&hop.url).to_owned(),
            pieces: response.bytes_stream().boxed(),
            bytes_left: bytes_max,
            bytes_max,
            is_cut: false,
            is_over: false,
            deadline,
            limit,
            _turn: turn,
            _admission: admission,
        };
        Ok(Answer { status, final_url: hop.url, redirects, headers, body })
    }

    async fn follow(
        &self,
        request: Request,
    ) -> Result<(Hop, Vec<Url>, reqwest::Response, Turn), EgressError> {
        let Request { method, url, mut headers, body, follows, .. } = request;
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        let mut hop = Hop { method, url: parse_url(&url)?, headers, body };
        let mut redirects = Vec::new();
        loop {
            let trust = self.policy.judge(&hop.url)?;
            let turn = self.gate.turn(host_of(&hop.url)).await?;
            let response = self.ask(&hop, trust).await?;
            let Some(next) = hop.next(response.status(), response.headers())? else {
                check_encoding(&hop.url, response.headers())?;
                return Ok((hop, redirects, response, turn));
            };
            if redirects.len() == REDIRECTS_MAX {
                return Err(EgressError::TooManyRedirects);
            }
            if let Some(Follows(follows)) = &follows
                && !follows(&next.url)
            {
                return Err(EgressError::RefusedRedirect { url: next.url });
            }
            redirects.push(hop.url);
            hop = next;
        }
    }

    async fn ask(&self, hop: &Hop, trust: Trust) -> Result<reqwest::Response, EgressError> {
        let client = match (trust, &self.named) {
            (Trust::Named, Some(named)) => named,
            (Trust::Named, None) | (Trust::Checked, _) => &self.checked,
        };
        let mut request = client.request(hop.method.clone(), hop.url.clone());
        request = request.headers(hop.headers.clone());
        if let Some(body) = &hop.body {
            request = request.body(body.clone());
        }
        let response = request
            .send()
            .await
            .map_err(|error| failure(host_of(&hop.url), error, self.config.connect_timeout))?;
        let bytes_max = self.config.header_bytes_max;
        let header_bytes: usize =
            response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if header_bytes > bytes_max {
            return Err(EgressError::TooLarge { part: "header", bytes_max });
        }
        Ok(response)
    }
}

/// Whom all clients of the process trust: those whom the system trusts, read once, for that are hundreds of files.
static TRUSTED: OnceLock<ClientConfig> = OnceLock::new();

fn trusted() -> Result<ClientConfig, EgressError> {
    if let Some(trusted) = TRUSTED.get() {
        return Ok(trusted.clone());
    }
    let read = ClientConfig::with_platform_verifier();
    let read = read.map_err(|source| EgressError::Setup { source: source.into() })?;
    Ok(TRUSTED.get_or_init(|| read).clone())
}

fn client(config: &Config, resolver: Resolver) -> Result<reqwest::Client, EgressError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(trusted()?)
        .user_agent(USER_AGENT)
        .dns_resolver(resolver)
        .redirect(Redirects::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .gzip(true)
        .pool_max_idle_per_host(0)
        .connect_timeout(config.connect_timeout)
        .build()
        .map_err(|source| EgressError::Setup { source: source.into() })
}

/// Refuses a body in an encoding that was not asked for: it would be noise, or a way around the limit.
fn check_encoding(url: &Url, headers: &HeaderMap) -> Result<(), EgressError> {
    let is_plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Ok(());
    }
    Err(EgressError::BadResponse { host: host_of(url).to_owned(), source: None })
}

fn host_of(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

fn unresolved(error: &Unresolved, host: String) -> EgressError {
    match error {
        Unresolved::Blocked => EgressError::BlockedAddress { host },
        Unresolved::Empty | Unresolved::Failed(_) => EgressError::Dns { host },
    }
}

/// What went wrong before there was an answer: the reason lies somewhere in the chain of causes.
fn failure(host: &str, error: reqwest::Error, connect_timeout: Duration) -> EgressError {
    let host = host.to_owned();
    let error = error.without_url();
    tracing::debug!(?error, host, "a request out failed");
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(unresolved) = current.downcast_ref::<Unresolved>() {
            return self::unresolved(unresolved, host);
        }
        if let Some(problem) = current.downcast_ref::<rustls::Error>() {
            return EgressError::Tls { host, problem: problem.to_string() };
        }
        // An `io::Error` that holds another error does not name it as its source.
        let inner = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.map(|inner| inner as &(dyn Error + 'static));
        cause = inner.or_else(|| current.source());
    }
    if error.is_timeout() {
        return EgressError::TimedOut { limit: connect_timeout };
    }
    if error.is_connect() {
        return EgressError::Connect { host, source: error };
    }
    EgressError::BadResponse { host, source: Some(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_plain_or_undone_is_read() {
        let url: Url = "http://a.example/".parse().unwrap();
        let check = |value: &'static str| {
            let headers =
                HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(value))]);
            check_encoding(&url, &headers).map_err(|error| error.code())
        };
        assert!(check_encoding(&url, &HeaderMap::new()).is_ok());
        assert_eq!(check("Identity"), Ok(()));
        assert_eq!(check("br"), Err("bad_response"));
        assert_eq!(check("gzip, br"), Err("bad_response"));
    }
}
