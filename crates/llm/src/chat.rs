//! The adapter for servers that speak Chat Completions, the wire of `POST {base}/chat/completions`.

mod calls;
mod decoder;
mod request;
mod usage;

pub(crate) use self::decoder::ChatDecoder;
pub(crate) use self::request::tool;
use crate::endpoint::{Endpoint, Wire};
use crate::provider::{ChatSwitches, ConfigError, ProviderConfig, ProviderKind};
use crate::transport::Framing;
use crate::{Model, ModelRequest, ModelStream};

/// The kind of data that is kept for these servers.
pub(crate) const KIND: &str = "openai-compatible";

/// How this wire is reached.
pub(crate) const WIRE: Wire = Wire {
    kind: ProviderKind::OpenAiCompatible,
    base_url: None,
    key_header: "authorization",
    key_prefix: "Bearer ",
    headers: &[],
    framing: Framing::Events,
};

/// A server that speaks Chat Completions, whatever model it runs.
pub(crate) struct OpenAiCompatible {
    endpoint: Endpoint,
    switches: ChatSwitches,
}

impl OpenAiCompatible {
    pub(crate) fn new(provider: &str, config: &ProviderConfig) -> Result<Self, ConfigError> {
        let endpoint = Endpoint::new(provider, config, &WIRE)?;
        Ok(Self { endpoint, switches: config.chat })
    }
}

impl Model for OpenAiCompatible {
    fn stream(&self, request: ModelRequest) -> ModelStream {
        let endpoint = self.endpoint.asked_by(&request);
        let request = endpoint.bounded(request);
        let body = request::body(&request, self.switches, endpoint.reasoning(&request.facts));
        let decoder = ChatDecoder::redacting(endpoint.api_key());
        endpoint.answer("/chat/completions", body, decoder)
    }

    fn shows_images(&self) -> Option<bool> {
        self.endpoint.shows_images
    }

    fn opaque_kind(&self) -> Option<&'static str> {
        Some(KIND)
    }
}
