//! The half of a WebSocket that reads: bytes become the whole messages of RFC 6455.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use actix_http::ws::{CloseReason as WireReason, Codec, Frame, Item, ProtocolError};
use actix_web::rt::net::TcpStream;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use iris_actors::connection::{CloseReason, Inbound};
use iris_protocol::limits::{FRAGMENTS_MAX, FRAME_BYTES_MAX, HELLO_BYTES_MAX};
use tokio_util::codec::Decoder;

/// Of the head of a frame that is masked, as those of clients are.
const MASKED_HEAD_BYTES_MAX: usize = 14;
/// Room for what one read takes.
const READ_BYTES: usize = 4 * 1024;

/// What a client says.
#[cfg_attr(not(feature = "echo"), expect(dead_code, reason = "only an echo says all of it back"))]
pub(super) enum Heard {
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
            Heard::Binary(bytes) => Self::Binary(bytes),
            Heard::Ping(payload) => Self::Ping(payload),
            Heard::Pong => Self::Pong,
            Heard::Closed(_) => Self::Closed,
            Heard::Broken(reason) => Self::Broken(reason),
        }
    }
}

/// What came of a message that is not whole yet.
struct Fragments {
    is_text: bool,
    bytes: BytesMut,
    count: usize,
}

/// What the client sends, as whole messages.
pub(super) struct Incoming {
    stream: Arc<TcpStream>,
    /// What came before it was read here.
    came: BytesMut,
    codec: Codec,
    buffer: BytesMut,
    /// A message that is not whole yet.
    fragments: Option<Fragments>,
    is_ended: bool,
    /// Set by the connection once it knows who the client is; until then few bytes are read.
    is_known: Arc<AtomicBool>,
    /// Bytes that came before.
    unknown_bytes: usize,
}

impl Incoming {
    /// Reads a socket, behind what has come of it already.
    pub(super) fn new(stream: Arc<TcpStream>, came: BytesMut, is_known: Arc<AtomicBool>) -> Self {
        Self {
            stream,
            came,
            codec: Codec::new().max_size(FRAME_BYTES_MAX),
            buffer: BytesMut::new(),
            fragments: None,
            is_ended: false,
            is_known,
            unknown_bytes: 0,
        }
    }

    /// Takes bytes off the wire; how many there were, none at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.came.is_empty() {
            self.buffer = std::mem::take(&mut self.came);
            return Poll::Ready(Ok(self.buffer.len()));
        }
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            self.buffer.reserve(READ_BYTES);
            match self.stream.try_read_buf(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// Whether a stranger may send as many bytes as have come.
    fn may_come(&mut self, bytes: usize) -> bool {
        if self.is_known.load(Ordering::Relaxed) {
            return true;
        }
        self.unknown_bytes += bytes;
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
            match this.poll_read(cx) {
                Poll::Ready(Ok(bytes @ 1..)) => {
                    if !this.may_come(bytes) {
                        this.is_ended = true;
                        let reason = CloseReason::new(1009, "too much before hello");
                        return Poll::Ready(Some(Heard::Broken(reason)));
                    }
                }
                Poll::Ready(Ok(0) | Err(_)) => {
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
        let broken = |code, reason| Some(Heard::Broken(CloseReason::new(code, reason)));
        let first = |is_text| Fragments { is_text, bytes: BytesMut::new(), count: 0 };
        let (mut whole, bytes, is_last) = match (item, self.fragments.take()) {
            (Item::FirstText(bytes), None) => (first(true), bytes, false),
            (Item::FirstBinary(bytes), None) => (first(false), bytes, false),
            (Item::Continue(bytes), Some(whole)) => (whole, bytes, false),
            (Item::Last(bytes), Some(whole)) => (whole, bytes, true),
            (Item::FirstText(_) | Item::FirstBinary(_), Some(_))
            | (Item::Continue(_) | Item::Last(_), None) => {
                return broken(1002, "fragment out of order");
            }
        };
        if whole.bytes.len() + bytes.len() > FRAME_BYTES_MAX {
            return broken(1009, "message too big");
        }
        whole.bytes.extend_from_slice(&bytes);
        whole.count += 1;
        // Empty ones never make a message that is too big.
        if whole.count > FRAGMENTS_MAX {
            return broken(1008, "too many fragments");
        }
        if !is_last {
            self.fragments = Some(whole);
            return None;
        }
        let (is_text, whole) = (whole.is_text, whole.bytes.freeze());
        Some(if is_text { text(whole) } else { Heard::Binary(whole) })
    }
}

fn text(bytes: Bytes) -> Heard {
    if std::str::from_utf8(&bytes).is_ok() {
        return Heard::Text(bytes);
    }
    Heard::Broken(CloseReason::new(1007, "text is not UTF-8"))
}
