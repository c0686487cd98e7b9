//! The adapter for Messages, the wire of `POST {base}/v1/messages`.

mod decoder;
mod request;
mod usage;

pub(crate) use self::decoder::AnthropicDecoder;
use crate::endpoint::{Endpoint, Wire};
use crate::provider::{ConfigError, ProviderConfig, ProviderKind};
use crate::transport::Framing;
use crate::{Model, ModelRequest, ModelStream};

/// The kind of data that is kept for this provider.
pub(crate) const KIND: &str = "anthropic";

/// How this wire is reached.
pub(crate) const WIRE: Wire = Wire {
    kind: ProviderKind::Anthropic,
    base_url: Some("https://api.anthropic.com"),
    key_header: "x-api-key",
    key_prefix: "",
    headers: &[("anthropic-version", "2023-06-01")],
    framing: Framing::Events,
};

/// A provider that speaks Messages.
pub(crate) struct Anthropic {
    endpoint: Endpoint,
}

impl Anthropic {
    pub(crate) fn new(provider: &str, config: &ProviderConfig) -> Result<Self, ConfigError> {
        let endpoint = Endpoint::new(provider, config, &WIRE)?;
        Ok(Self { endpoint })
    }
}

impl Model for Anthropic {
    fn stream(&self, request: ModelRequest) -> ModelStream {
        let endpoint = self.endpoint.asked_by(&request);
        let request = endpoint.bounded(request);
        let body = request::body(&request, endpoint.reasoning(&request.facts));
        let decoder = AnthropicDecoder::redacting(endpoint.api_key());
        endpoint.answer("/v1/messages", body, decoder)
    }

    fn shows_images(&self) -> Option<bool> {
        self.endpoint.shows_images
    }

    fn opaque_kind(&self) -> Option<&'static str> {
        Some(KIND)
    }
}
