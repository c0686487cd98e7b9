//! Where a provider is and how it is asked: what the adapters of all wires have in common.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use iris_protocol::ModelFacts;

use crate::catalog::effort;
use crate::provider::{ApiKey, ConfigError, Effort, ProviderConfig, ProviderKind, Reasoning};
use crate::transport::{Framing, Transport};
use crate::wire::{Decoder, decode};
use crate::{ModelRequest, ModelStream, frames};

/// What is the same for all providers of a kind.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) kind: ProviderKind,
    /// Where it is when the configuration does not say; without it the configuration has to.
    pub(crate) base_url: Option<&'static str>,
    /// The header that the key stands in, and what stands before it there.
    pub(crate) key_header: &'static str,
    pub(crate) key_prefix: &'static str,
    pub(crate) headers: &'static [(&'static str, &'static str)],
    pub(crate) framing: Framing,
}

/// A provider that can be asked.
#[derive(Clone)]
pub(crate) struct Endpoint {
    wire: &'static Wire,
    transport: Transport,
    base_url: String,
    max_output_tokens: Option<u32>,
    reasoning: Option<Reasoning>,
    /// What the operator says.
    pub(crate) shows_images: Option<bool>,
}

impl Endpoint {
    /// Connects to nothing.
    ///
    /// # Errors
    ///
    /// The first [`ConfigError`] of the configuration.
    pub(crate) fn new(
        provider: &str,
        config: &ProviderConfig,
        wire: &'static Wire,
    ) -> Result<Self, ConfigError> {
        let base_url = config.base_url.as_deref().filter(|url| !url.is_empty());
        let base_url = base_url.or(wire.base_url);
        let base_url =
            base_url.ok_or_else(|| ConfigError::NoBaseUrl { provider: provider.to_owned() })?;
        let base_url = checked_base_url(provider, base_url)?.to_owned();
        let headers = headers(config.api_key.as_ref(), wire)
            .ok_or_else(|| ConfigError::BadApiKey { provider: provider.to_owned() })?;
        let transport = Transport::new(provider, config, wire, headers)?;
        let max_output_tokens = config.max_output_tokens;
        let (reasoning, shows_images) = (config.reasoning, config.images);
        Ok(Self { wire, transport, base_url, max_output_tokens, reasoning, shows_images })
    }

    /// The same as a request asks it: known to the provider by its key, and heard by its tap.
    pub(crate) fn asked_by(&self, request: &ModelRequest) -> Cow<'_, Self> {
        let mut endpoint = Cow::Borrowed(self);
        if let Some(key) = &request.api_key {
            // A key that cannot stand in a header is none, as the provider will say.
            let headers = headers(Some(key), self.wire).unwrap_or_default();
            endpoint.to_mut().transport = self.transport.with_key(key, headers);
        }
        if let Some(tap) = &request.tap {
            endpoint.to_mut().transport.tap = Some(tap.clone());
        }
        if let Some(pulse) = &request.pulse {
            endpoint.to_mut().transport.pulse = Some(pulse.clone());
        }
        endpoint
    }

    /// The request with the operator's limit where it has none, without what the model does not take.
    pub(crate) fn bounded(&self, mut request: ModelRequest) -> ModelRequest {
        let facts = &request.facts;
        let most = facts.output_tokens.and_then(|tokens| u32::try_from(tokens).ok());
        let wanted = request.max_output_tokens.or(self.max_output_tokens);
        request.max_output_tokens = wanted.map(|wanted| wanted.min(most.unwrap_or(u32::MAX)));
        if facts.sampling == Some(false) {
            request.temperature = None;
            request.top_p = None;
        }
        if facts.structured_output == Some(false) {
            request.output_schema = None;
        }
        if facts.tools == Some(false) {
            request.prompt.tools.clear();
        }
        request
    }

    /// How much the model thinks: what the operator wants, as far as the model can.
    pub(crate) fn reasoning(&self, facts: &ModelFacts) -> Option<Reasoning> {
        if facts.reasoning == Some(false) {
            return Some(Reasoning::Off);
        }
        match self.reasoning? {
            Reasoning::Off => Some(Reasoning::Off),
            Reasoning::Effort(wanted) => Some(Reasoning::Effort(nearest(wanted, facts))),
        }
    }

    /// The key that no error may show.
    pub(crate) fn api_key(&self) -> Option<ApiKey> {
        self.transport.api_key().cloned()
    }

    /// Posts `body` once the answer is asked for, and decodes that.
    pub(crate) fn answer(&self, path: &str, body: String, decoder: impl Decoder) -> ModelStream {
        let url = format!("{}{path}", self.base_url);
        let frames = frames::post(self.transport.clone(), &url, body);
        decode(frames, decoder, self.transport.limits.progress)
    }
}

/// The hardest that the model knows of those that are not harder than `wanted`, else the easiest.
fn nearest(wanted: Effort, facts: &ModelFacts) -> Effort {
    let known = facts.efforts.iter().flatten().filter_map(|name| effort(name));
    let known: Vec<Effort> = known.collect();
    let not_harder = known.iter().copied().filter(|effort| *effort <= wanted).max();
    not_harder.or_else(|| known.into_iter().min()).unwrap_or(wanted)
}

/// None for a key that cannot stand in a header.
fn headers(key: Option<&ApiKey>, wire: &Wire) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in wire.headers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if let Some(key) = key.filter(|key| !key.expose().is_empty()) {
        let mut value =
            HeaderValue::from_str(&format!("{}{}", wire.key_prefix, key.expose())).ok()?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(wire.key_header), value);
    }
    Some(headers)
}

fn checked_base_url<'a>(provider: &str, base_url: &'a str) -> Result<&'a str, ConfigError> {
    let uri = base_url.parse::<http::Uri>().ok();
    let is_good = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    if !is_good {
        return Err(ConfigError::BadBaseUrl { provider: provider.to_owned() });
    }
    Ok(base_url.trim_end_matches('/'))
}
