//! The one HTTP stack of the adapters: reqwest behind the trait of the event-stream client.
//!
//! Status, content type, error bodies and byte limits are checked here and nowhere else. Redirects
//! are never followed and nothing is sent twice: both would give away the key or bill a prompt again.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use launchdarkly_sdk_transport::{ByteStream, HttpTransport, ResponseFuture, TransportError};
use reqwest::redirect::Policy;

use crate::failure::{excerpt, from_event, from_response};
use crate::guard::{Limits, guard, silent};
use crate::provider::{ApiKey, ConfigError};
use crate::{ErrorClass, ModelError};

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
    api_key: Option<ApiKey>,
    bearer: Option<HeaderValue>,
    limits: Limits,
}

impl Transport {
    pub(crate) fn new(
        provider: &str,
        api_key: Option<ApiKey>,
        limits: Limits,
    ) -> Result<Self, ConfigError> {
        install_tls_provider();
        let api_key = api_key.filter(|key| !key.expose().is_empty());
        let bearer = match &api_key {
            Some(key) => Some(
                bearer(key)
                    .ok_or_else(|| ConfigError::BadApiKey { provider: provider.to_owned() })?,
            ),
            None => None,
        };
        let client = reqwest::Client::builder()
            .connect_timeout(limits.connect)
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .no_gzip()
            .build()
            .map_err(|source| ConfigError::HttpClient { provider: provider.to_owned(), source })?;
        Ok(Self { client, api_key, bearer, limits })
    }

    /// The key that no error may show.
    pub(crate) fn api_key(&self) -> Option<&ApiKey> {
        self.api_key.as_ref()
    }

    async fn send(
        self,
        request: Request<Option<Bytes>>,
    ) -> Result<Response<ByteStream>, ModelError> {
        let mut request = request.map(Option::unwrap_or_default);
        if let Some(bearer) = &self.bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        let request = reqwest::Request::try_from(request).map_err(|e| unreachable_provider(&e))?;
        let sent = tokio::time::timeout(self.limits.first_byte, self.client.execute(request)).await;
        let response = sent
            .map_err(|_| silent(self.limits.first_byte))?
            .map_err(|error| unreachable_provider(&error))?;
        self.accept(response).await
    }

    /// Takes an event stream; anything else is an error, read from the answer.
    async fn accept(
        &self,
        response: reqwest::Response,
    ) -> Result<Response<ByteStream>, ModelError> {
        let status = response.status();
        let headers = response.headers().clone();
        let body =
            guard(Box::pin(response.bytes_stream().map_err(TransportError::new)), self.limits);
        if !status.is_success() {
            let body = error_body(body).await;
            return Err(from_response(status.as_u16(), &headers, &body, self.api_key()));
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if let Some(content_type) = content_type.filter(|text| !is_event_stream(text)) {
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

fn bearer(key: &ApiKey) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn is_event_stream(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("text/event-stream")
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
    tracing::warn!(?error, "a provider could not be reached");
    let message = if error.is_timeout() {
        "the provider did not accept the connection in time"
    } else if error.is_connect() {
        "the provider could not be reached"
    } else {
        "the request to the provider failed"
    };
    ModelError::new(ErrorClass::Transient, message)
}
