//! `GET /echo`: says back every message that it hears, so that a test suite of the protocol can talk to
//! the frames of this server (docs/conformance.md). It asks nobody who they are: only a server that was
//! built for such tests has it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;

use actix_http::ws::{Codec, Message};
use actix_web::rt::net::TcpStream;
use actix_web::{HttpRequest, HttpResponse};
use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use tokio_util::codec::Encoder;

use super::incoming::{Heard, Incoming};
use super::outgoing::{close, encode_text, hang_up, send};
use super::shake_hands;
use crate::http::RestError;
use crate::server::Taken;

/// `GET /echo`.
pub(crate) async fn connect(request: HttpRequest) -> Result<HttpResponse, RestError> {
    let (response, offer) = shake_hands(&request)?;
    offer.accept(async |taken| {
        // A client that goes away is no error.
        drop(echo(taken).await);
    });
    Ok(response)
}

/// Answers each message before the next one is read.
async fn echo(Taken { stream, mut unsent, came, .. }: Taken) -> io::Result<()> {
    let stream = Arc::new(stream);
    // Nobody says hello: as much may come as from somebody who is known.
    let is_known = Arc::new(AtomicBool::new(true));
    let mut incoming = Incoming::new(Arc::clone(&stream), came, is_known);
    let mut codec = Codec::new();
    loop {
        write_all(&stream, &mut unsent).await?;
        let Some(heard) = incoming.next().await else { return hang_up(&stream) };
        let message = match heard {
            Heard::Text(text) => {
                encode_text(&text, &mut unsent);
                continue;
            }
            Heard::Binary(bytes) => Message::Binary(bytes),
            Heard::Ping(payload) => Message::Pong(payload),
            Heard::Pong => continue,
            Heard::Closed(reason) => Message::Close(reason),
            Heard::Broken(reason) => close(reason),
        };
        codec.encode(message, &mut unsent).map_err(io::Error::other)?;
    }
}

async fn write_all(stream: &TcpStream, bytes: &mut BytesMut) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        let sent = poll_fn(|cx| Poll::Ready(send(stream, bytes, cx))).await?;
        bytes.advance(sent);
    }
    Ok(())
}
