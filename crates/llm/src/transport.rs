//! The one HTTP stack of the adapters: reqwest behind the trait of the event-stream client.
//!
//! Status, content type, error bodies and byte limits are checked here and nowhere else. Redirects
//! are never followed and nothing is sent twice: both would give away the key or bill a prompt again.

use std::error::Error;
use std::path::Path;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response};
use launchdarkly_sdk_transport::{ByteStream, HttpTransport, ResponseFuture, TransportError};
use reqwest::Certificate;
use reqwest::redirect::Policy;

use crate::endpoint::Wire;
use crate::failure::{excerpt, from_event, from_response};
pub(crate) use crate::guard::Framing;
use crate::guard::{Limits, guard, silent};
use crate::provider::{ApiKey, ConfigError, ProviderConfig};
use crate::tap::Hearing;
use crate::{ErrorClass, ModelError, Pulse, Tapped};

/// Most bytes of an error's body that are read.
const ERROR_BODY_BYTES_MAX: usize = 16 * 1024;

/// Makes ring the process's provider of TLS cryptography, unless there is one. Call it first thing in
/// `main`; calling it again does nothing.
pub fn install_tls_provider() {
    // The error means that there is a provider already.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// Sends requests with the provider's key and hands out checked bodies.
#[derive(Clone)]
pub(crate) struct Transport {
    client: reqwest::Client,
    wire: &'static Wire,
    api_key: Option<ApiKey>,
    /// With the key among them.
    headers: HeaderMap,
    pub(crate) limits: Limits,
    /// Who hears what is sent and what comes.
    pub(crate) tap: Option<Tapped>,
    /// Who hears that something comes.
    pub(crate) pulse: Option<Pulse>,
}

impl Transport {
    pub(crate) fn new(
        provider: &str,
        config: &ProviderConfig,
        wire: &'static Wire,
        headers: HeaderMap,
    ) -> Result<Self, ConfigError> {
        install_tls_provider();
        let api_key = config.api_key.clone().filter(|key| !key.expose().is_empty());
        let limits = config.limits;
        let mut client = reqwest::Client::builder()
            .connect_timeout(limits.connect)
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            // The environment's proxies are not for us: what is not configured is not there.
            .no_proxy()
            .no_gzip();
        if let Some(proxy) = &config.proxy {
            client = client.proxy(proxy.to_proxy(provider)?);
        }
        if let Some(path) = &config.ca_file {
            client = client.tls_certs_merge(certificates(provider, path)?);
        }
        let client = client
            .build()
            .map_err(|source| ConfigError::HttpClient { provider: provider.to_owned(), source })?;
        Ok(Self { client, wire, api_key, headers, limits, tap: None, pulse: None })
    }

    /// The same connections with another key and the headers with it.
    pub(crate) fn with_key(&self, key: &ApiKey, headers: HeaderMap) -> Self {
        Self { api_key: Some(key.clone()), headers, ..self.clone() }
    }

    /// The key that no error may show.
    pub(crate) fn api_key(&self) -> Option<&ApiKey> {
        self.api_key.as_ref()
    }

    pub(crate) fn framing(&self) -> Framing {
        self.wire.framing
    }

    async fn send(
        self,
        request: Request<Option<Bytes>>,
    ) -> Result<Response<ByteStream>, ModelError> {
        let mut request = request.map(Option::unwrap_or_default);
        // Before the key is among its headers.
        let hearing = self.tap.as_ref();
        let hearing =
            hearing.map(|tap| Hearing::begin(tap, request.uri().to_string(), request.body()));
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let request = reqwest::Request::try_from(request).map_err(|e| unreachable_provider(&e))?;
        let sent = tokio::time::timeout(self.limits.first_byte, self.client.execute(request)).await;
        let response = sent
            .map_err(|_| silent(self.limits.first_byte))?
            .map_err(|error| unreachable_provider(&error))?;
        self.accept(response, hearing).await
    }

    /// Takes an event stream; anything else is an error, read from the answer.
    async fn accept(
        &self,
        response: reqwest::Response,
        hearing: Option<Hearing>,
    ) -> Result<Response<ByteStream>, ModelError> {
        let status = response.status();
        let headers = response.headers().clone();
        let mut body: ByteStream = Box::pin(response.bytes_stream().map_err(TransportError::new));
        if let Some(mut hearing) = hearing {
            hearing.answered(status, &headers);
            body = hearing.of(body);
        }
        if let Some(pulse) = &self.pulse {
            pulse.beat();
        }
        let body = guard(body, self.wire.framing, self.limits, self.pulse.clone());
        if !status.is_success() {
            let body = error_body(body).await;
            let kind = self.wire.kind;
            return Err(from_response(kind, status.as_u16(), &headers, &body, self.api_key()));
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_wrong = |text: &&str| !is_stream(self.wire.framing, text);
        if let Some(content_type) = content_type.filter(is_wrong) {
            return Err(self.not_a_stream(content_type, &error_body(body).await));
        }
        let mut accepted = Response::new(body);
        *accepted.status_mut() = status;
        *accepted.headers_mut() = headers;
        Ok(accepted)
    }

    fn not_a_stream(&self, content_type: &str, body: &[u8]) -> ModelError {
        let value = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
        if value.get("error").is_some_and(|error| !error.is_null()) {
            return from_event(&value, self.api_key());
        }
        let content_type = excerpt(content_type, self.api_key());
        let said = excerpt(&String::from_utf8_lossy(body), self.api_key());
        let message = format!(
            "the provider answered with `{content_type}` instead of an event stream: `{said}`"
        );
        ModelError::new(ErrorClass::Protocol, message)
    }
}

impl HttpTransport for Transport {
    fn request(&self, request: Request<Option<Bytes>>) -> ResponseFuture {
        let transport = self.clone();
        Box::pin(async move { transport.send(request).await.map_err(TransportError::new) })
    }
}

fn is_stream(framing: Framing, content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let expected: &[&str] = match framing {
        Framing::Events => &["text/event-stream"],
        Framing::Lines => &["application/x-ndjson", "application/json", "application/jsonl"],
    };
    expected.iter().any(|expected| essence.eq_ignore_ascii_case(expected))
}

/// Certificates of authorities besides those of the system.
fn certificates(provider: &str, path: &Path) -> Result<Vec<Certificate>, ConfigError> {
    let (provider, path) = (provider.to_owned(), path.to_owned());
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(source) => return Err(ConfigError::UnreadableCaFile { provider, path, source }),
    };
    match Certificate::from_pem_bundle(&text) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(ConfigError::BadCaFile { provider, path }),
    }
}

/// The beginning of an error's body; as much as came when the connection breaks.
async fn error_body(mut body: ByteStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = body.next().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= ERROR_BODY_BYTES_MAX {
            bytes.truncate(ERROR_BODY_BYTES_MAX);
            break;
        }
    }
    bytes
}

fn unreachable_provider(error: &reqwest::Error) -> ModelError {
    // Without the address: that of a proxy may hold a password.
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(one) = cause {
        causes.push(one.to_string());
        cause = one.source();
    }
    let causes = causes.join(": ");
    tracing::warn!(causes, "a provider could not be reached");
    let message = if error.is_timeout() {
        "the provider did not accept the connection in time"
    } else if error.is_connect() {
        "the provider could not be reached"
    } else {
        "the request to the provider failed"
    };
    ModelError::new(ErrorClass::Transient, message)
}
