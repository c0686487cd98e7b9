//! The adapter for Gemini, the wire of `POST {base}/v1beta/models/{model}:streamGenerateContent`.

mod decoder;
mod request;
mod usage;

use futures_util::{StreamExt, stream};

pub(crate) use self::decoder::GoogleDecoder;
use crate::endpoint::{Endpoint, Wire};
use crate::provider::{ConfigError, ProviderConfig, ProviderKind};
use crate::transport::Framing;
use crate::{ErrorClass, Model, ModelError, ModelRequest, ModelStream};

/// The kind of data that is kept for this provider.
pub(crate) const KIND: &str = "google";

/// How this wire is reached.
pub(crate) const WIRE: Wire = Wire {
    kind: ProviderKind::Google,
    base_url: Some("https://generativelanguage.googleapis.com"),
    key_header: "x-goog-api-key",
    key_prefix: "",
    headers: &[],
    framing: Framing::Events,
};

/// A provider that speaks Gemini.
pub(crate) struct Google {
    endpoint: Endpoint,
}

impl Google {
    pub(crate) fn new(provider: &str, config: &ProviderConfig) -> Result<Self, ConfigError> {
        let endpoint = Endpoint::new(provider, config, &WIRE)?;
        Ok(Self { endpoint })
    }
}

impl Model for Google {
    fn stream(&self, request: ModelRequest) -> ModelStream {
        let endpoint = self.endpoint.asked_by(&request);
        let request = endpoint.bounded(request);
        if !is_model_name(&request.model) {
            let message =
                "the name of the model has characters that this provider's names do not have";
            let error = ModelError::new(ErrorClass::Invalid, message);
            return stream::iter([Err(error)]).boxed();
        }
        let path = format!("/v1beta/models/{}:streamGenerateContent?alt=sse", request.model);
        let body = request::body(&request, endpoint.reasoning(&request.facts));
        let decoder = GoogleDecoder::redacting(endpoint.api_key());
        endpoint.answer(&path, body, decoder)
    }

    fn shows_images(&self) -> Option<bool> {
        self.endpoint.shows_images
    }

    fn opaque_kind(&self) -> Option<&'static str> {
        Some(KIND)
    }
}

/// The name is part of the address: it must not lead anywhere else.
fn is_model_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.chars().all(is_part) && !name.chars().all(|c| c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_cannot_lead_to_another_address() {
        assert!(is_model_name("gemini-2.5-pro"));
        for name in ["", "..", "a/b", "a?b", "a%2e", "a:b", "a b", "a#b"] {
            assert!(!is_model_name(name), "{name}");
        }
    }
}
