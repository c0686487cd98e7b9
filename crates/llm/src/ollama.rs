//! The adapter for Ollama's own wire, `POST {base}/api/chat`, which answers with lines of JSON.

mod decoder;
mod request;

pub(crate) use self::decoder::OllamaDecoder;
use crate::endpoint::{Endpoint, Wire};
use crate::provider::{ConfigError, ProviderConfig, ProviderKind};
use crate::transport::Framing;
use crate::{Model, ModelRequest, ModelStream};

/// How this wire is reached.
pub(crate) const WIRE: Wire = Wire {
    kind: ProviderKind::Ollama,
    base_url: Some("http://127.0.0.1:11434"),
    key_header: "authorization",
    key_prefix: "Bearer ",
    headers: &[],
    framing: Framing::Lines,
};

/// A server that speaks Ollama's wire.
pub(crate) struct Ollama {
    endpoint: Endpoint,
    /// What the operator says.
    context_tokens: Option<u32>,
}

impl Ollama {
    pub(crate) fn new(provider: &str, config: &ProviderConfig) -> Result<Self, ConfigError> {
        let endpoint = Endpoint::new(provider, config, &WIRE)?;
        Ok(Self { endpoint, context_tokens: config.context_tokens })
    }
}

impl Model for Ollama {
    fn stream(&self, request: ModelRequest) -> ModelStream {
        let endpoint = self.endpoint.asked_by(&request);
        let request = endpoint.bounded(request);
        let reasoning = endpoint.reasoning(&request.facts);
        let known = request.facts.context_tokens.and_then(|tokens| u32::try_from(tokens).ok());
        let body = request::body(&request, reasoning, self.context_tokens.or(known));
        let decoder = OllamaDecoder::redacting(endpoint.api_key());
        endpoint.answer("/api/chat", body, decoder)
    }

    fn shows_images(&self) -> Option<bool> {
        self.endpoint.shows_images
    }
}
