//! The adapter for servers that speak Chat Completions, the wire of `POST {base}/chat/completions`.

mod calls;
mod decoder;
mod request;
mod usage;

use std::collections::VecDeque;

use futures_util::stream::{self, BoxStream, StreamExt};

pub use self::calls::CALLS_MAX;
pub use self::decoder::ChatDecoder;
use crate::guard::Limits;
use crate::provider::{ApiKey, ConfigError};
use crate::sse::{self, SseEvent};
use crate::transport::Transport;
use crate::{Model, ModelError, ModelEvent, ModelRequest, ModelStream};

/// A server that speaks Chat Completions, whatever model it runs.
pub struct OpenAiCompatible {
    transport: Transport,
    url: String,
    shows_images: bool,
}

impl OpenAiCompatible {
    /// `base_url` is what stands before `/chat/completions`, such as `http://127.0.0.1:8081/v1`;
    /// `provider` names the provider in errors. Nothing is sent.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadBaseUrl`], [`ConfigError::BadApiKey`], or [`ConfigError::HttpClient`] when
    /// TLS cannot be set up.
    pub fn new(
        provider: &str,
        base_url: &str,
        api_key: Option<ApiKey>,
        limits: Limits,
    ) -> Result<Self, ConfigError> {
        let base_url = checked_base_url(provider, base_url)?;
        let transport = Transport::new(provider, api_key, limits)?;
        let url = format!("{base_url}/chat/completions");
        Ok(Self { transport, url, shows_images: false })
    }

    /// The same for models that can be shown images, or not.
    #[must_use]
    pub fn showing_images(self, shows_images: bool) -> Self {
        Self { shows_images, ..self }
    }
}

impl Model for OpenAiCompatible {
    fn stream(&self, request: ModelRequest) -> ModelStream {
        let body = request::body(&request).to_string();
        let decoder = ChatDecoder::redacting(self.transport.api_key().cloned());
        decode(sse::post(self.transport.clone(), &self.url, body), decoder)
    }

    fn shows_images(&self) -> bool {
        self.shows_images
    }
}

/// Turns the events of an answer into the common alphabet.
pub(crate) fn decode(
    events: BoxStream<'static, Result<SseEvent, ModelError>>,
    decoder: ChatDecoder,
) -> ModelStream {
    let decoding = Decoding { events, decoder, ready: VecDeque::new(), is_over: false };
    stream::unfold(decoding, Decoding::next).boxed()
}

struct Decoding {
    events: BoxStream<'static, Result<SseEvent, ModelError>>,
    decoder: ChatDecoder,
    ready: VecDeque<ModelEvent>,
    is_over: bool,
}

impl Decoding {
    async fn next(mut self) -> Option<(Result<ModelEvent, ModelError>, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            if self.is_over {
                return None;
            }
            if let Err(error) = self.read().await {
                self.is_over = true;
                return Some((Err(error), self));
            }
        }
    }

    async fn read(&mut self) -> Result<(), ModelError> {
        let events = match self.events.next().await {
            Some(Ok(event)) => self.decoder.push(&event.name, &event.data)?,
            // With a finish reason the answer is whole, however the connection ends after it.
            Some(Err(error)) if !self.decoder.is_answered() => return Err(error),
            Some(Err(_)) | None => self.decoder.finish()?,
        };
        self.is_over = matches!(events.last(), Some(ModelEvent::Finish { .. }));
        self.ready.extend(events);
        Ok(())
    }
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
