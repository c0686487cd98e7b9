//! One WebSocket: the frames of RFC 6455 on one side, a connection actor and its queue on the other.
//!
//! Handshake and codec are the library's; the library's own actor is not used, because it lives
//! inside the response body and stops with a reader that stalls (docs/decisions/0001).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use actix_http::ws::{
    CloseCode, CloseReason as WireReason, Codec, Frame, Item, Message, ProtocolError,
};
use actix_web::web::{Data, Payload, Query};
use actix_web::{HttpRequest, HttpResponse};
use actix_web_actors::ws::handshake;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use iris_actors::connection::{CloseReason, Inbound, NewConnection, OutFrame, Outbound};
use iris_actors::{Node, TicketUse};
use iris_protocol::limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX};
use iris_protocol::{ApiError, Operation};
use tokio_util::codec::{Decoder, Encoder};

use crate::http::{RestError, peer, who_connects};
use crate::sockets;

/// Bytes that one write joins from the queue, as long as there are frames.
const WRITE_BYTES: usize = 32 * 1024;

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
    let mut response = handshake(&request).map_err(|error| {
        ApiError::invalid(format!("not a WebSocket handshake: {error}")).reason("handshake")
    })?;
    let outbound = Arc::new(Outbound::default());
    let is_known = Arc::new(AtomicBool::new(claims.is_some()));
    let connection = NewConnection {
        node: Node::clone(&node),
        inbound: Incoming::new(payload, Arc::clone(&is_known)),
        is_known,
        outbound: Arc::clone(&outbound),
        abort: sockets::abort(&request),
        claims,
        peer: peer(&request),
    };
    connection.start();
    Ok(response.streaming(Outgoing { outbound, codec: Codec::new() }))
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
}

impl Stream for Outgoing {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut written = BytesMut::new();
        while written.len() < WRITE_BYTES {
            match self.outbound.poll_next(cx) {
                Poll::Ready(Some(frame)) => {
                    if let Err(error) = self.codec.encode(message(frame), &mut written) {
                        tracing::error!(%error, "a frame could not be encoded");
                    }
                }
                Poll::Ready(None) if written.is_empty() => return Poll::Ready(None),
                Poll::Pending if written.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Ok(written.freeze())))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.outbound.abandon();
    }
}

fn message(frame: OutFrame) -> Message {
    match frame {
        // JSON from serde is UTF-8; should it ever not be, the client gets an empty frame.
        OutFrame::Text(json)
        | OutFrame::Replay(json)
        | OutFrame::Delta(_, json)
        | OutFrame::Snapshot(_, json)
        | OutFrame::Latest(_, json)
        | OutFrame::Left(_, json) => Message::Text(json.try_into().unwrap_or_default()),
        OutFrame::Ping => Message::Ping(Bytes::new()),
        OutFrame::Pong(payload) => Message::Pong(payload),
        OutFrame::Close(CloseReason { code, text }) => Message::Close(Some(WireReason {
            code: CloseCode::from(code),
            description: Some(text),
        })),
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
    type Item = Inbound;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        let this = &mut *self;
        loop {
            if this.is_ended {
                return Poll::Ready(None);
            }
            match this.codec.decode(&mut this.buffer) {
                Ok(Some(frame)) => {
                    let Some(inbound) = this.whole(frame) else { continue };
                    this.is_ended = matches!(inbound, Inbound::Closed | Inbound::Broken(_));
                    return Poll::Ready(Some(inbound));
                }
                Ok(None) => {}
                Err(error) => {
                    this.is_ended = true;
                    return Poll::Ready(Some(Inbound::Broken(broken(&error))));
                }
            }
            match Pin::new(&mut this.payload).poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    if !this.take(&bytes) {
                        this.is_ended = true;
                        let reason = CloseReason::new(1009, "too much before hello");
                        return Poll::Ready(Some(Inbound::Broken(reason)));
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => {
                    this.is_ended = true;
                    return Poll::Ready(Some(Inbound::Closed));
                }
                Poll::Pending => return Poll::Pending,
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
    fn whole(&mut self, frame: Frame) -> Option<Inbound> {
        match frame {
            Frame::Text(bytes) => Some(text(bytes)),
            Frame::Binary(_) => Some(Inbound::Binary),
            Frame::Continuation(item) => self.fragment(item),
            Frame::Ping(payload) => Some(Inbound::Ping(payload)),
            Frame::Pong(_) => Some(Inbound::Pong),
            Frame::Close(_) => Some(Inbound::Closed),
        }
    }

    fn fragment(&mut self, item: Item) -> Option<Inbound> {
        let out_of_order =
            || Some(Inbound::Broken(CloseReason::new(1002, "fragment out of order")));
        let (is_text, mut whole, bytes, is_last) = match (item, self.fragments.take()) {
            (Item::FirstText(bytes), None) => (true, BytesMut::new(), bytes, false),
            (Item::FirstBinary(bytes), None) => (false, BytesMut::new(), bytes, false),
            (Item::Continue(bytes), Some((is_text, whole))) => (is_text, whole, bytes, false),
            (Item::Last(bytes), Some((is_text, whole))) => (is_text, whole, bytes, true),
            (Item::FirstText(_) | Item::FirstBinary(_), Some(_))
            | (Item::Continue(_) | Item::Last(_), None) => return out_of_order(),
        };
        if whole.len() + bytes.len() > FRAME_BYTES_MAX {
            return Some(Inbound::Broken(CloseReason::new(1009, "message too big")));
        }
        whole.extend_from_slice(&bytes);
        if !is_last {
            self.fragments = Some((is_text, whole));
            return None;
        }
        Some(if is_text { text(whole.freeze()) } else { Inbound::Binary })
    }
}

fn text(bytes: Bytes) -> Inbound {
    if std::str::from_utf8(&bytes).is_ok() {
        return Inbound::Text(bytes);
    }
    Inbound::Broken(CloseReason::new(1007, "text is not UTF-8"))
}
