//! `GET /echo`: says back every message that it hears, so that a test suite of the protocol can talk to
//! the frames of this server (docs/conformance.md). It asks nobody who they are: only a server that was
//! built for such tests has it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};

use actix_http::ws::{Codec, Message};
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio_util::codec::Encoder;

use super::{Heard, Incoming, close, shake_hands, write_text};
use crate::http::RestError;
use crate::sockets::Deafening;

/// `GET /echo`.
pub(crate) async fn connect(
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, RestError> {
    let mut response = shake_hands(&request)?;
    // Nobody says hello: as much may come as from somebody who is known.
    let incoming = Incoming::new(payload, Arc::new(AtomicBool::new(true)));
    let end = Deafening::of(&request);
    Ok(response.streaming(Echo { incoming, codec: Codec::new(), is_ended: false, _end: end }))
}

/// The response body: an answer to each message, before the next one is read.
struct Echo {
    incoming: Incoming,
    codec: Codec,
    /// The last frame was a close frame.
    is_ended: bool,
    _end: Deafening,
}

impl Stream for Echo {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut written = BytesMut::new();
        while written.is_empty() && !this.is_ended {
            match Pin::new(&mut this.incoming).poll_next(cx) {
                Poll::Ready(Some(heard)) => this.answer(heard, &mut written),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        if written.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(written.freeze())))
    }
}

impl Echo {
    fn answer(&mut self, heard: Heard, to: &mut BytesMut) {
        let message = match heard {
            Heard::Text(text) => return write_text(&text, to),
            Heard::Binary(bytes) => Message::Binary(bytes),
            Heard::Ping(payload) => Message::Pong(payload),
            Heard::Pong => return,
            Heard::Closed(reason) => {
                self.is_ended = true;
                Message::Close(reason)
            }
            Heard::Broken(reason) => {
                self.is_ended = true;
                close(reason)
            }
        };
        if let Err(error) = self.codec.encode(message, to) {
            tracing::error!(%error, "a frame could not be encoded");
        }
    }
}
