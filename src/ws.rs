//! One WebSocket: the frames of RFC 6455 on one side, a connection actor and its queue on the other.
//!
//! Handshake and codec are the library's; the library's own actor is not used, because it lives
//! inside the response body and stops with a reader that stalls (docs/decisions/0001).

#[cfg(feature = "echo")]
pub(crate) mod echo;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use actix_http::ws::{
    CloseCode, CloseReason as WireReason, Codec, Frame, Item, Message, ProtocolError,
};
use actix_web::web::{Data, Payload, Query};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use actix_web_actors::ws::handshake;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use iris_actors::connection::{CloseReason, Inbound, NewConnection, OutFrame, Outbound};
use iris_actors::{Node, TicketUse};
use iris_protocol::limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX};
use iris_protocol::{ApiError, Operation};
use tokio_util::codec::{Decoder, Encoder};

use crate::http::{RestError, peer, who_connects};
use crate::sockets::{self, Deafening};

/// Bytes that one write joins from the queue, as long as there are frames.
const WRITE_BYTES: usize = 32 * 1024;
/// Of the head of a frame that is not masked.
const HEAD_BYTES_MAX: usize = 10;
/// Of one that is masked, as those of clients are.
const MASKED_HEAD_BYTES_MAX: usize = HEAD_BYTES_MAX + 4;

/// `GET /v1/ws`.
pub(crate) async fn connect(
    node: Data<Node>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, RestError> {
    let claims = who_connects(&node, &request, ticket(&request).as_deref(), &TicketUse::Socket)?;
    if claims.is_some() {
        node.count(claims.as_ref(), &peer(&request))?;
        node.admits(claims.as_ref(), Operation::Ping, None, None).await?;
    }
    let mut response = shake_hands(&request)?;
    let outbound = Arc::new(Outbound::default());
    let is_known = Arc::new(AtomicBool::new(claims.is_some()));
    let connection = NewConnection {
        node: Node::clone(&node),
        inbound: Incoming::new(payload, Arc::clone(&is_known)).map(Inbound::from),
        is_known,
        outbound: Arc::clone(&outbound),
        abort: sockets::abort(&request),
        claims,
        peer: peer(&request),
    };
    connection.start();
    let end = Deafening::of(&request);
    Ok(response.streaming(Outgoing { outbound, codec: Codec::new(), _end: end }))
}

fn shake_hands(request: &HttpRequest) -> Result<HttpResponseBuilder, ApiError> {
    handshake(request).map_err(|error| {
        ApiError::invalid(format!("not a WebSocket handshake: {error}")).reason("handshake")
    })
}

/// The ticket in the URL, if it has one.
fn ticket(request: &HttpRequest) -> Option<String> {
    let query = Query::<Vec<(String, String)>>::from_query(request.query_string()).ok()?;
    query.into_inner().into_iter().find(|(name, _)| name == "ticket").map(|(_, ticket)| ticket)
}

/// The response body: what waits in the queue, as frames, several in one write.
struct Outgoing {
    outbound: Arc<Outbound>,
    codec: Codec,
    _end: Deafening,
}

impl Stream for Outgoing {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frames = match self.outbound.poll_some(WRITE_BYTES, cx) {
            Poll::Ready(Some(frames)) => frames,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let bytes = frames.iter().map(|frame| HEAD_BYTES_MAX + frame.json().map_or(0, Bytes::len));
        let mut written = BytesMut::with_capacity(bytes.sum());
        for frame in frames {
            self.write(frame, &mut written);
        }
        Poll::Ready(Some(Ok(written.freeze())))
    }
}

impl Outgoing {
    fn write(&mut self, frame: OutFrame, to: &mut BytesMut) {
        let control = match frame {
            OutFrame::Text(json)
            | OutFrame::Replay(json)
            | OutFrame::Delta(_, json)
            | OutFrame::Snapshot(_, json)
            | OutFrame::Latest(_, json)
            | OutFrame::Left(_, json) => return write_text(&json, to),
            OutFrame::Ping => Message::Ping(Bytes::new()),
            OutFrame::Pong(payload) => Message::Pong(payload),
            OutFrame::Close(reason) => close(reason),
        };
        if let Err(error) = self.codec.encode(control, to) {
            tracing::error!(%error, "a frame could not be encoded");
        }
    }
}

fn close(CloseReason { code, text }: CloseReason) -> Message {
    Message::Close(Some(WireReason { code: CloseCode::from(code), description: Some(text) }))
}

/// Writes a text frame (RFC 6455, section 5.2). The codec would look at every byte of JSON for every
/// reader, whether it is UTF-8; JSON from serde is.
fn write_text(json: &[u8], to: &mut BytesMut) {
    const LAST_TEXT: u8 = 0x81;
    to.put_u8(LAST_TEXT);
    match (u8::try_from(json.len()), u16::try_from(json.len())) {
        (Ok(length @ 0..=125), _) => to.put_u8(length),
        (_, Ok(length)) => {
            to.put_u8(126);
            to.put_u16(length);
        }
        (_, Err(_)) => {
            to.put_u8(127);
            to.put_u64(json.len() as u64);
        }
    }
    to.put_slice(json);
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.outbound.abandon();
    }
}

/// What a client says.
#[cfg_attr(not(feature = "echo"), expect(dead_code, reason = "only an echo says all of it back"))]
enum Heard {
    /// A whole text message, UTF-8.
    Text(Bytes),
    /// A whole binary message.
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    /// The client said goodbye, if it said why; or is gone.
    Closed(Option<WireReason>),
    /// What came breaks the rules; nothing more is read.
    Broken(CloseReason),
}

impl From<Heard> for Inbound {
    fn from(heard: Heard) -> Self {
        match heard {
            Heard::Text(text) => Self::Text(text),
            Heard::Binary(_) => Self::Binary,
            Heard::Ping(payload) => Self::Ping(payload),
            Heard::Pong => Self::Pong,
            Heard::Closed(_) => Self::Closed,
            Heard::Broken(reason) => Self::Broken(reason),
        }
    }
}

/// What the client sends, as whole messages.
struct Incoming {
    payload: Payload,
    codec: Codec,
    buffer: BytesMut,
    /// The fragments of a message that is not whole yet, and whether it is text.
    fragments: Option<(bool, BytesMut)>,
    is_ended: bool,
    /// Set by the connection once it knows who the client is; until then few bytes are read.
    is_known: Arc<AtomicBool>,
    /// Bytes that came before.
    unknown_bytes: usize,
}

impl Incoming {
    fn new(payload: Payload, is_known: Arc<AtomicBool>) -> Self {
        Self {
            payload,
            codec: Codec::new().max_size(FRAME_BYTES_MAX),
            buffer: BytesMut::new(),
            fragments: None,
            is_ended: false,
            is_known,
            unknown_bytes: 0,
        }
    }

    /// Takes bytes off the wire; says whether a stranger may send as many.
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        if self.is_known.load(Ordering::Relaxed) {
            return true;
        }
        self.unknown_bytes += bytes.len();
        self.unknown_bytes <= HELLO_BYTES_MAX
    }
}

impl Stream for Incoming {
    type Item = Heard;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        let this = &mut *self;
        loop {
            if this.is_ended {
                return Poll::Ready(None);
            }
            match this.codec.decode(&mut this.buffer) {
                Ok(Some(frame)) => {
                    let Some(heard) = this.whole(frame) else { continue };
                    this.is_ended = matches!(heard, Heard::Closed(_) | Heard::Broken(_));
                    return Poll::Ready(Some(heard));
                }
                // The codec waits for all of a frame before it looks how much that is.
                Ok(None) if this.buffer.len() > FRAME_BYTES_MAX + MASKED_HEAD_BYTES_MAX => {
                    this.is_ended = true;
                    return Poll::Ready(Some(Heard::Broken(broken(&ProtocolError::Overflow))));
                }
                Ok(None) => {}
                Err(error) => {
                    this.is_ended = true;
                    return Poll::Ready(Some(Heard::Broken(broken(&error))));
                }
            }
            match Pin::new(&mut this.payload).poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    if !this.take(&bytes) {
                        this.is_ended = true;
                        let reason = CloseReason::new(1009, "too much before hello");
                        return Poll::Ready(Some(Heard::Broken(reason)));
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => {
                    this.is_ended = true;
                    return Poll::Ready(Some(Heard::Closed(None)));
                }
                Poll::Pending => {
                    // Most clients are silent most of the time.
                    if this.buffer.is_empty() {
                        this.buffer = BytesMut::new();
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

fn broken(error: &ProtocolError) -> CloseReason {
    if matches!(error, ProtocolError::Overflow) {
        return CloseReason::new(1009, "message too big");
    }
    CloseReason::new(1002, "protocol error")
}

impl Incoming {
    fn whole(&mut self, frame: Frame) -> Option<Heard> {
        match frame {
            Frame::Text(bytes) => Some(text(bytes)),
            Frame::Binary(bytes) => Some(Heard::Binary(bytes)),
            Frame::Continuation(item) => self.fragment(item),
            Frame::Ping(payload) => Some(Heard::Ping(payload)),
            Frame::Pong(_) => Some(Heard::Pong),
            Frame::Close(reason) => Some(Heard::Closed(reason)),
        }
    }

    fn fragment(&mut self, item: Item) -> Option<Heard> {
        let out_of_order = || Some(Heard::Broken(CloseReason::new(1002, "fragment out of order")));
        let (is_text, mut whole, bytes, is_last) = match (item, self.fragments.take()) {
            (Item::FirstText(bytes), None) => (true, BytesMut::new(), bytes, false),
            (Item::FirstBinary(bytes), None) => (false, BytesMut::new(), bytes, false),
            (Item::Continue(bytes), Some((is_text, whole))) => (is_text, whole, bytes, false),
            (Item::Last(bytes), Some((is_text, whole))) => (is_text, whole, bytes, true),
            (Item::FirstText(_) | Item::FirstBinary(_), Some(_))
            | (Item::Continue(_) | Item::Last(_), None) => return out_of_order(),
        };
        if whole.len() + bytes.len() > FRAME_BYTES_MAX {
            return Some(Heard::Broken(CloseReason::new(1009, "message too big")));
        }
        whole.extend_from_slice(&bytes);
        if !is_last {
            self.fragments = Some((is_text, whole));
            return None;
        }
        let whole = whole.freeze();
        Some(if is_text { text(whole) } else { Heard::Binary(whole) })
    }
}

fn text(bytes: Bytes) -> Heard {
    if std::str::from_utf8(&bytes).is_ok() {
        return Heard::Text(bytes);
    }
    Heard::Broken(CloseReason::new(1007, "text is not UTF-8"))
}
