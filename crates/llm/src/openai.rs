//! The adapter for Responses, the wire of `POST {base}/responses`. Nothing is stored at the provider: what
//! it has to know again is sent to it again.

mod decoder;
mod request;
mod usage;

pub(crate) use self::decoder::ResponsesDecoder;
use crate::endpoint::{Endpoint, Wire};
use crate::provider::{ConfigError, ProviderConfig, ProviderKind};
use crate::transport::Framing;
use crate::{Model, ModelRequest, ModelStream};

/// The kind of data that is kept for this provider.
pub(crate) const KIND: &str = "openai";

/// How this wire is reached.
pub(crate) const WIRE: Wire = Wire {
    kind: ProviderKind::OpenAi,
    base_url: Some("https://api.openai.com/v1"),
    key_header: "authorization",
    key_prefix: "Bearer ",
    headers: &[],
    framing: Framing::Events,
};

/// A provider that speaks Responses.
pub(crate) struct OpenAi {
    endpoint: Endpoint,
}

impl OpenAi {
    pub(crate) fn new(provider: &str, config: &ProviderConfig) -> Result<Self, ConfigError> {
        let endpoint = Endpoint::new(provider, config, &WIRE)?;
        Ok(Self { endpoint })
    }
}

impl Model for OpenAi {
    fn stream(&self, request: ModelRequest) -> ModelStream {
        let endpoint = self.endpoint.asked_by(&request);
        let request = endpoint.bounded(request);
        let body = request::body(&request, endpoint.reasoning(&request.facts));
        let decoder = ResponsesDecoder::redacting(endpoint.api_key());
        endpoint.answer("/responses", body, decoder)
    }

    fn shows_images(&self) -> Option<bool> {
        self.endpoint.shows_images
    }

    fn opaque_kind(&self) -> Option<&'static str> {
        Some(KIND)
    }
}
