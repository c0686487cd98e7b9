//! Server-sent events of one request, with our errors.

use eventsource_client::{Client, ClientBuilder, Error, ReconnectOptions, SSE};
use futures_util::future;
use futures_util::stream::{self, StreamExt};
use launchdarkly_sdk_transport::{HttpTransport, TransportError};

use crate::wire::{Frame, Frames};
use crate::{ErrorClass, ModelError};

/// Posts `body` and hands out the events of the answer. Ends at the end of the body, or after the
/// first error. Comments are dropped.
pub(crate) fn post(transport: impl HttpTransport, url: &str, body: String) -> Frames {
    let builder = match ClientBuilder::for_url(url) {
        Ok(builder) => builder,
        Err(error) => return stream::iter([Err(model_error(&error))]).boxed(),
    };
    let client = builder
        .method("POST".to_owned())
        .body(body)
        // Its defaults would send the prompt again after an error, and the key to a new address.
        .reconnect(ReconnectOptions::reconnect(false).retry_initial(false).build())
        .redirect_limit(0)
        .build_with_transport(transport);
    let events = client.stream().filter_map(|item| future::ready(frame(item)));
    events.boxed()
}

fn frame(item: Result<SSE, Error>) -> Option<Result<Frame, ModelError>> {
    match item {
        Ok(SSE::Event(event)) => Some(Ok(Frame { name: event.event_type, data: event.data })),
        Ok(SSE::Connected(_) | SSE::Comment(_)) | Err(Error::Eof | Error::UnexpectedEof) => None,
        Err(error) => Some(Err(model_error(&error))),
    }
}

/// The error that our own transport gave.
pub(crate) fn transport_error(error: &TransportError) -> ModelError {
    match error.inner().downcast_ref::<ModelError>() {
        Some(error) => error.clone(),
        None => ModelError::new(ErrorClass::Transient, "the connection to the provider failed"),
    }
}

fn model_error(error: &Error) -> ModelError {
    match error {
        Error::Transport(error) => transport_error(error),
        Error::Eof | Error::UnexpectedEof => ModelError::truncated(),
        Error::TimedOut
        | Error::InvalidParameter(_)
        | Error::UnexpectedResponse(..)
        | Error::HttpStream(_)
        | Error::InvalidLine(_)
        | Error::InvalidEvent
        | Error::MalformedLocationHeader(_)
        | Error::MaxRedirectLimitReached(_) => {
            let message = "the provider's answer is not a valid event stream";
            ModelError::new(ErrorClass::Protocol, message)
        }
    }
}
